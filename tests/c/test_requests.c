/* Requests: ended once by whoever is first, in every order; the caller's buffer; deadlines; notes; inboxes. */
#include "fakes.h"

#include <fcntl.h>

static ex_lane *lane;
static fake f;
static ex_channel *ch;

static void begin(unsigned long count)
{
    fakes_install();
    lane = ex_lane_new("test");
    ch = fake_channel(lane, &f, "dev:x", DBR_DOUBLE, count);
    fake_up(&f);
}

static void end(void)
{
    end_channel(ch);
    end_lane(lane);
}

/* A get that libca has been asked; what ex_ca_get does. */
static ex_request *asked(void)
{
    ex_request *r = ex_request_new(ch, DBR_TIME_DOUBLE, 0);
    CHECK_EQ(ex_request_lend(r), 0);
    ch->in_call--;
    return r;
}

static void answer(ex_request *r, long count, double first) { fake_reply(&r->link, r->type, count, first, ECA_NORMAL); }

static int ended_as(ex_request *r, int reason, int status)
{
    return r->state == EX_DONE && r->reason == reason && r->status == status && r->out == NULL;
}

static void a_reply_ends_it(void)
{
    ex_request *r;
    begin(3);
    r = asked();
    CHECK_EQ(ex_lent(), 2);                      /* the channel and the request */
    CHECK(ch->pending == &r->link);
    CHECK_EQ(ex_request_wait(r, ex_now()), EX_PENDING);
    answer(r, 3, 5);
    CHECK_EQ(ex_request_wait(r, EX_FOREVER), EX_DONE);
    CHECK(ended_as(r, EX_BY_REPLY, ECA_NORMAL));
    CHECK_EQ(r->block->count, 3);
    CHECK_EQ(r->block->dbr_type, DBR_TIME_DOUBLE);
    CHECK_EQ(r->block->scalar, 0);
    CHECK_EQ(block_value(r->block, 2), 7);
    CHECK_EQ(((struct dbr_time_double *)EX_HEADER(r->block))->status, 42);
    CHECK_EQ(ex_lent(), 1);
    CHECK(ch->pending == NULL);
    CHECK_EQ(ex_load(&r->refs), 1);
    ex_request_unref(r);
    end();
}

static void *answer_later(void *p)
{
    struct timespec pause = {0, 20000000};
    nanosleep(&pause, NULL);
    answer((ex_request *)p, 1, 9);
    return NULL;
}

static void a_reply_wakes_the_waiter(void)
{
    ex_request *r;
    pthread_t t;
    begin(1);
    r = asked();
    pthread_create(&t, NULL, answer_later, r);
    CHECK_EQ(ex_request_wait(r, EX_FOREVER), EX_DONE);
    CHECK_EQ(block_value(r->block, 0), 9);
    ex_request_unref(r);                         /* while the replying thread may still be inside */
    pthread_join(t, NULL);
    end();
}

static void only_a_connected_channel_lends(void)
{
    ex_request *r;
    begin(1);
    fake_down(&f);
    r = ex_request_new(ch, DBR_TIME_DOUBLE, 0);
    CHECK_EQ(ex_request_lend(r), ECA_DISCONN);
    ex_channel_ref(ch);
    end_channel(ch);
    CHECK_EQ(ex_request_lend(r), ECA_CHANDESTROY);
    CHECK_EQ(ex_lent(), 0);
    CHECK_EQ(ch->in_call, 0);
    ex_request_unref(r);
    ex_channel_unref(ch);
    end_lane(lane);
}

/* ---------------------------------------------------- every end, in every order */

enum { REPLY, BAD_REPLY, DEADLINE, EXPIRE, CLOSE, SHUTDOWN, ENDS };

static void do_end(ex_request *r, int how)
{
    switch (how) {
    case REPLY:
        if (r->link.lent)                        /* libca answers once */
            answer(r, 1, 1);
        break;
    case BAD_REPLY:
        if (r->link.lent)
            fake_reply(&r->link, -1, 0, 0, ECA_DISCONN);
        break;
    case DEADLINE:
        ex_request_end(r, EX_BY_DEADLINE, ECA_TIMEOUT);
        break;
    case EXPIRE:
        ex_lane_expire(lane, EX_FOREVER);
        break;
    case CLOSE:
        ex_channel_close_pending(ch, EX_BY_CLOSE, NULL);
        break;
    default:
        ex_lane_end_requests(lane, EX_BY_SHUTDOWN);
    }
}

static void the_first_end_is_the_only_one(void)
{
    static const int reasons[ENDS] = {EX_BY_REPLY, EX_BY_REPLY, EX_BY_DEADLINE, EX_BY_DEADLINE, EX_BY_CLOSE, EX_BY_SHUTDOWN};
    static const int statuses[ENDS] = {ECA_NORMAL, ECA_DISCONN, ECA_TIMEOUT, ECA_TIMEOUT, ECA_CHANDESTROY, ECA_CHANDESTROY};
    int a, b, c, form;
    begin(1);
    for (form = 0; form < 8; form++)             /* with and without a note, a buffer, the dispatcher's deadline */
        for (a = 0; a < ENDS; a++)
            for (b = 0; b < ENDS; b++)
                for (c = 0; c < ENDS; c++) {
                    double out = -1;
                    int first = a, notes = 0, due = form & 4;
                    ex_request *r = ex_request_new(ch, DBR_TIME_DOUBLE, 0);
                    ex_taken t;
                    if (form & 1)
                        ex_request_note(r);
                    if (form & 2) {
                        r->out = &out;
                        r->out_count = 1;
                    }
                    CHECK_EQ(ex_request_lend(r), 0);
                    ch->in_call--;
                    if (due)
                        ex_request_due(r, ex_now() + (int64_t)60000000000);
                    else if (a == EXPIRE)        /* then that one does nothing */
                        first = b != EXPIRE ? b : c;
                    do_end(r, a);
                    do_end(r, b);
                    do_end(r, c);
                    if (first == EXPIRE && !due)
                        CHECK_EQ(r->state, EX_PENDING);
                    else {
                        CHECK_EQ(r->reason, reasons[first]);
                        CHECK_EQ(r->status, statuses[first]);
                        CHECK(ended_as(r, reasons[first], statuses[first]));
                        CHECK_EQ(out, first == REPLY && (form & 2) ? 1 : -1);
                        CHECK_EQ(r->block != NULL, first == REPLY);
                        CHECK(!r->due && lane->first_due == NULL);
                    }
                    if (r->link.lent)            /* libca answers in the end, whatever we have given up */
                        answer(r, 1, 2);
                    CHECK(ch->pending == NULL);
                    for (; ex_lane_take(lane, &t); notes++) {
                        CHECK(t.kind == EX_NOTE_COMPLETION && t.subject == r);
                        ex_taken_done(&t);
                    }
                    CHECK_EQ(notes, form & 1);
                    CHECK_EQ(ex_load(&r->refs), 1);
                    ex_request_unref(r);
                    CHECK_EQ(ex_lent(), 1);
                    CHECK_EQ(ex_blocks(), 0);
                }
    end();
}

static void a_late_reply_frees_what_it_brought(void)
{
    ex_request *r;
    begin(1000);
    r = asked();
    CHECK_EQ(ex_request_end(r, EX_BY_DEADLINE, ECA_TIMEOUT), 1);
    CHECK_EQ(ex_request_end(r, EX_BY_CLOSE, ECA_CHANDESTROY), 0);
    ex_request_unref(r);                         /* only libca has it now */
    CHECK_EQ(ex_lent(), 2);
    answer(r, 1000, 1);
    CHECK_EQ(ex_lent(), 1);
    CHECK_EQ(ex_blocks(), 0);
    end();
}

static void a_refused_request_is_taken_back(void)
{
    ex_request *r;
    begin(1);
    r = asked();
    ex_request_take_back(r);
    CHECK_EQ(ex_lent(), 1);
    CHECK_EQ(ex_load(&r->refs), 1);
    CHECK_EQ(r->state, EX_PENDING);              /* the caller knows: it got the status */
    ex_request_take_back(r);                     /* nothing twice */
    CHECK_EQ(ex_load(&r->refs), 1);
    ex_request_unref(r);
    end();
}

static void a_cleared_channel_gives_everything_back(void)
{
    ex_request *open_, *ended, *noted;
    begin(1);
    open_ = asked();
    ended = asked();
    noted = ex_request_new(ch, DBR_TIME_DOUBLE, 0);
    ex_request_note(noted);
    CHECK_EQ(ex_request_lend(noted), 0);
    ch->in_call--;
    ex_request_end(ended, EX_BY_DEADLINE, ECA_TIMEOUT);
    CHECK_EQ(ex_lent(), 4);
    ex_channel_recall(ch);
    CHECK_EQ(ex_lent(), 1);
    CHECK(ended_as(open_, EX_BY_REPLY, ECA_DISCONN));
    CHECK(ended_as(ended, EX_BY_DEADLINE, ECA_TIMEOUT));
    CHECK(ended_as(noted, EX_BY_REPLY, ECA_DISCONN));
    CHECK_EQ(skip_note(lane), EX_NOTE_COMPLETION);
    ex_request_unref(open_);
    ex_request_unref(ended);
    ex_request_unref(noted);
    end();
}

static void a_drop_ends_everything_and_waits_for_callers(void)
{
    ex_request *r;
    begin(1);
    r = ex_request_new(ch, DBR_TIME_DOUBLE, 0);
    CHECK_EQ(ex_request_lend(r), 0);             /* a caller is inside libca with the chid */
    ex_channel_ref(ch);
    ex_channel_drop(ch);
    CHECK(ended_as(r, EX_BY_CLOSE, ECA_CHANDESTROY));
    keeper(lane);
    CHECK(ch->id != NULL);                       /* not cleared under the caller */
    ex_lock(&lane->lock);
    if (--ch->in_call == 0)
        ex_channel_plan(ch);                     /* as call_done() does */
    ex_unlock(&lane->lock);
    keeper(lane);
    CHECK(ch->id == NULL);
    CHECK_EQ(ex_lent(), 0);
    ex_request_unref(r);
    ex_channel_unref(ch);
    ex_channel_unref(ch);
    end_lane(lane);
}

static void close_ends_those_of_one_owner(void)
{
    ex_request *a, *b, *c;
    int me, you;
    begin(1);
    a = asked();
    b = asked();
    c = asked();
    a->owner = c->owner = &me;
    b->owner = &you;
    ex_channel_close_pending(ch, EX_BY_CLOSE, &me);
    CHECK(ended_as(a, EX_BY_CLOSE, ECA_CHANDESTROY));
    CHECK(ended_as(c, EX_BY_CLOSE, ECA_CHANDESTROY));
    CHECK_EQ(b->state, EX_PENDING);
    answer(b, 1, 1);
    answer(a, 1, 1);
    answer(c, 1, 1);
    ex_request_unref(a);
    ex_request_unref(b);
    ex_request_unref(c);
    end();
}

/* ------------------------------------------------------------ values and buffers */

static void the_callers_buffer(void)
{
    double out[4] = {-1, -1, -1, -1};
    ex_request *r;
    begin(10);
    r = asked();
    r->out = out;
    r->out_count = 3;
    answer(r, 3, 20);
    CHECK(ended_as(r, EX_BY_REPLY, ECA_NORMAL));
    CHECK(out[0] == 20 && out[2] == 22 && out[3] == -1);
    CHECK_EQ(r->block->count, 3);
    CHECK_EQ(r->block->nbytes, 0);               /* the values are where the caller wants them */
    CHECK_EQ(((struct dbr_time_double *)EX_HEADER(r->block))->status, 42);
    ex_request_unref(r);

    r = asked();                                 /* fewer than there is room for */
    r->out = out;
    r->out_count = 3;
    answer(r, 1, 30);
    CHECK(out[0] == 30 && out[1] == 21);
    CHECK_EQ(r->block->count, 1);
    ex_request_unref(r);

    r = asked();                                 /* none at all */
    r->out = out;
    r->out_count = 3;
    answer(r, 0, 40);
    CHECK(ended_as(r, EX_BY_REPLY, ECA_NORMAL));
    CHECK(out[0] == 30);
    ex_request_unref(r);
    end();
}

static void a_reply_too_long_for_the_buffer(void)
{
    double out[4] = {-1, -1, -1, -1};
    ex_request *r;
    begin(10);
    r = asked();
    r->out = out;
    r->out_count = 3;
    answer(r, 4, 20);
    CHECK(ended_as(r, EX_BY_SIZE, ECA_BADCOUNT));
    CHECK(out[0] == -1 && out[3] == -1);         /* not a single element of it */
    CHECK_EQ(r->block->count, 4);                /* says how many there were */
    ex_request_unref(r);
    end();
}

static void the_buffer_is_the_callers_again_after_the_end(void)
{
    double out[3] = {-1, -1, -1};
    int how;
    begin(3);
    for (how = DEADLINE; how < ENDS; how++) {
        ex_request *r = asked();
        r->out = out;
        r->out_count = 3;
        ex_request_due(r, ex_now() + 1000000000);
        do_end(r, how);
        CHECK_EQ(r->state, EX_DONE);
        CHECK(r->out == NULL);
        answer(r, 3, 50);
        CHECK(out[0] == -1 && out[1] == -1 && out[2] == -1);
        CHECK(r->block == NULL);
        ex_request_unref(r);
    }
    end();
}

static void a_reply_that_is_not_what_was_asked(void)
{
    ex_request *r;
    struct event_handler_args args;
    begin(5);
    r = asked();
    fake_reply(&r->link, DBR_TIME_LONG, 1, 0, ECA_NORMAL);
    CHECK(ended_as(r, EX_BY_REPLY, ECA_BADTYPE));
    CHECK(r->block == NULL);
    ex_request_unref(r);
    r = asked();
    answer(r, 6, 0);                             /* more than the record has */
    CHECK(ended_as(r, EX_BY_REPLY, ECA_BADTYPE));
    ex_request_unref(r);
    r = asked();
    args = fake_args(&r->link, DBR_TIME_DOUBLE, 1, 0);
    free((void *)args.dbr);
    args.dbr = NULL;
    ex_on_reply(args);
    CHECK(ended_as(r, EX_BY_REPLY, ECA_BADTYPE));
    ex_request_unref(r);
    r = asked();
    fake_reply(&r->link, -1, 0, 0, ECA_GETFAIL); /* as libca says it: no data, type -1 */
    CHECK(ended_as(r, EX_BY_REPLY, ECA_GETFAIL));
    ex_request_unref(r);
    end();
}

static void a_put_is_answered_without_values(void)
{
    ex_request *r;
    begin(1);
    r = ex_request_new(ch, DBR_DOUBLE, 1);
    CHECK_EQ(ex_request_lend(r), 0);
    ch->in_call--;
    fake_reply(&r->link, DBR_DOUBLE, 1, 0, ECA_NORMAL);
    CHECK(ended_as(r, EX_BY_REPLY, ECA_NORMAL));
    CHECK(r->block == NULL);
    ex_request_unref(r);
    r = ex_request_new(ch, DBR_DOUBLE, 1);
    CHECK_EQ(ex_request_lend(r), 0);
    ch->in_call--;
    fake_reply(&r->link, -1, 0, 0, ECA_PUTFAIL);
    CHECK(ended_as(r, EX_BY_REPLY, ECA_PUTFAIL));
    ex_request_unref(r);
    end();
}

/* ------------------------------------------------------------------ completion */

static void a_noted_completion_keeps_its_place(void)
{
    ex_request *r;
    ex_handle *h;
    ex_taken t;
    int mark;
    begin(1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    r = ex_request_new(ch, DBR_TIME_DOUBLE, 0);
    r->py = &mark;
    ex_request_note(r);
    CHECK_EQ(ex_request_lend(r), 0);
    ch->in_call--;
    fake_event(h->sub, 1, 1);
    answer(r, 1, 2);
    fake_event(h->sub, 1, 3);
    CHECK(lane_consistent(lane));
    CHECK_EQ(take_value(lane, h), 1);
    CHECK_EQ(ex_lane_take(lane, &t), EX_NOTE_COMPLETION);
    CHECK(t.subject == r && t.py == &mark);
    ex_request_unref(r);                         /* the note still has it */
    CHECK_EQ(((ex_request *)t.subject)->status, ECA_NORMAL);
    ex_taken_done(&t);
    CHECK_EQ(take_value(lane, h), 3);
    close_handle(h);
    end();
}

static void an_unused_note_goes_back(void)
{
    ex_request *r;
    int i;
    begin(1);
    for (i = 0; i < 2000; i++) {                 /* more than a slab holds */
        r = ex_request_new(ch, DBR_TIME_DOUBLE, 0);
        ex_request_note(r);
        CHECK(r->noted);
        ex_request_unref(r);                     /* libca refused; nobody will be told */
    }
    CHECK(lane->slabs != NULL && lane->slabs->next == NULL);
    CHECK_EQ(skip_note(lane), 0);
    end();
}

/* ------------------------------------------------------------------- deadlines */

static int due_in_order(void)
{
    ex_request *r, *before = NULL;
    for (r = lane->first_due; r; before = r, r = r->due_next)
        if (r->due_prev != before || !r->due || (before && before->deadline > r->deadline))
            return 0;
    return lane->last_due == before;
}

static void deadlines_are_kept_in_order(void)
{
    enum { N = 200 };
    ex_request *r[N];
    unsigned seed = 12345;
    int i, left;
    int64_t base = ex_now() + (int64_t)100000000000;
    begin(1);
    for (i = 0; i < N; i++) {
        r[i] = asked();
        ex_request_due(r[i], EX_FOREVER);        /* none */
        CHECK(!r[i]->due);
        ex_request_due(r[i], base + (seed = seed * 1664525u + 1013904223u) % 50);
        ex_request_due(r[i], base);              /* the first one holds */
        CHECK(due_in_order());
    }
    for (i = 0; i < N; i += 3) {
        answer(r[i], 1, 1);
        CHECK(!r[i]->due);
        CHECK(due_in_order());
    }
    for (left = 0; left < 50; left += 7) {
        ex_lane_expire(lane, base + left);
        CHECK(due_in_order());
        CHECK(!lane->first_due || lane->first_due->deadline > base + left);
        for (i = 0; i < N; i++)
            if (i % 3)
                CHECK_EQ(r[i]->state, r[i]->deadline <= base + left ? EX_DONE : EX_PENDING);
    }
    ex_lane_expire(lane, base + 50);
    CHECK(lane->first_due == NULL && lane->last_due == NULL);
    for (i = 0; i < N; i++) {
        CHECK(ended_as(r[i], i % 3 ? EX_BY_DEADLINE : EX_BY_REPLY, i % 3 ? ECA_TIMEOUT : ECA_NORMAL));
        if (i % 3)
            answer(r[i], 1, 1);
        CHECK_EQ(ex_load(&r[i]->refs), 1);
        ex_request_unref(r[i]);
    }
    end();
}

static void a_deadline_after_the_reply_is_none(void)
{
    ex_request *r;
    begin(1);
    r = asked();
    answer(r, 1, 1);
    ex_request_due(r, ex_now());
    CHECK(lane->first_due == NULL);
    CHECK_EQ(ex_load(&r->refs), 1);
    ex_request_unref(r);
    end();
}

static void *sleep_in_the_lane(void *p)
{
    *(int *)p = ex_lane_wait(lane, EX_FOREVER);
    ex_lane_expire(lane, ex_now());
    return NULL;
}

static void a_deadline_wakes_the_dispatcher(void)
{
    ex_request *r;
    pthread_t t;
    int got = -1, asleep = 0;
    begin(1);
    r = asked();
    pthread_create(&t, NULL, sleep_in_the_lane, &got);
    while (!asleep) {
        ex_lock(&lane->lock);
        asleep = lane->sleeping;
        ex_unlock(&lane->lock);
    }
    ex_request_due(r, ex_now() + 20000000);      /* sooner than what it sleeps for */
    pthread_join(t, NULL);
    CHECK_EQ(got, 1);
    CHECK(ended_as(r, EX_BY_DEADLINE, ECA_TIMEOUT));
    answer(r, 1, 1);
    ex_request_unref(r);
    end();
}

/* --------------------------------------------------------------------- inboxes */

static int bell[2];

static ex_inbox *inbox(void)
{
    CHECK_EQ(pipe(bell), 0);
    fcntl(bell[0], F_SETFL, O_NONBLOCK);
    fcntl(bell[1], F_SETFL, O_NONBLOCK);
    return ex_inbox_new(bell[1]);
}

static int rings(void)
{
    char bytes[64];
    ssize_t n = read(bell[0], bytes, sizeof bytes);
    return n < 0 ? 0 : (int)n;
}

static ex_request *asked_for(ex_inbox *box)
{
    ex_request *r = asked();
    ex_inbox_ref(box);
    r->inbox = box;
    return r;
}

static void one_ring_per_batch(void)
{
    enum { N = 20 };
    ex_request *r[N], *q, *next;
    ex_inbox *box;
    int i;
    begin(1);
    box = inbox();
    CHECK(ex_inbox_take(box) == NULL);
    for (i = 0; i < N; i++)
        r[i] = asked_for(box);
    for (i = 0; i < N / 2; i++)
        answer(r[N - 1 - i], 1, i);
    CHECK_EQ(rings(), 1);
    for (; i < N - 1; i++)
        answer(r[N - 1 - i], 1, i);
    CHECK_EQ(rings(), 0);                        /* the loop has not looked yet */
    for (i = 0, q = ex_inbox_take(box); q; q = next, i++) {
        next = q->inbox_next;
        CHECK(q == r[N - 1 - i]);                /* in the order of ending */
        ex_request_unref(q);
    }
    CHECK_EQ(i, N - 1);
    CHECK(ex_inbox_take(box) == NULL);
    answer(r[0], 1, 1);
    CHECK_EQ(rings(), 1);
    q = ex_inbox_take(box);
    CHECK(q == r[0] && q->inbox_next == NULL);
    ex_request_unref(q);
    for (i = 0; i < N; i++) {
        CHECK_EQ(ex_load(&r[i]->refs), 1);
        ex_request_unref(r[i]);
    }
    CHECK_EQ(ex_load(&box->refs), 1);
    ex_inbox_kill(box);
    ex_inbox_unref(box);
    close(bell[0]);
    close(bell[1]);
    end();
}

static void a_killed_inbox_counts_what_it_loses(void)
{
    ex_request *a, *b, *c;
    ex_inbox *box;
    begin(1);
    box = inbox();
    a = asked_for(box);
    b = asked_for(box);
    c = asked_for(box);
    answer(a, 1, 1);
    answer(b, 1, 1);
    CHECK_EQ(rings(), 1);
    ex_inbox_kill(box);
    close(bell[1]);                              /* nobody writes to it any more */
    CHECK_EQ(box->lost, 2);
    CHECK_EQ(ex_load(&a->refs), 1);
    CHECK(ex_inbox_take(box) == NULL);
    answer(c, 1, 1);
    CHECK_EQ(box->lost, 3);
    CHECK_EQ(ex_load(&c->refs), 1);
    CHECK_EQ(rings(), 0);
    ex_inbox_unref(box);                         /* the requests have theirs */
    ex_request_unref(a);
    ex_request_unref(b);
    ex_request_unref(c);
    close(bell[0]);
    end();
}

static void a_full_pipe_does_not_block(void)
{
    ex_request *r, *q;
    ex_inbox *box;
    char bytes[4096] = {0};
    begin(1);
    box = inbox();
    while (write(bell[1], bytes, sizeof bytes) > 0)
        ;
    r = asked_for(box);
    answer(r, 1, 1);
    q = ex_inbox_take(box);
    CHECK(q == r);
    ex_request_unref(q);
    ex_request_unref(r);
    ex_inbox_kill(box);
    ex_inbox_unref(box);
    close(bell[0]);
    close(bell[1]);
    end();
}

int main(void)
{
    RUN(a_reply_ends_it);
    RUN(a_reply_wakes_the_waiter);
    RUN(only_a_connected_channel_lends);
    RUN(the_first_end_is_the_only_one);
    RUN(a_late_reply_frees_what_it_brought);
    RUN(a_refused_request_is_taken_back);
    RUN(a_cleared_channel_gives_everything_back);
    RUN(a_drop_ends_everything_and_waits_for_callers);
    RUN(close_ends_those_of_one_owner);
    RUN(the_callers_buffer);
    RUN(a_reply_too_long_for_the_buffer);
    RUN(the_buffer_is_the_callers_again_after_the_end);
    RUN(a_reply_that_is_not_what_was_asked);
    RUN(a_put_is_answered_without_values);
    RUN(a_noted_completion_keeps_its_place);
    RUN(an_unused_note_goes_back);
    RUN(deadlines_are_kept_in_order);
    RUN(a_deadline_after_the_reply_is_none);
    RUN(a_deadline_wakes_the_dispatcher);
    RUN(one_ring_per_batch);
    RUN(a_killed_inbox_counts_what_it_loses);
    RUN(a_full_pipe_does_not_block);
    return finish();
}

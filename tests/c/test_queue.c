/* The queue of a lane: order, bounds of handles and of the lane, merging, closing, and what wakes its dispatcher. */
#include "fakes.h"

static ex_lane *lane;
static fake f;
static ex_channel *ch;

/* A channel of `count` doubles that is connected. */
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

static void order_over_many_handles(void)
{
    enum { N = 40 };
    fake fakes[N];
    ex_channel *channels[N];
    ex_handle *handles[N];
    int i, round;
    begin(1);
    for (i = 0; i < N; i++) {
        channels[i] = fake_channel(lane, &fakes[i], "dev:many", DBR_DOUBLE, 1);
        fake_up(&fakes[i]);
        handles[i] = open_handle(channels[i], EX_TIME_OF_NATIVE, 1, 1000, 0, NULL);
    }
    for (round = 0; round < 20; round++)
        for (i = 0; i < N; i++)
            fake_event(handles[(i * 7) % N]->sub, 1, round * 100 + i);
    CHECK(lane_consistent(lane));
    CHECK_EQ(lane->queued, 20 * N);
    for (round = 0; round < 20; round++)
        for (i = 0; i < N; i++)
            CHECK_EQ(take_value(lane, handles[(i * 7) % N]), round * 100 + i);
    CHECK_EQ(skip_note(lane), EX_NOTE_NONE);
    for (i = 0; i < N; i++) {
        CHECK_EQ(handles[i]->delivered, 20);
        close_handle(handles[i]);
        end_channel(channels[i]);
    }
    end();
}

static void a_note_carries_what_came(void)
{
    ex_taken t;
    ex_handle *h;
    uint64_t first;
    int mark;
    begin(5);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, &mark);
    fake_event(h->sub, 5, 10);
    fake_event(h->sub, 2, 20);
    fake_event(h->sub, 0, 0);                    /* no elements: an event all the same */
    CHECK_EQ(ex_lane_take(lane, &t), EX_NOTE_VALUE);
    CHECK(t.py == &mark && t.subject == h);
    CHECK_EQ(t.block->dbr_type, DBR_TIME_DOUBLE);
    CHECK_EQ(t.block->count, 5);
    CHECK_EQ(t.block->nbytes, 40);
    first = t.block->arrival;
    CHECK(first > 0);
    CHECK_EQ(t.block->scalar, 0);
    CHECK_EQ(block_value(t.block, 4), 14);
    CHECK_EQ(((struct dbr_time_double *)EX_HEADER(t.block))->status, 42);
    ex_taken_done(&t);
    CHECK_EQ(t.kind, EX_NOTE_NONE);
    CHECK(t.block == NULL);
    CHECK_EQ(ex_lane_take(lane, &t), EX_NOTE_VALUE);
    CHECK_EQ(t.block->count, 2);
    CHECK_EQ(t.block->arrival, first + 1);
    ex_taken_done(&t);
    CHECK_EQ(ex_lane_take(lane, &t), EX_NOTE_VALUE);
    CHECK_EQ(t.block->count, 0);
    ex_taken_done(&t);
    close_handle(h);
    end();
}

static void two_handles_share_one_block(void)
{
    ex_taken a, b;
    ex_handle *one, *two;
    begin(100);
    one = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    two = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    CHECK(one->sub == two->sub);
    CHECK_EQ(server.begun - server.ended, 1);
    fake_event(one->sub, 100, 1);
    ex_lane_take(lane, &a);
    ex_lane_take(lane, &b);
    CHECK(a.block == b.block && a.subject != b.subject);
    CHECK_EQ(ex_blocks(), 1);
    ex_taken_done(&a);
    ex_taken_done(&b);
    close_handle(one);                           /* the other goes on */
    fake_event(two->sub, 100, 2);
    CHECK_EQ(take_value(lane, two), 2);
    CHECK(two->sub->live);
    close_handle(two);
    CHECK(ch->subs == NULL);
    end();
}

static void a_full_handle_drops_its_oldest(void)
{
    ex_handle *h, *other;
    ex_counts c;
    int i;
    begin(1);
    other = open_handle(ch, EX_TIME_OF_NATIVE, 1, 1000, 0, NULL);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 7, 0, NULL);
    for (i = 0; i < 50; i++)
        fake_event(h->sub, 1, i);
    ex_handle_counts(h, &c);
    CHECK_EQ(c.received, 50);
    CHECK_EQ(c.dropped, 43);
    CHECK_EQ(c.merged, 0);
    CHECK_EQ(c.pending, 7);
    CHECK(lane_consistent(lane));
    ex_handle_counts(other, &c);
    CHECK_EQ(c.dropped, 0);                      /* a neighbour's bound is the neighbour's */
    CHECK_EQ(c.pending, 50);
    for (i = 0; i < 50; i++) {
        if (i == 8)                              /* the loss is logged once, where it was met */
            CHECK_EQ(skip_note(lane), EX_NOTE_LOG);
        CHECK_EQ(take_value(lane, other), i);
        if (i >= 43)
            CHECK_EQ(take_value(lane, h), i);
    }
    CHECK_EQ(skip_note(lane), EX_NOTE_NONE);
    CHECK(counts_add_up(h));
    close_handle(h);
    close_handle(other);
    end();
}

static void the_first_loss_is_logged_once_per_handle(void)
{
    ex_taken t;
    ex_handle *h;
    int i, logs = 0;
    begin(1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 3, 0, NULL);
    for (i = 0; i < 100; i++)
        fake_event(h->sub, 1, i);
    while (ex_lane_take(lane, &t)) {
        if (t.kind == EX_NOTE_LOG) {
            const char *name = (const char *)t.subject, *text = name + strlen(name) + 1;
            CHECK(!strcmp(name, "dev:x"));
            CHECK(strstr(text, "dropped") != NULL);
            CHECK_EQ(t.a, 30);
            logs++;
        }
        ex_taken_done(&t);
    }
    CHECK_EQ(logs, 1);
    close_handle(h);
    end();
}

static void latest_keeps_one(void)
{
    ex_handle *h, *all;
    int i;
    begin(1);
    all = open_handle(ch, EX_TIME_OF_NATIVE, 1, 1000, 0, NULL);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 1000, 1, NULL);
    for (i = 0; i < 30; i++)
        fake_event(h->sub, 1, i);
    CHECK_EQ(h->waiting, 1);
    CHECK_EQ(h->merged, 29);
    CHECK_EQ(h->dropped, 0);
    CHECK(lane_consistent(lane));
    for (i = 0; i < 30; i++) {                   /* the newest value stands in the place of the first; nothing is logged */
        ex_taken t;
        double expected[2] = {i, 29};
        int k, both = i == 0 ? 2 : 1;
        for (k = 0; k < both; k++) {
            CHECK_EQ(ex_lane_take(lane, &t), EX_NOTE_VALUE);
            CHECK_EQ(block_value(t.block, 0), expected[t.subject == h]);
            ex_taken_done(&t);
        }
    }
    CHECK_EQ(skip_note(lane), EX_NOTE_NONE);
    CHECK_EQ(h->delivered, 1);
    fake_event(h->sub, 1, 77);
    CHECK_EQ(h->waiting, 1);
    close_handle(all);
    CHECK_EQ(take_value(lane, h), 77);
    close_handle(h);
    end();
}

static void arrays_are_bounded_by_bytes(void)
{
    ex_handle *h;
    size_t each;
    int i;
    begin(2000000);                              /* 16 MB each: five fit into neither 64 MiB nor 4 events */
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10000, 0, NULL);
    CHECK_EQ(h->max_bytes, (size_t)64 << 20);
    h->max_bytes = 1 << 20;                      /* the same rule, with less to copy */
    for (i = 0; i < 10; i++)
        fake_event(h->sub, 100000, i);           /* 800 kB: two are above the bound, four stay all the same */
    CHECK_EQ(h->waiting, 4);
    CHECK_EQ(h->dropped, 6);
    each = h->bytes / 4;
    CHECK(each >= 800000);
    CHECK(lane_consistent(lane));
    for (i = 0; i < 10; i++)
        fake_event(h->sub, 10000, 100 + i);      /* 80 kB: the old large ones go first, until it fits or four are left */
    CHECK(h->bytes <= h->max_bytes || h->waiting == 4);
    CHECK(h->waiting > 4);
    CHECK(lane_consistent(lane));
    CHECK(counts_add_up(h));
    while (skip_note(lane))
        ;
    CHECK_EQ(h->bytes, 0);
    CHECK_EQ(lane->bytes, 0);
    close_handle(h);
    end();
}

static void one_large_event_may_drop_many(void)
{
    ex_handle *h;
    int i;
    begin(100000);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10000, 0, NULL);
    h->max_bytes = 100000;
    for (i = 0; i < 300; i++)
        fake_event(h->sub, 1, i);
    CHECK_EQ(h->waiting, 300);
    fake_event(h->sub, 12000, 300);              /* 96 kB of 100: almost all of the small ones go, at once */
    CHECK(h->waiting <= 20 && h->waiting >= 4);
    CHECK_EQ(h->dropped, 301 - h->waiting);
    CHECK_EQ(ex_blocks(), h->waiting);
    CHECK(lane_consistent(lane));
    close_handle(h);
    end();
}

static void sixty_four_mebibytes(void)
{
    ex_handle *h;
    int i;
    begin(2000000);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10000, 0, NULL);
    for (i = 0; i < 8; i++)
        fake_event(h->sub, 1500000, i);          /* 12 MB, a block of 12.6 MB: five fit, the sixth drops one */
    CHECK_EQ(h->waiting, 5);
    CHECK_EQ(h->dropped, 3);
    close_handle(h);
    CHECK_EQ(lane->bytes, 0);
    end();
}

static void a_full_lane_merges_in_place(void)
{
    ex_handle *a, *b, *late;
    fake g;
    ex_channel *other;
    ex_taken t;
    int i;
    begin(1);
    other = fake_channel(lane, &g, "dev:y", DBR_DOUBLE, 1);
    fake_up(&g);
    lane->max_events = 6;
    a = open_handle(ch, EX_TIME_OF_NATIVE, 1, 100, 0, NULL);
    b = open_handle(other, EX_TIME_OF_NATIVE, 1, 100, 0, NULL);
    for (i = 0; i < 3; i++) {
        fake_event(a->sub, 1, 10 + i);
        fake_event(b->sub, 1, 20 + i);
    }
    CHECK_EQ(lane->events, 6);
    for (i = 0; i < 5; i++)
        fake_event(a->sub, 1, 100 + i);
    CHECK_EQ(lane->events, 6);
    CHECK_EQ(a->merged, 5);
    CHECK_EQ(a->dropped, 0);
    late = open_handle(other, EX_TIME_OF_NATIVE, 0, 100, 0, NULL);
    ex_handle_set_queueing(late, 1);
    fake_event(b->sub, 1, 200);                  /* b merges; the one of whom nothing waits is appended, above the bound */
    CHECK_EQ(b->merged, 1);
    CHECK_EQ(late->waiting, 1);
    CHECK_EQ(lane->events, 7);
    CHECK(lane_consistent(lane));
    CHECK_EQ(take_value(lane, a), 10);
    CHECK_EQ(take_value(lane, b), 20);
    CHECK_EQ(take_value(lane, a), 11);
    CHECK_EQ(take_value(lane, b), 21);
    CHECK_EQ(take_value(lane, a), 104);          /* in the place of its newest waiting one, so before b's */
    CHECK_EQ(take_value(lane, b), 200);
    for (i = 0; ex_lane_take(lane, &t); ex_taken_done(&t))
        i += t.kind == EX_NOTE_VALUE;
    CHECK_EQ(i, 1);
    CHECK(counts_add_up(a) && counts_add_up(b) && counts_add_up(late));
    close_handle(a);
    close_handle(b);
    close_handle(late);
    end_channel(other);
    end();
}

static void a_lane_full_of_bytes_merges(void)
{
    ex_handle *h;
    begin(100000);
    lane->max_bytes = 2000000;
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 100, 0, NULL);
    fake_event(h->sub, 100000, 1);
    fake_event(h->sub, 100000, 2);
    CHECK_EQ(h->waiting, 2);
    fake_event(h->sub, 100000, 3);               /* a third does not fit */
    CHECK_EQ(h->waiting, 2);
    CHECK_EQ(h->merged, 1);
    CHECK(lane_consistent(lane));
    fake_event(h->sub, 10, 4);                   /* a small one does */
    CHECK_EQ(h->waiting, 3);
    CHECK(lane_consistent(lane));
    CHECK_EQ(take_value(lane, h), 1);
    CHECK_EQ(take_value(lane, h), 3);
    close_handle(h);
    end();
}

static void nothing_merges_across_a_connection_note(void)
{
    ex_handle *h;
    ex_taken t;
    int kinds[8], n = 0;
    begin(1);
    ex_channel_set_news(ch, 1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 100, 1, NULL);
    fake_event(h->sub, 1, 1);
    fake_event(h->sub, 1, 2);
    CHECK_EQ(h->merged, 1);
    fake_down(&f);
    fake_up(&f);
    keeper(lane);
    fake_event(h->sub, 1, 3);                    /* after the news: appended */
    fake_event(h->sub, 1, 4);                    /* and now merges with that one */
    CHECK_EQ(h->merged, 2);
    CHECK_EQ(h->waiting, 2);
    while (ex_lane_take(lane, &t)) {
        if (t.kind != EX_NOTE_ACCESS)
            kinds[n++] = t.kind * 100 + (t.block ? (int)block_value(t.block, 0) : t.a);
        ex_taken_done(&t);
    }
    CHECK_EQ(n, 4);
    CHECK_EQ(kinds[0], EX_NOTE_VALUE * 100 + 2);
    CHECK_EQ(kinds[1], EX_NOTE_CONNECTION * 100 + 0);
    CHECK_EQ(kinds[2], EX_NOTE_CONNECTION * 100 + 1);
    CHECK_EQ(kinds[3], EX_NOTE_VALUE * 100 + 4);
    fake_event(h->sub, 1, 5);                    /* none waits: nothing to merge with */
    CHECK_EQ(h->merged, 2);
    lane->max_events = 1;                        /* the lane's bound keeps the same rule */
    fake_down(&f);
    fake_event(h->sub, 1, 6);
    CHECK_EQ(h->merged, 2);
    CHECK_EQ(lane->events, 2);
    close_handle(h);
    end();
}

static void what_waits_at_close_is_dropped(void)
{
    ex_handle *h, *other;
    ex_counts c;
    ex_taken held;
    int i;
    begin(1);
    other = open_handle(ch, EX_TIME_OF_NATIVE, 1, 1000, 0, NULL);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 1000, 0, NULL);
    for (i = 0; i < 300; i++)                    /* more than are given back under one lock */
        fake_event(h->sub, 1, i);
    for (i = 0; i < 11; i++)
        skip_note(lane);
    CHECK_EQ(ex_lane_take(lane, &held), EX_NOTE_VALUE);
    CHECK(held.subject == h);                    /* in the consumer's hands while it closes */
    ex_handle_close(h);
    ex_handle_close(h);                          /* idempotent */
    ex_handle_counts(h, &c);
    CHECK_EQ(c.received, 300);
    CHECK_EQ(c.delivered, 6);
    CHECK_EQ(c.dropped, 294);
    CHECK_EQ(c.pending, 0);
    CHECK(lane_consistent(lane));
    ex_handle_unref(h);
    CHECK_EQ(block_value(held.block, 0), 5);     /* its handle and block live until it gives them back */
    CHECK(((ex_handle *)held.subject)->closed);
    ex_taken_done(&held);
    fake_event(other->sub, 1, 1000);
    ex_handle_counts(other, &c);
    CHECK_EQ(c.received, 301);
    counts_of_channel(ch, &c);                /* closed handles are still counted */
    CHECK_EQ(c.received, 601);
    CHECK_EQ(c.dropped, 294);
    CHECK_EQ(c.received, c.delivered + c.merged + c.dropped + c.pending);
    for (i = 6; i < 300; i++)
        CHECK_EQ(take_value(lane, other), i);
    CHECK_EQ(take_value(lane, other), 1000);
    close_handle(other);
    end();
}

static void a_closed_handle_has_no_python_object(void)
{
    ex_handle *h;
    int mark;
    begin(1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, &mark);
    CHECK(h->py == &mark);
    ex_handle_close(h);
    CHECK(h->py == NULL);
    ex_handle_unref(h);
    end();
}

static void a_lane_at_its_bound_delivers_the_last_value(void)
{
    enum { N = 10, EVENTS = 5000 };
    fake fakes[N];
    ex_channel *channels[N];
    ex_handle *handles[N];
    double last[N];
    ex_taken t;
    int i;
    size_t most = 0;
    begin(1);
    lane->max_events = 50;
    for (i = 0; i < N; i++) {
        channels[i] = fake_channel(lane, &fakes[i], "dev:slow", DBR_DOUBLE, 1);
        fake_up(&fakes[i]);
        handles[i] = open_handle(channels[i], EX_TIME_OF_NATIVE, 1, 100, 0, &last[i]);
        last[i] = -1;
    }
    for (i = 0; i < EVENTS; i++) {
        fake_event(handles[i % N]->sub, 1, i);
        most = lane->events > most ? lane->events : most;
        if (i % 7 == 0 && ex_lane_take(lane, &t)) {      /* a consumer seven times too slow */
            if (t.kind == EX_NOTE_VALUE) {
                CHECK(block_value(t.block, 0) > *(double *)t.py);
                *(double *)t.py = block_value(t.block, 0);
            }
            ex_taken_done(&t);
        }
    }
    CHECK(most <= 50 + N);
    while (ex_lane_take(lane, &t)) {
        if (t.kind == EX_NOTE_VALUE) {
            CHECK(block_value(t.block, 0) > *(double *)t.py);
            *(double *)t.py = block_value(t.block, 0);
        }
        ex_taken_done(&t);
    }
    for (i = 0; i < N; i++) {
        CHECK_EQ(last[i], EVENTS - N + i);
        CHECK_EQ(handles[i]->received, EVENTS / N);
        CHECK(counts_add_up(handles[i]));
        close_handle(handles[i]);
        end_channel(channels[i]);
    }
    end();
}

static void log_notes_are_bounded(void)
{
    int i, n = 0;
    begin(1);
    for (i = 0; i < 700; i++)
        ex_log(lane, 20, "dev:x", "something was said");
    CHECK_EQ(lane->logs, 500);
    CHECK_EQ(lane->lost_logs, 200);
    for (; skip_note(lane) == EX_NOTE_LOG; n++)
        ;
    CHECK_EQ(n, 500);
    ex_log(lane, 20, "dev:x", "again");
    CHECK_EQ(lane->logs, 1);
    end();
}

static void a_lane_may_end_while_texts_wait(void)
{
    ex_lane *brief = ex_lane_new("brief");       /* the leak checkers look at this one */
    ex_log(brief, 20, "dev:x", "nobody will read this");
    CHECK_EQ(brief->queued, 1);
    ex_lane_ref(brief);
    ex_lane_unref(brief);
    ex_lane_unref(brief);
}

/* ------------------------------------------------------------------ waiting */

static void *post_later(void *p)
{
    struct timespec pause = {0, 20000000};
    nanosleep(&pause, NULL);
    if (p)
        fake_event((ex_sub *)p, 1, 1);
    else
        ex_lane_wake(lane);
    return NULL;
}

static void a_note_or_a_wake_ends_the_wait(void)
{
    ex_handle *h;
    pthread_t t;
    int64_t before;
    begin(1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    CHECK_EQ(ex_lane_wait(lane, ex_now()), 0);                    /* nothing, and no time left */
    before = ex_now();
    CHECK_EQ(ex_lane_wait(lane, before + 30000000), 0);
    CHECK(ex_now() - before >= 30000000);
    ex_lane_wake(lane);                                           /* a wake before the wait is not lost */
    CHECK_EQ(ex_lane_wait(lane, EX_FOREVER), 1);
    CHECK_EQ(ex_lane_wait(lane, ex_now()), 0);                    /* and counts once */
    pthread_create(&t, NULL, post_later, h->sub);
    CHECK_EQ(ex_lane_wait(lane, EX_FOREVER), 1);
    pthread_join(t, NULL);
    CHECK_EQ(ex_lane_wait(lane, EX_FOREVER), 1);                  /* still there */
    CHECK_EQ(take_value(lane, h), 1);
    pthread_create(&t, NULL, post_later, NULL);
    CHECK_EQ(ex_lane_wait(lane, EX_FOREVER), 1);
    pthread_join(t, NULL);
    CHECK_EQ(lane->sleeping, 0);
    close_handle(h);
    end();
}

int main(void)
{
    RUN(order_over_many_handles);
    RUN(a_note_carries_what_came);
    RUN(two_handles_share_one_block);
    RUN(a_full_handle_drops_its_oldest);
    RUN(the_first_loss_is_logged_once_per_handle);
    RUN(latest_keeps_one);
    RUN(arrays_are_bounded_by_bytes);
    RUN(one_large_event_may_drop_many);
    RUN(sixty_four_mebibytes);
    RUN(a_full_lane_merges_in_place);
    RUN(a_lane_full_of_bytes_merges);
    RUN(nothing_merges_across_a_connection_note);
    RUN(what_waits_at_close_is_dropped);
    RUN(a_closed_handle_has_no_python_object);
    RUN(a_lane_at_its_bound_delivers_the_last_value);
    RUN(log_notes_are_bounded);
    RUN(a_lane_may_end_while_texts_wait);
    RUN(a_note_or_a_wake_ends_the_wait);
    return finish();
}

/* Event loops: handles whose notes a loop takes, requests that end with connections, batches that end a request. */
#include "fakes.h"

#include <fcntl.h>
#include <unistd.h>

static ex_lane *lane;
static fake f;
static ex_channel *ch;
static ex_inbox *box;
static int bell[2];

static void begin(void)
{
    fakes_install();
    lane = ex_lane_new("test");
    ch = fake_channel(lane, &f, "dev:x", DBR_DOUBLE, 1);
    fake_up(&f);
    CHECK_EQ(pipe(bell), 0);
    fcntl(bell[0], F_SETFL, O_NONBLOCK);
    fcntl(bell[1], F_SETFL, O_NONBLOCK);
    box = ex_inbox_new(bell[1]);
}

static void end(void)
{
    CHECK_EQ(ex_load(&box->refs), 1);
    ex_inbox_kill(box);
    ex_inbox_unref(box);
    close(bell[0]);
    close(bell[1]);
    end_channel(ch);
    end_lane(lane);
}

static int rings(void)
{
    char bytes[64];
    ssize_t n = read(bell[0], bytes, sizeof bytes);
    return n < 0 ? 0 : (int)n;
}

static ex_handle *looped(ex_channel *of, size_t max_events, int latest)
{
    ex_handle *h = ex_handle_new(ex_sub_get(of, EX_TIME_OF_NATIVE, 0, 5, 0), 1, max_events, latest, 1, &bell, box);
    keeper(lane);
    return h;
}

/* What a loop does when it is woken: how many handles were ready. */
static int woken(ex_handle **who, int most)
{
    int n = 0;
    ex_handle *h;
    CHECK(ex_inbox_take(box) == NULL);
    while ((h = ex_inbox_ready(box)) != NULL) {
        if (n < most)
            who[n] = h;
        n++;
        ex_handle_unref(h);
    }
    return n;
}

/* The first value of the handle's next note; -1: a loss of connection, -2: a connection, -3: nothing. */
static double taken(ex_handle *h)
{
    ex_taken t;
    double value = -3;
    t.kind = EX_NOTE_NONE;
    t.block = NULL;
    CHECK(ex_handle_take(h, &t, 1) <= 1);
    switch (t.kind) {
    case EX_NOTE_VALUE:
        CHECK(t.py == &bell && t.subject == h);
        value = block_value(t.block, 0);
        break;
    case EX_NOTE_LINK:
        value = t.a ? -2 : -1;
        break;
    default:
        CHECK_EQ(t.kind, EX_NOTE_NONE);
    }
    ex_taken_done(&t);
    return value;
}

static void a_loop_is_woken_once_for_all_that_came(void)
{
    enum { N = 20 };
    ex_handle *a, *b, *who[2];
    int i;
    begin();
    a = looped(ch, 1000, 0);
    b = looped(ch, 1000, 0);
    CHECK(a->sub == b->sub);
    CHECK_EQ(rings(), 0);
    for (i = 0; i < N; i++)
        fake_event(a->sub, 1, i);
    CHECK_EQ(rings(), 1);
    CHECK_EQ(box->rings, 1);
    CHECK(lane_consistent(lane));
    CHECK_EQ(skip_note(lane), EX_NOTE_NONE);     /* the dispatcher has no part in it */
    CHECK_EQ(woken(who, 2), 2);
    CHECK(who[0] == a && who[1] == b);
    fake_event(a->sub, 1, N);                    /* it has not been read empty: it knows */
    CHECK_EQ(rings(), 0);
    for (i = 0; i <= N; i++)
        CHECK_EQ(taken(a), i);
    CHECK_EQ(taken(a), -3);
    fake_event(a->sub, 1, 77);
    CHECK_EQ(rings(), 1);
    CHECK_EQ(woken(who, 2), 1);
    CHECK(who[0] == a);
    CHECK_EQ(a->delivered, N + 1);
    CHECK_EQ(b->waiting, N + 2);
    CHECK(counts_add_up(a) && counts_add_up(b));
    close_handle(a);
    close_handle(b);
    end();
}

static void read_empty_before_the_loop_looked(void)
{
    ex_handle *a, *who[2];
    begin();
    a = looped(ch, 10, 0);
    fake_event(a->sub, 1, 1);
    CHECK_EQ(taken(a), 1);
    CHECK_EQ(taken(a), -3);
    fake_event(a->sub, 1, 2);                    /* it is in the list already, and stays there once */
    CHECK_EQ(rings(), 1);
    CHECK_EQ(woken(who, 2), 1);
    CHECK_EQ(taken(a), 2);
    CHECK_EQ(woken(who, 2), 0);
    close_handle(a);
    end();
}

static void bounds_and_merging_are_those_of_every_handle(void)
{
    ex_handle *few, *newest;
    int i;
    begin();
    few = looped(ch, 3, 0);
    newest = looped(ch, 1, 1);
    for (i = 0; i < 10; i++)
        fake_event(few->sub, 1, i);
    CHECK(lane_consistent(lane));
    CHECK_EQ(few->dropped, 7);
    CHECK_EQ(newest->merged, 9);
    for (i = 7; i < 10; i++)
        CHECK_EQ(taken(few), i);
    CHECK_EQ(taken(few), -3);
    CHECK_EQ(woken(NULL, 0), 2);
    CHECK_EQ(taken(newest), 9);
    CHECK_EQ(taken(newest), -3);
    CHECK(counts_add_up(few) && counts_add_up(newest));
    close_handle(few);
    close_handle(newest);
    while (skip_note(lane))                      /* the log's word about the first loss */
        ;
    end();
}

static void a_loss_is_told_in_its_place(void)
{
    ex_handle *few, *newest;
    begin();
    few = looped(ch, 2, 0);
    newest = looped(ch, 1, 1);
    fake_event(few->sub, 1, 1);
    fake_down(&f);
    fake_up(&f);
    keeper(lane);
    fake_event(few->sub, 1, 2);
    fake_event(few->sub, 1, 3);                  /* the oldest value goes, not the news */
    CHECK(lane_consistent(lane));
    CHECK_EQ(few->dropped, 1);
    CHECK_EQ(woken(NULL, 0), 2);
    CHECK_EQ(taken(few), -1);
    CHECK_EQ(taken(few), -2);
    CHECK_EQ(taken(few), 2);
    CHECK_EQ(taken(few), 3);
    CHECK_EQ(taken(few), -3);
    CHECK_EQ(taken(newest), -1);                 /* one value waits at most, on whichever side of the news */
    CHECK_EQ(taken(newest), -2);
    CHECK_EQ(taken(newest), 3);
    CHECK_EQ(taken(newest), -3);
    CHECK_EQ(newest->dropped, 1);
    CHECK_EQ(newest->merged, 1);
    close_handle(few);
    close_handle(newest);
    while (skip_note(lane))
        ;
    end();
}

static void many_are_taken_at_once(void)
{
    ex_taken t[8];
    ex_handle *h;
    size_t i;
    begin();
    h = looped(ch, 100, 0);
    for (i = 0; i < 10; i++)
        fake_event(h->sub, 1, (double)i);
    fake_down(&f);
    fake_event(h->sub, 1, 10);
    CHECK_EQ(ex_handle_take(h, t, 8), 8);
    for (i = 0; i < 8; i++) {
        CHECK_EQ(block_value(t[i].block, 0), (double)i);
        ex_taken_done(&t[i]);
    }
    CHECK_EQ(ex_handle_take(h, t, 8), 3);        /* up to the news, which are the last */
    CHECK_EQ(t[1].kind, EX_NOTE_VALUE);
    CHECK_EQ(t[2].kind, EX_NOTE_LINK);
    CHECK_EQ(h->delivered, 10);
    ex_handle_unheard(h, 2);
    CHECK_EQ(h->delivered, 8);
    CHECK_EQ(h->dropped, 2);
    CHECK(counts_add_up(h));
    for (i = 0; i < 3; i++)
        ex_taken_done(&t[i]);
    CHECK_EQ(taken(h), 10);
    CHECK_EQ(taken(h), -3);
    CHECK_EQ(woken(NULL, 0), 1);
    close_handle(h);
    end();
}

static void closing_drops_and_counts_what_waits(void)
{
    ex_handle *h;
    ex_counts c;
    begin();
    h = looped(ch, 10, 0);
    fake_event(h->sub, 1, 1);
    fake_down(&f);
    fake_event(h->sub, 1, 2);
    ex_handle_close(h);
    ex_handle_counts(h, &c);
    CHECK_EQ(c.dropped, 2);
    CHECK_EQ(c.pending, 0);
    CHECK_EQ(taken(h), -3);
    CHECK_EQ(woken(NULL, 0), 1);                 /* in the list, and nobody's: its py is gone */
    ex_handle_unref(h);
    keeper(lane);
    end();
}

static void a_killed_inbox_is_not_rung(void)
{
    ex_handle *h;
    begin();
    h = looped(ch, 10, 0);
    fake_event(h->sub, 1, 1);
    CHECK_EQ(rings(), 1);
    ex_inbox_kill(box);
    CHECK_EQ(ex_load(&h->refs), 3);              /* ours, the list of the sub, the note that waits */
    CHECK_EQ(taken(h), 1);
    CHECK_EQ(taken(h), -3);
    fake_event(h->sub, 1, 2);
    CHECK_EQ(rings(), 0);
    CHECK(ex_inbox_ready(box) == NULL);
    close_handle(h);
    end();
}

static void what_is_too_large_is_told_to_the_loop(void)
{
    ex_taken t;
    ex_handle *h;
    begin();
    h = ex_handle_new(ex_sub_get(ch, EX_TIME_OF_NATIVE, 0, 5, 4), 1, 10, 0, 1, &bell, box);
    ex_lock(&lane->lock);
    CHECK_EQ(ex_sub_tell_large(h->sub, DBR_TIME_DOUBLE), -1);
    CHECK_EQ(ex_sub_tell_large(h->sub, DBR_TIME_DOUBLE), 1);
    ex_unlock(&lane->lock);
    CHECK_EQ(rings(), 1);
    CHECK_EQ(woken(NULL, 0), 1);
    CHECK_EQ(ex_handle_take(h, &t, 1), 1);
    CHECK_EQ(t.kind, EX_NOTE_LARGE);
    CHECK(t.py == &bell);
    ex_taken_done(&t);
    CHECK_EQ(taken(h), -3);
    close_handle(h);
    end();
}

/* ------------------------------------------------------------- connections */

static ex_request *gathering(ex_channel **channels, size_t n)
{
    ex_request *r = ex_request_new(channels[0], -1, 0);
    ex_inbox_ref(box);
    r->inbox = box;
    CHECK(ex_request_gather(r, channels, n));
    return r;
}

static ex_request *posted(void)
{
    ex_request *r = ex_inbox_take(box);
    if (r) {
        CHECK(r->inbox_next == NULL);
        ex_request_unref(r);
    }
    return r;
}

static void a_request_ends_with_the_last_connection(void)
{
    enum { N = 5 };
    fake fakes[N];
    ex_channel *channels[N];
    ex_request *r, *other;
    int i;
    begin();
    for (i = 0; i < N; i++)
        channels[i] = fake_channel(lane, &fakes[i], "dev:late", DBR_DOUBLE, 1);
    r = gathering(channels, N);
    other = gathering(channels, 2);
    for (i = N - 1; i > 0; i--)
        fake_up(&fakes[i]);
    CHECK(posted() == NULL);
    fake_up(&fakes[0]);
    CHECK_EQ(rings(), 1);
    CHECK_EQ(ex_load(&r->state), EX_DONE);
    CHECK_EQ(r->status, ECA_NORMAL);
    {
        ex_request *first = ex_inbox_take(box), *second = first->inbox_next;
        CHECK((first == r && second == other) || (first == other && second == r));
        CHECK(second->inbox_next == NULL);
        ex_request_unref(first);
        ex_request_unref(second);
    }
    ex_request_ungather(r);
    ex_request_ungather(r);
    ex_request_ungather(other);
    CHECK_EQ(ex_load(&r->refs), 1);
    ex_request_unref(r);
    ex_request_unref(other);
    r = gathering(channels, N);                  /* all are there already */
    CHECK(posted() == r);
    ex_request_ungather(r);
    ex_request_unref(r);
    for (i = 0; i < N; i++)
        end_channel(channels[i]);
    end();
}

static void who_waits_no_more_is_forgotten(void)
{
    fake late;
    ex_channel *one;
    ex_request *r, *ended;
    begin();
    one = fake_channel(lane, &late, "dev:late", DBR_DOUBLE, 1);
    r = gathering(&one, 1);
    CHECK_EQ(ex_load(&r->refs), 2);
    CHECK(ex_request_end(r, EX_BY_CLOSE, ECA_CHANDESTROY));
    ended = gathering(&one, 1);                  /* ended, but still in the list of the channel when that connects */
    CHECK(ex_request_end(ended, EX_BY_CLOSE, ECA_CHANDESTROY));
    ex_request_ungather(r);
    CHECK(one->waiting != NULL);
    fake_up(&late);
    CHECK(one->waiting == NULL);
    ex_request_ungather(ended);
    {
        ex_request *first = ex_inbox_take(box);
        CHECK(first == r && first->inbox_next == ended && ended->inbox_next == NULL);
        ex_request_unref(first);
        ex_request_unref(ended);
    }
    CHECK_EQ(r->reason, EX_BY_CLOSE);
    CHECK_EQ(ex_load(&r->refs), 1);
    CHECK_EQ(ex_load(&ended->refs), 1);
    ex_request_unref(r);
    ex_request_unref(ended);
    end_channel(one);
    end();
}

static void a_dropped_channel_is_not_waited_for(void)
{
    fake late;
    ex_channel *one;
    ex_request *r;
    begin();
    one = fake_channel(lane, &late, "dev:late", DBR_DOUBLE, 1);
    r = gathering(&one, 1);
    ex_channel_drop(one);
    CHECK(posted() == r);
    ex_request_ungather(r);
    ex_request_unref(r);
    ex_channel_unref(one);
    keeper(lane);
    end();
}

/* ----------------------------------------------------------------- batches */

static ex_batch *signalling(size_t n, ex_request **done)
{
    ex_channel *channels[8];
    size_t i;
    ex_batch *b = ex_batch_new(n);
    for (i = 0; i < n; i++)
        channels[i] = ch;
    *done = ex_request_new(ch, -1, 0);
    ex_inbox_ref(box);
    (*done)->inbox = box;
    ex_request_ref(*done);
    b->done = *done;
    for (i = 0; i < n; i++)
        b->slots[i].type = DBR_TIME_DOUBLE;
    ex_batch_lend(b, lane, channels);
    ex_lock(&lane->lock);
    ch->in_call = 0;
    ex_unlock(&lane->lock);
    ex_batch_settle(b);
    return b;
}

static void a_batch_ends_its_request_once(void)
{
    ex_request *done;
    ex_batch *b;
    int i;
    begin();
    b = signalling(4, &done);
    for (i = 0; i < 3; i++)
        fake_reply(&b->slots[i], DBR_TIME_DOUBLE, 1, i, ECA_NORMAL);
    CHECK(posted() == NULL);
    ex_batch_refuse(b, 3, ECA_NORDACCESS);
    CHECK_EQ(rings(), 1);
    CHECK(posted() == done);
    CHECK(b->done == NULL);
    ex_batch_settle(b);
    CHECK(posted() == NULL);
    CHECK_EQ(ex_load(&done->refs), 1);
    ex_request_unref(done);
    ex_batch_unref(b);
    end();
}

static void a_batch_of_which_nothing_could_be_sent(void)
{
    ex_request *done;
    ex_batch *b;
    begin();
    fake_down(&f);
    b = signalling(3, &done);
    CHECK(posted() == done);
    ex_request_unref(done);
    ex_batch_unref(b);
    end();
}

static void an_abandoned_batch_ends_nothing(void)
{
    ex_request *done;
    ex_batch *b;
    begin();
    b = signalling(2, &done);
    fake_reply(&b->slots[0], DBR_TIME_DOUBLE, 1, 1, ECA_NORMAL);
    ex_batch_abandon(b);
    CHECK_EQ(ex_load(&done->refs), 1);
    fake_reply(&b->slots[1], DBR_TIME_DOUBLE, 1, 1, ECA_NORMAL);
    CHECK(posted() == NULL);
    CHECK_EQ(ex_load(&done->state), EX_PENDING);
    ex_request_unref(done);
    ex_batch_unref(b);
    end();
}

/* ----------------------------------------------------------------- threads */

static atomic_int posting;

static void *post(void *p)
{
    ex_sub *sub = (ex_sub *)p;
    int i;
    for (i = 0; i < 20000; i++)
        fake_event(sub, 1, i);
    atomic_store(&posting, 0);
    return NULL;
}

/* A loop that sleeps whenever it was not rung gets everything, in order. */
static void nothing_is_missed_while_events_arrive(void)
{
    ex_handle *h;
    pthread_t t;
    double expected = 0;
    int64_t deadline = ex_now() + 20000000000ll;
    begin();
    h = looped(ch, 100000, 0);
    atomic_store(&posting, 1);
    pthread_create(&t, NULL, post, h->sub);
    while (expected < 20000 && ex_now() < deadline) {
        ex_handle *ready;
        if (!rings())
            continue;
        ex_inbox_take(box);
        while ((ready = ex_inbox_ready(box)) != NULL) {
            double value;
            while ((value = taken(h)) != -3) {
                CHECK_EQ(value, expected);
                expected++;
            }
            ex_handle_unref(ready);
        }
    }
    pthread_join(t, NULL);
    CHECK_EQ(expected, 20000);
    CHECK(box->rings <= 20000);
    close_handle(h);
    end();
}

int main(void)
{
    RUN(a_loop_is_woken_once_for_all_that_came);
    RUN(read_empty_before_the_loop_looked);
    RUN(bounds_and_merging_are_those_of_every_handle);
    RUN(a_loss_is_told_in_its_place);
    RUN(many_are_taken_at_once);
    RUN(closing_drops_and_counts_what_waits);
    RUN(a_killed_inbox_is_not_rung);
    RUN(what_is_too_large_is_told_to_the_loop);
    RUN(a_request_ends_with_the_last_connection);
    RUN(who_waits_no_more_is_forgotten);
    RUN(a_dropped_channel_is_not_waited_for);
    RUN(a_batch_ends_its_request_once);
    RUN(a_batch_of_which_nothing_could_be_sent);
    RUN(an_abandoned_batch_ends_nothing);
    RUN(nothing_is_missed_while_events_arrive);
    return finish();
}

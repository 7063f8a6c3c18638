/* The same rules with many threads at once: libca's threads that produce, a dispatcher that takes, threads that open,
 * close, ask and give up, and a keeper. At the end every count adds up and nothing is lent. */
#include "fakes.h"

enum { CHANNELS = 4, HANDLES = 12, PRODUCERS = 2 };

static ex_lane *lane;
static fake fakes[CHANNELS];
static ex_channel *channels[CHANNELS];
static atomic_int producing, opening, running;

static void begin(void)
{
    int i;
    fakes_install();
    lane = ex_lane_new("threads");
    for (i = 0; i < CHANNELS; i++) {
        channels[i] = fake_channel(lane, &fakes[i], "dev:t", DBR_DOUBLE, 100);
        fake_up(&fakes[i]);
    }
    atomic_store(&running, 1);
}

static unsigned any(unsigned *state, unsigned below)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return (*state >> 4) % below;
}

static void *keep(void *unused)
{
    ex_lock(&lane->lock);
    while (atomic_load(&running) || lane->plan_head)
        if (!fake_work(lane))
            ex_wait(&lane->plan, &lane->lock, ex_now() + 1000000);
    ex_unlock(&lane->lock);
    return unused;
}

/* ------------------------------------------------------------ values and handles */

typedef struct listener {                /* what h->py points at; outlives the handle */
    atomic_llong last, taken;
} listener;

enum { LISTENERS = 200000 };
static listener *listeners;
static atomic_int n_listeners;
static ex_counts sums;                   /* of handles that were closed */

/* A CAC-TCP-recv: events for every subscription that libca knows, under the callback lock. */
static void *produce(void *p)
{
    int n = *(int *)p, i, k;
    struct event_handler_args args = fake_args(NULL, DBR_TIME_DOUBLE, 100, 1);
    for (i = 0; i < n; i++) {
        pthread_mutex_lock(&server.lock);
        for (k = 0; k < FAKE_SUBS; k++)
            if (server.subs[k]) {
                args.usr = server.subs[k];
                args.count = 1 + i % 100;
                ex_on_event(args);
            }
        if (i % 997 == 0) {
            fake_down(&fakes[i % CHANNELS]);
            fake_up(&fakes[i % CHANNELS]);
        }
        if (i % 101 == 0)
            fake_access(&fakes[i % CHANNELS], 1, (unsigned)(i & 1));
        pthread_mutex_unlock(&server.lock);
    }
    free((void *)args.dbr);
    return NULL;
}

static void *consume(void *unused)
{
    for (;;) {
        ex_taken t;
        int done = !atomic_load(&opening);
        if (!ex_lane_wait(lane, ex_now() + 2000000) && done)
            return unused;
        while (ex_lane_take(lane, &t)) {
            if (t.kind == EX_NOTE_VALUE && t.py) {
                listener *who = (listener *)t.py;
                CHECK((long long)t.block->arrival > atomic_load(&who->last));
                atomic_store(&who->last, (long long)t.block->arrival);
                atomic_fetch_add(&who->taken, 1);
                CHECK(t.block->generation == ex_generation_now());
                CHECK_EQ(block_value(t.block, t.block->count - 1), t.block->count);
            }
            ex_taken_done(&t);
        }
    }
}

static void *open_and_close(void *p)
{
    unsigned seed = *(unsigned *)p;
    ex_handle *open_[HANDLES] = {0};
    listener *who[HANDLES] = {0};
    int always[HANDLES];
    int i, round = 0;
    static pthread_mutex_t sums_lock = PTHREAD_MUTEX_INITIALIZER;
    while (atomic_load(&producing) || round < 100) {
        i = (int)any(&seed, HANDLES);
        round++;
        if (open_[i]) {
            ex_counts c;
            ex_handle_close(open_[i]);
            ex_handle_counts(open_[i], &c);
            CHECK_EQ(c.received, c.delivered + c.merged + c.dropped);
            CHECK_EQ(c.pending, 0);
            if (always[i])               /* `delivered` is counted under the lock, then the taker goes on */
                CHECK((long long)c.delivered >= atomic_load(&who[i]->taken));
            pthread_mutex_lock(&sums_lock);
            sums.received += c.received;
            sums.delivered += c.delivered;
            sums.merged += c.merged;
            sums.dropped += c.dropped;
            pthread_mutex_unlock(&sums_lock);
            ex_handle_unref(open_[i]);
            open_[i] = NULL;
        } else {
            int n = atomic_fetch_add(&n_listeners, 1);
            ex_sub *s;
            if (n >= LISTENERS)
                break;
            who[i] = &listeners[n];
            s = ex_sub_get(channels[any(&seed, CHANNELS)], EX_TIME_OF_NATIVE, 0, any(&seed, 2) ? 5 : 7, 0);
            always[i] = any(&seed, 4) != 0;
            open_[i] = ex_handle_new(s, always[i], any(&seed, 2) ? 5 : 10000, any(&seed, 4) == 0, 1, who[i], NULL);
        }
        if (any(&seed, 3) == 0) {
            ex_block *b;
            i = (int)any(&seed, HANDLES);
            if (open_[i] && (b = ex_sub_newest(open_[i]->sub, NULL)) != NULL) {
                CHECK_EQ(block_value(b, 0), 1);
                ex_block_unref(b);
            }
        }
        if (any(&seed, 5) == 0) {
            struct timespec pause = {0, 20000};
            nanosleep(&pause, NULL);
        }
    }
    for (i = 0; i < HANDLES; i++)
        if (open_[i]) {
            ex_handle_close(open_[i]);
            ex_handle_unref(open_[i]);
        }
    return NULL;
}

static void closing_while_updates_flow(void)
{
    pthread_t producers[PRODUCERS], closers[2], consumer, keeping;
    unsigned seeds[2] = {11, 12345};
    int events = 12000, i, steady = 0;
    ex_handle *all[CHANNELS];
    listener whole[CHANNELS];
    ex_counts c;
    begin();
    for (i = 0; i < CHANNELS; i++)
        ex_channel_set_news(channels[i], i % 2);
    listeners = (listener *)calloc(LISTENERS, sizeof *listeners);
    memset(whole, 0, sizeof whole);
    atomic_store(&n_listeners, 0);
    memset(&sums, 0, sizeof sums);
    lane->max_events = 2000;
    atomic_store(&producing, 1);
    atomic_store(&opening, 1);
    for (i = 0; i < CHANNELS; i++)               /* these stay open all the time */
        all[i] = open_handle(channels[i], EX_TIME_OF_NATIVE, 1, 500, 0, &whole[i]);
    pthread_create(&keeping, NULL, keep, NULL);
    pthread_create(&consumer, NULL, consume, NULL);
    for (i = 0; i < 2; i++)
        pthread_create(&closers[i], NULL, open_and_close, &seeds[i]);
    for (i = 0; i < PRODUCERS; i++)
        pthread_create(&producers[i], NULL, produce, &events);
    for (i = 0; i < PRODUCERS; i++)
        pthread_join(producers[i], NULL);
    atomic_store(&producing, 0);
    for (i = 0; i < 2; i++)
        pthread_join(closers[i], NULL);
    atomic_store(&opening, 0);
    pthread_join(consumer, NULL);
    CHECK(lane_consistent(lane));
    for (i = 0; i < CHANNELS; i++) {
        ex_handle_counts(all[i], &c);
        CHECK_EQ(c.received, PRODUCERS * events);
        CHECK_EQ(c.pending, 0);
        CHECK_EQ(c.received, c.delivered + c.merged + c.dropped);
        CHECK_EQ(c.delivered, atomic_load(&whole[i].taken));
        CHECK_EQ(atomic_load(&whole[i].last), all[i]->sub->last_arrival);      /* the last value is delivered */
        steady += (int)c.received;
        close_handle(all[i]);
    }
    CHECK(steady + sums.received > 100000);
    CHECK_EQ(sums.received, sums.delivered + sums.merged + sums.dropped);
    for (i = 0; i < CHANNELS; i++) {
        counts_of_channel(channels[i], &c);
        CHECK_EQ(c.received, c.delivered + c.merged + c.dropped);
        CHECK_EQ(c.pending, 0);
        ex_channel_drop(channels[i]);
        ex_channel_unref(channels[i]);
    }
    atomic_store(&running, 0);
    pthread_join(keeping, NULL);
    end_lane(lane);
    free(listeners);
}

/* -------------------------------------------------------------------- requests */

enum { ASKERS = 3, QUEUE = 256 };

static struct {                          /* what libca has been asked, in order */
    pthread_mutex_t lock;
    ex_pending *items[QUEUE];
    int first, n;
} wire = {.lock = PTHREAD_MUTEX_INITIALIZER};
static atomic_int asking, noted_sent, noted_come, ended;

static int send_(ex_pending *p)
{
    int ok;
    pthread_mutex_lock(&wire.lock);
    ok = wire.n < QUEUE;
    if (ok)
        wire.items[(wire.first + wire.n++) % QUEUE] = p;
    pthread_mutex_unlock(&wire.lock);
    return ok;
}

static int under_way(void)
{
    int n;
    pthread_mutex_lock(&wire.lock);
    n = wire.n;
    pthread_mutex_unlock(&wire.lock);
    return n;
}

/* libca's receiving thread: answers in order, sometimes late, sometimes with an error. */
static void *reply(void *unused)
{
    unsigned seed = 5;
    struct event_handler_args args = fake_args(NULL, DBR_TIME_DOUBLE, 100, 1);
    while (atomic_load(&asking) || under_way()) {
        ex_pending *p = NULL;
        if (any(&seed, 50) == 0) {
            struct timespec pause = {0, 200000};
            nanosleep(&pause, NULL);
        }
        pthread_mutex_lock(&server.lock);        /* taken before the item: a clear waits for this reply */
        pthread_mutex_lock(&wire.lock);
        if (wire.n) {
            p = wire.items[wire.first];
            wire.first = (wire.first + 1) % QUEUE;
            wire.n--;
        }
        pthread_mutex_unlock(&wire.lock);
        if (p) {
            args.usr = p;
            args.status = any(&seed, 10) ? ECA_NORMAL : ECA_DISCONN;
            ex_on_reply(args);
        }
        pthread_mutex_unlock(&server.lock);
        if (!p) {
            struct timespec pause = {0, 20000};
            nanosleep(&pause, NULL);
        }
    }
    free((void *)args.dbr);
    return unused;
}

static void call_done(ex_channel *ch)
{
    ex_lock(&lane->lock);
    ch->in_call--;
    ex_unlock(&lane->lock);
}

static void *ask(void *p)
{
    unsigned seed = *(unsigned *)p;
    double out[100];
    int i, k, *me = (int *)p;
    for (i = 0; i < 15000; i++) {
        ex_channel *ch = channels[any(&seed, CHANNELS)];
        ex_request *r = ex_request_new(ch, DBR_TIME_DOUBLE, 0);
        int mode = (int)any(&seed, 4), into = (int)any(&seed, 2);
        int64_t deadline = ex_now() + any(&seed, 100000);
        r->owner = me;
        for (k = 0; k < 100; k++)
            out[k] = -1;
        if (into) {
            r->out = out;
            r->out_count = any(&seed, 5) ? 100 : 99;
        }
        if (mode == 3)
            ex_request_note(r);
        if (ex_request_lend(r)) {
            ex_request_unref(r);
            continue;
        }
        if (!send_(&r->link)) {
            ex_request_take_back(r);             /* libca refuses */
            call_done(ch);
            ex_request_unref(r);
            continue;
        }
        call_done(ch);
        if (mode == 3)
            atomic_fetch_add(&noted_sent, 1);
        if (mode >= 2) {
            ex_request_due(r, deadline);
            ex_request_wait(r, EX_FOREVER);
        } else if (ex_request_wait(r, deadline) == EX_PENDING) {
            if (mode == 0)
                ex_request_end(r, EX_BY_DEADLINE, ECA_TIMEOUT);
            else
                ex_channel_close_pending(ch, EX_BY_CLOSE, me);
            ex_request_wait(r, EX_FOREVER);      /* a reply may have been quicker, and still be at it */
        }
        atomic_fetch_add(&ended, 1);
        CHECK_EQ(r->state, EX_DONE);
        if (into && r->status == ECA_NORMAL)
            CHECK(out[0] == 1 && out[99] == 100);
        else
            CHECK(out[0] == -1 && out[99] == -1);
        if (r->reason == EX_BY_SIZE)
            CHECK(r->status == ECA_BADCOUNT && into);
        memset(out, 7, sizeof out);              /* ours again: a late reply must not be seen here (and TSan would) */
        ex_request_unref(r);
    }
    return NULL;
}

static void *dispatch(void *unused)
{
    while (atomic_load(&opening) || ex_lane_wait(lane, ex_now())) {
        ex_taken t;
        ex_lane_wait(lane, ex_now() + 2000000);
        ex_lane_expire(lane, ex_now());
        while (ex_lane_take(lane, &t)) {
            if (t.kind == EX_NOTE_COMPLETION) {
                CHECK_EQ(((ex_request *)t.subject)->state, EX_DONE);
                atomic_fetch_add(&noted_come, 1);
            }
            ex_taken_done(&t);
        }
    }
    return unused;
}

static void giving_up_while_replies_come(void)
{
    pthread_t askers[ASKERS], replier, dispatcher;
    unsigned seeds[ASKERS] = {3, 33, 333};
    int i;
    begin();
    atomic_store(&noted_sent, 0);
    atomic_store(&noted_come, 0);
    atomic_store(&asking, 1);
    atomic_store(&opening, 1);
    pthread_create(&replier, NULL, reply, NULL);
    pthread_create(&dispatcher, NULL, dispatch, NULL);
    for (i = 0; i < ASKERS; i++)
        pthread_create(&askers[i], NULL, ask, &seeds[i]);
    for (i = 0; i < ASKERS; i++)
        pthread_join(askers[i], NULL);
    atomic_store(&asking, 0);
    pthread_join(replier, NULL);
    atomic_store(&opening, 0);
    pthread_join(dispatcher, NULL);
    CHECK(atomic_load(&ended) > 1000);
    CHECK_EQ(atomic_load(&noted_sent), atomic_load(&noted_come));
    CHECK_EQ(ex_lent(), CHANNELS);
    for (i = 0; i < CHANNELS; i++)
        end_channel(channels[i]);
    end_lane(lane);
}

/* ----------------------------------------------- channels that come, wait and go */

static void *wait_for_connection(void *p)
{
    ex_waiter w;
    ex_wait_node nodes[CHANNELS];
    int i, round, *limit = (int *)p;
    for (round = 0; round < *limit; round++) {
        int connected;
        ex_wait_begin(lane, &w);
        for (i = 0; i < CHANNELS; i++)
            ex_wait_connected(channels[i], &w, &nodes[i]);
        connected = ex_wait_for(lane, &w, ex_now() + (round % 3 ? (int64_t)60000000000 : 5000));
        CHECK(connected || round % 3 == 0);
        ex_wait_end(lane, &w, nodes, CHANNELS);
    }
    return NULL;
}

static void *come_and_go(void *p)
{
    fake *f = (fake *)p;
    while (atomic_load(&producing)) {
        fake_down(f);
        fake_up(f);
    }
    return NULL;
}

static void nobody_who_waits_is_forgotten(void)
{
    pthread_t waiters[2], flapping[2];
    int i, rounds = 5000;
    begin();
    atomic_store(&producing, 1);
    for (i = 0; i < 2; i++)
        pthread_create(&flapping[i], NULL, come_and_go, &fakes[i]);
    for (i = 0; i < 2; i++)
        pthread_create(&waiters[i], NULL, wait_for_connection, &rounds);
    for (i = 0; i < 2; i++)
        pthread_join(waiters[i], NULL);
    atomic_store(&producing, 0);
    for (i = 0; i < 2; i++)
        pthread_join(flapping[i], NULL);
    for (i = 0; i < CHANNELS; i++) {
        CHECK(channels[i]->waiting == NULL);
        end_channel(channels[i]);
    }
    end_lane(lane);
}

/* A channel is dropped while requests, batches and events of it are under way. */
static void *ask_batches(void *p)
{
    ex_channel **mine = (ex_channel **)p;
    int i, k;
    for (i = 0; i < 300; i++) {
        ex_batch *b = ex_batch_new(CHANNELS);
        for (k = 0; k < CHANNELS; k++)
            b->slots[k].type = DBR_TIME_DOUBLE;
        ex_batch_lend(b, lane, mine);
        for (k = 0; k < CHANNELS; k++)
            if (b->slots[k].link.channel) {
                if (!send_(&b->slots[k].link))
                    ex_batch_refuse(b, (size_t)k, ECA_TOLARGE);
                call_done(mine[k]);
            }
        if (!ex_batch_wait(b, ex_now() + 300000))
            ex_batch_abandon(b);
        for (k = 0; k < CHANNELS; k++)
            CHECK(b->slots[k].state == EX_ABANDONED || b->slots[k].state == EX_DONE);
        ex_batch_unref(b);
    }
    return NULL;
}

static void dropping_what_is_in_use(void)
{
    int round, i;
    for (round = 0; round < 30; round++) {
        pthread_t batches, replier;
        begin();
        atomic_store(&asking, 1);
        for (i = 0; i < CHANNELS; i++)
            ex_channel_ref(channels[i]);
        pthread_create(&replier, NULL, reply, NULL);
        pthread_create(&batches, NULL, ask_batches, channels);
        for (i = 0; i < CHANNELS; i++) {
            struct timespec pause = {0, 300000};
            nanosleep(&pause, NULL);
            ex_channel_drop(channels[i]);
        }
        ex_lane_end_requests(lane, EX_BY_SHUTDOWN);
        pthread_join(batches, NULL);
        atomic_store(&asking, 0);
        pthread_join(replier, NULL);
        for (i = 0; i < CHANNELS; i++) {
            ex_channel_unref(channels[i]);
            ex_channel_unref(channels[i]);
        }
        keeper(lane);
        end_lane(lane);
    }
}

int main(void)
{
    RUN(closing_while_updates_flow);
    RUN(giving_up_while_replies_come);
    RUN(nobody_who_waits_is_forgotten);
    RUN(dropping_what_is_in_use);
    return finish();
}

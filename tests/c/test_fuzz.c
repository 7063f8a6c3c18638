/* Thousands of random operations on a lane against a simple model of its rules. After each one the lists are whole,
 * received == delivered + merged + dropped + pending for every handle, and what is taken is what the model expects.
 *
 * The model is slow and plain: one array of expected notes, shifted at each removal. `EPICSX_FUZZ_SEED` and
 * `EPICSX_FUZZ_STEPS` repeat a run, or make it longer. */
#include "fakes.h"

enum { CHANNELS = 3, SUBS = 2, HANDLES = 24, NOTES = 4000 };

typedef struct expected {
    int kind, channel, handle, connected;
    uint64_t serial;
    size_t bytes;
    double value;
} expected;

typedef struct handle {
    ex_handle *h;
    int channel, sub, queueing, latest;
    size_t bound, byte_bound, waiting, bytes;
    uint64_t received, delivered, merged, dropped;
    uint64_t joined;                     /* the order in which they are told */
    double last;                         /* taken */
} handle;

static ex_lane *lane;
static fake fakes[CHANNELS];
static ex_channel *channels[CHANNELS];
static struct { int up, news; uint64_t news_serial; ex_counts past; } model_channel[CHANNELS];
static struct { ex_sub *s; int fresh, users; double value; size_t bytes; } model_sub[CHANNELS][SUBS];
static handle handles[HANDLES];
static expected notes[NOTES];
static int n_notes;
static size_t events, bytes;
static uint64_t serial, joins;
static double values;
static unsigned state;

static unsigned any(unsigned below)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return (state >> 4) % below;
}

static void remove_note(int i)
{
    expected *e = &notes[i];
    if (e->kind == EX_NOTE_VALUE) {
        handle *m = &handles[e->handle];
        m->waiting--;
        m->bytes -= e->bytes;
        events--;
        bytes -= e->bytes;
    }
    memmove(e, e + 1, (size_t)(n_notes - i - 1) * sizeof *e);
    n_notes--;
}

static int oldest_of(int which)
{
    int i;
    for (i = 0; i < n_notes; i++)
        if (notes[i].kind == EX_NOTE_VALUE && notes[i].handle == which)
            return i;
    return -1;
}

static int newest_of(int which)
{
    int i;
    for (i = n_notes - 1; i >= 0; i--)
        if (notes[i].kind == EX_NOTE_VALUE && notes[i].handle == which)
            return i;
    return -1;
}

static void receive(int which, double value, size_t size)
{
    handle *m = &handles[which];
    expected *e;
    int at = newest_of(which);
    m->received++;
    if (!m->queueing) {
        m->delivered++;
        return;
    }
    if (at >= 0 && (m->latest || events >= lane->max_events || bytes + size > lane->max_bytes) &&
        notes[at].serial > model_channel[m->channel].news_serial) {
        m->bytes += size - notes[at].bytes;
        bytes += size - notes[at].bytes;
        notes[at].bytes = size;
        notes[at].value = value;
        m->merged++;
        return;
    }
    e = &notes[n_notes++];
    memset(e, 0, sizeof *e);
    e->kind = EX_NOTE_VALUE;
    e->handle = which;
    e->channel = m->channel;
    e->serial = ++serial;
    e->bytes = size;
    e->value = value;
    m->waiting++;
    m->bytes += size;
    events++;
    bytes += size;
    while (m->waiting > m->bound || (m->bytes > m->byte_bound && m->waiting > 4)) {
        remove_note(oldest_of(which));
        m->dropped++;
    }
}

/* ---------------------------------------------------------------- operations */

static void do_event(int c, int s)
{
    ex_sub *sub = model_sub[c][s].s;
    long count = any(4) ? 1 + (long)any(40) : (long)any(2000);
    size_t size;
    int i;
    uint64_t after = 0;
    if (!sub || !sub->live)
        return;
    if (count == 0)
        count = 1;
    values += 1;
    fake_event(sub, count, values);
    size = sub->newest->capacity;
    model_sub[c][s].fresh = 1;
    model_sub[c][s].value = values;
    model_sub[c][s].bytes = size;
    for (;;) {                                   /* in the order of joining */
        int next = -1;
        for (i = 0; i < HANDLES; i++)
            if (handles[i].h && handles[i].channel == c && handles[i].sub == s && handles[i].joined > after &&
                (next < 0 || handles[i].joined < handles[next].joined))
                next = i;
        if (next < 0)
            break;
        after = handles[next].joined;
        receive(next, values, size);
    }
}

static void do_connection(int c, int up)
{
    int s;
    if (up == model_channel[c].up && any(4))
        return;
    if (up && model_channel[c].up)
        return;                                  /* libca does not say UP twice */
    fake_connection(&fakes[c], up ? CA_OP_CONN_UP : CA_OP_CONN_DOWN);
    if (!up && !model_channel[c].up)
        return;                                  /* a second DOWN is no news */
    model_channel[c].up = up;
    for (s = 0; s < SUBS; s++)
        model_sub[c][s].fresh = 0;
    if (model_channel[c].news) {
        expected *e = &notes[n_notes++];
        memset(e, 0, sizeof *e);
        e->kind = EX_NOTE_CONNECTION;
        e->channel = c;
        e->connected = up;
        e->serial = ++serial;
        model_channel[c].news_serial = e->serial;
        e = &notes[n_notes++];                   /* the rights come with it, and go with it */
        memset(e, 0, sizeof *e);
        e->kind = EX_NOTE_ACCESS;
        e->channel = c;
        e->connected = up;
        e->serial = ++serial;
    }
}

static void do_open(void)
{
    int i, c = (int)any(CHANNELS), s = (int)any(SUBS), replay = any(3) != 0;
    handle *m;
    ex_sub *sub;
    for (i = 0; i < HANDLES && handles[i].h; i++)
        ;
    if (i == HANDLES || oldest_of(i) >= 0)
        return;
    m = &handles[i];
    memset(m, 0, sizeof *m);
    m->channel = c;
    m->sub = s;
    m->queueing = any(4) != 0;
    m->latest = any(4) == 0;
    m->bound = any(3) ? 1 + any(30) : 10000;
    m->joined = ++joins;
    m->byte_bound = (size_t)64 << 20;
    m->last = -1;
    sub = ex_sub_get(channels[c], EX_TIME_OF_NATIVE, 0, s ? 5 : 7, 0);
    if (model_sub[c][s].users++ == 0 && model_sub[c][s].s != sub)
        model_sub[c][s].fresh = 0;
    model_sub[c][s].s = sub;
    m->h = ex_handle_new(sub, m->queueing, m->bound, m->latest, replay, m, NULL);
    if (replay && model_sub[c][s].fresh)
        receive(i, model_sub[c][s].value, model_sub[c][s].bytes);
    if (any(2))
        m->h->max_bytes = m->byte_bound = 3000 + any(20000);
}

static void check_counts(handle *m)
{
    ex_counts k;
    ex_handle_counts(m->h, &k);
    CHECK_EQ(k.received, m->received);
    CHECK_EQ(k.delivered, m->delivered);
    CHECK_EQ(k.merged, m->merged);
    CHECK_EQ(k.dropped, m->dropped);
    CHECK_EQ(k.pending, m->waiting);
    CHECK_EQ(k.received, k.delivered + k.merged + k.dropped + k.pending);
}

static void do_close(int i)
{
    handle *m = &handles[i];
    int at;
    if (!m->h)
        return;
    while ((at = oldest_of(i)) >= 0) {
        remove_note(at);
        m->dropped++;
    }
    ex_handle_close(m->h);
    check_counts(m);
    model_channel[m->channel].past.received += m->received;
    model_channel[m->channel].past.delivered += m->delivered;
    model_channel[m->channel].past.merged += m->merged;
    model_channel[m->channel].past.dropped += m->dropped;
    model_sub[m->channel][m->sub].users--;
    ex_handle_unref(m->h);
    m->h = NULL;
}

static void do_take(void)
{
    ex_taken t;
    do {                                         /* the log of first losses is not modelled */
        ex_lane_take(lane, &t);
        if (t.kind == EX_NOTE_LOG)
            ex_taken_done(&t);
        else
            break;
    } while (1);
    if (!CHECK_EQ(t.kind, n_notes ? notes[0].kind : EX_NOTE_NONE))
        return;
    if (t.kind == EX_NOTE_VALUE) {
        handle *m = &handles[notes[0].handle];
        CHECK(t.py == m && t.subject == m->h);
        CHECK_EQ(block_value(t.block, 0), notes[0].value);
        CHECK_EQ(t.block->capacity, notes[0].bytes);
        CHECK(notes[0].value > m->last);         /* never out of order for one handle */
        m->last = notes[0].value;
        m->delivered++;
        remove_note(0);
    } else if (t.kind == EX_NOTE_CONNECTION || t.kind == EX_NOTE_ACCESS) {
        CHECK(t.subject == channels[notes[0].channel]);
        CHECK_EQ(t.a, notes[0].connected);
        remove_note(0);
    }
    ex_taken_done(&t);
}

static void do_keeper(void)
{
    int c, s;
    ex_sub *sub;
    keeper(lane);
    for (c = 0; c < CHANNELS; c++)
        for (s = 0; s < SUBS; s++) {
            int known = 0;
            for (sub = channels[c]->subs; sub; sub = sub->next)
                known |= sub == model_sub[c][s].s;
            if (!known) {                        /* without users: forgotten */
                CHECK_EQ(model_sub[c][s].users, 0);
                model_sub[c][s].s = NULL;
                model_sub[c][s].fresh = 0;
            } else if (!model_sub[c][s].s->live || !model_sub[c][s].users)
                model_sub[c][s].fresh = 0;
        }
}

static void check_all(void)
{
    int i;
    CHECK(lane_consistent(lane));
    CHECK_EQ(lane->events, events);
    CHECK_EQ(lane->bytes, bytes);
    CHECK_EQ(lane->queued - lane->logs, n_notes);
    for (i = 0; i < HANDLES; i++)
        if (handles[i].h)
            check_counts(&handles[i]);
    for (i = 0; i < CHANNELS; i++) {
        ex_counts k;
        counts_of_channel(channels[i], &k);
        CHECK_EQ(k.received, k.delivered + k.merged + k.dropped + k.pending);
        CHECK(k.received >= model_channel[i].past.received);
    }
}

static void run(unsigned seed, int steps, size_t max_events, size_t max_bytes)
{
    int i, step;
    state = seed ? seed : 1;
    fakes_install();
    lane = ex_lane_new("fuzz");
    lane->max_events = max_events;
    lane->max_bytes = max_bytes;
    memset(model_channel, 0, sizeof model_channel);
    memset(model_sub, 0, sizeof model_sub);
    memset(handles, 0, sizeof handles);
    n_notes = 0;
    events = bytes = 0;
    serial = joins = 0;
    values = 0;
    for (i = 0; i < CHANNELS; i++)
        channels[i] = fake_channel(lane, &fakes[i], "dev:fuzz", DBR_DOUBLE, 2000);
    for (step = 0; step < steps && !atomic_load(&check_failures); step++) {
        unsigned what = any(100);
        int c = (int)any(CHANNELS);
        if (n_notes > NOTES - 100)
            what = 70;                           /* an end to growing */
        if (what < 50)
            do_event(c, (int)any(SUBS));
        else if (what < 68)
            do_take();
        else if (what < 71)
            for (i = 0; i < 40; i++)
                do_take();
        else if (what < 77)
            do_connection(c, any(4) != 0);
        else if (what < 82)
            do_open();
        else if (what < 85)
            do_close((int)any(HANDLES));
        else if (what < 90)
            do_keeper();
        else if (what < 93) {
            model_channel[c].news = any(3) != 0;
            ex_channel_set_news(channels[c], model_channel[c].news);
        } else {
            handle *m = &handles[any(HANDLES)];
            if (m->h) {
                m->queueing = any(4) != 0;
                ex_handle_set_queueing(m->h, m->queueing);
            }
        }
        check_all();
    }
    if (atomic_load(&check_failures))
        fprintf(stderr, "seed %u, step %d, bounds %zu %zu\n", seed, step, max_events, max_bytes);
    for (i = 0; i < HANDLES; i++)
        do_close(i);
    for (i = 0; i < CHANNELS; i++)
        if (!atomic_load(&check_failures)) {
            ex_counts k;
            counts_of_channel(channels[i], &k);
            CHECK_EQ(k.received, model_channel[i].past.received);
            CHECK_EQ(k.delivered, model_channel[i].past.delivered);
            CHECK_EQ(k.merged, model_channel[i].past.merged);
            CHECK_EQ(k.dropped, model_channel[i].past.dropped);
            CHECK_EQ(k.pending, 0);
        }
    for (i = 0; i < CHANNELS; i++)
        end_channel(channels[i]);
    end_lane(lane);
}

static unsigned from_environment(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static void wide_bounds(void)
{
    run(from_environment("EPICSX_FUZZ_SEED", 20240607), (int)from_environment("EPICSX_FUZZ_STEPS", 6000), 250000,
        (size_t)512 << 20);
}

static void few_events(void)
{
    run(from_environment("EPICSX_FUZZ_SEED", 4711), (int)from_environment("EPICSX_FUZZ_STEPS", 6000), 40,
        (size_t)512 << 20);
}

static void few_bytes(void)
{
    run(from_environment("EPICSX_FUZZ_SEED", 99), (int)from_environment("EPICSX_FUZZ_STEPS", 6000), 250000, 60000);
}

static void many_short_lives(void)
{
    unsigned seed;
    for (seed = 1; seed <= 40 && !atomic_load(&check_failures); seed++)
        run(seed, 300, 5 + seed, 20000 + 3000 * seed);
}

int main(void)
{
    RUN(wide_bounds);
    RUN(few_events);
    RUN(few_bytes);
    RUN(many_short_lives);
    return finish();
}

/* Rings of frames, recorders and reducers: what is counted, what is lost and told, and that nothing overwrites a slab
 * that somebody holds. */
#include <math.h>

#include "epicsx_sinks.h"
#include "fakes.h"

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
    CHECK_EQ(ex_blocks(), 0);
}

static ex_ring *ring_open(size_t depth, size_t block, int overflow)
{
    ex_ring *r = ex_ring_new(depth, block, overflow);
    CHECK(ex_sink_open(ex_ring_sink(r), ch, EX_TIME_OF_NATIVE, 0, DBE_VALUE));
    keeper(lane);
    return r;
}

static void ring_done(ex_ring *r)
{
    ex_ring_close(r);
    ex_sink_unref(ex_ring_sink(r));
    keeper(lane);
}

static ex_sub *sub_of(ex_ring *r) { return ex_ring_sink(r)->sub; }
static ex_ledger ledger(ex_ring *r)
{
    ex_ledger l;
    ex_ring_ledger(r, &l);
    CHECK_EQ(l.received, l.delivered + l.merged + l.dropped + l.pending);
    return l;
}

static ex_slab *take(ex_ring *r, int latest, int expected)
{
    ex_slab *slab;
    CHECK_EQ(ex_ring_take(r, latest, 0, &slab), expected);
    return slab;
}

static double value_of(const ex_slab *slab, size_t frame, size_t i)
{
    return block_value(slab->block, frame * slab->count + i);
}

static void frames_come_in_order_and_are_counted(void)
{
    ex_ring *r;
    int i;
    begin(100);
    r = ring_open(64, 1, EX_DROP_OLDEST);
    for (i = 0; i < 10; i++)
        fake_event(sub_of(r), 100, i);
    CHECK_EQ(ledger(r).pending, 10);
    CHECK_EQ(ledger(r).bytes, 8000);
    for (i = 0; i < 10; i++) {
        ex_slab *slab = take(r, 0, EX_RING_TAKEN);
        CHECK_EQ(slab->n, 1);
        CHECK_EQ(slab->frames[0].index, i);
        CHECK_EQ(slab->frames[0].lost_before, 0);
        CHECK_EQ(value_of(slab, 0, 0), i);
        CHECK_EQ(value_of(slab, 0, 99), i + 99);
        CHECK_EQ((size_t)slab->block->values % 64, 0);
        ex_slab_free(slab);
    }
    CHECK(take(r, 0, EX_RING_EMPTY) == NULL);
    CHECK_EQ(ledger(r).delivered, 10);
    CHECK_EQ(ledger(r).repeated, 9);     /* the fake's stamps are all alike */
    ring_done(r);
    end();
}

static void a_held_slab_is_never_overwritten(void)
{
    ex_slab *held[20];
    ex_ring *r;
    int i, k;
    begin(1000);
    r = ring_open(2, 1, EX_DROP_OLDEST);
    for (i = 0; i < 20; i++) {
        fake_event(sub_of(r), 1000, i);
        held[i] = take(r, 0, EX_RING_TAKEN);
    }
    for (k = 0; k < 200; k++)
        fake_event(sub_of(r), 1000, -1);
    ring_done(r);
    for (i = 0; i < 20; i++) {
        CHECK_EQ(value_of(held[i], 0, 0), i);
        CHECK_EQ(value_of(held[i], 0, 999), i + 999);
        ex_slab_free(held[i]);
    }
    end();
}

static void the_oldest_go_and_the_next_tells(void)
{
    ex_ring *r;
    ex_slab *slab;
    int i;
    begin(4);
    r = ring_open(3, 1, EX_DROP_OLDEST);
    for (i = 0; i < 10; i++)
        fake_event(sub_of(r), 4, i);
    CHECK_EQ(ledger(r).dropped, 7);
    slab = take(r, 0, EX_RING_TAKEN);
    CHECK_EQ(slab->frames[0].index, 7);
    CHECK_EQ(slab->frames[0].lost_before, 7);
    ex_slab_free(slab);
    slab = take(r, 0, EX_RING_TAKEN);
    CHECK_EQ(slab->frames[0].lost_before, 0);
    ex_slab_free(slab);
    ring_done(r);
    end();
}

static void the_newest_are_refused_and_the_next_tells(void)
{
    ex_ring *r;
    ex_slab *slab;
    int i;
    begin(4);
    r = ring_open(3, 1, EX_DROP_NEWEST);
    for (i = 0; i < 10; i++)
        fake_event(sub_of(r), 4, i);
    CHECK_EQ(ledger(r).dropped, 7);
    for (i = 0; i < 3; i++) {
        slab = take(r, 0, EX_RING_TAKEN);
        CHECK_EQ(slab->frames[0].index, i);
        ex_slab_free(slab);
    }
    fake_event(sub_of(r), 4, 10);
    slab = take(r, 0, EX_RING_TAKEN);
    CHECK_EQ(slab->frames[0].index, 10);
    CHECK_EQ(slab->frames[0].lost_before, 7);
    ex_slab_free(slab);
    ring_done(r);
    end();
}

static void an_overrun_is_told_once_after_what_waits(void)
{
    ex_ring *r;
    ex_slab *slab;
    int i;
    begin(4);
    r = ring_open(2, 1, EX_OVERRUN_IS_ERROR);
    for (i = 0; i < 5; i++)
        fake_event(sub_of(r), 4, i);
    ex_slab_free(take(r, 0, EX_RING_TAKEN));
    fake_event(sub_of(r), 4, 5);         /* there is room, but the reader has not been told yet */
    ex_slab_free(take(r, 0, EX_RING_TAKEN));
    take(r, 0, EX_RING_OVERRUN);
    take(r, 0, EX_RING_EMPTY);
    CHECK_EQ(ledger(r).dropped, 4);
    fake_event(sub_of(r), 4, 6);
    slab = take(r, 0, EX_RING_TAKEN);
    CHECK_EQ(slab->frames[0].lost_before, 4);
    CHECK_EQ(slab->frames[0].index, 6);
    ex_slab_free(slab);
    ring_done(r);
    end();
}

static void the_latest_merges_the_older(void)
{
    ex_ring *r;
    ex_slab *slab;
    int i;
    begin(4);
    r = ring_open(10, 1, EX_DROP_OLDEST);
    for (i = 0; i < 6; i++)
        fake_event(sub_of(r), 4, i);
    slab = take(r, 1, EX_RING_TAKEN);
    CHECK_EQ(slab->frames[0].index, 5);
    CHECK_EQ(slab->frames[0].lost_before, 5);
    CHECK_EQ(ledger(r).merged, 5);
    ex_slab_free(slab);
    ring_done(r);
    end();
}

static void blocks_are_filled_in_place(void)
{
    ex_ring *r;
    ex_slab *slab;
    int i;
    begin(8);
    r = ring_open(16, 4, EX_DROP_OLDEST);
    for (i = 0; i < 7; i++)
        fake_event(sub_of(r), 8, 10 * i);
    CHECK_EQ(ledger(r).pending, 7);
    slab = take(r, 0, EX_RING_TAKEN);
    CHECK_EQ(slab->n, 4);
    for (i = 0; i < 4; i++) {
        CHECK_EQ(slab->frames[i].index, i);
        CHECK_EQ(value_of(slab, (size_t)i, 7), 10 * i + 7);
    }
    ex_slab_free(slab);
    CHECK(take(r, 0, EX_RING_EMPTY) == NULL);
    fake_event(sub_of(r), 5, 70);        /* another length: the block of three ends */
    slab = take(r, 0, EX_RING_TAKEN);
    CHECK_EQ(slab->n, 3);
    CHECK_EQ(slab->block->count, 24);
    ex_slab_free(slab);
    fake_down(&f);                       /* a lost connection ends the block of one */
    slab = take(r, 0, EX_RING_TAKEN);
    CHECK_EQ(slab->n, 1);
    CHECK_EQ(slab->count, 5);
    ex_slab_free(slab);
    fake_up(&f);
    fake_event(sub_of(r), 0, 0);         /* without elements */
    fake_event(sub_of(r), 8, 1);
    slab = take(r, 0, EX_RING_TAKEN);
    CHECK_EQ(slab->count, 0);
    CHECK_EQ(slab->frames[0].gap, 1);
    CHECK_EQ(slab->frames[0].lost_before, 1);
    ex_slab_free(slab);
    CHECK_EQ(ledger(r).disconnects, 1);
    CHECK_EQ(ledger(r).pending, 1);
    ring_done(r);
    end();
}

static void what_waits_at_the_close_is_dropped(void)
{
    ex_ring *r;
    ex_counts c;
    int i;
    begin(8);
    r = ring_open(16, 4, EX_DROP_OLDEST);
    for (i = 0; i < 7; i++)
        fake_event(sub_of(r), 8, i);
    ex_slab_free(take(r, 0, EX_RING_TAKEN));
    ex_ring_close(r);
    take(r, 0, EX_RING_CLOSED);
    CHECK_EQ(ledger(r).dropped, 3);
    counts_of_channel(ch, &c);        /* the channel's past remembers */
    CHECK_EQ(c.received, 7);
    CHECK_EQ(c.delivered, 4);
    CHECK_EQ(c.dropped, 3);
    ex_sink_unref(ex_ring_sink(r));
    keeper(lane);
    end();
}

static void an_ended_ring_is_read_empty_and_the_next_goes_on(void)
{
    ex_ring *old, *next;
    ex_slab *slab;
    begin(8);
    old = ring_open(16, 1, EX_DROP_OLDEST);
    fake_event(sub_of(old), 8, 0);
    fake_event(sub_of(old), 8, 1);
    next = ex_ring_new(16, 1, EX_DROP_OLDEST);
    ex_ring_end(old, next);
    keeper(lane);
    CHECK(ex_sink_open(ex_ring_sink(next), ch, EX_TIME_OF_NATIVE, 0, DBE_VALUE));
    keeper(lane);
    fake_event(sub_of(next), 8, 2);
    ex_slab_free(take(old, 0, EX_RING_TAKEN));
    ex_slab_free(take(old, 0, EX_RING_TAKEN));
    take(old, 0, EX_RING_CLOSED);
    slab = take(next, 0, EX_RING_TAKEN);
    CHECK_EQ(slab->frames[0].index, 2);
    CHECK_EQ(slab->frames[0].gap, 1);
    CHECK_EQ(slab->frames[0].lost_before, 1);
    ex_slab_free(slab);
    ex_ring_close(old);
    ex_sink_unref(ex_ring_sink(old));
    ring_done(next);
    end();
}

/* Any order of events, reads, losses: the counts balance, and index and lost_before account for every frame. */
static void any_order_balances(void)
{
    unsigned seed;
    for (seed = 1; seed <= 300; seed++) {
        unsigned x = seed * 2654435761u;
        size_t block = 1 + seed % 4, depth = block + seed % 5;
        int overflow = (int)(seed % 3), k, up = 1, gaps = 0;
        uint64_t next = 0;               /* the index that the reader expects, with what it was told of losses */
        ex_ring *r;
        ex_slab *slab;
        begin(8);
        r = ring_open(depth, block, overflow);
        for (k = 0; k < 200; k++) {
            x = x * 1664525u + 1013904223u;
            switch ((x >> 16) % 8) {
            case 0: case 1: case 2: case 3:
                if (up)
                    fake_event(sub_of(r), 1 + (x >> 24) % 2, k);
                break;
            case 4: case 5:
            case 6: {
                int how = ex_ring_take(r, (x >> 16) % 8 == 6, 0, &slab);
                if (how == EX_RING_TAKEN) {
                    size_t i;
                    for (i = 0; i < slab->n; i++) {
                        const ex_frame *fr = &slab->frames[i];
                        uint64_t missing = fr->index - next;
                        CHECK(fr->index >= next);
                        if (fr->gap) {   /* each lost connection counts as one */
                            CHECK(gaps > 0);
                            CHECK(fr->lost_before > missing && fr->lost_before <= missing + (uint64_t)gaps);
                            gaps -= (int)(fr->lost_before - missing);
                        } else
                            CHECK_EQ(fr->lost_before, missing);
                        next = fr->index + 1;
                    }
                    ex_slab_free(slab);
                }
                break;
            }
            default:
                if (up) {
                    fake_down(&f);
                    gaps++;
                } else
                    fake_up(&f);
                up = !up;
                keeper(lane);
            }
            (void)ledger(r);
        }
        ring_done(r);
        end();
    }
}

static ex_ring *shared;
static atomic_int stop_reading;
static uint64_t read_frames;

static void *reader(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop_reading)) {
        ex_slab *slab;
        if (ex_ring_take(shared, 0, ex_now() + 1000000, &slab) == EX_RING_TAKEN) {
            size_t i;
            for (i = 0; i < slab->n; i++) {      /* a frame is never torn: all its elements are of one event */
                double first = value_of(slab, i, 0);
                CHECK_EQ(value_of(slab, i, slab->count - 1), first + (double)slab->count - 1);
            }
            read_frames += slab->n;
            ex_slab_free(slab);
        }
    }
    return NULL;
}

static void a_reader_and_libca_at_once(void)
{
    size_t block;
    for (block = 1; block <= 3; block += 2) {
        pthread_t t;
        int i;
        ex_ledger l;
        begin(300);
        shared = ring_open(8, block, EX_DROP_OLDEST);
        atomic_store(&stop_reading, 0);
        read_frames = 0;
        pthread_create(&t, NULL, reader, NULL);
        for (i = 0; i < 20000; i++) {
            fake_event(sub_of(shared), 300, i);
            (void)ledger(shared);
        }
        atomic_store(&stop_reading, 1);
        pthread_join(t, NULL);
        l = ledger(shared);
        CHECK_EQ(l.received, 20000);
        CHECK_EQ(l.delivered, read_frames);
        ring_done(shared);
        end();
    }
}

static void a_recorder_appends_and_is_bounded(void)
{
    ex_recorder *rec;
    ex_sink *sink;
    ex_row rows[64];
    ex_rows *all;
    ex_ledger l;
    int i;
    begin(1);
    rec = ex_recorder_new(4, 50);        /* grows from 4 rows on */
    sink = ex_recorder_sink(rec, 7);
    CHECK(ex_sink_open(sink, ch, DBR_TIME_DOUBLE, 1, DBE_VALUE));
    keeper(lane);
    for (i = 0; i < 60; i++)
        fake_event(sink->sub, 1, i);
    CHECK_EQ(ex_recorder_size(rec), 50);
    ex_recorder_ledger(rec, &l);
    CHECK_EQ(l.received, 60);
    CHECK_EQ(l.delivered, 50);
    CHECK_EQ(l.dropped, 10);
    CHECK_EQ(ex_recorder_copy(rec, 30, rows, 64), 20);
    CHECK_EQ(rows[0].value, 30);
    CHECK_EQ(rows[0].source, 7);
    CHECK_EQ(rows[19].value, 49);
    CHECK_EQ(ex_recorder_copy(rec, 99, rows, 64), 0);
    all = ex_recorder_take(rec);
    CHECK_EQ(ex_recorder_size(rec), 0);
    while (all) {
        ex_rows *next = all->next;
        free(all);
        all = next;
    }
    fake_event(sink->sub, 1, 60);        /* there is room again */
    CHECK_EQ(ex_recorder_copy(rec, 0, rows, 64), 1);
    CHECK_EQ(rows[0].value, 60);
    ex_recorder_close(rec);
    fake_event(sink->sub, 1, 61);
    CHECK_EQ(ex_recorder_size(rec), 1);
    ex_sink_close(sink);
    ex_sink_unref(sink);
    ex_recorder_unref(rec);
    keeper(lane);
    end();
}

static double reduce_one(const char *name, ex_reduce_args *args, int type, int size, const void *values, size_t n, int which)
{
    double out[64];
    epicsx_frame frame = {values, n, type, size, 0, 0, 0};
    out[which] = -1e300;
    CHECK(ex_reducer_named(name)(&frame, args, out, 64) > which);
    return out[which];
}

static void reducers_are_right_for_every_type(void)
{
    static uint8_t u8[1000];
    static int16_t i16[1000];
    static uint16_t u16[1000];
    static int32_t i32[1000];
    static float f32[1000];
    static double f64[1000];
    const struct { int type, size; const void *v; } all[] = {
        {1, 2, i16}, {2, 4, f32}, {3, 2, u16}, {4, 1, u8}, {5, 4, i32}, {6, 8, f64}};
    size_t i, k, n = 997;
    for (i = 0; i < n; i++) {
        u8[i] = (uint8_t)(i % 200);
        i16[i] = (int16_t)(i % 200);
        u16[i] = (uint16_t)(i % 200);
        i32[i] = (int32_t)(i % 200);
        f32[i] = (float)(i % 200);
        f64[i] = (double)(i % 200);
    }
    for (k = 0; k < 6; k++) {
        double sum = 0, roi = 0;
        size_t within = 0, y, x;
        ex_reduce_args a = {0};
        for (i = 0; i < n; i++) {
            sum += (double)(i % 200);
            within += i % 200 >= 50 && i % 200 <= 99;
        }
        for (y = 3; y < 19; y++)
            for (x = 5; x < 30; x++)
                roi += (double)((y * 50 + x) % 200);
        CHECK(fabs(reduce_one("mean", NULL, all[k].type, all[k].size, all[k].v, n, 0) - sum / (double)n) < 1e-9);
        CHECK_EQ(reduce_one("minmax", NULL, all[k].type, all[k].size, all[k].v, n, 0), 0);
        CHECK_EQ(reduce_one("minmax", NULL, all[k].type, all[k].size, all[k].v, n, 1), 199);
        CHECK_EQ(reduce_one("minmax", NULL, all[k].type, all[k].size, all[k].v, 3, 1), 2);
        a.low = 49.5;
        a.high = 99;
        CHECK_EQ(reduce_one("threshold", &a, all[k].type, all[k].size, all[k].v, n, 0), within);
        a.low = -1e30;
        a.high = 1e30;
        CHECK_EQ(reduce_one("threshold", &a, all[k].type, all[k].size, all[k].v, n, 0), n);
        a.width = 50;
        a.y0 = 3;
        a.y1 = 25;                       /* more rows than there are whole ones: 19 */
        a.x0 = 5;
        a.x1 = 30;
        CHECK_EQ(reduce_one("roi_sum", &a, all[k].type, all[k].size, all[k].v, n, 0), roi);
        a.every = 100;
        CHECK_EQ(reduce_one("decimate", &a, all[k].type, all[k].size, all[k].v, n, 9), 100);
    }
    CHECK(isnan(reduce_one("mean", NULL, 6, 8, f64, 0, 0)));
    f64[0] = f64[5] = NAN;
    CHECK_EQ(reduce_one("minmax", NULL, 6, 8, f64, n, 1), 199);
    CHECK(ex_reducer_named("median") == NULL);
    i16[3] = -32768;
    CHECK_EQ(reduce_one("minmax", NULL, 1, 2, i16, n, 0), -32768);
}

static void white_images_have_the_right_mean(void)
{
    static uint8_t white[3 * 256 * 64 + 5];      /* the sums of the parts are as large as they get */
    memset(white, 255, sizeof white);
    CHECK_EQ(reduce_one("mean", NULL, 4, 1, white, sizeof white, 0), 255);
    CHECK_EQ(reduce_one("mean", NULL, 4, 1, white + 1, 256 * 64, 0), 255);
    CHECK_EQ(reduce_one("mean", NULL, 4, 1, white, 63, 0), 255);
}

static int only_even(const epicsx_frame *frame, void *state, double *out, size_t room)
{
    double first = *(const double *)frame->values;
    CHECK_EQ(room, 2);
    CHECK_EQ(frame->type, DBR_DOUBLE);
    CHECK_EQ(frame->count, 100);
    out[0] = first;
    out[1] = *(double *)state;
    return (int)first % 2 ? -1 : 2;
}

static void a_reduced_ring_has_results_only(void)
{
    double state = 5;
    ex_ring *r;
    ex_slab *slab;
    int i;
    begin(100);
    r = ex_ring_new(10, 1, EX_DROP_OLDEST);
    ex_ring_reduce(r, only_even, &state, 2, 1);
    CHECK(ex_sink_open(ex_ring_sink(r), ch, EX_TIME_OF_NATIVE, 0, DBE_VALUE));
    keeper(lane);
    for (i = 0; i < 5; i++)
        fake_event(sub_of(r), 100, i);
    CHECK_EQ(ledger(r).merged, 2);
    CHECK_EQ(ledger(r).pending, 3);
    CHECK_EQ(ledger(r).bytes, 4000);
    ex_slab_free(take(r, 0, EX_RING_TAKEN));
    slab = take(r, 0, EX_RING_TAKEN);
    CHECK_EQ(slab->count, 2);
    CHECK_EQ(slab->frames[0].index, 2);
    CHECK_EQ(value_of(slab, 0, 0), 2);
    CHECK_EQ(value_of(slab, 0, 1), 5);
    ex_slab_free(slab);
    ring_done(r);
    end();
}

int main(void)
{
    RUN(frames_come_in_order_and_are_counted);
    RUN(a_held_slab_is_never_overwritten);
    RUN(the_oldest_go_and_the_next_tells);
    RUN(the_newest_are_refused_and_the_next_tells);
    RUN(an_overrun_is_told_once_after_what_waits);
    RUN(the_latest_merges_the_older);
    RUN(blocks_are_filled_in_place);
    RUN(what_waits_at_the_close_is_dropped);
    RUN(an_ended_ring_is_read_empty_and_the_next_goes_on);
    RUN(any_order_balances);
    RUN(a_reader_and_libca_at_once);
    RUN(a_recorder_appends_and_is_bounded);
    RUN(reducers_are_right_for_every_type);
    RUN(white_images_have_the_right_mean);
    RUN(a_reduced_ring_has_results_only);
    return finish();
}

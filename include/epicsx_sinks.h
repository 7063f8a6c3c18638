/* Where events go that are for nobody's callback: rings of frames, recorders, reducers.
 *
 * Threads
 *   A sink is filled by libca's thread, in ex_on_event, without the GIL; it is read by Python's threads. Its own lock is
 *   a leaf: it may be taken with the lane lock held, and nothing is taken under it. No copy is made under it.
 *
 * Lifetime
 *   A sink has a subscription of its own, which holds one reference; its Python object holds another. Closing makes it
 *   deaf at once; the keeper clears the subscription later. A slab belongs to the ring until it is taken, then to who
 *   took it; its block goes back to the pool with its last reference, so nothing overwrites what somebody still sees. */
#ifndef EPICSX_SINKS_H
#define EPICSX_SINKS_H

#include "epicsx_events.h"
#include "epicsx_reducer.h"

/* One event, as ex_on_event hands it on: still in libca's memory. */
struct ex_event {
    int dbr_type;                /* a TIME type */
    size_t count, bytes;
    const void *header, *values;
};

struct ex_sink {
    ex_atomic_int refs;
    ex_sub *sub;                 /* set once, before the first event */
    void (*event)(ex_sink *sink, const ex_event *e);
    void (*lost)(ex_sink *sink);             /* the connection was lost. Lane lock held. */
    void (*refused)(ex_sink *sink, int status);      /* an event without data; NULL: nobody cares */
    void (*counts)(ex_sink *sink, ex_counts *out);   /* added to `out`. Lane lock held. */
    void (*destroy)(ex_sink *sink);
};
void ex_sink_ref(ex_sink *sink);
void ex_sink_unref(ex_sink *sink);
int ex_sink_open(ex_sink *sink, ex_channel *ch, int type, unsigned long count, long mask);   /* 0: no memory */
void ex_sink_close(ex_sink *sink);           /* its subscription ends; the counts go to the channel's past */

/* -------------------------------------------------------------------- rings */

typedef struct ex_frame {
    int64_t ns;
    int64_t received;            /* ex_now() when libca handed it over */
    uint64_t index;              /* number of the frame among the received, from 0 */
    uint64_t lost_before;        /* frames dropped or merged right before it; a lost connection counts as one */
    int16_t status, severity;
    int32_t gap;                 /* the connection was lost before it */
} ex_frame;

typedef struct ex_slab {
    struct ex_slab *next;
    ex_block *block;             /* the values of all its frames, one after the other */
    size_t n, room;              /* frames in it, and how many it can hold */
    size_t count;                /* elements of each */
    int dbr_type;
    ex_frame frames[1];
} ex_slab;
void ex_slab_free(ex_slab *slab);

typedef struct ex_ledger {
    uint64_t received, delivered, merged, dropped, pending;
    uint64_t repeated;           /* with the very stamp of the frame before */
    uint64_t disconnects, bytes;
    int last_status;             /* ECA code of the last event that carried none */
} ex_ledger;

enum { EX_DROP_OLDEST, EX_DROP_NEWEST, EX_OVERRUN_IS_ERROR };
enum { EX_RING_EMPTY, EX_RING_TAKEN, EX_RING_CLOSED, EX_RING_OVERRUN };

typedef struct ex_ring ex_ring;
ex_ring *ex_ring_new(size_t depth, size_t block, int overflow);
ex_sink *ex_ring_sink(ex_ring *ring);
/* Make it a ring of results: `fn` is called on each event. `room` results at most; 0: as many as there are elements,
 * divided by `every`. `state` is kept by the caller, longer than the subscription. */
void ex_ring_reduce(ex_ring *ring, epicsx_reducer fn, void *state, size_t room, size_t every);
/* The oldest slab that is full (block > 1: or cut short by a change of type, size or connection), or the newest with
 * `latest`, the older ones merged. Waits until `deadline`. EX_RING_OVERRUN once after frames were refused. */
int ex_ring_take(ex_ring *ring, int latest, int64_t deadline, ex_slab **out);
void ex_ring_wake(ex_ring *ring);            /* whoever waits in ex_ring_take looks again, and returns */
void ex_ring_watch(ex_ring *ring, int fd);   /* a byte is written there when something can be taken; -1: no more */
int ex_ring_arm(ex_ring *ring);              /* for the next time only; 1: there is something now */
void ex_ring_ledger(ex_ring *ring, ex_ledger *out);
void ex_ring_end(ex_ring *ring, ex_ring *next);      /* it is fed no more, what waits stays; `next` goes on, with a gap */
void ex_ring_close(ex_ring *ring);           /* what waits is dropped and counted */

/* ---------------------------------------------------------------- recorders */

typedef struct ex_row {          /* = RECORD_DTYPE of _record.py */
    int64_t ns;
    double value;
    uint32_t source;             /* which of the recorder's names */
    int16_t status, severity;
} ex_row;

typedef struct ex_rows {
    struct ex_rows *next;
    size_t n, room;
    ex_row rows[1];
} ex_rows;

typedef struct ex_recorder ex_recorder;
ex_recorder *ex_recorder_new(size_t capacity, size_t max_events);
void ex_recorder_ref(ex_recorder *rec);
void ex_recorder_unref(ex_recorder *rec);
ex_sink *ex_recorder_sink(ex_recorder *rec, uint32_t source);    /* one for each channel; a reference */
size_t ex_recorder_size(ex_recorder *rec);
size_t ex_recorder_copy(ex_recorder *rec, size_t from, ex_row *out, size_t n);   /* rows from..; how many */
ex_rows *ex_recorder_take(ex_recorder *rec);         /* all of them, the caller's now: free() each */
int ex_recorder_wait(ex_recorder *rec, size_t n, int64_t deadline);     /* 1: n rows are there, or it is closed */
void ex_recorder_close(ex_recorder *rec);
void ex_recorder_ledger(ex_recorder *rec, ex_ledger *out);

/* ----------------------------------------------------------- known reducers */

typedef struct ex_reduce_args {  /* their state */
    size_t width, x0, x1, y0, y1;        /* a region of rows of `width` elements */
    double low, high;
    size_t every;
} ex_reduce_args;
epicsx_reducer ex_reducer_named(const char *name);   /* mean, minmax, roi_sum, threshold, decimate; or NULL */

#endif

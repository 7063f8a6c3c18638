/* What libca's threads do for epicsx, and the plain C objects they do it with.
 *
 * Threads
 *   Handlers (ex_on_*) run in five kinds of libca threads, most under libca's callback lock (per context). They take
 *   no GIL and include no Python.h. They copy, queue, wake, and return. Everything else here is called by
 *   Python's threads and by the keeper.
 *
 * Locks, in the order in which they nest (outer first)
 *   request or batch lock   the state of one request or of one bulk call
 *   lane lock               queue, newest blocks, lists of handles, connection truth, plans
 *   libca's own locks       never taken with the lane lock held; the access lock (rights are read and stored under it) is
 *                           outer to both
 *   inbox lock              what waits for an event loop; a leaf
 *   pool lock               free lists of blocks; a leaf
 *
 * Lifetime
 *   Every object is reference counted. libca holds one reference to what it may still mention ("lent"), each note one
 *   to its subject, Python objects one each. ex_lent() counts the first kind, ex_blocks() the blocks that are out.
 *   After fork() the child's copies belong to a dead generation: see ex_generation. */
#ifndef EPICSX_EVENTS_H
#define EPICSX_EVENTS_H

#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1                     /* clock_gettime, pthread_condattr_setclock, with -std=c11 too */
#endif

#include <stddef.h>
#include <stdint.h>
#include "cadef.h"
#include "epicsx_sync.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ blocks */

/* One DBR structure out of libca: header bytes as they came, values at a 64-byte boundary. */
typedef struct ex_block {
    ex_atomic_int refs;
    int16_t size_class;
    int16_t dbr_type;
    int32_t scalar;          /* the record's native count was 1 */
    int32_t generation;      /* of the process that took it out of the pool */
    uint32_t count;          /* elements */
    size_t nbytes;           /* of the values */
    size_t capacity;         /* of the whole allocation */
    uint64_t arrival;        /* of two that came by one circuit, replies and events, the later has the larger one */
    union {
        void *values;
        struct ex_block *next;   /* in a free list instead */
    };
    void (*give_back)(struct ex_block *);    /* to the pool it came from: any module may let a block go */
    /* header bytes follow at EX_HEADER_AT */
} ex_block;

#define EX_HEADER_AT 64
_Static_assert(sizeof(ex_block) <= EX_HEADER_AT, "the header bytes follow the structure");
#define EX_HEADER(b) ((void *)((char *)(b) + EX_HEADER_AT))

ex_block *ex_block_new(int dbr_type, size_t count, size_t header_bytes, size_t value_bytes);
static inline void ex_block_ref(ex_block *b) { (void)ex_add(&b->refs, 1); }
static inline void ex_block_unref(ex_block *b)         /* NULL is allowed */
{
    if (b && ex_add(&b->refs, -1) == 0)
        b->give_back(b);
}
size_t ex_blocks(void);                    /* blocks that are out of the pool */
size_t ex_pool_bytes(void);                /* bytes kept in the pool's free lists */

/* -------------------------------------------------------------- the objects */

typedef struct ex_lane ex_lane;
typedef struct ex_channel ex_channel;
typedef struct ex_sub ex_sub;
typedef struct ex_handle ex_handle;
typedef struct ex_request ex_request;
typedef struct ex_batch ex_batch;
typedef struct ex_note ex_note;
typedef struct ex_inbox ex_inbox;
typedef struct ex_wait_node ex_wait_node;
typedef struct ex_sink ex_sink;
typedef struct ex_event ex_event;

/* The libca getters a handler may call, as a table: the C tests bring their own. */
typedef struct ex_getters {
    short (epicsStdCall *field_type)(chid);
    unsigned long (epicsStdCall *element_count)(chid);
    unsigned (epicsStdCall *read_access)(chid);
    unsigned (epicsStdCall *write_access)(chid);
    unsigned (epicsStdCall *host_name)(chid, char *, unsigned);
    void *(epicsStdCall *puser)(chid);
} ex_getters;
extern ex_getters ex_libca;

typedef enum { EX_NOTE_NONE, EX_NOTE_VALUE, EX_NOTE_CONNECTION, EX_NOTE_ACCESS, EX_NOTE_COMPLETION, EX_NOTE_LOG, EX_NOTE_LARGE, EX_NOTE_LINK } ex_kind;

struct ex_note {
    ex_note *next, *prev;        /* the lane's queue, oldest first; also the free list */
    ex_note *hnext, *hprev;      /* the handle's own list */
    ex_block *block;
    void *subject;               /* ex_handle, ex_channel, ex_request or char* (LOG), by kind; a reference */
    uint64_t serial;
    int64_t since;               /* ex_now_coarse() when it was queued; ex_now() where the handle is timed */
    int kind;
    int a, b;                    /* CONNECTION, LINK: connected, type; ACCESS: read, write; LOG: level */
};

/* A note as the dispatcher gets it: the references are now its own; give them back with ex_taken_done(). */
typedef struct ex_taken {
    int kind;
    int a, b;
    int64_t since;               /* when it was queued */
    ex_block *block;
    void *subject;
    void *py;                    /* the handle's, channel's or request's Python object, borrowed, or NULL */
} ex_taken;

typedef struct ex_counts {
    uint64_t received, delivered, merged, dropped, pending;
} ex_counts;

/* All that is counted of a channel, or of a lane's. */
typedef struct ex_tally {
    ex_counts counts;
    uint64_t disconnects, unresponsive, rejected_puts, decode_errors, callback_errors;
    size_t bytes;                /* of the values that wait for a callback */
    int64_t oldest;              /* since when the longest of them waits, by ex_now_coarse(); 0: none */
} ex_tally;

typedef struct ex_health {
    ex_tally tally;              /* of all channels there have been */
    size_t channels, connected, never_connected;
    size_t subscriptions;        /* that the servers serve */
    size_t circuits, notes;
    int64_t age;                 /* nanoseconds that the oldest note has waited */
} ex_health;

/* Somebody waits for `left` things to happen; the lane lock guards it. */
typedef struct ex_waiter {
    ex_cond cond;
    int left;
    ex_request *done;            /* a reference to a request that ends then; NULL: somebody waits on `cond` */
} ex_waiter;

struct ex_wait_node {
    ex_wait_node *next, **at;    /* at: the pointer that points here; NULL when in no list */
    ex_waiter *waiter;
};

/* How long new channels wait for a circuit to close; libca's governor would take up to ten seconds. */
#define EX_CLOSING_NS 2000000000ll

/* How long an address whose circuit was left for dead is not left again. */
#define EX_SPARED_NS 30000000000ll

struct ex_lane {
    ex_mutex lock;
    ex_cond wake;                /* the dispatcher waits here */
    ex_cond plan;                /* the keeper waits here */
    ex_cond spare;               /* its spares do, until a plan is queued while the keeper is inside a call */
    int watching;                /* a spare is awake and watches how long the call takes */
    ex_cond settled;             /* start and stop wait here */
    ex_atomic_int closing;       /* handlers do nothing any more */
    ex_atomic_int refs;
    int generation;
    const char *name;

    ex_note *head, *tail, *free_notes;
    size_t queued;               /* notes of all kinds */
    size_t events, max_events;   /* VALUE notes */
    size_t bytes, max_bytes;     /* of the blocks they hold */
    size_t logs, lost_logs;
    uint64_t serial;
    int sleeping, woken, polled;
    ex_request *first_due, *last_due;    /* by deadline */

    ex_channel *channels;
    ex_channel *plan_head, *plan_tail;
    struct ex_circuit {
        struct ex_circuit *next;
        const char *host;        /* one of `hosts`; NULL: another has its name now, and it waits to be used again */
        unsigned priority;
        unsigned users;          /* channels that are connected there */
        ex_channel *members;     /* they, and those that it lost by falling silent */
        int64_t silent_since;    /* it answers nothing, though its connection stands; 0: not so */
        int64_t spared_until;    /* it was left for dead not long ago */
        int64_t leaving;         /* the silence for which the keeper leaves it just now */
        unsigned left;           /* channels that leave it with that */
    } *circuits;
    struct ex_host {
        struct ex_host *next;
        char name[1];
    } *hosts;                    /* every name that a circuit had */
    struct ex_circuit *newest_circuit;   /* the last that a channel joined */
    unsigned circuits_used;      /* those with users: channels that libca has connected there */
    unsigned emptied;            /* circuits whose last user was dropped and waits for its clear */
    unsigned leaving, open_due;  /* circuits that libca is closing, and how many will be left */
    int64_t closing_until;       /* new channels wait for that no longer than this */
    unsigned deferred;           /* channels that wait */
    int64_t dead_after;          /* nanoseconds that a silent circuit has before its channels leave it; EX_FOREVER: never */
    int64_t dead_due;            /* when the keeper looks at the silent ones; 0: there are none */
    unsigned dying;              /* channels that leave one and are not yet cleared */
    uint64_t dead_circuits;      /* how often one was left */
    ex_mutex access_lock;        /* read-and-store of access rights; outer to `census` and `lock` */
    ex_mutex census;             /* no channel is freed while they are counted; outer to `lock` */
    ex_tally past;               /* of the channels that were; under `census` */

    /* the keeper's (see _libca.c) */
    void *context;
    ex_atomic_int gate;          /* calls in progress; negative once shut */
    ex_atomic_int stopping;
    int flush_due;               /* the keeper is asked to flush */
    int64_t flushed;             /* when puts were last flushed */
    int keeper_state;            /* 0 none, 1 starting, 2 running, 3 ended, -1 failed */
    int keeper_status;
    int abandon_destroy;
    ex_atomic_int barrier;       /* circuits that have not yet answered the last question */
    struct ex_worker { int64_t since; ex_channel *channel; } workers[3];
    uint64_t server_errors;
    int steady_clock;            /* libca's timers do not follow the system's clock: the hardened build */
    int64_t clock_seen;          /* the wall clock minus the monotonic one, at the last look; 0: never looked */
    int64_t clock_stepped;       /* the sum of its steps */
    uint64_t clock_steps;
    ex_note *slabs;              /* the memory of the notes */
};

enum { EX_NEVER, EX_DOWN, EX_UP, EX_CLOSED };

typedef struct ex_pending {      /* what libca may still answer: a request or a slot */
    struct ex_pending *next, *prev;
    ex_channel *channel;
    int is_slot;
    int lent;
} ex_pending;

struct ex_channel {
    ex_lane *lane;
    ex_atomic_int refs;
    chid id;
    char *name;
    unsigned priority;
    int state, type, reading, writing;
    int tainted;                 /* it was silent there: what is cancelled now libca does not cancel at the server */
    unsigned long count;
    const char *host;
    struct ex_circuit *circuit;  /* where it connected and libca has it still; NULL: nowhere that is known */
    ex_channel *fellow, **at;    /* the next there, and what points to this one */
    int silent;                  /* that answers nothing: libca has it there, and it is not connected */
    int last_of_circuit;         /* its clear will close that */
    int create_due;              /* libca has not been given it yet: a circuit is closing */
    uint64_t connects;
    int news;                    /* somebody wants connection and access news */
    uint64_t news_serial;        /* of the last connection note */
    ex_pending *pending;
    ex_sub *subs;
    ex_wait_node *waiting;       /* for the connection */
    int wanted, lent, in_call, planned, working, dirty, recreate, of_dead;
    ex_channel *plan_next, *next, *prev;
    void *py;
    uint64_t rejected_puts, decode_errors, disconnects, unresponsive, callback_errors;
    ex_counts past;              /* of closed handles */
};

#define EX_TIME_OF_NATIVE (-1)
#define EX_CTRL_OF_NATIVE (-2)

struct ex_sub {
    ex_channel *channel;
    ex_sub *next;
    ex_atomic_int refs;
    evid id;
    int live;                    /* lent: libca knows it */
    int live_type, live_scalar;
    int type;                    /* a DBR type, EX_TIME_OF_NATIVE or EX_CTRL_OF_NATIVE */
    unsigned long count;
    long mask;
    size_t limit;                /* bytes; 0: any size */
    int users;                   /* handles, and pins of the channel */
    int fresh;                   /* newest came since the last connect, with the present type */
    int last_status;             /* ECA of the last refused event, ECA_NORMAL after a good one */
    uint64_t last_arrival;       /* of the newest event; 0 before the first */
    ex_sink *sink;               /* it has this one alone, and neither a newest block nor handles */
    ex_block *newest;
    ex_handle *handles;
    ex_wait_node *waiting;       /* for a fresh value */
};

struct ex_handle {
    ex_sub *sub;
    ex_handle *next;
    ex_atomic_int refs;
    int queueing, latest, closed, loss_told, large_told;
    int timed;                   /* somebody asks for the time of each update's arrival, to the nanosecond */
    size_t max_events, max_bytes;
    size_t waiting, bytes;
    ex_note *oldest, *newest;
    uint64_t received, delivered, merged, dropped;
    void *py;
    ex_inbox *inbox;             /* an event loop has its notes, by ex_handle_take; NULL: the lane's queue has them */
    int told;                    /* the loop knows of notes here, until it has found none; lane lock */
    int listed;                  /* in a list of the inbox, which has a reference; inbox lock */
    ex_handle *listed_next;
};

enum { EX_PENDING, EX_DONE, EX_ABANDONED };
enum { EX_BY_REPLY, EX_BY_DEADLINE, EX_BY_CLOSE, EX_BY_SHUTDOWN, EX_BY_SIZE };

struct ex_request {
    ex_pending link;
    ex_atomic_int refs;
    ex_mutex lock;
    ex_cond cond;
    ex_atomic_int state;         /* changed under the lock; looked at without it too */
    int reason, status;
    int is_put, type;
    void *out;                   /* the caller's buffer, while lent */
    size_t out_count;
    ex_block *block;
    void *owner;                 /* the handle that asked: its close() ends the request */
    int noted;                   /* completion goes to the dispatcher */
    ex_note *note;
    ex_inbox *inbox;
    ex_request *inbox_next;
    int64_t deadline;
    ex_request *due_next, *due_prev;
    int due;
    struct ex_gathering *gathering;      /* the channels whose connection ends it */
    ex_request *over_next;
    void *py;
};

typedef struct ex_slot {
    ex_pending link;
    ex_batch *batch;
    ex_atomic_int state;
    int status, type;
    int is_small;                /* it is in `small`, header and value, and there is no block */
    ex_block *block;
    double small[7];             /* any TIME structure of one element; a double for its alignment */
} ex_slot;

struct ex_batch {
    ex_mutex lock;
    ex_cond cond;
    ex_atomic_int refs;
    int keep_small;              /* one value of a scalar record need not become a block; before lending */
    ex_request *done;            /* a reference to a request that ends with the last slot, or NULL; before lending */
    size_t n, left;
    ex_slot slots[1];
};

struct ex_inbox {
    ex_mutex lock;               /* a leaf: taken with the lane lock held, too */
    ex_atomic_int refs;
    ex_request *head, *tail;
    ex_handle *ready, *ready_tail;       /* those with news for the loop */
    int fd, rung, dead;
    uint64_t lost, rings;
};

/* --------------------------------------------------------------- functions */

extern ex_atomic_int ex_generation;        /* grows in each forked child */
int ex_generation_now(void);
void ex_fork_child(void);                  /* make our locks anew, forget what the parent lent */
long ex_lent(void);
void ex_lent_add(long n);

ex_lane *ex_lane_new(const char *name);
void ex_lane_ref(ex_lane *lane);
void ex_lane_unref(ex_lane *lane);
int ex_lane_wait(ex_lane *lane, int64_t deadline);   /* until there are notes, a due request, a wake, or the deadline */
void ex_lane_wake(ex_lane *lane);
int ex_lane_take(ex_lane *lane, ex_taken *out);      /* the oldest note: its kind, or 0 */
void ex_taken_done(ex_taken *t);
void ex_lane_expire(ex_lane *lane, int64_t now);     /* end requests whose deadline has passed */
void ex_log(ex_lane *lane, int level, const char *name, const char *text);

ex_channel *ex_channel_new(ex_lane *lane, const char *name, unsigned priority);
void ex_channel_ref(ex_channel *ch);
void ex_channel_unref(ex_channel *ch);
void ex_channel_drop(ex_channel *ch);                /* nobody wants it any more: the keeper clears it */
void ex_channel_set_news(ex_channel *ch, int wanted);
void ex_channel_tell(ex_channel *ch, int connected);     /* connection and access news, as of another channel */
void ex_channel_plan(ex_channel *ch);                /* lane lock held */
void ex_channel_left(ex_channel *ch, int cleared);   /* lane lock held: it is no longer on its circuit */
void ex_lane_leave_dead(ex_lane *lane);              /* lane lock held: what `dead_due` was set for; plans channels */
void ex_channel_not_dead(ex_channel *ch);            /* lane lock held: one that left, or need not, is not dying any more */
int ex_lane_look_at_clock(ex_lane *lane);            /* 1: the wall clock was set since the last look */
void ex_channel_close_pending(ex_channel *ch, int reason, void *owner);   /* those of one owner; NULL: all */
void ex_lane_end_requests(ex_lane *lane, int reason);
void ex_tally_of_channel(ex_channel *ch, ex_tally *out);
void ex_tally_of_handle(ex_handle *h, ex_tally *out);
void ex_tally_add(ex_tally *sum, const ex_tally *more);
void ex_channel_failed(ex_channel *ch);              /* one of its callbacks raised */
void ex_lane_health(ex_lane *lane, ex_health *out);
const char *ex_taken_name(const ex_taken *t);        /* of the channel that a note is about; "" of a log's */
int64_t ex_lane_age(ex_lane *lane);                  /* nanoseconds that the oldest note has waited, within some ms */
void ex_channel_recall(ex_channel *ch);              /* after a clear: libca will not answer its requests any more */
void ex_channel_link(ex_channel *ch, int connected); /* lane lock held: the handles of event loops hear of it in order */

void ex_wait_begin(ex_lane *lane, ex_waiter *w);
int ex_wait_connected(ex_channel *ch, ex_waiter *w, ex_wait_node *node);  /* 1: already connected (or closed), not queued */
int ex_wait_value(ex_sub *sub, ex_waiter *w, ex_wait_node *node);         /* 1: already there */
int ex_wait_for(ex_lane *lane, ex_waiter *w, int64_t deadline);           /* 1: nothing left to wait for */
void ex_wait_end(ex_lane *lane, ex_waiter *w, ex_wait_node *nodes, size_t n);

/* A user of it: found, or made and planned. Where an event would have more bytes than `limit` (0: none) at the first
 * connect, libca is not asked: each handle is told by an EX_NOTE_LARGE to go elsewhere. */
ex_sub *ex_sub_get(ex_channel *ch, int type, unsigned long count, long mask, size_t limit);
ex_sub *ex_sub_for(ex_channel *ch, int type, unsigned long count, long mask, ex_sink *sink);   /* the sink's own */
int ex_sub_tell_large(ex_sub *sub, int type);        /* lane lock held. 1: it is too large; -1: and somebody was told */
size_t ex_subs_of(ex_channel *ch);                   /* how many subscriptions libca has for it */
void ex_sub_leave(ex_sub *sub);
void ex_sub_unref(ex_sub *sub);
ex_block *ex_sub_newest(ex_sub *sub, int *fresh);    /* a new reference, or NULL */
ex_handle *ex_handle_new(ex_sub *sub, int queueing, size_t max_events, int latest, int replay, void *py, ex_inbox *inbox);
/* Of an inbox: its oldest notes, at most `n` and EX_TAKE_BYTES, as ex_lane_take; values, or values before one of another
 * kind. How many; 0: none, and the loop will be told of the next. */
#define EX_TAKE_BYTES ((size_t)1 << 20)
size_t ex_handle_take(ex_handle *h, ex_taken *out, size_t n);
void ex_handle_unheard(ex_handle *h, size_t n);      /* so many that were taken are dropped after all; before its close */
void ex_handle_set_queueing(ex_handle *h, int queueing);
void ex_handle_set_timed(ex_handle *h);
void ex_handle_close(ex_handle *h);
void ex_handle_unref(ex_handle *h);
void ex_handle_counts(ex_handle *h, ex_counts *out);

ex_request *ex_request_new(ex_channel *ch, int type, int is_put);
void ex_request_ref(ex_request *r);
void ex_request_unref(ex_request *r);
int ex_request_lend(ex_request *r);                  /* 0, or an ECA code: not connected, closed */
void ex_request_take_back(ex_request *r);            /* libca refused it */
int ex_request_wait(ex_request *r, int64_t deadline);    /* the state */
int ex_request_end(ex_request *r, int reason, int status);   /* 1 if this call ended it */
void ex_request_due(ex_request *r, int64_t deadline);
void ex_request_note(ex_request *r);                 /* completion shall post a note; before lending */
int ex_request_gather(ex_request *r, ex_channel **channels, size_t n);   /* it ends when all are connected; 0: no memory */
void ex_request_ungather(ex_request *r);             /* it is not waited for any more */

ex_batch *ex_batch_new(size_t n);
void ex_batch_ref(ex_batch *b);
void ex_batch_unref(ex_batch *b);
void ex_batch_lend(ex_batch *b, ex_lane *lane, ex_channel **channels);
void ex_batch_refuse(ex_batch *b, size_t i, int status);     /* libca refused this slot */
int ex_batch_wait(ex_batch *b, int64_t deadline);            /* 1: every slot is answered */
void ex_batch_abandon(ex_batch *b);
void ex_batch_settle(ex_batch *b);                           /* it has been lent: `done` ends here if no slot is open */

ex_inbox *ex_inbox_new(int fd);
void ex_inbox_ref(ex_inbox *b);
void ex_inbox_unref(ex_inbox *b);
void ex_inbox_kill(ex_inbox *b);                     /* its loop is closed: completions are counted and forgotten */
ex_request *ex_inbox_take(ex_inbox *b);              /* all of them, in order, linked by inbox_next; references */
ex_handle *ex_inbox_ready(ex_inbox *b);              /* the next that has notes, a reference; NULL: no other */

/* The handlers. Thread: libca's; no GIL; may copy, lock the lane, call ex_libca's getters; may do nothing else. */
void ex_on_connection(struct connection_handler_args args);
void ex_on_access(struct access_rights_handler_args args);
void ex_on_event(struct event_handler_args args);
void ex_on_reply(struct event_handler_args args);
void ex_on_exception(struct exception_handler_args args);

size_t ex_header_bytes(int dbr_type);
size_t ex_element_bytes(int dbr_type);
int ex_time_of(int native);
int ex_ctrl_of(int native);

#ifdef __cplusplus
}
#endif
#endif

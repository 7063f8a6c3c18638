/* Rings of frames: what a stream reads from, filled by libca's thread.
 *
 * Threads
 *   One producer: ex_on_event, under libca's callback lock, so never two at a time for one ring. Any number of readers.
 *   The ring's lock is held for pointer moves only: the frame is copied into a slab that nobody else can see yet, or into
 *   a place of the filling slab that is not counted yet.
 *
 * Lifetime
 *   See epicsx_sinks.h. `copying` says that the producer is inside the filling slab: until it is out, nobody takes that
 *   slab out of the ring or frees it. */
#include "epicsx_sinks.h"
#include "epicsx_dbr.h"

#include <string.h>

#define EPOCH_1990 631152000ll

struct ex_ring {
    ex_sink sink;
    ex_mutex lock;
    ex_cond cond;
    size_t depth, block;         /* frames that may wait; frames of a slab */
    int overflow;
    int closed, ended, sleeping, woken, copying, cut;   /* cut: the filling slab shall end when the copy is done */
    ex_slab *head, *tail, *filling;
    size_t waiting;              /* frames, those of the filling slab too */
    uint64_t next_index;
    uint64_t lost_next;          /* for the next frame's lost_before */
    int gap_next;
    uint64_t overrun;            /* refused since the reader was last told (overflow is an error) */
    int64_t last_ns;
    ex_ledger l;
    int fd, armed;
    epicsx_reducer reduce;
    void *state;
    size_t room, every;
    int reducing;                /* libca's thread is inside the reducer */
};

/* -------------------------------------------------------------------- sinks */

void ex_sink_ref(ex_sink *sink) { (void)ex_add(&sink->refs, 1); }

void ex_sink_unref(ex_sink *sink)
{
    if (ex_add(&sink->refs, -1) == 0)
        sink->destroy(sink);
}

int ex_sink_open(ex_sink *sink, ex_channel *ch, int type, unsigned long count, long mask)
{
    return ex_sub_for(ch, type, count, mask, sink) != NULL;
}

void ex_sink_close(ex_sink *sink)
{
    ex_sub *sub = sink->sub;
    ex_counts c;
    if (!sub)
        return;
    memset(&c, 0, sizeof c);
    ex_lock(&sub->channel->lane->lock);
    sink->counts(sink, &c);
    sub->channel->past.received += c.received;
    sub->channel->past.delivered += c.delivered;
    sub->channel->past.merged += c.merged;
    sub->channel->past.dropped += c.dropped;
    if (--sub->users == 0)
        ex_channel_plan(sub->channel);
    ex_unlock(&sub->channel->lane->lock);
    ex_sub_unref(sub);
}

/* -------------------------------------------------------------------- slabs */

static ex_slab *slab_new(size_t room)
{
    ex_slab *slab = room > SIZE_MAX / 128 ? NULL
                                          : (ex_slab *)calloc(1, sizeof *slab + (room - 1) * sizeof slab->frames[0]);
    if (slab)
        slab->room = room;
    return slab;
}

void ex_slab_free(ex_slab *slab)
{
    if (!slab)
        return;
    ex_block_unref(slab->block);
    free(slab);
}

static void slabs_free(ex_slab *slab)
{
    while (slab) {
        ex_slab *next = slab->next;
        ex_slab_free(slab);
        slab = next;
    }
}

/* --------------------------------------------------------------------- ring */

static ex_ring *ring_of(ex_sink *sink) { return (ex_ring *)sink; }

/* Something can be taken now. Ring lock held. */
static void ring_tell(ex_ring *r)
{
    if (r->sleeping)
        ex_broadcast(&r->cond);
    if (r->armed && r->fd >= 0) {
        /* Under the lock: the descriptor closes only after ex_ring_watch(-1). */
        ex_poke(r->fd);
        r->armed = 0;
    }
}

/* The filling slab is ready to be taken. Ring lock held. */
static void ring_publish(ex_ring *r)
{
    ex_slab *slab = r->filling;
    if (!slab || r->copying)
        return;
    r->filling = NULL;
    if (slab->n == 0) {
        slab->next = NULL;
        ex_slab_free(slab);              /* rare: a slab whose first frame was refused */
        return;
    }
    slab->block->count = (uint32_t)(slab->count * slab->n);
    slab->block->nbytes = slab->block->count * ex_element_bytes(slab->dbr_type);
    slab->next = NULL;
    if (r->tail)
        r->tail->next = slab;
    else
        r->head = slab;
    r->tail = slab;
    ring_tell(r);
}

/* The oldest slab that can be taken. Ring lock held. */
static ex_slab *ring_shift(ex_ring *r)
{
    ex_slab *slab = r->head;
    r->head = slab->next;
    if (!r->head)
        r->tail = NULL;
    slab->next = NULL;
    r->waiting -= slab->n;
    return slab;
}

/* The frames of a slab are lost to the reader: the frame that follows tells of it. Ring lock held. */
static void ring_pass_on(ex_ring *r, const ex_slab *slab)
{
    ex_frame *next = r->head ? &r->head->frames[0]
                   : r->filling && r->filling->n ? &r->filling->frames[0] : NULL;
    uint64_t lost = slab->n;
    int gap = 0;
    size_t i;
    for (i = 0; i < slab->n; i++) {
        lost += slab->frames[i].lost_before;
        gap |= slab->frames[i].gap;
    }
    if (next) {
        next->lost_before += lost;
        next->gap |= gap;
    } else {
        r->lost_next += lost;
        r->gap_next |= gap;
    }
}

/* One frame arrives that nobody will see. Ring lock held. */
static void ring_refuse(ex_ring *r, size_t bytes)
{
    r->l.received++;
    r->l.dropped++;
    r->l.bytes += bytes;
    r->lost_next++;
    r->next_index++;
}

/* Make room for one frame; 0: it is to be refused. Ring lock held. `fallen`: slabs to be freed after the lock. */
static int ring_admit(ex_ring *r, ex_slab **fallen)
{
    if (r->overflow == EX_OVERRUN_IS_ERROR && (r->overrun || r->waiting >= r->depth)) {
        r->overrun++;
        ring_tell(r);
        return 0;
    }
    if (r->waiting < r->depth)
        return 1;
    if (r->overflow == EX_DROP_NEWEST || !r->head)
        return 0;
    while (r->waiting >= r->depth && r->head) {
        ex_slab *slab = ring_shift(r);
        r->l.dropped += slab->n;
        ring_pass_on(r, slab);
        slab->next = *fallen;
        *fallen = slab;
    }
    return 1;
}

/* The frame's header, counted. Ring lock held. */
static void ring_count(ex_ring *r, ex_frame *f, const ex_event *e)
{
    const struct dbr_time_short *h = (const struct dbr_time_short *)e->header;   /* alike in all TIME types up to the stamp */
    f->ns = ((int64_t)h->stamp.secPastEpoch + EPOCH_1990) * 1000000000 + h->stamp.nsec;
    f->received = ex_now();
    f->status = h->status;
    f->severity = h->severity;
    r->l.received++;
    f->index = r->next_index++;
    f->lost_before = r->lost_next;
    f->gap = r->gap_next;
    r->lost_next = 0;
    r->gap_next = 0;
    r->l.bytes += e->bytes;
    r->l.last_status = ECA_NORMAL;
    if (f->index && f->ns == r->last_ns)
        r->l.repeated++;
    r->last_ns = f->ns;
    r->waiting++;
}

/* A whole slab for each frame: copied before the lock is taken. */
static void ring_single(ex_ring *r, const ex_event *e, ex_slab *slab)
{
    ex_slab *fallen = NULL;
    ex_lock(&r->lock);
    if (r->closed || r->ended) {
        fallen = slab;
    } else if (!slab || !slab->block || !ring_admit(r, &fallen)) {
        ring_refuse(r, e->bytes);
        if (slab) {
            slab->next = fallen;
            fallen = slab;
        }
    } else {
        ring_count(r, &slab->frames[0], e);
        slab->n = 1;
        slab->next = NULL;
        if (r->tail)
            r->tail->next = slab;
        else
            r->head = slab;
        r->tail = slab;
        ring_tell(r);
    }
    ex_unlock(&r->lock);
    slabs_free(fallen);
}

static ex_slab *slab_for(size_t room, int dbr_type, size_t count, size_t bytes)
{
    ex_slab *slab;
    /* what does not fit is refused and counted like any frame for which there is no memory */
    if ((bytes && room > (SIZE_MAX / 4) / bytes) || (count && room > UINT32_MAX / count) || !(slab = slab_new(room)))
        return NULL;
    slab->dbr_type = dbr_type;
    slab->count = count;
    slab->block = ex_block_new(dbr_type, count * room, ex_header_bytes(dbr_type), bytes * room);
    if (slab->block)
        memset(EX_HEADER(slab->block), 0, ex_header_bytes(dbr_type));
    return slab;
}

static void single_event(ex_ring *r, const ex_event *e)
{
    ex_slab *slab;
    int closed;
    ex_lock(&r->lock);
    /* What will be refused is not copied. Nobody but us adds frames: a look now holds until we are back. */
    closed = r->closed || r->ended || (r->overflow == EX_DROP_NEWEST && r->waiting >= r->depth) ||
             (r->overflow == EX_OVERRUN_IS_ERROR && r->overrun);
    ex_unlock(&r->lock);
    slab = closed ? NULL : slab_for(1, e->dbr_type, e->count, e->bytes);
    if (slab && slab->block) {
        memcpy(EX_HEADER(slab->block), e->header, ex_header_bytes(e->dbr_type));
        memcpy(slab->block->values, e->values, e->bytes);
    }
    ring_single(r, e, slab);
}

/* Into the filling slab: its next place is ours until it is counted. */
static void block_event(ex_ring *r, const ex_event *e)
{
    ex_slab *fallen = NULL, *fresh = NULL, *slab;
    ex_lock(&r->lock);
    if (r->filling && (r->filling->dbr_type != e->dbr_type || r->filling->count != e->count))
        ring_publish(r);                 /* what comes now does not fit beside it: a block of another shape begins */
    if (r->closed || r->ended || !ring_admit(r, &fallen)) {
        if (!r->closed && !r->ended)
            ring_refuse(r, e->bytes);
        ex_unlock(&r->lock);
        slabs_free(fallen);
        return;
    }
    if (!r->filling) {
        ex_unlock(&r->lock);
        fresh = slab_for(r->block, e->dbr_type, e->count, e->bytes);
        ex_lock(&r->lock);
        if (!fresh || !fresh->block || r->closed || r->ended) {
            if (!r->closed && !r->ended)
                ring_refuse(r, e->bytes);
            if (fresh) {
                fresh->next = fallen;
                fallen = fresh;
            }
            ex_unlock(&r->lock);
            slabs_free(fallen);
            return;
        }
        r->filling = fresh;
    }
    slab = r->filling;
    r->copying = 1;
    ex_unlock(&r->lock);
    memcpy((char *)slab->block->values + slab->n * e->bytes, e->values, e->bytes);
    ex_lock(&r->lock);
    r->copying = 0;
    if (r->closed || r->ended)           /* who ended it waits until we are out */
        ex_broadcast(&r->cond);
    if (r->closed) {
        r->filling = NULL;
        slab->next = fallen;
        fallen = slab;
    } else {
        ring_count(r, &slab->frames[slab->n], e);
        slab->n++;
        if (slab->n == slab->room || r->cut)
            ring_publish(r);
        r->cut = 0;
    }
    ex_unlock(&r->lock);
    slabs_free(fallen);
}

/* The reducer sees libca's own buffer; only its results are kept. */
static void reduced_event(ex_ring *r, const ex_event *e)
{
    epicsx_frame f;
    ex_event small = *e;
    ex_slab *slab;
    const struct dbr_time_short *h = (const struct dbr_time_short *)e->header;
    size_t room = r->room ? r->room : (e->count + r->every - 1) / r->every;
    int n = -1;
    f.values = e->values;
    f.count = e->count;
    f.type = epicsx_dbr_table[e->dbr_type].native;
    f.element_size = (int32_t)ex_element_bytes(e->dbr_type);
    f.timestamp_ns = ((int64_t)h->stamp.secPastEpoch + EPOCH_1990) * 1000000000 + h->stamp.nsec;
    f.status = h->status;
    f.severity = h->severity;
    ex_lock(&r->lock);
    if (r->closed || r->ended) {         /* the reducer's state may be gone */
        ex_unlock(&r->lock);
        return;
    }
    r->reducing = 1;
    ex_unlock(&r->lock);
    slab = slab_for(1, DBR_TIME_DOUBLE, room, room * sizeof(double));
    if (slab && slab->block) {
        n = r->reduce(&f, r->state, (double *)slab->block->values, room);
        if (n > 0 && (size_t)n > room)
            n = (int)room;
    }
    ex_lock(&r->lock);
    r->reducing = 0;
    if (r->closed || r->ended)           /* who ended it waits until we are out */
        ex_broadcast(&r->cond);
    ex_unlock(&r->lock);
    if (slab && slab->block && n < 0) {  /* it wanted nothing of this frame */
        ex_lock(&r->lock);
        if (!r->closed) {
            r->l.received++;
            r->l.merged++;
            r->l.bytes += e->bytes;
            r->next_index++;
        }
        ex_unlock(&r->lock);
        ex_slab_free(slab);
        return;
    }
    if (slab && slab->block) {
        slab->count = (size_t)n;
        slab->block->count = (uint32_t)n;
        slab->block->nbytes = (size_t)n * sizeof(double);
    }
    ring_single(r, &small, slab);
}

/* Thread: recv, under libca's callback lock. GIL: none. */
static void ring_event(ex_sink *sink, const ex_event *e)
{
    ex_ring *r = ring_of(sink);
    if (epicsx_dbr_table[e->dbr_type].native == DBR_STRING) {    /* texts are no frames: who reads is told so */
        ex_lock(&r->lock);
        if (!r->closed && !r->ended)
            ring_refuse(r, e->bytes);
        ex_unlock(&r->lock);
    } else if (r->reduce)
        reduced_event(r, e);
    else if (r->block > 1)
        block_event(r, e);
    else
        single_event(r, e);
}

static void ring_lost(ex_sink *sink)
{
    ex_ring *r = ring_of(sink);
    ex_lock(&r->lock);
    r->l.disconnects++;
    if (!r->gap_next) {
        r->gap_next = 1;
        r->lost_next++;
    }
    if (r->copying)
        r->cut = 1;
    else
        ring_publish(r);                 /* what is there may be the last for long */
    ex_unlock(&r->lock);
}

static void ring_refused(ex_sink *sink, int status)
{
    ex_ring *r = ring_of(sink);
    ex_lock(&r->lock);
    r->l.last_status = status;
    ex_unlock(&r->lock);
}

static void ring_counts(ex_sink *sink, ex_counts *out)
{
    ex_ring *r = ring_of(sink);
    ex_lock(&r->lock);
    out->received += r->l.received;
    out->delivered += r->l.delivered;
    out->merged += r->l.merged;
    out->dropped += r->l.dropped;
    out->pending += r->waiting;
    ex_unlock(&r->lock);
}

static void ring_destroy(ex_sink *sink)
{
    ex_ring *r = ring_of(sink);
    slabs_free(r->head);
    ex_slab_free(r->filling);
    ex_cond_destroy(&r->cond);
    ex_mutex_destroy(&r->lock);
    free(r);
}

ex_ring *ex_ring_new(size_t depth, size_t block, int overflow)
{
    ex_ring *r = (ex_ring *)calloc(1, sizeof *r);
    if (!r)
        return NULL;
    ex_store(&r->sink.refs, 1);
    r->sink.event = ring_event;
    r->sink.lost = ring_lost;
    r->sink.refused = ring_refused;
    r->sink.counts = ring_counts;
    r->sink.destroy = ring_destroy;
    ex_mutex_init(&r->lock);
    ex_cond_init(&r->cond);
    r->depth = depth;
    r->block = block;
    r->overflow = overflow;
    r->every = 1;
    r->fd = -1;
    r->l.last_status = ECA_NORMAL;
    return r;
}

ex_sink *ex_ring_sink(ex_ring *r) { return &r->sink; }

void ex_ring_reduce(ex_ring *r, epicsx_reducer fn, void *state, size_t room, size_t every)
{
    r->reduce = fn;
    r->state = state;
    r->room = room;
    r->every = every ? every : 1;
}

int ex_ring_take(ex_ring *r, int latest, int64_t deadline, ex_slab **out)
{
    ex_slab *fallen = NULL, *slab;
    int how;
    *out = NULL;
    ex_lock(&r->lock);
    while (!r->closed && !r->ended && !r->head && !r->overrun && !r->woken && deadline > ex_now()) {
        r->sleeping++;
        ex_wait(&r->cond, &r->lock, deadline);
        r->sleeping--;
    }
    r->woken = 0;
    if (r->head) {
        while (latest && r->head->next) {
            slab = ring_shift(r);
            r->l.merged += slab->n;
            ring_pass_on(r, slab);
            slab->next = fallen;
            fallen = slab;
        }
        *out = ring_shift(r);
        r->l.delivered += (*out)->n;
        how = EX_RING_TAKEN;
    } else if (r->closed || r->ended) {
        how = EX_RING_CLOSED;
    } else if (r->overrun) {
        r->overrun = 0;
        how = EX_RING_OVERRUN;
    } else {
        how = EX_RING_EMPTY;
    }
    ex_unlock(&r->lock);
    slabs_free(fallen);
    return how;
}

void ex_ring_wake(ex_ring *r)
{
    ex_lock(&r->lock);
    r->woken = r->sleeping != 0;
    ring_tell(r);
    ex_unlock(&r->lock);
}

void ex_ring_watch(ex_ring *r, int fd)
{
    ex_lock(&r->lock);
    r->fd = fd;
    r->armed = 0;
    ex_unlock(&r->lock);
}

int ex_ring_arm(ex_ring *r)
{
    int there;
    ex_lock(&r->lock);
    there = r->head != NULL || r->closed || r->ended || r->overrun;
    r->armed = !there;
    ex_unlock(&r->lock);
    return there;
}

void ex_ring_ledger(ex_ring *r, ex_ledger *out)
{
    ex_lock(&r->lock);
    *out = r->l;
    out->pending = r->waiting;
    ex_unlock(&r->lock);
}

/* Libca's thread is out: a reducer and its state belong to whoever closes, and what it copied has been counted. Ring lock
 * held. */
static void producer_out(ex_ring *r)
{
    while (r->reducing || r->copying)
        ex_wait(&r->cond, &r->lock, EX_FOREVER);
}

void ex_ring_end(ex_ring *r, ex_ring *next)
{
    ex_lock(&r->lock);
    if (r->closed || r->ended) {
        ex_unlock(&r->lock);
        return;
    }
    r->ended = 1;
    producer_out(r);
    ring_publish(r);
    next->next_index = r->next_index;
    next->lost_next = r->lost_next + !r->gap_next;
    next->gap_next = 1;
    ring_tell(r);
    ex_unlock(&r->lock);
    ex_sink_close(&r->sink);
}

void ex_ring_close(ex_ring *r)
{
    ex_slab *fallen;
    int ended;
    ex_lock(&r->lock);
    if (r->closed) {
        ex_unlock(&r->lock);
        return;
    }
    r->closed = 1;
    producer_out(r);
    ended = r->ended;
    r->l.dropped += r->waiting;
    r->waiting = 0;
    fallen = r->head;
    r->head = r->tail = NULL;
    if (r->filling && !r->copying) {
        r->filling->next = fallen;
        fallen = r->filling;
        r->filling = NULL;
    }
    ring_tell(r);
    ex_unlock(&r->lock);
    slabs_free(fallen);
    if (!ended)
        ex_sink_close(&r->sink);
}

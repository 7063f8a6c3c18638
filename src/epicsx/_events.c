/* What libca's threads do: they copy an event once, queue a note, wake somebody, and return.
 *
 * Threads
 *   ex_on_event runs in libca's threads (CAC-TCP-recv), under its callback lock. No Python there: this file does not include Python.h, so that the compiler
 *   keeps us honest. Everything else is called by Python's threads (GIL held or not) and by the keeper.
 *   One lock per lane guards all of it. It is held for tens of nanoseconds, never over malloc, a copy, or a wait;
 *   so a Python thread may take it with the GIL held.
 *
 * Lifetime
 *   See epicsx_events.h. A handler needs no reference of its own: libca promises not to call after a clear returned,
 *   and the keeper gives libca's references back only then. */
#include "epicsx_events.h"

#include "epicsx_queue.h"
#include "epicsx_sinks.h"

#include <stdio.h>
#include <string.h>

#define NOTE_SLAB 512
#define LOG_LIMIT 500

ex_getters ex_libca;

/* --------------------------------------------------------------------- lane */

ex_lane *ex_lane_new(const char *name)
{
    ex_lane *lane = (ex_lane *)calloc(1, sizeof *lane);
    if (!lane)
        return NULL;
    ex_block_unref(ex_block_new(0, 0, 0, 0));        /* readies the pool before there is a second thread */
    ex_mutex_init(&lane->lock);
    ex_mutex_init(&lane->access_lock);
    ex_mutex_init(&lane->census);
    ex_cond_init(&lane->wake);
    ex_cond_init(&lane->plan);
    ex_cond_init(&lane->spare);
    ex_cond_init(&lane->settled);
    ex_store(&lane->refs, 1);
    lane->generation = ex_load(&ex_generation);
    lane->name = name;
    lane->max_events = 250000;
    lane->max_bytes = (size_t)512 << 20;
    lane->dead_after = 5000000000ll;
    return lane;
}

void ex_lane_ref(ex_lane *lane) { (void)ex_add(&lane->refs, 1); }

void ex_lane_unref(ex_lane *lane)
{
    /* A lane that was started is never freed: its keeper, or a destroy that was abandoned, may still look at it. */
    if (ex_add(&lane->refs, -1) > 0 || lane->keeper_state)
        return;
    while (lane->head) {                 /* a lane nobody knows has no subjects: only texts may wait */
        ex_taken t;
        ex_lane_take(lane, &t);
        ex_taken_done(&t);
    }
    while (lane->slabs) {
        ex_note *slab = lane->slabs;
        lane->slabs = slab->next;
        free(slab);
    }
    while (lane->circuits) {
        struct ex_circuit *circuit = lane->circuits;
        lane->circuits = circuit->next;
        free(circuit);
    }
    while (lane->hosts) {
        struct ex_host *host = lane->hosts;
        lane->hosts = host->next;
        free(host);
    }
    ex_cond_destroy(&lane->wake);
    ex_cond_destroy(&lane->plan);
    ex_cond_destroy(&lane->spare);
    ex_cond_destroy(&lane->settled);
    ex_mutex_destroy(&lane->access_lock);
    ex_mutex_destroy(&lane->census);
    ex_mutex_destroy(&lane->lock);
    free(lane);
}

/* Lane lock held on entry and exit; let go while memory is got. 0 when there is none to be had. */
int ex_notes_reserve(ex_lane *lane, size_t n)
{
    for (;;) {
        size_t have = 0, i;
        ex_note *note, *slab;
        for (note = lane->free_notes; note && have < n; note = note->next)
            have++;
        if (have >= n)
            return 1;
        ex_unlock(&lane->lock);
        slab = (ex_note *)malloc(NOTE_SLAB * sizeof *slab);
        ex_lock(&lane->lock);
        if (!slab)
            return 0;
        slab[0].next = lane->slabs;      /* the first one only ties the slab to the lane */
        lane->slabs = slab;
        for (i = 1; i < NOTE_SLAB; i++) {
            slab[i].next = lane->free_notes;
            lane->free_notes = &slab[i];
        }
    }
}

ex_note *ex_note_new(ex_lane *lane, int kind, void *subject)
{
    ex_note *note = lane->free_notes;
    lane->free_notes = note->next;
    note->hnext = note->hprev = NULL;
    note->block = NULL;
    note->subject = subject;
    note->kind = kind;
    note->a = note->b = 0;
    return note;
}

void ex_note_append(ex_lane *lane, ex_note *note)
{
    note->serial = ++lane->serial;
    note->since = ex_now_coarse();
    note->next = NULL;
    note->prev = lane->tail;
    if (lane->tail)
        lane->tail->next = note;
    else
        lane->head = note;
    lane->tail = note;
    lane->queued++;
    if (lane->sleeping)
        ex_signal(&lane->wake);
}

static void note_free(ex_lane *lane, ex_note *note)
{
    note->next = lane->free_notes;
    lane->free_notes = note;
}

static void note_remove(ex_lane *lane, ex_note *note)
{
    if (note->prev)
        note->prev->next = note->next;
    else
        lane->head = note->next;
    if (note->next)
        note->next->prev = note->prev;
    else
        lane->tail = note->prev;
    lane->queued--;
    note_free(lane, note);
}

/* A note of the handle's own list joins it, and the lane's queue unless an event loop takes it from the handle. */
static void handle_append(ex_lane *lane, ex_handle *h, ex_note *note)
{
    (void)ex_add(&h->refs, 1);
    note->hprev = h->newest;
    if (h->newest)
        h->newest->hnext = note;
    else
        h->oldest = note;
    h->newest = note;
    if (h->inbox) {
        note->serial = ++lane->serial;
        note->since = ex_now_coarse();
    } else
        ex_note_append(lane, note);
    if (h->timed)
        note->since = ex_now();
}

/* It leaves, by delivery or by loss. The block of a VALUE is the caller's. */
static ex_block *handle_remove(ex_lane *lane, ex_handle *h, ex_note *note)
{
    ex_block *b = note->block;
    if (note->hprev)
        note->hprev->hnext = note->hnext;
    else
        h->oldest = note->hnext;
    if (note->hnext)
        note->hnext->hprev = note->hprev;
    else
        h->newest = note->hprev;
    if (b) {                             /* a VALUE */
        h->waiting--;
        h->bytes -= b->capacity;
        lane->events--;
        lane->bytes -= b->capacity;
    }
    if (h->inbox)
        note_free(lane, note);
    else
        note_remove(lane, note);
    return b;
}

int ex_lane_wait(ex_lane *lane, int64_t deadline)
{
    int got;
    ex_lock(&lane->lock);
    for (;;) {
        int64_t until = deadline;
        got = lane->head != NULL || lane->woken;
        if (got)
            break;
        if (lane->first_due && lane->first_due->deadline < until)
            until = lane->first_due->deadline;
        if (until != EX_FOREVER && ex_now() >= until) {
            got = until < deadline;
            break;
        }
        lane->sleeping++;
        ex_wait(&lane->wake, &lane->lock, until);
        lane->sleeping--;
    }
    lane->woken = 0;
    ex_unlock(&lane->lock);
    return got;
}

void ex_lane_wake(ex_lane *lane)
{
    ex_lock(&lane->lock);
    lane->woken = 1;
    ex_broadcast(&lane->wake);
    ex_unlock(&lane->lock);
}

int ex_lane_take(ex_lane *lane, ex_taken *out)
{
    ex_note *note;
    ex_lock(&lane->lock);
    note = lane->head;
    if (!note) {
        ex_unlock(&lane->lock);
        memset(out, 0, sizeof *out);     /* ex_taken_done() of it does nothing */
        return EX_NOTE_NONE;
    }
    out->kind = note->kind;
    out->a = note->a;
    out->b = note->b;
    out->since = note->since;
    out->subject = note->subject;
    out->block = NULL;
    out->py = NULL;
    switch (note->kind) {
    case EX_NOTE_VALUE: {
        ex_handle *h = (ex_handle *)note->subject;
        out->block = handle_remove(lane, h, note);
        out->py = h->py;
        h->delivered++;
        break;
    }
    case EX_NOTE_LARGE:
        out->py = ((ex_handle *)note->subject)->py;
        note_remove(lane, note);
        break;
    case EX_NOTE_COMPLETION:
        out->py = ((ex_request *)note->subject)->py;
        note_remove(lane, note);
        break;
    case EX_NOTE_LOG:
        lane->logs--;
        note_remove(lane, note);
        break;
    default:
        out->py = ((ex_channel *)note->subject)->py;
        note_remove(lane, note);
    }
    ex_unlock(&lane->lock);
    return out->kind;
}

void ex_taken_done(ex_taken *t)
{
    ex_block_unref(t->block);
    switch (t->kind) {
    case EX_NOTE_VALUE:
    case EX_NOTE_LARGE:
    case EX_NOTE_LINK:
        ex_handle_unref((ex_handle *)t->subject);
        break;
    case EX_NOTE_COMPLETION:
        ex_request_unref((ex_request *)t->subject);
        break;
    case EX_NOTE_LOG:
        free(t->subject);
        break;
    case EX_NOTE_CONNECTION:
    case EX_NOTE_ACCESS:
        ex_channel_unref((ex_channel *)t->subject);
        break;
    default:
        break;
    }
    t->kind = EX_NOTE_NONE;
    t->block = NULL;
}

/* "level NUL name NUL text", for the dispatcher to hand to logging. Bounded; what does not fit is counted. */
void ex_log(ex_lane *lane, int level, const char *name, const char *text)
{
    size_t n = strlen(name) + 1, m = strlen(text) + 1;
    char *both = (char *)malloc(n + m);
    ex_note *note;
    if (!both)
        return;
    memcpy(both, name, n);
    memcpy(both + n, text, m);
    ex_lock(&lane->lock);
    if (lane->logs >= LOG_LIMIT || !ex_notes_reserve(lane, 1)) {
        lane->lost_logs++;
        ex_unlock(&lane->lock);
        free(both);
        return;
    }
    note = ex_note_new(lane, EX_NOTE_LOG, both);
    note->a = level;
    lane->logs++;
    ex_note_append(lane, note);
    ex_unlock(&lane->lock);
}

/* ------------------------------------------------- subscriptions and handles */

static ex_sub *sub_get(ex_channel *ch, int type, unsigned long count, long mask, size_t limit, ex_sink *sink)
{
    ex_sub *fresh = (ex_sub *)calloc(1, sizeof *fresh);
    ex_sub *s, **at;
    if (!fresh)
        return NULL;
    ex_lock(&ch->lane->lock);
    for (at = &ch->subs; (s = *at) != NULL; at = &s->next)
        if (s->type == type && s->count == count && s->mask == mask && s->limit == limit && !sink && !s->sink)
            break;
    if (!s) {
        s = fresh;
        fresh = NULL;
        s->channel = ch;
        s->type = type;
        s->count = count;
        s->mask = mask;
        s->limit = limit;
        s->live_type = -1;
        s->last_status = ECA_NORMAL;
        s->sink = sink;
        if (sink) {
            sink->sub = s;
            ex_sink_ref(sink);
        }
        ex_store(&s->refs, 1);           /* the channel's list */
        ex_channel_ref(ch);
        *at = s;                         /* at the end: begun, and so answered, in the order of asking */
    }
    s->users++;
    (void)ex_add(&s->refs, 1);
    if (!s->live && ch->state == EX_UP)
        ex_channel_plan(ch);
    ex_unlock(&ch->lane->lock);
    free(fresh);
    return s;
}

ex_sub *ex_sub_get(ex_channel *ch, int type, unsigned long count, long mask, size_t limit)
{
    return sub_get(ch, type, count, mask, limit, NULL);
}

ex_sub *ex_sub_for(ex_channel *ch, int type, unsigned long count, long mask, ex_sink *sink)
{
    return sub_get(ch, type, count, mask, 0, sink);
}

int ex_sub_tell_large(ex_sub *sub, int type)
{
    ex_lane *lane = sub->channel->lane;
    unsigned long n = sub->channel->count;
    ex_handle *h;
    int told = 0;
    if (sub->count && sub->count < n)
        n = sub->count;
    if (!sub->limit || sub->last_arrival || n * ex_element_bytes(type) <= sub->limit)
        return 0;
    for (h = sub->handles; h; h = h->next) {
        ex_note *note;
        if (h->large_told)
            continue;
        if (!lane->free_notes && !ex_notes_reserve(lane, 1))
            return 1;
        /* the lock may have been let go: begin anew, if need be, when we are asked again */
        for (h = sub->handles; h && h->large_told; h = h->next)
            ;
        if (!h)
            break;
        h->large_told = 1;
        note = ex_note_new(lane, EX_NOTE_LARGE, h);
        if (h->inbox) {
            handle_append(lane, h, note);
            ex_inbox_ring(ex_inbox_tell(h));
        } else {
            (void)ex_add(&h->refs, 1);
            ex_note_append(lane, note);
        }
        told = 1;
    }
    return told ? -1 : 1;
}

size_t ex_subs_of(ex_channel *ch)
{
    size_t n = 0;
    ex_sub *s;
    ex_lock(&ch->lane->lock);
    for (s = ch->subs; s; s = s->next)
        n += s->live != 0;
    ex_unlock(&ch->lane->lock);
    return n;
}

void ex_sub_leave(ex_sub *sub)
{
    ex_lane *lane = sub->channel->lane;
    ex_lock(&lane->lock);
    if (--sub->users == 0)
        ex_channel_plan(sub->channel);
    ex_unlock(&lane->lock);
    ex_sub_unref(sub);
}

void ex_sub_unref(ex_sub *sub)
{
    if (ex_add(&sub->refs, -1) > 0)
        return;
    ex_block_unref(sub->newest);
    if (sub->sink)
        ex_sink_unref(sub->sink);
    ex_channel_unref(sub->channel);
    free(sub);
}

ex_block *ex_sub_newest(ex_sub *sub, int *fresh)
{
    ex_lane *lane = sub->channel->lane;
    const int ours = lane->generation == ex_load(&ex_generation);
    ex_block *b;
    if (ours)                            /* in a forked child a thread that is not there may hold it; nobody else is there */
        ex_lock(&lane->lock);
    b = sub->newest;
    if (b)
        ex_block_ref(b);
    if (fresh)
        *fresh = sub->fresh;
    if (ours)
        ex_unlock(&lane->lock);
    return b;
}

static void tell_first_loss(ex_handle *h, const char *how)
{
    /* Lane lock held on entry and exit. */
    ex_lane *lane = h->sub->channel->lane;
    const char *name = h->sub->channel->name;    /* lent to libca, which is calling: it outlives the handle */
    char text[160];
    if (h->loss_told)
        return;
    h->loss_told = 1;
    snprintf(text, sizeof text, "slow consumer: first update %s (bound %zu events, %zu bytes); more are counted silently",
             how, h->max_events, h->max_bytes);
    ex_unlock(&lane->lock);
    ex_log(lane, 30, name, text);        /* the handle may be closed and gone by now */
    ex_lock(&lane->lock);
}

#define FALLEN 64
#define BELLS 8
typedef struct fallen {          /* for after the lock, where there is room: blocks that left the queue, loops to wake */
    ex_block *blocks[FALLEN];
    ex_inbox *bells[BELLS];
    size_t n, n_bells;
} fallen;

static void fall(fallen *f, ex_block *b)
{
    if (f->n < FALLEN)
        f->blocks[f->n++] = b;
    else
        ex_block_unref(b);       /* correct under the lock too, only slower */
}

static void fallen_free(fallen *f)
{
    while (f->n)
        ex_block_unref(f->blocks[--f->n]);
    while (f->n_bells)
        ex_inbox_ring(f->bells[--f->n_bells]);
}

static void wake_loop(fallen *f, ex_handle *h)
{
    ex_inbox *bell = ex_inbox_tell(h);
    if (bell && f->n_bells < BELLS)
        f->bells[f->n_bells++] = bell;
    else
        ex_inbox_ring(bell);
}

/* NULL: none. */
static ex_note *oldest_value(ex_handle *h)
{
    ex_note *note = h->oldest;
    while (note && note->kind != EX_NOTE_VALUE)
        note = note->hnext;
    return note;
}

/* One event for one handle. Lane lock held; a note is reserved. */
static void handle_receive(ex_lane *lane, ex_handle *h, ex_block *b, fallen *f)
{
    ex_note *note;
    h->received++;
    if (!h->queueing && !lane->polled) {
        h->delivered++;
        return;
    }
    ex_block_ref(b);
    note = h->newest;
    if (note && note->kind == EX_NOTE_VALUE &&
        (h->latest || lane->events >= lane->max_events || lane->bytes + b->capacity > lane->max_bytes) &&
        note->serial > h->sub->channel->news_serial) {
        /* Takes the place of the handle's newest waiting one: the IOC's own rule, so that age stops growing. */
        fall(f, note->block);
        h->bytes += b->capacity - note->block->capacity;
        lane->bytes += b->capacity - note->block->capacity;
        note->block = b;
        h->merged++;
        return;
    }
    note = ex_note_new(lane, EX_NOTE_VALUE, h);
    note->block = b;
    h->waiting++;
    h->bytes += b->capacity;
    lane->events++;
    lane->bytes += b->capacity;
    handle_append(lane, h, note);
    while (h->waiting > h->max_events || (h->bytes > h->max_bytes && h->waiting > 4)) {
        fall(f, handle_remove(lane, h, oldest_value(h)));
        h->dropped++;
        (void)ex_add(&h->refs, -1);      /* the note's; the subscription's list keeps one */
    }
    if (h->inbox)
        wake_loop(f, h);
}

static size_t queueing_handles(ex_sub *sub)
{
    size_t n = 0;
    ex_handle *h;
    for (h = sub->handles; h; h = h->next)
        n += h->queueing || sub->channel->lane->polled;
    return n;
}


/* Thread: recv, under the callback lock; also the keeper's for a first value during create. GIL: none.
 * May: one copy, one short lock per lane. May not: call libca. */
void ex_on_event(struct event_handler_args args)
{
    ex_sub *sub = (ex_sub *)args.usr;
    ex_channel *ch = sub->channel;
    ex_lane *lane = ch->lane;
    size_t head, bytes, handles;
    ex_block *b, *old;
    ex_handle *h;
    fallen f;
    int room;
    if (ex_load(&lane->closing))
        return;
    if (args.status != ECA_NORMAL || !args.dbr) {
        ex_lock(&lane->lock);
        sub->last_status = args.status;
        ex_wait_over(&sub->waiting, NULL);
        ex_unlock(&lane->lock);
        if (sub->sink && sub->sink->refused)
            sub->sink->refused(sub->sink, args.status);
        return;
    }
    /* A callback cannot see the payload's size: against a stock libca the count is checked here. */
    if (args.type < 0 || args.type > 38 || args.count < 0 || args.type != sub->live_type ||
        (ch->count && (unsigned long)args.count > ch->count)) {
        ex_lock(&lane->lock);
        ch->decode_errors++;
        ex_unlock(&lane->lock);
        return;
    }
    /* The record came back as another type, and libca has subscribed again to the old one: converted values, of which
     * nobody shall hear. The keeper is about to re-type. */
    if (sub->type < 0 && args.type != (sub->type == EX_TIME_OF_NATIVE ? ex_time_of(ch->type) : ex_ctrl_of(ch->type)))
        return;
    head = ex_header_bytes((int)args.type);
    bytes = (size_t)args.count * ex_element_bytes((int)args.type);
    if (sub->sink) {
        ex_event e;
        e.dbr_type = (int)args.type;
        e.count = (size_t)args.count;
        e.bytes = bytes;
        e.header = args.dbr;
        e.values = (const char *)args.dbr + head;
        sub->sink->event(sub->sink, &e);         /* all it needs is under its own lock; nobody waits for this sub */
        return;
    }
    b = ex_block_new((int)args.type, (size_t)args.count, head, bytes);
    if (b) {
        b->scalar = ch->count == 1;
        memcpy(EX_HEADER(b), args.dbr, head);
        memcpy(b->values, (const char *)args.dbr + head, bytes);
    }
    ex_lock(&lane->lock);
    do {                                 /* reserving may let the lock go, and a handle join meanwhile */
        handles = queueing_handles(sub);
        room = !handles || ex_notes_reserve(lane, handles);
    } while (room && queueing_handles(sub) > handles);
    if (!b || !room) {
        for (h = sub->handles; h; h = h->next) {     /* no memory: a loss like any other, counted */
            h->received++;
            h->dropped++;
        }
        ex_unlock(&lane->lock);
        ex_block_unref(b);
        return;
    }
    f.n = f.n_bells = 0;
    sub->last_arrival = b->arrival;
    old = sub->newest;
    ex_block_ref(b);
    sub->newest = b;
    sub->fresh = 1;
    sub->last_status = ECA_NORMAL;
    for (h = sub->handles; h; h = h->next)
        handle_receive(lane, h, b, &f);
    ex_wait_over(&sub->waiting, NULL);
    for (h = sub->handles; h && f.n; h = h->next)
        if (!h->loss_told && (h->dropped || (h->merged && !h->latest))) {
            tell_first_loss(h, h->dropped ? "dropped" : "merged");
            break;                       /* the lock was let go: the list may be another now */
        }
    ex_unlock(&lane->lock);
    ex_block_unref(b);
    ex_block_unref(old);
    fallen_free(&f);
}

ex_handle *ex_handle_new(ex_sub *sub, int queueing, size_t max_events, int latest, int replay, void *py, ex_inbox *inbox)
{
    ex_lane *lane = sub->channel->lane;
    ex_handle *h = (ex_handle *)calloc(1, sizeof *h), **at;
    fallen f;
    f.n = f.n_bells = 0;
    if (!h)
        return NULL;
    if (inbox)
        ex_inbox_ref(inbox);
    h->inbox = inbox;
    h->sub = sub;                        /* the caller's use of the sub (ex_sub_get) is the handle's now */
    ex_store(&h->refs, 2);               /* the caller's, and the sub's list */
    h->queueing = queueing;
    h->max_events = max_events;
    h->max_bytes = (size_t)64 << 20;
    h->latest = latest;
    h->py = py;
    ex_lock(&lane->lock);
    if (replay && (queueing || lane->polled))
        replay = ex_notes_reserve(lane, 1);
    for (at = &sub->handles; *at; at = &(*at)->next)
        ;
    *at = h;                             /* at the end: who came first is told first */
    if (!sub->live && sub->channel->state == EX_UP)
        ex_channel_plan(sub->channel);   /* it connected between the look of who asks and now: it may be too large */
    if (replay && sub->fresh)
        handle_receive(lane, h, sub->newest, &f);
    ex_unlock(&lane->lock);
    fallen_free(&f);
    return h;
}

void ex_handle_set_queueing(ex_handle *h, int queueing)
{
    ex_lock(&h->sub->channel->lane->lock);
    h->queueing = queueing;
    ex_unlock(&h->sub->channel->lane->lock);
}

void ex_handle_set_timed(ex_handle *h)
{
    ex_lock(&h->sub->channel->lane->lock);
    h->timed = 1;
    ex_unlock(&h->sub->channel->lane->lock);
}

void ex_handle_close(ex_handle *h)
{
    ex_sub *sub = h->sub;
    ex_lane *lane = sub->channel->lane;
    ex_handle **at;
    int more = 1;
    ex_lock(&lane->lock);
    if (h->closed) {
        ex_unlock(&lane->lock);
        return;
    }
    h->closed = 1;
    h->py = NULL;
    for (at = &sub->handles; *at != h; at = &(*at)->next)
        ;
    *at = h->next;
    while (more) {                       /* what waits becomes dropped; blocks go back outside the lock */
        fallen f;
        f.n = f.n_bells = 0;
        while (h->oldest && f.n < FALLEN) {
            ex_block *b = handle_remove(lane, h, h->oldest);
            if (b) {
                fall(&f, b);
                h->dropped++;
            }
            (void)ex_add(&h->refs, -1);
        }
        more = h->oldest != NULL;
        ex_unlock(&lane->lock);
        fallen_free(&f);
        ex_lock(&lane->lock);
    }
    sub->channel->past.received += h->received;
    sub->channel->past.delivered += h->delivered;
    sub->channel->past.merged += h->merged;
    sub->channel->past.dropped += h->dropped;
    ex_unlock(&lane->lock);
    ex_handle_unref(h);                  /* the list's; the sub itself is left by the last unref */
    ex_lock(&lane->lock);
    if (--sub->users == 0)
        ex_channel_plan(sub->channel);
    ex_unlock(&lane->lock);
}

void ex_handle_unref(ex_handle *h)
{
    if (ex_add(&h->refs, -1) > 0)
        return;
    if (h->inbox)
        ex_inbox_unref(h->inbox);
    ex_sub_unref(h->sub);
    free(h);
}

size_t ex_handle_take(ex_handle *h, ex_taken *out, size_t n)
{
    ex_lane *lane = h->sub->channel->lane;
    ex_note *note = NULL;
    size_t got = 0, bytes = 0;
    int kind = EX_NOTE_VALUE;
    ex_lock(&lane->lock);
    if (!h->oldest)
        h->told = 0;
    while (got < n && kind == EX_NOTE_VALUE && bytes < EX_TAKE_BYTES && (note = h->oldest) != NULL) {
        ex_taken *t = &out[got++];
        t->kind = kind = note->kind;
        t->a = note->a;
        t->b = note->b;
        t->since = note->since;
        t->subject = h;                  /* the note's reference is the caller's now */
        t->py = h->py;
        h->delivered += kind == EX_NOTE_VALUE;
        t->block = handle_remove(lane, h, note);
        bytes += t->block ? t->block->capacity : 0;
    }
    ex_unlock(&lane->lock);
    return got;
}

void ex_handle_unheard(ex_handle *h, size_t n)
{
    ex_lock(&h->sub->channel->lane->lock);
    h->delivered -= n;
    h->dropped += n;
    ex_unlock(&h->sub->channel->lane->lock);
}

static size_t looped_handles(ex_channel *ch)
{
    size_t n = 0;
    ex_sub *s;
    ex_handle *h;
    for (s = ch->subs; s; s = s->next)
        for (h = s->handles; h; h = h->next)
            n += h->inbox != NULL;
    return n;
}

/* Behind the values of before, ahead of those that follow. The loop is woken under the lock: connections are rare. */
void ex_channel_link(ex_channel *ch, int connected)
{
    ex_lane *lane = ch->lane;
    ex_sub *s;
    ex_handle *h;
    size_t n;
    do {                                 /* reserving may let the lock go, and a handle join meanwhile */
        n = looped_handles(ch);
        if (!n || !ex_notes_reserve(lane, n))
            return;
    } while (looped_handles(ch) > n);
    for (s = ch->subs; s; s = s->next)
        for (h = s->handles; h; h = h->next)
            if (h->inbox) {
                ex_note *note = ex_note_new(lane, EX_NOTE_LINK, h);
                note->a = connected;
                note->b = ch->type;
                handle_append(lane, h, note);
                ex_inbox_ring(ex_inbox_tell(h));
            }
}

ex_note *ex_note_for(ex_lane *lane)
{
    ex_note *note = NULL;
    ex_lock(&lane->lock);
    if (ex_notes_reserve(lane, 1))
        note = ex_note_new(lane, EX_NOTE_COMPLETION, NULL);
    ex_unlock(&lane->lock);
    return note;
}

void ex_note_post(ex_lane *lane, ex_note *note, void *subject)
{
    ex_lock(&lane->lock);
    note->subject = subject;
    ex_note_append(lane, note);
    ex_unlock(&lane->lock);
}

void ex_note_return(ex_lane *lane, ex_note *note)
{
    ex_lock(&lane->lock);
    note->next = lane->free_notes;
    lane->free_notes = note;
    ex_unlock(&lane->lock);
}

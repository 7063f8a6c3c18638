/* What libca's threads do: they copy an event once, queue a note, wake somebody, and return.
 *
 * Threads
 *   ex_on_connection, ex_on_access, ex_on_event, ex_on_exception run in libca's threads (five kinds; libca.md 1.1,
 *   1.2), mostly under its callback lock. No Python there: this file does not include Python.h, so that the compiler
 *   keeps us honest. Everything else is called by Python's threads (GIL held or not) and by the keeper.
 *   One lock per lane guards all of it. It is held for tens of nanoseconds, never over malloc, a copy, or a wait;
 *   so a Python thread may take it with the GIL held.
 *
 * Lifetime
 *   See epicsx_events.h. A handler needs no reference of its own: libca promises not to call after a clear returned,
 *   and the keeper gives libca's references back only then. */
#include "epicsx_events.h"

#include "epicsx_queue.h"

#include <stdio.h>
#include <string.h>

#define NOTE_SLAB 512
#define LOG_LIMIT 500

ex_getters ex_libca;
static EX_THREAD_LOCAL int circuit_unresponsive;    /* this libca thread has just said ECA_UNRESPTMO */

/* --------------------------------------------------------------------- lane */

ex_lane *ex_lane_new(const char *name)
{
    ex_lane *lane = (ex_lane *)calloc(1, sizeof *lane);
    if (!lane)
        return NULL;
    ex_block_unref(ex_block_new(0, 0, 0, 0));        /* readies the pool before there is a second thread */
    ex_mutex_init(&lane->lock);
    ex_mutex_init(&lane->access_lock);
    ex_cond_init(&lane->wake);
    ex_cond_init(&lane->plan);
    ex_cond_init(&lane->spare);
    ex_cond_init(&lane->settled);
    ex_store(&lane->refs, 1);
    lane->generation = ex_load(&ex_generation);
    lane->name = name;
    lane->max_events = 250000;
    lane->max_bytes = (size_t)512 << 20;
    return lane;
}

void ex_lane_ref(ex_lane *lane) { (void)ex_add(&lane->refs, 1); }

void ex_lane_unref(ex_lane *lane)
{
    /* A lane that was started is never freed: its keeper, or a destroy that was abandoned, may still look at it. */
    if (ex_add(&lane->refs, -1) > 0 || lane->keeper_state)
        return;
    ex_cond_destroy(&lane->wake);
    ex_cond_destroy(&lane->plan);
    ex_cond_destroy(&lane->spare);
    ex_cond_destroy(&lane->settled);
    ex_mutex_destroy(&lane->access_lock);
    ex_mutex_destroy(&lane->lock);
    free(lane);
}

/* Lane lock held on entry and exit; let go while memory is got. 0 when there is none to be had. */
static int reserve_notes(ex_lane *lane, size_t n)
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
        for (i = 0; i < NOTE_SLAB; i++) {
            slab[i].next = lane->free_notes;
            lane->free_notes = &slab[i];
        }
    }
}

static ex_note *note_new(ex_lane *lane, int kind, void *subject)
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

static void note_append(ex_lane *lane, ex_note *note)
{
    note->serial = ++lane->serial;
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
    note->next = lane->free_notes;
    lane->free_notes = note;
}

/* A VALUE note leaves the queue, by delivery or by loss. Its block is the caller's. */
static ex_block *value_remove(ex_lane *lane, ex_handle *h, ex_note *note)
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
    h->waiting--;
    h->bytes -= b->capacity;
    lane->events--;
    lane->bytes -= b->capacity;
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
        out->kind = EX_NOTE_NONE;
        return EX_NOTE_NONE;
    }
    out->kind = note->kind;
    out->a = note->a;
    out->b = note->b;
    out->subject = note->subject;
    out->block = NULL;
    out->py = NULL;
    switch (note->kind) {
    case EX_NOTE_VALUE: {
        ex_handle *h = (ex_handle *)note->subject;
        out->block = value_remove(lane, h, note);
        out->py = h->py;
        h->delivered++;
        break;
    }
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
    if (lane->logs >= LOG_LIMIT || !reserve_notes(lane, 1)) {
        lane->lost_logs++;
        ex_unlock(&lane->lock);
        free(both);
        return;
    }
    note = note_new(lane, EX_NOTE_LOG, both);
    note->a = level;
    lane->logs++;
    note_append(lane, note);
    ex_unlock(&lane->lock);
}

/* ------------------------------------------------------------------ waiting */

void ex_wait_begin(ex_lane *lane, ex_waiter *w)
{
    (void)lane;
    ex_cond_init(&w->cond);
    w->left = 0;
}

static void wait_join(ex_wait_node **list, ex_waiter *w, ex_wait_node *node)
{
    node->waiter = w;
    node->next = *list;
    if (node->next)
        node->next->at = &node->next;
    node->at = list;
    *list = node;
    w->left++;
}

static void wait_leave(ex_wait_node *node)
{
    *node->at = node->next;
    if (node->next)
        node->next->at = node->at;
    node->at = NULL;
}

/* It happened: everyone in the list has one thing less to wait for. Lane lock held. */
static void wait_over(ex_wait_node **list)
{
    while (*list) {
        ex_waiter *w = (*list)->waiter;
        wait_leave(*list);
        if (--w->left == 0)
            ex_signal(&w->cond);
    }
}

int ex_wait_connected(ex_channel *ch, ex_waiter *w, ex_wait_node *node)
{
    int there;
    node->at = NULL;
    ex_lock(&ch->lane->lock);
    there = ch->state == EX_UP || ch->state == EX_CLOSED;
    if (!there)
        wait_join(&ch->waiting, w, node);
    ex_unlock(&ch->lane->lock);
    return there;
}

int ex_wait_value(ex_sub *sub, ex_waiter *w, ex_wait_node *node)
{
    ex_lane *lane = sub->channel->lane;
    int there;
    node->at = NULL;
    ex_lock(&lane->lock);
    there = sub->fresh || sub->last_status != ECA_NORMAL || sub->channel->state == EX_CLOSED;
    if (!there)
        wait_join(&sub->waiting, w, node);
    ex_unlock(&lane->lock);
    return there;
}

int ex_wait_for(ex_lane *lane, ex_waiter *w, int64_t deadline)
{
    int done;
    ex_lock(&lane->lock);
    while (w->left > 0 && ex_wait(&w->cond, &lane->lock, deadline))
        ;
    done = w->left <= 0;
    ex_unlock(&lane->lock);
    return done;
}

void ex_wait_end(ex_lane *lane, ex_waiter *w, ex_wait_node *nodes, size_t n)
{
    size_t i;
    ex_lock(&lane->lock);
    for (i = 0; i < n; i++)
        if (nodes[i].at)
            wait_leave(&nodes[i]);
    ex_unlock(&lane->lock);
    ex_cond_destroy(&w->cond);
}

/* ------------------------------------------------------------------ channel */

ex_channel *ex_channel_new(ex_lane *lane, const char *name, unsigned priority)
{
    size_t n = strlen(name) + 1;
    ex_channel *ch = (ex_channel *)calloc(1, sizeof *ch + n);
    if (!ch)
        return NULL;
    ch->lane = lane;
    ex_lane_ref(lane);
    ex_store(&ch->refs, 1);
    ch->name = (char *)(ch + 1);
    memcpy(ch->name, name, n);
    ch->priority = priority;
    ch->type = -1;
    ch->wanted = 1;
    ch->host = "";
    ex_lock(&lane->lock);
    ch->next = lane->channels;
    if (ch->next)
        ch->next->prev = ch;
    lane->channels = ch;
    ex_unlock(&lane->lock);
    return ch;
}

void ex_channel_ref(ex_channel *ch) { (void)ex_add(&ch->refs, 1); }

void ex_channel_unref(ex_channel *ch)
{
    ex_lane *lane = ch->lane;
    if (ex_add(&ch->refs, -1) > 0)
        return;
    ex_lock(&lane->lock);
    if (ch->prev)
        ch->prev->next = ch->next;
    else
        lane->channels = ch->next;
    if (ch->next)
        ch->next->prev = ch->prev;
    ex_unlock(&lane->lock);
    ex_lane_unref(lane);
    free(ch);
}

void ex_channel_plan(ex_channel *ch)
{
    ex_lane *lane = ch->lane;
    ch->dirty = 1;
    if (ch->planned || ch->working)
        return;                          /* the keeper looks at `dirty` again before it leaves a channel */
    ch->planned = 1;
    ex_channel_ref(ch);
    ch->plan_next = NULL;
    if (lane->plan_tail)
        lane->plan_tail->plan_next = ch;
    else
        lane->plan_head = ch;
    lane->plan_tail = ch;
    ex_signal(&lane->plan);
    if (lane->workers[0].channel && lane->spares_idle)
        ex_signal(&lane->spare);
}

void ex_channel_drop(ex_channel *ch)
{
    ex_lock(&ch->lane->lock);
    ch->wanted = 0;
    ch->py = NULL;
    ch->news = 0;
    ch->state = EX_CLOSED;
    wait_over(&ch->waiting);
    {
        ex_sub *s;
        for (s = ch->subs; s; s = s->next)
            wait_over(&s->waiting);
    }
    ex_channel_plan(ch);
    ex_unlock(&ch->lane->lock);
    ex_channel_close_pending(ch, EX_BY_CLOSE, NULL);
}

void ex_lane_end_requests(ex_lane *lane, int reason)
{
    /* One channel at a time, each held while the lane lock is let go; a channel without open requests is passed over. */
    ex_channel *ch, *held = NULL;
    ex_lock(&lane->lock);
    for (ch = lane->channels; ch; ch = ch->next) {
        if (!ch->pending)
            continue;
        ex_channel_ref(ch);
        ex_unlock(&lane->lock);
        if (held)
            ex_channel_unref(held);
        held = ch;
        ex_channel_close_pending(ch, reason, NULL);
        ex_lock(&lane->lock);
    }
    ex_unlock(&lane->lock);
    if (held)
        ex_channel_unref(held);
}

void ex_channel_set_news(ex_channel *ch, int wanted)
{
    ex_lock(&ch->lane->lock);
    ch->news = wanted;
    ex_unlock(&ch->lane->lock);
}

/* Connection or access news, for those who asked. Lane lock held. */
static void post_news(ex_channel *ch, int kind, int a, int b)
{
    ex_lane *lane = ch->lane;
    ex_note *note;
    if (!ch->news || !reserve_notes(lane, 1))
        return;
    ex_channel_ref(ch);
    note = note_new(lane, kind, ch);
    note->a = a;
    note->b = b;
    note_append(lane, note);
    if (kind == EX_NOTE_CONNECTION)
        ch->news_serial = note->serial;
}

/* Each host's name once per lane: thousands of channels share it. Lane lock held; let go for memory. */
static const char *intern_host(ex_lane *lane, const char *name)
{
    struct ex_host *h, *fresh;
    for (h = lane->hosts; h; h = h->next)
        if (!strcmp(h->name, name))
            return h->name;
    ex_unlock(&lane->lock);
    fresh = (struct ex_host *)malloc(sizeof *fresh + strlen(name));
    ex_lock(&lane->lock);
    if (!fresh)
        return "";
    strcpy(fresh->name, name);
    fresh->next = lane->hosts;
    lane->hosts = fresh;
    return fresh->name;
}

/* Thread: recv (UP); send or timerQueue, without a context (DOWN); the destroying one (DOWN again). GIL: none.
 * May: read the channel's facts by the getters, set the truth, queue news and a plan. May not: call anything else. */
void ex_on_connection(struct connection_handler_args args)
{
    ex_channel *ch = (ex_channel *)ex_libca.puser(args.chid);
    ex_lane *lane;
    ex_sub *s;
    if (!ch || ex_load(&ch->lane->closing))
        return;
    lane = ch->lane;
    if (args.op == CA_OP_CONN_UP) {
        char host[64];
        int type = ex_libca.field_type(args.chid);
        unsigned long count = ex_libca.element_count(args.chid);
        const char *shared;
        host[0] = 0;
        ex_libca.host_name(args.chid, host, sizeof host);
        host[sizeof host - 1] = 0;
        ex_lock(&lane->access_lock);     /* libca does not tell the rights again after an unresponsive time */
        ex_lock(&lane->lock);
        shared = intern_host(lane, host);
        ch->reading = ex_libca.read_access(args.chid) != 0;
        ch->writing = ex_libca.write_access(args.chid) != 0;
        ex_unlock(&lane->access_lock);
        if (ch->wanted) {
            ch->host = shared;
            ch->type = type;
            ch->count = count;
            ch->state = EX_UP;
            ch->connects++;
            for (s = ch->subs; s; s = s->next) {
                s->fresh = 0;
                s->last_status = ECA_NORMAL;
            }
            post_news(ch, EX_NOTE_CONNECTION, 1, type);
            wait_over(&ch->waiting);
            if (ch->subs)
                ex_channel_plan(ch);
        }
        ex_unlock(&lane->lock);
    } else {
        ex_lock(&lane->lock);
        if (ch->state == EX_UP) {
            ch->state = EX_DOWN;
            ch->disconnects++;
            ch->reading = ch->writing = 0;
            if (circuit_unresponsive)
                ch->tainted = 1;         /* the server goes on streaming; a clear would not tell it (libca.md R15) */
            for (s = ch->subs; s; s = s->next)
                s->fresh = 0;
            post_news(ch, EX_NOTE_CONNECTION, 0, ch->type);
        }
        ex_unlock(&lane->lock);
    }
}

/* Thread: recv, send, timerQueue; also the caller's at registration, then without libca's callback lock, so that two
 * may run at once: the argument may be old. Both rights are read again, under one lock. GIL: none. */
void ex_on_access(struct access_rights_handler_args args)
{
    ex_channel *ch = (ex_channel *)ex_libca.puser(args.chid);
    ex_lane *lane;
    int reading, writing;
    if (!ch || ex_load(&ch->lane->closing))
        return;
    lane = ch->lane;
    ex_lock(&lane->access_lock);
    reading = ex_libca.read_access(args.chid) != 0;
    writing = ex_libca.write_access(args.chid) != 0;
    ex_lock(&lane->lock);
    if (ch->wanted && (ch->reading != reading || ch->writing != writing || ch->state != EX_UP)) {
        ch->reading = reading;
        ch->writing = writing;
        post_news(ch, EX_NOTE_ACCESS, reading, writing);
    }
    ex_unlock(&lane->lock);
    ex_unlock(&lane->access_lock);
}

/* Thread: any of libca's. GIL: none. Without this handler libca would abort() on a server's fatal code (1.6). */
void ex_on_exception(struct exception_handler_args args)
{
    ex_lane *lane = (ex_lane *)args.usr;
    const char *name = "";
    char text[400];
    if (!lane || ex_load(&lane->closing))
        return;
    circuit_unresponsive = args.stat == ECA_UNRESPTMO;
    if (args.chid) {
        ex_channel *ch = (ex_channel *)ex_libca.puser(args.chid);
        if (ch) {
            name = ch->name;
            ex_lock(&lane->lock);
            if (args.op == CA_OP_PUT)
                ch->rejected_puts++;
            lane->server_errors++;
            ex_unlock(&lane->lock);
        }
    }
    snprintf(text, sizeof text, "%ld\t%ld\t%s", args.stat, args.op, args.ctx ? args.ctx : "");
    ex_log(lane, args.stat == ECA_DISCONN || args.stat == ECA_UNRESPTMO ? 20 : 30, name, text);
}

/* ------------------------------------------------- subscriptions and handles */

ex_sub *ex_sub_get(ex_channel *ch, int type, unsigned long count, long mask)
{
    ex_sub *fresh = (ex_sub *)calloc(1, sizeof *fresh);
    ex_sub *s;
    if (!fresh)
        return NULL;
    ex_lock(&ch->lane->lock);
    for (s = ch->subs; s; s = s->next)
        if (s->type == type && s->count == count && s->mask == mask)
            break;
    if (!s) {
        s = fresh;
        fresh = NULL;
        s->channel = ch;
        s->type = type;
        s->count = count;
        s->mask = mask;
        s->live_type = -1;
        s->last_status = ECA_NORMAL;
        ex_store(&s->refs, 1);           /* the channel's list */
        ex_channel_ref(ch);
        s->next = ch->subs;
        ch->subs = s;
    }
    s->users++;
    (void)ex_add(&s->refs, 1);
    if (!s->live && ch->state == EX_UP)
        ex_channel_plan(ch);
    ex_unlock(&ch->lane->lock);
    free(fresh);
    return s;
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
    ex_channel_unref(sub->channel);
    free(sub);
}

ex_block *ex_sub_newest(ex_sub *sub, int *fresh)
{
    ex_block *b;
    ex_lock(&sub->channel->lane->lock);
    b = sub->newest;
    if (b)
        ex_block_ref(b);
    if (fresh)
        *fresh = sub->fresh;
    ex_unlock(&sub->channel->lane->lock);
    return b;
}

static void tell_first_loss(ex_handle *h, const char *how)
{
    /* Lane lock held on entry and exit. */
    ex_lane *lane = h->sub->channel->lane;
    char text[160];
    if (h->loss_told)
        return;
    h->loss_told = 1;
    snprintf(text, sizeof text, "slow consumer: first update %s (bound %zu events, %zu bytes); more are counted silently",
             how, h->max_events, h->max_bytes);
    ex_unlock(&lane->lock);
    ex_log(lane, 30, h->sub->channel->name, text);
    ex_lock(&lane->lock);
}

#define FALLEN 64
typedef struct fallen {          /* blocks that left the queue: given back after the lock where there is room */
    ex_block *blocks[FALLEN];
    size_t n;
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
    if (note && (h->latest || lane->events >= lane->max_events || lane->bytes + b->capacity > lane->max_bytes) &&
        note->serial > h->sub->channel->news_serial) {
        /* Takes the place of the handle's newest waiting one: the IOC's own rule, so that age stops growing. */
        fall(f, note->block);
        h->bytes += b->capacity - note->block->capacity;
        lane->bytes += b->capacity - note->block->capacity;
        note->block = b;
        h->merged++;
        return;
    }
    note = note_new(lane, EX_NOTE_VALUE, h);
    (void)ex_add(&h->refs, 1);
    note->block = b;
    note->hprev = h->newest;
    if (h->newest)
        h->newest->hnext = note;
    else
        h->oldest = note;
    h->newest = note;
    h->waiting++;
    h->bytes += b->capacity;
    lane->events++;
    lane->bytes += b->capacity;
    note_append(lane, note);
    while (h->waiting > h->max_events || (h->bytes > h->max_bytes && h->waiting > 4)) {
        fall(f, value_remove(lane, h, h->oldest));
        h->dropped++;
        (void)ex_add(&h->refs, -1);      /* the note's; the subscription's list keeps one */
    }
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
        wait_over(&sub->waiting);
        ex_unlock(&lane->lock);
        return;
    }
    /* A callback cannot see the payload's size: against a stock libca the count is checked here (libca.md R3). */
    if (args.type < 0 || args.type > 38 || args.count < 0 || args.type != sub->live_type ||
        (ch->count && (unsigned long)args.count > ch->count)) {
        ex_lock(&lane->lock);
        ch->decode_errors++;
        ex_unlock(&lane->lock);
        return;
    }
    head = ex_header_bytes((int)args.type);
    bytes = (size_t)args.count * ex_element_bytes((int)args.type);
    b = ex_block_new((int)args.type, (size_t)args.count, head, bytes);
    if (b) {
        b->scalar = ch->count == 1;
        memcpy(EX_HEADER(b), args.dbr, head);
        memcpy(b->values, (const char *)args.dbr + head, bytes);
    }
    ex_lock(&lane->lock);
    do {                                 /* reserving may let the lock go, and a handle join meanwhile */
        handles = queueing_handles(sub);
        room = !handles || reserve_notes(lane, handles);
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
    f.n = 0;
    b->arrival = ++sub->arrivals;
    old = sub->newest;
    ex_block_ref(b);
    sub->newest = b;
    sub->fresh = 1;
    sub->last_status = ECA_NORMAL;
    for (h = sub->handles; h; h = h->next)
        handle_receive(lane, h, b, &f);
    wait_over(&sub->waiting);
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

ex_handle *ex_handle_new(ex_sub *sub, int queueing, size_t max_events, int latest, int replay, void *py)
{
    ex_lane *lane = sub->channel->lane;
    ex_handle *h = (ex_handle *)calloc(1, sizeof *h);
    fallen f;
    f.n = 0;
    if (!h)
        return NULL;
    h->sub = sub;                        /* the caller's use of the sub (ex_sub_get) is the handle's now */
    ex_store(&h->refs, 2);               /* the caller's, and the sub's list */
    h->queueing = queueing;
    h->max_events = max_events;
    h->max_bytes = (size_t)64 << 20;
    h->latest = latest;
    h->py = py;
    ex_lock(&lane->lock);
    if (replay && (queueing || lane->polled))
        replay = reserve_notes(lane, 1);
    h->next = sub->handles;
    sub->handles = h;
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
        f.n = 0;
        while (h->oldest && f.n < FALLEN) {
            fall(&f, value_remove(lane, h, h->oldest));
            h->dropped++;
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
    ex_sub_unref(h->sub);
    free(h);
}

static void add_counts(ex_handle *h, ex_counts *out)
{
    out->received += h->received;
    out->delivered += h->delivered;
    out->merged += h->merged;
    out->dropped += h->dropped;
    out->pending += h->waiting;
}

void ex_handle_counts(ex_handle *h, ex_counts *out)
{
    memset(out, 0, sizeof *out);
    ex_lock(&h->sub->channel->lane->lock);
    add_counts(h, out);
    ex_unlock(&h->sub->channel->lane->lock);
}

void ex_counts_of_channel(ex_channel *ch, ex_counts *out)
{
    ex_sub *s;
    ex_handle *h;
    ex_lock(&ch->lane->lock);
    *out = ch->past;
    for (s = ch->subs; s; s = s->next)
        for (h = s->handles; h; h = h->next)
            add_counts(h, out);
    ex_unlock(&ch->lane->lock);
}


ex_note *ex_note_for(ex_lane *lane)
{
    ex_note *note = NULL;
    ex_lock(&lane->lock);
    if (reserve_notes(lane, 1))
        note = note_new(lane, EX_NOTE_COMPLETION, NULL);
    ex_unlock(&lane->lock);
    return note;
}

void ex_note_post(ex_lane *lane, ex_note *note, void *subject)
{
    ex_lock(&lane->lock);
    note->subject = subject;
    note_append(lane, note);
    ex_unlock(&lane->lock);
}

void ex_note_return(ex_lane *lane, ex_note *note)
{
    ex_lock(&lane->lock);
    note->next = lane->free_notes;
    lane->free_notes = note;
    ex_unlock(&lane->lock);
}

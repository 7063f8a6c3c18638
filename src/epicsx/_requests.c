/* Requests, batches and inboxes: what a get or a put lends to libca, and the three ways in which it ends.
 *
 * Threads
 *   ex_on_reply runs in libca's threads (recv for answers; send, timerQueue or the destroying one for the loss of the
 *   circuit), without the GIL. A request is ended once, under its own lock, by whoever is first: the reply, the
 *   deadline, close(), shutdown. The winner wakes the waiter and posts; everyone else only gives references back.
 *
 * Lifetime
 *   Whoever ends a request or a slot holds a reference to it meanwhile, so it may wake the waiter after the lock.
 *   libca's reference ("lent") ends with its callback, or after its channel was cleared: never with a timeout.
 *   The caller's buffer (`out`) is copied into under the request's lock, and forgotten under the same lock by whoever
 *   ends the request otherwise: nothing is written to it after the call returned. */
#include "epicsx_queue.h"

#include <string.h>

/* ----------------------------------------------------- what libca may answer */

/* Lane lock held. */
static void pending_join(ex_pending *p, ex_channel *ch)     /* the caller counts it: ex_lent_add */
{
    p->prev = NULL;
    p->next = ch->pending;
    if (p->next)
        p->next->prev = p;
    ch->pending = p;
    p->channel = ch;
    p->lent = 1;
}

/* Lane lock held. 0: somebody else has taken it out already. */
static int pending_leave(ex_pending *p)
{
    if (!p->lent)
        return 0;
    p->lent = 0;
    if (p->prev)
        p->prev->next = p->next;
    else
        p->channel->pending = p->next;
    if (p->next)
        p->next->prev = p->prev;
    p->next = p->prev = NULL;
    ex_lent_add(-1);
    return 1;
}

/* ------------------------------------------------------------------ request */

ex_request *ex_request_new(ex_channel *ch, int type, int is_put)
{
    ex_request *r = (ex_request *)calloc(1, sizeof *r);
    if (!r)
        return NULL;
    ex_mutex_init(&r->lock);
    ex_cond_init(&r->cond);
    ex_store(&r->refs, 1);
    r->link.channel = ch;
    ex_channel_ref(ch);
    r->type = type;
    r->is_put = is_put;
    r->deadline = EX_FOREVER;
    return r;
}

void ex_request_ref(ex_request *r) { (void)ex_add(&r->refs, 1); }

void ex_request_unref(ex_request *r)
{
    if (ex_add(&r->refs, -1) > 0)
        return;
    ex_block_unref(r->block);
    if (r->note)
        ex_note_return(r->link.channel->lane, r->note);
    if (r->inbox)
        ex_inbox_unref(r->inbox);
    ex_channel_unref(r->link.channel);
    ex_cond_destroy(&r->cond);
    ex_mutex_destroy(&r->lock);
    free(r);
}

int ex_request_lend(ex_request *r)
{
    ex_channel *ch = r->link.channel;
    int status = 0;
    ex_lock(&ch->lane->lock);
    if (ch->state != EX_UP)
        status = ch->state == EX_CLOSED ? ECA_CHANDESTROY : ECA_DISCONN;
    else {
        pending_join(&r->link, ch);
        ex_lent_add(1);
        ch->in_call++;
        ex_request_ref(r);
    }
    ex_unlock(&ch->lane->lock);
    return status;
}

void ex_request_take_back(ex_request *r)
{
    ex_lane *lane = r->link.channel->lane;
    int mine;
    ex_lock(&lane->lock);
    mine = pending_leave(&r->link);
    ex_unlock(&lane->lock);
    if (mine)
        ex_request_unref(r);
}

void ex_request_note(ex_request *r)
{
    r->note = ex_note_for(r->link.channel->lane);
    r->noted = r->note != NULL;
}

static void inbox_post(ex_inbox *b, ex_request *r);

static void due_leave(ex_request *r)
{
    ex_lane *lane = r->link.channel->lane;
    if (!r->due)
        return;
    r->due = 0;
    if (r->due_prev)
        r->due_prev->due_next = r->due_next;
    else
        lane->first_due = r->due_next;
    if (r->due_next)
        r->due_next->due_prev = r->due_prev;
    else
        lane->last_due = r->due_prev;
}

/* The winner's part, outside the request's lock. The caller holds a reference. */
static void announce(ex_request *r)
{
    ex_lane *lane = r->link.channel->lane;
    int was_due;
    ex_lock(&lane->lock);
    was_due = r->due;
    due_leave(r);
    ex_unlock(&lane->lock);
    if (r->noted) {
        ex_note *note = r->note;
        r->note = NULL;
        ex_request_ref(r);
        ex_note_post(lane, note, r);
    }
    if (r->inbox)
        inbox_post(r->inbox, r);
    if (was_due)
        ex_request_unref(r);
}

int ex_request_end(ex_request *r, int reason, int status)
{
    int mine;
    ex_lock(&r->lock);
    mine = r->state == EX_PENDING;
    if (mine) {
        ex_store(&r->state, EX_DONE);
        r->reason = reason;
        r->status = status;
        r->out = NULL;
    }
    ex_unlock(&r->lock);
    if (mine) {
        ex_broadcast(&r->cond);
        announce(r);
    }
    return mine;
}

int ex_request_wait(ex_request *r, int64_t deadline)
{
    int state;
    ex_lock(&r->lock);
    while (r->state == EX_PENDING && ex_wait(&r->cond, &r->lock, deadline))
        ;
    state = r->state;
    ex_unlock(&r->lock);
    return state;
}

void ex_request_due(ex_request *r, int64_t deadline)
{
    ex_lane *lane = r->link.channel->lane;
    ex_request *after;
    if (deadline == EX_FOREVER)
        return;
    ex_lock(&r->lock);                   /* request before lane: a reply that is already there needs no deadline */
    ex_lock(&lane->lock);
    if (r->state == EX_PENDING && !r->due) {
        r->deadline = deadline;
        r->due = 1;
        ex_request_ref(r);
        for (after = lane->last_due; after && after->deadline > deadline; after = after->due_prev)
            ;
        r->due_prev = after;
        r->due_next = after ? after->due_next : lane->first_due;
        if (after)
            after->due_next = r;
        else
            lane->first_due = r;
        if (r->due_next)
            r->due_next->due_prev = r;
        else
            lane->last_due = r;
        if (lane->first_due == r && lane->sleeping)
            ex_broadcast(&lane->wake);
    }
    ex_unlock(&lane->lock);
    ex_unlock(&r->lock);
}

void ex_lane_expire(ex_lane *lane, int64_t now)
{
    for (;;) {
        ex_request *r;
        ex_lock(&lane->lock);
        r = lane->first_due;
        if (!r || r->deadline > now) {
            ex_unlock(&lane->lock);
            return;
        }
        due_leave(r);                    /* the list's reference is ours now */
        ex_unlock(&lane->lock);
        ex_request_end(r, EX_BY_DEADLINE, ECA_TIMEOUT);
        ex_request_unref(r);
    }
}

/* ---------------------------------------------------------------- the reply */

static ex_block *block_of(ex_channel *ch, struct event_handler_args *args, int with_values)
{
    size_t head = ex_header_bytes((int)args->type);
    size_t bytes = (size_t)args->count * ex_element_bytes((int)args->type);
    ex_block *b = ex_block_new((int)args->type, (size_t)args->count, head, with_values ? bytes : 0);
    if (!b)
        return NULL;
    b->scalar = ch->count == 1;
    memcpy(EX_HEADER(b), args->dbr, head);
    if (with_values)
        memcpy(b->values, (const char *)args->dbr + head, bytes);
    return b;
}

static int reply_fits(ex_channel *ch, struct event_handler_args *args, int type)
{
    return args->type == type && args->count >= 0 && (!ch->count || (unsigned long)args->count <= ch->count || type == 38);
}

static void request_reply(ex_request *r, struct event_handler_args *args)
{
    ex_channel *ch = r->link.channel;
    int status = args->status, reason = EX_BY_REPLY, mine, with_values;
    ex_block *b = NULL, *late = NULL;
    if (status == ECA_NORMAL && !r->is_put) {
        ex_lock(&r->lock);
        with_values = r->out == NULL;    /* ended meanwhile: then the block is late anyhow */
        ex_unlock(&r->lock);
        if (!args->dbr || !reply_fits(ch, args, r->type))
            status = ECA_BADTYPE;
        else if (!(b = block_of(ch, args, with_values)))
            status = ECA_ALLOCMEM;
    }
    ex_lock(&r->lock);
    mine = r->state == EX_PENDING;
    if (mine) {
        if (b && r->out) {
            if ((size_t)args->count > r->out_count) {
                status = ECA_BADCOUNT;
                reason = EX_BY_SIZE;
            } else
                memcpy(r->out, (const char *)args->dbr + ex_header_bytes(r->type),
                       (size_t)args->count * ex_element_bytes(r->type));
        }
        r->out = NULL;
        ex_store(&r->state, EX_DONE);
        r->reason = reason;
        r->status = status;
        r->block = b;
    } else
        late = b;
    ex_unlock(&r->lock);
    ex_block_unref(late);
    if (mine) {
        ex_broadcast(&r->cond);          /* after the lock: the waiter does not wake only to wait for us */
        announce(r);
    }
}

static void batch_over(ex_request *done)
{
    if (done) {
        ex_request_end(done, EX_BY_REPLY, ECA_NORMAL);
        ex_request_unref(done);
    }
}

static int slot_end(ex_slot *s, int status, ex_block *b)
{
    ex_batch *batch = s->batch;
    ex_request *done = NULL;
    int mine;
    ex_lock(&batch->lock);
    mine = s->state == EX_PENDING;
    if (mine) {
        ex_store(&s->state, EX_DONE);
        s->status = status;
        s->block = b;
        if (--batch->left == 0) {
            ex_broadcast(&batch->cond);
            done = batch->done;
            batch->done = NULL;
        }
    }
    ex_unlock(&batch->lock);
    batch_over(done);
    return mine;
}

/* One value into the slot itself, where that was asked for: no block, no lock. Nobody reads it unless slot_end makes the
 * slot DONE with ECA_NORMAL afterwards. */
static int keep_small(ex_slot *s, const ex_channel *ch, const struct event_handler_args *args)
{
    size_t bytes = ex_header_bytes((int)args->type) + ex_element_bytes((int)args->type);
    if (!s->batch->keep_small || ch->count != 1 || args->count != 1 || bytes > sizeof s->small)
        return 0;
    memcpy(s->small, args->dbr, bytes);
    s->is_small = 1;
    return 1;
}

/* Thread: recv, or whichever loses the circuit; under libca's callback lock. GIL: none.
 * May: copy once, end the request, wake. May not: call libca. */
void ex_on_reply(struct event_handler_args args)
{
    ex_pending *p = (ex_pending *)args.usr;
    ex_channel *ch = p->channel;
    ex_lane *lane = ch->lane;
    int mine;
    if (ex_load(&lane->closing))
        return;
    if (p->is_slot) {
        ex_slot *s = (ex_slot *)p;
        ex_block *b = NULL;
        int status = args.status;
        if (status == ECA_NORMAL && s->type >= 0) {
            if (!args.dbr || !reply_fits(ch, &args, s->type))
                status = ECA_BADTYPE;
            else if (!keep_small(s, ch, &args) && !(b = block_of(ch, &args, 1)))
                status = ECA_ALLOCMEM;
        }
        ex_lock(&lane->lock);
        mine = pending_leave(p);
        ex_unlock(&lane->lock);
        if (!slot_end(s, status, b))
            ex_block_unref(b);
        if (mine)
            ex_batch_unref(s->batch);
        return;
    }
    ex_lock(&lane->lock);
    mine = pending_leave(p);
    ex_unlock(&lane->lock);
    request_reply((ex_request *)p, &args);
    if (mine)
        ex_request_unref((ex_request *)p);
}

/* End whatever the channel's outstanding requests are waiting for; libca still holds its references to them. */
static void pending_ref(ex_pending *p)
{
    if (p->is_slot)
        ex_batch_ref(((ex_slot *)p)->batch);
    else
        ex_request_ref((ex_request *)p);
}

static void pending_unref(ex_pending *p)
{
    if (!p)
        return;
    if (p->is_slot)
        ex_batch_unref(((ex_slot *)p)->batch);
    else
        ex_request_unref((ex_request *)p);
}

static int to_be_ended(ex_pending *p, void *owner)
{
    /* Reading the state without its lock: a stale "pending" only costs one more look. */
    if (p->is_slot)
        return !owner && ex_load(&((ex_slot *)p)->state) == EX_PENDING;
    return ex_load(&((ex_request *)p)->state) == EX_PENDING && (!owner || ((ex_request *)p)->owner == owner);
}

void ex_channel_close_pending(ex_channel *ch, int reason, void *owner)
{
    /* Along the list, holding the one we stand on while the lock is let go; from the head again only if that one has
     * left meanwhile. So tens of thousands of them cost one walk. */
    ex_lane *lane = ch->lane;
    ex_pending *p, *held = NULL;
    ex_lock(&lane->lock);
    p = ch->pending;
    while (p) {
        if (!to_be_ended(p, owner)) {
            p = p->next;
            continue;
        }
        pending_ref(p);
        ex_unlock(&lane->lock);
        pending_unref(held);
        held = p;
        if (p->is_slot)
            slot_end((ex_slot *)p, ECA_CHANDESTROY, NULL);
        else
            ex_request_end((ex_request *)p, reason, ECA_CHANDESTROY);
        ex_lock(&lane->lock);
        p = p->lent ? p->next : ch->pending;
    }
    ex_unlock(&lane->lock);
    pending_unref(held);
}

/* libca has promised silence about this channel: take back what it will never answer. */
void ex_channel_recall(ex_channel *ch)
{
    ex_lane *lane = ch->lane;
    for (;;) {
        ex_pending *p;
        ex_lock(&lane->lock);
        p = ch->pending;
        if (p)
            pending_leave(p);
        ex_unlock(&lane->lock);
        if (!p)
            return;
        if (p->is_slot) {
            ex_batch *batch = ((ex_slot *)p)->batch;
            slot_end((ex_slot *)p, ECA_DISCONN, NULL);
            ex_batch_unref(batch);
        } else {
            ex_request_end((ex_request *)p, EX_BY_REPLY, ECA_DISCONN);
            ex_request_unref((ex_request *)p);
        }
    }
}

/* -------------------------------------------------------------------- batch */

ex_batch *ex_batch_new(size_t n)
{
    ex_batch *b = (ex_batch *)calloc(1, sizeof *b + n * sizeof(ex_slot));
    size_t i;
    if (!b)
        return NULL;
    ex_mutex_init(&b->lock);
    ex_cond_init(&b->cond);
    ex_store(&b->refs, 1);
    b->n = b->left = n;
    for (i = 0; i < n; i++) {
        b->slots[i].batch = b;
        b->slots[i].link.is_slot = 1;
    }
    return b;
}

void ex_batch_ref(ex_batch *b) { (void)ex_add(&b->refs, 1); }

void ex_batch_unref(ex_batch *b)
{
    size_t i;
    if (ex_add(&b->refs, -1) > 0)
        return;
    for (i = 0; i < b->n; i++)
        ex_block_unref(b->slots[i].block);
    if (b->done)                         /* it was never lent */
        ex_request_unref(b->done);
    ex_cond_destroy(&b->cond);
    ex_mutex_destroy(&b->lock);
    free(b);
}

void ex_batch_lend(ex_batch *b, ex_lane *lane, ex_channel **channels)
{
    size_t i;
    int lent = 0;
    ex_lock(&lane->lock);
    for (i = 0; i < b->n; i++) {
        ex_channel *ch = channels[i];
        ex_slot *s = &b->slots[i];
        if (!ch || ch->state != EX_UP) {
            /* Nobody else knows the slot yet: no batch lock is needed. */
            ex_store(&s->state, EX_DONE);
            s->status = ch && ch->state == EX_CLOSED ? ECA_CHANDESTROY : ECA_DISCONN;
            b->left--;
            continue;
        }
        pending_join(&s->link, ch);
        ch->in_call++;
        lent++;
    }
    ex_lent_add(lent);
    (void)ex_add(&b->refs, lent);        /* one each, before anybody can take a slot out */
    ex_unlock(&lane->lock);
}

void ex_batch_refuse(ex_batch *b, size_t i, int status)
{
    ex_slot *s = &b->slots[i];
    ex_lane *lane = s->link.channel->lane;
    int mine;
    ex_lock(&lane->lock);
    mine = pending_leave(&s->link);
    ex_unlock(&lane->lock);
    slot_end(s, status, NULL);
    if (mine)
        ex_batch_unref(b);
}

int ex_batch_wait(ex_batch *b, int64_t deadline)
{
    int done;
    ex_lock(&b->lock);
    while (b->left && ex_wait(&b->cond, &b->lock, deadline))
        ;
    done = b->left == 0;
    ex_unlock(&b->lock);
    return done;
}

void ex_batch_settle(ex_batch *b)
{
    ex_request *done = NULL;
    ex_lock(&b->lock);
    if (b->left == 0) {
        done = b->done;
        b->done = NULL;
    }
    ex_unlock(&b->lock);
    batch_over(done);
}

void ex_batch_abandon(ex_batch *b)
{
    ex_request *done;
    size_t i;
    ex_lock(&b->lock);
    done = b->done;
    b->done = NULL;
    for (i = 0; i < b->n; i++)
        if (b->slots[i].state == EX_PENDING) {
            b->slots[i].state = EX_ABANDONED;
            b->slots[i].status = ECA_TIMEOUT;
            b->left--;
        }
    ex_unlock(&b->lock);
    if (done)                            /* nobody waits for it any more */
        ex_request_unref(done);
}

/* -------------------------------------------------------------------- inbox */

ex_inbox *ex_inbox_new(int fd)
{
    ex_inbox *b = (ex_inbox *)calloc(1, sizeof *b);
    if (!b)
        return NULL;
    ex_mutex_init(&b->lock);
    ex_store(&b->refs, 1);
    b->fd = fd;
    return b;
}

void ex_inbox_ref(ex_inbox *b) { (void)ex_add(&b->refs, 1); }

void ex_inbox_unref(ex_inbox *b)
{
    if (ex_add(&b->refs, -1) > 0)
        return;
    ex_mutex_destroy(&b->lock);
    free(b);
}

/* One wake of the loop per batch: `rung` stays until the loop takes. Inbox lock held. */
static void ring_once(ex_inbox *b)
{
    if (!b->rung) {
        b->rung = 1;
        b->rings++;
        ex_poke(b->fd);                  /* under the lock: the descriptor closes only after `dead` is set */
    }
}

static void inbox_post(ex_inbox *b, ex_request *r)
{
    ex_lock(&b->lock);
    if (b->dead) {
        b->lost++;
        ex_unlock(&b->lock);
        return;
    }
    ex_request_ref(r);
    r->inbox_next = NULL;
    if (b->tail)
        b->tail->inbox_next = r;
    else
        b->head = r;
    b->tail = r;
    ring_once(b);
    ex_unlock(&b->lock);
}

ex_inbox *ex_inbox_tell(ex_handle *h)
{
    ex_inbox *b = h->inbox;
    int due;
    if (h->told)
        return NULL;
    h->told = 1;
    ex_lock(&b->lock);
    due = !b->dead && !h->listed;
    if (due) {
        h->listed = 1;
        (void)ex_add(&h->refs, 1);
        h->listed_next = NULL;
        if (b->ready_tail)
            b->ready_tail->listed_next = h;
        else
            b->ready = h;
        b->ready_tail = h;
        due = !b->rung;
    }
    ex_unlock(&b->lock);
    if (!due)
        return NULL;
    ex_inbox_ref(b);
    return b;
}

void ex_inbox_ring(ex_inbox *b)
{
    if (!b)
        return;
    ex_lock(&b->lock);
    if (!b->dead && (b->ready || b->head))       /* not taken meanwhile */
        ring_once(b);
    ex_unlock(&b->lock);
    ex_inbox_unref(b);
}

ex_handle *ex_inbox_ready(ex_inbox *b)
{
    ex_handle *h;
    ex_lock(&b->lock);
    h = b->ready;
    if (h) {
        b->ready = h->listed_next;
        if (!b->ready)
            b->ready_tail = NULL;
        h->listed = 0;
    }
    ex_unlock(&b->lock);
    return h;
}

ex_request *ex_inbox_take(ex_inbox *b)
{
    ex_request *head;
    ex_lock(&b->lock);
    head = b->head;
    b->head = b->tail = NULL;
    b->rung = 0;
    ex_unlock(&b->lock);
    return head;
}

void ex_inbox_kill(ex_inbox *b)
{
    ex_request *r, *q;
    ex_handle *h;
    ex_lock(&b->lock);
    b->dead = 1;
    r = b->head;
    b->head = b->tail = NULL;
    for (q = r; q; q = q->inbox_next)
        b->lost++;
    h = b->ready;
    b->ready = b->ready_tail = NULL;
    ex_unlock(&b->lock);
    while (h) {                          /* what waits in them is counted when they are closed */
        ex_handle *next = h->listed_next;
        ex_handle_unref(h);
        h = next;
    }
    while (r) {
        ex_request *next = r->inbox_next;
        ex_request_unref(r);
        r = next;
    }
}

/* Every call into libca: the gate, attach-call-restore, and the keeper.
 *
 * Threads
 *   keeper    a native thread per lane. It made the lane's preemptive context and stays attached to it. It carries out
 *             plans: what a channel needs after it connected, changed its type, got or lost subscriptions, or was
 *             dropped. It never runs Python, so neither a callback nor a busy GIL delays it.
 *   spares    two more native threads. A libca call may block for EPICS_CA_CONN_TMO on a full circuit (tcpiiu::flush);
 *             when one has not returned after 100 ms a spare takes the next plans, those of one channel in order and
 *             none for the host that is stuck.
 *   callers   any Python thread, without the GIL.
 *   A plan is not a message but a look at the channel: `dirty` says look again. So none can be lost or come late.
 *
 * Lifetime
 *   A channel may not be cleared while a call with its chid runs in another thread: `in_call` counts them, and the
 *   last one out plans the clear. Each call passes the lane's gate; shutdown shuts it, and destroys the context only
 *   if nobody is inside any more. A keeper that does not come back from ca_context_destroy is left behind: what libca's
 *   threads still run then is inert C. */
#include "epicsx_libca.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "errlog.h"

#define STUCK_NS 100000000ll
#define FLUSH_GAP 250000ll
#define WORKERS 3
#define CLOSING_LOOK 500000ll
#define CLOCK_LOOK 5000000000ll

/* Where text goes that libca prints without saying for whom. Set while a lane runs. */
static ex_lane *volatile log_lane;
static int errlog_redirected;

/* --------------------------------------------------------------------- gate */

static int gate_enter(ex_lane *lane)
{
    if (ex_load(&lane->stopping) || lane->keeper_state != 2)
        return 0;
    (void)ex_add(&lane->gate, 1);
    ex_fence();                          /* our step is seen before we look: ex_keeper_close stores, then looks */
    if (ex_load(&lane->stopping)) {      /* shut between the look and the step */
        (void)ex_add(&lane->gate, -1);
        return 0;
    }
    return 1;
}

static void gate_leave(ex_lane *lane) { (void)ex_add(&lane->gate, -1); }

/* Only creating and flushing look at the calling thread's context: attach there, and restore what was there. */
static struct ca_client_context *attach(ex_lane *lane)
{
    struct ca_client_context *before = ca_current_context();
    if (before != (struct ca_client_context *)lane->context) {
        if (before)
            ca_detach_context();
        ca_attach_context((struct ca_client_context *)lane->context);
    }
    return before;
}

static void restore(ex_lane *lane, struct ca_client_context *before)
{
    if (before == (struct ca_client_context *)lane->context)
        return;
    ca_detach_context();
    if (before)
        ca_attach_context(before);
}

static void call_done(ex_channel *ch)
{
    ex_lock(&ch->lane->lock);
    if (--ch->in_call == 0 && (ch->dirty || ch->recreate || !ch->wanted))
        ex_channel_plan(ch);
    ex_unlock(&ch->lane->lock);
}

/* -------------------------------------------------------------------- calls */

static int create_attached(ex_channel *ch)
{
    chid id;
    int status;
    ex_channel_ref(ch);
    ex_lent_add(1);
    ch->lent = 1;
    /* libca fills ch->id before it can call the handler, which may be before this call returns. */
    status = ca_create_channel(ch->name, ex_on_connection, ch, ch->priority, &ch->id);
    id = ch->id;
    if (status == ECA_NORMAL)
        status = ca_replace_access_rights_event(id, ex_on_access);
    ex_lock(&ch->lane->lock);
    if (status != ECA_NORMAL && !id) {
        ch->lent = 0;
        ex_lent_add(-1);
    }
    if (--ch->in_call == 0 && (ch->dirty || ch->recreate || !ch->wanted))
        ex_channel_plan(ch);             /* it connected, or was dropped, while we were inside */
    ex_unlock(&ch->lane->lock);
    if (status != ECA_NORMAL && !id)
        ex_channel_unref(ch);
    return status;
}

/* Whether new channels should wait. Lane lock held. */
static int circuits_closing(const ex_lane *lane)
{
    return (lane->emptied || lane->leaving || lane->dying) && ex_now() < lane->closing_until;
}

/* The same after a look at libca, which the keeper takes while channels wait. Lane lock held on entry and exit. */
static int still_closing(ex_lane *lane)
{
    unsigned open;
    if (!circuits_closing(lane)) {
        lane->leaving = 0;               /* waited for long enough: nobody looks after these any more */
        return 0;
    }
    if (lane->emptied || lane->dying)
        return 1;
    ex_unlock(&lane->lock);
    open = ca_get_ioc_connection_count();
    ex_lock(&lane->lock);
    if (!lane->emptied && (open <= lane->open_due || open <= lane->circuits_used))
        lane->leaving = 0;
    return circuits_closing(lane);
}

/* The channels that waited have their turn. Lane lock held. */
static void plan_deferred(ex_lane *lane)
{
    ex_channel *ch;
    for (ch = lane->channels; ch; ch = ch->next)
        if (ch->create_due)
            ex_channel_plan(ch);
}

int ex_ca_create(ex_channel *ch)
{
    ex_lane *lane = ch->lane;
    struct ca_client_context *before;
    int status;
    if (!gate_enter(lane))
        return ECA_CHANDESTROY;
    ex_lock(&lane->lock);
    if (circuits_closing(lane)) {        /* the keeper creates it when they are closed */
        ch->create_due = 1;
        lane->deferred++;
        ex_signal(&lane->plan);
        ex_unlock(&lane->lock);
        gate_leave(lane);
        return ECA_NORMAL;
    }
    ch->in_call++;
    ex_unlock(&lane->lock);
    before = attach(lane);
    status = create_attached(ch);
    restore(lane, before);
    gate_leave(lane);
    return status;
}

int ex_ca_get(ex_request *r, int type, unsigned long count)
{
    ex_channel *ch = r->link.channel;
    int status;
    if (!gate_enter(ch->lane))
        return ECA_CHANDESTROY;
    status = ex_request_lend(r);
    if (status == 0) {
        status = ca_array_get_callback((chtype)type, count, ch->id, ex_on_reply, r);
        if (status != ECA_NORMAL)
            ex_request_take_back(r);
        call_done(ch);
    }
    gate_leave(ch->lane);
    return status;
}

int ex_ca_put_wait(ex_request *r, int type, unsigned long count, const void *data)
{
    ex_channel *ch = r->link.channel;
    int status;
    if (!gate_enter(ch->lane))
        return ECA_CHANDESTROY;
    status = ex_request_lend(r);
    if (status == 0) {
        status = ca_array_put_callback((chtype)type, count, ch->id, data, ex_on_reply, r);
        if (status != ECA_NORMAL)
            ex_request_take_back(r);
        call_done(ch);
    }
    gate_leave(ch->lane);
    return status;
}

static int put_one(ex_channel *ch, int type, unsigned long count, const void *data)
{
    ex_lane *lane = ch->lane;
    int status;
    ex_lock(&lane->lock);
    status = ch->state == EX_UP ? 0 : ch->state == EX_CLOSED ? ECA_CHANDESTROY : ECA_DISCONN;
    ch->in_call += status == 0;
    ex_unlock(&lane->lock);
    if (status == 0) {
        status = ca_array_put((chtype)type, count, ch->id, data);
        call_done(ch);
    }
    return status;
}

int ex_ca_put(ex_channel *ch, int type, unsigned long count, const void *data)
{
    int status;
    if (!gate_enter(ch->lane))
        return ECA_CHANDESTROY;
    status = put_one(ch, type, count, data);
    gate_leave(ch->lane);
    return status;
}

int ex_ca_flush(ex_lane *lane)
{
    struct ca_client_context *before;
    int status;
    if (!gate_enter(lane))
        return ECA_CHANDESTROY;
    before = attach(lane);
    status = ca_flush_io();
    restore(lane, before);
    gate_leave(lane);
    return status;
}

/* For puts that nobody waits for. Each flush wakes libca's sending thread, which then competes with us for libca's lock:
 * in a burst, one flush for every put costs several times the puts. So the first goes at once, those that follow within
 * 250 us share one, which the keeper makes at the end of that time; at once if the keeper is busy. */
int ex_ca_flush_soon(ex_lane *lane)
{
    int64_t now = ex_now();
    int wait;
    ex_lock(&lane->lock);
    wait = now - lane->flushed < FLUSH_GAP && !lane->workers[0].channel && !ex_load(&lane->stopping);
    if (!wait)
        lane->flushed = now;
    else if (!lane->flush_due) {
        lane->flush_due = 1;
        ex_signal(&lane->plan);
    }
    ex_unlock(&lane->lock);
    return wait ? ECA_NORMAL : ex_ca_flush(lane);
}

/* The end of a bulk call: one short lock for all channels, and one flush. In this order, so that the answers, each of
 * which takes the lane's lock, do not find it held by us. */
static void batch_done(ex_batch *b, ex_lane *lane, ex_channel **channels)
{
    struct ca_client_context *before;
    size_t i;
    ex_lock(&lane->lock);
    for (i = 0; i < b->n; i++)
        if (b->slots[i].link.channel) {
            ex_channel *ch = channels[i];
            if (--ch->in_call == 0 && (ch->dirty || ch->recreate || !ch->wanted))
                ex_channel_plan(ch);
        }
    ex_unlock(&lane->lock);
    before = attach(lane);
    ca_flush_io();
    restore(lane, before);
}

int ex_ca_get_batch(ex_batch *b, ex_lane *lane, ex_channel **channels, const int *types, const unsigned long *counts)
{
    size_t i;
    if (!gate_enter(lane))
        return ECA_CHANDESTROY;
    for (i = 0; i < b->n; i++)
        b->slots[i].type = types[i];
    ex_batch_lend(b, lane, channels);
    for (i = 0; i < b->n; i++) {
        int status;
        if (!b->slots[i].link.channel)
            continue;
        status = ca_array_get_callback((chtype)types[i], counts[i], channels[i]->id, ex_on_reply, &b->slots[i]);
        if (status != ECA_NORMAL)
            ex_batch_refuse(b, i, status);
    }
    batch_done(b, lane, channels);
    gate_leave(lane);
    return ECA_NORMAL;
}

int ex_ca_put_batch(ex_batch *b, ex_lane *lane, ex_channel **channels, const int *types, const unsigned long *counts,
                    const void **data)
{
    size_t i;
    if (!gate_enter(lane))
        return ECA_CHANDESTROY;
    for (i = 0; i < b->n; i++)
        b->slots[i].type = -1;           /* the answer to a put has no values */
    ex_batch_lend(b, lane, channels);
    for (i = 0; i < b->n; i++) {
        int status;
        if (!b->slots[i].link.channel)
            continue;
        status = ca_array_put_callback((chtype)types[i], counts[i], channels[i]->id, data[i], ex_on_reply, &b->slots[i]);
        if (status != ECA_NORMAL)
            ex_batch_refuse(b, i, status);
    }
    batch_done(b, lane, channels);
    gate_leave(lane);
    return ECA_NORMAL;
}

/* Without waiting: the slots only tell what libca itself refused. */
int ex_ca_put_all(ex_batch *b, ex_lane *lane, ex_channel **channels, const int *types, const unsigned long *counts,
                  const void **data)
{
    size_t i;
    struct ca_client_context *before;
    if (!gate_enter(lane))
        return ECA_CHANDESTROY;
    for (i = 0; i < b->n; i++) {
        b->slots[i].status = put_one(channels[i], types[i], counts[i], data[i]);
        b->slots[i].state = EX_DONE;
        b->left--;
    }
    before = attach(lane);
    ca_flush_io();
    restore(lane, before);
    gate_leave(lane);
    return ECA_NORMAL;
}

const char *ex_ca_message(long status) { return ca_message(status); }
const char *ex_ca_version(void) { return ca_version(); }

/* -------------------------------------------------------- libca's own words */

/* Thread: any of libca's, usually under its callback lock. GIL: none. */
static int on_printf(const char *format, va_list args)
{
    ex_lane *lane = log_lane;
    char text[512];
    int n = vsnprintf(text, sizeof text, format, args);
    if (lane && !ex_load(&lane->closing))
        ex_log(lane, 30, "", text);
    return n;
}

/* Thread: libCom's errlog. GIL: none. */
static void on_errlog(void *unused, const char *message)
{
    ex_lane *lane = log_lane;
    (void)unused;
    if (lane && !ex_load(&lane->closing))
        ex_log(lane, 30, "", message);
}

/* ------------------------------------------------------------------- keeper */

/* The type a subscription shall have now; -1: none. Lane lock held. */
static int wanted_type(ex_sub *s)
{
    if (s->type == EX_TIME_OF_NATIVE)
        return ex_time_of(s->channel->type);
    if (s->type == EX_CTRL_OF_NATIVE)
        return ex_ctrl_of(s->channel->type);
    return s->type;
}

/* Lane lock held on entry and exit, let go around libca. The subscription is alive: its channel's list has it, and only
 * the worker that has the channel takes it out. */
static void sub_end(ex_lane *lane, ex_sub *s)
{
    evid id = s->id;
    s->id = NULL;
    s->fresh = 0;
    ex_unlock(&lane->lock);
    ca_clear_subscription(id);           /* waits for the callback lock: afterwards libca is silent about it */
    ex_lock(&lane->lock);
    s->live = 0;
    s->live_type = -1;
    ex_lent_add(-1);
}

static void sub_begin(ex_lane *lane, ex_channel *ch, ex_sub *s, int type)
{
    chid id = ch->id;
    evid made = NULL;
    int status;
    s->live = 1;
    s->live_type = type;                 /* before: the first event may come before the call returns */
    s->last_status = ECA_NORMAL;
    s->fresh = 0;
    ex_lent_add(1);
    ex_unlock(&lane->lock);
    status = ca_create_subscription((chtype)type, s->count, id, s->mask, ex_on_event, s, &made);
    ex_lock(&lane->lock);
    s->id = made;
    if (status != ECA_NORMAL) {
        s->live = 0;
        s->live_type = -1;
        ex_lent_add(-1);
        if (ch->state == EX_UP) {
            ex_unlock(&lane->lock);
            ex_log(lane, 30, ch->name, ca_message(status));
            ex_lock(&lane->lock);
        }
    }
}

/* Nobody uses it and libca does not know it: out of the channel's list. Lane lock held on entry and exit. */
static void sub_forget(ex_lane *lane, ex_sub **at)
{
    ex_sub *s = *at;
    *at = s->next;
    ex_unlock(&lane->lock);
    ex_sub_unref(s);                     /* gives its newest block back, and its reference to the channel */
    ex_lock(&lane->lock);
}

/* libca forgets the channel. Lane lock held on entry and exit. */
static void channel_end(ex_lane *lane, ex_channel *ch)
{
    chid id = ch->id;
    ex_sub *s;
    unsigned open = 0;
    int last;
    if (ch->of_dead) {
        ex_channel_not_dead(ch);
        if (!lane->dying && !ch->last_of_circuit) {    /* now libca can let go of the circuit */
            ch->last_of_circuit = 1;
            lane->emptied++;
            lane->closing_until = ex_now() + EX_CLOSING_NS;
        }
    }
    last = ch->last_of_circuit;
    ch->id = NULL;
    ex_unlock(&lane->lock);
    if (last)
        open = ca_get_ioc_connection_count();
    ca_clear_channel(id);                /* its subscriptions too; its requests are forgotten without a word */
    ex_channel_recall(ch);
    ex_lock(&lane->lock);
    if (ch->last_of_circuit) {           /* or it became so while libca was at it: it had just connected */
        ch->last_of_circuit = 0;
        lane->emptied--;
    }
    if (last) {
        if (ex_now() >= lane->closing_until)
            lane->leaving = 0;           /* old ones, that nobody looked after */
        if (lane->leaving++ == 0)
            lane->open_due = open;
        lane->open_due -= lane->open_due > 0;
        lane->closing_until = ex_now() + EX_CLOSING_NS;
    }
    for (s = ch->subs; s; s = s->next)
        if (s->live) {
            s->live = 0;
            s->live_type = -1;
            s->id = NULL;
            s->fresh = 0;
            ex_lent_add(-1);
        }
    ch->tainted = 0;
    ex_channel_left(ch, 0);
    if (ch->state == EX_UP)
        ch->state = EX_DOWN;             /* it had just come back: nobody may call with a chid that is gone */
    ch->lent = 0;
    ex_lent_add(-1);
}

/* What one channel needs, one step at a time. Lane lock held on entry and exit. 1: a step was made; look again. */
static int channel_step(ex_lane *lane, ex_channel *ch)
{
    ex_sub **at, *s;
    if (ch->create_due && (!ch->wanted || !circuits_closing(lane))) {
        ch->create_due = 0;
        lane->deferred--;
        if (ch->wanted) {
            ch->in_call++;
            ex_unlock(&lane->lock);
            create_attached(ch);
            ex_lock(&lane->lock);
            return 1;
        }
    }
    if (!ch->wanted) {
        if (ch->in_call)
            return 0;                    /* the last caller out plans us again */
        if (ch->id) {
            channel_end(lane, ch);
            ex_unlock(&lane->lock);
            ex_channel_unref(ch);        /* libca's */
            ex_lock(&lane->lock);
            return 1;
        }
        for (at = &ch->subs; (s = *at) != NULL; at = &s->next)
            if (s->users == 0) {
                sub_forget(lane, at);
                return 1;
            }
        return 0;                        /* a handle that is still open plans us again when it closes */
    }
    if (ch->of_dead && ch->state == EX_UP) {
        ex_channel_not_dead(ch);         /* it answers again, just in time */
        ch->recreate = 0;
    }
    if (ch->recreate && ch->id && !ch->in_call) {
        int later = ch->of_dead;
        if (ch->state == EX_UP) {        /* everyone is told: this is a loss of the connection, made by us */
            struct connection_handler_args down;
            down.chid = ch->id;
            down.op = CA_OP_CONN_DOWN;
            ex_unlock(&lane->lock);
            ex_on_connection(down);
            ex_lock(&lane->lock);
            return 1;                    /* a call may have begun meanwhile: look again; none begins while it is down */
        }
        ch->recreate = 0;
        channel_end(lane, ch);
        if (later) {                     /* with the others, when the circuit is gone: see ex_channel_left */
            ch->create_due = 1;
            lane->deferred++;
            ex_signal(&lane->plan);
        } else
            ch->in_call++;
        ex_unlock(&lane->lock);
        ex_channel_unref(ch);
        if (!later)
            create_attached(ch);
        ex_lock(&lane->lock);
        return !later;
    }
    for (at = &ch->subs; (s = *at) != NULL; at = &s->next) {
        if (s->users == 0) {
            if (s->live) {
                if (ch->tainted) {
                    ch->recreate = 1;    /* a clear would send no EVENT_CANCEL */
                    return !ch->in_call;
                }
                sub_end(lane, s);
                return 1;
            }
            sub_forget(lane, at);
            return 1;
        }
        if (ch->state != EX_UP)
            continue;
        if (s->live && s->live_type != wanted_type(s)) {
            sub_end(lane, s);            /* the record came back as another type: libca does not re-type */
            return 1;
        }
        if (!s->live && wanted_type(s) >= 0 && ch->id) {
            int large = ex_sub_tell_large(s, wanted_type(s));
            if (large < 0)
                return 1;
            if (large)
                continue;
            sub_begin(lane, ch, s, wanted_type(s));
            if (s->live)
                return 1;                /* refused: on with the next; the reason is in the log */
        }
    }
    return 0;
}

/* The next planned channel whose host is not stuck in another worker. Lane lock held. Its plan's reference is ours. */
static ex_channel *next_plan(ex_lane *lane, int me)
{
    ex_channel *ch, *before = NULL;
    int64_t now = ex_now();
    int i;
    for (ch = lane->plan_head; ch; before = ch, ch = ch->plan_next) {
        int stuck = 0;
        for (i = 0; i < WORKERS; i++) {
            struct ex_worker *w = &lane->workers[i];
            if (i != me && w->channel && w->channel->host[0] && now - w->since > STUCK_NS &&
                w->channel->host == ch->host)
                stuck = 1;
        }
        if (!stuck)
            break;
    }
    if (!ch)
        return NULL;
    if (before)
        before->plan_next = ch->plan_next;
    else
        lane->plan_head = ch->plan_next;
    if (lane->plan_tail == ch)
        lane->plan_tail = before;
    ch->planned = 0;
    return ch;
}

/* One plan. Lane lock held on entry and exit. */
static void work(ex_lane *lane, int me, ex_channel *ch)
{
    ch->working = 1;
    lane->workers[me].channel = ch;
    if (lane->plan_head && !lane->watching)
        ex_broadcast(&lane->spare);      /* there are more: a spare keeps an eye on how long this one takes */
    do {
        ch->dirty = 0;
        lane->workers[me].since = ex_now();
        while (!ex_load(&lane->stopping) && channel_step(lane, ch))
            lane->workers[me].since = ex_now();
    } while (ch->dirty && !ex_load(&lane->stopping));
    ch->working = 0;
    lane->workers[me].channel = NULL;
    ex_unlock(&lane->lock);
    ex_channel_unref(ch);
    ex_lock(&lane->lock);
}

typedef struct worker_args { ex_lane *lane; int me; } worker_args;

static void spare_main(void *p)
{
    worker_args a = *(worker_args *)p;
    ex_lane *lane = a.lane;
    free(p);
    ex_lock(&lane->lock);
    while (!ex_load(&lane->stopping)) {
        int64_t due = 0;                 /* when every worker before me will have been inside one call for too long */
        ex_channel *ch = NULL;
        int i;
        for (i = 0; i < a.me && lane->workers[i].channel; i++)
            if (lane->workers[i].since + STUCK_NS > due)
                due = lane->workers[i].since + STUCK_NS;
        if (i < a.me || !lane->plan_head) {
            ex_wait(&lane->spare, &lane->lock, EX_FOREVER);
        } else if (ex_now() < due || (ch = next_plan(lane, a.me)) == NULL) {
            int64_t now = ex_now();
            lane->watching++;
            ex_wait(&lane->spare, &lane->lock, now < due ? due + 1000000 : now + STUCK_NS);
            lane->watching--;
        } else {
            struct ca_client_context *before;
            (void)ex_add(&lane->gate, 1);    /* under the lock, so before ex_keeper_stop can look */
            ex_unlock(&lane->lock);
            before = attach(lane);       /* a plan may create a channel, and ends with a flush */
            ex_lock(&lane->lock);
            work(lane, a.me, ch);
            ex_unlock(&lane->lock);
            ca_flush_io();
            restore(lane, before);
            (void)ex_add(&lane->gate, -1);
            ex_lock(&lane->lock);
        }
    }
    ex_unlock(&lane->lock);
}

/* Thread: recv, or whichever loses the circuit. GIL: none. */
static void on_barrier(struct event_handler_args args)
{
    ex_lane *lane = (ex_lane *)args.usr;
    if (ex_add(&lane->barrier, -1) == 0)
        ex_broadcast(&lane->settled);
}

/* Whether libca has it connected: also one that was closed, and whose plan was not carried out any more. */
static int is_up(const ex_channel *ch)
{
    return ch->id && ca_state(ch->id) == cs_conn;
}

/* Whether a channel before this one is on the same circuit; with `reading`, one that may be read. Lane lock held. */
static int circuit_seen(const ex_lane *lane, const ex_channel *ch, int reading)
{
    const ex_channel *other;
    for (other = lane->channels; other != ch; other = other->next)
        if (other->host == ch->host && other->priority == ch->priority && is_up(other) && (other->reading || !reading))
            return 1;
    return 0;
}

/* A server takes the requests of one circuit in order. So one small read per circuit, answered, says that every put
 * before it has arrived. A circuit whose last channel has been cleared is sent empty by libca and then closed by the
 * server: it has done so when libca no longer counts it. Nobody waits longer than ex_keeper_stop does. */
static void drain_circuits(ex_lane *lane)
{
    ex_channel *ch;
    unsigned used = 0;
    int64_t until = ex_now() + 1000000000;
    ex_lock(&lane->lock);
    for (ch = lane->channels; ch; ch = ch->next) {
        if (!is_up(ch))
            continue;
        used += !circuit_seen(lane, ch, 0);
        if (!ch->reading || circuit_seen(lane, ch, 1))
            continue;
        (void)ex_add(&lane->barrier, 1);
        ex_channel_ref(ch);
        ex_unlock(&lane->lock);
        if (ca_array_get_callback((chtype)ch->type, 1, ch->id, on_barrier, lane) != ECA_NORMAL)
            (void)ex_add(&lane->barrier, -1);
        ex_lock(&lane->lock);            /* the reference is kept: the process is about to end */
    }
    ex_unlock(&lane->lock);
    ca_flush_io();
    ex_lock(&lane->lock);
    while (ex_load(&lane->barrier) > 0)
        ex_wait(&lane->settled, &lane->lock, ex_now() + 5000000);
    while (ca_get_ioc_connection_count() > used && ex_now() < until)
        ex_wait(&lane->settled, &lane->lock, ex_now() + 1000000);
    ex_unlock(&lane->lock);
}

static void keeper_main(void *p)
{
    ex_lane *lane = (ex_lane *)p;
    int status, i;
    int destroy;
    int64_t until, clock_due = 0;
    /* A fresh native thread has no context, so this one is really ours. */
    status = ca_context_create(ca_enable_preemptive_callback);
    if (status == ECA_NORMAL) {
        lane->context = ca_current_context();
        ca_add_exception_event(ex_on_exception, lane);
        ca_replace_printf_handler(on_printf);
    }
    ex_lock(&lane->lock);
    lane->keeper_status = status;
    lane->keeper_state = status == ECA_NORMAL ? 2 : -1;
    ex_broadcast(&lane->settled);
    ex_unlock(&lane->lock);
    if (status != ECA_NORMAL)
        return;
    for (i = 1; i < WORKERS; i++) {
        worker_args *a = (worker_args *)malloc(sizeof *a);
        ex_thread t;
        if (!a)
            break;
        a->lane = lane;
        a->me = i;
        if (ex_thread_start(&t, spare_main, a))
            free(a);
    }
    ex_lock(&lane->lock);
    while (!ex_load(&lane->stopping)) {
        ex_channel *ch;
        if (lane->flush_due) {           /* before any plan, which may block */
            if (!lane->plan_head && ex_now() < lane->flushed + FLUSH_GAP) {
                ex_wait(&lane->plan, &lane->lock, lane->flushed + FLUSH_GAP);
                continue;
            }
            lane->flush_due = 0;
            lane->flushed = ex_now();
            ex_unlock(&lane->lock);
            ca_flush_io();
            ex_lock(&lane->lock);
            continue;
        }
        ch = next_plan(lane, 0);
        if (ch) {
            do
                work(lane, 0, ch);
            while (!lane->flush_due && !ex_load(&lane->stopping) && (ch = next_plan(lane, 0)) != NULL);
            ex_unlock(&lane->lock);
            ca_flush_io();               /* one for all plans of the moment */
            ex_lock(&lane->lock);
            continue;
        }
        if (lane->deferred) {
            if (still_closing(lane))
                ex_wait(&lane->plan, &lane->lock, ex_now() + CLOSING_LOOK);
            else
                plan_deferred(lane);
            continue;
        }
        if (lane->dead_due && ex_now() >= lane->dead_due) {
            ex_lane_leave_dead(lane);
            continue;
        }
        if (ex_now() >= clock_due) {
            ex_unlock(&lane->lock);
            ex_lane_look_at_clock(lane);
            ex_lock(&lane->lock);
            clock_due = ex_now() + CLOCK_LOOK;
            continue;
        }
        until = lane->plan_head ? ex_now() + STUCK_NS : clock_due;
        if (lane->dead_due && lane->dead_due < until)
            until = lane->dead_due;
        ex_wait(&lane->plan, &lane->lock, until);
    }
    while (!ex_load(&lane->closing))     /* ex_keeper_stop is still waiting for whoever is inside a call */
        ex_wait(&lane->plan, &lane->lock, EX_FOREVER);
    destroy = !lane->abandon_destroy;
    ex_unlock(&lane->lock);
    if (lane->generation > 0)
        drain_circuits(lane);            /* a forked child: ca_context_destroy would wait for the parent's errlog thread */
    else {
        ca_flush_io();
        if (destroy)
            ca_context_destroy();        /* no channel is cleared one by one; puts go out if the server takes them */
    }
    ex_lock(&lane->lock);
    lane->keeper_state = 3;
    ex_broadcast(&lane->settled);
    ex_unlock(&lane->lock);
}

int ex_keeper_start(ex_lane *lane, const ex_start *how)
{
    ex_thread t;
    int state, status;
    ex_libca.field_type = ca_field_type;
    ex_libca.element_count = ca_element_count;
    ex_libca.read_access = ca_read_access;
    ex_libca.write_access = ca_write_access;
    ex_libca.host_name = ca_get_host_name;
    ex_libca.puser = ca_puser;
    log_lane = lane;
    ex_fork_exit_install();
    if (how->errlog && !errlog_redirected) {
        /* libca also talks through libCom's error log, to stderr. The private copy is ours alone to redirect. Once: a
         * forked child inherits it redirected, but without the thread that serves it, and would wait for that. */
        errlog_redirected = 1;
        errlogAddListener(on_errlog, NULL);
        eltc(0);
    }
    lane->keeper_state = 1;
    if (ex_thread_start(&t, keeper_main, lane)) {
        lane->keeper_state = -1;
        return ECA_ALLOCMEM;
    }
    ex_lock(&lane->lock);
    while (lane->keeper_state == 1 && ex_wait(&lane->settled, &lane->lock, how->deadline))
        ;
    state = lane->keeper_state;
    status = lane->keeper_status;
    ex_unlock(&lane->lock);
    return state == 2 ? ECA_NORMAL : state == 1 ? ECA_TIMEOUT : status;
}

void ex_keeper_close(ex_lane *lane)
{
    ex_lock(&lane->lock);
    ex_store(&lane->stopping, 1);
    ex_fence();
    ex_unlock(&lane->lock);
}

int ex_keeper_stop(ex_lane *lane, int64_t deadline)
{
    int done;
    /* Whoever is inside a call has until a third of the time is over; a context in use is not destroyed. */
    int64_t patience = ex_now() + (deadline - ex_now()) / 3;
    ex_keeper_close(lane);
    ex_lock(&lane->lock);
    while (ex_load(&lane->gate) > 0 && ex_now() < patience) {
        int64_t slice = ex_now() + 1000000;
        ex_wait(&lane->settled, &lane->lock, slice < patience ? slice : patience);
    }
    lane->abandon_destroy = ex_load(&lane->gate) > 0;
    ex_unlock(&lane->lock);
    ex_store(&lane->closing, 1);         /* from here on the handlers return at once */
    ex_lock(&lane->lock);
    ex_broadcast(&lane->plan);
    ex_broadcast(&lane->spare);
    while (lane->keeper_state != 3 && ex_wait(&lane->settled, &lane->lock, deadline))
        ;
    done = lane->keeper_state == 3 && !lane->abandon_destroy;
    ex_unlock(&lane->lock);
    if (log_lane == lane)
        log_lane = NULL;
    return done;
}

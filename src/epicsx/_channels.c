/* Channels, as libca's threads tell of them: connection, access, errors; and those who wait for that.
 *
 * Threads
 *   ex_on_connection, ex_on_access and ex_on_exception run in libca's threads, without the GIL; the rest in Python's
 *   threads and in the keeper. Rules as in _events.c.
 *
 * Lifetime
 *   libca's reference to a channel begins before ca_create_channel and ends after ca_clear_channel has returned. A
 *   waiter lives on the stack of whoever waits; it is out of every list before that returns. */
#include "epicsx_queue.h"
#include "epicsx_sinks.h"

#include <stdio.h>
#include <string.h>

static EX_THREAD_LOCAL int circuit_unresponsive;    /* this libca thread has just said ECA_UNRESPTMO */

/* ------------------------------------------------------------------ waiting */

void ex_wait_begin(ex_lane *lane, ex_waiter *w)
{
    (void)lane;
    ex_cond_init(&w->cond);
    w->left = 0;
    w->done = NULL;
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

/* One thing less to wait for. Lane lock held. */
static void one_less(ex_waiter *w, ex_request **over)
{
    if (--w->left)
        return;
    if (w->done) {                       /* its lock is outer to ours: it is ended afterwards */
        w->done->over_next = *over;
        *over = w->done;
        w->done = NULL;
    } else
        ex_signal(&w->cond);
}

void ex_wait_over(ex_wait_node **list, ex_request **over)
{
    while (*list) {
        ex_waiter *w = (*list)->waiter;
        wait_leave(*list);
        one_less(w, over);
    }
}

void ex_requests_over(ex_request *over)
{
    while (over) {
        ex_request *next = over->over_next;
        ex_request_end(over, EX_BY_REPLY, ECA_NORMAL);
        ex_request_unref(over);
        over = next;
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

/* What a request waits for instead of an answer. The nodes leave their lists before any of it is freed. */
struct ex_gathering {
    ex_waiter waiter;
    size_t n;
    ex_channel **channels;       /* references */
    ex_wait_node nodes[1];
};

int ex_request_gather(ex_request *r, ex_channel **channels, size_t n)
{
    ex_lane *lane = r->link.channel->lane;
    ex_request *over = NULL;
    size_t i;
    struct ex_gathering *g = (struct ex_gathering *)calloc(1, sizeof *g + n * sizeof(ex_wait_node));
    ex_channel **mine = (ex_channel **)malloc((n ? n : 1) * sizeof *mine);
    if (!g || !mine) {
        free(g);
        free(mine);
        return 0;
    }
    g->channels = mine;
    g->n = n;
    for (i = 0; i < n; i++) {
        mine[i] = channels[i];
        ex_channel_ref(mine[i]);
    }
    ex_wait_begin(lane, &g->waiter);
    g->waiter.left = 1;                  /* ours: it is not over before all have joined */
    ex_request_ref(r);
    g->waiter.done = r;
    r->gathering = g;
    for (i = 0; i < n; i++)
        ex_wait_connected(mine[i], &g->waiter, &g->nodes[i]);
    ex_lock(&lane->lock);
    one_less(&g->waiter, &over);
    ex_unlock(&lane->lock);
    ex_requests_over(over);
    return 1;
}

void ex_request_ungather(ex_request *r)
{
    ex_lane *lane = r->link.channel->lane;
    struct ex_gathering *g = r->gathering;
    ex_request *done;
    size_t i;
    if (!g)
        return;
    r->gathering = NULL;
    ex_lock(&lane->lock);                /* who ends a wait holds it, and knows `g` no longer than that */
    done = g->waiter.done;
    g->waiter.done = NULL;
    ex_unlock(&lane->lock);
    ex_wait_end(lane, &g->waiter, g->nodes, g->n);
    for (i = 0; i < g->n; i++)
        ex_channel_unref(g->channels[i]);
    free(g->channels);
    free(g);
    if (done)
        ex_request_unref(done);
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
    ex_tally last;
    if (ex_add(&ch->refs, -1) > 0)
        return;
    ex_lock(&lane->census);
    ex_tally_of_channel(ch, &last);
    ex_tally_add(&lane->past, &last);
    ex_lock(&lane->lock);
    if (ch->prev)
        ch->prev->next = ch->next;
    else
        lane->channels = ch->next;
    if (ch->next)
        ch->next->prev = ch->prev;
    ex_unlock(&lane->lock);
    ex_unlock(&lane->census);
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
    if (lane->workers[0].channel && !lane->watching)
        ex_broadcast(&lane->spare);      /* only one of them is the next in turn, and knows it */
}

void ex_channel_drop(ex_channel *ch)
{
    ex_request *over = NULL;
    ex_lock(&ch->lane->lock);
    ch->wanted = 0;
    ex_channel_left(ch, 1);
    ch->py = NULL;
    ch->news = 0;
    ch->state = EX_CLOSED;
    ex_wait_over(&ch->waiting, &over);
    {
        ex_sub *s;
        for (s = ch->subs; s; s = s->next)
            ex_wait_over(&s->waiting, &over);
    }
    ex_channel_plan(ch);
    ex_unlock(&ch->lane->lock);
    ex_requests_over(over);
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
    if (!ch->news || !ex_notes_reserve(lane, 1))
        return;
    ex_channel_ref(ch);
    note = ex_note_new(lane, kind, ch);
    note->a = a;
    note->b = b;
    ex_note_append(lane, note);
    if (kind == EX_NOTE_CONNECTION)
        ch->news_serial = note->serial;
}

void ex_channel_tell(ex_channel *ch, int connected)
{
    ex_lock(&ch->lane->lock);
    post_news(ch, EX_NOTE_CONNECTION, connected, ch->type);
    post_news(ch, EX_NOTE_ACCESS, ch->reading, ch->writing);
    ex_unlock(&ch->lane->lock);
}

/* Thread: recv (UP); send or timerQueue, without a context (DOWN); the destroying one (DOWN again). GIL: none.
 * May: read the channel's facts by the getters, set the truth, queue news and a plan. May not: call anything else. */
void ex_on_connection(struct connection_handler_args args)
{
    ex_channel *ch = (ex_channel *)ex_libca.puser(args.chid);
    ex_lane *lane;
    ex_sub *s;
    ex_request *over = NULL;
    int lost = 0;
    if (!ch || ex_load(&ch->lane->closing))
        return;
    lane = ch->lane;
    if (args.op == CA_OP_CONN_UP) {
        char host[EX_HOST_BYTES];
        int type = ex_libca.field_type(args.chid);
        unsigned long count = ex_libca.element_count(args.chid);
        int reading, writing;
        struct ex_circuit *circuit;
        ex_host_of(args.chid, host);
        ex_lock(&lane->access_lock);     /* libca does not tell the rights again after an unresponsive time */
        reading = ex_libca.read_access(args.chid) != 0;
        writing = ex_libca.write_access(args.chid) != 0;
        ex_lock(&lane->lock);            /* not over the getters: they may wait for whoever copies a large put */
        circuit = ex_circuit_named(lane, host, ch->priority);
        if (!ex_circuit_joined(ch, circuit))
            ch->tainted = 0;             /* another circuit: its server knows nothing of the old one */
        ch->reading = reading;
        ch->writing = writing;
        ex_unlock(&lane->access_lock);
        if (ch->wanted) {
            ch->type = type;
            ch->count = count;
            ch->state = EX_UP;
            ch->connects++;
            for (s = ch->subs; s; s = s->next) {
                s->fresh = 0;
                s->last_status = ECA_NORMAL;
            }
            post_news(ch, EX_NOTE_CONNECTION, 1, type);
            post_news(ch, EX_NOTE_ACCESS, ch->reading, ch->writing);
            ex_channel_link(ch, 1);
            ex_wait_over(&ch->waiting, &over);
            if (ch->subs)
                ex_channel_plan(ch);
        } else
            ex_channel_left(ch, 1);      /* dropped while it connected: its clear is planned */
        ex_unlock(&lane->lock);
        ex_requests_over(over);
    } else {
        ex_lock(&lane->lock);
        if (circuit_unresponsive && ch->state == EX_UP)
            ex_circuit_silent(ch);
        else
            ex_channel_left(ch, 0);
        if (ch->state == EX_UP) {
            ch->state = EX_DOWN;
            ch->disconnects++;
            if (ch->reading || ch->writing)
                lost = 1;
            ch->reading = ch->writing = 0;
            ch->tainted = circuit_unresponsive;   /* then the server goes on streaming; a clear would not tell it */
            ch->unresponsive += circuit_unresponsive != 0;
            for (s = ch->subs; s; s = s->next) {
                s->fresh = 0;
                if (s->sink)
                    s->sink->lost(s->sink);
            }
            post_news(ch, EX_NOTE_CONNECTION, 0, ch->type);
            ex_channel_link(ch, 0);
            if (lost)
                post_news(ch, EX_NOTE_ACCESS, 0, 0);
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
    /* While it is not connected there are none: an unresponsive circuit's channel keeps its old rights in libca, and
     * those that come before the connection are told with it. */
    if (ch->wanted && ch->state == EX_UP && (ch->reading != reading || ch->writing != writing)) {
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
    if (args.ctx && (args.stat == ECA_DISCONN || circuit_unresponsive)) {
        ex_lock(&lane->lock);
        ex_circuits_learn(lane, args.ctx);
        if (args.stat == ECA_DISCONN)
            ex_circuit_ended(lane, args.ctx);
        ex_unlock(&lane->lock);
    }
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

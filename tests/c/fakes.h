/* What the handlers see of libca, made by hand: channels behind a chid, events, and a keeper without libca.
 *
 * The fake libca keeps one promise that the core stands on: callbacks run under one lock, and after a clear nothing is
 * said any more about what was cleared. So `server.lock` is libca's callback lock, and `server.subs` what it knows. */
#ifndef EPICSX_TESTS_FAKES_H
#define EPICSX_TESTS_FAKES_H

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "caerr.h"
#include "check.h"
#include "epicsx_queue.h"

#define FAKE_SUBS 64

typedef struct fake {                    /* what a chid points at */
    ex_channel *ch;
    short type;
    unsigned long count;
    atomic_uint reading, writing;
    char host[EX_HOST_BYTES];
} fake;

static struct {
    pthread_mutex_t lock;
    ex_sub *subs[FAKE_SUBS];
    int begun, ended, cleared;
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

static fake *fake_of(chid id) { return (fake *)(void *)id; }
static chid chid_of(fake *f) { return (chid)(void *)f; }
static short fake_type(chid id) { return fake_of(id)->type; }
static unsigned long fake_count(chid id) { return fake_of(id)->count; }
static unsigned fake_reading(chid id) { return atomic_load(&fake_of(id)->reading); }
static unsigned fake_writing(chid id) { return atomic_load(&fake_of(id)->writing); }
static void *fake_puser(chid id) { return fake_of(id)->ch; }
static void (*fake_asked)(fake *f);      /* what happens while libca is asked for a host, once; of one thread */
static atomic_int fake_questions;        /* for hosts */

static unsigned fake_host(chid id, char *text, unsigned size)
{
    void (*happens)(fake *) = fake_asked;
    fake_questions++;
    if (happens) {
        fake_asked = NULL;
        happens(fake_of(id));
    }
    snprintf(text, size, "%s", fake_of(id)->host);
    return (unsigned)strlen(text);
}

__attribute__((unused))
static void fakes_install(void)
{
    ex_libca.field_type = fake_type;
    ex_libca.element_count = fake_count;
    ex_libca.read_access = fake_reading;
    ex_libca.write_access = fake_writing;
    ex_libca.host_name = fake_host;
    ex_libca.puser = fake_puser;
}

/* What ex_ca_create does, with the fake as libca's side of the channel. */
__attribute__((unused))
static ex_channel *fake_channel(ex_lane *lane, fake *f, const char *name, short type, unsigned long count)
{
    ex_channel *ch = ex_channel_new(lane, name, 0);
    memset(f, 0, sizeof *f);
    f->ch = ch;
    f->type = type;
    f->count = count;
    atomic_store(&f->reading, 1);
    atomic_store(&f->writing, 1);
    strcpy(f->host, "ioc:5064");
    ex_channel_ref(ch);
    ex_lent_add(1);
    ch->lent = 1;
    ch->id = chid_of(f);
    return ch;
}

__attribute__((unused))
static void fake_connection(fake *f, long op)
{
    struct connection_handler_args args;
    memset(&args, 0, sizeof args);
    args.chid = chid_of(f);
    args.op = op;
    ex_on_connection(args);
}
#define fake_up(f) fake_connection((f), CA_OP_CONN_UP)
#define fake_down(f) fake_connection((f), CA_OP_CONN_DOWN)

__attribute__((unused))
static void fake_access(fake *f, unsigned reading, unsigned writing)
{
    struct access_rights_handler_args args;
    memset(&args, 0, sizeof args);
    atomic_store(&f->reading, reading);
    atomic_store(&f->writing, writing);
    args.chid = chid_of(f);
    ex_on_access(args);
}

/* An event or a reply whose values are `first`, `first` + 1, ... as doubles (or zeroed bytes of another type). */
__attribute__((unused))
static struct event_handler_args fake_args(void *usr, int type, long count, double first)
{
    struct event_handler_args args;
    size_t head = ex_header_bytes(type), element = ex_element_bytes(type);
    char *dbr = (char *)calloc(1, head + element * (size_t)(count > 0 ? count : 0) + 64);
    long i;
    memset(&args, 0, sizeof args);
    if (element == sizeof(double))
        for (i = 0; i < count; i++) {
            double value = first + (double)i;
            memcpy(dbr + head + element * (size_t)i, &value, sizeof value);
        }
    if (head)
        dbr[0] = 42;                     /* part of the alarm status: says that the header was copied */
    args.usr = usr;
    args.type = type;
    args.count = count;
    args.dbr = dbr;
    args.status = ECA_NORMAL;
    return args;
}

__attribute__((unused))
static void fake_event(ex_sub *sub, long count, double first)
{
    struct event_handler_args args = fake_args(sub, sub->live_type, count, first);
    ex_on_event(args);
    free((void *)args.dbr);
}

/* `usr`: a lent request (its link) or slot. */
__attribute__((unused))
static void fake_reply(void *usr, int type, long count, double first, int status)
{
    struct event_handler_args args = fake_args(usr, type, count, first);
    const void *dbr = args.dbr;
    args.status = status;
    if (status != ECA_NORMAL) {          /* libca then has no data, and says type -1 for a put */
        args.dbr = NULL;
        args.count = 0;
    }
    ex_on_reply(args);
    free((void *)dbr);
}

static inline void counts_of_channel(ex_channel *ch, ex_counts *out)
{
    ex_tally t;
    ex_tally_of_channel(ch, &t);
    *out = t.counts;
}

__attribute__((unused))
static double block_value(const ex_block *b, size_t i) { return ((const double *)b->values)[i]; }

/* ------------------------------------------------------------------- keeper */

static void server_knows(ex_sub *s, int known)
{
    int i;
    pthread_mutex_lock(&server.lock);
    for (i = 0; i < FAKE_SUBS; i++)
        if (server.subs[i] == (known ? NULL : s)) {
            server.subs[i] = known ? s : NULL;
            break;
        }
    pthread_mutex_unlock(&server.lock);
}

/* The steps of _libca.c, without libca. Lane lock held on entry and exit. */
static int fake_step(ex_lane *lane, ex_channel *ch)
{
    ex_sub **at, *s;
    if (!ch->wanted && ch->in_call)
        return 0;
    if (!ch->wanted && ch->id) {
        ch->id = NULL;
        for (s = ch->subs; s; s = s->next)
            if (s->live) {
                ex_unlock(&lane->lock);
                server_knows(s, 0);
                ex_lock(&lane->lock);
                s->live = 0;
                s->live_type = -1;
                s->fresh = 0;
                server.ended++;
                ex_lent_add(-1);
            }
        ex_unlock(&lane->lock);
        pthread_mutex_lock(&server.lock);      /* whoever is inside a handler comes out; nobody enters for this channel */
        server.cleared++;
        pthread_mutex_unlock(&server.lock);
        ex_channel_recall(ch);
        ch->lent = 0;
        ex_lent_add(-1);
        ex_channel_unref(ch);
        ex_lock(&lane->lock);
        return 1;
    }
    for (at = &ch->subs; (s = *at) != NULL; at = &s->next) {
        int type = s->type == EX_TIME_OF_NATIVE ? ex_time_of(ch->type) : s->type == EX_CTRL_OF_NATIVE ? ex_ctrl_of(ch->type) : s->type;
        if (s->live && (s->users == 0 || (ch->state == EX_UP && s->live_type != type))) {
            s->fresh = 0;
            ex_unlock(&lane->lock);
            server_knows(s, 0);
            ex_lock(&lane->lock);
            s->live = 0;
            s->live_type = -1;
            server.ended++;
            ex_lent_add(-1);
            return 1;
        }
        if (s->users == 0) {
            *at = s->next;
            ex_unlock(&lane->lock);
            ex_sub_unref(s);
            ex_lock(&lane->lock);
            return 1;
        }
        if (!s->live && ch->state == EX_UP && type >= 0) {
            s->live = 1;
            s->live_type = type;
            s->last_status = ECA_NORMAL;
            s->fresh = 0;
            server.begun++;
            ex_lent_add(1);
            ex_unlock(&lane->lock);
            server_knows(s, 1);
            ex_lock(&lane->lock);
            return 1;
        }
    }
    return 0;
}

/* Every plan there is; how many channels had one. Lane lock held on entry and exit. */
static int fake_work(ex_lane *lane)
{
    int n = 0;
    ex_channel *ch;
    while ((ch = lane->plan_head) != NULL) {
        lane->plan_head = ch->plan_next;
        if (!lane->plan_head)
            lane->plan_tail = NULL;
        ch->planned = 0;
        ch->working = 1;
        do {
            ch->dirty = 0;
            while (fake_step(lane, ch))
                ;
        } while (ch->dirty);
        ch->working = 0;
        ex_unlock(&lane->lock);
        ex_channel_unref(ch);
        ex_lock(&lane->lock);
        n++;
    }
    return n;
}

__attribute__((unused))
static int keeper(ex_lane *lane)
{
    int n;
    ex_lock(&lane->lock);
    n = fake_work(lane);
    ex_unlock(&lane->lock);
    return n;
}

/* -------------------------------------------------------------- consistency */

static int handle_consistent(ex_handle *h)
{
    size_t n = 0, bytes = 0;
    ex_note *note, *before = NULL;
    for (note = h->oldest; note; before = note, note = note->hnext) {
        if (note->hprev != before || note->subject != h || (note->kind != EX_NOTE_VALUE && !h->inbox))
            return 0;
        if (before && before->serial >= note->serial)
            return 0;
        if (note->kind != EX_NOTE_VALUE)         /* news, which only a loop finds there */
            continue;
        n++;
        bytes += note->block->capacity;
    }
    return h->newest == before && n == h->waiting && bytes == h->bytes &&
           h->received == h->delivered + h->merged + h->dropped + h->waiting;
}

/* Every member of a circuit is there, once; users and circuits in use are those that are counted. Lane lock held. */
static int circuits_consistent(const ex_lane *lane)
{
    const struct ex_circuit *c;
    const ex_channel *ch;
    unsigned used = 0, members = 0, linked = 0;
    int ok = 1;
    for (c = lane->circuits; c; c = c->next) {
        unsigned users = 0;
        for (ch = c->members; ch; ch = ch->fellow) {
            ok = ok && ch->circuit == c && *ch->at == ch && (ch->silent || ch->host == c->host);
            users += !ch->silent;
            members++;
        }
        ok = ok && c->users == users && (c->host || (!c->members && !c->silent_since));
        used += users > 0;
    }
    for (ch = lane->channels; ch; ch = ch->next)
        linked += ch->circuit != NULL;
    return ok && lane->circuits_used == used && members == linked;
}

/* The lists are whole in both directions, and every count is what one finds by counting. */
__attribute__((unused))
static int lane_consistent(ex_lane *lane)
{
    size_t queued = 0, events = 0, bytes = 0, logs = 0, waiting = 0;
    ex_note *note, *before = NULL;
    ex_channel *ch;
    ex_sub *s;
    ex_handle *h;
    int ok = 1;
    ex_lock(&lane->lock);
    for (note = lane->head; note; before = note, note = note->next) {
        ok = ok && note->prev == before && (!before || before->serial < note->serial);
        queued++;
        logs += note->kind == EX_NOTE_LOG;
        if (note->kind == EX_NOTE_VALUE) {
            events++;
            bytes += note->block->capacity;
        }
    }
    ok = ok && lane->tail == before && queued == lane->queued && logs == lane->logs;
    for (ch = lane->channels; ch; ch = ch->next)
        for (s = ch->subs; s; s = s->next)
            for (h = s->handles; h; h = h->next) {
                ok = ok && handle_consistent(h);
                waiting += h->waiting;
                if (h->inbox) {                  /* not in the lane's queue */
                    events += h->waiting;
                    bytes += h->bytes;
                }
            }
    ok = ok && waiting == events && events == lane->events && bytes == lane->bytes && circuits_consistent(lane);
    ex_unlock(&lane->lock);
    return ok;
}

__attribute__((unused))
static int counts_add_up(ex_handle *h)
{
    ex_counts c;
    ex_handle_counts(h, &c);
    return c.received == c.delivered + c.merged + c.dropped + c.pending;
}

/* ------------------------------------------------------------------- shorter */

__attribute__((unused))
static ex_handle *open_handle(ex_channel *ch, int type, int queueing, size_t max_events, int latest, void *py)
{
    ex_sub *s = ex_sub_get(ch, type, 0, 5, 0);
    ex_handle *h = ex_handle_new(s, queueing, max_events, latest, 1, py, NULL);
    keeper(ch->lane);
    return h;
}

__attribute__((unused))
static void close_handle(ex_handle *h)
{
    ex_lane *lane = h->sub->channel->lane;
    ex_handle_close(h);
    ex_handle_unref(h);
    keeper(lane);
}

/* The next note's kind, given back at once. */
__attribute__((unused))
static int skip_note(ex_lane *lane)
{
    ex_taken t;
    int kind = ex_lane_take(lane, &t);
    ex_taken_done(&t);
    return kind;
}

/* The first value of the next note, which must be an event of `h`; -1 otherwise. */
__attribute__((unused))
static double take_value(ex_lane *lane, ex_handle *h)
{
    ex_taken t;
    double value = -1;
    if (ex_lane_take(lane, &t) == EX_NOTE_VALUE && t.subject == h)
        value = block_value(t.block, 0);
    ex_taken_done(&t);
    return value;
}

__attribute__((unused))
static void end_channel(ex_channel *ch)
{
    ex_lane *lane = ch->lane;
    ex_channel_drop(ch);
    ex_channel_unref(ch);
    keeper(lane);
}

/* The lane is let go by everyone: nothing is lent and no block is alive. */
__attribute__((unused))
static void end_lane(ex_lane *lane)
{
    while (skip_note(lane))
        ;
    keeper(lane);
    CHECK(lane_consistent(lane));
    CHECK(lane->channels == NULL);
    CHECK(lane->first_due == NULL && lane->last_due == NULL);
    CHECK_EQ(ex_load(&lane->refs), 1);
    CHECK_EQ(ex_lent(), 0);
    CHECK_EQ(ex_blocks(), 0);
    ex_lane_unref(lane);
}

#endif

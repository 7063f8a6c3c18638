/* Recorders: every update of many scalars, appended to growing columns by libca's thread; and the reducers we ship.
 *
 * Threads
 *   Rows are appended by libca's thread in ex_on_event; several lanes may fill one recorder. Its lock is a leaf, held for
 *   one row. A row that is counted never changes: readers copy rows without the lock.
 *
 * Lifetime
 *   Each channel has a small sink of its own, which holds a reference to the recorder. Chunks of rows are freed by whoever
 *   took them, or with the recorder. */
#include "epicsx_sinks.h"
#include "epicsx_dbr.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define EPOCH_1990 631152000ll
#define LARGEST ((size_t)1 << 20)        /* rows of a chunk */

struct ex_recorder {
    ex_mutex lock;
    ex_cond cond;
    ex_atomic_int refs;
    ex_rows *first, *last, *spare;
    size_t n, max_events, wanted;
    int closed, sleeping;
    ex_ledger l;
};

typedef struct rec_sink {
    ex_sink sink;
    ex_recorder *rec;
    uint32_t source;
    int told;                    /* the status of the last refusal that was logged */
} rec_sink;

static ex_rows *rows_new(size_t room)
{
    ex_rows *c = room > SIZE_MAX / 64 ? NULL : (ex_rows *)malloc(sizeof *c + (room - 1) * sizeof c->rows[0]);
    if (c) {
        c->next = NULL;
        c->n = 0;
        c->room = room;
    }
    return c;
}

/* A chunk with room for one row; the lock is let go for memory. NULL: there is none. */
static ex_rows *rec_room(ex_recorder *rec)
{
    for (;;) {
        size_t room;
        ex_rows *c = rec->last;
        if (c && c->n < c->room)
            return c;
        if (rec->spare) {
            c = rec->spare;
            rec->spare = NULL;
            if (rec->last)
                rec->last->next = c;
            else
                rec->first = c;
            rec->last = c;
            return c;
        }
        room = c ? c->room * 2 : 4096;
        if (room > LARGEST)
            room = LARGEST;
        ex_unlock(&rec->lock);
        c = rows_new(room);
        ex_lock(&rec->lock);
        if (!c)
            return NULL;
        if (rec->spare)
            free(c);                     /* another lane's thread was faster */
        else
            rec->spare = c;
    }
}

/* Thread: recv, under libca's callback lock. GIL: none. */
static void rec_event(ex_sink *sink, const ex_event *e)
{
    rec_sink *s = (rec_sink *)sink;
    ex_recorder *rec = s->rec;
    const struct dbr_time_double *h = (const struct dbr_time_double *)e->header;
    ex_rows *c;
    ex_lock(&rec->lock);
    if (rec->closed) {
        ex_unlock(&rec->lock);
        return;
    }
    rec->l.received++;
    if (rec->n >= rec->max_events || !(c = rec_room(rec)) || rec->closed) {
        rec->l.dropped++;
    } else {
        ex_row *row = &c->rows[c->n];
        row->ns = ((int64_t)h->stamp.secPastEpoch + EPOCH_1990) * 1000000000 + h->stamp.nsec;
        row->value = e->count ? *(const double *)e->values : NAN;
        row->source = s->source;
        row->status = h->status;
        row->severity = h->severity;
        c->n++;
        rec->n++;
        rec->l.delivered++;
        if (rec->sleeping && rec->n >= rec->wanted)
            ex_broadcast(&rec->cond);
    }
    ex_unlock(&rec->lock);
}

static void rec_lost(ex_sink *sink)
{
    ex_recorder *rec = ((rec_sink *)sink)->rec;
    ex_lock(&rec->lock);
    rec->l.disconnects++;
    ex_unlock(&rec->lock);
}

/* The server sends no number for it: a text that is none, or no read access. Told once, and again after a row. */
static void rec_refused(ex_sink *sink, int status)
{
    rec_sink *s = (rec_sink *)sink;
    ex_channel *ch = sink->sub->channel;
    char text[120];
    if (s->told == status)
        return;
    s->told = status;
    snprintf(text, sizeof text, "the recorder gets no value from the server (ECA status %d)", status);
    ex_log(ch->lane, 30, ch->name, text);
}

static void rec_counts(ex_sink *sink, ex_counts *out)
{
    (void)sink;                          /* a recorder's ledger is its own: it is not split among the channels */
    (void)out;
}

static void rec_destroy(ex_sink *sink)
{
    ex_recorder_unref(((rec_sink *)sink)->rec);
    free(sink);
}

ex_sink *ex_recorder_sink(ex_recorder *rec, uint32_t source)
{
    rec_sink *s = (rec_sink *)calloc(1, sizeof *s);
    if (!s)
        return NULL;
    ex_store(&s->sink.refs, 1);
    s->sink.event = rec_event;
    s->sink.lost = rec_lost;
    s->sink.counts = rec_counts;
    s->sink.refused = rec_refused;
    s->sink.destroy = rec_destroy;
    s->rec = rec;
    s->source = source;
    ex_recorder_ref(rec);
    return &s->sink;
}

ex_recorder *ex_recorder_new(size_t capacity, size_t max_events)
{
    ex_recorder *rec = (ex_recorder *)calloc(1, sizeof *rec);
    if (!rec)
        return NULL;
    ex_mutex_init(&rec->lock);
    ex_cond_init(&rec->cond);
    ex_store(&rec->refs, 1);
    rec->max_events = max_events;
    rec->spare = rows_new(capacity ? capacity : 1);
    if (!rec->spare) {
        ex_recorder_unref(rec);
        return NULL;
    }
    return rec;
}

void ex_recorder_ref(ex_recorder *rec) { (void)ex_add(&rec->refs, 1); }

void ex_recorder_unref(ex_recorder *rec)
{
    if (ex_add(&rec->refs, -1) > 0)
        return;
    while (rec->first) {
        ex_rows *c = rec->first;
        rec->first = c->next;
        free(c);
    }
    free(rec->spare);
    ex_cond_destroy(&rec->cond);
    ex_mutex_destroy(&rec->lock);
    free(rec);
}

size_t ex_recorder_size(ex_recorder *rec)
{
    size_t n;
    ex_lock(&rec->lock);
    n = rec->n;
    ex_unlock(&rec->lock);
    return n;
}

/* The caller sees to it that nobody takes the rows meanwhile: Recording does, by a lock (_stream.pyx). */
size_t ex_recorder_copy(ex_recorder *rec, size_t from, ex_row *out, size_t n)
{
    size_t at, done = 0;
    ex_rows *c;
    ex_lock(&rec->lock);
    if (n > rec->n - (from < rec->n ? from : rec->n))
        n = rec->n - (from < rec->n ? from : rec->n);
    c = rec->first;
    at = 0;
    ex_unlock(&rec->lock);
    while (done < n && c) {
        /* All of a chunk but the last is full, and what is counted does not change any more. */
        size_t have, skip = from + done - at;
        ex_lock(&rec->lock);
        have = c->n;
        ex_unlock(&rec->lock);
        if (skip < have) {
            size_t m = have - skip < n - done ? have - skip : n - done;
            memcpy(out + done, c->rows + skip, m * sizeof *out);
            done += m;
        }
        if (done < n) {
            ex_lock(&rec->lock);
            at += c->n;
            c = c->next;
            ex_unlock(&rec->lock);
        }
    }
    return done;
}

ex_rows *ex_recorder_take(ex_recorder *rec)
{
    ex_rows *all;
    ex_lock(&rec->lock);
    all = rec->first;
    rec->first = rec->last = NULL;
    rec->n = 0;
    ex_unlock(&rec->lock);
    return all;
}

int ex_recorder_wait(ex_recorder *rec, size_t n, int64_t deadline)
{
    int there;
    ex_lock(&rec->lock);
    while (!rec->closed && rec->n < n && deadline > ex_now()) {
        rec->wanted = rec->sleeping && rec->wanted < n ? rec->wanted : n;
        rec->sleeping++;
        ex_wait(&rec->cond, &rec->lock, deadline);
        rec->sleeping--;
    }
    there = rec->closed || rec->n >= n;
    ex_unlock(&rec->lock);
    return there;
}

void ex_recorder_close(ex_recorder *rec)
{
    ex_lock(&rec->lock);
    rec->closed = 1;
    ex_broadcast(&rec->cond);
    ex_unlock(&rec->lock);
}

void ex_recorder_ledger(ex_recorder *rec, ex_ledger *out)
{
    ex_lock(&rec->lock);
    *out = rec->l;
    ex_unlock(&rec->lock);
    out->bytes = out->received * sizeof(double);
    out->last_status = ECA_NORMAL;
}

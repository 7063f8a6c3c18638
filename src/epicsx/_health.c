/* The sums of all counts, and what epicsx notices of its surroundings: steps of the system's clock.
 *
 * Threads
 *   Any thread may ask, with the GIL or without. The keeper looks at the clock now and then. No libca, no Python here.
 *
 * Lifetime
 *   What a channel has counted when it is freed goes to its lane: sums never fall. `census` keeps a channel from being
 *   freed while they are added up, so that each is in the sum once; the lane's lock is let go now and then meanwhile.
 *   A forked child has the parent's counts, and may have them half-way, their lock held by a thread that is not there:
 *   of what was made before the fork it gets zeros. */
#include "epicsx_events.h"

#include "epicsx_sinks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Channels looked at under one hold of the lane's lock: some microseconds. */
#define CENSUS_PIECE 64

static void add_handle(ex_tally *t, const ex_handle *h)
{
    t->counts.received += h->received;
    t->counts.delivered += h->delivered;
    t->counts.merged += h->merged;
    t->counts.dropped += h->dropped;
    t->counts.pending += h->waiting;
    t->bytes += h->bytes;
    if (h->waiting && h->oldest && (!t->oldest || h->oldest->since < t->oldest))
        t->oldest = h->oldest->since;
}

static int before_fork(const ex_lane *lane) { return lane->generation != ex_load(&ex_generation); }

void ex_tally_of_handle(ex_handle *h, ex_tally *out)
{
    ex_lane *lane = h->sub->channel->lane;
    memset(out, 0, sizeof *out);
    if (before_fork(lane))
        return;
    ex_lock(&lane->lock);
    add_handle(out, h);
    ex_unlock(&lane->lock);
}

void ex_handle_counts(ex_handle *h, ex_counts *out)
{
    ex_tally t;
    ex_tally_of_handle(h, &t);
    *out = t.counts;
}

/* Lane lock held. */
static void tally(const ex_channel *ch, ex_tally *t)
{
    const ex_sub *s;
    const ex_handle *h;
    memset(t, 0, sizeof *t);
    t->counts = ch->past;
    t->disconnects = ch->disconnects;
    t->unresponsive = ch->unresponsive;
    t->rejected_puts = ch->rejected_puts;
    t->decode_errors = ch->decode_errors;
    t->callback_errors = ch->callback_errors;
    for (s = ch->subs; s; s = s->next) {
        for (h = s->handles; h; h = h->next)
            add_handle(t, h);
        if (s->sink && s->users)         /* one that is closed has added its counts to the past */
            s->sink->counts(s->sink, &t->counts);
    }
}

void ex_tally_of_channel(ex_channel *ch, ex_tally *out)
{
    memset(out, 0, sizeof *out);
    if (before_fork(ch->lane))
        return;
    ex_lock(&ch->lane->lock);
    tally(ch, out);
    ex_unlock(&ch->lane->lock);
}

void ex_tally_add(ex_tally *sum, const ex_tally *more)
{
    sum->counts.received += more->counts.received;
    sum->counts.delivered += more->counts.delivered;
    sum->counts.merged += more->counts.merged;
    sum->counts.dropped += more->counts.dropped;
    sum->counts.pending += more->counts.pending;
    sum->disconnects += more->disconnects;
    sum->unresponsive += more->unresponsive;
    sum->rejected_puts += more->rejected_puts;
    sum->decode_errors += more->decode_errors;
    sum->callback_errors += more->callback_errors;
    sum->bytes += more->bytes;
    if (more->oldest && (!sum->oldest || more->oldest < sum->oldest))
        sum->oldest = more->oldest;
}

void ex_channel_failed(ex_channel *ch)
{
    if (before_fork(ch->lane))
        return;
    ex_lock(&ch->lane->lock);
    ch->callback_errors++;
    ex_unlock(&ch->lane->lock);
}

const char *ex_taken_name(const ex_taken *t)
{
    switch (t->kind) {
    case EX_NOTE_VALUE:
    case EX_NOTE_LARGE:
    case EX_NOTE_LINK:
        return ((const ex_handle *)t->subject)->sub->channel->name;
    case EX_NOTE_COMPLETION:
        return ((const ex_request *)t->subject)->link.channel->name;
    case EX_NOTE_CONNECTION:
    case EX_NOTE_ACCESS:
        return ((const ex_channel *)t->subject)->name;
    default:
        return "";
    }
}

int64_t ex_lane_age(ex_lane *lane)
{
    int64_t since;
    ex_lock(&lane->lock);
    since = lane->head ? lane->head->since : 0;
    ex_unlock(&lane->lock);
    return since ? ex_now_coarse() - since : 0;
}

void ex_lane_health(ex_lane *lane, ex_health *out)
{
    ex_channel *ch;
    const ex_sub *s;
    ex_tally t;
    size_t n = 0;
    memset(out, 0, sizeof *out);
    ex_lock(&lane->census);
    out->tally = lane->past;
    ex_lock(&lane->lock);
    for (ch = lane->channels; ch; ch = ch->next) {
        tally(ch, &t);
        ex_tally_add(&out->tally, &t);
        out->channels += ch->wanted != 0;
        out->connected += ch->wanted && ch->state == EX_UP;
        out->never_connected += ch->wanted && ch->state == EX_NEVER;
        for (s = ch->subs; s; s = s->next)
            out->subscriptions += s->live != 0;
        if (++n % CENSUS_PIECE == 0) {
            ex_unlock(&lane->lock);
            ex_lock(&lane->lock);
        }
    }
    out->circuits = lane->circuits_used;
    out->notes = lane->queued;
    if (lane->head && (!out->tally.oldest || lane->head->since < out->tally.oldest))
        out->tally.oldest = lane->head->since;
    if (out->tally.oldest)
        out->age = ex_now_coarse() - out->tally.oldest;
    ex_unlock(&lane->lock);
    ex_unlock(&lane->census);
}

/* Below this it is a clock that is being slewed, or the two looks were not at the same moment. */
#define CLOCK_STEP 500000000ll

/* All of a stock libca's timers run on the system's clock (epicsTimer, searches, watchdogs): after a step back by an hour
 * they rest for an hour. epicsx cannot set that right, only say so; its own time-outs are monotonic, and so are the
 * timers of the hardened build. */
int ex_lane_look_at_clock(ex_lane *lane)
{
    int64_t before = ex_now();
    int64_t seen = ex_wall(), step = 0;
    char text[160];
    if (ex_now() - before > CLOCK_STEP / 10)
        return 0;                        /* interrupted between the two: the next look will do */
    seen -= before;
    ex_lock(&lane->lock);
    if (lane->clock_seen)
        step = seen - lane->clock_seen;
    if (llabs(step) < CLOCK_STEP)
        step = 0;
    if (step || !lane->clock_seen)
        lane->clock_seen = seen;
    if (step) {
        lane->clock_steps++;
        lane->clock_stepped += step;
    }
    ex_unlock(&lane->lock);
    if (!step)
        return 0;
    snprintf(text, sizeof text, "the system's clock was set %s by %.1f s: libca%s", step < 0 ? "back" : "forward",
             (double)llabs(step) * 1e-9,
             lane->steady_clock ? "'s timers do not follow it"
             : step < 0 ? ", whose timers follow it, may be late by as much to search and connect"
                        : ", whose timers follow it, may be early to give a server up");
    ex_log(lane, lane->steady_clock ? 20 : 30, "", text);
    return 1;
}

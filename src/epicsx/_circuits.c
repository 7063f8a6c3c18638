/* Circuits: the connections that libca has to servers, as far as its channels tell of them; and those that are left.
 *
 * Threads
 *   Everything here runs with the lane lock held, in libca's threads, in Python's and in the keeper. What lets it go for a
 *   while says so. No GIL.
 *
 * Lifetime
 *   A circuit lives as long as its lane: a server that comes back has its circuit again. */
#include "epicsx_queue.h"

#include <stdio.h>
#include <string.h>

/* Each circuit, and the name of its host, once per lane: thousands of channels share it. Lane lock held; let go for
 * memory. NULL without any. */
struct ex_circuit *ex_circuit_named(ex_lane *lane, const char *host, unsigned priority)
{
    struct ex_circuit *c, *fresh;
    for (c = lane->circuits; c; c = c->next)
        if (c->priority == priority && !strcmp(c->host, host))
            return c;
    ex_unlock(&lane->lock);
    fresh = (struct ex_circuit *)calloc(1, sizeof *fresh + strlen(host));
    ex_lock(&lane->lock);
    if (!fresh)
        return NULL;
    strcpy(fresh->host, host);
    fresh->priority = priority;
    fresh->next = lane->circuits;
    lane->circuits = fresh;
    return fresh;
}

void ex_circuit_joined(ex_channel *ch, struct ex_circuit *circuit)
{
    if (circuit)
        circuit->silent_since = 0;
    if (ch->circuit || !circuit)
        return;
    ch->circuit = circuit;
    if (circuit->users++ == 0)
        ch->lane->circuits_used++;
}

/* Why anybody counts: libca closes a circuit with its last channel, and for as long as that takes (a round trip, or
 * until a busy server looks up) it installs each channel it then finds there on the dying circuit. Those come back after
 * its disconnect governor's ten seconds (cac::transferChanToVirtCircuit, disconnectGovernorTimer). So new channels wait
 * until the circuit is gone: see ex_ca_create. */
void ex_channel_left(ex_channel *ch, int cleared)
{
    ex_lane *lane = ch->lane;
    struct ex_circuit *circuit = ch->circuit;
    if (!circuit)
        return;
    ch->circuit = NULL;
    if (--circuit->users > 0)
        return;
    lane->circuits_used--;
    if (cleared && !ch->last_of_circuit) {
        ch->last_of_circuit = 1;
        lane->emptied++;
        lane->closing_until = ex_now() + EX_CLOSING_NS;
    }
}

/* ----------------------------------------------------------- dead circuits */

/* When the keeper should look at a silent circuit. Lane lock held. */
static void look_at(ex_lane *lane, const struct ex_circuit *c)
{
    int64_t due;
    if (lane->dead_after == EX_FOREVER)
        return;
    due = c->silent_since + lane->dead_after;
    if (due < c->spared_until)
        due = c->spared_until;
    if (!lane->dead_due || due < lane->dead_due)
        lane->dead_due = due;
}

void ex_circuit_silent(ex_lane *lane, struct ex_circuit *c)
{
    if (!c || c->silent_since)
        return;
    c->silent_since = ex_now();
    look_at(lane, c);
    ex_signal(&lane->plan);
}

/* libca tells of the end of a silent circuit by ECA_DISCONN with the name of its host, and not its channels: they are
 * told already (tcpiiu::disconnectAllChannels). Of several circuits to one host nobody can tell which it was: then all is
 * left as it was. Lane lock held. */
void ex_circuit_ended(ex_lane *lane, const char *host)
{
    struct ex_circuit *c, *found = NULL;
    for (c = lane->circuits; c; c = c->next) {
        if ((!c->users && !c->silent_since) || strcmp(c->host, host))
            continue;
        if (found)
            return;
        found = c;
    }
    if (!found || !found->silent_since)
        return;
    found->silent_since = 0;
    found->ended++;
}

int ex_circuit_taints(const struct ex_circuit *c, const ex_channel *ch)
{
    return ch->tainted && c && ch->host == c->host && ch->tainted_in == c->ended;
}

/* Whether libca has it on that circuit: it was connected there, or its server never answered. Lane lock held on entry
 * and exit, let go around libca; the caller's `in_call` keeps the chid. */
static int is_there(ex_channel *ch, const struct ex_circuit *c)
{
    char host[64];
    if (ch->priority != c->priority)
        return 0;
    if (ex_circuit_taints(c, ch))
        return 1;
    host[0] = 0;
    ex_unlock(&ch->lane->lock);
    ex_libca.host_name(ch->id, host, sizeof host);
    ex_lock(&ch->lane->lock);
    host[sizeof host - 1] = 0;
    return !strcmp(host, c->host);
}

void ex_channel_not_dead(ex_channel *ch)
{
    if (!ch->of_dead)
        return;
    ch->of_dead = 0;
    ch->lane->dying--;
}

/* libca keeps a circuit that answers nothing until TCP gives up, a quarter of an hour later, and does not search for
 * its channels meanwhile (tcpiiu::unresponsiveCircuitNotify). It lets go of it with its last channel. So all of them are
 * cleared, and created anew when the circuit is gone. The same address is spared for a while: a server that
 * is only slow must not be made slower by clients that come and go. */
void ex_lane_leave_dead(ex_lane *lane)
{
    struct ex_circuit *c;
    ex_channel *ch, *held = NULL;
    int64_t now = ex_now();
    lane->dead_due = 0;
    for (c = lane->circuits; c; c = c->next) {
        unsigned before = lane->dying;
        if (!c->silent_since)
            continue;
        if (now < c->silent_since + lane->dead_after || now < c->spared_until) {
            look_at(lane, c);
            continue;
        }
        c->silent_since = 0;
        c->spared_until = now + EX_SPARED_NS;
        for (ch = lane->channels; ch; ch = ch->next) {
            int there;
            if (!ch->id || !ch->wanted || ch->state == EX_UP || ch->of_dead)
                continue;
            ex_channel_ref(ch);          /* it stays in the list, and its chid valid, while the lock is let go */
            ch->in_call++;
            there = is_there(ch, c);
            ch->in_call--;
            if (there && ch->id && ch->wanted && ch->state != EX_UP) {
                ch->recreate = ch->of_dead = 1;
                lane->dying++;
            }
            if (ch->of_dead || ch->dirty || ch->recreate || !ch->wanted)
                ex_channel_plan(ch);     /* also for what came while it was in the call */
            ex_unlock(&lane->lock);
            if (held)
                ex_channel_unref(held);
            held = ch;
            ex_lock(&lane->lock);
        }
        if (lane->dying > before) {
            char text[160];
            lane->dead_circuits++;
            lane->closing_until = ex_now() + EX_CLOSING_NS;
            snprintf(text, sizeof text, "%s has answered nothing for too long: its channels search for another server", c->host);
            ex_unlock(&lane->lock);
            ex_log(lane, 30, "", text);
            ex_lock(&lane->lock);
        }
    }
    ex_unlock(&lane->lock);
    if (held)
        ex_channel_unref(held);
    ex_lock(&lane->lock);
}

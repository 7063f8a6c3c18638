/* Circuits: the connections that libca has to servers, as far as its channels tell of them; and those that are left.
 *
 * A circuit is known by the name that libca has for its host, and that changes: it is the address until DNS has answered,
 * which each connection asks anew (hostNameCache). So a name that no circuit has may be that of one which has an address
 * so far, and one of its channels is asked what libca calls its host now.
 *
 * Threads
 *   Everything here runs with the lane lock held, in libca's threads, in Python's and in the keeper. What lets it go for a
 *   while says so. Names are learned in libca's callbacks alone, which follow each other. No GIL.
 *
 * Lifetime
 *   A circuit and a host's name live as long as the lane: a server that comes back has its circuit again. One whose name
 *   another was found to have becomes the next new one. */
#include "epicsx_queue.h"

#include <stdio.h>
#include <string.h>

#define NOWHERE "<disconnected>"         /* a channel's host in libca while it searches (netiiu::getHostName) */
#define TOLD 63                          /* libca cuts the names off that it tells with ECA_DISCONN (cac::destroyIIU) */

/* -------------------------------------------------------------------- names */

void ex_host_of(chid id, char *host)
{
    host[0] = 0;
    ex_libca.host_name(id, host, EX_HOST_BYTES);
    host[EX_HOST_BYTES - 1] = 0;
}

static int in_use(const struct ex_circuit *c)
{
    return c->host && (c->users || c->silent_since);
}

static int is_address(const char *host)
{
    return !host[strspn(host, "0123456789.:")];
}

/* Whether a host that had an address may be called so by now. */
static int may_be(const char *address, const char *host)
{
    const char *port = strrchr(address, ':'), *its = strrchr(host, ':');
    return is_address(address) && !is_address(host) && (!its || !port || !strcmp(port, its) || strlen(host) >= TOLD);
}

/* Whether a circuit has the name that libca told, which may be cut off. */
static int is_told(const struct ex_circuit *c, const char *host)
{
    size_t n = strlen(host);
    return n < TOLD ? !strcmp(c->host, host) : !strncmp(c->host, host, n);
}

/* Lane lock let go for memory; NULL without any. */
static const char *host_kept(ex_lane *lane, const char *name)
{
    struct ex_host *h;
    for (h = lane->hosts; h; h = h->next)
        if (!strcmp(h->name, name))
            return h->name;
    ex_unlock(&lane->lock);
    h = (struct ex_host *)malloc(sizeof *h + strlen(name));
    ex_lock(&lane->lock);
    if (!h)
        return NULL;
    strcpy(h->name, name);
    h->next = lane->hosts;
    lane->hosts = h;
    return h->name;
}

/* What libca calls the host of a channel, which somebody holds, and has not cleared. Lane lock let go around libca. */
static void host_now(ex_channel *ch, char *host)
{
    chid id = ch->id;
    ch->in_call++;                       /* the keeper leaves the chid alone */
    ex_unlock(&ch->lane->lock);
    ex_host_of(id, host);
    ex_lock(&ch->lane->lock);
    if (--ch->in_call == 0 && (ch->dirty || ch->recreate || !ch->wanted))
        ex_channel_plan(ch);             /* for what came meanwhile */
}

static int has(const struct ex_circuit *c, const ex_channel *ch)
{
    return ch->id && ch->wanted && (ch->circuit == c || ex_circuit_taints(c, ch));
}

/* What libca calls the host of a circuit. Lane lock let go around libca. 0: there is no channel that could be asked. */
static int circuit_host(ex_lane *lane, const struct ex_circuit *c, char *host)
{
    ex_channel *ch = c->member;
    if (!ch || !has(c, ch))
        for (ch = lane->channels; ch && !has(c, ch); ch = ch->next)
            ;
    if (!ch)
        return 0;
    ex_channel_ref(ch);
    host_now(ch, host);
    ex_unlock(&lane->lock);
    ex_channel_unref(ch);
    ex_lock(&lane->lock);
    return 1;
}

/* The host of a circuit has this name. Lane lock let go for memory. */
static void named(ex_lane *lane, struct ex_circuit *c, const char *name)
{
    struct ex_circuit *old;
    const char *host = host_kept(lane, name);
    if (!host)
        return;
    for (old = lane->circuits; old; old = old->next)
        if (old->priority == c->priority && old->host == host && !in_use(old)) {
            if (c->spared_until < old->spared_until)
                c->spared_until = old->spared_until;
            old->host = NULL;
            old->ended++;                /* no channel may take it for its own any more */
        }
    c->host = host;
}

void ex_circuits_learn(ex_lane *lane, const char *host)
{
    struct ex_circuit *c;                /* none is ever taken out of the list */
    char now[EX_HOST_BYTES];
    for (c = lane->circuits; c; c = c->next)
        if (in_use(c) && may_be(c->host, host) && circuit_host(lane, c, now) && may_be(c->host, now))
            named(lane, c, now);
}

/* One that is in use, before one that was. */
static struct ex_circuit *find(const ex_lane *lane, const char *host, unsigned priority)
{
    struct ex_circuit *c, *was = NULL;
    for (c = lane->circuits; c; c = c->next)
        if (c->host && c->priority == priority && !strcmp(c->host, host)) {
            if (in_use(c))
                return c;
            was = c;
        }
    return was;
}

struct ex_circuit *ex_circuit_named(ex_lane *lane, const char *host, unsigned priority)
{
    struct ex_circuit *c = find(lane, host, priority);
    const char *name;
    if (c && in_use(c))
        return c;
    ex_circuits_learn(lane, host);
    c = find(lane, host, priority);
    if (c)
        return c;
    name = host_kept(lane, host);
    if (!name)
        return NULL;
    for (c = lane->circuits; c && c->host; c = c->next)
        ;
    if (!c) {
        ex_unlock(&lane->lock);
        c = (struct ex_circuit *)calloc(1, sizeof *c);
        ex_lock(&lane->lock);
        if (!c)
            return NULL;
        c->next = lane->circuits;
        lane->circuits = c;
    }
    c->spared_until = 0;
    c->host = name;
    c->priority = priority;
    return c;
}

/* ------------------------------------------------------------------ members */

void ex_circuit_joined(ex_channel *ch, struct ex_circuit *circuit)
{
    if (circuit)
        circuit->silent_since = 0;
    if (ch->circuit || !circuit)
        return;
    ch->circuit = circuit;
    circuit->member = ch;
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
    if (circuit->member == ch)
        circuit->member = NULL;
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

static void ended(struct ex_circuit *c)
{
    c->silent_since = 0;
    c->ended++;
}

/* libca tells of the end of a silent circuit by ECA_DISCONN with the name of its host, and not its channels: they are
 * told already (tcpiiu::disconnectAllChannels). Of several circuits to one host nobody can tell which it was: then all is
 * left as it was, until the keeper looks at the silent ones. */
void ex_circuit_ended(ex_lane *lane, const char *host)
{
    struct ex_circuit *c, *found = NULL;
    for (c = lane->circuits; c; c = c->next) {
        if (!in_use(c) || !is_told(c, host))
            continue;
        if (found)
            return;
        found = c;
    }
    if (found && found->silent_since)
        ended(found);
}

int ex_circuit_taints(const struct ex_circuit *c, const ex_channel *ch)
{
    return ch->tainted && c && ch->silent_on == c && ch->tainted_in == c->ended;
}

/* Whether libca has it on that circuit, by the name of its host: it was connected there, or its server never answered.
 * Lane lock let go around libca. */
static int is_there(ex_channel *ch, const struct ex_circuit *c, const char *host)
{
    char its[EX_HOST_BYTES];
    if (ch->priority != c->priority)
        return 0;
    if (ex_circuit_taints(c, ch))
        return 1;
    host_now(ch, its);
    return !strcmp(its, host);
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
        int64_t since = c->silent_since;
        char host[EX_HOST_BYTES];
        if (!since)
            continue;
        if (now < since + lane->dead_after || now < c->spared_until) {
            look_at(lane, c);
            continue;
        }
        if (!circuit_host(lane, c, host))
            snprintf(host, sizeof host, "%s", c->host);
        if (c->silent_since != since)
            continue;                    /* it answered, or ended, while libca was asked */
        if (!strcmp(host, NOWHERE)) {    /* its connection has ended: see ex_circuit_ended */
            ended(c);
            continue;
        }
        c->spared_until = now + EX_SPARED_NS;
        /* If it answers, or ends, while the lock is let go, those that are left stay where they are. */
        for (ch = lane->channels; ch && c->silent_since == since; ch = ch->next) {
            int there;
            if (!ch->id || !ch->wanted || ch->state == EX_UP || ch->of_dead)
                continue;
            ex_channel_ref(ch);          /* it stays in the list while the lock is let go */
            there = is_there(ch, c, host);
            if (there && ch->id && ch->wanted && ch->state != EX_UP) {
                ch->recreate = ch->of_dead = 1;
                lane->dying++;
                ex_channel_plan(ch);
            }
            ex_unlock(&lane->lock);
            if (held)
                ex_channel_unref(held);
            held = ch;
            ex_lock(&lane->lock);
        }
        if (c->silent_since == since)    /* and has not answered meanwhile, and fallen silent anew */
            c->silent_since = 0;
        if (lane->dying > before) {
            char text[EX_HOST_BYTES + 100];
            lane->dead_circuits++;
            lane->closing_until = ex_now() + EX_CLOSING_NS;
            snprintf(text, sizeof text, "%s has answered nothing for too long: its channels search for another server", host);
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

/* Circuits: the connections that libca has to servers, as far as its channels tell of them; and those that are left.
 *
 * A circuit is known by what libca calls its host, and that changes: it is the address until DNS has answered, which each
 * connection asks anew (hostNameCache). So a new name may be that of a circuit which has an address so far, and one of its
 * channels is asked what libca calls its host now.
 *
 * Threads
 *   Everything here runs with the lane lock held, in libca's threads, in Python's and in the keeper. What lets it go for a
 *   while says so: then any circuit may have got another name, or have been used again for another server. No GIL.
 *
 * Lifetime
 *   A circuit and a host's name live as long as the lane: a server that comes back has its circuit again. One whose name
 *   another was found to have becomes the next new one. A channel is a member from its connect until libca has it
 *   elsewhere, has cleared it, or nobody wants it any more. */
#include "epicsx_queue.h"

#include <stdio.h>
#include <string.h>

#define NOWHERE "<disconnected>"         /* a channel's host in libca while it searches (netiiu::getHostName) */
#define TOLD 63                          /* libca cuts the names off that it tells with ECA_DISCONN (cac::destroyIIU) */

static int in_use(const struct ex_circuit *c)
{
    return c->host && (c->users || c->silent_since);
}

/* ------------------------------------------------------------------ members */

/* It is not a member any more. It keeps what its host was called last. */
static void leave(ex_channel *ch)
{
    struct ex_circuit *c = ch->circuit;
    *ch->at = ch->fellow;
    if (ch->fellow)
        ch->fellow->at = ch->at;
    ch->circuit = NULL;
    if (!ch->silent && --c->users == 0)
        ch->lane->circuits_used--;
    ch->silent = 0;
}

int ex_circuit_joined(ex_channel *ch, struct ex_circuit *c)
{
    int was_there = ch->circuit == c && c;
    if (ch->circuit)
        leave(ch);
    if (!c)
        return 0;
    c->silent_since = 0;
    ch->fellow = c->members;
    if (ch->fellow)
        ch->fellow->at = &ch->fellow;
    ch->at = &c->members;
    c->members = ch;
    ch->circuit = c;
    ch->host = c->host;
    if (c->users++ == 0)
        ch->lane->circuits_used++;
    ch->lane->newest_circuit = c;
    return was_there;
}

/* Why anybody counts: libca closes a circuit with its last channel, and for as long as that takes (a round trip, or
 * until a busy server looks up) it installs each channel it then finds there on the dying circuit. Those come back after
 * its disconnect governor's ten seconds (cac::transferChanToVirtCircuit, disconnectGovernorTimer). So new channels wait
 * until the circuit is gone: see ex_ca_create. */
void ex_channel_left(ex_channel *ch, int cleared)
{
    ex_lane *lane = ch->lane;
    struct ex_circuit *c = ch->circuit;
    int was_user = c && !ch->silent;
    if (!c)
        return;
    leave(ch);
    if (cleared && was_user && !c->users && !ch->last_of_circuit) {
        ch->last_of_circuit = 1;
        lane->emptied++;
        lane->closing_until = ex_now() + EX_CLOSING_NS;
    }
}

/* Those that fell silent there leave it: libca has them elsewhere. */
static void dismiss_silent(struct ex_circuit *c)
{
    ex_channel *ch, *fellow;
    for (ch = c->members; ch; ch = fellow) {
        fellow = ch->fellow;
        if (ch->silent)
            leave(ch);
    }
}

/* -------------------------------------------------------------------- names */

void ex_host_of(chid id, char *host)
{
    host[0] = 0;
    ex_libca.host_name(id, host, EX_HOST_BYTES);
    host[EX_HOST_BYTES - 1] = 0;
}

static int is_address(const char *host)
{
    return !host[strspn(host, "0123456789.:")];
}

/* Whether a host that had an address may be called so by now: the port is the same, or was cut off. */
static int may_be(const char *address, const char *host)
{
    const char *port = strrchr(address, ':'), *its = strrchr(host, ':');
    return is_address(address) && !is_address(host) && (strlen(host) >= TOLD || (port && its && !strcmp(port, its)));
}

/* Whether a circuit has the name that libca told, which may be cut off. */
static int is_told(const struct ex_circuit *c, const char *host)
{
    size_t n = strlen(host);
    return n < TOLD ? !strcmp(c->host, host) : !strncmp(c->host, host, n);
}

static const char *host_found(const ex_lane *lane, const char *name)
{
    const struct ex_host *h;
    for (h = lane->hosts; h; h = h->next)
        if (!strcmp(h->name, name))
            return h->name;
    return NULL;
}

/* Lane lock let go for memory; NULL without any. */
static const char *host_kept(ex_lane *lane, const char *name)
{
    const char *found = host_found(lane, name);
    struct ex_host *fresh;
    if (found)
        return found;
    ex_unlock(&lane->lock);
    fresh = (struct ex_host *)malloc(sizeof *fresh + strlen(name));
    if (fresh)
        strcpy(fresh->name, name);
    ex_fence();                          /* Python's threads read it without the lock */
    ex_lock(&lane->lock);
    found = host_found(lane, name);
    if (found || !fresh) {
        free(fresh);
        return found;
    }
    fresh->next = lane->hosts;
    lane->hosts = fresh;
    return fresh->name;
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

static void ended(struct ex_circuit *c)
{
    c->silent_since = 0;
    dismiss_silent(c);
}

/* What libca calls the host of a circuit. Lane lock let go around libca. 0: nobody could be asked, it is another by now, or
 * it was silent and its connection has ended, which libca may have told without saying whose end it was.
 * Who is connected joined after those that were lost, and is asked first: libca may have the others elsewhere. */
static int circuit_host(ex_lane *lane, struct ex_circuit *c, char *host)
{
    ex_channel *ch;
    int still;
    for (ch = c->members; ch && !ch->id; ch = ch->fellow)
        ;
    if (!ch)
        return 0;
    ex_channel_ref(ch);
    host_now(ch, host);
    still = ch->circuit == c;
    ex_unlock(&lane->lock);
    ex_channel_unref(ch);
    ex_lock(&lane->lock);
    if (!still || !in_use(c))
        return 0;
    if (strcmp(host, NOWHERE))
        return 1;
    if (!c->users)
        ended(c);
    return 0;
}

/* The host of a circuit has this name. Who had it before, and is not connected, has it no more. Lane lock let go. */
static void named(ex_lane *lane, struct ex_circuit *c, const char *name)
{
    const char *was = c->host;           /* while it is called so, it has not been used again for another server */
    struct ex_circuit *old;              /* none is ever taken out of the list */
    ex_channel *ch;
    const char *host = host_kept(lane, name);
    char its[EX_HOST_BYTES];
    if (!host || c->host != was || !in_use(c))
        return;
    for (old = lane->circuits; old; old = old->next) {
        if (old == c || old->host != host || old->priority != c->priority || old->users)
            continue;
        if (old->members)
            circuit_host(lane, old, its);    /* it may have ended */
        if (old->members)
            continue;                    /* two servers that have one name, or so it seems */
        if (old->host != host || old->priority != c->priority || c->host != was || !in_use(c))
            continue;                    /* not what it was, after the lock was let go */
        if (c->spared_until < old->spared_until)
            c->spared_until = old->spared_until;
        old->silent_since = 0;
        old->host = NULL;
    }
    if (c->host != was || !in_use(c))
        return;
    c->host = host;
    for (ch = c->members; ch; ch = ch->fellow)
        ch->host = host;
}

/* Ask what the host of a circuit is called now. Lane lock let go. */
static void look_up(ex_lane *lane, struct ex_circuit *c)
{
    char now[EX_HOST_BYTES];
    if (circuit_host(lane, c, now) && may_be(c->host, now))
        named(lane, c, now);
}

/* One with users, before one that is silent, before one that was. */
static struct ex_circuit *find(const ex_lane *lane, const char *host, unsigned priority)
{
    struct ex_circuit *c = lane->newest_circuit, *other = NULL;
    if (c && c->users && c->priority == priority && c->host && !strcmp(c->host, host))
        return c;                        /* most connect many at a time */
    for (c = lane->circuits; c; c = c->next)
        if (c->host && c->priority == priority && !strcmp(c->host, host)) {
            if (c->users)
                return c;
            if (!other || c->silent_since)
                other = c;
        }
    return other;
}

/* Lane lock let go for memory and around libca. */
void ex_circuits_learn(ex_lane *lane, const char *host)
{
    struct ex_circuit *c;
    if (is_address(host))
        return;
    for (c = lane->circuits; c; c = c->next)
        if (in_use(c) && may_be(c->host, host))
            look_up(lane, c);
}

/* One without a host; with none, one more is made. Lane lock let go for memory; NULL without any. */
static struct ex_circuit *spare(ex_lane *lane)
{
    struct ex_circuit *c;
    for (c = lane->circuits; c; c = c->next)
        if (!c->host)
            return c;
    ex_unlock(&lane->lock);
    c = (struct ex_circuit *)calloc(1, sizeof *c);
    ex_lock(&lane->lock);
    if (!c)
        return NULL;
    c->next = lane->circuits;
    lane->circuits = c;
    return c;
}

/* Lane lock let go for memory and around libca. */
struct ex_circuit *ex_circuit_named(ex_lane *lane, const char *host, unsigned priority)
{
    struct ex_circuit *c = find(lane, host, priority), *fresh;
    const char *name;
    if (c && c->users)
        return c;                        /* most connects */
    ex_circuits_learn(lane, host);
    c = find(lane, host, priority);
    if (c)
        return c;
    name = host_kept(lane, host);
    fresh = name ? spare(lane) : NULL;
    c = find(lane, host, priority);      /* another thread may have been faster */
    if (c || !fresh)
        return c;
    fresh->spared_until = 0;
    fresh->left = 0;
    fresh->host = name;
    fresh->priority = priority;
    return fresh;
}

/* ----------------------------------------------------------- dead circuits */

/* When the keeper should look at a silent circuit. */
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

void ex_circuit_silent(ex_channel *ch)
{
    struct ex_circuit *c = ch->circuit;
    ex_lane *lane = ch->lane;
    if (!c || ch->silent)
        return;
    if (!c->silent_since) {
        dismiss_silent(c);               /* of another silence, whose end nobody told */
        c->silent_since = ex_now();
        look_at(lane, c);
        ex_signal(&lane->plan);
    }
    ch->silent = 1;
    if (--c->users == 0)
        lane->circuits_used--;
}

/* libca tells of the end of a silent circuit by ECA_DISCONN with the name of its host, and not its channels: they are
 * told already (tcpiiu::disconnectAllChannels). Of several circuits to one host nobody can tell which it was: then all is
 * left as it was, until a silent one's channels are asked for its name, by the keeper at the latest if it is to look. */
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

void ex_channel_not_dead(ex_channel *ch)
{
    if (!ch->of_dead)
        return;
    ch->of_dead = 0;
    ch->lane->dying--;
}

static int may_leave(const ex_channel *ch)
{
    return ch->id && ch->wanted && ch->state != EX_UP && !ch->of_dead;
}

/* The keeper shall clear it, and create it anew when the circuit is gone. */
static void leave_dead(ex_channel *ch, struct ex_circuit *c)
{
    if (!may_leave(ch))
        return;
    ch->recreate = ch->of_dead = 1;
    ch->lane->dying++;
    c->left++;
    ex_channel_plan(ch);
}

/* The channels whose server has never answered for them are on the circuit, too, by the name of its host. One pass for
 * all that are left: libca is asked for each channel that is not connected. Lane lock let go around libca. */
static void unanswered_leave_dead(ex_lane *lane)
{
    ex_channel *ch, *held = NULL;
    for (ch = lane->channels; ch; ch = ch->next) {
        char host[EX_HOST_BYTES];
        struct ex_circuit *c;
        if (!may_leave(ch) || ch->circuit)
            continue;
        ex_channel_ref(ch);              /* it stays in the list while the lock is let go */
        host_now(ch, host);
        c = strcmp(host, NOWHERE) ? find(lane, host, ch->priority) : NULL;
        if (c && c->leaving && c->leaving == c->silent_since && !ch->circuit)
            leave_dead(ch, c);
        ex_unlock(&lane->lock);
        if (held)
            ex_channel_unref(held);
        held = ch;
        ex_lock(&lane->lock);
    }
    ex_unlock(&lane->lock);
    if (held)
        ex_channel_unref(held);
    ex_lock(&lane->lock);
}

/* libca keeps a circuit that answers nothing until TCP gives up, a quarter of an hour later, and does not search for
 * its channels meanwhile (tcpiiu::unresponsiveCircuitNotify). It lets go of it with its last channel. So all of them are
 * cleared, and created anew when the circuit is gone. The same address is spared for a while: a server that
 * is only slow must not be made slower by clients that come and go. Lane lock let go for memory and around libca. */
void ex_lane_leave_dead(ex_lane *lane)
{
    struct ex_circuit *c;
    ex_channel *ch;
    int any = 0;
    int64_t now = ex_now();
    lane->dead_due = 0;
    for (c = lane->circuits; c; c = c->next) {
        int64_t since = c->silent_since;
        if (!since)
            continue;
        if (now < since + lane->dead_after || now < c->spared_until) {
            look_at(lane, c);
            continue;
        }
        look_up(lane, c);
        if (c->silent_since != since)
            continue;                    /* it has ended, or answered while libca was asked */
        if (now < c->spared_until) {     /* by the name that it has now */
            look_at(lane, c);
            continue;
        }
        c->leaving = since;
        c->left = 0;
        for (ch = c->members; ch; ch = ch->fellow)
            leave_dead(ch, c);
        any = 1;
    }
    if (any)
        unanswered_leave_dead(lane);
    for (c = lane->circuits; any && c; c = c->next) {
        char text[EX_HOST_BYTES + 100];
        if (!c->leaving)
            continue;
        if (c->silent_since == c->leaving)
            c->silent_since = 0;         /* else it has answered, and may have fallen silent anew */
        c->leaving = 0;
        if (!c->left || !c->host)
            continue;
        c->spared_until = now + EX_SPARED_NS;
        lane->dead_circuits++;
        lane->closing_until = ex_now() + EX_CLOSING_NS;
        snprintf(text, sizeof text, "%s has answered nothing for too long: its channels search for another server", c->host);
        ex_unlock(&lane->lock);
        ex_log(lane, 30, "", text);
        ex_lock(&lane->lock);
    }
}

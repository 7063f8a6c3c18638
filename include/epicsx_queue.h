/* What the files of the C core lend to each other: the queue's entrance, and the end of a wait. Private to them. */
#ifndef EPICSX_QUEUE_H
#define EPICSX_QUEUE_H

#include "epicsx_events.h"

/* All four with the lane lock held. */
int ex_notes_reserve(ex_lane *lane, size_t n);        /* so many notes are free; lets the lock go for memory; 0: none */
ex_note *ex_note_new(ex_lane *lane, int kind, void *subject);
void ex_note_append(ex_lane *lane, ex_note *note);
/* It happened: everyone in the list has one thing less to wait for. Requests to be ended after the lock join `over`. */
void ex_wait_over(ex_wait_node **list, ex_request **over);

/* Without it. */
#define EX_HOST_BYTES 128                                         /* as many as libca keeps of a name (hostNameCache) */
void ex_host_of(chid id, char *host);                             /* what libca calls the server's host and port */
ex_note *ex_note_for(ex_lane *lane);                              /* a note kept aside, so that completion cannot fail */
void ex_note_post(ex_lane *lane, ex_note *note, void *subject);   /* the subject's reference goes with it */
void ex_note_return(ex_lane *lane, ex_note *note);                /* it was not needed */
void ex_requests_over(ex_request *over);                          /* they end; their references are given back */

/* Circuits; all with the lane lock held on entry and exit. The first two let it go, for memory and to ask libca. */
struct ex_circuit *ex_circuit_named(ex_lane *lane, const char *host, unsigned priority);    /* NULL: no memory */
void ex_circuits_learn(ex_lane *lane, const char *host);               /* libca calls a host so: whose is it? */
void ex_circuit_ended(ex_lane *lane, const char *host);                /* libca says so: of one whose channels were lost before */
int ex_circuit_joined(ex_channel *ch, struct ex_circuit *c);           /* it is connected; 1: where it was when that fell silent */
void ex_circuit_silent(ex_channel *ch);                                /* it is not connected any more, though that stands */

/* The lane lock held: the handle has a note. Who is to be rung for it, now or after the lock: a reference, or NULL. */
ex_inbox *ex_inbox_tell(ex_handle *h);
void ex_inbox_ring(ex_inbox *b);             /* gives the reference back; NULL is allowed */

#endif

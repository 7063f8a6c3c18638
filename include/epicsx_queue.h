/* What _events.c lends to _requests.c: the entrance of a lane's queue for completions. Private to the C core. */
#ifndef EPICSX_QUEUE_H
#define EPICSX_QUEUE_H

#include "epicsx_events.h"

ex_note *ex_note_for(ex_lane *lane);                              /* a note kept aside, so that completion cannot fail */
void ex_note_post(ex_lane *lane, ex_note *note, void *subject);   /* the subject's reference goes with it */
void ex_note_return(ex_lane *lane, ex_note *note);                /* it was not needed */

#endif

/* Every call of libca that epicsx makes, each behind the gate and with the context attached where libca looks at it.
 *
 * All of these are called without the GIL. They return ECA codes. See _libca.c for Threads and Lifetime. */
#ifndef EPICSX_LIBCA_H
#define EPICSX_LIBCA_H

#include "epicsx_events.h"

typedef struct ex_start {
    int errlog;                  /* the library is our own copy: its error log may be redirected */
    int64_t deadline;
} ex_start;

int ex_keeper_start(ex_lane *lane, const ex_start *how);       /* ECA_NORMAL, ECA_TIMEOUT, or what libca said */
int ex_keeper_stop(ex_lane *lane, int64_t deadline);           /* 1: the context was destroyed in time */
void ex_keeper_close(ex_lane *lane);                           /* shut the gate: no new call of libca begins */

void ex_fork_exit_install(void);                               /* before the first context: see _forkexit.c */

int ex_ca_create(ex_channel *ch);                              /* give the channel to libca */
int ex_ca_get(ex_request *r, int type, unsigned long count);   /* lend and ask; not flushed */
int ex_ca_put_wait(ex_request *r, int type, unsigned long count, const void *data);
int ex_ca_put(ex_channel *ch, int type, unsigned long count, const void *data);
int ex_ca_get_batch(ex_batch *b, ex_lane *lane, ex_channel **channels, const int *types, const unsigned long *counts);
int ex_ca_put_batch(ex_batch *b, ex_lane *lane, ex_channel **channels, const int *types, const unsigned long *counts,
                    const void **data);
int ex_ca_put_all(ex_batch *b, ex_lane *lane, ex_channel **channels, const int *types, const unsigned long *counts,
                  const void **data);
int ex_ca_flush(ex_lane *lane);
int ex_ca_flush_soon(ex_lane *lane);                           /* now, or within FLUSH_GAP by the keeper */
const char *ex_ca_message(long status);
const char *ex_ca_version(void);

#endif

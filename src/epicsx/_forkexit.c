/* The end of a forked child by exit(): libCom's exit handlers are the parent's, and are left out.
 *
 * Threads   whichever calls exit(). The keepers, which install the handler, may do so at the same time.
 * Lifetime  that of the process; the handler is inherited by its children, and installed once.
 *
 * libCom ends at exit() the threads that it made (epicsExitCallAtExits of epicsExit.c, which osdThread.c gives to
 * atexit). In a forked child these threads are not there, and the place by which pthread_join names one may by then be
 * that of a thread of the child: exit() would wait for that one, or read what is not mapped any more.
 *
 * Our handler runs before libCom's and takes the list away from it: epicsExitCallAtExits takes all entries out under its
 * lock and then calls them without it, the last entry first; that one is ours, and comes back here, not there. */
#include "epicsx_libca.h"

#if defined(_WIN32)
void ex_fork_exit_install(void) {}
#else
#include <setjmp.h>
#include <stdlib.h>

#include "epicsExit.h"

static ex_atomic_int installed;
static int generation;
static jmp_buf out;

static void leave(void *arg)
{
    (void)arg;
    longjmp(out, 1);
}

static void at_exit(void)
{
    if (ex_generation_now() == generation || epicsAtExit3(leave, NULL, "leave"))
        return;
    if (!setjmp(out))
        epicsExitCallAtExits();
}

void ex_fork_exit_install(void)
{
    if (ex_add(&installed, 1) == 1) {
        generation = ex_generation_now();
        (void)atexit(at_exit);
    }
}
#endif

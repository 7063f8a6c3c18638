/* The end of a forked child by exit(): libCom's exit handlers are the parent's, and are left out.
 *
 * Threads   whichever calls exit(). Those that start keepers install the handler, before libca has any thread; it does
 *           no harm if two do so at the same time.
 * Lifetime  that of the process; the handler is inherited by its children.
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

static void nothing(void *arg) { (void)arg; }

void ex_fork_exit_install(void)
{
    /* libCom gives its own handler to atexit with the first thing that it does, which this may be. */
    if (ex_load(&installed) || epicsAtExit3(nothing, NULL, "nothing"))
        return;
    generation = ex_generation_now();
    (void)atexit(at_exit);
    ex_store(&installed, 1);             /* last: a child forked before that installs it itself */
}
#endif

/* What epicsx notices of itself: steps of the system's clock.
 *
 * Threads
 *   The keeper looks at the clock now and then; any thread may. No libca, no Python here.
 *
 * Lifetime
 *   Only the lane's own counters, under its lock. */
#include "epicsx_events.h"

#include <stdio.h>
#include <stdlib.h>

/* Below this it is a clock that is being slewed, or the two looks were not at the same moment. */
#define CLOCK_STEP 500000000ll

/* All of libca's timers run on the system's clock (epicsTimer, searches, watchdogs): after a step back by an hour they
 * rest for an hour. epicsx cannot set that right, only say so; its own time-outs are monotonic. */
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
    snprintf(text, sizeof text, "the system's clock was set %s by %.1f s: libca, whose timers follow it, may be %s",
             step < 0 ? "back" : "forward", (double)llabs(step) * 1e-9,
             step < 0 ? "late by as much to search and connect" : "early to give a server up");
    ex_log(lane, 30, "", text);
    return 1;
}

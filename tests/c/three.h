/* Three channels, two of one server, and clocks that a test moves. */
#ifndef EPICSX_TESTS_THREE_H
#define EPICSX_TESTS_THREE_H

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fakes.h"

/* The executable's own: what the core sees of the clocks is set here. */
static int64_t wall_moved, time_passed;

int clock_gettime(clockid_t which, struct timespec *t)
{
    int64_t ns;
    long status = syscall(SYS_clock_gettime, which, t);
    ns = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec + time_passed + (which == CLOCK_REALTIME ? wall_moved : 0);
    t->tv_sec = ns / 1000000000;
    t->tv_nsec = ns % 1000000000;
    return (int)status;
}

#define SECOND 1000000000ll

static ex_lane *lane;
static fake f, g, h;
static ex_channel *ch, *second, *third;

static void begin(void)
{
    fakes_install();
    lane = ex_lane_new("default");
    ch = fake_channel(lane, &f, "dev:x", DBR_DOUBLE, 1);
    second = fake_channel(lane, &g, "dev:y", DBR_DOUBLE, 1);
    third = fake_channel(lane, &h, "dev:z", DBR_DOUBLE, 1);
    strcpy(h.host, "<disconnected>");    /* nobody has it: it searches */
    fake_up(&f);
}

static void end(void)
{
    CHECK(lane_consistent(lane));
    end_channel(ch);
    end_channel(second);
    CHECK(lane_consistent(lane));
    end_channel(third);
    end_lane(lane);
}

#endif

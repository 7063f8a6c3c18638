/* The sums of all counts, and steps of the system's clock. */
#include "three.h"

static void steps_of_the_clock_are_noticed(void)
{
    ex_taken t;
    begin();
    while (skip_note(lane))
        ;
    CHECK(!ex_lane_look_at_clock(lane));
    CHECK(!ex_lane_look_at_clock(lane));
    time_passed += 3600 * SECOND;        /* time that passes is no step */
    CHECK(!ex_lane_look_at_clock(lane));
    wall_moved -= SECOND / 10;           /* nor is a little */
    CHECK(!ex_lane_look_at_clock(lane));
    wall_moved -= 20 * SECOND;
    CHECK(ex_lane_look_at_clock(lane));
    CHECK(!ex_lane_look_at_clock(lane));
    CHECK_EQ(lane->clock_steps, 1);
    CHECK(lane->clock_stepped < -20 * SECOND && lane->clock_stepped > -21 * SECOND);
    CHECK_EQ(ex_lane_take(lane, &t), EX_NOTE_LOG);
    CHECK(strstr((const char *)t.subject + 1, "back by 20.1 s") != NULL);
    CHECK_EQ(t.a, 30);
    ex_taken_done(&t);
    wall_moved += 3600 * SECOND;
    CHECK(ex_lane_look_at_clock(lane));
    CHECK_EQ(lane->clock_steps, 2);
    CHECK_EQ(ex_lane_take(lane, &t), EX_NOTE_LOG);
    CHECK(strstr((const char *)t.subject + 1, "whose timers follow it") != NULL);
    ex_taken_done(&t);
    lane->steady_clock = 1;              /* the hardened libca */
    wall_moved -= 3600 * SECOND;
    CHECK(ex_lane_look_at_clock(lane));
    CHECK_EQ(ex_lane_take(lane, &t), EX_NOTE_LOG);
    CHECK(strstr((const char *)t.subject + 1, "timers do not follow it") != NULL);
    CHECK_EQ(t.a, 20);
    ex_taken_done(&t);
    end();
}

static void sums_do_not_fall(void)
{
    ex_health now;
    ex_handle *one, *two;
    int i;
    begin();
    fake_up(&g);
    one = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    two = open_handle(second, EX_TIME_OF_NATIVE, 1, 3, 0, NULL);
    for (i = 0; i < 8; i++) {
        fake_event(one->sub, 1, i);
        fake_event(two->sub, 1, i);
    }
    take_value(lane, one);
    time_passed += 2 * SECOND;
    ex_lane_health(lane, &now);
    CHECK_EQ(now.tally.counts.received, 16);
    CHECK_EQ(now.tally.counts.delivered, 1);
    CHECK_EQ(now.tally.counts.dropped, 5);
    CHECK_EQ(now.tally.counts.pending, 10);
    CHECK_EQ(now.tally.bytes, lane->bytes);
    CHECK(now.age >= 2 * SECOND && now.age < 3 * SECOND);
    CHECK(ex_lane_age(lane) >= 2 * SECOND);
    CHECK_EQ(now.channels, 3);
    CHECK_EQ(now.connected, 2);
    CHECK_EQ(now.never_connected, 1);
    CHECK_EQ(now.subscriptions, 2);
    ex_channel_failed(second);
    fake_down(&g);
    close_handle(two);
    end_channel(second);                 /* gone, and what it counted stays */
    second = fake_channel(lane, &g, "dev:y", DBR_DOUBLE, 1);
    ex_lane_health(lane, &now);
    CHECK_EQ(now.tally.counts.received, 16);
    CHECK_EQ(now.tally.counts.dropped, 8);
    CHECK_EQ(now.tally.counts.pending, 7);
    CHECK_EQ(now.tally.callback_errors, 1);
    CHECK_EQ(now.tally.disconnects, 1);
    close_handle(one);
    ex_lane_health(lane, &now);
    CHECK_EQ(now.tally.counts.pending, 0);
    CHECK_EQ(now.tally.bytes, 0);
    CHECK_EQ(now.tally.counts.received, now.tally.counts.delivered + now.tally.counts.merged + now.tally.counts.dropped);
    end();
}

/* Channels come and go while they are counted: none is counted twice, none is missed. */
static atomic_int going;
static uint64_t failures;                /* of the channels that came and went; read when their thread has ended */

static void *come_and_go(void *unused)
{
    (void)unused;
    for (failures = 0; atomic_load(&going); failures++) {
        static fake other;
        ex_channel *c = fake_channel(lane, &other, "dev:w", DBR_DOUBLE, 1);
        ex_channel_failed(c);
        ex_channel_drop(c);
        ex_channel_unref(c);
        keeper(lane);
    }
    return NULL;
}

static void a_census_while_channels_come_and_go(void)
{
    pthread_t thread;
    ex_health now;
    uint64_t before = 0;
    int64_t deadline;
    int i;
    begin();
    deadline = ex_now() + 60 * SECOND;
    atomic_store(&going, 1);
    pthread_create(&thread, NULL, come_and_go, NULL);
    /* On a busy machine 20000 are taken before the other thread has begun: it must have been at work meanwhile. */
    for (i = 0; i < 20000 || (before < 100 && ex_now() < deadline); i++) {
        ex_lane_health(lane, &now);
        if (!CHECK(now.tally.callback_errors >= before))
            break;
        before = now.tally.callback_errors;
    }
    atomic_store(&going, 0);
    pthread_join(thread, NULL);
    CHECK(before >= 100);
    ex_lane_health(lane, &now);
    CHECK_EQ(now.tally.callback_errors, failures);
    end();
}

int main(void)
{
    RUN(steps_of_the_clock_are_noticed);
    RUN(sums_do_not_fall);
    RUN(a_census_while_channels_come_and_go);
    return finish();
}

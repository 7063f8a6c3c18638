/* The sums of all counts, circuits that are left for dead, and steps of the system's clock. */
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
    end_channel(ch);
    end_channel(second);
    end_channel(third);
    end_lane(lane);
}

static void exception(long stat, const char *host)
{
    struct exception_handler_args args;
    memset(&args, 0, sizeof args);
    args.usr = lane;
    args.stat = stat;
    args.ctx = host;
    ex_on_exception(args);
}
#define disconnected(host) exception(ECA_DISCONN, (host))

static void these_fall_silent(fake *one, fake *two)
{
    exception(ECA_UNRESPTMO, one->host);
    fake_down(one);
    if (two)
        fake_down(two);
    disconnected("another:5064");        /* what this thread says next is no longer of that circuit */
}
#define fall_silent() these_fall_silent(&f, NULL)

static int due_and_done(void)
{
    int due;
    ex_lock(&lane->lock);
    due = lane->dead_due && ex_now() >= lane->dead_due;
    if (due)
        ex_lane_leave_dead(lane);
    ex_unlock(&lane->lock);
    return due;
}

static void cleared_and_created(void)
{
    ex_lock(&lane->lock);
    ex_channel_not_dead(ch);
    ex_channel_not_dead(second);
    ch->recreate = second->recreate = 0;
    ex_unlock(&lane->lock);
}

static void all_channels_leave_a_dead_circuit(void)
{
    begin();                             /* `second` is on it too, though the server has never answered for it */
    fall_silent();
    CHECK(lane->dead_due != 0);
    CHECK(!due_and_done());
    time_passed += lane->dead_after + SECOND;
    CHECK(due_and_done());
    CHECK(ch->recreate && ch->of_dead && ch->planned);
    CHECK(second->recreate && second->of_dead && second->planned);
    CHECK(!third->recreate && !third->planned);
    CHECK_EQ(lane->dying, 2);
    CHECK_EQ(lane->dead_circuits, 1);
    CHECK_EQ(lane->dead_due, 0);
    cleared_and_created();
    CHECK_EQ(lane->dying, 0);
    end();
}

static void one_that_answers_again_is_not_dead(void)
{
    begin();
    fall_silent();
    fake_up(&f);
    time_passed += lane->dead_after + SECOND;
    due_and_done();
    CHECK(!ch->recreate && !second->recreate);
    CHECK_EQ(lane->dead_circuits, 0);
    end();
}

static void a_circuit_is_spared_for_a_while(void)
{
    begin();
    fall_silent();
    time_passed += lane->dead_after + SECOND;
    CHECK(due_and_done());
    cleared_and_created();
    fake_up(&f);
    fall_silent();
    time_passed += lane->dead_after + SECOND;
    CHECK(!due_and_done());
    time_passed += EX_SPARED_NS;
    CHECK(due_and_done());
    CHECK_EQ(lane->dead_circuits, 2);
    cleared_and_created();
    end();
}

static void never_is_never(void)
{
    begin();
    lane->dead_after = EX_FOREVER;
    fall_silent();
    CHECK_EQ(lane->dead_due, 0);
    time_passed += 1000000 * SECOND;
    CHECK(!due_and_done());
    CHECK_EQ(ch->unresponsive, 1);
    end();
}

static void one_whose_connection_ends_is_not_left_again(void)
{
    begin();
    fall_silent();
    disconnected("other:5064");
    CHECK(lane->circuits->silent_since != 0);
    disconnected("ioc:5064");            /* libca says no more: the channel is told already */
    CHECK_EQ(lane->circuits->silent_since, 0);
    time_passed += lane->dead_after + SECOND;
    due_and_done();
    CHECK(!ch->recreate && !second->recreate);
    CHECK_EQ(lane->dead_circuits, 0);
    CHECK_EQ(ch->tainted, 1);
    fake_up(&f);
    CHECK_EQ(ch->tainted, 0);            /* the server knows it only since now */
    fall_silent();
    fake_up(&f);
    CHECK_EQ(ch->tainted, 1);
    end();
}

static void of_two_circuits_to_one_host_none_is_taken_for_ended(void)
{
    begin();
    second->priority = 7;
    fake_up(&g);
    fall_silent();
    disconnected("ioc:5064");
    fake_up(&f);
    CHECK_EQ(ch->tainted, 1);
    end();
}

static void one_that_has_ended_is_not_left(void)
{
    begin();                             /* two circuits to one host: nobody could tell whose end it was */
    second->priority = 7;
    fake_up(&g);
    fall_silent();
    disconnected("ioc:5064");
    strcpy(f.host, "<disconnected>");
    time_passed += lane->dead_after + SECOND;
    CHECK(due_and_done());
    CHECK(!ch->recreate && !second->recreate);
    CHECK_EQ(lane->dead_circuits, 0);
    strcpy(f.host, "ioc:5064");
    fake_up(&f);
    CHECK_EQ(ch->tainted, 0);
    fall_silent();                       /* and it was not spared for that */
    time_passed += lane->dead_after + SECOND;
    CHECK(due_and_done());
    CHECK(ch->recreate && !second->recreate);
    CHECK_EQ(lane->dead_circuits, 1);
    ex_lock(&lane->lock);
    ex_channel_not_dead(ch);
    ch->recreate = 0;
    ex_unlock(&lane->lock);
    end();
}

/* DNS answers late, and each connection of libca asks anew: its server is an address first, and has a name later. */

#define ADDRESS "10.0.0.7:5064"

static void begin_with(const char *first, const char *now)
{
    begin();
    fake_down(&f);
    strcpy(f.host, first);
    strcpy(g.host, first);
    fake_up(&f);
    strcpy(f.host, now);
    strcpy(g.host, now);
}

static unsigned circuits(void)
{
    const struct ex_circuit *c;
    unsigned n = 0;
    for (c = lane->circuits; c; c = c->next)
        n++;
    return n;
}

static void a_name_that_comes_late_is_of_the_same_circuit(void)
{
    begin_with(ADDRESS, "ioc:5064");
    fake_up(&g);
    CHECK_EQ(lane->circuits_used, 1);
    CHECK(ch->circuit == second->circuit);
    these_fall_silent(&f, &g);
    time_passed += lane->dead_after + SECOND;
    CHECK(due_and_done());
    CHECK(ch->recreate && second->recreate);
    CHECK_EQ(lane->dead_circuits, 1);
    cleared_and_created();
    end();
}

static void the_end_of_one_whose_name_came_late_is_heard(void)
{
    begin_with(ADDRESS, ADDRESS);        /* its name comes while it is silent */
    fall_silent();
    strcpy(f.host, "ioc:5064");
    disconnected("ioc:5064");
    time_passed += lane->dead_after + SECOND;
    due_and_done();
    CHECK(!ch->recreate);
    CHECK_EQ(lane->dead_circuits, 0);
    fake_up(&f);
    CHECK_EQ(ch->tainted, 0);            /* the server knows it only since now */
    end();
}

static void who_never_connected_leaves_one_whose_name_came_late(void)
{
    begin_with(ADDRESS, ADDRESS);
    fall_silent();
    strcpy(f.host, "ioc:5064");
    strcpy(g.host, "ioc:5064");
    time_passed += lane->dead_after + SECOND;
    CHECK(due_and_done());
    CHECK(ch->recreate && second->recreate);
    cleared_and_created();
    end();
}

static void a_name_is_asked_for_whoever_is_left(void)
{
    begin_with(ADDRESS, ADDRESS);
    fake_up(&g);
    fake_down(&g);                       /* it was the last that joined */
    strcpy(f.host, "ioc:5064");
    strcpy(g.host, "ioc:5064");
    fake_up(&g);
    CHECK_EQ(lane->circuits_used, 1);
    end();
}

static void names_of_other_servers_are_not_taken(void)
{
    begin_with(ADDRESS, ADDRESS);
    strcpy(g.host, "other:5064");        /* that port, too */
    fake_up(&g);
    strcpy(h.host, "ioc:5065");
    fake_up(&h);
    CHECK_EQ(lane->circuits_used, 3);
    disconnected("other:5064");
    fall_silent();
    disconnected("other:5064");
    time_passed += lane->dead_after + SECOND;
    CHECK(due_and_done());
    CHECK_EQ(lane->dead_circuits, 1);
    CHECK(ch->recreate && !second->recreate);
    ex_lock(&lane->lock);
    ex_channel_not_dead(ch);
    ch->recreate = 0;
    ex_unlock(&lane->lock);
    end();
}

static void one_is_spared_by_whatever_name(void)
{
    begin();                             /* as "ioc:5064" */
    fall_silent();
    time_passed += lane->dead_after + SECOND;
    CHECK(due_and_done());
    cleared_and_created();
    strcpy(f.host, ADDRESS);
    fake_up(&f);
    strcpy(f.host, "ioc:5064");
    fall_silent();
    time_passed += lane->dead_after + SECOND;
    CHECK(!due_and_done());
    CHECK_EQ(lane->dead_circuits, 1);
    end();
}

static void connections_without_end_need_no_more_memory(void)
{
    int i;
    begin();
    for (i = 0; i < 100; i++) {
        fake_down(&f);
        strcpy(f.host, ADDRESS);
        fake_up(&f);
        strcpy(f.host, "ioc:5064");
        strcpy(g.host, "ioc:5064");
        fake_up(&g);
        CHECK(ch->circuit == second->circuit && ch->circuit->users == 2);
        fake_down(&g);
    }
    CHECK(circuits() <= 3);
    end();
}

static void a_long_name_is_cut_off_by_libca(void)
{
    char name[EX_HOST_BYTES], told[64];
    memset(name, 'x', sizeof name);
    strcpy(name + 80, ":5064");
    memcpy(told, name, 63);
    told[63] = 0;
    begin_with(ADDRESS, ADDRESS);
    fall_silent();
    strcpy(f.host, name);
    disconnected(told);
    time_passed += lane->dead_after + SECOND;
    due_and_done();
    CHECK_EQ(lane->dead_circuits, 0);
    strcpy(g.host, name);
    strcpy(g.host + 80, ":5065");        /* and yet two servers of one host are two */
    fake_up(&f);
    fake_up(&g);
    CHECK_EQ(lane->circuits_used, 2);
    end();
}

static void other_priorities_have_circuits_of_their_own(void)
{
    begin();
    second->priority = 7;
    fall_silent();
    time_passed += lane->dead_after + SECOND;
    CHECK(due_and_done());
    CHECK(ch->recreate && !second->recreate);
    cleared_and_created();
    end();
}

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
    RUN(all_channels_leave_a_dead_circuit);
    RUN(one_that_answers_again_is_not_dead);
    RUN(a_circuit_is_spared_for_a_while);
    RUN(never_is_never);
    RUN(one_whose_connection_ends_is_not_left_again);
    RUN(of_two_circuits_to_one_host_none_is_taken_for_ended);
    RUN(one_that_has_ended_is_not_left);
    RUN(a_name_that_comes_late_is_of_the_same_circuit);
    RUN(the_end_of_one_whose_name_came_late_is_heard);
    RUN(who_never_connected_leaves_one_whose_name_came_late);
    RUN(a_name_is_asked_for_whoever_is_left);
    RUN(names_of_other_servers_are_not_taken);
    RUN(one_is_spared_by_whatever_name);
    RUN(connections_without_end_need_no_more_memory);
    RUN(a_long_name_is_cut_off_by_libca);
    RUN(other_priorities_have_circuits_of_their_own);
    RUN(steps_of_the_clock_are_noticed);
    RUN(sums_do_not_fall);
    RUN(a_census_while_channels_come_and_go);
    return finish();
}

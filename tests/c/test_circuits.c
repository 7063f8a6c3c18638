/* Circuits: which channels are on which, what their hosts are called, and those that are left for dead. */
#include "three.h"

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

static int when_due(void)
{
    time_passed += lane->dead_after + SECOND;
    return due_and_done();
}

/* What the keeper does then, in short. */
static void cleared_and_created(void)
{
    ex_channel *each;
    ex_lock(&lane->lock);
    for (each = lane->channels; each; each = each->next)
        if (each->recreate) {
            ex_channel_not_dead(each);
            each->recreate = each->tainted = 0;
            ex_channel_left(each, 0);
        }
    ex_unlock(&lane->lock);
}

static void all_channels_leave_a_dead_circuit(void)
{
    begin();                             /* `second` is on it too, though the server has never answered for it */
    fall_silent();
    CHECK(lane->dead_due != 0);
    CHECK(!due_and_done());
    CHECK(when_due());
    CHECK(ch->recreate && ch->of_dead && ch->planned);
    CHECK(second->recreate && second->of_dead && second->planned);
    CHECK(!third->recreate && !third->planned);
    CHECK_EQ(lane->dying, 2);
    CHECK_EQ(lane->dead_circuits, 1);
    CHECK_EQ(lane->dead_due, 0);
    CHECK_EQ(lane->circuits->silent_since, 0);
    ex_lock(&lane->lock);
    ex_lane_leave_dead(lane);            /* looked at again before they are cleared */
    ex_unlock(&lane->lock);
    CHECK_EQ(lane->dying, 2);
    CHECK_EQ(lane->dead_circuits, 1);
    cleared_and_created();
    CHECK_EQ(lane->dying, 0);
    end();
}

static void begin_left(void)
{
    begin();
    fall_silent();
    CHECK(when_due());
    cleared_and_created();
}

static void one_that_answers_again_is_not_dead(void)
{
    begin();
    fall_silent();
    fake_up(&f);
    when_due();
    CHECK(!ch->recreate && !second->recreate);
    CHECK_EQ(lane->dead_circuits, 0);
    end();
}

static void a_circuit_is_spared_for_a_while(void)
{
    begin_left();
    fake_up(&f);
    fall_silent();
    CHECK(!when_due());
    time_passed += EX_SPARED_NS;
    CHECK(due_and_done());
    CHECK_EQ(lane->dead_circuits, 2);
    cleared_and_created();
    end();
}

static void each_dead_circuit_is_counted_once(void)
{
    begin();
    strcpy(h.host, "other:5064");
    fake_up(&h);
    fall_silent();
    CHECK(when_due());
    cleared_and_created();
    these_fall_silent(&h, NULL);
    CHECK(when_due());
    CHECK_EQ(lane->dead_circuits, 2);
    cleared_and_created();
    end();
}

static void two_that_are_dead_at_once(void)
{
    begin();
    strcpy(h.host, "other:5064");
    fake_up(&h);
    fall_silent();
    these_fall_silent(&h, NULL);
    CHECK(when_due());
    CHECK(ch->recreate && second->recreate && third->recreate);
    CHECK_EQ(lane->dead_circuits, 2);
    CHECK_EQ(lane->dying, 3);
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
    when_due();
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
    CHECK(when_due());
    CHECK(!ch->recreate && !second->recreate);
    CHECK_EQ(lane->dead_circuits, 0);
    strcpy(f.host, "ioc:5064");
    fake_up(&f);
    CHECK_EQ(ch->tainted, 0);
    fall_silent();                       /* and it was not spared for that */
    CHECK(when_due());
    CHECK(ch->recreate && !second->recreate);
    CHECK_EQ(lane->dead_circuits, 1);
    cleared_and_created();
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
    CHECK(when_due());
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
    when_due();
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
    CHECK(when_due());
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
    CHECK(when_due());
    CHECK_EQ(lane->dead_circuits, 1);
    CHECK(ch->recreate && !second->recreate);
    cleared_and_created();
    end();
}

static void one_is_spared_by_whatever_name(void)
{
    begin();                             /* as "ioc:5064" */
    fall_silent();
    CHECK(when_due());
    cleared_and_created();
    strcpy(f.host, ADDRESS);
    fake_up(&f);
    strcpy(f.host, "ioc:5064");
    fall_silent();
    CHECK(!when_due());
    CHECK_EQ(lane->dead_circuits, 1);
    end();
}

static void one_is_spared_by_a_name_that_comes_while_it_is_silent(void)
{
    begin_left();
    strcpy(f.host, ADDRESS);
    fake_up(&f);
    fall_silent();
    strcpy(f.host, "ioc:5064");          /* and nobody else connects */
    CHECK(when_due());
    CHECK(!ch->recreate);
    CHECK_EQ(lane->dead_circuits, 1);
    time_passed += EX_SPARED_NS;
    CHECK(due_and_done());
    CHECK(ch->recreate);
    CHECK_EQ(lane->dead_circuits, 2);
    cleared_and_created();
    end();
}

static void one_that_nobody_left_is_not_spared(void)
{
    begin();
    strcpy(g.host, "<disconnected>");
    fall_silent();
    end_channel(ch);
    when_due();
    CHECK_EQ(lane->dead_circuits, 0);
    ch = fake_channel(lane, &f, "dev:x", DBR_DOUBLE, 1);
    fake_up(&f);
    fall_silent();
    CHECK(when_due());
    CHECK(ch->recreate);
    cleared_and_created();
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
    when_due();
    CHECK_EQ(lane->dead_circuits, 0);
    strcpy(g.host, name);
    strcpy(g.host + 80, ":5065");        /* and yet two servers of one host are two */
    fake_up(&f);
    fake_up(&g);
    CHECK_EQ(lane->circuits_used, 2);
    end();
}

/* Two priorities, so that nobody can tell whose end libca tells of: both have ended. */
static fake urgent;
static ex_channel *fourth;

static void two_end(const char *host)
{
    fourth = fake_channel(lane, &urgent, "dev:u", DBR_DOUBLE, 1);
    fourth->priority = 7;
    strcpy(urgent.host, host);
    strcpy(g.host, host);
    fake_up(&urgent);
    fake_up(&g);
    these_fall_silent(&f, &g);
    these_fall_silent(&urgent, NULL);
    disconnected(host);
    disconnected(host);
}

static void end_four(void)
{
    end_channel(fourth);
    end();
}

static void nowhere_is_no_name(void)
{
    begin_with(ADDRESS, ADDRESS);
    two_end(ADDRESS);
    strcpy(f.host, "<disconnected>");
    strcpy(g.host, "<disconnected>");
    strcpy(urgent.host, "<disconnected>");
    strcpy(h.host, "other:5064");
    fake_up(&h);                         /* another server: each of the others is asked for its name */
    CHECK_EQ(lane->circuits_used, 1);
    CHECK(!strcmp(ch->host, ADDRESS));
    fake_up(&f);
    CHECK_EQ(ch->tainted, 0);            /* it was noticed that the connection had ended */
    end_four();
}

static void who_was_lost_is_not_asked_for_the_connected(void)
{
    begin_with(ADDRESS, ADDRESS);
    two_end(ADDRESS);
    fake_up(&f);                         /* the server is back, without the PV of `second` */
    fake_up(&urgent);
    strcpy(g.host, "<disconnected>");
    strcpy(h.host, ADDRESS);
    fake_up(&h);
    strcpy(f.host, "ioc:5064");
    strcpy(h.host, "ioc:5064");
    end_channel(third);
    third = fake_channel(lane, &h, "dev:z", DBR_DOUBLE, 1);
    fake_up(&h);
    CHECK(third->circuit == ch->circuit);
    CHECK_EQ(lane->circuits_used, 2);
    these_fall_silent(&f, &h);           /* now it hangs, and stands */
    CHECK(when_due());
    CHECK_EQ(lane->dead_circuits, 1);
    CHECK(ch->recreate && third->recreate && !second->recreate);
    cleared_and_created();
    end_four();
}

static void a_silent_one_without_channels_gives_its_name_away(void)
{
    begin();
    fall_silent();
    end_channel(ch);                     /* libca lets go of it, and says nothing */
    CHECK_EQ(lane->emptied, 0);          /* it is not waited for that: the server answers nothing */
    ch = fake_channel(lane, &f, "dev:x", DBR_DOUBLE, 1);
    strcpy(f.host, ADDRESS);
    fake_up(&f);
    strcpy(f.host, "ioc:5064");
    fake_up(&g);
    CHECK_EQ(lane->circuits_used, 1);
    CHECK(ch->circuit == second->circuit);
    CHECK(lane_consistent(lane));
    when_due();
    CHECK_EQ(lane->dead_circuits, 0);
    end();
}

static void one_that_came_back_by_address_gets_its_name(void)
{
    begin();
    two_end("ioc:5064");
    strcpy(f.host, ADDRESS);
    fake_up(&f);
    strcpy(f.host, "ioc:5064");
    strcpy(h.host, "other:5064");
    fake_up(&h);                         /* the newest circuit is none of them */
    fake_up(&g);
    CHECK_EQ(lane->circuits_used, 2);
    fake_down(&h);
    strcpy(h.host, "ioc:5064");          /* nobody has answered for it: it is on the new connection */
    strcpy(urgent.host, "<disconnected>");
    when_due();
    CHECK_EQ(lane->dead_circuits, 0);
    CHECK(!third->recreate);
    end_four();
}

static void all_channels_give_the_name_that_is_known(void)
{
    begin_with(ADDRESS, "ioc:5064");
    fake_up(&g);
    CHECK(ch->host == second->host);
    fake_down(&f);
    CHECK(!strcmp(ch->host, "ioc:5064"));
    end();
}

static void two_servers_of_one_name_are_two(void)
{
    begin();                             /* by name */
    strcpy(g.host, "10.0.0.8:5064");     /* the host's other interface, of another server there */
    fake_up(&g);
    strcpy(g.host, "ioc:5064");
    strcpy(h.host, "other:5064");
    fake_up(&h);
    CHECK(ch->circuit != second->circuit);
    CHECK(!strcmp(second->host, "ioc:5064"));
    CHECK_EQ(lane->circuits_used, 3);
    these_fall_silent(&f, NULL);
    disconnected("ioc:5064");            /* it may be of either */
    fake_down(&g);
    strcpy(g.host, "10.0.0.8:5064");
    fake_up(&g);
    strcpy(g.host, "ioc:5064");
    fake_down(&h);
    fake_up(&h);                         /* the silent one keeps its name, and is left in time */
    CHECK(!strcmp(second->host, "ioc:5064"));
    CHECK(when_due());
    CHECK(ch->recreate && !second->recreate);
    cleared_and_created();
    end();
}

static void a_port_tells_servers_apart(void)
{
    int before;
    begin_with(ADDRESS, ADDRESS);
    strcpy(h.host, "ioc:5065");
    before = fake_questions;
    fake_up(&h);
    CHECK_EQ(fake_questions, before + 1);    /* where it is itself */
    end();
}

static void names_are_those_that_libca_gives(void)
{
    begin_with(ADDRESS, "ioc:5064");
    strcpy(h.host, "other:5064");
    fake_up(&h);                         /* why the first is asked, and not what it is called */
    CHECK(!strcmp(ch->host, "ioc:5064") && !strcmp(third->host, "other:5064"));
    CHECK_EQ(lane->circuits_used, 2);
    end();
}

static void with_the_same_name_priorities_stay_apart(void)
{
    begin();
    fourth = fake_channel(lane, &urgent, "dev:u", DBR_DOUBLE, 1);
    fourth->priority = 7;
    fake_up(&urgent);
    fake_down(&urgent);                  /* it had one, and none uses it */
    fake_down(&f);
    strcpy(f.host, ADDRESS);
    fake_up(&f);
    strcpy(f.host, "ioc:5064");
    fake_up(&g);
    CHECK_EQ(circuits(), 3);
    fake_up(&urgent);
    CHECK_EQ(circuits(), 3);             /* its circuit was not taken away */
    CHECK_EQ(fourth->circuit->priority, 7);
    CHECK_EQ(ch->circuit->priority, 0);
    end_four();
}

static void one_used_again_begins_anew(void)
{
    struct ex_circuit *was;
    begin_left();
    was = lane->circuits;
    strcpy(f.host, ADDRESS);
    fake_up(&f);
    strcpy(f.host, "ioc:5064");
    fake_up(&g);                         /* the first has given its name, and that it is spared, away */
    CHECK(!was->host);
    third->priority = 3;
    strcpy(h.host, "other:5064");
    fake_up(&h);
    CHECK(third->circuit == was);
    CHECK_EQ(was->priority, 3);
    these_fall_silent(&h, NULL);
    CHECK(when_due());               /* nobody has spared that server */
    CHECK(third->recreate && !ch->recreate);
    cleared_and_created();
    end();
}

/* What happens while libca is asked. */

static void it_answers(fake *unused)
{
    (void)unused;
    fake_up(&f);
}

static void it_ends(fake *unused)
{
    (void)unused;
    disconnected("ioc:5064");
}

static void it_answers_and_falls_silent_anew(fake *unused)
{
    (void)unused;
    fake_up(&f);
    time_passed += SECOND;
    fall_silent();
}

static void it_is_dropped(fake *who)
{
    ex_channel_drop(who->ch);
    keeper(lane);                        /* which leaves it alone while libca is called with it */
    CHECK(who->ch->id && !who->ch->planned);
}

static void one_that_answers_while_asked_is_not_left(void)
{
    static void (*const happens[])(fake *) = {it_answers, it_ends, it_answers_and_falls_silent_anew};
    size_t i;
    for (i = 0; i < 3; i++) {
        begin();
        fall_silent();
        time_passed += lane->dead_after + SECOND;
        fake_asked = happens[i];
        CHECK(due_and_done());
        CHECK(!fake_asked);
        CHECK(!ch->recreate && !second->recreate);
        CHECK_EQ(lane->dead_circuits, 0);
        CHECK_EQ(when_due(), i == 2);
        CHECK_EQ(lane->dead_circuits, i == 2);
        cleared_and_created();
        end();
    }
}

static void second_question(fake *unused)
{
    (void)unused;
    fake_asked = it_answers_and_falls_silent_anew;    /* at the question for `third` or `second` */
}

static void one_that_answers_late_is_left_in_time(void)
{
    begin();
    fall_silent();
    time_passed += lane->dead_after + SECOND;
    fake_asked = second_question;
    CHECK(due_and_done());
    CHECK(!second->recreate);            /* its own silence has just begun */
    CHECK(ch->circuit->silent_since != 0);
    time_passed += EX_SPARED_NS;
    CHECK(due_and_done());
    CHECK(second->recreate);
    cleared_and_created();
    end();
}

/* While the keeper asks for `urgent`, the circuit that is left has ended, given its name away, and is another server's. */
static void it_is_used_again(fake *unused)
{
    struct ex_circuit *was = ch->circuit;
    (void)unused;
    strcpy(f.host, "<disconnected>");
    strcpy(g.host, ADDRESS);
    fake_up(&g);                         /* the server is back */
    strcpy(g.host, "ioc:5064");
    strcpy(urgent.host, "ioc:5064");
    fake_up(&urgent);
    CHECK(!was->host);
    strcpy(h.host, "other:5064");
    fake_up(&h);
    CHECK(third->circuit == was);
}

static void at_the_second_question(fake *unused)
{
    (void)unused;
    fake_asked = it_is_used_again;
}

static void nobody_else_is_called_dead(void)
{
    ex_taken t;
    begin();
    strcpy(g.host, "<disconnected>");
    fourth = fake_channel(lane, &urgent, "dev:u", DBR_DOUBLE, 1);
    strcpy(urgent.host, "<disconnected>");
    fall_silent();
    while (skip_note(lane))
        ;
    time_passed += lane->dead_after + SECOND;
    fake_asked = at_the_second_question;
    CHECK(due_and_done());
    CHECK(!fake_asked);
    CHECK_EQ(lane->dead_circuits, 0);
    while (ex_lane_take(lane, &t)) {
        CHECK(t.kind != EX_NOTE_LOG || t.a < 30);
        ex_taken_done(&t);
    }
    CHECK(ch->recreate);                 /* it was, and libca searches for it anew in any case */
    cleared_and_created();
    end_four();
}

static void who_is_dropped_while_asked_is_planned(void)
{
    begin();
    fall_silent();
    time_passed += lane->dead_after + SECOND;
    while (lane->plan_head)
        keeper(lane);
    fake_asked = it_is_dropped;
    CHECK(due_and_done());
    CHECK(!ch->wanted && ch->planned && !ch->in_call);
    CHECK(second->recreate);             /* by the name that the circuit had */
    cleared_and_created();
    end();
}

static void other_priorities_have_circuits_of_their_own(void)
{
    begin();
    second->priority = 7;
    fall_silent();
    CHECK(when_due());
    CHECK(ch->recreate && !second->recreate);
    cleared_and_created();
    end();
}

int main(void)
{
    RUN(all_channels_leave_a_dead_circuit);
    RUN(one_that_answers_again_is_not_dead);
    RUN(a_circuit_is_spared_for_a_while);
    RUN(each_dead_circuit_is_counted_once);
    RUN(two_that_are_dead_at_once);
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
    RUN(one_is_spared_by_a_name_that_comes_while_it_is_silent);
    RUN(one_that_nobody_left_is_not_spared);
    RUN(connections_without_end_need_no_more_memory);
    RUN(a_long_name_is_cut_off_by_libca);
    RUN(nowhere_is_no_name);
    RUN(who_was_lost_is_not_asked_for_the_connected);
    RUN(a_silent_one_without_channels_gives_its_name_away);
    RUN(one_that_came_back_by_address_gets_its_name);
    RUN(all_channels_give_the_name_that_is_known);
    RUN(two_servers_of_one_name_are_two);
    RUN(a_port_tells_servers_apart);
    RUN(names_are_those_that_libca_gives);
    RUN(with_the_same_name_priorities_stay_apart);
    RUN(one_used_again_begins_anew);
    RUN(one_that_answers_while_asked_is_not_left);
    RUN(one_that_answers_late_is_left_in_time);
    RUN(nobody_else_is_called_dead);
    RUN(who_is_dropped_while_asked_is_planned);
    RUN(other_priorities_have_circuits_of_their_own);
    return finish();
}

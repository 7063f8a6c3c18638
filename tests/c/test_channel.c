/* Channels as libca's threads tell of them: connection, access, news, waiters, errors; plans; and who shares what. */
#include "fakes.h"

static ex_lane *lane;
static fake f;
static ex_channel *ch;

static void begin(void)
{
    fakes_install();
    lane = ex_lane_new("test");
    ch = fake_channel(lane, &f, "dev:x", DBR_DOUBLE, 3);
}

static void end(void)
{
    end_channel(ch);
    end_lane(lane);
}

/* The next note must be this one. */
static int next_is(int kind, int a, int b)
{
    ex_taken t;
    int ok = ex_lane_take(lane, &t) == kind && t.subject == ch && t.a == a && t.b == b && t.py == ch->py;
    ex_taken_done(&t);
    return ok;
}

static void the_truth_of_a_connection(void)
{
    begin();
    CHECK_EQ(ch->state, EX_NEVER);
    CHECK_EQ(ch->type, -1);
    fake_up(&f);
    CHECK_EQ(ch->state, EX_UP);
    CHECK_EQ(ch->type, DBR_DOUBLE);
    CHECK_EQ(ch->count, 3);
    CHECK(!strcmp(ch->host, "ioc:5064"));
    CHECK(ch->reading && ch->writing);
    CHECK_EQ(ch->connects, 1);
    CHECK_EQ(lane->queued, 0);                   /* nobody asked for news */
    fake_down(&f);
    CHECK_EQ(ch->state, EX_DOWN);
    CHECK_EQ(ch->type, DBR_DOUBLE);              /* last known */
    CHECK_EQ(ch->count, 3);
    CHECK(!ch->reading && !ch->writing);
    CHECK_EQ(ch->disconnects, 1);
    f.type = DBR_STRING;
    f.count = 7;
    strcpy(f.host, "other:5064");
    atomic_store(&f.writing, 0);
    fake_up(&f);
    CHECK_EQ(ch->type, DBR_STRING);
    CHECK_EQ(ch->count, 7);
    CHECK(!strcmp(ch->host, "other:5064"));
    CHECK(ch->reading && !ch->writing);
    CHECK_EQ(ch->connects, 2);
    end();
}

static void news_only_for_those_who_asked(void)
{
    int mark;
    begin();
    ch->py = &mark;
    fake_up(&f);
    fake_access(&f, 1, 0);
    fake_down(&f);
    CHECK_EQ(skip_note(lane), 0);
    ex_channel_set_news(ch, 1);
    atomic_store(&f.writing, 1);
    fake_up(&f);
    fake_access(&f, 1, 0);
    fake_access(&f, 1, 0);                       /* nothing new */
    fake_access(&f, 0, 0);
    fake_down(&f);
    CHECK(lane_consistent(lane));
    CHECK(next_is(EX_NOTE_CONNECTION, 1, DBR_DOUBLE));
    CHECK(next_is(EX_NOTE_ACCESS, 1, 1));
    CHECK(next_is(EX_NOTE_ACCESS, 1, 0));
    CHECK(next_is(EX_NOTE_ACCESS, 0, 0));
    CHECK(next_is(EX_NOTE_CONNECTION, 0, DBR_DOUBLE));
    CHECK_EQ(skip_note(lane), 0);
    ex_channel_set_news(ch, 0);
    fake_up(&f);
    CHECK_EQ(skip_note(lane), 0);
    end();
}

static void connection_notes_are_never_dropped(void)
{
    int i;
    begin();
    lane->max_events = 1;
    ex_channel_set_news(ch, 1);
    for (i = 0; i < 2000; i++) {
        fake_up(&f);
        fake_down(&f);
    }
    CHECK_EQ(lane->queued, 8000);
    for (i = 0; i < 2000; i++) {
        CHECK(next_is(EX_NOTE_CONNECTION, 1, DBR_DOUBLE));
        CHECK(next_is(EX_NOTE_ACCESS, 1, 1));
        CHECK(next_is(EX_NOTE_CONNECTION, 0, DBR_DOUBLE));
        CHECK(next_is(EX_NOTE_ACCESS, 0, 0));
    }
    end();
}

static void down_twice_and_down_without_up(void)
{
    begin();
    ex_channel_set_news(ch, 1);
    fake_down(&f);                               /* destroying a context says DOWN of everything */
    CHECK_EQ(ch->state, EX_NEVER);
    CHECK_EQ(skip_note(lane), 0);
    fake_up(&f);
    fake_down(&f);
    fake_down(&f);
    CHECK_EQ(ch->state, EX_DOWN);
    CHECK_EQ(ch->disconnects, 1);
    CHECK(next_is(EX_NOTE_CONNECTION, 1, DBR_DOUBLE));
    CHECK(next_is(EX_NOTE_ACCESS, 1, 1));
    CHECK(next_is(EX_NOTE_CONNECTION, 0, DBR_DOUBLE));
    CHECK(next_is(EX_NOTE_ACCESS, 0, 0));
    CHECK_EQ(skip_note(lane), 0);
    end();
}

static void rights_are_read_again_whatever_the_argument_says(void)
{
    struct access_rights_handler_args stale;
    begin();
    fake_up(&f);
    memset(&stale, 0, sizeof stale);
    stale.chid = chid_of(&f);                    /* says neither; the channel says both */
    ex_on_access(stale);
    CHECK(ch->reading && ch->writing);
    atomic_store(&f.reading, 0);
    ex_on_access(stale);
    CHECK(!ch->reading && ch->writing);
    end();
}

static void rights_are_told_only_while_connected(void)
{
    begin();
    ex_channel_set_news(ch, 1);
    fake_access(&f, 0, 1);                       /* libca tells them before the connection */
    CHECK(!ch->reading && !ch->writing);
    CHECK_EQ(skip_note(lane), 0);
    fake_up(&f);
    CHECK(!ch->reading && ch->writing);
    CHECK(next_is(EX_NOTE_CONNECTION, 1, DBR_DOUBLE));
    CHECK(next_is(EX_NOTE_ACCESS, 0, 1));
    fake_access(&f, 0, 1);
    CHECK_EQ(skip_note(lane), 0);
    fake_access(&f, 0, 0);
    CHECK(next_is(EX_NOTE_ACCESS, 0, 0));
    fake_down(&f);                               /* there were none to lose */
    CHECK(next_is(EX_NOTE_CONNECTION, 0, DBR_DOUBLE));
    fake_access(&f, 1, 1);                       /* libca keeps old rights of an unresponsive circuit */
    CHECK(!ch->reading && !ch->writing);
    CHECK_EQ(skip_note(lane), 0);
    end();
}

static void a_dropped_channel_is_closed_for_good(void)
{
    ex_handle *h;
    begin();
    ex_channel_set_news(ch, 1);
    fake_up(&f);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    ex_channel_ref(ch);
    ex_channel_drop(ch);
    CHECK_EQ(ch->state, EX_CLOSED);
    fake_event(h->sub, 1, 1);                    /* not cleared yet: the handle is open, so it is told */
    fake_down(&f);
    fake_up(&f);                                 /* changes nothing any more */
    fake_access(&f, 0, 0);
    CHECK_EQ(ch->state, EX_CLOSED);
    CHECK_EQ(ch->connects, 1);
    keeper(lane);
    CHECK(ch->id == NULL);
    CHECK_EQ(ch->lent, 0);
    CHECK_EQ(ex_lent(), 0);
    CHECK(h->sub->live == 0);
    CHECK_EQ(skip_note(lane), EX_NOTE_CONNECTION);
    CHECK_EQ(skip_note(lane), EX_NOTE_ACCESS);
    CHECK_EQ(take_value(lane, h), 1);
    CHECK_EQ(skip_note(lane), 0);
    CHECK(ch->subs == h->sub);                   /* stays while its handle is open */
    close_handle(h);
    CHECK(ch->subs == NULL);
    ex_channel_unref(ch);
    ex_channel_unref(ch);
    end_lane(lane);
}

static void a_handle_opened_after_the_drop_hears_nothing(void)
{
    ex_handle *h;
    begin();
    fake_up(&f);
    ex_channel_ref(ch);
    end_channel(ch);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    CHECK(!h->sub->live);
    close_handle(h);
    CHECK(ch->subs == NULL);
    ex_channel_unref(ch);
    end_lane(lane);
}

/* ------------------------------------------------------------------- sharing */

static void equal_subscriptions_are_one(void)
{
    ex_sub *a, *b, *other;
    begin();
    a = ex_sub_get(ch, EX_TIME_OF_NATIVE, 0, 5, 0);
    b = ex_sub_get(ch, EX_TIME_OF_NATIVE, 0, 5, 0);
    CHECK(a == b);
    CHECK_EQ(a->users, 2);
    other = ex_sub_get(ch, EX_TIME_OF_NATIVE, 0, 7, 0);
    CHECK(other != a);
    ex_sub_leave(other);
    other = ex_sub_get(ch, EX_TIME_OF_NATIVE, 1, 5, 0);
    CHECK(other != a);
    ex_sub_leave(other);
    other = ex_sub_get(ch, DBR_TIME_DOUBLE, 0, 5, 0);
    CHECK(other != a);
    ex_sub_leave(other);
    CHECK_EQ(keeper(lane), 1);
    CHECK(ch->subs == a && a->next == NULL);
    ex_sub_leave(a);
    CHECK(ch->subs == a);                        /* one user left */
    ex_sub_leave(b);
    keeper(lane);
    CHECK(ch->subs == NULL);
    end();
}

static void a_subscription_found_before_it_was_forgotten_lives_on(void)
{
    ex_sub *a, *b;
    int ended;
    begin();
    fake_up(&f);
    a = ex_sub_get(ch, EX_TIME_OF_NATIVE, 0, 5, 0);
    keeper(lane);
    ended = server.ended;
    ex_sub_leave(a);
    b = ex_sub_get(ch, EX_TIME_OF_NATIVE, 0, 5, 0);
    keeper(lane);
    CHECK(b->live);
    CHECK_EQ(server.ended, ended);
    ex_sub_leave(b);
    end();
}

/* --------------------------------------------------------------------- plans */

static int plans(void)
{
    int n = 0;
    ex_channel *c, *last = NULL;
    ex_lock(&lane->lock);
    for (c = lane->plan_head; c; c = c->plan_next) {
        last = c;
        n++;
    }
    if (last != lane->plan_tail)
        n = -1;
    ex_unlock(&lane->lock);
    return n;
}

static void plan(ex_channel *c)
{
    ex_lock(&lane->lock);
    ex_channel_plan(c);
    ex_unlock(&lane->lock);
}

static void a_channel_is_planned_once(void)
{
    fake g, k;
    ex_channel *second, *third;
    int refs;
    begin();
    second = fake_channel(lane, &g, "dev:y", DBR_LONG, 1);
    third = fake_channel(lane, &k, "dev:z", DBR_LONG, 1);
    refs = ex_load(&ch->refs);
    CHECK_EQ(ch->dirty, 0);
    plan(ch);
    CHECK_EQ(ch->dirty, 1);
    CHECK_EQ(ch->planned, 1);
    plan(ch);
    plan(second);
    plan(ch);
    plan(third);
    plan(second);
    CHECK_EQ(plans(), 3);
    CHECK(lane->plan_head == ch && ch->plan_next == second && second->plan_next == third);
    CHECK_EQ(ex_load(&ch->refs), refs + 1);      /* one reference for one plan */
    CHECK_EQ(keeper(lane), 3);
    CHECK_EQ(plans(), 0);
    CHECK_EQ(ch->planned, 0);
    CHECK_EQ(ch->dirty, 0);
    CHECK_EQ(ex_load(&ch->refs), refs);
    plan(ch);
    CHECK_EQ(plans(), 1);                        /* and again, after it was done */
    keeper(lane);
    end_channel(second);
    end_channel(third);
    end();
}

static void a_plan_while_working_is_only_a_mark(void)
{
    int refs;
    begin();
    refs = ex_load(&ch->refs);
    ch->working = 1;
    plan(ch);
    CHECK_EQ(ch->dirty, 1);                      /* the worker looks at this before it leaves */
    CHECK_EQ(plans(), 0);
    CHECK_EQ(ex_load(&ch->refs), refs);
    ch->working = 0;
    ch->dirty = 0;
    end();
}

static int in_reserve;

static void *wait_in_reserve(void *woken)
{
    ex_lock(&lane->lock);
    in_reserve++;
    while (!*(int *)woken && ex_wait(&lane->spare, &lane->lock, ex_now() + (int64_t)20000000000))
        *(int *)woken = ch->planned;
    ex_unlock(&lane->lock);
    return NULL;
}

static void a_plan_wakes_all_spares_while_the_keeper_is_busy(void)
{
    pthread_t threads[2];
    int woken[2] = {0, 0}, i, idle = 0;          /* only one of them is next in turn: a signal may meet the other */
    begin();
    for (i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, wait_in_reserve, &woken[i]);
    while (idle < 2) {
        ex_lock(&lane->lock);
        idle = in_reserve;
        ex_unlock(&lane->lock);
    }
    lane->workers[0].channel = ch;
    plan(ch);
    for (i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    CHECK(woken[0] && woken[1]);
    lane->workers[0].channel = NULL;
    end();
}

static void what_plans_a_channel(void)
{
    ex_sub *s;
    begin();
    fake_up(&f);
    CHECK_EQ(plans(), 0);                        /* nothing to be done: no subscriptions */
    fake_down(&f);
    s = ex_sub_get(ch, EX_TIME_OF_NATIVE, 0, 5, 0);
    CHECK_EQ(plans(), 0);                        /* waits for the connection */
    fake_up(&f);
    CHECK_EQ(plans(), 1);
    keeper(lane);
    CHECK(s->live);
    fake_down(&f);
    CHECK_EQ(plans(), 0);
    ex_sub_get(ch, EX_TIME_OF_NATIVE, 0, 5, 0);
    CHECK_EQ(plans(), 0);                        /* libca knows it already */
    ex_sub_leave(s);
    CHECK_EQ(plans(), 0);
    ex_sub_leave(s);
    CHECK_EQ(plans(), 1);                        /* the last user is gone */
    end();
}

/* ------------------------------------------------------------------- waiters */

static void *up_later(void *p)
{
    struct timespec pause = {0, 20000000};
    nanosleep(&pause, NULL);
    fake_up((fake *)p);
    return NULL;
}

static void one_wait_for_many_channels(void)
{
    enum { N = 5 };
    fake fakes[N];
    ex_channel *channels[N];
    ex_wait_node nodes[N];
    ex_waiter w;
    pthread_t threads[N];
    int i, there = 0;
    begin();
    for (i = 0; i < N; i++)
        channels[i] = fake_channel(lane, &fakes[i], "dev:w", DBR_LONG, 1);
    fake_up(&fakes[2]);
    ex_wait_begin(lane, &w);
    for (i = 0; i < N; i++)
        there += ex_wait_connected(channels[i], &w, &nodes[i]);
    CHECK_EQ(there, 1);
    CHECK_EQ(w.left, N - 1);
    CHECK_EQ(ex_wait_for(lane, &w, ex_now() + 5000000), 0);       /* nobody answers */
    for (i = 0; i < N; i++)
        if (i != 2)
            pthread_create(&threads[i], NULL, up_later, &fakes[i]);
    CHECK_EQ(ex_wait_for(lane, &w, EX_FOREVER), 1);
    ex_wait_end(lane, &w, nodes, N);
    for (i = 0; i < N; i++) {
        if (i != 2)
            pthread_join(threads[i], NULL);
        CHECK(channels[i]->waiting == NULL);
        end_channel(channels[i]);
    }
    end();
}

static void who_gives_up_leaves_the_list(void)
{
    ex_wait_node a, b, c;
    ex_waiter wa, wb, wc;
    begin();
    ex_wait_begin(lane, &wa);
    ex_wait_begin(lane, &wb);
    ex_wait_begin(lane, &wc);
    CHECK_EQ(ex_wait_connected(ch, &wa, &a), 0);
    CHECK_EQ(ex_wait_connected(ch, &wb, &b), 0);
    CHECK_EQ(ex_wait_connected(ch, &wc, &c), 0);
    ex_wait_end(lane, &wb, &b, 1);               /* from the middle */
    CHECK(ch->waiting == &c && c.next == &a && a.next == NULL);
    ex_wait_end(lane, &wc, &c, 1);               /* from the front */
    CHECK(ch->waiting == &a);
    fake_up(&f);
    CHECK_EQ(wa.left, 0);
    CHECK_EQ(wb.left, 1);                        /* nobody touched it */
    CHECK(a.at == NULL);
    ex_wait_end(lane, &wa, &a, 1);
    CHECK(ch->waiting == NULL);
    end();
}

static void a_drop_wakes_those_who_wait(void)
{
    ex_wait_node n, m;
    ex_waiter w;
    ex_sub *s;
    begin();
    s = ex_sub_get(ch, EX_TIME_OF_NATIVE, 0, 5, 0);
    ex_wait_begin(lane, &w);
    CHECK_EQ(ex_wait_connected(ch, &w, &n), 0);
    CHECK_EQ(ex_wait_value(s, &w, &m), 0);
    ex_channel_ref(ch);
    ex_channel_drop(ch);
    CHECK_EQ(w.left, 0);
    CHECK_EQ(ex_wait_for(lane, &w, EX_FOREVER), 1);
    ex_wait_end(lane, &w, &n, 1);
    CHECK_EQ(ex_wait_connected(ch, &w, &n), 1);  /* closed: nothing to wait for */
    CHECK_EQ(ex_wait_value(s, &w, &m), 1);
    ex_sub_leave(s);
    ex_channel_unref(ch);
    ex_channel_unref(ch);
    keeper(lane);
    end_lane(lane);
}

static void a_value_or_an_error_wakes(void)
{
    ex_wait_node n;
    ex_waiter w;
    ex_sub *s;
    struct event_handler_args args;
    begin();
    fake_up(&f);
    s = ex_sub_get(ch, EX_TIME_OF_NATIVE, 0, 5, 0);
    keeper(lane);
    ex_wait_begin(lane, &w);
    CHECK_EQ(ex_wait_value(s, &w, &n), 0);
    fake_event(s, 1, 1);
    CHECK_EQ(ex_wait_for(lane, &w, EX_FOREVER), 1);
    CHECK_EQ(ex_wait_value(s, &w, &n), 1);       /* it is there */
    fake_down(&f);
    CHECK_EQ(ex_wait_value(s, &w, &n), 0);       /* and old */
    fake_up(&f);
    CHECK_EQ(w.left, 1);                         /* connected is not yet a value */
    memset(&args, 0, sizeof args);
    args.usr = s;
    args.type = -1;
    args.status = ECA_NORDACCESS;
    ex_on_event(args);
    CHECK_EQ(w.left, 0);
    CHECK_EQ(ex_wait_value(s, &w, &n), 1);
    ex_wait_end(lane, &w, &n, 1);
    ex_sub_leave(s);
    end();
}

/* -------------------------------------------------------------------- errors */

static void exception(fake *g, long status, long op, const char *text)
{
    struct exception_handler_args args;
    memset(&args, 0, sizeof args);
    args.usr = lane;
    args.chid = g ? chid_of(g) : NULL;
    args.stat = status;
    args.op = op;
    args.ctx = text;
    ex_on_exception(args);
}

static void errors_are_logged_and_counted(void)
{
    ex_taken t;
    const char *text;
    begin();
    fake_up(&f);
    exception(&f, ECA_PUTFAIL, CA_OP_PUT, "no such state");
    CHECK_EQ(ch->rejected_puts, 1);
    CHECK_EQ(lane->server_errors, 1);
    CHECK_EQ(ex_lane_take(lane, &t), EX_NOTE_LOG);
    CHECK(!strcmp((const char *)t.subject, "dev:x"));
    text = (const char *)t.subject + strlen("dev:x") + 1;
    CHECK(strstr(text, "no such state") != NULL);
    CHECK_EQ(t.a, 30);
    ex_taken_done(&t);
    exception(NULL, ECA_DISCONN, CA_OP_OTHER, NULL);
    CHECK_EQ(ex_lane_take(lane, &t), EX_NOTE_LOG);
    CHECK_EQ(*(const char *)t.subject, 0);
    CHECK_EQ(t.a, 20);
    ex_taken_done(&t);
    CHECK_EQ(lane->server_errors, 1);
    end();
}

static void an_unresponsive_circuit_taints(void)
{
    begin();
    fake_up(&f);
    exception(NULL, ECA_UNRESPTMO, CA_OP_OTHER, "ioc:5064");
    fake_down(&f);
    CHECK_EQ(ch->tainted, 1);
    fake_up(&f);
    CHECK_EQ(ch->tainted, 1);                    /* the same circuit answers again: the server goes on as before */
    exception(NULL, ECA_DISCONN, CA_OP_OTHER, "ioc:5064");
    fake_down(&f);
    CHECK_EQ(ch->tainted, 0);                    /* a real loss: the server forgot us too */
    end();
}

static void hosts_are_shared(void)
{
    fake g;
    ex_channel *second;
    begin();
    second = fake_channel(lane, &g, "dev:y", DBR_LONG, 1);
    fake_up(&f);
    fake_up(&g);
    CHECK(ch->host == second->host);
    memset(g.host, 'h', sizeof g.host - 1);      /* as long as may be */
    fake_down(&g);
    fake_up(&g);
    CHECK(!strcmp(second->host, g.host));
    end_channel(second);
    end();
}

int main(void)
{
    RUN(the_truth_of_a_connection);
    RUN(news_only_for_those_who_asked);
    RUN(connection_notes_are_never_dropped);
    RUN(down_twice_and_down_without_up);
    RUN(rights_are_read_again_whatever_the_argument_says);
    RUN(rights_are_told_only_while_connected);
    RUN(a_dropped_channel_is_closed_for_good);
    RUN(a_handle_opened_after_the_drop_hears_nothing);
    RUN(equal_subscriptions_are_one);
    RUN(a_subscription_found_before_it_was_forgotten_lives_on);
    RUN(a_channel_is_planned_once);
    RUN(a_plan_while_working_is_only_a_mark);
    RUN(a_plan_wakes_all_spares_while_the_keeper_is_busy);
    RUN(what_plans_a_channel);
    RUN(one_wait_for_many_channels);
    RUN(who_gives_up_leaves_the_list);
    RUN(a_drop_wakes_those_who_wait);
    RUN(a_value_or_an_error_wakes);
    RUN(errors_are_logged_and_counted);
    RUN(an_unresponsive_circuit_taints);
    RUN(hosts_are_shared);
    return finish();
}

/* The newest value of a subscription: swapped without a queue, replayed to who joins, fresh only while it is true;
 * and what is refused of what comes. */
#include "fakes.h"

static ex_lane *lane;
static fake f;
static ex_channel *ch;

static void begin(unsigned long count)
{
    fakes_install();
    lane = ex_lane_new("test");
    ch = fake_channel(lane, &f, "dev:x", DBR_DOUBLE, count);
    fake_up(&f);
}

static void end(void)
{
    end_channel(ch);
    end_lane(lane);
}

/* The first value of the newest block, -1 for none; whether it is fresh. */
static double newest(ex_sub *sub, int *fresh)
{
    ex_block *b = ex_sub_newest(sub, fresh);
    double value = b ? block_value(b, 0) : -1;
    ex_block_unref(b);
    return value;
}

static void without_listeners_only_the_newest_stays(void)
{
    ex_handle *h;
    ex_counts c;
    int i, fresh;
    begin(1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 0, 10, 0, NULL);
    CHECK_EQ(newest(h->sub, &fresh), -1);
    CHECK_EQ(fresh, 0);
    for (i = 0; i < 1000; i++) {
        fake_event(h->sub, 1, i);
        CHECK_EQ(lane->queued, 0);
        CHECK_EQ(ex_blocks(), 1);
        CHECK_EQ(newest(h->sub, &fresh), i);
        CHECK_EQ(fresh, 1);
    }
    ex_handle_counts(h, &c);
    CHECK_EQ(c.received, 1000);
    CHECK_EQ(c.delivered, 1000);
    CHECK(lane_consistent(lane));
    close_handle(h);
    end();
}

static void a_block_in_use_outlives_the_swap(void)
{
    ex_handle *h;
    ex_block *mine;
    begin(1000);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 0, 10, 0, NULL);
    fake_event(h->sub, 1000, 5);
    mine = ex_sub_newest(h->sub, NULL);
    fake_event(h->sub, 1000, 6);
    CHECK_EQ(ex_blocks(), 2);
    CHECK_EQ(block_value(mine, 999), 1004);
    close_handle(h);
    end_channel(ch);
    CHECK_EQ(ex_blocks(), 1);
    CHECK_EQ(block_value(mine, 0), 5);
    ex_block_unref(mine);
    end_lane(lane);
}

static void the_scalar_mark_is_the_records_count(void)
{
    ex_handle *h;
    ex_block *b;
    begin(1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 0, 10, 0, NULL);
    fake_event(h->sub, 1, 5);
    b = ex_sub_newest(h->sub, NULL);
    CHECK_EQ(b->scalar, 1);
    ex_block_unref(b);
    close_handle(h);
    end();
    begin(2);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 0, 10, 0, NULL);
    fake_event(h->sub, 1, 5);                    /* an array that happens to hold one */
    b = ex_sub_newest(h->sub, NULL);
    CHECK_EQ(b->scalar, 0);
    ex_block_unref(b);
    close_handle(h);
    end();
}

static void who_joins_gets_the_fresh_value(void)
{
    ex_handle *first, *second, *quiet, *without;
    begin(1);
    first = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    CHECK_EQ(lane->queued, 0);                   /* nothing has come yet */
    fake_event(first->sub, 1, 3);
    CHECK_EQ(take_value(lane, first), 3);
    second = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    CHECK(second->sub == first->sub);
    CHECK_EQ(second->received, 1);
    CHECK_EQ(take_value(lane, second), 3);
    CHECK_EQ(skip_note(lane), 0);                /* and only that one */
    quiet = open_handle(ch, EX_TIME_OF_NATIVE, 0, 10, 0, NULL);
    CHECK_EQ(quiet->received, 1);
    CHECK_EQ(quiet->delivered, 1);
    without = ex_handle_new(ex_sub_get(ch, EX_TIME_OF_NATIVE, 0, 5, 0), 1, 10, 0, 0, NULL, NULL);
    CHECK_EQ(without->received, 0);
    CHECK_EQ(skip_note(lane), 0);
    fake_down(&f);                               /* what was true then is not news now */
    close_handle(second);
    second = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    CHECK_EQ(second->received, 0);
    fake_up(&f);
    close_handle(second);
    second = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    CHECK_EQ(second->received, 0);
    fake_event(first->sub, 1, 4);
    CHECK_EQ(take_value(lane, first), 4);
    CHECK_EQ(take_value(lane, without), 4);
    CHECK_EQ(take_value(lane, second), 4);       /* in the order of joining */
    CHECK(counts_add_up(first) && counts_add_up(second) && counts_add_up(quiet) && counts_add_up(without));
    close_handle(first);
    close_handle(second);
    close_handle(quiet);
    close_handle(without);
    end();
}

static void fresh_ends_with_the_connection(void)
{
    ex_handle *h;
    int fresh;
    begin(1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 0, 10, 0, NULL);
    fake_event(h->sub, 1, 1);
    fake_down(&f);
    CHECK_EQ(newest(h->sub, &fresh), 1);         /* still to be had, and known to be old */
    CHECK_EQ(fresh, 0);
    fake_up(&f);
    CHECK_EQ(newest(h->sub, &fresh), 1);
    CHECK_EQ(fresh, 0);
    fake_event(h->sub, 1, 2);
    CHECK_EQ(newest(h->sub, &fresh), 2);
    CHECK_EQ(fresh, 1);
    fake_up(&f);                                 /* a second UP without a DOWN between */
    CHECK_EQ(newest(h->sub, &fresh), 2);
    CHECK_EQ(fresh, 0);
    close_handle(h);
    end();
}

static void another_type_is_another_subscription_of_libca(void)
{
    ex_handle *h;
    ex_block *b;
    struct event_handler_args args;
    int fresh, begun = server.begun;
    begin(1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    CHECK_EQ(h->sub->live_type, DBR_TIME_DOUBLE);
    fake_event(h->sub, 1, 1);
    fake_down(&f);
    f.type = DBR_LONG;
    fake_up(&f);
    CHECK(lane->plan_head == ch);
    keeper(lane);
    CHECK_EQ(h->sub->live_type, DBR_TIME_LONG);
    CHECK_EQ(server.begun - begun, 2);
    args = fake_args(h->sub, DBR_TIME_DOUBLE, 1, 2);      /* a straggler of the old type */
    ex_on_event(args);
    free((void *)args.dbr);
    CHECK_EQ(ch->decode_errors, 1);
    newest(h->sub, &fresh);
    CHECK_EQ(fresh, 0);
    fake_event(h->sub, 1, 0);
    b = ex_sub_newest(h->sub, &fresh);
    CHECK_EQ(b->dbr_type, DBR_TIME_LONG);
    CHECK_EQ(fresh, 1);
    ex_block_unref(b);
    close_handle(h);
    end();
}

static void a_wrong_type_or_count_is_refused_and_counted(void)
{
    static const struct { int type; long count; } wrong[] = {
        {DBR_TIME_LONG, 1}, {DBR_DOUBLE, 1}, {-1, 1}, {39, 1}, {1000, 1},
        {DBR_TIME_DOUBLE, 11}, {DBR_TIME_DOUBLE, -1}, {DBR_TIME_DOUBLE, 1000000},
    };
    ex_handle *h;
    ex_counts c;
    size_t i;
    char dbr[1000] = {0};
    begin(10);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct event_handler_args args;
        memset(&args, 0, sizeof args);
        args.usr = h->sub;
        args.type = wrong[i].type;
        args.count = wrong[i].count;
        args.dbr = dbr;
        args.status = ECA_NORMAL;
        ex_on_event(args);
        CHECK_EQ(ch->decode_errors, i + 1);
    }
    ex_handle_counts(h, &c);
    CHECK_EQ(c.received, 0);
    CHECK_EQ(lane->queued, 0);
    CHECK_EQ(ex_blocks(), 0);
    CHECK_EQ(h->sub->fresh, 0);
    fake_event(h->sub, 10, 1);                   /* exactly as many as the record has */
    CHECK_EQ(take_value(lane, h), 1);
    CHECK_EQ(ch->decode_errors, 8);
    close_handle(h);
    end();
}

static void an_error_status_has_no_value(void)
{
    struct event_handler_args args;
    ex_handle *h;
    int fresh;
    begin(1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    memset(&args, 0, sizeof args);               /* as libca says that the right to read was lost */
    args.usr = h->sub;
    args.type = -1;
    args.count = 0;
    args.dbr = NULL;
    args.status = ECA_NORDACCESS;
    ex_on_event(args);
    CHECK_EQ(h->sub->last_status, ECA_NORDACCESS);
    CHECK_EQ(ch->decode_errors, 0);
    CHECK_EQ(lane->queued, 0);
    args.status = ECA_NORMAL;                    /* normal, but with nothing */
    ex_on_event(args);
    CHECK_EQ(lane->queued, 0);
    CHECK_EQ(newest(h->sub, &fresh), -1);
    CHECK_EQ(fresh, 0);
    args.status = ECA_GETFAIL;
    ex_on_event(args);
    fake_event(h->sub, 1, 9);                    /* a good one clears it */
    CHECK_EQ(h->sub->last_status, ECA_NORMAL);
    CHECK_EQ(take_value(lane, h), 9);
    args.status = ECA_NORDACCESS;
    ex_on_event(args);
    fake_up(&f);                                 /* and so does a connection */
    CHECK_EQ(h->sub->last_status, ECA_NORMAL);
    close_handle(h);
    end();
}

static void a_closing_lane_hears_nothing(void)
{
    ex_handle *h;
    begin(1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    ex_store(&lane->closing, 1);
    fake_event(h->sub, 1, 9);
    fake_down(&f);
    fake_access(&f, 0, 0);
    CHECK_EQ(lane->queued, 0);
    CHECK_EQ(ch->state, EX_UP);
    CHECK_EQ(ch->writing, 1);
    CHECK_EQ(h->received, 0);
    ex_store(&lane->closing, 0);
    close_handle(h);
    end();
}

static void listening_may_begin_and_end(void)
{
    ex_handle *h;
    ex_counts c;
    begin(1);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 0, 10, 0, NULL);
    fake_event(h->sub, 1, 1);
    ex_handle_set_queueing(h, 1);
    fake_event(h->sub, 1, 2);
    fake_event(h->sub, 1, 3);
    ex_handle_set_queueing(h, 0);
    fake_event(h->sub, 1, 4);
    CHECK_EQ(take_value(lane, h), 2);            /* what was queued is still delivered */
    CHECK_EQ(take_value(lane, h), 3);
    CHECK_EQ(skip_note(lane), 0);
    ex_handle_counts(h, &c);
    CHECK_EQ(c.received, 4);
    CHECK_EQ(c.delivered, 4);
    CHECK_EQ(c.pending, 0);
    close_handle(h);
    end();
}

static void a_polled_lane_queues_for_everyone(void)
{
    ex_handle *h;
    begin(1);
    lane->polled = 1;
    h = open_handle(ch, EX_TIME_OF_NATIVE, 0, 10, 0, NULL);
    fake_event(h->sub, 1, 1);
    CHECK_EQ(h->waiting, 1);
    CHECK_EQ(take_value(lane, h), 1);
    close_handle(h);
    end();
}

static void a_slab_of_notes_is_enough_for_any_number_of_handles(void)
{
    enum { N = 1500 };                           /* more than one slab holds */
    static ex_handle *handles[N];
    int i;
    begin(1);
    for (i = 0; i < N; i++)
        handles[i] = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    fake_event(handles[0]->sub, 1, 1);
    CHECK_EQ(lane->queued, N);
    fake_event(handles[0]->sub, 1, 2);
    CHECK_EQ(lane->queued, 2 * N);
    CHECK_EQ(ex_blocks(), 2);
    CHECK(lane_consistent(lane));
    for (i = 0; i < N; i++)
        CHECK_EQ(take_value(lane, handles[i]), 1);
    for (i = 0; i < N; i++)
        close_handle(handles[i]);
    CHECK_EQ(lane->queued, 0);
    end();
}

int main(void)
{
    RUN(without_listeners_only_the_newest_stays);
    RUN(a_block_in_use_outlives_the_swap);
    RUN(the_scalar_mark_is_the_records_count);
    RUN(who_joins_gets_the_fresh_value);
    RUN(fresh_ends_with_the_connection);
    RUN(another_type_is_another_subscription_of_libca);
    RUN(a_wrong_type_or_count_is_refused_and_counted);
    RUN(an_error_status_has_no_value);
    RUN(a_closing_lane_hears_nothing);
    RUN(listening_may_begin_and_end);
    RUN(a_polled_lane_queues_for_everyone);
    RUN(a_slab_of_notes_is_enough_for_any_number_of_handles);
    return finish();
}

/* Batches: many requests under one wait. */
#include "fakes.h"

enum { N = 50 };

static ex_lane *lane;
static fake fakes[N];
static ex_channel *channels[N];

static void begin(void)
{
    int i;
    fakes_install();
    lane = ex_lane_new("test");
    for (i = 0; i < N; i++) {
        channels[i] = fake_channel(lane, &fakes[i], "dev:b", DBR_DOUBLE, 2);
        fake_up(&fakes[i]);
    }
}

static void end(void)
{
    int i;
    for (i = 0; i < N; i++)
        end_channel(channels[i]);
    end_lane(lane);
}

/* What ex_ca_get_batch does, without libca; `type` -1 is a put. */
static ex_batch *asked(int type)
{
    ex_batch *b = ex_batch_new(N);
    int i;
    for (i = 0; i < N; i++)
        b->slots[i].type = type;
    ex_batch_lend(b, lane, channels);
    for (i = 0; i < N; i++)
        if (b->slots[i].link.channel)
            channels[i]->in_call--;
    return b;
}

static void answer(ex_batch *b, int i) { fake_reply(&b->slots[i].link, DBR_TIME_DOUBLE, 2, i, ECA_NORMAL); }

static void all_are_answered(void)
{
    ex_batch *b;
    int i;
    begin();
    b = asked(DBR_TIME_DOUBLE);
    CHECK_EQ(ex_lent(), 2 * N);
    CHECK_EQ(ex_load(&b->refs), N + 1);
    CHECK_EQ(ex_batch_wait(b, ex_now()), 0);
    for (i = N - 1; i >= 0; i--) {
        CHECK_EQ(b->left, i + 1);
        answer(b, i);
    }
    CHECK_EQ(ex_batch_wait(b, EX_FOREVER), 1);
    CHECK_EQ(ex_load(&b->refs), 1);
    CHECK_EQ(ex_lent(), N);
    for (i = 0; i < N; i++) {
        CHECK_EQ(b->slots[i].state, EX_DONE);
        CHECK_EQ(b->slots[i].status, ECA_NORMAL);
        CHECK_EQ(block_value(b->slots[i].block, 1), i + 1);
    }
    CHECK_EQ(ex_blocks(), N);
    ex_batch_unref(b);
    CHECK_EQ(ex_blocks(), 0);
    end();
}

static void *answer_all(void *p)
{
    int i;
    for (i = 0; i < N; i++)
        answer((ex_batch *)p, i);
    return NULL;
}

static void the_last_answer_wakes(void)
{
    int round;
    begin();
    for (round = 0; round < 50; round++) {
        ex_batch *b = asked(DBR_TIME_DOUBLE);
        pthread_t t;
        pthread_create(&t, NULL, answer_all, b);
        CHECK_EQ(ex_batch_wait(b, EX_FOREVER), 1);
        ex_batch_unref(b);                       /* the replying thread may still hold the last reference */
        pthread_join(t, NULL);
        CHECK_EQ(ex_blocks(), 0);
    }
    end();
}

static void not_connected_is_told_at_once(void)
{
    ex_batch *b;
    ex_channel *none = channels[3];
    int i;
    begin();
    none = channels[3];
    channels[3] = NULL;
    fake_down(&fakes[5]);
    ex_channel_ref(channels[7]);
    ex_channel_drop(channels[7]);
    b = asked(DBR_TIME_DOUBLE);
    CHECK_EQ(b->left, N - 3);
    CHECK(b->slots[3].state == EX_DONE && b->slots[3].status == ECA_DISCONN);
    CHECK(b->slots[5].state == EX_DONE && b->slots[5].status == ECA_DISCONN);
    CHECK(b->slots[7].state == EX_DONE && b->slots[7].status == ECA_CHANDESTROY);
    CHECK(b->slots[5].link.channel == NULL);
    for (i = 0; i < N; i++)
        if (i != 3 && i != 5 && i != 7)
            answer(b, i);
    CHECK_EQ(ex_batch_wait(b, EX_FOREVER), 1);
    ex_batch_unref(b);
    channels[3] = none;
    ex_channel_unref(channels[7]);
    end();
}

static void refused_slots(void)
{
    ex_batch *b;
    int i;
    begin();
    b = asked(DBR_TIME_DOUBLE);
    for (i = 0; i < N; i += 2)
        ex_batch_refuse(b, (size_t)i, ECA_NORDACCESS);
    CHECK_EQ(b->left, N / 2);
    CHECK_EQ(ex_lent(), N + N / 2);
    for (i = 1; i < N; i += 2)
        answer(b, i);
    CHECK_EQ(ex_batch_wait(b, EX_FOREVER), 1);
    CHECK_EQ(b->slots[4].status, ECA_NORDACCESS);
    CHECK(b->slots[4].block == NULL);
    CHECK_EQ(b->slots[5].status, ECA_NORMAL);
    CHECK_EQ(ex_load(&b->refs), 1);
    ex_batch_unref(b);
    end();
}

static void late_replies_after_giving_up(void)
{
    ex_batch *b;
    int i;
    begin();
    b = asked(DBR_TIME_DOUBLE);
    for (i = 0; i < 10; i++)
        answer(b, i);
    CHECK_EQ(ex_batch_wait(b, ex_now() + 5000000), 0);
    ex_batch_abandon(b);
    CHECK_EQ(ex_batch_wait(b, EX_FOREVER), 1);
    CHECK_EQ(b->slots[9].state, EX_DONE);
    CHECK_EQ(b->slots[10].state, EX_ABANDONED);
    CHECK_EQ(b->slots[10].status, ECA_TIMEOUT);
    for (i = 10; i < 20; i++)
        answer(b, i);
    CHECK(b->slots[10].block == NULL);           /* nobody would read it */
    CHECK_EQ(b->slots[10].state, EX_ABANDONED);
    CHECK_EQ(b->left, 0);
    CHECK_EQ(ex_blocks(), 10);
    ex_batch_unref(b);                           /* what is still open stays lent until libca answers */
    CHECK_EQ(ex_lent(), N + 30);
    for (i = 20; i < N; i++)
        answer(b, i);
    CHECK_EQ(ex_lent(), N);
    CHECK_EQ(ex_blocks(), 0);
    end();
}

static void a_cleared_channel_ends_its_slots(void)
{
    ex_batch *b;
    int i;
    begin();
    b = asked(DBR_TIME_DOUBLE);
    for (i = 0; i < N; i++)
        ex_channel_recall(channels[i]);
    CHECK_EQ(ex_batch_wait(b, EX_FOREVER), 1);
    for (i = 0; i < N; i++)
        CHECK(b->slots[i].state == EX_DONE && b->slots[i].status == ECA_DISCONN);
    CHECK_EQ(ex_load(&b->refs), 1);
    ex_batch_unref(b);
    end();
}

static void close_and_shutdown_end_the_wait(void)
{
    ex_batch *b;
    int i;
    begin();
    b = asked(DBR_TIME_DOUBLE);
    ex_channel_close_pending(channels[0], EX_BY_CLOSE, NULL);
    CHECK_EQ(b->slots[0].status, ECA_CHANDESTROY);
    CHECK_EQ(b->left, N - 1);
    ex_channel_close_pending(channels[1], EX_BY_CLOSE, b);        /* an owner's close is not for batches */
    CHECK_EQ(b->slots[1].state, EX_PENDING);
    ex_lane_end_requests(lane, EX_BY_SHUTDOWN);
    CHECK_EQ(ex_batch_wait(b, EX_FOREVER), 1);
    CHECK_EQ(ex_lent(), 2 * N);
    for (i = 0; i < N; i++)
        answer(b, i);
    CHECK_EQ(b->slots[0].status, ECA_CHANDESTROY);
    CHECK(b->slots[0].block == NULL);
    CHECK_EQ(ex_blocks(), 0);
    ex_batch_unref(b);
    end();
}

static void wrong_replies_and_errors(void)
{
    ex_batch *b;
    int i;
    begin();
    b = asked(DBR_TIME_DOUBLE);
    fake_reply(&b->slots[0].link, DBR_TIME_LONG, 1, 0, ECA_NORMAL);
    fake_reply(&b->slots[1].link, DBR_TIME_DOUBLE, 3, 0, ECA_NORMAL);      /* the record has two */
    fake_reply(&b->slots[2].link, -1, 0, 0, ECA_DISCONN);
    CHECK_EQ(b->slots[0].status, ECA_BADTYPE);
    CHECK_EQ(b->slots[1].status, ECA_BADTYPE);
    CHECK_EQ(b->slots[2].status, ECA_DISCONN);
    CHECK_EQ(ex_blocks(), 0);
    for (i = 3; i < N; i++)
        answer(b, i);
    ex_batch_unref(b);
    b = asked(-1);                               /* puts: whatever the reply carries is no value */
    for (i = 0; i < N; i++)
        fake_reply(&b->slots[i].link, DBR_DOUBLE, 1, 0, i % 2 ? ECA_NORMAL : ECA_PUTFAIL);
    CHECK_EQ(ex_batch_wait(b, EX_FOREVER), 1);
    for (i = 0; i < N; i++)
        CHECK_EQ(b->slots[i].status, i % 2 ? ECA_NORMAL : ECA_PUTFAIL);
    CHECK_EQ(ex_blocks(), 0);
    ex_batch_unref(b);
    end();
}

static void one_channel_many_times(void)
{
    ex_batch *b;
    ex_channel *saved[N];
    int i;
    begin();
    memcpy(saved, channels, sizeof saved);
    for (i = 0; i < N; i++)
        channels[i] = saved[0];
    b = asked(DBR_TIME_DOUBLE);
    CHECK_EQ(saved[0]->in_call, 0);
    for (i = 0; i < N; i += 3)
        answer(b, i);
    ex_channel_recall(saved[0]);
    CHECK_EQ(ex_batch_wait(b, EX_FOREVER), 1);
    for (i = 0; i < N; i++)
        CHECK_EQ(b->slots[i].status, i % 3 ? ECA_DISCONN : ECA_NORMAL);
    ex_batch_unref(b);
    memcpy(channels, saved, sizeof saved);
    end();
}

static void small_values_need_no_block(void)
{
    static const struct { short type; int dbr, count, kept; } cases[] = {
        {DBR_DOUBLE, DBR_TIME_DOUBLE, 1, 1}, {DBR_STRING, DBR_TIME_STRING, 1, 1}, {DBR_CHAR, DBR_TIME_CHAR, 1, 1},
        {DBR_DOUBLE, DBR_TIME_DOUBLE, 0, 0}, {DBR_DOUBLE, DBR_CTRL_DOUBLE, 1, 0},
    };
    size_t k;
    for (k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        fake f;
        ex_channel *ch;
        ex_batch *b = ex_batch_new(2);
        fakes_install();
        lane = ex_lane_new("test");
        ch = fake_channel(lane, &f, "dev:s", cases[k].type, 1);
        fake_up(&f);
        b->keep_small = 1;
        b->slots[0].type = b->slots[1].type = cases[k].dbr;
        ex_batch_lend(b, lane, (ex_channel *[]){ch, ch});
        ch->in_call = 0;
        fake_reply(&b->slots[0].link, cases[k].dbr, cases[k].count, 7, ECA_NORMAL);
        CHECK(!b->slots[1].is_small);
        fake_reply(&b->slots[1].link, cases[k].dbr, cases[k].count, 7, ECA_GETFAIL);
        CHECK_EQ(ex_batch_wait(b, EX_FOREVER), 1);
        CHECK_EQ(b->slots[0].status, ECA_NORMAL);
        CHECK_EQ(b->slots[0].is_small, cases[k].kept);
        CHECK_EQ(b->slots[0].block == NULL, cases[k].kept);
        CHECK(b->slots[1].status == ECA_GETFAIL && !b->slots[1].is_small && !b->slots[1].block);
        CHECK_EQ(ex_blocks(), !cases[k].kept);
        if (k == 0) {
            CHECK(((struct dbr_time_double *)b->slots[0].small)->value == 7.0);
        }
        ex_batch_unref(b);
        CHECK_EQ(ex_blocks(), 0);
        end_channel(ch);
        end_lane(lane);
    }
}

int main(void)
{
    RUN(all_are_answered);
    RUN(the_last_answer_wakes);
    RUN(not_connected_is_told_at_once);
    RUN(refused_slots);
    RUN(late_replies_after_giving_up);
    RUN(a_cleared_channel_ends_its_slots);
    RUN(close_and_shutdown_end_the_wait);
    RUN(wrong_replies_and_errors);
    RUN(one_channel_many_times);
    RUN(small_values_need_no_block);
    return finish();
}

/* When memory runs out for a block: a loss is counted like any other, a request ends with an error, nothing crashes. */
#include <malloc.h>

#include "fakes.h"

static atomic_int none_left;

/* Takes the place of the C library's in this program. */
int posix_memalign(void **p, size_t alignment, size_t size)
{
    if (atomic_load(&none_left))
        return ENOMEM;
    *p = memalign(alignment, size);
    return *p ? 0 : ENOMEM;
}

enum { BIG = 200000 };                   /* no other test leaves such a block in the pool */

static ex_lane *lane;
static fake f;
static ex_channel *ch;

static void begin(void)
{
    fakes_install();
    lane = ex_lane_new("test");
    ch = fake_channel(lane, &f, "dev:x", DBR_DOUBLE, BIG);
    fake_up(&f);
}

static void end(void)
{
    atomic_store(&none_left, 0);
    end_channel(ch);
    end_lane(lane);
}

static void an_event_without_memory_is_dropped(void)
{
    ex_handle *h, *quiet;
    ex_counts c;
    begin();
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    quiet = open_handle(ch, EX_TIME_OF_NATIVE, 0, 10, 0, NULL);
    fake_event(h->sub, 1, 1);
    atomic_store(&none_left, 1);
    fake_event(h->sub, BIG, 2);
    atomic_store(&none_left, 0);
    fake_event(h->sub, 1, 3);
    ex_handle_counts(h, &c);
    CHECK_EQ(c.received, 3);
    CHECK_EQ(c.dropped, 1);
    CHECK_EQ(c.pending, 2);
    ex_handle_counts(quiet, &c);
    CHECK_EQ(c.received, 3);
    CHECK_EQ(c.delivered, 2);
    CHECK_EQ(c.dropped, 1);
    CHECK(lane_consistent(lane));
    CHECK_EQ(take_value(lane, h), 1);
    CHECK_EQ(take_value(lane, h), 3);
    close_handle(h);
    close_handle(quiet);
    end();
}

static void a_reply_without_memory_is_an_error(void)
{
    ex_request *r;
    ex_batch *b;
    begin();
    r = ex_request_new(ch, DBR_TIME_DOUBLE, 0);
    CHECK_EQ(ex_request_lend(r), 0);
    b = ex_batch_new(1);
    b->slots[0].type = DBR_TIME_DOUBLE;
    ex_batch_lend(b, lane, &ch);
    ch->in_call -= 2;
    atomic_store(&none_left, 1);
    fake_reply(&r->link, DBR_TIME_DOUBLE, BIG, 1, ECA_NORMAL);
    fake_reply(&b->slots[0].link, DBR_TIME_DOUBLE, BIG, 1, ECA_NORMAL);
    CHECK_EQ(r->state, EX_DONE);
    CHECK_EQ(r->status, ECA_ALLOCMEM);
    CHECK_EQ(ex_batch_wait(b, EX_FOREVER), 1);
    CHECK_EQ(b->slots[0].status, ECA_ALLOCMEM);
    ex_request_unref(r);
    ex_batch_unref(b);
    end();
}

int main(void)
{
    RUN(an_event_without_memory_is_dropped);
    RUN(a_reply_without_memory_is_an_error);
    return finish();
}

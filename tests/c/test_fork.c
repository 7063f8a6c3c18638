/* A forked child: the parent's objects belong to a dead generation there, and new ones work. */
#include <sys/wait.h>

#include "fakes.h"

static ex_block *held, *pooled, *waiting;      /* still known at the child's end: it never frees the parent's */

static int in_child(void (*body)(void))
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);                               /* a child inherits none, and must not outlive the test */
        ex_fork_child();
        body();
        _exit(atomic_load(&check_failures) != 0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void nothing_is_out(void)
{
    ex_block *mine;
    CHECK_EQ(ex_generation_now(), 1);
    CHECK_EQ(ex_blocks(), 0);
    CHECK_EQ(ex_lent(), 0);
    CHECK_EQ(ex_pool_bytes(), 0);
    ex_block_unref(held);                        /* as a collected array would: left alone */
    CHECK_EQ(ex_blocks(), 0);
    CHECK_EQ(ex_pool_bytes(), 0);
    mine = ex_block_new(0, 1, 0, 5000);
    CHECK(mine != pooled && mine != held);
    CHECK_EQ(mine->generation, 1);
    CHECK_EQ(ex_blocks(), 1);
    ex_block_unref(mine);
    CHECK_EQ(ex_blocks(), 0);
    CHECK(ex_pool_bytes() > 0);
}

static void the_parents_blocks_are_left_alone(void)
{
    pooled = ex_block_new(0, 1, 0, 5000);
    held = ex_block_new(0, 1, 0, 5000);
    ex_block_unref(pooled);
    ex_lent_add(3);
    CHECK_EQ(in_child(nothing_is_out), 0);
    CHECK_EQ(ex_generation_now(), 0);
    CHECK_EQ(ex_blocks(), 1);
    CHECK_EQ(ex_lent(), 3);
    ex_lent_add(-3);
    ex_block_unref(held);
}

static void *hold_the_pool(void *stop)
{
    while (!atomic_load((atomic_int *)stop)) {
        ex_block *b = ex_block_new(0, 1, 0, 300);
        ex_block_unref(b);
    }
    return NULL;
}

static void allocate(void)
{
    ex_block_unref(ex_block_new(0, 1, 0, 300));
}

static void a_lock_held_at_the_fork_does_not_matter(void)
{
    pthread_t t;
    atomic_int stop = 0;
    int i;
    pthread_create(&t, NULL, hold_the_pool, &stop);
    for (i = 0; i < 50; i++)
        if (!CHECK_EQ(in_child(allocate), 0))
            break;
    atomic_store(&stop, 1);
    pthread_join(t, NULL);
}

static ex_lane *parents;
static fake f;
static ex_handle *parents_handle;

static void a_lane_of_its_own(void)
{
    ex_lane *lane = ex_lane_new("child");
    fake g;
    ex_channel *ch;
    ex_handle *h;
    CHECK_EQ(lane->generation, 1);
    CHECK_EQ(parents->generation, 0);
    ch = fake_channel(lane, &g, "dev:x", DBR_DOUBLE, 1);
    memset(server.subs, 0, sizeof server.subs);
    fake_up(&g);
    h = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    fake_event(h->sub, 1, 5);
    CHECK_EQ(take_value(lane, h), 5);
    close_handle(h);
    end_channel(ch);
    end_lane(lane);
}

static void what_the_parents_say_needs_no_lock(void)
{
    ex_channel *ch = parents_handle->sub->channel;
    ex_counts c;
    ex_block *b;
    int fresh;
    ex_handle_counts(parents_handle, &c);
    CHECK_EQ(c.received, 0);
    counts_of_channel(ch, &c);
    CHECK_EQ(c.received, 0);
    ex_channel_failed(ch);
    b = ex_sub_newest(parents_handle->sub, &fresh);
    CHECK(b == waiting && fresh);
    ex_block_unref(b);
}

/* A lane of the parent's, in which one update waits. */
static ex_channel *parents_lane(void)
{
    ex_channel *ch;
    fakes_install();
    parents = ex_lane_new("parent");
    ch = fake_channel(parents, &f, "dev:x", DBR_DOUBLE, 1);
    fake_up(&f);
    parents_handle = open_handle(ch, EX_TIME_OF_NATIVE, 1, 10, 0, NULL);
    fake_event(parents_handle->sub, 1, 7);
    waiting = parents_handle->sub->newest;
    return ch;
}

static void parents_lane_is_whole(ex_channel *ch)
{
    CHECK_EQ(take_value(parents, parents_handle), 7);      /* nothing of it is missing here */
    close_handle(parents_handle);
    end_channel(ch);
    end_lane(parents);
}

static void a_lane_whose_lock_is_held_at_the_fork(void)
{
    ex_channel *ch = parents_lane();
    ex_lock(&parents->lock);
    CHECK_EQ(in_child(what_the_parents_say_needs_no_lock), 0);
    ex_unlock(&parents->lock);
    parents_lane_is_whole(ch);
}

static void a_child_has_a_lane_of_its_own(void)
{
    ex_channel *ch = parents_lane();
    CHECK_EQ(in_child(a_lane_of_its_own), 0);
    parents_lane_is_whole(ch);
}

int main(void)
{
    RUN(the_parents_blocks_are_left_alone);
    RUN(a_lock_held_at_the_fork_does_not_matter);
    RUN(a_child_has_a_lane_of_its_own);
    RUN(a_lane_whose_lock_is_held_at_the_fork);
    return finish();
}

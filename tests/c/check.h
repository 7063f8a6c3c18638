/* The smallest test harness: CHECK says file and line of what is not so, RUN counts the tests, finish() sums up.
 * CHECK may be used in any thread. A program that hangs is ended by SIGALRM, which names it in the shell. */
#ifndef EPICSX_TESTS_CHECK_H
#define EPICSX_TESTS_CHECK_H

#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define CHECK_LIMIT_SECONDS 300          /* generous: the sanitizers and valgrind need it */

static atomic_int check_failures;        /* of the running test */
static int check_tests_passed, check_tests_failed;

__attribute__((unused))
static int check_true(int ok, const char *file, int line, const char *text)
{
    if (!ok && atomic_fetch_add(&check_failures, 1) < 20)
        fprintf(stderr, "%s:%d: not so: %s\n", file, line, text);
    return ok;
}

__attribute__((unused))
static int check_equal(long long a, long long b, const char *file, int line, const char *text)
{
    if (a != b && atomic_fetch_add(&check_failures, 1) < 20)
        fprintf(stderr, "%s:%d: not so: %s (%lld, %lld)\n", file, line, text, a, b);
    return a == b;
}

/* Both give 1 when it is so, so that a test may stop where going on makes no sense. */
#define CHECK(condition) check_true((condition) != 0, __FILE__, __LINE__, #condition)
#define CHECK_EQ(a, b) check_equal((long long)(a), (long long)(b), __FILE__, __LINE__, #a " == " #b)

static void check_run(const char *name, void (*test)(void))
{
    atomic_store(&check_failures, 0);
    alarm(CHECK_LIMIT_SECONDS);
    test();
    if (atomic_load(&check_failures)) {
        check_tests_failed++;
        fprintf(stderr, "FAILED %s (%d checks)\n", name, atomic_load(&check_failures));
    } else
        check_tests_passed++;
}
#define RUN(test) check_run(#test, test)

static int finish(void)
{
    printf("%d passed, %d failed\n", check_tests_passed, check_tests_failed);
    return check_tests_failed != 0;
}

#endif

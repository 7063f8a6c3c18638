/* clockshim: a wall clock that a test steps while the process runs, by LD_PRELOAD. Linux with glibc.
 *
 * CLOCKSHIM names a file of 8 bytes, an int64: the nanoseconds to add to CLOCK_REALTIME. The test writes it at any
 * time; it is mapped, so the step is seen at once. CLOCK_MONOTONIC stays as it is. Processes that this one starts, such
 * as a server, keep the real time: LD_PRELOAD is set back to CLOCKSHIM_REST.
 *
 * Who waits for a time of day waits anew after a step, as the kernel's own timers do: such waits are cut into slices
 * of SLICE, and after each the stepped clock is asked. A deadline of a condition variable may belong to either clock;
 * which one is told by its size, as no machine has been up for 10^9 s.
 *
 * Threads. Every function may run in any thread, also before main. The offset is read with one atomic load.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define SLICE 20000000LL /* ns */

static int64_t nothing;
static int64_t *offset_ns = &nothing;

/* Its place in libc. `version` is the oldest that is right: dlsym gives pthread_cond_timedwait's first version, that
 * of LinuxThreads. */
static void *next(const char *name, const char *version)
{
    void *found = version ? dlvsym(RTLD_NEXT, name, version) : NULL;
    if (!found)
        found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

#define NEXT(name, version)                                             \
    static __typeof__(&name) libc_##name;                               \
    if (!__atomic_load_n(&libc_##name, __ATOMIC_RELAXED))               \
    __atomic_store_n(&libc_##name, next(#name, version), __ATOMIC_RELAXED)

__attribute__((constructor)) static void map_the_file(void)
{
    const char *path = getenv("CLOCKSHIM");
    const char *rest = getenv("CLOCKSHIM_REST");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped;

    if (rest)
        setenv("LD_PRELOAD", rest, 1);
    else
        unsetenv("LD_PRELOAD");
    if (file < 0)
        return;
    mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        offset_ns = mapped;
    close(file);
}

static int64_t offset(void)
{
    return __atomic_load_n(offset_ns, __ATOMIC_RELAXED);
}

static int64_t as_ns(const struct timespec *t)
{
    return (int64_t)t->tv_sec * SECOND + t->tv_nsec;
}

static struct timespec as_timespec(int64_t ns)
{
    struct timespec t = {ns / SECOND, ns % SECOND};
    return t;
}

static int of_day(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
}

/* -- what the time is */

int clock_gettime(clockid_t clock, struct timespec *t)
{
    NEXT(clock_gettime, NULL);
    int answer = libc_clock_gettime(clock, t);

    if (answer == 0 && of_day(clock) && offset())
        *t = as_timespec(as_ns(t) + offset());
    return answer;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *t)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (t)
        *t = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *t, int base)
{
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, t) == 0 ? base : 0;
}

/* -- who waits for a time of day */

/* The kernel's time of day at which to wake: the deadline, or the end of a slice; *last says which. */
static struct timespec slice(const struct timespec *deadline, int *last)
{
    struct timespec now;
    int64_t left, wake;

    clock_gettime(CLOCK_REALTIME, &now);
    left = as_ns(deadline) - as_ns(&now);
    *last = left <= SLICE;
    wake = as_ns(&now) - offset() + (*last ? left : SLICE);
    return as_timespec(wake);
}

static int is_of_day(const struct timespec *deadline)
{
    return deadline->tv_sec >= 1000000000;
}

/* Calls WAIT with `until` again and again, as long as FAILED and the stepped clock has not reached the deadline. */
#define IN_SLICES(deadline, WAIT, FAILED)                           \
    for (;;) {                                                      \
        int last;                                                   \
        struct timespec until = slice(deadline, &last);             \
        int answer = WAIT;                                          \
        if (last || !(FAILED))                                      \
            return answer;                                          \
    }

int pthread_cond_timedwait(
    pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict deadline)
{
    NEXT(pthread_cond_timedwait, "GLIBC_2.3.2");
    if (!is_of_day(deadline))
        return libc_pthread_cond_timedwait(c, m, deadline);
    IN_SLICES(deadline, libc_pthread_cond_timedwait(c, m, &until), answer == ETIMEDOUT)
}

int pthread_cond_clockwait(
    pthread_cond_t *restrict c, pthread_mutex_t *restrict m, clockid_t clock, const struct timespec *restrict deadline)
{
    NEXT(pthread_cond_clockwait, NULL);
    if (!of_day(clock))
        return libc_pthread_cond_clockwait(c, m, clock, deadline);
    IN_SLICES(deadline, libc_pthread_cond_clockwait(c, m, clock, &until), answer == ETIMEDOUT)
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict m, const struct timespec *restrict deadline)
{
    NEXT(pthread_mutex_timedlock, NULL);
    IN_SLICES(deadline, libc_pthread_mutex_timedlock(m, &until), answer == ETIMEDOUT)
}

int sem_timedwait(sem_t *restrict s, const struct timespec *restrict deadline)
{
    NEXT(sem_timedwait, NULL);
    IN_SLICES(deadline, libc_sem_timedwait(s, &until), answer && errno == ETIMEDOUT)
}

int sem_clockwait(sem_t *restrict s, clockid_t clock, const struct timespec *restrict deadline)
{
    NEXT(sem_clockwait, NULL);
    if (!of_day(clock))
        return libc_sem_clockwait(s, clock, deadline);
    IN_SLICES(deadline, libc_sem_clockwait(s, clock, &until), answer && errno == ETIMEDOUT)
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *t, struct timespec *left)
{
    NEXT(clock_nanosleep, "GLIBC_2.17");
    if (!of_day(clock) || !(flags & TIMER_ABSTIME))
        return libc_clock_nanosleep(clock, flags, t, left);
    IN_SLICES(t, libc_clock_nanosleep(clock, flags, &until, left), answer == 0)
}

/* Locks, waits, threads and atomics: the few primitives that the core needs from an operating system.
 *
 * Three branches: POSIX (Linux, the BSDs), macOS (no clock choice on condition variables: relative waits),
 * and Win32. Everything is static inline, so that both the extension and the C tests can include it.
 * All deadlines are monotonic nanoseconds of ex_now(): a step of the wall clock changes nothing. */
#ifndef EPICSX_SYNC_H
#define EPICSX_SYNC_H

#include <stdint.h>
#include <stdlib.h>

#define EX_FOREVER INT64_MAX

/* C11 atomics where the compiler has them; every compiler we build with (gcc, clang, MSVC 2022) does. */
#if !defined(_MSC_VER)
#include <stdatomic.h>
typedef atomic_int ex_atomic_int;
typedef _Atomic int64_t ex_atomic_i64;
#define ex_load(p) atomic_load_explicit((p), memory_order_acquire)
#define ex_store(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define ex_add(p, v) (atomic_fetch_add_explicit((p), (v), memory_order_acq_rel) + (v))
#define ex_fence() atomic_thread_fence(memory_order_seq_cst)
#define EX_THREAD_LOCAL _Thread_local
#else
#include <intrin.h>
typedef volatile long ex_atomic_int;
typedef volatile int64_t ex_atomic_i64;
#define ex_load(p) (*(p))
#define ex_store(p, v) ((void)(*(p) = (v)))
#define ex_fence() MemoryBarrier()
#define ex_add(p, v) \
    (sizeof(*(p)) == 8 ? (int64_t)_InterlockedExchangeAdd64((volatile __int64 *)(p), (v)) + (v) \
                       : (int64_t)_InterlockedExchangeAdd((volatile long *)(p), (long)(v)) + (v))
#define EX_THREAD_LOCAL __declspec(thread)
#endif

#if defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <winsock2.h>
#include <process.h>
typedef SRWLOCK ex_mutex;
typedef CONDITION_VARIABLE ex_cond;
typedef HANDLE ex_thread;

static inline void ex_mutex_init(ex_mutex *m) { InitializeSRWLock(m); }
static inline void ex_mutex_destroy(ex_mutex *m) { (void)m; }
static inline void ex_lock(ex_mutex *m) { AcquireSRWLockExclusive(m); }
static inline void ex_unlock(ex_mutex *m) { ReleaseSRWLockExclusive(m); }
static inline void ex_cond_init(ex_cond *c) { InitializeConditionVariable(c); }
static inline void ex_cond_destroy(ex_cond *c) { (void)c; }
static inline void ex_signal(ex_cond *c) { WakeConditionVariable(c); }
static inline void ex_broadcast(ex_cond *c) { WakeAllConditionVariable(c); }
static inline int64_t ex_now(void)
{
    LARGE_INTEGER ticks, rate;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&rate);
    return (int64_t)((double)ticks.QuadPart * 1e9 / (double)rate.QuadPart);
}
static inline int64_t ex_now_coarse(void) { return (int64_t)GetTickCount64() * 1000000; }
static inline int64_t ex_wall(void)
{
    FILETIME t;
    ULARGE_INTEGER ticks;
    GetSystemTimeAsFileTime(&t);
    ticks.LowPart = t.dwLowDateTime;
    ticks.HighPart = t.dwHighDateTime;
    return (int64_t)(ticks.QuadPart - 116444736000000000ull) * 100;
}
static inline int ex_wait(ex_cond *c, ex_mutex *m, int64_t deadline)
{
    int64_t left;
    if (deadline == EX_FOREVER)
        return SleepConditionVariableSRW(c, m, INFINITE, 0) != 0;
    left = deadline - ex_now();
    if (left <= 0)
        return 0;
    if (left > 86400000000000ll)
        left = 86400000000000ll;         /* milliseconds in a DWORD end after 49 days: wake once a day without cause */
    return SleepConditionVariableSRW(c, m, (DWORD)(left / 1000000 + 1), 0) != 0 || ex_now() < deadline;
}
/* One byte, to wake whoever reads at the other end of a socket pair; Windows knows sockets apart from files. */
static inline void ex_poke(int fd) { (void)send((SOCKET)fd, "x", 1, 0); }
typedef struct { void (*body)(void *); void *arg; } ex_start_args;
static unsigned __stdcall ex_thread_main(void *p)
{
    ex_start_args a = *(ex_start_args *)p;
    free(p);
    a.body(a.arg);
    return 0;
}
static inline int ex_thread_start(ex_thread *t, void (*body)(void *), void *arg)
{
    ex_start_args *a = (ex_start_args *)malloc(sizeof *a);
    if (!a)
        return -1;
    a->body = body;
    a->arg = arg;
    *t = (HANDLE)_beginthreadex(NULL, 1 << 18, ex_thread_main, a, 0, NULL);
    if (!*t) {
        free(a);
        return -1;
    }
    CloseHandle(*t);
    return 0;
}

#else /* POSIX */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
typedef pthread_mutex_t ex_mutex;
typedef pthread_cond_t ex_cond;
typedef pthread_t ex_thread;

static inline void ex_mutex_init(ex_mutex *m)
{
#if defined(PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP) && defined(__GLIBC__)
    /* The locks here are held for tens of nanoseconds: a short spin is cheaper than a sleep. */
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(m, &a);
    pthread_mutexattr_destroy(&a);
#else
    pthread_mutex_init(m, NULL);
#endif
}
static inline void ex_mutex_destroy(ex_mutex *m) { pthread_mutex_destroy(m); }
static inline void ex_lock(ex_mutex *m) { pthread_mutex_lock(m); }
static inline void ex_unlock(ex_mutex *m) { pthread_mutex_unlock(m); }
static inline int64_t ex_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
/* For what is done per event and need not be better than some milliseconds: a quarter of the cost on Linux. Not to be
 * compared with ex_now(). */
static inline int64_t ex_now_coarse(void)
{
#if defined(CLOCK_MONOTONIC_COARSE)
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
#else
    return ex_now();
#endif
}
/* The system's clock, which people and daemons set: only to notice that they did. */
static inline int64_t ex_wall(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static inline void ex_cond_init(ex_cond *c)
{
#if defined(__APPLE__)
    pthread_cond_init(c, NULL);
#else
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(c, &a);
    pthread_condattr_destroy(&a);
#endif
}
static inline void ex_cond_destroy(ex_cond *c) { pthread_cond_destroy(c); }
static inline void ex_signal(ex_cond *c) { pthread_cond_signal(c); }
static inline void ex_broadcast(ex_cond *c) { pthread_cond_broadcast(c); }
/* Wait until signalled (1) or until the deadline has passed (0). May also wake without cause. */
static inline int ex_wait(ex_cond *c, ex_mutex *m, int64_t deadline)
{
    struct timespec t;
    if (deadline == EX_FOREVER)
        return pthread_cond_wait(c, m) == 0;
#if defined(__APPLE__)
    int64_t left = deadline - ex_now();
    if (left <= 0)
        return 0;
    t.tv_sec = left / 1000000000;
    t.tv_nsec = left % 1000000000;
    return pthread_cond_timedwait_relative_np(c, m, &t) == 0;
#else
    t.tv_sec = deadline / 1000000000;
    t.tv_nsec = deadline % 1000000000;
    return pthread_cond_timedwait(c, m, &t) == 0;
#endif
}
/* One byte, to wake whoever reads at the other end. A full one is as good as a written one: it will wake. */
static inline void ex_poke(int fd)
{
    ssize_t n = write(fd, "x", 1);
    (void)n;
}
typedef struct { void (*body)(void *); void *arg; } ex_start_args;
static void *ex_thread_main(void *p)
{
    ex_start_args a = *(ex_start_args *)p;
    free(p);
    a.body(a.arg);
    return NULL;
}
/* Start a detached native thread with every signal blocked: signals are Python's business. */
static inline int ex_thread_start(ex_thread *t, void (*body)(void *), void *arg)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int rc;
    ex_start_args *a = (ex_start_args *)malloc(sizeof *a);
    if (!a)
        return -1;
    a->body = body;
    a->arg = arg;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 1 << 20);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(t, &attr, ex_thread_main, a);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (rc)
        free(a);
    return rc ? -1 : 0;
}

#endif

#endif

/* The limit that libca sets: each row of the benchmarks done straight on libca.
 *
 * One subcommand per kind of row; each prints one line of JSON.  Rows that need an event source
 * print READY when they are subscribed and start to measure at a line on their standard input.
 *
 * Threads: libca's own threads run the handlers, main waits on one condition variable.
 * One memcpy per array, into a ring of RING slots made and touched beforehand; none per scalar.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cadef.h>

#define RING 64                    /* slots, as deep as a stream is by default */
#define EPICS_EPOCH 631152000.0    /* 1990-01-01 in Unix seconds */
#define AGES 65536                 /* samples of the age of an event */

/* ---- clocks, waiting, checking ---------------------------------------------------------- */

static double now_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double mono(void) { return now_s(CLOCK_MONOTONIC); }

static double cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec)
        + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static long rss_bytes(void)
{
    long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%ld %ld", &total, &resident) != 2) resident = 0;
        fclose(f);
    }
    return resident * sysconf(_SC_PAGESIZE);
}

static void sleep_s(double s)
{
    struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    while (nanosleep(&t, &t) == -1 && errno == EINTR) { }
}

static void die(const char *what)
{
    fprintf(stderr, "client: %s\n", what);
    _exit(1);
}

static void check(int status, const char *what)
{
    if (status != ECA_NORMAL) {
        fprintf(stderr, "client: %s: %s\n", what, ca_message(status));
        _exit(1);
    }
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static long done;    /* completions, under lock */
static long goal;    /* main is woken when done reaches this */

static void complete(void)
{
    pthread_mutex_lock(&lock);
    if (++done >= goal) pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

static void wait_done(long n)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    pthread_mutex_lock(&lock);
    goal = n;
    while (done < n)
        if (pthread_cond_timedwait(&wake, &lock, &until) == ETIMEDOUT) die("no answer in 30 s");
    pthread_mutex_unlock(&lock);
}

/* Says READY and waits for the harness to have started the event source. */
static void wait_go(void)
{
    char line[64];
    puts("READY");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) die("no GO");
}

/* ---- channels ---------------------------------------------------------------------------- */

static void on_connection(struct connection_handler_args a)
{
    if (a.op == CA_OP_CONN_UP) complete();
}

static void on_exception(struct exception_handler_args a)
{
    fprintf(stderr, "client: exception: %s\n", ca_message(a.stat));
}

static void start(void)
{
    check(ca_context_create(ca_enable_preemptive_callback), "ca_context_create");
    check(ca_add_exception_event(on_exception, NULL), "ca_add_exception_event");
}

static chid *connect_all(int n, char **names)
{
    chid *c = calloc((size_t)n, sizeof *c);
    long before = done;
    for (int i = 0; i < n; i++)
        check(ca_create_channel(names[i], on_connection, NULL, 0, &c[i]), names[i]);
    ca_flush_io();
    wait_done(before + n);
    return c;
}

static chid connect_one(char *name) { return connect_all(1, &name)[0]; }

static char **numbered(const char *prefix, int n)
{
    char **names = calloc((size_t)n, sizeof *names);
    for (int i = 0; i < n; i++)
        if (asprintf(&names[i], "%s%d", prefix, i) < 0) die("memory");
    return names;
}

/* ---- the ring of arrays ------------------------------------------------------------------ */

static void *slot[RING];
static size_t slot_bytes;
static atomic_long frames;
static atomic_long bytes_got;

static void make_ring(size_t bytes)
{
    slot_bytes = bytes;
    for (int i = 0; i < RING; i++) {
        if (posix_memalign(&slot[i], 64, (bytes + 63) / 64 * 64)) die("memory");
        memset(slot[i], 1, bytes);
    }
}

static void keep(struct event_handler_args *a)
{
    size_t n = (size_t)a->count * dbr_value_size[a->type];
    long k = atomic_load_explicit(&frames, memory_order_relaxed);
    if (n > slot_bytes) n = slot_bytes;
    memcpy(slot[k % RING], (const char *)a->dbr + dbr_value_offset[a->type], n);
    atomic_store_explicit(&frames, k + 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&bytes_got, (long)n, memory_order_relaxed);
}

/* ---- ages of events ---------------------------------------------------------------------- */

static double ages[AGES];
static long n_ages;

/* Every TIME structure begins with status, severity and stamp. */
static void note_age(const void *dbr)
{
    const struct dbr_time_double *t = dbr;
    if (n_ages < AGES)
        ages[n_ages++] = now_s(CLOCK_REALTIME)
            - (EPICS_EPOCH + t->stamp.secPastEpoch + 1e-9 * t->stamp.nsec);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, long n)
{
    if (n < 1) return 0.0;
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

/* Medians of the first and of the second half of the run: the age must not grow. */
static void print_ages(void)
{
    long half = n_ages / 2;
    if (half < 1) return;
    printf(", \"age_ms\": [%.4f, %.4f]", 1e3 * median(ages, half),
           1e3 * median(ages + half, n_ages - half));
}

static void result(double items, double seconds, double cpu_s)
{
    printf("{\"items\": %.0f, \"seconds\": %.6f, \"cpu\": %.6f", items, seconds, cpu_s);
}

static void end(void)
{
    puts("}");
    fflush(stdout);
    _exit(0);
}

/* ---- get --------------------------------------------------------------------------------- */

static double last_value;

static void on_scalar(struct event_handler_args a)
{
    if (a.status == ECA_NORMAL) last_value = ((const struct dbr_time_double *)a.dbr)->value;
    complete();
}

static void on_array(struct event_handler_args a)
{
    if (a.status == ECA_NORMAL) keep(&a);
    complete();
}

/* One read after the other: by callback for half the time, by ca_array_get and ca_pend_io for the
 * other half.  The faster is C; the output says which. */
static void do_get(char *name, double seconds)
{
    chid c = connect_one(name);
    long count = (long)ca_element_count(c);
    chtype type = dbf_type_to_DBR_TIME(ca_field_type(c));
    caEventCallBackFunc *handler = on_scalar;
    if (count == 1) type = DBR_TIME_DOUBLE;
    else handler = on_array;
    make_ring(dbr_size_n(type, count));

    double rate[2], secs[2], used[2];
    long items[2];
    for (int way = 0; way < 2; way++) {
        double t0 = 0.0, c0 = 0.0, t = 0.0;
        long n = -1;
        double warm_until = mono() + 0.05 * seconds;
        for (;;) {
            if (way == 0) {
                long before = done;
                check(ca_array_get_callback(type, count == 1 ? 1 : 0, c, handler, NULL), "get");
                ca_flush_io();
                wait_done(before + 1);
            } else {
                check(ca_array_get(type, (unsigned long)count, c, slot[(n + 1) % RING]), "get");
                check(ca_pend_io(10.0), "ca_pend_io");
            }
            t = mono();
            if (n < 0) {
                if (t < warm_until) continue;
                n = 0, t0 = t, c0 = cpu();
                continue;
            }
            n++;
            if (t - t0 >= 0.5 * seconds) break;
        }
        items[way] = n, secs[way] = t - t0, used[way] = cpu() - c0;
        rate[way] = (double)n / secs[way];
    }
    int best = rate[1] > rate[0];
    result((double)items[best], secs[best], used[best]);
    printf(", \"variant\": \"%s\", \"callback\": %.2f, \"pend_io\": %.2f",
           best ? "ca_array_get + ca_pend_io" : "ca_array_get_callback", rate[0], rate[1]);
    end();
}

static double *many_values;

static void on_many(struct event_handler_args a)
{
    if (a.status == ECA_NORMAL)
        many_values[(intptr_t)a.usr] = ((const struct dbr_time_double *)a.dbr)->value;
    complete();
}

static void do_getmany(char *prefix, int n, double seconds)
{
    chid *c = connect_all(n, numbered(prefix, n));
    many_values = calloc((size_t)n, sizeof *many_values);
    double t0 = 0.0, c0 = 0.0, t;
    double warm_until = mono() + 0.1 * seconds;
    long rounds = -1;
    for (;;) {
        pthread_mutex_lock(&lock);
        long before = done;
        goal = before + n;      /* set before the first reply, or each of them wakes us */
        pthread_mutex_unlock(&lock);
        for (int i = 0; i < n; i++)
            ca_array_get_callback(DBR_TIME_DOUBLE, 1, c[i], on_many, (void *)(intptr_t)i);
        ca_flush_io();
        wait_done(before + n);
        t = mono();
        if (rounds < 0) {
            if (t < warm_until) continue;
            rounds = 0, t0 = t, c0 = cpu();
            continue;
        }
        rounds++;
        if (t - t0 >= seconds) break;
    }
    result((double)rounds * n, t - t0, cpu() - c0);
    end();
}

/* ---- put --------------------------------------------------------------------------------- */

static double fresh(chid c)
{
    long before = done;
    check(ca_array_get_callback(DBR_TIME_DOUBLE, 1, c, on_scalar, NULL), "get");
    ca_flush_io();
    wait_done(before + 1);
    return last_value;
}

static void do_put(char *name, char *counter, double seconds)
{
    char *names[2] = {name, counter};
    chid *c = connect_all(2, names);
    double first = fresh(c[1]), c0 = cpu(), t0 = mono(), t;
    long n = 0;
    do {
        for (int i = 0; i < 64; i++, n++) {
            double v = (double)n;
            check(ca_array_put(DBR_DOUBLE, 1, c[0], &v), "put");
            ca_flush_io();
        }
        t = mono();
    } while (t - t0 < seconds);
    double calls = t - t0;
    /* The server takes the requests of a circuit in order: this read is answered after the puts. */
    double counted = fresh(c[1]) - first;
    result((double)n, mono() - t0, cpu() - c0);
    printf(", \"counted\": %.0f, \"calls_seconds\": %.6f", counted, calls);
    end();
}

static void on_put(struct event_handler_args a)
{
    if (a.status != ECA_NORMAL) die("put failed");
    complete();
}

static void do_put_wait(char *name, double seconds)
{
    chid c = connect_one(name);
    long count = (long)ca_element_count(c);
    chtype type = count == 1 ? DBR_DOUBLE : ca_field_type(c);
    make_ring(dbr_size_n(type, count));
    double t0 = 0.0, c0 = 0.0, t, warm_until = mono() + 0.1 * seconds;
    long n = -1;
    for (;;) {
        long before = done;
        check(ca_array_put_callback(type, (unsigned long)count, c, slot[0], on_put, NULL), "put");
        ca_flush_io();
        wait_done(before + 1);
        t = mono();
        if (n < 0) {
            if (t < warm_until) continue;
            n = 0, t0 = t, c0 = cpu();
            continue;
        }
        n++;
        if (t - t0 >= seconds) break;
    }
    result((double)n, t - t0, cpu() - c0);
    end();
}

/* Puts numbers into a whole array once, so that reads and monitors have all its elements. */
static void do_fill(char *name)
{
    chid c = connect_one(name);
    long count = (long)ca_element_count(c);
    size_t size = dbr_size_n(ca_field_type(c), count);
    unsigned char *data = malloc(size);
    if (ca_field_type(c) == DBF_DOUBLE)
        for (long i = 0; i < count; i++) ((double *)data)[i] = (double)i;
    else
        for (size_t i = 0; i < size; i++) data[i] = (unsigned char)(i * 7);
    check(ca_array_put_callback(ca_field_type(c), (unsigned long)count, c, data, on_put, NULL),
          "fill");
    ca_flush_io();
    wait_done(2);
    result((double)count, 0.0, 0.0);
    end();
}

/* ---- connect ----------------------------------------------------------------------------- */

static void on_first(struct event_handler_args a)
{
    long *seen = a.usr;
    if (a.status == ECA_NORMAL && !*seen) {
        *seen = 1;
        complete();
    }
}

static long *first_seen;

static void on_connection_subscribe(struct connection_handler_args a)
{
    if (a.op == CA_OP_CONN_UP)
        ca_create_subscription(DBR_TIME_DOUBLE, 0, a.chid, DBE_VALUE | DBE_ALARM, on_first,
                               ca_puser(a.chid), NULL);
}

/* With values != 0 the clock stops when each channel has its first monitored value. */
static void do_connect(char *prefix, int n, int values)
{
    char **names = numbered(prefix, n);
    first_seen = calloc((size_t)n, sizeof *first_seen);
    chid *c = calloc((size_t)n, sizeof *c);
    memset(c, 0, (size_t)n * sizeof *c);
    long rss = rss_bytes();
    double c0 = cpu(), t0 = mono();
    pthread_mutex_lock(&lock);
    goal = n;
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < n; i++)
        check(ca_create_channel(names[i], values ? on_connection_subscribe : on_connection,
                                &first_seen[i], 0, &c[i]), names[i]);
    ca_flush_io();
    wait_done(n);
    double t = mono();
    result((double)n, t - t0, cpu() - c0);
    printf(", \"bytes_each\": %.1f", (double)(rss_bytes() - rss) / n);
    end();
}

/* ---- monitors ---------------------------------------------------------------------------- */

struct newest {
    double value;
    long updates;
};

static atomic_long updates;

static void on_update(struct event_handler_args a)
{
    struct newest *p = a.usr;
    long k;
    if (a.status != ECA_NORMAL) return;
    p->value = ((const struct dbr_time_double *)a.dbr)->value;
    p->updates++;
    /* Only this circuit's thread writes the counter: no locked addition is needed. */
    k = atomic_load_explicit(&updates, memory_order_relaxed) + 1;
    atomic_store_explicit(&updates, k, memory_order_relaxed);
    if (k % 256 == 0) note_age(a.dbr);
}

static void do_updates(char *prefix, int n, double warm, double seconds)
{
    chid *c = connect_all(n, numbered(prefix, n));
    struct newest *v = calloc((size_t)n, sizeof *v);
    for (int i = 0; i < n; i++)
        check(ca_create_subscription(DBR_TIME_DOUBLE, 0, c[i], DBE_VALUE | DBE_ALARM, on_update,
                                     &v[i], NULL), "subscribe");
    ca_flush_io();
    while (atomic_load(&updates) < n) sleep_s(0.001);
    wait_go();
    sleep_s(warm);
    n_ages = 0;
    long u0 = atomic_load(&updates);
    double jumps = 0.0, c0 = cpu(), t0 = mono();
    for (int i = 0; i < n; i++) jumps -= v[i].value;
    sleep_s(seconds);
    long u1 = atomic_load(&updates);
    double t = mono() - t0, used = cpu() - c0;
    for (int i = 0; i < n; i++) jumps += v[i].value;
    result((double)(u1 - u0), t, used);
    printf(", \"jumps\": %.0f", jumps);
    print_ages();
    end();
}

static void on_frame(struct event_handler_args a)
{
    if (a.status != ECA_NORMAL) return;
    keep(&a);
    note_age(a.dbr);
}

static void do_monitor(char *name, double warm, double seconds)
{
    chid c = connect_one(name);
    chtype type = dbf_type_to_DBR_TIME(ca_field_type(c));
    make_ring(dbr_size_n(type, (long)ca_element_count(c)));
    check(ca_create_subscription(type, 0, c, DBE_VALUE | DBE_ALARM, on_frame, NULL, NULL),
          "subscribe");
    ca_flush_io();
    while (atomic_load(&frames) < 1) sleep_s(0.001);
    wait_go();
    sleep_s(warm);
    n_ages = 0;
    long f0 = atomic_load(&frames), b0 = atomic_load(&bytes_got);
    double c0 = cpu(), t0 = mono();
    sleep_s(seconds);
    long f1 = atomic_load(&frames), b1 = atomic_load(&bytes_got);
    double t = mono() - t0;
    result((double)(f1 - f0), t, cpu() - c0);
    printf(", \"bytes\": %ld", b1 - b0);
    print_ages();
    end();
}

/* ---- a counter beside images ------------------------------------------------------------- */

static double last_tick;
static long n_lost;
static atomic_int noting;    /* 0 before, 1 while it is measured, 2 after */

static void on_tick(struct event_handler_args a)
{
    if (a.status != ECA_NORMAL) return;
    double value = ((const struct dbr_time_double *)a.dbr)->value;
    if (atomic_load(&noting) == 1) {
        note_age(a.dbr);
        if (n_ages > 1) n_lost += (long)(value - last_tick) - 1;
    }
    last_tick = value;
    complete();
}

static void on_picture(struct event_handler_args a)
{
    if (a.status == ECA_NORMAL) keep(&a);
}

/* A context for each, as epicsx has its lanes.  What a reader of the ring does with an image
 * touches no thread of libca's, so main sleeps. */
static void do_latency(char *name, char *camera, double warm, double seconds)
{
    chid c = connect_one(name);
    check(ca_create_subscription(DBR_TIME_DOUBLE, 0, c, DBE_VALUE | DBE_ALARM, on_tick, NULL,
                                 NULL), "subscribe");
    ca_flush_io();
    wait_done(2);
    ca_detach_context();
    start();
    c = connect_one(camera);
    chtype type = dbf_type_to_DBR_TIME(ca_field_type(c));
    make_ring(dbr_size_n(type, (long)ca_element_count(c)));
    check(ca_create_subscription(type, 0, c, DBE_VALUE | DBE_ALARM, on_picture, NULL, NULL),
          "subscribe");
    ca_flush_io();
    while (atomic_load(&frames) < 1) sleep_s(0.001);
    wait_go();
    sleep_s(warm);
    double c0 = cpu(), t0 = mono();
    atomic_store(&noting, 1);
    sleep_s(seconds);
    atomic_store(&noting, 2);
    double t = mono() - t0, used = cpu() - c0;
    sleep_s(0.01);    /* a handler may be noting its last */
    if (n_ages < 1) die("no update came");
    result((double)n_ages, t, used);
    qsort(ages, (size_t)n_ages, sizeof *ages, by_value);
    printf(", \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f, \"lost\": %ld",
           1e3 * ages[n_ages / 2], 1e3 * ages[n_ages * 99 / 100], 1e3 * ages[n_ages - 1], n_lost);
    printf(", \"beside\": \"%ld images\"", atomic_load(&frames));
    end();
}

/* ------------------------------------------------------------------------------------------ */

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    char **a = argv + 2;
    int n = argc - 2;
    signal(SIGPIPE, SIG_IGN);
    if (strcmp(verb, "version") == 0) {
        puts(ca_version());
        return 0;
    }
    start();
    if (strcmp(verb, "get") == 0 && n == 2) do_get(a[0], atof(a[1]));
    if (strcmp(verb, "getmany") == 0 && n == 3) do_getmany(a[0], atoi(a[1]), atof(a[2]));
    if (strcmp(verb, "put") == 0 && n == 3) do_put(a[0], a[1], atof(a[2]));
    if (strcmp(verb, "put_wait") == 0 && n == 2) do_put_wait(a[0], atof(a[1]));
    if (strcmp(verb, "fill") == 0 && n == 1) do_fill(a[0]);
    if (strcmp(verb, "connect") == 0 && n == 3) do_connect(a[0], atoi(a[1]), atoi(a[2]));
    if (strcmp(verb, "updates") == 0 && n == 4)
        do_updates(a[0], atoi(a[1]), atof(a[2]), atof(a[3]));
    if (strcmp(verb, "monitor") == 0 && n == 3) do_monitor(a[0], atof(a[1]), atof(a[2]));
    if (strcmp(verb, "latency") == 0 && n == 4)
        do_latency(a[0], a[1], atof(a[2]), atof(a[3]));
    fprintf(stderr, "usage: client VERB ARGUMENT...\n");
    return 2;
}

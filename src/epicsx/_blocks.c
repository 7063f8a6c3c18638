/* The pool of blocks, and what the sizes of DBR structures are.
 *
 * Threads   any; one lock, a leaf, held for a few pointer moves and never over malloc or free.
 * Lifetime  a block goes back to the pool with its last reference; the pool keeps a bounded number of bytes, because
 *           the first touch of fresh pages costs more than the copy into them. */
#include "epicsx_events.h"
#include "epicsx_dbr.h"

#include <string.h>

#define SMALL_CLASSES 10                  /* 128 B ... 64 KiB, powers of two */
#define CLASSES 128                       /* above: four steps an octave */
#define SMALL_KEEP ((size_t)16 << 20)
#define LARGE_KEEP ((size_t)128 << 20)

ex_atomic_int ex_generation;

static struct {
    ex_mutex lock;
    int ready;
    ex_block *free[CLASSES];
    size_t small_bytes, large_bytes;
    uint64_t made;                        /* blocks there have been */
} pool;

static ex_atomic_i64 blocks_out;
static ex_atomic_i64 lent_count;

static void pool_init(void)
{
    /* Called at import with the GIL held (ex_lane_new) and in a forked child: never concurrently. */
    memset(&pool, 0, sizeof pool);
    ex_mutex_init(&pool.lock);
    pool.ready = 1;
}

void ex_fork_child(void)
{
    /* The parent's pool may have been caught half-way through a change: it is abandoned, not repaired. */
    (void)ex_add(&ex_generation, 1);
    pool_init();
    ex_store(&blocks_out, 0);
    ex_store(&lent_count, 0);
}

int ex_generation_now(void) { return ex_load(&ex_generation); }
long ex_lent(void) { return (long)ex_load(&lent_count); }
void ex_lent_add(long n) { (void)ex_add(&lent_count, n); }
size_t ex_blocks(void) { return (size_t)ex_load(&blocks_out); }
size_t ex_pool_bytes(void)
{
    size_t bytes;
    ex_lock(&pool.lock);
    bytes = pool.small_bytes + pool.large_bytes;
    ex_unlock(&pool.lock);
    return bytes;
}

/* The class whose blocks hold at least `size` bytes, and how many they hold. */
static int class_of(size_t size, size_t *capacity)
{
    int octave, quarter;
    size_t step, base;
    if (size <= ((size_t)128 << (SMALL_CLASSES - 1))) {
        int c = 0;
        while (((size_t)128 << c) < size)
            c++;
        *capacity = (size_t)128 << c;
        return c;
    }
    octave = 16;
    while (((size_t)2 << octave) < size)
        octave++;
    base = (size_t)1 << octave;           /* base < size <= 2 * base */
    step = base / 4;
    quarter = (int)((size - base + step - 1) / step);      /* 1..4 */
    *capacity = base + (size_t)quarter * step;
    return SMALL_CLASSES + (octave - 16) * 4 + quarter - 1;
}

static void *aligned_new(size_t size)
{
#if defined(_WIN32)
    return _aligned_malloc(size, 64);
#else
    void *p = NULL;
    return posix_memalign(&p, 64, size) ? NULL : p;
#endif
}

static void aligned_free(void *p)
{
#if defined(_WIN32)
    _aligned_free(p);
#else
    free(p);
#endif
}

static void give_back(ex_block *b);

ex_block *ex_block_new(int dbr_type, size_t count, size_t header_bytes, size_t value_bytes)
{
    size_t values_at = (EX_HEADER_AT + header_bytes + 63) & ~(size_t)63;
    size_t capacity;
    uint64_t arrival;
    int c;
    ex_block *b = NULL;
    if (!pool.ready)
        pool_init();
    c = class_of(values_at + value_bytes, &capacity);
    if (c >= CLASSES)
        return NULL;
    ex_lock(&pool.lock);
    arrival = ++pool.made;
    b = pool.free[c];
    if (b) {
        pool.free[c] = b->next;
        if (c < SMALL_CLASSES)
            pool.small_bytes -= capacity;
        else
            pool.large_bytes -= capacity;
    }
    ex_unlock(&pool.lock);
    if (!b && !(b = (ex_block *)aligned_new(capacity)))
        return NULL;
    ex_store(&b->refs, 1);
    b->size_class = (int16_t)c;
    b->dbr_type = (int16_t)dbr_type;
    b->scalar = 0;
    b->generation = ex_load(&ex_generation);
    b->count = (uint32_t)count;
    b->nbytes = value_bytes;
    b->capacity = capacity;
    b->arrival = arrival;
    b->values = (char *)b + values_at;
    b->give_back = give_back;
    (void)ex_add(&blocks_out, 1);
    return b;
}

/* Take blocks of other sizes out of the pool until `need` bytes fit; they are returned as a list. Pool lock held. */
static ex_block *make_room(int c, size_t need)
{
    ex_block *victims = NULL;
    int i;
    if (need > LARGE_KEEP)
        return NULL;                      /* it would not fit into an empty pool */
    for (i = CLASSES - 1; i >= SMALL_CLASSES && pool.large_bytes + need > LARGE_KEEP; i--) {
        while (i != c && pool.free[i] && pool.large_bytes + need > LARGE_KEEP) {
            ex_block *v = pool.free[i];
            pool.free[i] = v->next;
            pool.large_bytes -= v->capacity;
            v->next = victims;
            victims = v;
        }
    }
    return victims;
}

static void give_back(ex_block *b)
{
    ex_block *victims = NULL;
    int c, kept = 0;
    if (b->generation != ex_load(&ex_generation))
        return;                           /* the parent's, seen from a forked child: leave it alone */
    (void)ex_add(&blocks_out, -1);
    c = b->size_class;
    ex_lock(&pool.lock);
    if (c < SMALL_CLASSES) {
        kept = pool.small_bytes + b->capacity <= SMALL_KEEP;
        if (kept)
            pool.small_bytes += b->capacity;
    } else {
        victims = make_room(c, b->capacity);
        kept = pool.large_bytes + b->capacity <= LARGE_KEEP;
        if (kept)
            pool.large_bytes += b->capacity;
    }
    if (kept) {
        b->next = pool.free[c];
        pool.free[c] = b;
    }
    ex_unlock(&pool.lock);
    if (!kept)
        aligned_free(b);
    while (victims) {
        ex_block *v = victims;
        victims = v->next;
        aligned_free(v);
    }
}

/* ------------------------------------------------------ sizes (epicsx_dbr.h) */

size_t ex_header_bytes(int dbr_type)
{
    return dbr_type >= 0 && dbr_type <= LAST_BUFFER_TYPE ? epicsx_dbr_table[dbr_type].offset : 0;
}

size_t ex_element_bytes(int dbr_type)
{
    return dbr_type >= 0 && dbr_type <= LAST_BUFFER_TYPE ? epicsx_dbr_table[dbr_type].element : 0;
}

int ex_time_of(int native) { return native >= 0 && native < 7 ? native + 14 : -1; }
int ex_ctrl_of(int native) { return native > 0 && native < 7 ? native + 28 : -1; }    /* a STRING has no control data */

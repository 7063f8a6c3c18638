/* Blocks: their sizes, their place in memory, the bounds of the pool, and the sizes of DBR structures. */
#include "fakes.h"

#include "epicsx_dbr.h"

static void sizes_fit_and_values_are_aligned(void)
{
    size_t heads[] = {0, 2, 16, 24, 64, 80, 424}, i, bytes;
    for (i = 0; i < sizeof heads / sizeof *heads; i++)
        for (bytes = 0; bytes < 600000; bytes = bytes < 300 ? bytes + 1 : bytes + bytes / 7) {
            ex_block *b = ex_block_new(DBR_TIME_DOUBLE, 3, heads[i], bytes);
            size_t at = (size_t)((char *)b->values - (char *)b);
            CHECK_EQ((uintptr_t)b->values % 64, 0);
            CHECK(at >= EX_HEADER_AT + heads[i]);
            CHECK(at + bytes <= b->capacity);
            CHECK(b->capacity <= 128 || b->capacity <= 2 * (at + bytes));
            CHECK(b->capacity <= 65536 || b->capacity <= (at + bytes) + (at + bytes) / 4 + 1);
            CHECK_EQ(b->nbytes, bytes);
            CHECK_EQ(b->count, 3);
            CHECK_EQ(b->dbr_type, DBR_TIME_DOUBLE);
            CHECK_EQ(ex_load(&b->refs), 1);
            memset(EX_HEADER(b), 1, heads[i]);
            memset(b->values, 2, bytes);
            CHECK_EQ(ex_load(&b->refs), 1);      /* neither touches the structure */
            CHECK_EQ(b->nbytes, bytes);
            ex_block_unref(b);
        }
}

static void one_class_has_one_capacity(void)
{
    size_t capacity_of[128] = {0}, bytes, before = 0;
    for (bytes = 0; bytes < ((size_t)8 << 20); bytes += bytes / 40 + 1) {
        ex_block *b = ex_block_new(0, 1, 0, bytes);
        int c = b->size_class;
        CHECK(c >= 0 && c < 128);
        CHECK(b->capacity >= before);            /* more bytes never give a smaller block */
        before = b->capacity;
        if (!capacity_of[c])
            capacity_of[c] = b->capacity;
        CHECK_EQ(capacity_of[c], b->capacity);
        ex_block_unref(b);
    }
}

static void just_at_the_edge_of_a_class(void)
{
    size_t octave;
    for (octave = 7; octave < 24; octave++) {
        size_t edge = ((size_t)1 << octave) - 64;         /* 64 bytes are the structure's own */
        ex_block *fits = ex_block_new(0, 1, 0, edge), *more = ex_block_new(0, 1, 0, edge + 1);
        CHECK_EQ(fits->capacity, (size_t)1 << octave);
        CHECK(more->capacity > fits->capacity);
        CHECK(more->size_class == fits->size_class + 1);
        ex_block_unref(fits);
        ex_block_unref(more);
    }
}

static void what_cannot_be_had_is_null(void)
{
    CHECK(ex_block_new(0, 1, 0, (size_t)1 << 60) == NULL);
    CHECK_EQ(ex_blocks(), 0);
}

static void references_count(void)
{
    ex_block *a = ex_block_new(0, 1, 0, 1000), *b = ex_block_new(0, 1, 0, 100);
    CHECK_EQ(ex_blocks(), 2);
    ex_block_ref(a);
    ex_block_unref(a);
    CHECK_EQ(ex_blocks(), 2);
    ex_block_unref(a);
    CHECK_EQ(ex_blocks(), 1);
    ex_block_unref(b);
    CHECK_EQ(ex_blocks(), 0);
    ex_block_unref(NULL);
    CHECK_EQ(ex_blocks(), 0);
}

static void a_block_comes_back_clean(void)
{
    ex_block *a = ex_block_new(DBR_TIME_LONG, 7, 16, 3000), *b;
    a->scalar = 1;
    uint64_t before = a->arrival;
    ex_block_unref(a);
    b = ex_block_new(DBR_DOUBLE, 1, 0, 2900);
    CHECK(b == a);                               /* the same memory: its pages are there already */
    CHECK_EQ(b->scalar, 0);
    CHECK_EQ(b->arrival, before + 1);            /* who came later can be told */
    CHECK_EQ(b->count, 1);
    CHECK_EQ(b->dbr_type, DBR_DOUBLE);
    CHECK_EQ(b->nbytes, 2900);
    CHECK_EQ((char *)b->values - (char *)b, 64);
    ex_block_unref(b);
}

#define MANY 400

static void the_pool_is_bounded(void)
{
    static ex_block *blocks[MANY];
    size_t i, full, before = ex_pool_bytes();    /* what the other tests left: large ones among it */
    for (i = 0; i < MANY; i++)                   /* 25 MiB of small ones */
        blocks[i] = ex_block_new(0, 1, 0, 65000);
    CHECK_EQ(ex_blocks(), MANY);
    for (i = 0; i < MANY; i++)
        ex_block_unref(blocks[i]);
    CHECK_EQ(ex_blocks(), 0);
    CHECK(ex_pool_bytes() <= before + ((size_t)16 << 20));
    CHECK(ex_pool_bytes() > (size_t)15 << 20);
    for (i = 0; i < MANY; i++)                   /* 400 MiB of large ones, never touched */
        blocks[i] = ex_block_new(0, 1, 0, 1000000);
    for (i = 0; i < MANY; i++)
        ex_block_unref(blocks[i]);
    full = ex_pool_bytes();
    CHECK(full <= (size_t)144 << 20);
    CHECK(full > (size_t)138 << 20);

    blocks[0] = ex_block_new(0, 1, 0, 5000000);  /* another size takes the place of what nobody asks for now */
    blocks[1] = blocks[0];
    ex_block_unref(blocks[0]);
    CHECK(ex_pool_bytes() <= (size_t)144 << 20);
    blocks[0] = ex_block_new(0, 1, 0, 5000000);
    CHECK(blocks[0] == blocks[1]);
    ex_block_unref(blocks[0]);

    full = ex_pool_bytes();
    blocks[0] = ex_block_new(0, 1, 0, (size_t)200 << 20);     /* too large to keep: the others are not driven out */
    ex_block_unref(blocks[0]);
    CHECK_EQ(ex_pool_bytes(), full);
    CHECK_EQ(ex_blocks(), 0);
}

static void pool_bytes_go_down_with_use(void)
{
    size_t before;
    ex_block *a = ex_block_new(0, 1, 0, 70000), *b;
    ex_block_unref(a);
    before = ex_pool_bytes();
    b = ex_block_new(0, 1, 0, 70000);
    CHECK_EQ(ex_pool_bytes(), before - b->capacity);
    ex_block_unref(b);
    CHECK_EQ(ex_pool_bytes(), before);
}

#define OFFSET(TYPE, STRUCT) \
    CHECK_EQ(ex_header_bytes(TYPE), offsetof(struct STRUCT, value)); \
    CHECK_EQ(ex_element_bytes(TYPE), sizeof(((struct STRUCT *)0)->value))

static void dbr_structures_have_their_sizes(void)
{
    int type, native;
    OFFSET(DBR_STS_STRING, dbr_sts_string);
    OFFSET(DBR_STS_CHAR, dbr_sts_char);
    OFFSET(DBR_STS_DOUBLE, dbr_sts_double);
    OFFSET(DBR_TIME_STRING, dbr_time_string);
    OFFSET(DBR_TIME_SHORT, dbr_time_short);
    OFFSET(DBR_TIME_FLOAT, dbr_time_float);
    OFFSET(DBR_TIME_ENUM, dbr_time_enum);
    OFFSET(DBR_TIME_CHAR, dbr_time_char);
    OFFSET(DBR_TIME_LONG, dbr_time_long);
    OFFSET(DBR_TIME_DOUBLE, dbr_time_double);
    OFFSET(DBR_GR_ENUM, dbr_gr_enum);
    OFFSET(DBR_GR_FLOAT, dbr_gr_float);
    OFFSET(DBR_CTRL_SHORT, dbr_ctrl_short);
    OFFSET(DBR_CTRL_CHAR, dbr_ctrl_char);
    OFFSET(DBR_CTRL_DOUBLE, dbr_ctrl_double);
    OFFSET(DBR_STSACK_STRING, dbr_stsack_string);
    CHECK_EQ(ex_header_bytes(DBR_DOUBLE), 0);
    CHECK_EQ(ex_element_bytes(DBR_STRING), 40);
    CHECK_EQ(ex_element_bytes(DBR_CLASS_NAME), 40);
    for (type = 0; type <= LAST_BUFFER_TYPE; type++)
        CHECK(ex_element_bytes(type) > 0);
    for (type = -3; type < 50; type += type == -1 ? LAST_BUFFER_TYPE + 2 : 1) {
        CHECK_EQ(ex_header_bytes(type), 0);
        CHECK_EQ(ex_element_bytes(type), 0);
    }
    for (native = DBR_STRING; native <= DBR_DOUBLE; native++)
        CHECK_EQ(ex_time_of(native), DBR_TIME_STRING + native);
    for (native = DBR_SHORT; native <= DBR_DOUBLE; native++)
        CHECK_EQ(ex_ctrl_of(native), DBR_CTRL_STRING + native);
    CHECK_EQ(ex_ctrl_of(DBR_STRING), -1);        /* a text has none */
    CHECK_EQ(ex_time_of(-1), -1);
    CHECK_EQ(ex_time_of(7), -1);
    CHECK_EQ(ex_ctrl_of(-1), -1);
    CHECK_EQ(ex_ctrl_of(7), -1);
}

#define HANDS 3
#define TURNS 30000

static void *juggle(void *p)
{
    unsigned seed = *(unsigned *)p;
    ex_block *held[16] = {0};
    int i;
    for (i = 0; i < TURNS; i++) {
        int k = (int)((seed = seed * 1664525u + 1013904223u) >> 28);
        size_t bytes = (seed >> 8) % 100000;
        ex_block_unref(held[k]);
        held[k] = ex_block_new(0, 1, 0, bytes);
        ((char *)held[k]->values)[0] = (char)k;
        if (bytes)
            ((char *)held[k]->values)[bytes - 1] = (char)k;
    }
    for (i = 0; i < 16; i++) {
        if (held[i])
            CHECK_EQ(((char *)held[i]->values)[0], i);
        ex_block_unref(held[i]);
    }
    return NULL;
}

static void threads_share_the_pool(void)
{
    pthread_t threads[HANDS];
    unsigned seeds[HANDS] = {1, 77, 4242};
    int i;
    for (i = 0; i < HANDS; i++)
        pthread_create(&threads[i], NULL, juggle, &seeds[i]);
    for (i = 0; i < HANDS; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(ex_blocks(), 0);
    CHECK(ex_pool_bytes() <= (size_t)144 << 20);
}

int main(void)
{
    RUN(sizes_fit_and_values_are_aligned);
    RUN(one_class_has_one_capacity);
    RUN(just_at_the_edge_of_a_class);
    RUN(what_cannot_be_had_is_null);
    RUN(references_count);
    RUN(a_block_comes_back_clean);
    RUN(the_pool_is_bounded);
    RUN(pool_bytes_go_down_with_use);
    RUN(dbr_structures_have_their_sizes);
    RUN(threads_share_the_pool);
    return finish();
}

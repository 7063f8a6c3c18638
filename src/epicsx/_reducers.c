/* The reducers that come with epicsx. Pure functions of a frame and their arguments; any thread may run them.
 *
 * Each loop is written so that the compiler can use SIMD: integers are summed in blocks that cannot overflow, floats in
 * eight independent sums (also more accurate than one). */
#include "epicsx_sinks.h"

#include <math.h>
#include <string.h>

#define LANES 8
#define CHUNK 65536                      /* elements whose sum fits 32 bits (of 16) */

/* double sum_T(values, n): the exact sum of integers up to 2^53, a pairwise-like sum of floats. */
#define SUM_SMALL(NAME, T, ACC)                                        \
    static double NAME(const T *v, size_t n)                           \
    {                                                                  \
        int64_t total = 0;                                             \
        size_t i = 0;                                                  \
        while (i < n) {                                                \
            size_t end = n - i < CHUNK / 2 ? n : i + CHUNK / 2;        \
            ACC part = 0;                                              \
            for (; i < end; i++)                                       \
                part += v[i];                                          \
            total += part;                                             \
        }                                                              \
        return (double)total;                                          \
    }
SUM_SMALL(sum_i16, int16_t, int32_t)
SUM_SMALL(sum_u16, uint16_t, uint32_t)

/* Pixels. Every x86-64 has an instruction that adds eight of them at once (psadbw); elsewhere 16-bit sums hold 256 of
 * them, and twice as many fit a SIMD register as of 32 bits. Reading an image so costs a quarter of copying it. */
#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#define PIXELS 64
static double sum_u8(const uint8_t *v, size_t n)
{
    const __m128i zero = _mm_setzero_si128();
    __m128i part[PIXELS / 16] = {zero, zero, zero, zero};
    uint64_t halves[2], total;
    size_t i = 0, k;
    for (; n - i >= PIXELS; i += PIXELS)
        for (k = 0; k < PIXELS / 16; k++) {
            __m128i some = _mm_loadu_si128((const __m128i *)(const void *)(v + i + 16 * k));
            part[k] = _mm_add_epi64(part[k], _mm_sad_epu8(some, zero));
        }
    part[0] = _mm_add_epi64(_mm_add_epi64(part[0], part[1]), _mm_add_epi64(part[2], part[3]));
    _mm_storeu_si128((__m128i *)(void *)halves, part[0]);
    total = halves[0] + halves[1];
    for (; i < n; i++)
        total += v[i];
    return (double)total;
}
#else
#define PIXELS 64
static double sum_u8(const uint8_t *v, size_t n)
{
    uint64_t total = 0;
    size_t i = 0, k, row;
    while (n - i >= PIXELS) {
        size_t rows = (n - i) / PIXELS < 256 ? (n - i) / PIXELS : 256;
        uint16_t part[PIXELS] = {0};
        for (row = 0; row < rows; row++, i += PIXELS)
            for (k = 0; k < PIXELS; k++)
                part[k] = (uint16_t)(part[k] + v[i + k]);
        for (k = 0; k < PIXELS; k++)
            total += part[k];
    }
    for (; i < n; i++)
        total += v[i];
    return (double)total;
}
#endif

static double sum_i32(const int32_t *v, size_t n)
{
    int64_t total = 0;
    size_t i;
    for (i = 0; i < n; i++)
        total += v[i];
    return (double)total;
}

#define SUM_REAL(NAME, T)                                              \
    static double NAME(const T *v, size_t n)                           \
    {                                                                  \
        double part[LANES] = {0}, total = 0;                           \
        size_t i, k;                                                   \
        for (i = 0; i + LANES <= n; i += LANES)                        \
            for (k = 0; k < LANES; k++)                                \
                part[k] += v[i + k];                                   \
        for (; i < n; i++)                                             \
            total += v[i];                                             \
        for (k = 0; k < LANES; k++)                                    \
            total += part[k];                                          \
        return total;                                                  \
    }
SUM_REAL(sum_f32, float)
SUM_REAL(sum_f64, double)

static double sum_of(int type, const void *values, size_t from, size_t n)
{
    switch (type) {
    case 1: return sum_i16((const int16_t *)values + from, n);
    case 2: return sum_f32((const float *)values + from, n);
    case 3: return sum_u16((const uint16_t *)values + from, n);
    case 4: return sum_u8((const uint8_t *)values + from, n);
    case 5: return sum_i32((const int32_t *)values + from, n);
    case 6: return sum_f64((const double *)values + from, n);
    default: return NAN;
    }
}

static int mean(const epicsx_frame *f, void *state, double *out, size_t room)
{
    (void)state;
    if (!room)
        return 0;
    out[0] = f->count ? sum_of(f->type, f->values, 0, f->count) / (double)f->count : NAN;
    return 1;
}

/* Running minima and maxima, 64 bytes of each side by side, so that the compiler may compare many at a time. NaN is
 * passed over, as in nanmin. */
#define MINMAX(NAME, T)                                                \
    static void NAME(const T *v, size_t n, double *out)                \
    {                                                                  \
        enum { WIDE = 64 / sizeof(T) };                                \
        T low[WIDE], high[WIDE];                                       \
        size_t i, k;                                                   \
        for (i = 0; i < n && v[i] != v[i]; i++)                        \
            ;                                                          \
        if (i == n) {                                                  \
            out[0] = out[1] = NAN;                                     \
            return;                                                    \
        }                                                              \
        for (k = 0; k < WIDE; k++)                                     \
            low[k] = high[k] = v[i];                                   \
        for (; i + WIDE <= n; i += WIDE)                               \
            for (k = 0; k < WIDE; k++) {                               \
                low[k] = v[i + k] < low[k] ? v[i + k] : low[k];        \
                high[k] = v[i + k] > high[k] ? v[i + k] : high[k];     \
            }                                                          \
        for (; i < n; i++) {                                           \
            low[0] = v[i] < low[0] ? v[i] : low[0];                    \
            high[0] = v[i] > high[0] ? v[i] : high[0];                 \
        }                                                              \
        for (k = 1; k < WIDE; k++) {                                   \
            low[0] = low[k] < low[0] ? low[k] : low[0];                \
            high[0] = high[k] > high[0] ? high[k] : high[0];           \
        }                                                              \
        out[0] = (double)low[0];                                       \
        out[1] = (double)high[0];                                      \
    }
MINMAX(minmax_i16, int16_t)
MINMAX(minmax_f32, float)
MINMAX(minmax_u16, uint16_t)
MINMAX(minmax_u8, uint8_t)
MINMAX(minmax_i32, int32_t)
MINMAX(minmax_f64, double)

static int minmax(const epicsx_frame *f, void *state, double *out, size_t room)
{
    (void)state;
    if (room < 2)
        return 0;
    out[0] = out[1] = NAN;
    if (!f->count)
        return 2;
    switch (f->type) {
    case 1: minmax_i16((const int16_t *)f->values, f->count, out); break;
    case 2: minmax_f32((const float *)f->values, f->count, out); break;
    case 3: minmax_u16((const uint16_t *)f->values, f->count, out); break;
    case 4: minmax_u8((const uint8_t *)f->values, f->count, out); break;
    case 5: minmax_i32((const int32_t *)f->values, f->count, out); break;
    case 6: minmax_f64((const double *)f->values, f->count, out); break;
    default: return -1;
    }
    return 2;
}

/* The sum over rows y0..y1 and columns x0..x1 of rows of `width` elements; what lies outside the frame adds nothing. */
static int roi_sum(const epicsx_frame *f, void *state, double *out, size_t room)
{
    const ex_reduce_args *a = (const ex_reduce_args *)state;
    size_t rows = f->count / a->width, y;
    size_t x1 = a->x1 < a->width ? a->x1 : a->width, y1 = a->y1 < rows ? a->y1 : rows;
    double total = 0;
    if (!room)
        return 0;
    for (y = a->y0; y < y1; y++)
        if (a->x0 < x1)
            total += sum_of(f->type, f->values, y * a->width + a->x0, x1 - a->x0);
    out[0] = total;
    return 1;
}

#define COUNT_IN(NAME, T)                                              \
    static size_t NAME(const T *v, size_t n, double low, double high)  \
    {                                                                  \
        size_t total = 0, i = 0;                                       \
        while (i < n) {                                                \
            size_t end = n - i < CHUNK ? n : i + CHUNK;                \
            uint32_t part = 0;                                         \
            for (; i < end; i++)                                       \
                part += (v[i] >= low) & (v[i] <= high);                \
            total += part;                                             \
        }                                                              \
        return total;                                                  \
    }
COUNT_IN(in_f32, float)
COUNT_IN(in_f64, double)

/* For integers the limits become integers first: the comparison is then made in their own width. */
#define COUNT_INT(NAME, T, LEAST, MOST)                                \
    static size_t NAME(const T *v, size_t n, double low, double high)  \
    {                                                                  \
        size_t total = 0, i = 0;                                       \
        T a, b;                                                        \
        if (!(low <= high) || low > MOST || high < LEAST)              \
            return 0;                                                  \
        a = low <= LEAST ? (T)LEAST : (T)ceil(low);                    \
        b = high >= MOST ? (T)MOST : (T)floor(high);                   \
        while (i < n) {                                                \
            size_t end = n - i < CHUNK ? n : i + CHUNK;                \
            uint32_t part = 0;                                         \
            for (; i < end; i++)                                       \
                part += (v[i] >= a) & (v[i] <= b);                     \
            total += part;                                             \
        }                                                              \
        return total;                                                  \
    }
COUNT_INT(in_u8, uint8_t, 0.0, 255.0)
COUNT_INT(in_i16, int16_t, -32768.0, 32767.0)
COUNT_INT(in_u16, uint16_t, 0.0, 65535.0)
COUNT_INT(in_i32, int32_t, -2147483648.0, 2147483647.0)

static int threshold(const epicsx_frame *f, void *state, double *out, size_t room)
{
    const ex_reduce_args *a = (const ex_reduce_args *)state;
    size_t n;
    if (!room)
        return 0;
    switch (f->type) {
    case 1: n = in_i16((const int16_t *)f->values, f->count, a->low, a->high); break;
    case 2: n = in_f32((const float *)f->values, f->count, a->low, a->high); break;
    case 3: n = in_u16((const uint16_t *)f->values, f->count, a->low, a->high); break;
    case 4: n = in_u8((const uint8_t *)f->values, f->count, a->low, a->high); break;
    case 5: n = in_i32((const int32_t *)f->values, f->count, a->low, a->high); break;
    case 6: n = in_f64((const double *)f->values, f->count, a->low, a->high); break;
    default: return -1;
    }
    out[0] = (double)n;
    return 1;
}

#define EVERY(T)                                                       \
    do {                                                               \
        const T *v = (const T *)f->values;                             \
        for (i = 0; i < f->count && n < room; i += a->every)           \
            out[n++] = (double)v[i];                                   \
    } while (0)

static int decimate(const epicsx_frame *f, void *state, double *out, size_t room)
{
    const ex_reduce_args *a = (const ex_reduce_args *)state;
    size_t i, n = 0;
    switch (f->type) {
    case 1: EVERY(int16_t); break;
    case 2: EVERY(float); break;
    case 3: EVERY(uint16_t); break;
    case 4: EVERY(uint8_t); break;
    case 5: EVERY(int32_t); break;
    case 6: EVERY(double); break;
    default: return -1;
    }
    return (int)n;
}

epicsx_reducer ex_reducer_named(const char *name)
{
    static const struct { const char *name; epicsx_reducer fn; } known[] = {
        {"mean", mean}, {"minmax", minmax}, {"roi_sum", roi_sum}, {"threshold", threshold}, {"decimate", decimate},
    };
    size_t i;
    for (i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(known[i].name, name))
            return known[i].fn;
    return NULL;
}

/* Byte swaps of arrays: SSSE3 or AVX2 where the processor has them, else what the compiler makes of a loop (on aarch64
 * it uses rev16/rev32/rev64 of NEON). Chosen at each call by a flag that is read once: the dynamic linker's way
 * (ifunc) does not exist in every C library, and runs before a sanitizer is ready. */
#include "epicsx_swap.h"

#include <stdint.h>

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define NET16( x ) ( x )
#define NET32( x ) ( x )
#define NET64( x ) ( x )
#else
#define NET16( x ) __builtin_bswap16 ( x )
#define NET32( x ) __builtin_bswap32 ( x )
#define NET64( x ) __builtin_bswap64 ( x )
#endif

namespace {

/* memcpy: the network's elements lie where the message put them, aligned or not */
#define LOOP( name, type, net )                                                     \
    inline void name ( char * to, const char * from, size_t count )                 \
    {                                                                               \
        for ( size_t i = 0; i < count; i++ ) {                                      \
            type value;                                                             \
            memcpy ( & value, from + i * sizeof ( value ), sizeof ( value ) );      \
            value = net ( value );                                                  \
            memcpy ( to + i * sizeof ( value ), & value, sizeof ( value ) );        \
        }                                                                           \
    }

LOOP ( loop16, uint16_t, NET16 )
LOOP ( loop32, uint32_t, NET32 )
LOOP ( loop64, uint64_t, NET64 )

} // namespace

#if defined( __x86_64__ ) && defined( __GNUC__ )

#include <immintrin.h>

namespace {

/* Where each byte of a group of 16 comes from, for elements of 2, 4 and 8 bytes. */
const unsigned char order[3][16] = {
    { 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14 },
    { 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12 },
    { 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8 },
};

__attribute__ (( target ( "ssse3" ) ))
size_t swapSsse3 ( char * to, const char * from, size_t bytes, const unsigned char * how )
{
    const __m128i mask = _mm_loadu_si128 ( reinterpret_cast < const __m128i * > ( how ) );
    size_t i = 0;
    for ( ; i + 16 <= bytes; i += 16 ) {
        __m128i x = _mm_loadu_si128 ( reinterpret_cast < const __m128i * > ( from + i ) );
        _mm_storeu_si128 ( reinterpret_cast < __m128i * > ( to + i ), _mm_shuffle_epi8 ( x, mask ) );
    }
    return i;
}

__attribute__ (( target ( "avx2" ) ))
size_t swapAvx2 ( char * to, const char * from, size_t bytes, const unsigned char * how )
{
    const __m256i mask = _mm256_broadcastsi128_si256 (
        _mm_loadu_si128 ( reinterpret_cast < const __m128i * > ( how ) ) );
    size_t i = 0;
    for ( ; i + 64 <= bytes; i += 64 ) {
        __m256i x = _mm256_loadu_si256 ( reinterpret_cast < const __m256i * > ( from + i ) );
        __m256i y = _mm256_loadu_si256 ( reinterpret_cast < const __m256i * > ( from + i + 32 ) );
        _mm256_storeu_si256 ( reinterpret_cast < __m256i * > ( to + i ), _mm256_shuffle_epi8 ( x, mask ) );
        _mm256_storeu_si256 ( reinterpret_cast < __m256i * > ( to + i + 32 ), _mm256_shuffle_epi8 ( y, mask ) );
    }
    return i;
}

int level ()
{
    static int found = -1; /* every thread finds the same */
    int now = __atomic_load_n ( & found, __ATOMIC_RELAXED );
    if ( now < 0 ) {
        __builtin_cpu_init ();
        now = __builtin_cpu_supports ( "avx2" ) ? 2 : __builtin_cpu_supports ( "ssse3" ) ? 1 : 0;
        __atomic_store_n ( & found, now, __ATOMIC_RELAXED );
    }
    return now;
}

/* How many bytes were done; the rest is for the loop. */
inline size_t wide ( char * to, const char * from, size_t bytes, unsigned which )
{
    if ( bytes < 64 ) {
        return 0;
    }
    const int have = level ();
    return have == 2   ? swapAvx2 ( to, from, bytes, order[which] )
           : have == 1 ? swapSsse3 ( to, from, bytes, order[which] )
                       : 0;
}

} // namespace

#else

namespace {
inline size_t wide ( char *, const char *, size_t, unsigned ) { return 0; }
} // namespace

#endif

#define SWAP( name, loop, size, which )                                             \
    extern "C" void name ( void * to, const void * from, size_t count )             \
    {                                                                               \
        char * out = static_cast < char * > ( to );                                 \
        const char * in = static_cast < const char * > ( from );                    \
        const size_t done = wide ( out, in, count * size, which );                  \
        loop ( out + done, in + done, count - done / size );                        \
    }

SWAP ( epicsxSwap16, loop16, 2, 0 )
SWAP ( epicsxSwap32, loop32, 4, 1 )
SWAP ( epicsxSwap64, loop64, 8, 2 )

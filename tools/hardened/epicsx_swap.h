/* Byte swaps of arrays, as wide as the processor allows; source and destination may be the same. */
#ifndef EPICSX_SWAP_H
#define EPICSX_SWAP_H

#include <stddef.h>
#include <string.h>

extern "C" {
void epicsxSwap16 ( void * to, const void * from, size_t count );
void epicsxSwap32 ( void * to, const void * from, size_t count );
void epicsxSwap64 ( void * to, const void * from, size_t count );
}

namespace epicsx {

/* From here to the network's byte order, or back, by the size of an element. */
template < class T >
inline void swapElements ( void * to, const T * from, size_t count )
{
    if ( sizeof ( T ) == 2u ) {
        epicsxSwap16 ( to, from, count );
    }
    else if ( sizeof ( T ) == 4u ) {
        epicsxSwap32 ( to, from, count );
    }
    else if ( sizeof ( T ) == 8u ) {
        epicsxSwap64 ( to, from, count );
    }
    else {
        memmove ( to, from, count * sizeof ( T ) );
    }
}

} // namespace epicsx

#endif

/* What a reducer is: a C function that libca's thread calls on each event, on libca's own buffer, before any copy.
 *
 * It runs in libca's receive thread, without the GIL and under libca's callback lock: it must not call Python, libca or
 * anything that blocks, and may read `frame` only until it returns. It may be called for several streams at once. */
#ifndef EPICSX_REDUCER_H
#define EPICSX_REDUCER_H

#include <stddef.h>
#include <stdint.h>

typedef struct epicsx_frame {
    const void *values;          /* `count` elements, aligned for their type */
    size_t count;
    int32_t type;                /* 1 int16, 2 float32, 3 uint16 (enum), 4 uint8, 5 int32, 6 float64: the DBR types */
    int32_t element_size;        /* bytes */
    int64_t timestamp_ns;        /* Unix */
    int16_t status, severity;
} epicsx_frame;

/* Fills at most `room` results and says how many; a negative number: nothing of this frame. `state` is the pointer that
 * was given with the function. */
typedef int (*epicsx_reducer)(const epicsx_frame *frame, void *state, double *results, size_t room);

#endif

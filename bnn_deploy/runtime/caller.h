/* What executor.c and executor_gpu.c check of their callers, and the clock that both time runs by. */
#ifndef BNN_CALLER_H
#define BNN_CALLER_H

#include "bnn_model.h"

#include <time.h>

static inline int bnn_thread_count_is_valid(int threads) { return threads >= 1 && threads <= BNN_MAX_THREADS; }

static inline int bnn_has_null(const void *const *pointers, size_t count) {
    if (pointers == NULL) {
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        if (pointers[i] == NULL) {
            return 1;
        }
    }
    return 0;
}

static inline double bnn_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif

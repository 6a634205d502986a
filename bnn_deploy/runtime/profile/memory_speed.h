#ifndef BNN_PROFILE_MEMORY_SPEED_H
#define BNN_PROFILE_MEMORY_SPEED_H

#include <stdint.h>

/* Bytes per second, read and written together, of copying memory far larger than most caches (32 MB to 32 MB, or less where
 * all of it would be more than an eighth of `available_bytes`, -1 for unknown), on as many threads; the best of five times.
 * -1 when there is not enough memory for a meaningful number. */
double memory_copy_speed(int threads, int64_t available_bytes);

#endif

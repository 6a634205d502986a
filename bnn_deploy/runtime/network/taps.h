/* Taps of bnn_model.h: read, checked against the network, and matched to steps; the same for processors and GPUs. */
#ifndef BNN_NETWORK_TAPS_H
#define BNN_NETWORK_TAPS_H

#include "bnn_model.h"

/* One row of numbers. */
typedef struct tap {
    int64_t kernel_set, step, space, offset, stride, every, bytes, value_offset, force;
} tap;

_Static_assert(sizeof(tap) == BNN_TAP_NUMBERS * sizeof(int64_t), "a tap is a row of numbers and nothing else");

/* What taps may name of a network; its executor says it. */
typedef struct tap_limits {
    size_t kernel_set_count;
    size_t arena_bytes;
    size_t workspace_bytes;
} tap_limits;

tap_limits taps_limits(void) __attribute__((visibility("hidden")));

/* Blocks that a step runs, at least 1. */
int64_t taps_blocks(size_t step) __attribute__((visibility("hidden")));

/* The taps of one run. */
typedef struct tap_list {
    const int64_t *numbers;
    size_t count;
    unsigned char *observed;
    const unsigned char *forced;
    size_t value_bytes;
} tap_list;

/* Checks all of them and clears `observed`: BNN_OK, or BNN_ERROR_ARGUMENT with nothing changed. */
bnn_status taps_begin(const tap_list *list) __attribute__((visibility("hidden")));

/* One of the list. */
tap taps_get(const tap_list *list, size_t index) __attribute__((visibility("hidden")));

/* Where its value lies in block b, from the beginning of its space; and in `observed` and `forced`. */
static inline size_t tap_place(const tap *one, int64_t block) { return (size_t)(one->offset + block / one->every * one->stride); }
static inline size_t tap_value(const tap *one, int64_t block) { return (size_t)(one->value_offset + block * one->bytes); }

/* Which output a place in that space is in; `offset` becomes that within it. */
size_t taps_output(size_t *offset) __attribute__((visibility("hidden")));

#endif

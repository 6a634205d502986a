#include "network/taps.h"

#include <string.h>

tap taps_get(const tap_list *list, size_t index) {
    tap one;
    memcpy(&one, list->numbers + index * BNN_TAP_NUMBERS, sizeof one);
    return one;
}

size_t taps_output(size_t *offset) {
    size_t count, index = 0;
    const bnn_tensor *outputs = bnn_outputs(&count);
    while (index + 1 < count && *offset >= outputs[index].bytes) {
        *offset -= outputs[index++].bytes;
    }
    return index;
}

/* Bytes from a place on to the end of what it may be part of: of one output, since each has a buffer of its own; else of its space.
 * 0 for a place outside, and for a space that cannot be tapped. */
static size_t room_at(int64_t space, int64_t offset) {
    tap_limits limits = taps_limits();
    size_t begin = (size_t)offset, bytes = 0, count;
    if (space == BNN_TAP_OUTPUT) {
        size_t output = taps_output(&begin);
        bytes = bnn_outputs(&count)[output].bytes;
    } else if (space == BNN_TAP_ARENA) {
        bytes = limits.arena_bytes;
    } else if (space == BNN_TAP_WORKSPACE) {
        bytes = limits.workspace_bytes;
    }
    return begin < bytes ? bytes - begin : 0;
}

/* Whether a tap is a place of the network, in all blocks; then where its value ends. */
static int fits(const tap *one, int64_t *value_end) {
    size_t steps;
    bnn_steps(&steps);
    int64_t distance, span;
    if (one->kernel_set < 0 || (uint64_t)one->kernel_set >= taps_limits().kernel_set_count || one->step < 0 ||
        (uint64_t)one->step >= steps || one->offset < 0 || one->stride < 0 || one->every < 1 || one->bytes < 1 ||
        one->value_offset < 0 || one->force < 0 || one->force > 1) {
        return 0;
    }
    int64_t blocks = taps_blocks((size_t)one->step);
    if (__builtin_mul_overflow((blocks - 1) / one->every, one->stride, &distance) ||
        __builtin_add_overflow(distance, one->bytes, &span) || __builtin_mul_overflow(blocks, one->bytes, value_end) ||
        __builtin_add_overflow(*value_end, one->value_offset, value_end)) {
        return 0;
    }
    return (uint64_t)span <= room_at(one->space, one->offset);
}

static bnn_status check(const tap_list *list, size_t *value_bytes, int *forces) {
    *value_bytes = 0;
    *forces = 0;
    if (list->numbers == NULL && list->count > 0) {
        return BNN_ERROR_ARGUMENT;
    }
    for (size_t i = 0; i < list->count; i++) {
        tap one = taps_get(list, i);
        int64_t end;
        if (!fits(&one, &end)) {
            return BNN_ERROR_ARGUMENT;
        }
        *value_bytes = (uint64_t)end > *value_bytes ? (size_t)end : *value_bytes;
        *forces |= one.force == 1;
    }
    return BNN_OK;
}

bnn_status bnn_tapped_bytes(const int64_t *taps, size_t tap_count, size_t *value_bytes) {
    const tap_list list = {.numbers = taps, .count = tap_count};
    int forces;
    return value_bytes == NULL ? BNN_ERROR_ARGUMENT : check(&list, value_bytes, &forces);
}

bnn_status taps_begin(const tap_list *list) {
    size_t needed;
    int forces;
    if (check(list, &needed, &forces) != BNN_OK || needed > list->value_bytes || (forces && list->forced == NULL) ||
        (list->observed == NULL && list->value_bytes > 0)) {
        return BNN_ERROR_ARGUMENT;
    }
    if (list->value_bytes > 0) {
        memset(list->observed, 0, list->value_bytes);
    }
    return BNN_OK;
}

/*
 * The functions of device_functions.cuh for kernels whose threads became loops (passes/tir/serial_threads.py), on a CPU.
 *
 * A function of a warp is given, for each place, the address of lane 0's and the elements from one lane to the next.
 * Copies become visible when they are waited for, as late as the device allows; until then their destination holds a pattern.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "float_functions.cuh"

enum { LANES = 32, MAXIMUM_COPIES = 1 << 16, PATTERN = 0xA5 };

typedef struct copy {
    void *destination;
    const void *source;
    size_t bytes;
    int valid;
    int group;
} copy;

static _Thread_local copy copies[MAXIMUM_COPIES];
static _Thread_local int copy_count, open_group;

static void add_copy(void *destination, const void *source, size_t bytes, int valid) {
    if (copy_count == MAXIMUM_COPIES || (uintptr_t)destination % bytes != 0 || (uintptr_t)source % bytes != 0) {
        abort(); /* a kernel that never waits, or an address that the device refuses */
    }
    memset(destination, PATTERN, bytes);
    copies[copy_count++] = (copy){destination, source, bytes, valid, open_group};
}

void bnn_copy_async_1(void *destination, const void *source, int valid) { add_copy(destination, source, 4, valid); }
void bnn_copy_async_2(void *destination, const void *source, int valid) { add_copy(destination, source, 8, valid); }
void bnn_copy_async_4(void *destination, const void *source, int valid) { add_copy(destination, source, 16, valid); }

/* Shared memory and registers of a block: one place for each buffer of a kernel, filled with a pattern when a block begins. */
void *bnn_block_memory(int32_t index, int64_t bytes) {
    enum { MAXIMUM_BUFFERS = 256 };
    static _Thread_local struct {
        void *memory;
        int64_t bytes;
    } places[MAXIMUM_BUFFERS];
    if (index >= MAXIMUM_BUFFERS) {
        abort();
    }
    if (places[index].bytes < bytes) {
        free(places[index].memory);
        places[index].memory = aligned_alloc(64, ((size_t)bytes + 63) / 64 * 64);
        places[index].bytes = bytes;
        if (places[index].memory == NULL) {
            abort();
        }
    }
    return memset(places[index].memory, PATTERN, (size_t)bytes);
}

void bnn_barrier(void) {}

void bnn_commit_copies(void) { open_group++; }

void bnn_wait_for_copies(int pending) {
    int kept = 0;
    for (int i = 0; i < copy_count; i++) {
        copy done = copies[i];
        if (done.group >= open_group - pending) {
            copies[kept++] = done;
        } else if (done.valid) {
            memcpy(done.destination, done.source, done.bytes);
        } else {
            memset(done.destination, 0, done.bytes);
        }
    }
    copy_count = kept;
}

/* Fragments of 16 rows, 8 columns and 8 words, as the PTX ISA lays them out over the lanes. */
static void mma(int32_t *c, int64_t c_step, const uint32_t *a, int64_t a_step, const uint32_t *b, int64_t b_step, int and) {
    for (int row = 0; row < 16; row++) {
        for (int column = 0; column < 8; column++) {
            int32_t sum = 0;
            for (int word = 0; word < 8; word++) {
                uint32_t left = a[(row % 8 * 4 + word % 4) * a_step + word / 4 * 2 + row / 8];
                uint32_t right = b[(column * 4 + word % 4) * b_step + word / 4];
                sum += __builtin_popcount(and ? left & right : left ^ right);
            }
            c[(row % 8 * 4 + column / 2) * c_step + row / 8 * 2 + column % 2] += sum;
        }
    }
}

void bnn_mma_xor(int32_t *c, int64_t c_step, const uint32_t *a, int64_t a_step, const uint32_t *b, int64_t b_step) {
    mma(c, c_step, a, a_step, b, b_step, 0);
}

void bnn_mma_and(int32_t *c, int64_t c_step, const uint32_t *a, int64_t a_step, const uint32_t *b, int64_t b_step) {
    mma(c, c_step, a, a_step, b, b_step, 1);
}

void bnn_or_across_4(uint32_t *value, int64_t step) {
    for (int quad = 0; quad < LANES; quad += 4) {
        uint32_t all = 0;
        for (int lane = quad; lane < quad + 4; lane++) {
            all |= value[lane * step];
        }
        for (int lane = quad; lane < quad + 4; lane++) {
            value[lane * step] = all;
        }
    }
}

static void add_across(int32_t *value, int64_t step, int width) {
    for (int first = 0; first < LANES; first += width) {
        int32_t sum = 0;
        for (int lane = first; lane < first + width; lane++) {
            sum += value[lane * step];
        }
        for (int lane = first; lane < first + width; lane++) {
            value[lane * step] = sum;
        }
    }
}

void bnn_add_across_4(int32_t *value, int64_t step) { add_across(value, step, 4); }
void bnn_add_across_32(int32_t *value, int64_t step) { add_across(value, step, LANES); }

void bnn_ballot(uint32_t *result, int64_t result_step, const uint32_t *condition, int64_t condition_step) {
    uint32_t bits = 0;
    for (int lane = 0; lane < LANES; lane++) {
        bits |= (uint32_t)(condition[lane * condition_step] != 0) << lane;
    }
    for (int lane = 0; lane < LANES; lane++) {
        result[lane * result_step] = bits;
    }
}

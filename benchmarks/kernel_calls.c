// Calls kernels on memory of its own: as a library for timing (kernels.py), as a program for counting instructions
// (arm_instructions.py). kernel_table.h is generated: the kernels, and the parameters of each.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ALIGNMENT 64
#define MOST_PARAMETERS 16

typedef struct {
    size_t bytes;
    int is_float;
} parameter_t;

typedef struct {
    int32_t (*call)(void **pointers, int32_t block);
    int blocks; // calls for the whole layer
    int count;
    parameter_t parameters[MOST_PARAMETERS];
} kernel_t;

#include "kernel_table.h"

typedef struct {
    void *sync;
    int32_t num_task;
} environment_t;
typedef int (*body_t)(int, environment_t *, void *);

static int launch(body_t body, void *closure, int wanted) {
    environment_t environment = {0, wanted ? wanted : 1};
    for (int index = 0; index < environment.num_task; ++index) {
        int status = body(index, &environment, closure);
        if (status) return status;
    }
    return 0;
}

int (*__TVMBackendParallelLaunch)(body_t, void *, int) = launch;

static void *memory(parameter_t parameter, uint32_t *state) {
    size_t bytes = (parameter.bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    uint32_t *words = aligned_alloc(ALIGNMENT, bytes);
    if (!words) return NULL;
    for (size_t i = 0; i < bytes / 4; ++i) {
        *state = *state * 1664525u + 1013904223u;
        float value = (float)(*state >> 16) / 65536.0f - 0.5f;
        uint32_t word = *state ^ *state >> 15;
        if (parameter.is_float) memcpy(&word, &value, sizeof word);
        words[i] = word;
    }
    return words;
}

// Pointers for a kernel, or NULL when there is no memory; never freed.
void **kernel_memory(int index) {
    uint32_t state = 1;
    void **pointers = calloc(MOST_PARAMETERS, sizeof *pointers);
    for (int i = 0; pointers && i < kernels[index].count; ++i) {
        pointers[i] = memory(kernels[index].parameters[i], &state);
        if (!pointers[i]) return NULL;
    }
    return pointers;
}

// Seconds that `repeat` computations of the whole layer take, or -1 when a kernel fails.
double kernel_seconds(int index, void **pointers, long repeat) {
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long turn = 0; turn < repeat; ++turn)
        for (int32_t block = 0; block < kernels[index].blocks; ++block)
            if (kernels[index].call(pointers, block)) return -1;
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (end.tv_sec - start.tv_sec) + 1e-9 * (end.tv_nsec - start.tv_nsec);
}

// Arguments: index of a kernel, how often to call it.
int main(int count, char **arguments) {
    if (count != 3) return 2;
    int index = atoi(arguments[1]);
    void **pointers = kernel_memory(index);
    return !pointers || kernel_seconds(index, pointers, atol(arguments[2])) < 0;
}

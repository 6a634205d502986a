/* What the generated plan.c gives to the executor. */
#ifndef BNN_CPU_PLAN_H
#define BNN_CPU_PLAN_H

#include "bnn_model.h"

/* The addresses that a step's arguments are taken from; all are 64-byte aligned. */
typedef struct bnn_memory {
    unsigned char *const *inputs;
    unsigned char *const *outputs;
    unsigned char *arena;
    unsigned char *workspace; /* this thread's own */
} bnn_memory;

/*
 * Neighbouring steps that run block after block: all steps on the first block of rows, then all on the second, …
 * Blocks are independent and shared out over the threads. The steps of a stage of one block may use all threads.
 */
typedef struct bnn_stage {
    size_t step_count;
    int32_t blocks;
} bnn_stage;

/* The kernels of all steps, compiled for one kind of processor core. */
typedef struct bnn_kernels {
    const char *name; /* "" when there is only one set */
    const bnn_step *steps;
    int32_t (*const *calls)(const bnn_memory *memory, int32_t block); /* one per step; 0 on success */
} bnn_kernels;

typedef struct bnn_plan {
    const bnn_tensor *inputs;
    size_t input_count;
    const bnn_tensor *outputs;
    size_t output_count;
    const bnn_kernels *kernel_sets; /* the first one is for any core */
    size_t kernel_set_count;
    size_t step_count;
    const bnn_stage *stages;
    size_t stage_count;
    size_t arena_bytes;
    size_t workspace_bytes; /* per thread */
} bnn_plan;

extern const bnn_plan bnn_network __attribute__((visibility("hidden")));
extern const unsigned char bnn_weights[] __attribute__((visibility("hidden")));

/* The kernel set that suits this machine; looked for once, the same one for as long as the process lives. */
const bnn_kernels *bnn_chosen_kernels(void) __attribute__((visibility("hidden")));

#endif

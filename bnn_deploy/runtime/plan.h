/* What the generated plan.c gives to the executor. */
#ifndef BNN_PLAN_H
#define BNN_PLAN_H

#include "bnn_model.h"

/* The addresses that a step's arguments are taken from; all are 64-byte aligned. */
typedef struct bnn_memory {
    unsigned char *const *inputs;
    unsigned char *const *outputs;
    unsigned char *arena;
} bnn_memory;

typedef struct bnn_plan {
    const bnn_tensor *inputs;
    size_t input_count;
    const bnn_tensor *outputs;
    size_t output_count;
    const bnn_step *steps;
    int32_t (*const *calls)(const bnn_memory *memory); /* one per step; 0 on success */
    size_t step_count;
    size_t arena_bytes;
} bnn_plan;

extern const bnn_plan bnn_network __attribute__((visibility("hidden")));
extern const unsigned char bnn_weights[] __attribute__((visibility("hidden")));

#endif

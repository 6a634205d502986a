/* What the generated plan.c of a network for a GPU gives to executor_gpu.c. */
#ifndef BNN_CUDA_PLAN_H
#define BNN_CUDA_PLAN_H

#include "bnn_model.h"

/* The parts of the model's one block of device memory, in this order; each begins at a multiple of BNN_GPU_ALIGNMENT. */
typedef enum bnn_space { BNN_WEIGHTS, BNN_ARENA, BNN_INPUT, BNN_OUTPUT, BNN_SPACES } bnn_space;

/* What cuMemAlloc aligns to, so that kernels may load vectors of any width. codegen/gpu_plan_source.py places tensors by it. */
enum { BNN_GPU_ALIGNMENT = 256 };

/* The address of a kernel's parameter. */
typedef struct bnn_gpu_argument {
    bnn_space space;
    size_t offset; /* in bytes */
} bnn_gpu_argument;

/* One kernel that the GPU runs, with all arguments of its step. */
typedef struct bnn_gpu_launch {
    const char *symbol;
    uint32_t grid[3];
    uint32_t block[3];
} bnn_gpu_launch;

/* How many of the plan's launches and arguments are a step's; those of all steps lie one after the other. */
typedef struct bnn_gpu_step {
    size_t launch_count;
    size_t argument_count;
} bnn_gpu_step;

typedef struct bnn_gpu_plan {
    const bnn_tensor *inputs;
    size_t input_count;
    const bnn_tensor *outputs;
    size_t output_count;
    const size_t *input_offsets; /* within BNN_INPUT */
    const size_t *output_offsets;
    const bnn_step *steps;
    const bnn_gpu_step *parts; /* of the steps */
    size_t step_count;
    const bnn_gpu_launch *launches;
    size_t launch_count;
    const bnn_gpu_argument *arguments;
    size_t argument_count;
    size_t space_bytes[BNN_SPACES];
    int32_t compute_capability; /* times ten */
    const char *cuda_of_cubin;  /* the oldest CUDA whose driver loads the cubin: "12.2" */
    const char *cuda_of_ptx;
} bnn_gpu_plan;

extern const bnn_gpu_plan bnn_network __attribute__((visibility("hidden")));
extern const unsigned char bnn_weights[] __attribute__((visibility("hidden")));
extern const unsigned char bnn_cubin[] __attribute__((visibility("hidden"))); /* ELF */
extern const unsigned char bnn_ptx[] __attribute__((visibility("hidden")));   /* text that ends in a zero byte */

#endif

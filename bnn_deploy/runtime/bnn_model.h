/*
 * C interface of a network compiled by bnn-deploy. Works from C11 and C++11; needs no header but the standard ones.
 *
 *     bnn_model *model;
 *     if (bnn_create(1, &model) != BNN_OK) ...
 *     const void *inputs[1] = {image};
 *     void *outputs[1] = {logits};
 *     if (bnn_run(model, inputs, outputs) != BNN_OK) ...
 *     bnn_destroy(model);
 *
 * Memory: bnn_create allocates bnn_memory_bytes(threads), bnn_set_threads the threads' part of it anew, and nothing else is
 * allocated, except the worker threads' stacks at the first run with more than one thread. Buffers given by the caller may
 * have any alignment; with 64 bytes a copy is saved. Inputs are only read, and must not overlap outputs.
 *
 * Threads: one bnn_model serves one run at a time (a second one at the same moment gets BNN_ERROR_BUSY); different
 * bnn_models are independent and may run at the same time. Results do not depend on the number of threads. After fork()
 * the child may use a bnn_model that was idle in the parent.
 */
#ifndef BNN_MODEL_H
#define BNN_MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BNN_API __attribute__((visibility("default")))
#define BNN_MAX_THREADS 256

typedef enum bnn_status {
    BNN_OK = 0,
    BNN_ERROR_ARGUMENT = 1, /* a null pointer, or a thread count outside 1..BNN_MAX_THREADS */
    BNN_ERROR_MEMORY = 2,   /* the memory of the model could not be allocated */
    BNN_ERROR_THREADS = 3,  /* the worker threads could not be started */
    BNN_ERROR_KERNEL = 4,   /* a kernel reported failure; bnn_failed_step says which. The outputs are undefined. */
    BNN_ERROR_BUSY = 5      /* this bnn_model is in use by another thread */
} bnn_status;

/* A network input or output. Data is C-ordered, little-endian, and as long as `bytes`; shape[0] counts the batch. */
typedef struct bnn_tensor {
    const char *name;
    const char *dtype; /* "float32", "int32" or "int64" */
    size_t rank;
    const int64_t *shape;
    size_t bytes;
} bnn_tensor;

/* One kernel: called once, or once for every block of rows. */
typedef struct bnn_step {
    const char *kernel; /* C symbol */
    const char *layer;  /* module path in PyTorch; several fused layers are joined by " + " */
    const char *kind;   /* "binary", "pack" or "float" */
} bnn_step;

/* Opaque: the memory and the threads of one running network. */
typedef struct bnn_model bnn_model;

/* What the network takes and gives: arrays of *count descriptions that live as long as the library. */
BNN_API const bnn_tensor *bnn_inputs(size_t *count);
BNN_API const bnn_tensor *bnn_outputs(size_t *count);
BNN_API const bnn_step *bnn_steps(size_t *count);

/* Name of the kernels that suit this machine's processor, for a network compiled with several sets of them; otherwise "". */
BNN_API const char *bnn_kernel_set(void);

/* Bytes that bnn_create allocates: the arena of intermediate results, a workspace for each thread, and room to realign
 * inputs and outputs. 0 for a thread count outside 1..BNN_MAX_THREADS. */
BNN_API size_t bnn_memory_bytes(int threads);

/* Prepares the network for runs on `threads` threads in all: the caller's and threads - 1 workers. */
BNN_API bnn_status bnn_create(int threads, bnn_model **model);

/* Changes the number of threads; the workers of before are joined, the new ones start at the next run. */
BNN_API bnn_status bnn_set_threads(bnn_model *model, int threads);

/* Runs the network once. inputs[i] and outputs[i] point to the bytes of bnn_inputs()[i] and bnn_outputs()[i]. */
BNN_API bnn_status bnn_run(bnn_model *model, const void *const *inputs, void *const *outputs);

/* The same, on the monotonic clock: step_seconds holds one number per step, all its calls together;
 * total_seconds is the whole run. Steps that run block by block share the time of their stage. */
BNN_API bnn_status bnn_run_timed(bnn_model *model, const void *const *inputs, void *const *outputs,
                                 double *step_seconds, double *total_seconds);

/* Index of the step that made the last run return BNN_ERROR_KERNEL, or -1. */
BNN_API ptrdiff_t bnn_failed_step(const bnn_model *model);

/* Joins the worker threads and frees the memory; a null pointer is allowed. */
BNN_API void bnn_destroy(bnn_model *model);

/* One English phrase for a status. */
BNN_API const char *bnn_status_text(bnn_status status);

#ifdef __cplusplus
}
#endif
#endif

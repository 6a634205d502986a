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
 *
 * Networks compiled for an NVIDIA GPU have the same interface and need the GPU's driver, libcuda.so.1 of CUDA 10.2 or newer,
 * and nothing else of CUDA. They run on the first GPU that the driver shows (CUDA_VISIBLE_DEVICES). bnn_create allocates all
 * memory there and copies the weights to it; buffers given by the caller may have any alignment, and are copied fastest from
 * and to page-locked memory (cuMemHostRegister). Numbers of threads are checked, and make no difference. A child after fork()
 * may not use the parent's bnn_models: CUDA does not work there.
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
    BNN_ERROR_ARGUMENT = 1, /* a null pointer, a thread count outside 1..BNN_MAX_THREADS, or a tap that is no place here */
    BNN_ERROR_MEMORY = 2,   /* the memory of the model could not be allocated */
    BNN_ERROR_THREADS = 3,  /* the worker threads could not be started */
    BNN_ERROR_KERNEL = 4,   /* a kernel reported failure; bnn_failed_step says which. The outputs are undefined. */
    BNN_ERROR_BUSY = 5,     /* this bnn_model is in use by another thread */
    BNN_ERROR_DEVICE = 6    /* the GPU cannot be used, or failed; bnn_device_error says why. The outputs are undefined. */
} bnn_status;

/* A network input or output. Data is C-ordered, little-endian, and as long as `bytes`; shape[0] counts the batch. */
typedef struct bnn_tensor {
    const char *name;
    const char *dtype; /* "float32", "int32" or "int64" */
    size_t rank;
    const int64_t *shape;
    size_t bytes;
} bnn_tensor;

/* One kernel: called once, or once for every block of rows. On a GPU it may be several launches. */
typedef struct bnn_step {
    const char *kernel; /* C symbol, or its name on a GPU */
    const char *layer;  /* module path in PyTorch; several fused layers are joined by " + " */
    const char *kind;   /* "binary", "pack" or "float" */
} bnn_step;

/* A GPU, as its driver describes it; -1: unknown. */
typedef struct bnn_device_info {
    char name[256];
    int32_t compute_capability; /* times ten: 87 is 8.7 */
    int32_t multiprocessors;
    int32_t khz;             /* highest clock of the multiprocessors */
    int32_t memory_khz;      /* highest clock of the memory */
    int32_t memory_bus_bits; /* width of the path to the memory */
    int64_t memory_bytes;
    int32_t cuda_version; /* newest that the driver supports: 12020 is 12.2 */
} bnn_device_info;

/* Opaque: the memory and the threads of one running network. */
typedef struct bnn_model bnn_model;

/* What the network takes and gives: arrays of *count descriptions that live as long as the library. */
BNN_API const bnn_tensor *bnn_inputs(size_t *count);
BNN_API const bnn_tensor *bnn_outputs(size_t *count);
BNN_API const bnn_step *bnn_steps(size_t *count);

/* Name of the kernels that suit this machine's processor, for a network compiled with several sets of them; otherwise "". */
BNN_API const char *bnn_kernel_set(void);

/* Bytes that bnn_create allocates: the arena of intermediate results, a workspace for each thread, and room to realign
 * inputs and outputs. On a GPU, bytes of its memory: weights, intermediate results, inputs and outputs. 0 for a thread count
 * outside 1..BNN_MAX_THREADS. */
BNN_API size_t bnn_memory_bytes(int threads);

/* Prepares the network for runs on `threads` threads in all: the caller's and threads - 1 workers. */
BNN_API bnn_status bnn_create(int threads, bnn_model **model);

/* Changes the number of threads; the workers of before are joined, the new ones start at the next run. */
BNN_API bnn_status bnn_set_threads(bnn_model *model, int threads);

/* Runs the network once. inputs[i] and outputs[i] point to the bytes of bnn_inputs()[i] and bnn_outputs()[i]. */
BNN_API bnn_status bnn_run(bnn_model *model, const void *const *inputs, void *const *outputs);

/* The same, on the monotonic clock: step_seconds holds one number per step, all its calls together;
 * total_seconds is the whole run. Steps that run block by block share the time of their stage. On a GPU, step_seconds are of
 * its own clock, and kernels are launched one by one: the gaps between short ones, which bnn_run does not have, are in them. */
BNN_API bnn_status bnn_run_timed(bnn_model *model, const void *const *inputs, void *const *outputs,
                                 double *step_seconds, double *total_seconds);

/* Runs the network on data in the GPU's memory: inputs[i] and outputs[i] are addresses there, stream is the caller's CUstream
 * of the GPU's primary context (null: the default stream) and not being captured. Returns as soon as everything is in the
 * stream; runs of one bnn_model wait for each other on the GPU. On a processor: BNN_ERROR_DEVICE. */
BNN_API bnn_status bnn_run_device(bnn_model *model, const uint64_t *inputs, const uint64_t *outputs, void *stream);

/*
 * Taps: what steps compute, copied out, and replaced by given values for all that read it.
 *
 * A tap is a row of BNN_TAP_NUMBERS numbers, in this order:
 *
 *     kernel_set    the set of kernels that it is meant for, from 0; taps of sets that this machine does not use do nothing
 *     step          index in bnn_steps() of the step that writes the value
 *     space         a bnn_tap_space
 *     offset        bytes from the beginning of the space to the value in block 0; outputs lie end to end, in their order
 *     stride, every in block b the value lies `b / every * stride` bytes further on
 *     bytes         size of one block of the value, at least 1
 *     value_offset  where the value lies in the buffers `observed` and `forced`: block b at value_offset + b * bytes
 *     force         1: replace the value by that of `forced`; 0: only look
 *
 * A step runs as many blocks as its stage has (always 1 on a GPU). tensors.json of a bundle lists the values that have a name.
 */
enum { BNN_TAP_NUMBERS = 9 };

typedef enum bnn_tap_space { BNN_TAP_OUTPUT = 1, BNN_TAP_ARENA = 3, BNN_TAP_WORKSPACE = 4 } bnn_tap_space;

/* The least value_bytes that bnn_run_tapped takes with these taps. BNN_ERROR_ARGUMENT if one of them is no place of this network:
 * a step, kernel set or space that it does not have, or bytes outside the space in any block. Needs no GPU. */
BNN_API bnn_status bnn_tapped_bytes(const int64_t *taps, size_t tap_count, size_t *value_bytes);

/* Runs the network once, slowly, with taps: whenever a step has computed a block, first each of its taps copies the value of that
 * block to `observed`, then each tap that forces overwrites it with the one in `forced`. So all later steps compute from
 * forced values, outputs hold them, and `observed` has what the network computed from those forced before it.
 * Blocks of a stage run one after the other on the calling thread, steps of a GPU without a graph; results are those of bnn_run.
 * `taps` are tap_count rows; `observed` and `forced` are value_bytes long and must not overlap. `forced` may be null when no tap
 * forces. Bytes of `observed` that no tap writes become 0. All taps are checked before anything runs: BNN_ERROR_ARGUMENT. */
BNN_API bnn_status bnn_run_tapped(bnn_model *model, const void *const *inputs, void *const *outputs, const int64_t *taps,
                                  size_t tap_count, unsigned char *observed, const unsigned char *forced,
                                  size_t value_bytes);

/* Index of the step that made the last run return BNN_ERROR_KERNEL, or whose launch made it return BNN_ERROR_DEVICE; or -1. */
BNN_API ptrdiff_t bnn_failed_step(const bnn_model *model);

/* Joins the worker threads and frees the memory; a null pointer is allowed. */
BNN_API void bnn_destroy(bnn_model *model);

/* Describes the GPU that the network runs on. BNN_ERROR_DEVICE where it cannot be used, and on a processor. */
BNN_API bnn_status bnn_device(bnn_device_info *info);

/* What made the last call on this thread that returned BNN_ERROR_DEVICE do so: one English phrase with the driver's function and
 * error, and what to do; "" before, and on a processor. It lives until the next call on this thread. */
BNN_API const char *bnn_device_error(void);

/* One English phrase for a status. */
BNN_API const char *bnn_status_text(bnn_status status);

#ifdef __cplusplus
}
#endif
#endif

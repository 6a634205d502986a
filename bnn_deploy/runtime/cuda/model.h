/* A network on the GPU: what belongs to one bnn_model. */
#ifndef BNN_CUDA_MODEL_H
#define BNN_CUDA_MODEL_H

#include "cuda/driver.h"
#include "cuda/plan.h"
#include "network/network.h"

struct bnn_model {
    model_use use;
    cuda_context context;
    cuda_module module;
    cuda_pointer memory;
    cuda_pointer spaces[BNN_SPACES]; /* where each begins in the memory */
    cuda_stream stream;
    cuda_event done; /* after the last run on a caller's stream */
    int is_pending;  /* whether that may still go on */
    cuda_executable_graph graph;
    cuda_function *kernels;  /* one per launch */
    cuda_pointer *addresses; /* one per argument of the plan */
    void **parameters;       /* pointers to the addresses, as launches take them */
    cuda_event *marks;       /* before the first step and after each one; made by the first timed run */
};

/* Calls of the driver go to the context that is this thread's; the caller's own comes back with gpu_leave. */
bnn_status gpu_enter(const bnn_model *model) __attribute__((visibility("hidden")));
void gpu_leave(void) __attribute__((visibility("hidden")));

/* Called when all launches of a step are in the stream. */
typedef bnn_status (*gpu_step_launched)(bnn_model *model, size_t step, const void *closure);

/* Puts all launches into the model's stream; `launched`, unless it is null, is called after each step. */
bnn_status gpu_launch_steps(bnn_model *model, gpu_step_launched launched, const void *closure)
    __attribute__((visibility("hidden")));

#endif

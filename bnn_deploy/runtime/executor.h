/* A network on the processor: what belongs to one bnn_model, and what all kinds of runs begin and end with. */
#ifndef BNN_EXECUTOR_H
#define BNN_EXECUTOR_H

#include "plan.h"
#include "thread_pool.h"

struct bnn_model {
    bnn_pool pool;
    const bnn_kernels *kernels;
    atomic_flag busy;
    atomic_ptrdiff_t failed_step;
    unsigned char *arena;
    unsigned char *thread_memory;   /* per thread: workspace, then the seconds of every step */
    unsigned char **inputs;         /* what the kernels are given: the caller's buffer, or its realigned copy */
    unsigned char **outputs;
    unsigned char **aligned_inputs; /* room inside this model */
    unsigned char **aligned_outputs;
};

/* Runs all stages of the plan over the model's buffers, in its pool. */
typedef bnn_status (*executor_stages)(bnn_model *model, void *closure);

/* One run: checks the arguments, keeps other runs of the model out, aligns the buffers around `stages`. */
bnn_status executor_run(bnn_model *model, const void *const *inputs, void *const *outputs, executor_stages stages,
                        void *closure) __attribute__((visibility("hidden")));

/* A thread's own workspace. */
unsigned char *executor_workspace(const bnn_model *model, int thread) __attribute__((visibility("hidden")));

#endif

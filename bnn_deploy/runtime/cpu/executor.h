/* A network on the processor: what belongs to one bnn_model. */
#ifndef BNN_CPU_EXECUTOR_H
#define BNN_CPU_EXECUTOR_H

#include "cpu/plan.h"
#include "cpu/thread_pool.h"
#include "network/network.h"

struct bnn_model {
    model_use use;
    bnn_pool pool;
    const bnn_kernels *kernels;
    unsigned char *arena;
    unsigned char *thread_memory;   /* per thread: workspace, then the seconds of every step */
    unsigned char **inputs;         /* what the kernels are given: the caller's buffer, or its realigned copy */
    unsigned char **outputs;
    unsigned char **aligned_inputs; /* room inside this model */
    unsigned char **aligned_outputs;
};

/* A thread's own workspace. */
unsigned char *executor_workspace(const bnn_model *model, int thread) __attribute__((visibility("hidden")));

/* Runs all stages of the plan over the model's buffers, with taps. */
bnn_status executor_run_tapped(bnn_model *model, const tap_list *taps) __attribute__((visibility("hidden")));

#endif

/* What all kinds of runs on a GPU begin and end with. */
#ifndef BNN_EXECUTOR_GPU_H
#define BNN_EXECUTOR_GPU_H

#include "gpu_model.h"

/* What lies between the copies of the inputs and of the outputs. */
typedef struct gpu_work {
    bnn_status (*launch)(bnn_model *model, void *closure); /* puts the steps into the model's stream */
    bnn_status (*finish)(bnn_model *model, void *closure); /* when all is done; may be null */
    void *closure;
} gpu_work;

/* One run with buffers in the memory of the processor: checks the arguments and keeps other runs of the model out. */
bnn_status gpu_run(bnn_model *model, const void *const *inputs, void *const *outputs, const gpu_work *work)
    __attribute__((visibility("hidden")));

#endif

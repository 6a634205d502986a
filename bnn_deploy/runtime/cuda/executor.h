/* What runs on a GPU with taps. */
#ifndef BNN_CUDA_EXECUTOR_H
#define BNN_CUDA_EXECUTOR_H

#include "cuda/model.h"

/* Puts all steps into the model's stream, and the taps' copies between them. */
bnn_status executor_launch_tapped(bnn_model *model, const tap_list *taps) __attribute__((visibility("hidden")));

#endif

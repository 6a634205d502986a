/* The kernels of a network on the GPU. */
#ifndef BNN_CUDA_MODULE_H
#define BNN_CUDA_MODULE_H

#include "cuda/driver.h"
#include "cuda/plan.h"

/* Gives the bundle's device code to the driver, in the present context. */
bnn_status gpu_module_load(cuda_module *module) __attribute__((visibility("hidden")));

#endif

/*
 * NVIDIA's driver interface, found in libcuda.so.1 when the program runs: bundles need neither the CUDA toolkit nor its runtime.
 *
 * The declarations are our own, after "CUDA Driver API" (docs.nvidia.com/cuda/cuda-driver-api) of CUDA 10.2 to 13. Functions have
 * the names of the library's symbols, with the versions that CUDA 10.2's driver has; newer drivers keep them.
 */
#ifndef BNN_CUDA_DRIVER_H
#define BNN_CUDA_DRIVER_H

#include "bnn_model.h"

typedef int cuda_result; /* CUresult */
typedef int cuda_device; /* CUdevice */
typedef uint64_t cuda_pointer; /* CUdeviceptr */
typedef struct CUctx_st *cuda_context;
typedef struct CUmod_st *cuda_module;
typedef struct CUfunc_st *cuda_function;
typedef struct CUstream_st *cuda_stream;
typedef struct CUevent_st *cuda_event;
typedef struct CUgraph_st *cuda_graph;
typedef struct CUgraphExec_st *cuda_executable_graph;
typedef struct CUgraphNode_st *cuda_graph_node;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_OLDEST_DRIVER = 10020, /* 1000 times the major number + 10 times the minor one */
    CUDA_STREAM_NON_BLOCKING = 1,
    CUDA_CAPTURE_THREAD_LOCAL = 1,
    CUDA_EVENT_DISABLE_TIMING = 2,
    CUDA_JIT_ERROR_LOG_BUFFER = 5,
    CUDA_JIT_ERROR_LOG_BYTES = 6,
    CUDA_ATTRIBUTE_KHZ = 13,
    CUDA_ATTRIBUTE_MULTIPROCESSORS = 16,
    CUDA_ATTRIBUTE_MEMORY_KHZ = 36,
    CUDA_ATTRIBUTE_MEMORY_BUS_BITS = 37,
    CUDA_ATTRIBUTE_CAPABILITY_MAJOR = 75,
    CUDA_ATTRIBUTE_CAPABILITY_MINOR = 76
};

#define CUDA_FUNCTIONS(function)                                                                                         \
    function(cuInit, (unsigned flags))                                                                                   \
    function(cuDriverGetVersion, (int *version))                                                                         \
    function(cuGetErrorName, (cuda_result error, const char **name))                                                     \
    function(cuDeviceGetCount, (int *count))                                                                             \
    function(cuDeviceGet, (cuda_device *device, int ordinal))                                                            \
    function(cuDeviceGetName, (char *name, int length, cuda_device device))                                              \
    function(cuDeviceGetAttribute, (int *value, int attribute, cuda_device device))                                      \
    function(cuDeviceTotalMem_v2, (size_t *bytes, cuda_device device))                                                   \
    function(cuDevicePrimaryCtxRetain, (cuda_context *context, cuda_device device))                                      \
    function(cuDevicePrimaryCtxRelease, (cuda_device device))                                                            \
    function(cuCtxPushCurrent_v2, (cuda_context context))                                                                \
    function(cuCtxPopCurrent_v2, (cuda_context *context))                                                                \
    function(cuModuleLoadData, (cuda_module *module, const void *image))                                                 \
    function(cuModuleLoadDataEx, (cuda_module *module, const void *image, unsigned count, int *options, void **values))  \
    function(cuModuleUnload, (cuda_module module))                                                                       \
    function(cuModuleGetFunction, (cuda_function *kernel, cuda_module module, const char *name))                         \
    function(cuMemAlloc_v2, (cuda_pointer *memory, size_t bytes))                                                        \
    function(cuMemFree_v2, (cuda_pointer memory))                                                                        \
    function(cuMemcpyHtoDAsync_v2, (cuda_pointer to, const void *from, size_t bytes, cuda_stream stream))                \
    function(cuMemcpyDtoHAsync_v2, (void *to, cuda_pointer from, size_t bytes, cuda_stream stream))                      \
    function(cuMemcpyDtoDAsync_v2, (cuda_pointer to, cuda_pointer from, size_t bytes, cuda_stream stream))               \
    function(cuStreamCreate, (cuda_stream * stream, unsigned flags))                                                     \
    function(cuStreamDestroy_v2, (cuda_stream stream))                                                                   \
    function(cuStreamSynchronize, (cuda_stream stream))                                                                  \
    function(cuStreamWaitEvent, (cuda_stream stream, cuda_event event, unsigned flags))                                  \
    function(cuStreamBeginCapture_v2, (cuda_stream stream, int mode))                                                    \
    function(cuStreamEndCapture, (cuda_stream stream, cuda_graph * graph))                                               \
    function(cuEventCreate, (cuda_event * event, unsigned flags))                                                        \
    function(cuEventRecord, (cuda_event event, cuda_stream stream))                                                      \
    function(cuEventSynchronize, (cuda_event event))                                                                     \
    function(cuEventElapsedTime, (float *milliseconds, cuda_event start, cuda_event end))                                \
    function(cuEventDestroy_v2, (cuda_event event))                                                                      \
    function(cuLaunchKernel, (cuda_function kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, \
                              unsigned block_y, unsigned block_z, unsigned shared_bytes, cuda_stream stream,             \
                              void **parameters, void **extra))                                                          \
    function(cuGraphDestroy, (cuda_graph graph))                                                                         \
    function(cuGraphLaunch, (cuda_executable_graph graph, cuda_stream stream))                                           \
    function(cuGraphExecDestroy, (cuda_executable_graph graph))

/* One that no version has under the same name with the same parameters: null where it is missing.
 * CUDA 11.4 and newer; 11.0 to 11.3; 10.2. */
#define CUDA_ALTERNATIVES(function)                                                                                      \
    function(cuGraphInstantiateWithFlags,                                                                                \
             (cuda_executable_graph * executable, cuda_graph graph, unsigned long long flags))                           \
    function(cuGraphInstantiate_v2, (cuda_executable_graph * executable, cuda_graph graph, cuda_graph_node * node,       \
                                     char *log, size_t log_bytes))                                                       \
    function(cuGraphInstantiate, (cuda_executable_graph * executable, cuda_graph graph, cuda_graph_node * node,          \
                                  char *log, size_t log_bytes))

typedef struct cuda_driver {
#define CUDA_MEMBER(name, parameters) cuda_result(*name) parameters;
    CUDA_FUNCTIONS(CUDA_MEMBER)
    CUDA_ALTERNATIVES(CUDA_MEMBER)
#undef CUDA_MEMBER
    int version; /* newest CUDA that it supports: 12020 is 12.2 */
    cuda_device device;
} cuda_driver;

/* The functions, once cuda_open has succeeded. */
extern cuda_driver cuda __attribute__((visibility("hidden")));

/* Loads the driver and finds its first GPU; does nothing when that has succeeded before. Every thread calls it first. */
bnn_status cuda_open(void) __attribute__((visibility("hidden")));

/* A property of the GPU, -1 if the driver does not say. */
int32_t cuda_attribute(int attribute) __attribute__((visibility("hidden")));

bnn_status cuda_instantiate(cuda_executable_graph *executable, cuda_graph graph) __attribute__((visibility("hidden")));

/* Sets what bnn_device_error tells this thread, and gives BNN_ERROR_DEVICE. */
bnn_status cuda_fail(const char *format, ...) __attribute__((visibility("hidden"), format(printf, 1, 2)));

/* The driver's name of an error: "CUDA_ERROR_INVALID_IMAGE". */
const char *cuda_error_name(cuda_result error) __attribute__((visibility("hidden")));

/* BNN_OK for success, else cuda_fail with the function, what it was for ("" or "of …"), the error and what to do. */
bnn_status cuda_check(cuda_result result, const char *function, const char *object) __attribute__((visibility("hidden")));

#define CUDA_TRY(function, ...) cuda_check(cuda.function(__VA_ARGS__), #function, "")

#endif

#include "cuda/module.h"

#include <string.h>

enum { LOG_BYTES = 2048 };

/* What the driver's compiler said first, on one line; at most 200 characters. */
static int first_line(char *log) {
    log[LOG_BYTES - 1] = '\0';
    log += strspn(log, " \n");
    size_t length = strcspn(log, "\n");
    return (int)(length < 200 ? length : 200);
}

bnn_status gpu_module_load(cuda_module *module) {
    int32_t major = cuda_attribute(CUDA_ATTRIBUTE_CAPABILITY_MAJOR), minor = cuda_attribute(CUDA_ATTRIBUTE_CAPABILITY_MINOR);
    int32_t needed = bnn_network.compute_capability;
    if (major >= 0 && minor >= 0 && 10 * major + minor < needed) {
        return cuda_fail("the GPU has compute capability %d.%d, the network was compiled for %d.%d; compile it with --target cuda "
                         "--arch sm_%d",
                         major, minor, needed / 10, needed % 10, 10 * major + minor);
    }
    cuda_result refusal = cuda.cuModuleLoadData(module, bnn_cubin);
    if (refusal == CUDA_SUCCESS || refusal == CUDA_ERROR_OUT_OF_MEMORY) {
        return cuda_check(refusal, "cuModuleLoadData", "");
    }
    /* The cubin is for another GPU, or too new for this driver; which of the driver's many errors says so differs by version. */
    char log[LOG_BYTES] = "";
    int options[] = {CUDA_JIT_ERROR_LOG_BUFFER, CUDA_JIT_ERROR_LOG_BYTES};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    cuda_result second = cuda.cuModuleLoadDataEx(module, bnn_ptx, 2, options, values);
    if (second == CUDA_SUCCESS || second == CUDA_ERROR_OUT_OF_MEMORY) {
        return cuda_check(second, "cuModuleLoadDataEx", "");
    }
    int length = first_line(log);
    return cuda_fail("the driver, for CUDA up to %d.%d, takes neither the network's machine code (%s) nor its PTX (%s%s%.*s); update "
                     "NVIDIA's driver to one for CUDA %s, or %s for the PTX, or newer",
                     cuda.version / 1000, cuda.version % 1000 / 10, cuda_error_name(refusal), cuda_error_name(second),
                     length == 0 ? "" : ": ", length, log + strspn(log, " \n"), bnn_network.cuda_of_cubin,
                     bnn_network.cuda_of_ptx);
}

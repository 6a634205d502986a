/* What went wrong on the GPU, in words. */
#include "cuda/driver.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES = 1024 };

static _Thread_local char text[TEXT_BYTES];

const char *bnn_device_error(void) { return text; }

bnn_status cuda_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return BNN_ERROR_DEVICE;
}

const char *cuda_error_name(cuda_result error) {
    const char *name = NULL;
    if (cuda.cuGetErrorName(error, &name) != CUDA_SUCCESS || name == NULL) {
        return "an error without a name";
    }
    return name;
}

/* By the numbers of CUresult in "CUDA Driver API", section "Data types used by CUDA driver". */
static const char *advice(cuda_result error) {
    switch (error) {
    case CUDA_ERROR_OUT_OF_MEMORY:
        return "free memory of the GPU, or compile the network for a smaller batch";
    case 34: /* CUDA_ERROR_STUB_LIBRARY */
        return "take the CUDA toolkit's folder of stubs out of LD_LIBRARY_PATH";
    case 46: /* CUDA_ERROR_DEVICE_UNAVAILABLE */
        return "end the program that has the GPU for itself, or see the compute mode in nvidia-smi";
    case 100: /* CUDA_ERROR_NO_DEVICE */
    case 101: /* CUDA_ERROR_INVALID_DEVICE */
    case 304: /* CUDA_ERROR_OPERATING_SYSTEM: Jetson's device files belong to the group video */
        return "see that a GPU is there and CUDA_VISIBLE_DEVICES does not hide it, and on a Jetson that the user is in the group "
               "video";
    case 500: /* CUDA_ERROR_NOT_FOUND */
        return "this is a defect of bnn-deploy, please report it with the model";
    case 700: /* CUDA_ERROR_ILLEGAL_ADDRESS */
    case 701: /* CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES */
    case 714: /* CUDA_ERROR_HARDWARE_STACK_ERROR */
    case 715: /* CUDA_ERROR_ILLEGAL_INSTRUCTION */
    case 716: /* CUDA_ERROR_MISALIGNED_ADDRESS */
    case 718: /* CUDA_ERROR_INVALID_PC */
    case 719: /* CUDA_ERROR_LAUNCH_FAILED */
        return "start the program again, and if it happens again report it with the model: it is a defect of bnn-deploy or of "
               "the GPU";
    case 702: /* CUDA_ERROR_LAUNCH_TIMEOUT */
        return "the system stops kernels that take long, so use a GPU without a screen, or a smaller batch";
    case 803: /* CUDA_ERROR_SYSTEM_DRIVER_MISMATCH */
        return "start the machine again after the update of NVIDIA's driver";
    default:
        return "see whether other CUDA programs run on this machine, as nvidia-smi or deviceQuery";
    }
}

bnn_status cuda_check(cuda_result result, const char *function, const char *object) {
    if (result == CUDA_SUCCESS) {
        return BNN_OK;
    }
    /* People know the functions without the versions of their symbols. */
    const char *version = strstr(function, "_v2");
    int length = (int)(version == NULL ? strlen(function) : (size_t)(version - function));
    return cuda_fail("%.*s%s%s failed with %s; %s", length, function, object[0] == '\0' ? "" : " ", object,
                     cuda_error_name(result), advice(result));
}

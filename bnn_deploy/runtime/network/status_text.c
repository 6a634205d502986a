#include "bnn_model.h"

const char *bnn_status_text(bnn_status status) {
    switch (status) {
    case BNN_OK:
        return "success";
    case BNN_ERROR_ARGUMENT:
        return "an argument is a null pointer, out of range, or a tap that is no place of this network";
    case BNN_ERROR_MEMORY:
        return "the memory of the model could not be allocated";
    case BNN_ERROR_THREADS:
        return "the worker threads could not be started";
    case BNN_ERROR_KERNEL:
        return "a kernel reported failure";
    case BNN_ERROR_BUSY:
        return "the model is in use by another thread";
    case BNN_ERROR_DEVICE:
        return "the GPU cannot be used";
    }
    return "unknown status";
}

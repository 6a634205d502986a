/* The functions of bnn_model.h about a GPU, of networks that run on the processor. */
#include "bnn_model.h"

bnn_status bnn_device(bnn_device_info *info) { return info == NULL ? BNN_ERROR_ARGUMENT : BNN_ERROR_DEVICE; }

bnn_status bnn_run_device(bnn_model *model, const uint64_t *inputs, const uint64_t *outputs, void *stream) {
    (void)stream;
    return model == NULL || inputs == NULL || outputs == NULL ? BNN_ERROR_ARGUMENT : BNN_ERROR_DEVICE;
}

const char *bnn_device_error(void) { return ""; }

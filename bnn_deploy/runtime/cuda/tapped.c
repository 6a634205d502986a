/* Runs the generated plan on a GPU with taps: step after step, with the taps' copies between them in the same stream. */
#include "cuda/executor.h"

tap_limits taps_limits(void) {
    const tap_limits limits = {1, bnn_network.space_bytes[BNN_ARENA], 0};
    return limits;
}

int64_t taps_blocks(size_t step) {
    (void)step;
    return 1;
}

static cuda_pointer place_of(const bnn_model *model, const tap *one) {
    size_t offset = tap_place(one, 0);
    if (one->space == BNN_TAP_ARENA) {
        return model->spaces[BNN_ARENA] + offset;
    }
    size_t output = taps_output(&offset);
    return model->spaces[BNN_OUTPUT] + bnn_network.output_offsets[output] + offset;
}

/* All are copied out before any is overwritten: two taps may share bytes. */
static bnn_status use_taps(bnn_model *model, size_t step, const void *closure) {
    const tap_list *list = closure;
    bnn_status status = BNN_OK;
    for (int forcing = 0; forcing <= 1; forcing++) {
        for (size_t i = 0; status == BNN_OK && i < list->count; i++) {
            const tap one = taps_get(list, i);
            if ((uint64_t)one.step != step || (forcing && !one.force)) {
                continue;
            }
            cuda_pointer place = place_of(model, &one);
            size_t value = tap_value(&one, 0), bytes = (size_t)one.bytes;
            status = forcing ? CUDA_TRY(cuMemcpyHtoDAsync_v2, place, list->forced + value, bytes, model->stream)
                             : CUDA_TRY(cuMemcpyDtoHAsync_v2, list->observed + value, place, bytes, model->stream);
        }
    }
    return status;
}

bnn_status executor_launch_tapped(bnn_model *model, const tap_list *taps) { return gpu_launch_steps(model, use_taps, taps); }

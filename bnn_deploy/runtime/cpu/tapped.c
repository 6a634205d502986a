/* Runs the generated plan with taps: block after block on one thread, so that nothing reads a value before it is forced. */
#include "cpu/executor.h"

#include <string.h>

tap_limits taps_limits(void) {
    const tap_limits limits = {bnn_network.kernel_set_count, bnn_network.arena_bytes, bnn_network.workspace_bytes};
    return limits;
}

int64_t taps_blocks(size_t step) {
    const bnn_stage *stage = bnn_network.stages;
    for (size_t end = stage->step_count; step >= end; end += stage->step_count) {
        stage++;
    }
    return stage->blocks;
}

static unsigned char *place_of(const tap *one, const bnn_memory *memory, int32_t block) {
    size_t offset = tap_place(one, block);
    switch (one->space) {
    case BNN_TAP_OUTPUT: {
        size_t output = taps_output(&offset);
        return memory->outputs[output] + offset;
    }
    case BNN_TAP_ARENA:
        return memory->arena + offset;
    default:
        return memory->workspace + offset;
    }
}

/* All are copied out before any is overwritten: two taps may share bytes. */
static void use_taps(const tap_list *list, int64_t kernel_set, size_t step, const bnn_memory *memory, int32_t block) {
    for (int forcing = 0; forcing <= 1; forcing++) {
        for (size_t i = 0; i < list->count; i++) {
            const tap one = taps_get(list, i);
            if (one.kernel_set != kernel_set || (uint64_t)one.step != step || (forcing && !one.force)) {
                continue;
            }
            unsigned char *place = place_of(&one, memory, block);
            if (forcing) {
                memcpy(place, list->forced + tap_value(&one, block), (size_t)one.bytes);
            } else {
                memcpy(list->observed + tap_value(&one, block), place, (size_t)one.bytes);
            }
        }
    }
}

bnn_status executor_run_tapped(bnn_model *model, const tap_list *taps) {
    const bnn_memory memory = {model->inputs, model->outputs, model->arena, executor_workspace(model, 0)};
    int64_t kernel_set = model->kernels - bnn_network.kernel_sets;
    size_t first = 0;
    for (const bnn_stage *stage = bnn_network.stages; stage < bnn_network.stages + bnn_network.stage_count; stage++) {
        /* As in an ordinary run: only the kernels of a stage of one block may use the other threads. */
        bnn_pool *pool = bnn_pool_enter(stage->blocks == 1 ? &model->pool : NULL);
        int32_t failed = 0;
        for (int32_t block = 0; block < stage->blocks && failed == 0; block++) {
            for (size_t step = first; step < first + stage->step_count && failed == 0; step++) {
                failed = model->kernels->calls[step](&memory, block);
                if (failed != 0) {
                    atomic_store(&model->use.failed_step, (ptrdiff_t)step);
                } else {
                    use_taps(taps, kernel_set, step, &memory, block);
                }
            }
        }
        bnn_pool_enter(pool);
        if (failed != 0) {
            return BNN_ERROR_KERNEL;
        }
        first += stage->step_count;
    }
    return BNN_OK;
}

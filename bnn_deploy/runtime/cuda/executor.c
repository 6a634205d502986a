/* Runs the generated plan on a GPU: all launches are one CUDA graph, over one block of device memory. */
#include "cuda/executor.h"

#include <stdlib.h>

const bnn_tensor *bnn_inputs(size_t *count) {
    *count = bnn_network.input_count;
    return bnn_network.inputs;
}

const bnn_tensor *bnn_outputs(size_t *count) {
    *count = bnn_network.output_count;
    return bnn_network.outputs;
}

const bnn_step *bnn_steps(size_t *count) {
    *count = bnn_network.step_count;
    return bnn_network.steps;
}

const char *bnn_kernel_set(void) { return ""; }

static bnn_status make_marks(bnn_model *model) {
    if (model->marks == NULL) {
        model->marks = calloc(bnn_network.step_count + 1, sizeof *model->marks);
    }
    bnn_status status = model->marks == NULL ? BNN_ERROR_MEMORY : BNN_OK;
    for (size_t i = 0; status == BNN_OK && i <= bnn_network.step_count; i++) {
        if (model->marks[i] == NULL) {
            status = CUDA_TRY(cuEventCreate, &model->marks[i], 0);
        }
    }
    return status;
}

static bnn_status mark(bnn_model *model, size_t step, const void *closure) {
    (void)closure;
    return CUDA_TRY(cuEventRecord, model->marks[step + 1], model->stream);
}

static bnn_status launch_marked(bnn_model *model) {
    bnn_status status = make_marks(model);
    if (status == BNN_OK) {
        status = CUDA_TRY(cuEventRecord, model->marks[0], model->stream);
    }
    return status == BNN_OK ? gpu_launch_steps(model, mark, NULL) : status;
}

static bnn_status read_marks(const bnn_model *model, double *step_seconds) {
    bnn_status status = BNN_OK;
    for (size_t i = 0; status == BNN_OK && i < bnn_network.step_count; i++) {
        float milliseconds = 0;
        status = CUDA_TRY(cuEventElapsedTime, &milliseconds, model->marks[i], model->marks[i + 1]);
        step_seconds[i] = 1e-3 * (double)milliseconds;
    }
    return status;
}

/* Puts the steps into the model's stream. */
static bnn_status launch(bnn_model *model, int timed, const tap_list *taps) {
    if (taps != NULL) {
        return executor_launch_tapped(model, taps);
    }
    return timed ? launch_marked(model) : CUDA_TRY(cuGraphLaunch, model->graph, model->stream);
}

/* On the model's own stream, with buffers in the memory of the processor. */
static bnn_status run_here(bnn_model *model, const void *const *inputs, void *const *outputs, double *step_seconds,
                           const tap_list *taps) {
    bnn_status status = BNN_OK;
    if (model->is_pending) {
        status = CUDA_TRY(cuStreamWaitEvent, model->stream, model->done, 0);
    }
    for (size_t i = 0; status == BNN_OK && i < bnn_network.input_count; i++) {
        cuda_pointer place = model->spaces[BNN_INPUT] + bnn_network.input_offsets[i];
        status = CUDA_TRY(cuMemcpyHtoDAsync_v2, place, inputs[i], bnn_network.inputs[i].bytes, model->stream);
    }
    if (status == BNN_OK) {
        status = launch(model, step_seconds != NULL, taps);
    }
    for (size_t i = 0; status == BNN_OK && i < bnn_network.output_count; i++) {
        cuda_pointer place = model->spaces[BNN_OUTPUT] + bnn_network.output_offsets[i];
        status = CUDA_TRY(cuMemcpyDtoHAsync_v2, outputs[i], place, bnn_network.outputs[i].bytes, model->stream);
    }
    /* Even after a failure: nothing may touch the caller's buffers any more. */
    cuda_result finished = cuda.cuStreamSynchronize(model->stream);
    if (status == BNN_OK) {
        status = cuda_check(finished, "cuStreamSynchronize", "");
    }
    if (status == BNN_OK) {
        model->is_pending = 0;
    }
    return status == BNN_OK && step_seconds != NULL ? read_marks(model, step_seconds) : status;
}

/* On the caller's stream, with buffers in the memory of the GPU. The graph's addresses stay, so these are copied, too. */
static bnn_status run_there(bnn_model *model, const uint64_t *inputs, const uint64_t *outputs, cuda_stream stream) {
    bnn_status status = BNN_OK;
    if (model->is_pending) {
        status = CUDA_TRY(cuStreamWaitEvent, stream, model->done, 0);
    }
    for (size_t i = 0; status == BNN_OK && i < bnn_network.input_count; i++) {
        cuda_pointer place = model->spaces[BNN_INPUT] + bnn_network.input_offsets[i];
        status = CUDA_TRY(cuMemcpyDtoDAsync_v2, place, inputs[i], bnn_network.inputs[i].bytes, stream);
    }
    if (status == BNN_OK) {
        status = CUDA_TRY(cuGraphLaunch, model->graph, stream);
    }
    for (size_t i = 0; status == BNN_OK && i < bnn_network.output_count; i++) {
        cuda_pointer place = model->spaces[BNN_OUTPUT] + bnn_network.output_offsets[i];
        status = CUDA_TRY(cuMemcpyDtoDAsync_v2, outputs[i], place, bnn_network.outputs[i].bytes, stream);
    }
    /* Even after a failure: what is in the stream by now uses the model's memory. */
    cuda_result recorded = cuda.cuEventRecord(model->done, stream);
    model->is_pending = 1;
    return status == BNN_OK ? cuda_check(recorded, "cuEventRecord", "") : status;
}

bnn_status network_run(bnn_model *model, const void *const *inputs, void *const *outputs, double *step_seconds,
                       const tap_list *taps) {
    bnn_status status = gpu_enter(model);
    if (status == BNN_OK) {
        status = run_here(model, inputs, outputs, step_seconds, taps);
        gpu_leave();
    }
    return status;
}

bnn_status bnn_run_device(bnn_model *model, const uint64_t *inputs, const uint64_t *outputs, void *stream) {
    int is_valid = model != NULL && inputs != NULL && outputs != NULL;
    for (size_t i = 0; is_valid && i < bnn_network.input_count; i++) {
        is_valid = inputs[i] != 0;
    }
    for (size_t i = 0; is_valid && i < bnn_network.output_count; i++) {
        is_valid = outputs[i] != 0;
    }
    if (!is_valid) {
        return BNN_ERROR_ARGUMENT;
    }
    if (!model_take(&model->use)) {
        return BNN_ERROR_BUSY;
    }
    atomic_store(&model->use.failed_step, -1);
    bnn_status status = gpu_enter(model);
    if (status == BNN_OK) {
        status = run_there(model, inputs, outputs, stream);
        gpu_leave();
    }
    model_release(&model->use);
    return status;
}

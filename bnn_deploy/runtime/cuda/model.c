/* Makes a network ready on the GPU, and takes it from there. */
#include "cuda/model.h"

#include "cuda/module.h"

#include <stdio.h>
#include <stdlib.h>

static size_t round_up(size_t bytes) { return (bytes + BNN_GPU_ALIGNMENT - 1) / BNN_GPU_ALIGNMENT * BNN_GPU_ALIGNMENT; }

static size_t memory_bytes(void) {
    size_t bytes = 0;
    for (int i = 0; i < BNN_SPACES; i++) {
        bytes += round_up(bnn_network.space_bytes[i]);
    }
    return bytes;
}

size_t network_memory_bytes(int threads) {
    (void)threads;
    return memory_bytes();
}

bnn_status gpu_enter(const bnn_model *model) { return CUDA_TRY(cuCtxPushCurrent_v2, model->context); }

void gpu_leave(void) {
    cuda_context own;
    (void)cuda.cuCtxPopCurrent_v2(&own);
}

bnn_status gpu_launch_steps(bnn_model *model, gpu_step_launched launched, const void *closure) {
    bnn_status status = BNN_OK;
    size_t launch = 0;
    void **parameters = model->parameters;
    for (size_t step = 0; status == BNN_OK && step < bnn_network.step_count; step++) {
        size_t end = launch + bnn_network.parts[step].launch_count;
        for (; status == BNN_OK && launch < end; launch++) {
            const bnn_gpu_launch *now = &bnn_network.launches[launch];
            cuda_result result = cuda.cuLaunchKernel(model->kernels[launch], now->grid[0], now->grid[1], now->grid[2],
                                                     now->block[0], now->block[1], now->block[2], 0, model->stream, parameters,
                                                     NULL);
            status = cuda_check(result, "cuLaunchKernel of", now->symbol);
        }
        if (status != BNN_OK) {
            atomic_store(&model->use.failed_step, (ptrdiff_t)step);
        } else if (launched != NULL) {
            status = launched(model, step, closure);
        }
        parameters += bnn_network.parts[step].argument_count;
    }
    return status;
}

static bnn_status allocate_memory(bnn_model *model) {
    size_t bytes = memory_bytes();
    char object[40];
    snprintf(object, sizeof object, "of %zu bytes", bytes);
    bnn_status status = cuda_check(cuda.cuMemAlloc_v2(&model->memory, bytes), "cuMemAlloc", object);
    if (status != BNN_OK) {
        model->memory = 0;
        return status;
    }
    cuda_pointer next = model->memory;
    for (int i = 0; i < BNN_SPACES; i++) {
        model->spaces[i] = next;
        next += round_up(bnn_network.space_bytes[i]);
    }
    for (size_t i = 0; i < bnn_network.argument_count; i++) {
        const bnn_gpu_argument *argument = &bnn_network.arguments[i];
        model->addresses[i] = model->spaces[argument->space] + argument->offset;
        model->parameters[i] = &model->addresses[i];
    }
    size_t weights = bnn_network.space_bytes[BNN_WEIGHTS];
    if (weights == 0) {
        return BNN_OK;
    }
    status = CUDA_TRY(cuMemcpyHtoDAsync_v2, model->spaces[BNN_WEIGHTS], bnn_weights, weights, model->stream);
    return status == BNN_OK ? CUDA_TRY(cuStreamSynchronize, model->stream) : status;
}

static bnn_status find_kernels(bnn_model *model) {
    bnn_status status = gpu_module_load(&model->module);
    for (size_t i = 0; status == BNN_OK && i < bnn_network.launch_count; i++) {
        const char *symbol = bnn_network.launches[i].symbol;
        status = cuda_check(cuda.cuModuleGetFunction(&model->kernels[i], model->module, symbol), "cuModuleGetFunction of", symbol);
    }
    return status;
}

static bnn_status make_graph(bnn_model *model) {
    bnn_status status = CUDA_TRY(cuStreamBeginCapture_v2, model->stream, CUDA_CAPTURE_THREAD_LOCAL);
    if (status != BNN_OK) {
        return status;
    }
    cuda_graph graph = NULL;
    status = gpu_launch_steps(model, NULL, NULL);
    /* Even after a failure: the stream would otherwise stay in this state. */
    cuda_result ended = cuda.cuStreamEndCapture(model->stream, &graph);
    if (status == BNN_OK) {
        status = cuda_check(ended, "cuStreamEndCapture", "");
    }
    if (status == BNN_OK) {
        status = cuda_instantiate(&model->graph, graph);
    }
    if (ended == CUDA_SUCCESS && graph != NULL) {
        (void)cuda.cuGraphDestroy(graph);
    }
    return status;
}

static bnn_status prepare(bnn_model *model) {
    bnn_status status = CUDA_TRY(cuStreamCreate, &model->stream, CUDA_STREAM_NON_BLOCKING);
    if (status == BNN_OK) {
        status = CUDA_TRY(cuEventCreate, &model->done, CUDA_EVENT_DISABLE_TIMING);
    }
    if (status == BNN_OK) {
        status = find_kernels(model);
    }
    if (status == BNN_OK) {
        status = allocate_memory(model);
    }
    return status == BNN_OK ? make_graph(model) : status;
}

/* What failed here has failed before, and nobody could do anything about it. */
void network_destroy(bnn_model *model) {
    if (model->context != NULL) {
        if (cuda.cuCtxPushCurrent_v2(model->context) == CUDA_SUCCESS) {
            if (model->is_pending) {
                (void)cuda.cuEventSynchronize(model->done);
            }
            for (size_t i = 0; model->marks != NULL && i <= bnn_network.step_count; i++) {
                (void)(model->marks[i] == NULL ? CUDA_SUCCESS : cuda.cuEventDestroy_v2(model->marks[i]));
            }
            (void)(model->graph == NULL ? CUDA_SUCCESS : cuda.cuGraphExecDestroy(model->graph));
            (void)(model->memory == 0 ? CUDA_SUCCESS : cuda.cuMemFree_v2(model->memory));
            (void)(model->module == NULL ? CUDA_SUCCESS : cuda.cuModuleUnload(model->module));
            (void)(model->done == NULL ? CUDA_SUCCESS : cuda.cuEventDestroy_v2(model->done));
            (void)(model->stream == NULL ? CUDA_SUCCESS : cuda.cuStreamDestroy_v2(model->stream));
            gpu_leave();
        }
        (void)cuda.cuDevicePrimaryCtxRelease(cuda.device);
    }
    free(model->kernels);
    free(model->addresses);
    free(model->parameters);
    free(model->marks);
    free(model);
}

bnn_status network_create(int threads, bnn_model **result) {
    (void)threads;
    bnn_status status = cuda_open();
    if (status != BNN_OK) {
        return status;
    }
    bnn_model *model = calloc(1, sizeof *model);
    if (model == NULL) {
        return BNN_ERROR_MEMORY;
    }
    model_use_initialise(&model->use);
    model->kernels = calloc(bnn_network.launch_count, sizeof *model->kernels);
    model->addresses = calloc(bnn_network.argument_count, sizeof *model->addresses);
    model->parameters = calloc(bnn_network.argument_count, sizeof *model->parameters);
    if (model->kernels == NULL || model->addresses == NULL || model->parameters == NULL) {
        status = BNN_ERROR_MEMORY;
    } else {
        status = CUDA_TRY(cuDevicePrimaryCtxRetain, &model->context, cuda.device);
    }
    if (status == BNN_OK) {
        status = gpu_enter(model);
    }
    if (status == BNN_OK) {
        status = prepare(model);
        gpu_leave();
    }
    if (status == BNN_OK) {
        *result = model;
    } else {
        network_destroy(model);
    }
    return status;
}

bnn_status network_set_threads(bnn_model *model, int threads) {
    (void)model, (void)threads;
    return BNN_OK;
}

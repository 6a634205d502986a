/* Runs the generated plan: stage after stage, each block of rows by block of rows, over one arena. */
#include "cpu/executor.h"

#include "system/clock.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

static size_t round_up(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static size_t tensor_bytes(const bnn_tensor *tensors, size_t count) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += round_up(tensors[i].bytes);
    }
    return bytes;
}

static size_t pointer_bytes(void) {
    return round_up(2 * (bnn_network.input_count + bnn_network.output_count) * sizeof(unsigned char *));
}

static size_t shared_bytes(void) {
    return round_up(sizeof(bnn_model)) + pointer_bytes() + round_up(bnn_network.arena_bytes) +
           tensor_bytes(bnn_network.inputs, bnn_network.input_count) +
           tensor_bytes(bnn_network.outputs, bnn_network.output_count);
}

static size_t bytes_per_thread(void) {
    return round_up(bnn_network.workspace_bytes) + round_up(bnn_network.step_count * sizeof(double));
}

size_t network_memory_bytes(int threads) { return shared_bytes() + (size_t)threads * bytes_per_thread(); }

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
    return bnn_chosen_kernels()->steps;
}

const char *bnn_kernel_set(void) { return bnn_chosen_kernels()->name; }

static unsigned char *place(unsigned char **places, const bnn_tensor *tensors, size_t count, unsigned char *next) {
    for (size_t i = 0; i < count; i++) {
        places[i] = next;
        next += round_up(tensors[i].bytes);
    }
    return next;
}

static unsigned char *allocate_thread_memory(int threads) {
    return aligned_alloc(ALIGNMENT, (size_t)threads * bytes_per_thread());
}

bnn_status network_create(int threads, bnn_model **result) {
    unsigned char *memory = aligned_alloc(ALIGNMENT, shared_bytes());
    unsigned char *thread_memory = allocate_thread_memory(threads);
    if (memory == NULL || thread_memory == NULL) {
        free(memory);
        free(thread_memory);
        return BNN_ERROR_MEMORY;
    }
    bnn_model *model = (bnn_model *)(void *)memory;
    model->kernels = bnn_chosen_kernels();
    model->thread_memory = thread_memory;
    unsigned char **pointers = (unsigned char **)(void *)(memory + round_up(sizeof *model));
    model->inputs = pointers;
    model->aligned_inputs = model->inputs + bnn_network.input_count;
    model->outputs = model->aligned_inputs + bnn_network.input_count;
    model->aligned_outputs = model->outputs + bnn_network.output_count;
    model->arena = memory + round_up(sizeof *model) + pointer_bytes();
    unsigned char *next = model->arena + round_up(bnn_network.arena_bytes);
    next = place(model->aligned_inputs, bnn_network.inputs, bnn_network.input_count, next);
    place(model->aligned_outputs, bnn_network.outputs, bnn_network.output_count, next);
    model_use_initialise(&model->use);
    bnn_pool_initialise(&model->pool, threads);
    *result = model;
    return BNN_OK;
}

bnn_status network_set_threads(bnn_model *model, int threads) {
    if (!model_take(&model->use)) {
        return BNN_ERROR_BUSY;
    }
    bnn_status status = BNN_OK;
    if (threads != model->pool.threads) {
        unsigned char *thread_memory = allocate_thread_memory(threads);
        if (thread_memory == NULL) {
            status = BNN_ERROR_MEMORY;
        } else {
            bnn_pool_stop(&model->pool);
            bnn_pool_initialise(&model->pool, threads);
            free(model->thread_memory);
            model->thread_memory = thread_memory;
        }
    }
    model_release(&model->use);
    return status;
}

static int is_aligned(const void *pointer) { return (uintptr_t)pointer % ALIGNMENT == 0; }

/* One stage at work: what all its threads share. */
typedef struct stage_run {
    bnn_model *model;
    const bnn_stage *stage;
    size_t first_step;
    int timed;
} stage_run;

unsigned char *executor_workspace(const bnn_model *model, int thread) {
    return model->thread_memory + (size_t)thread * bytes_per_thread();
}

static double *seconds_of(const bnn_model *model, int thread) {
    return (double *)(void *)(executor_workspace(model, thread) + round_up(bnn_network.workspace_bytes));
}

/* Runs all steps of a stage on one block. */
static int run_block(int block, bnn_parallel_environment *environment, void *closure) {
    const stage_run *run = closure;
    bnn_model *model = run->model;
    int thread = environment->thread;
    const bnn_memory memory = {model->inputs, model->outputs, model->arena, executor_workspace(model, thread)};
    double *step_seconds = seconds_of(model, thread);
    int64_t before = run->timed ? clock_nanoseconds() : 0;
    for (size_t i = run->first_step; i < run->first_step + run->stage->step_count; i++) {
        if (model->kernels->calls[i](&memory, block) != 0) {
            atomic_store(&model->use.failed_step, (ptrdiff_t)i);
            return -1;
        }
        if (run->timed) {
            int64_t after = clock_nanoseconds();
            step_seconds[i] += 1e-9 * (double)(after - before);
            before = after;
        }
    }
    return 0;
}

/* The wall-clock time of a stage, shared out over its steps as their times on all threads together are. */
static void share_out(const bnn_model *model, const stage_run *run, double elapsed, double *step_seconds) {
    double sum = 0;
    for (size_t i = run->first_step; i < run->first_step + run->stage->step_count; i++) {
        step_seconds[i] = 0;
        for (int thread = 0; thread < model->pool.threads; thread++) {
            step_seconds[i] += seconds_of(model, thread)[i];
        }
        sum += step_seconds[i];
    }
    for (size_t i = run->first_step; sum > 0 && i < run->first_step + run->stage->step_count; i++) {
        step_seconds[i] *= elapsed / sum;
    }
}

/* The untapped plan; step_seconds may be null. */
static bnn_status run_stages(bnn_model *model, double *step_seconds) {
    stage_run run = {model, bnn_network.stages, 0, step_seconds != NULL};
    if (run.timed) {
        for (int thread = 0; thread < model->pool.threads; thread++) {
            memset(seconds_of(model, thread), 0, bnn_network.step_count * sizeof(double));
        }
    }
    for (size_t i = 0; i < bnn_network.stage_count; i++, run.first_step += run.stage->step_count, run.stage++) {
        int64_t before = run.timed ? clock_nanoseconds() : 0;
        int status;
        if (run.stage->blocks == 1) {
            /* On this thread, so that the kernels themselves may use the others. */
            bnn_parallel_environment alone = {NULL, 1, 0};
            status = run_block(0, &alone, &run);
        } else {
            status = bnn_pool_launch(run_block, &run, run.stage->blocks);
        }
        if (status != 0) {
            return BNN_ERROR_KERNEL;
        }
        if (run.timed) {
            share_out(model, &run, 1e-9 * (double)(clock_nanoseconds() - before), step_seconds);
        }
    }
    return BNN_OK;
}

bnn_status network_run(bnn_model *model, const void *const *inputs, void *const *outputs, double *step_seconds,
                       const tap_list *taps) {
    if (bnn_pool_start(&model->pool) != 0) {
        return BNN_ERROR_THREADS;
    }
    for (size_t i = 0; i < bnn_network.input_count; i++) {
        if (is_aligned(inputs[i])) {
            model->inputs[i] = (unsigned char *)(uintptr_t)inputs[i];
        } else {
            model->inputs[i] = memcpy(model->aligned_inputs[i], inputs[i], bnn_network.inputs[i].bytes);
        }
    }
    for (size_t i = 0; i < bnn_network.output_count; i++) {
        model->outputs[i] = is_aligned(outputs[i]) ? outputs[i] : model->aligned_outputs[i];
    }
    bnn_pool *outer = bnn_pool_enter(&model->pool);
    bnn_status status = taps != NULL ? executor_run_tapped(model, taps) : run_stages(model, step_seconds);
    bnn_pool_enter(outer);
    for (size_t i = 0; status == BNN_OK && i < bnn_network.output_count; i++) {
        if (!is_aligned(outputs[i])) {
            memcpy(outputs[i], model->aligned_outputs[i], bnn_network.outputs[i].bytes);
        }
    }
    return status;
}

void network_destroy(bnn_model *model) {
    bnn_pool_stop(&model->pool);
    free(model->thread_memory);
    free(model);
}

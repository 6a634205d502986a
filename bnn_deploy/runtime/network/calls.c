/* The functions of bnn_model.h that are the same on processors and GPUs: they check what they are given, and let one run in. */
#include "network/network.h"

#include "system/clock.h"

static int threads_fit(int threads) { return threads >= 1 && threads <= BNN_MAX_THREADS; }

static int has_null(const void *const *pointers, size_t count) {
    if (pointers == NULL) {
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        if (pointers[i] == NULL) {
            return 1;
        }
    }
    return 0;
}

static model_use *use_of(const bnn_model *model) { return (model_use *)(uintptr_t)model; }

size_t bnn_memory_bytes(int threads) { return threads_fit(threads) ? network_memory_bytes(threads) : 0; }

bnn_status bnn_create(int threads, bnn_model **model) {
    if (model == NULL || !threads_fit(threads)) {
        return BNN_ERROR_ARGUMENT;
    }
    *model = NULL;
    return network_create(threads, model);
}

bnn_status bnn_set_threads(bnn_model *model, int threads) {
    return model == NULL || !threads_fit(threads) ? BNN_ERROR_ARGUMENT : network_set_threads(model, threads);
}

static bnn_status run(bnn_model *model, const void *const *inputs, void *const *outputs, double *step_seconds,
                      const tap_list *taps) {
    size_t input_count, output_count;
    bnn_inputs(&input_count);
    bnn_outputs(&output_count);
    if (model == NULL || has_null(inputs, input_count) || has_null((const void *const *)outputs, output_count)) {
        return BNN_ERROR_ARGUMENT;
    }
    if (!model_take(use_of(model))) {
        return BNN_ERROR_BUSY;
    }
    atomic_store(&use_of(model)->failed_step, -1);
    bnn_status status = network_run(model, inputs, outputs, step_seconds, taps);
    model_release(use_of(model));
    return status;
}

bnn_status bnn_run(bnn_model *model, const void *const *inputs, void *const *outputs) {
    return run(model, inputs, outputs, NULL, NULL);
}

bnn_status bnn_run_timed(bnn_model *model, const void *const *inputs, void *const *outputs, double *step_seconds,
                         double *total_seconds) {
    if (step_seconds == NULL || total_seconds == NULL) {
        return BNN_ERROR_ARGUMENT;
    }
    int64_t before = clock_nanoseconds();
    bnn_status status = run(model, inputs, outputs, step_seconds, NULL);
    *total_seconds = 1e-9 * (double)(clock_nanoseconds() - before);
    return status;
}

bnn_status bnn_run_tapped(bnn_model *model, const void *const *inputs, void *const *outputs, const int64_t *taps,
                          size_t tap_count, unsigned char *observed, const unsigned char *forced, size_t value_bytes) {
    const tap_list list = {taps, tap_count, observed, forced, value_bytes};
    bnn_status status = taps_begin(&list);
    return status == BNN_OK ? run(model, inputs, outputs, NULL, &list) : status;
}

ptrdiff_t bnn_failed_step(const bnn_model *model) { return model == NULL ? -1 : atomic_load(&use_of(model)->failed_step); }

void bnn_destroy(bnn_model *model) {
    if (model != NULL) {
        network_destroy(model);
    }
}

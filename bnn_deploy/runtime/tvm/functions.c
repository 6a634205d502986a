/*
 * The functions that TVM's RPC server finds in model.so, besides that of tvm_system.c.
 *
 *     bnn_describe(text)                                   what the network takes and gives, as JSON
 *     bnn_create(threads)                                  a handle of a model
 *     bnn_run(handle, input, output)                       runs as many batches as the tensors hold
 *     bnn_run_tapped(handle, input, output, taps, observed, forced)   the same with taps: int64 (taps, 9); uint8 with a row
 *                                                          for each batch, and another one, or 0 to force nothing
 *     bnn_failed_step(handle)                              see bnn_model.h
 *     bnn_device_error(text)                               see bnn_model.h
 *     bnn_profile(handle, threads, input, output, repeat, warmup, text)   the runner's profile of the first batch, as JSON
 *     bnn_destroy(handle)
 *
 * A result below 0 is a bnn_status, negated; tvm_call.h says how text is given back.
 */
#include "tvm/call.h"
#include "profile/report.h"

#include <inttypes.h>

static int are_integers(const tvm_any *arguments, int first, int last) {
    for (int i = first; i <= last; i++) {
        if (arguments[i].type != TVM_INTEGER) {
            return 0;
        }
    }
    return 1;
}

static bnn_model *model_of(const tvm_any *argument) {
    return argument->type == TVM_INTEGER ? (bnn_model *)(intptr_t)argument->value.integer : NULL;
}

/* The batches that input and output hold, 0 if they do not fit the network. */
static size_t count_batches(tvm_buffer input, tvm_buffer output) {
    size_t inputs, outputs;
    const bnn_tensor *in = bnn_inputs(&inputs), *out = bnn_outputs(&outputs);
    if (inputs != 1 || outputs != 1 || input.data == NULL || output.data == NULL) {
        return 0;
    }
    size_t batches = input.count / in->bytes;
    return input.count == batches * in->bytes && output.count == batches * out->bytes ? batches : 0;
}

static void print_tensors(FILE *stream, const bnn_tensor *tensors, size_t count) {
    for (size_t i = 0; i < count; i++) {
        fprintf(stream, "%s{\"dtype\": \"%s\", \"shape\": [", i == 0 ? "" : ", ", tensors[i].dtype);
        for (size_t k = 0; k < tensors[i].rank; k++) {
            fprintf(stream, k == 0 ? "%" PRId64 : ", %" PRId64, tensors[i].shape[k]);
        }
        fputs("]}", stream);
    }
}

TVM_FUNCTION(bnn_describe) {
    (void)self;
    tvm_text text;
    int64_t trouble = text_open(&text, count == 1 ? arguments : NULL);
    if (trouble != 0) {
        return tvm_give(result, trouble);
    }
    size_t inputs, outputs, steps;
    const bnn_tensor *input = bnn_inputs(&inputs), *output = bnn_outputs(&outputs);
    bnn_steps(&steps);
    fputs("{\"inputs\": [", text.stream);
    print_tensors(text.stream, input, inputs);
    fputs("], \"outputs\": [", text.stream);
    print_tensors(text.stream, output, outputs);
    fprintf(text.stream, "], \"steps\": %zu}\n", steps);
    return tvm_give(result, text_finish(&text));
}

TVM_FUNCTION(bnn_create) {
    (void)self;
    if (count != 1 || !are_integers(arguments, 0, 0) || arguments[0].value.integer != (int)arguments[0].value.integer) {
        return tvm_give(result, -BNN_ERROR_ARGUMENT);
    }
    bnn_model *model;
    bnn_status status = bnn_create((int)arguments[0].value.integer, &model);
    return tvm_give(result, status == BNN_OK ? (int64_t)(intptr_t)model : -(int64_t)status);
}

TVM_FUNCTION(bnn_destroy) {
    (void)self;
    bnn_destroy(count == 1 ? model_of(&arguments[0]) : NULL);
    return tvm_give(result, 0);
}

TVM_FUNCTION(bnn_failed_step) {
    (void)self;
    return tvm_give(result, count == 1 ? bnn_failed_step(model_of(&arguments[0])) : -1);
}

TVM_FUNCTION(bnn_device_error) {
    (void)self;
    tvm_text text;
    int64_t trouble = text_open(&text, count == 1 ? arguments : NULL);
    if (trouble != 0) {
        return tvm_give(result, trouble);
    }
    fputs(bnn_device_error(), text.stream);
    return tvm_give(result, text_finish(&text));
}

TVM_FUNCTION(bnn_run) {
    (void)self;
    if (count != 3) {
        return tvm_give(result, -BNN_ERROR_ARGUMENT);
    }
    bnn_model *model = model_of(&arguments[0]);
    tvm_buffer input = tvm_bytes(&arguments[1]), output = tvm_bytes(&arguments[2]);
    size_t batches = count_batches(input, output);
    bnn_status status = batches == 0 ? BNN_ERROR_ARGUMENT : BNN_OK;
    for (size_t i = 0; i < batches && status == BNN_OK; i++) {
        const void *const inputs[] = {input.data + i * (input.count / batches)};
        void *const outputs[] = {output.data + i * (output.count / batches)};
        status = bnn_run(model, inputs, outputs);
    }
    return tvm_give(result, -(int64_t)status);
}

/* Every batch has the same taps, and a row of `observed` and of `forced`. */
static bnn_status run_tapped(bnn_model *model, tvm_buffer input, tvm_buffer output, tvm_buffer taps, tvm_buffer observed,
                             tvm_buffer forced) {
    size_t batches = count_batches(input, output), tap_bytes = BNN_TAP_NUMBERS * sizeof(int64_t);
    if (batches == 0 || taps.data == NULL || taps.count % tap_bytes != 0 || (uintptr_t)taps.data % sizeof(int64_t) != 0 ||
        observed.data == NULL || observed.count % batches != 0 || (forced.data != NULL && forced.count != observed.count)) {
        return BNN_ERROR_ARGUMENT;
    }
    size_t row = observed.count / batches;
    bnn_status status = BNN_OK;
    for (size_t i = 0; i < batches && status == BNN_OK; i++) {
        const void *const inputs[] = {input.data + i * (input.count / batches)};
        void *const outputs[] = {output.data + i * (output.count / batches)};
        status = bnn_run_tapped(model, inputs, outputs, (const int64_t *)(const void *)taps.data, taps.count / tap_bytes,
                                observed.data + i * row, forced.data == NULL ? NULL : forced.data + i * row, row);
    }
    return status;
}

TVM_FUNCTION(bnn_run_tapped) {
    (void)self;
    if (count != 6) {
        return tvm_give(result, -BNN_ERROR_ARGUMENT);
    }
    tvm_buffer forced = tvm_bytes(&arguments[5]);
    int forces_nothing = arguments[5].type == TVM_INTEGER && arguments[5].value.integer == 0;
    bnn_status status = BNN_ERROR_ARGUMENT;
    if (forced.data != NULL || forces_nothing) {
        status = run_tapped(model_of(&arguments[0]), tvm_bytes(&arguments[1]), tvm_bytes(&arguments[2]),
                            tvm_bytes(&arguments[3]), tvm_bytes(&arguments[4]), forced);
    }
    return tvm_give(result, -(int64_t)status);
}

/* The length of the profile, or a status negated. */
static int64_t profile(bnn_model *model, profile_report *report, tvm_buffer input, tvm_buffer output, const tvm_any *place) {
    tvm_text text;
    int64_t length = text_open(&text, place);
    if (length != 0) {
        return length;
    }
    bnn_status status = profile_measure(report, model, input.data, output.data);
    if (status == BNN_OK) {
        profile_report_write(text.stream, report);
        length = text_finish(&text);
    } else {
        length = -(int64_t)status;
        text_discard(&text);
    }
    profile_release(report);
    return length;
}

TVM_FUNCTION(bnn_profile) {
    (void)self;
    if (count != 7 || !are_integers(arguments, 4, 5) || arguments[1].type != TVM_INTEGER) {
        return tvm_give(result, -BNN_ERROR_ARGUMENT);
    }
    tvm_buffer input = tvm_bytes(&arguments[2]), output = tvm_bytes(&arguments[3]);
    int64_t repeat = arguments[4].value.integer, warmup = arguments[5].value.integer;
    if (count_batches(input, output) == 0 || repeat < 1 || repeat > 1000000 || warmup < 0 ||
        warmup > 1000000) {
        return tvm_give(result, -BNN_ERROR_ARGUMENT);
    }
    profile_report report = {
        .threads = (int)arguments[1].value.integer, .warmup = (int)warmup, .repeat = (size_t)repeat};
    return tvm_give(result, profile(model_of(&arguments[0]), &report, input, output, &arguments[6]));
}

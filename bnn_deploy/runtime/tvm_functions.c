/*
 * The functions that TVM's RPC server finds in model.so. They call no function of TVM, so that the library stays loadable
 * without it: arguments are numbers and tensors of the caller, and every function gives back one whole number.
 *
 *     bnn_describe(text)                                   what the network takes and gives, as JSON
 *     bnn_create(threads)                                  a handle of a model
 *     bnn_run(handle, input, output)                       runs as many batches as the tensors hold
 *     bnn_failed_step(handle)                              see bnn_model.h
 *     bnn_profile(handle, threads, input, output, repeat, warmup, text)   the runner's profile of the first batch, as JSON
 *     bnn_destroy(handle)
 *
 * A result below 0 is a bnn_status, negated. Text goes into a tensor of bytes, and the result is its length: where that is
 * more than the tensor has, nothing was written.
 *
 * The structures are those of tvm/ffi/c_api.h (TVMFFIAny, TVMFFIObject) of apache-tvm-ffi 0.1 and of dlpack/dlpack.h 1.0
 * (DLTensor); the names are what tvm/ffi/extra/module.h asks of a library: __tvm_ffi_ and the function's.
 */
#include "bnn_model.h"
#include "profile_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tvm_any {
    int32_t type;
    uint32_t padding;
    union {
        int64_t integer;
        void *pointer;
    } value;
} tvm_any;

typedef struct tvm_tensor {
    void *data;
    int32_t device_type, device_id;
    int32_t rank;
    uint8_t type_code, type_bits;
    uint16_t type_lanes;
    const int64_t *shape;
    const int64_t *strides; /* in elements; null: C order */
    uint64_t byte_offset;
} tvm_tensor;

/* kTVMFFIInt, kTVMFFIDLTensorPtr, kTVMFFITensor; sizeof(TVMFFIObject), which a DLTensor follows in a tensor object; kDLCPU. */
enum { TYPE_INTEGER = 1, TYPE_TENSOR_POINTER = 7, TYPE_TENSOR_OBJECT = 70, OBJECT_BYTES = 24, DEVICE_CPU = 1 };

typedef struct bytes {
    unsigned char *data; /* null: the argument is no tensor in this machine's memory in C order */
    size_t count;
} bytes;

#define TVM_FUNCTION(name)                                                                                               \
    BNN_API int __tvm_ffi_##name(void *self, const tvm_any *arguments, int32_t count, tvm_any *result);                \
    int __tvm_ffi_##name(void *self, const tvm_any *arguments, int32_t count, tvm_any *result)

/* 0: the function did not raise an error. */
static int give(tvm_any *result, int64_t number) {
    result->type = TYPE_INTEGER;
    result->padding = 0;
    result->value.integer = number;
    return 0;
}

static bytes bytes_of(const tvm_any *argument) {
    const bytes none = {NULL, 0};
    if (argument->type != TYPE_TENSOR_POINTER && argument->type != TYPE_TENSOR_OBJECT) {
        return none;
    }
    size_t offset = argument->type == TYPE_TENSOR_OBJECT ? OBJECT_BYTES : 0;
    const tvm_tensor *tensor = (const void *)((const char *)argument->value.pointer + offset);
    if (tensor->device_type != DEVICE_CPU) {
        return none;
    }
    int64_t elements = 1;
    for (int32_t i = tensor->rank - 1; i >= 0; i--) {
        if (tensor->strides != NULL && tensor->shape[i] != 1 && tensor->strides[i] != elements) {
            return none;
        }
        elements *= tensor->shape[i];
    }
    const bytes found = {(unsigned char *)tensor->data + tensor->byte_offset,
                         (size_t)elements * tensor->type_bits * tensor->type_lanes / 8};
    return found;
}

static int are_integers(const tvm_any *arguments, int first, int last) {
    for (int i = first; i <= last; i++) {
        if (arguments[i].type != TYPE_INTEGER) {
            return 0;
        }
    }
    return 1;
}

static bnn_model *model_of(const tvm_any *argument) {
    return argument->type == TYPE_INTEGER ? (bnn_model *)(intptr_t)argument->value.integer : NULL;
}

/* The batches that input and output hold, 0 if they do not fit the network. */
static size_t count_batches(bytes input, bytes output) {
    size_t inputs, outputs;
    const bnn_tensor *in = bnn_inputs(&inputs), *out = bnn_outputs(&outputs);
    if (inputs != 1 || outputs != 1 || input.data == NULL || output.data == NULL) {
        return 0;
    }
    size_t batches = input.count / in->bytes;
    return input.count == batches * in->bytes && output.count == batches * out->bytes ? batches : 0;
}

/* A stream into memory of its own, and from there into a caller's tensor. */
typedef struct text_stream {
    FILE *stream;
    char *text;
    size_t length;
} text_stream;

static int open_text(text_stream *text) {
    text->text = NULL;
    text->length = 0;
    text->stream = open_memstream(&text->text, &text->length);
    return text->stream != NULL;
}

static int64_t finish_text(text_stream *text, bytes place) {
    int failed = ferror(text->stream);
    failed |= fclose(text->stream);
    int64_t result = failed ? -BNN_ERROR_MEMORY : (int64_t)text->length;
    if (!failed && text->length <= place.count) {
        memcpy(place.data, text->text, text->length);
    }
    free(text->text);
    return result;
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
    text_stream text;
    bytes place = count == 1 ? bytes_of(&arguments[0]) : (bytes){NULL, 0};
    if (place.data == NULL) {
        return give(result, -BNN_ERROR_ARGUMENT);
    }
    if (!open_text(&text)) {
        return give(result, -BNN_ERROR_MEMORY);
    }
    size_t inputs, outputs, steps;
    const bnn_tensor *input = bnn_inputs(&inputs), *output = bnn_outputs(&outputs);
    bnn_steps(&steps);
    fputs("{\"inputs\": [", text.stream);
    print_tensors(text.stream, input, inputs);
    fputs("], \"outputs\": [", text.stream);
    print_tensors(text.stream, output, outputs);
    fprintf(text.stream, "], \"steps\": %zu}\n", steps);
    return give(result, finish_text(&text, place));
}

TVM_FUNCTION(bnn_create) {
    (void)self;
    if (count != 1 || !are_integers(arguments, 0, 0) || arguments[0].value.integer != (int)arguments[0].value.integer) {
        return give(result, -BNN_ERROR_ARGUMENT);
    }
    bnn_model *model;
    bnn_status status = bnn_create((int)arguments[0].value.integer, &model);
    return give(result, status == BNN_OK ? (int64_t)(intptr_t)model : -(int64_t)status);
}

TVM_FUNCTION(bnn_destroy) {
    (void)self;
    bnn_destroy(count == 1 ? model_of(&arguments[0]) : NULL);
    return give(result, 0);
}

TVM_FUNCTION(bnn_failed_step) {
    (void)self;
    return give(result, count == 1 ? bnn_failed_step(model_of(&arguments[0])) : -1);
}

TVM_FUNCTION(bnn_run) {
    (void)self;
    if (count != 3) {
        return give(result, -BNN_ERROR_ARGUMENT);
    }
    bnn_model *model = model_of(&arguments[0]);
    bytes input = bytes_of(&arguments[1]), output = bytes_of(&arguments[2]);
    size_t batches = count_batches(input, output);
    bnn_status status = batches == 0 ? BNN_ERROR_ARGUMENT : BNN_OK;
    for (size_t i = 0; i < batches && status == BNN_OK; i++) {
        const void *const inputs[] = {input.data + i * (input.count / batches)};
        void *const outputs[] = {output.data + i * (output.count / batches)};
        status = bnn_run(model, inputs, outputs);
    }
    return give(result, -(int64_t)status);
}

/* The length of the profile, or a status negated. */
static int64_t profile(bnn_model *model, profile_report *report, bytes input, bytes output, bytes place) {
    text_stream text = {NULL, NULL, 0};
    bnn_status status = open_text(&text) ? profile_measure(report, model, input.data, output.data) : BNN_ERROR_MEMORY;
    int64_t length = -(int64_t)status;
    if (status == BNN_OK) {
        profile_report_write(text.stream, report);
        length = finish_text(&text, place);
    } else if (text.stream != NULL) {
        finish_text(&text, (bytes){NULL, 0});
    }
    profile_release(report);
    return length;
}

TVM_FUNCTION(bnn_profile) {
    (void)self;
    if (count != 7 || !are_integers(arguments, 4, 5) || arguments[1].type != TYPE_INTEGER) {
        return give(result, -BNN_ERROR_ARGUMENT);
    }
    bytes input = bytes_of(&arguments[2]), output = bytes_of(&arguments[3]), place = bytes_of(&arguments[6]);
    int64_t repeat = arguments[4].value.integer, warmup = arguments[5].value.integer;
    if (count_batches(input, output) == 0 || place.data == NULL || repeat < 1 || repeat > 1000000 || warmup < 0 ||
        warmup > 1000000) {
        return give(result, -BNN_ERROR_ARGUMENT);
    }
    profile_report report = {
        .threads = (int)arguments[1].value.integer, .warmup = (int)warmup, .repeat = (size_t)repeat};
    return give(result, profile(model_of(&arguments[0]), &report, input, output, place));
}

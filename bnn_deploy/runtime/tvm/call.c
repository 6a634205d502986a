#include "tvm/call.h"

#include <stdlib.h>
#include <string.h>

/* DLTensor */
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

/* kTVMFFIDLTensorPtr, kTVMFFITensor; sizeof(TVMFFIObject), which a DLTensor follows in a tensor object; kDLCPU. */
enum { TENSOR_POINTER = 7, TENSOR_OBJECT = 70, OBJECT_BYTES = 24, DEVICE_CPU = 1 };

tvm_buffer tvm_bytes(const tvm_any *argument) {
    const tvm_buffer none = {NULL, 0};
    if (argument->type != TENSOR_POINTER && argument->type != TENSOR_OBJECT) {
        return none;
    }
    size_t offset = argument->type == TENSOR_OBJECT ? OBJECT_BYTES : 0;
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
    const tvm_buffer found = {(unsigned char *)tensor->data + tensor->byte_offset,
                              (size_t)elements * tensor->type_bits * tensor->type_lanes / 8};
    return found;
}

int tvm_give(tvm_any *result, int64_t number) {
    result->type = TVM_INTEGER;
    result->padding = 0;
    result->value.integer = number;
    return 0;
}

int64_t text_open(tvm_text *text, const tvm_any *argument) {
    const tvm_buffer none = {NULL, 0};
    *text = (tvm_text){.place = argument == NULL ? none : tvm_bytes(argument)};
    if (text->place.data == NULL) {
        return -BNN_ERROR_ARGUMENT;
    }
    text->stream = open_memstream(&text->text, &text->length);
    return text->stream == NULL ? -BNN_ERROR_MEMORY : 0;
}

int64_t text_finish(tvm_text *text) {
    int failed = ferror(text->stream) | fflush(text->stream);
    if (!failed && text->length <= text->place.count) {
        memcpy(text->place.data, text->text, text->length);
    }
    int64_t result = failed ? -BNN_ERROR_MEMORY : (int64_t)text->length;
    text_discard(text);
    return result;
}

void text_discard(tvm_text *text) {
    fclose(text->stream);
    free(text->text);
}

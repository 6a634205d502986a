/*
 * How TVM calls functions of a library. Ours call no function of TVM, so that the library stays loadable without it: arguments
 * are whole numbers and tensors of the caller, every function gives back one whole number, and none raises an error.
 *
 * The structures are those of tvm/ffi/c_api.h (TVMFFIAny, TVMFFIObject) of apache-tvm-ffi 0.1 and of dlpack/dlpack.h 1.0
 * (DLTensor); the name __tvm_ffi_<function> is what tvm/ffi/extra/module.h asks of a library.
 */
#ifndef BNN_TVM_CALL_H
#define BNN_TVM_CALL_H

#include "bnn_model.h"

#include <stdio.h>

#define TVM_FUNCTION(name)                                                                                               \
    BNN_API int __tvm_ffi_##name(void *self, const tvm_any *arguments, int32_t count, tvm_any *result);                \
    int __tvm_ffi_##name(void *self, const tvm_any *arguments, int32_t count, tvm_any *result)

enum { TVM_INTEGER = 1 /* kTVMFFIInt */ };

typedef struct tvm_any {
    int32_t type;
    uint32_t padding;
    union {
        int64_t integer;
        void *pointer;
    } value;
} tvm_any;

typedef struct tvm_buffer {
    unsigned char *data; /* null: the argument is no tensor in this machine's memory in C order */
    size_t count;
} tvm_buffer;

/* The bytes of a tensor. */
tvm_buffer tvm_bytes(const tvm_any *argument);

/* Sets the result and returns 0, which says that no error was raised. */
int tvm_give(tvm_any *result, int64_t number);

/* Text that goes into a caller's tensor of bytes. */
typedef struct tvm_text {
    tvm_buffer place;
    FILE *stream;
    char *text;
    size_t length;
} tvm_text;

/* For the tensor that `argument` is; null: the caller gave none. 0, or the result for the caller: a bnn_status, negated. */
int64_t text_open(tvm_text *text, const tvm_any *argument);

/* Copies the text to its place and frees it. The result for the caller: its length, where that is more than the place has
 * nothing was written; or -BNN_ERROR_MEMORY. */
int64_t text_finish(tvm_text *text);

/* Frees the text. */
void text_discard(tvm_text *text);

#endif

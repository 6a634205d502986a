#include "runner/files.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ALIGNMENT = 64 };

_Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("runner: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    output_files_discard();
    exit(2);
}

void check_status(bnn_status status, const bnn_model *model) {
    size_t count;
    const bnn_step *steps = bnn_steps(&count);
    if (status == BNN_ERROR_KERNEL) {
        const bnn_step *step = &steps[bnn_failed_step(model)];
        fail("kernel %s of layer %s reported failure.", step->kernel, step->layer);
    }
    if (status == BNN_ERROR_DEVICE) {
        fail("%s: %s.", bnn_status_text(status), bnn_device_error());
    }
    if (status != BNN_OK) {
        fail("%s.", bnn_status_text(status));
    }
}

input_file open_input(const char *path, const char *type, const char *type_name) {
    input_file input = {.path = path, .stream = fopen(path, "rb")};
    struct stat status;
    if (input.stream == NULL || fstat(fileno(input.stream), &status) != 0) {
        fail("cannot read '%s': %s.", path, strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        fail("cannot read '%s': it is not a regular file.", path);
    }
    const char *problem = npy_read_header(input.stream, &input.header);
    if (problem != NULL) {
        fail("'%s' %s; write it with numpy.save.", path, problem);
    }
    if (strcmp(input.header.descr, type) != 0) {
        fail("'%s' holds elements of type '%s', expected '%s' (%s).", path, input.header.descr, type, type_name);
    }
    return input;
}

_Noreturn void fail_shape(const input_file *input, const char *expected) {
    char found[800];
    npy_print_shape(found, sizeof found, input->header.rank, input->header.shape);
    fail("'%s' holds an array of shape %s, expected %s.", input->path, found, expected);
}

void check_input_size(const input_file *input, size_t element_bytes) {
    const npy_header *header = &input->header;
    if (header->fortran_order) {
        fail("'%s' is in Fortran order, expected C order; write it with numpy.ascontiguousarray.", input->path);
    }
    struct stat status;
    if (fstat(fileno(input->stream), &status) != 0) {
        fail("cannot read '%s': %s.", input->path, strerror(errno));
    }
    size_t bytes = element_bytes;
    int overflows = 0;
    for (size_t i = 0; i < header->rank; i++) {
        overflows |= __builtin_mul_overflow(bytes, (size_t)header->shape[i], &bytes);
    }
    overflows |= __builtin_add_overflow(bytes, header->data_offset, &bytes);
    if (overflows || (uintmax_t)status.st_size != bytes) {
        char shape[800];
        npy_print_shape(shape, sizeof shape, header->rank, header->shape);
        fail("'%s' is %jd bytes long, which does not fit its shape %s.", input->path, (intmax_t)status.st_size, shape);
    }
}

void read_input(const input_file *input, void *buffer, size_t bytes) {
    if (fread(buffer, 1, bytes, input->stream) != bytes) {
        fail("cannot read '%s': %s.", input->path, ferror(input->stream) ? strerror(errno) : "it became shorter");
    }
}

void rewind_input(const input_file *input) {
    if (fseek(input->stream, (long)input->header.data_offset, SEEK_SET) != 0) {
        fail("cannot read '%s': %s.", input->path, strerror(errno));
    }
}

static _Noreturn void fail_output(const output_file *file) { fail("cannot write '%s': %s.", file->path, strerror(errno)); }

void open_output(output_file *file, const char *path) {
    if (output_file_open(file, path) != 0) {
        fail("cannot write '%s': %s.", path, errno == EINVAL ? "it is not a regular file" : strerror(errno));
    }
}

void finish_output(output_file *file) {
    if (output_file_finish(file) != 0) {
        fail_output(file);
    }
}

void open_output_array(output_file *file, const char *path, const char *type, size_t rank, const int64_t *shape) {
    open_output(file, path);
    if (npy_write_header(file->stream, type, rank, shape) != 0) {
        fail_output(file);
    }
}

void write_output(output_file *file, const void *buffer, size_t bytes) {
    if (fwrite(buffer, 1, bytes, file->stream) != bytes) {
        fail_output(file);
    }
}

void *allocate(size_t bytes, const char *what) {
    size_t rounded;
    void *memory = NULL;
    if (!__builtin_add_overflow(bytes, (size_t)ALIGNMENT, &rounded)) {
        memory = aligned_alloc(ALIGNMENT, rounded / ALIGNMENT * ALIGNMENT);
    }
    if (memory == NULL) {
        fail("no memory for %zu bytes of %s.", bytes, what);
    }
    return memory;
}

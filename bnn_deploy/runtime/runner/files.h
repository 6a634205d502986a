/* The runner's files and its way out: whatever is wrong with one is a sentence on stderr and exit status 2. */
#ifndef BNN_RUNNER_FILES_H
#define BNN_RUNNER_FILES_H

#include "bnn_model.h"
#include "runner/npy.h"
#include "runner/output_file.h"

/* A .npy file that is read from front to back. */
typedef struct input_file {
    const char *path;
    FILE *stream;
    npy_header header;
} input_file;

/* Says why on stderr, removes unfinished files, and ends the program. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ends the program unless the status is BNN_OK; the model may be null if it was not made. */
void check_status(bnn_status status, const bnn_model *model);

/* Opens an array whose header names this type ("<f4"); `type_name` tells people which that is. */
input_file open_input(const char *path, const char *type, const char *type_name);

/* Its shape is not what is `expected`. */
_Noreturn void fail_shape(const input_file *input, const char *expected);

/* The size of the file must be just what its header says, before anything of that size is allocated or computed. */
void check_input_size(const input_file *input, size_t element_bytes);

/* Reads on from where the last reading ended; as many bytes must be there. */
void read_input(const input_file *input, void *buffer, size_t bytes);

/* Goes back to the first element. */
void rewind_input(const input_file *input);

/* A file that appears when it is finished. */
void open_output(output_file *file, const char *path);
void finish_output(output_file *file);

/* The same as an array in C order; elements are then written from front to back. */
void open_output_array(output_file *file, const char *path, const char *type, size_t rank, const int64_t *shape);
void write_output(output_file *file, const void *buffer, size_t bytes);

/* Memory at a multiple of 64, at least one byte of it; `what` tells people for what. */
void *allocate(size_t bytes, const char *what);

#endif

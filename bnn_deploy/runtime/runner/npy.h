/* Headers of .npy files (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html), versions 1.0 and 2.0. */
#ifndef BNN_RUNNER_NPY_H
#define BNN_RUNNER_NPY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { NPY_MAX_RANK = 32 };

typedef struct npy_header {
    char descr[16];
    int fortran_order;
    size_t rank;
    int64_t shape[NPY_MAX_RANK];
    size_t data_offset; /* bytes before the first element */
} npy_header;

/* Reads from the start of the file and leaves it at the data. NULL on success, else what is wrong, as a predicate. */
const char *npy_read_header(FILE *file, npy_header *header);

/* Writes a version 1.0 header of a C-ordered array. 0 on success. */
int npy_write_header(FILE *file, const char *descr, size_t rank, const int64_t *shape);

/* Prints "(2, 3)" to text. */
void npy_print_shape(char *text, size_t size, size_t rank, const int64_t *shape);

#endif

/* The runner's --taps: what steps computed goes into a file, and comes from one where it is to be forced. */
#ifndef BNN_RUNNER_TAPS_H
#define BNN_RUNNER_TAPS_H

#include "runner/files.h"

/* Where one run of the program has its taps from, and puts what they see. */
typedef struct runner_taps {
    int64_t *taps;
    size_t count;
    size_t value_bytes; /* of each batch */
    unsigned char *values;
    unsigned char *forced; /* null: nothing is forced */
    input_file forced_file;
    output_file observed_file;
} runner_taps;

/* Reads the taps and looks at the file of forced values, which may be null, for so many batches. */
void runner_taps_open(runner_taps *run, const char *taps, const char *forced, size_t batches);

/* Opens the file for what the taps see. */
void runner_taps_begin(runner_taps *run, const char *observed, size_t batches);

/* Runs the next batch. */
void runner_taps_run(runner_taps *run, bnn_model *model, const void *input, void *output);

/* Writes the file out and gives everything back. */
void runner_taps_finish(runner_taps *run);

#endif

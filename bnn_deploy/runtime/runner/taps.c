#include "runner/taps.h"

#include <inttypes.h>
#include <stdlib.h>

/* The taps, each checked, so that the sentence names the one that is wrong. */
static void read_taps(runner_taps *run, const char *path) {
    input_file file = open_input(path, "<i8", "little-endian int64");
    if (file.header.rank != 2 || file.header.shape[1] != BNN_TAP_NUMBERS) {
        fail_shape(&file, "(taps, 9)");
    }
    check_input_size(&file, sizeof(int64_t));
    run->count = (size_t)file.header.shape[0];
    size_t row_bytes = BNN_TAP_NUMBERS * sizeof(int64_t);
    run->taps = allocate(run->count * row_bytes, "taps");
    read_input(&file, run->taps, run->count * row_bytes);
    fclose(file.stream);
    for (size_t i = 0; i < run->count; i++) {
        size_t bytes;
        if (bnn_tapped_bytes(run->taps + i * BNN_TAP_NUMBERS, 1, &bytes) != BNN_OK) {
            fail("row %zu of '%s' is no place of this network; take the taps from this bundle's own tensors.json.", i, path);
        }
    }
    check_status(bnn_tapped_bytes(run->taps, run->count, &run->value_bytes), NULL);
}

static int forces(const runner_taps *run) {
    for (size_t i = 0; i < run->count; i++) {
        if (run->taps[i * BNN_TAP_NUMBERS + BNN_TAP_NUMBERS - 1] != 0) {
            return 1;
        }
    }
    return 0;
}

/* The file may have more bytes for each batch than the taps name; the file of what they see then has as many. */
static void open_forced(runner_taps *run, const char *path, size_t batches) {
    input_file *file = &run->forced_file;
    *file = open_input(path, "|u1", "uint8");
    if (file->header.rank != 2 || (uint64_t)file->header.shape[0] != batches ||
        (uint64_t)file->header.shape[1] < run->value_bytes) {
        char expected[120];
        snprintf(expected, sizeof expected, "(%zu, %zu): a row of what the taps force for each batch", batches, run->value_bytes);
        fail_shape(file, expected);
    }
    check_input_size(file, 1);
    run->value_bytes = (size_t)file->header.shape[1];
    run->forced = allocate(run->value_bytes, "forced values");
}

void runner_taps_open(runner_taps *run, const char *taps, const char *forced, size_t batches) {
    read_taps(run, taps);
    if (forced != NULL) {
        open_forced(run, forced, batches);
    } else if (forces(run)) {
        fail("'%s' has taps that force values; give the values with --forced.", taps);
    }
    run->values = allocate(run->value_bytes, "tapped values");
}

void runner_taps_begin(runner_taps *run, const char *observed, size_t batches) {
    const int64_t shape[] = {(int64_t)batches, (int64_t)run->value_bytes};
    open_output_array(&run->observed_file, observed, "|u1", 2, shape);
}

void runner_taps_run(runner_taps *run, bnn_model *model, const void *input, void *output) {
    if (run->forced != NULL) {
        read_input(&run->forced_file, run->forced, run->value_bytes);
    }
    const void *const inputs[] = {input};
    void *const outputs[] = {output};
    check_status(bnn_run_tapped(model, inputs, outputs, run->taps, run->count, run->values, run->forced, run->value_bytes),
                 model);
    write_output(&run->observed_file, run->values, run->value_bytes);
}

void runner_taps_finish(runner_taps *run) {
    finish_output(&run->observed_file);
    if (run->forced != NULL) {
        fclose(run->forced_file.stream);
    }
    free(run->taps);
    free(run->forced);
    free(run->values);
}

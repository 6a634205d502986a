/*
 * Classifies one batch of images with a bundle written by `bnn-deploy compile`. One compiler call builds it; B is the bundle.
 *
 * with the shared library, on the machine that runs it:
 *     cc main.c -I B B/model.so -Wl,-rpath,"$(realpath B)" -o classify
 * with the static library, which leaves one file to copy:
 *     cc main.c -I B B/libmodel.a -lm -lpthread -o classify
 * for an arm64 device, from any machine (pip install ziglang):
 *     python -m ziglang cc -target aarch64-linux-musl -static -s main.c -I B B/libmodel.a -o classify
 *
 * usage: classify INPUT OUTPUT [THREADS]
 * INPUT holds the float32 values of one batch, as numpy's array.tofile writes them; OUTPUT gets those of the result.
 */
#include "bnn_model.h"

#include <stdio.h>
#include <stdlib.h>

static int fail(const char *what, const char *detail) {
    fprintf(stderr, "classify: %s: %s\n", what, detail);
    return 2;
}

int main(int count, char **words) {
    if (count != 3 && count != 4) {
        return fail("usage", "classify INPUT OUTPUT [THREADS]");
    }
    size_t inputs, outputs;
    const bnn_tensor *input = bnn_inputs(&inputs);
    const bnn_tensor *output = bnn_outputs(&outputs);
    if (inputs != 1 || outputs != 1) {
        return fail("the network", "this example takes one input and one output");
    }

    unsigned char *image = malloc(input->bytes);
    float *scores = malloc(output->bytes);
    FILE *file = fopen(words[1], "rb");
    if (image == NULL || scores == NULL || file == NULL || fread(image, 1, input->bytes, file) != input->bytes) {
        return fail(words[1], "cannot read one batch");
    }
    fclose(file);

    bnn_model *model;
    bnn_status status = bnn_create(count == 4 ? atoi(words[3]) : 1, &model);
    if (status == BNN_OK) {
        const void *from[] = {image};
        void *to[] = {scores};
        status = bnn_run(model, from, to);
        bnn_destroy(model);
    }
    if (status != BNN_OK) {
        return fail("the network", bnn_status_text(status));
    }

    size_t rows = (size_t)output->shape[0], classes = output->bytes / sizeof *scores / rows;
    for (size_t row = 0; row < rows; row++) {
        size_t best = 0;
        for (size_t i = 1; i < classes; i++) {
            if (scores[row * classes + i] > scores[row * classes + best]) {
                best = i;
            }
        }
        printf("image %zu: class %zu\n", row, best);
    }

    file = fopen(words[2], "wb");
    if (file == NULL || fwrite(scores, 1, output->bytes, file) != output->bytes || fclose(file) != 0) {
        return fail(words[2], "cannot write the result");
    }
    free(image);
    free(scores);
    return 0;
}

/* The bundle's command-line program: .npy in, .npy out, and a profile; needs nothing on the device but a GPU's driver. */
#include "runner/files.h"
#include "runner/options.h"
#include "runner/summary.h"
#include "runner/taps.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *numpy_type(const bnn_tensor *tensor) {
    return strcmp(tensor->dtype, "float32") == 0 ? "<f4" : strcmp(tensor->dtype, "int64") == 0 ? "<i8" : "<i4";
}

static void print_tensors(const char *title, const bnn_tensor *tensors, size_t count) {
    char shape[800];
    for (size_t i = 0; i < count; i++) {
        npy_print_shape(shape, sizeof shape, tensors[i].rank, tensors[i].shape);
        printf("%s %s: %s %s, %zu bytes\n", title, tensors[i].name, tensors[i].dtype, shape, tensors[i].bytes);
    }
}

static void print_info(void) {
    size_t inputs, outputs, steps;
    const bnn_tensor *input = bnn_inputs(&inputs);
    const bnn_tensor *output = bnn_outputs(&outputs);
    const bnn_step *step = bnn_steps(&steps);
    print_tensors("input", input, inputs);
    print_tensors("output", output, outputs);
    if (bnn_kernel_set()[0] != '\0') {
        printf("kernel set: %s\n", bnn_kernel_set());
    }
    bnn_device_info gpu;
    if (bnn_device(&gpu) == BNN_OK) {
        printf("GPU: %s, compute capability %d.%d\n", gpu.name, gpu.compute_capability / 10, gpu.compute_capability % 10);
    } else if (bnn_device_error()[0] != '\0') {
        printf("GPU: %s\n", bnn_device_error());
    }
    printf("memory: %zu bytes\nsteps: %zu\n", bnn_memory_bytes(1), steps);
    for (size_t i = 0; i < steps; i++) {
        printf("%4zu  %-6s  %s  (%s)\n", i, step[i].kind, step[i].layer, step[i].kernel);
    }
}

/* The images, as many batches of them as the file has. */
static input_file open_batches(const char *path, const bnn_tensor *expected, size_t *batches) {
    char type_name[40], shape[800], accepted[900];
    snprintf(type_name, sizeof type_name, "little-endian %s", expected->dtype);
    input_file input = open_input(path, numpy_type(expected), type_name);
    const npy_header *header = &input.header;
    int fits = header->rank == expected->rank && header->shape[0] > 0 && header->shape[0] % expected->shape[0] == 0;
    for (size_t i = 1; fits && i < expected->rank; i++) {
        fits = header->shape[i] == expected->shape[i];
    }
    if (!fits) {
        npy_print_shape(shape, sizeof shape, expected->rank, expected->shape);
        snprintf(accepted, sizeof accepted, "%s or a multiple of its first dimension", shape);
        fail_shape(&input, accepted);
    }
    *batches = (size_t)(header->shape[0] / expected->shape[0]);
    check_input_size(&input, strcmp(expected->dtype, "int64") == 0 ? 8 : 4);
    return input;
}

/* What the batches of a file are computed with. */
typedef struct work {
    bnn_model *model;
    input_file source;
    size_t batches;
    const bnn_tensor *input, *output;
    void *batch, *result; /* room for one */
} work;

static void infer(const work *now, const char *path, runner_taps *taps, const char *observed) {
    output_file file;
    int64_t shape[NPY_MAX_RANK];
    memcpy(shape, now->output->shape, now->output->rank * sizeof *shape);
    if (__builtin_mul_overflow(shape[0], (int64_t)now->batches, &shape[0])) {
        fail("the output for '%s' would be too large.", now->source.path);
    }
    rewind_input(&now->source);
    open_output_array(&file, path, numpy_type(now->output), now->output->rank, shape);
    if (observed != NULL) {
        runner_taps_begin(taps, observed, now->batches);
    }
    for (size_t i = 0; i < now->batches; i++) {
        read_input(&now->source, now->batch, now->input->bytes);
        if (observed != NULL) {
            runner_taps_run(taps, now->model, now->batch, now->result);
        } else {
            check_status(bnn_run(now->model, (const void *const[]){now->batch}, (void *const[]){now->result}), now->model);
        }
        write_output(&file, now->result, now->output->bytes);
    }
    if (observed != NULL) {
        runner_taps_finish(taps);
    }
    finish_output(&file);
}

static void profile(profile_report *report, const work *now, const char *path) {
    output_file file;
    read_input(&now->source, now->batch, now->input->bytes);
    open_output(&file, path);
    check_status(profile_measure(report, now->model, now->batch, now->result), now->model);
    profile_report_write(file.stream, report);
    finish_output(&file);
}

/* So that no file which is opened later gets a number that stands for standard input, output or error. */
static void occupy_standard_streams(void) {
    int descriptor = open("/dev/null", O_RDWR);
    while (descriptor >= 0 && descriptor <= 2) {
        descriptor = open("/dev/null", O_RDWR);
    }
    if (descriptor > 2) {
        close(descriptor);
    }
}

static void print_system(void) {
    static system_state state;
    system_state_read(&state, "");
    system_state_write(stdout, &state);
    fputc('\n', stdout);
}

int main(int count, char **words) {
    occupy_standard_streams();
    const options chosen = options_parse(count, words);
    if (chosen.info || chosen.system) {
        (chosen.info ? print_info : print_system)();
        if (fflush(stdout) != 0 || ferror(stdout)) {
            fail("cannot write to standard output: %s.", strerror(errno));
        }
        return 0;
    }
    size_t inputs, outputs;
    work now = {.input = bnn_inputs(&inputs), .output = bnn_outputs(&outputs)};
    if (inputs != 1 || outputs != 1) {
        fail("the runner serves networks with one input and one output, this one has %zu and %zu; use bnn_model.h.",
             inputs, outputs);
    }
    runner_taps taps = {0};
    now.source = open_batches(chosen.input, now.input, &now.batches);
    if (chosen.taps != NULL) {
        runner_taps_open(&taps, chosen.taps, chosen.forced, now.batches);
    }
    check_status(bnn_create(chosen.threads, &now.model), NULL);
    now.batch = allocate(now.input->bytes, "an input");
    now.result = allocate(now.output->bytes, "an output");
    profile_report report = {.threads = chosen.threads, .warmup = chosen.warmup, .repeat = (size_t)chosen.repeat};
    if (chosen.profile != NULL) {
        profile(&report, &now, chosen.profile);
    }
    if (chosen.output != NULL) {
        infer(&now, chosen.output, &taps, chosen.observed);
    }
    if (chosen.profile != NULL) {
        /* For people: whether anybody listens makes no difference. */
        signal(SIGPIPE, SIG_IGN);
        profile_summary_write(stdout, &report);
        (void)fflush(stdout);
    }
    bnn_destroy(now.model);
    profile_release(&report);
    free(now.batch);
    free(now.result);
    fclose(now.source.stream);
    return 0;
}

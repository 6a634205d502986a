/* The bundle's command-line program: .npy in, .npy out, and a profile; needs nothing on the device but a GPU's driver. */
#include "bnn_model.h"
#include "npy.h"
#include "output_file.h"
#include "profile_report.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: runner --input X.npy --output Y.npy [--threads N]\n"
    "       runner --input X.npy --profile PROFILE.json [--repeat N] [--warmup N] [--threads N]\n"
    "       runner --info\n"
    "       runner --system\n"
    "\n"
    "X.npy is little-endian and C-ordered; its first dimension is any multiple of the network's batch.\n"
    "The profile times the first batch of X.npy: seconds of every step (kernel call) in every repeat, and the state of\n"
    "the machine before and after. --system prints that state as JSON.\n";

typedef struct options {
    const char *input, *output, *profile;
    int threads, repeat, warmup, info, system;
} options;

typedef struct input_file {
    const char *path;
    FILE *stream;
    size_t data_offset;
    size_t batches;
} input_file;

static _Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

static _Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("runner: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    output_files_discard();
    exit(2);
}

static int parse_count(const char *option, const char *text, int minimum, int maximum) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < minimum || value > maximum) {
        fail("%s takes a whole number from %d to %d, found '%s'.", option, minimum, maximum, text);
    }
    return (int)value;
}

static options parse_options(int count, char **words) {
    options chosen = {.threads = 1, .repeat = 20, .warmup = 3};
    for (int i = 1; i < count; i++) {
        const char *option = words[i];
        if (strcmp(option, "--help") == 0) {
            fputs(USAGE, stdout);
            exit(0);
        }
        if (strcmp(option, "--info") == 0) {
            chosen.info = 1;
            continue;
        }
        if (strcmp(option, "--system") == 0) {
            chosen.system = 1;
            continue;
        }
        const char *value = i + 1 < count ? words[i + 1] : NULL;
        static const char *const KNOWN[] = {"--input", "--output", "--profile", "--threads", "--repeat", "--warmup"};
        size_t which = 0;
        while (which < sizeof KNOWN / sizeof *KNOWN && strcmp(option, KNOWN[which]) != 0) {
            which++;
        }
        if (which == sizeof KNOWN / sizeof *KNOWN) {
            fail("unknown option '%s'; --help lists the options.", option);
        }
        if (value == NULL) {
            fail("%s needs a value.", option);
        }
        i++;
        switch (which) {
        case 0:
            chosen.input = value;
            break;
        case 1:
            chosen.output = value;
            break;
        case 2:
            chosen.profile = value;
            break;
        case 3:
            chosen.threads = parse_count(option, value, 1, BNN_MAX_THREADS);
            break;
        case 4:
            chosen.repeat = parse_count(option, value, 1, 1000000);
            break;
        default:
            chosen.warmup = parse_count(option, value, 0, 1000000);
        }
    }
    if (!chosen.info && !chosen.system && (chosen.input == NULL || (chosen.output == NULL && chosen.profile == NULL))) {
        fail("give --input with --output or --profile, or --info, or --system; --help lists the options.");
    }
    return chosen;
}

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

/* The size of the file must be just what its header says, before anything of that size is allocated or computed. */
static input_file open_input(const char *path, const bnn_tensor *expected) {
    input_file input = {.path = path, .stream = fopen(path, "rb")};
    struct stat status;
    npy_header header;
    if (input.stream == NULL || fstat(fileno(input.stream), &status) != 0) {
        fail("cannot read '%s': %s.", path, strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        fail("cannot read '%s': it is not a regular file.", path);
    }
    const char *problem = npy_read_header(input.stream, &header);
    if (problem != NULL) {
        fail("'%s' %s; write it with numpy.save.", path, problem);
    }
    if (strcmp(header.descr, numpy_type(expected)) != 0) {
        fail("'%s' holds elements of type '%s', expected '%s' (little-endian %s).", path, header.descr,
             numpy_type(expected), expected->dtype);
    }
    char found_shape[800], expected_shape[800];
    npy_print_shape(found_shape, sizeof found_shape, header.rank, header.shape);
    npy_print_shape(expected_shape, sizeof expected_shape, expected->rank, expected->shape);
    int fits = header.rank == expected->rank && header.shape[0] > 0 && header.shape[0] % expected->shape[0] == 0;
    for (size_t i = 1; fits && i < expected->rank; i++) {
        fits = header.shape[i] == expected->shape[i];
    }
    if (!fits) {
        fail("'%s' holds an array of shape %s, expected %s or a multiple of its first dimension.", path, found_shape,
             expected_shape);
    }
    if (header.fortran_order) {
        fail("'%s' is in Fortran order, expected C order; write it with numpy.ascontiguousarray.", path);
    }
    input.data_offset = header.data_offset;
    input.batches = (size_t)(header.shape[0] / expected->shape[0]);
    size_t bytes;
    if (__builtin_mul_overflow(input.batches, expected->bytes, &bytes) ||
        __builtin_add_overflow(bytes, header.data_offset, &bytes) || (uintmax_t)status.st_size != bytes) {
        fail("'%s' is %jd bytes long, which does not fit its shape %s.", path, (intmax_t)status.st_size, found_shape);
    }
    return input;
}

static void read_batch(const input_file *input, void *buffer, size_t bytes) {
    if (fread(buffer, 1, bytes, input->stream) != bytes) {
        fail("cannot read '%s': %s.", input->path, ferror(input->stream) ? strerror(errno) : "it became shorter");
    }
}

static void check(bnn_status status, const bnn_model *model) {
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

static void open_output(output_file *file, const char *path) {
    if (output_file_open(file, path) != 0) {
        fail("cannot write '%s': %s.", path, errno == EINVAL ? "it is not a regular file" : strerror(errno));
    }
}

static void finish_output(output_file *file) {
    if (output_file_finish(file) != 0) {
        fail("cannot write '%s': %s.", file->path, strerror(errno));
    }
}

static void infer(bnn_model *model, const input_file *input, const char *path, void *batch, void *result,
                  size_t batch_bytes, const bnn_tensor *output) {
    output_file file;
    int64_t shape[NPY_MAX_RANK];
    memcpy(shape, output->shape, output->rank * sizeof *shape);
    if (__builtin_mul_overflow(shape[0], (int64_t)input->batches, &shape[0])) {
        fail("the output for '%s' would be too large.", input->path);
    }
    if (fseek(input->stream, (long)input->data_offset, SEEK_SET) != 0) {
        fail("cannot read '%s': %s.", input->path, strerror(errno));
    }
    open_output(&file, path);
    int written = npy_write_header(file.stream, numpy_type(output), output->rank, shape) == 0;
    for (size_t i = 0; written && i < input->batches; i++) {
        read_batch(input, batch, batch_bytes);
        check(bnn_run(model, (const void *const[]){batch}, (void *const[]){result}), model);
        written = fwrite(result, 1, output->bytes, file.stream) == output->bytes;
    }
    if (!written) {
        fail("cannot write '%s': %s.", path, strerror(errno));
    }
    finish_output(&file);
}

static void profile(profile_report *report, bnn_model *model, const char *path, const void *batch, void *result) {
    output_file file;
    open_output(&file, path);
    check(profile_measure(report, model, batch, result), model);
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
    options chosen = parse_options(count, words);
    if (chosen.info || chosen.system) {
        (chosen.info ? print_info : print_system)();
        if (fflush(stdout) != 0 || ferror(stdout)) {
            fail("cannot write to standard output: %s.", strerror(errno));
        }
        return 0;
    }
    size_t inputs, outputs;
    const bnn_tensor *input = bnn_inputs(&inputs);
    const bnn_tensor *output = bnn_outputs(&outputs);
    if (inputs != 1 || outputs != 1) {
        fail("the runner serves networks with one input and one output, this one has %zu and %zu; use bnn_model.h.",
             inputs, outputs);
    }
    input_file source = open_input(chosen.input, input);
    bnn_model *model;
    check(bnn_create(chosen.threads, &model), NULL);
    void *batch = aligned_alloc(64, (input->bytes + 63) / 64 * 64);
    void *result = aligned_alloc(64, (output->bytes + 63) / 64 * 64);
    if (batch == NULL || result == NULL) {
        fail("no memory for an input of %zu and an output of %zu bytes.", input->bytes, output->bytes);
    }
    profile_report report = {.threads = chosen.threads, .warmup = chosen.warmup, .repeat = (size_t)chosen.repeat};
    if (chosen.profile != NULL) {
        read_batch(&source, batch, input->bytes);
        profile(&report, model, chosen.profile, batch, result);
    }
    if (chosen.output != NULL) {
        infer(model, &source, chosen.output, batch, result, input->bytes, output);
    }
    if (chosen.profile != NULL) {
        /* For people: whether anybody listens makes no difference. */
        signal(SIGPIPE, SIG_IGN);
        profile_summary_write(stdout, &report);
        (void)fflush(stdout);
    }
    bnn_destroy(model);
    profile_release(&report);
    free(batch);
    free(result);
    fclose(source.stream);
    return 0;
}

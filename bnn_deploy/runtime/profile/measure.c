#include "profile/report.h"

#include "profile/memory_speed.h"
#include "system/system_files.h"

#include <stdlib.h>
#include <string.h>

/* "VmHWM: 5124 kB". Not getrusage: its number starts with the peak of the process that started this one. */
static int64_t peak_memory_bytes(void) {
    char line[160];
    int64_t bytes = -1;
    FILE *stream = system_open("", "/proc/self/status");
    while (stream != NULL && fgets(line, sizeof line, stream) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            int64_t kilobytes = parse_number(line + 6);
            bytes = kilobytes < 0 || kilobytes > INT64_MAX / 1024 ? -1 : kilobytes * 1024;
        }
    }
    if (stream != NULL) {
        fclose(stream);
    }
    return bytes;
}

bnn_status profile_measure(profile_report *report, bnn_model *model, const void *batch, void *result) {
    const void *const inputs[] = {batch};
    void *const outputs[] = {result};
    size_t steps;
    (void)bnn_steps(&steps);
    report->total_seconds = calloc(report->repeat, sizeof(double));
    report->step_seconds = calloc(report->repeat, steps * sizeof(double));
    report->before = malloc(sizeof *report->before);
    report->after = malloc(sizeof *report->after);
    if (report->total_seconds == NULL || report->step_seconds == NULL || report->before == NULL || report->after == NULL) {
        return BNN_ERROR_MEMORY;
    }
    system_state_read(report->before, "");
    bnn_status status = BNN_OK;
    for (int i = 0; i < report->warmup && status == BNN_OK; i++) {
        status = bnn_run(model, inputs, outputs);
    }
    for (size_t i = 0; i < report->repeat && status == BNN_OK; i++) {
        status = bnn_run_timed(model, inputs, outputs, report->step_seconds + i * steps, &report->total_seconds[i]);
    }
    if (status != BNN_OK) {
        return status;
    }
    system_state_read(report->after, "");
    report->has_gpu = bnn_device(&report->gpu) == BNN_OK;
    /* An emulator's memory and speed are its own, and a GPU's kernels use others. The large buffers of memory_copy_speed come after the peak. */
    int emulated = report->after->emulated;
    report->peak_memory_bytes = emulated ? -1 : peak_memory_bytes();
    report->copy_bytes_per_second =
        emulated || report->has_gpu ? -1 : memory_copy_speed(report->threads, report->after->memory_available_bytes);
    return BNN_OK;
}

void profile_release(profile_report *report) {
    free(report->total_seconds);
    free(report->step_seconds);
    free(report->before);
    free(report->after);
}

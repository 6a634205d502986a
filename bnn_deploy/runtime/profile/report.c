#include "profile/report.h"

#include "system/json_text.h"

static void write_gpu(FILE *stream, const bnn_device_info *gpu) {
    const json_count counts[] = {
        {"compute_capability", gpu->compute_capability},
        {"multiprocessors", gpu->multiprocessors},
        {"khz", gpu->khz},
        {"memory_khz", gpu->memory_khz},
        {"memory_bus_bits", gpu->memory_bus_bits},
        {"memory_bytes", gpu->memory_bytes},
        {"cuda_version", gpu->cuda_version},
    };
    fputs("{\"name\": ", stream);
    json_foreign_text(stream, gpu->name);
    json_counts(stream, counts, sizeof counts / sizeof *counts);
    fputs("}", stream);
}

void profile_report_write(FILE *stream, const profile_report *report) {
    size_t steps;
    const bnn_step *step = bnn_steps(&steps);
    fputs("{\"format\": \"bnn_deploy.runner_profile\", \"format_version\": 1,\n ", stream);
    fprintf(stream, "\"threads\": %d, \"warmup\": %d, \"repeat\": %zu, ", report->threads, report->warmup, report->repeat);
    fputs("\"kernel_set\": ", stream);
    json_text(stream, bnn_kernel_set());
    fprintf(stream, ", \"emulated\": %s,\n \"peak_memory_bytes\": ", report->after->emulated ? "true" : "false");
    json_integer(stream, report->peak_memory_bytes);
    fputs(", \"copy_bytes_per_second\": ", stream);
    json_number(stream, report->copy_bytes_per_second);
    fputs(",\n \"gpu\": ", stream);
    if (report->has_gpu) {
        write_gpu(stream, &report->gpu);
    } else {
        fputs("null", stream);
    }
    fputs(",\n \"system_before\": ", stream);
    system_state_write(stream, report->before);
    fputs(",\n \"system_after\": ", stream);
    system_state_write(stream, report->after);
    fputs(",\n \"steps\": [", stream);
    for (size_t i = 0; i < steps; i++) {
        fputs(i == 0 ? "\n  {\"kernel\": " : ",\n  {\"kernel\": ", stream);
        json_text(stream, step[i].kernel);
        fputs(", \"layer\": ", stream);
        json_text(stream, step[i].layer);
        fprintf(stream, ", \"kind\": \"%s\"}", step[i].kind);
    }
    fputs("],\n \"total_seconds\": ", stream);
    json_numbers(stream, report->total_seconds, report->repeat);
    fputs(",\n \"step_seconds\": [", stream);
    for (size_t i = 0; i < report->repeat; i++) {
        fputs(i == 0 ? "\n  " : ",\n  ", stream);
        json_numbers(stream, report->step_seconds + i * steps, steps);
    }
    fputs("]}\n", stream);
}

#include "profile_report.h"

#include "json_text.h"

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

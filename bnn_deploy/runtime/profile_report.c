#include "profile_report.h"

#include "bnn_model.h"

static void print_json_text(FILE *stream, const char *text) {
    fputc('"', stream);
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\') {
            fprintf(stream, "\\%c", *at);
        } else if (*at < 0x20) {
            fprintf(stream, "\\u%04x", *at);
        } else {
            fputc(*at, stream);
        }
    }
    fputc('"', stream);
}

static void print_json_numbers(FILE *stream, const double *numbers, size_t count) {
    for (size_t i = 0; i < count; i++) {
        fprintf(stream, i == 0 ? "[%.9g" : ", %.9g", numbers[i]);
    }
    fputc(']', stream);
}

void profile_report_write(FILE *stream, const profile_report *report) {
    size_t steps;
    const bnn_step *step = bnn_steps(&steps);
    fprintf(stream, "{\"threads\": %d, \"warmup\": %d, \"repeat\": %zu,\n \"steps\": [", report->threads,
            report->warmup, report->repeat);
    for (size_t i = 0; i < steps; i++) {
        fputs(i == 0 ? "\n  {\"kernel\": " : ",\n  {\"kernel\": ", stream);
        print_json_text(stream, step[i].kernel);
        fputs(", \"layer\": ", stream);
        print_json_text(stream, step[i].layer);
        fprintf(stream, ", \"kind\": \"%s\"}", step[i].kind);
    }
    fputs("],\n \"total_seconds\": ", stream);
    print_json_numbers(stream, report->total_seconds, report->repeat);
    fputs(",\n \"step_seconds\": [", stream);
    for (size_t i = 0; i < report->repeat; i++) {
        fputs(i == 0 ? "\n  " : ",\n  ", stream);
        print_json_numbers(stream, report->step_seconds + i * steps, steps);
    }
    fputs("]}\n", stream);
}

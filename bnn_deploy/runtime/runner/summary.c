#include "runner/summary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SLOWEST = 5, LONGEST_LAYER = 80 };

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Between two neighbours where the place is no whole number, as numpy.percentile. */
static double percentile(const double *sorted, size_t count, double fraction) {
    double place = fraction * (double)(count - 1);
    size_t below = (size_t)place;
    double above = below + 1 < count ? sorted[below + 1] : sorted[below];
    return sorted[below] + (above - sorted[below]) * (place - (double)below);
}

/* Sorts column `column` of a table of `width` columns into `sorted`. */
static void sort_column(double *sorted, const double *table, size_t rows, size_t width, size_t column) {
    for (size_t i = 0; i < rows; i++) {
        sorted[i] = table[i * width + column];
    }
    qsort(sorted, rows, sizeof *sorted, compare);
}

/* Names of fused layers fill several lines: their beginning is enough, cut between two characters of UTF-8. */
static void write_layer(FILE *stream, const char *layer) {
    int length = (int)strlen(layer);
    if (length <= LONGEST_LAYER) {
        fprintf(stream, "%s\n", layer);
        return;
    }
    length = LONGEST_LAYER;
    while (length > 0 && (layer[length] & 0xc0) == 0x80) {
        length--;
    }
    fprintf(stream, "%.*s...\n", length, layer);
}

static void write_slowest(FILE *stream, const double *medians, size_t steps) {
    const bnn_step *step = bnn_steps(&steps);
    double all = 0, limit = INFINITY;
    for (size_t i = 0; i < steps; i++) {
        all += medians[i];
    }
    fputs("slowest steps (numbers as in --info):\n", stream);
    size_t last = steps;
    for (size_t rank = 0; rank < SLOWEST && rank < steps; rank++) {
        size_t next = steps;
        for (size_t i = 0; i < steps; i++) {
            int later = medians[i] < limit || (medians[i] == limit && i > last);
            if (later && (next == steps || medians[i] > medians[next])) {
                next = i;
            }
        }
        last = next;
        limit = medians[next];
        fprintf(stream, "%10.3f ms %5.1f %%  %4zu  %-6s  ", limit * 1e3, all > 0 ? limit / all * 100 : 0.0, next,
                step[next].kind);
        write_layer(stream, step[next].layer);
    }
}

static double hottest(const system_state *state) {
    double celsius = -INFINITY;
    for (size_t i = 0; i < state->temperature_count; i++) {
        celsius = state->temperatures[i].celsius > celsius ? state->temperatures[i].celsius : celsius;
    }
    return celsius;
}

static void write_clock(FILE *stream, const char *title, const system_state *state) {
    int64_t slowest = -1, fastest = -1;
    for (size_t i = 0; i < state->processor_count; i++) {
        int64_t khz = state->processors[i].khz;
        slowest = khz >= 0 && (slowest < 0 || khz < slowest) ? khz : slowest;
        fastest = khz > fastest ? khz : fastest;
    }
    fprintf(stream, "%s: ", title);
    if (fastest < 0) {
        fputs("clock unknown", stream);
    } else if (slowest == fastest) {
        fprintf(stream, "%.0f MHz", (double)fastest / 1000);
    } else {
        fprintf(stream, "%.0f to %.0f MHz", (double)slowest / 1000, (double)fastest / 1000);
    }
    if (state->temperature_count > 0) {
        fprintf(stream, ", %.1f degrees Celsius", hottest(state));
    }
    /* https://www.raspberrypi.com/documentation/computers/os.html#get_throttled */
    static const char *const CONDITIONS[] = {"under-voltage", "frequency capped", "throttled", "soft temperature limit"};
    for (int bit = 0; state->throttled > 0 && bit < 4; bit++) {
        if (state->throttled >> bit & 1) {
            fprintf(stream, ", %s now", CONDITIONS[bit]);
        } else if (state->throttled >> (bit + 16) & 1) {
            fprintf(stream, ", %s since boot", CONDITIONS[bit]);
        }
    }
    fputc('\n', stream);
}

void profile_summary_write(FILE *stream, const profile_report *report) {
    size_t steps;
    (void)bnn_steps(&steps);
    double *sorted = calloc(report->repeat, sizeof *sorted);
    double *medians = calloc(steps, sizeof *medians);
    if (sorted != NULL && medians != NULL) {
        if (report->after->emulated) {
            fputs("These are times of an emulator and no latencies of any device; measure on the device itself.\n", stream);
        }
        sort_column(sorted, report->total_seconds, report->repeat, 1, 0);
        fprintf(stream, "%s: median %.3f ms, min %.3f ms, 90th percentile %.3f ms (%zu repeats, threads: %d)\n",
                report->after->emulated ? "emulated run" : "latency", percentile(sorted, report->repeat, 0.5) * 1e3,
                sorted[0] * 1e3, percentile(sorted, report->repeat, 0.9) * 1e3, report->repeat, report->threads);
        for (size_t i = 0; i < steps; i++) {
            sort_column(sorted, report->step_seconds, report->repeat, steps, i);
            medians[i] = percentile(sorted, report->repeat, 0.5);
        }
        if (report->has_gpu) {
            fprintf(stream, "GPU: %s\n", report->gpu.name);
        }
        write_slowest(stream, medians, steps);
        write_clock(stream, "before", report->before);
        write_clock(stream, "after", report->after);
    }
    free(sorted);
    free(medians);
}

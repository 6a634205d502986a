/* What a profile measures, and its JSON. */
#ifndef BNN_PROFILE_REPORT_H
#define BNN_PROFILE_REPORT_H

#include "bnn_model.h"
#include "system/system_state.h"

#include <stddef.h>
#include <stdio.h>

typedef struct profile_report {
    int threads, warmup;
    size_t repeat;
    double *total_seconds;        /* repeat */
    double *step_seconds;         /* repeat rows of one number per step */
    system_state *before, *after; /* the warm-up, and the last repeat */
    int64_t peak_memory_bytes;    /* -1: unknown */
    double copy_bytes_per_second; /* -1: unknown */
    int has_gpu;                  /* whether the network runs on a GPU: */
    bnn_device_info gpu;
} profile_report;

/* Runs the network on one batch, report->warmup times and then report->repeat times with a clock (repeat > 0); the caller
 * sets these and the number of threads, and the other fields to 0. BNN_ERROR_MEMORY when there is no room for the times, else
 * what the network says. In any case, profile_release frees what the report holds. */
bnn_status profile_measure(profile_report *report, bnn_model *model, const void *batch, void *result);

void profile_release(profile_report *report);

/* Writes the file that docs/profile.md describes. */
void profile_report_write(FILE *stream, const profile_report *report);

#endif

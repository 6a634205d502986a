/* The JSON file that the runner's --profile writes. */
#ifndef BNN_PROFILE_REPORT_H
#define BNN_PROFILE_REPORT_H

#include <stddef.h>
#include <stdio.h>

typedef struct profile_report {
    int threads, warmup;
    size_t repeat;
    const double *total_seconds; /* repeat */
    const double *step_seconds;  /* repeat rows of one number per step */
} profile_report;

void profile_report_write(FILE *stream, const profile_report *report);

#endif

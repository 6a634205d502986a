/* A profile for people. */
#ifndef BNN_RUNNER_SUMMARY_H
#define BNN_RUNNER_SUMMARY_H

#include "profile/report.h"

/* Writes a few lines. */
void profile_summary_write(FILE *stream, const profile_report *report);

#endif

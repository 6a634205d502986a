/* The processors of a system, from /sys/devices/system/cpu and /proc/cpuinfo. */
#ifndef BNN_SYSTEM_PROCESSOR_STATE_H
#define BNN_SYSTEM_PROCESSOR_STATE_H

#include <stddef.h>
#include <stdint.h>

enum { MAX_PROCESSORS = 512, MAX_FLAGS_TEXT = 4096 };

typedef struct processor_state {
    int number;
    int64_t implementer, part;               /* of Arm's MIDR register; -1: unknown */
    int64_t khz, minimum_khz, maximum_khz;   /* present clock, and the limits of the hardware; -1: unknown */
    char governor[32];                       /* "": unknown */
} processor_state;

/* Fills in the processors that are online, up to MAX_PROCESSORS, and returns how many. `flags` (MAX_FLAGS_TEXT bytes) gets
 * the first line "Features" or "flags" of /proc/cpuinfo, or "". */
size_t processor_states(const char *root, processor_state *processors, char *flags);

#endif

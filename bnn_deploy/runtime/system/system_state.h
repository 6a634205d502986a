/* The state of this machine that decides about speed: processors, clocks, temperatures, throttling, memory. */
#ifndef BNN_SYSTEM_SYSTEM_STATE_H
#define BNN_SYSTEM_SYSTEM_STATE_H

#include "system/processor_state.h"

#include <stdio.h>

enum { MAX_TEMPERATURES = 64 };

typedef struct temperature {
    char zone[64];
    double celsius;
} temperature;

/* Unknown is -1 for numbers and "" for texts. docs/profile.md describes every field. */
typedef struct system_state {
    char host[256], board[256], machine[72], kernel[160];
    processor_state processors[MAX_PROCESSORS];
    size_t processor_count;
    char cpu_flags[MAX_FLAGS_TEXT];
    temperature temperatures[MAX_TEMPERATURES];
    size_t temperature_count;
    int64_t throttled;
    char power_mode[64], jetson_linux[32], cuda_version[32], glibc[32];
    char gpu_driver[32], gpu_name[96], gpu_compute_capability[16];
    int64_t gpu_memory_bytes;
    int userland_bits;
    double load_average;
    int64_t memory_total_bytes, memory_available_bytes, disk_available_bytes;
    int emulated;
} system_state;

/* Looks at the system whose files are below the folder `root`; "" is this one. Takes milliseconds, and never more than two
 * seconds. Host name, kernel and free disk space are always this system's. */
void system_state_read(system_state *state, const char *root);

/* Writes one JSON object. */
void system_state_write(FILE *stream, const system_state *state);

#endif

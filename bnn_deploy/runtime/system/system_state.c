#include "system/system_state.h"

#include "system/emulation.h"
#include "system/json_text.h"
#include "system/system_files.h"
#include "system/userland.h"

#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

static void read_uname(system_state *state) {
    struct utsname names;
    if (uname(&names) == 0) {
        snprintf(state->host, sizeof state->host, "%s", names.nodename);
        snprintf(state->machine, sizeof state->machine, "%s", names.machine);
        snprintf(state->kernel, sizeof state->kernel, "%s %s", names.sysname, names.release);
    }
}

static int known_zone(const system_state *state, const char *zone) {
    for (size_t i = 0; i < state->temperature_count; i++) {
        if (strcmp(state->temperatures[i].zone, zone) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Thousandths of a degree Celsius. A sensor that is switched off gives an error or an absurd number. */
static void read_temperatures(system_state *state, const char *root) {
    for (int i = 0; i < MAX_TEMPERATURES; i++) {
        temperature *next = &state->temperatures[state->temperature_count];
        char path[128], text[32], type[40];
        snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", i);
        char *end = text;
        long thousandths = system_text(root, path, text, sizeof text) ? strtol(text, &end, 10) : 0;
        if (end == text || thousandths < -100000 || thousandths > 250000) {
            continue;
        }
        snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/type", i);
        if (!system_text(root, path, type, sizeof type)) {
            snprintf(next->zone, sizeof next->zone, "thermal_zone%d", i);
        } else if (known_zone(state, type)) {
            snprintf(next->zone, sizeof next->zone, "%s %d", type, i);
        } else {
            snprintf(next->zone, sizeof next->zone, "%s", type);
        }
        next->celsius = (double)thousandths / 1000;
        state->temperature_count++;
    }
}

/* "throttled=0x50005" */
static int64_t read_throttled(const char *root) {
    static const char *const ARGUMENTS[] = {"get_throttled", NULL};
    char text[64];
    const char *value = system_command(root, "vcgencmd", ARGUMENTS, text, sizeof text) ? strchr(text, '=') : NULL;
    return value == NULL ? -1 : parse_number(value + 1);
}

/* "NV Power Mode: MAXN", and the mode's number in the next line. */
static void read_power_mode(system_state *state, const char *root) {
    static const char TITLE[] = "NV Power Mode:";
    static const char *const ARGUMENTS[] = {"-q", NULL};
    char text[1024];
    const char *at = system_command(root, "nvpmodel", ARGUMENTS, text, sizeof text) ? strstr(text, TITLE) : NULL;
    if (at != NULL) {
        at += strlen(TITLE);
        at += strspn(at, " \t");
        snprintf(state->power_mode, sizeof state->power_mode, "%.*s", (int)strcspn(at, "\r\n"), at);
    }
}

/* Up to the next comma or line; on Jetsons, nvidia-smi says "[N/A]" of much. */
static const char *take_cell(const char *at, char *cell, size_t size) {
    at += strspn(at, " ,");
    size_t length = strcspn(at, ",\r\n");
    snprintf(cell, size, "%.*s", (int)length, strncmp(at, "[", 1) == 0 ? "" : at);
    return at + length;
}

/* "NVIDIA H200, 9.0, 143771 MiB" and a line like it for every other GPU. Without the driver nothing is started. */
static void read_gpu(system_state *state, const char *root) {
    static const char *const ARGUMENTS[] = {"--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader", NULL};
    char text[1024], memory[32] = "";
    userland_nvidia_driver(root, state->gpu_driver, sizeof state->gpu_driver);
    if (state->gpu_driver[0] == '\0' || !system_command(root, "nvidia-smi", ARGUMENTS, text, sizeof text)) {
        return;
    }
    const char *at = take_cell(text, state->gpu_name, sizeof state->gpu_name);
    at = take_cell(at, state->gpu_compute_capability, sizeof state->gpu_compute_capability);
    take_cell(at, memory, sizeof memory);
    int64_t mebibytes = strstr(memory, " MiB") == NULL ? -1 : parse_number(memory);
    state->gpu_memory_bytes = mebibytes >= 0 && mebibytes < INT64_MAX >> 20 ? mebibytes << 20 : -1;
}

static void read_memory(system_state *state, const char *root) {
    char line[160];
    FILE *stream = system_open(root, "/proc/meminfo");
    while (stream != NULL && fgets(line, sizeof line, stream) != NULL) {
        char *colon = strchr(line, ':');
        int64_t kilobytes = colon == NULL ? -1 : parse_number(colon + 1);
        if (kilobytes < 0 || kilobytes > INT64_MAX / 1024) {
            continue;
        }
        *colon = '\0';
        if (strcmp(line, "MemTotal") == 0) {
            state->memory_total_bytes = kilobytes * 1024;
        } else if (strcmp(line, "MemAvailable") == 0) {
            state->memory_available_bytes = kilobytes * 1024;
        }
    }
    if (stream != NULL) {
        fclose(stream);
    }
}

static double read_load(const char *root) {
    char text[64], *end;
    double load = system_text(root, "/proc/loadavg", text, sizeof text) ? strtod(text, &end) : -1;
    return load >= 0 && load < 1e6 ? load : -1;
}

static int64_t free_disk(void) {
    struct statvfs status;
    int64_t bytes;
    return statvfs(".", &status) == 0 && !__builtin_mul_overflow(status.f_bavail, status.f_frsize, &bytes) ? bytes : -1;
}

void system_state_read(system_state *state, const char *root) {
    memset(state, 0, sizeof *state);
    state->processor_count = processor_states(root, state->processors, state->cpu_flags);
    read_temperatures(state, root);
    state->load_average = read_load(root);
    read_uname(state);
    state->memory_total_bytes = state->memory_available_bytes = -1;
    read_memory(state, root);
    state->disk_available_bytes = free_disk();
    state->emulated = running_under_emulation();
    if (!system_text(root, "/proc/device-tree/model", state->board, sizeof state->board)) {
        system_text(root, "/sys/firmware/devicetree/base/model", state->board, sizeof state->board);
    }
    state->userland_bits = userland_bits(root);
    userland_glibc(root, state->glibc, sizeof state->glibc);
    userland_jetson_linux(root, state->jetson_linux, sizeof state->jetson_linux);
    userland_cuda(root, state->cuda_version, sizeof state->cuda_version);
    /* Programs last: starting them takes time and warms the processor. */
    state->throttled = read_throttled(root);
    read_power_mode(state, root);
    state->gpu_memory_bytes = -1;
    read_gpu(state, root);
}

static void write_processors(FILE *stream, const system_state *state) {
    fputs(",\n  \"cpus\": [", stream);
    for (size_t i = 0; i < state->processor_count; i++) {
        const processor_state *processor = &state->processors[i];
        const json_count counts[] = {
            {"implementer", processor->implementer}, {"part", processor->part},
            {"khz", processor->khz},                 {"minimum_khz", processor->minimum_khz},
            {"maximum_khz", processor->maximum_khz},
        };
        fprintf(stream, "%s\n   {\"cpu\": %d", i == 0 ? "" : ",", processor->number);
        json_counts(stream, counts, sizeof counts / sizeof *counts);
        fputs(", \"governor\": ", stream);
        json_foreign_text(stream, processor->governor);
        fputc('}', stream);
    }
    fputc(']', stream);
}

static void write_temperatures(FILE *stream, const system_state *state) {
    fputs(",\n  \"temperatures\": {", stream);
    for (size_t i = 0; i < state->temperature_count; i++) {
        fputs(i == 0 ? "" : ", ", stream);
        json_foreign_text(stream, state->temperatures[i].zone);
        fprintf(stream, ": %.3f", state->temperatures[i].celsius);
    }
    fputc('}', stream);
}

static void write_text(FILE *stream, const char *key, const char *text) {
    fprintf(stream, ",\n  \"%s\": ", key);
    json_foreign_text(stream, text);
}

static void write_integer(FILE *stream, const char *key, int64_t number) {
    fprintf(stream, ",\n  \"%s\": ", key);
    json_integer(stream, number);
}

void system_state_write(FILE *stream, const system_state *state) {
    fputs("{\"host\": ", stream);
    json_foreign_text(stream, state->host);
    write_text(stream, "board", state->board);
    write_text(stream, "machine", state->machine);
    write_text(stream, "kernel", state->kernel);
    write_processors(stream, state);
    write_text(stream, "cpu_flags", state->cpu_flags);
    write_temperatures(stream, state);
    write_integer(stream, "throttled", state->throttled);
    write_text(stream, "power_mode", state->power_mode);
    write_text(stream, "jetson_linux", state->jetson_linux);
    write_text(stream, "cuda_version", state->cuda_version);
    write_text(stream, "gpu_driver", state->gpu_driver);
    write_text(stream, "gpu_name", state->gpu_name);
    write_text(stream, "gpu_compute_capability", state->gpu_compute_capability);
    write_integer(stream, "gpu_memory_bytes", state->gpu_memory_bytes);
    write_integer(stream, "userland_bits", state->userland_bits);
    write_text(stream, "glibc", state->glibc);
    fputs(",\n  \"load_average\": ", stream);
    json_number(stream, state->load_average);
    write_integer(stream, "memory_total_bytes", state->memory_total_bytes);
    write_integer(stream, "memory_available_bytes", state->memory_available_bytes);
    write_integer(stream, "disk_available_bytes", state->disk_available_bytes);
    fprintf(stream, ",\n  \"emulated\": %s}", state->emulated ? "true" : "false");
}

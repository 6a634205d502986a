#include "system/processor_state.h"

#include "system/system_files.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A list such as "0-3,6". */
static size_t online_processors(const char *root, processor_state *processors) {
    char text[1024];
    size_t count = 0;
    system_text(root, "/sys/devices/system/cpu/online", text, sizeof text);
    for (char *at = text; isdigit((unsigned char)*at);) {
        long first = strtol(at, &at, 10);
        long last = *at == '-' ? strtol(at + 1, &at, 10) : first;
        for (long number = first; number >= 0 && number <= last && number < 1 << 20 && count < MAX_PROCESSORS; number++) {
            processors[count++].number = (int)number;
        }
        at += *at == ',';
    }
    return count;
}

static processor_state *find(processor_state *processors, size_t count, int64_t number) {
    for (size_t i = 0; i < count; i++) {
        if (processors[i].number == number) {
            return &processors[i];
        }
    }
    return NULL;
}

static int is_key(const char *line, size_t length, const char *key) {
    return strlen(key) == length && strncmp(line, key, length) == 0;
}

static size_t read_cpu_information(const char *root, processor_state *processors, size_t online, char *flags) {
    FILE *stream = system_open(root, "/proc/cpuinfo");
    char *line = NULL;
    size_t room = 0, count = online;
    processor_state *current = NULL;
    int64_t implementer = -1, part = -1;
    while (stream != NULL && getline(&line, &room, stream) > 0) {
        const char *colon = strchr(line, ':');
        if (colon == NULL) {
            continue;
        }
        size_t length = (size_t)(colon - line);
        while (length > 0 && isspace((unsigned char)line[length - 1])) {
            length--;
        }
        const char *value = colon + 1 + strspn(colon + 1, " \t");
        if (is_key(line, length, "processor") && parse_number(value) >= 0) {
            int64_t number = parse_number(value);
            if (online == 0 && count < MAX_PROCESSORS && number < 1 << 20) {
                processors[count++].number = (int)number;
            }
            current = find(processors, count, number);
        } else if (is_key(line, length, "CPU implementer")) {
            implementer = parse_number(value);
        } else if (is_key(line, length, "CPU part")) {
            part = parse_number(value);
            if (current != NULL && current->part < 0) {
                current->implementer = implementer;
                current->part = part;
            }
        } else if (flags[0] == '\0' && is_key(line, length, "Features")) {
            snprintf(flags, MAX_FLAGS_TEXT, "%s", value);
        }
#if defined(__x86_64__) /* elsewhere such lines are those of the machine that emulates this one */
        else if (flags[0] == '\0' && is_key(line, length, "flags")) {
            snprintf(flags, MAX_FLAGS_TEXT, "%s", value);
        } else if (current != NULL && current->khz < 0 && is_key(line, length, "cpu MHz")) {
            current->khz = (int64_t)(strtod(value, NULL) * 1000);
        }
#endif
    }
    free(line);
    if (stream != NULL) {
        fclose(stream);
    }
    /* Kernels before 3.8 describe all processors together, at the end. */
    for (size_t i = 0; i < count; i++) {
        if (processors[i].part < 0) {
            processors[i].implementer = implementer;
            processors[i].part = part;
        }
    }
    flags[strcspn(flags, "\n")] = '\0';
    return count;
}

static void read_sysfs(const char *root, processor_state *processor) {
    char folder[128], path[256];
    snprintf(folder, sizeof folder, "/sys/devices/system/cpu/cpu%d", processor->number);
    snprintf(path, sizeof path, "%s/cpufreq/scaling_cur_freq", folder);
    processor->khz = system_number(root, path);
    snprintf(path, sizeof path, "%s/cpufreq/cpuinfo_min_freq", folder);
    processor->minimum_khz = system_number(root, path);
    snprintf(path, sizeof path, "%s/cpufreq/cpuinfo_max_freq", folder);
    processor->maximum_khz = system_number(root, path);
    snprintf(path, sizeof path, "%s/cpufreq/scaling_governor", folder);
    system_text(root, path, processor->governor, sizeof processor->governor);
    snprintf(path, sizeof path, "%s/regs/identification/midr_el1", folder);
    int64_t identification = system_number(root, path);
    if (identification >= 0) {
        processor->implementer = identification >> 24 & 0xff;
        processor->part = identification >> 4 & 0xfff;
    }
}

size_t processor_states(const char *root, processor_state *processors, char *flags) {
    flags[0] = '\0';
    for (int i = 0; i < MAX_PROCESSORS; i++) {
        processors[i] = (processor_state){i, -1, -1, -1, -1, -1, ""};
    }
    size_t online = online_processors(root, processors);
    /* First the clocks: whatever runs before they are read can change them. */
    for (size_t i = 0; i < online; i++) {
        read_sysfs(root, &processors[i]);
    }
    size_t count = read_cpu_information(root, processors, online, flags);
    if (count == 0 && root[0] == '\0') {
        long here = sysconf(_SC_NPROCESSORS_ONLN);
        count = here < 1 ? 0 : here > MAX_PROCESSORS ? MAX_PROCESSORS : (size_t)here;
    }
    return count;
}

/*
 * Chooses the kernel set that suits this machine's cores. In-order cores run what they are given in the order given, so
 * they need other code than cores that look ahead; which core there is, its MIDR_EL1 register tells.
 */
#include "cpu/plan.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __aarch64__
#include <sys/auxv.h>
enum { CPUID_READABLE = 1 << 11 }; /* HWCAP_CPUID in Linux' arch/arm64/include/uapi/asm/hwcap.h */
#endif

enum { LARGEST_CPU = 1024, PATH_BYTES = 512, LINE_BYTES = 256 };

/* Arm's in-order cores: implementer (bits 31 to 24) and part number (bits 15 to 4) of MIDR_EL1, as in their technical
 * reference manuals and in Linux' arch/arm64/include/asm/cputype.h. */
static const struct {
    unsigned implementer, part;
} IN_ORDER_CORES[] = {
    {0x41, 0xd02}, /* Cortex-A34 */
    {0x41, 0xd03}, /* Cortex-A53: Raspberry Pi 3 and Zero 2 W */
    {0x41, 0xd04}, /* Cortex-A35 */
    {0x41, 0xd05}, /* Cortex-A55 */
    {0x41, 0xd46}, /* Cortex-A510 */
    {0x41, 0xd80}, /* Cortex-A520 */
    {0x41, 0xd88}, /* Cortex-A520AE */
    {0x41, 0xd8f}, /* Cortex-A320 */
};

/* What is known of the machine's cores. */
typedef struct core_count {
    size_t known;
    size_t in_order;
} core_count;

static void add_core(core_count *cores, unsigned implementer, unsigned part) {
    cores->known++;
    for (size_t i = 0; i < sizeof IN_ORDER_CORES / sizeof *IN_ORDER_CORES; i++) {
        cores->in_order += IN_ORDER_CORES[i].implementer == implementer && IN_ORDER_CORES[i].part == part;
    }
}

static void add_midr(core_count *cores, unsigned long long midr) {
    add_core(cores, (unsigned)(midr >> 24 & 0xff), (unsigned)(midr >> 4 & 0xfff));
}

/* Linux 4.8 and newer: a file for every core that is switched on. */
static core_count cores_in_sysfs(const char *root) {
    core_count cores = {0, 0};
    for (int cpu = 0; cpu < LARGEST_CPU; cpu++) {
        char path[PATH_BYTES], text[LINE_BYTES];
        snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d", root, cpu);
        if (access(path, F_OK) != 0) {
            break;
        }
        strncat(path, "/regs/identification/midr_el1", sizeof path - strlen(path) - 1);
        FILE *file = fopen(path, "re");
        if (file == NULL) {
            continue;
        }
        char *end = text;
        unsigned long long midr = fgets(text, sizeof text, file) == NULL ? 0 : strtoull(text, &end, 16);
        if (end != text && midr != 0) {
            add_midr(&cores, midr);
        }
        fclose(file);
    }
    return cores;
}

/* The number after the colon of a line that starts with `key`, or -1. */
static long field(const char *line, const char *key) {
    const char *colon = strchr(line, ':');
    return strncmp(line, key, strlen(key)) == 0 && colon != NULL ? strtol(colon + 1, NULL, 0) : -1;
}

/* Where /sys is not mounted. Each core's implementer stands before its part. */
static core_count cores_in_cpuinfo(const char *root) {
    core_count cores = {0, 0};
    char path[PATH_BYTES], line[LINE_BYTES];
    snprintf(path, sizeof path, "%s/proc/cpuinfo", root);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return cores;
    }
    long implementer = -1;
    while (fgets(line, sizeof line, file) != NULL) {
        long found = field(line, "CPU implementer");
        implementer = found >= 0 ? found : implementer;
        long part = field(line, "CPU part");
        if (implementer >= 0 && part >= 0) {
            add_core(&cores, (unsigned)implementer, (unsigned)part);
        }
    }
    fclose(file);
    return cores;
}

/* Where there are no such files: the core that runs this. Linux 4.11 and newer let programs read the register. */
static core_count core_in_register(void) {
    core_count cores = {0, 0};
#ifdef __aarch64__
    if ((getauxval(AT_HWCAP) & CPUID_READABLE) != 0) {
        unsigned long long midr;
        __asm__("mrs %0, midr_el1" : "=r"(midr));
        add_midr(&cores, midr);
    }
#endif
    return cores;
}

/* Whether all cores are known to be in-order: beside small ones, the big cores decide. */
static int all_in_order(const char *root) {
    core_count cores = cores_in_sysfs(root);
    if (cores.known == 0) {
        cores = cores_in_cpuinfo(root);
    }
    if (cores.known == 0) {
        cores = core_in_register();
    }
    return cores.known > 0 && cores.in_order == cores.known;
}

static const bnn_kernels *choose(const bnn_kernels *sets, size_t count, const char *root) {
    for (size_t i = 1; i < count; i++) {
        if (strcmp(sets[i].name, "in-order") == 0 && all_in_order(root)) {
            return &sets[i];
        }
    }
    return &sets[0];
}

const bnn_kernels *bnn_chosen_kernels(void) {
    /* Threads that come here at the same time find the same answer, so it does not matter whose is kept. */
    static _Atomic(const bnn_kernels *) chosen;
    const bnn_kernels *kernels = atomic_load(&chosen);
    if (kernels == NULL) {
        kernels = choose(bnn_network.kernel_sets, bnn_network.kernel_set_count, "");
        atomic_store(&chosen, kernels);
    }
    return kernels;
}

#include "system/userland.h"

#include "system/system_files.h"

#include <ctype.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#define OWN_FAMILY {EM_X86_64, EM_386}
#define LIBRARY_FOLDERS "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/i386-linux-gnu"
#else
#define OWN_FAMILY {EM_AARCH64, EM_ARM}
#define LIBRARY_FOLDERS "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib/arm-linux-gnueabihf"
#endif

/* 32 or 64; -1 unless the header is that of a program for this processor's family. Under an emulator, files that the
 * emulated system does not have can be those of the machine below. */
static int program_bits(const unsigned char *header) {
    static const int FAMILY[] = OWN_FAMILY;
    int machine = header[18] | header[19] << 8;
    if (memcmp(header, ELFMAG, SELFMAG) != 0 || (machine != FAMILY[0] && machine != FAMILY[1])) {
        return -1;
    }
    return header[EI_CLASS] == ELFCLASS64 ? 64 : 32;
}

int userland_bits(const char *root) {
    unsigned char header[sizeof(Elf32_Ehdr)] = {0};
    FILE *stream = system_open(root, "/bin/sh");
    if (stream == NULL) {
        return -1;
    }
    size_t length = fread(header, 1, sizeof header, stream);
    fclose(stream);
    return length == sizeof header ? program_bits(header) : -1;
}

/* Copies a version: letters, digits and dots. */
static void take_version(const char *at, char *version, size_t size) {
    size_t length = 0;
    while (length < size - 1 && (isalnum((unsigned char)at[length]) || at[length] == '.')) {
        version[length] = at[length];
        length++;
    }
    /* The full stop of a sentence. */
    length -= length > 0 && version[length - 1] == '.';
    version[length] = '\0';
}

/* The library says it itself, as in "GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36." */
static void version_in_library(FILE *stream, char *version, size_t size) {
    static const char NAME[] = "GNU C Library ", TITLE[] = " release version ";
    enum { LARGEST_LIBRARY = 8 << 20, BLOCK = 1 << 14 };
    char block[BLOCK + 256 + 1];
    unsigned char header[sizeof(Elf32_Ehdr)];
    if (fread(header, 1, sizeof header, stream) != sizeof header || program_bits(header) < 0) {
        return;
    }
    /* The last bytes of a block come again before the next, for a text that lies across. */
    size_t kept = 0, count;
    for (size_t total = 0; total < LARGEST_LIBRARY && (count = fread(block + kept, 1, BLOCK, stream)) > 0; total += count) {
        size_t length = kept + count;
        block[length] = '\0';
        const char *name = memmem(block, length, NAME, strlen(NAME));
        const char *title = name == NULL ? NULL : strstr(name, TITLE);
        if (title != NULL) {
            take_version(title + strlen(TITLE), version, size);
            return;
        }
        kept = length < 256 ? length : 256;
        memmove(block, block + length - kept, kept);
    }
}

void userland_glibc(const char *root, char *version, size_t size) {
    static const char *const FOLDERS[] = {LIBRARY_FOLDERS, "/lib64", "/usr/lib64", "/lib", "/usr/lib"};
    version[0] = '\0';
    for (size_t i = 0; i < sizeof FOLDERS / sizeof *FOLDERS && version[0] == '\0'; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/libc.so.6", FOLDERS[i]);
        FILE *stream = system_open(root, path);
        if (stream != NULL) {
            version_in_library(stream, version, size);
            fclose(stream);
        }
    }
}

/* "# R36 (release), REVISION: 4.3, GCID: …" */
void userland_jetson_linux(const char *root, char *version, size_t size) {
    static const char TITLE[] = "REVISION: ";
    char text[256], release[16], revision[16];
    version[0] = '\0';
    if (!system_text(root, "/etc/nv_tegra_release", text, sizeof text) || strncmp(text, "# R", 3) != 0) {
        return;
    }
    const char *at = strstr(text, TITLE);
    take_version(text + 2, release, sizeof release);
    if (at != NULL) {
        take_version(at + strlen(TITLE), revision, sizeof revision);
        snprintf(version, size, "%s.%s", release, revision);
    }
}

/* version.json has {"cuda": {"name": "CUDA SDK", "version": "12.6.68"}, …}; before CUDA 11, version.txt "CUDA Version 10.2.300". */
void userland_cuda(const char *root, char *version, size_t size) {
    static const char TITLE[] = "CUDA Version ", KEY[] = "\"version\"";
    char text[1 << 14];
    version[0] = '\0';
    if (system_text(root, "/usr/local/cuda/version.json", text, sizeof text)) {
        const char *at = strstr(text, "\"cuda\"");
        at = at == NULL ? NULL : strstr(at, KEY);
        if (at != NULL) {
            at += strlen(KEY);
            take_version(at + strspn(at, " \t\r\n:\""), version, size);
        }
    } else if (system_text(root, "/usr/local/cuda/version.txt", text, sizeof text) &&
               strncmp(text, TITLE, strlen(TITLE)) == 0) {
        take_version(text + strlen(TITLE), version, size);
    }
}

/* "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (…)": a word of digits and dots. */
void userland_nvidia_driver(const char *root, char *version, size_t size) {
    static const char TITLE[] = "Kernel Module";
    char text[1024];
    version[0] = '\0';
    const char *at = system_text(root, "/proc/driver/nvidia/version", text, sizeof text) ? strstr(text, TITLE) : NULL;
    while (at != NULL && version[0] == '\0') {
        size_t length = strspn(at, "0123456789.");
        if (length > 0 && memchr(at, '.', length) != NULL && strchr(" \n", at[length]) != NULL) {
            take_version(at, version, size);
        }
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + strspn(at, " ");
    }
}

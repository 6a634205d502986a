/* What software a system has beside its kernel. All texts become "" where the system does not say. */
#ifndef BNN_SYSTEM_USERLAND_H
#define BNN_SYSTEM_USERLAND_H

#include <stddef.h>

/* 32 or 64, the kind of /bin/sh; -1 when there is none of this processor's family. */
int userland_bits(const char *root);

/* The version of the GNU C library, such as "2.36". */
void userland_glibc(const char *root, char *version, size_t size);

/* NVIDIA's release of Jetson Linux, such as "R36.4.3". */
void userland_jetson_linux(const char *root, char *version, size_t size);

/* The version of the CUDA toolkit in /usr/local/cuda, such as "12.6.68". */
void userland_cuda(const char *root, char *version, size_t size);

/* The version of NVIDIA's driver, such as "550.54.15". */
void userland_nvidia_driver(const char *root, char *version, size_t size);

#endif

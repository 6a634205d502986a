#include "profile/memory_speed.h"

#include "bnn_model.h"
#include "system/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ATTEMPTS = 5 };

static const int64_t LARGEST = 64 << 20, SMALLEST = 8 << 20, UNKNOWN = 16 << 20;

typedef struct part {
    char *target;
    const char *source;
    size_t bytes;
    pthread_t thread;
    int started;
} part;

static void *copy(void *argument) {
    part *mine = argument;
    memcpy(mine->target, mine->source, mine->bytes);
    return NULL;
}

static void copy_all(part *parts, int count) {
    for (int i = 1; i < count; i++) {
        parts[i].started = pthread_create(&parts[i].thread, NULL, copy, &parts[i]) == 0;
    }
    copy(&parts[0]);
    for (int i = 1; i < count; i++) {
        if (parts[i].started) {
            pthread_join(parts[i].thread, NULL);
        } else {
            copy(&parts[i]);
        }
    }
}

double memory_copy_speed(int threads, int64_t available_bytes) {
    part parts[BNN_MAX_THREADS];
    int64_t total = available_bytes < 0 ? UNKNOWN : available_bytes / 8 < LARGEST ? available_bytes / 8 : LARGEST;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int count = processors >= 1 && processors < threads ? (int)processors : threads;
    size_t half = (size_t)total / 2;
    char *memory = total < SMALLEST ? NULL : malloc(2 * half);
    if (memory == NULL) {
        return -1;
    }
    memset(memory, 1, 2 * half); /* so that every page is there */
    for (int i = 0; i < count; i++) {
        size_t first = half / (size_t)count * (size_t)i;
        size_t last = i + 1 == count ? half : half / (size_t)count * (size_t)(i + 1);
        parts[i] = (part){.target = memory + half + first, .source = memory + first, .bytes = last - first};
    }
    int64_t best = -1;
    for (int i = 0; i < ATTEMPTS; i++) {
        int64_t start = clock_nanoseconds();
        copy_all(parts, count);
        int64_t elapsed = clock_nanoseconds() - start;
        best = elapsed > 0 && (best < 0 || elapsed < best) ? elapsed : best;
    }
    /* Without a use the copies could be left out. */
    __asm__ volatile("" : : "r"(memory) : "memory");
    free(memory);
    return best > 0 ? 2e9 * (double)half / (double)best : -1;
}

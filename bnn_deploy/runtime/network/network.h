/*
 * What a network has of its own on a processor (cpu/) or on a GPU (cuda/). A library holds one of the two; calls.c makes the functions
 * of bnn_model.h of it. Besides these, each has bnn_inputs, bnn_outputs, bnn_steps, bnn_kernel_set and what is about a GPU.
 */
#ifndef BNN_NETWORK_NETWORK_H
#define BNN_NETWORK_NETWORK_H

#include "network/taps.h"

#include <stdatomic.h>

/* The first member of every bnn_model. */
typedef struct model_use {
    atomic_flag busy;
    atomic_ptrdiff_t failed_step;
} model_use;

static inline void model_use_initialise(model_use *use) {
    atomic_flag_clear(&use->busy);
    atomic_init(&use->failed_step, -1);
}

/* Whether nobody else uses the model; model_release ends the use. */
static inline int model_take(model_use *use) { return !atomic_flag_test_and_set(&use->busy); }
static inline void model_release(model_use *use) { atomic_flag_clear(&use->busy); }

/* The functions of bnn_model.h of the same names, for arguments that were checked. */
size_t network_memory_bytes(int threads) __attribute__((visibility("hidden")));
bnn_status network_create(int threads, bnn_model **model) __attribute__((visibility("hidden")));
bnn_status network_set_threads(bnn_model *model, int threads) __attribute__((visibility("hidden")));
void network_destroy(bnn_model *model) __attribute__((visibility("hidden")));

/* One run of a model that was taken. With step_seconds it is timed, with taps it is tapped; both are null in an ordinary run, and
 * never both given. */
bnn_status network_run(bnn_model *model, const void *const *inputs, void *const *outputs, double *step_seconds,
                       const tap_list *taps) __attribute__((visibility("hidden")));

#endif

/* Kernels of a small network for the fake driver: y = (x * scale) @ weight.T + bias, x float32 (2, 48), y (2, 40). */
#include <stdint.h>
#include <unistd.h>

enum { BATCH = 2, INPUTS = 48, HIDDEN = 40 };

#define KERNEL(name, parameters) __attribute__((visibility("default"))) const int32_t name##_parameters = parameters;

/* Fails when the first value is 666, and takes half a second when it is 777. */
KERNEL(gpu_scale, 3)
__attribute__((visibility("default"))) int32_t gpu_scale(const float *x, const float *scale, float *y) {
    for (int i = 0; i < BATCH * INPUTS; i++) {
        y[i] = x[i] * scale[i % INPUTS];
    }
    if (x[0] == 777.0f) {
        usleep(500000);
    }
    return x[0] == 666.0f;
}

/* Two launches of one step, so both have the parameters of both. */
KERNEL(gpu_sums, 5)
__attribute__((visibility("default"))) int32_t gpu_sums(const float *x, const float *weight, const float *bias, float *y,
                                                        float *scratch) {
    (void)bias, (void)y;
    for (int i = 0; i < BATCH * HIDDEN; i++) {
        scratch[i] = 0;
        for (int k = 0; k < INPUTS; k++) {
            scratch[i] += x[i / HIDDEN * INPUTS + k] * weight[i % HIDDEN * INPUTS + k];
        }
    }
    return 0;
}

KERNEL(gpu_bias, 5)
__attribute__((visibility("default"))) int32_t gpu_bias(const float *x, const float *weight, const float *bias, float *y,
                                                        float *scratch) {
    (void)x, (void)weight;
    for (int i = 0; i < BATCH * HIDDEN; i++) {
        y[i] = scratch[i] + bias[i % HIDDEN];
    }
    return 0;
}

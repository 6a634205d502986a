/* Kernels of the toy network, with the calling convention of the ones that TVM compiles. */
#include <stdint.h>

enum { BATCH = 2, INPUTS = 48, HIDDEN = 40 };

typedef struct {
    void *sync_handle;
    int32_t num_task;
} environment;

/* As in TVM's objects: a weak null variable that the runtime has to define. */
__attribute__((weak)) int (*__TVMBackendParallelLaunch)(int (*)(int, environment *, void *), void *, int);
__attribute__((weak)) void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int);
__attribute__((weak)) int (*__TVMBackendFreeWorkspace)(int, int, void *);

/* 0 unless the first value is 666; takes long when it is 777. */
int32_t toy_check(void *input) {
    float first = *(const float *)input;
    if (first == 777.0f) {
        for (volatile uint64_t i = 0; i < 100000000; i++) {
        }
    }
    return first == 666.0f ? -1 : 0;
}

int32_t toy_scale(void *input, void *scale, void *output) {
    const float *x = input, *s = scale;
    float *y = output;
    if ((uintptr_t)x % 64 != 0 || (uintptr_t)s % 64 != 0 || (uintptr_t)y % 64 != 0) {
        return -1; /* TVM's kernels would fault */
    }
    for (int i = 0; i < BATCH * INPUTS; i++) {
        y[i] = x[i] * s[i % INPUTS];
    }
    return 0;
}

typedef struct {
    const float *x, *w;
    float *y;
} product;

static int nested_task(int task, environment *shared, void *closure) {
    (void)shared;
    ((int32_t *)closure)[task] = task;
    return 0;
}

static int matmul_task(int task, environment *shared, void *closure) {
    const product *p = closure;
    int32_t order[3] = {-1, -1, -1};
    /* A launch inside a launch: must run all of its tasks, and not wait for the pool that it runs on. */
    if (__TVMBackendParallelLaunch(nested_task, order, 3) != 0 || order[0] != 0 || order[1] != 1 || order[2] != 2) {
        return -1;
    }
    int share = (HIDDEN + shared->num_task - 1) / shared->num_task;
    int end = (task + 1) * share < HIDDEN ? (task + 1) * share : HIDDEN;
    for (int o = task * share; o < end; o++) {
        for (int b = 0; b < BATCH; b++) {
            float sum = 0;
            for (int k = 0; k < INPUTS; k++) {
                sum += p->x[b * INPUTS + k] * p->w[o * INPUTS + k];
            }
            p->y[b * HIDDEN + o] = sum;
        }
    }
    return 0;
}

int32_t toy_matmul(void *input, void *weight, void *output) {
    product p = {input, weight, output};
    return __TVMBackendParallelLaunch(matmul_task, &p, 0);
}

typedef struct {
    const float *workspace;
    float *output;
} copy;

/* Each of five tasks copies its part of the sums; the third one fails when the first sum is 1000000. */
static int copy_task(int task, environment *shared, void *closure) {
    const copy *c = closure;
    for (int i = task; i < BATCH * HIDDEN; i += shared->num_task) {
        c->output[i] = c->workspace[i];
    }
    return task == 2 && c->workspace[0] == 1000000.0f ? -1 : 0;
}

/* y = x + bias through a workspace */

int32_t toy_add(void *input, void *bias, void *output) {
    const float *x = input, *b = bias;
    float *workspace = __TVMBackendAllocWorkspace(1, 0, BATCH * HIDDEN * sizeof(float), 2, 32);
    if (workspace == 0 || (uintptr_t)workspace % 64 != 0) {
        return -1;
    }
    for (int i = 0; i < BATCH * HIDDEN; i++) {
        workspace[i] = x[i] + b[i % HIDDEN];
    }
    copy c = {workspace, output};
    int result = __TVMBackendParallelLaunch(copy_task, &c, 5);
    return __TVMBackendFreeWorkspace(1, 0, workspace) != 0 ? -1 : result;
}

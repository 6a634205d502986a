/*
 * The threads of one bnn_model, and the functions that TVM's generated code calls.
 *
 * Compiled code reaches the pool through a thread-local pointer that bnn_pool_enter sets, so pools of different models
 * never meet. Only futexes and pthread_create with a padded attribute are used: no type whose size differs between glibc
 * and musl is laid out here, and the same object file serves model.so (glibc) and the static runner (musl).
 */
#ifndef BNN_CPU_THREAD_POOL_H
#define BNN_CPU_THREAD_POOL_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

/* What a task is told; TVM's code knows the first two fields. */
typedef struct bnn_parallel_environment {
    void *sync_handle;
    int32_t num_task;
    int32_t thread; /* 0..threads - 1: tasks that run at the same time have different ones */
} bnn_parallel_environment;

typedef int (*bnn_parallel_lambda)(int task, bnn_parallel_environment *environment, void *closure);

/*
 * Neighbouring tasks that one thread takes first and others help with: what it wrote in one stage it then often reads in the
 * next. Launch number in the upper half, tasks that nobody has claimed in the lower one: a claim made too late for one launch
 * can never take a task of the next.
 */
typedef struct bnn_share {
    _Alignas(64) _Atomic uint64_t unclaimed;
} bnn_share;

typedef struct bnn_pool {
    int threads; /* in all, the caller included */
    int started; /* workers running */
    pid_t owner; /* process that started them: a forked child has none */
    struct bnn_worker *workers;
    int may_spin; /* there is a processor for every thread */

    /* The launch under way. Whoever has claimed one of its tasks may read these: the launch waits for that task. */
    bnn_parallel_lambda lambda;
    void *closure;
    int32_t task_count;
    int quit;

    _Alignas(64) atomic_uint generation; /* counts launches; workers wait for it to change */
    atomic_uint sleepers;
    struct bnn_share *shares; /* one per thread */
    uint64_t launches;
    _Alignas(64) atomic_uint unfinished; /* tasks of this launch */
    atomic_int caller_sleeps;
    atomic_int failed;
} bnn_pool;

void bnn_pool_initialise(bnn_pool *pool, int threads);

/* Starts missing workers. 0 on success; on failure no worker runs. */
int bnn_pool_start(bnn_pool *pool);

/* Joins all workers. */
void bnn_pool_stop(bnn_pool *pool);

/* Makes `pool` the one that parallel kernels called by this thread use; returns the one of before. */
bnn_pool *bnn_pool_enter(bnn_pool *pool);

/*
 * Calls lambda(task, …) for every task 0..tasks - 1 on the threads of the current pool, or one after the other where there
 * is none. Each thread takes the tasks of its share, then those that others have left, so a worker that is still waking up
 * is not waited for. Within a task there is no current pool. 0 when all returned 0.
 */
int bnn_pool_launch(bnn_parallel_lambda lambda, void *closure, int tasks);

#endif

#include "cpu/thread_pool.h"

#include "system/clock.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A sleep and a wake cost a worker up to 60 microseconds (measured on a virtual machine), more than most stages take, so it
 * looks out for longer than a stage's threads may drift apart. Where other programs keep the processors busy that is lost. */
enum { WORKER_STACK_BYTES = 1 << 20, SPIN_NANOSECONDS = 100000 };

typedef struct bnn_worker {
    bnn_pool *pool;
    int index; /* 1..threads - 1; the caller is 0 */
    pthread_t thread;
} bnn_worker;

static _Thread_local bnn_pool *current_pool;

static void futex_wait(atomic_uint *word, unsigned expected) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake_all(atomic_uint *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0); }

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Looks for a little while whether the word changes. */
static void spin_while(const bnn_pool *pool, atomic_uint *word, unsigned value) {
    if (!pool->may_spin) {
        return;
    }
    int64_t end = clock_nanoseconds() + SPIN_NANOSECONDS;
    while (atomic_load(word) == value && clock_nanoseconds() < end) {
        pause_briefly();
    }
}

static int available_processors(void) {
    unsigned char mask[1024] = {0};
    long bytes = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
    int count = 0;
    for (long i = 0; i < bytes; i++) {
        count += __builtin_popcount(mask[i]);
    }
    return count;
}

static int32_t first_task(const bnn_pool *pool, int share) {
    return (int32_t)((int64_t)pool->task_count * share / pool->threads);
}

/* Takes and runs tasks of one share of the launch under way until none is left to claim. */
static void run_share(bnn_pool *pool, int thread, int share) {
    _Atomic uint64_t *unclaimed = &pool->shares[share].unclaimed;
    uint64_t claimed = atomic_load(unclaimed);
    while ((uint32_t)claimed != 0) {
        if (!atomic_compare_exchange_weak(unclaimed, &claimed, claimed - 1)) {
            continue;
        }
        bnn_parallel_environment environment = {NULL, pool->task_count, thread};
        int32_t task = first_task(pool, share + 1) - (int32_t)(uint32_t)claimed;
        if (pool->lambda(task, &environment, pool->closure) != 0) {
            atomic_store(&pool->failed, 1);
        }
        /* The caller announces its sleep before it looks at the count a last time, so either it sees this or we see it. */
        if (atomic_fetch_sub(&pool->unfinished, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
            futex_wake_all(&pool->unfinished);
        }
        claimed = atomic_load(unclaimed);
    }
}

static void run_tasks(bnn_pool *pool, int thread) {
    for (int i = 0; i < pool->threads; i++) {
        run_share(pool, thread, (thread + i) % pool->threads);
    }
}

static void *work(void *argument) {
    bnn_worker *worker = argument;
    bnn_pool *pool = worker->pool;
    unsigned seen = 0;
    for (;;) {
        spin_while(pool, &pool->generation, seen);
        while (atomic_load(&pool->generation) == seen) {
            /* Announced before the kernel compares the word, so a launch sees either no sleeper and we see the launch,
             * or a sleeper and wakes it. */
            atomic_fetch_add(&pool->sleepers, 1);
            futex_wait(&pool->generation, seen);
            atomic_fetch_sub(&pool->sleepers, 1);
        }
        seen = atomic_load(&pool->generation); /* launches that this worker slept through are over */
        if (pool->quit) {
            return NULL;
        }
        run_tasks(pool, worker->index);
    }
}

static void announce(bnn_pool *pool) {
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers) != 0) {
        futex_wake_all(&pool->generation);
    }
}

void bnn_pool_initialise(bnn_pool *pool, int threads) {
    pool->threads = threads;
    pool->started = 0;
    pool->owner = 0;
    pool->workers = NULL;
    pool->shares = NULL;
}

/* 0 when all of them run. */
static int start_workers(bnn_pool *pool, int wanted) {
    /* glibc and musl disagree on the size of pthread_attr_t, so there is room for both. */
    union {
        pthread_attr_t attribute;
        unsigned char room[256];
    } attributes;
    sigset_t every, before;
    if (pthread_attr_init(&attributes.attribute) != 0) {
        return -1;
    }
    pthread_attr_setstacksize(&attributes.attribute, WORKER_STACK_BYTES);
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before); /* the application's signals are not for the workers */
    while (pool->started < wanted) {
        bnn_worker *worker = &pool->workers[pool->started];
        worker->pool = pool;
        worker->index = pool->started + 1;
        if (pthread_create(&worker->thread, &attributes.attribute, work, worker) != 0) {
            break;
        }
        pool->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes.attribute);
    return pool->started == wanted ? 0 : -1;
}

int bnn_pool_start(bnn_pool *pool) {
    int wanted = pool->threads - 1;
    if (wanted == 0 || (pool->started == wanted && pool->owner == getpid())) {
        return 0;
    }
    /* Workers of the process that this one was forked from do not exist here: they are forgotten, not joined. */
    free(pool->workers);
    pool->started = 0;
    pool->owner = getpid();
    free(pool->shares);
    pool->workers = malloc((size_t)wanted * sizeof *pool->workers);
    pool->shares = aligned_alloc(64, (size_t)pool->threads * sizeof *pool->shares);
    if (pool->workers == NULL || pool->shares == NULL) {
        return -1;
    }
    pool->quit = 0;
    pool->may_spin = pool->threads <= available_processors();
    atomic_store(&pool->generation, 0);
    atomic_store(&pool->sleepers, 0);
    for (int i = 0; i < pool->threads; i++) {
        atomic_store(&pool->shares[i].unclaimed, 0);
    }
    pool->launches = 0;
    atomic_store(&pool->unfinished, 0);
    atomic_store(&pool->caller_sleeps, 0);

    if (start_workers(pool, wanted) != 0) {
        bnn_pool_stop(pool);
        return -1;
    }
    return 0;
}

void bnn_pool_stop(bnn_pool *pool) {
    if (pool->started != 0 && pool->owner == getpid()) {
        pool->quit = 1;
        announce(pool);
        for (int i = 0; i < pool->started; i++) {
            pthread_join(pool->workers[i].thread, NULL);
        }
    }
    free(pool->workers);
    free(pool->shares);
    pool->workers = NULL;
    pool->shares = NULL;
    pool->started = 0;
}

bnn_pool *bnn_pool_enter(bnn_pool *pool) {
    bnn_pool *before = current_pool;
    current_pool = pool;
    return before;
}

static int run_inline(bnn_parallel_lambda lambda, void *closure, int task_count) {
    bnn_parallel_environment environment = {NULL, task_count, 0};
    int result = 0;
    for (int task = 0; task < task_count; task++) {
        if (lambda(task, &environment, closure) != 0) {
            result = -1;
        }
    }
    return result;
}

/* num_task 0 leaves the number to the runtime: one task per thread. Workers and nested launches have no current pool. */
int bnn_pool_launch(bnn_parallel_lambda lambda, void *closure, int num_task) {
    bnn_pool *pool = current_pool;
    if (pool == NULL || pool->started == 0 || num_task == 1) {
        return run_inline(lambda, closure, num_task > 0 ? num_task : 1);
    }
    pool->lambda = lambda;
    pool->closure = closure;
    pool->task_count = num_task > 0 ? num_task : pool->threads;
    atomic_store(&pool->failed, 0);
    atomic_store(&pool->unfinished, (unsigned)pool->task_count);
    pool->launches++;
    for (int i = 0; i < pool->threads; i++) {
        uint32_t tasks = (uint32_t)(first_task(pool, i + 1) - first_task(pool, i));
        atomic_store(&pool->shares[i].unclaimed, pool->launches << 32 | tasks);
    }
    announce(pool);

    current_pool = NULL;
    run_tasks(pool, 0);
    current_pool = pool;

    for (unsigned left; (left = atomic_load(&pool->unfinished)) != 0;) {
        spin_while(pool, &pool->unfinished, left);
        atomic_store(&pool->caller_sleeps, 1);
        if (atomic_load(&pool->unfinished) == left) {
            futex_wait(&pool->unfinished, left);
        }
        atomic_store(&pool->caller_sleeps, 0);
    }
    return atomic_load(&pool->failed) ? -1 : 0;
}

static void *allocate_workspace(int device, int device_id, uint64_t bytes, int dtype_code, int dtype_bits) {
    (void)device, (void)device_id, (void)dtype_code, (void)dtype_bits;
    return bytes > SIZE_MAX - 63 ? NULL : aligned_alloc(64, ((size_t)bytes + 63) / 64 * 64);
}

static int free_workspace(int device, int device_id, void *pointer) {
    (void)device, (void)device_id;
    free(pointer);
    return 0;
}

/*
 * TVM's code calls these through variables, which it defines itself as weak null pointers; these definitions win. They are in this
 * file, and not in one of their own, since nothing else would make a linker take that one out of libmodel.a.
 * Workspaces are a last resort, for buffers inside a kernel that the plan did not place in the arena.
 */
__attribute__((visibility("hidden"))) int (*__TVMBackendParallelLaunch)(bnn_parallel_lambda, void *,
                                                                        int) = bnn_pool_launch;
__attribute__((visibility("hidden"))) void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int,
                                                                          int) = allocate_workspace;
__attribute__((visibility("hidden"))) int (*__TVMBackendFreeWorkspace)(int, int, void *) = free_workspace;

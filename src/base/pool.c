/* SPDX-License-Identifier: MIT
 *
 * pool.c: see pool.h. One word, `left`, is the whole protocol of a job: the number of tasks not
 * yet taken. The caller writes the job, then sets left to n; a thread takes a task by lowering
 * left by one with compare-and-swap, and only then reads the job. A thread that comes late finds
 * 0 and nothing to take, or a later job, which it joins; it can never run a task of a job that
 * has ended, because a job ends when `pending`, the tasks not yet finished, is 0.
 *
 *   caller:  job = ...; pending = n; left = n; wake sleepers; take tasks; wait for pending 0
 *   worker:  wait for left > 0; take a task; run it; lower pending; wake the caller at 0
 *
 * A training step is hundreds of jobs, so both sides spin for a moment before they sleep. The
 * sleeping flags and the words they watch are sequentially consistent: of "I sleep, is there
 * work?" and "there is work, does somebody sleep?" at least one sees the other.
 */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "base/machine.h"
#include "base/mem.h"

#define MAX_THREADS  1024
#define SPIN_S       50e-6 /* a little more than waking a thread costs */
#define SPINS_A_LOOK 64    /* pauses between two looks at the clock */
#define YIELDS       8     /* turns given to others when there are more threads than cores */
#define ON_OWN_LINE  __attribute__((aligned(64))) /* what kiln_alloc aligns to */

struct worker {
    struct kiln_pool *pool;
    pthread_t handle;
    size_t thread;
};

struct kiln_pool {
    size_t threads;
    size_t started; /* workers whose handle is to be joined */
    bool crowded;   /* more threads than processors: spinning would only keep others from work */
    struct worker *workers;

    kiln_task_fn fn; /* the job: written while left and pending are 0 */
    void *context;
    size_t n;

    pthread_mutex_t lock; /* guards only going to sleep and waking */
    pthread_cond_t work;
    pthread_cond_t done;

    ON_OWN_LINE atomic_size_t left;
    ON_OWN_LINE atomic_size_t pending;
    ON_OWN_LINE atomic_size_t sleepers;
    atomic_bool caller_sleeps;
    atomic_bool stop;
};

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool has_work(struct kiln_pool *pool) { return atomic_load(&pool->left) > 0; }
static bool has_work_or_stop(struct kiln_pool *pool) {
    return has_work(pool) || atomic_load(&pool->stop);
}
static bool is_done(struct kiln_pool *pool) { return atomic_load(&pool->pending) == 0; }

/* Wait a moment for `ready`; false when it did not come. */
static bool spin_until(struct kiln_pool *pool, bool (*ready)(struct kiln_pool *)) {
    if (pool->crowded) {
        for (int i = 0; i < YIELDS; i++) {
            if (ready(pool)) {
                return true;
            }
            sched_yield();
        }
        return ready(pool);
    }
    double end = kiln_now_s() + SPIN_S;
    do {
        for (int i = 0; i < SPINS_A_LOOK; i++) {
            if (ready(pool)) {
                return true;
            }
            pause_briefly();
        }
    } while (kiln_now_s() < end);
    return false;
}

/* Take the next task of whatever job is running; false when all are taken. Acquire: the job
 * written before left was set is visible once a task is ours. */
static bool take(struct kiln_pool *pool, size_t *task) {
    size_t left = atomic_load_explicit(&pool->left, memory_order_relaxed);
    while (left > 0) {
        if (atomic_compare_exchange_weak_explicit(&pool->left, &left, left - 1,
                                                  memory_order_acq_rel, memory_order_relaxed)) {
            *task = pool->n - left;
            return true;
        }
    }
    return false;
}

/* Run tasks until none is left; true when this thread finished the last one of the job. */
static bool work_off(struct kiln_pool *pool, size_t thread) {
    bool last = false;
    size_t task;
    while (take(pool, &task)) {
        pool->fn(pool->context, task, thread);
        last = atomic_fetch_sub(&pool->pending, 1) == 1;
    }
    return last;
}

static void sleep_until_work(struct kiln_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!has_work_or_stop(pool)) {
        pthread_cond_wait(&pool->work, &pool->lock);
    }
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *argument) {
    struct worker *self = argument;
    struct kiln_pool *pool = self->pool;
    while (!atomic_load(&pool->stop)) {
        if (!spin_until(pool, has_work_or_stop)) {
            sleep_until_work(pool);
        }
        if (work_off(pool, self->thread) && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->lock);
        }
    }
    return NULL;
}

static void wake(struct kiln_pool *pool, size_t sleeping, size_t wanted) {
    pthread_mutex_lock(&pool->lock);
    if (wanted >= sleeping) {
        pthread_cond_broadcast(&pool->work);
    } else {
        for (size_t i = 0; i < wanted; i++) {
            pthread_cond_signal(&pool->work);
        }
    }
    pthread_mutex_unlock(&pool->lock);
}

/* Wake as many sleepers as there are tasks for, beyond the caller and the workers awake. */
static void wake_for(struct kiln_pool *pool, size_t n) {
    size_t sleeping = atomic_load(&pool->sleepers);
    size_t awake = pool->threads - 1 - sleeping;
    if (sleeping > 0 && n - 1 > awake) {
        wake(pool, sleeping, n - 1 - awake);
    }
}

static void wait_until_done(struct kiln_pool *pool) {
    if (spin_until(pool, is_done)) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while (!is_done(pool)) {
        pthread_cond_wait(&pool->done, &pool->lock);
    }
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

void kiln_pool_run(struct kiln_pool *pool, size_t n, kiln_task_fn fn, void *context) {
    if (pool->threads == 1 || n <= 1) {
        for (size_t task = 0; task < n; task++) {
            fn(context, task, 0);
        }
        return;
    }
    pool->fn = fn;
    pool->context = context;
    pool->n = n;
    atomic_store_explicit(&pool->pending, n, memory_order_relaxed);
    atomic_store(&pool->left, n);
    wake_for(pool, n);
    work_off(pool, 0);
    wait_until_done(pool);
}

static void stop_workers(struct kiln_pool *pool) {
    atomic_store(&pool->stop, true);
    wake(pool, 0, 0);
    for (size_t i = 0; i < pool->started; i++) {
        pthread_join(pool->workers[i].handle, NULL);
    }
}

static enum kiln_status start_workers(struct kiln_pool *pool, struct kiln_err *err) {
    for (size_t i = 0; i + 1 < pool->threads; i++) {
        struct worker *worker = &pool->workers[i];
        *worker = (struct worker){.pool = pool, .thread = i + 1};
        int failed = pthread_create(&worker->handle, NULL, worker_main, worker);
        if (failed != 0) {
            return KILN_FAIL(err, KILN_ENOMEM, "start thread %zu of %zu: %s; ask for fewer threads",
                             i + 2, pool->threads, strerror(failed));
        }
        pool->started++;
    }
    return KILN_OK;
}

enum kiln_status kiln_pool_create(size_t threads, struct kiln_pool **out, struct kiln_err *err) {
    *out = NULL;
    KILN_REQUIRE(threads >= 1 && threads <= MAX_THREADS, err, KILN_EUSAGE,
                 "threads %zu: use 1 to %d", threads, MAX_THREADS);
    struct kiln_pool *pool = kiln_alloc(1, sizeof *pool);
    struct worker *workers = kiln_alloc(threads, sizeof *workers);
    if (pool == NULL || workers == NULL) {
        kiln_free(pool);
        kiln_free(workers);
        return KILN_FAIL(err, KILN_ENOMEM, "no memory for a pool of %zu threads", threads);
    }
    pool->threads = threads;
    pool->crowded = threads > kiln_cpu_count();
    pool->workers = workers;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    enum kiln_status status = start_workers(pool, err);
    if (status != KILN_OK) {
        kiln_pool_destroy(pool);
        return status;
    }
    *out = pool;
    return KILN_OK;
}

void kiln_pool_destroy(struct kiln_pool *pool) {
    if (pool == NULL) {
        return;
    }
    stop_workers(pool);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    kiln_free(pool->workers);
    kiln_free(pool);
}

size_t kiln_pool_threads(const struct kiln_pool *pool) { return pool->threads; }

/* SPDX-License-Identifier: MIT
 *
 * pool.c: see pool.h. One word, `left`, is the whole protocol of a job that is run: the number of
 * tasks not yet taken. The caller writes the job, then sets left to n; a thread takes a task by
 * lowering left by one with compare-and-swap, and only then reads the job. A thread that comes late
 * finds 0 and nothing to take, or a later job, which it joins; it can never run a task of a job
 * that has ended, because a job ends when `pending`, the tasks not yet finished, is 0.
 *
 *   caller:  job = ...; pending = n; left = n; wake sleepers; take tasks; wait for pending 0
 *   worker:  wait for left > 0; take a task; run it; lower pending; wake the caller at 0
 *
 * Background tasks are few and long, so their protocol is the lock: the queue, its first job's
 * tasks not yet taken (`ready`) and not yet finished (`running` counts those under way) change
 * under it only. Who finishes the last task of the first job takes the job off and makes the next
 * one ready. `ready` is atomic so that a thread may look for work without the lock, and finds out
 * with it. A worker looks for a task of a run job after every background task.
 *
 *   owner:   lock; append; ready = n if it is the first; wake sleepers; unlock
 *   worker:  lock; lower ready, raise running; unlock; run; lock; lower running; at 0 and 0: next
 *            job, wake sleepers and the owner; unlock
 *   owner, waiting: as a worker, and sleeps while nothing is ready
 *
 * A guest is a number: whoever of the workers comes by first while fewer rest than there are guests
 * rests on a condition of its own, until a guest leaves. What is left to do is not its concern any
 * more, so it wakes a sleeper in its place: a sleeper that was not woken because this one was
 * awake.
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
    pthread_t owner;

    kiln_task_fn fn; /* the job: written while left and pending are 0 */
    void *context;
    size_t n;

    struct kiln_pool_job *first, *last; /* background jobs that have not ended; under the lock */
    size_t running;                     /* tasks of the first that are under way; under the lock */
    struct kiln_pool_job *awaited;      /* the owner's: what it waits for */

    pthread_mutex_t lock; /* guards going to sleep and waking, and background jobs */
    pthread_cond_t work;
    pthread_cond_t done;
    pthread_cond_t guest_left;

    ON_OWN_LINE atomic_size_t left;
    ON_OWN_LINE atomic_size_t pending;
    ON_OWN_LINE atomic_size_t ready; /* of the first background job: tasks not taken */
    ON_OWN_LINE atomic_size_t sleepers;
    ON_OWN_LINE atomic_size_t guests; /* changes under the lock, as does: */
    atomic_size_t resting;            /* workers that rest for them */
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

static bool has_work(struct kiln_pool *pool) {
    return atomic_load(&pool->left) > 0 || atomic_load(&pool->ready) > 0;
}
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

static bool must_rest(struct kiln_pool *pool) {
    return atomic_load(&pool->resting) < atomic_load(&pool->guests);
}

/* Run tasks until none is left, or a worker's place is a guest's; true when this thread finished
 * the last one of the job. */
static bool work_off(struct kiln_pool *pool, size_t thread) {
    bool last = false;
    size_t task;
    while ((thread == 0 || !must_rest(pool)) && take(pool, &task)) {
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

static void wake_locked(struct kiln_pool *pool, size_t sleeping, size_t wanted) {
    if (wanted >= sleeping) {
        pthread_cond_broadcast(&pool->work);
    } else {
        for (size_t i = 0; i < wanted; i++) {
            pthread_cond_signal(&pool->work);
        }
    }
}

static void wake(struct kiln_pool *pool, size_t sleeping, size_t wanted) {
    pthread_mutex_lock(&pool->lock);
    wake_locked(pool, sleeping, wanted);
    pthread_mutex_unlock(&pool->lock);
}

/* ---- guests -------------------------------------------------------------------------------- */

bool kiln_pool_is_owner(const struct kiln_pool *pool) {
    return pthread_equal(pool->owner, pthread_self()) != 0;
}

void kiln_pool_guest_enter(struct kiln_pool *pool) {
    if (!kiln_pool_is_owner(pool)) {
        pthread_mutex_lock(&pool->lock);
        atomic_fetch_add(&pool->guests, 1);
        pthread_mutex_unlock(&pool->lock);
    }
}

void kiln_pool_guest_leave(struct kiln_pool *pool) {
    if (!kiln_pool_is_owner(pool)) {
        pthread_mutex_lock(&pool->lock);
        atomic_fetch_sub(&pool->guests, 1);
        pthread_cond_signal(&pool->guest_left); /* to all that rest the same holds */
        pthread_mutex_unlock(&pool->lock);
    }
}

/* Rest while a guest wants this worker's place. */
static void rest(struct kiln_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    if (must_rest(pool)) {
        atomic_fetch_add(&pool->resting, 1);
        if (has_work(pool)) {
            wake_locked(pool, atomic_load(&pool->sleepers), 1);
        }
        while (atomic_load(&pool->resting) <= atomic_load(&pool->guests) &&
               !atomic_load(&pool->stop)) {
            pthread_cond_wait(&pool->guest_left, &pool->lock);
        }
        atomic_fetch_sub(&pool->resting, 1);
    }
    pthread_mutex_unlock(&pool->lock);
}

/* ---- background jobs; the lock is held ----------------------------------------------------- */

/* Make the first job's tasks ready, past jobs that have none. */
static void make_ready(struct kiln_pool *pool) {
    while (pool->first && pool->first->n == 0) {
        struct kiln_pool_job *job = pool->first;
        pool->first = job->next;
        atomic_store(&job->posted, false);
    }
    if (pool->first == NULL) {
        pool->last = NULL;
        return;
    }
    atomic_store(&pool->ready, pool->first->n);
    wake_locked(pool, atomic_load(&pool->sleepers), pool->first->n);
}

/* Run one background task, if one is ready. The lock is let go meanwhile. */
static bool run_ready(struct kiln_pool *pool, size_t thread) {
    size_t ready = atomic_load(&pool->ready);
    if (ready == 0) {
        return false;
    }
    struct kiln_pool_job *job = pool->first; /* stays: this task is one of it */
    atomic_store(&pool->ready, ready - 1);
    pool->running++;
    pthread_mutex_unlock(&pool->lock);
    job->fn(job->context, job->n - ready, thread);
    pthread_mutex_lock(&pool->lock);
    if (--pool->running == 0 && atomic_load(&pool->ready) == 0) {
        pool->first = job->next;
        atomic_store(&job->posted, false); /* the owner may free it from here on */
        make_ready(pool);
        if (atomic_load(&pool->caller_sleeps)) {
            pthread_cond_signal(&pool->done);
        }
    }
    return true;
}

static void *worker_main(void *argument) {
    struct worker *self = argument;
    struct kiln_pool *pool = self->pool;
    kiln_thread_name("kiln pool");
    while (!atomic_load(&pool->stop)) {
        if (must_rest(pool)) {
            rest(pool);
        }
        if (!spin_until(pool, has_work_or_stop)) {
            sleep_until_work(pool);
        }
        if (work_off(pool, self->thread) && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->lock);
        }
        if (atomic_load(&pool->ready) > 0 && !must_rest(pool)) {
            pthread_mutex_lock(&pool->lock);
            run_ready(pool, self->thread);
            pthread_mutex_unlock(&pool->lock);
        }
    }
    return NULL;
}

/* Wake as many sleepers as there are tasks for, beyond the caller and the workers awake. */
static void wake_for(struct kiln_pool *pool, size_t n) {
    size_t sleeping = atomic_load(&pool->sleepers);
    size_t idle = sleeping + atomic_load(&pool->resting); /* one that changes over counts twice */
    size_t awake = pool->threads - 1 > idle ? pool->threads - 1 - idle : 0;
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

void kiln_pool_post(struct kiln_pool *pool, struct kiln_pool_job *job) {
    pthread_mutex_lock(&pool->lock);
    job->next = NULL;
    atomic_store(&job->posted, true);
    if (pool->last) {
        pool->last->next = job;
        pool->last = job;
    } else {
        pool->first = pool->last = job;
        make_ready(pool);
    }
    pthread_mutex_unlock(&pool->lock);
}

static bool can_go_on(struct kiln_pool *pool) {
    return atomic_load(&pool->ready) > 0 || !atomic_load(&pool->awaited->posted);
}

void kiln_pool_wait(struct kiln_pool *pool, struct kiln_pool_job *job) {
    pool->awaited = job;
    while (atomic_load(&job->posted)) {
        spin_until(pool, can_go_on);
        pthread_mutex_lock(&pool->lock);
        atomic_store(&pool->caller_sleeps, true);
        while (!can_go_on(pool)) {
            pthread_cond_wait(&pool->done, &pool->lock);
        }
        atomic_store(&pool->caller_sleeps, false);
        if (atomic_load(&job->posted)) {
            run_ready(pool, 0);
        }
        pthread_mutex_unlock(&pool->lock);
    }
}

static struct kiln_pool_job *last_posted(struct kiln_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    struct kiln_pool_job *job = pool->last;
    pthread_mutex_unlock(&pool->lock);
    return job;
}

void kiln_pool_finish(struct kiln_pool *pool) {
    struct kiln_pool_job *job = last_posted(pool);
    if (job) {
        kiln_pool_wait(pool, job); /* jobs end in order */
    }
}

bool kiln_pool_idle(struct kiln_pool *pool) { return last_posted(pool) == NULL; }

static void stop_workers(struct kiln_pool *pool) {
    atomic_store(&pool->stop, true);
    wake(pool, 0, 0);
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->guest_left);
    pthread_mutex_unlock(&pool->lock);
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
    pool->owner = pthread_self();
    pool->crowded = threads > kiln_cpu_count();
    pool->workers = workers;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pthread_cond_init(&pool->guest_left, NULL);
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
    kiln_pool_finish(pool);
    stop_workers(pool);
    pthread_cond_destroy(&pool->guest_left);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    kiln_free(pool->workers);
    kiln_free(pool);
}

size_t kiln_pool_threads(const struct kiln_pool *pool) { return pool->threads; }

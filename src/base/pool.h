/* SPDX-License-Identifier: MIT
 *
 * pool.h: the one thread pool.
 *
 * A pool of N threads is the caller plus N-1 workers that sleep between jobs. A job is a number
 * of tasks; idle threads take the next task index from a shared counter. Which thread runs which
 * task is not fixed, so a task must write only what no other task of the job reads or writes:
 * then the result does not depend on the number of threads.
 *
 * There are two kinds of jobs. kiln_pool_run has one done now, and the caller works on it.
 * kiln_pool_post leaves one in the background: workers take its tasks while no kiln_pool_run has
 * tasks left to take, so what is run now is delayed by one background task at most. Background
 * jobs run one after another in the order they were posted: job i+1 starts when all tasks of job i
 * have ended, and may use what they wrote. Both kinds run on the same threads, one task a thread
 * at a time, so scratch memory of a thread serves both.
 */
#ifndef KILN_BASE_POOL_H
#define KILN_BASE_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "kiln/status.h"

struct kiln_pool;

/* One task of a job. `task` runs from 0 to n-1; `thread` from 0 to kiln_pool_threads()-1 and is
 * the index of the running thread, for scratch memory of its own. */
typedef void (*kiln_task_fn)(void *context, size_t task, size_t thread);

/* threads: 1 to 1024; the caller counts as one. */
KILN_MUST_CHECK enum kiln_status kiln_pool_create(size_t threads, struct kiln_pool **out,
                                                  struct kiln_err *err);
/* Background jobs that have not ended are finished first. */
void kiln_pool_destroy(struct kiln_pool *pool);
size_t kiln_pool_threads(const struct kiln_pool *pool);

/* Run fn for every task 0..n-1 and return when all are done. Only the thread that created the
 * pool calls this, and never from inside a task. */
void kiln_pool_run(struct kiln_pool *pool, size_t n, kiln_task_fn fn, void *context);

/* A background job. The owner sets the first three and keeps the struct and the context in place
 * until the job has ended; all zero is a job that was never posted. */
struct kiln_pool_job {
    size_t n; /* tasks */
    kiln_task_fn fn;
    void *context;
    /* The pool's own: */
    struct kiln_pool_job *next;
    atomic_bool posted; /* and has not ended */
};

/* The calls below are the owner's, too, and never from inside a task. */

/* Add a job to the background and return at once. It must not be posted already. With one thread
 * nothing of it runs before the owner waits. */
void kiln_pool_post(struct kiln_pool *pool, struct kiln_pool_job *job);
/* Return when `job` has ended, at once when it is not posted. The caller works on background tasks
 * meanwhile, those of earlier jobs, too. What the job's tasks wrote is visible then. */
void kiln_pool_wait(struct kiln_pool *pool, struct kiln_pool_job *job);
/* The same for every job posted so far. */
void kiln_pool_finish(struct kiln_pool *pool);
/* Have all posted jobs ended? What they wrote is visible then. */
bool kiln_pool_idle(struct kiln_pool *pool);

/* ---- guests: other threads that compute ------------------------------------------------------
 *
 * So that a process runs no more threads than asked for: from enter to leave the calling thread
 * computes beside the pool, and one worker less takes tasks. A worker that is in a task finishes it
 * first; the caller of kiln_pool_run always works. Where no worker is left to rest (one thread, or
 * more guests than workers) a guest is one thread more. Bits never depend on it: tasks are the
 * same, whoever takes them.
 *
 * Any thread may call these, from outside of tasks. Of the pool's owner they do nothing: it counts
 * already. A guest does not call kiln_pool_run and the like. */
void kiln_pool_guest_enter(struct kiln_pool *pool);
void kiln_pool_guest_leave(struct kiln_pool *pool);
/* Is the calling thread the one that created the pool? */
bool kiln_pool_is_owner(const struct kiln_pool *pool);

#endif

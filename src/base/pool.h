/* SPDX-License-Identifier: MIT
 *
 * pool.h: the one thread pool.
 *
 * A pool of N threads is the caller plus N-1 workers that sleep between jobs. A job is a number
 * of tasks; idle threads take the next task index from a shared counter. Which thread runs which
 * task is not fixed, so a task must write only what no other task of the job reads or writes:
 * then the result does not depend on the number of threads.
 */
#ifndef KILN_BASE_POOL_H
#define KILN_BASE_POOL_H

#include <stddef.h>

#include "kiln/status.h"

struct kiln_pool;

/* One task of a job. `task` runs from 0 to n-1; `thread` from 0 to kiln_pool_threads()-1 and is
 * the index of the running thread, for scratch memory of its own. */
typedef void (*kiln_task_fn)(void *context, size_t task, size_t thread);

/* threads: 1 to 1024; the caller counts as one. */
KILN_MUST_CHECK enum kiln_status kiln_pool_create(size_t threads, struct kiln_pool **out,
                                                  struct kiln_err *err);
void kiln_pool_destroy(struct kiln_pool *pool);
size_t kiln_pool_threads(const struct kiln_pool *pool);

/* Run fn for every task 0..n-1 and return when all are done. Only the thread that created the
 * pool calls this, and never from inside a task. */
void kiln_pool_run(struct kiln_pool *pool, size_t n, kiln_task_fn fn, void *context);

#endif

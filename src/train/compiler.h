/* SPDX-License-Identifier: MIT
 *
 * compiler.h: compiles kernels one after another, beside the owner of the device or in its stead.
 *
 * Jobs are done in the order they were given; a job's ticket tells whoever needs its kernel how far
 * to wait. With a thread of its own the compiler works while the owner computes; without one a job
 * is done when it is given, and the owner waits. Either way a span COMPILE is what a kernel took,
 * and a span STALL what the owner waited.
 *
 * Weights that are still being updated: a job may wait for a gate, which counts up (optimizer.h).
 *
 * After a failure nothing more is compiled; whoever waits for that job or a later one gets its
 * error, until kiln_compiler_drop.
 */
#ifndef KILN_TRAIN_COMPILER_H
#define KILN_TRAIN_COMPILER_H

#include "base/spans.h"
#include "device/device.h"

struct kiln_compiler;

struct kiln_compile_job {
    size_t set, kind, layer;
    bool prepare;                /* not a kernel: what the host keeps of the generation */
    struct kiln_weights weights; /* what it shows must stay until the job is done */
    int64_t generation;          /* for the span */
    size_t gate;                 /* the job waits until the gate has come so far; 0: it does not */
    /* NULL, or told behind the job, on the compiler's thread. */
    void (*done)(void *context, size_t layer);
    void *context;
};

/* How many jobs may wait: `room`. Borrows device and spans (NULL: none). beside: with a thread. */
KILN_MUST_CHECK enum kiln_status kiln_compiler_create(struct kiln_device *device,
                                                      struct kiln_spans *spans, bool beside,
                                                      size_t room, struct kiln_compiler **out,
                                                      struct kiln_err *err);
/* The job under way is finished, others are dropped. NULL is fine. */
void kiln_compiler_destroy(struct kiln_compiler *compiler);

/* Give a job; *ticket is what to wait for. Without a thread it is done now, and fails here. */
KILN_MUST_CHECK enum kiln_status kiln_compiler_add(struct kiln_compiler *compiler,
                                                   const struct kiln_compile_job *job,
                                                   uint64_t *ticket, struct kiln_err *err);
/* The gate: jobs that wait for so much may go on. It only rises, until all jobs are done: then the
 * next job with a gate finds it at 0. */
void kiln_compiler_gate(struct kiln_compiler *compiler, size_t gate);
/* Return when the job of the ticket is done. 0: at once. */
KILN_MUST_CHECK enum kiln_status kiln_compiler_wait(struct kiln_compiler *compiler, uint64_t ticket,
                                                    struct kiln_err *err);
/* The same for every job given so far. */
KILN_MUST_CHECK enum kiln_status kiln_compiler_finish(struct kiln_compiler *compiler,
                                                      struct kiln_err *err);
/* Is every job done? */
bool kiln_compiler_idle(struct kiln_compiler *compiler);
/* Does whoever waits for a kernel keep the device from work? At first yes; not while a successor
 * gets ready: the device is another's. */
void kiln_compiler_stalls(struct kiln_compiler *compiler, bool on);
/* Kernels compiled since the last time; those with a gate, which are of the step behind the update,
 * only where `gated` says so. */
uint64_t kiln_compiler_take_count(struct kiln_compiler *compiler, bool gated);
/* Forget jobs that have not begun, wait for the one that has, and forget a failure. */
void kiln_compiler_drop(struct kiln_compiler *compiler);

#endif

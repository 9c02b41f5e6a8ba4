/* SPDX-License-Identifier: MIT
 *
 * sets.h: the kernel sets of a device: what the schedule says a process holds, made true.
 *
 * The schedule counts (plan/schedule.h: struct kiln_process); here kernels are released and given
 * to the compiler in the order in which passes will want them, and passes wait for theirs. One set
 * is active. With --overlap delayed the other is being compiled from the snapshot of the next
 * generation, and both change places when the window's update is done; what is without weights is
 * of both.
 */
#ifndef KILN_TRAIN_SETS_H
#define KILN_TRAIN_SETS_H

#include "plan/plan.h"
#include "train/compiler.h"

struct kiln_sets {
    const struct kiln_plan *plan; /* borrowed */
    struct kiln_device *device;   /* borrowed */
    struct kiln_compiler *compiler;
    unsigned char *on_device[2]; /* [L] KILN_HAS_ of the layers, by set */
    bool shared;                 /* what has no weights is on the device */
    size_t set;                  /* the active one */
    struct kiln_weights active, next;
    int64_t generation; /* of `active` */
    int64_t prepared;   /* of what the host keeps in the active set */
    bool named;         /* the caller has said which generation it is */
    uint64_t *ready[2]; /* [L] tickets of the kernels of the active set: forward, backward */
    uint64_t shared_ready;
    /* NULL, or told when the kernels of a layer have been compiled; on any thread. */
    void (*compiled)(void *context, size_t layer);
    void *compiled_context;
};

/* Borrows all; spans may be NULL. */
KILN_MUST_CHECK enum kiln_status kiln_sets_open(struct kiln_sets *sets,
                                                const struct kiln_plan *plan,
                                                struct kiln_device *device,
                                                struct kiln_spans *spans, struct kiln_err *err);
/* What is half open or all zero is fine. */
void kiln_sets_close(struct kiln_sets *sets);

/* The generation to compute with, and its weights; of the next one, too (NULL: there is none). What
 * they show stays until they are replaced. The first call must name what the device was opened
 * with. */
void kiln_sets_generation(struct kiln_sets *sets, int64_t generation,
                          const struct kiln_weights *active, const struct kiln_weights *next);
/* After a COMPILE_GROUP: hold what `process` does. Kernels of a layer whose weights are being
 * updated wait at the compiler's gate (gated). */
KILN_MUST_CHECK enum kiln_status kiln_sets_compile(struct kiln_sets *sets,
                                                   const struct kiln_process *process,
                                                   const struct kiln_plan_group *group, bool gated,
                                                   struct kiln_err *err);
/* Release what the process no longer holds. */
KILN_MUST_CHECK enum kiln_status kiln_sets_let_go(struct kiln_sets *sets,
                                                  const struct kiln_process *process,
                                                  struct kiln_err *err);
/* After a COMPILE_NEXT: the other set, from the next generation. */
KILN_MUST_CHECK enum kiln_status kiln_sets_compile_next(struct kiln_sets *sets,
                                                        struct kiln_err *err);
/* Before an UPDATE is applied: whoever compiles is waited for. An error leaves the active set as it
 * of a delayed run as it is. After it: what is stale goes; with `swaps` the other set becomes
 * active. */
KILN_MUST_CHECK enum kiln_status kiln_sets_settle(struct kiln_sets *sets, struct kiln_err *err);
void kiln_sets_update(struct kiln_sets *sets, const struct kiln_process *process, bool swaps);
/* Wait for the kernels of a layer in a pass, as of that pass's begin: its host parts, too. */
KILN_MUST_CHECK enum kiln_status kiln_sets_want(struct kiln_sets *sets, enum kiln_pass pass,
                                                size_t layer, struct kiln_err *err);

#endif

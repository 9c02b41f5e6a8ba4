/* SPDX-License-Identifier: MIT
 *
 * again.h: train a part of a run once more, in a temporary folder: for kiln verify and explain.
 *
 * The folder is a run of its own: state.kiln restored from a checkpoint, or made anew as it was
 * before the first step (kiln_run_first_state), the settings the checkpoint holds or else the run,
 * links to the tokens, the lines of metrics.jsonl up to there. It is resumed like any run, so what
 * is trained again is what `train --resume` does. The length of the run shapes its learning rates
 * and stays what it was; whoever asked stops it where there is nothing more to see.
 */
#ifndef KILN_TRAIN_AGAIN_H
#define KILN_TRAIN_AGAIN_H

#include <signal.h>

#include "kiln/train.h"
#include "state/checkpoint.h"

struct kiln_again {
    const char *who;                   /* "verify", for messages */
    const char *run;                   /* its folder; of it files are only read */
    const char *from;                  /* folder of the checkpoint to begin at; NULL: at step 0 */
    struct kiln_checkpoint_info start; /* what its header says; of step 0 sizes and numerics */
    size_t threads;                    /* 0: as the run */
    uint64_t sample;   /* where the data goes on there: the run may have come back later */
    char folder[4400]; /* the temporary one; "": none was made */
    uint64_t other;    /* from this step on (so many were done) --steps was another; UINT64_MAX */
    char note[240];    /* settings that changed since the checkpoint; "" for none */
};

/* Keep the run from being trained: it would change under our eyes. *lock is a descriptor to close,
 * -1 when it has no state. KILN_EBUSY: another process trains it. */
KILN_MUST_CHECK enum kiln_status kiln_again_lock(const char *who, const char *run, int *lock,
                                                 struct kiln_err *err);
/* Make the folder, in the run's or in TMPDIR. */
KILN_MUST_CHECK enum kiln_status kiln_again_make(struct kiln_again *a, struct kiln_err *err);
/* Train. `begin` is called with the run before its first step, and again after each time that a
 * budget was spent; what it returns other than KILN_OK ends training. Stopping is KILN_OK. */
KILN_MUST_CHECK enum kiln_status kiln_again_train(
    struct kiln_again *a,
    enum kiln_status (*begin)(void *context, struct kiln_run *run, struct kiln_err *err),
    const struct kiln_observer *observer, const volatile sig_atomic_t *stop, struct kiln_err *err);
/* Remove the folder, where one was made. */
KILN_MUST_CHECK enum kiln_status kiln_again_remove(struct kiln_again *a, struct kiln_err *err);

#endif

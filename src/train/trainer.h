/* SPDX-License-Identifier: MIT
 *
 * trainer.h: the window loop: micro-batches, update, evaluation, samples, checkpoints.
 *
 * A trainer borrows all it works on; run.c makes and owns the parts.
 */
#ifndef KILN_TRAIN_TRAINER_H
#define KILN_TRAIN_TRAINER_H

#include <stdio.h>

#include "infer/session.h"
#include "kiln/train.h"
#include "state/state.h"
#include "train/optimizer.h"
#include "train/pass.h"
#include "train/save.h"

struct kiln_trainer {
    const struct kiln_settings *settings; /* complete */
    const char *folder;
    const struct kiln_table *table;
    const struct kiln_tokenizer *tokenizer; /* may be NULL */
    struct kiln_pool *pool;
    struct kiln_state *state;
    struct kiln_device *device;
    struct kiln_data *data, *val_data; /* val_data NULL: the validation split of data, if any */
    struct kiln_plan plan;
    struct kiln_pass_memory memory;
    struct kiln_optimizer *optimizer;
    struct kiln_saver *saver;
    struct kiln_gradients gradients;
    struct kiln_session *session; /* for samples; NULL when none are asked for */
    uint32_t *tokens, *targets;   /* [N] */
    FILE *metrics;
    double ceiling_tflops; /* of products, for utilization */
    const struct kiln_observer *observer;
    const volatile sig_atomic_t *stop;
};

/* Train from the state's cursor to settings->steps. */
KILN_MUST_CHECK enum kiln_status kiln_trainer_run(struct kiln_trainer *trainer,
                                                  struct kiln_err *err);
/* Mean loss over the first settings->eval_windows held-out windows, in whole micro-batches: the
 * rest of the division is left out, and a set smaller than one is read round and round. NaN when
 * there are none. */
KILN_MUST_CHECK enum kiln_status kiln_trainer_evaluate(struct kiln_trainer *trainer, double *loss,
                                                       struct kiln_err *err);

/* A line of metrics.jsonl without the newline; heap, free with kiln_free; NULL: out of memory. */
char *kiln_metrics_line(const struct kiln_step_record *record);

#endif

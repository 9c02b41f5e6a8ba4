/* SPDX-License-Identifier: MIT
 *
 * trainer_int.h: the trainer, for the files that it is made of.
 *
 *   trainer.c     a step, phase by phase
 *   batches.c     what a window and an evaluation read
 *   window.c      their micro-batches, action by action
 *   hand_over.c   left by one process, taken up by another
 *   judge.c       is there an update, and what becomes of a run whose numbers are off
 *   samples.c     what the model says on the way (samples.h)
 *   outputs.c     checkpoints, models
 *   plant.c       faults, for tests
 */
#ifndef KILN_TRAIN_TRAINER_INT_H
#define KILN_TRAIN_TRAINER_INT_H

#include "train/trainer.h"

/* Tell the observer. */
void kiln_trainer_notice(const struct kiln_trainer *t, const char *text);
/* Does somebody want the run to stop? */
bool kiln_trainer_stopping(const struct kiln_trainer *t);
/* Does it write what there is once for all ranks: checkpoints, samples, incidents, the model? */
bool kiln_trainer_leads(const struct kiln_trainer *t);
/* This rank's of so many micro-batches. */
struct kiln_share kiln_trainer_share(const struct kiln_trainer *t, uint64_t micro_batches);
/* Are windows computed one update behind? */
bool kiln_trainer_delayed(const struct kiln_trainer *t);
/* Are weights and moments spread over ranks now? Those of the state are then not all here. */
bool kiln_trainer_is_spread(const struct kiln_trainer *t);
/* The weights of a generation that windows are computed with, or will be. */
struct kiln_weights kiln_trainer_weights(const struct kiln_trainer *t, uint64_t generation);
/* Compute with what is due when `step` steps are done. */
void kiln_trainer_generation(struct kiln_trainer *t, uint64_t step);
/* Add a span of the step where the cursor stands: until `end`, or until now. */
void kiln_trainer_span_of(struct kiln_trainer *t, enum kiln_span_kind kind, const char *name,
                          double start, double end);
void kiln_trainer_span(struct kiln_trainer *t, enum kiln_span_kind kind, const char *name,
                       double start);

/* ---- batches.c: the callbacks of an executor (its context is the trainer) ---------------------
 */

/* Micro-batch `index` of this rank's share of the window at the cursor. */
void kiln_batches_train(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                        uint32_t *starts);
/* The same of the window that begins at that sample. */
void kiln_batches_at(const struct kiln_trainer *t, uint64_t sample, uint64_t index,
                     uint32_t *tokens, uint32_t *targets, uint32_t *starts);
/* Micro-batch `index` of this rank's share of an evaluation. A set smaller than a micro-batch is
 * read round and round.
 */
void kiln_batches_held_out(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                           uint32_t *starts);
/* Targets of the window that count: what its loss is averaged over; and all its tokens. */
double kiln_batches_targets(const struct kiln_trainer *t);
/* The targets that its gradient is averaged over: in a local step those of this rank's share. */
double kiln_batches_averaged(const struct kiln_trainer *t);
double kiln_batches_tokens(const struct kiln_trainer *t);
/* What this window's loss is scaled by, where one whose targets all count has `scale`. Of the data
 * and the cursor alone: a process that finishes an update finds the same. */
double kiln_batches_scale(const struct kiln_trainer *t, double scale);
/* Targets of the first `windows` held-out windows, read as kiln_batches_held_out does, that count.
 */
double kiln_batches_held_out_targets(const struct kiln_trainer *t, size_t windows);
/* Micro-batches of an evaluation: whole ones, the rest of the division is left out; 0 where nothing
 * is held out. */
size_t kiln_batches_evaluated(const struct kiln_trainer *t);

/* ---- window.c --------------------------------------------------------------------------------
 */

/* This rank's of so many micro-batches; the executor's loss_sum then has the losses of all. */
KILN_MUST_CHECK enum kiln_status kiln_window_run(struct kiln_trainer *t, bool evaluate,
                                                 uint64_t micro_batches, struct kiln_err *err);
/* Mean loss over the first settings->eval_windows held-out windows; NaN when there are none. */
KILN_MUST_CHECK enum kiln_status kiln_window_evaluate(struct kiln_trainer *t, double *loss,
                                                      struct kiln_err *err);
/* For a state larger than memory: what has been worked through leaves it. */
void kiln_window_layer_done(void *context, enum kiln_pass pass, size_t layer);

/* ---- hand_over.c -----------------------------------------------------------------------------
 */

/* At a restart: is the successor ready to go on? */
bool kiln_hand_over_ready(struct kiln_trainer *t);
/* May the window be left here and taken up at this place? Its gradients lie in the state; what is
 * held from forward to backward does where the plan says so. */
bool kiln_hand_over_can_leave(const struct kiln_trainer *t);
/* What the cursor says of a place: a window's is none of an evaluation, which may never come. */
uint64_t kiln_hand_over_mid(bool evaluate);
/* Leave it: the cursor knows the place and what it took to get there. */
KILN_MUST_CHECK enum kiln_status kiln_hand_over_leave(struct kiln_trainer *t, struct kiln_err *err);
/* Begin a window or evaluation, or take up the one that was left. */
void kiln_hand_over_take_up(struct kiln_trainer *t, bool evaluate, uint64_t micro_batches);

/* ---- judge.c ---------------------------------------------------------------------------------
 */

/* Behind a window: loss, norm and loss scale go to *cursor, which is not committed, and whether its
 * update is skipped. `scale` is that of windows whose targets all count. KILN_EDIVERGED: the run
 * ends here, before the step. KILN_ERESTART, with t->rolled_back: it goes on from a checkpoint. */
KILN_MUST_CHECK enum kiln_status kiln_judge(struct kiln_trainer *t, struct kiln_cursor *cursor,
                                            double scale, struct kiln_err *err);

/* A device that compiles weights has refused them, KILN_EINPUT, wherever in a step. `status` and
 * *err as they are where the weights are not to blame; else as kiln_judge. */
KILN_MUST_CHECK enum kiln_status kiln_judge_refusal(struct kiln_trainer *t, enum kiln_status status,
                                                    struct kiln_err *err);

/* ---- plant.c (plant.h) -----------------------------------------------------------------------
 */

/* Before the update behind which step `step` comes. */
void kiln_plant_weight(struct kiln_trainer *t, uint64_t step);
/* The n targets of a micro-batch of the window that begins at that sample. */
void kiln_plant_targets(const struct kiln_trainer *t, uint64_t sample, uint32_t *targets, size_t n);

/* ---- outputs.c -------------------------------------------------------------------------------
 */

/* Save a checkpoint of the state as it is, at the start of a window: all ranks call. */
KILN_MUST_CHECK enum kiln_status kiln_outputs_save(struct kiln_trainer *t, struct kiln_err *err);
/* The end of a run, or of this process: rank 0's file holds all again. */
KILN_MUST_CHECK enum kiln_status kiln_outputs_collect(struct kiln_trainer *t, struct kiln_err *err);
/* Before weights or moments change, and at the end: the checkpoint under way is on the disk. */
KILN_MUST_CHECK enum kiln_status kiln_outputs_wait(struct kiln_trainer *t, struct kiln_err *err);
/* model.bin, and the adapters of a run that trains them. */
KILN_MUST_CHECK enum kiln_status kiln_outputs_model(struct kiln_trainer *t, struct kiln_err *err);

#endif

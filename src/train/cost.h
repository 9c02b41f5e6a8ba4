/* SPDX-License-Identifier: MIT
 *
 * cost.h: what a step costs: from the spans of this process, and the device's counts, to the
 * cursor, which sums them over the processes of a step, and from there to the line of metrics. The
 * same spans are what trace.json lists.
 */
#ifndef KILN_TRAIN_COST_H
#define KILN_TRAIN_COST_H

#include "train/trainer.h"

/* Spans to come are those of the step where the state's cursor stands: are they to be listed? At
 * the start, and when a step has ended. */
void kiln_cost_begin(struct kiln_trainer *trainer);
/* What the device has done up to now is nobody's. */
void kiln_cost_counted(struct kiln_trainer *trainer);
/* Move what was spent since the last time into the cursor, which is to be committed, and list its
 * spans. They belong to the step where the state's cursor stands. Evaluations are not part of a
 * step's time; their compiles count, since the next window finds the kernels. KILN_EIO when the
 * trace cannot be written. */
KILN_MUST_CHECK enum kiln_status kiln_cost_spend(struct kiln_trainer *trainer,
                                                 struct kiln_cursor *cursor, bool evaluating,
                                                 struct kiln_err *err);
/* What went on since `began` is no step's time, and tells the clock nothing of how long steps take:
 * samples, and what observers do. */
void kiln_cost_leave_out(struct kiln_trainer *trainer, double began);
/* The next step has cost nothing yet. */
void kiln_cost_nothing(struct kiln_cursor *cursor);
/* A step as the cursor knows it. */
struct kiln_step_record kiln_cost_record(const struct kiln_trainer *trainer,
                                         const struct kiln_cursor *cursor);

#endif

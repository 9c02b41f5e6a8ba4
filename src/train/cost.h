/* SPDX-License-Identifier: MIT
 *
 * cost.h: what a step costs: from the device's and the executor's counts to the cursor, which sums
 * them over the processes of a step, and from there to the line of metrics.
 */
#ifndef KILN_TRAIN_COST_H
#define KILN_TRAIN_COST_H

#include "train/trainer.h"

/* Move what was spent since the last time into the cursor. Evaluations are not part of a step's
 * time; their compiles count, since the next window finds the kernels. */
void kiln_cost_spend(struct kiln_trainer *trainer, struct kiln_cursor *cursor, bool evaluating);
/* The next step has cost nothing yet. */
void kiln_cost_nothing(struct kiln_cursor *cursor);
/* A step as the cursor knows it. */
struct kiln_step_record kiln_cost_record(const struct kiln_trainer *trainer,
                                         const struct kiln_cursor *cursor);

#endif

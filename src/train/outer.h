/* SPDX-License-Identifier: MIT
 *
 * outer.h: --local-steps H: ranks that sum once in H steps (DiLoCo, Douillard et al. 2023,
 * arXiv:2311.08105).
 *
 * A round is H steps, or what is left of the run. In it each rank trains by itself: AdamW, with the
 * gradient of its share of each window, averaged over its own targets and clipped by its own norm.
 * Losses that are told are of all ranks. At its end comes the outer step. W are the weights at the
 * start of the round, U a momentum that begins with 0; means are over the n ranks:
 *
 *   D = mean(W - what a rank has)      U <- momentum U + D      W <- W - lr (D + momentum U)
 *
 * which is SGD with Nesterov's momentum as PyTorch has it. m and v of AdamW become their means, so
 * that after an outer step all ranks are alike: any number of them can go on from there.
 *
 *   the state (state/state.h)          at the end of a round                         then
 *   weights, m, v, outer momentum      read                                          <- copied
 *   local weights, local m, local v    changed by steps; now results of all ranks    -> from here
 *   gradients                          W - local weights, summed; then U             -> and here
 *
 * A round is what a window is elsewhere: whoever dies in it, or is stopped, takes it again from its
 * start. The file keeps its cursor (kiln_state_hold) until all results of the outer step lie beside
 * what they replace; then it says KILN_PHASE_OUTER, and whoever dies from there on copies again.
 */
#ifndef KILN_TRAIN_OUTER_H
#define KILN_TRAIN_OUTER_H

#include "train/trainer.h"

/* Is the last of so many steps the end of a round? */
bool kiln_outer_due(const struct kiln_settings *settings, uint64_t steps);

/* Before anything is made of the state: what a death has left is put in place, and steps begin with
 * the state's weights and moments. A state without local steps: nothing. */
KILN_MUST_CHECK enum kiln_status kiln_outer_open(struct kiln_state *state,
                                                 const struct kiln_table *table,
                                                 struct kiln_err *err);
/* The outer step of all ranks. `cursor` is that behind the last step; the state's is the same
 * then, in phase OUTER. No checkpoint is being written. */
KILN_MUST_CHECK enum kiln_status kiln_outer_step(struct kiln_trainer *trainer,
                                                 const struct kiln_cursor *cursor,
                                                 struct kiln_err *err);

#endif

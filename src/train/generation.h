/* SPDX-License-Identifier: MIT
 *
 * generation.h: which weights a step computes with.
 *
 * Generation g is the weights after g steps. With --overlap delayed a window is computed with the
 * generation before the newest, and those of the first two windows with generation 0:
 *
 *   W(t+1) = update(W(t), gradient at W(max(t-1, 0)))
 *
 * while the newest is being compiled. Both lie in the state as snapshots, generation g in slot
 * g mod 2; taking that of generation t+1 replaces t-1, which window t was the last to need. Without
 * delay the newest is computed with, from the master weights themselves.
 */
#ifndef KILN_TRAIN_GENERATION_H
#define KILN_TRAIN_GENERATION_H

#include "base/pool.h"
#include "kernel/weights.h"
#include "state/state.h"

/* The generation that is computed with when `step` steps are done: in the window behind them, and
 * in the evaluation before it. */
static inline uint64_t kiln_generation_of(uint64_t step, bool delayed) {
    return delayed && step > 0 ? step - 1 : step;
}

/* Its weights: of a state with snapshots the slot, else the master weights. */
struct kiln_weights kiln_generation_weights(struct kiln_state *state,
                                            const struct kiln_table *table, uint64_t generation);
/* The master weights are those of `generation`: take the snapshot. Again: the same bytes. A state
 * without snapshots: nothing. */
KILN_MUST_CHECK enum kiln_status kiln_generation_take(struct kiln_state *state,
                                                      const struct kiln_table *table,
                                                      struct kiln_pool *pool, uint64_t generation,
                                                      struct kiln_err *err);

#endif

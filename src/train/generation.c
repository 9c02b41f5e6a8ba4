/* SPDX-License-Identifier: MIT */
#include "train/generation.h"

struct kiln_weights kiln_generation_weights(struct kiln_state *state,
                                            const struct kiln_table *table, uint64_t generation) {
    const enum kiln_precision precision = kiln_state_snapshots(state);
    if (precision == KILN_PRECISION_AUTO) {
        return kiln_weights_flat(table, kiln_state_working(state, KILN_WEIGHTS));
    }
    return kiln_weights_snapshot(table, precision, kiln_state_snapshot(state, generation % 2));
}

enum kiln_status kiln_generation_take(struct kiln_state *state, const struct kiln_table *table,
                                      struct kiln_pool *pool, uint64_t generation,
                                      struct kiln_err *err) {
    const enum kiln_precision precision = kiln_state_snapshots(state);
    if (precision == KILN_PRECISION_AUTO) {
        return KILN_OK;
    }
    return kiln_snapshot_take(pool, table, precision, kiln_state_region(state, KILN_WEIGHTS),
                              kiln_state_snapshot(state, generation % 2), err);
}

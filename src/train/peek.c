/* SPDX-License-Identifier: MIT
 *
 * peek.c: what a run's state file holds, read without the lock and without a change.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "kiln/train.h"
#include "state/state.h"

static size_t count_not_finite(const float *values, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += !isfinite(values[i]);
    }
    return count;
}

static enum kiln_status read_weights(const char *path, const struct kiln_table *table,
                                     struct kiln_run_peek *out, struct kiln_err *err) {
    struct kiln_map map;
    KILN_TRY(kiln_map_open(&map, path, err));
    const size_t expected = KILN_STATE_WEIGHTS_AT + table->size * sizeof(float);
    if (map.size < expected) {
        const size_t found = map.size;
        kiln_map_close(&map);
        return KILN_FAIL(err, KILN_EDAMAGED,
                         "state %s: %zu bytes, its model needs %zu: the file is truncated", path,
                         found, expected);
    }
    const float *weights = (const void *)(map.data + KILN_STATE_WEIGHTS_AT);
    out->weights_hash = kiln_crc32c(0, weights, table->size * sizeof *weights);
    out->not_finite = count_not_finite(weights, table->size);
    out->parameters = table->parameters;
    out->adapters = table->adapters;
    kiln_map_close(&map);
    return KILN_OK;
}

enum kiln_status kiln_run_peek(const char *folder, struct kiln_run_peek *out,
                               struct kiln_err *err) {
    char path[4300];
    struct kiln_cursor cursor, after;
    struct kiln_table *table = NULL;
    memset(out, 0, sizeof *out);
    KILN_REQUIRE(strlen(folder) < sizeof path - 32, err, KILN_EINPUT, "run: path too long");
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    KILN_TRY(kiln_state_peek(path, &out->dims, &out->lora, &cursor, err));
    KILN_TRY(kiln_table_create_lora(&out->dims, &out->lora, &table, err));
    enum kiln_status status = read_weights(path, table, out, err);
    kiln_table_destroy(table);
    KILN_TRY(status);
    /* A cursor that moved meanwhile: another process trains, and changed weights being read. */
    KILN_TRY(kiln_state_peek(path, &out->dims, &out->lora, &after, err));
    out->step = cursor.step;
    out->updates = cursor.updates;
    out->tokens = cursor.tokens;
    out->spread = cursor.spread;
    const bool changing =
        (cursor.phase == KILN_PHASE_UPDATE && cursor.skip == 0) || cursor.phase == KILN_PHASE_OUTER;
    out->inside_update = changing || after.generation != cursor.generation;
    out->last_loss = cursor.step > 0 ? cursor.last_loss : (double)NAN;
    out->best_val = cursor.best_val_step > 0 ? cursor.best_val : (double)NAN;
    out->best_val_step = cursor.best_val_step;
    return KILN_OK;
}

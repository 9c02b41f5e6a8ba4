/* SPDX-License-Identifier: MIT
 *
 * metrics.c: a step's line in metrics.jsonl. Others rely on the keys: add, never rename.
 */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "train/trainer.h"

static void set_real(json_t *line, const char *key, double value) {
    /* JSON has no infinity and no NaN. */
    json_object_set_new(line, key, isfinite(value) ? json_real(value) : json_null());
}

static void set_count(json_t *line, const char *key, uint64_t value) {
    json_object_set_new(line, key, json_integer((json_int_t)value));
}

char *kiln_metrics_line(const struct kiln_step_record *r) {
    json_t *line = json_object();
    if (!line) {
        return NULL;
    }
    set_count(line, "step", r->step);
    set_real(line, "loss", r->loss);
    set_real(line, "grad_norm", r->grad_norm);
    set_real(line, "lr", r->lr);
    set_count(line, "tokens", r->tokens);
    set_count(line, "staleness", r->staleness);
    set_real(line, "ms", r->ms);
    set_real(line, "ms_per_micro_batch", r->ms_per_micro_batch);
    set_real(line, "tokens_per_s", r->tokens_per_s);
    set_real(line, "tflops", r->tflops);
    set_real(line, "utilization", r->utilization);
    set_real(line, "compile_ms", r->compile_ms);
    set_real(line, "stall_ms", r->stall_ms);
    set_real(line, "device_ms", r->device_ms);
    set_real(line, "host_ms", r->host_ms);
    set_real(line, "io_ms", r->io_ms);
    set_real(line, "dw_wait_ms", r->dw_wait_ms);
    set_real(line, "update_ms", r->update_ms);
    set_real(line, "restart_ms", r->restart_ms);
    set_count(line, "compiles", r->compiles);
    set_count(line, "layer_forwards", r->layer_forwards);
    set_count(line, "peak_bytes", r->peak_bytes);
    set_count(line, "restarts", r->restarts);
    if (!isnan(r->val_loss)) {
        set_real(line, "val_loss", r->val_loss);
    }
    if (r->skipped) {
        json_object_set_new(line, "skipped", json_true());
    }
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(line);
    char *copy = text ? kiln_strdup(text) : NULL;
    free(text);
    return copy;
}

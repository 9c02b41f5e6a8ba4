/* SPDX-License-Identifier: MIT
 *
 * metrics.c: a step's line in metrics.jsonl. Others rely on the keys: add, never rename.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "train/metrics_read.h"
#include "train/trainer.h"

/* Text is made here and not by a library: a step allocates nothing. */
struct line {
    char *out;
    size_t used;
};

static void put(struct line *line, const char *key, const char *value) {
    const size_t room = KILN_METRICS_LINE - line->used;
    const int n =
        snprintf(line->out + line->used, room, "%s\"%s\":%s", line->used ? "," : "{", key, value);
    line->used += n > 0 && (size_t)n < room ? (size_t)n : 0;
}

static void set_real(struct line *line, const char *key, double value) {
    char text[40];
    snprintf(text, sizeof text - 2, "%.17g", value);
    const size_t point = strspn(text, "-0123456789");
    if (isfinite(value) && text[point] != '\0' && text[point] != 'e') {
        text[point] = '.'; /* whatever the locale has there */
    }
    if (!strpbrk(text, ".e")) { /* a real stays one when it is read back */
        strcat(text, ".0");
    }
    put(line, key, isfinite(value) ? text : "null"); /* JSON has no infinity and no NaN. */
}

static void set_count(struct line *line, const char *key, uint64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    put(line, key, text);
}

void kiln_metrics_line(const struct kiln_step_record *r, char out[KILN_METRICS_LINE]) {
    struct line made = {.out = out}, *line = &made;
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
    set_real(line, "overlap_ms", r->overlap_ms);
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
    if (r->surfaces) {
        set_count(line, "surface_read_bytes", r->surface_read_bytes);
        set_count(line, "surface_written_bytes", r->surface_written_bytes);
    }
    if (r->ranks > 1) {
        set_count(line, "ranks", r->ranks);
        set_real(line, "reduce_ms", r->reduce_ms);
        set_real(line, "reduce_wait_ms", r->reduce_wait_ms);
        set_real(line, "ranks_wait_ms", r->ranks_wait_ms);
    }
    if (r->outer_ms > 0) {
        set_real(line, "outer_ms", r->outer_ms);
    }
    if (r->loss_scale > 0) {
        set_real(line, "loss_scale", r->loss_scale);
    }
    if (isfinite(r->loss_z)) {
        set_real(line, "loss_z", r->loss_z);
    }
    if (isfinite(r->grad_norm_z)) {
        set_real(line, "grad_norm_z", r->grad_norm_z);
    }
    if (!isnan(r->val_loss)) {
        set_real(line, "val_loss", r->val_loss);
        if (r->val_generation >= 0) {
            set_count(line, "val_generation", (uint64_t)r->val_generation);
        }
    }
    if (r->skipped) {
        put(line, "skipped", "true");
    }
    snprintf(out + made.used, KILN_METRICS_LINE - made.used, "}");
}

/* ---- read back ---------------------------------------------------------------------------------
 */

/* The last `tail` bytes, or all: mostly from inside a line on, which no reader takes for one. */
static enum kiln_status read_tail(const char *path, size_t tail, char **out, struct kiln_err *err) {
    FILE *file = fopen(path, "rbe");
    KILN_REQUIRE(file, err, KILN_EINPUT, "%s: %s", path, strerror(errno));
    char *text = kiln_alloc(tail + 1, 1);
    if (text != NULL && fseek(file, -(long)tail, SEEK_END) != 0) {
        rewind(file); /* it is shorter */
    }
    const size_t n = text != NULL ? fread(text, 1, tail, file) : 0;
    const bool whole = ferror(file) == 0;
    fclose(file);
    if (text == NULL || !whole) {
        kiln_free(text);
        return whole ? KILN_FAIL(err, KILN_ENOMEM, "read %s: not enough memory", path)
                     : KILN_FAIL(err, KILN_EIO, "read %s: the disk refuses", path);
    }
    text[n] = '\0';
    *out = text;
    return KILN_OK;
}

enum kiln_status kiln_run_history(const char *folder, uint64_t after, size_t tail,
                                  const struct kiln_observer *observer, struct kiln_err *err) {
    char path[4200], *text = NULL, *rest = NULL;
    size_t size;
    KILN_REQUIRE(strlen(folder) < 4096, err, KILN_EUSAGE, "run folder: the path is too long");
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    KILN_TRY(tail > 0 ? read_tail(path, tail, &text, err)
                      : kiln_read_file(path, &text, &size, err));
    for (char *one = strtok_r(text, "\n", &rest); one; one = strtok_r(NULL, "\n", &rest)) {
        struct kiln_step_record record;
        if (kiln_metrics_read(one, strlen(one), &record) && record.step > after) {
            observer->on_step(observer->context, &record);
        } /* else the last one, which may be cut */
    }
    kiln_free(text);
    return KILN_OK;
}

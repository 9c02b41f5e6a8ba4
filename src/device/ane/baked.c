/* SPDX-License-Identifier: MIT
 *
 * baked.c: half-layers whose programs hold their weights, forward beside backward.
 *
 * The host adds residuals and takes the norms' backward; weight gradients go to the queue, which
 * converts what it is given: here bytes are only moved.
 */
#include <string.h>

#include "device/ane/ane_int.h"

size_t kiln_ane_tap_rows(const struct kiln_dims *d, enum kiln_half half) {
    const size_t hk = d->heads * d->head_size, gk = d->kv_heads * d->head_size;
    return half == KILN_ATTENTION ? 2 * hk + 2 * gk + d->dim : 3 * d->hidden + d->dim;
}

/* ---- forward ----------------------------------------------------------------------------------
 */

/* Take the output of a forward program: residual, and the taps if somebody will read them. */
static enum kiln_status take(struct kiln_ane *ane, enum kiln_npu_kind kind, const float *x_in,
                             float *x_out, uint16_t *taps, size_t tap_rows, struct kiln_err *err) {
    const size_t d = ane->base.table->dims.dim, w = ane->width;
    struct kiln_npu_surface *surface = ane->from[kind][0];
    uint16_t *at;
    KILN_TRY(kiln_ane_lock(ane, surface, true, (d + tap_rows) * w, &at, err));
    kiln_host_add_half(&ane->host, x_out, x_in, at, d);
    memcpy(taps, at + d * w, tap_rows * w * sizeof *taps);
    return kiln_ane_unlock(ane, surface, true, err);
}

enum kiln_status kiln_ane_forward_baked(struct kiln_ane *ane, size_t layer, enum kiln_half half,
                                        const float *x_in, float *x_out, uint16_t *taps, bool keep,
                                        struct kiln_err *err) {
    const struct kiln_dims *d = &ane->base.table->dims;
    const enum kiln_npu_kind kind = half == KILN_ATTENTION ? KILN_NPU_ATTN_FWD : KILN_NPU_FFN_FWD;
    const size_t rows = kiln_ane_tap_rows(d, half), w = ane->width;
    for (size_t b = 0; b < ane->base.shape.batch; b++) {
        const float *x = x_in + b * d->dim * w;
        const struct kiln_ane_rows in = {
            .wide = x, .scale = kiln_host_norm_scale(&ane->host, x, d->dim), .rows = d->dim};
        KILN_TRY(kiln_ane_write(ane, kind, layer, &in, 1, err));
        KILN_TRY(kiln_ane_run(ane, kind, layer, err));
        KILN_TRY(
            take(ane, kind, x, x_out + b * d->dim * w, taps + b * rows * w, keep ? rows : 0, err));
    }
    return KILN_OK;
}

/* ---- backward ---------------------------------------------------------------------------------
 */

void kiln_ane_post(struct kiln_ane *ane, enum kiln_matrix_kind kind, size_t layer,
                   struct kiln_dw_slot *slot, const uint16_t *taps, enum kiln_half half,
                   size_t row) {
    const struct kiln_table *table = ane->base.table;
    const struct kiln_matrix *m = kiln_table_matrix(table, kind, layer);
    const struct kiln_dw_product product = {
        .dw = ane->base.gradients.all + m->offset,
        .rows = m->rows,
        .cols = m->cols,
        .x = taps + row * ane->width,
        .x_sequence = kiln_ane_tap_rows(&table->dims, half) * ane->width,
        .add = ane->base.gradients.add,
    };
    kiln_dw_post(ane->dw, slot, &product);
}

/* Through the norm of sequence b, whose output's gradient lies in ane->dxn. */
static enum kiln_status norm_backward(struct kiln_ane *ane, enum kiln_half half, size_t layer,
                                      size_t b, const float *x, float *dx, struct kiln_err *err) {
    const struct kiln_table *table = ane->base.table;
    const size_t block = table->dims.dim * ane->width;
    const struct kiln_tensor *t =
        kiln_table_find(table, half == KILN_ATTENTION ? KILN_ATTN_NORM : KILN_FFN_NORM, layer);
    struct kiln_host_norm_bwd norm = {.w = ane->base.weights + t->offset,
                                      .dw = ane->base.gradients.all + t->offset,
                                      .add = ane->base.gradients.add || b > 0,
                                      .x = x,
                                      .dx = dx,
                                      .dy = ane->dxn + b * block};
    if (!ane->extras) {
        kiln_host_norm_backward(&ane->host, &norm);
        return KILN_OK;
    }
    const enum kiln_npu_kind kind =
        half == KILN_ATTENTION ? KILN_NPU_NORM_BWD_ATTN : KILN_NPU_NORM_BWD_FFN;
    const float scale = kiln_host_norm_scale(&ane->host, x, table->dims.dim);
    const struct kiln_ane_rows in[] = {{.half = norm.dy, .rows = table->dims.dim},
                                       {.wide = x, .scale = scale, .rows = table->dims.dim}};
    uint16_t *at;
    KILN_TRY(kiln_ane_write(ane, kind, layer, in, 2, err));
    KILN_TRY(kiln_ane_run(ane, kind, layer, err));
    KILN_TRY(kiln_ane_lock(ane, ane->from[kind][0], true, block, &at, err));
    norm.dx_made = at;
    norm.made_scale = scale;
    kiln_host_norm_backward(&ane->host, &norm);
    return kiln_ane_unlock(ane, ane->from[kind][0], true, err);
}

static enum kiln_status feed_forward_backward(struct kiln_ane *ane, size_t layer, const float *x_in,
                                              float *dx, const uint16_t *taps,
                                              struct kiln_err *err) {
    const size_t d = ane->base.table->dims.dim, f = ane->base.table->dims.hidden, w = ane->width;
    const size_t rows = kiln_ane_tap_rows(&ane->base.table->dims, KILN_FEED_FORWARD);
    struct kiln_dw_slot *out = kiln_dw_slot(ane->dw), *up = kiln_dw_slot(ane->dw);
    for (size_t b = 0; b < ane->base.shape.batch; b++) {
        uint16_t *dy = out->dy + b * d * w;
        const struct kiln_ane_rows in[] = {{.half = dy, .rows = d},
                                           {.half = taps + b * rows * w, .rows = 2 * f}};
        kiln_host_to_half(&ane->host, dy, dx + b * d * w, d);
        KILN_TRY(kiln_ane_write(ane, KILN_NPU_FFN_BWD, layer, in, 2, err));
        KILN_TRY(kiln_ane_run(ane, KILN_NPU_FFN_BWD, layer, err));
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_FFN_BWD, 0, d, ane->dxn + b * d * w, err));
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_FFN_BWD, d, 2 * f, up->dy + b * 2 * f * w, err));
    }
    kiln_ane_post(ane, KILN_MATRIX_W2, layer, out, taps, KILN_FEED_FORWARD, 2 * f);
    kiln_ane_post(ane, KILN_MATRIX_W13, layer, up, taps, KILN_FEED_FORWARD, 3 * f);
    for (size_t b = 0; b < ane->base.shape.batch; b++) {
        KILN_TRY(
            norm_backward(ane, KILN_FEED_FORWARD, layer, b, x_in + b * d * w, dx + b * d * w, err));
    }
    return KILN_OK;
}

enum kiln_status kiln_ane_scores_backward(struct kiln_ane *ane, enum kiln_npu_kind bwd1,
                                          enum kiln_npu_kind bwd2, size_t layer,
                                          const uint16_t *taps, uint16_t *dqkv,
                                          struct kiln_err *err) {
    const size_t w = ane->width, hk = kiln_ane_hk(ane), gk = kiln_ane_gk(ane);
    const size_t scores = 2 * ane->base.table->dims.heads * w;
    struct kiln_npu_surface *given = ane->from[bwd1][0];
    uint16_t *at;
    KILN_TRY(kiln_ane_lock(ane, given, true, (gk + scores) * w, &at, err));
    memcpy(dqkv + (hk + gk) * w, at, gk * w * sizeof *at);
    const struct kiln_ane_rows in[] = {{.half = at + gk * w, .rows = scores},
                                       {.half = taps, .rows = hk + gk}};
    const enum kiln_status status = kiln_ane_write(ane, bwd2, ane->dynamic ? 0 : layer, in, 2, err);
    struct kiln_err second;
    const enum kiln_status unlocked =
        kiln_ane_unlock(ane, given, true, status == KILN_OK ? err : &second);
    KILN_TRY(status);
    KILN_TRY(unlocked);
    KILN_TRY(kiln_ane_run(ane, bwd2, ane->dynamic ? 0 : layer, err));
    return kiln_ane_read(ane, bwd2, 0, hk + gk, dqkv, err);
}

static enum kiln_status attention_backward(struct kiln_ane *ane, size_t layer, const float *x_in,
                                           float *dx, const uint16_t *taps, struct kiln_err *err) {
    const size_t d = ane->base.table->dims.dim, w = ane->width;
    const size_t hk = kiln_ane_hk(ane), qkv = hk + 2 * kiln_ane_gk(ane);
    const size_t rows = kiln_ane_tap_rows(&ane->base.table->dims, KILN_ATTENTION);
    struct kiln_dw_slot *out = kiln_dw_slot(ane->dw), *in = kiln_dw_slot(ane->dw);
    for (size_t b = 0; b < ane->base.shape.batch; b++) {
        const uint16_t *tap = taps + b * rows * w;
        uint16_t *dy = out->dy + b * d * w, *dqkv = in->dy + b * qkv * w;
        const struct kiln_ane_rows first[] = {{.half = tap, .rows = qkv}, {.half = dy, .rows = d}};
        const struct kiln_ane_rows last = {.half = dqkv, .rows = qkv};
        kiln_host_to_half(&ane->host, dy, dx + b * d * w, d);
        KILN_TRY(kiln_ane_write(ane, KILN_NPU_ATTN_BWD1, layer, first, 2, err));
        KILN_TRY(kiln_ane_run(ane, KILN_NPU_ATTN_BWD1, layer, err));
        KILN_TRY(kiln_ane_scores_backward(ane, KILN_NPU_ATTN_BWD1, KILN_NPU_ATTN_BWD2, layer, tap,
                                          dqkv, err));
        KILN_TRY(kiln_ane_write(ane, KILN_NPU_QKV_BWD, layer, &last, 1, err));
        KILN_TRY(kiln_ane_run(ane, KILN_NPU_QKV_BWD, layer, err));
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_QKV_BWD, 0, d, ane->dxn + b * d * w, err));
    }
    kiln_ane_post(ane, KILN_MATRIX_WO, layer, out, taps, KILN_ATTENTION, qkv);
    kiln_ane_post(ane, KILN_MATRIX_QKV, layer, in, taps, KILN_ATTENTION, qkv + hk);
    for (size_t b = 0; b < ane->base.shape.batch; b++) {
        KILN_TRY(
            norm_backward(ane, KILN_ATTENTION, layer, b, x_in + b * d * w, dx + b * d * w, err));
    }
    return KILN_OK;
}

enum kiln_status kiln_ane_backward_baked(struct kiln_ane *ane, size_t layer, enum kiln_half half,
                                         const float *x_in, float *dx, const uint16_t *taps,
                                         struct kiln_err *err) {
    return half == KILN_ATTENTION ? attention_backward(ane, layer, x_in, dx, taps, err)
                                  : feed_forward_backward(ane, layer, x_in, dx, taps, err);
}

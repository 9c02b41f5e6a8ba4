/* SPDX-License-Identifier: MIT
 *
 * half_layer.c: what half-layers have in common, however their weights reach the programs.
 */
#include <string.h>

#include "base/machine.h"
#include "device/ane/ane_int.h"

size_t kiln_ane_tap_rows(const struct kiln_dims *d, enum kiln_half half) {
    const size_t hk = d->heads * d->head_size, gk = d->kv_heads * d->head_size;
    const size_t normed = d->qk_norm ? hk + gk : 0;
    return half == KILN_ATTENTION ? 2 * hk + 2 * gk + d->dim + normed : 3 * d->hidden + d->dim;
}

enum kiln_status kiln_ane_take(struct kiln_ane *ane, enum kiln_npu_kind kind, const float *x_in,
                               float *x_out, uint16_t *taps, size_t tap_rows,
                               struct kiln_err *err) {
    const size_t d = ane->base.table->dims.dim, w = ane->width;
    struct kiln_npu_surface *surface = ane->from[kind][0];
    const double start = kiln_now_s();
    uint16_t *at;
    KILN_TRY(kiln_ane_lock(ane, surface, true, (d + tap_rows) * w, &at, err));
    kiln_host_add_half(&ane->host, x_out, x_in, at, d);
    if (tap_rows > 0) {
        memcpy(taps, at + d * w, tap_rows * w * sizeof *taps);
    }
    KILN_TRY(kiln_ane_unlock(ane, surface, true, err));
    kiln_device_span(&ane->base, KILN_SPAN_SURFACE, kiln_npu_kind_name(kind), KILN_NO_LAYER, start);
    return KILN_OK;
}

struct kiln_dw_slot *kiln_ane_slot(struct kiln_ane *ane, size_t which) {
    return ane->dw ? kiln_dw_slot(ane->dw) : &ane->frozen[which];
}

void kiln_ane_post(struct kiln_ane *ane, enum kiln_matrix_kind kind, size_t layer,
                   struct kiln_dw_slot *slot, const uint16_t *taps, enum kiln_half half,
                   size_t row) {
    static const char *const names[KILN_MATRIX_KINDS] = {"qkv", "wo", "w13", "w2", "head"};
    const struct kiln_table *table = ane->base.table;
    const struct kiln_matrix *m = kiln_table_matrix(table, kind, layer);
    if (table->trained > 0) {
        return;
    }
    const struct kiln_dw_product product = {
        .dw = ane->base.gradients.all + m->offset,
        .rows = m->rows,
        .cols = m->cols,
        .x = taps + row * ane->width,
        .x_sequence = kiln_ane_tap_rows(&table->dims, half) * ane->width,
        .add = ane->base.gradients.add,
        .sums = ane->base.gradients.sums,
        .matrix = (size_t)(m - table->matrices),
        .gradients = ane->base.gradients.all,
        .name = names[kind],
        .layer = layer,
    };
    kiln_dw_post(ane->dw, slot, &product);
}

/* Of a tensor of the model; NULL: it is frozen. */
static float *gradient_of(const struct kiln_ane *ane, const struct kiln_tensor *t) {
    return ane->base.table->trained == 0 ? ane->base.gradients.all + t->offset : NULL;
}

/* Through the norm of sequence b, whose output's gradient lies in ane->dxn. */
static enum kiln_status sequence_backward(struct kiln_ane *ane, enum kiln_half half, size_t layer,
                                          size_t b, const float *x, float *dx,
                                          const uint16_t *second, struct kiln_err *err) {
    const struct kiln_table *table = ane->base.table;
    const size_t block = table->dims.dim * ane->width;
    const struct kiln_tensor *t =
        kiln_table_find(table, half == KILN_ATTENTION ? KILN_ATTN_NORM : KILN_FFN_NORM, layer);
    struct kiln_host_norm_bwd norm = {.w = kiln_weights_wide(&ane->base.weights, t),
                                      .dw = gradient_of(ane, t),
                                      .add = ane->base.gradients.add || b > 0,
                                      .x = x,
                                      .dx = dx,
                                      .dy = ane->dxn + b * block,
                                      .dy2 = second ? second + b * block : NULL};
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

enum kiln_status kiln_ane_norm_backward(struct kiln_ane *ane, enum kiln_half half, size_t layer,
                                        const float *x_in, float *dx, const uint16_t *second,
                                        struct kiln_err *err) {
    const size_t block = ane->base.table->dims.dim * ane->width;
    for (size_t b = 0; b < ane->base.shape.batch; b++) {
        KILN_TRY(
            sequence_backward(ane, half, layer, b, x_in + b * block, dx + b * block, second, err));
    }
    return KILN_OK;
}

void kiln_ane_heads_backward(struct kiln_ane *ane, size_t layer, size_t b, const uint16_t *taps,
                             uint16_t *dqkv) {
    static const enum kiln_role norms[] = {KILN_Q_NORM, KILN_K_NORM},
                                biases[] = {KILN_BQ, KILN_BK, KILN_BV};
    const struct kiln_dims *d = &ane->base.table->dims;
    const size_t hk = kiln_ane_hk(ane), gk = kiln_ane_gk(ane), w = ane->width;
    const size_t rows[] = {hk, gk, gk}, at[] = {0, hk, hk + gk};
    const uint16_t *before = taps + (2 * hk + 2 * gk + d->dim) * w;
    const bool add = ane->base.gradients.add || b > 0;
    for (size_t i = 0; d->qk_norm && i < 2; i++) {
        const struct kiln_tensor *t = kiln_table_find(ane->base.table, norms[i], layer);
        const struct kiln_host_heads_bwd heads = {.heads = rows[i] / d->head_size,
                                                  .w = kiln_weights_wide(&ane->base.weights, t),
                                                  .dw = gradient_of(ane, t),
                                                  .add = add,
                                                  .x = before + at[i] * w,
                                                  .dy = dqkv + at[i] * w};
        kiln_host_heads_backward(&ane->host, &heads);
    }
    for (size_t i = 0; d->qkv_bias && ane->base.table->trained == 0 && i < 3; i++) {
        const struct kiln_tensor *t = kiln_table_find(ane->base.table, biases[i], layer);
        kiln_host_bias_backward(&ane->host, dqkv + at[i] * w, rows[i], add, gradient_of(ane, t));
    }
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

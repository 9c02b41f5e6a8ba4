/* SPDX-License-Identifier: MIT
 *
 * baked.c: half-layers whose programs hold their weights, forward beside backward.
 *
 * The host adds residuals and takes the norms' backward; weight gradients go to the queue, which
 * converts what it is given: here bytes are only moved.
 */
#include "device/ane/ane_int.h"

/* ---- forward ----------------------------------------------------------------------------------
 */

enum kiln_status kiln_ane_forward_baked(struct kiln_ane *ane, size_t layer, enum kiln_half half,
                                        const float *x_in, float *x_out, uint16_t *taps, bool keep,
                                        struct kiln_err *err) {
    const struct kiln_dims *d = &ane->base.table->dims;
    const enum kiln_npu_kind kind = half == KILN_ATTENTION ? KILN_NPU_ATTN_FWD : KILN_NPU_FFN_FWD;
    const size_t rows = kiln_ane_tap_rows(d, half), w = ane->width;
    for (size_t b = 0; b < ane->base.shape.batch; b++) {
        kiln_ane_sequence(ane, b);
        const float *x = x_in + b * d->dim * w;
        const struct kiln_ane_rows in = {
            .wide = x, .scale = kiln_host_norm_scale(&ane->host, x, d->dim), .rows = d->dim};
        KILN_TRY(kiln_ane_write(ane, kind, layer, &in, 1, err));
        KILN_TRY(kiln_ane_run(ane, kind, layer, err));
        KILN_TRY(kiln_ane_take(ane, kind, x, x_out + b * d->dim * w, taps + b * rows * w,
                               keep ? rows : 0, err));
    }
    return KILN_OK;
}

/* ---- backward ---------------------------------------------------------------------------------
 */

static enum kiln_status feed_forward_backward(struct kiln_ane *ane, size_t layer, const float *x_in,
                                              float *dx, const uint16_t *taps,
                                              struct kiln_err *err) {
    const size_t d = ane->base.table->dims.dim, f = ane->base.table->dims.hidden, w = ane->width;
    const size_t rows = kiln_ane_tap_rows(&ane->base.table->dims, KILN_FEED_FORWARD);
    struct kiln_dw_slot *out = kiln_ane_slot(ane, 0), *up = kiln_ane_slot(ane, 1);
    for (size_t b = 0; b < ane->base.shape.batch; b++) {
        kiln_ane_sequence(ane, b);
        uint16_t *dy = out->dy + b * d * w;
        const struct kiln_ane_rows in[] = {{.half = dy, .rows = d},
                                           {.half = taps + b * rows * w, .rows = 2 * f}};
        kiln_host_to_half(&ane->host, dy, dx + b * d * w, d);
        KILN_TRY(kiln_ane_write(ane, KILN_NPU_FFN_BWD, layer, in, 2, err));
        KILN_TRY(kiln_ane_run(ane, KILN_NPU_FFN_BWD, layer, err));
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_FFN_BWD, 0, d, ane->dxn + b * d * w, err));
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_FFN_BWD, d, 2 * f, up->dy + b * 2 * f * w, err));
        kiln_ane_adapters_backward(ane, KILN_FEED_FORWARD, layer, b, taps + b * rows * w, dy,
                                   up->dy + b * 2 * f * w);
    }
    kiln_ane_post(ane, KILN_MATRIX_W2, layer, out, taps, KILN_FEED_FORWARD, 2 * f);
    kiln_ane_post(ane, KILN_MATRIX_W13, layer, up, taps, KILN_FEED_FORWARD, 3 * f);
    return kiln_ane_norm_backward(ane, KILN_FEED_FORWARD, layer, x_in, dx, NULL, err);
}

static enum kiln_status attention_backward(struct kiln_ane *ane, size_t layer, const float *x_in,
                                           float *dx, const uint16_t *taps, struct kiln_err *err) {
    const size_t d = ane->base.table->dims.dim, w = ane->width;
    const size_t hk = kiln_ane_hk(ane), qkv = hk + 2 * kiln_ane_gk(ane);
    const size_t rows = kiln_ane_tap_rows(&ane->base.table->dims, KILN_ATTENTION);
    struct kiln_dw_slot *out = kiln_ane_slot(ane, 0), *in = kiln_ane_slot(ane, 1);
    for (size_t b = 0; b < ane->base.shape.batch; b++) {
        kiln_ane_sequence(ane, b);
        const uint16_t *tap = taps + b * rows * w;
        uint16_t *dy = out->dy + b * d * w, *dqkv = in->dy + b * qkv * w;
        const struct kiln_ane_rows first[] = {{.half = tap, .rows = qkv}, {.half = dy, .rows = d}};
        const struct kiln_ane_rows last = {.half = dqkv, .rows = qkv};
        kiln_host_to_half(&ane->host, dy, dx + b * d * w, d);
        KILN_TRY(kiln_ane_write(ane, KILN_NPU_ATTN_BWD1, layer, first, 2, err));
        KILN_TRY(kiln_ane_run(ane, KILN_NPU_ATTN_BWD1, layer, err));
        KILN_TRY(kiln_ane_scores_backward(ane, KILN_NPU_ATTN_BWD1, KILN_NPU_ATTN_BWD2, layer, tap,
                                          dqkv, err));
        kiln_ane_heads_backward(ane, layer, b, tap, dqkv);
        kiln_ane_adapters_backward(ane, KILN_ATTENTION, layer, b, tap, dy, dqkv);
        KILN_TRY(kiln_ane_write(ane, KILN_NPU_QKV_BWD, layer, &last, 1, err));
        KILN_TRY(kiln_ane_run(ane, KILN_NPU_QKV_BWD, layer, err));
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_QKV_BWD, 0, d, ane->dxn + b * d * w, err));
    }
    kiln_ane_post(ane, KILN_MATRIX_WO, layer, out, taps, KILN_ATTENTION, qkv);
    kiln_ane_post(ane, KILN_MATRIX_QKV, layer, in, taps, KILN_ATTENTION, qkv + hk);
    return kiln_ane_norm_backward(ane, KILN_ATTENTION, layer, x_in, dx, NULL, err);
}

enum kiln_status kiln_ane_backward_baked(struct kiln_ane *ane, size_t layer, enum kiln_half half,
                                         const float *x_in, float *dx, const uint16_t *taps,
                                         struct kiln_err *err) {
    return half == KILN_ATTENTION ? attention_backward(ane, layer, x_in, dx, taps, err)
                                  : feed_forward_backward(ane, layer, x_in, dx, taps, err);
}

/* SPDX-License-Identifier: MIT
 *
 * classify.c: the end of the model: final norm, classifier and softmax on the device where the
 * extras are on; loss and gradients on the host.
 */
#include <string.h>

#include "base/machine.h"
#include "device/ane/ane_int.h"

static enum kiln_status gather_parts(struct kiln_ane *ane, uint16_t *to, struct kiln_err *err) {
    const size_t w = ane->width;
    for (size_t p = 0; p < ane->n_parts; p++) {
        size_t first;
        uint16_t *from;
        const size_t rows = kiln_npu_classifier_rows(&ane->base.table->dims, p, &first);
        struct kiln_npu_surface *part = ane->from[KILN_NPU_CLASSIFIER][p];
        KILN_TRY(kiln_ane_lock(ane, part, true, rows * w, &from, err));
        memcpy(to + first * w, from, rows * w * sizeof *to);
        KILN_TRY(kiln_ane_unlock(ane, part, true, err));
    }
    return KILN_OK;
}

/* The classifier's parts, side by side as softmax wants them. */
static enum kiln_status gather(struct kiln_ane *ane, struct kiln_err *err) {
    struct kiln_npu_surface *all = ane->to[KILN_NPU_SOFTMAX][0];
    const double start = kiln_now_s();
    struct kiln_err later;
    uint16_t *to;
    if (ane->n_parts == 1) {
        return KILN_OK; /* they are one surface */
    }
    KILN_TRY(kiln_ane_lock(ane, all, false, ane->base.table->dims.vocab * ane->width, &to, err));
    const enum kiln_status status = gather_parts(ane, to, err);
    const enum kiln_status unlocked =
        kiln_ane_unlock(ane, all, false, status == KILN_OK ? err : &later);
    kiln_ane_span(ane, KILN_SPAN_SURFACE, KILN_NPU_SOFTMAX, 0, start);
    return status == KILN_OK ? unlocked : status;
}

static enum kiln_status run_programs(struct kiln_ane *ane, const float *x, struct kiln_err *err) {
    const size_t d = ane->base.table->dims.dim;
    const struct kiln_ane_rows in = {
        .wide = x, .scale = kiln_host_norm_scale(&ane->host, x, d), .rows = d};
    KILN_TRY(kiln_ane_write(ane, KILN_NPU_FINAL_NORM, 0, &in, 1, err));
    KILN_TRY(kiln_ane_run(ane, KILN_NPU_FINAL_NORM, 0, err));
    for (size_t p = 0; p < ane->n_parts; p++) {
        KILN_TRY(kiln_ane_run(ane, KILN_NPU_CLASSIFIER, p, err));
    }
    if (ane->places[KILN_NPU_SOFTMAX] == 0) {
        return KILN_OK;
    }
    KILN_TRY(gather(ane, err));
    return kiln_ane_run(ane, KILN_NPU_SOFTMAX, 0, err);
}

/* The surfaces that the loss is read from: logits, then probabilities, then the norm's output. */
struct sources {
    struct kiln_npu_surface **at;
    uint16_t **bytes;
    size_t *elements;
    size_t n, locked;
};

static enum kiln_status lock_all(struct kiln_ane *ane, struct sources *s, struct kiln_err *err) {
    for (; s->locked < s->n; s->locked++) {
        KILN_TRY(kiln_ane_lock(ane, s->at[s->locked], true, s->elements[s->locked],
                               &s->bytes[s->locked], err));
    }
    return KILN_OK;
}

static enum kiln_status unlock_all(struct kiln_ane *ane, const struct sources *s,
                                   enum kiln_status status, struct kiln_err *err) {
    struct kiln_err later;
    for (size_t i = 0; i < s->locked; i++) {
        const enum kiln_status unlocked =
            kiln_ane_unlock(ane, s->at[i], true, status == KILN_OK ? err : &later);
        status = status == KILN_OK ? unlocked : status;
    }
    return status;
}

/* One sequence, from x to its loss and gradients. */
static enum kiln_status sequence(struct kiln_ane *ane, size_t b, const float *x,
                                 const uint32_t *targets, float scale, float *dx, double *loss,
                                 struct kiln_err *err) {
    const struct kiln_dims *d = &ane->base.table->dims;
    const size_t w = ane->width, p = ane->n_parts;
    const bool softmax = ane->places[KILN_NPU_SOFTMAX] > 0;
    struct kiln_npu_surface *surfaces[KILN_ANE_PARTS + 2];
    uint16_t *bytes[KILN_ANE_PARTS + 2];
    size_t elements[KILN_ANE_PARTS + 2];
    struct kiln_host_logits parts[KILN_ANE_PARTS];
    struct sources s = {surfaces, bytes, elements, p + softmax + (dx != NULL), 0};
    KILN_TRY(run_programs(ane, x + b * d->dim * w, err));
    for (size_t i = 0; i < p; i++) {
        surfaces[i] = ane->from[KILN_NPU_CLASSIFIER][i];
        parts[i].rows = kiln_npu_classifier_rows(d, i, &parts[i].first);
        elements[i] = parts[i].rows * w;
    }
    if (softmax) {
        surfaces[p] = ane->from[KILN_NPU_SOFTMAX][0];
        elements[p] = d->vocab * w;
    }
    if (dx) {
        surfaces[p + softmax] = ane->from[KILN_NPU_FINAL_NORM][0];
        elements[p + softmax] = d->dim * w;
    }
    const enum kiln_status status = lock_all(ane, &s, err);
    if (status == KILN_OK) {
        for (size_t i = 0; i < p; i++) {
            parts[i].logits = bytes[i];
        }
        const struct kiln_host_made made = {parts, p, softmax ? bytes[p] : NULL,
                                            dx ? bytes[p + softmax] : NULL};
        kiln_host_head_made(&ane->host, b, &made, x, targets, scale, &ane->base.gradients, dx,
                            loss);
    }
    return unlock_all(ane, &s, status, err);
}

enum kiln_status kiln_ane_head(struct kiln_device *device, const void *x, const uint32_t *targets,
                               float scale, void *dx, double *loss, struct kiln_err *err) {
    struct kiln_ane *ane = kiln_ane_of(device);
    if (!ane->extras) {
        kiln_host_head(&ane->host, x, targets, scale, &device->gradients, dx, loss);
        return KILN_OK;
    }
    *loss = 0.0;
    for (size_t b = 0; b < device->shape.batch; b++) {
        double part = 0.0;
        KILN_TRY(sequence(ane, b, x, targets, scale, dx, &part, err));
        *loss += part;
    }
    return KILN_OK;
}

/* SPDX-License-Identifier: MIT */
#include "train/explain/explain_walk.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static const char weight[] = "weight", activation[] = "activation", backward[] = "gradient";

/* The name of a stage, and what it is to a cpu: an operand of products is of the run's precision,
 * all else is fp32. */
static const struct {
    const char *name;
    bool operand;
} stages[KILN_STAGES] = {
    [KILN_STAGE_EMBEDDING] = {"embedding", false},
    [KILN_STAGE_ATTN_SQUARES] = {"attn_squares", false},
    [KILN_STAGE_ATTN_NORM] = {"attn_norm", true},
    [KILN_STAGE_QUERIES] = {"queries", true},
    [KILN_STAGE_KEYS] = {"keys", true},
    [KILN_STAGE_VALUES] = {"values", true},
    [KILN_STAGE_TURNED_QUERIES] = {"turned_queries", true},
    [KILN_STAGE_TURNED_KEYS] = {"turned_keys", true},
    [KILN_STAGE_SCORES] = {"scores", false},
    [KILN_STAGE_ATTENTION] = {"attention", true},
    [KILN_STAGE_ATTN_RESIDUAL] = {"attn_residual", false},
    [KILN_STAGE_FFN_SQUARES] = {"ffn_squares", false},
    [KILN_STAGE_FFN_NORM] = {"ffn_norm", true},
    [KILN_STAGE_GATE] = {"gate", true},
    [KILN_STAGE_UP] = {"up", true},
    [KILN_STAGE_PRODUCT] = {"gate_up", true},
    [KILN_STAGE_FFN_RESIDUAL] = {"ffn_residual", false},
    [KILN_STAGE_FINAL_SQUARES] = {"final_squares", false},
    [KILN_STAGE_FINAL_NORM] = {"final_norm", true},
    [KILN_STAGE_LOGITS] = {"logits", false},
    [KILN_STAGE_LOSS] = {"loss", false},
};

#define FP16_MOST 65504.0

static double limit_of(enum kiln_precision precision, bool operand) {
    if (!operand || precision == KILN_PRECISION_FP32) {
        return (double)FLT_MAX;
    }
    return precision == KILN_PRECISION_FP16 ? FP16_MOST : 0x1.FEp127; /* the largest of bf16 */
}

/* What a program of the Neural Engine, or of its simulator, holds of a stage
 * (device/ane/programs.h). The residual stream and the sums of squares are not among its outputs:
 * the host adds in fp32, and scales what a norm reads until its squares fit (kiln_host_norm_scale).
 */
static double npu_limit(const struct kiln_walk_arithmetic *a, enum kiln_stage stage) {
    switch (stage) {
        case KILN_STAGE_SCORES:
        case KILN_STAGE_ATTENTION:
            return KILN_WALK_MATMUL_MOST;
        case KILN_STAGE_QUERIES:
        case KILN_STAGE_KEYS:
        case KILN_STAGE_VALUES:
        case KILN_STAGE_GATE:
        case KILN_STAGE_UP:
            return a->dynamic ? KILN_WALK_MATMUL_MOST : FP16_MOST;
        case KILN_STAGE_FINAL_NORM:
        case KILN_STAGE_LOGITS:
            return a->classify ? FP16_MOST : (double)FLT_MAX;
        default:
            return limit_of(KILN_PRECISION_FP16, stages[stage].operand);
    }
}

/* The same of a gradient, which the device has times the loss scale. That of the residual stream is
 * what programs read; the end of the model is the host's on the way back. */
static double npu_gradient_limit(const struct kiln_walk_arithmetic *a, enum kiln_stage stage) {
    switch (stage) {
        case KILN_STAGE_EMBEDDING:
        case KILN_STAGE_FINAL_NORM:
        case KILN_STAGE_LOGITS:
            return (double)FLT_MAX;
        default:
            return FP16_MOST / a->scale;
    }
}

static double stage_limit(const struct kiln_walk *w, bool back, enum kiln_stage stage) {
    const struct kiln_walk_arithmetic *a = &w->arithmetic;
    return a->precision != KILN_PRECISION_FP16 ? limit_of(a->precision, stages[stage].operand)
           : back                              ? npu_gradient_limit(a, stage)
                                               : npu_limit(a, stage);
}

/* What a half-layer adds to the residual stream: an output of the NPU's programs, a sum in fp32
 * elsewhere. */
static double output_limit(const struct kiln_walk *w) {
    const struct kiln_walk_arithmetic *a = &w->arithmetic;
    return a->precision != KILN_PRECISION_FP16 ? (double)FLT_MAX
           : a->dynamic                        ? KILN_WALK_MATMUL_MOST
                                               : FP16_MOST;
}

/* ---- the list ---------------------------------------------------------------------------------
 */

static const struct kiln_explain_place nowhere = {KILN_EXPLAIN_NO_PLACE, KILN_EXPLAIN_NO_PLACE,
                                                  KILN_EXPLAIN_NO_PLACE, 0};

static struct kiln_explain_tensor *add(struct kiln_walk *w, const char *what, size_t layer,
                                       double limit) {
    struct kiln_explain_tensor *t = &w->items[w->n++];
    *t = (struct kiln_explain_tensor){
        .what = what, .layer = layer, .limit = limit, .first = nowhere, .largest = nowhere};
    return t;
}

/* A weight, its bias and its adapter. */
static void add_weight(struct kiln_walk *w, enum kiln_role role, size_t layer) {
    const struct kiln_tensor *t = kiln_table_find(w->table, role, layer);
    if (!t) {
        return;
    }
    const double operand = limit_of(w->arithmetic.precision, true);
    const bool product = t->rank == 2 && role != KILN_EMBED;
    snprintf(add(w, weight, layer, product ? operand : (double)FLT_MAX)->name, 24, "%.23s",
             t->name);
    for (int b = 0; b < 2 && kiln_lora_find(w->table, t, b); b++) {
        snprintf(add(w, weight, layer, operand)->name, 24, "%.23s",
                 kiln_lora_find(w->table, t, b)->name);
    }
}

static size_t *index_of(const struct kiln_walk *w, bool back, enum kiln_stage stage, size_t layer) {
    const size_t row = kiln_stage_of_layer(stage) ? layer : w->table->dims.layers;
    return (back ? w->backward : w->forward) + row * KILN_STAGES + stage;
}

static void add_stage(struct kiln_walk *w, bool back, enum kiln_stage stage, size_t layer) {
    const bool inside = kiln_stage_of_layer(stage);
    *index_of(w, back, stage, layer) = w->n;
    struct kiln_explain_tensor *t =
        add(w, back ? backward : activation, inside ? layer : KILN_NO_LAYER,
            stage_limit(w, back, stage));
    if (inside) {
        snprintf(t->name, sizeof t->name, "%s.%zu", stages[stage].name, layer);
    } else {
        snprintf(t->name, sizeof t->name, "%s", stages[stage].name);
    }
}

static bool is_residual(enum kiln_stage stage) {
    return stage == KILN_STAGE_ATTN_RESIDUAL || stage == KILN_STAGE_FFN_RESIDUAL;
}

/* The index of what a half-layer adds: right before the residual stream behind it. */
static void add_output(struct kiln_walk *w, enum kiln_stage stage, size_t layer) {
    snprintf(add(w, activation, layer, output_limit(w))->name, 24, "%s.%zu",
             stage == KILN_STAGE_ATTN_RESIDUAL ? "attn_output" : "ffn_output", layer);
}

/* What a stage is made with, before the stage. */
static const struct {
    enum kiln_stage stage;
    enum kiln_role roles[2];
} made_with[] = {
    {KILN_STAGE_ATTN_SQUARES, {KILN_ROLES, KILN_ROLES}},
    {KILN_STAGE_ATTN_NORM, {KILN_ATTN_NORM, KILN_ROLES}},
    {KILN_STAGE_QUERIES, {KILN_WQ, KILN_BQ}},
    {KILN_STAGE_KEYS, {KILN_WK, KILN_BK}},
    {KILN_STAGE_VALUES, {KILN_WV, KILN_BV}},
    {KILN_STAGE_TURNED_QUERIES, {KILN_Q_NORM, KILN_ROLES}},
    {KILN_STAGE_TURNED_KEYS, {KILN_K_NORM, KILN_ROLES}},
    {KILN_STAGE_SCORES, {KILN_ROLES, KILN_ROLES}},
    {KILN_STAGE_ATTENTION, {KILN_ROLES, KILN_ROLES}},
    {KILN_STAGE_ATTN_RESIDUAL, {KILN_WO, KILN_ROLES}},
    {KILN_STAGE_FFN_SQUARES, {KILN_ROLES, KILN_ROLES}},
    {KILN_STAGE_FFN_NORM, {KILN_FFN_NORM, KILN_ROLES}},
    {KILN_STAGE_GATE, {KILN_W1, KILN_ROLES}},
    {KILN_STAGE_UP, {KILN_W3, KILN_ROLES}},
    {KILN_STAGE_PRODUCT, {KILN_ROLES, KILN_ROLES}},
    {KILN_STAGE_FFN_RESIDUAL, {KILN_W2, KILN_ROLES}},
};
enum { IN_A_LAYER = sizeof made_with / sizeof made_with[0] };

static void add_forward(struct kiln_walk *w) {
    add_weight(w, KILN_EMBED, KILN_NO_LAYER);
    add_stage(w, false, KILN_STAGE_EMBEDDING, KILN_NO_LAYER);
    for (size_t l = 0; l < w->table->dims.layers; l++) {
        for (size_t i = 0; i < IN_A_LAYER; i++) {
            for (size_t k = 0; k < 2 && made_with[i].roles[k] != KILN_ROLES; k++) {
                add_weight(w, made_with[i].roles[k], l);
            }
            if (is_residual(made_with[i].stage)) {
                add_output(w, made_with[i].stage, l);
            }
            add_stage(w, false, made_with[i].stage, l);
        }
    }
    add_stage(w, false, KILN_STAGE_FINAL_SQUARES, KILN_NO_LAYER);
    add_weight(w, KILN_FINAL_NORM, KILN_NO_LAYER);
    add_stage(w, false, KILN_STAGE_FINAL_NORM, KILN_NO_LAYER);
    add_weight(w, w->table->dims.tied ? KILN_EMBED : KILN_HEAD, KILN_NO_LAYER);
    add_stage(w, false, KILN_STAGE_LOGITS, KILN_NO_LAYER);
    add_stage(w, false, KILN_STAGE_LOSS, KILN_NO_LAYER);
}

static void add_backward(struct kiln_walk *w) {
    static const enum kiln_stage of_layer[] = {
        KILN_STAGE_FFN_RESIDUAL, KILN_STAGE_PRODUCT,       KILN_STAGE_UP,        KILN_STAGE_GATE,
        KILN_STAGE_FFN_NORM,     KILN_STAGE_ATTN_RESIDUAL, KILN_STAGE_ATTENTION, KILN_STAGE_VALUES,
        KILN_STAGE_KEYS,         KILN_STAGE_QUERIES,       KILN_STAGE_ATTN_NORM};
    add_stage(w, true, KILN_STAGE_LOGITS, KILN_NO_LAYER);
    add_stage(w, true, KILN_STAGE_FINAL_NORM, KILN_NO_LAYER);
    for (size_t l = w->table->dims.layers; l-- > 0;) {
        for (size_t i = 0; i < sizeof of_layer / sizeof of_layer[0]; i++) {
            add_stage(w, true, of_layer[i], l);
        }
    }
    add_stage(w, true, KILN_STAGE_EMBEDDING, KILN_NO_LAYER);
}

enum kiln_status kiln_walk_open(struct kiln_walk *w, const struct kiln_table *table,
                                const struct kiln_walk_arithmetic *arithmetic, size_t seq,
                                struct kiln_err *err) {
    const size_t rows = (table->dims.layers + 1) * KILN_STAGES;
    *w = (struct kiln_walk){.table = table, .arithmetic = *arithmetic};
    w->items =
        kiln_alloc(table->n_tensors + 1 + 2 * rows + 2 * table->dims.layers, sizeof *w->items);
    w->residual = kiln_alloc(seq * table->dims.dim, sizeof *w->residual);
    w->forward = kiln_alloc(rows, sizeof *w->forward);
    w->backward = kiln_alloc(rows, sizeof *w->backward);
    if (!w->items || !w->residual || !w->forward || !w->backward) {
        kiln_walk_close(w);
        return KILN_FAIL(err, KILN_ENOMEM, "explain: not enough memory");
    }
    add_forward(w);
    add_backward(w);
    return KILN_OK;
}

void kiln_walk_close(struct kiln_walk *w) {
    kiln_free(w->items);
    kiln_free(w->residual);
    kiln_free(w->forward);
    kiln_free(w->backward);
    *w = (struct kiln_walk){.items = NULL};
}

/* ---- looking ----------------------------------------------------------------------------------
 */

/* One number. A later sequence's place is never the first of a stage that had one before. */
static void look(struct kiln_explain_tensor *t, size_t sequence, size_t row, size_t col,
                 double value) {
    const struct kiln_explain_place here = {sequence, row, col, value};
    t->values++;
    if (!isfinite(value)) {
        if (t->not_finite++ == 0) {
            t->first = here;
        }
        return;
    }
    if (t->largest.element == KILN_EXPLAIN_NO_PLACE || fabs(value) > fabs(t->largest.value)) {
        t->largest = here;
    }
    if (fabs(value) > t->limit && t->beyond++ == 0 && t->not_finite == 0) {
        t->first = here;
    }
}

/* The residual stream: what the half-layer added to it. */
static void look_at_output(struct kiln_walk *w, struct kiln_explain_tensor *t,
                           struct kiln_float64_values values) {
    for (size_t i = 0; i < values.rows; i++) {
        for (size_t j = 0; j < values.width; j++) {
            look(t, w->sequence, i, j,
                 values.at[i * values.apart + j] - w->residual[i * values.width + j]);
        }
    }
}

static void keep_residual(struct kiln_walk *w, struct kiln_float64_values values) {
    for (size_t i = 0; i < values.rows; i++) {
        memcpy(w->residual + i * values.width, values.at + i * values.apart,
               values.width * sizeof *w->residual);
    }
}

void kiln_walk_see(void *context, enum kiln_stage stage, size_t layer, bool gradient,
                   struct kiln_float64_values values) {
    struct kiln_walk *w = context;
    struct kiln_explain_tensor *t = &w->items[*index_of(w, gradient, stage, layer)];
    if (!gradient && is_residual(stage)) {
        look_at_output(w, t - 1, values);
    }
    if (!gradient && (is_residual(stage) || stage == KILN_STAGE_EMBEDDING)) {
        keep_residual(w, values);
    }
    for (size_t i = 0; i < values.rows; i++) {
        for (size_t j = 0; j < values.width; j++) {
            look(t, w->sequence, i, j, values.at[i * values.apart + j]);
        }
    }
}

static const struct kiln_tensor *tensor_named(const struct kiln_table *table, const char *name) {
    size_t i = 0;
    while (strcmp(table->tensors[i].name, name) != 0) {
        i++;
    }
    return &table->tensors[i];
}

void kiln_walk_weights(struct kiln_walk *w, const float *weights, const bool *used) {
    bool looked_up = false; /* the embedding's first place in the walk is behind us */
    for (size_t i = 0; i < w->n; i++) {
        struct kiln_explain_tensor *item = &w->items[i];
        if (item->what != weight) {
            continue;
        }
        const struct kiln_tensor *t = tensor_named(w->table, item->name);
        const bool lookup = t->role == KILN_EMBED && !looked_up;
        looked_up |= t->role == KILN_EMBED;
        for (size_t row = 0; row < t->rows; row++) {
            const float *at = weights + t->offset + row * t->cols;
            for (size_t col = 0; col < t->cols && (!lookup || used[row]); col++) {
                look(item, KILN_EXPLAIN_NO_PLACE, row, col, (double)at[col]);
            }
        }
    }
}

static size_t first(const struct kiln_walk *w, bool finite, bool only_activations) {
    for (size_t i = 0; i < w->n; i++) {
        const struct kiln_explain_tensor *t = &w->items[i];
        const bool bad = finite ? t->beyond > 0 : t->not_finite > 0;
        if (bad && !(only_activations && t->what == weight)) {
            return i;
        }
    }
    return KILN_EXPLAIN_NO_PLACE;
}

size_t kiln_walk_first(const struct kiln_walk *w, bool finite) { return first(w, finite, false); }
size_t kiln_walk_first_activation(const struct kiln_walk *w, bool finite) {
    return first(w, finite, true);
}

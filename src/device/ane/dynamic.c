/* SPDX-License-Identifier: MIT
 *
 * dynamic.c: half-layers whose weights are inputs: written onto a layer's own surfaces when they
 * change, beside columns for the activations. Norms and SwiGLU's backward are the host's.
 */
#include <string.h>

#include "base/machine.h"
#include "device/ane/ane_int.h"

/* ---- weights on surfaces ----------------------------------------------------------------------
 */

/* A weight in an input: which, and whether transposed ([in, out]). */
struct staged {
    enum kiln_role role;
    bool turned;
};

/* Inputs that hold weights: parts of activations, then of weights. */
static const struct {
    enum kiln_npu_kind kind;
    enum kiln_matrix_kind matrix; /* that the weights belong to; W13 and W2 where there are two */
    size_t activations, n;
    struct staged weights[3];
} inputs[] = {
    {KILN_NPU_SDPA_FWD, KILN_MATRIX_QKV, 1, 3, {{KILN_WQ, 1}, {KILN_WK, 1}, {KILN_WV, 1}}},
    {KILN_NPU_WO_FWD, KILN_MATRIX_WO, 1, 1, {{KILN_WO, 1}}},
    {KILN_NPU_FFN_FUSED, KILN_MATRIX_W13, 1, 3, {{KILN_W1, 1}, {KILN_W3, 1}, {KILN_W2, 0}}},
    {KILN_NPU_FFN_BWD_W2, KILN_MATRIX_W2, 1, 1, {{KILN_W2, 0}}},
    {KILN_NPU_FFN_BWD_W13, KILN_MATRIX_W13, 2, 2, {{KILN_W1, 0}, {KILN_W3, 0}}},
    {KILN_NPU_WO_BWD, KILN_MATRIX_WO, 1, 1, {{KILN_WO, 0}}},
    {KILN_NPU_Q_BWD, KILN_MATRIX_QKV, 1, 1, {{KILN_WQ, 0}}},
    {KILN_NPU_KV_BWD, KILN_MATRIX_QKV, 2, 2, {{KILN_WK, 0}, {KILN_WV, 0}}},
};
enum { N_INPUTS = sizeof inputs / sizeof inputs[0], TURNED_ROWS = 16, TURNED_COLS = 256 };

/* Vectors of sdpa_fwd's input: the part in whose columns each begins. They change when the matrix
 * of queries, keys and values does. */
static const struct {
    enum kiln_role role;
    size_t part;
} vectors[] = {
    {KILN_BQ, 1}, {KILN_BK, 2}, {KILN_BV, 3}, {KILN_Q_NORM, 1}, {KILN_K_NORM, 2},
};
enum { N_VECTORS = sizeof vectors / sizeof vectors[0] };

/* Vector v of an input's layer; NULL: the model or the input has none. */
static const struct kiln_tensor *vector_of(const struct kiln_table *table, size_t input, size_t v,
                                           size_t layer) {
    return inputs[input].kind == KILN_NPU_SDPA_FWD ? kiln_table_find(table, vectors[v].role, layer)
                                                   : NULL;
}

/* fp16 elements of weights on an input of a layer. */
static size_t elements_of(const struct kiln_table *table, size_t input, size_t layer) {
    size_t n = 0;
    for (size_t i = 0; i < inputs[input].n; i++) {
        const struct kiln_tensor *t = kiln_table_find(table, inputs[input].weights[i].role, layer);
        n += t->rows * t->cols;
    }
    for (size_t v = 0; v < N_VECTORS; v++) {
        const struct kiln_tensor *t = vector_of(table, input, v, layer);
        n += t ? t->cols : 0;
    }
    return n;
}

static unsigned char *stale_at(const struct kiln_ane *ane, enum kiln_npu_kind kind, size_t layer) {
    return &ane->stale[(size_t)kind * ane->base.table->dims.layers + layer];
}

/* Called on pool workers, perhaps by several for one matrix. */
void kiln_ane_stale(struct kiln_ane *ane, size_t matrix) {
    const struct kiln_matrix *m = &ane->base.table->matrices[matrix];
    for (size_t i = 0; ane->dynamic && i < N_INPUTS; i++) {
        const bool fused = inputs[i].kind == KILN_NPU_FFN_FUSED && m->kind == KILN_MATRIX_W2;
        if (m->kind != KILN_MATRIX_HEAD && (inputs[i].matrix == m->kind || fused)) {
            __atomic_store_n(stale_at(ane, inputs[i].kind, m->layer), 1, __ATOMIC_RELAXED);
        }
    }
}

struct stage_job {
    const struct kiln_kernels *kernels;
    const float *weight; /* [rows, cols] */
    size_t cols;
    uint16_t *at; /* column of the surface where it begins */
    size_t stride;
    bool turned;
    int *beyond; /* set when a weight is none in fp16; any thread */
};

static void convert(const struct stage_job *job, uint16_t *out, const float *in, size_t n) {
    uint16_t infinite = 0;
    job->kernels->half_of(out, in, n);
    for (size_t i = 0; i < n; i++) {
        infinite |= (out[i] & 0x7c00) == 0x7c00;
    }
    if (infinite) {
        __atomic_store_n(job->beyond, 1, __ATOMIC_RELAXED);
    }
}

/* Rows of a weight: rows of the surface, or columns. */
static void stage_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct stage_job *job = context;
    uint16_t block[TURNED_ROWS][TURNED_COLS];
    (void)index;
    (void)scratch;
    for (size_t r = 0; !job->turned && r < rows; r++) {
        convert(job, job->at + (first + r) * job->stride, job->weight + (first + r) * job->cols,
                job->cols);
    }
    for (size_t c = 0; job->turned && c < job->cols; c += TURNED_COLS) {
        const size_t n = job->cols - c < TURNED_COLS ? job->cols - c : TURNED_COLS;
        for (size_t r = 0; r < rows; r++) {
            convert(job, block[r], job->weight + (first + r) * job->cols + c, n);
        }
        for (size_t i = 0; i < n; i++) {
            uint16_t *out = job->at + (c + i) * job->stride + first;
            for (size_t r = 0; r < rows; r++) {
                out[r] = block[r][i];
            }
        }
    }
}

static void stage_vectors(const struct kiln_ane *ane, size_t input, size_t layer, uint16_t *at,
                          int *beyond) {
    const struct kiln_table *table = ane->base.table;
    const struct kiln_npu_port *port = &ane->in[inputs[input].kind];
    const struct stage_job job = {.kernels = &ane->host.kernels, .beyond = beyond};
    for (size_t v = 0; v < N_VECTORS; v++) {
        const struct kiln_tensor *t = vector_of(table, input, v, layer);
        if (t) {
            const size_t row = port->rows + kiln_npu_vector_row(&table->dims, vectors[v].role);
            convert(&job, at + row * port->width + kiln_npu_part_at(port, vectors[v].part),
                    kiln_weights_wide(&ane->base.weights, t), t->cols);
        }
    }
}

/* Write the weights of an input that have changed. */
static enum kiln_status stage(struct kiln_ane *ane, size_t input, size_t layer,
                              struct kiln_err *err) {
    const enum kiln_npu_kind kind = inputs[input].kind;
    const struct kiln_npu_port *port = &ane->in[kind];
    struct kiln_npu_surface *surface = ane->to[kind][layer];
    const double start = kiln_now_s();
    int beyond = 0;
    uint16_t *at;
    KILN_TRY(
        kiln_ane_lock(ane, surface, false, elements_of(ane->base.table, input, layer), &at, err));
    for (size_t i = 0; i < inputs[input].n; i++) {
        const struct kiln_tensor *t =
            kiln_table_find(ane->base.table, inputs[input].weights[i].role, layer);
        struct stage_job job = {.kernels = &ane->host.kernels,
                                .weight = kiln_weights_wide(&ane->base.weights, t),
                                .cols = t->cols,
                                .at = at + kiln_npu_part_at(port, inputs[input].activations + i),
                                .stride = port->width,
                                .turned = inputs[input].weights[i].turned,
                                .beyond = &beyond};
        kiln_rows(&ane->host.workers, t->rows, TURNED_ROWS, stage_rows, &job);
    }
    stage_vectors(ane, input, layer, at, &beyond);
    KILN_TRY(kiln_ane_unlock(ane, surface, false, err));
    kiln_ane_span(ane, KILN_SPAN_SURFACE, kind, layer, start);
    KILN_REQUIRE(!beyond, err, KILN_EDIVERGED,
                 "%s: a weight of layer %zu for %s is beyond what fp16 holds (65504); lower --lr, "
                 "or train on --device cpu",
                 ane->base.caps.name, layer, kiln_npu_kind_name(kind));
    __atomic_store_n(stale_at(ane, kind, layer), 0, __ATOMIC_RELAXED);
    return KILN_OK;
}

uint64_t kiln_ane_staged_elements(const struct kiln_table *table, bool training) {
    uint64_t n = 0;
    for (size_t i = 0; i < N_INPUTS; i++) {
        const bool forward = inputs[i].kind <= KILN_NPU_FFN_FUSED;
        n += forward || training ? elements_of(table, i, 0) * table->dims.layers : 0;
    }
    return n;
}

/* Write the activations of a program and run it on its layer's surfaces. */
static enum kiln_status run(struct kiln_ane *ane, enum kiln_npu_kind kind, size_t layer,
                            const uint16_t *const *halves, size_t rows, struct kiln_err *err) {
    struct kiln_ane_rows pieces[2];
    size_t input = 0;
    while (inputs[input].kind != kind) {
        input++;
    }
    if (__atomic_load_n(stale_at(ane, kind, layer), __ATOMIC_RELAXED)) {
        KILN_TRY(stage(ane, input, layer, err));
    }
    for (size_t i = 0; i < inputs[input].activations; i++) {
        pieces[i] = (struct kiln_ane_rows){.half = halves[i], .rows = rows};
    }
    KILN_TRY(kiln_ane_write(ane, kind, layer, pieces, inputs[input].activations, err));
    return kiln_ane_run(ane, kind, layer, err);
}

/* ---- forward ----------------------------------------------------------------------------------
 */

static const float *norm_weight(const struct kiln_ane *ane, enum kiln_half half, size_t layer) {
    const enum kiln_role role = half == KILN_ATTENTION ? KILN_ATTN_NORM : KILN_FFN_NORM;
    return kiln_weights_wide(&ane->base.weights, kiln_table_find(ane->base.table, role, layer));
}

static enum kiln_status attention(struct kiln_ane *ane, size_t layer, const float *x, float *x_out,
                                  uint16_t *tap, bool keep, struct kiln_err *err) {
    const size_t w = ane->width, d = ane->base.table->dims.dim;
    const size_t hk = kiln_ane_hk(ane), qkv = hk + 2 * kiln_ane_gk(ane);
    const uint16_t *att = tap + qkv * w, *xn = tap + (qkv + hk) * w;
    kiln_host_norm(&ane->host, norm_weight(ane, KILN_ATTENTION, layer), x, tap + (qkv + hk) * w);
    KILN_TRY(run(ane, KILN_NPU_SDPA_FWD, layer, &xn, d, err));
    KILN_TRY(kiln_ane_read(ane, KILN_NPU_SDPA_FWD, 0, hk, tap + qkv * w, err));
    if (keep) {
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_SDPA_FWD, hk, qkv, tap, err));
    }
    if (keep && ane->base.table->dims.qk_norm) {
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_SDPA_FWD, hk + qkv, hk + kiln_ane_gk(ane),
                               tap + (qkv + hk + d) * w, err));
    }
    KILN_TRY(run(ane, KILN_NPU_WO_FWD, layer, &att, hk, err));
    return kiln_ane_take(ane, KILN_NPU_WO_FWD, x, x_out, NULL, 0, err);
}

static enum kiln_status feed_forward(struct kiln_ane *ane, size_t layer, const float *x,
                                     float *x_out, uint16_t *tap, bool keep, struct kiln_err *err) {
    const size_t w = ane->width, d = ane->base.table->dims.dim, f = ane->base.table->dims.hidden;
    const uint16_t *xn = tap + 3 * f * w;
    kiln_host_norm(&ane->host, norm_weight(ane, KILN_FEED_FORWARD, layer), x, tap + 3 * f * w);
    KILN_TRY(run(ane, KILN_NPU_FFN_FUSED, layer, &xn, d, err));
    return kiln_ane_take(ane, KILN_NPU_FFN_FUSED, x, x_out, tap, keep ? 3 * f : 0, err);
}

enum kiln_status kiln_ane_forward_dynamic(struct kiln_ane *ane, size_t layer, enum kiln_half half,
                                          const float *x_in, float *x_out, uint16_t *taps,
                                          bool keep, struct kiln_err *err) {
    const size_t block = ane->base.table->dims.dim * ane->width;
    const size_t rows = kiln_ane_tap_rows(&ane->base.table->dims, half);
    for (size_t b = 0; b < ane->base.shape.batch; b++) {
        kiln_ane_sequence(ane, b);
        uint16_t *tap = keep ? taps + b * rows * ane->width : ane->tap;
        const float *x = x_in + b * block;
        KILN_TRY(half == KILN_ATTENTION
                     ? attention(ane, layer, x, x_out + b * block, tap, keep, err)
                     : feed_forward(ane, layer, x, x_out + b * block, tap, keep, err));
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
        const uint16_t *h1 = taps + b * rows * w, *h3 = h1 + f * w;
        const uint16_t *dy = out->dy + b * d * w;
        uint16_t *dh1 = up->dy + b * 2 * f * w, *dh3 = dh1 + f * w;
        const uint16_t *const dh[] = {dh1, dh3};
        kiln_host_to_half(&ane->host, out->dy + b * d * w, dx + b * d * w, d);
        KILN_TRY(run(ane, KILN_NPU_FFN_BWD_W2, layer, &dy, d, err));
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_FFN_BWD_W2, 0, f, ane->dh, err));
        kiln_host_swiglu_backward(&ane->host, ane->dh, h1, h3, dh1, dh3);
        kiln_ane_adapters_backward(ane, KILN_FEED_FORWARD, layer, b, h1, dy, dh1);
        KILN_TRY(run(ane, KILN_NPU_FFN_BWD_W13, layer, dh, f, err));
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_FFN_BWD_W13, 0, d, ane->dxn + b * d * w, err));
    }
    kiln_ane_post(ane, KILN_MATRIX_W2, layer, out, taps, KILN_FEED_FORWARD, 2 * f);
    kiln_ane_post(ane, KILN_MATRIX_W13, layer, up, taps, KILN_FEED_FORWARD, 3 * f);
    return kiln_ane_norm_backward(ane, KILN_FEED_FORWARD, layer, x_in, dx, NULL, err);
}

static enum kiln_status attention_backward(struct kiln_ane *ane, size_t layer, const float *x_in,
                                           float *dx, const uint16_t *taps, struct kiln_err *err) {
    const size_t d = ane->base.table->dims.dim, w = ane->width;
    const size_t hk = kiln_ane_hk(ane), gk = kiln_ane_gk(ane), qkv = hk + 2 * gk;
    const size_t rows = kiln_ane_tap_rows(&ane->base.table->dims, KILN_ATTENTION);
    struct kiln_dw_slot *out = kiln_ane_slot(ane, 0), *in = kiln_ane_slot(ane, 1);
    for (size_t b = 0; b < ane->base.shape.batch; b++) {
        kiln_ane_sequence(ane, b);
        const uint16_t *tap = taps + b * rows * w, *dy = out->dy + b * d * w;
        uint16_t *dqkv = in->dy + b * qkv * w;
        const uint16_t *const dq = dqkv, *const dkv[] = {dqkv + hk * w, dqkv + (hk + gk) * w};
        const struct kiln_ane_rows scores[] = {{.half = tap, .rows = qkv},
                                               {.half = ane->dh, .rows = hk}};
        kiln_host_to_half(&ane->host, out->dy + b * d * w, dx + b * d * w, d);
        KILN_TRY(run(ane, KILN_NPU_WO_BWD, layer, &dy, d, err));
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_WO_BWD, 0, hk, ane->dh, err));
        KILN_TRY(kiln_ane_write(ane, KILN_NPU_SDPA_BWD1, 0, scores, 2, err));
        KILN_TRY(kiln_ane_run(ane, KILN_NPU_SDPA_BWD1, 0, err));
        KILN_TRY(kiln_ane_scores_backward(ane, KILN_NPU_SDPA_BWD1, KILN_NPU_SDPA_BWD2, layer, tap,
                                          dqkv, err));
        kiln_ane_heads_backward(ane, layer, b, tap, dqkv);
        kiln_ane_adapters_backward(ane, KILN_ATTENTION, layer, b, tap, dy, dqkv);
        KILN_TRY(run(ane, KILN_NPU_Q_BWD, layer, &dq, hk, err));
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_Q_BWD, 0, d, ane->dxn + b * d * w, err));
        KILN_TRY(run(ane, KILN_NPU_KV_BWD, layer, dkv, gk, err));
        KILN_TRY(kiln_ane_read(ane, KILN_NPU_KV_BWD, 0, d, ane->dxn2 + b * d * w, err));
    }
    kiln_ane_post(ane, KILN_MATRIX_WO, layer, out, taps, KILN_ATTENTION, qkv);
    kiln_ane_post(ane, KILN_MATRIX_QKV, layer, in, taps, KILN_ATTENTION, qkv + hk);
    return kiln_ane_norm_backward(ane, KILN_ATTENTION, layer, x_in, dx, ane->dxn2, err);
}

enum kiln_status kiln_ane_backward_dynamic(struct kiln_ane *ane, size_t layer, enum kiln_half half,
                                           const float *x_in, float *dx, const uint16_t *taps,
                                           struct kiln_err *err) {
    return half == KILN_ATTENTION ? attention_backward(ane, layer, x_in, dx, taps, err)
                                  : feed_forward_backward(ane, layer, x_in, dx, taps, err);
}

/* SPDX-License-Identifier: MIT */
#include "kernel/attention.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/product.h"

/* Scratch of a task. S and P blocks have rows of `cols` = T rounded up to a panel. */
struct parts {
    void *gemm;
    float *s, *dp;         /* [64, cols] */
    void *p, *ds;          /* operands [64, cols] */
    void *turned;          /* operands [cols, 64]: P or dS transposed */
    void *k_rows, *v_rows; /* K, V packed, contraction over K */
    void *columns;         /* V (forward) or K (backward) packed, contraction over T */
    void *block;           /* a block of Q or dO packed, contraction over 64 rows */
    float *dk, *dv;        /* [T, K] */
    float *delta;          /* [64] */
    size_t cols;
};

static size_t carve(struct parts *parts, void *base, const struct kiln_kernels *kernels, size_t seq,
                    size_t k) {
    size_t used = 0, operand = kernels->operand_bytes;
    parts->cols = kiln_round_up(seq, KILN_PANEL);
#define TAKE(field, bytes)                           \
    parts->field = (void *)((uintptr_t)base + used); \
    used = kiln_arena_reserve(used, (bytes))
    TAKE(gemm, KILN_GEMM_SCRATCH);
    TAKE(s, KILN_QUERY_ROWS * parts->cols * sizeof(float));
    TAKE(dp, KILN_QUERY_ROWS * parts->cols * sizeof(float));
    TAKE(p, KILN_QUERY_ROWS * parts->cols * operand);
    TAKE(ds, KILN_QUERY_ROWS * parts->cols * operand);
    TAKE(turned, KILN_QUERY_ROWS * parts->cols * operand);
    TAKE(k_rows, kiln_packed_elements(seq, k) * operand);
    TAKE(v_rows, kiln_packed_elements(seq, k) * operand);
    TAKE(columns, kiln_packed_elements(k, seq) * operand);
    TAKE(block, kiln_packed_elements(k, KILN_QUERY_ROWS) * operand);
    TAKE(dk, seq * k * sizeof(float));
    TAKE(dv, seq * k * sizeof(float));
    TAKE(delta, KILN_QUERY_ROWS * sizeof(float));
#undef TAKE
    return used;
}

size_t kiln_attention_scratch(const struct kiln_kernels *kernels, size_t seq, size_t head_size) {
    struct parts parts;
    return carve(&parts, NULL, kernels, seq, head_size);
}

/* Rows of q, k, v in the fused array. */
struct view {
    size_t ld, operand, q, k, v; /* element offsets in a row */
};

static struct view view_of(const struct kiln_attention *a, size_t g) {
    size_t h = a->heads * a->head_size, kv = a->kv_heads * a->head_size;
    return (struct view){.ld = h + 2 * kv,
                         .operand = a->kernels->operand_bytes,
                         .q = 0,
                         .k = h + g * a->head_size,
                         .v = h + kv + g * a->head_size};
}

static const void *at(const void *base, size_t row, size_t ld, size_t col, size_t operand) {
    return (const char *)base + (row * ld + col) * operand;
}
static void *to(void *base, size_t row, size_t ld, size_t col, size_t operand) {
    return (char *)base + (row * ld + col) * operand;
}

static void multiply(const struct kiln_kernels *kernels, struct kiln_gemm product, void *scratch) {
    kiln_product_own(kernels, &product, scratch);
}

/* ---- which keys a block of queries sees -------------------------------------------------------
 */

/* Queries i..i+m of a sequence and keys low..seen: none of these queries sees another. Columns of
 * a block are keys counted from `low`, where a panel begins. */
struct block {
    size_t i, m, low, n;
};

static struct block block_at(const struct kiln_attention *a, size_t i) {
    struct block b = {.i = i, .m = a->seq - i};
    b.m = b.m < KILN_QUERY_ROWS ? b.m : KILN_QUERY_ROWS;
    b.low = a->starts ? a->starts[i] / KILN_PANEL * KILN_PANEL : 0;
    b.n = i + b.m - b.low;
    return b;
}

/* Scores of keys that a query does not see become -infinity-like, as those behind it do in the
 * softmax: their exponential is 0. */
static void hide(const struct kiln_attention *a, const struct parts *w, const struct block *b) {
    for (size_t r = 0; a->starts && r < b->m; r++) {
        const size_t hidden = a->starts[b->i + r] - b->low;
        for (size_t u = 0; u < hidden; u++) {
            w->s[r * w->cols + u] = -3e38F;
        }
    }
}

/* Keys packed as rows, from `low` on; and packed over their places, from there on. */
static const void *rows_from(const struct kiln_attention *a, const void *packed, size_t low) {
    return (const char *)packed +
           low / KILN_PANEL * kiln_panel_elements(a->head_size) * a->kernels->operand_bytes;
}
static const void *columns_from(const struct kiln_attention *a, const void *packed, size_t low) {
    return (const char *)packed + low * KILN_PANEL * a->kernels->operand_bytes;
}

/* ---- forward and backward ---------------------------------------------------------------------
 */

void kiln_attention_fwd(const struct kiln_attention *a, size_t g, void *scratch) {
    const struct kiln_kernels *kernels = a->kernels;
    size_t k = a->head_size, share = a->heads / a->kv_heads;
    struct view view = view_of(a, g);
    struct parts w;
    carve(&w, scratch, kernels, a->seq, k);
    float scale = 1.0f / sqrtf((float)k);

    kernels->pack(w.k_rows, kiln_panel_elements(k), at(a->qkv, 0, view.ld, view.k, view.operand),
                  view.ld, a->seq, k);
    kernels->pack_t(w.columns, kiln_panel_elements(a->seq),
                    at(a->qkv, 0, view.ld, view.v, view.operand), view.ld, a->seq, k);
    for (size_t h = g * share; h < (g + 1) * share; h++) {
        for (size_t i = 0; i < a->seq; i += KILN_QUERY_ROWS) {
            const struct block b = block_at(a, i);
            multiply(kernels,
                     (struct kiln_gemm){.m = b.m,
                                        .n = b.n,
                                        .k = k,
                                        .a = at(a->qkv, i, view.ld, h * k, view.operand),
                                        .lda = view.ld,
                                        .b = rows_from(a, w.k_rows, b.low),
                                        .c = w.s,
                                        .ldc = w.cols},
                     w.gemm);
            hide(a, &w, &b);
            kernels->softmax_causal(w.p, w.cols, a->lse + h * a->seq + i, w.s, w.cols, b.m,
                                    i - b.low, b.n, scale);
            multiply(kernels,
                     (struct kiln_gemm){.m = b.m,
                                        .n = k,
                                        .k = b.n,
                                        .a = w.p,
                                        .lda = w.cols,
                                        .b = columns_from(a, w.columns, b.low),
                                        .panel = kiln_panel_elements(a->seq),
                                        .c = to(a->out, i, a->heads * k, h * k, view.operand),
                                        .ldc = a->heads * k,
                                        .c_operand = true},
                     w.gemm);
        }
    }
}

/* sums [n, K] += left [m, n]^T . right [m, K], right packed over its m rows. */
static void add_turned(const struct kiln_attention *a, struct parts *w, const void *left, size_t m,
                       size_t n, const void *right, size_t ld_right, float *sums) {
    const struct kiln_kernels *kernels = a->kernels;
    size_t k = a->head_size;
    kernels->transpose(w->turned, KILN_QUERY_ROWS, left, w->cols, m, n);
    kernels->pack_t(w->block, kiln_panel_elements(m), right, ld_right, m, k);
    multiply(kernels,
             (struct kiln_gemm){.m = n,
                                .n = k,
                                .k = m,
                                .a = w->turned,
                                .lda = KILN_QUERY_ROWS,
                                .b = w->block,
                                .c = sums,
                                .ldc = k,
                                .add = sums,
                                .ldadd = k},
             w->gemm);
}

static void block_bwd(const struct kiln_attention *a, struct parts *w, const struct view *view,
                      size_t h, size_t i) {
    const struct kiln_kernels *kernels = a->kernels;
    size_t k = a->head_size, width = a->heads * k;
    const struct block b = block_at(a, i);
    const size_t m = b.m;
    const void *q = at(a->qkv, i, view->ld, h * k, view->operand);
    const void *dout = at(a->dout, i, width, h * k, view->operand);
    struct kiln_gemm score = {.m = m,
                              .n = b.n,
                              .k = k,
                              .a = q,
                              .lda = view->ld,
                              .b = rows_from(a, w->k_rows, b.low),
                              .c = w->s,
                              .ldc = w->cols};
    multiply(kernels, score, w->gemm);
    score.a = dout;
    score.lda = width;
    score.b = rows_from(a, w->v_rows, b.low);
    score.c = w->dp;
    multiply(kernels, score, w->gemm);
    hide(a, w, &b);
    for (size_t r = 0; r < m; r++) {
        w->delta[r] = kernels->dot(at(a->dout, i + r, width, h * k, view->operand),
                                   at(a->out, i + r, width, h * k, view->operand), k);
    }
    kernels->softmax_causal_bwd(w->p, w->ds, w->cols, w->s, w->dp, w->cols, a->lse + h * a->seq + i,
                                w->delta, m, i - b.low, b.n, 1.0f / sqrtf((float)k));
    multiply(kernels,
             (struct kiln_gemm){.m = m,
                                .n = k,
                                .k = b.n,
                                .a = w->ds,
                                .lda = w->cols,
                                .b = columns_from(a, w->columns, b.low),
                                .panel = kiln_panel_elements(a->seq),
                                .c = to(a->dqkv, i, view->ld, h * k, view->operand),
                                .ldc = view->ld,
                                .c_operand = true},
             w->gemm);
    add_turned(a, w, w->p, m, b.n, dout, width, w->dv + b.low * k);
    add_turned(a, w, w->ds, m, b.n, q, view->ld, w->dk + b.low * k);
}

void kiln_attention_bwd(const struct kiln_attention *a, size_t g, void *scratch) {
    const struct kiln_kernels *kernels = a->kernels;
    size_t k = a->head_size, share = a->heads / a->kv_heads;
    struct view view = view_of(a, g);
    struct parts w;
    carve(&w, scratch, kernels, a->seq, k);
    const void *keys = at(a->qkv, 0, view.ld, view.k, view.operand);

    kernels->pack(w.k_rows, kiln_panel_elements(k), keys, view.ld, a->seq, k);
    kernels->pack(w.v_rows, kiln_panel_elements(k), at(a->qkv, 0, view.ld, view.v, view.operand),
                  view.ld, a->seq, k);
    kernels->pack_t(w.columns, kiln_panel_elements(a->seq), keys, view.ld, a->seq, k);
    memset(w.dk, 0, a->seq * k * sizeof *w.dk);
    memset(w.dv, 0, a->seq * k * sizeof *w.dv);
    for (size_t h = g * share; h < (g + 1) * share; h++) {
        for (size_t i = 0; i < a->seq; i += KILN_QUERY_ROWS) {
            block_bwd(a, &w, &view, h, i);
        }
    }
    for (size_t t = 0; t < a->seq; t++) {
        kernels->round(to(a->dqkv, t, view.ld, view.k, view.operand), w.dk + t * k, k);
        kernels->round(to(a->dqkv, t, view.ld, view.v, view.operand), w.dv + t * k, k);
    }
}

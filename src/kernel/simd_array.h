/* SPDX-License-Identifier: MIT
 *
 * simd_array.h: fp32 arrays of one tier, the same for both precisions (a part of simd_body.h):
 * sums, the embedding, the update.
 */

static void TIER(add)(float *y, const float *x, size_t n) {
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        v_store(y + i, v_load(y + i) + v_load(x + i));
    }
    for (; i < n; i++) {
        y[i] += x[i];
    }
}

/* The next 64 columns of a row, or fewer. */
INLINE void TIER(add_squares)(vf sum[4], const float *x, size_t cols) {
    size_t i = 0;
    for (size_t k = 0; i + VL <= cols; i += VL, k++) {
        const vf v = v_load(x + i);
        sum[k % 4] = v_fma(v, v, sum[k % 4]);
    }
    if (i < cols) {
        const vf v = TIER(load_tail)(x + i, cols - i);
        sum[0] = v_fma(v, v, sum[0]);
    }
}

/* Some rows of `blocks` neighbours, a constant, so that the sums stay in registers; of the last
 * only `last` columns. */
INLINE void TIER(sum_blocks)(vf lanes[][4], const float *x, size_t ld, size_t rows,
                             const size_t blocks, const size_t last) {
    vf sum[4][4];
    memcpy(sum, lanes, blocks * sizeof sum[0]);
    for (size_t r = 0; r < rows; r++) {
        for (size_t b = 0; b < blocks; b++) {
            TIER(add_squares)
            (sum[b], x + r * ld + b * KILN_SUM_BLOCK, b + 1 < blocks ? KILN_SUM_BLOCK : last);
        }
    }
    memcpy(lanes, sum, blocks * sizeof sum[0]);
}

/* Of up to SUMS blocks side by side a few rows at a time: memory likes to be read in its order. */
enum { TIER(SUMS) = 16, TIER(SUM_ROWS) = 4 };

INLINE void TIER(sum_some)(double *sum, const float *x, size_t ld, size_t rows, size_t cols) {
    vf lanes[TIER(SUMS)][4];
    memset(lanes, 0, sizeof lanes);
    for (size_t r = 0; r < rows; r += TIER(SUM_ROWS)) {
        const size_t n = rows - r < TIER(SUM_ROWS) ? rows - r : TIER(SUM_ROWS);
        const float *from = x + r * ld;
        size_t b = 0;
        for (; (b + 4) * KILN_SUM_BLOCK <= cols; b += 4) {
            TIER(sum_blocks)(lanes + b, from + b * KILN_SUM_BLOCK, ld, n, 4, KILN_SUM_BLOCK);
        }
        for (; (b + 1) * KILN_SUM_BLOCK <= cols; b++) {
            TIER(sum_blocks)(lanes + b, from + b * KILN_SUM_BLOCK, ld, n, 1, KILN_SUM_BLOCK);
        }
        if (b * KILN_SUM_BLOCK < cols) {
            TIER(sum_blocks)
            (lanes + b, from + b * KILN_SUM_BLOCK, ld, n, 1, cols - b * KILN_SUM_BLOCK);
        }
    }
    for (size_t b = 0; b * KILN_SUM_BLOCK < cols; b++) {
        sum[b] = (double)v_sum((lanes[b][0] + lanes[b][1]) + (lanes[b][2] + lanes[b][3]));
    }
}

static void TIER(sum_squares)(double *sum, const float *x, size_t ld, size_t rows, size_t cols) {
    const size_t wide = TIER(SUMS) * KILN_SUM_BLOCK;
    for (size_t j = 0; j < cols; j += wide) {
        TIER(sum_some)
        (sum + j / KILN_SUM_BLOCK, x + j, ld, rows, cols - j < wide ? cols - j : wide);
    }
}

static void TIER(adamw)(float *w, float *m, float *v, const float *g, size_t n,
                        const struct kiln_adamw *c) {
    for (size_t i = 0; i < n; i += VL) {
        size_t part = n - i < VL ? n - i : VL;
        bool full = part == VL;
        vf gv = (full ? v_load(g + i) : TIER(load_tail)(g + i, part)) * c->grad_scale;
        vf mv = full ? v_load(m + i) : TIER(load_tail)(m + i, part);
        vf vv = full ? v_load(v + i) : TIER(load_tail)(v + i, part);
        vf wv = full ? v_load(w + i) : TIER(load_tail)(w + i, part);
        mv = v_fma(gv - mv, v_set(1.0f - c->beta1), mv);
        vv = v_fma(gv * gv - vv, v_set(1.0f - c->beta2), vv);
        vf step = mv * c->correction1 / (v_sqrt(vv * c->correction2) + c->eps);
        wv = wv - c->lr * step - c->decay * wv;
        if (full) {
            v_store(w + i, wv);
            v_store(m + i, mv);
            v_store(v + i, vv);
        } else {
            TIER(store_tail)(w + i, wv, part);
            TIER(store_tail)(m + i, mv, part);
            TIER(store_tail)(v + i, vv, part);
        }
    }
}

/* ---- embedding ------------------------------------------------------------------------------- */

/* Rows lie anywhere: those of the tokens to come are asked for while one is worked on. */
enum { TIER(EMBED_AHEAD) = 4 };

INLINE void TIER(ask_row)(const float *row, size_t columns) {
    for (size_t j = 0; j < columns; j += 64 / sizeof(float)) {
        __builtin_prefetch(row + j, 1, 3);
    }
}

static void TIER(embed)(float *x, const float *table, const uint32_t *tokens, size_t n, size_t d) {
    for (size_t i = 0; i < n; i++) {
        if (i + TIER(EMBED_AHEAD) < n) {
            TIER(ask_row)(table + tokens[i + TIER(EMBED_AHEAD)] * d, d);
        }
        memcpy(x + i * d, table + tokens[i] * d, d * sizeof *x);
    }
}

static void TIER(embed_bwd)(float *table, const float *dx, const uint32_t *tokens, size_t n,
                            size_t d, size_t columns) {
    for (size_t i = 0; i < n; i++) {
        if (i + TIER(EMBED_AHEAD) < n) {
            TIER(ask_row)(table + tokens[i + TIER(EMBED_AHEAD)] * d, columns);
        }
        TIER(add)(table + tokens[i] * d, dx + i * d, columns);
    }
}

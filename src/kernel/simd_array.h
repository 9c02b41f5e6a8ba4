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

static double TIER(sum_squares)(const float *x, size_t n) {
    vf sum[4] = {{0}, {0}, {0}, {0}};
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL) {
        for (size_t j = 0; j < 4; j++) {
            vf v = v_load(x + i + j * VL);
            sum[j] = v_fma(v, v, sum[j]);
        }
    }
    double total = (double)v_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (; i < n; i++) {
        total += (double)x[i] * (double)x[i];
    }
    return total;
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

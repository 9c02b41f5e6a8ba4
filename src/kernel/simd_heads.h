/* SPDX-License-Identifier: MIT
 *
 * simd_heads.h: norms of query and key heads, and sums over rows (included by simd_body.h).
 */

/* Elements i.. of a head of k, as a vector; zeros behind its end. */
INLINE vf NAME(load_head)(const OP *p, size_t i, size_t k) {
    return k - i >= VL ? NAME(load)(p + i) : NAME(load_part)(p + i, k - i);
}
INLINE vf NAME(load_weight)(const float *w, size_t i, size_t k) {
    return k - i >= VL ? v_load(w + i) : TIER(load_tail)(w + i, k - i);
}
INLINE void NAME(store_head)(OP *p, size_t i, size_t k, vf v) {
    k - i >= VL ? NAME(store)(p + i, v) : NAME(store_part)(p + i, v, k - i);
}

static void NAME(head_norm)(void *y, const void *x, size_t ld, size_t rows, size_t heads, size_t k,
                            const float *w, float eps) {
    for (size_t r = 0; r < rows; r++) {
        for (size_t h = 0; h < heads; h++) {
            const OP *in = (const OP *)x + r * ld + h * k;
            OP *out = (OP *)y + r * ld + h * k;
            vf sum = {0};
            for (size_t i = 0; i < k; i += VL) {
                const vf v = NAME(load_head)(in, i, k);
                sum = v_fma(v, v, sum);
            }
            const float scale = 1.0f / sqrtf(v_sum(sum) / (float)k + eps);
            for (size_t i = 0; i < k; i += VL) {
                NAME(store_head)
                (out, i, k, NAME(load_head)(in, i, k) * scale * NAME(load_weight)(w, i, k));
            }
        }
    }
}

/* One head: g becomes the gradient of x. */
INLINE void NAME(head_bwd)(OP *g, float *dw, const OP *x, size_t k, const float *w, float eps) {
    vf squares = {0}, sum = {0};
    for (size_t i = 0; i < k; i += VL) {
        const vf v = NAME(load_head)(x, i, k);
        squares = v_fma(v, v, squares);
        sum = v_fma(NAME(load_head)(g, i, k) * NAME(load_weight)(w, i, k), v, sum);
    }
    const float scale = 1.0f / sqrtf(v_sum(squares) / (float)k + eps);
    const float mean = v_sum(sum) / (float)k * scale * scale * scale;
    for (size_t i = 0; i < k; i += VL) {
        const vf v = NAME(load_head)(x, i, k), gv = NAME(load_head)(g, i, k);
        const vf acc = v_fma(gv, v * scale, NAME(load_weight)(dw, i, k));
        NAME(store_head)(g, i, k, gv * NAME(load_weight)(w, i, k) * scale - v * mean);
        k - i >= VL ? v_store(dw + i, acc) : TIER(store_tail)(dw + i, acc, k - i);
    }
}

static void NAME(head_norm_bwd)(void *dy, float *dw, const void *x, size_t ld, size_t rows,
                                size_t heads, size_t k, const float *w, float eps) {
    for (size_t r = 0; r < rows; r++) {
        for (size_t h = 0; h < heads; h++) {
            const size_t at = r * ld + h * k;
            NAME(head_bwd)((OP *)dy + at, dw, (const OP *)x + at, k, w, eps);
        }
    }
}

static void NAME(sum_rows)(float *sum, const void *x, size_t ld, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++) {
        const OP *row = (const OP *)x + r * ld;
        for (size_t i = 0; i < n; i += VL) {
            const vf total = NAME(load_weight)(sum, i, n) + NAME(load_head)(row, i, n);
            n - i >= VL ? v_store(sum + i, total) : TIER(store_tail)(sum + i, total, n - i);
        }
    }
}

/* SPDX-License-Identifier: MIT
 *
 * ref_body.h: the plain C kernels for one operand precision (included by kernels_ref.c).
 */

#undef OP
#if OPERAND_BF16
#define OP uint16_t
static inline float NAME(get)(OP x) { return kiln_bf16_to_f32(x); }
static inline OP NAME(put)(float x) { return kiln_f32_to_bf16(x); }
static inline size_t NAME(at)(size_t k, size_t n) { return k / 2 * 2 * KILN_PANEL + n * 2 + k % 2; }
#else
#define OP float
static inline float NAME(get)(OP x) { return x; }
static inline OP NAME(put)(float x) { return x; }
static inline size_t NAME(at)(size_t k, size_t n) { return k * KILN_PANEL + n; }
#endif

/* The sums of 64 columns of one row. Few rows of fp32 are summed in double (kernel.h). */
static void NAME(gemm_row)(const struct kiln_gemm *g, const OP *a, const OP *b, bool few,
                           float *sum) {
    double wide[KILN_PANEL] = {0};
    float narrow[KILN_PANEL] = {0};
    for (size_t p = 0; p < g->k; p++) {
        for (size_t j = 0; j < KILN_PANEL; j++) {
            float x = NAME(get)(a[p]), y = NAME(get)(b[NAME(at)(p, j)]);
            if (few) {
                wide[j] += (double)x * (double)y;
            } else {
                narrow[j] += x * y;
            }
        }
    }
    for (size_t j = 0; j < KILN_PANEL; j++) {
        sum[j] = few ? (float)wide[j] : narrow[j];
    }
}

static void NAME(block)(const struct kiln_gemm *g, bool few) {
    assert(g->m <= KILN_GEMM_M && g->n <= KILN_GEMM_N);
    size_t panel = g->panel ? g->panel : kiln_panel_elements(g->k);
    for (size_t i = 0; i < g->m; i++) {
        const OP *a = (const OP *)g->a + i * g->lda;
        for (size_t j0 = 0; j0 < g->n; j0 += KILN_PANEL) {
            const OP *b = (const OP *)g->b + j0 / KILN_PANEL * panel;
            float sum[KILN_PANEL];
            NAME(gemm_row)(g, a, b, few, sum);
            for (size_t j = 0; j < KILN_PANEL && j0 + j < g->n; j++) {
                float v = sum[j] + (g->add ? g->add[i * g->ldadd + j0 + j] : 0.0f);
                if (g->c_operand) {
                    ((OP *)g->c)[i * g->ldc + j0 + j] = NAME(put)(v);
                } else {
                    ((float *)g->c)[i * g->ldc + j0 + j] = v;
                }
            }
        }
    }
}

static void NAME(gemm)(const struct kiln_gemm *g) { NAME(block)(g, false); }
static void NAME(gemm_own)(const struct kiln_gemm *g) {
    NAME(block)(g, !OPERAND_BF16 && g->m <= KILN_GEMM_FEW);
}

/* Panels of an [n, k] matrix whose element (j, p) lies at src[j*step_n + p*step_k]. */
#define PACK(FUNCTION, TYPE, CONVERT)                                                            \
    static void NAME(FUNCTION)(OP * dst, size_t panel, const TYPE *src, size_t step_n,           \
                               size_t step_k, size_t n, size_t k) {                              \
        size_t padded_k = (k + KILN_PANEL_K - 1) / KILN_PANEL_K * KILN_PANEL_K;                  \
        for (size_t j0 = 0; j0 < n; j0 += KILN_PANEL) {                                          \
            OP *out = dst + j0 / KILN_PANEL * panel;                                             \
            for (size_t p = 0; p < padded_k; p++) {                                              \
                for (size_t j = 0; j < KILN_PANEL; j++) {                                        \
                    bool inside = p < k && j0 + j < n;                                           \
                    out[NAME(at)(p, j)] =                                                        \
                        inside ? CONVERT(src[(j0 + j) * step_n + p * step_k]) : NAME(put)(0.0f); \
                }                                                                                \
            }                                                                                    \
        }                                                                                        \
    }
#define SAME(x) (x)
PACK(pack_any_f32, float, NAME(put))
PACK(pack_any, OP, SAME)
#undef SAME
#undef PACK

static void NAME(pack_f32)(void *dst, size_t panel, const float *src, size_t ld, size_t n,
                           size_t k) {
    NAME(pack_any_f32)(dst, panel, src, ld, 1, n, k);
}
static void NAME(pack)(void *dst, size_t panel, const void *src, size_t ld, size_t n, size_t k) {
    NAME(pack_any)(dst, panel, src, ld, 1, n, k);
}
static void NAME(pack_t_f32)(void *dst, size_t panel, const float *src, size_t ld, size_t k,
                             size_t n) {
    NAME(pack_any_f32)(dst, panel, src, 1, ld, n, k);
}
static void NAME(pack_t)(void *dst, size_t panel, const void *src, size_t ld, size_t k, size_t n) {
    NAME(pack_any)(dst, panel, src, 1, ld, n, k);
}
static void NAME(pack_both)(void *forward, void *backward, size_t panel, const float *src,
                            size_t ld, size_t n, size_t k, bool stream) {
    (void)stream;
    NAME(pack_f32)(forward, kiln_panel_elements(k), src, ld, n, k);
    NAME(pack_t_f32)(backward, panel, src, ld, n, k);
}

static void NAME(transpose)(void *dst, size_t ldd, const void *src, size_t lds, size_t rows,
                            size_t cols) {
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < cols; j++) {
            ((OP *)dst)[j * ldd + i] = ((const OP *)src)[i * lds + j];
        }
    }
}

static void NAME(round)(void *dst, const float *src, size_t n) {
    for (size_t i = 0; i < n; i++) {
        ((OP *)dst)[i] = NAME(put)(src[i]);
    }
}

static void NAME(widen)(float *dst, const void *src, size_t n) {
    for (size_t i = 0; i < n; i++) {
        dst[i] = NAME(get)(((const OP *)src)[i]);
    }
}

static void NAME(rmsnorm)(void *y, float *rstd, const float *x, const float *w, float eps,
                          size_t rows, size_t d) {
    for (size_t r = 0; r < rows; r++) {
        float sum = 0.0f;
        for (size_t i = 0; i < d; i++) {
            sum += x[r * d + i] * x[r * d + i];
        }
        rstd[r] = 1.0f / sqrtf(sum / (float)d + eps);
        for (size_t i = 0; i < d; i++) {
            ((OP *)y)[r * d + i] = NAME(put)(x[r * d + i] * rstd[r] * w[i]);
        }
    }
}

static void NAME(rope)(void *x, size_t ld, size_t rows, size_t heads, size_t k, const float *angles,
                       size_t first, size_t period, bool inverse) {
    for (size_t r = 0; r < rows; r++) {
        const float *angle = angles + (first + r) % period * k;
        for (size_t h = 0; h < heads; h++) {
            OP *pair = (OP *)x + r * ld + h * k;
            for (size_t i = 0; i < k; i += 2) {
                float a = NAME(get)(pair[i]), b = NAME(get)(pair[i + 1]);
                float c = angle[i], s = inverse ? -angle[i + 1] : angle[i + 1];
                pair[i] = NAME(put)(a * c - b * s);
                pair[i + 1] = NAME(put)(a * s + b * c);
            }
        }
    }
}

static void NAME(head_norm)(void *y, const void *x, size_t ld, size_t rows, size_t heads, size_t k,
                            const float *w, float eps) {
    for (size_t i = 0; i < rows * heads; i++) {
        const OP *in = (const OP *)x + i / heads * ld + i % heads * k;
        OP *out = (OP *)y + i / heads * ld + i % heads * k;
        float sum = 0.0f;
        for (size_t j = 0; j < k; j++) {
            sum += NAME(get)(in[j]) * NAME(get)(in[j]);
        }
        const float scale = 1.0f / sqrtf(sum / (float)k + eps);
        for (size_t j = 0; j < k; j++) {
            out[j] = NAME(put)(NAME(get)(in[j]) * scale * w[j]);
        }
    }
}

/* As rmsnorm_bwd below, but that the gradient is not added to another. */
static void NAME(head_norm_bwd)(void *dy, float *dw, const void *x, size_t ld, size_t rows,
                                size_t heads, size_t k, const float *w, float eps) {
    for (size_t i = 0; i < rows * heads; i++) {
        const OP *in = (const OP *)x + i / heads * ld + i % heads * k;
        OP *g = (OP *)dy + i / heads * ld + i % heads * k;
        float squares = 0.0f, sum = 0.0f;
        for (size_t j = 0; j < k; j++) {
            squares += NAME(get)(in[j]) * NAME(get)(in[j]);
            sum += NAME(get)(g[j]) * w[j] * NAME(get)(in[j]);
        }
        const float scale = 1.0f / sqrtf(squares / (float)k + eps);
        const float mean = sum / (float)k * scale * scale * scale;
        for (size_t j = 0; j < k; j++) {
            const float gradient = NAME(get)(g[j]), v = NAME(get)(in[j]);
            dw[j] += gradient * v * scale;
            g[j] = NAME(put)(gradient * w[j] * scale - v * mean);
        }
    }
}

static void NAME(sum_rows)(float *sum, const void *x, size_t ld, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = 0; j < n; j++) {
            sum[j] += NAME(get)(((const OP *)x)[r * ld + j]);
        }
    }
}

static void NAME(swiglu)(void *gate, const void *h, size_t rows, size_t f) {
    for (size_t r = 0; r < rows; r++) {
        const OP *h1 = (const OP *)h + r * 2 * f, *h3 = h1 + f;
        for (size_t i = 0; i < f; i++) {
            float a = NAME(get)(h1[i]);
            ((OP *)gate)[r * f + i] = NAME(put)(a / (1.0f + expf(-a)) * NAME(get)(h3[i]));
        }
    }
}

/* silu(a) = a s(a), s the logistic function; silu'(a) = s (1 + a (1 - s)). */
static void NAME(swiglu_bwd)(void *dh, void *gate, const void *dgate, const void *h, size_t rows,
                             size_t f) {
    for (size_t r = 0; r < rows; r++) {
        const OP *h1 = (const OP *)h + r * 2 * f, *h3 = h1 + f;
        OP *d1 = (OP *)dh + r * 2 * f, *d3 = d1 + f;
        for (size_t i = 0; i < f; i++) {
            float a = NAME(get)(h1[i]), b = NAME(get)(h3[i]);
            float d = NAME(get)(((const OP *)dgate)[r * f + i]);
            float s = 1.0f / (1.0f + expf(-a));
            if (gate) {
                ((OP *)gate)[r * f + i] = NAME(put)(a * s * b);
            }
            d1[i] = NAME(put)(d * b * s * (1.0f + a * (1.0f - s)));
            d3[i] = NAME(put)(d * a * s);
        }
    }
}

static void NAME(softmax_causal)(void *p, size_t ldp, float *lse, float *s, size_t lds, size_t rows,
                                 size_t first, size_t cols, float scale) {
    assert(cols > 0);
    for (size_t r = 0; r < rows; r++) {
        float *row = s + r * lds;
        OP *out = (OP *)p + r * ldp;
        size_t n = first + r + 1 < cols ? first + r + 1 : cols;
        float peak = row[0] * scale;
        for (size_t i = 1; i < n; i++) {
            peak = row[i] * scale > peak ? row[i] * scale : peak;
        }
        float total = 0.0f;
        for (size_t i = 0; i < n; i++) {
            row[i] = expf(row[i] * scale - peak);
            total += row[i];
        }
        lse[r] = peak + logf(total); /* cppcheck-suppress invalidFunctionArg ; total >= 1 */
        for (size_t i = 0; i < cols; i++) {
            out[i] = i < n ? NAME(put)(row[i] / total) : NAME(put)(0.0f);
        }
    }
}

static void NAME(softmax_causal_bwd)(void *p, void *ds, size_t ldp, const float *s, const float *dp,
                                     size_t lds, const float *lse, const float *delta, size_t rows,
                                     size_t first, size_t cols, float scale) {
    for (size_t r = 0; r < rows; r++) {
        OP *prob = (OP *)p + r * ldp, *dscore = (OP *)ds + r * ldp;
        for (size_t i = 0; i < cols; i++) {
            bool seen = i <= first + r;
            float e = seen ? expf(s[r * lds + i] * scale - lse[r]) : 0.0f;
            prob[i] = NAME(put)(e);
            dscore[i] = NAME(put)(seen ? e * (dp[r * lds + i] - delta[r]) * scale : 0.0f);
        }
    }
}

static float NAME(cross_entropy)(void *dlogits, float *logits, size_t n, size_t target,
                                 float scale) {
    assert(n > 0 && target < n);
    float peak = logits[0];
    for (size_t i = 1; i < n; i++) {
        peak = logits[i] > peak ? logits[i] : peak;
    }
    float at_target = logits[target], total = 0.0f;
    for (size_t i = 0; i < n; i++) {
        logits[i] = expf(logits[i] - peak);
        total += logits[i];
    }
    for (size_t i = 0; i < n && dlogits; i++) {
        OP gradient = NAME(put)(logits[i] / total * scale - (i == target ? scale : 0.0f));
        memcpy((OP *)dlogits + i, &gradient, sizeof gradient); /* may lie over what was read */
    }
    return peak + logf(total) - at_target; /* cppcheck-suppress invalidFunctionArg ; >= 1 */
}

static float NAME(dot)(const void *a, const void *b, size_t n) {
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++) {
        sum += NAME(get)(((const OP *)a)[i]) * NAME(get)(((const OP *)b)[i]);
    }
    return sum;
}

#if !OPERAND_BF16
/* y_i = x_i r w_i with r = (mean x^2 + eps)^-1/2:
 * dx_i = r dy_i w_i - x_i r^3 / d * sum_j dy_j w_j x_j,  dw_i = dy_i x_i r. */
static void rmsnorm_bwd_ref(float *dx, float *dw, const float *dy, const float *x, const float *w,
                            const float *rstd, size_t rows, size_t d) {
    for (size_t r = 0; r < rows; r++) {
        const float *g = dy + r * d, *in = x + r * d;
        float sum = 0.0f;
        for (size_t i = 0; i < d; i++) {
            sum += g[i] * w[i] * in[i];
        }
        float scale = rstd[r], mean = sum / (float)d * scale * scale * scale;
        for (size_t i = 0; i < d; i++) {
            dx[r * d + i] += g[i] * w[i] * scale - in[i] * mean;
            dw[i] += g[i] * in[i] * scale;
        }
    }
}

static void add_ref(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] += x[i];
    }
}

static void sum_squares_ref(double *sum, const float *x, size_t ld, size_t rows, size_t cols) {
    memset(sum, 0, (cols + KILN_SUM_BLOCK - 1) / KILN_SUM_BLOCK * sizeof *sum);
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = 0; j < cols; j++) {
            sum[j / KILN_SUM_BLOCK] += (double)x[r * ld + j] * (double)x[r * ld + j];
        }
    }
}

static void embed_ref(float *x, const float *table, const uint32_t *tokens, size_t n, size_t d) {
    for (size_t i = 0; i < n * d; i++) {
        x[i] = table[tokens[i / d] * d + i % d];
    }
}

static void embed_bwd_ref(float *table, const float *dx, const uint32_t *tokens, size_t n, size_t d,
                          size_t columns) {
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < columns; j++) {
            table[tokens[i] * d + j] += dx[i * d + j];
        }
    }
}

/* Rounded where the vectors round: m and v may be differences of nearly equal numbers. */
static void adamw_ref(float *w, float *m, float *v, const float *g, size_t n,
                      const struct kiln_adamw *c) {
    for (size_t i = 0; i < n; i++) {
        float gradient = g[i] * c->grad_scale;
        m[i] = fmaf(gradient - m[i], 1.0f - c->beta1, m[i]);
        v[i] = fmaf(gradient * gradient - v[i], 1.0f - c->beta2, v[i]);
        float step = m[i] * c->correction1 / (sqrtf(v[i] * c->correction2) + c->eps);
        w[i] = w[i] - c->lr * step - c->decay * w[i];
    }
}

static void half_of_ref(uint16_t *dst, const float *src, size_t n) {
    for (size_t i = 0; i < n; i++) {
        dst[i] = kiln_f32_to_f16(src[i]);
    }
}

static void half_to_ref(float *dst, const uint16_t *src, size_t n) {
    for (size_t i = 0; i < n; i++) {
        dst[i] = kiln_f16_to_f32(src[i]);
    }
}

static void half_round_ref(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] = kiln_f16_to_f32(kiln_f32_to_f16(x[i]));
    }
}
#endif

static void NAME(fill)(struct kiln_kernels *kernels) {
    kernels->gemm = NAME(gemm);
    kernels->gemm_own = NAME(gemm_own);
    kernels->pack_f32 = NAME(pack_f32);
    kernels->pack = NAME(pack);
    kernels->pack_t_f32 = NAME(pack_t_f32);
    kernels->pack_t = NAME(pack_t);
    kernels->pack_both = NAME(pack_both);
    kernels->transpose = NAME(transpose);
    kernels->round = NAME(round);
    kernels->widen = NAME(widen);
    kernels->rmsnorm = NAME(rmsnorm);
    kernels->rmsnorm_bwd = rmsnorm_bwd_ref;
    kernels->rope = NAME(rope);
    kernels->head_norm = NAME(head_norm);
    kernels->head_norm_bwd = NAME(head_norm_bwd);
    kernels->sum_rows = NAME(sum_rows);
    kernels->swiglu = NAME(swiglu);
    kernels->swiglu_bwd = NAME(swiglu_bwd);
    kernels->softmax_causal = NAME(softmax_causal);
    kernels->softmax_causal_bwd = NAME(softmax_causal_bwd);
    kernels->embed = embed_ref;
    kernels->embed_bwd = embed_bwd_ref;
    kernels->cross_entropy = NAME(cross_entropy);
    kernels->dot = NAME(dot);
    kernels->add = add_ref;
    kernels->sum_squares = sum_squares_ref;
    kernels->adamw = adamw_ref;
    kernels->half_of = half_of_ref;
    kernels->half_to = half_to_ref;
    kernels->half_round = half_round_ref;
}

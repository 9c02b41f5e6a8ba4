/* SPDX-License-Identifier: MIT
 *
 * Kernels over rows and arrays on one tier. Lengths go from 0 to two vectors and one of the widest
 * tier, then some of real models; starts are unaligned.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/lab.h"

enum { SHORT = 2 * 16 + 1 };
static const size_t longer[] = {47, 64, 172, 288, 1000};
#define N_LENGTHS (SHORT + 1 + sizeof longer / sizeof longer[0])

static size_t length(size_t i) { return i <= SHORT ? i : longer[i - SHORT - 1]; }

/* got and want are operands that may differ by `relative` of size before rounding. */
static void close_operands(const struct lab *lab, const char *what, const void *got,
                           const void *want, size_t at, double size, double relative) {
    double w = lab_get(lab, want, at);
    double rounding = lab->bf16 ? fabs(w) * lab_operand_ulp(lab) : 0.0;
    lab_close(lab, what, at, lab_get(lab, got, at), w, size * relative + rounding);
}

/* ---- conversions ---------------------------------------------------------------------------- */

void check_round(const struct lab *lab) {
    for (size_t i = 0; i < N_LENGTHS; i++) {
        size_t n = length(i);
        float *src = lab_floats(n, 1, 3.0f);
        void *dst = lab_memory(n, lab->k.operand_bytes, 3);
        lab->k.round(dst, src, n);
        for (size_t j = 0; j < n; j++) {
            float want = lab->bf16 ? kiln_bf16_to_f32(kiln_f32_to_bf16(src[j])) : src[j];
            lab_close(lab, "rounded", j, lab_get(lab, dst, j), (double)want, 0);
        }
        lab_check_guards();
    }
}

void check_widen(const struct lab *lab) {
    for (size_t i = 0; i < N_LENGTHS; i++) {
        size_t n = length(i);
        void *src = lab_operands(lab, n, 3, 3.0f);
        float *dst = lab_memory(n, sizeof *dst, 1);
        lab->k.widen(dst, src, n);
        for (size_t j = 0; j < n; j++) {
            lab_close(lab, "widened", j, (double)dst[j], lab_get(lab, src, j), 0);
        }
        lab_check_guards();
    }
}

/* ---- norms ---------------------------------------------------------------------------------- */

/* The sum of d squares is off by d+1 roundings at most, its root by half of that; then mean, eps,
 * root, division and two products. Twice, because ref is off as well. */
static double norm_tolerance(size_t d) { return 2.0 * ((double)d / 2.0 + 6.0) * U; }

void check_rmsnorm(const struct lab *lab) {
    for (size_t i = 1; i < N_LENGTHS; i++) {
        size_t d = length(i), rows = 1 + i % 3;
        float *x = lab_floats(rows * d, 1, 2.0f), *w = lab_floats(d, 3, 1.0f);
        void *y[2];
        float *rstd[2];
        for (int j = 0; j < 2; j++) {
            y[j] = lab_memory(rows * d, lab->k.operand_bytes, 1);
            rstd[j] = lab_memory(rows, sizeof(float), 1);
            (j ? lab->ref : lab->k).rmsnorm(y[j], rstd[j], x, w, 1e-5f, rows, d);
        }
        for (size_t r = 0; r < rows; r++) {
            double want = (double)rstd[1][r];
            lab_close(lab, "rstd", r, (double)rstd[0][r], want, want * norm_tolerance(d));
            for (size_t e = r * d; e < (r + 1) * d; e++) {
                double size = fabs((double)x[e] * (double)w[e - r * d]) * want;
                close_operands(lab, "y", y[0], y[1], e, size, norm_tolerance(d));
            }
        }
        lab_check_guards();
    }
}

/* A sum of d products, then a few operations on numbers of size |dy w rstd| and |x mean|; dw adds
 * `rows` terms. `most` bounds all of them. */
void check_rmsnorm_bwd(const struct lab *lab) {
    for (size_t i = 1; i < N_LENGTHS; i++) {
        size_t d = length(i), rows = 1 + i % 4, n = rows * d;
        float *x = lab_floats(n, 1, 1.0f), *w = lab_floats(d, 3, 1.0f),
              *dy = lab_floats(n, 2, 1.0f);
        float *rstd = lab_memory(rows, sizeof *rstd, 1), *dx[2], *dw[2];
        void *y = lab_memory(n, lab->k.operand_bytes, 0);
        lab->ref.rmsnorm(y, rstd, x, w, 1e-5f, rows, d);
        dx[0] = lab_floats(n, 1, 1.0f);
        dw[0] = lab_floats(d, 1, 1.0f);
        dx[1] = lab_copy(dx[0], n, sizeof(float), 0);
        dw[1] = lab_copy(dw[0], d, sizeof(float), 0);
        double most = 1.0;
        for (size_t e = 0; e < n; e++) {
            double r = (double)rstd[e / d],
                   a = fabs((double)dy[e]) * fmax(1, fabs((double)w[e % d]));
            most = fmax(most, a * r * (1.0 + fabs((double)x[e]) * r) * (1.0 + (double)fabsf(x[e])));
        }
        for (int j = 0; j < 2; j++) {
            (j ? lab->ref : lab->k).rmsnorm_bwd(dx[j], dw[j], dy, x, w, rstd, rows, d);
        }
        double tolerance = 2.0 * (double)(d + rows + 8) * U * 4.0 * most;
        for (size_t e = 0; e < n; e++) {
            lab_close(lab, "dx", e, (double)dx[0][e], (double)dx[1][e], tolerance);
        }
        for (size_t e = 0; e < d; e++) {
            lab_close(lab, "dw", e, (double)dw[0][e], (double)dw[1][e], tolerance);
        }
        lab_check_guards();
    }
}

/* ---- norms of heads ------------------------------------------------------------------------- */

enum { HEAD_ROWS = 5, HEADS = 3, BEHIND = 4 };

/* What a check works on: rows of heads, and so many elements that are none of theirs. */
struct heads {
    size_t k, ld, n;
    float *w;
    void *x;
};

static struct heads heads_of(const struct lab *lab, size_t k) {
    const size_t ld = HEADS * k + BEHIND, n = (HEAD_ROWS - 1) * ld + HEADS * k;
    return (struct heads){k, ld, n, lab_floats(k, 3, 1.0f), lab_operands(lab, n, 1, 2.0f)};
}

static bool in_a_head(const struct heads *h, size_t at) { return at % h->ld < HEADS * h->k; }

/* 1 / root of the mean square of the head that element `at` is of, in double. */
static double rstd_of(const struct lab *lab, const struct heads *h, size_t at, double eps) {
    const size_t first = at - at % h->ld % h->k;
    double sum = 0;
    for (size_t j = first; j < first + h->k; j++) {
        sum += lab_get(lab, h->x, j) * lab_get(lab, h->x, j);
    }
    return 1.0 / sqrt(sum / (double)h->k + eps);
}

static void norm_heads(const struct lab *lab, size_t k) {
    const struct heads h = heads_of(lab, k);
    void *y = lab_memory(h.n, lab->k.operand_bytes, 1);
    void *same = lab_copy(h.x, h.n, lab->k.operand_bytes, 1);
    lab->k.head_norm(y, h.x, h.ld, HEAD_ROWS, HEADS, k, h.w, 1e-3f);
    lab->k.head_norm(same, same, h.ld, HEAD_ROWS, HEADS, k, h.w, 1e-3f);
    for (size_t i = 0; i < h.n; i++) {
        if (in_a_head(&h, i)) {
            const double want = lab_get(lab, h.x, i) * rstd_of(lab, &h, i, (double)1e-3f) *
                                (double)h.w[i % h.ld % k];
            const double rounding = lab->bf16 ? fabs(want) * lab_operand_ulp(lab) : 0.0;
            lab_close(lab, "y", i, lab_get(lab, y, i), want,
                      fabs(want) * norm_tolerance(k) + rounding);
            lab_close(lab, "y in place", i, lab_get(lab, same, i), lab_get(lab, y, i), 0);
        } else { /* other parts of the row stay */
            CHECK(isnan(lab_get(lab, y, i)));
            lab_close(lab, "x", i, lab_get(lab, same, i), lab_get(lab, h.x, i), 0);
        }
    }
    lab_check_guards();
}

void check_head_norm(const struct lab *lab) {
    for (size_t i = 1; i < N_LENGTHS; i++) {
        norm_heads(lab, length(i));
    }
}

/* With s = sum_j g_j w_j x_j in double: dx = g w r - x r^3 s / k, dw += g x r. */
static void norm_heads_bwd(const struct lab *lab, size_t k) {
    const struct heads h = heads_of(lab, k);
    void *from = lab_operands(lab, h.n, 3, 1.0f), *g = lab_copy(from, h.n, lab->k.operand_bytes, 3);
    float *before = lab_floats(k, 1, 1.0f), *dw = lab_copy(before, k, sizeof *dw, 1);
    double *want = kiln_alloc(k, sizeof *want), *size = kiln_alloc(k, sizeof *size);
    lab->k.head_norm_bwd(g, dw, h.x, h.ld, HEAD_ROWS, HEADS, k, h.w, 1e-3f);
    const double tolerance = 4.0 * (double)(k + 16) * U;
    for (size_t i = 0; i < h.n; i++) {
        const double gradient = lab_get(lab, from, i), x = lab_get(lab, h.x, i);
        if (!in_a_head(&h, i)) {
            lab_close(lab, "dy", i, lab_get(lab, g, i), gradient, 0);
            continue;
        }
        const double r = rstd_of(lab, &h, i, (double)1e-3f);
        const size_t j = i % h.ld % k;
        double sum = 0, sizes = 0;
        for (size_t e = 0; e < k; e++) {
            const double part =
                lab_get(lab, from, i - j + e) * (double)h.w[e] * lab_get(lab, h.x, i - j + e);
            sum += part;
            sizes += fabs(part);
        }
        const double a = gradient * (double)h.w[j] * r, b = x * r * r * r / (double)k;
        const double dx = a - b * sum;
        const double rounding = lab->bf16 ? fabs(dx) * lab_operand_ulp(lab) : 0.0;
        lab_close(lab, "dx", i, lab_get(lab, g, i), dx,
                  tolerance * (fabs(a) + fabs(b) * sizes) + rounding);
        want[j] += gradient * x * r;
        size[j] += fabs(gradient * x * r);
    }
    for (size_t j = 0; j < k; j++) {
        lab_close(lab, "dw", j, (double)dw[j], (double)before[j] + want[j],
                  tolerance * (size[j] + fabs((double)before[j])));
    }
    kiln_free(want);
    kiln_free(size);
    lab_check_guards();
}

void check_head_norm_bwd(const struct lab *lab) {
    for (size_t i = 1; i < N_LENGTHS; i++) {
        norm_heads_bwd(lab, length(i));
    }
}

/* In the order of the rows, so the same on every tier. */
void check_sum_rows(const struct lab *lab) {
    for (size_t i = 0; i < N_LENGTHS; i++) {
        const size_t n = length(i), ld = n + 3, rows = 1 + i % 4;
        void *x = lab_operands(lab, rows * ld, 1, 1.0f);
        float *sum = lab_floats(n, 3, 1.0f), *want = lab_copy(sum, n, sizeof *sum, 0);
        lab->k.sum_rows(sum, x, ld, rows, n);
        for (size_t j = 0; j < n; j++) {
            for (size_t r = 0; r < rows; r++) {
                want[j] += (float)lab_get(lab, x, r * ld + j);
            }
            lab_close(lab, "sum", j, (double)sum[j], (double)want[j], 0);
        }
        lab_check_guards();
    }
}

/* ---- rotations ------------------------------------------------------------------------------ */

static void turn(const struct lab *lab, size_t k, size_t heads, bool inverse) {
    enum { ROWS = 7, PERIOD = 5, FIRST = 3 };
    size_t width = heads * k, ld = width + 4, n = (ROWS - 1) * ld + width;
    float *angles = lab_memory(PERIOD * k, sizeof(float), 1);
    for (size_t i = 0; i < PERIOD * k; i += 2) {
        float angle = lab_normal();
        angles[i] = cosf(angle);
        angles[i + 1] = sinf(angle);
    }
    void *from = lab_operands(lab, n, 1, 1.0f), *x = lab_copy(from, n, lab->k.operand_bytes, 1);
    lab->k.rope(x, ld, ROWS, heads, k, angles, FIRST, PERIOD, inverse);
    for (size_t i = 0; i < n; i++) {
        size_t row = i / ld, column = i % ld;
        if (column >= width) { /* other parts of the row stay */
            lab_close(lab, "x", i, lab_get(lab, x, i), lab_get(lab, from, i), 0);
            continue;
        }
        const float *angle = angles + (FIRST + row) % PERIOD * k + column % k / 2 * 2;
        double c = (double)angle[0], s = (double)angle[1] * (inverse ? -1.0 : 1.0);
        double even = lab_get(lab, from, i - column % 2), odd = lab_get(lab, from, i | 1);
        if (i % 2 != column % 2) {
            odd = lab_get(lab, from, i - column % 2 + 1);
        }
        double want = column % 2 ? even * s + odd * c : even * c - odd * s;
        /* Two products and a sum, of numbers up to |even| + |odd|; then rounded. */
        double tolerance = 3.0 * U * (fabs(even) + fabs(odd)) +
                           (lab->bf16 ? fabs(want) * lab_operand_ulp(lab) / 2 : 0.0);
        lab_close(lab, "x", i, lab_get(lab, x, i), want, tolerance);
    }
    lab_check_guards();
}

void check_rope(const struct lab *lab) {
    static const size_t ks[] = {2, 4, 6, 8, 10, 16, 18, 32, 34, 48, 64, 128};
    for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++) {
        turn(lab, ks[i], 1 + i % 3, false);
        turn(lab, ks[i], 1 + i % 3, true);
    }
}

/* ---- SwiGLU --------------------------------------------------------------------------------- */

/* Some gates far out, where e^-a leaves the range of fp32 or nothing of it is left. */
static void *make_gates(const struct lab *lab, size_t n) {
    static const float far[] = {-100, 100, -88, 88, -87.4f, 87.4f, 0, -1.2784645f, 30, -30};
    void *h = lab_operands(lab, n, 1, 3.0f);
    for (size_t i = 0; i < n; i += 4) {
        lab_put(lab, h, i, far[i / 4 % 10]);
    }
    return h;
}

/* e^-a 2 ulp, a sum, a division, a product; ref the same. Below 1e-30 nothing counts. */
void check_swiglu(const struct lab *lab) {
    for (size_t i = 0; i < N_LENGTHS; i++) {
        size_t f = length(i), rows = 1 + i % 3;
        void *h = make_gates(lab, rows * 2 * f), *gate[2];
        for (int j = 0; j < 2; j++) {
            gate[j] = lab_memory(rows * f, lab->k.operand_bytes, 1);
            (j ? lab->ref : lab->k).swiglu(gate[j], h, rows, f);
        }
        for (size_t e = 0; e < rows * f; e++) {
            double size = fabs(lab_get(lab, gate[1], e)) + 1e-23;
            close_operands(lab, "gate", gate[0], gate[1], e, size, 16.0 * U);
        }
        lab_check_guards();
    }
}

/* silu' = s (1 + a (1 - s)) crosses 0: its error is that of the terms, s (1 + |a|). */
void check_swiglu_bwd(const struct lab *lab) {
    for (size_t i = 0; i < N_LENGTHS; i++) {
        size_t f = length(i), rows = 1 + i % 3, n = rows * 2 * f;
        void *h = make_gates(lab, n), *dgate = lab_operands(lab, rows * f, 3, 1.0f), *dh[3];
        dh[0] = lab_memory(n, lab->k.operand_bytes, 1);
        dh[1] = lab_memory(n, lab->k.operand_bytes, 1);
        dh[2] = lab_copy(h, n, lab->k.operand_bytes, 1);
        void *gate[2];
        for (int j = 0; j < 2; j++) {
            gate[j] = lab_memory(rows * f, lab->k.operand_bytes, 1);
            (j ? lab->ref : lab->k).swiglu_bwd(dh[j], gate[j], dgate, h, rows, f);
        }
        lab->k.swiglu_bwd(dh[2], NULL, dgate, dh[2], rows, f); /* in place */
        CHECK_BYTES(dh[2], dh[0], n * lab->k.operand_bytes);
        for (size_t e = 0; e < rows * f; e++) {
            double size = fabs(lab_get(lab, gate[1], e)) + 1e-23;
            close_operands(lab, "gate", gate[0], gate[1], e, size, 16.0 * U);
        }
        for (size_t e = 0; e < n; e++) {
            size_t at = e / (2 * f) * 2 * f + e % f; /* of the gate */
            double a = lab_get(lab, h, at), b = lab_get(lab, h, at + f);
            double d = lab_get(lab, dgate, e / (2 * f) * f + e % f), s = 1.0 / (1.0 + exp(-a));
            double size = fabs(d) * s * (e % (2 * f) < f ? fabs(b) * (1.0 + fabs(a)) : fabs(a));
            close_operands(lab, "dh", dh[0], dh[1], e, size + 1e-23, 24.0 * U);
        }
        lab_check_guards();
    }
}

/* ---- softmax -------------------------------------------------------------------------------- */

struct scores {
    size_t rows, first, cols, ld;
};
static struct scores scores_of(size_t i) {
    struct scores s = {.rows = 1 + i % 5, .first = i % 11};
    s.cols = length(i) > 1 ? length(i) : 1;
    if (i % 3 == 0) { /* all columns seen by the last row and no more, as attention asks */
        s.first = s.cols;
        s.cols += s.rows;
    }
    s.ld = (s.cols + 15) / 16 * 16; /* room that the contract asks for */
    return s;
}

static size_t seen(const struct scores *s, size_t r) {
    return s->first + r + 1 < s->cols ? s->first + r + 1 : s->cols;
}

/* An argument up to 40 in size is off by a rounding or two, e^x by 2 ulp, the sum of n by n. */
static double softmax_tolerance(size_t n) { return ((double)n + 200.0) * U; }

void check_softmax_causal(const struct lab *lab) {
    const float scale = 0.35f;
    for (size_t i = 0; i < N_LENGTHS; i++) {
        struct scores at = scores_of(i);
        float *s = lab_floats(at.rows * at.ld, 1, 10.0f), *lse = lab_memory(at.rows, 4, 1);
        float *from = lab_copy(s, at.rows * at.ld, 4, 0);
        void *p = lab_memory(at.rows * at.ld, lab->k.operand_bytes, 1);
        lab->k.softmax_causal(p, at.ld, lse, s, at.ld, at.rows, at.first, at.cols, scale);
        for (size_t r = 0; r < at.rows; r++) {
            size_t n = seen(&at, r);
            double peak = (double)-INFINITY, total = 0.0;
            for (size_t j = 0; j < n; j++) {
                peak = fmax(peak, (double)from[r * at.ld + j] * (double)scale);
            }
            for (size_t j = 0; j < n; j++) {
                total += exp((double)from[r * at.ld + j] * (double)scale - peak);
            }
            double want_lse = peak + log(total);
            lab_close(lab, "lse", r, (double)lse[r], want_lse,
                      softmax_tolerance(n) + 4.0 * U * fabs(want_lse));
            for (size_t j = 0; j < at.cols; j++) {
                double want =
                    j < n ? exp((double)from[r * at.ld + j] * (double)scale - want_lse) : 0.0;
                double rounding = lab->bf16 ? want * lab_operand_ulp(lab) / 2 : 0.0;
                lab_close(lab, "p", r * 1000 + j, lab_get(lab, p, r * at.ld + j), want,
                          want * softmax_tolerance(n) + rounding);
            }
        }
        lab_check_guards();
    }
}

void check_softmax_causal_bwd(const struct lab *lab) {
    const float scale = 0.35f;
    for (size_t i = 0; i < N_LENGTHS; i++) {
        struct scores at = scores_of(i);
        size_t n = at.rows * at.ld;
        float *s = lab_floats(n, 1, 5.0f), *dp = lab_floats(n, 3, 1.0f);
        float *lse = lab_floats(at.rows, 1, 1.0f), *delta = lab_floats(at.rows, 1, 1.0f);
        void *p = lab_memory(n, lab->k.operand_bytes, 1),
             *ds = lab_memory(n, lab->k.operand_bytes, 3);
        lab->k.softmax_causal_bwd(p, ds, at.ld, s, dp, at.ld, lse, delta, at.rows, at.first,
                                  at.cols, scale);
        for (size_t e = 0; e < n; e++) {
            size_t r = e / at.ld, j = e % at.ld;
            if (j >= at.cols) {
                continue;
            }
            bool in = j < seen(&at, r);
            double prob = in ? exp((double)s[e] * (double)scale - (double)lse[r]) : 0.0;
            double want = in ? prob * ((double)dp[e] - (double)delta[r]) * (double)scale : 0.0;
            double rounding = lab->bf16 ? lab_operand_ulp(lab) / 2 : 0.0;
            lab_close(lab, "p", e, lab_get(lab, p, e), prob, prob * (40.0 * U + rounding));
            lab_close(lab, "ds", e, lab_get(lab, ds, e), want,
                      prob * (fabs((double)dp[e]) + fabs((double)delta[r])) * 40.0 * U +
                          fabs(want) * rounding);
        }
        lab_check_guards();
    }
}

void check_cross_entropy(const struct lab *lab) {
    const float scale = 0.125f;
    for (size_t i = 1; i < N_LENGTHS; i++) {
        size_t n = length(i), targets[] = {0, n / 2, n - 1};
        for (size_t t = 0; t < 3; t++) {
            float *from = lab_floats(n, 1, 6.0f);
            float *logits = lab_copy(from, n, 4, 1), *again = lab_copy(from, n, 4, 1);
            void *d = lab_memory(n, lab->k.operand_bytes, 3);
            float loss = lab->k.cross_entropy(d, logits, n, targets[t], scale);
            CHECK(lab->k.cross_entropy(NULL, again, n, targets[t], scale) == loss);
            float *place = lab_copy(from, n, 4, 1);
            CHECK(lab->k.cross_entropy(place, place, n, targets[t], scale) == loss);
            CHECK_BYTES(place, d, n * lab->k.operand_bytes);
            double peak = (double)-INFINITY, total = 0.0;
            for (size_t j = 0; j < n; j++) {
                peak = fmax(peak, (double)from[j]);
            }
            for (size_t j = 0; j < n; j++) {
                total += exp((double)from[j] - peak);
            }
            double want = peak + log(total) - (double)from[targets[t]];
            lab_close(lab, "loss", i, (double)loss, want,
                      softmax_tolerance(n) + 4.0 * U * (fabs(peak) + fabs(want)));
            for (size_t j = 0; j < n; j++) {
                double prob = exp((double)from[j] - peak) / total;
                double grad = (prob - (j == targets[t])) * (double)scale;
                double size = (prob + (j == targets[t])) * (double)scale;
                double rounding = lab->bf16 ? fabs(grad) * lab_operand_ulp(lab) / 2 : 0.0;
                lab_close(lab, "dlogits", j, lab_get(lab, d, j), grad,
                          size * softmax_tolerance(n) + rounding);
            }
            lab_check_guards();
        }
    }
}

/* ---- sums and updates ----------------------------------------------------------------------- */

void check_dot(const struct lab *lab) {
    for (size_t i = 0; i < N_LENGTHS; i++) {
        size_t n = length(i);
        void *a = lab_operands(lab, n, 1, 1.0f), *b = lab_operands(lab, n, 3, 1.0f);
        double want = 0.0, size = 0.0;
        for (size_t j = 0; j < n; j++) {
            want += lab_get(lab, a, j) * lab_get(lab, b, j);
            size += fabs(lab_get(lab, a, j) * lab_get(lab, b, j));
        }
        lab_close(lab, "dot", n, (double)lab->k.dot(a, b, n), want, (double)(n + 1) * U * size);
        lab_check_guards();
    }
}

void check_add(const struct lab *lab) {
    for (size_t i = 0; i < N_LENGTHS; i++) {
        size_t n = length(i);
        float *y = lab_floats(n, 1, 1.0f), *x = lab_floats(n, 3, 1.0f),
              *want = lab_copy(y, n, 4, 0);
        lab->k.add(y, x, n);
        for (size_t j = 0; j < n; j++) {
            lab_close(lab, "y", j, (double)y[j], (double)(want[j] + x[j]), 0);
        }
        lab_check_guards();
    }
}

/* Lanes of fp32 sums: at most n+1 roundings of a sum without cancelling. A block by itself has the
 * bits that it has beside others. */
void check_sum_squares(const struct lab *lab) {
    for (size_t i = 1; i < N_LENGTHS; i++) {
        const size_t cols = i % 4 ? length(i) : 1024 + length(i), ld = cols + i % 3;
        const size_t rows = 1 + i * 7 % KILN_SUM_BLOCK, blocks = (cols + 63) / 64;
        const float *x = lab_floats(rows * ld, 1, 1.0f);
        double *sum = lab_memory(blocks, sizeof *sum, 0), alone;
        lab->k.sum_squares(sum, x, ld, rows, cols);
        for (size_t b = 0; b < blocks; b++) {
            const size_t n = cols - b * 64 < 64 ? cols - b * 64 : 64;
            double want = 0.0;
            for (size_t j = 0; j < rows * n; j++) {
                const double value = (double)x[j / n * ld + b * 64 + j % n];
                want += value * value;
            }
            lab_close(lab, "sum", b, sum[b], want, want * (double)(rows * n + 1) * U);
            lab->k.sum_squares(&alone, x + b * 64, ld, rows, n);
            CHECK_BYTES(&alone, &sum[b], sizeof alone);
        }
        lab_check_guards();
    }
}

/* Rows that come twice, one after the other too, and rows that never come. */
static void make_tokens(uint32_t tokens[], size_t n, size_t rows) {
    for (size_t i = 0; i < n; i++) {
        tokens[i] = (uint32_t)(i % 3 ? i * 7 % rows : 2);
    }
}

enum { ROWS_OF_TABLE = 11, MOST_TOKENS = 13 };

void check_embed(const struct lab *lab) {
    uint32_t tokens[MOST_TOKENS];
    for (size_t i = 0; i < N_LENGTHS; i++) {
        const size_t d = length(i), n = i % (MOST_TOKENS + 1);
        make_tokens(tokens, n, ROWS_OF_TABLE);
        const float *table = lab_floats(ROWS_OF_TABLE * d, 1, 1.0f);
        float *x = lab_memory(n * d, sizeof *x, 3);
        lab->k.embed(x, table, tokens, n, d);
        for (size_t j = 0; j < n; j++) {
            CHECK_BYTES(x + j * d, table + tokens[j] * d, d * sizeof *x);
        }
        lab_check_guards();
    }
}

/* The bits of one addition after the other; columns and rows that are not its own stay. */
void check_embed_bwd(const struct lab *lab) {
    uint32_t tokens[MOST_TOKENS];
    for (size_t i = 0; i < N_LENGTHS; i++) {
        const size_t columns = length(i), d = columns + i % 3, n = i % (MOST_TOKENS + 1);
        make_tokens(tokens, n, ROWS_OF_TABLE);
        float *table = lab_floats(ROWS_OF_TABLE * d, 1, 1.0f);
        float *want = lab_copy(table, ROWS_OF_TABLE * d, sizeof *want, 0);
        const float *dx = lab_floats(n * d, 3, 1.0f);
        lab->k.embed_bwd(table, dx, tokens, n, d, columns);
        for (size_t j = 0; j < n * d; j++) {
            if (j % d < columns) {
                want[tokens[j / d] * d + j % d] += dx[j];
            }
        }
        CHECK_BYTES(table, want, ROWS_OF_TABLE * d * sizeof *table);
        lab_check_guards();
    }
}

/* Within two units in the last place of what ref gives; NaN and infinity where ref has them. */
static void close_update(const struct lab *lab, const char *what, size_t i, float got, float want) {
    if (isnan(want) || isinf(want)) {
        CHECK(isnan(want) ? isnan(got) : got == want);
        return;
    }
    const double ulp = (double)nextafterf(fabsf(want), INFINITY) - (double)fabsf(want);
    lab_close(lab, what, i, (double)got, (double)want, 2.0 * ulp);
}

static struct kiln_adamw adamw_constants(void) {
    return (struct kiln_adamw){.lr = 1e-3f,
                               .beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .eps = 1e-8f,
                               .decay = 1e-4f,
                               .grad_scale = 0.7f,
                               .correction1 = 1.0f / (1.0f - 0.9f * 0.9f * 0.9f),
                               .correction2 = 1.0f / (1.0f - 0.95f * 0.95f * 0.95f)};
}

struct adamw_state {
    float *w, *m, *v;
};

static void check_update(const struct lab *lab, const struct adamw_state *s, const float *g,
                         size_t n, const struct kiln_adamw *c) {
    const struct adamw_state want = {lab_copy(s->w, n, 4, 0), lab_copy(s->m, n, 4, 0),
                                     lab_copy(s->v, n, 4, 0)};
    lab->k.adamw(s->w, s->m, s->v, g, n, c);
    lab->ref.adamw(want.w, want.m, want.v, g, n, c);
    for (size_t i = 0; i < n; i++) {
        close_update(lab, "w", i, s->w[i], want.w[i]);
        close_update(lab, "m", i, s->m[i], want.m[i]);
        close_update(lab, "v", i, s->v[i], want.v[i]);
    }
    lab_check_guards();
}

static const float adamw_vs[] = {0, 1e-40f, 1e-45f, 1.1754942e-38f, 1e-38f, 1e-8f, 1, 3e5f, 1e30f};
static const float adamw_gs[] = {0, 1e-45f, -1e-40f, 1e-22f, 1e-3f, 1, 50, -1, 1e10f};

/* Second moments of 0, subnormal, ordinary and huge; gradients and first moments likewise. */
static void check_adamw_lengths(const struct lab *lab) {
    const struct kiln_adamw c = adamw_constants();
    for (size_t n = 0; n <= 67; n++) {
        const struct adamw_state s = {lab_floats(n, 1, 1.0f), lab_floats(n, 3, 0.1f),
                                      lab_memory(n, 4, 2)};
        float *g = lab_floats(n, 5, 1.0f);
        for (size_t i = 0; i < n; i++) {
            s.v[i] = adamw_vs[(i + n) % 9];
            g[i] *= adamw_gs[i % 9];
            s.m[i] *= i % 5 == 0 ? 0.0f : i % 5 == 1 ? 1e-40f : sqrtf(s.v[i]);
        }
        check_update(lab, &s, g, n, &c);
    }
}

/* Every second moment with every gradient; weights of 0 and subnormal ones, too. */
static void check_adamw_pairs(const struct lab *lab, const struct kiln_adamw *c) {
    enum { N = 81 };
    static const float ws[] = {1, 0, -1e-40f, 1e-45f, 3e8f};
    const struct adamw_state s = {lab_memory(N, 4, 1), lab_memory(N, 4, 2), lab_memory(N, 4, 3)};
    float *g = lab_memory(N, 4, 5);
    for (size_t i = 0; i < N; i++) {
        s.w[i] = ws[i % 5];
        s.m[i] = i % 2 ? adamw_gs[i * 5 % 9] : 0.0f;
        s.v[i] = adamw_vs[i / 9];
        g[i] = adamw_gs[i % 9];
    }
    check_update(lab, &s, g, N, c);
}

/* eps 0: what never had a gradient is 0/0, a NaN on every tier; with a first moment and no second
 * one it is an infinity. */
static void check_adamw_without_eps(const struct lab *lab) {
    struct kiln_adamw c = adamw_constants();
    c.eps = 0.0f;
    check_adamw_pairs(lab, &c);
    float w[] = {1, 1}, m[] = {0, 1}, v[] = {0, 0}, g[] = {0, 0};
    lab->k.adamw(w, m, v, g, 2, &c);
    CHECK(isnan(w[0]) && isinf(w[1]) && m[0] == 0.0f && v[0] == 0.0f);
}

void check_adamw(const struct lab *lab) {
    const struct kiln_adamw c = adamw_constants();
    check_adamw_lengths(lab);
    check_adamw_pairs(lab, &c);
    check_adamw_without_eps(lab);
}

/* ---- whole ranges --------------------------------------------------------------------------- */

/* Every bf16, and around each the numbers that round to it: half way goes to the even one. */
static void check_every_bf16(const struct lab *lab) {
    if (!lab->bf16) {
        return;
    }
    enum { ALL = 65536 };
    static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    uint16_t *in = lab_memory(ALL, 2, 1), *out = lab_memory(ALL, 2, 1);
    uint32_t *wide = lab_memory(ALL, 4, 1);
    for (size_t i = 0; i < ALL; i++) {
        in[i] = (uint16_t)i;
    }
    lab->k.widen((float *)wide, in, ALL);
    for (size_t i = 0; i < ALL; i++) {
        CHECK_EQ(wide[i], (uint32_t)i << 16);
    }
    for (size_t l = 0; l < 6; l++) {
        for (size_t i = 0; i < ALL; i++) {
            wide[i] = (uint32_t)i << 16 | low[l];
        }
        lab->k.round(out, (const float *)wide, ALL);
        for (uint32_t i = 0; i < ALL; i++) {
            if (lab->k.flushes && (wide[i] & 0x7f800000) == 0 && out[i] == (i & 0x8000)) {
                continue;
            }
            if ((wide[i] & 0x7fffffff) > 0x7f800000) {
                CHECK((out[i] & 0x7fff) > 0x7f80 && (out[i] & 0x8000) == (i & 0x8000));
            } else {
                CHECK_EQ(out[i], (uint16_t)(i + (low[l] > 0x8000 || (low[l] == 0x8000 && i % 2))));
            }
            CHECK_EQ(out[i], kiln_f32_to_bf16(((const float *)wide)[i]));
        }
    }
}

TEST(every_bf16_converts_and_ties_go_to_even) { lab_on_every_tier(check_every_bf16); }

/* The backward softmax gives e^s bare: scale 1, lse 0. */
static void check_exp(const struct lab *lab) {
    if (lab->bf16) {
        return;
    }
    enum { N = 4096 };
    float *s = lab_memory(N, 4, 0), *zero = lab_memory(N, 4, 0), *p = lab_memory(N, 4, 0);
    float *ds = lab_memory(N, 4, 0), none = 0.0f;
    memset(zero, 0, N * sizeof *zero);
    double worst = 0.0;
    for (int block = 0; block < 100; block++) {
        for (size_t i = 0; i < N; i++) {
            s[i] = -112.0f + 200.3f * (float)((size_t)block * N + i) / (100.0f * N);
        }
        lab->k.softmax_causal_bwd(p, ds, N, s, zero, N, &none, &none, 1, N, N, 1.0f);
        for (size_t i = 0; i < N; i++) {
            double want = exp((double)s[i]);
            if (s[i] < -87.33f) { /* results below the normal numbers may be flushed */
                CHECK(p[i] >= 0.0f && p[i] <= 1.2e-38f);
                continue;
            }
            double ulp = ldexp(1.0, ilogb(want) - 23);
            worst = fmax(worst, fabs((double)p[i] - want) / ulp);
        }
    }
    if (!(worst <= 2.0)) {
        FAIL("%s: exp is off by %.2f ulp", lab->k.tier, worst);
    }
    s[0] = NAN;
    s[1] = 1e30f; /* ref gives infinity, the vectors the largest they have */
    s[2] = -1e30f;
    lab->k.softmax_causal_bwd(p, ds, N, s, zero, N, &none, &none, 1, N, N, 1.0f);
    CHECK(isnan(p[0]) && p[1] > 2e38f && p[2] == 0.0f);
}

TEST(exp_is_within_2_ulp) { lab_on_every_tier(check_exp); }

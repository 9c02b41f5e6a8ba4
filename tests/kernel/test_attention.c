/* SPDX-License-Identifier: MIT
 *
 * Attention of one sequence (src/kernel/attention.h), forward and backward, beside the formula in
 * double: every query against every key it may see.
 */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "kernel/attention.h"
#include "kernel/lab.h"

struct sizes {
    size_t seq, heads, kv_heads, k;
};

static const struct sizes cases[] = {
    {1, 1, 1, 2}, {64, 2, 2, 6}, {65, 4, 2, 48}, {100, 3, 1, 64}, {33, 6, 3, 128}, {130, 4, 1, 2},
};

/* out [T, HK] and, where dout is given, dqkv [T, (H+2G)K] of it. */
static void attend_plainly(const struct sizes *s, const double *qkv, double *out,
                           const double *dout, double *dqkv) {
    size_t hk = s->heads * s->k, width = hk + 2 * s->kv_heads * s->k;
    double scale = 1.0 / sqrt((double)s->k), *p = kiln_alloc(s->seq, sizeof *p);
    for (size_t h = 0; h < s->heads; h++) {
        size_t key = hk + h / (s->heads / s->kv_heads) * s->k, value = key + s->kv_heads * s->k;
        for (size_t t = 0; t < s->seq; t++) {
            const double *q = qkv + t * width + h * s->k;
            double total = 0.0, delta = 0.0;
            for (size_t u = 0; u <= t; u++) {
                double score = 0.0;
                for (size_t i = 0; i < s->k; i++) {
                    score += q[i] * qkv[u * width + key + i];
                }
                total += p[u] = exp(score * scale);
            }
            for (size_t i = 0; i < s->k; i++) {
                double sum = 0.0;
                for (size_t u = 0; u <= t; u++) {
                    sum += p[u] / total * qkv[u * width + value + i];
                }
                out[t * hk + h * s->k + i] = sum;
                delta += dout ? sum * dout[t * hk + h * s->k + i] : 0.0;
            }
            for (size_t u = 0; dout && u <= t; u++) {
                double dp = 0.0, prob = p[u] / total;
                for (size_t i = 0; i < s->k; i++) {
                    double d = dout[t * hk + h * s->k + i];
                    dp += d * qkv[u * width + value + i];
                    dqkv[u * width + value + i] += prob * d;
                }
                for (size_t i = 0; i < s->k; i++) {
                    double ds = prob * (dp - delta) * scale;
                    dqkv[t * width + h * s->k + i] += ds * qkv[u * width + key + i];
                    dqkv[u * width + key + i] += ds * q[i];
                }
            }
        }
    }
    kiln_free(p);
}

static double *widened(const struct lab *lab, const void *from, size_t n) {
    double *to = kiln_alloc(n, sizeof *to);
    for (size_t i = 0; i < n; i++) {
        to[i] = lab_get(lab, from, i);
    }
    return to;
}

/* Norm of the difference over the norm wanted. */
static void near(const struct lab *lab, const char *what, size_t at, const void *got,
                 const double *want, size_t n, double tolerance) {
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < n; i++) {
        double d = lab_get(lab, got, i) - want[i];
        difference += d * d;
        norm += want[i] * want[i];
    }
    lab_close(lab, what, at, sqrt(difference), 0.0, tolerance * sqrt(norm) + 1e-12);
}

/* fp32: sums of up to 130 terms and an exponential, each rounded: 1e-5 is ten times what that
 * makes. bf16: P or dS and the result are rounded to 8 bits (2^-9 each, and two more on the way
 * of the backward, where dP - delta cancels): 1e-2 forward, 3e-2 backward. */
static void check_case(const struct lab *lab, const struct sizes *s, size_t at) {
    size_t hk = s->heads * s->k, width = hk + 2 * s->kv_heads * s->k,
           operand = lab->k.operand_bytes;
    void *qkv = lab_operands(lab, s->seq * width, 0, 1.0f), *dout;
    dout = lab_operands(lab, s->seq * hk, 0, 1.0f);
    void *out = lab_memory(s->seq * hk, operand, 0), *dqkv = lab_memory(s->seq * width, operand, 0);
    float *lse = lab_memory(s->heads * s->seq, sizeof *lse, 0);
    void *scratch = lab_memory(kiln_attention_scratch(&lab->k, s->seq, s->k), 1, 0);
    struct kiln_attention a = {.kernels = &lab->k,
                               .seq = s->seq,
                               .heads = s->heads,
                               .kv_heads = s->kv_heads,
                               .head_size = s->k,
                               .qkv = qkv,
                               .out = out,
                               .lse = lse,
                               .dout = dout,
                               .dqkv = dqkv};
    for (size_t g = 0; g < s->kv_heads; g++) {
        kiln_attention_fwd(&a, g, scratch);
    }
    for (size_t g = 0; g < s->kv_heads; g++) {
        kiln_attention_bwd(&a, g, scratch);
    }
    double *in = widened(lab, qkv, s->seq * width), *d = widened(lab, dout, s->seq * hk);
    double *want_out = kiln_alloc(s->seq * hk, sizeof *want_out);
    double *want_dqkv = kiln_alloc(s->seq * width, sizeof *want_dqkv);
    attend_plainly(s, in, want_out, d, want_dqkv);
    near(lab, "out", at, out, want_out, s->seq * hk, lab->bf16 ? 1e-2 : 1e-5);
    near(lab, "dqkv", at, dqkv, want_dqkv, s->seq * width, lab->bf16 ? 3e-2 : 1e-5);
    kiln_free(in);
    kiln_free(d);
    kiln_free(want_out);
    kiln_free(want_dqkv);
    lab_check_guards();
}

static void check_attention(const struct lab *lab) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_case(lab, &cases[i], i);
    }
}

TEST(attention_and_its_backward_are_the_formula) { lab_on_every_tier(check_attention); }

/* SPDX-License-Identifier: MIT
 *
 * Attention of one sequence (src/kernel/attention.h), forward and backward, beside the formula in
 * double: every query against every key it may see.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
static void attend_plainly(const struct sizes *s, const uint32_t *starts, const double *qkv,
                           double *out, const double *dout, double *dqkv) {
    size_t hk = s->heads * s->k, width = hk + 2 * s->kv_heads * s->k;
    double scale = 1.0 / sqrt((double)s->k), *p = kiln_alloc(s->seq, sizeof *p);
    for (size_t h = 0; h < s->heads; h++) {
        size_t key = hk + h / (s->heads / s->kv_heads) * s->k, value = key + s->kv_heads * s->k;
        for (size_t t = 0; t < s->seq; t++) {
            const double *q = qkv + t * width + h * s->k;
            double total = 0.0, delta = 0.0;
            const size_t low = starts ? starts[t] : 0;
            for (size_t u = low; u <= t; u++) {
                double score = 0.0;
                for (size_t i = 0; i < s->k; i++) {
                    score += q[i] * qkv[u * width + key + i];
                }
                total += p[u] = exp(score * scale);
            }
            for (size_t i = 0; i < s->k; i++) {
                double sum = 0.0;
                for (size_t u = low; u <= t; u++) {
                    sum += p[u] / total * qkv[u * width + value + i];
                }
                out[t * hk + h * s->k + i] = sum;
                delta += dout ? sum * dout[t * hk + h * s->k + i] : 0.0;
            }
            for (size_t u = low; dout && u <= t; u++) {
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
static void check_case(const struct lab *lab, const struct sizes *s, const uint32_t *starts,
                       size_t at) {
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
                               .starts = starts,
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
    attend_plainly(s, starts, in, want_out, d, want_dqkv);
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
        check_case(lab, &cases[i], NULL, i);
    }
}

TEST(attention_and_its_backward_are_the_formula) { lab_on_every_tier(check_attention); }

/* ---- the document mask ----------------------------------------------------------------------- */

enum { LONGEST = 300 };

/* A document begins every `stride` tokens. */
static void make_starts(uint32_t starts[LONGEST], size_t seq, size_t stride) {
    for (size_t t = 0; t < seq; t++) {
        starts[t] = (uint32_t)(t / stride * stride);
    }
}

/* Documents of one token, shorter and longer than blocks of queries and panels of keys. */
static void check_documents(const struct lab *lab) {
    static const size_t strides[] = {1, 5, 32, 64, 70, 129, LONGEST};
    const struct sizes sizes[] = {{LONGEST, 2, 1, 8}, {65, 4, 2, 48}, {130, 3, 3, 64}};
    uint32_t starts[LONGEST];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t j = 0; j < sizeof strides / sizeof strides[0]; j++) {
            make_starts(starts, sizes[i].seq, strides[j]);
            check_case(lab, &sizes[i], starts, i * 100 + j);
        }
    }
}

TEST(attention_within_documents_is_the_formula) { lab_on_every_tier(check_documents); }

struct packed_window {
    void *qkv, *out, *dout, *dqkv;
    float *lse;
};

static void run_both(const struct lab *lab, const struct sizes *s, const uint32_t *starts,
                     const struct packed_window *w, void *scratch) {
    const struct kiln_attention a = {.kernels = &lab->k,
                                     .seq = s->seq,
                                     .heads = s->heads,
                                     .kv_heads = s->kv_heads,
                                     .head_size = s->k,
                                     .starts = starts,
                                     .qkv = w->qkv,
                                     .out = w->out,
                                     .lse = w->lse,
                                     .dout = w->dout,
                                     .dqkv = w->dqkv};
    for (size_t g = 0; g < s->kv_heads; g++) {
        kiln_attention_fwd(&a, g, scratch);
        kiln_attention_bwd(&a, g, scratch);
    }
}

/* What another document holds changes no bit: not forward, not backward. A mask of one document
 * has the bits of none. */
static void check_leaks(const struct lab *lab) {
    const struct sizes s = {200, 2, 1, 16};
    const size_t width = (s.heads + 2 * s.kv_heads) * s.k, hk = s.heads * s.k, cut = 77;
    const size_t operand = lab->k.operand_bytes;
    uint32_t starts[LONGEST] = {0}, one[LONGEST] = {0};
    void *scratch = lab_memory(kiln_attention_scratch(&lab->k, s.seq, s.k), 1, 0);
    struct packed_window w[2];
    for (int i = 0; i < 2; i++) {
        w[i] = (struct packed_window){.qkv = lab_operands(lab, s.seq * width, 0, 1.0F),
                                      .out = lab_memory(s.seq * hk, operand, 0),
                                      .dout = lab_operands(lab, s.seq * hk, 0, 1.0F),
                                      .dqkv = lab_memory(s.seq * width, operand, 0),
                                      .lse = lab_memory(s.heads * s.seq, sizeof(float), 0)};
    }
    for (size_t t = cut; t < s.seq; t++) {
        starts[t] = (uint32_t)cut;
    }
    /* The second window: another first document, the same second one. */
    memcpy((char *)w[1].qkv + cut * width * operand, (char *)w[0].qkv + cut * width * operand,
           (s.seq - cut) * width * operand);
    memcpy((char *)w[1].dout + cut * hk * operand, (char *)w[0].dout + cut * hk * operand,
           (s.seq - cut) * hk * operand);
    run_both(lab, &s, starts, &w[0], scratch);
    run_both(lab, &s, starts, &w[1], scratch);
    CHECK_BYTES((char *)w[0].out + cut * hk * operand, (char *)w[1].out + cut * hk * operand,
                (s.seq - cut) * hk * operand);
    CHECK_BYTES((char *)w[0].dqkv + cut * width * operand,
                (char *)w[1].dqkv + cut * width * operand, (s.seq - cut) * width * operand);
    memcpy(w[1].qkv, w[0].qkv, s.seq * width * operand);
    memcpy(w[1].dout, w[0].dout, s.seq * hk * operand);
    run_both(lab, &s, NULL, &w[0], scratch);
    run_both(lab, &s, one, &w[1], scratch);
    CHECK_BYTES(w[0].out, w[1].out, s.seq * hk * operand);
    CHECK_BYTES(w[0].dqkv, w[1].dqkv, s.seq * width * operand);
    lab_check_guards();
}

TEST(documents_in_a_window_do_not_see_each_other) { lab_on_every_tier(check_leaks); }

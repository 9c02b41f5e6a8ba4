/* SPDX-License-Identifier: MIT
 *
 * kernel.h: the arithmetic of a CPU, as one struct of functions.
 *
 * kiln_kernels_choose() fills the struct from plain C first and then tier by tier with what the
 * machine has; the environment variable KILN_CPU (a tier's name) stops the climb early. Every
 * kernel is single-threaded, asserts its shapes, and has no error path. Results do not depend on
 * threads: callers split the work into blocks whose sizes depend on the problem alone, or in a way
 * that does not show (rows_apart).
 *
 * Operands (what matrix products read) are fp32 or bf16, one choice for a whole struct: an
 * "operand array" is float or uint16_t by `precision`. Sums are always fp32.
 */
#ifndef KILN_KERNEL_H
#define KILN_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bf16.h"
#include "kiln/cpu.h"
#include "kiln/status.h"

/* Packed matrices: kiln's own format for the right-hand operand of every product.
 *
 *   b [n, k], contraction over k, becomes panels of 64 columns n, each contiguous:
 *     bf16  [n/64][k/32][16][64][2]   (oneDNN calls it BA16a64b2a)
 *     fp32  [n/64][k   ][64]
 *   n is padded to 64 and k to 32 with zeros. Panels are kiln_panel_elements(k) apart.
 */
enum { KILN_PANEL = 64, KILN_PANEL_K = 32 };

static inline size_t kiln_panel_elements(size_t k) {
    return (k + KILN_PANEL_K - 1) / KILN_PANEL_K * KILN_PANEL_K * KILN_PANEL;
}
/* Operand elements of a packed [n, k]. */
static inline size_t kiln_packed_elements(size_t n, size_t k) {
    return (n + KILN_PANEL - 1) / KILN_PANEL * kiln_panel_elements(k);
}

/* Where element (n, k) of a packed matrix lies in its panel n/64. */
static inline size_t kiln_packed_at(size_t operand_bytes, size_t n, size_t k) {
    size_t column = n % KILN_PANEL;
    return operand_bytes == 2 ? k / 2 * 2 * KILN_PANEL + column * 2 + k % 2
                              : k * KILN_PANEL + column;
}

/* One block of a product: c [m, n] = a [m, k] . b [n, k]^T (+ add).
 *
 * Own code sums over k in index order (on AMX 32 at a time, amx_block.h), so how a product is cut
 * over m and n does not show in its bits; it is never cut over k. The largest block is KILN_GEMM_M
 * x KILN_GEMM_N (product.h cuts). */
enum { KILN_GEMM_M = 128, KILN_GEMM_N = 256 };
/* A block of at most so many rows is bound by reading b: gemm_own reads it once, straight from
 * where it lies. bf16: the sums are those of larger blocks, bit for bit, where `few_as_many` says
 * so. fp32: they are taken in double and rounded once, which costs nothing here; a greedy text
 * hangs on differences of scores that are smaller than what the order of fp32 sums makes. */
enum { KILN_GEMM_FEW = 4 };

struct kiln_gemm {
    size_t m, n, k;
    const void *a; /* operands, row-major */
    size_t lda;    /* elements between rows of a */
    const void *b; /* packed panels; the block starts at a panel's first column */
    size_t panel;  /* elements between panels; 0: those of k. Others only in gemm_own, where b
                    * was packed for a longer contraction than this block wants */
    void *c;       /* row-major; fp32, or operands when c_operand */
    size_t ldc;
    bool c_operand;
    const float *add; /* NULL, or fp32 [m, n] added to the sums; may be c itself */
    size_t ldadd;     /* 0: one row, a bias, for all rows of c */
    void *scratch;    /* KILN_GEMM_SCRATCH bytes, 64-byte aligned, of the calling thread */
};
enum { KILN_GEMM_SCRATCH = (KILN_GEMM_M * KILN_GEMM_N + KILN_GEMM_M * 128 + 128 * 64) * 4 };

/* AdamW with decoupled decay (Loshchilov and Hutter 2019), one step's constants. */
struct kiln_adamw {
    float lr, beta1, beta2, eps;
    float decay;       /* lr * weight_decay, 0 for tensors without decay */
    float grad_scale;  /* clip factor applied to the gradient */
    float correction1; /* 1 / (1 - beta1^t) */
    float correction2; /* 1 / (1 - beta2^t) */
};

enum { KILN_SUM_BLOCK = 64 };

struct kiln_kernels {
    const char *tier;     /* "ref", "avx2" ...: the names of kiln_kernels_tiers */
    const char *provider; /* who multiplies: "own", "onednn" */
    enum kiln_precision precision;
    size_t operand_bytes; /* 4 or 2 */
    /* Has a row of a product the same bits whether it is multiplied in a block of at most
     * KILN_GEMM_FEW rows or in a larger one? bf16 on own code, but for AMX: its sums have another
     * order than AVX512's, which few rows stay with. Who needs equal bits where this is false takes
     * few rows at a time (kiln_product_few). */
    bool few_as_many;
    /* gemm: has a row the same bits however high its block is? True of own code. */
    bool rows_apart;
    /* Rounding fp32 to bf16 may make 0 of what is subnormal there (below 2^-126), which products on
     * this tier take for 0 anyway. */
    bool flushes;

    void (*gemm)(const struct kiln_gemm *block); /* by the provider */
    /* By own code, for the small products of attention and for few rows. */
    void (*gemm_own)(const struct kiln_gemm *block);

    /* Pack rows: src [n, k] with row stride ld -> panels `panel` elements apart at dst, contraction
     * over k. n is padded to 64 and k to 32 with zeros. */
    void (*pack_f32)(void *dst, size_t panel, const float *src, size_t ld, size_t n, size_t k);
    void (*pack)(void *dst, size_t panel, const void *src, size_t ld, size_t n, size_t k);
    /* Pack columns: src [k, n], contraction over its rows. `panel` is the distance of panels at
     * dst in elements, so that a slice k0.. (k0 a multiple of 32) of a longer contraction is
     * packed by itself: pass dst + k0*64. */
    void (*pack_t_f32)(void *dst, size_t panel, const float *src, size_t ld, size_t k, size_t n);
    void (*pack_t)(void *dst, size_t panel, const void *src, size_t ld, size_t k, size_t n);

    /* Both copies of n rows, at most 64, of a matrix [.., k] in one reading: pack_f32 into one
     * panel at `forward`, and pack_t_f32 into the panels `panel` elements apart at `backward`. Both
     * are 64-byte aligned. stream: write past the caches, for copies that no cache holds anyway. */
    void (*pack_both)(void *forward, void *backward, size_t panel, const float *src, size_t ld,
                      size_t n, size_t k, bool stream);

    /* dst [cols, rows] = src [rows, cols]^T, operands. */
    void (*transpose)(void *dst, size_t ldd, const void *src, size_t lds, size_t rows, size_t cols);
    /* fp32 -> operands, operands -> fp32, n elements. */
    void (*round)(void *dst, const float *src, size_t n);
    void (*widen)(float *dst, const void *src, size_t n);

    /* RMSNorm (Zhang and Sennrich 2019): y = x * rstd * w, rstd = (mean x^2 + eps)^-1/2.
     * x [rows, d] fp32, y operands, rstd [rows]. */
    void (*rmsnorm)(void *y, float *rstd, const float *x, const float *w, float eps, size_t rows,
                    size_t d);
    /* dx += gradient through the norm; dw [d] += sum over rows of dy * x * rstd. dy fp32. */
    void (*rmsnorm_bwd)(float *dx, float *dw, const float *dy, const float *x, const float *w,
                        const float *rstd, size_t rows, size_t d);

    /* RoPE (Su et al. 2021), interleaved pairs, in place on `heads` heads of size k at the start
     * of each row: row r is at position (first + r) % period. angles: [period, k] as cos, sin,
     * cos, sin ... per pair. inverse turns back (the backward pass). */
    void (*rope)(void *x, size_t ld, size_t rows, size_t heads, size_t k, const float *angles,
                 size_t first, size_t period, bool inverse);

    /* RMSNorm of `heads` heads of size k at the start of each row, operands, each by itself: y = x
     * * rstd * w, w [k], rstd = (mean x^2 + eps)^-1/2 of the head. Rows of x and y are ld apart; y
     * may be x. */
    void (*head_norm)(void *y, const void *x, size_t ld, size_t rows, size_t heads, size_t k,
                      const float *w, float eps);
    /* The backward, in place: dy becomes the gradient of x, which is what the forward read; dw [k]
     * += sum over rows and heads, in that order, of dy * x * rstd. */
    void (*head_norm_bwd)(void *dy, float *dw, const void *x, size_t ld, size_t rows, size_t heads,
                          size_t k, const float *w, float eps);
    /* sum [n] += rows 0, 1, .. of x, operands [rows, n], ld apart: the gradient of a bias. */
    void (*sum_rows)(float *sum, const void *x, size_t ld, size_t rows, size_t n);

    /* SwiGLU (Shazeer 2020): h [rows, 2F] holds h1 | h3; gate [rows, F] = silu(h1) * h3. */
    void (*swiglu)(void *gate, const void *h, size_t rows, size_t f);
    /* dh [rows, 2F] from dgate [rows, F] and h; may overwrite h in place (dh == h). `gate` gets
     * what swiglu makes of h, unless it is NULL: the backward pass wants both. */
    void (*swiglu_bwd)(void *dh, void *gate, const void *dgate, const void *h, size_t rows,
                       size_t f);

    /* Causal softmax of one block of score rows: row r sees columns 0..first+r. p (operands) gets
     * softmax(scale * s), zeros up to `cols`; lse[r] = ln sum exp(scale * s). s is overwritten.
     * Here and in the backward rows have room for cols rounded up to 16: what lies behind cols
     * is scratch of the kernel. */
    void (*softmax_causal)(void *p, size_t ldp, float *lse, float *s, size_t lds, size_t rows,
                           size_t first, size_t cols, float scale);
    /* The backward of the same block: p = exp(scale*s - lse), ds = scale * p * (dp - delta),
     * both operands, zeros beyond the causal limit up to `cols`. */
    void (*softmax_causal_bwd)(void *p, void *ds, size_t ldp, const float *s, const float *dp,
                               size_t lds, const float *lse, const float *delta, size_t rows,
                               size_t first, size_t cols, float scale);

    /* Embedding: x [n, d] = rows of table [.., d] that the tokens name, fp32. */
    void (*embed)(float *x, const float *table, const uint32_t *tokens, size_t n, size_t d);
    /* The backward: row tokens[i] of table += row i of dx, i = 0, 1, .. in order, on `columns` of
     * d columns: callers that share the work split the columns, and both pointers begin at their
     * first. */
    void (*embed_bwd)(float *table, const float *dx, const uint32_t *tokens, size_t n, size_t d,
                      size_t columns);

    /* Cross-entropy of one row of logits [n]: returns -ln softmax(logits)[target] and writes
     * dlogits = (softmax - onehot) * scale as operands (skipped when NULL). logits is overwritten;
     * dlogits may begin where logits does. */
    float (*cross_entropy)(void *dlogits, float *logits, size_t n, size_t target, float scale);

    /* sum of a*b in fp32 over operands (delta of attention). */
    float (*dot)(const void *a, const void *b, size_t n);
    /* y += x, fp32. */
    void (*add)(float *y, const float *x, size_t n);
    /* sum[j] = sum of squares of columns j*64.. of x [rows, cols], ld apart, at most 64 rows: the
     * same function of each block of 64 x 64, whatever lies beside it. */
    void (*sum_squares)(double *sum, const float *x, size_t ld, size_t rows, size_t cols);
    /* One AdamW update of n parameters; within 2 ulp of ref on every tier, subnormal numbers too.
     * eps must be positive: with 0 a parameter that never had a gradient is 0/0, a NaN. */
    void (*adamw)(float *w, float *m, float *v, const float *g, size_t n,
                  const struct kiln_adamw *constants);

    /* fp16, for NPUs and their files, the same whatever the operands: fp32 -> fp16 to nearest even
     * (beyond 65504 and its half unit: infinity; NaN stays NaN, quiet), fp16 -> fp32, and fp32
     * rounded to fp16 in place. Every tier gives the same bits. */
    void (*half_of)(uint16_t *dst, const float *src, size_t n);
    void (*half_to)(float *dst, const uint16_t *src, size_t n);
    void (*half_round)(float *x, size_t n);
};

/* The kernels of this machine for a precision. KILN_EUSAGE when KILN_CPU names an unknown tier,
 * KILN_EUNSUPPORTED when the machine lacks it. */
KILN_MUST_CHECK enum kiln_status kiln_kernels_choose(enum kiln_precision precision,
                                                     struct kiln_kernels *out,
                                                     struct kiln_err *err);

/* An instruction tier of this architecture: its name for KILN_CPU, whether this processor has it
 * (NULL: all have), and what fills the struct whole, on any processor. */
struct kiln_tier {
    const char *name;
    bool (*present)(void);
    void (*fill)(struct kiln_kernels *kernels, enum kiln_precision precision);
};
/* All n of them, lowest first. */
const struct kiln_tier *kiln_kernels_tiers(size_t *n);

/* The fillers: fp32 or bf16. */
void kiln_kernels_ref(struct kiln_kernels *kernels, enum kiln_precision precision);
void kiln_kernels_avx2(struct kiln_kernels *kernels, enum kiln_precision precision);
void kiln_kernels_avx512(struct kiln_kernels *kernels, enum kiln_precision precision);
void kiln_kernels_avx512bf16(struct kiln_kernels *kernels, enum kiln_precision precision);
void kiln_kernels_neon(struct kiln_kernels *kernels, enum kiln_precision precision);
void kiln_kernels_neonbf16(struct kiln_kernels *kernels, enum kiln_precision precision);
void kiln_kernels_amx(struct kiln_kernels *kernels, enum kiln_precision precision);
/* oneDNN as the provider of bf16 products; false when this build or machine has none. */
bool kiln_kernels_onednn(struct kiln_kernels *kernels);

#if defined(__x86_64__)
bool kiln_cpu_has_amx(void); /* AMX-BF16, whether or not the system lets it be used */
/* May this process use AMX? Asks the system for it, once. */
bool kiln_cpu_may_use_amx(void);
bool kiln_cpu_has_avx512bf16(void);
bool kiln_cpu_has_bf16(void); /* AVX512-BF16 or AMX-BF16 */
#elif defined(__aarch64__)
bool kiln_cpu_has_bf16(void); /* FEAT_BF16 */
#endif

/* fp16 <-> fp32, round to nearest even, NaN stays NaN and becomes quiet. */
/* Without branches, so that loops over it vectorise. */
static inline float kiln_f16_to_f32(uint16_t x) {
    union {
        uint32_t u;
        float f;
    } v, small;
    const uint32_t magnitude = (uint32_t)(x & 0x7fff) << 13, rebias = 112u << 23;
    const uint32_t infinite = 31u << 23, hidden = 1u << 23;
    v.u = magnitude + rebias;
    v.u += magnitude >= infinite ? rebias : 0;
    v.u |= magnitude > infinite ? 0x400000u : 0;
    /* A subnormal is its digits behind a one, less that one. */
    small.u = v.u + hidden;
    small.f -= 0x1p-14f;
    v.f = magnitude < hidden ? small.f : v.f;
    v.u |= (uint32_t)(x & 0x8000) << 16;
    return v.f;
}
static inline uint16_t kiln_f32_to_f16(float x) {
    union {
        float f;
        uint32_t u;
    } v = {x};
    uint32_t sign = v.u >> 16 & 0x8000u, size = v.u & 0x7fffffffu;
    if (size > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u | (size >> 13 & 0x3ffu));
    }
    if (size >= 0x477ff000u) { /* 65520: half way between the largest and what would follow */
        return (uint16_t)(sign | 0x7c00u);
    }
    if (size < 0x38800000u) { /* below 2^-14: the last bit of 0.5 is fp16's smallest number */
        v.u = size;
        v.f += 0.5f;
        return (uint16_t)(sign | (v.u - 0x3f000000u));
    }
    return (uint16_t)(sign | (size + 0xfffu + (size >> 13 & 1u) - 0x38000000u) >> 13);
}

#endif

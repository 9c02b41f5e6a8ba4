/* SPDX-License-Identifier: MIT
 *
 * lora_cpu.h: adapters beside the frozen matrices of a half-layer (kiln/lora.h).
 *
 * The packed weights are never touched. All tensors of a matrix (Q, K, V are one) have the same
 * input, so their A are stacked to one [R, in], R the sum of their ranks, and their B stand on the
 * diagonal of one [out, R]:
 *
 *   forward    u = x (s A)^T      y = x W^T + u B^T                 s = alpha / r
 *   backward   du = dy (s B)      dx = dy W + du A
 *              dB = dy^T u        dA = du^T x                       for each tensor
 *
 * What adapters add goes into the sums of the frozen product in fp32, before they are rounded: it
 * is not lost beside larger weights. A and B themselves are operands of products, as all weights
 * are: bf16 or fp32 by --precision. s is multiplied in when they are packed, once for either
 * direction. They are small, so they are packed from the master weights at the start of each
 * half-layer; u is computed again in the backward pass instead of being kept.
 *
 * Chunks work on their own rows of tokens; gradients contract over all tokens of the micro-batch in
 * one sum, whose blocks depend on the shapes alone: bits do not depend on threads.
 */
#ifndef KILN_DEVICE_LORA_CPU_H
#define KILN_DEVICE_LORA_CPU_H

#include "kernel/product.h"
#include "kiln/model.h"

struct kiln_cpu_device;

/* The adapters of one matrix of a half-layer, packed. */
struct kiln_cpu_adapters {
    const struct kiln_matrix *matrix; /* NULL: it has none */
    size_t rank;                      /* R */
    void *a_in;                       /* [R, cols] s A, contraction over cols */
    void *b_in;                       /* [rows, R] B, contraction over R */
    void *b_back;                     /* [R, rows] (s B)^T, contraction over rows */
    void *a_back;                     /* [cols, R] A^T, contraction over R */
    void *turned;                     /* operands [R, kiln_turned_stride(N)]: du */
    void *packed;                     /* for each tensor [r, N] packed: u */
};

struct kiln_cpu_lora {
    struct kiln_cpu_adapters of[2]; /* the output's matrix and the input's (enum product) */
    float *staging;                 /* fp32, the larger of a stacked A and B */
};

/* A chunk of tokens of a half-layer. */
struct kiln_lora_chunk {
    const struct kiln_cpu_device *cpu;
    size_t first, rows;
    void *gemm;   /* KILN_GEMM_SCRATCH bytes */
    void *u;      /* operands [rows, R] */
    float *delta; /* fp32 [rows, the widest matrix] */
};

/* Cut the blocks out of the device's workspace, behind `used`; base NULL plans the size. */
size_t kiln_cpu_lora_lay_out(struct kiln_cpu_device *cpu, void *base, size_t used);
/* Of one chunk: bytes of u, and of delta. */
size_t kiln_cpu_lora_u_bytes(const struct kiln_cpu_device *cpu);
size_t kiln_cpu_lora_delta_bytes(const struct kiln_cpu_device *cpu);

/* Pack the adapters of the matrices of a half-layer: `output` and `input` of that layer. */
void kiln_cpu_lora_begin(struct kiln_cpu_device *cpu, size_t layer, enum kiln_matrix_kind output,
                         enum kiln_matrix_kind input, bool backward);
/* The packed adapters of a matrix; NULL: it has none. */
const struct kiln_cpu_adapters *kiln_cpu_lora_of(const struct kiln_cpu_device *cpu,
                                                 const struct kiln_matrix *matrix);

/* to [rows, out] = u B^T (+ residual): what the frozen product then adds its sums to. Returns `to`.
 * residual has the width of the matrix's rows, or stride 0: one row for all. */
const float *kiln_cpu_lora_forward(const struct kiln_lora_chunk *chunk,
                                   const struct kiln_cpu_adapters *a, const void *x,
                                   const float *residual, size_t stride, float *to);
/* to [rows, in] = du A; du is kept for the gradients. */
const float *kiln_cpu_lora_backward(const struct kiln_lora_chunk *chunk,
                                    const struct kiln_cpu_adapters *a, const void *dy, float *to);
/* u of the chunk's rows again, for the gradients. */
void kiln_cpu_lora_input(const struct kiln_lora_chunk *chunk, const struct kiln_cpu_adapters *a,
                         const void *x);
/* Gradients of all adapters of the half-layer, from the operands that the chunks left. */
void kiln_cpu_lora_gradients(struct kiln_cpu_device *cpu);

#endif

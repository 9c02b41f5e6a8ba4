/* SPDX-License-Identifier: MIT
 *
 * cpu.h: the CPU device, for the files of its own folder.
 *
 * Blocks, N = B*T tokens, operands fp32 or bf16:
 *   residual       fp32 [N, D]
 *   attention taps operands qkv [N, (H+2G)K] | out [N, HK] | fp32 lse [B, H, T]; qkv is what
 *                  attention reads, after RoPE, or where heads are normalised what the norm reads
 *   feed-forward taps operands h [N, 2F]
 * Norms and gates are recomputed in the backward pass: they are cheaper than the memory they would
 * take.
 */
#ifndef KILN_DEVICE_CPU_H
#define KILN_DEVICE_CPU_H

#include "device/cpu/lora_cpu.h"
#include "device/device.h"
#include "device/host/head.h"
#include "kernel/attention.h"
#include "kernel/packed.h"
#include "kernel/product.h"

/* What is compiled from one generation of weights. */
struct kiln_cpu_set {
    struct kiln_packed packed;
    unsigned char *loaded; /* [kinds][L] kernels that are loaded; atomic. Weightless ones: set 0 */
};

struct kiln_cpu_device {
    struct kiln_device base;
    struct kiln_kernels kernels;
    struct kiln_workers workers;
    struct kiln_cpu_set sets[2];
    size_t n_sets;
    struct kiln_head head;   /* of the active set; works in the workspace below */
    struct kiln_arena arena; /* the workspace below */
    bool training, beside, no_head;
    struct kiln_gpu *gpu; /* NULL: weight gradients are computed here */
    /* With one: what the half-layer's two products will read there, the output's and the input's;
     * the turned and packed arrays below are not touched then. */
    struct kiln_gpu_slot *slots[2];
    size_t tokens; /* N */
    float *angles; /* RoPE: [T, K] as cos, sin pairs */
    /* Where heads are normalised, operands [N, (H+2G)K]: what attention reads of the half-layer
     * that is being run. NULL otherwise: the taps hold it. */
    void *turned_qkv;

    size_t chunk; /* tokens that one task takes, a multiple of 32 */

    /* Workspace; operands unless said otherwise. Of a backward half-layer: */
    void *turned_dy;   /* [D, N'] its incoming gradient; N' = kiln_turned_stride(N) */
    void *turned_wide; /* [max((H+2G)K, 2F), N'] the gradient of qkv or of h */
    void *packed_in;   /* [max(HK, F), N] packed: attention's output, or the gate */
    void *packed_xn;   /* [D, N] packed: the norm's output */
    void *dout;        /* [N, HK] gradient of attention's output */
    void *dqkv;        /* [N, (H+2G)K] */
    float *rstd;       /* fp32 [N] */
    float *dnorm;      /* fp32 [N/32, D] partial gradients of a norm's weight */
    float *dheads;     /* fp32 [N/32, 2K] likewise of both head norms; NULL without them */
    float *dbias;      /* fp32 [N/32, (H+2G)K] likewise of the biases; NULL without them */
    float *losses;     /* fp32 [N] */

    struct kiln_cpu_lora lora; /* adapters of the half-layer that runs */
};

/* What a chunk of M tokens is worked on in, part of its thread's scratch. Operands. */
struct kiln_cpu_scratch {
    void *gemm;   /* KILN_GEMM_SCRATCH bytes */
    void *xn;     /* [M, D] normalised input */
    void *gate;   /* [M, F] */
    void *dy;     /* [M, D] incoming gradient */
    void *dgate;  /* [M, F] */
    void *dh;     /* [M, 2F] */
    float *dxn;   /* fp32 [M, D] gradient of the norm's output */
    void *u;      /* adapters: [M, R], and */
    float *delta; /* fp32 [M, the widest matrix] (lora_cpu.h) */
};
/* Cut it out of the thread's scratch; returns its bytes. */
size_t kiln_cpu_scratch(const struct kiln_cpu_device *cpu, void *base,
                        struct kiln_cpu_scratch *out);

static inline struct kiln_cpu_device *kiln_cpu_of(struct kiln_device *device) {
    return (struct kiln_cpu_device *)device;
}

/* The packed matrices that the owner computes with. */
static inline const struct kiln_packed *kiln_cpu_packed(const struct kiln_cpu_device *cpu) {
    return &cpu->sets[cpu->base.set].packed;
}

/* Is there a kernel of that kind for the layer, in the active set? */
bool kiln_cpu_loaded(const struct kiln_cpu_device *cpu, size_t kind, size_t layer);

/* Parts of the tap blocks. */
struct kiln_taps_attention {
    void *qkv, *out;
    float *lse;
};
struct kiln_taps_attention kiln_cpu_taps(const struct kiln_cpu_device *cpu, const void *taps);

/* Biases of a layer's queries, keys and values, one behind the other [(H+2G)K]; NULL: none. */
const float *kiln_cpu_bias(const struct kiln_cpu_device *cpu, size_t layer);
/* Operands [N, (H+2G)K] that attention reads: in the taps or in turned_qkv. */
void *kiln_cpu_turned(const struct kiln_cpu_device *cpu, const void *taps);
/* Rows first.. of the taps' qkv hold the product: make them what attention reads. Where heads are
 * normalised this may be done again in the backward pass, and must be. */
void kiln_cpu_turn_heads(const struct kiln_cpu_device *cpu, size_t layer, const void *taps,
                         size_t first, size_t n);
/* Rows first.. of dqkv, the gradient of what attention read, become that of the product. `first` is
 * a multiple of KILN_ROW_CHUNK; partial gradients are left for when all rows are done: */
void kiln_cpu_turn_heads_bwd(const struct kiln_cpu_device *cpu, size_t layer, const void *taps,
                             size_t first, size_t n);
void kiln_cpu_head_gradients(const struct kiln_cpu_device *cpu, size_t layer);

KILN_MUST_CHECK enum kiln_status kiln_cpu_open(const struct kiln_table *table,
                                               struct kiln_pool *pool,
                                               const struct kiln_weights *weights,
                                               const struct kiln_device_options *options,
                                               struct kiln_device **out, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_cpu_sizes(const struct kiln_table *table,
                                                const struct kiln_device_options *options,
                                                struct kiln_device_sizes *out,
                                                struct kiln_err *err);

enum kiln_status kiln_cpu_forward(struct kiln_device *device, size_t layer, enum kiln_half half,
                                  const void *x_in, void *x_out, void *taps, bool keep,
                                  struct kiln_err *err);
enum kiln_status kiln_cpu_backward(struct kiln_device *device, size_t layer, enum kiln_half half,
                                   const void *x_in, void *dx, const void *taps,
                                   struct kiln_err *err);
enum kiln_status kiln_cpu_embed(struct kiln_device *device, const uint32_t *tokens, void *x,
                                struct kiln_err *err);
enum kiln_status kiln_cpu_embed_backward(struct kiln_device *device, const uint32_t *tokens,
                                         const void *dx, struct kiln_err *err);
enum kiln_status kiln_cpu_head(struct kiln_device *device, const void *x, const uint32_t *targets,
                               float scale, void *dx, double *loss, struct kiln_err *err);

#endif

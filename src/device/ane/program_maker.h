/* SPDX-License-Identifier: MIT
 *
 * program_maker.h: what the files that make programs share: a program under construction.
 */
#ifndef KILN_DEVICE_ANE_PROGRAM_MAKER_H
#define KILN_DEVICE_ANE_PROGRAM_MAKER_H

#include "device/ane/programs.h"
#include "device/mil/text.h"

enum {
    KILN_NPU_FILES = 20,
    KILN_NPU_CONCAT = 6, /* values of a concat, at most, as in published programs that train */
};

struct kiln_npu_maker {
    struct kiln_mil_text text;
    enum kiln_npu_kind kind;
    const struct kiln_dims *dims;
    const struct kiln_table *table;     /* NULL: only sizes are wanted, nothing is written */
    const struct kiln_weights *weights; /* NULL: this kind bakes none */
    const struct kiln_npu_mode *mode;
    struct kiln_mil_ref input;
    void (*half_of)(uint16_t *dst, const float *src, size_t n); /* this machine's (kernel.h) */
    size_t width;                                               /* W */
    size_t repeat; /* query heads of a key-value head */
    size_t layer, part;
    struct kiln_npu_port in, out;
    struct kiln_npu_weight *files; /* [KILN_NPU_FILES] */
    size_t n_files, file_bytes;
    enum kiln_status status; /* the first failure; what follows it is skipped */
    struct kiln_err *err;
};

/* ---- weights (program_weights.c) ------------------------------------------------------------ */

/* A matrix of the layer as the weight [rows, cols, 1, 1] of a conv, or transposed. The file has the
 * value's name. */
struct kiln_mil_ref kiln_npu_put_matrix(struct kiln_npu_maker *m, const char *name,
                                        enum kiln_role role, bool transposed);
/* Rows and columns of a matrix of a layer. */
void kiln_npu_role_shape(const struct kiln_dims *dims, enum kiln_role role, size_t *rows,
                         size_t *cols);
/* The classifier's rows of this part. */
struct kiln_mil_ref kiln_npu_put_classifier(struct kiln_npu_maker *m, const char *name);
/* The causal mask [1, 1, W, W]: 0 where a row may look, -65504 behind it. */
struct kiln_mil_ref kiln_npu_put_causal(struct kiln_npu_maker *m);
/* Which token a column is, [1, 1, 1, W]: its multiple of 64, or the rest. */
struct kiln_mil_ref kiln_npu_put_places(struct kiln_npu_maker *m, const char *name, bool rest);
/* RoPE's tables [1, K/2, 1, W]. */
struct kiln_mil_ref kiln_npu_put_angles(struct kiln_npu_maker *m, const char *name, bool sine);

/* What RMSNorm bakes. The mean is a conv with weights of scale/channels each. In fp16 that is off
 * by up to 2^-11, for every token alike; so each channel's weight is rounded with what those before
 * it still owe, and their sum is right. */
struct kiln_mil_ref kiln_npu_put_mean(struct kiln_npu_maker *m, const char *name, double scale,
                                      size_t channels);
/* A tensor of rank 1 and n elements, [1, n, 1, 1]. */
struct kiln_mil_ref kiln_npu_put_norm_weight(struct kiln_npu_maker *m, const char *name,
                                             enum kiln_role role, size_t n);
/* eps, but never 0 in fp16. */
double kiln_npu_norm_eps(const struct kiln_dims *dims);

/* Squares are taken of x/4, which is exact and leaves room up to |x| = 1023. */
#define KILN_NPU_NORM_PRESCALE 0.25
#define KILN_NPU_NORM_SCALE    16.0

/* ---- programs (program_layer.c, program_attention.c, program_dynamic.c) ---------------------- */

/* Each takes the program's input and returns its output. */
typedef struct kiln_mil_ref kiln_npu_body_fn(struct kiln_npu_maker *m, struct kiln_mil_ref x);
kiln_npu_body_fn kiln_npu_attn_fwd, kiln_npu_attn_bwd1, kiln_npu_attn_bwd2, kiln_npu_qkv_bwd,
    kiln_npu_ffn_fwd, kiln_npu_ffn_bwd, kiln_npu_norm_bwd, kiln_npu_final_norm, kiln_npu_classifier,
    kiln_npu_softmax, kiln_npu_sdpa_fwd, kiln_npu_sdpa_bwd1, kiln_npu_ffn_fused,
    kiln_npu_dynamic_linear;

/* Part i of the program's input, as [1, C, 1, its own width]. */
struct kiln_mil_ref kiln_npu_part(struct kiln_npu_maker *m, const char *name, struct kiln_mil_ref x,
                                  size_t i);
/* The input's rows that say where documents begin, [1, 2, 1, W]. */
struct kiln_mil_ref kiln_npu_put_starts(struct kiln_npu_maker *m);
/* RMSNorm of x with the layer's weight of that role. */
struct kiln_mil_ref kiln_npu_put_norm(struct kiln_npu_maker *m, struct kiln_mil_ref x,
                                      enum kiln_role role);

/* What the model has between the products and RoPE (program_heads.c): biases onto the products of
 * queries, keys and values, [1, HK or GK, 1, W]; RMSNorm of each head of queries and keys. `in` is
 * the program's input, which holds the weights where they are not baked. */
void kiln_npu_put_biases(struct kiln_npu_maker *m, struct kiln_mil_ref in,
                         struct kiln_mil_ref qkv[3]);
void kiln_npu_put_head_norms(struct kiln_npu_maker *m, struct kiln_mil_ref in,
                             struct kiln_mil_ref qk[2]);
/* The program's output from its parts. */
struct kiln_mil_ref kiln_npu_put_outputs(struct kiln_npu_maker *m,
                                         const struct kiln_mil_ref *values, size_t n);

/* y = x through a matrix of the layer, baked into `file`, and its adapter; transposed: backward. */
struct kiln_mil_ref kiln_npu_put_linear(struct kiln_npu_maker *m, const char *name,
                                        const char *file, enum kiln_role role,
                                        struct kiln_mil_ref x, bool transposed);
/* y, which a matrix made of x, [1, C, 1, W] both, and what its adapter adds; y itself where it has
 * none. `name` is y's. */
struct kiln_mil_ref kiln_npu_put_adapted(struct kiln_npu_maker *m, const char *name,
                                         enum kiln_role role, struct kiln_mil_ref x,
                                         struct kiln_mil_ref y, bool backward);
/* Columns of adapters behind the input of a kind. */
void kiln_npu_add_adapters(enum kiln_npu_kind kind, const struct kiln_dims *dims,
                           const struct kiln_lora *lora, struct kiln_npu_port *in);

/* Causal attention of Q [1, HK, 1, W] after RoPE over K and V [1, GK, 1, W]. */
struct kiln_mil_ref kiln_npu_put_attention(struct kiln_npu_maker *m, struct kiln_mil_ref q,
                                           struct kiln_mil_ref k, struct kiln_mil_ref v);
/* RoPE of two tensors of heads, [1, heads*K, 1, W]; inverse: the backward of it. */
void kiln_npu_put_rope(struct kiln_npu_maker *m, struct kiln_mil_ref *q, struct kiln_mil_ref *k,
                       bool inverse);
/* Backward of attention from Q, K, V and the gradient da of its output: dV, P and dP, joined. */
struct kiln_mil_ref kiln_npu_put_attention_bwd1(struct kiln_npu_maker *m, struct kiln_mil_ref x,
                                                struct kiln_mil_ref da);
/* gate = silu(h1) * h3. */
struct kiln_mil_ref kiln_npu_put_gate(struct kiln_npu_maker *m, struct kiln_mil_ref h1,
                                      struct kiln_mil_ref h3);

#endif

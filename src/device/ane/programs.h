/* SPDX-License-Identifier: MIT
 *
 * programs.h: the MIL programs that make a Llama layer, and what lies where on their surfaces.
 *
 * Letters: D width, H query heads, G key-value heads, K head size, F feed-forward, V vocabulary,
 * T tokens of a sequence, W = T rounded up to 16. A surface holds one sequence, channel-first
 * fp16 [1, C, 1, W]: element (c, t) at c*W + t. Columns T..W-1 of x, of gradients and of Q and K
 * are zero on input and of no meaning on output; what P and dP hold there, in columns and in rows
 * of padding, meets only zeros. Parts of a surface follow each other in the channels, in the order
 * listed:
 *
 *   baked: weights in the program
 *   kind        weights               input                          output
 *   ----------  --------------------  -----------------------------  -----------------------------
 *   attn_fwd    norm, Wq, Wk, Wv, Wo  D: x                           D: o, HK: Q, GK: K, GK: V,
 *                                                                    HK: att, D: xn;
 *                                                                    HK: q, GK: k
 *   ffn_fwd     norm, W1, W3, W2      D: x                           D: y, F: h1, F: h3, F: gate,
 *                                                                    D: xn
 *   ffn_bwd     W2', W1', W3'         D: dy, F: h1, F: h3            D: dxn, F: dh1, F: dh3
 *   attn_bwd1   Wo'                   HK: Q, GK: K, GK: V, D: do     GK: dV, HW: P, HW: dP
 *   attn_bwd2   -                     HW: P, HW: dP, HK: Q, GK: K    HK: dQ, GK: dK
 *   qkv_bwd     Wq', Wk', Wv'         HK: dQ, GK: dK, GK: dV         D: dxn
 *   norm_bwd_*  norm (attn, ffn)      D: dxn, D: x                   D: dx
 *   final_norm  norm                  D: x                           D: xn
 *   classifier  rows of a part        D: xn                          rows: logits
 *   softmax     -                     V: logits                      V: probabilities
 *
 * Row t of head h of P and dP (scores of query t over all keys) is channel h*W + t.
 * Q and K are after RoPE; dQ and dK of attn_bwd2 are before it (RoPE's backward is inside). Query
 * head h reads key-value head h / (H/G), forward and backward. o and y are without the residual.
 *
 * Models with biases of queries, keys and values (dims.qkv_bias) have them in attn_fwd beside the
 * matrices; then Q, K and V of columns of padding are not zero, but finite. Models that norm every
 * query and key head before RoPE (dims.qk_norm) have the norms' weights there, and q and k, before
 * the norm, at the end of the output. The norms' backward is the host's (host.h): the gradient of
 * their weights wants the same sums there, so a program would only move more bytes. dQ and dK of
 * qkv_bwd are before the norm.
 *
 * With a document mask (doc_mask) two more channels close the inputs of the programs that attend,
 * attn_fwd, attn_bwd1, sdpa_fwd (in the columns of xn) and sdpa_bwd1: the place where each token's
 * document begins (kiln_npu_fill_starts). The mask is made of them in the program: W numbers are
 * moved where the mask itself has W*W.
 *
 * With adapters (lora) the matrices of a program, baked or not, have theirs in columns behind all
 * that is listed here (struct kiln_npu_adapter); an input then has the channels of the tallest.
 *
 *   dynamic: weights on the spatial axis, behind the activation: [1, C, 1, W + ...]. Parts begin
 *   at multiples of 16 columns (kiln_npu_part_at); what lies between two parts is not read
 *   kind         input                                    output
 *   -----------  ---------------------------------------  ---------------------------------
 *   sdpa_fwd     D x (W + HK + 2GK): xn, Wq', Wk', Wv'    HK: att, HK: Q, GK: K, GK: V;
 *                                                         HK: q, GK: k as attn_fwd
 *   wo_fwd       HK x (W + D): att, Wo'                   D: o
 *   ffn_fused    D x (W + 3F): xn, W1', W3', W2           D: y, F: h1, F: h3, F: gate
 *   ffn_bwd_w2   D x (W + F): dy, W2                      F: dgate
 *   ffn_bwd_w13  F x (2W + 2D): dh1, dh3, W1, W3          D: dxn
 *   wo_bwd       D x (W + HK): do, Wo                     HK: datt
 *   sdpa_bwd1    channels HK: Q, GK: K, GK: V, HK: datt   GK: dV, HW: P, HW: dP
 *   sdpa_bwd2    as attn_bwd2
 *   q_bwd        HK x (W + D): dQ, Wq                     D: dxn
 *   kv_bwd       GK x (2W + 2D): dK, dV, Wk, Wv           D: dxn
 *   (W' is the transposed weight [in, out], plain W is [out, in]: always [C, other])
 *
 * Behind the D channels of sdpa_fwd's input are up to two more: biases, in the columns of the
 * matrices that they belong to, and the norms' weights, from the first column of Wq' and of Wk' on.
 */
#ifndef KILN_DEVICE_ANE_PROGRAMS_H
#define KILN_DEVICE_ANE_PROGRAMS_H

#include "device/ane/runtime.h"
#include "kernel/weights.h"
#include "kiln/lora.h"
#include "kiln/model.h"
#include "model/table.h"

#define KILN_NPU_PROGRAMS(XX)          \
    XX(ATTN_FWD, "attn_fwd")           \
    XX(FFN_FWD, "ffn_fwd")             \
    XX(FFN_BWD, "ffn_bwd")             \
    XX(ATTN_BWD1, "attn_bwd1")         \
    XX(QKV_BWD, "qkv_bwd")             \
    XX(ATTN_BWD2, "attn_bwd2")         \
    XX(NORM_BWD_ATTN, "norm_bwd_attn") \
    XX(NORM_BWD_FFN, "norm_bwd_ffn")   \
    XX(FINAL_NORM, "final_norm")       \
    XX(CLASSIFIER, "classifier")       \
    XX(SOFTMAX, "softmax")             \
    XX(SDPA_FWD, "sdpa_fwd")           \
    XX(WO_FWD, "wo_fwd")               \
    XX(FFN_FUSED, "ffn_fused")         \
    XX(FFN_BWD_W2, "ffn_bwd_w2")       \
    XX(FFN_BWD_W13, "ffn_bwd_w13")     \
    XX(WO_BWD, "wo_bwd")               \
    XX(SDPA_BWD1, "sdpa_bwd1")         \
    XX(SDPA_BWD2, "sdpa_bwd2")         \
    XX(Q_BWD, "q_bwd")                 \
    XX(KV_BWD, "kv_bwd")

enum kiln_npu_kind {
#define KILN_NPU_ID(id, text) KILN_NPU_##id,
    KILN_NPU_PROGRAMS(KILN_NPU_ID)
#undef KILN_NPU_ID
        KILN_NPU_KINDS
};
const char *kiln_npu_kind_name(enum kiln_npu_kind kind);
/* -1: there is none of that name. */
int kiln_npu_kind_find(const char *name);

enum {
    KILN_NPU_WIDTH = 16,      /* last axes are multiples of it */
    KILN_NPU_SURFACE = 49152, /* no surface is smaller (bytes) */
    KILN_NPU_AXIS = 65536,    /* elements of an axis, at most */
    KILN_NPU_CLASSES = 16384, /* output channels of one classifier part, at most */
    KILN_NPU_DYNAMIC = 10,    /* programs of all layers together when weights are inputs */
    KILN_NPU_PARTS = 8,
    KILN_NPU_ADAPTERS = 4,
};

/* The tokens' axis, padded. */
static inline size_t kiln_npu_width(size_t seq) {
    return (seq + KILN_NPU_WIDTH - 1) / KILN_NPU_WIDTH * KILN_NPU_WIDTH;
}

/* What programs depend on beside the model. */
struct kiln_npu_mode {
    size_t seq;    /* T */
    bool doc_mask; /* attention does not look in front of a token's document (device.h, starts) */
    struct kiln_lora lora; /* rank 0: no adapters */
};

/* An adapter of a program's matrix [rows, cols] = [out, in], in columns behind the activations:
 * (alpha/r A)^T [cols, r] from column `a` on, B [rows, r] from column `b` on. */
struct kiln_npu_adapter {
    enum kiln_role role; /* of the matrix */
    size_t rows, cols, rank;
    size_t a, b;
};

/* A surface of a program: parts, in channels (baked) or in columns (dynamic). */
struct kiln_npu_port {
    size_t channels, width;               /* [1, channels, 1, width] */
    size_t rows;                          /* of the parts: channels, but for those of vectors */
    size_t n_parts, part[KILN_NPU_PARTS]; /* sizes: channels each, or columns where `columns` */
    char letters[KILN_NPU_PARTS + 1];     /* what the parts are, one each (program.c) */
    bool columns;                         /* parts lie side by side on the last axis */
    size_t n_adapters;
    struct kiln_npu_adapter adapters[KILN_NPU_ADAPTERS];
    size_t starts; /* element where the rows begin that say where documents do; 0: there are none */
    size_t bytes;  /* of the tensor; the surface has at least KILN_NPU_SURFACE */
};
/* Offset of part i, in channels or columns. */
size_t kiln_npu_part_at(const struct kiln_npu_port *port, size_t i);

/* Which of the channels behind `rows` of sdpa_fwd's input holds a vector of that role: a bias or
 * the weight of a norm of heads. */
size_t kiln_npu_vector_row(const struct kiln_dims *dims, enum kiln_role role);

/* Rows that say where documents begin, in inputs of programs that attend (doc_mask). */
enum { KILN_NPU_STARTS = 2, KILN_NPU_PLACES = 64 };
/* `starts` [T] (NULL: all 0) as these rows, fp16 [2][W]: the multiple of 64, and the rest. Both are
 * whole numbers that fp16 holds, so documents are told apart up to W = 65504. */
void kiln_npu_fill_starts(const uint32_t *starts, size_t seq, uint16_t *out);

/* fp16 elements of all adapters of an input. */
size_t kiln_npu_adapter_elements(const struct kiln_npu_port *in);

/* The surfaces of a kind. `part` is the classifier's part (0 for others):
 * kiln_npu_classifier_parts of them, each of at most KILN_NPU_CLASSES rows. */
void kiln_npu_ports(enum kiln_npu_kind kind, const struct kiln_dims *dims,
                    const struct kiln_npu_mode *mode, size_t part, struct kiln_npu_port *in,
                    struct kiln_npu_port *out);
size_t kiln_npu_classifier_parts(const struct kiln_dims *dims);
/* First row and number of rows of a part. */
size_t kiln_npu_classifier_rows(const struct kiln_dims *dims, size_t part, size_t *first);
/* The vocabulary is small enough for `softmax`. */
bool kiln_npu_has_softmax(const struct kiln_dims *dims);

/* Which instruction sets the text is for. */
struct kiln_npu_target {
    const char *version; /* "1.3" */
    const char *opset;   /* "ios18" */
};

/* A program's text and weight files, on the heap. `source` points into it: it stays where it is. */
struct kiln_npu_made {
    struct kiln_npu_source source;
    struct kiln_npu_weight *weights; /* what source.weights points to */
    char label[64];
};
/* Make the program of a kind. `weights` are read for kinds that
 * bake (may be NULL for others): fp32, or a snapshot whose matrices are fp16, which gives the same
 * files. `serial` makes the text of programs unique that are compiled more
 * than once; 0 for none. target NULL: version 1.3, ios18. KILN_EINPUT: a weight beyond fp16, named.
 * On success kiln_npu_made_free. */
KILN_MUST_CHECK enum kiln_status kiln_npu_make(
    enum kiln_npu_kind kind, const struct kiln_table *table, const struct kiln_npu_mode *mode,
    size_t layer, size_t part, const struct kiln_weights *weights, uint64_t serial,
    const struct kiln_npu_target *target, struct kiln_npu_made *out, struct kiln_err *err);
void kiln_npu_made_free(struct kiln_npu_made *made);
/* Bytes of the weight files of a kind, without making them. */
size_t kiln_npu_weight_bytes(enum kiln_npu_kind kind, const struct kiln_dims *dims,
                             const struct kiln_npu_mode *mode, size_t part);

#endif

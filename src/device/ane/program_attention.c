/* SPDX-License-Identifier: MIT
 *
 * program_attention.c: causal attention with grouped queries and RoPE, forward and backward.
 *
 * Heads lie in the channels, [1, heads*K, 1, W]; products want [1, heads, W, K]. Query head h reads
 * key-value head h / R, R = H/G, so the R heads of a group lie together, and the queries of a group
 * are one matrix of R*W rows. That view serves all five products, and those that end in keys or
 * values sum over the group by themselves:
 *
 *   S  [G, RW, W] = Q [G, RW, K] . K^T [G, K, W]      dP [G, RW, W] = da [G, RW, K] . V^T
 *   a  [G, RW, K] = P [G, RW, W] . V                  dV [G, W, K]  = P^T . da
 *   dQ [G, RW, K] = dS . K                            dK [G, W, K]  = dS^T . Q
 */
#include <math.h>
#include <stdio.h>

#include "device/ane/program_maker.h"

/* [1, heads*K, 1, W] -> [1, heads, K, W]: keys and values as they are read transposed. */
static struct kiln_mil_ref as_heads(struct kiln_npu_maker *m, const char *name,
                                    struct kiln_mil_ref x) {
    size_t k = m->dims->head_size;
    return kiln_mil_put_reshape(&m->text, name, x, (size_t[4]){1, x.dims[1] / k, k, m->width});
}

/* [1, HK, 1, W] -> [1, G, R*W, K] */
static struct kiln_mil_ref as_rows(struct kiln_npu_maker *m, const char *name,
                                   const char *heads_name, const char *turned_name,
                                   struct kiln_mil_ref x) {
    struct kiln_mil_ref heads = as_heads(m, heads_name, x);
    struct kiln_mil_ref turned = kiln_mil_put_transpose(&m->text, turned_name, heads);
    return kiln_mil_put_reshape(
        &m->text, name, turned,
        (size_t[4]){1, m->dims->kv_heads, m->repeat * m->width, m->dims->head_size});
}

/* [1, G, heads/G * W, K] -> [1, heads, K, W] */
static struct kiln_mil_ref as_columns(struct kiln_npu_maker *m, const char *name,
                                      const char *heads_name, struct kiln_mil_ref x) {
    size_t heads = x.dims[1] * x.dims[2] / m->width;
    struct kiln_mil_ref split = kiln_mil_put_reshape(
        &m->text, heads_name, x, (size_t[4]){1, heads, m->width, m->dims->head_size});
    return kiln_mil_put_transpose(&m->text, name, split);
}

/* [1, heads, K, W] -> [1, heads*K, 1, W] */
static struct kiln_mil_ref as_channels(struct kiln_npu_maker *m, const char *name,
                                       struct kiln_mil_ref x) {
    return kiln_mil_put_reshape(&m->text, name, x,
                                (size_t[4]){1, x.dims[1] * x.dims[2], 1, m->width});
}

static struct kiln_mil_ref grouped(struct kiln_npu_maker *m, const char *name,
                                   struct kiln_mil_ref scores) {
    return kiln_mil_put_reshape(&m->text, name, scores,
                                (size_t[4]){1, m->dims->kv_heads, m->repeat * m->width, m->width});
}

static struct kiln_mil_ref by_head(struct kiln_npu_maker *m, const char *name,
                                   struct kiln_mil_ref scores) {
    return kiln_mil_put_reshape(&m->text, name, scores,
                                (size_t[4]){1, m->dims->heads, m->width, m->width});
}

/* 1/sqrt(K). It goes to the smaller operand and in front of the product, which so stays far from
 * the largest number that a product may have. */
static struct kiln_mil_ref put_scale(struct kiln_npu_maker *m) {
    return kiln_mil_put_number(&m->text, "scale", 1.0 / sqrt((double)m->dims->head_size));
}

/* The mask of documents [1, 1, W, W]: -65504 for keys in front of a query's document. What it hides
 * lies in front of the diagonal, so the sum with the causal mask is in fp16, too. A query's
 * document begins a whole number of places behind a hidden key, so a step of 1 tells. */
static struct kiln_mil_ref put_documents(struct kiln_npu_maker *m) {
    struct kiln_mil_text *t = &m->text;
    struct kiln_mil_ref rows = kiln_npu_put_starts(m);
    struct kiln_mil_ref differences[2];
    for (size_t i = 0; i < 2; i++) {
        static const char *const names[2][4] = {
            {"start", "start_column", "place", "start_behind"},
            {"start_rest", "start_rest_column", "place_rest", "start_rest_behind"}};
        struct kiln_mil_ref row = kiln_mil_put_slice(t, names[i][0], rows, 1, i, 1);
        struct kiln_mil_ref column = kiln_mil_put_transpose(t, names[i][1], row);
        struct kiln_mil_ref places = kiln_npu_put_places(m, names[i][2], i == 1);
        differences[i] = kiln_mil_put_pair(t, names[i][3], "sub", column, places);
    }
    struct kiln_mil_ref behind =
        kiln_mil_put_pair(t, "key_behind", "add", differences[0], differences[1]);
    struct kiln_mil_ref steps = kiln_mil_put_unary(t, "key_steps", "relu", behind);
    struct kiln_mil_ref one = kiln_mil_put_number(t, "mask_one", 1.0);
    struct kiln_mil_ref rest = kiln_mil_put_pair(t, "key_rest", "sub", one, steps);
    struct kiln_mil_ref seen = kiln_mil_put_unary(t, "key_seen", "relu", rest);
    struct kiln_mil_ref hidden = kiln_mil_put_pair(t, "key_hidden", "sub", seen, one);
    struct kiln_mil_ref most = kiln_mil_put_number(t, "mask_most", 65504.0);
    return kiln_mil_put_pair(t, "mask_documents", "mul", hidden, most);
}

static struct kiln_mil_ref put_mask(struct kiln_npu_maker *m) {
    struct kiln_mil_ref causal = kiln_npu_put_causal(m);
    return m->mode->doc_mask
               ? kiln_mil_put_pair(&m->text, "mask_all", "add", causal, put_documents(m))
               : causal;
}

/* P [1, H, W, W] = softmax(Q K^T / sqrt(K) + mask) */
static struct kiln_mil_ref put_probabilities(struct kiln_npu_maker *m, struct kiln_mil_ref q,
                                             struct kiln_mil_ref k) {
    struct kiln_mil_text *t = &m->text;
    struct kiln_mil_ref scaled = kiln_mil_put_pair(t, "q_scaled", "mul", q, put_scale(m));
    struct kiln_mil_ref q_rows = as_rows(m, "q_rows", "q_heads", "q_turned", scaled);
    struct kiln_mil_ref k_heads = as_heads(m, "k_heads", k);
    struct kiln_mil_ref s = kiln_mil_put_matmul(t, "scores", q_rows, false, k_heads, false);
    struct kiln_mil_ref masked =
        kiln_mil_put_pair(t, "scores_masked", "add", by_head(m, "scores_heads", s), put_mask(m));
    return kiln_mil_put_softmax(t, "p", masked, 3);
}

struct kiln_mil_ref kiln_npu_put_attention(struct kiln_npu_maker *m, struct kiln_mil_ref q,
                                           struct kiln_mil_ref k, struct kiln_mil_ref v) {
    struct kiln_mil_ref p = grouped(m, "p_groups", put_probabilities(m, q, k));
    struct kiln_mil_ref v_heads = as_heads(m, "v_heads", v);
    struct kiln_mil_ref att = kiln_mil_put_matmul(&m->text, "att_rows", p, false, v_heads, true);
    return as_channels(m, "att", as_columns(m, "att_columns", "att_heads", att));
}

struct kiln_mil_ref kiln_npu_put_attention_bwd1(struct kiln_npu_maker *m, struct kiln_mil_ref x,
                                                struct kiln_mil_ref da) {
    struct kiln_mil_text *t = &m->text;
    struct kiln_mil_ref q = kiln_npu_part(m, "q", x, 0), k = kiln_npu_part(m, "k", x, 1);
    struct kiln_mil_ref v = kiln_npu_part(m, "v", x, 2);
    struct kiln_mil_ref p = put_probabilities(m, q, k);
    struct kiln_mil_ref da_rows = as_rows(m, "da_rows", "da_heads", "da_turned", da);
    struct kiln_mil_ref dv =
        kiln_mil_put_matmul(t, "dv_rows", grouped(m, "p_groups", p), true, da_rows, false);
    dv = as_channels(m, "dv", as_columns(m, "dv_columns", "dv_heads", dv));
    struct kiln_mil_ref dp =
        kiln_mil_put_matmul(t, "dp_groups", da_rows, false, as_heads(m, "v_heads", v), false);
    const size_t flat[4] = {1, m->dims->heads * m->width, 1, m->width};
    struct kiln_mil_ref all[] = {dv, kiln_mil_put_reshape(t, "p_flat", p, flat),
                                 kiln_mil_put_reshape(t, "dp_flat", dp, flat)};
    return kiln_mil_put_concat(t, "y", 1, all, 3);
}

/* ---- RoPE ----------------------------------------------------------------------------------- */

static struct kiln_mil_ref pair(struct kiln_npu_maker *m, const char *prefix, const char *what,
                                const char *op, struct kiln_mil_ref a, struct kiln_mil_ref b) {
    char name[32];
    snprintf(name, sizeof name, "%s_%s", prefix, what);
    return kiln_mil_put_pair(&m->text, name, op, a, b);
}

/* Turn the pairs of channels (2i, 2i+1) of every head: e cos - o sin, e sin + o cos; by the
 * opposite angle where `inverse`. `prefix` begins all names. */
static struct kiln_mil_ref rotate(struct kiln_npu_maker *m, const char *prefix,
                                  struct kiln_mil_ref x, const struct kiln_mil_ref angles[2],
                                  bool inverse) {
    struct kiln_mil_text *t = &m->text;
    size_t k = m->dims->head_size, heads = x.dims[1] * x.dims[2] / k;
    const char *even_op = inverse ? "add" : "sub", *odd_op = inverse ? "sub" : "add";
    char name[5][32];
    static const char *const what[5] = {"pairs", "even", "odd", "turned_pairs", "rope"};
    for (size_t i = 0; i < 5; i++) {
        snprintf(name[i], sizeof name[i], "%s_%s", prefix, what[i]);
    }
    x = kiln_mil_put_reshape(t, name[0], x, (size_t[4]){heads, k / 2, 2, m->width});
    struct kiln_mil_ref e = kiln_mil_put_slice(t, name[1], x, 2, 0, 1);
    struct kiln_mil_ref o = kiln_mil_put_slice(t, name[2], x, 2, 1, 1);
    struct kiln_mil_ref e_cos = pair(m, prefix, "even_cos", "mul", e, angles[0]);
    struct kiln_mil_ref o_sin = pair(m, prefix, "odd_sin", "mul", o, angles[1]);
    struct kiln_mil_ref o_cos = pair(m, prefix, "odd_cos", "mul", o, angles[0]);
    struct kiln_mil_ref e_sin = pair(m, prefix, "even_sin", "mul", e, angles[1]);
    struct kiln_mil_ref both[] = {pair(m, prefix, "even_turned", even_op, e_cos, o_sin),
                                  pair(m, prefix, "odd_turned", odd_op, o_cos, e_sin)};
    x = kiln_mil_put_concat(t, name[3], 2, both, 2);
    return kiln_mil_put_reshape(t, name[4], x, (size_t[4]){1, heads * k, 1, m->width});
}

void kiln_npu_put_rope(struct kiln_npu_maker *m, struct kiln_mil_ref *q, struct kiln_mil_ref *k,
                       bool inverse) {
    struct kiln_mil_ref angles[2] = {kiln_npu_put_angles(m, "cos", false),
                                     kiln_npu_put_angles(m, "sin", true)};
    *q = rotate(m, inverse ? "dq" : "q", *q, angles, inverse);
    *k = rotate(m, inverse ? "dk" : "k", *k, angles, inverse);
}

/* ---- the weightless half of the backward pass ------------------------------------------------ */

/* dS = P (dP - sum of P dP over the row) */
static struct kiln_mil_ref put_score_gradients(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    struct kiln_mil_text *t = &m->text;
    struct kiln_mil_ref p = by_head(m, "p", kiln_npu_part(m, "p_flat", x, 0));
    struct kiln_mil_ref dp = by_head(m, "dp", kiln_npu_part(m, "dp_flat", x, 1));
    struct kiln_mil_ref product = kiln_mil_put_pair(t, "p_dp", "mul", p, dp);
    struct kiln_mil_ref sum = kiln_mil_put_reduce_sum(t, "delta", product, 3);
    struct kiln_mil_ref rest = kiln_mil_put_pair(t, "dp_rest", "sub", dp, sum);
    return grouped(m, "ds", kiln_mil_put_pair(t, "ds_heads", "mul", p, rest));
}

struct kiln_mil_ref kiln_npu_attn_bwd2(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    struct kiln_mil_text *t = &m->text;
    struct kiln_mil_ref ds = put_score_gradients(m, x), scale = put_scale(m);
    struct kiln_mil_ref q = kiln_npu_part(m, "q", x, 2), k = kiln_npu_part(m, "k", x, 3);
    q = kiln_mil_put_pair(t, "q_scaled", "mul", q, scale);
    k = kiln_mil_put_pair(t, "k_scaled", "mul", k, scale);
    struct kiln_mil_ref dq =
        kiln_mil_put_matmul(t, "dq_rows", ds, false, as_heads(m, "k_heads", k), true);
    struct kiln_mil_ref dk = kiln_mil_put_matmul(
        t, "dk_rows", ds, true, as_rows(m, "q_rows", "q_heads", "q_turned", q), false);
    dq = as_columns(m, "dq_columns", "dq_heads", dq);
    dk = as_columns(m, "dk_columns", "dk_heads", dk);
    kiln_npu_put_rope(m, &dq, &dk, true);
    struct kiln_mil_ref both[] = {dq, dk};
    return kiln_mil_put_concat(t, "y", 1, both, 2);
}

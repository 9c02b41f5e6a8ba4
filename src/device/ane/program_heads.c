/* SPDX-License-Identifier: MIT
 *
 * program_heads.c: what stands between the products of queries, keys and values and RoPE: biases
 * (Qwen2), and an RMSNorm of every query and key head (Qwen3).
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>

#include "device/ane/program_maker.h"

/* ---- where weights come from ------------------------------------------------------------------
 */

static const enum kiln_role bias_roles[3] = {KILN_BQ, KILN_BK, KILN_BV},
                            norm_roles[2] = {KILN_Q_NORM, KILN_K_NORM};
static const char letters[3] = {'q', 'k', 'v'};

/* `n` elements of a row behind those of the activations, from where part i of the input begins, as
 * [1, n, 1, 1]. */
static struct kiln_mil_ref put_row(struct kiln_npu_maker *m, const char *name,
                                   struct kiln_mil_ref in, size_t i, size_t row, size_t n) {
    struct kiln_mil_text *t = &m->text;
    char of[2][32];
    snprintf(of[0], sizeof of[0], "%s_row", name);
    snprintf(of[1], sizeof of[1], "%s_flat", name);
    assert(n <= m->in.part[i]);
    struct kiln_mil_ref all = kiln_mil_put_slice(t, of[0], in, 1, m->in.rows + row, 1);
    struct kiln_mil_ref flat = kiln_mil_put_slice(t, of[1], all, 3, kiln_npu_part_at(&m->in, i), n);
    return kiln_mil_put_reshape(t, name, flat, (size_t[4]){1, n, 1, 1});
}

static struct kiln_mil_ref put_vector(struct kiln_npu_maker *m, const char *name,
                                      enum kiln_role role, size_t n, struct kiln_mil_ref in,
                                      size_t i) {
    return m->in.columns ? put_row(m, name, in, i, kiln_npu_vector_row(m->dims, role), n)
                         : kiln_npu_put_norm_weight(m, name, role, n);
}

/* ---- RMSNorm of heads --------------------------------------------------------------------------
 */

/* What the norms of queries and keys have in common. */
struct constants {
    struct kiln_mil_ref mean, minus_one, tiny, minus_half, quarter, root_eps;
};

static struct constants put_constants(struct kiln_npu_maker *m) {
    struct kiln_mil_text *t = &m->text;
    return (struct constants){
        .mean = kiln_npu_put_mean(m, "head_mean", 1.0, m->dims->head_size),
        .minus_one = kiln_mil_put_number(t, "minus_one", -1.0),
        .tiny = kiln_mil_put_number(t, "head_tiny", 0x1p-10),
        .minus_half = kiln_mil_put_number(t, "head_minus_half", -0.5),
        .quarter = kiln_mil_put_number(t, "head_quarter", 0.25),
        .root_eps = kiln_mil_put_number(t, "head_root_eps", sqrt(kiln_npu_norm_eps(m->dims))),
    };
}

struct named {
    struct kiln_npu_maker *m;
    const char *prefix;
    char name[32];
};
static const char *name_of(struct named *n, const char *what) {
    snprintf(n->name, sizeof n->name, "%s_%s", n->prefix, what);
    return n->name;
}

static struct kiln_mil_ref pair(struct named *n, const char *what, const char *op,
                                struct kiln_mil_ref a, struct kiln_mil_ref b) {
    return kiln_mil_put_pair(&n->m->text, name_of(n, what), op, a, b);
}

/* About 1/(4 mean |x|), so that x times it is near 1/4, at most K/4 and never 0 in fp16: nobody has
 * scaled queries and keys before, and the square of 256 is beyond fp16. The norm does not see the
 * factor, so it need not be exact. Heads are the batch: [heads, K, 1, W] to [heads, 1, 1, W]. */
static struct kiln_mil_ref put_factor(struct named *n, struct kiln_mil_ref x,
                                      const struct constants *c) {
    struct kiln_mil_text *t = &n->m->text;
    struct kiln_mil_ref turned = pair(n, "negative", "mul", x, c->minus_one);
    struct kiln_mil_ref above = kiln_mil_put_unary(t, name_of(n, "above"), "relu", x);
    struct kiln_mil_ref below = kiln_mil_put_unary(t, name_of(n, "below"), "relu", turned);
    struct kiln_mil_ref size = pair(n, "magnitude", "add", above, below);
    struct kiln_mil_ref mean = kiln_mil_put_conv(t, name_of(n, "mean_magnitude"), size, c->mean);
    struct kiln_mil_ref some = pair(n, "magnitude_some", "add", mean, c->tiny);
    struct kiln_mil_ref inverse = pair(n, "magnitude_inverse", "pow", some, c->minus_one);
    return pair(n, "factor", "mul", inverse, c->quarter);
}

/* x [1, heads*K, 1, W] over the root mean square of each head, times weight [1, K, 1, 1]. eps is
 * scaled as x is, its root before the square: the factor's own square may be beyond fp16. */
static struct kiln_mil_ref put_head_norm(struct kiln_npu_maker *m, const char *prefix,
                                         struct kiln_mil_ref flat, struct kiln_mil_ref weight,
                                         const struct constants *c) {
    struct named n = {.m = m, .prefix = prefix};
    const size_t k = m->dims->head_size, channels = flat.dims[1];
    struct kiln_mil_ref x = kiln_mil_put_reshape(&m->text, name_of(&n, "by_head"), flat,
                                                 (size_t[4]){channels / k, k, 1, m->width});
    struct kiln_mil_ref factor = put_factor(&n, x, c);
    struct kiln_mil_ref small = pair(&n, "scaled_head", "mul", x, factor);
    struct kiln_mil_ref square = pair(&n, "square", "mul", small, small);
    struct kiln_mil_ref mean =
        kiln_mil_put_conv(&m->text, name_of(&n, "mean_square"), square, c->mean);
    struct kiln_mil_ref root = pair(&n, "eps_root", "mul", factor, c->root_eps);
    struct kiln_mil_ref eps = pair(&n, "eps", "mul", root, root);
    struct kiln_mil_ref sum = pair(&n, "mean_square_eps", "add", mean, eps);
    struct kiln_mil_ref rrms = pair(&n, "rrms", "pow", sum, c->minus_half);
    struct kiln_mil_ref xhat = pair(&n, "xhat", "mul", small, rrms);
    struct kiln_mil_ref y = pair(&n, "weighted", "mul", xhat, weight);
    return kiln_mil_put_reshape(&m->text, name_of(&n, "normed"), y,
                                (size_t[4]){1, channels, 1, m->width});
}

/* ---- both -------------------------------------------------------------------------------------
 */

void kiln_npu_put_biases(struct kiln_npu_maker *m, struct kiln_mil_ref in,
                         struct kiln_mil_ref qkv[3]) {
    for (size_t i = 0; m->dims->qkv_bias && i < 3; i++) {
        const char bias[] = {'b', letters[i], '\0'};
        char name[32];
        snprintf(name, sizeof name, "%c_biased", letters[i]);
        struct kiln_mil_ref b = put_vector(m, bias, bias_roles[i], qkv[i].dims[1], in, i + 1);
        qkv[i] = kiln_mil_put_pair(&m->text, name, "add", qkv[i], b);
    }
}

void kiln_npu_put_head_norms(struct kiln_npu_maker *m, struct kiln_mil_ref in,
                             struct kiln_mil_ref qk[2]) {
    const size_t k = m->dims->head_size;
    if (!m->dims->qk_norm) {
        return;
    }
    const struct constants c = put_constants(m);
    for (size_t i = 0; i < 2; i++) {
        char prefix[2] = {letters[i], '\0'}, name[32];
        snprintf(name, sizeof name, "%c_norm", letters[i]);
        struct kiln_mil_ref weight = put_vector(m, name, norm_roles[i], k, in, i + 1);
        qk[i] = put_head_norm(m, prefix, qk[i], weight, &c);
    }
}

struct kiln_mil_ref kiln_npu_put_outputs(struct kiln_npu_maker *m,
                                         const struct kiln_mil_ref *values, size_t n) {
    struct kiln_mil_ref halves[2];
    if (n <= KILN_NPU_CONCAT) {
        return kiln_mil_put_concat(&m->text, "y", 1, values, n);
    }
    halves[0] = kiln_mil_put_concat(&m->text, "y_first", 1, values, n / 2);
    halves[1] = kiln_mil_put_concat(&m->text, "y_last", 1, values + n / 2, n - n / 2);
    return kiln_mil_put_concat(&m->text, "y", 1, halves, 2);
}

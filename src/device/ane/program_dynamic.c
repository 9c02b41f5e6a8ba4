/* SPDX-License-Identifier: MIT
 *
 * program_dynamic.c: the programs whose weights are inputs: compiled once, for all layers and for
 * the whole of a run.
 *
 * A weight lies on the last axis behind the activation. Both are cut out and multiplied as
 * matrices: x [C, W] turned to [W, C], times the weight [C, other], turned back.
 */
#include <stdio.h>

#include "device/ane/program_maker.h"

/* [1, C, 1, w] -> [1, 1, C, w] */
static struct kiln_mil_ref as_matrix(struct kiln_npu_maker *m, const char *name,
                                     struct kiln_mil_ref x) {
    return kiln_mil_put_reshape(&m->text, name, x, (size_t[4]){1, 1, x.dims[1], x.dims[3]});
}

/* Name of a value that helps to make another. */
struct helper {
    char name[32];
};
static struct helper helper(const char *name, const char *what) {
    struct helper out;
    snprintf(out.name, sizeof out.name, "%s_%s", name, what);
    return out;
}

/* An activation [1, C, 1, W] as rows of tokens [1, 1, W, C]. */
static struct kiln_mil_ref as_tokens(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    struct kiln_mil_ref matrix = as_matrix(m, helper(x.name, "matrix").name, x);
    return kiln_mil_put_transpose(&m->text, helper(x.name, "tokens").name, matrix);
}

/* y [1, O, 1, W] = tokens . weight, the weight [C, O] being part i of the input, or [O, C] where
 * `transposed`. */
static struct kiln_mil_ref put_product(struct kiln_npu_maker *m, const char *name,
                                       struct kiln_mil_ref tokens, struct kiln_mil_ref in, size_t i,
                                       bool transposed) {
    struct kiln_mil_ref part = kiln_npu_part(m, helper(name, "weight").name, in, i);
    struct kiln_mil_ref weight = as_matrix(m, helper(name, "weight_matrix").name, part);
    struct kiln_mil_ref rows = kiln_mil_put_matmul(&m->text, helper(name, "tokens").name, tokens,
                                                   false, weight, transposed);
    struct kiln_mil_ref y = kiln_mil_put_transpose(&m->text, helper(name, "matrix").name, rows);
    return kiln_mil_put_reshape(&m->text, name, y, (size_t[4]){1, y.dims[2], 1, m->width});
}

/* Activations, then a weight for each; the sum of their products. */
struct kiln_mil_ref kiln_npu_dynamic_linear(struct kiln_npu_maker *m, struct kiln_mil_ref in) {
    if (m->in.n_parts == 2) {
        return put_product(m, "y", as_tokens(m, kiln_npu_part(m, "a", in, 0)), in, 1, false);
    }
    struct kiln_mil_ref a = as_tokens(m, kiln_npu_part(m, "a", in, 0));
    struct kiln_mil_ref b = as_tokens(m, kiln_npu_part(m, "b", in, 1));
    struct kiln_mil_ref from_a = put_product(m, "from_a", a, in, 2, false);
    struct kiln_mil_ref from_b = put_product(m, "from_b", b, in, 3, false);
    return kiln_mil_put_pair(&m->text, "y", "add", from_a, from_b);
}

struct kiln_mil_ref kiln_npu_sdpa_fwd(struct kiln_npu_maker *m, struct kiln_mil_ref in) {
    struct kiln_mil_ref tokens = as_tokens(m, kiln_npu_part(m, "xn", in, 0));
    struct kiln_mil_ref qkv[] = {put_product(m, "q", tokens, in, 1, false),
                                 put_product(m, "k", tokens, in, 2, false),
                                 put_product(m, "v", tokens, in, 3, false)};
    kiln_npu_put_biases(m, in, qkv);
    struct kiln_mil_ref q0 = qkv[0], k0 = qkv[1];
    kiln_npu_put_head_norms(m, in, qkv);
    kiln_npu_put_rope(m, &qkv[0], &qkv[1], false);
    struct kiln_mil_ref att = kiln_npu_put_attention(m, qkv[0], qkv[1], qkv[2]);
    struct kiln_mil_ref all[] = {att, qkv[0], qkv[1], qkv[2], q0, k0};
    return kiln_npu_put_outputs(m, all, m->dims->qk_norm ? 6 : 4);
}

struct kiln_mil_ref kiln_npu_sdpa_bwd1(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    return kiln_npu_put_attention_bwd1(m, x, kiln_npu_part(m, "da", x, 3));
}

struct kiln_mil_ref kiln_npu_ffn_fused(struct kiln_npu_maker *m, struct kiln_mil_ref in) {
    struct kiln_mil_ref tokens = as_tokens(m, kiln_npu_part(m, "xn", in, 0));
    struct kiln_mil_ref h1 = put_product(m, "h1", tokens, in, 1, false);
    struct kiln_mil_ref h3 = put_product(m, "h3", tokens, in, 2, false);
    struct kiln_mil_ref gate = kiln_npu_put_gate(m, h1, h3);
    struct kiln_mil_ref y = put_product(m, "ffn", as_tokens(m, gate), in, 3, true);
    struct kiln_mil_ref all[] = {y, h1, h3, gate};
    return kiln_mil_put_concat(&m->text, "y", 1, all, 4);
}

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

/* An activation [1, C, 1, W], and as rows of tokens [1, 1, W, C]. */
struct operand {
    struct kiln_mil_ref x, tokens;
};
static struct operand as_tokens(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    struct kiln_mil_ref matrix = as_matrix(m, helper(x.name, "matrix").name, x);
    return (struct operand){
        x, kiln_mil_put_transpose(&m->text, helper(x.name, "tokens").name, matrix)};
}

/* y [1, O, 1, W] = tokens . weight, the weight [C, O] being part i of the input, or [O, C] where
 * `transposed`; and what the adapter of the matrix adds, of its backward pass where `backward`. */
struct product {
    const char *name;
    enum kiln_role role;
    size_t part;
    bool transposed, backward;
};
static struct kiln_mil_ref put_product(struct kiln_npu_maker *m, const struct operand *x,
                                       struct kiln_mil_ref in, struct product p) {
    struct kiln_mil_ref part = kiln_npu_part(m, helper(p.name, "weight").name, in, p.part);
    struct kiln_mil_ref weight = as_matrix(m, helper(p.name, "weight_matrix").name, part);
    struct kiln_mil_ref rows = kiln_mil_put_matmul(&m->text, helper(p.name, "tokens").name,
                                                   x->tokens, false, weight, p.transposed);
    struct kiln_mil_ref y = kiln_mil_put_transpose(&m->text, helper(p.name, "matrix").name, rows);
    y = kiln_mil_put_reshape(&m->text, p.name, y, (size_t[4]){1, y.dims[2], 1, m->width});
    return kiln_npu_put_adapted(m, p.name, p.role, x->x, y, p.backward);
}

/* The matrices of programs that are nothing but products. */
static const enum kiln_role linear_roles[KILN_NPU_KINDS][2] = {
    [KILN_NPU_WO_FWD] = {KILN_WO},
    [KILN_NPU_FFN_BWD_W2] = {KILN_W2},
    [KILN_NPU_FFN_BWD_W13] = {KILN_W1, KILN_W3},
    [KILN_NPU_WO_BWD] = {KILN_WO},
    [KILN_NPU_Q_BWD] = {KILN_WQ},
    [KILN_NPU_KV_BWD] = {KILN_WK, KILN_WV},
};

/* Activations, then a weight for each; the sum of their products. */
struct kiln_mil_ref kiln_npu_dynamic_linear(struct kiln_npu_maker *m, struct kiln_mil_ref in) {
    const enum kiln_role *roles = linear_roles[m->kind];
    const bool backward = m->kind != KILN_NPU_WO_FWD;
    const struct operand a = as_tokens(m, kiln_npu_part(m, "a", in, 0));
    if (m->in.n_parts == 2) {
        return put_product(m, &a, in, (struct product){"y", roles[0], 1, false, backward});
    }
    const struct operand b = as_tokens(m, kiln_npu_part(m, "b", in, 1));
    struct kiln_mil_ref from_a =
        put_product(m, &a, in, (struct product){"from_a", roles[0], 2, false, backward});
    struct kiln_mil_ref from_b =
        put_product(m, &b, in, (struct product){"from_b", roles[1], 3, false, backward});
    return kiln_mil_put_pair(&m->text, "y", "add", from_a, from_b);
}

struct kiln_mil_ref kiln_npu_sdpa_fwd(struct kiln_npu_maker *m, struct kiln_mil_ref in) {
    const struct operand tokens = as_tokens(m, kiln_npu_part(m, "xn", in, 0));
    struct kiln_mil_ref qkv[] = {
        put_product(m, &tokens, in, (struct product){"q", KILN_WQ, 1, false, false}),
        put_product(m, &tokens, in, (struct product){"k", KILN_WK, 2, false, false}),
        put_product(m, &tokens, in, (struct product){"v", KILN_WV, 3, false, false})};
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
    const struct operand tokens = as_tokens(m, kiln_npu_part(m, "xn", in, 0));
    struct kiln_mil_ref h1 =
        put_product(m, &tokens, in, (struct product){"h1", KILN_W1, 1, false, false});
    struct kiln_mil_ref h3 =
        put_product(m, &tokens, in, (struct product){"h3", KILN_W3, 2, false, false});
    struct kiln_mil_ref gate = kiln_npu_put_gate(m, h1, h3);
    const struct operand gated = as_tokens(m, gate);
    struct kiln_mil_ref y =
        put_product(m, &gated, in, (struct product){"ffn", KILN_W2, 3, true, false});
    struct kiln_mil_ref all[] = {y, h1, h3, gate};
    return kiln_mil_put_concat(&m->text, "y", 1, all, 4);
}

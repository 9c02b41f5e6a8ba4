/* SPDX-License-Identifier: MIT
 *
 * program_layer.c: the programs with baked weights, and what runs behind the last layer.
 */
#include "device/ane/program_maker.h"

/* ---- RMSNorm -------------------------------------------------------------------------------- */

/* 1/rms of x, [1, 1, 1, W].
 *
 * Squares are of x/4 and their mean is a conv, which sums in fp32: a sum of squares in fp16 ends at
 * 65504, which 768 channels reach at |x| = 9. sqrt behind a reduction is refused; pow is not. */
static struct kiln_mil_ref put_inverse_rms(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    struct kiln_mil_text *t = &m->text;
    struct kiln_mil_ref quarter = kiln_mil_put_number(t, "quarter", KILN_NPU_NORM_PRESCALE);
    struct kiln_mil_ref small = kiln_mil_put_pair(t, "x_quarter", "mul", x, quarter);
    struct kiln_mil_ref square = kiln_mil_put_pair(t, "square", "mul", small, small);
    struct kiln_mil_ref weight =
        kiln_npu_put_mean(m, "mean_of_squares", KILN_NPU_NORM_SCALE, m->dims->dim);
    struct kiln_mil_ref mean = kiln_mil_put_conv(t, "mean_square", square, weight);
    struct kiln_mil_ref eps = kiln_mil_put_number(t, "eps", kiln_npu_norm_eps(m->dims));
    struct kiln_mil_ref sum = kiln_mil_put_pair(t, "mean_square_eps", "add", mean, eps);
    struct kiln_mil_ref power = kiln_mil_put_number(t, "minus_half", -0.5);
    return kiln_mil_put_pair(t, "rrms", "pow", sum, power);
}

struct kiln_mil_ref kiln_npu_put_norm(struct kiln_npu_maker *m, struct kiln_mil_ref x,
                                      enum kiln_role role) {
    struct kiln_mil_ref rrms = put_inverse_rms(m, x);
    struct kiln_mil_ref xhat = kiln_mil_put_pair(&m->text, "xhat", "mul", x, rrms);
    struct kiln_mil_ref weight = kiln_npu_put_norm_weight(m, "norm", role, m->dims->dim);
    return kiln_mil_put_pair(&m->text, "xn", "mul", xhat, weight);
}

struct kiln_mil_ref kiln_npu_final_norm(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    return kiln_npu_put_norm(m, x, KILN_FINAL_NORM);
}

/* dx = (g - xhat mean(g xhat)) / rms with g = dy w. */
struct kiln_mil_ref kiln_npu_norm_bwd(struct kiln_npu_maker *m, struct kiln_mil_ref in) {
    struct kiln_mil_text *t = &m->text;
    enum kiln_role role = m->kind == KILN_NPU_NORM_BWD_ATTN ? KILN_ATTN_NORM : KILN_FFN_NORM;
    struct kiln_mil_ref dy = kiln_npu_part(m, "dy", in, 0), x = kiln_npu_part(m, "x_in", in, 1);
    struct kiln_mil_ref rrms = put_inverse_rms(m, x);
    struct kiln_mil_ref xhat = kiln_mil_put_pair(t, "xhat", "mul", x, rrms);
    struct kiln_mil_ref g = kiln_mil_put_pair(
        t, "g", "mul", dy, kiln_npu_put_norm_weight(m, "norm", role, m->dims->dim));
    struct kiln_mil_ref product = kiln_mil_put_pair(t, "g_xhat", "mul", g, xhat);
    struct kiln_mil_ref mean = kiln_mil_put_conv(t, "g_xhat_mean", product,
                                                 kiln_npu_put_mean(m, "mean", 1.0, m->dims->dim));
    struct kiln_mil_ref along = kiln_mil_put_pair(t, "along", "mul", xhat, mean);
    struct kiln_mil_ref across = kiln_mil_put_pair(t, "across", "sub", g, along);
    return kiln_mil_put_pair(t, "y", "mul", across, rrms);
}

/* ---- attention ------------------------------------------------------------------------------ */

struct kiln_mil_ref kiln_npu_attn_fwd(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    struct kiln_mil_ref xn = kiln_npu_put_norm(m, x, KILN_ATTN_NORM);
    struct kiln_mil_ref qkv[] = {kiln_npu_put_linear(m, "q", "wq", KILN_WQ, xn, false),
                                 kiln_npu_put_linear(m, "k", "wk", KILN_WK, xn, false),
                                 kiln_npu_put_linear(m, "v", "wv", KILN_WV, xn, false)};
    kiln_npu_put_biases(m, x, qkv);
    struct kiln_mil_ref q0 = qkv[0], k0 = qkv[1];
    kiln_npu_put_head_norms(m, x, qkv);
    kiln_npu_put_rope(m, &qkv[0], &qkv[1], false);
    struct kiln_mil_ref att = kiln_npu_put_attention(m, qkv[0], qkv[1], qkv[2]);
    struct kiln_mil_ref o = kiln_npu_put_linear(m, "o", "wo", KILN_WO, att, false);
    struct kiln_mil_ref all[] = {o, qkv[0], qkv[1], qkv[2], att, xn, q0, k0};
    return kiln_npu_put_outputs(m, all, m->dims->qk_norm ? 8 : 6);
}

struct kiln_mil_ref kiln_npu_attn_bwd1(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    struct kiln_mil_ref dout = kiln_npu_part(m, "do", x, 3);
    return kiln_npu_put_attention_bwd1(m, x,
                                       kiln_npu_put_linear(m, "da", "wo_t", KILN_WO, dout, true));
}

struct kiln_mil_ref kiln_npu_qkv_bwd(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    struct kiln_mil_text *t = &m->text;
    static const struct {
        const char *part, *weight, *product;
        enum kiln_role role;
    } parts[3] = {{"dq", "wq_t", "dxn_q", KILN_WQ},
                  {"dk", "wk_t", "dxn_k", KILN_WK},
                  {"dv", "wv_t", "dxn_v", KILN_WV}};
    struct kiln_mil_ref dx[3];
    for (size_t i = 0; i < 3; i++) {
        struct kiln_mil_ref part = kiln_npu_part(m, parts[i].part, x, i);
        dx[i] =
            kiln_npu_put_linear(m, parts[i].product, parts[i].weight, parts[i].role, part, true);
    }
    struct kiln_mil_ref kv = kiln_mil_put_pair(t, "dxn_kv", "add", dx[1], dx[2]);
    return kiln_mil_put_pair(t, "y", "add", dx[0], kv);
}

/* ---- feed-forward --------------------------------------------------------------------------- */

struct kiln_mil_ref kiln_npu_put_gate(struct kiln_npu_maker *m, struct kiln_mil_ref h1,
                                      struct kiln_mil_ref h3) {
    struct kiln_mil_ref sigmoid = kiln_mil_put_unary(&m->text, "sigmoid_h1", "sigmoid", h1);
    struct kiln_mil_ref silu = kiln_mil_put_pair(&m->text, "silu", "mul", h1, sigmoid);
    return kiln_mil_put_pair(&m->text, "gate", "mul", silu, h3);
}

struct kiln_mil_ref kiln_npu_ffn_fwd(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    struct kiln_mil_text *t = &m->text;
    struct kiln_mil_ref xn = kiln_npu_put_norm(m, x, KILN_FFN_NORM);
    struct kiln_mil_ref h1 = kiln_npu_put_linear(m, "h1", "w1", KILN_W1, xn, false);
    struct kiln_mil_ref h3 = kiln_npu_put_linear(m, "h3", "w3", KILN_W3, xn, false);
    struct kiln_mil_ref gate = kiln_npu_put_gate(m, h1, h3);
    struct kiln_mil_ref y = kiln_npu_put_linear(m, "ffn", "w2", KILN_W2, gate, false);
    struct kiln_mil_ref all[] = {y, h1, h3, gate, xn};
    return kiln_mil_put_concat(t, "y", 1, all, 5);
}

/* silu'(h) = s + h s (1 - s) with s = sigmoid(h). */
struct kiln_mil_ref kiln_npu_ffn_bwd(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    struct kiln_mil_text *t = &m->text;
    struct kiln_mil_ref dy = kiln_npu_part(m, "dy", x, 0);
    struct kiln_mil_ref h1 = kiln_npu_part(m, "h1", x, 1), h3 = kiln_npu_part(m, "h3", x, 2);
    struct kiln_mil_ref dgate = kiln_npu_put_linear(m, "dgate", "w2_t", KILN_W2, dy, true);
    struct kiln_mil_ref s = kiln_mil_put_unary(t, "sigmoid_h1", "sigmoid", h1);
    struct kiln_mil_ref silu = kiln_mil_put_pair(t, "silu", "mul", h1, s);
    struct kiln_mil_ref dh3 = kiln_mil_put_pair(t, "dh3", "mul", dgate, silu);
    struct kiln_mil_ref one = kiln_mil_put_number(t, "one", 1.0);
    struct kiln_mil_ref rest = kiln_mil_put_pair(t, "one_less_sigmoid", "sub", one, s);
    struct kiln_mil_ref bend = kiln_mil_put_pair(t, "silu_rest", "mul", silu, rest);
    struct kiln_mil_ref slope = kiln_mil_put_pair(t, "silu_slope", "add", s, bend);
    struct kiln_mil_ref dsilu = kiln_mil_put_pair(t, "dsilu", "mul", dgate, h3);
    struct kiln_mil_ref dh1 = kiln_mil_put_pair(t, "dh1", "mul", dsilu, slope);
    struct kiln_mil_ref dx1 = kiln_npu_put_linear(m, "dxn_1", "w1_t", KILN_W1, dh1, true);
    struct kiln_mil_ref dx3 = kiln_npu_put_linear(m, "dxn_3", "w3_t", KILN_W3, dh3, true);
    struct kiln_mil_ref all[] = {kiln_mil_put_pair(t, "dxn", "add", dx1, dx3), dh1, dh3};
    return kiln_mil_put_concat(t, "y", 1, all, 3);
}

/* ---- behind the last layer ------------------------------------------------------------------ */

struct kiln_mil_ref kiln_npu_classifier(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    return kiln_mil_put_conv(&m->text, "y", x, kiln_npu_put_classifier(m, "classifier"));
}

struct kiln_mil_ref kiln_npu_softmax(struct kiln_npu_maker *m, struct kiln_mil_ref x) {
    return kiln_mil_put_softmax(&m->text, "y", x, 1);
}

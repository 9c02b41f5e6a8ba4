/* SPDX-License-Identifier: MIT
 *
 * Every program of a layer computes what a Llama layer is defined to compute: forward against plain
 * loops in double, backward against differences of these loops.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/half.h"
#include "device/program_lab.h"
#include "kiln_test.h"

/* What the functions that are differentiated read: activations of one kind each, some given, some
 * worked out. */
struct values {
    const struct oracle *o;
    double *x, *xn, *q, *k, *v, *p, *att, *h1, *h3, *gate;
    double *d_model, *d_q, *d_k, *d_v, *d_h1, *d_h3; /* gradients that come in */
    double *d_other, *y, *y2;                        /* [T][the widest] */
    double *q0, *k0;                                 /* before the norms of heads */
};

static double *random_of(const struct oracle *o, size_t channels, unsigned seed) {
    return oracle_random(o->seq * channels, seed);
}

static void values_open(struct values *v, const struct oracle *o) {
    const struct kiln_dims *d = &o->d;
    size_t q = d->heads * d->head_size, kv = d->kv_heads * d->head_size, T = o->seq;
    memset(v, 0, sizeof *v);
    v->o = o;
    v->x = random_of(o, d->dim, 1);
    v->xn = random_of(o, d->dim, 2);
    v->q = random_of(o, q, 3);
    v->k = random_of(o, kv, 4);
    v->v = random_of(o, kv, 5);
    v->p = oracle_memory(d->heads * T * T);
    v->att = random_of(o, q, 6);
    v->h1 = random_of(o, d->hidden, 7);
    v->h3 = random_of(o, d->hidden, 8);
    v->gate = random_of(o, d->hidden, 9);
    v->d_model = random_of(o, d->dim, 10);
    v->d_q = random_of(o, q, 11);
    v->d_k = random_of(o, kv, 12);
    v->d_v = random_of(o, kv, 13);
    v->d_h1 = random_of(o, d->hidden, 14);
    v->d_h3 = random_of(o, d->hidden, 15);
    v->y = oracle_memory(T * (d->dim + d->hidden + q));
    v->y2 = oracle_memory(T * (d->dim + d->hidden + q));
    v->d_other = oracle_memory(T * (d->dim + d->hidden + q) + d->heads * T * T);
    v->q0 = oracle_memory(T * q);
    v->k0 = oracle_memory(T * kv);
}

static void values_close(struct values *v) {
    double *all[] = {v->x,    v->xn,   v->q,       v->k,       v->v,   v->p,   v->att,
                     v->h1,   v->h3,   v->gate,    v->d_model, v->d_q, v->d_k, v->d_v,
                     v->d_h1, v->d_h3, v->d_other, v->y,       v->y2,  v->q0,  v->k0};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        kiln_free(all[i]);
    }
}

static size_t width_q(const struct values *v) { return v->o->d.heads * v->o->d.head_size; }
static size_t width_kv(const struct values *v) { return v->o->d.kv_heads * v->o->d.head_size; }

/* ---- functions to differentiate -------------------------------------------------------------- */

/* <g, W x> for the gradient g of the output. */
static double along(const struct values *v, enum kiln_role role, const double *x, const double *g) {
    oracle_linear(v->o, role, x, v->y2);
    return oracle_dot(g, v->y2, v->o->seq * kiln_table_find(v->o->table, role, v->o->layer)->rows);
}

static double ffn_of_h(void *context) {
    struct values *v = context;
    oracle_gate(v->o, v->h1, v->h3, v->y);
    return along(v, KILN_W2, v->y, v->d_model);
}
static double ffn_of_xn(void *context) {
    struct values *v = context;
    size_t n = v->o->seq * v->o->d.hidden;
    double *h1 = oracle_memory(n), *h3 = oracle_memory(n);
    oracle_linear(v->o, KILN_W1, v->xn, h1);
    oracle_linear(v->o, KILN_W3, v->xn, h3);
    oracle_gate(v->o, h1, h3, v->y);
    kiln_free(h1);
    kiln_free(h3);
    return along(v, KILN_W2, v->y, v->d_model);
}
static double w2_of_gate(void *context) {
    struct values *v = context;
    return along(v, KILN_W2, v->gate, v->d_model);
}
static double w13_of_xn(void *context) {
    struct values *v = context;
    return along(v, KILN_W1, v->xn, v->d_h1) + along(v, KILN_W3, v->xn, v->d_h3);
}
static double wo_of_att(void *context) {
    struct values *v = context;
    return along(v, KILN_WO, v->att, v->d_model);
}
static double q_of_xn(void *context) {
    struct values *v = context;
    return along(v, KILN_WQ, v->xn, v->d_q);
}
static double kv_of_xn(void *context) {
    struct values *v = context;
    return along(v, KILN_WK, v->xn, v->d_k) + along(v, KILN_WV, v->xn, v->d_v);
}
static double qkv_of_xn(void *context) { return q_of_xn(context) + kv_of_xn(context); }

/* Attention's output, from P and V as they are. */
static double out_of_p(void *context) {
    struct values *v = context;
    oracle_mix(v->o, v->p, v->v, v->y);
    return along(v, KILN_WO, v->y, v->d_model);
}
/* The same from Q and K before RoPE. */
static double out_of_qk(void *context) {
    struct values *v = context;
    size_t q_bytes = v->o->seq * width_q(v) * sizeof(double);
    size_t k_bytes = v->o->seq * width_kv(v) * sizeof(double);
    double *q = oracle_memory(q_bytes / sizeof *q), *k = oracle_memory(k_bytes / sizeof *k);
    memcpy(q, v->q, q_bytes);
    memcpy(k, v->k, k_bytes);
    oracle_rope(v->o, q, v->o->d.heads);
    oracle_rope(v->o, k, v->o->d.kv_heads);
    oracle_scores(v->o, q, k, v->p);
    kiln_free(q);
    kiln_free(k);
    return out_of_p(context);
}
static double norm_attn(void *context) {
    struct values *v = context;
    oracle_norm(v->o, KILN_ATTN_NORM, v->x, v->y);
    return oracle_dot(v->d_model, v->y, v->o->seq * v->o->d.dim);
}
static double norm_ffn(void *context) {
    struct values *v = context;
    oracle_norm(v->o, KILN_FFN_NORM, v->x, v->y);
    return oracle_dot(v->d_model, v->y, v->o->seq * v->o->d.dim);
}

/* The gradient of f by `x` [T][channels] is part i of what the program gave. */
static void expect_gradient(const struct program_run *run, size_t i, struct values *v, oracle_fn *f,
                            double *x) {
    oracle_gradient(f, v, x, v->o->seq * run->out.part[i], v->d_other);
    run_expect(run, i, v->d_other);
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Q, K, V of xn; P and att. All in v. */
static void attend(struct values *v) {
    oracle_linear(v->o, KILN_WQ, v->xn, v->q);
    oracle_linear(v->o, KILN_WK, v->xn, v->k);
    oracle_linear(v->o, KILN_WV, v->xn, v->v);
    memcpy(v->q0, v->q, v->o->seq * width_q(v) * sizeof *v->q);
    memcpy(v->k0, v->k, v->o->seq * width_kv(v) * sizeof *v->k);
    oracle_head_norm(v->o, KILN_Q_NORM, v->q, v->o->d.heads);
    oracle_head_norm(v->o, KILN_K_NORM, v->k, v->o->d.kv_heads);
    oracle_rope(v->o, v->q, v->o->d.heads);
    oracle_rope(v->o, v->k, v->o->d.kv_heads);
    oracle_scores(v->o, v->q, v->k, v->p);
    oracle_mix(v->o, v->p, v->v, v->att);
}

static void check_attn_fwd(struct values *v, struct program_run *run) {
    run_give(run, 0, v->x);
    run_go(run);
    oracle_norm(v->o, KILN_ATTN_NORM, v->x, v->xn);
    attend(v);
    oracle_linear(v->o, KILN_WO, v->att, v->y);
    const double *want[] = {v->y, v->q, v->k, v->v, v->att, v->xn, v->q0, v->k0};
    CHECK_EQ(run->out.n_parts, v->o->d.qk_norm ? 8 : 6);
    for (size_t i = 0; i < run->out.n_parts; i++) {
        run_expect(run, i, want[i]);
    }
}

static void feed_forward(struct values *v) {
    oracle_linear(v->o, KILN_W1, v->xn, v->h1);
    oracle_linear(v->o, KILN_W3, v->xn, v->h3);
    oracle_gate(v->o, v->h1, v->h3, v->gate);
    oracle_linear(v->o, KILN_W2, v->gate, v->y);
}

static void check_ffn_fwd(struct values *v, struct program_run *run) {
    run_give(run, 0, v->x);
    run_go(run);
    oracle_norm(v->o, KILN_FFN_NORM, v->x, v->xn);
    feed_forward(v);
    const double *want[] = {v->y, v->h1, v->h3, v->gate, v->xn};
    for (size_t i = 0; i < 5; i++) {
        run_expect(run, i, want[i]);
    }
}

static void check_final_norm(struct values *v, struct program_run *run) {
    run_give(run, 0, v->x);
    run_go(run);
    oracle_norm(v->o, KILN_FINAL_NORM, v->x, v->xn);
    run_expect(run, 0, v->xn);
}

static void check_classifier(struct values *v, struct program_run *run) {
    size_t vocab = v->o->d.vocab;
    double *logits = oracle_memory(v->o->seq * vocab);
    run_give(run, 0, v->xn);
    run_go(run);
    oracle_linear(v->o, KILN_HEAD, v->xn, logits);
    run_expect(run, 0, logits);
    kiln_free(logits);
}

static void check_softmax(struct values *v, struct program_run *run) {
    size_t vocab = v->o->d.vocab;
    double *logits = oracle_random(v->o->seq * vocab, 20);
    run_give(run, 0, logits);
    run_go(run);
    for (size_t t = 0; t < v->o->seq; t++) {
        double sum = 0;
        for (size_t i = 0; i < vocab; i++) {
            sum += logits[t * vocab + i] = exp(logits[t * vocab + i]);
        }
        for (size_t i = 0; i < vocab; i++) {
            logits[t * vocab + i] /= sum;
        }
    }
    run_expect(run, 0, logits);
    kiln_free(logits);
}

static void check_sdpa_fwd(struct values *v, struct program_run *run) {
    run_give(run, 0, v->xn);
    run_give_weight(run, 1, KILN_WQ, true);
    run_give_weight(run, 2, KILN_WK, true);
    run_give_weight(run, 3, KILN_WV, true);
    for (size_t i = 0; v->o->d.qkv_bias && i < 3; i++) {
        run_give_vector(run, i + 1, (enum kiln_role[]){KILN_BQ, KILN_BK, KILN_BV}[i]);
    }
    for (size_t i = 0; v->o->d.qk_norm && i < 2; i++) {
        run_give_vector(run, i + 1, (enum kiln_role[]){KILN_Q_NORM, KILN_K_NORM}[i]);
    }
    run_go(run);
    attend(v);
    const double *want[] = {v->att, v->q, v->k, v->v, v->q0, v->k0};
    CHECK_EQ(run->out.n_parts, v->o->d.qk_norm ? 6 : 4);
    for (size_t i = 0; i < run->out.n_parts; i++) {
        run_expect(run, i, want[i]);
    }
}

static void check_wo_fwd(struct values *v, struct program_run *run) {
    run_give(run, 0, v->att);
    run_give_weight(run, 1, KILN_WO, true);
    run_go(run);
    oracle_linear(v->o, KILN_WO, v->att, v->y);
    run_expect(run, 0, v->y);
}

static void check_ffn_fused(struct values *v, struct program_run *run) {
    run_give(run, 0, v->xn);
    run_give_weight(run, 1, KILN_W1, true);
    run_give_weight(run, 2, KILN_W3, true);
    run_give_weight(run, 3, KILN_W2, false);
    run_go(run);
    feed_forward(v);
    const double *want[] = {v->y, v->h1, v->h3, v->gate};
    for (size_t i = 0; i < 4; i++) {
        run_expect(run, i, want[i]);
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

/* h1 and h3 are those of xn, as the forward pass has them. */
static void check_ffn_bwd(struct values *v, struct program_run *run) {
    oracle_linear(v->o, KILN_W1, v->xn, v->h1);
    oracle_linear(v->o, KILN_W3, v->xn, v->h3);
    run_give(run, 0, v->d_model);
    run_give(run, 1, v->h1);
    run_give(run, 2, v->h3);
    run_go(run);
    expect_gradient(run, 0, v, ffn_of_xn, v->xn);
    expect_gradient(run, 1, v, ffn_of_h, v->h1);
    expect_gradient(run, 2, v, ffn_of_h, v->h3);
}

static void expect_bwd1(struct values *v, struct program_run *run) {
    size_t T = v->o->seq;
    oracle_scores(v->o, v->q, v->k, v->p);
    expect_gradient(run, 0, v, out_of_p, v->v);
    run_expect_scores(run, 1, v->p);
    oracle_gradient(out_of_p, v, v->p, v->o->d.heads * T * T, v->d_other);
    run_expect_scores(run, 2, v->d_other);
}

static void check_attn_bwd1(struct values *v, struct program_run *run) {
    run_give(run, 0, v->q);
    run_give(run, 1, v->k);
    run_give(run, 2, v->v);
    run_give(run, 3, v->d_model);
    run_go(run);
    expect_bwd1(v, run);
}

/* datt = Wo^T do, from the definition of a gradient, too. */
static void check_sdpa_bwd1(struct values *v, struct program_run *run) {
    run_give(run, 0, v->q);
    run_give(run, 1, v->k);
    run_give(run, 2, v->v);
    oracle_gradient(wo_of_att, v, v->att, v->o->seq * width_q(v), v->d_other);
    run_give(run, 3, v->d_other);
    run_go(run);
    expect_bwd1(v, run);
}

/* The program gets Q and K after RoPE and gives gradients before it. */
static void check_attn_bwd2(struct values *v, struct program_run *run) {
    size_t T = v->o->seq;
    out_of_qk(v);
    oracle_gradient(out_of_p, v, v->p, v->o->d.heads * T * T, v->d_other);
    double *turned_q = random_of(v->o, width_q(v), 3), *turned_k = random_of(v->o, width_kv(v), 4);
    oracle_rope(v->o, turned_q, v->o->d.heads);
    oracle_rope(v->o, turned_k, v->o->d.kv_heads);
    run_give_scores(run, 0, v->p);
    run_give_scores(run, 1, v->d_other);
    run_give(run, 2, turned_q);
    run_give(run, 3, turned_k);
    kiln_free(turned_q);
    kiln_free(turned_k);
    run_go(run);
    expect_gradient(run, 0, v, out_of_qk, v->q);
    expect_gradient(run, 1, v, out_of_qk, v->k);
}

static void check_qkv_bwd(struct values *v, struct program_run *run) {
    run_give(run, 0, v->d_q);
    run_give(run, 1, v->d_k);
    run_give(run, 2, v->d_v);
    run_go(run);
    expect_gradient(run, 0, v, qkv_of_xn, v->xn);
}

static void check_norm_bwd(struct values *v, struct program_run *run) {
    run_give(run, 0, v->d_model);
    run_give(run, 1, v->x);
    run_go(run);
    bool attention = run->kind == KILN_NPU_NORM_BWD_ATTN;
    expect_gradient(run, 0, v, attention ? norm_attn : norm_ffn, v->x);
}

/* One activation and its weight. */
static void check_linear_bwd(struct values *v, struct program_run *run) {
    bool w2 = run->kind == KILN_NPU_FFN_BWD_W2, wo = run->kind == KILN_NPU_WO_BWD;
    run_give(run, 0, w2 || wo ? v->d_model : v->d_q);
    run_give_weight(run, 1, w2 ? KILN_W2 : wo ? KILN_WO : KILN_WQ, false);
    run_go(run);
    expect_gradient(run, 0, v,
                    w2   ? w2_of_gate
                    : wo ? wo_of_att
                         : q_of_xn,
                    w2   ? v->gate
                    : wo ? v->att
                         : v->xn);
}

/* Two of each. */
static void check_pair_bwd(struct values *v, struct program_run *run) {
    bool ffn = run->kind == KILN_NPU_FFN_BWD_W13;
    run_give(run, 0, ffn ? v->d_h1 : v->d_k);
    run_give(run, 1, ffn ? v->d_h3 : v->d_v);
    run_give_weight(run, 2, ffn ? KILN_W1 : KILN_WK, false);
    run_give_weight(run, 3, ffn ? KILN_W3 : KILN_WV, false);
    run_go(run);
    expect_gradient(run, 0, v, ffn ? w13_of_xn : kv_of_xn, v->xn);
}

/* ---- every kind, every shape ----------------------------------------------------------------- */

typedef void check_fn(struct values *v, struct program_run *run);
static check_fn *const checks[KILN_NPU_KINDS] = {
    [KILN_NPU_ATTN_FWD] = check_attn_fwd,      [KILN_NPU_FFN_FWD] = check_ffn_fwd,
    [KILN_NPU_FFN_BWD] = check_ffn_bwd,        [KILN_NPU_ATTN_BWD1] = check_attn_bwd1,
    [KILN_NPU_QKV_BWD] = check_qkv_bwd,        [KILN_NPU_ATTN_BWD2] = check_attn_bwd2,
    [KILN_NPU_NORM_BWD_ATTN] = check_norm_bwd, [KILN_NPU_NORM_BWD_FFN] = check_norm_bwd,
    [KILN_NPU_FINAL_NORM] = check_final_norm,  [KILN_NPU_CLASSIFIER] = check_classifier,
    [KILN_NPU_SOFTMAX] = check_softmax,        [KILN_NPU_SDPA_FWD] = check_sdpa_fwd,
    [KILN_NPU_WO_FWD] = check_wo_fwd,          [KILN_NPU_FFN_FUSED] = check_ffn_fused,
    [KILN_NPU_FFN_BWD_W2] = check_linear_bwd,  [KILN_NPU_FFN_BWD_W13] = check_pair_bwd,
    [KILN_NPU_WO_BWD] = check_linear_bwd,      [KILN_NPU_SDPA_BWD1] = check_sdpa_bwd1,
    [KILN_NPU_SDPA_BWD2] = check_attn_bwd2,    [KILN_NPU_Q_BWD] = check_linear_bwd,
    [KILN_NPU_KV_BWD] = check_pair_bwd,
};

static void check_kinds_with(const struct kiln_dims *dims, const struct kiln_lora *lora,
                             const uint32_t *starts) {
    for (int kind = 0; kind < KILN_NPU_KINDS; kind++) {
        struct oracle o;
        struct values v;
        struct program_run run;
        oracle_open_lora(&o, dims, lora);
        o.starts = starts;
        o.mode.doc_mask = starts != NULL;
        values_open(&v, &o);
        run_open(&run, &o, (enum kiln_npu_kind)kind, 0);
        checks[kind](&v, &run);
        run_close(&run);
        values_close(&v);
        oracle_close(&o);
    }
}

static void check_kinds_of(const struct kiln_dims *dims) {
    check_kinds_with(dims, &(struct kiln_lora){.rank = 0}, NULL);
}

static void check_every_kind(size_t dim, size_t heads, size_t kv_heads, size_t hidden, size_t seq) {
    check_kinds_of(&(struct kiln_dims){
        .dim = dim, .hidden = hidden, .heads = heads, .kv_heads = kv_heads, .seq = seq});
}

TEST(programs_of_a_layer_are_right_with_a_key_head_for_each_query_head) {
    check_every_kind(32, 4, 4, 48, 16);
}
TEST(programs_of_a_layer_are_right_with_grouped_queries) { check_every_kind(48, 6, 2, 40, 20); }
TEST(programs_of_a_layer_are_right_with_one_key_head) { check_every_kind(32, 4, 1, 24, 17); }
TEST(programs_of_a_layer_are_right_for_sizes_that_divide_by_nothing) {
    check_every_kind(30, 3, 3, 21, 7);
    check_every_kind(12, 6, 3, 5, 1);
}

TEST(programs_of_a_layer_are_right_with_biases) {
    check_kinds_of(&(struct kiln_dims){
        .dim = 32, .hidden = 40, .heads = 4, .kv_heads = 2, .seq = 21, .qkv_bias = true});
}
/* Heads that are together wider, and narrower, than the model. */
TEST(programs_of_a_layer_are_right_with_heads_that_are_normed) {
    struct kiln_dims d = {
        .dim = 24, .hidden = 40, .heads = 4, .kv_heads = 2, .head_size = 10, .seq = 21};
    d.qk_norm = true;
    check_kinds_of(&d);
    d.head_size = 4;
    d.qkv_bias = true;
    check_kinds_of(&d);
}
TEST(programs_of_a_layer_are_right_with_scaled_rotations) {
    const struct kiln_rope ropes[] = {
        {.kind = KILN_ROPE_LINEAR, .factor = 4.0f},
        {.kind = KILN_ROPE_LLAMA3,
         .factor = 8.0f,
         .low_freq_factor = 1.0f,
         .high_freq_factor = 4.0f,
         .original_seq = 16},
        {.kind = KILN_ROPE_YARN,
         .factor = 4.0f,
         .beta_fast = 32.0f,
         .beta_slow = 1.0f,
         .attention_factor = 1.13862944f,
         .original_seq = 16},
    };
    for (size_t i = 0; i < sizeof ropes / sizeof ropes[0]; i++) {
        check_kinds_of(&(struct kiln_dims){
            .dim = 32, .hidden = 6, .heads = 2, .kv_heads = 1, .seq = 18, .rope = ropes[i]});
    }
}

/* Documents of 1 token, and of more than 64, where the mask's two numbers meet. */
TEST(programs_of_a_layer_are_right_with_documents) {
    enum { T = 70 };
    uint32_t starts[T];
    for (uint32_t t = 0; t < T; t++) {
        starts[t] = t < 3 ? 0 : t < 4 ? 3 : t < 66 ? 4 : 66;
    }
    struct kiln_dims d = {.dim = 4, .hidden = 2, .heads = 1, .kv_heads = 1, .seq = T};
    check_kinds_with(&d, &(struct kiln_lora){.rank = 0}, starts);
    d.qkv_bias = d.qk_norm = true;
    d.seq = 20;
    check_kinds_with(&d, &(struct kiln_lora){.rank = 0}, starts);
}
/* A rank that is no multiple of 16, on every matrix and on some; inputs that grow taller by it. */
TEST(programs_of_a_layer_are_right_with_adapters) {
    struct kiln_dims d = {.dim = 32, .hidden = 40, .heads = 4, .kv_heads = 2, .seq = 20};
    struct kiln_lora lora = {.rank = 3, .alpha = 4.5, .targets = KILN_LORA_ALL};
    check_kinds_with(&d, &lora, NULL);
    lora.targets = KILN_LORA_Q | KILN_LORA_V | KILN_LORA_DOWN;
    d.head_size = 12;
    d.qkv_bias = d.qk_norm = true;
    uint32_t starts[20];
    for (uint32_t t = 0; t < 20; t++) {
        starts[t] = t < 7 ? 0 : 7;
    }
    check_kinds_with(&d, &lora, starts);
}
/* Sums of whole numbers beyond 2048 are none in fp16: the mask is right nevertheless. */
TEST(documents_are_told_apart_in_long_sequences) {
    enum { T = 4200 };
    static uint32_t starts[T];
    for (uint32_t t = 0; t < T; t++) {
        starts[t] = t < 2049 ? 0 : t < 4099 ? 2049 : 4099;
    }
    struct oracle o;
    struct program_run run;
    oracle_open_dims(
        &o, &(struct kiln_dims){.dim = 2, .hidden = 1, .heads = 1, .kv_heads = 1, .seq = T});
    o.mode.doc_mask = true;
    o.starts = starts;
    run_open(&run, &o, KILN_NPU_ATTN_BWD1, 0);
    run_go(&run); /* of zeros: each key that is seen has the same probability */
    static const size_t rows[] = {0, 2048, 2049, 2050, 4098, 4099, 4100, T - 1};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const size_t t = rows[i];
        for (size_t s = 0; s < T; s++) {
            const double want = s >= starts[t] && s <= t ? 1.0 / (double)(t - starts[t] + 1) : 0;
            CHECK_CLOSE(run_result(&run, 1, s, t), want, want / 1000);
        }
    }
    run_close(&run);
    oracle_close(&o);
}

/* Nobody scales queries and keys before the norms of their heads: squares of what fp16 holds, and
 * of what is nearly nothing, are none that it holds. */
TEST(heads_are_normed_however_large_or_small) {
    const double sizes[] = {2e-3, 3000.0};
    for (size_t i = 0; i < 2; i++) {
        struct oracle o;
        struct values v;
        struct program_run run;
        struct kiln_dims d = {.dim = 32, .hidden = 8, .heads = 2, .kv_heads = 1, .seq = 20};
        d.qk_norm = true;
        oracle_open_dims(&o, &d);
        static const enum kiln_role roles[] = {KILN_WQ, KILN_WK};
        for (size_t r = 0; r < 2; r++) {
            const struct kiln_tensor *t = kiln_table_find(o.table, roles[r], o.layer);
            for (size_t e = 0; e < t->rows * t->cols; e++) {
                o.weights[t->offset + e] *= (float)sizes[i];
            }
        }
        values_open(&v, &o);
        run_open(&run, &o, KILN_NPU_ATTN_FWD, 0);
        check_attn_fwd(&v, &run);
        run_close(&run);
        values_close(&v);
        oracle_close(&o);
    }
}

/* ---- norms at the edges of fp16 -------------------------------------------------------------- */

/* <got, want> / <want, want> of output 0: what is wrong with all of it alike. */
static double ratio(const struct program_run *run, const double *want) {
    size_t d = run->o->d.dim;
    double both = 0, square = 0;
    for (size_t t = 0; t < run->o->seq; t++) {
        for (size_t c = 0; c < d; c++) {
            both += run_result(run, 0, t, c) * want[t * d + c];
            square += want[t * d + c] * want[t * d + c];
        }
    }
    return both / square;
}

/* 16/106 is off by 4e-4 in fp16: the norm would be off by half of it everywhere, its backward, too.
 * Chance leaves a fifth of that. Weights of 1, where training begins, have no digits to spare. */
static void check_mean(bool ones) {
    struct oracle o;
    struct values v;
    struct program_run run;
    oracle_open(&o, 106, 1, 1, 8, 64);
    values_open(&v, &o);
    for (size_t i = 0; ones && i < o.table->size; i++) {
        o.weights[i] = 1;
    }
    run_open(&run, &o, KILN_NPU_FINAL_NORM, 0);
    check_final_norm(&v, &run);
    CHECK_CLOSE(ratio(&run, v.xn), 1, 6e-5);
    run_close(&run);
    run_open(&run, &o, KILN_NPU_NORM_BWD_ATTN, 0);
    check_norm_bwd(&v, &run);
    CHECK_CLOSE(ratio(&run, v.d_other), 1, 1.2e-4);
    run_close(&run);
    values_close(&v);
    oracle_close(&o);
}

TEST(what_fp16_makes_of_the_mean_is_made_good) {
    check_mean(false);
    check_mean(true);
}

/* The norm of what is not large, which the large would hide in the norm of all. */
static void expect_quiet_channels(const struct program_run *run, size_t part, const double *want) {
    size_t d = run->o->d.dim;
    double off = 0, square = 0;
    for (size_t t = 0; t < run->o->seq; t++) {
        for (size_t c = 3; c < d; c++) {
            double wanted = want[t * d + c], got = run_result(run, part, t, c);
            CHECK(isfinite(got));
            off += (got - wanted) * (got - wanted);
            square += wanted * wanted;
        }
    }
    CHECK(sqrt(off / square) < 3e-3);
}

/* The sum of their squares is far beyond 65504. */
TEST(large_activations_go_through_the_norms) {
    const double sizes[] = {300, 1000};
    for (size_t i = 0; i < 2; i++) {
        struct oracle o;
        struct values v;
        struct program_run run;
        oracle_open(&o, 96, 4, 2, 40, 20);
        values_open(&v, &o);
        for (size_t t = 0; t < o.seq; t++) {
            v.x[t * 96] = sizes[i];
            v.x[t * 96 + 1] = -sizes[i] - (double)t;
            v.x[t * 96 + 2] = sizes[i] / 2;
        }
        run_open(&run, &o, KILN_NPU_ATTN_FWD, 0);
        check_attn_fwd(&v, &run);
        expect_quiet_channels(&run, 5, v.xn);
        run_close(&run);
        run_open(&run, &o, KILN_NPU_NORM_BWD_FFN, 0);
        check_norm_bwd(&v, &run);
        expect_quiet_channels(&run, 0, v.d_other);
        run_close(&run);
        values_close(&v);
        oracle_close(&o);
    }
}

/* Embeddings begin at 0.02; at 0.002 the mean square is below eps. */
TEST(small_activations_go_through_the_norms) {
    const double sizes[] = {0.02, 0.002};
    for (size_t i = 0; i < 2; i++) {
        struct oracle o;
        struct values v;
        struct program_run run;
        oracle_open(&o, 96, 4, 2, 40, 20);
        values_open(&v, &o);
        for (size_t e = 0; e < o.seq * 96; e++) {
            v.x[e] = (double)kiln_f16_to_f32(kiln_f64_to_f16(v.x[e] * sizes[i]));
        }
        run_open(&run, &o, KILN_NPU_FINAL_NORM, 0);
        check_final_norm(&v, &run);
        run_close(&run);
        values_close(&v);
        oracle_close(&o);
    }
}

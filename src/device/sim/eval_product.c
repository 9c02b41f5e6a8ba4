/* SPDX-License-Identifier: MIT
 *
 * eval_product.c: matrix products: conv, matmul, scaled_dot_product_attention.
 *
 * A convolution of one pixel is a product, weights [O, I] by pixels [I, S], and a matmul is one for
 * each batch; both run on the CPU kernels, which sum in fp32. The right-hand side is packed into
 * scratch first. Many batches (the heads of attention) are a pool task each, few are spread over
 * the pool. Other convolutions are plain loops with sums in double.
 */
#include <math.h>
#include <string.h>

#include "device/sim/eval_int.h"
#include "device/sim/eval_math.h"

enum { MANY_BATCHES = 4 }; /* from here on a batch is a task */

/* ---- conv ----------------------------------------------------------------------------------- */

struct conv {
    const struct kiln_sim_run *run;
    const float *x, *weight, *bias;
    float *out;
    size_t batches, in, outs;             /* channels */
    size_t size[2], result[2], kernel[2]; /* pixels in, out; of the kernel */
    size_t stride[2], dilation[2], before[2];
    size_t in_group, out_group; /* channels of a group */
};

static struct conv conv_of(const struct kiln_mil_graph *graph, const struct kiln_mil_node *node) {
    const struct kiln_mil_type *x = &graph->values[node->in[0]].type;
    const struct kiln_mil_type *weight = &graph->values[node->in[1]].type;
    const struct kiln_mil_type *out = &graph->values[node->out[0]].type;
    struct conv c = {.batches = x->dims[0], .in = x->dims[1], .outs = out->dims[1]};
    for (size_t i = 0; i < 2; i++) {
        c.size[i] = x->dims[2 + i];
        c.result[i] = out->dims[2 + i];
        c.kernel[i] = weight->dims[2 + i];
        c.stride[i] = node->stride[i];
        c.dilation[i] = node->dilation[i];
        c.before[i] = node->pad[2 * i];
    }
    c.in_group = weight->dims[1];
    c.out_group = c.outs / node->groups;
    return c;
}

static bool is_product(const struct conv *c) {
    bool one = c->in_group == c->in;
    for (size_t i = 0; i < 2; i++) {
        one &= c->kernel[i] == 1 && c->stride[i] == 1 && c->size[i] == c->result[i];
    }
    return one;
}

static size_t pixels(const size_t sizes[2]) { return sizes[0] * sizes[1]; }

/* Sum of one result pixel over the kernel and the channels of its group. */
static double conv_sum(const struct conv *c, const float *x, const float *weight, size_t row,
                       size_t column) {
    double sum = 0.0;
    for (size_t i = 0; i < c->in_group; i++) {
        for (size_t k = 0; k < pixels(c->kernel); k++) {
            size_t y = row * c->stride[0] + k / c->kernel[1] * c->dilation[0];
            size_t z = column * c->stride[1] + k % c->kernel[1] * c->dilation[1];
            bool inside = y >= c->before[0] && z >= c->before[1] && y - c->before[0] < c->size[0] &&
                          z - c->before[1] < c->size[1];
            if (inside) {
                size_t at = (y - c->before[0]) * c->size[1] + z - c->before[1];
                sum +=
                    (double)weight[i * pixels(c->kernel) + k] * (double)x[i * pixels(c->size) + at];
            }
        }
    }
    return sum;
}

/* One channel of the result. */
static void conv_channel(void *context, size_t task, size_t thread) {
    const struct conv *c = context;
    size_t batch = task / c->outs, o = task % c->outs, n = pixels(c->result);
    size_t first = o / c->out_group * c->in_group; /* input channel of the group */
    const float *x = c->x + (batch * c->in + first) * pixels(c->size);
    const float *weight = c->weight + o * c->in_group * pixels(c->kernel);
    float *out = c->out + task * n;
    (void)thread;
    for (size_t i = 0; i < n; i++) {
        double sum = conv_sum(c, x, weight, i / c->result[1], i % c->result[1]);
        out[i] = (float)(sum + (c->bias ? (double)c->bias[o] : 0.0));
    }
    kiln_sim_store(c->run, out, n);
}

/* Bias and rounding of one channel of a product. */
static void store_channel(void *context, size_t task, size_t thread) {
    const struct conv *c = context;
    size_t n = pixels(c->result);
    float *out = c->out + task * n;
    (void)thread;
    for (size_t i = 0; i < n && c->bias; i++) {
        out[i] += c->bias[task % c->outs];
    }
    kiln_sim_store(c->run, out, n);
}

void kiln_sim_conv(const struct kiln_sim_run *run) {
    const struct kiln_workers *workers = &run->machine->workers;
    struct conv c = conv_of(run->plan->graph, run->node);
    c.run = run;
    c.x = kiln_sim_in(run, 0);
    c.weight = kiln_sim_in(run, 1);
    c.bias = kiln_sim_in(run, 2);
    c.out = kiln_sim_out(run, 0);
    if (!is_product(&c)) {
        kiln_sim_tasks(run, c.batches * c.outs, conv_channel, &c);
        return;
    }
    size_t n = pixels(c.size);
    for (size_t batch = 0; batch < c.batches; batch++) {
        kiln_pack_columns(workers, run->scratch, c.x + batch * c.in * n, n, c.in, n);
        kiln_product(workers, &(struct kiln_gemm){.m = c.outs,
                                                  .n = n,
                                                  .k = c.in,
                                                  .a = c.weight,
                                                  .lda = c.in,
                                                  .b = run->scratch,
                                                  .c = c.out + batch * c.outs * n,
                                                  .ldc = n});
    }
    kiln_sim_tasks(run, c.batches * c.outs, store_channel, &c);
}

/* ---- matmul --------------------------------------------------------------------------------- */

struct matmul {
    const struct kiln_sim_run *run;
    const float *x, *y;
    float *out;
    size_t batches, m, n, k;
    bool turn_x, turn_y;
    struct kiln_sim_walk x_at, y_at; /* batch -> where its operand starts */
    size_t left, right;              /* floats of scratch of a batch: x turned, y packed */
};

/* Where an operand of each batch starts: batch axes of one element are broadcast. */
static struct kiln_sim_walk batch_walk(const struct kiln_mil_type *type,
                                       const struct kiln_mil_type *out) {
    struct kiln_sim_walk walk = {.count = 1};
    size_t axes = out->rank - 2, missing = out->rank - type->rank;
    for (size_t i = 0; i < axes; i++) {
        size_t dim = i < missing ? 1 : type->dims[i - missing];
        walk.dims[walk.rank] = out->dims[i];
        walk.step[walk.rank++] = dim == 1 ? 0 : kiln_sim_extent(type, i - missing + 1, type->rank);
        walk.count *= out->dims[i];
    }
    return walk;
}

static struct matmul matmul_of(const struct kiln_mil_graph *graph,
                               const struct kiln_mil_node *node) {
    const struct kiln_mil_type *x = &graph->values[node->in[0]].type;
    const struct kiln_mil_type *y = &graph->values[node->in[1]].type;
    const struct kiln_mil_type *out = &graph->values[node->out[0]].type;
    struct matmul p = {.turn_x = node->transpose_x, .turn_y = node->transpose_y};
    p.m = out->dims[out->rank - 2];
    p.n = out->dims[out->rank - 1];
    p.k = x->dims[x->rank - (p.turn_x ? 2 : 1)];
    p.batches = kiln_sim_extent(out, 0, out->rank - 2);
    p.x_at = batch_walk(x, out);
    p.y_at = batch_walk(y, out);
    p.left = p.turn_x ? p.m * p.k : 0;
    p.left = (p.left + 15) / 16 * 16;
    p.right = kiln_packed_elements(p.n, p.k);
    return p;
}

/* Bounded results: the engine's own, before anything else sees them. */
static void store_products(const struct kiln_sim_run *run, float *x, size_t n) {
    float limit = run->machine->numbers.matmul_limit;
    kiln_sim_store(run, x, n);
    for (size_t i = 0; i < n && limit > 0.0f; i++) {
        x[i] = fabsf(x[i]) > limit ? copysignf(INFINITY, x[i]) : x[i];
    }
}

static struct kiln_gemm product_of(const struct matmul *p, size_t batch, const float *left,
                                   const float *right) {
    const float *x = p->x + kiln_sim_walk_at(&p->x_at, batch);
    return (struct kiln_gemm){.m = p->m,
                              .n = p->n,
                              .k = p->k,
                              .a = p->turn_x ? left : x,
                              .lda = p->k,
                              .b = right,
                              .c = p->out + batch * p->m * p->n,
                              .ldc = p->n};
}

/* A whole batch on one thread. */
static void one_batch(void *context, size_t batch, size_t thread) {
    const struct matmul *p = context;
    const struct kiln_kernels *k = &p->run->machine->kernels;
    float *left = p->run->scratch + batch * (p->left + p->right), *right = left + p->left;
    const float *x = p->x + kiln_sim_walk_at(&p->x_at, batch);
    const float *y = p->y + kiln_sim_walk_at(&p->y_at, batch);
    if (p->turn_x) {
        k->transpose(left, p->k, x, p->m, p->k, p->m);
    }
    if (p->turn_y) {
        k->pack_f32(right, kiln_panel_elements(p->k), y, p->k, p->n, p->k);
    } else {
        k->pack_t_f32(right, kiln_panel_elements(p->k), y, p->n, p->k, p->n);
    }
    struct kiln_gemm g = product_of(p, batch, left, right);
    kiln_product_alone(k, &g, p->run->machine->workers.scratch[thread]);
    store_products(p->run, g.c, p->m * p->n);
}

struct panels {
    const struct matmul *p;
    const float *y;
    float *right;
};

/* One panel of y as [n, k]. */
static void pack_panel(void *context, size_t task, size_t thread) {
    const struct panels *panels = context;
    const struct matmul *p = panels->p;
    size_t panel = kiln_panel_elements(p->k), first = task * KILN_PANEL;
    (void)thread;
    p->run->machine->kernels.pack_f32(panels->right + task * panel, panel, panels->y + first * p->k,
                                      p->k, kiln_least(p->n - first, KILN_PANEL), p->k);
}

static void store_some(void *context, size_t task, size_t thread) {
    const struct matmul *p = context;
    size_t n = p->batches * p->m * p->n, first = task * KILN_SIM_CHUNK;
    (void)thread;
    store_products(p->run, p->out + first, kiln_least(n - first, KILN_SIM_CHUNK));
}

/* A batch spread over the pool. */
static void spread_batch(const struct matmul *p, size_t batch) {
    const struct kiln_workers *workers = &p->run->machine->workers;
    float *left = p->run->scratch + batch * (p->left + p->right), *right = left + p->left;
    const float *y = p->y + kiln_sim_walk_at(&p->y_at, batch);
    if (p->turn_x) {
        kiln_transpose(workers, left, p->k, p->x + kiln_sim_walk_at(&p->x_at, batch), p->m, p->k,
                       p->m);
    }
    if (p->turn_y) {
        struct panels panels = {p, y, right};
        kiln_sim_tasks(p->run, (p->n + KILN_PANEL - 1) / KILN_PANEL, pack_panel, &panels);
    } else {
        kiln_pack_columns(workers, right, y, p->n, p->k, p->n);
    }
    struct kiln_gemm g = product_of(p, batch, left, right);
    kiln_product(workers, &g);
}

void kiln_sim_matmul(const struct kiln_sim_run *run) {
    struct matmul p = matmul_of(run->plan->graph, run->node);
    p.run = run;
    p.x = kiln_sim_in(run, 0);
    p.y = kiln_sim_in(run, 1);
    p.out = kiln_sim_out(run, 0);
    if (p.batches >= MANY_BATCHES) {
        kiln_sim_tasks(run, p.batches, one_batch, &p);
        return;
    }
    for (size_t batch = 0; batch < p.batches; batch++) {
        spread_batch(&p, batch);
    }
    size_t n = p.batches * p.m * p.n;
    kiln_sim_tasks(run, (n + KILN_SIM_CHUNK - 1) / KILN_SIM_CHUNK, store_some, &p);
}

/* ---- attention ------------------------------------------------------------------------------ */

/* softmax(query . key' / sqrt(E) + mask) . value; one rounding at the end. */
struct attention {
    const struct kiln_sim_run *run;
    size_t rows, keys, size, value_size; /* L, S, E, EV */
    struct kiln_sim_walk query, key, value, mask;
    size_t mask_row, mask_column; /* steps of the mask; 0: broadcast */
};

static void attention_scores(const struct attention *a, const float *q, const float *k,
                             size_t batch, size_t row, float *score) {
    const float *mask = kiln_sim_in(a->run, 3);
    bool chooses = mask && kiln_sim_in_type(a->run, 3)->scalar == KILN_MIL_BOOL;
    for (size_t j = 0; j < a->keys; j++) {
        double sum = 0.0;
        for (size_t e = 0; e < a->size; e++) {
            sum += (double)q[e] * (double)k[j * a->size + e];
        }
        score[j] = (float)(sum / sqrt((double)a->size));
        if (mask) {
            float m =
                mask[kiln_sim_walk_at(&a->mask, batch) + row * a->mask_row + j * a->mask_column];
            score[j] = chooses ? (m != 0.0f ? score[j] : -INFINITY) : score[j] + m;
        }
    }
}

static void attention_row(void *context, size_t task, size_t thread) {
    const struct attention *a = context;
    size_t batch = task / a->rows, row = task % a->rows;
    const float *q = kiln_sim_in(a->run, 0) + kiln_sim_walk_at(&a->query, batch) + row * a->size;
    const float *k = kiln_sim_in(a->run, 1) + kiln_sim_walk_at(&a->key, batch);
    const float *v = kiln_sim_in(a->run, 2) + kiln_sim_walk_at(&a->value, batch);
    float *out = kiln_sim_out(a->run, 0) + task * a->value_size;
    float *score = a->run->scratch + task * a->keys, peak = -INFINITY;
    double total = 0.0;
    (void)thread;
    attention_scores(a, q, k, batch, row, score);
    for (size_t j = 0; j < a->keys; j++) {
        peak = fmaxf(peak, score[j]);
    }
    for (size_t j = 0; j < a->keys; j++) {
        score[j] = kiln_sim_exp(score[j] - peak);
        total += (double)score[j];
    }
    for (size_t e = 0; e < a->value_size; e++) {
        double sum = 0.0;
        for (size_t j = 0; j < a->keys; j++) {
            sum += (double)score[j] * (double)v[j * a->value_size + e];
        }
        out[e] = (float)(sum / total);
    }
    kiln_sim_store(a->run, out, a->value_size);
}

void kiln_sim_attention(const struct kiln_sim_run *run) {
    const struct kiln_mil_type *out = kiln_sim_out_type(run, 0), *key = kiln_sim_in_type(run, 1);
    struct attention a = {.run = run, .rows = out->dims[out->rank - 2]};
    a.keys = key->dims[key->rank - 2];
    a.size = key->dims[key->rank - 1];
    a.value_size = out->dims[out->rank - 1];
    a.query = batch_walk(kiln_sim_in_type(run, 0), out);
    a.key = batch_walk(key, out);
    a.value = batch_walk(kiln_sim_in_type(run, 2), out);
    if (kiln_sim_in(run, 3)) {
        const struct kiln_mil_type *mask = kiln_sim_in_type(run, 3);
        a.mask = batch_walk(mask, out);
        size_t rank = mask->rank;
        a.mask_column = rank < 1 || mask->dims[rank - 1] == 1 ? 0 : 1;
        a.mask_row = rank < 2 || mask->dims[rank - 2] == 1 ? 0 : mask->dims[rank - 1];
    }
    kiln_sim_tasks(run, kiln_sim_extent(out, 0, out->rank - 1), attention_row, &a);
}

/* ---- what they want ------------------------------------------------------------------------- */

size_t kiln_sim_product_scratch(const struct kiln_mil_graph *graph,
                                const struct kiln_mil_node *node) {
    const struct kiln_mil_type *out = &graph->values[node->out[0]].type;
    if (node->op == KILN_MIL_CONV) {
        struct conv c = conv_of(graph, node);
        return is_product(&c) ? kiln_packed_elements(pixels(c.size), c.in) : 0;
    }
    if (node->op == KILN_MIL_MATMUL) {
        struct matmul p = matmul_of(graph, node);
        return p.batches * (p.left + p.right);
    }
    if (node->op == KILN_MIL_SDPA) {
        const struct kiln_mil_type *key = &graph->values[node->in[1]].type;
        return kiln_sim_extent(out, 0, out->rank - 1) * key->dims[key->rank - 2];
    }
    return 0;
}

double kiln_sim_product_flop(const struct kiln_mil_graph *graph, const struct kiln_mil_node *node) {
    double results = (double)kiln_mil_elements(&graph->values[node->out[0]].type);
    if (node->op == KILN_MIL_CONV) {
        struct conv c = conv_of(graph, node);
        return 2.0 * results * (double)(c.in_group * pixels(c.kernel));
    }
    if (node->op == KILN_MIL_MATMUL) {
        return 2.0 * results * (double)matmul_of(graph, node).k;
    }
    if (node->op == KILN_MIL_SDPA) {
        const struct kiln_mil_type *key = &graph->values[node->in[1]].type;
        return 2.0 * results * (double)key->dims[key->rank - 2] * 2.0;
    }
    return 0.0;
}

/* SPDX-License-Identifier: MIT
 *
 * float64.c: the model in double precision: its memory, and a sequence forward.
 */
#include <math.h>
#include <string.h>

#include "kernel/rope.h"
#include "kiln/text.h"
#include "train/explain/float64_int.h"

/* ---- memory -----------------------------------------------------------------------------------
 */

/* The block is laid out twice: counted, then cut. */
struct cut {
    double *base; /* NULL: counting */
    size_t used;
};

static double *take(struct cut *cut, size_t rows, size_t width) {
    double *at = cut->base ? cut->base + cut->used : NULL;
    cut->used += kiln_round_up(rows * width, 8);
    return at;
}

static size_t largest_tensor(const struct kiln_table *table) {
    size_t most = 0;
    for (size_t i = 0; i < table->n_tensors; i++) {
        most = kiln_largest(most, table->tensors[i].rows * table->tensors[i].cols);
    }
    return most;
}

static void cut_layer(const struct kiln_float64 *f, struct cut *cut,
                      struct kiln_float64_layer *layer) {
    const struct kiln_dims *d = &f->table->dims;
    const size_t t = f->seq, hk = d->heads * d->head_size;
    layer->x = take(cut, t, d->dim);
    layer->squares = take(cut, t, 1);
    layer->normed = take(cut, t, d->dim);
    layer->qkv = take(cut, t, kiln_float64_qkv(d));
    layer->turned = take(cut, t, kiln_float64_turned(d));
    layer->scores = take(cut, t, d->heads);
    layer->lse = take(cut, t, d->heads);
    layer->attention = take(cut, t, hk);
    layer->middle = take(cut, t, d->dim);
    layer->squares2 = take(cut, t, 1);
    layer->normed2 = take(cut, t, d->dim);
    layer->gate = take(cut, t, d->hidden);
    layer->up = take(cut, t, d->hidden);
    layer->product = take(cut, t, d->hidden);
}

static void cut_backward(struct kiln_float64 *f, struct cut *cut) {
    const struct kiln_dims *d = &f->table->dims;
    const size_t t = f->seq;
    f->gradients = take(cut, 1, kiln_trained_size(f->table));
    f->dx = take(cut, t, d->dim);
    f->dnormed = take(cut, t, d->dim);
    f->dqkv = take(cut, t, kiln_float64_qkv(d));
    f->dturned = take(cut, t, kiln_float64_turned(d));
    f->dattention = take(cut, t, d->heads * d->head_size);
    f->dgate = take(cut, t, d->hidden);
    f->dup = take(cut, t, d->hidden);
    f->dproduct = take(cut, t, d->hidden);
    f->dlogits = take(cut, t, d->vocab);
}

static size_t cut_all(struct kiln_float64 *f, double *base, bool gradients) {
    const struct kiln_dims *d = &f->table->dims;
    struct cut cut = {.base = base};
    for (size_t l = 0; l < d->layers; l++) {
        cut_layer(f, &cut, &f->layers[l]);
    }
    f->x = take(&cut, f->seq, d->dim);
    f->squares = take(&cut, f->seq, 1);
    f->normed = take(&cut, f->seq, d->dim);
    f->logits = take(&cut, f->seq, d->vocab);
    f->losses = take(&cut, f->seq, 1);
    f->angles = take(&cut, f->seq, d->head_size);
    f->u = take(&cut, f->seq, 2 * kiln_largest(f->table->lora.rank, 1));
    f->wide = take(&cut, 1, largest_tensor(f->table));
    if (gradients) {
        cut_backward(f, &cut);
    }
    return cut.used;
}

/* As kiln_rope_angles, not rounded. */
static void fill_angles(struct kiln_float64 *f) {
    const struct kiln_dims *d = &f->table->dims;
    const double scale = kiln_rope_scale(d);
    for (size_t p = 0; p < f->seq; p++) {
        for (size_t i = 0; i < d->head_size / 2; i++) {
            const double angle = (double)p * kiln_rope_frequency(d, i);
            f->angles[p * d->head_size + 2 * i] = cos(angle) * scale;
            f->angles[p * d->head_size + 2 * i + 1] = sin(angle) * scale;
        }
    }
}

static enum kiln_status open_memory(struct kiln_float64 *f, bool gradients, struct kiln_err *err) {
    f->layers = kiln_alloc(f->table->dims.layers, sizeof *f->layers);
    KILN_REQUIRE(f->layers, err, KILN_ENOMEM, "explain: not enough memory");
    const size_t n = cut_all(f, NULL, gradients);
    f->block = kiln_alloc(n, sizeof *f->block);
    KILN_REQUIRE(f->block, err, KILN_ENOMEM,
                 "explain: %.1f GB are needed for the step in double precision, and are not there",
                 (double)n * (double)sizeof *f->block / 1e9);
    (void)cut_all(f, f->block, gradients);
    fill_angles(f);
    return kiln_scratch_open(&f->scratch, kiln_pool_threads(f->pool),
                             KILN_FLOAT64_SCRATCH + 2 * f->seq * sizeof(double), err);
}

enum kiln_status kiln_float64_create(const struct kiln_table *table, const float *weights,
                                     size_t seq, struct kiln_pool *pool, bool gradients,
                                     struct kiln_float64 **out, struct kiln_err *err) {
    struct kiln_float64 *f = kiln_alloc(1, sizeof *f);
    *out = NULL;
    KILN_REQUIRE(f, err, KILN_ENOMEM, "explain: not enough memory");
    f->table = table;
    f->weights = weights;
    f->pool = pool;
    f->seq = seq;
    const enum kiln_status status = open_memory(f, gradients, err);
    if (status != KILN_OK) {
        kiln_float64_destroy(f);
        return status;
    }
    *out = f;
    return KILN_OK;
}

void kiln_float64_destroy(struct kiln_float64 *f) {
    if (f) {
        kiln_scratch_close(&f->scratch);
        kiln_free(f->block);
        kiln_free(f->layers);
        kiln_free(f);
    }
}

void kiln_float64_set_watch(struct kiln_float64 *f, const struct kiln_float64_watch *watch) {
    f->watch = watch ? *watch : (struct kiln_float64_watch){.see = NULL};
}

const double *kiln_float64_gradients(const struct kiln_float64 *f) { return f->gradients; }

void kiln_float64_clear_gradients(struct kiln_float64 *f) {
    memset(f->gradients, 0, kiln_trained_size(f->table) * sizeof *f->gradients);
}

/* ---- reading ----------------------------------------------------------------------------------
 */

struct widen_job {
    double *to;
    const float *from;
    size_t cols;
};

static void widen_row(void *context, size_t row) {
    const struct widen_job *job = context;
    for (size_t i = row * job->cols; i < (row + 1) * job->cols; i++) {
        job->to[i] = (double)job->from[i];
    }
}

const double *kiln_float64_widen(struct kiln_float64 *f, const struct kiln_tensor *t) {
    struct widen_job job = {f->wide, f->weights + t->offset, t->cols};
    kiln_float64_rows(f->pool, t->rows, widen_row, &job);
    return f->wide;
}

const float *kiln_float64_vector(const struct kiln_float64 *f, enum kiln_role role, size_t layer) {
    const struct kiln_tensor *t = kiln_table_find(f->table, role, layer);
    return t ? f->weights + t->offset : NULL;
}

double *kiln_float64_gradient(const struct kiln_float64 *f, const struct kiln_tensor *t) {
    return f->gradients && t->offset >= f->table->trained
               ? f->gradients + kiln_trained_at(f->table, t->offset)
               : NULL;
}

/* A stage of a layer. */
static struct kiln_float64_values of_layer(const struct kiln_float64 *f, enum kiln_stage stage,
                                           size_t layer) {
    const struct kiln_dims *d = &f->table->dims;
    const struct kiln_float64_layer *l = &f->layers[layer];
    const size_t hk = d->heads * d->head_size, gk = d->kv_heads * d->head_size;
    const size_t qkv = kiln_float64_qkv(d), turned = kiln_float64_turned(d), t = f->seq;
    const double *out = layer + 1 < d->layers ? f->layers[layer + 1].x : f->x;
    const struct kiln_float64_values all[KILN_STAGES] = {
        [KILN_STAGE_ATTN_SQUARES] = {l->squares, t, 1, 1},
        [KILN_STAGE_ATTN_NORM] = {l->normed, t, d->dim, d->dim},
        [KILN_STAGE_QUERIES] = {l->qkv, t, hk, qkv},
        [KILN_STAGE_KEYS] = {l->qkv + hk, t, gk, qkv},
        [KILN_STAGE_VALUES] = {l->qkv + hk + gk, t, gk, qkv},
        [KILN_STAGE_TURNED_QUERIES] = {l->turned, t, hk, turned},
        [KILN_STAGE_TURNED_KEYS] = {l->turned + hk, t, gk, turned},
        [KILN_STAGE_SCORES] = {l->scores, t, d->heads, d->heads},
        [KILN_STAGE_ATTENTION] = {l->attention, t, hk, hk},
        [KILN_STAGE_ATTN_RESIDUAL] = {l->middle, t, d->dim, d->dim},
        [KILN_STAGE_FFN_SQUARES] = {l->squares2, t, 1, 1},
        [KILN_STAGE_FFN_NORM] = {l->normed2, t, d->dim, d->dim},
        [KILN_STAGE_GATE] = {l->gate, t, d->hidden, d->hidden},
        [KILN_STAGE_UP] = {l->up, t, d->hidden, d->hidden},
        [KILN_STAGE_PRODUCT] = {l->product, t, d->hidden, d->hidden},
        [KILN_STAGE_FFN_RESIDUAL] = {out, t, d->dim, d->dim},
    };
    return all[stage];
}

struct kiln_float64_values kiln_float64_stage(const struct kiln_float64 *f, enum kiln_stage stage,
                                              size_t layer) {
    const struct kiln_dims *d = &f->table->dims;
    const size_t t = f->seq;
    switch (stage) {
        case KILN_STAGE_EMBEDDING:
            return (struct kiln_float64_values){f->layers[0].x, t, d->dim, d->dim};
        case KILN_STAGE_FINAL_SQUARES:
            return (struct kiln_float64_values){f->squares, t, 1, 1};
        case KILN_STAGE_FINAL_NORM:
            return (struct kiln_float64_values){f->normed, t, d->dim, d->dim};
        case KILN_STAGE_LOGITS:
            return (struct kiln_float64_values){f->logits, t, d->vocab, d->vocab};
        case KILN_STAGE_LOSS:
            return (struct kiln_float64_values){f->losses, t, 1, 1};
        default:
            return of_layer(f, stage, layer);
    }
}

void kiln_float64_see(const struct kiln_float64 *f, enum kiln_stage first, enum kiln_stage last,
                      size_t layer) {
    for (enum kiln_stage stage = first; f->watch.see && stage <= last; stage++) {
        f->watch.see(f->watch.context, stage, layer, false, kiln_float64_stage(f, stage, layer));
    }
}

void kiln_float64_see_gradient(const struct kiln_float64 *f, enum kiln_stage stage, size_t layer,
                               const double *values, size_t width, size_t apart) {
    if (f->watch.see) {
        f->watch.see(f->watch.context, stage, layer, true,
                     (struct kiln_float64_values){values, f->seq, width, apart});
    }
}

double kiln_float64_flops(const struct kiln_table *table, size_t seq, bool backward) {
    const struct kiln_dims *d = &table->dims;
    const double t = (double)seq, hk = (double)(d->heads * d->head_size);
    double products = (double)(d->vocab * d->dim);
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *w = &table->tensors[i];
        const bool looked_up = w->role == KILN_EMBED || w->role == KILN_HEAD;
        products += w->rank == 2 && !looked_up ? (double)(w->rows * w->cols) : 0;
    }
    const double attention = 2 * t * t * hk * (double)d->layers; /* half of the pairs, twice */
    return (2 * t * products + attention) * (backward ? 3 : 1);
}

/* ---- pieces -----------------------------------------------------------------------------------
 */

/* u [T, r] = s x A^T, in the first half of f->u. */
static const double *adapter_input(struct kiln_float64 *f, const struct kiln_tensor *a,
                                   const double *x, size_t ldx) {
    const size_t r = a->rows;
    const double s = f->table->lora.alpha / (double)f->table->lora.rank;
    const struct kiln_float64_view right = {kiln_float64_widen(f, a), 1, a->cols};
    kiln_float64_product(f->pool, &f->scratch, f->seq, r, a->cols,
                         (struct kiln_float64_view){x, ldx, 1}, right, f->u, r, false);
    for (size_t i = 0; i < f->seq * r; i++) {
        f->u[i] *= s;
    }
    return f->u;
}

void kiln_float64_linear(struct kiln_float64 *f, const struct kiln_tensor *w, const float *bias,
                         const double *x, size_t ldx, double *y, size_t ldy, bool add) {
    const size_t t = f->seq, out = w->rows, in = w->cols;
    for (size_t i = 0; bias && i < t; i++) {
        for (size_t j = 0; j < out; j++) {
            y[i * ldy + j] = (add ? y[i * ldy + j] : 0) + (double)bias[j];
        }
    }
    const struct kiln_float64_view left = {x, ldx, 1};
    struct kiln_float64_view right = {kiln_float64_widen(f, w), 1, in};
    kiln_float64_product(f->pool, &f->scratch, t, out, in, left, right, y, ldy, add || bias);
    const struct kiln_tensor *a = kiln_lora_find(f->table, w, 0);
    if (a) {
        const struct kiln_tensor *b = kiln_lora_find(f->table, w, 1);
        const double *u = adapter_input(f, a, x, ldx);
        right = (struct kiln_float64_view){kiln_float64_widen(f, b), 1, b->cols};
        kiln_float64_product(f->pool, &f->scratch, t, out, b->cols,
                             (struct kiln_float64_view){u, b->cols, 1}, right, y, ldy, true);
    }
}

/* dw [out, in] += dy^T x. */
static void weight_gradient(struct kiln_float64 *f, size_t out, size_t in, const double *dy,
                            size_t ldy, const double *x, size_t ldx, double *dw) {
    kiln_float64_product(f->pool, &f->scratch, out, in, f->seq,
                         (struct kiln_float64_view){dy, 1, ldy},
                         (struct kiln_float64_view){x, ldx, 1}, dw, in, true);
}

static void adapter_bwd(struct kiln_float64 *f, const struct kiln_tensor *w, const double *x,
                        size_t ldx, const double *dy, size_t ldy, double *dx, size_t lddx) {
    const struct kiln_tensor *a = kiln_lora_find(f->table, w, 0);
    const struct kiln_tensor *b = kiln_lora_find(f->table, w, 1);
    const size_t r = a->rows, t = f->seq;
    const double s = f->table->lora.alpha / (double)f->table->lora.rank;
    double *du = f->u + t * r;
    const double *u = adapter_input(f, a, x, ldx);
    weight_gradient(f, b->rows, r, dy, ldy, u, r, kiln_float64_gradient(f, b));
    kiln_float64_product(f->pool, &f->scratch, t, r, b->rows,
                         (struct kiln_float64_view){dy, ldy, 1},
                         (struct kiln_float64_view){kiln_float64_widen(f, b), r, 1}, du, r, false);
    for (size_t i = 0; i < t * r; i++) {
        du[i] *= s;
    }
    weight_gradient(f, r, a->cols, du, r, x, ldx, kiln_float64_gradient(f, a));
    kiln_float64_product(f->pool, &f->scratch, t, a->cols, r, (struct kiln_float64_view){du, r, 1},
                         (struct kiln_float64_view){kiln_float64_widen(f, a), a->cols, 1}, dx, lddx,
                         true);
}

void kiln_float64_linear_bwd(struct kiln_float64 *f, const struct kiln_tensor *w,
                             const struct kiln_tensor *bias, const double *x, size_t ldx,
                             const double *dy, size_t ldy, double *dx, size_t lddx, bool add) {
    double *dw = kiln_float64_gradient(f, w);
    double *dbias = bias ? kiln_float64_gradient(f, bias) : NULL;
    kiln_float64_product(
        f->pool, &f->scratch, f->seq, w->cols, w->rows, (struct kiln_float64_view){dy, ldy, 1},
        (struct kiln_float64_view){kiln_float64_widen(f, w), w->cols, 1}, dx, lddx, add);
    if (dw) {
        weight_gradient(f, w->rows, w->cols, dy, ldy, x, ldx, dw);
    }
    for (size_t i = 0; dbias && i < f->seq; i++) {
        for (size_t j = 0; j < bias->cols; j++) {
            dbias[j] += dy[i * ldy + j];
        }
    }
    if (kiln_lora_find(f->table, w, 0)) {
        adapter_bwd(f, w, x, ldx, dy, ldy, dx, lddx);
    }
}

struct norm_job {
    const double *x;
    double *squares, *y;
    const float *w;
    size_t dim;
    double eps;
};

static void norm_row(void *context, size_t row) {
    const struct norm_job *job = context;
    const double *x = job->x + row * job->dim;
    double sum = 0;
    for (size_t i = 0; i < job->dim; i++) {
        sum += x[i] * x[i];
    }
    job->squares[row] = sum;
    const double rstd = 1 / sqrt(sum / (double)job->dim + job->eps);
    for (size_t i = 0; i < job->dim; i++) {
        job->y[row * job->dim + i] = x[i] * rstd * (double)job->w[i];
    }
}

/* y = norm(x), RMSNorm (Zhang and Sennrich 2019). */
static void norm(struct kiln_float64 *f, enum kiln_role role, size_t layer, const double *x,
                 double *squares, double *y) {
    const struct kiln_dims *d = &f->table->dims;
    struct norm_job job = {x,      squares,           y, kiln_float64_vector(f, role, layer),
                           d->dim, (double)d->rms_eps};
    kiln_float64_rows(f->pool, f->seq, norm_row, &job);
}

/* ---- forward ----------------------------------------------------------------------------------
 */

static const struct kiln_tensor *tensor(const struct kiln_float64 *f, enum kiln_role role,
                                        size_t layer) {
    return kiln_table_find(f->table, role, layer);
}

static void embed(struct kiln_float64 *f) {
    const size_t dim = f->table->dims.dim;
    const float *table = kiln_float64_vector(f, KILN_EMBED, KILN_NO_LAYER);
    for (size_t t = 0; t < f->seq; t++) {
        for (size_t i = 0; i < dim; i++) {
            f->layers[0].x[t * dim + i] = (double)table[f->sequence.tokens[t] * dim + i];
        }
    }
    kiln_float64_see(f, KILN_STAGE_EMBEDDING, KILN_STAGE_EMBEDDING, KILN_NO_LAYER);
}

/* x' = x + Wo attend(...) */
static void attention(struct kiln_float64 *f, size_t l) {
    const struct kiln_dims *d = &f->table->dims;
    struct kiln_float64_layer *k = &f->layers[l];
    const size_t hk = d->heads * d->head_size, gk = d->kv_heads * d->head_size;
    const size_t width = kiln_float64_qkv(d);
    norm(f, KILN_ATTN_NORM, l, k->x, k->squares, k->normed);
    kiln_float64_linear(f, tensor(f, KILN_WQ, l), kiln_float64_vector(f, KILN_BQ, l), k->normed,
                        d->dim, k->qkv, width, false);
    kiln_float64_linear(f, tensor(f, KILN_WK, l), kiln_float64_vector(f, KILN_BK, l), k->normed,
                        d->dim, k->qkv + hk, width, false);
    kiln_float64_linear(f, tensor(f, KILN_WV, l), kiln_float64_vector(f, KILN_BV, l), k->normed,
                        d->dim, k->qkv + hk + gk, width, false);
    kiln_float64_turn(f, l);
    kiln_float64_attend(f, l);
    memcpy(k->middle, k->x, f->seq * d->dim * sizeof *k->x);
    kiln_float64_linear(f, tensor(f, KILN_WO, l), NULL, k->attention, hk, k->middle, d->dim, true);
    kiln_float64_see(f, KILN_STAGE_ATTN_SQUARES, KILN_STAGE_ATTN_RESIDUAL, l);
}

static void silu_row(void *context, size_t row) {
    const struct kiln_float64_layer *k = context;
    const size_t i = row;
    k->product[i] = k->gate[i] / (1 + exp(-k->gate[i])) * k->up[i];
}

/* x" = x' + W2 (silu(W1 n) * (W3 n)); `out` is the next layer's input. */
static void feed_forward(struct kiln_float64 *f, size_t l, double *out) {
    const struct kiln_dims *d = &f->table->dims;
    struct kiln_float64_layer *k = &f->layers[l];
    norm(f, KILN_FFN_NORM, l, k->middle, k->squares2, k->normed2);
    kiln_float64_linear(f, tensor(f, KILN_W1, l), NULL, k->normed2, d->dim, k->gate, d->hidden,
                        false);
    kiln_float64_linear(f, tensor(f, KILN_W3, l), NULL, k->normed2, d->dim, k->up, d->hidden,
                        false);
    kiln_float64_rows(f->pool, f->seq * d->hidden, silu_row, k);
    memcpy(out, k->middle, f->seq * d->dim * sizeof *out);
    kiln_float64_linear(f, tensor(f, KILN_W2, l), NULL, k->product, d->hidden, out, d->dim, true);
    kiln_float64_see(f, KILN_STAGE_FFN_SQUARES, KILN_STAGE_FFN_RESIDUAL, l);
}

/* The loss of a token: ln sum exp of its logits less the target's. */
static void loss_row(void *context, size_t row) {
    struct kiln_float64 *f = context;
    const size_t vocab = f->table->dims.vocab;
    const double *logits = f->logits + row * vocab;
    const uint32_t target = f->sequence.targets[row];
    double most = logits[0], sum = 0;
    f->losses[row] = 0;
    if (target == KILN_NO_TARGET) {
        return;
    }
    for (size_t i = 1; i < vocab; i++) {
        most = logits[i] > most ? logits[i] : most;
    }
    for (size_t i = 0; i < vocab; i++) {
        sum += exp(logits[i] - most);
    }
    f->losses[row] = most + log(sum) - logits[target];
}

double kiln_float64_forward(struct kiln_float64 *f, const struct kiln_float64_sequence *sequence,
                            double *losses) {
    const struct kiln_dims *d = &f->table->dims;
    const struct kiln_tensor *head = tensor(f, d->tied ? KILN_EMBED : KILN_HEAD, KILN_NO_LAYER);
    double sum = 0;
    f->sequence = *sequence;
    embed(f);
    for (size_t l = 0; l < d->layers; l++) {
        attention(f, l);
        feed_forward(f, l, l + 1 < d->layers ? f->layers[l + 1].x : f->x);
    }
    norm(f, KILN_FINAL_NORM, KILN_NO_LAYER, f->x, f->squares, f->normed);
    kiln_float64_linear(f, head, NULL, f->normed, d->dim, f->logits, d->vocab, false);
    kiln_float64_rows(f->pool, f->seq, loss_row, f);
    kiln_float64_see(f, KILN_STAGE_FINAL_SQUARES, KILN_STAGE_LOSS, KILN_NO_LAYER);
    for (size_t t = 0; t < f->seq; t++) {
        losses[t] = f->losses[t];
        sum += f->losses[t];
    }
    return sum;
}

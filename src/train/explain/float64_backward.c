/* SPDX-License-Identifier: MIT
 *
 * float64_backward.c: a sequence back, in double precision.
 */
#include <math.h>
#include <string.h>

#include "kiln/text.h"
#include "train/explain/float64_int.h"

static const struct kiln_tensor *tensor(const struct kiln_float64 *f, enum kiln_role role,
                                        size_t layer) {
    return kiln_table_find(f->table, role, layer);
}

/* ---- pieces ------------------------------------------------------------------------------------
 */

struct norm_bwd_job {
    const double *x, *squares, *dy;
    double *dx;
    const float *w;
    size_t dim;
    double eps;
};

static double rstd_of(const struct norm_bwd_job *job, size_t row) {
    return 1 / sqrt(job->squares[row] / (double)job->dim + job->eps);
}

static void norm_bwd_row(void *context, size_t row) {
    const struct norm_bwd_job *job = context;
    const double *x = job->x + row * job->dim, *dy = job->dy + row * job->dim;
    const double rstd = rstd_of(job, row);
    double sum = 0;
    for (size_t i = 0; i < job->dim; i++) {
        sum += dy[i] * (double)job->w[i] * x[i];
    }
    sum *= rstd * rstd / (double)job->dim;
    for (size_t i = 0; i < job->dim; i++) {
        job->dx[row * job->dim + i] += rstd * (dy[i] * (double)job->w[i] - x[i] * sum);
    }
}

void kiln_float64_norm_bwd(struct kiln_float64 *f, const struct kiln_tensor *w, const double *x,
                           const double *squares, const double *dy, double *dx) {
    const struct kiln_dims *d = &f->table->dims;
    struct norm_bwd_job job = {x,      squares,           dy, dx, f->weights + w->offset,
                               d->dim, (double)d->rms_eps};
    double *dw = kiln_float64_gradient(f, w);
    kiln_float64_rows(f->pool, f->seq, norm_bwd_row, &job);
    for (size_t t = 0; dw && t < f->seq; t++) {
        for (size_t i = 0; i < d->dim; i++) {
            dw[i] += dy[t * d->dim + i] * x[t * d->dim + i] * rstd_of(&job, t);
        }
    }
}

/* ---- half-layers ------------------------------------------------------------------------------
 */

static void feed_forward_element(void *context, size_t i) {
    const struct kiln_float64 *f = ((void **)context)[0];
    const struct kiln_float64_layer *k = ((void **)context)[1];
    const double gate = k->gate[i], sigmoid = 1 / (1 + exp(-gate));
    f->dup[i] = f->dproduct[i] * gate * sigmoid;
    f->dgate[i] = f->dproduct[i] * k->up[i] * sigmoid * (1 + gate * (1 - sigmoid));
}

/* f->dx: the gradient of what the layer gave, becomes that of what feed-forward read. */
static void feed_forward_bwd(struct kiln_float64 *f, size_t l) {
    const struct kiln_dims *d = &f->table->dims;
    struct kiln_float64_layer *k = &f->layers[l];
    void *context[2] = {f, k};
    kiln_float64_see_gradient(f, KILN_STAGE_FFN_RESIDUAL, l, f->dx, d->dim, d->dim);
    kiln_float64_linear_bwd(f, tensor(f, KILN_W2, l), NULL, k->product, d->hidden, f->dx, d->dim,
                            f->dproduct, d->hidden, false);
    kiln_float64_see_gradient(f, KILN_STAGE_PRODUCT, l, f->dproduct, d->hidden, d->hidden);
    kiln_float64_rows(f->pool, f->seq * d->hidden, feed_forward_element, context);
    kiln_float64_see_gradient(f, KILN_STAGE_UP, l, f->dup, d->hidden, d->hidden);
    kiln_float64_see_gradient(f, KILN_STAGE_GATE, l, f->dgate, d->hidden, d->hidden);
    kiln_float64_linear_bwd(f, tensor(f, KILN_W3, l), NULL, k->normed2, d->dim, f->dup, d->hidden,
                            f->dnormed, d->dim, false);
    kiln_float64_linear_bwd(f, tensor(f, KILN_W1, l), NULL, k->normed2, d->dim, f->dgate, d->hidden,
                            f->dnormed, d->dim, true);
    kiln_float64_see_gradient(f, KILN_STAGE_FFN_NORM, l, f->dnormed, d->dim, d->dim);
    kiln_float64_norm_bwd(f, tensor(f, KILN_FFN_NORM, l), k->middle, k->squares2, f->dnormed,
                          f->dx);
}

/* The three products that read the norm. */
static void qkv_bwd(struct kiln_float64 *f, size_t l) {
    static const struct {
        enum kiln_stage stage;
        enum kiln_role w, bias;
    } products[] = {{KILN_STAGE_VALUES, KILN_WV, KILN_BV},
                    {KILN_STAGE_KEYS, KILN_WK, KILN_BK},
                    {KILN_STAGE_QUERIES, KILN_WQ, KILN_BQ}};
    const struct kiln_dims *d = &f->table->dims;
    const size_t width = kiln_float64_qkv(d), gk = d->kv_heads * d->head_size;
    size_t at = width;
    for (size_t i = 0; i < 3; i++) {
        const struct kiln_tensor *w = tensor(f, products[i].w, l);
        const struct kiln_tensor *bias = tensor(f, products[i].bias, l);
        at -= i < 2 ? gk : w->rows;
        kiln_float64_see_gradient(f, products[i].stage, l, f->dqkv + at, w->rows, width);
        kiln_float64_linear_bwd(f, w, bias, f->layers[l].normed, d->dim, f->dqkv + at, width,
                                f->dnormed, d->dim, i > 0);
    }
}

static void attention_bwd(struct kiln_float64 *f, size_t l) {
    const struct kiln_dims *d = &f->table->dims;
    struct kiln_float64_layer *k = &f->layers[l];
    const size_t hk = d->heads * d->head_size;
    kiln_float64_see_gradient(f, KILN_STAGE_ATTN_RESIDUAL, l, f->dx, d->dim, d->dim);
    kiln_float64_linear_bwd(f, tensor(f, KILN_WO, l), NULL, k->attention, hk, f->dx, d->dim,
                            f->dattention, hk, false);
    kiln_float64_see_gradient(f, KILN_STAGE_ATTENTION, l, f->dattention, hk, hk);
    kiln_float64_attend_bwd(f, l);
    kiln_float64_turn_bwd(f, l);
    qkv_bwd(f, l);
    kiln_float64_see_gradient(f, KILN_STAGE_ATTN_NORM, l, f->dnormed, d->dim, d->dim);
    kiln_float64_norm_bwd(f, tensor(f, KILN_ATTN_NORM, l), k->x, k->squares, f->dnormed, f->dx);
}

/* ---- the ends ---------------------------------------------------------------------------------
 */

struct loss_bwd_job {
    struct kiln_float64 *f;
    double scale;
};

/* dlogits = (softmax - 1 at the target) * scale */
static void loss_bwd_row(void *context, size_t row) {
    const struct loss_bwd_job *job = context;
    const struct kiln_float64 *f = job->f;
    const size_t vocab = f->table->dims.vocab;
    const double *logits = f->logits + row * vocab;
    double *to = f->dlogits + row * vocab;
    const uint32_t target = f->sequence.targets[row];
    if (target == KILN_NO_TARGET) {
        memset(to, 0, vocab * sizeof *to);
        return;
    }
    const double lse = f->losses[row] + logits[target];
    for (size_t i = 0; i < vocab; i++) {
        to[i] = exp(logits[i] - lse) * job->scale;
    }
    to[target] -= job->scale;
}

static void head_bwd(struct kiln_float64 *f, double scale) {
    const struct kiln_dims *d = &f->table->dims;
    const struct kiln_tensor *head = tensor(f, d->tied ? KILN_EMBED : KILN_HEAD, KILN_NO_LAYER);
    struct loss_bwd_job job = {f, scale};
    kiln_float64_rows(f->pool, f->seq, loss_bwd_row, &job);
    kiln_float64_see_gradient(f, KILN_STAGE_LOGITS, KILN_NO_LAYER, f->dlogits, d->vocab, d->vocab);
    kiln_float64_linear_bwd(f, head, NULL, f->normed, d->dim, f->dlogits, d->vocab, f->dnormed,
                            d->dim, false);
    kiln_float64_see_gradient(f, KILN_STAGE_FINAL_NORM, KILN_NO_LAYER, f->dnormed, d->dim, d->dim);
    memset(f->dx, 0, f->seq * d->dim * sizeof *f->dx);
    kiln_float64_norm_bwd(f, tensor(f, KILN_FINAL_NORM, KILN_NO_LAYER), f->x, f->squares,
                          f->dnormed, f->dx);
}

static void embed_bwd(struct kiln_float64 *f) {
    const size_t dim = f->table->dims.dim;
    double *dw = kiln_float64_gradient(f, tensor(f, KILN_EMBED, KILN_NO_LAYER));
    kiln_float64_see_gradient(f, KILN_STAGE_EMBEDDING, KILN_NO_LAYER, f->dx, dim, dim);
    for (size_t t = 0; dw && t < f->seq; t++) {
        for (size_t i = 0; i < dim; i++) {
            dw[f->sequence.tokens[t] * dim + i] += f->dx[t * dim + i];
        }
    }
}

void kiln_float64_backward(struct kiln_float64 *f, double scale) {
    head_bwd(f, scale);
    for (size_t l = f->table->dims.layers; l-- > 0;) {
        feed_forward_bwd(f, l);
        attention_bwd(f, l);
    }
    embed_bwd(f);
}

/* SPDX-License-Identifier: MIT
 *
 * float64_attention.c: heads in double precision: their norms, RoPE, attention; forward and back.
 */
#include <math.h>

#include "train/explain/float64_int.h"

static double dot(const double *a, const double *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* ---- norms of heads, and RoPE -----------------------------------------------------------------
 */

struct turn_job {
    struct kiln_float64 *f;
    struct kiln_float64_layer *kept;
    const float *w[2]; /* of queries, of keys; NULL: heads have no norm */
};

static double rstd_of(const double *x, const struct kiln_dims *d) {
    return 1 / sqrt(dot(x, x, d->head_size) / (double)d->head_size + (double)d->rms_eps);
}

/* Pair i of a head by the angle of its position, or back by it: the matrix transposed. */
static void turn_head(double *head, const double *angles, size_t size, bool back) {
    for (size_t i = 0; i < size; i += 2) {
        const double c = angles[i], s = back ? -angles[i + 1] : angles[i + 1];
        const double a = head[i], b = head[i + 1];
        head[i] = a * c - b * s;
        head[i + 1] = a * s + b * c;
    }
}

static void turn_row(void *context, size_t t) {
    const struct turn_job *job = context;
    const struct kiln_dims *d = &job->f->table->dims;
    const size_t size = d->head_size;
    for (size_t h = 0; h < d->heads + d->kv_heads; h++) {
        const double *from = job->kept->qkv + t * kiln_float64_qkv(d) + h * size;
        double *to = job->kept->turned + t * kiln_float64_turned(d) + h * size;
        const float *w = job->w[h >= d->heads];
        const double rstd = w ? rstd_of(from, d) : 1;
        for (size_t i = 0; i < size; i++) {
            to[i] = w ? from[i] * rstd * (double)w[i] : from[i];
        }
        turn_head(to, job->f->angles + t * size, size, false);
    }
}

void kiln_float64_turn(struct kiln_float64 *f, size_t layer) {
    struct turn_job job = {
        f,
        &f->layers[layer],
        {kiln_float64_vector(f, KILN_Q_NORM, layer), kiln_float64_vector(f, KILN_K_NORM, layer)}};
    kiln_float64_rows(f->pool, f->seq, turn_row, &job);
}

/* dx = gradient of a head through its norm, from dy; dw is added to. */
static void head_norm_bwd(const struct kiln_dims *d, const double *x, const float *w,
                          const double *dy, double *dx, double *dw) {
    const double rstd = rstd_of(x, d);
    double sum = 0;
    for (size_t i = 0; i < d->head_size; i++) {
        sum += dy[i] * (double)w[i] * x[i];
        if (dw) {
            dw[i] += dy[i] * x[i] * rstd;
        }
    }
    sum *= rstd * rstd / (double)d->head_size;
    for (size_t i = 0; i < d->head_size; i++) {
        dx[i] = rstd * (dy[i] * (double)w[i] - x[i] * sum);
    }
}

/* One after another: the gradients of the norms' weights are sums over tokens and heads. */
void kiln_float64_turn_bwd(struct kiln_float64 *f, size_t layer) {
    const struct kiln_dims *d = &f->table->dims;
    const size_t size = d->head_size;
    for (size_t t = 0; t < f->seq; t++) {
        for (size_t h = 0; h < d->heads + d->kv_heads; h++) {
            const enum kiln_role role = h < d->heads ? KILN_Q_NORM : KILN_K_NORM;
            const struct kiln_tensor *w = kiln_table_find(f->table, role, layer);
            const double *x = f->layers[layer].qkv + t * kiln_float64_qkv(d) + h * size;
            double *dy = f->dturned + t * kiln_float64_turned(d) + h * size;
            double *dx = f->dqkv + t * kiln_float64_qkv(d) + h * size;
            turn_head(dy, f->angles + t * size, size, true);
            for (size_t i = 0; !w && i < size; i++) {
                dx[i] = dy[i];
            }
            if (w) {
                head_norm_bwd(d, x, f->weights + w->offset, dy, dx, kiln_float64_gradient(f, w));
            }
        }
    }
}

/* ---- attention --------------------------------------------------------------------------------
 */

struct attend_job {
    struct kiln_float64 *f;
    struct kiln_float64_layer *kept;
    double scale; /* of scores: K^(-1/2) */
};

static struct attend_job attend_job(struct kiln_float64 *f, size_t layer) {
    return (struct attend_job){f, &f->layers[layer], 1 / sqrt((double)f->table->dims.head_size)};
}

static double *row_of(const struct kiln_float64 *f, size_t thread, size_t which) {
    char *scratch = f->scratch.of[thread];
    return (double *)(void *)(scratch + KILN_FLOAT64_SCRATCH) + which * f->seq;
}

static size_t start_of(const struct kiln_float64 *f, size_t t) {
    return f->sequence.starts ? f->sequence.starts[t] : 0;
}

/* The head of the keys and values that query head h reads. */
static size_t shared(const struct kiln_dims *d, size_t h) { return h / (d->heads / d->kv_heads); }

static const double *query(const struct attend_job *job, size_t t, size_t h) {
    const struct kiln_dims *d = &job->f->table->dims;
    return job->kept->turned + t * kiln_float64_turned(d) + h * d->head_size;
}
static const double *key(const struct attend_job *job, size_t t, size_t g) {
    return query(job, t, job->f->table->dims.heads + g);
}
static const double *value(const struct attend_job *job, size_t t, size_t g) {
    const struct kiln_dims *d = &job->f->table->dims;
    return job->kept->qkv + t * kiln_float64_qkv(d) + (d->heads + d->kv_heads + g) * d->head_size;
}

/* Scores of token t with those before it in its document, [start..t]; the one that is furthest from
 * 0 is kept, or one that is no number. */
static void score(const struct attend_job *job, size_t t, size_t h, double *to) {
    const struct kiln_dims *d = &job->f->table->dims;
    double *kept = &job->kept->scores[t * d->heads + h];
    *kept = 0;
    for (size_t j = start_of(job->f, t); j <= t; j++) {
        to[j] = dot(query(job, t, h), key(job, j, shared(d, h)), d->head_size) * job->scale;
        *kept = isfinite(*kept) && !(fabs(to[j]) <= fabs(*kept)) ? to[j] : *kept;
    }
}

/* Of a head, all tokens. */
static void attend_head(void *context, size_t h, size_t thread) {
    const struct attend_job *job = context;
    const struct kiln_float64 *f = job->f;
    const struct kiln_dims *d = &f->table->dims;
    double *p = row_of(f, thread, 0);
    for (size_t t = 0; t < f->seq; t++) {
        const size_t start = start_of(f, t);
        double *out = job->kept->attention + (t * d->heads + h) * d->head_size;
        double sum = 0;
        score(job, t, h, p);
        double most = p[start];
        for (size_t j = start; j <= t; j++) {
            most = p[j] > most ? p[j] : most;
        }
        size_t seen = start;
        do { /* a token sees itself at least: sum is 1 or more */
            p[seen] = exp(p[seen] - most);
            sum += p[seen];
        } while (++seen <= t);
        job->kept->lse[t * d->heads + h] = most + log(sum);
        for (size_t i = 0; i < d->head_size; i++) {
            out[i] = 0;
        }
        for (size_t j = start; j <= t; j++) {
            const double *v = value(job, j, shared(d, h));
            for (size_t i = 0; i < d->head_size; i++) {
                out[i] += p[j] / sum * v[i];
            }
        }
    }
}

void kiln_float64_attend(struct kiln_float64 *f, size_t layer) {
    struct attend_job job = attend_job(f, layer);
    kiln_pool_run(f->pool, f->table->dims.heads, attend_head, &job);
}

/* Of one token and head: dq, and what is added to dk and dv of those it read.
 *   p = exp(s - lse)   dp_j = dout v_j   ds = p (dp - sum_j p_j dp_j)   dq = sum ds k   dk += ds q
 */
static void attend_token_bwd(const struct attend_job *job, size_t t, size_t h, double *p,
                             double *dp) {
    struct kiln_float64 *f = job->f;
    const struct kiln_dims *d = &f->table->dims;
    const size_t size = d->head_size, g = shared(d, h), turned = kiln_float64_turned(d);
    const size_t values = (d->heads + d->kv_heads + g) * size, start = start_of(f, t);
    const double *dout = f->dattention + (t * d->heads + h) * size, *q = query(job, t, h);
    double *dq = f->dturned + t * turned + h * size, sum = 0;
    const double kept = job->kept->scores[t * d->heads + h];
    score(job, t, h, p);
    job->kept->scores[t * d->heads + h] = kept;
    for (size_t j = start; j <= t; j++) {
        p[j] = exp(p[j] - job->kept->lse[t * d->heads + h]);
        dp[j] = dot(dout, value(job, j, g), size);
        sum += p[j] * dp[j];
    }
    for (size_t j = start; j <= t; j++) {
        const double ds = p[j] * (dp[j] - sum) * job->scale, *k = key(job, j, g);
        double *dk = f->dturned + j * turned + (d->heads + g) * size;
        double *dv = f->dqkv + j * kiln_float64_qkv(d) + values;
        for (size_t i = 0; i < size; i++) {
            dq[i] += ds * k[i];
            dk[i] += ds * q[i];
            dv[i] += p[j] * dout[i];
        }
    }
}

/* A task is a key-value head and all query heads that share it. */
static void attend_bwd(void *context, size_t g, size_t thread) {
    const struct attend_job *job = context;
    const struct kiln_dims *d = &job->f->table->dims;
    const size_t group = d->heads / d->kv_heads;
    for (size_t h = g * group; h < (g + 1) * group; h++) {
        for (size_t t = 0; t < job->f->seq; t++) {
            attend_token_bwd(job, t, h, row_of(job->f, thread, 0), row_of(job->f, thread, 1));
        }
    }
}

void kiln_float64_attend_bwd(struct kiln_float64 *f, size_t layer) {
    const struct kiln_dims *d = &f->table->dims;
    struct attend_job job = attend_job(f, layer);
    for (size_t i = 0; i < f->seq * kiln_float64_turned(d); i++) {
        f->dturned[i] = 0;
    }
    for (size_t i = 0; i < f->seq * kiln_float64_qkv(d); i++) {
        f->dqkv[i] = 0;
    }
    kiln_pool_run(f->pool, d->kv_heads, attend_bwd, &job);
}

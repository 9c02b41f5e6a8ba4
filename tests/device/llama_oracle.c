/* SPDX-License-Identifier: MIT */
#include "device/llama_oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/half.h"
#include "kiln_test.h"

double *oracle_memory(size_t n) {
    double *out = kiln_alloc(n, sizeof *out);
    CHECK(out != NULL);
    return out;
}

/* -1 .. 1 */
static double next(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    return (double)(*state >> 8) / (1 << 23) - 1.0;
}

double *oracle_random(size_t n, unsigned seed) {
    double *out = oracle_memory(n);
    unsigned state = seed * 7919u + 1u;
    for (size_t i = 0; i < n; i++) {
        out[i] = (double)kiln_f16_to_f32(kiln_f64_to_f16(1.7 * next(&state)));
    }
    return out;
}

void oracle_open(struct oracle *o, size_t dim, size_t heads, size_t kv_heads, size_t hidden,
                 size_t seq) {
    oracle_open_dims(
        o, &(struct kiln_dims){
               .dim = dim, .hidden = hidden, .heads = heads, .kv_heads = kv_heads, .seq = seq});
}

/* Norms are near 1, biases near 0. */
static double centre(const struct kiln_tensor *t) {
    return t->role == KILN_BQ || t->role == KILN_BK || t->role == KILN_BV ? 0.0 : 1.0;
}

void oracle_open_dims(struct oracle *o, const struct kiln_dims *dims) {
    oracle_open_lora(o, dims, &(struct kiln_lora){.rank = 0});
}

void oracle_open_lora(struct oracle *o, const struct kiln_dims *dims,
                      const struct kiln_lora *lora) {
    struct kiln_err err;
    memset(o, 0, sizeof *o);
    o->d = *dims;
    o->d.layers = 2;
    o->d.vocab = 37;
    o->d.rms_eps = 1e-5f;
    o->d.rope_theta = 500.0f;
    o->seq = dims->seq;
    o->mode.seq = dims->seq;
    o->mode.lora = *lora;
    o->layer = 1;
    CHECK_OK(kiln_dims_check(&o->d, &err), &err);
    CHECK_OK(kiln_table_create_lora(&o->d, lora, &o->table, &err), &err);
    o->weights = kiln_alloc(o->table->size, sizeof *o->weights);
    CHECK(o->weights != NULL);
    unsigned state = 99;
    for (size_t i = 0; i < o->table->n_tensors; i++) {
        const struct kiln_tensor *t = &o->table->tensors[i];
        for (size_t e = 0; e < t->rows * t->cols; e++) {
            double w = next(&state);
            o->weights[t->offset + e] =
                (float)(t->rank == 1 ? centre(t) + 0.5 * w : 1.7 * w / sqrt((double)t->cols));
        }
    }
}

void oracle_close(struct oracle *o) {
    kiln_table_destroy(o->table);
    kiln_free(o->weights);
}

static const struct kiln_tensor *find(const struct oracle *o, enum kiln_role role) {
    bool global = role == KILN_HEAD || role == KILN_FINAL_NORM;
    return kiln_table_find(o->table, role, global ? KILN_NO_LAYER : o->layer);
}

const float *oracle_weight(const struct oracle *o, enum kiln_role role) {
    return o->weights + find(o, role)->offset;
}

/* Element r of the bias of a matrix; 0: it has none. */
static double bias_at(const struct oracle *o, enum kiln_role role, size_t r) {
    const bool q = role == KILN_WQ, k = role == KILN_WK, v = role == KILN_WV;
    if (!o->d.qkv_bias || !(q || k || v)) {
        return 0;
    }
    return (double)oracle_weight(o, q ? KILN_BQ : k ? KILN_BK : KILN_BV)[r];
}

/* y += alpha/r B A x of one token. */
static void add_adapter(const struct oracle *o, const struct kiln_tensor *w, const double *x,
                        double *y) {
    const struct kiln_tensor *a = kiln_lora_find(o->table, w, 0);
    const struct kiln_tensor *b = kiln_lora_find(o->table, w, 1);
    for (size_t k = 0; a && k < a->rows; k++) {
        double u = 0;
        for (size_t c = 0; c < a->cols; c++) {
            u += (double)o->weights[a->offset + k * a->cols + c] * x[c];
        }
        u *= o->mode.lora.alpha / (double)a->rows;
        for (size_t r = 0; r < b->rows; r++) {
            y[r] += (double)o->weights[b->offset + r * b->cols + k] * u;
        }
    }
}

void oracle_linear(const struct oracle *o, enum kiln_role role, const double *x, double *y) {
    const struct kiln_tensor *w = find(o, role);
    for (size_t t = 0; t < o->seq; t++) {
        for (size_t r = 0; r < w->rows; r++) {
            double sum = bias_at(o, role, r);
            for (size_t c = 0; c < w->cols; c++) {
                sum += (double)o->weights[w->offset + r * w->cols + c] * x[t * w->cols + c];
            }
            y[t * w->rows + r] = sum;
        }
        add_adapter(o, w, x + t * w->cols, y + t * w->rows);
    }
}

double oracle_dot(const double *g, const double *f, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += g[i] * f[i];
    }
    return sum;
}

void oracle_norm(const struct oracle *o, enum kiln_role role, const double *x, double *y) {
    size_t d = o->d.dim;
    const float *w = oracle_weight(o, role);
    for (size_t t = 0; t < o->seq; t++) {
        double mean = oracle_dot(x + t * d, x + t * d, d) / (double)d;
        double rms = sqrt(mean + (double)o->d.rms_eps);
        for (size_t i = 0; i < d; i++) {
            y[t * d + i] = x[t * d + i] / rms * (double)w[i];
        }
    }
}

void oracle_head_norm(const struct oracle *o, enum kiln_role role, double *x, size_t heads) {
    const size_t k = o->d.head_size;
    const float *w = o->d.qk_norm ? oracle_weight(o, role) : NULL;
    for (size_t h = 0; w && h < o->seq * heads; h++) {
        double *head = x + h * k;
        const double rms = sqrt(oracle_dot(head, head, k) / (double)k + (double)o->d.rms_eps);
        for (size_t i = 0; i < k; i++) {
            head[i] = head[i] / rms * (double)w[i];
        }
    }
}

/* Wave lengths between original_seq/high and original_seq/low are blended (Llama 3.1). */
static double llama3_frequency(const struct kiln_rope *r, double plain) {
    const double turns = (double)r->original_seq * plain / 6.283185307179586;
    const double low = (double)r->low_freq_factor, high = (double)r->high_freq_factor;
    const double smooth = fmin(1, fmax(0, (turns - low) / (high - low)));
    return (1 - smooth) * plain / (double)r->factor + smooth * plain;
}

/* Pair whose wave turns so often within the original length (Peng et al. 2023, 3.2). */
static double yarn_pair(const struct kiln_dims *d, double turns) {
    return (double)d->head_size * log((double)d->rope.original_seq / (turns * 6.283185307179586)) /
           (2 * log((double)d->rope_theta));
}

static double yarn_frequency(const struct kiln_dims *d, size_t i, double plain) {
    const double first = fmax(0, floor(yarn_pair(d, (double)d->rope.beta_fast)));
    double last = fmin((double)d->head_size - 1, ceil(yarn_pair(d, (double)d->rope.beta_slow)));
    last = last == first ? last + 0.001 : last;
    const double ramp = fmin(1, fmax(0, ((double)i - first) / (last - first)));
    return ramp * plain / (double)d->rope.factor + (1 - ramp) * plain;
}

double oracle_frequency(const struct kiln_dims *d, size_t i) {
    const double plain = pow((double)d->rope_theta, -2.0 * (double)i / (double)d->head_size);
    switch (d->rope.kind) {
        case KILN_ROPE_LINEAR:
            return plain / (double)d->rope.factor;
        case KILN_ROPE_LLAMA3:
            return llama3_frequency(&d->rope, plain);
        case KILN_ROPE_YARN:
            return yarn_frequency(d, i, plain);
        default:
            return plain;
    }
}

void oracle_rope(const struct oracle *o, double *x, size_t heads) {
    size_t k = o->d.head_size;
    const double size = o->d.rope.kind == KILN_ROPE_YARN ? (double)o->d.rope.attention_factor : 1.0;
    for (size_t t = 0; t < o->seq; t++) {
        for (size_t h = 0; h < heads; h++) {
            for (size_t i = 0; i < k; i += 2) {
                double *pair = x + (t * heads + h) * k + i;
                double angle = (double)t * oracle_frequency(&o->d, i / 2);
                double a = size * pair[0], b = size * pair[1];
                pair[0] = a * cos(angle) - b * sin(angle);
                pair[1] = a * sin(angle) + b * cos(angle);
            }
        }
    }
}

void oracle_scores(const struct oracle *o, const double *q, const double *k, double *p) {
    size_t T = o->seq, H = o->d.heads, G = o->d.kv_heads, K = o->d.head_size;
    for (size_t h = 0; h < H; h++) {
        size_t g = h / (H / G);
        for (size_t t = 0; t < T; t++) {
            double *row = p + (h * T + t) * T, sum = 0;
            const size_t first = o->starts ? o->starts[t] : 0;
            for (size_t s = 0; s < T; s++) {
                double score = oracle_dot(q + (t * H + h) * K, k + (s * G + g) * K, K);
                row[s] = s <= t && s >= first ? exp(score / sqrt((double)K)) : 0;
                sum += row[s];
            }
            for (size_t s = 0; s < T; s++) {
                row[s] /= sum;
            }
        }
    }
}

void oracle_mix(const struct oracle *o, const double *p, const double *v, double *att) {
    size_t T = o->seq, H = o->d.heads, G = o->d.kv_heads, K = o->d.head_size;
    memset(att, 0, T * H * K * sizeof *att);
    for (size_t h = 0; h < H; h++) {
        for (size_t t = 0; t < T; t++) {
            for (size_t s = 0; s < T; s++) {
                for (size_t i = 0; i < K; i++) {
                    att[(t * H + h) * K + i] +=
                        p[(h * T + t) * T + s] * v[(s * G + h / (H / G)) * K + i];
                }
            }
        }
    }
}

void oracle_gate(const struct oracle *o, const double *h1, const double *h3, double *gate) {
    for (size_t i = 0; i < o->seq * o->d.hidden; i++) {
        gate[i] = h1[i] / (1 + exp(-h1[i])) * h3[i];
    }
}

void oracle_gradient(oracle_fn *f, void *context, double *x, size_t n, double *out) {
    for (size_t i = 0; i < n; i++) {
        double at = x[i], step = 1e-4 * fmax(1, fabs(at));
        x[i] = at + step;
        double above = f(context);
        x[i] = at - step;
        out[i] = (above - f(context)) / (2 * step);
        x[i] = at;
    }
}

/* SPDX-License-Identifier: MIT
 *
 * The end of the model beside a Neural Engine (src/device/host/host.h): on the host alone it has
 * the bits of the cpu device; from a device's logits and probabilities it is its definition in
 * double.
 */
#include <math.h>
#include <string.h>

#include "device/host_lab.h"
#include "kiln/text.h"

/* The gradients that the end of the model has. */
static const struct kiln_tensor *final_norm(const struct host_bench *x) {
    return kiln_table_find(x->table, KILN_FINAL_NORM, KILN_NO_LAYER);
}
static const struct kiln_matrix *classifier(const struct host_bench *x) {
    return &x->table->matrices[x->table->n_matrices - 1];
}

/* ---- on the host alone --------------------------------------------------------------------- */

static struct kiln_device *open_cpu_of(const struct host_bench *x, struct kiln_micro_batch shape,
                                       enum kiln_precision precision, float *gradients) {
    struct kiln_device *cpu;
    struct kiln_device_options options = {.shape = shape, .precision = precision, .training = true};
    const struct kiln_weights flat = kiln_weights_flat(x->table, x->weights);
    CHECK_OK(kiln_device_open(x->table, x->pool, &flat, &options, &cpu, NULL), NULL);
    cpu->gradients = (struct kiln_gradients){.all = gradients};
    return cpu;
}

static struct kiln_device *open_cpu(const struct host_bench *x, float *gradients) {
    return open_cpu_of(x, (struct kiln_micro_batch){x->b, x->t}, KILN_PRECISION_FP32, gradients);
}

static void check_like_cpu(struct host_bench *x) {
    float *in = host_residual(x, x->b, 1.0F), *rows = lab_memory(x->n * x->d, sizeof *rows, 0);
    float *dx = lab_memory(x->b * x->d * x->w, sizeof *dx, 0);
    float *want = lab_memory(x->n * x->d, sizeof *want, 0);
    float *gradients = lab_memory(x->table->size, sizeof *gradients, 0);
    struct kiln_device *cpu = open_cpu(x, gradients);
    kiln_host_export(&x->host, in, rows);
    for (int round = 0; round < 2; round++) { /* the first writes over NaN, the second adds */
        double loss, want_loss, loss_alone;
        x->gradients.add = cpu->gradients.add = round == 1;
        CHECK_OK(cpu->ops->head(cpu, rows, x->targets, 0.25F, want, &want_loss, NULL), NULL);
        kiln_host_head(&x->host, in, x->targets, 0.25F, &x->gradients, dx, &loss);
        kiln_host_head(&x->host, in, x->targets, 0.25F, &x->gradients, NULL, &loss_alone);
        CHECK_CLOSE(loss, want_loss, 0.0);
        CHECK_CLOSE(loss_alone, loss, 0.0);
        host_check_padding(x, dx, x->b * x->d);
        kiln_host_export(&x->host, dx, rows);
        CHECK_BYTES(rows, want, x->n * x->d * sizeof *rows);
        CHECK_BYTES(x->all, gradients, x->table->size * sizeof *gradients);
        kiln_host_export(&x->host, in, rows);
    }
    kiln_device_close(cpu);
}
TEST(the_end_of_the_model_has_the_bits_of_the_cpu_device) { host_on_all(check_like_cpu, false); }

/* ---- targets that count nowhere -------------------------------------------------------------- */

/* Some of every block of tokens, a whole block of the longest sequence, the first and the last. */
static bool is_masked(const struct host_bench *x, size_t i) {
    const size_t t = i % x->t;
    return i % 5 == 0 || i % 7 == 2 || (t >= 64 && t < 210) || i == x->n - 1;
}

static void mask(struct host_bench *x) {
    for (size_t i = 0; i < x->n; i++) {
        x->targets[i] = is_masked(x, i) ? KILN_NO_TARGET : x->targets[i];
    }
}

static void check_masked_like_cpu(struct host_bench *x) {
    mask(x);
    check_like_cpu(x);
}
TEST(with_masked_targets_it_has_the_bits_of_the_cpu_device) {
    host_on_all(check_masked_like_cpu, false);
}

/* Rows, targets and gradients of so many tokens, in a micro-batch of one sequence. */
struct batch {
    size_t n;
    float *rows, *dx, *gradients;
    uint32_t *targets;
    double loss;
};

static struct batch batch_of(const struct host_bench *x, size_t n) {
    return (struct batch){.n = n,
                          .rows = lab_memory(n * x->d, sizeof(float), 0),
                          .dx = lab_memory(n * x->d, sizeof(float), 0),
                          .gradients = lab_memory(x->table->size, sizeof(float), 0),
                          .targets = lab_memory(n, sizeof(uint32_t), 0)};
}

static void run_batch(const struct host_bench *x, enum kiln_precision precision, struct batch *b) {
    double alone;
    struct kiln_device *cpu =
        open_cpu_of(x, (struct kiln_micro_batch){1, b->n}, precision, b->gradients);
    CHECK_OK(cpu->ops->head(cpu, b->rows, b->targets, 0.25F, b->dx, &b->loss, NULL), NULL);
    CHECK_OK(cpu->ops->head(cpu, b->rows, b->targets, 0.25F, NULL, &alone, NULL), NULL);
    CHECK_CLOSE(alone, b->loss, 0.0);
    kiln_device_close(cpu);
}

/* The tokens that count, without the others. */
static struct batch without_masked(const struct host_bench *x, const struct batch *all) {
    size_t n = 0;
    for (size_t i = 0; i < all->n; i++) {
        n += all->targets[i] != KILN_NO_TARGET;
    }
    struct batch kept = batch_of(x, n);
    for (size_t i = 0, to = 0; i < all->n; i++) {
        if (all->targets[i] != KILN_NO_TARGET) {
            memcpy(kept.rows + to * x->d, all->rows + i * x->d, x->d * sizeof *kept.rows);
            kept.targets[to++] = all->targets[i];
        }
    }
    return kept;
}

static void check_gradient(const struct batch *all, const struct batch *kept, size_t offset,
                           size_t n) {
    CHECK_NEAR_NORM(all->gradients + offset, kept->gradients + offset, n, 1e-6);
}

static void check_without(struct host_bench *x, enum kiln_precision precision) {
    struct batch all = batch_of(x, x->n);
    float *rows = lab_floats(x->n * x->d, 0, 1.0F);
    mask(x);
    memcpy(all.rows, rows, x->n * x->d * sizeof *rows);
    memcpy(all.targets, x->targets, x->n * sizeof *x->targets);
    struct batch kept = without_masked(x, &all);
    CHECK(kept.n > 0 && kept.n < all.n);
    run_batch(x, precision, &all);
    run_batch(x, precision, &kept);
    CHECK_CLOSE(all.loss, kept.loss, 1e-9 * kept.loss);
    for (size_t i = 0, from = 0; i < x->n; i++) {
        const float *dx = all.dx + i * x->d;
        if (all.targets[i] != KILN_NO_TARGET) {
            CHECK_NEAR_NORM(dx, kept.dx + from++ * x->d, x->d, 1e-6);
            continue;
        }
        for (size_t c = 0; c < x->d; c++) {
            CHECK_CLOSE(dx[c], 0.0, 0.0);
        }
    }
    check_gradient(&all, &kept, classifier(x)->offset, x->v * x->d);
    check_gradient(&all, &kept, final_norm(x)->offset, x->d);
}

static void check_without_fp32(struct host_bench *x) { check_without(x, KILN_PRECISION_FP32); }
TEST(masked_targets_are_as_tokens_that_are_not_there) { host_on_all(check_without_fp32, false); }

static void check_without_bf16(struct host_bench *x) { check_without(x, KILN_PRECISION_BF16); }
TEST(masked_targets_are_as_tokens_that_are_not_there_in_bf16) {
    host_on_all(check_without_bf16, false);
}

/* Of a micro-batch of which nothing counts, loss and gradients are zeros, not NaN. */
static void check_all_masked(struct host_bench *x) {
    const struct kiln_matrix *m = classifier(x);
    float *in = host_residual(x, x->b, 1.0F);
    float *dx = lab_memory(x->b * x->d * x->w, sizeof *dx, 0);
    double loss;
    for (size_t i = 0; i < x->n; i++) {
        x->targets[i] = KILN_NO_TARGET;
    }
    kiln_host_head(&x->host, in, x->targets, 0.25F, &x->gradients, dx, &loss);
    CHECK_CLOSE(loss, 0.0, 0.0);
    for (size_t i = 0; i < x->b * x->d * x->w; i++) {
        CHECK_CLOSE(dx[i], 0.0, 0.0);
    }
    for (size_t i = 0; i < m->rows * m->cols; i++) {
        CHECK_CLOSE(x->all[m->offset + i], 0.0, 0.0);
    }
    for (size_t c = 0; c < x->d; c++) {
        CHECK_CLOSE(x->all[final_norm(x)->offset + c], 0.0, 0.0);
    }
}
TEST(where_no_target_counts_loss_and_gradients_are_zeros) { host_on_all(check_all_masked, false); }

static void check_refresh(struct host_bench *x) {
    const struct kiln_matrix *m = classifier(x);
    float *in = host_residual(x, x->b, 1.0F);
    float *dx = lab_memory(x->b * x->d * x->w, sizeof *dx, 0);
    float *want = lab_memory(x->b * x->d * x->w, sizeof *want, 0);
    double loss, want_loss;
    for (size_t i = 0; i < m->rows * m->cols; i++) {
        x->weights[m->offset + i] += 0.125F;
    }
    const struct kiln_weights flat = kiln_weights_flat(x->table, x->weights);
    for (size_t first = 0; first < m->rows; first += KILN_PACK_ROWS) {
        size_t rows = m->rows - first < KILN_PACK_ROWS ? m->rows - first : KILN_PACK_ROWS;
        kiln_host_refresh(&x->host, x->table->n_matrices - 1, first, rows, &flat);
    }
    kiln_host_refresh(&x->host, 0, 0, 16, &flat); /* no copy: nothing to do */
    kiln_host_head(&x->host, in, x->targets, 1.0F, &x->gradients, dx, &loss);
    kiln_host_close(&x->host);
    host_open(x, false);
    kiln_host_head(&x->host, in, x->targets, 1.0F, &x->gradients, want, &want_loss);
    CHECK_CLOSE(loss, want_loss, 0.0);
    CHECK_BYTES(dx, want, x->b * x->d * x->w * sizeof *dx);
}
TEST(a_refreshed_classifier_is_as_one_packed_anew) { host_on_all(check_refresh, false); }

/* ---- from what the device made ------------------------------------------------------------- */

enum { CUT = 170 }; /* rows of the first of two parts of the classifier */

/* What a device made of all sequences, and what follows from it. */
struct made {
    uint16_t *logits, *probabilities, *xn; /* [B][..][W] */
    bool softmax;
    double *dlogits; /* [N, V] softmax - onehot */
    double loss;
};

static double softmax_of(const struct host_bench *x, const uint16_t *logits, size_t t,
                         double *out) {
    double sum = 0.0, most = -HUGE_VAL;
    for (size_t v = 0; v < x->v; v++) {
        out[v] = host_half(x, logits, v * x->w + t);
        most = fmax(most, out[v]);
    }
    for (size_t v = 0; v < x->v; v++) {
        sum += exp(out[v] - most);
    }
    for (size_t v = 0; v < x->v; v++) {
        out[v] = exp(out[v] - most) / sum;
    }
    return most + log(sum);
}

/* Logits of that spread; every third target that counts is the likeliest class. */
static struct made make(struct host_bench *x, bool softmax, float spread) {
    struct made made = {
        .logits = host_halves(x, x->b * x->v, spread),
        .probabilities = host_halves(x, x->b * x->v, 1.0F),
        .xn = host_halves(x, x->b * x->d, 1.0F),
        .softmax = softmax,
        .dlogits = lab_memory(x->n * x->v, sizeof(double), 0),
    };
    for (size_t i = 0; i < x->n; i++) {
        size_t b = i / x->t, t = i % x->t;
        const uint16_t *logits = made.logits + b * x->v * x->w;
        double *row = made.dlogits + i * x->v;
        double lse = softmax_of(x, logits, t, row);
        for (size_t v = 0; v < x->v && x->targets[i] != KILN_NO_TARGET; v++) {
            x->targets[i] = i % 3 == 0 && row[v] > row[x->targets[i]] ? (uint32_t)v : x->targets[i];
        }
        for (size_t v = 0; v < x->v && softmax; v++) {
            uint16_t *p = &made.probabilities[(b * x->v + v) * x->w + t];
            x->k.half_of(p, &(float){(float)row[v]}, 1);
            row[v] = host_half(x, p, 0);
        }
        if (x->targets[i] == KILN_NO_TARGET) {
            memset(row, 0, x->v * sizeof *row);
            continue;
        }
        made.loss += lse - host_half(x, logits, x->targets[i] * x->w + t);
        row[x->targets[i]] -= 1.0;
    }
    return made;
}

static double run(struct host_bench *x, const struct made *made, const float *in, float scale,
                  float *dx) {
    double loss = 0.0;
    for (size_t b = 0; b < x->b; b++) {
        const uint16_t *logits = made->logits + b * x->v * x->w;
        struct kiln_host_logits parts[] = {{logits, 0, CUT},
                                           {logits + CUT * x->w, CUT, x->v - CUT}};
        struct kiln_host_made of = {
            .parts = parts,
            .n_parts = 2,
            .probabilities = made->softmax ? made->probabilities + b * x->v * x->w : NULL,
            .xn = made->xn + b * x->d * x->w,
        };
        double sum;
        kiln_host_head_made(&x->host, b, &of, in, x->targets, scale, &x->gradients, dx, &sum);
        loss += sum;
    }
    return loss;
}

static void check_classifier_gradient(const struct host_bench *x, const struct made *made,
                                      double scale) {
    const struct kiln_matrix *m = classifier(x);
    for (size_t v = 0; v < x->v; v++) {
        for (size_t c = 0; c < x->d; c++) {
            double want = 0.0, size = 0.0;
            for (size_t i = 0; i < x->n; i++) {
                double term = made->dlogits[i * x->v + v] *
                              host_half(x, made->xn, (i / x->t * x->d + c) * x->w + i % x->t);
                want += scale * term;
                size += scale * fabs(term);
            }
            CHECK_CLOSE(x->all[m->offset + v * x->d + c], want, 2e-6 + 2e-6 * size);
        }
    }
}

/* dx of token i, and what it adds to the norm's gradient. */
static void norm_loops(const struct host_bench *x, const double *dxn, const float *in, size_t i,
                       double *dx, double *dw) {
    const float *w = x->weights + final_norm(x)->offset;
    const float *column = in + i / x->t * x->d * x->w + i % x->t;
    double squares = 0.0, dot = 0.0;
    for (size_t c = 0; c < x->d; c++) {
        double value = (double)column[c * x->w];
        squares += value * value;
        dot += value * dxn[c] * (double)w[c];
    }
    double rstd = 1.0 / sqrt(squares / (double)x->d + (double)x->table->dims.rms_eps);
    for (size_t c = 0; c < x->d; c++) {
        double value = (double)column[c * x->w];
        dw[c] += dxn[c] * value * rstd;
        dx[c] = rstd * (double)w[c] * dxn[c] - rstd * rstd * rstd * value * dot / (double)x->d;
    }
}

static void check_gradients(const struct host_bench *x, const struct made *made, const float *in,
                            const float *dx, double scale) {
    const float *w = x->weights + classifier(x)->offset;
    double dxn[72], want[72], dw[72] = {0};
    CHECK_EQ(x->d, 72);
    for (size_t i = 0; i < x->n; i++) {
        for (size_t c = 0; c < x->d; c++) {
            dxn[c] = 0.0;
            for (size_t v = 0; v < x->v; v++) {
                dxn[c] += scale * made->dlogits[i * x->v + v] * (double)w[v * x->d + c];
            }
        }
        norm_loops(x, dxn, in, i, want, dw);
        for (size_t c = 0; c < x->d; c++) {
            CHECK_CLOSE(dx[(i / x->t * x->d + c) * x->w + i % x->t], want[c], 1e-5);
        }
    }
    for (size_t c = 0; c < x->d; c++) {
        CHECK_CLOSE(x->all[final_norm(x)->offset + c], dw[c], 1e-5 * sqrt((double)x->n));
    }
}

static void check_made(struct host_bench *x, bool softmax, float spread, double tolerance) {
    const size_t size = x->b * x->d * x->w;
    struct made made = make(x, softmax, spread);
    float *in = host_residual(x, x->b, 1.0F), *dx = lab_memory(size, sizeof *dx, 0);
    double loss = run(x, &made, in, 0.5F, dx);
    CHECK_CLOSE(loss, made.loss, tolerance * made.loss);
    host_check_padding(x, dx, x->b * x->d);
    check_classifier_gradient(x, &made, 0.5);
    check_gradients(x, &made, in, dx, 0.5);
    CHECK_CLOSE(run(x, &made, in, 0.5F, NULL), loss, 0.0);
    x->gradients.add = true;
    float *first = lab_copy(x->all, x->table->size, sizeof *first, 0);
    run(x, &made, in, 0.5F, dx);
    for (size_t i = 0; i < x->d; i++) {
        size_t at = final_norm(x)->offset + i;
        CHECK_CLOSE(x->all[at], 2.0F * first[at], 1e-5 * (1.0 + fabs((double)first[at])));
    }
}

static void check_logits(struct host_bench *x) { check_made(x, false, 3.0F, 1e-6); }
TEST(loss_and_gradients_come_from_the_logits_of_a_device) { host_on_all(check_logits, true); }

/* Probabilities of fp16 are off by 2^-12 at most, relatively, and so is -ln p, absolutely. */
static void check_probabilities(struct host_bench *x) { check_made(x, true, 2.0F, 1e-4); }
TEST(loss_and_gradients_come_from_the_probabilities_of_a_device) {
    host_on_all(check_probabilities, true);
}

/* Logits so far apart that most probabilities are 0 in fp16. */
static void check_vanished(struct host_bench *x) { check_made(x, true, 12.0F, 1e-4); }
TEST(the_loss_is_right_where_probabilities_vanish) { host_on_all(check_vanished, true); }

static void check_masked_logits(struct host_bench *x) {
    mask(x);
    check_made(x, false, 3.0F, 1e-6);
}
TEST(masked_targets_count_nowhere_in_the_logits_of_a_device) {
    host_on_all(check_masked_logits, true);
}
static void check_masked_probabilities(struct host_bench *x) {
    mask(x);
    check_made(x, true, 2.0F, 1e-4);
}
TEST(masked_targets_count_nowhere_in_the_probabilities_of_a_device) {
    host_on_all(check_masked_probabilities, true);
}

/* No probability is a normal number: the logits decide. */
static void check_subnormal(struct host_bench *x) {
    struct made made = make(x, true, 1.0F);
    float *in = host_residual(x, x->b, 1.0F);
    for (size_t i = 0; i < x->b * x->v * x->w; i++) {
        made.probabilities[i] = (uint16_t)(i % 1024); /* 0 and all subnormal numbers */
    }
    CHECK_CLOSE(run(x, &made, in, 1.0F, NULL), made.loss, 1e-6 * made.loss);
}
TEST(the_loss_is_right_where_all_probabilities_are_subnormal) {
    host_on_all(check_subnormal, true);
}

/* ---- threads ------------------------------------------------------------------------------- */

/* dx and all gradients on a pool of so many threads; of the same host otherwise. */
static void run_on(struct host_bench *x, size_t threads, const struct made *made, const float *in,
                   float *dx, double *loss) {
    struct kiln_pool *own = x->pool;
    kiln_host_close(&x->host);
    CHECK_OK(kiln_pool_create(threads, &x->pool, NULL), NULL);
    host_open(x, true);
    *loss = run(x, made, in, 1.0F, dx);
    for (size_t b = 0; b < x->b; b++) {
        size_t at = b * x->d * x->w;
        kiln_host_norm_backward(&x->host, &(struct kiln_host_norm_bwd){
                                              .w = x->weights,
                                              .dw = x->all,
                                              .add = b > 0,
                                              .x = in + at,
                                              .dx = dx + at,
                                              .dy = made->xn + at,
                                          });
    }
    kiln_host_embed_backward(&x->host, x->tokens, dx, &x->gradients);
    kiln_host_close(&x->host);
    kiln_pool_destroy(x->pool);
    x->pool = own;
    host_open(x, true);
}

TEST(bits_do_not_depend_on_threads) {
    struct host_bench x = host_open_bench((struct kiln_micro_batch){2, 300}, 1);
    host_open(&x, true);
    const size_t size = x.b * x.d * x.w;
    struct made made = make(&x, true, 4.0F);
    float *in = host_residual(&x, x.b, 1.0F), *want = lab_memory(size, sizeof *want, 0);
    float *dx = lab_memory(size, sizeof *dx, 0);
    double want_loss, loss;
    run_on(&x, 1, &made, in, want, &want_loss);
    float *all = lab_copy(x.all, x.table->size, sizeof *all, 0);
    float *embedding = lab_copy(x.embedding, x.v * x.d, sizeof *embedding, 0);
    for (size_t threads = 2; threads <= 4; threads++) {
        run_on(&x, threads, &made, in, dx, &loss);
        CHECK_CLOSE(loss, want_loss, 0.0);
        CHECK_BYTES(dx, want, size * sizeof *dx);
        CHECK_BYTES(x.all, all, x.table->size * sizeof *all);
        CHECK_BYTES(x.embedding, embedding, x.v * x.d * sizeof *embedding);
    }
    host_close_bench(&x);
}

/* ---- what is not finite -------------------------------------------------------------------- */

static void check_not_finite(struct host_bench *x) {
    const size_t last = x->n - 1, b = last / x->t, t = last % x->t;
    const size_t at = (b * x->v + (x->targets[last] + 5) % x->v) * x->w + t;
    float *in = host_residual(x, x->b, 1.0F);
    float *dx = lab_memory(x->b * x->d * x->w, sizeof *dx, 0);
    for (int softmax = 0; softmax < 2; softmax++) {
        for (int alone = 0; alone < 2; alone++) {
            struct made made = make(x, softmax, 12.0F);
            /* The target's probability is too small to be used, so the others are looked at. */
            made.probabilities[(b * x->v + x->targets[last]) * x->w + t] = 0;
            made.logits[at] = made.probabilities[at] = 0x7e00;
            CHECK(isnan(run(x, &made, in, 1.0F, alone ? NULL : dx)));
            for (size_t c = 0; c < x->d && !alone; c++) {
                CHECK(isnan(dx[(b * x->d + c) * x->w + t]));
                CHECK(isnan(x->all[final_norm(x)->offset + c]));
            }
        }
    }
}
TEST(a_nan_of_the_device_stays_visible_in_loss_and_gradients) {
    host_on_all(check_not_finite, true);
}

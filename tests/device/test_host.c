/* SPDX-License-Identifier: MIT
 *
 * What the host computes beside a Neural Engine (src/device/host/host.h): embedding, residuals,
 * norms, each against plain loops in double.
 */
#include <math.h>
#include <string.h>

#include "device/host_lab.h"
#include "malloc_count.h"

/* ---- both ends ----------------------------------------------------------------------------- */

static void check_lookup(struct host_bench *x) {
    const struct kiln_tensor *embed = kiln_table_find(x->table, KILN_EMBED, KILN_NO_LAYER);
    float *block = lab_memory(x->b * x->d * x->w, sizeof *block, 0);
    float *rows = lab_memory(x->n * x->d, sizeof *rows, 0);
    float *again = lab_memory(x->b * x->d * x->w, sizeof *again, 0);
    kiln_host_embed(&x->host, x->tokens, block);
    for (size_t i = 0; i < x->n; i++) {
        for (size_t c = 0; c < x->d; c++) {
            float got = block[(i / x->t * x->d + c) * x->w + i % x->t];
            CHECK_CLOSE(got, x->weights[embed->offset + x->tokens[i] * x->d + c], 0.0);
        }
    }
    host_check_padding(x, block, x->b * x->d);
    kiln_host_export(&x->host, block, rows);
    for (size_t i = 0; i < x->n; i++) {
        CHECK_BYTES(rows + i * x->d, x->weights + embed->offset + x->tokens[i] * x->d,
                    x->d * sizeof *rows);
    }
    kiln_host_import(&x->host, rows, again);
    CHECK_BYTES(again, block, x->b * x->d * x->w * sizeof *block);
}
TEST(embedding_turns_rows_into_channels_and_back) { host_on_all(check_lookup, false); }

static void check_embed_backward(struct host_bench *x) {
    float *dx = host_residual(x, x->b, 1.0F), *want = lab_memory(x->v * x->d, sizeof *want, 0);
    memset(want, 0, x->v * x->d * sizeof *want);
    for (int round = 0; round < 2; round++) { /* the first writes over NaN, the second adds */
        x->gradients.add = round == 1;
        kiln_host_embed_backward(&x->host, x->tokens, dx, &x->gradients);
        for (size_t i = 0; i < x->n; i++) {
            for (size_t c = 0; c < x->d; c++) {
                want[x->tokens[i] * x->d + c] += dx[(i / x->t * x->d + c) * x->w + i % x->t];
            }
        }
        CHECK_BYTES(x->embedding, want, x->v * x->d * sizeof *want);
    }
}
TEST(looked_up_rows_get_their_gradients_in_the_order_of_tokens) {
    host_on_all(check_embed_backward, false);
}

/* ---- residuals ----------------------------------------------------------------------------- */

static void check_residual(struct host_bench *x) {
    float *in = host_residual(x, 1, 100.0F), *out = lab_memory(x->d * x->w, sizeof *out, 0);
    uint16_t *rounded = lab_memory(x->d * x->w, sizeof *rounded, 0);
    uint16_t *added = host_halves(x, x->d, 3.0F);
    in[5 * x->w + 3] = 70000.0F;
    in[6 * x->w + 3] = NAN;
    kiln_host_to_half(&x->host, rounded, in, x->d);
    host_check_half_padding(x, rounded, x->d);
    kiln_host_add_half(&x->host, out, in, added, x->d);
    host_check_padding(x, out, x->d);
    for (size_t i = 0; i < x->d * x->w; i++) {
        double value = host_half(x, rounded, i);
        if (i == 5 * x->w + 3) {
            CHECK(isinf(value));
        } else if (i == 6 * x->w + 3) {
            CHECK(isnan(value) && isnan(out[i]));
        } else if (i % x->w < x->t) {
            CHECK_CLOSE(value, in[i], fabs((double)in[i]) * 0x1p-11 + 0x1p-25);
            CHECK_CLOSE(out[i], in[i] + (float)host_half(x, added, i), 0.0);
        }
    }
    in[5 * x->w + 3] = in[6 * x->w + 3] = out[6 * x->w + 3] = out[5 * x->w + 3] = 1.0F;
    float value;
    for (size_t i = 5; i < 7; i++) {
        x->k.half_to(&value, &added[i * x->w + 3], 1);
        out[i * x->w + 3] = in[i * x->w + 3] + value;
    }
    kiln_host_add_half(&x->host, in, in, added, x->d); /* in place */
    CHECK_BYTES(in, out, x->d * x->w * sizeof *in);
}
TEST(residuals_are_rounded_and_added_without_their_padding) { host_on_all(check_residual, false); }

/* ---- norms --------------------------------------------------------------------------------- */

static double rstd_of(const struct host_bench *x, const float *in, size_t t) {
    double sum = 0.0;
    for (size_t c = 0; c < x->d; c++) {
        sum += (double)in[c * x->w + t] * (double)in[c * x->w + t];
    }
    return 1.0 / sqrt(sum / (double)x->d + (double)x->table->dims.rms_eps);
}

static void check_norm(struct host_bench *x) {
    float *in = host_residual(x, 1, 2.0F), *w = lab_floats(x->d, 0, 1.0F);
    uint16_t *y = lab_memory(x->d * x->w, sizeof *y, 0);
    kiln_host_norm(&x->host, w, in, y);
    host_check_half_padding(x, y, x->d);
    for (size_t t = 0; t < x->t; t++) {
        double rstd = rstd_of(x, in, t);
        for (size_t c = 0; c < x->d; c++) {
            double want = (double)in[c * x->w + t] * rstd * (double)w[c];
            CHECK_CLOSE(host_half(x, y, c * x->w + t), want, fabs(want) * 0x1.01p-11 + 0x1p-25);
        }
    }
}
TEST(norms_of_channels_are_those_of_tokens) { host_on_all(check_norm, false); }

/* dx and dw of one sequence, by the definition. */
static void norm_backward_loops(const struct host_bench *x, const float *in, const float *w,
                                const double *dy, double *dx, double *dw) {
    for (size_t t = 0; t < x->t; t++) {
        double rstd = rstd_of(x, in, t), dot = 0.0;
        for (size_t c = 0; c < x->d; c++) {
            dot += dy[c * x->w + t] * (double)w[c] * (double)in[c * x->w + t];
        }
        for (size_t c = 0; c < x->d; c++) {
            size_t at = c * x->w + t;
            dw[c] += dy[at] * (double)in[at] * rstd;
            dx[at] += rstd * (double)w[c] * dy[at] -
                      rstd * rstd * rstd * (double)in[at] * dot / (double)x->d;
        }
    }
}

/* Parts: 1 or 2 parts of dy; 3: one part, and dx made by the device. */
static void check_norm_backward_of(struct host_bench *x, int parts) {
    size_t size = x->d * x->w;
    float *in = host_residual(x, x->b, 2.0F), *dx = host_residual(x, x->b, 1.0F);
    float *w = lab_floats(x->d, 0, 1.0F), *dw = lab_memory(x->d, sizeof *dw, 0);
    double *dy = lab_memory(size, sizeof *dy, 0), *want = lab_memory(size, sizeof *want, 0);
    double want_dw[72] = {0};
    CHECK_EQ(x->d, 72);
    for (size_t b = 0; b < x->b; b++) {
        uint16_t *one = host_halves(x, x->d, 1.0F), *two = host_halves(x, x->d, 1.0F);
        for (size_t i = 0; i < size; i++) {
            dy[i] = host_half(x, one, i) + (parts == 2 ? host_half(x, two, i) : 0.0);
            want[i] = (double)dx[b * size + i];
        }
        norm_backward_loops(x, in + b * size, w, dy, want, want_dw);
        for (size_t i = 0; i < size && parts == 3; i++) {
            want[i] = (double)dx[b * size + i] + host_half(x, two, i);
        }
        kiln_host_norm_backward(&x->host, &(struct kiln_host_norm_bwd){
                                              .w = w,
                                              .dw = dw,
                                              .add = b > 0,
                                              .x = in + b * size,
                                              .dx = dx + b * size,
                                              .dy = one,
                                              .dy2 = parts == 2 ? two : NULL,
                                              .made_scale = 1.0f,
                                              .dx_made = parts == 3 ? two : NULL,
                                          });
        for (size_t i = 0; i < size; i++) {
            if (i % x->w < x->t) {
                CHECK_CLOSE(dx[b * size + i], want[i], 2e-6 * (1.0 + fabs(want[i])));
            }
        }
    }
    host_check_padding(x, dx, x->b * x->d);
    for (size_t c = 0; c < x->d; c++) {
        CHECK_CLOSE(dw[c], want_dw[c], 1e-5 * sqrt((double)x->n));
    }
}
static void check_norm_backward(struct host_bench *x) {
    for (int parts = 1; parts <= 3; parts++) {
        check_norm_backward_of(x, parts);
    }
}
TEST(the_backward_pass_of_norms_is_its_definition) { host_on_all(check_norm_backward, false); }

static void check_norm_infinite(struct host_bench *x) {
    float *in = host_residual(x, 1, 2.0F), *dx = host_residual(x, 1, 1.0F),
          *w = lab_floats(x->d, 0, 1.0F);
    float *dw = lab_memory(x->d, sizeof *dw, 0);
    uint16_t *dy = host_halves(x, x->d, 1.0F);
    dy[7 * x->w + x->t - 1] = 0x7c00;
    kiln_host_norm_backward(
        &x->host, &(struct kiln_host_norm_bwd){.w = w, .dw = dw, .x = in, .dx = dx, .dy = dy});
    for (size_t c = 0; c < x->d; c++) {
        CHECK_EQ(isfinite(dw[c]) != 0, c != 7);
        CHECK(!isfinite(dx[c * x->w + x->t - 1]));
        CHECK(isfinite(dx[c * x->w]));
    }
}
TEST(an_infinite_gradient_of_a_norm_stays_visible) { host_on_all(check_norm_infinite, false); }

static void check_swiglu_backward(struct host_bench *x) {
    size_t f = x->table->dims.hidden;
    uint16_t *dgate = host_halves(x, f, 1.0F), *h1 = host_halves(x, f, 3.0F),
             *h3 = host_halves(x, f, 1.0F);
    uint16_t *dh1 = lab_memory(f * x->w, 2, 0), *dh3 = lab_memory(f * x->w, 2, 0);
    kiln_host_swiglu_backward(&x->host, dgate, h1, h3, dh1, dh3);
    host_check_half_padding(x, dh1, f);
    host_check_half_padding(x, dh3, f);
    for (size_t i = 0; i < f * x->w; i++) {
        if (i % x->w >= x->t) {
            continue;
        }
        double a = host_half(x, h1, i), s = 1.0 / (1.0 + exp(-a)), g = host_half(x, dgate, i);
        double want1 = g * host_half(x, h3, i) * s * (1.0 + a * (1.0 - s)), want3 = g * a * s;
        CHECK_CLOSE(host_half(x, dh1, i), want1, fabs(want1) * 0x1.1p-11 + 2e-6);
        CHECK_CLOSE(host_half(x, dh3, i), want3, fabs(want3) * 0x1.1p-11 + 2e-6);
    }
    kiln_host_swiglu_backward(&x->host, dgate, h1, h3, h1, h3); /* in place */
    CHECK_BYTES(h1, dh1, f * x->w * 2);
    CHECK_BYTES(h3, dh3, f * x->w * 2);
}
TEST(the_backward_pass_of_swiglu_is_its_definition) { host_on_all(check_swiglu_backward, false); }

/* Definition in double: heads of K rows, each its own RMSNorm. */
static void heads_backward_loops(const struct host_bench *x, const uint16_t *in, const float *w,
                                 size_t heads, double *dy, double *dw) {
    const size_t k = x->table->dims.head_size;
    for (size_t i = 0; i < heads * x->t; i++) {
        const size_t at = i / x->t * k * x->w + i % x->t;
        double square = 0, dot = 0;
        for (size_t c = 0; c < k; c++) {
            const double value = host_half(x, in, at + c * x->w);
            square += value * value;
            dot += dy[at + c * x->w] * (double)w[c] * value;
        }
        const double rstd = 1 / sqrt(square / (double)k + (double)x->table->dims.rms_eps);
        for (size_t c = 0; c < k; c++) {
            const double value = host_half(x, in, at + c * x->w);
            double *d = &dy[at + c * x->w];
            dw[c] += *d * value * rstd;
            *d = rstd * (double)w[c] * *d - rstd * rstd * rstd * value * dot / (double)k;
        }
    }
}

static void check_heads_backward(struct host_bench *x) {
    const size_t heads = x->table->dims.heads, k = x->table->dims.head_size, rows = heads * k;
    float *w = lab_floats(k, 0, 1.0F), *dw = lab_memory(k, sizeof *dw, 0);
    double *want = lab_memory(rows * x->w, sizeof *want, 0), *want_dw = lab_memory(k, 8, 0);
    memset(want_dw, 0, k * sizeof *want_dw);
    memset(dw, 0xff, k * sizeof *dw); /* NaN: what is written, not added to, is not read */
    for (size_t b = 0; b < x->b; b++) {
        uint16_t *in = host_halves(x, rows, 2.0F), *dy = host_halves(x, rows, 1.0F);
        for (size_t i = 0; i < rows * x->w; i++) {
            want[i] = host_half(x, dy, i);
        }
        heads_backward_loops(x, in, w, heads, want, want_dw);
        kiln_host_heads_backward(
            &x->host, &(struct kiln_host_heads_bwd){
                          .heads = heads, .w = w, .dw = dw, .add = b > 0, .x = in, .dy = dy});
        host_check_half_padding(x, dy, rows);
        for (size_t i = 0; i < rows * x->w; i++) {
            if (i % x->w < x->t) {
                CHECK_CLOSE(host_half(x, dy, i), want[i], fabs(want[i]) * 0x1.1p-11 + 3e-6);
            }
        }
    }
    for (size_t c = 0; c < k; c++) {
        CHECK_CLOSE(dw[c], want_dw[c], 1e-5 * sqrt((double)(heads * x->n)));
    }
}
TEST(the_backward_pass_of_normed_heads_is_its_definition) {
    host_on_all(check_heads_backward, false);
}

static void check_bias_backward(struct host_bench *x) {
    enum { ROWS = 71 };
    float db[ROWS];
    double want[ROWS] = {0};
    memset(db, 0xff, sizeof db);
    for (size_t b = 0; b < x->b; b++) {
        uint16_t *dy = host_halves(x, ROWS, 1.0F);
        for (size_t i = 0; i < ROWS * x->w; i++) {
            want[i / x->w] += i % x->w < x->t ? host_half(x, dy, i) : 0;
        }
        kiln_host_bias_backward(&x->host, dy, ROWS, b > 0, db);
    }
    for (size_t r = 0; r < ROWS; r++) {
        CHECK_CLOSE(db[r], want[r], 1e-6 * (double)x->n);
    }
}
TEST(gradients_of_biases_are_sums_over_tokens) { host_on_all(check_bias_backward, false); }

/* Both directions of an adapter's [channels, rank]: rows of channels, and rows of ranks. */
static void check_adapter_sums(struct host_bench *x) {
    enum { N = 37, R = 3 };
    float *w = lab_floats((size_t)N * R, 0, 1.0F), *low = lab_memory(R * x->w, sizeof *low, 0);
    float got[N * R];
    double want[N * R] = {0};
    for (size_t turned = 0; turned < 2; turned++) {
        const size_t by_channel = turned ? 1 : R, by_rank = turned ? N : 1;
        memset(want, 0, sizeof want);
        memset(got, 0xff, sizeof got);
        for (size_t b = 0; b < x->b; b++) {
            uint16_t *in = host_halves(x, N, 1.0F);
            kiln_host_narrow(&x->host, &(struct kiln_host_narrow){.w = w,
                                                                  .by_channel = by_channel,
                                                                  .by_rank = by_rank,
                                                                  .scale = 1.5F,
                                                                  .x = in,
                                                                  .channels = N,
                                                                  .rank = R,
                                                                  .out = low});
            for (size_t i = 0; i < R * x->w; i++) {
                const size_t k = i / x->w, t = i % x->w;
                double sum = 0;
                for (size_t c = 0; t < x->t && c < N; c++) {
                    const double value = host_half(x, in, c * x->w + t);
                    sum += 1.5 * (double)w[c * by_channel + k * by_rank] * value;
                    want[c * by_channel + k * by_rank] += (double)low[i] * value;
                }
                CHECK(t >= x->t || fabs((double)low[i] - sum) < 1e-4);
            }
            kiln_host_contract(&x->host, &(struct kiln_host_contract){.small = low,
                                                                      .x = in,
                                                                      .channels = N,
                                                                      .rank = R,
                                                                      .out = got,
                                                                      .by_channel = by_channel,
                                                                      .by_rank = by_rank,
                                                                      .add = b > 0});
        }
        for (size_t i = 0; i < (size_t)N * R; i++) {
            CHECK_CLOSE(got[i], want[i], 1e-5 * (double)x->n);
        }
    }
}
TEST(sums_of_adapters_are_their_definition) { host_on_all(check_adapter_sums, false); }

/* ---- memory -------------------------------------------------------------------------------- */

static void check_memory(struct host_bench *x) {
    struct kiln_host_sizes sizes;
    CHECK_OK(kiln_host_sizes(x->table, &x->host.options, &sizes, NULL), NULL);
    CHECK_EQ(sizes.workspace, x->host.arena.size);
    CHECK_EQ(sizes.thread, x->host.workers.scratch_bytes);
    CHECK_EQ(sizes.head, x->host.packed[0].arena.used);
    float *in = host_residual(x, x->b, 1.0F), *dx = host_residual(x, x->b, 1.0F);
    double loss;
    uint64_t before = malloc_count();
    kiln_host_embed(&x->host, x->tokens, in);
    kiln_host_head(&x->host, in, x->targets, 1.0F, &x->gradients, dx, &loss);
    kiln_host_embed_backward(&x->host, x->tokens, dx, &x->gradients);
    CHECK_EQ(malloc_count(), before);
}
TEST(a_host_takes_what_its_sizes_say_and_nothing_later) { host_on_all(check_memory, false); }

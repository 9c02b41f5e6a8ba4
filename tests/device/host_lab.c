/* SPDX-License-Identifier: MIT */
#include "device/host_lab.h"

#include <math.h>

/* Two micro-batches: several sequences in one block of the head, and one sequence of two. */
static const struct kiln_micro_batch micro_batches[] = {{3, 20}, {1, 16}, {2, 300}};
enum { MICRO_BATCHES = 3 };

static const struct kiln_dims dims = {
    .dim = 72,
    .hidden = 50,
    .layers = 1,
    .heads = 4,
    .kv_heads = 2,
    .vocab = 300,
    .seq = 300,
    .rms_eps = 1e-5F,
    .rope_theta = 10000.0F,
    .qk_norm = true,
};

struct host_bench host_open_bench(struct kiln_micro_batch shape, size_t threads) {
    struct host_bench x = {.b = shape.batch, .t = shape.seq, .w = kiln_round_up(shape.seq, 16)};
    CHECK_OK(kiln_table_create(&dims, &x.table, NULL), NULL);
    CHECK_OK(kiln_kernels_choose(KILN_PRECISION_FP32, &x.k, NULL), NULL);
    CHECK_OK(kiln_pool_create(threads, &x.pool, NULL), NULL);
    x.d = x.table->dims.dim;
    x.v = x.table->dims.vocab;
    x.n = x.b * x.t;
    x.weights = lab_floats(x.table->size, 0, 0.3F);
    x.all = lab_memory(x.table->size, sizeof(float), 0);
    x.embedding = lab_memory(x.v * x.d, sizeof(float), 0);
    x.gradients = (struct kiln_gradients){.all = x.all, .embedding = x.embedding};
    x.tokens = lab_memory(x.n, sizeof *x.tokens, 0);
    x.targets = lab_memory(x.n, sizeof *x.targets, 0);
    for (size_t i = 0; i < x.n; i++) {
        x.tokens[i] = (uint32_t)(i * 7 % 11 * 27); /* few rows, each often, up to 270 */
        x.targets[i] = (uint32_t)(i * 31 % x.v);
    }
    return x;
}

/* In place: a host must not be moved. */
void host_open(struct host_bench *x, bool classify) {
    struct kiln_host_options options = {
        .shape = {x->b, x->t}, .training = true, .classify = classify};
    const struct kiln_weights flat = kiln_weights_flat(x->table, x->weights);
    CHECK_OK(kiln_host_open(&x->host, x->table, x->pool, &flat, &options, NULL), NULL);
}

void host_close_bench(struct host_bench *x) {
    kiln_host_close(&x->host);
    kiln_pool_destroy(x->pool);
    kiln_table_destroy(x->table);
    lab_check_guards();
}

float *host_residual(const struct host_bench *x, size_t sequences, float scale) {
    float *block = lab_floats(sequences * x->d * x->w, 0, scale);
    for (size_t i = 0; i < sequences * x->d * x->w; i++) {
        block[i] = i % x->w < x->t ? block[i] : 0.0F;
    }
    return block;
}

/* fp16 [rows][W]; what lies behind the tokens is NaN. */
uint16_t *host_halves(const struct host_bench *x, size_t rows, float scale) {
    uint16_t *out = lab_memory(rows * x->w, sizeof *out, 0);
    for (size_t i = 0; i < rows * x->w; i++) {
        float value = i % x->w < x->t ? lab_normal() * scale : NAN;
        x->k.half_of(&out[i], &value, 1);
    }
    return out;
}

double host_half(const struct host_bench *x, const uint16_t *block, size_t i) {
    float value;
    x->k.half_to(&value, &block[i], 1);
    return (double)value;
}

void host_check_padding(const struct host_bench *x, const float *block, size_t rows) {
    for (size_t i = 0; i < rows * x->w; i++) {
        if (i % x->w >= x->t) {
            CHECK_CLOSE(block[i], 0.0, 0.0);
        }
    }
}
void host_check_half_padding(const struct host_bench *x, const uint16_t *block, size_t rows) {
    for (size_t i = 0; i < rows * x->w; i++) {
        if (i % x->w >= x->t) {
            CHECK_EQ(block[i], 0);
        }
    }
}

/* Run a check for every micro-batch on 1, 2 and 4 threads. */
void host_on_all(void (*check)(struct host_bench *x), bool classify) {
    for (size_t i = 0; i < MICRO_BATCHES; i++) {
        for (size_t threads = 1; threads <= 4; threads *= 2) {
            struct host_bench x = host_open_bench(micro_batches[i], threads);
            host_open(&x, classify);
            check(&x);
            host_close_bench(&x);
        }
    }
}

/* SPDX-License-Identifier: MIT
 *
 * Adapters on the cpu: gradients against difference quotients, the merged model against base plus
 * adapters, what is frozen stays, and bits that no plan and no number of threads shows.
 */
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "kiln_test.h"
#include "train/engine_lab.h"

static struct kiln_plan_request request_of(const char *targets, size_t rank) {
    struct kiln_plan_request r = {.dims = {.dim = 96,
                                           .hidden = 100,
                                           .layers = 3,
                                           .heads = 4,
                                           .kv_heads = 2,
                                           .vocab = 300,
                                           .seq = 40,
                                           .tied = true,
                                           .rms_eps = 1e-5f,
                                           .rope_theta = 10000},
                                  .lora = {.rank = rank, .alpha = 12},
                                  .batch = 2,
                                  .seq = 40,
                                  .accum = 2,
                                  .threads = 2,
                                  .precision = KILN_PRECISION_FP32,
                                  .profile = {.tflops = 0.2, .compile_s = 0.01}};
    struct kiln_err err;
    CHECK_OK(kiln_dims_check(&r.dims, &err), &err);
    CHECK_OK(kiln_keep_parse("all", &r.keep, &err), &err);
    CHECK_OK(kiln_lora_parse(targets, &r.lora.targets, &err), &err);
    return r;
}

/* B is 0 at first, and with it the gradient of A: give it values. */
static void fill_b(struct engine_lab *lab) {
    for (size_t i = lab->table->n_base; i < lab->table->n_tensors; i++) {
        const struct kiln_tensor *t = &lab->table->tensors[i];
        if (t->role == KILN_LORA_B) {
            kiln_random_normals(7, KILN_STREAM_TEST + ((uint64_t)i << 32), 0.1,
                                lab->memory.weights + t->offset, 0, t->rows * t->cols);
        }
    }
}

static void open_lab(struct engine_lab *lab, const struct kiln_plan_request *r) {
    engine_lab_open(lab, r, 0, 0);
    fill_b(lab);
}

/* A window's loss, and with it the gradients. */
static double loss_of(struct engine_lab *lab) {
    const struct kiln_plan_request *r = &lab->engine.request;
    return engine_lab_window(lab) / (double)(r->batch * r->seq * r->accum);
}

/* The loss's slope along the gradient of one tensor is that gradient's norm. Difference quotients
 * of two steps, extrapolated: the error left is of the fourth order. */
static double slope(struct engine_lab *lab, const struct kiln_tensor *t, const float *direction,
                    double norm) {
    float *w = lab->memory.weights + t->offset;
    const size_t n = t->rows * t->cols;
    double quotient[2], at[2];
    float *before = kiln_alloc(n, sizeof *before);
    memcpy(before, w, n * sizeof *w);
    for (int step = 0; step < 2; step++) {
        /* Steep is curved, too; what is flat needs a long way to be told from rounding. */
        const double h = fmin(0.1, 2e-3 / norm) / (1 + step);
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < n; i++) {
                w[i] = (float)((double)before[i] + (side ? h : -h) * (double)direction[i] / norm);
            }
            at[side] = loss_of(lab);
        }
        quotient[step] = (at[1] - at[0]) / (2 * h);
    }
    memcpy(w, before, n * sizeof *w);
    kiln_free(before);
    return (4 * quotient[1] - quotient[0]) / 3;
}

TEST_WITHIN(gradients_of_adapters_are_the_slopes_of_the_loss, 120) {
    const struct kiln_plan_request r = request_of("all", 5);
    struct engine_lab lab;
    open_lab(&lab, &r);
    loss_of(&lab);
    const size_t n = kiln_trained_size(lab.table);
    float *gradients = kiln_alloc(n, sizeof *gradients);
    memcpy(gradients, lab.memory.optimizer.gradients.all, n * sizeof *gradients);
    for (size_t i = lab.table->n_base; i < lab.table->n_tensors; i++) {
        const struct kiln_tensor *t = &lab.table->tensors[i];
        const float *g = gradients + kiln_trained_at(lab.table, t->offset);
        double sum = 0;
        for (size_t k = 0; k < t->rows * t->cols; k++) {
            sum += (double)g[k] * (double)g[k];
        }
        CHECK(sum > 0);
        CHECK_CLOSE(slope(&lab, t, g, sqrt(sum)), sqrt(sum), 2e-3 * sqrt(sum) + 2e-6);
    }
    kiln_free(gradients);
    engine_lab_close(&lab);
}

TEST(a_merged_model_has_the_loss_of_base_plus_adapters) {
    static const char *const targets[] = {"q,v", "k", "o,down", "gate", "all"};
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        const struct kiln_plan_request r = request_of(targets[i], 8);
        struct kiln_plan_request plain = r;
        struct engine_lab lab, merged;
        plain.lora.rank = 0;
        open_lab(&lab, &r);
        const double beside = loss_of(&lab);
        engine_lab_open(&merged, &plain, 0, 0);
        const double base = loss_of(&merged);
        engine_lab_close(&merged);
        kiln_lora_merge(lab.table, lab.memory.weights);
        engine_lab_open(&merged, &plain, 0, 0);
        CHECK_EQ(merged.table->size, lab.table->trained);
        memcpy(merged.memory.weights, lab.memory.weights, merged.table->size * sizeof(float));
        kiln_engine_close(&merged.engine); /* packs what is there when it is opened */
        struct kiln_err err;
        CHECK_OK(kiln_engine_plan(&merged.engine, merged.table, &plain, &err), &err);
        CHECK_OK(kiln_engine_open(&merged.engine, merged.table, &merged.memory, &err), &err);
        CHECK_CLOSE(loss_of(&merged), beside, 1e-6 * beside);
        CHECK(fabs(beside - base) > 1e-5); /* they do something */
        engine_lab_close(&merged);
        engine_lab_close(&lab);
    }
}

/* All weights after two windows and updates. The caller frees. */
static float *trained(struct kiln_plan_request r, const char *keep, size_t threads, size_t budget,
                      size_t *bytes) {
    struct engine_lab lab;
    struct kiln_err err;
    r.threads = threads;
    r.load_budget = budget;
    CHECK_OK(kiln_keep_parse(keep, &r.keep, &err), &err);
    open_lab(&lab, &r);
    *bytes = lab.table->size * sizeof(float);
    float *before = kiln_alloc(*bytes, 1), *out = kiln_alloc(*bytes, 1);
    memcpy(before, lab.memory.weights, *bytes);
    for (int i = 0; i < 2; i++) {
        engine_lab_window(&lab);
        engine_lab_update(&lab, kiln_optimizer_norm(lab.engine.optimizer, 1));
    }
    memcpy(out, lab.memory.weights, *bytes);
    CHECK_BYTES(out, before, lab.table->trained * sizeof(float));
    for (size_t i = lab.table->n_base; i < lab.table->n_tensors; i++) {
        const struct kiln_tensor *t = &lab.table->tensors[i];
        CHECK(memcmp(out + t->offset, before + t->offset, t->rows * t->cols * sizeof *out) != 0);
    }
    kiln_free(before);
    engine_lab_close(&lab);
    return out;
}

TEST_WITHIN(neither_threads_nor_plan_show_and_what_is_frozen_stays, 120) {
    static const char *const keeps[] = {"all", "none", "inputs", "sqrt"};
    for (int precision = KILN_PRECISION_FP32; precision <= KILN_PRECISION_BF16; precision++) {
        struct kiln_plan_request r = request_of("q,v,down", 8);
        size_t bytes, more_bytes;
        r.precision = (enum kiln_precision)precision;
        float *one = trained(r, "all", 1, 0, &bytes);
        for (size_t threads = 1; threads <= 4; threads++) {
            float *more = trained(r, keeps[threads - 1], threads, threads % 2 ? 0 : 8, &more_bytes);
            CHECK_EQ(more_bytes, bytes);
            CHECK_BYTES(more, one, bytes);
            kiln_free(more);
        }
        kiln_free(one);
    }
}

TEST(what_is_trained_is_the_end_of_the_flat_array) {
    const struct kiln_plan_request r = request_of("q,k,up", 6);
    const struct kiln_lora none = {.rank = 0};
    struct kiln_table *table, *plain;
    struct kiln_err err;
    CHECK_OK(kiln_table_create_lora(&r.dims, &r.lora, &table, &err), &err);
    CHECK_OK(kiln_table_create_lora(&r.dims, &none, &plain, &err), &err);
    CHECK_EQ(table->trained, plain->size);
    CHECK_EQ(plain->trained, 0);
    CHECK_EQ(table->n_base, plain->n_tensors);
    CHECK_EQ(table->parameters, plain->parameters);
    CHECK_EQ(table->n_tensors - table->n_base, 3 * 6);
    CHECK_EQ(table->adapters, 3 * 6 * ((96 + 96) + (96 + 48) + (96 + 100)));
    for (size_t l = 0; l < 3; l++) {
        const struct kiln_tensor *q = kiln_table_find(table, KILN_WQ, l);
        const struct kiln_tensor *k = kiln_table_find(table, KILN_WK, l);
        const struct kiln_tensor *qa = kiln_lora_find(table, q, 0),
                                 *kb = kiln_lora_find(table, k, 1);
        CHECK(kiln_lora_find(table, kiln_table_find(table, KILN_WV, l), 0) == NULL);
        CHECK(qa->role == KILN_LORA_A && qa->rows == 6 && qa->cols == 96 && qa->layer == l);
        CHECK(kb->role == KILN_LORA_B && kb->rows == 48 && kb->cols == 6);
        CHECK_EQ(kiln_lora_find(table, k, 0)->offset, qa->offset + 6 * 96); /* stacked */
        CHECK(qa->offset >= table->trained && kb->offset % 64 == 0);
    }
    kiln_table_destroy(plain);
    kiln_table_destroy(table);
}

TEST(targets_are_read_and_told) {
    struct kiln_err err;
    unsigned bits;
    char text[KILN_LORA_TEXT];
    CHECK_OK(kiln_lora_parse("down,q", &bits, &err), &err);
    kiln_lora_text(bits, text);
    CHECK_STRING(text, "q,down");
    CHECK_OK(kiln_lora_parse("q,k,v,o,gate,up,down", &bits, &err), &err);
    kiln_lora_text(bits, text);
    CHECK_STRING(text, "all");
    static const char *const bad[] = {"", "q,", "x", "q v", "qv", "Q", "q,,v", "downs"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_FAILS(kiln_lora_parse(bad[i], &bits, &err), KILN_EUSAGE, &err);
        CHECK_CONTAINS(err.message, "use q, k, v, o, gate, up and down");
    }
}

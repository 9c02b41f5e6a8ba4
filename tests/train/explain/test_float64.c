/* SPDX-License-Identifier: MIT
 *
 * The model in double precision (train/explain/float64.h) against PyTorch's float64 vectors,
 * against difference quotients of its own loss, and against the gradients that train.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/random.h"
#include "kiln/text.h"
#include "kiln_test.h"
#include "train/engine_lab.h"
#include "train/explain/float64.h"

/* ---- against reference folders (kiln/verify.h) -------------------------------------------------
 */

struct reference {
    json_t *json;
    struct kiln_table *table;
    float *weights, *gradients;
    size_t batch, counted;
    uint32_t *tokens, *targets, *starts; /* of step 0 */
};

static double number(const json_t *json, const char *key) {
    return json_number_value(json_object_get(json, key));
}

static void read_model(struct reference *r, const char *folder) {
    char path[4400];
    struct kiln_err err;
    struct kiln_checkpoint *file;
    struct kiln_map map;
    snprintf(path, sizeof path, "%s/model.bin", folder);
    CHECK_OK(kiln_checkpoint_open(path, &file, &err), &err);
    struct kiln_dims dims = *kiln_checkpoint_dims(file);
    if (json_object_get(r->json, "rms_eps")) {
        dims.rms_eps = (float)number(r->json, "rms_eps");
    }
    if (json_object_get(r->json, "rope_theta")) {
        dims.rope_theta = (float)number(r->json, "rope_theta");
    }
    CHECK_OK(kiln_table_create(&dims, &r->table, &err), &err);
    r->weights = kiln_alloc(r->table->size, sizeof *r->weights);
    r->gradients = kiln_alloc(r->table->size, sizeof *r->gradients);
    CHECK_OK(kiln_checkpoint_load(file, r->table, r->weights, &err), &err);
    kiln_checkpoint_close(file);
    snprintf(path, sizeof path, "%s/grads.f32", folder);
    CHECK_OK(kiln_map_open(&map, path, &err), &err);
    CHECK_OK(kiln_llama2c_unpack(r->table, (const void *)map.data, map.size / sizeof(float),
                                 r->gradients, &err),
             &err);
    kiln_map_close(&map);
}

/* Step 0, with its masks where the reference has some. */
static void read_batch(struct reference *r, const char *folder) {
    char path[4400];
    struct kiln_err err;
    struct kiln_map map;
    const json_t *begin = json_object_get(r->json, "begin");
    const json_t *none = json_object_get(r->json, "no_target");
    const size_t seq = r->table->dims.seq, n = r->batch * seq;
    snprintf(path, sizeof path, "%s/tokens.u16", folder);
    CHECK_OK(kiln_map_open(&map, path, &err), &err);
    r->tokens = kiln_alloc(n, sizeof *r->tokens);
    r->targets = kiln_alloc(n, sizeof *r->targets);
    r->starts = kiln_alloc(n, sizeof *r->starts);
    for (size_t i = 0; i < n; i++) {
        const unsigned char *at = map.data + 2 * (i / seq * (seq + 1) + i % seq);
        const size_t t = i % seq;
        r->tokens[i] = (uint32_t)(at[0] | at[1] << 8);
        r->targets[i] = (uint32_t)(at[2] | at[3] << 8);
        if (none && r->targets[i] == (uint32_t)json_integer_value(none)) {
            r->targets[i] = KILN_NO_TARGET;
        }
        r->counted += r->targets[i] != KILN_NO_TARGET;
        const bool begins = begin && r->tokens[i] == (uint32_t)json_integer_value(begin);
        r->starts[i] = begins ? (uint32_t)t : t > 0 ? r->starts[i - 1] : 0;
    }
    kiln_map_close(&map);
}

static void open_reference(struct reference *r, const char *folder) {
    char path[4400];
    snprintf(path, sizeof path, "%s/reference.json", folder);
    *r = (struct reference){.json = json_load_file(path, 0, NULL)};
    CHECK(r->json != NULL);
    r->batch = (size_t)number(r->json, "batch");
    read_model(r, folder);
    read_batch(r, folder);
}

static void close_reference(struct reference *r) {
    json_decref(r->json);
    kiln_table_destroy(r->table);
    kiln_free(r->weights);
    kiln_free(r->gradients);
    kiln_free(r->tokens);
    kiln_free(r->targets);
    kiln_free(r->starts);
}

/* The norm of a tensor's gradient, and how far it is from the reference's, relative to it. */
static double compare(const struct reference *r, const struct kiln_tensor *t, const double *g,
                      double *norm) {
    double difference = 0, sum = 0;
    for (size_t i = 0; i < t->rows * t->cols; i++) {
        const double d = g[t->offset + i] - (double)r->gradients[t->offset + i];
        difference += d * d;
        sum += g[t->offset + i] * g[t->offset + i];
    }
    *norm = sqrt(sum);
    return sum > 0 ? sqrt(difference / sum) : sqrt(difference);
}

/* How far a loss, a norm of a gradient and a gradient may be off, relative to them. */
struct limits {
    double loss, norm, gradient;
};
/* Losses and norms are there in double, gradients rounded to fp32: by half of 2^-23 at most. What
 * is left is the 1e-5 of their norms, which is no number in fp32. */
static const struct limits pytorch = {1e-10, 1e-8, 6e-8};

static void check_reference(const char *folder, struct limits limits) {
    struct reference r;
    struct kiln_float64 *f;
    struct kiln_pool *pool;
    struct kiln_err err;
    double losses[4096], loss = 0;
    open_reference(&r, folder);
    const size_t seq = r.table->dims.seq;
    CHECK(seq <= sizeof losses / sizeof losses[0]);
    CHECK_OK(kiln_pool_create(2, &pool, &err), &err);
    CHECK_OK(kiln_float64_create(r.table, r.weights, seq, pool, true, &f, &err), &err);
    for (size_t b = 0; b < r.batch; b++) {
        const struct kiln_float64_sequence s = {r.tokens + b * seq, r.targets + b * seq,
                                                r.starts + b * seq};
        loss += kiln_float64_forward(f, &s, losses);
        kiln_float64_backward(f, 1 / (double)r.counted);
        const json_t *logits = json_object_get(r.json, "step0_last_position_logits_row0");
        const struct kiln_float64_values got = kiln_float64_stage(f, KILN_STAGE_LOGITS, 0);
        for (size_t i = 0; logits && b == 0 && i < json_array_size(logits); i++) {
            const double want = json_number_value(json_array_get(logits, i));
            CHECK_CLOSE(got.at[(seq - 1) * got.apart + i], want, 1e-9);
        }
    }
    const double want = json_number_value(json_array_get(json_object_get(r.json, "loss"), 0));
    CHECK_CLOSE(loss / (double)r.counted, want, limits.loss * want);
    double worst = 0;
    for (size_t i = 0; i < r.table->n_tensors; i++) {
        const struct kiln_tensor *t = &r.table->tensors[i];
        double norm;
        const double off = compare(&r, t, kiln_float64_gradients(f), &norm);
        if (!(off <= limits.gradient)) {
            FAIL("%s: gradient of %s is off by %g", folder, t->name, off);
        }
        worst = fmax(worst, off);
        const json_t *told = json_object_get(r.json, "grad_l2");
        const double want_norm = told ? number(told, t->name) : norm;
        CHECK_CLOSE(norm, want_norm, limits.norm * want_norm);
    }
    printf("      %s: loss off by %.2g, gradients by %.2g\n", strrchr(folder, '/') + 1,
           fabs(loss / (double)r.counted - want) / want, worst);
    kiln_float64_destroy(f);
    kiln_pool_destroy(pool);
    close_reference(&r);
}

TEST(float64_tiny_mha_is_pytorchs) { check_reference(test_reference("tiny-mha"), pytorch); }
TEST(float64_tiny_gqa_untied_is_pytorchs) {
    check_reference(test_reference("tiny-gqa-untied"), pytorch);
}
TEST_WITHIN(float64_small_gqa_is_pytorchs, 120) {
    check_reference(test_reference("small-gqa"), pytorch);
}

/* transformers computes the angles of RoPE in fp32, whatever the model: cosines and sines of its
 * positions are off by 1e-6. */
static const struct limits transformers = {1e-6, 1e-5, 1e-5};

TEST_WITHIN(float64_families_are_those_of_transformers, 300) {
    static const char *const cases[] = {"llama-linear", "llama-llama3",    "llama-yarn",
                                        "qwen2",        "qwen3",           "qwen2-untied-yarn",
                                        "qwen3-untied", "llama-documents", "qwen3-documents"};
    char folder[1024];
    snprintf(folder, sizeof folder, "'%s'", test_folder());
    test_python("tests/python/families.py", folder);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_reference(test_path(cases[i]), transformers);
    }
}

/* ---- against difference quotients --------------------------------------------------------------
 */

enum { SEQ = 19, BATCH = 2 };

struct lab {
    struct kiln_table *table;
    struct kiln_pool *pool;
    struct kiln_float64 *model;
    float *weights;
    uint32_t tokens[BATCH * SEQ], targets[BATCH * SEQ], starts[BATCH * SEQ];
};

/* Weights lie on a grid of 2^-16, so that 2^-12 more or less is no rounding in fp32. */
static void open_lab(struct lab *lab, struct kiln_dims dims, size_t rank, size_t threads) {
    struct kiln_err err;
    const struct kiln_lora lora = {.rank = rank, .alpha = 6, .targets = KILN_LORA_ALL};
    const struct kiln_lora none = {.rank = 0};
    CHECK_OK(kiln_dims_check(&dims, &err), &err);
    CHECK_OK(kiln_table_create_lora(&dims, rank > 0 ? &lora : &none, &lab->table, &err), &err);
    lab->weights = kiln_alloc(lab->table->size, sizeof *lab->weights);
    for (size_t i = 0; i < lab->table->n_tensors; i++) {
        const struct kiln_tensor *t = &lab->table->tensors[i];
        for (size_t j = 0; j < t->rows * t->cols; j++) {
            const bool norm = t->rank == 1 && t->role != KILN_BQ && t->role != KILN_BK;
            const double noise = kiln_random_normal(5, KILN_STREAM_TEST, i * 100000 + j);
            const double w = (norm ? 1 : 0) + (norm ? 0.3 : 0.12) * noise;
            lab->weights[t->offset + j] = (float)(round(w * 65536) / 65536);
        }
    }
    for (size_t i = 0; i < BATCH * SEQ; i++) {
        const size_t t = i % SEQ;
        lab->tokens[i] = (uint32_t)kiln_random_below(3, KILN_STREAM_TEST, i, dims.vocab);
        lab->targets[i] = (uint32_t)kiln_random_below(4, KILN_STREAM_TEST, i, dims.vocab);
        lab->targets[i] = i % 7 == 3 ? KILN_NO_TARGET : lab->targets[i];
        lab->starts[i] = t == 0 ? 0 : t == 5 || t == 12 ? (uint32_t)t : lab->starts[i - 1];
    }
    CHECK_OK(kiln_pool_create(threads, &lab->pool, &err), &err);
    CHECK_OK(kiln_float64_create(lab->table, lab->weights, SEQ, lab->pool, true, &lab->model, &err),
             &err);
}

static void close_lab(struct lab *lab) {
    kiln_float64_destroy(lab->model);
    kiln_pool_destroy(lab->pool);
    kiln_table_destroy(lab->table);
    kiln_free(lab->weights);
}

static double loss_of(struct lab *lab, bool back) {
    double losses[SEQ], sum = 0;
    for (size_t b = 0; b < BATCH; b++) {
        const struct kiln_float64_sequence s = {lab->tokens + b * SEQ, lab->targets + b * SEQ,
                                                lab->starts + b * SEQ};
        sum += kiln_float64_forward(lab->model, &s, losses);
        if (back) {
            kiln_float64_backward(lab->model, 1);
        }
    }
    return sum;
}

/* The slope along +1 and -1, of a few directions of each tensor; two steps, extrapolated
 * (Richardson): off by the fourth power of 2^-12, and by the rounding of a loss over a step. */
static void check_slope(struct lab *lab, const struct kiln_tensor *t, uint64_t which) {
    const size_t n = t->rows * t->cols;
    float *w = lab->weights + t->offset, *kept = kiln_alloc(n, sizeof *kept);
    const double *g = kiln_float64_gradients(lab->model) + kiln_trained_at(lab->table, t->offset);
    double along = 0, quotient[2];
    memcpy(kept, w, n * sizeof *kept);
    for (int h = 0; h < 2; h++) {
        const float step = h ? 0x1p-12F : 0x1p-11F;
        double side[2];
        for (int s = 0; s < 2; s++) {
            for (size_t j = 0; j < n; j++) {
                const float sign = kiln_random_bits(which, KILN_STREAM_TEST, j) & 1 ? 1 : -1;
                w[j] = kept[j] + (s ? -step : step) * sign;
                along += h == 0 && s == 0 ? (double)sign * g[j] : 0;
            }
            side[s] = loss_of(lab, false);
        }
        quotient[h] = (side[0] - side[1]) / (2 * (double)step);
    }
    memcpy(w, kept, n * sizeof *w);
    kiln_free(kept);
    const double slope = (4 * quotient[1] - quotient[0]) / 3;
    double norm = 0;
    for (size_t j = 0; j < n; j++) {
        norm += g[j] * g[j];
    }
    if (!(fabs(slope - along) <= 1e-8 * fmax(sqrt(norm), 1))) {
        FAIL("%s: gradient along a direction is %.12g, the difference quotient %.12g", t->name,
             along, slope);
    }
}

static void check_slopes(struct kiln_dims dims, size_t rank) {
    struct lab lab;
    open_lab(&lab, dims, rank, 2);
    loss_of(&lab, true);
    for (size_t i = rank > 0 ? lab.table->n_base : 0; i < lab.table->n_tensors; i++) {
        check_slope(&lab, &lab.table->tensors[i], 2 * i);
        check_slope(&lab, &lab.table->tensors[i], 2 * i + 1);
    }
    close_lab(&lab);
}

static const struct kiln_dims small = {.dim = 12,
                                       .hidden = 20,
                                       .layers = 2,
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .vocab = 30,
                                       .seq = SEQ,
                                       .head_size = 4,
                                       .rms_eps = 1e-5f,
                                       .rope_theta = 10000.0f};

static struct kiln_dims everything(void) {
    struct kiln_dims dims = small;
    dims.qkv_bias = dims.qk_norm = dims.tied = true;
    dims.head_size = 10;
    dims.rope = (struct kiln_rope){.kind = KILN_ROPE_YARN, .factor = 3, .original_seq = 6};
    return dims;
}

TEST_WITHIN(float64_gradients_are_slopes_of_its_loss, 120) { check_slopes(small, 0); }
TEST_WITHIN(float64_gradients_of_biases_and_head_norms_are_slopes, 120) {
    check_slopes(everything(), 0);
}
TEST_WITHIN(float64_gradients_of_adapters_are_slopes, 120) {
    check_slopes(small, 3);
    check_slopes(everything(), 3);
}

/* Not a bit depends on the threads. */
TEST(float64_has_the_same_bits_on_any_number_of_threads) {
    struct lab lab[2];
    for (size_t i = 0; i < 2; i++) {
        open_lab(&lab[i], everything(), 0, 1 + 4 * i);
    }
    CHECK(loss_of(&lab[0], true) == loss_of(&lab[1], true));
    CHECK_BYTES(kiln_float64_gradients(lab[0].model), kiln_float64_gradients(lab[1].model),
                lab[0].table->size * sizeof(double));
    close_lab(&lab[0]);
    close_lab(&lab[1]);
}

/* ---- against what trains -----------------------------------------------------------------------
 */

static void check_trainer(const struct kiln_plan_request *r) {
    struct engine_lab trained;
    struct kiln_float64 *f;
    struct kiln_err err;
    double losses[64], loss = 0;
    uint32_t tokens[64], targets[64];
    engine_lab_open(&trained, r, 0, 0);
    float *weights = trained.memory.weights;
    for (size_t i = trained.table->n_base; i < trained.table->n_tensors; i++) {
        const struct kiln_tensor *t = &trained.table->tensors[i];
        kiln_random_normals(7, KILN_STREAM_TEST + ((uint64_t)i << 32), 0.1, weights + t->offset, 0,
                            t->rows * t->cols);
    }
    const double want = engine_lab_window(&trained);
    CHECK_OK(
        kiln_float64_create(trained.table, weights, r->seq, trained.engine.pool, true, &f, &err),
        &err);
    const uint64_t sequences = r->batch * r->accum;
    for (uint64_t b = 0; b < sequences; b++) {
        for (uint64_t t = 0; t < r->seq; t++) { /* as engine_lab.c draws them */
            const uint64_t at = b * r->seq + t;
            tokens[t] = (uint32_t)kiln_random_below(1, KILN_STREAM_TEST, at, r->dims.vocab);
            targets[t] = (uint32_t)kiln_random_below(2, KILN_STREAM_TEST, at, r->dims.vocab);
        }
        const struct kiln_float64_sequence s = {tokens, targets, NULL};
        loss += kiln_float64_forward(f, &s, losses);
        kiln_float64_backward(f, 1 / (double)(sequences * r->seq));
    }
    CHECK_CLOSE(loss, want, 1e-5 * loss);
    const struct kiln_gradients *got = &trained.memory.optimizer.gradients;
    for (size_t i = 0; i < trained.table->n_tensors; i++) {
        const struct kiln_tensor *t = &trained.table->tensors[i];
        double difference = 0, norm = 0;
        if (t->offset < trained.table->trained) {
            continue;
        }
        const size_t at = kiln_trained_at(trained.table, t->offset);
        for (size_t j = 0; j < t->rows * t->cols; j++) {
            const double g = kiln_float64_gradients(f)[at + j];
            /* Two accumulators, which the update adds. */
            const bool two = t->role == KILN_EMBED && trained.table->dims.tied;
            const double mine = (double)got->all[at + j] + (two ? (double)got->embedding[j] : 0);
            difference += (g - mine) * (g - mine);
            norm += g * g;
        }
        CHECK(norm > 0);
        if (!(sqrt(difference / norm) <= 3e-5)) {
            FAIL("%s: off by %g", t->name, sqrt(difference / norm));
        }
    }
    kiln_float64_destroy(f);
    engine_lab_close(&trained);
}

TEST(float64_gradients_are_those_that_train) {
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
                                  .batch = 2,
                                  .seq = 40,
                                  .accum = 2,
                                  .threads = 2,
                                  .precision = KILN_PRECISION_FP32,
                                  .profile = {.tflops = 0.2, .compile_s = 0.01}};
    struct kiln_err err;
    CHECK_OK(kiln_dims_check(&r.dims, &err), &err);
    CHECK_OK(kiln_keep_parse("all", &r.keep, &err), &err);
    check_trainer(&r);
    r.lora = (struct kiln_lora){.rank = 5, .alpha = 12, .targets = KILN_LORA_ALL};
    check_trainer(&r);
    r.lora.rank = 0;
    r.dims.qkv_bias = r.dims.qk_norm = true;
    r.dims.tied = false;
    r.dims.head_size = 32;
    check_trainer(&r);
}

/* SPDX-License-Identifier: MIT
 *
 * Formats as others see them: models that kiln writes say the same in transformers, their tensors
 * are the same in the gguf package, and models that transformers saves say the same in kiln.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/random.h"
#include "infer/session.h"
#include "kiln/train.h"
#include "kiln_test.h"

enum { TOKENS = 24, VOCAB = 71 };

/* Logits [TOKENS, VOCAB] of a fixed text. */
static float *logits_of(const struct kiln_table *table, const float *weights) {
    struct kiln_pool *pool;
    struct kiln_session *session;
    struct kiln_err err;
    const struct kiln_session_options options = {.precision = KILN_PRECISION_FP32};
    float *logits = kiln_alloc((size_t)TOKENS * VOCAB, sizeof *logits);
    CHECK_OK(kiln_pool_create(1, &pool, &err), &err);
    CHECK_OK(kiln_session_open(table, weights, pool, &options, &session, &err), &err);
    for (uint32_t t = 0; t < TOKENS; t++) {
        const uint32_t token = (1 + 7 * t) % VOCAB;
        CHECK_OK(kiln_session_feed(session, &token, 1, logits + (size_t)t * VOCAB, &err), &err);
    }
    kiln_session_close(session);
    kiln_pool_destroy(pool);
    return logits;
}

static const char *folder_argument(const char *verb) {
    static char text[1200];
    snprintf(text, sizeof text, "%s '%s'", verb, test_folder());
    return text;
}

/* ---- read by kiln --------------------------------------------------------------------------- */

static void check_read(const char *name) {
    struct kiln_model model;
    struct kiln_err err;
    struct kiln_map want;
    char path[300];
    snprintf(path, sizeof path, "%s.logits", name);
    CHECK_OK(kiln_map_open(&want, test_path(path), &err), &err);
    CHECK_EQ(want.size, sizeof(float) * TOKENS * VOCAB);
    CHECK_OK(kiln_model_open(test_path(name), 1, &model, &err), &err);
    CHECK_STRING(model.format, "Hugging Face");
    float *got = logits_of(model.table, model.weights);
    CHECK_ALL_CLOSE(got, (const float *)(const void *)want.data, (size_t)TOKENS * VOCAB, 1e-4);
    kiln_free(got);
    kiln_map_close(&want);
    kiln_model_close(&model);
}

TEST_WITHIN(models_of_transformers_say_the_same_in_kiln, 300) {
    static const char *const cases[] = {
        "llama",      "llama-shards", "llama-linear-bf16", "qwen2",
        "qwen2-yarn", "qwen3",        "qwen3-untied",
    };
    test_python("tests/python/formats.py", folder_argument("save"));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_read(cases[i]);
    }
}

/* ---- written by kiln ------------------------------------------------------------------------ */

static const struct kiln_rope llama3 = {.kind = KILN_ROPE_LLAMA3,
                                        .factor = 8,
                                        .low_freq_factor = 1,
                                        .high_freq_factor = 4,
                                        .original_seq = 24};
static const struct kiln_rope linear = {.kind = KILN_ROPE_LINEAR, .factor = 2.5F};
static const struct kiln_rope yarn = {
    .kind = KILN_ROPE_YARN, .factor = 4, .original_seq = 16, .attention_factor = 0.8F};
static const struct kiln_rope plain;

static const struct {
    const char *name;
    bool tied, qkv_bias, qk_norm;
    size_t head_size;
    const struct kiln_rope *rope;
} cases[] = {
    {"llama-tied", true, false, false, 0, &plain},
    {"llama-untied", false, false, false, 0, &llama3},
    {"llama-wide", true, false, false, 24, &linear},
    {"qwen2-tied", true, true, false, 0, &plain},
    {"qwen2-untied", false, true, false, 0, &yarn},
    {"qwen3-tied", true, false, true, 32, &plain},
    {"qwen3-untied", false, false, true, 8, &linear},
};

/* Random weights with a say: biases that are not zero, norms that are not one. */
static float *random_weights(const struct kiln_table *table, uint64_t seed) {
    float *weights = kiln_alloc(table->size, sizeof *weights);
    for (size_t t = 0; t < table->n_tensors; t++) {
        const struct kiln_tensor *tensor = &table->tensors[t];
        const bool norm = tensor->rank == 1 && tensor->role != KILN_BQ && tensor->role != KILN_BK &&
                          tensor->role != KILN_BV;
        for (size_t i = 0; i < tensor->rows * tensor->cols; i++) {
            const size_t at = tensor->offset + i;
            const uint64_t bits = kiln_random_bits(seed, KILN_STREAM_TEST, at);
            const float uniform = (float)(bits >> 40) * 0x1p-23F - 1;
            weights[at] = norm ? 1 + 0.3F * uniform : 0.25F * uniform;
        }
    }
    return weights;
}

static void write_case(size_t i) {
    struct kiln_dims dims = {.dim = 64,
                             .hidden = 96,
                             .layers = 2,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_size = cases[i].head_size,
                             .vocab = VOCAB,
                             .seq = 64,
                             .tied = cases[i].tied,
                             .rms_eps = 1e-6F,
                             .rope_theta = 50000,
                             .qkv_bias = cases[i].qkv_bias,
                             .qk_norm = cases[i].qk_norm,
                             .rope = *cases[i].rope};
    struct kiln_table *table;
    struct kiln_err err;
    char name[200];
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    float *weights = random_weights(table, i), *logits = logits_of(table, weights);
    snprintf(name, sizeof name, "%s.logits", cases[i].name);
    test_file(name, logits, sizeof(float) * TOKENS * VOCAB);
    CHECK_OK(
        kiln_checkpoint_save(KILN_FORMAT_HF, test_path(cases[i].name), table, weights, NULL, &err),
        &err);
    for (int dtype = 0; dtype < KILN_DTYPES; dtype++) {
        const struct kiln_save_options how = {.dtype = (enum kiln_dtype)dtype};
        if (cases[i].rope->kind == KILN_ROPE_LLAMA3 && cases[i].qkv_bias) {
            continue;
        }
        snprintf(name, sizeof name, "%s.%s.gguf", cases[i].name, kiln_dtype_name(how.dtype));
        CHECK_OK(
            kiln_checkpoint_save(KILN_FORMAT_GGUF, test_path(name), table, weights, &how, &err),
            &err);
    }
    kiln_free(weights);
    kiln_free(logits);
    kiln_table_destroy(table);
}

TEST_WITHIN(folders_that_kiln_writes_say_the_same_in_transformers, 300) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_case(i);
    }
    test_python("tests/python/formats.py", folder_argument("check"));
}

TEST_WITHIN(gguf_files_that_kiln_writes_are_the_same_in_the_gguf_package, 300) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_case(i);
    }
    test_python("tests/python/formats.py", folder_argument("gguf"));
}

/* ---- the models at hand --------------------------------------------------------------------- */

static void check_same(const char *a, const char *b, float rms_eps, double tolerance) {
    struct kiln_model one, other;
    struct kiln_proof proof;
    struct kiln_err err;
    CHECK_OK(kiln_model_open(a, 1, &one, &err), &err);
    CHECK_OK(kiln_model_open(b, 1, &other, &err), &err);
    one.table->dims.rms_eps = other.table->dims.rms_eps = rms_eps;
    CHECK_EQ(one.table->size, other.table->size);
    CHECK_BYTES(one.weights, other.weights, one.table->size * sizeof(float));
    /* written as the one, read back against the other */
    const char *path = test_path("copy.gguf");
    one.table->dims.seq = other.table->dims.seq;
    CHECK_OK(kiln_checkpoint_save(KILN_FORMAT_GGUF, path, one.table, one.weights, NULL, &err),
             &err);
    CHECK_OK(kiln_model_prove(&other, KILN_FORMAT_GGUF, KILN_DTYPE_F32, path, &proof, &err), &err);
    CHECK(proof.logits <= tolerance);
    kiln_model_close(&one);
    kiln_model_close(&other);
}

/* Weights that are numbers and logits that are none: no proof. */
TEST(a_model_without_finite_logits_is_not_written) {
    struct kiln_model model;
    struct kiln_proof proof;
    struct kiln_err err;
    const struct kiln_save_options how = {.dtype = KILN_DTYPE_F32};
    CHECK_OK(kiln_model_open(test_data("stories260K.bin"), 1, &model, &err), &err);
    for (size_t i = 0; i < model.table->n_tensors; i++) {
        const struct kiln_tensor *t = &model.table->tensors[i];
        for (size_t j = 0; t->rank == 1 && j < t->cols; j++) {
            model.weights[t->offset + j] *= 1e30F; /* of the norms */
        }
    }
    const char *path = test_path("wild.bin");
    CHECK_FAILS(kiln_model_save(&model, KILN_FORMAT_LLAMA2C, path, NULL, NULL, &how, &proof, &err),
                KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "no finite logits");
    CHECK(access(path, F_OK) != 0);
    kiln_model_close(&model);
}

TEST(a_folder_and_a_bin_of_one_model_say_the_same) {
    check_same(test_data("hf-story"), test_data("story656K.bin"), 1e-6F, 1e-5);
}
TEST(a_gguf_file_and_a_bin_of_one_model_say_the_same) {
    check_same(test_data("stories260K.gguf"), test_data("stories260K.bin"), 1e-5F, 1e-5);
}

/* SPDX-License-Identifier: MIT
 *
 * Model families beyond plain Llama against transformers (tests/python/families.py): scaled RoPE,
 * biases of q, k, v, norms of heads, heads of their own size; tied and untied.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/io.h"
#include "infer/session.h"
#include "kernel/kernel.h"
#include "kiln/verify.h"
#include "kiln_test.h"

static const char *const cases[] = {"llama-linear", "llama-llama3",      "llama-yarn",  "qwen2",
                                    "qwen3",        "qwen2-untied-yarn", "qwen3-untied"};
enum { CASES = sizeof cases / sizeof cases[0] };

static void make_references(void) {
    char folder[1024];
    snprintf(folder, sizeof folder, "'%s'", test_folder());
    test_python("tests/python/families.py", folder);
}

/* Losses and every tensor's gradient, on one tier; false where this machine has it not. */
static bool check_case(const char *name, const char *tier, enum kiln_precision precision) {
    struct kiln_err err;
    struct kiln_verify_result result;
    const bool sim = precision == KILN_PRECISION_FP16;
    const struct kiln_verify_options options = {.reference = test_path(name),
                                                .device.id = sim ? KILN_SIM : KILN_CPU,
                                                .precision = precision,
                                                .threads = 2};
    setenv("KILN_CPU", tier, 1);
    const enum kiln_status status = kiln_verify_reference(&options, &result, &err);
    if (status == KILN_EUNSUPPORTED) {
        return false;
    }
    CHECK_OK(status, &err);
    if (!result.pass) {
        FAIL("%s %s %s: losses off by %g, %s by %g", name, tier, kiln_precision_name(precision),
             result.loss_error, result.worst.name, result.worst.error);
    }
    printf("      %s %s %s: losses off by %.2g, %s by %.2g\n", name, tier,
           kiln_precision_name(precision), result.loss_error, result.worst.name,
           result.worst.error);
    kiln_verify_free(&result);
    return true;
}

TEST_WITHIN(losses_and_gradients_of_families_are_those_of_transformers_on_every_tier, 300) {
    size_t n;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    make_references();
    for (size_t i = 0; i < CASES; i++) {
        for (size_t t = 0; t < n; t++) {
            if (check_case(cases[i], tiers[t].name, KILN_PRECISION_FP32)) {
                check_case(cases[i], tiers[t].name, KILN_PRECISION_BF16);
            }
        }
    }
}

/* Against scaled_dot_product_attention with a block-diagonal causal mask, and cross_entropy with
 * targets that are ignored. */
static const char *const masked[] = {"llama-documents", "qwen3-documents"};

TEST_WITHIN(losses_and_gradients_with_masks_are_those_of_pytorch_on_every_tier, 300) {
    size_t n;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    make_references();
    for (size_t i = 0; i < sizeof masked / sizeof masked[0]; i++) {
        for (size_t t = 0; t < n; t++) {
            if (check_case(masked[i], tiers[t].name, KILN_PRECISION_FP32)) {
                check_case(masked[i], tiers[t].name, KILN_PRECISION_BF16);
            }
        }
        check_case(masked[i], "ref", KILN_PRECISION_FP16);
    }
}

/* The references tell a mask from none. */
TEST_WITHIN(a_reference_with_masks_is_not_met_without_them, 300) {
    static const char *const keys[] = {"\"begin\"", "\"no_target\""};
    struct kiln_err err;
    struct kiln_verify_result result;
    make_references();
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char path[1200], *text;
        size_t size;
        snprintf(path, sizeof path, "%s/reference.json", test_path(masked[i]));
        CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
        char *key = strstr(text, keys[i]);
        CHECK(key != NULL);
        key[1] = 'x';
        CHECK_OK(kiln_write_file(path, text, size, &err), &err);
        kiln_free(text);
        const struct kiln_verify_options options = {
            .reference = test_path(masked[i]), .precision = KILN_PRECISION_FP32, .threads = 2};
        CHECK_OK(kiln_verify_reference(&options, &result, &err), &err);
        CHECK(!result.pass);
        kiln_verify_free(&result);
    }
}

TEST_WITHIN(losses_and_gradients_of_families_on_sim_are_those_of_transformers, 300) {
    make_references();
    for (size_t i = 0; i < CASES; i++) {
        check_case(cases[i], "ref", KILN_PRECISION_FP16);
    }
}

/* ---- generation ----------------------------------------------------------------------------- */

/* What a session says of a text, token after token or in blocks of `block`, beside what
 * transformers says. */
static void check_logits(const char *name, size_t block) {
    char path[1200];
    struct kiln_err err;
    struct kiln_checkpoint *file;
    struct kiln_table *table;
    struct kiln_pool *pool;
    struct kiln_session *session;
    struct kiln_map ids, want;
    snprintf(path, sizeof path, "%s/model.bin", test_path(name));
    CHECK_OK(kiln_checkpoint_open(path, &file, &err), &err);
    CHECK_STRING(kiln_checkpoint_format(file), "kiln");
    CHECK_OK(kiln_table_create(kiln_checkpoint_dims(file), &table, &err), &err);
    float *weights = kiln_alloc(table->size, sizeof *weights);
    CHECK_OK(kiln_checkpoint_load(file, table, weights, &err), &err);
    snprintf(path, sizeof path, "%s/tokens.u16", test_path(name));
    CHECK_OK(kiln_map_open(&ids, path, &err), &err);
    snprintf(path, sizeof path, "%s/logits.f32", test_path(name));
    CHECK_OK(kiln_map_open(&want, path, &err), &err);
    CHECK_OK(kiln_pool_create(2, &pool, &err), &err);
    const struct kiln_session_options options = {.precision = KILN_PRECISION_FP32};
    CHECK_OK(kiln_session_open(table, weights, pool, &options, &session, &err), &err);

    const size_t vocab = table->dims.vocab, seq = table->dims.seq;
    CHECK_EQ(want.size, seq * vocab * sizeof(float));
    const float *logits = (const void *)want.data;
    float *got = kiln_alloc(vocab, sizeof *got);
    for (size_t first = 0; first < seq; first += block) {
        uint32_t tokens[64];
        const size_t n = kiln_least(seq - first, block);
        for (size_t i = 0; i < n; i++) {
            const unsigned char *id = ids.data + 2 * (first + i);
            tokens[i] = (uint32_t)(id[0] | id[1] << 8);
        }
        CHECK_OK(kiln_session_feed(session, tokens, n, got, &err), &err);
        CHECK_NEAR_NORM(got, logits + (first + n - 1) * vocab, vocab, 3e-5);
    }
    kiln_free(got);
    kiln_session_close(session);
    kiln_pool_destroy(pool);
    kiln_map_close(&ids);
    kiln_map_close(&want);
    kiln_free(weights);
    kiln_table_destroy(table);
    kiln_checkpoint_close(file);
}

TEST_WITHIN(generation_from_families_gives_the_logits_of_transformers, 300) {
    make_references();
    for (size_t i = 0; i < CASES; i++) {
        check_logits(cases[i], 1);
        check_logits(cases[i], 17);
    }
}

/* SPDX-License-Identifier: MIT
 *
 * The arithmetic of a whole training step against float64 references, on every tier, and against
 * finite differences of its own loss.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "base/random.h"
#include "kiln/verify.h"
#include "kiln_test.h"
#include "train/engine.h"

/* Each tier that this processor has, with own products and with oneDNN's. */
static void on_every_tier(const char *folder, bool ref) {
    static const char *const providers[] = {"own", "onednn"};
    size_t n;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    for (size_t i = ref ? 0 : 2; i < 2 * n; i++) {
        for (int precision = KILN_PRECISION_FP32; precision <= KILN_PRECISION_BF16; precision++) {
            struct kiln_err err;
            struct kiln_verify_result result;
            const struct kiln_verify_options options = {
                .reference = test_reference(folder), .precision = precision, .threads = 2};
            setenv("KILN_CPU", tiers[i / 2].name, 1);
            setenv("KILN_GEMM", providers[i % 2], 1);
            enum kiln_status status = kiln_verify_reference(&options, &result, &err);
            if (status == KILN_EUNSUPPORTED) {
                continue;
            }
            CHECK_OK(status, &err);
            if (!result.pass) {
                FAIL("%s %s %s %s: losses off by %g, %s by %g", folder, tiers[i / 2].name,
                     providers[i % 2], kiln_precision_name(precision), result.loss_error,
                     result.worst.name, result.worst.error);
            }
            kiln_verify_free(&result);
        }
    }
}

TEST_WITHIN(tiny_mha_is_computed_right_on_every_tier, 120) { on_every_tier("tiny-mha", true); }
TEST_WITHIN(tiny_gqa_untied_is_computed_right_on_every_tier, 120) {
    on_every_tier("tiny-gqa-untied", true);
}
/* Plain C takes minutes for this one. */
TEST_WITHIN(small_gqa_is_computed_right_on_vector_tiers, 300) { on_every_tier("small-gqa", false); }

/* One process is all that verify has: as many steps as its budget has kernels for. */
TEST(steps_end_where_the_budget_does) {
    struct kiln_verify_options options = {
        .reference = test_reference("tiny-mha"), .precision = KILN_PRECISION_FP32, .threads = 1};
    struct kiln_verify_result all, some;
    struct kiln_err err;
    CHECK_OK(kiln_verify_reference(&options, &all, &err), &err);
    options.budget = 60; /* 54 usable; 5 a layer a step, and one for all */
    CHECK_OK(kiln_verify_reference(&options, &some, &err), &err);
    CHECK(all.pass && some.pass);
    CHECK_EQ(all.steps, 20);
    CHECK_EQ(some.steps, 53 / (5 * ((all.n_tensors - 2) / 9)));
    CHECK(some.worst.error == all.worst.error);
    kiln_verify_free(&all);
    kiln_verify_free(&some);
    options.budget = 8;
    CHECK_FAILS(kiln_verify_reference(&options, &some, &err), KILN_EBUDGET, &err);
    CHECK_CONTAINS(err.message, "nothing is compared across processes");
}

/* Verify tiny-mha in fp32 with four bytes of one of its files overwritten. */
static void verify_changed(const char *file, long at, const char *four_bytes,
                           struct kiln_verify_result *result) {
    struct kiln_err err;
    const char *from = test_reference("tiny-mha");
    const char *folder = test_path("reference");
    char command[4096];
    snprintf(command, sizeof command,
             "cp -r %s %s && chmod -R u+w %s && printf '%s' | "
             "dd of=%s/%s bs=1 seek=%ld conv=notrunc 2>/dev/null",
             from, folder, folder, four_bytes, folder, file, at);
    CHECK_EQ(system(command), 0);
    struct kiln_verify_options options = {
        .reference = folder, .precision = KILN_PRECISION_FP32, .threads = 1};
    CHECK_OK(kiln_verify_reference(&options, result, &err), &err);
}

/* Does verify see a fault? One weight of the model is changed: the losses must not match. */
TEST(verify_fails_where_the_model_is_another) {
    struct kiln_verify_result result;
    verify_changed("model.bin", 4028, "\\000\\000\\000\\100", &result);
    CHECK(!result.pass);
    kiln_verify_free(&result);
}

/* A NaN in the comparison is a failure, whatever comes after it. */
TEST(verify_fails_on_a_nan) {
    struct kiln_verify_result result;
    verify_changed("grads.f32", 400, "\\000\\000\\300\\177", &result);
    CHECK(!result.pass);
    CHECK(isnan(result.worst.error));
    kiln_verify_free(&result);
}

/* Directional finite differences: d/dt loss(w + t u) at t = 0 is the gradient along u. A random u
 * per tensor, central differences; the loss is computed in fp32, so t is chosen where truncation
 * (t^2) and rounding (1e-7/t) are both small: agreement to 1e-2 of the larger. */
static void fixed_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                        uint32_t *starts) {
    (void)starts;
    const uint32_t *ids = context;
    (void)index;
    memcpy(tokens, ids, 2 * 19 * sizeof *tokens);
    memcpy(targets, ids + 1, 2 * 19 * sizeof *targets);
}

static double loss_at(struct kiln_engine *engine, uint32_t *tokens) {
    struct kiln_err err;
    struct kiln_device *device = engine->device;
    for (size_t i = 0; i < device->table->n_matrices; i++) {
        for (size_t first = 0; first < device->table->matrices[i].rows; first += 64) {
            const size_t rest = device->table->matrices[i].rows - first;
            device->ops->refresh(device, i, first, rest < 64 ? rest : 64, &device->weights);
        }
    }
    kiln_executor_begin(&engine->executor, true, 1, fixed_batch, tokens);
    CHECK_OK(kiln_executor_window(&engine->executor, &err), &err);
    return engine->executor.loss_sum;
}

static void check_differences(struct kiln_dims dims) {
    struct kiln_err err;
    CHECK_OK(kiln_dims_check(&dims, &err), &err);
    struct kiln_table *table;
    struct kiln_engine engine;
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    float *weights = kiln_alloc(table->size, sizeof *weights);
    float *gradients = kiln_alloc(table->size, sizeof *gradients);
    uint32_t tokens[2 * 19 + 1];
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        tokens[i] = (uint32_t)kiln_random_below(3, KILN_STREAM_TEST, i, dims.vocab);
    }
    kiln_weights_init(table, 5, weights);
    for (size_t i = 0; i < table->size; i++) {
        weights[i] *= 4.0f; /* far enough from linear that every path matters */
    }
    for (size_t i = 0; i < table->n_tensors; i++) { /* biases, and norms that squared are no 16 */
        const struct kiln_tensor *t = &table->tensors[i];
        const bool norm = t->role == KILN_Q_NORM || t->role == KILN_K_NORM;
        for (size_t j = 0; j < t->cols && (norm || t->role >= KILN_BQ); j++) {
            weights[t->offset + j] =
                (float)((norm ? 1.0 : 0.0) + 0.4 * kiln_random_normal(8, KILN_STREAM_TEST, j + i));
        }
    }
    const struct kiln_device_options options = {
        .shape = {2, 19}, .precision = KILN_PRECISION_FP32, .training = true};
    const struct kiln_tensor *embed = kiln_table_find(table, KILN_EMBED, KILN_NO_LAYER);
    const struct kiln_engine_memory memory = {
        .weights = weights,
        .optimizer.gradients = {.all = gradients, .embedding = gradients + embed->offset}};
    const struct kiln_plan_request request = kiln_plan_simple(table, &options, 1, 2);
    CHECK_OK(kiln_engine_plan(&engine, table, &request, &err), &err);
    CHECK_OK(kiln_engine_open(&engine, table, &memory, &err), &err);
    engine.executor.scale = 1.0f;
    kiln_executor_begin(&engine.executor, false, 1, fixed_batch, tokens);
    CHECK_OK(kiln_executor_window(&engine.executor, &err), &err);
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        size_t n = t->rows * t->cols;
        double along = 0;
        float *kept = kiln_alloc(n, sizeof *kept), *u = kiln_alloc(n, sizeof *u);
        memcpy(kept, weights + t->offset, n * sizeof *kept);
        for (size_t j = 0; j < n; j++) {
            u[j] = (float)kiln_random_normal(7, KILN_STREAM_TEST, i * 100000 + j);
            along += (double)u[j] * (double)gradients[t->offset + j];
        }
        /* Two steps, large enough that the rounding of a loss in fp32 is small beside them, and
         * their quotients extrapolated to none (Richardson): off by the step's fourth power. */
        double quotient[2];
        for (int h = 0; h < 2; h++) {
            const double step = h ? 1e-3 : 2e-3;
            double side[2];
            for (int s = 0; s < 2; s++) {
                for (size_t j = 0; j < n; j++) {
                    weights[t->offset + j] = kept[j] + (float)((s ? -step : step) * (double)u[j]);
                }
                side[s] = loss_at(&engine, tokens);
            }
            quotient[h] = (side[0] - side[1]) / (2 * step);
        }
        memcpy(weights + t->offset, kept, n * sizeof *kept);
        const double difference = (4 * quotient[1] - quotient[0]) / 3;
        if (!(fabs(difference - along) <= 1e-2 * fmax(fabs(along), 1.0))) {
            FAIL("%s: gradient along u is %g, the difference quotient %g", t->name, along,
                 difference);
        }
        kiln_free(kept);
        kiln_free(u);
    }
    kiln_engine_close(&engine);
    kiln_free(weights);
    kiln_free(gradients);
    kiln_table_destroy(table);
}

static const struct kiln_dims small = {.dim = 24,
                                       .hidden = 40,
                                       .layers = 2,
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .vocab = 50,
                                       .seq = 19,
                                       .rms_eps = 1e-5f,
                                       .rope_theta = 10000.0f};

TEST_WITHIN(gradients_are_finite_differences_of_the_loss, 120) { check_differences(small); }

/* On every tier: biases, norms of heads that are larger than D/H, RoPE that scales. */
TEST_WITHIN(gradients_of_biases_and_norms_of_heads_are_finite_differences, 300) {
    size_t n;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    struct kiln_dims dims = small;
    dims.qkv_bias = dims.qk_norm = true;
    dims.head_size = 10;
    dims.rope = (struct kiln_rope){.kind = KILN_ROPE_YARN, .factor = 3, .original_seq = 6};
    for (size_t i = 0; i < n; i++) {
        if (!tiers[i].present || tiers[i].present()) {
            setenv("KILN_CPU", tiers[i].name, 1);
            check_differences(dims);
        }
    }
}

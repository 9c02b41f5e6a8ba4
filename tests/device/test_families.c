/* SPDX-License-Identifier: MIT
 *
 * test_families.c: models of other families (biases, norms of heads, heads of their own size,
 * scaled rotations) through MIL programs on the simulator: losses and all gradients against the
 * cpu's in fp32, which tests/train checks against difference quotients.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "device/device.h"
#include "kiln_test.h"
#include "train/engine.h"

enum { BATCH = 2, SEQ = 21 }; /* W is 32: padding is there */

static void fixed_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                        uint32_t *starts) {
    const size_t vocab = *(const size_t *)context;
    for (size_t i = 0; i < (size_t)BATCH * SEQ; i++) {
        const uint64_t at = index * BATCH * SEQ + i;
        tokens[i] = (uint32_t)kiln_random_below(3, KILN_STREAM_TEST, at, vocab);
        targets[i] = (uint32_t)kiln_random_below(4, KILN_STREAM_TEST, at, vocab);
        if (starts) { /* each sequence has documents of its own */
            const uint32_t t = (uint32_t)(i % SEQ), first = 3 + (uint32_t)(i / SEQ);
            starts[i] = t < first ? 0 : t < 2 * first ? first : 2 * first;
        }
    }
}

/* Loss and gradients of a window of two micro-batches. */
struct outcome {
    double loss;
    float *gradients;
};

/* What was moved through surfaces is what plans count: both micro-batches through all layers, and
 * all weights once. */
static void check_traffic(const struct kiln_table *table, const struct kiln_device_options *options,
                          const struct kiln_device *device) {
    struct kiln_device_traffic t;
    struct kiln_device_traffic of_model;
    struct kiln_table *model;
    struct kiln_err err;
    kiln_device_traffic(table, options, &t);
    CHECK_OK(kiln_table_create(&table->dims, &model, &err), &err); /* frozen weights, too */
    kiln_device_traffic(model, options, &of_model);
    kiln_table_destroy(model);
    const uint64_t layers = 2 * table->dims.layers;
    CHECK_EQ(device->counts.surface_written,
             layers * (t.forward_kept.written + t.backward.written) + 2 * t.head.written +
                 of_model.weights.written);
    CHECK_EQ(device->counts.surface_read,
             layers * (t.forward_kept.read + t.backward.read) + 2 * t.head.read + t.weights.read);
}

static struct outcome run(const struct kiln_table *table, float *weights,
                          struct kiln_device_choice choice, bool documents, float scale) {
    const struct kiln_device_options options = {
        .device = choice,
        .shape = {BATCH, SEQ},
        .precision = choice.id == KILN_CPU ? KILN_PRECISION_FP32 : KILN_PRECISION_FP16,
        .training = true,
        .doc_mask = documents};
    const size_t trained = kiln_trained_size(table);
    const bool frozen = table->trained > 0;
    struct outcome out = {.gradients = kiln_alloc(trained, sizeof(float))};
    float *embedding = kiln_alloc(table->dims.vocab * table->dims.dim, sizeof(float));
    size_t vocab = table->dims.vocab;
    struct kiln_engine engine;
    struct kiln_err err;
    CHECK(out.gradients && embedding);
    const struct kiln_engine_memory memory = {
        .weights = weights,
        .optimizer.gradients = {.all = out.gradients, .embedding = frozen ? NULL : embedding}};
    struct kiln_plan_request request = kiln_plan_simple(table, &options, 2, 2);
    request.doc_mask = documents;
    CHECK_OK(kiln_engine_plan(&engine, table, &request, &err), &err);
    CHECK_OK(kiln_engine_open(&engine, table, &memory, &err), &err);
    engine.executor.scale = scale;
    kiln_executor_begin(&engine.executor, false, 2, fixed_batch, &vocab);
    CHECK_OK(kiln_executor_window(&engine.executor, &err), &err);
    out.loss = engine.executor.loss_sum;
    check_traffic(table, &options, engine.device);
    kiln_engine_close(&engine);
    const struct kiln_tensor *embed = kiln_table_find(table, KILN_EMBED, KILN_NO_LAYER);
    for (size_t i = 0; !frozen && i < vocab * table->dims.dim; i++) {
        out.gradients[embed->offset + i] =
            embedding[i] + (table->dims.tied ? out.gradients[embed->offset + i] : 0.0f);
    }
    for (size_t i = 0; i < trained; i++) {
        out.gradients[i] /= scale;
    }
    kiln_free(embedding);
    return out;
}

static const struct kiln_device_choice choices[] = {
    {.id = KILN_SIM, .extras = true},
    {.id = KILN_SIM},
    {.id = KILN_SIM, .dynamic = true},
};

/* Weights far from where training begins: every path matters. */
static float *random_weights(const struct kiln_table *table) {
    float *weights = kiln_alloc(table->size, sizeof *weights);
    CHECK(weights != NULL);
    kiln_weights_init(table, 5, weights);
    for (size_t i = table->n_base; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        for (size_t e = 0; e < t->rows * t->cols; e++) { /* B, too: else dA is 0 */
            weights[t->offset + e] = 0.7f *
                                     (float)kiln_random_normal(8, KILN_STREAM_TEST, t->offset + e) /
                                     sqrtf((float)t->cols);
        }
    }
    for (size_t i = 0; i < table->n_base; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        for (size_t e = 0; e < t->rows * t->cols; e++) {
            float *w = &weights[t->offset + e];
            *w = t->rank == 2
                     ? 5.0f * *w
                     : *w + 0.4f * (float)kiln_random_normal(6, KILN_STREAM_TEST, t->offset + e);
        }
    }
    return weights;
}

static void compare(const char *name, struct kiln_dims dims, const struct kiln_lora *lora,
                    bool documents) {
    struct kiln_table *table;
    struct kiln_err err;
    dims.layers = 2;
    dims.vocab = 60;
    dims.seq = SEQ;
    dims.rms_eps = 1e-6f;
    dims.rope_theta = 1000.0f;
    CHECK_OK(kiln_table_create_lora(&dims, lora, &table, &err), &err);
    float *weights = random_weights(table);
    const struct outcome want =
        run(table, weights, (struct kiln_device_choice){.id = KILN_CPU}, documents, 1);
    for (size_t c = 0; c < sizeof choices / sizeof choices[0]; c++) {
        const struct outcome got = run(table, weights, choices[c], documents, 16);
        double worst = 0;
        CHECK_CLOSE(got.loss / want.loss, 1, 2e-3);
        for (size_t i = lora->rank > 0 ? table->n_base : 0; i < table->n_tensors; i++) {
            const struct kiln_tensor *t = &table->tensors[i];
            const size_t first = kiln_trained_at(table, t->offset);
            double off = 0, all = 0;
            for (size_t e = first; e < first + t->rows * t->cols; e++) {
                const double a = (double)got.gradients[e], b = (double)want.gradients[e];
                off += (a - b) * (a - b);
                all += b * b;
            }
            if (!(all > 0 && sqrt(off / all) <= 1e-2)) {
                FAIL("%s, choice %zu: gradient of %s off by %g of %g", name, c, t->name, sqrt(off),
                     sqrt(all));
            }
            worst = fmax(worst, sqrt(off / all));
        }
        printf("      %-16s %-7s %-6s loss %.1e, worst gradient %.1e\n", name,
               choices[c].dynamic ? "dynamic" : "baked", choices[c].extras ? "extras" : "plain",
               fabs(got.loss / want.loss - 1), worst);
        kiln_free(got.gradients);
    }
    kiln_free(want.gradients);
    kiln_free(weights);
    kiln_table_destroy(table);
}

static void gradients_are_those_of_the_cpu(const char *name, struct kiln_dims dims) {
    compare(name, dims, &(struct kiln_lora){.rank = 0}, false);
}

TEST_WITHIN(documents_are_masked_on_sim_as_on_cpu, 120) {
    struct kiln_dims dims = {.dim = 48, .hidden = 80, .heads = 4, .kv_heads = 2, .tied = true};
    compare("documents", dims, &(struct kiln_lora){.rank = 0}, true);
    dims.qkv_bias = dims.qk_norm = true;
    compare("qwen, documents", dims, &(struct kiln_lora){.rank = 0}, true);
}
TEST_WITHIN(adapters_are_trained_on_sim_as_on_cpu, 120) {
    struct kiln_dims dims = {.dim = 48, .hidden = 80, .heads = 4, .kv_heads = 2, .tied = true};
    compare("adapters", dims, &(struct kiln_lora){5, 8, KILN_LORA_ALL}, false);
    dims.qkv_bias = dims.qk_norm = true;
    dims.head_size = 16;
    compare("qwen, adapters", dims, &(struct kiln_lora){2, 3, KILN_LORA_Q | KILN_LORA_DOWN}, true);
}
TEST_WITHIN(a_model_shaped_as_qwen2_trains_on_sim_as_on_cpu, 120) {
    gradients_are_those_of_the_cpu(
        "qwen2",
        (struct kiln_dims){
            .dim = 48, .hidden = 80, .heads = 6, .kv_heads = 2, .tied = true, .qkv_bias = true});
}
TEST_WITHIN(a_model_shaped_as_qwen3_trains_on_sim_as_on_cpu, 120) {
    gradients_are_those_of_the_cpu("qwen3", (struct kiln_dims){.dim = 48,
                                                               .hidden = 80,
                                                               .heads = 4,
                                                               .kv_heads = 2,
                                                               .head_size = 16,
                                                               .tied = true,
                                                               .qk_norm = true});
}
TEST_WITHIN(a_model_with_all_of_it_trains_on_sim_as_on_cpu, 120) {
    gradients_are_those_of_the_cpu(
        "all",
        (struct kiln_dims){.dim = 64,
                           .hidden = 80,
                           .heads = 4,
                           .kv_heads = 1,
                           .head_size = 8,
                           .qkv_bias = true,
                           .qk_norm = true,
                           .rope = {.kind = KILN_ROPE_YARN, .factor = 4.0f, .original_seq = 8}});
}

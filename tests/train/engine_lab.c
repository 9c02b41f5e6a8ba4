/* SPDX-License-Identifier: MIT */
#include "train/engine_lab.h"

#include "base/random.h"
#include "kiln_test.h"

bool engine_lab_deterministic;

static void random_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                         uint32_t *starts) {
    (void)starts;
    const struct kiln_plan_request *r = context;
    const uint64_t n = r->batch * r->seq;
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t at = index * n + i;
        tokens[i] = (uint32_t)kiln_random_below(1, KILN_STREAM_TEST, at, (uint32_t)r->dims.vocab);
        targets[i] = (uint32_t)kiln_random_below(2, KILN_STREAM_TEST, at, (uint32_t)r->dims.vocab);
    }
}

void engine_lab_open(struct engine_lab *lab, const struct kiln_plan_request *r, size_t held,
                     size_t cut) {
    struct kiln_err err;
    *lab = (struct engine_lab){.updates = 0};
    CHECK_OK(kiln_table_create_lora(&r->dims, &r->lora, &lab->table, &err), &err);
    const size_t bytes = lab->table->size * sizeof(float);
    const size_t embedding = r->dims.vocab * r->dims.dim * sizeof(float);
    size_t planned = kiln_arena_reserve(0, embedding);
    for (int i = 0; i < 4; i++) {
        planned = kiln_arena_reserve(planned, bytes);
    }
    CHECK_OK(kiln_arena_open(&lab->arena, planned, &err), &err);
    struct kiln_optimizer_parts *parts = &lab->memory.optimizer;
    *parts = (struct kiln_optimizer_parts){
        .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1.0};
    lab->memory.weights = kiln_arena_take(&lab->arena, bytes);
    parts->m = kiln_arena_take(&lab->arena, bytes);
    parts->v = kiln_arena_take(&lab->arena, bytes);
    parts->gradients.all = kiln_arena_take(&lab->arena, bytes);
    float *lookup = kiln_arena_take(&lab->arena, embedding);
    parts->gradients.embedding =
        lab->table->trained > 0 ? NULL
        : r->dims.tied
            ? lookup
            : parts->gradients.all + kiln_table_find(lab->table, KILN_EMBED, KILN_NO_LAYER)->offset;
    kiln_weights_init(lab->table, 1, lab->memory.weights);
    kiln_lora_init(lab->table, 1, lab->memory.weights);
    lab->memory.deterministic = engine_lab_deterministic;
    lab->memory.micro_batches = r->accum;
    CHECK_OK(kiln_engine_plan(&lab->engine, lab->table, r, &err), &err);
    lab->engine.plan.request = &lab->engine.request;
    if (held > 0) {
        CHECK_OK(kiln_plan_hold(lab->table, &lab->engine.plan, held, cut, NULL, &err), &err);
    }
    CHECK(!lab->engine.plan.layout.in_state);
    CHECK_OK(kiln_engine_open(&lab->engine, lab->table, &lab->memory, &err), &err);
}

void engine_lab_close(struct engine_lab *lab) {
    kiln_engine_close(&lab->engine);
    kiln_arena_close(&lab->arena);
    kiln_table_destroy(lab->table);
}

double engine_lab_window(struct engine_lab *lab) {
    const struct kiln_plan_request *r = &lab->engine.request;
    struct kiln_executor *x = &lab->engine.executor;
    struct kiln_err err;
    x->scale = 1.0f / (float)(r->batch * r->seq * r->accum);
    if (x->reducer) {
        CHECK_OK(kiln_reducer_begin(x->reducer, false, r->accum, &err), &err);
    }
    kiln_executor_begin(x, false, r->accum, random_batch, (void *)(uintptr_t)r);
    CHECK_OK(kiln_executor_window(x, &err), &err);
    if (x->reducer) {
        CHECK_OK(kiln_reducer_finish(x->reducer, &x->loss_sum, &err), &err);
    }
    return x->loss_sum;
}

void engine_lab_update(struct engine_lab *lab, double norm) {
    const struct kiln_plan_action update = {.what = KILN_UPDATE};
    struct kiln_err err;
    CHECK_OK(kiln_executor_do(&lab->engine.executor, &update, &err), &err);
    kiln_optimizer_update(lab->engine.optimizer, ++lab->updates, 1e-2, norm, 1);
}

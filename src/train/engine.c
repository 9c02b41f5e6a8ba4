/* SPDX-License-Identifier: MIT */
#include "train/engine.h"

#include <string.h>

#include "model/table.h"

enum kiln_status kiln_engine_plan(struct kiln_engine *e, const struct kiln_table *table,
                                  const struct kiln_plan_request *request, struct kiln_err *err) {
    const struct kiln_plan_stage *s = &request->stage;
    *e = (struct kiln_engine){.request = *request, .whole = table};
    if (s->stages > 1) {
        const size_t first = kiln_stage_first(s->layers, s->stages, s->number);
        KILN_TRY(kiln_table_stage(table, first, first + request->dims.layers, &e->stage, err));
    }
    return kiln_plan_fit(e->stage ? e->stage : table, &e->request, &e->plan, err);
}

struct kiln_weights kiln_engine_weights(const struct kiln_engine *e, struct kiln_weights weights) {
    weights.table = e->stage ? e->stage : e->whole;
    return weights;
}

static size_t first_layer(const struct kiln_engine *e) {
    const struct kiln_plan_stage *s = &e->request.stage;
    return e->stage ? kiln_stage_first(s->layers, s->stages, s->number) : 0;
}

/* New weights of the model are taken where the device has them. */
static void refresh(void *context, size_t matrix, size_t first, size_t rows,
                    const struct kiln_weights *weights) {
    struct kiln_engine *e = context;
    struct kiln_device *device = e->device;
    if (e->stage) {
        const bool head = matrix + 1 == e->whole->n_matrices;
        matrix = head && !kiln_stage_classifies(&e->request)
                     ? KILN_NO_MATRIX
                     : kiln_table_stage_matrix(e->whole, e->stage, first_layer(e), matrix);
    }
    if (matrix != KILN_NO_MATRIX) {
        const struct kiln_weights seen = kiln_engine_weights(e, *weights);
        device->ops->refresh(device, matrix, first, rows, &seen);
    }
}

/* A layer has its new weights: its kernels may be compiled. */
static void updated(void *context, size_t gate) {
    const struct kiln_engine *e = context;
    const size_t first = first_layer(e), layers = e->plan.schedule.layers;
    if (gate == e->whole->dims.layers + 1) {
        gate = layers + 1;
    } else {
        gate = gate < first ? 0 : gate - first < layers ? gate - first : layers;
    }
    kiln_compiler_gate(e->executor.sets.compiler, gate);
}

static size_t stages_of(const struct kiln_engine *e) {
    return e->stage ? e->request.stage.stages : 1;
}

enum kiln_status kiln_engine_open(struct kiln_engine *e, const struct kiln_table *table,
                                  const struct kiln_engine_memory *memory, struct kiln_err *err) {
    const struct kiln_plan_request *r = &e->request;
    const struct kiln_device_options options = kiln_plan_device(r);
    KILN_TRY(kiln_pool_create(r->threads > 0 ? r->threads : 1, &e->pool, err));
    const struct kiln_weights weights = kiln_engine_weights(
        e, memory->active.table ? memory->active : kiln_weights_flat(table, memory->weights));
    const struct kiln_grid grid =
        kiln_grid_of(kiln_ranks_count(memory->ranks), stages_of(e), kiln_ranks_mine(memory->ranks));
    KILN_TRY(kiln_spans_create(&e->spans, err));
    KILN_TRY(kiln_device_open(weights.table, e->pool, &weights, &options, &e->device, err));
    kiln_spans_keep(e->spans, false); /* unless somebody lists them */
    e->device->spans = e->spans;
    KILN_TRY(kiln_executor_open(&e->executor, &e->plan, e->device, e->spans, err));
    kiln_executor_generation(&e->executor, memory->generation, &weights, NULL);
    if (e->stage) {
        const size_t floats = r->batch * r->seq * r->dims.dim;
        KILN_TRY(kiln_pipe_open(&e->pipe, memory->ranks, &grid, floats, err));
        e->executor.pipe = &e->pipe;
    }
    if (r->forward_only) {
        return KILN_OK;
    }
    const bool delayed = e->plan.schedule.overlap == KILN_OVERLAP_DELAYED;
    struct kiln_optimizer_parts parts = memory->optimizer;
    parts.table = table;
    parts.pool = e->pool;
    /* A delayed run compiles all that is new, from snapshots: nothing is taken in place. */
    parts.refresh = delayed || !e->device->ops->refresh ? NULL : refresh;
    parts.refresh_context = e;
    /* Weights that are spread come when all have been updated (shards.h). */
    parts.later = memory->holding != NULL;
    parts.seen = parts.later ? weights : parts.seen;
    parts.updated = options.beside && !delayed && !parts.later ? updated : NULL;
    parts.updated_context = e;
    parts.weights = memory->weights;
    const struct kiln_reducer_parts reduced = {.table = table,
                                               .pool = e->pool,
                                               .ranks = memory->ranks,
                                               .spans = e->spans,
                                               .gradients = parts.gradients,
                                               .micro_batches = memory->micro_batches,
                                               .stages = stages_of(e),
                                               .deterministic = memory->deterministic,
                                               .holding = memory->holding,
                                               .local = memory->local,
                                               .narrow = memory->narrow};
    KILN_TRY(kiln_reducer_create(&reduced, &e->reducer, err));
    e->executor.reducer = e->reducer;
    parts.folded = e->reducer != NULL && kiln_reducer_folds(e->reducer) && !memory->local;
    KILN_TRY(kiln_optimizer_create(&parts, &e->optimizer, err));
    e->executor.gradients = parts.gradients;
    e->executor.gradients.sums = kiln_optimizer_sums(e->optimizer);
    return KILN_OK;
}

void kiln_engine_close(struct kiln_engine *e) {
    if (e->device) { /* a call that failed may have left work that reads the executor's memory */
        struct kiln_err ignored;
        (void)e->device->ops->drain(e->device, &ignored);
    }
    kiln_optimizer_destroy(e->optimizer);
    kiln_reducer_destroy(e->reducer);
    kiln_executor_close(&e->executor);
    kiln_pipe_close(&e->pipe);
    kiln_device_close(e->device);
    kiln_pool_destroy(e->pool);
    kiln_spans_destroy(e->spans);
    kiln_plan_close(&e->plan);
    kiln_table_destroy(e->stage);
    memset(e, 0, sizeof *e);
}

/* SPDX-License-Identifier: MIT */
#include "train/engine.h"

#include <string.h>

enum kiln_status kiln_engine_plan(struct kiln_engine *e, const struct kiln_table *table,
                                  const struct kiln_plan_request *request, struct kiln_err *err) {
    *e = (struct kiln_engine){.request = *request};
    return kiln_plan_fit(table, &e->request, &e->plan, err);
}

/* A layer has its new weights: its kernels may be compiled. */
static void updated(void *context, size_t gate) {
    const struct kiln_engine *e = context;
    kiln_compiler_gate(e->executor.sets.compiler, gate);
}

enum kiln_status kiln_engine_open(struct kiln_engine *e, const struct kiln_table *table,
                                  const struct kiln_engine_memory *memory, struct kiln_err *err) {
    const struct kiln_plan_request *r = &e->request;
    const struct kiln_device_options options = kiln_plan_device(r);
    KILN_TRY(kiln_pool_create(r->threads > 0 ? r->threads : 1, &e->pool, err));
    const struct kiln_weights weights =
        memory->active.table ? memory->active : kiln_weights_flat(table, memory->weights);
    KILN_TRY(kiln_spans_create(&e->spans, err));
    KILN_TRY(kiln_device_open(table, e->pool, &weights, &options, &e->device, err));
    kiln_spans_keep(e->spans, false); /* unless somebody lists them */
    e->device->spans = e->spans;
    KILN_TRY(kiln_executor_open(&e->executor, &e->plan, e->device, e->spans, err));
    kiln_executor_generation(&e->executor, memory->generation, &weights, NULL);
    if (r->forward_only) {
        return KILN_OK;
    }
    const bool delayed = e->plan.schedule.overlap == KILN_OVERLAP_DELAYED;
    struct kiln_optimizer_parts parts = memory->optimizer;
    parts.table = table;
    parts.pool = e->pool;
    /* A delayed run compiles all that is new, from snapshots: nothing is taken in place. */
    parts.device = delayed ? NULL : e->device;
    parts.updated = options.beside && !delayed ? updated : NULL;
    parts.updated_context = e;
    parts.weights = memory->weights;
    const struct kiln_reducer_parts reduced = {.table = table,
                                               .pool = e->pool,
                                               .ranks = memory->ranks,
                                               .spans = e->spans,
                                               .gradients = parts.gradients,
                                               .micro_batches = memory->micro_batches,
                                               .deterministic = memory->deterministic,
                                               .local = memory->local,
                                               .narrow = memory->narrow};
    KILN_TRY(kiln_reducer_create(&reduced, &e->reducer, err));
    e->executor.reducer = e->reducer;
    parts.folded = e->reducer != NULL && !memory->local;
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
    kiln_device_close(e->device);
    kiln_pool_destroy(e->pool);
    kiln_spans_destroy(e->spans);
    kiln_plan_close(&e->plan);
    memset(e, 0, sizeof *e);
}

/* SPDX-License-Identifier: MIT
 *
 * memory.c: FLOPs and bytes by part.
 */
#include "base/mem.h"
#include "model/table.h"
#include "plan/groups.h"
#include "state/state.h"

struct kiln_flops kiln_plan_flops(const struct kiln_dims *d, size_t batch, size_t seq) {
    const double n = (double)batch * (double)seq;
    const double hk = (double)(d->heads * d->head_size), gk = (double)(d->kv_heads * d->head_size);
    const double matrices = (double)d->layers * ((double)d->dim * (2 * hk + 2 * gk) +
                                                 3.0 * (double)d->dim * (double)d->hidden);
    struct kiln_flops f;
    f.forward = f.dx = f.dw = 2.0 * matrices * n;
    f.attention = (double)d->layers * 2.0 * hk * 5.0 * (double)seq * n;
    f.classifier = 3.0 * 2.0 * (double)d->vocab * (double)d->dim * n;
    f.total = f.forward + f.dx + f.dw + f.attention + f.classifier;
    f.device = f.forward + f.dx + f.attention;
    f.host = f.total - f.device;
    return f;
}

enum kiln_status kiln_memory_parts(const struct kiln_table *table,
                                   const struct kiln_plan_request *request,
                                   struct kiln_memory *fixed, uint64_t *residual, uint64_t *taps,
                                   struct kiln_err *err) {
    const struct kiln_dims *d = &table->dims;
    const struct kiln_device_options options = {
        .shape = {request->batch, request->seq},
        .precision = KILN_PRECISION_BF16,
        .training = true,
    };
    struct kiln_device_sizes sizes;
    KILN_TRY(kiln_device_sizes_cpu(table, &options, &sizes, err));
    *residual = sizes.activation[KILN_RESIDUAL];
    *taps = sizes.activation[KILN_TAPS_ATTENTION] + sizes.activation[KILN_TAPS_FEED_FORWARD];
    *fixed = (struct kiln_memory){
        .weights = table->size * sizeof(float),
        .moments = 2 * table->size * sizeof(float),
        .gradients = kiln_arena_reserve(0, table->size * sizeof(float)),
        .kernels = sizes.kernels,
        .workspace = sizes.workspace,
        .state_file = kiln_state_bytes(table),
    };
    if (d->tied) {
        fixed->gradients = kiln_arena_reserve(fixed->gradients, d->vocab * d->dim * sizeof(float));
    }
    return KILN_OK;
}

void kiln_memory_kept(const struct kiln_kept_shape *shape, uint64_t residual, uint64_t taps,
                      uint64_t tokens, struct kiln_memory *memory) {
    const uint64_t layer = 2 * residual + taps; /* the inputs of both halves, their taps */
    const uint64_t run = shape->run * layer;
    memory->activations_kept =
        shape->held * (shape->full * layer + (shape->inputs + shape->edges) * residual +
                       tokens * sizeof(uint32_t));
    /* The gradient flows back in one block; a layer whose taps are not kept runs in scratch. */
    memory->activations_live = shape->held * residual + (shape->long_runs ? shape->held : 1) * run;
    memory->total = memory->weights + memory->moments + memory->gradients + memory->kernels +
                    memory->activations_kept + memory->activations_live + memory->workspace;
}

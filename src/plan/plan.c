/* SPDX-License-Identifier: MIT */
#include "plan/plan.h"

#include "base/mem.h"

void kiln_plan_make(const struct kiln_device *device, bool training, struct kiln_plan *plan) {
    const struct kiln_table *table = device->table;
    const struct kiln_dims *d = &table->dims;
    *plan = (struct kiln_plan){.shape = device->shape, .training = training};
    plan->residual = device->ops->activation_bytes(device, KILN_RESIDUAL);
    plan->taps[KILN_ATTENTION] = device->ops->activation_bytes(device, KILN_TAPS_ATTENTION);
    plan->taps[KILN_FEED_FORWARD] = device->ops->activation_bytes(device, KILN_TAPS_FEED_FORWARD);
    /* Training: every half-layer's input, the last output, and one dx. Otherwise two take turns. */
    plan->n_residual = training ? 2 * d->layers + 2 : 2;
    plan->n_taps = training ? d->layers : 1;

    struct kiln_plan_memory *m = &plan->memory;
    m->weights = table->size * sizeof(float);
    if (training) {
        m->moments = 2 * m->weights;
        m->gradients = kiln_arena_reserve(0, m->weights);
        if (d->tied) {
            m->gradients = kiln_arena_reserve(m->gradients, d->vocab * d->dim * sizeof(float));
        }
    }
    m->activations = plan->n_residual * plan->residual;
    for (int half = 0; half < KILN_HALVES; half++) {
        m->activations += plan->n_taps * plan->taps[half];
    }
    device->ops->memory(device, &m->kernels, &m->workspace);
    m->total = m->weights + m->moments + m->gradients + m->kernels + m->activations + m->workspace;
    plan->flops = kiln_plan_flops(d, plan->shape.batch, plan->shape.seq);
}

/* SPDX-License-Identifier: MIT */
#include "train/cost.h"

#include <math.h>

#include "base/machine.h"

void kiln_cost_spend(struct kiln_trainer *trainer, struct kiln_cursor *cursor, bool evaluating) {
    struct kiln_executor *x = &trainer->engine.executor;
    const struct kiln_device_counts *counts = &trainer->engine.device->counts;
    const struct kiln_device_counts *before = &trainer->counted;
    const double now = kiln_now_s();
    cursor->compiles += counts->compiles - before->compiles;
    if (!evaluating) {
        cursor->ms += (now - trainer->since) * 1e3;
        const double passes = x->forward_s + x->backward_s;
        const double evaluated = counts->evaluate_s - before->evaluate_s;
        const bool host = trainer->engine.request.device.id != KILN_CPU; /* works beside */
        cursor->device_ms += (host ? evaluated : passes) * 1e3;
        cursor->compile_ms += kiln_spans_sum(trainer->engine.spans, KILN_SPAN_COMPILE) * 1e3;
        cursor->dw_wait_ms += (counts->dw_wait_s - before->dw_wait_s) * 1e3;
        cursor->io_ms += (counts->io_s - before->io_s) * 1e3;
        cursor->surface_written += counts->surface_written - before->surface_written;
        cursor->surface_read += counts->surface_read - before->surface_read;
        cursor->layer_forwards += counts->layer_forwards - before->layer_forwards;
    }
    const uint64_t peak = trainer->peak_bytes;
    cursor->peak_bytes = peak > cursor->peak_bytes ? peak : cursor->peak_bytes;
    trainer->since = now;
    trainer->counted = *counts;
    x->forward_s = x->backward_s = 0.0;
}

void kiln_cost_nothing(struct kiln_cursor *cursor) {
    cursor->ms = cursor->device_ms = cursor->compile_ms = 0.0;
    cursor->restart_ms = cursor->update_ms = 0.0;
    cursor->dw_wait_ms = cursor->io_ms = 0.0;
    cursor->surface_written = cursor->surface_read = 0;
    cursor->compiles = cursor->layer_forwards = 0;
}

struct kiln_step_record kiln_cost_record(const struct kiln_trainer *trainer,
                                         const struct kiln_cursor *cursor) {
    const struct kiln_cursor *c = cursor;
    const struct kiln_plan *plan = &trainer->engine.plan;
    const double accum = (double)trainer->settings->accum, seconds = c->ms * 1e-3;
    struct kiln_step_record r = {.step = c->step,
                                 .loss = c->loss,
                                 .grad_norm = c->grad_norm,
                                 .lr = c->lr,
                                 .tokens = c->tokens,
                                 .ms = c->ms,
                                 .compile_ms = c->compile_ms,
                                 .stall_ms = c->compile_ms, /* nothing runs beside a compile yet */
                                 .device_ms = c->device_ms,
                                 .io_ms = c->io_ms,
                                 .dw_wait_ms = c->dw_wait_ms,
                                 .update_ms = c->update_ms,
                                 .restart_ms = c->restart_ms,
                                 .surfaces = trainer->engine.request.device.id != KILN_CPU,
                                 .surface_written_bytes = c->surface_written,
                                 .surface_read_bytes = c->surface_read,
                                 .compiles = c->compiles,
                                 .layer_forwards = c->layer_forwards,
                                 .restarts = c->restarts,
                                 .peak_bytes = c->peak_bytes,
                                 .loss_scale = c->loss_scale,
                                 .skipped = c->skip > 0,
                                 .val_loss = (double)NAN};
    r.host_ms = r.ms - r.device_ms - r.update_ms - r.compile_ms - r.restart_ms;
    r.ms_per_micro_batch = (r.ms - r.update_ms) / accum;
    if (seconds > 0) {
        r.tokens_per_s = (double)(plan->shape.batch * plan->shape.seq) * accum / seconds;
        r.tflops = plan->flops.total * accum / seconds * 1e-12;
        r.utilization = trainer->ceiling_tflops > 0 ? r.tflops / trainer->ceiling_tflops : 0.0;
    }
    return r;
}

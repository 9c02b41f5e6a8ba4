/* SPDX-License-Identifier: MIT */
#include "train/cost.h"

#include <math.h>

#include "base/machine.h"

/* The step that is being taken, or after which is evaluated: 0 before the first. */
static uint64_t step_of(const struct kiln_cursor *cursor) {
    return cursor->step +
           (cursor->phase == KILN_PHASE_WINDOW || cursor->phase == KILN_PHASE_UPDATE);
}

void kiln_cost_begin(struct kiln_trainer *trainer) {
    trainer->reduce_ms = trainer->reduce_wait_ms = trainer->ranks_wait_ms = 0;
    trainer->outer_ms = 0;
    const struct kiln_cursor *cursor = kiln_state_cursor(trainer->state);
    kiln_spans_keep(trainer->engine.spans, step_of(cursor) <= trainer->settings->trace_steps &&
                                               trainer->settings->trace_steps > 0);
}

void kiln_cost_counted(struct kiln_trainer *trainer) {
    const struct kiln_device_counts *counts = &trainer->engine.device->counts;
    trainer->counted.surface_written = counts->surface_written;
    trainer->counted.surface_read = counts->surface_read;
    trainer->counted.layer_forwards = counts->layer_forwards;
}

enum kiln_status kiln_cost_spend(struct kiln_trainer *trainer, struct kiln_cursor *cursor,
                                 bool evaluating, struct kiln_err *err) {
    const struct kiln_device_counts *counts = &trainer->engine.device->counts;
    const double now = kiln_now_s();
    struct kiln_spans_taken spent;
    kiln_spans_take(trainer->engine.spans, &spent);
    /* What is compiled beside an update is of the step to come. */
    cursor->compiles += kiln_compiler_take_count(trainer->engine.executor.sets.compiler,
                                                 cursor->phase != KILN_PHASE_FINISH || evaluating);
    if (!evaluating && spent.evaluated >= 0) { /* by a window, or the part of it that was here */
        cursor->staleness = kiln_state_cursor(trainer->state)->step - (uint64_t)spent.evaluated;
    }
    if (!evaluating) {
        trainer->reduce_ms += spent.sums[KILN_SPAN_REDUCE] * 1e3;
        trainer->reduce_wait_ms += spent.sums[KILN_SPAN_REDUCE_WAIT] * 1e3;
        trainer->ranks_wait_ms += spent.sums[KILN_SPAN_RANKS_WAIT] * 1e3;
        cursor->ms += (now - trainer->since) * 1e3;
        cursor->device_ms += spent.sums[KILN_SPAN_EVALUATE] * 1e3;
        cursor->compile_ms += spent.sums[KILN_SPAN_COMPILE] * 1e3;
        cursor->stall_ms += spent.sums[KILN_SPAN_STALL] * 1e3;
        cursor->dw_wait_ms += spent.sums[KILN_SPAN_DW_WAIT] * 1e3;
        cursor->io_ms += spent.sums[KILN_SPAN_SURFACE] * 1e3;
        cursor->restart_ms += spent.sums[KILN_SPAN_RESTART] * 1e3;
        cursor->update_ms += (spent.sums[KILN_SPAN_NORM] + spent.sums[KILN_SPAN_UPDATE] +
                              spent.sums[KILN_SPAN_SNAPSHOT]) *
                             1e3;
        cursor->surface_written += counts->surface_written - trainer->counted.surface_written;
        cursor->surface_read += counts->surface_read - trainer->counted.surface_read;
        cursor->layer_forwards += counts->layer_forwards - trainer->counted.layer_forwards;
    }
    const uint64_t peak = trainer->peak_bytes;
    cursor->peak_bytes = peak > cursor->peak_bytes ? peak : cursor->peak_bytes;
    trainer->since = now;
    kiln_cost_counted(trainer);
    KILN_TRY(kiln_trace_add(trainer->trace, spent.list, spent.n,
                            step_of(kiln_state_cursor(trainer->state)), evaluating, err));
    cursor->trace_bytes = kiln_trace_bytes(trainer->trace);
    return KILN_OK;
}

void kiln_cost_leave_out(struct kiln_trainer *trainer, double began) {
    const double took = kiln_now_s() - began;
    trainer->since += took;
    trainer->clock.evaluating += took;
}

void kiln_cost_nothing(struct kiln_cursor *cursor) {
    cursor->ms = cursor->device_ms = cursor->compile_ms = cursor->stall_ms = 0.0;
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
                                 .staleness = c->staleness,
                                 .ms = c->ms,
                                 .compile_ms = c->compile_ms,
                                 .stall_ms = c->stall_ms,
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
                                 .ranks = kiln_ranks_count(trainer->ranks),
                                 .reduce_ms = trainer->reduce_ms,
                                 .reduce_wait_ms = trainer->reduce_wait_ms,
                                 .ranks_wait_ms = trainer->ranks_wait_ms,
                                 .outer_ms = trainer->outer_ms,
                                 .loss_scale = c->loss_scale,
                                 .skipped = c->skip > 0,
                                 .loss_z = (double)NAN,
                                 .grad_norm_z = (double)NAN,
                                 .val_loss = (double)NAN,
                                 .val_generation = -1};
    r.overlap_ms = r.compile_ms > r.stall_ms ? r.compile_ms - r.stall_ms : 0.0;
    r.host_ms = r.ms - r.device_ms - r.update_ms - r.stall_ms - r.restart_ms;
    r.ms_per_micro_batch = (r.ms - r.update_ms) / (double)trainer->engine.request.accum;
    if (seconds > 0) {
        r.tokens_per_s = (double)(plan->shape.batch * plan->shape.seq) * accum / seconds;
        r.tflops = trainer->flops * accum / seconds * 1e-12;
        r.utilization = trainer->ceiling_tflops > 0 ? r.tflops / trainer->ceiling_tflops : 0.0;
    }
    return r;
}

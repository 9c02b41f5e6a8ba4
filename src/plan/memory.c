/* SPDX-License-Identifier: MIT
 *
 * memory.c: FLOPs, where activations lie, and bytes by part.
 */
#include "base/mem.h"
#include "kernel/weights.h"
#include "model/table.h"
#include "plan/plan.h"
#include "ranks/ranks.h"
#include "state/state.h"

/* Of a state that is walked, what is in memory at least beside whole tensors: pages that are being
 * read, changed and written. */
#define WALKED (96u << 20)

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

void kiln_plan_flops_lora(const struct kiln_table *table, size_t tokens, struct kiln_flops *f) {
    double a = 0, b = 0;
    for (size_t i = table->n_base; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        *(t->role == KILN_LORA_A ? &a : &b) += 2.0 * (double)(t->rows * t->cols) * (double)tokens;
    }
    f->forward += a + b;
    f->dx += a + b;
    f->dw = 2 * a + b; /* x A^T again, and both gradients */
    f->classifier *= 2.0 / 3.0;
    f->total = f->forward + f->dx + f->dw + f->attention + f->classifier;
    f->device = f->forward + f->dx + f->attention;
    f->host = f->total - f->device;
}

struct kiln_flops kiln_plan_model_flops(const struct kiln_table *table, size_t batch, size_t seq) {
    struct kiln_flops f = kiln_plan_flops(&table->dims, batch, seq);
    if (table->trained > 0) {
        kiln_plan_flops_lora(table, batch * seq, &f);
    }
    return f;
}

enum kiln_status kiln_layout_make(struct kiln_plan *plan, struct kiln_err *err) {
    const struct kiln_schedule_plan *s = &plan->schedule;
    struct kiln_layout *l = &plan->layout;
    size_t run = 0;
    *l = (struct kiln_layout){.residual = plan->sizes.activation[KILN_RESIDUAL],
                              .taps = {plan->sizes.activation[KILN_TAPS_ATTENTION],
                                       plan->sizes.activation[KILN_TAPS_FEED_FORWARD]},
                              .held = s->held * (s->lead + 1)};
    l->kept_at = kiln_alloc(s->layers, sizeof *l->kept_at);
    KILN_REQUIRE(l->kept_at, err, KILN_ENOMEM, "planning %zu layers: out of memory", s->layers);
    l->micro_batch = l->residual;
    l->run = plan->request->forward_only; /* a place for taps that nobody reads */
    for (size_t i = 0; !plan->request->forward_only && i < s->layers; i++) {
        const bool full = s->keep[i] == KILN_FULL;
        l->kept_at[i] = l->micro_batch;
        l->micro_batch += full                       ? 2 * l->residual + l->taps[0] + l->taps[1]
                          : s->keep[i] == KILN_INPUT ? l->residual
                                                     : 0;
        run = full ? 0 : s->keep[i] == KILN_INPUT ? 1 : run + 1;
        /* In a segment the first input is kept, but for one that the token ids give. */
        const size_t inputs = run > 0 && s->keep[i + 1 - run] == KILN_INPUT ? run - 1 : run;
        l->run = run > l->run ? run : l->run;
        l->run_inputs = inputs > l->run_inputs ? inputs : l->run_inputs;
    }
    l->scratch = (2 + l->run + l->run_inputs) * l->residual + l->run * (l->taps[0] + l->taps[1]);
    l->in_state = s->limits.compile != SIZE_MAX && !s->one_batch && !plan->request->forward_only;
    return KILN_OK;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* With a relay: the successor and the supervisor. Where the successor knows the weights it holds
 * kernels, too, while the owner's are loaded still; pages of weights that both map count for both.
 */
static void add_successor(struct kiln_plan *plan) {
    struct kiln_memory *m = &plan->memory;
    const bool delayed = m->snapshots > 0;
    if (delayed || plan->layout.in_state) {
        m->kernels *= 2;
        m->process += delayed ? m->snapshots / 2 : m->weights;
    }
    m->workspace *= 2;
    m->gpu *= 2;
    m->process += 2 * (uint64_t)(plan->request->profile.process_gb * 1e9);
}

/* Over ranks: of W, m and v what one holds; what it computes with is a copy of all weights. */
static void spread(const struct kiln_table *table, const struct kiln_plan_request *r,
                   struct kiln_memory *m) {
    m->weights = m->moments / 2 / r->spread;
    m->moments /= r->spread;
    if (m->snapshots == 0) {
        m->snapshots = kiln_snapshot_bytes(table, kiln_plan_operands(r));
    }
}

void kiln_memory_make(const struct kiln_table *table, struct kiln_plan *plan) {
    const struct kiln_plan_request *r = plan->request;
    const struct kiln_layout *l = &plan->layout;
    const struct kiln_device_sizes *sizes = &plan->sizes;
    const size_t threads = r->threads > 0 ? r->threads : 1;
    const enum kiln_precision snapshots = kiln_plan_snapshots(r);
    struct kiln_memory *m = &plan->memory;
    const bool local = r->ranks.local_steps > 1;
    const uint64_t embedding = table->dims.tied && table->trained == 0
                                   ? table->dims.vocab * table->dims.dim * sizeof(float)
                                   : 0;
    const uint64_t trained = kiln_trained_size(table) * sizeof(float);
    *m = (struct kiln_memory){
        .weights = table->size * sizeof(float),
        .kernels = (plan->two_sets ? 2 : 1) * sizes->head +
                   plan->cost.peak_forward * sizes->forward +
                   plan->cost.peak_backward * sizes->backward,
        .activations_kept = l->held * (l->micro_batch - l->residual),
        .activations_live = l->held * l->residual + l->scratch,
        .workspace = sizes->workspace + threads * sizes->thread,
        .gpu = sizes->gpu,
        .process = (uint64_t)(r->profile.process_gb * 1e9),
    };
    if (r->stage.stages > 1) { /* both ways to each stage beside it */
        const uint64_t sides = !kiln_stage_embeds(r) + !kiln_stage_classifies(r);
        m->activations_live +=
            sides * 2 * KILN_LANE_ARRAYS * r->batch * r->seq * r->dims.dim * sizeof(float);
    }
    if (!r->forward_only) {
        m->moments = 2 * trained;
        if (local) { /* those of the last outer step, too, and its momentum */
            m->weights += table->size * sizeof(float);
            m->moments += 3 * trained;
        }
        m->gradients = trained + embedding + r->gradients_beside;
        m->journal = kiln_state_journal_bytes(table, threads);
        m->state_file = kiln_state_file_bytes(table, snapshots, local,
                                              l->in_state ? l->held * l->micro_batch : 0);
        m->snapshots = snapshots != KILN_PRECISION_AUTO
                           ? 2 * (uint64_t)kiln_snapshot_bytes(table, snapshots)
                           : 0;
    }
    if (r->spread > 1 && !r->forward_only) {
        spread(table, r, m);
    }
    if (plan->schedule.relay && !r->forward_only) {
        add_successor(plan);
    }
    const uint64_t state = m->weights + m->moments + m->gradients;
    const uint64_t rest = m->kernels + m->snapshots + m->journal + m->activations_kept +
                          m->activations_live + m->workspace + m->gpu + m->process;
    /* A state that does not fit beside the rest is walked: read ahead, written out behind. */
    /* Whole tensors: the two gradients of the embedding while the loss is taken, then a layer's. */
    const uint64_t layer = table->size * sizeof(float) / (table->dims.layers + 1);
    const uint64_t walked = WALKED + 2 * embedding + layer;
    const uint64_t smallest = r->forward_only ? state : least(state, walked);
    plan->least = rest + smallest;
    plan->state_resident = r->memory == 0 || rest + state <= r->memory ? state : smallest;
    m->total = rest + plan->state_resident;
    /* Walked: the update reads and writes W, m, v; each micro-batch writes the gradients, and all
     * but the first read them; the norm reads what the system has in its cache still. */
    plan->disk_written = plan->disk_read = plan->walked = 0;
    if (plan->state_resident < state) {
        plan->disk_written = 3 * trained + r->accum * m->gradients;
        plan->disk_read = 3 * trained + (r->accum - 1) * m->gradients;
        plan->walked = 3 * trained + (r->accum + 2) * m->gradients;
    }
}

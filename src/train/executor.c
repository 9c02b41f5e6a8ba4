/* SPDX-License-Identifier: MIT */
#include "train/executor.h"

#include <string.h>

#include "base/machine.h"

bool kiln_poison_dropped;

static void layer_done(const struct kiln_executor *x, enum kiln_pass pass, size_t layer) {
    if (x->layer_done) {
        x->layer_done(x->layer_done_context, pass, layer);
    }
}

/* ---- where blocks lie -------------------------------------------------------------------------
 */

static unsigned char *held(const struct kiln_executor *x) {
    const struct kiln_schedule_plan *plan = &x->plan->schedule;
    const uint64_t round = kiln_schedule_taken(plan, &x->position) % (plan->lead + 1);
    const uint64_t place = round * plan->held + x->position.micro_batch;
    return x->held + place * x->plan->layout.micro_batch;
}

/* The residual stream between groups, then its gradient. */
static void *flow(const struct kiln_executor *x) { return held(x); }

static bool full(const struct kiln_executor *x, size_t layer) {
    return x->plan->schedule.keep[layer] == KILN_FULL;
}

/* Will the backward pass read the taps that the forward pass writes? */
static bool keep_taps(const struct kiln_executor *x, size_t layer) {
    return !x->plan->request->forward_only && !x->position.evaluate && full(x, layer);
}

static bool input_kept(const struct kiln_executor *x, size_t layer) {
    return !x->plan->request->forward_only && x->plan->schedule.keep[layer] != KILN_DROPPED;
}

/* Blocks of a layer in one pass. */
struct blocks {
    void *in, *mid, *taps[KILN_HALVES];
};

static struct blocks kept_blocks(const struct kiln_executor *x, size_t layer) {
    const struct kiln_layout *l = &x->plan->layout;
    unsigned char *at = held(x) + l->kept_at[layer];
    struct blocks b = {.in = at};
    if (full(x, layer)) {
        b.mid = at + l->residual;
        b.taps[0] = at + 2 * l->residual;
        b.taps[1] = at + 2 * l->residual + l->taps[0];
    }
    return b;
}

/* In the forward pass: kept blocks, or scratch that the next layer uses again. */
static struct blocks forward_blocks(const struct kiln_executor *x, size_t layer, size_t first) {
    struct blocks b = {.in = layer == first && layer > 0 ? flow(x) : x->scratch[0],
                       .mid = x->scratch[1],
                       .taps = {x->run_taps[0], x->run_taps[1]}};
    if (input_kept(x, layer)) {
        const struct blocks kept = kept_blocks(x, layer);
        if (full(x, layer)) {
            return kept;
        }
        b.in = kept.in;
    }
    return b;
}

/* In a segment that begins at `first`: layers side by side. */
static struct blocks segment_blocks(const struct kiln_executor *x, size_t layer, size_t first) {
    const struct kiln_layout *l = &x->plan->layout;
    const size_t i = layer - first, stored = input_kept(x, first);
    struct blocks b = {.mid = x->run_mids + i * l->residual,
                       .taps = {x->run_taps[0] + i * l->taps[0], x->run_taps[1] + i * l->taps[1]}};
    b.in = i == 0 && stored ? kept_blocks(x, layer).in : x->run_inputs + (i - stored) * l->residual;
    return b;
}

static void poison(void *block, size_t bytes) {
    if (kiln_poison_dropped && block != NULL) {
        memset(block, 0xff, bytes); /* a NaN in fp32, bf16 and fp16 */
    }
}

static void poison_run(const struct kiln_executor *x) {
    const struct kiln_layout *l = &x->plan->layout;
    poison(x->run_inputs, l->run_inputs * l->residual);
    poison(x->run_mids, l->run * l->residual);
    poison(x->run_taps[0], l->run * l->taps[0]);
    poison(x->run_taps[1], l->run * l->taps[1]);
}

/* ---- passes -----------------------------------------------------------------------------------
 */

static enum kiln_status layer_forward(struct kiln_executor *x, size_t layer, const struct blocks *b,
                                      void *out, bool keep, struct kiln_err *err) {
    const struct kiln_device_ops *ops = x->device->ops;
    KILN_TRY(kiln_sets_want(&x->sets, KILN_FORWARD, layer, err));
    KILN_TRY(ops->forward(x->device, layer, KILN_ATTENTION, b->in, b->mid, b->taps[0], keep, err));
    return ops->forward(x->device, layer, KILN_FEED_FORWARD, b->mid, out, b->taps[1], keep, err);
}

/* A layer of a stage, as the model counts. */
static size_t of_model(const struct kiln_executor *x, size_t layer) {
    const struct kiln_plan_stage *s = &x->plan->request->stage;
    const bool whole = s->stages == 0 || layer == KILN_NO_LAYER;
    return layer + (whole ? 0 : kiln_stage_first(s->layers, s->stages, s->number));
}

/* The gradient of a layer, or of what is outside of them, in place for whoever waits for it. */
static enum kiln_status gradient_done(const struct kiln_executor *x, size_t layer,
                                      struct kiln_err *err) {
    const uint64_t i = x->running;
    const bool wanted = x->reducer && kiln_reducer_wants(x->reducer, i);
    if (x->layer_done || wanted) {
        KILN_TRY(x->device->ops->drain(x->device, err));
    }
    if (wanted) {
        kiln_reducer_layer(x->reducer, i, of_model(x, layer));
    }
    layer_done(x, KILN_BACKWARD, of_model(x, layer));
    return KILN_OK;
}

static enum kiln_status layer_backward(struct kiln_executor *x, size_t layer,
                                       const struct blocks *b, struct kiln_err *err) {
    const struct kiln_device_ops *ops = x->device->ops;
    KILN_TRY(kiln_sets_want(&x->sets, KILN_BACKWARD, layer, err));
    KILN_TRY(ops->backward(x->device, layer, KILN_FEED_FORWARD, b->mid, flow(x), b->taps[1], err));
    KILN_TRY(ops->backward(x->device, layer, KILN_ATTENTION, b->in, flow(x), b->taps[0], err));
    return gradient_done(x, layer, err);
}

/* Final norm, classifier and loss; in training the gradient begins its way back. */
static enum kiln_status head(struct kiln_executor *x, struct kiln_err *err) {
    const bool evaluate = x->position.evaluate;
    const double start = kiln_now_s();
    double loss = 0.0;
    KILN_TRY(x->device->ops->head(x->device, x->scratch[0], x->targets, evaluate ? 0.0f : x->scale,
                                  evaluate ? NULL : flow(x), &loss, err));
    x->loss_sum += loss;
    x->head_s += kiln_now_s() - start;
    if (x->reducer) {
        kiln_reducer_loss(x->reducer, x->running, loss);
    }
    if (!evaluate) {
        return gradient_done(x, x->plan->schedule.layers, err);
    }
    layer_done(x, KILN_FORWARD, of_model(x, x->plan->schedule.layers));
    layer_done(x, KILN_FORWARD, KILN_NO_LAYER);
    return KILN_OK;
}

/* ---- both ends, of the model or of a stage ----------------------------------------------------
 */

static enum kiln_status input(struct kiln_executor *x, void *in, struct kiln_err *err) {
    return kiln_stage_embeds(x->plan->request)
               ? x->device->ops->embed(x->device, x->tokens, in, err)
               : kiln_pipe_receive(x->pipe, x->device, KILN_FORWARD, in, err);
}

static enum kiln_status output(struct kiln_executor *x, struct kiln_err *err) {
    return kiln_stage_classifies(x->plan->request)
               ? head(x, err)
               : kiln_pipe_send(x->pipe, x->device, KILN_FORWARD, x->scratch[0], err);
}

/* The flow becomes the gradient of the last layer's output; at the model's end it is already. */
static enum kiln_status output_backward(struct kiln_executor *x, struct kiln_err *err) {
    if (kiln_stage_classifies(x->plan->request)) {
        return KILN_OK;
    }
    if (x->reducer) {
        kiln_reducer_others(x->reducer, x->running);
    }
    return kiln_pipe_receive(x->pipe, x->device, KILN_BACKWARD, flow(x), err);
}

static enum kiln_status input_backward(struct kiln_executor *x, struct kiln_err *err) {
    if (!kiln_stage_embeds(x->plan->request)) {
        return kiln_pipe_send(x->pipe, x->device, KILN_BACKWARD, flow(x), err);
    }
    KILN_TRY(x->device->ops->embed_backward(x->device, x->tokens, flow(x), err));
    return gradient_done(x, KILN_NO_LAYER, err);
}

static enum kiln_status forward_group(struct kiln_executor *x, const struct kiln_plan_group *g,
                                      struct kiln_err *err) {
    const size_t layers = x->plan->schedule.layers;
    struct blocks b = forward_blocks(x, g->first, g->first);
    if (g->first == 0) {
        KILN_TRY(input(x, b.in, err));
    }
    for (size_t l = g->first; l < g->end; l++) {
        struct blocks next = {.in = x->scratch[0]};
        if (l + 1 < layers) {
            next = forward_blocks(x, l + 1, g->end); /* at the group's edge: the flow */
        }
        KILN_TRY(layer_forward(x, l, &b, next.in, keep_taps(x, l), err));
        if (!full(x, l)) {
            poison(b.taps[0], x->plan->layout.taps[0]);
            poison(b.taps[1], x->plan->layout.taps[1]);
        }
        b = next;
    }
    return g->end == layers ? output(x, err) : KILN_OK;
}

/* Run the segment first..end-1 forward again; its taps live together. */
static enum kiln_status recompute(struct kiln_executor *x, size_t first, size_t end,
                                  struct kiln_err *err) {
    struct blocks b = segment_blocks(x, first, first);
    if (!input_kept(x, first)) {
        KILN_TRY(x->device->ops->embed(x->device, x->tokens, b.in, err));
    }
    for (size_t l = first; l < end; l++) {
        struct blocks next = {.in = x->scratch[0]}; /* the last output: nobody reads it */
        if (l + 1 < end) {
            next = segment_blocks(x, l + 1, first);
        }
        KILN_TRY(layer_forward(x, l, &b, next.in, true, err));
        b = next;
    }
    return KILN_OK;
}

/* Is it the round's last micro-batch? */
static bool last_of_round(const struct kiln_executor *x) {
    const struct kiln_position *at = &x->position;
    const size_t held = x->plan->schedule.held;
    return at->micro_batch + 1 == held ||
           kiln_schedule_taken(&x->plan->schedule, at) * held + at->micro_batch + 1 ==
               at->micro_batches;
}

/* Weight gradients of full layers are taken beside the next micro-batch: it has blocks of its own.
 */
static enum kiln_status backward_group(struct kiln_executor *x, const struct kiln_plan_group *g,
                                       struct kiln_err *err) {
    KILN_TRY(g->end == x->plan->schedule.layers ? output_backward(x, err) : KILN_OK);
    for (size_t end = g->end; end > g->first;) {
        if (full(x, end - 1)) {
            const struct blocks b = kept_blocks(x, --end);
            KILN_TRY(layer_backward(x, end, &b, err));
            continue;
        }
        const size_t first = kiln_segment_first(x->plan->schedule.keep, end - 1);
        KILN_TRY(recompute(x, first, end, err));
        for (; end > first; end--) {
            const struct blocks b = segment_blocks(x, end - 1, first);
            KILN_TRY(layer_backward(x, end - 1, &b, err));
        }
        KILN_TRY(x->device->ops->drain(x->device, err)); /* the next segment takes their place */
        poison_run(x);
    }
    if (g->first == 0) {
        KILN_TRY(input_backward(x, err));
    }
    return last_of_round(x) ? x->device->ops->drain(x->device, err) : KILN_OK;
}

static enum kiln_status run_group(struct kiln_executor *x, const struct kiln_plan_action *a,
                                  struct kiln_err *err) {
    /* The embedding is of the generation, too. */
    KILN_TRY(kiln_sets_want(
        &x->sets, a->group.pass == KILN_PLAN_FORWARD ? KILN_FORWARD : KILN_BACKWARD,
        a->group.pass == KILN_PLAN_FORWARD ? a->group.first : a->group.end - 1, err));
    const double start = kiln_now_s();
    kiln_spans_at(x->spans, x->sets.generation, (int32_t)a->micro_batch);
    x->source(x->context, a->micro_batch, x->tokens, x->targets, x->starts);
    x->device->starts = x->starts;
    x->device->gradients = x->gradients;
    x->device->gradients.add = a->micro_batch > 0;
    if (a->micro_batch + 1 < x->position.micro_batches) {
        x->device->gradients.sums = NULL;
    }
    x->running = a->micro_batch;
    if (x->reducer) {
        kiln_reducer_target(x->reducer, a->micro_batch, &x->device->gradients);
    }
    if (a->what == KILN_FORWARD_GROUP) {
        x->head_s = 0.0;
        KILN_TRY(forward_group(x, &a->group, err));
        x->forward_s += kiln_now_s() - start - x->head_s;
        x->backward_s += x->head_s; /* the loss begins the way back */
    } else {
        KILN_TRY(backward_group(x, &a->group, err));
        x->backward_s += kiln_now_s() - start;
    }
    return KILN_OK;
}

/* ---- what the caller drives -------------------------------------------------------------------
 */

void kiln_executor_generation(struct kiln_executor *x, int64_t generation,
                              const struct kiln_weights *active, const struct kiln_weights *next) {
    kiln_sets_generation(&x->sets, generation, active, next);
    x->has_next = next != NULL;
}

void kiln_executor_begin(struct kiln_executor *x, bool evaluate, uint64_t micro_batches,
                         kiln_batch_source *source, void *context) {
    x->position = (struct kiln_position){
        .evaluate = evaluate, .micro_batches = micro_batches, .next = x->has_next && !evaluate};
    x->source = source;
    x->context = context;
    x->loss_sum = 0.0;
    if (!evaluate && x->gradients.sums) {
        kiln_gradient_sums_clear(x->gradients.sums);
    }
}

struct kiln_plan_action kiln_executor_next(const struct kiln_executor *x) {
    return kiln_schedule_next(&x->plan->schedule, &x->process, &x->position);
}

/* The schedule's view of the process first, then what it says. */
static void apply(struct kiln_executor *x, const struct kiln_plan_action *a) {
    kiln_schedule_apply(&x->plan->schedule, &x->process, &x->position, a);
}

static enum kiln_status update_done(struct kiln_executor *x, const struct kiln_plan_action *a,
                                    struct kiln_err *err) {
    KILN_TRY(kiln_sets_settle(&x->sets, err));
    const bool swaps = x->process.next;
    apply(x, a);
    kiln_sets_update(&x->sets, &x->process, swaps && !x->process.next);
    return KILN_OK;
}

enum kiln_status kiln_executor_do(struct kiln_executor *x, const struct kiln_plan_action *a,
                                  struct kiln_err *err) {
    switch (a->what) {
        case KILN_FORWARD_GROUP:
        case KILN_BACKWARD_GROUP:
            KILN_TRY(run_group(x, a, err));
            apply(x, a);
            /* `whole` uses nothing twice. */
            return kiln_sets_let_go(&x->sets, &x->process, err);
        case KILN_COMPILE_GROUP:
            apply(x, a);
            return kiln_sets_compile(&x->sets, &x->process, &a->group, x->gated, err);
        case KILN_COMPILE_NEXT:
            apply(x, a);
            return kiln_sets_compile_next(&x->sets, err);
        case KILN_UPDATE:
            return update_done(x, a, err);
        case KILN_RESTART:
        case KILN_STEP_DONE:
        case KILN_ERROR:
            break;
    }
    apply(x, a);
    return kiln_sets_let_go(&x->sets, &x->process, err);
}

/* Must something be released for it while jobs wait at the gate? Nobody can wait for these. */
static bool held_up(const struct kiln_executor *x, const struct kiln_plan_action *a) {
    const size_t load = x->plan->schedule.limits.load;
    return x->gated && a->kernels > load - x->process.loaded &&
           !kiln_compiler_idle(x->sets.compiler);
}

enum kiln_status kiln_executor_compile(struct kiln_executor *x, bool gated, struct kiln_err *err) {
    enum kiln_status status = KILN_OK;
    x->gated = gated;
    for (;;) {
        const struct kiln_plan_action a = kiln_executor_next(x);
        if (status != KILN_OK || a.what != KILN_COMPILE_GROUP || held_up(x, &a)) {
            break;
        }
        status = kiln_executor_do(x, &a, err);
    }
    x->gated = false;
    return status;
}

enum kiln_status kiln_executor_ready(struct kiln_executor *x, struct kiln_err *err) {
    const struct kiln_plan_group *g = &x->plan->schedule.groups.at[x->position.group];
    for (size_t l = g->first; l < g->end; l++) {
        KILN_TRY(kiln_sets_want(&x->sets, KILN_FORWARD, l, err));
        KILN_TRY(g->pass == KILN_PLAN_BACKWARD ? kiln_sets_want(&x->sets, KILN_BACKWARD, l, err)
                                               : KILN_OK);
    }
    return KILN_OK;
}

enum kiln_status kiln_executor_window(struct kiln_executor *x, struct kiln_err *err) {
    for (;;) {
        const struct kiln_plan_action a = kiln_executor_next(x);
        if (a.what == KILN_UPDATE || a.what == KILN_STEP_DONE) {
            return KILN_OK;
        }
        KILN_REQUIRE(a.what != KILN_RESTART && a.what != KILN_ERROR, err, KILN_EBUDGET,
                     "%zu kernels do not fit what is left of this process", a.kernels);
        KILN_TRY(kiln_executor_do(x, &a, err));
    }
}

enum kiln_status kiln_executor_load_forward(struct kiln_executor *x, struct kiln_err *err) {
    const struct kiln_plan_group all = {.end = x->plan->schedule.layers};
    for (size_t l = 0; l < all.end; l++) {
        x->process.has[l] |= KILN_HAS_FORWARD;
    }
    KILN_TRY(kiln_sets_compile(&x->sets, &x->process, &all, false, err));
    return kiln_sets_settle(&x->sets, err);
}

/* ---- memory -----------------------------------------------------------------------------------
 */

static enum kiln_status open_memory(struct kiln_executor *x, struct kiln_err *err) {
    const struct kiln_layout *l = &x->plan->layout;
    const size_t tokens = x->plan->shape.batch * x->plan->shape.seq * sizeof(uint32_t);
    const size_t held_bytes = l->in_state ? 0 : l->held * l->micro_batch;
    const bool doc_mask = x->plan->request->doc_mask;
    const size_t parts[] = {tokens,
                            tokens,
                            doc_mask ? tokens : 0,
                            held_bytes,
                            l->residual,
                            l->residual,
                            l->run_inputs * l->residual,
                            l->run * l->residual,
                            l->run * l->taps[0],
                            l->run * l->taps[1]};
    size_t planned = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        planned = kiln_arena_reserve(planned, parts[i]);
    }
    KILN_TRY(kiln_arena_open(&x->arena, planned, err));
    x->tokens = kiln_arena_take(&x->arena, parts[0]);
    x->targets = kiln_arena_take(&x->arena, parts[1]);
    x->starts = kiln_arena_take(&x->arena, parts[2]);
    x->starts = doc_mask ? x->starts : NULL;
    x->held = kiln_arena_take(&x->arena, parts[3]);
    x->held = l->in_state ? NULL : x->held;
    x->scratch[0] = kiln_arena_take(&x->arena, parts[4]);
    x->scratch[1] = kiln_arena_take(&x->arena, parts[5]);
    x->run_inputs = kiln_arena_take(&x->arena, parts[6]);
    x->run_mids = kiln_arena_take(&x->arena, parts[7]);
    x->run_taps[0] = kiln_arena_take(&x->arena, parts[8]);
    x->run_taps[1] = kiln_arena_take(&x->arena, parts[9]);
    return KILN_OK;
}

static void layer_compiled(void *context, size_t layer) {
    const struct kiln_executor *x = context;
    layer_done(x, KILN_FORWARD, of_model(x, layer));
}

enum kiln_status kiln_executor_open(struct kiln_executor *x, const struct kiln_plan *plan,
                                    struct kiln_device *device, struct kiln_spans *spans,
                                    struct kiln_err *err) {
    *x = (struct kiln_executor){.plan = plan, .device = device, .spans = spans};
    x->process.has = kiln_alloc(plan->schedule.layers, 1);
    KILN_REQUIRE(x->process.has, err, KILN_ENOMEM, "no memory for %zu layers",
                 plan->schedule.layers);
    KILN_TRY(kiln_sets_open(&x->sets, plan, device, spans, err));
    x->sets.compiled = layer_compiled;
    x->sets.compiled_context = x;
    return open_memory(x, err);
}

void kiln_executor_close(struct kiln_executor *x) {
    kiln_sets_close(&x->sets);
    kiln_arena_close(&x->arena);
    kiln_free(x->process.has);
    *x = (struct kiln_executor){0};
}

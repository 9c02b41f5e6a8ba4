/* SPDX-License-Identifier: MIT */
#include "train/executor.h"

#include <string.h>

#include "base/machine.h"

bool kiln_poison_dropped;

/* ---- kernels ----------------------------------------------------------------------------------
 */

static enum kiln_status compile(struct kiln_executor *x, enum kiln_kind kind, size_t layer,
                                struct kiln_err *err) {
    const double start = kiln_now_s();
    KILN_TRY(x->device->ops->compile(x->device, 0, kind, layer, &x->device->weights, err));
    kiln_device_span(x->device, KILN_SPAN_COMPILE, x->device->caps.kinds[kind].name, layer, start);
    return KILN_OK;
}

/* Is there one of the kind that all layers share? */
static bool shared_kind(const struct kiln_executor *x, size_t kind) {
    const struct kiln_kernel_kind *k = &x->device->caps.kinds[kind];
    return k->compiles > 0 && !k->per_layer && !k->weights && !x->plan->schedule.limits.whole;
}

/* Is one of the kind the layer's, and in this set? What runs behind the last layer is among its
 * forward kernels; in `whole` each layer has what is shared otherwise (plan/budget.c). */
static bool layer_kind(const struct kiln_executor *x, size_t kind, size_t layer, unsigned set) {
    const struct kiln_kernel_kind *k = &x->device->caps.kinds[kind];
    const bool forward = k->pass == KILN_FORWARD;
    const bool behind = !k->per_layer && (k->weights || forward);
    return k->compiles > 0 && !shared_kind(x, kind) &&
           (!behind || layer + 1 == x->plan->schedule.layers) &&
           set & (forward ? KILN_HAS_FORWARD : KILN_HAS_BACKWARD);
}

static void release_layer(struct kiln_executor *x, size_t layer, unsigned set) {
    for (size_t kind = 0; kind < KILN_KINDS; kind++) {
        if (layer_kind(x, kind, layer, set)) {
            x->device->ops->release(x->device, 0, kind, layer);
        }
    }
}

static enum kiln_status compile_layer(struct kiln_executor *x, size_t layer, unsigned set,
                                      struct kiln_err *err) {
    for (size_t kind = 0; kind < KILN_KINDS; kind++) {
        if (layer_kind(x, kind, layer, set)) {
            KILN_TRY(compile(x, kind, layer, err));
        }
    }
    return KILN_OK;
}

static void release_shared(struct kiln_executor *x) {
    for (size_t kind = 0; kind < KILN_KINDS; kind++) {
        if (shared_kind(x, kind)) {
            x->device->ops->release(x->device, 0, kind, 0);
        }
    }
}

static enum kiln_status compile_shared(struct kiln_executor *x, struct kiln_err *err) {
    for (size_t kind = 0; kind < KILN_KINDS; kind++) {
        if (shared_kind(x, kind)) {
            KILN_TRY(compile(x, kind, 0, err));
        }
    }
    return KILN_OK;
}

static void layer_done(const struct kiln_executor *x, enum kiln_pass pass, size_t layer) {
    if (x->layer_done) {
        x->layer_done(x->layer_done_context, pass, layer);
    }
}

/* Make the device hold what the process should: first the room, then the kernels. */
static enum kiln_status sync_kernels(struct kiln_executor *x, struct kiln_err *err) {
    const unsigned char *has = x->process.has;
    for (size_t l = 0; l < x->plan->schedule.layers; l++) {
        release_layer(x, l, x->on_device[l] & ~(unsigned)has[l]);
        x->on_device[l] &= has[l];
    }
    if (x->shared_on_device && !x->process.shared) {
        release_shared(x);
    }
    const double start = kiln_now_s();
    const uint64_t compiled = x->device->counts.compiles;
    for (size_t l = 0; l < x->plan->schedule.layers; l++) {
        const unsigned fresh = has[l] & ~(unsigned)x->on_device[l];
        KILN_TRY(compile_layer(x, l, fresh, err));
        x->on_device[l] = has[l];
        if (fresh) {
            layer_done(x, KILN_FORWARD, l);
        }
    }
    if (x->process.shared && !x->shared_on_device) {
        KILN_TRY(compile_shared(x, err));
    }
    x->shared_on_device = x->process.shared;
    x->compile_s += kiln_now_s() - start;
    if (x->device->counts.compiles > compiled) {
        kiln_device_span(x->device, KILN_SPAN_STALL, NULL, KILN_NO_LAYER, start);
    }
    return KILN_OK;
}

/* ---- where blocks lie -------------------------------------------------------------------------
 */

static unsigned char *held(const struct kiln_executor *x) {
    return x->held + x->position.micro_batch * x->plan->layout.micro_batch;
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
    KILN_TRY(ops->forward(x->device, layer, KILN_ATTENTION, b->in, b->mid, b->taps[0], keep, err));
    return ops->forward(x->device, layer, KILN_FEED_FORWARD, b->mid, out, b->taps[1], keep, err);
}

static enum kiln_status layer_backward(struct kiln_executor *x, size_t layer,
                                       const struct blocks *b, struct kiln_err *err) {
    const struct kiln_device_ops *ops = x->device->ops;
    KILN_TRY(ops->backward(x->device, layer, KILN_FEED_FORWARD, b->mid, flow(x), b->taps[1], err));
    KILN_TRY(ops->backward(x->device, layer, KILN_ATTENTION, b->in, flow(x), b->taps[0], err));
    if (x->layer_done) {
        KILN_TRY(ops->drain(x->device, err)); /* the layer's gradients are in place */
        layer_done(x, KILN_BACKWARD, layer);
    }
    return KILN_OK;
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
    layer_done(x, evaluate ? KILN_FORWARD : KILN_BACKWARD, KILN_NO_LAYER);
    return KILN_OK;
}

static enum kiln_status forward_group(struct kiln_executor *x, const struct kiln_plan_group *g,
                                      struct kiln_err *err) {
    const size_t layers = x->plan->schedule.layers;
    struct blocks b = forward_blocks(x, g->first, g->first);
    if (g->first == 0) {
        KILN_TRY(x->device->ops->embed(x->device, x->tokens, b.in, err));
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
    return g->end == layers ? head(x, err) : KILN_OK;
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

static enum kiln_status backward_group(struct kiln_executor *x, const struct kiln_plan_group *g,
                                       struct kiln_err *err) {
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
        KILN_TRY(x->device->ops->embed_backward(x->device, x->tokens, flow(x), err));
        layer_done(x, KILN_BACKWARD, KILN_NO_LAYER);
    }
    return x->device->ops->drain(x->device, err);
}

static enum kiln_status run_group(struct kiln_executor *x, const struct kiln_plan_action *a,
                                  struct kiln_err *err) {
    const double start = kiln_now_s();
    x->source(x->context, a->micro_batch, x->tokens, x->targets);
    x->device->gradients = x->gradients;
    x->device->gradients.add = a->micro_batch > 0;
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

void kiln_executor_begin(struct kiln_executor *x, bool evaluate, uint64_t micro_batches,
                         kiln_batch_source *source, void *context) {
    x->position = (struct kiln_position){.evaluate = evaluate, .micro_batches = micro_batches};
    x->source = source;
    x->context = context;
    x->loss_sum = 0.0;
}

struct kiln_plan_action kiln_executor_next(const struct kiln_executor *x) {
    return kiln_schedule_next(&x->plan->schedule, &x->process, &x->position);
}

enum kiln_status kiln_executor_do(struct kiln_executor *x, const struct kiln_plan_action *a,
                                  struct kiln_err *err) {
    if (a->what == KILN_FORWARD_GROUP || a->what == KILN_BACKWARD_GROUP) {
        KILN_TRY(run_group(x, a, err));
    }
    kiln_schedule_apply(&x->plan->schedule, &x->process, &x->position, a);
    return sync_kernels(x, err);
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
    for (size_t l = 0; l < x->plan->schedule.layers; l++) {
        x->process.has[l] |= KILN_HAS_FORWARD;
    }
    return sync_kernels(x, err);
}

/* ---- memory -----------------------------------------------------------------------------------
 */

static enum kiln_status open_memory(struct kiln_executor *x, struct kiln_err *err) {
    const struct kiln_layout *l = &x->plan->layout;
    const size_t tokens = x->plan->shape.batch * x->plan->shape.seq * sizeof(uint32_t);
    const size_t held_bytes = l->in_state ? 0 : l->held * l->micro_batch;
    const size_t parts[] = {tokens,
                            tokens,
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
    x->held = kiln_arena_take(&x->arena, parts[2]);
    x->held = l->in_state ? NULL : x->held;
    x->scratch[0] = kiln_arena_take(&x->arena, parts[3]);
    x->scratch[1] = kiln_arena_take(&x->arena, parts[4]);
    x->run_inputs = kiln_arena_take(&x->arena, parts[5]);
    x->run_mids = kiln_arena_take(&x->arena, parts[6]);
    x->run_taps[0] = kiln_arena_take(&x->arena, parts[7]);
    x->run_taps[1] = kiln_arena_take(&x->arena, parts[8]);
    return KILN_OK;
}

enum kiln_status kiln_executor_open(struct kiln_executor *x, const struct kiln_plan *plan,
                                    struct kiln_device *device, struct kiln_err *err) {
    *x = (struct kiln_executor){.plan = plan, .device = device};
    x->process.has = kiln_alloc(plan->schedule.layers, 1);
    x->on_device = kiln_alloc(plan->schedule.layers, 1);
    KILN_REQUIRE(x->process.has && x->on_device, err, KILN_ENOMEM, "no memory for %zu layers",
                 plan->schedule.layers);
    return open_memory(x, err);
}

void kiln_executor_close(struct kiln_executor *x) {
    kiln_arena_close(&x->arena);
    kiln_free(x->process.has);
    kiln_free(x->on_device);
    *x = (struct kiln_executor){0};
}

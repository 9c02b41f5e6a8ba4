/* SPDX-License-Identifier: MIT */
#include "train/pass.h"

#include "base/machine.h"

enum kiln_status kiln_pass_open(struct kiln_pass_memory *memory, const struct kiln_plan *plan,
                                struct kiln_err *err) {
    *memory = (struct kiln_pass_memory){0};
    KILN_TRY(kiln_arena_open(&memory->arena, plan->memory.activations, err));
    memory->residual = kiln_arena_take(&memory->arena, plan->n_residual * plan->residual);
    for (int half = 0; half < KILN_HALVES; half++) {
        memory->taps[half] = kiln_arena_take(&memory->arena, plan->n_taps * plan->taps[half]);
    }
    return KILN_OK;
}

void kiln_pass_close(struct kiln_pass_memory *memory) { kiln_arena_close(&memory->arena); }

/* Block i of the residual stream: input of half-layer i, and the last output. When nothing is
 * kept two blocks take turns. */
static void *residual(const struct kiln_pass_memory *memory, const struct kiln_plan *plan,
                      size_t i) {
    return memory->residual + (plan->training ? i : i % 2) * plan->residual;
}

static void *taps(const struct kiln_pass_memory *memory, const struct kiln_plan *plan, size_t layer,
                  enum kiln_half half) {
    return memory->taps[half] + (plan->training ? layer : 0) * plan->taps[half];
}

static enum kiln_status forward(struct kiln_pass_memory *memory, const struct kiln_plan *plan,
                                struct kiln_device *device, const uint32_t *tokens,
                                struct kiln_err *err) {
    KILN_TRY(device->ops->embed(device, tokens, residual(memory, plan, 0), err));
    for (size_t i = 0; i < 2 * device->table->dims.layers; i++) {
        enum kiln_half half = i % 2 == 0 ? KILN_ATTENTION : KILN_FEED_FORWARD;
        KILN_TRY(device->ops->forward(device, i / 2, half, residual(memory, plan, i),
                                      residual(memory, plan, i + 1),
                                      taps(memory, plan, i / 2, half), err));
    }
    return KILN_OK;
}

enum kiln_status kiln_pass_evaluate(struct kiln_pass_memory *memory, const struct kiln_plan *plan,
                                    struct kiln_device *device, const uint32_t *tokens,
                                    const uint32_t *targets, double *loss, struct kiln_err *err) {
    KILN_TRY(forward(memory, plan, device, tokens, err));
    return device->ops->head(device, residual(memory, plan, 2 * device->table->dims.layers),
                             targets, 0.0f, NULL, loss, err);
}

enum kiln_status kiln_pass_train(struct kiln_pass_memory *memory, const struct kiln_plan *plan,
                                 struct kiln_device *device, const uint32_t *tokens,
                                 const uint32_t *targets, float scale, double *loss,
                                 struct kiln_err *err) {
    size_t halves = 2 * device->table->dims.layers;
    void *dx = residual(memory, plan, halves + 1);
    double start = kiln_now_s();
    KILN_TRY(forward(memory, plan, device, tokens, err));
    double turned = kiln_now_s();
    KILN_TRY(
        device->ops->head(device, residual(memory, plan, halves), targets, scale, dx, loss, err));
    for (size_t i = halves; i-- > 0;) {
        enum kiln_half half = i % 2 == 0 ? KILN_ATTENTION : KILN_FEED_FORWARD;
        KILN_TRY(device->ops->backward(device, i / 2, half, residual(memory, plan, i), dx,
                                       taps(memory, plan, i / 2, half), err));
    }
    KILN_TRY(device->ops->embed_backward(device, tokens, dx, err));
    KILN_TRY(device->ops->drain(device, err));
    memory->forward_s += turned - start;
    memory->backward_s += kiln_now_s() - turned;
    return KILN_OK;
}

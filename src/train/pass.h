/* SPDX-License-Identifier: MIT
 *
 * pass.h: one micro-batch through the device: forward, loss, backward.
 */
#ifndef KILN_TRAIN_PASS_H
#define KILN_TRAIN_PASS_H

#include "base/mem.h"
#include "device/device.h"
#include "plan/plan.h"

struct kiln_pass_memory {
    struct kiln_arena arena;
    char *residual;               /* blocks, plan->residual apart */
    char *taps[KILN_HALVES];      /* blocks, plan->taps[half] apart */
    double forward_s, backward_s; /* time spent so far in each direction */
};

KILN_MUST_CHECK enum kiln_status kiln_pass_open(struct kiln_pass_memory *memory,
                                                const struct kiln_plan *plan, struct kiln_err *err);
void kiln_pass_close(struct kiln_pass_memory *memory);

/* Forward of all layers and the loss (summed over tokens) of tokens [N] against targets [N]. */
KILN_MUST_CHECK enum kiln_status kiln_pass_evaluate(struct kiln_pass_memory *memory,
                                                    const struct kiln_plan *plan,
                                                    struct kiln_device *device,
                                                    const uint32_t *tokens, const uint32_t *targets,
                                                    double *loss, struct kiln_err *err);
/* Forward and backward; weight gradients of scale * loss go where device->gradients says. */
KILN_MUST_CHECK enum kiln_status kiln_pass_train(struct kiln_pass_memory *memory,
                                                 const struct kiln_plan *plan,
                                                 struct kiln_device *device, const uint32_t *tokens,
                                                 const uint32_t *targets, float scale, double *loss,
                                                 struct kiln_err *err);

#endif

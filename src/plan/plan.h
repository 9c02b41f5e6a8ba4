/* SPDX-License-Identifier: MIT
 *
 * plan.h: what a training step costs and where its memory goes, before it runs.
 *
 * The arena of activations is sized by the plan; the device and the state size their own parts and
 * tell them to it.
 */
#ifndef KILN_PLAN_H
#define KILN_PLAN_H

#include <stddef.h>

#include "device/device.h"
#include "kiln/model.h"
#include "kiln/plan.h"

/* Bytes by part. */
struct kiln_plan_memory {
    size_t weights, moments, gradients; /* fp32 */
    size_t kernels;                     /* packed or compiled weights on the device */
    size_t activations;                 /* kept from forward to backward, and those in flight */
    size_t workspace;                   /* of the device */
    size_t total;
};

/* The blocks that a pass over the layers needs. */
struct kiln_plan {
    struct kiln_micro_batch shape;
    bool training;                      /* false: nothing is kept from half-layer to half-layer */
    size_t residual, taps[KILN_HALVES]; /* bytes of one block */
    size_t n_residual, n_taps;          /* blocks of each (taps: per half) */
    struct kiln_plan_memory memory;
    struct kiln_flops flops;
};

/* Plan passes of a device over its micro-batch. */
void kiln_plan_make(const struct kiln_device *device, bool training, struct kiln_plan *plan);

#endif

/* SPDX-License-Identifier: MIT
 *
 * parts.h: the parts of a training step on the cpu: how their spans are called, what they compute
 * and what they must move. The one table of both; `kiln bench` sets measured times beside it.
 *
 * FLOPs are the model's, as kiln_plan_flops counts them: their sum over the parts is its total.
 * Bytes are what must pass between memory and the processor: what a part reads and writes that
 * other parts made or will read, each once. What a part makes for itself is not counted, nor that
 * it may read a matrix more than once: these are the bytes of the step, not of the program.
 */
#ifndef KILN_PLAN_PARTS_H
#define KILN_PLAN_PARTS_H

#include "plan/plan.h"

enum kiln_part {
    KILN_PART_EMBED,
    KILN_PART_ATTN_FWD, /* of all layers, as the next ones */
    KILN_PART_FFN_FWD,
    KILN_PART_HEAD, /* final norm, classifier and loss, forward and backward */
    KILN_PART_FFN_BWD,
    KILN_PART_ATTN_BWD,
    KILN_PART_EMBED_BWD,
    KILN_PART_NORM,   /* of the gradient; a tied embedding's two gradients are added */
    KILN_PART_UPDATE, /* AdamW, and the packed copies */
    KILN_PARTS
};

/* "attn_fwd": of its spans, in JSON and CSV. */
const char *kiln_part_name(enum kiln_part part);
/* "attention forward": for people. */
const char *kiln_part_title(enum kiln_part part);
/* The part whose spans have that name; KILN_PARTS: none. */
enum kiln_part kiln_part_find(const char *name);

struct kiln_part_cost {
    double flops, bytes;
};
/* What each part costs in a step (accum micro-batches and the update) of a plan that keeps all
 * activations. */
void kiln_part_costs(const struct kiln_plan *plan, const struct kiln_table *table,
                     struct kiln_part_cost out[KILN_PARTS]);

#endif

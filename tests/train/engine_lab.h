/* SPDX-License-Identifier: MIT
 *
 * engine_lab.h: an engine without a run: windows of random tokens, memory in an arena.
 */
#ifndef ENGINE_LAB_H
#define ENGINE_LAB_H

#include "base/mem.h"
#include "train/engine.h"

struct engine_lab {
    struct kiln_table *table;
    struct kiln_engine engine;
    struct kiln_arena arena;
    struct kiln_engine_memory memory;
    uint64_t updates; /* so far */
};

/* Of engines to be opened: gradients are added by the tree (train/reducer.h). */
extern bool engine_lab_deterministic;

/* Open what the request asks for. held > 0: with rounds of so many micro-batches, `cut` as
 * kiln_plan_hold has it, instead of what the plan chose. */
void engine_lab_open(struct engine_lab *lab, const struct kiln_plan_request *request, size_t held,
                     size_t cut);
void engine_lab_close(struct engine_lab *lab);
/* A window of the request's micro-batches, the same tokens in each window; returns the loss. */
double engine_lab_window(struct engine_lab *lab);
/* The update behind it. */
void engine_lab_update(struct engine_lab *lab, double norm);

#endif

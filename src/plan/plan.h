/* SPDX-License-Identifier: MIT
 *
 * plan.h: a plan that can be carried out: what is kept and where it lies, groups, memory, costs.
 *
 * kiln_plan_open chooses and checks; `kiln plan` prints what it chose, training does it. Nothing
 * here depends on a device that is open: sizes come from kiln_device_sizes.
 */
#ifndef KILN_PLAN_H
#define KILN_PLAN_H

#include <stddef.h>

#include "device/device.h"
#include "kiln/model.h"
#include "kiln/plan.h"
#include "plan/schedule.h"
#include "plan/timeline.h"

/* Blocks of activations.
 *
 *   for each held micro-batch   flow: the residual stream between groups, then its gradient
 *                               of a full layer: input | input of feed-forward | taps of both
 *                               of a layer whose input is kept: input
 *   once                        two residual blocks that take turns; the segment that is being
 *                               recomputed: inputs, inputs of feed-forward, taps
 */
struct kiln_layout {
    size_t residual, taps[KILN_HALVES]; /* bytes of a block */
    size_t *kept_at;                    /* [L] of a layer's blocks within a micro-batch */
    size_t micro_batch;                 /* bytes for one held micro-batch, the flow first */
    size_t held;
    size_t run;        /* layers of the longest segment; at least 1 where taps need a place */
    size_t run_inputs; /* inputs stored in a segment: all but kept ones */
    size_t scratch;    /* bytes of what there is once */
    bool in_state;     /* the held micro-batches lie in the state file: restarts cut windows */
};

/* What a window costs, mean over the windows that repeat. */
struct kiln_cost {
    double compiles, restarts;
    double compile_s;           /* kernels compiled, by whomever */
    double compute_s, update_s; /* the passes; the update, without the disk */
    double stall_s, restart_s;
    double written, read;               /* bytes to and from surfaces */
    size_t peak_forward, peak_backward; /* layers whose kernels are loaded at once, at most */
};

/* Bytes that an update reads and writes: for the norm of all gradients; then for what is no layer,
 * and for each layer; then for the snapshot of DELAYED. */
struct kiln_update_bytes {
    double norm, rest, layer, snapshot;
};

struct kiln_plan {
    const struct kiln_plan_request *request; /* borrowed */
    struct kiln_schedule_plan schedule;      /* owns its groups */
    unsigned char *keep_of;                  /* [L] what schedule.keep reads */
    struct kiln_micro_batch shape;
    size_t accum;
    bool joined; /* the first backward group shares the process of the last forward group */
    size_t cut;  /* groups are cut to so many layers; 0: they are not */
    struct kiln_keep keep; /* the policy it came from; AUTO: chosen layer by layer */
    struct kiln_device_sizes sizes;
    struct kiln_device_traffic traffic;
    bool two_sets;      /* DELAYED: the next generation is compiled in this process */
    size_t kernels_two; /* kernels that two sets would take, for messages */
    const char
        *restart_why; /* static text: why a relay was chosen that nobody asked for; or NULL */
    struct kiln_update_bytes update;
    struct kiln_layout layout;
    struct kiln_cost cost;
    struct kiln_memory memory;
    uint64_t least;          /* bytes in all when of the state only what must be is in memory */
    uint64_t state_resident; /* bytes of the state that may be in memory; the rest is walked */
    uint64_t disk_written, disk_read; /* bytes that a window moves between memory and state file */
    uint64_t walked; /* bytes that come into the process and go, from disk or not */
    struct kiln_flops flops;
};

/* Plan a request. On success kiln_plan_close it. Errors as of kiln_estimate. */
KILN_MUST_CHECK enum kiln_status kiln_plan_open(const struct kiln_table *table,
                                                const struct kiln_plan_request *request,
                                                struct kiln_plan *out, struct kiln_err *err);
/* The same, and where a device without budgets has no memory for the kernels of all layers,
 * request->load_budget becomes what fits: layers are then compiled as they are reached. */
KILN_MUST_CHECK enum kiln_status kiln_plan_fit(const struct kiln_table *table,
                                               struct kiln_plan_request *request,
                                               struct kiln_plan *out, struct kiln_err *err);
/* The plan of one policy; see below for the memory. */
KILN_MUST_CHECK enum kiln_status kiln_plan_policy(const struct kiln_table *table,
                                                  const struct kiln_plan_request *request,
                                                  struct kiln_keep policy, struct kiln_plan *out,
                                                  struct kiln_err *err);
/* The same with the choice made: `keep` by layer, before it is cut. As many micro-batches are held
 * as the memory allows; it may be too small even for one: see plan->least. KILN_EBUDGET when what
 * is recomputed needs more kernels in a process than there may be. `worth`: seconds of a window;
 * what cannot be faster is not looked at as closely (INFINITY: all is). */
KILN_MUST_CHECK enum kiln_status kiln_plan_layers(const struct kiln_table *table,
                                                  const struct kiln_plan_request *request,
                                                  const unsigned char *keep, double worth,
                                                  struct kiln_plan *out, struct kiln_err *err);
/* Plan the same again with so many micro-batches held and groups of so many layers, inside the ones
 * that are as large as they may be; 0 layers: those. With a cost that it is known to have (else
 * NULL) nothing is simulated. */
KILN_MUST_CHECK enum kiln_status kiln_plan_hold(const struct kiln_table *table,
                                                struct kiln_plan *plan, size_t held, size_t layers,
                                                const struct kiln_cost *known,
                                                struct kiln_err *err);
/* Where compiling overlaps: rounds in which all held micro-batches go through few layers while the
 * next ones compile, if a window is faster that way and takes no more compiles and restarts
 * (rounds.c). */
KILN_MUST_CHECK enum kiln_status kiln_plan_hide(const struct kiln_table *table,
                                                struct kiln_plan *plan, double worth,
                                                struct kiln_err *err);
void kiln_plan_close(struct kiln_plan *plan);
/* Seconds of a window: compiles, passes, update, restarts, disk. */
struct kiln_plan_time kiln_plan_seconds(const struct kiln_plan *plan);
/* Does it fit the memory asked for? */
bool kiln_plan_fits(const struct kiln_plan *plan);

/* AUTO: the fastest plan that fits (auto.c). *found false: none does; then `out` is not made. */
KILN_MUST_CHECK enum kiln_status kiln_plan_auto(const struct kiln_table *table,
                                                const struct kiln_plan_request *request,
                                                struct kiln_plan *out, bool *found,
                                                struct kiln_err *err);

/* Is the embedding here, the head? Both are where the request has no stages. */
bool kiln_stage_embeds(const struct kiln_plan_request *request);
bool kiln_stage_classifies(const struct kiln_plan_request *request);
/* Make a request for the whole model one for a stage of it. */
void kiln_stage_choose(struct kiln_plan_request *request, size_t stages, size_t number);

/* The device that a request asks for. */
struct kiln_device_options kiln_plan_device(const struct kiln_plan_request *request);
/* Precision of the snapshots of a run; AUTO: it has none. */
enum kiln_precision kiln_plan_snapshots(const struct kiln_plan_request *request);
/* The plan of a device without limits: bench, verify, evaluation of a file. */
struct kiln_plan_request kiln_plan_simple(const struct kiln_table *table,
                                          const struct kiln_device_options *options, size_t accum,
                                          size_t threads);

/* Windows through processes until they repeat: fills plan->cost. With a trace (room for
 * kiln_trace_room): the actions of one such window. */
struct kiln_trace {
    struct kiln_plan_action *at;
    size_t n;
};
KILN_MUST_CHECK enum kiln_status kiln_simulate(struct kiln_plan *plan, struct kiln_trace *trace,
                                               struct kiln_err *err);
/* The same where passes, compiles and the update take what `rates` says. */
KILN_MUST_CHECK enum kiln_status kiln_simulate_with(struct kiln_plan *plan,
                                                    const struct kiln_rates *rates,
                                                    struct kiln_trace *trace, struct kiln_err *err);
/* And when gradients are whole: of layer l at whole[l], of what is behind the layers at whole[L],
 * of all (then the update begins) at whole[L + 1]; seconds of one clock, of one window that
 * repeats. */
KILN_MUST_CHECK enum kiln_status kiln_simulate_gradients(struct kiln_plan *plan, double *whole,
                                                         struct kiln_err *err);
struct kiln_rates kiln_plan_rates(const struct kiln_plan *plan);
size_t kiln_trace_room(const struct kiln_plan *plan);

/* Blocks and bytes of a plan whose schedule is made. */
KILN_MUST_CHECK enum kiln_status kiln_layout_make(struct kiln_plan *plan, struct kiln_err *err);
/* FLOPs of a micro-batch through a model, with adapters where it has them. */
struct kiln_flops kiln_plan_model_flops(const struct kiln_table *table, size_t batch, size_t seq);
/* From the FLOPs of a model that is trained whole to those of its adapters: their products beside
 * the model's, and no weight gradients of the model. */
void kiln_plan_flops_lora(const struct kiln_table *table, size_t tokens, struct kiln_flops *flops);
void kiln_memory_make(const struct kiln_table *table, struct kiln_plan *plan);

#endif

/* SPDX-License-Identifier: MIT
 *
 * plan.h: what training a model costs under a budget of compiled kernels, before anything runs.
 *
 * Pure functions of sizes: no device is opened, no weight is read. docs/plan.md has the model.
 *
 * A layer has six kernels. attn_fwd and ffn_fwd (forward) and ffn_bwd, attn_bwd1 and qkv_bwd
 * (backward) carry weights: new weights mean a new compile. attn_bwd2 carries none. A process may
 * compile and hold loaded only so many; then it is replaced (a restart).
 *
 *   WHOLE  every pass over a group of layers compiles all six kernels of its layers
 *   SPLIT  forward kernels for the forward pass, backward kernels for the backward pass, attn_bwd2
 *          once a process; all micro-batches of a window go through a group before the next one
 *
 * Not modelled yet, so not in the result: time, compiling beside computing, extra kernels. The
 * trainer does not follow budgets yet.
 */
#ifndef KILN_PUBLIC_PLAN_H
#define KILN_PUBLIC_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/model.h"
#include "kiln/status.h"

/* budget * (10^6 - headroom) / 10^6 in integers: 119 at 100000 is 107. Headroom is in [0, 10^6);
 * more counts as 10^6: nothing is usable. */
KILN_API size_t kiln_usable_budget(size_t budget, uint64_t headroom_millionths);

/* Model FLOPs of one micro-batch of N = B*T tokens (a multiply-add is 2). Attention is counted
 * without its mask, five score-sized products forward and backward; recomputation is not counted:
 * these are the FLOPs of the model, not of the program. */
struct kiln_flops {
    double forward, dx, dw; /* 2 * parameters of the layers' matrices * N each */
    double attention;       /* L*2*H*K*5*T*N */
    double classifier;      /* 3*2*V*D*N: forward, dx, dw */
    double total;
    double device; /* forward, dx and attention: the layers' kernels */
    double host;   /* the rest */
};
KILN_API struct kiln_flops kiln_plan_flops(const struct kiln_dims *dims, size_t batch, size_t seq);

enum kiln_schedule { KILN_SCHEDULE_WHOLE, KILN_SCHEDULE_SPLIT };
/* KILN_EUSAGE lists the valid names. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_schedule_parse(const char *text,
                                                              enum kiln_schedule *out,
                                                              struct kiln_err *err);

/* What the forward pass keeps for the backward pass.
 *
 *   ALL       every layer full: nothing is recomputed
 *   BOUNDARY  full: the first layer of every forward group, and the last layer
 *   SQRT      full: every floor(sqrt L)-th layer, and the last
 *   EVERY     full: every n-th layer, and the last ("every" alone is every:4)
 *   INPUTS    of every layer its input
 *   NONE      only the token ids
 *   AUTO      today: of ALL, BOUNDARY, SQRT, every:4, INPUTS, NONE the one that fits the memory
 *             with fewest forwards run again, then fewest compiles. A choice layer by layer comes
 *             later.
 */
enum kiln_keep_kind {
    KILN_KEEP_ALL,
    KILN_KEEP_BOUNDARY,
    KILN_KEEP_SQRT,
    KILN_KEEP_EVERY,
    KILN_KEEP_INPUTS,
    KILN_KEEP_NONE,
    KILN_KEEP_AUTO,
};
struct kiln_keep {
    enum kiln_keep_kind kind;
    size_t every; /* of EVERY, at least 1 */
};
/* KILN_EUSAGE lists the valid names. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_keep_parse(const char *text, struct kiln_keep *out,
                                                          struct kiln_err *err);
/* "every:4"; at most 32 bytes. */
KILN_API const char *kiln_keep_name(struct kiln_keep keep, char buffer[32]);

struct kiln_plan_request {
    struct kiln_dims dims; /* checked */
    size_t batch, seq, accum;
    size_t budget, load_budget;   /* kernels; 0: no limit */
    uint64_t headroom_millionths; /* share of both left unused */
    bool refreshes;               /* new weights need no compile while there is no budget (cpu) */
    enum kiln_schedule schedule;
    struct kiln_keep keep;
    uint64_t memory; /* bytes; 0: no limit */
};

enum kiln_plan_pass { KILN_PLAN_FORWARD, KILN_PLAN_RECOMPUTE, KILN_PLAN_BACKWARD };
KILN_API const char *kiln_plan_pass_name(enum kiln_plan_pass pass);

/* Layers whose kernels are compiled together, in the order of the window. A backward group holds
 * the forward kernels of the layers that it recomputes, too. RECOMPUTE stands for a run of dropped
 * layers that is too long to share a process with its backward kernels. */
struct kiln_plan_group {
    enum kiln_plan_pass pass;
    size_t first, end; /* layers first .. end-1 */
    size_t recomputed; /* BACKWARD: layers run forward again in it */
    size_t kernels;    /* in a fresh process */
};

enum kiln_plan_what {
    KILN_PLAN_RESTART,
    KILN_PLAN_COMPILE,
    KILN_PLAN_RUN, /* all micro-batches (or one, see by_micro_batch) through the group */
    KILN_PLAN_UPDATE,
};
struct kiln_plan_action {
    enum kiln_plan_what what;
    struct kiln_plan_group group; /* unused in UPDATE */
    size_t kernels;               /* COMPILE: compiled now. RESTART: what did not fit */
    size_t left;                  /* of the usable budget, after it (RESTART: before it) */
};

/* Bytes by part, in the shapes of the cpu device with 2-byte operands. */
struct kiln_memory {
    uint64_t weights, moments, gradients;
    uint64_t kernels;
    uint64_t activations_kept; /* from forward to backward */
    uint64_t activations_live; /* while one micro-batch passes; the gradient that flows back */
    uint64_t workspace;        /* of the device, with one thread */
    uint64_t total;            /* all of the above */
    uint64_t state_file;       /* exact size; holds weights, moments and gradients, so not added */
};

/* One line of the table of policies. */
struct kiln_policy {
    struct kiln_keep keep;
    size_t kept_count, extra_forward_layers;
    uint64_t bytes; /* activations kept and live */
    uint64_t total; /* all memory */
    double compiles, restarts;
};
enum { KILN_POLICIES = 6 };

struct kiln_estimate {
    struct kiln_keep keep; /* as chosen: never AUTO */
    size_t parameters;
    size_t usable, load_usable; /* 0: no limit */
    struct kiln_plan_group *groups;
    size_t n_groups;
    double compiles, restarts; /* a window, mean over repeating windows */
    bool by_micro_batch;       /* a micro-batch goes through all groups before the next one */
    size_t *kept;              /* layers kept full */
    size_t kept_count, extra_forward_layers;
    struct kiln_policy policies[KILN_POLICIES];
    struct kiln_memory memory;
    struct kiln_flops flops;
    struct kiln_plan_action *actions; /* of one steady window (WHOLE: of one micro-batch) */
    size_t n_actions;
};

/* Plan. On success kiln_estimate_free the result. KILN_EBUDGET when a layer can never fit,
 * KILN_ENOMEM when the memory is below what the policy (AUTO: any policy) needs, with the
 * numbers. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_estimate(const struct kiln_plan_request *request,
                                                        struct kiln_estimate *out,
                                                        struct kiln_err *err);
KILN_API void kiln_estimate_free(struct kiln_estimate *estimate);

#endif

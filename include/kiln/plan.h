/* SPDX-License-Identifier: MIT
 *
 * plan.h: what training a model costs under a budget of compiled kernels, before anything runs.
 *
 * Pure functions of sizes: no device is opened, no weight is read. docs/plan.md has the model.
 *
 * A layer has six kernels. attn_fwd and ffn_fwd (forward) and ffn_bwd, attn_bwd1 and qkv_bwd
 * (backward) carry weights: new weights mean a new compile. attn_bwd2 carries none. A process may
 * compile and hold loaded only so many; then it is replaced (a restart). The extras of sim and ane
 * are two kernels more a layer (the norms' backward), and behind the last layer the classifier's,
 * with weights, and softmax, without.
 *
 *   WHOLE  every pass over a group of layers compiles all six kernels of its layers
 *   SPLIT  forward kernels for the forward pass, backward kernels for the backward pass, attn_bwd2
 *          once a process; as many micro-batches as the memory holds go through a group before the
 *          next one
 *
 * Training follows the same plan: `kiln plan` prints what `kiln train` does with the same flags.
 */
#ifndef KILN_PUBLIC_PLAN_H
#define KILN_PUBLIC_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/cpu.h"
#include "kiln/device.h"
#include "kiln/model.h"
#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

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
    double device; /* forward, dx and attention: the layers' kernels. With extras in a plan of sim
                    * or ane the classifier's forward products, too */
    double host;   /* the rest */
};
KILN_API struct kiln_flops kiln_plan_flops(const struct kiln_dims *dims, size_t batch, size_t seq);

/* What computing does while kernels compile (docs/overlap.md).
 *
 *   OFF      it waits
 *   EXACT    the bits of OFF: after the update a layer's kernels compile while the layer before it
 *            runs, those of the backward pass during the forward pass. Where a window's kernels do
 *            not fit one process, inside each process. Several micro-batches go through a few
 * layers together where that is faster DELAYED  two kernel sets: while one computes a window the
 * other is compiled from a snapshot of the newest weights, and whole sets are swapped at the
 * window's edge. Gradients are one update old: W(t+1) = update(W(t), grad(W(max(t-1, 0))))
 */
enum kiln_overlap { KILN_OVERLAP_OFF, KILN_OVERLAP_EXACT, KILN_OVERLAP_DELAYED };
/* EXEC: the process replaces itself. RELAY: a successor is started early and compiles within its
 * own budgets while the old process still computes. */
enum kiln_restart_kind { KILN_RESTART_EXEC, KILN_RESTART_RELAY };
/* KILN_EUSAGE lists the valid names. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_overlap_parse(const char *text,
                                                             enum kiln_overlap *out,
                                                             struct kiln_err *err);
KILN_API KILN_MUST_CHECK enum kiln_status kiln_restart_parse(const char *text,
                                                             enum kiln_restart_kind *out,
                                                             struct kiln_err *err);
KILN_API const char *kiln_overlap_name(enum kiln_overlap overlap);
KILN_API const char *kiln_restart_name(enum kiln_restart_kind restart);

enum kiln_schedule { KILN_SCHEDULE_WHOLE, KILN_SCHEDULE_SPLIT };
/* KILN_EUSAGE lists the valid names. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_schedule_parse(const char *text,
                                                              enum kiln_schedule *out,
                                                              struct kiln_err *err);

/* What the forward pass keeps for the backward pass. A layer is full (its input and taps are kept),
 * or its input is kept, or it is dropped; what is not full is run forward again when the backward
 * pass reaches it, dropped layers together with the layer in front of them whose input there is.
 *
 *   ALL       every layer full: nothing is recomputed
 *   BOUNDARY  full: the first layer of every forward group, and the last layer
 *   SQRT      full: every floor(sqrt L)-th layer, and the last (Chen et al. 2016)
 *   EVERY     full: every n-th layer, and the last ("every" alone is every:4)
 *   INPUTS    of every layer its input
 *   NONE      only the token ids
 *   AUTO      chosen layer by layer, and how many micro-batches are held: the fastest plan that
 *             fits the memory
 *
 * Layers that are not full are dropped, but for those that something must begin with: behind a
 * full layer the input is kept (the output of the full layer), at the edge of a WHOLE group, and
 * where a run of dropped layers is too long to share a process with its backward kernels.
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

/* What a device and its host do in a second; kiln_profile_of measures or knows it. A kernel takes
 *
 *     compile_s + load_s + bytes of its weight files / compile_gb_s     once
 *     dispatch_s + operations / tflops                                  an evaluation
 *
 * and an evaluation `beside` times as long while something compiles. 0 is no time, or no limit. */
struct kiln_profile {
    double tflops;         /* of the device's kernels in a pass, 1e12/s */
    double ceiling_tflops; /* the most that products reach; 0: unknown */
    double dispatch_s;     /* an evaluation, whatever it computes */
    double compile_s;      /* a kernel, whatever its size */
    double compile_gb_s;   /* and its weights, as they are on the device */
    double load_s;         /* a kernel made ready to run */
    double beside;         /* evaluations beside a compile take so many times as long; 0: 1 */
    double host_tflops;    /* of products on the host of sim and ane: dW, its classifier; on the
                            * cpu equal to tflops */
    double update_gb_s;    /* bytes that an update reads and writes */
    double restart_s;      /* a process replaced, beside its compiles */
    double relay_s;        /* a hand-over to a successor that is ready */
    double process_gb;     /* memory of the program with nothing open */
    double walk_gb_s;      /* pages of a mapped file that come, are changed and go */
    double cache_gb;       /* memory that the system has for pages of files; 0: unknown */
    double disk_write_gb_s, disk_read_gb_s; /* of a state that is larger than the memory */
    struct kiln_npu_times sim; /* what a simulator charges, before its multiple; all 0: nothing */
};

/* A profile as a file, profile.json: what was measured or published of a device, each figure with
 * where it is from. docs/probe.md has the form. Files may lack figures and may have others. */
enum { KILN_FIGURES = 14 };
struct kiln_figure {
    const char *name, *unit;
    double least, most;
    size_t at; /* in struct kiln_profile */
};
struct kiln_profile_file {
    char device[128]; /* "Apple M4" */
    bool npu;         /* of sim and ane; else of a cpu */
    struct kiln_profile profile;
    bool known[KILN_FIGURES];
    char source[KILN_FIGURES][400];
};
KILN_API const struct kiln_figure *kiln_figure(size_t i);
KILN_API double *kiln_figure_of(struct kiln_profile *profile, size_t i);
/* Read one that ships (m1-pro, m3-max, m4, m5), or a file. KILN_EUSAGE: `name` is neither.
 * KILN_EINPUT names the file and the figure that cannot be. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_profile_read(const char *name,
                                                            struct kiln_profile_file *out,
                                                            struct kiln_err *err);
/* Write the figures that are known, durably. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_profile_write(const char *path,
                                                             const struct kiln_profile_file *file,
                                                             struct kiln_err *err);

/* The profile of a device that plans take. `name` (NULL: none) is one that kiln_profile_read knows;
 * figures that it lacks are those without a name:
 *
 *   cpu                 this machine, measured (a quarter of a second)
 *   sim without time    the same
 *   ane                 the M4's
 *   sim with time       the device of the M4's times the simulator's multiple, but never faster
 *                       than this machine simulates; the host of this machine
 *
 * KILN_EUSAGE: a profile of a cpu for sim or ane, of an NPU for the cpu or for a simulator that
 * charges no time. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_profile_of(const struct kiln_device_choice *device,
                                                          const char *name, size_t threads,
                                                          enum kiln_precision precision,
                                                          struct kiln_profile *out,
                                                          struct kiln_err *err);

/* Measure the disk that a folder lies on: a quarter of a gigabyte is written and read (seconds). */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_profile_disk(const char *folder,
                                                            struct kiln_profile *profile,
                                                            struct kiln_err *err);

/* ---- several ranks (docs/distributed.md) -------------------------------------------------------
 *
 * n ranks train one model, each with all of it. Of the A micro-batches of a window rank r takes
 * [r A/n, (r + 1) A/n), and the gradients are summed over the ranks while the last of them goes
 * back: what lies behind the layers travels as soon as there is a loss, a layer behind its backward
 * pass, the embedding (with a tied head) at the very end. Each is cut into stretches of 2^20
 * floats, and two of these are under way at once. Then every rank updates all weights.
 *
 * With H > 1 local steps (DiLoCo, Douillard et al. 2023, arXiv:2311.08105) each rank makes H whole
 * steps with its own gradients; then what they changed, and AdamW's moments, are averaged over
 * the ranks, all of it at once while nothing else is done, and the change goes into an outer step
 * with Nesterov momentum.
 *
 * A sum of m bytes over n ranks, each of which has it then, with latency a of a message, b seconds
 * a byte, c seconds to add a byte, and k = log2 n rounded down:
 *
 *   direct    2 a + 2 (n - 1)/n m b + (n - 1)/n m c
 *   halving   2 k a + 2 (1 - 2^-k) m b + (1 - 2^-k) m c
 *
 * Directly: part q of m goes to rank q, which adds what it gets and sends the sum to all, all
 * messages at once. Halving (and doubling) is Rabenseifner's, with 3 a + 2 m b + m/2 c more where n
 * is no power of two (Thakur, Rabenseifner, Gropp 2005, "Optimization of Collective
 * Communication Operations in MPICH"). Up to 16 ranks sum directly, more of them by halving; bf16
 * is summed directly on any number. A tree is summed directly on any number: with s its nodes on
 * the rank that has most and t those of all, a sum then takes
 *
 *   2 a + (s + 1) (n - 1)/n m b + (t - 1)/n m c */
struct kiln_link {
    double latency_s;   /* of a message, however short; at least 0 */
    double bytes_per_s; /* each way at once, of one rank; above 0, INFINITY: no time */
};
struct kiln_plan_ranks {
    size_t ranks; /* 0: nothing is asked about ranks */
    struct kiln_link link;
    size_t local_steps; /* H, also of one rank; 0 counts as 1 */
    size_t float_bytes; /* of a float that travels: 4, or 2 for bf16; 0 counts as 4 */
    bool deterministic; /* micro-batches are added by one tree */
    size_t stages;      /* of a pipeline, of which `ranks` is a multiple; 0 counts as 1: none */
};
enum kiln_allreduce { KILN_ALLREDUCE_DIRECT, KILN_ALLREDUCE_HALVING, KILN_ALLREDUCES };
/* "direct", "halving" */
KILN_API const char *kiln_allreduce_name(enum kiln_allreduce kind);

/* Numbers of ranks that are compared: 1, 2, 4, ..., 4096. */
enum { KILN_SCALES = 13 };
struct kiln_scale {
    size_t ranks;
    size_t micro_batches;                /* of a rank, at most, when the window is shared */
    double step_s, strong_efficiency;    /* the window is shared: A stays */
    double weak_step_s, weak_efficiency; /* each rank has A of its own */
};
/* What stages take: of a pipeline whose micro-batches go through in 1F1B order
 * (docs/distributed.md).
 */
struct kiln_pipeline_cost {
    size_t stages, replicas;   /* of each stage; 0: no pipeline */
    size_t layers;             /* of a stage, at most */
    size_t slowest;            /* the stage whose micro-batches take longest ... */
    double micro_batch_s;      /* ... and how long, forward and backward */
    size_t held;               /* micro-batches, on the first stage */
    double compiles, restarts; /* a window, of the stage that has most */
    double stall_s;            /* it waits for compiles, likewise */
    double bubble_share;       /* of the passes of a step the slowest stage waits for others */
    double bytes_passed;       /* activations and gradients that a rank sends in a step, at most */
    double compute_s;          /* from the first pass of a step to the last */
};
/* What a step takes over ranks. With H > 1 the mean of H steps and the outer one. */
struct kiln_ranks_cost {
    size_t micro_batches;     /* of a rank, at most: A/n rounded up; of a replica of a pipeline */
    enum kiln_allreduce kind; /* of every sum */
    double bytes_sent;        /* by the rank that sends most */
    double communication_s;   /* something is under way */
    double hidden_share;      /* of that, behind the last backward pass; 1 where there is none */
    double exposed_s;         /* of that, waited for */
    double outer_s;           /* H > 1: the outer step, without what travels */
    double step_s, tokens_per_s;
    double speedup, efficiency; /* against one rank with the same window; by ranks. 0: unknown */
    uint64_t memory;            /* bytes of a rank; H > 1: with those of the last outer step */
    uint64_t memory_sharded;    /* with --shard-optimizer: weights and moments that are trained lie
                                 * spread over ranks, each computes with a copy in operands */
    size_t local_steps_advised; /* fewest with which less than 5 % of a step is waiting: 1: plain
                                 * ones; 0: no number */
    struct kiln_scale scaling[KILN_SCALES]; /* not of a pipeline */
    struct kiln_pipeline_cost pipeline;
};

/* A stage of a pipeline: layers [number L / stages, (number + 1) L / stages) of a model of L. The
 * first has the embedding, too, the last the final norm, the head and the loss. The residual stream
 * comes from the stage before and goes to the one behind, its gradient comes back; `stages -
 * number - 1` micro-batches more than one are held, so that all stages compute at once (1F1B:
 * Narayanan et al. 2019, "PipeDream"). Zeros: the whole model. */
struct kiln_plan_stage {
    size_t stages, number;
    size_t layers; /* L */
};
/* Stage `number` of a model of L layers; its first layer, or with the number behind it its end. */
KILN_API size_t kiln_stage_first(size_t layers, size_t stages, size_t number);

struct kiln_plan_request {
    struct kiln_dims dims;        /* checked; of a stage its own layers */
    struct kiln_plan_stage stage; /* which layers of the model these are */
    struct kiln_lora lora;        /* rank 0: the whole model is trained */
    size_t batch, seq, accum;
    struct kiln_device_choice device;
    size_t budget, load_budget;   /* kernels; 0: no limit */
    uint64_t headroom_millionths; /* share of both left unused */
    bool refreshes;               /* cpu: new weights need no compile while there is no budget */
    bool forward_only;            /* evaluation: nothing is kept */
    bool doc_mask;                /* attention within documents only */
    enum kiln_schedule schedule;
    enum kiln_overlap overlap;
    /* DELAYED where two sets do not fit a process takes RELAY; an EXEC that was `restart_asked` for
     * is then KILN_EUSAGE. */
    enum kiln_restart_kind restart;
    bool restart_asked;
    struct kiln_keep keep;
    uint64_t memory;              /* bytes; 0: no limit */
    struct kiln_plan_ranks ranks; /* of training: what several would take; the plan is one rank's */
    enum kiln_precision precision;
    size_t threads; /* 0 counts as 1 */
    struct kiln_profile profile;
    /* Bytes of gradients beside the one there is, for micro-batches that are added by a tree; 0:
     * each is added as it comes. Where there are any, one micro-batch is taken at a time. */
    uint64_t gradients_beside;
    /* Weights and moments that are trained lie spread over so many ranks; below 2: they do not. */
    size_t spread;
};

enum kiln_plan_pass { KILN_PLAN_FORWARD, KILN_PLAN_BACKWARD };
KILN_API const char *kiln_plan_pass_name(enum kiln_plan_pass pass);

/* Layers whose kernels are compiled together, in the order of the window. A backward group holds
 * the forward kernels of the layers that it recomputes, too. */
struct kiln_plan_group {
    enum kiln_plan_pass pass;
    size_t first, end; /* layers first .. end-1 */
    size_t recomputed; /* BACKWARD: layers run forward again in it */
    size_t kernels;    /* in a fresh process */
};

/* What training does next. */
enum kiln_action_kind {
    KILN_COMPILE_GROUP,
    KILN_COMPILE_NEXT,   /* DELAYED: the set of the next generation, beside this window */
    KILN_FORWARD_GROUP,  /* one micro-batch through the group; behind the last one the loss */
    KILN_BACKWARD_GROUP, /* recomputation inside */
    KILN_UPDATE,
    KILN_RESTART, /* replace the process */
    KILN_STEP_DONE,
    KILN_ERROR, /* a group that fits no process; a plan that was opened has none */
};
KILN_API const char *kiln_action_name(enum kiln_action_kind what);

struct kiln_plan_action {
    enum kiln_action_kind what;
    struct kiln_plan_group group; /* of COMPILE, FORWARD, BACKWARD, RESTART */
    size_t micro_batch;           /* of FORWARD, BACKWARD */
    size_t kernels;               /* COMPILE: compiled now. RESTART: what did not fit */
    size_t left;                  /* of the usable budget, after it (RESTART: before it) */
};

/* Bytes by part. */
struct kiln_memory {
    uint64_t weights, moments, gradients;
    uint64_t kernels;   /* loaded at once, at most; the classifier on cpu */
    uint64_t snapshots; /* of weights that another set compiles from, or a rank computes with */
    uint64_t journal;   /* undo journal and stamps that are touched */
    uint64_t activations_kept; /* from forward to backward */
    uint64_t activations_live; /* while one micro-batch passes; the gradient that flows back */
    uint64_t workspace;        /* of the device and its threads */
    uint64_t gpu;              /* --dw gpu: buffers, as if they lay in this machine's memory */
    uint64_t process;          /* the program, its libraries and their data; with a relay those of
                                * three processes, and pages of weights that two of them map */
    uint64_t total;            /* all of the above, but not more of the state than the memory */
    uint64_t state_file;       /* exact size; holds parts of the above, so not added */
};

/* Seconds of a window, from the schedule simulated in virtual time (docs/overlap.md). */
struct kiln_plan_time {
    double compile; /* kernels compiled, hidden or not, by whatever process */
    double compute; /* passes, update, disk */
    double stall;   /* the device waits for compiles; the rest of `compile` is hidden */
    double restart; /* processes started and hand-overs, as far as the device waits for them */
    double step;    /* compute, stall and restart */
};

/* One line of the table of policies. */
struct kiln_policy {
    struct kiln_keep keep;
    bool possible; /* false: it needs more kernels in a process than there may be */
    size_t kept_count, extra_forward_layers;
    size_t held;    /* micro-batches that go through a group before the next one */
    uint64_t bytes; /* activations kept and live */
    uint64_t total; /* all memory */
    double compiles, restarts, step_s;
};
enum { KILN_POLICIES = 6 };

struct kiln_estimate {
    struct kiln_plan_stage stage; /* of a pipeline: all but `ranks` is of this one, its slowest */
    struct kiln_keep keep;        /* as asked for */
    size_t parameters;
    size_t programs;            /* compiled when the device is opened, and never again */
    size_t usable, load_usable; /* 0: no limit */
    size_t load_budget;         /* as asked for, or what the memory has room for on cpu */
    enum kiln_overlap overlap;
    enum kiln_restart_kind restart; /* as asked for, or what DELAYED needs */
    const char *restart_why;        /* static text: why a relay was chosen; NULL: it was asked for,
                                     * or there is none */
    size_t staleness;               /* updates between the weights a gradient is of and those that
                                     * it is applied to: 1 in DELAYED */
    bool two_sets;                  /* DELAYED: both sets in one process */
    size_t kernels_two_sets;        /* kernels that takes, or would take */
    struct kiln_plan_group *groups;
    size_t n_groups;
    double compiles, restarts; /* a window, mean over repeating windows */
    size_t held;
    size_t *kept, *inputs; /* layers kept full; layers of which the input is kept */
    size_t kept_count, inputs_count, extra_forward_layers;
    struct kiln_policy policies[KILN_POLICIES];
    struct kiln_memory memory;
    struct kiln_flops flops;
    struct kiln_plan_time time;
    size_t zero_stall_accum; /* smallest accum at which DELAYED has no stall once windows repeat;
                              * 0: none was found */
    uint64_t disk_bytes_per_step;
    uint64_t surface_written, surface_read; /* sim, ane: bytes of a window */
    struct kiln_plan_action *actions;       /* of one steady window; NULL unless asked for */
    size_t n_actions;
    struct kiln_ranks_cost ranks; /* where the request asks about ranks */
};

/* Plan. On success kiln_estimate_free the result. KILN_EBUDGET when a layer can never fit,
 * KILN_ENOMEM when the memory is below what the policy (AUTO: any policy) needs, with the
 * numbers. Trace: with the actions. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_estimate(const struct kiln_plan_request *request,
                                                        bool trace, struct kiln_estimate *out,
                                                        struct kiln_err *err);
KILN_API void kiln_estimate_free(struct kiln_estimate *estimate);

#ifdef __cplusplus
}
#endif

#endif

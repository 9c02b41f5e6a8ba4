/* SPDX-License-Identifier: MIT
 *
 * verify.h: is the arithmetic right, and is it the same again? Compare a device with float64
 * reference vectors; train a part of a run once more and compare the bits.
 *
 * A reference folder holds reference.json (dims, batch, steps, adamw, loss[], loss_delayed[],
 * tensor_order, grad_l2), model.bin (llama2.c's format or kiln's own), tokens.u16 (per step batch
 * rows of seq+1 ids) and grads.f32 (gradients of step 0, as kiln_llama2c_unpack reads them).
 * Where reference.json has `begin`, an id, documents begin with it and attention does not look into
 * others; targets of the id `no_target` count nowhere. tests/python/families.py makes such folders
 * of other families with PyTorch and transformers.
 */
#ifndef KILN_VERIFY_H
#define KILN_VERIFY_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/cpu.h"
#include "kiln/device.h"
#include "kiln/plan.h"
#include "kiln/ranks.h"
#include "kiln/settings.h"
#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kiln_verify_options {
    const char *reference; /* folder */
    enum kiln_precision precision;
    size_t threads; /* 0: all */
    struct kiln_device_choice device;
    size_t budget; /* kernels that may be compiled, a tenth of them left unused; 0: no limit */
    /* DELAYED compares with the losses of the delayed rule (loss_delayed[] of the reference). */
    enum kiln_overlap overlap;
    /* Processes that take a share of the sequences of a step each (kiln/ranks.h), NULL: this one
     * all. Then, and with `deterministic`, whose sums have one order on any number of them, a
     * sequence is a micro-batch. All get the same result. */
    struct kiln_ranks *ranks;
    bool deterministic;
};

/* One gradient tensor of step 0: |g - reference| / |reference|, 2-norms. */
struct kiln_verify_tensor {
    char name[24];
    double error;
};

struct kiln_verify_result {
    bool pass;
    struct kiln_verify_tensor *tensors; /* [n_tensors], heap; kiln_verify_free */
    size_t n_tensors;
    struct kiln_verify_tensor worst;
    double gradient_limit;
    double loss_error; /* largest relative difference over the steps */
    double loss_limit;
    size_t steps; /* compared: all of the reference, or what the budget allows */
    size_t all;   /* that the reference has */
};

/* Run the reference's training steps and compare, in this process: where a budget is spent before
 * the last step, the steps up to there are what is compared; KILN_EBUDGET when it is not enough for
 * one. A difference beyond the limits is not an error
 * of this call: it returns KILN_OK with pass false. Limits (docs/architecture.md, "Numbers"):
 * fp32 losses 1e-5, gradients 3e-5; fp16 losses 2e-3, gradients 1e-2, of a scaled loss; bf16 losses
 * 5e-3, gradients 6e-2. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_verify_reference(
    const struct kiln_verify_options *options, struct kiln_verify_result *out,
    struct kiln_err *err);
KILN_API void kiln_verify_free(struct kiln_verify_result *result);

/* Train a part of a run again, in a temporary folder, and compare. */
struct kiln_replay_options {
    const char *run; /* folder; its files are only read */
    uint64_t from;   /* step of the checkpoint to begin at; KILN_UNSET: the oldest that is whole */
    uint64_t steps;  /* most steps to train; KILN_UNSET: up to the last thing to compare with */
    size_t threads;  /* 0: as the run */
    const volatile sig_atomic_t *stop; /* may be NULL; nonzero: give up, KILN_EINTERRUPTED */
};

/* One comparison. */
struct kiln_replay_check {
    bool same;
    char what[64];   /* "checkpoints/step-6", "state.kiln", "metrics.jsonl" */
    char found[480]; /* "step 6: weights 0a1b2c3d, m .., v .. again"; what differs */
};

struct kiln_replay_result {
    bool pass;                        /* all of them are the same */
    struct kiln_replay_check *checks; /* [n_checks], heap; kiln_replay_free */
    size_t n_checks;
    uint64_t from, to; /* steps: begun at, trained to */
    char note[240];    /* what changed since the checkpoint, steps that are not comparable; "" */
};

/* Begin at a checkpoint with the settings it holds, train on, and compare weights, m and v with
 * every later checkpoint on the way and with the state when it is reached, and the lasting keys of
 * metrics.jsonl (step loss grad_norm lr tokens staleness val_loss loss_scale skipped). Checkpoints
 * that fail their own checks are differences too. Steps trained after --steps changed had other
 * learning rates: the replay ends in front of them and the note names them. A difference is not an
 * error of this call: KILN_OK with pass false. KILN_EBUSY: the run is being trained.
 * KILN_EUNSUPPORTED: this machine computes with other numerics. KILN_EINPUT: no checkpoint to begin
 * at, or nothing to compare with.
 */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_verify_run(const struct kiln_replay_options *options,
                                                          struct kiln_replay_result *out,
                                                          struct kiln_err *err);
KILN_API void kiln_replay_free(struct kiln_replay_result *result);

#ifdef __cplusplus
}
#endif

#endif

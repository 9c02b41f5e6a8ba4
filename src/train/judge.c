/* SPDX-License-Identifier: MIT
 *
 * judge.c: a window's loss and gradient norm, and what becomes of its update (trainer_int.h).
 *
 * A gradient that overflows by its loss scale is no incident: the window is skipped, and the next
 * has half the scale (scale.h). What else is no finite number, or far above the steps before
 * (spike.h), is one: it is recorded, and --on-spike says how training goes on. All is a function of
 * the state, the metrics and the settings: a death anywhere in here, and whoever takes the window
 * again decides the same.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/machine.h"
#include "train/incident.h"
#include "train/optimizer.h"
#include "train/scale.h"
#include "train/trainer_int.h"

enum { SKIPS = KILN_SCALE_SKIPS };

struct judgement {
    struct kiln_cursor *cursor;
    struct kiln_incident incident;
    bool finite;       /* a spike of finite numbers */
    char refusal[240]; /* instead of loss and norm: what the device says of the weights; or "" */
};

/* "step 60: loss 9.1, gradient norm 3.2 (loss spike, z 12.3)". */
static const char *words(const struct judgement *j, char out[300]) {
    const struct kiln_incident *in = &j->incident;
    if (j->refusal[0]) {
        snprintf(out, 300, "step %" PRIu64 ": %s", in->step, j->refusal);
        return out;
    }
    if (!isfinite(in->loss)) {
        snprintf(out, 300, "step %" PRIu64 ": loss is not finite", in->step);
        return out;
    }
    if (!isfinite(in->grad_norm)) {
        snprintf(out, 300, "step %" PRIu64 ": gradient norm is not finite (loss %.6g)", in->step,
                 in->loss);
        return out;
    }
    const int n = snprintf(out, 300, "step %" PRIu64 ": loss %.6g, gradient norm %.6g", in->step,
                           in->loss, in->grad_norm);
    if (j->finite) {
        snprintf(out + n, 300 - (size_t)n, " (%s, z %.1f over %zu steps)", in->why, in->score.z,
                 in->score.window);
    }
    return out;
}

/* A recorder that cannot write keeps nobody from training. */
static void record(struct kiln_trainer *t, struct judgement *j, const char *action) {
    struct kiln_err err;
    char text[400];
    j->incident.action = action;
    enum kiln_status status = KILN_OK;
    if (kiln_trainer_is_spread(t) && j->incident.scale > 0) {
        status = kiln_shards_collect_gradients(t->shards, t->state, &err);
    }
    if (!kiln_trainer_leads(t)) {
        return;
    }
    if (status != KILN_OK || kiln_incident_write(t, &j->incident, &err) != KILN_OK) {
        snprintf(text, sizeof text, "the incident at step %" PRIu64 " is not recorded: %.300s",
                 j->incident.step, err.message);
        kiln_trainer_notice(t, text);
    }
}

static void tell(const struct kiln_trainer *t, const struct judgement *j, const char *what) {
    char text[800], seen[300];
    snprintf(text, sizeof text, "%s: %s; kiln explain %.200s@%" PRIu64 " tells more",
             words(j, seen), what, t->folder, j->incident.step);
    kiln_trainer_notice(t, text);
}

/* No update, no further step: the state before the window stays. `why`: of the policy. */
static enum kiln_status stop(struct kiln_trainer *t, struct judgement *j, const char *why,
                             struct kiln_err *err) {
    const struct kiln_cursor *cursor = j->cursor;
    char seen[300], also[80] = "";
    if (isfinite(cursor->loss) && !j->finite && !j->refusal[0] && cursor->loss_scale > 0) {
        snprintf(also, sizeof also, " at loss scale %g, %" PRIu64 " windows in a row",
                 cursor->loss_scale, cursor->skip + 1);
    }
    record(t, j, "stopped");
    return KILN_FAIL(err, KILN_EDIVERGED,
                     "%s%s, learning rate %.3g; %s; kiln explain %.120s@%" PRIu64
                     " tells more. The weights of step %" PRIu64 " are kept in model.bin",
                     words(j, seen), also, j->incident.lr, why, t->folder, j->incident.step,
                     kiln_state_held(t->state)->step);
}

/* Those of all ranks, where each has its own. That one is lost the next exchange will say. */
static bool weights_are_good(const struct kiln_trainer *t) {
    double bad = !kiln_incident_weights_below(t, (double)INFINITY);
    struct kiln_err ignored;
    if (kiln_state_local(t->state) && kiln_ranks_most(t->ranks, &bad, &ignored) != KILN_OK) {
        return true;
    }
    return bad == 0;
}

static enum kiln_status skip(struct kiln_trainer *t, struct judgement *j, struct kiln_err *err) {
    if (j->refusal[0] || !weights_are_good(t)) {
        return stop(t, j,
                    "the weights themselves are to blame, and to skip this window mends nothing: "
                    "go on with --resume RUN --on-spike rollback",
                    err);
    }
    if (j->cursor->skip + 1 >= SKIPS) {
        return stop(t, j,
                    "20 windows in a row are too many to skip: go on with --resume RUN "
                    "--on-spike rollback",
                    err);
    }
    record(t, j, "skipped");
    j->cursor->skip++;
    tell(t, j, "its update is left out");
    return KILN_OK;
}

static enum kiln_status roll_back(struct kiln_trainer *t, struct judgement *j,
                                  struct kiln_err *err) {
    struct kiln_err why;
    char text[240];
    const size_t peaks = t->settings->n_peaks;
    const uint64_t next = j->incident.sample + t->engine.plan.shape.batch * t->settings->accum;
    KILN_TRY(kiln_outputs_wait(t, err)); /* the newest checkpoint is that under way */
    enum kiln_status status =
        kiln_trainer_leads(t) ? t->rollback.begin(t->rollback.context, next, &why) : KILN_OK;
    status = kiln_ranks_settle(t->ranks, status, &why);
    if (status == KILN_OK && t->ranks) {
        status = t->others.agree(t->others.context, &why);
    }
    if (status == KILN_EDIVERGED || status == KILN_EINPUT) {
        char reason[320];
        snprintf(reason, sizeof reason, "%.200s: start a new run with a lower --lr", why.message);
        return stop(t, j, reason, err);
    }
    if (status != KILN_OK) {
        return KILN_FAIL(err, status, "%s", why.message);
    }
    record(t, j, "rolled back");
    const struct kiln_settings *s = t->settings;
    snprintf(text, sizeof text,
             "back to the checkpoint of step %" PRIu64 ", past what was read since%s",
             s->jump[s->n_jumps - 1].at,
             s->n_peaks < peaks ? "; the learning rate that was asked for since is given up" : "");
    tell(t, j, text);
    t->rolled_back = true;
    return KILN_FAIL(err, KILN_ERESTART, "rolled back");
}

static enum kiln_status decide(struct kiln_trainer *t, struct judgement *j, struct kiln_err *err) {
    const char *policy = t->settings->on_spike;
    if (strcmp(policy, "skip") == 0) {
        return skip(t, j, err);
    }
    if (strcmp(policy, "rollback") == 0) {
        return roll_back(t, j, err);
    }
    if (strcmp(policy, "stop") == 0) {
        return stop(t, j,
                    "--on-spike stop: the state before it is saved; go on with --resume RUN "
                    "--on-spike record, skip or rollback",
                    err);
    }
    if (!j->finite) {
        return stop(t, j,
                    "go on with --resume RUN --on-spike skip or rollback, or start a new run from "
                    "an earlier checkpoint (--model RUN) with a lower --lr or a longer --warmup",
                    err);
    }
    record(t, j, "recorded");
    j->cursor->skip = 0;
    tell(t, j, "recorded, and trained on");
    return KILN_OK;
}

/* What went wrong, or NULL. */
static const char *fault(const struct kiln_trainer *t, struct judgement *j) {
    struct kiln_incident *in = &j->incident;
    in->score = kiln_spikes_loss(&t->spikes, in->loss);
    if (!isfinite(in->loss)) {
        return "loss is not finite";
    }
    if (in->score.z > t->settings->spike_z && isfinite(in->grad_norm)) {
        return "loss spike";
    }
    in->score = kiln_spikes_grad_norm(&t->spikes, in->grad_norm);
    if (!isfinite(in->grad_norm)) {
        return "gradient is not finite";
    }
    return kiln_spikes_norm_is_far(&in->score, in->grad_norm, t->settings->spike_z)
               ? "gradient spike"
               : NULL;
}

/* The norm, as if the loss were not scaled; that of rank 0, should processors differ. `scale` is
 * that of windows whose targets all count. */
static enum kiln_status measure(struct kiln_trainer *t, struct kiln_cursor *cursor, double scale,
                                struct kiln_err *err) {
    if (kiln_overflow_instead && kiln_overflow_instead(cursor->step)) {
        kiln_state_region(t->state, KILN_GRADIENTS)[0] = INFINITY;
    }
    cursor->loss = t->engine.executor.loss_sum / fmax(kiln_batches_targets(t), 1);
    const double start = kiln_now_s();
    const double scaled = kiln_batches_scale(t, scale);
    if (kiln_trainer_is_spread(t)) {
        KILN_TRY(kiln_optimizer_norm_held(t->engine.optimizer, t->ranks, scaled, &cursor->grad_norm,
                                          err));
    } else {
        cursor->grad_norm = kiln_optimizer_norm(t->engine.optimizer, scaled);
    }
    kiln_trainer_span(t, KILN_SPAN_NORM, NULL, start);
    if (kiln_state_local(t->state)) { /* each rank has its own: judged is the largest */
        t->own_norm = cursor->grad_norm;
        cursor->grad_norm = isfinite(cursor->grad_norm) ? cursor->grad_norm : (double)INFINITY;
        return kiln_ranks_most(t->ranks, &cursor->grad_norm, err);
    }
    cursor->loss_scale = kiln_scale_wanted(t->engine.request.precision) ? scale : 0;
    return kiln_ranks_tell(t->ranks, &cursor->grad_norm, sizeof cursor->grad_norm, err);
}

enum kiln_status kiln_judge(struct kiln_trainer *t, struct kiln_cursor *cursor, double scale,
                            struct kiln_err *err) {
    KILN_TRY(measure(t, cursor, scale, err));
    struct judgement j = {.cursor = cursor,
                          .incident = {.step = cursor->step + 1,
                                       .loss = cursor->loss,
                                       .grad_norm = cursor->grad_norm,
                                       .lr = kiln_learning_rate(t->settings, cursor->step),
                                       .sample = cursor->sample,
                                       .scale = kiln_batches_scale(t, scale)},
                          .finite = isfinite(cursor->loss) && isfinite(cursor->grad_norm)};
    j.incident.why = fault(t, &j);
    if (!j.incident.why) {
        cursor->skip = 0;
        return KILN_OK;
    }
    /* A smaller loss scale may help, unless the weights are to blame. Devices take the loss from
     * logits, before anything is scaled: of a loss that is no number no scale is the reason. */
    if (isfinite(cursor->loss) && !j.finite && scale > 1 && cursor->skip + 1 < SKIPS &&
        weights_are_good(t)) {
        cursor->skip++;
        return KILN_OK;
    }
    return decide(t, &j, err);
}

enum kiln_status kiln_judge_refusal(struct kiln_trainer *t, enum kiln_status status,
                                    struct kiln_err *err) {
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    const double none = (double)NAN;
    if (cursor.phase == KILN_PHASE_START || kiln_state_local(t->state) ||
        kiln_incident_weights_below(t, KILN_SCALE_LARGEST)) {
        return status;
    }
    /* Kernels of a delayed run are compiled a window ahead, or in that window by a process that
     * begins there. It is the same step that they would have spoilt. */
    const bool ahead = kiln_trainer_delayed(t) &&
                       (cursor.phase == KILN_PHASE_UPDATE ||
                        kiln_incident_generation_below(t, cursor.step, KILN_SCALE_LARGEST));
    const uint64_t window = t->engine.plan.shape.batch * t->settings->accum;
    struct judgement j = {.cursor = &cursor,
                          .incident = {.step = cursor.step + 1 + ahead,
                                       .sample = cursor.sample + (ahead ? window : 0),
                                       .why = "loss is not finite",
                                       .loss = none,
                                       .grad_norm = none,
                                       .lr = kiln_learning_rate(t->settings, cursor.step),
                                       .score = kiln_spikes_loss(&t->spikes, none)}};
    snprintf(j.refusal, sizeof j.refusal, "%.239s",
             err ? err->message : "the device takes no such weights");
    return decide(t, &j, err);
}

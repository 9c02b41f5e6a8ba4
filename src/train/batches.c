/* SPDX-License-Identifier: MIT
 *
 * batches.c: what a window and an evaluation read (trainer_int.h).
 */
#include "train/scale.h"
#include "train/trainer_int.h"

void kiln_batches_at(const struct kiln_trainer *t, uint64_t sample, uint64_t index,
                     uint32_t *tokens, uint32_t *targets, uint32_t *starts) {
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    const uint64_t first = sample + index * shape->batch;
    for (size_t b = 0; b < shape->batch; b++) {
        kiln_data_train(t->data, first + b, tokens + b * shape->seq, targets + b * shape->seq);
        if (starts) {
            kiln_data_train_starts(t->data, first + b, starts + b * shape->seq);
        }
    }
    kiln_plant_targets(t, sample, targets, shape->batch * shape->seq);
}

void kiln_batches_train(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                        uint32_t *starts) {
    const struct kiln_trainer *t = context;
    kiln_batches_at(t, kiln_state_cursor(t->state)->sample, t->first_micro_batch + index, tokens,
                    targets, starts);
}

/* Of so many micro-batches of the window. */
static double targets_of(const struct kiln_trainer *t, struct kiln_share share) {
    const uint64_t batch = t->engine.plan.shape.batch;
    const uint64_t first = kiln_state_cursor(t->state)->sample + share.first * batch;
    uint64_t n = 0;
    for (uint64_t i = 0; i < share.n * batch; i++) {
        n += kiln_data_train_targets(t->data, first + i);
    }
    return (double)n;
}

double kiln_batches_targets(const struct kiln_trainer *t) {
    return targets_of(t, (struct kiln_share){.n = t->settings->accum});
}

double kiln_batches_averaged(const struct kiln_trainer *t) {
    return kiln_state_local(t->state) ? targets_of(t, kiln_trainer_share(t, t->settings->accum))
                                      : kiln_batches_targets(t);
}

double kiln_batches_tokens(const struct kiln_trainer *t) {
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    return (double)(shape->batch * shape->seq * t->settings->accum);
}

double kiln_batches_scale(const struct kiln_trainer *t, double scale) {
    return kiln_scale_wanted(t->engine.request.precision)
               ? scale * kiln_scale_share(kiln_batches_targets(t), kiln_batches_tokens(t))
               : 1;
}

/* What is held out: a set of its own, or a part of the data. */
static const struct kiln_data *held_out(const struct kiln_trainer *t, enum kiln_split *split) {
    *split = t->val_data ? KILN_TRAIN : KILN_VALIDATION;
    return t->val_data ? t->val_data : t->data;
}

size_t kiln_batches_evaluated(const struct kiln_trainer *t) {
    const size_t windows = t->val_data ? kiln_data_windows(t->val_data, KILN_TRAIN)
                                       : kiln_data_windows(t->data, KILN_VALIDATION);
    const size_t most = (size_t)t->settings->eval_windows, batch = t->engine.plan.shape.batch;
    const size_t wanted = windows < most ? windows : most;
    return wanted == 0 ? 0 : wanted < batch ? 1 : wanted / batch;
}

/* Evaluations read windows from all over what is held out: its beginning may go on with what was
 * trained on, and its end be of another kind. */
static size_t held_out_window(const struct kiln_trainer *t, size_t i) {
    enum kiln_split split;
    const struct kiln_data *data = held_out(t, &split);
    const size_t windows = kiln_data_windows(data, split);
    const size_t read = kiln_batches_evaluated(t) * t->engine.plan.shape.batch;
    return read == 0 || read > windows ? i % windows : i * windows / read;
}

void kiln_batches_held_out(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                           uint32_t *starts) {
    const struct kiln_trainer *t = context;
    enum kiln_split split;
    const struct kiln_data *data = held_out(t, &split);
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    for (size_t b = 0; b < shape->batch; b++) {
        const size_t window = held_out_window(t, (t->first_micro_batch + index) * shape->batch + b);
        kiln_data_window(data, split, window, tokens + b * shape->seq, targets + b * shape->seq);
        if (starts) {
            kiln_data_window_starts(data, split, window, starts + b * shape->seq);
        }
    }
}

double kiln_batches_held_out_targets(const struct kiln_trainer *t, size_t windows) {
    enum kiln_split split;
    const struct kiln_data *data = held_out(t, &split);
    uint64_t n = 0;
    for (size_t w = 0; w < windows; w++) {
        n += kiln_data_window_targets(data, split, held_out_window(t, w));
    }
    return (double)n;
}

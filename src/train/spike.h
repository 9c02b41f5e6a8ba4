/* SPDX-License-Identifier: MIT
 *
 * spike.h: is a loss or a gradient norm far off those of the steps before?
 *
 *   z = (value - mean) / max(deviation, mean / 32)
 *
 * The tail of gradient norms is long: in a run whose loss is small, ordinary noise reaches a z of
 * 10. A norm is a spike only where it is above KILN_SPIKE_RISE times the mean, too: below that
 * clipping takes care of it.
 *
 * mean and deviation (of all of them, not of a sample) are of the last KILN_SPIKE_WINDOW steps that
 * were accepted: whose update was made, with a gradient. Below KILN_SPIKE_FEWEST of them nothing is
 * said: the first steps of a run fall fast and tell little of what is usual. The floor under the
 * deviation is for curves that lie flat: what a person would not see in them is no spike, however
 * small the deviation is. With it a z of 8 is a rise of the loss by a quarter of the mean at least.
 * A spike is a rise; what falls is welcome.
 *
 * A spike that is trained on (--on-spike record) is accepted, too: should the curve stay up there,
 * it is the usual soon. One that is skipped is not.
 *
 * All of it is a function of the lines of metrics.jsonl that the cursor counts: whoever takes a run
 * over finds the same numbers in them, to the bit, and decides the same.
 */
#ifndef KILN_TRAIN_SPIKE_H
#define KILN_TRAIN_SPIKE_H

#include "kiln/train.h"

enum { KILN_SPIKE_WINDOW = 128, KILN_SPIKE_FEWEST = 32 };
#define KILN_SPIKE_RISE 4.0

/* All zero: no step yet. */
struct kiln_spikes {
    double loss[KILN_SPIKE_WINDOW], grad_norm[KILN_SPIKE_WINDOW]; /* step n lies at n % WINDOW */
    uint64_t n;                                                   /* accepted so far */
};

/* z, mean and deviation are NaN below KILN_SPIKE_FEWEST steps; z may be no finite number where the
 * value is none. */
struct kiln_spike_score {
    double z, mean, deviation;
    size_t window; /* steps that mean and deviation are of */
};

/* A step is done; one that is not accepted is left out. */
void kiln_spikes_add(struct kiln_spikes *spikes, const struct kiln_step_record *record);
struct kiln_spike_score kiln_spikes_loss(const struct kiln_spikes *spikes, double loss);
struct kiln_spike_score kiln_spikes_grad_norm(const struct kiln_spikes *spikes, double grad_norm);
/* Is a norm with that score a spike? `most`: --spike-z. */
bool kiln_spikes_norm_is_far(const struct kiln_spike_score *score, double grad_norm, double most);
/* What the metrics.jsonl of a run, as it is, says. Reads as much of its end as is needed. */
KILN_MUST_CHECK enum kiln_status kiln_spikes_read(const char *folder, struct kiln_spikes *out,
                                                  struct kiln_err *err);

#endif

/* SPDX-License-Identifier: MIT
 *
 * samples.h: what the model says on the way: told to the observer, kept in samples.jsonl.
 *
 * A line of samples.jsonl is {"step": so many were done, "ms": what it took, "text": with the
 * prompt}. A step that was done again, after a death or a rollback, may have several: the last one
 * counts. A line that a death cut short is no JSON, and the next one begins behind a newline. A
 * sample changes nothing of the training: its random numbers are of seed and step alone, its time
 * is no step's.
 */
#ifndef KILN_TRAIN_SAMPLES_H
#define KILN_TRAIN_SAMPLES_H

#include "train/trainer.h"

/* Is a sample due when `step` steps are done? Every --sample-every steps. Where that was not given,
 * behind evaluations, as long as samples take 1 % of the time at most and need no memory that the
 * run may not have. */
bool kiln_sample_due(struct kiln_trainer *trainer, uint64_t step, bool evaluated);
/* Take one. One that nobody asked for cannot fail: the observer is told why there are none. */
KILN_MUST_CHECK enum kiln_status kiln_sample_take(struct kiln_trainer *trainer, uint64_t step,
                                                  struct kiln_err *err);

#endif

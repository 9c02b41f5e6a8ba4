/* SPDX-License-Identifier: MIT
 *
 * together.h: a run that several ranks train (kiln/ranks.h).
 *
 * Rank 0 leads: it makes the run or opens it, as if it were alone, and has all that there is once:
 * settings, state.kiln, metrics.jsonl, checkpoints. The others follow: they read settings and
 * tokens from the run's folder, which all must see, and have a folder of their own in it,
 *
 *   RUN/ranks/3/   state.kiln      weights, moments, gradients of rank 3, while it trains
 *                  metrics.jsonl   the steps as this rank took them: its own times
 *                  trace.json      and what it did in the first of them
 *
 * made anew whenever a run goes on. What rank 0's state.kiln promises (state/state.h) holds as if
 * it were alone: whoever dies, the run goes on from there, with as many ranks as are started then.
 * With --shard-optimizer the files of all ranks promise it together (shards.h, rescue.h).
 *
 *   rank 0                                      rank 1, 2, ...
 *   kiln_run_create, kiln_run_resume            kiln_rescue_follow
 *   kiln_together_lead: where, or why not  -->  kiln_together_follow: opens its part
 *   kiln_run_train                              kiln_run_train
 *     finishes what a death cut short
 *     kiln_together_share: its state       -->    kiln_together_share, opens its device
 *     kiln_together_join                <----->   kiln_together_join: all compute alike
 *     each window: kiln_together_agree     -->    steps, rates, places to go back to
 */
#ifndef KILN_TRAIN_TOGETHER_H
#define KILN_TRAIN_TOGETHER_H

#include "ranks/ranks.h"
#include "train/run_int.h"

/* Rank 0 has opened a run, or failed to. Failures of others are failures here. Alone: `status`. */
KILN_MUST_CHECK enum kiln_status kiln_together_lead(struct kiln_ranks *ranks, struct kiln_run *run,
                                                    enum kiln_status status, struct kiln_err *err);
/* Another rank: the run that rank 0 opens. Of the settings only what is this process's own counts:
 * threads, ranks. KILN_EINPUT: the folder is not to be seen from here. */
KILN_MUST_CHECK enum kiln_status kiln_together_follow(const struct kiln_settings *settings,
                                                      struct kiln_run **out, struct kiln_err *err);
/* The state of rank 0 becomes everybody's: cursor, weights, moments, what spikes are judged by. */
KILN_MUST_CHECK enum kiln_status kiln_together_share(struct kiln_run *run, struct kiln_err *err);
/* All are about to train. context: the run. KILN_EUNSUPPORTED: one computes in another way. */
KILN_MUST_CHECK enum kiln_status kiln_together_join(void *context, struct kiln_err *err);
/* What rank 0 has changed of its settings becomes everybody's. context: the run. */
KILN_MUST_CHECK enum kiln_status kiln_together_agree(void *context, struct kiln_err *err);
/* Of a rank that followed: its state is not wanted any more. */
void kiln_together_leave(const struct kiln_run *run);

#endif

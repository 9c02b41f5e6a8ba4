/* SPDX-License-Identifier: MIT
 *
 * minutes.h: the time of a run, for the files that make one or open one again.
 */
#ifndef KILN_TRAIN_MINUTES_H
#define KILN_TRAIN_MINUTES_H

#include "train/run_int.h"

/* Fix the number of steps of a run that is being made, from the time that is left: data, state and
 * weights are there, run.json is not written yet. Steps, warm-up, evaluations and checkpoints that
 * nobody gave are set anew, and the clock. Nothing where the run has no --minutes. */
KILN_MUST_CHECK enum kiln_status kiln_minutes_fix(struct kiln_run *run, struct kiln_err *err);
/* The same for a run that is opened again to go on for settings.minutes: a turn. */
KILN_MUST_CHECK enum kiln_status kiln_minutes_go_on(struct kiln_run *run, struct kiln_err *err);

#endif

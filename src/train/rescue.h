/* SPDX-License-Identifier: MIT
 *
 * rescue.h: a run whose weights and moments are spread (shards.h), and whose processes ended on the
 * way: rank 0's state becomes whole again, from what the files of all ranks hold.
 *
 * Rank 0's cursor says what is to be found in them. Where it stands in an update, each file's is
 * finished, from its own gradients and journal. Everything can be done again: a death inside
 * changes nothing of that, until rank 0's cursor says that the state is whole.
 *
 * There may be other ranks now than there were: rank r of n opens the files r, r + n, ... of those
 * there are, on the machine where it runs, and gives what is in them to rank 0. A process alone
 * opens all.
 */
#ifndef KILN_TRAIN_RESCUE_H
#define KILN_TRAIN_RESCUE_H

#include "train/run_int.h"

/* Rank 0, or a process alone: its state is open, and spread. KILN_EUNTRUSTED: a file is missing, or
 * not to be trusted, *err says which and why; what the state holds is lost. */
KILN_MUST_CHECK enum kiln_status kiln_rescue(struct kiln_run *run, struct kiln_err *err);
/* Rank 0 has opened its run, or failed to: nothing (more) is to be rescued. */
KILN_MUST_CHECK enum kiln_status kiln_rescue_end(struct kiln_ranks *ranks, struct kiln_err *err);
/* Another rank: do what rank 0 asks for, until kiln_rescue_end. Files that cannot be opened are
 * rank 0's to judge. */
KILN_MUST_CHECK enum kiln_status kiln_rescue_follow(struct kiln_ranks *ranks, struct kiln_err *err);

#endif

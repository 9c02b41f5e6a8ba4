/* SPDX-License-Identifier: MIT
 *
 * rollback.h: --on-spike rollback: the state returns to the newest checkpoint, the data does not.
 *
 * What was read since that checkpoint is not read again. That is a jump (struct kiln_jump), a list
 * in the settings, and the data position is a function of it and the step:
 *
 *   sample = step * batch * accum + the samples of all jumps at steps up to this one
 *
 *   kiln_rollback_begin      choose the checkpoint, write run.json with the jump: the commit point
 *   kiln_rollback_complete   remove checkpoints behind it, restore the state from it
 *
 * A process that dies before the commit point takes the window again and comes to the same. Behind
 * it the cursor's sample is not what step and jumps say until the restored cursor is committed, so
 * whoever opens the run next finds that out and completes it. What metrics.jsonl and trace.json
 * have beyond the checkpoint is cut as after any death. What was started or compiled from the state
 * of before is closed, and opened again or replaced by a fresh process where the device has a
 * budget of compiles; a relay's successor that waits finds the hand-over counted twice, and goes.
 */
#ifndef KILN_TRAIN_ROLLBACK_H
#define KILN_TRAIN_ROLLBACK_H

#include "train/run_int.h"

/* So many rollbacks end a run that came no further than so many steps meanwhile: those of before
 * are forgiven. */
enum { KILN_ROLLBACKS = 16, KILN_ROLLBACK_PROGRESS = 128 };

/* The data position when so many steps are done. batch and accum are set. */
uint64_t kiln_rollback_sample(const struct kiln_settings *settings, uint64_t step);

/* Decide it: what is read next is sample `next`. Nothing but run.json changes. No save is under
 * way. KILN_EINPUT: no checkpoint that can be used; KILN_EDIVERGED: too many already. */
KILN_MUST_CHECK enum kiln_status kiln_rollback_begin(struct kiln_run *run, uint64_t next,
                                                     struct kiln_err *err);
/* The state is lost: the newest checkpoint that is whole, has only finite numbers, and is of no
 * data that a rollback gave up, which may be decided and not completed. *passed: those behind it;
 * they are removed from a run that was rolled back. Needs settings and folder. KILN_EINPUT: there
 * is none. */
KILN_MUST_CHECK enum kiln_status kiln_rollback_newest(const struct kiln_run *run, uint64_t *step,
                                                      char *path, size_t size, size_t *passed,
                                                      struct kiln_err *err);
/* Is one decided and not completed? */
bool kiln_rollback_is_due(const struct kiln_run *run);
/* Complete it: nothing computes, and nothing is compiled, while it does. The state is owned. */
KILN_MUST_CHECK enum kiln_status kiln_rollback_complete(struct kiln_run *run, struct kiln_err *err);
/* The state was just restored from a checkpoint, or is new: the cursor stands where step and jumps
 * say. */
void kiln_rollback_settle(struct kiln_run *run);

#endif

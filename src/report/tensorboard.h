/* SPDX-License-Identifier: MIT
 *
 * tensorboard.h: a run as an event file for TensorBoard (events.h), beside it or elsewhere.
 *
 * The file is a function of metrics.jsonl and samples.jsonl and of the second in its name,
 * events.out.tfevents.SECOND.kiln: a SessionLog START of step 0, an event for every step, with
 * every number of its line as a tag (true is 1), and one for every sample, a text "sample".
 * wall_time is that second and the ms of all steps so far: the time spent in steps, evaluations
 * left out, however often the run was stopped. A file that a death cut short is compared record by
 * record with what it must hold and written on. One that holds something else, or goes beyond
 * metrics.jsonl, which a rollback or a resumed run cuts, is replaced by one with the next second in
 * its name, and emptied, which goes the next time: a TensorBoard that is open meanwhile knows the
 * old one by its offset, goes on to the new one, and forgets by its START what it had. simple_value
 * is a float: every value is that of metrics.jsonl to 24 bits.
 */
#ifndef KILN_REPORT_TENSORBOARD_H
#define KILN_REPORT_TENSORBOARD_H

#include "kiln/status.h"

struct kiln_tensorboard;

/* The event file in `to` (made with its parents where it is not there) of the run in `folder`;
 * another one where `to` has none. Nothing is written before kiln_tensorboard_update. Errors:
 * KILN_EINPUT: no metrics.jsonl; KILN_EIO; KILN_EBUSY: another process writes it; KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_tensorboard_open(const char *folder, const char *to,
                                                       struct kiln_tensorboard **out,
                                                       struct kiln_err *err);
/* Bring it up to what the run has by now. The first time all of it is read and compared, later only
 * what was added. Errors: KILN_EIO, KILN_ENOMEM; the next call repairs what was left. */
KILN_MUST_CHECK enum kiln_status kiln_tensorboard_update(struct kiln_tensorboard *board,
                                                         struct kiln_err *err);
/* Seconds since the event file in this folder was written; negative: there is none. */
double kiln_tensorboard_age(const char *to);
/* NULL is fine. */
void kiln_tensorboard_close(struct kiln_tensorboard *board);

#endif

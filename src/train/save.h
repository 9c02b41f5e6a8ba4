/* SPDX-License-Identifier: MIT
 *
 * save.h: durable checkpoints beside the computing.
 *
 * Weights and moments do not change during a window, so a thread writes them from where they lie
 * while the next window computes; whoever is about to change them waits first. That thread is one
 * more than --threads: it sums checksums for moments and otherwise waits for the disk.
 *
 *   step N done -> kiln_saver_begin -> window N+1 ... -> kiln_saver_wait -> update N+1
 */
#ifndef KILN_TRAIN_SAVE_H
#define KILN_TRAIN_SAVE_H

#include "base/spans.h"
#include "kiln/settings.h"
#include "kiln/status.h"
#include "state/state.h"

struct kiln_saver;

/* A saver of the run in `folder`; it borrows table, state and settings, and keeps as many
 * checkpoints as the settings say. What a save that was cut short has left is removed. */
KILN_MUST_CHECK enum kiln_status kiln_saver_create(const char *folder,
                                                   const struct kiln_table *table,
                                                   struct kiln_state *state,
                                                   const struct kiln_settings *settings,
                                                   struct kiln_saver **out, struct kiln_err *err);
/* Tell of each save (CHECKPOINT) from here on. */
void kiln_saver_tell(struct kiln_saver *saver, struct kiln_spans *spans);
/* Waits for a save under way; its outcome is lost. NULL is fine. */
void kiln_saver_destroy(struct kiln_saver *saver);

/* Save the state as it is, at the start of a window. Nothing is under way: kiln_saver_wait has been
 * called since the last one. Until the next wait nobody changes weights, m or v. */
void kiln_saver_begin(struct kiln_saver *saver);
/* Wait for the save under way, if any. On success *step is the step that was saved and *path its
 * model.bin, which live until the next begin; 0 and NULL when nothing was under way. A failure is
 * that of the save. */
KILN_MUST_CHECK enum kiln_status kiln_saver_wait(struct kiln_saver *saver, uint64_t *step,
                                                 const char **path, struct kiln_err *err);

#endif

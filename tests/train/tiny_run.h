/* SPDX-License-Identifier: MIT
 *
 * tiny_run.h: a run small enough to be trained many times in a test.
 */
#ifndef TINY_RUN_H
#define TINY_RUN_H

#include "kiln/train.h"

/* Settings of 8 steps of 2 micro-batches on 40 kB of stories, saved after every second step and
 * evaluated after every fourth; `changes` is "flag=value flag=value". The run goes to
 * test_path(name). */
void tiny_settings(struct kiln_settings *s, const char *name, const char *changes);
/* "flag=value flag=value". */
void tiny_set(struct kiln_settings *s, const char *changes);
/* Make such a run and train it to its end; returns its folder. */
const char *tiny_run(const char *name, const char *changes, const struct kiln_observer *observer);
/* Resume it with these changes and train on. */
void tiny_resume(const char *folder, const char *changes);
/* Copy a run that has no checkpoints yet to a folder that is not there. */
void tiny_copy(const char *from, const char *to);
/* Flip a bit of FOLDER/name. */
void tiny_flip(const char *folder, const char *name, long at);

#endif

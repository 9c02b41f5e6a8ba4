/* SPDX-License-Identifier: MIT
 *
 * runs.h: the folder of a run by what was typed; which run may be meant by what is none.
 */
#ifndef KILN_CMD_RUNS_H
#define KILN_CMD_RUNS_H

#include <stddef.h>

#include "kiln/status.h"

/* KILN_EINPUT where `path` is no folder with a run.json or metrics.jsonl. The message names the run
 * that may be meant: runs/PATH, one nearly called so, the one that `path` lies in; else those in
 * `path`, or in runs/. What else is wrong with a run is for who opens it to find. */
KILN_MUST_CHECK enum kiln_status need_run(const char *path, struct kiln_err *err);
/* The same for a command that takes other things, too: something of that name is there. */
KILN_MUST_CHECK enum kiln_status need_path(const char *path, struct kiln_err *err);

/* How many runs lie in a folder; the newest as a list: "runs/b, runs/a and 3 more". */
size_t runs_in(const char *folder, char *text, size_t size);

#endif

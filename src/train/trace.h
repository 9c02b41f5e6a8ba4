/* SPDX-License-Identifier: MIT
 *
 * trace.h: spans of time as trace.json of a run, in the Chrome trace event format.
 *
 * docs/formats.md tells what is in the file. It is valid JSON between any two writes: it ends in
 * "]", and what is added overwrites that in one write. It is grown like metrics.jsonl: the cursor
 * knows how much of it counts (trace_bytes), a process that takes the run over cuts it to that, and
 * work that a death has undone is listed where it is done again.
 *
 * The one exception is a window that is left in the middle, by a planned restart or to stop: what
 * has been spent on it so far counts only as long as the cursor says so (`mid`), so its spans lie
 * behind trace_bytes until the window is done.
 */
#ifndef KILN_TRAIN_TRACE_H
#define KILN_TRAIN_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/spans.h"
#include "kiln/status.h"

struct kiln_trace;

/* Of the run in `folder`. Touches no file. */
KILN_MUST_CHECK enum kiln_status kiln_trace_create(const char *folder, struct kiln_trace **out,
                                                   struct kiln_err *err);
/* NULL is fine. */
void kiln_trace_destroy(struct kiln_trace *trace);

/* This process owns the run from here on: cut the file to what counts, `bytes` of it or with `mid`
 * all, and repair its end. A file that does not hold so much is begun anew. Where there is none
 * nothing is done. */
KILN_MUST_CHECK enum kiln_status kiln_trace_begin(struct kiln_trace *trace, uint64_t bytes,
                                                  bool mid, struct kiln_err *err);
/* Add spans that belong to a step (1 is the first), or to an evaluation after it. */
KILN_MUST_CHECK enum kiln_status kiln_trace_add(struct kiln_trace *trace,
                                                const struct kiln_span *spans, size_t n,
                                                uint64_t step, bool evaluation,
                                                struct kiln_err *err);
/* What there is: trace_bytes of the cursor. The end of the last event. */
uint64_t kiln_trace_bytes(const struct kiln_trace *trace);

#endif

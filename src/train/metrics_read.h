/* SPDX-License-Identifier: MIT
 *
 * metrics_read.h: lines of metrics.jsonl, read back.
 *
 * A long run has hundreds of thousands of them, and whoever looks at it reads them all: this is a
 * reader for just these lines, about ten times as fast as a JSON library. It takes any JSON object
 * of one line, keys in any order; numbers are the very doubles that were written.
 */
#ifndef KILN_TRAIN_METRICS_READ_H
#define KILN_TRAIN_METRICS_READ_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/train.h"

/* n bytes without the newline. False: no JSON object with a step, as a line that was cut. What the
 * line lacks is NaN, 0, false or -1 (val_generation); unknown keys are passed over. */
bool kiln_metrics_read(const char *line, size_t n, struct kiln_step_record *out);

/* The double nearest to the decimal number that begins at `at`, as JSON has numbers; NULL: there is
 * none. Else the byte behind it. Whatever the locale is. */
const char *kiln_read_double(const char *at, const char *end, double *out);

#endif

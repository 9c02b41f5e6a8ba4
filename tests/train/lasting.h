/* SPDX-License-Identifier: MIT
 *
 * lasting.h: the part of metrics.jsonl that no death may change.
 */
#ifndef LASTING_H
#define LASTING_H

/* The lasting keys of a run's metrics, one line a step; free it. */
char *lasting_metrics(const char *folder);

#endif

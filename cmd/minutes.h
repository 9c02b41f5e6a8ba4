/* SPDX-License-Identifier: MIT
 *
 * minutes.h: what was chosen for a time, as text and as JSON.
 */
#ifndef KILN_CMD_MINUTES_H
#define KILN_CMD_MINUTES_H

#include <jansson.h>

#include "kiln/train.h"

/* What was chosen and why, what to expect; the ladder of neighbours. */
void minutes_print(const struct kiln_minutes *minutes);
/* What became of the forecast: a line; nothing where there was none. */
void minutes_print_end(const struct kiln_run_info *info, double val_loss);
/* NULL when out of memory. */
json_t *minutes_json(const struct kiln_minutes *minutes);

#endif

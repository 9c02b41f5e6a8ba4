/* SPDX-License-Identifier: MIT
 *
 * explain.h: an explanation as text (explain_print.c) and as JSON (explain_json.c).
 */
#ifndef KILN_CMD_EXPLAIN_H
#define KILN_CMD_EXPLAIN_H

#include <jansson.h>

#include "kiln/explain.h"

void explain_print(const char *run, const struct kiln_explanation *why);
/* NULL: out of memory. */
json_t *explain_json(const char *run, const struct kiln_explanation *why);

#endif

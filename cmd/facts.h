/* SPDX-License-Identifier: MIT
 *
 * facts.h: the facts of kiln/inspect.h as text and as JSON.
 */
#ifndef KILN_CMD_FACTS_H
#define KILN_CMD_FACTS_H

#include <jansson.h>

#include "kiln/inspect.h"

/* "PATH: WHAT", then section by section; an entry of a list is a line. */
void facts_print(const char *path, const char *what, const struct kiln_facts *facts);
/* {"kind": KIND, "damaged": null or the message, SECTION: {..} or [{..}, ..], ..}; NULL when out of
 * memory. */
json_t *facts_json(const char *kind, const struct kiln_facts *facts, const char *damaged);

#endif

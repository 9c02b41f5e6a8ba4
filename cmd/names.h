/* SPDX-License-Identifier: MIT
 *
 * names.h: which name was meant by one that does not exist.
 */
#ifndef KILN_CMD_NAMES_H
#define KILN_CMD_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* How far two names are apart: letters to insert, drop, replace, or neighbours to swap. */
size_t name_distance(const char *a, const char *b);
/* Is `candidate` near enough to `name` to be what was meant, and nearer than *best? Then *best is
 * its distance. Start with *best SIZE_MAX. */
bool name_is_nearer(const char *name, const char *candidate, size_t *best);

#endif

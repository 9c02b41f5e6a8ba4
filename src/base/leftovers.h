/* SPDX-License-Identifier: MIT
 *
 * leftovers.h: folders of dead processes, and what others put into ours.
 *
 * A folder that is made whole under a temporary name is called STEM and the number of the process
 * that makes it. A process that dies leaves it behind; the next one to use the stem removes it.
 */
#ifndef KILN_BASE_LEFTOVERS_H
#define KILN_BASE_LEFTOVERS_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/status.h"

/* Remove STEM followed by a number that is no other living process. What cannot be removed stays:
 * it is in nobody's way. */
void kiln_leftovers_remove(const char *stem);

/* Is there anything in a folder that bears none of the n names of `own`? Its name goes into
 * `other`; "." where the folder cannot be read. */
bool kiln_folder_has_others(const char *folder, const char *const *own, size_t n, char *other,
                            size_t size);

#endif

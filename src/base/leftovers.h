/* SPDX-License-Identifier: MIT
 *
 * leftovers.h: folders of dead processes.
 *
 * A folder that is made whole under a temporary name is called STEM and the number of the process
 * that makes it. A process that dies leaves it behind; the next one to use the stem removes it.
 */
#ifndef KILN_BASE_LEFTOVERS_H
#define KILN_BASE_LEFTOVERS_H

#include "kiln/status.h"

/* Remove STEM followed by a number that is no other living process. What cannot be removed stays:
 * it is in nobody's way. */
void kiln_leftovers_remove(const char *stem);

#endif

/* SPDX-License-Identifier: MIT
 *
 * inspect.h: a state file read from outside: no lock taken, no byte changed.
 */
#ifndef KILN_STATE_INSPECT_H
#define KILN_STATE_INSPECT_H

#include <stdint.h>

#include "kiln/status.h"
#include "state/state.h"

/* The cursor, and CRC-32C of all weights, m and v, gaps included. Also of a state that this very
 * process trains, between two changes of it. */
KILN_MUST_CHECK enum kiln_status kiln_state_sums(const char *path, struct kiln_cursor *cursor,
                                                 uint32_t crc[3], struct kiln_err *err);

#endif

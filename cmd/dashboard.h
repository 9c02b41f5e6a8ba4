/* SPDX-License-Identifier: MIT
 *
 * dashboard.h: a dashboard beside training (kiln train --dashboard).
 */
#ifndef KILN_CMD_DASHBOARD_H
#define KILN_CMD_DASHBOARD_H

#include <stdint.h>

#include "kiln/status.h"

enum { DASHBOARD_ADDRESS = 200 };

/* Could it have that port (KILN_UNSET: the usual ones)? KILN_EBUSY. Before a run is made. */
KILN_MUST_CHECK enum kiln_status dashboard_may(uint64_t port, struct kiln_err *err);
/* Start `kiln dashboard FOLDER` as a process of its own, at low priority, which ends when this one
 * has; an exec is no end. The address with its token is for whoever may see it. */
KILN_MUST_CHECK enum kiln_status dashboard_beside(const char *folder, uint64_t port,
                                                  char address[DASHBOARD_ADDRESS],
                                                  struct kiln_err *err);

#endif

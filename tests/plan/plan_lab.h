/* SPDX-License-Identifier: MIT
 *
 * plan_lab.h: what tests of plans begin with.
 */
#ifndef KILN_TESTS_PLAN_LAB_H
#define KILN_TESTS_PLAN_LAB_H

#include "kiln/plan.h"

/* A preset with the published budget: 119 kernels of each kind, 107 usable; everything kept. */
struct kiln_plan_request plan_request(const char *preset, enum kiln_schedule schedule);
/* Its estimate with the trace; the test fails when there is none. */
struct kiln_estimate estimate_of(const struct kiln_plan_request *request);

#endif

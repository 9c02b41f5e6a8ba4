/* SPDX-License-Identifier: MIT
 *
 * mil_report.h: what a report of kiln/mil.h owns, for those who fill and use it.
 */
#ifndef KILN_DEVICE_SIM_MIL_REPORT_H
#define KILN_DEVICE_SIM_MIL_REPORT_H

#include "device/sim/sim.h"

struct kiln_mil_owner {
    struct kiln_mil_graph graph;
    struct kiln_sim_options options;
};

#endif

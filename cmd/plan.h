/* SPDX-License-Identifier: MIT
 *
 * plan.h: a plan as tables and as JSON; what several ranks would take is told where it was asked.
 */
#ifndef KILN_CMD_PLAN_H
#define KILN_CMD_PLAN_H

#include <jansson.h>
#include <stdbool.h>

#include "kiln/plan.h"
#include "kiln/train.h"

struct plan_shown {
    const char *model, *device;
    const struct kiln_plan_request *request;
    const struct kiln_estimate *estimate;
    const struct kiln_data_facts *data; /* NULL: none was named */
    const char *link_assumed;           /* of the link: "--link-gbit, --link-ms"; NULL: nothing */
};

/* A link of so many Gbit/s and ms; of what is NaN something is assumed, and *assumed says so. */
struct kiln_link plan_link(double gbit, double ms, const char **assumed);
void plan_print(const struct plan_shown *shown);
void plan_print_trace(const struct plan_shown *shown);
/* NULL when out of memory. */
json_t *plan_json(const struct plan_shown *shown, bool trace);
/* Of these the part about ranks. */
void plan_print_ranks(const struct plan_shown *shown);
json_t *plan_ranks_json(const struct plan_shown *shown);

#endif

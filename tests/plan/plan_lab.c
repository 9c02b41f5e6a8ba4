/* SPDX-License-Identifier: MIT */
#include "plan/plan_lab.h"

#include "kiln_test.h"

struct kiln_plan_request plan_request(const char *preset, enum kiln_schedule schedule) {
    const struct kiln_preset *found = kiln_preset_find(preset);
    CHECK(found != NULL);
    return (struct kiln_plan_request){
        .dims = found->dims,
        .batch = 1,
        .seq = found->dims.seq,
        .accum = 1,
        .budget = 119,
        .load_budget = 119,
        .headroom_millionths = 100000,
        .schedule = schedule,
        .keep = {.kind = KILN_KEEP_ALL},
    };
}

struct kiln_estimate estimate_of(const struct kiln_plan_request *request) {
    struct kiln_estimate estimate;
    struct kiln_err err;
    CHECK_OK(kiln_estimate(request, true, &estimate, &err), &err);
    return estimate;
}

/* SPDX-License-Identifier: MIT
 *
 * budget.c: what may be used of a budget, and what a layer's kernels take of it.
 */
#include "plan/groups.h"

#define MILLION 1000000u

size_t kiln_usable_budget(size_t budget, uint64_t headroom_millionths) {
    const uint64_t used = headroom_millionths < MILLION ? MILLION - headroom_millionths : 0;
    return (size_t)((unsigned __int128)budget * used / MILLION);
}

static size_t usable(size_t budget, uint64_t headroom) {
    return budget == 0 ? SIZE_MAX : kiln_usable_budget(budget, headroom);
}

struct kiln_limits kiln_limits_of(const struct kiln_plan_request *request) {
    struct kiln_limits limits = {
        .compile = usable(request->budget, request->headroom_millionths),
        .load = usable(request->load_budget, request->headroom_millionths),
        .whole = request->schedule == KILN_SCHEDULE_WHOLE,
    };
    struct kiln_kernel_kind kinds[KILN_KINDS];
    kiln_device_kinds(NULL, &(struct kiln_device_options){.training = true}, kinds);
    for (size_t i = 0; i < KILN_KINDS; i++) {
        const struct kiln_kernel_kind *kind = &kinds[i];
        size_t *sum = kind->pass == KILN_FORWARD ? &limits.forward
                      : kind->per_layer          ? &limits.backward
                                                 : &limits.shared;
        *sum += kind->compiles;
    }
    limits.group = limits.compile < limits.load ? limits.compile : limits.load;
    return limits;
}

enum kiln_status kiln_limits_check(const struct kiln_plan_request *request,
                                   const struct kiln_limits *limits, struct kiln_err *err) {
    const size_t least = limits->whole ? limits->forward + limits->backward + limits->shared
                                       : limits->backward + limits->shared;
    KILN_REQUIRE(request->headroom_millionths < MILLION, err, KILN_EUSAGE,
                 "a headroom of %.6f leaves nothing to use; use 0 to 0.999999",
                 (double)request->headroom_millionths / MILLION);
    KILN_REQUIRE(limits->compile >= least, err, KILN_EBUDGET,
                 "a layer can never fit: it needs %zu kernels in one process, and of a budget of "
                 "%zu with headroom %g %zu may be used; raise --budget",
                 least, request->budget, (double)request->headroom_millionths / MILLION,
                 limits->compile);
    KILN_REQUIRE(limits->load >= least, err, KILN_EBUDGET,
                 "a layer can never fit: it needs %zu kernels loaded at once, and of a load budget "
                 "of %zu with headroom %g %zu may be used; raise --load-budget",
                 least, request->load_budget, (double)request->headroom_millionths / MILLION,
                 limits->load);
    return KILN_OK;
}

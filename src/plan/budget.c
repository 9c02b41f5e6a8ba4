/* SPDX-License-Identifier: MIT
 *
 * budget.c: what may be used of a budget, and what kernels take of it.
 */
#include "plan/plan.h"

#define MILLION 1000000u

size_t kiln_usable_budget(size_t budget, uint64_t headroom_millionths) {
    const uint64_t used = headroom_millionths < MILLION ? MILLION - headroom_millionths : 0;
    return (size_t)((unsigned __int128)budget * used / MILLION);
}

static size_t usable(size_t budget, uint64_t headroom) {
    return budget == 0 ? SIZE_MAX : kiln_usable_budget(budget, headroom);
}

/* What is not of a layer: with weights it belongs to the last layer; without, one serves all. In
 * `whole` nothing is shared: the last layer has what runs behind it, each layer the rest. */
static void count_kind(struct kiln_limits *limits, const struct kiln_kernel_kind *kind) {
    const bool forward = kind->pass == KILN_FORWARD;
    if (kind->per_layer) {
        *(forward ? &limits->forward : &limits->backward) += kind->compiles;
    } else if (kind->weights || (limits->whole && forward)) {
        limits->head += kind->compiles;
    } else {
        limits->shared += kind->compiles;
        limits->shared_forward |= forward && kind->compiles > 0;
    }
}

struct kiln_limits kiln_limits_of(const struct kiln_plan_request *request) {
    const struct kiln_device_options options = {
        .device = request->device, .training = true, .no_head = !kiln_stage_classifies(request)};
    const bool once = request->device.dynamic; /* nothing is compiled in a window */
    const size_t programs = kiln_device_programs(&options);
    struct kiln_limits limits = {
        .compile = once ? SIZE_MAX : usable(request->budget, request->headroom_millionths),
        .load = once ? SIZE_MAX : usable(request->load_budget, request->headroom_millionths),
        .layers = request->dims.layers,
        .whole = request->schedule == KILN_SCHEDULE_WHOLE,
        .fed = !kiln_stage_embeds(request),
    };
    if (request->budget > 0 && !once && limits.compile > request->budget - programs) {
        limits.compile = request->budget - programs; /* little headroom, and some are spent */
    }
    struct kiln_kernel_kind kinds[KILN_KINDS];
    kiln_device_kinds(&request->dims, &options, kinds);
    for (size_t i = 0; i < KILN_KINDS; i++) {
        count_kind(&limits, &kinds[i]);
    }
    limits.group = limits.compile < limits.load ? limits.compile : limits.load;
    return limits;
}

size_t kiln_forward_kernels(const struct kiln_limits *limits, size_t first, size_t end) {
    const bool last = first < end && end == limits->layers;
    return (end - first) * limits->forward + (last ? limits->head : 0);
}

size_t kiln_all_kernels(const struct kiln_limits *limits, size_t first, size_t end) {
    const size_t shared = limits->whole ? (end - first) * limits->shared : limits->shared;
    return kiln_forward_kernels(limits, first, end) + (end - first) * limits->backward + shared;
}

bool kiln_forward_shares(const struct kiln_limits *limits, size_t end) {
    return limits->shared_forward && end == limits->layers;
}

size_t kiln_longest_segment(const struct kiln_limits *limits, bool last) {
    const size_t once = limits->shared + (last ? limits->head : 0);
    const size_t layer = limits->forward + limits->backward;
    if (limits->group == SIZE_MAX || layer == 0) {
        return limits->layers;
    }
    return limits->group < once ? 0 : (limits->group - once) / layer;
}

/* The kernels that some layer needs in one process whatever is kept: those of the last one. */
static size_t least_kernels(const struct kiln_limits *limits) {
    const size_t last = limits->layers - 1;
    const size_t forward = kiln_forward_kernels(limits, last, limits->layers) +
                           (limits->shared_forward ? limits->shared : 0);
    const size_t backward = limits->backward + limits->shared;
    return limits->whole        ? kiln_all_kernels(limits, last, limits->layers)
           : forward > backward ? forward
                                : backward;
}

/* Programs that serve all layers must fit the process that compiles them. */
static enum kiln_status check_programs(const struct kiln_plan_request *request,
                                       struct kiln_err *err) {
    const struct kiln_device_options options = {.device = request->device};
    const size_t programs = kiln_device_programs(&options);
    const size_t compile = usable(request->budget, request->headroom_millionths);
    const size_t load = usable(request->load_budget, request->headroom_millionths);
    KILN_REQUIRE(
        programs <= compile && programs <= load, err, KILN_EBUDGET,
        "%zu programs are compiled once a process, and of budgets of %zu to compile and %zu "
        "to load, with headroom %g, %zu and %zu may be used; raise --budget and "
        "--load-budget",
        programs, request->budget, request->load_budget,
        (double)request->headroom_millionths / MILLION, compile, load);
    return KILN_OK;
}

enum kiln_status kiln_limits_check(const struct kiln_plan_request *request,
                                   const struct kiln_limits *limits, struct kiln_err *err) {
    const size_t least = least_kernels(limits);
    KILN_REQUIRE(request->headroom_millionths < MILLION, err, KILN_EUSAGE,
                 "a headroom of %.6f leaves nothing to use; use 0 to 0.999999",
                 (double)request->headroom_millionths / MILLION);
    KILN_TRY(check_programs(request, err));
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

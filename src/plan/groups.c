/* SPDX-License-Identifier: MIT
 *
 * groups.c: which layers are compiled together.
 *
 * Backward groups are filled from the last layer down, unit by unit: a full layer, or a run of
 * dropped layers with the forward kernels that recompute it.
 */
#include "plan/groups.h"

size_t kiln_groups_room(size_t layers) { return 4 * layers + 4; }

static void append(struct kiln_groups *groups, enum kiln_plan_pass pass, size_t first, size_t end,
                   size_t recomputed, size_t kernels) {
    groups->at[groups->n++] = (struct kiln_plan_group){pass, first, end, recomputed, kernels};
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Layers first..end cut into groups of at most `most`, ascending. */
static void cut(struct kiln_groups *groups, enum kiln_plan_pass pass, size_t first, size_t end,
                size_t most, size_t each) {
    for (size_t at = first; at < end; at = groups->at[groups->n - 1].end) {
        const size_t next = at + least(most, end - at);
        append(groups, pass, at, next, 0, (next - at) * each);
    }
}

static size_t whole_layer(const struct kiln_limits *limits) {
    return limits->forward + limits->backward + limits->shared;
}

void kiln_groups_forward(const struct kiln_limits *limits, size_t layers,
                         struct kiln_groups *groups) {
    const size_t each = limits->whole ? whole_layer(limits) : limits->forward;
    groups->n = 0;
    groups->long_runs = false;
    cut(groups, KILN_PLAN_FORWARD, 0, layers, limits->group / each, each);
    groups->n_forward = groups->n;
}

static size_t dropped(const bool *full, size_t first, size_t end) {
    size_t n = 0;
    for (size_t l = first; l < end; l++) {
        n += !full[l];
    }
    return n;
}

/* `whole`: the groups of the forward pass, backwards; their forward kernels are there. */
static void mirror(const struct kiln_limits *limits, const bool *full, struct kiln_groups *groups) {
    for (size_t i = groups->n_forward; i-- > 0;) {
        const struct kiln_plan_group g = groups->at[i];
        append(groups, KILN_PLAN_BACKWARD, g.first, g.end, dropped(full, g.first, g.end),
               (g.end - g.first) * whole_layer(limits));
    }
}

/* The first layer of the unit whose last layer is end-1. */
static size_t unit_first(const bool *full, bool single_runs, size_t end) {
    size_t first = end - 1;
    if (full[first] || single_runs) {
        return first;
    }
    while (first > 0 && !full[first - 1]) {
        first--;
    }
    return first;
}

/* A run that cannot share a process with its backward kernels: its taps wait for them. */
static void long_run(const struct kiln_limits *limits, size_t first, size_t end,
                     struct kiln_groups *groups) {
    const size_t most = (limits->group - limits->shared) / limits->backward;
    groups->long_runs = true;
    cut(groups, KILN_PLAN_RECOMPUTE, first, end, limits->group / limits->forward, limits->forward);
    while (end > first) {
        const size_t n = least(most, end - first);
        append(groups, KILN_PLAN_BACKWARD, end - n, end, 0, n * limits->backward + limits->shared);
        end -= n;
    }
}

/* Room for the first group in the process of the last forward group. */
struct joint {
    size_t compile, load; /* kernels left */
    size_t from;          /* forward kernels of dropped layers from here are loaded still */
};

static struct joint joint_of(const struct kiln_limits *limits, size_t layers, const bool *full,
                             const struct kiln_groups *groups) {
    const struct kiln_plan_group *last = &groups->at[groups->n_forward - 1];
    struct joint joint = {limits->compile - last->kernels, limits->load, last->first};
    for (size_t l = last->first; l < layers; l++) {
        joint.load -= full[l] ? 0 : limits->forward;
    }
    return joint;
}

static bool fits(const struct kiln_limits *limits, const struct joint *joint, size_t first,
                 size_t layers, size_t again) {
    const size_t backward = layers * limits->backward + limits->shared;
    if (joint != NULL) {
        return first >= joint->from && backward <= joint->compile && backward <= joint->load;
    }
    return backward + again * limits->forward <= limits->group;
}

/* Fill one group that ends at `end`; returns its first layer, `end` when no unit fits. */
static size_t fill(const struct kiln_limits *limits, const bool *full, bool single_runs,
                   const struct joint *joint, size_t end, struct kiln_groups *groups) {
    size_t first = end, again = 0;
    while (first > 0) {
        const size_t next = unit_first(full, single_runs, first);
        const size_t more = full[first - 1] ? 0 : first - next;
        /* A group must fit a fresh process, too: the window may restart in front of it. */
        if (!fits(limits, NULL, next, end - next, again + more) ||
            (joint != NULL && !fits(limits, joint, next, end - next, again + more))) {
            break;
        }
        again += more;
        first = next;
    }
    if (first < end) {
        append(groups, KILN_PLAN_BACKWARD, first, end, again,
               (end - first) * limits->backward + limits->shared + again * limits->forward);
    }
    return first;
}

void kiln_groups_backward(const struct kiln_limits *limits, size_t layers, const bool *full,
                          bool single_runs, bool join, struct kiln_groups *groups) {
    size_t end = layers;
    groups->n = groups->n_forward;
    groups->long_runs = false;
    if (limits->whole) {
        mirror(limits, full, groups);
        return;
    }
    if (join && !kiln_one_batch(limits, layers) && limits->compile != SIZE_MAX) {
        const struct joint joint = joint_of(limits, layers, full, groups);
        end = fill(limits, full, single_runs, &joint, end, groups);
    }
    if (kiln_one_batch(limits, layers)) { /* the forward kernels are there */
        append(groups, KILN_PLAN_BACKWARD, 0, layers, dropped(full, 0, layers),
               layers * limits->backward + limits->shared);
        return;
    }
    while (end > 0) {
        const size_t first = fill(limits, full, single_runs, NULL, end, groups);
        if (first < end) {
            end = first;
            continue;
        }
        const size_t run = unit_first(full, single_runs, end);
        long_run(limits, run, end, groups);
        end = run;
    }
}

bool kiln_one_batch(const struct kiln_limits *limits, size_t layers) {
    const size_t layer = limits->forward + limits->backward;
    return !limits->whole && layers <= (limits->group - limits->shared) / layer;
}

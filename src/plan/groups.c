/* SPDX-License-Identifier: MIT
 *
 * groups.c: which layers are compiled together.
 *
 * Backward groups are filled from the last layer down, unit by unit: a full layer, or a segment
 * with the forward kernels that recompute it.
 */
#include "plan/groups.h"

size_t kiln_groups_room(size_t layers) { return 2 * layers + 2; }

static void append(struct kiln_groups *groups, enum kiln_plan_pass pass, size_t first, size_t end,
                   size_t recomputed, size_t kernels) {
    groups->at[groups->n++] = (struct kiln_plan_group){pass, first, end, recomputed, kernels};
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static size_t whole_layer(const struct kiln_limits *limits) {
    return limits->forward + limits->backward + limits->shared;
}

bool kiln_one_batch(const struct kiln_limits *limits, size_t layers) {
    const size_t layer = limits->forward + limits->backward;
    return !limits->whole && layers <= (limits->group - limits->shared) / layer;
}

void kiln_groups_forward(const struct kiln_limits *limits, size_t layers,
                         struct kiln_groups *groups) {
    const size_t each = limits->whole ? whole_layer(limits) : limits->forward;
    groups->n = 0;
    for (size_t at = 0; at < layers;) {
        const size_t end = at + least(limits->group / each, layers - at);
        append(groups, KILN_PLAN_FORWARD, at, end, 0, (end - at) * each);
        at = end;
    }
    groups->n_forward = groups->n;
}

static size_t recomputed(const unsigned char *keep, size_t first, size_t end) {
    size_t n = 0;
    for (size_t l = first; l < end; l++) {
        n += keep[l] != KILN_FULL;
    }
    return n;
}

/* `whole`: the groups of the forward pass, backwards; their forward kernels are there. */
static void mirror(const struct kiln_limits *limits, const unsigned char *keep,
                   struct kiln_groups *groups) {
    for (size_t i = groups->n_forward; i-- > 0;) {
        const struct kiln_plan_group g = groups->at[i];
        append(groups, KILN_PLAN_BACKWARD, g.first, g.end, recomputed(keep, g.first, g.end),
               (g.end - g.first) * whole_layer(limits));
    }
}

/* Room for the first group in the process of the last forward group. */
struct joint {
    size_t compile, load; /* kernels left */
    size_t from;          /* forward kernels of recomputed layers from here are loaded still */
};

static struct joint joint_of(const struct kiln_limits *limits, size_t layers,
                             const unsigned char *keep, const struct kiln_groups *groups) {
    const struct kiln_plan_group *last = &groups->at[groups->n_forward - 1];
    struct joint joint = {limits->compile - last->kernels, limits->load, last->first};
    joint.load -= recomputed(keep, last->first, layers) * limits->forward;
    return joint;
}

static bool fits(const struct kiln_limits *limits, const struct joint *joint, size_t first,
                 size_t layers, size_t again) {
    const size_t backward = layers * limits->backward + limits->shared;
    if (joint != NULL && (first < joint->from || backward > least(joint->compile, joint->load))) {
        return false;
    }
    /* A fresh process, too: the window may restart in front of the group. */
    return backward + again * limits->forward <= limits->group;
}

/* Append the largest group that ends at `end`, undivided units; returns its first layer, `end` when
 * no unit fits. */
static size_t fill(const struct kiln_limits *limits, const unsigned char *keep,
                   const struct joint *joint, size_t end, struct kiln_groups *groups) {
    size_t first = end, again = 0;
    while (first > 0) {
        const bool full = keep[first - 1] == KILN_FULL;
        const size_t next = full ? first - 1 : kiln_segment_first(keep, first - 1);
        const size_t more = full ? 0 : first - next;
        if (!fits(limits, joint, next, end - next, again + more)) {
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

void kiln_groups_backward(const struct kiln_limits *limits, size_t layers,
                          const unsigned char *keep, bool join, struct kiln_groups *groups) {
    size_t end = layers;
    groups->n = groups->n_forward;
    if (limits->whole) {
        mirror(limits, keep, groups);
        return;
    }
    if (kiln_one_batch(limits, layers)) { /* the forward kernels are there */
        append(groups, KILN_PLAN_BACKWARD, 0, layers, recomputed(keep, 0, layers),
               layers * limits->backward + limits->shared);
        return;
    }
    if (join && limits->compile != SIZE_MAX) {
        const struct joint joint = joint_of(limits, layers, keep, groups);
        end = fill(limits, keep, &joint, end, groups);
    }
    while (end > 0) {
        end = fill(limits, keep, NULL, end, groups);
    }
}

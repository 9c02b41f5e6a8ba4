/* SPDX-License-Identifier: MIT
 *
 * groups.c: which layers are compiled together.
 *
 * Backward groups are filled from the last layer down, unit by unit: a full layer, or a segment
 * with the forward kernels that recompute it. Groups that are to overlap with compiles are cut into
 * smaller ones inside their process.
 */
#include "plan/groups.h"

#include <string.h>

/* Twice: cut and uncut ones. */
size_t kiln_groups_room(size_t layers) { return 2 * (2 * layers + 2); }

static void append(struct kiln_groups *groups, enum kiln_plan_pass pass, size_t first, size_t end,
                   size_t recomputed, size_t kernels) {
    groups->at[groups->n++] = (struct kiln_plan_group){pass, first, end, recomputed, kernels};
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

bool kiln_one_batch(const struct kiln_limits *limits) {
    return !limits->whole && kiln_all_kernels(limits, 0, limits->layers) <= limits->group;
}

size_t kiln_two_sets_kernels(const struct kiln_limits *limits) {
    const size_t all = kiln_all_kernels(limits, 0, limits->layers);
    return 2 * all - (limits->whole ? 0 : limits->shared);
}

bool kiln_two_sets(const struct kiln_limits *limits) {
    return kiln_one_batch(limits) && kiln_two_sets_kernels(limits) <= limits->group;
}

/* Kernels of a forward group in a fresh process. */
static size_t forward_group(const struct kiln_limits *limits, size_t first, size_t end) {
    return limits->whole ? kiln_all_kernels(limits, first, end)
                         : kiln_forward_kernels(limits, first, end) +
                               (kiln_forward_shares(limits, end) ? limits->shared : 0);
}

void kiln_groups_forward(const struct kiln_limits *limits, struct kiln_groups *groups) {
    const size_t layers = limits->layers;
    groups->n = 0;
    for (size_t at = 0; at < layers;) {
        size_t end = at + 1;
        while (end < layers && forward_group(limits, at, end + 1) <= limits->group) {
            end++;
        }
        append(groups, KILN_PLAN_FORWARD, at, end, 0, forward_group(limits, at, end));
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

/* The forward kernels that run them again. */
static size_t recompute_kernels(const struct kiln_limits *limits, const unsigned char *keep,
                                size_t first, size_t end) {
    size_t n = 0;
    for (size_t l = first; l < end; l++) {
        n += keep[l] != KILN_FULL ? kiln_forward_kernels(limits, l, l + 1) : 0;
    }
    return n;
}

/* Kernels of a backward group in a fresh process. */
static size_t backward_group(const struct kiln_limits *limits, const unsigned char *keep,
                             size_t first, size_t end) {
    return (end - first) * limits->backward + limits->shared +
           recompute_kernels(limits, keep, first, end);
}

/* The same where the forward kernels are there: a window is compiled once. */
static size_t backward_kernels(const struct kiln_limits *limits, const unsigned char *keep,
                               size_t first, size_t end) {
    return kiln_one_batch(limits) ? (end - first) * limits->backward + limits->shared
                                  : backward_group(limits, keep, first, end);
}

/* `whole`: the groups of the forward pass, backwards; their forward kernels are there. */
static void mirror(const struct kiln_limits *limits, const unsigned char *keep,
                   struct kiln_groups *groups) {
    for (size_t i = groups->n_forward; i-- > 0;) {
        const struct kiln_plan_group g = groups->at[i];
        append(groups, KILN_PLAN_BACKWARD, g.first, g.end, recomputed(keep, g.first, g.end),
               kiln_all_kernels(limits, g.first, g.end));
    }
}

/* Room for the first group in the process of the last forward group. */
struct joint {
    size_t compile, load; /* kernels left */
    size_t from;          /* forward kernels of recomputed layers from here are loaded still */
    size_t shared;        /* kernels that are not there yet */
};

static struct joint joint_of(const struct kiln_limits *limits, const unsigned char *keep,
                             const struct kiln_groups *groups) {
    const struct kiln_plan_group *last = &groups->at[groups->n_forward - 1];
    const bool there = kiln_forward_shares(limits, limits->layers);
    struct joint joint = {.compile = limits->compile - last->kernels,
                          .load = limits->load - (there ? limits->shared : 0),
                          .from = last->first,
                          .shared = there ? 0 : limits->shared};
    joint.load -= recompute_kernels(limits, keep, last->first, limits->layers);
    return joint;
}

static bool fits(const struct kiln_limits *limits, const unsigned char *keep,
                 const struct joint *joint, size_t first, size_t end) {
    if (joint != NULL) {
        const size_t backward = (end - first) * limits->backward + joint->shared;
        if (first < joint->from || backward > least(joint->compile, joint->load)) {
            return false;
        }
    }
    /* A fresh process, too: the window may restart in front of the group. */
    return backward_group(limits, keep, first, end) <= limits->group;
}

/* Append the largest group that ends at `end`, undivided units; returns its first layer, `end` when
 * no unit fits. */
static size_t fill(const struct kiln_limits *limits, const unsigned char *keep,
                   const struct joint *joint, size_t end, struct kiln_groups *groups) {
    size_t first = end;
    while (first > 0) {
        const bool full = keep[first - 1] == KILN_FULL;
        const size_t next = full ? first - 1 : kiln_segment_first(keep, first - 1);
        if (!fits(limits, keep, joint, next, end)) {
            break;
        }
        first = next;
    }
    if (first < end) {
        append(groups, KILN_PLAN_BACKWARD, first, end, recomputed(keep, first, end),
               backward_group(limits, keep, first, end));
    }
    return first;
}

void kiln_groups_backward(const struct kiln_limits *limits, const unsigned char *keep, bool join,
                          struct kiln_groups *groups) {
    const size_t layers = limits->layers;
    size_t end = layers;
    groups->n = groups->n_forward;
    if (limits->whole) {
        mirror(limits, keep, groups);
        return;
    }
    if (kiln_one_batch(limits)) {
        append(groups, KILN_PLAN_BACKWARD, 0, layers, recomputed(keep, 0, layers),
               backward_kernels(limits, keep, 0, layers));
        return;
    }
    if (join && limits->compile != SIZE_MAX) {
        const struct joint joint = joint_of(limits, keep, groups);
        end = fill(limits, keep, &joint, end, groups);
    }
    while (end > 0) {
        end = fill(limits, keep, NULL, end, groups);
    }
}

/* ---- smaller ones -----------------------------------------------------------------------------
 */

static void cut_forward(const struct kiln_limits *limits, const struct kiln_plan_group *g,
                        size_t layers, struct kiln_groups *out) {
    for (size_t at = g->first; at < g->end;) {
        const size_t end = least(at + layers, g->end);
        append(out, KILN_PLAN_FORWARD, at, end, 0, forward_group(limits, at, end));
        at = end;
    }
}

static void cut_backward(const struct kiln_limits *limits, const unsigned char *keep,
                         const struct kiln_plan_group *g, size_t layers, struct kiln_groups *out) {
    for (size_t end = g->end; end > g->first;) {
        size_t first = end;
        while (first > g->first && end - first < layers) {
            first = keep[first - 1] == KILN_FULL ? first - 1 : kiln_segment_first(keep, first - 1);
        }
        append(out, KILN_PLAN_BACKWARD, first, end, recomputed(keep, first, end),
               backward_kernels(limits, keep, first, end));
        end = first;
    }
}

void kiln_groups_cut(const struct kiln_limits *limits, const unsigned char *keep, size_t layers,
                     struct kiln_groups *groups) {
    /* The uncut groups wait at the end of the room, behind all pieces that there may be. */
    const size_t n = groups->n, n_forward = groups->n_forward;
    struct kiln_plan_group *whole = groups->at + kiln_groups_room(limits->layers) / 2;
    memmove(whole, groups->at, n * sizeof *whole);
    groups->n = 0;
    for (size_t i = 0; i < n; i++) {
        const struct kiln_plan_group g = whole[i];
        if (i == n_forward) {
            groups->n_forward = groups->n;
        }
        if (i < n_forward) {
            cut_forward(limits, &g, layers, groups);
        } else {
            cut_backward(limits, keep, &g, layers, groups);
        }
    }
}

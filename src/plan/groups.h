/* SPDX-License-Identifier: MIT
 *
 * groups.h: the parts of a plan: limits, what is kept of each layer, groups of layers.
 */
#ifndef KILN_PLAN_GROUPS_H
#define KILN_PLAN_GROUPS_H

#include "device/device.h"
#include "kiln/plan.h"

/* What a process may do, and what a layer takes of it. SIZE_MAX: no limit. */
struct kiln_limits {
    size_t compile, load;
    size_t group;             /* the smaller one: the largest group */
    size_t layers;            /* of the model */
    size_t forward, backward; /* kernels of a layer */
    size_t head;              /* with the forward kernels of the last layer: what runs behind it */
    size_t shared;            /* weightless, once a process; in `whole` one of each layer */
    bool shared_forward;      /* they are wanted behind the last layer, too */
    bool whole;
    bool fed; /* a stage of a pipeline: its first layer's input comes from another */
};
struct kiln_limits kiln_limits_of(const struct kiln_plan_request *request);
/* Forward kernels of the layers first..end-1. */
size_t kiln_forward_kernels(const struct kiln_limits *limits, size_t first, size_t end);
/* All kernels of these layers, the shared ones once: of a `whole` group once a layer. */
size_t kiln_all_kernels(const struct kiln_limits *limits, size_t first, size_t end);
/* Does a forward group that ends at layer `end` want the shared kernels? */
bool kiln_forward_shares(const struct kiln_limits *limits, size_t end);
/* Layers of the longest segment that shares a process with its backward kernels; `last`: one that
 * ends with the last layer. */
size_t kiln_longest_segment(const struct kiln_limits *limits, bool last);
/* KILN_EBUDGET when one layer can never fit. */
KILN_MUST_CHECK enum kiln_status kiln_limits_check(const struct kiln_plan_request *request,
                                                   const struct kiln_limits *limits,
                                                   struct kiln_err *err);
/* Do the kernels of both passes fit one process? Then a window is compiled once. */
bool kiln_one_batch(const struct kiln_limits *limits);
/* Kernels of two sets, what has no weights once: 2 * (kernels - 1) + 1 of a model without extras;
 * and whether a window is compiled once and they fit both limits. */
size_t kiln_two_sets_kernels(const struct kiln_limits *limits);
bool kiln_two_sets(const struct kiln_limits *limits);

/* What the forward pass keeps of a layer. A segment is what is recomputed together: a layer whose
 * input is kept, or layer 0 of a model, whose input comes from the token ids, and the dropped
 * layers behind it. */
enum kiln_layer_keep {
    KILN_DROPPED, /* nothing */
    KILN_INPUT,   /* its input */
    KILN_FULL     /* inputs and taps of both halves */
};

/* Groups in the order of a window: the forward groups, then the backward ones; `at` has room for
 * kiln_groups_room(L). */
struct kiln_groups {
    struct kiln_plan_group *at;
    size_t n, n_forward;
};
size_t kiln_groups_room(size_t layers);
void kiln_groups_forward(const struct kiln_limits *limits, struct kiln_groups *groups);
/* Append the backward groups, segments undivided. Join: the first group shares the process of the
 * last forward group where it can. */
void kiln_groups_backward(const struct kiln_limits *limits, const unsigned char *keep, bool join,
                          struct kiln_groups *groups);
/* Cut each group, in the order of its pass, into pieces of `layers` layers; segments stay whole. */
void kiln_groups_cut(const struct kiln_limits *limits, const unsigned char *keep, size_t layers,
                     struct kiln_groups *groups);

/* What a policy keeps, by layer: `keep` gets enum kiln_layer_keep. */
void kiln_keep_layers(struct kiln_keep policy, size_t layers, const struct kiln_groups *forward,
                      unsigned char *keep);
/* Give every segment its input: behind a full layer, at the edge of a `whole` group, and where a
 * segment is too long to share a process with its backward kernels. */
void kiln_keep_cut(const struct kiln_limits *limits, const struct kiln_groups *forward,
                   unsigned char *keep);
/* The first layer of the segment that holds `layer`, which is not full. */
size_t kiln_segment_first(const unsigned char *keep, size_t layer);

#endif

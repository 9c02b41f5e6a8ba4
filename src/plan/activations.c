/* SPDX-License-Identifier: MIT
 *
 * activations.c: what the forward pass keeps: names of policies, sets of layers.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "plan/groups.h"

#define MOST_EVERY 65536

static const char *const names[] = {
    [KILN_KEEP_ALL] = "all",     [KILN_KEEP_BOUNDARY] = "boundary", [KILN_KEEP_SQRT] = "sqrt",
    [KILN_KEEP_EVERY] = "every", [KILN_KEEP_INPUTS] = "inputs",     [KILN_KEEP_NONE] = "none",
    [KILN_KEEP_AUTO] = "auto",
};

/* The digits behind "every:"; 0 when they are no number of 1 to MOST_EVERY. */
static size_t every_of(const char *digits) {
    size_t n = 0;
    for (const char *c = digits; *c != '\0'; c++) {
        if (*c < '0' || *c > '9' || n > MOST_EVERY) {
            return 0;
        }
        n = 10 * n + (size_t)(*c - '0');
    }
    return n <= MOST_EVERY ? n : 0;
}

enum kiln_status kiln_keep_parse(const char *text, struct kiln_keep *out, struct kiln_err *err) {
    static const char every[] = "every:";
    *out = (struct kiln_keep){.every = 4};
    if (strncmp(text, every, sizeof every - 1) == 0) {
        out->kind = KILN_KEEP_EVERY;
        out->every = every_of(text + sizeof every - 1);
        KILN_REQUIRE(out->every > 0, err, KILN_EUSAGE, "--activations %s: use every:1 to every:%d",
                     text, MOST_EVERY);
        return KILN_OK;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            out->kind = (enum kiln_keep_kind)i;
            return KILN_OK;
        }
    }
    return KILN_FAIL(err, KILN_EUSAGE,
                     "--activations %s: unknown; use all, boundary, sqrt, every:N, inputs, none or "
                     "auto",
                     text);
}

const char *kiln_keep_name(struct kiln_keep keep, char buffer[32]) {
    if (keep.kind == KILN_KEEP_EVERY) {
        snprintf(buffer, 32, "every:%zu", keep.every);
    } else {
        snprintf(buffer, 32, "%s", names[keep.kind]);
    }
    return buffer;
}

enum kiln_status kiln_schedule_parse(const char *text, enum kiln_schedule *out,
                                     struct kiln_err *err) {
    const bool whole = strcmp(text, "whole") == 0;
    KILN_REQUIRE(whole || strcmp(text, "split") == 0, err, KILN_EUSAGE,
                 "--schedule %s: unknown; use whole or split", text);
    *out = whole ? KILN_SCHEDULE_WHOLE : KILN_SCHEDULE_SPLIT;
    return KILN_OK;
}

const char *kiln_plan_pass_name(enum kiln_plan_pass pass) {
    return pass == KILN_PLAN_FORWARD ? "forward" : "backward";
}

static const char *const overlaps[] = {"off", "exact", "delayed"};
static const char *const restarts[] = {"exec", "relay"};

const char *kiln_overlap_name(enum kiln_overlap overlap) { return overlaps[overlap]; }
const char *kiln_restart_name(enum kiln_restart_kind restart) { return restarts[restart]; }

enum kiln_status kiln_overlap_parse(const char *text, enum kiln_overlap *out,
                                    struct kiln_err *err) {
    for (int i = KILN_OVERLAP_OFF; i <= KILN_OVERLAP_DELAYED; i++) {
        if (strcmp(text, overlaps[i]) == 0) {
            *out = (enum kiln_overlap)i;
            return KILN_OK;
        }
    }
    return KILN_FAIL(err, KILN_EUSAGE, "--overlap %s: unknown; use off, exact or delayed", text);
}

enum kiln_status kiln_restart_parse(const char *text, enum kiln_restart_kind *out,
                                    struct kiln_err *err) {
    const bool relay = strcmp(text, "relay") == 0;
    KILN_REQUIRE(relay || strcmp(text, "exec") == 0, err, KILN_EUSAGE,
                 "--restart %s: unknown; use exec or relay", text);
    *out = relay ? KILN_RESTART_RELAY : KILN_RESTART_EXEC;
    return KILN_OK;
}

const char *kiln_action_name(enum kiln_action_kind what) {
    static const char *const actions[] = {
        [KILN_COMPILE_GROUP] = "compile", [KILN_COMPILE_NEXT] = "compile next",
        [KILN_FORWARD_GROUP] = "forward", [KILN_BACKWARD_GROUP] = "backward",
        [KILN_UPDATE] = "update",         [KILN_RESTART] = "restart",
        [KILN_STEP_DONE] = "step done",   [KILN_ERROR] = "error",
    };
    return (size_t)what < sizeof actions / sizeof actions[0] ? actions[what] : "unknown";
}

static size_t root(size_t n) {
    size_t r = 1;
    while ((r + 1) * (r + 1) <= n) {
        r++;
    }
    return r;
}

void kiln_keep_layers(struct kiln_keep policy, size_t layers, const struct kiln_groups *forward,
                      unsigned char *keep) {
    const bool strides = policy.kind == KILN_KEEP_SQRT || policy.kind == KILN_KEEP_EVERY;
    const size_t stride = policy.kind == KILN_KEEP_SQRT ? root(layers) : policy.every;
    for (size_t l = 0; l < layers; l++) {
        const bool full = policy.kind == KILN_KEEP_ALL || (strides && l % stride == 0);
        keep[l] = full ? KILN_FULL : policy.kind == KILN_KEEP_INPUTS ? KILN_INPUT : KILN_DROPPED;
    }
    for (size_t i = 0; policy.kind == KILN_KEEP_BOUNDARY && i < forward->n_forward; i++) {
        keep[forward->at[i].first] = KILN_FULL;
    }
    if (strides || policy.kind == KILN_KEEP_BOUNDARY) {
        keep[layers - 1] = KILN_FULL;
    }
}

void kiln_keep_cut(const struct kiln_limits *limits, const struct kiln_groups *forward,
                   unsigned char *keep) {
    const size_t layers = limits->layers;
    const bool any = kiln_one_batch(limits) || limits->whole;
    size_t run = 0, group = 0;
    for (size_t l = 0; l < layers; l++) {
        const size_t longest = any ? layers : kiln_longest_segment(limits, l + 1 == layers);
        const bool edge = group < forward->n_forward && forward->at[group].first == l;
        group += edge;
        const bool cut =
            run >= longest || (limits->whole && edge) || (l > 0 && keep[l - 1] == KILN_FULL);
        if (keep[l] == KILN_DROPPED && (l > 0 ? cut : limits->fed)) {
            keep[l] = KILN_INPUT;
        }
        run = keep[l] == KILN_FULL ? 0 : keep[l] == KILN_INPUT ? 1 : run + 1;
    }
}

size_t kiln_segment_first(const unsigned char *keep, size_t layer) {
    while (layer > 0 && keep[layer] != KILN_INPUT) {
        layer--;
    }
    return layer;
}

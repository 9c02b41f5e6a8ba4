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
    static const char *const passes[] = {"forward", "recompute", "backward"};
    return passes[pass];
}

static size_t root(size_t n) {
    size_t r = 1;
    while ((r + 1) * (r + 1) <= n) {
        r++;
    }
    return r;
}

void kiln_keep_layers(struct kiln_keep keep, size_t layers, const struct kiln_groups *forward,
                      bool *full) {
    const size_t stride = keep.kind == KILN_KEEP_SQRT    ? root(layers)
                          : keep.kind == KILN_KEEP_EVERY ? keep.every
                                                         : 1;
    const bool strides = keep.kind == KILN_KEEP_SQRT || keep.kind == KILN_KEEP_EVERY;
    for (size_t l = 0; l < layers; l++) {
        full[l] = keep.kind == KILN_KEEP_ALL || (strides && l % stride == 0);
    }
    for (size_t i = 0; keep.kind == KILN_KEEP_BOUNDARY && i < forward->n_forward; i++) {
        full[forward->at[i].first] = true;
    }
    if (strides || keep.kind == KILN_KEEP_BOUNDARY) {
        full[layers - 1] = true;
    }
}

size_t kiln_longest_run(const struct kiln_groups *groups, size_t layers, const bool *full,
                        bool single_runs, bool cut_at_groups) {
    size_t longest = 0, run = 0, group = 0;
    for (size_t l = 0; l < layers; l++) {
        const bool edge = group < groups->n_forward && groups->at[group].first == l;
        const bool begins = single_runs || (cut_at_groups && edge);
        group += edge;
        run = full[l] ? 0 : begins ? 1 : run + 1;
        longest = run > longest ? run : longest;
    }
    return longest;
}

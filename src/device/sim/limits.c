/* SPDX-License-Identifier: MIT
 *
 * limits.c: the hardware's limits: names and values, and the limits of surfaces. What a program
 * shows by itself is checked in limits_program.c.
 */
#include "device/sim/limits.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- names and values ----------------------------------------------------------------------- */

static const struct {
    const char *name, *help;
    uint64_t value;
} table[KILN_SIM_LIMIT_COUNT] = {
#define KILN_SIM_LIMIT_ROW(id, text, initial, meaning) \
    [KILN_SIM_##id] = {.name = (text), .help = (meaning), .value = (initial)},
    KILN_SIM_LIMITS(KILN_SIM_LIMIT_ROW)
#undef KILN_SIM_LIMIT_ROW
};

void kiln_sim_limits_default(struct kiln_sim_limits *out) {
    for (size_t i = 0; i < KILN_SIM_LIMIT_COUNT; i++) {
        out->value[i] = table[i].value;
    }
}

const char *kiln_sim_limit_name(enum kiln_sim_limit limit) { return table[limit].name; }
const char *kiln_sim_limit_help(enum kiln_sim_limit limit) { return table[limit].help; }

static enum kiln_status unknown_limit(const char *text, struct kiln_err *err) {
    static const char names[] =
#define KILN_SIM_LIMIT_LISTED(id, name, value, help) " " name
        KILN_SIM_LIMITS(KILN_SIM_LIMIT_LISTED);
#undef KILN_SIM_LIMIT_LISTED
    return KILN_FAIL(err, KILN_EUSAGE, "limit %.40s: unknown; use NAME=on|off|NUMBER with one of%s",
                     text, names);
}

/* "on", "off" or a number. */
static bool read_value(const char *text, uint64_t when_on, uint64_t *out) {
    if (strcmp(text, "on") == 0 || strcmp(text, "off") == 0) {
        *out = strcmp(text, "on") == 0 ? when_on : 0;
        return true;
    }
    uint64_t value = 0;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || __builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value)) {
            return false;
        }
    }
    *out = value;
    return text[0] != '\0';
}

enum kiln_status kiln_sim_limits_set(struct kiln_sim_limits *limits, const char *text,
                                     struct kiln_err *err) {
    const char *equals = strchr(text, '=');
    const size_t length = equals != NULL ? (size_t)(equals - text) : strlen(text);
    for (size_t i = 0; i < KILN_SIM_LIMIT_COUNT; i++) {
        if (strlen(table[i].name) != length || memcmp(table[i].name, text, length) != 0) {
            continue;
        }
        KILN_REQUIRE(
            equals != NULL &&
                read_value(equals + 1, table[i].value > 0 ? table[i].value : 1, &limits->value[i]),
            err, KILN_EUSAGE, "limit %.60s: not a value; use %s=on, =off or =NUMBER (%s)", text,
            table[i].name, table[i].help);
        return KILN_OK;
    }
    return unknown_limit(text, err);
}

/* ---- surfaces ------------------------------------------------------------------------------- */

struct surfaces {
    const struct kiln_mil_graph *graph;
    const char *name;
    const uint64_t *value; /* of the limits */
    enum kiln_sim_limit *limit;
    struct kiln_err *err;
};

static const struct kiln_mil_value *surface_value(const struct surfaces *s, const size_t *values,
                                                  size_t i) {
    return &s->graph->values[values[i]];
}

/* The tensor fits, and the surface is not below the floor. */
static enum kiln_status check_bytes(const struct surfaces *s, const size_t *values,
                                    const size_t *bytes, size_t n, const char *what) {
    const uint64_t floor = s->value[KILN_SIM_SMALLEST_SURFACE];
    for (size_t i = 0; i < n; i++) {
        const struct kiln_mil_value *value = surface_value(s, values, i);
        const size_t needed =
            kiln_mil_elements(&value->type) * kiln_mil_scalar_bytes(value->type.scalar);
        KILN_REQUIRE(bytes[i] >= needed, s->err, KILN_EINPUT,
                     "%s:%d:%d: the surface of %s %.80s has %zu bytes, but its tensor has %zu",
                     s->name, value->line, value->column, what, value->name, bytes[i], needed);
        if (bytes[i] < floor) {
            *s->limit = KILN_SIM_SMALLEST_SURFACE;
            return KILN_FAIL(s->err, KILN_EINPUT,
                             "%s:%d:%d: limit smallest-surface: the surface of %s %.80s has %zu "
                             "bytes, but none may have less than %" PRIu64,
                             s->name, value->line, value->column, what, value->name, bytes[i],
                             floor);
        }
    }
    return KILN_OK;
}

/* Neighbours in the order of the names' alphabet, which is that of the parameters. */
static enum kiln_status check_order(const struct surfaces *s, const size_t *values,
                                    const size_t *bytes, size_t n, bool input) {
    const bool ascending = s->value[KILN_SIM_ASCENDING_INPUTS] != 0;
    for (size_t i = 1; i < n; i++) {
        const size_t a = bytes[i - 1], b = bytes[i];
        const bool bad = ascending ? (input ? a >= b : a <= b)
                                   : s->value[KILN_SIM_EQUAL_SURFACES] != 0 && a != b;
        if (bad) {
            const struct kiln_mil_value *value = surface_value(s, values, i);
            const enum kiln_sim_limit limit =
                ascending ? KILN_SIM_ASCENDING_INPUTS : KILN_SIM_EQUAL_SURFACES;
            *s->limit = limit;
            return KILN_FAIL(s->err, KILN_EINPUT,
                             "%s:%d:%d: limit %s: the surface of %s %.80s has %zu bytes behind one "
                             "of %zu; %s",
                             s->name, value->line, value->column, table[limit].name,
                             input ? "input" : "output", value->name, b, a,
                             !ascending ? "all must have one size"
                             : input    ? "sizes must ascend"
                                        : "sizes must descend");
        }
    }
    return KILN_OK;
}

enum kiln_status kiln_sim_check_surfaces(const struct kiln_mil_graph *graph, const char *name,
                                         const size_t *inputs, size_t n_inputs,
                                         const size_t *outputs, size_t n_outputs,
                                         const struct kiln_sim_limits *limits,
                                         enum kiln_sim_limit *limit, struct kiln_err *err) {
    enum kiln_sim_limit none;
    const struct surfaces s = {graph, name, limits->value, limit != NULL ? limit : &none, err};
    *s.limit = KILN_SIM_LIMIT_COUNT;
    KILN_REQUIRE(n_inputs == graph->n_inputs && n_outputs == graph->n_outputs, err, KILN_EINPUT,
                 "%s: has %zu inputs and %zu outputs, but surfaces were given for %zu and %zu",
                 name, graph->n_inputs, graph->n_outputs, n_inputs, n_outputs);
    KILN_TRY(check_bytes(&s, graph->inputs, inputs, n_inputs, "input"));
    KILN_TRY(check_bytes(&s, graph->outputs, outputs, n_outputs, "output"));
    KILN_TRY(check_order(&s, graph->inputs, inputs, n_inputs, true));
    return check_order(&s, graph->outputs, outputs, n_outputs, false);
}

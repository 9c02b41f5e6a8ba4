/* SPDX-License-Identifier: MIT
 *
 * check_file.c: kiln/mil.h: a program's file held against the limits, and what it is.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/file.h"
#include "device/sim/mil_report.h"
#include "kiln/mil.h"

bool kiln_mil_limit(size_t i, struct kiln_mil_limit *out) {
    struct kiln_sim_limits defaults;
    if (i >= KILN_SIM_LIMIT_COUNT) {
        return false;
    }
    kiln_sim_limits_default(&defaults);
    out->name = kiln_sim_limit_name((enum kiln_sim_limit)i);
    out->help = kiln_sim_limit_help((enum kiln_sim_limit)i);
    out->value = defaults.value[i];
    return true;
}

static void describe_port(const struct kiln_mil_value *value, bool input,
                          struct kiln_mil_port *out) {
    char text[160];
    out->name = value->name;
    snprintf(out->type, sizeof out->type, "%s", kiln_mil_type_text(&value->type, text));
    out->bytes = kiln_mil_elements(&value->type) * kiln_mil_scalar_bytes(value->type.scalar);
    out->input = input;
}

/* The report owns the graph from here on: ports borrow its names, run_file.c runs it. */

static enum kiln_status describe(struct kiln_mil_owner *owner, struct kiln_mil_report *out,
                                 struct kiln_err *err) {
    const struct kiln_mil_graph *g = &owner->graph;
    out->version = g->version;
    snprintf(out->opset, sizeof out->opset, "%s", g->opset);
    out->operations = g->n_nodes;
    for (size_t i = 0; i < g->n_values; i++) {
        out->constants += g->values[i].constant;
        out->constants_from_files += g->values[i].file != NULL;
    }
    out->ports = kiln_alloc(g->n_inputs + g->n_outputs, sizeof *out->ports);
    KILN_REQUIRE(out->ports != NULL, err, KILN_ENOMEM, "out of memory for %zu inputs and outputs",
                 g->n_inputs + g->n_outputs);
    for (size_t i = 0; i < g->n_inputs; i++) {
        describe_port(&g->values[g->inputs[i]], true, &out->ports[out->n_ports++]);
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        describe_port(&g->values[g->outputs[i]], false, &out->ports[out->n_ports++]);
    }
    return KILN_OK;
}

enum kiln_status kiln_mil_check_file(const char *path, const struct kiln_mil_options *options,
                                     struct kiln_mil_report *out, struct kiln_err *err) {
    struct kiln_mil_owner *owner = kiln_alloc(1, sizeof *owner);
    enum kiln_sim_limit limit = KILN_SIM_LIMIT_COUNT;
    *out = (struct kiln_mil_report){.memory = NULL};
    KILN_REQUIRE(owner != NULL, err, KILN_ENOMEM, "%s: out of memory", path);
    out->memory = owner;
    kiln_sim_options_default(&owner->options);
    for (size_t i = 0; options != NULL && i < options->n_limits; i++) {
        KILN_TRY(kiln_sim_options_set(&owner->options, options->limits[i], err));
    }
    KILN_TRY(kiln_mil_open(path, options != NULL ? options->weights : NULL, &owner->graph, err));
    KILN_TRY(describe(owner, out, err));
    const enum kiln_status status =
        kiln_sim_check(&owner->graph, path, &owner->options.limits, &limit, err);
    if (limit != KILN_SIM_LIMIT_COUNT) {
        snprintf(out->limit, sizeof out->limit, "%s", kiln_sim_limit_name(limit));
    }
    return status;
}

void kiln_mil_report_free(struct kiln_mil_report *report) {
    struct kiln_mil_owner *owner = report->memory;
    if (owner != NULL) {
        kiln_mil_close(&owner->graph);
        kiln_free(owner);
    }
    kiln_free(report->ports);
    *report = (struct kiln_mil_report){.memory = NULL};
}

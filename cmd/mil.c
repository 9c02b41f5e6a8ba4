/* SPDX-License-Identifier: MIT
 *
 * mil.c: kiln mil: programs for the Neural Engine. check and limits are here.
 */
#include "kiln/mil.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "mil.h"
#include "output.h"

/* ---- check ---------------------------------------------------------------------------------- */

struct flags {
    const char *weights;
    struct option_texts limits;
    bool json;
};

static const struct option options[] = {
    {"weights", 0, OPTION_TEXT, "DIR", NULL, "where its weight files are (the program's folder)",
     GROUP_MODEL, 0, 0, offsetof(struct flags, weights)},
    {"limit", 0, OPTION_TEXTS, "NAME=VALUE", NULL,
     "set a limit: on, off or a number; may be repeated", GROUP_MACHINE, 0, 0,
     offsetof(struct flags, limits)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static json_t *ports_json(const struct kiln_mil_report *report, bool input) {
    json_t *list = json_array();
    for (size_t i = 0; i < report->n_ports; i++) {
        const struct kiln_mil_port *port = &report->ports[i];
        if (port->input == input) {
            json_array_append_new(list, json_pack("{s:s, s:s, s:I}", "name", port->name, "type",
                                                  port->type, "bytes", (json_int_t)port->bytes));
        }
    }
    return list;
}

/* A refusal is said on both: as JSON for programs, as a message for people. */
static enum kiln_status print_json(const char *path, const struct kiln_mil_report *report,
                                   enum kiln_status status, const struct kiln_err *why,
                                   struct kiln_err *err) {
    const bool bad = status != KILN_OK;
    return json_print(
        json_pack("{s:o, s:b, s:s?, s:o?, s:f, s:s, s:I, s:I, s:I, s:o, s:o}", "program",
                  json_bytes(path, strlen(path)), "accepted", !bad, "limit",
                  report->limit[0] != '\0' ? report->limit : NULL, "message",
                  bad ? json_bytes(why->message, strlen(why->message)) : NULL, "version",
                  report->version, "opset", report->opset, "operations",
                  (json_int_t)report->operations, "constants", (json_int_t)report->constants,
                  "constants_from_files", (json_int_t)report->constants_from_files, "inputs",
                  ports_json(report, true), "outputs", ports_json(report, false)),
        err);
}

static enum kiln_status print_text(const char *path, const struct kiln_mil_report *report,
                                   struct kiln_err *err) {
    printf("%s: accepted: program(%g), %s, %zu operations, %zu constants (%zu from files)\n", path,
           report->version, report->opset, report->operations, report->constants,
           report->constants_from_files);
    for (size_t i = 0; i < report->n_ports; i++) {
        const struct kiln_mil_port *port = &report->ports[i];
        printf("  %-6s  %-20s %s, %zu bytes\n", port->input ? "input" : "output", port->name,
               port->type, port->bytes);
    }
    return output_finish(err);
}

static enum kiln_status run_check(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const char *path = call->arguments[0];
    const struct kiln_mil_options how = {
        .weights = flags->weights, .limits = flags->limits.text, .n_limits = flags->limits.n};
    struct kiln_mil_report report;
    struct kiln_err other;
    enum kiln_status status = kiln_mil_check_file(path, &how, &report, err), said = KILN_OK;
    if (flags->json && (status == KILN_OK || status == KILN_EINPUT)) {
        said = print_json(path, &report, status, err, status == KILN_OK ? err : &other);
    } else if (status == KILN_OK) {
        said = print_text(path, &report, err);
    }
    kiln_mil_report_free(&report);
    return status != KILN_OK ? status : said;
}

const struct command command_mil_check = {
    .name = "mil check",
    .synopsis = "P.mil [--weights DIR] [--limit NAME=VALUE ...]",
    .summary = "would the Neural Engine's compiler take this program?",
    .details =
        "Reads anybody's MIL with its weight files: grammar, names, shapes, types, then the "
        "limits\n"
        "of the hardware, as published programs tell them. @model_path/weights/NAME is looked for\n"
        "as DIR/weights/NAME and as DIR/NAME. kiln mil limits lists the limits.\n\n"
        "  kiln mil check model.mil --limit concat-inputs=2 --limit width-multiple=off\n\n"
        "Exit: 0 accepted; 1 refused, and stderr says where and by which limit.\n",
    .least_arguments = 1,
    .most_arguments = 1,
    .missing = "name a program: kiln mil check P.mil",
    .flags_size = sizeof(struct flags),
    .options = options,
    .run = run_check,
};

/* ---- limits --------------------------------------------------------------------------------- */

struct limits_flags {
    bool json;
};

static const struct option limits_options[] = {
    OPTION_JSON(struct limits_flags),
    OPTION_END,
};

static enum kiln_status run_limits(const struct call *call, struct kiln_err *err) {
    const struct limits_flags *flags = call->flags;
    struct kiln_mil_limit limit;
    json_t *list = flags->json ? json_object() : NULL;
    for (size_t i = 0; kiln_mil_limit(i, &limit); i++) {
        if (flags->json) {
            json_object_set_new(
                list, limit.name,
                json_pack("{s:I, s:s}", "value", (json_int_t)limit.value, "help", limit.help));
            continue;
        }
        char value[24] = "off";
        if (limit.value > 0) {
            snprintf(value, sizeof value, "%" PRIu64, limit.value);
        }
        printf("  %-22s %6s  %s\n", limit.name, value, limit.help);
    }
    struct kiln_mil_number number;
    for (size_t i = 0; kiln_mil_sim_number(i, &number); i++) {
        if (flags->json) {
            json_object_set_new(
                list, number.name,
                json_pack("{s:s, s:s}", "value", number.value, "help", number.help));
        } else {
            printf("%s  %-22s %6s  %s\n", i == 0 ? "numbers\n" : "", number.name, number.value,
                   number.help);
        }
    }
    return flags->json ? json_print(list, err) : output_finish(err);
}

const struct command command_mil_limits = {
    .name = "mil limits",
    .synopsis = "[--json]",
    .summary = "list the hardware's limits and their defaults",
    .details =
        "1 is on. Set others with --limit NAME=on, =off or =NUMBER; train, plan and verify take\n"
        "them as --sim NAME=VALUE,NAME=VALUE.\n",
    .missing = "",
    .flags_size = sizeof(struct limits_flags),
    .options = limits_options,
    .run = run_limits,
};

/* ---- all of them ---------------------------------------------------------------------------- */

static const struct command *const parts[] = {&command_mil_check, &command_mil_emit,
                                              &command_mil_run, &command_mil_limits, NULL};

const struct command command_mil = {
    .name = "mil",
    .synopsis = "check|emit|run|limits ...",
    .summary = "check, write and run programs for the Neural Engine",
    .parts = parts,
};

/* SPDX-License-Identifier: MIT
 *
 * mil_run.c: kiln mil run: a program on the simulated Neural Engine, its tensors from and to files.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kiln/mil.h"
#include "mil.h"
#include "output.h"

struct flags {
    const char *weights;
    struct option_texts in, out, limits;
    bool json;
};

static const struct option options[] = {
    {"in", 0, OPTION_TEXTS, "NAME=FILE", NULL, "an input's elements; may be repeated", GROUP_DATA,
     0, 0, offsetof(struct flags, in)},
    {"out", 0, OPTION_TEXTS, "NAME=FILE", NULL, "where an output goes; may be repeated", GROUP_DATA,
     0, 0, offsetof(struct flags, out)},
    {"weights", 0, OPTION_TEXT, "DIR", NULL, "where its weight files are (the program's folder)",
     GROUP_MODEL, 0, 0, offsetof(struct flags, weights)},
    {"limit", 0, OPTION_TEXTS, "NAME=VALUE", NULL,
     "set a limit: on, off or a number; may be repeated", GROUP_MACHINE, 0, 0,
     offsetof(struct flags, limits)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

/* Files as they were named on the command line. */
struct named {
    struct kiln_mil_file files[MAX_TEXTS];
    char *names[MAX_TEXTS];
    size_t n;
};

static enum kiln_status parse_files(const char *flag, const struct option_texts *texts,
                                    struct named *out, struct kiln_err *err) {
    for (size_t i = 0; i < texts->n; i++) {
        const char *text = texts->text[i], *equals = strchr(text, '=');
        KILN_REQUIRE(equals != NULL && equals != text && equals[1] != '\0', err, KILN_EUSAGE,
                     "--%s %s: expected NAME=FILE", flag, text);
        out->names[out->n] = strndup(text, (size_t)(equals - text));
        KILN_REQUIRE(out->names[out->n] != NULL, err, KILN_ENOMEM, "out of memory for --%s", flag);
        out->files[out->n] = (struct kiln_mil_file){out->names[out->n], equals + 1};
        out->n++;
    }
    return KILN_OK;
}

static void free_files(struct named *named) {
    for (size_t i = 0; i < named->n; i++) {
        free(named->names[i]);
    }
}

/* The file of a port, or NULL. */
static const char *file_of(const struct named *named, const char *name) {
    for (size_t i = 0; i < named->n; i++) {
        if (strcmp(named->files[i].name, name) == 0) {
            return named->files[i].path;
        }
    }
    return NULL;
}

static json_t *ports_json(const struct kiln_mil_report *report, const struct named *named,
                          bool input) {
    json_t *list = json_array();
    for (size_t i = 0; i < report->n_ports; i++) {
        const struct kiln_mil_port *port = &report->ports[i];
        const char *file = file_of(named, port->name);
        if (port->input == input) {
            json_array_append_new(
                list, json_pack("{s:s, s:s, s:I, s:o?}", "name", port->name, "type", port->type,
                                "bytes", (json_int_t)port->bytes, "file",
                                file != NULL ? json_bytes(file, strlen(file)) : NULL));
        }
    }
    return list;
}

static enum kiln_status print(const char *path, bool json, const struct kiln_mil_report *report,
                              const struct named *in, const struct named *out,
                              struct kiln_err *err) {
    if (json) {
        return json_print(
            json_pack("{s:o, s:I, s:o, s:o}", "program", json_bytes(path, strlen(path)),
                      "operations", (json_int_t)report->operations, "inputs",
                      ports_json(report, in, true), "outputs", ports_json(report, out, false)),
            err);
    }
    printf("%s: %zu operations\n", path, report->operations);
    for (size_t i = 0; i < report->n_ports; i++) {
        const struct kiln_mil_port *port = &report->ports[i];
        const char *file = file_of(port->input ? in : out, port->name);
        printf("  %-6s  %-20s %s, %zu bytes%s%s\n", port->input ? "input" : "output", port->name,
               port->type, port->bytes, file != NULL ? (port->input ? " from " : " to ") : "",
               file != NULL ? file : "");
    }
    return output_finish(err);
}

static enum kiln_status run_files(const struct call *call, struct named *in, struct named *out,
                                  struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const char *path = call->arguments[0];
    const struct kiln_mil_options how = {
        .weights = flags->weights, .limits = flags->limits.text, .n_limits = flags->limits.n};
    struct kiln_mil_report report;
    KILN_TRY(parse_files("in", &flags->in, in, err));
    KILN_TRY(parse_files("out", &flags->out, out, err));
    KILN_REQUIRE(out->n > 0, err, KILN_EUSAGE,
                 "name at least one output: --out NAME=FILE; kiln mil check %s lists them", path);
    enum kiln_status status =
        kiln_mil_run_file(path, &how, in->files, in->n, out->files, out->n, &report, err);
    if (status == KILN_OK) {
        status = print(path, flags->json, &report, in, out, err);
    }
    kiln_mil_report_free(&report);
    return status;
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    struct named in = {.n = 0}, out = {.n = 0};
    const enum kiln_status status = run_files(call, &in, &out, err);
    free_files(&in);
    free_files(&out);
    return status;
}

const struct command command_mil_run = {
    .name = "mil run",
    .synopsis = "P.mil --in NAME=FILE ... --out NAME=FILE ... [--weights DIR]",
    .summary = "run a program on the simulated Neural Engine",
    .details =
        "Computes as the hardware does: fp16 behind each operation, wider sums inside products. A\n"
        "file holds the elements of a tensor in its declared type, row-major, little-endian, and\n"
        "nothing else. Every input needs one; outputs that are not named are not written.\n\n"
        "  kiln mil run model.mil --in x=x.f16 --out y=y.f16\n\n"
        "Exit: 0 done; 1 refused by a limit, or a file does not fit; 2 no such input or output.\n",
    .least_arguments = 1,
    .most_arguments = 1,
    .missing = "name a program: kiln mil run P.mil --in x=FILE --out y=FILE",
    .flags_size = sizeof(struct flags),
    .options = options,
    .run = run,
};

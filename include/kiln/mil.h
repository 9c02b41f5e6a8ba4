/* SPDX-License-Identifier: MIT
 *
 * mil.h: programs for the Neural Engine (MIL text and weight files): would the hardware take them?
 *
 *     struct kiln_mil_report report;
 *     status = kiln_mil_check_file("model.mil", NULL, &report, &err);
 *     if (status == KILN_OK) ... accepted
 *     else if (report.limit[0] != '\0') ... right as MIL, refused by that limit of the hardware
 *     else ... err.message says what is wrong, and where
 *     kiln_mil_report_free(&report);
 *
 * Anybody's program will do. A weight that the text calls @model_path/weights/NAME is looked for
 * as weights/NAME and as NAME in one folder, by default that of the program.
 */
#ifndef KILN_PUBLIC_MIL_H
#define KILN_PUBLIC_MIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

/* A limit of the hardware. */
struct kiln_mil_limit {
    const char *name, *help;
    uint64_t value; /* its default; 0: off */
};
/* The i-th limit; false behind the last. */
KILN_API bool kiln_mil_limit(size_t i, struct kiln_mil_limit *out);

struct kiln_mil_options {
    const char *weights;       /* folder; NULL: the program's */
    const char *const *limits; /* [n_limits] "NAME=on", "NAME=off", "NAME=NUMBER" */
    size_t n_limits;
};

/* What a program takes or gives. */
struct kiln_mil_port {
    const char *name; /* lives as long as the report */
    char type[160];   /* "tensor<fp16, [1,768,1,256]>" */
    size_t bytes;
    bool input;
};

struct kiln_mil_report {
    char limit[40];               /* that refused it; "": none */
    double version;               /* 1.3 */
    char opset[16];               /* "ios18" */
    size_t operations, constants; /* constants: of text and of files */
    size_t constants_from_files;
    struct kiln_mil_port *ports; /* inputs, then outputs, in their order */
    size_t n_ports;
    void *memory; /* what owns the ports */
};

/* Read a program with its weights and hold it against the limits. options NULL: the defaults.
 * KILN_EINPUT: refused; the message begins with file:line:column, then either "limit NAME:" or what
 * was expected and found. KILN_EUSAGE: not a limit. Free the report after any status. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_mil_check_file(
    const char *path, const struct kiln_mil_options *options, struct kiln_mil_report *out,
    struct kiln_err *err);
KILN_API void kiln_mil_report_free(struct kiln_mil_report *report);

#endif

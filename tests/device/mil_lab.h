/* SPDX-License-Identifier: MIT
 *
 * mil_lab.h: MIL programs for tests: text and weight files in memory.
 */
#ifndef KILN_TESTS_DEVICE_MIL_LAB_H
#define KILN_TESTS_DEVICE_MIL_LAB_H

#include "device/mil/graph.h"
#include "kiln_test.h"

/* What stands before a program's parameters, and behind its statements. */
#define MIL_HEAD                                                                                  \
    "program(1.3)\n[buildInfo = dict<string, string>({{\"coremltools-version\", \"9.0\"}})]\n{\n" \
    "func main<ios18>("
#define MIL_CALL(parameters, statements, results) \
    MIL_HEAD parameters ") {\n" statements "} -> (" results ");\n}\n"

/* A weight file of fp16 numbers 0, 1, 2, ... at @model_path/weights/NAME. */
struct mil_file {
    const char *path;
    size_t elements;
};

/* Parse; the program must be right. Close it. */
void mil_read(const char *text, const struct mil_file *files, size_t n_files,
              struct kiln_mil_graph *out);
/* Parse; it must fail with a message that holds `words`. */
void mil_refused(const char *text, const char *words);
/* The value of that name. */
const struct kiln_mil_value *mil_value(const struct kiln_mil_graph *graph, const char *name);

#endif

/* SPDX-License-Identifier: MIT
 *
 * run_file.c: kiln/mil.h: a program's file, run on files.
 */
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "device/sim/eval.h"
#include "device/sim/mil_report.h"
#include "kiln/mil.h"

/* All of a run: the tensors lie in the order of the report's ports, inputs first. */
struct job {
    const char *path;
    const struct kiln_mil_report *report;
    const struct kiln_mil_graph *graph;
    const struct kiln_sim_numbers *numbers;
    const struct kiln_mil_file **files; /* of the ports; NULL: not named */
    void **tensors;
};

/* ---- names ---------------------------------------------------------------------------------- */

/* "a, b, c": the inputs or the outputs, as far as they fit. */
static const char *names_of(const struct kiln_mil_report *report, bool input, char *text,
                            size_t size) {
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; i < report->n_ports && at < size; i++) {
        if (report->ports[i].input == input) {
            int n = snprintf(text + at, size - at, "%s%s", at ? ", " : "", report->ports[i].name);
            at += n > 0 ? (size_t)n : 0;
        }
    }
    return text;
}

static enum kiln_status take_names(struct job *job, const struct kiln_mil_file *files, size_t n,
                                   bool input, struct kiln_err *err) {
    const char *what = input ? "input" : "output";
    char names[300];
    for (size_t i = 0; i < n; i++) {
        size_t port = 0;
        while (port < job->report->n_ports &&
               (job->report->ports[port].input != input ||
                strcmp(job->report->ports[port].name, files[i].name) != 0)) {
            port++;
        }
        KILN_REQUIRE(port < job->report->n_ports, err, KILN_EUSAGE, "%s has no %s %s; it has %s",
                     job->path, what, files[i].name,
                     names_of(job->report, input, names, sizeof names));
        KILN_REQUIRE(!job->files[port], err, KILN_EUSAGE, "%s %s of %s is named twice: %s and %s",
                     what, files[i].name, job->path, job->files[port]->path, files[i].path);
        job->files[port] = &files[i];
    }
    return KILN_OK;
}

/* ---- files ---------------------------------------------------------------------------------- */

static enum kiln_status read_inputs(const struct job *job, struct kiln_err *err) {
    char names[300];
    for (size_t i = 0; i < job->graph->n_inputs; i++) {
        const struct kiln_mil_port *port = &job->report->ports[i];
        KILN_REQUIRE(job->files[i], err, KILN_EUSAGE,
                     "input %s of %s has no file; all inputs need one: %s", port->name, job->path,
                     names_of(job->report, true, names, sizeof names));
        struct kiln_map map;
        KILN_TRY(kiln_map_open(&map, job->files[i]->path, err));
        size_t size = map.size;
        if (size == port->bytes) {
            memcpy(job->tensors[i], map.data, size);
        }
        kiln_map_close(&map);
        KILN_REQUIRE(size == port->bytes, err, KILN_EINPUT,
                     "%s has %zu bytes, but input %s of %s, %s, has %zu", job->files[i]->path, size,
                     port->name, job->path, port->type, port->bytes);
    }
    return KILN_OK;
}

static enum kiln_status write_outputs(const struct job *job, struct kiln_err *err) {
    for (size_t i = job->graph->n_inputs; i < job->report->n_ports; i++) {
        if (job->files[i]) {
            KILN_TRY(kiln_write_file(job->files[i]->path, job->tensors[i],
                                     job->report->ports[i].bytes, err));
        }
    }
    return KILN_OK;
}

/* ---- the run -------------------------------------------------------------------------------- */

static enum kiln_status evaluate(const struct job *job, struct kiln_err *err) {
    struct kiln_sim_machine machine = {.floats = 0};
    struct kiln_sim_plan plan = {.graph = NULL};
    struct kiln_pool *pool;
    KILN_TRY(kiln_pool_create(kiln_cpu_count(), &pool, err));
    enum kiln_status status = kiln_sim_machine_open(&machine, pool, job->numbers, err);
    if (status == KILN_OK) {
        status = kiln_sim_plan_open(job->graph, job->numbers, &plan, err);
    }
    if (status == KILN_OK) {
        status = kiln_sim_machine_grow(&machine, plan.floats, err);
    }
    if (status == KILN_OK) {
        kiln_sim_evaluate(&machine, &plan, (const void *const *)job->tensors,
                          job->tensors + job->graph->n_inputs);
    }
    kiln_sim_plan_close(&plan);
    kiln_sim_machine_close(&machine);
    kiln_pool_destroy(pool);
    return status;
}

static enum kiln_status open_tensors(struct job *job, struct kiln_err *err) {
    size_t n = job->report->n_ports;
    job->files = kiln_alloc(n, sizeof(void *));
    job->tensors = kiln_alloc(n, sizeof(void *));
    bool there = job->files && job->tensors;
    for (size_t i = 0; there && i < n; i++) {
        job->tensors[i] = kiln_alloc(job->report->ports[i].bytes, 1);
        there = job->tensors[i] != NULL;
    }
    KILN_REQUIRE(there, err, KILN_ENOMEM, "%s: no memory for its %zu inputs and outputs", job->path,
                 n);
    return KILN_OK;
}

static void close_tensors(struct job *job) {
    for (size_t i = 0; job->tensors && i < job->report->n_ports; i++) {
        kiln_free(job->tensors[i]);
    }
    kiln_free(job->tensors);
    kiln_free((void *)job->files);
}

enum kiln_status kiln_mil_run_file(const char *path, const struct kiln_mil_options *options,
                                   const struct kiln_mil_file *inputs, size_t n_inputs,
                                   const struct kiln_mil_file *outputs, size_t n_outputs,
                                   struct kiln_mil_report *out, struct kiln_err *err) {
    KILN_TRY(kiln_mil_check_file(path, options, out, err));
    const struct kiln_mil_owner *owner = out->memory;
    struct job job = {
        .path = path, .report = out, .graph = &owner->graph, .numbers = &owner->options.numbers};
    enum kiln_status status = open_tensors(&job, err);
    if (status == KILN_OK) {
        status = take_names(&job, inputs, n_inputs, true, err);
    }
    if (status == KILN_OK) {
        status = take_names(&job, outputs, n_outputs, false, err);
    }
    if (status == KILN_OK) {
        status = read_inputs(&job, err);
    }
    if (status == KILN_OK) {
        status = evaluate(&job, err);
    }
    if (status == KILN_OK) {
        status = write_outputs(&job, err);
    }
    close_tensors(&job);
    return status;
}

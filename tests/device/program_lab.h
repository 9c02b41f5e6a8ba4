/* SPDX-License-Identifier: MIT
 *
 * program_lab.h: run one program of a layer on the simulator, from and to the oracle's layout.
 */
#ifndef KILN_TESTS_DEVICE_PROGRAM_LAB_H
#define KILN_TESTS_DEVICE_PROGRAM_LAB_H

#include "device/ane/programs.h"
#include "device/llama_oracle.h"
#include "device/mil/graph.h"

struct program_run {
    const struct oracle *o;
    enum kiln_npu_kind kind;
    size_t part, width;
    struct kiln_npu_port in, out;
    uint16_t *input, *output;
};

void run_open(struct program_run *run, const struct oracle *o, enum kiln_npu_kind kind,
              size_t part);
void run_close(struct program_run *run);
/* Fill part i of the input with activations [T][C]; with scores [H][T][T]; with a weight as the
 * dynamic programs want it, transposed or not. */
void run_give(struct program_run *run, size_t i, const double *x);
void run_give_scores(struct program_run *run, size_t i, const double *p);
void run_give_weight(struct program_run *run, size_t i, enum kiln_role role, bool transposed);
/* A vector into the columns of part i, behind the activations' channels. */
void run_give_vector(struct program_run *run, size_t i, enum kiln_role role);
/* Make the program, read it and evaluate it. */
void run_go(struct program_run *run);
/* Part i of the output is `want`, to a relative error of 3e-3. */
void run_expect(const struct program_run *run, size_t i, const double *want);
void run_expect_scores(const struct program_run *run, size_t i, const double *want);
/* Element (t, c) of part i. */
double run_result(const struct program_run *run, size_t i, size_t t, size_t c);

/* The program as a graph; kiln_mil_close it. */
void run_read(const struct kiln_npu_made *made, struct kiln_mil_graph *graph);

#endif

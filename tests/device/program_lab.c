/* SPDX-License-Identifier: MIT */
#include "device/program_lab.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/half.h"
#include "device/sim/eval.h"
#include "kiln_test.h"

#define TOLERANCE 3e-3

/* The adapters of a program into its input, as programs.h has them. */
static void give_adapters(struct program_run *run) {
    const struct oracle *o = run->o;
    for (size_t i = 0; i < run->in.n_adapters; i++) {
        const struct kiln_npu_adapter *at = &run->in.adapters[i];
        const struct kiln_tensor *w = kiln_table_find(o->table, at->role, o->layer);
        const struct kiln_tensor *a = kiln_lora_find(o->table, w, 0);
        const struct kiln_tensor *b = kiln_lora_find(o->table, w, 1);
        CHECK(a->cols == at->cols && b->rows == at->rows && a->rows == at->rank);
        const double scale = o->mode.lora.alpha / (double)at->rank;
        for (size_t k = 0; k < at->rank; k++) {
            for (size_t c = 0; c < at->cols; c++) {
                run->input[c * run->in.width + at->a + k] =
                    kiln_f64_to_f16(scale * (double)o->weights[a->offset + k * a->cols + c]);
            }
            for (size_t r = 0; r < at->rows; r++) {
                run->input[r * run->in.width + at->b + k] =
                    kiln_f32_to_f16(o->weights[b->offset + r * b->cols + k]);
            }
        }
    }
}

void run_open(struct program_run *run, const struct oracle *o, enum kiln_npu_kind kind,
              size_t part) {
    memset(run, 0, sizeof *run);
    run->o = o;
    run->kind = kind;
    run->part = part;
    run->width = kiln_npu_width(o->seq);
    kiln_npu_ports(kind, &o->d, &o->mode, part, &run->in, &run->out);
    run->input = kiln_alloc(run->in.bytes, 1);
    run->output = kiln_alloc(run->out.bytes, 1);
    CHECK(run->input && run->output);
    give_adapters(run);
    if (run->in.starts > 0) {
        uint16_t *rows = kiln_alloc(KILN_NPU_STARTS * run->width, sizeof *rows);
        kiln_npu_fill_starts(o->starts, o->seq, rows);
        for (size_t r = 0; r < KILN_NPU_STARTS; r++) {
            memcpy(run->input + run->in.starts + r * run->in.width, rows + r * run->width,
                   run->width * sizeof *rows);
        }
        kiln_free(rows);
    }
}

void run_close(struct program_run *run) {
    kiln_free(run->input);
    kiln_free(run->output);
}

/* Where element (row, column) of part i begins, rows being channels. */
static size_t at(const struct kiln_npu_port *port, size_t i, size_t row, size_t column) {
    size_t first = kiln_npu_part_at(port, i);
    return port->columns ? row * port->width + first + column
                         : (first + row) * port->width + column;
}

void run_give(struct program_run *run, size_t i, const double *x) {
    size_t channels = run->in.columns ? run->in.rows : run->in.part[i];
    for (size_t t = 0; t < run->o->seq; t++) {
        for (size_t c = 0; c < channels; c++) {
            run->input[at(&run->in, i, c, t)] = kiln_f64_to_f16(x[t * channels + c]);
        }
    }
}

void run_give_scores(struct program_run *run, size_t i, const double *p) {
    size_t T = run->o->seq;
    for (size_t row = 0; row < run->o->d.heads * T; row++) {
        for (size_t s = 0; s < T; s++) {
            run->input[at(&run->in, i, row / T * run->width + row % T, s)] =
                kiln_f64_to_f16(p[row * T + s]);
        }
    }
}

void run_give_weight(struct program_run *run, size_t i, enum kiln_role role, bool transposed) {
    const struct kiln_tensor *t = kiln_table_find(run->o->table, role, run->o->layer);
    const float *w = run->o->weights + t->offset;
    size_t rows = transposed ? t->cols : t->rows, cols = transposed ? t->rows : t->cols;
    CHECK_EQ(run->in.rows, rows);
    CHECK_EQ(run->in.part[i], cols);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++) {
            float value = transposed ? w[c * t->cols + r] : w[r * t->cols + c];
            run->input[at(&run->in, i, r, c)] = kiln_f32_to_f16(value);
        }
    }
}

void run_give_vector(struct program_run *run, size_t i, enum kiln_role role) {
    const struct kiln_tensor *t = kiln_table_find(run->o->table, role, run->o->layer);
    const size_t row = run->in.rows + kiln_npu_vector_row(&run->o->d, role);
    CHECK(row < run->in.channels && t->cols <= run->in.part[i]);
    for (size_t c = 0; c < t->cols; c++) {
        run->input[at(&run->in, i, row, c)] = kiln_f32_to_f16(run->o->weights[t->offset + c]);
    }
}

static const void *find_file(void *context, const char *path, size_t *bytes) {
    const struct kiln_npu_source *source = context;
    const char *name = strrchr(path, '/') + 1;
    for (size_t i = 0; i < source->n_weights; i++) {
        if (strcmp(source->weights[i].name, name) == 0) {
            *bytes = source->weights[i].bytes;
            return source->weights[i].data;
        }
    }
    return NULL;
}

void run_read(const struct kiln_npu_made *made, struct kiln_mil_graph *graph) {
    struct kiln_err err;
    struct kiln_npu_source source = made->source;
    CHECK_OK(
        kiln_mil_parse(source.label, source.text, source.bytes, find_file, &source, graph, &err),
        &err);
}

/* Numbers of the least capable hardware that is known. */
static void evaluate(struct program_run *run, const struct kiln_mil_graph *graph) {
    const struct kiln_sim_numbers numbers = {
        .nan = KILN_SIM_NAN_INF, .matmul_limit = 32752, .slice_limit = 4094};
    struct kiln_err err;
    struct kiln_pool *pool;
    struct kiln_sim_machine machine;
    struct kiln_sim_plan plan;
    CHECK_OK(kiln_pool_create(1, &pool, &err), &err);
    CHECK_OK(kiln_sim_machine_open(&machine, pool, &numbers, &err), &err);
    CHECK_OK(kiln_sim_plan_open(graph, &numbers, &plan, &err), &err);
    CHECK_OK(kiln_sim_machine_grow(&machine, plan.floats, &err), &err);
    CHECK_EQ(kiln_sim_bytes(&graph->values[graph->inputs[0]].type), run->in.bytes);
    CHECK_EQ(kiln_sim_bytes(&graph->values[graph->outputs[0]].type), run->out.bytes);
    kiln_sim_evaluate(&machine, &plan, &(const void *){run->input}, &(void *){run->output});
    kiln_sim_plan_close(&plan);
    kiln_sim_machine_close(&machine);
    kiln_pool_destroy(pool);
}

void run_go(struct program_run *run) {
    struct kiln_err err;
    struct kiln_npu_made made;
    struct kiln_mil_graph graph;
    const struct kiln_weights flat = kiln_weights_flat(run->o->table, run->o->weights);
    CHECK_OK(kiln_npu_make(run->kind, run->o->table, &run->o->mode, run->o->layer, run->part, &flat,
                           0, NULL, &made, &err),
             &err);
    run_read(&made, &graph);
    CHECK_EQ(graph.n_inputs, 1);
    CHECK_EQ(graph.n_outputs, 1);
    evaluate(run, &graph);
    kiln_mil_close(&graph);
    kiln_npu_made_free(&made);
}

double run_result(const struct program_run *run, size_t i, size_t t, size_t c) {
    return (double)kiln_f16_to_f32(run->output[at(&run->out, i, c, t)]);
}

static void compare(const struct program_run *run, size_t i, float *got, const double *want,
                    size_t n) {
    float *wanted = kiln_alloc(n, sizeof *wanted);
    for (size_t e = 0; e < n; e++) {
        wanted[e] = (float)want[e];
    }
    char what[64];
    snprintf(what, sizeof what, "%s, output %zu", kiln_npu_kind_name(run->kind), i);
    kiln_test_near_norm(__FILE__, __LINE__, what, got, wanted, n, TOLERANCE);
    kiln_free(wanted);
    kiln_free(got);
}

void run_expect(const struct program_run *run, size_t i, const double *want) {
    size_t channels = run->out.part[i], n = run->o->seq * channels;
    float *got = kiln_alloc(n, sizeof *got);
    for (size_t e = 0; e < n; e++) {
        got[e] = (float)run_result(run, i, e / channels, e % channels);
    }
    compare(run, i, got, want, n);
}

void run_expect_scores(const struct program_run *run, size_t i, const double *want) {
    size_t T = run->o->seq, n = run->o->d.heads * T * T;
    float *got = kiln_alloc(n, sizeof *got);
    for (size_t e = 0; e < n; e++) {
        size_t row = e / T;
        got[e] = (float)run_result(run, i, e % T, row / T * run->width + row % T);
    }
    compare(run, i, got, want, n);
}

/* SPDX-License-Identifier: MIT
 *
 * Squares of gradients (src/device/gradient_sums.h): the same bits whoever summed them and in
 * whatever rectangles, what was not taken whole comes from memory, and what was taken is used.
 */
#include "device/gradient_sums.h"

#include "base/mem.h"
#include "base/random.h"
#include "kernel/lab.h"

/* A model whose matrices end in the middle of blocks, one of them wider than what is summed from
 * memory at a time (32 blocks); gradients of random numbers. */
struct sums_lab {
    struct kiln_table *table;
    struct kiln_kernels k;
    struct kiln_gradient_sums sums, none; /* of the latter nothing is ever taken */
    float *gradients;
};

static void open_lab(struct sums_lab *lab, bool tied) {
    struct kiln_dims dims = {.dim = 100,
                             .hidden = 2100,
                             .layers = 2,
                             .heads = 5,
                             .kv_heads = 1,
                             .vocab = 130,
                             .seq = 8,
                             .rms_eps = 1e-5f,
                             .rope_theta = 10000.0f,
                             .tied = tied};
    struct kiln_err err;
    *lab = (struct sums_lab){.gradients = NULL};
    CHECK_OK(kiln_dims_check(&dims, &err), &err);
    CHECK_OK(kiln_table_create(&dims, &lab->table, &err), &err);
    CHECK_OK(kiln_kernels_choose(KILN_PRECISION_FP32, &lab->k, &err), &err);
    CHECK_OK(kiln_gradient_sums_open(&lab->sums, lab->table, &err), &err);
    CHECK_OK(kiln_gradient_sums_open(&lab->none, lab->table, &err), &err);
    lab->gradients = lab_floats(lab->table->size, 0, 1.0f);
}

static void close_lab(struct sums_lab *lab) {
    kiln_gradient_sums_close(&lab->sums);
    kiln_gradient_sums_close(&lab->none);
    kiln_table_destroy(lab->table);
    lab_check_guards();
}

static size_t below(uint64_t at, size_t n) {
    return (size_t)kiln_random_below(1, KILN_STREAM_TEST, at, (uint32_t)n);
}

static void take(struct sums_lab *lab, size_t matrix, size_t first, size_t rows, size_t from,
                 size_t columns) {
    kiln_gradient_sums_take(&lab->sums, &lab->k, matrix, first, rows, from, columns,
                            lab->gradients);
}

static double rows_of(const struct sums_lab *lab, const struct kiln_gradient_sums *sums,
                      size_t matrix, size_t first) {
    const size_t rows = kiln_least(lab->table->matrices[matrix].rows - first, KILN_SUM_BLOCK);
    return kiln_gradient_sums_rows(sums, &lab->k, matrix, first, rows, lab->gradients);
}

/* Is what was taken of a matrix, and the rest from memory, the same to the bit as all from memory?
 */
static void check_matrix(const struct sums_lab *lab, size_t matrix) {
    const struct kiln_matrix *m = &lab->table->matrices[matrix];
    for (size_t first = 0; first < m->rows; first += KILN_SUM_BLOCK) {
        double plain = 0.0;
        for (size_t i = first; i < kiln_least(m->rows, first + KILN_SUM_BLOCK); i++) {
            for (size_t j = 0; j < m->cols; j++) {
                const double g = (double)lab->gradients[m->offset + i * m->cols + j];
                plain += g * g;
            }
        }
        const double memory = rows_of(lab, &lab->none, matrix, first);
        CHECK_CLOSE(memory, plain, 1e-5 * plain);
        CHECK_CLOSE(rows_of(lab, &lab->sums, matrix, first), memory, 0);
    }
}

static size_t blocks(size_t rows, size_t cols) {
    return (rows + KILN_SUM_BLOCK - 1) / KILN_SUM_BLOCK *
           ((cols + KILN_SUM_BLOCK - 1) / KILN_SUM_BLOCK);
}

/* Those of a matrix that were taken. */
static size_t taken(const struct sums_lab *lab, size_t matrix) {
    const size_t end =
        matrix + 1 < lab->table->n_matrices ? lab->sums.first[matrix + 1] : lab->sums.n;
    size_t n = 0;
    for (size_t i = lab->sums.first[matrix]; i < end; i++) {
        n += lab->sums.done[i];
    }
    return n;
}

TEST(sums_taken_on_the_way_are_those_from_memory) {
    static const size_t cuts[][2] = {{128, 256}, {64, 64}, {64, 4096}, {4096, 64}, {192, 320}};
    struct sums_lab lab;
    open_lab(&lab, false);
    for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++) {
        kiln_gradient_sums_clear(&lab.sums);
        for (size_t i = 0; i < lab.table->n_matrices; i++) {
            const struct kiln_matrix *m = &lab.table->matrices[i];
            CHECK_EQ(taken(&lab, i), 0);
            for (size_t r = 0; r < m->rows; r += cuts[c][0]) {
                for (size_t j = 0; j < m->cols; j += cuts[c][1]) {
                    take(&lab, i, r, kiln_least(m->rows - r, cuts[c][0]), j,
                         kiln_least(m->cols - j, cuts[c][1]));
                }
            }
            CHECK_EQ(taken(&lab, i), blocks(m->rows, m->cols));
            check_matrix(&lab, i);
        }
    }
    close_lab(&lab);
}

/* Rectangles from anywhere to anywhere: only whole blocks are taken, the rest comes from memory. */
TEST(what_was_not_taken_whole_is_summed_from_memory) {
    struct sums_lab lab;
    open_lab(&lab, false);
    const struct kiln_matrix *m = &lab.table->matrices[0];
    take(&lab, 0, 1, m->rows - 1, 0, m->cols);
    CHECK_EQ(taken(&lab, 0), blocks(m->rows - 64, m->cols));
    check_matrix(&lab, 0);
    kiln_gradient_sums_clear(&lab.sums);
    take(&lab, 0, 0, 63, 0, m->cols);
    CHECK_EQ(taken(&lab, 0), 0);
    take(&lab, 0, 0, m->rows, 5, m->cols - 6);
    CHECK_EQ(taken(&lab, 0), 0);
    for (uint64_t i = 0; i < 40; i++) {
        const size_t at = i % lab.table->n_matrices;
        m = &lab.table->matrices[at];
        const size_t first = below(4 * i, m->rows), from = below(4 * i + 1, m->cols);
        take(&lab, at, first, 1 + below(4 * i + 2, m->rows - first), from,
             1 + below(4 * i + 3, m->cols - from));
        check_matrix(&lab, at);
    }
    close_lab(&lab);
}

TEST(what_was_taken_is_used_until_it_is_cleared) {
    struct sums_lab lab;
    open_lab(&lab, false);
    for (size_t i = 0; i < lab.table->n_matrices; i++) {
        const struct kiln_matrix *m = &lab.table->matrices[i];
        take(&lab, i, 0, m->rows, 0, m->cols);
        const double before = rows_of(&lab, &lab.sums, i, 0);
        lab.gradients[m->offset] += 1000.0f;
        CHECK_CLOSE(rows_of(&lab, &lab.sums, i, 0), before, 0);
        CHECK(rows_of(&lab, &lab.none, i, 0) > before + 1000.0);
    }
    kiln_gradient_sums_clear(&lab.sums);
    for (size_t i = 0; i < lab.table->n_matrices; i++) {
        check_matrix(&lab, i);
    }
    close_lab(&lab);
}

/* To the classifier of a tied model the lookup's gradient is still to be added. */
TEST(a_tied_classifier_is_never_taken) {
    struct sums_lab lab;
    open_lab(&lab, true);
    const size_t head = lab.table->n_matrices - 1;
    const struct kiln_matrix *m = &lab.table->matrices[head];
    CHECK_EQ(m->kind, KILN_MATRIX_HEAD);
    take(&lab, head, 0, m->rows, 0, m->cols);
    CHECK_EQ(taken(&lab, head), 0);
    lab.gradients[m->offset] += 1000.0f;
    check_matrix(&lab, head);
    kiln_gradient_sums_take(NULL, &lab.k, 0, 0, 64, 0, 64, lab.gradients);
    close_lab(&lab);
}

/* SPDX-License-Identifier: MIT */
#include "device/gradient_sums.h"

#include <string.h>

#include "base/mem.h"

enum { BLOCK = KILN_SUM_BLOCK, STRETCH = 32 }; /* blocks that are summed from memory at a time */

static size_t across(const struct kiln_matrix *m) { return (m->cols + BLOCK - 1) / BLOCK; }
static size_t down(const struct kiln_matrix *m) { return (m->rows + BLOCK - 1) / BLOCK; }

enum kiln_status kiln_gradient_sums_open(struct kiln_gradient_sums *sums,
                                         const struct kiln_table *table, struct kiln_err *err) {
    *sums = (struct kiln_gradient_sums){.table = table};
    sums->first = kiln_alloc(table->n_matrices, sizeof *sums->first);
    for (size_t i = 0; sums->first && i < table->n_matrices; i++) {
        sums->first[i] = sums->n;
        sums->n += across(&table->matrices[i]) * down(&table->matrices[i]);
    }
    sums->sum = kiln_alloc(sums->n, sizeof *sums->sum);
    sums->done = kiln_alloc(sums->n, sizeof *sums->done);
    if (!sums->first || !sums->sum || !sums->done) {
        kiln_gradient_sums_close(sums);
        return KILN_FAIL(err, KILN_ENOMEM, "no memory for the sums of %zu matrices",
                         table->n_matrices);
    }
    return KILN_OK;
}

void kiln_gradient_sums_close(struct kiln_gradient_sums *sums) {
    kiln_free(sums->first);
    kiln_free(sums->sum);
    kiln_free(sums->done);
    *sums = (struct kiln_gradient_sums){0};
}

void kiln_gradient_sums_clear(struct kiln_gradient_sums *sums) { memset(sums->done, 0, sums->n); }

static bool is_final(const struct kiln_gradient_sums *sums, const struct kiln_matrix *m) {
    return m->kind != KILN_MATRIX_HEAD || !sums->table->dims.tied;
}

void kiln_gradient_sums_take(struct kiln_gradient_sums *sums, const struct kiln_kernels *kernels,
                             size_t matrix, size_t first, size_t rows, size_t from, size_t columns,
                             const float *gradients) {
    if (sums == NULL || !is_final(sums, &sums->table->matrices[matrix])) {
        return;
    }
    const struct kiln_matrix *m = &sums->table->matrices[matrix];
    for (size_t i = kiln_round_up(first, BLOCK); i < first + rows; i += BLOCK) {
        const size_t height = kiln_least(m->rows - i, BLOCK);
        for (size_t j = kiln_round_up(from, BLOCK); j < from + columns; j += BLOCK) {
            const size_t width = kiln_least(m->cols - j, BLOCK);
            const size_t at = sums->first[matrix] + i / BLOCK * across(m) + j / BLOCK;
            if (i + height <= first + rows && j + width <= from + columns) {
                kernels->sum_squares(&sums->sum[at], gradients + m->offset + i * m->cols + j,
                                     m->cols, height, width);
                sums->done[at] = 1;
            }
        }
    }
}

void kiln_gradient_sums_written(void *context, size_t first, size_t rows, size_t from,
                                size_t columns) {
    const struct kiln_gradient_sums_matrix *of = context;
    kiln_gradient_sums_take(of->sums, of->kernels, of->matrix, first, rows, from, columns,
                            of->gradients);
}

double kiln_gradient_sums_rows(const struct kiln_gradient_sums *sums,
                               const struct kiln_kernels *kernels, size_t matrix, size_t first,
                               size_t rows, const float *gradients) {
    const struct kiln_matrix *m = &sums->table->matrices[matrix];
    const size_t n = across(m), at = sums->first[matrix] + first / BLOCK * n;
    const bool all = memchr(sums->done + at, 0, n) == NULL;
    double total = 0.0, some[STRETCH];
    for (size_t i = 0; i < n; i += STRETCH) {
        const size_t stretch = kiln_least(n - i, STRETCH), j = i * BLOCK;
        const double *sum = sums->sum + at + i;
        if (!all) {
            kernels->sum_squares(some, gradients + m->offset + first * m->cols + j, m->cols, rows,
                                 kiln_least(m->cols - j, STRETCH * BLOCK));
            sum = some;
        }
        for (size_t k = 0; k < stretch; k++) {
            total += sum[k];
        }
    }
    return total;
}

double kiln_gradient_sum(const struct kiln_kernels *kernels, const float *gradients, size_t n) {
    double total = 0.0, some[STRETCH];
    for (size_t i = 0; i < n; i += STRETCH * BLOCK) {
        const size_t rest = kiln_least(n - i, STRETCH * BLOCK);
        kernels->sum_squares(some, gradients + i, 0, 1, rest);
        for (size_t k = 0; k * BLOCK < rest; k++) {
            total += some[k];
        }
    }
    return total;
}

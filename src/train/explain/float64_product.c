/* SPDX-License-Identifier: MIT
 *
 * float64_product.c: matrix products in double precision.
 *
 * A task makes a tile of 32 x 128 of the result. 256 terms of the sums at a time it copies its
 * operands so that the inner loop reads them one behind the other, four rows by four columns: that
 * much stays in registers. Every sum is in the order of its index, in every tile.
 */
#include <string.h>

#include "train/explain/float64_int.h"

enum { SIDE = 4, ROWS_A_TASK = 4 };

struct product {
    const struct kiln_scratch *scratch;
    size_t m, n, k, columns; /* of tiles */
    struct kiln_float64_view a, b;
    double *c;
    size_t ldc;
    bool add;
};

/* c [4, 4] += of a and b, [k][4] each. */
static inline __attribute__((always_inline)) void multiply(double c[SIDE * SIDE], const double *a,
                                                           const double *b, size_t k) {
    typedef double quad __attribute__((vector_size(SIDE * sizeof(double)), aligned(8)));
    quad sum[SIDE];
    memcpy(sum, c, sizeof sum);
    for (size_t p = 0; p < k; p++) {
        const quad right = *(const quad *)(const void *)(b + p * SIDE);
        for (int i = 0; i < SIDE; i++) {
            sum[i] += a[p * SIDE + i] * right;
        }
    }
    memcpy(c, sum, sizeof sum);
}

/* The same text for wider registers, where the processor has them: the same sums and bits, for
 * products and sums are rounded one by one (-ffp-contract=off). */
static void multiply_plain(double c[SIDE * SIDE], const double *a, const double *b, size_t k) {
    multiply(c, a, b, k);
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) static void multiply_avx2(double c[SIDE * SIDE], const double *a,
                                                          const double *b, size_t k) {
    multiply(c, a, b, k);
}
#endif

typedef void (*multiply_fn)(double c[SIDE * SIDE], const double *a, const double *b, size_t k);
static multiply_fn choose(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        return multiply_avx2;
    }
#endif
    return multiply_plain;
}

/* n rows (or columns) of a view as groups of four: [group][k][4], zeros where there is none. */
static void pack(double *to, const double *from, size_t apart, size_t step, size_t n, size_t k) {
    for (size_t first = 0; first < n; first += SIDE, to += SIDE * k) {
        for (size_t i = 0; i < SIDE; i++) {
            const double *row = from + (first + i) * apart;
            for (size_t p = 0; p < k; p++) {
                to[p * SIDE + i] = first + i < n ? row[p * step] : 0;
            }
        }
    }
}

/* One 4 x 4 of the tile, of which `rows` and `cols` are there. */
static void corner(const struct product *t, multiply_fn fn, double *c, size_t rows, size_t cols,
                   const double *a, const double *b, size_t k, bool add) {
    double sum[SIDE * SIDE] = {0};
    for (size_t i = 0; add && i < rows; i++) {
        memcpy(sum + i * SIDE, c + i * t->ldc, cols * sizeof *sum);
    }
    fn(sum, a, b, k);
    for (size_t i = 0; i < rows; i++) {
        memcpy(c + i * t->ldc, sum + i * SIDE, cols * sizeof *sum);
    }
}

static void tile(void *context, size_t task, size_t thread) {
    const struct product *t = context;
    const multiply_fn fn = choose();
    const size_t row = task / t->columns * KILN_FLOAT64_ROWS;
    const size_t col = task % t->columns * KILN_FLOAT64_COLS;
    const size_t rows = kiln_least(t->m - row, KILN_FLOAT64_ROWS);
    const size_t cols = kiln_least(t->n - col, KILN_FLOAT64_COLS);
    double *a = t->scratch->of[thread], *b = a + KILN_FLOAT64_ROWS * KILN_FLOAT64_SUM;
    for (size_t at = 0; at < t->k; at += KILN_FLOAT64_SUM) {
        const size_t k = kiln_least(t->k - at, KILN_FLOAT64_SUM);
        pack(a, t->a.at + row * t->a.row + at * t->a.col, t->a.row, t->a.col, rows, k);
        pack(b, t->b.at + at * t->b.row + col * t->b.col, t->b.col, t->b.row, cols, k);
        for (size_t j = 0; j < cols; j += SIDE) {
            for (size_t i = 0; i < rows; i += SIDE) {
                corner(t, fn, t->c + (row + i) * t->ldc + col + j, kiln_least(rows - i, SIDE),
                       kiln_least(cols - j, SIDE), a + i * k, b + j * k, k, t->add || at > 0);
            }
        }
    }
}

void kiln_float64_product(struct kiln_pool *pool, const struct kiln_scratch *scratch, size_t m,
                          size_t n, size_t k, struct kiln_float64_view a,
                          struct kiln_float64_view b, double *c, size_t ldc, bool add) {
    const size_t columns = (n + KILN_FLOAT64_COLS - 1) / KILN_FLOAT64_COLS;
    const size_t tiles = (m + KILN_FLOAT64_ROWS - 1) / KILN_FLOAT64_ROWS * columns;
    struct product t = {scratch, m, n, k, columns, a, b, c, ldc, add};
    kiln_pool_run(pool, tiles, tile, &t);
}

struct rows {
    size_t n;
    void (*fn)(void *context, size_t row);
    void *context;
};

static void some_rows(void *context, size_t task, size_t thread) {
    const struct rows *r = context;
    (void)thread;
    for (size_t i = task * ROWS_A_TASK; i < r->n && i < (task + 1) * ROWS_A_TASK; i++) {
        r->fn(r->context, i);
    }
}

void kiln_float64_rows(struct kiln_pool *pool, size_t n, void (*fn)(void *context, size_t row),
                       void *context) {
    struct rows r = {n, fn, context};
    kiln_pool_run(pool, (n + ROWS_A_TASK - 1) / ROWS_A_TASK, some_rows, &r);
}

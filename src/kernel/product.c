/* SPDX-License-Identifier: MIT */
#include "kernel/product.h"

#include <string.h>

enum kiln_status kiln_workers_open(struct kiln_workers *workers, const struct kiln_kernels *kernels,
                                   struct kiln_pool *pool, size_t scratch_bytes,
                                   struct kiln_err *err) {
    if (scratch_bytes < KILN_GEMM_SCRATCH) {
        scratch_bytes = KILN_GEMM_SCRATCH;
    }
    *workers = (struct kiln_workers){.pool = pool, .kernels = kernels};
    workers->scratch_bytes = scratch_bytes;
    KILN_TRY(kiln_scratch_open(&workers->memory, kiln_pool_threads(pool), scratch_bytes, err));
    workers->scratch = workers->memory.of;
    return KILN_OK;
}

void kiln_workers_close(struct kiln_workers *workers) {
    kiln_scratch_close(&workers->memory);
    *workers = (struct kiln_workers){0};
}

/* The block of a product that starts at (i, j), at most rows x columns, in elements. */
static struct kiln_gemm block_at(const struct kiln_kernels *kernels,
                                 const struct kiln_gemm *product, size_t i, size_t j, size_t rows,
                                 size_t columns, void *scratch) {
    struct kiln_gemm g = *product;
    size_t operand = kernels->operand_bytes, element = g.c_operand ? operand : sizeof(float);
    size_t panel = g.panel ? g.panel : kiln_panel_elements(g.k);
    g.a = (const char *)g.a + i * g.lda * operand;
    g.b = (const char *)g.b + j / KILN_PANEL * panel * operand;
    g.c = (char *)g.c + (i * g.ldc + j) * element;
    g.add = g.add ? g.add + i * g.ldadd + j : NULL;
    g.m = g.m - i < rows ? g.m - i : rows;
    g.n = g.n - j < columns ? g.n - j : columns;
    g.scratch = scratch;
    return g;
}

struct product_job {
    const struct kiln_workers *workers;
    const struct kiln_product_entry *products;
};

static size_t rows_of_blocks(const struct kiln_gemm *product) {
    return (product->m + KILN_GEMM_M - 1) / KILN_GEMM_M;
}
static size_t blocks(const struct kiln_gemm *product) {
    return rows_of_blocks(product) * ((product->n + KILN_GEMM_N - 1) / KILN_GEMM_N);
}

static void run_block(void *context, size_t task, size_t thread) {
    const struct product_job *job = context;
    const struct kiln_product_entry *product = job->products;
    for (; task >= blocks(&product->gemm); product++) {
        task -= blocks(&product->gemm);
    }
    size_t rows = rows_of_blocks(&product->gemm);
    size_t i = task % rows * KILN_GEMM_M, j = task / rows * KILN_GEMM_N;
    struct kiln_gemm g = block_at(job->workers->kernels, &product->gemm, i, j, KILN_GEMM_M,
                                  KILN_GEMM_N, job->workers->scratch[thread]);
    job->workers->kernels->gemm(&g);
    if (product->written) {
        product->written(product->context, i, g.m, j, g.n);
    }
}

/* One panel for all rows: it comes from memory for the first few and from cache for the rest. */
static void run_panel(void *context, size_t task, size_t thread) {
    const struct product_job *job = context;
    const struct kiln_gemm *product = &job->products->gemm;
    for (size_t i = 0; i < product->m; i += KILN_GEMM_FEW) {
        struct kiln_gemm g = block_at(job->workers->kernels, product, i, task * KILN_PANEL,
                                      KILN_GEMM_FEW, KILN_PANEL, job->workers->scratch[thread]);
        job->workers->kernels->gemm_own(&g);
    }
}

void kiln_product_few(const struct kiln_workers *workers, const struct kiln_gemm *product) {
    const struct kiln_product_entry entry = {.gemm = *product};
    struct product_job job = {workers, &entry};
    kiln_pool_run(workers->pool, (product->n + KILN_PANEL - 1) / KILN_PANEL, run_panel, &job);
}

void kiln_products(const struct kiln_workers *workers, const struct kiln_product_entry *products,
                   size_t n) {
    struct product_job job = {workers, products};
    size_t tasks = 0;
    for (size_t i = 0; i < n; i++) {
        tasks += blocks(&products[i].gemm);
    }
    kiln_pool_run(workers->pool, tasks, run_block, &job);
}

void kiln_product(const struct kiln_workers *workers, const struct kiln_gemm *product) {
    if (product->m <= KILN_GEMM_FEW) {
        /* Own code reads the weights as fast as memory gives them, and narrow blocks keep all
         * threads at it to the end. */
        kiln_product_few(workers, product);
        return;
    }
    kiln_products(workers, &(struct kiln_product_entry){.gemm = *product}, 1);
}

static void alone(const struct kiln_kernels *kernels, void (*gemm)(const struct kiln_gemm *),
                  const struct kiln_gemm *product, void *scratch) {
    for (size_t j = 0; j < product->n; j += KILN_GEMM_N) {
        for (size_t i = 0; i < product->m; i += KILN_GEMM_M) {
            struct kiln_gemm g =
                block_at(kernels, product, i, j, KILN_GEMM_M, KILN_GEMM_N, scratch);
            gemm(&g);
        }
    }
}

void kiln_product_alone(const struct kiln_kernels *kernels, const struct kiln_gemm *product,
                        void *scratch) {
    alone(kernels, kernels->gemm, product, scratch);
}

void kiln_product_own(const struct kiln_kernels *kernels, const struct kiln_gemm *product,
                      void *scratch) {
    alone(kernels, kernels->gemm_own, product, scratch);
}

struct rows_job {
    const struct kiln_workers *workers;
    size_t rows, chunk;
    kiln_rows_fn fn;
    void *context;
};

static void run_rows(void *context, size_t task, size_t thread) {
    const struct rows_job *job = context;
    size_t first = task * job->chunk;
    size_t rows = job->rows - first < job->chunk ? job->rows - first : job->chunk;
    job->fn(job->context, first, rows, task, job->workers->scratch[thread]);
}

void kiln_rows(const struct kiln_workers *workers, size_t rows, size_t chunk, kiln_rows_fn fn,
               void *context) {
    struct rows_job job = {workers, rows, chunk, fn, context};
    kiln_pool_run(workers->pool, (rows + chunk - 1) / chunk, run_rows, &job);
}

struct layout_job {
    const struct kiln_kernels *kernels;
    char *dst;
    const char *src;
    size_t ldd, lds, rows, cols;
};

static void pack_some(void *context, size_t first, size_t cols, size_t index, void *scratch) {
    const struct layout_job *job = context;
    size_t panel = kiln_panel_elements(job->rows), operand = job->kernels->operand_bytes;
    (void)scratch;
    job->kernels->pack_t(job->dst + index * panel * operand, panel, job->src + first * operand,
                         job->lds, job->rows, cols);
}

void kiln_pack_columns(const struct kiln_workers *workers, void *dst, const void *src, size_t ld,
                       size_t k, size_t n) {
    struct layout_job job = {workers->kernels, dst, src, 0, ld, k, n};
    kiln_rows(workers, n, KILN_PANEL, pack_some, &job);
}

static void transpose_some(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct layout_job *job = context;
    size_t operand = job->kernels->operand_bytes;
    (void)index;
    (void)scratch;
    job->kernels->transpose(job->dst + first * operand, job->ldd,
                            job->src + first * job->lds * operand, job->lds, rows, job->cols);
}

void kiln_transpose(const struct kiln_workers *workers, void *dst, size_t ldd, const void *src,
                    size_t lds, size_t rows, size_t cols) {
    struct layout_job job = {workers->kernels, dst, src, ldd, lds, rows, cols};
    kiln_rows(workers, rows, 64, transpose_some, &job);
}

size_t kiln_chunk_rows(const struct kiln_kernels *kernels, size_t n, size_t threads) {
    const size_t parts = 2 * (kernels->rows_apart ? threads : 2);
    return kiln_largest(
        kiln_least(kiln_round_up((n + parts - 1) / parts, KILN_PANEL_K), KILN_GEMM_M),
        KILN_PANEL_K);
}

void kiln_turn_rows(const struct kiln_kernels *kernels, void *turned, size_t n, const void *dy,
                    size_t width, size_t first, size_t rows) {
    kernels->transpose((char *)turned + first * kernels->operand_bytes, kiln_turned_stride(n), dy,
                       width, rows, width);
}

void kiln_pack_rows(const struct kiln_kernels *kernels, void *packed, size_t n, const void *x,
                    size_t width, size_t first, size_t rows) {
    kernels->pack_t((char *)packed + first * KILN_PANEL * kernels->operand_bytes,
                    kiln_panel_elements(n), x, width, rows, width);
}

struct kiln_gemm kiln_weight_gradient(const void *turned, const void *packed, size_t n, size_t rows,
                                      size_t cols, float *dw, bool add) {
    return (struct kiln_gemm){.m = rows,
                              .n = cols,
                              .k = n,
                              .a = turned,
                              .lda = kiln_turned_stride(n),
                              .b = packed,
                              .c = dw,
                              .ldc = cols,
                              .add = add ? dw : NULL,
                              .ldadd = cols};
}

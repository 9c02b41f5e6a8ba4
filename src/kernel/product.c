/* SPDX-License-Identifier: MIT */
#include "kernel/product.h"

#include "base/mem.h"

enum kiln_status kiln_workers_open(struct kiln_workers *workers, const struct kiln_kernels *kernels,
                                   struct kiln_pool *pool, size_t scratch_bytes,
                                   struct kiln_err *err) {
    size_t threads = kiln_pool_threads(pool);
    if (scratch_bytes < KILN_GEMM_SCRATCH) {
        scratch_bytes = KILN_GEMM_SCRATCH;
    }
    *workers = (struct kiln_workers){.pool = pool, .kernels = kernels};
    workers->scratch_bytes = scratch_bytes;
    workers->scratch = kiln_alloc(threads, sizeof *workers->scratch);
    bool ok = workers->scratch != NULL;
    for (size_t i = 0; ok && i < threads; i++) {
        workers->scratch[i] = kiln_alloc(scratch_bytes, 1);
        ok = workers->scratch[i] != NULL;
    }
    if (!ok) {
        kiln_workers_close(workers);
        return KILN_FAIL(err, KILN_ENOMEM, "no memory for %zu threads' scratch of %zu bytes",
                         threads, scratch_bytes);
    }
    return KILN_OK;
}

void kiln_workers_close(struct kiln_workers *workers) {
    for (size_t i = 0; workers->scratch && i < kiln_pool_threads(workers->pool); i++) {
        kiln_free(workers->scratch[i]);
    }
    kiln_free(workers->scratch);
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
    const struct kiln_gemm *product;
    size_t rows; /* blocks along m */
};

static void run_block(void *context, size_t task, size_t thread) {
    const struct product_job *job = context;
    size_t i = task % job->rows * KILN_GEMM_M, j = task / job->rows * KILN_GEMM_N;
    struct kiln_gemm g = block_at(job->workers->kernels, job->product, i, j, KILN_GEMM_M,
                                  KILN_GEMM_N, job->workers->scratch[thread]);
    job->workers->kernels->gemm(&g);
}

/* One panel for all rows: it comes from memory for the first few and from cache for the rest. */
static void run_panel(void *context, size_t task, size_t thread) {
    const struct product_job *job = context;
    for (size_t i = 0; i < job->product->m; i += KILN_GEMM_FEW) {
        struct kiln_gemm g = block_at(job->workers->kernels, job->product, i, task * KILN_PANEL,
                                      KILN_GEMM_FEW, KILN_PANEL, job->workers->scratch[thread]);
        job->workers->kernels->gemm_own(&g);
    }
}

void kiln_product_few(const struct kiln_workers *workers, const struct kiln_gemm *product) {
    struct product_job job = {workers, product, 0};
    kiln_pool_run(workers->pool, (product->n + KILN_PANEL - 1) / KILN_PANEL, run_panel, &job);
}

void kiln_product(const struct kiln_workers *workers, const struct kiln_gemm *product) {
    if (product->m <= KILN_GEMM_FEW) {
        /* Own code reads the weights as fast as memory gives them, and narrow blocks keep all
         * threads at it to the end. */
        kiln_product_few(workers, product);
        return;
    }
    struct product_job job = {workers, product, (product->m + KILN_GEMM_M - 1) / KILN_GEMM_M};
    size_t columns = (product->n + KILN_GEMM_N - 1) / KILN_GEMM_N;
    kiln_pool_run(workers->pool, job.rows * columns, run_block, &job);
}

void kiln_product_alone(const struct kiln_kernels *kernels, const struct kiln_gemm *product,
                        void *scratch) {
    for (size_t j = 0; j < product->n; j += KILN_GEMM_N) {
        for (size_t i = 0; i < product->m; i += KILN_GEMM_M) {
            struct kiln_gemm g =
                block_at(kernels, product, i, j, KILN_GEMM_M, KILN_GEMM_N, scratch);
            kernels->gemm_own(&g);
        }
    }
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

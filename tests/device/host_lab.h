/* SPDX-License-Identifier: MIT
 *
 * host_lab.h: what the tests of the host beside a Neural Engine share: a small model, a
 * micro-batch, gradients that hold NaN until they are written. Memory is the kernel lab's.
 */
#ifndef KILN_TESTS_HOST_LAB_H
#define KILN_TESTS_HOST_LAB_H

#include "device/host/host.h"
#include "kernel/lab.h"

struct host_bench {
    struct kiln_table *table;
    float *weights, *all, *embedding;
    struct kiln_pool *pool;
    struct kiln_host host;
    struct kiln_kernels k;
    size_t b, t, w, d, v, n; /* B, T, W, D, V, N */
    uint32_t *tokens, *targets;
    struct kiln_gradients gradients;
};

/* All but the host. */
struct host_bench host_open_bench(struct kiln_micro_batch shape, size_t threads);
/* The bench's host, in place; `classify` as its options. */
void host_open(struct host_bench *x, bool classify);
void host_close_bench(struct host_bench *x);

/* Run a check for every micro-batch on 1, 2 and 4 threads. */
void host_on_all(void (*check)(struct host_bench *x), bool classify);

/* fp32 [sequences][D][W], zero behind the tokens. */
float *host_residual(const struct host_bench *x, size_t sequences, float scale);
/* fp16 [rows][W]; what lies behind the tokens is NaN. */
uint16_t *host_halves(const struct host_bench *x, size_t rows, float scale);
double host_half(const struct host_bench *x, const uint16_t *block, size_t i);
void host_check_padding(const struct host_bench *x, const float *block, size_t rows);
void host_check_half_padding(const struct host_bench *x, const uint16_t *block, size_t rows);

#endif

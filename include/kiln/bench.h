/* SPDX-License-Identifier: MIT
 *
 * bench.h: how fast a training step is here, beside what the machine can do.
 */
#ifndef KILN_BENCH_H
#define KILN_BENCH_H

#include <stddef.h>

#include "kiln/cpu.h"
#include "kiln/model.h"
#include "kiln/status.h"

struct kiln_bench_options {
    struct kiln_dims dims;
    size_t batch, seq, accum;
    size_t steps; /* measured steps after one to warm up; 0: 3 */
    enum kiln_precision precision;
    size_t threads; /* 0: all */
};

/* Medians over the measured steps. */
struct kiln_bench_result {
    double forward_ms, backward_ms; /* of one micro-batch */
    double update_ms;               /* of one update */
    double step_ms;                 /* accum micro-batches and the update */
    double spread_ms;               /* of step_ms: largest minus smallest */
    double tokens_per_s;
    double tflops;              /* model FLOPs of a step over its time */
    double gemm_ceiling_tflops; /* best of the product kernels on random operands, all threads */
    double copy_gb_s;           /* read plus write, all threads */
    size_t peak_bytes;          /* resident */
    enum kiln_precision precision;
    size_t threads;
    const char *tier, *provider;
};

KILN_API KILN_MUST_CHECK enum kiln_status kiln_bench(const struct kiln_bench_options *options,
                                                     struct kiln_bench_result *out,
                                                     struct kiln_err *err);

#endif

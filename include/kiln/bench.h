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

#ifdef __cplusplus
extern "C" {
#endif

struct kiln_bench_options {
    struct kiln_dims dims;
    struct kiln_lora lora; /* of kiln_bench_step; rank 0: the whole model is trained */
    size_t batch, seq, accum;
    size_t steps; /* measured steps after one to warm up; 0: 3 */
    enum kiln_precision precision;
    size_t threads; /* 0: all */
};

/* A part of the step: all its layers, all micro-batches. FLOPs are the model's, bytes what must
 * pass between memory and the processor (src/plan/parts.h has the formulas). */
struct kiln_bench_part {
    const char *name;     /* "attn_fwd", as in trace.json */
    const char *title;    /* "attention forward" */
    double ms, spread_ms; /* of a step: median; largest minus smallest */
    double flops, bytes;  /* of a step */
    double gflop_s, gb_s;
    /* gflop_s over the ceiling of products, gb_s over that of memory: copying or changing in place,
     * whichever is faster. The larger of the two says what bounds the part, and how much of it is
     * used. */
    double compute_share, memory_share;
};
enum { KILN_BENCH_PARTS = 9, KILN_BENCH_PIECES = 12 };

/* A ceiling, measured in the run that it is the ceiling of. */
struct kiln_bench_ceiling {
    double before, after; /* the steps */
    double median;        /* of these and, for products, of one between any two steps */
};

/* Medians over the measured steps. */
struct kiln_bench_result {
    double forward_ms, backward_ms; /* of one micro-batch */
    double update_ms;               /* of one update, the norm included */
    double step_ms;                 /* accum micro-batches and the update */
    double spread_ms;               /* of step_ms: largest minus smallest */
    double tokens_per_s;
    double tflops; /* model FLOPs of a step over its time */
    /* TFLOP/s of the product kernels on random operands that stay in cache, all threads. */
    struct kiln_bench_ceiling products;
    double ceiling_share; /* tflops over the median of it */
    /* GB/s of copying memory and of changing it in place, read plus write, all threads. Of a step
     * that takes less memory than copying does there is none before, so that peak_bytes is the
     * step's: it is `after`. */
    struct kiln_bench_ceiling copy, in_place;
    double update_ratio; /* AdamW and packing over the bytes they must move at the rate of copying;
                          * bf16: 32 bytes a parameter. In place it may be below 1 */
    struct kiln_bench_part parts[KILN_BENCH_PARTS];
    /* What the device marks inside parts, "ffn_bwd.dw"; title NULL. Those with products have FLOPs,
     * the others bytes. ms 0: not marked. */
    struct kiln_bench_part pieces[KILN_BENCH_PIECES];
    double rest_ms;    /* of the median step: what is in no part */
    size_t peak_bytes; /* resident */
    enum kiln_precision precision;
    size_t threads;
    const char *tier, *provider;
    char cpu[80]; /* the processor's name; "unknown" */
};

KILN_API KILN_MUST_CHECK enum kiln_status kiln_bench(const struct kiln_bench_options *options,
                                                     struct kiln_bench_result *out,
                                                     struct kiln_err *err);

/* What a step takes, and nothing else: behind one to warm up, steps of random weights are taken for
 * about `seconds` (two at least, `steps` at most where that is not 0), and thrown away. On the cpu.
 * The least of them says what the machine can do, whatever else it did; the median what it does. */
struct kiln_bench_step {
    double median_s, least_s;
    size_t steps;
};
KILN_API KILN_MUST_CHECK enum kiln_status kiln_bench_step(const struct kiln_bench_options *options,
                                                          double seconds,
                                                          struct kiln_bench_step *out,
                                                          struct kiln_err *err);

#ifdef __cplusplus
}
#endif

#endif

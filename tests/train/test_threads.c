/* SPDX-License-Identifier: MIT
 *
 * Any number of threads trains to the bits of one, on every tier of this machine: chunks of tokens
 * are cut by the number of threads, and the last one may have a row or two.
 */
#include <stdlib.h>
#include <string.h>

#include "kernel/kernel.h"
#include "kiln_test.h"
#include "train/engine_lab.h"

/* The weights after two windows; the last one's loss goes behind them. The caller frees. */
static float *trained(size_t batch, size_t seq, enum kiln_precision precision, size_t threads,
                      size_t *bytes) {
    struct kiln_plan_request r = {.dims = {.dim = 96,
                                           .hidden = 100,
                                           .layers = 2,
                                           .heads = 2,
                                           .kv_heads = 1,
                                           .vocab = 300,
                                           .seq = seq,
                                           .rms_eps = 1e-5f,
                                           .rope_theta = 10000},
                                  .batch = batch,
                                  .seq = seq,
                                  .accum = 2,
                                  .threads = threads,
                                  .precision = precision,
                                  .profile = {.tflops = 0.2, .compile_s = 0.01}};
    struct engine_lab lab;
    struct kiln_err err;
    double loss = 0.0;
    CHECK_OK(kiln_dims_check(&r.dims, &err), &err);
    CHECK_OK(kiln_keep_parse("all", &r.keep, &err), &err);
    engine_lab_open(&lab, &r, 0, 0);
    CHECK_EQ(kiln_pool_threads(lab.engine.pool), threads);
    for (int i = 0; i < 2; i++) {
        loss = engine_lab_window(&lab);
        engine_lab_update(&lab, kiln_optimizer_norm(lab.engine.optimizer, 1));
    }
    *bytes = lab.table->size * sizeof(float) + sizeof loss;
    float *out = kiln_alloc(*bytes, 1);
    memcpy(out, lab.memory.weights, lab.table->size * sizeof *out);
    memcpy(out + lab.table->size, &loss, sizeof loss);
    CHECK(loss > 0);
    engine_lab_close(&lab);
    return out;
}

static void check_threads(size_t batch, size_t seq, enum kiln_precision precision) {
    size_t bytes;
    float *one = trained(batch, seq, precision, 1, &bytes);
    for (size_t threads = 2; threads <= 4; threads++) {
        float *more = trained(batch, seq, precision, threads, &bytes);
        CHECK_BYTES(more, one, bytes);
        kiln_free(more);
    }
    kiln_free(one);
}

/* 67 and 129 tokens: chunks of 32, 64, 96 and 128 end with 3 rows, 35 or 67, with 1 or 33. */
static void check_tier(const char *tier, const char *provider) {
    struct kiln_kernels kernels;
    setenv("KILN_CPU", tier, 1);
    setenv("KILN_GEMM", provider, 1);
    for (int precision = KILN_PRECISION_FP32; precision <= KILN_PRECISION_BF16; precision++) {
        if (kiln_kernels_choose((enum kiln_precision)precision, &kernels, NULL) == KILN_OK) {
            check_threads(1, 67, (enum kiln_precision)precision);
            check_threads(3, 43, (enum kiln_precision)precision);
        }
    }
}

TEST_WITHIN(threads_do_not_show_on_any_tier, 120) {
    size_t n;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    for (size_t i = 0; i < n; i++) {
        check_tier(tiers[i].name, "own");
    }
}

TEST_WITHIN(threads_do_not_show_with_products_of_onednn, 120) {
    size_t n;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    check_tier(tiers[n - 1].name, "onednn");
    check_tier(tiers[n - 2].name, "onednn");
}

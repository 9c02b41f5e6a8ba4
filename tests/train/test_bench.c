/* SPDX-License-Identifier: MIT
 *
 * test_bench.c: the parts that kiln bench tells are all of a step. No time is judged here: only
 * that what is told of the times belongs together.
 */
#include "kiln/bench.h"

#include <math.h>
#include <string.h>

#include "kiln_test.h"

static struct kiln_bench_options tiny_options(enum kiln_precision precision) {
    struct kiln_bench_options o = {.dims = {.dim = 64,
                                            .hidden = 96,
                                            .layers = 2,
                                            .heads = 4,
                                            .kv_heads = 2,
                                            .vocab = 300,
                                            .seq = 32,
                                            .tied = true,
                                            .rms_eps = 1e-5f,
                                            .rope_theta = 1e4f},
                                   .batch = 2,
                                   .seq = 32,
                                   .accum = 2,
                                   .steps = 3,
                                   .precision = precision,
                                   .threads = 2};
    struct kiln_err err;
    CHECK_OK(kiln_dims_check(&o.dims, &err), &err);
    return o;
}

static struct kiln_bench_result tiny_bench(enum kiln_precision precision) {
    const struct kiln_bench_options o = tiny_options(precision);
    struct kiln_bench_result r;
    struct kiln_err err;
    CHECK_OK(kiln_bench(&o, &r, &err), &err);
    return r;
}

/* A span that is called otherwise than its part ends bench with an error, so this also says that
 * the cpu device and the table of parts use the same names. */
TEST_ALONE(every_part_of_a_step_is_timed) {
    for (int i = 0; i < 2; i++) {
        const enum kiln_precision precision = i ? KILN_PRECISION_BF16 : KILN_PRECISION_FP32;
        const struct kiln_bench_result r = tiny_bench(precision);
        double least = 0;
        for (size_t p = 0; p < KILN_BENCH_PARTS; p++) {
            const struct kiln_bench_part *part = &r.parts[p];
            if (!(part->ms > 0 && part->bytes > 0)) {
                FAIL("%s takes %g ms and moves %g bytes", part->name, part->ms, part->bytes);
            }
            CHECK_CLOSE(part->gb_s, part->bytes / part->ms * 1e-6, 1e-9 * part->gb_s);
            CHECK_CLOSE(part->compute_share * r.products.median * 1e3, part->gflop_s,
                        1e-9 * part->gflop_s);
            CHECK_CLOSE(part->memory_share * fmax(r.copy.median, r.in_place.median), part->gb_s,
                        1e-9 * part->gb_s);
            least += part->ms - part->spread_ms;
        }
        CHECK(least <= r.step_ms + r.spread_ms); /* parts do not overlap */
        CHECK_EQ(r.precision, precision);
        CHECK(strcmp(r.cpu, "") != 0);
    }
}

TEST_ALONE(a_step_is_told_beside_ceilings_of_its_own_run) {
    const struct kiln_bench_result r = tiny_bench(KILN_PRECISION_FP32);
    CHECK(r.products.before > 0 && r.products.after > 0 && r.copy.after > 0 &&
          r.in_place.after > 0);
    CHECK(r.products.median > 0 && isfinite(r.update_ratio));
    CHECK_CLOSE(r.ceiling_share, r.tflops / r.products.median, 1e-12);
    CHECK_CLOSE(r.update_ratio * r.parts[8].gb_s / r.copy.median, 1, 1e-9);
    /* Copying takes 512 MB, which such a small model does not: it comes last. */
    CHECK(r.copy.before == 0 && r.copy.median == r.copy.after);
    CHECK(r.peak_bytes < (size_t)400 << 20);
}

/* --minutes asks what a step of the run takes, and its steps may train adapters alone. */
TEST_ALONE(steps_of_adapters_are_timed) {
    struct kiln_bench_options o = tiny_options(KILN_PRECISION_FP32);
    struct kiln_bench_step step;
    struct kiln_bench_result r;
    struct kiln_err err;
    o.lora = (struct kiln_lora){.rank = 2, .alpha = 4, .targets = KILN_LORA_ALL};
    for (int tied = 0; tied < 2; tied++) {
        o.dims.tied = tied == 1;
        CHECK_OK(kiln_bench_step(&o, 0, &step, &err), &err);
        CHECK(step.steps == 2 && step.least_s > 0);
    }
    CHECK_FAILS(kiln_bench(&o, &r, &err), KILN_EUNSUPPORTED, &err);
    o.lora.targets = 0; /* none that can be: they are looked at */
    CHECK_FAILS(kiln_bench_step(&o, 0, &step, &err), KILN_EUSAGE, &err);
}

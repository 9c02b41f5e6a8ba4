/* SPDX-License-Identifier: MIT
 *
 * probe_int.h: what the parts of a probe share: rows and figures (probe.c), programs to measure
 * with (probe_program.c), what is asked of a Neural Engine (probe_npu.c).
 */
#ifndef KILN_PLAN_PROBE_INT_H
#define KILN_PLAN_PROBE_INT_H

#include "base/pool.h"
#include "device/ane/runtime.h"
#include "kiln/probe.h"

/* ---- rows (probe.c) -------------------------------------------------------------------------- */

struct kiln_probe_row *kiln_probe_add(struct kiln_probe *probe, const char *name,
                                      const char *value);
void kiln_probe_how(struct kiln_probe_row *row, const char *fmt, ...) KILN_PRINTF(2, 3);
/* A figure of the profile, by its name, and a row of it. */
void kiln_probe_figure(struct kiln_probe *probe, const char *name, double value, const char *fmt,
                       ...) KILN_PRINTF(4, 5);
void kiln_probe_doing(const struct kiln_probe_options *options, const char *doing);
double kiln_probe_median(double *values, size_t n); /* sorts them */

/* ---- programs (probe_program.c) ---------------------------------------------------------------
 */

/* `depth` 1x1 convolutions of C to C channels one behind the other, over `width` tokens, with one
 * matrix of random weights for all of them; their sizes keep numbers near 1. */
struct kiln_probe_program {
    size_t channels, width, depth;
    double flop;
    size_t weight_bytes; /* of its file */
    double compile_s, load_s;
    struct kiln_npu_program *program; /* loaded */
    struct kiln_npu_surface *in, *out;
    size_t binding;
};
/* Weights of a seed: other numbers for other seeds. On success kiln_probe_weights_free. */
KILN_MUST_CHECK enum kiln_status kiln_probe_weights(size_t channels, uint64_t seed,
                                                    struct kiln_npu_weight *out,
                                                    struct kiln_err *err);
void kiln_probe_weights_free(struct kiln_npu_weight *weights);
/* The text of such a program, unlike any other of this process. kiln_free it. */
KILN_MUST_CHECK enum kiln_status kiln_probe_text(size_t channels, size_t width, size_t depth,
                                                 char **text, size_t *bytes, struct kiln_err *err);
/* Compile, load and bind one; sets the sizes and times of *out. On success kiln_probe_close. */
KILN_MUST_CHECK enum kiln_status kiln_probe_open(struct kiln_npu_runtime *runtime, size_t channels,
                                                 size_t width, size_t depth, uint64_t seed,
                                                 struct kiln_probe_program *out,
                                                 struct kiln_err *err);
void kiln_probe_close(struct kiln_npu_runtime *runtime, struct kiln_probe_program *program);
/* Median seconds of an evaluation: some tens of them, a tenth of a second at most. */
KILN_MUST_CHECK enum kiln_status kiln_probe_evaluate(struct kiln_npu_runtime *runtime,
                                                     struct kiln_probe_program *program,
                                                     double *seconds, struct kiln_err *err);

/* ---- a Neural Engine (probe_npu.c) -------------------------------------------------------------
 */

KILN_MUST_CHECK enum kiln_status kiln_probe_open_runtime(const struct kiln_device_choice *device,
                                                         struct kiln_pool *pool,
                                                         struct kiln_npu_runtime **out,
                                                         struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_probe_npu(const struct kiln_probe_options *options,
                                                struct kiln_npu_runtime *runtime,
                                                struct kiln_probe *out, struct kiln_err *err);

#endif

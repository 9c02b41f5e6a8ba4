/* SPDX-License-Identifier: MIT
 *
 * probe_program.c: programs that a probe compiles and runs: stacks of 1x1 convolutions.
 */
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "base/random.h"
#include "device/ane/programs.h"
#include "device/mil/blob.h"
#include "device/mil/text.h"
#include "kernel/kernel.h"
#include "plan/probe_int.h"

/* ---- text and weights ------------------------------------------------------------------------ */

enum kiln_status kiln_probe_weights(size_t channels, uint64_t seed, struct kiln_npu_weight *out,
                                    struct kiln_err *err) {
    const size_t elements = channels * channels;
    out->bytes = kiln_blob_bytes(elements);
    out->data = kiln_alloc(out->bytes, 1);
    KILN_REQUIRE(out->data, err, KILN_ENOMEM, "probe: no memory for weights of %zu bytes",
                 out->bytes);
    snprintf(out->name, sizeof out->name, "w.bin");
    uint16_t *to = kiln_blob_begin(out->data, elements);
    const double scale = 1 / sqrt((double)channels);
    for (size_t i = 0; i < elements; i++) {
        to[i] = kiln_f32_to_f16((float)(scale * kiln_random_normal(seed, KILN_STREAM_TEST, i)));
    }
    return KILN_OK;
}

void kiln_probe_weights_free(struct kiln_npu_weight *weights) { kiln_free(weights->data); }

enum kiln_status kiln_probe_text(size_t channels, size_t width, size_t depth, char **text,
                                 size_t *bytes, struct kiln_err *err) {
    static _Atomic uint64_t serial = UINT64_C(1) << 40; /* trained programs count from 1 */
    struct kiln_mil_text mil = {.data = NULL};
    kiln_mil_text_open(&mil, "1.3", "ios18", atomic_fetch_add(&serial, 1));
    struct kiln_mil_ref x = kiln_mil_put_input(&mil, "x", (size_t[4]){1, channels, 1, width});
    const struct kiln_mil_ref w =
        kiln_mil_put_file(&mil, "w", (size_t[4]){channels, channels, 1, 1});
    for (size_t i = 0; i < depth; i++) {
        char name[24];
        snprintf(name, sizeof name, "y%zu", i);
        x = kiln_mil_put_conv(&mil, name, x, w);
    }
    KILN_TRY(kiln_mil_text_close(&mil, x, err));
    *text = mil.data;
    *bytes = mil.size;
    return KILN_OK;
}

/* ---- a program ---------------------------------------------------------------------------------
 */

static enum kiln_status fill_surface(struct kiln_npu_runtime *runtime,
                                     struct kiln_npu_surface *surface, size_t elements,
                                     struct kiln_err *err) {
    uint16_t *at = runtime->ops->lock(runtime, surface, false, err);
    if (at == NULL) {
        return KILN_EDEVICE;
    }
    for (size_t i = 0; i < elements; i++) {
        at[i] = kiln_f32_to_f16((float)kiln_random_normal(7, KILN_STREAM_TEST, i));
    }
    return runtime->ops->unlock(runtime, surface, false, err);
}

static enum kiln_status compile(struct kiln_npu_runtime *runtime,
                                const struct kiln_npu_weight *weights, struct kiln_probe_program *p,
                                struct kiln_err *err) {
    char *text = NULL;
    size_t bytes = 0;
    KILN_TRY(kiln_probe_text(p->channels, p->width, p->depth, &text, &bytes, err));
    const struct kiln_npu_source source = {
        .label = "probe", .text = text, .bytes = bytes, .weights = weights, .n_weights = 1};
    const double start = kiln_now_s();
    const enum kiln_status status = runtime->ops->compile(runtime, &source, &p->program, err);
    p->compile_s = kiln_now_s() - start;
    kiln_free(text);
    return status;
}

static enum kiln_status make(struct kiln_npu_runtime *runtime, const struct kiln_npu_weight *w,
                             struct kiln_probe_program *p, struct kiln_err *err) {
    const size_t elements = p->channels * p->width;
    const size_t bytes = elements * 2 < KILN_NPU_SURFACE ? (size_t)KILN_NPU_SURFACE : elements * 2;
    KILN_TRY(runtime->ops->surface_open(runtime, bytes, &p->in, err));
    KILN_TRY(runtime->ops->surface_open(runtime, bytes, &p->out, err));
    KILN_TRY(fill_surface(runtime, p->in, elements, err));
    KILN_TRY(compile(runtime, w, p, err));
    const double start = kiln_now_s();
    KILN_TRY(runtime->ops->load(runtime, p->program, err));
    p->load_s = kiln_now_s() - start;
    return runtime->ops->bind(runtime, p->program, &p->in, 1, &p->out, 1, &p->binding, err);
}

enum kiln_status kiln_probe_open(struct kiln_npu_runtime *runtime, size_t channels, size_t width,
                                 size_t depth, uint64_t seed, struct kiln_probe_program *out,
                                 struct kiln_err *err) {
    struct kiln_npu_weight weights;
    *out = (struct kiln_probe_program){.channels = channels, .width = width, .depth = depth};
    KILN_TRY(kiln_probe_weights(channels, seed, &weights, err));
    out->flop = 2.0 * (double)(channels * channels) * (double)(width * depth);
    out->weight_bytes = weights.bytes;
    const enum kiln_status status = make(runtime, &weights, out, err);
    kiln_probe_weights_free(&weights);
    if (status != KILN_OK) {
        kiln_probe_close(runtime, out);
    }
    return status;
}

void kiln_probe_close(struct kiln_npu_runtime *runtime, struct kiln_probe_program *p) {
    if (p->program != NULL) {
        runtime->ops->release(runtime, p->program);
    }
    if (p->in != NULL) {
        runtime->ops->surface_close(runtime, p->in);
    }
    if (p->out != NULL) {
        runtime->ops->surface_close(runtime, p->out);
    }
    *p = (struct kiln_probe_program){.channels = 0};
}

enum kiln_status kiln_probe_evaluate(struct kiln_npu_runtime *runtime, struct kiln_probe_program *p,
                                     double *seconds, struct kiln_err *err) {
    double times[50];
    size_t n = 0;
    KILN_TRY(runtime->ops->evaluate(runtime, p->program, p->binding, err)); /* the first is slow */
    const double begin = kiln_now_s();
    while (n < sizeof times / sizeof times[0] && (n < 3 || kiln_now_s() - begin < 0.1)) {
        const double start = kiln_now_s();
        KILN_TRY(runtime->ops->evaluate(runtime, p->program, p->binding, err));
        times[n++] = kiln_now_s() - start;
    }
    *seconds = kiln_probe_median(times, n);
    return KILN_OK;
}

/* SPDX-License-Identifier: MIT
 *
 * self_test.c: see self_test.h. The program has a matrix and a vector in files of their own, as
 * those of a layer do, so that a reload is proved for both. Its surfaces are above the smallest.
 */
#include "device/ane/self_test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/blob.h"
#include "device/mil/half.h"

enum { C = 64, W = 512, SURFACE = C * W * 2 };
/* Norm of the difference over the norm: fp16 rounds to 5e-4, sums in fp16 lose ten times that. */
#define WORST 1e-2

static const char text[] =
    "program(1.3)\n"
    "[buildInfo = dict<string, string>({{\"coremlc-component-MIL\", \"3510.2.1\"}, "
    "{\"coremlc-version\", \"3505.4.1\"}, {\"coremltools-component-milinternal\", \"\"}, "
    "{\"coremltools-version\", \"9.0\"}})]\n"
    "{\n"
    "    func main<ios18>(tensor<fp16, [1, 64, 1, 512]> x) {\n"
    "        string pt = const()[name = string(\"pt\"), val = string(\"valid\")];\n"
    "        tensor<int32, [2]> st = const()[name = string(\"st\"), "
    "val = tensor<int32, [2]>([1, 1])];\n"
    "        tensor<int32, [4]> pd = const()[name = string(\"pd\"), "
    "val = tensor<int32, [4]>([0, 0, 0, 0])];\n"
    "        tensor<int32, [2]> dl = const()[name = string(\"dl\"), "
    "val = tensor<int32, [2]>([1, 1])];\n"
    "        int32 gr = const()[name = string(\"gr\"), val = int32(1)];\n"
    "        tensor<fp16, [64, 64, 1, 1]> w = const()[name = string(\"w\"), "
    "val = tensor<fp16, [64, 64, 1, 1]>(BLOBFILE("
    "path = string(\"@model_path/weights/w.bin\"), offset = uint64(64)))];\n"
    "        tensor<fp16, [1, 64, 1, 1]> b = const()[name = string(\"b\"), "
    "val = tensor<fp16, [1, 64, 1, 1]>(BLOBFILE("
    "path = string(\"@model_path/weights/b.bin\"), offset = uint64(64)))];\n"
    "        tensor<fp16, [1, 64, 1, 512]> c = conv(dilations = dl, groups = gr, pad = pd, "
    "pad_type = pt, strides = st, weight = w, x = x)[name = string(\"c\")];\n"
    "        tensor<fp16, [1, 64, 1, 512]> y = add(x = c, y = b)[name = string(\"y\")];\n"
    "    } -> (y);\n"
    "}\n";

/* Everything that the test holds; blobs and x are cut from one block. */
struct self_test {
    struct kiln_npu_runtime *runtime;
    struct kiln_npu_weight first[2], second[2]; /* w.bin, b.bin */
    uint16_t *x;
    struct kiln_npu_program *program;
    struct kiln_npu_surface *in, *out;
    size_t binding;
    void *memory;
};

/* ---- numbers --------------------------------------------------------------------------------- */

static void fill(uint16_t *to, size_t n, uint64_t *at) {
    for (size_t i = 0; i < n; i++) {
        *at = *at * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        to[i] = kiln_f32_to_f16((float)(int32_t)(*at >> 32) * 0x1p-31f);
    }
}

static void *make_weights(struct kiln_npu_weight weights[2], void *memory, uint64_t *seed) {
    static const char *const names[2] = {"w.bin", "b.bin"};
    const size_t elements[2] = {(size_t)C * C, C};
    for (int i = 0; i < 2; i++) {
        snprintf(weights[i].name, sizeof weights[i].name, "%s", names[i]);
        weights[i].data = memory;
        weights[i].bytes = kiln_blob_bytes(elements[i]);
        fill(kiln_blob_begin(memory, elements[i]), elements[i], seed);
        memory = (char *)memory + weights[i].bytes;
    }
    return memory;
}

static const uint16_t *payload(const struct kiln_npu_weight *weight) {
    const char *data = weight->data;
    return (const uint16_t *)(const void *)(data + KILN_BLOB_HEADER + KILN_BLOB_DESCRIPTOR);
}

/* Norm of the difference between `got` and what these weights make of x, over the norm of that. */
static double distance(const struct self_test *test, const struct kiln_npu_weight weights[2],
                       const uint16_t *got) {
    const uint16_t *w = payload(&weights[0]), *b = payload(&weights[1]);
    double difference = 0.0, norm = 0.0;
    for (size_t o = 0; o < C; o++) {
        double sum[W];
        for (size_t t = 0; t < W; t++) {
            sum[t] = (double)kiln_f16_to_f32(b[o]);
        }
        for (size_t i = 0; i < C; i++) {
            const double factor = (double)kiln_f16_to_f32(w[o * C + i]);
            for (size_t t = 0; t < W; t++) {
                sum[t] += factor * (double)kiln_f16_to_f32(test->x[i * W + t]);
            }
        }
        for (size_t t = 0; t < W; t++) {
            const double d = (double)kiln_f16_to_f32(got[o * W + t]) - sum[t];
            difference += d * d;
            norm += sum[t] * sum[t];
        }
    }
    return sqrt(difference / norm);
}

/* ---- the runtime ----------------------------------------------------------------------------- */

static enum kiln_status prepare(struct self_test *test, struct kiln_err *err) {
    struct kiln_npu_runtime *runtime = test->runtime;
    const size_t blobs = kiln_blob_bytes((size_t)C * C) + kiln_blob_bytes(C);
    uint64_t seed = 20;
    test->memory = kiln_alloc(1, 2 * blobs + SURFACE);
    KILN_REQUIRE(test->memory, err, KILN_ENOMEM, "%s: self-test: no memory", runtime->name);
    test->x = make_weights(test->second, make_weights(test->first, test->memory, &seed), &seed);
    fill(test->x, (size_t)C * W, &seed);
    const struct kiln_npu_source source = {
        .label = "self-test",
        .text = text,
        .bytes = sizeof text - 1,
        .weights = test->first,
        .n_weights = 2,
    };
    KILN_TRY(runtime->ops->surface_open(runtime, SURFACE, &test->in, err));
    KILN_TRY(runtime->ops->surface_open(runtime, SURFACE, &test->out, err));
    void *x = runtime->ops->lock(runtime, test->in, false, err);
    if (!x) {
        return err->code;
    }
    memcpy(x, test->x, SURFACE);
    KILN_TRY(runtime->ops->unlock(runtime, test->in, false, err));
    KILN_TRY(runtime->ops->compile(runtime, &source, &test->program, err));
    KILN_TRY(runtime->ops->load(runtime, test->program, err));
    return runtime->ops->bind(runtime, test->program, &test->in, 1, &test->out, 1, &test->binding,
                              err);
}

/* Evaluate; how far is it from what these weights give? */
static enum kiln_status evaluate(struct self_test *test, const struct kiln_npu_weight weights[2],
                                 double *out, struct kiln_err *err) {
    struct kiln_npu_runtime *runtime = test->runtime;
    KILN_TRY(runtime->ops->evaluate(runtime, test->program, test->binding, err));
    const void *y = runtime->ops->lock(runtime, test->out, true, err);
    if (!y) {
        return err->code;
    }
    *out = distance(test, weights, y);
    return runtime->ops->unlock(runtime, test->out, true, err);
}

static enum kiln_status run(struct self_test *test, struct kiln_err *err) {
    struct kiln_npu_runtime *runtime = test->runtime;
    double error = HUGE_VAL;
    KILN_TRY(prepare(test, err));
    KILN_TRY(evaluate(test, test->first, &error, err));
    KILN_REQUIRE(error <= WORST, err, KILN_EUNSUPPORTED,
                 "%s: self-test: a 64 x 64 convolution is off by %.3g of its norm, allowed %.3g: "
                 "this device or system computes something else; use --device cpu",
                 runtime->name, error, WORST);
    /* From here on a failure is an answer: reload is not used. */
    struct kiln_err why;
    runtime->reloads =
        runtime->ops->reload &&
        runtime->ops->reload(runtime, test->program, test->second, 2, &why) == KILN_OK &&
        evaluate(test, test->second, &error, &why) == KILN_OK && error <= WORST;
    return KILN_OK;
}

enum kiln_status kiln_npu_self_test(struct kiln_npu_runtime *runtime, struct kiln_err *err) {
    struct self_test test = {.runtime = runtime};
    struct kiln_err own;
    const enum kiln_status status = run(&test, err ? err : &own);
    if (test.program) {
        runtime->ops->release(runtime, test.program);
    }
    if (test.in) {
        runtime->ops->surface_close(runtime, test.in);
    }
    if (test.out) {
        runtime->ops->surface_close(runtime, test.out);
    }
    kiln_free(test.memory);
    return status;
}

/* SPDX-License-Identifier: MIT
 *
 * fake_backend.c: what the fake classes compute with: a stand-in that knows a 1x1 convolution with
 * a bias, that of self_test.c, whatever the text says.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "device/fake_int.h"
#include "device/mil/half.h"

enum { C = 64, W = 512, BEGIN = 64 /* of a blob's payload, in elements */ };

struct kiln_npu_surface {
    size_t bytes;
    void *data;
};
struct kiln_npu_program {
    uint16_t *w, *b;
    struct kiln_npu_surface *in[8], *out[8];
    size_t bindings;
};

static enum kiln_status compile(struct kiln_npu_runtime *runtime,
                                const struct kiln_npu_source *source, struct kiln_npu_program **out,
                                struct kiln_err *err) {
    (void)runtime;
    KILN_REQUIRE(source->n_weights == 2, err, KILN_EINPUT, "not the self-test's program");
    *out = kiln_alloc(1, sizeof **out);
    for (size_t i = 0; i < 2; i++) {
        const struct kiln_npu_weight *weight = &source->weights[i];
        uint16_t *copy = kiln_alloc(1, weight->bytes);
        memcpy(copy, weight->data, weight->bytes);
        *(weight->name[0] == 'w' ? &(*out)->w : &(*out)->b) = copy;
    }
    return KILN_OK;
}

static enum kiln_status load(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                             struct kiln_err *err) {
    (void)runtime;
    (void)program;
    (void)err;
    return KILN_OK;
}

static enum kiln_status bind(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                             struct kiln_npu_surface *const *inputs, size_t n_inputs,
                             struct kiln_npu_surface *const *outputs, size_t n_outputs,
                             size_t *binding, struct kiln_err *err) {
    (void)runtime;
    KILN_REQUIRE(n_inputs == 1 && n_outputs == 1, err, KILN_EINPUT, "not one input and output");
    *binding = program->bindings++;
    program->in[*binding] = inputs[0];
    program->out[*binding] = outputs[0];
    return KILN_OK;
}

static enum kiln_status evaluate(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                                 size_t binding, struct kiln_err *err) {
    (void)runtime;
    (void)err;
    const uint16_t *x = program->in[binding]->data, *w = program->w + BEGIN,
                   *b = program->b + BEGIN;
    uint16_t *y = program->out[binding]->data;
    for (size_t o = 0; o < C; o++) {
        for (size_t t = 0; t < W; t++) {
            float sum = kiln_fp16_to_f32(b[o]);
            for (size_t i = 0; i < C; i++) {
                sum += kiln_fp16_to_f32(w[o * C + i]) * kiln_fp16_to_f32(x[i * W + t]);
            }
            y[o * W + t] = kiln_f32_to_fp16(sum);
        }
    }
    return KILN_OK;
}

static void release(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program) {
    (void)runtime;
    kiln_free(program->w);
    kiln_free(program->b);
    kiln_free(program);
}

static enum kiln_status surface_open(struct kiln_npu_runtime *runtime, size_t bytes,
                                     struct kiln_npu_surface **out, struct kiln_err *err) {
    (void)runtime;
    (void)err;
    *out = kiln_alloc(1, sizeof **out);
    (*out)->bytes = bytes;
    (*out)->data = kiln_alloc(1, bytes);
    return KILN_OK;
}

static void surface_close(struct kiln_npu_runtime *runtime, struct kiln_npu_surface *surface) {
    (void)runtime;
    kiln_free(surface->data);
    kiln_free(surface);
}

static void *lock(struct kiln_npu_runtime *runtime, struct kiln_npu_surface *surface,
                  bool read_only, struct kiln_err *err) {
    (void)runtime;
    (void)read_only;
    (void)err;
    return surface->data;
}

static enum kiln_status unlock(struct kiln_npu_runtime *runtime, struct kiln_npu_surface *surface,
                               bool read_only, struct kiln_err *err) {
    (void)runtime;
    (void)surface;
    (void)read_only;
    (void)err;
    return KILN_OK;
}

enum kiln_status fake_backend_open(struct kiln_npu_runtime **out, struct kiln_err *err) {
    static const struct kiln_npu_runtime_ops ops = {
        .compile = compile,
        .load = load,
        .bind = bind,
        .evaluate = evaluate,
        .release = release,
        .surface_open = surface_open,
        .surface_close = surface_close,
        .lock = lock,
        .unlock = unlock,
    };
    static struct kiln_npu_runtime runtime = {.ops = &ops, .name = "stand-in"};
    (void)err;
    *out = &runtime;
    return KILN_OK;
}

/* SPDX-License-Identifier: MIT
 *
 * The simulator as a runtime (src/device/sim/sim.h): surfaces, bindings, budgets, reloads, time.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/mem.h"
#include "device/mil/blob.h"
#include "device/sim_lab.h"
#include "kernel/kernel.h"

#define WIDTH 16
#define TWO                                                            \
    MIL_CALL("tensor<fp16, [1,1,1,16]> a, tensor<fp16, [1,1,1,16]> b", \
             "tensor<fp16, [1,1,1,16]> y = sub(x = a, y = b)[name = string(\"y\")];\n", "y")
#define WEIGHED                                                                               \
    MIL_CALL("tensor<fp16, [1,1,1,16]> x",                                                    \
             "tensor<fp16, [1,1,1,1]> w = const()[name = string(\"w\"), val = tensor<fp16, "  \
             "[1,1,1,1]>(BLOBFILE(path = string(\"@model_path/weights/w.bin\"), offset = "    \
             "uint64(64)))];\n"                                                               \
             "tensor<fp16, [1,1,1,16]> y = conv(x = x, weight = w)[name = string(\"y\")];\n", \
             "y")

/* A simulator with its pool. */
struct bench {
    struct kiln_pool *pool;
    struct kiln_npu_runtime *runtime;
    struct kiln_sim_options options;
};

static void open_bench(struct bench *b) {
    struct kiln_err err;
    CHECK_OK(kiln_pool_create(2, &b->pool, &err), &err);
    CHECK_OK(kiln_sim_open(b->pool, &b->options, &b->runtime, &err), &err);
}

static void close_bench(struct bench *b) {
    b->runtime->ops->close(b->runtime);
    kiln_pool_destroy(b->pool);
}

static struct kiln_npu_source source_of(const char *text) {
    return (struct kiln_npu_source){.label = "a test", .text = text, .bytes = strlen(text)};
}

static struct kiln_npu_program *compiled(struct bench *b, const char *text) {
    struct kiln_npu_program *program;
    struct kiln_npu_source source = source_of(text);
    struct kiln_err err;
    CHECK_OK(b->runtime->ops->compile(b->runtime, &source, &program, &err), &err);
    return program;
}

static struct kiln_npu_surface *surface(struct bench *b, size_t bytes, float first) {
    struct kiln_npu_surface *surface;
    struct kiln_err err;
    CHECK_OK(b->runtime->ops->surface_open(b->runtime, bytes, &surface, &err), &err);
    uint16_t *data = b->runtime->ops->lock(b->runtime, surface, false, &err);
    memset(data, 0xff, bytes); /* NaN behind the tensor: nobody may read it */
    for (size_t i = 0; i < WIDTH; i++) {
        data[i] = kiln_f32_to_f16(first + (float)i);
    }
    CHECK_OK(b->runtime->ops->unlock(b->runtime, surface, false, &err), &err);
    return surface;
}

static float at(struct bench *b, struct kiln_npu_surface *surface, size_t i) {
    struct kiln_err err;
    const uint16_t *data = b->runtime->ops->lock(b->runtime, surface, true, &err);
    float x = kiln_f16_to_f32(data[i]);
    CHECK_OK(b->runtime->ops->unlock(b->runtime, surface, true, &err), &err);
    return x;
}

/* Two bindings of one program: each computes on its own surfaces, packed from byte 0, and leaves
 * what lies behind the tensor alone. */
TEST(sim_a_program_runs_on_the_surfaces_of_a_binding) {
    struct bench b = {0};
    kiln_sim_options_default(&b.options);
    open_bench(&b);
    const struct kiln_npu_runtime_ops *ops = b.runtime->ops;
    struct kiln_npu_program *program = compiled(&b, TWO);
    struct kiln_npu_surface *in[3], *out[2];
    struct kiln_err err;
    size_t binding[2];
    for (size_t i = 0; i < 3; i++) {
        in[i] = surface(&b, 65536, 100.0f * (float)i);
    }
    out[0] = surface(&b, 49152, 0.0f);
    out[1] = surface(&b, 49152, 0.0f);
    CHECK_OK(ops->load(b.runtime, program, &err), &err);
    CHECK_EQ(b.runtime->loaded, 1);
    CHECK_OK(ops->bind(b.runtime, program, in, 2, out, 1, &binding[0], &err), &err);
    CHECK_OK(ops->bind(b.runtime, program, in + 1, 2, out + 1, 1, &binding[1], &err), &err);
    CHECK(binding[0] == 0 && binding[1] == 1);
    struct kiln_npu_surface *turned[2] = {in[2], in[0]};
    CHECK_OK(ops->bind(b.runtime, program, turned, 2, out, 1, &binding[0], &err), &err);
    CHECK_OK(ops->evaluate(b.runtime, program, 1, &err), &err);
    CHECK(at(&b, out[0], 3) == 3.0f && at(&b, out[1], 3) == -100.0f);
    CHECK_OK(ops->evaluate(b.runtime, program, 0, &err), &err);
    CHECK(at(&b, out[0], 3) == -100.0f);
    CHECK_OK(ops->evaluate(b.runtime, program, 2, &err), &err);
    CHECK(at(&b, out[0], 15) == 200.0f);
    float behind = at(&b, out[0], WIDTH);
    CHECK(behind != behind); /* NOLINT(misc-redundant-expression): still NaN */
    CHECK_FAILS(ops->evaluate(b.runtime, program, 3, &err), KILN_EDEVICE, &err);
    CHECK_CONTAINS(err.message, "binding 3 of 3");
    ops->release(b.runtime, program);
    CHECK_EQ(b.runtime->loaded, 0);
    for (size_t i = 0; i < 3; i++) {
        ops->surface_close(b.runtime, in[i]);
    }
    ops->surface_close(b.runtime, out[0]);
    ops->surface_close(b.runtime, out[1]);
    close_bench(&b);
}

TEST(sim_refuses_surfaces_that_do_not_fit) {
    struct bench b = {0};
    kiln_sim_options_default(&b.options);
    open_bench(&b);
    const struct kiln_npu_runtime_ops *ops = b.runtime->ops;
    struct kiln_npu_program *program = compiled(&b, TWO);
    struct kiln_npu_surface *in[2] = {surface(&b, 49152, 0), surface(&b, 49152, 0)};
    struct kiln_npu_surface *small[2] = {surface(&b, 32, 0), surface(&b, 65536, 0)};
    struct kiln_err err;
    size_t binding;
    CHECK_FAILS(ops->bind(b.runtime, program, in, 2, in, 1, &binding, &err), KILN_EDEVICE, &err);
    CHECK_CONTAINS(err.message, "not loaded");
    CHECK_OK(ops->load(b.runtime, program, &err), &err);
    CHECK_FAILS(ops->load(b.runtime, program, &err), KILN_EDEVICE, &err);
    CHECK_FAILS(ops->bind(b.runtime, program, in, 1, in, 1, &binding, &err), KILN_EINPUT, &err);
    CHECK_FAILS(ops->bind(b.runtime, program, in, 2, small, 1, &binding, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "smallest-surface");
    struct kiln_npu_surface *unequal[2] = {in[0], small[1]};
    CHECK_FAILS(ops->bind(b.runtime, program, unequal, 2, in, 1, &binding, &err), KILN_EINPUT,
                &err);
    CHECK_CONTAINS(err.message, "equal-surfaces");
    CHECK_FAILS(ops->evaluate(b.runtime, program, 0, &err), KILN_EDEVICE, &err);
    CHECK_FAILS(ops->unlock(b.runtime, in[0], true, &err), KILN_EDEVICE, &err);
    ops->release(b.runtime, program);
    for (size_t i = 0; i < 2; i++) {
        ops->surface_close(b.runtime, in[i]);
        ops->surface_close(b.runtime, small[i]);
    }
    close_bench(&b);
}

/* ---- budgets -------------------------------------------------------------------------------- */

/* Programs of a budget of 3; exits with their number when the next is refused. */
static size_t compile_to_the_end(struct bench *b, struct kiln_npu_program **programs, size_t most) {
    struct kiln_npu_source source = source_of(TWO);
    struct kiln_err err;
    size_t n = 0;
    enum kiln_status status = KILN_OK;
    while (n < most && status == KILN_OK) {
        status = b->runtime->ops->compile(b->runtime, &source, &programs[n], &err);
        n += status == KILN_OK;
    }
    if (status != KILN_OK) {
        CHECK_EQ(status, KILN_EBUDGET);
        CHECK_CONTAINS(err.message, "compile-budget");
    }
    return n;
}

TEST(sim_compiles_are_counted_for_the_process) {
    struct bench b = {0}, other = {0};
    struct kiln_npu_program *programs[8];
    kiln_sim_options_default(&b.options);
    b.options.limits.value[KILN_SIM_COMPILE_BUDGET] = 3;
    other.options = b.options;
    open_bench(&b);
    open_bench(&other);
    const char *wrong = "program(1.3)";
    struct kiln_npu_source bad = source_of(wrong);
    struct kiln_err err;
    CHECK_FAILS(b.runtime->ops->compile(b.runtime, &bad, &programs[0], &err), KILN_EINPUT, &err);
    CHECK(programs[0] == NULL);
    CHECK_EQ(compile_to_the_end(&b, programs, 2), 2);
    CHECK_EQ(compile_to_the_end(&other, programs + 2, 8 - 2), 1); /* one budget for both */
    CHECK_EQ(b.runtime->compiles, 2);
    CHECK_EQ(other.runtime->compiles, 1);
    for (size_t i = 0; i < 2; i++) {
        b.runtime->ops->release(b.runtime, programs[i]);
    }
    other.runtime->ops->release(other.runtime, programs[2]);
    CHECK_EQ(compile_to_the_end(&b, programs, 8), 0); /* releasing gives no compile back */
    pid_t child = fork();
    if (child == 0) {
        _exit((int)compile_to_the_end(&b, programs, 8));
    }
    int status = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 3); /* a new process has it all */
    close_bench(&b);
    close_bench(&other);
}

TEST(sim_loads_are_counted_while_they_last) {
    struct bench b = {0};
    kiln_sim_options_default(&b.options);
    b.options.limits.value[KILN_SIM_LOAD_BUDGET] = 2;
    open_bench(&b);
    const struct kiln_npu_runtime_ops *ops = b.runtime->ops;
    struct kiln_npu_program *p[3] = {compiled(&b, TWO), compiled(&b, TWO), compiled(&b, TWO)};
    struct kiln_err err;
    CHECK_OK(ops->load(b.runtime, p[0], &err), &err);
    CHECK_OK(ops->load(b.runtime, p[1], &err), &err);
    CHECK_FAILS(ops->load(b.runtime, p[2], &err), KILN_EBUDGET, &err);
    CHECK_CONTAINS(err.message, "load-budget");
    CHECK_EQ(b.runtime->loaded, 2);
    ops->release(b.runtime, p[0]);
    CHECK_OK(ops->load(b.runtime, p[2], &err), &err);
    ops->release(b.runtime, p[1]);
    ops->release(b.runtime, p[2]);
    close_bench(&b);
}

/* ---- weights -------------------------------------------------------------------------------- */

static struct kiln_npu_weight weight_of(float value) {
    struct kiln_npu_weight weight = {.name = "w.bin", .bytes = kiln_blob_bytes(1)};
    weight.data = kiln_alloc(weight.bytes, 1);
    *kiln_blob_begin(weight.data, 1) = kiln_f32_to_f16(value);
    return weight;
}

/* Give the program the weight 3 in place of 2; what does 5 times the weight give? */
static float reloaded(bool visible) {
    struct bench b = {0};
    kiln_sim_options_default(&b.options);
    b.options.reload_is_visible = visible;
    open_bench(&b);
    CHECK_EQ(b.runtime->reloads, visible);
    const struct kiln_npu_runtime_ops *ops = b.runtime->ops;
    struct kiln_npu_weight two = weight_of(2.0f), three = weight_of(3.0f), wrong = weight_of(9.0f);
    struct kiln_npu_source source = source_of(WEIGHED);
    struct kiln_npu_surface *in = surface(&b, 49152, 5.0f), *out = surface(&b, 49152, 0.0f);
    struct kiln_npu_program *program;
    struct kiln_err err;
    size_t binding;
    CHECK_FAILS(ops->compile(b.runtime, &source, &program, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "w.bin");
    source.weights = &two;
    source.n_weights = 1;
    CHECK_OK(ops->compile(b.runtime, &source, &program, &err), &err);
    CHECK(kiln_sim_program_bytes(program) >= strlen(WEIGHED) + sizeof(float));
    kiln_free(two.data); /* the program has its own */
    CHECK_OK(ops->load(b.runtime, program, &err), &err);
    CHECK_OK(ops->bind(b.runtime, program, &in, 1, &out, 1, &binding, &err), &err);
    CHECK_OK(ops->evaluate(b.runtime, program, binding, &err), &err);
    CHECK(at(&b, out, 0) == 10.0f);
    memset(wrong.data, 0, wrong.bytes);
    CHECK_FAILS(ops->reload(b.runtime, program, &wrong, 1, &err), KILN_EINPUT, &err);
    CHECK_OK(ops->evaluate(b.runtime, program, binding, &err), &err);
    CHECK(at(&b, out, 0) == 10.0f);
    CHECK_OK(ops->reload(b.runtime, program, &three, 1, &err), &err);
    CHECK_EQ(b.runtime->compiles, 1);
    CHECK_OK(ops->evaluate(b.runtime, program, binding, &err), &err);
    float got = at(&b, out, 0);
    ops->release(b.runtime, program);
    ops->surface_close(b.runtime, in);
    ops->surface_close(b.runtime, out);
    kiln_free(three.data);
    kiln_free(wrong.data);
    close_bench(&b);
    return got;
}

TEST(sim_a_reload_is_visible_only_where_it_is_asked_for) {
    CHECK(reloaded(false) == 10.0f);
    CHECK(reloaded(true) == 15.0f);
}

/* ---- limits and time ------------------------------------------------------------------------ */

TEST(sim_an_odd_width_runs_with_the_limit_off) {
    const char *text =
        MIL_CALL("tensor<fp16, [1,1,1,5]> x",
                 "tensor<fp16, [1,1,1,5]> y = add(x = x, y = x)[name = string(\"y\")];\n", "y");
    struct bench b = {0};
    kiln_sim_options_default(&b.options);
    open_bench(&b);
    struct kiln_npu_source source = source_of(text);
    struct kiln_npu_program *program;
    struct kiln_err err;
    CHECK_FAILS(b.runtime->ops->compile(b.runtime, &source, &program, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "width-multiple");
    close_bench(&b);
    b.options.limits.value[KILN_SIM_WIDTH_MULTIPLE] = 0;
    b.options.limits.value[KILN_SIM_SMALLEST_SURFACE] = 0;
    open_bench(&b);
    program = compiled(&b, text);
    struct kiln_npu_surface *in = surface(&b, 64, 1.0f), *out = surface(&b, 32, 0.0f);
    size_t binding;
    CHECK_OK(b.runtime->ops->load(b.runtime, program, &err), &err);
    CHECK_OK(b.runtime->ops->bind(b.runtime, program, &in, 1, &out, 1, &binding, &err), &err);
    CHECK_OK(b.runtime->ops->evaluate(b.runtime, program, binding, &err), &err);
    CHECK(at(&b, out, 4) == 10.0f && at(&b, out, 5) == 5.0f);
    b.runtime->ops->release(b.runtime, program);
    b.runtime->ops->surface_close(b.runtime, in);
    b.runtime->ops->surface_close(b.runtime, out);
    close_bench(&b);
}

TEST_ALONE(sim_takes_the_time_that_is_charged) {
    struct bench b = {0};
    kiln_sim_options_default(&b.options);
    b.options.times = (struct kiln_sim_times){
        .scale = 0.5,
        .device = {.compile_s = 0.1, .load_s = 0.06, .dispatch_s = 0.04, .tflops = 1.0}};
    open_bench(&b);
    double start = kiln_now_s();
    struct kiln_npu_program *program = compiled(&b, TWO);
    double compiled_at = kiln_now_s();
    struct kiln_err err;
    CHECK_OK(b.runtime->ops->load(b.runtime, program, &err), &err);
    double loaded_at = kiln_now_s();
    CHECK(compiled_at - start >= 0.05 && loaded_at - compiled_at >= 0.03);
    b.runtime->ops->release(b.runtime, program);
    close_bench(&b);
}

/* A program's weight files cost time; so do evaluations, and more beside a compile. */
struct beside {
    struct bench *b;
    atomic_bool started;
};
static void *compile_beside(void *context) {
    struct beside *beside = context;
    atomic_store(&beside->started, true);
    beside->b->runtime->ops->release(beside->b->runtime, compiled(beside->b, TWO));
    return NULL;
}

TEST_ALONE(sim_charges_weights_and_what_compiles_beside) {
    struct bench b = {0};
    struct kiln_err err;
    char blob[20000] = {0}; /* not read by the program */
    struct kiln_npu_weight weight = {.name = "w.bin", .data = blob, .bytes = sizeof blob};
    const struct kiln_npu_source source = {"twenty thousand", TWO, strlen(TWO), &weight, 1};
    struct kiln_npu_program *program;
    size_t binding;
    kiln_sim_options_default(&b.options);
    b.options.times = (struct kiln_sim_times){.scale = 1,
                                              .device = {.compile_s = 0.01,
                                                         .compile_gb_s = 0.0005, /* 40 ms */
                                                         .dispatch_s = 0.004,
                                                         .tflops = 1,
                                                         .beside = 3}};
    open_bench(&b);
    const struct kiln_npu_runtime_ops *ops = b.runtime->ops;
    double start = kiln_now_s();
    CHECK_OK(ops->compile(b.runtime, &source, &program, &err), &err);
    CHECK_CLOSE(kiln_now_s() - start, 0.050, 0.005);
    CHECK_OK(ops->load(b.runtime, program, &err), &err);
    struct kiln_npu_surface *in[2] = {surface(&b, 49152, 0), surface(&b, 49152, 0)};
    struct kiln_npu_surface *out = surface(&b, 49152, 0);
    CHECK_OK(ops->bind(b.runtime, program, in, 2, &out, 1, &binding, &err), &err);
    /* The best of several: this machine may have something else to do. */
    double alone = 1, slowed = 1;
    for (int i = 0; i < 5; i++) {
        start = kiln_now_s();
        CHECK_OK(ops->evaluate(b.runtime, program, binding, &err), &err);
        alone = fmin(alone, kiln_now_s() - start);
    }
    CHECK_CLOSE(alone, 0.004, 0.0003);
    b.options.times.device.compile_s = 0.06;
    struct bench other = {.options = b.options};
    open_bench(&other);
    struct beside beside = {.b = &other};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, compile_beside, &beside), 0);
    while (!atomic_load(&beside.started)) {
    }
    for (int i = 0; i < 5; i++) { /* the first may be too early */
        start = kiln_now_s();
        CHECK_OK(ops->evaluate(b.runtime, program, binding, &err), &err);
        const double took = kiln_now_s() - start;
        slowed = fabs(took - 0.012) < fabs(slowed - 0.012) ? took : slowed;
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_CLOSE(slowed, 0.012, 0.0006);
    ops->release(b.runtime, program);
    ops->surface_close(b.runtime, in[0]);
    ops->surface_close(b.runtime, in[1]);
    ops->surface_close(b.runtime, out);
    close_bench(&other);
    close_bench(&b);
}

/* SPDX-License-Identifier: MIT
 *
 * Apple's runtime (device/ane/apple.m) over fakes of Apple's classes, which end a test's process
 * when a rule is broken (device/fake_ane.h).
 */
#include "kiln_test.h"

#ifndef KILN_FAKE_ANE

TEST(apples_runtime_runs_over_fakes) {
    SKIP(
        "built without the fakes of Apple's classes: on Linux, install gobjc and "
        "libgnustep-base-dev");
}

#else

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "device/ane/ane.h"
#include "device/ane/apple.h"
#include "device/ane/staging.h"
#include "device/fake_ane.h"
#include "device/fake_int.h"
#include "device/mil/blob.h"
#include "device/mil/half.h"

enum { C = 64, W = 512, BYTES = C * W * 2 };

/* A convolution with a bias; %d makes its text one of its own. */
static const char text[] =
    "program(1.3)\n"
    "[buildInfo = dict<string, string>({{\"coremltools-version\", \"9.0\"}})]\n"
    "{\n"
    "    func main<ios18>(tensor<fp16, [1, 64, 1, 512]> x) { // %d\n"
    "        string pt = const()[name = string(\"pt\"), val = string(\"valid\")];\n"
    "        tensor<int32, [2]> one = const()[name = string(\"one\"), "
    "val = tensor<int32, [2]>([1, 1])];\n"
    "        tensor<int32, [4]> pd = const()[name = string(\"pd\"), "
    "val = tensor<int32, [4]>([0, 0, 0, 0])];\n"
    "        int32 gr = const()[name = string(\"gr\"), val = int32(1)];\n"
    "        tensor<fp16, [64, 64, 1, 1]> w = const()[name = string(\"w\"), "
    "val = tensor<fp16, [64, 64, 1, 1]>(BLOBFILE("
    "path = string(\"@model_path/weights/w.bin\"), offset = uint64(64)))];\n"
    "        tensor<fp16, [1, 64, 1, 1]> b = const()[name = string(\"b\"), "
    "val = tensor<fp16, [1, 64, 1, 1]>(BLOBFILE("
    "path = string(\"@model_path/weights/b.bin\"), offset = uint64(64)))];\n"
    "        tensor<fp16, [1, 64, 1, 512]> c = conv(dilations = one, groups = gr, pad = pd, "
    "pad_type = pt, strides = one, weight = w, x = x)[name = string(\"c\")];\n"
    "        tensor<fp16, [1, 64, 1, 512]> y = add(x = c, y = b)[name = string(\"y\")];\n"
    "    } -> (y);\n"
    "}\n";

/* A program's source with weights of its own. */
struct lab_source {
    char text[2048];
    struct kiln_npu_weight weights[2];
    _Alignas(64) unsigned char w[128 + C * C * 2], b[128 + C * 2];
    struct kiln_npu_source source;
};

static void fill(uint16_t *to, size_t n, int seed) {
    for (size_t i = 0; i < n; i++) {
        to[i] = kiln_f32_to_f16((float)((i * 37 + (size_t)seed * 11) % 61) / 32.0f - 1.0f);
    }
}

static struct kiln_npu_source *make_source(struct lab_source *lab, int number, int seed) {
    *lab = (struct lab_source){.weights = {{.name = "w.bin", .bytes = sizeof lab->w},
                                           {.name = "b.bin", .bytes = sizeof lab->b}}};
    snprintf(lab->text, sizeof lab->text, text, number);
    lab->weights[0].data = lab->w;
    lab->weights[1].data = lab->b;
    fill(kiln_blob_begin(lab->w, (size_t)C * C), (size_t)C * C, seed);
    fill(kiln_blob_begin(lab->b, C), C, seed + 1);
    lab->source = (struct kiln_npu_source){
        .label = "layer 3, test",
        .text = lab->text,
        .bytes = strlen(lab->text),
        .weights = lab->weights,
        .n_weights = 2,
    };
    return &lab->source;
}

/* ---- a life ---------------------------------------------------------------------------------- */

/* What a process does with the runtime, from opening to closing; stops at the first failure and
 * gives everything back. */
struct life {
    struct kiln_npu_runtime *runtime;
    struct kiln_npu_surface *in, *out;
    struct kiln_npu_program *program;
    size_t binding;
    bool reloads;
    uint16_t y[C * W]; /* after the last evaluation */
};

static enum kiln_status put(struct life *life, int seed, struct kiln_err *err) {
    struct kiln_npu_runtime *runtime = life->runtime;
    uint16_t *x = runtime->ops->lock(runtime, life->in, false, err);
    if (!x) {
        return err->code;
    }
    fill(x, (size_t)C * W, seed);
    return runtime->ops->unlock(runtime, life->in, false, err);
}

static enum kiln_status compute(struct life *life, struct kiln_err *err) {
    struct kiln_npu_runtime *runtime = life->runtime;
    KILN_TRY(runtime->ops->evaluate(runtime, life->program, life->binding, err));
    const void *y = runtime->ops->lock(runtime, life->out, true, err);
    if (!y) {
        return err->code;
    }
    memcpy(life->y, y, sizeof life->y);
    return runtime->ops->unlock(runtime, life->out, true, err);
}

static enum kiln_status live(struct life *life, const struct kiln_npu_source *source,
                             const struct kiln_npu_weight *others, struct kiln_err *err) {
    KILN_TRY(kiln_apple_runtime(&life->runtime, err));
    struct kiln_npu_runtime *runtime = life->runtime;
    life->reloads = runtime->reloads;
    KILN_TRY(runtime->ops->surface_open(runtime, BYTES, &life->in, err));
    KILN_TRY(runtime->ops->surface_open(runtime, BYTES, &life->out, err));
    KILN_TRY(put(life, 5, err));
    KILN_TRY(runtime->ops->compile(runtime, source, &life->program, err));
    KILN_TRY(runtime->ops->load(runtime, life->program, err));
    KILN_TRY(runtime->ops->bind(runtime, life->program, &life->in, 1, &life->out, 1, &life->binding,
                                err));
    KILN_TRY(compute(life, err));
    if (fake_chain) {
        KILN_TRY(runtime->ops->chain(runtime, life->program, life->in, life->out, err));
    }
    if (others && life->reloads) {
        KILN_TRY(runtime->ops->reload(runtime, life->program, others, 2, err));
        KILN_TRY(compute(life, err));
    }
    return KILN_OK;
}

/* Give back what is there. The failure of a release is reported like any other. */
static enum kiln_status end(struct life *life, struct kiln_err *err) {
    struct kiln_npu_runtime *runtime = life->runtime;
    if (!runtime) {
        return KILN_OK;
    }
    if (life->program) {
        runtime->ops->release(runtime, life->program);
    }
    if (life->in) {
        runtime->ops->surface_close(runtime, life->in);
    }
    if (life->out) {
        runtime->ops->surface_close(runtime, life->out);
    }
    const struct kiln_err trouble = runtime->trouble;
    if (trouble.code != KILN_OK) {
        *err = trouble;
    }
    CHECK_EQ(runtime->loaded, 0);
    runtime->ops->close(runtime);
    return trouble.code;
}

static enum kiln_status whole_life(struct life *life, struct kiln_err *err) {
    static struct lab_source one, two;
    make_source(&one, 1, 3);
    make_source(&two, 1, 8);
    *life = (struct life){.binding = 99};
    const enum kiln_status status = live(life, &one.source, two.weights, err);
    struct kiln_err late;
    const enum kiln_status ended = end(life, &late);
    if (status == KILN_OK && ended != KILN_OK) {
        *err = late;
    }
    return status ? status : ended;
}

static void check_all_gone(void) {
    const struct fake_counts left = fake_count();
    CHECK_EQ(left.descriptors, 0);
    CHECK_EQ(left.models, 0);
    CHECK_EQ(left.requests, 0);
    CHECK_EQ(left.wrappers, 0);
    CHECK_EQ(left.surfaces, 0);
    CHECK_EQ(left.locks, 0);
    CHECK_EQ(left.folders, 0);
}

/* A life whose program is there; ends by finish(). */
static void begin(struct life *life, struct lab_source *lab) {
    struct kiln_err err;
    *life = (struct life){.binding = 99};
    CHECK_OK(live(life, make_source(lab, 1, 3), NULL, &err), &err);
}

static void finish(struct life *life) {
    struct kiln_err err;
    CHECK_OK(end(life, &err), &err);
    check_all_gone();
    CHECK_EQ(fake_count().loaded, 0);
}

/* ---- what works ------------------------------------------------------------------------------ */

TEST(opening_proves_the_device_and_leaves_nothing) {
    struct kiln_npu_runtime *runtime;
    struct kiln_err err;
    CHECK_OK(kiln_apple_runtime(&runtime, &err), &err);
    CHECK_STRING(runtime->name, "ane");
    CHECK_CONTAINS(runtime->description, "Neural Engine");
    CHECK(runtime->reloads);
    CHECK_EQ(runtime->compiles, 1);
    CHECK_EQ(runtime->loaded, 0);
    CHECK_EQ(runtime->trouble.code, KILN_OK);
    const struct fake_counts done = fake_count();
    CHECK_EQ(done.compiles, 1);
    CHECK_EQ(done.loads, 2); /* the second after the reload */
    CHECK_EQ(done.evaluations, 2);
    CHECK_EQ(done.unloads, 2);
    runtime->ops->close(runtime);
    check_all_gone();
}

/* A folder of a process that died. */
static void leave_behind(const char *name) {
    const struct kiln_npu_source source = {.label = name, .text = "text", .bytes = 4};
    const pid_t pid = fork();
    if (pid == 0) {
        struct kiln_staging staging;
        struct kiln_err err;
        _exit(kiln_staging_open(fake_temporary(), name, &source, &staging, &err));
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

TEST(opening_and_closing_clear_away_what_the_dead_left) {
    struct kiln_npu_runtime *runtime;
    struct kiln_err err;
    char name[64], path[4096];
    snprintf(name, sizeof name, "kiln-test-dead-%d", (int)getpid());
    snprintf(path, sizeof path, "%s/%s", fake_temporary(), name);
    leave_behind(name);
    CHECK(kiln_path_exists(path));
    CHECK_OK(kiln_apple_runtime(&runtime, &err), &err);
    CHECK(!kiln_path_exists(path));
    leave_behind(name);
    CHECK(kiln_path_exists(path));
    runtime->ops->close(runtime);
    CHECK(!kiln_path_exists(path));
}

/* The same program on what the fakes compute with, without Apple's runtime between. */
static void compute_directly(const struct kiln_npu_source *source, uint16_t *y) {
    struct kiln_npu_runtime *sim = fake_backend();
    struct life life = {.runtime = sim};
    struct kiln_err err;
    CHECK_OK(sim->ops->surface_open(sim, BYTES, &life.in, &err), &err);
    CHECK_OK(sim->ops->surface_open(sim, BYTES, &life.out, &err), &err);
    CHECK_OK(put(&life, 5, &err), &err);
    CHECK_OK(sim->ops->compile(sim, source, &life.program, &err), &err);
    CHECK_OK(sim->ops->load(sim, life.program, &err), &err);
    CHECK_OK(sim->ops->bind(sim, life.program, &life.in, 1, &life.out, 1, &life.binding, &err),
             &err);
    CHECK_OK(compute(&life, &err), &err);
    memcpy(y, life.y, BYTES);
    sim->ops->release(sim, life.program);
    sim->ops->surface_close(sim, life.in);
    sim->ops->surface_close(sim, life.out);
}

TEST(a_program_gives_the_bits_of_the_simulator_also_with_other_weights) {
    static struct lab_source one, two;
    static struct life life;
    static uint16_t first[C * W], second[C * W];
    struct kiln_err err;
    begin(&life, &one);
    make_source(&two, 1, 8);
    compute_directly(&one.source, first);
    compute_directly(&two.source, second);
    CHECK(memcmp(first, second, BYTES) != 0);
    CHECK_BYTES(life.y, first, BYTES);
    struct kiln_npu_runtime *runtime = life.runtime;
    const size_t compiles = runtime->compiles;
    for (int i = 0; i < 3; i++) { /* there and back: bindings stay as they are */
        const struct lab_source *lab = i % 2 ? &one : &two;
        CHECK_OK(runtime->ops->reload(runtime, life.program, lab->weights, 2, &err), &err);
        CHECK_OK(compute(&life, &err), &err);
        CHECK_BYTES(life.y, i % 2 ? first : second, BYTES);
        CHECK_EQ(fake_count().folders, 1);
        CHECK_EQ(runtime->loaded, 1);
    }
    /* To the weights that it has: one folder for the old model and the new one. */
    CHECK_OK(runtime->ops->reload(runtime, life.program, two.weights, 2, &err), &err);
    CHECK_OK(compute(&life, &err), &err);
    CHECK_BYTES(life.y, second, BYTES);
    CHECK_EQ(runtime->compiles, compiles);
    CHECK_EQ(fake_count().compiles, (long)compiles);
    finish(&life);
}

TEST(a_program_has_any_number_of_bindings) {
    static struct lab_source lab;
    static struct life life;
    static uint16_t first[C * W], second[C * W];
    struct kiln_npu_surface *in;
    struct kiln_err err;
    size_t other;
    begin(&life, &lab);
    struct kiln_npu_runtime *runtime = life.runtime;
    CHECK_EQ(life.binding, 0);
    memcpy(first, life.y, BYTES);
    CHECK_OK(runtime->ops->surface_open(runtime, BYTES, &in, &err), &err);
    CHECK_OK(runtime->ops->bind(runtime, life.program, &in, 1, &life.out, 1, &other, &err), &err);
    CHECK_EQ(other, 1);
    life.binding = 1;
    CHECK_OK(compute(&life, &err), &err);
    memcpy(second, life.y, BYTES); /* of zeros */
    CHECK(memcmp(first, second, BYTES) != 0);
    for (int i = 0; i < 4; i++) {
        life.binding = (size_t)i % 2;
        CHECK_OK(compute(&life, &err), &err);
        CHECK_BYTES(life.y, i % 2 ? second : first, BYTES);
    }
    runtime->ops->release(runtime, life.program);
    life.program = NULL;
    runtime->ops->surface_close(runtime, in);
    finish(&life);
}

/* What a probe asks for beside what training does. */
TEST(a_chain_is_answered_and_every_quality_of_service_evaluates) {
    static struct lab_source lab;
    static struct life life;
    static uint16_t first[C * W];
    struct kiln_err err;
    begin(&life, &lab);
    struct kiln_npu_runtime *runtime = life.runtime;
    memcpy(first, life.y, BYTES);
    CHECK_FAILS(runtime->ops->chain(runtime, life.program, life.in, life.out, &err), KILN_EDEVICE,
                &err);
    CHECK_CONTAINS(err.message, "ANEProgramChainingPrepare() Failed");
    CHECK_CONTAINS(err.message, "code 15");
    fake_chain = true;
    CHECK_OK(runtime->ops->chain(runtime, life.program, life.in, life.out, &err), &err);
    for (unsigned qos = 0; qos < 64; qos++) {
        CHECK_OK(runtime->ops->evaluate_at(runtime, life.program, life.binding, qos, &err), &err);
    }
    CHECK_OK(compute(&life, &err), &err);
    CHECK_BYTES(life.y, first, BYTES);
    CHECK_FAILS(runtime->ops->evaluate_at(runtime, life.program, 9, 0, &err), KILN_EINTERNAL, &err);
    finish(&life);
}

TEST(equal_programs_share_a_folder_until_the_last_is_released) {
    static struct lab_source lab;
    static struct life life;
    struct kiln_npu_program *twin;
    struct kiln_err err;
    begin(&life, &lab);
    struct kiln_npu_runtime *runtime = life.runtime;
    CHECK_OK(runtime->ops->compile(runtime, &lab.source, &twin, &err), &err);
    CHECK_EQ(fake_count().folders, 1);
    runtime->ops->release(runtime, life.program);
    CHECK_EQ(fake_count().folders, 1);
    life.program = twin;
    CHECK_OK(runtime->ops->load(runtime, twin, &err), &err);
    CHECK_OK(runtime->ops->bind(runtime, twin, &life.in, 1, &life.out, 1, &life.binding, &err),
             &err);
    CHECK_OK(compute(&life, &err), &err);
    finish(&life);
}

/* ---- what a system lacks --------------------------------------------------------------------- */

static void check_lacks(const char **name, const char *instead, const char *words) {
    struct kiln_npu_runtime *runtime;
    struct kiln_err err;
    const char *was = *name;
    for (int i = 0; i < 2; i++) {
        *name = instead;
        CHECK_FAILS(kiln_apple_open(&runtime, &err), KILN_EUNSUPPORTED, &err);
        CHECK_CONTAINS(err.message, instead);
        CHECK_CONTAINS(err.message, words);
        CHECK(runtime == NULL);
        CHECK_EQ(fake_count().compiles, 0);
        check_all_gone();
    }
    *name = was;
}

TEST(what_the_system_lacks_is_named) {
    struct kiln_apple_names *names = &kiln_apple_names;
    check_lacks(&names->framework, "/nowhere/AppleNeuralEngine", "no Neural Engine");
    check_lacks(&names->descriptor, "_ANENoDescriptor", "is missing");
    check_lacks(&names->model, "_ANENoModel", "is missing");
    check_lacks(&names->request, "_ANENoRequest", "is missing");
    check_lacks(&names->surface, "_ANENoSurface", "is missing");
    check_lacks(&names->descriptor, "FakeBareModel", "modelWithMILText:weights:optionsPlist:");
    check_lacks(&names->model, "FakeBareModel", "inMemoryModelWithDescriptor:");
    check_lacks(&names->model, "FakeLesserModel", "hexStringIdentifier");
    check_lacks(&names->surface, "FakeBareModel", "objectWithIOSurface:");
    check_lacks(&names->request, "FakeBareModel", "requestWithInputs:inputIndices:outputs:");
}

/* ---- every call fails ------------------------------------------------------------------------ */

static const char *const words[FAKE_POINTS_COUNT] = {
    [FAKE_DESCRIPTOR] = "modelWithMILText gave no descriptor",
    [FAKE_MODEL] = "inMemoryModelWithDescriptor gave no model",
    [FAKE_DIGEST] = "hexStringIdentifier gave nothing",
    [FAKE_STAGING] = "staging folder",
    [FAKE_COMPILE] = "compileWithQoS failed: compile failed on command",
    [FAKE_COMPILE_SILENT] = "compileWithQoS failed: no reason given",
    [FAKE_LOAD] = "loadWithQoS failed twice: load failed on command",
    [FAKE_WRAPPER] = "objectWithIOSurface gave nothing",
    [FAKE_REQUEST] = "requestWithInputs gave no request",
    [FAKE_EVALUATE] = "evaluateWithQoS failed: evaluate failed on command",
    [FAKE_NUMBERS] = "self-test",
    [FAKE_UNLOAD] = "unloadWithQoS failed: unload failed on command",
    [FAKE_SURFACE] = "IOSurfaceCreate gave no surface",
    [FAKE_LOCK] = "IOSurfaceLock gave 0x",
    [FAKE_BASE] = "IOSurfaceLock gave 0x0",
    [FAKE_UNLOCK] = "IOSurfaceUnlock gave 0x",
    [FAKE_CHAIN] = "prepareChainingWithModel failed: chain failed on command",
};

/* Calls that are C, which does not raise. */
static bool is_c(enum fake_point point) {
    return point == FAKE_LOCK || point == FAKE_BASE || point == FAKE_UNLOCK;
}

/* Let each call of a point fail in turn, until a life has fewer calls. Returns how many failed. */
static int fail_each(enum fake_point point, long times, bool raises) {
    static struct life life;
    int failed = 0;
    for (long at = 1; at < 50; at++) {
        for (int again = 0; again < 2; again++) {
            struct kiln_err err;
            fake_fail(point, at, times, raises);
            const enum kiln_status status = whole_life(&life, &err);
            if (fake_calls(point) < at) {
                CHECK_OK(status, &err);
                fake_fail(point, 0, 0, false);
                return failed;
            }
            check_all_gone();
            if (status != KILN_OK) {
                CHECK_CONTAINS(err.message, raises ? "raised on command by " : words[point]);
                CHECK_CONTAINS(err.message, raises ? fake_point_name(point) : words[point]);
                failed++;
            } else if (point != FAKE_NUMBERS || at < 3) { /* in the test of reload, then */
                CHECK(!life.reloads);
            }
        }
    }
    FAIL("%s: a life has 50 calls", fake_point_name(point));
}

TEST_WITHIN(a_call_that_fails_is_named_and_leaves_nothing, 240) {
    fake_compile_limit = fake_load_limit = 100000;
    fake_chain = true;
    for (int i = 0; i < FAKE_POINTS_COUNT; i++) {
        const enum fake_point point = (enum fake_point)i;
        const int failed = fail_each(point, point == FAKE_LOAD ? 2 : 1, false);
        CHECK(failed >= 2);
    }
}

TEST_WITHIN(a_call_that_raises_is_named_and_leaves_nothing, 240) {
    fake_compile_limit = fake_load_limit = 100000;
    fake_chain = true;
    for (int i = 0; i < FAKE_POINTS_COUNT; i++) {
        const enum fake_point point = (enum fake_point)i;
        if (!is_c(point)) {
            const int failed = fail_each(point, 1, true);
            CHECK(failed >= 2);
        }
    }
}

/* ---- failures with a meaning ----------------------------------------------------------------- */

TEST(one_failure_to_load_is_tried_again) {
    static struct life life;
    struct kiln_err err;
    fake_fail(FAKE_LOAD, 1, 1, false);
    CHECK_OK(whole_life(&life, &err), &err);
    CHECK(life.reloads);
    CHECK_EQ(fake_calls(FAKE_LOAD), 5); /* two programs, each loaded twice, and the failure */
    check_all_gone();
}

TEST(a_load_that_failed_has_no_folder_and_asks_for_a_compile) {
    static struct lab_source lab;
    static struct life life;
    struct kiln_npu_program *program;
    struct kiln_err err;
    size_t binding;
    begin(&life, &lab);
    struct kiln_npu_runtime *runtime = life.runtime;
    make_source(&lab, 2, 3);
    CHECK_OK(runtime->ops->compile(runtime, &lab.source, &program, &err), &err);
    fake_load_limit = 1;
    CHECK_FAILS(runtime->ops->load(runtime, program, &err), KILN_EBUDGET, &err);
    CHECK_CONTAINS(err.message, "layer 3, test: load: ");
    CHECK_CONTAINS(err.message, "no room for another program");
    CHECK_CONTAINS(err.message, "0x50004");
    CHECK_CONTAINS(err.message, "--load-budget");
    CHECK_EQ(fake_count().folders, 1);
    CHECK_EQ(runtime->loaded, 1);
    CHECK_FAILS(runtime->ops->load(runtime, program, &err), KILN_EINTERNAL, &err);
    CHECK_CONTAINS(err.message, "compile it again");
    CHECK_FAILS(runtime->ops->bind(runtime, program, &life.in, 1, &life.out, 1, &binding, &err),
                KILN_EINTERNAL, &err);
    CHECK_FAILS(runtime->ops->evaluate(runtime, program, 0, &err), KILN_EINTERNAL, &err);
    CHECK_FAILS(runtime->ops->reload(runtime, program, lab.weights, 2, &err), KILN_EINTERNAL, &err);
    CHECK_FAILS(runtime->ops->evaluate(runtime, life.program, 1, &err), KILN_EINTERNAL, &err);
    CHECK_FAILS(runtime->ops->load(runtime, life.program, &err), KILN_EINTERNAL, &err);
    runtime->ops->release(runtime, program);
    CHECK_OK(compute(&life, &err), &err);
    finish(&life);
}

TEST(a_spent_process_says_how_many_it_compiled) {
    static struct lab_source lab;
    static struct life life;
    struct kiln_npu_program *program;
    struct kiln_err err;
    begin(&life, &lab);
    fake_compile_limit = 2;
    make_source(&lab, 2, 3);
    CHECK_FAILS(life.runtime->ops->compile(life.runtime, &lab.source, &program, &err), KILN_EDEVICE,
                &err);
    CHECK_CONTAINS(err.message, "2 programs were compiled");
    CHECK_CONTAINS(err.message, "lower --budget");
    CHECK(program == NULL);
    CHECK_EQ(life.runtime->compiles, 2);
    finish(&life);
}

TEST(a_reload_is_used_only_where_it_is_seen_to_work) {
    static struct life life;
    struct kiln_err err;
    fake_reload = FAKE_RELOAD_STALE;
    CHECK_OK(whole_life(&life, &err), &err);
    CHECK(!life.reloads);
    fake_reload = FAKE_RELOAD_REFUSED;
    CHECK_OK(whole_life(&life, &err), &err);
    CHECK(!life.reloads);
    fake_reload = FAKE_RELOAD_WORKS;
    for (int i = FAKE_FILES_NO_PLIST; i <= FAKE_FILES_OTHER_DATA; i++) {
        fake_files = (enum fake_files)i;
        CHECK_OK(whole_life(&life, &err), &err);
        CHECK(!life.reloads);
        check_all_gone();
    }
    fake_files = FAKE_FILES_ALL;
    CHECK_OK(whole_life(&life, &err), &err);
    CHECK(life.reloads);
    check_all_gone();
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *compile_beside(void *context) {
    struct kiln_npu_runtime *runtime = context;
    static struct lab_source lab;
    for (int i = 0; i < 20; i++) {
        struct kiln_npu_program *program;
        struct kiln_err err;
        if (runtime->ops->compile(runtime, make_source(&lab, 100 + i, 3), &program, &err)) {
            return NULL;
        }
        runtime->ops->release(runtime, program);
    }
    return context;
}

TEST(compiling_may_run_beside_evaluating) {
    static struct lab_source lab;
    static struct life life;
    struct kiln_err err;
    pthread_t thread;
    void *result;
    begin(&life, &lab);
    CHECK_EQ(pthread_create(&thread, NULL, compile_beside, life.runtime), 0);
    for (int i = 0; i < 5; i++) {
        CHECK_OK(compute(&life, &err), &err);
    }
    pthread_join(thread, &result);
    CHECK(result != NULL);
    CHECK_EQ(life.runtime->compiles, 22);
    finish(&life);
}

#endif

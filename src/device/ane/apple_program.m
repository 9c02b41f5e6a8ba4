/* SPDX-License-Identifier: MIT
 *
 * apple_program.m: programs of Apple's runtime. Objective-C without ARC: what is kept is retained,
 * and released in drop_image and drop_bindings.
 *
 * Order of calls of a program's life, which is that of every published program that runs:
 *   descriptor, model, digest, staging folder, compile | load | wrappers, request | evaluate
 *   | unload, remove the folder, release
 *
 * Caveats
 *  - Every entry has an autorelease pool, and no exception leaves it (`guarded`).
 *  - Texts are NSData, the weights' dictionary is never nil: both crash the framework otherwise.
 *  - Nothing says why a compile beyond some 119 of a process fails, or a load: messages tell how
 *    many there were.
 */
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "device/ane/apple_int.h"
#include "device/ane/objc_call.h"

#define QOS             21u     /* the default level */
#define RETRY_LOAD_US   100000u /* between the two attempts to load */
#define OUT_OF_PROGRAMS 0x50004 /* the error code of a load beyond what the device holds */

/* ---- compile --------------------------------------------------------------------------------- */

static NSDictionary *weight_files(const struct kiln_npu_weight *weights, size_t n) {
    NSMutableDictionary *files = [NSMutableDictionary dictionary];
    for (size_t i = 0; i < n; i++) {
        NSData *data = [NSData dataWithBytes:weights[i].data length:weights[i].bytes];
        NSDictionary *file = [NSDictionary
            dictionaryWithObjectsAndKeys:[NSNumber numberWithInt:0], @"offset", data, @"data", nil];
        [files setObject:file
                  forKey:[NSString stringWithFormat:@"@model_path/weights/%s", weights[i].name]];
    }
    return files;
}

/* Descriptor, model and staging folder of a text with these weights. What is made is in *image
 * also when a later step fails. */
static enum kiln_status make_image(struct call *call, NSData *text,
                                   const struct kiln_npu_weight *weights, size_t n_weights,
                                   struct image *image) {
    const struct apple *apple = call->apple;
    image->descriptor =
        [KILN_SEND(id, (id, SEL, id, id, id), (id)apple->classes[DESCRIPTOR], apple->sel[DESCRIBE],
                   text, weight_files(weights, n_weights), nil) retain];
    CALL_REQUIRE(
        image->descriptor, call, KILN_EDEVICE,
        "modelWithMILText gave no descriptor: the MIL does not parse or holds an operation "
        "that is not supported; `kiln mil check` names it");
    image->model = [KILN_SEND(id, (id, SEL, id), (id)apple->classes[MODEL], apple->sel[MAKE_MODEL],
                              image->descriptor) retain];
    CALL_REQUIRE(image->model, call, KILN_EDEVICE,
                 "inMemoryModelWithDescriptor gave no model; `kiln mil check` may know why");
    NSString *digest = KILN_SEND(id, (id, SEL), image->model, apple->sel[DIGEST]);
    CALL_REQUIRE([digest length] > 0, call, KILN_EDEVICE,
                 "hexStringIdentifier gave nothing: there is no name for the staging folder");
    const struct kiln_npu_source source = {
        .label = call->label,
        .text = [text bytes],
        .bytes = [text length],
        .weights = weights,
        .n_weights = n_weights,
    };
    struct kiln_err why;
    const enum kiln_status status = kiln_staging_open(
        [NSTemporaryDirectory() UTF8String], [digest UTF8String], &source, &image -> staging, &why);
    CALL_REQUIRE(status == KILN_OK, call, status, "%s", why.message);
    return KILN_OK;
}

static enum kiln_status compile_steps(struct call *call) {
    const struct apple *apple = call->apple;
    struct kiln_npu_program *program = call->program;
    program->text = [[NSData alloc] initWithBytes:call->source->text length:call->source->bytes];
    KILN_TRY(make_image(call, program->text, call->source->weights, call->source->n_weights,
                        &program->image));
    NSError *error = nil;
    const BOOL compiled = KILN_SEND(BOOL, (id, SEL, unsigned, id, NSError **), program->image.model,
                                    apple->sel[COMPILE], QOS, apple->options, &error);
    CALL_REQUIRE(compiled, call, KILN_EDEVICE,
                 "compileWithQoS failed: %s; %zu programs were compiled by this process: either "
                 "that is too many (lower --budget), or an operation or a size is refused (`kiln "
                 "mil check`)",
                 kiln_apple_words(error), apple->base.compiles);
    return KILN_OK;
}

/* ---- load and bind --------------------------------------------------------------------------- */

/* Loading fails now and then, and works a moment later. */
static enum kiln_status load_model(struct call *call, id model) {
    const struct apple *apple = call->apple;
    NSError *error = nil;
    for (int i = 0; i < 2; i++) {
        if (i > 0) {
            usleep(RETRY_LOAD_US);
        }
        error = nil;
        if (KILN_SEND(BOOL, (id, SEL, unsigned, id, NSError **), model, apple->sel[LOAD], QOS,
                      apple->options, &error)) {
            return KILN_OK;
        }
    }
    const enum kiln_status code = [error code] == OUT_OF_PROGRAMS ? KILN_EBUDGET : KILN_EDEVICE;
    return CALL_FAIL(call, code,
                     "loadWithQoS failed twice: %s; %zu programs are loaded by this process: maybe "
                     "that is too many (lower --load-budget), or the program is too big",
                     kiln_apple_words(error), apple->base.loaded);
}

static enum kiln_status load_steps(struct call *call) {
    CALL_REQUIRE(call->program->image.model, call, KILN_EINTERNAL,
                 "it failed before: release the program and compile it again");
    return load_model(call, call->program->image.model);
}

/* Wrappers of surfaces and their indices 0, 1, 2 ... */
static enum kiln_status wrap(struct call *call, struct kiln_npu_surface *const *surfaces, size_t n,
                             NSMutableArray *wrappers, NSMutableArray *indices) {
    const struct apple *apple = call->apple;
    for (size_t i = 0; i < n; i++) {
        id wrapper = KILN_SEND(id, (id, SEL, IOSurfaceRef), (id)apple->classes[SURFACE],
                               apple->sel[WRAP], surfaces[i]->surface);
        CALL_REQUIRE(wrapper, call, KILN_EDEVICE,
                     "objectWithIOSurface gave nothing for surface %zu of %zu bytes", i,
                     surfaces[i]->bytes);
        [wrappers addObject:wrapper];
        [indices addObject:[NSNumber numberWithUnsignedLong:i]];
    }
    return KILN_OK;
}

static enum kiln_status bind_steps(struct call *call) {
    const struct apple *apple = call->apple;
    struct kiln_npu_program *program = call->program;
    NSMutableArray *inputs = [NSMutableArray array], *outputs = [NSMutableArray array];
    NSMutableArray *in_at = [NSMutableArray array], *out_at = [NSMutableArray array];
    const size_t n = program->n_requests;
    id *requests = kiln_realloc(program->requests, n, n + 1, sizeof *requests);
    CALL_REQUIRE(requests, call, KILN_ENOMEM, "no memory for binding %zu", n);
    program->requests = requests;
    KILN_TRY(wrap(call, call->inputs, call->n_inputs, inputs, in_at));
    KILN_TRY(wrap(call, call->outputs, call->n_outputs, outputs, out_at));
    requests[n] = [KILN_SEND(id, (id, SEL, id, id, id, id, id, id, id), (id)apple->classes[REQUEST],
                             apple->sel[MAKE_REQUEST], inputs, in_at, outputs, out_at, nil, nil,
                             [NSNumber numberWithInt:0]) retain];
    CALL_REQUIRE(requests[n], call, KILN_EDEVICE,
                 "requestWithInputs gave no request for %zu inputs and %zu outputs", call->n_inputs,
                 call->n_outputs);
    call->binding = program->n_requests++;
    return KILN_OK;
}

/* ---- evaluate -------------------------------------------------------------------------------- */

static enum kiln_status evaluate_steps(struct call *call) {
    const struct apple *apple = call->apple;
    NSError *error = nil;
    const BOOL done = KILN_SEND(BOOL, (id, SEL, unsigned, id, id, NSError **),
                                call->program->image.model, apple->sel[EVALUATE], call->qos,
                                apple->options, call->program->requests[call->binding], &error);
    CALL_REQUIRE(done, call, KILN_EDEVICE,
                 "evaluateWithQoS failed: %s; its outputs are not to be used. Status 0x1d: a "
                 "surface is too small, or surfaces differ in size",
                 kiln_apple_words(error));
    return KILN_OK;
}

/* ---- release --------------------------------------------------------------------------------- */

static enum kiln_status unload_steps(struct call *call) {
    const struct apple *apple = call->apple;
    NSError *error = nil;
    const BOOL done = KILN_SEND(BOOL, (id, SEL, unsigned, NSError **), call->program->image.model,
                                apple->sel[UNLOAD], QOS, &error);
    CALL_REQUIRE(done, call, KILN_EDEVICE,
                 "unloadWithQoS failed: %s; loads of this process may fail from now on: start it "
                 "again",
                 kiln_apple_words(error));
    return KILN_OK;
}

/* Folder first, then the objects: the order that works. */
static enum kiln_status drop_image(struct call *call) {
    struct image *image = call->fresh;
    const enum kiln_status status = kiln_staging_close(&image->staging, call->err);
    id model = image->model, descriptor = image->descriptor;
    image->model = image->descriptor = nil;
    [model release];
    [descriptor release];
    return status;
}

static enum kiln_status drop_bindings(struct call *call) {
    struct kiln_npu_program *program = call->program;
    while (program->n_requests > 0) {
        [program->requests[--program->n_requests] release];
    }
    [program->text release];
    program->text = nil;
    return KILN_OK;
}

/* What goes wrong is kept for kiln_npu_trouble. */
static void try_to(struct call *call, enum kiln_status (*steps)(struct call *call)) {
    if (kiln_apple_guarded(call, steps) != KILN_OK) {
        kiln_npu_note_trouble(&call->apple->base, call->err);
    }
}

/* Unload, then drop an image of a program; what goes wrong is kept and stops nothing. */
static void retire(struct apple *apple, struct kiln_npu_program *program, struct image *image,
                   bool loaded) {
    struct kiln_err err;
    struct call call = {
        .apple = apple,
        .program = program,
        .label = program->label,
        .doing = "unload",
        .err = &err,
        .fresh = image,
    };
    if (loaded) {
        try_to(&call, unload_steps);
    }
    call.doing = "release";
    try_to(&call, drop_image);
}

void kiln_apple_release(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program) {
    struct apple *apple = (struct apple *)runtime;
    const bool loaded = program->loaded;
    retire(apple, program, &program->image, loaded);
    if (loaded) {
        __atomic_fetch_sub(&runtime->loaded, 1, __ATOMIC_RELAXED);
    }
    struct kiln_err err;
    struct call call = {
        .apple = apple,
        .program = program,
        .label = program->label,
        .doing = "release",
        .err = &err,
    };
    try_to(&call, drop_bindings);
    kiln_free(program->requests);
    kiln_free(program);
}

/* ---- reload ---------------------------------------------------------------------------------- */

/* A model of the same text with other weights, which finds in its folder what the compiler wrote
 * for the old one. */
static enum kiln_status reload_steps(struct call *call) {
    struct kiln_npu_program *program = call->program;
    KILN_TRY(make_image(call, program->text, call->weights, call->n_weights, call->fresh));
    KILN_TRY(kiln_staging_patch(&call->fresh->staging, &program->image.staging, call->weights,
                                call->n_weights, call->err));
    return load_model(call, call->fresh->model);
}

enum kiln_status kiln_apple_reload(struct kiln_npu_runtime *runtime,
                                   struct kiln_npu_program *program,
                                   const struct kiln_npu_weight *weights, size_t n_weights,
                                   struct kiln_err *err) {
    struct apple *apple = (struct apple *)runtime;
    struct image fresh = {.staging = {.lock = -1}};
    struct call call = {
        .apple = apple,
        .program = program,
        .label = program->label,
        .doing = "reload",
        .err = err,
        .weights = weights,
        .n_weights = n_weights,
        .fresh = &fresh,
    };
    CALL_REQUIRE(program->loaded, &call, KILN_EINTERNAL, "the program is not loaded");
    const enum kiln_status status = kiln_apple_guarded(&call, reload_steps);
    if (status != KILN_OK) {
        retire(apple, program, &fresh, false);
        return status;
    }
    struct image old = program->image;
    retire(apple, program, &old, true);
    program->image = fresh;
    return KILN_OK;
}

/* ---- the other entries ----------------------------------------------------------------------- */

enum kiln_status kiln_apple_compile(struct kiln_npu_runtime *runtime,
                                    const struct kiln_npu_source *source,
                                    struct kiln_npu_program **out, struct kiln_err *err) {
    struct apple *apple = (struct apple *)runtime;
    struct kiln_npu_program *program = kiln_alloc(1, sizeof *program);
    *out = NULL;
    KILN_REQUIRE(program, err, KILN_ENOMEM, "%s: compile: no memory", source->label);
    program->image.staging.lock = -1;
    snprintf(program->label, sizeof program->label, "%s", source->label);
    struct call call = {
        .apple = apple,
        .program = program,
        .label = program->label,
        .doing = "compile",
        .err = err,
        .source = source,
    };
    const enum kiln_status status = kiln_apple_guarded(&call, compile_steps);
    if (status != KILN_OK) {
        kiln_apple_release(runtime, program);
        return status;
    }
    __atomic_fetch_add(&runtime->compiles, 1, __ATOMIC_RELAXED);
    *out = program;
    return KILN_OK;
}

enum kiln_status kiln_apple_load(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                                 struct kiln_err *err) {
    struct call call = {
        .apple = (struct apple *)runtime,
        .program = program,
        .label = program->label,
        .doing = "load",
        .err = err,
    };
    CALL_REQUIRE(!program->loaded, &call, KILN_EINTERNAL, "the program is loaded already");
    const enum kiln_status status = kiln_apple_guarded(&call, load_steps);
    if (status != KILN_OK) {
        retire(call.apple, program, &program->image, false);
        return status;
    }
    program->loaded = true;
    __atomic_fetch_add(&runtime->loaded, 1, __ATOMIC_RELAXED);
    return KILN_OK;
}

enum kiln_status kiln_apple_bind(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                                 struct kiln_npu_surface *const *inputs, size_t n_inputs,
                                 struct kiln_npu_surface *const *outputs, size_t n_outputs,
                                 size_t *binding, struct kiln_err *err) {
    struct call call = {
        .apple = (struct apple *)runtime,
        .program = program,
        .label = program->label,
        .doing = "bind",
        .err = err,
        .inputs = inputs,
        .outputs = outputs,
        .n_inputs = n_inputs,
        .n_outputs = n_outputs,
    };
    CALL_REQUIRE(program->loaded, &call, KILN_EINTERNAL, "the program is not loaded");
    KILN_TRY(kiln_apple_guarded(&call, bind_steps));
    *binding = call.binding;
    return KILN_OK;
}

enum kiln_status kiln_apple_evaluate_at(struct kiln_npu_runtime *runtime,
                                        struct kiln_npu_program *program, size_t binding,
                                        unsigned qos, struct kiln_err *err) {
    struct call call = {
        .apple = (struct apple *)runtime,
        .program = program,
        .label = program->label,
        .doing = "evaluate",
        .err = err,
        .binding = binding,
        .qos = qos,
    };
    CALL_REQUIRE(program->loaded && binding < program->n_requests, &call, KILN_EINTERNAL,
                 "binding %zu of %zu of a program that is%s loaded", binding, program->n_requests,
                 program->loaded ? "" : " not");
    return kiln_apple_guarded(&call, evaluate_steps);
}

enum kiln_status kiln_apple_evaluate(struct kiln_npu_runtime *runtime,
                                     struct kiln_npu_program *program, size_t binding,
                                     struct kiln_err *err) {
    return kiln_apple_evaluate_at(runtime, program, binding, QOS, err);
}

/* SPDX-License-Identifier: MIT
 *
 * apple.m: see apple.h. Objective-C without ARC: what is kept is retained, and released in
 * drop_image and drop_bindings.
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
#include "device/ane/apple.h"

#import <Foundation/Foundation.h>
#include <IOSurface/IOSurface.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "device/ane/objc_call.h"
#include "device/ane/self_test.h"
#include "device/ane/staging.h"

#define QOS             21u     /* the default level */
#define RETRY_LOAD_US   100000u /* between the two attempts to load */
#define OUT_OF_PROGRAMS 0x50004 /* the error code of a load beyond what the device holds */

struct kiln_apple_names kiln_apple_names = {
    .framework = "/System/Library/PrivateFrameworks/AppleNeuralEngine.framework/AppleNeuralEngine",
    .descriptor = "_ANEInMemoryModelDescriptor",
    .model = "_ANEInMemoryModel",
    .request = "_ANERequest",
    .surface = "_ANEIOSurfaceObject",
};

/* ---- classes and methods --------------------------------------------------------------------- */

enum { DESCRIPTOR, MODEL, REQUEST, SURFACE, CLASSES };

/* id, whose, of the class or its instances, selector */
#define METHODS(XX)                                                                    \
    XX(DESCRIBE, DESCRIPTOR, true, "modelWithMILText:weights:optionsPlist:")           \
    XX(MAKE_MODEL, MODEL, true, "inMemoryModelWithDescriptor:")                        \
    XX(DIGEST, MODEL, false, "hexStringIdentifier")                                    \
    XX(COMPILE, MODEL, false, "compileWithQoS:options:error:")                         \
    XX(LOAD, MODEL, false, "loadWithQoS:options:error:")                               \
    XX(EVALUATE, MODEL, false, "evaluateWithQoS:options:request:error:")               \
    XX(UNLOAD, MODEL, false, "unloadWithQoS:error:")                                   \
    XX(WRAP, SURFACE, true, "objectWithIOSurface:")                                    \
    XX(MAKE_REQUEST, REQUEST, true,                                                    \
       "requestWithInputs:inputIndices:outputs:outputIndices:weightsBuffer:perfStats:" \
       "procedureIndex:")

enum {
#define METHOD_ID(id, class, of_class, name) id,
    METHODS(METHOD_ID)
#undef METHOD_ID
        METHOD_COUNT
};

static const struct method {
    int class;
    bool of_class;
    const char *name;
} methods[METHOD_COUNT] = {
#define METHOD_ENTRY(id, class, of_class, name) {class, of_class, name},
    METHODS(METHOD_ENTRY)
#undef METHOD_ENTRY
};

struct apple {
    struct kiln_npu_runtime base;
    Class classes[CLASSES];
    SEL sel[METHOD_COUNT];
    NSDictionary *options; /* empty */
};

struct kiln_npu_surface {
    IOSurfaceRef surface;
    size_t bytes;
    void *base; /* since it was first locked */
};

/* A compiled program's objects; a reload makes new ones. */
struct image {
    id descriptor, model;
    struct kiln_staging staging;
};

struct kiln_npu_program {
    char label[64];
    NSData *text;
    struct image image;
    bool loaded;
    id *requests; /* of the bindings */
    size_t n_requests;
};

/* ---- what every entry shares ----------------------------------------------------------------- */

struct call {
    struct apple *apple;
    struct kiln_npu_program *program;
    const char *label, *doing; /* for messages: "layer 3, attn_fwd", "compile" */
    struct kiln_err *err;

    const struct kiln_npu_source *source;
    struct kiln_npu_surface *const *inputs, *const *outputs;
    size_t n_inputs, n_outputs;
    size_t binding;
    const struct kiln_npu_weight *weights;
    size_t n_weights;
    struct kiln_npu_surface *surface;
    struct image *fresh;
};

/* Fail with "label: what was done: ..." */
#define CALL_FAIL(call, code, fmt, ...) \
    KILN_FAIL((call)->err, code, "%s: %s: " fmt, (call)->label, (call)->doing, ##__VA_ARGS__)
#define CALL_REQUIRE(cond, call, code, fmt, ...)                \
    do {                                                        \
        if (!(cond)) {                                          \
            return CALL_FAIL((call), code, fmt, ##__VA_ARGS__); \
        }                                                       \
    } while (0)

/* Run steps with a pool of their own; an exception becomes a failure. */
static enum kiln_status guarded(struct call *call, enum kiln_status (*steps)(struct call *call)) {
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    enum kiln_status status = KILN_OK;
    @try {
        status = steps(call);
    } @catch (id thrown) {
        const bool known = [thrown isKindOfClass:[NSException class]];
        NSString *why = known ? [thrown reason] : [thrown description];
        status = CALL_FAIL(call, KILN_EDEVICE, "the system raised %s: %s",
                           known ? [[thrown name] UTF8String] : "an object",
                           why ? [why UTF8String] : "no reason given");
    }
    [pool drain];
    return status;
}

/* Apple's own words; valid as long as the pool. */
static const char *words(NSError *error) {
    if (!error) {
        return "no reason given";
    }
    NSString *text =
        [NSString stringWithFormat:@"%@ (%@, code %ld, 0x%lx)", [error localizedDescription],
                                   [error domain], (long)[error code], (unsigned long)[error code]];
    return [text UTF8String];
}

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
                 words(error), apple->base.compiles);
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
                     words(error), apple->base.loaded);
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
                                call->program->image.model, apple->sel[EVALUATE], QOS,
                                apple->options, call->program->requests[call->binding], &error);
    CALL_REQUIRE(done, call, KILN_EDEVICE,
                 "evaluateWithQoS failed: %s; its outputs are not to be used. Status 0x1d: a "
                 "surface is too small, or surfaces differ in size",
                 words(error));
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
                 words(error));
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

/* Unload, then drop an image of a program; what goes wrong is kept and stops nothing. */
static void retire(struct apple *apple, struct kiln_npu_program *program, struct image *image,
                   bool loaded) {
    struct call call = {
        .apple = apple,
        .program = program,
        .label = program->label,
        .doing = "unload",
        .err = &apple->base.trouble,
        .fresh = image,
    };
    if (loaded) {
        (void)guarded(&call, unload_steps);
    }
    call.doing = "release";
    (void)guarded(&call, drop_image);
}

static void program_release(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program) {
    struct apple *apple = (struct apple *)runtime;
    const bool loaded = program->loaded;
    retire(apple, program, &program->image, loaded);
    if (loaded) {
        __atomic_fetch_sub(&runtime->loaded, 1, __ATOMIC_RELAXED);
    }
    struct call call = {
        .apple = apple,
        .program = program,
        .label = program->label,
        .doing = "release",
        .err = &runtime->trouble,
    };
    (void)guarded(&call, drop_bindings);
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

static enum kiln_status program_reload(struct kiln_npu_runtime *runtime,
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
    const enum kiln_status status = guarded(&call, reload_steps);
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

static enum kiln_status program_compile(struct kiln_npu_runtime *runtime,
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
    const enum kiln_status status = guarded(&call, compile_steps);
    if (status != KILN_OK) {
        program_release(runtime, program);
        return status;
    }
    __atomic_fetch_add(&runtime->compiles, 1, __ATOMIC_RELAXED);
    *out = program;
    return KILN_OK;
}

static enum kiln_status program_load(struct kiln_npu_runtime *runtime,
                                     struct kiln_npu_program *program, struct kiln_err *err) {
    struct call call = {
        .apple = (struct apple *)runtime,
        .program = program,
        .label = program->label,
        .doing = "load",
        .err = err,
    };
    CALL_REQUIRE(!program->loaded, &call, KILN_EINTERNAL, "the program is loaded already");
    const enum kiln_status status = guarded(&call, load_steps);
    if (status != KILN_OK) {
        retire(call.apple, program, &program->image, false);
        return status;
    }
    program->loaded = true;
    __atomic_fetch_add(&runtime->loaded, 1, __ATOMIC_RELAXED);
    return KILN_OK;
}

static enum kiln_status program_bind(struct kiln_npu_runtime *runtime,
                                     struct kiln_npu_program *program,
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
    KILN_TRY(guarded(&call, bind_steps));
    *binding = call.binding;
    return KILN_OK;
}

static enum kiln_status program_evaluate(struct kiln_npu_runtime *runtime,
                                         struct kiln_npu_program *program, size_t binding,
                                         struct kiln_err *err) {
    struct call call = {
        .apple = (struct apple *)runtime,
        .program = program,
        .label = program->label,
        .doing = "evaluate",
        .err = err,
        .binding = binding,
    };
    CALL_REQUIRE(program->loaded && binding < program->n_requests, &call, KILN_EINTERNAL,
                 "binding %zu of %zu of a program that is%s loaded", binding, program->n_requests,
                 program->loaded ? "" : " not");
    return guarded(&call, evaluate_steps);
}

/* ---- surfaces -------------------------------------------------------------------------------- */

static enum kiln_status open_steps(struct call *call) {
    struct kiln_npu_surface *surface = call->surface;
    NSNumber *bytes = [NSNumber numberWithUnsignedLong:surface->bytes];
    NSNumber *one = [NSNumber numberWithInt:1];
    NSDictionary *properties = [NSDictionary
        dictionaryWithObjectsAndKeys:bytes, (id)kIOSurfaceWidth, one, (id)kIOSurfaceHeight, one,
                                     (id)kIOSurfaceBytesPerElement, bytes,
                                     (id)kIOSurfaceBytesPerRow, bytes, (id)kIOSurfaceAllocSize,
                                     [NSNumber numberWithInt:0], (id)kIOSurfacePixelFormat, nil];
    surface->surface = IOSurfaceCreate((CFDictionaryRef)properties);
    CALL_REQUIRE(surface->surface, call, KILN_EDEVICE,
                 "IOSurfaceCreate gave no surface of %zu bytes; is there so much memory?",
                 surface->bytes);
    return KILN_OK;
}

static enum kiln_status surface_open(struct kiln_npu_runtime *runtime, size_t bytes,
                                     struct kiln_npu_surface **out, struct kiln_err *err) {
    struct kiln_npu_surface *surface = kiln_alloc(1, sizeof *surface);
    *out = NULL;
    KILN_REQUIRE(surface, err, KILN_ENOMEM, "surface of %zu bytes: no memory", bytes);
    surface->bytes = bytes;
    struct call call = {
        .apple = (struct apple *)runtime,
        .label = runtime->name,
        .doing = "surface",
        .err = err,
        .surface = surface,
    };
    const enum kiln_status status = guarded(&call, open_steps);
    if (status != KILN_OK) {
        kiln_free(surface);
        return status;
    }
    *out = surface;
    return KILN_OK;
}

static void surface_close(struct kiln_npu_runtime *runtime, struct kiln_npu_surface *surface) {
    (void)runtime;
    CFRelease(surface->surface);
    kiln_free(surface);
}

static void *surface_lock(struct kiln_npu_runtime *runtime, struct kiln_npu_surface *surface,
                          bool read_only, struct kiln_err *err) {
    const uint32_t how = read_only ? kIOSurfaceLockReadOnly : 0;
    const long result = (long)IOSurfaceLock(surface->surface, how, NULL);
    void *base = result == 0 ? IOSurfaceGetBaseAddress(surface->surface) : NULL;
    if (base && (!surface->base || surface->base == base)) {
        surface->base = base;
        return base;
    }
    if (result == 0) {
        (void)IOSurfaceUnlock(surface->surface, how, NULL);
    }
    (void)KILN_FAIL(err, KILN_EDEVICE,
                    "%s: lock a surface of %zu bytes to %s: IOSurfaceLock gave 0x%lx, its bytes "
                    "are at %p and were at %p",
                    runtime->name, surface->bytes, read_only ? "read" : "write",
                    (unsigned long)result, base, surface->base);
    return NULL;
}

static enum kiln_status surface_unlock(struct kiln_npu_runtime *runtime,
                                       struct kiln_npu_surface *surface, bool read_only,
                                       struct kiln_err *err) {
    const uint32_t how = read_only ? kIOSurfaceLockReadOnly : 0;
    const long result = (long)IOSurfaceUnlock(surface->surface, how, NULL);
    KILN_REQUIRE(
        result == 0, err, KILN_EDEVICE,
        "%s: unlock a surface of %zu bytes: IOSurfaceUnlock gave 0x%lx; the device may not "
        "see what was written",
        runtime->name, surface->bytes, (unsigned long)result);
    return KILN_OK;
}

/* ---- open ------------------------------------------------------------------------------------ */

static enum kiln_status find_classes(struct call *call) {
    struct apple *apple = call->apple;
    const char *const names[CLASSES] = {
        [DESCRIPTOR] = kiln_apple_names.descriptor,
        [MODEL] = kiln_apple_names.model,
        [REQUEST] = kiln_apple_names.request,
        [SURFACE] = kiln_apple_names.surface,
    };
    CALL_REQUIRE(dlopen(kiln_apple_names.framework, RTLD_NOW), call, KILN_EUNSUPPORTED,
                 "%s; this system has no Neural Engine: use --device cpu", dlerror());
    for (int i = 0; i < CLASSES; i++) {
        apple->classes[i] = NSClassFromString([NSString stringWithUTF8String:names[i]]);
        CALL_REQUIRE(apple->classes[i], call, KILN_EUNSUPPORTED,
                     "class %s is missing from %s: this system's is another one; use --device cpu",
                     names[i], kiln_apple_names.framework);
    }
    for (int i = 0; i < METHOD_COUNT; i++) {
        const struct method *method = &methods[i];
        const Class class = apple->classes[method->class];
        apple->sel[i] = NSSelectorFromString([NSString stringWithUTF8String:method->name]);
        CALL_REQUIRE(method->of_class ? [class respondsToSelector:apple->sel[i]]
                                      : [class instancesRespondToSelector:apple->sel[i]],
                     call, KILN_EUNSUPPORTED,
                     "%s of class %s is missing: this system's has another interface; use --device "
                     "cpu",
                     method->name, names[method->class]);
    }
    apple->options = [[NSDictionary alloc] init];
    return KILN_OK;
}

static enum kiln_status close_steps(struct call *call) {
    [call->apple->options release];
    return KILN_OK;
}

static void close_runtime(struct kiln_npu_runtime *runtime) {
    struct call call = {.apple = (struct apple *)runtime, .label = "ane", .doing = "close"};
    (void)guarded(&call, close_steps);
    kiln_free(runtime);
}

static const struct kiln_npu_runtime_ops ops = {
    .close = close_runtime,
    .compile = program_compile,
    .load = program_load,
    .bind = program_bind,
    .evaluate = program_evaluate,
    .release = program_release,
    .reload = program_reload,
    .surface_open = surface_open,
    .surface_close = surface_close,
    .lock = surface_lock,
    .unlock = surface_unlock,
};

enum kiln_status kiln_apple_open(struct kiln_npu_runtime **out, struct kiln_err *err) {
    struct apple *apple = kiln_alloc(1, sizeof *apple);
    *out = NULL;
    KILN_REQUIRE(apple, err, KILN_ENOMEM, "ane: open: no memory");
    apple->base.ops = &ops;
    apple->base.name = "ane";
    snprintf(apple->base.description, sizeof apple->base.description, "Apple Neural Engine");
    struct call call = {.apple = apple, .label = "ane", .doing = "open", .err = err};
    enum kiln_status status = guarded(&call, find_classes);
    if (status == KILN_OK) {
        status = kiln_npu_self_test(&apple->base, err);
    }
    if (status == KILN_OK && apple->base.trouble.code != KILN_OK) {
        status = CALL_FAIL(&call, apple->base.trouble.code, "%s", apple->base.trouble.message);
    }
    if (status != KILN_OK) {
        close_runtime(&apple->base);
        return status;
    }
    *out = &apple->base;
    return KILN_OK;
}

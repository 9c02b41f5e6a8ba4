/* SPDX-License-Identifier: MIT
 *
 * apple.m: opens Apple's runtime (apple.h), and its surfaces; programs are in apple_program.m.
 * Objective-C without ARC: what is kept is retained.
 */
#include <dlfcn.h>
#include <stdio.h>

#include "base/mem.h"
#include "device/ane/apple_int.h"
#include "device/ane/self_test.h"

struct kiln_apple_names kiln_apple_names = {
    .framework = "/System/Library/PrivateFrameworks/AppleNeuralEngine.framework/AppleNeuralEngine",
    .descriptor = "_ANEInMemoryModelDescriptor",
    .model = "_ANEInMemoryModel",
    .request = "_ANERequest",
    .surface = "_ANEIOSurfaceObject",
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

/* ---- what every entry shares ----------------------------------------------------------------- */

enum kiln_status kiln_apple_guarded(struct call *call,
                                    enum kiln_status (*steps)(struct call *call)) {
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

const char *kiln_apple_words(NSError *error) {
    if (!error) {
        return "no reason given";
    }
    NSString *text =
        [NSString stringWithFormat:@"%@ (%@, code %ld, 0x%lx)", [error localizedDescription],
                                   [error domain], (long)[error code], (unsigned long)[error code]];
    return [text UTF8String];
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
    const enum kiln_status status = kiln_apple_guarded(&call, open_steps);
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
    kiln_staging_sweep([NSTemporaryDirectory() UTF8String]);
    return KILN_OK;
}

/* Whoever died beside this process may be the last to be heard of. */
static enum kiln_status close_steps(struct call *call) {
    [call->apple->options release];
    kiln_staging_sweep([NSTemporaryDirectory() UTF8String]);
    return KILN_OK;
}

static void close_runtime(struct kiln_npu_runtime *runtime) {
    struct call call = {.apple = (struct apple *)runtime, .label = "ane", .doing = "close"};
    (void)kiln_apple_guarded(&call, close_steps);
    kiln_free(runtime);
}

static const struct kiln_npu_runtime_ops ops = {
    .close = close_runtime,
    .compile = kiln_apple_compile,
    .load = kiln_apple_load,
    .bind = kiln_apple_bind,
    .evaluate = kiln_apple_evaluate,
    .evaluate_at = kiln_apple_evaluate_at,
    .chain = kiln_apple_chain,
    .release = kiln_apple_release,
    .reload = kiln_apple_reload,
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
    enum kiln_status status = kiln_apple_guarded(&call, find_classes);
    if (status == KILN_OK) {
        status = kiln_npu_self_test(&apple->base, err);
    }
    const struct kiln_err *trouble = kiln_npu_trouble(&apple->base);
    if (status == KILN_OK && trouble) {
        status = CALL_FAIL(&call, trouble->code, "%s", trouble->message);
    }
    if (status != KILN_OK) {
        close_runtime(&apple->base);
        return status;
    }
    *out = &apple->base;
    return KILN_OK;
}

/* SPDX-License-Identifier: MIT
 *
 * apple_int.h: what apple.m (opening, surfaces) and apple_program.m (programs) share.
 */
#ifndef KILN_DEVICE_ANE_APPLE_INT_H
#define KILN_DEVICE_ANE_APPLE_INT_H

#import <Foundation/Foundation.h>
#include <IOSurface/IOSurface.h>

#include "device/ane/apple.h"
#include "device/ane/staging.h"

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
    unsigned qos; /* of evaluations */
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
enum kiln_status kiln_apple_guarded(struct call *call,
                                    enum kiln_status (*steps)(struct call *call));
/* Apple's own words; valid as long as the pool. */
const char *kiln_apple_words(NSError *error);

/* Operations of programs (runtime.h). */
enum kiln_status kiln_apple_compile(struct kiln_npu_runtime *runtime,
                                    const struct kiln_npu_source *source,
                                    struct kiln_npu_program **out, struct kiln_err *err);
enum kiln_status kiln_apple_load(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                                 struct kiln_err *err);
enum kiln_status kiln_apple_bind(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                                 struct kiln_npu_surface *const *inputs, size_t n_inputs,
                                 struct kiln_npu_surface *const *outputs, size_t n_outputs,
                                 size_t *binding, struct kiln_err *err);
enum kiln_status kiln_apple_evaluate(struct kiln_npu_runtime *runtime,
                                     struct kiln_npu_program *program, size_t binding,
                                     struct kiln_err *err);
enum kiln_status kiln_apple_evaluate_at(struct kiln_npu_runtime *runtime,
                                        struct kiln_npu_program *program, size_t binding,
                                        unsigned qos, struct kiln_err *err);
/* apple_chain.m */
enum kiln_status kiln_apple_chain(struct kiln_npu_runtime *runtime,
                                  struct kiln_npu_program *program, struct kiln_npu_surface *in,
                                  struct kiln_npu_surface *out, struct kiln_err *err);
enum kiln_status kiln_apple_reload(struct kiln_npu_runtime *runtime,
                                   struct kiln_npu_program *program,
                                   const struct kiln_npu_weight *weights, size_t n_weights,
                                   struct kiln_err *err);
void kiln_apple_release(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program);

#endif

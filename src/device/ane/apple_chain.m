/* SPDX-License-Identifier: MIT
 *
 * apple_chain.m: asks Apple's runtime for a chain, by which the device would run program after
 * program by itself. Nobody got one for a program from memory (docs/neural-engine.md); the answer
 * is what a probe wants. Classes and methods are looked up when it asks: nothing else needs them.
 */
#include "device/ane/apple_int.h"
#include "device/ane/objc_call.h"

#define QOS         21u
#define STATS_BYTES 64 /* of the surface for statistics: the least that is taken */

enum { CLIENT, CHAIN, BUFFER, SETS, CHAIN_CLASSES };

static SEL selector(const char *name) {
    return NSSelectorFromString([NSString stringWithUTF8String:name]);
}

static enum kiln_status find(struct call *call, Class *classes) {
    static const char *const names[CHAIN_CLASSES] = {
        [CLIENT] = "_ANEClient",
        [CHAIN] = "_ANEChainingRequest",
        [BUFFER] = "_ANEBuffer",
        [SETS] = "_ANEIOSurfaceOutputSets",
    };
    for (int i = 0; i < CHAIN_CLASSES; i++) {
        classes[i] = NSClassFromString([NSString stringWithUTF8String:names[i]]);
        CALL_REQUIRE(classes[i], call, KILN_EUNSUPPORTED, "class %s is missing", names[i]);
    }
    return KILN_OK;
}

static enum kiln_status buffer(struct call *call, Class class, struct kiln_npu_surface *surface,
                               long source, id *out) {
    const struct apple *apple = call->apple;
    id wrapper = KILN_SEND(id, (id, SEL, IOSurfaceRef), (id)apple->classes[SURFACE],
                           apple->sel[WRAP], surface->surface);
    CALL_REQUIRE(wrapper, call, KILN_EDEVICE, "objectWithIOSurface gave nothing");
    *out = KILN_SEND(id, (id, SEL, id, id, long long), (id) class,
                     selector("bufferWithIOSurfaceObject:symbolIndex:source:"), wrapper,
                     [NSNumber numberWithInt:0], source);
    CALL_REQUIRE(*out, call, KILN_EDEVICE, "bufferWithIOSurfaceObject gave no buffer");
    return KILN_OK;
}

static enum kiln_status chain_steps(struct call *call) {
    Class classes[CHAIN_CLASSES];
    KILN_TRY(find(call, classes));
    NSNumber *zero = [NSNumber numberWithInt:0];
    id in = nil, out = nil;
    KILN_TRY(buffer(call, classes[BUFFER], call->inputs[0], 0, &in));
    KILN_TRY(buffer(call, classes[BUFFER], call->outputs[0], 1, &out));
    id set = KILN_SEND(id, (id, SEL, IOSurfaceRef, id), (id)classes[SETS],
                       selector("objectWithstatsSurRef:outputBuffer:"), call->surface->surface,
                       [NSArray arrayWithObject:out]);
    CALL_REQUIRE(set, call, KILN_EDEVICE, "objectWithstatsSurRef gave no output set");
    id request = KILN_SEND(id, (id, SEL, id, id, id, id, id, id, id, id, id), (id)classes[CHAIN],
                           selector("chainingRequestWithInputs:outputSets:lbInputSymbolId:"
                                    "lbOutputSymbolId:procedureIndex:signalEvents:"
                                    "transactionHandle:fwEnqueueDelay:memoryPoolId:"),
                           [NSArray arrayWithObject:in], [NSArray arrayWithObject:set], nil, nil,
                           nil, [NSArray array], zero, zero, zero);
    CALL_REQUIRE(request, call, KILN_EDEVICE, "chainingRequestWithInputs gave no request");
    CALL_REQUIRE(KILN_SEND(BOOL, (id, SEL), request, selector("validate")), call, KILN_EDEVICE,
                 "the request is not valid");
    id client = KILN_SEND(id, (id, SEL), (id)classes[CLIENT], selector("sharedConnection"));
    CALL_REQUIRE(client, call, KILN_EDEVICE, "sharedConnection gave no client");
    id model = call->program->image.model;
    if ([model respondsToSelector:selector("model")]) { /* the one behind the one from memory */
        model = KILN_SEND(id, (id, SEL), model, selector("model"));
    }
    NSError *error = nil;
    const BOOL done = KILN_SEND(BOOL, (id, SEL, id, id, id, unsigned, NSError **), client,
                                selector("prepareChainingWithModel:options:chainingReq:qos:error:"),
                                model, call->apple->options, request, QOS, &error);
    CALL_REQUIRE(done, call, KILN_EDEVICE, "prepareChainingWithModel failed: %s",
                 kiln_apple_words(error));
    return KILN_OK;
}

enum kiln_status kiln_apple_chain(struct kiln_npu_runtime *runtime,
                                  struct kiln_npu_program *program, struct kiln_npu_surface *in,
                                  struct kiln_npu_surface *out, struct kiln_err *err) {
    struct kiln_npu_surface *stats;
    KILN_TRY(runtime->ops->surface_open(runtime, STATS_BYTES, &stats, err));
    struct call call = {
        .apple = (struct apple *)runtime,
        .program = program,
        .label = program->label,
        .doing = "chain",
        .err = err,
        .inputs = &in,
        .n_inputs = 1,
        .outputs = &out,
        .n_outputs = 1,
        .surface = stats,
    };
    const enum kiln_status status =
        program->loaded ? kiln_apple_guarded(&call, chain_steps)
                        : CALL_FAIL(&call, KILN_EINTERNAL, "the program is not loaded");
    runtime->ops->surface_close(runtime, stats);
    return status;
}

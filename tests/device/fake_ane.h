/* SPDX-License-Identifier: MIT
 *
 * fake_ane.h: Apple's Neural Engine for tests on Linux: fakes of the four classes and of IOSurface
 * that compute with the simulator, check whoever calls them, and fail on command.
 *
 * Where they are linked in, kiln_apple_runtime is set, so `--device ane` runs. A caller that breaks
 * a rule (order of calls, staged bytes, modes, locks, retains) ends the process with a message: a
 * test that survives kept them all. Surfaces cannot be touched while they are not locked.
 */
#ifndef FAKE_ANE_H
#define FAKE_ANE_H

#include <stdbool.h>
#include <stddef.h>

#include "device/ane/runtime.h"

/* What can fail. Most give nil, NO or NULL; those that return BOOL set an NSError but the silent
 * ones. "staging": a file lies where the staging folder has to be. "numbers": the evaluation
 * succeeds and its outputs are wrong. "base": the surface has another address. */
#define FAKE_POINTS(XX)                  \
    XX(DESCRIPTOR, "descriptor")         \
    XX(MODEL, "model")                   \
    XX(DIGEST, "digest")                 \
    XX(STAGING, "staging")               \
    XX(COMPILE, "compile")               \
    XX(COMPILE_SILENT, "compile-silent") \
    XX(LOAD, "load")                     \
    XX(WRAPPER, "wrapper")               \
    XX(REQUEST, "request")               \
    XX(EVALUATE, "evaluate")             \
    XX(NUMBERS, "numbers")               \
    XX(UNLOAD, "unload")                 \
    XX(SURFACE, "surface")               \
    XX(LOCK, "lock")                     \
    XX(BASE, "base")                     \
    XX(UNLOCK, "unlock")                 \
    XX(CHAIN, "chain")

enum fake_point {
#define FAKE_ID(id, name) FAKE_##id,
    FAKE_POINTS(FAKE_ID)
#undef FAKE_ID
        FAKE_POINTS_COUNT
};
const char *fake_point_name(enum fake_point point);

/* The at-th call from now on (1: the next) and `times` - 1 behind it fail, or raise. times 0: none
 * fails any more. In a program: KILN_FAKE_ANE="compile@5 load@7x2 evaluate@3!", ! raises. */
void fake_fail(enum fake_point point, long at, long times, bool raises);
/* Calls of a point since then. */
long fake_calls(enum fake_point point);

/* What patching a program's files without a compile does. KILN_FAKE_RELOAD=works|stale|refused */
enum fake_reload { FAKE_RELOAD_WORKS, FAKE_RELOAD_STALE, FAKE_RELOAD_REFUSED };
extern enum fake_reload fake_reload;
/* The compiler leaves no net.plist or no data, or data without the weights. */
enum fake_files { FAKE_FILES_ALL, FAKE_FILES_NO_PLIST, FAKE_FILES_NO_DATA, FAKE_FILES_OTHER_DATA };
extern enum fake_files fake_files;
/* Does preparing a chain succeed? KILN_FAKE_CHAIN=works; else it fails, as it does for everybody.
 */
extern bool fake_chain;
extern size_t fake_compile_limit, fake_load_limit; /* of the process: 119 */

/* What is there now, and what was done since the process began. */
struct fake_counts {
    long descriptors, models, requests, wrappers, surfaces, locks, loaded, folders;
    long compiles, loads, evaluations, unloads;
};
struct fake_counts fake_count(void);

/* NSTemporaryDirectory, for as long as the process lives. */
const char *fake_temporary(void);

#endif

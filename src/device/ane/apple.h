/* SPDX-License-Identifier: MIT
 *
 * apple.h: Apple's Neural Engine as a runtime (runtime.h), through the private framework of macOS.
 *
 * Built into the library on a Mac only. Linux builds the same file into the tests, with gobjc,
 * GNUstep and fakes of Apple's classes and of IOSurface (tests/device/fake_ane.h).
 */
#ifndef KILN_DEVICE_ANE_APPLE_H
#define KILN_DEVICE_ANE_APPLE_H

#include "device/ane/runtime.h"

/* What is looked up when the runtime is opened. Tests put other names here. */
struct kiln_apple_names {
    const char *framework;
    const char *descriptor, *model, *request, *surface; /* classes */
};
extern struct kiln_apple_names kiln_apple_names;

/* Find framework, classes and methods, then let a known program prove the device (self_test.h).
 * KILN_EUNSUPPORTED names what this system lacks. */
KILN_MUST_CHECK enum kiln_status kiln_apple_open(struct kiln_npu_runtime **out,
                                                 struct kiln_err *err);

#endif

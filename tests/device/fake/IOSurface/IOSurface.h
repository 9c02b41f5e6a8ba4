/* SPDX-License-Identifier: MIT
 *
 * IOSurface.h: the part of Apple's header that kiln uses, for tests on Linux
 * (device/fake_iosurface.m).
 */
#ifndef FAKE_IOSURFACE_H
#define FAKE_IOSURFACE_H

#include <stddef.h>
#include <stdint.h>

typedef struct fake_surface *IOSurfaceRef;
typedef const void *CFTypeRef;
typedef const struct fake_dictionary *CFDictionaryRef; /* an NSDictionary */
typedef int IOReturn;

#define kIOSurfaceWidth           @"IOSurfaceWidth"
#define kIOSurfaceHeight          @"IOSurfaceHeight"
#define kIOSurfaceBytesPerElement @"IOSurfaceBytesPerElement"
#define kIOSurfaceBytesPerRow     @"IOSurfaceBytesPerRow"
#define kIOSurfaceAllocSize       @"IOSurfaceAllocSize"
#define kIOSurfacePixelFormat     @"IOSurfacePixelFormat"

enum { kIOSurfaceLockReadOnly = 1 };

IOSurfaceRef IOSurfaceCreate(CFDictionaryRef properties);
void CFRelease(CFTypeRef surface);
IOReturn IOSurfaceLock(IOSurfaceRef surface, uint32_t options, uint32_t *seed);
IOReturn IOSurfaceUnlock(IOSurfaceRef surface, uint32_t options, uint32_t *seed);
void *IOSurfaceGetBaseAddress(IOSurfaceRef surface);

#endif

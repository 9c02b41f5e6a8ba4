/* SPDX-License-Identifier: MIT
 *
 * fake_iosurface.m: IOSurface for tests: shared memory that can only be touched while it is locked,
 * and only be written while it is locked for writing.
 */
#import <Foundation/Foundation.h>

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/fake_int.h"

static void protect(IOSurfaceRef surface) {
    const int how = surface->write_locks > 0  ? PROT_READ | PROT_WRITE
                    : surface->read_locks > 0 ? PROT_READ
                                              : PROT_NONE;
    if (mprotect(surface->base, surface->mapped, how) != 0) {
        fake_broken("mprotect failed");
    }
}

static unsigned long property(NSDictionary *properties, NSString *key) {
    NSNumber *number = [properties objectForKey:key];
    if (![number isKindOfClass:[NSNumber class]]) {
        fake_broken("IOSurfaceCreate without %s", [key UTF8String]);
    }
    return [number unsignedLongValue];
}

IOSurfaceRef IOSurfaceCreate(CFDictionaryRef given) {
    NSDictionary *properties = (NSDictionary *)(uintptr_t)given;
    const unsigned long bytes = property(properties, kIOSurfaceWidth);
    if (property(properties, kIOSurfaceHeight) != 1 ||
        property(properties, kIOSurfaceBytesPerElement) != 1 ||
        property(properties, kIOSurfaceBytesPerRow) != bytes ||
        property(properties, kIOSurfaceAllocSize) != bytes ||
        property(properties, kIOSurfacePixelFormat) != 0 || [properties count] != 6 || bytes == 0) {
        fake_broken("IOSurfaceCreate with %s", [[properties description] UTF8String]);
    }
    if (fake_fails(FAKE_SURFACE)) {
        return NULL;
    }
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    IOSurfaceRef surface = calloc(1, sizeof *surface);
    *surface = (struct fake_surface){.bytes = bytes};
    surface->mapped = (bytes + page - 1) / page * page;
    surface->base = mmap(NULL, surface->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (surface->base == MAP_FAILED) {
        fake_broken("no memory for a surface of %lu bytes", bytes);
    }
    fake_counted(&fake_counts.surfaces, 1);
    return surface;
}

void fake_surface_wrap(IOSurfaceRef surface) { surface->wrappers++; }

void fake_surface_unwrap(IOSurfaceRef surface) { surface->wrappers--; }

void CFRelease(CFTypeRef released) {
    IOSurfaceRef surface = (IOSurfaceRef)(uintptr_t)released;
    if (surface->wrappers > 0) {
        fake_broken("a surface is closed while %ld wrappers hold it", surface->wrappers);
    }
    if (surface->read_locks + surface->write_locks != 0) {
        fake_broken("a surface is closed while it is locked");
    }
    if (surface->mirror) {
        struct kiln_npu_runtime *runtime = fake_backend();
        runtime->ops->surface_close(runtime, surface->mirror);
    }
    munmap(surface->base, surface->mapped);
    free(surface);
    fake_counted(&fake_counts.surfaces, -1);
}

/* kIOReturn codes of a busy and of a bad argument. */
enum { BUSY = (int)0xe00002d5, NOT_LOCKED = (int)0xe00002c2 };

IOReturn IOSurfaceLock(IOSurfaceRef surface, uint32_t options, uint32_t *seed) {
    (void)seed;
    if (options > kIOSurfaceLockReadOnly) {
        fake_broken("IOSurfaceLock with options %u", options);
    }
    if (surface->read_locks + surface->write_locks != 0) {
        fake_broken("a surface is locked twice");
    }
    if (fake_fails(FAKE_LOCK)) {
        return BUSY;
    }
    *(options ? &surface->read_locks : &surface->write_locks) = 1;
    fake_counted(&fake_counts.locks, 1);
    protect(surface);
    return 0;
}

/* A failure leaves it unlocked all the same, as there is nothing that a caller could do. */
IOReturn IOSurfaceUnlock(IOSurfaceRef surface, uint32_t options, uint32_t *seed) {
    (void)seed;
    long *lock = options ? &surface->read_locks : &surface->write_locks;
    if (*lock != 1) {
        fake_broken("IOSurfaceUnlock with options %u of a surface that is not locked so", options);
    }
    *lock = 0;
    fake_counted(&fake_counts.locks, -1);
    protect(surface);
    return fake_fails(FAKE_UNLOCK) ? NOT_LOCKED : 0;
}

void *IOSurfaceGetBaseAddress(IOSurfaceRef surface) {
    if (surface->read_locks + surface->write_locks == 0) {
        fake_broken("the bytes of a surface that is not locked are asked for");
    }
    return fake_fails(FAKE_BASE) ? NULL : surface->base;
}

/* What the device itself does. */
void fake_surface_open(IOSurfaceRef surface) {
    if (surface->read_locks + surface->write_locks != 0) {
        fake_broken("an evaluation while one of its surfaces is locked");
    }
    surface->write_locks = 1;
    protect(surface);
}

void fake_surface_shut(IOSurfaceRef surface) {
    surface->write_locks = 0;
    protect(surface);
}

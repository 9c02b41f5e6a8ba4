/* SPDX-License-Identifier: MIT
 *
 * fake_int.h: what the fake classes and the fake IOSurface share.
 */
#ifndef FAKE_INT_H
#define FAKE_INT_H

#include <IOSurface/IOSurface.h>

#include "device/fake_ane.h"

struct fake_surface {
    size_t bytes, mapped;
    void *base;
    long wrappers; /* that hold it */
    long read_locks, write_locks;
    struct kiln_npu_surface *mirror; /* the simulator's, from its first evaluation on */
};

/* The caller broke a rule. */
_Noreturn void fake_broken(const char *fmt, ...) KILN_PRINTF(1, 2);
/* Is this call to fail? The first: -1 to raise, 1 to fail; the second raises itself. */
int fake_verdict(enum fake_point point);
bool fake_fails(enum fake_point point);
extern struct fake_counts fake_counts;
void fake_counted(long *counter, long by);

/* What computes: the simulator, opened on first use, never closed. */
struct kiln_npu_runtime *fake_backend(void);
enum kiln_status fake_backend_open(struct kiln_npu_runtime **out, struct kiln_err *err);

/* The surface's memory, whatever is locked; open before touching it, shut afterwards. */
void fake_surface_open(IOSurfaceRef surface);
void fake_surface_shut(IOSurfaceRef surface);
void fake_surface_wrap(IOSurfaceRef surface);
void fake_surface_unwrap(IOSurfaceRef surface);

#endif

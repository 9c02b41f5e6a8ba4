/* SPDX-License-Identifier: MIT
 *
 * kill_point.h: places where a death is interesting.
 *
 * Each step of a commit, a guarded change and a durable write passes a point. A test sets the hook
 * and raises SIGKILL at the n-th; otherwise a point costs one load. Points are passed on any
 * thread.
 */
#ifndef KILN_BASE_KILL_POINT_H
#define KILN_BASE_KILL_POINT_H

#include <stddef.h>

extern void (*kiln_kill_hook)(const char *where);

static inline void kiln_kill_point(const char *where) {
    if (kiln_kill_hook) {
        kiln_kill_hook(where);
    }
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * kill_point.h: places where a death is interesting.
 *
 * Each step of a commit, a guarded change, a durable write and a hand-over passes a point, on
 * whatever thread. A point is named "kind: where"; kinds are commit, chunk (the journal), update,
 * outer (steps), turn, metrics, trace, window, checkpoint, durable, hand-over, incident, rollback,
 * and of the program relay. The tests count them and raise SIGKILL at the n-th
 * (tests/kill_points.h); otherwise a point costs one load, and nothing in the library reads the
 * environment for it.
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

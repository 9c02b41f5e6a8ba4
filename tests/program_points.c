/* SPDX-License-Identifier: MIT
 *
 * program_points.c: the points of cmd/, which knows nothing of the library's, count as those do.
 * Linked into build/MODE/kiln-test.
 */
#include "../cmd/relay.h"
#include "base/kill_point.h"
#include "kill_points.h"

__attribute__((constructor)) static void connect_points(void) {
    relay_role_hook = kill_points_role;
    relay_point_hook = kiln_kill_point;
}

/* SPDX-License-Identifier: MIT */
#include "base/kill_point.h"

void (*kiln_kill_hook)(const char *where);

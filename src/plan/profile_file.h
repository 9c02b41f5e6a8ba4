/* SPDX-License-Identifier: MIT
 *
 * profile_file.h: the profiles that ship with the library (profiles/), as the Makefile embeds them.
 */
#ifndef KILN_PLAN_PROFILE_FILE_H
#define KILN_PLAN_PROFILE_FILE_H

#include "kiln/plan.h"

/* A pass reaches this share of what products reach on operands in cache: the rest is attention,
 * norms, packing of activations, and memory (bench: stories15m to stories110m, 1 and 2 threads). */
#define KILN_PASS_SHARE 0.85

struct kiln_shipped_profile {
    const char *name; /* "m4"; NULL behind the last */
    const char *text; /* profile.json */
};
extern const struct kiln_shipped_profile kiln_shipped_profiles[];

/* Parse the text of a profile; `name` is what messages call it. */
KILN_MUST_CHECK enum kiln_status kiln_profile_parse(const char *name, const char *text, size_t size,
                                                    struct kiln_profile_file *out,
                                                    struct kiln_err *err);

#endif

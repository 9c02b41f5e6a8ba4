/* SPDX-License-Identifier: MIT
 *
 * dims.h: the sizes that a command's model flags name.
 */
#ifndef KILN_CMD_DIMS_H
#define KILN_CMD_DIMS_H

#include "kiln/model.h"
#include "kiln/settings.h"

/* Sizes of the preset, file or run of --model (stories15m when none is named) with --dim and the
 * others over them. */
KILN_MUST_CHECK enum kiln_status dims_choose(const struct kiln_settings *settings,
                                             struct kiln_dims *out, struct kiln_err *err);
/* What to call them. */
const char *dims_name(const struct kiln_settings *settings);

#endif

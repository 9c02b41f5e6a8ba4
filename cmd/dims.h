/* SPDX-License-Identifier: MIT
 *
 * dims.h: the sizes that a command's model flags name.
 */
#ifndef KILN_CMD_DIMS_H
#define KILN_CMD_DIMS_H

#include "kiln/model.h"
#include "kiln/settings.h"
#include "kiln/train.h"

/* Sizes of the preset, file or run of --model (stories15m when none is named) with --dim and the
 * others over them. */
KILN_MUST_CHECK enum kiln_status dims_choose(const struct kiln_settings *settings,
                                             struct kiln_dims *out, struct kiln_err *err);
/* kiln_model_open, with --rms-eps and --rope-theta over what the model says, and
 * the adapters of --adapter added. */
KILN_MUST_CHECK enum kiln_status model_open_as(const struct kiln_settings *settings,
                                               const char *name, uint64_t seed,
                                               struct kiln_model *out, struct kiln_err *err);
/* What to call them. */
const char *dims_name(const struct kiln_settings *settings);

#endif

/* SPDX-License-Identifier: MIT
 *
 * adapters.h: models with adapters beside them, as files and runs hold them.
 */
#ifndef KILN_TRAIN_ADAPTERS_H
#define KILN_TRAIN_ADAPTERS_H

#include "kiln/train.h"

/* A model with room for adapters, all zero; kiln_model_close it, also after a failure. */
KILN_MUST_CHECK enum kiln_status kiln_adapters_begin(const struct kiln_dims *dims,
                                                     const struct kiln_lora *lora,
                                                     struct kiln_model *out, struct kiln_err *err);

#endif

/* SPDX-License-Identifier: MIT
 *
 * hf_rope.h: RoPE in config.json: `rope_theta` with `rope_scaling`, or both in `rope_parameters` as
 * transformers 5 writes them. kiln reads either and writes the former, which all versions read.
 */
#ifndef KILN_MODEL_HF_ROPE_H
#define KILN_MODEL_HF_ROPE_H

#include <jansson.h>

#include "kiln/model.h"

/* Set rope_theta and rope of dims, whose seq is set. KILN_EINPUT names a kind that kiln does not
 * have (among them "dynamic", whose frequencies depend on the length of what is read), a member it
 * does not know, and one that is missing. */
KILN_MUST_CHECK enum kiln_status kiln_hf_rope_read(const char *path, const json_t *config,
                                                   struct kiln_dims *dims, struct kiln_err *err);
void kiln_hf_rope_write(json_t *config, const struct kiln_dims *dims);

/* A float as the shortest decimal number that reads back as it: 1e-05 and not 9.99999974e-06. */
json_t *kiln_hf_real(float value);

#endif

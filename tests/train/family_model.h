/* SPDX-License-Identifier: MIT
 *
 * family_model.h: small models of other families than Llama, as files for runs.
 */
#ifndef FAMILY_MODEL_H
#define FAMILY_MODEL_H

#include "kiln/model.h"

/* Of tiny_run's sizes, with bytes as its vocabulary: biases of q, k, v and yarn RoPE; norms of
 * heads of 12 and llama3 RoPE; or all of it, which no published family has. */
enum family { FAMILY_BIAS, FAMILY_NORM, FAMILY_BOTH, FAMILIES };

struct kiln_dims family_dims(enum family family);
/* Random weights; biases and norms differ from element to element. */
void family_weights(const struct kiln_table *table, float *weights);
/* Write such a model to test_path(...) and return the path. */
const char *family_file(enum family family);

#endif

/* SPDX-License-Identifier: MIT
 *
 * rope.h: the angles of rotary position embedding, one place for training, generating and the
 * programs of NPUs. Scalings are those of Hugging Face's modeling_rope_utils.py (kiln/model.h).
 */
#ifndef KILN_KERNEL_ROPE_H
#define KILN_KERNEL_ROPE_H

#include <stddef.h>

#include "kiln/model.h"

/* What pair i of a head, 0..K/2-1, turns by from one position to the next: theta^(-2i/K), bent as
 * dims->rope says. The dims were checked. */
double kiln_rope_frequency(const struct kiln_dims *dims, size_t i);
/* What cosines and sines are multiplied with: 1, or YARN's attention_factor. */
double kiln_rope_scale(const struct kiln_dims *dims);

/* angles [seq, K] as cos, sin pairs, scaled: position p turns pair i by p * frequency. */
void kiln_rope_angles(float *angles, size_t seq, const struct kiln_dims *dims);

#endif

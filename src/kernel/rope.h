/* SPDX-License-Identifier: MIT
 *
 * rope.h: the angles of rotary position embedding, one table for training and generating.
 */
#ifndef KILN_KERNEL_ROPE_H
#define KILN_KERNEL_ROPE_H

#include <stddef.h>

/* angles [seq, head_size] as cos, sin pairs: position p turns pair i by p * theta^(-2i/K). */
void kiln_rope_angles(float *angles, size_t seq, size_t head_size, float theta);

#endif

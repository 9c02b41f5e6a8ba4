/* SPDX-License-Identifier: MIT */
#include "kernel/rope.h"

#include <math.h>

/* In double and rounded once: a fp32 angle is off by 1e-4 at position 1000 already. */
void kiln_rope_angles(float *angles, size_t seq, size_t head_size, float theta) {
    for (size_t p = 0; p < seq; p++) {
        for (size_t i = 0; i < head_size; i += 2) {
            double angle = (double)p / pow((double)theta, (double)i / (double)head_size);
            angles[p * head_size + i] = (float)cos(angle);
            angles[p * head_size + i + 1] = (float)sin(angle);
        }
    }
}

/* SPDX-License-Identifier: MIT */
#include "kernel/rope.h"

#include <math.h>

/* acos(-1), which is no constant of C11. */
static double pi(void) { return acos(-1.0); }

/* Llama 3: wavelengths beyond the old sequence / low_freq_factor are stretched, those below it /
 * high_freq_factor stay, and between the two it goes over. */
static double llama3(const struct kiln_rope *r, double plain) {
    const double turns = (double)r->original_seq * plain / (2.0 * pi()); /* in the old sequence */
    const double low = (double)r->low_freq_factor, high = (double)r->high_freq_factor;
    if (turns > high) {
        return plain;
    }
    if (turns < low) {
        return plain / (double)r->factor;
    }
    const double smooth = (turns - low) / (high - low);
    return (1.0 - smooth) * plain / (double)r->factor + smooth * plain;
}

/* The dimension of a head, as a real number, that turns so often in the old sequence. */
static double dimension_of(const struct kiln_dims *d, double turns) {
    return (double)d->head_size * log((double)d->rope.original_seq / (turns * 2.0 * pi())) /
           (2.0 * log((double)d->rope_theta));
}

/* YARN: pairs that turn more than beta_fast times stay, those that turn less than beta_slow times
 * are stretched, and between the two it goes over in a line, from a whole dimension to a whole one.
 * The limits are dimensions 0..K-1, and the line runs over pairs 0..K/2-1: so says the original. */
static double yarn(const struct kiln_dims *d, double plain, size_t i) {
    double low = fmax(floor(dimension_of(d, (double)d->rope.beta_fast)), 0.0);
    double high =
        fmin(ceil(dimension_of(d, (double)d->rope.beta_slow)), (double)d->head_size - 1.0);
    high = high == low ? high + 0.001 : high;
    const double stretched = fmin(fmax(((double)i - low) / (high - low), 0.0), 1.0);
    return plain / (double)d->rope.factor * stretched + plain * (1.0 - stretched);
}

double kiln_rope_frequency(const struct kiln_dims *d, size_t i) {
    const double plain = 1.0 / pow((double)d->rope_theta, 2.0 * (double)i / (double)d->head_size);
    switch (d->rope.kind) {
        case KILN_ROPE_LINEAR:
            return plain / (double)d->rope.factor;
        case KILN_ROPE_LLAMA3:
            return llama3(&d->rope, plain);
        case KILN_ROPE_YARN:
            return yarn(d, plain, i);
        default:
            return plain;
    }
}

double kiln_rope_scale(const struct kiln_dims *d) {
    return d->rope.kind == KILN_ROPE_YARN ? (double)d->rope.attention_factor : 1.0;
}

/* In double and rounded once: a fp32 angle is off by 1e-4 at position 1000 already. */
void kiln_rope_angles(float *angles, size_t seq, const struct kiln_dims *d) {
    const double scale = kiln_rope_scale(d);
    const size_t k = d->head_size;
    for (size_t i = 0; i < k / 2; i++) {
        const double frequency = kiln_rope_frequency(d, i);
        for (size_t p = 0; p < seq; p++) {
            angles[p * k + 2 * i] = (float)(cos((double)p * frequency) * scale);
            angles[p * k + 2 * i + 1] = (float)(sin((double)p * frequency) * scale);
        }
    }
}

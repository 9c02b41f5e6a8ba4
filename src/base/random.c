/* SPDX-License-Identifier: MIT
 *
 * random.c: see random.h. The normal numbers use a logarithm and a cosine of our own, made of
 * additions, products and one division in a fixed order: the C library's differ in the last bit
 * from machine to machine, and a run must draw the same numbers on all of them.
 */
#include "base/random.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define GOLDEN         0x9E3779B97F4A7C15u /* 2^64 / golden ratio: the step of SplitMix64 */
#define SQRT_HALF_BITS 0x3FE6A09E667F3BCDu
#define FEISTEL_ROUNDS 8

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* The point of the generator that belongs to (seed, stream). */
static uint64_t key_of(uint64_t seed, uint64_t stream) {
    return mix(mix(seed + GOLDEN) ^ (stream * GOLDEN));
}

uint64_t kiln_random_bits(uint64_t seed, uint64_t stream, uint64_t index) {
    return mix(mix(key_of(seed, stream) + (index + 1) * GOLDEN));
}

static double to_uniform(uint64_t bits) { return (double)(bits >> 11) * 0x1p-53; }

double kiln_random_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
    return to_uniform(kiln_random_bits(seed, stream, index));
}

/* c[0] + c[1] x + ... + c[n-1] x^(n-1), by Horner's rule. */
static inline double polynomial(const double *c, int n, double x) {
    double sum = c[n - 1];
    for (int k = n - 2; k >= 0; k--) {
        sum = sum * x + c[k];
    }
    return sum;
}

/* ln x for x in (0, 1]: with x = m 2^e and s = (m-1)/(m+1), ln m = 2 (s + s^3/3 + s^5/5 + ...).
 * |s| < 0.172, so the first term left out is below 2^-60. */
static double own_log(double x) {
    static const double odd[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11,
                                 1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23};
    /* Subtracting the bits of sqrt(1/2) leaves e in the high bits, and no branch to mispredict. */
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int64_t e = (int64_t)(bits - SQRT_HALF_BITS) >> 52;
    bits -= (uint64_t)e << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    double s = (m - 1.0) / (m + 1.0);
    return 2.0 * s * polynomial(odd, 12, s * s) + (double)e * 0.69314718055994531;
}

/* Cosine and sine of 2 pi turn, turn in [0, 1): an eighth of a turn by Taylor, then turned by
 * whole quarters. */
static void own_cos_sin(double turn, double *cos_out, double *sin_out) {
    static const double cosine[] = {1.0,
                                    -1.0 / 2,
                                    1.0 / 24,
                                    -1.0 / 720,
                                    1.0 / 40320,
                                    -1.0 / 3628800,
                                    1.0 / 479001600,
                                    -1.0 / 87178291200,
                                    1.0 / 20922789888000};
    static const double sine[] = {1.0,
                                  -1.0 / 6,
                                  1.0 / 120,
                                  -1.0 / 5040,
                                  1.0 / 362880,
                                  -1.0 / 39916800,
                                  1.0 / 6227020800,
                                  -1.0 / 1307674368000,
                                  1.0 / 355687428096000};
    int quarter = (int)(4.0 * turn + 0.5);
    double x = 6.28318530717958648 * (turn - 0.25 * quarter); /* [-pi/4, pi/4], exact before 2 pi */
    double c = polynomial(cosine, 9, x * x);
    double s = x * polynomial(sine, 9, x * x);
    bool swap = quarter & 1;
    *cos_out = ((quarter + 1) & 2 ? -1.0 : 1.0) * (swap ? s : c);
    *sin_out = (quarter & 2 ? -1.0 : 1.0) * (swap ? c : s);
}

/* Box and Muller give two numbers at a time: those of indices 2*pair and 2*pair+1. */
static void normal_pair(uint64_t key, uint64_t pair, double out[2]) {
    uint64_t bits = mix(mix(key + (pair + 1) * GOLDEN));
    double radius = 1.0 - to_uniform(bits); /* (0, 1]: its logarithm is finite */
    double length = sqrt(-2.0 * own_log(radius));
    own_cos_sin(to_uniform(mix(bits + GOLDEN)), &out[0], &out[1]);
    out[0] *= length;
    out[1] *= length;
}

double kiln_random_normal(uint64_t seed, uint64_t stream, uint64_t index) {
    double pair[2];
    normal_pair(key_of(seed, stream), index / 2, pair);
    return pair[index % 2];
}

void kiln_random_normals(uint64_t seed, uint64_t stream, double deviation, float *out,
                         uint64_t first, size_t n) {
    uint64_t key = key_of(seed, stream);
    for (size_t i = 0; i < n; i += 2) {
        double pair[2];
        normal_pair(key, (first + i) / 2, pair);
        out[i] = (float)(deviation * pair[0]);
        if (i + 1 < n) {
            out[i + 1] = (float)(deviation * pair[1]);
        }
    }
}

/* The high half of bits * n: uniform to within n/2^64, and without a division. */
uint64_t kiln_random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n) {
    return (uint64_t)(((unsigned __int128)kiln_random_bits(seed, stream, index) * n) >> 64);
}

static uint64_t feistel(uint64_t key, uint64_t x, int half_bits) {
    uint64_t mask = ((uint64_t)1 << half_bits) - 1;
    uint64_t left = x >> half_bits;
    uint64_t right = x & mask;
    for (uint64_t round = 1; round <= FEISTEL_ROUNDS; round++) {
        uint64_t turned = left ^ (mix(mix(key + round * GOLDEN) ^ right) & mask);
        left = right;
        right = turned;
    }
    return left << half_bits | right;
}

uint64_t kiln_random_permute(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n) {
    if (n <= 1) {
        return 0;
    }
    int half_bits = 1;
    while (half_bits < 32 && (n - 1) >> (2 * half_bits) != 0) {
        half_bits++;
    }
    uint64_t key = key_of(seed, stream);
    uint64_t x = index;
    do { /* the domain is below 4n, so this takes fewer than four turns on average */
        x = feistel(key, x, half_bits);
    } while (x >= n);
    return x;
}

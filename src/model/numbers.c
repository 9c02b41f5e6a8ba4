/* SPDX-License-Identifier: MIT
 *
 * numbers.c: see numbers.h. Half precision is taken apart by hand: this file has no instruction
 * sets, and reading a model is bound by the disk.
 */
#include "model/numbers.h"

#include <math.h>
#include <string.h>

#define HALF_INFINITY 0x7C00u

static const char *const names[KILN_DTYPES] = {"f32", "f16", "bf16", "q8_0"};

const char *kiln_dtype_name(enum kiln_dtype dtype) { return names[dtype]; }

bool kiln_dtype_find(const char *name, enum kiln_dtype *out) {
    for (int i = 0; i < KILN_DTYPES; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum kiln_dtype)i;
            return true;
        }
    }
    return false;
}

size_t kiln_dtype_bytes(enum kiln_dtype dtype, size_t n) {
    switch (dtype) {
        case KILN_DTYPE_F16:
        case KILN_DTYPE_BF16:
            return 2 * n;
        case KILN_DTYPE_Q8_0:
            return n / KILN_Q8_BLOCK * KILN_Q8_BLOCK_BYTES;
        default:
            return 4 * n;
    }
}

/* ---- one number ----------------------------------------------------------------------------- */

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* fp16: sign, 5 bits of exponent (bias 15), 10 of fraction; exponent 0 counts in units of 2^-24. */
static float from_half(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t exponent = half >> 10 & 31u, fraction = half & 0x3FFu;
    if (exponent == 0) {
        const float value = (float)fraction * 0x1p-24F;
        return sign != 0 ? -value : value;
    }
    const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
    return float_of(sign | wide << 23 | fraction << 13);
}

/* The fraction behind the point is dropped, rounding to nearest even; a carry runs into the
 * exponent, as it should. */
static uint16_t to_half(float value) {
    const uint32_t bits = bits_of(value), magnitude = bits & 0x7FFFFFFFu;
    const uint32_t sign = bits >> 16 & 0x8000u;
    if (magnitude >= 0x47800000u) { /* 2^16 or more, or no number */
        return (uint16_t)(sign | (magnitude > 0x7F800000u ? 0x7E00u : HALF_INFINITY));
    }
    if (magnitude < 0x38800000u) { /* below 2^-14: in units of 2^-24, rounded by the machine */
        return (uint16_t)(sign | (uint32_t)lrintf(float_of(magnitude) * 0x1p24F));
    }
    const uint32_t rounded = magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u);
    return (uint16_t)(sign | rounded >> 13);
}

static uint16_t to_bf16(float value) {
    const uint32_t bits = bits_of(value);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/* ---- arrays --------------------------------------------------------------------------------- */

static void decode_short(enum kiln_dtype dtype, float *to, const unsigned char *from, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, sizeof bits);
        to[i] = dtype == KILN_DTYPE_F16 ? from_half(bits) : float_of((uint32_t)bits << 16);
    }
}

static void decode_blocks(float *to, const unsigned char *from, size_t n) {
    for (size_t b = 0; b < n / KILN_Q8_BLOCK; b++) {
        const unsigned char *block = from + b * KILN_Q8_BLOCK_BYTES;
        uint16_t bits;
        memcpy(&bits, block, sizeof bits);
        const float scale = from_half(bits);
        for (size_t i = 0; i < KILN_Q8_BLOCK; i++) {
            to[b * KILN_Q8_BLOCK + i] = scale * (float)(int8_t)block[2 + i];
        }
    }
}

void kiln_dtype_decode(enum kiln_dtype dtype, float *to, const void *from, size_t n) {
    if (dtype == KILN_DTYPE_F32) {
        memcpy(to, from, n * sizeof *to);
    } else if (dtype == KILN_DTYPE_Q8_0) {
        decode_blocks(to, from, n);
    } else {
        decode_short(dtype, to, from, n);
    }
}

static bool encode_short(enum kiln_dtype dtype, unsigned char *to, const float *from, size_t n) {
    bool fits = true;
    for (size_t i = 0; i < n; i++) {
        const uint16_t bits = dtype == KILN_DTYPE_F16 ? to_half(from[i]) : to_bf16(from[i]);
        const uint16_t infinite = dtype == KILN_DTYPE_F16 ? HALF_INFINITY : 0x7F80u;
        fits = fits && (bits & infinite) != infinite;
        memcpy(to + 2 * i, &bits, sizeof bits);
    }
    return fits;
}

static bool encode_block(unsigned char *block, const float *from) {
    float most = 0;
    for (size_t i = 0; i < KILN_Q8_BLOCK; i++) {
        most = fmaxf(most, fabsf(from[i]));
    }
    const float scale = most / 127.0F, inverse = scale > 0 ? 1.0F / scale : 0;
    const uint16_t half = to_half(scale);
    memcpy(block, &half, sizeof half);
    for (size_t i = 0; i < KILN_Q8_BLOCK; i++) {
        /* scale may be so small that its inverse is infinite: fp16 makes it 0 then, too */
        const float q = isfinite(inverse) ? roundf(from[i] * inverse) : 0;
        block[2 + i] = (unsigned char)(int8_t)fmaxf(-127, fminf(127, q));
    }
    return (half & HALF_INFINITY) != HALF_INFINITY;
}

bool kiln_dtype_encode(enum kiln_dtype dtype, void *to, const float *from, size_t n) {
    bool fits = true;
    if (dtype == KILN_DTYPE_F32) {
        memcpy(to, from, n * sizeof *from);
        return true;
    }
    if (dtype != KILN_DTYPE_Q8_0) {
        return encode_short(dtype, to, from, n);
    }
    for (size_t b = 0; b < n / KILN_Q8_BLOCK; b++) {
        unsigned char *block = (unsigned char *)to + b * KILN_Q8_BLOCK_BYTES;
        fits = encode_block(block, from + b * KILN_Q8_BLOCK) && fits;
    }
    return fits;
}

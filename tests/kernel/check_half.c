/* SPDX-License-Identifier: MIT
 *
 * fp16 on one tier: all of it, held against arithmetic in double.
 */
#include <math.h>
#include <string.h>

#include "kernel/lab.h"

enum { ALL = 65536, LONGEST = 2 * 16 + 1 };

/* The value of a finite fp16, from its definition. */
static double value(uint16_t half) {
    int exponent = half >> 10 & 31, fraction = half & 0x3ff;
    double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return half & 0x8000 ? -size : size;
}
static bool is_nan(uint32_t half) { return (half & 0x7fff) > 0x7c00; }

/* half_of for one number, through the middle of a block of vectors. */
static void expect(const struct lab *lab, float x, uint16_t want) {
    float src[LONGEST];
    uint16_t dst[LONGEST];
    for (size_t i = 0; i < LONGEST; i++) {
        src[i] = x;
    }
    lab->k.half_of(dst, src, LONGEST);
    lab->k.half_round(src, LONGEST);
    for (size_t i = 0; i < LONGEST; i += LONGEST - 1) { /* in a vector, and behind them */
        if (dst[i] != want || kiln_f32_to_f16(x) != want) {
            FAIL("%s: %a to fp16: got %04x, scalar %04x, want %04x", lab->k.tier, (double)x, dst[i],
                 kiln_f32_to_f16(x), want);
        }
        CHECK((double)src[i] == (want == 0x7c00   ? (double)INFINITY
                                 : want == 0xfc00 ? (double)-INFINITY
                                                  : value(want)));
    }
}

/* Every number that rounding turns on: each fp16, half way to the next, and one bit beside. */
void check_half_of(const struct lab *lab) {
    for (uint32_t sign = 0; sign < 2; sign++) {
        for (uint16_t h = 0; h < 0x7c00; h++) {
            uint16_t at = (uint16_t)(h | sign << 15), next = (uint16_t)(at + 1);
            uint16_t even = at % 2 ? next : at;
            double up = h == 0x7bff ? 65536.0 : fabs(value((uint16_t)(h + 1)));
            float here = (float)value(at), half = (float)((fabs(value(h)) + up) / 2);
            float towards = sign ? -half : half;
            expect(lab, here, at);
            expect(lab, towards, even);
            expect(lab, nextafterf(towards, 0.0f), at);
            expect(lab, nextafterf(towards, sign ? -INFINITY : INFINITY), next);
        }
        expect(lab, sign ? -INFINITY : INFINITY, (uint16_t)(0x7c00 | sign << 15));
        expect(lab, sign ? -3e38f : 3e38f, (uint16_t)(0x7c00 | sign << 15));
        expect(lab, sign ? -1e-40f : 1e-40f, (uint16_t)(sign << 15));
    }
    for (size_t n = 0; n <= LONGEST; n++) {
        float *src = lab_floats(n, 1, 3.0f);
        uint16_t *dst = lab_memory(n, sizeof *dst, 3);
        lab->k.half_of(dst, src, n);
        for (size_t i = 0; i < n; i++) {
            CHECK_EQ(dst[i], kiln_f32_to_f16(src[i]));
        }
        lab_check_guards();
    }
}

void check_half_to(const struct lab *lab) {
    uint16_t *in = lab_memory(ALL, sizeof *in, 1), *back = lab_memory(ALL, sizeof *back, 3);
    float *out = lab_memory(ALL, sizeof *out, 1);
    for (size_t i = 0; i < ALL; i++) {
        in[i] = (uint16_t)i;
    }
    lab->k.half_to(out, in, ALL);
    lab->k.half_of(back, out, ALL);
    for (uint32_t i = 0; i < ALL; i++) {
        float scalar = kiln_f16_to_f32((uint16_t)i);
        CHECK_BYTES(&out[i], &scalar, sizeof scalar);
        if (is_nan(i)) {
            CHECK(isnan(out[i]));
            CHECK_EQ(back[i], i | 0x200); /* quiet, the rest is kept */
        } else {
            CHECK((i & 0x7fff) == 0x7c00 ? isinf(out[i]) && !signbit(out[i]) == !(i >> 15)
                                         : (double)out[i] == value((uint16_t)i));
            CHECK_EQ(back[i], i); /* the sign of 0 as well */
        }
    }
    lab_check_guards();
    for (size_t n = 0; n <= LONGEST; n++) {
        uint16_t *src = lab_memory(n, sizeof *src, 1);
        float *dst = lab_memory(n, sizeof *dst, 3);
        for (size_t i = 0; i < n; i++) {
            src[i] = (uint16_t)(0x3c00 + i);
        }
        lab->k.half_to(dst, src, n);
        for (size_t i = 0; i < n; i++) {
            CHECK((double)dst[i] == value(src[i]));
        }
        lab_check_guards();
    }
}

void check_half_round(const struct lab *lab) {
    for (size_t n = 0; n <= LONGEST; n++) {
        float *x = lab_floats(n, 1, 3.0f), *from = lab_copy(x, n, sizeof *x, 0);
        lab->k.half_round(x, n);
        for (size_t i = 0; i < n; i++) {
            float want = kiln_f16_to_f32(kiln_f32_to_f16(from[i]));
            CHECK_BYTES(&x[i], &want, sizeof want);
        }
        lab_check_guards();
    }
    float special[] = {NAN, -0.0f, 1e30f};
    lab->k.half_round(special, 3);
    CHECK(isnan(special[0]) && signbit(special[1]) && isinf(special[2]));
}

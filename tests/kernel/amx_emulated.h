/* SPDX-License-Identifier: MIT
 *
 * amx_emulated.h: Intel's tile instructions in plain C, under the names of the compiler's
 * intrinsics, so that src/kernel/x86/amx_block.h runs where there is no AMX. Include it before.
 *
 * From the Software Developer's Manual, volume 2: what faults there (a configuration that palette 1
 * does not allow, a tile that is not configured, sizes that do not fit each other) fails the test
 * here. The sums of TDPBF16PS have the manual's order and rounding: for each element the products
 * of even k and those of odd k are summed apart, each by multiply-adds to nearest even; then both
 * are added, then that to the element. Denormal operands and results count as 0.
 */
#ifndef KILN_TESTS_AMX_EMULATED_H
#define KILN_TESTS_AMX_EMULATED_H

#if defined(__x86_64__)
#include <immintrin.h> /* before its names are taken */
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernel/kernel.h"
#include "kiln_test.h"

enum { EMULATED_TILES = 8, EMULATED_ROWS = 16, EMULATED_ROW_BYTES = 64 };

static _Thread_local struct {
    bool configured;
    size_t rows[EMULATED_TILES], row_bytes[EMULATED_TILES];
    unsigned char data[EMULATED_TILES][EMULATED_ROWS][EMULATED_ROW_BYTES];
} emulated;

/* The number of a tile that may be used. */
static inline size_t emulated_tile(int tile) {
    CHECK(emulated.configured);
    CHECK(tile >= 0 && tile < EMULATED_TILES);
    CHECK(emulated.rows[tile] > 0 && emulated.row_bytes[tile] > 0);
    return (size_t)tile;
}

static inline void emulated_loadconfig(const void *memory) {
    unsigned char config[64];
    memcpy(config, memory, sizeof config);
    CHECK_EQ(config[0], 1); /* palette */
    for (size_t i = 1; i < 16; i++) {
        CHECK_EQ(config[i], 0); /* start row, reserved */
    }
    memset(&emulated, 0, sizeof emulated);
    for (size_t t = 0; t < 16; t++) {
        const size_t row_bytes = config[16 + 2 * t] | (size_t)config[17 + 2 * t] << 8;
        const size_t rows = config[48 + t];
        CHECK(row_bytes <= EMULATED_ROW_BYTES && rows <= EMULATED_ROWS);
        CHECK_EQ(row_bytes > 0, rows > 0);
        if (t < EMULATED_TILES) {
            emulated.rows[t] = rows;
            emulated.row_bytes[t] = row_bytes;
        } else {
            CHECK_EQ(rows, 0);
        }
    }
    emulated.configured = true;
}

static inline void emulated_release(void) { memset(&emulated, 0, sizeof emulated); }

static inline void emulated_zero(int tile) {
    const size_t t = emulated_tile(tile);
    memset(emulated.data[t], 0, sizeof emulated.data[t]);
}

static inline void emulated_loadd(int tile, const void *base, size_t stride) {
    const size_t t = emulated_tile(tile);
    emulated_zero(tile);
    for (size_t r = 0; r < emulated.rows[t]; r++) {
        memcpy(emulated.data[t][r], (const char *)base + r * stride, emulated.row_bytes[t]);
    }
}

static inline void emulated_stored(int tile, void *base, size_t stride) {
    const size_t t = emulated_tile(tile);
    for (size_t r = 0; r < emulated.rows[t]; r++) {
        memcpy((char *)base + r * stride, emulated.data[t][r], emulated.row_bytes[t]);
    }
}

/* Denormals are 0 of their sign. */
static inline float emulated_normal(float x) {
    return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
}
static inline float emulated_bf16(uint16_t x) { return emulated_normal(kiln_bf16_to_f32(x)); }
/* The product of two bf16 is exact in double, and so is what is left of their sum's rounding in all
 * but rare cases, so fmaf it is: one rounding. */
static inline float emulated_multiply_add(float x, float y, float sum) {
    return emulated_normal(fmaf(x, y, sum));
}

static inline void emulated_dpbf16ps(int c_tile, int a_tile, int b_tile) {
    const size_t c = emulated_tile(c_tile), a = emulated_tile(a_tile), b = emulated_tile(b_tile);
    CHECK(c != a && c != b && a != b);
    CHECK(emulated.row_bytes[c] % 4 == 0 && emulated.row_bytes[a] % 4 == 0);
    CHECK_EQ(emulated.rows[c], emulated.rows[a]);
    CHECK_EQ(emulated.row_bytes[a] / 4, emulated.rows[b]);
    CHECK_EQ(emulated.row_bytes[b], emulated.row_bytes[c]);
    const size_t pairs = emulated.row_bytes[a] / 4, columns = emulated.row_bytes[c] / 4;
    for (size_t m = 0; m < emulated.rows[c]; m++) {
        float even[EMULATED_ROWS] = {0}, odd[EMULATED_ROWS] = {0}, sum[EMULATED_ROWS];
        uint16_t x[2 * EMULATED_ROWS], y[2 * EMULATED_ROWS];
        memcpy(x, emulated.data[a][m], sizeof x);
        memcpy(sum, emulated.data[c][m], sizeof sum);
        for (size_t k = 0; k < pairs; k++) {
            memcpy(y, emulated.data[b][k], sizeof y);
            for (size_t n = 0; n < columns; n++) {
                even[n] = emulated_multiply_add(emulated_bf16(x[2 * k]), emulated_bf16(y[2 * n]),
                                                even[n]);
                odd[n] = emulated_multiply_add(emulated_bf16(x[2 * k + 1]),
                                               emulated_bf16(y[2 * n + 1]), odd[n]);
            }
        }
        for (size_t n = 0; n < columns; n++) {
            const float both = emulated_normal(even[n] + odd[n]);
            sum[n] = emulated_normal(emulated_normal(sum[n]) + both);
        }
        memcpy(emulated.data[c][m], sum, sizeof sum);
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(config)               emulated_loadconfig(config)
#define _tile_release()                        emulated_release()
#define _tile_zero(tile)                       emulated_zero(tile)
#define _tile_loadd(tile, base, stride)        emulated_loadd(tile, base, stride)
#define _tile_stream_loadd(tile, base, stride) emulated_loadd(tile, base, stride)
#define _tile_stored(tile, base, stride)       emulated_stored(tile, base, stride)
#define _tile_dpbf16ps(c, a, b)                emulated_dpbf16ps(c, a, b)

#endif

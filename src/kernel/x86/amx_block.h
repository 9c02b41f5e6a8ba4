/* SPDX-License-Identifier: MIT
 *
 * amx_block.h: one block of a bf16 product on Intel AMX (Software Developer's Manual, volume 1,
 * chapter 18). The includer has the tile intrinsics: kernels_amx.c the compiler's, the tests
 * tests/kernel/amx_emulated.h, so that this text runs on every machine.
 *
 * There are 8 tiles of 16 rows x 64 bytes. A tile of a is 16 rows x 32 k as they lie; a tile of b
 * is 16 pairs of k x 16 columns of a panel as it lies; TDPBF16PS multiplies them into 16 x 16 fp32
 * sums. Sums of 32 x 32, four tiles, stay in registers for the whole contraction:
 *
 *                        b: panel [k/32][16][64][2]
 *                        +---- 6 ----+---- 7 ----+     a step (32 k): 4 loads, 4 products
 *        a as it    +-4-+|     0     |     1     |
 *        lies       +-5-+|     2     |     3     |     then store, or through `sums` to c
 *
 * Each element is one sum: steps of 32 k in index order, within a step in TDPBF16PS's order (even
 * and odd k apart). bf16 denormals count as 0, denormal sums become 0. Not the bits of VDPBF16PS.
 *
 * What is counted below is for Sapphire Rapids (Intel's Optimization Reference Manual, chapter on
 * AMX: cycles between two of a kind / until the result: TDPBF16PS 16 / 52, TILELOADD 8 / 45,
 * TILESTORED 16, TILEZERO 0, LDTILECFG 204, TILERELEASE 13). It was written without a machine to
 * measure on; `kiln bench` tells.
 *
 * - A step is 64 cycles of products and 32 of loads from L1; each sum waits 64 cycles for its next
 *   product, more than 52. What limits is how fast lines reach L1: 64 a step when both operands
 *   come from L2 (about 0.75 a cycle: 87 cycles a step), 36 when a stays in L1.
 * - Strips of 32 rows are the outer loop, columns the inner: a strip of a (64 k bytes, 48 KB at
 *   k = 768) is used 8 times in a row and stays in L1 up to k of some 350, beside as much of b
 *   flowing by: 32 + 32/8 lines a step. The other order makes it 32 + 32/4. For deeper k both come
 *   from L2, where a block's a and b (196 + 393 KB at k = 768, 0.5 + 1 MB at 2048) lie well.
 *   Cutting k and keeping sums in memory meanwhile would load 32 + 4 lines and move 8 to 16 lines
 *   of sums a step: at best 10 % won, and lost again unless TILESTORED is hidden entirely.
 * - TILELOADDT1 is four times slower than TILELOADD, and is not used.
 * - b: a step is 4 KB of a panel, a page, where the processor's own prefetch stops. So the lines
 *   of two steps ahead are fetched into L1, at the end of a strip those of the next one: 32
 *   instructions of some 170 a step, of 380 that the front end has time for.
 * - a: a strip is 32 rows far apart, too many streams for the processor to foresee. During a strip
 *   the next one is fetched into L2, 4 lines a step, row after row, which its streamer follows.
 *   Before the first strip of a large product the same is done at once (1 to 2 % of the block's
 *   time, against several hundred cycles a step from L3). Not into L1: where lda is a power of two,
 *   as in weight gradients (rows of 2048 tokens, 4 KB apart) and behind a hidden size of 2048, 32
 *   rows fall into one set of 12 ways and push each other out. A line of a is used by one load a
 *   strip when rows start at multiples of 64 bytes, so that loads themselves do not mind. For the
 *   same reason rows are not copied: copies cost L2 12 more lines a step. 32 rows 4 KB apart are 32
 *   of the 96 pages that the first TLB holds.
 * - Sums leave while the next tile is multiplied: stored to 4 KB that stay in L1, then a few rows a
 *   step are added to, rounded and written. Some 400 instructions at once would leave the tiles
 *   idle for 100 cycles, 6 % at k = 768 and most of the time at the k = 64 of attention. They are
 *   read long after they were stored, so nothing waits for the store buffer; loads of a that have
 *   the page offset of such a store (all offsets occur) wait a few cycles at most, once a tile. The
 *   lines of c and add are fetched while their tile is multiplied. fp32 without add, in whole
 *   tiles, goes from the tiles to c.
 * - The last k % 32 are multiplied from zero-padded copies, of a once a strip, of b once a block:
 *   rows of a are not read beyond their end, and what a panel holds behind k (other k of a longer
 *   contraction, NaN even) takes no part. The last m % 32 rows have tiles of fewer rows.
 * - Each block loads the configuration and releases it: 217 cycles of 49 000 (128 x 256, k = 768),
 *   a tenth of a block of attention. It is not kept for the next block, because other code on this
 *   thread (oneDNN, a library of the caller's) may configure or release in between and nobody
 * tells; because a child of fork starts without tile data; and because 8 KB of live tiles are saved
 * at every context switch and keep an idle core from deep sleep. Between loading and releasing,
 *   signals and context switches are the kernel's business: it saves and restores the tiles, and a
 *   handler starts without any.
 */
#ifndef KILN_KERNEL_AMX_BLOCK_H
#define KILN_KERNEL_AMX_BLOCK_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "kernel/kernel.h"

#define AMX_INLINE static inline __attribute__((always_inline))
/* gcc's intrinsics do not say which memory they read: what was written is in place from here on. */
#define AMX_WRITTEN(memory) __asm__ volatile("" : : "r"(memory) : "memory")

enum {
    AMX_TILE = 16, /* rows of a tile; its columns in fp32, or pairs of bf16 */
    AMX_SIDE = 32, /* of what is multiplied at once */
    AMX_K = 32,    /* a step */
    AMX_AHEAD = 2, /* steps that b is fetched ahead */
    /* Bytes: */
    AMX_LINE = 64,
    AMX_B_ROW = KILN_PANEL * 2 * 2,
    AMX_B_STEP = AMX_TILE * AMX_B_ROW,
    AMX_SUMS_ROW = AMX_SIDE * 4,
};

/* The tiles, as in the picture. */
#define AMX_C00 0
#define AMX_C01 1
#define AMX_C10 2
#define AMX_C11 3
#define AMX_A0  4
#define AMX_A1  5
#define AMX_B0  6
#define AMX_B1  7

/* What LDTILECFG reads. */
struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

struct amx_scratch {
    float sums[AMX_SIDE][AMX_SIDE];
    uint16_t a[AMX_SIDE][AMX_K]; /* the last k, and zeros */
    uint16_t b[KILN_GEMM_N / KILN_PANEL][AMX_K / 2][KILN_PANEL * 2];
};
_Static_assert(sizeof(struct amx_config) == 64, "LDTILECFG reads 64 bytes");
_Static_assert(sizeof(struct amx_scratch) <= KILN_GEMM_SCRATCH, "scratch is too small");

struct amx_block {
    const struct kiln_gemm *g;
    struct amx_scratch *scratch;
    size_t panel;        /* bytes between panels */
    size_t steps, rest;  /* k = steps * AMX_K + rest */
    size_t share;        /* rows of sums that leave in a step, so that all have left in time */
    struct amx_leaving { /* what scratch->sums holds and c does not yet: rows `next` and on */
        size_t i, j, rows, columns, next;
    } leaving;
    struct amx_fetching { /* rows of a to fetch, and how many lines a step */
        const char *row;
        size_t rows, at, lines;
    } fetching;
};

/* ---- results --------------------------------------------------------------------------------- */

#if defined(__AVX512BF16__)
#include <immintrin.h>
/* Row i of c from column j, at most 32 columns. VCVTNE2PS2BF16 rounds as kiln_f32_to_bf16 does and
 * makes denormals 0. */
AMX_INLINE void amx_put_row(const struct kiln_gemm *g, size_t i, size_t j, size_t columns,
                            const float *sums) {
    const uint32_t mask = columns < AMX_SIDE ? (UINT32_C(1) << columns) - 1 : UINT32_MAX;
    const __mmask16 low = (__mmask16)mask, high = (__mmask16)(mask >> AMX_TILE);
    __m512 x = _mm512_loadu_ps(sums), y = _mm512_loadu_ps(sums + AMX_TILE);
    if (g->add) {
        const float *add = g->add + i * g->ldadd + j;
        x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(low, add));
        y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(high, add + AMX_TILE));
    }
    if (g->c_operand) {
        uint16_t *c = (uint16_t *)g->c + i * g->ldc + j;
        _mm512_mask_storeu_epi16(c, mask, (__m512i)_mm512_cvtne2ps_pbh(y, x));
    } else {
        float *c = (float *)g->c + i * g->ldc + j;
        _mm512_mask_storeu_ps(c, low, x);
        _mm512_mask_storeu_ps(c + AMX_TILE, high, y);
    }
}
#else /* only in tests on other machines */
AMX_INLINE void amx_put_row(const struct kiln_gemm *g, size_t i, size_t j, size_t columns,
                            const float *sums) {
    const float *add = g->add ? g->add + i * g->ldadd + j : NULL;
    for (size_t x = 0; x < columns; x++) {
        const float sum = add ? sums[x] + add[x] : sums[x];
        if (g->c_operand) {
            ((uint16_t *)g->c)[i * g->ldc + j + x] = kiln_f32_to_bf16(sum);
        } else {
            ((float *)g->c)[i * g->ldc + j + x] = sum;
        }
    }
}
#endif

/* At most `rows` more rows of the sums that wait go to c. */
AMX_INLINE void amx_leave(struct amx_block *w, size_t rows) {
    struct amx_leaving *l = &w->leaving;
    const size_t end = l->rows - l->next < rows ? l->rows : l->next + rows;
    for (; l->next < end; l->next++) {
        amx_put_row(w->g, l->i + l->next, l->j, l->columns, w->scratch->sums[l->next]);
    }
}

/* ---- fetching -------------------------------------------------------------------------------- */

/* Columns j.. of a row of c and add. */
AMX_INLINE void amx_expect_row(const struct kiln_gemm *g, size_t i, size_t j, size_t columns) {
    const size_t element = g->c_operand ? 2 : 4;
    char *c = (char *)g->c + (i * g->ldc + j) * element;
    __builtin_prefetch(c, 1);
    __builtin_prefetch(c + columns * element - 1, 1);
    if (g->add && (const void *)g->add != g->c) {
        const float *add = g->add + i * g->ldadd + j;
        __builtin_prefetch(add);
        __builtin_prefetch(add + columns - 1);
    }
}

/* The next lines of a into L2. */
AMX_INLINE void amx_fetch(struct amx_block *w, size_t lines) {
    struct amx_fetching *f = &w->fetching;
    for (; lines > 0 && f->rows > 0; lines--) {
        __builtin_prefetch(f->row + f->at, 0, 2);
        f->at += AMX_LINE;
        if (f->at >= w->g->k * 2) {
            f->at = 0;
            f->row += w->g->lda * 2;
            f->rows--;
        }
    }
}

/* Up to 32 rows of a from row i are what amx_fetch fetches, in a strip's time. */
static void amx_fetch_strip(struct amx_block *w, size_t i) {
    const struct kiln_gemm *g = w->g;
    const size_t rows = i < g->m ? g->m - i : 0;
    w->fetching = (struct amx_fetching){.rows = rows < AMX_SIDE ? rows : AMX_SIDE,
                                        .lines = AMX_SIDE / ((g->n + AMX_SIDE - 1) / AMX_SIDE)};
    w->fetching.row = (const char *)g->a + (rows > 0 ? i * g->lda * 2 : 0);
}

AMX_INLINE void amx_fetch_b(const char *b) {
#pragma GCC unroll 16
    for (size_t r = 0; r < AMX_TILE; r++) {
        __builtin_prefetch(b + r * AMX_B_ROW);
        __builtin_prefetch(b + r * AMX_B_ROW + AMX_LINE);
    }
}

/* ---- products -------------------------------------------------------------------------------- */

/* The first step of 32 columns from j. */
AMX_INLINE const char *amx_columns(const struct amx_block *w, size_t j) {
    return (const char *)w->g->b + j / KILN_PANEL * w->panel + j % KILN_PANEL * 4;
}

/* 32 k; lda in bytes. */
AMX_INLINE void amx_step(size_t tall, size_t wide, const char *a, size_t lda, const char *b) {
    _tile_loadd(AMX_B0, b, AMX_B_ROW);
    _tile_loadd(AMX_A0, a, lda);
    _tile_dpbf16ps(AMX_C00, AMX_A0, AMX_B0);
    if (wide > 1) {
        _tile_loadd(AMX_B1, b + AMX_LINE, AMX_B_ROW);
        _tile_dpbf16ps(AMX_C01, AMX_A0, AMX_B1);
    }
    if (tall > 1) {
        _tile_loadd(AMX_A1, a + AMX_TILE * lda, lda);
        _tile_dpbf16ps(AMX_C10, AMX_A1, AMX_B0);
        if (wide > 1) {
            _tile_dpbf16ps(AMX_C11, AMX_A1, AMX_B1);
        }
    }
}

AMX_INLINE void amx_store(size_t tall, size_t wide, char *c, size_t ldc) {
    _tile_stored(AMX_C00, c, ldc);
    if (wide > 1) {
        _tile_stored(AMX_C01, c + AMX_LINE, ldc);
    }
    if (tall > 1) {
        _tile_stored(AMX_C10, c + AMX_TILE * ldc, ldc);
        if (wide > 1) {
            _tile_stored(AMX_C11, c + AMX_TILE * ldc + AMX_LINE, ldc);
        }
    }
}

/* tall x wide tiles of the result, from row i and column j; `rows` of them are configured. */
AMX_INLINE void amx_multiply(size_t tall, size_t wide, struct amx_block *w, size_t i, size_t j,
                             size_t rows) {
    const struct kiln_gemm *g = w->g;
    const char *a = (const char *)g->a + i * g->lda * 2, *b = amx_columns(w, j);
    const char *next = amx_columns(w, j + AMX_SIDE < g->n ? j + AMX_SIDE : 0);
    const size_t columns = g->n - j < AMX_SIDE ? g->n - j : AMX_SIDE;
    const size_t share = w->share;
    size_t expected = 0;
    _tile_zero(AMX_C00);
    _tile_zero(AMX_C01);
    if (tall > 1) {
        _tile_zero(AMX_C10);
        _tile_zero(AMX_C11);
    }
    for (size_t p = 0; p < w->steps; p++) {
        const size_t soon = p + AMX_AHEAD;
        amx_fetch_b(soon < w->steps ? b + soon * AMX_B_STEP
                                    : next + (soon - w->steps) * AMX_B_STEP);
        amx_step(tall, wide, a + p * AMX_K * 2, g->lda * 2, b + p * AMX_B_STEP);
        amx_leave(w, share);
        amx_fetch(w, w->fetching.lines);
        for (size_t end = expected + share; expected < end && expected < rows; expected++) {
            amx_expect_row(g, i + expected, j, columns);
        }
    }
    if (w->rest > 0) {
        amx_step(tall, wide, (const char *)w->scratch->a, AMX_K * 2,
                 (const char *)w->scratch->b[j / KILN_PANEL] + j % KILN_PANEL * 4);
    }
    amx_leave(w, AMX_SIDE);
    if (!g->add && !g->c_operand && columns == wide * AMX_TILE) {
        amx_store(tall, wide, (char *)((float *)g->c + i * g->ldc + j), g->ldc * 4);
    } else {
        amx_store(tall, wide, (char *)w->scratch->sums, AMX_SUMS_ROW);
        w->leaving = (struct amx_leaving){.i = i, .j = j, .rows = rows, .columns = columns};
    }
}

static void amx_multiply_11(struct amx_block *w, size_t i, size_t j, size_t rows) {
    amx_multiply(1, 1, w, i, j, rows);
}
static void amx_multiply_12(struct amx_block *w, size_t i, size_t j, size_t rows) {
    amx_multiply(1, 2, w, i, j, rows);
}
static void amx_multiply_21(struct amx_block *w, size_t i, size_t j, size_t rows) {
    amx_multiply(2, 1, w, i, j, rows);
}
static void amx_multiply_22(struct amx_block *w, size_t i, size_t j, size_t rows) {
    amx_multiply(2, 2, w, i, j, rows);
}

/* Tiles for a strip of so many rows. */
static void amx_configure(size_t rows) {
    const uint8_t top = (uint8_t)(rows < AMX_TILE ? rows : AMX_TILE),
                  bottom = (uint8_t)(rows - top);
    struct amx_config config = {
        .palette = 1,
        .rows = {top, top, bottom, bottom, top, bottom, AMX_TILE, AMX_TILE},
    };
    for (size_t t = 0; t < 8; t++) {
        config.row_bytes[t] = config.rows[t] > 0 ? AMX_LINE : 0;
    }
    AMX_WRITTEN(&config);
    _tile_loadconfig(&config);
}

/* The last k of a strip of a. */
static void amx_copy_a(const struct amx_block *w, size_t i, size_t rows) {
    const uint16_t *a = (const uint16_t *)w->g->a + i * w->g->lda + w->steps * AMX_K;
    memset(w->scratch->a, 0, sizeof w->scratch->a);
    for (size_t r = 0; r < rows; r++) {
        memcpy(w->scratch->a[r], a + r * w->g->lda, w->rest * sizeof *a);
    }
    AMX_WRITTEN(w->scratch);
}

/* The last k of all panels. */
static void amx_copy_b(const struct amx_block *w) {
    const size_t pairs = w->rest / 2;
    memset(w->scratch->b, 0, sizeof w->scratch->b);
    for (size_t j = 0; j < w->g->n; j += KILN_PANEL) {
        const char *from = amx_columns(w, j) + w->steps * AMX_B_STEP;
        uint16_t(*to)[KILN_PANEL * 2] = w->scratch->b[j / KILN_PANEL];
        memcpy(to, from, pairs * AMX_B_ROW);
        if (w->rest % 2 != 0) { /* of the last pair the first only */
            const uint16_t *last = (const uint16_t *)(const void *)(from + pairs * AMX_B_ROW);
            for (size_t x = 0; x < (size_t)KILN_PANEL * 2; x += 2) {
                to[pairs][x] = last[x];
            }
        }
    }
    AMX_WRITTEN(w->scratch);
}

/* far: the rows of a come from beyond L2. */
static void amx_gemm(const struct kiln_gemm *g, bool far) {
    static void (*const multiply[2][2])(struct amx_block *, size_t, size_t, size_t) = {
        {amx_multiply_11, amx_multiply_12}, {amx_multiply_21, amx_multiply_22}};
    struct amx_block w = {.g = g, .scratch = g->scratch};
    assert(g->m > 0 && g->m <= KILN_GEMM_M && g->n > 0 && g->n <= KILN_GEMM_N);
    w.panel = (g->panel ? g->panel : kiln_panel_elements(g->k)) * sizeof(uint16_t);
    w.steps = g->k / AMX_K;
    w.rest = g->k % AMX_K;
    w.share = w.steps > 0 ? (AMX_SIDE + w.steps - 1) / w.steps : 0;
    if (w.rest > 0) {
        amx_copy_b(&w);
    }
    if (far) {
        amx_fetch_strip(&w, 0);
        amx_fetch(&w, SIZE_MAX);
    }
    for (size_t i = 0; i < g->m; i += AMX_SIDE) {
        const size_t rows = g->m - i < AMX_SIDE ? g->m - i : AMX_SIDE;
        if (i == 0 || rows < AMX_SIDE) {
            amx_configure(rows);
        }
        if (w.rest > 0) {
            amx_copy_a(&w, i, rows);
        }
        amx_fetch_strip(&w, i + AMX_SIDE);
        for (size_t j = 0; j < g->n; j += AMX_SIDE) {
            multiply[rows > AMX_TILE][g->n - j > AMX_TILE](&w, i, j, rows);
        }
    }
    amx_leave(&w, AMX_SIDE);
    _tile_release();
}

#endif

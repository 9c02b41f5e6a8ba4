/* SPDX-License-Identifier: MIT */
#include "kernel/lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"

enum { GUARD = 256, BLOCKS = 64 };

static struct {
    unsigned char *base;
    size_t before, bytes, after;
} blocks[BLOCKS];
static size_t n_blocks;
/* Normal numbers, made once: every tier is given the same. */
static float *numbers;
static size_t n_numbers, drawn;

/* False where the machine lacks the tier, or the provider multiplies other operands only. */
static bool choose(struct kiln_kernels *k, enum kiln_precision precision, const char *tier,
                   const char *provider) {
    struct kiln_err err;
    setenv("KILN_CPU", tier, 1);
    setenv("KILN_GEMM", provider, 1);
    memset(k, 0, sizeof *k);
    return kiln_kernels_choose(precision, k, &err) == KILN_OK && strcmp(k->provider, provider) == 0;
}

void lab_on_every_tier(void (*check)(const struct lab *lab)) {
    static const enum kiln_precision precisions[] = {KILN_PRECISION_FP32, KILN_PRECISION_BF16};
    static const char *const providers[] = {"own", "onednn"};
    size_t n;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    for (size_t p = 0; p < 2; p++) {
        for (size_t t = 0; t < n; t++) {
            for (size_t i = 0; i < 2; i++) {
                struct lab lab = {.bf16 = precisions[p] == KILN_PRECISION_BF16};
                CHECK(choose(&lab.ref, precisions[p], "ref", "own"));
                if (i == 1 && !lab.bf16) {
                    continue; /* oneDNN multiplies bf16 only; fp32 stays with own products */
                }
                if (choose(&lab.k, precisions[p], tiers[t].name, providers[i])) {
                    CHECK_STRING(lab.k.tier, tiers[t].name);
                    drawn = 0;
                    check(&lab);
                    lab_check_guards();
                }
            }
        }
    }
}

double lab_operand_ulp(const struct lab *lab) { return lab->bf16 ? 0x1p-7 : 0x1p-23; }

void *lab_memory(size_t elements, size_t element_bytes, size_t odd) {
    size_t bytes = elements * element_bytes, before = GUARD + odd * element_bytes;
    size_t all = kiln_round_up(before + bytes + GUARD, 64);
    CHECK(n_blocks < BLOCKS);
    unsigned char *base = kiln_alloc(all, 1);
    memset(base, 0xff, all);
    blocks[n_blocks].base = base;
    blocks[n_blocks].before = before;
    blocks[n_blocks].bytes = bytes;
    blocks[n_blocks++].after = all - before - bytes;
    return base + before;
}

void lab_check_guards(void) {
    for (size_t i = 0; i < n_blocks; i++) {
        const unsigned char *base = blocks[i].base, *end = base + blocks[i].before;
        for (size_t j = 0; j < blocks[i].before; j++) {
            CHECK_EQ(base[j], 0xff);
        }
        end += blocks[i].bytes;
        for (size_t j = 0; j < blocks[i].after; j++) {
            CHECK_EQ(end[j], 0xff);
        }
        kiln_free(blocks[i].base);
    }
    n_blocks = 0;
}

void lab_check_gaps(const void *matrix, size_t rows, size_t cols, size_t ld, size_t element_bytes) {
    const unsigned char *bytes = matrix;
    for (size_t r = 0; r + 1 < rows; r++) {
        for (size_t j = cols * element_bytes; j < ld * element_bytes; j++) {
            CHECK_EQ(bytes[r * ld * element_bytes + j], 0xff);
        }
    }
}

float lab_normal(void) {
    if (drawn == n_numbers) {
        const size_t n = n_numbers ? n_numbers * 2 : 4096;
        numbers = n_numbers ? kiln_realloc(numbers, n_numbers, n, sizeof *numbers)
                            : kiln_alloc(n, sizeof *numbers);
        CHECK(numbers);
        kiln_random_normals(1, KILN_STREAM_TEST, 1.0, numbers + n_numbers, n_numbers,
                            n - n_numbers);
        n_numbers = n;
    }
    return numbers[drawn++];
}

float *lab_floats(size_t n, size_t odd, float scale) {
    float *x = lab_memory(n, sizeof *x, odd);
    for (size_t i = 0; i < n; i++) {
        x[i] = lab_normal() * scale;
    }
    return x;
}

void *lab_operands(const struct lab *lab, size_t n, size_t odd, float scale) {
    void *x = lab_memory(n, lab->k.operand_bytes, odd);
    for (size_t i = 0; i < n; i++) {
        lab_put(lab, x, i, lab_normal() * scale);
    }
    return x;
}

void *lab_copy(const void *from, size_t elements, size_t element_bytes, size_t odd) {
    void *to = lab_memory(elements, element_bytes, odd);
    memcpy(to, from, elements * element_bytes);
    return to;
}

double lab_get(const struct lab *lab, const void *operands, size_t i) {
    return (double)(lab->bf16 ? kiln_bf16_to_f32(((const uint16_t *)operands)[i])
                              : ((const float *)operands)[i]);
}

void lab_put(const struct lab *lab, void *operands, size_t i, float value) {
    if (lab->bf16) {
        ((uint16_t *)operands)[i] = kiln_f32_to_bf16(value);
    } else {
        ((float *)operands)[i] = value;
    }
}

void lab_close(const struct lab *lab, const char *what, size_t i, double got, double want,
               double tolerance) {
    if (!(fabs(got - want) <= tolerance)) {
        FAIL("%s %s %s: %s[%zu] is %.9g, not %.9g: off by %.3g, allowed %.3g", lab->k.tier,
             lab->k.provider, lab->bf16 ? "bf16" : "fp32", what, i, got, want, fabs(got - want),
             tolerance);
    }
}

/* SPDX-License-Identifier: MIT
 *
 * The AMX block (src/kernel/x86/amx_block.h) on emulated tiles: on any machine with what writes the
 * results in plain C, and where there is AVX512-BF16 with what the tier has. On a machine with AMX
 * the tests of all tiers run the tiles themselves.
 */
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/amx_emulated.h"
#include "kernel/lab.h"
#include "kernel/x86/amx_block.h"

static void near_plain(const struct kiln_gemm *g) {
    amx_gemm(g, false);
    CHECK(!emulated.configured);
}
static void far_plain(const struct kiln_gemm *g) {
    amx_gemm(g, true);
    CHECK(!emulated.configured);
}

struct way {
    const char *name;
    void (*gemm)(const struct kiln_gemm *);
};

#if defined(__x86_64__)
void amx_block_avx512bf16(const struct kiln_gemm *g);
#endif

/* The n ways to run the block here. */
static size_t ways(struct way out[3]) {
    size_t n = 0;
    out[n++] = (struct way){"amx, emulated", near_plain};
    out[n++] = (struct way){"amx, emulated, fetching", far_plain};
#if defined(__x86_64__)
    if (kiln_cpu_has_avx512bf16() && __builtin_cpu_supports("avx512vl")) {
        out[n++] = (struct way){"amx, emulated, avx512bf16", amx_block_avx512bf16};
    }
#endif
    return n;
}

static struct lab lab_of(const char *name) {
    struct lab lab = {.bf16 = true};
    kiln_kernels_ref(&lab.k, KILN_PRECISION_BF16);
    lab.ref = lab.k;
    lab.k.tier = name;
    return lab;
}

/* The i-th of all ways to add and to round. */
static void check_shape(size_t m, size_t n, size_t k, size_t i) {
    struct lab_product product = {.m = m, .n = n, .k = k, .add = (enum lab_add)(i % LAB_ADDS)};
    struct way way[3];
    product.c_operand = i / LAB_ADDS % 2;
    if (product.c_operand && product.add == LAB_ADD_OWN) {
        product.add = LAB_ADD_NONE; /* c holds operands then, add is fp32 */
    }
    product.behind = i % 5 * 9;
    for (size_t w = i % 2, count = ways(way); w < count; w += 2) {
        struct lab lab = lab_of(way[w].name);
        lab_check_product(&lab, way[w].gemm, &product);
    }
}

/* Heights and depths of up to three tiles, all of them with each other. */
TEST(amx_block_is_right_for_every_height_and_depth) {
    size_t i = 0;
    for (size_t m = 1; m <= 49; m++) {
        for (size_t k = 1; k <= 67; k++) {
            check_shape(m, (m * 5 + k * 11) % 80 + 1, k, i++);
        }
    }
}

TEST(amx_block_is_right_for_every_width) {
    size_t i = 0;
    for (size_t n = 1; n <= KILN_GEMM_N; n++) {
        check_shape(n % 37 + 1, n, n * 7 % 100 + 1, i++);
        check_shape(n * 3 % 37 + 1, n, 32 + n % 2 * 32, i++);
    }
}

TEST(amx_block_is_right_for_large_blocks) {
    static const size_t ms[] = {63, 64, 65, 96, 100, 127, 128};
    static const size_t ns[] = {128, 200, 240, 255, 256};
    static const size_t ks[] = {64, 128, 257, 320, 511};
    for (size_t i = 0; i < 35; i++) {
        check_shape(ms[i % 7], ns[i % 5], ks[i * 3 % 5], i * 7);
    }
    check_shape(33, 33, 4099, 0);
}

/* One product, many ways: results have the same bits whatever the block and whoever writes them. */
TEST(amx_block_gives_an_element_the_same_bits_in_any_block) {
    const size_t M = 77, N = 199, K = 141;
    const size_t starts[][2] = {{0, 0}, {1, 64}, {16, 128}, {33, 0}, {76, 192}, {40, 64}};
    const struct lab lab = lab_of("amx, emulated");
    void *b = lab_operands(&lab, N * K, 0, 1.0f), *a = lab_operands(&lab, M * K, 1, 1.0f);
    void *packed = lab_memory(kiln_packed_elements(N, K), 2, 0);
    float *add = lab_floats(M * N, 0, 1.0f), *whole = lab_floats(M * N, 0, 1.0f);
    float *part = lab_floats(M * N, 0, 1.0f);
    void *scratch = lab_memory(KILN_GEMM_SCRATCH, 1, 0);
    struct way way[3];
    lab.k.pack(packed, kiln_panel_elements(K), b, K, N, K);
    for (size_t i = 0; i < 24; i++) {
        const size_t row = starts[i / 4][0], column = starts[i / 4][1];
        struct kiln_gemm g = {.m = M, .n = N, .k = K, .a = a, .lda = K, .b = packed, .ldc = N};
        const size_t element = i % 4 / 2 ? 2 : 4;
        g.c = whole;
        g.scratch = scratch;
        g.c_operand = element == 2;
        g.add = i % 2 ? add : NULL;
        g.ldadd = N;
        near_plain(&g);
        g.a = (const char *)a + row * K * 2;
        g.b = (const char *)packed + column / 64 * kiln_panel_elements(K) * 2;
        g.m = M - row;
        g.n = N - column;
        g.add = i % 2 ? add + row * N + column : NULL;
        g.c = (char *)part + (row * N + column) * element;
        for (size_t w = 0, count = ways(way); w < count; w++) {
            memset(part, 0xff, M * N * sizeof *part);
            way[w].gemm(&g);
            for (size_t r = row; r < M; r++) {
                const size_t at = (r * N + column) * element;
                CHECK_BYTES((char *)part + at, (char *)whole + at, g.n * element);
            }
        }
    }
    lab_check_guards();
}

/* `bytes` of memory whose end is the end of a page that nothing lies behind. */
static void *at_the_end(size_t bytes, size_t page) {
    const size_t room = (bytes + page - 1) / page * page;
    char *memory =
        mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    CHECK_EQ(mprotect(memory + room, page, PROT_NONE), 0);
    memset(memory, 0, room);
    return memory + room - bytes;
}

/* A read or write behind what is given ends the test with a signal. */
TEST(amx_block_touches_only_what_it_is_given) {
    static const size_t shapes[][3] = {{5, 1, 1},    {16, 16, 32}, {17, 17, 33}, {31, 33, 63},
                                       {33, 49, 40}, {48, 64, 96}, {128, 65, 7}};
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *scratch = lab_memory(KILN_GEMM_SCRATCH, 1, 0);
    struct way way[3];
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0] * 4; i++) {
        const size_t *s = shapes[i / 4];
        const size_t lda = s[2] + i % 3, ldc = s[1] + i % 2;
        struct kiln_gemm g = {.m = s[0], .n = s[1], .k = s[2], .lda = lda, .ldc = ldc};
        g.c_operand = i % 4 / 2;
        g.a = at_the_end(((s[0] - 1) * lda + s[2]) * 2, page);
        g.b = at_the_end(kiln_packed_elements(s[1], s[2]) * 2, page);
        g.c = at_the_end(((s[0] - 1) * ldc + s[1]) * (g.c_operand ? 2 : 4), page);
        g.add = i % 2 ? at_the_end(((s[0] - 1) * ldc + s[1]) * 4, page) : NULL;
        g.ldadd = ldc;
        g.scratch = scratch;
        for (size_t w = 0, count = ways(way); w < count; w++) {
            way[w].gemm(&g);
        }
    }
    lab_check_guards();
}

/* What multiplies NaN is no number; so what lies behind k was no part of the products above. */
TEST(amx_emulation_multiplies_as_the_manual_says) {
    unsigned char config[64] = {1};
    uint16_t a[16][32] = {{0}}, b[16][32] = {{0}};
    float c[16][16], sums[16][16] = {{0}};
    for (size_t t = 0; t < 3; t++) {
        config[16 + 2 * t] = 64;
        config[48 + t] = 16;
    }
    /* Even k: 1 + 2^-24 + 2^-24, each rounded to 1; odd k: 2^-24 and 2^-24 make 2^-23. */
    a[0][0] = a[0][2] = a[0][4] = a[0][1] = a[0][3] = kiln_f32_to_bf16(1.0f);
    b[0][0] = kiln_f32_to_bf16(1.0f);
    b[1][0] = b[2][0] = b[0][1] = b[1][1] = kiln_f32_to_bf16(0x1p-24f);
    /* Denormals are nothing, NaN stays. */
    a[1][0] = kiln_f32_to_bf16(0x1p-130f);
    a[2][0] = kiln_f32_to_bf16(0x1p-100f);
    a[3][0] = kiln_f32_to_bf16(NAN);
    b[0][2] = kiln_f32_to_bf16(0x1p-30f);
    b[0][4] = kiln_f32_to_bf16(0x1p100f);
    memset(c, 0, sizeof c);
    _tile_loadconfig(config);
    _tile_loadd(0, c, 64);
    _tile_loadd(1, a, 64);
    _tile_loadd(2, b, 64);
    _tile_dpbf16ps(0, 1, 2);
    _tile_stored(0, sums, 64);
    _tile_release();
    CHECK_CLOSE(sums[0][0], 1.0 + 0x1p-23, 0);
    CHECK_CLOSE(sums[1][2], 0, 0);
    CHECK_CLOSE(sums[2][1], 0, 0);
    CHECK_CLOSE(sums[2][2], 1, 0);
    CHECK(isnan(sums[3][0]) && isnan(sums[3][5]));
    CHECK_CLOSE(sums[4][0], 0, 0);
}

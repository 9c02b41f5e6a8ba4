/* SPDX-License-Identifier: MIT
 *
 * crc32c.c: see crc32c.h. Two ways to the same value: eight tables, eight bytes a turn (Kounavis
 * and Berry, 2005), and the CRC instruction of SSE 4.2. Which one is chosen once, at start, so
 * that a call costs one indirect jump and no lock.
 */
#include "base/crc32c.h"

#include <string.h>

typedef uint32_t (*crc_fn)(uint32_t crc, const unsigned char *p, size_t size);

static uint32_t tables[8][256];

static void make_tables(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (0x82F63B78u & -(crc & 1));
        }
        tables[0][i] = crc;
    }
    for (int t = 1; t < 8; t++) {
        for (int i = 0; i < 256; i++) {
            uint32_t before = tables[t - 1][i];
            tables[t][i] = before >> 8 ^ tables[0][before & 255];
        }
    }
}

static uint32_t crc_tables(uint32_t crc, const unsigned char *p, size_t size) {
    for (; size >= 8; size -= 8, p += 8) {
        crc ^= p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        crc = tables[7][crc & 255] ^ tables[6][crc >> 8 & 255] ^ tables[5][crc >> 16 & 255] ^
              tables[4][crc >> 24] ^ tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^
              tables[0][p[7]];
    }
    for (; size > 0; size--) {
        crc = crc >> 8 ^ tables[0][(crc ^ *p++) & 255];
    }
    return crc;
}

static crc_fn crc_best = crc_tables;

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t crc_sse42(uint32_t crc, const unsigned char *p,
                                                            size_t size) {
    uint64_t wide = crc;
    for (; size >= 8; size -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; size > 0; size--) {
        crc = __builtin_ia32_crc32qi(crc, *p++);
    }
    return crc;
}
#endif

__attribute__((constructor)) static void crc_choose(void) {
    make_tables();
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2")) {
        crc_best = crc_sse42;
    }
#endif
}

uint32_t kiln_crc32c(uint32_t crc, const void *data, size_t size) {
    return ~crc_best(~crc, data, size);
}

uint32_t kiln_crc32c_portable(uint32_t crc, const void *data, size_t size) {
    return ~crc_tables(~crc, data, size);
}

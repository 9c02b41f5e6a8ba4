/* SPDX-License-Identifier: MIT
 *
 * CRC-32C (src/base/crc32c.h) against RFC 3720 section B.4 and against the definition bit by bit.
 */
#include <string.h>

#include "base/crc32c.h"
#include "base/random.h"
#include "kiln_test.h"

static uint32_t crc_by_bits(const unsigned char *data, size_t size) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
        }
    }
    return ~crc;
}

TEST(crc32c_gives_the_values_of_the_rfc) {
    unsigned char bytes[32] = {0};
    CHECK_EQ(kiln_crc32c(0, "123456789", 9), 0xE3069283u);
    CHECK_EQ(kiln_crc32c(0, bytes, 32), 0x8A9136AAu);
    memset(bytes, 0xFF, 32);
    CHECK_EQ(kiln_crc32c(0, bytes, 32), 0x62A8AB43u);
    CHECK_EQ(kiln_crc32c(0, NULL, 0), 0);
}

TEST(crc32c_is_the_same_on_every_path_length_and_alignment) {
    unsigned char bytes[128];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)kiln_random_bits(1, KILN_STREAM_TEST, i);
    }
    for (size_t start = 0; start < 9; start++) {
        for (size_t size = 0; size < 100; size++) {
            uint32_t want = crc_by_bits(bytes + start, size);
            CHECK_EQ(kiln_crc32c(0, bytes + start, size), want);
            CHECK_EQ(kiln_crc32c_portable(0, bytes + start, size), want);
        }
    }
}

TEST(crc32c_of_two_parts_is_that_of_the_whole) {
    const char *text = "Once upon a time there was a kiln.";
    size_t size = strlen(text);
    for (size_t cut = 0; cut <= size; cut++) {
        uint32_t head = kiln_crc32c(0, text, cut);
        CHECK_EQ(kiln_crc32c(head, text + cut, size - cut), kiln_crc32c(0, text, size));
    }
}

/* SPDX-License-Identifier: MIT
 *
 * Weight files, byte for byte, and every member that can be wrong; fp16 there and back.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/blob.h"
#include "device/mil/half.h"
#include "kiln_test.h"

/* A file of three numbers: 1, -2 and the smallest subnormal. */
static const unsigned char file_of_three[134] = {
    [0] = 1,      [4] = 2,      [64] = 0xEF,  [65] = 0xBE,  [66] = 0xAD,
    [67] = 0xDE,  [68] = 1,     [72] = 6,     [80] = 128,   [128] = 0x00,
    [129] = 0x3C, [130] = 0x00, [131] = 0xC0, [132] = 0x01, [133] = 0x00,
};

TEST(a_weight_file_is_written_byte_for_byte) {
    const uint16_t numbers[] = {0x3C00, 0xC000, 0x0001};
    unsigned char *file = kiln_alloc(134, 1);
    CHECK_EQ(kiln_blob_bytes(3), 134);
    memset(file, 0xFF, 134);
    uint16_t *payload = kiln_blob_begin(file, 3);
    CHECK((unsigned char *)payload == file + 128);
    memcpy(payload, numbers, sizeof numbers);
    CHECK_BYTES(file, file_of_three, 134);
    CHECK(kiln_blob_is(file, 134));
    CHECK_EQ(kiln_blob_bytes((size_t)3 << 30), 128 + ((size_t)3 << 31));
    CHECK(kiln_blob_bytes(SIZE_MAX / 2) == SIZE_MAX);
    kiln_free(file);
}

TEST(sizes_beyond_four_gigabytes_are_written_in_full) {
    unsigned char head[128];
    uint64_t bytes;
    kiln_blob_begin(head, (size_t)5 << 30);
    memcpy(&bytes, head + 72, sizeof bytes);
    CHECK_EQ(bytes, (uint64_t)10 << 30);
}

TEST(a_weight_file_is_read_wherever_it_lies) {
    unsigned char room[135];
    struct kiln_blob blob;
    struct kiln_err err;
    memcpy(room + 1, file_of_three, sizeof file_of_three);
    CHECK_OK(kiln_blob_read("w.bin", room + 1, 134, 64, &blob, &err), &err);
    CHECK_EQ(blob.type, KILN_BLOB_FP16);
    CHECK_EQ(blob.bytes, 6);
    CHECK(blob.payload == room + 129);
}

/* The file with one byte changed is refused with these words. */
static void refused(size_t at, unsigned char value, uint64_t offset, const char *words) {
    unsigned char file[134];
    struct kiln_blob blob;
    struct kiln_err err;
    memcpy(file, file_of_three, sizeof file);
    file[at] = value;
    CHECK_FAILS(kiln_blob_read("w.bin", file, sizeof file, offset, &blob, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "w.bin: ");
    CHECK_CONTAINS(err.message, words);
}

TEST(every_wrong_member_of_a_weight_file_is_named) {
    refused(0, 0, 64, "offset 0: 0 blobs");
    refused(4, 3, 64, "offset 4: version 3, expected 2");
    refused(64, 0, 64, "magic 0xDEADBE00, expected 0xDEADBEEF");
    refused(68, 9, 64, "data type 9, expected 1 (fp16)");
    refused(72, 7, 64, "7 payload bytes from 128 on, but the file has 6");
    refused(72, 5, 64, "5 payload bytes, expected a multiple of 2");
    refused(79, 0x80, 64, "payload bytes from 128 on, but the file has 6");
    refused(80, 127, 64, "payload at 127, expected between the descriptor's end at 128");
    refused(80, 135, 64, "payload at 135");
    refused(87, 0xFF, 64, "payload at 18374686479671623808");
    refused(0, 1, 0, "no blob can be at offset 0");
    refused(0, 1, 71, "no blob can be at offset 71");
    refused(0, 1, UINT64_MAX, "no blob can be at offset 18446744073709551615");
    refused(0, 1, 70, "an offset is that of the descriptor (64 for the first)");
}

TEST(a_cut_weight_file_is_refused_at_every_length) {
    struct kiln_blob blob;
    for (size_t bytes = 0; bytes < sizeof file_of_three; bytes++) {
        struct kiln_err err;
        unsigned char *cut = kiln_alloc(bytes, 1);
        memcpy(cut, file_of_three, bytes);
        CHECK_FAILS(kiln_blob_read("w.bin", cut, bytes, 64, &blob, &err), KILN_EINPUT, &err);
        CHECK(kiln_blob_is(cut, bytes) == (bytes >= 128));
        kiln_free(cut);
    }
}

TEST(a_second_blob_is_found_by_its_own_offset) {
    unsigned char file[64 + 64 + 64 + 64 + 4] = {0};
    struct kiln_blob blob;
    struct kiln_err err;
    memcpy(file, file_of_three, sizeof file_of_three);
    memcpy(file + 192, file_of_three + 64, 64);
    file[192 + 4] = KILN_BLOB_INT8;
    file[192 + 8] = 4;
    file[192 + 16] = 0;
    file[192 + 17] = 1;
    CHECK_OK(kiln_blob_read("w.bin", file, sizeof file, 192, &blob, &err), &err);
    CHECK_EQ(blob.type, KILN_BLOB_INT8);
    CHECK_EQ(blob.bytes, 4);
    CHECK(blob.payload == file + 256);
}

TEST(every_fp16_number_comes_back_from_fp32) {
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = kiln_f16_to_f32((uint16_t)h);
        const bool nan = (h & 0x7C00) == 0x7C00 && (h & 0x3FF) != 0;
        if (nan) {
            CHECK(isnan(f));
        } else {
            CHECK_EQ(kiln_f32_to_f16(f), h);
            const uint32_t exponent = h >> 10 & 31;
            const double digits = (h & 0x3FF) + (exponent > 0 ? 1024.0 : 0.0);
            const double value = exponent == 31
                                     ? (double)INFINITY
                                     : ldexp(digits, (exponent > 0 ? (int)exponent : 1) - 25);
            CHECK((double)f == ((h & 0x8000) != 0 ? -value : value));
        }
    }
}

TEST(numbers_are_rounded_to_the_nearest_fp16) {
    CHECK_EQ(kiln_f64_to_f16(1.0 + 0x1p-11), 0x3C00);           /* a tie, to even */
    CHECK_EQ(kiln_f64_to_f16(1.0 + 0x1p-11 + 0x1p-40), 0x3C01); /* fp32 would lose it */
    CHECK_EQ(kiln_f64_to_f16(1.0 + 3 * 0x1p-11), 0x3C02);
    CHECK_EQ(kiln_f64_to_f16(65519.99), 0x7BFF);
    CHECK_EQ(kiln_f64_to_f16(-65520.0), 0xFC00);
    CHECK_EQ(kiln_f64_to_f16(0x1p-25), 0x0000);
    CHECK_EQ(kiln_f64_to_f16(-0x1.8p-24), 0x8002);
    CHECK_EQ(kiln_f64_to_f16(0x1p-14 - 0x1p-26), 0x0400); /* up to the smallest normal one */
    CHECK_EQ(kiln_f64_to_f16((double)NAN), 0x7E00);
}

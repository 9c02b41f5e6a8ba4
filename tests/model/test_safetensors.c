/* SPDX-License-Identifier: MIT
 *
 * Headers of safetensors files: each thing that can be wrong is named, and random damage does no
 * more than give an error.
 */
#include "model/safetensors.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "kiln_test.h"

/* A file with this header and so many bytes of data. */
static const char *write_header(const char *header, size_t data) {
    const uint64_t size = strlen(header);
    char *bytes = kiln_alloc(8 + size + data, 1);
    memcpy(bytes, &size, 8);
    memcpy(bytes + 8, header, size);
    const char *path = test_file("x.safetensors", bytes, 8 + size + data);
    kiln_free(bytes);
    return path;
}

static void check_refused(const char *path, const char *why) {
    struct kiln_safetensors file;
    struct kiln_err err;
    CHECK_FAILS(kiln_safetensors_open(&file, path, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, path);
    CHECK_CONTAINS(err.message, why);
}

static void check_header(const char *header, size_t data, const char *why) {
    check_refused(write_header(header, data), why);
}

#define A(rest) "{\"a\":{\"dtype\":\"F32\"," rest "}}"

TEST(a_safetensors_file_tells_its_tensors) {
    struct kiln_safetensors file;
    struct kiln_err err;
    const char *path = write_header(
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
        "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}   ",
        20);
    CHECK_OK(kiln_safetensors_open(&file, path, &err), &err);
    CHECK_EQ(file.n, 2);
    CHECK_STRING(file.tensors[0].name, "a");
    CHECK(!file.tensors[0].known);
    CHECK_STRING(file.tensors[1].name, "b");
    CHECK(file.tensors[1].known && file.tensors[1].dtype == KILN_DTYPE_BF16);
    CHECK(file.tensors[1].rank == 2 && file.tensors[1].shape[1] == 3);
    kiln_safetensors_close(&file);
}

TEST(what_is_wrong_with_a_safetensors_header_is_named) {
    check_header(A("\"shape\":[2],\"data_offsets\":[0,8]"), 4, "lie outside of the file");
    check_header(A("\"shape\":[2],\"data_offsets\":[0,8]"), 12, "behind its last tensor");
    check_header(A("\"shape\":[2],\"data_offsets\":[4,12]"), 12, "in front of tensor a");
    check_header(A("\"shape\":[3],\"data_offsets\":[0,8]"), 8, "F32 and shape make 12");
    check_header(A("\"shape\":[2],\"data_offsets\":[8,0]"), 8, "no begin and end");
    check_header(A("\"shape\":[-2],\"data_offsets\":[0,8]"), 8, "no size");
    check_header(A("\"shape\":[2.5],\"data_offsets\":[0,8]"), 8, "no size");
    check_header(A("\"shape\":[9223372036854775808],\"data_offsets\":[0,8]"), 8, "no JSON");
    check_header(A("\"shape\":[9223372036854775807],\"data_offsets\":[0,8]"), 8, "2^64 bytes");
    check_header(A("\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]"), 8, "2^64 bytes");
    check_header(A("\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]"), 8, "up to 8 extents");
    check_header(A("\"data_offsets\":[0,8]"), 8, "\"shape\" is no list");
    check_header("{\"a\":{\"dtype\":\"F4\",\"shape\":[],\"data_offsets\":[0,4]}}", 4,
                 "tensor a has dtype F4");
    check_header("{\"a\":3}", 0, "no object");
    check_header("[1]", 0, "no JSON object");
    check_header("{\"a\"", 0, "no JSON");
    check_header(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
        12, "a and b overlap");
    check_header(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
        8, "duplicate");
}

TEST(a_header_beyond_the_file_is_refused) {
    const uint64_t sizes[] = {100, (uint64_t)1 << 63, ~(uint64_t)0, 200000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        check_refused(test_file("x.safetensors", &sizes[i], 8), "a header of");
    }
    check_refused(test_file("x.safetensors", "1234", 4), "cut short");
}

TEST(json_nested_10000_deep_is_refused) {
    char *deep = kiln_alloc(20100, 1);
    strcpy(deep, "{\"__metadata__\":");
    memset(deep + strlen(deep), '[', 10000);
    memset(deep + strlen(deep), ']', 10000);
    strcat(deep, "}");
    check_header(deep, 0, "no JSON");
    kiln_free(deep);
}

TEST(random_damage_of_a_safetensors_header_never_crashes) {
    char header[] =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"b\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[8,16]}}";
    for (uint64_t i = 0; i < 500; i++) {
        char bad[sizeof header];
        memcpy(bad, header, sizeof header);
        for (uint64_t j = 0; j < 2; j++) {
            const uint64_t bits = kiln_random_bits(2, KILN_STREAM_TEST, 2 * i + j);
            bad[bits % (sizeof header - 1)] = (char)('!' + (bits >> 32) % 94);
        }
        struct kiln_safetensors file;
        if (kiln_safetensors_open(&file, write_header(bad, 16), NULL) == KILN_OK) {
            kiln_safetensors_close(&file);
        }
    }
}

/* SPDX-License-Identifier: MIT
 *
 * blob.c: weight files, written and read. Members are read one by one, so that a file may lie at
 * any address and a wrong member is named.
 */
#include "device/mil/blob.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weight files are little-endian, and so is every machine this was written for"
#endif

#define VERSION UINT32_C(2)
#define MAGIC   UINT32_C(0xDEADBEEF)
/* Members of a descriptor. */
enum { AT_MAGIC = 0, AT_TYPE = 4, AT_BYTES = 8, AT_PAYLOAD = 16 };

static uint32_t get32(const void *file, size_t at) {
    uint32_t value;
    memcpy(&value, (const unsigned char *)file + at, sizeof value);
    return value;
}

static uint64_t get64(const void *file, size_t at) {
    uint64_t value;
    memcpy(&value, (const unsigned char *)file + at, sizeof value);
    return value;
}

static void put32(void *file, size_t at, uint32_t value) {
    memcpy((unsigned char *)file + at, &value, sizeof value);
}

static void put64(void *file, size_t at, uint64_t value) {
    memcpy((unsigned char *)file + at, &value, sizeof value);
}

/* ---- writing -------------------------------------------------------------------------------- */

size_t kiln_blob_bytes(size_t elements) {
    size_t bytes;
    if (kiln_mul_overflows(elements, sizeof(uint16_t), &bytes) ||
        kiln_add_overflows(bytes, KILN_BLOB_HEADER + KILN_BLOB_DESCRIPTOR, &bytes)) {
        return SIZE_MAX; /* which no allocation gives */
    }
    return bytes;
}

uint16_t *kiln_blob_begin(void *file, size_t elements) {
    const size_t payload = KILN_BLOB_HEADER + KILN_BLOB_DESCRIPTOR;
    memset(file, 0, payload);
    put32(file, 0, 1);
    put32(file, 4, VERSION);
    put32(file, KILN_BLOB_FIRST + AT_MAGIC, MAGIC);
    put32(file, KILN_BLOB_FIRST + AT_TYPE, KILN_BLOB_FP16);
    put64(file, KILN_BLOB_FIRST + AT_BYTES, (uint64_t)elements * sizeof(uint16_t));
    put64(file, KILN_BLOB_FIRST + AT_PAYLOAD, payload);
    return (uint16_t *)(void *)((unsigned char *)file + payload);
}

/* ---- reading -------------------------------------------------------------------------------- */

static enum kiln_status check_header(const char *name, const void *file, size_t bytes,
                                     struct kiln_err *err) {
    KILN_REQUIRE(bytes >= KILN_BLOB_HEADER, err, KILN_EINPUT,
                 "%s: %zu bytes, but a weight file begins with a header of %d; write it again",
                 name, bytes, KILN_BLOB_HEADER);
    const uint32_t blobs = get32(file, 0), version = get32(file, 4);
    KILN_REQUIRE(version == VERSION, err, KILN_EINPUT,
                 "%s: offset 4: version %" PRIu32 ", expected %" PRIu32
                 ": not a weight file, or one without its header",
                 name, version, VERSION);
    KILN_REQUIRE(blobs > 0, err, KILN_EINPUT, "%s: offset 0: 0 blobs, expected 1 or more", name);
    return KILN_OK;
}

size_t kiln_blob_element_bytes(enum kiln_blob_type type) {
    switch (type) {
        case KILN_BLOB_FP16:
            return 2;
        case KILN_BLOB_FP32:
            return 4;
        case KILN_BLOB_UINT8:
        case KILN_BLOB_INT8:
            return 1;
        default:
            return 0;
    }
}

enum kiln_status kiln_blob_read(const char *name, const void *file, size_t bytes, uint64_t offset,
                                struct kiln_blob *out, struct kiln_err *err) {
    KILN_TRY(check_header(name, file, bytes, err));
    KILN_REQUIRE(
        offset >= KILN_BLOB_HEADER && offset <= bytes && bytes - offset >= KILN_BLOB_DESCRIPTOR,
        err, KILN_EINPUT,
        "%s: no blob can be at offset %" PRIu64
        ": descriptors of %d bytes lie between offset %d and the file's end at %zu",
        name, offset, KILN_BLOB_DESCRIPTOR, KILN_BLOB_HEADER, bytes);
    const size_t at = (size_t)offset;
    const uint32_t magic = get32(file, at + AT_MAGIC), type = get32(file, at + AT_TYPE);
    const uint64_t size = get64(file, at + AT_BYTES), payload = get64(file, at + AT_PAYLOAD);
    KILN_REQUIRE(magic == MAGIC, err, KILN_EINPUT,
                 "%s: blob at offset %" PRIu64 ": magic 0x%08" PRIX32 ", expected 0x%08" PRIX32
                 "; an offset is that of the descriptor (%d for the first), not of the payload",
                 name, offset, magic, MAGIC, KILN_BLOB_FIRST);
    const size_t element = kiln_blob_element_bytes((enum kiln_blob_type)type);
    KILN_REQUIRE(element > 0, err, KILN_EINPUT,
                 "%s: blob at offset %" PRIu64 ": data type %" PRIu32
                 ", expected 1 (fp16), 2 (fp32), 3 (uint8) or 4 (int8)",
                 name, offset, type);
    KILN_REQUIRE(payload >= offset + KILN_BLOB_DESCRIPTOR && payload <= bytes, err, KILN_EINPUT,
                 "%s: blob at offset %" PRIu64 ": payload at %" PRIu64
                 ", expected between the descriptor's end at %" PRIu64 " and the file's at %zu",
                 name, offset, payload, offset + KILN_BLOB_DESCRIPTOR, bytes);
    KILN_REQUIRE(size <= bytes - payload, err, KILN_EINPUT,
                 "%s: blob at offset %" PRIu64 ": %" PRIu64 " payload bytes from %" PRIu64
                 " on, but the file has %" PRIu64 ": it was cut, or the size is wrong",
                 name, offset, size, payload, (uint64_t)bytes - payload);
    KILN_REQUIRE(size % element == 0, err, KILN_EINPUT,
                 "%s: blob at offset %" PRIu64 ": %" PRIu64
                 " payload bytes, expected a multiple of %zu",
                 name, offset, size, element);
    out->type = (enum kiln_blob_type)type;
    out->bytes = size;
    out->payload = (const unsigned char *)file + payload;
    return KILN_OK;
}

bool kiln_blob_is(const void *file, size_t bytes) {
    if (bytes < KILN_BLOB_HEADER + KILN_BLOB_DESCRIPTOR || get32(file, 0) == 0 ||
        get32(file, 4) != VERSION) {
        return false;
    }
    for (size_t at = 8; at < KILN_BLOB_HEADER; at += 8) {
        if (get64(file, at) != 0) {
            return false;
        }
    }
    return get32(file, KILN_BLOB_FIRST + AT_MAGIC) == MAGIC;
}

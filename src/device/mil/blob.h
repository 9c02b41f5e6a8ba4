/* SPDX-License-Identifier: MIT
 *
 * blob.h: weight files (BLOBFILE), as the Neural Engine's compiler reads them.
 *
 *   offset 0    u32 number of blobs, u32 version 2, zeros up to 64
 *   then for each blob, 64-byte aligned:
 *     0   u32 magic 0xDEADBEEF      4  u32 data type
 *     8   u64 payload bytes        16  u64 offset of the payload from the start of the file
 *     24  zeros up to 64, then the payload
 *
 * All little-endian. A program names a blob by the offset of its descriptor: 64 for the first.
 * The number of blobs is not held against what the file has: published writers always say 1.
 */
#ifndef KILN_DEVICE_MIL_BLOB_H
#define KILN_DEVICE_MIL_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

enum kiln_blob_type {
    KILN_BLOB_FP16 = 1,
    KILN_BLOB_FP32 = 2,
    KILN_BLOB_UINT8 = 3,
    KILN_BLOB_INT8 = 4,
};
/* Of an element; 0: no such type. */
size_t kiln_blob_element_bytes(enum kiln_blob_type type);
enum { KILN_BLOB_HEADER = 64, KILN_BLOB_DESCRIPTOR = 64, KILN_BLOB_FIRST = 64 };

/* Bytes of a file with one fp16 blob of so many elements; SIZE_MAX when that overflows. */
size_t kiln_blob_bytes(size_t elements);
/* Write header and descriptor of such a file to `file` (kiln_blob_bytes); returns where the
 * payload goes, for the caller to fill. */
uint16_t *kiln_blob_begin(void *file, size_t elements);

/* One blob of a file. */
struct kiln_blob {
    enum kiln_blob_type type;
    uint64_t bytes;
    const void *payload; /* within the file; aligned only if whoever wrote it did */
};
/* Read the blob whose descriptor is at `offset`. KILN_EINPUT names `name`, the offset and the
 * member that is wrong, with what was found and what was expected. */
KILN_MUST_CHECK enum kiln_status kiln_blob_read(const char *name, const void *file, size_t bytes,
                                                uint64_t offset, struct kiln_blob *out,
                                                struct kiln_err *err);
/* Does it look like a blob file? For `kiln inspect`. */
bool kiln_blob_is(const void *file, size_t bytes);

#endif

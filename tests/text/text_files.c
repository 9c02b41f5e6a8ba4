/* SPDX-License-Identifier: MIT */
#include "text_files.h"

#include <zlib.h>
#include <zstd.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/text.h"
#include "kiln_test.h"
#include "text/stream.h"

struct test_bytes test_gzipped(const char *text, size_t size) {
    struct test_bytes out = {kiln_alloc(size + 1000, 1), 0};
    z_stream z = {.next_in = (unsigned char *)(uintptr_t)text, .avail_in = (uInt)size};
    CHECK_EQ(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_out = out.at;
    z.avail_out = (uInt)(size + 1000);
    CHECK_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
    out.n = z.total_out;
    deflateEnd(&z);
    return out;
}

struct test_bytes test_zstandard(const char *text, size_t size) {
    struct test_bytes out = {kiln_alloc(ZSTD_compressBound(size), 1), 0};
    out.n = ZSTD_compress(out.at, ZSTD_compressBound(size), text, size, 3);
    CHECK(!ZSTD_isError(out.n));
    return out;
}

test_pack_fn *const test_packers[2] = {test_gzipped, test_zstandard};

struct test_bytes test_stream(const char *path, size_t step) {
    struct kiln_stream *stream;
    struct kiln_err err;
    struct test_bytes out = {kiln_alloc(1 << 20, 1), 0};
    size_t got = 1;
    CHECK_OK(kiln_stream_open(path, &stream, &err), &err);
    while (got > 0) {
        CHECK_OK(kiln_stream_read(stream, out.at + out.n, step, &got, &err), &err);
        out.n += got;
    }
    CHECK_EQ(kiln_stream_size(stream), out.n);
    kiln_stream_close(stream);
    return out;
}

void test_damaged(const struct test_bytes *file, size_t n, const char *part) {
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    const char *path = test_file("damaged.txt", file->at, n);
    CHECK_FAILS(kiln_tokenize_file(tok, path, test_path("out.tok"), NULL, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "damaged.txt");
    CHECK_CONTAINS(err.message, part);
    CHECK(!kiln_path_exists(test_path("out.tok")));
    kiln_tokenizer_destroy(tok);
}

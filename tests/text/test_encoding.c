/* SPDX-License-Identifier: MIT
 *
 * test_encoding.c: texts with a byte order mark, in UTF-16 and in UTF-32.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kiln/text.h"
#include "kiln_test.h"
#include "text/utf8.h"
#include "text_files.h"

static void put_unit(struct test_bytes *out, uint32_t value, size_t unit, bool big) {
    for (size_t k = 0; k < unit; k++) {
        out->at[out->n++] = (unsigned char)(value >> 8 * (big ? unit - 1 - k : k));
    }
}

/* A text of UTF-8 in units of 2 or 4 bytes, with a mark or without. */
static struct test_bytes encoded(const char *text, size_t unit, bool big, bool mark) {
    const size_t size = strlen(text);
    struct test_bytes out = {kiln_alloc(4 * size + 4, 1), 0};
    uint32_t code = 0;
    if (mark) {
        put_unit(&out, 0xFEFF, unit, big);
    }
    for (size_t at = 0; at < size; at += kiln_utf8_read(text + at, size - at, &code)) {
        CHECK(kiln_utf8_read(text + at, size - at, &code) > 0);
        if (unit == 2 && code >= 0x10000) {
            put_unit(&out, 0xD800 + ((code - 0x10000) >> 10), unit, big);
            put_unit(&out, 0xDC00 + ((code - 0x10000) & 0x3FF), unit, big);
        } else {
            put_unit(&out, code, unit, big);
        }
    }
    return out;
}

static void check_read(const char *name, const struct test_bytes *file, const char *text) {
    const char *path = test_file(name, file->at, file->n);
    const size_t steps[] = {1, 3, 1 << 16};
    for (size_t i = 0; i < 3; i++) {
        struct test_bytes got = test_stream(path, steps[i]);
        CHECK_EQ(got.n, strlen(text));
        CHECK_BYTES(got.at, text, got.n);
        kiln_free(got.at);
    }
}

/* Of a text's beginning, once, and compressed as well. */
static void check_encoding(const struct test_bytes *file, const char *text, const char *name) {
    struct kiln_tokenize_report report = {0};
    const struct kiln_tokenize_options options = {.report = &report};
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    check_read("text.txt", file, text);
    for (size_t p = 0; p < 2; p++) {
        struct test_bytes packed = test_packers[p]((const char *)file->at, file->n);
        check_read("packed.txt", &packed, text);
        kiln_free(packed.at);
    }
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    CHECK_OK(kiln_tokenize_file(tok, test_path("text.txt"), test_path("out.tok"), &options, &err),
             &err);
    CHECK_STRING(report.encoding ? report.encoding : "none", name);
    CHECK_EQ(report.not_utf8, 0);
    kiln_tokenizer_destroy(tok);
}

static const char every_length[] =
    "Plain words, then \xC3\xBC, \xE2\x82\xAC, \xEF\xBF\xBD and \xF0\x9F\x94\xA5, the last of "
    "which "
    "is a pair in UTF-16; and \xF4\x8F\xBF\xBF is the last of all. More words that are plain.";

TEST(a_byte_order_mark_says_what_a_text_is_and_is_no_part_of_it) {
    static const char *const names[] = {"UTF-16, little end first", "UTF-16, big end first",
                                        "UTF-32, little end first", "UTF-32, big end first"};
    struct test_bytes plain = {kiln_alloc(sizeof every_length + 3, 1), sizeof every_length + 2};
    snprintf((char *)plain.at, plain.n + 1, "\xEF\xBB\xBF%s", every_length);
    check_encoding(&plain, every_length, "UTF-8 with a byte order mark");
    plain.at += 3;
    plain.n -= 3;
    check_encoding(&plain, every_length, "none");
    kiln_free(plain.at - 3);
    for (size_t i = 0; i < 8; i++) { /* with a mark, and without: by the zeros */
        struct test_bytes wide = encoded(every_length, i & 2 ? 4 : 2, i & 1, i < 4);
        check_encoding(&wide, every_length, names[i & 3]);
        kiln_free(wide.at);
    }
}

TEST(a_wide_text_is_converted_in_any_length) {
    char *text = kiln_alloc(400001, 1);
    for (size_t at = 0; at < 400000; at += 4) { /* pairs lie across every block's end */
        memcpy(text + at, at % 12 ? "\xF0\x9F\x94\xA5" : "abc\n", 4);
    }
    for (size_t i = 0; i < 4; i++) {
        struct test_bytes wide = encoded(text, i & 2 ? 4 : 2, i & 1, true);
        struct test_bytes got = test_stream(test_file("wide.txt", wide.at, wide.n), 50001);
        CHECK_EQ(got.n, 400000);
        CHECK_BYTES(got.at, text, got.n);
        kiln_free(got.at);
        kiln_free(wide.at);
    }
    kiln_free(text);
}

TEST(jsonl_in_utf16_is_read_line_by_line) {
    const char lines[] = "{\"text\": \"one \xF0\x9F\x94\xA5\"}\n{\"text\": \"two\"}\n";
    struct test_bytes wide = encoded(lines, 2, false, true),
                      packed = test_gzipped((char *)wide.at, wide.n);
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    test_file("a.jsonl", wide.at, wide.n);
    test_file("b.jsonl.gz", packed.at, packed.n);
    for (size_t i = 0; i < 2; i++) {
        struct kiln_tokenize_report report = {0};
        const struct kiln_tokenize_options options = {.report = &report};
        CHECK_OK(kiln_tokenize_file(tok, test_path(i ? "b.jsonl.gz" : "a.jsonl"),
                                    test_path("out.tok"), &options, &err),
                 &err);
        CHECK_EQ(report.documents, 2);
    }
    kiln_tokenizer_destroy(tok);
    kiln_free(wide.at);
    kiln_free(packed.at);
}

TEST(what_is_no_character_of_a_wide_text_is_refused) {
    static const struct {
        unsigned char bytes[10];
        size_t n;
        const char *part;
    } wrong[] = {
        {{0xFF, 0xFE, 'a', 0, 0x00, 0xD8, 'b', 0}, 8, "at byte 4 half a surrogate pair"},
        {{0xFF, 0xFE, 'a', 0, 0x00, 0xDC, 'b', 0}, 8, "at byte 4 half a surrogate pair"},
        {{0xFF, 0xFE, 'a', 0, 0x3D, 0xD8}, 6, "at byte 4 it ends in the middle of a character"},
        {{0xFE, 0xFF, 0, 'a', 0}, 5, "iconv -c -f UTF-16BE -t UTF-8"},
        {{0, 0, 0xFE, 0xFF, 0, 0x11, 0, 0}, 8, "at byte 4 a number that is no character"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const struct test_bytes file = {(unsigned char *)(uintptr_t)wrong[i].bytes, wrong[i].n};
        test_damaged(&file, file.n, wrong[i].part);
        struct test_bytes packed = test_gzipped((const char *)file.at, file.n);
        test_damaged(&packed, packed.n, wrong[i].part);
        kiln_free(packed.at);
    }
}

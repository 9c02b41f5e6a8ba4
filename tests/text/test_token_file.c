/* SPDX-License-Identifier: MIT
 *
 * test_token_file.c: text into token files, and token files opened.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/random.h"
#include "kiln/text.h"
#include "kiln_test.h"
#include "text/text_int.h"

static struct kiln_tokenizer *byte_tokenizer(void) {
    struct kiln_tokenizer *tok;
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    return tok;
}

/* The token file of a text, tokenized in bytes. */
static struct kiln_token_file *tokenize(const char *text, size_t size, bool blank_lines) {
    struct kiln_tokenizer *tok = byte_tokenizer();
    struct kiln_token_file *file;
    struct kiln_err err;
    const struct kiln_tokenize_options options = {.blank_lines = blank_lines};
    const char *from = test_file("text.txt", text, size);
    CHECK_OK(kiln_tokenize_file(tok, from, test_path("text.tok"), &options, &err), &err);
    CHECK_OK(kiln_token_file_open(test_path("text.tok"), 0, &file, &err), &err);
    CHECK(kiln_token_file_of(file, tok));
    kiln_tokenizer_destroy(tok);
    return file;
}

/* Ids as text: BOS is '|', bytes are themselves. */
static void check_ids(const char *text, bool blank_lines, const char *want) {
    struct kiln_token_file *file = tokenize(text, strlen(text), blank_lines);
    char got[200] = "";
    CHECK(kiln_token_file_count(file) < sizeof got);
    for (size_t i = 0; i < kiln_token_file_count(file); i++) {
        uint32_t id = kiln_token_file_id(file, i);
        got[i] = id == 1 ? '|' : (char)(id - 3);
    }
    CHECK_STRING(got, want);
    kiln_token_file_close(file);
}

TEST(documents_begin_with_bos_and_a_blank) {
    check_ids("one", false, "| one");
    check_ids("one<|endoftext|>two", false, "| one| two");
    check_ids("one\n\n<|endoftext|>\ntwo  \n<|endoftext|>\n", false, "| one| two");
    check_ids("<|endoftext|><|endoftext|> one <|endoftext|>  \n <|endoftext|>", false, "| one");
    check_ids("one\n\ntwo", false, "| one\n\ntwo");
    check_ids("<|endoftext", false, "| <|endoftext");
}

TEST(empty_lines_separate_when_asked) {
    check_ids("one\n\ntwo", true, "| one| two");
    check_ids("\n\none\nmore\n \t\r\n\ntwo\n", true, "| one\nmore| two");
    check_ids("one\r\n\r\ntwo<|endoftext|>\n\n\nthree\n\n", true, "| one| two| three");
    check_ids("one\n", true, "| one");
}

TEST(a_token_file_knows_its_documents_and_text) {
    struct kiln_token_file *file = tokenize("one<|endoftext|>two", 19, false);
    CHECK_EQ(kiln_token_file_documents(file), 2);
    CHECK_EQ(kiln_token_file_vocab(file), 259);
    CHECK_EQ(kiln_token_file_text_bytes(file), 19);
    CHECK_EQ(kiln_token_file_count(file), 10);
    kiln_token_file_close(file);
}

TEST(a_token_file_knows_its_tokenizer) {
    struct kiln_token_file *file = tokenize("one<|endoftext|>two", 19, false);
    struct kiln_tokenizer *tok = byte_tokenizer();
    CHECK(kiln_token_file_of(file, tok));
    kiln_tokenizer_destroy(tok);
    CHECK_OK(kiln_tokenizer_train("ab ab ab ab", 11, NULL, 264, &tok, NULL), NULL);
    CHECK(!kiln_token_file_of(file, tok));
    kiln_tokenizer_destroy(tok);
    kiln_token_file_close(file);
}

/* The table of docs/formats.md, of a file without bitmaps. */
TEST(a_token_file_is_laid_out_as_documented) {
    char *bytes;
    size_t size;
    uint32_t flags, crc;
    struct kiln_err err;
    static const char text[] = "one\n\n\xff";
    kiln_token_file_close(tokenize(text, strlen(text), true));
    CHECK_OK(kiln_read_file(test_path("text.tok"), &bytes, &size, &err), &err);
    CHECK_EQ(size, 64 + 2 * 8); /* BOS, blank, o, n, e; BOS, blank, a byte */
    memcpy(&crc, bytes + 40, 4);
    memcpy(&flags, bytes + 48, 4);
    CHECK_EQ(crc, kiln_crc32c(0, text, strlen(text)));
    CHECK_EQ(flags, 1);
    for (size_t i = 52; i < 64; i++) {
        CHECK_EQ(bytes[i], 0);
    }
    kiln_free(bytes);
}

TEST(a_text_without_text_makes_no_file) {
    struct kiln_tokenizer *tok = byte_tokenizer();
    struct kiln_err err;
    static const char *const texts[] = {"", " \n\t", "<|endoftext|>\n<|endoftext|>"};
    for (size_t i = 0; i < 3; i++) {
        const char *from = test_file("text.txt", texts[i], strlen(texts[i]));
        CHECK_FAILS(kiln_tokenize_file(tok, from, test_path("text.tok"), NULL, &err), KILN_EINPUT,
                    &err);
        CHECK(!kiln_path_exists(test_path("text.tok")));
    }
    CHECK(kiln_tokenize_file(tok, test_path("absent"), test_path("t.tok"), NULL, &err) != KILN_OK);
    CHECK_CONTAINS(err.message, "absent");
    kiln_tokenizer_destroy(tok);
}

TEST(a_long_document_is_written_as_encode_gives_it) {
    const char *from = test_data("tinyshakespeare.txt");
    struct kiln_tokenizer *tok;
    struct kiln_token_file *file;
    struct kiln_err err;
    struct kiln_ids ids = {0};
    char *text;
    size_t size;
    CHECK_OK(kiln_tokenizer_open(test_data("tok512.bin"), &tok, &err), &err);
    CHECK_OK(kiln_tokenize_file(tok, from, test_path("play.tok"), NULL, &err), &err);
    CHECK_OK(kiln_token_file_open(test_path("play.tok"), 512, &file, &err), &err);
    CHECK_OK(kiln_read_file(from, &text, &size, &err), &err);
    while (size > 0 && text[size - 1] == '\n') {
        size--;
    }
    CHECK_OK(kiln_tokenizer_encode(tok, text, size, true, &ids, &err), &err);
    CHECK_EQ(kiln_token_file_count(file), ids.n);
    for (size_t i = 0; i < ids.n; i++) {
        if (kiln_token_file_id(file, i) != ids.id[i]) {
            FAIL("id %zu differs", i);
        }
    }
    kiln_token_file_close(file);
    kiln_tokenizer_destroy(tok);
    kiln_ids_free(&ids);
    kiln_free(text);
}

/* ---- files that others wrote -------------------------------------------------------------- */

TEST(raw_uint16_files_are_read_as_they_are) {
    static const uint16_t ids[] = {1, 300, 400, 1, 65535};
    struct kiln_token_file *file;
    struct kiln_err err;
    const char *path = test_file("data.bin", ids, sizeof ids);
    CHECK_OK(kiln_token_file_open(path, 0, &file, &err), &err);
    CHECK_EQ(kiln_token_file_count(file), 5);
    CHECK_EQ(kiln_token_file_id(file, 4), 65535);
    CHECK_EQ(kiln_token_file_documents(file), 2);
    CHECK_EQ(kiln_token_file_vocab(file), 0);
    CHECK_EQ(kiln_token_file_text_bytes(file), 0);
    kiln_token_file_close(file);
}

TEST(the_first_bad_id_is_named_with_its_byte) {
    static uint16_t ids[100000];
    struct kiln_token_file *file;
    struct kiln_err err;
    static const size_t places[] = {0, 1, 16383, 16384, 70001, 99999};
    for (size_t i = 0; i < 6; i++) {
        char want[64];
        memset(ids, 0, sizeof ids);
        ids[places[i]] = 512;
        ids[99999] = 600;
        ids[places[i]] = 512;
        (void)snprintf(want, sizeof want, "id 512 at byte %zu ", places[i] * 2);
        const char *path = test_file("data.bin", ids, sizeof ids);
        CHECK_FAILS(kiln_token_file_open(path, 512, &file, &err), KILN_EINPUT, &err);
        CHECK_CONTAINS(err.message, want);
        CHECK(file == NULL);
    }
    ids[99999] = 511;
    CHECK_OK(kiln_token_file_open(test_file("data.bin", ids, sizeof ids), 512, &file, &err), &err);
    kiln_token_file_close(file);
}

/* A kiln file of four ids. */
static const char *write_tokens(uint32_t width, uint32_t vocab, uint64_t count, uint32_t last) {
    unsigned char bytes[KILN_TOKEN_HEADER + 16] = {0};
    struct kiln_token_header h = {.width = width, .vocab = vocab, .count = count, .bos = 1};
    kiln_token_header_write(&h, bytes);
    memcpy(bytes + KILN_TOKEN_HEADER + 3 * (size_t)width, &last, width);
    return test_file("four.tok", bytes, KILN_TOKEN_HEADER + 4 * (size_t)width);
}

static void check_refused(const char *path, size_t vocab, const char *why) {
    struct kiln_token_file *file;
    struct kiln_err err;
    CHECK_FAILS(kiln_token_file_open(path, vocab, &file, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, why);
}

TEST(wide_ids_are_read_and_checked) {
    struct kiln_token_file *file;
    struct kiln_err err;
    CHECK_OK(kiln_token_file_open(write_tokens(4, 100000, 4, 99999), 0, &file, &err), &err);
    CHECK_EQ(kiln_token_file_id(file, 3), 99999);
    kiln_token_file_close(file);
    check_refused(write_tokens(4, 100000, 4, 100000), 0, "id 100000 at byte 76 ");
    check_refused(write_tokens(4, 100000, 4, 99999), 99999, "vocabulary of 99999");
}

TEST(wrong_headers_are_refused) {
    check_refused(write_tokens(4, 100, 5, 0), 0, "says 5 ids");
    check_refused(write_tokens(2, 0, 4, 0), 0, "vocabulary of 0");
    check_refused(write_tokens(3, 100, 4, 0), 0, "3 bytes an id");
    check_refused(write_tokens(2, 100, UINT64_MAX / 2 + 5, 0), 0, "ids of 2 bytes");
    check_refused(test_file("empty.bin", "", 0), 0, "empty");
    check_refused(test_file("odd.bin", "abc", 3), 0, "odd");
}

TEST(every_changed_or_missing_byte_of_a_header_is_found) {
    struct kiln_token_file *file = tokenize("one<|endoftext|>two", 19, false);
    struct kiln_err err;
    char *bytes;
    size_t size;
    kiln_token_file_close(file);
    CHECK_OK(kiln_read_file(test_path("text.tok"), &bytes, &size, NULL), NULL);
    for (size_t i = 8; i < KILN_TOKEN_HEADER; i++) {
        bytes[i] ^= 16;
        check_refused(test_file("bad.tok", bytes, size), 0, "checksum");
        bytes[i] ^= 16;
    }
    const char *path = test_file("bad.tok", bytes, size);
    for (size_t n = size; n-- > 8;) {
        CHECK(truncate(path, (off_t)n) == 0);
        CHECK_FAILS(kiln_token_file_open(path, 0, &file, &err), KILN_EINPUT, &err);
    }
    kiln_free(bytes);
}

TEST(token_files_are_told_from_text) {
    struct kiln_token_file *file = tokenize("one", 3, false);
    kiln_token_file_close(file);
    CHECK(kiln_token_file_is(test_path("text.tok")));
    CHECK(rename(test_path("text.tok"), test_path("text")) == 0);
    CHECK(kiln_token_file_is(test_path("text")));
    CHECK(kiln_token_file_is("absent.bin"));
    CHECK(kiln_token_file_is("absent.U16"));
    CHECK(!kiln_token_file_is("absent.txt"));
    CHECK(!kiln_token_file_is(test_path("text.txt")));
    CHECK(!kiln_token_file_is(test_folder()));
}

/* ---- the beginning of a text -------------------------------------------------------------------
 */

static struct kiln_token_file *tokenize_most(const char *path, uint64_t most) {
    struct kiln_tokenizer *tok = byte_tokenizer();
    struct kiln_token_file *file;
    struct kiln_err err;
    const struct kiln_tokenize_options options = {.most = most};
    CHECK_OK(kiln_tokenize_file(tok, path, test_path("most.tok"), &options, &err), &err);
    CHECK_OK(kiln_token_file_open(test_path("most.tok"), 0, &file, &err), &err);
    kiln_tokenizer_destroy(tok);
    return file;
}

TEST(so_many_ids_end_with_their_document) {
    const char text[] = "one<|endoftext|>two<|endoftext|>three";
    const char *path = test_file("text.txt", text, strlen(text));
    const struct {
        uint64_t most;
        size_t ids, bytes;
    } cases[] = {{1, 5, 16}, {5, 5, 16}, {6, 10, 32}, {11, 17, 37}, {100, 17, 37}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kiln_token_file *file = tokenize_most(path, cases[i].most);
        CHECK_EQ(kiln_token_file_count(file), cases[i].ids);
        CHECK_EQ(kiln_token_file_text_bytes(file), cases[i].bytes);
        kiln_token_file_close(file);
    }
}

TEST(so_many_ids_of_a_long_document_are_its_first_ones) {
    enum { SIZE = 1 << 20 };
    char *text = kiln_alloc(SIZE, 1);
    for (size_t i = 0; i < SIZE; i++) {
        text[i] = i % 100 == 99 ? '\n' : (char)('a' + i * i / 7 % 26);
    }
    const char *path = test_file("text.txt", text, SIZE);
    struct kiln_token_file *all = tokenize(text, SIZE, false);
    struct kiln_token_file *some = tokenize_most(path, 100000);
    const size_t n = kiln_token_file_count(some);
    CHECK(n >= 100000);
    CHECK(n < 100000 + 65536);
    CHECK_EQ(kiln_token_file_text_bytes(some), n - 2); /* but for BOS and the blank in front */
    for (size_t i = 0; i < n; i++) {
        CHECK_EQ(kiln_token_file_id(some, i), kiln_token_file_id(all, i));
    }
    kiln_token_file_close(all);
    kiln_token_file_close(some);
    kiln_free(text);
}

/* SPDX-License-Identifier: MIT
 *
 * test_tokenizer.c: tokenizer files, encoding, decoding.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/random.h"
#include "kiln/text.h"
#include "kiln_test.h"
#include "naive_encode.h"
#include "text/text_int.h"

static struct kiln_tokenizer *open_ok(const char *path) {
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_OK(kiln_tokenizer_open(path, &tok, &err), &err);
    return tok;
}

static struct kiln_ids encode(const struct kiln_tokenizer *tok, const char *text, size_t size,
                              bool bos) {
    struct kiln_ids ids = {0};
    struct kiln_err err;
    CHECK_OK(kiln_tokenizer_encode(tok, text, size, bos, &ids, &err), &err);
    return ids;
}

/* Decode what was encoded with BOS and compare. */
static void check_round_trip(const struct kiln_tokenizer *tok, const char *text, size_t size) {
    struct kiln_ids ids = encode(tok, text, size, true);
    size_t at = 0;
    for (size_t i = 1; i < ids.n; i++) {
        size_t n;
        const char *bytes = kiln_tokenizer_decode(tok, ids.id[i - 1], ids.id[i], &n);
        CHECK(n <= size - at);
        CHECK_BYTES(bytes, text + at, n);
        at += n;
    }
    CHECK_EQ(at, size);
    kiln_ids_free(&ids);
}

static void check_ids(const struct kiln_ids *ids, const uint32_t *want, size_t n) {
    CHECK_EQ(ids->n, n);
    for (size_t i = 0; i < n; i++) {
        CHECK_EQ(ids->id[i], want[i]);
    }
}

static void check_like_llama2c(const struct kiln_tokenizer *tok, const struct naive_vocabulary *v,
                               const char *text) {
    uint32_t *want = calloc(strlen(text) + 1, sizeof *want);
    size_t n = naive_encode(v, text, want);
    struct kiln_ids ids = encode(tok, text, strlen(text), false);
    check_ids(&ids, want, n);
    kiln_ids_free(&ids);
    free(want);
}

/* ---- known ids ---------------------------------------------------------------------------- */

TEST(llama2_ids_are_those_of_llama_cpp) {
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char *cases, *lines;
    size_t size;
    struct kiln_err err;
    CHECK_OK(kiln_read_file(test_data("tokenizers/cases.txt"), &cases, &size, &err), &err);
    CHECK_OK(kiln_read_file(test_data("tokenizers/cases.llama2.ids"), &lines, &size, &err), &err);
    struct kiln_tokenizer *tok = open_ok(test_data("tokenizers/llama2.bin"));
    char *text = cases;
    char *line = lines;
    int n = 0;
    for (char *end; *line != '\0'; n++) {
        end = strstr(text, mark);
        size_t length = end == NULL ? strlen(text) : (size_t)(end - text);
        struct kiln_ids ids = encode(tok, text, length, false);
        char *line_end = line + strcspn(line, "\n");
        *line_end = '\0';
        size_t seen = 0;
        for (char *at = line; *(at += strspn(at, " ")) != '\0'; seen++) {
            CHECK(seen < ids.n);
            CHECK_EQ(ids.id[seen], strtoul(at, &at, 10));
        }
        CHECK_EQ(seen, ids.n);
        kiln_ids_free(&ids);
        line = line_end + 1;
        text = end == NULL ? text + length : end + sizeof mark - 1;
    }
    CHECK_EQ(n, 46);
    kiln_tokenizer_destroy(tok);
    kiln_free(cases);
    kiln_free(lines);
}

TEST(empty_text_has_no_ids_but_bos) {
    struct kiln_tokenizer *tok;
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    struct kiln_ids ids = encode(tok, "", 0, true);
    check_ids(&ids, (const uint32_t[]){1}, 1);
    kiln_ids_free(&ids);
    ids = encode(tok, "", 0, false);
    CHECK_EQ(ids.n, 0);
    kiln_ids_free(&ids);
    kiln_tokenizer_destroy(tok);
}

TEST(byte_tokenizer_is_three_plus_the_byte) {
    struct kiln_tokenizer *tok;
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    CHECK_EQ(kiln_tokenizer_vocab(tok), 259);
    CHECK_STRING(kiln_tokenizer_name(tok), "bytes");
    struct kiln_ids ids = encode(tok, "a\n\0\xFF", 4, true);
    check_ids(&ids, (const uint32_t[]){1, 3 + ' ', 3 + 'a', 3 + '\n', 3, 3 + 0xFF}, 6);
    kiln_ids_free(&ids);
    kiln_tokenizer_destroy(tok);
}

/* ---- round trips -------------------------------------------------------------------------- */

static void random_bytes(char *out, size_t n, uint64_t stream) {
    for (size_t i = 0; i < n; i++) {
        out[i] = (char)kiln_random_bits(7, stream, i);
    }
}

TEST(byte_tokenizer_round_trips_any_bytes) {
    struct kiln_tokenizer *tok;
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    char text[5000];
    for (size_t n = 0; n < 200; n++) {
        random_bytes(text, n, n);
        check_round_trip(tok, text, n);
    }
    random_bytes(text, sizeof text, 1000);
    check_round_trip(tok, text, sizeof text);
    kiln_tokenizer_destroy(tok);
}

TEST(tok512_round_trips_text_and_bytes) {
    struct kiln_tokenizer *tok = open_ok(test_data("tok512.bin"));
    check_round_trip(tok, "Once upon a time", 16);
    check_round_trip(tok, "  two blanks", 12);
    check_round_trip(tok, "\xF0\x9F\xA6\x99 llama", 10);
    char text[5000];
    for (size_t n = 0; n < 200; n++) {
        random_bytes(text, n, n);
        check_round_trip(tok, text, n);
    }
    char *story;
    size_t size;
    CHECK_OK(kiln_read_file(test_data("tinystories_val.txt"), &story, &size, NULL), NULL);
    check_round_trip(tok, story, size);
    kiln_free(story);
    kiln_tokenizer_destroy(tok);
}

TEST(control_ids_and_ids_beyond_decode_to_nothing) {
    struct kiln_tokenizer *tok;
    size_t n = 99;
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    (void)kiln_tokenizer_decode(tok, 5, kiln_tokenizer_bos(tok), &n);
    CHECK_EQ(n, 0);
    (void)kiln_tokenizer_decode(tok, 5, kiln_tokenizer_eos(tok), &n);
    CHECK_EQ(n, 0);
    (void)kiln_tokenizer_decode(tok, 5, 259, &n);
    CHECK_EQ(n, 0);
    (void)kiln_tokenizer_decode(tok, 5, UINT32_MAX, &n);
    CHECK_EQ(n, 0);
    kiln_tokenizer_destroy(tok);
}

/* ---- against the plain algorithm ---------------------------------------------------------- */

/* Text that merges a lot: few letters, runs, blanks, characters of several bytes, stray bytes. */
static void merging_text(char *out, size_t n, uint64_t stream) {
    static const char *const parts[] = {
        "a",   "b",        "e",    "t", "h", "he",  " the", " ",  "  ",   "\n", "===",      "ed",
        "and", "\xC3\xBC", "\x80", "n", "!", "...", "<0x",  "0A", "unk>", "in", "\xE2\x82", "\""};
    size_t at = 0;
    for (uint64_t i = 0; at + 8 < n; i++) {
        const char *part = parts[kiln_random_below(11, stream, i, sizeof parts / sizeof parts[0])];
        memcpy(out + at, part, strlen(part));
        at += strlen(part);
    }
    out[at] = '\0';
}

static void compare_on_random_text(const char *path, int texts) {
    struct kiln_tokenizer *tok = open_ok(path);
    struct naive_vocabulary v;
    naive_open(&v, path);
    char text[400];
    for (int i = 0; i < texts; i++) {
        merging_text(text, 20 + (size_t)i % 380, (uint64_t)i);
        check_like_llama2c(tok, &v, text);
    }
    naive_close(&v);
    kiln_tokenizer_destroy(tok);
}

TEST_WITHIN(tok512_encodes_as_llama2c_on_random_text, 120) {
    compare_on_random_text(test_data("tok512.bin"), 200);
}

TEST_WITHIN(llama2_encodes_as_llama2c_on_random_text, 120) {
    compare_on_random_text(test_data("tokenizers/llama2.bin"), 20);
}

/* A vocabulary over two letters where everything merges with everything and scores are equal in
 * places: no cut between words, so this is the heap alone, and its ties. */
static const char *write_dense_vocabulary(const char *name, uint64_t stream) {
    char file[8192] = {0};
    int32_t longest = 6;
    memcpy(file, &longest, 4);
    size_t at = 4;
    for (int id = 0; id < 259 + 63; id++) {
        char piece[8];
        float score = 0;
        if (id < 3) {
            (void)snprintf(piece, sizeof piece, "<%d>", id);
        } else if (id < 259) {
            (void)snprintf(piece, sizeof piece, "<0x%02X>", id - 3);
        } else if (id == 259) {
            (void)snprintf(piece, sizeof piece, " ");
        } else {
            int bits = id - 258; /* 2.. : its binary digits below the first are the letters */
            int n = 31 - __builtin_clz((unsigned)bits);
            for (int i = 0; i < n; i++) {
                piece[i] = bits >> i & 1 ? 'b' : 'a';
            }
            piece[n] = '\0';
            score = -(float)kiln_random_below(3, stream, (uint64_t)id, 20);
        }
        int32_t size = (int32_t)strlen(piece);
        memcpy(file + at, &score, 4);
        memcpy(file + at + 4, &size, 4);
        memcpy(file + at + 8, piece, (size_t)size);
        at += 8 + (size_t)size;
    }
    return test_file(name, file, at);
}

TEST_WITHIN(long_words_with_ties_encode_as_llama2c, 120) {
    for (uint64_t round = 0; round < 8; round++) {
        const char *path = write_dense_vocabulary("dense.bin", round);
        struct kiln_tokenizer *tok = open_ok(path);
        struct naive_vocabulary v;
        naive_open(&v, path);
        for (uint64_t i = 0; i < 20; i++) {
            char text[200];
            size_t n = 1 + kiln_random_below(4, round, i, 199);
            for (size_t k = 0; k < n; k++) {
                text[k] = "ab"[kiln_random_bits(5, round * 100 + i, k) & 1];
            }
            text[n] = '\0';
            check_like_llama2c(tok, &v, text);
        }
        naive_close(&v);
        kiln_tokenizer_destroy(tok);
    }
}

TEST(a_word_recalled_encodes_as_the_first_time) {
    /* long enough for the memory of words: the same text twice, and piece by piece */
    struct kiln_tokenizer *tok = open_ok(test_data("tok512.bin"));
    char *story;
    size_t size;
    CHECK_OK(kiln_read_file(test_data("tinystories_val.txt"), &story, &size, NULL), NULL);
    size = 100000;
    struct kiln_encoder *e;
    struct kiln_ids slow = {0};
    CHECK_OK(kiln_encoder_create(tok, false, &e, NULL), NULL);
    kiln_encoder_begin(e, story, size);
    while (!kiln_encoder_done(e)) {
        CHECK_OK(kiln_encoder_more(e, slow.n + 10, &slow, NULL), NULL);
    }
    kiln_encoder_destroy(e);
    struct kiln_ids fast = encode(tok, story, size, false);
    check_ids(&fast, slow.id, slow.n);
    kiln_ids_free(&fast);
    kiln_ids_free(&slow);
    kiln_free(story);
    kiln_tokenizer_destroy(tok);
}

/* ---- files -------------------------------------------------------------------------------- */

TEST(saved_tokenizer_is_the_same_file) {
    const char *path = test_data("tok512.bin");
    struct kiln_tokenizer *tok = open_ok(path);
    CHECK_OK(kiln_tokenizer_save(tok, test_path("copy.bin"), NULL), NULL);
    char *a, *b;
    size_t n, m;
    CHECK_OK(kiln_read_file(path, &a, &n, NULL), NULL);
    CHECK_OK(kiln_read_file(test_path("copy.bin"), &b, &m, NULL), NULL);
    CHECK_EQ(n, m);
    CHECK_BYTES(a, b, n);
    kiln_free(a);
    kiln_free(b);
    kiln_tokenizer_destroy(tok);
}

TEST(saved_byte_tokenizer_encodes_alike) {
    struct kiln_tokenizer *bytes;
    CHECK_OK(kiln_tokenizer_bytes(&bytes, NULL), NULL);
    CHECK_OK(kiln_tokenizer_save(bytes, test_path("bytes.bin"), NULL), NULL);
    struct kiln_tokenizer *read = open_ok(test_path("bytes.bin"));
    struct naive_vocabulary v;
    naive_open(&v, test_path("bytes.bin"));
    char text[300];
    for (uint64_t i = 0; i < 50; i++) {
        merging_text(text, sizeof text, i);
        struct kiln_ids want = encode(bytes, text, strlen(text), false);
        struct kiln_ids got = encode(read, text, strlen(text), false);
        check_ids(&got, want.id, want.n);
        check_like_llama2c(bytes, &v, text);
        check_round_trip(read, text, strlen(text));
        kiln_ids_free(&want);
        kiln_ids_free(&got);
    }
    naive_close(&v);
    kiln_tokenizer_destroy(bytes);
    kiln_tokenizer_destroy(read);
}

TEST(a_tokenizer_cut_short_is_refused) {
    char *whole;
    size_t size;
    int opened = 0;
    CHECK_OK(kiln_read_file(test_data("tok512.bin"), &whole, &size, NULL), NULL);
    const char *path = test_file("cut.bin", whole, size);
    for (size_t n = size; n-- > 0;) {
        struct kiln_tokenizer *tok;
        struct kiln_err err;
        CHECK(truncate(path, (off_t)n) == 0);
        if (kiln_tokenizer_open(path, &tok, &err) == KILN_OK) {
            /* cut between two pieces, which the file cannot tell: the model does */
            CHECK_FAILS(kiln_tokenizer_fits(tok, 512, &err), KILN_EINPUT, &err);
            CHECK_CONTAINS(err.message, "512");
            kiln_tokenizer_destroy(tok);
            opened++;
        } else {
            CHECK_EQ(err.code, KILN_EINPUT);
            CHECK(tok == NULL);
        }
    }
    CHECK(opened < 140);
    kiln_free(whole);
}

TEST(garbage_is_no_tokenizer) {
    char bytes[3000];
    for (uint64_t i = 0; i < 300; i++) {
        struct kiln_tokenizer *tok;
        struct kiln_err err;
        size_t n = kiln_random_below(1, 1, i, sizeof bytes);
        random_bytes(bytes, n, 5000 + i);
        CHECK_FAILS(kiln_tokenizer_open(test_file("garbage.bin", bytes, n), &tok, &err),
                    KILN_EINPUT, &err);
    }
}

TEST(a_damaged_tokenizer_never_crashes) {
    char *whole;
    size_t size;
    CHECK_OK(kiln_read_file(test_data("tok512.bin"), &whole, &size, NULL), NULL);
    for (uint64_t i = 0; i < 300; i++) {
        size_t at = kiln_random_below(2, 1, i, size);
        char before = whole[at];
        whole[at] = (char)kiln_random_bits(2, 2, i);
        struct kiln_tokenizer *tok;
        if (kiln_tokenizer_open(test_file("damaged.bin", whole, size), &tok, NULL) == KILN_OK) {
            struct kiln_ids ids = encode(tok, "Once upon a time \xFF", 18, true);
            kiln_ids_free(&ids);
            kiln_tokenizer_destroy(tok);
        }
        whole[at] = before;
    }
    kiln_free(whole);
}

static void check_refused(const void *bytes, size_t n, const char *why) {
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_FAILS(kiln_tokenizer_open(test_file("bad.bin", bytes, n), &tok, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, why);
}

TEST(tokenizer_errors_say_what_and_where) {
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK(kiln_tokenizer_open(test_path("absent.bin"), &tok, &err) != KILN_OK);
    CHECK_CONTAINS(err.message, "absent.bin");
    check_refused("", 0, "too short");
    check_refused("\0\0\0\0", 4, "longest piece has 0");
    check_refused("\1\0\0\0", 4, "cut short");
    check_refused("\1\0\0\0\0\0\0\0\2\0\0\0ab", 14, "byte 4 has a length of 2");
    check_refused("\1\0\0\0\0\0\0\0\xFF\xFF\xFF\xFF", 12, "length of -1");
    check_refused("\2\0\0\0\0\0\0\0\2\0\0\0a", 13, "cut short");
    check_refused("\1\0\0\0\0\0\xC0\x7F\1\0\0\0a", 13, "no number");
    check_refused("\1\0\0\0\0\0\0\0\1\0\0\0a", 13, "has 1 ids");
}

TEST(a_vocabulary_without_byte_pieces_gives_unknown) {
    struct kiln_tokenizer *tok = open_ok(test_data("tok2048.bin"));
    struct kiln_ids ids = encode(tok, "a\x01", 2, false);
    CHECK_EQ(ids.id[ids.n - 1], 0);
    kiln_ids_free(&ids);
    kiln_tokenizer_destroy(tok);
}

TEST(a_tokenizer_fits_its_own_vocabulary) {
    struct kiln_tokenizer *bytes;
    struct kiln_tokenizer *tok = open_ok(test_data("tok512.bin"));
    struct kiln_err err;
    CHECK_OK(kiln_tokenizer_bytes(&bytes, NULL), NULL);
    CHECK_OK(kiln_tokenizer_fits(tok, 512, &err), &err);
    CHECK_FAILS(kiln_tokenizer_fits(tok, 511, &err), KILN_EINPUT, &err);
    CHECK_FAILS(kiln_tokenizer_fits(tok, 32000, &err), KILN_EINPUT, &err);
    CHECK_OK(kiln_tokenizer_fits(bytes, 259, &err), &err);
    CHECK_OK(kiln_tokenizer_fits(bytes, 32000, &err), &err);
    CHECK_FAILS(kiln_tokenizer_fits(bytes, 258, &err), KILN_EINPUT, &err);
    kiln_tokenizer_destroy(bytes);
    kiln_tokenizer_destroy(tok);
}

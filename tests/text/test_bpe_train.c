/* SPDX-License-Identifier: MIT
 *
 * test_bpe_train.c: learning a vocabulary.
 */
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/random.h"
#include "kiln/text.h"
#include "kiln_test.h"
#include "naive_encode.h"
#include "text/text_int.h"

static struct kiln_tokenizer *train(const char *text, size_t size, size_t vocab) {
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_OK(kiln_tokenizer_train(text, size, "<|endoftext|>", vocab, &tok, &err), &err);
    CHECK_EQ(kiln_tokenizer_vocab(tok), vocab);
    return tok;
}

static void check_piece(const struct kiln_tokenizer *tok, uint32_t id, const char *want) {
    size_t n;
    const char *piece = kiln_piece(&tok->parts.v, id, &n);
    CHECK_EQ(n, strlen(want));
    CHECK_BYTES(piece, want, n);
}

/* The worked example of the paper: low 5, lower 2, newest 6, widest 3. */
TEST(learned_merges_are_the_most_frequent_first) {
    char text[400] = "";
    static const struct {
        const char *word;
        int times;
    } words[] = {{"low", 5}, {"lower", 2}, {"newest", 6}, {"widest", 3}};
    for (size_t w = 0; w < 4; w++) {
        for (int i = 0; i < words[w].times; i++) {
            strcat(text, words[w].word);
            strcat(text, " ");
        }
    }
    /* " " e w s t l n o i d r make 11, half of 22; then es (9), est (9), and of lo, low, " l" with
     * 7 the first in byte order is " l" */
    struct kiln_tokenizer *tok = train(text, strlen(text), 259 + 22);
    check_piece(tok, 259, " ");
    check_piece(tok, 260, "e");
    check_piece(tok, 259 + 11, "es");
    check_piece(tok, 259 + 12, "est");
    check_piece(tok, 259 + 13, " l");
    check_piece(tok, 259 + 14, " lo");
    check_piece(tok, 259 + 15, " low");
    kiln_tokenizer_destroy(tok);
}

static void check_same_ids(const struct kiln_tokenizer *a, const struct kiln_tokenizer *b,
                           const char *text, size_t size) {
    struct kiln_ids got = {0};
    struct kiln_ids want = {0};
    CHECK_OK(kiln_tokenizer_encode(a, text, size, true, &want, NULL), NULL);
    CHECK_OK(kiln_tokenizer_encode(b, text, size, true, &got, NULL), NULL);
    CHECK_EQ(got.n, want.n);
    CHECK_BYTES(got.id, want.id, want.n * sizeof *want.id);
    kiln_ids_free(&got);
    kiln_ids_free(&want);
}

TEST(a_learned_vocabulary_reads_back_and_encodes_as_llama2c) {
    char *text;
    size_t size;
    CHECK_OK(kiln_read_file(test_data("tinystories_train.txt"), &text, &size, NULL), NULL);
    struct kiln_tokenizer *tok = train(text, size, 1024);
    struct kiln_tokenizer *read;
    struct kiln_err err;
    const char *path = test_path("trained.bin");
    CHECK_OK(kiln_tokenizer_save(tok, path, &err), &err);
    CHECK_OK(kiln_tokenizer_open(path, &read, &err), &err);
    check_same_ids(tok, read, text, size);
    CHECK_EQ(tok->crc, read->crc);

    struct naive_vocabulary v;
    naive_open(&v, path);
    for (size_t at = 0; at < 30000; at += 300) {
        char part[121] = {0};
        uint32_t want[130];
        memcpy(part, text + at, 120);
        size_t n = naive_encode(&v, part, want);
        struct kiln_ids got = {0};
        CHECK_OK(kiln_tokenizer_encode(tok, part, 120, false, &got, NULL), NULL);
        CHECK_EQ(got.n, n);
        CHECK_BYTES(got.id, want, n * sizeof *want);
        kiln_ids_free(&got);
    }
    naive_close(&v);
    kiln_free(text);
    kiln_tokenizer_destroy(tok);
    kiln_tokenizer_destroy(read);
}

TEST(learning_is_deterministic_and_prefixes_agree) {
    char *text;
    size_t size;
    CHECK_OK(kiln_read_file(test_data("tinyshakespeare.txt"), &text, &size, NULL), NULL);
    struct kiln_tokenizer *a = train(text, size, 600);
    struct kiln_tokenizer *b = train(text, size, 600);
    struct kiln_tokenizer *more = train(text, size, 700);
    CHECK_EQ(a->crc, b->crc);
    CHECK(a->crc != more->crc);
    CHECK_BYTES(a->parts.v.pool, more->parts.v.pool,
                a->parts.v.at[600]); /* all characters fit in either */
    kiln_free(text);
    kiln_tokenizer_destroy(a);
    kiln_tokenizer_destroy(b);
    kiln_tokenizer_destroy(more);
}

TEST(blanks_stand_only_in_front_of_tokens) {
    char *text;
    size_t size;
    CHECK_OK(kiln_read_file(test_data("tinystories_train.txt"), &text, &size, NULL), NULL);
    struct kiln_tokenizer *tok = train(text, size, 2048);
    for (uint32_t id = 259; id < 2048; id++) {
        size_t n;
        const char *piece = kiln_piece(&tok->parts.v, id, &n);
        CHECK(memchr(piece + 1, ' ', n - 1) == NULL);
        CHECK(n < 13 || memcmp(piece, "<|endoftext|>", 13) != 0);
        CHECK_EQ(tok->same[id], id);
        CHECK(id == 259 || tok->parts.v.score[id] < tok->parts.v.score[id - 1]);
    }
    kiln_free(text);
    kiln_tokenizer_destroy(tok);
}

TEST(separators_are_never_learned) {
    static const char text[] = "ab<|endoftext|>ab<|endoftext|>ab<|endoftext|>ab ab";
    struct kiln_tokenizer *tok = train(text, sizeof text - 1, 264);
    check_piece(tok, 259, " ");
    check_piece(tok, 260, "a");
    check_piece(tok, 261, "b");
    check_piece(tok, 262, " a");
    check_piece(tok, 263, " ab");
    kiln_tokenizer_destroy(tok);
}

TEST(too_small_a_text_says_what_it_teaches) {
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_FAILS(kiln_tokenizer_train("ab ab", 5, NULL, 300, &tok, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "teach 264");
    CHECK(tok == NULL);
    CHECK_FAILS(kiln_tokenizer_train("", 0, NULL, 300, &tok, &err), KILN_EINPUT, &err);
    CHECK_FAILS(kiln_tokenizer_train("ab ab", 5, NULL, 259, &tok, &err), KILN_EUSAGE, &err);
}

TEST(any_bytes_can_be_learned_from) {
    static const char common[] = {'a', 'a', 'b', ' ', '\xC3', '\xA9', '\0', ' '};
    char text[20000];
    for (uint64_t round = 0; round < 20; round++) {
        for (size_t i = 0; i < sizeof text; i++) {
            uint64_t bits = kiln_random_bits(3, round, i);
            text[i] = (char)(bits & 1 ? bits >> 8 : (unsigned char)common[bits >> 1 & 7]);
        }
        struct kiln_tokenizer *tok;
        struct kiln_err err;
        CHECK_OK(kiln_tokenizer_train(text, sizeof text, NULL, 300, &tok, &err), &err);
        struct kiln_ids ids = {0};
        CHECK_OK(kiln_tokenizer_encode(tok, text, sizeof text, true, &ids, &err), &err);
        size_t bytes = 0;
        for (size_t i = 1; i < ids.n; i++) {
            size_t n;
            const char *piece = kiln_tokenizer_decode(tok, ids.id[i - 1], ids.id[i], &n);
            CHECK_BYTES(text + bytes, piece, n);
            bytes += n;
        }
        CHECK_EQ(bytes, sizeof text);
        kiln_ids_free(&ids);
        kiln_tokenizer_destroy(tok);
    }
}

TEST(rare_characters_are_left_to_bytes) {
    /* 600 different characters of two bytes, and a vocabulary with room for 5 tokens */
    char text[5000];
    size_t n = 0;
    for (int i = 0; i < 600; i++) {
        text[n++] = (char)(0xC4 + i / 64);
        text[n++] = (char)(0x80 + i % 64);
        for (const char *c = " x y "; *c != '\0'; c++) {
            text[n++] = *c;
        }
    }
    struct kiln_tokenizer *tok = train(text, n, 259 + 5);
    check_piece(tok, 259, " ");
    check_piece(tok, 260, "x");
    check_piece(tok, 261, "y");
    check_piece(tok, 262, " x");
    check_piece(tok, 263, " y");
    kiln_tokenizer_destroy(tok);
}

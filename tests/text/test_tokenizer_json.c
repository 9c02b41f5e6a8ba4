/* SPDX-License-Identifier: MIT
 *
 * test_tokenizer_json.c: tokenizer.json and its likes: known ids, the same tokenizer in several
 * forms, what is refused. Against the packages themselves: tests/cli/tokenizers.sh.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/text.h"
#include "kiln_test.h"
#include "model/gguf.h"
#include "text/normalizer.h"
#include "text/gguf_tokenizer.h"
#include "text/text_int.h"
#include "text/utf8.h"
#include <utf8proc.h>

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

static void check_ids(const struct kiln_tokenizer *tok, const char *text, const uint32_t *want,
                      size_t n) {
    struct kiln_ids ids = encode(tok, text, strlen(text), false);
    CHECK_EQ(ids.n, n);
    for (size_t i = 0; i < n; i++) {
        CHECK_EQ(ids.id[i], want[i]);
    }
    kiln_ids_free(&ids);
}

static void check_same(const struct kiln_tokenizer *a, const struct kiln_tokenizer *b,
                       const char *text, size_t size) {
    struct kiln_ids x = encode(a, text, size, true), y = encode(b, text, size, true);
    CHECK_EQ(x.n, y.n);
    CHECK_BYTES(x.id, y.id, x.n * sizeof *x.id);
    kiln_ids_free(&x);
    kiln_ids_free(&y);
}

/* Decode ids that begin a document. */
static char *decode(const struct kiln_tokenizer *tok, const struct kiln_ids *ids, size_t *size) {
    size_t room = 1, n;
    uint32_t previous = kiln_tokenizer_begin(tok);
    for (size_t i = 0; i < ids->n; i++) {
        (void)kiln_tokenizer_decode(tok, KILN_NO_ID, ids->id[i], &n);
        room += n;
    }
    char *out = calloc(room, 1);
    *size = 0;
    for (size_t i = 0; i < ids->n; i++) {
        const char *piece = kiln_tokenizer_decode(tok, previous, ids->id[i], &n);
        memcpy(out + *size, piece, n);
        *size += n;
        previous = ids->id[i];
    }
    return out;
}

/* ---- known ids ---------------------------------------------------------------------------- */

static void check_line(const struct kiln_tokenizer *tok, const char *text, size_t size,
                       const char *line) {
    struct kiln_ids ids = encode(tok, text, size, false);
    size_t seen = 0;
    char *after;
    for (const char *at = line; at[strspn(at, " ")] != '\n' && at[strspn(at, " ")] != '\0';
         seen++, at = after) {
        CHECK(seen < ids.n);
        CHECK_EQ(ids.id[seen], strtoul(at, &after, 10));
    }
    CHECK_EQ(seen, ids.n);
    kiln_ids_free(&ids);
}

static void check_cases(const char *path, const char *expected) {
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char *cases, *lines;
    size_t size;
    int n = 0;
    struct kiln_err err;
    struct kiln_tokenizer *tok = open_ok(path);
    CHECK_OK(kiln_read_file(test_data("tokenizers/cases.txt"), &cases, &size, &err), &err);
    CHECK_OK(kiln_read_file(test_data(expected), &lines, &size, &err), &err);
    char *text = cases;
    for (char *line = lines; *line != '\0'; n++) {
        char *end = strstr(text, mark);
        size_t length = end == NULL ? strlen(text) : (size_t)(end - text);
        check_line(tok, text, length, line);
        line += strcspn(line, "\n");
        line += *line == '\n';
        text = end == NULL ? text + length : end + sizeof mark - 1;
    }
    CHECK_EQ(n, 46);
    kiln_free(cases);
    kiln_free(lines);
    kiln_tokenizer_destroy(tok);
}

TEST(llama2_json_gives_the_ids_of_llama_cpp) {
    check_cases(test_data("tokenizers/llama2.json"), "tokenizers/cases.llama2.ids");
}

/* The file adds tokens for runs of blanks, which GPT-2 has not, nor the ids of llama.cpp; with them
 * it is compared in tests/cli/tokenizers.sh. */
TEST(gpt2_json_gives_the_ids_of_llama_cpp) {
    json_t *root = json_load_file(test_data("tokenizers/gpt2bpe.json"), 0, NULL);
    json_t *added = json_object_get(root, "added_tokens");
    CHECK(json_array_size(added) > 1);
    while (json_array_size(added) > 1) {
        CHECK_EQ(json_array_remove(added, 1), 0);
    }
    CHECK_EQ(json_dump_file(root, test_path("gpt2.json"), 0), 0);
    json_decref(root);
    check_cases(test_path("gpt2.json"), "tokenizers/cases.gpt2.ids");
}

TEST(marks_come_from_the_file_and_its_neighbours) {
    struct kiln_tokenizer *story = open_ok(test_data("hf-story"));
    struct kiln_tokenizer *gpt2 = open_ok(test_data("tokenizers/gpt2bpe.json"));
    CHECK_EQ(kiln_tokenizer_bos(story), 1);
    CHECK_EQ(kiln_tokenizer_eos(story), 2);
    CHECK_EQ(kiln_tokenizer_begin(story), 1);
    CHECK_EQ(kiln_tokenizer_bos(gpt2), KILN_NO_ID);
    CHECK_EQ(kiln_tokenizer_eos(gpt2), 50256);
    CHECK_EQ(kiln_tokenizer_begin(gpt2), 50256);
    kiln_tokenizer_destroy(story);
    kiln_tokenizer_destroy(gpt2);
}

/* ---- one tokenizer in several forms ------------------------------------------------------- */

static void check_saved_as_json(const char *from) {
    char *text;
    size_t size;
    struct kiln_err err;
    struct kiln_tokenizer *tok = open_ok(test_data(from));
    CHECK_OK(kiln_tokenizer_save(tok, test_path("tokenizer.json"), &err), &err);
    struct kiln_tokenizer *again = open_ok(test_folder());
    CHECK_OK(kiln_read_file(test_data("tinystories_val.txt"), &text, &size, &err), &err);
    check_same(tok, again, text, 300000);
    if (tok->parts.spelling != KILN_SPELL_LLAMA2C) {
        CHECK_EQ(tok->crc, again->crc);
    }
    CHECK_EQ(kiln_tokenizer_bos(tok), kiln_tokenizer_bos(again));
    CHECK_EQ(kiln_tokenizer_eos(tok), kiln_tokenizer_eos(again));
    CHECK_EQ(kiln_tokenizer_vocab(tok), kiln_tokenizer_vocab(again));
    CHECK_OK(kiln_tokenizer_save(again, test_path("again.json"), &err), &err);
    struct kiln_tokenizer *third = open_ok(test_path("again.json"));
    CHECK_EQ(again->crc, third->crc);
    kiln_free(text);
    kiln_tokenizer_destroy(third);
    kiln_tokenizer_destroy(again);
    kiln_tokenizer_destroy(tok);
}

TEST(gpt2_is_saved_as_json) { check_saved_as_json("tokenizers/gpt2bpe.json"); }
TEST(hf_story_is_saved_as_json) { check_saved_as_json("hf-story"); }
TEST(llama2_bin_is_saved_as_json) { check_saved_as_json("tokenizers/llama2.bin"); }
TEST(llama2_json_is_saved_as_json) { check_saved_as_json("tokenizers/llama2.json"); }
TEST(tok512_is_saved_as_json) { check_saved_as_json("tok512.bin"); }

static void check_through_gguf(const char *from, size_t vocab) {
    char *text;
    size_t size;
    struct kiln_err err;
    struct kiln_gguf_pairs pairs = {0};
    struct kiln_gguf_writer writer;
    struct kiln_durable file;
    const struct kiln_gguf_pairs *list[] = {&pairs};
    struct kiln_tokenizer *tok = open_ok(test_data(from));
    CHECK_OK(kiln_gguf_tokenizer_put(tok, vocab, &pairs, &err), &err);
    CHECK_OK(kiln_durable_open(&file, test_path("t.gguf"), &err), &err);
    CHECK_OK(kiln_gguf_begin(&writer, &file, list, 1, NULL, 0, &err), &err);
    CHECK_OK(kiln_gguf_end(&writer, &err), &err);
    CHECK_OK(kiln_durable_commit(&file, &err), &err);
    kiln_gguf_pairs_free(&pairs);
    CHECK_OK(kiln_gguf_tokenizer_prove(tok, test_path("t.gguf"), &err), &err);
    struct kiln_tokenizer *again = open_ok(test_path("t.gguf"));
    CHECK_EQ(kiln_tokenizer_vocab(again), vocab);
    CHECK_EQ(kiln_tokenizer_eos(again), kiln_tokenizer_eos(tok));
    CHECK_EQ(kiln_tokenizer_begin(again), kiln_tokenizer_begin(tok));
    CHECK_OK(kiln_read_file(test_data("tinystories_val.txt"), &text, &size, &err), &err);
    check_same(tok, again, text, 300000);
    kiln_free(text);
    kiln_tokenizer_destroy(again);
    kiln_tokenizer_destroy(tok);
}

/* What llama.cpp's names for patterns stand for besides must be as it is, too. */
static void check_no_gguf(struct kiln_tokenizer *tok, const char *why) {
    struct kiln_err err;
    struct kiln_gguf_pairs pairs = {0};
    CHECK_FAILS(kiln_gguf_tokenizer_put(tok, kiln_tokenizer_vocab(tok), &pairs, &err),
                KILN_EUNSUPPORTED, &err);
    CHECK_CONTAINS(err.message, why);
    kiln_gguf_pairs_free(&pairs);
}

static void take_pattern(struct kiln_tokenizer *tok, const char *pattern) {
    kiln_free(tok->parts.split[0].pattern);
    tok->parts.split[0].pattern = kiln_strdup(pattern);
}

TEST(what_a_name_in_gguf_does_not_stand_for_is_refused) {
    struct kiln_tokenizer *tok = open_ok(test_data("tokenizers/gpt2bpe.json"));
    tok->parts.ignore_merges = true;
    check_no_gguf(tok, "gpt-2, whose pattern it has, stands for ignore_merges false");
    take_pattern(tok, kiln_pattern_llama3);
    tok->parts.ignore_merges = false;
    check_no_gguf(tok, "llama-bpe, whose pattern it has, stands for ignore_merges true");
    take_pattern(tok, kiln_pattern_gpt2);
    CHECK(kiln_parts_add_rewrite(&tok->parts, KILN_REWRITE_NFC, NULL, false, NULL));
    check_no_gguf(tok, "stands for no normalizer");
    kiln_tokenizer_destroy(tok);
}

TEST(gpt2_goes_through_gguf_padded) { check_through_gguf("tokenizers/gpt2bpe.json", 50304); }
TEST(tok512_goes_through_gguf) { check_through_gguf("tok512.bin", 512); }
TEST(hf_story_goes_through_gguf) { check_through_gguf("hf-story", 2048); }

TEST(another_tokenizer_in_a_gguf_is_told) {
    struct kiln_err err;
    struct kiln_tokenizer *tok = open_ok(test_data("tok512.bin"));
    struct kiln_tokenizer *other = open_ok(test_data("tokenizers/gpt2bpe.json"));
    CHECK_OK(kiln_gguf_tokenizer_prove(tok, test_data("stories260K.gguf"), &err), &err);
    CHECK_FAILS(kiln_gguf_tokenizer_prove(other, test_data("stories260K.gguf"), &err),
                KILN_EUNSUPPORTED, &err);
    kiln_tokenizer_destroy(other);
    kiln_tokenizer_destroy(tok);
}

TEST(the_tokenizer_inside_a_gguf_is_that_of_the_bin) {
    char *text;
    size_t size;
    struct kiln_tokenizer *bin = open_ok(test_data("tok512.bin"));
    struct kiln_tokenizer *gguf = open_ok(test_data("stories260K.gguf"));
    CHECK_OK(kiln_read_file(test_data("tinystories_val.txt"), &text, &size, NULL), NULL);
    check_same(bin, gguf, text, 300000);
    kiln_free(text);
    kiln_tokenizer_destroy(bin);
    kiln_tokenizer_destroy(gguf);
}

/* ---- small tokenizers --------------------------------------------------------------------- */

#define BYTE_LEVEL                                                                              \
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}," \
    "\"decoder\":{\"type\":\"ByteLevel\"}"
#define BLOCKS                                                         \
    "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" " \
    "\"},\"content\":\"\\u2581\"},"                                    \
    "\"decoder\":{\"type\":\"Fuse\"}"

static enum kiln_status open_text(const char *text, struct kiln_tokenizer **out,
                                  struct kiln_err *err) {
    return kiln_tokenizer_open(test_file("small.json", text, strlen(text)), out, err);
}

static void check_refused(const char *text, const char *why) {
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_FAILS(open_text(text, &tok, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, why);
    CHECK(tok == NULL);
}

TEST(what_a_tokenizer_json_has_wrong_is_named) {
    check_refused("{", "line 1");
    check_refused("{\"model\":{\"type\":\"WordPiece\"}}", "WordPiece");
    check_refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram");
    check_refused("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", "neither byte-level");
    check_refused("{\"normalizer\":{\"type\":\"Lowercase\"},\"model\":{\"vocab\":{\"a\":0}}}",
                  "Lowercase");
    check_refused("{\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"vocab\":{\"a\":0}}}",
                  "Whitespace");
    check_refused("{\"decoder\":{\"type\":\"CTC\"},\"model\":{\"vocab\":{\"a\":0}}}", "CTC");
    check_refused("{" BLOCKS ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "merge 0");
    check_refused("{" BLOCKS ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[17]}}", "merge 0");
    check_refused("{" BLOCKS ",\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "same id");
    check_refused("{" BLOCKS ",\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "is no number");
    check_refused("{" BLOCKS ",\"model\":{\"vocab\":{\"a\":\"x\"},\"merges\":[]}}", "is no number");
    check_refused("{" BLOCKS ",\"model\":{\"vocab\":{\"a\":9000000},\"merges\":[]}}",
                  "ids up to 9000000");
    check_refused("{" BLOCKS ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"u\"}}",
                  "unk_token");
    check_refused("{" BLOCKS ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}",
                  "dropout");
    check_refused("{" BYTE_LEVEL ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", "byte 0x00");
    check_refused("{" BLOCKS
                  ",\"added_tokens\":[{\"id\":5,\"content\":\"a\"}],"
                  "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
                  "added token");
    check_refused("{" BLOCKS
                  ",\"post_processor\":{\"type\":\"BertProcessing\"},"
                  "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
                  "BertProcessing");
}

TEST(a_pattern_that_pcre_reads_otherwise_is_refused) {
    static const char *const wrong[] = {"[a&&b]", "[a[b]]", "a{2,3}+", "(", "\\\\K"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char text[600];
        snprintf(text, sizeof text,
                 "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                 "\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"Isolated\"},{\"type\":"
                 "\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]},\"decoder\":"
                 "{\"type\":\"ByteLevel\"},\"model\":{\"unk_token\":\"a\",\"vocab\":{\"a\":0},"
                 "\"merges\":[]}}",
                 wrong[i]);
        check_refused(text, "pattern");
    }
}

TEST(json_nested_deep_is_refused) {
    size_t n = 10000;
    char *deep = malloc(2 * n + 1);
    memset(deep, '[', n);
    memset(deep + n, ']', n);
    deep[2 * n] = '\0';
    char *text = malloc(2 * n + 64);
    snprintf(text, 2 * n + 64, "{\"model\":%s}", deep);
    check_refused(text, "depth");
    free(deep);
    free(text);
}

TEST(ids_may_have_holes) {
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_OK(open_text("{" BLOCKS ",\"model\":{\"vocab\":{\"a\":1,\"b\":5,\"ab\":9,\"\\u2581\":3},"
                       "\"merges\":[[\"a\",\"b\"]]}}",
                       &tok, &err),
             &err);
    CHECK_EQ(kiln_tokenizer_vocab(tok), 10);
    check_ids(tok, "ab ba", (const uint32_t[]){9, 3, 5, 1}, 4);
    size_t n = 9;
    (void)kiln_tokenizer_decode(tok, KILN_NO_ID, 4, &n);
    CHECK_EQ(n, 0);
    CHECK_OK(kiln_tokenizer_fits(tok, 10, &err), &err);
    CHECK_OK(kiln_tokenizer_fits(tok, 16, &err), &err);
    CHECK_FAILS(kiln_tokenizer_fits(tok, 9, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "10 ids");
    kiln_tokenizer_destroy(tok);
}

TEST(bytes_that_are_no_utf8_stand_alone) {
    static const char text[] = "a\xFF\xC3 \xE2\x82\xAC\xED\xA0\x80z";
    struct kiln_tokenizer *tok = open_ok(test_data("tokenizers/gpt2bpe.json"));
    struct kiln_ids ids = encode(tok, text, sizeof text - 1, false);
    size_t size;
    char *back = decode(tok, &ids, &size);
    CHECK_EQ(size, sizeof text - 1);
    CHECK_BYTES(back, text, size);
    CHECK_EQ(kiln_utf8_bad_bytes(text, sizeof text - 1), 5);
    free(back);
    kiln_ids_free(&ids);
    kiln_tokenizer_destroy(tok);
}

/* ---- Unicode ------------------------------------------------------------------------------ */

TEST(characters_passed_over_by_nfc_are_never_changed) {
    for (uint32_t code = 0; code < 0x110000; code++) {
        char text[4], *made = NULL;
        if (!kiln_nfc_inert(code) || (code >= 0xD800 && code < 0xE000)) {
            continue;
        }
        size_t n = kiln_utf8_write(code, text);
        CHECK_EQ(utf8proc_get_property((utf8proc_int32_t)code)->combining_class, 0);
        utf8proc_ssize_t size =
            utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n,
                         (utf8proc_uint8_t **)&made, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        CHECK_EQ(size, n);
        CHECK_BYTES(made, text, n);
        free(made);
    }
}

TEST(an_unfinished_character_is_told_from_a_whole_one) {
    CHECK_EQ(kiln_utf8_unfinished("ab", 2), 0);
    CHECK_EQ(kiln_utf8_unfinished("a\xE2", 2), 1);
    CHECK_EQ(kiln_utf8_unfinished("a\xE2\x82", 3), 2);
    CHECK_EQ(kiln_utf8_unfinished("a\xE2\x82\xAC", 4), 0);
    CHECK_EQ(kiln_utf8_unfinished("\xF0\x9F\x98", 3), 3);
    CHECK_EQ(kiln_utf8_unfinished("\x80\x80", 2), 0);
    CHECK_EQ(kiln_utf8_unfinished("\xFF", 1), 0);
}

TEST(every_byte_has_a_letter_of_its_own) {
    for (int byte = 0; byte < 256; byte++) {
        CHECK_EQ(kiln_byte_of_letter(kiln_letter_of_byte((unsigned char)byte)), byte);
    }
    CHECK_EQ(kiln_letter_of_byte(' '), 0x120);
    CHECK_EQ(kiln_byte_of_letter(0x144), -1);
    CHECK_EQ(kiln_byte_of_letter(' '), -1);
}

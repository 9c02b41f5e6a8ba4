/* SPDX-License-Identifier: MIT
 *
 * test_source.c: texts as people keep them: compressed, as JSONL, as conversations; and what
 * becomes of them in token files.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln_test.h"
#include "text/source.h"
#include "text/text_int.h"
#include "text_files.h"

/* ---- compressed files
 * ---------------------------------------------------------------------------- */

static char *some_text(size_t size) {
    char *text = kiln_alloc(size + 1, 1);
    for (size_t i = 0; i < size; i++) {
        text[i] = "abcdefgh ijklmn\n"[i * i / 7 % 16];
    }
    return text;
}

TEST(compressed_texts_are_read_whatever_their_names) {
    char *text = some_text(300000);
    for (size_t p = 0; p < 2; p++) {
        struct test_bytes one = test_packers[p](text, 300000), two = test_packers[p]("behind", 6);
        struct test_bytes both = {kiln_alloc(one.n + two.n, 1), one.n + two.n};
        memcpy(both.at, one.at, one.n);
        memcpy(both.at + one.n, two.at, two.n);
        const char *path = test_file("text.txt", both.at, both.n);
        const size_t steps[] = {1 << 16, 7777};
        for (int i = 0; i < 2; i++) {
            struct test_bytes got = test_stream(path, steps[i]);
            CHECK_EQ(got.n, 300006);
            CHECK_BYTES(got.at, text, 300000);
            CHECK_BYTES(got.at + 300000, "behind", 6);
            kiln_free(got.at);
        }
        kiln_free(one.at);
        kiln_free(two.at);
        kiln_free(both.at);
    }
    kiln_free(text);
}

TEST(a_compressed_text_that_ends_in_the_middle_is_refused) {
    char *text = some_text(50000);
    for (size_t p = 0; p < 2; p++) {
        struct test_bytes file = test_packers[p](text, 50000);
        for (size_t cut = 4; cut < file.n; cut += 1 + file.n / 40) {
            test_damaged(&file, cut, "ends in the middle");
        }
        test_damaged(&file, file.n - 1, "ends in the middle");
        file.at[file.n / 2] ^= 0x55;
        struct kiln_stream *stream;
        struct kiln_err err;
        CHECK_OK(kiln_stream_open(test_file("changed", file.at, file.n), &stream, &err), &err);
        enum kiln_status status = KILN_OK;
        for (size_t got = 1; got > 0 && status == KILN_OK;) {
            char block[4096];
            status = kiln_stream_read(stream, block, sizeof block, &got, &err);
        }
        CHECK(status == KILN_EINPUT || p == 1); /* frames need no checksum */
        kiln_stream_close(stream);
        kiln_free(file.at);
    }
    kiln_free(text);
}

TEST(what_follows_compressed_data_must_be_such_data) {
    struct test_bytes file = test_gzipped("text", 4);
    struct test_bytes more = {kiln_alloc(file.n + 20, 1), file.n + 20};
    memcpy(more.at, file.at, file.n);
    memcpy(more.at + file.n, "something else here.", 20);
    test_damaged(&more, more.n, "bytes that are none");
    kiln_free(file.at);
    kiln_free(more.at);
}

/* ---- pieces ------------------------------------------------------------------------------------
 */

static void check_same_ids(const struct kiln_token_file *a, const struct kiln_token_file *b) {
    CHECK_EQ(kiln_token_file_count(a), kiln_token_file_count(b));
    for (size_t i = 0; i < kiln_token_file_count(a); i++) {
        CHECK_EQ(kiln_token_file_id(a, i), kiln_token_file_id(b, i));
    }
}

/* Documents of a stream in pieces of `piece` have the ids of documents that are there as a whole.
 */
static void check_pieces(const struct kiln_tokenizer *tok, const char *path, size_t piece) {
    char *text;
    size_t size;
    struct kiln_err err;
    struct kiln_ids whole = {0}, parts = {0};
    struct kiln_documents documents;
    const char *document;
    size_t document_size;
    CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
    kiln_documents_init(&documents, text, size, KILN_ENDOFTEXT, false);
    while (kiln_documents_next(&documents, &document, &document_size)) {
        CHECK_OK(kiln_tokenizer_encode(tok, document, document_size, false, &whole, &err), &err);
    }
    const struct kiln_source_options how = {.tok = tok, .piece = piece};
    struct kiln_source *source;
    struct kiln_encoder *e;
    struct kiln_piece p;
    bool more;
    size_t pieces = 0;
    CHECK_OK(kiln_source_open(path, &how, &source, &err), &err);
    CHECK_OK(kiln_encoder_create(tok, true, &e, &err), &err);
    for (;; pieces++) {
        CHECK_OK(kiln_source_next(source, &p, &more, &err), &err);
        if (!more) {
            break;
        }
        (p.begins ? kiln_encoder_begin : kiln_encoder_go_on)(e, p.text, p.size);
        CHECK_OK(kiln_encoder_more(e, SIZE_MAX, &parts, &err), &err);
    }
    CHECK(pieces > size / (piece + (1 << 19)));
    CHECK_EQ(parts.n, whole.n);
    CHECK_BYTES(parts.id, whole.id, whole.n * sizeof *whole.id);
    kiln_encoder_destroy(e);
    kiln_source_close(source);
    kiln_ids_free(&whole);
    kiln_ids_free(&parts);
    kiln_free(text);
}

TEST_WITHIN(a_document_in_pieces_has_the_ids_of_the_whole, 200) {
    static const char *const tokenizers[] = {"tok512.bin", "tokenizers/llama2.bin",
                                             "tokenizers/llama2.json", "tokenizers/gpt2bpe.json"};
    static const char *const texts[] = {"tinyshakespeare.txt", "tinystories_val.txt"};
    struct kiln_err err;
    for (size_t i = 0; i < sizeof tokenizers / sizeof tokenizers[0]; i++) {
        struct kiln_tokenizer *tok;
        CHECK_OK(kiln_tokenizer_open(test_data(tokenizers[i]), &tok, &err), &err);
        for (size_t t = 0; t < 2; t++) {
            check_pieces(tok, test_data(texts[t]), 1000);
        }
        kiln_tokenizer_destroy(tok);
    }
}

/* Texts of other scripts, of other ends of lines and of none. */
static const char *many_lines(const char *name, const char *const *line, size_t n, size_t size) {
    FILE *f = fopen(test_path(name), "wb");
    CHECK(f != NULL);
    for (size_t i = 0, at = 0; at < size; i++) {
        const int wrote = fprintf(f, "%s", line[i * i / 3 % n]);
        CHECK(wrote > 0);
        at += (size_t)wrote;
    }
    CHECK_EQ(fclose(f), 0);
    return test_path(name);
}

static const char *const russian[] = {"Все счастливые семьи похожи друг на друга,\n",
                                      "каждая несчастливая - по-своему.\n", "Ёж. 12 345\n\n"};
static const char *const chinese[] = {"学而时习之，不亦说乎？\n", "有朋自远方来\n",
                                      "　　三人行。\n"};
static const char *const dos[] = {"A line of DOS\r\n", "and another.\r\n\r\n", "Why 3 not?\r\n"};
static const char *const one_line[] = {"no end of it, ", "it goes on  and on ", "<|im_end|> 你好 ",
                                       "'s 42 \"Ах!\" ", "e\xCC\x81tait "};
static const char *const unbroken[] = {"学而时习之", "不亦说乎", "有朋自远方来"};

TEST_WITHIN(a_text_of_any_script_comes_in_pieces, 200) {
    static const char *const tokenizers[] = {"tok512.bin", "tokenizers/llama2.bin",
                                             "tokenizers/llama2.json", "tokenizers/gpt2bpe.json"};
    struct kiln_err err;
    for (size_t i = 0; i < sizeof tokenizers / sizeof tokenizers[0]; i++) {
        struct kiln_tokenizer *tok;
        CHECK_OK(kiln_tokenizer_open(test_data(tokenizers[i]), &tok, &err), &err);
        check_pieces(tok, many_lines("russian.txt", russian, 3, 3 << 20), 1000);
        check_pieces(tok, many_lines("chinese.txt", chinese, 3, 3 << 20), 1000);
        check_pieces(tok, many_lines("dos.txt", dos, 3, 3 << 20), 1000);
        check_pieces(tok, many_lines("line.txt", one_line, 5, 3 << 20), 1000);
        kiln_tokenizer_destroy(tok);
    }
}

TEST(a_text_without_a_place_to_cut_is_cut_behind_a_character) {
    struct kiln_tokenizer *tok;
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    check_pieces(tok, many_lines("unbroken.txt", unbroken, 3, 3 << 20), 1000);
    kiln_tokenizer_destroy(tok);
}

TEST(ends_of_both_kinds_are_found_wherever_they_lie) {
    enum { DOCUMENTS = 3000 };
    FILE *f = fopen(test_path("many.txt"), "wb");
    CHECK(f != NULL);
    for (int i = 0; i < DOCUMENTS; i++) {
        fprintf(f, "document %d%*s", i, i % 997, "x");
        fputs(i % 3 == 0 ? "<|endoftext|>" : "\n \t\n", f);
    }
    CHECK_EQ(fclose(f), 0);
    const struct kiln_tokenize_options options = {.blank_lines = true};
    const struct kiln_source_options how = {.tokenize = &options};
    struct kiln_source *source;
    struct kiln_err err;
    struct kiln_piece p;
    bool more = true;
    CHECK_OK(kiln_source_open(test_path("many.txt"), &how, &source, &err), &err);
    for (int i = 0; i < DOCUMENTS; i++) {
        char begin[40];
        snprintf(begin, sizeof begin, "document %d", i);
        CHECK_OK(kiln_source_next(source, &p, &more, &err), &err);
        CHECK(more && p.begins);
        CHECK_EQ(p.size, strlen(begin) + (size_t)(i % 997 > 1 ? i % 997 : 1));
        CHECK_BYTES(p.text, begin, strlen(begin));
    }
    CHECK_OK(kiln_source_next(source, &p, &more, &err), &err);
    CHECK(!more);
    kiln_source_close(source);
}

static size_t resident_peak(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (size_t)use.ru_maxrss << 10;
}

/* 96 MB of one document: memory is that of the buffers. */
static void check_memory(const char *text, size_t size) {
    enum { BLOCKS = 96 };
    struct test_bytes block = test_zstandard(text, size);
    FILE *f = fopen(test_path("large.txt"), "wb");
    CHECK(f != NULL);
    for (int i = 0; i < BLOCKS; i++) {
        CHECK_EQ(fwrite(block.at, 1, block.n, f), block.n);
    }
    CHECK_EQ(fclose(f), 0);
    kiln_free(block.at);
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    const size_t before = resident_peak();
    CHECK_OK(kiln_tokenize_file(tok, test_path("large.txt"), test_path("large.tok"), NULL, &err),
             &err);
    const size_t grown = resident_peak() - before;
    if (grown > (size_t)32 << 20) {
        FAIL("%zu MB more for %d MB of text", grown >> 20, BLOCKS);
    }
    kiln_tokenizer_destroy(tok);
}

TEST_WITHIN(memory_does_not_grow_with_the_text, 200) {
    enum { BLOCK = 1 << 20 };
    char *text = some_text(BLOCK);
    for (size_t i = 40; i < BLOCK; i += 97) {
        memcpy(text + i - 3, "x\nNew", 5);
    }
    check_memory(text, BLOCK);
    kiln_free(text);
}

TEST_WITHIN(memory_does_not_grow_with_a_line_without_end, 200) {
    enum { BLOCK = 1 << 20 };
    char *text = kiln_alloc(BLOCK, 1);
    for (size_t i = 0; i + 2 <= BLOCK; i += 2) {
        memcpy(text + i, i % 22 == 0 ? "\xD0\xB0" : "\xD1\x8F", 2);
    }
    check_memory(text, BLOCK);
    memset(text, ' ', BLOCK);
    text[0] = 'x';
    check_memory(text, BLOCK);
    kiln_free(text);
}

/* ---- JSONL --------------------------------------------------------------------------------------
 */

static struct kiln_token_file *tokenize(const char *name, const char *text,
                                        const struct kiln_tokenize_options *options) {
    struct kiln_tokenizer *tok;
    struct kiln_token_file *file;
    struct kiln_err err;
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    const char *path = test_file(name, text, strlen(text));
    CHECK_OK(kiln_tokenize_file(tok, path, test_path("out.tok"), options, &err), &err);
    CHECK_OK(kiln_token_file_open(test_path("out.tok"), 0, &file, &err), &err);
    kiln_tokenizer_destroy(tok);
    return file;
}

TEST(lines_of_jsonl_are_documents) {
    struct kiln_token_file *a = tokenize(
        "a.jsonl", "{\"text\": \"one\\ntwo\"}\n\n{\"id\": 3, \"text\": \"\\u00fc\"}", NULL);
    struct kiln_token_file *b = tokenize("b.txt", "one\ntwo<|endoftext|>\xC3\xBC", NULL);
    check_same_ids(a, b);
    CHECK_EQ(kiln_token_file_documents(a), 2);
    CHECK_EQ(kiln_token_file_text_bytes(a), 7 + 2); /* without the markup: bits per byte */
    kiln_token_file_close(a);
    kiln_token_file_close(b);
}

static const struct {
    const char *line, *part;
} broken[] = {
    {"{\"text\": \"x\"", "no JSON"},     {"[1, 2]", "no JSON object"},
    {"{\"txt\": \"x\"}", "neither"},     {"{\"text\": 3}", "no string"},
    {"{\"text\": \"\xFF\"}", "no JSON"}, {"{\"text\": \"a\", \"messages\": []}", "both"},
};

TEST(a_broken_line_is_named_or_left_out) {
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        char text[300];
        const int n = snprintf(text, sizeof text, "{\"text\": \"a\"}\n%s\n{\"text\": \"b\"}\n",
                               broken[i].line);
        const char *path = test_file("broken.jsonl", text, (size_t)n);
        CHECK_FAILS(kiln_tokenize_file(tok, path, test_path("out.tok"), NULL, &err), KILN_EINPUT,
                    &err);
        CHECK_CONTAINS(err.message, "broken.jsonl line 2");
        CHECK_CONTAINS(err.message, broken[i].part);
        CHECK(!kiln_path_exists(test_path("out.tok")));
        struct kiln_tokenize_report report;
        const struct kiln_tokenize_options skip = {.skip_bad = true, .report = &report};
        CHECK_OK(kiln_tokenize_file(tok, path, test_path("out.tok"), &skip, &err), &err);
        CHECK_EQ(report.bad_lines, 1);
        CHECK_EQ(report.documents, 2);
        CHECK_CONTAINS(report.first_bad, "line 2");
        CHECK_EQ(unlink(test_path("out.tok")), 0);
    }
    kiln_tokenizer_destroy(tok);
}

TEST(bytes_that_are_not_utf8_are_counted) {
    struct kiln_tokenize_report report;
    const struct kiln_tokenize_options options = {.report = &report};
    kiln_token_file_close(tokenize("stray.txt",
                                   "a\xFF"
                                   "b\xC3\xBC\xC3(\xE2\x82",
                                   &options));
    CHECK_EQ(report.not_utf8, 4);
}

/* ---- chat ---------------------------------------------------------------------------------------
 */

static struct kiln_chat *chat_of(const char *template_text) {
    struct kiln_chat *chat;
    struct kiln_err err;
    const char config[] = "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\"}";
    test_file("tokenizer_config.json", config, sizeof config - 1);
    const char *path = test_file("chat_template.jinja", template_text, strlen(template_text));
    CHECK_OK(kiln_chat_open(path, &chat, &err), &err);
    return chat;
}

/* Ids as text, BOS '|', EOS '.'; those that count in capitals. Documents begin with '/'. */
static void check_mask(const struct kiln_token_file *file, const char *want) {
    char got[300];
    size_t n = 0;
    for (size_t i = 0; i < kiln_token_file_count(file) && n + 3 < sizeof got; i++) {
        const uint32_t id = kiln_token_file_id(file, i);
        char c = (char)(id == 1 ? '|' : id == 2 ? '.' : (char)(id - 3));
        if (kiln_token_file_begins(file, i)) {
            got[n++] = '/';
        }
        c = kiln_token_file_counts(file, i) && c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
        got[n++] = kiln_token_file_counts(file, i) && c == '.' ? '!' : c;
    }
    got[n] = '\0';
    CHECK_STRING(got, want);
}

static const char plain_template[] =
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}a:{{ m.content }}"
    "{{ eos_token }}\n{% else %}u:{{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}";

static const char two_turns[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", "
    "\"content\": \"yo\"}, {\"role\": \"user\", \"content\": \"b\"}, {\"role\": \"assistant\", "
    "\"content\": \"c\"}]}\n{\"text\": \"end\"}\n";

TEST(of_a_conversation_the_answers_count) {
    struct kiln_chat *chat = chat_of(plain_template);
    struct kiln_tokenize_report report;
    const struct kiln_tokenize_options options = {.chat = chat, .report = &report};
    struct kiln_token_file *file = tokenize("chat.jsonl", two_turns, &options);
    check_mask(file, "/| u:hi\na:YO!\nu:b\na:C!\n/| END");
    CHECK_EQ(kiln_token_file_documents(file), 2);
    CHECK_EQ(report.answers, 5);
    kiln_token_file_close(file);
    kiln_chat_close(chat);
}

/* The same tokens on every day, in every time zone. */
TEST(what_is_learned_has_a_day_of_its_own) {
    static const char template[] =
        "{{ strftime_now('%d %b %Y %H:%M') }}{% for m in messages %} {{ m.content }}{% endfor %}";
    static const char line[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
        "\"content\": \"b\"}]}\n";
    static const char want[] = "26 Jul 2024 00:00 a b";
    struct kiln_chat *chat;
    struct kiln_source *source;
    struct kiln_piece p;
    struct kiln_err err;
    char *asked;
    size_t size;
    bool more;
    CHECK_OK(kiln_chat_open(test_file("day.jinja", template, strlen(template)), &chat, &err), &err);
    const struct kiln_tokenize_options options = {.chat = chat};
    const struct kiln_source_options how = {.tokenize = &options};
    setenv("TZ", "UTC+9", 1);
    CHECK_OK(kiln_source_open(test_file("day.jsonl", line, strlen(line)), &how, &source, &err),
             &err);
    CHECK_OK(kiln_source_next(source, &p, &more, &err), &err);
    CHECK(more);
    CHECK_EQ(p.size, strlen(want));
    CHECK_BYTES(p.text, want, p.size);
    kiln_source_close(source);
    CHECK_OK(kiln_chat_prompt(chat, NULL, "a", &asked, &size, &err), &err);
    CHECK(strstr(asked, "26 Jul 2024") == NULL); /* that is today */
    kiln_chat_free(asked);
    kiln_chat_close(chat);
}

TEST(conversations_without_an_answer_are_counted_and_alone_refused) {
    const char asked[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n";
    char both[sizeof asked + sizeof two_turns];
    struct kiln_chat *chat = chat_of(plain_template);
    struct kiln_tokenize_report report;
    const struct kiln_tokenize_options options = {.chat = chat, .report = &report};
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    const char *path = test_file("asked.jsonl", asked, sizeof asked - 1);
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    CHECK_FAILS(kiln_tokenize_file(tok, path, test_path("out.tok"), &options, &err), KILN_EINPUT,
                &err);
    CHECK_CONTAINS(err.message, "1 conversations, and no answer");
    CHECK(!kiln_path_exists(test_path("out.tok")));
    snprintf(both, sizeof both, "%s%s", asked, two_turns);
    kiln_token_file_close(tokenize("both.jsonl", both, &options));
    CHECK_EQ(report.unanswered, 1);
    CHECK(report.documents > 1 && report.answers > 0);
    kiln_tokenizer_destroy(tok);
    kiln_chat_close(chat);
}

TEST(generation_blocks_say_what_counts) {
    struct kiln_chat *chat = chat_of(
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
        "{% else %}{{ m.content }}:{% endif %}{% endfor %}");
    const struct kiln_tokenize_options options = {.chat = chat};
    struct kiln_token_file *file = tokenize("chat.jsonl", two_turns, &options);
    check_mask(file, "/ hi:YO!b:C!/| END");
    kiln_token_file_close(file);
    kiln_chat_close(chat);
}

/* A template that drops what was thought once more follows, as Qwen3's does. */
TEST(answers_that_are_written_shorter_later_are_found) {
    struct kiln_chat *chat = chat_of(
        "{% for m in messages %}{{ m.role[0] }}:{% if m.role == 'assistant' and loop.last %}"
        "(t){% endif %}{{ m.content }}{{ eos_token if m.role == 'assistant' }}\n{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}");
    const struct kiln_tokenize_options options = {.chat = chat};
    struct kiln_token_file *file = tokenize("chat.jsonl", two_turns, &options);
    check_mask(file, "/ u:hi\na:YO!\nu:b\na:(T)C!\n/| END");
    kiln_token_file_close(file);
    kiln_chat_close(chat);
}

TEST(a_template_whose_answers_cannot_be_told_is_refused) {
    struct kiln_chat *chat = chat_of(
        "{{ messages | length }}{% for m in messages %}"
        "{{ m.content }};{% endfor %}");
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    const struct kiln_tokenize_options options = {.chat = chat}, none = {.chat = NULL};
    const char *path = test_file("chat.jsonl", two_turns, sizeof two_turns - 1);
    CHECK_OK(kiln_tokenizer_bytes(&tok, NULL), NULL);
    CHECK_FAILS(kiln_tokenize_file(tok, path, test_path("out.tok"), &options, &err), KILN_EINPUT,
                &err);
    CHECK_CONTAINS(err.message, "line 1");
    CHECK_CONTAINS(err.message, "message 2");
    CHECK_FAILS(kiln_tokenize_file(tok, path, test_path("out.tok"), &none, &err), KILN_EUSAGE,
                &err);
    CHECK_CONTAINS(err.message, "--chat-template");
    kiln_chat_close(chat);
    kiln_tokenizer_destroy(tok);
}

TEST(masked_targets_and_documents_come_through_the_data) {
    struct kiln_chat *chat = chat_of(plain_template);
    const struct kiln_tokenize_options options = {.chat = chat};
    struct kiln_token_file *file = tokenize("chat.jsonl", two_turns, &options);
    struct kiln_data *data;
    struct kiln_err err;
    const size_t n = kiln_token_file_count(file), seq = n - 1;
    uint32_t inputs[100], targets[100], starts[100];
    CHECK_OK(kiln_data_create(file, seq, 1, 0, &data, &err), &err);
    kiln_data_train(data, 0, inputs, targets);
    kiln_data_train_starts(data, 0, starts);
    size_t counted = 0, begin = 0;
    for (size_t i = 0; i < seq; i++) {
        const bool counts = kiln_token_file_counts(file, i + 1);
        CHECK_EQ(targets[i], counts ? kiln_token_file_id(file, i + 1) : KILN_NO_TARGET);
        begin = kiln_token_file_begins(file, i) ? i : begin;
        CHECK_EQ(starts[i], begin);
        counted += counts;
    }
    CHECK(begin > 0);
    CHECK_EQ(kiln_data_train_targets(data, 0), counted);
    kiln_data_destroy(data);
    kiln_chat_close(chat);
}

TEST(every_changed_byte_of_a_bitmap_is_found) {
    struct kiln_chat *chat = chat_of(plain_template);
    const struct kiln_tokenize_options options = {.chat = chat};
    kiln_token_file_close(tokenize("chat.jsonl", two_turns, &options));
    char *bytes;
    size_t size;
    struct kiln_token_file *file;
    struct kiln_err err;
    CHECK_OK(kiln_read_file(test_path("out.tok"), &bytes, &size, &err), &err);
    for (size_t i = size - 16; i < size; i++) {
        bytes[i] ^= 1;
        CHECK_FAILS(kiln_token_file_open(test_file("bad.tok", bytes, size), 0, &file, &err),
                    KILN_EINPUT, &err);
        bytes[i] ^= 1;
        CHECK_FAILS(kiln_token_file_open(test_file("bad.tok", bytes, i), 0, &file, &err),
                    KILN_EINPUT, &err);
    }
    kiln_free(bytes);
    kiln_chat_close(chat);
}

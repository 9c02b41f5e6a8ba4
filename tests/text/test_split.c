/* SPDX-License-Identifier: MIT
 *
 * test_split.c: words by a regular expression.
 */
#include <string.h>

#include "base/random.h"
#include "kiln_test.h"
#include "text/split.h"

/* The words of a text, a bar behind each. */
static void check_words(const char *pattern, const char *text, size_t size, const char *want) {
    struct kiln_word_pattern *split;
    struct kiln_word_walk s;
    struct kiln_err err;
    char got[400] = "";
    size_t n = 0;
    CHECK_OK(kiln_word_pattern_create(pattern, &split, &err), &err);
    CHECK_OK(kiln_word_walk_init(&s, split, &err), &err);
    kiln_word_walk_begin(&s, text, size);
    for (;;) {
        const char *word;
        size_t length;
        CHECK_OK(kiln_word_walk_next(&s, &word, &length, &err), &err);
        if (length == 0) {
            break;
        }
        CHECK(n + length + 2 < sizeof got);
        memcpy(got + n, word, length);
        n += length;
        got[n++] = '|';
    }
    CHECK_STRING(got, want);
    kiln_word_walk_fini(&s);
    kiln_word_pattern_destroy(split);
}

TEST(words_are_cut_as_qwen2_cuts_them) {
    static const char *const cases[][2] = {
        {"Hello world", "Hello| world|"},
        {"I'm here, he'LL go", "I|'m| here|,| he|'LL| go|"},
        {"in 1984 (or so)", "in| |1|9|8|4| (|or| so|)|"},
        {"a  b   c", "a| | b|  | c|"},
        {"end.\n\nNext", "end|.\n\n|Next|"},
        {"tab\tword \n x  ", "tab|\tword| \n| x|  |"},
        {"\xC3\xA9t\xC3\xA9 \xE4\xBD\xA0\xE5\xA5\xBD",
         "\xC3\xA9t\xC3\xA9| \xE4\xBD\xA0\xE5\xA5\xBD|"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_words(KILN_SPLIT_QWEN2, cases[i][0], strlen(cases[i][0]), cases[i][1]);
    }
}

TEST(what_does_not_match_is_a_word_too) {
    check_words("[a-z]+", "12ab34cd56", 10, "12|ab|34|cd|56|");
    check_words("x*", "axxb", 4, "a|xx|b|");
    check_words("q", "abc", 3, "abc|");
}

TEST(a_byte_of_no_character_is_a_word) {
    check_words(KILN_SPLIT_QWEN2,
                "ab\xFF\xFE"
                "cd",
                6, "ab|\xFF|\xFE|cd|");
    check_words(KILN_SPLIT_QWEN2, "a\xC3", 2, "a|\xC3|");
    check_words(KILN_SPLIT_QWEN2, "\xED\xA0\x80z", 4, "\xED|\xA0|\x80|z|");
    check_words(KILN_SPLIT_QWEN2, "\xC0\x80", 2, "\xC0|\x80|");
    check_words(KILN_SPLIT_QWEN2, "\xF4\x90\x80\x80", 4, "\xF4|\x90|\x80|\x80|");
    check_words(KILN_SPLIT_QWEN2, "\xF4\x8F\xBF\xBF", 4, "\xF4\x8F\xBF\xBF|");
}

TEST(a_wrong_expression_says_where) {
    struct kiln_word_pattern *split;
    struct kiln_word_walk s;
    struct kiln_err err;
    const char *word;
    size_t size;
    CHECK_FAILS(kiln_word_pattern_create("ab(cd", &split, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "character 5");
    CHECK(split == NULL);
    CHECK_OK(kiln_word_pattern_create("a\\Kb|b", &split, &err), &err);
    CHECK_OK(kiln_word_walk_init(&s, split, &err), &err);
    kiln_word_walk_begin(&s, "ab", 2);
    CHECK_OK(kiln_word_walk_next(&s, &word, &size, &err), &err);
    CHECK_EQ(size, 1); /* "b" is the match, "a" what lies before it */
    kiln_word_walk_fini(&s);
    kiln_word_pattern_destroy(split);
}

/* Of any bytes the words are the text again, and valid characters are never cut. */
TEST(words_put_together_are_the_text) {
    static const char *const pieces[] = {
        " ", "\n", "a", "Z", "7", "'s", "\xC3\xA9", "\xFF", "\xE2", "\x82", "\xE3\x80\x80", "."};
    struct kiln_word_pattern *split;
    struct kiln_word_walk s;
    CHECK_OK(kiln_word_pattern_create(KILN_SPLIT_QWEN2, &split, NULL), NULL);
    CHECK_OK(kiln_word_walk_init(&s, split, NULL), NULL);
    for (uint64_t round = 0; round < 2000; round++) {
        char text[400] = "";
        const uint64_t n = kiln_random_bits(5, round, 1000) % 100;
        for (uint64_t i = 0; i < n; i++) {
            strcat(text, pieces[kiln_random_bits(5, round, i) % 12]);
        }
        const size_t size = strlen(text);
        size_t at = 0;
        const char *word;
        size_t length;
        kiln_word_walk_begin(&s, text, size);
        do {
            CHECK_OK(kiln_word_walk_next(&s, &word, &length, NULL), NULL);
            CHECK_EQ(word - text, at);
            at += length;
            CHECK(length <= 1 || kiln_utf8_valid(word, length) == length);
        } while (length > 0);
        CHECK_EQ(at, size);
    }
    kiln_word_walk_fini(&s);
    kiln_word_pattern_destroy(split);
}

/* SPDX-License-Identifier: MIT
 *
 * test_first_words.c: a prompt from a text is words of it, and safe to be typed.
 */
#include <string.h>

#include "kiln_test.h"
#include "text/first_words.h"

static const char *words_of(const char *text, bool begins) {
    static char out[KILN_FIRST_WORDS];
    memset(out, 'x', sizeof out);
    kiln_first_words(text, strlen(text), begins, out);
    CHECK(memchr(out, '\0', sizeof out) != NULL);
    return out;
}

TEST(first_words_of_a_text_that_begins) {
    CHECK_STRING(words_of("Once upon a time, there was a bear.", true), "Once upon a time");
    CHECK_STRING(words_of("  \n\"Two  words\n more", true), "Two  words");
    CHECK_STRING(words_of("No. Never", true), "No");
    CHECK_STRING(words_of("It costs $5", true), "It costs");
    CHECK_STRING(words_of("Jürgen und Zoë gehen", true), "Jürgen und Zoë");
    CHECK_STRING(words_of("word", true), "word");
    CHECK_STRING(words_of("", true), "");
    CHECK_STRING(words_of("\xff\xfe", true), "");
}

TEST(first_words_behind_a_sentence_that_is_cut) {
    CHECK_STRING(words_of("rds sang. The old trees by the river.", false), "The old trees by");
    CHECK_STRING(words_of("rds sang\nThe old tre", false), "The old");
    CHECK_STRING(words_of("rds sang by 3.5 rivers", false), "sang by 3");
    CHECK_STRING(words_of("onewordwithoutend", false), "");
}

TEST(first_words_fit_and_are_cut_between_words) {
    char text[400];
    for (size_t n = 1; n < 300; n++) {
        memset(text, 'a', n);
        strcpy(text + n, " b c d");
        const char *words = words_of(text, true);
        CHECK(strlen(words) == 0 || strlen(words) >= n);
        CHECK(strlen(words) < KILN_FIRST_WORDS);
    }
}

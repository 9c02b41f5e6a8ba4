/* SPDX-License-Identifier: MIT
 *
 * test_story.c: stories are pure functions of their number, parse to what they were drawn with,
 * and have the entropy that is claimed for them.
 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "kiln/story.h"
#include "kiln_test.h"
#include "text/story_grammar.h"

#define SEED 20

static uint64_t dice(uint64_t i, uint64_t n) {
    return kiln_random_below(SEED, KILN_STREAM_TEST, i, n);
}

/* Call fn(sentence, size, i) for every sentence of the first n stories. */
static void each_sentence(int n, void (*fn)(const char *sentence, size_t size, uint64_t i)) {
    uint64_t count = 0;
    for (int i = 0; i < n; i++) {
        char text[KILN_STORY_ROOM];
        size_t size = kiln_story_write(SEED, (uint64_t)i, text, NULL);
        bool quoted = false;
        for (size_t at = 0, start = 0; at < size; at++) {
            quoted ^= text[at] == '"';
            if (!quoted && strchr(".!?", text[at]) != NULL) {
                fn(text + start, at + 1 - start, count++);
                start = at + 2;
            }
        }
    }
    CHECK(count >= 6 * (uint64_t)n);
}

/* ---- Writing ---- */

TEST(a_story_is_a_pure_function_of_seed_and_index) {
    char a[KILN_STORY_ROOM], b[KILN_STORY_ROOM];
    for (uint64_t i = 0; i < 100; i++) {
        double sa, sb;
        size_t size = kiln_story_write(SEED, i, a, &sa);
        kiln_story_write(SEED, i + 1, b, NULL);
        CHECK(strcmp(a, b) != 0);
        kiln_story_write(SEED + 1, i, b, NULL);
        CHECK(strcmp(a, b) != 0);
        CHECK_EQ(kiln_story_write(SEED, i, b, &sb), size);
        CHECK_STRING(a, b);
        CHECK_CLOSE(sa, sb, 0);
        CHECK_EQ(strlen(a), size);
    }
}

static int by_text(const void *a, const void *b) {
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

TEST(ten_thousand_stories_all_differ) {
    enum { N = 10000 };
    static char *stories[N];
    for (uint64_t i = 0; i < N; i++) {
        char text[KILN_STORY_ROOM];
        CHECK(kiln_story_write(SEED, i, text, NULL) < KILN_STORY_ROOM / 2);
        stories[i] = strdup(text);
    }
    qsort(stories, N, sizeof(stories[0]), by_text);
    for (int i = 1; i < N; i++) {
        CHECK(strcmp(stories[i - 1], stories[i]) != 0);
    }
    for (int i = 0; i < N; i++) {
        free(stories[i]);
    }
}

static bool is_vowel(char c) { return strchr("aeiouAEIOU", c) != NULL; }

TEST(stories_are_tidy_english) {
    for (uint64_t i = 0; i < 5000; i++) {
        char text[KILN_STORY_ROOM];
        size_t size = kiln_story_write(SEED, i, text, NULL);
        CHECK(isupper((unsigned char)text[0]) && text[size - 1] == '.');
        CHECK(strpbrk(text, "{}|\n") == NULL && strstr(text, "  ") == NULL);
        for (const char *at = text; (at = strstr(at, " a ")) != NULL; at += 3) {
            if (is_vowel(at[3])) {
                FAIL("\"a\" before a vowel: %.24s", at);
            }
        }
    }
}

/* ---- Surprise and entropy ---- */

TEST(parsing_a_story_gives_the_surprise_it_was_written_with) {
    for (uint64_t i = 0; i < 2000; i++) {
        char text[KILN_STORY_ROOM];
        double surprise;
        size_t size = kiln_story_write(SEED, i, text, &surprise);
        CHECK_CLOSE(kiln_story_surprise(text, size), surprise, 1e-9);
    }
}

TEST(the_entropy_is_the_mean_surprise) {
    enum { N = 20000 };
    double sum = 0, squares = 0, entropy = kiln_story_entropy();
    for (uint64_t i = 0; i < N; i++) {
        char text[KILN_STORY_ROOM];
        double surprise;
        kiln_story_write(SEED, i, text, &surprise);
        double off = surprise - entropy;
        sum += off;
        squares += off * off;
    }
    double deviation = sqrt(squares / N);
    CHECK(deviation > 0);
    CHECK_CLOSE(sum / N, 0, 3 * deviation / sqrt(N));
}

TEST(the_space_of_stories_is_vast) {
    CHECK(kiln_story_entropy() > 12 * log(10)); /* at least exp(entropy) stories */
}

static bool same_hero(const char *a, const char *b) {
    a = strstr(a, " named ");
    b = strstr(b, " named ");
    return strncmp(a, b, sizeof(" named Ab") - 1) == 0;
}

TEST(a_story_that_contradicts_itself_does_not_parse) {
    char text[KILN_STORY_ROOM], other[KILN_STORY_ROOM];
    for (uint64_t i = 0; i < 200; i++) {
        size_t size = kiln_story_write(SEED, i, text, NULL);
        size_t other_size = kiln_story_write(SEED, i + 1000, other, NULL);
        CHECK_CLOSE(kiln_story_surprise(text, size - 1), -1, 0);
        /* the first half of one story, up to a sentence's end, and the second of another */
        const char *cut = strstr(text, " One "), *join = strstr(other, " One ");
        if (cut == NULL || join == NULL || same_hero(text, other)) {
            continue;
        }
        size_t head = (size_t)(cut - text);
        memcpy(text + head, join, (size_t)(other + other_size - join) + 1);
        CHECK_CLOSE(kiln_story_surprise(text, strlen(text)), -1, 0);
        size_t sentences, parsed;
        kiln_story_check(text, strlen(text), &sentences, &parsed);
        CHECK_EQ(parsed, sentences);
    }
}

/* ---- Sentences ---- */

static void parses(const char *sentence, size_t size, uint64_t i) {
    (void)i;
    CHECK(size <= KILN_STORY_SENTENCE_MAX);
    if (!kiln_story_sentence(sentence, size)) {
        FAIL("does not parse: %.*s", (int)size, sentence);
    }
    CHECK(!kiln_story_sentence(sentence, size - 1));
    CHECK(!kiln_story_sentence(sentence + 1, size - 1));
}

TEST(every_sentence_of_a_story_parses) { each_sentence(500, parses); }

static void changed_letter_does_not_parse(const char *sentence, size_t size, uint64_t i) {
    char copy[KILN_STORY_SENTENCE_MAX];
    memcpy(copy, sentence, size);
    size_t at = dice(i, size);
    copy[at] = copy[at] == 'x' ? 'z' : 'x';
    if (kiln_story_sentence(copy, size)) {
        FAIL("parses: %.*s", (int)size, copy);
    }
}

TEST(a_sentence_with_a_changed_letter_does_not_parse) {
    each_sentence(500, changed_letter_does_not_parse);
}

/* Swap the word behind a drawn blank with the one behind that. */
static void swapped_words_do_not_parse(const char *sentence, size_t size, uint64_t i) {
    const char *end = sentence + size;
    const char *first = memchr(sentence + dice(i, size / 2), ' ', size / 2);
    const char *second = first ? memchr(first + 1, ' ', (size_t)(end - first - 1)) : NULL;
    const char *third = second ? memchr(second + 1, ' ', (size_t)(end - second - 1)) : NULL;
    if (third == NULL) {
        return;
    }
    char copy[KILN_STORY_SENTENCE_MAX];
    memcpy(copy, sentence, size);
    size_t off = (size_t)(first - sentence), a = (size_t)(second - first),
           b = (size_t)(third - second);
    memcpy(copy + off, second, b);
    memcpy(copy + off + b, first, a);
    if (memcmp(copy, sentence, size) != 0 && kiln_story_sentence(copy, size)) {
        FAIL("parses: %.*s", (int)size, copy);
    }
}

TEST(a_sentence_with_swapped_words_does_not_parse) {
    each_sentence(500, swapped_words_do_not_parse);
}

TEST(slots_of_a_sentence_must_agree) {
    static const char *const good = "Rosa was so sad that she cried for two minutes.";
    static const char *const bad = "Rosa was so sad that he cried for two minutes.";
    CHECK(kiln_story_sentence(good, strlen(good)));
    CHECK(!kiln_story_sentence(bad, strlen(bad)));
}

/* ---- Checking a text ---- */

static void check_text(const char *text, size_t sentences, size_t parsed) {
    size_t found, right;
    kiln_story_check(text, strlen(text), &found, &right);
    CHECK_EQ(found, sentences);
    CHECK_EQ(right, parsed);
}

#define GOOD "Rosa was so sad that she cried for two minutes."

TEST(a_text_is_split_into_sentences) {
    check_text("", 0, 0);
    check_text(" \n ", 0, 0);
    check_text(GOOD, 1, 1);
    check_text(GOOD " " GOOD "\n" GOOD "<|endoftext|>" GOOD, 4, 4);
    check_text("Rosa was. " GOOD, 2, 1);
    check_text("\"Why are you so sad? Oh!\" asked Otto. " GOOD, 2, 1);
    check_text("\"Why are you so sad?\" asked Otto in a soft voice. " GOOD, 2, 2);
}

TEST(a_story_cut_off_at_the_end_counts_its_whole_sentences) {
    check_text(GOOD " Rosa was so", 1, 1);
    check_text(GOOD " \"Thank you, Otto!\"", 1, 1);
    check_text(GOOD " Rosa was so\n" GOOD, 3, 2);
    check_text(GOOD " Rosa was so<|endoftext|>" GOOD " Rosa", 3, 2);
}

TEST(an_open_quote_does_not_hide_what_follows) {
    char text[4 * KILN_STORY_SENTENCE_MAX + 1];
    memset(text, 'a', sizeof(text) - 1);
    text[0] = '"';
    text[sizeof(text) - 1] = '\0';
    check_text(text, 3, 0);
}

TEST(whole_stories_check_out) {
    for (uint64_t i = 0; i < 200; i++) {
        char text[KILN_STORY_ROOM];
        size_t size = kiln_story_write(SEED, i, text, NULL), sentences, parsed;
        kiln_story_check(text, size, &sentences, &parsed);
        CHECK(sentences >= 6 && sentences <= 12);
        CHECK_EQ(parsed, sentences);
    }
}

TEST(any_bytes_can_be_checked) {
    static const char likely[] = "aeinorst .,!?\"{}|<\n";
    for (uint64_t i = 0; i < 3000; i++) {
        char text[KILN_STORY_ROOM];
        size_t size = kiln_story_write(SEED, i, text, NULL);
        size = i % 3 == 0 ? dice(i, size) : size;
        char *exact = malloc(size + 1); /* so that a sanitizer sees a read behind its end */
        for (uint64_t j = 0; j < size; j++) {
            uint64_t d = dice(i << 12 | j, 1 << 20);
            exact[j] = i % 3 == 1    ? (char)d
                       : d < 1 << 12 ? likely[d % (sizeof(likely) - 1)]
                                     : text[j];
        }
        exact = realloc(exact, size > 0 ? size : 1);
        size_t sentences, parsed;
        kiln_story_check(exact, size, &sentences, &parsed);
        CHECK(parsed <= sentences && sentences <= size);
        CHECK(kiln_story_surprise(exact, size) != 0);
        kiln_story_sentence(exact, size);
        free(exact);
    }
}

/* ---- The tables ---- */

TEST(the_grammar_is_well_formed) {
    for (size_t i = 0; i < kiln_story_n_lists; i++) {
        const struct kiln_story_list *list = &kiln_story_lists[i];
        size_t forms = 1;
        for (const char *c = list->forms; c != NULL && *c != '\0'; c++) {
            forms += *c == ' ';
        }
        for (size_t j = 0; j < list->n_entries; j++) {
            size_t bars = 0;
            for (const char *c = list->entries[j]; *c != '\0'; c++) {
                bars += *c == '|';
            }
            CHECK_EQ(bars + 1, forms);
            for (size_t k = 0; k < j; k++) {
                CHECK(strcmp(list->entries[j], list->entries[k]) != 0);
            }
        }
        for (size_t j = 0; j < i; j++) {
            CHECK(strcmp(list->name, kiln_story_lists[j].name) != 0);
        }
    }
}

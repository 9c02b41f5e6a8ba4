/* SPDX-License-Identifier: MIT
 *
 * test_bpe_bytes.c: learning a byte-level vocabulary, and counting words for it.
 */
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/random.h"
#include "kiln/text.h"
#include "kiln_test.h"
#include "text/bpe.h"
#include "text/count_words.h"
#include "text/splits.h"
#include "text/utf8.h"

static struct kiln_learn by_bytes(size_t vocab, size_t threads) {
    return (struct kiln_learn){
        .kind = KILN_LEARN_BYTES, .vocab = vocab, .threads = threads, .separator = "<|endoftext|>"};
}

static enum kiln_status try_learn(const char *text, size_t size, struct kiln_learn how,
                                  struct kiln_learned *facts, struct kiln_tokenizer **tok,
                                  struct kiln_err *err) {
    struct kiln_learner *l;
    *tok = NULL;
    *facts = (struct kiln_learned){0};
    KILN_TRY(kiln_learner_create(&how, &l, err));
    enum kiln_status status = kiln_learner_add(l, text, size, err);
    if (status == KILN_OK) {
        status = kiln_learner_finish(l, tok, err);
    }
    *facts = *kiln_learner_facts(l);
    kiln_learner_destroy(l);
    return status;
}

static struct kiln_tokenizer *learn(const char *text, size_t size, size_t vocab, size_t threads,
                                    struct kiln_learned *facts) {
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_OK(try_learn(text, size, by_bytes(vocab, threads), facts, &tok, &err), &err);
    CHECK_EQ(kiln_tokenizer_vocab(tok), vocab);
    return tok;
}

static void check_piece(const struct kiln_tokenizer *tok, uint32_t id, const char *want) {
    size_t n;
    const char *piece = kiln_piece(&tok->parts.v, id, &n);
    CHECK_EQ(n, strlen(want));
    CHECK_BYTES(piece, want, n);
}

TEST(byte_vocabularies_begin_with_the_mark_and_gpt2s_letters) {
    struct kiln_learned facts;
    struct kiln_tokenizer *tok = learn("ab ab ab", 8, 259, 1, &facts);
    check_piece(tok, 0, "<|endoftext|>");
    check_piece(tok, 1, "!");
    check_piece(tok, 94, "~");
    check_piece(tok, 95, "\xA1");
    check_piece(tok, 188, "\xFF");
    CHECK_EQ(*kiln_piece(&tok->parts.v, 189, &(size_t){0}), 0);
    check_piece(tok, 189 + 32, " ");
    check_piece(tok, 256, "\xAD");
    check_piece(tok, 257, "ab");
    check_piece(tok, 258, " ab");
    CHECK_EQ(kiln_tokenizer_eos(tok), 0);
    CHECK_EQ(kiln_tokenizer_bos(tok), KILN_NO_ID);
    CHECK_EQ(kiln_tokenizer_begin(tok), 0);
    CHECK_EQ(facts.words, 3);
    CHECK_EQ(facts.different, 2);
    CHECK_EQ(facts.bytes, 8);
    CHECK_EQ(facts.tokens, 3);
    kiln_tokenizer_destroy(tok);
}

/* ---- against the definition ----------------------------------------------------------------- */

enum { MOST_WORDS = 400, MOST_SYMBOLS = 40, MOST_MERGES = 120 };

struct naive {
    uint32_t word[MOST_WORDS][MOST_SYMBOLS];
    size_t n[MOST_WORDS], words;
    char piece[257 + MOST_MERGES][MOST_SYMBOLS + 1];
    size_t ids;
    uint64_t count[257 + MOST_MERGES][257 + MOST_MERGES];
};

/* The pair that is there most often, the smallest of equals; its count. */
static uint64_t naive_best(struct naive *b, uint32_t best[2]) {
    uint64_t most = 0;
    memset(b->count, 0, sizeof b->count);
    for (size_t w = 0; w < b->words; w++) {
        for (size_t i = 0; i + 1 < b->n[w]; i++) {
            b->count[b->word[w][i]][b->word[w][i + 1]]++;
        }
    }
    for (uint32_t left = 0; left < b->ids; left++) {
        for (uint32_t right = 0; right < b->ids; right++) {
            if (b->count[left][right] > most) {
                most = b->count[left][right];
                best[0] = left;
                best[1] = right;
            }
        }
    }
    return most;
}

static void spell_naively(const struct naive *b, const uint32_t pair[2],
                          char piece[2 * MOST_SYMBOLS + 2]) {
    strcpy(piece, b->piece[pair[0]]);
    strcat(piece, b->piece[pair[1]]);
}

static void naive_merge(struct naive *b, const uint32_t pair[2]) {
    for (size_t w = 0; w < b->words; w++) {
        size_t kept = 0;
        for (size_t i = 0; i < b->n[w]; i++, kept++) {
            const bool here =
                i + 1 < b->n[w] && b->word[w][i] == pair[0] && b->word[w][i + 1] == pair[1];
            b->word[w][kept] = here ? (uint32_t)b->ids : b->word[w][i];
            i += here;
        }
        b->n[w] = kept;
    }
    char piece[2 * MOST_SYMBOLS + 2];
    spell_naively(b, pair, piece);
    strcpy(b->piece[b->ids++], piece);
}

static bool naive_knows(const struct naive *b, const uint32_t pair[2]) {
    char piece[2 * MOST_SYMBOLS + 2];
    spell_naively(b, pair, piece);
    for (size_t id = 257; id < b->ids; id++) {
        if (strcmp(b->piece[id], piece) == 0) {
            return true;
        }
    }
    return false;
}

/* Words of letters only, so that words are what blanks part. */
static size_t random_words(struct naive *b, uint64_t round, const struct kiln_tokenizer *bytes,
                           char *text) {
    size_t size = 0;
    const uint64_t letters = 2 + kiln_random_bits(11, round, 1) % 9;
    b->words = 50 + kiln_random_bits(11, round, 2) % (MOST_WORDS - 50);
    for (size_t w = 0; w < b->words; w++) {
        const size_t start = size;
        if (w > 0) {
            text[size++] = ' ';
        }
        const uint64_t n = 1 + kiln_random_bits(11, round, 3 * w + 10) % 8;
        for (uint64_t i = 0; i < n; i++) {
            text[size++] =
                (char)('a' + kiln_random_bits(11, round * 64 + i, 7 * w + 500) % letters);
        }
        b->n[w] = size - start;
        for (size_t i = start; i < size; i++) {
            b->word[w][i - start] = bytes->one[(unsigned char)text[i]];
        }
    }
    return size;
}

/* A recount after every merge. No token comes about twice (bpe.h says why). */
static size_t naive_learn(struct naive *b, const struct kiln_tokenizer *bytes) {
    b->ids = 257;
    for (uint32_t id = 1; id < 257; id++) {
        b->piece[id][0] = *kiln_piece(&bytes->parts.v, id, &(size_t){0});
    }
    while (b->ids < 257 + MOST_MERGES) {
        uint32_t best[2] = {0};
        if (naive_best(b, best) < 2) {
            break;
        }
        CHECK(!naive_knows(b, best));
        naive_merge(b, best);
    }
    return b->ids;
}

TEST(merges_are_those_of_the_definition) {
    struct naive *b = kiln_alloc(1, sizeof *b);
    struct kiln_tokenizer *bytes;
    struct kiln_err err;
    CHECK_OK(kiln_byte_rule(&bytes, &err), &err);
    size_t compared = 0;
    for (uint64_t round = 0; round < 30; round++) {
        static char text[MOST_WORDS * 10];
        memset(b, 0, sizeof *b);
        const size_t size = random_words(b, round, bytes, text);
        const size_t ids = naive_learn(b, bytes);
        struct kiln_learned facts;
        struct kiln_tokenizer *tok = learn(text, size, ids, 1, &facts);
        for (uint32_t id = 257; id < ids; id++) {
            check_piece(tok, id, b->piece[id]);
        }
        compared += ids - 257;
        kiln_tokenizer_destroy(tok);
    }
    CHECK(compared > 1000);
    kiln_tokenizer_destroy(bytes);
    kiln_free(b);
}

/* ---- texts ---------------------------------------------------------------------------------- */

/* Bytes of all sorts: words, blanks, newlines, quotes, other scripts, broken characters. */
static size_t mixed_text(char *text, size_t size, uint64_t seed) {
    static const char *const pieces[] = {" ",
                                         "  ",
                                         "\n",
                                         "\n\n",
                                         "\r\n",
                                         "\t",
                                         "a",
                                         "B",
                                         "the",
                                         "don't",
                                         "'LL",
                                         "1984",
                                         ".",
                                         "\"",
                                         "--",
                                         "\xC3\xA9",
                                         "\xE4\xBD\xA0\xE5\xA5\xBD",
                                         "\xE3\x80\x80",
                                         "\xC2\xA0",
                                         "\xE2\x80\x82",
                                         "\xCC\x81",
                                         "\xF0\x9F\x98\x80",
                                         "\xFF",
                                         "\xE2\x82",
                                         "\xC2",
                                         "x y",
                                         "<|endoftext|>",
                                         "z"};
    enum { PIECES = sizeof pieces / sizeof pieces[0] };
    size_t n = 0;
    for (uint64_t i = 0; n + 20 < size; i++) {
        const char *piece = pieces[kiln_random_bits(seed, 3, i) % PIECES];
        memcpy(text + n, piece, strlen(piece));
        n += strlen(piece);
    }
    return n;
}

static void count(struct kiln_word_counter *c, struct kiln_pool *pool,
                  const struct kiln_tokenizer *rule, size_t piece_bytes, const char *text,
                  size_t size) {
    struct kiln_documents documents;
    struct kiln_err err;
    kiln_documents_init(&documents, text, size, "<|endoftext|>", false);
    CHECK_OK(kiln_word_counter_init(c, pool, rule, &err), &err);
    c->piece_bytes = piece_bytes;
    CHECK_OK(kiln_word_counter_add(c, &documents, &err), &err);
}

static void check_same_counts(const struct kiln_word_counter *a,
                              const struct kiln_word_counter *b) {
    CHECK_EQ(a->all.words.n, b->all.words.n);
    CHECK_EQ(a->text_bytes, b->text_bytes);
    CHECK_EQ(a->counted, b->counted);
    CHECK_EQ(a->all.not_utf8, b->all.not_utf8);
    for (uint32_t i = 0; i < a->all.words.n; i++) {
        const struct kiln_string *word = &a->all.words.item[i];
        CHECK_EQ(b->all.words.item[i].size, word->size); /* the order is the same, too */
        CHECK_BYTES(b->all.words.item[i].bytes, word->bytes, word->size);
        CHECK_EQ(b->all.count[i], a->all.count[i]);
    }
}

TEST(pieces_of_a_document_have_the_words_of_the_whole) {
    enum { SIZE = 200000 };
    char *text = kiln_alloc(SIZE, 1);
    struct kiln_tokenizer *rule;
    struct kiln_pool *pool;
    CHECK_OK(kiln_byte_rule(&rule, NULL), NULL);
    CHECK_OK(kiln_pool_create(3, &pool, NULL), NULL);
    for (uint64_t round = 0; round < 8; round++) {
        const size_t size = mixed_text(text, SIZE, round);
        struct kiln_word_counter whole, cut;
        const struct kiln_tokenizer *by = round % 2 == 0 ? rule : NULL;
        count(&whole, pool, by, SIZE_MAX / 2, text, size);
        count(&cut, pool, by, 1 + round * 50, text, size);
        check_same_counts(&whole, &cut);
        CHECK((by != NULL) == (whole.all.not_utf8 > 0));
        kiln_word_counter_fini(&whole);
        kiln_word_counter_fini(&cut);
    }
    kiln_pool_destroy(pool);
    kiln_tokenizer_destroy(rule);
    kiln_free(text);
}

TEST(words_put_together_are_the_documents) {
    enum { SIZE = 50000 };
    char text[SIZE];
    struct kiln_tokenizer *rule;
    struct kiln_pool *pool;
    CHECK_OK(kiln_byte_rule(&rule, NULL), NULL);
    CHECK_OK(kiln_pool_create(1, &pool, NULL), NULL);
    for (uint64_t round = 0; round < 8; round++) {
        struct kiln_word_counter c;
        uint64_t bytes = 0;
        count(&c, pool, rule, 100, text, mixed_text(text, SIZE, round + 50));
        for (uint32_t i = 0; i < c.all.words.n; i++) {
            const struct kiln_string *word = &c.all.words.item[i];
            bytes += c.all.count[i] * word->size;
            CHECK(kiln_utf8_bad_at(word->bytes, word->size, 0) == word->size || word->size == 1);
        }
        CHECK_EQ(bytes, c.text_bytes);
        kiln_word_counter_fini(&c);
    }
    kiln_pool_destroy(pool);
    kiln_tokenizer_destroy(rule);
}

TEST(too_many_different_words_leave_the_later_ones_out) {
    static const char text[] = "aa bb aa cc aa bb dd dd dd";
    struct kiln_tokenizer *rule;
    struct kiln_pool *pool;
    struct kiln_word_counter c;
    struct kiln_documents documents;
    CHECK_OK(kiln_byte_rule(&rule, NULL), NULL);
    CHECK_OK(kiln_pool_create(2, &pool, NULL), NULL);
    CHECK_OK(kiln_word_counter_init(&c, pool, rule, NULL), NULL);
    c.most_bytes = 8; /* "aa", " bb", " aa" */
    kiln_documents_init(&documents, text, sizeof text - 1, NULL, false);
    CHECK_OK(kiln_word_counter_add(&c, &documents, NULL), NULL);
    CHECK_EQ(c.all.words.n, 3);
    CHECK_EQ(c.counted, 9);
    CHECK_EQ(c.left_out, 4);
    CHECK_EQ(c.all.count[1], 2);
    kiln_word_counter_fini(&c);
    kiln_pool_destroy(pool);
    kiln_tokenizer_destroy(rule);
}

TEST(a_byte_vocabulary_does_not_depend_on_threads) {
    enum { SIZE = 5 << 20 };
    char *text = kiln_alloc(SIZE, 1);
    const size_t size = mixed_text(text, SIZE, 77);
    struct kiln_learned facts, again;
    struct kiln_tokenizer *one = learn(text, size, 700, 1, &facts);
    for (size_t threads = 2; threads <= 5; threads++) {
        struct kiln_tokenizer *tok = learn(text, size, 700, threads, &again);
        CHECK_EQ(tok->crc, one->crc);
        CHECK_BYTES(&again, &facts, sizeof facts);
        kiln_tokenizer_destroy(tok);
    }
    CHECK(facts.not_utf8 > 1000);
    kiln_tokenizer_destroy(one);
    kiln_free(text);
}

TEST(any_bytes_come_back_from_a_byte_vocabulary) {
    char text[20000];
    for (uint64_t round = 0; round < 20; round++) {
        const size_t size = mixed_text(text, sizeof text, 100 + round);
        for (size_t i = 0; round % 2 == 1 && i < size; i += 7) {
            text[i] = (char)kiln_random_bits(4, round, i);
        }
        struct kiln_learned facts;
        struct kiln_tokenizer *tok = learn(text, size, 500, 2, &facts);
        struct kiln_ids ids = {0};
        CHECK_OK(kiln_tokenizer_encode(tok, text, size, false, &ids, NULL), NULL);
        size_t at = 0;
        for (size_t i = 0; i < ids.n; i++) {
            size_t n;
            const char *piece =
                kiln_tokenizer_decode(tok, i > 0 ? ids.id[i - 1] : KILN_NO_ID, ids.id[i], &n);
            if (ids.id[i] == 0) {
                CHECK_EQ(n, 0);
                CHECK_BYTES(text + at, "<|endoftext|>", 13);
                at += 13;
                continue;
            }
            CHECK_BYTES(text + at, piece, n);
            at += n;
        }
        CHECK_EQ(at, size);
        kiln_ids_free(&ids);
        kiln_tokenizer_destroy(tok);
    }
}

/* The encoder merges what was counted into as many tokens as learning left. */
TEST(the_encoder_finds_the_learners_tokens_again) {
    char *text;
    size_t size;
    CHECK_OK(kiln_read_file(test_data("tinyshakespeare.txt"), &text, &size, NULL), NULL);
    struct kiln_learned facts;
    struct kiln_tokenizer *tok = learn(text, size, 2000, 2, &facts);
    struct kiln_ids ids = {0};
    while (text[size - 1] == '\n') { /* a document ends before */
        size--;
    }
    CHECK_EQ(facts.bytes, size);
    CHECK_OK(kiln_tokenizer_encode(tok, text, size, false, &ids, NULL), NULL);
    CHECK_EQ(ids.n, facts.tokens);
    kiln_ids_free(&ids);
    kiln_free(text);
    kiln_tokenizer_destroy(tok);
}

TEST(the_mark_between_documents_is_never_learned) {
    static const char text[] = "ab<|endoftext|>ab<|endoftext|>ab<|endoftext|>ab ab";
    struct kiln_learned facts;
    struct kiln_tokenizer *tok = learn(text, sizeof text - 1, 258, 1, &facts);
    struct kiln_ids ids = {0};
    CHECK_EQ(facts.bytes, 11);
    check_piece(tok, 257, "ab");
    CHECK_OK(kiln_tokenizer_encode(tok, text, 17, false, &ids, NULL), NULL);
    CHECK_EQ(ids.n, 3);
    CHECK_EQ(ids.id[0], 257);
    CHECK_EQ(ids.id[1], 0);
    kiln_ids_free(&ids);
    kiln_tokenizer_destroy(tok);
}

TEST(too_small_a_text_says_how_many_bytes_and_ids) {
    struct kiln_learned facts;
    struct kiln_tokenizer *tok;
    struct kiln_err err;
    CHECK_FAILS(try_learn("ab ab ab", 8, by_bytes(300, 1), &facts, &tok, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "8 bytes of text are too few");
    CHECK_CONTAINS(err.message, "teach 259");
    CHECK_FAILS(try_learn("", 0, by_bytes(300, 1), &facts, &tok, &err), KILN_EINPUT, &err);
    CHECK_FAILS(try_learn("ab ab", 5, by_bytes(257, 1), &facts, &tok, &err), KILN_EUSAGE, &err);
}

TEST(several_texts_teach_as_one_with_marks_between) {
    static const char *const parts[] = {"one two three two", "two three four", "two two"};
    static const char joined[] =
        "one two three two<|endoftext|>two three four<|endoftext|>\ntwo two";
    const struct kiln_learn how = by_bytes(262, 2);
    struct kiln_learner *l;
    struct kiln_tokenizer *many;
    struct kiln_learned facts;
    CHECK_OK(kiln_learner_create(&how, &l, NULL), NULL);
    for (size_t i = 0; i < 3; i++) {
        CHECK_OK(kiln_learner_add(l, parts[i], strlen(parts[i]), NULL), NULL);
    }
    CHECK_OK(kiln_learner_finish(l, &many, NULL), NULL);
    struct kiln_tokenizer *one = learn(joined, sizeof joined - 1, 262, 1, &facts);
    CHECK_EQ(many->crc, one->crc);
    CHECK_EQ(kiln_learner_facts(l)->bytes, facts.bytes);
    kiln_learner_destroy(l);
    kiln_tokenizer_destroy(one);
    kiln_tokenizer_destroy(many);
}

/* SPDX-License-Identifier: MIT
 *
 * bench_bpe.c: how long a vocabulary takes to learn: bench_bpe [MB [VOCAB [THREADS [FILE]]]].
 *
 * The text is made up, the same every time, and like natural text where it matters: words of Zipf's
 * law out of a million, built of syllables, the frequent ones short; capitals, numbers, marks,
 * accents, paragraphs, documents. With FILE it is also written there, for other trainers.
 *
 * Seconds are those of a clock and of all processors together. Only the second kind means anything
 * while other programs run.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/random.h"
#include "kiln/text.h"

enum { WORDS = 1000000, SEED = 7, LONGEST_SENTENCE = 4096 };

struct text {
    char *bytes;
    size_t n, room;
    uint64_t drawn; /* random numbers so far */
};

static uint64_t draw(struct text *t, uint64_t below) {
    return kiln_random_bits(SEED, 0, t->drawn++) % below;
}

static void put(struct text *t, const char *piece) {
    const size_t size = strlen(piece);
    memcpy(t->bytes + t->n, piece, size);
    t->n += size;
}

/* Word number `rank` of the language. */
static void put_word(struct text *t, uint64_t rank, bool capital) {
    static const char *const onset[] = {"b", "c", "d", "f",  "g",  "h",  "l",  "m",  "n", "p",
                                        "r", "s", "t", "th", "sh", "st", "tr", "ch", "w", ""};
    static const char *const core[] = {"a", "e", "i", "o", "u", "ea", "ou", "ai", "\xC3\xA9", "y"};
    static const char *const coda[] = {"", "", "", "n", "r", "s", "t", "nd", "ng", "ck", "l", "ly"};
    const size_t from = t->n;
    size_t syllables = 1;
    for (uint64_t r = rank; r > 30; r /= 30) {
        syllables++;
    }
    for (size_t i = 0; i < syllables; i++) {
        const uint64_t bits = kiln_random_bits(SEED, 1 + i, rank);
        put(t, onset[bits % 20]);
        put(t, core[(bits >> 8) % (i == 0 ? 8 : 10)]);
        put(t, coda[(bits >> 16) % 12]);
    }
    if (capital && t->bytes[from] >= 'a' && t->bytes[from] <= 'z') {
        t->bytes[from] = (char)(t->bytes[from] - 'a' + 'A');
    }
}

static void put_sentence(struct text *t) {
    const uint64_t words = 4 + draw(t, 20);
    for (uint64_t i = 0; i < words; i++) {
        const uint64_t what = draw(t, 200);
        if (i > 0) {
            put(t, what == 0 ? " - " : what < 14 ? ", " : " ");
        }
        if (what == 20) {
            char number[24];
            snprintf(number, sizeof number, "%d", (int)draw(t, 2100));
            put(t, number);
            continue;
        }
        const double share = (double)draw(t, UINT64_C(1) << 32) / 4294967296.0;
        put_word(t, (uint64_t)pow(WORDS, share), i == 0 || what < 4);
        if (what == 30) {
            put(t, "'s");
        }
    }
    static const char *const ends[] = {". ", ". ", ". ", "? ", "! ", ".\n", ".\n\n", ".\" "};
    put(t, ends[draw(t, 8)]);
    if (draw(t, 150) == 0) {
        put(t, "\n<|endoftext|>\n");
    }
}

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static enum kiln_status learn(const struct text *t, const struct kiln_learn *how,
                              struct kiln_err *err) {
    struct kiln_learner *learner;
    struct kiln_tokenizer *tok;
    const double wall = seconds(CLOCK_MONOTONIC);
    const double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    KILN_TRY(kiln_learner_create(how, &learner, err));
    enum kiln_status status = kiln_learner_add(learner, t->bytes, t->n, err);
    const double counted = seconds(CLOCK_PROCESS_CPUTIME_ID);
    if (status == KILN_OK) {
        status = kiln_learner_finish(learner, &tok, err);
    }
    if (status == KILN_OK) {
        const struct kiln_learned *facts = kiln_learner_facts(learner);
        const double end = seconds(CLOCK_PROCESS_CPUTIME_ID);
        printf(
            "%-10s %5zu ids of %.0f MB: %.2f s, on processors %.2f s (counting %.2f, merging "
            "%.2f); %zu threads, %.1f M words, %.0f thousand different\n",
            how->kind == KILN_LEARN_BYTES ? "bytes" : "characters", how->vocab, (double)t->n / 1e6,
            seconds(CLOCK_MONOTONIC) - wall, end - cpu, counted - cpu, end - counted, how->threads,
            (double)facts->words / 1e6, (double)facts->different / 1e3);
        kiln_tokenizer_destroy(tok);
    }
    kiln_learner_destroy(learner);
    return status;
}

static bool write_text(const struct text *t, const char *path) {
    FILE *file = fopen(path, "wb");
    const bool written = file != NULL && fwrite(t->bytes, 1, t->n, file) == t->n;
    return (file == NULL || fclose(file) == 0) && written;
}

int main(int argc, char **argv) {
    const size_t bytes = (size_t)((argc > 1 ? atof(argv[1]) : 100) * 1e6);
    struct kiln_learn how = {.vocab = argc > 2 ? (size_t)atol(argv[2]) : 4096,
                             .threads = argc > 3 ? (size_t)atol(argv[3]) : 2,
                             .separator = "<|endoftext|>"};
    struct text t = {.room = bytes + LONGEST_SENTENCE};
    struct kiln_err err;
    t.bytes = kiln_alloc(t.room, 1);
    if (t.bytes == NULL) {
        fprintf(stderr, "bench_bpe: out of memory\n");
        return 1;
    }
    while (t.n < bytes) {
        put_sentence(&t);
    }
    if (argc > 4 && !write_text(&t, argv[4])) {
        perror(argv[4]);
        return 1;
    }
    for (how.kind = KILN_LEARN_BYTES; how.kind <= KILN_LEARN_CHARACTERS; how.kind++) {
        if (learn(&t, &how, &err) != KILN_OK) {
            fprintf(stderr, "bench_bpe: %s\n", err.message);
            return 1;
        }
    }
    kiln_free(t.bytes);
    return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * count_words.c: words are counted, in rounds: the caller's thread finds documents and cuts them,
 * the pool counts, the caller's thread adds up.
 */
#include "text/count_words.h"

#include <string.h>

#include "base/mem.h"
#include "text/splits.h"
#include "text/utf8.h"

enum {
    PIECE_BYTES = 1 << 20,  /* documents and parts of them are put together up to this */
    TASKS_A_THREAD = 4,     /* in a round, so that threads end it together */
    LONGEST_WORD = 1024,    /* by expression, as bpe.h asks for */
    MOST_BYTES = 128 << 20, /* of different words; what learning needs is some ten times that */
};

/* A document or a part of one. */
struct kiln_count_piece {
    const char *text;
    size_t size;
    bool begins; /* a document begins here */
};

struct kiln_count_task {
    size_t first, n; /* pieces */
    struct kiln_counted found;
    struct kiln_splits splits;
    enum kiln_status status;
    struct kiln_err err;
};

#define NO_MEMORY "counting words: out of memory"

/* ---- one table ------------------------------------------------------------------------------ */

static bool count_more(struct kiln_counted *c, uint32_t at, uint64_t times) {
    if (at == KILN_NO_ID || !kiln_one_more(&c->count, at, &c->room, sizeof *c->count)) {
        return false;
    }
    c->count[at] += times;
    return true;
}

static void counted_clear(struct kiln_counted *c) {
    if (c->room > 0) {
        memset(c->count, 0, c->words.n * sizeof *c->count);
    }
    kiln_strings_clear(&c->words);
    c->not_utf8 = 0;
}

void kiln_counted_fini(struct kiln_counted *c) {
    kiln_strings_fini(&c->words);
    kiln_free(c->count);
    *c = (struct kiln_counted){0};
}

/* ---- words of a piece ----------------------------------------------------------------------- */

/* Bytes of other scripts count as letters. */
static bool is_letter(char c) {
    const unsigned char u = (unsigned char)c;
    return (u >= 'a' && u <= 'z') || (u >= 'A' && u <= 'Z') || u >= 0x80;
}

static size_t word_length(const char *text, size_t size) {
    size_t n = text[0] == ' ' ? 1 : 0;
    if (n == size || text[n] == ' ') {
        return n;
    }
    const bool letters = is_letter(text[n]);
    while (n < size && text[n] != ' ' && is_letter(text[n]) == letters) {
        const size_t next = kiln_character(text + n, size - n);
        if (n + next > KILN_LONGEST_CHARACTERS) {
            break;
        }
        n += next;
    }
    return n;
}

/* Words for characters as symbols. The encoder puts a blank before a document. */
static bool count_by_characters(struct kiln_counted *found, const struct kiln_count_piece *piece) {
    size_t at = 0;
    if (piece->begins) {
        char first[KILN_LONGEST_CHARACTERS + 2] = " ";
        at = word_length(piece->text, piece->size);
        memcpy(first + 1, piece->text, at);
        if (!count_more(found, kiln_strings_put_copy(&found->words, first, at + 1), 1)) {
            return false;
        }
    }
    while (at < piece->size) {
        const size_t length = word_length(piece->text + at, piece->size - at);
        if (!count_more(found, kiln_strings_put(&found->words, piece->text + at, length), 1)) {
            return false;
        }
        at += length;
    }
    return true;
}

/* One word; a longer one than others know of is cut. */
static bool count_word(struct kiln_counted *found, size_t longest, const char *word, size_t size) {
    for (size_t at = 0; at < size; at += longest) {
        const size_t part = kiln_least(longest, size - at);
        if (!count_more(found, kiln_strings_put(&found->words, word + at, part), 1)) {
            return false;
        }
    }
    return true;
}

/* Words by the patterns, as the encoder will cut them: a byte of no character stands alone, and
 * the patterns see nothing beyond it. */
static enum kiln_status count_by_patterns(struct kiln_count_task *task, size_t longest,
                                          const struct kiln_count_piece *piece,
                                          struct kiln_err *err) {
    size_t bad = kiln_utf8_bad_at(piece->text, piece->size, 0);
    for (size_t at = 0; at < piece->size;) {
        const char *text = piece->text + at;
        if (at == bad) {
            task->found.not_utf8++;
            KILN_REQUIRE(count_word(&task->found, longest, text, 1), err, KILN_ENOMEM, NO_MEMORY);
            bad = kiln_utf8_bad_at(piece->text, piece->size, ++at);
            continue;
        }
        size_t from, to;
        kiln_splits_begin(&task->splits, text, bad - at);
        while (kiln_splits_next(&task->splits, &from, &to)) {
            KILN_REQUIRE(count_word(&task->found, longest, text + from, to - from), err,
                         KILN_ENOMEM, NO_MEMORY);
        }
        KILN_REQUIRE(!task->splits.failed, err, KILN_EINPUT,
                     "counting words: the pattern that cuts them does not come to an end in a "
                     "text of %zu bytes",
                     bad - at);
        at = bad;
    }
    return KILN_OK;
}

static void count_task(void *context, size_t number, size_t thread) {
    (void)thread;
    const struct kiln_word_counter *c = context;
    struct kiln_count_task *task = &c->tasks[number];
    task->status = KILN_OK;
    for (size_t i = 0; i < task->n && task->status == KILN_OK; i++) {
        const struct kiln_count_piece *piece = &c->pieces[task->first + i];
        if (c->rule != NULL) {
            task->status = count_by_patterns(task, c->longest, piece, &task->err);
        } else if (!count_by_characters(&task->found, piece)) {
            task->status = KILN_FAIL(&task->err, KILN_ENOMEM, NO_MEMORY);
        }
    }
}

/* ---- pieces --------------------------------------------------------------------------------- */

static bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* May a document be cut before text[at]? A word ends there, whatever the rule: letters end before a
 * blank, which the next letters take; a newline ends what it stands in unless blanks come behind
 * it, and a letter or another script's character that is no blank comes. (The blanks beyond ASCII
 * begin with C2, E1, E2 or E3.) */
static bool may_cut(const char *text, size_t at) {
    if (text[at] == ' ') {
        return is_ascii_letter(text[at - 1]) && is_ascii_letter(text[at + 1]);
    }
    const unsigned char u = (unsigned char)text[at];
    return text[at - 1] == '\n' &&
           (is_ascii_letter(text[at]) || (u >= 0xC3 && u <= 0xF4 && !(u >= 0xE1 && u <= 0xE3)));
}

/* How much of a document is taken when `enough` are. */
static size_t cut_length(const char *text, size_t size, size_t enough) {
    for (size_t at = enough; at > 0 && at + 1 < size; at++) {
        if (may_cut(text, at)) {
            return at;
        }
    }
    return size;
}

static bool more_pieces(struct kiln_word_counter *c) {
    if (c->n_pieces < c->pieces_room) {
        return true;
    }
    const size_t room = c->pieces_room > 0 ? c->pieces_room * 2 : 1024;
    void *grown = kiln_realloc(c->pieces, c->pieces_room, room, sizeof *c->pieces);
    if (grown == NULL) {
        return false;
    }
    c->pieces = grown;
    c->pieces_room = room;
    return true;
}

/* Fill one task; *rest is what is left of a document. False when out of memory. */
static bool fill_task(struct kiln_word_counter *c, struct kiln_documents *documents,
                      struct kiln_count_piece *rest) {
    struct kiln_count_task *task = &c->tasks[c->n_tasks];
    size_t bytes = 0;
    task->first = c->n_pieces;
    counted_clear(&task->found);
    while (bytes < c->piece_bytes) {
        if (rest->size == 0) {
            rest->begins = true;
            if (!kiln_documents_next(documents, &rest->text, &rest->size)) {
                break;
            }
        }
        const size_t taken = cut_length(rest->text, rest->size, c->piece_bytes - bytes);
        if (!more_pieces(c)) {
            return false;
        }
        c->pieces[c->n_pieces++] = (struct kiln_count_piece){rest->text, taken, rest->begins};
        *rest = (struct kiln_count_piece){rest->text + taken, rest->size - taken, false};
        bytes += taken;
    }
    task->n = c->n_pieces - task->first;
    c->text_bytes += bytes;
    c->n_tasks += task->n > 0;
    return true;
}

/* ---- rounds --------------------------------------------------------------------------------- */

/* What a task found goes into the table of all. */
static enum kiln_status add_up(struct kiln_word_counter *c, const struct kiln_count_task *task,
                               struct kiln_err *err) {
    if (task->status != KILN_OK) {
        if (err != NULL) {
            *err = task->err;
        }
        return task->status;
    }
    for (uint32_t i = 0; i < task->found.words.n; i++) {
        const struct kiln_string *word = &task->found.words.item[i];
        const uint64_t times = task->found.count[i];
        const bool full = c->all.words.kept_bytes >= c->most_bytes;
        const uint32_t at = full ? kiln_strings_find(&c->all.words, word->bytes, word->size)
                                 : kiln_strings_put_copy(&c->all.words, word->bytes, word->size);
        c->counted += times;
        if (full && at == KILN_NO_ID) {
            c->left_out += times;
        } else if (!count_more(&c->all, at, times)) {
            return KILN_FAIL(err, KILN_ENOMEM, NO_MEMORY);
        }
    }
    c->all.not_utf8 += task->found.not_utf8;
    return KILN_OK;
}

enum kiln_status kiln_word_counter_add(struct kiln_word_counter *c,
                                       struct kiln_documents *documents, struct kiln_err *err) {
    struct kiln_count_piece rest = {0};
    do {
        c->n_pieces = c->n_tasks = 0;
        bool more = true;
        while (more && c->n_tasks < c->tasks_room) {
            const size_t before = c->n_tasks;
            if (!fill_task(c, documents, &rest)) {
                return KILN_FAIL(err, KILN_ENOMEM, NO_MEMORY);
            }
            more = c->n_tasks > before;
        }
        kiln_pool_run(c->pool, c->n_tasks, count_task, c);
        for (size_t i = 0; i < c->n_tasks; i++) {
            KILN_TRY(add_up(c, &c->tasks[i], err));
        }
    } while (c->n_tasks > 0);
    return KILN_OK;
}

enum kiln_status kiln_word_counter_init(struct kiln_word_counter *c, struct kiln_pool *pool,
                                        const struct kiln_tokenizer *rule, struct kiln_err *err) {
    *c = (struct kiln_word_counter){.pool = pool,
                                    .rule = rule,
                                    .piece_bytes = PIECE_BYTES,
                                    .longest = LONGEST_WORD,
                                    .most_bytes = MOST_BYTES};
    c->tasks_room = kiln_pool_threads(pool) * TASKS_A_THREAD;
    c->tasks = kiln_alloc(c->tasks_room, sizeof *c->tasks);
    enum kiln_status status = c->tasks != NULL ? KILN_OK : KILN_FAIL(err, KILN_ENOMEM, NO_MEMORY);
    for (size_t i = 0; status == KILN_OK && rule != NULL && i < c->tasks_room; i++) {
        status = kiln_splits_open(&c->tasks[i].splits, rule, err);
    }
    if (status != KILN_OK) {
        kiln_word_counter_fini(c);
    }
    return status;
}

void kiln_word_counter_fini(struct kiln_word_counter *c) {
    for (size_t i = 0; c->tasks != NULL && i < c->tasks_room; i++) {
        if (c->rule != NULL) {
            kiln_splits_close(&c->tasks[i].splits);
        }
        kiln_counted_fini(&c->tasks[i].found);
    }
    kiln_free(c->tasks);
    kiln_free(c->pieces);
    kiln_counted_fini(&c->all);
    *c = (struct kiln_word_counter){0};
}

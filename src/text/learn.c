/* SPDX-License-Identifier: MIT
 *
 * learn.c: a vocabulary is learned from one text or many: their words are counted as they come,
 * then merged by the front end of the kind that was asked for.
 */
#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "text/source.h"
#include "text/bpe.h"
#include "text/count_words.h"

struct kiln_learner {
    struct kiln_learn how;
    struct kiln_pool *pool;
    struct kiln_tokenizer *rule; /* NULL for characters */
    struct kiln_word_counter counter;
    struct kiln_learned facts;
};

/* What no vocabulary of the kind is without. */
static size_t least_ids(enum kiln_learn_kind kind) {
    return kind == KILN_LEARN_BYTES ? KILN_LEARN_LEAST_BYTES : KILN_ID_LEARNED + 1;
}

static enum kiln_status open_parts(struct kiln_learner *l, struct kiln_err *err) {
    const size_t threads = l->how.threads > 0 ? l->how.threads : kiln_cpu_count();
    KILN_TRY(kiln_pool_create(threads, &l->pool, err));
    if (l->how.kind == KILN_LEARN_BYTES) {
        KILN_TRY(kiln_byte_rule(&l->rule, err));
    }
    return kiln_word_counter_init(&l->counter, l->pool, l->rule, err);
}

enum kiln_status kiln_learner_create(const struct kiln_learn *how, struct kiln_learner **out,
                                     struct kiln_err *err) {
    *out = NULL;
    const bool bytes = how->kind == KILN_LEARN_BYTES;
    KILN_REQUIRE(how->vocab >= least_ids(how->kind) && how->vocab <= KILN_MAX_IDS, err, KILN_EUSAGE,
                 "a vocabulary of %zu cannot be learned: give %zu to %zu (%s)", how->vocab,
                 least_ids(how->kind), KILN_MAX_IDS,
                 bytes ? "<|endoftext|>, 256 bytes, and what is learned"
                       : "3 controls, 256 bytes, the blank, and what is learned");
    struct kiln_learner *l = kiln_alloc(1, sizeof *l);
    KILN_REQUIRE(l != NULL, err, KILN_ENOMEM, "learning a vocabulary: out of memory");
    l->how = *how;
    const enum kiln_status status = open_parts(l, err);
    if (status != KILN_OK) {
        kiln_learner_destroy(l);
        return status;
    }
    *out = l;
    return KILN_OK;
}

void kiln_learner_destroy(struct kiln_learner *l) {
    if (l != NULL) {
        kiln_word_counter_fini(&l->counter);
        kiln_tokenizer_destroy(l->rule);
        kiln_pool_destroy(l->pool);
        kiln_free(l);
    }
}

enum kiln_status kiln_learner_add(struct kiln_learner *l, const char *text, size_t size,
                                  struct kiln_err *err) {
    struct kiln_documents documents;
    kiln_documents_init(&documents, text, size, l->how.separator, l->how.blank_lines);
    return kiln_word_counter_add(&l->counter, &documents, err);
}

/* Of a compressed text, JSONL, or one that is not plain UTF-8: its documents as they come. */
static enum kiln_status add_pieces(struct kiln_learner *l, const char *path, struct kiln_err *err) {
    const struct kiln_tokenize_options text = {.blank_lines = l->how.blank_lines};
    const struct kiln_source_options how = {.tokenize = &text};
    struct kiln_source *source;
    KILN_TRY(kiln_source_open(path, &how, &source, err));
    struct kiln_piece piece;
    bool more = true;
    enum kiln_status status = KILN_OK;
    while (status == KILN_OK && more) {
        status = kiln_source_next(source, &piece, &more, err);
        if (status == KILN_OK && more) {
            status = kiln_learner_add(l, piece.text, piece.size, err);
        }
    }
    const char *encoding = kiln_source_report(source)->encoding;
    l->facts.encoding = encoding ? encoding : l->facts.encoding;
    kiln_source_close(source);
    return status;
}

enum kiln_status kiln_learner_add_file(struct kiln_learner *l, const char *path,
                                       struct kiln_err *err) {
    struct kiln_map map;
    if (kiln_source_is_packed(path)) {
        return add_pieces(l, path, err);
    }
    KILN_TRY(kiln_map_open(&map, path, err));
    const enum kiln_status status = kiln_learner_add(l, (const char *)map.data, map.size, err);
    kiln_map_close(&map);
    return status;
}

enum kiln_status kiln_learner_finish(struct kiln_learner *l, struct kiln_tokenizer **out,
                                     struct kiln_err *err) {
    const struct kiln_word_counter *c = &l->counter;
    l->facts = (struct kiln_learned){.bytes = c->text_bytes,
                                     .words = c->counted,
                                     .different = c->all.words.n,
                                     .left_out = c->left_out,
                                     .not_utf8 = c->all.not_utf8,
                                     .encoding = l->facts.encoding};
    struct kiln_counted words = l->counter.all;
    l->counter.all = (struct kiln_counted){0};
    return l->how.kind == KILN_LEARN_BYTES
               ? kiln_learn_bytes(&words, l->how.vocab, &l->facts, out, err)
               : kiln_learn_characters(&words, l->how.vocab, &l->facts, out, err);
}

const struct kiln_learned *kiln_learner_facts(const struct kiln_learner *l) { return &l->facts; }

enum kiln_status kiln_tokenizer_train(const char *text, size_t size, const char *separator,
                                      size_t vocab, struct kiln_tokenizer **out,
                                      struct kiln_err *err) {
    const struct kiln_learn how = {
        .kind = KILN_LEARN_CHARACTERS, .vocab = vocab, .threads = 1, .separator = separator};
    struct kiln_learner *l;
    *out = NULL;
    KILN_TRY(kiln_learner_create(&how, &l, err));
    enum kiln_status status = kiln_learner_add(l, text, size, err);
    if (status == KILN_OK) {
        status = kiln_learner_finish(l, out, err);
    }
    kiln_learner_destroy(l);
    return status;
}

/* SPDX-License-Identifier: MIT
 *
 * fuzz_learn.c: any bytes as a text that a vocabulary is learned from, of either kind; the text is
 * then encoded with it and comes back. Cut into other pieces, with other threads, it teaches the
 * same.
 */
#include <stdlib.h>
#include <string.h>

#include "kiln/text.h"
#include "text/text_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* NULL when the text teaches too little. */
static struct kiln_tokenizer *learn(const char *text, size_t size, enum kiln_learn_kind kind,
                                    size_t vocab, size_t threads) {
    const struct kiln_learn how = {
        .kind = kind, .vocab = vocab, .threads = threads, .separator = KILN_ENDOFTEXT};
    struct kiln_learner *learner;
    struct kiln_tokenizer *tok = NULL;
    struct kiln_err err;
    if (kiln_learner_create(&how, &learner, &err) != KILN_OK ||
        kiln_learner_add(learner, text, size, &err) != KILN_OK) {
        abort();
    }
    const enum kiln_status status = kiln_learner_finish(learner, &tok, &err);
    if (status != KILN_OK && status != KILN_EINPUT) {
        abort();
    }
    kiln_learner_destroy(learner);
    return status == KILN_OK ? tok : NULL;
}

/* Marks decode to nothing. */
static size_t mark_size(const struct kiln_tokenizer *tok, uint32_t id) {
    return id == kiln_tokenizer_eos(tok) && kiln_tokenizer_bos(tok) == KILN_NO_ID
               ? sizeof KILN_ENDOFTEXT - 1
               : 0;
}

static void round_trip(const struct kiln_tokenizer *tok, const char *text, size_t size) {
    struct kiln_ids ids = {0};
    size_t at = 0;
    /* behind BOS, for the blank in front goes where it follows that */
    const bool bos = kiln_tokenizer_bos(tok) != KILN_NO_ID;
    if (kiln_tokenizer_encode(tok, text, size, bos, &ids, NULL) != KILN_OK) {
        abort();
    }
    for (size_t i = 0; i < ids.n; i++) {
        size_t n;
        const char *piece =
            kiln_tokenizer_decode(tok, i > 0 ? ids.id[i - 1] : KILN_NO_ID, ids.id[i], &n);
        if (n > size - at || memcmp(text + at, piece, n) != 0) {
            abort();
        }
        at += n > 0 ? n : mark_size(tok, ids.id[i]);
    }
    if (at != size) {
        abort();
    }
    kiln_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    for (enum kiln_learn_kind kind = KILN_LEARN_BYTES; kind <= KILN_LEARN_CHARACTERS; kind++) {
        const size_t vocab = 261 + (size > 0 ? data[0] % 64 : 0);
        struct kiln_tokenizer *one = learn(text, size, kind, vocab, 1);
        struct kiln_tokenizer *two = learn(text, size, kind, vocab, 2);
        if ((one == NULL) != (two == NULL) || (one != NULL && one->crc != two->crc)) {
            abort();
        }
        if (one != NULL) {
            round_trip(one, text, size);
        }
        kiln_tokenizer_destroy(one);
        kiln_tokenizer_destroy(two);
    }
    return 0;
}

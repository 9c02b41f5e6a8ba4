/* SPDX-License-Identifier: MIT
 *
 * generate.c: text from a model, as llama2.c's run makes it: BOS and the prompt, then one token
 * after another until BOS or the mark of the end is drawn.
 */
#include "kiln/generate.h"

#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "infer/sample.h"
#include "infer/session.h"
#include "text/chat.h"
#include "text/text_int.h"
#include "text/utf8.h"

/* No sign of an answer's end is longer. */
enum { STOP_BYTES = 64 };

/* What a generation needs beside the session. */
struct telling {
    struct kiln_session *session;
    const struct kiln_tokenizer *tokenizer;
    struct kiln_sampler sampler;
    float *logits;
    struct kiln_ids prompt;
    size_t limit; /* positions */
    bool chat;
    uint32_t turn_end[2]; /* of chat: ids that end the answer, or KILN_NO_ID */
    char *stop;           /* of chat: text that ends it; NULL, or "": none */
    size_t n_stop;        /* bytes of it that were made and not told yet */
    kiln_piece_fn piece;
    void *context;
    char held[4]; /* the beginning of a character whose other bytes are ids to come */
    size_t n_held;
};

/* A byte of its own that a terminal would obey or not show. llama2.c leaves these out too; it also
 * leaves out bytes from 0x80, which here are parts of UTF-8 characters and are kept. */
static bool is_control(const char *piece, size_t size) {
    unsigned char c = (unsigned char)piece[0];
    return size == 1 && (c < ' ' || c == 0x7f) && !(c >= '\t' && c <= '\r');
}

/* Is EOS the mark of the end? llama2.c's run never stops at EOS and prints its piece, which matters
 * where a tokenizer.bin has text of its own under that id and not "</s>": there it is a token like
 * others here too. */
static bool ends_at_eos(const struct kiln_tokenizer *tokenizer) {
    size_t size;
    if (tokenizer->parts.spelling != KILN_SPELL_LLAMA2C) {
        return true;
    }
    const char *piece = kiln_piece(&tokenizer->parts.v, KILN_ID_EOS, &size);
    return size == 0 || memmem(piece, size, "</s>", 4) != NULL;
}

/* Finish the character that is held, byte by byte; the rest of the piece is left. False when the
 * caller has enough. */
static bool tell_held(struct telling *t, const char **piece, size_t *size) {
    while (t->n_held > 0 && *size > 0) {
        if (((unsigned char)**piece & 0xC0) == 0x80) {
            t->held[t->n_held++] = *(*piece)++;
            (*size)--;
        } else if (kiln_utf8_unfinished(t->held, t->n_held) == 0) {
            break;
        }
        bool whole = kiln_utf8_unfinished(t->held, t->n_held) == 0;
        if (whole || (*size > 0 && ((unsigned char)**piece & 0xC0) != 0x80)) {
            size_t n = t->n_held;
            t->n_held = 0;
            if (!t->piece(t->context, t->held, n)) {
                return false;
            }
        }
    }
    return true;
}

/* Hand bytes to the caller, whole characters only: an id may be a part of one. */
static bool tell_bytes(struct telling *t, const char *piece, size_t size) {
    if (!tell_held(t, &piece, &size)) {
        return false;
    }
    size_t unfinished = size > 0 ? kiln_utf8_unfinished(piece, size) : 0;
    if (unfinished > 0) {
        memcpy(t->held, piece + size - unfinished, unfinished);
        t->n_held = unfinished;
        size -= unfinished;
    }
    return size == 0 || t->piece(t->context, piece, size);
}

/* The longest beginning of `stop` that `text` ends with, shorter than all of it. */
static size_t begun(const char *stop, const char *text, size_t size) {
    size_t n = strlen(stop) - 1 < size ? strlen(stop) - 1 : size;
    while (n > 0 && memcmp(stop, text + size - n, n) != 0) {
        n--;
    }
    return n;
}

/* The same up to the text that ends an answer, which is not told; false behind it, too. What may be
 * its beginning waits. */
static bool tell_answer(struct telling *t, const char *piece, size_t size) {
    const char *stop = t->stop != NULL ? t->stop : "";
    const size_t length = strlen(stop);
    if (length == 0) {
        return tell_bytes(t, piece, size);
    }
    for (size_t i = 0; i < size; i++) {
        char seen[STOP_BYTES + 1];
        memcpy(seen, stop, t->n_stop);
        seen[t->n_stop] = piece[i];
        const size_t n = t->n_stop + 1;
        if (n == length && memcmp(seen, stop, n) == 0) {
            t->n_stop = 0;
            return false;
        }
        t->n_stop = begun(stop, seen, n);
        if (n > t->n_stop && !tell_bytes(t, seen, n - t->n_stop)) {
            return false;
        }
    }
    return true;
}

/* Hand a token's text to the caller; false when the caller has enough. */
static bool tell(struct telling *t, uint32_t previous, uint32_t id) {
    size_t size;
    const char *piece = kiln_tokenizer_decode(t->tokenizer, previous, id, &size);
    if (id == KILN_ID_EOS && t->tokenizer->parts.spelling == KILN_SPELL_LLAMA2C) {
        piece = kiln_piece(&t->tokenizer->parts.v, id, &size);
    }
    return size == 0 || is_control(piece, size) || tell_answer(t, piece, size);
}

/* Tell the prompt, as far as there are positions: false when the caller has enough. */
static bool tell_prompt(struct telling *t) {
    uint32_t previous = kiln_tokenizer_begin(t->tokenizer);
    for (size_t i = previous != KILN_NO_ID; !t->chat && i < t->prompt.n && i <= t->limit; i++) {
        if (!tell(t, previous, t->prompt.id[i])) {
            return false;
        }
        previous = t->prompt.id[i];
    }
    return true;
}

/* What is held when nothing follows. */
static void tell_rest(struct telling *t) {
    if (t->n_stop > 0) {
        (void)tell_bytes(t, t->stop, t->n_stop);
    }
    if (t->n_held > 0) {
        (void)t->piece(t->context, t->held, t->n_held);
        t->n_held = 0;
    }
}

static bool ends_turn(const struct telling *t, uint32_t id) {
    return t->chat && (id == t->turn_end[0] || id == t->turn_end[1]);
}

static enum kiln_status run(struct telling *t, struct kiln_generate_result *result,
                            struct kiln_err *err) {
    const uint32_t bos = kiln_tokenizer_bos(t->tokenizer);
    const uint32_t end = ends_at_eos(t->tokenizer) ? kiln_tokenizer_eos(t->tokenizer) : bos;
    result->tokens = t->prompt.n < t->limit ? t->prompt.n : t->limit;
    if (!tell_prompt(t) || t->prompt.n > t->limit) {
        return KILN_OK;
    }
    KILN_TRY(kiln_session_feed(t->session, t->prompt.id, t->prompt.n, t->logits, err));
    double start = kiln_now_s();
    uint32_t token = t->prompt.id[t->prompt.n - 1];
    for (;;) {
        uint32_t next = kiln_sample(&t->sampler, t->logits, result->tokens - 1);
        if (next == bos || next == end || ends_turn(t, next) || !tell(t, token, next) ||
            result->tokens == t->limit) {
            break;
        }
        token = next;
        KILN_TRY(kiln_session_feed(t->session, &token, 1, t->logits, err));
        result->tokens++;
    }
    tell_rest(t);
    double seconds = kiln_now_s() - start;
    result->tokens_per_s = seconds > 0.0 ? (double)(result->tokens - t->prompt.n) / seconds : 0.0;
    return KILN_OK;
}

/* The id of a text that is one token; KILN_NO_ID where it is not. */
static enum kiln_status id_of(const struct telling *t, const struct kiln_chat *chat,
                              const char *text, uint32_t *out, struct kiln_err *err) {
    struct kiln_ids ids = {0};
    *out = KILN_NO_ID;
    if (text != NULL && text[0] != '\0') {
        KILN_TRY(kiln_chat_encode(chat, t->tokenizer, text, strlen(text), false, &ids, err));
        *out = ids.n == 1 ? ids.id[0] : KILN_NO_ID;
        kiln_ids_free(&ids);
    }
    return KILN_OK;
}

/* The prompt as the template writes it, and what ends an answer: the end of a sequence, what the
 * template writes behind one, as an id or as text. */
static enum kiln_status prepare_chat(struct telling *t, const struct kiln_generate_options *options,
                                     struct kiln_err *err) {
    const struct kiln_chat *chat = options->chat;
    char *text;
    size_t size;
    t->chat = true;
    KILN_TRY(kiln_chat_end(chat, options->system, &t->stop, err));
    if (strlen(t->stop) > STOP_BYTES) {
        t->stop[0] = '\0'; /* no sign, but a text of its own */
    }
    KILN_TRY(id_of(t, chat, kiln_chat_eos(chat), &t->turn_end[0], err));
    KILN_TRY(id_of(t, chat, t->stop, &t->turn_end[1], err));
    KILN_TRY(kiln_chat_prompt(chat, options->system, options->prompt ? options->prompt : "", &text,
                              &size, err));
    const enum kiln_status status =
        kiln_chat_encode(chat, t->tokenizer, text, size, true, &t->prompt, err);
    kiln_chat_free(text);
    KILN_TRY(status);
    KILN_REQUIRE(t->prompt.n > 0, err, KILN_EINPUT, "the chat template writes no prompt");
    return KILN_OK;
}

/* Everything that can be refused, before anything is computed. */
static enum kiln_status prepare(struct telling *t, const struct kiln_generate_options *options,
                                struct kiln_err *err) {
    size_t vocab = kiln_session_table(t->session)->dims.vocab, seq = kiln_session_seq(t->session);
    const char *text = options->prompt ? options->prompt : "";
    KILN_TRY(kiln_tokenizer_fits(t->tokenizer, vocab, err));
    KILN_TRY(kiln_sampler_open(&t->sampler, vocab, options->temperature, options->top_p,
                               options->seed, err));
    KILN_TRY(options->chat
                 ? prepare_chat(t, options, err)
                 : kiln_tokenizer_encode(t->tokenizer, text, strlen(text), true, &t->prompt, err));
    KILN_REQUIRE(t->prompt.n > 0, err, KILN_EINPUT,
                 "the tokenizer %s has no token that begins a text; give a prompt",
                 kiln_tokenizer_name(t->tokenizer));
    KILN_REQUIRE(t->prompt.n <= seq, err, KILN_EINPUT,
                 "the prompt is %zu tokens, the model reads at most %zu; shorten the prompt",
                 t->prompt.n, seq);
    const size_t unseen = options->chat ? t->prompt.n : 0; /* nobody knows how long the prompt is */
    t->limit = options->tokens && options->tokens < seq - unseen ? options->tokens + unseen : seq;
    t->logits = kiln_alloc(vocab, sizeof *t->logits);
    KILN_REQUIRE(t->logits, err, KILN_ENOMEM, "no memory for the scores of %zu tokens", vocab);
    return KILN_OK;
}

enum kiln_status kiln_session_generate(struct kiln_session *session,
                                       const struct kiln_tokenizer *tokenizer,
                                       const struct kiln_generate_options *options,
                                       kiln_piece_fn piece, void *context,
                                       struct kiln_generate_result *result, struct kiln_err *err) {
    struct kiln_generate_result unasked = {0};
    result = result ? result : &unasked;
    *result = (struct kiln_generate_result){0};
    struct telling telling = {
        .session = session, .tokenizer = tokenizer, .piece = piece, .context = context};
    kiln_session_reset(session);
    enum kiln_status status = prepare(&telling, options, err);
    if (status == KILN_OK) {
        status = run(&telling, result, err);
    }
    kiln_sampler_close(&telling.sampler);
    kiln_ids_free(&telling.prompt);
    kiln_chat_free(telling.stop);
    kiln_free(telling.logits);
    return status;
}

enum kiln_status kiln_generate(const struct kiln_table *table, const float *weights,
                               const struct kiln_tokenizer *tokenizer,
                               const struct kiln_generate_options *options, kiln_piece_fn piece,
                               void *context, struct kiln_generate_result *result,
                               struct kiln_err *err) {
    struct kiln_pool *pool = NULL;
    struct kiln_session *session = NULL;
    size_t threads = options->threads ? options->threads : kiln_cpu_count();
    KILN_TRY(kiln_pool_create(threads, &pool, err));
    enum kiln_status status = kiln_session_open(
        table, weights, pool, &(struct kiln_session_options){.precision = options->precision},
        &session, err);
    if (status == KILN_OK) {
        status = kiln_session_generate(session, tokenizer, options, piece, context, result, err);
    }
    kiln_session_close(session);
    kiln_pool_destroy(pool);
    return status;
}

/* SPDX-License-Identifier: MIT
 *
 * jsonl.c: documents of a JSONL file: a JSON object a line, with `text` or with `messages`.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "text/chat.h"
#include "text/source.h"
#include "text/text_int.h"

/* ---- lines -------------------------------------------------------------------------------------
 */

/* The next line, without its end; false at the end of the file. */
static enum kiln_status take_line(struct kiln_source *s, const char **line, size_t *size,
                                  bool *more, struct kiln_err *err) {
    size_t looked = 0;
    for (;;) {
        const size_t n = s->n - s->at - looked; /* 0 before the first fill: there is no buffer */
        const char *end = n > 0 ? memchr(s->buffer + s->at + looked, '\n', n) : NULL;
        if (end != NULL || s->ended) {
            *line = s->buffer + s->at;
            *size = end ? (size_t)(end - *line) : s->n - s->at;
            *more = end != NULL || *size > 0;
            s->at += *size + (end != NULL);
            s->line++;
            return KILN_OK;
        }
        looked = s->n - s->at;
        KILN_REQUIRE(looked < KILN_SOURCE_LINE, err, KILN_EINPUT,
                     "text %s line %" PRIu64 ": longer than %d MB; a line is one object of JSON",
                     s->path, s->line + 1, KILN_SOURCE_LINE >> 20);
        KILN_TRY(kiln_source_fill(s, err));
    }
}

static bool is_empty(const char *line, size_t size) {
    while (size > 0 &&
           (line[size - 1] == ' ' || line[size - 1] == '\t' || line[size - 1] == '\r')) {
        size--;
    }
    return size == 0;
}

/* ---- objects -----------------------------------------------------------------------------------
 */

static enum kiln_status wrong(const struct kiln_source *s, struct kiln_err *err, const char *what) {
    return KILN_FAIL(err, KILN_EINPUT,
                     "text %s line %" PRIu64
                     ": %s; mend the line, or leave such lines out with "
                     "--skip-bad",
                     s->path, s->line, what);
}

static enum kiln_status parse(struct kiln_source *s, const char *line, size_t size,
                              struct kiln_err *err) {
    json_error_t error;
    char what[300];
    json_decref(s->object);
    s->object = json_loadb(line, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (s->object == NULL) {
        snprintf(what, sizeof what, "no JSON: %.200s, at byte %d", error.text, error.position);
        return wrong(s, err, what);
    }
    return json_is_object(s->object)
               ? KILN_OK
               : wrong(s, err, "no JSON object; a line is {\"text\": ...} or {\"messages\": ...}");
}

static enum kiln_status plain(struct kiln_source *s, const json_t *text, struct kiln_piece *piece,
                              struct kiln_err *err) {
    if (!json_is_string(text)) {
        return wrong(s, err, "\"text\" is no string");
    }
    *piece = (struct kiln_piece){
        .text = json_string_value(text), .size = json_string_length(text), .begins = true};
    return KILN_OK;
}

static enum kiln_status conversation(struct kiln_source *s, struct kiln_piece *piece,
                                     struct kiln_err *err) {
    const struct kiln_chat *chat = s->options.tokenize ? s->options.tokenize->chat : NULL;
    struct kiln_err inner;
    KILN_REQUIRE(chat, err, KILN_EUSAGE,
                 "text %s line %" PRIu64
                 ": a conversation (\"messages\"), and no chat template: the model has none; name "
                 "one with --chat-template FILE",
                 s->path, s->line);
    if (kiln_chat_usable(chat, &inner) != KILN_OK) { /* no line's fault: none is left out for it */
        const enum kiln_status code = inner.code == KILN_EINPUT ? KILN_EUNSUPPORTED : inner.code;
        return KILN_FAIL(err, code, "text %s line %" PRIu64 ": a conversation: %s", s->path,
                         s->line, inner.message);
    }
    kiln_rendered_free(&s->rendered);
    if (kiln_chat_answers(chat, s->object, &s->rendered, &s->spans, &s->n_spans, &inner) !=
        KILN_OK) {
        return inner.code == KILN_EINPUT ? wrong(s, err, inner.message)
                                         : KILN_FAIL(err, inner.code, "%s", inner.message);
    }
    *piece = (struct kiln_piece){.text = s->rendered.text,
                                 .size = s->rendered.size,
                                 .begins = true,
                                 .chat = true,
                                 .counted = s->spans,
                                 .n_counted = s->n_spans};
    return KILN_OK;
}

static enum kiln_status read_object(struct kiln_source *s, const char *line, size_t size,
                                    struct kiln_piece *piece, struct kiln_err *err) {
    KILN_TRY(parse(s, line, size, err));
    const json_t *text = json_object_get(s->object, "text");
    const json_t *messages = json_object_get(s->object, "messages");
    if ((text == NULL) == (messages == NULL)) {
        return wrong(s, err,
                     text ? "both \"text\" and \"messages\": which of them?"
                          : "neither \"text\" nor \"messages\" in the object");
    }
    return text ? plain(s, text, piece, err) : conversation(s, piece, err);
}

/* With skip_bad a line that cannot be used is counted, and the first one told. */
enum kiln_status kiln_source_next_line(struct kiln_source *s, struct kiln_piece *piece, bool *more,
                                       struct kiln_err *err) {
    const char *line = NULL;
    size_t size = 0;
    struct kiln_err inner;
    for (;;) {
        KILN_TRY(take_line(s, &line, &size, more, err));
        if (!*more) {
            return KILN_OK;
        }
        if (is_empty(line, size)) {
            continue;
        }
        const enum kiln_status status = read_object(s, line, size, piece, &inner);
        if (status == KILN_OK && piece->size == 0) {
            continue; /* a document of nothing */
        }
        if (status == KILN_OK) {
            s->report.documents++;
            s->report.unanswered += piece->chat && piece->n_counted == 0;
            return KILN_OK;
        }
        if (status != KILN_EINPUT || !s->options.tokenize || !s->options.tokenize->skip_bad) {
            return KILN_FAIL(err, inner.code, "%s", inner.message);
        }
        if (s->report.bad_lines++ == 0) {
            snprintf(s->report.first_bad, sizeof s->report.first_bad, "%.399s", inner.message);
            char *advice = strstr(s->report.first_bad, "; mend the line");
            if (advice) {
                *advice = '\0';
            }
        }
    }
}

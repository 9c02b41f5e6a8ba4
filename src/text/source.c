/* SPDX-License-Identifier: MIT
 *
 * source.c: documents of a text that comes as a stream: the same ones as documents.c finds in a
 * text that is there as a whole.
 */
#include "text/source.h"

#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "text/text_int.h"
#include "text/utf8.h"

enum { READ_BYTES = 1 << 18, LOOK_BYTES = 1 << 12 };

/* ---- the buffer --------------------------------------------------------------------------------
 */

static enum kiln_status make_room(struct kiln_source *s, struct kiln_err *err) {
    if (s->at > 0) {
        memmove(s->buffer, s->buffer + s->at, s->n - s->at);
        s->n -= s->at;
        s->at = 0;
    }
    if (s->room - s->n >= READ_BYTES) {
        return KILN_OK;
    }
    const size_t room = s->room + (s->room > READ_BYTES ? s->room : READ_BYTES);
    char *wider = kiln_realloc(s->buffer, s->n, room, 1);
    KILN_REQUIRE(wider, err, KILN_ENOMEM, "text %s: out of memory for a document of %zu bytes",
                 s->path, s->n);
    s->buffer = wider;
    s->room = room;
    return KILN_OK;
}

enum kiln_status kiln_source_fill(struct kiln_source *s, struct kiln_err *err) {
    size_t got;
    KILN_TRY(make_room(s, err));
    KILN_TRY(kiln_stream_read(s->stream, s->buffer + s->n, READ_BYTES, &got, err));
    s->n += got;
    s->ended = got == 0;
    s->report.encoding = kiln_stream_encoding(s->stream);
    return KILN_OK;
}

/* ---- where a document ends ----------------------------------------------------------------------
 */

/* Where the document that begins at `at` ends, and what behind it is no document. */
struct end {
    bool found;
    size_t at, next;
};

/* A newline in from..to and a line of nothing but blanks behind it. */
static struct end blank_line(const struct kiln_source *s, size_t from, size_t to) {
    const char *newline = s->buffer + from;
    while ((newline = memchr(newline, '\n', to - (size_t)(newline - s->buffer))) != NULL) {
        const size_t at = (size_t)(newline - s->buffer);
        size_t next = at + 1;
        while (next < s->n && kiln_is_blank(s->buffer[next]) && s->buffer[next] != '\n') {
            next++;
        }
        if (next < s->n && s->buffer[next] == '\n') {
            return (struct end){true, at, at};
        }
        newline++;
    }
    return (struct end){false, s->n, s->n};
}

/* An end that begins in from..to. */
static struct end end_within(const struct kiln_source *s, size_t from, size_t to) {
    const size_t n = strlen(KILN_ENDOFTEXT);
    const size_t reach = kiln_least(to + n - 1, s->n);
    const char *separator = memmem(s->buffer + from, reach - from, KILN_ENDOFTEXT, n);
    struct end end = {false, s->n, s->n};
    if (separator != NULL) {
        const size_t at = (size_t)(separator - s->buffer);
        end = (struct end){true, at, at + n};
    }
    if (s->options.tokenize && s->options.tokenize->blank_lines) {
        const struct end line = blank_line(s, from, to);
        end = line.found && line.at < end.at ? line : end;
    }
    return end;
}

/* Step by step, so that of two kinds of ends the one that is rare is not looked for up to the end
 * of the buffer for each of the other. */
static struct end find_end(const struct kiln_source *s, size_t from) {
    struct end end = {false, s->n, s->n};
    while (from < s->n && !end.found) {
        const size_t to = kiln_least(from + LOOK_BYTES, s->n);
        end = end_within(s, from, to);
        from = to;
    }
    return end;
}

/* ---- pieces of a text ---------------------------------------------------------------------------
 */

/* Text from..to is the next piece; what is behind `next` comes later. */
static void give(struct kiln_source *s, size_t to, size_t next, bool ends,
                 struct kiln_piece *piece) {
    *piece =
        (struct kiln_piece){.text = s->buffer + s->at, .size = to - s->at, .begins = !s->inside};
    s->report.documents += piece->begins;
    s->report.not_utf8 += kiln_utf8_bad_bytes(piece->text, piece->size);
    s->at = next;
    s->inside = !ends;
}

static void skip_blanks(struct kiln_source *s) {
    while (s->at < s->n && kiln_is_blank(s->buffer[s->at])) {
        s->at++;
    }
}

/* A document that ends in the buffer; false where nothing but blanks is left of it. */
static bool give_rest(struct kiln_source *s, struct end end, struct kiln_piece *piece) {
    size_t to = end.at;
    while (to > s->at && kiln_is_blank(s->buffer[to - 1])) {
        to--;
    }
    if (to == s->at) {
        s->at = end.next;
        s->inside = false;
        return false;
    }
    give(s, to, end.next, true, piece);
    return true;
}

/* How far back a separator, or a line of blanks, may begin that is not whole yet. */
static size_t unsure(const struct kiln_source *s) {
    size_t n = s->n - s->at < 16 ? s->n - s->at : 16;
    while (n < s->n - s->at && kiln_is_blank(s->buffer[s->n - n - 1])) {
        n++;
    }
    return n;
}

/* Where to cut a document of which more than `most` is there; s->at: nowhere yet. Blanks wait for
 * what comes behind them, as those at a document's end are dropped; but not for ever. */
static size_t cut_at(const struct kiln_source *s, size_t sure, size_t most) {
    if (sure - s->at > most) {
        return s->at + kiln_cut(s->options.tok, s->buffer + s->at, most);
    }
    const size_t waiting = s->n - s->at;
    return waiting > 2 * most + READ_BYTES ? s->n - 16 : s->at;
}

static enum kiln_status next_document(struct kiln_source *s, struct kiln_piece *piece, bool *more,
                                      struct kiln_err *err) {
    const size_t most = s->options.piece ? s->options.piece : KILN_SOURCE_PIECE;
    size_t looked = s->at;
    for (;;) {
        if (!s->inside) {
            skip_blanks(s);
            looked = looked < s->at ? s->at : looked;
        }
        const struct end end = find_end(s, looked);
        *more = true;
        if (end.found || s->ended) {
            if (give_rest(s, end, piece)) {
                return KILN_OK;
            }
            looked = s->at;
            *more = end.found;
            if (!end.found) {
                return KILN_OK;
            }
            continue;
        }
        const size_t sure = s->n - unsure(s);
        const size_t cut = cut_at(s, sure, most);
        if (cut > s->at) {
            give(s, cut, cut, false, piece);
            return KILN_OK;
        }
        const size_t known = sure - s->at;
        KILN_TRY(kiln_source_fill(s, err));
        looked = s->at + known;
    }
}

/* ---- the source --------------------------------------------------------------------------------
 */

bool kiln_text_is_jsonl(const char *path) {
    static const char *const endings[] = {".jsonl", ".jsonl.gz", ".jsonl.zst"};
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        if (kiln_path_ends_any_case(path, endings[i])) {
            return true;
        }
    }
    return false;
}

enum kiln_status kiln_source_open(const char *path, const struct kiln_source_options *options,
                                  struct kiln_source **out, struct kiln_err *err) {
    *out = NULL;
    struct kiln_source *s = kiln_alloc(1, sizeof *s);
    KILN_REQUIRE(s, err, KILN_ENOMEM, "text %s: out of memory", path);
    s->options = *options;
    s->jsonl = kiln_text_is_jsonl(path);
    s->path = kiln_strdup(path);
    s->buffer = kiln_alloc(READ_BYTES, 1); /* there from the start: string.h's functions want one */
    s->room = READ_BYTES;
    const enum kiln_status status =
        s->path && s->buffer ? kiln_stream_open(path, &s->stream, err)
                             : KILN_FAIL(err, KILN_ENOMEM, "text %s: out of memory", path);
    if (status != KILN_OK) {
        kiln_source_close(s);
        return status;
    }
    *out = s;
    return KILN_OK;
}

enum kiln_status kiln_source_next(struct kiln_source *s, struct kiln_piece *piece, bool *more,
                                  struct kiln_err *err) {
    return s->jsonl ? kiln_source_next_line(s, piece, more, err)
                    : next_document(s, piece, more, err);
}

const struct kiln_tokenize_report *kiln_source_report(const struct kiln_source *s) {
    return &s->report;
}
const struct kiln_stream *kiln_source_stream(const struct kiln_source *s) { return s->stream; }
size_t kiln_source_unread(const struct kiln_source *s) { return s->n - s->at; }

void kiln_source_close(struct kiln_source *s) {
    if (s != NULL) {
        json_decref(s->object);
        kiln_rendered_free(&s->rendered);
        kiln_free(s->spans);
        kiln_stream_close(s->stream);
        kiln_free(s->buffer);
        kiln_free(s->path);
        kiln_free(s);
    }
}

bool kiln_source_is_packed(const char *path) {
    struct kiln_stream *stream;
    if (kiln_text_is_jsonl(path)) {
        return true;
    }
    if (kiln_stream_open(path, &stream, NULL) != KILN_OK) {
        return false;
    }
    const bool packed = kiln_stream_packed(stream);
    kiln_stream_close(stream);
    return packed;
}

static enum kiln_status take_sample(struct kiln_source *s, char *text, size_t room, size_t *size,
                                    double *bytes, struct kiln_err *err) {
    struct kiln_piece piece;
    bool more = true;
    double taken = 0;
    while (more && *size < room) {
        KILN_TRY(kiln_source_next(s, &piece, &more, err));
        const size_t n = more ? kiln_least(piece.size, room - *size) : 0;
        memcpy(text + *size, more ? piece.text : "", n);
        *size += n;
        taken += more ? (double)piece.size + 1 : 0;
        if (more && *size < room) {
            text[(*size)++] = '\n';
        }
    }
    /* The rest is as what was taken: of the text, in bytes of the stream, in bytes of the file. */
    const double read = (double)kiln_stream_size(s->stream);
    const double used = read - (double)kiln_source_unread(s);
    const double share = kiln_stream_share(s->stream);
    *bytes = more && share > 0 && used > 0 ? taken * (read / used) / share : taken;
    return KILN_OK;
}

enum kiln_status kiln_text_sample(const char *path, const struct kiln_tokenize_options *options,
                                  size_t room, char **text, size_t *size, double *bytes,
                                  struct kiln_err *err) {
    const struct kiln_source_options how = {.tokenize = options, .piece = 1 << 16};
    struct kiln_source *s;
    *size = 0;
    KILN_TRY(kiln_source_open(path, &how, &s, err));
    *text = kiln_alloc(room + 1, 1);
    const enum kiln_status status =
        *text ? take_sample(s, *text, room, size, bytes, err)
              : KILN_FAIL(err, KILN_ENOMEM, "text %s: out of memory", path);
    kiln_source_close(s);
    if (status != KILN_OK) {
        kiln_free(*text);
        *text = NULL;
    }
    return status;
}

void kiln_text_free(char *text) { kiln_free(text); }

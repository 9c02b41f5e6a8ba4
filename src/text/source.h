/* SPDX-License-Identifier: MIT
 *
 * source.h: the documents of a text file, whatever it is: plain text, JSONL, either compressed.
 *
 *   stream (plain, gzip, zstd) --> documents of a text        --> pieces
 *                              --> lines of JSON: text, chat  --> pieces
 *
 * A file named *.jsonl (or .jsonl.gz, .jsonl.zst) is JSONL: a line is an object with `text`, a
 * document, or with `messages`, a conversation that the chat template writes. Everything else is
 * text. Memory is that of a line of JSONL, or of a piece: a document of a text that is longer than
 * KILN_SOURCE_PIECE comes in pieces, cut where no token reaches across (kiln_cut in text_int.h).
 *
 * A stretch of KILN_SOURCE_PIECE without a blank or newline that stands alone is cut behind some
 * character: there the ids may differ from those of the whole. More than twice as many blanks on
 * end are cut, too; those before the cut stay, even if the document ends behind them.
 */
#ifndef KILN_TEXT_SOURCE_H
#define KILN_TEXT_SOURCE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "kiln/text.h"
#include "text/stream.h"
#include "text/template.h"

enum { KILN_SOURCE_PIECE = 4 << 20, KILN_SOURCE_LINE = 256 << 20 };

/* A document, or a part of one. Valid until the next. */
struct kiln_piece {
    const char *text;
    size_t size;
    bool begins; /* a document; false: the one before it goes on */
    /* Of chat: what the template wrote, the begin of a document included where it has one. Only
     * tokens of `counted`, in order and apart, are targets that count. */
    bool chat;
    const struct kiln_span *counted;
    size_t n_counted;
};

struct kiln_source;
struct kiln_source_options {
    const struct kiln_tokenize_options *tokenize;
    const struct kiln_tokenizer *tok; /* where a document may be cut; NULL: anywhere */
    size_t piece;                     /* instead of KILN_SOURCE_PIECE; 0: that */
};
KILN_MUST_CHECK enum kiln_status kiln_source_open(const char *path,
                                                  const struct kiln_source_options *options,
                                                  struct kiln_source **out, struct kiln_err *err);
/* False in *more at the end. */
KILN_MUST_CHECK enum kiln_status kiln_source_next(struct kiln_source *source,
                                                  struct kiln_piece *piece, bool *more,
                                                  struct kiln_err *err);
/* What was read so far (kiln/text.h), lines that were left out among it. */
const struct kiln_tokenize_report *kiln_source_report(const struct kiln_source *source);
const struct kiln_stream *kiln_source_stream(const struct kiln_source *source);
/* Bytes of the stream that no piece was made of yet. */
size_t kiln_source_unread(const struct kiln_source *source);
void kiln_source_close(struct kiln_source *source);

/* Is it JSONL, compressed, or not plain UTF-8, so that its bytes are not its text? */
bool kiln_source_is_packed(const char *path);

/* ---- for its files ----------------------------------------------------------------------------
 */

struct kiln_source {
    char *path;
    struct kiln_source_options options;
    struct kiln_stream *stream;
    struct kiln_tokenize_report report;
    bool jsonl;
    /* Bytes at..n of the buffer are still to be taken. */
    char *buffer;
    size_t at, n, room;
    bool ended;  /* the stream: nothing follows what is in the buffer */
    bool inside; /* of a document of which a piece was given */
    /* Of JSONL: */
    uint64_t line;
    json_t *object;
    struct kiln_rendered rendered;
    struct kiln_span *spans;
    size_t n_spans;
};

/* More of the stream into the buffer, which grows; `ended` where there is none. */
KILN_MUST_CHECK enum kiln_status kiln_source_fill(struct kiln_source *source, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_source_next_line(struct kiln_source *source,
                                                       struct kiln_piece *piece, bool *more,
                                                       struct kiln_err *err);

#endif

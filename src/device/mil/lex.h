/* SPDX-License-Identifier: MIT
 *
 * lex.h: MIL text, word by word.
 */
#ifndef KILN_DEVICE_MIL_LEX_H
#define KILN_DEVICE_MIL_LEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

/* A place in the text, from 1. */
struct kiln_mil_at {
    int line, column;
};

/* Fail with the place in front: "name:line:column: ...". */
#define KILN_MIL_FAIL(err, name, at, fmt, ...) \
    KILN_FAIL((err), KILN_EINPUT, "%s:%d:%d: " fmt, (name), (at).line, (at).column, ##__VA_ARGS__)

enum kiln_mil_word {
    KILN_MIL_END,    /* of the text */
    KILN_MIL_ID,     /* names and keywords */
    KILN_MIL_NUMBER, /* with its sign */
    KILN_MIL_QUOTED, /* a string; text and length without the quotes */
    KILN_MIL_ARROW,  /* -> */
    KILN_MIL_MARK,   /* one of ( ) [ ] { } < > , ; = */
};

struct kiln_mil_token {
    enum kiln_mil_word word;
    const char *text; /* within the program's text; no zero behind it */
    size_t length;
    struct kiln_mil_at at;
};

struct kiln_mil_lexer {
    const char *name; /* of the text, for messages */
    const char *next, *end;
    const char *line_start;
    int line;
    struct kiln_mil_token now; /* not taken yet */
};

/* Begin at the first word. Borrows name and text. */
KILN_MUST_CHECK enum kiln_status kiln_mil_lex_open(struct kiln_mil_lexer *lexer, const char *name,
                                                   const char *text, size_t bytes,
                                                   struct kiln_err *err);
/* Go on to the next word. */
KILN_MUST_CHECK enum kiln_status kiln_mil_lex_next(struct kiln_mil_lexer *lexer,
                                                   struct kiln_err *err);

static inline bool kiln_mil_is_mark(const struct kiln_mil_token *token, char mark) {
    return token->word == KILN_MIL_MARK && token->text[0] == mark;
}
bool kiln_mil_is_id(const struct kiln_mil_token *token, const char *id);

/* How messages call a token: `"conv"`, `a string`, `the end of the text`. */
const char *kiln_mil_token_text(const struct kiln_mil_token *token, char buffer[80]);
/* "expected WHAT, found ..." at the token that is there. */
enum kiln_status kiln_mil_expected(const struct kiln_mil_lexer *lexer, const char *what,
                                   struct kiln_err *err);

/* The value of a number token. *whole: it was written as an integer, and `integer` holds it too.
 * One that no double or int64_t holds fails. */
KILN_MUST_CHECK enum kiln_status kiln_mil_number(const struct kiln_mil_lexer *lexer,
                                                 const struct kiln_mil_token *token, double *number,
                                                 int64_t *integer, bool *whole,
                                                 struct kiln_err *err);

#endif

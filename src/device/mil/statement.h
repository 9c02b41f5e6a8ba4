/* SPDX-License-Identifier: MIT
 *
 * statement.h: a statement as it is written, between the grammar (parse.c) and its meaning
 * (check.c). It lives in the parser's scratch memory until the next one is read.
 */
#ifndef KILN_DEVICE_MIL_STATEMENT_H
#define KILN_DEVICE_MIL_STATEMENT_H

#include "device/mil/graph.h"
#include "device/mil/lex.h"

/* One element of a literal. */
struct kiln_mil_item {
    enum { KILN_MIL_ITEM_INTEGER, KILN_MIL_ITEM_REAL, KILN_MIL_ITEM_BOOL, KILN_MIL_ITEM_STRING } is;
    struct kiln_mil_at at;
    double number;   /* integers and reals */
    int64_t integer; /* integers and bools */
    const char *string;
};

struct kiln_mil_literal {
    struct kiln_mil_at at;
    struct kiln_mil_type type;
    size_t n, room;
    struct kiln_mil_item *items;  /* in the order of the text */
    size_t depth;                 /* of lists; 0: one item without brackets */
    size_t counts[KILN_MIL_RANK]; /* of the lists of each depth, where they are nested */
    const char *path;             /* of a BLOBFILE; NULL: none */
    uint64_t offset;
};

/* What stands behind NAME = in an argument or attribute: one of three. */
struct kiln_mil_arg {
    const char *name;
    struct kiln_mil_at at; /* of the name */
    struct kiln_mil_at value_at;
    const char *reference; /* a name; else NULL */
    struct kiln_mil_literal *literal;
    struct kiln_mil_arg *list; /* (a, b, ...) */
    size_t n, room;
};

struct kiln_mil_declared {
    struct kiln_mil_type type;
    const char *name;
    struct kiln_mil_at at;
};

struct kiln_mil_args {
    struct kiln_mil_arg *arg;
    size_t n, room;
};

struct kiln_mil_statement {
    struct kiln_mil_declared *out;
    size_t n_out, room_out;
    const char *op;
    struct kiln_mil_at at;      /* of the operation's name */
    struct kiln_mil_args args;  /* in ( ) */
    struct kiln_mil_args attrs; /* in [ ] */
};

#endif

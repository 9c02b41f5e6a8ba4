/* SPDX-License-Identifier: MIT
 *
 * text.h: writes MIL text: one function, fp16 tensors of rank 4, a statement a line.
 *
 * Every call appends a statement and returns the value it makes, with its shape, which the builder
 * works out and asserts. Small integers, flags and lists become named constants in front of the
 * statement that uses them, because the hardware's compiler refuses literals in some places.
 * Numbers are rounded to fp16 and printed as hex floats, so a reader gets the very same.
 *
 *     kiln_mil_text_open(&text, "1.3", "ios18", 0);
 *     x = kiln_mil_put_input(&text, "x", (size_t[4]){1, 64, 1, 16});
 *     y = kiln_mil_put_conv(&text, "y", x, kiln_mil_put_file(&text, "w", (size_t[4]){...}));
 *     status = kiln_mil_text_close(&text, y, &err);
 *
 * Running out of memory is remembered; what follows is skipped and close reports it.
 */
#ifndef KILN_DEVICE_MIL_TEXT_H
#define KILN_DEVICE_MIL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

enum { KILN_MIL_AXES = 4 };

/* A value in the text. A scalar has dims 0. */
struct kiln_mil_ref {
    char name[32];
    size_t dims[KILN_MIL_AXES];
};

struct kiln_mil_text {
    char *data; /* zero-terminated; kiln_free it */
    size_t size, room;
    bool dry;           /* shapes only: nothing is written */
    bool failed;        /* out of memory */
    char opset[16];     /* "ios18" */
    char mark[24];      /* behind the name attribute of every operation */
    unsigned constants; /* which of the shared ones are there: a bit each */
};

/* Begin a program. serial: not 0 makes the text differ from that of any other serial. */
void kiln_mil_text_open(struct kiln_mil_text *text, const char *version, const char *opset,
                        uint64_t serial);
/* End it with its only output. KILN_ENOMEM: the text did not fit, and is gone. */
KILN_MUST_CHECK enum kiln_status kiln_mil_text_close(struct kiln_mil_text *text,
                                                     struct kiln_mil_ref output,
                                                     struct kiln_err *err);

/* A line for people. */
void kiln_mil_put_comment(struct kiln_mil_text *text, const char *fmt, ...) KILN_PRINTF(2, 3);
/* The function's only parameter: the first call after open and comments. */
struct kiln_mil_ref kiln_mil_put_input(struct kiln_mil_text *text, const char *name,
                                       const size_t dims[KILN_MIL_AXES]);
/* Constants: a number; a tensor from the first blob of weights/NAME.bin. */
struct kiln_mil_ref kiln_mil_put_number(struct kiln_mil_text *text, const char *name, double value);
struct kiln_mil_ref kiln_mil_put_file(struct kiln_mil_text *text, const char *name,
                                      const size_t dims[KILN_MIL_AXES]);

/* A linear layer: weight [O, I, 1, 1] over the channels of x. */
struct kiln_mil_ref kiln_mil_put_conv(struct kiln_mil_text *text, const char *name,
                                      struct kiln_mil_ref x, struct kiln_mil_ref weight);
/* Over the last two axes; the first two are equal. */
struct kiln_mil_ref kiln_mil_put_matmul(struct kiln_mil_text *text, const char *name,
                                        struct kiln_mil_ref x, bool transpose_x,
                                        struct kiln_mil_ref y, bool transpose_y);
/* "add", "sub", "mul", "pow": shapes are broadcast. */
struct kiln_mil_ref kiln_mil_put_pair(struct kiln_mil_text *text, const char *name, const char *op,
                                      struct kiln_mil_ref x, struct kiln_mil_ref y);
/* "sigmoid" and others of one argument. */
struct kiln_mil_ref kiln_mil_put_unary(struct kiln_mil_text *text, const char *name, const char *op,
                                       struct kiln_mil_ref x);
struct kiln_mil_ref kiln_mil_put_softmax(struct kiln_mil_text *text, const char *name,
                                         struct kiln_mil_ref x, size_t axis);
/* Keeps the axis, with size 1. */
struct kiln_mil_ref kiln_mil_put_reduce_sum(struct kiln_mil_text *text, const char *name,
                                            struct kiln_mil_ref x, size_t axis);
/* x itself, and no statement, where it has that shape already. */
struct kiln_mil_ref kiln_mil_put_reshape(struct kiln_mil_text *text, const char *name,
                                         struct kiln_mil_ref x, const size_t dims[KILN_MIL_AXES]);
/* Swaps the last two axes. */
struct kiln_mil_ref kiln_mil_put_transpose(struct kiln_mil_text *text, const char *name,
                                           struct kiln_mil_ref x);
/* `size` elements of an axis from `begin`; the other axes whole. */
struct kiln_mil_ref kiln_mil_put_slice(struct kiln_mil_text *text, const char *name,
                                       struct kiln_mil_ref x, size_t axis, size_t begin,
                                       size_t size);
struct kiln_mil_ref kiln_mil_put_concat(struct kiln_mil_text *text, const char *name, size_t axis,
                                        const struct kiln_mil_ref *values, size_t n);

#endif

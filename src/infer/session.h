/* SPDX-License-Identifier: MIT
 *
 * session.h: a model that reads tokens and says what may come next; rooms above use it.
 *
 *   struct kiln_session *session;
 *   kiln_session_open(table, weights, pool, &options, &session, &err);
 *   kiln_session_feed(session, prompt, n, logits, &err);   a whole prompt at once
 *   kiln_session_feed(session, &next, 1, logits, &err);    then token by token
 *
 * Keys and values of every position are kept in the packed format of the products, so that the
 * scores of all earlier positions, and their weighted sum, are two small products. Every element
 * is a sum in one order: feeding a prompt at once and token by token give the same bits. (Where
 * products of many rows have other bits, in fp32, on AMX and by oneDNN, a prompt is computed a few
 * rows at a time.)
 */
#ifndef KILN_INFER_SESSION_H
#define KILN_INFER_SESSION_H

#include "base/pool.h"
#include "kernel/packed.h"
#include "kiln/generate.h"

struct kiln_session;

struct kiln_session_options {
    enum kiln_precision precision;    /* ignored when `packed` is given */
    const struct kiln_packed *packed; /* forward copies to use, borrowed with their kernels, e.g.
                                       * those of a device; NULL: the session packs its own */
    size_t seq;                       /* longest sequence; 0: the model's */
};

/* Table, weights (the flat array), pool and options->packed are borrowed. Weights that change
 * later change the model: their packed copies are read at every feed. */
KILN_MUST_CHECK enum kiln_status kiln_session_open(const struct kiln_table *table,
                                                   const float *weights, struct kiln_pool *pool,
                                                   const struct kiln_session_options *options,
                                                   struct kiln_session **out, struct kiln_err *err);
void kiln_session_close(struct kiln_session *session);

/* Read n tokens behind those read before. logits [V] (fp32; may be NULL) get the scores of what
 * follows the last one. KILN_EUSAGE, with nothing read, when they do not fit into the sequence,
 * when an id is beyond the vocabulary, or when n is 0. Allocates nothing. */
KILN_MUST_CHECK enum kiln_status kiln_session_feed(struct kiln_session *session,
                                                   const uint32_t *tokens, size_t n, float *logits,
                                                   struct kiln_err *err);
/* Forget what was read. */
void kiln_session_reset(struct kiln_session *session);
size_t kiln_session_position(const struct kiln_session *session); /* tokens read */
size_t kiln_session_seq(const struct kiln_session *session);
size_t kiln_session_bytes(const struct kiln_session *session); /* memory, without borrowed parts */

/* kiln_generate on an open session, which is reset first; options->precision and ->threads are
 * not looked at. The trainer's samples come from here. */
KILN_MUST_CHECK enum kiln_status kiln_session_generate(struct kiln_session *session,
                                                       const struct kiln_tokenizer *tokenizer,
                                                       const struct kiln_generate_options *options,
                                                       kiln_piece_fn piece, void *context,
                                                       struct kiln_generate_result *result,
                                                       struct kiln_err *err);
const struct kiln_table *kiln_session_table(const struct kiln_session *session);

#endif

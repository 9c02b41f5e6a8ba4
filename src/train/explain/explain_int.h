/* SPDX-License-Identifier: MIT
 *
 * explain_int.h: what the files of an explanation share.
 */
#ifndef KILN_TRAIN_EXPLAIN_INT_H
#define KILN_TRAIN_EXPLAIN_INT_H

#include "train/explain/evidence.h"
#include "train/explain/explain_walk.h"

/* The losses of a window's tokens, and what it adds up to. */
struct kiln_explain_pass {
    double *losses; /* [sequences * seq], 0 where a target does not count */
    double loss;    /* mean over the targets */
    size_t targets;
};

/* What surrounds token `token` of sequence `sequence` (explain_text.c). */
void kiln_explain_around(const struct kiln_evidence *e, size_t sequence, size_t token,
                         struct kiln_explain_text *out);
/* The text of an id by itself; "[17]" where it has none. */
void kiln_explain_piece(const struct kiln_evidence *e, uint32_t id, char out[96]);

/* out->sequence from a pass: losses, z, reasons (explain_batch.c). `usual` is the loss of other
 * windows, NaN where that is unknown. KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_explain_batch(const struct kiln_evidence *e,
                                                    const struct kiln_explain_pass *pass,
                                                    double usual, struct kiln_explanation *out,
                                                    struct kiln_err *err);
/* kind, verdict and advice, when all else is filled in (explain_verdict.c). */
void kiln_explain_judge(const struct kiln_evidence *e, struct kiln_explanation *out);

#endif

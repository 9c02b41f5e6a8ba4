/* SPDX-License-Identifier: MIT
 *
 * parts.h: the parts of a training step on the cpu: how their spans are called, what they compute
 * and what they must move. The one table of both; `kiln bench` sets measured times beside it.
 *
 * FLOPs are the model's, as kiln_plan_flops counts them: their sum over the parts is its total.
 * Bytes are what must pass between memory and the processor: what a part reads and writes that
 * other parts made or will read, each once. What a part makes for itself is not counted, nor that
 * it may read a matrix more than once: these are the bytes of the step, not of the program.
 */
#ifndef KILN_PLAN_PARTS_H
#define KILN_PLAN_PARTS_H

#include "plan/plan.h"

enum kiln_part {
    KILN_PART_EMBED,
    KILN_PART_ATTN_FWD, /* of all layers, as the next ones */
    KILN_PART_FFN_FWD,
    KILN_PART_HEAD, /* final norm, classifier and loss, forward and backward */
    KILN_PART_FFN_BWD,
    KILN_PART_ATTN_BWD,
    KILN_PART_EMBED_BWD,
    KILN_PART_NORM,   /* of the gradient; a tied embedding's two gradients are added */
    KILN_PART_UPDATE, /* AdamW, and the packed copies */
    KILN_PARTS
};

/* Pieces of parts, which a device may mark inside them (kiln_spans_piece, base/spans.h), by name:
 * "PART.PIECE". A part need not mark all of its work. Those with products have FLOPs, which add up
 * to the part's; the others have bytes, what they read and write, wherever it lies. */
#define KILN_PIECE_MAP(XX)                                                              \
    XX(ATTN_FWD, rows)      /* tokens through norm, product and RoPE; output product */ \
    XX(ATTN_FWD, attention) /* scores, softmax, values */                               \
    XX(HEAD, norm)          /* both ways */                                             \
    XX(HEAD, forward)                                                                   \
    XX(HEAD, loss)                                                                      \
    XX(HEAD, turn)     /* operands of its weight gradient */                            \
    XX(HEAD, backward) /* dx and dw */                                                  \
    XX(FFN_BWD, rows)  /* tokens back through both products, and the norm */            \
    XX(FFN_BWD, dw)                                                                     \
    XX(ATTN_BWD, rows)                                                                  \
    XX(ATTN_BWD, attention)                                                             \
    XX(ATTN_BWD, dw)
#define KILN_PIECE_ENUM(part, piece) KILN_PIECE_##part##_##piece,
enum kiln_piece_of_step { KILN_PIECE_MAP(KILN_PIECE_ENUM) KILN_PIECES };
#undef KILN_PIECE_ENUM
/* "ffn_bwd.dw"; the part it is of; the piece of that name or KILN_PIECES. */
const char *kiln_piece_name(enum kiln_piece_of_step piece);
enum kiln_part kiln_piece_part(enum kiln_piece_of_step piece);
enum kiln_piece_of_step kiln_piece_find(const char *name);

/* "attn_fwd": of its spans, in JSON and CSV. */
const char *kiln_part_name(enum kiln_part part);
/* "attention forward": for people. */
const char *kiln_part_title(enum kiln_part part);
/* The part whose spans have that name; KILN_PARTS: none. */
enum kiln_part kiln_part_find(const char *name);

struct kiln_part_cost {
    double flops, bytes;
};
/* What each part costs in a step (accum micro-batches and the update) of a plan that keeps all
 * activations. */
void kiln_part_costs(const struct kiln_plan *plan, const struct kiln_table *table,
                     struct kiln_part_cost out[KILN_PARTS]);
void kiln_piece_costs(const struct kiln_plan *plan, const struct kiln_table *table,
                      struct kiln_part_cost out[KILN_PIECES]);

#endif

/* SPDX-License-Identifier: MIT */
#include "plan/parts.h"

#include <string.h>

static const struct {
    const char *name, *title;
} parts[KILN_PARTS] = {
    [KILN_PART_EMBED] = {"embed", "embedding"},
    [KILN_PART_ATTN_FWD] = {"attn_fwd", "attention forward"},
    [KILN_PART_FFN_FWD] = {"ffn_fwd", "feed-forward forward"},
    [KILN_PART_HEAD] = {"head", "head and loss"},
    [KILN_PART_FFN_BWD] = {"ffn_bwd", "feed-forward backward"},
    [KILN_PART_ATTN_BWD] = {"attn_bwd", "attention backward"},
    [KILN_PART_EMBED_BWD] = {"embed_bwd", "embedding backward"},
    [KILN_PART_NORM] = {"norm", "gradient norm"},
    [KILN_PART_UPDATE] = {"update", "AdamW and packing"},
};

const char *kiln_part_name(enum kiln_part part) { return parts[part].name; }
const char *kiln_part_title(enum kiln_part part) { return parts[part].title; }

enum kiln_part kiln_part_find(const char *name) {
    size_t part = 0;
    while (part < KILN_PARTS && strcmp(parts[part].name, name) != 0) {
        part++;
    }
    return (enum kiln_part)part;
}

/* A piece's name follows its part's: "ffn_bwd" and "dw" make "ffn_bwd.dw". */
static const struct {
    enum kiln_part part;
    const char *name;
} pieces[KILN_PIECES] = {
#define NAME_ATTN_FWD    "attn_fwd."
#define NAME_FFN_FWD     "ffn_fwd."
#define NAME_HEAD        "head."
#define NAME_FFN_BWD     "ffn_bwd."
#define NAME_ATTN_BWD    "attn_bwd."
#define ROW(part, piece) {KILN_PART_##part, NAME_##part #piece},
    KILN_PIECE_MAP(ROW)
#undef ROW
};

const char *kiln_piece_name(enum kiln_piece_of_step piece) { return pieces[piece].name; }
enum kiln_part kiln_piece_part(enum kiln_piece_of_step piece) { return pieces[piece].part; }

enum kiln_piece_of_step kiln_piece_find(const char *name) {
    size_t piece = 0;
    while (piece < KILN_PIECES && strcmp(pieces[piece].name, name) != 0) {
        piece++;
    }
    return (enum kiln_piece_of_step)piece;
}

/* ---- what they cost -------------------------------------------------------------------------- */

/* Sizes of the model as doubles. */
struct sizes {
    double n, t, d, hk, gk, f, v, layers, heads;
    double attention, feed_forward; /* parameters of a layer's matrices */
    double operand;                 /* bytes */
    double accum;
    double gradient; /* bytes that a micro-batch moves for a parameter's gradient, on average: the
                      * first of a window writes, the others read and write */
};

static struct sizes sizes_of(const struct kiln_plan *plan, const struct kiln_dims *d) {
    struct sizes s = {.t = (double)plan->shape.seq,
                      .n = (double)plan->shape.batch * (double)plan->shape.seq,
                      .d = (double)d->dim,
                      .hk = (double)(d->heads * d->head_size),
                      .gk = (double)(d->kv_heads * d->head_size),
                      .f = (double)d->hidden,
                      .v = (double)d->vocab,
                      .layers = (double)d->layers,
                      .heads = (double)d->heads,
                      .accum = (double)plan->accum};
    const bool wide = kiln_precision_resolve(plan->request->precision) == KILN_PRECISION_FP32;
    s.operand = wide ? 4 : 2;
    s.attention = s.d * (2 * s.hk + 2 * s.gk);
    s.feed_forward = 3 * s.d * s.f;
    s.gradient = sizeof(float) * (2 * s.accum - 1) / s.accum;
    return s;
}

/* Score-sized products: 2 of 5 run forward. */
static double attention_flops(const struct sizes *s, double products) {
    return products * 2.0 * s->hk * s->t * s->n;
}

void kiln_part_costs(const struct kiln_plan *plan, const struct kiln_table *table,
                     struct kiln_part_cost out[KILN_PARTS]) {
    const struct sizes s = sizes_of(plan, &table->dims);
    const double residual = sizeof(float) * s.n * s.d, embedding = sizeof(float) * s.v * s.d;
    const double layers = s.layers * s.accum;
    const double taps_attention =
        s.operand * s.n * (2 * s.hk + 2 * s.gk) + sizeof(float) * s.heads * s.n;
    const double taps_ffn = s.operand * s.n * 2 * s.f;
    const double weights_attention = s.operand * s.attention,
                 weights_ffn = s.operand * s.feed_forward;
    /* Where heads are normalised: what attention reads is written and read, in both passes. */
    const double turned = table->dims.qk_norm ? 2 * s.operand * s.n * (s.hk + 2 * s.gk) : 0;
    const double classifier = s.v * s.d;
    const double parameters = sizeof(float) * (double)table->parameters;
    out[KILN_PART_EMBED] = (struct kiln_part_cost){0, s.accum * 2 * residual};
    out[KILN_PART_ATTN_FWD] = (struct kiln_part_cost){
        layers * (2 * s.attention * s.n + attention_flops(&s, 2)),
        layers * (2 * residual + weights_attention + taps_attention + turned)};
    out[KILN_PART_FFN_FWD] = (struct kiln_part_cost){
        layers * 2 * s.feed_forward * s.n, layers * (2 * residual + weights_ffn + taps_ffn)};
    /* x in and its gradient out; both packed copies. */
    out[KILN_PART_HEAD] = (struct kiln_part_cost){
        s.accum * 6 * classifier * s.n,
        s.accum * (2 * residual + 2 * s.operand * classifier + s.gradient * classifier)};
    /* x in, its gradient in and out. */
    out[KILN_PART_FFN_BWD] = (struct kiln_part_cost){
        layers * 4 * s.feed_forward * s.n,
        layers * (3 * residual + weights_ffn + taps_ffn + s.gradient * s.feed_forward)};
    out[KILN_PART_ATTN_BWD] =
        (struct kiln_part_cost){layers * (4 * s.attention * s.n + attention_flops(&s, 3)),
                                layers * (3 * residual + weights_attention + taps_attention +
                                          turned + s.gradient * s.attention)};
    /* The first micro-batch clears the table. */
    out[KILN_PART_EMBED_BWD] = (struct kiln_part_cost){0, s.accum * 3 * residual + embedding};
    /* What is left of it: a matrix is summed where it is written. The lookup's gradient is read,
     * and when tied added to the head's. */
    out[KILN_PART_NORM] = (struct kiln_part_cost){0, (table->dims.tied ? 3 : 1) * embedding};
    /* g, W, m, v read; W, m, v and the packed copies written. */
    const double packed =
        s.layers * (double)(plan->sizes.forward + plan->sizes.backward) + (double)plan->sizes.head;
    out[KILN_PART_UPDATE] = (struct kiln_part_cost){0, 7 * parameters + packed};
}

void kiln_piece_costs(const struct kiln_plan *plan, const struct kiln_table *table,
                      struct kiln_part_cost out[KILN_PIECES]) {
    const struct sizes s = sizes_of(plan, &table->dims);
    const double layers = s.layers * s.accum, classifier = 2 * s.v * s.d * s.n * s.accum;
    const double attention = layers * 2 * s.attention * s.n;
    const double feed_forward = layers * 2 * s.feed_forward * s.n;
    const double wide = sizeof(float) * s.n * s.d, narrow = s.operand * s.n * s.d;
    const double logits = s.accum * s.n * s.v;
#define PIECE(part, piece) out[KILN_PIECE_##part##_##piece]
#define FLOPS(n)           ((struct kiln_part_cost){.flops = (n)})
#define BYTES(n)           ((struct kiln_part_cost){.bytes = (n)})
    PIECE(ATTN_FWD, rows) = FLOPS(attention);
    PIECE(ATTN_FWD, attention) = FLOPS(layers * attention_flops(&s, 2));
    PIECE(HEAD, norm) = BYTES(s.accum * (6 * wide + narrow)); /* dx is written first */
    PIECE(HEAD, forward) = FLOPS(classifier);
    PIECE(HEAD, loss) = BYTES(logits * (sizeof(float) + s.operand));
    PIECE(HEAD, turn) = BYTES(logits * 2 * s.operand + s.accum * 2 * narrow);
    PIECE(HEAD, backward) = FLOPS(2 * classifier);
    PIECE(FFN_BWD, rows) = PIECE(FFN_BWD, dw) = FLOPS(feed_forward);
    PIECE(ATTN_BWD, rows) = PIECE(ATTN_BWD, dw) = FLOPS(attention);
    PIECE(ATTN_BWD, attention) = FLOPS(layers * attention_flops(&s, 3));
#undef PIECE
#undef FLOPS
#undef BYTES
}

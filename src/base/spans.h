/* SPDX-License-Identifier: MIT
 *
 * spans.h: what happened when: spans of time on the tracks of a process.
 *
 * Whoever works adds a span for each piece of work; trace.json is written from them, and the times
 * that a run reports (kiln/train.h) are sums over the same spans: nobody keeps a second clock.
 *
 * A span is of a track and a kind. Spans of one kind on one track do not overlap, so their sum is
 * time that passed. Times are of kiln_now_s: one clock for all processes of a machine.
 */
#ifndef KILN_BASE_SPANS_H
#define KILN_BASE_SPANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

enum kiln_track {
    KILN_TRACK_DEVICE,    /* evaluations, and waiting for kernels */
    KILN_TRACK_COMPILER,  /* compiles */
    KILN_TRACK_HOST,      /* weight gradients in the background, and waiting for them */
    KILN_TRACK_OPTIMIZER, /* norm, update, snapshot */
    KILN_TRACK_IO,        /* surfaces, checkpoints */
    KILN_TRACK_PROCESS,   /* hand-over to another process */
    KILN_TRACK_RANKS,     /* what goes to and comes from other ranks */
    KILN_TRACKS
};

enum kiln_span_kind {
    KILN_SPAN_EVALUATE, /* DEVICE: a program, or on the cpu a half-layer, the loss, the embedding */
    KILN_SPAN_PIECE,    /* DEVICE: a piece of an evaluation, where pieces are asked for */
    KILN_SPAN_STALL,    /* DEVICE: nothing is computed because kernels are being compiled */
    KILN_SPAN_COMPILE,  /* COMPILER: one kernel, or the classifier packed */
    KILN_SPAN_DW,       /* HOST: a task of weight gradients; on several threads at once */
    KILN_SPAN_DW_WAIT,  /* HOST: the owner waits for them */
    KILN_SPAN_NORM,     /* OPTIMIZER */
    KILN_SPAN_UPDATE,   /* OPTIMIZER */
    KILN_SPAN_SNAPSHOT, /* OPTIMIZER: weights rounded for the next generation */
    KILN_SPAN_SURFACE,  /* IO: bytes moved to or from a surface */
    KILN_SPAN_CHECKPOINT, /* IO: a checkpoint on its way to the disk */
    KILN_SPAN_RESTART, /* PROCESS: from the last word of one process to the first work of the next
                        */
    KILN_SPAN_REDUCE,  /* RANKS: sums of gradients are under way */
    KILN_SPAN_STRETCH, /* RANKS: one of them; several at once */
    KILN_SPAN_PASS,    /* RANKS: an activation or a gradient goes to another stage; likewise */
    KILN_SPAN_REDUCE_WAIT, /* RANKS: the owner waits for them */
    KILN_SPAN_RANKS_WAIT,  /* RANKS: the owner waits for others */
    KILN_SPAN_KINDS
};
/* "evaluate", "stall", ... */
const char *kiln_span_kind_name(enum kiln_span_kind kind);
enum kiln_track kiln_span_track(enum kiln_span_kind kind);
/* "device", "compiler", "host queue", "optimizer", "I/O", "process", "ranks". */
const char *kiln_track_name(enum kiln_track track);

struct kiln_span {
    double start, end; /* seconds */
    enum kiln_span_kind kind;
    uint32_t thread;     /* 0, or which of several that work on one track at once */
    const char *name;    /* static text: "attn_fwd"; NULL: the kind's name */
    int32_t layer;       /* -1: none */
    int32_t micro_batch; /* -1: none */
    int64_t generation;  /* updates in the weights that it reads or makes; -1: none */
};

struct kiln_spans;

KILN_MUST_CHECK enum kiln_status kiln_spans_create(struct kiln_spans **out, struct kiln_err *err);
void kiln_spans_destroy(struct kiln_spans *spans);

/* Add one. Any thread. spans NULL: nothing. Where no memory is left for the span itself its time
 * still counts in the sums. A `generation` of -1 is replaced by what kiln_spans_at said last, and
 * so is a `micro_batch` of -1 of a kind that is work on a micro-batch: EVALUATE, STALL, DW, DW_WAIT
 * and SURFACE. */
void kiln_spans_add(struct kiln_spans *spans, const struct kiln_span *span);
/* Where the owner stands: of spans to come. */
void kiln_spans_at(struct kiln_spans *spans, int64_t generation, int32_t micro_batch);
/* Keep spans to come to be listed, not only their sums (the default). */
void kiln_spans_keep(struct kiln_spans *spans, bool on);

/* Add spans of pieces, too (default: no). They lie inside evaluations: for who measures. */
void kiln_spans_pieces(struct kiln_spans *spans, bool on);
/* The owner's: what lies between *since and now was this piece, "ffn_bwd.dw"; *since becomes now.
 * Nothing unless pieces are asked for. spans NULL: nothing. */
void kiln_spans_piece(struct kiln_spans *spans, const char *name, double *since);

/* Seconds of a kind since the last kiln_spans_take. */
double kiln_spans_sum(struct kiln_spans *spans, enum kiln_span_kind kind);
/* What was added since the last time; what comes next counts from 0. Other threads may add all the
 * while: each span is in one taking, in its sums and its list alike. The list, in the order that
 * spans were added, is valid until the next time. The owner's call. */
struct kiln_spans_taken {
    double sums[KILN_SPAN_KINDS]; /* seconds */
    int64_t evaluated;            /* generation of the last EVALUATE; -1: there was none */
    const struct kiln_span *list; /* of those that were to be kept */
    size_t n;
};
void kiln_spans_take(struct kiln_spans *spans, struct kiln_spans_taken *out);

#endif

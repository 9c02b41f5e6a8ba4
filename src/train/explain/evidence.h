/* SPDX-License-Identifier: MIT
 *
 * evidence.h: what there is of a step that was taken: its window, the weights it was computed with,
 * and what the run recorded of it (kiln/explain.h says where they come from).
 */
#ifndef KILN_TRAIN_EVIDENCE_H
#define KILN_TRAIN_EVIDENCE_H

#include <jansson.h>

#include "base/io.h"
#include "kiln/explain.h"
#include "train/run_int.h"

/* Sequences of tokens. */
struct kiln_evidence_window {
    uint64_t sample;            /* number of the first in the data order */
    size_t sequences, seq;      /* `seq` tokens each */
    uint32_t *tokens;           /* [sequences * seq], on the heap with the two below */
    uint32_t *targets, *starts; /* starts NULL: no document mask */
};

struct kiln_evidence {
    uint64_t step;
    struct kiln_run *run; /* its settings, table, tokenizer, and data where it has its tokens */
    bool has_data;
    json_t *incident;              /* incident.json, or NULL */
    enum kiln_precision precision; /* of the run, not AUTO */
    struct kiln_evidence_window window;
    const float *weights; /* [table->size], in the map or the copy */
    struct kiln_map map;
    float *copy;
    char weights_from[80], window_from[80];
    char note[240];
    /* As the run recorded them; NaN: not finite, or unknown. */
    double loss, norm, lr, z, mean, deviation; /* z, ... : of the loss, beside steps before */
    bool recorded;                             /* loss and norm were, finite or not */
    double loss_scale; /* of the step, or else of the one before; 0: of neither (scale.h) */
};

/* Fill it; on failure there is nothing to close. Errors as kiln_explain. */
KILN_MUST_CHECK enum kiln_status kiln_evidence_open(const struct kiln_explain_options *options,
                                                    struct kiln_evidence *out,
                                                    struct kiln_err *err);
void kiln_evidence_close(struct kiln_evidence *e);
/* The window of the same size beside this one, the one before or else the one behind; KILN_EINPUT
 * where the run's tokens are gone. kiln_evidence_window_free it. */
KILN_MUST_CHECK enum kiln_status kiln_evidence_other(const struct kiln_evidence *e,
                                                     struct kiln_evidence_window *out,
                                                     struct kiln_err *err);
void kiln_evidence_window_free(struct kiln_evidence_window *w);
/* A string or number of the incident: "" and NaN where it has none. */
const char *kiln_evidence_text(const struct kiln_evidence *e, const char *key);
double kiln_evidence_number(const struct kiln_evidence *e, const char *key);

/* Weights as they were when `step` steps were done (evidence_weights.c): e->weights, _from, and in
 * *cursor where training stood. */
KILN_MUST_CHECK enum kiln_status kiln_evidence_weights(const struct kiln_explain_options *options,
                                                       struct kiln_evidence *e, uint64_t step,
                                                       struct kiln_cursor *cursor,
                                                       struct kiln_err *err);

#endif

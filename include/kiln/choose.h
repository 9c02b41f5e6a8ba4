/* SPDX-License-Identifier: MIT
 *
 * choose.h: what to train when all that is known is a text, a machine and a time.
 *
 * A scaling law, fitted on a few dozen small runs (docs/minutes.md has them, and bench/law makes
 * them again), says what loss a model of a size ends at after so many tokens of a text; rates that
 * were measured on this machine say how many tokens a model of a size sees in the time. The choice
 * is the model whose loss is the lowest, and what the law's runs were trained with.
 *
 * Pure functions: no file is opened, nothing is measured, equal requests give equal choices.
 * kiln_minutes_choose (train.h) measures, and asks here.
 */
#ifndef KILN_CHOOSE_H
#define KILN_CHOOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/model.h"
#include "kiln/plan.h"
#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is known of the text. */
struct kiln_choose_text {
    double bytes; /* to train on; what is held out is not counted */
    /* How hard it is: bits a byte that a trigram model of its tokens leaves of its beginning, of so
     * many ids (src/train/hardness.h). 0: unknown, and taken for English plays. */
    double trigram_bits, trigram_ids;
    double bytes_per_token; /* of the vocabulary that is fixed; 0: the law's guess for each */
};

/* A rate that was measured: model FLOPs of a token (kiln_plan_flops) of some model, and the model
 * FLOPs that its steps then did in a second. Between rates it is linear in the logarithm of the
 * first, beyond them constant. */
struct kiln_rate {
    double flops_per_token, flops_per_s;
};
enum { KILN_RATES = 8 };

/* Sizes that somebody wants: kept, and the rest is chosen around them. 0 (reals: NaN) is free. */
struct kiln_choose_fixed {
    uint64_t dim, hidden, layers, heads, kv_heads, vocab, seq, batch, accum, steps, warmup;
    bool warmup_given; /* 0 is a warm-up, too */
    double lr, min_lr, weight_decay;
    const struct kiln_dims *dims; /* of a model that is there: all its sizes; NULL */
    bool trained;                 /* its weights are not random: no loss is foretold */
};

struct kiln_choose_request {
    double seconds; /* for steps alone: start-up, evaluations and the end are taken off */
    struct kiln_choose_text text;
    struct kiln_rate rate[KILN_RATES]; /* by flops_per_token, rising */
    size_t n_rates;                    /* at least 1 */
    struct kiln_choose_fixed fixed;
    /* Device, precision, threads, memory, activations and the profile of the plan; its dims, batch,
     * seq and accum are chosen. Of plan.ranks how many share every window, and the link; rates,
     * threads and memory are of one of them. */
    struct kiln_plan_request plan;
};

/* What held-out loss to expect, over all bytes of the text: bits a byte compare whatever the
 * vocabulary is. low to high holds nine of ten runs that the law was not fitted on. */
struct kiln_forecast {
    double bits, low, high; /* bits a byte; 0: nothing is foretold */
    double bytes_per_token;
};
/* bits a byte as nats a token, what training prints. */
KILN_API double kiln_forecast_nats(const struct kiln_forecast *forecast, double bits);

/* A model of the ladder, and what would become of it. */
struct kiln_rung {
    struct kiln_dims dims;
    size_t batch, accum;
    uint64_t steps;
    size_t parameters;
    double tokens, epochs; /* read in all; times that the text is read */
    double step_s, wait_s; /* the latter of it: for gradients of other ranks */
    uint64_t memory;       /* bytes of a rank, as planned */
    struct kiln_forecast forecast;
};

enum { KILN_CHOICE_RUNGS = 5, KILN_CHOICE_REASONS = 10 };
struct kiln_choice {
    struct kiln_rung is;
    double lr, min_lr, weight_decay;
    uint64_t warmup;
    /* A quarter, half, the chosen one, double, four times the parameters of the layers; without
     * those that no memory or size allows. is_at: the chosen one. None where sizes are fixed. */
    struct kiln_rung rung[KILN_CHOICE_RUNGS];
    size_t n_rungs, is_at;
    char reason[KILN_CHOICE_REASONS][200]; /* a line each */
    size_t n_reasons;
    char warning[240]; /* what the user should know: a text too small, a memory too small; or "" */
};

/* Choose. KILN_EUSAGE: fixed sizes make no model. KILN_ENOMEM: no model of the ladder (or not the
 * one that is fixed) fits the memory. KILN_EINPUT: the text has not enough for one window. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_choose(const struct kiln_choose_request *request,
                                                      struct kiln_choice *out,
                                                      struct kiln_err *err);

/* The law itself: held-out bits a byte of a model whose layers have `parameters` parameters (2D
 * arrays only), after `tokens` of a text were read in batches as chosen. */
KILN_API double kiln_law_bits(const struct kiln_choose_text *text, size_t vocab, double parameters,
                              double tokens);
/* Bytes a token of a byte-pair vocabulary learned from such a text. */
KILN_API double kiln_law_bytes_per_token(const struct kiln_choose_text *text, size_t vocab);

/* Number of FLOPs that a token costs a model of these dims, forward and backward. */
KILN_API double kiln_flops_per_token(const struct kiln_dims *dims, size_t seq);

/* Models to measure: the ladder's shapes, rising, whose rates tell those of all. Returns how many,
 * at most KILN_RATES. */
KILN_API size_t kiln_choose_probes(size_t vocab, size_t seq, struct kiln_dims *out, size_t room);

#ifdef __cplusplus
}
#endif

#endif

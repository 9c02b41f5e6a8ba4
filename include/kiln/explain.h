/* SPDX-License-Identifier: MIT
 *
 * explain.h: what went wrong in a step: take it again in double precision and look at everything.
 *
 *   struct kiln_explain_options how = {.run = "runs/book", .step = 812};
 *   struct kiln_explanation *why;
 *   kiln_explain(&how, &why, &err);
 *   puts(why->verdict); ...
 *   kiln_explain_free(why);
 *
 * The step's window and weights come from incidents/step-N/ (docs/flight-recorder.md); what is not
 * there comes from the state, where it stands right before the step, or from the newest checkpoint
 * before it, or else the weights that the run began with, from which it is trained again in a
 * temporary folder; the window then from the run's tokens. Files of the run are only read.
 *
 * Time: about as many operations as the step itself, and again for the window that it is held
 * against, in double precision without any of the kernels: some 5 GFLOP/s a thread.
 */
#ifndef KILN_EXPLAIN_H
#define KILN_EXPLAIN_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/model.h"
#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kiln_explain_options {
    const char *run;                   /* folder */
    uint64_t step;                     /* 1 for the first */
    size_t threads;                    /* 0: as many as processors */
    bool alone;                        /* do not take an ordinary window to hold it against */
    const volatile sig_atomic_t *stop; /* may be NULL; nonzero: give up, KILN_EINTERRUPTED */
    void *context;                     /* of the two below; either may be NULL */
    void (*on_notice)(void *context, const char *text);
    /* So many sequences of all are done, and so long it will still take. */
    void (*on_progress)(void *context, size_t done, size_t all, double seconds);
};

/* What the step is found to suffer from. */
enum kiln_explain_kind {
    KILN_EXPLAIN_HEALTHY,    /* nothing */
    KILN_EXPLAIN_WEIGHT,     /* a weight is no finite number */
    KILN_EXPLAIN_OVERFLOW,   /* an activation is none, even in double precision */
    KILN_EXPLAIN_PRECISION,  /* numbers are beyond what the run's precision holds */
    KILN_EXPLAIN_ARITHMETIC, /* the run found something else than this */
    KILN_EXPLAIN_BATCH,      /* sequences of the window are bad */
    KILN_EXPLAIN_WEIGHTS,    /* the model is bad on another window, too: it had gone wrong before */
    KILN_EXPLAIN_SPIKE, /* this window is hard for this model; no single sequence is to blame */
};
/* "healthy", "weight", ... */
KILN_API const char *kiln_explain_kind_name(enum kiln_explain_kind kind);

#define KILN_EXPLAIN_NO_PLACE ((size_t)-1)

/* One number of a tensor. */
struct kiln_explain_place {
    size_t sequence, token; /* of the window; in it. Weights: KILN_EXPLAIN_NO_PLACE, and the row */
    size_t element;         /* of the token's row; weights: the column */
    double value;
};

/* A tensor in the order in which the step computes with it: a weight before what it makes. */
struct kiln_explain_tensor {
    char name[24]; /* "w1.3", "gate.3", "logits": the table's names; docs/explain.md has the others
                    */
    const char *what;                  /* "weight", "activation", "gradient" (of an activation) */
    size_t layer;                      /* KILN_NO_LAYER for those outside of layers */
    uint64_t values;                   /* that were looked at */
    uint64_t not_finite;               /* of them */
    uint64_t beyond;                   /* of them, though finite, larger than `limit` */
    double limit;                      /* what the run holds here (docs/explain.md) */
    struct kiln_explain_place first;   /* not finite, or else beyond; where there is one */
    struct kiln_explain_place largest; /* of those that are finite */
};

/* Tokens around one of the window. Texts are UTF-8 cut anywhere; "" without a tokenizer. */
struct kiln_explain_text {
    size_t sequence, token;
    uint64_t sample;   /* number of the sequence in the run's data order */
    size_t file;       /* of the data; KILN_EXPLAIN_NO_PLACE: unknown */
    size_t at;         /* token of that file */
    uint32_t first, n; /* ids[0] is token `first` of the sequence */
    uint32_t ids[17];
    uint32_t target; /* what was to be said behind it; KILN_NO_TARGET */
    char before[320], piece[96], after[320];
};

/* Why a sequence is called bad, as bits. */
enum {
    KILN_EXPLAIN_ABOVE_CHANCE = 1 << 0, /* its loss is above ln V, that of saying nothing */
    KILN_EXPLAIN_REPEATED = 1 << 1,     /* most of its tokens, or of its targets, are one id */
    KILN_EXPLAIN_TARGETS = 1 << 2,      /* targets are not the tokens that come next */
    KILN_EXPLAIN_OUTLIER = 1 << 3,      /* its loss is far above that of others: a z above 8 */
};

struct kiln_explain_sequence {
    uint64_t sample;
    double loss; /* mean over its targets; NaN where it has none or is not finite */
    /* Deviations above the mean of the window's other sequences, and of those of the ordinary
     * window; at least a 32nd of the mean is taken for the deviation. NaN: too few, or none. */
    double z, ordinary_z;
    size_t targets, misfits; /* that count; that are not the token behind */
    uint32_t repeated;       /* the id that is there most often, */
    size_t times;            /* so often, */
    bool repeated_target;    /* among the targets, or else among the tokens */
    unsigned reasons;        /* 0: nothing is wrong with it */
    double worst;            /* largest loss of a token */
    size_t worst_token;
    struct kiln_explain_text text; /* around that token */
};

/* A token that was hard to say. */
struct kiln_explain_token {
    double loss;
    uint32_t said; /* what the model finds likeliest there */
    double chance; /* of that */
    char said_piece[96], target_piece[96];
    struct kiln_explain_text text; /* around the token before the target */
};

/* The gradient of a trained tensor, over the whole window. NaN: unknown. */
struct kiln_explain_gradient {
    char name[24];
    double norm, largest;  /* in double precision */
    double recorded;       /* norm, by the run */
    uint64_t recorded_bad; /* numbers of it that the run found not finite */
    double ordinary;       /* norm in the window that this one is held against */
};

enum { KILN_EXPLAIN_TOKENS = 8 };

struct kiln_explanation {
    uint64_t step;
    enum kiln_explain_kind kind;
    char verdict[512]; /* one sentence */
    char advice[512];  /* what to do */

    bool incident;                           /* the run recorded one */
    double recorded_z;                       /* of what it was recorded for; NaN: unknown */
    char why[40], action[24];                /* "loss spike", "skipped"; "" without an incident */
    double recorded_loss, recorded_norm, lr; /* by the run; NaN: not finite, or unknown */
    double z, mean, deviation;               /* of the loss, beside steps before; NaN: unknown */
    char weights_from[80], window_from[80];  /* where they were taken from */
    char note[240];                          /* what else should be known; "" for nothing */
    char precision[8];                       /* of the run: "bf16" */
    double scale;                            /* what it multiplied gradients by; 1: fp32, bf16 */

    uint64_t sample;       /* the window's first */
    size_t sequences, seq; /* of it, and tokens in each */
    size_t vocab;
    double chance;     /* ln V */
    double loss, norm; /* in double precision; norm NaN where no gradient was taken */
    bool backward;     /* one was: everything forward is finite */
    double ordinary_loss, ordinary_norm; /* of the window held against; NaN: none was taken */
    double ordinary_deviation;           /* of its sequences' losses */
    uint64_t ordinary_sample;

    struct kiln_explain_tensor *walk; /* [n_walk] */
    size_t n_walk;
    size_t first;  /* the first of them that is bad; KILN_EXPLAIN_NO_PLACE: none */
    size_t shown;  /* the first activation that it made bad; the same */
    bool has_text; /* of the place where `shown` (or `first`) is bad */
    struct kiln_explain_text text;
    char token[96]; /* `first` is a row of the embedding or classifier: its token's text */

    struct kiln_explain_sequence *sequence;                /* [sequences] */
    struct kiln_explain_token tokens[KILN_EXPLAIN_TOKENS]; /* by loss, the largest first */
    size_t n_tokens;
    struct kiln_explain_gradient *gradient; /* [n_gradients], those that stand out most first */
    size_t n_gradients;
};

/* KILN_EINPUT: the run has no such step, or nothing to take it from (no incident's weights, no
 * checkpoint, and the model that it began from is gone or another), or sizes that contradict each
 * other: the message says which. KILN_EDAMAGED: an incident's file is not what incident.json says.
 * KILN_EBUSY: another process trains the run, and weights would have to be made. KILN_ENOMEM,
 * KILN_EIO. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_explain(const struct kiln_explain_options *options,
                                                       struct kiln_explanation **out,
                                                       struct kiln_err *err);
KILN_API void kiln_explain_free(struct kiln_explanation *out);

#ifdef __cplusplus
}
#endif

#endif

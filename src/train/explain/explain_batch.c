/* SPDX-License-Identifier: MIT
 *
 * explain_batch.c: which sequences of a window are bad, and why.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kiln/text.h"
#include "train/explain/explain_int.h"

/* So far above the others: as --spike-z has it by default. */
#define OUTLIER_Z 8.0
/* Under the deviation lies a floor, as under that of spikes: few sequences tell little of it. */
#define DEVIATION_FLOOR (1.0 / 32)
/* Another window is better than chance when its loss is below so much of ln V. */
#define BETTER_THAN_CHANCE 0.9

static int ascending(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The id that n ids hold most often, of those that count; sorts them. */
static size_t most_frequent(uint32_t *ids, size_t n, uint32_t *id) {
    size_t most = 0;
    qsort(ids, n, sizeof *ids, ascending);
    for (size_t i = 0, run = 0; i < n; i++) {
        run = i > 0 && ids[i] == ids[i - 1] ? run + 1 : 1;
        if (run > most && ids[i] != KILN_NO_TARGET) {
            most = run;
            *id = ids[i];
        }
    }
    return most;
}

/* More than half of the tokens, or of the targets that count, are one id. */
static bool repeats(const struct kiln_evidence_window *w, size_t s, uint32_t *scratch,
                    struct kiln_explain_sequence *out) {
    uint32_t id = 0;
    memcpy(scratch, w->tokens + s * w->seq, w->seq * sizeof *scratch);
    out->times = most_frequent(scratch, w->seq, &out->repeated);
    const bool tokens = 2 * out->times > w->seq;
    memcpy(scratch, w->targets + s * w->seq, w->seq * sizeof *scratch);
    const size_t times = most_frequent(scratch, w->seq, &id);
    const bool targets = out->targets > 2 && 2 * times > out->targets;
    if (times > out->times) {
        out->times = times;
        out->repeated = id;
        out->repeated_target = true;
    }
    return tokens || targets;
}

static void measure(const struct kiln_evidence *e, const double *losses, size_t s,
                    struct kiln_explain_sequence *out) {
    const struct kiln_evidence_window *w = &e->window;
    double sum = 0;
    *out = (struct kiln_explain_sequence){.sample = w->sample + s, .worst = -1};
    for (size_t t = 0; t < w->seq; t++) {
        const size_t i = s * w->seq + t;
        if (w->targets[i] == KILN_NO_TARGET) {
            continue;
        }
        out->targets++;
        out->misfits += t + 1 < w->seq && w->targets[i] != w->tokens[i + 1];
        sum += losses[i];
        if (losses[i] > out->worst) {
            out->worst = losses[i];
            out->worst_token = t;
        }
    }
    const double loss = sum / (double)out->targets;
    out->loss = isfinite(loss) ? loss : (double)NAN;
    kiln_explain_around(e, s, out->worst_token, &out->text);
}

/* Of each sequence, how far its loss is above that of all others. */
static void score(struct kiln_explain_sequence *list, size_t n) {
    for (size_t s = 0; s < n; s++) {
        double sum = 0, squares = 0, count = 0;
        for (size_t i = 0; i < n; i++) {
            if (i != s && isfinite(list[i].loss)) {
                sum += list[i].loss;
                count++;
            }
        }
        const double mean = sum / count;
        for (size_t i = 0; i < n; i++) {
            if (i != s && isfinite(list[i].loss)) {
                squares += (list[i].loss - mean) * (list[i].loss - mean);
            }
        }
        const double deviation = fmax(sqrt(squares / count), mean * DEVIATION_FLOOR);
        list[s].z = count >= 2 ? (list[s].loss - mean) / deviation : (double)NAN;
    }
}

/* The same beside the sequences of another window: two bad ones of a few hide each other. */
static void score_beside(struct kiln_explanation *out) {
    const double deviation = fmax(out->ordinary_deviation, out->ordinary_loss * DEVIATION_FLOOR);
    for (size_t s = 0; s < out->sequences; s++) {
        out->sequence[s].ordinary_z = (out->sequence[s].loss - out->ordinary_loss) / deviation;
    }
}

/* The loss of other windows, or of the other sequences: is this model better than chance? */
static bool better_than_chance(const struct kiln_explanation *out, size_t s, double usual) {
    double sum = 0, count = 0;
    for (size_t i = 0; i < out->sequences; i++) {
        if (i != s && isfinite(out->sequence[i].loss)) {
            sum += out->sequence[i].loss;
            count++;
        }
    }
    const double others = isfinite(usual) ? usual : sum / count;
    return others < BETTER_THAN_CHANCE * out->chance;
}

enum kiln_status kiln_explain_batch(const struct kiln_evidence *e,
                                    const struct kiln_explain_pass *pass, double usual,
                                    struct kiln_explanation *out, struct kiln_err *err) {
    const struct kiln_evidence_window *w = &e->window;
    uint32_t *scratch = kiln_alloc(w->seq, sizeof *scratch);
    out->sequence = kiln_alloc(w->sequences, sizeof *out->sequence);
    if (!scratch || !out->sequence) {
        kiln_free(scratch);
        return KILN_FAIL(err, KILN_ENOMEM, "explain: not enough memory");
    }
    for (size_t s = 0; s < w->sequences; s++) {
        measure(e, pass->losses, s, &out->sequence[s]);
    }
    score(out->sequence, w->sequences);
    score_beside(out);
    for (size_t s = 0; s < w->sequences; s++) {
        struct kiln_explain_sequence *one = &out->sequence[s];
        one->reasons = repeats(w, s, scratch, one) ? KILN_EXPLAIN_REPEATED : 0;
        one->reasons |= one->misfits > 0 ? KILN_EXPLAIN_TARGETS : 0;
        one->reasons |=
            one->z > OUTLIER_Z || one->ordinary_z > OUTLIER_Z ? KILN_EXPLAIN_OUTLIER : 0;
        one->reasons |= one->loss > out->chance && better_than_chance(out, s, usual)
                            ? KILN_EXPLAIN_ABOVE_CHANCE
                            : 0;
    }
    kiln_free(scratch);
    return KILN_OK;
}

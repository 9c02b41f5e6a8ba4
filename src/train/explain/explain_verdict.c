/* SPDX-License-Identifier: MIT
 *
 * explain_verdict.c: what all that was seen amounts to, in a sentence, and what to do about it.
 *
 * The first that holds: a weight is no number; an activation is none in double precision either;
 * numbers are beyond the run's precision; the run found something else than double precision does;
 * sequences are bad; another window is bad on these weights, too; the window is hard; nothing.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/explain/explain_int.h"

/* A loss so many deviations above the steps before is no usual one (the default of --spike-z). */
#define SPIKE_Z 8.0

const char *kiln_explain_kind_name(enum kiln_explain_kind kind) {
    static const char *const names[] = {"healthy",    "weight", "overflow", "precision",
                                        "arithmetic", "batch",  "weights",  "spike"};
    return names[kind];
}

#define SAY(...)    snprintf(out->verdict, sizeof out->verdict, __VA_ARGS__)
#define ADVISE(...) snprintf(out->advice, sizeof out->advice, __VA_ARGS__)

/* ---- numbers that are none --------------------------------------------------------------------
 */

static const char *number_name(double value) {
    return isnan(value) ? "NaN" : value > 0 ? "infinity" : "-infinity";
}

static void say_weight(struct kiln_explanation *out) {
    const struct kiln_explain_tensor *t = &out->walk[out->first];
    char row[160] = "";
    out->kind = KILN_EXPLAIN_WEIGHT;
    if (out->token[0]) {
        snprintf(row, sizeof row, " (the row of token %zu, \"%.60s\")", t->first.token, out->token);
    }
    SAY("weight %s [%zu, %zu]%s is %s before the step is taken; of the %" PRIu64
        " numbers that are read of it %" PRIu64
        " %s not finite, and what is computed from them "
        "is not either",
        t->name, t->first.token, t->first.element, row, number_name(t->first.value), t->values,
        t->not_finite, t->not_finite == 1 ? "is" : "are");
    ADVISE(
        "An update whose gradient is not finite is never made, so the weight was damaged where "
        "it lay: look at the machine's memory and disk, and at programs that write to the run "
        "folder. Go back to the newest checkpoint from before (kiln verify checks them), and "
        "train with --on-spike rollback, which does that by itself.");
}

static void say_overflow(struct kiln_explanation *out) {
    const struct kiln_explain_tensor *t = &out->walk[out->first];
    out->kind = KILN_EXPLAIN_OVERFLOW;
    SAY("%s %s becomes %s at sequence %zu, token %zu, element %zu, in double precision too, though "
        "all weights are finite: they have grown beyond all measure",
        t->what, t->name, number_name(t->first.value), t->first.sequence, t->first.token,
        t->first.element);
    ADVISE(
        "The model had diverged before: go back to a checkpoint from before its loss rose, and "
        "train with a lower --lr, a longer --warmup, or --on-spike rollback.");
}

/* What the loss scale is for: such a window is passed over. */
static void say_scale(struct kiln_explanation *out) {
    const struct kiln_explain_tensor *t = &out->walk[out->first];
    out->kind = KILN_EXPLAIN_PRECISION;
    SAY("%s %s reaches %.4g, times the loss scale of %g that is %.4g, and fp16 ends at 65504: it "
        "overflows there, while double precision stays finite (loss %.4f)",
        t->what, t->name, t->largest.value, out->scale, t->largest.value * out->scale, out->loss);
    ADVISE(
        "Such a window is skipped, and the next has half the scale: now and then that is how the "
        "scale is found, and nothing is to be done. Where many in a row are, train with a lower "
        "--lr, or on --device cpu, whose bf16 holds numbers up to 3e38.");
}

static void say_precision(struct kiln_explanation *out) {
    const struct kiln_explain_tensor *t = &out->walk[out->first];
    if (out->scale > 1 && strcmp(t->what, "gradient") == 0) {
        say_scale(out);
        return;
    }
    const bool fp16 = t->limit < 1e6;
    out->kind = KILN_EXPLAIN_PRECISION;
    const bool matmul = t->limit == KILN_WALK_MATMUL_MOST;
    SAY("%s %s reaches %.4g, and %s ends at %.5g: it overflows there, while double precision stays "
        "finite (loss %.4f)",
        t->what, t->name, t->largest.value,
        matmul ? "a matmul of the device"
        : fp16 ? "fp16"
               : out->precision,
        t->limit, out->loss);
    ADVISE(fp16 ? "Train with a lower --lr or a stronger --weight-decay, so that activations stay "
                  "small, or on --device cpu, whose bf16 holds numbers up to 3e38."
                : "The model has diverged: go back to a checkpoint from before its loss rose, and "
                  "train with a lower --lr, a longer --warmup, or --on-spike rollback.");
}

/* ---- the run and double precision -------------------------------------------------------------
 */

/* How far a loss of the run may be from the true one: several times what kiln verify allows for
 * references, since these are real models. */
static double tolerance(const struct kiln_evidence *e) {
    return e->precision == KILN_PRECISION_FP32 ? 1e-3 : 3e-2;
}

static bool another(const struct kiln_evidence *e, const struct kiln_explanation *out) {
    if (!e->recorded) {
        return false;
    }
    const bool not_finite = isnan(out->recorded_loss) || isnan(out->recorded_norm);
    return not_finite ||
           fabs(out->recorded_loss - out->loss) > tolerance(e) * fmax(fabs(out->loss), 1e-3);
}

/* The first tensor on the way back whose gradient the run found bad: the highest in the model. */
static const struct kiln_explain_gradient *highest_bad(const struct kiln_evidence *e,
                                                       const struct kiln_explanation *out) {
    const struct kiln_table *table = e->run->table;
    for (size_t i = table->n_tensors; i-- > 0;) {
        for (size_t k = 0; k < out->n_gradients; k++) {
            if (out->gradient[k].recorded_bad > 0 &&
                strcmp(out->gradient[k].name, table->tensors[i].name) == 0) {
                return &out->gradient[k];
            }
        }
    }
    return NULL;
}

static void say_arithmetic(const struct kiln_evidence *e, struct kiln_explanation *out) {
    const struct kiln_explain_gradient *bad = highest_bad(e, out);
    char where[120] = "", loss[32], norm[32];
    out->kind = KILN_EXPLAIN_ARITHMETIC;
    if (bad) {
        snprintf(where, sizeof where, "; the first gradient that it found no number is that of %s",
                 bad->name);
    }
    snprintf(loss, sizeof loss, isnan(out->recorded_loss) ? "not finite" : "%.4f",
             out->recorded_loss);
    snprintf(norm, sizeof norm, isnan(out->recorded_norm) ? "not finite" : "%.4g",
             out->recorded_norm);
    SAY("the run computed a loss that is %s and a gradient norm that is %s, double precision from "
        "the same weights and tokens %.4f and %.4g, and no number comes near the limits of %s%s",
        loss, norm, out->loss, out->norm, out->precision, where);
    ADVISE(
        "The arithmetic is in doubt: kiln verify RUN trains a part of the run again and compares "
        "the bits; kiln verify --reference DIR holds the device against known results. Where "
        "these differ from time to time, test the machine's memory.");
}

/* ---- the data ---------------------------------------------------------------------------------
 */

static const struct kiln_explain_sequence *worst_sequence(const struct kiln_explanation *out,
                                                          size_t *n, size_t *index) {
    const struct kiln_explain_sequence *worst = NULL;
    *n = 0;
    for (size_t i = 0; i < out->sequences; i++) {
        const struct kiln_explain_sequence *s = &out->sequence[i];
        *n += s->reasons != 0;
        if (s->reasons != 0 && (!worst || s->loss > worst->loss)) {
            worst = s;
            *index = i;
        }
    }
    return worst;
}

/* "its targets are not the tokens that come next, and its loss is above ln V" */
static void reasons_text(const struct kiln_explanation *out, const struct kiln_explain_sequence *s,
                         char *text, size_t size) {
    char part[4][120];
    size_t n = 0, used = 0;
    if (s->reasons & KILN_EXPLAIN_TARGETS) {
        snprintf(part[n++], sizeof part[0], "%zu of %zu targets are not the token that comes next",
                 s->misfits, s->targets);
    }
    if (s->reasons & KILN_EXPLAIN_REPEATED) {
        snprintf(part[n++], sizeof part[0], "%zu of %zu %s are token %u", s->times,
                 s->repeated_target ? s->targets : out->seq,
                 s->repeated_target ? "targets" : "tokens", (unsigned)s->repeated);
    }
    if (s->reasons & KILN_EXPLAIN_ABOVE_CHANCE) {
        snprintf(part[n++], sizeof part[0], "its loss %.3f is above ln V = %.3f", s->loss,
                 out->chance);
    }
    if ((s->reasons & KILN_EXPLAIN_OUTLIER) && !(s->reasons & KILN_EXPLAIN_ABOVE_CHANCE)) {
        const bool beside = !(s->z > s->ordinary_z);
        snprintf(part[n++], sizeof part[0], "its loss %.3f is %.1f deviations above that of %s",
                 s->loss, beside ? s->ordinary_z : s->z,
                 beside ? "the window beside it" : "the others");
    }
    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s%s",
                                 i == 0       ? ""
                                 : i + 1 == n ? " and "
                                              : ", ",
                                 part[i]);
    }
}

static void say_batch(struct kiln_explanation *out) {
    char text[400];
    size_t n, index = 0;
    const struct kiln_explain_sequence *s = worst_sequence(out, &n, &index);
    out->kind = KILN_EXPLAIN_BATCH;
    reasons_text(out, s, text, sizeof text);
    if (n == 1) {
        SAY("sequence %zu, sample %" PRIu64 ", is bad: %s", index, s->sample, text);
    } else {
        SAY("%zu of %zu sequences are bad, the worst is sequence %zu, sample %" PRIu64 ": %s", n,
            out->sequences, index, s->sample, text);
    }
    ADVISE("Look at the text of sample %" PRIu64
           " below, and mend or remove it in the data. "
           "--on-spike skip passes over such windows without an update.",
           s->sample);
}

/* Sequences that are bad in a way that matters: repetition, and being harder than others, are some
 * texts' nature as long as nothing went wrong. */
static bool bad_batch(const struct kiln_explanation *out) {
    const unsigned always = KILN_EXPLAIN_TARGETS | KILN_EXPLAIN_ABOVE_CHANCE;
    for (size_t i = 0; i < out->sequences; i++) {
        const unsigned reasons = out->sequence[i].reasons;
        if ((reasons & always) != 0 || (reasons != 0 && out->incident)) {
            return true;
        }
    }
    return false;
}

/* ---- spikes -----------------------------------------------------------------------------------
 */

static bool above(const struct kiln_explanation *out, double loss) {
    return loss > out->mean + SPIKE_Z / 2 * fmax(out->deviation, out->mean / 32);
}

/* "gradient norm 12.3", and what the run found where that is something else: a norm that depends on
 * how numbers are rounded is that of neither alone. */
static const char *norm_text(const struct kiln_explanation *out, char text[120]) {
    const bool differ = isfinite(out->recorded_norm) && isfinite(out->norm) &&
                        fabs(out->recorded_norm - out->norm) > 0.2 * fmax(out->norm, 1e-6);
    snprintf(text, 120, "gradient norm %.4g", out->norm);
    if (differ) {
        snprintf(text, 120, "gradient norm %.4g in double precision and %.4g in the run's %s",
                 out->norm, out->recorded_norm, out->precision);
    }
    return text;
}

/* Is the model to blame, and not this window? The window beside it is above chance, as bad as this
 * one by what the step was recorded for, or far above what the steps before had. */
static bool bad_weights(const struct kiln_explanation *out) {
    const bool norm = strcmp(out->why, "gradient spike") == 0;
    if (above(out, out->ordinary_loss) && above(out, out->loss)) {
        return true;
    }
    if (!out->incident || !isfinite(out->ordinary_loss)) {
        return false;
    }
    return out->ordinary_loss > out->chance ||
           (norm ? out->ordinary_norm >= 0.7 * out->norm : out->ordinary_loss >= 0.9 * out->loss);
}

static void say_weights(struct kiln_explanation *out) {
    char before[48] = "", norm[120];
    out->kind = KILN_EXPLAIN_WEIGHTS;
    if (isfinite(out->mean)) {
        snprintf(before, sizeof before, ", where the steps before had %.4f", out->mean);
    }
    SAY("the model had gone wrong before this step: on the window of sample %" PRIu64
        " its loss is %.4f and its gradient norm %.4g, on this one loss %.4f, %s%s",
        out->ordinary_sample, out->ordinary_loss, out->ordinary_norm, out->loss,
        norm_text(out, norm), before);
    ADVISE(
        "Go back to a checkpoint from before the loss rose, and train with a lower --lr, a "
        "longer --warmup, a smaller --clip, or --on-spike rollback.");
}

static void say_spike(struct kiln_explanation *out) {
    const struct kiln_explain_gradient *g = out->n_gradients > 0 ? &out->gradient[0] : NULL;
    char most[120] = "", beside[120] = "", norm[120];
    out->kind = KILN_EXPLAIN_SPIKE;
    if (g && isfinite(g->ordinary) && g->ordinary > 0) {
        snprintf(most, sizeof most,
                 "; the gradient of %s stands out most, %.3g times what it is there", g->name,
                 g->norm / g->ordinary);
    }
    if (isfinite(out->ordinary_loss)) {
        snprintf(beside, sizeof beside,
                 ", where the window of sample %" PRIu64 " has %.4f and %.4g", out->ordinary_sample,
                 out->ordinary_loss, out->ordinary_norm);
    }
    SAY("this window is hard for the model as it is: loss %.4f, %s%s; no single "
        "sequence is to blame%s",
        out->loss, norm_text(out, norm), beside, most);
    ADVISE(
        "One such step is nothing to worry about. If they come often: a lower --lr, a smaller "
        "--clip, or larger windows (--accum); --on-spike skip passes over them.");
}

static void say_healthy(struct kiln_explanation *out) {
    char recorded[64] = "", beside[96] = "";
    out->kind = KILN_EXPLAIN_HEALTHY;
    if (isfinite(out->recorded_loss)) {
        snprintf(recorded, sizeof recorded, " (the run had %.4f)", out->recorded_loss);
    }
    if (isfinite(out->ordinary_loss)) {
        snprintf(beside, sizeof beside, "; the window of sample %" PRIu64 " has %.4f",
                 out->ordinary_sample, out->ordinary_loss);
    }
    SAY("nothing is wrong with this step: loss %.4f%s, gradient norm %.4g, all numbers finite and "
        "within the limits of %s%s",
        out->loss, recorded, out->norm, out->precision, beside);
    ADVISE("Nothing is to be done.");
}

void kiln_explain_judge(const struct kiln_evidence *e, struct kiln_explanation *out) {
    const struct kiln_explain_tensor *first =
        out->first == KILN_EXPLAIN_NO_PLACE ? NULL : &out->walk[out->first];
    if (first && first->not_finite > 0 && strcmp(first->what, "weight") == 0) {
        say_weight(out);
    } else if (first && first->not_finite > 0) {
        say_overflow(out);
    } else if (first) {
        say_precision(out);
    } else if (another(e, out)) {
        say_arithmetic(e, out);
    } else if (bad_batch(out)) {
        say_batch(out);
    } else if (bad_weights(out)) {
        say_weights(out);
    } else if (out->incident || out->z > SPIKE_Z) {
        say_spike(out);
    } else {
        say_healthy(out);
    }
}

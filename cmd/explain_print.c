/* SPDX-License-Identifier: MIT
 *
 * explain_print.c: an explanation as people read it: the verdict first, then what it stands on.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain.h"
#include "kiln/text.h"
#include "output.h"

enum { MOST_LINES = 8 };

/* A number in a column; what is not finite or unknown is a dash. */
static const char *figure(const char *format, double value, char out[32]) {
    snprintf(out, 32, isfinite(value) ? format : "-", value);
    return out;
}

/* Text of the data, on one line: what would break it, or is a command to a terminal, is written as
 * in C; what is not UTF-8 as U+FFFD. */
static void print_text(const char *text) {
    json_t *clean = json_bytes(text, strlen(text));
    for (const char *at = clean ? json_string_value(clean) : ""; *at; at++) {
        const unsigned char c = (unsigned char)*at, next = (unsigned char)at[1];
        if (c == '\n') {
            fputs("\\n", stdout);
        } else if (c == '\t') {
            fputs("\\t", stdout);
        } else if (c < ' ' || c == 0x7f) {
            printf("\\x%02x", c);
        } else if (c == 0xc2 && next < 0xa0) { /* U+0080 to U+009F */
            printf("\\x%02x", next);
            at++;
        } else {
            putchar(c);
        }
    }
    json_decref(clean);
}

/* The token in brackets, in what surrounds it; ids where there is no tokenizer. */
static void print_around(const struct kiln_explain_text *t) {
    printf("    ");
    if (t->piece[0] || t->before[0] || t->after[0]) {
        print_text(t->before);
        fputs(">>", stdout);
        print_text(t->piece);
        fputs("<<", stdout);
        print_text(t->after);
    } else {
        for (uint32_t i = 0; i < t->n; i++) {
            printf(t->first + i == t->token ? ">>%u<< " : "%u ", (unsigned)t->ids[i]);
        }
    }
    putchar('\n');
}

static void print_place(const struct kiln_explain_text *t) {
    printf("  sequence %zu, token %zu: sample %" PRIu64, t->sequence, t->token, t->sample);
    if (t->file != KILN_EXPLAIN_NO_PLACE) {
        printf(", token %zu of file %zu of the data", t->at, t->file + 1);
    }
    printf("; id %u\n", (unsigned)t->ids[t->token - t->first]);
    print_around(t);
}

/* ---- the step ---------------------------------------------------------------------------------
 */

static const char *or_none(const char *format, double value, char out[32]) {
    snprintf(out, 32, isfinite(value) ? format : "not finite", value);
    return out;
}

static void print_head(const char *run, const struct kiln_explanation *w) {
    char a[32], b[32];
    printf("%s@%" PRIu64 ": %s\n", run, w->step, w->incident ? w->why : "no incident");
    if (w->incident) {
        printf("  recorded    loss %s, gradient norm %s, lr %.3g",
               or_none("%.4f", w->recorded_loss, a), or_none("%.4g", w->recorded_norm, b), w->lr);
        if (isfinite(w->recorded_z)) {
            printf(", z %.1f", w->recorded_z);
        }
        printf("; action: %s\n", w->action);
    } else if (isfinite(w->recorded_loss)) {
        printf("  recorded    loss %.4f, gradient norm %s, lr %.3g\n", w->recorded_loss,
               or_none("%.4g", w->recorded_norm, b), w->lr);
    }
    if (isfinite(w->mean)) {
        printf("  before it   loss %.4f, deviation %.4f", w->mean, w->deviation);
        printf(isfinite(w->z) ? "; its z is %.1f\n" : "\n", w->z);
    }
    printf("  weights     %s\n", w->weights_from);
    printf("  window      %s: samples %" PRIu64 " to %" PRIu64 ", %zu tokens each\n",
           w->window_from, w->sample, w->sample + w->sequences - 1, w->seq);
    printf("  in double   loss %s, gradient norm %s; ln V is %.4f\n", or_none("%.4f", w->loss, a),
           w->backward ? or_none("%.4g", w->norm, b) : "not taken", w->chance);
    if (isfinite(w->ordinary_loss)) {
        printf("  beside it   the window of sample %" PRIu64 ": loss %.4f, gradient norm %s\n",
               w->ordinary_sample, w->ordinary_loss, figure("%.4g", w->ordinary_norm, b));
    }
    if (w->note[0]) {
        printf("  note        %s\n", w->note);
    }
}

static void print_verdict(const struct kiln_explanation *w) {
    const char first = w->verdict[0];
    printf("\n%c", first >= 'a' && first <= 'z' ? first - 'a' + 'A' : first);
    print_text(w->verdict + 1);
    printf(".\n%s\n", w->advice);
}

/* ---- the walk ---------------------------------------------------------------------------------
 */

static const char *value_of(double value, char out[32]) {
    snprintf(out, 32, "%.6g", value);
    return isfinite(value) ? out : isnan(value) ? "NaN" : value > 0 ? "infinity" : "-infinity";
}

static void print_tensor(const struct kiln_explain_tensor *t) {
    const struct kiln_explain_place *at = &t->first;
    const bool none = t->not_finite > 0;
    char value[32];
    printf("  %-10s  %-16s ", t->what, t->name);
    if (at->sequence == KILN_EXPLAIN_NO_PLACE) {
        printf("[%zu, %zu]", at->token, at->element);
    } else {
        printf("sequence %zu, token %zu, element %zu", at->sequence, at->token, at->element);
    }
    printf(" is %s; %" PRIu64 " of %" PRIu64 " %s", value_of(at->value, value),
           none ? t->not_finite : t->beyond, t->values, none ? "not finite" : "too large");
    printf(none ? "\n" : ", the limit is %.4g\n", t->limit);
}

static void print_first(const struct kiln_explanation *w) {
    if (w->first == KILN_EXPLAIN_NO_PLACE) {
        return;
    }
    printf("\nfirst that is bad, in the order in which a step computes\n");
    size_t printed = 0;
    for (size_t i = w->first; i < w->n_walk && printed < 4; i++) {
        const struct kiln_explain_tensor *t = &w->walk[i];
        if (t->not_finite > 0 || (t->beyond > 0 && w->walk[w->first].not_finite == 0)) {
            print_tensor(t);
            printed++;
        }
    }
    if (w->has_text) {
        printf("\nwhere %s is bad first\n", w->walk[w->shown].name);
        print_place(&w->text);
    }
}

/* How near the limits the largest numbers are. */
static void print_largest(const struct kiln_explanation *w) {
    const struct kiln_explain_tensor *near = NULL;
    for (size_t i = 0; i < w->n_walk; i++) {
        const struct kiln_explain_tensor *t = &w->walk[i];
        if (!near || fabs(t->largest.value) / t->limit > fabs(near->largest.value) / near->limit) {
            near = t;
        }
    }
    if (near && w->first == KILN_EXPLAIN_NO_PLACE) {
        printf("\nnearest to its limit in %s: %s %s, %.4g of %.4g\n", w->precision, near->what,
               near->name, fabs(near->largest.value), near->limit);
    }
}

/* ---- sequences and tokens ---------------------------------------------------------------------
 */

static const struct kiln_explanation *sorted; /* of qsort, which hands nothing on */
static int harder(const void *a, const void *b) {
    const double x = sorted->sequence[*(const size_t *)a].loss;
    const double y = sorted->sequence[*(const size_t *)b].loss;
    return isnan(x) || isnan(y) ? isnan(x) - isnan(y) : (x < y) - (x > y);
}

static void print_reasons(const struct kiln_explain_sequence *s) {
    static const char *const names[] = {"above ln V", "repeats", "targets do not fit", "outlier"};
    const char *between = "  ";
    for (int i = 0; i < 4; i++) {
        if (s->reasons & (1U << i)) {
            printf("%s%s", between, names[i]);
            between = ", ";
        }
    }
    putchar('\n');
}

static void print_sequences(const struct kiln_explanation *w) {
    size_t *order = malloc(w->sequences * sizeof *order);
    char loss[32], z[32], beside[32];
    for (size_t i = 0; order && i < w->sequences; i++) {
        order[i] = i;
    }
    sorted = w;
    if (order) {
        qsort(order, w->sequences, sizeof *order, harder);
        printf("\n%-10s %10s %9s %7s %9s\n", "sequence", "sample", "loss", "z", "z beside");
    }
    for (size_t i = 0; order && i < w->sequences && i < MOST_LINES; i++) {
        const struct kiln_explain_sequence *s = &w->sequence[order[i]];
        printf("%8zu %12" PRIu64 " %9s %7s %9s", order[i], s->sample, figure("%.4f", s->loss, loss),
               figure("%.1f", s->z, z), figure("%.1f", s->ordinary_z, beside));
        print_reasons(s);
        if (s->reasons != 0) {
            print_around(&s->text);
        }
    }
    free(order);
}

static void print_id(uint32_t id, const char *piece) {
    printf("%u", (unsigned)id);
    if (piece[0]) {
        fputs(" \"", stdout);
        print_text(piece);
        putchar('"');
    }
}

static void print_tokens(const struct kiln_explanation *w) {
    if (w->n_tokens == 0) {
        return;
    }
    printf("\nhardest tokens: behind the one in >> <<, the model wanted another\n");
    for (size_t i = 0; i < w->n_tokens; i++) {
        const struct kiln_explain_token *t = &w->tokens[i];
        printf("  loss %.3f at sequence %zu, token %zu: target ", t->loss, t->text.sequence,
               t->text.token);
        print_id(t->text.target, t->target_piece);
        printf(", likeliest ");
        print_id(t->said, t->said_piece);
        printf(" (%.1f %%)\n", 100 * t->chance);
        print_around(&t->text);
    }
}

/* ---- gradients --------------------------------------------------------------------------------
 */

static void print_gradients(const struct kiln_explanation *w) {
    char text[4][32];
    if (!w->backward) {
        return; /* nothing comes back from what is no number */
    }
    printf("\n%-24s %11s %11s %11s %8s\n", "norm of the gradient of", "in double", "recorded",
           "ordinary", "ratio");
    for (size_t i = 0; i < w->n_gradients && i < MOST_LINES; i++) {
        const struct kiln_explain_gradient *g = &w->gradient[i];
        printf("%-24s %11s %11s %11s %8s\n", g->name, figure("%.4g", g->norm, text[0]),
               g->recorded_bad > 0 ? "not finite" : figure("%.4g", g->recorded, text[1]),
               figure("%.4g", g->ordinary, text[2]),
               figure("%.3g", g->ordinary > 0 ? g->norm / g->ordinary : (double)NAN, text[3]));
    }
}

void explain_print(const char *run, const struct kiln_explanation *w) {
    print_head(run, w);
    print_verdict(w);
    print_first(w);
    print_largest(w);
    if (isfinite(w->loss)) {
        print_sequences(w);
        print_tokens(w);
    }
    print_gradients(w);
}

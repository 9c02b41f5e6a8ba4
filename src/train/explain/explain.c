/* SPDX-License-Identifier: MIT
 *
 * explain.c: take a step again in double precision and fill in what is seen.
 */
#include "kiln/explain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "kiln/text.h"
#include "train/explain/explain_int.h"
#include "train/scale.h"

struct job {
    const struct kiln_explain_options *options;
    struct kiln_evidence evidence;
    struct kiln_explanation *out;
    struct kiln_pool *pool;
    struct kiln_float64 *model;
    struct kiln_walk walk;
    struct kiln_explain_pass pass, other; /* of the step's window, and of one beside it */
    double *norms, *largest;              /* [n_tensors] of the step's gradients */
    size_t done, all;                     /* sequences */
    double since;
};

/* ---- passes ------------------------------------------------------------------------------------
 */

static size_t count_targets(const struct kiln_evidence_window *w) {
    size_t n = 0;
    for (size_t i = 0; i < w->sequences * w->seq; i++) {
        n += w->targets[i] != KILN_NO_TARGET;
    }
    return n;
}

static enum kiln_status advance(struct job *job, struct kiln_err *err) {
    const struct kiln_explain_options *o = job->options;
    job->done++;
    const double left =
        (kiln_now_s() - job->since) / (double)job->done * (double)(job->all - job->done);
    if (o->on_progress) {
        o->on_progress(o->context, job->done, job->all, left);
    }
    KILN_REQUIRE(!o->stop || *o->stop == 0, err, KILN_EINTERRUPTED, "explain %s: stopped", o->run);
    return KILN_OK;
}

/* The likeliest id behind a token. */
static void take_said(const struct job *job, size_t t, struct kiln_explain_token *out) {
    const struct kiln_float64_values v =
        kiln_float64_stage(job->model, KILN_STAGE_LOGITS, KILN_NO_LAYER);
    const double *logits = v.at + t * v.apart;
    double sum = 0;
    out->said = 0;
    for (size_t i = 1; i < v.width; i++) {
        out->said = logits[i] > logits[out->said] ? (uint32_t)i : out->said;
    }
    for (size_t i = 0; i < v.width; i++) {
        sum += exp(logits[i] - logits[out->said]);
    }
    out->chance = 1 / sum;
    kiln_explain_piece(&job->evidence, out->said, out->said_piece);
}

/* Keep the hardest tokens of all sequences so far, in order. */
static void take_tokens(struct job *job, size_t s, const double *losses) {
    struct kiln_explanation *out = job->out;
    const struct kiln_evidence_window *w = &job->evidence.window;
    for (size_t t = 0; t < w->seq; t++) {
        size_t at = out->n_tokens;
        if (w->targets[s * w->seq + t] == KILN_NO_TARGET || !isfinite(losses[t])) {
            continue;
        }
        while (at > 0 && losses[t] > out->tokens[at - 1].loss) {
            at--;
        }
        if (at == KILN_EXPLAIN_TOKENS) {
            continue;
        }
        const size_t kept = kiln_least(out->n_tokens, KILN_EXPLAIN_TOKENS - 1);
        memmove(out->tokens + at + 1, out->tokens + at, (kept - at) * sizeof *out->tokens);
        out->n_tokens = kept + 1;
        out->tokens[at] = (struct kiln_explain_token){.loss = losses[t]};
        take_said(job, t, &out->tokens[at]);
        kiln_explain_piece(&job->evidence, w->targets[s * w->seq + t],
                           out->tokens[at].target_piece);
        kiln_explain_around(&job->evidence, s, t, &out->tokens[at].text);
    }
}

/* A window forward, and back as long as all is finite; `step`: it is the step's own. */
static enum kiln_status run_pass(struct job *job, const struct kiln_evidence_window *w, bool step,
                                 struct kiln_explain_pass *pass, bool *back, struct kiln_err *err) {
    const struct kiln_float64_watch watch = {&job->walk, kiln_walk_see};
    double sum = 0;
    pass->targets = count_targets(w);
    pass->losses = kiln_alloc(w->sequences * w->seq, sizeof *pass->losses);
    KILN_REQUIRE(pass->losses, err, KILN_ENOMEM, "explain: not enough memory");
    kiln_float64_set_watch(job->model, step ? &watch : NULL);
    kiln_float64_clear_gradients(job->model);
    for (size_t s = 0; s < w->sequences; s++) {
        const struct kiln_float64_sequence sequence = {w->tokens + s * w->seq,
                                                       w->targets + s * w->seq,
                                                       w->starts ? w->starts + s * w->seq : NULL};
        job->walk.sequence = s;
        sum += kiln_float64_forward(job->model, &sequence, pass->losses + s * w->seq);
        if (step) {
            take_tokens(job, s, pass->losses + s * w->seq);
        }
        *back = *back && isfinite(sum) &&
                (!step || kiln_walk_first(&job->walk, false) == KILN_EXPLAIN_NO_PLACE);
        if (*back) {
            kiln_float64_backward(job->model, 1 / fmax((double)pass->targets, 1));
        }
        KILN_TRY(advance(job, err));
    }
    pass->loss = sum / fmax((double)pass->targets, 1);
    return KILN_OK;
}

/* Norms of the gradients that were taken; returns that of all. */
static double take_norms(const struct job *job, double *norms, double *largest) {
    const struct kiln_table *table = job->evidence.run->table;
    const double *gradients = kiln_float64_gradients(job->model);
    double all = 0;
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        double sum = 0, most = 0;
        for (size_t k = 0; t->offset >= table->trained && k < t->rows * t->cols; k++) {
            const double g = gradients[kiln_trained_at(table, t->offset) + k];
            sum += g * g;
            most = fabs(g) > most ? fabs(g) : most;
        }
        norms[i] = sqrt(sum);
        if (largest) {
            largest[i] = most;
        }
        all += sum;
    }
    return sqrt(all);
}

/* ---- gradients --------------------------------------------------------------------------------
 */

/* How much a gradient stands out: what the run found no number first, then by how often it is as
 * large as in an ordinary window, or where there is none by its size. */
static double standing(const struct kiln_explain_gradient *g) {
    if (g->recorded_bad > 0) {
        return (double)INFINITY;
    }
    const double norm = isfinite(g->norm) ? g->norm : isfinite(g->recorded) ? g->recorded : 0;
    return g->ordinary > 0 ? norm / g->ordinary : norm;
}

static int by_standing(const void *a, const void *b) {
    const double x = standing(a), y = standing(b);
    return (x < y) - (x > y);
}

/* What incident.json says of a tensor's gradient. */
static void take_recorded(const struct kiln_evidence *e, struct kiln_explain_gradient *g) {
    const json_t *list = json_object_get(e->incident, "tensors");
    g->recorded = (double)NAN;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        const json_t *gradient = json_object_get(one, "gradient");
        if (!name || strcmp(name, g->name) != 0) {
            continue;
        }
        const json_t *norm = json_object_get(gradient, "norm");
        g->recorded = json_is_number(norm) ? json_number_value(norm) : (double)NAN;
        g->recorded_bad = (uint64_t)json_integer_value(json_object_get(gradient, "not_finite"));
    }
}

static enum kiln_status list_gradients(struct job *job, const double *ordinary,
                                       struct kiln_err *err) {
    const struct kiln_table *table = job->evidence.run->table;
    struct kiln_explanation *out = job->out;
    out->gradient = kiln_alloc(table->n_tensors, sizeof *out->gradient);
    KILN_REQUIRE(out->gradient, err, KILN_ENOMEM, "explain: not enough memory");
    for (size_t i = 0; i < table->n_tensors; i++) {
        struct kiln_explain_gradient *g = &out->gradient[out->n_gradients];
        if (table->tensors[i].offset < table->trained) {
            continue;
        }
        out->n_gradients++;
        memcpy(g->name, table->tensors[i].name, sizeof g->name);
        g->norm = out->backward ? job->norms[i] : (double)NAN;
        g->largest = out->backward ? job->largest[i] : (double)NAN;
        g->ordinary = ordinary ? ordinary[i] : (double)NAN;
        take_recorded(&job->evidence, g);
    }
    qsort(out->gradient, out->n_gradients, sizeof *out->gradient, by_standing);
    return KILN_OK;
}

/* ---- the step ---------------------------------------------------------------------------------
 */

static enum kiln_status look_at_weights(struct job *job, struct kiln_err *err) {
    const struct kiln_evidence *e = &job->evidence;
    const struct kiln_evidence_window *w = &e->window;
    bool *used = kiln_alloc(e->run->table->dims.vocab, sizeof *used);
    KILN_REQUIRE(used, err, KILN_ENOMEM, "explain: not enough memory");
    for (size_t i = 0; i < w->sequences * w->seq; i++) {
        used[w->tokens[i]] = true;
    }
    kiln_walk_weights(&job->walk, e->weights, used);
    kiln_free(used);
    return KILN_OK;
}

/* How the losses of its sequences are spread. */
static double deviation_of(const struct kiln_evidence_window *w,
                           const struct kiln_explain_pass *pass) {
    double sum = 0, squares = 0, count = 0;
    for (size_t s = 0; s < w->sequences; s++) {
        double loss = 0, targets = 0;
        for (size_t i = s * w->seq; i < (s + 1) * w->seq; i++) {
            loss += pass->losses[i];
            targets += w->targets[i] != KILN_NO_TARGET;
        }
        if (targets > 0) {
            sum += loss / targets;
            squares += loss / targets * (loss / targets);
            count++;
        }
    }
    return sqrt(fmax(squares / count - sum / count * (sum / count), 0));
}

/* The window beside it, on the same weights. */
static enum kiln_status run_other(struct job *job, double **norms, struct kiln_err *err) {
    struct kiln_evidence_window w;
    struct kiln_explanation *out = job->out;
    bool back = true;
    *norms = kiln_alloc(job->evidence.run->table->n_tensors, sizeof **norms);
    KILN_REQUIRE(*norms, err, KILN_ENOMEM, "explain: not enough memory");
    KILN_TRY(kiln_evidence_other(&job->evidence, &w, err));
    out->ordinary_sample = w.sample;
    const enum kiln_status status = run_pass(job, &w, false, &job->other, &back, err);
    out->ordinary_deviation = status == KILN_OK ? deviation_of(&w, &job->other) : (double)NAN;
    kiln_evidence_window_free(&w);
    KILN_TRY(status);
    out->ordinary_loss = job->other.loss;
    out->ordinary_norm = back ? take_norms(job, *norms, NULL) : (double)NAN;
    for (size_t i = 0; !back && i < job->evidence.run->table->n_tensors; i++) {
        (*norms)[i] = (double)NAN;
    }
    return KILN_OK;
}

/* Where the trouble is, as tokens. */
static void find_places(struct job *job) {
    struct kiln_explanation *out = job->out;
    const struct kiln_table *table = job->evidence.run->table;
    const bool finite = kiln_walk_first(&job->walk, false) == KILN_EXPLAIN_NO_PLACE;
    out->first = kiln_walk_first(&job->walk, finite);
    out->shown = kiln_walk_first_activation(&job->walk, finite);
    if (out->shown != KILN_EXPLAIN_NO_PLACE) {
        const struct kiln_explain_place *at = &out->walk[out->shown].first;
        kiln_explain_around(&job->evidence, at->sequence, at->token, &out->text);
        out->has_text = true;
    }
    const struct kiln_explain_tensor *first =
        out->first == KILN_EXPLAIN_NO_PLACE ? NULL : &out->walk[out->first];
    for (size_t i = 0; first && i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        if (strcmp(t->name, first->name) == 0 && first->first.token < t->rows &&
            (t->role == KILN_EMBED || t->role == KILN_HEAD)) {
            kiln_explain_piece(&job->evidence, (uint32_t)first->first.token, out->token);
        }
    }
}

static void describe(struct job *job) {
    const struct kiln_evidence *e = &job->evidence;
    struct kiln_explanation *out = job->out;
    out->step = e->step;
    out->incident = e->incident != NULL;
    snprintf(out->why, sizeof out->why, "%s", kiln_evidence_text(e, "why"));
    snprintf(out->action, sizeof out->action, "%s", kiln_evidence_text(e, "action"));
    snprintf(out->precision, sizeof out->precision, "%s", kiln_precision_name(e->precision));
    memcpy(out->weights_from, e->weights_from, sizeof out->weights_from);
    memcpy(out->window_from, e->window_from, sizeof out->window_from);
    memcpy(out->note, e->note, sizeof out->note);
    out->recorded_loss = e->loss;
    out->recorded_norm = e->norm;
    out->lr = e->lr;
    out->z = e->z;
    out->recorded_z = kiln_evidence_number(e, "z");
    out->mean = e->mean;
    out->deviation = e->deviation;
    out->sample = e->window.sample;
    out->sequences = e->window.sequences;
    out->seq = e->window.seq;
    out->vocab = e->run->table->dims.vocab;
    out->chance = log((double)out->vocab);
    out->norm = out->ordinary_loss = out->ordinary_norm = out->ordinary_deviation = (double)NAN;
}

/* A word before the first sequence: how much there is to do. */
static void announce(const struct job *job) {
    char text[200];
    const struct kiln_table *table = job->evidence.run->table;
    const double work =
        kiln_float64_flops(table, job->evidence.window.seq, true) * (double)job->all;
    snprintf(text, sizeof text,
             "taking step %llu again in double precision: %zu sequences of %zu tokens, %.3g GFLOP "
             "on %zu threads",
             (unsigned long long)job->evidence.step, job->all, job->evidence.window.seq, work / 1e9,
             kiln_pool_threads(job->pool));
    if (job->options->on_notice) {
        job->options->on_notice(job->options->context, text);
    }
}

static enum kiln_status run_step(struct job *job, struct kiln_err *err) {
    struct kiln_explanation *out = job->out;
    const struct kiln_evidence *e = &job->evidence;
    KILN_TRY(look_at_weights(job, err));
    const bool whole = kiln_walk_first(&job->walk, false) == KILN_EXPLAIN_NO_PLACE;
    const bool beside = whole && !job->options->alone && e->has_data;
    double *ordinary = NULL;
    job->all = e->window.sequences * (beside ? 2 : 1);
    announce(job);
    job->since = kiln_now_s();
    out->backward = whole;
    KILN_TRY(run_pass(job, &e->window, true, &job->pass, &out->backward, err));
    out->loss = job->pass.loss;
    out->norm = out->backward ? take_norms(job, job->norms, job->largest) : (double)NAN;
    out->walk = job->walk.items; /* from here on the caller's */
    out->n_walk = job->walk.n;
    enum kiln_status status = beside ? run_other(job, &ordinary, err) : KILN_OK;
    if (status == KILN_OK) {
        status = list_gradients(job, beside ? ordinary : NULL, err);
    }
    kiln_free(ordinary);
    KILN_TRY(status);
    find_places(job);
    const double usual = isfinite(out->ordinary_loss) ? out->ordinary_loss : out->mean;
    KILN_TRY(kiln_explain_batch(e, &job->pass, usual, out, err));
    kiln_explain_judge(e, out);
    return KILN_OK;
}

/* What the run multiplied the window's gradients by. Of a step of which nothing is recorded it is
 * that of the step before, or of a first one. */
static double loss_scale(const struct kiln_evidence *e) {
    const struct kiln_evidence_window *w = &e->window;
    const double tokens = (double)(w->sequences * w->seq);
    const double recorded = kiln_evidence_number(e, "gradient_scale");
    if (e->precision != KILN_PRECISION_FP16) {
        return 1;
    }
    if (recorded > 0) {
        return recorded;
    }
    return kiln_scale_share((double)count_targets(w), tokens) *
           (e->loss_scale > 0 ? e->loss_scale : kiln_scale_first(tokens));
}

static enum kiln_status open_job(struct job *job, struct kiln_err *err) {
    const struct kiln_explain_options *o = job->options;
    KILN_TRY(kiln_evidence_open(o, &job->evidence, err));
    const struct kiln_evidence *e = &job->evidence;
    describe(job);
    job->out->scale = loss_scale(e);
    KILN_TRY(kiln_pool_create(o->threads > 0 ? o->threads : kiln_cpu_count(), &job->pool, err));
    KILN_TRY(kiln_float64_create(e->run->table, e->weights, e->window.seq, job->pool, true,
                                 &job->model, err));
    const struct kiln_settings *s = &e->run->settings;
    const bool dynamic = strcmp(s->weight_mode, "dynamic") == 0;
    const struct kiln_walk_arithmetic arithmetic = {.precision = e->precision,
                                                    .dynamic = dynamic,
                                                    .classify = !dynamic && !s->no_extras,
                                                    .scale = job->out->scale};
    KILN_TRY(kiln_walk_open(&job->walk, e->run->table, &arithmetic, e->window.seq, err));
    job->norms = kiln_alloc(e->run->table->n_tensors, sizeof *job->norms);
    job->largest = kiln_alloc(e->run->table->n_tensors, sizeof *job->largest);
    KILN_REQUIRE(job->norms && job->largest, err, KILN_ENOMEM, "explain: not enough memory");
    return KILN_OK;
}

static void close_job(struct job *job) {
    job->walk.items = job->out->walk ? NULL : job->walk.items; /* the caller's */
    kiln_walk_close(&job->walk);
    kiln_float64_destroy(job->model);
    kiln_pool_destroy(job->pool);
    kiln_free(job->pass.losses);
    kiln_free(job->other.losses);
    kiln_free(job->norms);
    kiln_free(job->largest);
    if (job->evidence.run) {
        kiln_evidence_close(&job->evidence);
    }
}

enum kiln_status kiln_explain(const struct kiln_explain_options *options,
                              struct kiln_explanation **out, struct kiln_err *err) {
    struct job job = {.options = options};
    *out = NULL;
    job.out = kiln_alloc(1, sizeof *job.out);
    KILN_REQUIRE(job.out, err, KILN_ENOMEM, "explain: not enough memory");
    enum kiln_status status = open_job(&job, err);
    if (status == KILN_OK) {
        status = run_step(&job, err);
    }
    close_job(&job);
    if (status != KILN_OK) {
        kiln_explain_free(job.out);
        return status;
    }
    *out = job.out;
    return KILN_OK;
}

void kiln_explain_free(struct kiln_explanation *out) {
    if (out) {
        kiln_free(out->walk);
        kiln_free(out->sequence);
        kiln_free(out->gradient);
        kiln_free(out);
    }
}

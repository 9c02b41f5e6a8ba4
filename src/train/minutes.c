/* SPDX-License-Identifier: MIT
 *
 * minutes.c: kiln train --minutes: look at the text, measure the machine, ask kiln_choose, learn a
 * vocabulary, measure the chosen model, ask again.
 *
 * Every second spent here is taken from training, so all of it together is bounded by a share of
 * the time. What is measured here need not be exact: the clock (clock.h) sees the real steps.
 */
#include "train/minutes.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "kiln/bench.h"
#include "plan/law.h"
#include "ranks/ranks.h"
#include "text/stream.h"
#include "train/complete.h"
#include "train/data_source.h"
#include "train/hardness.h"
#include "train/sample.h"

/* Of the time, at most so many seconds: for rates of the ladder, and for the chosen model. */
#define MEASURE_SHARE 0.03
#define MEASURE_MOST  2.0
/* Of the time: for evaluations. */
#define EVALUATION_SHARE 0.03
/* Ids of which it is told how hard they are. */
enum { HARD = 200000 };
/* Of a text that is much longer than what is read in the time, so many times that is tokenized: a
 * faster machine, or more minutes later, still find text that was not read. And not less than
 * evaluations want held out. A text that is cut by less than WORTH is not cut. */
#define READ_MARGIN 2.0
#define WORTH       0.8
/* Of a token, before there is a vocabulary. */
#define GUESSED_BYTES 2.5

/* ---- the text ---------------------------------------------------------------------------------
 */

/* Token files say themselves what they were made from. */
static enum kiln_status look_at_tokens(struct kiln_minutes *m, const struct kiln_data_list *list,
                                       struct kiln_err *err) {
    double count = 0, bytes = 0;
    size_t vocab = 0;
    for (size_t i = 0; i < list->n; i++) {
        struct kiln_token_file *file;
        KILN_TRY(kiln_token_file_open(list->path[i], 0, &file, err));
        count += (double)kiln_token_file_count(file);
        bytes += (double)kiln_token_file_text_bytes(file);
        vocab = kiln_token_file_vocab(file) > vocab ? kiln_token_file_vocab(file) : vocab;
        kiln_token_file_close(file);
    }
    m->request.text.bytes_per_token = bytes > 0 ? bytes / count : 1;
    m->request.text.bytes = count * m->request.text.bytes_per_token;
    if (m->request.fixed.vocab == 0) {
        m->request.fixed.vocab = vocab;
    }
    KILN_REQUIRE(m->request.fixed.vocab > 0 || m->request.fixed.dims != NULL, err, KILN_EUSAGE,
                 "--data %s: raw ids do not say their vocabulary; add --vocab", m->settings.data);
    return KILN_OK;
}

static enum kiln_status look_at_text(struct kiln_minutes *m, struct kiln_sample *sample,
                                     struct kiln_err *err) {
    struct kiln_data_list list;
    if (!kiln_data_is_tokens(m->settings.data)) {
        return kiln_sample_read(&m->settings, sample, err);
    }
    KILN_TRY(kiln_data_list_parse(m->settings.data, &list, err));
    const enum kiln_status status = look_at_tokens(m, &list, err);
    kiln_data_list_free(&list);
    return status;
}

/* Bytes of text to train on, what --data-tokens leaves of them. */
static void set_bytes(struct kiln_minutes *m, struct kiln_sample *sample) {
    struct kiln_choose_text *text = &m->request.text;
    const double trained = m->settings.val != NULL ? 1.0 : 1.0 - KILN_VALIDATION_SHARE;
    if (sample->part == NULL) {
        text->bytes *= trained;
        return;
    }
    m->text_bytes = m->tokenized_bytes = kiln_sample_bytes(sample);
    if (m->settings.data_tokens != KILN_UNSET) {
        kiln_sample_cut(sample, (double)m->settings.data_tokens * GUESSED_BYTES);
    }
    text->bytes = kiln_sample_unique(sample) * trained;
}

/* What a tokenizer makes of the beginning of the text. */
static enum kiln_status try_tokenizer(struct kiln_minutes *m, const struct kiln_tokenizer *tok,
                                      const struct kiln_sample *sample, struct kiln_err *err) {
    struct kiln_ids ids = {0};
    double bytes;
    const enum kiln_status status = kiln_sample_encode(sample, tok, &ids, &bytes, err);
    if (status == KILN_OK && ids.n > 0) {
        struct kiln_choose_text *text = &m->request.text;
        const size_t vocab = kiln_tokenizer_vocab(tok), n = ids.n < HARD ? ids.n : HARD;
        text->bytes_per_token = bytes / (double)ids.n;
        text->trigram_bits = kiln_trigram_bits(ids.id, n, vocab) / text->bytes_per_token;
        text->trigram_ids = (double)n;
        m->request.fixed.vocab = vocab;
    }
    kiln_ids_free(&ids);
    return status;
}

/* ---- what is fixed ----------------------------------------------------------------------------
 */

static bool given(const struct kiln_settings *s, enum kiln_setting_id id) {
    return s->origin[id] == KILN_FROM_FLAG;
}

static void take_fixed(const struct kiln_settings *s, struct kiln_choose_fixed *f) {
    const struct {
        enum kiln_setting_id id;
        uint64_t value, *to;
    } counts[] = {{KILN_SETTING_dim, s->dim, &f->dim},
                  {KILN_SETTING_hidden, s->hidden, &f->hidden},
                  {KILN_SETTING_layers, s->layers, &f->layers},
                  {KILN_SETTING_heads, s->heads, &f->heads},
                  {KILN_SETTING_kv_heads, s->kv_heads, &f->kv_heads},
                  {KILN_SETTING_vocab, s->vocab, &f->vocab},
                  {KILN_SETTING_seq, s->seq, &f->seq},
                  {KILN_SETTING_batch, s->batch, &f->batch},
                  {KILN_SETTING_accum, s->accum, &f->accum},
                  {KILN_SETTING_steps, s->steps, &f->steps},
                  {KILN_SETTING_warmup, s->warmup, &f->warmup}};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        *counts[i].to = given(s, counts[i].id) ? counts[i].value : 0;
    }
    f->warmup_given = given(s, KILN_SETTING_warmup);
    f->lr = given(s, KILN_SETTING_lr) ? s->lr : (double)NAN;
    f->min_lr = given(s, KILN_SETTING_min_lr) ? s->min_lr : (double)NAN;
    f->weight_decay = given(s, KILN_SETTING_weight_decay) ? s->weight_decay : (double)NAN;
}

/* --model: all sizes are those of the file or preset, but for a preset's vocabulary. */
static enum kiln_status take_model(struct kiln_minutes *m, struct kiln_err *err) {
    struct kiln_settings *s = &m->settings;
    struct kiln_dims *dims = &m->dims;
    struct kiln_choose_fixed *f = &m->request.fixed;
    struct kiln_model_source source;
    *dims = kiln_preset_find("stories15m")->dims; /* for a plan that only lends its device */
    if (s->model == NULL) {
        return KILN_OK;
    }
    KILN_TRY(kiln_model_source(s->model, &source, err));
    *dims = source.dims;
    f->trained = source.preset == NULL;
    KILN_TRY(kiln_settings_sizes(s, f->trained, dims, err));
    if (s->tokenizer == NULL && source.tokenizer[0] != '\0') {
        KILN_TRY(
            kiln_settings_set(s, KILN_SETTING_tokenizer, source.tokenizer, KILN_FROM_MODEL, err));
    }
    if (f->trained) {
        f->vocab = dims->vocab;
    }
    f->dims = dims;
    return KILN_OK;
}

/* ---- the machine ------------------------------------------------------------------------------
 */

static void add_rate(struct kiln_choose_request *r, double flops, double per_s) {
    size_t at = 0;
    while (at < r->n_rates && r->rate[at].flops_per_token < flops * 0.99) {
        at++;
    }
    const bool same = at < r->n_rates && r->rate[at].flops_per_token < flops * 1.01;
    if (!same && r->n_rates < KILN_RATES) {
        memmove(&r->rate[at + 1], &r->rate[at], (r->n_rates - at) * sizeof r->rate[0]);
        r->n_rates++;
    } else if (!same) {
        at = at < r->n_rates ? at : r->n_rates - 1;
    }
    r->rate[at] = (struct kiln_rate){.flops_per_token = flops, .flops_per_s = per_s};
}

/* Steps of one model, thrown away. */
static enum kiln_status measure(const struct kiln_choose_request *r, const struct kiln_dims *dims,
                                size_t batch, size_t accum, double seconds,
                                struct kiln_bench_step *out, struct kiln_err *err) {
    const struct kiln_bench_options how = {.dims = *dims,
                                           .lora = r->plan.lora,
                                           .batch = batch,
                                           .seq = dims->seq,
                                           .accum = accum,
                                           .precision = r->plan.precision,
                                           .threads = r->plan.threads};
    return kiln_bench_step(&how, seconds, out, err);
}

/* Of the ladder: what the machine can do, since sizes are compared and other work that comes and
 * goes must not choose between them. */
static enum kiln_status measure_rung(struct kiln_choose_request *r, const struct kiln_dims *dims,
                                     double seconds, struct kiln_err *err) {
    const double flops = kiln_flops_per_token(dims, dims->seq);
    const size_t batch = dims->seq < 1024 ? 1024 / dims->seq : 1;
    struct kiln_bench_step step;
    KILN_TRY(measure(r, dims, batch, 1, seconds, &step, err));
    add_rate(r, flops, flops * (double)(batch * dims->seq) / step.least_s);
    return KILN_OK;
}

/* A few sizes, the small ones first, as long as there is time for it. Of other devices than the cpu
 * the profile says it. */
static enum kiln_status measure_ladder(struct kiln_minutes *m, double seconds,
                                       struct kiln_err *err) {
    struct kiln_choose_request *r = &m->request;
    struct kiln_dims probe[KILN_RATES];
    const size_t seq = r->fixed.seq > 0 ? (size_t)r->fixed.seq : 256;
    if (r->plan.device.id != KILN_CPU) {
        add_rate(r, 1e6, r->plan.profile.tflops * 1e12);
        return KILN_OK;
    }
    if (r->fixed.dims != NULL) {
        return measure_rung(r, r->fixed.dims, seconds, err);
    }
    const size_t n =
        kiln_choose_probes(r->fixed.vocab > 0 ? (size_t)r->fixed.vocab : 1024, seq, probe, 4);
    const double end = kiln_now_s() + seconds;
    for (size_t i = 0; i < n && (i == 0 || kiln_now_s() < end); i++) {
        KILN_TRY(measure_rung(r, &probe[i], (end - kiln_now_s()) / (double)(n - i) / 2, err));
    }
    return KILN_OK;
}

/* The chosen model itself, with its own window, as the machine does it now: by what it is off, all
 * rates are. Not where it is too large to be held twice. */
static enum kiln_status measure_chosen(struct kiln_minutes *m, double seconds,
                                       struct kiln_err *err) {
    const struct kiln_rung *is = &m->choice.is;
    struct kiln_choose_request *r = &m->request;
    struct kiln_bench_step step;
    if (r->plan.device.id != KILN_CPU || is->step_s > seconds ||
        (r->plan.memory > 0 && is->memory > r->plan.memory / 2)) {
        return KILN_OK;
    }
    const size_t ranks = kiln_ranks_count(m->settings.ranks);
    const size_t share = (is->accum + ranks - 1) / ranks;
    KILN_TRY(measure(r, &is->dims, is->batch, share, seconds, &step, err));
    for (size_t i = 0; i < r->n_rates; i++) {
        r->rate[i].flops_per_s *= (is->step_s - is->wait_s) / step.median_s;
    }
    return KILN_OK;
}

/* ---- choosing ---------------------------------------------------------------------------------
 */

static double whole_s(const struct kiln_settings *s) { return s->minutes * 60; }

/* What will be left for steps: the start so far, what is still to be done before them, evaluations
 * and the end are taken off. */
static double seconds_for_steps(const struct kiln_minutes *m) {
    const double whole = whole_s(&m->settings), gone = kiln_now_s() - m->started;
    const double left = whole * (1 - EVALUATION_SHARE) - gone - 0.3;
    return left > whole * 0.2 ? left : whole * 0.2;
}

static enum kiln_status ask(struct kiln_minutes *m, struct kiln_err *err) {
    m->request.seconds = seconds_for_steps(m);
    return kiln_choose(&m->request, &m->choice, err);
}

/* A vocabulary from the beginning of the text; a smaller one where that does not teach so many. */
static enum kiln_status learn(struct kiln_minutes *m, const struct kiln_sample *sample,
                              size_t vocab, struct kiln_err *err) {
    enum kiln_status status = KILN_EINPUT;
    for (; status == KILN_EINPUT && vocab >= 260; vocab = vocab / 2) {
        const struct kiln_learn how = {.kind = KILN_LEARN_CHARACTERS,
                                       .vocab = vocab,
                                       .threads = m->request.plan.threads,
                                       .separator = "<|endoftext|>",
                                       .blank_lines = m->settings.blank_lines};
        struct kiln_learner *learner;
        KILN_TRY(kiln_learner_create(&how, &learner, err));
        status = KILN_OK;
        for (size_t i = 0; status == KILN_OK && i < sample->n; i++) {
            const struct kiln_sample_part *part = &sample->part[i];
            status = part->text ? kiln_learner_add(learner, part->text, part->size, err) : KILN_OK;
        }
        if (status == KILN_OK) {
            status = kiln_learner_finish(learner, &m->tokenizer, err);
        }
        kiln_learner_destroy(learner);
    }
    return status == KILN_EINPUT ? kiln_tokenizer_bytes(&m->tokenizer, err) : status;
}

/* The tokenizer: named, or of a model, or bytes, or learned here; with it the choice is made again,
 * with what it does to this text. */
static enum kiln_status settle_tokenizer(struct kiln_minutes *m, const struct kiln_sample *sample,
                                         struct kiln_err *err) {
    const struct kiln_settings *s = &m->settings;
    struct kiln_tokenizer *tok = NULL;
    const size_t vocab = m->choice.is.dims.vocab;
    if (sample->part == NULL) {
        return KILN_OK; /* ids come without */
    }
    if (s->tokenizer != NULL || vocab < 260) {
        KILN_TRY(kiln_open_tokenizer(s->tokenizer, s->data, 0, &tok, err));
        const enum kiln_status status = try_tokenizer(m, tok, sample, err);
        kiln_tokenizer_destroy(tok);
        return status;
    }
    KILN_TRY(learn(m, sample, vocab, err));
    return try_tokenizer(m, m->tokenizer, sample, err);
}

/* The vocabulary is known before the first choice where somebody named a tokenizer. */
static enum kiln_status settle_vocabulary(struct kiln_minutes *m, const struct kiln_sample *sample,
                                          struct kiln_err *err) {
    struct kiln_choose_fixed *f = &m->request.fixed;
    const size_t ids = f->trained ? f->dims->vocab : 259;
    KILN_REQUIRE(sample->part == NULL || m->settings.tokenizer != NULL || ids == 259, err,
                 KILN_EUSAGE,
                 "the model was trained with a vocabulary of %zu ids: name its tokenizer with "
                 "--tokenizer",
                 ids);
    if (sample->part != NULL && m->settings.tokenizer != NULL) {
        KILN_TRY(settle_tokenizer(m, sample, err));
    }
    KILN_REQUIRE(f->vocab == 0 || f->vocab == 259 || f->vocab >= 260 || sample->part == NULL, err,
                 KILN_EUSAGE, "--vocab %" PRIu64 ": bytes alone have 259 ids; give 259 or more",
                 f->vocab);
    return KILN_OK;
}

static enum kiln_status set(struct kiln_settings *s, enum kiln_setting_id id, struct kiln_err *err,
                            const char *fmt, ...) KILN_PRINTF(4, 5);
static enum kiln_status set(struct kiln_settings *s, enum kiln_setting_id id, struct kiln_err *err,
                            const char *fmt, ...) {
    char text[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return given(s, id) ? KILN_OK : kiln_settings_set(s, id, text, KILN_FROM_MINUTES, err);
}

static enum kiln_status set_chosen(struct kiln_minutes *m, struct kiln_err *err) {
    struct kiln_settings *s = &m->settings;
    const struct kiln_choice *c = &m->choice;
    const struct kiln_dims *d = &c->is.dims;
    const bool file = m->request.fixed.trained;
    const struct {
        enum kiln_setting_id id;
        size_t value;
        bool of_file;
    } counts[] = {{KILN_SETTING_dim, d->dim, true},
                  {KILN_SETTING_hidden, d->hidden, true},
                  {KILN_SETTING_layers, d->layers, true},
                  {KILN_SETTING_heads, d->heads, true},
                  {KILN_SETTING_kv_heads, d->kv_heads, true},
                  {KILN_SETTING_vocab, d->vocab, true},
                  {KILN_SETTING_seq, d->seq, false},
                  {KILN_SETTING_batch, c->is.batch, false},
                  {KILN_SETTING_accum, c->is.accum, false},
                  {KILN_SETTING_steps, (size_t)c->is.steps, false},
                  {KILN_SETTING_warmup, (size_t)c->warmup, false}};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        if (!(file && counts[i].of_file)) {
            KILN_TRY(set(s, counts[i].id, err, "%zu", counts[i].value));
        }
    }
    KILN_TRY(set(s, KILN_SETTING_lr, err, "%.3g", c->lr));
    KILN_TRY(set(s, KILN_SETTING_min_lr, err, "%.3g", c->min_lr));
    return set(s, KILN_SETTING_weight_decay, err, "%.3g", c->weight_decay);
}

/* A preset has the vocabulary that the text is worth. */
static void set_preset_vocab(struct kiln_minutes *m) {
    const struct kiln_choose_request *r = &m->request;
    if (r->fixed.dims != NULL && !r->fixed.trained) {
        m->dims.vocab =
            r->fixed.vocab > 0 ? (size_t)r->fixed.vocab : kiln_law_vocab_of(r->text.bytes);
    }
}

/* All that is known before anything is measured. */
static enum kiln_status look(struct kiln_minutes *m, struct kiln_sample *sample,
                             struct kiln_err *err) {
    struct kiln_settings *s = &m->settings;
    struct kiln_choose_request *r = &m->request;
    take_fixed(s, &r->fixed);
    KILN_TRY(take_model(m, err));
    KILN_TRY(kiln_plan_request_of(s, &m->dims, &r->plan, err));
    KILN_TRY(look_at_text(m, sample, err));
    set_bytes(m, sample);
    KILN_TRY(settle_vocabulary(m, sample, err));
    set_preset_vocab(m);
    if (s->memory == KILN_UNSET) {
        r->plan.memory = kiln_memory_available() / kiln_ranks_beside(s->ranks) / 10 * 8;
    }
    r->plan.ranks.ranks = kiln_ranks_count(s->ranks);
    kiln_ranks_link(s->ranks, &r->plan.ranks.link.latency_s, &r->plan.ranks.link.bytes_per_s);
    return kiln_profile_of(&r->plan.device, s->profile, r->plan.threads, r->plan.precision,
                           &r->plan.profile, err);
}

/* How much of the text is tokenized: what can be read in the time, with a margin, where that is
 * much less than all. */
static enum kiln_status limit_text(struct kiln_minutes *m, const struct kiln_sample *sample,
                                   struct kiln_err *err) {
    struct kiln_settings *s = &m->settings;
    const struct kiln_rung *is = &m->choice.is;
    const double per_token = m->request.text.bytes_per_token;
    if (sample->part == NULL || per_token <= 0) {
        return KILN_OK;
    }
    const double held = (double)s->eval_windows * (double)(is->dims.seq + 1);
    const double wanted =
        fmax(READ_MARGIN * is->tokens, s->val != NULL ? 0 : held / KILN_VALIDATION_SHARE);
    const double tokens = given(s, KILN_SETTING_data_tokens) ? (double)s->data_tokens : wanted;
    const double taken = kiln_sample_taken(sample, tokens * per_token);
    if (taken > WORTH * m->text_bytes && !given(s, KILN_SETTING_data_tokens)) {
        return KILN_OK;
    }
    m->tokenized_bytes = taken;
    KILN_TRY(kiln_sample_keep_shares(sample, s, err));
    return set(s, KILN_SETTING_data_tokens, err, "%.0f", ceil(tokens));
}

static enum kiln_status choose_with(struct kiln_minutes *m, struct kiln_sample *sample,
                                    struct kiln_err *err) {
    const double share = MEASURE_SHARE * whole_s(&m->settings);
    const double budget = share > MEASURE_MOST ? MEASURE_MOST : share;
    KILN_TRY(look(m, sample, err));
    KILN_TRY(measure_ladder(m, budget, err));
    KILN_TRY(ask(m, err));
    if (m->settings.tokenizer == NULL) {
        KILN_TRY(settle_tokenizer(m, sample, err));
        set_preset_vocab(m);
        KILN_TRY(ask(m, err));
    }
    KILN_TRY(measure_chosen(m, budget, err));
    KILN_TRY(ask(m, err));
    m->measured_s = kiln_now_s() - m->started;
    KILN_TRY(limit_text(m, sample, err));
    return set_chosen(m, err);
}

static enum kiln_status no_stages(const struct kiln_settings *s, struct kiln_err *err) {
    KILN_REQUIRE(s->pipeline <= 1, err, KILN_EUSAGE,
                 "--minutes measures whole models, and knows nothing of the stages of --pipeline "
                 "%" PRIu64 ": give sizes and --steps, or no --pipeline",
                 s->pipeline);
    return KILN_OK;
}

enum kiln_status kiln_minutes_choose(const struct kiln_settings *settings, double started,
                                     struct kiln_minutes **out, struct kiln_err *err) {
    struct kiln_sample sample = {.n = 0};
    *out = NULL;
    KILN_REQUIRE(settings->data && !isnan(settings->minutes), err, KILN_EUSAGE,
                 "--minutes needs a text: add --data FILE");
    KILN_TRY(no_stages(settings, err));
    struct kiln_minutes *m = kiln_alloc(1, sizeof *m);
    KILN_REQUIRE(m != NULL, err, KILN_ENOMEM, "--minutes: out of memory");
    m->started = started > 0 ? started : kiln_now_s();
    enum kiln_status status = kiln_settings_copy(&m->settings, settings, err);
    if (status == KILN_OK) {
        status = choose_with(m, &sample, err);
    }
    kiln_sample_free(&sample);
    if (status != KILN_OK) {
        kiln_minutes_free(m);
        return status;
    }
    *out = m;
    return KILN_OK;
}

void kiln_minutes_free(struct kiln_minutes *m) {
    if (m != NULL) {
        kiln_tokenizer_destroy(m->tokenizer);
        kiln_settings_free(&m->settings);
        kiln_free(m);
    }
}

/* ---- the steps of a run ------------------------------------------------------------------------
 */

/* Behind the last step: model.bin, the state to the disk. */
static double tail_of(const struct kiln_run *run) {
    return 0.1 + (double)run->table->size * 20 / 400e6;
}

/* Of an evaluation, which is a third of so many steps' passes. */
static double evaluation_s(const struct kiln_run *run, double step_s) {
    const struct kiln_settings *s = &run->settings;
    const struct kiln_trainer *t = &run->trainer;
    const size_t windows = t->val_data ? kiln_data_windows(t->val_data, KILN_TRAIN)
                                       : kiln_data_windows(t->data, KILN_VALIDATION);
    const double read = windows < s->eval_windows ? (double)windows : (double)s->eval_windows;
    return read / (double)(s->batch * s->accum) * step_s / 3;
}

/* As many evaluations as a share of the time holds, ten at most; one, behind the last step, always.
 */
static uint64_t evaluate_every(double seconds, double eval_s, uint64_t steps) {
    const double fit = eval_s > 0 ? floor(seconds * EVALUATION_SHARE / eval_s) - 1 : 10;
    const uint64_t n = fit > 10 ? 10 : fit < 2 ? 0 : (uint64_t)fit;
    return n > 0 ? (steps + n - 1) / n : 0;
}

enum kiln_status kiln_minutes_fix(struct kiln_run *run, struct kiln_err *err) {
    const struct kiln_minutes *m = run->minutes;
    struct kiln_settings *s = &run->settings;
    struct kiln_clock *clock = &run->trainer.clock;
    if (m == NULL) {
        return KILN_OK;
    }
    const double now = kiln_now_s();
    *clock = (struct kiln_clock){.deadline = m->started + whole_s(s),
                                 .whole = whole_s(s),
                                 .tail = tail_of(run),
                                 .step_s = m->choice.is.step_s};
    clock->eval_s = evaluation_s(run, clock->step_s);
    const double left = clock->deadline - now;
    KILN_REQUIRE(left > 0, err, KILN_EUSAGE,
                 "--minutes %g: %.1f s went by before the first step; give more, or less text",
                 s->minutes, now - m->started);
    const uint64_t about = (uint64_t)(left / clock->step_s) + 1;
    KILN_TRY(set(s, KILN_SETTING_eval_every, err, "%" PRIu64,
                 evaluate_every(left, clock->eval_s, about)));
    const uint64_t steps = kiln_clock_steps(clock, s, 0, now);
    KILN_TRY(set(s, KILN_SETTING_steps, err, "%" PRIu64, steps));
    const uint64_t tenth = s->steps / 10;
    KILN_TRY(set(s, KILN_SETTING_warmup, err, "%" PRIu64, tenth > 100 ? 100 : tenth));
    KILN_TRY(set(s, KILN_SETTING_save_every, err, "%" PRIu64, s->steps < 5 ? 1 : s->steps / 5));
    if (given(s, KILN_SETTING_steps)) {
        clock->deadline = 0; /* as many as somebody wants, however long they take */
    }
    return KILN_OK;
}

/* What a step of this very model takes here. */
static enum kiln_status time_step(const struct kiln_run *run, double seconds, double *out,
                                  struct kiln_err *err) {
    const struct kiln_settings *s = &run->settings;
    const struct kiln_plan *plan = &run->trainer.engine.plan;
    const struct kiln_bench_options how = {.dims = run->table->dims,
                                           .lora = run->table->lora,
                                           .batch = s->batch,
                                           .seq = s->seq,
                                           .accum = plan->request->accum,
                                           .precision = run->trainer.engine.request.precision,
                                           .threads = s->threads};
    *out = kiln_plan_seconds(plan).step;
    if (run->trainer.engine.request.device.id != KILN_CPU || *out > seconds ||
        plan->memory.total > plan->request->memory / 2) {
        return KILN_OK;
    }
    struct kiln_bench_step step;
    KILN_TRY(kiln_bench_step(&how, seconds, &step, err));
    *out = step.median_s;
    return KILN_OK;
}

enum kiln_status kiln_minutes_go_on(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_settings *s = &run->settings;
    struct kiln_clock *clock = &run->trainer.clock;
    const double started = kiln_now_s();
    KILN_TRY(no_stages(s, err));
    const uint64_t step = kiln_state_cursor(run->trainer.state)->step, before = s->steps;
    const double share = MEASURE_SHARE * whole_s(s);
    *clock = (struct kiln_clock){
        .deadline = started + whole_s(s), .whole = whole_s(s), .tail = tail_of(run)};
    KILN_TRY(time_step(run, share > MEASURE_MOST ? MEASURE_MOST : share, &clock->step_s, err));
    clock->eval_s = evaluation_s(run, clock->step_s);
    const uint64_t steps = kiln_clock_steps(clock, s, step, kiln_now_s());
    if (steps == before) {
        return KILN_OK;
    }
    if (s->n_turns == KILN_TURNS) {
        s->n_turns = 0; /* as --steps: one schedule over all of them */
    } else {
        s->turn[s->n_turns++] = (struct kiln_turn){.at = step, .before = before};
    }
    s->steps = steps;
    s->origin[KILN_SETTING_steps] = KILN_FROM_MINUTES;
    return KILN_OK;
}

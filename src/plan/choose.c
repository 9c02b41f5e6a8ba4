/* SPDX-License-Identifier: MIT
 *
 * choose.c: every model of a ladder is asked what loss the law gives it in the time; the best one
 * that fits the memory is chosen.
 *
 * One ladder of shapes, each a little larger than the one before: what a size's shape is matters
 * little beside the size itself (Kaplan et al. 2020, section 3.1). What somebody fixed replaces the
 * ladder's own.
 */
#include "kiln/choose.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "plan/law.h"
#include "plan/plan.h"
#include "plan/ranks.h"

enum { BYTES_VOCAB = 259, VOCABS = 8, SHAPES = 27 };
static const size_t vocabularies[VOCABS] = {BYTES_VOCAB, 512, 1024, 2048, 4096, 8192, 16384, 32768};

/* Width and layers. */
static const struct {
    size_t dim, layers;
} shapes[SHAPES] = {{32, 2},  {48, 2},   {64, 2},    {64, 3},    {80, 3},    {96, 3},   {96, 4},
                    {112, 4}, {128, 4},  {128, 5},   {160, 4},   {160, 5},   {192, 5},  {224, 5},
                    {256, 5}, {256, 6},  {320, 6},   {384, 6},   {384, 8},   {448, 8},  {512, 8},
                    {640, 8}, {768, 10}, {1024, 12}, {1280, 16}, {1536, 20}, {2048, 22}};

/* ---- shapes ---------------------------------------------------------------------------------- */

static size_t heads_of(size_t dim) {
    const size_t head = dim % 64 == 0 && dim >= 512 ? 64 : dim % 32 == 0 ? 32 : 16;
    return dim % head == 0 && dim / head > 1 ? dim / head : dim % 4 == 0 ? 2 : 1;
}

static void take(size_t *to, uint64_t fixed) {
    if (fixed > 0) {
        *to = (size_t)fixed;
    }
}

/* A shape of the ladder with what is fixed; false where the two make no model. */
static bool dims_of(const struct kiln_choose_fixed *fixed, size_t dim, size_t layers, size_t vocab,
                    size_t seq, struct kiln_dims *out) {
    struct kiln_err ignored;
    if (fixed->dims != NULL) {
        *out = *fixed->dims;
        return true;
    }
    *out = (struct kiln_dims){.dim = dim,
                              .layers = layers,
                              .vocab = vocab,
                              .seq = seq,
                              .tied = true,
                              .rms_eps = 1e-5F,
                              .rope_theta = 10000.0F};
    take(&out->dim, fixed->dim);
    take(&out->layers, fixed->layers);
    out->hidden = (out->dim * 8 / 3 + 31) / 32 * 32;
    out->heads = heads_of(out->dim);
    take(&out->heads, fixed->heads);
    out->kv_heads = out->heads;
    take(&out->kv_heads, fixed->kv_heads);
    take(&out->hidden, fixed->hidden);
    return kiln_dims_check(out, &ignored) == KILN_OK;
}

/* Of the layers' matrices: what the law counts. */
static double layer_parameters(const struct kiln_dims *d) {
    const double attention = 2.0 * (double)d->heads * (double)d->head_size +
                             2.0 * (double)d->kv_heads * (double)d->head_size;
    return (double)d->layers * (double)d->dim * (attention + 3.0 * (double)d->hidden);
}

static size_t all_parameters(const struct kiln_dims *d) {
    return (size_t)layer_parameters(d) + d->vocab * d->dim * (d->tied ? 1 : 2) +
           d->dim * (2 * d->layers + 1);
}

double kiln_flops_per_token(const struct kiln_dims *dims, size_t seq) {
    return kiln_plan_flops(dims, 1, seq).total / (double)seq;
}

size_t kiln_choose_probes(size_t vocab, size_t seq, struct kiln_dims *out, size_t room) {
    static const size_t at[] = {2, 8, 14, 19};
    const struct kiln_choose_fixed none = {.lr = (double)NAN};
    size_t n = 0;
    for (size_t i = 0; i < sizeof at / sizeof at[0] && n < room; i++) {
        n += dims_of(&none, shapes[at[i]].dim, shapes[at[i]].layers, vocab, seq, &out[n]);
    }
    return n;
}

/* ---- a model in the time ----------------------------------------------------------------------
 */

static double rate_of(const struct kiln_choose_request *r, double flops_per_token) {
    const struct kiln_rate *rate = r->rate;
    size_t i = 0;
    if (flops_per_token <= rate[0].flops_per_token || r->n_rates == 1) {
        return rate[0].flops_per_s;
    }
    while (i + 2 < r->n_rates && rate[i + 1].flops_per_token < flops_per_token) {
        i++;
    }
    if (flops_per_token >= rate[i + 1].flops_per_token) {
        return rate[i + 1].flops_per_s;
    }
    const double share = log(flops_per_token / rate[i].flops_per_token) /
                         log(rate[i + 1].flops_per_token / rate[i].flops_per_token);
    return rate[i].flops_per_s + share * (rate[i + 1].flops_per_s - rate[i].flops_per_s);
}

static size_t ranks_of(const struct kiln_choose_request *r) {
    return r->plan.ranks.ranks > 1 ? r->plan.ranks.ranks : 1;
}

/* So many, or more, that every rank gets as many. */
static size_t whole_shares(const struct kiln_choose_request *r, double micro_batches) {
    const double n = (double)ranks_of(r);
    return (size_t)(n * ceil(micro_batches / n));
}

/* Micro-batches of the rank that has most of them. */
static size_t share_of(const struct kiln_choose_request *r, const struct kiln_rung *rung) {
    return (rung->accum + ranks_of(r) - 1) / ranks_of(r);
}

/* What a step waits for the other ranks' gradients: for all that the backward pass of the last
 * micro-batch, two thirds of it, does not hide, and for those of the embedding, which come last. */
static double wait_of(const struct kiln_choose_request *r, const struct kiln_rung *rung,
                      double micro_batch_s) {
    const struct kiln_link *link = &r->plan.ranks.link;
    const struct kiln_wire wire = {
        .ranks = ranks_of(r), .message_s = link->latency_s, .float_s = 4 / link->bytes_per_s};
    if (wire.ranks == 1) {
        return 0;
    }
    const size_t embedding = rung->dims.vocab * rung->dims.dim;
    const struct kiln_sum all = kiln_allreduce(&wire, (double)rung->parameters),
                          last = kiln_allreduce(&wire, (double)embedding);
    const double left = all.latency_s + all.transfer_s - micro_batch_s * 2 / 3;
    return fmax(left, last.latency_s + last.transfer_s);
}

/* Sequences in a window and how they are cut into micro-batches. */
static void set_batch(const struct kiln_choose_request *r, struct kiln_rung *rung, double tokens) {
    const struct kiln_choose_fixed *f = &r->fixed;
    const double seq = (double)rung->dims.seq;
    double window = kiln_law_batch(tokens);
    if (f->steps > 0) {
        window = tokens / (double)f->steps;
    }
    double sequences = floor(window / seq + 0.5);
    sequences = sequences < 1 ? 1 : sequences > 65536 ? 65536 : sequences;
    /* A micro-batch is at most 8 sequences: more makes a step no faster. */
    rung->accum = whole_shares(r, ceil(sequences / 8));
    const double batch = floor(sequences / (double)rung->accum + 0.5);
    rung->batch = batch < 1 ? 1 : (size_t)batch;
    if (f->batch > 0) {
        rung->batch = f->batch;
        rung->accum = whole_shares(r, ceil(sequences / (double)f->batch));
    }
    if (f->accum > 0) {
        rung->accum = f->accum;
        const double each = floor(sequences / (double)f->accum);
        rung->batch = f->batch > 0 ? f->batch : each < 1 ? 1 : (size_t)each;
    }
}

/* What becomes of a model: batch, steps, tokens, loss. */
static void run_out(const struct kiln_choose_request *r, struct kiln_rung *rung) {
    const struct kiln_choose_text *text = &r->text;
    const double flops = kiln_flops_per_token(&rung->dims, rung->dims.seq);
    const double per_s = rate_of(r, flops) / flops; /* of one rank */
    set_batch(r, rung, per_s * r->seconds * (double)ranks_of(r));
    rung->parameters = all_parameters(&rung->dims);
    const double window = (double)(rung->batch * rung->accum * rung->dims.seq);
    const double micro_batch_s = (double)(rung->batch * rung->dims.seq) / per_s;
    rung->wait_s = wait_of(r, rung, micro_batch_s);
    rung->step_s = micro_batch_s * (double)share_of(r, rung) + rung->wait_s;
    const double steps = floor(r->seconds / rung->step_s);
    rung->steps = r->fixed.steps > 0 ? r->fixed.steps : steps < 1 ? 1 : (uint64_t)steps;
    rung->tokens = (double)rung->steps * window;
    const double per_token = text->bytes_per_token > 0
                                 ? text->bytes_per_token
                                 : kiln_law_bytes_per_token(text, rung->dims.vocab);
    rung->epochs = rung->tokens * per_token / (text->bytes > 1 ? text->bytes : 1);
    rung->forecast.bytes_per_token = per_token;
    rung->forecast.bits =
        kiln_law_bits(text, rung->dims.vocab, layer_parameters(&rung->dims), rung->tokens);
    const double spread = kiln_law_spread(text, rung->tokens);
    rung->forecast.low = rung->forecast.bits / spread;
    rung->forecast.high = rung->forecast.bits * spread;
}

/* Does it fit, with everything kept? What does not is slower than the rates say. */
static enum kiln_status fits(const struct kiln_choose_request *r, struct kiln_rung *rung, bool *out,
                             struct kiln_err *err) {
    struct kiln_plan_request request = r->plan;
    const struct kiln_keep all = {.kind = KILN_KEEP_ALL};
    struct kiln_table *table;
    struct kiln_plan plan;
    request.dims = rung->dims;
    request.batch = rung->batch;
    request.accum = share_of(r, rung);
    request.ranks = (struct kiln_plan_ranks){.ranks = 0};
    request.seq = rung->dims.seq;
    request.memory = 0;
    KILN_TRY(kiln_table_create(&rung->dims, &table, err));
    enum kiln_status status = kiln_plan_policy(table, &request, all, &plan, err);
    *out = false;
    if (status == KILN_OK) {
        rung->memory = plan.memory.total;
        *out = r->plan.memory == 0 || rung->memory <= r->plan.memory;
        kiln_plan_close(&plan);
    } else if (status == KILN_EBUDGET) {
        status = KILN_OK; /* a layer has more kernels than a process may have */
    }
    kiln_table_destroy(table);
    return status;
}

/* ---- the search -------------------------------------------------------------------------------
 */

/* Lowest is best. A model that reads less than a quarter of its parameters is outside of what the
 * law was fitted on: only where there is nothing else. */
static double rank(const struct kiln_rung *rung) {
    const bool known = rung->tokens >= 0.25 * layer_parameters(&rung->dims);
    return isfinite(rung->forecast.bits) ? rung->forecast.bits + (known ? 0 : 100)
                                         : (double)INFINITY;
}

/* A window and a half of held-out text, and one to train on. */
static bool enough_text(const struct kiln_choose_request *r, size_t vocab, size_t seq) {
    const double per_token = r->text.bytes_per_token > 0
                                 ? r->text.bytes_per_token
                                 : kiln_law_bytes_per_token(&r->text, vocab);
    return r->text.bytes / per_token > 20.0 * (double)(seq + 1);
}

/* 256, the length of the law's runs, or what a short text has twenty of. */
static size_t sequence_of(const struct kiln_choose_request *r, size_t vocab) {
    size_t seq = r->fixed.seq > 0 ? (size_t)r->fixed.seq : 256;
    if (r->fixed.dims != NULL && r->fixed.seq == 0) {
        seq = r->fixed.dims->seq;
    }
    while (r->fixed.seq == 0 && seq > 16 && !enough_text(r, vocab, seq)) {
        seq /= 2;
    }
    return seq;
}

static bool vocab_is_possible(const struct kiln_choose_request *r, size_t vocab) {
    if (r->fixed.dims != NULL) {
        return vocab == r->fixed.dims->vocab;
    }
    if (r->fixed.vocab > 0) {
        return vocab == r->fixed.vocab;
    }
    /* Every id must be seen often enough to be learned. Of those the law may take a half or a
     * quarter, where the head costs too much of the time; not less, though for a text that is read
     * often it would: what is not read again is not learned by heart. */
    const size_t most = kiln_law_vocab_of(r->text.bytes);
    return vocab <= most && 4 * vocab >= most && (vocab > BYTES_VOCAB || most == BYTES_VOCAB);
}

struct search {
    const struct kiln_choose_request *request;
    size_t vocab[VOCABS + 1], n_vocab;
    struct kiln_rung best;
    bool found, too_large;
};

static enum kiln_status try_shape(struct search *s, size_t shape, size_t vocab,
                                  struct kiln_err *err) {
    const struct kiln_choose_request *r = s->request;
    struct kiln_rung rung = {0};
    bool ok;
    if (!dims_of(&r->fixed, shapes[shape].dim, shapes[shape].layers, vocab, sequence_of(r, vocab),
                 &rung.dims)) {
        return KILN_OK;
    }
    if (r->fixed.dims != NULL) {
        rung.dims.seq = sequence_of(r, vocab);
    }
    run_out(r, &rung);
    if (s->found && rank(&rung) >= rank(&s->best)) {
        return KILN_OK;
    }
    KILN_TRY(fits(r, &rung, &ok, err));
    s->too_large = s->too_large || !ok;
    if (ok) {
        s->best = rung;
        s->found = true;
    }
    return KILN_OK;
}

static enum kiln_status search(struct search *s, struct kiln_err *err) {
    const struct kiln_choose_request *r = s->request;
    for (size_t i = 0; i < VOCABS; i++) {
        if (vocab_is_possible(r, vocabularies[i])) {
            s->vocab[s->n_vocab++] = vocabularies[i];
        }
    }
    if (s->n_vocab == 0) {
        s->vocab[s->n_vocab++] =
            r->fixed.dims != NULL ? r->fixed.dims->vocab : (size_t)r->fixed.vocab;
    }
    for (size_t v = 0; v < s->n_vocab; v++) {
        for (size_t i = 0; i < SHAPES; i++) {
            KILN_TRY(try_shape(s, i, s->vocab[v], err));
        }
    }
    return KILN_OK;
}

/* ---- what is told -----------------------------------------------------------------------------
 */

static void reason(struct kiln_choice *c, const char *fmt, ...) KILN_PRINTF(2, 3);
static void reason(struct kiln_choice *c, const char *fmt, ...) {
    va_list args;
    if (c->n_reasons == KILN_CHOICE_REASONS) {
        return;
    }
    va_start(args, fmt);
    vsnprintf(c->reason[c->n_reasons], sizeof c->reason[0], fmt, args);
    va_end(args);
    c->n_reasons++;
}

/* The shape of the ladder whose layers have about so many parameters, beside `from`. */
static bool neighbour(const struct kiln_choose_request *r, const struct kiln_rung *from,
                      double factor, struct kiln_rung *out, struct kiln_err *err) {
    const double wanted = layer_parameters(&from->dims) * factor;
    double nearest = 0.35; /* in logarithms: further away it is no such neighbour */
    bool found = false, ok = false;
    for (size_t i = 0; i < SHAPES; i++) {
        struct kiln_rung rung = {0};
        if (!dims_of(&r->fixed, shapes[i].dim, shapes[i].layers, from->dims.vocab, from->dims.seq,
                     &rung.dims)) {
            continue;
        }
        const double away = fabs(log(layer_parameters(&rung.dims) / wanted));
        if (away < nearest) {
            nearest = away;
            *out = rung;
            found = true;
        }
    }
    if (!found) {
        return false;
    }
    run_out(r, out);
    return fits(r, out, &ok, err) == KILN_OK && ok;
}

static void fill_ladder(const struct kiln_choose_request *r, struct kiln_choice *c,
                        struct kiln_err *err) {
    static const double factors[KILN_CHOICE_RUNGS] = {0.25, 0.5, 1, 2, 4};
    const bool sizes_fixed = r->fixed.dims != NULL || (r->fixed.dim > 0 && r->fixed.layers > 0);
    for (size_t i = 0; i < KILN_CHOICE_RUNGS; i++) {
        struct kiln_rung rung;
        if (factors[i] > 0.99 && factors[i] < 1.01) {
            c->is_at = c->n_rungs;
            c->rung[c->n_rungs++] = c->is;
        } else if (!sizes_fixed && neighbour(r, &c->is, factors[i], &rung, err)) {
            c->rung[c->n_rungs++] = rung;
        }
    }
}

static double chosen(double fixed, double value) { return isnan(fixed) ? value : fixed; }

/* Adapters want a rate about ten times that of the whole model: B begins at 0, and what they add is
 * of the order of rate times rank. As in most published runs nothing holds them back: no decay. */
#define ADAPTER_RATE 10

static bool adapters(const struct kiln_choose_request *r) { return r->plan.lora.rank > 0; }

/* The rates, warm-up and decay that the law's runs had. */
static void set_training(const struct kiln_choose_request *r, struct kiln_choice *c) {
    const struct kiln_choose_fixed *f = &r->fixed;
    const double window = (double)(c->is.batch * c->is.accum * c->is.dims.seq);
    double lr = kiln_law_rate(layer_parameters(&c->is.dims), window);
    lr = f->trained ? lr / 4 : lr;
    lr = adapters(r) ? lr * ADAPTER_RATE : lr;
    c->lr = chosen(f->lr, lr);
    c->min_lr = chosen(f->min_lr, c->lr / 20);
    c->weight_decay = chosen(f->weight_decay, adapters(r) ? 0 : kiln_law_decay(c->is.epochs));
    const uint64_t tenth = c->is.steps / 10;
    c->warmup = f->warmup_given ? f->warmup : tenth > 100 ? 100 : tenth;
}

static void explain(const struct kiln_choose_request *r, const struct search *s,
                    struct kiln_choice *c) {
    const struct kiln_choose_fixed *f = &r->fixed;
    const struct kiln_rung *is = &c->is;
    const double flops = kiln_flops_per_token(&is->dims, is->dims.seq);
    if (f->dims == NULL && f->vocab == 0 && is->dims.vocab > BYTES_VOCAB) {
        reason(c,
               "vocabulary %zu: learned from the text, about %.1f bytes a token; %.3g MB have no "
               "use for more",
               is->dims.vocab, is->forecast.bytes_per_token, r->text.bytes / 1e6);
    } else if (f->dims == NULL && f->vocab == 0) {
        reason(c, "vocabulary %zu: bytes; the text is too short to learn one from", is->dims.vocab);
    }
    if (f->dims == NULL) {
        reason(c,
               "size %.3g M: reads %.3g M tokens in the time, the text %.2g times; smaller would "
               "learn less of it, larger would not get far enough or learn it by heart",
               (double)is->parameters / 1e6, is->tokens / 1e6, is->epochs);
    }
    reason(c, "rate: a token takes %.3g MFLOP, and such steps did %.3g TFLOP/s here", flops / 1e6,
           rate_of(r, flops) / 1e12);
    if (ranks_of(r) > 1) {
        reason(c,
               "%zu ranks: each takes %zu of the %zu micro-batches of a window, and waits %.2g ms "
               "for the others' gradients",
               ranks_of(r), share_of(r, is), is->accum, is->wait_s * 1e3);
    }
    reason(c,
           "window of %zu tokens: short trainings gain more from many updates than from quiet ones",
           is->batch * is->accum * is->dims.seq);
    reason(c, "learning rate %.2g%s: %s", c->lr, isnan(f->lr) ? "" : " (given)",
           adapters(r)  ? "of adapters, ten times that of the whole model; no weight decay"
           : f->trained ? "a quarter of a fresh model's, so that what it knows is kept"
                        : "falls with the size, rises with the window, as in the law's runs");
    if (isnan(f->weight_decay) && c->weight_decay > 0.11) {
        reason(c,
               "weight decay %.2g: the text is read %.3g times, and should not be learned by heart",
               c->weight_decay, is->epochs);
    }
    if (s->too_large) {
        snprintf(c->warning, sizeof c->warning,
                 "the memory, %.3g GB, forbids sizes that the time would allow; --memory says how "
                 "much may be used",
                 (double)r->plan.memory / 1e9);
    } else if (is->epochs > 40) {
        snprintf(c->warning, sizeof c->warning,
                 "the text is small for the time: it is read %.0f times, and more time would not "
                 "make the model better; more text would",
                 is->epochs);
    }
}

static enum kiln_status check(const struct kiln_choose_request *r, struct kiln_err *err) {
    const struct kiln_choose_fixed *f = &r->fixed;
    KILN_REQUIRE(r->seconds > 0 && r->n_rates > 0 && r->n_rates <= KILN_RATES, err, KILN_EUSAGE,
                 "choosing a model: no time is left to train in; give more --minutes");
    KILN_REQUIRE(f->dim == 0 || f->heads == 0 || f->dim % f->heads == 0, err, KILN_EUSAGE,
                 "--heads %" PRIu64 " do not divide --dim %" PRIu64, f->heads, f->dim);
    return KILN_OK;
}

enum kiln_status kiln_choose(const struct kiln_choose_request *request, struct kiln_choice *out,
                             struct kiln_err *err) {
    struct search s = {.request = request};
    struct kiln_err ignored;
    memset(out, 0, sizeof *out);
    KILN_TRY(check(request, err));
    KILN_TRY(search(&s, err));
    KILN_REQUIRE(s.found || !s.too_large, err, KILN_ENOMEM,
                 "no model fits %.3g GB of memory (--memory)", (double)request->plan.memory / 1e9);
    KILN_REQUIRE(
        s.found, err, KILN_EUSAGE,
        "the sizes that were given make no model: heads must divide the width, kv-heads the "
        "heads, and a head must be even");
    KILN_REQUIRE(enough_text(request, s.best.dims.vocab, 4), err, KILN_EINPUT,
                 "the text is too short: %.0f bytes have not enough for a window",
                 request->text.bytes);
    out->is = s.best;
    set_training(request, out);
    fill_ladder(request, out, &ignored);
    explain(request, &s, out);
    if (request->fixed.trained) {
        out->is.forecast.bits = out->is.forecast.low = out->is.forecast.high = 0;
    }
    return KILN_OK;
}

double kiln_forecast_nats(const struct kiln_forecast *forecast, double bits) {
    return bits * log(2.0) * forecast->bytes_per_token;
}

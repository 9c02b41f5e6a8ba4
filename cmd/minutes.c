/* SPDX-License-Identifier: MIT
 *
 * minutes.c: what was chosen for a time: said before training, and by kiln plan --minutes.
 */
#include "minutes.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "kiln/report.h"
#include "output.h"

static void print_sizes(const struct kiln_minutes *m) {
    const struct kiln_choice *c = &m->choice;
    const struct kiln_rung *is = &c->is;
    const struct kiln_dims *d = &is->dims;
    char bytes[32];
    printf(
        "  model     dim %zu, hidden %zu, layers %zu, heads %zu, vocab %zu, seq %zu: %.3g M "
        "parameters\n",
        d->dim, d->hidden, d->layers, d->heads, d->vocab, d->seq, (double)is->parameters / 1e6);
    printf("  training  %" PRIu64
           " steps of %zu x %zu x %zu tokens, learning rate %.3g to %.3g, warm-up %" PRIu64 "\n",
           is->steps, is->accum, is->batch, d->seq, c->lr, c->min_lr, c->warmup);
    printf("  it reads  %.3g M tokens, the text %.3g times; %.3g ms a step, %s of memory\n",
           is->tokens / 1e6, is->epochs, is->step_s * 1e3,
           kiln_human_bytes((double)is->memory, bytes, sizeof bytes));
}

/* How much of a text that is long for the time is looked at. */
static void print_text(const struct kiln_minutes *m) {
    char taken[32], all[32];
    if (m->settings.data_tokens != KILN_UNSET && m->text_bytes > 0) {
        printf("  it takes  %s of the text, of %s: the beginning, about %.3g M tokens%s\n",
               kiln_human_bytes(m->tokenized_bytes, taken, sizeof taken),
               kiln_human_bytes(m->text_bytes, all, sizeof all),
               (double)m->settings.data_tokens / 1e6,
               m->settings.origin[KILN_SETTING_data_tokens] == KILN_FROM_MINUTES
                   ? " (more than can be read in the time; --data-tokens N takes more)"
                   : "");
    }
}

static void print_forecast(const struct kiln_forecast *f) {
    if (f->bits <= 0) {
        printf("  expect    no loss is foretold: the model was trained before\n");
        return;
    }
    printf("  expect    a held-out loss of %.2f to %.2f nats a token, %.2f to %.2f bits a byte\n",
           kiln_forecast_nats(f, f->low), kiln_forecast_nats(f, f->high), f->low, f->high);
}

static void print_ladder(const struct kiln_choice *c) {
    if (c->n_rungs < 2) {
        return;
    }
    printf("\n  in the same time    parameters   M tokens    epochs   bits a byte\n");
    for (size_t i = 0; i < c->n_rungs; i++) {
        const struct kiln_rung *r = &c->rung[i];
        char name[48];
        snprintf(name, sizeof name, "dim %zu, layers %zu", r->dims.dim, r->dims.layers);
        printf("  %-19s %8.3g M %10.3g %9.3g %13.3f%s\n", name, (double)r->parameters / 1e6,
               r->tokens / 1e6, r->epochs, r->forecast.bits, i == c->is_at ? "  chosen" : "");
    }
}

void minutes_print(const struct kiln_minutes *m) {
    const struct kiln_choice *c = &m->choice;
    printf("for %g minutes with %.3g MB of text (chosen after %.1f s)\n", m->settings.minutes,
           (m->text_bytes > 0 ? m->text_bytes : m->request.text.bytes) / 1e6, m->measured_s);
    print_sizes(m);
    print_text(m);
    print_forecast(&c->is.forecast);
    printf("  why\n");
    for (size_t i = 0; i < c->n_reasons; i++) {
        printf("    %s\n", c->reason[i]);
    }
    if (c->warning[0] != '\0') {
        printf("  beware    %s\n", c->warning);
    }
    print_ladder(c);
    printf("\n");
}

void minutes_print_end(const struct kiln_run_info *info, double val_loss) {
    const struct kiln_forecast *f = &info->forecast;
    if (f->bits <= 0 || !isfinite(val_loss)) {
        return;
    }
    const double bits = val_loss / log(2.0) / f->bytes_per_token;
    printf("held out: %.4f nats a token, %.3f bits a byte; expected were %.2f to %.2f: %s\n",
           val_loss, bits, f->low, f->high,
           bits < f->low    ? "better"
           : bits > f->high ? "worse (docs/minutes.md)"
                            : "as foretold");
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *forecast_json(const struct kiln_forecast *f) {
    if (f->bits <= 0) {
        return json_null();
    }
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "bits_per_byte", f->bits, "low", f->low,
                     "high", f->high, "nats_per_token", kiln_forecast_nats(f, f->bits), "nats_low",
                     kiln_forecast_nats(f, f->low), "nats_high", kiln_forecast_nats(f, f->high),
                     "bytes_per_token", f->bytes_per_token);
}

static json_t *rung_json(const struct kiln_rung *r) {
    const struct kiln_dims *d = &r->dims;
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:o}",
        "params", (json_int_t)r->parameters, "dim", (json_int_t)d->dim, "hidden",
        (json_int_t)d->hidden, "layers", (json_int_t)d->layers, "heads", (json_int_t)d->heads,
        "kv_heads", (json_int_t)d->kv_heads, "vocab", (json_int_t)d->vocab, "seq",
        (json_int_t)d->seq, "batch", (json_int_t)r->batch, "accum", (json_int_t)r->accum, "steps",
        (json_int_t)r->steps, "tokens", r->tokens, "epochs", r->epochs, "step_s", r->step_s,
        "memory_bytes", (json_int_t)r->memory, "forecast", forecast_json(&r->forecast));
}

json_t *minutes_json(const struct kiln_minutes *m) {
    const struct kiln_choice *c = &m->choice;
    json_t *ladder = json_array(), *reasons = json_array(), *rates = json_array();
    for (size_t i = 0; i < c->n_rungs; i++) {
        json_array_append_new(ladder, rung_json(&c->rung[i]));
    }
    for (size_t i = 0; i < c->n_reasons; i++) {
        json_array_append_new(reasons, json_string(c->reason[i]));
    }
    for (size_t i = 0; i < m->request.n_rates; i++) {
        json_array_append_new(
            rates, json_pack("{s:f, s:f}", "flops_per_token", m->request.rate[i].flops_per_token,
                             "tflops", m->request.rate[i].flops_per_s * 1e-12));
    }
    return json_pack(
        "{s:f, s:o, s:f, s:f, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:o, s:o, s:o}",
        "minutes", m->settings.minutes, "chosen", rung_json(&c->is), "lr", c->lr, "min_lr",
        c->min_lr, "weight_decay", c->weight_decay, "warmup", (json_int_t)c->warmup, "text_bytes",
        m->request.text.bytes, "given_bytes", m->text_bytes, "tokenized_bytes", m->tokenized_bytes,
        "trigram_bits", m->request.text.trigram_bits, "seconds", m->request.seconds, "measured_s",
        m->measured_s, "warning", c->warning, "why", reasons, "rates", rates, "ladder", ladder);
}

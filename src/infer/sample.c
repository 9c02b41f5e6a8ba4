/* SPDX-License-Identifier: MIT */
#include "infer/sample.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/random.h"

struct kiln_candidate {
    float share; /* of the probability, times the sum of all */
    uint32_t id;
};

enum kiln_status kiln_sampler_open(struct kiln_sampler *sampler, size_t vocab, double temperature,
                                   double top_p, uint64_t seed, struct kiln_err *err) {
    *sampler = (struct kiln_sampler){
        .vocab = vocab, .temperature = temperature, .top_p = top_p, .seed = seed};
    KILN_REQUIRE(temperature >= 0.0 && isfinite(temperature), err, KILN_EUSAGE,
                 "temperature %g: use 0 (greedy) or more", temperature);
    KILN_REQUIRE(top_p >= 0.0 && top_p <= 1.0, err, KILN_EUSAGE, "top-p %g: use 0 to 1", top_p);
    sampler->candidates = kiln_alloc(vocab, sizeof *sampler->candidates);
    KILN_REQUIRE(sampler->candidates, err, KILN_ENOMEM, "no memory for %zu candidates", vocab);
    return KILN_OK;
}

void kiln_sampler_close(struct kiln_sampler *sampler) {
    kiln_free(sampler->candidates);
    *sampler = (struct kiln_sampler){0};
}

static size_t highest(const float *x, size_t n) {
    size_t top = 0;
    for (size_t i = 1; i < n; i++) {
        top = x[i] > x[top] ? i : top;
    }
    return top;
}

/* Likeliest first; equals by id, so that the order does not depend on the system's qsort. */
static int by_share(const void *a, const void *b) {
    const struct kiln_candidate *x = a, *y = b;
    return x->share != y->share ? (x->share < y->share ? 1 : -1)
                                : (x->id > y->id) - (x->id < y->id);
}

/* Draw from the nucleus; `top` always belongs to it, so it is never empty. */
static uint32_t draw_nucleus(const struct kiln_sampler *s, const float *shares, double total,
                             size_t top, double coin) {
    /* The nucleus holds no share below cutoff: even if all but one token had just that much, the
     * one would be more than top_p. This spares sorting the vocabulary. */
    double cutoff = s->vocab > 1 ? (1.0 - s->top_p) / (double)(s->vocab - 1) * total : 0.0;
    size_t n = 0, end = 0;
    for (size_t i = 0; i < s->vocab; i++) {
        if (i == top || (double)shares[i] >= cutoff) {
            s->candidates[n++] = (struct kiln_candidate){shares[i], (uint32_t)i};
        }
    }
    qsort(s->candidates, n, sizeof *s->candidates, by_share);
    double sum = 0.0;
    do {
        sum += (double)s->candidates[end++].share;
    } while (end < n && sum <= s->top_p * total);
    double left = coin * sum;
    for (size_t i = 0; i + 1 < end; i++) {
        left -= (double)s->candidates[i].share;
        if (left < 0.0) {
            return s->candidates[i].id;
        }
    }
    return s->candidates[end - 1].id;
}

uint32_t kiln_sample(const struct kiln_sampler *s, float *logits, size_t position) {
    size_t top = highest(logits, s->vocab);
    if (s->temperature == 0.0) {
        return (uint32_t)top;
    }
    double coin = kiln_random_uniform(s->seed, KILN_STREAM_SAMPLE, position);
    double total = 0.0;
    float peak = logits[top], scale = (float)(1.0 / s->temperature);
    for (size_t i = 0; i < s->vocab; i++) {
        /* A tiny temperature makes the scale infinite, and 0 times that is no number. */
        logits[i] = logits[i] < peak ? expf((logits[i] - peak) * scale) : 1.0f;
        total += (double)logits[i];
    }
    if (s->top_p > 0.0 && s->top_p < 1.0) {
        return draw_nucleus(s, logits, total, top, coin);
    }
    double left = coin * total;
    for (size_t i = 0; i < s->vocab; i++) {
        left -= (double)logits[i];
        if (left < 0.0) {
            return (uint32_t)i;
        }
    }
    return (uint32_t)top; /* rounding left a little */
}

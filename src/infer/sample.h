/* SPDX-License-Identifier: MIT
 *
 * sample.h: one token drawn from the scores of a model.
 */
#ifndef KILN_INFER_SAMPLE_H
#define KILN_INFER_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

struct kiln_sampler {
    size_t vocab;
    double temperature, top_p;
    uint64_t seed;
    struct kiln_candidate *candidates; /* [vocab], room for the nucleus */
};

/* KILN_EUSAGE when temperature is negative or top_p outside 0 to 1. */
KILN_MUST_CHECK enum kiln_status kiln_sampler_open(struct kiln_sampler *sampler, size_t vocab,
                                                   double temperature, double top_p, uint64_t seed,
                                                   struct kiln_err *err);
void kiln_sampler_close(struct kiln_sampler *sampler);

/* Temperature 0: the highest score, the first of equals. Otherwise a draw from
 * softmax(logits / temperature), with 0 < top_p < 1 from the likeliest tokens whose shares first
 * sum to more than top_p (Holtzman et al. 2020). A pure function of logits, seed and position;
 * logits are overwritten. */
uint32_t kiln_sample(const struct kiln_sampler *sampler, float *logits, size_t position);

#endif

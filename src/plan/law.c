/* SPDX-License-Identifier: MIT
 *
 * law.c: the scaling law behind kiln_choose: what a loss ends at.
 *
 * bits a byte = hardness * (E + A N^-alpha + B D^-beta) + C x r^delta (w / 0.1)^-omega
 *
 * x = (N / U) / (1 + (N / U) / full)
 *
 * N parameters of the layers, D bytes read, of which U are different: what is read again counts the
 * less the oftener it was (Muennighoff et al., Scaling Data-Constrained Language Models, 2023:
 * equation 5), D = U + U R (1 - exp(-r / R)), r the repetitions; and what is repeated to a large
 * model is learned by heart, the last term, which that paper leaves out and
 * weight decay w makes smaller. In bytes, not tokens, so
 * that one law serves every vocabulary. Hardness is what a trigram model leaves of the text, bits a
 * byte, beside what it leaves of as many ids of English plays. docs/minutes.md has the fit;
 * `bench/law fit` prints the constants.
 */
#include "plan/law.h"

#include <math.h>

#define LAW_E     1.0
#define LAW_A     4.335
#define LAW_ALPHA 0.15
#define LAW_B     3073.0
#define LAW_BETA  0.5764
#define LAW_R     3.784
#define LAW_OMEGA 0.2469
/* Repetitions behind which nothing more is learned by heart: beyond those of the runs. */
#define LAW_MANY 30.0
#define LAW_C    0.03546
/* Parameters for a byte of the text from which on more of them learn little more by heart. */
#define LAW_FULL  12.66
#define LAW_DELTA 0.9903
/* What a trigram model leaves of 200000 ids of tinyshakespeare, and how that falls with more. */
#define TRIGRAM_BITS 2.213
#define TRIGRAM_FALL 0.065

double kiln_law_hardness(const struct kiln_choose_text *text) {
    if (text->trigram_bits <= 0 || text->trigram_ids <= 0) {
        return 1.0;
    }
    const double plays = TRIGRAM_BITS * pow(text->trigram_ids / 2e5, -TRIGRAM_FALL);
    return text->trigram_bits / plays;
}

/* 1.9 bytes at 512 ids, 0.6 more with every doubling, in English; what is easier has
 * longer words. The first id beyond bytes begins at 1. */
double kiln_law_bytes_per_token(const struct kiln_choose_text *text, size_t vocab) {
    if (vocab < 260) {
        return 1.0;
    }
    const double doublings = log2((double)vocab) - 9.0;
    const double bytes = 1.9 + 0.6 * doublings;
    return 1.0 + (bytes > 1.05 ? bytes - 1.0 : 0.05) / pow(kiln_law_hardness(text), 0.7);
}

double kiln_law_bits(const struct kiln_choose_text *text, size_t vocab, double parameters,
                     double tokens) {
    const double per_token =
        text->bytes_per_token > 0 ? text->bytes_per_token : kiln_law_bytes_per_token(text, vocab);
    const double bytes = tokens * per_token;
    const double once = text->bytes > 1 ? text->bytes : 1;
    const double again = bytes > once ? bytes / once - 1.0 : 0.0;
    const double data = (bytes < once ? bytes : once) + once * LAW_R * (1.0 - exp(-again / LAW_R));
    const double many = LAW_MANY * (1.0 - exp(-again / LAW_MANY));
    const double share = parameters / once / (1 + parameters / once / LAW_FULL);
    const double held = pow(kiln_law_decay(again + 1.0) / 0.1, -LAW_OMEGA);
    return kiln_law_hardness(text) *
               (LAW_E + LAW_A * pow(parameters, -LAW_ALPHA) + LAW_B * pow(data, -LAW_BETA)) +
           held * LAW_C * share * pow(many, LAW_DELTA);
}

double kiln_law_batch(double tokens) {
    const double window = 512.0 * sqrt(tokens / 1e6);
    return window < 512.0 ? 512.0 : window;
}

double kiln_law_rate(double parameters, double window) {
    const double rate = 2.5e-3 * pow(parameters / 8e5, -0.2) * sqrt(sqrt(window / 1024.0));
    return rate > 4e-3 ? 4e-3 : rate;
}

double kiln_law_decay(double epochs) {
    const double decay = 0.1 * epochs;
    return decay < 0.1 ? 0.1 : decay > 1.0 ? 1.0 : floor(decay * 100 + 0.5) / 100;
}

double kiln_law_vocab(double bytes) { return bytes / 1000.0; }

double kiln_law_spread(const struct kiln_choose_text *text, double tokens) {
    return (text->trigram_bits > 0 ? 1.08 : 1.3) * (tokens < 2e5 ? 1.1 : 1.0);
}

size_t kiln_law_vocab_of(double bytes) {
    size_t vocab = 512;
    while (vocab < 32768 && (double)(2 * vocab) <= kiln_law_vocab(bytes)) {
        vocab *= 2;
    }
    return (double)vocab <= kiln_law_vocab(bytes) ? vocab : 259;
}

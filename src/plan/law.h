/* SPDX-License-Identifier: MIT
 *
 * law.h: what was found by bench/law, as functions (docs/minutes.md).
 */
#ifndef KILN_PLAN_LAW_H
#define KILN_PLAN_LAW_H

#include "kiln/choose.h"

/* How hard the text is, beside tinyshakespeare. */
double kiln_law_hardness(const struct kiln_choose_text *text);
/* Tokens of a window, when so many are read in all. */
double kiln_law_batch(double tokens);
/* Peak learning rate of a model whose layers have that many parameters, with windows of so many
 * tokens. */
double kiln_law_rate(double parameters, double window);
/* Weight decay for a text that is read so many times. */
double kiln_law_decay(double epochs);
/* The largest vocabulary that a text of so many bytes is worth. */
double kiln_law_vocab(double bytes);
/* The one of those that are tried: 259, 512, 1024, ... */
size_t kiln_law_vocab_of(double bytes);
/* A loss that comes lies within bits / spread and bits * spread, nine times of ten. */
double kiln_law_spread(const struct kiln_choose_text *text, double tokens);

#endif

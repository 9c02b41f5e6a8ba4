/* SPDX-License-Identifier: MIT
 *
 * scale.h: the loss scale of devices that compute in fp16.
 *
 * Gradients on such a device are small beside what fp16 can hold, so the loss's gradient is
 * multiplied by a power of two, and the optimizer divides by it: exactly, so norm, clipping and
 * what is reported are of the true gradient. The scale is the same for a whole window, and a power
 * of two smaller where few of its targets count. A window whose gradient overflows is skipped: W,
 * m, v and their count stay, its data is consumed, and the next window has half the scale. After
 * KILN_SCALE_GOOD windows without that it doubles. The loss itself is not scaled: one that is not
 * finite is no overflow, but an incident (judge.c).
 */
#ifndef KILN_TRAIN_SCALE_H
#define KILN_TRAIN_SCALE_H

#include <stdbool.h>
#include <stdint.h>

#include "kiln/cpu.h"
#include "state/state.h"

enum {
    KILN_SCALE_FIRST = 128, /* times the tokens of a window, rounded up to a power of two */
    KILN_SCALE_GOOD = 200,  /* windows in a row until it doubles */
    KILN_SCALE_SKIPS = 20,  /* windows skipped in a row are too many */
};
#define KILN_SCALE_MOST    0x1p40
#define KILN_SCALE_LARGEST 65504.0 /* the largest number of fp16: of weights, too */

/* Does a device of that precision want one? */
bool kiln_scale_wanted(enum kiln_precision precision);
/* The first one, for windows of that many tokens. */
double kiln_scale_first(double tokens);
/* That of a window of so many tokens that all count; 1 where none is wanted. */
double kiln_scale_of(const struct kiln_cursor *cursor, enum kiln_precision precision,
                     double tokens);
/* What a window takes of it of whose tokens only `targets` count: a power of two, 1 for more than
 * half of them. The loss is divided by the targets, not by the tokens: without this a window with
 * one answer of a word would overflow, and with it all the others would be scaled less. What a
 * target's gradient is scaled by differs by less than a factor of 2 between windows. */
double kiln_scale_share(double targets, double tokens);
/* The window is over, and did its gradient overflow? The scale of the next. */
void kiln_scale_next(struct kiln_cursor *cursor, bool overflowed);

/* Tests set it: losses are scaled on every device, and the gradient of a window for which it is
 * true overflows. Steps count from 0. */
extern bool (*kiln_overflow_instead)(uint64_t step);

#endif

/* SPDX-License-Identifier: MIT
 *
 * hardness.h: how hard a text is to foretell, before anything is trained.
 */
#ifndef KILN_TRAIN_HARDNESS_H
#define KILN_TRAIN_HARDNESS_H

#include <stddef.h>
#include <stdint.h>

/* Bits that a trigram model of ids leaves of an id, which learns as it reads: the mean over the
 * second half of `n` ids. Counts of an id behind the two before it are mixed with those behind one
 * and with its own, each by how often something new came there (Witten and Bell 1991, method C).
 * 0 where n is below 16, or memory is short. */
double kiln_trigram_bits(const uint32_t *ids, size_t n, size_t vocab);

#endif

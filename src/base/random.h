/* SPDX-License-Identifier: MIT
 *
 * random.h: counter-based random numbers.
 *
 * Every number is a pure function of (seed, stream, index), so nothing has to be saved, threads
 * may draw in any order, and the same run draws the same numbers on every machine. The mixing
 * function is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom
 * Number Generators, OOPSLA 2014), applied twice.
 */
#ifndef KILN_BASE_RANDOM_H
#define KILN_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* 64 random bits. */
uint64_t kiln_random_bits(uint64_t seed, uint64_t stream, uint64_t index);
/* Uniform in [0, 1), 53 bits. */
double kiln_random_uniform(uint64_t seed, uint64_t stream, uint64_t index);
/* Standard normal (Box-Muller on the bits of index/2, which give two numbers). */
double kiln_random_normal(uint64_t seed, uint64_t stream, uint64_t index);
/* out[i] = deviation * kiln_random_normal(seed, stream, first + i) for i < n, in less time; first
 * is even. */
void kiln_random_normals(uint64_t seed, uint64_t stream, double deviation, float *out,
                         uint64_t first, size_t n);
/* Uniform in [0, n), n > 0. */
uint64_t kiln_random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n);
/* The place of `index` in a pseudorandom permutation of 0..n-1 that (seed, stream) names: a
 * bijection without a table (a Feistel network with cycle walking; Black and Rogaway, Ciphers
 * with Arbitrary Finite Domains, CT-RSA 2002). index < n. */
uint64_t kiln_random_permute(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n);

/* Streams, so that no two uses ever share numbers. Add new ones at the end. */
enum kiln_stream {
    KILN_STREAM_INIT = 1,
    KILN_STREAM_DATA,
    KILN_STREAM_SAMPLE,
    KILN_STREAM_STORY,
    KILN_STREAM_TEST,
    KILN_STREAM_MIX,
};

#endif

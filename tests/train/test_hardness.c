/* SPDX-License-Identifier: MIT
 *
 * test_hardness.c: what a trigram model leaves of texts whose entropy is known.
 */
#include "base/random.h"
#include "kiln_test.h"
#include "train/hardness.h"

enum { N = 60000 };
static uint32_t ids[N];

TEST(noise_keeps_its_entropy) {
    for (size_t i = 0; i < N; i++) {
        ids[i] = (uint32_t)kiln_random_below(1, KILN_STREAM_TEST, i, 16);
    }
    CHECK_CLOSE(kiln_trigram_bits(ids, N, 16), 4.0, 0.1);
    CHECK(kiln_trigram_bits(ids, N, 1000) > 3.9); /* ids that never come cost next to nothing */
    CHECK(kiln_trigram_bits(ids, N, 1000) < 4.2);
}

TEST(what_two_ids_decide_is_free) {
    for (size_t i = 0; i < N; i++) {
        ids[i] = (uint32_t)(i < 2 ? i : (ids[i - 1] * 7 + ids[i - 2] * 3 + 1) % 97);
    }
    CHECK(kiln_trigram_bits(ids, N, 97) < 0.01);
}

TEST(a_coin_in_every_second_place_is_half_a_bit) {
    for (size_t i = 0; i < N; i++) {
        ids[i] = i % 2 == 0 ? 2 : (uint32_t)kiln_random_below(3, KILN_STREAM_TEST, i, 2);
    }
    CHECK_CLOSE(kiln_trigram_bits(ids, N, 3), 0.5, 0.02);
}

TEST(of_almost_nothing_nothing_is_said) {
    CHECK(kiln_trigram_bits(ids, 15, 3) <= 0);
    CHECK(kiln_trigram_bits(ids, 16, 3) > 0);
}

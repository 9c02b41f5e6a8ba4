/* SPDX-License-Identifier: MIT
 *
 * Counter-based random numbers (src/base/random.h). Exact values are pinned: a change of them
 * changes every run that anybody has made.
 */
#include <math.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/random.h"
#include "kiln_test.h"

#define STREAM KILN_STREAM_TEST

TEST(random_numbers_are_the_same_as_ever) {
    CHECK_EQ(kiln_random_bits(0, 0, 0), 0xed10172cc0c96cf8u);
    CHECK_EQ(kiln_random_bits(42, KILN_STREAM_DATA, 7), 0xd659004f0408a2f2u);
    CHECK_EQ(kiln_random_permute(42, KILN_STREAM_DATA, 7, 1000), 212);
    const double normal[] = {
        -1.5920932395584597, 1.3543543605807449,  0.8788114375325571,   1.455047084955483,
        0.624428462254185,   -0.2700920976133402, -0.9046309454208009,  -0.851342768548002,
        -0.4130511935943714, -0.4217352676095749, 0.022915882061026658, 0.5945986898328384,
        0.15139558121312435, 1.694913673311881,   -0.7069490554504255,  -2.059540413479102};
    for (uint64_t i = 0; i < 16; i++) { /* all quarters of the turn, both of each pair */
        CHECK_CLOSE(kiln_random_normal(42, KILN_STREAM_INIT, i), normal[i], 2e-15);
    }
}

TEST(seed_stream_and_index_each_change_the_number) {
    uint64_t base = kiln_random_bits(1, 2, 3);
    CHECK(kiln_random_bits(2, 2, 3) != base);
    CHECK(kiln_random_bits(1, 3, 3) != base);
    CHECK(kiln_random_bits(1, 2, 4) != base);
    CHECK(kiln_random_bits(2, 1, 3) != base);
}

TEST(uniform_numbers_fill_their_range_evenly) {
    const uint64_t n = 100000;
    size_t bins[10] = {0};
    for (uint64_t i = 0; i < n; i++) {
        double u = kiln_random_uniform(1, STREAM, i);
        CHECK(u >= 0 && u < 1);
        bins[(int)(u * 10)]++;
    }
    for (int b = 0; b < 10; b++) { /* five deviations of a binomial count: 5 sqrt(n p q) */
        CHECK_CLOSE(bins[b], n / 10.0, 475);
    }
}

TEST(numbers_below_n_reach_every_value_evenly) {
    size_t counts[7] = {0};
    for (uint64_t i = 0; i < 70000; i++) {
        uint64_t x = kiln_random_below(3, STREAM, i, 7);
        CHECK(x < 7);
        counts[x]++;
    }
    for (int v = 0; v < 7; v++) {
        CHECK_CLOSE(counts[v], 10000, 463);
    }
    CHECK_EQ(kiln_random_below(3, STREAM, 0, 1), 0);
}

TEST(normal_numbers_have_the_moments_of_the_normal_law) {
    const int n = 200000;
    double sum = 0, squares = 0, fourths = 0;
    for (int i = 0; i < n; i++) {
        double x = kiln_random_normal(1, STREAM, (uint64_t)i);
        CHECK(isfinite(x));
        sum += x;
        squares += x * x;
        fourths += x * x * x * x;
    }
    CHECK_CLOSE(sum / n, 0, 5 / sqrt(n)); /* five deviations of each mean */
    CHECK_CLOSE(squares / n, 1, 5 * sqrt(2.0 / n));
    CHECK_CLOSE(fourths / n, 3, 5 * sqrt(96.0 / n));
}

TEST(normal_numbers_come_one_by_one_or_many_at_once) {
    for (size_t n = 0; n < 12; n++) {
        const size_t first = n / 6 * 30;
        float many[6] = {0};
        kiln_random_normals(5, STREAM, 0.5, many, first, n % 6);
        for (size_t i = 0; i < 6; i++) {
            float want = i < n % 6 ? (float)(0.5 * kiln_random_normal(5, STREAM, first + i)) : 0.0f;
            CHECK_CLOSE(many[i], want, 0);
        }
    }
}

TEST(both_normal_numbers_of_a_pair_are_independent) {
    const uint64_t n = 100000;
    double products = 0, squares = 0;
    for (uint64_t i = 0; i < n; i++) {
        double a = kiln_random_normal(1, STREAM, 2 * i),
               b = kiln_random_normal(1, STREAM, 2 * i + 1);
        products += a * b;
        squares += (a * a - 1) * (b * b - 1);
    }
    CHECK_CLOSE(products / (double)n, 0, 5 / sqrt((double)n));
    CHECK_CLOSE(squares / (double)n, 0, 10 / sqrt((double)n));
}

static void check_permutation(uint64_t seed, uint64_t n) {
    unsigned char *seen = kiln_alloc(n, 1);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t place = kiln_random_permute(seed, STREAM, i, n);
        CHECK(place < n);
        CHECK(!seen[place]);
        seen[place] = 1;
    }
    kiln_free(seen);
}

TEST(a_permutation_reaches_every_place_once) {
    for (uint64_t n = 1; n <= 300; n++) {
        check_permutation(n, n);
        check_permutation(~n, n);
    }
    const uint64_t sizes[] = {1023, 1024, 1025, 4095, 4096, 4097, 65535, 65536, 65537, 100003};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        check_permutation(7, sizes[i]);
    }
}

TEST(a_permutation_works_for_the_largest_n) {
    for (uint64_t i = 0; i < 1000; i++) {
        CHECK(kiln_random_permute(1, STREAM, i, UINT64_MAX) < UINT64_MAX);
        CHECK(kiln_random_permute(1, STREAM, i, ((uint64_t)1 << 62) + 1) <= (uint64_t)1 << 62);
    }
}

TEST(every_seed_shuffles_anew_and_leaves_little_in_place) {
    int fixed = 0, same = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t a = kiln_random_permute(1, STREAM, i, 1000);
        fixed += a == i;
        same += a == kiln_random_permute(2, STREAM, i, 1000);
    }
    CHECK(fixed < 10); /* a random permutation leaves one in place on average */
    CHECK(same < 10);
}

TEST(small_permutations_of_many_seeds_are_even) {
    /* Each of the 6 orders of 3 things should come up 1000 times of 6000: five deviations. */
    size_t counts[9] = {0};
    for (uint64_t seed = 0; seed < 6000; seed++) {
        uint64_t a = kiln_random_permute(seed, STREAM, 0, 3);
        uint64_t b = kiln_random_permute(seed, STREAM, 1, 3);
        counts[3 * a + b]++;
    }
    for (int order = 0; order < 9; order++) {
        bool possible = order / 3 != order % 3;
        CHECK_CLOSE(counts[order], possible ? 1000 : 0, possible ? 145 : 0);
    }
}

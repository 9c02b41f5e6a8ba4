/* SPDX-License-Identifier: MIT
 *
 * Drawing tokens (src/infer/sample.h): the edges, and that frequencies are the probabilities.
 */
#include <math.h>
#include <string.h>

#include "infer/sample.h"
#include "kiln_test.h"

enum { N = 8, DRAWS = 20000 };

static struct kiln_sampler open_sampler(size_t n, double temperature, double top_p) {
    struct kiln_sampler sampler;
    struct kiln_err err;
    CHECK_OK(kiln_sampler_open(&sampler, n, temperature, top_p, 11, &err), &err);
    return sampler;
}

static uint32_t draw(const struct kiln_sampler *sampler, const float *logits, size_t position) {
    float copy[N];
    memcpy(copy, logits, sampler->vocab * sizeof *copy);
    return kiln_sample(sampler, copy, position);
}

TEST(greedy_takes_the_first_of_equals) {
    const float logits[N] = {0, 1, 3, -2, 3, 3, 2, 1};
    struct kiln_sampler sampler = open_sampler(N, 0.0, 0.9);
    CHECK_EQ(draw(&sampler, logits, 0), 2);
    kiln_sampler_close(&sampler);
}

/* Count draws and compare with what is expected: 5 deviations of a binomial. */
static void check_frequencies(double temperature, double top_p, const float *logits,
                              const double *want) {
    struct kiln_sampler sampler = open_sampler(N, temperature, top_p);
    size_t count[N] = {0};
    for (size_t i = 0; i < DRAWS; i++) {
        count[draw(&sampler, logits, i)]++;
    }
    for (size_t i = 0; i < N; i++) {
        double deviation = sqrt(want[i] * (1.0 - want[i]) / DRAWS);
        CHECK_CLOSE((double)count[i] / DRAWS, want[i], 5.0 * deviation);
    }
    kiln_sampler_close(&sampler);
}

static void shares(const float *logits, double temperature, double *out) {
    double total = 0.0;
    for (size_t i = 0; i < N; i++) {
        total += out[i] = exp((double)logits[i] / temperature);
    }
    for (size_t i = 0; i < N; i++) {
        out[i] /= total;
    }
}

TEST(frequencies_are_the_softmax) {
    const float logits[N] = {0.5f, 1, 2, -2, -30, 0, 1.5f, 1};
    double want[N];
    shares(logits, 1.0, want);
    check_frequencies(1.0, 1.0, logits, want);
    check_frequencies(1.0, 0.0, logits, want); /* 0 and 1: all tokens */
    shares(logits, 2.5, want);
    check_frequencies(2.5, 1.0, logits, want);
}

TEST(a_nucleus_holds_the_likeliest_and_no_more) {
    /* Shares 1/2, 1/4, 1/8 ...: 0.6 needs the first two. */
    float logits[N];
    double want[N] = {[5] = 2.0 / 3.0, [2] = 1.0 / 3.0};
    static const size_t rank[N] = {3, 6, 1, 7, 4, 0, 2, 5};
    for (size_t i = 0; i < N; i++) {
        logits[i] = (float)(-log(2.0) * (double)rank[i]);
    }
    check_frequencies(1.0, 0.6, logits, want);
}

TEST(a_tiny_top_p_of_equals_draws_the_first) {
    /* llama2.c's cutoff lies above every share here and leaves its nucleus empty. */
    const float logits[N] = {1, 1, 1, 1, 1, 1, 1, 1};
    struct kiln_sampler sampler = open_sampler(N, 1.0, 1e-9);
    for (size_t i = 0; i < 100; i++) {
        CHECK_EQ(draw(&sampler, logits, i), 0);
    }
    kiln_sampler_close(&sampler);
}

TEST(extreme_scores_give_a_token) {
    const float rows[][N] = {
        {-INFINITY, -INFINITY, 3, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
        {-3e38f, 3e38f, 0, 0, 0, 0, 0, 0},
        {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
        {NAN, 1, 2, 3, NAN, NAN, 0, 1},
    };
    static const double temperatures[] = {0.0, 1e-320, 1e-300, 1.0, 1e300};
    for (size_t row = 0; row < 4; row++) {
        for (size_t t = 0; t < 5; t++) {
            for (int quarter = 0; quarter <= 4; quarter++) {
                struct kiln_sampler sampler = open_sampler(N, temperatures[t], quarter / 4.0);
                uint32_t id = draw(&sampler, rows[row], t);
                CHECK(id < N);
                CHECK(row > 0 || id == 2);
                CHECK(row != 1 || id == 1 || t == 4);
                kiln_sampler_close(&sampler);
            }
        }
    }
    const float only[] = {0.25f};
    struct kiln_sampler sampler = open_sampler(1, 1.0, 0.5);
    CHECK_EQ(draw(&sampler, only, 0), 0);
    kiln_sampler_close(&sampler);
}

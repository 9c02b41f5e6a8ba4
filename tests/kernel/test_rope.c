/* SPDX-License-Identifier: MIT
 *
 * Angles of RoPE, plain and scaled. tests/train/test_families.c compares them with transformers',
 * through whole models.
 */
#include <math.h>

#include "base/mem.h"
#include "kernel/rope.h"
#include "kiln_test.h"

/* A model of such heads; what the scaling is silent about is filled in. */
static struct kiln_dims dims_of(size_t head_size, float theta, struct kiln_rope rope) {
    struct kiln_dims dims = {.dim = 8,
                             .hidden = 8,
                             .layers = 1,
                             .heads = 1,
                             .kv_heads = 1,
                             .head_size = head_size,
                             .vocab = 8,
                             .seq = 8,
                             .rms_eps = 1e-5f,
                             .rope_theta = theta,
                             .rope = rope};
    struct kiln_err err;
    CHECK_OK(kiln_dims_check(&dims, &err), &err);
    return dims;
}

TEST(angles_are_those_of_rope) {
    enum { T = 1000, K = 6 };
    const struct kiln_dims dims = dims_of(K, 500.0f, (struct kiln_rope){0});
    float *angles = kiln_alloc((size_t)T * K, sizeof *angles);
    kiln_rope_angles(angles, T, &dims);
    for (size_t p = 0; p < T; p += 37) {
        for (size_t i = 0; i < K; i += 2) {
            double angle = (double)p * pow(500.0, -(double)i / (double)K);
            CHECK_CLOSE(angles[p * K + i], cos(angle), 1e-7);
            CHECK_CLOSE(angles[p * K + i + 1], sin(angle), 1e-7);
        }
    }
    kiln_free(angles);
}

TEST(linear_scaling_divides_every_frequency) {
    const struct kiln_dims plain = dims_of(64, 10000.0f, (struct kiln_rope){0});
    const struct kiln_dims bent =
        dims_of(64, 10000.0f, (struct kiln_rope){.kind = KILN_ROPE_LINEAR, .factor = 3});
    for (size_t i = 0; i < 32; i++) {
        CHECK_CLOSE(kiln_rope_frequency(&bent, i) * 3 / kiln_rope_frequency(&plain, i), 1, 1e-14);
    }
    CHECK_CLOSE(kiln_rope_scale(&bent), 1, 0);
}

/* Pairs that turn more than 4 times in the old sequence stay, those under once are stretched 8
 * times; a pair between lies on the line between: with 2 turns a third of the way. */
TEST(llama3_scaling_stretches_long_waves_only) {
    struct kiln_rope rope = {.kind = KILN_ROPE_LLAMA3,
                             .factor = 8,
                             .low_freq_factor = 1,
                             .high_freq_factor = 4,
                             .original_seq = 8192};
    const struct kiln_dims plain = dims_of(128, 500000.0f, (struct kiln_rope){0});
    const struct kiln_dims bent = dims_of(128, 500000.0f, rope);
    size_t kept = 0, stretched = 0;
    for (size_t i = 0; i < 64; i++) {
        const double was = kiln_rope_frequency(&plain, i), is = kiln_rope_frequency(&bent, i);
        const double turns = 8192 * was / (2 * acos(-1.0));
        kept += turns > 4;
        stretched += turns < 1;
        const double along = fmin(fmax((turns - 1) / 3, 0), 1);
        CHECK_CLOSE(is / was, along + (1 - along) / 8, 1e-12);
    }
    CHECK(kept > 10 && stretched > 10 && kept + stretched < 64);
}

/* Theta 10000, K 128, 4096 tokens: 32 turns are at dimension 20.9 and 1 turn at 45.03, so pairs up
 * to 20 stay, those from 46 on are stretched, pair 33 lies half way. */
TEST(yarn_scaling_goes_over_from_kept_to_stretched_in_a_line) {
    struct kiln_rope rope = {.kind = KILN_ROPE_YARN, .factor = 4, .original_seq = 4096};
    const struct kiln_dims plain = dims_of(128, 10000.0f, (struct kiln_rope){0});
    const struct kiln_dims bent = dims_of(128, 10000.0f, rope);
    for (size_t i = 0; i < 64; i++) {
        const double along = fmin(fmax(((double)i - 20) / 26, 0), 1);
        CHECK_CLOSE(kiln_rope_frequency(&bent, i) / kiln_rope_frequency(&plain, i),
                    1 - along + along / 4, 1e-12);
    }
    CHECK_CLOSE(kiln_rope_scale(&bent), 0.1 * log(4.0) + 1, 1e-6);
    float angles[2 * 128];
    kiln_rope_angles(angles, 2, &bent);
    CHECK_CLOSE((double)angles[0], kiln_rope_scale(&bent), 1e-7); /* position 0: cos 0 */
    CHECK_CLOSE((double)angles[128], cos(1.0) * kiln_rope_scale(&bent), 1e-6);
}

/* SPDX-License-Identifier: MIT
 *
 * Sizes of a model: the published ones, and the messages for those that make none.
 */
#include <math.h>
#include <stdint.h>

#include "kiln/model.h"
#include "kiln_test.h"

static struct kiln_dims small_dims(void) {
    return (struct kiln_dims){.dim = 64,
                              .hidden = 172,
                              .layers = 5,
                              .heads = 8,
                              .kv_heads = 4,
                              .vocab = 512,
                              .seq = 512,
                              .tied = true,
                              .rms_eps = 1e-5f,
                              .rope_theta = 10000.0f};
}

static void check_refused(struct kiln_dims dims, const char *why) {
    struct kiln_err err;
    CHECK_FAILS(kiln_dims_check(&dims, &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, why);
}

TEST(presets_have_the_published_numbers_of_parameters) {
    const struct {
        const char *name;
        double millions;
    } published[] = {{"stories15m", 15.19},
                     {"stories42m", 41.69},
                     {"stories110m", 109.53},
                     {"llama1b", 1178.7},
                     {"llama7b", 6607.3}};
    size_t n = 0;
    for (const struct kiln_preset *preset = kiln_presets(); preset->name != NULL; preset++, n++) {
        struct kiln_table *table;
        struct kiln_err err;
        CHECK_STRING(preset->name, published[n].name);
        CHECK(kiln_preset_find(preset->name) == preset);
        CHECK_OK(kiln_table_create(&preset->dims, &table, &err), &err);
        CHECK_CLOSE((double)table->parameters / 1e6, published[n].millions, n < 3 ? 0.005 : 0.05);
        kiln_table_destroy(table);
    }
    CHECK_EQ(n, 5);
    CHECK(kiln_preset_find("stories15M ") == NULL);
}

TEST(good_dims_pass_and_get_their_head_size) {
    struct kiln_dims dims = small_dims();
    CHECK_OK(kiln_dims_check(&dims, NULL), NULL);
    CHECK_EQ(dims.head_size, 8);
    CHECK_OK(kiln_dims_check(&dims, NULL), NULL);
}

TEST(a_head_size_of_its_own_stays) {
    struct kiln_dims dims = small_dims();
    dims.head_size = 16;
    dims.heads = 6; /* which does not divide dim, and need not */
    dims.kv_heads = 2;
    CHECK_OK(kiln_dims_check(&dims, NULL), NULL);
    CHECK_EQ(dims.head_size, 16);
}

static struct kiln_dims scaled_dims(enum kiln_rope_kind kind) {
    struct kiln_dims dims = small_dims();
    dims.rope = (struct kiln_rope){
        .kind = kind, .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_seq = 64};
    return dims;
}

TEST(rope_scaling_is_completed_and_what_a_kind_does_not_use_is_zero) {
    struct kiln_dims plain = scaled_dims(KILN_ROPE_PLAIN), linear = scaled_dims(KILN_ROPE_LINEAR);
    struct kiln_dims llama3 = scaled_dims(KILN_ROPE_LLAMA3), yarn = scaled_dims(KILN_ROPE_YARN);
    CHECK_OK(kiln_dims_check(&plain, NULL), NULL);
    CHECK(plain.rope.factor == 0 && plain.rope.original_seq == 0);
    CHECK_OK(kiln_dims_check(&linear, NULL), NULL);
    CHECK(linear.rope.factor == 8 && linear.rope.original_seq == 0);
    CHECK_OK(kiln_dims_check(&llama3, NULL), NULL);
    CHECK(llama3.rope.high_freq_factor == 4 && llama3.rope.beta_fast == 0);
    CHECK_OK(kiln_dims_check(&yarn, NULL), NULL);
    CHECK(yarn.rope.beta_fast == 32 && yarn.rope.beta_slow == 1 && yarn.rope.low_freq_factor == 0);
    CHECK_CLOSE((double)yarn.rope.attention_factor, 0.1 * log(8.0) + 1, 1e-7);
    yarn.rope.attention_factor = 1;
    CHECK_OK(kiln_dims_check(&yarn, NULL), NULL);
    CHECK(yarn.rope.attention_factor == 1);
}

TEST(rope_scaling_that_is_none_is_refused_by_name) {
    struct kiln_dims dims = scaled_dims(KILN_ROPE_LINEAR);
    dims.rope.factor = 0.5f;
    check_refused(dims, "factor 0.5");
    dims = scaled_dims(KILN_ROPE_LLAMA3);
    dims.rope.high_freq_factor = 1;
    check_refused(dims, "high_freq_factor 1: use a number above low_freq_factor 1");
    dims.rope.low_freq_factor = NAN;
    check_refused(dims, "low_freq_factor");
    dims = scaled_dims(KILN_ROPE_YARN);
    dims.rope.original_seq = 0;
    check_refused(dims, "original sequence of 0");
    dims = scaled_dims(KILN_ROPE_YARN);
    dims.rope.beta_fast = 0.5f;
    check_refused(dims, "beta_fast 0.5: use a number from beta_slow 1 up");
    dims.rope.attention_factor = -1;
    check_refused(dims, "attention_factor -1");
    dims = scaled_dims((enum kiln_rope_kind)9);
    check_refused(dims, "use none, linear, llama3 or yarn");
}

TEST(heads_that_do_not_fit_are_answered_with_those_that_do) {
    struct kiln_dims dims = small_dims();
    dims.heads = 7;
    check_refused(dims, "heads 7 does not divide dim 64: use 1, 2, 4, 8, 16, 32");
    dims.heads = 64;
    check_refused(dims, "odd size 1");
    dims = small_dims();
    dims.kv_heads = 3;
    check_refused(dims, "kv-heads 3 does not divide heads 8: use 1, 2, 4, 8");
    dims.kv_heads = 16;
    check_refused(dims, "kv-heads 16");
    dims = small_dims();
    dims.dim = 63;
    check_refused(dims, "dim 63 is odd");
    dims = small_dims();
    dims.head_size = 15;
    check_refused(dims, "head_size 15: use an even one");
    dims.head_size = (size_t)1 << 28;
    check_refused(dims, "head_size 268435456");
    dims = small_dims();
    dims.dim = 2162160; /* more divisors than a message has room for */
    dims.heads = 17;
    check_refused(dims, ", ...");
}

TEST(a_size_of_zero_or_beyond_reason_is_named) {
    static const char *const names[] = {"dim",      "hidden", "layers", "heads",
                                        "kv-heads", "vocab",  "seq"};
    const size_t bad[] = {0, (size_t)1 << 31, SIZE_MAX};
    for (size_t which = 0; which < 7; which++) {
        for (size_t b = 0; b < 3; b++) {
            struct kiln_dims dims = small_dims();
            size_t *const sizes[] = {&dims.dim,      &dims.hidden, &dims.layers, &dims.heads,
                                     &dims.kv_heads, &dims.vocab,  &dims.seq};
            *sizes[which] = bad[b];
            check_refused(dims, names[which]);
        }
    }
}

TEST(products_beyond_the_address_space_are_refused) {
    struct kiln_dims dims = small_dims();
    dims.dim = dims.hidden = dims.vocab = INT32_MAX - 1;
    dims.heads = dims.kv_heads = 1;
    check_refused(dims, "2^62 bytes");
    dims = small_dims();
    dims.seq = dims.vocab = INT32_MAX;
    check_refused(dims, "2^62 bytes");
}

TEST(eps_and_theta_must_be_positive_numbers) {
    const float bad[] = {0.0f, -1.0f, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        struct kiln_dims dims = small_dims();
        dims.rms_eps = bad[i];
        check_refused(dims, "rms_eps");
        dims = small_dims();
        dims.rope_theta = bad[i];
        check_refused(dims, "rope_theta");
    }
}

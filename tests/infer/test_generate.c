/* SPDX-License-Identifier: MIT
 *
 * Text from a model (kiln/generate.h): what llama2.c's run prints, and where it ends.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "infer/session.h"
#include "kernel/kernel.h"
#include "kiln/generate.h"
#include "kiln_test.h"

struct model {
    struct kiln_table *table;
    float *weights;
    struct kiln_tokenizer *tokenizer;
};

static struct model open_model(const char *checkpoint, const char *tokenizer) {
    struct model model;
    struct kiln_checkpoint *file;
    struct kiln_err err;
    CHECK_OK(kiln_checkpoint_open(test_data(checkpoint), &file, &err), &err);
    CHECK_OK(kiln_table_create(kiln_checkpoint_dims(file), &model.table, &err), &err);
    model.weights = kiln_alloc(model.table->size, sizeof *model.weights);
    CHECK_OK(kiln_checkpoint_load(file, model.table, model.weights, &err), &err);
    kiln_checkpoint_close(file);
    CHECK_OK(kiln_tokenizer_open(test_data(tokenizer), &model.tokenizer, &err), &err);
    return model;
}

/* A small model of random weights with the byte tokenizer, for what needs no trained one. */
static struct model random_model(size_t seq) {
    struct kiln_dims dims = {.dim = 24,
                             .hidden = 40,
                             .layers = 2,
                             .heads = 4,
                             .kv_heads = 2,
                             .vocab = 300,
                             .seq = seq,
                             .tied = true,
                             .rms_eps = 1e-5f,
                             .rope_theta = 10000.0f};
    struct model model;
    struct kiln_err err;
    CHECK_OK(kiln_table_create(&dims, &model.table, &err), &err);
    model.weights = kiln_alloc(model.table->size, sizeof *model.weights);
    kiln_weights_init(model.table, 7, model.weights);
    CHECK_OK(kiln_tokenizer_bytes(&model.tokenizer, &err), &err);
    return model;
}

static void close_model(struct model *model) {
    kiln_tokenizer_destroy(model->tokenizer);
    kiln_free(model->weights);
    kiln_table_destroy(model->table);
}

struct text {
    char bytes[8192];
    size_t size, pieces;
    size_t most_pieces; /* 0: no limit */
};

static bool gather(void *context, const char *piece, size_t size) {
    struct text *text = context;
    CHECK(size > 0 && text->size + size < sizeof text->bytes);
    memcpy(text->bytes + text->size, piece, size);
    text->size += size;
    text->bytes[text->size] = '\0';
    return ++text->pieces != text->most_pieces;
}

static struct kiln_generate_result tell(const struct model *model,
                                        struct kiln_generate_options options, struct text *text) {
    struct kiln_generate_result result;
    struct kiln_err err;
    text->size = text->pieces = 0;
    text->bytes[0] = '\0';
    CHECK_OK(kiln_generate(model->table, model->weights, model->tokenizer, &options, gather, text,
                           &result, &err),
             &err);
    return result;
}

/* ---- llama2.c's texts ----------------------------------------------------------------------- */

static void check_greedy(const char *checkpoint, const char *tokenizer, const char *prompt,
                         size_t n, const char *reference) {
    size_t n_tiers;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n_tiers);
    struct model model = open_model(checkpoint, tokenizer);
    struct kiln_err err;
    char *want;
    size_t size, run = 0;
    CHECK_OK(kiln_read_file(test_reference(reference), &want, &size, &err), &err);
    CHECK(size > 0 && want[size - 1] == '\n'); /* run prints an end of line of its own */
    want[size - 1] = '\0';
    for (size_t i = 0; i < n_tiers; i++) {
        struct kiln_kernels kernels;
        setenv("KILN_CPU", tiers[i].name, 1);
        if (kiln_kernels_choose(KILN_PRECISION_FP32, &kernels, &err) != KILN_OK) {
            continue; /* not on this machine */
        }
        for (size_t threads = 1; threads <= 3; threads += 2, run++) {
            struct text text = {.size = 0};
            tell(&model,
                 (struct kiln_generate_options){.prompt = prompt,
                                                .tokens = n,
                                                .top_p = 0.9,
                                                .precision = KILN_PRECISION_FP32,
                                                .threads = threads},
                 &text);
            CHECK_STRING(text.bytes, want);
        }
    }
    CHECK(run >= 2);
    kiln_free(want);
    close_model(&model);
}

TEST(greedy_text_of_stories260K_is_that_of_llama2c) {
    check_greedy("stories260K.bin", "tok512.bin", "Once upon a time", 256,
                 "stories260K.greedy.txt");
}

TEST(greedy_text_of_story656K_is_that_of_llama2c) {
    check_greedy("story656K.bin", "tok2048.bin", "", 200, "story656K.greedy.txt");
}

TEST(bf16_tells_a_story_too) {
    struct model model = open_model("stories260K.bin", "tok512.bin");
    struct text text = {.size = 0};
    tell(&model,
         (struct kiln_generate_options){
             .prompt = "Once upon a time", .tokens = 64, .precision = KILN_PRECISION_BF16},
         &text);
    CHECK_CONTAINS(text.bytes, "Once upon a time, there was a ");
    close_model(&model);
}

/* ---- the same options, the same text -------------------------------------------------------- */

TEST(a_seed_names_a_text) {
    struct model model = open_model("stories260K.bin", "tok512.bin");
    struct text first = {.size = 0}, again = {.size = 0};
    struct kiln_generate_options options = {
        .tokens = 100, .temperature = 1.0, .top_p = 0.9, .seed = 5};
    struct kiln_generate_result result = tell(&model, options, &first);
    CHECK(result.tokens > 0 && result.tokens <= 100 && result.tokens_per_s > 0.0);
    options.threads = 3;
    tell(&model, options, &again);
    CHECK_STRING(again.bytes, first.bytes);
    options.seed = 6;
    tell(&model, options, &again);
    CHECK(strcmp(again.bytes, first.bytes) != 0);
    close_model(&model);
}

TEST(a_tiny_top_p_is_greedy_and_a_tiny_temperature_too) {
    struct model model = open_model("stories260K.bin", "tok512.bin");
    struct text greedy = {.size = 0}, other = {.size = 0};
    struct kiln_generate_options options = {.tokens = 60, .seed = 3};
    tell(&model, options, &greedy);
    options.temperature = 1.0;
    options.top_p = 1e-30;
    tell(&model, options, &other);
    CHECK_STRING(other.bytes, greedy.bytes);
    options.temperature = 1e-300;
    options.top_p = 1.0;
    tell(&model, options, &other);
    CHECK_STRING(other.bytes, greedy.bytes);
    close_model(&model);
}

/* ---- where it ends -------------------------------------------------------------------------- */

TEST(positions_are_counted_as_llama2c_counts_them) {
    struct model model = random_model(48);
    struct text text = {.size = 0};
    struct kiln_generate_options options = {.prompt = "abcdef", .tokens = 4};
    /* BOS and the blank before the prompt are positions; n positions give n tokens behind BOS. */
    CHECK_EQ(tell(&model, options, &text).tokens, 4);
    CHECK_STRING(text.bytes, "abc");
    CHECK_EQ(text.pieces, 3);
    options.tokens = 8;
    CHECK(tell(&model, options, &text).tokens == 8 && strncmp(text.bytes, "abcdef", 6) == 0);
    options.tokens = 0;
    CHECK(tell(&model, options, &text).tokens <= 48);
    options.tokens = 1000;
    CHECK(tell(&model, options, &text).tokens <= 48);
    options.tokens = 1;
    options.prompt = NULL;
    CHECK_EQ(tell(&model, options, &text).tokens, 1);
    close_model(&model);
}

TEST(the_caller_can_stop_in_prompt_and_text) {
    struct model model = open_model("stories260K.bin", "tok512.bin");
    struct kiln_generate_options options = {.prompt = "Once upon a time", .tokens = 100};
    for (size_t most = 1; most < 20; most += 3) {
        struct text text = {.most_pieces = most};
        tell(&model, options, &text);
        CHECK_EQ(text.pieces, most);
    }
    close_model(&model);
}

TEST(a_prompt_longer_than_the_sequence_is_an_error) {
    struct model model = random_model(8);
    struct text text = {.size = 0};
    struct kiln_err err;
    struct kiln_generate_options options = {.prompt = "abcdefg"}; /* BOS, blank, 7: one too many */
    CHECK_FAILS(kiln_generate(model.table, model.weights, model.tokenizer, &options, gather, &text,
                              NULL, &err),
                KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "9 tokens");
    CHECK_CONTAINS(err.message, "at most 8");
    CHECK_EQ(text.pieces, 0);
    options.prompt = "abcdef";
    tell(&model, options, &text);
    CHECK(strncmp(text.bytes, "abcdef", 6) == 0);
    close_model(&model);
}

TEST(impossible_options_are_refused) {
    static const struct kiln_generate_options wrong[] = {
        {.temperature = -0.1},
        {.temperature = HUGE_VAL},
        {.temperature = 1.0, .top_p = 1.5},
        {.temperature = 1.0, .top_p = -0.5},
        {.threads = 5000},
    };
    struct model model = random_model(8);
    struct text text = {.size = 0};
    struct kiln_err err;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_FAILS(kiln_generate(model.table, model.weights, model.tokenizer, &wrong[i], gather,
                                  &text, NULL, &err),
                    KILN_EUSAGE, &err);
    }
    close_model(&model);
}

TEST(control_characters_are_left_out_and_utf8_is_kept) {
    struct model model = random_model(48);
    struct text text = {.size = 0};
    struct kiln_generate_options options = {.prompt = "a\x01\x1b[\x7f\n\t\xc3\xa9", .tokens = 10};
    tell(&model, options, &text);
    CHECK_STRING(text.bytes, "a[\n\t\xc3\xa9");
    close_model(&model);
}

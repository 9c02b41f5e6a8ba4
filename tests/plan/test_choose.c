/* SPDX-License-Identifier: MIT
 *
 * test_choose.c: what is chosen for a text, a machine and a time, over a grid of them.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kiln/choose.h"
#include "kiln_test.h"
#include "plan/law.h"

static struct kiln_choose_request request_of(double minutes, double megabytes, double tflops) {
    struct kiln_choose_request r = {
        .seconds = minutes * 57,
        .text = {.bytes = megabytes * 1e6, .trigram_bits = 2.213, .trigram_ids = 2e5},
        .rate = {{1e6, tflops * 0.6e12}, {1e7, tflops * 1e12}, {1e8, tflops * 1.2e12}},
        .n_rates = 3,
        .fixed = {.lr = (double)NAN, .min_lr = (double)NAN, .weight_decay = (double)NAN},
        .plan = {.device = {.id = KILN_CPU},
                 .refreshes = true,
                 .schedule = KILN_SCHEDULE_SPLIT,
                 .overlap = KILN_OVERLAP_EXACT,
                 .keep = {.kind = KILN_KEEP_AUTO},
                 .precision = KILN_PRECISION_FP32,
                 .threads = 2,
                 .memory = (uint64_t)16 << 30,
                 .profile = {.tflops = tflops, .update_gb_s = 20, .compile_gb_s = 5}}};
    return r;
}

static struct kiln_choice choose(const struct kiln_choose_request *r) {
    struct kiln_choice c;
    struct kiln_err err;
    CHECK_OK(kiln_choose(r, &c, &err), &err);
    return c;
}

static bool in_order(double a, double b) { return a <= b * (1 + 1e-12); }

TEST(more_minutes_choose_no_smaller_model_and_foretell_no_worse_loss_of_enough_text) {
    static const double megabytes[] = {0.05, 0.5, 1, 10, 1000};
    static const double minutes[] = {0.1, 0.5, 1, 3, 10, 30, 120, 600};
    for (size_t i = 0; i < sizeof megabytes / sizeof megabytes[0]; i++) {
        double parameters = 0, bits = 100;
        for (size_t k = 0; k < sizeof minutes / sizeof minutes[0]; k++) {
            const struct kiln_choose_request r = request_of(minutes[k], megabytes[i], 0.2);
            const struct kiln_choice c = choose(&r);
            const double layers = (double)(c.is.dims.layers * c.is.dims.dim *
                                           (4 * c.is.dims.dim + 3 * c.is.dims.hidden));
            /* A small text is learned by heart in the end, whatever the size: the law says so. */
            CHECK(megabytes[i] < 100 || in_order(c.is.forecast.bits, bits));
            CHECK((c.warning[0] != '\0') == (c.is.epochs > 40));
            CHECK(c.is.forecast.low < c.is.forecast.bits &&
                  c.is.forecast.bits < c.is.forecast.high);
            /* A little smaller may come with a vocabulary that is a little larger, or where a text
             * is read so often that size is learning by heart. */
            CHECK(megabytes[i] < 100 || layers >= parameters * 0.6);
            parameters = layers;
            bits = c.is.forecast.bits;
        }
    }
}

TEST(what_is_chosen_is_a_model_and_takes_the_time) {
    for (int i = 0; i < 9; i++) {
        for (int j = 0; j < 7; j++) {
            const struct kiln_choose_request r = request_of(0.1 * pow(3, i), 0.01 * pow(8, j), 0.3);
            struct kiln_choice c = choose(&r);
            struct kiln_err err;
            CHECK_OK(kiln_dims_check(&c.is.dims, &err), &err);
            CHECK(c.is.dims.tied && c.is.dims.seq >= 16 && c.is.dims.vocab >= 259);
            CHECK(c.is.steps == 1 || (double)c.is.steps * c.is.step_s <= r.seconds);
            CHECK((double)(c.is.steps + 1) * c.is.step_s >= r.seconds);
            CHECK(c.lr > 1e-5 && c.lr < 1e-2 && c.min_lr < c.lr);
            CHECK(c.warmup <= c.is.steps / 10);
            CHECK(c.is.memory <= r.plan.memory);
            CHECK(c.n_reasons > 0 && c.n_rungs > 0 && c.is_at < c.n_rungs);
            /* Nobody else on the ladder is foretold to be better, as far as the law was fitted. */
            for (size_t rung = 0; rung < c.n_rungs; rung++) {
                const struct kiln_dims *d = &c.rung[rung].dims;
                const size_t layers = d->layers * d->dim * (4 * d->dim + 3 * d->hidden);
                const bool known = c.rung[rung].tokens >= 0.25 * (double)layers;
                CHECK(!known || c.rung[rung].forecast.bits >= c.is.forecast.bits);
            }
        }
    }
}

TEST(ranks_share_every_window_evenly_and_read_more_of_the_text) {
    double before = 0, alone = 0;
    for (size_t ranks = 1; ranks <= 16; ranks *= 2) {
        struct kiln_choose_request r = request_of(10, 30, 0.2);
        r.plan.ranks.ranks = ranks;
        r.plan.ranks.link = (struct kiln_link){1e-5, 10e9};
        const struct kiln_choice c = choose(&r);
        CHECK_EQ(c.is.accum % ranks, 0);
        CHECK((ranks == 1) == (c.is.wait_s <= 0));
        CHECK(c.is.wait_s < c.is.step_s);
        CHECK((double)c.is.steps * c.is.step_s <= r.seconds);
        const double flops = c.is.tokens * kiln_flops_per_token(&c.is.dims, c.is.dims.seq);
        CHECK(flops > before);
        alone = ranks == 1 ? flops : alone;
        before = flops;
        /* A link that is slow leaves less time to compute. */
        r.plan.ranks.link = (struct kiln_link){1e-3, 1e7};
        const struct kiln_choice slow = choose(&r);
        CHECK(ranks == 1 || slow.is.forecast.bits > c.is.forecast.bits);
    }
    CHECK(before > 10 * alone);
}

TEST(equal_requests_give_equal_choices) {
    const struct kiln_choose_request r = request_of(3, 1, 0.2);
    struct kiln_choice a, b;
    struct kiln_err err;
    memset(&a, 1, sizeof a);
    memset(&b, 2, sizeof b);
    CHECK_OK(kiln_choose(&r, &a, &err), &err);
    CHECK_OK(kiln_choose(&r, &b, &err), &err);
    CHECK_EQ(a.is.dims.dim, b.is.dims.dim);
    CHECK_EQ(a.is.steps, b.is.steps);
    CHECK(a.is.forecast.bits == b.is.forecast.bits && a.lr == b.lr);
    for (size_t i = 0; i < a.n_reasons; i++) {
        CHECK(strcmp(a.reason[i], b.reason[i]) == 0);
    }
}

TEST(the_memory_is_kept_to_and_its_lack_is_said) {
    struct kiln_choose_request r = request_of(600, 1000, 2);
    const struct kiln_choice wide = choose(&r);
    uint64_t before = wide.is.memory;
    CHECK(wide.warning[0] == '\0');
    for (int i = 0; i < 6; i++) {
        r.plan.memory = (uint64_t)((double)wide.is.memory * 0.8 * pow(0.7, i));
        const struct kiln_choice c = choose(&r);
        CHECK(c.is.memory <= r.plan.memory && c.is.memory <= before);
        CHECK(strstr(c.warning, "memory") != NULL);
        CHECK(c.is.forecast.bits >= wide.is.forecast.bits);
        before = c.is.memory;
    }
    struct kiln_choice none;
    struct kiln_err err;
    r.plan.memory = 1 << 16;
    CHECK_EQ(kiln_choose(&r, &none, &err), KILN_ENOMEM);
    CHECK(strstr(err.message, "--memory") != NULL);
}

TEST(what_is_given_is_kept_and_the_rest_is_chosen_around_it) {
    struct kiln_choose_request r = request_of(3, 1, 0.2);
    const struct kiln_choice free_choice = choose(&r);
    r.fixed.dim = 192;
    r.fixed.layers = 3;
    r.fixed.heads = 6;
    r.fixed.kv_heads = 2;
    r.fixed.vocab = 777;
    r.fixed.seq = 128;
    r.fixed.batch = 3;
    r.fixed.accum = 5;
    r.fixed.lr = 1.25e-3;
    r.fixed.weight_decay = 0.25;
    r.fixed.warmup_given = true;
    const struct kiln_choice c = choose(&r);
    const struct kiln_dims *d = &c.is.dims;
    CHECK_EQ(d->dim, 192);
    CHECK_EQ(d->layers, 3);
    CHECK_EQ(d->heads, 6);
    CHECK_EQ(d->kv_heads, 2);
    CHECK_EQ(d->vocab, 777);
    CHECK_EQ(d->seq, 128);
    CHECK_EQ(c.is.batch, 3);
    CHECK_EQ(c.is.accum, 5);
    CHECK(c.lr == 1.25e-3 && c.weight_decay == 0.25 && c.min_lr == 1.25e-3 / 20);
    CHECK_EQ(c.warmup, 0);
    CHECK((double)c.is.steps * c.is.step_s <= r.seconds);
    CHECK(c.is.forecast.bits >= free_choice.is.forecast.bits);
    /* One alone. */
    r = request_of(3, 1, 0.2);
    r.fixed.steps = 500;
    const struct kiln_choice few = choose(&r);
    CHECK_EQ(few.is.steps, 500);
    CHECK(few.is.tokens > 0.7 * few.is.step_s / few.is.step_s);
    const double used = 500 * few.is.step_s;
    CHECK(used > 0.8 * r.seconds && used < 1.2 * r.seconds); /* larger windows instead */
    /* Sizes of a model that is there. */
    r = request_of(3, 1, 0.2);
    struct kiln_dims story = kiln_preset_find("stories15m")->dims;
    r.fixed.dims = &story;
    r.fixed.trained = true;
    const struct kiln_choice tuned = choose(&r);
    CHECK_EQ(tuned.is.dims.dim, 288);
    CHECK_EQ(tuned.is.dims.vocab, 32000);
    CHECK(tuned.is.forecast.bits <= 0 && tuned.n_rungs == 1);
}

TEST(adapters_have_a_rate_of_their_own_and_no_decay) {
    struct kiln_choose_request r = request_of(30, 1, 2); /* a text that is read many times */
    struct kiln_dims story = kiln_preset_find("stories15m")->dims;
    r.fixed.dims = &story;
    r.fixed.trained = true;
    const struct kiln_choice whole = choose(&r);
    r.plan.lora = (struct kiln_lora){.rank = 8, .alpha = 16, .targets = KILN_LORA_Q | KILN_LORA_V};
    const struct kiln_choice few = choose(&r);
    CHECK(whole.weight_decay >= 0.1);
    CHECK_CLOSE(few.weight_decay, 0, 0);
    CHECK_CLOSE(few.lr, whole.lr * 10, 1e-3 * few.lr);
    CHECK_CLOSE(few.min_lr, few.lr / 20, 1e-9);
    bool said = false;
    for (size_t i = 0; i < few.n_reasons; i++) {
        said = said || strstr(few.reason[i], "adapters") != NULL;
    }
    CHECK(said);
    r.fixed.weight_decay = 0.3; /* somebody wants it so */
    r.fixed.lr = 1e-3;
    const struct kiln_choice given = choose(&r);
    CHECK(given.weight_decay == 0.3 && given.lr == 1e-3);
}

TEST(sizes_that_make_no_model_and_texts_too_short_are_refused) {
    struct kiln_choose_request r = request_of(3, 1, 0.2);
    struct kiln_choice c;
    struct kiln_err err;
    r.fixed.dim = 100;
    r.fixed.heads = 3;
    CHECK_EQ(kiln_choose(&r, &c, &err), KILN_EUSAGE);
    r = request_of(3, 1e-5, 0.2);
    CHECK_EQ(kiln_choose(&r, &c, &err), KILN_EINPUT);
    r = request_of(0, 1, 0.2);
    CHECK_EQ(kiln_choose(&r, &c, &err), KILN_EUSAGE);
    /* A short text gets short sequences, and bytes. */
    r = request_of(3, 0.002, 0.2);
    c = choose(&r);
    CHECK(c.is.dims.seq < 256);
    CHECK_EQ(c.is.dims.vocab, 259);
}

TEST(the_law_falls_with_size_and_text_and_knows_repetition) {
    const struct kiln_choose_text text = {.bytes = 1e8, .trigram_bits = 2.213, .trigram_ids = 2e5};
    double before = 100;
    for (int i = 0; i < 11; i++) {
        const double bits = kiln_law_bits(&text, 1024, ldexp(5e4, i), 1e7);
        CHECK(bits < before && bits > 0.1);
        before = bits;
    }
    before = 100;
    for (int i = 0; i < 11; i++) { /* to where it is read three times */
        const double bits = kiln_law_bits(&text, 1024, 1e6, ldexp(1e5, i));
        CHECK(bits < before);
        before = bits;
    }
    /* The same tokens of a smaller text are worth less, and to a large model still less. */
    struct kiln_choose_text small = text;
    small.bytes = 1e6;
    const double lost =
        kiln_law_bits(&small, 1024, 1e6, 1e7) - kiln_law_bits(&text, 1024, 1e6, 1e7);
    const double more =
        kiln_law_bits(&small, 1024, 3e7, 1e7) - kiln_law_bits(&text, 1024, 3e7, 1e7);
    CHECK(lost > 0 && more > lost);
    CHECK(kiln_law_bytes_per_token(&text, 4096) > kiln_law_bytes_per_token(&text, 512));
    CHECK(kiln_law_vocab_of(1e6) >= 512 && kiln_law_vocab_of(1e4) == 259);
}

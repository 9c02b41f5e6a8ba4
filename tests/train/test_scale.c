/* SPDX-License-Identifier: MIT
 *
 * test_scale.c: losses that are scaled, and windows that overflow, on the cpu, where a power of two
 * changes no bit.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/train.h"
#include "kiln/verify.h"
#include "kiln_test.h"
#include "state/inspect.h"
#include "train/lasting.h"
#include "train/scale.h"
#include "train/tiny_run.h"

enum { STEPS = 8, TOKENS = 2 * 32 * 2 }; /* of tiny_settings */

static bool never(uint64_t step) { return step == UINT64_MAX; }
static bool third(uint64_t step) { return step == 2; }
static bool often(uint64_t step) { return step == 1 || step == 2 || step == 5; }
static bool always(uint64_t step) { return step != UINT64_MAX; }
static bool all_but_one(uint64_t step) { return step != 19; }

/* ---- the rule ----------------------------------------------------------------------------------
 */

TEST(the_first_scale_is_the_smallest_power_of_two_that_is_large_enough) {
    CHECK_CLOSE(kiln_scale_first(1), 128, 0);
    CHECK_CLOSE(kiln_scale_first(2048), 0x1p18, 0);
    CHECK_CLOSE(kiln_scale_first(2049), 0x1p19, 0);
    CHECK_CLOSE(kiln_scale_first(1e30), 0x1p40, 0);
}

TEST(a_window_of_few_targets_has_a_smaller_scale) {
    CHECK_CLOSE(kiln_scale_share(256, 256), 1, 0);
    CHECK_CLOSE(kiln_scale_share(129, 256), 1, 0);
    CHECK_CLOSE(kiln_scale_share(128, 256), 0.5, 0);
    CHECK_CLOSE(kiln_scale_share(3, 256), 0x1p-6, 0);
    CHECK_CLOSE(kiln_scale_share(1, 256), 0x1p-8, 0);
    CHECK_CLOSE(kiln_scale_share(0, 256), 1, 0);
    for (int n = 1; n <= 1000; n++) { /* of a target, against those of a full window */
        const double of_one = kiln_scale_share(n, 1000) * 1000 / n;
        CHECK(of_one >= 1 && of_one < 2);
    }
}

TEST(a_scale_doubles_after_good_windows_and_halves_at_once) {
    struct kiln_cursor c = {.loss_scale = 0x1p20};
    for (int i = 0; i < KILN_SCALE_GOOD - 1; i++) {
        kiln_scale_next(&c, c.skip > 0);
    }
    CHECK_CLOSE(c.loss_scale, 0x1p20, 0);
    kiln_scale_next(&c, c.skip > 0);
    CHECK_CLOSE(c.loss_scale, 0x1p21, 0);
    CHECK_EQ(c.loss_scale_good, 0);
    kiln_scale_next(&c, c.skip > 0);
    c.skip = 1;
    kiln_scale_next(&c, c.skip > 0);
    CHECK_CLOSE(c.loss_scale, 0x1p20, 0);
    CHECK_EQ(c.loss_scale_good, 0); /* 200 in a row, from here */
    c.skip = 0;
    c.loss_scale = KILN_SCALE_MOST;
    for (int i = 0; i < 2 * KILN_SCALE_GOOD; i++) {
        kiln_scale_next(&c, c.skip > 0);
    }
    CHECK_CLOSE(c.loss_scale, KILN_SCALE_MOST, 0);
    c.loss_scale = c.skip = 1;
    kiln_scale_next(&c, c.skip > 0);
    CHECK_CLOSE(c.loss_scale, 1, 0);
    c.loss_scale = 0; /* none is wanted */
    kiln_scale_next(&c, c.skip > 0);
    CHECK_CLOSE(c.loss_scale, 0, 0);
}

/* ---- runs -------------------------------------------------------------------------------------
 */

struct seen {
    const char *folder; /* of the run: its sums are taken after each step */
    struct kiln_step_record step[STEPS];
    uint32_t crc[STEPS][3];
    size_t n;
};

static void see(void *context, const struct kiln_step_record *record) {
    struct seen *seen = context;
    struct kiln_cursor cursor;
    struct kiln_err err;
    char path[4200];
    CHECK(seen->n < STEPS && record->step == seen->n + 1);
    snprintf(path, sizeof path, "%s/state.kiln", seen->folder);
    CHECK_OK(kiln_state_sums(path, &cursor, seen->crc[seen->n], &err), &err);
    seen->step[seen->n++] = *record;
}

static void train(const char *name, const char *changes, struct seen *seen) {
    const struct kiln_observer observer = {.context = seen, .on_step = see};
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", test_path(name));
    *seen = (struct seen){.folder = folder};
    tiny_run(name, changes, &observer);
    CHECK_EQ(seen->n, STEPS);
}

static void scale_changes_no_bit(const char *changes) {
    static struct seen plain, scaled;
    kiln_overflow_instead = NULL;
    train("plain", changes, &plain);
    kiln_overflow_instead = never;
    train("scaled", changes, &scaled);
    for (size_t i = 0; i < STEPS; i++) {
        CHECK(plain.step[i].loss == scaled.step[i].loss);
        CHECK(plain.step[i].grad_norm == scaled.step[i].grad_norm);
        CHECK(memcmp(plain.crc[i], scaled.crc[i], sizeof plain.crc[i]) == 0);
        CHECK_CLOSE(plain.step[i].loss_scale, 0, 0);
        CHECK_CLOSE(scaled.step[i].loss_scale, kiln_scale_first(TOKENS), 0);
        CHECK(!scaled.step[i].skipped);
    }
}

TEST(a_scaled_loss_changes_no_bit) { scale_changes_no_bit("precision=fp32"); }
TEST(a_scaled_loss_changes_no_bit_where_it_clips) {
    scale_changes_no_bit("precision=bf16 clip=0.01");
}

TEST(a_window_that_overflows_is_skipped) {
    static struct seen seen;
    const double first = kiln_scale_first(TOKENS);
    struct kiln_run_peek peek;
    struct kiln_err err;
    kiln_overflow_instead = third;
    train("run", "", &seen);
    CHECK(seen.step[2].skipped && isfinite(seen.step[2].loss) && !isfinite(seen.step[2].grad_norm));
    for (size_t i = 0; i < STEPS; i++) {
        const bool same = i > 0 && memcmp(seen.crc[i], seen.crc[i - 1], sizeof seen.crc[i]) == 0;
        CHECK(seen.step[i].skipped == (i == 2));
        CHECK(same == (i == 2)); /* W, m and v */
        CHECK_EQ(seen.step[i].tokens, (i + 1) * TOKENS);
        CHECK_CLOSE(seen.step[i].loss_scale, i <= 2 ? first : first / 2, 0);
    }
    CHECK_OK(kiln_run_peek(seen.folder, &peek, &err), &err);
    CHECK_EQ(peek.step, STEPS);
    CHECK_EQ(peek.updates, STEPS - 1);
    char *text = lasting_metrics(test_path("run")), *at = strstr(text, "{\"step\": 3,");
    CHECK(at != NULL);
    *strchr(at, '\n') = '\0';
    CHECK_CONTAINS(at, "\"grad_norm\": null");
    CHECK_CONTAINS(at, "\"skipped\": true");
    free(text);
}

/* What is after a skipped window is what would be without it: its data is consumed, no more. */
TEST(training_goes_on_behind_a_skipped_window_with_the_same_data) {
    static struct seen plain, seen;
    kiln_overflow_instead = NULL;
    train("plain", "lr=0 min-lr=0 weight-decay=0", &plain);
    kiln_overflow_instead = often;
    train("run", "lr=0 min-lr=0 weight-decay=0", &seen);
    for (size_t i = 0; i < STEPS; i++) { /* nothing is learned: losses tell of the data */
        CHECK(plain.step[i].loss == seen.step[i].loss);
    }
}

static enum kiln_status end_of(bool (*overflow)(uint64_t), const char *name,
                               struct kiln_run_peek *peek, struct kiln_err *err) {
    struct kiln_settings s;
    struct kiln_run *run;
    kiln_overflow_instead = overflow;
    /* The first scale is halved 19 times before it is 1. */
    tiny_settings(&s, name, "steps=25 batch=8 accum=16 eval-every=0 save-every=0");
    CHECK_OK(kiln_run_create(&s, &run, err), err);
    kiln_settings_free(&s);
    const enum kiln_status status = kiln_run_train(run, NULL, NULL, err);
    kiln_run_close(run);
    struct kiln_err why;
    CHECK_OK(kiln_run_peek(test_path(name), peek, &why), &why);
    return status;
}

TEST_WITHIN(twenty_windows_in_a_row_are_too_many, 120) {
    struct kiln_run_peek peek;
    struct kiln_err err;
    CHECK_FAILS(end_of(always, "never", &peek, &err), KILN_EDIVERGED, &err);
    CHECK_CONTAINS(err.message, "20 windows in a row");
    CHECK_EQ(peek.step, 19);
    CHECK_EQ(peek.updates, 0);
    CHECK_FAILS(end_of(all_but_one, "once", &peek, &err), KILN_EDIVERGED, &err);
    CHECK_CONTAINS(err.message, "loss scale 1,"); /* no smaller one is left */
    CHECK_EQ(peek.updates, 1);
}

/* With a budget a window is cut by restarts, and a skipped one leaves its kernels where they are.
 */
TEST_WITHIN(restarts_around_skipped_windows_change_nothing, 120) {
    static const char *const changes[] = {"", "budget=7 headroom=0",
                                          "budget=20 schedule=whole activations=none"};
    uint32_t hash[3];
    char *metrics[3];
    kiln_overflow_instead = often;
    for (size_t i = 0; i < 3; i++) {
        struct kiln_settings s;
        struct kiln_run *run;
        struct kiln_err err;
        char name[16], folder[4096];
        size_t restarts = 0;
        snprintf(name, sizeof name, "run%zu", i);
        snprintf(folder, sizeof folder, "%s", test_path(name));
        tiny_settings(&s, name, changes[i]);
        CHECK_OK(kiln_run_create(&s, &run, &err), &err);
        kiln_settings_free(&s);
        enum kiln_status status;
        while ((status = kiln_run_train(run, NULL, NULL, &err)) == KILN_ERESTART) {
            CHECK_OK(kiln_run_take_over(kiln_run_hand_over(run), folder, &run, &err), &err);
            restarts++;
        }
        CHECK_OK(status, &err);
        CHECK(i == 0 || restarts > 5);
        hash[i] = kiln_run_weights_hash(run);
        kiln_run_close(run);
        metrics[i] = lasting_metrics(folder);
        CHECK_EQ(hash[i], hash[0]);
        CHECK_STRING(metrics[i], metrics[0]);
    }
    for (size_t i = 0; i < 3; i++) {
        free(metrics[i]);
    }
}

TEST(a_run_that_skipped_replays_to_the_same_bits) {
    struct kiln_replay_result result;
    struct kiln_err err;
    kiln_overflow_instead = often;
    tiny_run("run", "", NULL);
    const struct kiln_replay_options how = {
        .run = test_path("run"), .from = KILN_UNSET, .steps = KILN_UNSET};
    CHECK_OK(kiln_verify_run(&how, &result, &err), &err);
    CHECK(result.pass);
    kiln_replay_free(&result);
}

/* ---- windows of which few targets count -------------------------------------------------------
 */

/* Conversations of long questions and answers of a letter: a window has one of them, or a few. */
static const char *letters(void) {
    static char path[4096];
    static char text[100000];
    size_t n = 0;
    for (int i = 0; i < 40; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n,
                              "{\"messages\": [{\"role\": \"user\", \"content\": \"%0*d\"}, "
                              "{\"role\": \"assistant\", \"content\": \"%c\"}]}\n",
                              1000 + 37 * i, i, 'a' + i % 26);
    }
    snprintf(path, sizeof path, "%s", test_file("letters.jsonl", text, n));
    return path;
}

static void letter_settings(struct kiln_settings *s, const char *name, const char *changes) {
    static const char template[] =
        "{% for m in messages %}{% if m.role == 'assistant' %}a:{{ m.content }}\n"
        "{% else %}u:{{ m.content }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}";
    struct kiln_err err;
    char file[4096];
    snprintf(file, sizeof file, "%s", test_file("letters.jinja", template, sizeof template - 1));
    tiny_settings(s, name, "seq=64 accum=8 steps=6 save-every=0 eval-every=0");
    tiny_set(s, changes);
    CHECK_OK(kiln_settings_set(s, KILN_SETTING_data, letters(), KILN_FROM_FLAG, &err), &err);
    CHECK_OK(kiln_settings_set(s, KILN_SETTING_chat_template, file, KILN_FROM_FLAG, &err), &err);
}

static uint32_t train_letters(const char *name, const char *changes, struct seen *seen) {
    const struct kiln_observer observer = {.context = seen, .on_step = see};
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", test_path(name));
    *seen = (struct seen){.folder = folder};
    letter_settings(&s, name, changes);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    CHECK_OK(kiln_run_train(run, &observer, NULL, &err), &err);
    const uint32_t hash = kiln_run_weights_hash(run);
    kiln_run_close(run);
    kiln_settings_free(&s);
    return hash;
}

TEST(windows_of_few_targets_do_not_overflow_in_fp16) {
    static struct seen seen;
    kiln_overflow_instead = NULL;
    train_letters("sim", "device=sim", &seen);
    CHECK(seen.n > 0);
    for (size_t i = 0; i < seen.n; i++) {
        CHECK(!seen.step[i].skipped && isfinite(seen.step[i].grad_norm));
        CHECK_CLOSE(seen.step[i].loss_scale, kiln_scale_first(2 * 64 * 8), 0);
    }
}

TEST(a_scale_changes_no_bit_where_few_targets_count) {
    static struct seen seen;
    kiln_overflow_instead = NULL;
    const uint32_t plain = train_letters("plain", "precision=fp32", &seen);
    kiln_overflow_instead = never;
    CHECK_EQ(train_letters("scaled", "precision=fp32", &seen), plain);
    CHECK_CLOSE(seen.step[0].loss_scale, kiln_scale_first(2 * 64 * 8), 0);
}

/* SPDX-License-Identifier: MIT
 *
 * test_report.c: what people read of a run says what they need, and is never cut wrongly.
 */
#include "kiln/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kiln_test.h"

static const struct kiln_step_record record = {.step = 12,
                                               .loss = 2.5,
                                               .grad_norm = 0.75,
                                               .lr = 3e-4,
                                               .tokens = 24576,
                                               .ms = 120,
                                               .ms_per_micro_batch = 100,
                                               .tokens_per_s = 17067,
                                               .tflops = 1.25,
                                               .val_loss = (double)NAN};

TEST(quantities_read_as_people_write_them) {
    char text[40];
    CHECK_STRING(kiln_human_bytes(512, text, sizeof text), "512 B");
    CHECK_STRING(kiln_human_bytes(1.34e9, text, sizeof text), "1.3 GB");
    CHECK_STRING(kiln_human_bytes(999.9e3, text, sizeof text), "1.0 MB");
    CHECK_STRING(kiln_human_bytes(31e6, text, sizeof text), "31 MB");
    CHECK_STRING(kiln_human_time(0.25, text, sizeof text), "0.2 s");
    CHECK_STRING(kiln_human_time(42, text, sizeof text), "42 s");
    CHECK_STRING(kiln_human_time(125, text, sizeof text), "2 min 05 s");
    CHECK_STRING(kiln_human_time(7500, text, sizeof text), "2 h 05 min");
    CHECK_STRING(kiln_human_time(200000, text, sizeof text), "2 d 07 h");
    CHECK_STRING(kiln_human_time((double)NAN, text, sizeof text), "?");
}

TEST(a_progress_line_holds_what_people_look_for) {
    struct kiln_progress progress = {0};
    char line[512];
    kiln_progress_line(&progress, &record, 112, line, sizeof line);
    const char *const parts[] = {"step  12/112", " 10 %",        "loss 2.5000 (2.5000)",
                                 "norm 0.75",    "lr 3.00e-04",  "120 ms",
                                 "17.1k tok/s",  "1.25 TFLOP/s", "12 s left"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        CHECK_CONTAINS(line, parts[i]);
    }
    CHECK(strstr(line, "held-out") == NULL);
    CHECK(strchr(line, '\n') == NULL);
}

TEST(a_progress_line_follows_the_loss) {
    struct kiln_progress progress = {0};
    struct kiln_step_record step = record;
    char line[512];
    kiln_progress_line(&progress, &step, 100, line, sizeof line);
    step.loss = 1.5;
    step.val_loss = 1.75;
    kiln_progress_line(&progress, &step, 100, line, sizeof line);
    CHECK_CLOSE(progress.smoothed, 2.4, 1e-12);
    CHECK_CONTAINS(line, "held-out 1.7500");
    step.loss = (double)NAN; /* a loss that is no number does not spoil the mean */
    kiln_progress_line(&progress, &step, 100, line, sizeof line);
    CHECK_CLOSE(progress.smoothed, 2.4, 1e-12);
}

TEST(a_progress_line_fits_any_buffer) {
    char line[512], small[512];
    struct kiln_progress progress = {0};
    const size_t length = kiln_progress_line(&progress, &record, 100, line, sizeof line);
    CHECK_EQ(length, strlen(line));
    for (size_t size = 1; size < 40; size++) {
        struct kiln_progress again = {0};
        memset(small, 'x', sizeof small);
        kiln_progress_line(&again, &record, 100, small, size);
        CHECK_EQ(strlen(small), size - 1);
        CHECK(memcmp(small, line, size - 1) == 0);
    }
}

/* Characters of a line: an escape sequence is none. */
static size_t width_of(const char *line) {
    size_t n = 0;
    for (const char *c = line; *c != '\0'; c++) {
        if (*c == '\033') {
            c += strcspn(c, "m");
        } else {
            n++;
        }
    }
    return n;
}

TEST(a_progress_line_fits_any_width_by_leaving_out) {
    struct kiln_step_record step = record;
    char line[512], whole[512];
    struct kiln_progress free = {.columns = 0};
    step.val_loss = 2.25;
    const size_t longest = kiln_progress_line(&free, &step, 112, whole, sizeof whole);
    for (size_t columns = 1; columns <= longest + 1; columns++) {
        struct kiln_progress progress = {.columns = columns, .colours = columns % 2 == 0};
        kiln_progress_line(&progress, &step, 112, line, sizeof line);
        CHECK(width_of(line) <= columns);
        if (columns >= 18 && columns < 31) {
            CHECK_CONTAINS(line, "12/112  ");
            CHECK_CONTAINS(line, "val 2.2500");
            CHECK(strstr(line, "loss") == NULL);
        }
        if (columns >= 31) { /* "12/112  loss 2.5000  val 2.2500" */
            CHECK_CONTAINS(line, "12/112 ");
            CHECK_CONTAINS(line, "  loss 2.5000");
            CHECK_CONTAINS(line, columns < 42 ? "val 2.2500" : "held-out 2.2500");
        }
        if (columns >= 60) {
            CHECK_CONTAINS(line, "held-out 2.2500");
            CHECK_CONTAINS(line, " 10 %");
            CHECK_CONTAINS(line, "12 s left");
        }
    }
    CHECK_STRING(line, whole);
}

TEST(a_better_held_out_loss_is_green_where_colours_are_wanted) {
    struct kiln_step_record step = record;
    struct kiln_progress progress = {.colours = true}, plain = {.colours = false};
    const double losses[] = {3, 2, 2.5, 1.5};
    char line[512];
    for (int i = 0; i < 4; i++) {
        step.val_loss = losses[i];
        kiln_progress_line(&progress, &step, 100, line, sizeof line);
        /* The first is better than nothing, the third is worse. */
        CHECK_EQ(strstr(line, "\033[32mheld-out") != NULL, i % 2 == 1);
        kiln_progress_line(&plain, &step, 100, line, sizeof line);
        CHECK(strchr(line, '\033') == NULL);
    }
    step.skipped = true;
    kiln_progress_line(&progress, &step, 100, line, sizeof line);
    CHECK_CONTAINS(line, "\033[33mskipped: its update was left out (--on-spike skip)");
    step.grad_norm = (double)INFINITY; /* without a loss scale it is no overflow of it */
    kiln_progress_line(&progress, &step, 100, line, sizeof line);
    CHECK_CONTAINS(line, "(--on-spike skip)");
    step.loss_scale = 1024;
    kiln_progress_line(&progress, &step, 100, line, sizeof line);
    CHECK_CONTAINS(line, "\033[33mskipped: the gradient overflowed");
    step.grad_norm = 50;
    CHECK(!kiln_step_overflowed(&step));
}

static struct kiln_run_info run_of(const struct kiln_table *table,
                                   const struct kiln_settings *settings) {
    return (struct kiln_run_info){.folder = "runs/a book",
                                  .model = "stories15m (random weights, seed 1)",
                                  .table = table,
                                  .settings = settings,
                                  .cpu = {.tier = "avx2", .provider = "own", .cpus = 2},
                                  .precision = KILN_PRECISION_FP32,
                                  .train_windows = 12345,
                                  .val_windows = 67};
}

TEST(the_start_names_every_setting_and_where_it_came_from) {
    struct kiln_settings settings;
    struct kiln_table *table = NULL;
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(&settings, &err), &err);
    CHECK_OK(kiln_table_create(&kiln_preset_find("stories15m")->dims, &table, &err), &err);
    CHECK_OK(kiln_settings_set(&settings, KILN_SETTING_lr, "5e-4", KILN_FROM_FLAG, &err), &err);
    CHECK_OK(kiln_settings_set(&settings, KILN_SETTING_data, "a b.txt", KILN_FROM_FLAG, &err),
             &err);
    const struct kiln_run_info info = run_of(table, &settings);
    char *text = kiln_report_start(&info);
    CHECK(text != NULL);
    CHECK_CONTAINS(text, "runs/a book");
    CHECK_CONTAINS(text, "12,345 windows");
    CHECK_CONTAINS(text, "  flag      data=\"a b.txt\" lr=0.0005\n");
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        char part[64];
        snprintf(part, sizeof part, "%s=", kiln_setting(id)->flag);
        CHECK_CONTAINS(text, part);
    }
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        CHECK(strcspn(line, "\n") <= 110);
    }
    kiln_report_free(text);
    kiln_table_destroy(table);
    kiln_settings_free(&settings);
}

TEST(the_end_says_what_to_type_next) {
    struct kiln_settings settings;
    struct kiln_tokenizer *tokenizer = NULL;
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(&settings, &err), &err);
    CHECK_OK(kiln_tokenizer_bytes(&tokenizer, &err), &err);
    struct kiln_run_info info = run_of(NULL, &settings);
    info.tokenizer = tokenizer;
    struct kiln_report_end end = {.seconds = 75,
                                  .steps = 60,
                                  .step = 60,
                                  .tokens = 1234567,
                                  .first_loss = 5,
                                  .last_loss = 2,
                                  .best_val = 2.25,
                                  .best_val_step = 50};
    char *text = kiln_report_finish(&info, &end);
    CHECK(text != NULL);
    CHECK_CONTAINS(text, "60 steps, 1,234,567 tokens in 75 s");
    CHECK_CONTAINS(text, "best held-out loss 2.2500 after step 50");
    CHECK_CONTAINS(text, "kiln generate 'runs/a book' -p ");
    CHECK_CONTAINS(text, "kiln train --resume 'runs/a book' --steps 120");
    CHECK(strstr(text, "compiling") == NULL); /* nothing was compiled */
    kiln_report_free(text);
    static const struct {
        const char *words, *prompt, *expected;
        bool conversations;
    } prompts[] = {{"", "", "-p \"Once upon a time\"\n", false},
                   {"The birds", "", "-p \"The birds\"\n", false},
                   {"The birds", "It's", "-p 'It'\\''s'\n", false},
                   {"user", "", "--chat -p \"Hello\"\n", true}};
    for (size_t i = 0; i < sizeof prompts / sizeof prompts[0]; i++) {
        snprintf(info.prompt, sizeof info.prompt, "%s", prompts[i].words);
        info.conversations = prompts[i].conversations;
        CHECK_OK(kiln_settings_set(&settings, KILN_SETTING_prompt, prompts[i].prompt,
                                   KILN_FROM_FLAG, &err),
                 &err);
        text = kiln_report_finish(&info, &end);
        CHECK(text != NULL);
        CHECK_CONTAINS(text, prompts[i].expected);
        kiln_report_free(text);
    }
    info.time.step = 0.0123;
    info.time.compile = 1.5;
    end.step_s = 0.0052;
    end.stall_s = end.overlap_s = 0.00005; /* less than a hundredth of a step */
    end.skipped = 5;
    end.overflowed = 2;
    text = kiln_report_finish(&info, &end);
    CHECK(text != NULL);
    CHECK_CONTAINS(text, "tokens in 75 s, 312 ms of it in steps: ");
    CHECK_CONTAINS(text, "planned: 12 ms a step, measured 5.2 ms on average; ");
    CHECK_CONTAINS(text, "2 of them skipped: the gradient overflowed, no update\n");
    CHECK_CONTAINS(text, "3 of them skipped: the update was left out (--on-spike skip)\n");
    CHECK(strstr(text, "compiling") == NULL);
    kiln_report_free(text);
    info.time.stall = 0.25;
    end.step_s = 2;
    end.stall_s = 0.0042;
    end.overlap_s = 1.25;
    text = kiln_report_finish(&info, &end);
    CHECK(text != NULL);
    CHECK_CONTAINS(text,
                   "compiling: planned to be waited for 250 ms a step, measured 4.2 ms; "
                   "hidden 1.2 s\n");
    kiln_report_free(text);
    kiln_tokenizer_destroy(tokenizer);
    kiln_settings_free(&settings);
}

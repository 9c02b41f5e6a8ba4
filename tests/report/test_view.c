/* SPDX-License-Identifier: MIT
 *
 * test_view.c: a run folder is read as it is: grown, cut back, broken, of an older kiln.
 */
#include "kiln/view.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kiln_test.h"
#include "train/metrics_read.h"
#include "train/trainer.h"

/* ---- numbers and lines -------------------------------------------------------------------------
 */

/* Bits of a double that is never far out: exponents of numbers that runs have, and some more. */
static double some_double(uint64_t i) {
    uint64_t bits = (i + 1) * 0x9e3779b97f4a7c15u;
    bits ^= bits >> 29;
    bits *= 0xbf58476d1ce4e5b9u;
    const uint64_t exponent = i % 16 == 0 ? (bits >> 52) % 2046 + 1 : 1023 - 45 + (bits >> 55) % 90;
    bits = (bits & 0x000fffffffffffffu) | exponent << 52 | (i % 7 == 0 ? 1ull << 63 : 0);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

TEST(numbers_are_read_to_the_bit) {
    for (uint64_t i = 0; i < 200000; i++) {
        char text[40];
        double back = 0;
        const double value = some_double(i);
        snprintf(text, sizeof text, i % 5 == 0 ? "%.6g" : "%.17g", value);
        const double want = strtod(text, NULL);
        const char *end = text + strlen(text);
        CHECK(kiln_read_double(text, end, &back) == end);
        if (back != want || signbit(back) != signbit(want)) {
            FAIL("%s is read as %.17g", text, back);
        }
    }
}

TEST(what_is_no_number_is_none) {
    static const char *const bad[] = {"", "-", ".5", "a", "1.", "1e", "1e+", "-.1", "+1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        double value;
        if (kiln_read_double(bad[i], bad[i] + strlen(bad[i]), &value) != NULL) {
            FAIL("\"%s\" is read as %g", bad[i], value);
        }
    }
}

static struct kiln_step_record a_record(uint64_t step) {
    return (struct kiln_step_record){.step = step,
                                     .loss = 3.0 / (double)step + 1.0 / 3,
                                     .grad_norm = 0.1 + 1e-5 * (double)step,
                                     .lr = 3e-4 / 7,
                                     .tokens = 2048 * step,
                                     .staleness = 1,
                                     .ms = 101.25 + 1.0 / 3,
                                     .ms_per_micro_batch = 12,
                                     .tokens_per_s = 17067.123456789,
                                     .tflops = 0.123456789012345678,
                                     .device_ms = 70,
                                     .host_ms = 20,
                                     .io_ms = 2,
                                     .dw_wait_ms = 3,
                                     .update_ms = 11,
                                     .stall_ms = 0.5,
                                     .overlap_ms = 4,
                                     .compiles = 12,
                                     .layer_forwards = 24,
                                     .peak_bytes = 123456789 + step,
                                     .restarts = step / 40,
                                     .surfaces = true,
                                     .surface_read_bytes = 4096,
                                     .surface_written_bytes = 8192,
                                     .loss_scale = step % 2 == 0 ? 1024 : 0,
                                     .skipped = step % 50 == 0,
                                     .val_loss = step % 10 == 0 ? 2.5 : (double)NAN,
                                     .val_generation = step % 20 == 0 ? (int64_t)step - 1 : -1};
}

/* NaN is equal to NaN here. */
static void check_record(const struct kiln_step_record *got, struct kiln_step_record want) {
    if (want.val_generation >= 0 && isnan(want.val_loss)) {
        want.val_generation = -1;
    }
    char a[KILN_METRICS_LINE], b[KILN_METRICS_LINE];
    kiln_metrics_line(got, a);
    kiln_metrics_line(&want, b);
    CHECK_STRING(a, b);
}

TEST(a_line_is_read_as_it_was_written) {
    for (uint64_t step = 1; step < 300; step++) {
        char line[KILN_METRICS_LINE];
        struct kiln_step_record back;
        struct kiln_step_record record = a_record(step);
        record.loss = step % 9 == 0 ? (double)INFINITY : record.loss;
        kiln_metrics_line(&record, line);
        CHECK(kiln_metrics_read(line, strlen(line), &back));
        check_record(&back, record);
    }
}

TEST(a_line_of_any_json_is_read) {
    static const char line[] =
        " {\"new\": {\"deep\": [1, \"}\", {\"a\": null}]}, \"loss\" : 2.5e0,\"text\":\"a \\\" b\","
        "\"step\": 7, \"ms\": \"many\", \"tokens\": 3.0, \"skipped\": true, \"grad_norm\": null} ";
    struct kiln_step_record record;
    CHECK(kiln_metrics_read(line, sizeof line - 1, &record));
    CHECK_EQ(record.step, 7);
    CHECK_EQ(record.tokens, 3);
    CHECK(record.skipped);
    CHECK_CLOSE(record.loss, 2.5, 0);
    CHECK(isnan(record.ms) && isnan(record.grad_norm) && isnan(record.val_loss));
    CHECK_EQ(record.val_generation, -1);
}

TEST(a_line_that_was_cut_is_none) {
    char line[KILN_METRICS_LINE];
    const struct kiln_step_record record = a_record(40);
    struct kiln_step_record back;
    kiln_metrics_line(&record, line);
    for (size_t n = 0; n < strlen(line); n++) {
        char *cut = malloc(n + 1); /* its end is an end for sanitizers, too */
        memcpy(cut, line, n);
        CHECK(!kiln_metrics_read(cut, n, &back));
        free(cut);
    }
    CHECK(!kiln_metrics_read("{\"loss\":1.0}", 12, &back));
    CHECK(!kiln_metrics_read("[1]", 3, &back));
}

/* ---- a folder ---------------------------------------------------------------------------------
 */

static void write_lines(const char *mode, uint64_t first, uint64_t last, double add) {
    char line[KILN_METRICS_LINE];
    FILE *file = fopen(test_path("metrics.jsonl"), mode);
    CHECK(file != NULL);
    for (uint64_t step = first; step <= last; step++) {
        struct kiln_step_record record = a_record(step);
        record.loss += add;
        kiln_metrics_line(&record, line);
        fprintf(file, "%s\n", line);
    }
    fclose(file);
}

static struct kiln_view *opened(void) {
    struct kiln_view *view;
    struct kiln_err err;
    CHECK_OK(kiln_view_open(test_folder(), &view, &err), &err);
    return view;
}

static struct kiln_view_change polled(struct kiln_view *view) {
    struct kiln_view_change change;
    struct kiln_err err;
    CHECK_OK(kiln_view_poll(view, &change, &err), &err);
    return change;
}

TEST(a_folder_that_is_no_run_is_refused) {
    struct kiln_view *view;
    struct kiln_err err;
    CHECK_FAILS(kiln_view_open(test_folder(), &view, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "no run folder");
    CHECK(view == NULL);
    CHECK_FAILS(kiln_view_open("", &view, &err), KILN_EINPUT, &err);
}

TEST(steps_are_read_and_smoothed) {
    write_lines("w", 1, 100, 0);
    struct kiln_view *view = opened();
    CHECK_EQ(kiln_view_steps(view), 100);
    double smoothed = a_record(1).loss;
    for (size_t i = 0; i < 100; i++) {
        check_record(kiln_view_step(view, i), a_record(i + 1));
        smoothed += 0.1 * (a_record(i + 1).loss - smoothed);
        CHECK_CLOSE(kiln_view_smoothed(view, i), smoothed, 1e-12);
    }
    CHECK(kiln_view_step(view, 100) == NULL);
    CHECK_EQ(kiln_view_find(view, 57), 56);
    CHECK_EQ(kiln_view_find(view, 1000), 100);
    CHECK(!polled(view).any);
    kiln_view_close(view);
}

TEST(a_poll_reads_what_was_added) {
    write_lines("w", 1, 3, 0);
    struct kiln_view *view = opened();
    write_lines("a", 4, 5, 0);
    struct kiln_view_change change = polled(view);
    CHECK(change.any);
    CHECK_EQ(change.first_step, 3);
    CHECK_EQ(kiln_view_steps(view), 5);
    /* Half a line, and then the rest of it. */
    FILE *file = fopen(test_path("metrics.jsonl"), "a");
    fputs("{\"step\":6,\"loss\":1", file);
    fflush(file);
    CHECK(!polled(view).any);
    CHECK_EQ(kiln_view_steps(view), 5);
    fputs(".5}\n", file);
    fclose(file);
    change = polled(view);
    CHECK_EQ(change.first_step, 5);
    CHECK_CLOSE(kiln_view_step(view, 5)->loss, 1.5, 0);
    kiln_view_close(view);
}

TEST(steps_that_were_cut_and_taken_again_are_the_new_ones) {
    write_lines("w", 1, 50, 0);
    struct kiln_view *view = opened();
    write_lines("w", 1, 20, 0);
    struct kiln_view_change change = polled(view);
    CHECK_EQ(change.first_step, 20);
    CHECK_EQ(kiln_view_steps(view), 20);
    write_lines("a", 21, 80, 0);
    CHECK_EQ(polled(view).first_step, 20);
    /* Cut and grown beyond what it was, between two polls. */
    write_lines("w", 1, 33, 0);
    write_lines("a", 34, 120, 0.25);
    change = polled(view);
    CHECK_EQ(change.first_step, 33);
    CHECK_EQ(kiln_view_steps(view), 120);
    CHECK_CLOSE(kiln_view_step(view, 32)->loss, a_record(33).loss, 0);
    CHECK_CLOSE(kiln_view_step(view, 33)->loss, a_record(34).loss + 0.25, 0);
    /* Gone: a run that is begun anew. */
    write_lines("w", 1, 2, 1);
    CHECK_EQ(polled(view).first_step, 0);
    CHECK_EQ(kiln_view_steps(view), 2);
    kiln_view_close(view);
}

TEST(a_step_that_is_there_twice_is_the_last_one) {
    write_lines("w", 1, 30, 0);
    write_lines("a", 25, 28, 0.5);
    struct kiln_view *view = opened();
    CHECK_EQ(kiln_view_steps(view), 28);
    CHECK_CLOSE(kiln_view_step(view, 23)->loss, a_record(24).loss, 0);
    CHECK_CLOSE(kiln_view_step(view, 27)->loss, a_record(28).loss + 0.5, 0);
    kiln_view_close(view);
}

TEST(lines_of_rubbish_are_passed_over) {
    FILE *file = fopen(test_path("metrics.jsonl"), "w");
    fputs("rubbish\n\n{\"step\":1,\"loss\":2.0}\n{\"step\":\n", file);
    for (int i = 0; i < 300000; i++) { /* longer than what is read at once */
        fputc('x', file);
    }
    fputs("\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":1.0}", file);
    fclose(file);
    struct kiln_view *view = opened();
    CHECK_EQ(kiln_view_steps(view), 2);
    CHECK(isnan(kiln_view_step(view, 1)->loss));
    CHECK_CLOSE(kiln_view_smoothed(view, 1), 2, 0);
    kiln_view_close(view);
}

TEST(samples_are_read_and_the_last_of_a_step_counts) {
    test_file("metrics.jsonl", "", 0);
    static const char lines[] =
        "{\"step\":10,\"text\":\"one\"}\n{\"step\":20,\"text\":\"two\"}\nrubbish\n"
        "{\"step\":30,\"text\":\"three\"}\n{\"step\":20,\"text\":\"again \\u00e9\"}\n{\"step\":40";
    test_file("samples.jsonl", lines, sizeof lines - 1);
    struct kiln_view *view = opened();
    CHECK_EQ(kiln_view_samples(view), 2);
    CHECK_EQ(kiln_view_sample(view, 1)->step, 20);
    CHECK_STRING(kiln_view_sample(view, 0)->text, "one");
    CHECK_STRING(kiln_view_sample(view, 1)->text, "again \xc3\xa9");
    kiln_view_close(view);
}

/* ---- JSON -------------------------------------------------------------------------------------
 */

static json_t *json_of(const struct kiln_view *view, const struct kiln_view_options *options) {
    char *text;
    size_t size;
    struct kiln_err err;
    json_error_t where;
    CHECK_OK(kiln_view_json(view, options, &text, &size, &err), &err);
    CHECK_EQ(strlen(text), size);
    CHECK(strchr(text, '<') == NULL && strchr(text, '>') == NULL);
    json_t *json = json_loads(text, 0, &where);
    if (json == NULL) {
        FAIL("no JSON: %s at %d: %.80s", where.text, where.position,
             text + (where.position > 40 ? where.position - 40 : 0));
    }
    kiln_view_json_free(text);
    return json;
}

static double value_at(const json_t *json, const char *curve, uint64_t step) {
    const json_t *one = json_object_get(json_object_get(json, "series"), curve);
    const json_t *steps = json_object_get(one, "steps"), *values = json_object_get(one, "values");
    CHECK_EQ(json_array_size(steps), json_array_size(values));
    for (size_t i = 0; i < json_array_size(steps); i++) {
        if ((uint64_t)json_integer_value(json_array_get(steps, i)) == step) {
            const json_t *value = json_array_get(values, i);
            return json_is_null(value) ? (double)INFINITY : json_number_value(value);
        }
    }
    return (double)NAN;
}

TEST(fewer_points_keep_the_extremes) {
    write_lines("w", 1, 7000, 0);
    write_lines("a", 7001, 7001, 40); /* one step stands out */
    write_lines("a", 7002, 9000, 0);
    write_lines("a", 9001, 9001, -5);
    write_lines("a", 9002, 9002, (double)NAN);
    write_lines("a", 9003, 20000, 0);
    struct kiln_view *view = opened();
    const struct kiln_view_options few = {.points = 100, .parts = KILN_VIEW_ALL};
    json_t *json = json_of(view, &few);
    CHECK_CLOSE(value_at(json, "loss", 7001), a_record(7001).loss + 40, 1e-4);
    CHECK_CLOSE(value_at(json, "loss", 9001), a_record(9001).loss - 5, 1e-4);
    CHECK(isinf(value_at(json, "loss", 9002)));
    CHECK_CLOSE(value_at(json, "loss", 1), a_record(1).loss, 1e-4);
    CHECK_CLOSE(value_at(json, "loss", 20000), a_record(20000).loss, 1e-4);
    /* The smoothed one is of all steps, not of those that are left. */
    CHECK_CLOSE(value_at(json, "smoothed", 20000), kiln_view_smoothed(view, 19999), 1e-4);
    const json_t *steps =
        json_object_get(json_object_get(json_object_get(json, "series"), "loss"), "steps");
    CHECK(json_array_size(steps) <= 110 && json_array_size(steps) >= 90);
    for (size_t i = 1; i < json_array_size(steps); i++) {
        CHECK(json_integer_value(json_array_get(steps, i)) >
              json_integer_value(json_array_get(steps, i - 1)));
    }
    json_decref(json);
    kiln_view_close(view);
}

TEST(a_range_of_steps_has_all_its_points) {
    write_lines("w", 1, 500, 0);
    struct kiln_view *view = opened();
    const struct kiln_view_options some = {
        .from = 101, .to = 200, .points = 1000, .parts = KILN_VIEW_SERIES};
    json_t *json = json_of(view, &some);
    for (uint64_t step = 101; step <= 200; step++) {
        CHECK_CLOSE(value_at(json, "loss", step), a_record(step).loss, 1e-4);
        CHECK(isnan(value_at(json, "val_loss", step)) == !(step % 10 == 0 && step % 20 != 0) ||
              step % 20 == 19);
    }
    CHECK(isnan(value_at(json, "loss", 100)) && isnan(value_at(json, "loss", 201)));
    CHECK(json_object_get(json, "settings") == NULL);
    json_decref(json);
    const struct kiln_view_options none = {.from = 900, .to = 950, .parts = KILN_VIEW_ALL};
    json_decref(json_of(view, &none));
    kiln_view_close(view);
}

TEST(time_by_part_adds_up_to_a_step) {
    write_lines("w", 1, 1000, 0);
    struct kiln_view *view = opened();
    const struct kiln_view_options all = {.points = 100, .parts = KILN_VIEW_SERIES};
    json_t *json = json_of(view, &all);
    static const char *const parts[] = {"device", "host",  "dw_wait", "io",
                                        "update", "stall", "restart"};
    double sum = 0;
    for (size_t i = 0; i < 7; i++) {
        const json_t *list = json_object_get(json_object_get(json, "time"), parts[i]);
        sum += json_number_value(json_array_get(list, 3));
    }
    CHECK_CLOSE(sum, 70 + 20 + 11 + 0.5, 1e-3);
    json_decref(json);
    const struct kiln_view_summary s = kiln_view_summary(view);
    CHECK_CLOSE(s.host_ms, 1000 * 15.0, 1e-6);
    CHECK_CLOSE(s.step_s, a_record(1).ms / 1e3, 1e-9);
    CHECK_EQ(s.restarts, 25);
    CHECK_EQ(s.skipped, 20);
    CHECK_EQ(s.best_loss_step, 1000);
    CHECK_EQ(s.peak_bytes, 123456789 + 1000);
    kiln_view_close(view);
}

TEST(texts_cannot_leave_their_quotes) {
    test_file("metrics.jsonl", "", 0);
    static const char lines[] =
        "{\"step\":1,\"text\":\"</script><script>alert(1)</script><!-- & \\\"x\\\" \\\\ \\u0001 "
        "\\ud83d\\ude00\"}\n";
    test_file("samples.jsonl", lines, sizeof lines - 1);
    struct kiln_view *view = opened();
    const struct kiln_view_options all = {.parts = KILN_VIEW_ALL};
    json_t *json = json_of(view, &all); /* checks that there is no "<" */
    const json_t *one = json_array_get(json_object_get(json, "samples"), 0);
    CHECK_STRING(json_string_value(json_object_get(one, "text")),
                 "</script><script>alert(1)</script><!-- & \"x\" \\ \x01 \xf0\x9f\x98\x80");
    json_decref(json);
    kiln_view_close(view);
}

TEST(a_step_is_json_of_its_own) {
    write_lines("w", 1, 40, 0);
    struct kiln_view *view = opened();
    char text[700], small[20];
    const size_t n = kiln_view_step_json(view, 39, text, sizeof text);
    CHECK_EQ(n, strlen(text));
    json_t *json = json_loads(text, 0, NULL);
    CHECK_EQ(json_integer_value(json_object_get(json, "step")), 40);
    CHECK_EQ(json_integer_value(json_object_get(json, "val_step")), 39);
    CHECK_CLOSE(json_number_value(json_object_get(json, "loss")), a_record(40).loss, 1e-5);
    json_decref(json);
    CHECK_EQ(kiln_view_step_json(view, 39, small, sizeof small), n);
    CHECK_EQ(strlen(small), sizeof small - 1);
    CHECK_EQ(kiln_view_step_json(view, 40, text, sizeof text), 0);
    kiln_view_close(view);
}

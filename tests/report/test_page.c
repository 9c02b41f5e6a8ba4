/* SPDX-License-Identifier: MIT
 *
 * test_page.c: report.html is made of its parts, and written when it is time; the timeline of a
 * trace is small whatever the trace is.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "kiln/report.h"
#include "kiln_test.h"
#include "report/page.h"
#include "report/view_int.h"

static char *whole(const char *path) {
    char *text = NULL;
    size_t size;
    struct kiln_err err;
    CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
    return text;
}

static size_t count_of(const char *text, const char *part) {
    size_t n = 0;
    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part)) {
        n++;
    }
    return n;
}

static struct kiln_view *a_view(void) {
    static const char lines[] = "{\"step\":1,\"loss\":3.0}\n{\"step\":2,\"loss\":2.5}\n";
    struct kiln_view *view;
    struct kiln_err err;
    test_file("metrics.jsonl", lines, sizeof lines - 1);
    CHECK_OK(kiln_view_open(test_folder(), &view, &err), &err);
    return view;
}

TEST(a_page_holds_its_style_scripts_and_data) {
    struct kiln_view *view = a_view();
    const struct kiln_view *const views[] = {view};
    char *text, *again;
    size_t size, same;
    struct kiln_err err;
    CHECK_OK(kiln_report_page(views, 1, &text, &size, &err), &err);
    CHECK_EQ(size, strlen(text));
    CHECK_CONTAINS(text, "prefers-color-scheme: dark");
    CHECK_CONTAINS(text, "kiln.chart =");
    CHECK_CONTAINS(text, "\"values\":[3,2.5]");
    CHECK(strstr(text, "{{") == NULL);
    CHECK_EQ(count_of(text, "</script"), 2); /* of the data, and of the scripts */
    CHECK_EQ(count_of(text, "<!--"), 0);
    CHECK_OK(kiln_report_page(views, 1, &again, &same, &err), &err);
    CHECK_STRING(again, text);
    CHECK_FAILS(kiln_report_page(views, 0, &again, &same, &err), KILN_EUSAGE, &err);
    kiln_report_free(text);
    kiln_view_close(view);
}

TEST(nothing_is_looked_for_in_what_was_put_into_a_page) {
    struct kiln_text text = {0};
    kiln_page_write(&text, "report.html", "[\"{{style.css}}\"]");
    CHECK(!text.failed);
    CHECK_CONTAINS(text.at, "[\"{{style.css}}\"]");
    kiln_report_free(text.at);
    struct kiln_text none = {0};
    kiln_page_write(&none, "no such page", "");
    CHECK(none.failed);
}

TEST(a_page_takes_the_place_of_the_old_one) {
    struct kiln_view *view = a_view();
    const struct kiln_view *const views[] = {view};
    struct kiln_err err;
    const char *path = test_file("page.html", "old", 3);
    CHECK_OK(kiln_report_write(path, views, 1, &err), &err);
    char *text = whole(path);
    CHECK_CONTAINS(text, "<!DOCTYPE html>");
    kiln_report_free(text);
    char absent[4400];
    snprintf(absent, sizeof absent, "%s/none/page.html", test_folder());
    CHECK_FAILS(kiln_report_write(absent, views, 1, &err), KILN_EIO, &err);
    CHECK_FAILS(kiln_report_write(test_folder(), views, 1, &err), KILN_EINPUT, &err);
    kiln_view_close(view);
}

/* ---- the recorder ------------------------------------------------------------------------------
 */

static void count_notice(void *context, const char *text) {
    CHECK_CONTAINS(text, "the report is not written");
    ++*(int *)context;
}

static struct kiln_recorder *a_recorder(int *notices) {
    struct kiln_settings settings;
    struct kiln_recorder *recorder;
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(&settings, &err), &err);
    const struct kiln_run_info info = {.folder = test_folder(), .settings = &settings};
    CHECK_OK(kiln_recorder_open(&info, count_notice, notices, &recorder, &err), &err);
    kiln_settings_free(&settings); /* it keeps nothing of them */
    return recorder;
}

static const struct kiln_step_record evaluated = {.step = 2, .loss = 2, .val_loss = 2.5};
static const struct kiln_step_record plain = {.step = 2, .loss = 2, .val_loss = (double)NAN};

TEST(a_recorder_writes_when_the_model_was_evaluated_and_not_soon_again) {
    int notices = 0;
    kiln_view_close(a_view());
    struct kiln_recorder *recorder = a_recorder(&notices);
    const char *path = test_path("report.html");
    kiln_recorder_step(recorder, &plain);
    CHECK(access(path, F_OK) != 0);
    kiln_recorder_step(recorder, &evaluated);
    CHECK(access(path, F_OK) == 0);
    unlink(path);
    kiln_recorder_step(recorder, &evaluated); /* half a minute has not passed */
    kiln_recorder_sample(recorder, 2, "text");
    kiln_recorder_checkpoint(recorder, 2);
    CHECK(access(path, F_OK) != 0);
    kiln_recorder_close(recorder, true);
    CHECK(access(path, F_OK) == 0);
    /* Another process, soon after: its page waits, and one that hands over writes none. */
    recorder = a_recorder(&notices);
    struct stat before, after;
    CHECK_EQ(stat(path, &before), 0);
    kiln_recorder_step(recorder, &evaluated);
    kiln_recorder_close(recorder, false);
    CHECK_EQ(stat(path, &after), 0);
    CHECK_EQ(before.st_ino, after.st_ino);
    CHECK_EQ(notices, 0);
}

TEST(a_recorder_makes_no_page_of_a_long_run_before_its_end) {
    int notices = 0;
    const struct kiln_step_record late = {.step = 200001, .loss = 2, .val_loss = 2.5};
    kiln_view_close(a_view());
    struct kiln_recorder *recorder = a_recorder(&notices);
    const char *path = test_path("report.html");
    unlink(path);
    kiln_recorder_step(recorder, &late);
    kiln_recorder_sample(recorder, late.step, "text");
    kiln_recorder_checkpoint(recorder, late.step);
    CHECK(access(path, F_OK) != 0);
    kiln_recorder_close(recorder, true);
    CHECK(access(path, F_OK) == 0);
    CHECK_EQ(notices, 0);
}

TEST(a_recorder_that_cannot_write_says_so_once) {
    int notices = 0;
    char stale[4400];
    kiln_view_close(a_view());
    CHECK_EQ(mkdir(test_path("report.html"), 0777), 0);
    snprintf(stale, sizeof stale, "%s.tmp-%d", test_path("report.html"), (int)getpid());
    CHECK(fclose(fopen(stale, "w")) == 0); /* of a process that died */
    struct kiln_recorder *recorder = a_recorder(&notices);
    CHECK(access(stale, F_OK) != 0);
    kiln_recorder_checkpoint(recorder, 2);
    kiln_recorder_close(recorder, true);
    CHECK_EQ(notices, 1);
    kiln_recorder_step(NULL, &evaluated);
    kiln_recorder_close(NULL, true);
}

/* ---- the timeline ------------------------------------------------------------------------------
 */

static struct kiln_trace_spans read_trace(const char *text, size_t size) {
    struct kiln_trace_spans spans;
    struct kiln_err err;
    CHECK_OK(kiln_trace_read(text, size, &spans, &err), &err);
    return spans;
}

TEST(a_trace_is_read_as_spans) {
    static const char text[] =
        "[\n"
        "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":7,\"tid\":0,\"args\":{}},\n"
        "{\"name\":\"attn_fwd\",\"cat\":\"evaluate\",\"ph\":\"X\",\"ts\":2000.5,\"dur\":1000.0,"
        "\"pid\":7,\"tid\":1000,\"args\":{\"step\":1,\"generation\":4,\"layer\":3}},\n"
        "{\"name\":\"stall\",\"cat\":\"stall\",\"ph\":\"X\",\"ts\":1000.5,\"dur\":500,\"pid\":7,"
        "\"tid\":1000,\"args\":{\"step\":1}},\n"
        "{\"name\":\"x\",\"cat\":\"of others\",\"ph\":\"X\",\"ts\":0,\"dur\":1}\n"
        "{\"name\":\"cut\",\"cat\":\"stall\",\"ph\":\"X\",\"ts\":12";
    struct kiln_trace_spans spans = read_trace(text, sizeof text - 1);
    CHECK_EQ(spans.n, 2);
    CHECK_STRING(spans.at[0].kind, "stall");
    CHECK_CLOSE(spans.at[0].start, 0, 1e-12);
    CHECK_EQ(spans.at[0].generation, -1);
    CHECK_STRING(spans.at[1].name, "attn_fwd");
    CHECK_STRING(spans.at[1].track, "device");
    CHECK_EQ(spans.at[1].layer, 3);
    CHECK_EQ(spans.at[1].generation, 4);
    CHECK_CLOSE(spans.at[1].start, 1e-3, 1e-9);
    CHECK_CLOSE(spans.at[1].end, 2e-3, 1e-9);
    kiln_trace_spans_free(&spans);
    spans = read_trace("", 0);
    CHECK_EQ(spans.n, 0);
    kiln_trace_spans_free(&spans);
}

/* Time that is covered stays about what it is, and stalls stay stalls. */
TEST(a_long_trace_becomes_few_spans) {
    enum { SPANS = 60000, ROOM = 220 };
    char *text = malloc((size_t)SPANS * ROOM);
    size_t n = 0;
    for (int i = 0; i < SPANS; i++) {
        const bool stall = i % 5000 < 100;
        n += (size_t)snprintf(text + n, ROOM,
                              "{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"ts\":%d,\"dur\":80,"
                              "\"pid\":1,\"tid\":1000,\"args\":{\"step\":%d}},\n",
                              stall        ? "stall"
                              : i % 2 == 0 ? "attn_fwd"
                                           : "ffn_fwd",
                              stall ? "stall" : "evaluate", i * 100, i / 10000);
    }
    struct kiln_trace_spans spans = read_trace(text, n);
    CHECK(spans.n > 0 && spans.n <= KILN_VIEW_SPANS);
    double stalled = 0;
    uint64_t all = 0;
    for (size_t i = 0; i < spans.n; i++) {
        const bool stall = strcmp(spans.at[i].kind, "stall") == 0;
        stalled += stall ? spans.at[i].end - spans.at[i].start : 0;
        all += spans.at[i].count;
    }
    CHECK_EQ(all, SPANS);
    CHECK_CLOSE(stalled, 12 * 100 * 100e-6, 12 * 100 * 25e-6);
    kiln_trace_spans_free(&spans);
    free(text);
}

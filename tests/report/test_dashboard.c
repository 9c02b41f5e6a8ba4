/* SPDX-License-Identifier: MIT
 *
 * test_dashboard.c: what the dashboard says of runs, and its events: in order, resumed where a
 * listener left off, bounded for who does not read.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "kiln_test.h"
#include "report/dashboard_lab.h"

/* The body as JSON; the caller drops it. */
static json_t *json_of(struct kiln_dashboard *d, const char *path) {
    char *answer = dash_get(d, path, "");
    CHECK_EQ(dash_status(answer), 200);
    json_t *object = json_loads(dash_body(answer), 0, NULL);
    CHECK(object != NULL);
    free(answer);
    return object;
}

static json_t *run_of(json_t *all, const char *name) {
    size_t i;
    json_t *run;
    json_array_foreach(json_object_get(all, "runs"), i, run) {
        if (strcmp(json_string_value(json_object_get(run, "name")), name) == 0) {
            return run;
        }
    }
    return NULL;
}

static const char *status_of(struct kiln_dashboard *d, const char *name) {
    static char status[20];
    json_t *all = json_of(d, "/api/runs");
    json_t *run = run_of(all, name);
    snprintf(status, sizeof status, "%s",
             run ? json_string_value(json_object_get(run, "status")) : "absent");
    json_decref(all);
    return status;
}

/* ---- runs -------------------------------------------------------------------------------------
 */

TEST(runs_are_listed_with_how_they_stand) {
    dash_run("held", 12);
    dash_hold("held");
    dash_run("stopped", 3);
    dash_run("done", 1000);
    struct kiln_dashboard *d = dash_dashboard();
    dash_look(d);
    CHECK_STRING(status_of(d, "held"), "running");
    CHECK_STRING(status_of(d, "stopped"), "stopped");
    CHECK_STRING(status_of(d, "done"), "finished");
    json_t *all = json_of(d, "/api/runs");
    json_t *run = run_of(all, "held");
    CHECK_EQ(json_array_size(json_object_get(all, "runs")), 3);
    CHECK_EQ(json_integer_value(json_object_get(run, "step")), 12);
    CHECK_EQ(json_integer_value(json_object_get(run, "total")), 1000);
    CHECK_CLOSE(json_number_value(json_object_get(run, "loss")), 4.988, 1e-9);
    CHECK_CLOSE(json_number_value(json_object_get(run, "val_loss")), 4.5, 1e-9);
    json_decref(all);
    kiln_dashboard_close(d);
}

TEST(runs_come_and_go_while_it_is_open) {
    struct kiln_dashboard *d = dash_dashboard();
    struct kiln_err err;
    char folder[4400];
    dash_look(d);
    CHECK_STRING(status_of(d, "late"), "absent");
    snprintf(folder, sizeof folder, "%s", dash_run("late", 2));
    dash_look(d);
    CHECK_STRING(status_of(d, "late"), "stopped");
    CHECK_OK(kiln_remove_tree(folder, &err), &err);
    dash_look(d);
    CHECK_STRING(status_of(d, "late"), "absent");
    /* Neither files nor folders that are something else, nor runs that are being made. */
    CHECK_OK(kiln_make_dirs(test_path("runs/notes"), &err), &err);
    (void)test_file("runs/file", "", 0);
    (void)dash_run("new.tmp-17", 1);
    (void)dash_run(".hidden", 1);
    dash_look(d);
    CHECK_EQ(d->n_runs, 0);
    kiln_dashboard_close(d);
}

TEST(any_name_of_a_folder_is_shown_and_found) {
    static const char *const names[] = {"a b", "<b>&\"'", "a?x=1&y#z", "\xc3\xbc", "line\nbreak"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)dash_run(names[i], 1);
    }
    (void)dash_run("bad\xff\xfe", 1);
    struct kiln_dashboard *d = dash_dashboard();
    dash_look(d);
    json_t *all = json_of(d, "/api/runs");
    CHECK_EQ(json_array_size(json_object_get(all, "runs")), 6);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK(run_of(all, names[i]) != NULL);
    }
    CHECK(run_of(all, "bad??") != NULL);
    json_decref(all);
    char *answer = dash_get(d, "/api/runs", "");
    CHECK(strstr(answer, "<b>") == NULL); /* a browser that took it for a page would find none */
    free(answer);
    answer = dash_get(d, "/api/run?name=a%3Fx%3D1%26y%23z", "");
    CHECK_EQ(dash_status(answer), 200);
    free(answer);
    kiln_dashboard_close(d);
}

TEST(a_run_folder_may_be_named_itself) {
    char a[4400], b[4400];
    struct kiln_err err;
    snprintf(a, sizeof a, "%s", dash_run("a", 2));
    snprintf(b, sizeof b, "%s/", dash_run("b/a", 2));
    const char *where[] = {a, b};
    const struct kiln_dashboard_options options = {.runs = where, .n_runs = 2};
    struct kiln_dashboard *d;
    CHECK_OK(kiln_dashboard_open(&options, &d, &err), &err);
    dash_look(d);
    CHECK_EQ(d->n_runs, 2);
    CHECK_STRING(d->runs[0].name, "a");
    b[strlen(b) - 1] = '\0';
    CHECK_STRING(d->runs[1].name, b);
    kiln_dashboard_close(d);
}

TEST(views_that_nobody_looks_at_are_closed) {
    struct kiln_dashboard *d = dash_dashboard();
    for (int i = 0; i < 20; i++) {
        char name[20];
        snprintf(name, sizeof name, "run-%d", i);
        (void)dash_run(name, 5);
    }
    for (int i = 0; i < 20; i++) {
        dash_look(d);
    }
    for (int i = 0; i < 20; i++) {
        char path[60];
        snprintf(path, sizeof path, "/api/run?name=run-%d", i);
        json_t *run = json_of(d, path);
        CHECK_EQ(json_integer_value(json_object_get(json_object_get(run, "run"), "step")), 5);
        json_decref(run);
    }
    dash_look(d);
    size_t open = 0;
    for (size_t i = 0; i < d->n_runs; i++) {
        open += d->runs[i].view != NULL;
        CHECK_EQ(d->runs[i].last.step, 5);
    }
    CHECK_EQ(open, KILN_DASH_VIEWS);
    kiln_dashboard_close(d);
}

/* ---- what a run is asked for ------------------------------------------------------------------
 */

static void check_asked(const char *want) {
    char *text;
    size_t size;
    struct kiln_err err;
    CHECK_OK(kiln_read_file(test_path("runs/book/control.json"), &text, &size, &err), &err);
    CHECK_STRING(text, want);
    CHECK(unlink(test_path("runs/book/control.json")) == 0);
    kiln_free(text);
}

TEST(a_run_that_is_trained_is_asked_and_no_other) {
    dash_run("book", 3);
    struct kiln_dashboard *d = dash_dashboard();
    dash_look(d);
    char *answer = dash_post(d, "/api/stop", &(struct dash_post){.body = "{\"run\": \"book\"}"});
    CHECK_EQ(dash_status(answer), 409);
    CHECK_CONTAINS(answer, "nobody trains this run now");
    free(answer);
    CHECK(!kiln_path_exists(test_path("runs/book/control.json")));
    dash_hold("book");
    dash_look(d);
    answer = dash_post(d, "/api/stop", &(struct dash_post){.body = "{\"run\": \"book\"}"});
    CHECK_EQ(dash_status(answer), 202);
    free(answer);
    check_asked("{\"stop\": true}\n");
    answer = dash_post(d, "/api/rate",
                       &(struct dash_post){.body = "{\"run\":\"book\",\"lr\":2.5e-4}",
                                           .type = "application/json; charset=utf-8"});
    CHECK_EQ(dash_status(answer), 202);
    free(answer);
    check_asked("{\"lr\": 0.00025000000000000001}\n");
    kiln_dashboard_close(d);
}

/* ---- events -----------------------------------------------------------------------------------
 */

/* As HTTP/1.0: without the lengths of chunks between the events. */
static int listen_to(const struct kiln_dashboard *d, const char *headers) {
    char request[400];
    const int n =
        snprintf(request, sizeof request, "GET /events HTTP/1.0\r\nHost: 127.0.0.1:%d\r\n%s\r\n",
                 d->port, headers);
    return dash_send(d, request, (size_t)n);
}

/* The steps that these events tell, in order, from `first` to `last`; the id behind the last. */
static void check_steps(const char *events, uint64_t first, uint64_t last, char id[64]) {
    uint64_t want = first;
    for (const char *at = events; (at = strstr(at, "\"step\":{\"step\":")) != NULL; want++) {
        at += strlen("\"step\":{\"step\":");
        CHECK_EQ(strtoull(at, NULL, 10), want);
    }
    CHECK_EQ(want, last + 1);
    const char *found = NULL;
    for (const char *at = events; (at = strstr(at, "id: ")) != NULL; at++) {
        found = at + 4;
    }
    CHECK(found != NULL);
    snprintf(id, 64, "%.*s", (int)strcspn(found, "\n"), found);
}

TEST(steps_come_in_order_and_are_resumed_where_one_left_off) {
    char id[64], header[120];
    dash_run("book", 5);
    dash_hold("book");
    struct kiln_dashboard *d = dash_dashboard();
    dash_look(d);
    int fd = listen_to(d, "");
    char *events = dash_read(d, fd, "\"resumed\":false}\n\n");
    CHECK_CONTAINS(events, "Content-Type: text/event-stream");
    free(events);
    dash_steps("book", 6, 40);
    dash_look(d);
    events = dash_read(d, fd, "{\"step\":40,");
    check_steps(events, 6, 40, id);
    free(events);
    close(fd);
    dash_steps("book", 41, 60);
    dash_look(d);
    snprintf(header, sizeof header, "Last-Event-ID: %s\r\n", id);
    fd = listen_to(d, header);
    events = dash_read(d, fd, "{\"step\":60,");
    CHECK_CONTAINS(events, "\"resumed\":true}");
    check_steps(events, 41, 60, id);
    free(events);
    close(fd);
    /* Ids of another dashboard, of none, of the future. */
    const char *bad[] = {"0123456789abcdef-3", "x", "", "-1", d->boot};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(header, sizeof header, "Last-Event-ID: %s%s\r\n", bad[i],
                 bad[i] == d->boot ? "-99999999" : "");
        fd = listen_to(d, header);
        events = dash_read(d, fd, "\"resumed\":");
        CHECK_CONTAINS(events, "\"resumed\":false}");
        free(events);
        close(fd);
    }
    kiln_dashboard_close(d);
}

/* What a death took back is told, and so is a run whose end comes. */
TEST(steps_that_are_taken_again_and_the_end_are_told) {
    char id[64];
    dash_run("book", 20);
    struct kiln_dashboard *d = dash_dashboard();
    dash_look(d);
    json_decref(json_of(d, "/api/run?name=book"));
    const int fd = listen_to(d, "");
    char *events = dash_read(d, fd, "\"resumed\"");
    free(events);
    CHECK(truncate(test_path("runs/book/metrics.jsonl"), 100) == 0);
    dash_steps("book", 1, 3);
    dash_look(d);
    events = dash_read(d, fd, "event: again");
    CHECK_CONTAINS(events, "event: again");
    free(events);
    dash_hold("book");
    dash_look(d);
    events = dash_read(d, fd, "running");
    CHECK_CONTAINS(events, "\"status\":\"running\"");
    free(events);
    dash_steps("book", 4, 4);
    dash_look(d);
    events = dash_read(d, fd, "{\"step\":4,");
    check_steps(events, 4, 4, id);
    free(events);
    close(fd);
    kiln_dashboard_close(d);
}

TEST_WITHIN(who_does_not_read_neither_grows_nor_holds_up_others, 120) {
    enum { SLOW = 50, ROUNDS = 60, STEPS = 200 };
    int slow[SLOW];
    char id[64];
    dash_run("book", 1);
    dash_hold("book");
    struct kiln_dashboard *d = dash_dashboard();
    dash_look(d);
    for (int i = 0; i < SLOW; i++) {
        slow[i] = listen_to(d, "");
    }
    const int fast = listen_to(d, "");
    free(dash_read(d, fast, "\"resumed\""));
    CHECK_EQ(d->n_listeners, SLOW + 1);
    size_t before = 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        char want[40];
        const uint64_t from = 2 + round * STEPS, to = from + STEPS - 1;
        dash_steps("book", from, to);
        dash_look(d);
        snprintf(want, sizeof want, "{\"step\":%" PRIu64 ",", to);
        char *events = dash_read(d, fast, want); /* who reads gets all of it */
        check_steps(events, from, to, id);
        free(events);
        if (round == ROUNDS / 2) { /* the ring is full, and so are all buffers */
            before = kiln_memory_resident();
        }
    }
    CHECK(d->newest > 2 * KILN_DASH_EVENTS);
    /* The run itself is 320 bytes a step. */
    const size_t after = kiln_memory_resident();
    CHECK(after < before + ROUNDS / 2 * STEPS * 700 + (1 << 20));
    /* One of them wakes up: it is told that it missed something, and goes on from now. */
    char *events = dash_read(d, slow[0], "event: reset");
    CHECK_CONTAINS(events, "event: reset");
    free(events);
    dash_steps("book", 2 + ROUNDS * STEPS, 2 + ROUNDS * STEPS);
    dash_look(d);
    events = dash_read(d, slow[0], "event: step");
    CHECK_CONTAINS(events, "event: step");
    free(events);
    for (int i = 0; i < SLOW; i++) {
        close(slow[i]);
    }
    close(fast);
    kiln_dashboard_close(d);
}

TEST(listeners_are_counted) {
    int sockets[KILN_DASH_LISTENERS];
    struct kiln_dashboard *d = dash_dashboard();
    for (int i = 0; i < KILN_DASH_LISTENERS; i++) {
        sockets[i] = listen_to(d, "");
        free(dash_read(d, sockets[i], "\"resumed\""));
    }
    CHECK_EQ(d->n_listeners, KILN_DASH_LISTENERS);
    const int more = listen_to(d, "Connection: close\r\n");
    char *answer = dash_read(d, more, NULL);
    CHECK_EQ(dash_status(answer), 503);
    free(answer);
    close(more);
    answer = dash_get(d, "/api/runs", ""); /* others are answered all the same */
    CHECK_EQ(dash_status(answer), 200);
    free(answer);
    for (int i = 0; i < KILN_DASH_LISTENERS; i++) {
        close(sockets[i]);
    }
    kiln_dash_tell(d, "runs", "{}");
    for (int i = 0; i < 200 && d->n_listeners > 0; i++) {
        struct kiln_err err;
        kiln_dash_tell(d, "runs", "{}");
        kiln_dash_wake(d);
        CHECK_OK(kiln_dashboard_serve(d, 0.005, &err), &err);
    }
    CHECK_EQ(d->n_listeners, 0);
    kiln_dashboard_close(d);
}

/* ---- /metrics ---------------------------------------------------------------------------------
 */

TEST(metrics_are_those_of_the_runs) {
    dash_run("a\\b\"c\nd", 70);
    dash_hold("a\\b\"c\nd");
    struct kiln_dashboard *d = dash_dashboard();
    dash_look(d);
    char *answer = dash_get(d, "/metrics", "");
    CHECK_CONTAINS(answer, "Content-Type: text/plain; version=0.0.4; charset=utf-8");
    static const char *const want[] = {
        "\nkiln_runs 1\n",
        "# TYPE kiln_run_loss gauge\n",
        "# HELP kiln_run_tokens_total tokens",
        "kiln_run_up{run=\"a\\\\b\\\"c\\nd\"} 1\n",
        "kiln_run_step{run=\"a\\\\b\\\"c\\nd\"} 70\n",
        "kiln_run_planned_steps{run=\"a\\\\b\\\"c\\nd\"} 1000\n",
        "kiln_run_loss{run=\"a\\\\b\\\"c\\nd\"} 4.92",
        "kiln_run_val_loss{run=\"a\\\\b\\\"c\\nd\"} 4.5\n",
        "kiln_run_learning_rate{run=\"a\\\\b\\\"c\\nd\"} 0.0002999",
        "kiln_run_gradient_norm{run=\"a\\\\b\\\"c\\nd\"} 1.5\n",
        "kiln_run_tokens_total{run=\"a\\\\b\\\"c\\nd\"} 7000\n",
        "kiln_run_skipped_steps_total{run=\"a\\\\b\\\"c\\nd\"} 10\n",
        "kiln_run_restarts_total{run=\"a\\\\b\\\"c\\nd\"} 7\n",
        "kiln_run_compile_seconds_total{run=\"a\\\\b\\\"c\\nd\"} 0.14",
        "kiln_run_stall_seconds_total{run=\"a\\\\b\\\"c\\nd\"} 0.07"};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        CHECK_CONTAINS(answer, want[i]);
    }
    free(answer);
    kiln_dashboard_close(d);
}

/* ---- counters ---------------------------------------------------------------------------------
 */

static double metric_of(struct kiln_dashboard *d, const char *line) {
    char *answer = dash_get(d, "/metrics", "");
    const char *at = strstr(answer, line);
    CHECK(at != NULL);
    const double value = strtod(at + strlen(line), NULL);
    free(answer);
    return value;
}

/* Steps that are taken back were taken: no counter of /metrics goes down; gauges do. */
TEST(counters_do_not_go_down_with_a_rollback) {
    static const char tokens[] = "\nkiln_run_tokens_total{run=\"book\"} ";
    static const char seconds[] = "\nkiln_run_seconds_total{run=\"book\"} ";
    static const char step[] = "\nkiln_run_step{run=\"book\"} ";
    char path[4400];
    dash_run("book", 40);
    struct kiln_dashboard *d = dash_dashboard();
    dash_look(d);
    CHECK(metric_of(d, tokens) == 4000);
    const double before = metric_of(d, seconds);
    snprintf(path, sizeof path, "%s/book/metrics.jsonl", test_path("runs"));
    CHECK(unlink(path) == 0);
    dash_steps("book", 1, 10);
    dash_look(d);
    CHECK(metric_of(d, tokens) == 4000 && metric_of(d, step) == 10);
    CHECK(metric_of(d, seconds) >= before);
    dash_steps("book", 11, 25);
    dash_look(d);
    CHECK(metric_of(d, tokens) == 5500 && metric_of(d, step) == 25);
    CHECK(metric_of(d, seconds) > before);
    kiln_dashboard_close(d);
}

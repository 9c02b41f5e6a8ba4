/* SPDX-License-Identifier: MIT
 *
 * test_dashboard_guard.c: who the dashboard does not answer, over a real socket.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/random.h"
#include "kiln_test.h"
#include "report/dashboard_lab.h"

static bool asked(void) { return kiln_path_exists(test_path("runs/book/control.json")); }

/* Send it as it is. */
static int status_of(struct kiln_dashboard *d, const char *request) {
    const int fd = dash_send(d, request, strlen(request));
    char *answer = dash_read(d, fd, NULL);
    const int status = dash_status(answer);
    close(fd);
    free(answer);
    return status;
}

TEST(hosts_and_origins_are_ours_or_not) {
    static const struct {
        const char *host;
        bool ours;
    } hosts[] = {{"127.0.0.1:7860", true},
                 {"localhost:7860", true},
                 {"LocalHost:7860", true},
                 {"127.0.0.1:7861", false},
                 {"127.0.0.1", false},
                 {"localhost", false},
                 {"", false},
                 {"evil.example:7860", false},
                 {"127.0.0.1:7860.evil", false},
                 {"localhost:7860@evil", false},
                 {"127.0.0.1:78600", false},
                 {"127.0.0.1:07860", false},
                 {"[::1]:7860", false},
                 {"127.1:7860", false},
                 {"0.0.0.0:7860", false},
                 {"127.0.0.1:7860 ", false}};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        char origin[80];
        snprintf(origin, sizeof origin, "http://%s", hosts[i].host);
        CHECK_EQ(kiln_dash_host_is_ours(hosts[i].host, strlen(hosts[i].host), 7860), hosts[i].ours);
        CHECK_EQ(kiln_dash_origin_is_ours(origin, strlen(origin), 7860), hosts[i].ours);
    }
    CHECK(kiln_dash_host_is_ours("localhost", 9, 80));
    static const char *const origins[] = {
        "null",    "",        "https://127.0.0.1:7860", "127.0.0.1:7860",
        "file://", "http://", "http://127.0.0.1:7860/"};
    for (size_t i = 0; i < sizeof origins / sizeof origins[0]; i++) {
        CHECK(!kiln_dash_origin_is_ours(origins[i], strlen(origins[i]), 7860));
    }
}

TEST(a_token_is_that_one_and_no_other) {
    static const char token[] = "0123456789abcdef0123456789abcdef";
    char other[] = "0123456789abcdef0123456789abcdef";
    CHECK(kiln_dash_token_is(token, other, 32));
    for (size_t i = 0; i < 32; i++) {
        other[i] ^= 1;
        CHECK(!kiln_dash_token_is(token, other, 32));
        other[i] ^= 1;
    }
    CHECK(!kiln_dash_token_is(token, token, 31));
    CHECK(!kiln_dash_token_is(token, "", 0));
}

TEST(every_dashboard_has_a_token_of_its_own_in_its_address) {
    struct kiln_dashboard *a = dash_dashboard(), *b = dash_dashboard();
    char want[100];
    CHECK_EQ(strlen(a->token), 32);
    CHECK(strcmp(a->token, b->token) != 0);
    snprintf(want, sizeof want, "http://127.0.0.1:%d/#token=%s", kiln_dashboard_port(a), a->token);
    CHECK_STRING(kiln_dashboard_address(a), want);
    char *answer = dash_get(a, "/", "");
    CHECK_EQ(dash_status(answer), 200);
    CHECK(strstr(answer, a->token) == NULL); /* who only asks is not told */
    free(answer);
    kiln_dashboard_close(a);
    kiln_dashboard_close(b);
}

TEST(a_port_that_is_taken_is_said) {
    struct kiln_dashboard *d = dash_dashboard(), *second;
    struct kiln_err err;
    char folder[4200];
    snprintf(folder, sizeof folder, "%s", test_path("runs"));
    const char *where[] = {folder};
    struct kiln_dashboard_options options = {.runs = where, .n_runs = 1, .port = d->port};
    CHECK_FAILS(kiln_dashboard_open(&options, &second, &err), KILN_EBUSY, &err);
    CHECK_CONTAINS(err.message, "in use");
    CHECK(second == NULL);
    CHECK_FAILS(kiln_dashboard_try(d->port, &err), KILN_EBUSY, &err);
    options.port = 65536;
    CHECK_FAILS(kiln_dashboard_open(&options, &second, &err), KILN_EUSAGE, &err);
    const char *absent[] = {test_path("absent")};
    options = (struct kiln_dashboard_options){.runs = absent, .n_runs = 1};
    CHECK_FAILS(kiln_dashboard_open(&options, &second, &err), KILN_EINPUT, &err);
    options.may_be_absent = true;
    CHECK_OK(kiln_dashboard_open(&options, &second, &err), &err);
    kiln_dashboard_close(second);
    kiln_dashboard_close(d);
}

/* DNS rebinding, pages of elsewhere, several headers. */
TEST(foreign_hosts_and_origins_are_refused_everywhere) {
    static const char *const paths[] = {"/",        "/style.css", "/api/runs", "/api/run?name=book",
                                        "/metrics", "/events",    "/nothing",  "/api/stop"};
    static const char *const heads[] = {
        "Host: evil.example\r\n",
        "Host: evil.example:%d\r\n",
        "Host: 127.0.0.1\r\n",
        "Host: 127.0.0.1:%d\r\nHost: evil.example\r\n",
        "Host: 127.0.0.1:%d\r\nOrigin: http://evil.example\r\n",
        "Host: 127.0.0.1:%d\r\nOrigin: null\r\n",
        "Host: 127.0.0.1:%d\r\nOrigin: http://127.0.0.1:1\r\n",
        "Host: 127.0.0.1:%d\r\nOrigin: http://localhost\r\nOrigin: http://evil.example\r\n",
    };
    dash_run("book", 3);
    struct kiln_dashboard *d = dash_dashboard();
    for (size_t p = 0; p < sizeof paths / sizeof paths[0]; p++) {
        for (size_t h = 0; h < sizeof heads / sizeof heads[0]; h++) {
            char request[600], head[300];
            const char *mark = strstr(heads[h], "%d");
            snprintf(head, sizeof head, "%.*s", (int)(mark ? mark - heads[h] : 299), heads[h]);
            if (mark != NULL) {
                const size_t n = strlen(head);
                snprintf(head + n, sizeof head - n, "%d%s", d->port, mark + 2);
            }
            snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n%sConnection: close\r\n\r\n",
                     paths[p], head);
            CHECK_EQ(status_of(d, request), 403);
        }
        char bare[200];
        snprintf(bare, sizeof bare, "GET %s HTTP/1.0\r\n\r\n", paths[p]);
        CHECK_EQ(status_of(d, bare), 403);
    }
    kiln_dashboard_close(d);
}

TEST(a_run_is_changed_only_by_who_has_the_token) {
    char wrong[40];
    dash_run("book", 3);
    dash_hold("book");
    struct kiln_dashboard *d = dash_dashboard();
    dash_look(d);
    snprintf(wrong, sizeof wrong, "%s", d->token);
    wrong[31] ^= 1;
    static char much[KILN_DASH_BODY + 2];
    memset(much, ' ', sizeof much - 1);
    const char *body = "{\"run\": \"book\"}";
    const struct {
        struct dash_post post;
        int status;
    } bad[] = {
        {{.token = "", .body = body}, 403},
        {{.token = wrong, .body = body}, 403},
        {{.token = "x", .body = body}, 403},
        {{.origin = "", .body = body}, 403},
        {{.origin = "http://evil.example", .body = body}, 403},
        {{.origin = "null", .body = body}, 403},
        {{.host = "evil.example", .body = body}, 403},
        {{.type = "", .body = body}, 415},
        {{.type = "text/plain", .body = body}, 415},
        {{.type = "application/x-www-form-urlencoded", .body = body}, 415},
        {{.type = "application/jsonp", .body = body}, 415},
        {{.body = much}, 413},
        {{.body = ""}, 400},
        {{.body = "{}"}, 400},
        {{.body = "{\"run\": 5}"}, 400},
        {{.body = "{\"run\": \"book\", \"lr\": 1}"}, 400},
        {{.body = "{\"run\": \"book\", \"run\": \"book\"}"}, 400},
        {{.body = "[\"book\"]"}, 400},
        {{.body = "{\"run\": \"../runs/book\"}"}, 404},
        {{.body = "{\"run\": \"book\\u0000\"}"}, 400},
        {{.body = "{\"run\": \"nobody\"}"}, 404},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *answer = dash_post(d, "/api/stop", &bad[i].post);
        CHECK_EQ(dash_status(answer), bad[i].status);
        CHECK_CONTAINS(dash_body(answer), "{\"error\":");
        free(answer);
        CHECK(!asked());
    }
    static const char *const rates[] = {"{\"run\": \"book\"}", "{\"run\": \"book\", \"lr\": \"1\"}",
                                        "{\"run\": \"book\", \"lr\": -1}",
                                        "{\"run\": \"book\", \"lr\": 1e9}",
                                        "{\"run\": \"book\", \"lr\": 1, \"stop\": true}"};
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        char *answer = dash_post(d, "/api/rate", &(struct dash_post){.body = rates[i]});
        CHECK_EQ(dash_status(answer), 400);
        free(answer);
        CHECK(!asked());
    }
    char *answer = dash_post(d, "/api/stop", &(struct dash_post){.body = body});
    CHECK_EQ(dash_status(answer), 202);
    CHECK(asked());
    free(answer);
    kiln_dashboard_close(d);
}

TEST(methods_are_those_of_their_routes) {
    static const struct {
        const char *line;
        int status;
    } all[] = {{"GET /api/stop", 405},
               {"GET /api/rate", 405},
               {"PUT /api/stop", 405},
               {"DELETE /api/runs", 405},
               {"POST /api/runs", 405},
               {"POST /", 405},
               {"OPTIONS /api/stop", 405},
               {"TRACE /", 405},
               {"HEAD /", 200},
               {"GET /", 200},
               {"GET /dashboard.js", 200},
               {"GET /dashboard.css", 200},
               {"GET /style.css", 200},
               {"GET /charts.js", 200},
               {"GET /bars.js", 200},
               {"GET /report.js", 200},
               {"GET /api/runs", 200},
               {"GET /metrics", 200},
               {"GET /report.html", 404},
               {"GET /nothing", 404},
               {"BREW /nothing", 404}};
    struct kiln_dashboard *d = dash_dashboard();
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char request[200];
        snprintf(request, sizeof request,
                 "%s HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\nContent-Length: "
                 "0\r\n\r\n",
                 all[i].line, d->port);
        CHECK_EQ(status_of(d, request), all[i].status);
    }
    kiln_dashboard_close(d);
}

TEST(no_path_reaches_a_file) {
    static const char *const paths[] = {"/../../../../etc/passwd",
                                        "/%2e%2e/%2e%2e/etc/passwd",
                                        "/..%2f..%2fetc%2fpasswd",
                                        "//etc/passwd",
                                        "/style.css/../../run.json",
                                        "/runs/book/run.json",
                                        "/./",
                                        "/style.css/",

                                        "/api/run/../runs",
                                        "/page/dashboard.html",
                                        "/dashboard.html"};
    static const char *const names[] = {"../book",
                                        "./book",
                                        "book/",
                                        "/",
                                        "..",
                                        "",
                                        "BOOK",
                                        "book%00",
                                        "book%20",
                                        "%00",
                                        "boo",
                                        "bookk",
                                        "book/run.json",
                                        "%2e%2e%2fruns%2fbook"};
    dash_run("book", 3);
    struct kiln_dashboard *d = dash_dashboard();
    char path[200];
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char *answer = dash_get(d, paths[i], "");
        CHECK_EQ(dash_status(answer), 404);
        free(answer);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "/api/run?name=%s", names[i]);
        char *answer = dash_get(d, path, "");
        CHECK_EQ(dash_status(answer), 404);
        free(answer);
    }
    static const char *const numbers[] = {
        "from=-1",     "from=a",  "to=1e3",   "points=0",
        "points=4001", "points=", "parts=16", "from=99999999999999999999",
        "points=%2d1"};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        snprintf(path, sizeof path, "/api/run?name=book&%s", numbers[i]);
        char *answer = dash_get(d, path, "");
        CHECK_EQ(dash_status(answer), 400);
        free(answer);
    }
    char *answer = dash_get(d, "/api/run?name=%62ook&points=10&from=1&to=2&parts=1", "");
    CHECK_EQ(dash_status(answer), 200);
    CHECK_CONTAINS(answer, "\"name\":\"book\"");
    free(answer);
    kiln_dashboard_close(d);
}

TEST(every_answer_says_what_browsers_may_do_with_it) {
    static const char *const paths[] = {"/",        "/dashboard.js", "/api/runs",
                                        "/metrics", "/nothing",      "/api/stop"};
    static const char *const want[] = {
        "\r\nX-Content-Type-Options: nosniff\r\n", "\r\nCache-Control: no-store\r\n",
        "\r\nReferrer-Policy: no-referrer\r\n",
        "default-src 'none'; script-src 'self'; style-src 'self';", "frame-ancestors 'none'"};
    struct kiln_dashboard *d = dash_dashboard();
    for (size_t p = 0; p < sizeof paths / sizeof paths[0]; p++) {
        char *answer = dash_get(d, paths[p], "");
        for (size_t w = 0; w < sizeof want / sizeof want[0]; w++) {
            CHECK_CONTAINS(answer, want[w]);
        }
        CHECK(strstr(answer, "unsafe-") == NULL && strstr(answer, "Allow-Origin") == NULL);
        free(answer);
    }
    kiln_dashboard_close(d);
}

/* ---- hostile ----------------------------------------------------------------------------------
 */

/* Requests with bytes changed, cut, doubled: it stays up, and no run is asked for anything. */
TEST_WITHIN(broken_requests_leave_it_standing, 120) {
    dash_run("book", 3);
    dash_hold("book");
    struct kiln_dashboard *d = dash_dashboard();
    struct kiln_err err;
    dash_look(d);
    char good[600];
    const int n = snprintf(good, sizeof good,
                           "POST /api/stop?a=%%41&b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: "
                           "http://127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                           "X-Kiln-Token: 00000000000000000000000000000000\r\n"
                           "Last-Event-ID: x-1\r\nContent-Length: 15\r\n\r\n{\"run\": \"book\"}",
                           d->port, d->port);
    for (uint64_t i = 0; i < 1500; i++) {
        char request[1200];
        size_t size = (size_t)n;
        memcpy(request, good, size);
        const uint64_t changes = 1 + kiln_random_below(2, KILN_STREAM_TEST, 4 * i, 6);
        for (uint64_t c = 0; c < changes; c++) {
            const uint64_t at = kiln_random_below(3, KILN_STREAM_TEST, 8 * i + c, size);
            request[at] = (char)kiln_random_below(4, KILN_STREAM_TEST, 8 * i + c, 256);
        }
        if (i % 3 == 0) {
            size = kiln_random_below(5, KILN_STREAM_TEST, i, size) + 1;
        } else if (i % 7 == 0) {
            memcpy(request + size, good, (size_t)n);
            size += (size_t)n;
        }
        const int fd = dash_send(d, request, size);
        CHECK_OK(kiln_dashboard_serve(d, 0.0005, &err), &err);
        close(fd);
    }
    char *answer = dash_get(d, "/api/runs", "");
    CHECK_EQ(dash_status(answer), 200);
    CHECK(!asked());
    free(answer);
    kiln_dashboard_close(d);
}

TEST(headers_and_bodies_without_end_are_cut_off) {
    struct kiln_dashboard *d = dash_dashboard();
    static char big[200000];
    const int n = snprintf(big, sizeof big, "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX: ", d->port);
    memset(big + n, 'a', sizeof big - (size_t)n - 1);
    const int status = status_of(d, big);
    CHECK(status == 431 || status == 413 || status == 400 || status == 0);
    char request[700];
    snprintf(request, sizeof request,
             "POST /api/stop HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: http://127.0.0.1:%d\r\n"
             "Content-Type: application/json\r\nX-Kiln-Token: %s\r\nTransfer-Encoding: chunked\r\n"
             "\r\n5\r\n{\"run\r\n",
             d->port, d->port, d->token);
    CHECK_EQ(status_of(d, request), 411);
    char *answer = dash_get(d, "/", "");
    CHECK_EQ(dash_status(answer), 200);
    free(answer);
    kiln_dashboard_close(d);
}

/* Who sends a byte now and then and never asks: more of them than there are places. */
TEST_WITHIN(trickling_clients_do_not_lock_others_out, 60) {
    enum { MANY = 140 };
    static const char some[] = "GET /api/runs HTTP/1.1\r\nX: ";
    int held[MANY];
    char byte;
    size_t closed = 0;
    struct kiln_err err;
    dash_run("book", 3);
    struct kiln_dashboard *d = dash_dashboard();
    dash_look(d);
    for (size_t i = 0; i < MANY; i++) {
        held[i] = dash_send(d, some, sizeof some - 1);
        CHECK_OK(kiln_dashboard_serve(d, 0.001, &err), &err);
    }
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < MANY; i++) {
            (void)!send(held[i], "a", 1, MSG_NOSIGNAL);
        }
        char *answer = dash_get(d, "/api/runs", "");
        CHECK_EQ(dash_status(answer), 200);
        free(answer);
    }
    /* The total counts, not the time without a byte. */
    for (double end = kiln_now_s() + KILN_DASH_ASK_S + 1.5; kiln_now_s() < end;) {
        for (size_t i = 0; i < MANY; i++) {
            (void)!send(held[i], "a", 1, MSG_NOSIGNAL);
        }
        CHECK_OK(kiln_dashboard_serve(d, 0.1, &err), &err);
    }
    for (size_t i = 0; i < MANY; i++) {
        const ssize_t got = recv(held[i], &byte, 1, 0);
        closed += got == 0 || (got < 0 && errno != EAGAIN);
        close(held[i]);
    }
    CHECK_EQ(closed, MANY);
    kiln_dashboard_close(d);
}

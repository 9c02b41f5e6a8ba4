/* SPDX-License-Identifier: MIT */
#include "report/dashboard_lab.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "kiln_test.h"
#include "train/trainer.h"

static const char *run_path(const char *name, const char *file) {
    static char path[8][4400];
    static int at;
    at = (at + 1) % 8;
    snprintf(path[at], sizeof path[at], "%s/%s%s%s", test_path("runs"), name, file[0] ? "/" : "",
             file);
    return path[at];
}

struct kiln_dashboard *dash_dashboard(void) {
    struct kiln_dashboard *d;
    struct kiln_err err;
    char folder[4200];
    snprintf(folder, sizeof folder, "%s", test_path("runs"));
    CHECK_OK(kiln_make_dirs(folder, &err), &err);
    const char *where[] = {folder};
    const struct kiln_dashboard_options options = {.runs = where, .n_runs = 1};
    CHECK_OK(kiln_dashboard_open(&options, &d, &err), &err);
    return d;
}

void dash_steps(const char *name, uint64_t from, uint64_t to) {
    FILE *file = fopen(run_path(name, "metrics.jsonl"), "a");
    CHECK(file != NULL);
    for (uint64_t step = from; step <= to; step++) {
        char line[KILN_METRICS_LINE];
        const struct kiln_step_record record = {.step = step,
                                                .loss = 5.0 - 1e-3 * (double)(step % 2000),
                                                .grad_norm = 1.5,
                                                .lr = 3e-4,
                                                .tokens = step * 100,
                                                .ms = 10,
                                                .tokens_per_s = 1e4,
                                                .compile_ms = 2,
                                                .stall_ms = 1,
                                                .restarts = step / 10,
                                                .skipped = step % 7 == 0,
                                                .val_loss = step % 5 == 0 ? 4.5 : (double)NAN,
                                                .val_generation = -1};
        kiln_metrics_line(&record, line);
        fprintf(file, "%s\n", line);
    }
    CHECK(fclose(file) == 0);
}

const char *dash_run(const char *name, uint64_t steps) {
    struct kiln_err err;
    static const char settings[] = "{\"model\": \"stories15m\", \"steps\": 1000, \"lr\": 0.0003}\n";
    CHECK_OK(kiln_make_dirs(run_path(name, ""), &err), &err);
    CHECK_OK(kiln_write_file(run_path(name, "run.json"), settings, sizeof settings - 1, &err),
             &err);
    dash_steps(name, 1, steps);
    return run_path(name, "");
}

void dash_hold(const char *name) {
    const int fd = open(run_path(name, "state.kiln"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
}

int dash_send(const struct kiln_dashboard *d, const char *bytes, size_t n) {
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)d->port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK(connect(fd, (const struct sockaddr *)&address, sizeof address) == 0);
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    /* What does not fit was refused before all was sent: the answer is there. */
    (void)!send(fd, bytes, n, MSG_NOSIGNAL);
    return fd;
}

char *dash_read(struct kiln_dashboard *d, int socket, const char *want) {
    size_t n = 0, room = 1 << 16;
    char *out = malloc(room);
    struct kiln_err err;
    CHECK(out != NULL);
    for (double last = kiln_now_s(); kiln_now_s() - last < 1.0;) {
        CHECK_OK(kiln_dashboard_serve(d, 0.002, &err), &err);
        const ssize_t got = recv(socket, out + n, room - n - 1, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
            break;
        }
        if (got > 0) {
            n += (size_t)got;
            last = kiln_now_s();
        }
        out[n] = '\0';
        if (want != NULL && strstr(out, want) != NULL) {
            break;
        }
        if (room - n < 1 << 15) {
            out = realloc(out, room *= 2);
            CHECK(out != NULL);
        }
    }
    out[n] = '\0';
    return out;
}

char *dash_get(struct kiln_dashboard *d, const char *path, const char *headers) {
    char request[4000];
    const int n = snprintf(request, sizeof request,
                           "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n%s\r\n",
                           path, d->port, headers);
    const int fd = dash_send(d, request, (size_t)n);
    char *answer = dash_read(d, fd, NULL);
    close(fd);
    return answer;
}

static void add(char *to, size_t size, const char *name, const char *given, const char *good) {
    const size_t n = strlen(to);
    if (given == NULL || given[0] != '\0') {
        snprintf(to + n, size - n, "%s: %s\r\n", name, given != NULL ? given : good);
    }
}

char *dash_post(struct kiln_dashboard *d, const char *path, const struct dash_post *post) {
    char request[9000], host[64], origin[64];
    snprintf(host, sizeof host, "127.0.0.1:%d", d->port);
    snprintf(origin, sizeof origin, "http://127.0.0.1:%d", d->port);
    snprintf(request, sizeof request, "POST %s HTTP/1.1\r\nConnection: close\r\n", path);
    add(request, sizeof request, "Host", post->host, host);
    add(request, sizeof request, "Origin", post->origin, origin);
    add(request, sizeof request, "Content-Type", post->type, "application/json");
    add(request, sizeof request, "X-Kiln-Token", post->token, d->token);
    const size_t n = strlen(request);
    snprintf(request + n, sizeof request - n, "Content-Length: %zu\r\n\r\n%s", strlen(post->body),
             post->body);
    const int fd = dash_send(d, request, strlen(request));
    char *answer = dash_read(d, fd, NULL);
    close(fd);
    return answer;
}

int dash_status(const char *answer) {
    return strncmp(answer, "HTTP/1.", 7) == 0 ? (int)strtol(answer + 9, NULL, 10) : 0;
}

const char *dash_body(const char *answer) {
    const char *end = strstr(answer, "\r\n\r\n");
    return end != NULL ? end + 4 : "";
}

void dash_look(struct kiln_dashboard *d) {
    kiln_dash_scan(d);
    kiln_dash_look(d);
    kiln_dash_wake(d);
}

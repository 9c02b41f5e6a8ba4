/* SPDX-License-Identifier: MIT
 *
 * dashboard.c: kiln dashboard: runs as live pages; alone, or beside training.
 */
#include "kiln/dashboard.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "commands.h"
#include "dashboard.h"
#include "files.h"
#include "output.h"
#include "runs.h"
#include "self.h"

/* ---- the command ------------------------------------------------------------------------------
 */

struct flags {
    uint64_t port, parent;
    bool json;
};

static const struct option options[] = {
    {"port", 0, OPTION_COUNT, "N", NULL,
     "port of 127.0.0.1; 0: any that is free (7860, or the next free one)", GROUP_OUTPUT, 0, 65535,
     offsetof(struct flags, port)},
    {"parent", 0, OPTION_COUNT, "PID", NULL, NULL, GROUP_OUTPUT, 1, INT32_MAX,
     offsetof(struct flags, parent)}, /* that trains: it has started us, and prints the address */
    OPTION_JSON(struct flags),
    OPTION_END,
};

static volatile sig_atomic_t stop;

static void on_signal(int number) {
    (void)number;
    stop = 1;
}

static void listen_for_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

/* Training comes first. */
enum { NICE = 10 };

static enum kiln_status print_address(const struct flags *flags,
                                      const struct kiln_dashboard *dashboard,
                                      struct kiln_err *err) {
    const char *address = kiln_dashboard_address(dashboard);
    if (flags->json) {
        return json_print(
            json_pack("{s:s, s:i}", "address", address, "port", kiln_dashboard_port(dashboard)),
            err);
    }
    if (flags->parent != KILN_UNSET) {
        puts(address);
    } else {
        printf("dashboard: %s\n(open it in a browser of this machine; Ctrl-C ends it)\n", address);
    }
    return output_finish(err);
}

/* What it would say nothing of: a folder where there is no run, and one that is not there. */
static void tell_of_none(const struct kiln_dashboard_options *what) {
    for (size_t i = 0; i < what->n_runs; i++) {
        char list[8];
        const char *folder = what->runs[i];
        if (need_run(folder, NULL) != KILN_OK && runs_in(folder, list, sizeof list) == 0) {
            fprintf(stderr, "dashboard: %s %s yet; what kiln train makes there appears\n",
                    is_folder(folder) ? "no run is in" : "there is no folder", folder);
        }
    }
}

static bool is_wanted(const struct flags *flags) {
    return !stop && (flags->parent == KILN_UNSET || (uint64_t)getppid() == flags->parent);
}

static enum kiln_status serve(const struct flags *flags, struct kiln_dashboard *dashboard,
                              struct kiln_err *err) {
    KILN_TRY(print_address(flags, dashboard, err));
    if (flags->parent != KILN_UNSET) {
        fclose(stdout); /* a pipe that is read once */
    }
    while (is_wanted(flags)) {
        KILN_TRY(kiln_dashboard_serve(dashboard, 0.2, err));
    }
    kiln_dashboard_finish(dashboard);
    return KILN_OK;
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    static const char *const usual[] = {"runs"};
    const struct flags *flags = call->flags;
    struct kiln_dashboard *dashboard;
    const bool given = call->n_arguments > 0;
    const struct kiln_dashboard_options what = {
        .runs = given ? call->arguments : usual,
        .n_runs = given ? call->n_arguments : 1,
        .may_be_absent = !given,
        .port = flags->port == KILN_UNSET ? -1 : (int)flags->port};
    listen_for_signals();
    if (flags->parent != KILN_UNSET) {
        (void)setpriority(PRIO_PROCESS, 0, NICE);
    }
    for (size_t i = 0; given && i < what.n_runs; i++) {
        KILN_TRY(need_path(what.runs[i], err));
    }
    KILN_TRY(kiln_dashboard_open(&what, &dashboard, err));
    if (flags->parent == KILN_UNSET) {
        tell_of_none(&what);
    }
    const enum kiln_status status = serve(flags, dashboard, err);
    kiln_dashboard_close(dashboard);
    return status;
}

const struct command command_dashboard = {
    .name = "dashboard",
    .synopsis = "[RUN or folder of runs]... [options]",
    .summary = "runs as live pages in a browser of this machine",
    .details =
        "Without a folder: runs/. It listens at 127.0.0.1 only and needs no network. The address\n"
        "holds a token: who has it may stop a run or change its learning rate. Prometheus finds\n"
        "figures at /metrics.\n\n"
        "  kiln dashboard\n"
        "  kiln dashboard runs/stories15m-book --port 8000\n"
        "  kiln train --data book.txt --dashboard\n",
    .most_arguments = MAX_ARGUMENTS,
    .flags_size = sizeof(struct flags),
    .options = options,
    .run = run,
};

/* ---- beside training --------------------------------------------------------------------------
 */

enum { START_MS = 10000 };

enum kiln_status dashboard_may(uint64_t port, struct kiln_err *err) {
    return kiln_dashboard_try(port == KILN_UNSET ? -1 : (int)port, err);
}

/* Its one line; false: it ends without, and has said why. */
static bool read_line(int fd, char *out, size_t size) {
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    size_t n = 0;
    while (n + 1 < size) {
        int ready;
        do {
            ready = poll(&polled, 1, START_MS);
        } while (ready < 0 && errno == EINTR);
        const ssize_t got = ready > 0 ? read(fd, out + n, size - 1 - n) : 0;
        if (got <= 0) {
            return false;
        }
        n += (size_t)got;
        out[n] = '\0';
        char *end = strchr(out, '\n');
        if (end != NULL) {
            *end = '\0';
            return true;
        }
    }
    return false;
}

enum kiln_status dashboard_beside(const char *folder, uint64_t port,
                                  char address[DASHBOARD_ADDRESS], struct kiln_err *err) {
    char words[6][24], path[4096];
    char *arguments[] = {words[0], words[1], path, words[2], words[3], NULL, NULL, NULL};
    pid_t child;
    int fd;
    snprintf(words[0], sizeof words[0], "kiln");
    snprintf(words[1], sizeof words[1], "dashboard");
    snprintf(path, sizeof path, "%s%s", folder[0] == '-' ? "./" : "", folder);
    snprintf(words[2], sizeof words[2], "--parent");
    snprintf(words[3], sizeof words[3], "%ld", (long)getpid());
    if (port != KILN_UNSET) {
        snprintf(words[4], sizeof words[4], "--port");
        snprintf(words[5], sizeof words[5], "%" PRIu64, port);
        arguments[5] = words[4];
        arguments[6] = words[5];
    }
    KILN_TRY(self_beside(arguments, &child, &fd, err));
    const bool started = read_line(fd, address, DASHBOARD_ADDRESS);
    close(fd);
    if (!started) {
        (void)kill(child, SIGTERM);
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    KILN_REQUIRE(started, err, KILN_EIO, "the dashboard could not be started");
    return KILN_OK;
}

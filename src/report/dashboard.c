/* SPDX-License-Identifier: MIT
 *
 * dashboard.c: opens, serves, closes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/mem.h"
#include "report/dashboard_int.h"

/* Files are looked at so often, in seconds; folders so often. */
#define LOOK 0.25
#define SCAN 1.0
enum { POOL_BYTES = 16 << 10, SEND_BYTES = 64 << 10, BACKLOG = 64 };

/* ---- the socket -------------------------------------------------------------------------------
 */

/* Bound to 127.0.0.1 and listening; -1 with errno. */
static int listen_at(int port) {
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (fd < 0) {
        return -1;
    }
    /* Connections of a dashboard that has just ended do not keep the port. */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0 &&
        bind(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
        listen(fd, BACKLOG) == 0) {
        return fd;
    }
    const int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static enum kiln_status listen_somewhere(int port, int *fd, struct kiln_err *err) {
    const bool given = port >= 0;
    const int first = given ? port : KILN_DASHBOARD_PORT;
    const int last = given ? port : KILN_DASHBOARD_PORT + KILN_DASHBOARD_PORTS - 1;
    KILN_REQUIRE(port >= -1 && port <= 65535, err, KILN_EUSAGE, "port %d: use 0 to 65535", port);
    for (int at = first; at <= last; at++) {
        *fd = listen_at(at);
        if (*fd >= 0 || errno != EADDRINUSE) {
            break;
        }
    }
    KILN_REQUIRE(*fd >= 0 || errno != EADDRINUSE || given, err, KILN_EBUSY,
                 "ports %d to %d of 127.0.0.1 are in use, maybe by other dashboards: end one, or "
                 "choose another port (--port 0 takes any that is free)",
                 first, last);
    KILN_REQUIRE(*fd >= 0 || errno != EADDRINUSE, err, KILN_EBUSY,
                 "port %d of 127.0.0.1 is in use, maybe by another dashboard: end that, or choose "
                 "another port (--port 0 takes any that is free)",
                 port);
    KILN_REQUIRE(*fd >= 0, err, errno == EACCES ? KILN_EUSAGE : KILN_EIO,
                 "port %d of 127.0.0.1: %s; choose another port", first, strerror(errno));
    return KILN_OK;
}

enum kiln_status kiln_dashboard_try(int port, struct kiln_err *err) {
    int fd = -1;
    KILN_TRY(listen_somewhere(port, &fd, err));
    close(fd);
    return KILN_OK;
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static enum kiln_status make_secrets(struct kiln_dashboard *d, struct kiln_err *err) {
    unsigned char random[KILN_DASH_TOKEN / 2 + 8];
    KILN_REQUIRE(getrandom(random, sizeof random, 0) == (ssize_t)sizeof random, err, KILN_EIO,
                 "the system gives no random numbers: %s", strerror(errno));
    for (size_t i = 0; i < KILN_DASH_TOKEN / 2; i++) {
        snprintf(d->token + 2 * i, 3, "%02x", random[i]);
    }
    for (size_t i = 0; i < 8; i++) {
        snprintf(d->boot + 2 * i, 3, "%02x", random[KILN_DASH_TOKEN / 2 + i]);
    }
    return KILN_OK;
}

/* A listener who does not read holds so much of the system's memory, and no more. */
static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode what) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    const int bytes = SEND_BYTES;
    if (what == MHD_CONNECTION_NOTIFY_STARTED && info != NULL) {
        (void)setsockopt(info->connect_fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
        *socket_context = kiln_dash_place_take(context, info->connect_fd);
    } else if (what == MHD_CONNECTION_NOTIFY_CLOSED && *socket_context != NULL) {
        *(struct kiln_dash_place *)*socket_context = (struct kiln_dash_place){.used = false};
    }
}

static enum kiln_status start(struct kiln_dashboard *d, struct kiln_err *err) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    KILN_REQUIRE(getsockname(d->socket, (struct sockaddr *)&address, &size) == 0, err, KILN_EIO,
                 "dashboard: %s", strerror(errno));
    d->port = ntohs(address.sin_port);
    snprintf(d->address, sizeof d->address, "http://127.0.0.1:%d/#token=%s", d->port, d->token);
    d->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, kiln_dash_answer, d,
        MHD_OPTION_LISTEN_SOCKET, d->socket, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)KILN_DASH_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)KILN_DASH_IDLE_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES, MHD_OPTION_NOTIFY_COMPLETED,
        kiln_dash_completed, d, MHD_OPTION_NOTIFY_CONNECTION, on_connection, d,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    KILN_REQUIRE(d->daemon, err, KILN_EIO, "dashboard: the server cannot be started at port %d",
                 d->port);
    d->socket = -1; /* the server closes it */
    return KILN_OK;
}

static enum kiln_status open_parts(struct kiln_dashboard *d,
                                   const struct kiln_dashboard_options *options,
                                   struct kiln_err *err) {
    KILN_TRY(make_secrets(d, err));
    KILN_TRY(kiln_dash_runs_open(d, options, err));
    KILN_TRY(listen_somewhere(options->port, &d->socket, err));
    KILN_TRY(start(d, err));
    kiln_dash_scan(d);
    return KILN_OK;
}

enum kiln_status kiln_dashboard_open(const struct kiln_dashboard_options *options,
                                     struct kiln_dashboard **out, struct kiln_err *err) {
    struct kiln_dashboard *d = *out = kiln_alloc(1, sizeof *d);
    KILN_REQUIRE(d, err, KILN_ENOMEM, "no memory for a dashboard");
    d->socket = -1;
    d->newest = 1;
    const enum kiln_status status = open_parts(d, options, err);
    if (status != KILN_OK) {
        kiln_dashboard_close(d);
        *out = NULL;
    }
    return status;
}

void kiln_dashboard_close(struct kiln_dashboard *d) {
    if (!d) {
        return;
    }
    d->closing = true;
    if (d->daemon) {
        kiln_dash_wake(d); /* none may be suspended */
        MHD_stop_daemon(d->daemon);
    }
    if (d->socket >= 0) {
        close(d->socket);
    }
    kiln_dash_events_close(d);
    kiln_dash_runs_close(d);
    kiln_free(d->scratch.at);
    kiln_free(d);
}

const char *kiln_dashboard_address(const struct kiln_dashboard *d) { return d->address; }
int kiln_dashboard_port(const struct kiln_dashboard *d) { return d->port; }

/* ---- serving ----------------------------------------------------------------------------------
 */

static void look(struct kiln_dashboard *d, double now) {
    if (now >= d->next_scan) {
        kiln_dash_scan(d);
        d->next_scan = kiln_now_s() + SCAN;
    }
    if (now >= d->next_look) {
        kiln_dash_look(d);
        kiln_dash_places_check(d);
        kiln_dash_wake(d);
        d->next_look = kiln_now_s() + LOOK;
    }
}

enum kiln_status kiln_dashboard_serve(struct kiln_dashboard *d, double seconds,
                                      struct kiln_err *err) {
    const double end = kiln_now_s() + seconds;
    for (double now = kiln_now_s();; now = kiln_now_s()) {
        look(d, now);
        now = kiln_now_s();
        const double until = end < d->next_look ? end : d->next_look;
        const int wait = until > now ? (int)((until - now) * 1e3) + 1 : 0;
        errno = 0;
        const bool served = MHD_run_wait(d->daemon, wait) == MHD_YES;
        if (!served && errno == EINTR) {
            return KILN_OK;
        }
        KILN_REQUIRE(served, err, KILN_EIO, "dashboard: the server fails: %s", strerror(errno));
        if (kiln_now_s() >= end) {
            return KILN_OK;
        }
    }
}

void kiln_dashboard_finish(struct kiln_dashboard *d) {
    struct kiln_err ignored;
    d->next_look = 0;
    for (double end = kiln_now_s() + 1; d->n_listeners > 0 && kiln_now_s() < end;) {
        if (kiln_dashboard_serve(d, 0.1, &ignored) != KILN_OK) {
            return;
        }
        d->closing = true; /* who has read all is let go */
    }
}

/* SPDX-License-Identifier: MIT
 *
 * dashboard_events.c: events, and who listens to them.
 *
 * Events lie once, in a ring; a listener is a place in it and the one event that it is being sent.
 * Who falls behind by more than the ring holds is told "reset": it asks for the runs again, thinned
 * out, and goes on from now. So a slow one costs what a fast one costs. The id of an event is
 * BOOT-NUMBER; who comes back with one (Last-Event-ID) goes on behind it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "report/dashboard_int.h"

#define HEARTBEAT 10.0 /* seconds: less than a connection may be silent */
enum { BLOCK = 8 << 10 };

struct kiln_listener {
    struct kiln_dashboard *dashboard;
    struct MHD_Connection *connection;
    struct kiln_listener *next;
    uint64_t at; /* number of the event to be sent next */
    bool resumed, greeted, suspended;
    double sent; /* when something was, monotonic seconds */
    size_t n, used;
    char text[KILN_DASH_EVENT + 128]; /* of one event, sent up to `used` */
};

static uint64_t oldest(const struct kiln_dashboard *d) {
    return d->newest > KILN_DASH_EVENTS ? d->newest - KILN_DASH_EVENTS : 1;
}

void kiln_dash_tell(struct kiln_dashboard *d, const char *event, const char *data) {
    char text[KILN_DASH_EVENT];
    const int n = snprintf(text, sizeof text, "event: %s\ndata: %s\n\n", event, data);
    if (n < 0 || (size_t)n >= sizeof text) {
        return; /* none of ours is so long */
    }
    char **slot = &d->events[d->newest % KILN_DASH_EVENTS];
    kiln_free(*slot);
    *slot = kiln_strdup(text); /* NULL: whoever comes by is reset */
    d->newest++;
}

void kiln_dash_events_close(struct kiln_dashboard *d) {
    for (size_t i = 0; i < KILN_DASH_EVENTS; i++) {
        kiln_free(d->events[i]);
    }
}

/* ---- a listener -------------------------------------------------------------------------------
 */

static void put(struct kiln_listener *l, const char *body) {
    const int n = snprintf(l->text, sizeof l->text, "id: %s-%" PRIu64 "\n%s", l->dashboard->boot,
                           l->at, body);
    l->n = n > 0 && (size_t)n < sizeof l->text ? (size_t)n : 0;
    l->used = 0;
}

/* The next thing to send lies in text. False: there is none. */
static bool next(struct kiln_listener *l) {
    const struct kiln_dashboard *d = l->dashboard;
    if (!l->greeted) {
        char hello[96];
        snprintf(hello, sizeof hello, "retry: 1000\nevent: hello\ndata: {\"resumed\":%s}\n\n",
                 l->resumed ? "true" : "false");
        l->greeted = true;
        l->at--; /* its id is that of what was seen before */
        put(l, hello);
        l->at++;
        return true;
    }
    if (l->at < d->newest) {
        const char *event = l->at >= oldest(d) ? d->events[l->at % KILN_DASH_EVENTS] : NULL;
        if (event == NULL) {
            l->at = d->newest - 1;
            event = "event: reset\ndata: {}\n\n";
        }
        put(l, event);
        l->at++;
        return true;
    }
    if (kiln_now_s() - l->sent < HEARTBEAT) {
        return false;
    }
    l->n = (size_t)snprintf(l->text, sizeof l->text, ":\n\n");
    l->used = 0;
    return true;
}

static ssize_t read_events(void *context, uint64_t position, char *out, size_t room) {
    struct kiln_listener *l = context;
    size_t n = 0;
    (void)position;
    while (n < room && (l->used < l->n || next(l))) {
        const size_t left = l->n - l->used, part = left < room - n ? left : room - n;
        memcpy(out + n, l->text + l->used, part);
        l->used += part;
        n += part;
    }
    if (n > 0) {
        l->sent = kiln_now_s();
        return (ssize_t)n;
    }
    if (l->dashboard->closing) {
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    l->suspended = true;
    MHD_suspend_connection(l->connection);
    return 0;
}

static void forget(void *context) {
    struct kiln_listener *l = context;
    struct kiln_listener **at = &l->dashboard->listeners;
    while (*at != NULL && *at != l) {
        at = &(*at)->next;
    }
    if (*at == l) {
        *at = l->next;
        l->dashboard->n_listeners--;
    }
    kiln_free(l);
}

void kiln_dash_wake(struct kiln_dashboard *d) {
    const double now = kiln_now_s();
    for (struct kiln_listener *l = d->listeners; l != NULL; l = l->next) {
        if (l->suspended && (l->at < d->newest || now - l->sent >= HEARTBEAT || d->closing)) {
            l->suspended = false;
            MHD_resume_connection(l->connection);
        }
    }
}

/* Number of the event behind the one that the id names; 0: none of ours. */
static uint64_t behind(const struct kiln_dashboard *d, const char *id) {
    const size_t n = strlen(d->boot);
    char *end;
    if (id == NULL || strncmp(id, d->boot, n) != 0 || id[n] != '-') {
        return 0;
    }
    const uint64_t seen = strtoull(id + n + 1, &end, 10);
    return *end == '\0' && seen < d->newest ? seen + 1 : 0;
}

enum MHD_Result kiln_dash_listen(struct kiln_dashboard *d, struct MHD_Connection *connection) {
    if (d->n_listeners >= KILN_DASH_LISTENERS) {
        return kiln_dash_fail(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                              "too many pages listen: close one");
    }
    const char *id = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Last-Event-ID");
    struct kiln_listener *l = kiln_alloc(1, sizeof *l);
    struct MHD_Response *response =
        l ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_events, l, forget)
          : NULL;
    if (response == NULL) {
        kiln_free(l);
        return MHD_NO;
    }
    const uint64_t at = behind(d, id);
    *l = (struct kiln_listener){.dashboard = d,
                                .connection = connection,
                                .next = d->listeners,
                                .resumed = at >= oldest(d),
                                .at = at >= oldest(d) ? at : d->newest,
                                .sent = kiln_now_s()};
    d->listeners = l;
    d->n_listeners++;
    kiln_dash_secure(response);
    (void)MHD_add_response_header(response, "Content-Type", "text/event-stream; charset=utf-8");
    (void)MHD_add_response_header(response, "X-Accel-Buffering", "no");
    const enum MHD_Result queued = MHD_queue_response(connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return queued;
}

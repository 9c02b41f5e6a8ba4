/* SPDX-License-Identifier: MIT
 *
 * dashboard_http.c: requests and answers.
 *
 * A request is called for three times or more: its headers, which are judged at once; pieces of its
 * body, kept up to KILN_DASH_BODY bytes; its end, when it is done.
 */
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "report/dashboard_int.h"
#include "report/page.h"

enum does { PAGE, RUNS, ONE, EVENTS, METRICS, STOP, RATE };

static const struct route {
    const char *path;
    enum does does;
    const char *file; /* of a page */
} routes[] = {
    {"/", PAGE, "dashboard.html"},
    {"/style.css", PAGE, "style.css"},
    {"/dashboard.css", PAGE, "dashboard.css"},
    {"/charts.js", PAGE, "charts.js"},
    {"/bars.js", PAGE, "bars.js"},
    {"/report.js", PAGE, "report.js"},
    {"/dashboard.js", PAGE, "dashboard.js"},
    {"/api/runs", RUNS, NULL},
    {"/api/run", ONE, NULL},
    {"/events", EVENTS, NULL},
    {"/metrics", METRICS, NULL},
    {"/api/stop", STOP, NULL},
    {"/api/rate", RATE, NULL},
};

struct request {
    const struct route *route;
    size_t n;
    char body[KILN_DASH_BODY];
};

/* ---- answers ----------------------------------------------------------------------------------
 */

void kiln_dash_secure(struct MHD_Response *response) {
    static const char *const headers[][2] = {
        {"Content-Security-Policy",
         "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
         "'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
        {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},
        {"Cache-Control", "no-store"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Cross-Origin-Opener-Policy", "same-origin"},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        (void)MHD_add_response_header(response, headers[i][0], headers[i][1]);
    }
}

static enum MHD_Result queue(struct MHD_Connection *connection, unsigned status, const char *type,
                             struct MHD_Response *response) {
    if (response == NULL) {
        return MHD_NO;
    }
    kiln_dash_secure(response);
    (void)MHD_add_response_header(response, "Content-Type", type);
    const enum MHD_Result queued = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return queued;
}

enum MHD_Result kiln_dash_reply(struct MHD_Connection *connection, unsigned status,
                                const char *type, const char *bytes, size_t n) {
    return queue(
        connection, status, type,
        MHD_create_response_from_buffer(n, (void *)(uintptr_t)bytes, MHD_RESPMEM_MUST_COPY));
}

enum MHD_Result kiln_dash_fail(struct MHD_Connection *connection, unsigned status,
                               const char *why) {
    struct kiln_text text = {.length = 0};
    kiln_text_raw(&text, "{\"error\":");
    kiln_text_string(&text, why);
    kiln_text_raw(&text, "}\n");
    const enum MHD_Result queued =
        text.failed ? MHD_NO
                    : kiln_dash_reply(connection, status, "application/json; charset=utf-8",
                                      text.at, text.length);
    kiln_free(text.at);
    return queued;
}

/* ---- requests ---------------------------------------------------------------------------------
 */

static enum MHD_Result page(struct MHD_Connection *connection, const char *name) {
    const struct kiln_page_file *file = kiln_page_find(name);
    const char *type = kiln_path_ends(name, ".js")    ? "text/javascript; charset=utf-8"
                       : kiln_path_ends(name, ".css") ? "text/css; charset=utf-8"
                                                      : "text/html; charset=utf-8";
    if (file == NULL) {
        return kiln_dash_fail(connection, MHD_HTTP_NOT_FOUND, "there is no such page");
    }
    /* The bytes lie in the program for ever. */
    return queue(connection, MHD_HTTP_OK, type,
                 MHD_create_response_from_buffer(file->size, (void *)(uintptr_t)file->bytes,
                                                 MHD_RESPMEM_PERSISTENT));
}

static bool is_post(enum does does) { return does == STOP || does == RATE; }

static enum MHD_Result wrong_method(struct MHD_Connection *connection, bool post) {
    static const char why[] = "{\"error\":\"this is asked for in another way\"}\n";
    struct MHD_Response *response = MHD_create_response_from_buffer(
        sizeof why - 1, (void *)(uintptr_t)why, MHD_RESPMEM_PERSISTENT);
    if (response != NULL) {
        (void)MHD_add_response_header(response, "Allow", post ? "POST" : "GET, HEAD");
    }
    return queue(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "application/json; charset=utf-8",
                 response);
}

static struct kiln_dash_place *place_of(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info != NULL ? info->socket_context : NULL;
}

static enum MHD_Result do_it(struct kiln_dashboard *d, struct MHD_Connection *connection,
                             const struct request *request) {
    switch (request->route->does) {
        case PAGE:
            return page(connection, request->route->file);
        case RUNS:
            return kiln_dash_runs(d, connection);
        case ONE:
            return kiln_dash_one(d, connection);
        case EVENTS:
            return kiln_dash_listen(d, connection);
        case METRICS:
            return kiln_dash_metrics(d, connection);
        case STOP:
        case RATE:
            return kiln_dash_control(d, connection, request->route->does == STOP, request->body,
                                     request->n);
    }
    return MHD_NO;
}

static const struct route *find(const char *path) {
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (strcmp(routes[i].path, path) == 0) {
            return &routes[i];
        }
    }
    return NULL;
}

/* The headers are there. A refusal is an answer at once, whatever body may come. */
static enum MHD_Result begin(struct kiln_dashboard *d, struct MHD_Connection *connection,
                             const char *path, const char *method, void **context) {
    const struct route *route = find(path);
    const bool post = route != NULL && is_post(route->does);
    const bool reads = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    const char *why = NULL;
    /* Who may not ask is not told what there is. */
    unsigned refused = kiln_dash_refuse(d, connection, false, &why);
    if (refused == 0 && route == NULL) {
        refused = MHD_HTTP_NOT_FOUND;
        why = "there is no such page";
    }
    if (refused == 0 && (post ? strcmp(method, "POST") != 0 : !reads)) {
        return wrong_method(connection, post);
    }
    refused = refused == 0 && post ? kiln_dash_refuse(d, connection, true, &why) : refused;
    if (refused != 0) {
        return kiln_dash_fail(connection, refused, why);
    }
    struct request *request = *context = kiln_alloc(1, sizeof *request);
    if (request == NULL) {
        return MHD_NO;
    }
    request->route = route;
    return MHD_YES;
}

enum MHD_Result kiln_dash_answer(void *context, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *upload,
                                 size_t *upload_size, void **request) {
    struct kiln_dashboard *d = context;
    struct request *r = *request;
    (void)version;
    if (r == NULL) {
        return begin(d, connection, url, method, request);
    }
    if (*upload_size > 0) {
        if (*upload_size > sizeof r->body - r->n || !is_post(r->route->does)) {
            return MHD_NO; /* more than it said */
        }
        memcpy(r->body + r->n, upload, *upload_size);
        r->n += *upload_size;
        *upload_size = 0;
        return MHD_YES;
    }
    kiln_dash_place_does(place_of(connection),
                         r->route->does == EVENTS ? KILN_DASH_LISTENS : KILN_DASH_ANSWERED);
    return do_it(d, connection, r);
}

void kiln_dash_completed(void *context, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode why) {
    (void)context;
    (void)why;
    kiln_dash_place_does(place_of(connection), KILN_DASH_RESTS);
    kiln_free(*request);
    *request = NULL;
}

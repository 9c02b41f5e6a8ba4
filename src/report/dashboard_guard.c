/* SPDX-License-Identifier: MIT
 *
 * dashboard_guard.c: who is answered (kiln/dashboard.h).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "report/dashboard_int.h"

bool kiln_dash_host_is_ours(const char *host, size_t n, int port) {
    static const char *const names[] = {"127.0.0.1", "localhost"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char want[32];
        const size_t length = (size_t)snprintf(want, sizeof want, "%s:%d", names[i], port);
        if (n == length && strncasecmp(host, want, n) == 0) {
            return true;
        }
        /* Browsers leave out the port of http. */
        if (port == 80 && n == strlen(names[i]) && strncasecmp(host, names[i], n) == 0) {
            return true;
        }
    }
    return false;
}

bool kiln_dash_origin_is_ours(const char *origin, size_t n, int port) {
    static const char scheme[] = "http://";
    const size_t skip = sizeof scheme - 1;
    return n > skip && strncasecmp(origin, scheme, skip) == 0 &&
           kiln_dash_host_is_ours(origin + skip, n - skip, port);
}

bool kiln_dash_token_is(const char *token, const char *given, size_t n) {
    unsigned differs = 0;
    if (n != KILN_DASH_TOKEN) {
        return false; /* how long it is, is no secret */
    }
    for (size_t i = 0; i < n; i++) {
        differs |= (unsigned char)(token[i] ^ given[i]);
    }
    return differs == 0;
}

/* A header, and how often it is there: two of them are nobody's. */
struct header {
    const char *name, *value;
    size_t n, times;
};

static enum MHD_Result on_header(void *context, enum MHD_ValueKind kind, const char *key,
                                 size_t key_size, const char *value, size_t size) {
    struct header *h = context;
    (void)kind;
    if (key_size == strlen(h->name) && strncasecmp(key, h->name, key_size) == 0) {
        h->value = value != NULL ? value : "";
        h->n = value != NULL ? size : 0;
        h->times++;
    }
    return MHD_YES;
}

static struct header find(struct MHD_Connection *connection, const char *name) {
    struct header h = {.name = name};
    (void)MHD_get_connection_values_n(connection, MHD_HEADER_KIND, on_header, &h);
    return h;
}

/* "application/json", with or without a charset behind it. */
static bool is_json(const struct header *type) {
    static const char json[] = "application/json";
    const size_t n = sizeof json - 1;
    return type->times == 1 && type->n >= n && strncasecmp(type->value, json, n) == 0 &&
           (type->n == n || type->value[n] == ';' || type->value[n] == ' ');
}

static unsigned refuse_post(const struct kiln_dashboard *d, struct MHD_Connection *connection,
                            const char **why) {
    const struct header token = find(connection, "X-Kiln-Token");
    const struct header type = find(connection, "Content-Type");
    const struct header length = find(connection, "Content-Length");
    if (find(connection, "Origin").times != 1) {
        *why = "only the dashboard's own page may ask for this";
        return MHD_HTTP_FORBIDDEN;
    }
    if (token.times != 1 || !kiln_dash_token_is(d->token, token.value, token.n)) {
        *why = "the token is missing or wrong: open the address that kiln printed";
        return MHD_HTTP_FORBIDDEN;
    }
    if (!is_json(&type)) {
        *why = "Content-Type is not application/json";
        return MHD_HTTP_UNSUPPORTED_MEDIA_TYPE;
    }
    if (length.times != 1) {
        *why = "Content-Length is missing";
        return MHD_HTTP_LENGTH_REQUIRED;
    }
    if (length.n > 5 || strtoul(length.value, NULL, 10) > KILN_DASH_BODY) {
        *why = "the body is too long";
        return MHD_HTTP_CONTENT_TOO_LARGE;
    }
    return 0;
}

unsigned kiln_dash_refuse(const struct kiln_dashboard *d, struct MHD_Connection *connection,
                          bool post, const char **why) {
    const struct header host = find(connection, "Host");
    const struct header origin = find(connection, "Origin");
    if (host.times != 1 || !kiln_dash_host_is_ours(host.value, host.n, d->port)) {
        *why = "this is not the host that was asked for: use http://127.0.0.1 and the port";
        return MHD_HTTP_FORBIDDEN;
    }
    if (origin.times > 1 ||
        (origin.times == 1 && !kiln_dash_origin_is_ours(origin.value, origin.n, d->port))) {
        *why = "pages of other origins are not answered";
        return MHD_HTTP_FORBIDDEN;
    }
    return post ? refuse_post(d, connection, why) : 0;
}

/* SPDX-License-Identifier: MIT
 *
 * status.c: names and meanings of the statuses, and the one place that fills a kiln_err.
 */
#include "kiln/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *kiln_status_text(enum kiln_status status) {
    switch (status) {
#define KILN_STATUS_CASE(name, value, text) \
    case KILN_##name:                       \
        return text;
        KILN_STATUS_MAP(KILN_STATUS_CASE)
#undef KILN_STATUS_CASE
    }
    return "a status that kiln does not know";
}

const char *kiln_status_name(enum kiln_status status) {
    switch (status) {
#define KILN_STATUS_CASE(name, value, text) \
    case KILN_##name:                       \
        return "KILN_" #name;
        KILN_STATUS_MAP(KILN_STATUS_CASE)
#undef KILN_STATUS_CASE
    }
    return "unknown status";
}

enum kiln_status kiln_fail(struct kiln_err *err, enum kiln_status code, const char *file, int line,
                           const char *fmt, ...) {
    if (err != NULL) {
        err->code = code;
        err->file = file;
        err->line = line;
        /* The old message may be an argument (one failure wrapped in another), so write aside. */
        char message[sizeof(err->message)];
        va_list args;
        va_start(args, fmt);
        const int written = vsnprintf(message, sizeof(message), fmt, args);
        va_end(args);
        snprintf(err->message, sizeof(err->message), "%s", written < 0 ? fmt : message);
    }
    return code;
}

void kiln_err_rename(struct kiln_err *err, const char *from, const char *to) {
    char message[sizeof err->message] = "";
    size_t n = 0;
    if (err == NULL || from[0] == '\0') {
        return;
    }
    const char *at = err->message, *found;
    while (n < sizeof message && (found = strstr(at, from)) != NULL) {
        n += (size_t)snprintf(message + n, sizeof message - n, "%.*s%s", (int)(found - at), at, to);
        at = found + strlen(from);
    }
    if (n < sizeof message) {
        snprintf(message + n, sizeof message - n, "%s", at);
    }
    memcpy(err->message, message, sizeof message);
}

/* SPDX-License-Identifier: MIT
 *
 * doctor_read.c: findings, and the files of /proc and /sys that they are made from.
 */
#include <ctype.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "report/doctor_int.h"

/* ---- findings ------------------------------------------------------------------------------- */

void kiln_doctor_found(struct doctor *d, enum kiln_doctor_level level, const char *name,
                       const char *fmt, ...) {
    if (d->out->n == KILN_FINDINGS) {
        return;
    }
    struct kiln_finding *finding = &d->out->finding[d->out->n++];
    va_list args;
    *finding = (struct kiln_finding){.name = name, .level = level};
    va_start(args, fmt);
    vsnprintf(finding->found, sizeof finding->found, fmt, args);
    va_end(args);
}

void kiln_doctor_cost(struct doctor *d, const char *fmt, ...) {
    struct kiln_finding *finding = &d->out->finding[d->out->n - 1];
    va_list args;
    va_start(args, fmt);
    vsnprintf(finding->cost, sizeof finding->cost, fmt, args);
    va_end(args);
}

void kiln_doctor_advice(struct doctor *d, const char *fmt, ...) {
    struct kiln_finding *finding = &d->out->finding[d->out->n - 1];
    va_list args;
    va_start(args, fmt);
    vsnprintf(finding->advice, sizeof finding->advice, fmt, args);
    va_end(args);
}

/* ---- files ---------------------------------------------------------------------------------- */

static bool read_at(const struct doctor *d, char *out, size_t size, const char *fmt, va_list args) {
    char path[4096];
    const char *root = d->options->root != NULL ? d->options->root : "";
    const int used = snprintf(path, sizeof path, "%s", root);
    vsnprintf(path + used, sizeof path - (size_t)used, fmt, args);
    out[0] = '\0';
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    size_t n = 0;
    ssize_t got = 1;
    while (n + 1 < size && (got = read(fd, out + n, size - 1 - n)) > 0) {
        n += (size_t)got;
    }
    close(fd);
    while (n > 0 && out[n - 1] == '\n') {
        n--;
    }
    out[n] = '\0';
    return got >= 0;
}

bool kiln_doctor_read(const struct doctor *d, char *out, size_t size, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const bool there = read_at(d, out, size, fmt, args);
    va_end(args);
    return there;
}

static bool number_of(const char *text, double *out) {
    char *end;
    const double value = strtod(text, &end);
    if (end == text || text[0] == 'i' || text[0] == 'n') { /* "infinity" is no number here */
        return false;
    }
    *out = value;
    return true;
}

bool kiln_doctor_number(const struct doctor *d, double *out, const char *fmt, ...) {
    char text[128];
    va_list args;
    va_start(args, fmt);
    const bool there = read_at(d, text, sizeof text, fmt, args);
    va_end(args);
    return there && number_of(text, out);
}

/* Behind `key` at the start of a line; NULL where no line begins so. */
static const char *behind(const char *text, const char *key) {
    const size_t length = strlen(key);
    while (strncmp(text, key, length) != 0) {
        text = strchr(text, '\n');
        if (text == NULL) {
            return NULL;
        }
        text++;
    }
    return text + length;
}

bool kiln_doctor_value(const char *text, const char *key, double *out) {
    const char *at = behind(text, key);
    return at != NULL && number_of(at + strspn(at, " \t:="), out);
}

bool kiln_doctor_text(const char *text, const char *key, char *out, size_t size) {
    const char *at = behind(text, key);
    if (at == NULL) {
        return false;
    }
    at += strspn(at, " \t:");
    snprintf(out, size, "%.*s", (int)strcspn(at, "\n"), at);
    return true;
}

bool kiln_doctor_has(const char *text, const char *word) {
    const size_t length = strlen(word);
    for (const char *at = text; (at = strstr(at, word)) != NULL; at += length) {
        const bool begins = at == text || isspace((unsigned char)at[-1]);
        const bool ends = at[length] == '\0' || isspace((unsigned char)at[length]);
        if (begins && ends) {
            return true;
        }
    }
    return false;
}

size_t kiln_doctor_list(const char *list, bool *member, size_t n) {
    size_t count = 0;
    memset(member, 0, n * sizeof *member);
    while (isdigit((unsigned char)*list)) {
        char *end;
        const unsigned long first = strtoul(list, &end, 10);
        unsigned long last = first;
        if (*end == '-') {
            last = strtoul(end + 1, &end, 10);
        }
        for (unsigned long i = first; i <= last && i < n; i++) {
            count += !member[i];
            member[i] = true;
        }
        list = end + (*end == ',');
    }
    return count;
}

/* base + group, base + its parent, ... , base. */
static size_t climb(const char *base, const char *group, size_t n,
                    char dirs[DOCTOR_GROUPS][DOCTOR_GROUP_PATH]) {
    char path[DOCTOR_GROUP_PATH];
    snprintf(path, sizeof path, "%s%s", base, strcmp(group, "/") == 0 ? "" : group);
    while (n < DOCTOR_GROUPS) {
        snprintf(dirs[n++], DOCTOR_GROUP_PATH, "%s", path);
        char *slash = strrchr(path, '/');
        if (slash == NULL || (size_t)(slash - path) < strlen(base)) {
            break;
        }
        *slash = '\0';
    }
    return n;
}

size_t kiln_doctor_groups(const struct doctor *d, const char *controller,
                          char dirs[DOCTOR_GROUPS][DOCTOR_GROUP_PATH]) {
    char text[8192], base[DOCTOR_GROUP_PATH];
    size_t n = 0;
    if (!kiln_doctor_read(d, text, sizeof text, "/proc/self/cgroup")) {
        return 0;
    }
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) { /* number:controllers:group */
        strsep(&line, ":");
        char *names = strsep(&line, ":");
        if (names == NULL || line == NULL) {
            continue;
        }
        if (names[0] == '\0') {
            n = climb("/sys/fs/cgroup", line, n, dirs);
            continue;
        }
        snprintf(base, sizeof base, "/sys/fs/cgroup/%s", names);
        for (char *c = names; *c != '\0'; c++) {
            *c = *c == ',' ? ' ' : *c;
        }
        if (kiln_doctor_has(names, controller)) {
            n = climb(base, line, n, dirs);
        }
    }
    return n;
}

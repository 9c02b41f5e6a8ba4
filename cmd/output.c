/* SPDX-License-Identifier: MIT
 *
 * output.c: what commands share when they speak.
 */
#include "output.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool output_is_terminal(void) { return isatty(STDOUT_FILENO) == 1; }
bool messages_are_read(void) { return isatty(STDERR_FILENO) == 1; }

size_t terminal_columns(void) {
    struct winsize window = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0) {
        return window.ws_col;
    }
    return 80;
}

size_t terminal_rows(void) {
    struct winsize window = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_row > 0) {
        return window.ws_row;
    }
    return 24;
}

static bool is_live(FILE *stream) {
    const char *term = getenv("TERM");
    return isatty(fileno(stream)) == 1 && term != NULL && term[0] != '\0' &&
           strcmp(term, "dumb") != 0;
}

bool output_is_live(void) { return is_live(stdout); }

bool output_has_colours(FILE *stream) {
    const char *no = getenv("NO_COLOR");
    return is_live(stream) && (no == NULL || no[0] == '\0');
}

bool output_is_utf8(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"}; /* POSIX's order */
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *locale = getenv(names[i]);
        if (locale != NULL && locale[0] != '\0') {
            const char *set = strchr(locale, '.');
            return set != NULL &&
                   (strncasecmp(set, ".utf-8", 6) == 0 || strncasecmp(set, ".utf8", 5) == 0);
        }
    }
    return false;
}

json_t *json_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

/* Bytes of the UTF-8 character at `text`; 0 when there is none. jansson judges, so that what is
 * let through is what it takes. */
static size_t utf8_length(const char *text, size_t size) {
    for (size_t n = 1; n <= 4 && n <= size; n++) {
        json_t *one = json_stringn(text, n);
        json_decref(one);
        if (one != NULL) {
            return n;
        }
    }
    return 0;
}

json_t *json_bytes(const char *text, size_t size) {
    static const char replacement[] = "\xef\xbf\xbd";
    json_t *whole = json_stringn(text, size);
    if (whole != NULL) {
        return whole;
    }
    char *clean = malloc(3 * size + 1);
    size_t used = 0;
    for (size_t i = 0; clean != NULL && i < size;) {
        const size_t n = utf8_length(text + i, size - i);
        const size_t copied = n > 0 ? n : sizeof replacement - 1;
        memcpy(clean + used, n > 0 ? text + i : replacement, copied);
        used += copied;
        i += n > 0 ? n : 1;
    }
    whole = clean != NULL ? json_stringn(clean, used) : NULL;
    free(clean);
    return whole;
}

/* C0 and DEL, and C1 (U+0080 to U+009F), which some terminals take as escape sequences. */
static bool is_control(const char *c, size_t size) {
    const unsigned char first = (unsigned char)c[0];
    const bool c1 = size == 2 && first == 0xc2 && (unsigned char)c[1] < 0xa0;
    return c1 || first == 0x7f || (first < ' ' && first != '\n' && first != '\t');
}

void output_text(const char *text) {
    for (const char *c = text; *c != '\0';) {
        const size_t n = utf8_length(c, strlen(c));
        if (n == 0 || is_control(c, n)) {
            fputs("\xef\xbf\xbd", stdout);
        } else {
            fwrite(c, 1, n, stdout);
        }
        c += n > 0 ? n : 1;
    }
}

enum kiln_status json_print(json_t *object, struct kiln_err *err) {
    char *text = object != NULL ? json_dumps(object, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    KILN_REQUIRE(text != NULL, err, KILN_ENOMEM, "writing JSON: out of memory");
    puts(text);
    free(text);
    return output_finish(err);
}

static size_t own_rank;

void output_is_of_rank(size_t rank) { own_rank = rank; }

void output_error(enum kiln_status status, const struct kiln_err *err) {
    const char *text = err->message[0] != '\0' ? err->message : kiln_status_text(status);
    fflush(stdout);
    if (own_rank == 0) {
        fprintf(stderr, "kiln: %s\n", text);
    } else {
        fprintf(stderr, "kiln (rank %zu): %s\n", own_rank, text);
    }
}

enum kiln_status output_finish(struct kiln_err *err) {
    errno = 0;
    KILN_REQUIRE(fflush(stdout) == 0 && !ferror(stdout), err, KILN_EIO,
                 "writing to stdout: %s; what is printed is not complete",
                 errno != 0 ? strerror(errno) : "an earlier write failed");
    return KILN_OK;
}

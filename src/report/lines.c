/* SPDX-License-Identifier: MIT */
#include "report/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"

enum { CHUNK = 1 << 18 };

/* ---- one line --------------------------------------------------------------------------------
 */

static const char *behind_blanks(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r')) {
        at++;
    }
    return at;
}

/* Behind the quote that ends a string; NULL: none does. */
static const char *behind_string(const char *at, const char *end) {
    for (at++; at < end; at++) {
        if (*at == '\\') {
            at++;
        } else if (*at == '"') {
            return at + 1;
        }
    }
    return NULL;
}

/* Behind a value: where its comma or brace stands. */
static const char *behind_value(const char *at, const char *end) {
    size_t depth = 0;
    while (at != NULL && at < end) {
        if (*at == '"') {
            at = behind_string(at, end);
            continue;
        }
        if (depth == 0 && (*at == ',' || *at == '}')) {
            return at;
        }
        depth += *at == '{' || *at == '[';
        depth -= *at == '}' || *at == ']';
        at++;
    }
    return NULL;
}

bool kiln_pair_next(const char **at, const char *end, struct kiln_pair *out) {
    const char *c = behind_blanks(*at, end);
    if (c == end || (*c != '{' && *c != ',')) {
        return false;
    }
    c = behind_blanks(c + 1, end);
    if (c == end || *c != '"') {
        return false;
    }
    const char *quote = behind_string(c, end);
    const char *colon = quote != NULL ? behind_blanks(quote, end) : end;
    if (colon == end || *colon != ':') {
        return false;
    }
    const char *value = behind_blanks(colon + 1, end), *behind = behind_value(value, end);
    if (behind == NULL || behind == value) {
        return false;
    }
    *at = behind;
    while (behind[-1] == ' ' || behind[-1] == '\t') {
        behind--;
    }
    *out = (struct kiln_pair){.key = c + 1,
                              .key_size = (size_t)(quote - c) - 2,
                              .value = value,
                              .value_size = (size_t)(behind - value)};
    return true;
}

bool kiln_pair_is(const struct kiln_pair *pair, const char *key) {
    return strlen(key) == pair->key_size && memcmp(pair->key, key, pair->key_size) == 0;
}

static bool whole_number(const struct kiln_pair *pair, uint64_t *out) {
    *out = 0;
    for (size_t i = 0; i < pair->value_size; i++) {
        const char c = pair->value[i];
        if (c < '0' || c > '9' || *out > (UINT64_MAX - 9) / 10) {
            return false;
        }
        *out = 10 * *out + (uint64_t)(c - '0');
    }
    return pair->value_size > 0;
}

bool kiln_line_count(const char *line, size_t size, const char *key, uint64_t *out) {
    const char *at = line, *const end = line + size;
    struct kiln_pair pair;
    bool found = false;
    while (kiln_pair_next(&at, end, &pair)) {
        found = found || (kiln_pair_is(&pair, key) && whole_number(&pair, out));
    }
    at = behind_blanks(at, end);
    return found && at < end && *at == '}' && behind_blanks(at + 1, end) == end;
}

/* ---- the file --------------------------------------------------------------------------------
 */

static enum kiln_status grow_chunk(struct kiln_lines *lines, size_t room, struct kiln_err *err) {
    if (room > lines->longest) {
        char *grown = kiln_realloc(lines->chunk, lines->longest, room, 1);
        KILN_REQUIRE(grown, err, KILN_ENOMEM, "%s: no memory to read it", lines->path);
        lines->chunk = grown;
        lines->longest = room;
    }
    return KILN_OK;
}

enum kiln_status kiln_lines_open(struct kiln_lines *lines, const char *folder, const char *name,
                                 struct kiln_err *err) {
    *lines = (struct kiln_lines){.fd = -1};
    KILN_REQUIRE(strlen(folder) < 4096, err, KILN_EUSAGE, "run folder: the path is too long");
    snprintf(lines->path, sizeof lines->path, "%s/%s", folder, name);
    return grow_chunk(lines, CHUNK, err);
}

enum kiln_status kiln_lines_need(const struct kiln_lines *lines, struct kiln_err *err) {
    KILN_REQUIRE(kiln_path_exists(lines->path), err, KILN_EINPUT,
                 "%s is not there: name the folder of a run, as runs/NAME", lines->path);
    return KILN_OK;
}

void kiln_lines_close(struct kiln_lines *lines) {
    if (lines->chunk != NULL && lines->fd >= 0) { /* a zeroed one has no file */
        close(lines->fd);
    }
    kiln_free(lines->line);
    kiln_free(lines->chunk);
    *lines = (struct kiln_lines){.fd = -1};
}

/* Up to `size` bytes from `at` into the chunk. */
static enum kiln_status read_at(struct kiln_lines *lines, uint64_t at, size_t size, size_t *got,
                                struct kiln_err *err) {
    *got = 0;
    while (*got < size) {
        const ssize_t n = pread(lines->fd, lines->chunk + *got, size - *got, (off_t)(at + *got));
        KILN_REQUIRE(n >= 0 || errno == EINTR, err, KILN_EIO, "%s: %s", lines->path,
                     strerror(errno));
        if (n == 0) {
            return KILN_OK;
        }
        *got += n > 0 ? (size_t)n : 0;
    }
    return KILN_OK;
}

/* A line takes a step again: those from there on are dropped. */
static enum kiln_status add(struct kiln_lines *lines, const struct kiln_line *line, size_t *first,
                            struct kiln_err *err) {
    while (lines->n > 0 && lines->line[lines->n - 1].step >= line->step) {
        lines->n--;
    }
    if (lines->n == lines->room) {
        const size_t room = lines->room + lines->room / 2 + 256;
        struct kiln_line *grown = kiln_realloc(lines->line, lines->room, room, sizeof *lines->line);
        KILN_REQUIRE(grown, err, KILN_ENOMEM, "%s: no memory for %zu lines", lines->path, room);
        lines->line = grown;
        lines->room = room;
    }
    *first = lines->n < *first ? lines->n : *first;
    lines->line[lines->n++] = *line;
    return KILN_OK;
}

/* The whole lines of the chunk, which begins at lines->end. */
static enum kiln_status take_lines(struct kiln_lines *lines, size_t size, size_t *first,
                                   struct kiln_err *err) {
    const char *at = lines->chunk, *const end = lines->chunk + size;
    for (const char *newline; (newline = memchr(at, '\n', (size_t)(end - at))) != NULL;
         at = newline + 1) {
        const size_t length = (size_t)(newline - at);
        struct kiln_line line = {.at = lines->end, .size = (uint32_t)length};
        lines->end += length + 1;
        if (length < UINT32_MAX && kiln_line_count(at, length, "step", &line.step)) {
            line.crc = kiln_crc32c(0, at, length);
            KILN_TRY(add(lines, &line, first, err));
        }
    }
    return KILN_OK;
}

/* Is the last line that was read still the one that it was? A file that another one replaced is
 * opened anew. */
static enum kiln_status look_back(struct kiln_lines *lines, bool *same, struct kiln_err *err) {
    const struct kiln_line *last = lines->n > 0 ? &lines->line[lines->n - 1] : NULL;
    struct stat open_one, named;
    size_t got;
    *same = fstat(lines->fd, &open_one) == 0 && stat(lines->path, &named) == 0 &&
            open_one.st_ino == named.st_ino && open_one.st_dev == named.st_dev &&
            (uint64_t)named.st_size >= lines->end;
    if (*same && last != NULL) {
        KILN_TRY(grow_chunk(lines, last->size, err));
        KILN_TRY(read_at(lines, last->at, last->size, &got, err));
        *same = got == last->size && kiln_crc32c(0, lines->chunk, got) == last->crc;
    }
    return KILN_OK;
}

static enum kiln_status begin(struct kiln_lines *lines, size_t *first, struct kiln_err *err) {
    bool same = false;
    *first = lines->n;
    if (lines->fd >= 0) {
        KILN_TRY(look_back(lines, &same, err));
    }
    if (!same) {
        if (lines->fd >= 0) {
            close(lines->fd);
        }
        *first = lines->n = 0;
        lines->end = 0;
        lines->fd = open(lines->path, O_RDONLY | O_CLOEXEC);
        KILN_REQUIRE(lines->fd >= 0 || errno == ENOENT, err, KILN_EIO, "%s: %s", lines->path,
                     strerror(errno));
    }
    return KILN_OK;
}

enum kiln_status kiln_lines_more(struct kiln_lines *lines, size_t *first, struct kiln_err *err) {
    KILN_TRY(begin(lines, first, err));
    while (lines->fd >= 0) {
        size_t got;
        const uint64_t before = lines->end;
        KILN_TRY(read_at(lines, lines->end, lines->longest, &got, err));
        KILN_TRY(take_lines(lines, got, first, err));
        if (got < lines->longest) {
            break;
        }
        if (lines->end == before) { /* a line that is longer than the chunk */
            KILN_TRY(grow_chunk(lines, 2 * lines->longest, err));
        }
    }
    return KILN_OK;
}

enum kiln_status kiln_lines_text(struct kiln_lines *lines, size_t i, const char **text,
                                 struct kiln_err *err) {
    const struct kiln_line *line = &lines->line[i];
    size_t got;
    KILN_TRY(grow_chunk(lines, line->size + (size_t)1, err));
    KILN_TRY(read_at(lines, line->at, line->size, &got, err));
    KILN_REQUIRE(got == line->size && kiln_crc32c(0, lines->chunk, got) == line->crc, err, KILN_EIO,
                 "%s: the line of step %llu is another by now; try again", lines->path,
                 (unsigned long long)line->step);
    lines->chunk[got] = '\0';
    *text = lines->chunk;
    return KILN_OK;
}

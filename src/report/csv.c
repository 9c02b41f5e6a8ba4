/* SPDX-License-Identifier: MIT
 *
 * csv.c: metrics.jsonl as CSV.
 */
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/report.h"
#include "report/lines.h"

/* Keys in the order in which they came first. Every line has about the same, in the same order: the
 * next one is looked for behind the last. */
struct keys {
    char **key;
    size_t n, room, next;
};

static void free_keys(struct keys *keys) {
    for (size_t i = 0; i < keys->n; i++) {
        kiln_free(keys->key[i]);
    }
    kiln_free(keys->key);
}

/* Its column; keys->n: none yet. */
static size_t find(struct keys *keys, const struct kiln_pair *pair) {
    for (size_t i = 0; i < keys->n; i++) {
        const size_t at = (keys->next + i) % keys->n;
        if (kiln_pair_is(pair, keys->key[at])) {
            keys->next = at + 1;
            return at;
        }
    }
    return keys->n;
}

static enum kiln_status add_keys(struct keys *keys, const char *line, size_t size,
                                 struct kiln_err *err) {
    struct kiln_pair pair;
    for (const char *at = line; kiln_pair_next(&at, line + size, &pair);) {
        if (find(keys, &pair) < keys->n) {
            continue;
        }
        if (keys->n == keys->room) {
            const size_t room = 2 * keys->room + 64;
            char **grown = kiln_realloc(keys->key, keys->room, room, sizeof *grown);
            KILN_REQUIRE(grown, err, KILN_ENOMEM, "csv: no memory for %zu columns", room);
            keys->key = grown;
            keys->room = room;
        }
        char *key = kiln_alloc(pair.key_size + 1, 1);
        KILN_REQUIRE(key, err, KILN_ENOMEM, "csv: no memory for a column");
        memcpy(key, pair.key, pair.key_size);
        keys->key[keys->n++] = key;
    }
    return KILN_OK;
}

/* A field; in quotes where it has what separates, with quotes inside doubled. */
static void put_field(FILE *out, const char *text, size_t size, bool first) {
    bool quote = false;
    for (size_t i = 0; i < size; i++) {
        quote = quote || strchr(",\"\r\n", text[i]) != NULL;
    }
    fputs(first ? "" : ",", out);
    fputs(quote ? "\"" : "", out);
    for (size_t i = 0; i < size; i++) {
        fputs(text[i] == '"' ? "\"" : "", out);
        fputc(text[i], out);
    }
    fputs(quote ? "\"" : "", out);
}

static void put_header(FILE *out, const struct keys *keys) {
    for (size_t i = 0; i < keys->n; i++) {
        put_field(out, keys->key[i], strlen(keys->key[i]), i == 0);
    }
    fputs("\r\n", out);
}

static void put_line(FILE *out, struct keys *keys, struct kiln_pair *column, const char *line,
                     size_t size) {
    struct kiln_pair pair;
    memset(column, 0, keys->n * sizeof *column);
    for (const char *at = line; kiln_pair_next(&at, line + size, &pair);) {
        column[find(keys, &pair)] = pair;
    }
    for (size_t i = 0; i < keys->n; i++) {
        const bool none = column[i].value_size == 4 && memcmp(column[i].value, "null", 4) == 0;
        put_field(out, column[i].value, none ? 0 : column[i].value_size, i == 0);
    }
    fputs("\r\n", out);
}

static enum kiln_status write_lines(struct kiln_lines *lines, struct keys *keys, const char *path,
                                    struct kiln_err *err) {
    struct kiln_durable file;
    const char *text;
    enum kiln_status status = KILN_OK;
    struct kiln_pair *column = kiln_alloc(keys->n + 1, sizeof *column);
    KILN_REQUIRE(column, err, KILN_ENOMEM, "csv: no memory for a line");
    status = kiln_durable_open(&file, path, err);
    if (status != KILN_OK) {
        kiln_free(column);
        return status;
    }
    put_header(file.stream, keys);
    for (size_t i = 0; status == KILN_OK && i < lines->n; i++) {
        status = kiln_lines_text(lines, i, &text, err);
        if (status == KILN_OK) {
            put_line(file.stream, keys, column, text, lines->line[i].size);
        }
    }
    kiln_free(column);
    if (status != KILN_OK) {
        kiln_durable_abort(&file);
        return status;
    }
    return kiln_durable_commit(&file, err);
}

static enum kiln_status write_csv(struct kiln_lines *lines, struct keys *keys, const char *path,
                                  struct kiln_err *err) {
    static const char step[] = "{\"step\":0}";
    const char *text;
    size_t first;
    KILN_TRY(kiln_lines_need(lines, err));
    KILN_TRY(kiln_lines_more(lines, &first, err));
    KILN_TRY(add_keys(keys, step, sizeof step - 1, err));
    for (size_t i = 0; i < lines->n; i++) {
        KILN_TRY(kiln_lines_text(lines, i, &text, err));
        KILN_TRY(add_keys(keys, text, lines->line[i].size, err));
    }
    return write_lines(lines, keys, path, err);
}

enum kiln_status kiln_report_csv(const char *folder, const char *path, struct kiln_err *err) {
    struct kiln_lines lines;
    struct keys keys = {.n = 0};
    KILN_TRY(kiln_lines_open(&lines, folder, "metrics.jsonl", err));
    const enum kiln_status status = write_csv(&lines, &keys, path, err);
    free_keys(&keys);
    kiln_lines_close(&lines);
    return status;
}

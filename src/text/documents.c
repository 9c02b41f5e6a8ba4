/* SPDX-License-Identifier: MIT
 *
 * documents.c: where one document of a text ends and the next begins.
 */
#define _GNU_SOURCE /* memmem */
#include <string.h>

#include "text/text_int.h"

static void find_chunk_end(struct kiln_documents *it) {
    const char *end = NULL;
    if (it->separator != NULL && it->separator[0] != '\0' && it->pos < it->size) {
        end = memmem(it->text + it->pos, it->size - it->pos, it->separator, strlen(it->separator));
    }
    it->chunk_end = end == NULL ? it->size : (size_t)(end - it->text);
}

void kiln_documents_init(struct kiln_documents *it, const char *text, size_t size,
                         const char *separator, bool blank_lines) {
    *it = (struct kiln_documents){
        .text = text, .size = size, .separator = separator, .blank_lines = blank_lines};
    find_chunk_end(it);
}

/* The newline before the next line of nothing but blanks, `end` when there is none. */
static size_t blank_line(const char *text, size_t from, size_t end) {
    while (from < end) {
        const char *newline = memchr(text + from, '\n', end - from);
        if (newline == NULL) {
            break;
        }
        size_t at = (size_t)(newline - text);
        size_t next = at + 1;
        while (next < end && kiln_is_blank(text[next]) && text[next] != '\n') {
            next++;
        }
        if (next < end && text[next] == '\n') {
            return at;
        }
        from = next;
    }
    return end;
}

/* The next stretch between separators, perhaps empty; false at the end of the text. */
static bool next_stretch(struct kiln_documents *it, size_t *from, size_t *to) {
    if (it->pos >= it->size) {
        return false;
    }
    *from = it->pos;
    *to = it->chunk_end;
    if (it->blank_lines) {
        /* what is left of an empty line is no document */
        while (*from < *to && kiln_is_blank(it->text[*from])) {
            (*from)++;
        }
        *to = blank_line(it->text, *from, it->chunk_end);
    }
    if (*to < it->chunk_end) {
        it->pos = *to;
    } else if (it->chunk_end < it->size) {
        it->pos = it->chunk_end + strlen(it->separator);
        find_chunk_end(it);
    } else {
        it->pos = it->size;
    }
    return true;
}

bool kiln_documents_next(struct kiln_documents *it, const char **document, size_t *size) {
    size_t from, to;
    while (next_stretch(it, &from, &to)) {
        while (from < to && kiln_is_blank(it->text[from])) {
            from++;
        }
        while (to > from && kiln_is_blank(it->text[to - 1])) {
            to--;
        }
        if (from < to) {
            *document = it->text + from;
            *size = to - from;
            return true;
        }
    }
    return false;
}

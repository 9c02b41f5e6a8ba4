/* SPDX-License-Identifier: MIT
 *
 * demo_stories.c: the demo's stories: written for training, told by the model, and judged.
 */
#include "demo_stories.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kiln/story.h"

#define SEPARATOR "\n<|endoftext|>\n"

enum kiln_status stories_make(struct stories *out, uint64_t seed, uint64_t first, size_t n,
                              struct kiln_err *err) {
    const size_t room = n * (KILN_STORY_ROOM + sizeof SEPARATOR);
    *out = (struct stories){.text = malloc(room), .n = n};
    KILN_REQUIRE(out->text != NULL, err, KILN_ENOMEM, "no memory for %zu stories (%zu bytes)", n,
                 room);
    for (size_t i = 0; i < n; i++) {
        double surprise = 0;
        out->size += kiln_story_write(seed, first + i, out->text + out->size, &surprise);
        memcpy(out->text + out->size, SEPARATOR, sizeof SEPARATOR - 1);
        out->size += sizeof SEPARATOR - 1;
        out->surprise += surprise;
    }
    /* The room was for the longest stories; most of it was never touched. */
    char *fitted = realloc(out->text, out->size > 0 ? out->size : 1);
    out->text = fitted != NULL ? fitted : out->text;
    return KILN_OK;
}

void stories_free(struct stories *stories) {
    free(stories->text);
    *stories = (struct stories){0};
}

enum kiln_status stories_save(const struct stories *stories, const char *path,
                              struct kiln_err *err) {
    FILE *file = fopen(path, "wb");
    KILN_REQUIRE(file != NULL, err, KILN_EIO, "writing %s: %s", path, strerror(errno));
    errno = 0;
    const size_t written = fwrite(stories->text, 1, stories->size, file);
    const int closed = fclose(file);
    KILN_REQUIRE(written == stories->size && closed == 0, err, KILN_EIO,
                 "writing %s: %s; free some space or choose another --out", path,
                 errno != 0 ? strerror(errno) : "not all of it was taken");
    return KILN_OK;
}

enum kiln_status stories_count_tokens(const struct stories *stories,
                                      const struct kiln_tokenizer *tokenizer, size_t *tokens,
                                      struct kiln_err *err) {
    const char *at = stories->text, *end = stories->text + stories->size;
    enum kiln_status status = KILN_OK;
    *tokens = 0;
    while (status == KILN_OK && at < end) {
        const char *stop = memmem(at, (size_t)(end - at), SEPARATOR, sizeof SEPARATOR - 1);
        stop = stop != NULL ? stop : end;
        struct kiln_ids ids = {0};
        status = kiln_tokenizer_encode(tokenizer, at, (size_t)(stop - at), true, &ids, err);
        *tokens += ids.n;
        kiln_ids_free(&ids);
        at = stop + sizeof SEPARATOR - 1;
    }
    return status;
}

void judge(struct judgement *judgement, const struct stories *training, const char *told,
           size_t size) {
    size_t sentences = 0, parsed = 0;
    kiln_story_check(told, size, &sentences, &parsed);
    judgement->stories++;
    judgement->sentences += sentences;
    judgement->parsed += parsed;
    while (size > 0 && isspace((unsigned char)told[size - 1])) {
        size--;
    }
    while (size > 0 && isspace((unsigned char)told[0])) {
        told++;
        size--;
    }
    /* Stricter than "is not one of them": not even the beginning of one. */
    if (size > 0 && memmem(training->text, training->size, told, size) == NULL) {
        judgement->novel++;
    }
}

void print_wrapped(FILE *to, const char *margin, size_t width, const char *text, size_t size) {
    const char *end = text + size;
    while (text < end) {
        size_t n = (size_t)(end - text) < width ? (size_t)(end - text) : width;
        const char *line_end = memchr(text, '\n', n);
        if (line_end != NULL) {
            n = (size_t)(line_end - text);
        } else if (text + n < end) {
            size_t blank = n;
            while (blank > 0 && text[blank] != ' ') {
                blank--;
            }
            n = blank > 0 ? blank : n;
        }
        fprintf(to, "%s%.*s\n", margin, (int)n, text);
        text += n;
        text += text < end && (*text == ' ' || *text == '\n') ? 1 : 0;
    }
}

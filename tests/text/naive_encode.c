/* SPDX-License-Identifier: MIT
 *
 * naive_encode.c: see naive_encode.h.
 */
#include "naive_encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kiln_test.h"

void naive_open(struct naive_vocabulary *v, const char *path) {
    FILE *f = fopen(path, "rb");
    int32_t longest, size;
    float score;
    CHECK(f != NULL);
    CHECK(fread(&longest, 4, 1, f) == 1);
    CHECK(longest < 128);
    *v = (struct naive_vocabulary){.piece = calloc(70000, sizeof *v->piece),
                                   .score = calloc(70000, sizeof *v->score)};
    while (fread(&score, 4, 1, f) == 1) {
        CHECK(fread(&size, 4, 1, f) == 1);
        CHECK(fread(v->piece[v->n], 1, (size_t)size, f) == (size_t)size);
        v->score[v->n++] = score;
    }
    (void)fclose(f);
}

void naive_close(struct naive_vocabulary *v) {
    free(v->piece);
    free(v->score);
}

static int lookup(const struct naive_vocabulary *v, const char *text) {
    for (int i = 0; i < v->n; i++) {
        if (strcmp(v->piece[i], text) == 0) {
            return i;
        }
    }
    return -1;
}

static size_t look_up_characters(const struct naive_vocabulary *v, const char *text,
                                 uint32_t *ids) {
    size_t n = 0;
    char buffer[8];
    size_t length = 0;
    for (const char *c = text; *c != '\0'; c++) {
        if (((unsigned char)*c & 0xC0) != 0x80) {
            length = 0;
        }
        buffer[length++] = *c;
        buffer[length] = '\0';
        if (((unsigned char)c[1] & 0xC0) == 0x80 && length < 4) {
            continue;
        }
        int id = lookup(v, buffer);
        if (id != -1) {
            ids[n++] = (uint32_t)id;
        } else {
            for (size_t i = 0; i < length; i++) {
                ids[n++] = (uint32_t)(unsigned char)buffer[i] + 3;
            }
        }
        length = 0;
    }
    return n;
}

size_t naive_encode(const struct naive_vocabulary *v, const char *text, uint32_t *ids) {
    size_t n = 0;
    if (text[0] != '\0') {
        ids[n++] = (uint32_t)lookup(v, " ");
    }
    n += look_up_characters(v, text, ids + n);
    for (;;) {
        float best_score = -1e10f;
        int best_id = -1;
        size_t best = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            char buffer[256];
            (void)snprintf(buffer, sizeof buffer, "%s%s", v->piece[ids[i]], v->piece[ids[i + 1]]);
            int id = lookup(v, buffer);
            if (id != -1 && v->score[id] > best_score) {
                best_score = v->score[id];
                best_id = id;
                best = i;
            }
        }
        if (best_id == -1) {
            return n;
        }
        ids[best] = (uint32_t)best_id;
        n--;
        for (size_t i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
        }
    }
}

/* SPDX-License-Identifier: MIT
 *
 * vocabulary.c: a growing list of pieces with their scores.
 */
#include <string.h>

#include "base/mem.h"
#include "text/text_int.h"

static bool more_room(struct kiln_vocabulary *v) {
    size_t room = v->room ? v->room * 2 : 512;
    size_t *at = kiln_realloc(v->at, v->room ? v->room + 1 : 0, room + 1, sizeof *at);
    if (at == NULL) {
        return false;
    }
    v->at = at;
    float *score = kiln_realloc(v->score, v->room, room, sizeof *score);
    if (score == NULL) {
        return false;
    }
    v->score = score;
    uint8_t *kind = kiln_realloc(v->kind, v->room, room, sizeof *kind);
    if (kind == NULL) {
        return false;
    }
    v->kind = kind;
    v->room = room;
    return true;
}

static bool more_pool(struct kiln_vocabulary *v, size_t needed) {
    size_t room = v->pool_room ? v->pool_room : 4096;
    while (room < needed) {
        if (kiln_mul_overflows(room, 2, &room)) {
            return false;
        }
    }
    char *pool = kiln_realloc(v->pool, v->pool_room, room, 1);
    if (pool == NULL) {
        return false;
    }
    v->pool = pool;
    v->pool_room = room;
    return true;
}

bool kiln_vocabulary_add(struct kiln_vocabulary *v, const char *piece, size_t size, float score) {
    return kiln_vocabulary_add_kind(v, piece, size, score, KILN_KIND_TEXT);
}

bool kiln_vocabulary_add_kind(struct kiln_vocabulary *v, const char *piece, size_t size,
                              float score, enum kiln_kind kind) {
    if (v->n == v->room && !more_room(v)) {
        return false;
    }
    size_t end;
    if (kiln_add_overflows(v->at[v->n], size, &end)) {
        return false;
    }
    if (end > v->pool_room && !more_pool(v, end)) {
        return false;
    }
    if (size > 0) {
        memcpy(v->pool + v->at[v->n], piece, size);
    }
    v->score[v->n] = score;
    v->kind[v->n] = (uint8_t)kind;
    v->n++;
    v->at[v->n] = end;
    return true;
}

bool kiln_vocabulary_add_controls(struct kiln_vocabulary *v) {
    return kiln_vocabulary_add(v, "<unk>", 5, 0.0f) && kiln_vocabulary_add(v, "\n<s>\n", 5, 0.0f) &&
           kiln_vocabulary_add(v, "\n</s>\n", 6, 0.0f);
}

void kiln_vocabulary_fini(struct kiln_vocabulary *v) {
    kiln_free(v->pool);
    kiln_free(v->at);
    kiln_free(v->score);
    kiln_free(v->kind);
    *v = (struct kiln_vocabulary){0};
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int kiln_piece_byte(const char *piece, size_t size) {
    if (size != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>') {
        return -1;
    }
    int high = hex_digit(piece[3]);
    int low = hex_digit(piece[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

void kiln_byte_piece(unsigned char byte, char out[7]) {
    static const char digits[] = "0123456789ABCDEF";
    memcpy(out, "<0x..>", 7);
    out[3] = digits[byte >> 4];
    out[4] = digits[byte & 15];
}

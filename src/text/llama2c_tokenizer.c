/* SPDX-License-Identifier: MIT
 *
 * llama2c_tokenizer.c: llama2.c's tokenizer.bin, read and written. All numbers little-endian:
 *
 *   int32 bytes of the longest piece
 *   then for each id: float score, int32 bytes of the piece, the piece
 *
 * The number of ids is not in the file: it ends where the file ends. A file that was cut between
 * two pieces is therefore found out by its longest piece missing, or by not fitting the model.
 */
#include <math.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"
#include "text/text_int.h"
#include "text/tokenizer_files.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tokenizer files are read and written as they lie in memory: little-endian only"
#endif

enum { LONGEST_BYTES = 4, ENTRY_BYTES = 8 };

/* One entry at *at, checked against the end of the file. */
static enum kiln_status read_entry(const struct kiln_map *map, size_t *at, int32_t longest,
                                   struct kiln_vocabulary *v, const char *path,
                                   struct kiln_err *err) {
    size_t left = map->size - *at;
    KILN_REQUIRE(
        left >= ENTRY_BYTES, err, KILN_EINPUT,
        "tokenizer %s: id %zu at byte %zu needs 8 bytes, the file has %zu left; it was cut "
        "short",
        path, v->n, *at, left);
    float score;
    int32_t size;
    memcpy(&score, map->data + *at, 4);
    memcpy(&size, map->data + *at + 4, 4);
    KILN_REQUIRE(size >= 1 && size <= longest, err, KILN_EINPUT,
                 "tokenizer %s: id %zu at byte %zu has a length of %d, expected 1 to %d; this is "
                 "not a llama2.c tokenizer.bin",
                 path, v->n, *at, (int)size, (int)longest);
    KILN_REQUIRE((size_t)size <= left - ENTRY_BYTES, err, KILN_EINPUT,
                 "tokenizer %s: id %zu at byte %zu is %d bytes long, the file has %zu left; it was "
                 "cut short",
                 path, v->n, *at, (int)size, left - ENTRY_BYTES);
    KILN_REQUIRE(!isnan(score), err, KILN_EINPUT,
                 "tokenizer %s: id %zu at byte %zu has a score that is no number", path, v->n, *at);
    KILN_REQUIRE(v->n < KILN_MAX_IDS, err, KILN_EINPUT, "tokenizer %s: more than %zu ids", path,
                 KILN_MAX_IDS);
    const char *piece = (const char *)map->data + *at + ENTRY_BYTES;
    KILN_REQUIRE(kiln_vocabulary_add(v, piece, (size_t)size, score), err, KILN_ENOMEM,
                 "tokenizer %s: out of memory", path);
    *at += ENTRY_BYTES + (size_t)size;
    return KILN_OK;
}

static enum kiln_status read_all(const struct kiln_map *map, struct kiln_vocabulary *v,
                                 const char *path, struct kiln_err *err) {
    int32_t longest;
    KILN_REQUIRE(map->size >= LONGEST_BYTES, err, KILN_EINPUT,
                 "tokenizer %s: %zu bytes, too short for a llama2.c tokenizer.bin", path,
                 map->size);
    memcpy(&longest, map->data, LONGEST_BYTES);
    KILN_REQUIRE(longest >= 1, err, KILN_EINPUT,
                 "tokenizer %s: says its longest piece has %d bytes; this is not a llama2.c "
                 "tokenizer.bin",
                 path, (int)longest);
    size_t found = 0;
    for (size_t at = LONGEST_BYTES; at < map->size;) {
        size_t before = at;
        KILN_TRY(read_entry(map, &at, longest, v, path, err));
        size_t size = at - before - ENTRY_BYTES;
        found = size > found ? size : found;
    }
    KILN_REQUIRE(found == (size_t)longest, err, KILN_EINPUT,
                 "tokenizer %s: says its longest piece has %d bytes, the longest of its %zu has "
                 "%zu; it was cut short",
                 path, (int)longest, v->n, found);
    KILN_REQUIRE(v->n > KILN_ID_BYTES, err, KILN_EINPUT,
                 "tokenizer %s: has %zu ids; 0, 1 and 2 are unknown, begin and end, and text "
                 "needs more",
                 path, v->n);
    return KILN_OK;
}

enum kiln_status kiln_llama2c_tokenizer_open(const char *path, struct kiln_tokenizer **out,
                                             struct kiln_err *err) {
    struct kiln_map map;
    struct kiln_vocabulary v = {0};
    *out = NULL;
    KILN_TRY(kiln_map_open(&map, path, err));
    enum kiln_status status = read_all(&map, &v, path, err);
    if (status == KILN_OK) {
        status = kiln_tokenizer_build(&v, path, out, err);
    }
    if (status == KILN_OK) {
        (*out)->crc = kiln_crc32c(0, map.data, map.size);
    }
    kiln_vocabulary_fini(&v);
    kiln_map_close(&map);
    return status;
}

/* The file's bytes on the heap; NULL when out of memory. */
static unsigned char *serialize(const struct kiln_tokenizer *tok, size_t *total) {
    *total = LONGEST_BYTES + tok->parts.v.n * ENTRY_BYTES + tok->parts.v.at[tok->parts.v.n];
    unsigned char *bytes = kiln_alloc(*total, 1);
    if (bytes == NULL) {
        return NULL;
    }
    int32_t longest = (int32_t)tok->longest;
    memcpy(bytes, &longest, 4);
    unsigned char *at = bytes + LONGEST_BYTES;
    for (uint32_t id = 0; id < tok->parts.v.n; id++) {
        size_t size;
        const char *piece = kiln_piece(&tok->parts.v, id, &size);
        int32_t length = (int32_t)size;
        memcpy(at, &tok->parts.v.score[id], 4);
        memcpy(at + 4, &length, 4);
        memcpy(at + ENTRY_BYTES, piece, size);
        at += ENTRY_BYTES + size;
    }
    return bytes;
}

enum kiln_status kiln_tokenizer_stamp(struct kiln_tokenizer *tok, struct kiln_err *err) {
    size_t size;
    unsigned char *bytes = serialize(tok, &size);
    KILN_REQUIRE(bytes != NULL, err, KILN_ENOMEM, "tokenizer %s: out of memory", tok->name);
    tok->crc = kiln_crc32c(0, bytes, size);
    kiln_free(bytes);
    return KILN_OK;
}

/* What llama2.c's run would read otherwise than this tokenizer does. */
static enum kiln_status check_form(const struct kiln_tokenizer *tok, const char *path,
                                   struct kiln_err *err) {
    KILN_REQUIRE(tok->parts.spelling == KILN_SPELL_LLAMA2C, err, KILN_EUNSUPPORTED,
                 "tokenizer %s: a llama2.c tokenizer.bin cannot hold %s; give %s an ending of "
                 ".json",
                 tok->name,
                 tok->parts.spelling == KILN_SPELL_BYTES ? "a byte-level tokenizer"
                                                         : "its added tokens and merges",
                 path);
    return KILN_OK;
}

enum kiln_status kiln_llama2c_tokenizer_save(const struct kiln_tokenizer *tok, const char *path,
                                             struct kiln_err *err) {
    size_t size;
    KILN_TRY(check_form(tok, path, err));
    unsigned char *bytes = serialize(tok, &size);
    KILN_REQUIRE(bytes != NULL, err, KILN_ENOMEM, "tokenizer %s: out of memory", path);
    enum kiln_status status = kiln_write_file(path, bytes, size, err);
    kiln_free(bytes);
    return status;
}

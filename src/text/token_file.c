/* SPDX-License-Identifier: MIT
 *
 * token_file.c: token files, mapped and never loaded. The layout stands in text.h.
 *
 * Every id is compared with the vocabulary once, when the file is opened, so nobody behind has to:
 * a block's largest id is found first (the compiler makes vectors of that loop) and only a block
 * that holds a bad one is searched.
 */
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"
#include "text/text_int.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "ids are read as they lie in the file: little-endian only"
#endif

static const char magic[8] = {'K', 'I', 'L', 'N', 'T', 'O', 'K', '1'};
enum { HEADER_CRC_AT = 28, AFTER_CRC = 32, SCAN_BLOCK = 16384 };

struct kiln_token_file {
    struct kiln_map map;
    char *path;
    struct kiln_token_header header;
    const unsigned char *ids;
    size_t first_byte;               /* offset of the ids in the file */
    const uint64_t *counts, *begins; /* bitmaps; NULL: every id counts, BOS begins a document */
    size_t documents;
};

/* ---- header ------------------------------------------------------------------------------- */

static uint32_t header_crc(const unsigned char *bytes) {
    uint32_t crc = kiln_crc32c(0, bytes, HEADER_CRC_AT);
    return kiln_crc32c(crc, bytes + AFTER_CRC, KILN_TOKEN_HEADER - AFTER_CRC);
}

void kiln_token_header_write(const struct kiln_token_header *h,
                             unsigned char out[KILN_TOKEN_HEADER]) {
    memset(out, 0, KILN_TOKEN_HEADER);
    memcpy(out, magic, sizeof magic);
    memcpy(out + 8, &h->width, 4);
    memcpy(out + 12, &h->vocab, 4);
    memcpy(out + 16, &h->count, 8);
    memcpy(out + 24, &h->bos, 4);
    memcpy(out + 32, &h->text_size, 8);
    memcpy(out + 40, &h->text_crc, 4);
    memcpy(out + 44, &h->vocabulary_crc, 4);
    memcpy(out + 48, &h->flags, 4);
    memcpy(out + 52, &h->bitmaps_crc, 4);
    uint32_t crc = header_crc(out);
    memcpy(out + HEADER_CRC_AT, &crc, 4);
}

static void header_read(const unsigned char *in, struct kiln_token_header *h) {
    memcpy(&h->width, in + 8, 4);
    memcpy(&h->vocab, in + 12, 4);
    memcpy(&h->count, in + 16, 8);
    memcpy(&h->bos, in + 24, 4);
    memcpy(&h->text_size, in + 32, 8);
    memcpy(&h->text_crc, in + 40, 4);
    memcpy(&h->vocabulary_crc, in + 44, 4);
    memcpy(&h->flags, in + 48, 4);
    memcpy(&h->bitmaps_crc, in + 52, 4);
}

static bool has_magic(const struct kiln_map *map) {
    return map->size >= sizeof magic && memcmp(map->data, magic, sizeof magic) == 0;
}

/* Do header and size agree? Counts of any size may stand there. */
static enum kiln_status check_size(const struct kiln_token_file *file, struct kiln_err *err) {
    const struct kiln_token_header *h = &file->header;
    const size_t bytes = file->map.size - KILN_TOKEN_HEADER;
    const bool bitmaps = (h->flags & KILN_TOKENS_BITMAPS) != 0;
    bool fits = h->count <= bytes / h->width;
    if (fits) {
        const uint64_t more = bitmaps ? kiln_bitmap_gap(h) + 2 * kiln_bitmap_bytes(h->count) : 0;
        fits = h->count * h->width + more == bytes;
    }
    KILN_REQUIRE(fits, err, KILN_EINPUT,
                 "token file %s: its header says %llu ids of %u bytes%s, the file has %zu bytes of "
                 "them; tokenize the text again",
                 file->path, (unsigned long long)h->count, h->width,
                 bitmaps ? " and two bits each" : "", bytes);
    KILN_REQUIRE(h->count > 0, err, KILN_EINPUT, "token file %s: holds no ids", file->path);
    return KILN_OK;
}

static enum kiln_status read_bitmaps(struct kiln_token_file *file, struct kiln_err *err) {
    const struct kiln_token_header *h = &file->header;
    const uint64_t bytes = kiln_bitmap_bytes(h->count);
    if ((h->flags & KILN_TOKENS_BITMAPS) == 0) {
        return KILN_OK;
    }
    const unsigned char *at = file->ids + h->count * h->width + kiln_bitmap_gap(h);
    KILN_REQUIRE(kiln_crc32c(0, at, 2 * bytes) == h->bitmaps_crc, err, KILN_EINPUT,
                 "token file %s: its bitmaps fail their checksum; it is damaged, tokenize the text "
                 "again",
                 file->path);
    file->counts = (const void *)at; /* a multiple of 8 behind a page */
    file->begins = (const void *)(at + bytes);
    return KILN_OK;
}

static bool bit(const uint64_t *bitmap, size_t at) { return bitmap[at / 64] >> at % 64 & 1; }

static enum kiln_status read_kiln(struct kiln_token_file *file, struct kiln_err *err) {
    const char *path = file->path;
    struct kiln_token_header *h = &file->header;
    KILN_REQUIRE(file->map.size >= KILN_TOKEN_HEADER, err, KILN_EINPUT,
                 "token file %s: %zu bytes, its header alone has %d; it was cut short, tokenize "
                 "the text again",
                 path, file->map.size, KILN_TOKEN_HEADER);
    uint32_t crc;
    memcpy(&crc, file->map.data + HEADER_CRC_AT, 4);
    KILN_REQUIRE(crc == header_crc(file->map.data), err, KILN_EINPUT,
                 "token file %s: its header fails its checksum; it is damaged, tokenize the text "
                 "again",
                 path);
    header_read(file->map.data, h);
    KILN_REQUIRE((h->width == 2 || h->width == 4) && h->vocab > 0, err, KILN_EINPUT,
                 "token file %s: %u bytes an id and a vocabulary of %u; expected 2 or 4 bytes and "
                 "at least 1",
                 path, h->width, h->vocab);
    KILN_REQUIRE((h->flags & ~(uint32_t)(KILN_TOKENS_BLANK_LINES | KILN_TOKENS_BITMAPS)) == 0, err,
                 KILN_EINPUT,
                 "token file %s: flags %#x are of a newer kiln; tokenize the text again", path,
                 h->flags);
    KILN_TRY(check_size(file, err));
    file->first_byte = KILN_TOKEN_HEADER;
    return KILN_OK;
}

static enum kiln_status read_raw(struct kiln_token_file *file, struct kiln_err *err) {
    KILN_REQUIRE(file->map.size > 0, err, KILN_EINPUT, "token file %s: is empty", file->path);
    KILN_REQUIRE(file->map.size % 2 == 0, err, KILN_EINPUT,
                 "token file %s: has no kiln header and %zu bytes, an odd number; raw token files "
                 "are uint16 ids (give text another ending than .bin, .u16 or .tok)",
                 file->path, file->map.size);
    file->header =
        (struct kiln_token_header){.width = 2, .count = file->map.size / 2, .bos = KILN_ID_BOS};
    return KILN_OK;
}

/* ---- the check of all ids ----------------------------------------------------------------- */

struct scan {
    uint32_t largest;
    size_t begins; /* ids that begin a document */
};

static struct scan scan_2(const uint16_t *id, size_t n, uint16_t bos) {
    uint16_t largest = 0;
    uint16_t begins = 0; /* a block is short enough */
    for (size_t i = 0; i < n; i++) {
        largest = id[i] > largest ? id[i] : largest;
        begins = (uint16_t)(begins + (id[i] == bos));
    }
    return (struct scan){largest, begins};
}

static struct scan scan_4(const uint32_t *id, size_t n, uint32_t bos) {
    uint32_t largest = 0;
    uint32_t begins = 0;
    for (size_t i = 0; i < n; i++) {
        largest = id[i] > largest ? id[i] : largest;
        begins += id[i] == bos;
    }
    return (struct scan){largest, begins};
}

static struct scan scan_block(const struct kiln_token_file *file, size_t at, size_t n) {
    const void *ids = file->ids + at * file->header.width;
    if (file->header.width == 2) {
        return scan_2(ids, n, (uint16_t)file->header.bos);
    }
    return scan_4(ids, n, file->header.bos);
}

static enum kiln_status fail_at_bad_id(const struct kiln_token_file *file, size_t at,
                                       uint32_t limit, struct kiln_err *err) {
    while (kiln_token_file_id(file, at) < limit) {
        at++;
    }
    return KILN_FAIL(err, KILN_EINPUT,
                     "token file %s: id %u at byte %zu is beyond the vocabulary of %u; tokenize "
                     "the text with the model's tokenizer",
                     file->path, kiln_token_file_id(file, at),
                     file->first_byte + at * file->header.width, limit);
}

static enum kiln_status check_ids(struct kiln_token_file *file, size_t vocab,
                                  struct kiln_err *err) {
    uint32_t limit = file->header.vocab > 0 ? file->header.vocab : UINT32_MAX;
    if (vocab > 0 && vocab < limit) {
        limit = (uint32_t)vocab;
    }
    size_t count = kiln_token_file_count(file);
    size_t begins = 0;
    for (size_t at = 0; at < count; at += SCAN_BLOCK) {
        struct scan scan = scan_block(file, at, count - at < SCAN_BLOCK ? count - at : SCAN_BLOCK);
        if (scan.largest >= limit) {
            return fail_at_bad_id(file, at, limit, err);
        }
        begins += scan.begins;
    }
    for (size_t i = 0; file->begins && i < (count + 63) / 64; i++) {
        begins = (i > 0 ? begins : 0) + (size_t)__builtin_popcountll(file->begins[i]);
    }
    /* a file may begin inside a document */
    file->documents = begins + !kiln_token_file_begins(file, 0);
    return KILN_OK;
}

/* ---- the file ----------------------------------------------------------------------------- */

enum kiln_status kiln_token_file_open(const char *path, size_t vocab, struct kiln_token_file **out,
                                      struct kiln_err *err) {
    *out = NULL;
    struct kiln_token_file *file = kiln_alloc(1, sizeof *file);
    char *name = kiln_strdup(path);
    if (file == NULL || name == NULL) {
        kiln_free(file);
        kiln_free(name);
        return KILN_FAIL(err, KILN_ENOMEM, "token file %s: out of memory", path);
    }
    file->path = name;
    enum kiln_status status = kiln_map_open(&file->map, path, err);
    if (status == KILN_OK) {
        status = has_magic(&file->map) ? read_kiln(file, err) : read_raw(file, err);
    }
    if (status == KILN_OK) {
        file->ids = file->map.data + file->first_byte;
        status = read_bitmaps(file, err);
    }
    if (status == KILN_OK) {
        status = check_ids(file, vocab, err);
    }
    if (status != KILN_OK) {
        kiln_token_file_close(file);
        return status;
    }
    *out = file;
    return KILN_OK;
}

void kiln_token_file_close(struct kiln_token_file *file) {
    if (file != NULL) {
        kiln_map_close(&file->map);
        kiln_free(file->path);
        kiln_free(file);
    }
}

size_t kiln_token_file_count(const struct kiln_token_file *file) {
    return (size_t)file->header.count;
}

uint32_t kiln_token_file_id(const struct kiln_token_file *file, size_t at) {
    uint32_t id;
    kiln_token_file_copy(file, at, 1, &id);
    return id;
}

size_t kiln_token_file_documents(const struct kiln_token_file *file) { return file->documents; }
size_t kiln_token_file_vocab(const struct kiln_token_file *file) { return file->header.vocab; }
uint64_t kiln_token_file_text_bytes(const struct kiln_token_file *file) {
    return file->header.text_size;
}
const char *kiln_token_file_path(const struct kiln_token_file *file) { return file->path; }
uint32_t kiln_token_file_bos(const struct kiln_token_file *file) { return file->header.bos; }
const struct kiln_token_header *kiln_token_file_header(const struct kiln_token_file *file) {
    return &file->header;
}

bool kiln_token_file_counts(const struct kiln_token_file *file, size_t at) {
    return file->counts == NULL || bit(file->counts, at);
}

bool kiln_token_file_begins(const struct kiln_token_file *file, size_t at) {
    return file->begins ? bit(file->begins, at) : kiln_token_file_id(file, at) == file->header.bos;
}

bool kiln_token_file_masked(const struct kiln_token_file *file) { return file->counts != NULL; }

void kiln_token_file_copy(const struct kiln_token_file *file, size_t at, size_t n, uint32_t *out) {
    if (file->header.width == 4) {
        memcpy(out, file->ids + at * 4, n * 4);
        return;
    }
    const unsigned char *from = file->ids + at * 2;
    for (size_t i = 0; i < n; i++) {
        uint16_t id;
        memcpy(&id, from + i * 2, 2);
        out[i] = id;
    }
}

bool kiln_token_file_is(const char *path) {
    if (kiln_path_ends_any_case(path, ".bin") || kiln_path_ends_any_case(path, ".u16") ||
        kiln_path_ends_any_case(path, ".tok")) {
        return true;
    }
    struct kiln_map map;
    if (kiln_map_open(&map, path, NULL) != KILN_OK) {
        return false;
    }
    bool is = has_magic(&map);
    kiln_map_close(&map);
    return is;
}

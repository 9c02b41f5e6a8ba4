/* SPDX-License-Identifier: MIT
 *
 * sentencepiece.c: SentencePiece's .model, of type BPE.
 *
 * The file is a protocol buffer (sentencepiece_model.proto): fields of a key (number*8 + wire type)
 * and a value. Of it are read
 *
 *   1 pieces: 1 text, 2 score, 3 type        2 trainer: 3 model type, 35 byte fallback, 40 to 42
 *   3 normalizer: 1 name, 2 character map, 3 blank put first, 4 blanks made one, 5 U+2581     ids
 */
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "text/tokenizer_files.h"
#include "text/utf8.h"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { TYPE_UNIGRAM = 1, TYPE_BPE = 2 };

/* ---- the wire format ---------------------------------------------------------------------- */

struct wire {
    const unsigned char *data;
    size_t at, size;
    bool broken;
};
struct field {
    uint32_t number;
    uint32_t type;
    uint64_t value; /* VARINT, FIXED32, FIXED64 */
    struct wire bytes;
};

static uint64_t read_varint(struct wire *w) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (w->at == w->size) {
            break;
        }
        unsigned char byte = w->data[w->at++];
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            return value;
        }
    }
    w->broken = true;
    return 0;
}

static uint64_t read_fixed(struct wire *w, size_t size) {
    uint64_t value = 0;
    if (w->size - w->at < size) {
        w->broken = true;
        return 0;
    }
    memcpy(&value, w->data + w->at, size); /* little-endian, as the machine */
    w->at += size;
    return value;
}

/* The next field; false at the end, or when the bytes are no fields. */
static bool next_field(struct wire *w, struct field *out) {
    if (w->at == w->size || w->broken) {
        return false;
    }
    uint64_t key = read_varint(w);
    *out = (struct field){.number = (uint32_t)(key >> 3), .type = (uint32_t)(key & 7)};
    if (out->type == VARINT) {
        out->value = read_varint(w);
    } else if (out->type == FIXED64 || out->type == FIXED32) {
        out->value = read_fixed(w, out->type == FIXED64 ? 8 : 4);
    } else if (out->type == BYTES) {
        uint64_t size = read_varint(w);
        if (w->broken || size > w->size - w->at) {
            w->broken = true;
            return false;
        }
        out->bytes = (struct wire){.data = w->data + w->at, .size = (size_t)size};
        w->at += (size_t)size;
    } else {
        w->broken = true;
    }
    return !w->broken && key >> 3 <= UINT32_MAX && out->number > 0;
}

/* ---- the model ---------------------------------------------------------------------------- */

struct model {
    const char *path;
    struct kiln_parts parts;
    char *room; /* for one piece */
    size_t room_size;
    uint64_t type;
    bool dummy_prefix, one_blank, escapes, suffix;
    struct wire name, map;
};

static bool is_bytes(const struct field *f) { return f->type == BYTES; }

/* Blanks for U+2581. */
static size_t unescape(struct model *m, const struct wire *text) {
    size_t n = 0;
    for (size_t i = 0; i < text->size;) {
        bool block = text->size - i >= 3 && memcmp(text->data + i, KILN_LOWER_BLOCK, 3) == 0;
        m->room[n++] = block ? ' ' : (char)text->data[i];
        i += block ? 3 : 1;
    }
    return n;
}

static bool has_room(struct model *m, size_t size) {
    if (size <= m->room_size) {
        return true;
    }
    kiln_free(m->room);
    m->room = kiln_alloc(size * 2, 1);
    m->room_size = m->room != NULL ? size * 2 : 0;
    return m->room != NULL;
}

static bool add_piece(struct model *m, const struct wire *text, float score, uint64_t type) {
    struct kiln_parts *p = &m->parts;
    uint32_t id = (uint32_t)p->v.n;
    if (!has_room(m, text->size)) {
        return false;
    }
    bool plain = type == KILN_KIND_TEXT;
    size_t n = plain ? unescape(m, text) : text->size;
    const char *piece = plain ? m->room : (const char *)text->data;
    if (!kiln_vocabulary_add_kind(&p->v, piece, n, score, (enum kiln_kind)type)) {
        return false;
    }
    struct kiln_added added = {.id = id, .special = type != KILN_KIND_ADDED};
    bool mark = type == KILN_KIND_CONTROL || type == KILN_KIND_UNKNOWN || type == KILN_KIND_ADDED;
    p->unknown = type == KILN_KIND_UNKNOWN ? id : p->unknown;
    return !mark || kiln_parts_add_added(p, added);
}

static enum kiln_status read_piece(struct model *m, struct wire w, struct kiln_err *err) {
    struct field f;
    struct wire text = {0};
    float score = 0.0f;
    uint64_t type = KILN_KIND_TEXT;
    while (next_field(&w, &f)) {
        if (f.number == 1 && is_bytes(&f)) {
            text = f.bytes;
        } else if (f.number == 2 && f.type == FIXED32) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&score, &bits, 4);
        } else if (f.number == 3 && f.type == VARINT) {
            type = f.value;
        }
    }
    size_t id = m->parts.v.n;
    KILN_REQUIRE(!w.broken && !isnan(score) && text.size > 0, err, KILN_EINPUT,
                 "tokenizer %s: piece %zu is damaged: it has no text, or a score that is no number",
                 m->path, id);
    KILN_REQUIRE(type >= KILN_KIND_TEXT && type <= KILN_KIND_BYTE && type != KILN_KIND_UNUSED, err,
                 KILN_EINPUT,
                 "tokenizer %s: piece %zu has the type %llu; kiln knows normal, unknown, control, "
                 "user-defined and byte",
                 m->path, id, (unsigned long long)type);
    KILN_REQUIRE(id < KILN_MAX_IDS, err, KILN_EINPUT, "tokenizer %s: more than %zu pieces", m->path,
                 KILN_MAX_IDS);
    KILN_REQUIRE(add_piece(m, &text, score, type), err, KILN_ENOMEM, "tokenizer %s: out of memory",
                 m->path);
    return KILN_OK;
}

/* An id that is written as a signed number; -1 is none. */
static uint32_t id_of(uint64_t value) {
    return value < KILN_MAX_IDS ? (uint32_t)value : KILN_NO_ID;
}

static bool read_trainer(struct model *m, struct wire w) {
    struct field f;
    while (next_field(&w, &f)) {
        if (f.type != VARINT) {
            continue;
        }
        switch (f.number) {
            case 3:
                m->type = f.value;
                break;
            case 24:
                m->suffix = f.value != 0;
                break;
            case 35:
                m->parts.byte_fallback = f.value != 0;
                break;
            case 41:
                m->parts.bos = id_of(f.value);
                break;
            case 42:
                m->parts.eos = id_of(f.value);
                break;
            case 43:
                m->parts.pad = id_of(f.value);
                break;
            default:
                break;
        }
    }
    return !w.broken;
}

static bool read_normalizer(struct model *m, struct wire w) {
    struct field f;
    while (next_field(&w, &f)) {
        if (is_bytes(&f)) {
            m->name = f.number == 1 ? f.bytes : m->name;
            m->map = f.number == 2 ? f.bytes : m->map;
        } else if (f.type == VARINT) {
            m->dummy_prefix = f.number == 3 ? f.value != 0 : m->dummy_prefix;
            m->one_blank = f.number == 4 ? f.value != 0 : m->one_blank;
            m->escapes = f.number == 5 ? f.value != 0 : m->escapes;
        }
    }
    return !w.broken;
}

static enum kiln_status read_fields(struct model *m, struct wire w, struct kiln_err *err) {
    struct field f;
    bool whole = true;
    while (whole && next_field(&w, &f)) {
        if (f.number == 1 && is_bytes(&f)) {
            KILN_TRY(read_piece(m, f.bytes, err));
        } else if (f.number == 2 && is_bytes(&f)) {
            whole = read_trainer(m, f.bytes);
        } else if (f.number == 3 && is_bytes(&f)) {
            whole = read_normalizer(m, f.bytes);
        }
    }
    KILN_REQUIRE(whole && !w.broken && w.at == w.size, err, KILN_EINPUT,
                 "tokenizer %s: is no SentencePiece model, or was cut short (byte %zu of %zu)",
                 m->path, w.at, w.size);
    return KILN_OK;
}

static enum kiln_status check_kind(const struct model *m, struct kiln_err *err) {
    static const char *const types[] = {"none", "Unigram", "BPE", "Word", "Char"};
    KILN_REQUIRE(m->type == TYPE_BPE, err, KILN_EINPUT,
                 "tokenizer %s: a SentencePiece model of type %s; kiln knows BPE", m->path,
                 m->type < 5 ? types[m->type] : "unknown");
    KILN_REQUIRE(m->map.size == 0, err, KILN_EINPUT,
                 "tokenizer %s: its normalizer %.*s changes characters by a map of its own; kiln "
                 "knows identity (spm_train --normalization_rule_name=identity)",
                 m->path, (int)kiln_least(m->name.size, 64), (const char *)m->name.data);
    KILN_REQUIRE(m->escapes && !m->suffix, err, KILN_EINPUT,
                 "tokenizer %s: its normalizer %s, which kiln does not know", m->path,
                 m->escapes ? "treats a blank as a suffix" : "does not make blanks U+2581");
    return KILN_OK;
}

static enum kiln_status finish(struct model *m, struct kiln_err *err) {
    struct kiln_parts *p = &m->parts;
    KILN_TRY(check_kind(m, err));
    p->spelling = KILN_SPELL_BLANKS;
    p->scored = true;
    p->fuse_unknown = true;
    p->prefix = m->dummy_prefix ? KILN_PREFIX_ONCE : KILN_PREFIX_NONE;
    p->strips_blank = m->dummy_prefix;
    p->bos = p->bos < p->v.n ? p->bos : KILN_NO_ID;
    p->eos = p->eos < p->v.n ? p->eos : KILN_NO_ID;
    p->pad = p->pad < p->v.n ? p->pad : KILN_NO_ID;
    p->adds_bos = p->bos != KILN_NO_ID;
    bool done = !m->one_blank ||
                (kiln_parts_add_rewrite(p, KILN_REWRITE_REPLACE, "\\A +| +\\z", false, "") &&
                 kiln_parts_add_rewrite(p, KILN_REWRITE_REPLACE, " {2,}", false, " "));
    KILN_REQUIRE(done, err, KILN_ENOMEM, "tokenizer %s: out of memory", m->path);
    return KILN_OK;
}

enum kiln_status kiln_sentencepiece_open(const char *path, struct kiln_tokenizer **out,
                                         struct kiln_err *err) {
    struct kiln_map map;
    struct model m = {.path = path,
                      .type = TYPE_UNIGRAM,
                      .dummy_prefix = true,
                      .one_blank = true,
                      .escapes = true};
    *out = NULL;
    KILN_TRY(kiln_map_open(&map, path, err));
    kiln_parts_init(&m.parts);
    m.parts.bos = 1; /* what the trainer writes when nothing else was asked for */
    m.parts.eos = 2;
    enum kiln_status status = read_fields(&m, (struct wire){map.data, 0, map.size, false}, err);
    if (status == KILN_OK) {
        status = finish(&m, err);
    }
    if (status == KILN_OK) {
        status = kiln_tokenizer_make(&m.parts, path, out, err);
    }
    kiln_parts_fini(&m.parts);
    kiln_free(m.room);
    kiln_map_close(&map);
    return status;
}

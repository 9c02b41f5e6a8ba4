/* SPDX-License-Identifier: MIT
 *
 * tokenizer_json.c: a tokenizer.json read: see tokenizer_json.h.
 */
#include "text/tokenizer_json.h"

#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "text/utf8.h"

const char *kiln_json_text(const json_t *object, const char *key, const char *absent) {
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : absent;
}

bool kiln_json_flag(const json_t *object, const char *key, bool absent) {
    const json_t *flag = json_object_get(object, key);
    return json_is_boolean(flag) ? json_is_true(flag) : absent;
}

enum kiln_status kiln_json_load(const char *path, size_t flags, json_t **out,
                                struct kiln_err *err) {
    char *text;
    size_t size;
    json_error_t why;
    *out = NULL;
    if (!kiln_path_exists(path)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_read_file(path, &text, &size, err));
    *out = json_loadb(text, size, flags | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    kiln_free(text);
    KILN_REQUIRE(*out != NULL, err, KILN_EINPUT, "%s: line %d, byte %d: %s", path, why.line,
                 why.position, why.text);
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return KILN_FAIL(err, KILN_EINPUT, "%s: is no JSON object", path);
    }
    return KILN_OK;
}

uint32_t kiln_json_id(const struct kiln_json_reader *r, const char *piece) {
    const json_t *vocab = json_object_get(json_object_get(r->root, "model"), "vocab");
    const json_t *id = json_object_get(vocab, piece);
    if (id != NULL) {
        return (uint32_t)json_integer_value(id);
    }
    const json_t *added = json_object_get(r->root, "added_tokens");
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        if (strcmp(kiln_json_text(token, "content", ""), piece) == 0) {
            return (uint32_t)json_integer_value(json_object_get(token, "id"));
        }
    }
    return KILN_NO_ID;
}

/* ---- vocabulary --------------------------------------------------------------------------- */

/* Which text an id has, before it is told how the file spells it. */
struct entry {
    const char *text;
    size_t size;
    bool added, special;
};

struct entries {
    struct entry *entry; /* [n]; text NULL: a hole */
    size_t n;
};

static enum kiln_status check_id(const struct kiln_json_reader *r, const json_t *id,
                                 const char *text, struct kiln_err *err) {
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        (size_t)json_integer_value(id) >= KILN_MAX_IDS) {
        return KILN_JSON_FAIL(r, err, "the id of \"%.100s\" is no number from 0 to %zu", text,
                              KILN_MAX_IDS - 1);
    }
    return KILN_OK;
}

static enum kiln_status put_entry(const struct kiln_json_reader *r, struct entries *all,
                                  const json_t *id, struct entry entry, struct kiln_err *err) {
    size_t at = (size_t)json_integer_value(id);
    struct entry *old = &all->entry[at];
    bool same = old->text != NULL && old->size == entry.size &&
                memcmp(old->text, entry.text, entry.size) == 0;
    if (old->text != NULL && !(same && entry.added && !old->added)) {
        return KILN_JSON_FAIL(r, err, "\"%.100s\" and \"%.100s\" have the same id %zu", old->text,
                              entry.text, at);
    }
    *old = entry;
    return KILN_OK;
}

static enum kiln_status count_ids(const struct kiln_json_reader *r, json_t *vocab,
                                  const json_t *added, size_t *n, struct kiln_err *err) {
    const char *key;
    json_t *value;
    size_t last = 0;
    json_object_foreach(vocab, key, value) {
        KILN_TRY(check_id(r, value, key, err));
        last = kiln_largest(last, (size_t)json_integer_value(value));
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const char *content = kiln_json_text(token, "content", NULL);
        if (content == NULL) {
            return KILN_JSON_FAIL(r, err, "added token %zu has no content", i);
        }
        const json_t *id = json_object_get(token, "id"), *other = json_object_get(vocab, content);
        KILN_TRY(check_id(r, id, content, err));
        if (other != NULL && json_integer_value(other) != json_integer_value(id)) {
            return KILN_JSON_FAIL(r, err,
                                  "the added token \"%.100s\" has the id %lld, its vocabulary "
                                  "says %lld",
                                  content, (long long)json_integer_value(id),
                                  (long long)json_integer_value(other));
        }
        last = kiln_largest(last, (size_t)json_integer_value(id));
    }
    /* ids are counted by what there is: a file of two pieces names no id in the millions */
    size_t pieces = json_object_size(vocab) + json_array_size(added);
    if (pieces == 0 || last / 1024 > pieces) {
        return KILN_JSON_FAIL(r, err, "has %zu pieces, and ids up to %zu", pieces, last);
    }
    *n = last + 1;
    return KILN_OK;
}

static enum kiln_status gather(const struct kiln_json_reader *r, struct entries *all,
                               struct kiln_err *err) {
    json_t *vocab = json_object_get(json_object_get(r->root, "model"), "vocab");
    const json_t *added = json_object_get(r->root, "added_tokens");
    const char *key;
    json_t *value;
    KILN_TRY(count_ids(r, vocab, added, &all->n, err));
    all->entry = kiln_alloc(all->n, sizeof *all->entry);
    KILN_REQUIRE(all->entry != NULL, err, KILN_ENOMEM, "tokenizer %s: out of memory", r->path);
    json_object_foreach(vocab, key, value) {
        struct entry entry = {.text = key, .size = strlen(key)};
        KILN_TRY(put_entry(r, all, value, entry, err));
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const json_t *content = json_object_get(token, "content");
        struct entry entry = {.text = json_string_value(content),
                              .size = json_string_length(content),
                              .added = true,
                              .special = kiln_json_flag(token, "special", false)};
        KILN_TRY(put_entry(r, all, json_object_get(token, "id"), entry, err));
    }
    return KILN_OK;
}

/* ---- spelling ----------------------------------------------------------------------------- */

/* GPT-2's letters to bytes; false when the piece has another character. */
static bool from_letters(const struct entry *entry, char *out, size_t *size) {
    *size = 0;
    for (size_t at = 0; at < entry->size;) {
        uint32_t code = 0;
        size_t n = kiln_utf8_read(entry->text + at, entry->size - at, &code);
        int byte = n > 0 ? kiln_byte_of_letter(code) : -1;
        if (byte < 0) {
            return false;
        }
        out[(*size)++] = (char)byte;
        at += n;
    }
    return true;
}

/* U+2581 to blanks; false when the piece has a blank of its own, which no text leads to. */
static bool from_blocks(const struct entry *entry, char *out, size_t *size) {
    *size = 0;
    for (size_t at = 0; at < entry->size;) {
        bool block = entry->size - at >= 3 && memcmp(entry->text + at, KILN_LOWER_BLOCK, 3) == 0;
        if (entry->text[at] == ' ') {
            return false;
        }
        out[(*size)++] = block ? ' ' : entry->text[at];
        at += block ? 3 : 1;
    }
    return true;
}

static bool add_entry(struct kiln_parts *p, const struct entry *entry, char *room) {
    struct kiln_vocabulary *v = &p->v;
    if (entry->text == NULL) {
        return kiln_vocabulary_add_kind(v, "", 0, 0.0f, KILN_KIND_UNUSED);
    }
    if (entry->added) {
        return kiln_vocabulary_add_kind(v, entry->text, entry->size, 0.0f,
                                        entry->special ? KILN_KIND_CONTROL : KILN_KIND_ADDED);
    }
    if (p->byte_fallback && kiln_piece_byte(entry->text, entry->size) >= 0) {
        return kiln_vocabulary_add_kind(v, entry->text, entry->size, 0.0f, KILN_KIND_BYTE);
    }
    size_t size;
    bool said = p->spelling == KILN_SPELL_BYTES ? from_letters(entry, room, &size)
                                                : from_blocks(entry, room, &size);
    return said ? kiln_vocabulary_add_kind(v, room, size, 0.0f, KILN_KIND_TEXT)
                : kiln_vocabulary_add_kind(v, entry->text, entry->size, 0.0f, KILN_KIND_UNUSED);
}

static enum kiln_status add_entries(struct kiln_json_reader *r, const struct entries *all,
                                    struct kiln_err *err) {
    size_t longest = 1;
    for (size_t i = 0; i < all->n; i++) {
        longest = kiln_largest(longest, all->entry[i].size);
    }
    char *room = kiln_alloc(longest, 1);
    bool done = room != NULL;
    for (size_t i = 0; done && i < all->n; i++) {
        done = add_entry(&r->parts, &all->entry[i], room);
    }
    kiln_free(room);
    KILN_REQUIRE(done, err, KILN_ENOMEM, "tokenizer %s: out of memory", r->path);
    return KILN_OK;
}

static enum kiln_status read_vocabulary(struct kiln_json_reader *r, struct kiln_err *err) {
    struct entries all = {0};
    enum kiln_status status = gather(r, &all, err);
    if (status == KILN_OK) {
        status = add_entries(r, &all, err);
    }
    kiln_free(all.entry);
    return status;
}

static enum kiln_status read_added(struct kiln_json_reader *r, struct kiln_err *err) {
    const json_t *list = json_object_get(r->root, "added_tokens");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *token = json_array_get(list, i);
        struct kiln_added added = {.id = (uint32_t)json_integer_value(json_object_get(token, "id")),
                                   .special = kiln_json_flag(token, "special", false),
                                   .lstrip = kiln_json_flag(token, "lstrip", false),
                                   .rstrip = kiln_json_flag(token, "rstrip", false),
                                   .single_word = kiln_json_flag(token, "single_word", false),
                                   .normalized = kiln_json_flag(token, "normalized", true)};
        KILN_REQUIRE(kiln_parts_add_added(&r->parts, added), err, KILN_ENOMEM,
                     "tokenizer %s: out of memory", r->path);
    }
    return KILN_OK;
}

/* ---- merges ------------------------------------------------------------------------------- */

enum { LONGEST_MERGE = 4096 };

/* The pieces of one merge, each with a zero behind it. */
struct merge_text {
    char left[LONGEST_MERGE], right[LONGEST_MERGE], whole[2 * LONGEST_MERGE];
};

static bool set_merge(struct merge_text *m, const char *left, size_t left_size, const char *right) {
    size_t right_size = strlen(right);
    if (left_size == 0 || right_size == 0 || left_size + right_size >= LONGEST_MERGE) {
        return false;
    }
    memcpy(m->left, left, left_size);
    m->left[left_size] = '\0';
    memcpy(m->right, right, right_size + 1);
    memcpy(m->whole, left, left_size);
    memcpy(m->whole + left_size, right, right_size + 1);
    return true;
}

static bool find_merge(const json_t *vocab, const struct merge_text *m, uint32_t id[3]) {
    const char *const text[3] = {m->left, m->right, m->whole};
    for (size_t k = 0; k < 3; k++) {
        const json_t *found = json_object_get(vocab, text[k]);
        if (found == NULL) {
            return false;
        }
        id[k] = (uint32_t)json_integer_value(found);
    }
    return true;
}

/* "a b c": a piece has a blank, as in one copy of Llama's file, whose no-break blanks were lost.
 * The one cut whose pieces are all in the vocabulary is meant. */
static bool find_cut(const json_t *vocab, const char *text, struct merge_text *m, uint32_t id[3]) {
    bool found = false;
    for (const char *cut = strchr(text, ' '); cut != NULL; cut = strchr(cut + 1, ' ')) {
        uint32_t here[3];
        if (set_merge(m, text, (size_t)(cut - text), cut + 1) && find_merge(vocab, m, here)) {
            if (found) {
                return false;
            }
            found = true;
            memcpy(id, here, sizeof here);
        }
    }
    return found;
}

/* "a b" or ["a", "b"]. */
static bool read_pair(const json_t *vocab, const json_t *merge, struct merge_text *m,
                      uint32_t id[3]) {
    const char *a = json_string_value(json_array_get(merge, 0));
    const char *b = json_string_value(json_array_get(merge, 1));
    if (!json_is_string(merge)) {
        return json_array_size(merge) == 2 && a != NULL && b != NULL &&
               set_merge(m, a, strlen(a), b) && find_merge(vocab, m, id);
    }
    return find_cut(vocab, json_string_value(merge), m, id);
}

static enum kiln_status read_merge(struct kiln_json_reader *r, const json_t *vocab,
                                   const json_t *merge, size_t i, struct kiln_err *err) {
    struct merge_text m;
    uint32_t id[3];
    if (!read_pair(vocab, merge, &m, id)) {
        const char *said = json_string_value(merge);
        said = said != NULL ? said : json_string_value(json_array_get(merge, 0));
        return KILN_JSON_FAIL(r, err, "merge %zu (\"%.100s\") is not two pieces that spell a third",
                              i, said != NULL ? said : "");
    }
    KILN_REQUIRE(kiln_parts_add_merge(&r->parts, id[0], id[1], id[2]), err, KILN_ENOMEM,
                 "tokenizer %s: out of memory", r->path);
    return KILN_OK;
}

static enum kiln_status read_merges(struct kiln_json_reader *r, struct kiln_err *err) {
    const json_t *model = json_object_get(r->root, "model");
    const json_t *merges = json_object_get(model, "merges");
    const json_t *vocab = json_object_get(model, "vocab");
    if (!json_is_array(merges)) {
        return KILN_JSON_FAIL(r, err, "its model has no list of %s", "merges");
    }
    for (size_t i = 0; i < json_array_size(merges); i++) {
        KILN_TRY(read_merge(r, vocab, json_array_get(merges, i), i, err));
    }
    return KILN_OK;
}

/* ---- the model ---------------------------------------------------------------------------- */

static enum kiln_status read_model(struct kiln_json_reader *r, struct kiln_err *err) {
    const json_t *model = json_object_get(r->root, "model");
    const char *type = kiln_json_text(model, "type", "BPE");
    if (strcmp(type, "BPE") != 0) {
        return KILN_JSON_FAIL(r, err, "its model is %.60s; kiln knows BPE", type);
    }
    if (!json_is_object(json_object_get(model, "vocab"))) {
        return KILN_JSON_FAIL(r, err, "has no %s", "model.vocab");
    }
    if (json_number_value(json_object_get(model, "dropout")) != 0.0) {
        return KILN_JSON_FAIL(r, err, "its model has %s, which kiln does not know", "dropout");
    }
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        if (kiln_json_text(model, affixes[i], "")[0] != '\0') {
            return KILN_JSON_FAIL(r, err, "its model has a %s, which kiln does not know",
                                  affixes[i]);
        }
    }
    r->parts.byte_fallback = kiln_json_flag(model, "byte_fallback", false);
    r->parts.fuse_unknown = kiln_json_flag(model, "fuse_unk", false);
    r->parts.ignore_merges = kiln_json_flag(model, "ignore_merges", false);
    return KILN_OK;
}

static enum kiln_status read_unknown(struct kiln_json_reader *r, struct kiln_err *err) {
    const char *name = kiln_json_text(json_object_get(r->root, "model"), "unk_token", NULL);
    if (name == NULL) {
        return KILN_OK;
    }
    r->parts.unknown = kiln_json_id(r, name);
    if (r->parts.unknown == KILN_NO_ID) {
        return KILN_JSON_FAIL(r, err, "its unk_token \"%.100s\" is not in its vocabulary", name);
    }
    r->parts.v.kind[r->parts.unknown] = KILN_KIND_UNKNOWN;
    return KILN_OK;
}

static enum kiln_status read_all(struct kiln_json_reader *r, struct kiln_err *err) {
    KILN_TRY(read_model(r, err));
    KILN_TRY(kiln_json_read_steps(r, err));
    KILN_TRY(read_vocabulary(r, err));
    KILN_TRY(read_added(r, err));
    KILN_TRY(read_unknown(r, err));
    KILN_TRY(read_merges(r, err));
    KILN_TRY(kiln_json_read_post_processor(r, err));
    return kiln_json_read_beside(r, err);
}

enum kiln_status kiln_json_tokenizer_open(const char *path, struct kiln_tokenizer **out,
                                          struct kiln_err *err) {
    struct kiln_json_reader r = {.path = path};
    *out = NULL;
    KILN_TRY(kiln_json_load(path, 0, &r.root, err));
    KILN_REQUIRE(r.root != NULL, err, KILN_EINPUT, "tokenizer %s: there is no such file", path);
    kiln_parts_init(&r.parts);
    enum kiln_status status = read_all(&r, err);
    if (status == KILN_OK) {
        status = kiln_tokenizer_make(&r.parts, path, out, err);
    }
    kiln_parts_fini(&r.parts);
    json_decref(r.root);
    return status;
}

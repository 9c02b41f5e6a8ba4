/* SPDX-License-Identifier: MIT
 *
 * json_write.c: a tokenizer as tokenizer.json, and the tokenizer_config.json beside it.
 *
 * What was read from a tokenizer.json is written so that it reads the same; what has scores instead
 * of merges gets the list of merges that its scores mean.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/merges.h"
#include "text/normalizer.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"

/* ---- pieces ------------------------------------------------------------------------------- */

static bool put_spelled(const struct kiln_tokenizer *tok, char c, struct kiln_bytes *out) {
    char letter[4];
    if (tok->parts.spelling == KILN_SPELL_BYTES) {
        size_t n = kiln_utf8_write(kiln_letter_of_byte((unsigned char)c), letter);
        return kiln_bytes_put(out, letter, n);
    }
    return c == ' ' ? kiln_bytes_put(out, KILN_LOWER_BLOCK, 3) : kiln_bytes_put(out, &c, 1);
}

/* In llama2.c's files "\n<s>\n" and "\n</s>\n" are what everybody else calls <s> and </s>. */
static const char *llama2c_mark(const struct kiln_tokenizer *tok, uint32_t id) {
    static const char *const names[] = {"<unk>", "<s>", "</s>"};
    return tok->parts.spelling == KILN_SPELL_LLAMA2C && id < 3 ? names[id] : NULL;
}

/* How the file spells a piece; it ends with a zero. */
static bool spell(const struct kiln_tokenizer *tok, uint32_t id, struct kiln_bytes *out) {
    size_t size;
    const char *piece = kiln_piece(&tok->parts.v, id, &size);
    const char *mark = llama2c_mark(tok, id);
    out->n = 0;
    if (mark != NULL) {
        return kiln_bytes_put(out, mark, strlen(mark) + 1);
    }
    bool as_it_is = tok->parts.v.kind[id] != KILN_KIND_TEXT;
    bool done = !as_it_is || kiln_bytes_put(out, piece, size);
    for (size_t i = 0; done && !as_it_is && i < size; i++) {
        done = put_spelled(tok, piece[i], out);
    }
    return done && kiln_bytes_put(out, "", 1);
}

/* ---- the list of merges ------------------------------------------------------------------- */

struct ranked {
    uint32_t rank, left, right, id;
};
struct ranking {
    struct ranked *list;
    size_t n, room;
    const uint32_t *rank;
};

static bool take_cut(void *context, uint32_t left, uint32_t right, uint32_t id) {
    struct ranking *r = context;
    if (r->n == r->room) {
        size_t room = r->room > 0 ? r->room * 2 : 1024;
        struct ranked *grown = kiln_realloc(r->list, r->room, room, sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        r->list = grown;
        r->room = room;
    }
    r->list[r->n++] = (struct ranked){r->rank[id], left, right, id};
    return true;
}

static int by_rank(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    const uint32_t p[] = {x->rank, x->id, x->left, x->right},
                   q[] = {y->rank, y->id, y->left, y->right};
    for (size_t i = 0; i < 4; i++) {
        if (p[i] != q[i]) {
            return p[i] < q[i] ? -1 : 1;
        }
    }
    return 0;
}

bool kiln_list_merges(const struct kiln_tokenizer *tok, struct kiln_merge **out, size_t *n) {
    const struct kiln_parts *p = &tok->parts;
    struct ranking r = {0};
    uint32_t *rank = NULL;
    bool done = true;
    if (p->scored) {
        r.rank = rank = kiln_score_ranks(&p->v);
        done = rank != NULL;
        for (uint32_t id = 0; done && id < p->v.n; id++) {
            done = !kiln_merges_scored(tok, id) || kiln_each_cut(tok, id, take_cut, &r);
        }
        if (r.n > 0) {
            qsort(r.list, r.n, sizeof *r.list, by_rank);
        }
    }
    *n = p->scored ? r.n : p->n_merges;
    *out = done ? kiln_alloc(*n, sizeof **out) : NULL;
    for (size_t i = 0; *out != NULL && i < *n; i++) {
        (*out)[i] = p->scored ? (struct kiln_merge){r.list[i].left, r.list[i].right, r.list[i].id}
                              : p->merge[i];
    }
    kiln_free(r.list);
    kiln_free(rank);
    return *out != NULL;
}

/* ---- steps -------------------------------------------------------------------------------- */

static bool is_blanks(const struct kiln_tokenizer *tok) {
    return tok->parts.spelling != KILN_SPELL_BYTES;
}

static json_t *pattern_json(const char *pattern, bool literal) {
    return json_pack("{s:s}", literal ? "String" : "Regex", pattern);
}

static json_t *rewrite_json(const struct kiln_rewrite *step) {
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"};
    if (step->kind == KILN_REWRITE_REPLACE) {
        return json_pack("{s:s, s:o, s:s}", "type", "Replace", "pattern",
                         pattern_json(step->pattern, step->literal), "content", step->content);
    }
    return json_pack("{s:s}", "type", forms[step->kind]);
}

static json_t *in_sequence(json_t *list, const char *name) {
    size_t n = json_array_size(list);
    json_t *out = n == 0   ? json_null()
                  : n == 1 ? json_incref(json_array_get(list, 0))
                           : json_pack("{s:s, s:O}", "type", "Sequence", name, list);
    json_decref(list);
    return out;
}

static bool prefix_is_normalizers(const struct kiln_parts *p) {
    return p->prefix == KILN_PREFIX_ALWAYS || p->prefix == KILN_PREFIX_ONCE;
}

static bool by_metaspace(const struct kiln_tokenizer *tok) {
    return is_blanks(tok) && !prefix_is_normalizers(&tok->parts) &&
           (tok->parts.prefix != KILN_PREFIX_NONE || tok->parts.n_splits > 0);
}

static json_t *normalizer_json(const struct kiln_tokenizer *tok) {
    const struct kiln_parts *p = &tok->parts;
    json_t *list = json_array();
    for (size_t i = 0; i < p->n_rewrites; i++) {
        (void)json_array_append_new(list, rewrite_json(&p->rewrite[i]));
    }
    if (prefix_is_normalizers(p)) {
        (void)json_array_append_new(
            list, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", KILN_LOWER_BLOCK));
    }
    if (is_blanks(tok) && !by_metaspace(tok)) {
        (void)json_array_append_new(
            list, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ",
                            "content", KILN_LOWER_BLOCK));
    }
    return in_sequence(list, "normalizers");
}

static json_t *cut_json(const struct kiln_cut *cut) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    return json_pack("{s:s, s:o, s:s, s:b}", "type", "Split", "pattern",
                     pattern_json(cut->pattern, cut->literal), "behavior", names[cut->behaviour],
                     "invert", cut->invert);
}

static bool is_byte_level_cut(const struct kiln_cut *cut) {
    return !cut->literal && cut->behaviour == KILN_CUT_ISOLATED && !cut->invert &&
           strcmp(cut->pattern, kiln_pattern_gpt2) == 0;
}

static json_t *byte_level_json(bool prefix, bool regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix,
                     "trim_offsets", 0, "use_regex", regex);
}

static json_t *metaspace_json(const struct kiln_parts *p) {
    const char *scheme = p->prefix == KILN_PREFIX_FIRST          ? "first"
                         : p->prefix == KILN_PREFIX_UNLESS_BLANK ? "always"
                                                                 : "never";
    return json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", KILN_LOWER_BLOCK,
                     "prepend_scheme", scheme, "split",
                     p->n_splits > 0 && strcmp(p->split[0].pattern, " ") == 0);
}

static json_t *pre_tokenizer_json(const struct kiln_tokenizer *tok) {
    const struct kiln_parts *p = &tok->parts;
    bool metaspace = by_metaspace(tok), byte_level = !is_blanks(tok);
    json_t *list = json_array();
    size_t n = p->n_splits, from = 0;
    if (metaspace) {
        (void)json_array_append_new(list, metaspace_json(p));
        from = n > 0 && strcmp(p->split[0].pattern, " ") == 0;
    }
    bool regex = byte_level && n > 0 && is_byte_level_cut(&p->split[n - 1]);
    for (size_t i = from; i < n - regex; i++) {
        (void)json_array_append_new(list, cut_json(&p->split[i]));
    }
    if (byte_level) {
        bool prefix = p->prefix != KILN_PREFIX_NONE;
        json_t *last = byte_level_json(prefix, regex);
        (void)json_array_append_new(list, last);
    }
    return in_sequence(list, "pretokenizers");
}

static json_t *decoder_json(const struct kiln_tokenizer *tok) {
    if (!is_blanks(tok)) {
        return byte_level_json(false, true);
    }
    json_t *list =
        json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String",
                  KILN_LOWER_BLOCK, "content", " ", "type", "ByteFallback", "type", "Fuse");
    if (tok->parts.strips_blank) {
        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip",
                                                    "content", " ", "start", 1, "stop", 0));
    }
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", list);
}

static void add_template_mark(json_t *single, json_t *pair, json_t *marks, uint32_t id,
                              const char *name) {
    json_t *item = json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", name, "type_id", 0);
    (void)json_array_append(single, item);
    (void)json_array_append_new(pair, item);
    (void)json_object_set_new(
        marks, name,
        json_pack("{s:s, s:[I], s:[s]}", "id", name, "ids", (json_int_t)id, "tokens", name));
}

static json_t *post_processor_json(const struct kiln_tokenizer *tok, struct kiln_bytes *room) {
    const struct kiln_parts *p = &tok->parts;
    if (!p->adds_bos && !p->adds_eos) {
        return is_blanks(tok) ? json_null() : byte_level_json(false, true);
    }
    json_t *single = json_array(), *pair = json_array(), *marks = json_object();
    if (p->adds_bos && spell(tok, p->bos, room)) {
        add_template_mark(single, pair, marks, p->bos, room->data);
    }
    (void)json_array_append_new(single,
                                json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    (void)json_array_append_new(pair,
                                json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    (void)json_array_append_new(pair,
                                json_pack("{s:{s:s, s:i}}", "Sequence", "id", "B", "type_id", 1));
    if (p->adds_eos && spell(tok, p->eos, room)) {
        add_template_mark(single, pair, marks, p->eos, room->data);
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair",
                     pair, "special_tokens", marks);
}

/* ---- the model ---------------------------------------------------------------------------- */

static json_t *vocab_json(const struct kiln_tokenizer *tok, struct kiln_bytes *room) {
    const struct kiln_vocabulary *v = &tok->parts.v;
    json_t *vocab = json_object();
    for (uint32_t id = 0; id < v->n; id++) {
        if (v->at[id + 1] == v->at[id] && v->kind[id] == KILN_KIND_UNUSED) {
            continue;
        }
        if (!spell(tok, id, room) ||
            (json_object_get(vocab, room->data) == NULL &&
             json_object_set_new(vocab, room->data, json_integer(id)) != 0)) {
            json_decref(vocab);
            return NULL;
        }
    }
    return vocab;
}

/* "a b" as everybody reads them; ["a", "b"], all of them, where a piece has a blank. */
static json_t *merge_json(const char *left, const char *right, bool pairs) {
    return pairs ? json_pack("[s, s]", left, right) : json_sprintf("%s %s", left, right);
}

static bool has_blanks(const struct kiln_tokenizer *tok, const struct kiln_merge *merge, size_t n,
                       struct kiln_bytes *room) {
    for (size_t i = 0; i < n; i++) {
        if (spell(tok, merge[i].id, room) && strchr(room->data, ' ') != NULL) {
            return true;
        }
    }
    return false;
}

static json_t *merges_json(const struct kiln_tokenizer *tok, struct kiln_bytes room[2]) {
    struct kiln_merge *merge;
    size_t n;
    if (!kiln_list_merges(tok, &merge, &n)) {
        return NULL;
    }
    json_t *list = json_array();
    const bool pairs = has_blanks(tok, merge, n, &room[0]);
    for (size_t i = 0; list != NULL && i < n; i++) {
        json_t *one = spell(tok, merge[i].left, &room[0]) && spell(tok, merge[i].right, &room[1])
                          ? merge_json(room[0].data, room[1].data, pairs)
                          : NULL;
        if (one == NULL || json_array_append_new(list, one) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    kiln_free(merge);
    return list;
}

static json_t *model_json(const struct kiln_tokenizer *tok, struct kiln_bytes room[2]) {
    const struct kiln_parts *p = &tok->parts;
    json_t *unknown = p->unknown != KILN_NO_ID && spell(tok, p->unknown, &room[0])
                          ? json_string(room[0].data)
                          : json_null();
    json_t *vocab = vocab_json(tok, &room[0]), *merges = merges_json(tok, room);
    return json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                     "unk_token", unknown, "continuing_subword_prefix", "end_of_word_suffix",
                     "fuse_unk", p->fuse_unknown || p->spelling == KILN_SPELL_LLAMA2C,
                     "byte_fallback", is_blanks(tok) && p->byte_fallback, "ignore_merges",
                     p->ignore_merges, "vocab", vocab, "merges", merges);
}

static json_t *one_added(const struct kiln_tokenizer *tok, struct kiln_added added,
                         struct kiln_bytes *room) {
    return spell(tok, added.id, room)
               ? json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)added.id,
                           "content", room->data, "single_word", added.single_word, "lstrip",
                           added.lstrip, "rstrip", added.rstrip, "normalized", added.normalized,
                           "special", added.special)
               : NULL;
}

static json_t *added_json(const struct kiln_tokenizer *tok, struct kiln_bytes *room) {
    const struct kiln_parts *p = &tok->parts;
    json_t *list = json_array();
    for (uint32_t id = 0; p->n_added == 0 && p->spelling == KILN_SPELL_LLAMA2C && id < 3; id++) {
        struct kiln_added mark = {.id = id, .special = true};
        (void)json_array_append_new(list, one_added(tok, mark, room));
    }
    for (size_t i = 0; i < p->n_added; i++) {
        (void)json_array_append_new(list, one_added(tok, p->added[i], room));
    }
    return list;
}

/* ---- the whole ---------------------------------------------------------------------------- */

/* A json_t as text of ours; takes `json`, which may be NULL. */
static enum kiln_status dump(json_t *json, const char *name, char **out, size_t *size,
                             struct kiln_err *err) {
    char *text = json != NULL ? json_dumps(json, JSON_INDENT(1)) : NULL;
    json_decref(json);
    *out = text != NULL ? kiln_strdup(text) : NULL;
    *size = text != NULL ? strlen(text) : 0;
    free(text);
    KILN_REQUIRE(*out != NULL, err, KILN_ENOMEM,
                 "tokenizer %s: out of memory, or a piece of it is "
                 "no UTF-8",
                 name);
    return KILN_OK;
}

/* Every piece of a JSON file is UTF-8 without a zero byte. */
static enum kiln_status check_pieces(const struct kiln_tokenizer *tok, struct kiln_err *err) {
    const struct kiln_vocabulary *v = &tok->parts.v;
    for (uint32_t id = 0; id < v->n && is_blanks(tok); id++) {
        size_t size;
        const char *piece = kiln_piece(v, id, &size);
        KILN_REQUIRE(kiln_utf8_bad_at(piece, size, 0) == size && memchr(piece, '\0', size) == NULL,
                     err, KILN_EUNSUPPORTED,
                     "tokenizer %s: the piece of id %u is no UTF-8 text, which a tokenizer.json "
                     "cannot hold",
                     tok->name, id);
    }
    return KILN_OK;
}

enum kiln_status kiln_json_tokenizer_text(const struct kiln_tokenizer *tok, char **out,
                                          size_t *size, struct kiln_err *err) {
    struct kiln_bytes room[2] = {{0}};
    *out = NULL;
    KILN_TRY(check_pieces(tok, err));
    json_t *root =
        json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                  "padding", "added_tokens", added_json(tok, &room[0]), "normalizer",
                  normalizer_json(tok), "pre_tokenizer", pre_tokenizer_json(tok), "post_processor",
                  post_processor_json(tok, &room[0]), "decoder", decoder_json(tok), "model",
                  model_json(tok, room));
    kiln_bytes_free(&room[0]);
    kiln_bytes_free(&room[1]);
    return dump(root, tok->name, out, size, err);
}

static void name_mark(json_t *config, const struct kiln_tokenizer *tok, const char *key,
                      uint32_t id, struct kiln_bytes *room) {
    if (id != KILN_NO_ID && spell(tok, id, room)) {
        (void)json_object_set_new(config, key, json_string(room->data));
    }
}

enum kiln_status kiln_json_config_text(const struct kiln_tokenizer *tok, char **out, size_t *size,
                                       struct kiln_err *err) {
    const struct kiln_parts *p = &tok->parts;
    struct kiln_bytes room = {0};
    if (p->config != NULL) {
        *out = kiln_strdup(p->config);
        *size = strlen(p->config);
        KILN_REQUIRE(*out != NULL, err, KILN_ENOMEM, "tokenizer %s: out of memory", tok->name);
        return KILN_OK;
    }
    json_t *config = json_pack("{s:s, s:b, s:b, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                               "add_bos_token", p->adds_bos, "add_eos_token", p->adds_eos,
                               "clean_up_tokenization_spaces", 0);
    name_mark(config, tok, "bos_token", p->bos, &room);
    name_mark(config, tok, "eos_token", p->eos, &room);
    name_mark(config, tok, "pad_token", p->pad, &room);
    kiln_bytes_free(&room);
    return dump(config, tok->name, out, size, err);
}

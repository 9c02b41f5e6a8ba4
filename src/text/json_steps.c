/* SPDX-License-Identifier: MIT
 *
 * json_steps.c: normalizer, pre-tokenizer and decoder of tokenizer.json. A step that kiln does not
 * know is an error that names it.
 */
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"

#define IS(a, b) (strcmp((a), (b)) == 0)

static enum kiln_status no_memory(const struct kiln_json_reader *r, struct kiln_err *err) {
    return KILN_FAIL(err, KILN_ENOMEM, "tokenizer %s: out of memory", r->path);
}

/* {"String": "x"} or {"Regex": "x"}. */
static enum kiln_status read_pattern(const struct kiln_json_reader *r, const json_t *step,
                                     const char **pattern, bool *literal, struct kiln_err *err) {
    const json_t *said = json_object_get(step, "pattern");
    const char *string = kiln_json_text(said, "String", NULL);
    *pattern = string != NULL ? string : kiln_json_text(said, "Regex", NULL);
    *literal = string != NULL;
    if (*pattern == NULL || **pattern == '\0') {
        return KILN_JSON_FAIL(r, err, "a step of type %s has no pattern",
                              kiln_json_text(step, "type", "?"));
    }
    return KILN_OK;
}

/* Each step of a Sequence, or the one step that is no Sequence. `list` names the Sequence's list.
 */
typedef enum kiln_status (*step_fn)(struct kiln_json_reader *r, const json_t *step,
                                    const char *type, struct kiln_err *err);
static enum kiln_status each_step(struct kiln_json_reader *r, const json_t *step, const char *list,
                                  step_fn read, int depth, struct kiln_err *err) {
    if (step == NULL || json_is_null(step)) {
        return KILN_OK;
    }
    const char *type = kiln_json_text(step, "type", NULL);
    if (type == NULL || depth > 8) {
        return KILN_JSON_FAIL(r, err, "%s: %s", list,
                              type == NULL ? "a step has no type" : "Sequences nested too deep");
    }
    if (!IS(type, "Sequence")) {
        return read(r, step, type, err);
    }
    const json_t *steps = json_object_get(step, list);
    for (size_t i = 0; i < json_array_size(steps); i++) {
        KILN_TRY(each_step(r, json_array_get(steps, i), list, read, depth + 1, err));
    }
    return KILN_OK;
}

/* ---- normalizer --------------------------------------------------------------------------- */

static enum kiln_status read_replace(struct kiln_json_reader *r, const json_t *step,
                                     struct kiln_err *err) {
    const char *pattern, *content = kiln_json_text(step, "content", NULL);
    bool literal;
    KILN_TRY(read_pattern(r, step, &pattern, &literal, err));
    if (content == NULL) {
        return KILN_JSON_FAIL(r, err, "the normalizer Replace of \"%s\" has no content", pattern);
    }
    if (IS(pattern, " ") && IS(content, KILN_LOWER_BLOCK)) {
        r->escapes = true;
        return KILN_OK;
    }
    if (r->parts.prefix != KILN_PREFIX_NONE || r->escapes) {
        return KILN_JSON_FAIL(r, err,
                              "the normalizer Replace of \"%s\" behind Prepend or behind the one "
                              "that makes blanks U+2581 is not known to kiln",
                              pattern);
    }
    return kiln_parts_add_rewrite(&r->parts, KILN_REWRITE_REPLACE, pattern, literal, content)
               ? KILN_OK
               : no_memory(r, err);
}

static enum kiln_status read_normalizer(struct kiln_json_reader *r, const json_t *step,
                                        const char *type, struct kiln_err *err) {
    static const struct {
        const char *name;
        enum kiln_rewrite_kind kind;
    } forms[] = {{"NFC", KILN_REWRITE_NFC},
                 {"NFD", KILN_REWRITE_NFD},
                 {"NFKC", KILN_REWRITE_NFKC},
                 {"NFKD", KILN_REWRITE_NFKD}};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (IS(type, forms[i].name)) {
            return kiln_parts_add_rewrite(&r->parts, forms[i].kind, NULL, false, NULL)
                       ? KILN_OK
                       : no_memory(r, err);
        }
    }
    if (IS(type, "Replace")) {
        return read_replace(r, step, err);
    }
    if (IS(type, "Prepend")) {
        const char *first = kiln_json_text(step, "prepend", "");
        if (!IS(first, KILN_LOWER_BLOCK) && !IS(first, " ")) {
            return KILN_JSON_FAIL(r, err, "the normalizer Prepend of \"%s\" is not known to kiln",
                                  first);
        }
        r->parts.prefix = KILN_PREFIX_ALWAYS;
        return KILN_OK;
    }
    return KILN_JSON_FAIL(r, err,
                          "the normalizer %s is not known to kiln, which has NFC, NFD, NFKC, NFKD, "
                          "Prepend, Replace and Sequence",
                          type);
}

/* ---- pre-tokenizer ------------------------------------------------------------------------ */

static enum kiln_status add_cut(struct kiln_json_reader *r, const char *pattern, bool literal,
                                enum kiln_behaviour behaviour, bool invert, struct kiln_err *err) {
    return kiln_parts_add_split(&r->parts, pattern, literal, behaviour, invert) ? KILN_OK
                                                                                : no_memory(r, err);
}

static enum kiln_status read_split(struct kiln_json_reader *r, const json_t *step,
                                   struct kiln_err *err) {
    static const char *const names[] = {
        [KILN_CUT_REMOVED] = "Removed",
        [KILN_CUT_ISOLATED] = "Isolated",
        [KILN_CUT_WITH_PREVIOUS] = "MergedWithPrevious",
        [KILN_CUT_WITH_NEXT] = "MergedWithNext",
        [KILN_CUT_CONTIGUOUS] = "Contiguous",
    };
    const char *pattern, *behaviour = kiln_json_text(step, "behavior", "");
    bool literal;
    KILN_TRY(read_pattern(r, step, &pattern, &literal, err));
    if (r->escapes) {
        /* no blank is left to be found */
        bool blank = literal && IS(pattern, " ");
        return blank ? KILN_OK
                     : KILN_JSON_FAIL(r, err,
                                      "the pre-tokenizer Split of \"%s\" behind blanks that are "
                                      "U+2581 is not known to kiln",
                                      pattern);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (IS(behaviour, names[i])) {
            return add_cut(r, pattern, literal, (enum kiln_behaviour)i,
                           kiln_json_flag(step, "invert", false), err);
        }
    }
    return KILN_JSON_FAIL(r, err, "the behavior \"%s\" of a Split is not known to kiln", behaviour);
}

static enum kiln_status read_byte_level(struct kiln_json_reader *r, const json_t *step,
                                        struct kiln_err *err) {
    r->byte_level = true;
    if (kiln_json_flag(step, "add_prefix_space", true)) {
        if (r->parts.n_splits > 0) {
            return KILN_JSON_FAIL(
                r, err,
                "the pre-tokenizer %s with add_prefix_space behind another is not known to kiln",
                "ByteLevel");
        }
        r->parts.prefix = KILN_PREFIX_UNLESS_BLANK;
    }
    return kiln_json_flag(step, "use_regex", true)
               ? add_cut(r, kiln_pattern_gpt2, false, KILN_CUT_ISOLATED, false, err)
               : KILN_OK;
}

static enum kiln_status read_metaspace(struct kiln_json_reader *r, const json_t *step,
                                       struct kiln_err *err) {
    const char *scheme =
        kiln_json_text(step, "prepend_scheme",
                       kiln_json_flag(step, "add_prefix_space", true) ? "always" : "never");
    const char *replacement = kiln_json_text(step, "replacement", KILN_LOWER_BLOCK);
    if (!IS(replacement, KILN_LOWER_BLOCK)) {
        return KILN_JSON_FAIL(r, err,
                              "the pre-tokenizer Metaspace with \"%s\" for blanks is not "
                              "known to kiln, which knows U+2581",
                              replacement);
    }
    if (r->parts.prefix != KILN_PREFIX_NONE || r->parts.n_splits > 0) {
        return KILN_JSON_FAIL(r, err,
                              "the pre-tokenizer %s behind another or behind Prepend is "
                              "not known to kiln",
                              "Metaspace");
    }
    r->escapes = true;
    r->parts.prefix = IS(scheme, "always")  ? KILN_PREFIX_UNLESS_BLANK
                      : IS(scheme, "first") ? KILN_PREFIX_FIRST
                                            : KILN_PREFIX_NONE;
    return kiln_json_flag(step, "split", true)
               ? add_cut(r, " ", true, KILN_CUT_WITH_NEXT, false, err)
               : KILN_OK;
}

static enum kiln_status read_pre_tokenizer(struct kiln_json_reader *r, const json_t *step,
                                           const char *type, struct kiln_err *err) {
    if (r->byte_level) {
        return KILN_JSON_FAIL(r, err, "the pre-tokenizer %s behind ByteLevel is not known to kiln",
                              type);
    }
    if (IS(type, "ByteLevel")) {
        return read_byte_level(r, step, err);
    }
    if (IS(type, "Split")) {
        return read_split(r, step, err);
    }
    if (IS(type, "Digits")) {
        bool alone = kiln_json_flag(step, "individual_digits", false);
        return add_cut(r, "\\p{N}", false, alone ? KILN_CUT_ISOLATED : KILN_CUT_CONTIGUOUS, false,
                       err);
    }
    if (IS(type, "Metaspace")) {
        return read_metaspace(r, step, err);
    }
    return KILN_JSON_FAIL(r, err,
                          "the pre-tokenizer %s is not known to kiln, which has ByteLevel, Split, "
                          "Digits, Metaspace and Sequence",
                          type);
}

/* ---- decoder ------------------------------------------------------------------------------ */

static enum kiln_status read_decoder(struct kiln_json_reader *r, const json_t *step,
                                     const char *type, struct kiln_err *err) {
    if (IS(type, "ByteLevel")) {
        r->byte_level = true;
    } else if (IS(type, "Strip")) {
        const json_t *start = json_object_get(step, "start");
        const json_t *stop = json_object_get(step, "stop");
        if (json_integer_value(start) > 1 || json_integer_value(stop) > 0 ||
            !IS(kiln_json_text(step, "content", " "), " ")) {
            return KILN_JSON_FAIL(r, err,
                                  "the decoder %s of anything but one blank in front is "
                                  "not known to kiln",
                                  type);
        }
        r->parts.strips_blank = json_integer_value(start) == 1;
    } else if (IS(type, "Metaspace")) {
        const char *scheme = kiln_json_text(step, "prepend_scheme", "always");
        r->parts.strips_blank = !IS(scheme, "never");
    } else if (IS(type, "Replace")) {
        const char *pattern;
        bool literal;
        KILN_TRY(read_pattern(r, step, &pattern, &literal, err));
        if (!IS(pattern, KILN_LOWER_BLOCK) || !IS(kiln_json_text(step, "content", ""), " ")) {
            return KILN_JSON_FAIL(r, err, "the decoder Replace of \"%s\" is not known to kiln",
                                  pattern);
        }
    } else if (!IS(type, "ByteFallback") && !IS(type, "Fuse")) {
        return KILN_JSON_FAIL(r, err,
                              "the decoder %s is not known to kiln, which has ByteLevel, Replace, "
                              "ByteFallback, Fuse, Strip, Metaspace and Sequence",
                              type);
    }
    return KILN_OK;
}

enum kiln_status kiln_json_read_steps(struct kiln_json_reader *r, struct kiln_err *err) {
    const json_t *root = r->root;
    KILN_TRY(
        each_step(r, json_object_get(root, "normalizer"), "normalizers", read_normalizer, 0, err));
    KILN_TRY(each_step(r, json_object_get(root, "pre_tokenizer"), "pretokenizers",
                       read_pre_tokenizer, 0, err));
    bool cuts_bytes = r->byte_level;
    KILN_TRY(each_step(r, json_object_get(root, "decoder"), "decoders", read_decoder, 0, err));
    if (r->byte_level != cuts_bytes || r->byte_level == r->escapes) {
        return KILN_JSON_FAIL(r, err,
                              "%s; kiln knows byte-level tokenizers (ByteLevel as pre-tokenizer "
                              "and decoder) and SentencePiece-like ones (U+2581 for blanks)",
                              r->byte_level && r->escapes
                                  ? "is byte-level and has U+2581 for blanks"
                              : r->byte_level ? "has only one of the pre-tokenizer and the decoder "
                                                "ByteLevel"
                                              : "is neither byte-level nor has U+2581 for blanks");
    }
    r->parts.spelling = r->byte_level ? KILN_SPELL_BYTES : KILN_SPELL_BLANKS;
    return KILN_OK;
}

/* SPDX-License-Identifier: MIT
 *
 * tokenizer_json.h: Hugging Face's tokenizer.json, in and out. Inside src/text only.
 *
 * Read in tokenizer_json.c (the whole, vocabulary, merges), json_steps.c (normalizer,
 * pre-tokenizer, decoder) and json_marks.c (added tokens, post-processor, the files beside it);
 * written in json_write.c.
 */
#ifndef KILN_TEXT_TOKENIZER_JSON_H
#define KILN_TEXT_TOKENIZER_JSON_H

#include <jansson.h>

#include "text/text_int.h"

/* Read tokenizer.json, and what tokenizer_config.json, special_tokens_map.json and
 * generation_config.json in its folder say of BOS and EOS where it is silent. */
KILN_MUST_CHECK enum kiln_status kiln_json_tokenizer_open(const char *path,
                                                          struct kiln_tokenizer **out,
                                                          struct kiln_err *err);
/* tokenizer.json as text on the heap (kiln_free). KILN_EUNSUPPORTED when it cannot be said so. */
KILN_MUST_CHECK enum kiln_status kiln_json_tokenizer_text(const struct kiln_tokenizer *tok,
                                                          char **out, size_t *size,
                                                          struct kiln_err *err);
/* tokenizer_config.json: the one that came with the tokenizer, or what can be said of it. */
KILN_MUST_CHECK enum kiln_status kiln_json_config_text(const struct kiln_tokenizer *tok, char **out,
                                                       size_t *size, struct kiln_err *err);

/* ---- between the files that read ---------------------------------------------------------- */

struct kiln_json_reader {
    const char *path;
    json_t *root;
    struct kiln_parts parts;
    bool escapes;    /* the normalizer makes blanks U+2581, or the pre-tokenizer does */
    bool byte_level; /* the pre-tokenizer or the decoder spells bytes */
};
/* A failure that names the file. */
#define KILN_JSON_FAIL(r, err, fmt, ...) \
    KILN_FAIL(err, KILN_EINPUT, "tokenizer %s: " fmt, (r)->path, __VA_ARGS__)

/* A member of an object: text, flag or number, or what is given when it is absent or null. */
const char *kiln_json_text(const json_t *object, const char *key, const char *absent);
bool kiln_json_flag(const json_t *object, const char *key, bool absent);
/* A file's JSON, an object; *out is NULL when the file is absent. `flags`: jansson's. */
KILN_MUST_CHECK enum kiln_status kiln_json_load(const char *path, size_t flags, json_t **out,
                                                struct kiln_err *err);

KILN_MUST_CHECK enum kiln_status kiln_json_read_steps(struct kiln_json_reader *r,
                                                      struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_json_read_post_processor(struct kiln_json_reader *r,
                                                               struct kiln_err *err);
/* BOS and EOS from the files beside it, or by their usual names. */
KILN_MUST_CHECK enum kiln_status kiln_json_read_beside(struct kiln_json_reader *r,
                                                       struct kiln_err *err);
/* The id of a piece as the file spells it, KILN_NO_ID when it has none. */
uint32_t kiln_json_id(const struct kiln_json_reader *r, const char *piece);

#endif

/* SPDX-License-Identifier: MIT
 *
 * json_marks.c: BOS and EOS of a tokenizer.json: from its post-processor, else from the files
 * beside it, else by the names that these families use.
 */
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "text/tokenizer_json.h"

/* ---- the post-processor ------------------------------------------------------------------- */

/* The one id of a template's special token. */
static enum kiln_status template_id(const struct kiln_json_reader *r, const json_t *processor,
                                    const char *name, uint32_t *out, struct kiln_err *err) {
    const json_t *said = json_object_get(json_object_get(processor, "special_tokens"), name);
    const json_t *ids = json_object_get(said, "ids");
    const json_t *id = json_array_get(ids, 0);
    if (json_array_size(ids) != 1 || !json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= KILN_NO_ID) {
        return KILN_JSON_FAIL(r, err, "the post-processor's token \"%s\" has not one id", name);
    }
    *out = (uint32_t)json_integer_value(id);
    return KILN_OK;
}

static enum kiln_status read_template(struct kiln_json_reader *r, const json_t *processor,
                                      struct kiln_err *err) {
    const json_t *single = json_object_get(processor, "single");
    bool behind = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const char *name = kiln_json_text(json_object_get(item, "SpecialToken"), "id", NULL);
        if (name == NULL) {
            behind = true;
            continue;
        }
        bool *adds = behind ? &r->parts.adds_eos : &r->parts.adds_bos;
        if (*adds) {
            return KILN_JSON_FAIL(r, err,
                                  "the post-processor puts two tokens %s a text, \"%s\" "
                                  "is the second; kiln knows one",
                                  behind ? "behind" : "before", name);
        }
        *adds = true;
        KILN_TRY(template_id(r, processor, name, behind ? &r->parts.eos : &r->parts.bos, err));
    }
    return KILN_OK;
}

static enum kiln_status read_processor(struct kiln_json_reader *r, const json_t *processor,
                                       int depth, struct kiln_err *err) {
    if (processor == NULL || json_is_null(processor)) {
        return KILN_OK;
    }
    const char *type = kiln_json_text(processor, "type", "");
    if (strcmp(type, "ByteLevel") == 0) {
        return KILN_OK; /* it mends offsets, which kiln does not give */
    }
    if (strcmp(type, "TemplateProcessing") == 0) {
        return read_template(r, processor, err);
    }
    if (strcmp(type, "Sequence") == 0 && depth < 8) {
        const json_t *list = json_object_get(processor, "processors");
        for (size_t i = 0; i < json_array_size(list); i++) {
            KILN_TRY(read_processor(r, json_array_get(list, i), depth + 1, err));
        }
        return KILN_OK;
    }
    return KILN_JSON_FAIL(r, err,
                          "the post-processor \"%s\" is not known to kiln, which has "
                          "TemplateProcessing, ByteLevel and Sequence",
                          type);
}

enum kiln_status kiln_json_read_post_processor(struct kiln_json_reader *r, struct kiln_err *err) {
    return read_processor(r, json_object_get(r->root, "post_processor"), 0, err);
}

/* ---- the files beside it ------------------------------------------------------------------ */

static char *beside(const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return kiln_strdup(name);
    }
    char *folder = kiln_strndup(path, (size_t)(slash - path));
    char *all = folder != NULL ? kiln_path_join(folder, name) : NULL;
    kiln_free(folder);
    return all;
}

static enum kiln_status load_beside(const struct kiln_json_reader *r, const char *name,
                                    json_t **out, struct kiln_err *err) {
    char *path = beside(r->path, name);
    *out = NULL;
    KILN_REQUIRE(path != NULL, err, KILN_ENOMEM, "tokenizer %s: out of memory", r->path);
    /* model_max_length is 10^30 in many */
    enum kiln_status status = kiln_json_load(path, JSON_DECODE_INT_AS_REAL, out, err);
    kiln_free(path);
    return status;
}

/* A token is named by its text, or by an object with its content. */
static void take_name(const struct kiln_json_reader *r, const json_t *object, const char *key,
                      uint32_t *id) {
    const json_t *said = json_object_get(object, key);
    const char *name =
        json_is_object(said) ? kiln_json_text(said, "content", NULL) : json_string_value(said);
    if (*id == KILN_NO_ID && name != NULL) {
        *id = kiln_json_id(r, name);
    }
}

/* Of several ids the first. */
static void take_number(const struct kiln_json_reader *r, const json_t *object, const char *key,
                        uint32_t *id) {
    const json_t *said = json_object_get(object, key);
    said = json_is_array(said) ? json_array_get(said, 0) : said;
    double number = json_number_value(said);
    if (*id == KILN_NO_ID && json_is_number(said) && number >= 0 && number < (double)r->parts.v.n) {
        *id = (uint32_t)number;
    }
}

static void take_usual(const struct kiln_json_reader *r, const char *const *names, uint32_t *id) {
    for (; *id == KILN_NO_ID && *names != NULL; names++) {
        uint32_t found = kiln_json_id(r, *names);
        if (found != KILN_NO_ID && r->parts.v.kind[found] == KILN_KIND_CONTROL) {
            *id = found;
        }
    }
}

/* As it is: it holds more than kiln knows of, a chat template for one. */
static enum kiln_status keep_config(struct kiln_json_reader *r, struct kiln_err *err) {
    size_t size;
    char *path = beside(r->path, "tokenizer_config.json");
    KILN_REQUIRE(path != NULL, err, KILN_ENOMEM, "tokenizer %s: out of memory", r->path);
    enum kiln_status status = kiln_read_file(path, &r->parts.config, &size, err);
    kiln_free(path);
    return status;
}

static enum kiln_status read_config(struct kiln_json_reader *r, struct kiln_err *err) {
    json_t *config;
    bool has_template = r->parts.adds_bos || r->parts.adds_eos;
    KILN_TRY(load_beside(r, "tokenizer_config.json", &config, err));
    take_name(r, config, "bos_token", &r->parts.bos);
    take_name(r, config, "eos_token", &r->parts.eos);
    take_name(r, config, "pad_token", &r->parts.pad);
    if (!has_template && r->parts.bos != KILN_NO_ID) {
        r->parts.adds_bos = kiln_json_flag(config, "add_bos_token", false);
    }
    bool there = config != NULL;
    json_decref(config);
    return there ? keep_config(r, err) : KILN_OK;
}

enum kiln_status kiln_json_read_beside(struct kiln_json_reader *r, struct kiln_err *err) {
    static const char *const usual_bos[] = {"<s>", "<|begin_of_text|>", NULL};
    static const char *const usual_eos[] = {"</s>",       "<|end_of_text|>", "<|endoftext|>",
                                            "<|im_end|>", "<|eot_id|>",      "<|end_story|>",
                                            NULL};
    json_t *map, *generation;
    KILN_TRY(read_config(r, err));
    KILN_TRY(load_beside(r, "special_tokens_map.json", &map, err));
    take_name(r, map, "bos_token", &r->parts.bos);
    take_name(r, map, "eos_token", &r->parts.eos);
    take_name(r, map, "pad_token", &r->parts.pad);
    json_decref(map);
    KILN_TRY(load_beside(r, "generation_config.json", &generation, err));
    take_number(r, generation, "bos_token_id", &r->parts.bos);
    take_number(r, generation, "eos_token_id", &r->parts.eos);
    take_number(r, generation, "pad_token_id", &r->parts.pad);
    json_decref(generation);
    take_usual(r, usual_bos, &r->parts.bos);
    take_usual(r, usual_eos, &r->parts.eos);
    return KILN_OK;
}

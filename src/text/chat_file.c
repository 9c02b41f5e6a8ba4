/* SPDX-License-Identifier: MIT
 *
 * chat_file.c: where chat templates lie, and how they are kept: chat_template.jinja,
 * tokenizer_config.json, GGUF's key tokenizer.chat_template.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "text/chat.h"
#include "text/tokenizer_json.h"

#define GGUF_KEY "tokenizer.chat_template"

const char *const kiln_chat_specials[KILN_CHAT_SPECIALS] = {"bos_token", "eos_token", "unk_token",
                                                            "pad_token"};
/* Their ids in GGUF. */
static const char *const gguf_ids[KILN_CHAT_SPECIALS] = {
    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id"};

/* model_max_length is 10^30 in many */
static enum kiln_status read_config(const char *path, json_t **out, struct kiln_err *err) {
    return kiln_json_load(path, JSON_DECODE_INT_AS_REAL, out, err);
}

/* chat_template: a text, or a list of named ones, of which "default" is meant. */
static enum kiln_status choose(const char *path, const json_t *templates, const char **out,
                               size_t *size, struct kiln_err *err) {
    const json_t *chosen = json_is_string(templates) ? templates : NULL;
    size_t i;
    json_t *entry;
    json_array_foreach((json_t *)(uintptr_t)templates, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && strcmp(name, "default") == 0) {
            chosen = json_object_get(entry, "template");
        }
    }
    KILN_REQUIRE(json_is_string(chosen), err, KILN_EINPUT,
                 "%s: chat_template is neither a text nor a list with one named default", path);
    *out = json_string_value(chosen);
    *size = json_string_length(chosen);
    return KILN_OK;
}

static enum kiln_status keep(struct kiln_chat *chat, const char *path, const char *source,
                             size_t size, struct kiln_err *err) {
    chat->source = kiln_strndup(source, size);
    chat->size = size;
    KILN_REQUIRE(chat->source, err, KILN_ENOMEM, "chat template %s: out of memory", path);
    return KILN_OK;
}

static enum kiln_status from_file(struct kiln_chat *chat, const char *path, struct kiln_err *err) {
    char *source;
    size_t size;
    KILN_TRY(kiln_read_file(path, &source, &size, err));
    const enum kiln_status status = keep(chat, path, source, size, err);
    kiln_free(source);
    return status;
}

static enum kiln_status from_config(struct kiln_chat *chat, const char *path,
                                    struct kiln_err *err) {
    const json_t *templates = json_object_get(chat->config, "chat_template");
    const char *source = NULL;
    size_t size = 0;
    KILN_REQUIRE(templates && !json_is_null(templates), err, KILN_EINPUT,
                 "%s: no chat_template in it", path);
    KILN_TRY(choose(path, templates, &source, &size, err));
    return keep(chat, path, source, size, err);
}

/* Of a folder: chat_template.jinja comes before what tokenizer_config.json says. */
static enum kiln_status from_folder(struct kiln_chat *chat, const char *folder,
                                    struct kiln_err *err) {
    char path[4300], own[4300];
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    snprintf(own, sizeof own, "%s/chat_template.jinja", folder);
    if (kiln_path_exists(path)) {
        json_decref(chat->config);
        chat->config = NULL;
        KILN_TRY(read_config(path, &chat->config, err));
    }
    if (kiln_path_exists(own)) {
        return from_file(chat, own, err);
    }
    KILN_REQUIRE(kiln_path_exists(path), err, KILN_EINPUT,
                 "%s: neither chat_template.jinja nor tokenizer_config.json is there", folder);
    return from_config(chat, path, err);
}

static bool is_gguf(const char *path) {
    struct kiln_map map;
    if (kiln_path_is_dir(path) || kiln_map_open(&map, path, NULL) != KILN_OK) {
        return false;
    }
    const bool is = kiln_gguf_recognizes(&map);
    kiln_map_close(&map);
    return is;
}

/* The text of the special token whose id a key holds, into config[name]; nothing where it has
 * none. */
static bool take_special(json_t *config, const struct kiln_gguf *gguf, const char *key,
                         const char *name) {
    const struct kiln_gguf_pair *id = kiln_gguf_find(gguf, key), *tokens;
    int64_t at;
    if (id == NULL || !kiln_gguf_integer_at(id, 0, &at) || at < 0 ||
        kiln_gguf_strings(gguf, "tokenizer.ggml.tokens", &tokens, NULL) != KILN_OK ||
        (size_t)at >= tokens->n) {
        return true;
    }
    const struct kiln_gguf_string text = tokens->strings[at];
    return json_object_set_new(config, name, json_stringn(text.data, text.size)) == 0;
}

static enum kiln_status take_specials(json_t *config, const struct kiln_gguf *gguf,
                                      const char *path, struct kiln_err *err) {
    for (size_t i = 0; i < KILN_CHAT_SPECIALS; i++) {
        KILN_REQUIRE(take_special(config, gguf, gguf_ids[i], kiln_chat_specials[i]), err,
                     KILN_EINPUT, "%s: token %s is not UTF-8", path, kiln_chat_specials[i]);
    }
    return KILN_OK;
}

static enum kiln_status from_gguf(struct kiln_chat *chat, const char *path, struct kiln_err *err) {
    struct kiln_gguf *gguf;
    struct kiln_gguf_string source;
    KILN_TRY(kiln_gguf_open(path, &gguf, err));
    enum kiln_status status = kiln_gguf_text(gguf, GGUF_KEY, &source, err);
    if (status == KILN_OK) {
        status = take_specials(chat->config, gguf, path, err);
    }
    if (status == KILN_OK) {
        status = keep(chat, path, source.data, source.size, err);
    }
    kiln_gguf_close(gguf);
    return status;
}

static bool gguf_has_one(const char *path) {
    struct kiln_gguf *gguf;
    if (!is_gguf(path) || kiln_gguf_open(path, &gguf, NULL) != KILN_OK) {
        return false;
    }
    const struct kiln_gguf_pair *pair = kiln_gguf_find(gguf, GGUF_KEY);
    const bool is = pair != NULL && pair->strings != NULL && !pair->array;
    kiln_gguf_close(gguf);
    return is;
}

/* Special tokens that chat's own configuration does not name, from what lies at, or beside, `path`
 * (a folder, a file, a GGUF file; NULL: nothing does). */
static enum kiln_status borrow_specials(struct kiln_chat *chat, const char *path,
                                        struct kiln_err *err) {
    struct kiln_chat other = {.config = NULL};
    char beside[4300];
    if (path == NULL || !kiln_path_exists(path) || strlen(path) > 4200) {
        return KILN_OK;
    }
    if (is_gguf(path)) {
        struct kiln_gguf *gguf;
        KILN_TRY(kiln_gguf_open(path, &gguf, err));
        other.config = json_object();
        const enum kiln_status status = take_specials(other.config, gguf, path, err);
        kiln_gguf_close(gguf);
        if (status != KILN_OK) {
            json_decref(other.config);
            return status;
        }
    } else {
        snprintf(beside, sizeof beside, "%s", path);
        char *slash = strrchr(beside, '/');
        char *end = kiln_path_is_dir(path) ? beside + strlen(beside) : slash ? slash : beside;
        snprintf(end, sizeof beside - (size_t)(end - beside), "%stokenizer_config.json",
                 end == beside ? "" : "/");
        KILN_TRY(read_config(beside, &other.config, err));
    }
    for (size_t i = 0; i < KILN_CHAT_SPECIALS; i++) {
        json_t *token = json_object_get(other.config, kiln_chat_specials[i]);
        if (token && kiln_chat_special(chat, kiln_chat_specials[i]) == NULL) {
            json_object_set(chat->config, kiln_chat_specials[i], token);
        }
    }
    json_decref(other.config);
    return KILN_OK;
}

static enum kiln_status find(struct kiln_chat *chat, const char *path, struct kiln_err *err) {
    if (kiln_path_is_dir(path)) {
        return from_folder(chat, path, err);
    }
    if (is_gguf(path)) {
        return from_gguf(chat, path, err);
    }
    if (kiln_path_ends(path, ".json")) {
        json_decref(chat->config);
        chat->config = NULL;
        KILN_TRY(read_config(path, &chat->config, err));
        return from_config(chat, path, err);
    }
    KILN_TRY(from_file(chat, path, err));
    return borrow_specials(chat, path, err);
}

static enum kiln_status make_chat(const char *path, struct kiln_chat **out, struct kiln_err *err) {
    *out = kiln_alloc(1, sizeof **out);
    KILN_REQUIRE(*out, err, KILN_ENOMEM, "chat template %s: out of memory", path);
    (*out)->config = json_object();
    return KILN_OK;
}

/* Without a look at what it says. */
static enum kiln_status read_chat(const char *path, struct kiln_chat **out, struct kiln_err *err) {
    KILN_TRY(make_chat(path, out, err));
    const enum kiln_status status = find(*out, path, err);
    if (status != KILN_OK) {
        kiln_chat_close(*out);
        *out = NULL;
    }
    return status;
}

static enum kiln_status parse(struct kiln_chat *chat, const char *path, struct kiln_err *err) {
    return kiln_template_parse(path, chat->source, chat->size, &chat->tpl, err);
}

enum kiln_status kiln_chat_open(const char *path, struct kiln_chat **out, struct kiln_err *err) {
    KILN_TRY(read_chat(path, out, err));
    const enum kiln_status status = parse(*out, path, err);
    if (status != KILN_OK) {
        kiln_chat_close(*out);
        *out = NULL;
    }
    return status;
}

/* What is wrong with it is kept for whoever needs it. */
static enum kiln_status open_found(const char *path, struct kiln_chat **out, struct kiln_err *err) {
    KILN_TRY(make_chat(path, out, err));
    struct kiln_chat *chat = *out;
    if (find(chat, path, &chat->wrong) == KILN_OK && parse(chat, path, &chat->wrong) == KILN_OK) {
        chat->wrong.code = KILN_OK;
    }
    return KILN_OK;
}

static enum kiln_status open_named(const char *named, const char *model, const char *tokenizer,
                                   struct kiln_chat **out, struct kiln_err *err) {
    const char *const beside[] = {tokenizer, model};
    enum kiln_status status = kiln_chat_open(named, out, err);
    for (size_t i = 0; status == KILN_OK && i < sizeof beside / sizeof beside[0]; i++) {
        status = borrow_specials(*out, beside[i], err);
    }
    if (status != KILN_OK) {
        kiln_chat_close(*out);
        *out = NULL;
    }
    return status;
}

enum kiln_status kiln_chat_choose(const char *named, const char *model, const char *tokenizer,
                                  struct kiln_chat **out, struct kiln_err *err) {
    char path[4300];
    *out = NULL;
    if (named != NULL) {
        return open_named(named, model, tokenizer, out, err);
    }
    const bool found =
        kiln_chat_find(model, path, sizeof path) || kiln_chat_find(tokenizer, path, sizeof path);
    return found ? open_found(path, out, err) : KILN_OK;
}

enum kiln_status kiln_chat_usable(const struct kiln_chat *chat, struct kiln_err *err) {
    KILN_REQUIRE(chat->tpl, err, chat->wrong.code, "%s", chat->wrong.message);
    return KILN_OK;
}

bool kiln_chat_is_there(const char *folder) {
    char path[4300];
    json_t *config;
    if (!kiln_path_is_dir(folder)) {
        return gguf_has_one(folder);
    }
    snprintf(path, sizeof path, "%s/chat_template.jinja", folder);
    if (kiln_path_exists(path)) {
        return true;
    }
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    struct kiln_err why;
    if (!kiln_path_exists(path)) {
        return false;
    }
    if (read_config(path, &config, &why) != KILN_OK) {
        return true; /* whoever opens it is told */
    }
    const json_t *templates = json_object_get(config, "chat_template");
    const bool is = templates && !json_is_null(templates);
    json_decref(config);
    return is;
}

bool kiln_chat_find(const char *path, char *out, size_t size) {
    if (path == NULL || !kiln_path_exists(path) || strlen(path) >= size || size < 2) {
        return false;
    }
    snprintf(out, size, "%s", path);
    if (kiln_path_is_dir(path) || kiln_chat_is_there(path)) {
        return kiln_chat_is_there(path);
    }
    char *slash = strrchr(out, '/');
    if (slash == NULL) {
        snprintf(out, size, ".");
    } else {
        slash[slash == out] = '\0'; /* of /file the folder is / */
    }
    return kiln_chat_is_there(out);
}

void kiln_chat_close(struct kiln_chat *chat) {
    if (chat != NULL) {
        kiln_template_free(chat->tpl);
        json_decref(chat->config);
        kiln_free(chat->source);
        kiln_free(chat);
    }
}

/* bos_token and the like: a text, or an object whose content is one. */
const char *kiln_chat_special(const struct kiln_chat *chat, const char *name) {
    const json_t *token = json_object_get(chat->config, name);
    token = json_is_object(token) ? json_object_get(token, "content") : token;
    return json_string_value(token);
}
const char *kiln_chat_bos(const struct kiln_chat *chat) {
    return kiln_chat_special(chat, "bos_token");
}
const char *kiln_chat_eos(const struct kiln_chat *chat) {
    return kiln_chat_special(chat, "eos_token");
}

/* The special tokens that a folder's tokenizer_config.json does not name are added to it. */
static json_t *config_with(const struct kiln_chat *chat, const char *path) {
    json_t *config = NULL;
    if (!kiln_path_exists(path) || read_config(path, &config, NULL) != KILN_OK) {
        config = json_object();
    }
    bool ok = config != NULL;
    for (size_t i = 0; ok && i < KILN_CHAT_SPECIALS; i++) {
        json_t *token = json_object_get(chat->config, kiln_chat_specials[i]);
        const json_t *there = json_object_get(config, kiln_chat_specials[i]);
        if (token && (there == NULL || json_is_null(there))) {
            ok = json_object_set(config, kiln_chat_specials[i], token) == 0;
        }
    }
    if (!ok) {
        json_decref(config);
        return NULL;
    }
    return config;
}

enum kiln_status kiln_chat_save(const struct kiln_chat *chat, const char *folder,
                                struct kiln_err *err) {
    char path[4300];
    if (chat->source == NULL) {
        return KILN_OK;
    }
    snprintf(path, sizeof path, "%s/chat_template.jinja", folder);
    KILN_TRY(kiln_write_file(path, chat->source, chat->size, err));
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    json_t *config = config_with(chat, path);
    char *text = config ? json_dumps(config, JSON_INDENT(2)) : NULL;
    json_decref(config);
    KILN_REQUIRE(text, err, KILN_ENOMEM, "%s: out of memory", folder);
    const enum kiln_status status = kiln_write_file(path, text, strlen(text), err);
    free(text); /* jansson allocates with malloc */
    return status;
}

enum kiln_status kiln_chat_copy(const char *path, const char *folder, struct kiln_err *err) {
    struct kiln_chat *chat;
    KILN_TRY(read_chat(path, &chat, err));
    const enum kiln_status status = kiln_chat_save(chat, folder, err);
    kiln_chat_close(chat);
    return status;
}

enum kiln_status kiln_gguf_chat_put(const char *path, struct kiln_gguf_pairs *pairs,
                                    struct kiln_err *err) {
    struct kiln_chat *chat;
    KILN_TRY(read_chat(path, &chat, err));
    const struct kiln_gguf_string text = {.data = chat->source, .size = chat->size};
    const struct kiln_gguf_pair pair = {.key = {.data = GGUF_KEY, .size = strlen(GGUF_KEY)},
                                        .type = KILN_GGUF_STRING,
                                        .n = 1,
                                        .strings = &text};
    const enum kiln_status status = kiln_gguf_put_pair(pairs, &pair, err);
    kiln_chat_close(chat);
    return status;
}

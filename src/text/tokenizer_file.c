/* SPDX-License-Identifier: MIT
 *
 * tokenizer_file.c: which form a tokenizer's file has: told by what it begins with when it is read,
 * by how its name ends when it is written.
 */
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "text/text_int.h"
#include "text/tokenizer_files.h"
#include "text/tokenizer_json.h"

bool kiln_tokenizer_in(const char *folder, char *path, size_t size) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "tokenizer.bin"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int n = snprintf(path, size, "%s/%s", folder, names[i]);
        if (n > 0 && (size_t)n < size && kiln_path_exists(path)) {
            return true;
        }
    }
    return false;
}

typedef enum kiln_status (*open_fn)(const char *path, struct kiln_tokenizer **out,
                                    struct kiln_err *err);

static bool is_json(const struct kiln_map *map) {
    size_t at = 0;
    while (at < map->size && memchr(" \t\r\n", map->data[at], 4) != NULL) {
        at++;
    }
    return at < map->size && map->data[at] == '{';
}

/* Field 1 with a length: a SentencePiece model begins with its first piece. llama2.c's length of
 * the longest piece has zeros there. */
static bool is_sentencepiece(const struct kiln_map *map) {
    return map->size >= 4 && map->data[0] == 0x0A && map->data[1] != 0 &&
           (map->data[2] != 0 || map->data[3] != 0);
}

static open_fn form_of(const char *path, const struct kiln_map *map) {
    if (map->size >= 4 && memcmp(map->data, "GGUF", 4) == 0) {
        return kiln_gguf_tokenizer_open;
    }
    if (kiln_path_ends(path, ".json") || (is_json(map) && !kiln_path_ends(path, ".bin"))) {
        return kiln_json_tokenizer_open;
    }
    if (kiln_path_ends(path, ".model") || is_sentencepiece(map)) {
        return kiln_sentencepiece_open;
    }
    return kiln_llama2c_tokenizer_open;
}

const char *kiln_tokenizer_form(const char *path) {
    static const struct {
        open_fn open;
        const char *name;
    } forms[] = {
        {kiln_gguf_tokenizer_open, "GGUF"},
        {kiln_json_tokenizer_open, "tokenizer.json"},
        {kiln_sentencepiece_open, "SentencePiece .model"},
    };
    struct kiln_map map;
    if (kiln_map_open(&map, path, NULL) != KILN_OK) {
        return "unknown";
    }
    const open_fn open = form_of(path, &map);
    kiln_map_close(&map);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (open == forms[i].open) {
            return forms[i].name;
        }
    }
    return "llama2.c tokenizer.bin";
}

enum kiln_status kiln_tokenizer_open(const char *path, struct kiln_tokenizer **out,
                                     struct kiln_err *err) {
    struct kiln_map map;
    char inside[4400];
    *out = NULL;
    if (kiln_path_is_dir(path)) {
        KILN_REQUIRE(kiln_tokenizer_in(path, inside, sizeof inside), err, KILN_EINPUT,
                     "tokenizer %s: the folder holds no tokenizer.json, tokenizer.model or "
                     "tokenizer.bin; a run that was trained on bytes has none: name it bytes",
                     path);
        path = inside;
    }
    KILN_TRY(kiln_map_open(&map, path, err));
    open_fn open = form_of(path, &map);
    kiln_map_close(&map);
    return open(path, out, err);
}

static enum kiln_status write_and_free(const char *path, char *text, size_t size,
                                       struct kiln_err *err) {
    enum kiln_status status = kiln_write_file(path, text, size, err);
    kiln_free(text);
    return status;
}

/* Only under its usual name do others look for tokenizer_config.json beside it. */
static enum kiln_status save_config(const struct kiln_tokenizer *tok, const char *path,
                                    struct kiln_err *err) {
    static const char name[] = "tokenizer.json", config[] = "tokenizer_config.json";
    size_t folder = strlen(path) - strlen(name);
    char *text, *beside = kiln_alloc(folder + sizeof config, 1);
    size_t size;
    KILN_REQUIRE(beside != NULL, err, KILN_ENOMEM, "tokenizer %s: out of memory", path);
    memcpy(beside, path, folder);
    memcpy(beside + folder, config, sizeof config);
    enum kiln_status status = kiln_json_config_text(tok, &text, &size, err);
    if (status == KILN_OK) {
        status = write_and_free(beside, text, size, err);
    }
    kiln_free(beside);
    return status;
}

enum kiln_status kiln_tokenizer_save(const struct kiln_tokenizer *tok, const char *path,
                                     struct kiln_err *err) {
    char *text;
    size_t size;
    if (!kiln_path_ends(path, ".json")) {
        return kiln_llama2c_tokenizer_save(tok, path, err);
    }
    KILN_TRY(kiln_json_tokenizer_text(tok, &text, &size, err));
    KILN_TRY(write_and_free(path, text, size, err));
    bool usual = kiln_path_ends(path, "/tokenizer.json") || strcmp(path, "tokenizer.json") == 0;
    return usual ? save_config(tok, path, err) : KILN_OK;
}

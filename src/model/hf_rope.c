/* SPDX-License-Identifier: MIT
 *
 * hf_rope.c: see hf_rope.h. Members and defaults are those of modeling_rope_utils.py.
 */
#include "model/hf_rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_THETA 10000.0F

static const char *const kinds[] = {"default", "linear", "llama3",
                                    "yarn"}; /* enum kiln_rope_kind */

struct reader {
    const char *path, *where; /* "rope_scaling" */
    json_t *json;
    struct kiln_err *err;
};

static const json_t *member(const struct reader *reader, const char *key) {
    const json_t *value = json_object_get(reader->json, key);
    return json_is_null(value) ? NULL : value;
}

/* A number; absent: `missing`, or an error where that is NaN. */
static enum kiln_status read_real(const struct reader *reader, const char *key, float missing,
                                  float *out) {
    const json_t *value = member(reader, key);
    *out = missing;
    KILN_REQUIRE(value != NULL || !isnan(missing), reader->err, KILN_EINPUT,
                 "%s: \"%s\" has no \"%s\"", reader->path, reader->where, key);
    KILN_REQUIRE(value == NULL || json_is_number(value), reader->err, KILN_EINPUT,
                 "%s: \"%s\": \"%s\" is no number", reader->path, reader->where, key);
    if (value != NULL) {
        *out = (float)json_number_value(value);
    }
    return KILN_OK;
}

static enum kiln_status check_members(const struct reader *reader) {
    static const char *const known[] = {
        "rope_type",        "type",
        "rope_theta",       "factor",
        "beta_fast",        "beta_slow",
        "low_freq_factor",  "attention_factor",
        "high_freq_factor", "original_max_position_embeddings",
        "truncate",         "partial_rotary_factor",
    };
    const char *key;
    json_t *value;
    json_object_foreach(reader->json, key, value) {
        bool found = json_is_null(value);
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
            found = found || strcmp(known[i], key) == 0;
        }
        KILN_REQUIRE(found, reader->err, KILN_EINPUT,
                     "%s: \"%s\": \"%.60s\" is an option that kiln does not have", reader->path,
                     reader->where, key);
    }
    value = json_object_get(reader->json, "truncate");
    KILN_REQUIRE(!json_is_false(value), reader->err, KILN_EINPUT,
                 "%s: \"%s\": \"truncate\" is false, which kiln does not have", reader->path,
                 reader->where);
    value = json_object_get(reader->json, "partial_rotary_factor");
    KILN_REQUIRE(value == NULL || json_number_value(value) == 1.0, reader->err, KILN_EINPUT,
                 "%s: \"%s\": \"partial_rotary_factor\" is not 1; kiln turns whole heads only",
                 reader->path, reader->where);
    return KILN_OK;
}

static enum kiln_status find_kind(const struct reader *reader, enum kiln_rope_kind *out) {
    const json_t *value = member(reader, "rope_type");
    value = value != NULL ? value : member(reader, "type");
    const char *name = value == NULL ? "default" : json_string_value(value);
    KILN_REQUIRE(name != NULL, reader->err, KILN_EINPUT, "%s: \"%s\": \"rope_type\" is no string",
                 reader->path, reader->where);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(name, kinds[i]) == 0) {
            *out = (enum kiln_rope_kind)i;
            return KILN_OK;
        }
    }
    KILN_REQUIRE(strcmp(name, "dynamic") != 0, reader->err, KILN_EINPUT,
                 "%s: \"%s\" is of type \"dynamic\", whose frequencies change with the length of "
                 "the text; kiln has none of that. Up to max_position_embeddings it changes "
                 "nothing: where no text is longer, set \"%s\" to null",
                 reader->path, reader->where, reader->where);
    return KILN_FAIL(reader->err, KILN_EINPUT,
                     "%s: \"%s\" is of type \"%.40s\", which kiln does not have; it has default, "
                     "linear, llama3 and yarn",
                     reader->path, reader->where, name);
}

/* The length of the pre-training: in the scaling, or beside it, which counts more there; as long as
 * the model's otherwise. */
static enum kiln_status read_original(const struct reader *reader, const json_t *config,
                                      struct kiln_dims *dims) {
    const char *key = "original_max_position_embeddings";
    const json_t *value = json_object_get(config, key);
    value = value == NULL || json_is_null(value) ? member(reader, key) : value;
    dims->rope.original_seq = dims->seq;
    KILN_REQUIRE(value == NULL || (json_is_integer(value) && json_integer_value(value) > 0),
                 reader->err, KILN_EINPUT, "%s: \"%s\" is no positive integer", reader->path, key);
    if (value != NULL) {
        dims->rope.original_seq = (size_t)json_integer_value(value);
    }
    return KILN_OK;
}

static enum kiln_status read_scaling(const struct reader *reader, const json_t *config,
                                     struct kiln_dims *dims) {
    struct kiln_rope *rope = &dims->rope;
    KILN_TRY(check_members(reader));
    KILN_TRY(find_kind(reader, &rope->kind));
    KILN_TRY(read_real(reader, "rope_theta", dims->rope_theta, &dims->rope_theta));
    if (rope->kind == KILN_ROPE_PLAIN) {
        return KILN_OK;
    }
    KILN_TRY(read_real(reader, "factor", NAN, &rope->factor));
    if (rope->kind == KILN_ROPE_LLAMA3) {
        KILN_TRY(read_real(reader, "low_freq_factor", NAN, &rope->low_freq_factor));
        KILN_TRY(read_real(reader, "high_freq_factor", NAN, &rope->high_freq_factor));
    }
    if (rope->kind == KILN_ROPE_YARN) { /* 0: kiln_dims_check sets what a silent file means */
        KILN_TRY(read_real(reader, "beta_fast", 0, &rope->beta_fast));
        KILN_TRY(read_real(reader, "beta_slow", 0, &rope->beta_slow));
        KILN_TRY(read_real(reader, "attention_factor", 0, &rope->attention_factor));
    }
    return read_original(reader, config, dims);
}

enum kiln_status kiln_hf_rope_read(const char *path, const json_t *config, struct kiln_dims *dims,
                                   struct kiln_err *err) {
    static const char *const places[] = {"rope_parameters", "rope_scaling"};
    const json_t *theta = json_object_get(config, "rope_theta");
    const bool none = theta == NULL || json_is_null(theta);
    KILN_REQUIRE(none || json_is_number(theta), err, KILN_EINPUT, "%s: \"rope_theta\" is no number",
                 path);
    dims->rope_theta = none ? DEFAULT_THETA : (float)json_number_value(theta);
    dims->rope = (struct kiln_rope){.kind = KILN_ROPE_PLAIN};
    const struct reader *found = NULL;
    struct reader readers[2];
    for (size_t i = 0; i < 2; i++) {
        json_t *json = json_object_get(config, places[i]);
        readers[i] = (struct reader){.path = path, .where = places[i], .json = json, .err = err};
        if (json == NULL || json_is_null(json)) {
            continue;
        }
        KILN_REQUIRE(json_is_object(json), err, KILN_EINPUT, "%s: \"%s\" is no object", path,
                     places[i]);
        KILN_REQUIRE(found == NULL || json_equal(found->json, json), err, KILN_EINPUT,
                     "%s: \"rope_parameters\" and \"rope_scaling\" say different things", path);
        found = &readers[i];
    }
    return found != NULL ? read_scaling(found, config, dims) : KILN_OK;
}

json_t *kiln_hf_real(float value) {
    char text[40];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value) {
            break;
        }
    }
    return json_real(strtod(text, NULL));
}

void kiln_hf_rope_write(json_t *config, const struct kiln_dims *dims) {
    const struct kiln_rope *rope = &dims->rope;
    json_object_set_new(config, "rope_theta", kiln_hf_real(dims->rope_theta));
    if (rope->kind == KILN_ROPE_PLAIN) {
        json_object_set_new(config, "rope_scaling", json_null());
        return;
    }
    json_t *scaling = json_pack("{s:s, s:o}", "rope_type", kinds[rope->kind], "factor",
                                kiln_hf_real(rope->factor));
    if (rope->kind == KILN_ROPE_LLAMA3) {
        json_object_set_new(scaling, "low_freq_factor", kiln_hf_real(rope->low_freq_factor));
        json_object_set_new(scaling, "high_freq_factor", kiln_hf_real(rope->high_freq_factor));
    }
    if (rope->kind == KILN_ROPE_YARN) {
        json_object_set_new(scaling, "beta_fast", kiln_hf_real(rope->beta_fast));
        json_object_set_new(scaling, "beta_slow", kiln_hf_real(rope->beta_slow));
        json_object_set_new(scaling, "attention_factor", kiln_hf_real(rope->attention_factor));
    }
    if (rope->kind != KILN_ROPE_LINEAR) {
        json_object_set_new(scaling, "original_max_position_embeddings",
                            json_integer((json_int_t)rope->original_seq));
    }
    json_object_set_new(config, "rope_scaling", scaling);
}

/* SPDX-License-Identifier: MIT
 *
 * hf_config.c: see hf_config.h. Defaults are those of configuration_llama.py,
 * configuration_qwen2.py and configuration_qwen3.py of transformers.
 */
#include "model/hf_config.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "model/hf_rope.h"

static const struct family {
    const char *type, *architecture;
    size_t head_size; /* where the config has none; 0: dim / heads */
    size_t seq;       /* likewise */
    bool qkv_bias, qk_norm;
    bool kv_heads; /* the config has to say them; otherwise as many as heads */
} families[] = {
    {"llama", "LlamaForCausalLM", 0, 2048, false, false, false},
    {"qwen2", "Qwen2ForCausalLM", 0, 32768, true, false, true},
    {"qwen3", "Qwen3ForCausalLM", 128, 32768, false, true, true},
};

/* Keys that were read, or that are looked at below. */
static const char *const read_keys[] = {
    "model_type",
    "architectures",
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "tie_word_embeddings",
    "max_position_embeddings",
    "hidden_act",
    "attention_bias",
    "mlp_bias",
    "layer_types",
    "use_sliding_window",
    "original_max_position_embeddings",
    "partial_rotary_factor",
};

/* Keys without a say in the mathematics of a forward pass. The length of a sliding window and the
 * layers that have none mean something only with use_sliding_window or layer_types; pretraining_tp
 * cuts the same products into parts. */
static const char *const harmless_keys[] = {
    "torch_dtype",
    "dtype",
    "transformers_version",
    "use_cache",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "attention_dropout",
    "pretraining_tp",
    "sliding_window",
    "max_window_layers",
    "name_or_path",
    "unsloth_version",
    "unsloth_fixed",
    "use_return_dict",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "torchscript",
    "id2label",
    "label2id",
    "problem_type",
    "chunk_size_feed_forward",
    "tokenizer_class",
    "prefix",
    "task_specific_params",
    "finetuning_task",
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "attn_implementation",
};

struct reader {
    const char *path;
    json_t *json;
    struct kiln_err *err;
};

static bool listed(const char *const *list, size_t n, const char *key) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], key) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- values --------------------------------------------------------------------------------- */

/* An error that shows the value, cut. */
static enum kiln_status refuse(const struct reader *reader, const char *key, const json_t *value,
                               const char *why) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    const enum kiln_status status =
        KILN_FAIL(reader->err, KILN_EINPUT, "%s: \"%.60s\" is %.120s%s", reader->path, key,
                  text != NULL ? text : "too much", why);
    free(text);
    return status;
}

/* A size; absent or null: `missing`, or an error where that is 0. */
static enum kiln_status read_size(const struct reader *reader, const char *key, size_t missing,
                                  size_t *out) {
    const json_t *value = json_object_get(reader->json, key);
    *out = missing;
    if ((value == NULL || json_is_null(value)) && missing > 0) {
        return KILN_OK;
    }
    KILN_REQUIRE(value != NULL, reader->err, KILN_EINPUT, "%s: \"%s\" is missing", reader->path,
                 key);
    if (!json_is_integer(value) || json_integer_value(value) <= 0) {
        return refuse(reader, key, value, ", expected a positive integer");
    }
    *out = (size_t)json_integer_value(value);
    return KILN_OK;
}

static enum kiln_status read_real(const struct reader *reader, const char *key, float missing,
                                  float *out) {
    const json_t *value = json_object_get(reader->json, key);
    *out = missing;
    if (value == NULL || json_is_null(value)) {
        return KILN_OK;
    }
    if (!json_is_number(value)) {
        return refuse(reader, key, value, ", expected a number");
    }
    *out = (float)json_number_value(value);
    return KILN_OK;
}

static enum kiln_status read_flag(const struct reader *reader, const char *key, bool *out) {
    const json_t *value = json_object_get(reader->json, key);
    *out = json_is_true(value);
    if (value != NULL && !json_is_boolean(value) && !json_is_null(value)) {
        return refuse(reader, key, value, ", expected true or false");
    }
    return KILN_OK;
}

/* ---- the family ----------------------------------------------------------------------------- */

static enum kiln_status find_family(const struct reader *reader, const struct family **out) {
    const json_t *type = json_object_get(reader->json, "model_type");
    const json_t *list = json_object_get(reader->json, "architectures");
    const struct family *found = NULL;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (json_is_string(type) && strcmp(json_string_value(type), families[i].type) == 0) {
            found = &families[i];
        }
    }
    if (found == NULL) {
        return type != NULL ? refuse(reader, "model_type", type,
                                     ", which kiln does not know; it reads llama, qwen2 and qwen3")
                            : KILN_FAIL(reader->err, KILN_EINPUT, "%s: \"model_type\" is missing",
                                        reader->path);
    }
    const json_t *first = json_array_get(list, 0);
    if (list != NULL && !json_is_null(list) &&
        (json_array_size(list) != 1 || !json_is_string(first) ||
         strcmp(json_string_value(first), found->architecture) != 0)) {
        char why[80];
        snprintf(why, sizeof why, ", expected [\"%s\"]", found->architecture);
        return refuse(reader, "architectures", list, why);
    }
    *out = found;
    return KILN_OK;
}

/* ---- options that kiln does not have -------------------------------------------------------- */

static enum kiln_status check_layer_types(const struct reader *reader) {
    const json_t *list = json_object_get(reader->json, "layer_types");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *type = json_string_value(json_array_get(list, i));
        if (type == NULL || strcmp(type, "full_attention") != 0) {
            return refuse(reader, "layer_types", json_array_get(list, i),
                          " for a layer; kiln has \"full_attention\" only");
        }
    }
    return KILN_OK;
}

static bool means_nothing(const json_t *value) {
    return json_is_null(value) || json_is_false(value) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

static enum kiln_status check_keys(const struct reader *reader) {
    const char *key;
    json_t *value;
    json_object_foreach(reader->json, key, value) {
        if (key[0] != '_' && !means_nothing(value) &&
            !listed(read_keys, sizeof read_keys / sizeof read_keys[0], key) &&
            !listed(harmless_keys, sizeof harmless_keys / sizeof harmless_keys[0], key)) {
            return refuse(reader, key, value,
                          ", an option that kiln does not have; where it changes nothing of what "
                          "the model computes, remove it");
        }
    }
    return KILN_OK;
}

static enum kiln_status check_options(const struct reader *reader) {
    static const char *const off[] = {"attention_bias", "mlp_bias", "use_sliding_window"};
    const json_t *act = json_object_get(reader->json, "hidden_act");
    const json_t *part = json_object_get(reader->json, "partial_rotary_factor");
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
        bool on;
        KILN_TRY(read_flag(reader, off[i], &on));
        if (on) {
            return refuse(reader, off[i], json_object_get(reader->json, off[i]),
                          ", which kiln does not have");
        }
    }
    if (act != NULL && (!json_is_string(act) || (strcmp(json_string_value(act), "silu") != 0 &&
                                                 strcmp(json_string_value(act), "swish") != 0))) {
        return refuse(reader, "hidden_act", act, "; kiln has \"silu\" only");
    }
    if (part != NULL && !json_is_null(part) && json_number_value(part) != 1.0) {
        return refuse(reader, "partial_rotary_factor", part, "; kiln turns whole heads only");
    }
    KILN_TRY(check_layer_types(reader));
    return check_keys(reader);
}

/* ---- reading -------------------------------------------------------------------------------- */

static enum kiln_status read_sizes(const struct reader *reader, const struct family *family,
                                   struct kiln_dims *dims) {
    KILN_TRY(read_size(reader, "hidden_size", 0, &dims->dim));
    KILN_TRY(read_size(reader, "intermediate_size", 0, &dims->hidden));
    KILN_TRY(read_size(reader, "vocab_size", 0, &dims->vocab));
    KILN_TRY(read_size(reader, "num_hidden_layers", 0, &dims->layers));
    KILN_TRY(read_size(reader, "num_attention_heads", 0, &dims->heads));
    KILN_TRY(read_size(reader, "num_key_value_heads", family->kv_heads ? 0 : dims->heads,
                       &dims->kv_heads));
    KILN_TRY(read_size(reader, "max_position_embeddings", family->seq, &dims->seq));
    const json_t *head = json_object_get(reader->json, "head_dim");
    dims->head_size = family->head_size;
    if (head != NULL && !json_is_null(head)) {
        KILN_TRY(read_size(reader, "head_dim", 0, &dims->head_size));
    }
    return KILN_OK;
}

static enum kiln_status read_all(const struct reader *reader, struct kiln_dims *dims) {
    const struct family *family = NULL;
    struct kiln_err why;
    KILN_TRY(find_family(reader, &family));
    *dims = (struct kiln_dims){.qkv_bias = family->qkv_bias, .qk_norm = family->qk_norm};
    KILN_TRY(check_options(reader));
    KILN_TRY(read_sizes(reader, family, dims));
    KILN_TRY(read_flag(reader, "tie_word_embeddings", &dims->tied));
    KILN_TRY(read_real(reader, "rms_norm_eps", 1e-6F, &dims->rms_eps));
    KILN_TRY(kiln_hf_rope_read(reader->path, reader->json, dims, reader->err));
    KILN_REQUIRE(kiln_dims_check(dims, &why) == KILN_OK, reader->err, KILN_EINPUT, "%s: %.500s",
                 reader->path, why.message);
    return KILN_OK;
}

enum kiln_status kiln_hf_config_parse(const char *path, const char *text, size_t size,
                                      struct kiln_dims *dims, struct kiln_err *err) {
    json_error_t why;
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    KILN_REQUIRE(json != NULL, err, KILN_EINPUT, "%s: line %d: %.160s", path, why.line, why.text);
    enum kiln_status status =
        json_is_object(json)
            ? read_all(&(struct reader){.path = path, .json = json, .err = err}, dims)
            : KILN_FAIL(err, KILN_EINPUT, "%s: no JSON object", path);
    json_decref(json);
    return status;
}

enum kiln_status kiln_hf_config_read(const char *path, struct kiln_dims *dims,
                                     struct kiln_err *err) {
    char *text = NULL;
    size_t size = 0;
    KILN_TRY(kiln_read_file(path, &text, &size, err));
    const enum kiln_status status = kiln_hf_config_parse(path, text, size, dims, err);
    kiln_free(text);
    return status;
}

/* ---- writing -------------------------------------------------------------------------------- */

static const struct family *family_of(const struct kiln_dims *dims) {
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (families[i].qkv_bias == dims->qkv_bias && families[i].qk_norm == dims->qk_norm) {
            return &families[i];
        }
    }
    return NULL;
}

const char *kiln_hf_family(const struct kiln_dims *dims) {
    const struct family *family = family_of(dims);
    return family != NULL ? family->type : NULL;
}

static const char *torch_dtype(enum kiln_dtype dtype) {
    return dtype == KILN_DTYPE_F16 ? "float16" : dtype == KILN_DTYPE_BF16 ? "bfloat16" : "float32";
}

static json_t *token_id(bool has, uint32_t id) {
    return has ? json_integer((json_int_t)id) : json_null();
}

static json_t *config_of(const struct kiln_dims *dims, const struct kiln_save_options *options) {
    const struct family *family = family_of(dims);
    json_t *json = json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:b, s:o, s:o, s:s, s:b}",
        "architectures", family->architecture, "model_type", family->type, "hidden_size",
        (json_int_t)dims->dim, "intermediate_size", (json_int_t)dims->hidden, "num_hidden_layers",
        (json_int_t)dims->layers, "num_attention_heads", (json_int_t)dims->heads,
        "num_key_value_heads", (json_int_t)dims->kv_heads, "head_dim", (json_int_t)dims->head_size,
        "vocab_size", (json_int_t)dims->vocab, "max_position_embeddings", (json_int_t)dims->seq,
        "hidden_act", "silu", "tie_word_embeddings", (int)dims->tied, "bos_token_id",
        token_id(options->has_bos, options->bos), "eos_token_id",
        token_id(options->has_eos, options->eos), "torch_dtype", torch_dtype(options->dtype),
        "use_cache", 1);
    kiln_hf_rope_write(json, dims);
    json_object_set_new(json, "rms_norm_eps", kiln_hf_real(dims->rms_eps));
    if (!dims->qkv_bias) {
        json_object_set_new(json, "attention_bias", json_false());
    }
    if (!dims->qkv_bias && !dims->qk_norm) {
        json_object_set_new(json, "mlp_bias", json_false());
    }
    return json;
}

enum kiln_status kiln_hf_config_write(const char *path, const struct kiln_dims *dims,
                                      const struct kiln_save_options *options,
                                      struct kiln_err *err) {
    json_t *json = config_of(dims, options);
    char *text = json != NULL ? json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    KILN_REQUIRE(text != NULL, err, KILN_ENOMEM, "write %s: not enough memory", path);
    const enum kiln_status status = kiln_write_file(path, text, strlen(text), err);
    free(text);
    return status;
}

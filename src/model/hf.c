/* SPDX-License-Identifier: MIT
 *
 * hf.c: models as Hugging Face keeps them: a folder with config.json, and model.safetensors or
 * shards of it beside an index:
 *
 *   model.safetensors.index.json   {"metadata": {...}, "weight_map": {"TENSOR": "FILE", ...}}
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/exchange.h"
#include "model/hf_config.h"
#include "model/safetensors.h"

#define WEIGHTS "model.safetensors"
#define INDEX   "model.safetensors.index.json"
#define CONFIG  "config.json"

#define LAYER "model.layers.%zu."
static kiln_names names = {
    [KILN_EMBED] = "model.embed_tokens.weight",
    [KILN_ATTN_NORM] = LAYER "input_layernorm.weight",
    [KILN_WQ] = LAYER "self_attn.q_proj.weight",
    [KILN_WK] = LAYER "self_attn.k_proj.weight",
    [KILN_WV] = LAYER "self_attn.v_proj.weight",
    [KILN_WO] = LAYER "self_attn.o_proj.weight",
    [KILN_FFN_NORM] = LAYER "post_attention_layernorm.weight",
    [KILN_W1] = LAYER "mlp.gate_proj.weight",
    [KILN_W3] = LAYER "mlp.up_proj.weight",
    [KILN_W2] = LAYER "mlp.down_proj.weight",
    [KILN_FINAL_NORM] = "model.norm.weight",
    [KILN_HEAD] = "lm_head.weight",
    [KILN_BQ] = LAYER "self_attn.q_proj.bias",
    [KILN_BK] = LAYER "self_attn.k_proj.bias",
    [KILN_BV] = LAYER "self_attn.v_proj.bias",
    [KILN_Q_NORM] = LAYER "self_attn.q_norm.weight",
    [KILN_K_NORM] = LAYER "self_attn.k_norm.weight",
};

struct hf {
    struct kiln_exchange exchange;
    struct kiln_safetensors *files;
    size_t n_files;
    const struct kiln_safetensor *head; /* of a tied model, where a file has it */
    const unsigned char *head_data;
};

static void free_hf(struct hf *hf) {
    for (size_t i = 0; hf != NULL && i < hf->n_files; i++) {
        kiln_safetensors_close(&hf->files[i]);
    }
    if (hf != NULL) {
        kiln_exchange_close(&hf->exchange);
        kiln_free(hf->files);
        kiln_free(hf);
    }
}

static bool has_file(const char *folder, const char *name) {
    char *path = kiln_path_join(folder, name);
    const bool there = path != NULL && kiln_path_exists(path);
    kiln_free(path);
    return there;
}

static bool hf_recognizes(const struct kiln_checkpoint *checkpoint) {
    return has_file(checkpoint->path, CONFIG);
}

/* ---- tensors of a file ---------------------------------------------------------------------- */

/* Tables of rotations that early versions saved beside the weights: config.json says the same. */
static bool is_rotation(const char *name) {
    const char *end = strstr(name, ".rotary_emb.inv_freq");
    return end != NULL && strcmp(end, ".rotary_emb.inv_freq") == 0;
}

static enum kiln_status take_file(struct hf *hf, const struct kiln_safetensors *file,
                                  struct kiln_err *err) {
    for (size_t i = 0; i < file->n; i++) {
        const struct kiln_safetensor *tensor = &file->tensors[i];
        const unsigned char *data = file->map.data + file->data + tensor->begin;
        if (is_rotation(tensor->name)) {
            continue;
        }
        if (hf->exchange.table->dims.tied && strcmp(tensor->name, names[KILN_HEAD]) == 0) {
            hf->head = tensor;
            hf->head_data = data;
            continue;
        }
        const struct kiln_found found = {
            .name = tensor->name,
            .name_size = strlen(tensor->name),
            .known = tensor->known,
            .dtype = tensor->dtype,
            .type_name = tensor->type,
            .rank = tensor->rank,
            .shape = tensor->shape,
            .data = data,
        };
        KILN_TRY(kiln_exchange_take(&hf->exchange, names, file->path, &found, err));
    }
    return KILN_OK;
}

/* A tied model may have its head, too, or instead of its embedding: one tensor under two names. */
static enum kiln_status settle_head(struct hf *hf, const char *path, struct kiln_err *err) {
    const struct kiln_exchange_tensor *embed = &hf->exchange.tensors[0];
    if (hf->head == NULL) {
        return KILN_OK;
    }
    if (embed->data != NULL) {
        const struct kiln_tensor *tensor = &hf->exchange.table->tensors[0];
        const size_t bytes = hf->head->end - hf->head->begin;
        const size_t wanted =
            tensor->rows * tensor->cols * (embed->dtype == KILN_DTYPE_F32 ? 4 : 2);
        KILN_REQUIRE(hf->head->known && hf->head->dtype == embed->dtype && bytes == wanted &&
                         memcmp(hf->head_data, embed->data, bytes) == 0,
                     err, KILN_EINPUT,
                     "%s: config.json says tie_word_embeddings, but %s differs from %s", path,
                     names[KILN_HEAD], names[KILN_EMBED]);
        return KILN_OK;
    }
    const struct kiln_found found = {
        .name = names[KILN_EMBED],
        .name_size = strlen(names[KILN_EMBED]),
        .known = hf->head->known,
        .dtype = hf->head->dtype,
        .type_name = hf->head->type,
        .rank = hf->head->rank,
        .shape = hf->head->shape,
        .data = hf->head_data,
    };
    return kiln_exchange_take(&hf->exchange, names, path, &found, err);
}

/* ---- shards --------------------------------------------------------------------------------- */

struct index {
    struct hf *hf;
    const char *folder;
    char *path; /* of the index */
    json_t *json, *map;
    json_t *numbers; /* file name -> its number */
    struct kiln_err *err;
};

static enum kiln_status open_shard(struct index *index, const char *name) {
    struct hf *hf = index->hf;
    KILN_REQUIRE(strchr(name, '/') == NULL && name[0] != '.' && name[0] != '\0', index->err,
                 KILN_EINPUT, "%s: \"%.100s\" is no name of a file beside it", index->path, name);
    KILN_REQUIRE(has_file(index->folder, name), index->err, KILN_EINPUT,
                 "%s: shard %.100s is missing beside it", index->path, name);
    struct kiln_safetensors *grown =
        kiln_realloc(hf->files, hf->n_files, hf->n_files + 1, sizeof *grown);
    char *path = kiln_path_join(index->folder, name);
    enum kiln_status status =
        grown == NULL || path == NULL
            ? KILN_FAIL(index->err, KILN_ENOMEM, "%s: not enough memory", index->path)
            : kiln_safetensors_open(&grown[hf->n_files], path, index->err);
    hf->files = grown != NULL ? grown : hf->files;
    kiln_free(path);
    KILN_TRY(status);
    json_object_set_new(index->numbers, name, json_integer((json_int_t)hf->n_files));
    hf->n_files++;
    return KILN_OK;
}

static enum kiln_status open_shards(struct index *index) {
    const char *tensor;
    json_t *file;
    json_object_foreach(index->map, tensor, file) {
        KILN_REQUIRE(json_is_string(file), index->err, KILN_EINPUT,
                     "%s: \"weight_map\": the file of %.100s is no string", index->path, tensor);
        if (json_object_get(index->numbers, json_string_value(file)) == NULL) {
            KILN_TRY(open_shard(index, json_string_value(file)));
        }
    }
    return KILN_OK;
}

/* Index and shards say the same of every tensor, in both directions. */
static enum kiln_status check_shards(struct index *index) {
    const struct hf *hf = index->hf;
    size_t found = 0;
    const char *tensor, *name;
    json_t *file, *number;
    json_object_foreach(index->numbers, name, number) {
        const struct kiln_safetensors *shard = &hf->files[json_integer_value(number)];
        for (size_t i = 0; i < shard->n; i++) {
            const char *has = shard->tensors[i].name;
            const char *told = json_string_value(json_object_get(index->map, has));
            KILN_REQUIRE(told != NULL, index->err, KILN_EINPUT,
                         "%s: shard %.100s has tensor %.100s, which the index does not list",
                         index->path, name, has);
            KILN_REQUIRE(strcmp(told, name) == 0, index->err, KILN_EINPUT,
                         "%s: tensor %.100s is in shard %.100s, the index says %.100s", index->path,
                         has, name, told);
            found++;
        }
    }
    if (found == json_object_size(index->map)) {
        return KILN_OK;
    }
    json_object_foreach(index->map, tensor, file) {
        number = json_object_get(index->numbers, json_string_value(file));
        const struct kiln_safetensors *shard = &hf->files[json_integer_value(number)];
        bool there = false;
        for (size_t i = 0; i < shard->n && !there; i++) {
            there = strcmp(shard->tensors[i].name, tensor) == 0;
        }
        KILN_REQUIRE(there, index->err, KILN_EINPUT,
                     "%s: tensor %.100s is to be in shard %.100s, which does not have it",
                     index->path, tensor, json_string_value(file));
    }
    return KILN_OK;
}

static enum kiln_status read_index(struct index *index) {
    json_error_t why;
    char *text = NULL;
    size_t size = 0;
    KILN_REQUIRE(index->path != NULL && index->numbers != NULL, index->err, KILN_ENOMEM,
                 "open %s: not enough memory", index->folder);
    KILN_TRY(kiln_read_file(index->path, &text, &size, index->err));
    index->json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    kiln_free(text);
    KILN_REQUIRE(index->json != NULL, index->err, KILN_EINPUT, "%s: line %d: %.160s", index->path,
                 why.line, why.text);
    index->map = json_object_get(index->json, "weight_map");
    KILN_REQUIRE(json_is_object(index->map) && json_object_size(index->map) > 0, index->err,
                 KILN_EINPUT, "%s: no \"weight_map\" in it", index->path);
    KILN_TRY(open_shards(index));
    return check_shards(index);
}

static enum kiln_status open_index(struct hf *hf, const char *folder, struct kiln_err *err) {
    struct index index = {.hf = hf,
                          .folder = folder,
                          .path = kiln_path_join(folder, INDEX),
                          .numbers = json_object(),
                          .err = err};
    const enum kiln_status status = read_index(&index);
    json_decref(index.json);
    json_decref(index.numbers);
    kiln_free(index.path);
    return status;
}

static enum kiln_status open_files(struct hf *hf, const char *folder, struct kiln_err *err) {
    if (!has_file(folder, WEIGHTS)) {
        KILN_REQUIRE(has_file(folder, INDEX), err, KILN_EINPUT,
                     "model %s: neither " WEIGHTS " nor " INDEX " in it%s", folder,
                     has_file(folder, "pytorch_model.bin")
                         ? "; pytorch_model.bin has to be saved as safetensors first"
                         : "");
        return open_index(hf, folder, err);
    }
    char *path = kiln_path_join(folder, WEIGHTS);
    hf->files = kiln_alloc(1, sizeof *hf->files);
    enum kiln_status status =
        path == NULL || hf->files == NULL
            ? KILN_FAIL(err, KILN_ENOMEM, "open %s: not enough memory", folder)
            : kiln_safetensors_open(hf->files, path, err);
    hf->n_files = status == KILN_OK ? 1 : 0;
    kiln_free(path);
    return status;
}

/* ---- reading -------------------------------------------------------------------------------- */

static enum kiln_status open_hf(struct hf *hf, struct kiln_checkpoint *checkpoint,
                                struct kiln_err *err) {
    const char *folder = checkpoint->path;
    char *config = kiln_path_join(folder, CONFIG);
    enum kiln_status status =
        config == NULL ? KILN_FAIL(err, KILN_ENOMEM, "open %s: not enough memory", folder)
                       : kiln_hf_config_read(config, &checkpoint->dims, err);
    kiln_free(config);
    KILN_TRY(status);
    KILN_TRY(open_files(hf, folder, err));
    KILN_TRY(kiln_exchange_open(&hf->exchange, &checkpoint->dims, true, err));
    for (size_t i = 0; i < hf->n_files; i++) {
        KILN_TRY(take_file(hf, &hf->files[i], err));
    }
    KILN_TRY(settle_head(hf, folder, err));
    return kiln_exchange_complete(&hf->exchange, names, folder, err);
}

static enum kiln_status hf_open(struct kiln_checkpoint *checkpoint, struct kiln_err *err) {
    struct hf *hf = kiln_alloc(1, sizeof *hf);
    KILN_REQUIRE(hf != NULL, err, KILN_ENOMEM, "open %s: not enough memory", checkpoint->path);
    const enum kiln_status status = open_hf(hf, checkpoint, err);
    if (status != KILN_OK) {
        free_hf(hf);
        return status;
    }
    checkpoint->detail = hf;
    return KILN_OK;
}

static enum kiln_status hf_load(const struct kiln_checkpoint *checkpoint,
                                const struct kiln_table *table, float *weights,
                                struct kiln_err *err) {
    const struct hf *hf = checkpoint->detail;
    return kiln_exchange_load(&hf->exchange, checkpoint, table, weights, err);
}

static enum kiln_dtype hf_dtype(const struct kiln_checkpoint *checkpoint,
                                const struct kiln_tensor *tensor) {
    const struct hf *hf = checkpoint->detail;
    return kiln_exchange_dtype(&hf->exchange, tensor);
}

static void hf_close(struct kiln_checkpoint *checkpoint) { free_hf(checkpoint->detail); }

const struct kiln_checkpoint_format kiln_format_hf = {
    .name = "Hugging Face",
    .folder = true,
    .recognizes = hf_recognizes,
    .open = hf_open,
    .load = hf_load,
    .dtype = hf_dtype,
    .close = hf_close,
};

/* ---- writing -------------------------------------------------------------------------------- */

static enum kiln_status hf_check(const struct kiln_dims *dims, enum kiln_dtype dtype,
                                 struct kiln_err *err) {
    KILN_REQUIRE(dtype != KILN_DTYPE_Q8_0, err, KILN_EUNSUPPORTED,
                 "a Hugging Face folder holds f32, f16 or bf16, not q8_0; write a .gguf");
    KILN_REQUIRE(kiln_hf_family(dims) != NULL, err, KILN_EUNSUPPORTED,
                 "a model with both biases and head norms is none of Hugging Face's Llama, Qwen2 "
                 "and Qwen3");
    KILN_REQUIRE(dims->qkv_bias || dims->qk_norm || dims->dim % dims->heads == 0, err,
                 KILN_EUNSUPPORTED,
                 "Hugging Face's Llama wants a dim that is a multiple of its heads, not %zu of %zu",
                 dims->dim, dims->heads);
    return KILN_OK;
}

static enum kiln_dtype hf_save_dtype(const struct kiln_tensor *tensor, enum kiln_dtype dtype) {
    (void)tensor;
    return dtype;
}

static enum kiln_status to_file(void *context, const void *data, size_t size,
                                struct kiln_err *err) {
    return kiln_durable_write(context, data, size, err);
}

static enum kiln_status hf_write(struct kiln_durable *file, const struct kiln_table *table,
                                 const float *weights, const struct kiln_save_options *options,
                                 struct kiln_err *err) {
    const struct kiln_sink sink = {.write = to_file, .context = file};
    KILN_TRY(kiln_safetensors_begin(file, table, names, options->dtype, err));
    for (size_t i = 0; i < table->n_tensors; i++) {
        KILN_TRY(kiln_exchange_write(&table->dims, true, &table->tensors[i], weights,
                                     options->dtype, &sink, err));
    }
    return KILN_OK;
}

static enum kiln_status hf_describe(const char *folder, const struct kiln_dims *dims,
                                    const struct kiln_save_options *options, struct kiln_err *err) {
    char *path = kiln_path_join(folder, CONFIG);
    KILN_REQUIRE(path != NULL, err, KILN_ENOMEM, "write %s: not enough memory", folder);
    const enum kiln_status status = kiln_hf_config_write(path, dims, options, err);
    kiln_free(path);
    return status;
}

/* The model's, and what goes along of a tokenizer. */
static const char *const own[] = {
    CONFIG,
    WEIGHTS,
    KILN_TOKENIZER_FILES,
};

const struct kiln_save_format kiln_save_hf = {
    .name = "Hugging Face",
    .check = hf_check,
    .dtype = hf_save_dtype,
    .write = hf_write,
    .weights_file = WEIGHTS,
    .describe = hf_describe,
    .own = own,
    .n_own = sizeof own / sizeof own[0],
};

/* SPDX-License-Identifier: MIT
 *
 * lora_file.c: adapters in the layout of PEFT (huggingface.co/docs/peft, "PEFT checkpoint format"),
 * out and in. See kiln/lora.h.
 */
#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/leftovers.h"
#include "base/mem.h"
#include "kiln/lora.h"
#include "model/exchange.h"
#include "model/lora_targets.h"
#include "model/numbers.h"
#include "model/safetensors.h"

#define CONFIG  "adapter_config.json"
#define WEIGHTS "adapter_model.safetensors"

static void name_of(const void *context, const struct kiln_tensor *tensor,
                    char out[KILN_SAFETENSORS_NAME]) {
    const struct kiln_table *table = context;
    const struct kiln_lora_place *place = kiln_lora_place_of(table->tensors[tensor->target].role);
    assert(place != NULL);
    snprintf(out, KILN_SAFETENSORS_NAME, "base_model.model.model.layers.%zu.%s.%s.lora_%c.weight",
             tensor->layer, place->part, place->module, tensor->role == KILN_LORA_A ? 'A' : 'B');
}

/* The tensor as formats order its rows: B has the rows of the matrix it adds to, A those of the
 * rank, which are nobody's. */
static struct kiln_tensor as_stored(const struct kiln_table *table, const struct kiln_tensor *t) {
    struct kiln_tensor copy = *t;
    copy.role = t->role == KILN_LORA_B ? table->tensors[t->target].role : KILN_LORA_A;
    return copy;
}

static char *path_in(const char *folder, const char *name, struct kiln_err *err) {
    char *path = kiln_path_join(folder, name);
    if (path == NULL) {
        (void)KILN_FAIL(err, KILN_ENOMEM, "%s/%s: not enough memory", folder, name);
    }
    return path;
}

/* ---- out --------------------------------------------------------------------------------------
 */

static json_t *config_of(const struct kiln_lora *lora, const char *base) {
    json_t *list = json_array();
    for (size_t i = 0; i < KILN_LORA_TARGETS; i++) {
        if (lora->targets & 1u << i) {
            json_array_append_new(list, json_string(kiln_lora_places[i].module));
        }
    }
    const bool whole = lora->alpha == floor(lora->alpha);
    json_t *alpha = whole ? json_integer((json_int_t)lora->alpha) : json_real(lora->alpha);
    return json_pack("{s:s, s:s, s:s?, s:I, s:o, s:f, s:o, s:s, s:b, s:b, s:b, s:b, s:b}",
                     "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", base,
                     "r", (json_int_t)lora->rank, "lora_alpha", alpha, "lora_dropout", 0.0,
                     "target_modules", list, "bias", "none", "fan_in_fan_out", 0, "use_rslora", 0,
                     "use_dora", 0, "inference_mode", 1, "init_lora_weights", 1);
}

static enum kiln_status write_config(const char *folder, const struct kiln_lora *lora,
                                     const char *base, struct kiln_err *err) {
    json_t *config = config_of(lora, base);
    char *text = config ? json_dumps(config, JSON_INDENT(2)) : NULL;
    char *path = path_in(folder, CONFIG, err);
    enum kiln_status status =
        path == NULL ? KILN_ENOMEM
        : text       ? kiln_write_file(path, text, strlen(text), err)
                     : KILN_FAIL(err, KILN_ENOMEM, "write %s: not enough memory", path);
    json_decref(config);
    free(text);
    kiln_free(path);
    return status;
}

static enum kiln_status to_file(void *context, const void *data, size_t size,
                                struct kiln_err *err) {
    return kiln_durable_write(context, data, size, err);
}

static enum kiln_status write_tensors(struct kiln_durable *file, const struct kiln_table *table,
                                      const float *weights, struct kiln_err *err) {
    const struct kiln_sink sink = {.write = to_file, .context = file};
    const struct kiln_tensor *first = &table->tensors[table->n_base];
    const size_t n = table->n_tensors - table->n_base;
    KILN_TRY(kiln_safetensors_begin_named(file, first, n, name_of, table, KILN_DTYPE_F32, err));
    for (size_t i = 0; i < n; i++) {
        const struct kiln_tensor stored = as_stored(table, &first[i]);
        KILN_TRY(
            kiln_exchange_write(&table->dims, true, &stored, weights, KILN_DTYPE_F32, &sink, err));
    }
    return KILN_OK;
}

static enum kiln_status write_weights(const char *folder, const struct kiln_table *table,
                                      const float *weights, struct kiln_err *err) {
    struct kiln_durable file;
    char *path = path_in(folder, WEIGHTS, err);
    enum kiln_status status = path ? kiln_durable_open(&file, path, err) : KILN_ENOMEM;
    if (status == KILN_OK) {
        status = write_tensors(&file, table, weights, err);
        if (status == KILN_OK) {
            status = kiln_durable_commit(&file, err);
        } else {
            kiln_durable_abort(&file);
        }
    }
    kiln_free(path);
    return status;
}

/* Only a folder of adapters is replaced. */
static enum kiln_status may_replace(const char *folder, bool replace, struct kiln_err *err) {
    if (!kiln_path_exists(folder)) {
        return KILN_OK;
    }
    char *config = path_in(folder, CONFIG, err);
    const bool adapters = config && kiln_path_exists(config);
    kiln_free(config);
    KILN_REQUIRE(replace && adapters, err, KILN_EEXISTS,
                 "%s exists already%s; choose another name%s", folder,
                 adapters ? "" : ", and is no folder of adapters",
                 replace ? "" : ", or --force to replace adapters");
    return KILN_OK;
}

static enum kiln_status write_both(const char *folder, const struct kiln_table *table,
                                   const float *weights, const char *base, struct kiln_err *err) {
    KILN_TRY(write_weights(folder, table, weights, err));
    KILN_TRY(write_config(folder, &table->lora, base, err));
    return kiln_sync_dir(folder, err);
}

static enum kiln_status fill(const char *folder, const struct kiln_table *table,
                             const float *weights, const char *base, struct kiln_err *err) {
    KILN_TRY(kiln_remove_tree(folder, err));
    KILN_TRY(kiln_make_dirs(folder, err));
    return write_both(folder, table, weights, base, err);
}

/* Of files that others put beside ours nothing is lost: ours are replaced one by one. */
static bool is_shared(const char *folder) {
    static const char *const own[] = {CONFIG, WEIGHTS};
    char other[300];
    return kiln_path_exists(folder) && kiln_folder_has_others(folder, own, 2, other, sizeof other);
}

enum kiln_status kiln_lora_save(const char *folder, const struct kiln_table *table,
                                const float *weights, const char *base, bool replace,
                                struct kiln_err *err) {
    char temporary[4200], final[4200];
    KILN_REQUIRE(table->trained > 0, err, KILN_EUSAGE,
                 "%s: there are no adapters to write: the model was trained whole", folder);
    KILN_TRY(may_replace(folder, replace, err));
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') {
        n--;
    }
    KILN_REQUIRE(n < sizeof temporary - 32, err, KILN_EINPUT, "%.200s...: path too long", folder);
    snprintf(final, sizeof final, "%.*s", (int)n, folder);
    snprintf(temporary, sizeof temporary, "%.*s.tmp-%ld", (int)n, folder, (long)getpid());
    if (is_shared(final)) {
        return write_both(final, table, weights, base, err);
    }
    enum kiln_status status = fill(temporary, table, weights, base, err);
    status = status == KILN_OK ? kiln_durable_replace(temporary, final, err) : status;
    if (status != KILN_OK) {
        struct kiln_err second; /* the first message is the one to read */
        kiln_err_rename(err, temporary, final);
        return kiln_remove_tree(temporary, &second) == KILN_OK ? status : second.code;
    }
    return status;
}

/* ---- in: the configuration --------------------------------------------------------------------
 */

/* Said of adapters, and nothing to what they compute: what they are of, how they were trained, and
 * what only matters beside options that are refused when they are set. */
static const char *const harmless[] = {
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "r",
    "lora_alpha",
    "target_modules",
    "lora_dropout",
    "inference_mode",
    "auto_mapping",
    "revision",
    "layers_pattern", /* of layers_to_transform */
    "megatron_core",  /* of megatron_config */
    "peft_version",
    "qalora_group_size", /* of use_qalora */
    "runtime_config",
    "eva_config", /* how A began; the ranks it found are rank_pattern */
};

/* 0 is a layer's number, so no number is nothing. */
static bool is_nothing(const json_t *value) {
    return json_is_null(value) || json_is_false(value) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static bool is_harmless(const char *key) {
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        if (strcmp(harmless[i], key) == 0) {
            return true;
        }
    }
    return false;
}

static const char *text_of(const json_t *config, const char *key) {
    const char *text = json_string_value(json_object_get(config, key));
    return text ? text : "";
}

/* With pissa, olora, corda, loftq and lora_ga PEFT changes the base weights when it loads adapters,
 * with mica it freezes B: such adapters are none of the model as it is. */
static enum kiln_status check_init(const char *path, const json_t *value, struct kiln_err *err) {
    static const char *const known[] = {"gaussian", "eva", "orthogonal"};
    if (value == NULL || json_is_null(value) || json_is_boolean(value)) {
        return KILN_OK;
    }
    const char *name = json_string_value(value);
    for (size_t i = 0; name && i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i], name) == 0) {
            return KILN_OK;
        }
    }
    return KILN_FAIL(
        err, KILN_EUNSUPPORTED,
        "%s: \"init_lora_weights\" is \"%.40s\"; kiln reads true, false, gaussian, eva "
        "and orthogonal: the others are of a base model that they change, or unknown; "
        "save the adapters converted to plain LoRA "
        "(path_initial_model_for_weight_conversion of PEFT)",
        path, name ? name : "?");
}

/* Modules without adapters: those that have none in kiln may be named. */
static bool excludes_others_only(const json_t *value) {
    static const char *const others[] = {"lm_head", "embed_tokens"};
    const size_t n = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < n; i++) {
        const char *name =
            json_string_value(json_is_array(value) ? json_array_get(value, i) : value);
        if (name == NULL || (strcmp(name, others[0]) != 0 && strcmp(name, others[1]) != 0)) {
            return false;
        }
    }
    return true;
}

static bool changes_nothing(const char *key, const json_t *value) {
    if (is_nothing(value) || is_harmless(key) || strcmp(key, "init_lora_weights") == 0) {
        return true;
    }
    if (strcmp(key, "bias") == 0) {
        return json_is_string(value) && strcmp(json_string_value(value), "none") == 0;
    }
    return strcmp(key, "exclude_modules") == 0 && excludes_others_only(value);
}

static enum kiln_status check_options(const char *path, json_t *config, struct kiln_err *err) {
    const char *key;
    json_t *value;
    KILN_REQUIRE(strcmp(text_of(config, "peft_type"), "LORA") == 0, err, KILN_EUNSUPPORTED,
                 "%s: \"peft_type\" is \"%.40s\"; kiln reads LORA", path,
                 text_of(config, "peft_type"));
    KILN_TRY(check_init(path, json_object_get(config, "init_lora_weights"), err));
    json_object_foreach(config, key, value) {
        KILN_REQUIRE(changes_nothing(key, value), err, KILN_EUNSUPPORTED,
                     "%s: \"%.60s\" is set, and kiln has no such adapters", path, key);
    }
    return KILN_OK;
}

static enum kiln_status read_targets(const char *path, const json_t *list, unsigned *out,
                                     struct kiln_err *err) {
    *out = 0;
    KILN_REQUIRE(json_is_array(list) && json_array_size(list) > 0, err, KILN_EUNSUPPORTED,
                 "%s: \"target_modules\" is no list of modules", path);
    for (size_t at = 0; at < json_array_size(list); at++) {
        const char *name = json_string_value(json_array_get(list, at));
        size_t i = 0;
        while (name && i < KILN_LORA_TARGETS && strcmp(name, kiln_lora_places[i].module) != 0) {
            i++;
        }
        KILN_REQUIRE(name && i < KILN_LORA_TARGETS, err, KILN_EUNSUPPORTED,
                     "%s: \"target_modules\" has \"%.60s\"; kiln knows q_proj, k_proj, v_proj, "
                     "o_proj, gate_proj, up_proj and down_proj",
                     path, name ? name : "?");
        *out |= 1u << i;
    }
    return KILN_OK;
}

static enum kiln_status read_config(const char *path, json_t *config, struct kiln_lora *out,
                                    struct kiln_err *err) {
    const json_t *rank = json_object_get(config, "r");
    const json_t *alpha = json_object_get(config, "lora_alpha");
    struct kiln_err why;
    KILN_REQUIRE(json_is_object(config), err, KILN_EINPUT, "%s: no JSON object", path);
    KILN_TRY(check_options(path, config, err));
    KILN_REQUIRE(json_is_integer(rank) && json_integer_value(rank) > 0 && json_is_number(alpha),
                 err, KILN_EINPUT, "%s: \"r\" or \"lora_alpha\" is missing or no number", path);
    out->rank = (size_t)json_integer_value(rank);
    out->alpha = json_number_value(alpha);
    KILN_TRY(read_targets(path, json_object_get(config, "target_modules"), &out->targets, err));
    KILN_REQUIRE(kiln_lora_check(out, &why) == KILN_OK, err, KILN_EINPUT, "%s: %.200s", path,
                 why.message);
    return KILN_OK;
}

enum kiln_status kiln_lora_peek(const char *folder, struct kiln_lora *out, struct kiln_err *err) {
    char *text = NULL;
    size_t size = 0;
    *out = (struct kiln_lora){.rank = 0};
    char *path = path_in(folder, CONFIG, err);
    KILN_REQUIRE(path, err, KILN_ENOMEM, "%s: not enough memory", folder);
    enum kiln_status status =
        kiln_path_exists(path)
            ? kiln_read_file(path, &text, &size, err)
            : KILN_FAIL(err, KILN_EINPUT,
                        "%s: no folder of adapters in the layout of PEFT: no " CONFIG " in it",
                        folder);
    if (status == KILN_OK) {
        json_t *config = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
        status = read_config(path, config, out, err);
        json_decref(config);
    }
    kiln_free(text);
    kiln_free(path);
    return status;
}

/* ---- in: the tensors --------------------------------------------------------------------------
 */

static const struct kiln_safetensor *find(const struct kiln_safetensors *file, const char *name) {
    for (size_t i = 0; i < file->n; i++) {
        if (strcmp(file->tensors[i].name, name) == 0) {
            return &file->tensors[i];
        }
    }
    return NULL;
}

static enum kiln_status read_one(const struct kiln_safetensors *file,
                                 const struct kiln_table *table, const struct kiln_tensor *tensor,
                                 float *weights, struct kiln_err *err) {
    char name[KILN_SAFETENSORS_NAME];
    name_of(table, tensor, name);
    const struct kiln_safetensor *from = find(file, name);
    KILN_REQUIRE(from, err, KILN_EINPUT, "%s: %s is missing", file->path, name);
    KILN_REQUIRE(from->known, err, KILN_EUNSUPPORTED, "%s: %s is %s; kiln reads F32, F16 and BF16",
                 file->path, name, from->type);
    KILN_REQUIRE(
        from->rank == 2 && from->shape[0] == tensor->rows && from->shape[1] == tensor->cols, err,
        KILN_EINPUT, "%s: %s is [%zu, %zu], the model and " CONFIG " want [%zu, %zu]", file->path,
        name, from->rank > 0 ? from->shape[0] : 0, from->rank > 1 ? from->shape[1] : 0,
        tensor->rows, tensor->cols);
    const struct kiln_tensor stored = as_stored(table, tensor);
    float *to = weights + tensor->offset;
    kiln_exchange_read(&table->dims, true, &stored, from->dtype,
                       file->map.data + file->data + from->begin, to);
    for (size_t i = 0; i < tensor->rows * tensor->cols; i++) {
        KILN_REQUIRE(isfinite(to[i]), err, KILN_EINPUT, "%s: %s has a number that is not finite",
                     file->path, name);
    }
    return KILN_OK;
}

static enum kiln_status read_all(const struct kiln_safetensors *file,
                                 const struct kiln_table *table, float *weights,
                                 struct kiln_err *err) {
    for (size_t i = table->n_base; i < table->n_tensors; i++) {
        KILN_TRY(read_one(file, table, &table->tensors[i], weights, err));
    }
    for (size_t i = 0; i < file->n; i++) { /* what nobody asked for */
        bool known = false;
        for (size_t k = table->n_base; k < table->n_tensors && !known; k++) {
            char name[KILN_SAFETENSORS_NAME];
            name_of(table, &table->tensors[k], name);
            known = strcmp(name, file->tensors[i].name) == 0;
        }
        KILN_REQUIRE(known, err, KILN_EUNSUPPORTED, "%s: %.120s is no tensor of these adapters",
                     file->path, file->tensors[i].name);
    }
    return KILN_OK;
}

enum kiln_status kiln_lora_load(const char *folder, const struct kiln_table *table, float *weights,
                                struct kiln_err *err) {
    struct kiln_safetensors file;
    char *path = path_in(folder, WEIGHTS, err);
    KILN_REQUIRE(path, err, KILN_ENOMEM, "%s: not enough memory", folder);
    enum kiln_status status = kiln_safetensors_open(&file, path, err);
    kiln_free(path);
    KILN_TRY(status);
    status = read_all(&file, table, weights, err);
    kiln_safetensors_close(&file);
    return status;
}

/* SPDX-License-Identifier: MIT */
#include "train/model_source.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/mem.h"
#include "model/gguf_model.h"
#include "model/table.h"
#include "state/checkpoint.h"
#include "train/adapters.h"

/* When was this file written? Negative when it is not there. */
static double written_at(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) {
        return -1.0;
    }
    return (double)st.st_mtim.tv_sec + 1e-9 * (double)st.st_mtim.tv_nsec;
}

/* The newest weights file of a run: model.bin at its end or a stop, or a checkpoint's. */
static enum kiln_status newest_weights(const char *run, char *out, size_t size,
                                       struct kiln_err *err) {
    char folder[4200], path[4600];
    snprintf(path, sizeof path, "%s/model.bin", run);
    double newest = written_at(path);
    snprintf(out, size, "%s", newest >= 0 ? path : "");
    snprintf(folder, sizeof folder, "%s/checkpoints", run);
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        if (strchr(e->d_name, '.')) { /* step-N.tmp is not whole */
            continue;
        }
        snprintf(path, sizeof path, "%s/%s/model.bin", folder, e->d_name);
        double at = written_at(path);
        if (at > newest) {
            newest = at;
            snprintf(out, size, "%s", path);
        }
    }
    if (dir) {
        closedir(dir);
    }
    KILN_REQUIRE(newest >= 0, err, KILN_EINPUT,
                 "run %s has no weights file yet: it writes one at its first checkpoint, at its "
                 "end, and when it is stopped",
                 run);
    return KILN_OK;
}

static enum kiln_status find_run(const char *name, struct kiln_model_source *out,
                                 struct kiln_err *err) {
    char path[4200];
    snprintf(path, sizeof path, "%s/run.json", name);
    KILN_REQUIRE(kiln_path_exists(path), err, KILN_EINPUT,
                 "model %s: a folder without run.json is no run, and without config.json no model; "
                 "give a run folder, a Hugging Face folder, a .gguf, a llama2.c .bin or a preset",
                 name);
    KILN_TRY(newest_weights(name, out->path, sizeof out->path, err));
    if (kiln_tokenizer_in(name, path, sizeof path)) {
        snprintf(out->tokenizer, sizeof out->tokenizer, "%s", path);
    }
    return KILN_OK;
}

static bool lies_in(const char *folder, const char *name) {
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return kiln_path_exists(path);
}

/* The folder or file itself where it brings a tokenizer. */
static void find_tokenizer(struct kiln_model_source *out,
                           const struct kiln_checkpoint *checkpoint) {
    static const char *const files[] = {"tokenizer.json", "tokenizer.model", "tokenizer.bin"};
    bool found = strcmp(kiln_checkpoint_format(checkpoint), "GGUF") == 0 &&
                 kiln_gguf_has_tokenizer(checkpoint);
    for (size_t i = 0; kiln_path_is_dir(out->path) && i < sizeof files / sizeof files[0]; i++) {
        found = found || lies_in(out->path, files[i]);
    }
    if (found && out->tokenizer[0] == '\0') {
        snprintf(out->tokenizer, sizeof out->tokenizer, "%s", out->path);
    }
}

static void folder_of(const char *path, char *out, size_t size) {
    snprintf(out, size, "%s", path);
    char *slash = strrchr(out, '/');
    if (slash) {
        *slash = '\0';
    }
}

/* Do the weights come from a run, or a checkpoint of one, that trained adapters? */
static bool has_adapters(const struct kiln_model_source *source) {
    char folder[4096];
    folder_of(source->path, folder, sizeof folder);
    return source->lora.rank > 0 ||
           (lies_in(folder, "run.json") && lies_in(folder, "adapter/adapter_config.json"));
}

/* Does a resume.kiln beside a checkpoint's model.bin say that adapters belong to it? */
static enum kiln_status find_adapters(struct kiln_model_source *out, struct kiln_err *err) {
    char folder[4096];
    struct kiln_checkpoint_info info;
    const size_t n = strlen(out->path), end = strlen("/model.bin");
    folder_of(out->path, folder, sizeof folder);
    if (n < end || strcmp(out->path + n - end, "/model.bin") != 0 ||
        !lies_in(folder, "resume.kiln")) {
        return KILN_OK;
    }
    KILN_TRY(kiln_checkpoint_peek(folder, &info, err));
    out->lora = info.lora;
    return KILN_OK;
}

static void list_presets(char *out, size_t size) {
    size_t n = 0;
    out[0] = '\0';
    for (const struct kiln_preset *p = kiln_presets(); p->name && n < size; p++) {
        n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "", p->name);
    }
}

enum kiln_status kiln_model_source(const char *name, struct kiln_model_source *out,
                                   struct kiln_err *err) {
    memset(out, 0, sizeof *out);
    KILN_REQUIRE(strlen(name) < sizeof out->path - 256, err, KILN_EINPUT, "model: path too long");
    if (kiln_path_is_dir(name) && (lies_in(name, "run.json") || !lies_in(name, "config.json"))) {
        KILN_TRY(find_run(name, out, err));
    } else if (kiln_path_exists(name)) {
        snprintf(out->path, sizeof out->path, "%s", name);
    } else {
        out->preset = kiln_preset_find(name);
        char presets[160];
        list_presets(presets, sizeof presets);
        KILN_REQUIRE(out->preset, err, KILN_EINPUT,
                     "model %s: no such file, and no preset of that name (%s)", name, presets);
        out->dims = out->preset->dims;
        return KILN_OK;
    }
    struct kiln_checkpoint *checkpoint = NULL;
    KILN_TRY(kiln_checkpoint_open(out->path, &checkpoint, err));
    out->dims = *kiln_checkpoint_dims(checkpoint);
    find_tokenizer(out, checkpoint);
    kiln_checkpoint_close(checkpoint);
    return find_adapters(out, err);
}

/* The weights of the file with the adapters of the checkpoint it belongs to. */
static enum kiln_status load_merged(const struct kiln_model_source *source,
                                    const struct kiln_checkpoint *checkpoint, float *weights,
                                    struct kiln_err *err) {
    char folder[4096];
    struct kiln_checkpoint_info info;
    struct kiln_model with;
    folder_of(source->path, folder, sizeof folder);
    KILN_TRY(kiln_checkpoint_peek(folder, &info, err));
    KILN_TRY(kiln_adapters_begin(&source->dims, &source->lora, &with, err));
    enum kiln_status status = kiln_checkpoint_load(checkpoint, with.table, with.weights, err);
    if (status == KILN_OK) {
        status = kiln_checkpoint_adapters(folder, &info, with.weights + with.table->trained, err);
    }
    if (status == KILN_OK) {
        kiln_lora_merge(with.table, with.weights);
        memcpy(weights, with.weights, with.table->trained * sizeof *weights);
    }
    kiln_model_close(&with);
    return status;
}

enum kiln_status kiln_model_source_load(const struct kiln_model_source *source,
                                        const struct kiln_table *table, uint64_t seed,
                                        float *weights, struct kiln_pool *pool,
                                        struct kiln_err *err) {
    if (source->preset) {
        kiln_weights_init_on(pool, table, seed, weights);
        return KILN_OK;
    }
    struct kiln_checkpoint *checkpoint = NULL;
    KILN_TRY(kiln_checkpoint_open(source->path, &checkpoint, err));
    enum kiln_status status = source->lora.rank > 0
                                  ? load_merged(source, checkpoint, weights, err)
                                  : kiln_checkpoint_load(checkpoint, table, weights, err);
    kiln_checkpoint_close(checkpoint);
    return status;
}

void kiln_model_source_name(const struct kiln_model_source *source, uint64_t seed, char *out,
                            size_t size) {
    if (source->preset) {
        snprintf(out, size, "%s (random weights, seed %" PRIu64 ")", source->preset->name, seed);
    } else {
        snprintf(out, size, "%s", source->path);
    }
}

/* How the tensors lie in the file, for who wants to know. */
static enum kiln_status read_format(struct kiln_model *model, struct kiln_err *err) {
    struct kiln_checkpoint *checkpoint = NULL;
    KILN_TRY(kiln_checkpoint_open(model->path, &checkpoint, err));
    snprintf(model->format, sizeof model->format, "%s", kiln_checkpoint_format(checkpoint));
    model->dtypes = kiln_alloc(model->table->n_tensors, sizeof *model->dtypes);
    for (size_t i = 0; model->dtypes != NULL && i < model->table->n_tensors; i++) {
        model->dtypes[i] = kiln_checkpoint_dtype(checkpoint, &model->table->tensors[i]);
    }
    kiln_checkpoint_close(checkpoint);
    KILN_REQUIRE(model->dtypes != NULL, err, KILN_ENOMEM, "model %s: not enough memory",
                 model->path);
    return KILN_OK;
}

enum kiln_status kiln_model_open(const char *name, uint64_t seed, struct kiln_model *out,
                                 struct kiln_err *err) {
    struct kiln_model_source source;
    memset(out, 0, sizeof *out);
    KILN_TRY(kiln_model_source(name, &source, err));
    KILN_TRY(kiln_table_create(&source.dims, &out->table, err));
    out->weights = kiln_alloc(out->table->size, sizeof *out->weights);
    enum kiln_status status =
        out->weights ? kiln_model_source_load(&source, out->table, seed, out->weights, NULL, err)
                     : KILN_FAIL(err, KILN_ENOMEM, "model %s: no memory for %zu weights", name,
                                 out->table->size);
    if (status == KILN_OK && source.preset == NULL) {
        memcpy(out->path, source.path, sizeof out->path);
        status = read_format(out, err);
    }
    if (status != KILN_OK) {
        kiln_model_close(out);
        return status;
    }
    out->adapted = source.preset == NULL && has_adapters(&source);
    out->accum = source.preset ? source.preset->accum : 0;
    kiln_model_source_name(&source, seed, out->name, sizeof out->name);
    memcpy(out->tokenizer, source.tokenizer, sizeof out->tokenizer);
    return KILN_OK;
}

void kiln_model_close(struct kiln_model *model) {
    kiln_table_destroy(model->table);
    kiln_free(model->weights);
    kiln_free(model->dtypes);
    memset(model, 0, sizeof *model);
}

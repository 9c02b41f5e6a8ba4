/* SPDX-License-Identifier: MIT */
#include "train/model_source.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/mem.h"
#include "model/table.h"

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

bool kiln_find_run_tokenizer(const char *folder, char *out, size_t size) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.bin"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(out, size, "%s/%s", folder, names[i]);
        if (kiln_path_exists(out)) {
            return true;
        }
    }
    out[0] = '\0';
    return false;
}

static enum kiln_status find_run(const char *name, struct kiln_model_source *out,
                                 struct kiln_err *err) {
    char path[4200];
    snprintf(path, sizeof path, "%s/run.json", name);
    KILN_REQUIRE(kiln_path_exists(path), err, KILN_EINPUT,
                 "model %s: a folder without run.json is no run; give a run folder, a llama2.c "
                 ".bin file or a preset",
                 name);
    KILN_TRY(newest_weights(name, out->path, sizeof out->path, err));
    (void)kiln_find_run_tokenizer(name, out->tokenizer, sizeof out->tokenizer);
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
    if (kiln_path_is_dir(name)) {
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
    kiln_checkpoint_close(checkpoint);
    return KILN_OK;
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
    enum kiln_status status = kiln_checkpoint_load(checkpoint, table, weights, err);
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
    if (status != KILN_OK) {
        kiln_model_close(out);
        return status;
    }
    out->accum = source.preset ? source.preset->accum : 0;
    kiln_model_source_name(&source, seed, out->name, sizeof out->name);
    memcpy(out->tokenizer, source.tokenizer, sizeof out->tokenizer);
    return KILN_OK;
}

void kiln_model_close(struct kiln_model *model) {
    kiln_table_destroy(model->table);
    kiln_free(model->weights);
    memset(model, 0, sizeof *model);
}

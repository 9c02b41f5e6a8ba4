/* SPDX-License-Identifier: MIT */
#include "train/run_json.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"

enum kiln_status kiln_run_json_write(const char *path, const struct kiln_settings *settings,
                                     const struct kiln_dims *dims,
                                     const struct kiln_profile *profile, struct kiln_err *err) {
    char sizes[1400];
    char *json = kiln_settings_to_json(settings);
    KILN_REQUIRE(json, err, KILN_ENOMEM, "write %s: not enough memory", path);
    int n = snprintf(
        sizes, sizeof sizes,
        ",\n  \"sizes\": {\"dim\": %zu, \"hidden\": %zu, \"layers\": %zu, "
        "\"heads\": %zu, \"kv_heads\": %zu, \"head_size\": %zu, \"vocab\": %zu, "
        "\"seq\": %zu, \"tied\": %d, \"rms_eps\": %.9g, \"rope_theta\": %.9g},\n"
        "  \"rates\": {\"tflops\": %.6g, \"ceiling_tflops\": %.6g, "
        "\"compile_s\": %.6g, \"compile_gb_s\": %.6g, \"update_gb_s\": %.6g, "
        "\"restart_s\": %.6g, \"disk_write_gb_s\": %.6g, "
        "\"disk_read_gb_s\": %.6g, \"process_gb\": %.9g, \"cache_gb\": %.6g, "
        "\"walk_gb_s\": %.6g}\n}",
        dims->dim, dims->hidden, dims->layers, dims->heads, dims->kv_heads, dims->head_size,
        dims->vocab, dims->seq, (int)dims->tied, (double)dims->rms_eps, (double)dims->rope_theta,
        profile->tflops, profile->ceiling_tflops, profile->compile_s, profile->compile_gb_s,
        profile->update_gb_s, profile->restart_s, profile->disk_write_gb_s, profile->disk_read_gb_s,
        profile->process_gb, profile->cache_gb, profile->walk_gb_s);
    /* In front of the brace that ends the settings. */
    size_t kept = strlen(json);
    while (kept > 0 && (json[kept - 1] == '}' || json[kept - 1] == '\n')) {
        kept--;
    }
    char *text = kiln_alloc(kept + sizeof sizes, 1);
    if (text != NULL) {
        memcpy(text, json, kept);
        memcpy(text + kept, sizes, (size_t)n);
    }
    kiln_settings_json_free(json);
    KILN_REQUIRE(text, err, KILN_ENOMEM, "write %s: not enough memory", path);
    enum kiln_status status = kiln_write_file(path, text, kept + (size_t)n, err);
    kiln_free(text);
    return status;
}

static enum kiln_status read_sizes(const char *path, const json_t *sizes, struct kiln_dims *dims,
                                   struct kiln_err *err) {
    const struct {
        const char *name;
        size_t *to;
    } counts[] = {{"dim", &dims->dim},           {"hidden", &dims->hidden},
                  {"layers", &dims->layers},     {"heads", &dims->heads},
                  {"kv_heads", &dims->kv_heads}, {"head_size", &dims->head_size},
                  {"vocab", &dims->vocab},       {"seq", &dims->seq}};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const json_t *value = json_object_get(sizes, counts[i].name);
        KILN_REQUIRE(json_is_integer(value) && json_integer_value(value) > 0, err, KILN_EINPUT,
                     "%s: \"sizes\": \"%s\" is not a positive number", path, counts[i].name);
        *counts[i].to = (size_t)json_integer_value(value);
    }
    dims->tied = json_integer_value(json_object_get(sizes, "tied")) != 0;
    dims->rms_eps = (float)json_number_value(json_object_get(sizes, "rms_eps"));
    dims->rope_theta = (float)json_number_value(json_object_get(sizes, "rope_theta"));
    return kiln_dims_check(dims, err);
}

static enum kiln_status read_profile(const char *path, const json_t *from,
                                     struct kiln_profile *profile, struct kiln_err *err) {
    const struct {
        const char *name;
        double *to;
    } rates[] = {{"tflops", &profile->tflops},
                 {"ceiling_tflops", &profile->ceiling_tflops},
                 {"compile_s", &profile->compile_s},
                 {"compile_gb_s", &profile->compile_gb_s},
                 {"update_gb_s", &profile->update_gb_s},
                 {"restart_s", &profile->restart_s},
                 {"disk_write_gb_s", &profile->disk_write_gb_s},
                 {"disk_read_gb_s", &profile->disk_read_gb_s},
                 {"process_gb", &profile->process_gb},
                 {"cache_gb", &profile->cache_gb},
                 {"walk_gb_s", &profile->walk_gb_s}};
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        const json_t *value = json_object_get(from, rates[i].name);
        KILN_REQUIRE(json_is_number(value) && json_number_value(value) >= 0, err, KILN_EINPUT,
                     "%s: \"rates\": \"%s\" is not a number from 0 up", path, rates[i].name);
        *rates[i].to = json_number_value(value);
    }
    return KILN_OK;
}

enum kiln_status kiln_run_json_read(const char *path, struct kiln_settings *settings,
                                    struct kiln_dims *dims, struct kiln_profile *profile,
                                    struct kiln_err *err) {
    char *json = NULL;
    size_t size = 0;
    memset(dims, 0, sizeof *dims);
    memset(profile, 0, sizeof *profile);
    KILN_TRY(kiln_read_file(path, &json, &size, err));
    enum kiln_status status = kiln_settings_from_json(settings, json, size, err);
    json_t *all = status == KILN_OK ? json_loadb(json, size, 0, NULL) : NULL;
    const json_t *sizes = json_object_get(all, "sizes");
    if (sizes != NULL) {
        status = read_sizes(path, sizes, dims, err);
    }
    const json_t *rates = json_object_get(all, "rates");
    if (status == KILN_OK && rates != NULL) {
        status = read_profile(path, rates, profile, err);
    }
    json_decref(all);
    kiln_free(json);
    return status;
}

/* SPDX-License-Identifier: MIT
 *
 * Hugging Face folders: what a config.json may say, shards and their index, and every way in which
 * these contradict each other.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/model.h"
#include "kiln_test.h"
#include "model/hf_config.h"

/* ---- config.json ---------------------------------------------------------------------------- */

#define SIZES                                                                                \
    "\"hidden_size\":32,\"intermediate_size\":64,\"vocab_size\":11,\"num_hidden_layers\":2," \
    "\"num_attention_heads\":4"
#define LLAMA "{\"model_type\":\"llama\"," SIZES
#define QWEN2 "{\"model_type\":\"qwen2\"," SIZES ",\"num_key_value_heads\":2"
#define QWEN3 "{\"model_type\":\"qwen3\"," SIZES ",\"num_key_value_heads\":2"

static struct kiln_dims config(const char *text) {
    struct kiln_dims dims;
    struct kiln_err err;
    CHECK_OK(kiln_hf_config_parse("config.json", text, strlen(text), &dims, &err), &err);
    return dims;
}

static void check_config(const char *text, const char *why) {
    struct kiln_dims dims;
    struct kiln_err err;
    CHECK_FAILS(kiln_hf_config_parse("config.json", text, strlen(text), &dims, &err), KILN_EINPUT,
                &err);
    CHECK_CONTAINS(err.message, why);
}

TEST(a_silent_config_means_what_transformers_takes_it_for) {
    struct kiln_dims d = config(LLAMA "}");
    CHECK(d.kv_heads == 4 && d.head_size == 8 && d.seq == 2048 && !d.tied && !d.qkv_bias);
    CHECK_CLOSE(d.rms_eps, 1e-6F, 0);
    CHECK_CLOSE(d.rope_theta, 10000, 0);
    d = config(QWEN2 "}");
    CHECK(d.qkv_bias && !d.qk_norm && d.head_size == 8 && d.seq == 32768);
    d = config(QWEN3 "}");
    CHECK(!d.qkv_bias && d.qk_norm && d.head_size == 128);
}

TEST(both_ways_to_write_rope_are_read) {
    struct kiln_dims d = config(LLAMA
                                ",\"rope_parameters\":{\"rope_type\":\"llama3\","
                                "\"rope_theta\":5e5,\"factor\":8.0,\"low_freq_factor\":1.0,"
                                "\"high_freq_factor\":4,"
                                "\"original_max_position_embeddings\":8192}}");
    CHECK(d.rope.kind == KILN_ROPE_LLAMA3 && d.rope.original_seq == 8192);
    CHECK_CLOSE(d.rope_theta, 500000, 0);
    d = config(LLAMA
               ",\"rope_theta\":1000000,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}");
    CHECK(d.rope.kind == KILN_ROPE_LINEAR);
    CHECK_CLOSE(d.rope_theta, 1000000, 0);
    d = config(QWEN2
               ",\"max_position_embeddings\":64,"
               "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0}}");
    CHECK(d.rope.kind == KILN_ROPE_YARN && d.rope.original_seq == 64);
    CHECK_CLOSE(d.rope.beta_fast, 32, 0);
    CHECK_CLOSE(d.rope.attention_factor, 1.138629436, 1e-6);
    d = config(LLAMA ",\"rope_scaling\":{\"rope_type\":\"default\"}}");
    CHECK(d.rope.kind == KILN_ROPE_PLAIN);
}

TEST(options_that_kiln_lacks_are_named_with_their_value) {
    check_config("{\"model_type\":\"mistral\"," SIZES "}", "\"mistral\", which kiln does not know");
    check_config("{" SIZES "}", "\"model_type\" is missing");
    check_config(LLAMA ",\"architectures\":[\"LlamaForSequenceClassification\"]}",
                 "[\"LlamaForSequenceClassification\"], expected [\"LlamaForCausalLM\"]");
    check_config(LLAMA ",\"attention_bias\":true}", "\"attention_bias\" is true");
    check_config(LLAMA ",\"mlp_bias\":true}", "\"mlp_bias\" is true");
    check_config(LLAMA ",\"hidden_act\":\"gelu\"}", "\"hidden_act\" is \"gelu\"");
    check_config(QWEN2 ",\"use_sliding_window\":true}", "\"use_sliding_window\" is true");
    check_config(QWEN3 ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]}",
                 "\"layer_types\" is \"sliding_attention\"");
    check_config(LLAMA ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}}", "\"dynamic\"");
    check_config(LLAMA ",\"rope_scaling\":{\"rope_type\":\"longrope\"}}", "\"longrope\"");
    check_config(LLAMA ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,\"mscale\":1}}",
                 "\"mscale\" is an option that kiln does not have");
    check_config(LLAMA ",\"rope_scaling\":{\"rope_type\":\"linear\"}}", "has no \"factor\"");
    check_config(LLAMA ",\"partial_rotary_factor\":0.5}", "\"partial_rotary_factor\" is 0.5");
    check_config(LLAMA ",\"quantization_config\":{\"bits\":4}}",
                 "\"quantization_config\" is {\"bits\":4}, an option that kiln does not have");
    check_config(LLAMA ",\"logit_scale\":0.5}", "\"logit_scale\" is 0.5");
}

TEST(keys_without_a_say_are_passed_over) {
    config(LLAMA
           ",\"torch_dtype\":\"bfloat16\",\"_name_or_path\":\"x\",\"use_cache\":true,"
           "\"eos_token_id\":[2,3],\"attention_dropout\":0.1,\"pretraining_tp\":2,"
           "\"unheard_of\":null,\"unheard\":false,\"pruned_heads\":{}}");
    config(QWEN2 ",\"use_sliding_window\":false,\"sliding_window\":4096,\"max_window_layers\":28}");
}

TEST(sizes_that_make_no_model_are_refused) {
    check_config("{\"model_type\":\"llama\",\"hidden_size\":32}",
                 "\"intermediate_size\" is missing");
    check_config(LLAMA ",\"num_key_value_heads\":3}", "kv-heads 3");
    check_config(LLAMA ",\"head_dim\":7}", "head_size 7");
    check_config(LLAMA ",\"head_dim\":-8}", "\"head_dim\" is -8");
    check_config(LLAMA ",\"rms_norm_eps\":\"x\"}", "\"rms_norm_eps\" is \"x\"");
    check_config(LLAMA ",\"rms_norm_eps\":0}", "rms_eps 0");
    check_config(LLAMA ",\"max_position_embeddings\":9223372036854775807}", "seq");
    check_config(LLAMA ",\"max_position_embeddings\":9223372036854775808}", "line 1");
    check_config(LLAMA ",\"hidden_act\":\"silu\",\"hidden_act\":\"silu\"}", "duplicate");
    check_config("[]", "no JSON object");
}

TEST(a_config_nested_10000_deep_is_refused) {
    char *deep = kiln_alloc(21000, 1);
    strcpy(deep, LLAMA ",\"x\":");
    memset(deep + strlen(deep), '[', 10000);
    memset(deep + strlen(deep), ']', 10000);
    strcat(deep, "}");
    check_config(deep, "line 1");
    kiln_free(deep);
}

/* ---- folders -------------------------------------------------------------------------------- */

static struct kiln_dims small_dims(void) {
    return (struct kiln_dims){.dim = 32,
                              .hidden = 64,
                              .layers = 2,
                              .heads = 4,
                              .kv_heads = 2,
                              .vocab = 11,
                              .seq = 16,
                              .rms_eps = 1e-5F,
                              .rope_theta = 10000};
}

/* A model in test_path("hf"); its weights [table->size] are the caller's. */
static float *write_folder(struct kiln_dims dims, struct kiln_table **table) {
    struct kiln_err err;
    CHECK_OK(kiln_table_create(&dims, table, &err), &err);
    float *weights = kiln_alloc((*table)->size, sizeof *weights);
    kiln_weights_init(*table, 3, weights);
    const struct kiln_save_options how = {.replace = false};
    /* What a test has put beside the model is not kiln's to replace. */
    CHECK_OK(kiln_remove_tree(test_path("hf"), &err), &err);
    CHECK_OK(kiln_checkpoint_save(KILN_FORMAT_HF, test_path("hf"), *table, weights, &how, &err),
             &err);
    return weights;
}

static void write_small(void) {
    struct kiln_table *table;
    kiln_free(write_folder(small_dims(), &table));
    kiln_table_destroy(table);
}

static void check_folder(const char *why) {
    struct kiln_checkpoint *checkpoint;
    struct kiln_err err;
    CHECK_FAILS(kiln_checkpoint_open(test_path("hf"), &checkpoint, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, why);
}

struct weights_file {
    json_t *header;
    char *bytes;
    size_t data, size;
};

static struct weights_file read_weights(void) {
    struct weights_file file;
    uint64_t size;
    CHECK_OK(kiln_read_file(test_path("hf/model.safetensors"), &file.bytes, &file.size, NULL),
             NULL);
    memcpy(&size, file.bytes, 8);
    file.header = json_loadb(file.bytes + 8, size, 0, NULL);
    file.data = 8 + size;
    return file;
}

/* The tensors whose names hold `part` (or do not) as a file of their own. */
static void write_shard(const struct weights_file *file, const char *name, const char *part,
                        bool hold) {
    char path[300];
    json_t *header = json_object(), *entry;
    const char *key;
    size_t at = 0;
    char *data = kiln_alloc(file->size, 1);
    json_object_foreach(file->header, key, entry) {
        if (strcmp(key, "__metadata__") == 0 || (strstr(key, part) != NULL) != hold) {
            continue;
        }
        json_t *offsets = json_object_get(entry, "data_offsets");
        const size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
        const size_t n = (size_t)json_integer_value(json_array_get(offsets, 1)) - begin;
        json_t *copy = json_deep_copy(entry);
        json_object_set_new(copy, "data_offsets",
                            json_pack("[I, I]", (json_int_t)at, (json_int_t)at + (json_int_t)n));
        json_object_set_new(header, key, copy);
        memcpy(data + at, file->bytes + file->data + begin, n);
        at += n;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    const uint64_t size = strlen(text);
    snprintf(path, sizeof path, "%s/%s", test_path("hf"), name);
    FILE *out = fopen(path, "wb");
    fwrite(&size, 8, 1, out);
    fwrite(text, 1, size, out);
    fwrite(data, 1, at, out);
    CHECK_EQ(fclose(out), 0);
    free(text);
    kiln_free(data);
    json_decref(header);
}

/* "hf" as two shards, the attention's matrices in b; the index as told by `change`. */
static void shard(void (*change)(json_t *map)) {
    write_small();
    struct weights_file file = read_weights();
    json_t *map = json_object(), *entry;
    const char *key;
    json_object_foreach(file.header, key, entry) {
        if (strcmp(key, "__metadata__") != 0) {
            json_object_set_new(
                map, key,
                json_string(strstr(key, "self_attn") != NULL ? "b.safetensors" : "a.safetensors"));
        }
    }
    write_shard(&file, "a.safetensors", "self_attn", false);
    write_shard(&file, "b.safetensors", "self_attn", true);
    if (change != NULL) {
        change(map);
    }
    json_t *index = json_pack("{s:{}, s:o}", "metadata", "weight_map", map);
    CHECK_EQ(json_dump_file(index, test_path("hf/model.safetensors.index.json"), 0), 0);
    CHECK_EQ(remove(test_path("hf/model.safetensors")), 0);
    json_decref(index);
    json_decref(file.header);
    kiln_free(file.bytes);
}

TEST(shards_are_one_model) {
    struct kiln_table *table;
    struct kiln_checkpoint *checkpoint;
    struct kiln_err err;
    float *want = write_folder(small_dims(), &table);
    shard(NULL);
    CHECK_OK(kiln_checkpoint_open(test_path("hf"), &checkpoint, &err), &err);
    float *got = kiln_alloc(table->size, sizeof *got);
    CHECK_OK(kiln_checkpoint_load(checkpoint, table, got, &err), &err);
    CHECK_BYTES(got, want, table->size * sizeof *got);
    kiln_checkpoint_close(checkpoint);
    kiln_table_destroy(table);
    kiln_free(want);
    kiln_free(got);
}

static const char *const wq = "model.layers.0.self_attn.q_proj.weight";
static void elsewhere(json_t *map) { json_object_set_new(map, wq, json_string("a.safetensors")); }
static void unlisted(json_t *map) { json_object_del(map, wq); }
static void too_many(json_t *map) { json_object_set_new(map, "x", json_string("a.safetensors")); }
static void absent(json_t *map) { json_object_set_new(map, wq, json_string("c.safetensors")); }
static void outside(json_t *map) { json_object_set_new(map, wq, json_string("../b.safetensors")); }
static void no_name(json_t *map) { json_object_set_new(map, wq, json_integer(1)); }

TEST(an_index_that_contradicts_its_shards_is_refused) {
    shard(elsewhere);
    check_folder("q_proj.weight is in shard b.safetensors, the index says a.safetensors");
    shard(unlisted);
    check_folder("which the index does not list");
    shard(too_many);
    check_folder("tensor x is to be in shard a.safetensors, which does not have it");
    shard(absent);
    check_folder("shard c.safetensors is missing");
    shard(outside);
    check_folder("no name of a file beside it");
    shard(no_name);
    check_folder("is no string");
}

TEST(a_tensor_in_two_shards_is_refused) {
    shard(NULL);
    CHECK_OK(kiln_remove_tree(test_path("hf/a.safetensors"), NULL), NULL);
    write_small();
    struct weights_file file = read_weights();
    shard(NULL);
    write_shard(&file, "a.safetensors", "mlp.up", false); /* all but these: the attention's, too */
    check_folder("is in shard a.safetensors, the index says b.safetensors");
    json_decref(file.header);
    kiln_free(file.bytes);
}

TEST(a_folder_that_lacks_something_is_refused) {
    shard(NULL);
    CHECK_EQ(remove(test_path("hf/b.safetensors")), 0);
    check_folder("shard b.safetensors is missing");
    CHECK_EQ(remove(test_path("hf/model.safetensors.index.json")), 0);
    check_folder("neither model.safetensors nor model.safetensors.index.json");
    CHECK_EQ(remove(test_path("hf/config.json")), 0);
    check_folder("a folder without config.json");
}

/* ---- tensors and config.json ---------------------------------------------------------------- */

/* Replace a member of config.json (text is JSON). */
static void reconfigure(const char *key, const char *text) {
    json_t *json = json_load_file(test_path("hf/config.json"), 0, NULL);
    json_object_set_new(json, key, json_loads(text, JSON_DECODE_ANY, NULL));
    CHECK_EQ(json_dump_file(json, test_path("hf/config.json"), 0), 0);
    json_decref(json);
}

TEST(a_config_that_contradicts_the_tensors_is_refused) {
    write_small();
    reconfigure("vocab_size", "12");
    check_folder("has shape [11, 32], the sizes of the model make it [12, 32]");
    write_small();
    reconfigure("num_hidden_layers", "3");
    check_folder("tensor model.layers.2.input_layernorm.weight is missing");
    reconfigure("num_hidden_layers", "1");
    check_folder("is of layer 1, the model has 1 layers");
    write_small();
    reconfigure("tie_word_embeddings", "true");
    check_folder("tie_word_embeddings, but lm_head.weight differs");
    write_small();
    reconfigure("model_type", "\"qwen2\"");
    reconfigure("architectures", "[\"Qwen2ForCausalLM\"]");
    check_folder("self_attn.q_proj.bias is missing");
}

/* Rename a tensor, or give it another dtype, in the header of model.safetensors. */
static void check_header(const char *from, const char *to, const char *why) {
    write_small();
    struct weights_file file = read_weights();
    char *at = memmem(file.bytes, file.data, from, strlen(from));
    CHECK(at != NULL && strlen(from) == strlen(to));
    memcpy(at, to, strlen(to));
    FILE *out = fopen(test_path("hf/model.safetensors"), "wb");
    fwrite(file.bytes, 1, file.size, out);
    CHECK_EQ(fclose(out), 0);
    check_folder(why);
    json_decref(file.header);
    kiln_free(file.bytes);
}

TEST(a_tensor_that_has_no_place_is_named) {
    check_header("layers.1.self_attn.o_proj.weight", "layers.1.self_attn.o_proj.weighs",
                 "tensor model.layers.1.self_attn.o_proj.weighs has no place");
    check_header("layers.1.self_attn.o_proj.weight", "layers.01.self_attn.o_proj.weigh",
                 "has no place");
    check_header("layers.1.self_attn.k_proj.weight", "layers.1.self_attn.q_proj.weight", "");
    check_header("\"dtype\":\"F32\"", "\"dtype\":\"I32\"",
                 "is of type I32, which kiln does not read");
}

/* SPDX-License-Identifier: MIT
 *
 * gguf_model.c: see gguf_model.h.
 *
 * llama3's scaling has no keys: the file holds what each frequency is divided by, as a tensor. kiln
 * writes the four numbers behind it under keys of its own, and holds them, or else those that all
 * published models have, against the tensor.
 */
#include "model/gguf_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "model/hf_config.h"

#define KEY_ROOM 96

static const struct architecture {
    const char *name;
    bool halves, qkv_bias, qk_norm;
} architectures[] = {
    {"llama", false, false, false},
    {"qwen2", true, true, false},
    {"qwen3", true, false, true},
};

static const struct architecture *find_architecture(const char *name, size_t size) {
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++) {
        const char *known = architectures[i].name;
        if (strlen(known) == size && memcmp(known, name, size) == 0) {
            return &architectures[i];
        }
    }
    return NULL;
}

static enum kiln_status read_architecture(const struct kiln_gguf *gguf,
                                          const struct architecture **out, struct kiln_err *err) {
    struct kiln_gguf_string name;
    KILN_TRY(kiln_gguf_text(gguf, "general.architecture", &name, err));
    *out = find_architecture(name.data, name.size);
    KILN_REQUIRE(*out != NULL, err, KILN_EINPUT,
                 "%s: general.architecture is %.*s, which kiln does not know; it reads llama, "
                 "qwen2 and qwen3",
                 gguf->path, (int)kiln_least(name.size, 60), name.data);
    return KILN_OK;
}

bool kiln_gguf_halves(const struct kiln_gguf *gguf) {
    const struct architecture *architecture = NULL;
    return read_architecture(gguf, &architecture, NULL) == KILN_OK && architecture->halves;
}

/* ---- keys ----------------------------------------------------------------------------------- */

struct reader {
    const struct kiln_gguf *gguf;
    const char *architecture;
    struct kiln_err *err;
};

static const char *key_of(const char *architecture, const char *what, char room[KEY_ROOM]) {
    snprintf(room, KEY_ROOM, "%s.%s", architecture, what);
    return room;
}

static const struct kiln_gguf_pair *find(const struct reader *reader, const char *what) {
    char key[KEY_ROOM];
    return kiln_gguf_find(reader->gguf, key_of(reader->architecture, what, key));
}

/* A size; absent: `missing`, or an error where that is 0. */
static enum kiln_status read_size(const struct reader *reader, const char *what, size_t missing,
                                  size_t *out) {
    char key[KEY_ROOM];
    int64_t value = (int64_t)missing;
    key_of(reader->architecture, what, key);
    if (missing == 0 || kiln_gguf_find(reader->gguf, key) != NULL) {
        KILN_TRY(kiln_gguf_integer(reader->gguf, key, &value, reader->err));
    }
    KILN_REQUIRE(value > 0, reader->err, KILN_EINPUT, "%s: %s is %lld, expected a positive number",
                 reader->gguf->path, key, (long long)value);
    *out = (size_t)value;
    return KILN_OK;
}

/* A real number; absent: `missing`, or an error where that is NaN. */
static enum kiln_status read_real(const struct reader *reader, const char *what, float missing,
                                  float *out) {
    char key[KEY_ROOM];
    double value = (double)missing;
    key_of(reader->architecture, what, key);
    if (isnan(missing) || kiln_gguf_find(reader->gguf, key) != NULL) {
        KILN_TRY(kiln_gguf_real(reader->gguf, key, &value, reader->err));
    }
    *out = (float)value;
    return KILN_OK;
}

/* Keys that are read here; the rest have a value at which they change nothing. */
static const struct {
    const char *what;
    bool read;
    double off;
} known[] = {
    {"context_length", true, 0},
    {"embedding_length", true, 0},
    {"block_count", true, 0},
    {"feed_forward_length", true, 0},
    {"vocab_size", true, 0},
    {"attention.head_count", true, 0},
    {"attention.head_count_kv", true, 0},
    {"attention.key_length", true, 0},
    {"attention.value_length", true, 0},
    {"attention.layer_norm_rms_epsilon", true, 0},
    {"rope.dimension_count", true, 0},
    {"rope.freq_base", true, 0},
    {"rope.scale_linear", true, 0},
    {"rope.scaling.type", true, 0},
    {"rope.scaling.factor", true, 0},
    {"rope.scaling.attn_factor", true, 0},
    {"rope.scaling.original_context_length", true, 0},
    {"rope.scaling.finetuned", true, 0},
    {"rope.scaling.yarn_beta_fast", true, 0},
    {"rope.scaling.yarn_beta_slow", true, 0},
    {"tensor_data_layout", true, 0}, /* says how the rows of q and k came to be */
    {"expert_count", false, 0},
    {"expert_used_count", false, 0},
    {"attention.sliding_window", false, 0},
    {"attention.causal", false, 1},
    {"use_parallel_residual", false, 0},
    {"rope.scaling.yarn_ext_factor", false, 1},
    {"rope.scaling.yarn_attn_factor", false, 1},
    {"rope.scaling.yarn_log_multiplier", false, 0},
    {"attention.scale", false, 0},
    {"attention.clamp_kqv", false, 0},
    {"logit_scale", false, 1},
    {"embedding_scale", false, 1},
    {"residual_scale", false, 1},
};

static bool changes_nothing(const struct kiln_gguf_pair *pair, const char *what, size_t size) {
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strlen(known[i].what) == size && memcmp(known[i].what, what, size) == 0) {
            return known[i].read || (!pair->array && pair->type != KILN_GGUF_STRING &&
                                     fabs(kiln_gguf_real_at(pair, 0) - known[i].off) == 0.0);
        }
    }
    return false;
}

static enum kiln_status check_keys(const struct reader *reader) {
    const struct kiln_gguf *gguf = reader->gguf;
    const size_t prefix = strlen(reader->architecture);
    for (size_t i = 0; i < gguf->n_pairs; i++) {
        const struct kiln_gguf_pair *pair = &gguf->pairs[i];
        const struct kiln_gguf_string *key = &pair->key;
        if (key->size <= prefix || key->data[prefix] != '.' ||
            memcmp(key->data, reader->architecture, prefix) != 0 ||
            changes_nothing(pair, key->data + prefix + 1, key->size - prefix - 1)) {
            continue;
        }
        const int shown = (int)kiln_least(key->size, 80);
        KILN_REQUIRE(!pair->array && pair->type != KILN_GGUF_STRING, reader->err, KILN_EINPUT,
                     "%s: key %.*s is an option that kiln does not have", gguf->path, shown,
                     key->data);
        return KILN_FAIL(reader->err, KILN_EINPUT,
                         "%s: key %.*s is %g, an option that kiln does not have", gguf->path, shown,
                         key->data, kiln_gguf_real_at(pair, 0));
    }
    const struct kiln_gguf_pair *split = kiln_gguf_find(gguf, "split.count");
    int64_t parts;
    KILN_REQUIRE(split == NULL || !kiln_gguf_integer_at(split, 0, &parts) || parts <= 1,
                 reader->err, KILN_EINPUT,
                 "%s: one of %lld parts of a model; merge them first (llama-gguf-split --merge)",
                 gguf->path, (long long)parts);
    return KILN_OK;
}

/* ---- RoPE ----------------------------------------------------------------------------------- */

/* modeling_rope_utils.py: short waves stay, long ones are stretched, smooth between. */
void kiln_gguf_rope_freqs(const struct kiln_dims *dims, float *out) {
    const struct kiln_rope *rope = &dims->rope;
    const double low = (double)rope->low_freq_factor, high = (double)rope->high_freq_factor;
    const double factor = (double)rope->factor, turn = 2 * 3.14159265358979323846;
    for (size_t i = 0; i < dims->head_size / 2; i++) {
        const double frequency =
            pow((double)dims->rope_theta, -2.0 * (double)i / (double)dims->head_size);
        const double turns = (double)rope->original_seq * frequency / turn;
        const double smooth = fmin(1, fmax(0, (turns - low) / (high - low)));
        out[i] = (float)(1 / ((1 - smooth) / factor + smooth));
    }
}

static enum kiln_status check_rope_freqs(const struct reader *reader,
                                         const struct kiln_gguf_tensor *tensor,
                                         const struct kiln_dims *dims) {
    const size_t n = dims->head_size / 2;
    const unsigned char *data = kiln_gguf_data(reader->gguf, tensor);
    float *wanted = kiln_alloc(n, sizeof *wanted);
    KILN_REQUIRE(wanted != NULL, reader->err, KILN_ENOMEM, "%s: not enough memory",
                 reader->gguf->path);
    kiln_gguf_rope_freqs(dims, wanted);
    bool same = true;
    for (size_t i = 0; i < n; i++) {
        float has;
        memcpy(&has, data + 4 * i, sizeof has);
        same = same && fabsf(has - wanted[i]) <= 1e-4F * wanted[i];
    }
    kiln_free(wanted);
    KILN_REQUIRE(same, reader->err, KILN_EINPUT,
                 "%s: tensor " KILN_GGUF_ROPE_FREQS
                 " is not llama3's scaling by %g from %zu positions between %g and %g turns; kiln "
                 "has no other by tensor",
                 reader->gguf->path, (double)dims->rope.factor, dims->rope.original_seq,
                 (double)dims->rope.low_freq_factor, (double)dims->rope.high_freq_factor);
    return KILN_OK;
}

static enum kiln_status read_llama3(const struct reader *reader, struct kiln_dims *dims) {
    const struct kiln_gguf *gguf = reader->gguf;
    const struct reader own = {.gguf = gguf, .architecture = "kiln", .err = reader->err};
    const struct kiln_gguf_tensor *tensor = kiln_gguf_find_tensor(gguf, KILN_GGUF_ROPE_FREQS);
    struct kiln_rope *rope = &dims->rope;
    float last;
    if (tensor == NULL) {
        return KILN_OK;
    }
    KILN_REQUIRE(rope->kind == KILN_ROPE_PLAIN && tensor->type == KILN_GGML_F32 &&
                     tensor->bytes == 4 * (dims->head_size / 2),
                 reader->err, KILN_EINPUT,
                 "%s: tensor " KILN_GGUF_ROPE_FREQS
                 " is not one F32 number for each of %zu pairs of a head, or RoPE is scaled by "
                 "keys, too",
                 gguf->path, dims->head_size / 2);
    memcpy(&last, kiln_gguf_data(gguf, tensor) + tensor->bytes - sizeof last, sizeof last);
    rope->kind = KILN_ROPE_LLAMA3;
    KILN_TRY(read_real(&own, "rope.factor", last, &rope->factor));
    KILN_TRY(read_real(&own, "rope.low_freq_factor", 1, &rope->low_freq_factor));
    KILN_TRY(read_real(&own, "rope.high_freq_factor", 4, &rope->high_freq_factor));
    KILN_TRY(read_size(&own, "rope.original_context_length", 8192, &rope->original_seq));
    return check_rope_freqs(reader, tensor, dims);
}

static float yarn_attention(float factor) { return (float)(0.1 * log((double)factor) + 1.0); }

static bool is_text(const struct kiln_gguf_string *text, const char *what) {
    return text->size == strlen(what) && memcmp(text->data, what, text->size) == 0;
}

/* llama.cpp multiplies yarn's attention factor by what the paper has for `factor`. */
static enum kiln_status read_yarn(const struct reader *reader, struct kiln_rope *rope) {
    float attention = 1;
    rope->kind = KILN_ROPE_YARN;
    KILN_TRY(read_size(reader, "rope.scaling.original_context_length", 0, &rope->original_seq));
    KILN_TRY(read_real(reader, "rope.scaling.yarn_beta_fast", 0, &rope->beta_fast));
    KILN_TRY(read_real(reader, "rope.scaling.yarn_beta_slow", 0, &rope->beta_slow));
    KILN_TRY(read_real(reader, "rope.scaling.attn_factor", 1, &attention));
    rope->attention_factor =
        attention == 1 ? 0 : attention * yarn_attention(fmaxf(1, rope->factor));
    return KILN_OK;
}

static enum kiln_status read_rope(const struct reader *reader, struct kiln_dims *dims) {
    struct kiln_rope *rope = &dims->rope;
    struct kiln_gguf_string type = {.data = "none", .size = 4};
    char key[KEY_ROOM];
    float factor = 1;
    KILN_TRY(read_real(reader, "rope.freq_base", 10000, &dims->rope_theta));
    KILN_TRY(read_real(reader, "rope.scale_linear", 1, &factor));
    key_of(reader->architecture, "rope.scaling.type", key);
    if (kiln_gguf_find(reader->gguf, key) != NULL) {
        KILN_TRY(kiln_gguf_text(reader->gguf, key, &type, reader->err));
    } else if (find(reader, "rope.scaling.factor") != NULL || factor != 1) {
        type = (struct kiln_gguf_string){.data = "linear", .size = 6};
    }
    KILN_TRY(read_real(reader, "rope.scaling.factor", factor, &rope->factor));
    if (is_text(&type, "yarn")) {
        KILN_TRY(read_yarn(reader, rope));
    } else if (is_text(&type, "linear")) {
        rope->kind = rope->factor == 1 ? KILN_ROPE_PLAIN : KILN_ROPE_LINEAR;
    } else {
        KILN_REQUIRE(is_text(&type, "none"), reader->err, KILN_EINPUT,
                     "%s: %s is %.*s, which kiln does not have; it has none, linear and yarn",
                     reader->gguf->path, key, (int)kiln_least(type.size, 40), type.data);
    }
    return read_llama3(reader, dims);
}

/* ---- dims ----------------------------------------------------------------------------------- */

/* Everything that has to agree with the head size. */
static enum kiln_status read_head_size(const struct reader *reader, struct kiln_dims *dims) {
    static const char *const same[] = {"attention.value_length", "rope.dimension_count"};
    const size_t share = dims->heads <= dims->dim ? dims->dim / dims->heads : 1;
    KILN_TRY(read_size(reader, "attention.key_length", share, &dims->head_size));
    for (size_t i = 0; i < 2; i++) {
        size_t size;
        KILN_TRY(read_size(reader, same[i], dims->head_size, &size));
        KILN_REQUIRE(size == dims->head_size, reader->err, KILN_EINPUT,
                     "%s: %s.%s is %zu where heads have a size of %zu; kiln has heads of one size, "
                     "turned as a whole",
                     reader->gguf->path, reader->architecture, same[i], size, dims->head_size);
    }
    return KILN_OK;
}

static enum kiln_status read_vocab(const struct reader *reader, struct kiln_dims *dims) {
    const struct kiln_gguf_tensor *embed = kiln_gguf_find_tensor(reader->gguf, "token_embd.weight");
    KILN_REQUIRE(embed != NULL, reader->err, KILN_EINPUT,
                 "%s: no tensor token_embd.weight in it: a file of a vocabulary alone, or of "
                 "another model",
                 reader->gguf->path);
    KILN_TRY(read_size(reader, "vocab_size", embed->shape[1], &dims->vocab));
    return KILN_OK;
}

static enum kiln_status read_all(const struct reader *reader,
                                 const struct architecture *architecture, struct kiln_dims *dims) {
    struct kiln_err why;
    *dims = (struct kiln_dims){
        .qk_norm = architecture->qk_norm,
        .qkv_bias = architecture->qkv_bias ||
                    kiln_gguf_find_tensor(reader->gguf, "blk.0.attn_q.bias") != NULL,
    };
    KILN_TRY(check_keys(reader));
    KILN_TRY(read_size(reader, "embedding_length", 0, &dims->dim));
    KILN_TRY(read_size(reader, "feed_forward_length", 0, &dims->hidden));
    KILN_TRY(read_size(reader, "block_count", 0, &dims->layers));
    KILN_TRY(read_size(reader, "attention.head_count", 0, &dims->heads));
    KILN_TRY(read_size(reader, "attention.head_count_kv", dims->heads, &dims->kv_heads));
    KILN_TRY(read_size(reader, "context_length", 0, &dims->seq));
    KILN_TRY(read_real(reader, "attention.layer_norm_rms_epsilon", NAN, &dims->rms_eps));
    KILN_TRY(read_head_size(reader, dims));
    KILN_TRY(read_vocab(reader, dims));
    KILN_TRY(read_rope(reader, dims));
    KILN_REQUIRE(kiln_dims_check(dims, &why) == KILN_OK, reader->err, KILN_EINPUT, "%s: %.500s",
                 reader->gguf->path, why.message);
    return KILN_OK;
}

enum kiln_status kiln_gguf_dims(const struct kiln_gguf *gguf, struct kiln_dims *dims,
                                struct kiln_err *err) {
    const struct architecture *architecture = NULL;
    KILN_TRY(read_architecture(gguf, &architecture, err));
    const struct reader reader = {.gguf = gguf, .architecture = architecture->name, .err = err};
    return read_all(&reader, architecture, dims);
}

/* ---- writing -------------------------------------------------------------------------------- */

const char *kiln_gguf_architecture(const struct kiln_dims *dims) {
    return kiln_hf_family(dims); /* of the same names */
}

/* The first failure stays. */
struct writer {
    struct kiln_gguf_pairs *pairs;
    const char *architecture;
    enum kiln_status status;
    struct kiln_err *err;
};

static void put_size(struct writer *writer, const char *what, size_t value) {
    char key[KEY_ROOM];
    if (writer->status == KILN_OK) {
        writer->status = kiln_gguf_put_u32(writer->pairs, key_of(writer->architecture, what, key),
                                           (uint32_t)value, writer->err);
    }
}

static void put_real(struct writer *writer, const char *what, float value) {
    char key[KEY_ROOM];
    if (writer->status == KILN_OK) {
        writer->status = kiln_gguf_put_f32(writer->pairs, key_of(writer->architecture, what, key),
                                           value, writer->err);
    }
}

static void put_text(struct writer *writer, const char *what, const char *value) {
    char key[KEY_ROOM];
    if (writer->status == KILN_OK) {
        writer->status = kiln_gguf_put_text(writer->pairs, key_of(writer->architecture, what, key),
                                            value, writer->err);
    }
}

/* llama.cpp's numbers for what most of a file is. */
static size_t file_type(enum kiln_dtype dtype) {
    static const size_t numbers[KILN_DTYPES] = {
        [KILN_DTYPE_F32] = 0, [KILN_DTYPE_F16] = 1, [KILN_DTYPE_BF16] = 32, [KILN_DTYPE_Q8_0] = 7};
    return numbers[dtype];
}

/* "models/story/model.bin" is "story": no folders of this machine, no ending. */
static void name_model(const char *path, char *out, size_t size) {
    size_t end = strlen(path), begin;
    bool named = false;
    while (!named && end > 0) {
        while (end > 0 && path[end - 1] == '/') {
            end--;
        }
        begin = end;
        while (begin > 0 && path[begin - 1] != '/') {
            begin--;
        }
        snprintf(out, size, "%.*s", (int)(end - begin), path + begin);
        char *dot = strrchr(out, '.');
        const bool ending = dot != NULL && dot != out &&
                            (strcasecmp(dot, ".bin") == 0 || strcasecmp(dot, ".gguf") == 0);
        if (ending) {
            *dot = '\0';
        }
        /* a run's or folder's own file, or a place: the folder above has the name */
        named = out[0] != '\0' && strcmp(out, ".") != 0 && strcmp(out, "..") != 0 &&
                !(ending && strcmp(out, "model") == 0 && begin > 0);
        end = begin;
    }
    if (!named) {
        snprintf(out, size, "kiln");
    }
}

static void put_general(struct writer *writer, const struct kiln_save_options *options) {
    struct writer general = *writer;
    char name[256];
    name_model(options->name != NULL ? options->name : "kiln", name, sizeof name);
    general.architecture = "general";
    put_text(&general, "architecture", writer->architecture);
    put_text(&general, "type", "model");
    put_text(&general, "name", name);
    put_size(&general, "file_type", file_type(options->dtype));
    put_size(&general, "quantization_version", 2); /* of the blocks of Q8_0 and its like */
    writer->status = general.status;
}

static void put_rope(struct writer *writer, const struct kiln_dims *dims) {
    const struct kiln_rope *rope = &dims->rope;
    put_size(writer, "rope.dimension_count", dims->head_size);
    put_real(writer, "rope.freq_base", dims->rope_theta);
    if (rope->kind == KILN_ROPE_LINEAR || rope->kind == KILN_ROPE_YARN) {
        put_text(writer, "rope.scaling.type", rope->kind == KILN_ROPE_YARN ? "yarn" : "linear");
        put_real(writer, "rope.scaling.factor", rope->factor);
    }
    if (rope->kind == KILN_ROPE_YARN) {
        const float usual = yarn_attention(rope->factor);
        put_size(writer, "rope.scaling.original_context_length", rope->original_seq);
        put_real(writer, "rope.scaling.yarn_beta_fast", rope->beta_fast);
        put_real(writer, "rope.scaling.yarn_beta_slow", rope->beta_slow);
        if (rope->attention_factor != usual) {
            put_real(writer, "rope.scaling.attn_factor", rope->attention_factor / usual);
        }
    }
    if (rope->kind == KILN_ROPE_LLAMA3) {
        struct writer own = *writer;
        own.architecture = "kiln";
        put_real(&own, "rope.factor", rope->factor);
        put_real(&own, "rope.low_freq_factor", rope->low_freq_factor);
        put_real(&own, "rope.high_freq_factor", rope->high_freq_factor);
        put_size(&own, "rope.original_context_length", rope->original_seq);
        writer->status = own.status;
    }
}

enum kiln_status kiln_gguf_describe(const struct kiln_dims *dims,
                                    const struct kiln_save_options *options,
                                    struct kiln_gguf_pairs *pairs, struct kiln_err *err) {
    struct writer writer = {
        .pairs = pairs, .architecture = kiln_gguf_architecture(dims), .err = err};
    put_general(&writer, options);
    put_size(&writer, "block_count", dims->layers);
    put_size(&writer, "context_length", dims->seq);
    put_size(&writer, "embedding_length", dims->dim);
    put_size(&writer, "feed_forward_length", dims->hidden);
    put_size(&writer, "attention.head_count", dims->heads);
    put_size(&writer, "attention.head_count_kv", dims->kv_heads);
    put_real(&writer, "attention.layer_norm_rms_epsilon", dims->rms_eps);
    put_size(&writer, "vocab_size", dims->vocab);
    if (dims->heads * dims->head_size != dims->dim || dims->qk_norm) {
        put_size(&writer, "attention.key_length", dims->head_size);
        put_size(&writer, "attention.value_length", dims->head_size);
    }
    put_rope(&writer, dims);
    return writer.status;
}

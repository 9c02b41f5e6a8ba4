/* SPDX-License-Identifier: MIT
 *
 * gguf_format.c: models as llama.cpp keeps them; see gguf.h for the container and gguf_model.h for
 * its keys.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/gguf_model.h"
#include "model/numbers.h"

static kiln_names names = {
    [KILN_EMBED] = "token_embd.weight",
    [KILN_ATTN_NORM] = "blk.%zu.attn_norm.weight",
    [KILN_WQ] = "blk.%zu.attn_q.weight",
    [KILN_WK] = "blk.%zu.attn_k.weight",
    [KILN_WV] = "blk.%zu.attn_v.weight",
    [KILN_WO] = "blk.%zu.attn_output.weight",
    [KILN_FFN_NORM] = "blk.%zu.ffn_norm.weight",
    [KILN_W1] = "blk.%zu.ffn_gate.weight",
    [KILN_W3] = "blk.%zu.ffn_up.weight",
    [KILN_W2] = "blk.%zu.ffn_down.weight",
    [KILN_FINAL_NORM] = "output_norm.weight",
    [KILN_HEAD] = "output.weight",
    [KILN_BQ] = "blk.%zu.attn_q.bias",
    [KILN_BK] = "blk.%zu.attn_k.bias",
    [KILN_BV] = "blk.%zu.attn_v.bias",
    [KILN_Q_NORM] = "blk.%zu.attn_q_norm.weight",
    [KILN_K_NORM] = "blk.%zu.attn_k_norm.weight",
};

static const struct {
    uint32_t type;
    enum kiln_dtype dtype;
} types[] = {
    {KILN_GGML_F32, KILN_DTYPE_F32},
    {KILN_GGML_F16, KILN_DTYPE_F16},
    {KILN_GGML_BF16, KILN_DTYPE_BF16},
    {KILN_GGML_Q8_0, KILN_DTYPE_Q8_0},
};
#define TYPES (sizeof types / sizeof types[0])

/* ---- reading -------------------------------------------------------------------------------- */

struct detail {
    struct kiln_gguf *gguf;
    struct kiln_exchange exchange;
};

static void free_detail(struct detail *detail) {
    kiln_exchange_close(&detail->exchange);
    kiln_gguf_close(detail->gguf);
    kiln_free(detail);
}

static bool gguf_recognizes(const struct kiln_checkpoint *checkpoint) {
    return kiln_gguf_recognizes(&checkpoint->map);
}

/* A file without a head has the embedding for it. Early converters wrote the head of a tied model
 * out: bytes that are equal are one tensor. */
static bool is_tied(const struct kiln_gguf *gguf) {
    const struct kiln_gguf_tensor *head = kiln_gguf_find_tensor(gguf, names[KILN_HEAD]);
    const struct kiln_gguf_tensor *embed = kiln_gguf_find_tensor(gguf, names[KILN_EMBED]);
    return head == NULL ||
           (embed != NULL && head->type == embed->type && head->bytes == embed->bytes &&
            head->shape[0] == embed->shape[0] &&
            memcmp(kiln_gguf_data(gguf, head), kiln_gguf_data(gguf, embed), head->bytes) == 0);
}

static enum kiln_status take_tensor(struct detail *detail, const struct kiln_gguf_tensor *tensor,
                                    struct kiln_err *err) {
    size_t shape[KILN_GGUF_RANK];
    for (size_t i = 0; i < tensor->rank; i++) {
        shape[i] = tensor->shape[tensor->rank - 1 - i];
    }
    struct kiln_found found = {
        .name = tensor->name.data,
        .name_size = tensor->name.size,
        .type_name = kiln_ggml_type_name(tensor->type),
        .rank = tensor->rank,
        .shape = shape,
        .data = kiln_gguf_data(detail->gguf, tensor),
    };
    for (size_t i = 0; i < TYPES; i++) {
        if (types[i].type == tensor->type) {
            found.known = true;
            found.dtype = types[i].dtype;
        }
    }
    return kiln_exchange_take(&detail->exchange, names, detail->gguf->path, &found, err);
}

static bool is_named(const struct kiln_gguf_tensor *tensor, const char *name) {
    return tensor->name.size == strlen(name) &&
           memcmp(tensor->name.data, name, tensor->name.size) == 0;
}

static enum kiln_status open_detail(struct detail *detail, struct kiln_checkpoint *checkpoint,
                                    struct kiln_err *err) {
    KILN_TRY(kiln_gguf_open_map(&checkpoint->map, checkpoint->path, &detail->gguf, err));
    const struct kiln_gguf *gguf = detail->gguf;
    KILN_TRY(kiln_gguf_dims(gguf, &checkpoint->dims, err));
    const bool tied = checkpoint->dims.tied = is_tied(gguf);
    KILN_TRY(kiln_exchange_open(&detail->exchange, &checkpoint->dims, kiln_gguf_halves(gguf), err));
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        const struct kiln_gguf_tensor *tensor = &gguf->tensors[i];
        if (is_named(tensor, KILN_GGUF_ROPE_FREQS) ||
            (tied && is_named(tensor, names[KILN_HEAD]))) {
            continue;
        }
        KILN_TRY(take_tensor(detail, tensor, err));
    }
    return kiln_exchange_complete(&detail->exchange, names, checkpoint->path, err);
}

static enum kiln_status gguf_open(struct kiln_checkpoint *checkpoint, struct kiln_err *err) {
    struct detail *detail = kiln_alloc(1, sizeof *detail);
    KILN_REQUIRE(detail != NULL, err, KILN_ENOMEM, "open %s: not enough memory", checkpoint->path);
    const enum kiln_status status = open_detail(detail, checkpoint, err);
    if (status != KILN_OK) {
        free_detail(detail);
        return status;
    }
    checkpoint->detail = detail;
    return KILN_OK;
}

static enum kiln_status gguf_load(const struct kiln_checkpoint *checkpoint,
                                  const struct kiln_table *table, float *weights,
                                  struct kiln_err *err) {
    const struct detail *detail = checkpoint->detail;
    return kiln_exchange_load(&detail->exchange, checkpoint, table, weights, err);
}

static enum kiln_dtype gguf_dtype(const struct kiln_checkpoint *checkpoint,
                                  const struct kiln_tensor *tensor) {
    const struct detail *detail = checkpoint->detail;
    return kiln_exchange_dtype(&detail->exchange, tensor);
}

static void gguf_close(struct kiln_checkpoint *checkpoint) { free_detail(checkpoint->detail); }

bool kiln_gguf_has_tokenizer(const struct kiln_checkpoint *checkpoint) {
    const struct detail *detail = checkpoint->detail;
    return kiln_gguf_find(detail->gguf, "tokenizer.ggml.tokens") != NULL;
}

const struct kiln_checkpoint_format kiln_format_gguf = {
    .name = "GGUF",
    .recognizes = gguf_recognizes,
    .open = gguf_open,
    .load = gguf_load,
    .dtype = gguf_dtype,
    .close = gguf_close,
};

/* ---- writing -------------------------------------------------------------------------------- */

static enum kiln_status gguf_check(const struct kiln_dims *dims, enum kiln_dtype dtype,
                                   struct kiln_err *err) {
    const char *architecture = kiln_gguf_architecture(dims);
    (void)dtype;
    KILN_REQUIRE(architecture != NULL, err, KILN_EUNSUPPORTED,
                 "a model with both biases and head norms is none of llama.cpp's llama, qwen2 and "
                 "qwen3");
    KILN_REQUIRE(dims->rope.kind != KILN_ROPE_LLAMA3 || strcmp(architecture, "llama") == 0, err,
                 KILN_EUNSUPPORTED,
                 "llama.cpp has llama3's scaling of RoPE for llama only, not for %s", architecture);
    return KILN_OK;
}

/* As llama.cpp wants and writes it: vectors in F32; F16 where rows are no whole number of
 * blocks. */
static enum kiln_dtype gguf_save_dtype(const struct kiln_tensor *tensor, enum kiln_dtype dtype) {
    if (tensor->rank == 1) {
        return KILN_DTYPE_F32;
    }
    return dtype == KILN_DTYPE_Q8_0 && tensor->cols % KILN_Q8_BLOCK != 0 ? KILN_DTYPE_F16 : dtype;
}

struct out {
    struct kiln_gguf_tensor *tensors;
    char (*names)[64];
    float *freqs; /* rope_freqs, the first tensor, where there is one */
    size_t n;
    struct kiln_gguf_pairs pairs;
    struct kiln_gguf_writer writer;
};

static void list_tensors(struct out *out, const struct kiln_table *table, enum kiln_dtype dtype) {
    if (table->dims.rope.kind == KILN_ROPE_LLAMA3) {
        kiln_gguf_rope_freqs(&table->dims, out->freqs);
        out->tensors[out->n++] = (struct kiln_gguf_tensor){
            .name = {.data = KILN_GGUF_ROPE_FREQS, .size = strlen(KILN_GGUF_ROPE_FREQS)},
            .type = KILN_GGML_F32,
            .rank = 1,
            .shape = {table->dims.head_size / 2, 1, 1, 1},
        };
    }
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *tensor = &table->tensors[i];
        char *name = out->names[i];
        kiln_names_of(names, tensor, name);
        out->tensors[out->n++] = (struct kiln_gguf_tensor){
            .name = {.data = name, .size = strlen(name)},
            .type = types[gguf_save_dtype(tensor, dtype)].type,
            .rank = (size_t)tensor->rank,
            .shape = {tensor->cols, tensor->rows, 1, 1},
        };
    }
}
_Static_assert(KILN_DTYPE_F32 == 0 && KILN_DTYPE_F16 == 1 && KILN_DTYPE_BF16 == 2 &&
                   KILN_DTYPE_Q8_0 == 3,
               "types[] is in the order of the dtypes");

static enum kiln_status to_writer(void *context, const void *data, size_t size,
                                  struct kiln_err *err) {
    return kiln_gguf_write(context, data, size, err);
}

static enum kiln_status write_out(struct out *out, struct kiln_durable *file,
                                  const struct kiln_table *table, const float *weights,
                                  const struct kiln_save_options *options, struct kiln_err *err) {
    const struct kiln_gguf_pairs *lists[] = {&out->pairs, options->pairs};
    const struct kiln_sink sink = {.write = to_writer, .context = &out->writer};
    KILN_TRY(kiln_gguf_describe(&table->dims, options, &out->pairs, err));
    list_tensors(out, table, options->dtype);
    KILN_TRY(kiln_gguf_begin(&out->writer, file, lists, options->pairs != NULL ? 2 : 1,
                             out->tensors, out->n, err));
    if (table->dims.rope.kind == KILN_ROPE_LLAMA3) {
        KILN_TRY(kiln_gguf_write(&out->writer, out->freqs, table->dims.head_size / 2 * 4, err));
    }
    const bool halves = table->dims.qkv_bias || table->dims.qk_norm; /* qwen2, qwen3 */
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *tensor = &table->tensors[i];
        KILN_TRY(kiln_exchange_write(&table->dims, halves, tensor, weights,
                                     gguf_save_dtype(tensor, options->dtype), &sink, err));
    }
    return kiln_gguf_end(&out->writer, err);
}

static enum kiln_status gguf_save(struct kiln_durable *file, const struct kiln_table *table,
                                  const float *weights, const struct kiln_save_options *options,
                                  struct kiln_err *err) {
    struct out out = {
        .tensors = kiln_alloc(table->n_tensors + 1, sizeof *out.tensors),
        .names = kiln_alloc(table->n_tensors, sizeof *out.names),
        .freqs = kiln_alloc(table->dims.head_size / 2, sizeof *out.freqs),
    };
    enum kiln_status status =
        out.tensors == NULL || out.names == NULL || out.freqs == NULL
            ? KILN_FAIL(err, KILN_ENOMEM, "write %s: not enough memory", file->path)
            : write_out(&out, file, table, weights, options, err);
    kiln_gguf_pairs_free(&out.pairs);
    kiln_free(out.tensors);
    kiln_free(out.names);
    kiln_free(out.freqs);
    return status;
}

const struct kiln_save_format kiln_save_gguf = {
    .name = "GGUF",
    .check = gguf_check,
    .dtype = gguf_save_dtype,
    .write = gguf_save,
};

/* SPDX-License-Identifier: MIT
 *
 * model.h: what a model is: its dims, its tensor table, and the files that hold one.
 *
 * Shape letters, here and everywhere (docs/notation.md): B batch, T sequence, N = B*T tokens,
 * D width, H query heads, G key-value heads, K head size, F feed-forward, V vocabulary, L layers.
 *
 * The tensor table is the one list of a model's parameters. Everything that goes over the
 * parameters (files, optimizer, state, packing) walks it; nobody else names tensors.
 */
#ifndef KILN_MODEL_H
#define KILN_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/lora.h"
#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How rotation frequencies are bent for sequences longer than those of the pre-training. Names and
 * formulas as `rope_scaling` in Hugging Face's configurations (modeling_rope_utils.py there). */
enum kiln_rope_kind {
    KILN_ROPE_PLAIN,
    KILN_ROPE_LINEAR, /* every frequency / factor */
    KILN_ROPE_LLAMA3, /* low frequencies / factor, high ones as they are, smooth between */
    KILN_ROPE_YARN,   /* NTK by parts (Peng et al. 2023), cosines and sines * attention_factor */
};
struct kiln_rope {
    enum kiln_rope_kind kind;
    float factor;                            /* 1 or more; not for PLAIN */
    float low_freq_factor, high_freq_factor; /* LLAMA3 */
    float beta_fast, beta_slow;              /* YARN: 32 and 1 where a file is silent */
    float attention_factor;                  /* YARN: 0.1 ln(factor) + 1 where a file is silent */
    size_t original_seq;                     /* LLAMA3, YARN: T of the pre-training */
};

/* The sizes of a Llama-family model. */
struct kiln_dims {
    size_t dim;       /* D, width of the residual stream */
    size_t hidden;    /* F, feed-forward width */
    size_t layers;    /* L */
    size_t heads;     /* H, query heads */
    size_t kv_heads;  /* G, key-value heads; H is a multiple of G */
    size_t head_size; /* K, even (RoPE turns pairs); D/H where a file is silent, Qwen3 differs */
    size_t vocab;     /* V */
    size_t seq;       /* T, the longest sequence the model is meant for */
    bool tied;        /* the classifier is the embedding table */
    float rms_eps;    /* added to the mean square in RMSNorm */
    float rope_theta; /* base of the rotation frequencies */
    bool qkv_bias;    /* queries, keys and values have biases (Qwen2) */
    bool qk_norm;     /* every query and key head is normalised before RoPE (Qwen3) */
    struct kiln_rope rope;
};

/* A published set of sizes. */
struct kiln_preset {
    const char *name;
    struct kiln_dims dims;
    size_t accum; /* micro-batches a window, as published */
};

/* All presets, ended by one whose name is NULL. */
KILN_API const struct kiln_preset *kiln_presets(void);
/* The preset of that name, or NULL. */
KILN_API const struct kiln_preset *kiln_preset_find(const char *name);

/* Check that the sizes make a model: every size positive, dim even, kv_heads divides heads,
 * head_size even, no product beyond size_t, eps and theta positive, the scaling of RoPE complete.
 * KILN_EUSAGE names the size and its valid values. What a file may be silent about is first set:
 * head_size 0 to dim/heads; YARN's betas and attention_factor 0 to what the struct says. Members of
 * `rope` that its kind does not use are set to 0, so that equal models have equal dims. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_dims_check(struct kiln_dims *dims,
                                                          struct kiln_err *err);

/* What a tensor is to the model. */
enum kiln_role {
    KILN_EMBED,      /* [V, D] */
    KILN_ATTN_NORM,  /* [D], rank 1 */
    KILN_WQ,         /* [H*K, D] */
    KILN_WK,         /* [G*K, D] */
    KILN_WV,         /* [G*K, D] */
    KILN_WO,         /* [D, H*K] */
    KILN_FFN_NORM,   /* [D], rank 1 */
    KILN_W1,         /* [F, D], the gate */
    KILN_W3,         /* [F, D], the value */
    KILN_W2,         /* [D, F] */
    KILN_FINAL_NORM, /* [D], rank 1 */
    KILN_HEAD,       /* [V, D], absent when tied */
    KILN_BQ,         /* [H*K], rank 1; as BK and BV where dims.qkv_bias */
    KILN_BK,         /* [G*K], rank 1 */
    KILN_BV,         /* [G*K], rank 1 */
    KILN_Q_NORM,     /* [K], rank 1; as K_NORM where dims.qk_norm */
    KILN_K_NORM,     /* [K], rank 1 */
    KILN_LORA_A,     /* [r, in] of the tensor `target` (lora.h) */
    KILN_LORA_B,     /* [out, r] */
    KILN_ROLES
};

#define KILN_NO_LAYER  ((size_t)-1)
#define KILN_NO_TENSOR ((size_t)-1)

/* One parameter tensor: row-major, y = x W^T with W [rows, cols] = [out, in]. */
struct kiln_tensor {
    char name[24]; /* as in the reference vectors: "tok_embeddings", "wq.3", "rms_final" */
    enum kiln_role role;
    size_t layer;      /* 0..L-1, or KILN_NO_LAYER */
    size_t rows, cols; /* rank 1: rows 1 */
    int rank;          /* 1 or 2; weight decay applies to rank 2 */
    size_t offset;     /* first element in the flat parameter array */
    size_t matrix;     /* index of the matrix this tensor is part of, or KILN_NO_MATRIX */
    size_t snapshot;   /* first element among the narrow tensors, which are the matrices of layers,
                        * or among the wide ones, which are the others (kernel/weights.h) */
    size_t target;     /* of an adapter: index of the tensor it belongs to; else KILN_NO_TENSOR */
    size_t adapter;    /* index of this tensor's KILN_LORA_A, or KILN_NO_TENSOR (kiln_lora_find) */
};

/* A matrix as the products see it: one tensor, or adjacent ones fused (Q,K,V; W1,W3).
 *
 *   parameter array: ... | wq [HK, D] | wk [GK, D] | wv [GK, D] | ...
 *                        ^ offset, rows = (H+2G)K, cols = D: a view, nothing is copied
 */
enum kiln_matrix_kind {
    KILN_MATRIX_QKV,  /* [(H+2G)K, D] */
    KILN_MATRIX_WO,   /* [D, HK] */
    KILN_MATRIX_W13,  /* [2F, D]: W1 rows, then W3 rows */
    KILN_MATRIX_W2,   /* [D, F] */
    KILN_MATRIX_HEAD, /* [V, D]: the head, or the embedding when tied */
    KILN_MATRIX_KINDS
};

#define KILN_NO_MATRIX ((size_t)-1)

struct kiln_matrix {
    enum kiln_matrix_kind kind;
    size_t layer;
    size_t rows, cols;
    size_t offset; /* first element in the flat parameter array */
    size_t first_tensor, n_tensors;
};

/* The table. Matrices of layer l are [4*l + kind] for QKV, WO, W13, W2; the head is the last. The
 * biases of q, k and v lie adjacent, too, as one row of (H+2G)K numbers in the flat array and among
 * the wide ones; so do both head norms. */
struct kiln_table {
    struct kiln_dims dims;
    struct kiln_tensor *tensors;
    size_t n_tensors;
    struct kiln_matrix *matrices;
    size_t n_matrices;
    size_t size;           /* elements of the flat array, with gaps for alignment */
    size_t parameters;     /* elements that are parameters */
    size_t narrow, wide;   /* of them in matrices of layers, and in all other tensors */
    struct kiln_lora lora; /* rank 0: no adapters */
    size_t n_base;         /* tensors of the model: those in front of the adapters */
    size_t trained;        /* first element of the flat array that training changes, behind the
                            * model's tensors where there are adapters; 0: all is trained */
    size_t adapters;       /* elements that are adapters; not among `parameters` */
};

/* Elements of arrays that hold one for each that is trained (moments, gradients), with gaps; and
 * where in them that of an element of the flat array lies. */
static inline size_t kiln_trained_size(const struct kiln_table *table) {
    return table->size - table->trained;
}
static inline size_t kiln_trained_at(const struct kiln_table *table, size_t offset) {
    return offset - table->trained;
}

/* Build the table of a model. On success *out is the caller's; kiln_table_destroy it. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_table_create(const struct kiln_dims *dims,
                                                            struct kiln_table **out,
                                                            struct kiln_err *err);
/* The same with adapters behind the model's tensors; rank 0: none. KILN_EUSAGE also where they are
 * none that can be. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_table_create_lora(const struct kiln_dims *dims,
                                                                 const struct kiln_lora *lora,
                                                                 struct kiln_table **out,
                                                                 struct kiln_err *err);
KILN_API void kiln_table_destroy(struct kiln_table *table);
/* The tensor of the model with that role and layer (KILN_NO_LAYER for global ones); NULL when there
 * is none. Adapters: kiln_lora_find. */
KILN_API const struct kiln_tensor *kiln_table_find(const struct kiln_table *table,
                                                   enum kiln_role role, size_t layer);
/* The matrix of a kind and layer (layer ignored for the head). */
KILN_API const struct kiln_matrix *kiln_table_matrix(const struct kiln_table *table,
                                                     enum kiln_matrix_kind kind, size_t layer);

/* Fill a flat parameter array with starting weights: normal with deviation 0.02, and 0.02/sqrt(2L)
 * for wo and w3, as llama2.c's trainer does, and for w2, which GPT-2's rule (scale what writes into
 * the residual stream) means; norms 1, biases 0. Gaps are set to 0. Each element is a pure function
 * of (seed, tensor, element). */
KILN_API void kiln_weights_init(const struct kiln_table *table, uint64_t seed, float *weights);

/* ---- files ---------------------------------------------------------------------------------- */

/* How the numbers of a tensor lie in a file; kiln computes with F32. */
enum kiln_dtype {
    KILN_DTYPE_F32,
    KILN_DTYPE_F16,
    KILN_DTYPE_BF16,
    KILN_DTYPE_Q8_0, /* blocks of int8 with a scale each: 32 and fp16 in GGUF; any number and fp32
                      * in llama2.c's version 2 */
    KILN_DTYPES
};
/* "f32", "f16", "bf16", "q8_0". */
KILN_API const char *kiln_dtype_name(enum kiln_dtype dtype);
/* The dtype of that name; false when there is none. */
KILN_API bool kiln_dtype_find(const char *name, enum kiln_dtype *out);

/* A model file, or a folder of them, opened for reading. Weights stay there until they are
 * loaded. */
struct kiln_checkpoint;

/* Open a model; its format is found from its first bytes, or from what lies in a folder. Known:
 *
 *   llama2.c .bin      versions 0, 1 and 2 (quantised)
 *   kiln               what kiln_checkpoint_save_run writes where llama2.c's has no place
 *   Hugging Face       a folder with config.json and model.safetensors, or shards of it with their
 *                      index; F32, F16, BF16; Llama, Qwen2, Qwen3
 *   GGUF               versions 2 and 3; F32, F16, BF16, Q8_0; llama, qwen2, qwen3
 *
 * Everything that tells sizes is checked against the size of the file before anything else is read.
 * KILN_EINPUT says what was found and what was expected; an architecture, a tensor, a dtype or an
 * option that kiln does not know is named and never passed over, nor is a contradiction between
 * config.json and the tensors. A folder without config.json is KILN_EINPUT too (the caller resolves
 * a run folder to its weights file). */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_checkpoint_open(const char *path,
                                                               struct kiln_checkpoint **out,
                                                               struct kiln_err *err);
KILN_API void kiln_checkpoint_close(struct kiln_checkpoint *checkpoint);
KILN_API const struct kiln_dims *kiln_checkpoint_dims(const struct kiln_checkpoint *checkpoint);
/* "llama2.c", "llama2.c version 2", "Hugging Face", "GGUF", "kiln", for
 * messages. */
KILN_API const char *kiln_checkpoint_format(const struct kiln_checkpoint *checkpoint);
/* How the tensor of a role and layer lies in the file. */
KILN_API enum kiln_dtype kiln_checkpoint_dtype(const struct kiln_checkpoint *checkpoint,
                                               const struct kiln_tensor *tensor);
/* Copy all weights into a flat array of table->size elements and set its gaps to 0. KILN_EUSAGE
 * when the table is not of the checkpoint's dims (seq, eps and theta may differ: no weight depends
 * on them); KILN_EINPUT when a weight is not a finite number (named by tensor and element). */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_checkpoint_load(
    const struct kiln_checkpoint *checkpoint, const struct kiln_table *table, float *weights,
    struct kiln_err *err);

/* Formats that kiln writes. */
enum kiln_format {
    KILN_FORMAT_LLAMA2C, /* one file, version 0 */
    KILN_FORMAT_HF,      /* a folder */
    KILN_FORMAT_GGUF,    /* one file, version 3 */
    KILN_FORMATS
};
/* "llama2.c", "Hugging Face", "GGUF". */
KILN_API const char *kiln_format_name(enum kiln_format format);
/* What a name's ending asks for: .bin, .gguf, anything else a folder. */
KILN_API enum kiln_format kiln_format_of(const char *path);

struct kiln_gguf_pairs; /* src/model/gguf.h */

/* What may stand of a tokenizer in a Hugging Face folder: carried along by a conversion, and
 * replaced by the next one that is forced. An initializer. */
#define KILN_TOKENIZER_FILES                                                       \
    "tokenizer.json", "tokenizer.model", "tokenizer.bin", "tokenizer_config.json", \
        "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",     \
        "generation_config.json", "vocab.json", "merges.txt"

/* Zeros are a plain fp32 file that replaces nothing. */
struct kiln_save_options {
    enum kiln_dtype dtype; /* of the matrices; norms and biases are F32 in GGUF */
    bool replace;          /* an existing file, or folder of a model, is replaced whole */
    const char *name;      /* the model's, for GGUF, which takes the last part of a path, without
                              .bin or .gguf; NULL: "kiln" */
    /* Ids that begin and end a text, as config.json tells them. */
    bool has_bos, has_eos;
    uint32_t bos, eos;
    const struct kiln_gguf_pairs *pairs; /* more key/values for GGUF: the tokenizer's; or NULL */
    /* Called with the folder, under its temporary name, for more files; or NULL. */
    enum kiln_status (*add)(void *context, const char *folder, struct kiln_err *err);
    /* Called with what is whole but has not its name yet; a failure leaves nothing. Or NULL. */
    enum kiln_status (*prove)(void *context, const char *path, struct kiln_err *err);
    void *context;
};
/* Can the format hold this model? KILN_EUNSUPPORTED names what it has no place for. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_format_check(enum kiln_format format,
                                                            const struct kiln_dims *dims,
                                                            enum kiln_dtype dtype,
                                                            struct kiln_err *err);
/* Write a model durably: a crash leaves what was at `path` before, or the whole new one (where a
 * folder is replaced, for an instant neither). options NULL: zeros. Errors are those of
 * kiln_format_check; KILN_EUNSUPPORTED for a weight beyond fp16; KILN_EEXISTS; KILN_EIO; and what
 * add and prove return. What was at `path` is then as it was. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_checkpoint_save(
    enum kiln_format format, const char *path, const struct kiln_table *table, const float *weights,
    const struct kiln_save_options *options, struct kiln_err *err);
/* What the numbers of a tensor become in a file of that format and dtype and back: `from` and `to`
 * hold rows*cols, and may be the same. KILN_ENOMEM. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_checkpoint_round(enum kiln_format format,
                                                                enum kiln_dtype dtype,
                                                                const struct kiln_tensor *tensor,
                                                                const float *from, float *to,
                                                                struct kiln_err *err);

/* Can a llama2.c .bin hold this model? KILN_EUNSUPPORTED when a size is beyond the header's int32,
 * or when rms_eps is not 1e-5, rope_theta not 10000, or the model has what Qwen2 and Qwen3 add: the
 * format has no place for them, and a reader would compute something else. For callers who want to
 * know before they train. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_llama2c_check(const struct kiln_dims *dims,
                                                             struct kiln_err *err);
/* kiln_checkpoint_save for KILN_FORMAT_LLAMA2C, replacing what is there. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_checkpoint_save_llama2c(
    const char *path, const struct kiln_table *table, const float *weights, struct kiln_err *err);

/* Write what a run keeps as model.bin, durably: a llama2.c .bin where that holds the model, else
 * kiln's own file, which holds every model (docs/formats.md). KILN_EIO; a file of that name is then
 * as it was. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_checkpoint_save_run(const char *path,
                                                                   const struct kiln_table *table,
                                                                   const float *weights,
                                                                   struct kiln_err *err);

/* Read gradients or other arrays in the order of a llama2.c .bin without header and frequency
 * tables (the grads.f32 of reference folders), behind them bq, bk, bv, rms_q and rms_k of all
 * layers where the model has them: `data` holds `count` floats. KILN_EINPUT when that is not the
 * number of parameters. Gaps are set to 0; values are taken as they are. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_llama2c_unpack(const struct kiln_table *table,
                                                              const float *data, size_t count,
                                                              float *weights, struct kiln_err *err);

#ifdef __cplusplus
}
#endif

#endif

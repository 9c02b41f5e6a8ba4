/* SPDX-License-Identifier: MIT
 *
 * prove.c: is a model that was written the model that was meant? Read back as anybody would read
 * it, weight by weight, and then by what it says.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "infer/session.h"
#include "kiln/train.h"
#include "model/gguf.h"
#include "model/stored_dims.h"
#include "text/chat.h"
#include "text/gguf_tokenizer.h"

#define TOKENS                                                                         \
    16 /* enough for every position and weight to have its say, quick for large models \
        */

struct proving {
    const struct kiln_model *model;
    const struct kiln_checkpoint *file;
    const char *path;
    bool exact;               /* the dims are the same to the bit */
    struct kiln_table *table; /* with the dims of the file */
    float *weights;           /* of the file */
    struct kiln_proof *out;
    struct kiln_err *err;
};

/* As they would compute: all but rounding of fp32, where a format has another number for it. */
static enum kiln_status compare_dims(struct proving *p) {
    const struct kiln_stored_dims a = kiln_dims_store(&p->model->table->dims);
    const struct kiln_stored_dims b = kiln_dims_store(kiln_checkpoint_dims(p->file));
    size_t n;
    const struct kiln_stored_field *fields = kiln_stored_fields(&n);
    for (size_t i = 0; i < n; i++) {
        double real[2];
        uint64_t whole[2];
        memcpy(&whole[0], (const char *)&a + fields[i].at, sizeof whole[0]);
        memcpy(&whole[1], (const char *)&b + fields[i].at, sizeof whole[1]);
        memcpy(&real[0], (const char *)&a + fields[i].at, sizeof real[0]);
        memcpy(&real[1], (const char *)&b + fields[i].at, sizeof real[1]);
        const bool same = fields[i].type == KILN_STORED_REAL
                              ? fabs(real[0] - real[1]) <= 3e-7 * fabs(real[0])
                              : whole[0] == whole[1];
        char wrote[40], read[40];
        kiln_stored_text(&a, &fields[i], wrote, sizeof wrote);
        kiln_stored_text(&b, &fields[i], read, sizeof read);
        KILN_REQUIRE(same, p->err, KILN_EDAMAGED, "%s: %s %s reads back as %s", p->path,
                     fields[i].name, wrote, read);
        p->exact = p->exact && whole[0] == whole[1];
    }
    return KILN_OK;
}

static enum kiln_status compare_weights(const struct proving *p, enum kiln_format format,
                                        enum kiln_dtype dtype) {
    const struct kiln_table *table = p->model->table;
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *tensor = &table->tensors[i];
        const size_t n = tensor->rows * tensor->cols;
        const float *meant = p->model->weights + tensor->offset, *has = p->weights + tensor->offset;
        float *rounded = kiln_alloc(n, sizeof *rounded);
        KILN_REQUIRE(rounded != NULL, p->err, KILN_ENOMEM, "read %s back: not enough memory",
                     p->path);
        const enum kiln_status status =
            kiln_checkpoint_round(format, dtype, tensor, meant, rounded, p->err);
        const bool same = memcmp(rounded, has, n * sizeof *has) == 0;
        kiln_free(rounded);
        KILN_TRY(status);
        KILN_REQUIRE(same, p->err, KILN_EDAMAGED,
                     "%s: %s does not read back as it was written; the disk may be bad", p->path,
                     tensor->name);
        for (size_t e = 0; e < n; e++) {
            p->out->weights = fmax(p->out->weights, fabs((double)meant[e] - (double)has[e]));
        }
    }
    return KILN_OK;
}

/* ---- logits --------------------------------------------------------------------------------- */

struct voice {
    struct kiln_session *session;
    float *logits;
};

static enum kiln_status open_voice(struct voice *voice, const struct kiln_table *table,
                                   const float *weights, struct kiln_pool *pool,
                                   struct kiln_err *err) {
    const struct kiln_session_options options = {.precision = KILN_PRECISION_FP32,
                                                 .seq = kiln_least(TOKENS, table->dims.seq)};
    voice->logits = kiln_alloc(table->dims.vocab, sizeof(float));
    KILN_REQUIRE(voice->logits != NULL, err, KILN_ENOMEM, "compare logits: not enough memory");
    return kiln_session_open(table, weights, pool, &options, &voice->session, err);
}

static void close_voice(struct voice *voice) {
    kiln_session_close(voice->session);
    kiln_free(voice->logits);
}

static enum kiln_status listen_to(const struct proving *p, struct voice voices[2]) {
    const size_t vocab = p->table->dims.vocab, n = kiln_least(TOKENS, p->table->dims.seq);
    for (size_t t = 0; t < n; t++) {
        const uint32_t token = (uint32_t)((1 + 7919 * t) % vocab);
        for (int v = 0; v < 2; v++) {
            KILN_TRY(kiln_session_feed(voices[v].session, &token, 1, voices[v].logits, p->err));
        }
        for (size_t i = 0; i < vocab; i++) {
            const double a = (double)voices[0].logits[i], b = (double)voices[1].logits[i];
            KILN_REQUIRE(isfinite(a), p->err, KILN_EINPUT,
                         "%s: the model itself says no finite logits (token %zu, id %zu): its "
                         "weights are of no use",
                         p->path, t, i);
            KILN_REQUIRE(isfinite(b), p->err, KILN_EUNSUPPORTED,
                         "%s: as the dtype rounds the weights the logits are not finite (token "
                         "%zu, id %zu); use f32",
                         p->path, t, i);
            p->out->logits = fmax(p->out->logits, fabs(a - b));
        }
    }
    p->out->tokens = n;
    /* The same numbers in the same order. */
    KILN_REQUIRE(!p->exact || p->out->weights > 0 || p->out->logits == 0, p->err, KILN_EDAMAGED,
                 "%s: the weights read back as they were, and the logits differ by %g", p->path,
                 p->out->logits);
    return KILN_OK;
}

static enum kiln_status compare_logits(const struct proving *p) {
    struct kiln_pool *pool = NULL;
    struct voice voices[2] = {0};
    KILN_TRY(kiln_pool_create(1, &pool, p->err));
    enum kiln_status status =
        open_voice(&voices[0], p->model->table, p->model->weights, pool, p->err);
    if (status == KILN_OK) {
        status = open_voice(&voices[1], p->table, p->weights, pool, p->err);
    }
    if (status == KILN_OK) {
        status = listen_to(p, voices);
    }
    close_voice(&voices[0]);
    close_voice(&voices[1]);
    kiln_pool_destroy(pool);
    return status;
}

/* ---- all ------------------------------------------------------------------------------------ */

static enum kiln_status read_back(struct proving *p) {
    KILN_TRY(kiln_table_create(kiln_checkpoint_dims(p->file), &p->table, p->err));
    p->weights = kiln_alloc(p->table->size, sizeof *p->weights);
    KILN_REQUIRE(p->weights != NULL, p->err, KILN_ENOMEM, "read %s back: not enough memory",
                 p->path);
    return kiln_checkpoint_load(p->file, p->table, p->weights, p->err);
}

enum kiln_status kiln_model_prove(const struct kiln_model *model, enum kiln_format format,
                                  enum kiln_dtype dtype, const char *path, struct kiln_proof *out,
                                  struct kiln_err *err) {
    struct kiln_checkpoint *file = NULL;
    *out = (struct kiln_proof){0};
    KILN_TRY(kiln_checkpoint_open(path, &file, err));
    struct proving p = {
        .model = model, .file = file, .path = path, .exact = true, .out = out, .err = err};
    enum kiln_status status = compare_dims(&p);
    if (status == KILN_OK) {
        status = read_back(&p);
    }
    if (status == KILN_OK) {
        status = compare_weights(&p, format, dtype);
    }
    if (status == KILN_OK) {
        status = compare_logits(&p);
    }
    kiln_table_destroy(p.table);
    kiln_free(p.weights);
    kiln_checkpoint_close(file);
    return status;
}

/* ---- saving --------------------------------------------------------------------------------- */

struct saving {
    const struct kiln_model *model;
    enum kiln_format format;
    const struct kiln_tokenizer *tokenizer; /* that is inside, or NULL */
    const struct kiln_save_options *how;
    struct kiln_proof *out;
};

static enum kiln_status prove_saved(void *context, const char *path, struct kiln_err *err) {
    const struct saving *saving = context;
    if (saving->tokenizer != NULL && saving->format == KILN_FORMAT_GGUF) {
        KILN_TRY(kiln_gguf_tokenizer_prove(saving->tokenizer, path, err));
    }
    return kiln_model_prove(saving->model, saving->format, saving->how->dtype, path, saving->out,
                            err);
}

static enum kiln_status add_more(void *context, const char *folder, struct kiln_err *err) {
    const struct saving *saving = context;
    return saving->how->add != NULL ? saving->how->add(saving->how->context, folder, err) : KILN_OK;
}

enum kiln_status kiln_model_save(const struct kiln_model *model, enum kiln_format format,
                                 const char *path, const struct kiln_tokenizer *tokenizer,
                                 const char *chat, const struct kiln_save_options *how,
                                 struct kiln_proof *out, struct kiln_err *err) {
    struct saving saving = {
        .model = model, .format = format, .tokenizer = tokenizer, .how = how, .out = out};
    struct kiln_gguf_pairs pairs = {0};
    struct kiln_save_options all = *how;
    all.prove = prove_saved;
    all.add = add_more;
    all.context = &saving;
    all.pairs = &pairs;
    enum kiln_status status = KILN_OK;
    if (tokenizer != NULL) {
        all.bos = kiln_tokenizer_bos(tokenizer);
        all.eos = kiln_tokenizer_eos(tokenizer);
        all.has_bos = all.bos != KILN_NO_ID;
        all.has_eos = all.eos != KILN_NO_ID;
        if (format == KILN_FORMAT_GGUF) {
            status = kiln_gguf_tokenizer_put(tokenizer, model->table->dims.vocab, &pairs, err);
        }
    }
    if (status == KILN_OK && chat != NULL && format == KILN_FORMAT_GGUF) {
        status = kiln_gguf_chat_put(chat, &pairs, err);
    }
    if (status == KILN_OK) {
        status = kiln_checkpoint_save(format, path, model->table, model->weights, &all, err);
    }
    kiln_gguf_pairs_free(&pairs);
    return status;
}

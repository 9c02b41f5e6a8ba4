/* SPDX-License-Identifier: MIT
 *
 * eval.c: the mean loss of a model over a file, every window once.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "kiln/train.h"
#include "train/data_source.h"
#include "train/pass.h"

struct evaluation {
    const struct kiln_model *model;
    struct kiln_pool *pool;
    struct kiln_data *data;
    enum kiln_precision precision;
    size_t seq;
    double sum;
};

/* Windows first..first+batches*batch in micro-batches of `batch`. */
static enum kiln_status run_batches(struct evaluation *e, size_t first, size_t batches,
                                    size_t batch, struct kiln_err *err) {
    struct kiln_device_options options = {{batch, e->seq}, e->precision, false};
    struct kiln_device *device = NULL;
    struct kiln_pass_memory memory = {0};
    struct kiln_plan plan;
    uint32_t *tokens = kiln_alloc(2 * batch * e->seq, sizeof *tokens);
    enum kiln_status status = tokens
                                  ? kiln_device_open_cpu(e->model->table, e->pool,
                                                         e->model->weights, &options, &device, err)
                                  : KILN_FAIL(err, KILN_ENOMEM, "no memory for a micro-batch");
    if (status == KILN_OK) {
        status = kiln_device_compile_all(device, err);
    }
    if (status == KILN_OK) {
        kiln_plan_make(device, false, &plan);
        status = kiln_pass_open(&memory, &plan, err);
    }
    for (size_t i = 0; i < batches && status == KILN_OK; i++) {
        uint32_t *targets = tokens + batch * e->seq;
        for (size_t b = 0; b < batch; b++) {
            kiln_data_window(e->data, KILN_TRAIN, first + i * batch + b, tokens + b * e->seq,
                             targets + b * e->seq);
        }
        double loss = 0.0;
        status = kiln_pass_evaluate(&memory, &plan, device, tokens, targets, &loss, err);
        e->sum += loss;
    }
    kiln_pass_close(&memory);
    kiln_device_close(device);
    kiln_free(tokens);
    return status;
}

static enum kiln_status evaluate(struct evaluation *e, const struct kiln_eval_options *o,
                                 struct kiln_eval_result *out, struct kiln_err *err) {
    size_t windows = kiln_data_windows(e->data, KILN_TRAIN);
    windows = o->windows && o->windows < windows ? o->windows : windows;
    size_t batch = o->batch ? o->batch : 8;
    batch = batch < windows ? batch : windows;
    size_t whole = windows / batch, rest = windows % batch;
    KILN_TRY(run_batches(e, 0, whole, batch, err));
    if (rest > 0) {
        KILN_TRY(run_batches(e, whole * batch, 1, rest, err));
    }
    const struct kiln_token_file *file = kiln_data_file(e->data);
    out->tokens = windows * e->seq;
    out->loss = e->sum / (double)out->tokens;
    out->perplexity = exp(out->loss);
    double bytes = (double)kiln_token_file_text_bytes(file) * (double)out->tokens /
                   (double)kiln_token_file_count(file);
    out->bits_per_byte = bytes > 0 ? e->sum / log(2.0) / bytes : (double)NAN;
    return KILN_OK;
}

enum kiln_status kiln_eval(const struct kiln_model *model, const struct kiln_eval_options *options,
                           struct kiln_eval_result *out, struct kiln_err *err) {
    struct evaluation e = {.model = model, .precision = options->precision};
    struct kiln_tokenizer *tokenizer = NULL;
    struct kiln_token_file *file = NULL;
    char folder[] = "/tmp/kiln-eval-XXXXXX", path[64];
    *out = (struct kiln_eval_result){0};
    e.seq = options->seq ? options->seq : model->table->dims.seq;
    const char *name = options->tokenizer    ? options->tokenizer
                       : model->tokenizer[0] ? model->tokenizer
                                             : NULL;
    KILN_REQUIRE(mkdtemp(folder), err, KILN_EIO, "cannot make a folder in /tmp");
    snprintf(path, sizeof path, "%s/data.tok", folder);
    enum kiln_status status =
        kiln_open_tokenizer(name, options->data, model->table->dims.vocab, &tokenizer, err);
    if (status == KILN_OK) {
        status = kiln_open_tokens(options->data, path, tokenizer, model->table->dims.vocab, false,
                                  &file, err);
    }
    if (status == KILN_OK) {
        status = kiln_data_create(file, e.seq, 1, 0.0, &e.data, err);
        if (status != KILN_OK) {
            kiln_token_file_close(file);
        }
    }
    if (status == KILN_OK) {
        status =
            kiln_pool_create(options->threads ? options->threads : kiln_cpu_count(), &e.pool, err);
    }
    if (status == KILN_OK) {
        status = evaluate(&e, options, out, err);
    }
    kiln_data_destroy(e.data);
    kiln_pool_destroy(e.pool);
    kiln_tokenizer_destroy(tokenizer);
    return kiln_remove_tree(folder, status == KILN_OK ? err : NULL) == KILN_OK ? status : KILN_EIO;
}

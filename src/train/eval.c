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
#include "train/engine.h"

struct evaluation {
    const struct kiln_model *model;
    struct kiln_data *data;
    enum kiln_precision precision;
    size_t seq, threads;
    bool doc_mask;
    size_t first, batch; /* of the micro-batches being run: window and size */
    double sum;
};

static void next_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                       uint32_t *starts) {
    const struct evaluation *e = context;
    for (size_t b = 0; b < e->batch; b++) {
        const size_t window = e->first + index * e->batch + b;
        kiln_data_window(e->data, KILN_TRAIN, window, tokens + b * e->seq, targets + b * e->seq);
        if (starts) {
            kiln_data_window_starts(e->data, KILN_TRAIN, window, starts + b * e->seq);
        }
    }
}

/* Windows first..first+batches*batch in micro-batches of `batch`. */
static enum kiln_status run_batches(struct evaluation *e, size_t first, size_t batches,
                                    size_t batch, struct kiln_err *err) {
    const struct kiln_table *table = e->model->table;
    const struct kiln_device_options options = {.shape = {batch, e->seq},
                                                .precision = e->precision};
    struct kiln_plan_request request = kiln_plan_simple(table, &options, 1, e->threads);
    request.doc_mask = e->doc_mask;
    const struct kiln_engine_memory memory = {.weights = e->model->weights};
    struct kiln_engine engine = {.optimizer = NULL};
    e->first = first;
    e->batch = batch;
    enum kiln_status status = kiln_engine_plan(&engine, table, &request, err);
    if (status == KILN_OK) {
        status = kiln_engine_open(&engine, table, &memory, err);
    }
    if (status == KILN_OK) {
        kiln_executor_begin(&engine.executor, true, batches, next_batch, e);
        status = kiln_executor_window(&engine.executor, err);
        e->sum += engine.executor.loss_sum;
    }
    kiln_engine_close(&engine);
    return status;
}

/* Bytes of text that the targets of a window stand for, by the mean of its file; NaN: unknown. */
static double bytes_behind(const struct evaluation *e, size_t window) {
    const struct kiln_token_file *file = kiln_data_window_file(e->data, KILN_TRAIN, window);
    const double bytes = (double)kiln_token_file_text_bytes(file);
    return bytes > 0 ? bytes / (double)kiln_token_file_count(file) * (double)e->seq : (double)NAN;
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
    double bytes = 0;
    out->tokens = 0;
    for (size_t w = 0; w < windows; w++) {
        out->tokens += kiln_data_window_targets(e->data, KILN_TRAIN, w);
        bytes += bytes_behind(e, w);
    }
    KILN_REQUIRE(out->tokens > 0, err, KILN_EINPUT,
                 "data %s: none of the tokens of its %zu windows is an answer to be scored",
                 o->data, windows);
    out->loss = e->sum / (double)out->tokens;
    out->perplexity = exp(out->loss);
    /* Of chat nobody knows how many bytes the answers are. */
    out->bits_per_byte = out->tokens == windows * e->seq ? e->sum / log(2.0) / bytes : (double)NAN;
    return KILN_OK;
}

enum kiln_status kiln_eval(const struct kiln_model *model, const struct kiln_eval_options *options,
                           struct kiln_eval_result *out, struct kiln_err *err) {
    struct evaluation e = {.model = model,
                           .precision = options->precision,
                           .doc_mask = options->doc_mask,
                           .threads = options->threads ? options->threads : kiln_cpu_count()};
    struct kiln_tokenizer *tokenizer = NULL;
    struct kiln_chat *chat = NULL;
    char folder[] = "/tmp/kiln-eval-XXXXXX";
    bool too_short;
    *out = (struct kiln_eval_result){0};
    e.seq = options->seq ? options->seq : model->table->dims.seq;
    const char *name = options->tokenizer    ? options->tokenizer
                       : model->tokenizer[0] ? model->tokenizer
                                             : NULL;
    KILN_TRY(kiln_check_unweighted("--data", options->data, err));
    KILN_REQUIRE(mkdtemp(folder), err, KILN_EIO, "cannot make a folder in /tmp");
    enum kiln_status status =
        kiln_open_tokenizer(name, options->data, model->table->dims.vocab, &tokenizer, err);
    if (status == KILN_OK && options->chat_template) {
        status = kiln_chat_open(options->chat_template, &chat, err);
    }
    if (status == KILN_OK) {
        const struct kiln_data_wish wish = {
            .data = options->data,
            .folder = folder,
            .name = "data",
            .tokenizer = tokenizer,
            .options = {.chat = chat, .skip_bad = options->skip_bad},
            .vocab = model->table->dims.vocab,
            .seq = e.seq,
            .seed = 1};
        status = kiln_open_data(&wish, &e.data, out->notice, sizeof out->notice, &too_short, err);
    }
    if (status == KILN_OK) {
        status = evaluate(&e, options, out, err);
    }
    kiln_data_destroy(e.data);
    kiln_tokenizer_destroy(tokenizer);
    kiln_chat_close(chat);
    return kiln_remove_tree(folder, status == KILN_OK ? err : NULL) == KILN_OK ? status : KILN_EIO;
}

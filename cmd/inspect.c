/* SPDX-License-Identifier: MIT
 *
 * inspect.c: kiln inspect: what a file of ours holds, and whether it is whole.
 *
 * Files name their kind poorly (.bin is a model, a tokenizer or raw tokens), so the first bytes
 * decide: a header that could be a model's is held to be one, so that a cut model is reported as
 * that and not as strange tokens.
 */
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "facts.h"
#include "files.h"
#include "kiln/inspect.h"
#include "kiln/mil.h"
#include "kiln/model.h"
#include "kiln/text.h"
#include "kiln/train.h"
#include "kiln/view.h"
#include "output.h"
#include "runs.h"

struct flags {
    bool json;
};

static const struct option options[] = {
    OPTION_JSON(struct flags),
    OPTION_END,
};

/* ---- models --------------------------------------------------------------------------------- */

struct spread {
    double least, most, mean;
};

static struct spread spread_of(const float *values, size_t n) {
    struct spread s = {.least = (double)INFINITY, .most = -(double)INFINITY};
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double v = (double)values[i];
        s.least = v < s.least ? v : s.least;
        s.most = v > s.most ? v : s.most;
        sum += v;
    }
    s.mean = n > 0 ? sum / (double)n : 0;
    return s;
}

static const char *const rope_kinds[] = {[KILN_ROPE_PLAIN] = "none",
                                         [KILN_ROPE_LINEAR] = "linear",
                                         [KILN_ROPE_LLAMA3] = "llama3",
                                         [KILN_ROPE_YARN] = "yarn"};

static json_t *dims_json(const struct kiln_dims *d) {
    const struct kiln_rope *r = &d->rope;
    json_t *rope =
        json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "kind", rope_kinds[r->kind], "factor",
                  (double)r->factor, "low_freq_factor", (double)r->low_freq_factor,
                  "high_freq_factor", (double)r->high_freq_factor, "beta_fast",
                  (double)r->beta_fast, "beta_slow", (double)r->beta_slow, "attention_factor",
                  (double)r->attention_factor, "original_seq", (json_int_t)r->original_seq);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:f, s:f, s:b, s:b, s:o}",
                     "dim", (json_int_t)d->dim, "hidden", (json_int_t)d->hidden, "layers",
                     (json_int_t)d->layers, "heads", (json_int_t)d->heads, "kv_heads",
                     (json_int_t)d->kv_heads, "head_size", (json_int_t)d->head_size, "vocab",
                     (json_int_t)d->vocab, "seq", (json_int_t)d->seq, "tied", d->tied, "rms_eps",
                     (double)d->rms_eps, "rope_theta", (double)d->rope_theta, "qkv_bias",
                     d->qkv_bias, "qk_norm", d->qk_norm, "rope", rope);
}

/* What is not as in every Llama. */
static void print_family(const struct kiln_dims *d) {
    if (d->qkv_bias || d->qk_norm || d->heads * d->head_size != d->dim) {
        printf("  head size %zu%s%s\n", d->head_size, d->qkv_bias ? ", biases of q, k, v" : "",
               d->qk_norm ? ", norms of q, k" : "");
    }
    if (d->rope.kind != KILN_ROPE_PLAIN) {
        printf("  RoPE scaled: %s, factor %g\n", rope_kinds[d->rope.kind], (double)d->rope.factor);
    }
}

/* Every weight was looked at; so many were not finite. */
static void print_dims(const struct kiln_dims *d, size_t parameters, size_t not_finite) {
    printf("  dim %zu, hidden %zu, layers %zu, heads %zu, kv-heads %zu, vocab %zu, seq %zu, %s\n",
           d->dim, d->hidden, d->layers, d->heads, d->kv_heads, d->vocab, d->seq,
           d->tied ? "tied head" : "untied head");
    print_family(d);
    if (not_finite == 0) {
        printf("  %zu parameters, all finite\n", parameters);
    } else {
        printf("  %zu parameters, %zu of them not finite\n", parameters, not_finite);
    }
}

static json_t *tensors_json(const struct kiln_model *model) {
    const struct kiln_table *table = model->table;
    const float *weights = model->weights;
    json_t *list = json_array();
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        const struct spread s = spread_of(weights + t->offset, t->rows * t->cols);
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:b}", "name", t->name, "dtype",
                            kiln_dtype_name(model->dtypes[i]), "rows", (json_int_t)t->rows, "cols",
                            (json_int_t)t->cols, "min", s.least, "max", s.most, "mean", s.mean,
                            "finite", 1));
    }
    return list;
}

static void print_tensors(const struct kiln_model *model) {
    const struct kiln_table *table = model->table;
    const float *weights = model->weights;
    printf("\n  %-18s %14s %-5s %11s %11s %11s\n", "tensor", "shape", "dtype", "min", "max",
           "mean");
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        const struct spread s = spread_of(weights + t->offset, t->rows * t->cols);
        char shape[48];
        if (t->rank == 1) {
            snprintf(shape, sizeof shape, "%zu", t->cols);
        } else {
            snprintf(shape, sizeof shape, "%zux%zu", t->rows, t->cols);
        }
        printf("  %-18s %14s %-5s %11.5f %11.5f %11.6f\n", t->name, shape,
               kiln_dtype_name(model->dtypes[i]), s.least, s.most, s.mean);
    }
}

/* Loading checks that every weight is finite, and names the first that is not. */
static enum kiln_status inspect_model(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_model model;
    KILN_TRY(kiln_model_open(call->arguments[0], 1, &model, err));
    const struct kiln_table *table = model.table;
    enum kiln_status status = KILN_OK;
    if (flags->json) {
        status =
            json_print(json_pack("{s:s, s:s, s:o, s:I, s:o}", "kind", "model", "format",
                                 model.format, "dims", dims_json(&table->dims), "parameters",
                                 (json_int_t)table->parameters, "tensors", tensors_json(&model)),
                       err);
    } else {
        printf("%s: a model, %s format\n", call->arguments[0], model.format);
        print_dims(&table->dims, table->parameters, 0);
        print_tensors(&model);
        status = output_finish(err);
    }
    kiln_model_close(&model);
    return status;
}

/* ---- weight files of MIL programs --------------------------------------------------------------
 */

static enum kiln_status report_weights(const struct call *call,
                                       const struct kiln_mil_weights *weights,
                                       struct kiln_err *err) {
    const struct flags *flags = call->flags;
    json_t *list = json_array();
    for (size_t i = 0; i < weights->n; i++) {
        const struct kiln_mil_blob *b = &weights->blobs[i];
        json_array_append_new(
            list, json_pack("{s:I, s:s, s:I, s:f, s:f, s:I}", "offset", (json_int_t)b->offset,
                            "type", b->type, "elements", (json_int_t)b->elements, "least", b->least,
                            "most", b->most, "not_numbers", (json_int_t)b->not_numbers));
    }
    if (flags->json) {
        return json_print(json_pack("{s:s, s:o}", "kind", "mil weights", "blobs", list), err);
    }
    json_decref(list);
    printf("%s: a weight file of MIL programs, %zu blob%s\n", call->arguments[0], weights->n,
           weights->n == 1 ? "" : "s");
    for (size_t i = 0; i < weights->n; i++) {
        const struct kiln_mil_blob *b = &weights->blobs[i];
        printf("  offset %-8" PRIu64 " %s, %" PRIu64 " elements from %g to %g", b->offset, b->type,
               b->elements, b->least, b->most);
        if (b->not_numbers > 0) {
            printf("; %" PRIu64 " are no finite numbers", b->not_numbers);
        }
        putchar('\n');
    }
    return output_finish(err);
}

static enum kiln_status inspect_weights(const struct call *call, struct kiln_err *err) {
    struct kiln_mil_weights weights;
    enum kiln_status status = kiln_mil_weights_read(call->arguments[0], &weights, err);
    if (status == KILN_OK) {
        status = report_weights(call, &weights, err);
    }
    kiln_mil_weights_free(&weights);
    return status;
}

/* ---- tokens --------------------------------------------------------------------------------- */

#define FIRST_IDS 16

static enum kiln_status report_tokens(const struct call *call, const struct kiln_token_file *file,
                                      struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const size_t n = kiln_token_file_count(file), vocab = kiln_token_file_vocab(file);
    const size_t documents = kiln_token_file_documents(file);
    const size_t shown = n < FIRST_IDS ? n : FIRST_IDS;
    if (flags->json) {
        json_t *first = json_array();
        for (size_t i = 0; i < shown; i++) {
            json_array_append_new(first, json_integer(kiln_token_file_id(file, i)));
        }
        return json_print(
            json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "kind", "tokens", "format",
                      vocab > 0 ? "KILNTOK1" : "raw uint16", "tokens", (json_int_t)n, "documents",
                      (json_int_t)documents, "vocab", (json_int_t)vocab, "text_bytes",
                      (json_int_t)kiln_token_file_text_bytes(file), "first", first),
            err);
    }
    printf("%s: %s\n", call->arguments[0], vocab > 0 ? "a token file" : "raw uint16 token ids");
    printf("  %zu ids in %zu documents", n, documents);
    if (vocab > 0) {
        printf(", vocabulary %zu, from %" PRIu64 " bytes of text", vocab,
               kiln_token_file_text_bytes(file));
    }
    printf("\n  first ids:");
    for (size_t i = 0; i < shown; i++) {
        printf(" %" PRIu32, kiln_token_file_id(file, i));
    }
    putchar('\n');
    return output_finish(err);
}

static enum kiln_status inspect_tokens(const struct call *call, struct kiln_err *err) {
    struct kiln_token_file *file = NULL;
    KILN_TRY(kiln_token_file_open(call->arguments[0], 0, &file, err));
    const enum kiln_status status = report_tokens(call, file, err);
    kiln_token_file_close(file);
    return status;
}

static enum kiln_status report_tokenizer(const struct call *call,
                                         const struct kiln_tokenizer *tokenizer,
                                         struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const size_t vocab = kiln_tokenizer_vocab(tokenizer);
    const char *form = kiln_tokenizer_form(call->arguments[0]);
    if (flags->json) {
        return json_print(json_pack("{s:s, s:s, s:I}", "kind", "tokenizer", "format", form, "vocab",
                                    (json_int_t)vocab),
                          err);
    }
    printf("%s: a tokenizer, %s\n  %zu ids; the last ones:", call->arguments[0], form, vocab);
    for (size_t id = vocab > 8 ? vocab - 8 : 0; id < vocab; id++) {
        size_t size = 0;
        const char *piece = kiln_tokenizer_decode(tokenizer, 0, (uint32_t)id, &size);
        printf(" \"%.*s\"", (int)size, piece);
    }
    putchar('\n');
    return output_finish(err);
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* Of the run, as its state file says; `state` joins it. */
static json_t *run_json(const struct kiln_run_peek *peek, const struct kiln_settings *settings,
                        json_t *state) {
    char hash[16];
    char *json = kiln_settings_to_json(settings);
    json_t *all = json != NULL ? json_loads(json, 0, NULL) : NULL;
    kiln_settings_json_free(json);
    snprintf(hash, sizeof hash, "%08" PRIx32, peek->weights_hash);
    return json_pack(
        "{s:s, s:s?, s:o, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:o, s:o, s:I, s:s, s:o, s:o}", "kind",
        "run", "model", settings->model, "dims", dims_json(&peek->dims), "parameters",
        (json_int_t)peek->parameters, "not_finite", (json_int_t)peek->not_finite, "step",
        (json_int_t)peek->step, "updates", (json_int_t)peek->updates, "tokens",
        (json_int_t)peek->tokens, "inside_update", peek->inside_update, "spread",
        (json_int_t)peek->spread, "loss", json_number(peek->last_loss), "best_val_loss",
        json_number(peek->best_val), "best_val_step", (json_int_t)peek->best_val_step,
        "weights_hash", hash, "settings", all, "state", state);
}

/* A run without a view has no lines that could be bad. */
static void print_unread(const char *folder) {
    struct kiln_view *view;
    struct kiln_err ignored;
    char text[KILN_VIEW_TEXT];
    if (kiln_view_open(folder, &view, &ignored) != KILN_OK) {
        return;
    }
    if (kiln_view_unread(view, text) > 0) {
        printf("  %s\n", text);
    }
    kiln_view_close(view);
}

static void print_run(const char *path, const struct kiln_run_peek *peek,
                      const struct kiln_settings *settings) {
    char text[512];
    printf("%s: a run of %s\n", path, settings->model != NULL ? settings->model : "own sizes");
    print_dims(&peek->dims, peek->parameters, peek->not_finite);
    printf("  step %" PRIu64 " of %" PRIu64 ", %" PRIu64 " tokens, weights %08" PRIx32 "\n",
           peek->step, settings->steps, peek->tokens, peek->weights_hash);
    if (peek->inside_update) {
        printf("  inside update %" PRIu64
               ": some weights are older than others; training or\n"
               "  kiln train --resume finishes it\n",
               peek->updates + 1);
    }
    if (peek->spread > 0) {
        printf("  weights and moments lie in the files of %" PRIu64
               " ranks: training or\n"
               "  kiln train --resume puts them together\n",
               peek->spread);
    }
    if (peek->step > 0) {
        printf("  loss %.4f", peek->last_loss);
        if (peek->best_val_step > 0) {
            printf("; best held-out loss %.4f after step %" PRIu64, peek->best_val,
                   peek->best_val_step);
        }
        putchar('\n');
    }
    print_unread(path);
    printf("  settings\n");
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        printf("    %-18s %s\n", kiln_setting(id)->flag,
               kiln_settings_text(settings, id, text, sizeof text));
    }
}

static enum kiln_status read_settings(const char *folder, struct kiln_settings *out,
                                      struct kiln_err *err) {
    char *path = NULL, *json = NULL;
    size_t size = 0;
    KILN_TRY(join(folder, "run.json", &path, err));
    enum kiln_status status = read_whole(path, &json, &size, err);
    if (status == KILN_OK) {
        status = kiln_settings_from_json(out, json, size, err);
    }
    free(json);
    free(path);
    return status;
}

/* The run as a whole when its state can be read, and all of the state that can. */
static enum kiln_status report_run(const struct call *call, const struct kiln_settings *settings,
                                   const char *state, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const char *folder = call->arguments[0];
    struct kiln_run_peek peek;
    struct kiln_facts facts;
    const enum kiln_status peeked = kiln_run_peek(folder, &peek, err);
    KILN_REQUIRE(peeked == KILN_OK || file_exists(state), err, peeked,
                 "%s: no state.kiln in it; kiln train --resume %s goes on from the newest "
                 "checkpoint, kiln inspect %s/checkpoints/step-N shows one",
                 folder, folder, folder);
    struct kiln_err why;
    const enum kiln_status whole = kiln_inspect_state(state, &facts, &why);
    enum kiln_status printed = KILN_OK;
    if (flags->json) {
        json_t *json = facts_json("state", &facts, whole == KILN_OK ? NULL : why.message);
        printed = json_print(peeked == KILN_OK ? run_json(&peek, settings, json) : json, err);
    } else {
        if (peeked == KILN_OK) {
            print_run(folder, &peek, settings);
        }
        facts_print(state, "a state file", &facts);
        printed = output_finish(err);
    }
    kiln_facts_free(&facts);
    KILN_TRY(printed);
    KILN_REQUIRE(whole == KILN_OK, err, whole, "%s", why.message);
    return peeked;
}

/* Only reads: neither the run's lock nor a byte of its files is touched. */
static enum kiln_status inspect_run(const struct call *call, struct kiln_err *err) {
    const char *folder = call->arguments[0];
    struct kiln_settings settings;
    char *state = NULL;
    KILN_TRY(join(folder, "state.kiln", &state, err));
    enum kiln_status status = kiln_settings_init(&settings, err);
    if (status == KILN_OK) {
        status = read_settings(folder, &settings, err);
        if (status == KILN_OK) {
            status = report_run(call, &settings, state, err);
        }
        kiln_settings_free(&settings);
    }
    free(state);
    return status;
}

/* A state file or a checkpoint by itself. */
static enum kiln_status inspect_facts(const struct call *call, const char *path, bool checkpoint,
                                      struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const char *kind = checkpoint ? "checkpoint" : "state";
    struct kiln_facts facts;
    struct kiln_err why;
    const enum kiln_status whole = checkpoint ? kiln_inspect_checkpoint(path, &facts, &why)
                                              : kiln_inspect_state(path, &facts, &why);
    enum kiln_status printed = KILN_OK;
    if (flags->json) {
        printed = json_print(facts_json(kind, &facts, whole == KILN_OK ? NULL : why.message), err);
    } else if (facts.n > 0) {
        facts_print(path, checkpoint ? "a checkpoint" : "a state file", &facts);
        printed = output_finish(err);
    }
    kiln_facts_free(&facts);
    KILN_TRY(printed);
    KILN_REQUIRE(whole == KILN_OK, err, whole, "%s", why.message);
    return KILN_OK;
}

/* resume.kiln is described by the folder it lies in. */
static enum kiln_status inspect_resume(const struct call *call, struct kiln_err *err) {
    char *folder = strdup(call->arguments[0]);
    KILN_REQUIRE(folder != NULL, err, KILN_ENOMEM, "inspect: out of memory");
    char *slash = strrchr(folder, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    const enum kiln_status status = inspect_facts(call, slash != NULL ? folder : ".", true, err);
    free(folder);
    return status;
}

/* ---- which of them? ------------------------------------------------------------------------- */

enum kind {
    KIND_WEIGHTS,
    KIND_MODEL,
    KIND_TOKENS,
    KIND_STATE,
    KIND_RESUME,
    KIND_OTHER,
    KIND_OTHER_OR_RAW
};

/* Sizes of a llama2.c header: dim, hidden, layers, heads, kv_heads, vocab (negative: untied), seq.
 * A tokenizer's second word is a float and its third a length; tokens are pairs of small numbers,
 * which as int32 are far beyond these bounds. */
static bool could_be_model(const unsigned char *head, size_t size) {
    static const int32_t most[] = {1 << 20, 1 << 22, 1 << 12, 1 << 12, 1 << 12, 1 << 24, 1 << 20};
    const size_t n = size / 4 < 7 ? size / 4 : 7;
    for (size_t i = 0; i < n; i++) {
        int32_t stored;
        memcpy(&stored, head + 4 * i, 4);
        const int64_t word = i == 5 && stored < 0 ? -(int64_t)stored : stored;
        if (word <= 0 || word > most[i]) {
            return false;
        }
    }
    return n >= 4;
}

static bool is_named(const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    return strcmp(slash != NULL ? slash + 1 : path, name) == 0;
}

static enum kiln_status find_kind(const char *path, enum kind *out, struct kiln_err *err) {
    unsigned char head[28] = {0};
    FILE *file = fopen(path, "rb");
    KILN_REQUIRE(file != NULL, err, KILN_EINPUT,
                 "%s cannot be opened; name a model, token file, tokenizer or run folder", path);
    const size_t size = fread(head, 1, sizeof head, file);
    const bool even = fseeko(file, 0, SEEK_END) == 0 && ftello(file) % 2 == 0;
    fclose(file);
    KILN_REQUIRE(size > 0, err, KILN_EINPUT, "%s is empty; make it again", path);
    const char *dot = strrchr(path, '.');
    const bool named = dot != NULL && (strcmp(dot, ".tok") == 0 || strcmp(dot, ".u16") == 0);
    if (named || memcmp(head, "KILNTOK1", 8) == 0) {
        *out = KIND_TOKENS;
    } else if (is_named(path, "state.kiln") || memcmp(head, "KILNST", 6) == 0) {
        *out = KIND_STATE; /* by its name too: its first bytes may be what is damaged */
    } else if (is_named(path, "resume.kiln") || memcmp(head, "KILNRS", 6) == 0) {
        *out = KIND_RESUME;
    } else if (kiln_mil_weights_is(path)) {
        *out = KIND_WEIGHTS;
    } else if (memcmp(head, "GGUF", 4) == 0 || memcmp(head, "24ka", 4) == 0 ||
               could_be_model(head, size)) {
        *out = KIND_MODEL; /* 24ka: llama2.c, versions 1 and 2 */
    } else {
        /* Raw uint16 ids have no header; all that marks them is BOS, the id 1, at their start. */
        *out = even && head[0] == 1 && head[1] == 0 ? KIND_OTHER_OR_RAW : KIND_OTHER;
    }
    return KILN_OK;
}

/* Anything else named .bin is a model that is damaged, unless it could be raw tokens: then `raw`.
 */
static enum kiln_status inspect_other(const struct call *call, bool raw, struct kiln_err *err) {
    struct kiln_tokenizer *tokenizer = NULL;
    struct kiln_err why;
    if (kiln_tokenizer_open(call->arguments[0], &tokenizer, &why) == KILN_OK) {
        const enum kiln_status status = report_tokenizer(call, tokenizer, err);
        kiln_tokenizer_destroy(tokenizer);
        return status;
    }
    KILN_REQUIRE(kiln_token_file_is(call->arguments[0]), err, KILN_EINPUT,
                 "%s is not a model, token file, tokenizer or run folder that kiln knows",
                 call->arguments[0]);
    return raw ? inspect_tokens(call, err) : inspect_model(call, err);
}

static bool is_model_folder(const char *path) {
    char *config = NULL;
    const bool found = join(path, "config.json", &config, NULL) == KILN_OK && file_exists(config);
    free(config);
    return found;
}

static enum kiln_status inspect_folder(const struct call *call, struct kiln_err *err) {
    const char *path = call->arguments[0];
    char *resume = NULL, list[480];
    KILN_TRY(join(path, "resume.kiln", &resume, err));
    const bool checkpoint = file_exists(resume);
    free(resume);
    if (checkpoint) {
        return inspect_facts(call, path, true, err);
    }
    if (is_run_folder(path)) {
        return inspect_run(call, err);
    }
    if (is_model_folder(path)) {
        return inspect_model(call, err);
    }
    KILN_TRY(runs_in(path, list, sizeof list) > 0 ? need_run(path, err) : KILN_OK);
    return KILN_FAIL(err, KILN_EINPUT,
                     "%s is a folder without run.json, so not a run, without resume.kiln, so not a "
                     "checkpoint, and without config.json, so not a model; name one of these",
                     path);
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const char *path = call->arguments[0];
    enum kind kind = KIND_OTHER;
    KILN_TRY(need_path(path, err));
    if (is_folder(path)) {
        return inspect_folder(call, err);
    }
    KILN_TRY(find_kind(path, &kind, err));
    switch (kind) {
        case KIND_WEIGHTS:
            return inspect_weights(call, err);
        case KIND_MODEL:
            return inspect_model(call, err);
        case KIND_TOKENS:
            return inspect_tokens(call, err);
        case KIND_STATE:
            return inspect_facts(call, path, false, err);
        case KIND_RESUME:
            return inspect_resume(call, err);
        case KIND_OTHER:
        case KIND_OTHER_OR_RAW:
            break;
    }
    return inspect_other(call, kind == KIND_OTHER_OR_RAW, err);
}

const struct command command_inspect = {
    .name = "inspect",
    .synopsis = "FILE",
    .summary =
        "say what a model, token file, tokenizer, run, state, checkpoint or MIL weight file holds",
    .details =
        "Checks what it shows: sizes, checksums, that every weight is a finite number.\n"
        "Of a run it shows the settings and all of its state.kiln, of checkpoints/step-N every "
        "part;\n"
        "it only reads, also while the run is trained. A file of raw uint16 tokens\n"
        "is known by its name (.u16, .tok), or as .bin by the id 1 (BOS) at its start.\n",
    .least_arguments = 1,
    .most_arguments = 1,
    .missing = "name a model, token file, tokenizer, run folder, state.kiln or checkpoint",
    .flags_size = sizeof(struct flags),
    .options = options,
    .run = run,
};

/* SPDX-License-Identifier: MIT
 *
 * convert.c: kiln convert: a run or a model of any format to one of another, with the tokenizer
 * that goes along. What was written is read back and compared before it gets its name.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "commands.h"
#include "dims.h"
#include "files.h"
#include "kiln/model.h"
#include "kiln/train.h"
#include "output.h"

struct flags {
    bool force, json, only_adapter;
    const char *dtype, *tokenizer;
};

static const struct option options[] = {
    {"dtype", 0, OPTION_TEXT, "NAME", "f32", "numbers of OUT: f32, f16, bf16, or q8_0 in a .gguf",
     GROUP_MODEL, 0, 0, offsetof(struct flags, dtype)},
    {"tokenizer", 0, OPTION_TEXT, "T", NULL, "file or folder of the tokenizer (IN's own)",
     GROUP_MODEL, 0, 0, offsetof(struct flags, tokenizer)},
    {"only-adapter", 0, OPTION_SWITCH, NULL, NULL,
     "write the adapters of a run or checkpoint alone, as a folder in the layout of PEFT",
     GROUP_OUTPUT, 0, 0, offsetof(struct flags, only_adapter)},
    {"force", 0, OPTION_SWITCH, NULL, NULL, "replace OUT when it exists", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, force)},
    OPTION_JSON(struct flags),
    OPTION_END,
};
static const enum kiln_setting_id settings[] = {KILN_SETTING_rms_eps, KILN_SETTING_rope_theta,
                                                KILN_SETTING_adapter};

struct conversion {
    const struct kiln_model *model;
    enum kiln_format format;
    enum kiln_dtype dtype;
    const char *out, *tokenizer; /* what is to go along, or "" */
    struct kiln_tokenizer *read; /* it, open; NULL: there is none */
    char along[64];              /* what went, for the report; "" */
    char chat[4300];             /* where the chat template lies that goes along, or "" */
    struct kiln_proof proof;
};

/* ---- the tokenizer -------------------------------------------------------------------------- */

static enum kiln_status copy_file(const char *from, const char *folder, const char *name,
                                  struct kiln_err *err) {
    char *text = NULL, *to = NULL;
    size_t size = 0;
    KILN_TRY(read_whole(from, &text, &size, err));
    enum kiln_status status = join(folder, name, &to, err);
    if (status == KILN_OK) {
        status = write_whole(to, text, size, err);
    }
    free(text);
    free(to);
    return status;
}

/* All that transformers keeps of a tokenizer, as far as the folder has it. */
static enum kiln_status copy_files(struct conversion *conversion, const char *folder,
                                   struct kiln_err *err) {
    static const char *const files[] = {
        KILN_TOKENIZER_FILES,
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *from = NULL;
        KILN_TRY(join(conversion->tokenizer, files[i], &from, err));
        enum kiln_status status = KILN_OK;
        if (file_exists(from)) {
            status = copy_file(from, folder, files[i], err);
            if (conversion->along[0] == '\0') {
                snprintf(conversion->along, sizeof conversion->along, "%s", files[i]);
            }
        }
        free(from);
        KILN_TRY(status);
    }
    return KILN_OK;
}

/* A folder's files as they are; anything else becomes a tokenizer.json. */
static enum kiln_status add_files(void *context, const char *folder, struct kiln_err *err) {
    struct conversion *c = context;
    char *path = NULL;
    if (c->tokenizer[0] == '\0') {
        return KILN_OK;
    }
    if (is_folder(c->tokenizer)) {
        KILN_TRY(copy_files(c, folder, err));
        const bool missing = c->chat[0] != '\0' && !kiln_chat_is_there(folder);
        return missing ? kiln_chat_copy(c->chat, folder, err) : KILN_OK;
    }
    KILN_TRY(join(folder, "tokenizer.json", &path, err));
    const enum kiln_status status = kiln_tokenizer_save(c->read, path, err);
    free(path);
    snprintf(c->along, sizeof c->along, "tokenizer.json");
    KILN_TRY(status);
    return c->chat[0] != '\0' ? kiln_chat_copy(c->chat, folder, err) : KILN_OK;
}

/* The template of the tokenizer that is named, or of the model. Without a tokenizer none goes. */
static void find_chat(struct conversion *c, const char *named, const char *in) {
    const bool own = named != NULL && kiln_chat_find(named, c->chat, sizeof c->chat);
    if (!own && kiln_chat_is_there(in) && strlen(in) < sizeof c->chat) {
        snprintf(c->chat, sizeof c->chat, "%s", in);
    } else if (!own) {
        c->chat[0] = '\0';
    }
}

static enum kiln_status open_tokenizer(struct conversion *c, struct kiln_err *err) {
    if (c->tokenizer[0] == '\0' || c->format == KILN_FORMAT_LLAMA2C) {
        return KILN_OK;
    }
    KILN_TRY(kiln_tokenizer_open(c->tokenizer, &c->read, err));
    if (c->format == KILN_FORMAT_GGUF) {
        snprintf(c->along, sizeof c->along, "inside");
    }
    return kiln_tokenizer_fits(c->read, c->model->table->dims.vocab, err);
}

/* ---- the model ------------------------------------------------------------------------------ */

static enum kiln_status report(const struct call *call, const struct conversion *c,
                               struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const size_t parameters = c->model->table->parameters;
    if (flags->json) {
        return json_print(
            json_pack("{s:s, s:s, s:s, s:s, s:I, s:s?, s:{s:o, s:o, s:I}}", "from", c->model->name,
                      "to", c->out, "format", kiln_format_name(c->format), "dtype",
                      kiln_dtype_name(c->dtype), "parameters", (json_int_t)parameters, "tokenizer",
                      c->along[0] != '\0' ? c->along : NULL, "proof", "weights",
                      json_number(c->proof.weights), "logits", json_number(c->proof.logits),
                      "tokens", (json_int_t)c->proof.tokens),
            err);
    }
    printf("%s: %zu parameters of %s, %s format, %s\n", c->out, parameters, c->model->name,
           kiln_format_name(c->format), kiln_dtype_name(c->dtype));
    printf("  read back: weights differ by %.3g at most, logits of %zu tokens by %.3g\n",
           c->proof.weights, c->proof.tokens, c->proof.logits);
    if (c->along[0] != '\0') {
        printf("  with its tokenizer: %s%s\n", c->along,
               c->chat[0] != '\0' ? ", and the chat template" : "");
    } else if (c->format == KILN_FORMAT_LLAMA2C) {
        printf("  a .bin holds no tokenizer\n");
    } else {
        printf("  without a tokenizer; name one with --tokenizer\n");
    }
    return output_finish(err);
}

static enum kiln_status convert(const struct call *call, const struct kiln_model *model,
                                struct conversion *c, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_save_options how = {
        .dtype = c->dtype,
        .replace = flags->force,
        .name = model->name,
        .add = add_files,
        .context = c,
    };
    c->model = model;
    c->tokenizer = flags->tokenizer != NULL ? flags->tokenizer : model->tokenizer;
    KILN_REQUIRE(flags->tokenizer == NULL || file_exists(flags->tokenizer), err, KILN_EINPUT,
                 "--tokenizer %s: no such file", flags->tokenizer);
    find_chat(c, flags->tokenizer, call->arguments[0]);
    enum kiln_status status = open_tokenizer(c, err);
    if (status == KILN_OK) {
        const char *chat = c->read != NULL && c->chat[0] != '\0' ? c->chat : NULL;
        status = kiln_model_save(model, c->format, c->out, c->read, chat, &how, &c->proof, err);
    }
    kiln_tokenizer_destroy(c->read);
    KILN_TRY(status);
    return report(call, c, err);
}

/* --only-adapter: nothing of the model is written. */
static enum kiln_status convert_adapter(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const char *in = call->arguments[0], *out = call->arguments[1];
    struct kiln_model adapters;
    char targets[KILN_LORA_TEXT];
    KILN_REQUIRE(call->settings.adapter == NULL, err, KILN_EUSAGE,
                 "--only-adapter writes what a run has trained, --adapter adds what a folder has; "
                 "use one of them");
    KILN_TRY(kiln_run_adapters(in, &adapters, err));
    const struct kiln_lora lora = adapters.table->lora;
    const size_t n = adapters.table->adapters;
    const enum kiln_status status =
        kiln_lora_save(out, adapters.table, adapters.weights, NULL, flags->force, err);
    kiln_model_close(&adapters);
    KILN_TRY(status);
    kiln_lora_text(lora.targets, targets);
    if (flags->json) {
        return json_print(
            json_pack("{s:s, s:s, s:s, s:I, s:I, s:f, s:s}", "from", in, "to", out, "format",
                      "PEFT", "parameters", (json_int_t)n, "lora", (json_int_t)lora.rank,
                      "lora_alpha", lora.alpha, "lora_targets", targets),
            err);
    }
    printf("%s: %zu parameters of the adapters of %s, rank %zu, alpha %g, on %s\n", out, n, in,
           lora.rank, lora.alpha, targets);
    return output_finish(err);
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const char *in = call->arguments[0], *out = call->arguments[1];
    if (flags->only_adapter) {
        return convert_adapter(call, err);
    }
    struct conversion c = {.out = out, .format = kiln_format_of(out)};
    const char *dot = strrchr(out, '.');
    KILN_REQUIRE(dot == NULL || strcasecmp(dot, ".safetensors") != 0, err, KILN_EUSAGE,
                 "convert ... %s: a .safetensors alone says nothing of the model's sizes; name a "
                 "folder, which gets model.safetensors, config.json and the tokenizer",
                 out);
    KILN_REQUIRE(kiln_preset_find(in) == NULL || file_exists(in), err, KILN_EUSAGE,
                 "convert %s: a preset has no weights to convert; name a run folder or a model",
                 in);
    KILN_REQUIRE(kiln_dtype_find(flags->dtype, &c.dtype), err, KILN_EUSAGE,
                 "--dtype %s: use f32, f16, bf16 or q8_0", flags->dtype);
    KILN_REQUIRE(flags->force || !file_exists(out), err, KILN_EEXISTS,
                 "%s exists already; choose another name, or --force to replace it", out);
    struct kiln_model model;
    KILN_TRY(model_open_as(&call->settings, in, call->settings.seed, &model, err));
    const enum kiln_status status = convert(call, &model, &c, err);
    kiln_model_close(&model);
    return status;
}

static const struct offer offers[] = {{"dtype", "f32 f16 bf16 q8_0"}, {NULL, NULL}};

const struct command command_convert = {
    .name = "convert",
    .synopsis = "IN OUT [options]",
    .summary = "write a run or a model in another format, and prove it",
    .details =
        "IN is a run folder, a Hugging Face folder, a .gguf or a llama2.c .bin. OUT's ending says\n"
        "its format: .bin (llama2.c), .gguf, anything else a Hugging Face folder. OUT is read "
        "back\n"
        "and compared before it gets its name; the largest differences are printed.\n\n"
        "  kiln convert runs/demo/run demo.gguf --dtype q8_0\n"
        "  kiln convert Qwen2.5-0.5B qwen.gguf --dtype bf16\n"
        "  kiln convert runs/tuned adapter --only-adapter     # for peft\n"
        "  kiln convert base.bin tuned --adapter adapter      # merged\n"
        "  kiln convert hf-story story.bin --rms-eps 1e-5     # a .bin stands for 1e-5\n",
    .least_arguments = 2,
    .most_arguments = 2,
    .missing = "name what to read and what to write: kiln convert RUN OUT.bin",
    .flags_size = sizeof(struct flags),
    .options = options,
    .offers = offers,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};

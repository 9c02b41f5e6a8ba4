/* SPDX-License-Identifier: MIT
 *
 * generate.c: kiln generate: text from a model, on stdout exactly as it is made.
 */
#include "kiln/generate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "dims.h"
#include "files.h"
#include "output.h"

struct flags {
    const char *prompt, *tokenizer, *system;
    uint64_t tokens, seed;
    double temperature, top_p;
    bool json, chat;
};

static const struct option options[] = {
    {"prompt", 'p', OPTION_TEXT, "TEXT", "", "text to go on from", GROUP_TEXT, 0, 0,
     offsetof(struct flags, prompt)},
    {"tokens", 'n', OPTION_COUNT, "N", "256",
     "tokens in all, the prompt's included; with --chat, of the answer", GROUP_TEXT, 1, 1 << 24,
     offsetof(struct flags, tokens)},
    {"temperature", 't', OPTION_REAL, "X", "1.0",
     "0 takes the likeliest token each time; to compare with others: --precision fp32", GROUP_TEXT,
     0, 100, offsetof(struct flags, temperature)},
    {"top-p", 0, OPTION_REAL, "X", "0.9", "draw among the likeliest that sum to this; 1 is all",
     GROUP_TEXT, 0, 1, offsetof(struct flags, top_p)},
    {"seed", 0, OPTION_COUNT, "N", "1", "another seed gives another text", GROUP_TEXT, 0, 1e18,
     offsetof(struct flags, seed)},
    {"tokenizer", 0, OPTION_TEXT, "FILE", NULL,
     "tokenizer.json, .model, .gguf, .bin, a folder, \"bytes\" (the one of the run)", GROUP_MODEL,
     0, 0, offsetof(struct flags, tokenizer)},
    {"chat", 0, OPTION_SWITCH, NULL, NULL,
     "PROMPT is a message, which the model's chat template writes; the answer is shown", GROUP_TEXT,
     0, 0, offsetof(struct flags, chat)},
    {"system", 0, OPTION_TEXT, "TEXT", NULL, "with --chat: the system's message", GROUP_TEXT, 0, 0,
     offsetof(struct flags, system)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {KILN_SETTING_precision, KILN_SETTING_threads,
                                                KILN_SETTING_rms_eps,   KILN_SETTING_rope_theta,
                                                KILN_SETTING_adapter,   KILN_SETTING_chat_template};

/* Where the pieces go: to stdout, or into a text for --json. */
struct sink {
    bool keep;
    char *text;
    size_t size, room;
    bool failed;
};

static bool keep_piece(struct sink *sink, const char *piece, size_t size) {
    if (sink->size + size > sink->room) {
        const size_t room = 2 * (sink->size + size) + 256;
        char *grown = realloc(sink->text, room);
        if (grown == NULL) {
            sink->failed = true;
            return false;
        }
        sink->text = grown;
        sink->room = room;
    }
    memcpy(sink->text + sink->size, piece, size);
    sink->size += size;
    return true;
}

static bool take_piece(void *context, const char *piece, size_t size) {
    struct sink *sink = context;
    if (size == 0) {
        return true;
    }
    if (sink->keep) {
        return keep_piece(sink, piece, size);
    }
    fwrite(piece, 1, size, stdout);
    return fflush(stdout) == 0;
}

static enum kiln_status print_json(const struct kiln_model *model, const struct flags *flags,
                                   const struct sink *sink,
                                   const struct kiln_generate_result *result,
                                   struct kiln_err *err) {
    KILN_REQUIRE(!sink->failed, err, KILN_ENOMEM, "keeping the text: out of memory");
    return json_print(json_pack("{s:s, s:o, s:I, s:o, s:I}", "model", model->name, "text",
                                json_bytes(sink->text != NULL ? sink->text : "", sink->size),
                                "tokens", (json_int_t)result->tokens, "tokens_per_s",
                                json_number(result->tokens_per_s), "seed", (json_int_t)flags->seed),
                      err);
}

static void print_rate(const struct kiln_generate_result *result) {
    if (output_is_terminal() && messages_are_read()) {
        fprintf(stderr, "%zu tokens, %.1f tokens/s\n", result->tokens, result->tokens_per_s);
    }
}

static enum kiln_status generate(const struct call *call, const struct kiln_model *model,
                                 const struct kiln_tokenizer *tokenizer,
                                 const struct kiln_chat *chat, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const struct kiln_settings *s = &call->settings;
    struct sink sink = {.keep = flags->json};
    struct kiln_generate_result result = {0};
    struct kiln_generate_options how = {.prompt = flags->prompt,
                                        .tokens = flags->tokens,
                                        .temperature = flags->temperature,
                                        .top_p = flags->top_p,
                                        .seed = flags->seed,
                                        .chat = chat,
                                        .system = flags->system,
                                        .threads = s->threads != KILN_UNSET ? s->threads : 0};
    struct kiln_device_choice device;
    KILN_TRY(kiln_settings_device(s, &device, &how.precision, err));
    enum kiln_status status = kiln_generate(model->table, model->weights, tokenizer, &how,
                                            take_piece, &sink, &result, err);
    if (status == KILN_OK && flags->json) {
        status = print_json(model, flags, &sink, &result, err);
    } else if (status == KILN_OK) {
        putchar('\n');
        status = output_finish(err);
        print_rate(&result);
    }
    free(sink.text);
    return status;
}

static enum kiln_status open_chat(const struct call *call, struct kiln_chat **out,
                                  struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const char *model = call->arguments[0];
    KILN_TRY(kiln_chat_choose(call->settings.chat_template, model, flags->tokenizer, out, err));
    KILN_REQUIRE(*out, err, KILN_EUSAGE,
                 "generate --chat: %s has no chat template; name one with --chat-template FILE",
                 model);
    return KILN_OK;
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_model model;
    struct kiln_tokenizer *tokenizer = NULL;
    struct kiln_chat *chat = NULL;
    KILN_REQUIRE(flags->chat || !flags->system, err, KILN_EUSAGE,
                 "generate: --system is a message of --chat; add --chat, or leave it out");
    KILN_TRY(model_open_as(&call->settings, call->arguments[0], flags->seed, &model, err));
    enum kiln_status status = tokenizer_for(&model, flags->tokenizer, &tokenizer, err);
    if (status == KILN_OK && flags->chat) {
        status = open_chat(call, &chat, err);
    }
    if (status == KILN_OK) {
        status = generate(call, &model, tokenizer, chat, err);
    }
    kiln_chat_close(chat);
    kiln_tokenizer_destroy(tokenizer);
    kiln_model_close(&model);
    return status;
}

static const struct offer offers[] = {{"", "%models"}, {"tokenizer", "bytes %files"}, {NULL, NULL}};

const struct command command_generate = {
    .name = "generate",
    .synopsis = "MODEL [-p PROMPT] [options]",
    .summary = "write text with a model",
    .details =
        "MODEL is a run folder, a Hugging Face folder, a .gguf, a llama2.c .bin or a preset\n"
        "(random weights).\n"
        "The same flags give the same text on the same machine. Products are in bf16 where the\n"
        "processor has it, so -t 0 may choose another token than transformers or llama.cpp where\n"
        "two are almost as likely; --precision fp32 computes as transformers does in float32.\n\n"
        "  kiln generate runs/demo/run -p \"Once upon a time\"\n"
        "  kiln generate stories260K.bin --tokenizer tok512.bin -t 0\n"
        "  kiln generate runs/helper --chat -p \"What is a kiln?\"\n",
    .least_arguments = 1,
    .most_arguments = 1,
    .missing = "name a model: a run or Hugging Face folder, a .gguf, a llama2.c .bin, or a preset",
    .flags_size = sizeof(struct flags),
    .options = options,
    .offers = offers,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};

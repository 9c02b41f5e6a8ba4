/* SPDX-License-Identifier: MIT
 *
 * tokenize.c: kiln tokenize: a text file to a token file, with a vocabulary that is given or
 * learned from the text itself.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "files.h"
#include "kiln/text.h"
#include "output.h"

struct flags {
    const char *output, *save;
    uint64_t train_bpe;
    bool force, json;
};

static const struct option options[] = {
    {"output", 'o', OPTION_TEXT, "OUT.tok", NULL, "token file to write", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, output)},
    {"train-bpe", 0, OPTION_COUNT, "N", NULL, "learn a byte-pair vocabulary of N ids from the text",
     GROUP_VOCABULARY, 260, 1 << 20, offsetof(struct flags, train_bpe)},
    {"save", 0, OPTION_TEXT, "TOK.bin", NULL, "where to write it (OUT.tokenizer.bin)",
     GROUP_VOCABULARY, 0, 0, offsetof(struct flags, save)},
    {"force", 0, OPTION_SWITCH, NULL, NULL, "replace files that exist", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, force)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {KILN_SETTING_tokenizer, KILN_SETTING_blank_lines,
                                                KILN_SETTING_skip_bad, KILN_SETTING_chat_template};

static enum kiln_status learn(const char *text_path, uint64_t vocab, struct kiln_tokenizer **out,
                              struct kiln_err *err) {
    char *text = NULL;
    size_t size = 0;
    KILN_TRY(read_whole(text_path, &text, &size, err));
    const enum kiln_status status =
        kiln_tokenizer_train(text, size, "<|endoftext|>", vocab, out, err);
    free(text);
    return status;
}

/* Ids without their vocabulary are of no use: when no name is given, one is made. */
static enum kiln_status vocabulary_path(const struct flags *flags, char **out,
                                        struct kiln_err *err) {
    const char *name = flags->save != NULL ? flags->save : flags->output;
    const size_t length = strlen(name);
    const char *ending = flags->save != NULL ? "" : ".tokenizer.bin";
    size_t stem = length;
    if (flags->save == NULL && length > 4 && strcmp(name + length - 4, ".tok") == 0) {
        stem = length - 4;
    }
    const size_t room = stem + strlen(ending) + 1;
    *out = malloc(room);
    KILN_REQUIRE(*out != NULL, err, KILN_ENOMEM, "tokenize: out of memory");
    snprintf(*out, room, "%.*s%s", (int)stem, name, ending);
    return KILN_OK;
}

/* What the reader of the text had to say. */
static void remarks(const struct kiln_tokenize_report *r) {
    if (r->answers + r->prompts > 0) {
        printf("chat: %" PRIu64 " tokens of answers count, %" PRIu64 " of prompts do not\n",
               r->answers, r->prompts);
    }
    if (r->bad_lines > 0) {
        printf("%" PRIu64 " lines left out, the first: %s\n", r->bad_lines, r->first_bad);
    }
    if (r->stray_bytes > 0) {
        printf("%" PRIu64 " bytes are not UTF-8; they were taken byte by byte\n", r->stray_bytes);
    }
}

static enum kiln_status report(const struct call *call, const struct kiln_tokenizer *tokenizer,
                               const char *vocabulary, const struct kiln_tokenize_report *said,
                               struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_token_file *file = NULL;
    KILN_TRY(kiln_token_file_open(flags->output, 0, &file, err));
    const size_t ids = kiln_token_file_count(file);
    const size_t documents = kiln_token_file_documents(file);
    const double bytes = (double)kiln_token_file_text_bytes(file);
    const size_t vocab = kiln_token_file_vocab(file);
    kiln_token_file_close(file);
    const char *name = vocabulary != NULL ? vocabulary : kiln_tokenizer_name(tokenizer);
    if (flags->json) {
        return json_print(
            json_pack("{s:s, s:I, s:I, s:I, s:f, s:s, s:I, s:I, s:I, s:I}", "output", flags->output,
                      "tokens", (json_int_t)ids, "documents", (json_int_t)documents, "vocab",
                      (json_int_t)vocab, "bytes_per_token", bytes / (double)ids, "tokenizer", name,
                      "bad_lines", (json_int_t)said->bad_lines, "stray_bytes",
                      (json_int_t)said->stray_bytes, "answers", (json_int_t)said->answers,
                      "prompts", (json_int_t)said->prompts),
            err);
    }
    printf("%s: %zu tokens in %zu documents, %.2f bytes a token; %zu ids of %s\n", flags->output,
           ids, documents, bytes / (double)ids, vocab, name);
    remarks(said);
    return output_finish(err);
}

/* The template that is named, or the one beside the tokenizer. */
static enum kiln_status open_chat(const struct kiln_settings *s, struct kiln_chat **out,
                                  struct kiln_err *err) {
    char folder[4300];
    *out = NULL;
    if (s->chat_template) {
        return kiln_chat_open(s->chat_template, out, err);
    }
    snprintf(folder, sizeof folder, "%s", s->tokenizer ? s->tokenizer : "");
    if (!kiln_chat_is_there(folder)) {
        char *slash = strrchr(folder, '/');
        snprintf(slash ? slash : folder, sizeof folder - (slash ? (size_t)(slash - folder) : 0),
                 "%s", slash ? "" : ".");
    }
    return s->tokenizer && kiln_chat_is_there(folder) ? kiln_chat_open(folder, out, err) : KILN_OK;
}

static enum kiln_status tokenize(const struct call *call, const struct kiln_tokenizer *tokenizer,
                                 const char *vocabulary, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_tokenize_report said = {.documents = 0};
    struct kiln_chat *chat;
    KILN_TRY(open_chat(&call->settings, &chat, err));
    const struct kiln_tokenize_options how = {.blank_lines = call->settings.blank_lines,
                                              .skip_bad = call->settings.skip_bad,
                                              .chat = chat,
                                              .report = &said};
    enum kiln_status status =
        vocabulary ? kiln_tokenizer_save(tokenizer, vocabulary, err) : KILN_OK;
    if (status == KILN_OK) {
        status = kiln_tokenize_file(tokenizer, call->arguments[0], flags->output, &how, err);
    }
    kiln_chat_close(chat);
    KILN_TRY(status);
    return report(call, tokenizer, vocabulary, &said, err);
}

static enum kiln_status with_learned(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_tokenizer *tokenizer = NULL;
    char *vocabulary = NULL;
    KILN_TRY(vocabulary_path(flags, &vocabulary, err));
    enum kiln_status status = refuse_existing(vocabulary, flags->force, err);
    if (status == KILN_OK) {
        status = learn(call->arguments[0], flags->train_bpe, &tokenizer, err);
    }
    if (status == KILN_OK) {
        status = tokenize(call, tokenizer, vocabulary, err);
    }
    kiln_tokenizer_destroy(tokenizer);
    free(vocabulary);
    return status;
}

static enum kiln_status with_given(const struct call *call, struct kiln_err *err) {
    const char *named = call->settings.tokenizer;
    struct kiln_tokenizer *tokenizer = NULL;
    const bool bytes = named == NULL || strcmp(named, "bytes") == 0;
    KILN_TRY(bytes ? kiln_tokenizer_bytes(&tokenizer, err)
                   : kiln_tokenizer_open(named, &tokenizer, err));
    const enum kiln_status status = tokenize(call, tokenizer, NULL, err);
    kiln_tokenizer_destroy(tokenizer);
    return status;
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const bool learns = flags->train_bpe != KILN_UNSET;
    KILN_REQUIRE(flags->output != NULL, err, KILN_EUSAGE,
                 "tokenize: -o is missing: name the token file to write, as -o text.tok");
    KILN_REQUIRE(!(learns && call->settings.tokenizer != NULL), err, KILN_EUSAGE,
                 "tokenize: --tokenizer and --train-bpe contradict each other; use one");
    KILN_REQUIRE(learns || flags->save == NULL, err, KILN_EUSAGE,
                 "tokenize: --save writes what --train-bpe learns; add --train-bpe N");
    KILN_TRY(refuse_existing(flags->output, flags->force, err));
    return learns ? with_learned(call, err) : with_given(call, err);
}

const struct command command_tokenize = {
    .name = "tokenize",
    .synopsis = "TEXT -o OUT.tok [options]",
    .summary = "turn a text file into token ids, learning a vocabulary if asked",
    .details =
        "<|endoftext|> separates documents. kiln train tokenizes by itself; this is for a\n"
        "vocabulary of your own, and for looking. TEXT may be compressed by gzip or zstd. In\n"
        "*.jsonl a line is {\"text\": ...} or a conversation, {\"messages\": [...]}, which a\n"
        "chat template writes: docs/data.md.\n\n"
        "  kiln tokenize book.txt -o book.tok --train-bpe 1024\n"
        "  kiln train --data book.txt --tokenizer book.tokenizer.bin\n",
    .least_arguments = 1,
    .most_arguments = 1,
    .missing = "name a text file: kiln tokenize TEXT -o OUT.tok",
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};

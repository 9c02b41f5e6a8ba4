/* SPDX-License-Identifier: MIT
 *
 * tokenize.c: kiln tokenize: a text file to a token file, with a vocabulary that is given, or
 * learned from texts; or nothing but the vocabulary.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "files.h"
#include "kiln/report.h"
#include "kiln/text.h"
#include "output.h"

struct flags {
    const char *out, *save;
    uint64_t train_bpe;
    bool force, json, ids, decode;
};

static const struct option options[] = {
    {"out", 'o', OPTION_TEXT, "OUT", NULL,
     "token file to write; named .json or .bin with --train-bpe: the vocabulary alone",
     GROUP_OUTPUT, 0, 0, offsetof(struct flags, out)},
    {"train-bpe", 0, OPTION_COUNT, "N", NULL, "learn a byte-pair vocabulary of N ids from the text",
     GROUP_VOCABULARY, 260, 1 << 20, offsetof(struct flags, train_bpe)},
    {"save", 0, OPTION_TEXT, "TOK.json", NULL,
     "where to write it (tokenizer.json; beside OUT.tok: OUT.tokenizer.json); .bin is llama2.c's",
     GROUP_VOCABULARY, 0, 0, offsetof(struct flags, save)},
    {"ids", 0, OPTION_SWITCH, NULL, NULL,
     "print the ids of the whole text, one a line, and write no file", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, ids)},
    {"decode", 0, OPTION_SWITCH, NULL, NULL, "TEXT holds ids; print what they stand for",
     GROUP_OUTPUT, 0, 0, offsetof(struct flags, decode)},
    {"force", 0, OPTION_SWITCH, NULL, NULL, "replace files that exist", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, force)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {KILN_SETTING_tokenizer, KILN_SETTING_blank_lines,
                                                KILN_SETTING_skip_bad, KILN_SETTING_chat_template,
                                                KILN_SETTING_threads};

/* What is written where. */
struct outputs {
    const char *ids;        /* NULL: no token file */
    const char *vocabulary; /* NULL: none is learned */
    char *made;             /* a name for it that was made up; heap */
};

static bool ends_with(const char *text, const char *ending) {
    const size_t n = strlen(text);
    const size_t m = strlen(ending);
    return n > m && strcmp(text + n - m, ending) == 0;
}

static bool names_vocabulary(const char *path) {
    return ends_with(path, ".json") || ends_with(path, ".bin");
}

/* ---- a vocabulary that is learned ----------------------------------------------------------- */

/* "OUT.tok" gives "OUT.tokenizer.json". Ids without their vocabulary are of no use, so one is kept
 * beside them in any case. */
static enum kiln_status name_beside(const char *ids, char **out, struct kiln_err *err) {
    const size_t stem = strlen(ids) - (ends_with(ids, ".tok") ? 4 : 0);
    const size_t room = stem + sizeof ".tokenizer.json";
    *out = malloc(room);
    KILN_REQUIRE(*out != NULL, err, KILN_ENOMEM, "tokenize: out of memory");
    snprintf(*out, room, "%.*s.tokenizer.json", (int)stem, ids);
    return KILN_OK;
}

static enum kiln_status name_outputs(const struct call *call, struct outputs *outputs,
                                     struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const bool alone = flags->out != NULL && names_vocabulary(flags->out);
    KILN_REQUIRE(flags->save == NULL || names_vocabulary(flags->save), err, KILN_EUSAGE,
                 "--save %s: name it .json (tokenizer.json) or .bin (llama2.c's tokenizer.bin)",
                 flags->save);
    KILN_REQUIRE(!alone || flags->save == NULL, err, KILN_EUSAGE,
                 "-o %s and --save %s both name the vocabulary; with --train-bpe -o names one, or "
                 "the token file, which is named neither .json nor .bin",
                 flags->out, flags->save);
    outputs->ids = alone ? NULL : flags->out;
    outputs->vocabulary = alone ? flags->out : flags->save != NULL ? flags->save : "tokenizer.json";
    KILN_REQUIRE(outputs->ids == NULL || call->n_arguments == 1, err, KILN_EUSAGE,
                 "-o %s takes the ids of one text, and %zu are named; learn with -o TOK.json, then "
                 "tokenize each with --tokenizer TOK.json",
                 outputs->ids, call->n_arguments);
    if (outputs->ids != NULL && flags->save == NULL) {
        KILN_TRY(name_beside(outputs->ids, &outputs->made, err));
        outputs->vocabulary = outputs->made;
    }
    KILN_TRY(refuse_existing(outputs->vocabulary, flags->force, err));
    return outputs->ids != NULL ? refuse_existing(outputs->ids, flags->force, err) : KILN_OK;
}

static enum kiln_status learn(const struct call *call, const char *vocabulary,
                              struct kiln_learned *facts, struct kiln_tokenizer **out,
                              struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const struct kiln_settings *s = &call->settings;
    const struct kiln_learn how = {
        .kind = ends_with(vocabulary, ".bin") ? KILN_LEARN_CHARACTERS : KILN_LEARN_BYTES,
        .vocab = flags->train_bpe,
        .threads = s->threads != KILN_UNSET ? s->threads : 0,
        .separator = "<|endoftext|>",
        .blank_lines = s->blank_lines,
    };
    struct kiln_learner *learner = NULL;
    KILN_TRY(kiln_learner_create(&how, &learner, err));
    enum kiln_status status = KILN_OK;
    for (size_t i = 0; status == KILN_OK && i < call->n_arguments; i++) {
        status = kiln_learner_add_file(learner, call->arguments[i], err);
    }
    if (status == KILN_OK) {
        status = kiln_learner_finish(learner, out, err);
    }
    *facts = *kiln_learner_facts(learner);
    kiln_learner_destroy(learner);
    return status;
}

static void print_learned(const char *vocabulary, const struct kiln_learned *facts, size_t ids) {
    char size[32];
    printf("%s: %zu ids, learned from %s of text, %.2f bytes a token\n", vocabulary, ids,
           kiln_human_bytes((double)facts->bytes, size, sizeof size),
           (double)facts->bytes / (double)facts->tokens);
    if (facts->encoding != NULL) {
        printf("  a text is %s; it was read as plain UTF-8\n", facts->encoding);
    }
    if (facts->not_utf8 > 0) {
        printf("  %" PRIu64 " bytes of it are not UTF-8; each is a token of its own\n",
               facts->not_utf8);
    }
    if (facts->left_out > 0) {
        printf("  %" PRIu64 " of its %" PRIu64 " words were not counted: they came after %" PRIu64
               " different ones\n",
               facts->left_out, facts->words, facts->different);
    }
}

static enum kiln_status report_learned(const struct call *call, const char *vocabulary,
                                       const struct kiln_learned *facts, size_t ids,
                                       struct kiln_err *err) {
    const struct flags *flags = call->flags;
    if (flags->json) {
        return json_print(
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f}", "tokenizer", vocabulary, "vocab",
                      (json_int_t)ids, "text_bytes", (json_int_t)facts->bytes, "words",
                      (json_int_t)facts->words, "words_left_out", (json_int_t)facts->left_out,
                      "bytes_not_utf8", (json_int_t)facts->not_utf8, "bytes_per_token",
                      (double)facts->bytes / (double)facts->tokens),
            err);
    }
    print_learned(vocabulary, facts, ids);
    return output_finish(err);
}

/* ---- a token file --------------------------------------------------------------------------- */

/* What the reader of the text had to say. */
static void remarks(const struct kiln_tokenize_report *r) {
    if (r->answers + r->prompts > 0) {
        printf("chat: %" PRIu64 " tokens of answers count, %" PRIu64 " of prompts do not\n",
               r->answers, r->prompts);
    }
    if (r->unanswered > 0) {
        printf("%" PRIu64 " of %" PRIu64
               " documents are conversations without an answer; nothing "
               "of them counts\n",
               r->unanswered, r->documents);
    }
    if (r->bad_lines > 0) {
        printf("%" PRIu64 " lines left out, the first: %s\n", r->bad_lines, r->first_bad);
    }
    if (r->encoding != NULL) {
        printf("the text is %s; it was read as plain UTF-8\n", r->encoding);
    }
    if (r->not_utf8 > 0) {
        printf("%" PRIu64 " bytes are not UTF-8; they were taken byte by byte\n", r->not_utf8);
    }
}

static enum kiln_status report_ids(const struct call *call, const char *name,
                                   const struct kiln_tokenize_report *said, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_token_file *file = NULL;
    KILN_TRY(kiln_token_file_open(flags->out, 0, &file, err));
    const size_t ids = kiln_token_file_count(file);
    const size_t documents = kiln_token_file_documents(file);
    const double bytes = (double)kiln_token_file_text_bytes(file);
    const size_t vocab = kiln_token_file_vocab(file);
    kiln_token_file_close(file);
    if (flags->json) {
        return json_print(
            json_pack("{s:s, s:I, s:I, s:I, s:f, s:s, s:I, s:I, s:I, s:I}", "output", flags->out,
                      "tokens", (json_int_t)ids, "documents", (json_int_t)documents, "vocab",
                      (json_int_t)vocab, "bytes_per_token", bytes / (double)ids, "tokenizer", name,
                      "bad_lines", (json_int_t)said->bad_lines, "bytes_not_utf8",
                      (json_int_t)said->not_utf8, "answers", (json_int_t)said->answers, "prompts",
                      (json_int_t)said->prompts),
            err);
    }
    printf("%s: %zu tokens in %zu documents, %.2f bytes a token; %zu ids of %s\n", flags->out, ids,
           documents, bytes / (double)ids, vocab, name);
    remarks(said);
    return output_finish(err);
}

static enum kiln_status write_ids(const struct call *call, const struct kiln_tokenizer *tokenizer,
                                  const char *name, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_tokenize_report said = {.documents = 0};
    const struct kiln_settings *s = &call->settings;
    struct kiln_chat *chat;
    KILN_TRY(kiln_chat_choose(s->chat_template, NULL, s->tokenizer, &chat, err));
    const struct kiln_tokenize_options how = {.blank_lines = call->settings.blank_lines,
                                              .skip_bad = call->settings.skip_bad,
                                              .chat = chat,
                                              .report = &said};
    const enum kiln_status status =
        kiln_tokenize_file(tokenizer, call->arguments[0], flags->out, &how, err);
    kiln_chat_close(chat);
    KILN_TRY(status);
    return report_ids(call, name, &said, err);
}

static enum kiln_status with_learned(const struct call *call, struct kiln_err *err) {
    struct outputs outputs = {0};
    struct kiln_learned facts;
    struct kiln_tokenizer *tokenizer = NULL;
    enum kiln_status status = name_outputs(call, &outputs, err);
    if (status == KILN_OK) {
        status = learn(call, outputs.vocabulary, &facts, &tokenizer, err);
    }
    if (status == KILN_OK) {
        status = kiln_tokenizer_save(tokenizer, outputs.vocabulary, err);
    }
    if (status == KILN_OK && outputs.ids != NULL) {
        status = write_ids(call, tokenizer, outputs.vocabulary, err);
    } else if (status == KILN_OK) {
        status =
            report_learned(call, outputs.vocabulary, &facts, kiln_tokenizer_vocab(tokenizer), err);
    }
    kiln_tokenizer_destroy(tokenizer);
    free(outputs.made);
    return status;
}

static enum kiln_status open_named(const char *named, struct kiln_tokenizer **out,
                                   struct kiln_err *err) {
    const bool bytes = named == NULL || strcmp(named, "bytes") == 0;
    return bytes ? kiln_tokenizer_bytes(out, err) : kiln_tokenizer_open(named, out, err);
}

/* With a vocabulary that is there: the token file, and with --save the vocabulary in another form.
 */
static enum kiln_status use_given(const struct call *call, const struct kiln_tokenizer *tokenizer,
                                  struct kiln_err *err) {
    const struct flags *flags = call->flags;
    if (flags->save != NULL) {
        KILN_TRY(kiln_tokenizer_save(tokenizer, flags->save, err));
    }
    return flags->out != NULL ? write_ids(call, tokenizer, kiln_tokenizer_name(tokenizer), err)
                              : KILN_OK;
}

static enum kiln_status with_given(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_tokenizer *tokenizer = NULL;
    KILN_REQUIRE(flags->out != NULL || flags->save != NULL, err, KILN_EUSAGE,
                 "tokenize: -o is missing: name the token file to write, as -o text.tok");
    KILN_REQUIRE(flags->out == NULL || call->n_arguments == 1, err, KILN_EUSAGE,
                 "-o %s takes the ids of one text, and %zu are named", flags->out,
                 call->n_arguments);
    if (flags->out != NULL) {
        KILN_TRY(refuse_existing(flags->out, flags->force, err));
    }
    if (flags->save != NULL) {
        KILN_TRY(refuse_existing(flags->save, flags->force, err));
    }
    KILN_TRY(open_named(call->settings.tokenizer, &tokenizer, err));
    const enum kiln_status status = use_given(call, tokenizer, err);
    kiln_tokenizer_destroy(tokenizer);
    return status;
}

/* ---- looking: ids on standard output, and back ---------------------------------------------- */

static enum kiln_status print_ids(const char *text, size_t size,
                                  const struct kiln_tokenizer *tokenizer, struct kiln_err *err) {
    struct kiln_ids ids = {0};
    enum kiln_status status = kiln_tokenizer_encode(tokenizer, text, size, false, &ids, err);
    for (size_t i = 0; status == KILN_OK && i < ids.n; i++) {
        printf("%" PRIu32 "\n", ids.id[i]);
    }
    kiln_ids_free(&ids);
    return status == KILN_OK ? output_finish(err) : status;
}

/* The text is taken as the beginning of a document. */
static enum kiln_status print_text(const struct call *call, const char *text,
                                   const struct kiln_tokenizer *tokenizer, struct kiln_err *err) {
    uint32_t previous = kiln_tokenizer_begin(tokenizer);
    const char *at = text;
    while (*(at += strspn(at, " \t\r\n,[]")) != '\0') {
        char *end;
        const unsigned long long id = strtoull(at, &end, 10);
        KILN_REQUIRE(end != at && id < kiln_tokenizer_vocab(tokenizer), err, KILN_EINPUT,
                     "%s: byte %zu: \"%.20s\" is no id below %zu", call->arguments[0],
                     (size_t)(at - text), at, kiln_tokenizer_vocab(tokenizer));
        size_t n;
        const char *piece = kiln_tokenizer_decode(tokenizer, previous, (uint32_t)id, &n);
        fwrite(piece, 1, n, stdout);
        previous = (uint32_t)id;
        at = end;
    }
    return output_finish(err);
}

static enum kiln_status look(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_tokenizer *tokenizer = NULL;
    char *text = NULL;
    size_t size = 0;
    KILN_REQUIRE(
        !(flags->ids && flags->decode) && flags->out == NULL && flags->train_bpe == KILN_UNSET, err,
        KILN_EUSAGE,
        "tokenize: --ids and --decode print and write no file: use one, "
        "without -o and --train-bpe");
    KILN_TRY(open_named(call->settings.tokenizer, &tokenizer, err));
    enum kiln_status status = read_whole(call->arguments[0], &text, &size, err);
    if (status == KILN_OK) {
        status = flags->ids ? print_ids(text, size, tokenizer, err)
                            : print_text(call, text, tokenizer, err);
    }
    free(text);
    kiln_tokenizer_destroy(tokenizer);
    return status;
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const bool learns = flags->train_bpe != KILN_UNSET;
    if (flags->ids || flags->decode) {
        return look(call, err);
    }
    KILN_REQUIRE(!(learns && call->settings.tokenizer != NULL), err, KILN_EUSAGE,
                 "tokenize: --tokenizer and --train-bpe contradict each other; use one");
    return learns ? with_learned(call, err) : with_given(call, err);
}

const struct command command_tokenize = {
    .name = "tokenize",
    .synopsis = "TEXT [-o OUT.tok] [--train-bpe N [TEXT...]] [options]",
    .summary = "turn a text file into token ids, or learn a vocabulary from texts",
    .details =
        "<|endoftext|> separates documents. kiln train tokenizes by itself; this is for a\n"
        "vocabulary of your own, and for looking. TEXT may be compressed by gzip or zstd. In\n"
        "*.jsonl a line is {\"text\": ...} or a conversation, {\"messages\": [...]}, which a\n"
        "chat template writes: docs/data.md. A vocabulary is byte-level BPE, written as\n"
        "tokenizer.json, or, where its name ends in .bin, one that llama2.c reads.\n\n"
        "  kiln tokenize --train-bpe 4096 book.txt more.txt     # tokenizer.json\n"
        "  kiln train --data book.txt --tokenizer tokenizer.json\n"
        "  kiln tokenize book.txt -o book.tok --train-bpe 1024  # and book.tokenizer.json\n",
    .least_arguments = 1,
    .most_arguments = MAX_ARGUMENTS,
    .missing = "name a text file: kiln tokenize TEXT -o OUT.tok",
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};

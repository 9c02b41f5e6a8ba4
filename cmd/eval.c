/* SPDX-License-Identifier: MIT
 *
 * eval.c: kiln eval: how well a model predicts a text.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "commands.h"
#include "dims.h"
#include "kiln/text.h"
#include "kiln/train.h"
#include "output.h"

struct flags {
    const char *tokenizer;
    uint64_t windows;
    bool json;
};

static const struct option options[] = {
    {"windows", 0, OPTION_COUNT, "N", "0", "most windows to read; 0 is all", GROUP_DATA, 0, 1e15,
     offsetof(struct flags, windows)},
    {"tokenizer", 0, OPTION_TEXT, "FILE", NULL,
     "tokenizer.json, .model, .gguf, .bin or a folder (the one of the run)", GROUP_MODEL, 0, 0,
     offsetof(struct flags, tokenizer)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {
    KILN_SETTING_data,     KILN_SETTING_batch,    KILN_SETTING_seq,          KILN_SETTING_precision,
    KILN_SETTING_threads,  KILN_SETTING_rms_eps,  KILN_SETTING_rope_theta,   KILN_SETTING_adapter,
    KILN_SETTING_skip_bad, KILN_SETTING_doc_mask, KILN_SETTING_chat_template};

static enum kiln_status print_result(const struct call *call, const struct kiln_model *model,
                                     const struct kiln_eval_result *r, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    if (r->notice[0] != '\0') {
        fprintf(stderr, "kiln: note: %s\n", r->notice);
    }
    if (flags->json) {
        return json_print(json_pack("{s:o, s:o, s:o, s:I}", "loss", json_number(r->loss),
                                    "perplexity", json_number(r->perplexity), "bits_per_byte",
                                    json_number(r->bits_per_byte), "tokens", (json_int_t)r->tokens),
                          err);
    }
    printf("%s on %s\n", model->name, call->settings.data);
    printf("  loss           %.4f nats a token\n", r->loss);
    printf("  perplexity     %.3f\n", r->perplexity);
    if (!isnan(r->bits_per_byte)) {
        printf("  bits per byte  %.4f\n", r->bits_per_byte);
    }
    printf("  tokens         %" PRIu64 "\n", r->tokens);
    return output_finish(err);
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct kiln_settings *s = &call->settings;
    const struct flags *flags = call->flags;
    struct kiln_eval_options how = {.data = s->data,
                                    .tokenizer = flags->tokenizer,
                                    .batch = s->batch,
                                    .seq = s->seq != KILN_UNSET ? s->seq : 0,
                                    .windows = flags->windows,
                                    .threads = s->threads != KILN_UNSET ? s->threads : 0,
                                    .skip_bad = s->skip_bad,
                                    .doc_mask = s->doc_mask};
    KILN_REQUIRE(s->data != NULL, err, KILN_EUSAGE,
                 "eval: --data is missing: name a text or token file");
    struct kiln_device_choice device;
    KILN_TRY(kiln_settings_device(s, &device, &how.precision, err));
    struct kiln_model model;
    struct kiln_eval_result result;
    struct kiln_chat *chat = NULL;
    KILN_TRY(model_open_as(s, call->arguments[0], s->seed, &model, err));
    enum kiln_status status =
        kiln_chat_choose(s->chat_template, call->arguments[0], flags->tokenizer, &chat, err);
    if (status == KILN_OK) {
        how.chat = chat;
        status = kiln_eval(&model, &how, &result, err);
    }
    if (status == KILN_OK) {
        status = print_result(call, &model, &result, err);
    }
    kiln_chat_close(chat);
    kiln_model_close(&model);
    return status;
}

static const struct offer offers[] = {{"", "%models"}, {"tokenizer", "bytes %files"}, {NULL, NULL}};

const struct command command_eval = {
    .name = "eval",
    .synopsis = "MODEL --data FILE [options]",
    .summary = "measure how well a model predicts a text",
    .details =
        "MODEL is a run folder, a Hugging Face folder, a .gguf, a llama2.c .bin or a preset\n"
        "(random weights).\n\n"
        "  kiln eval runs/demo/run --data held-out.txt\n",
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

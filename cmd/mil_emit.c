/* SPDX-License-Identifier: MIT
 *
 * mil_emit.c: kiln mil emit: the programs that kiln makes, to look at and to try elsewhere.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kiln/mil.h"
#include "mil.h"
#include "output.h"

#define LETTERS_AND_DIGITS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

struct flags {
    const char *kernel, *folder, *program, *opset;
    uint64_t layer, part;
    bool json;
};

static const struct option options[] = {
    {"layer", 0, OPTION_COUNT, "L", "0", "layer, from 0", GROUP_MODEL, 0, 1 << 16,
     offsetof(struct flags, layer)},
    {"kernel", 0, OPTION_TEXT, "K", NULL, "attn_fwd, ffn_fwd, ...: see below", GROUP_MODEL, 0, 0,
     offsetof(struct flags, kernel)},
    {"part", 0, OPTION_COUNT, "N", "0", "of the classifier, which is cut by rows", GROUP_MODEL, 0,
     1 << 16, offsetof(struct flags, part)},
    {"out", 'o', OPTION_TEXT, "DIR", NULL, "gets model.mil and weights/", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, folder)},
    {"program", 0, OPTION_TEXT, "V", "1.3", "version of the text (1.0 for M1 and M2)", GROUP_OUTPUT,
     0, 0, offsetof(struct flags, program)},
    {"opset", 0, OPTION_TEXT, "NAME", "ios18", "its operations (ios16 for M1 and M2)", GROUP_OUTPUT,
     0, 0, offsetof(struct flags, opset)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {
    KILN_SETTING_model, KILN_SETTING_seq,        KILN_SETTING_seed,        KILN_SETTING_doc_mask,
    KILN_SETTING_lora,  KILN_SETTING_lora_alpha, KILN_SETTING_lora_targets};

static enum kiln_status check_flags(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const char *model = call->settings.model;
    KILN_REQUIRE(model && model[0], err, KILN_EUSAGE,
                 "mil emit: name a model: --model stories15m, a .bin, a .gguf, a Hugging Face or a "
                 "run folder");
    KILN_REQUIRE(flags->kernel, err, KILN_EUSAGE,
                 "mil emit: name a kernel: --kernel attn_fwd (kiln mil emit --help lists them)");
    KILN_REQUIRE(flags->folder, err, KILN_EUSAGE, "mil emit: name a folder: -o DIR");
    const char *const texts[] = {flags->program, flags->opset};
    for (size_t i = 0; i < 2; i++) {
        const size_t length = strlen(texts[i]);
        const size_t fit = strspn(texts[i], i == 0 ? "0123456789." : LETTERS_AND_DIGITS);
        KILN_REQUIRE(length > 0 && length < 16 && fit == length, err, KILN_EUSAGE,
                     i == 0 ? "--program %s: use a number as 1.3, 1.0 or 1.5"
                            : "--opset %s: use a name as ios18, ios17 or ios16",
                     texts[i]);
    }
    return KILN_OK;
}

static enum kiln_status report(const struct flags *flags, const struct kiln_mil_emitted *e,
                               struct kiln_err *err) {
    if (flags->json) {
        return json_print(
            json_pack("{s:o, s:s, s:o, s:[I,I,I,I], s:[I,I,I,I], s:I, s:I, s:I}", "model",
                      json_bytes(e->model, strlen(e->model)), "kernel", e->label, "folder",
                      json_bytes(flags->folder, strlen(flags->folder)), "input", (json_int_t)1,
                      (json_int_t)e->input[0], (json_int_t)1, (json_int_t)e->input[1], "output",
                      (json_int_t)1, (json_int_t)e->output[0], (json_int_t)1,
                      (json_int_t)e->output[1], "text_bytes", (json_int_t)e->text_bytes, "files",
                      (json_int_t)e->n_files, "file_bytes", (json_int_t)e->file_bytes),
            err);
    }
    printf("%s/model.mil: %s of %s\n", flags->folder, e->label, e->model);
    printf("  input x [1, %zu, 1, %zu], output y [1, %zu, 1, %zu], fp16\n", e->input[0],
           e->input[1], e->output[0], e->output[1]);
    printf("  %zu bytes of text, %zu weight files with %zu bytes\n", e->text_bytes, e->n_files,
           e->file_bytes);
    return output_finish(err);
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const struct kiln_settings *s = &call->settings;
    KILN_TRY(check_flags(call, err));
    struct kiln_lora lora;
    KILN_TRY(kiln_settings_lora(s, &lora, err));
    const struct kiln_mil_emit request = {
        .model = s->model,
        .seed = s->seed,
        .kernel = flags->kernel,
        .layer = (size_t)flags->layer,
        .part = (size_t)flags->part,
        .seq = s->seq == KILN_UNSET ? 0 : (size_t)s->seq,
        .doc_mask = s->doc_mask,
        .lora = lora,
        .program = flags->program,
        .opset = flags->opset,
        .folder = flags->folder,
    };
    struct kiln_mil_emitted emitted;
    KILN_TRY(kiln_mil_emit(&request, &emitted, err));
    return report(flags, &emitted, err);
}

static const struct offer offers[] = {
    {"kernel",
     "attn_fwd ffn_fwd ffn_bwd attn_bwd1 qkv_bwd norm_bwd_attn norm_bwd_ffn final_norm classifier "
     "attn_bwd2 softmax sdpa_fwd wo_fwd ffn_fused ffn_bwd_w2 ffn_bwd_w13 wo_bwd sdpa_bwd1 "
     "sdpa_bwd2 "
     "q_bwd kv_bwd"},
    {"opset", "ios16 ios17 ios18"},
    {"program", "1.0 1.3"},
    {NULL, NULL}};

const struct command command_mil_emit = {
    .name = "mil emit",
    .synopsis = "--model M --layer L --kernel K -o DIR [options]",
    .summary = "write the MIL text and weight files of a model's kernel",
    .details =
        "Kernels with weights in the program: attn_fwd, ffn_fwd, ffn_bwd, attn_bwd1, qkv_bwd,\n"
        "norm_bwd_attn, norm_bwd_ffn of a layer; final_norm, classifier. Without: attn_bwd2, "
        "softmax.\n"
        "Kernels that get weights as inputs (--weight-mode dynamic): sdpa_fwd, wo_fwd, ffn_fused,\n"
        "ffn_bwd_w2, ffn_bwd_w13, wo_bwd, sdpa_bwd1, sdpa_bwd2, q_bwd, kv_bwd.\n\n"
        "With --doc-mask attention takes where documents begin, with --lora matrices take their\n"
        "adapters, as inputs behind the activations.\n\n"
        "  kiln mil emit --model stories15m --layer 3 --kernel attn_fwd -o attn && \\\n"
        "    kiln mil check attn/model.mil\n",
    .missing = "",
    .flags_size = sizeof(struct flags),
    .options = options,
    .offers = offers,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};

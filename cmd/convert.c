/* SPDX-License-Identifier: MIT
 *
 * convert.c: kiln convert: a run or a model file to a llama2.c .bin.
 */
#include <inttypes.h>
#include <stdio.h>

#include "commands.h"
#include "files.h"
#include "kiln/model.h"
#include "kiln/train.h"
#include "output.h"

struct flags {
    bool force, json;
};

static const struct option options[] = {
    {"force", 0, OPTION_SWITCH, NULL, NULL, "replace OUT.bin when it exists", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, force)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static enum kiln_status save(const struct call *call, const struct kiln_model *model,
                             struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const char *out = call->arguments[1];
    KILN_TRY(kiln_checkpoint_save_llama2c(out, model->table, model->weights, err));
    const size_t parameters = model->table->parameters;
    if (flags->json) {
        return json_print(json_pack("{s:s, s:s, s:s, s:I}", "from", model->name, "to", out,
                                    "format", "llama2.c", "parameters", (json_int_t)parameters),
                          err);
    }
    printf("%s: %zu parameters of %s, llama2.c format\n", out, parameters, model->name);
    return output_finish(err);
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const char *in = call->arguments[0];
    KILN_REQUIRE(kiln_preset_find(in) == NULL || file_exists(in), err, KILN_EUSAGE,
                 "convert %s: a preset has no weights to convert; name a run folder or a .bin", in);
    KILN_TRY(refuse_existing(call->arguments[1], flags->force, err));
    struct kiln_model model;
    KILN_TRY(kiln_model_open(in, call->settings.seed, &model, err));
    const enum kiln_status status = save(call, &model, err);
    kiln_model_close(&model);
    return status;
}

const struct command command_convert = {
    .name = "convert",
    .synopsis = "IN OUT.bin [--force]",
    .summary = "write a run or a model file as llama2.c .bin",
    .details =
        "IN is a run folder or a llama2.c .bin.\n\n"
        "  kiln convert runs/demo/run demo.bin\n",
    .least_arguments = 2,
    .most_arguments = 2,
    .missing = "name what to read and what to write: kiln convert RUN OUT.bin",
    .flags_size = sizeof(struct flags),
    .options = options,
    .run = run,
};

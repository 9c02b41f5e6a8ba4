/* SPDX-License-Identifier: MIT
 *
 * mil_emit.c: kiln mil emit.
 */
#include "mil.h"

static const struct option options[] = {OPTION_END};

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    return KILN_FAIL(err, KILN_EUNSUPPORTED, "%s: this build cannot do it yet; kiln mil check can",
                     call->command->name);
}

const struct command command_mil_emit = {
    .name = "mil emit",
    .synopsis = "",
    .summary = "write the programs of a model's layers",
    .details = "",
    .missing = "",
    .options = options,
    .run = run,
};

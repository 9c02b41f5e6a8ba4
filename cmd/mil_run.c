/* SPDX-License-Identifier: MIT
 *
 * mil_run.c: kiln mil run.
 */
#include "mil.h"

static const struct option options[] = {OPTION_END};

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    return KILN_FAIL(err, KILN_EUNSUPPORTED, "%s: this build cannot do it yet; kiln mil check can",
                     call->command->name);
}

const struct command command_mil_run = {
    .name = "mil run",
    .synopsis = "",
    .summary = "run a program on the simulated Neural Engine",
    .details = "",
    .missing = "",
    .options = options,
    .run = run,
};

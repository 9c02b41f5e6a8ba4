/* SPDX-License-Identifier: MIT
 *
 * run_json.h: run.json: every setting of a run; under "sizes" the sizes of its model, from which
 * the header of its state file can be told when it is damaged or gone; under "figures" what its
 * machine did in a second when it began, so that every process of the run makes the same plan;
 * under "forecast" what a run with --minutes was expected to reach; under "plan" what it was
 * planned to take, under "origins" where settings came from that are no defaults: for who looks at
 * the run, not read back here.
 */
#ifndef KILN_TRAIN_RUN_JSON_H
#define KILN_TRAIN_RUN_JSON_H

#include "kiln/choose.h"
#include "kiln/model.h"
#include "kiln/plan.h"
#include "kiln/settings.h"
#include "kiln/status.h"

/* What a run was planned to take. */
struct kiln_run_planned {
    struct kiln_memory memory;
    struct kiln_plan_time time;
};
/* planned NULL: as the file that is there says, or nothing. A setting that came from a file
 * (KILN_FROM_RUN) keeps the origin that the file that is there has for it. */
KILN_MUST_CHECK enum kiln_status kiln_run_json_write(
    const char *path, const struct kiln_settings *settings, const struct kiln_dims *dims,
    const struct kiln_profile *profile, const struct kiln_forecast *forecast,
    const struct kiln_run_planned *planned, struct kiln_err *err);
/* Settings get the origin KILN_FROM_RUN. forecast->bits is 0 when the file holds none. dims->dim is
 * 0 when the file holds no sizes, as those of older runs and of checkpoints; profile->tflops is 0
 * when it holds no profile. KILN_EINPUT names what is wrong. */
KILN_MUST_CHECK enum kiln_status kiln_run_json_read(
    const char *path, struct kiln_settings *settings, struct kiln_dims *dims,
    struct kiln_profile *profile, struct kiln_forecast *forecast, struct kiln_err *err);

#endif

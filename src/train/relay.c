/* SPDX-License-Identifier: MIT
 *
 * relay.c: what a run says and is told of a successor that starts early (kiln/train.h).
 */
#include <stdint.h>
#include <string.h>

#include "train/run_int.h"

void kiln_run_set_relay(struct kiln_run *run, const struct kiln_relay *relay) {
    run->trainer.relay = *relay;
}

/* Kernels that bake the weights are compiled again for every window: under a budget the process is
 * replaced sooner or later, inside windows or at their edge; in a delayed run without two sets at
 * every edge. */
bool kiln_run_relays(const struct kiln_run *run) {
    const struct kiln_schedule_plan *plan = &run->trainer.engine.plan.schedule;
    const bool wanted = plan->relay || strcmp(run->settings.restart, "relay") == 0;
    const bool ends = plan->limits.compile != SIZE_MAX || plan->overlap == KILN_OVERLAP_DELAYED;
    return wanted && ends && !plan->refreshes;
}

uint64_t kiln_run_owner_epoch(const struct kiln_run *run) {
    return kiln_state_cursor(run->trainer.state)->owner_epoch;
}

enum kiln_status kiln_run_epoch(int descriptor, uint64_t *epoch, struct kiln_err *err) {
    return kiln_state_epoch(descriptor, epoch, err);
}

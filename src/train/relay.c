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

bool kiln_run_relays(const struct kiln_run *run) { return run->trainer.engine.plan.schedule.relay; }

double kiln_run_ahead_since(const struct kiln_run *run) { return run->trainer.ahead_since; }

uint64_t kiln_run_owner_epoch(const struct kiln_run *run) {
    return kiln_state_cursor(run->trainer.state)->owner_epoch;
}

enum kiln_status kiln_run_epoch(int descriptor, uint64_t *epoch, struct kiln_err *err) {
    return kiln_state_epoch(descriptor, epoch, err);
}

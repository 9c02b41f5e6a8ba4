/* SPDX-License-Identifier: MIT
 *
 * fake_backend.c: what the fake classes compute with: the simulator, whose budgets are off, because
 * the fakes have their own.
 */
#include "base/pool.h"
#include "device/fake_int.h"
#include "device/sim/sim.h"

enum kiln_status fake_backend_open(struct kiln_npu_runtime **out, struct kiln_err *err) {
    static struct kiln_pool *pool; /* of the thread that evaluates; lives as long as the process */
    struct kiln_sim_options options;
    kiln_sim_options_default(&options);
    options.limits.value[KILN_SIM_COMPILE_BUDGET] = 0;
    options.limits.value[KILN_SIM_LOAD_BUDGET] = 0;
    KILN_TRY(kiln_pool_create(1, &pool, err));
    return kiln_sim_open(pool, &options, out, err);
}

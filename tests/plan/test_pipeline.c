/* SPDX-License-Identifier: MIT
 *
 * test_pipeline.c: stages in virtual time against what is known of 1F1B in closed form.
 */
#include <math.h>
#include <stdio.h>

#include "kiln_test.h"
#include "plan/plan_lab.h"
#include "plan/ranks.h"

enum { MOST = 8 };

static double run_alike(size_t stages, size_t micro_batches, double message) {
    struct kiln_stage_time times[MOST];
    struct kiln_err err;
    for (size_t s = 0; s < stages; s++) {
        times[s] = (struct kiln_stage_time){.forward_s = 1, .backward_s = 2};
    }
    CHECK_OK(kiln_pipeline_run(times, stages, micro_batches, message, &err), &err);
    for (size_t s = 1; s < stages; s++) { /* the last stage ends first */
        CHECK_CLOSE(times[s - 1].end_s, times[s].end_s + 2 + message, 1e-12);
    }
    return times[0].end_s;
}

TEST(stages_alike_take_the_time_of_p_minus_1_micro_batches_more) {
    for (size_t stages = 1; stages <= MOST; stages++) {
        for (size_t m = 1; m < 20; m++) {
            CHECK_CLOSE(run_alike(stages, m, 0), (double)(m + stages - 1) * 3, 1e-9);
        }
        /* Of one micro-batch all messages are waited for. */
        CHECK_CLOSE(run_alike(stages, 1, 0.5), (double)stages * 3 + 2 * 0.5 * (double)(stages - 1),
                    1e-9);
    }
}

TEST(the_slowest_stage_decides) {
    struct kiln_stage_time times[] = {{.forward_s = 1, .backward_s = 2},
                                      {.forward_s = 2, .backward_s = 4, .stall_s = 10},
                                      {.forward_s = 1, .backward_s = 2}};
    struct kiln_err err;
    CHECK_OK(kiln_pipeline_run(times, 3, 100, 0, &err), &err);
    CHECK(times[0].end_s >= 10 + 100 * 6.0);
    CHECK(times[0].end_s <= 10 + 100 * 6.0 + 4 * 3.0);
}

TEST(a_pipeline_is_planned_stage_by_stage) {
    struct kiln_plan_request r = plan_request("stories110m", KILN_SCHEDULE_SPLIT);
    r.accum = 16;
    r.profile = (struct kiln_profile){
        .tflops = 0.2, .compile_s = 0.01, .update_gb_s = 20, .restart_s = 0.05};
    struct kiln_estimate alone = estimate_of(&r);
    r.ranks = (struct kiln_plan_ranks){
        .ranks = 8, .link = {.latency_s = 1e-4, .bytes_per_s = 1e9}, .stages = 4};
    struct kiln_estimate e = estimate_of(&r);
    const struct kiln_pipeline_cost *c = &e.ranks.pipeline;
    CHECK(c->stages == 4 && c->replicas == 2 && c->layers == 3 && c->held == 4);
    CHECK_EQ(e.ranks.micro_batches, 8);
    CHECK(e.stage.stages == 4 && e.stage.number == c->slowest); /* told beside is what that does */
    CHECK_EQ(e.groups[0].end, 3);
    /* Each compiles its own layers. */
    CHECK(c->compiles < alone.compiles / 3 && c->restarts < alone.restarts / 2);
    CHECK(c->bubble_share > 0 && c->bubble_share < 1);
    CHECK_CLOSE(c->bytes_passed, 2.0 * 8 * (double)(r.batch * r.seq * r.dims.dim) * 4, 1);
    CHECK(e.ranks.step_s < alone.time.step);
    CHECK_CLOSE(e.ranks.speedup, alone.time.step / e.ranks.step_s, 1e-6 * e.ranks.speedup);
    kiln_estimate_free(&alone);
    kiln_estimate_free(&e);
}

/* SPDX-License-Identifier: MIT
 *
 * plan_ranks.c: what several ranks would take, as tables and as JSON.
 */
#include <math.h>
#include <stdio.h>

#include "kiln/report.h"
#include "output.h"
#include "plan.h"

/* Of a link that nobody has described. */
#define ASSUMED_GBIT 1.0
#define ASSUMED_MS   1.0

struct kiln_link plan_link(double gbit, double ms, const char **assumed) {
    const bool no_gbit = isnan(gbit), no_ms = isnan(ms);
    *assumed = no_gbit && no_ms ? "--link-gbit, --link-ms"
               : no_gbit        ? "--link-gbit"
               : no_ms          ? "--link-ms"
                                : NULL;
    return (struct kiln_link){.bytes_per_s = (no_gbit ? ASSUMED_GBIT : gbit) * 1e9 / 8,
                              .latency_s = (no_ms ? ASSUMED_MS : ms) * 1e-3};
}

static void print_head(const struct plan_shown *shown) {
    const struct kiln_plan_ranks *asked = &shown->request->ranks;
    printf("\nOver %zu rank%s, each with a link of %.6g Gbit/s and %.6g ms", asked->ranks,
           asked->ranks == 1 ? "" : "s", asked->link.bytes_per_s * 8e-9,
           asked->link.latency_s * 1e3);
    if (shown->link_assumed != NULL) {
        printf(" (assumed: %s)", shown->link_assumed);
    }
    printf("\n");
}

static void print_rank(const struct plan_shown *shown) {
    const struct kiln_ranks_cost *c = &shown->estimate->ranks;
    const size_t ranks = shown->request->ranks.ranks, accum = shown->request->accum;
    char all[32], spread[32];
    printf("  %-16s %zu of %zu micro-batches at most", "a rank", c->micro_batches, accum);
    if (ranks > accum) {
        printf("; train refuses more ranks than these: raise --accum");
    }
    printf("\n  %-16s %s a rank", "memory", kiln_human_bytes((double)c->memory, all, sizeof all));
    if (shown->request->spread > 1) {
        printf(", of weights and moments its part\n");
    } else {
        printf("; %s with --shard-optimizer\n",
               kiln_human_bytes((double)c->memory_sharded, spread, sizeof spread));
    }
}

static void print_sums(const struct plan_shown *shown) {
    const struct kiln_ranks_cost *c = &shown->estimate->ranks;
    const size_t steps = shown->request->ranks.local_steps;
    char sent[32];
    if (c->communication_s <= 0 && c->bytes_sent <= 0) {
        printf("  %-16s none\n", "sums");
        return;
    }
    printf("  %-16s %s sent by a rank a step (%s%s); %.3g s, %.0f %% behind the last backward\n",
           "sums", kiln_human_bytes(c->bytes_sent, sent, sizeof sent), kiln_allreduce_name(c->kind),
           shown->request->ranks.float_bytes == 2 ? ", bf16" : "", c->communication_s,
           100 * c->hidden_share);
    if (steps > 1) {
        printf("  %-16s every %zu local steps; %.3g s of each are for it, beside the sums\n",
               "outer step", steps, c->outer_s);
    }
}

static void print_step(const struct plan_shown *shown) {
    const struct kiln_ranks_cost *c = &shown->estimate->ranks;
    const size_t advised = c->local_steps_advised;
    printf("  %-16s %.3g s, %.3g s of it waiting for sums; %.4g tokens/s\n", "step", c->step_s,
           c->exposed_s, c->tokens_per_s);
    if (c->speedup > 0) {
        printf("  %-16s %.3g times as fast as one rank: efficiency %.2f\n", "speed-up", c->speedup,
               c->efficiency);
    }
    if (c->pipeline.stages > 0) {
        return;
    }
    printf("  %-16s ", "advice");
    if (advised == 1) {
        printf("plain steps wait for less than 5 %% of their time: sum every step\n");
    } else if (advised == 0) {
        printf("no number of local steps makes waiting less than 5 %%\n");
    } else {
        printf(
            "less than 5 %% of a step is waiting from --local-steps %zu on, which trains\n"
            "  %-16s otherwise than one rank would\n",
            advised, "");
    }
}

static void print_scaling(const struct plan_shown *shown) {
    const struct kiln_ranks_cost *c = &shown->estimate->ranks;
    const size_t accum = shown->request->accum;
    char shared[64], each[64];
    snprintf(shared, sizeof shared, "%zu micro-batches are shared", accum);
    snprintf(each, sizeof each, "each rank has %zu", accum);
    printf("\nScaling %40s %29s\n  ranks %13s %12s %13s %15s %13s\n", shared, each, "a rank",
           "step", "efficiency", "step", "efficiency");
    for (size_t i = 0; i < KILN_SCALES; i++) {
        const struct kiln_scale *s = &c->scaling[i];
        printf("  %5zu %13zu %10.4g s %13.3f %13.4g s %13.3f\n", s->ranks, s->micro_batches,
               s->step_s, s->strong_efficiency, s->weak_step_s, s->weak_efficiency);
    }
}

/* Nothing where there is none. */
static void print_pipeline(const struct plan_shown *shown) {
    const struct kiln_ranks_cost *r = &shown->estimate->ranks;
    const struct kiln_pipeline_cost *c = &r->pipeline;
    char bytes[32];
    if (c->stages == 0) {
        return;
    }
    printf("  %-16s %zu stages of %zu layers at most, each of %zu rank%s, in 1F1B order\n",
           "pipeline", c->stages, c->layers, c->replicas, c->replicas == 1 ? "" : "s");
    printf("  %-16s %zu micro-batches a step, at most %zu of them at once\n", "a stage",
           r->micro_batches, c->held);
    printf("  %-16s %.6g compiles, %.6g restarts at most, and %.3g s of waiting for them\n",
           "its window", c->compiles, c->restarts, c->stall_s);
    printf("  %-16s %s a rank at most\n", "memory",
           kiln_human_bytes((double)r->memory, bytes, sizeof bytes));
    printf(
        "  %-16s %.3g s of each micro-batch on stage %zu, the slowest; it waits %.0f %% of the "
        "time\n",
        "passes", c->micro_batch_s, c->slowest + 1, 100 * c->bubble_share);
    printf("  %-16s %s sent by a rank a step, at most\n", "activations",
           kiln_human_bytes(c->bytes_passed, bytes, sizeof bytes));
}

void plan_print_ranks(const struct plan_shown *shown) {
    const bool pipeline = shown->estimate->ranks.pipeline.stages > 0;
    print_head(shown);
    if (!pipeline) {
        print_rank(shown);
    }
    print_pipeline(shown);
    print_sums(shown);
    print_step(shown);
    if (!pipeline) {
        print_scaling(shown);
    }
}

static json_t *scaling_json(const struct kiln_ranks_cost *c) {
    json_t *list = json_array();
    for (size_t i = 0; i < KILN_SCALES; i++) {
        const struct kiln_scale *s = &c->scaling[i];
        json_array_append_new(
            list, json_pack("{s:I, s:I, s:o, s:o, s:o, s:o}", "ranks", (json_int_t)s->ranks,
                            "micro_batches", (json_int_t)s->micro_batches, "weak_efficiency",
                            json_number(s->weak_efficiency), "strong_efficiency",
                            json_number(s->strong_efficiency), "step_s", json_number(s->step_s),
                            "weak_step_s", json_number(s->weak_step_s)));
    }
    return list;
}

static json_t *pipeline_json(const struct kiln_pipeline_cost *c) {
    if (c->stages == 0) {
        return json_null();
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "stages",
                     (json_int_t)c->stages, "replicas", (json_int_t)c->replicas, "layers",
                     (json_int_t)c->layers, "held", (json_int_t)c->held, "slowest_stage",
                     (json_int_t)c->slowest, "micro_batch_s", json_number(c->micro_batch_s),
                     "compiles", json_number(c->compiles), "restarts", json_number(c->restarts),
                     "stall_s", json_number(c->stall_s), "bubble_share",
                     json_number(c->bubble_share), "bytes_passed", json_number(c->bytes_passed));
}

json_t *plan_ranks_json(const struct plan_shown *shown) {
    const struct kiln_plan_ranks *asked = &shown->request->ranks;
    const struct kiln_ranks_cost *c = &shown->estimate->ranks;
    return json_pack(
        "{s:I, s:{s:o, s:o, s:b}, s:I, s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, "
        "s:I, s:I, s:s, s:o, s:o}",
        "ranks", (json_int_t)asked->ranks, "link", "gbit",
        json_number(asked->link.bytes_per_s * 8e-9), "ms", json_number(asked->link.latency_s * 1e3),
        "assumed", shown->link_assumed != NULL, "local_steps", (json_int_t)asked->local_steps,
        "micro_batches", (json_int_t)c->micro_batches, "sum", kiln_allreduce_name(c->kind),
        "bytes_sent", json_number(c->bytes_sent), "communication_s",
        json_number(c->communication_s), "hidden_share", json_number(c->hidden_share), "exposed_s",
        json_number(c->exposed_s), "outer_s", json_number(c->outer_s), "step_s",
        json_number(c->step_s), "tokens_per_s", json_number(c->tokens_per_s), "speedup",
        json_number(c->speedup), "efficiency", json_number(c->efficiency), "memory_bytes",
        (json_int_t)c->memory, "memory_sharded_bytes", (json_int_t)c->memory_sharded,
        "local_steps_advised", (json_int_t)c->local_steps_advised, "reduce_precision",
        asked->float_bytes == 2 ? "bf16" : "fp32", "scaling",
        c->pipeline.stages > 0 ? json_null() : scaling_json(c), "pipeline",
        pipeline_json(&c->pipeline));
}

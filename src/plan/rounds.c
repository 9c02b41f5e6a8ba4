/* SPDX-License-Identifier: MIT
 *
 * rounds.c: rounds in which compiling hides.
 *
 * Where micro-batches follow each other, the first one waits for every kernel of the window, and
 * only its own passes lie between. Held together they go through the first layers while the next
 * ones compile, and no bit depends on that. What it takes is memory for what is held. So windows
 * are simulated with groups cut small and with more or fewer micro-batches held; a plan that is
 * less than 1 % faster is not worth its memory.
 *
 * A window that is compiled once may hold any number: only its first round compiles. Where it takes
 * several processes, as many are held as fit already, and groups are cut inside their process.
 */
#include "plan/plan.h"

/* Times within so much of each other: the one that takes less memory. */
#define ALIKE 0.005
#define WORTH 0.01

struct choice {
    size_t held, cut;
    struct kiln_cost cost;
    double step;
    uint64_t bytes;
};

struct search {
    const struct kiln_table *table;
    struct kiln_plan *plan;
    double compiles, restarts; /* of the plan as it was; they may not grow */
    double fastest;
    struct choice at_first, best;
};

static struct choice choice_of(const struct kiln_plan *plan) {
    return (struct choice){plan->schedule.held, plan->cut, plan->cost, kiln_plan_seconds(plan).step,
                           plan->memory.total};
}

/* Plans where something compiles in windows that repeat, while somebody could compute. */
static bool may_hide(const struct kiln_plan *plan) {
    const struct kiln_schedule_plan *s = &plan->schedule;
    const bool overlaps = s->overlap == KILN_OVERLAP_EXACT ||
                          (s->overlap == KILN_OVERLAP_DELAYED && plan->two_sets && !s->relay);
    return overlaps && plan->request->stage.stages <= 1 && !s->refreshes && !s->limits.whole &&
           !plan->request->forward_only && plan->accum > 1 && plan->cost.stall_s > 0 &&
           kiln_plan_fits(plan);
}

/* No rounds are faster: the device has its passes and the update to do, and without a relay one
 * kernel is compiled after the other. */
static double least_seconds(const struct kiln_plan *plan) {
    const struct kiln_schedule_plan *s = &plan->schedule;
    const struct kiln_rates r = kiln_plan_rates(plan);
    double micro_batch = r.head + r.host_head;
    for (size_t l = 0; l < s->layers; l++) {
        micro_batch += r.backward + (s->keep[l] == KILN_FULL ? 1 : 2) * r.forward;
    }
    const double disk = kiln_plan_seconds(plan).compute - plan->cost.compute_s;
    const double passes = micro_batch * (double)plan->accum + disk; /* and the update */
    const bool serial = !s->relay && s->overlap == KILN_OVERLAP_EXACT;
    return serial && plan->cost.compile_s > passes ? plan->cost.compile_s : passes;
}

/* As many as a window has and the memory holds without pushing the state out of it. */
static size_t most_held(const struct kiln_plan *plan) {
    const uint64_t memory = plan->request->memory;
    if (plan->request->gradients_beside > 0) {
        return 1;
    }
    if (!plan->schedule.one_batch) {
        return plan->schedule.held;
    }
    const uint64_t room = memory > plan->memory.total ? memory - plan->memory.total : 0;
    const uint64_t more = room / plan->layout.micro_batch;
    return memory == 0 || more + 1 > plan->accum ? plan->accum : (size_t)more + 1;
}

/* Simulate; the better one of it and the best so far is remembered. Returns its time. */
static enum kiln_status consider(struct search *s, size_t held, size_t cut, double *step,
                                 struct kiln_err *err) {
    KILN_TRY(kiln_plan_hold(s->table, s->plan, held, cut, NULL, err));
    const struct choice c = choice_of(s->plan);
    const bool allowed = s->plan->cost.compiles <= s->compiles &&
                         s->plan->cost.restarts <= s->restarts && kiln_plan_fits(s->plan);
    *step = c.step;
    if (!allowed || c.step > s->at_first.step * (1 - WORTH)) {
        return KILN_OK;
    }
    const bool smaller = c.bytes < s->best.bytes && c.step < s->fastest * (1 + ALIKE);
    if (smaller || c.step < s->fastest * (1 - ALIKE)) {
        s->best = c;
    }
    s->fastest = c.step < s->fastest ? c.step : s->fastest;
    return KILN_OK;
}

/* Fewer and fewer held: in a window that is compiled once, only the first round hides compiles. */
static enum kiln_status fewer(struct search *s, size_t most, size_t cut, struct kiln_err *err) {
    double step;
    for (size_t held = most; held > 1; held = (held + 1) / 2) {
        KILN_TRY(consider(s, held, cut, &step, err));
        if (!s->plan->schedule.one_batch || step > s->best.step * (1 + WORTH) || held == 2) {
            break;
        }
    }
    return KILN_OK;
}

enum kiln_status kiln_plan_hide(const struct kiln_table *table, struct kiln_plan *plan,
                                double worth, struct kiln_err *err) {
    if (!may_hide(plan) || least_seconds(plan) > worth) {
        return KILN_OK;
    }
    struct search s = {.table = table,
                       .plan = plan,
                       .compiles = plan->cost.compiles,
                       .restarts = plan->cost.restarts,
                       .at_first = choice_of(plan),
                       .best = choice_of(plan),
                       .fastest = choice_of(plan).step};
    const size_t most = most_held(plan), quarter = (plan->schedule.layers + 3) / 4;
    if (quarter > 1) {
        KILN_TRY(fewer(&s, most, quarter, err));
    }
    if (quarter == 1 || s.fastest < s.at_first.step) { /* else it is not worth the time */
        KILN_TRY(fewer(&s, most, 1, err));
    }
    if (plan->schedule.one_batch) {
        KILN_TRY(fewer(&s, most, 0, err));
    }
    return kiln_plan_hold(table, plan, s.best.held, s.best.cut, &s.best.cost, err);
}

/* SPDX-License-Identifier: MIT
 *
 * plan.c: from a request to a plan that can be carried out.
 */
#include "plan/plan.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

void kiln_plan_close(struct kiln_plan *plan) {
    kiln_free(plan->schedule.groups.at);
    kiln_free(plan->keep_of);
    kiln_free(plan->layout.kept_at);
    memset(plan, 0, sizeof *plan);
}

/* What the disk adds to so much computing. Writing goes on beside it. Of what is read, the system
 * finds in its cache what fits there beside our own memory; a file that is walked from end to end
 * and is larger than the cache finds the less the larger it is. */
static double disk_seconds(const struct kiln_plan *plan, double computing) {
    const struct kiln_profile *f = &plan->request->profile;
    if (plan->disk_written == 0 || f->disk_write_gb_s <= 0 || f->disk_read_gb_s <= 0) {
        return 0;
    }
    const double file = (double)plan->memory.state_file;
    const double cache = f->cache_gb * 1e9 - (double)plan->memory.total;
    double missed = 2 * (file - cache) / file;
    missed = missed < 0 ? 0 : missed > 1 ? 1 : missed;
    const double writing = (double)plan->disk_written * 1e-9 / f->disk_write_gb_s;
    const double walking = f->walk_gb_s > 0 ? (double)plan->walked * 1e-9 / f->walk_gb_s : 0;
    const double waiting = writing > computing + walking ? writing - computing - walking : 0;
    return walking + waiting + missed * (double)plan->disk_read * 1e-9 / f->disk_read_gb_s;
}

/* ---- stages -----------------------------------------------------------------------------------
 */

size_t kiln_stage_first(size_t layers, size_t stages, size_t number) {
    return number * layers / stages;
}

bool kiln_stage_embeds(const struct kiln_plan_request *r) { return r->stage.number == 0; }

bool kiln_stage_classifies(const struct kiln_plan_request *r) {
    return r->stage.number + 1 >= r->stage.stages;
}

void kiln_stage_choose(struct kiln_plan_request *r, size_t stages, size_t number) {
    const size_t layers = r->dims.layers;
    r->stage = (struct kiln_plan_stage){.stages = stages, .number = number, .layers = layers};
    r->dims.layers =
        kiln_stage_first(layers, stages, number + 1) - kiln_stage_first(layers, stages, number);
}

static bool is_stage(const struct kiln_plan_request *r) { return r->stage.stages > 1; }

/* Layers of the model, all of which are updated everywhere. */
static size_t model_layers(const struct kiln_plan_request *r) {
    return is_stage(r) ? r->stage.layers : r->dims.layers;
}

/* W, m, v are read and written, the gradients read twice; packed weights where they are taken in
 * place. */
static void update_bytes(const struct kiln_table *table, struct kiln_plan *plan) {
    const double weights = (double)(kiln_trained_size(table) * sizeof(float));
    const double embedding = (double)(table->dims.vocab * table->dims.dim * sizeof(float));
    const double gradients = weights + (table->dims.tied ? embedding : 0);
    const double layers = (double)table->dims.layers;
    const double others = (double)(model_layers(plan->request) - table->dims.layers);
    struct kiln_update_bytes *u = &plan->update;
    if (table->trained > 0) { /* no packed weight changes */
        *u = (struct kiln_update_bytes){.norm = weights, .rest = 7 * weights};
        return;
    }
    const double all = 6 * weights + gradients;
    const double packed =
        plan->schedule.refreshes ? (double)(plan->sizes.forward + plan->sizes.backward) : 0;
    u->norm = gradients;
    u->layer = all * (double)table->narrow / (double)table->size / (layers + others);
    u->rest = all - u->layer * layers + (plan->schedule.refreshes ? (double)plan->sizes.head : 0);
    u->layer += packed;
    const enum kiln_precision snapshots = kiln_plan_snapshots(plan->request);
    if (snapshots != KILN_PRECISION_AUTO) {
        u->snapshot = weights + (double)kiln_snapshot_bytes(table, snapshots);
    }
}

struct kiln_plan_time kiln_plan_seconds(const struct kiln_plan *plan) {
    const struct kiln_cost *c = &plan->cost;
    struct kiln_plan_time t = {.compile = c->compile_s,
                               .compute = c->compute_s + c->update_s,
                               .stall = c->stall_s,
                               .restart = c->restart_s};
    if (!plan->request->forward_only) {
        t.compute += disk_seconds(plan, t.compute);
    }
    t.step = t.compute + t.stall + t.restart;
    return t;
}

bool kiln_plan_fits(const struct kiln_plan *plan) {
    return plan->request->memory == 0 || plan->least <= plan->request->memory;
}

/* Groups as large as they may be, or cut, backward ones filled as plan->joined says. */
static void make_groups(struct kiln_plan *plan, size_t cut) {
    struct kiln_schedule_plan *s = &plan->schedule;
    kiln_groups_forward(&s->limits, &s->groups);
    kiln_groups_backward(&s->limits, s->keep, plan->joined, &s->groups);
    if (cut > 0) {
        kiln_groups_cut(&s->limits, s->keep, cut, &s->groups);
    }
}

/* Simulated with backward groups filled from a fresh process, and with a first group that shares
 * the process of the last forward group; the one with fewer compiles, then restarts, stays. */
static enum kiln_status choose_groups(struct kiln_plan *plan, struct kiln_err *err) {
    const struct kiln_schedule_plan *s = &plan->schedule;
    plan->joined = false;
    make_groups(plan, 0);
    KILN_TRY(kiln_simulate(plan, NULL, err));
    if (s->limits.whole || s->one_batch || s->limits.compile == SIZE_MAX) {
        return KILN_OK;
    }
    const struct kiln_cost fresh = plan->cost;
    plan->joined = true;
    make_groups(plan, 0);
    KILN_TRY(kiln_simulate(plan, NULL, err));
    plan->joined = plan->cost.compiles < fresh.compiles ||
                   (plan->cost.compiles == fresh.compiles && plan->cost.restarts < fresh.restarts);
    if (!plan->joined) {
        make_groups(plan, 0);
        plan->cost = fresh;
    }
    return KILN_OK;
}

enum kiln_status kiln_plan_hold(const struct kiln_table *table, struct kiln_plan *plan, size_t held,
                                size_t layers, const struct kiln_cost *known,
                                struct kiln_err *err) {
    plan->schedule.held = held;
    plan->cut = layers;
    kiln_free(plan->layout.kept_at);
    plan->layout.kept_at = NULL;
    if (known == NULL && layers == 0) {
        KILN_TRY(choose_groups(plan, err));
    } else {
        make_groups(plan, layers);
        KILN_TRY(known == NULL ? kiln_simulate(plan, NULL, err) : KILN_OK);
        plan->cost = known != NULL ? *known : plan->cost;
    }
    KILN_TRY(kiln_layout_make(plan, err));
    kiln_memory_make(table, plan);
    return KILN_OK;
}

/* New weights are inputs, or they are taken in place where there is no budget; with two sets they
 * are compiled. Those beside which adapters are trained never change. */
static bool refreshes(const struct kiln_plan_request *r) {
    return r->device.dynamic || r->lora.rank > 0 ||
           (r->refreshes && r->budget == 0 && r->load_budget == 0 &&
            r->overlap != KILN_OVERLAP_DELAYED);
}

static bool delayed(const struct kiln_plan_request *r) {
    return r->overlap == KILN_OVERLAP_DELAYED && !r->forward_only;
}

enum kiln_precision kiln_plan_snapshots(const struct kiln_plan_request *r) {
    return !delayed(r)                ? KILN_PRECISION_AUTO
           : r->device.id == KILN_CPU ? kiln_precision_resolve(r->precision)
                                      : KILN_PRECISION_FP16;
}

struct kiln_device_options kiln_plan_device(const struct kiln_plan_request *r) {
    return (struct kiln_device_options){.device = r->device,
                                        .shape = {r->batch, r->seq},
                                        .precision = r->precision,
                                        .training = !r->forward_only,
                                        .budget = r->budget,
                                        .load_budget = r->load_budget,
                                        .doc_mask = r->doc_mask,
                                        .no_head = !kiln_stage_classifies(r),
                                        .two_sets = delayed(r),
                                        .beside = r->overlap != KILN_OVERLAP_OFF && !refreshes(r)};
}

/* DELAYED computes with one set while another is compiled: beside it in the process, or in the next
 * one. */
static enum kiln_status choose_relay(struct kiln_plan *plan, struct kiln_err *err) {
    const struct kiln_plan_request *r = plan->request;
    struct kiln_schedule_plan *s = &plan->schedule;
    const bool ends = s->limits.compile != SIZE_MAX || delayed(r); /* is the process replaced? */
    s->relay = r->restart == KILN_RESTART_RELAY && ends && !s->refreshes;
    plan->kernels_two = kiln_two_sets_kernels(&s->limits);
    plan->two_sets = delayed(r) && kiln_two_sets(&s->limits);
    if (!delayed(r)) {
        return KILN_OK;
    }
    KILN_REQUIRE(!r->device.dynamic, err, KILN_EUSAGE,
                 "--overlap delayed: with --weight-mode dynamic no window compiles, and there is "
                 "nothing to hide; use --overlap exact");
    KILN_REQUIRE(r->lora.rank == 0, err, KILN_EUSAGE,
                 "--overlap delayed: with --lora no kernel is compiled again, and there is nothing "
                 "to hide; use --overlap exact");
    const bool fits = plan->kernels_two <= s->limits.group;
    KILN_REQUIRE(fits || s->relay || !r->restart_asked, err, KILN_EUSAGE,
                 "--overlap delayed --restart exec: two kernel sets take %zu kernels in a process "
                 "and %zu may be used; use --restart relay, or raise --budget and --load-budget",
                 plan->kernels_two, s->limits.group);
    if (!plan->two_sets && !s->relay && !r->restart_asked) {
        s->relay = true;
        plan->restart_why =
            fits ? "windows are compiled group by group" : "two kernel sets do not fit a process";
    }
    return KILN_OK;
}

/* A layer that is recomputed shares a process with its backward kernels. */
static enum kiln_status check_recompute(const struct kiln_plan *plan, struct kiln_err *err) {
    const struct kiln_limits *limits = &plan->schedule.limits;
    const size_t layers = plan->schedule.layers;
    const bool last = plan->schedule.keep[layers - 1] != KILN_FULL;
    const size_t need = kiln_all_kernels(limits, 0, 1) + (last && layers > 1 ? limits->head : 0);
    bool all = true;
    for (size_t l = 0; l < layers; l++) {
        all &= plan->schedule.keep[l] == KILN_FULL;
    }
    KILN_REQUIRE(all || plan->request->forward_only || limits->group >= need, err, KILN_EBUDGET,
                 "recomputing a layer takes %zu kernels in one process and %zu may be used; raise "
                 "--budget, or keep everything: --activations all",
                 need, limits->group);
    return KILN_OK;
}

static enum kiln_status make(const struct kiln_table *table, const unsigned char *keep,
                             struct kiln_plan *plan, struct kiln_err *err) {
    const struct kiln_plan_request *r = plan->request;
    struct kiln_schedule_plan *s = &plan->schedule;
    const size_t layers = table->dims.layers;
    s->limits = kiln_limits_of(r);
    s->layers = layers;
    s->refreshes = refreshes(r);
    s->overlap = r->overlap;
    s->lead = is_stage(r) && !r->forward_only ? r->stage.stages - r->stage.number - 1 : 0;
    s->lead = s->lead < r->accum || r->accum == 0 ? s->lead : r->accum - 1;
    KILN_TRY(kiln_limits_check(r, &s->limits, err));
    KILN_TRY(choose_relay(plan, err));
    const struct kiln_device_options device = kiln_plan_device(r);
    KILN_TRY(kiln_device_sizes(table, &device, &plan->sizes, err));
    kiln_device_traffic(table, &device, &plan->traffic);
    update_bytes(table, plan);
    s->groups.at = kiln_alloc(kiln_groups_room(layers), sizeof *s->groups.at);
    s->keep = plan->keep_of = kiln_alloc(layers, 1);
    KILN_REQUIRE(s->groups.at && plan->keep_of, err, KILN_ENOMEM,
                 "planning %zu layers: out of memory", layers);
    memcpy(plan->keep_of, keep, layers);
    KILN_TRY(check_recompute(plan, err));
    s->one_batch = kiln_one_batch(&s->limits);
    kiln_groups_forward(&s->limits, &s->groups);
    kiln_keep_cut(&s->limits, &s->groups, plan->keep_of);
    KILN_TRY(kiln_plan_hold(table, plan, 1, 0, NULL, err));
    /* More than one compile batch: more micro-batches at a time mean fewer compiles. */
    size_t held =
        s->one_batch || s->limits.whole || r->forward_only || is_stage(r) || r->gradients_beside > 0
            ? 1
            : r->accum;
    if (held > 1 && r->memory > 0) {
        const uint64_t room = r->memory > plan->least ? r->memory - plan->least : 0;
        const uint64_t more = room / plan->layout.micro_batch;
        held = more + 1 < held ? (size_t)more + 1 : held;
    }
    return held == 1 ? KILN_OK : kiln_plan_hold(table, plan, held, 0, NULL, err);
}

enum kiln_status kiln_plan_layers(const struct kiln_table *table,
                                  const struct kiln_plan_request *request,
                                  const unsigned char *keep, double worth, struct kiln_plan *out,
                                  struct kiln_err *err) {
    *out = (struct kiln_plan){
        .request = request,
        .shape = {request->batch, request->seq},
        .accum = request->accum,
        .keep = request->keep,
        .flops = kiln_plan_flops(&request->dims, request->batch, request->seq),
    };
    if (!kiln_stage_classifies(request)) {
        out->flops.total -= out->flops.classifier;
        out->flops.host -= out->flops.classifier;
        out->flops.classifier = 0;
    }
    if (table->trained > 0) {
        kiln_plan_flops_lora(table, request->batch * request->seq, &out->flops);
    }
    if (request->device.extras) { /* the classifier's way forward, too */
        out->flops.device += out->flops.classifier / 3;
        out->flops.host -= out->flops.classifier / 3;
    }
    enum kiln_status status = make(table, keep, out, err);
    if (status == KILN_OK) {
        status = kiln_plan_hide(table, out, worth, err);
    }
    if (status != KILN_OK) {
        kiln_plan_close(out);
    }
    return status;
}

/* ---- policies ---------------------------------------------------------------------------------
 */

enum kiln_status kiln_plan_policy(const struct kiln_table *table,
                                  const struct kiln_plan_request *request, struct kiln_keep policy,
                                  struct kiln_plan *out, struct kiln_err *err) {
    const struct kiln_limits limits = kiln_limits_of(request);
    const size_t layers = table->dims.layers;
    struct kiln_groups forward = {0};
    KILN_TRY(kiln_limits_check(request, &limits, err));
    forward.at = kiln_alloc(kiln_groups_room(layers), sizeof *forward.at);
    unsigned char *keep = kiln_alloc(layers, 1);
    enum kiln_status status = KILN_OK;
    if (forward.at != NULL && keep != NULL) {
        kiln_groups_forward(&limits, &forward);
        kiln_keep_layers(policy, layers, &forward, keep);
        status = kiln_plan_layers(table, request, keep, (double)INFINITY, out, err);
        out->keep = policy;
    } else {
        status = KILN_FAIL(err, KILN_ENOMEM, "planning %zu layers: out of memory", layers);
    }
    kiln_free(forward.at);
    kiln_free(keep);
    return status;
}

static enum kiln_status too_small(const struct kiln_plan_request *request, struct kiln_keep keep,
                                  uint64_t needs, uint64_t smallest, struct kiln_err *err) {
    char name[32];
    return KILN_FAIL(err, KILN_ENOMEM,
                     "--activations %s needs %" PRIu64 " bytes and --memory is %" PRIu64
                     "; the smallest plan needs %" PRIu64
                     "; lower --batch or --seq, or raise --memory",
                     kiln_keep_name(keep, name), needs, request->memory, smallest);
}

/* The fewest bytes that any plan needs: those of the smallest policy. */
static enum kiln_status smallest_of(const struct kiln_table *table,
                                    const struct kiln_plan_request *request, uint64_t *out,
                                    struct kiln_err *err) {
    static const struct kiln_keep small[] = {
        {KILN_KEEP_ALL, 0}, {KILN_KEEP_SQRT, 0}, {KILN_KEEP_INPUTS, 0}, {KILN_KEEP_NONE, 0}};
    *out = UINT64_MAX;
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
        struct kiln_plan plan;
        const enum kiln_status status = kiln_plan_policy(table, request, small[i], &plan, err);
        if (status == KILN_EBUDGET && i > 0) {
            continue;
        }
        KILN_TRY(status);
        *out = plan.least < *out ? plan.least : *out;
        kiln_plan_close(&plan);
    }
    return KILN_OK;
}

enum kiln_status kiln_plan_open(const struct kiln_table *table,
                                const struct kiln_plan_request *request, struct kiln_plan *out,
                                struct kiln_err *err) {
    uint64_t needs = 0, smallest = 0;
    if (request->keep.kind == KILN_KEEP_AUTO && !request->forward_only) {
        bool found = false;
        KILN_TRY(kiln_plan_auto(table, request, out, &found, err));
        if (found) {
            return KILN_OK;
        }
        KILN_TRY(smallest_of(table, request, &smallest, err));
        return too_small(request, request->keep, smallest, smallest, err);
    }
    const struct kiln_keep nothing = {KILN_KEEP_NONE, 0};
    KILN_TRY(kiln_plan_policy(table, request, request->forward_only ? nothing : request->keep, out,
                              err));
    if (kiln_plan_fits(out)) {
        return KILN_OK;
    }
    needs = out->least;
    kiln_plan_close(out);
    KILN_TRY(smallest_of(table, request, &smallest, err));
    return too_small(request, request->keep, needs, smallest, err);
}

struct kiln_plan_request kiln_plan_simple(const struct kiln_table *table,
                                          const struct kiln_device_options *options, size_t accum,
                                          size_t threads) {
    return (struct kiln_plan_request){.dims = table->dims,
                                      .lora = table->lora,
                                      .device = options->device,
                                      .batch = options->shape.batch,
                                      .seq = options->shape.seq,
                                      .accum = accum,
                                      .refreshes = options->device.id == KILN_CPU,
                                      .forward_only = !options->training,
                                      .schedule = KILN_SCHEDULE_SPLIT,
                                      .keep = {.kind = KILN_KEEP_ALL},
                                      .precision = options->precision,
                                      .threads = threads};
}

/* A load budget of which so many layers' kernels of both passes may be used. */
static size_t load_budget_for(const struct kiln_plan_request *request, size_t layers) {
    const struct kiln_limits limits = kiln_limits_of(request);
    const uint64_t kernels = kiln_all_kernels(&limits, 0, layers);
    const uint64_t used = 1000000 - request->headroom_millionths;
    return (size_t)((kernels * 1000000 + used - 1) / used);
}

enum kiln_status kiln_plan_fit(const struct kiln_table *table, struct kiln_plan_request *request,
                               struct kiln_plan *out, struct kiln_err *err) {
    enum kiln_status status = kiln_plan_open(table, request, out, err);
    const bool free_kernels =
        refreshes(request) && request->budget == 0 && request->load_budget == 0;
    if (status != KILN_ENOMEM || !free_kernels || request->forward_only) {
        return status;
    }
    /* The most layers whose kernels fit; more of them are never compiled more often. */
    size_t fits = 0;
    for (size_t low = 1, high = table->dims.layers - 1; low <= high;) {
        const size_t layers = low + (high - low) / 2;
        struct kiln_err ignored;
        request->load_budget = load_budget_for(request, layers);
        if (kiln_plan_open(table, request, out, &ignored) == KILN_OK) {
            kiln_plan_close(out);
            fits = layers;
            low = layers + 1;
        } else {
            high = layers - 1;
        }
    }
    request->load_budget = load_budget_for(request, fits > 0 ? fits : 1);
    status = kiln_plan_open(table, request, out, err);
    request->load_budget = status == KILN_OK ? request->load_budget : 0;
    return status;
}

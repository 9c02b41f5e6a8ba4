/* SPDX-License-Identifier: MIT
 *
 * plan_json.c: a plan as JSON.
 */
#include <math.h>

#include "output.h"
#include "plan.h"

/* Means over windows are whole numbers mostly. */
static json_t *count(double value) {
    return value == floor(value) ? json_integer((json_int_t)value) : json_real(value);
}

/* No limit is null. */
static json_t *limit(size_t n) { return n == 0 ? json_null() : json_integer((json_int_t)n); }

static json_t *model_json(const struct plan_shown *shown) {
    const struct kiln_dims *d = &shown->request->dims;
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "name",
                     shown->model, "params", (json_int_t)shown->estimate->parameters, "dim",
                     (json_int_t)d->dim, "hidden", (json_int_t)d->hidden, "layers",
                     (json_int_t)d->layers, "heads", (json_int_t)d->heads, "kv_heads",
                     (json_int_t)d->kv_heads, "vocab", (json_int_t)d->vocab, "seq",
                     (json_int_t)shown->request->seq, "batch", (json_int_t)shown->request->batch,
                     "tied", (int)d->tied);
}

static json_t *group_json(const struct kiln_plan_group *g) {
    return json_pack("{s:s, s:I, s:I, s:I, s:I}", "pass", kiln_plan_pass_name(g->pass),
                     "first_layer", (json_int_t)g->first, "end_layer", (json_int_t)g->end,
                     "kernels", (json_int_t)g->kernels, "recomputed", (json_int_t)g->recomputed);
}

static json_t *groups_json(const struct kiln_estimate *e) {
    json_t *list = json_array();
    for (size_t i = 0; i < e->n_groups; i++) {
        json_array_append_new(list, group_json(&e->groups[i]));
    }
    return list;
}

static json_t *activations_json(const struct kiln_estimate *e) {
    json_t *kept = json_array();
    char name[32];
    for (size_t i = 0; i < e->kept_count; i++) {
        json_array_append_new(kept, json_integer((json_int_t)e->kept[i]));
    }
    return json_pack("{s:s, s:o, s:I, s:I}", "policy", kiln_keep_name(e->keep, name), "kept", kept,
                     "kept_count", (json_int_t)e->kept_count, "extra_forward_layers",
                     (json_int_t)e->extra_forward_layers);
}

static json_t *policies_json(const struct plan_shown *shown) {
    const struct kiln_estimate *e = shown->estimate;
    const double all = (double)e->policies[0].bytes, layers = (double)shown->request->dims.layers;
    json_t *list = json_array();
    for (size_t i = 0; i < KILN_POLICIES; i++) {
        const struct kiln_policy *p = &e->policies[i];
        char name[32];
        json_array_append_new(
            list, json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:o, s:o}", "policy",
                            kiln_keep_name(p->keep, name), "kept_count", (json_int_t)p->kept_count,
                            "extra_forward_layers", (json_int_t)p->extra_forward_layers, "bytes",
                            (json_int_t)p->bytes, "total_bytes", (json_int_t)p->total,
                            "saved_percent", 100 * (1 - (double)p->bytes / all),
                            "extra_forward_percent", 100 * (double)p->extra_forward_layers / layers,
                            "compiles", count(p->compiles), "restarts", count(p->restarts)));
    }
    return list;
}

static json_t *memory_json(const struct kiln_memory *m) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "weights",
                     (json_int_t)m->weights, "moments", (json_int_t)m->moments, "gradients",
                     (json_int_t)m->gradients, "kernels", (json_int_t)m->kernels,
                     "activations_kept", (json_int_t)m->activations_kept, "activations_live",
                     (json_int_t)m->activations_live, "workspace", (json_int_t)m->workspace,
                     "state_file", (json_int_t)m->state_file, "total", (json_int_t)m->total);
}

static json_t *flops_json(const struct kiln_flops *f) {
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "forward", f->forward, "dx", f->dx,
                     "dw", f->dw, "attention", f->attention, "classifier", f->classifier, "total",
                     f->total, "device", f->device, "host", f->host);
}

static json_t *trace_json(const struct kiln_estimate *e) {
    static const char *const whats[] = {"restart", "compile", "run", "update"};
    json_t *list = json_array();
    for (size_t i = 0; i < e->n_actions; i++) {
        const struct kiln_plan_action *a = &e->actions[i];
        json_t *one = a->what == KILN_PLAN_UPDATE ? json_object() : group_json(&a->group);
        json_object_set_new(one, "action", json_string(whats[a->what]));
        if (a->what == KILN_PLAN_RESTART || a->what == KILN_PLAN_COMPILE) {
            json_object_set_new(one, "kernels", json_integer((json_int_t)a->kernels));
        }
        json_object_set_new(one, "budget_left",
                            a->left == SIZE_MAX ? json_null() : json_integer((json_int_t)a->left));
        json_array_append_new(list, one);
    }
    return list;
}

json_t *plan_json(const struct plan_shown *shown, bool trace) {
    const struct kiln_plan_request *r = shown->request;
    const struct kiln_estimate *e = shown->estimate;
    json_t *object = json_pack(
        "{s:o, s:s, s:{s:o, s:o, s:f, s:o}, s:s, s:o, s:{s:o, s:o, s:I}, s:o, s:o, s:o, s:o}",
        "model", model_json(shown), "device", shown->device, "budget", "limit", limit(r->budget),
        "load_limit", limit(r->load_budget), "headroom", (double)r->headroom_millionths * 1e-6,
        "usable", limit(e->usable), "schedule",
        r->schedule == KILN_SCHEDULE_WHOLE ? "whole" : "split", "groups", groups_json(e),
        "per_window", "compiles", count(e->compiles), "restarts", count(e->restarts),
        "micro_batches", (json_int_t)r->accum, "activations", activations_json(e), "policies",
        policies_json(shown), "memory_bytes", memory_json(&e->memory), "flops",
        flops_json(&e->flops));
    if (object != NULL && trace) {
        json_object_set_new(object, "trace", trace_json(e));
    }
    return object;
}

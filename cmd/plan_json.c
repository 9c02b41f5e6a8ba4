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

static json_t *layers_json(const size_t *layers, size_t n) {
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, json_integer((json_int_t)layers[i]));
    }
    return list;
}

static json_t *activations_json(const struct kiln_estimate *e) {
    char name[32];
    return json_pack("{s:s, s:o, s:I, s:o, s:I, s:I}", "policy", kiln_keep_name(e->keep, name),
                     "kept", layers_json(e->kept, e->kept_count), "kept_count",
                     (json_int_t)e->kept_count, "inputs", layers_json(e->inputs, e->inputs_count),
                     "extra_forward_layers", (json_int_t)e->extra_forward_layers, "held",
                     (json_int_t)e->held);
}

static json_t *policies_json(const struct plan_shown *shown) {
    const struct kiln_estimate *e = shown->estimate;
    const double all = (double)e->policies[0].bytes, layers = (double)shown->request->dims.layers;
    json_t *list = json_array();
    for (size_t i = 0; i < KILN_POLICIES; i++) {
        const struct kiln_policy *p = &e->policies[i];
        char name[32];
        json_t *one = json_pack("{s:s, s:b}", "policy", kiln_keep_name(p->keep, name), "possible",
                                (int)p->possible);
        if (p->possible) {
            json_t *rest = json_pack(
                "{s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o, s:o, s:f}", "kept_count",
                (json_int_t)p->kept_count, "extra_forward_layers",
                (json_int_t)p->extra_forward_layers, "held", (json_int_t)p->held, "bytes",
                (json_int_t)p->bytes, "total_bytes", (json_int_t)p->total, "saved_percent",
                100 * (1 - (double)p->bytes / all), "extra_forward_percent",
                100 * (double)p->extra_forward_layers / layers, "compiles", count(p->compiles),
                "restarts", count(p->restarts), "step_s", p->step_s);
            json_object_update(one, rest);
            json_decref(rest);
        }
        json_array_append_new(list, one);
    }
    return list;
}

static json_t *memory_json(const struct kiln_memory *m) {
    const struct {
        const char *name;
        uint64_t bytes;
    } parts[] = {{"weights", m->weights},
                 {"moments", m->moments},
                 {"gradients", m->gradients},
                 {"kernels", m->kernels},
                 {"snapshots", m->snapshots},
                 {"journal", m->journal},
                 {"activations_kept", m->activations_kept},
                 {"activations_live", m->activations_live},
                 {"workspace", m->workspace},
                 {"gpu", m->gpu},
                 {"process", m->process},
                 {"state_file", m->state_file},
                 {"total", m->total}};
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        json_object_set_new(object, parts[i].name, json_integer((json_int_t)parts[i].bytes));
    }
    return object;
}

static json_t *time_json(const struct kiln_plan_time *t) {
    return json_pack("{s:f, s:f, s:f, s:f, s:f}", "compile", t->compile, "compute", t->compute,
                     "stall", t->stall, "restart", t->restart, "step", t->step);
}

static json_t *flops_json(const struct kiln_flops *f) {
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "forward", f->forward, "dx", f->dx,
                     "dw", f->dw, "attention", f->attention, "classifier", f->classifier, "total",
                     f->total, "device", f->device, "host", f->host);
}

static json_t *trace_json(const struct kiln_estimate *e) {
    json_t *list = json_array();
    for (size_t i = 0; i < e->n_actions; i++) {
        const struct kiln_plan_action *a = &e->actions[i];
        const bool of_group = a->group.end > 0;
        json_t *one = of_group ? group_json(&a->group) : json_object();
        json_object_set_new(one, "action", json_string(kiln_action_name(a->what)));
        if (a->what == KILN_RESTART || a->what == KILN_COMPILE_GROUP ||
            a->what == KILN_COMPILE_NEXT) {
            json_object_set_new(one, "kernels", json_integer((json_int_t)a->kernels));
        } else if (of_group) {
            json_object_set_new(one, "micro_batch", json_integer((json_int_t)a->micro_batch));
        }
        json_object_set_new(one, "budget_left",
                            a->left == SIZE_MAX ? json_null() : json_integer((json_int_t)a->left));
        json_array_append_new(list, one);
    }
    return list;
}

/* What only a Neural Engine, or a simulated one, has. */
static void add_npu(json_t *object, const struct plan_shown *shown) {
    const struct kiln_device_choice *device = &shown->request->device;
    const struct kiln_estimate *e = shown->estimate;
    if (object == NULL || device->id == KILN_CPU) {
        return;
    }
    json_object_set_new(object, "weight_mode", json_string(device->dynamic ? "dynamic" : "baked"));
    json_object_set_new(object, "extras", json_boolean(device->extras));
    json_object_set_new(object, "programs_once", json_integer((json_int_t)e->programs));
    json_object_set_new(object, "surface_bytes",
                        json_pack("{s:I, s:I}", "written", (json_int_t)e->surface_written, "read",
                                  (json_int_t)e->surface_read));
}

static void add_overlap(json_t *object, const struct kiln_estimate *e) {
    json_object_set_new(object, "overlap", json_string(kiln_overlap_name(e->overlap)));
    json_object_set_new(object, "restart", json_string(kiln_restart_name(e->restart)));
    json_object_set_new(object, "restart_why",
                        e->restart_why != NULL ? json_string(e->restart_why) : json_null());
    json_object_set_new(object, "staleness", json_integer((json_int_t)e->staleness));
    json_object_set_new(object, "kernel_sets",
                        json_pack("{s:I, s:b}", "kernels", (json_int_t)e->kernels_two_sets,
                                  "one_process", (int)e->two_sets));
}

static json_t *data_json(const struct kiln_data_facts *d) {
    return json_pack("{s:f, s:f, s:b, s:f, s:f, s:f, s:s}", "tokens", d->tokens, "text_bytes",
                     d->bytes, "counted", (int)d->counted, "held_out", d->held_out, "windows",
                     d->windows, "epoch_steps", d->epoch_steps, "tokenizer", d->tokenizer);
}

json_t *plan_json(const struct plan_shown *shown, bool trace) {
    const struct kiln_plan_request *r = shown->request;
    const struct kiln_estimate *e = shown->estimate;
    json_t *object = json_pack(
        "{s:o, s:s, s:{s:o, s:o, s:f, s:o}, s:s, s:o, s:{s:o, s:o, s:I}, s:o, s:o, s:o, s:o, s:o, "
        "s:I, s:I, s:I}",
        "model", model_json(shown), "device", shown->device, "budget", "limit", limit(r->budget),
        "load_limit", limit(e->load_budget), "headroom", (double)r->headroom_millionths * 1e-6,
        "usable", limit(e->usable), "schedule",
        r->schedule == KILN_SCHEDULE_WHOLE ? "whole" : "split", "groups", groups_json(e),
        "per_window", "compiles", count(e->compiles), "restarts", count(e->restarts),
        "micro_batches", (json_int_t)r->accum, "activations", activations_json(e), "policies",
        policies_json(shown), "memory_bytes", memory_json(&e->memory), "flops",
        flops_json(&e->flops), "time_s", time_json(&e->time), "zero_stall_accum",
        (json_int_t)e->zero_stall_accum, "disk_bytes_per_step", (json_int_t)e->disk_bytes_per_step,
        "memory_limit", (json_int_t)r->memory);
    if (object != NULL) {
        add_overlap(object, e);
    }
    add_npu(object, shown);
    if (object != NULL && r->ranks.ranks > 0) {
        json_object_set_new(object, "ranks", plan_ranks_json(shown));
    }
    if (object != NULL && shown->data != NULL) {
        json_object_set_new(object, "data", data_json(shown->data));
    }
    if (object != NULL && trace) {
        json_object_set_new(object, "trace", trace_json(e));
    }
    return object;
}

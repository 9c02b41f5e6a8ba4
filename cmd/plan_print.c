/* SPDX-License-Identifier: MIT
 *
 * plan_print.c: a plan as tables.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kiln/report.h"
#include "plan.h"

static const char *bytes(uint64_t n, char buffer[32]) {
    return kiln_human_bytes((double)n, buffer, 32);
}

static void print_budget(const char *what, size_t budget, size_t usable, double headroom) {
    if (budget == 0) {
        printf("  %-16s no limit\n", what);
    } else {
        printf("  %-16s %zu kernels, %zu usable at headroom %g\n", what, budget, usable, headroom);
    }
}

static void print_groups(const struct kiln_estimate *e) {
    printf("\nGroups             layers   kernels   run again\n");
    for (size_t i = 0; i < e->n_groups; i++) {
        const struct kiln_plan_group *g = &e->groups[i];
        char layers[48];
        snprintf(layers, sizeof layers, "[%zu,%zu)", g->first, g->end);
        printf("  %-11s %11s %9zu %11zu\n", kiln_plan_pass_name(g->pass), layers, g->kernels,
               g->recomputed);
    }
}

static void print_policies(const struct plan_shown *shown) {
    const struct kiln_estimate *e = shown->estimate;
    const double all = (double)e->policies[0].bytes;
    printf(
        "\nActivations    full layers      bytes   saved   extra forward   compiles   restarts   "
        "step\n");
    for (size_t i = 0; i < KILN_POLICIES; i++) {
        const struct kiln_policy *p = &e->policies[i];
        char name[32], size[32];
        if (!p->possible) {
            printf("  %-12s not under this budget\n", kiln_keep_name(p->keep, name));
            continue;
        }
        printf("  %-12s %11zu %10s %6.1f%% %14.1f%% %10.4g %10.4g %6.3g s\n",
               kiln_keep_name(p->keep, name), p->kept_count, bytes(p->bytes, size),
               100 * (1 - (double)p->bytes / all),
               100 * (double)p->extra_forward_layers / (double)shown->request->dims.layers,
               p->compiles, p->restarts, p->step_s);
    }
}

static void print_memory(const struct kiln_memory *m) {
    const struct {
        const char *name;
        uint64_t n;
    } parts[] = {{"weights", m->weights},
                 {"moments", m->moments},
                 {"gradients", m->gradients},
                 {"kernels", m->kernels},
                 {"snapshots", m->snapshots},
                 {"journal", m->journal},
                 {"activations kept", m->activations_kept},
                 {"activations live", m->activations_live},
                 {"workspace", m->workspace},
                 {"gpu", m->gpu},
                 {"process", m->process},
                 {"total", m->total},
                 {"state file", m->state_file}};
    char size[32];
    printf("\nMemory\n");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].n > 0 || strcmp(parts[i].name, "gpu") != 0) {
            printf("  %-18s %10s\n", parts[i].name, bytes(parts[i].n, size));
        }
    }
}

static void print_flops(const struct kiln_flops *f) {
    printf("\nGFLOP a micro-batch\n");
    printf("  forward %.3f, dx %.3f, dw %.3f, attention %.3f, classifier %.3f\n", f->forward * 1e-9,
           f->dx * 1e-9, f->dw * 1e-9, f->attention * 1e-9, f->classifier * 1e-9);
    printf("  total %.3f: device %.3f, host %.3f\n", f->total * 1e-9, f->device * 1e-9,
           f->host * 1e-9);
}

/* What hides, and what cannot. */
static void print_hidden(const struct kiln_estimate *e) {
    const struct kiln_plan_time *t = &e->time;
    printf("  overlap %s: %.3g of %.3g seconds of compiling hide\n", kiln_overlap_name(e->overlap),
           t->compile - t->stall, t->compile);
    if (e->overlap == KILN_OVERLAP_EXACT && t->stall > 0) {
        printf(
            "  what exact cannot hide: clipping wants the norm of all gradients in front of the "
            "first\n  update, so no kernel of the next window compiles before the last backward "
            "pass; and beside\n  a compile there are only the passes of the micro-batches that are "
            "held "
            "together: %zu\n",
            e->held);
    }
    if (e->zero_stall_accum > 0) {
        printf("  with --overlap delayed --restart relay nothing stalls from --accum %zu on\n",
               e->zero_stall_accum);
    } else {
        printf("  --overlap delayed stalls at any --accum: kernels are compiled every round\n");
    }
}

static void print_time(const struct kiln_estimate *e) {
    const struct kiln_plan_time *t = &e->time;
    char size[32];
    printf("\nSeconds a step\n");
    printf("  compute %.3g, compile %.3g (stall %.3g), restart %.3g: step %.3g\n", t->compute,
           t->compile, t->stall, t->restart, t->step);
    if (t->compile > 0) {
        print_hidden(e);
    }
    if (e->disk_bytes_per_step > 0) {
        printf("  the state is larger than its memory: %s a step to and from the disk\n",
               bytes(e->disk_bytes_per_step, size));
    }
}

static void print_memory_limit(const struct plan_shown *shown) {
    char size[32];
    if (shown->request->memory > 0) {
        printf("  %-16s %s\n", "memory", bytes(shown->request->memory, size));
    } else {
        printf("  %-16s no limit: it does not fit this machine\n", "memory");
    }
}

static void print_surfaces(const struct kiln_estimate *e) {
    char written[32], read[32];
    if (e->surface_written + e->surface_read > 0) {
        printf("  surfaces: %s written and %s read a window\n",
               kiln_human_bytes((double)e->surface_written, written, sizeof written),
               kiln_human_bytes((double)e->surface_read, read, sizeof read));
    }
}

static void print_overlap(const struct kiln_estimate *e) {
    const char *const what[] = {
        [KILN_OVERLAP_OFF] = "off: compile, then compute",
        [KILN_OVERLAP_EXACT] = "exact: kernels compile beside update and passes, bits as off",
        [KILN_OVERLAP_DELAYED] = "delayed: gradients are one update old",
    };
    printf("  %-16s %s\n", "overlap", what[e->overlap]);
    if (e->overlap == KILN_OVERLAP_DELAYED) {
        printf("  %-16s two, %zu kernels, %s\n", "kernel sets", e->kernels_two_sets,
               e->two_sets ? "in one process" : "in two processes");
    }
    printf("  %-16s %s%s%s\n", "restarts by", kiln_restart_name(e->restart),
           e->restart_why != NULL ? ": " : "", e->restart_why != NULL ? e->restart_why : "");
}

static void print_data(const struct plan_shown *shown) {
    const struct kiln_data_facts *d = shown->data;
    const struct kiln_plan_request *r = shown->request;
    const char *about = d->counted ? "" : "about ";
    char size[32];
    printf("\nData\n  %s%.4g M tokens", about, d->tokens * 1e-6);
    if (d->bytes > 0) {
        printf(", from %s%s of text, %.3g bytes a token", about,
               kiln_human_bytes(d->bytes, size, sizeof size), d->bytes / d->tokens);
    }
    printf("%s%s\n", d->tokenizer[0] ? "; tokenizer " : "", d->tokenizer);
    printf("  an epoch is %s%.6g windows of %zu, %.4g steps of %zu x %zu", about, d->windows,
           r->seq, d->epoch_steps, r->batch, r->accum);
    if (d->held_out > 0) {
        printf("; %g %% are held out", 100 * d->held_out);
    }
    printf("\n");
}

void plan_print(const struct plan_shown *shown) {
    const struct kiln_plan_request *r = shown->request;
    const struct kiln_estimate *e = shown->estimate;
    const double headroom = (double)r->headroom_millionths * 1e-6;
    char name[32];
    printf("%s on %s: %.2f M parameters, %zu layers; batch %zu, seq %zu, accum %zu\n", shown->model,
           shown->device, (double)e->parameters * 1e-6, r->dims.layers, r->batch, r->seq, r->accum);
    if (e->stage.stages > 1) {
        const struct kiln_plan_stage *s = &e->stage;
        printf("  %-16s %zu of %zu, the slowest: layers %zu to %zu; what follows is of it\n",
               "stage", s->number + 1, s->stages, kiln_stage_first(s->layers, s->stages, s->number),
               kiln_stage_first(s->layers, s->stages, s->number + 1) - 1);
    }
    print_budget("compile budget", r->budget, e->usable, headroom);
    print_budget("load budget", e->load_budget, e->load_usable, headroom);
    if (e->programs > 0) {
        printf("  %-16s %zu, compiled when the device is opened\n", "programs", e->programs);
    }
    print_memory_limit(shown);
    printf("  %-16s %s, %zu of %zu micro-batches through a group before the next\n", "schedule",
           r->schedule == KILN_SCHEDULE_WHOLE ? "whole" : "split", e->held, r->accum);
    printf("  %-16s %s: %zu layers full, %zu run forward again\n", "activations",
           kiln_keep_name(e->keep, name), e->kept_count, e->extra_forward_layers);
    print_overlap(e);
    printf("  %-16s %.6g compiles, %.6g restarts\n", "a window", e->compiles, e->restarts);
    print_groups(e);
    print_policies(shown);
    print_memory(&e->memory);
    print_flops(&e->flops);
    print_time(e);
    print_surfaces(e);
    if (r->ranks.ranks > 0) {
        plan_print_ranks(shown);
    }
    if (shown->data) {
        print_data(shown);
    }
}

/* Is the action a compile for a group that is not reached yet? The next pass is of another. */
static bool is_ahead(const struct kiln_estimate *e, size_t at) {
    const struct kiln_plan_group *g = &e->actions[at].group;
    while (++at < e->n_actions && (e->actions[at].what == KILN_COMPILE_GROUP ||
                                   e->actions[at].what == KILN_COMPILE_NEXT)) {
    }
    return at < e->n_actions &&
           (e->actions[at].group.pass != g->pass || e->actions[at].group.first != g->first);
}

static void print_action(const struct kiln_estimate *e, size_t at) {
    const struct kiln_plan_action *a = &e->actions[at];
    char left[32] = "no limit", layers[48];
    const struct kiln_plan_group *g = &a->group;
    if (a->left != SIZE_MAX) {
        snprintf(left, sizeof left, "%zu left", a->left);
    }
    snprintf(layers, sizeof layers, "[%zu,%zu)", g->first, g->end);
    printf("  %-12s", kiln_action_name(a->what));
    switch (a->what) {
        case KILN_RESTART:
            printf(" %9s %s: %zu kernels %s", layers, kiln_plan_pass_name(g->pass), a->kernels,
                   a->kernels > a->left ? "do not fit" : "that the successor has compiled");
            break;
        case KILN_COMPILE_GROUP:
            printf(" %9s %s: %zu kernels not in this process%s", layers,
                   kiln_plan_pass_name(g->pass), a->kernels,
                   is_ahead(e, at) ? ", ahead: they fit beside what is loaded" : "");
            break;
        case KILN_COMPILE_NEXT:
            printf(" %9s the next generation: %zu kernels beside this window", layers, a->kernels);
            break;
        case KILN_FORWARD_GROUP:
            printf(" %9s micro-batch %zu", layers, a->micro_batch);
            break;
        case KILN_BACKWARD_GROUP:
            printf(" %9s micro-batch %zu, %zu layers run forward again", layers, a->micro_batch,
                   g->recomputed);
            break;
        case KILN_UPDATE:
            printf(" %9s all layers: the window's gradients are whole", "");
            break;
        case KILN_STEP_DONE:
        case KILN_ERROR:
            break;
    }
    printf("; %s\n", left);
}

void plan_print_trace(const struct plan_shown *shown) {
    const struct kiln_estimate *e = shown->estimate;
    printf("\nA window, once windows repeat\n");
    for (size_t i = 0; i < e->n_actions; i++) {
        print_action(e, i);
    }
}

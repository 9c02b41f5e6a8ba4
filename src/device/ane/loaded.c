/* SPDX-License-Identifier: MIT
 *
 * loaded.c: programs on the device: which kernel kind is made of which, budgets, running one.
 */
#include "base/machine.h"
#include "device/ane/ane_int.h"

/* ---- one program ------------------------------------------------------------------------------
 */

/* A program's place in a set. Whoever compiles holds one while the owner runs others. */
struct slot {
    size_t set;
    enum kiln_npu_kind kind;
    size_t place;
};

/* Do programs of the kind hold weights? Those that do not are of all sets. */
static bool bakes(const struct kiln_ane *ane, enum kiln_npu_kind kind) {
    return kind != KILN_NPU_ATTN_BWD2 && kind != KILN_NPU_SOFTMAX && !ane->dynamic;
}

static struct kiln_ane_set *set_of(struct kiln_ane *ane, size_t set, enum kiln_npu_kind kind) {
    return &ane->sets[bakes(ane, kind) ? set : 0];
}

static struct kiln_npu_program *get(struct kiln_ane *ane, struct slot s) {
    return __atomic_load_n(&set_of(ane, s.set, s.kind)->programs[s.kind][s.place],
                           __ATOMIC_ACQUIRE);
}

static void put(struct kiln_ane *ane, struct slot s, struct kiln_npu_program *program) {
    __atomic_store_n(&set_of(ane, s.set, s.kind)->programs[s.kind][s.place], program,
                     __ATOMIC_RELEASE);
}

static unsigned char *parked(struct kiln_ane *ane, struct slot s) {
    return &set_of(ane, s.set, s.kind)->parked[s.kind][s.place];
}

static void drop(struct kiln_ane *ane, struct slot s) {
    struct kiln_npu_program *program = get(ane, s);
    if (program) {
        put(ane, s, NULL);
        ane->runtime->ops->release(ane->runtime, program);
        ane->base.counts.loaded -= !*parked(ane, s);
        *parked(ane, s) = 0;
    }
}

/* Its weights are stale: keep the program where it can take others, else let it go. */
static void retire(struct kiln_ane *ane, struct slot s) {
    if (!ane->runtime->reloads || !bakes(ane, s.kind)) {
        drop(ane, s);
    } else if (get(ane, s) && !*parked(ane, s)) {
        *parked(ane, s) = 1;
        ane->base.counts.loaded--;
    }
}

/* Parked programs are loaded still: let one go where the budget wants its room. */
static void make_room(struct kiln_ane *ane) {
    const size_t budget = ane->base.caps.load_budget;
    for (size_t i = 0; budget > 0 && i < ane->n_sets * KILN_NPU_KINDS; i++) {
        struct slot s = {i / KILN_NPU_KINDS, (enum kiln_npu_kind)(i % KILN_NPU_KINDS), 0};
        for (; s.place < ane->places[s.kind] &&
               __atomic_load_n(&ane->runtime->loaded, __ATOMIC_RELAXED) >= budget;
             s.place++) {
            if (*parked(ane, s)) {
                drop(ane, s);
            }
        }
    }
}

/* Give a parked program its new weights. What cannot is compiled. */
static bool revive(struct kiln_ane *ane, struct slot s, const struct kiln_npu_made *made) {
    struct kiln_err ignored;
    if (!*parked(ane, s) ||
        ane->runtime->ops->reload(ane->runtime, get(ane, s), made->source.weights,
                                  made->source.n_weights, &ignored) != KILN_OK) {
        return false;
    }
    *parked(ane, s) = 0;
    ane->base.counts.loaded++;
    return true;
}

static enum kiln_status bind(struct kiln_ane *ane, struct kiln_npu_program *program,
                             enum kiln_npu_kind kind, size_t place, struct kiln_err *err) {
    size_t binding;
    return ane->runtime->ops->bind(ane->runtime, program, &ane->to[kind][place], 1,
                                   &ane->from[kind][place], 1, &binding, err);
}

/* Bindings of a program: its own place; for weights as inputs, all places in order. */
static enum kiln_status load_and_bind(struct kiln_ane *ane, struct kiln_npu_program *program,
                                      enum kiln_npu_kind kind, size_t place, struct kiln_err *err) {
    KILN_TRY(ane->runtime->ops->load(ane->runtime, program, err));
    if (!ane->dynamic) {
        return bind(ane, program, kind, place, err);
    }
    for (size_t i = 0; i < ane->places[kind]; i++) {
        KILN_TRY(bind(ane, program, kind, i, err));
    }
    return KILN_OK;
}

/* Make the text and weights of a program, compile, load and bind it. */
static enum kiln_status make(struct kiln_ane *ane, struct slot s, size_t layer,
                             const struct kiln_weights *weights, struct kiln_err *err) {
    const struct kiln_npu_runtime_ops *ops = ane->runtime->ops;
    const size_t part = s.kind == KILN_NPU_CLASSIFIER ? s.place : 0;
    struct kiln_npu_made made;
    struct kiln_npu_program *program = NULL;
    retire(ane, s);
    kiln_pool_guest_enter(ane->host.workers.pool);
    enum kiln_status status = kiln_npu_make(s.kind, ane->base.table, &ane->mode, layer, part,
                                            weights, ane->serial++, NULL, &made, err);
    kiln_pool_guest_leave(ane->host.workers.pool);
    KILN_TRY(status);
    if (revive(ane, s, &made)) {
        kiln_npu_made_free(&made);
        return KILN_OK;
    }
    drop(ane, s);
    make_room(ane);
    status = ops->compile(ane->runtime, &made.source, &program, err);
    kiln_npu_made_free(&made);
    KILN_TRY(status);
    ane->base.counts.compiles++;
    status = load_and_bind(ane, program, s.kind, s.place, err);
    if (status != KILN_OK) {
        ops->release(ane->runtime, program);
        return status;
    }
    ane->base.counts.loaded++;
    put(ane, s, program);
    return KILN_OK;
}

/* ---- kernel kinds -----------------------------------------------------------------------------
 */

/* The programs of a kernel kind: n of them, from `first` on. */
static const struct {
    enum kiln_npu_kind first;
    size_t n;
} programs_of[KILN_KINDS] = {
    [KILN_ATTN_FWD] = {KILN_NPU_ATTN_FWD, 1},      [KILN_FFN_FWD] = {KILN_NPU_FFN_FWD, 1},
    [KILN_FFN_BWD] = {KILN_NPU_FFN_BWD, 1},        [KILN_ATTN_BWD1] = {KILN_NPU_ATTN_BWD1, 1},
    [KILN_QKV_BWD] = {KILN_NPU_QKV_BWD, 1},        [KILN_ATTN_BWD2] = {KILN_NPU_ATTN_BWD2, 1},
    [KILN_NORM_BWD] = {KILN_NPU_NORM_BWD_ATTN, 2}, [KILN_CLASSIFY] = {KILN_NPU_FINAL_NORM, 2},
    [KILN_SOFTMAX] = {KILN_NPU_SOFTMAX, 1},
};

/* Places of a program that a kernel kind of a layer fills: first..first+n. */
static size_t fills(const struct kiln_ane *ane, enum kiln_npu_kind kind, size_t layer,
                    size_t *first) {
    const bool own = ane->places[kind] == ane->base.table->dims.layers &&
                     kind != KILN_NPU_CLASSIFIER && kind != KILN_NPU_FINAL_NORM &&
                     kind != KILN_NPU_SOFTMAX;
    *first = own ? layer : 0;
    return own ? 1 : ane->places[kind];
}

static enum kiln_status check_budgets(struct kiln_ane *ane, size_t set, size_t kind, size_t layer,
                                      struct kiln_err *err) {
    const struct kiln_device_caps *caps = &ane->base.caps;
    const size_t compiled = ane->base.counts.compiles + ane->self_test;
    const size_t n = caps->kinds[kind].compiles;
    size_t loaded = ane->base.counts.loaded, first;
    for (size_t i = 0; i < programs_of[kind].n; i++) { /* what is replaced makes room */
        const enum kiln_npu_kind k = (enum kiln_npu_kind)(programs_of[kind].first + i);
        const size_t places = fills(ane, k, layer, &first);
        for (size_t p = first; p < first + places; p++) {
            const struct slot s = {set, k, p};
            loaded -= get(ane, s) != NULL && !*parked(ane, s);
        }
    }
    KILN_REQUIRE(caps->compile_budget == 0 || compiled + n <= caps->compile_budget, err,
                 KILN_EBUDGET,
                 "%s: %s of layer %zu would be kernel %zu of this process; its compile budget is "
                 "%zu",
                 caps->name, caps->kinds[kind].name, layer, compiled + n, caps->compile_budget);
    KILN_REQUIRE(caps->load_budget == 0 || loaded + n <= caps->load_budget, err, KILN_EBUDGET,
                 "%s: %s of layer %zu would be kernel %zu loaded at once; the load budget is %zu",
                 caps->name, caps->kinds[kind].name, layer, loaded + n, caps->load_budget);
    return KILN_OK;
}

enum kiln_status kiln_ane_compile(struct kiln_device *device, size_t set, size_t kind, size_t layer,
                                  const struct kiln_weights *weights, struct kiln_err *err) {
    struct kiln_ane *ane = kiln_ane_of(device);
    KILN_REQUIRE(set < ane->n_sets && kind < KILN_KINDS && device->caps.kinds[kind].compiles > 0 &&
                     layer < device->table->dims.layers,
                 err, KILN_EINTERNAL, "compile: %s has no kind %zu of layer %zu in set %zu",
                 device->caps.name, kind, layer, set);
    KILN_TRY(check_budgets(ane, set, kind, layer, err));
    enum kiln_status status = KILN_OK;
    for (size_t i = 0; i < programs_of[kind].n && status == KILN_OK; i++) {
        const enum kiln_npu_kind k = (enum kiln_npu_kind)(programs_of[kind].first + i);
        size_t first;
        const size_t places = fills(ane, k, layer, &first);
        for (size_t p = first; p < first + places && status == KILN_OK; p++) {
            status = make(ane, (struct slot){set, k, p}, layer, weights, err);
        }
    }
    if (status != KILN_OK) {
        kiln_ane_release(device, set, kind, layer); /* all of a kind or nothing */
    }
    return status;
}

void kiln_ane_release(struct kiln_device *device, size_t set, size_t kind, size_t layer) {
    struct kiln_ane *ane = kiln_ane_of(device);
    for (size_t i = 0; i < programs_of[kind].n; i++) {
        const enum kiln_npu_kind k = (enum kiln_npu_kind)(programs_of[kind].first + i);
        size_t first;
        const size_t places = fills(ane, k, layer, &first);
        for (size_t p = first; p < first + places; p++) {
            retire(ane, (struct slot){set, k, p});
        }
    }
}

enum kiln_status kiln_ane_compile_dynamic(struct kiln_ane *ane, struct kiln_err *err) {
    const struct kiln_device_caps *caps = &ane->base.caps;
    for (int kind = 0; kind < KILN_NPU_KINDS; kind++) {
        if (ane->places[kind] == 0) {
            continue;
        }
        const size_t n = ane->base.counts.compiles + ane->self_test + 1;
        KILN_REQUIRE((caps->compile_budget == 0 || n <= caps->compile_budget) &&
                         (caps->load_budget == 0 || n <= caps->load_budget),
                     err, KILN_EBUDGET,
                     "%s: %s is kernel %zu of this process, more than its budgets (%zu compiled, "
                     "%zu loaded) allow; --weight-mode dynamic needs them all",
                     caps->name, kiln_npu_kind_name((enum kiln_npu_kind)kind), n,
                     caps->compile_budget, caps->load_budget);
        KILN_TRY(make(ane, (struct slot){0, (enum kiln_npu_kind)kind, 0}, 0, NULL, err));
    }
    return KILN_OK;
}

enum kiln_status kiln_ane_open_programs(struct kiln_ane *ane, enum kiln_npu_kind kind,
                                        struct kiln_err *err) {
    for (size_t i = 0; i < (bakes(ane, kind) ? ane->n_sets : 1); i++) {
        struct kiln_ane_set *set = &ane->sets[i];
        set->programs[kind] = kiln_alloc(ane->places[kind], sizeof(void *));
        set->parked[kind] = kiln_alloc(ane->places[kind], 1);
        KILN_REQUIRE(set->programs[kind] && set->parked[kind], err, KILN_ENOMEM,
                     "no memory for the list of programs");
    }
    return KILN_OK;
}

void kiln_ane_close_programs(struct kiln_ane *ane) {
    for (size_t i = 0; i < ane->n_sets * KILN_NPU_KINDS; i++) {
        struct slot s = {i / KILN_NPU_KINDS, (enum kiln_npu_kind)(i % KILN_NPU_KINDS), 0};
        struct kiln_ane_set *set = &ane->sets[s.set];
        for (; set->programs[s.kind] && set->parked[s.kind] && s.place < ane->places[s.kind];
             s.place++) {
            drop(ane, s);
        }
        kiln_free(set->programs[s.kind]);
        kiln_free(set->parked[s.kind]);
        set->programs[s.kind] = NULL;
        set->parked[s.kind] = NULL;
    }
}

enum kiln_status kiln_ane_run(struct kiln_ane *ane, enum kiln_npu_kind kind, size_t place,
                              struct kiln_err *err) {
    struct slot s = {ane->base.set, kind, ane->dynamic ? 0 : place};
    struct kiln_npu_program *program = get(ane, s);
    if (kind == KILN_NPU_ATTN_BWD2) { /* one for all layers, or several */
        for (s.place = 0; !program && s.place < ane->places[kind]; s.place++) {
            program = get(ane, s);
        }
        s.place = 0; /* never parked */
    }
    KILN_REQUIRE(program && !*parked(ane, s), err, KILN_EINTERNAL,
                 "%s: %s of layer %zu is not loaded", ane->base.caps.name, kiln_npu_kind_name(kind),
                 place);
    const double start = kiln_now_s();
    const enum kiln_status status =
        ane->runtime->ops->evaluate(ane->runtime, program, ane->dynamic ? place : 0, err);
    kiln_ane_span(ane, KILN_SPAN_EVALUATE, kind, place, start);
    return status;
}

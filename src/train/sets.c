/* SPDX-License-Identifier: MIT */
#include "train/sets.h"

#include "base/mem.h"

/* ---- which kinds there are -------------------------------------------------------------------
 */

/* Is there one of the kind that all layers share? */
static bool shared_kind(const struct kiln_sets *s, size_t kind) {
    const struct kiln_kernel_kind *k = &s->device->caps.kinds[kind];
    return k->compiles > 0 && !k->per_layer && !k->weights && !s->plan->schedule.limits.whole;
}

/* Is one of the kind the layer's, and of that pass? What runs behind the last layer is among its
 * forward kernels; in `whole` each layer has what is shared otherwise (plan/budget.c). */
static bool layer_kind(const struct kiln_sets *s, size_t kind, size_t layer, unsigned set) {
    const struct kiln_kernel_kind *k = &s->device->caps.kinds[kind];
    const bool forward = k->pass == KILN_FORWARD;
    const bool behind = !k->per_layer && (k->weights || forward);
    return k->compiles > 0 && !shared_kind(s, kind) &&
           (!behind || layer + 1 == s->plan->schedule.layers) &&
           set & (forward ? KILN_HAS_FORWARD : KILN_HAS_BACKWARD);
}

/* ---- giving kernels to the compiler ----------------------------------------------------------
 */

static void layer_compiled(void *context, size_t layer) {
    const struct kiln_sets *s = context;
    s->compiled(s->compiled_context, layer);
}

/* What is behind the last layer is of parameters that are updated last. */
static size_t gate_of(const struct kiln_sets *s, size_t kind, size_t layer) {
    const struct kiln_kernel_kind *k = &s->device->caps.kinds[kind];
    return !k->weights ? 0 : k->per_layer ? layer + 1 : s->plan->schedule.layers + 1;
}

struct batch {
    size_t set;
    const struct kiln_weights *weights;
    int64_t generation;
    bool gated;
};

/* The kernels of a layer in one pass; *ticket of the last. */
static enum kiln_status add_layer(struct kiln_sets *s, const struct batch *b, size_t layer,
                                  unsigned has, uint64_t *ticket, struct kiln_err *err) {
    size_t last = KILN_KINDS;
    for (size_t kind = 0; kind < KILN_KINDS; kind++) {
        last = layer_kind(s, kind, layer, has) ? kind : last;
    }
    for (size_t kind = 0; kind < KILN_KINDS; kind++) {
        if (layer_kind(s, kind, layer, has)) {
            const bool tell = s->compiled != NULL && kind == last;
            const struct kiln_compile_job job = {.set = b->set,
                                                 .kind = kind,
                                                 .layer = layer,
                                                 .weights = *b->weights,
                                                 .generation = b->generation,
                                                 .gate = b->gated ? gate_of(s, kind, layer) : 0,
                                                 .done = tell ? layer_compiled : NULL,
                                                 .context = s};
            KILN_TRY(kiln_compiler_add(s->compiler, &job, ticket, err));
        }
    }
    return KILN_OK;
}

static enum kiln_status add_shared(struct kiln_sets *s, struct kiln_err *err) {
    for (size_t kind = 0; kind < KILN_KINDS; kind++) {
        if (shared_kind(s, kind)) {
            const struct kiln_compile_job job = {
                .set = s->set, .kind = kind, .weights = s->active, .generation = -1};
            KILN_TRY(kiln_compiler_add(s->compiler, &job, &s->shared_ready, err));
        }
    }
    return KILN_OK;
}

/* The kernels in `want` of layers first..end-1 that the set lacks, in the order of the pass. */
static enum kiln_status add_pass(struct kiln_sets *s, const struct batch *b, size_t first,
                                 size_t end, const unsigned char *want, unsigned pass,
                                 struct kiln_err *err) {
    unsigned char *here = s->on_device[b->set];
    for (size_t i = 0; i < end - first; i++) {
        const size_t l = pass == KILN_HAS_FORWARD ? first + i : end - 1 - i;
        const unsigned fresh = (want ? want[l] : pass) & ~(unsigned)here[l] & pass;
        uint64_t *ready = &s->ready[pass == KILN_HAS_BACKWARD][l];
        uint64_t ticket = 0;
        if (fresh) {
            KILN_TRY(add_layer(s, b, l, fresh, b->set == s->set ? ready : &ticket, err));
            here[l] |= (unsigned char)fresh;
        }
    }
    return KILN_OK;
}

/* ---- releasing -------------------------------------------------------------------------------
 */

static void release_layer(struct kiln_sets *s, size_t set, size_t layer, unsigned has) {
    for (size_t kind = 0; has && kind < KILN_KINDS; kind++) {
        if (layer_kind(s, kind, layer, has)) {
            s->device->ops->release(s->device, set, kind, layer);
        }
    }
    s->on_device[set][layer] &= (unsigned char)~has;
}

/* What the active set has and the process has not. */
static void release_stale(struct kiln_sets *s, const struct kiln_process *process) {
    for (size_t l = 0; l < s->plan->schedule.layers; l++) {
        release_layer(s, s->set, l, s->on_device[s->set][l] & ~(unsigned)process->has[l]);
    }
    for (size_t kind = 0; s->shared && !process->shared && kind < KILN_KINDS; kind++) {
        if (shared_kind(s, kind)) {
            s->device->ops->release(s->device, s->set, kind, 0);
        }
    }
    s->shared &= process->shared;
}

static bool holds_more(const struct kiln_sets *s, const struct kiln_process *process) {
    bool more = s->shared && !process->shared;
    for (size_t l = 0; l < s->plan->schedule.layers; l++) {
        more |= (s->on_device[s->set][l] & ~(unsigned)process->has[l]) != 0;
    }
    return more;
}

/* ---- what the executor asks ------------------------------------------------------------------
 */

void kiln_sets_generation(struct kiln_sets *s, int64_t generation,
                          const struct kiln_weights *active, const struct kiln_weights *next) {
    if (!s->named) {
        s->prepared = generation; /* the device was opened with it */
        s->named = true;
    }
    s->generation = generation;
    s->active = *active;
    if (next) {
        s->next = *next;
    }
}

static bool delayed(const struct kiln_sets *s) {
    return s->plan->schedule.overlap == KILN_OVERLAP_DELAYED;
}

/* The host's parts of the active generation, where no swap brought them: into the other set, which
 * is empty then, so that what fails leaves the active one as it is. */
static enum kiln_status prepare(struct kiln_sets *s, struct kiln_err *err) {
    if (!delayed(s) || s->prepared == s->generation) {
        return KILN_OK;
    }
    const size_t other = 1 - s->set;
    const struct kiln_compile_job job = {
        .set = other, .prepare = true, .weights = s->active, .generation = s->generation};
    uint64_t ticket;
    KILN_TRY(kiln_compiler_add(s->compiler, &job, &ticket, err));
    KILN_TRY(kiln_compiler_finish(s->compiler, err));
    s->device->ops->activate(s->device, other, &s->active);
    s->set = other;
    s->prepared = s->generation;
    return KILN_OK;
}

enum kiln_status kiln_sets_let_go(struct kiln_sets *s, const struct kiln_process *process,
                                  struct kiln_err *err) {
    if (holds_more(s, process)) {
        KILN_TRY(kiln_compiler_finish(s->compiler, err)); /* nothing compiles meanwhile */
        release_stale(s, process);
    }
    return KILN_OK;
}

enum kiln_status kiln_sets_compile(struct kiln_sets *s, const struct kiln_process *process,
                                   const struct kiln_plan_group *group, bool gated,
                                   struct kiln_err *err) {
    KILN_TRY(kiln_sets_let_go(s, process, err));
    KILN_TRY(prepare(s, err));
    const struct batch b = {s->set, &s->active, s->generation, gated};
    const size_t first = group->first, end = group->end;
    KILN_TRY(add_pass(s, &b, first, end, process->has, KILN_HAS_FORWARD, err));
    if (process->shared && !s->shared) {
        KILN_TRY(add_shared(s, err));
        s->shared = true;
    }
    return add_pass(s, &b, first, end, process->has, KILN_HAS_BACKWARD, err);
}

enum kiln_status kiln_sets_compile_next(struct kiln_sets *s, struct kiln_err *err) {
    const size_t other = 1 - s->set, layers = s->plan->schedule.layers;
    const struct batch b = {other, &s->next, s->generation + 1, false};
    const struct kiln_compile_job head = {
        .set = other, .prepare = true, .weights = s->next, .generation = s->generation + 1};
    uint64_t ticket;
    KILN_TRY(add_pass(s, &b, 0, layers, NULL, KILN_HAS_FORWARD, err));
    KILN_TRY(add_pass(s, &b, 0, layers, NULL, KILN_HAS_BACKWARD, err));
    return kiln_compiler_add(s->compiler, &head, &ticket, err);
}

enum kiln_status kiln_sets_settle(struct kiln_sets *s, struct kiln_err *err) {
    const enum kiln_status status = kiln_compiler_finish(s->compiler, err);
    if (status != KILN_OK) {
        kiln_compiler_drop(s->compiler);
        const size_t other = 1 - s->set;
        for (size_t l = 0; delayed(s) && l < s->plan->schedule.layers; l++) {
            release_layer(s, other, l, s->on_device[other][l]);
        }
    }
    return status;
}

void kiln_sets_update(struct kiln_sets *s, const struct kiln_process *process, bool swaps) {
    if (!swaps) {
        release_stale(s, process);
        return;
    }
    const size_t layers = s->plan->schedule.layers;
    for (size_t l = 0; l < layers; l++) {
        release_layer(s, s->set, l, s->on_device[s->set][l]);
        s->ready[0][l] = s->ready[1][l] = 0;
    }
    s->set = 1 - s->set;
    s->active = s->next;
    s->prepared = ++s->generation;
    s->device->ops->activate(s->device, s->set, &s->active);
}

enum kiln_status kiln_sets_want(struct kiln_sets *s, enum kiln_pass pass, size_t layer,
                                struct kiln_err *err) {
    const bool last = layer + 1 == s->plan->schedule.layers;
    KILN_TRY(prepare(s, err));
    if (pass == KILN_BACKWARD || (last && s->plan->schedule.limits.shared_forward)) {
        KILN_TRY(kiln_compiler_wait(s->compiler, s->shared_ready, err));
    }
    return kiln_compiler_wait(s->compiler, s->ready[pass == KILN_BACKWARD][layer], err);
}

/* ---- memory ----------------------------------------------------------------------------------
 */

enum kiln_status kiln_sets_open(struct kiln_sets *s, const struct kiln_plan *plan,
                                struct kiln_device *device, struct kiln_spans *spans,
                                struct kiln_err *err) {
    const size_t layers = plan->schedule.layers;
    const bool beside = kiln_plan_device(plan->request).beside;
    *s = (struct kiln_sets){.plan = plan, .device = device, .active = device->weights};
    bool room = true;
    for (size_t i = 0; i < 2; i++) {
        s->on_device[i] = kiln_alloc(layers, 1);
        s->ready[i] = kiln_alloc(layers, sizeof *s->ready[i]);
        room = room && s->on_device[i] && s->ready[i];
    }
    KILN_REQUIRE(room, err, KILN_ENOMEM, "no memory for %zu layers", layers);
    return kiln_compiler_create(device, spans, beside, 2 * KILN_KINDS * (layers + 1), &s->compiler,
                                err);
}

void kiln_sets_close(struct kiln_sets *s) {
    kiln_compiler_destroy(s->compiler);
    for (size_t i = 0; i < 2; i++) {
        kiln_free(s->on_device[i]);
        kiln_free(s->ready[i]);
    }
    *s = (struct kiln_sets){.set = 0};
}

/* SPDX-License-Identifier: MIT
 *
 * sim.c: the simulator as a runtime: programs, surfaces, budgets, and time.
 */
#include "device/sim/sim.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/mem.h"
#include "device/sim/eval.h"

struct kiln_npu_surface {
    void *data;
    size_t bytes;
    size_t locks;
};

/* Surfaces that a program runs on. */
struct binding {
    struct kiln_npu_surface **surfaces; /* inputs, then outputs */
};

struct kiln_npu_program {
    char label[96], *text;
    size_t bytes; /* of the text */
    struct kiln_mil_graph graph;
    struct kiln_sim_plan plan;
    bool loaded;
    struct binding *bindings;
    size_t n_bindings;
};

struct sim {
    struct kiln_npu_runtime base;
    struct kiln_sim_options options;
    struct kiln_sim_machine machine;
    pthread_mutex_t running; /* held while the workspace is in use or made larger */
};

static struct sim *sim_of(struct kiln_npu_runtime *runtime) { return (struct sim *)runtime; }

/* ---- budgets -------------------------------------------------------------------------------- */

/* What the process has used of the budgets: the hardware counts for processes, not for who opens
 * the device. */
static struct {
    pthread_mutex_t lock;
    pid_t process;
    size_t compiles, loads;
} used = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The counters of this process, locked; after a fork they begin at 0. */
static void lock_used(void) {
    pthread_mutex_lock(&used.lock);
    if (used.process != getpid()) {
        used.process = getpid();
        used.compiles = used.loads = 0;
    }
}

/* Take one of a budget; false when it is spent. */
static bool spend(size_t *counter, uint64_t budget) {
    lock_used();
    bool there = budget == 0 || *counter < budget;
    *counter += there;
    pthread_mutex_unlock(&used.lock);
    return there;
}

static void give_back(size_t *counter) {
    lock_used();
    *counter -= *counter > 0;
    pthread_mutex_unlock(&used.lock);
}

/* ---- time ----------------------------------------------------------------------------------- */

/* A sleep ends some 60 us late, so the last of it is waited for. */
#define SPIN_S 1e-4

/* Return when `seconds` of device time have passed since `start`. */
static void charge(const struct sim *sim, double start, double seconds) {
    const double end = start + seconds * sim->options.times.scale;
    if (sim->options.times.scale <= 0.0) {
        return;
    }
    for (double left; (left = end - kiln_now_s()) > 0.0;) {
        if (left > SPIN_S) { /* a signal may end it early */
            left -= SPIN_S;
            struct timespec rest = {.tv_sec = (time_t)left};
            rest.tv_nsec = (long)((left - (double)rest.tv_sec) * 1e9);
            nanosleep(&rest, NULL);
        }
    }
}

/* Programs of this process that are being compiled: device time of the others. */
static unsigned compiling;

static double compile_seconds(const struct kiln_npu_times *times,
                              const struct kiln_npu_source *source) {
    double bytes = 0;
    for (size_t i = 0; i < source->n_weights; i++) {
        bytes += (double)source->weights[i].bytes;
    }
    return times->compile_s + (times->compile_gb_s > 0 ? bytes / (times->compile_gb_s * 1e9) : 0);
}

/* Beside a compile the device takes longer. */
static double evaluate_seconds(const struct kiln_npu_times *times, double flop) {
    const double seconds =
        times->dispatch_s + (times->tflops > 0 ? flop / (times->tflops * 1e12) : 0);
    const bool beside = __atomic_load_n(&compiling, __ATOMIC_RELAXED) > 0;
    return beside && times->beside > 0 ? seconds * times->beside : seconds;
}

/* ---- compile -------------------------------------------------------------------------------- */

struct shelf {
    const struct kiln_npu_weight *weights;
    size_t n;
};

static const void *find_weight(void *context, const char *path, size_t *bytes) {
    static const char prefix[] = "@model_path/weights/";
    const struct shelf *shelf = context;
    if (strncmp(path, prefix, sizeof prefix - 1) != 0) {
        return NULL;
    }
    for (size_t i = 0; i < shelf->n; i++) {
        if (strcmp(shelf->weights[i].name, path + sizeof prefix - 1) == 0) {
            *bytes = shelf->weights[i].bytes;
            return shelf->weights[i].data;
        }
    }
    return NULL;
}

/* Read, check and plan a text with its weights. */
static enum kiln_status bake(const struct sim *sim, const char *label, const char *text,
                             size_t bytes, struct shelf shelf, struct kiln_mil_graph *graph,
                             struct kiln_sim_plan *plan, struct kiln_err *err) {
    KILN_TRY(kiln_mil_parse(label, text, bytes, find_weight, &shelf, graph, err));
    enum kiln_status status = kiln_sim_check(graph, label, &sim->options.limits, NULL, err);
    if (status == KILN_OK) {
        status = kiln_sim_plan_open(graph, &sim->options.numbers, plan, err);
    }
    if (status != KILN_OK) {
        kiln_mil_close(graph);
    }
    return status;
}

/* Another thread than the pool's owner does that as a guest. */
static enum kiln_status build(const struct sim *sim, const char *label, const char *text,
                              size_t bytes, struct shelf shelf, struct kiln_mil_graph *graph,
                              struct kiln_sim_plan *plan, struct kiln_err *err) {
    kiln_pool_guest_enter(sim->machine.workers.pool);
    const enum kiln_status status = bake(sim, label, text, bytes, shelf, graph, plan, err);
    kiln_pool_guest_leave(sim->machine.workers.pool);
    return status;
}

static void free_program(struct kiln_npu_program *program) {
    for (size_t i = 0; i < program->n_bindings; i++) {
        kiln_free(program->bindings[i].surfaces);
    }
    kiln_free(program->bindings);
    if (program->plan.graph) {
        kiln_sim_plan_close(&program->plan);
        kiln_mil_close(&program->graph);
    }
    kiln_free(program->text);
    kiln_free(program);
}

static enum kiln_status compile(struct kiln_npu_runtime *runtime,
                                const struct kiln_npu_source *source, struct kiln_npu_program **out,
                                struct kiln_err *err) {
    struct sim *sim = sim_of(runtime);
    uint64_t budget = sim->options.limits.value[KILN_SIM_COMPILE_BUDGET];
    double start = kiln_now_s();
    *out = NULL;
    KILN_REQUIRE(spend(&used.compiles, budget), err, KILN_EBUDGET,
                 "compile %s: this process has compiled %llu programs, and compile-budget allows "
                 "no more; go on in a new process",
                 source->label, (unsigned long long)budget);
    struct kiln_npu_program *program = kiln_alloc(1, sizeof *program);
    if (program) {
        program->text = kiln_strndup(source->text, source->bytes);
    }
    enum kiln_status status;
    if (!program || !program->text) {
        status = KILN_FAIL(err, KILN_ENOMEM, "compile %s: no memory for its text of %zu bytes",
                           source->label, source->bytes);
    } else {
        snprintf(program->label, sizeof program->label, "%s", source->label);
        program->bytes = source->bytes;
        struct shelf shelf = {source->weights, source->n_weights};
        status = build(sim, source->label, source->text, source->bytes, shelf, &program->graph,
                       &program->plan, err);
    }
    if (status != KILN_OK) {
        give_back(&used.compiles);
        if (program) {
            free_program(program);
        }
        return status;
    }
    __atomic_fetch_add(&sim->base.compiles, 1, __ATOMIC_RELAXED);
    charge(sim, start, compile_seconds(&sim->options.times.device, source));
    *out = program;
    return KILN_OK;
}

static enum kiln_status sim_compile(struct kiln_npu_runtime *runtime,
                                    const struct kiln_npu_source *source,
                                    struct kiln_npu_program **out, struct kiln_err *err) {
    __atomic_fetch_add(&compiling, 1, __ATOMIC_RELAXED);
    const enum kiln_status status = compile(runtime, source, out, err);
    __atomic_fetch_sub(&compiling, 1, __ATOMIC_RELAXED);
    return status;
}

/* ---- load, bind, evaluate ------------------------------------------------------------------- */

static enum kiln_status sim_load(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                                 struct kiln_err *err) {
    struct sim *sim = sim_of(runtime);
    uint64_t budget = sim->options.limits.value[KILN_SIM_LOAD_BUDGET];
    double start = kiln_now_s();
    KILN_REQUIRE(!program->loaded, err, KILN_EDEVICE, "load %s: it is loaded", program->label);
    KILN_REQUIRE(spend(&used.loads, budget), err, KILN_EBUDGET,
                 "load %s: this process has %llu programs loaded, and load-budget allows no more; "
                 "release some",
                 program->label, (unsigned long long)budget);
    enum kiln_status status = KILN_OK;
    if (program->plan.floats > sim->machine.floats) { /* only loads change it: one at a time */
        pthread_mutex_lock(&sim->running);
        status = kiln_sim_machine_grow(&sim->machine, program->plan.floats, err);
        pthread_mutex_unlock(&sim->running);
    }
    if (status != KILN_OK) {
        give_back(&used.loads);
        return status;
    }
    program->loaded = true;
    __atomic_fetch_add(&sim->base.loaded, 1, __ATOMIC_RELAXED);
    charge(sim, start, sim->options.times.device.load_s);
    return KILN_OK;
}

/* The surfaces' sizes, inputs and outputs in one array. */
static enum kiln_status check_surfaces(const struct sim *sim,
                                       const struct kiln_npu_program *program,
                                       struct kiln_npu_surface *const *surfaces, size_t *bytes,
                                       size_t n_inputs, size_t n_outputs, struct kiln_err *err) {
    for (size_t i = 0; i < n_inputs + n_outputs; i++) {
        bytes[i] = surfaces[i]->bytes;
    }
    return kiln_sim_check_surfaces(&program->graph, program->label, bytes, n_inputs,
                                   bytes + n_inputs, n_outputs, &sim->options.limits, NULL, err);
}

static enum kiln_status add_binding(struct kiln_npu_program *program,
                                    struct kiln_npu_surface **surfaces, struct kiln_err *err) {
    size_t n = program->n_bindings;
    struct binding *more = program->bindings
                               ? kiln_realloc(program->bindings, n, n + 1, sizeof *more)
                               : kiln_alloc(1, sizeof *more);
    KILN_REQUIRE(more, err, KILN_ENOMEM, "bind %s: no memory for %zu bindings", program->label,
                 n + 1);
    program->bindings = more;
    program->bindings[n].surfaces = surfaces;
    program->n_bindings++;
    return KILN_OK;
}

static enum kiln_status sim_bind(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                                 struct kiln_npu_surface *const *inputs, size_t n_inputs,
                                 struct kiln_npu_surface *const *outputs, size_t n_outputs,
                                 size_t *binding, struct kiln_err *err) {
    size_t n = n_inputs + n_outputs;
    KILN_REQUIRE(program->loaded, err, KILN_EDEVICE, "bind %s: it is not loaded", program->label);
    struct kiln_npu_surface **surfaces = kiln_alloc(n, sizeof(void *));
    size_t *bytes = kiln_alloc(n, sizeof *bytes);
    enum kiln_status status = KILN_OK;
    if (!surfaces || !bytes) {
        status =
            KILN_FAIL(err, KILN_ENOMEM, "bind %s: no memory for %zu surfaces", program->label, n);
    } else {
        for (size_t i = 0; i < n; i++) {
            surfaces[i] = i < n_inputs ? inputs[i] : outputs[i - n_inputs];
        }
        status =
            check_surfaces(sim_of(runtime), program, surfaces, bytes, n_inputs, n_outputs, err);
    }
    if (status == KILN_OK) {
        status = add_binding(program, surfaces, err);
    }
    kiln_free(bytes);
    if (status != KILN_OK) {
        kiln_free(surfaces);
        return status;
    }
    *binding = program->n_bindings - 1;
    return KILN_OK;
}

enum { SURFACES = 128 }; /* of which the addresses fit on the stack */

static enum kiln_status sim_evaluate(struct kiln_npu_runtime *runtime,
                                     struct kiln_npu_program *program, size_t binding,
                                     struct kiln_err *err) {
    struct sim *sim = sim_of(runtime);
    const struct kiln_mil_graph *graph = &program->graph;
    double start = kiln_now_s();
    KILN_REQUIRE(program->loaded && binding < program->n_bindings, err, KILN_EDEVICE,
                 "evaluate %s: binding %zu of %zu of a program that is%s loaded", program->label,
                 binding, program->n_bindings, program->loaded ? "" : " not");
    size_t n = graph->n_inputs + graph->n_outputs;
    void *few[SURFACES], **at = n <= SURFACES ? few : kiln_alloc(n, sizeof *at);
    KILN_REQUIRE(at, err, KILN_ENOMEM, "evaluate %s: no memory for %zu surfaces", program->label,
                 n);
    for (size_t i = 0; i < n; i++) {
        at[i] = program->bindings[binding].surfaces[i]->data;
    }
    pthread_mutex_lock(&sim->running);
    kiln_sim_evaluate(&sim->machine, &program->plan, (const void *const *)at, at + graph->n_inputs);
    pthread_mutex_unlock(&sim->running);
    if (at != few) {
        kiln_free(at);
    }
    charge(sim, start, evaluate_seconds(&sim->options.times.device, program->plan.flop));
    return KILN_OK;
}

static void sim_release(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program) {
    if (!program) {
        return;
    }
    if (program->loaded) {
        give_back(&used.loads);
        __atomic_fetch_sub(&runtime->loaded, 1, __ATOMIC_RELAXED);
    }
    free_program(program);
}

static enum kiln_status sim_reload(struct kiln_npu_runtime *runtime,
                                   struct kiln_npu_program *program,
                                   const struct kiln_npu_weight *weights, size_t n_weights,
                                   struct kiln_err *err) {
    struct sim *sim = sim_of(runtime);
    struct kiln_mil_graph *graph = kiln_alloc(1, sizeof *graph);
    struct kiln_sim_plan plan;
    double start = kiln_now_s();
    KILN_REQUIRE(graph, err, KILN_ENOMEM, "reload %s: no memory", program->label);
    enum kiln_status status = build(sim, program->label, program->text, program->bytes,
                                    (struct shelf){weights, n_weights}, graph, &plan, err);
    if (status == KILN_OK && sim->options.reload_is_visible) {
        kiln_sim_plan_close(&program->plan);
        kiln_mil_close(&program->graph);
        program->graph = *graph;
        program->plan = plan;
        program->plan.graph = &program->graph;
    } else if (status == KILN_OK) {
        kiln_sim_plan_close(&plan);
        kiln_mil_close(graph);
    }
    kiln_free(graph);
    charge(sim, start, sim->options.times.device.load_s);
    return status;
}

const struct kiln_mil_graph *kiln_sim_program_graph(const struct kiln_npu_program *program) {
    return &program->graph;
}

size_t kiln_sim_program_bytes(const struct kiln_npu_program *program) {
    size_t bytes = program->bytes;
    for (size_t i = 0; i < program->graph.n_values; i++) {
        const struct kiln_mil_value *value = &program->graph.values[i];
        bytes += value->data ? kiln_mil_elements(&value->type) * sizeof *value->data : 0;
    }
    return bytes;
}

/* ---- surfaces ------------------------------------------------------------------------------- */

static enum kiln_status sim_surface_open(struct kiln_npu_runtime *runtime, size_t bytes,
                                         struct kiln_npu_surface **out, struct kiln_err *err) {
    (void)runtime;
    struct kiln_npu_surface *surface = kiln_alloc(1, sizeof *surface);
    void *data = kiln_alloc(bytes, 1);
    *out = NULL;
    if (!surface || !data) {
        kiln_free(surface);
        kiln_free(data);
        return KILN_FAIL(err, KILN_ENOMEM, "no memory for a surface of %zu bytes", bytes);
    }
    *surface = (struct kiln_npu_surface){.data = data, .bytes = bytes};
    *out = surface;
    return KILN_OK;
}

static void sim_surface_close(struct kiln_npu_runtime *runtime, struct kiln_npu_surface *surface) {
    (void)runtime;
    if (surface) {
        kiln_free(surface->data);
        kiln_free(surface);
    }
}

static void *sim_lock(struct kiln_npu_runtime *runtime, struct kiln_npu_surface *surface,
                      bool read_only, struct kiln_err *err) {
    (void)runtime;
    (void)read_only;
    (void)err;
    surface->locks++;
    return surface->data;
}

static enum kiln_status sim_unlock(struct kiln_npu_runtime *runtime,
                                   struct kiln_npu_surface *surface, bool read_only,
                                   struct kiln_err *err) {
    (void)runtime;
    (void)read_only;
    KILN_REQUIRE(surface->locks > 0, err, KILN_EDEVICE,
                 "unlock a surface of %zu bytes: it is not locked", surface->bytes);
    surface->locks--;
    return KILN_OK;
}

/* ---- open and close ------------------------------------------------------------------------- */

static void sim_close(struct kiln_npu_runtime *runtime) {
    if (runtime) {
        kiln_sim_machine_close(&sim_of(runtime)->machine);
        pthread_mutex_destroy(&sim_of(runtime)->running);
        kiln_free(runtime);
    }
}

enum kiln_status kiln_sim_open(struct kiln_pool *pool, const struct kiln_sim_options *options,
                               struct kiln_npu_runtime **out, struct kiln_err *err) {
    static const struct kiln_npu_runtime_ops ops = {.close = sim_close,
                                                    .compile = sim_compile,
                                                    .load = sim_load,
                                                    .bind = sim_bind,
                                                    .evaluate = sim_evaluate,
                                                    .release = sim_release,
                                                    .reload = sim_reload,
                                                    .surface_open = sim_surface_open,
                                                    .surface_close = sim_surface_close,
                                                    .lock = sim_lock,
                                                    .unlock = sim_unlock};
    *out = NULL;
    struct sim *sim = kiln_alloc(1, sizeof *sim);
    KILN_REQUIRE(sim, err, KILN_ENOMEM, "no memory for the simulator");
    sim->base = (struct kiln_npu_runtime){
        .ops = &ops, .name = "sim", .reloads = options->reload_is_visible};
    sim->options = *options;
    pthread_mutex_init(&sim->running, NULL);
    enum kiln_status status = kiln_sim_machine_open(&sim->machine, pool, &options->numbers, err);
    if (status != KILN_OK) {
        sim_close(&sim->base);
        return status;
    }
    snprintf(sim->base.description, sizeof sim->base.description, "simulated on %s",
             sim->machine.kernels.tier);
    *out = &sim->base;
    return KILN_OK;
}

/* SPDX-License-Identifier: MIT
 *
 * bench_plan.c: the plan held against runs: memory by policy, `auto` under limits, the journal, and
 * what a restart costs.
 *
 *   bench_plan [memory|auto|journal|restart]...    all of them without a name
 *
 * Runs are made in a folder under TMPDIR that is removed again. The program ./build/kiln is what
 * restarts; KILN names another.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "base/random.h"
#include "kiln/train.h"
#include "train/optimizer.h"

static char folder[256];

static void die(const char *what, const struct kiln_err *err) {
    fprintf(stderr, "bench_plan: %s: %s\n", what, err ? err->message : "");
    exit(1);
}

/* Token ids by chance: what they are does not matter here. */
static const char *tokens(void) {
    static char path[300];
    enum { COUNT = 200000, VOCAB = 32000 };
    struct kiln_err err;
    snprintf(path, sizeof path, "%s/tokens.u16", folder);
    if (!kiln_path_exists(path)) {
        uint16_t *ids = kiln_alloc(COUNT, sizeof *ids);
        for (uint64_t i = 0; ids && i < COUNT; i++) {
            ids[i] = (uint16_t)kiln_random_below(1, KILN_STREAM_TEST, i, VOCAB);
        }
        if (!ids || kiln_write_file(path, ids, COUNT * sizeof *ids, &err) != KILN_OK) {
            die("tokens", &err);
        }
        kiln_free(ids);
    }
    return path;
}

/* What a run in a process of its own told. */
struct told {
    uint64_t planned_bytes, measured_bytes;
    double planned_s, measured_s;
    size_t full_layers;
    bool fits;
};

static void on_step(void *context, const struct kiln_step_record *record) {
    struct told *told = context;
    told->measured_bytes = record->peak_bytes;
    if (record->step > 1 && (told->measured_s == 0 || record->ms * 1e-3 < told->measured_s)) {
        told->measured_s = record->ms * 1e-3;
    }
}

static void set(struct kiln_settings *s, enum kiln_setting_id id, const char *text) {
    struct kiln_err err;
    if (kiln_settings_set(s, id, text, KILN_FROM_FLAG, &err) != KILN_OK) {
        die("settings", &err);
    }
}

static void run_child(const char *model, const char *activations, const char *memory,
                      struct told *told) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    char out[300];
    snprintf(out, sizeof out, "%s/run", folder);
    if (kiln_settings_init(&s, &err) != KILN_OK) {
        die("settings", &err);
    }
    set(&s, KILN_SETTING_model, model);
    set(&s, KILN_SETTING_data, tokens());
    set(&s, KILN_SETTING_out, out);
    set(&s, KILN_SETTING_activations, activations);
    set(&s, KILN_SETTING_batch, "4");
    set(&s, KILN_SETTING_accum, "1");
    set(&s, KILN_SETTING_steps, "4");
    set(&s, KILN_SETTING_save_every, "0");
    set(&s, KILN_SETTING_eval_every, "0");
    set(&s, KILN_SETTING_eval_windows, "4");
    if (memory) {
        set(&s, KILN_SETTING_memory, memory);
    }
    const struct kiln_observer observer = {.context = told, .on_step = on_step};
    enum kiln_status status = kiln_run_create(&s, &run, &err);
    if (status == KILN_ENOMEM) {
        _exit(0);
    }
    if (status == KILN_OK) {
        const struct kiln_run_info *info = kiln_run_info(run);
        told->fits = true;
        told->planned_bytes = info->memory.total;
        told->planned_s = info->time.step;
        told->full_layers = info->full_layers;
        status = kiln_run_train(run, &observer, NULL, &err);
    }
    if (status != KILN_OK) {
        die(model, &err);
    }
    _exit(0);
}

static struct told run_of(const char *model, const char *activations, const char *memory) {
    struct told *told =
        mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kiln_err err;
    char out[300];
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        run_child(model, activations, memory, told);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        die("a run failed", NULL);
    }
    snprintf(out, sizeof out, "%s/run", folder);
    if (kiln_remove_tree(out, &err) != KILN_OK) {
        die("cleaning up", &err);
    }
    const struct told copy = *told;
    munmap(told, sizeof *told);
    return copy;
}

static void bench_memory(void) {
    static const char *const models[] = {"stories42m", "stories110m"};
    static const char *const policies[] = {"all", "sqrt", "inputs", "none"};
    printf("Memory and time of a step, 4 x 256 tokens, planned and measured\n");
    printf("  %-12s %-7s %12s %12s %7s %10s %10s %7s\n", "model", "keep", "planned MB",
           "measured MB", "ratio", "planned s", "measured s", "ratio");
    for (size_t i = 0; i < 8; i++) {
        const struct told t = run_of(models[i / 4], policies[i % 4], NULL);
        printf("  %-12s %-7s %12.1f %12.1f %7.3f %10.3f %10.3f %7.3f\n", models[i / 4],
               policies[i % 4], (double)t.planned_bytes * 1e-6, (double)t.measured_bytes * 1e-6,
               (double)t.measured_bytes / (double)t.planned_bytes, t.planned_s, t.measured_s,
               t.measured_s / t.planned_s);
    }
}

/* Under three limits: auto against every fixed policy that fits, interleaved. */
static void bench_auto(void) {
    static const char *const policies[] = {"all", "boundary", "sqrt", "every:4", "inputs", "none"};
    const char *model = "stories42m";
    const uint64_t all = run_of(model, "all", NULL).planned_bytes;
    const uint64_t least = run_of(model, "inputs", NULL).planned_bytes;
    printf("auto under a limit, stories42m, 4 x 256 tokens, best of 3 steps, 2 rounds\n");
    printf("  %10s %12s %12s %10s   %s\n", "limit MB", "measured MB", "full layers", "auto s",
           "fastest fixed policy that fits");
    for (int part = 1; part <= 3; part++) {
        char limit[32];
        snprintf(limit, sizeof limit, "%" PRIu64,
                 least + (all - least) * (uint64_t)part / 4 + (1 << 20));
        double best[7] = {0};
        struct told chosen = {0};
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < 7; i++) {
                const struct told t = run_of(model, i < 6 ? policies[i] : "auto", limit);
                if (t.fits && (best[i] == 0 || t.measured_s < best[i])) {
                    best[i] = t.measured_s;
                }
                chosen = t;
            }
        }
        int fastest = -1;
        for (int i = 0; i < 6; i++) {
            if (best[i] > 0 && (fastest < 0 || best[i] < best[fastest])) {
                fastest = i;
            }
        }
        printf("  %10.1f %12.1f %12zu %10.3f   ", atof(limit) * 1e-6,
               (double)chosen.measured_bytes * 1e-6, chosen.full_layers, best[6]);
        if (fastest < 0) {
            printf("none\n");
        } else {
            printf("%s %.3f: auto takes %.3f of it\n", policies[fastest], best[fastest],
                   best[6] / best[fastest]);
        }
    }
}

/* ---- the journal ------------------------------------------------------------------------------
 */

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench_journal(void) {
    enum { ROUNDS = 9 };
    const struct kiln_dims *dims = &kiln_preset_find("stories110m")->dims;
    struct kiln_table *table;
    struct kiln_state *state;
    struct kiln_pool *pool;
    struct kiln_optimizer *optimizer[2];
    struct kiln_err err;
    char path[300];
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    if (kiln_table_create(dims, &table, &err) || kiln_pool_create(kiln_cpu_count(), &pool, &err) ||
        kiln_state_create(path, table, KILN_PRECISION_AUTO, false, &state, &err) ||
        kiln_state_begin(state, &err)) {
        die("journal", &err);
    }
    for (int guarded = 0; guarded < 2; guarded++) {
        const struct kiln_optimizer_parts parts = {
            .table = table,
            .pool = pool,
            .weights = kiln_state_region(state, KILN_WEIGHTS),
            .m = kiln_state_region(state, KILN_MOMENT1),
            .v = kiln_state_region(state, KILN_MOMENT2),
            .gradients = {kiln_state_region(state, KILN_GRADIENTS),
                          kiln_state_region(state, KILN_GRADIENT_EMBEDDING), false},
            .state = guarded ? state : NULL,
            .beta1 = 0.9,
            .beta2 = 0.95,
            .eps = 1e-8,
            .weight_decay = 0.1};
        if (kiln_optimizer_create(&parts, &optimizer[guarded], &err) != KILN_OK) {
            die("journal", &err);
        }
    }
    double ms[2][ROUNDS];
    for (uint64_t i = 0; i < ROUNDS + 1; i++) {
        for (int guarded = 0; guarded < 2; guarded++) {
            const double start = kiln_now_s();
            kiln_optimizer_update(optimizer[guarded], i + 1, 1e-4, 1.0, 1);
            if (i > 0) { /* the first touches the pages */
                ms[guarded][i - 1] = (kiln_now_s() - start) * 1e3;
            }
        }
    }
    qsort(ms[0], ROUNDS, sizeof(double), by_value);
    qsort(ms[1], ROUNDS, sizeof(double), by_value);
    printf("The undo journal, stories110m, AdamW alone in the mapped state, %d rounds\n", ROUNDS);
    printf("  without %.1f ms (%.1f to %.1f), with %.1f ms (%.1f to %.1f): %+.1f %%\n",
           ms[0][ROUNDS / 2], ms[0][0], ms[0][ROUNDS - 1], ms[1][ROUNDS / 2], ms[1][0],
           ms[1][ROUNDS - 1], 100 * (ms[1][ROUNDS / 2] / ms[0][ROUNDS / 2] - 1));
    for (int guarded = 0; guarded < 2; guarded++) {
        kiln_optimizer_destroy(optimizer[guarded]);
    }
    kiln_state_close(state);
    kiln_pool_destroy(pool);
    kiln_table_destroy(table);
    unlink(path);
}

/* ---- restarts ---------------------------------------------------------------------------------
 */

static void bench_restart(void) {
    const char *program = getenv("KILN");
    char command[1200], path[300];
    struct kiln_err err;
    snprintf(command, sizeof command,
             "%s train --model stories110m --data %s --out %s/run --budget 119 "
             "--activations all --batch 1 --accum 1 --steps 8 --save-every 0 --eval-every 0 "
             "--eval-windows 1 --json >%s/out 2>&1",
             program ? program : "build/kiln", tokens(), folder, folder);
    if (system(command) != 0) {
        die(command, NULL);
    }
    snprintf(path, sizeof path, "%s/run/metrics.jsonl", folder);
    char *text;
    size_t size;
    if (kiln_read_file(path, &text, &size, &err) != KILN_OK) {
        die("restart", &err);
    }
    printf("A restart, stories110m, --budget 119: one a step, its compiles not counted\n");
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *o = json_loads(line, 0, NULL);
        printf("  step %lld: restart %.0f ms, compiles %.0f ms, restarts so far %lld\n",
               (long long)json_integer_value(json_object_get(o, "step")),
               json_number_value(json_object_get(o, "restart_ms")),
               json_number_value(json_object_get(o, "compile_ms")),
               (long long)json_integer_value(json_object_get(o, "restarts")));
        json_decref(o);
    }
    kiln_free(text);
    snprintf(path, sizeof path, "%s/run", folder);
    if (kiln_remove_tree(path, &err) != KILN_OK) {
        die("cleaning up", &err);
    }
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } parts[] = {{"memory", bench_memory},
                 {"auto", bench_auto},
                 {"journal", bench_journal},
                 {"restart", bench_restart}};
    const char *tmp = getenv("TMPDIR");
    struct kiln_err err;
    snprintf(folder, sizeof folder, "%s/kiln-bench-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) {
        die("cannot make a folder", NULL);
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++) {
            wanted |= strcmp(argv[a], parts[i].name) == 0;
        }
        if (wanted) {
            parts[i].run();
        }
    }
    return kiln_remove_tree(folder, &err) == KILN_OK ? 0 : 1;
}

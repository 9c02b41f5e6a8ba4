/* SPDX-License-Identifier: MIT
 *
 * test_plan_table.c: one table of plans. Whatever is kept, compiled, recomputed and restarted, a
 * model ends with the same losses and weights, and runs as many layers as its plan says.
 *
 * A row is one run. Each of its processes is a process: the parent forks one that resumes the run
 * and trains until the plan wants a fresh one, or to the end. What the forward pass drops is
 * overwritten with NaN. Some rows are taken; KILN_PLAN_TABLE=all takes every one.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/train.h"
#include "kiln_test.h"
#include "train/executor.h"
#include "train/lasting.h"
#include "train/run_json.h"
#include "train/tiny_run.h"

enum { STEPS = 3 };

/* ---- columns ----------------------------------------------------------------------------------
 */

static const struct {
    const char *name, *settings;
} models[] = {
    {"tiny", "dim=32 hidden=64 layers=3 heads=4 kv-heads=4"},
    {"small", "dim=48 hidden=100 layers=5 heads=4 kv-heads=2"},
};
static const char *const activations[] = {"all",    "boundary", "sqrt", "every:2",
                                          "inputs", "none",     "auto"};
static const char *const schedules[] = {"whole", "split"};
/* A device, and its budgets: enough, some, the least. Where weights are inputs nothing is compiled
 * in a window, and nothing restarts. */
static const struct device {
    const char *name, *settings, *budgets[3];
    bool restarts;
} devices[] = {
    {"cpu", "device=cpu", {"none", "20", "7"}, true},
    {"sim", "device=sim", {"100000", "30", "13"}, true},
    {"plain", "device=sim no-extras=1", {"100000", "20", "7"}, true},
    {"dynamic", "device=sim weight-mode=dynamic", {"100000", "20", "12"}, false},
};
static const struct device *device;
static const char *const accums[] = {"1", "4"};
static const char *const threads[] = {"1", "2"};

enum { MODEL, ACTIVATIONS, SCHEDULE, BUDGET, ACCUM, THREADS, COLUMNS };
static const size_t values[COLUMNS] = {2, 7, 2, 3, 2, 2};
enum { ROWS = 2 * 7 * 2 * 3 * 2 * 2, STRIDE = 5 }; /* STRIDE shares no factor with ROWS */

struct row {
    size_t at[COLUMNS];
};

static struct row row_of(size_t index) {
    struct row row;
    for (size_t i = COLUMNS; i-- > 0; index /= values[i]) {
        row.at[i] = index % values[i];
    }
    return row;
}

/* ---- runs -------------------------------------------------------------------------------------
 */

/* Made, not trained: the rows of a model and accum are copies of one folder. */
static void make_start(size_t model, size_t accum, char *folder) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    char name[64], changes[300];
    snprintf(name, sizeof name, "start-%s-%s-%s", device->name, models[model].name, accums[accum]);
    snprintf(changes, sizeof changes,
             "%s %s accum=%s steps=%d eval-every=2 eval-windows=4 save-every=0", device->settings,
             models[model].settings, accums[accum], STEPS);
    tiny_settings(&s, name, changes);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    kiln_run_close(run);
    snprintf(folder, 4096, "%s", s.out);
    kiln_settings_free(&s);
}

static void flags_of(const struct row *row, struct kiln_settings *s) {
    const struct {
        enum kiln_setting_id id;
        const char *text;
    } flags[] = {{KILN_SETTING_activations, activations[row->at[ACTIVATIONS]]},
                 {KILN_SETTING_schedule, schedules[row->at[SCHEDULE]]},
                 {KILN_SETTING_threads, threads[row->at[THREADS]]},
                 {KILN_SETTING_budget, device->budgets[row->at[BUDGET]]}};
    const bool none = strcmp(device->budgets[row->at[BUDGET]], "none") == 0;
    const size_t n = sizeof flags / sizeof flags[0] - none;
    struct kiln_err err;
    for (size_t i = 0; i < n; i++) {
        CHECK_OK(kiln_settings_set(s, flags[i].id, flags[i].text, KILN_FROM_FLAG, &err), &err);
    }
}

/* What a process tells its parent. */
struct told {
    pid_t pid;
    enum kiln_status status;
    uint32_t weights;
    char message[200];
};

static void run_process(const char *folder, const struct row *row, bool first, struct told *told) {
    struct kiln_settings s;
    struct kiln_run *run = NULL;
    struct kiln_err err = {0};
    CHECK_OK(kiln_settings_init(&s, &err), &err);
    if (first) { /* from then on they are in run.json */
        flags_of(row, &s);
    }
    kiln_poison_dropped = true;
    told->pid = getpid();
    told->status = kiln_run_resume(folder, &s, &run, &err);
    if (told->status == KILN_OK) {
        told->status = kiln_run_train(run, NULL, NULL, &err);
        told->weights = kiln_run_weights_hash(run);
    }
    snprintf(told->message, sizeof told->message, "%s", err.message);
    kiln_run_close(run);
    kiln_settings_free(&s);
}

static struct told next_process(const char *folder, const struct row *row, bool first) {
    struct told told = {0};
    int ends[2], status;
    CHECK(pipe(ends) == 0);
    fflush(NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        run_process(folder, row, first, &told);
        _exit(write(ends[1], &told, sizeof told) == (ssize_t)sizeof told ? 0 : 1);
    }
    close(ends[1]);
    const ssize_t n = read(ends[0], &told, sizeof told);
    close(ends[0]);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(n == (ssize_t)sizeof told && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_EQ(told.pid, child);
    return told;
}

struct outcome {
    uint32_t weights;
    char *metrics;    /* the lasting keys */
    size_t processes; /* different process ids */
    size_t compiles, layer_forwards;
};

static void train_row(const char *folder, const struct row *row, struct outcome *out) {
    enum { MOST = 2000 };
    static pid_t seen[MOST];
    struct told told = {.status = KILN_ERESTART};
    *out = (struct outcome){0};
    for (size_t n = 0; told.status == KILN_ERESTART; n++) {
        CHECK(n < MOST);
        told = next_process(folder, row, n == 0);
        seen[n] = told.pid;
        bool new = true;
        for (size_t i = 0; i < n; i++) {
            new &= seen[i] != told.pid;
        }
        out->processes += new;
    }
    if (told.status != KILN_OK) {
        FAIL("process %zu: %s", out->processes, told.message);
    }
    out->weights = told.weights;
    out->metrics = lasting_metrics(folder);
}

/* ---- what the plan says -----------------------------------------------------------------------
 */

/* Layers that a step runs forward. */
static size_t planned_forwards(const char *folder) {
    char path[4200];
    struct kiln_settings s;
    struct kiln_dims dims;
    struct kiln_profile profile;
    struct kiln_plan_request request;
    struct kiln_estimate estimate;
    struct kiln_err err;
    snprintf(path, sizeof path, "%s/run.json", folder);
    CHECK_OK(kiln_settings_init(&s, &err), &err);
    CHECK_OK(kiln_run_json_read(path, &s, &dims, &profile, &err), &err);
    CHECK_OK(kiln_plan_request_of(&s, &dims, &request, &err), &err);
    request.profile = profile;
    CHECK_OK(kiln_estimate(&request, false, &estimate, &err), &err);
    const size_t layers = dims.layers + estimate.extra_forward_layers;
    kiln_estimate_free(&estimate);
    kiln_settings_free(&s);
    return layers * request.accum;
}

/* Every line of metrics.jsonl counts what the plan says; adds up what was compiled. */
static void read_counts(const char *folder, size_t planned, struct outcome *out) {
    char path[4200], *text;
    size_t size, lines = 0;
    struct kiln_err err;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *all = json_loads(line, 0, NULL);
        CHECK(all != NULL);
        out->layer_forwards = (size_t)json_integer_value(json_object_get(all, "layer_forwards"));
        out->compiles += (size_t)json_integer_value(json_object_get(all, "compiles"));
        json_decref(all);
        lines++;
        if (out->layer_forwards != planned) {
            FAIL("step %zu ran %zu layers forward, planned were %zu", lines, out->layer_forwards,
                 planned);
        }
    }
    kiln_free(text);
    CHECK_EQ(lines, STEPS);
}

/* ---- the table --------------------------------------------------------------------------------
 */

static void print_row(const struct row *row, const struct outcome *o) {
    printf("      %-5s  %-8s  %-5s  %6s  %5s  %7s  %8zu  %8zu  %9zu  %08" PRIx32 "\n",
           models[row->at[MODEL]].name, activations[row->at[ACTIVATIONS]],
           schedules[row->at[SCHEDULE]], device->budgets[row->at[BUDGET]], accums[row->at[ACCUM]],
           threads[row->at[THREADS]], o->layer_forwards, o->compiles, o->processes, o->weights);
}

/* A fresh copy of a start, trained as the row says. */
static void take_row(const char *start, const struct row *row, struct outcome *out) {
    struct kiln_err err;
    const char *folder = test_path("row");
    tiny_copy(start, folder);
    train_row(folder, row, out);
    read_counts(folder, planned_forwards(folder), out);
    print_row(row, out);
    CHECK_OK(kiln_remove_tree(folder, &err), &err);
}

static void check_row(const struct row *row, const struct outcome *o, const struct outcome *want) {
    CHECK_EQ(o->weights, want->weights);
    CHECK_STRING(o->metrics, want->metrics);
    if (row->at[BUDGET] > 0 && device->restarts) {
        CHECK(o->processes >= 3); /* two restarts */
        CHECK(o->compiles > 0);
    } else {
        CHECK_EQ(o->processes, 1);
    }
}

static void take_table(const struct device *on, size_t some) {
    const char *all = getenv("KILN_PLAN_TABLE");
    const size_t stride = all != NULL && strcmp(all, "all") == 0 ? 1 : some;
    static char starts[2][2][4096];
    struct outcome want[2][2];
    bool seen[COLUMNS][7] = {0};
    size_t rows = 0, processes = 0;
    device = on;
    printf(
        "      model  activ.    sched  budget  accum  threads  forwards  compiles  processes  "
        "weights\n");
    for (size_t i = 0; i < 4; i++) { /* everything kept, no budget, one thread: what to expect */
        const struct row plain = {{[MODEL] = i / 2, [SCHEDULE] = 1, [ACCUM] = i % 2}};
        make_start(i / 2, i % 2, starts[i / 2][i % 2]);
        take_row(starts[i / 2][i % 2], &plain, &want[i / 2][i % 2]);
    }
    for (size_t index = 0; index < ROWS; index += stride, rows++) {
        const struct row row = row_of(index);
        const size_t model = row.at[MODEL], accum = row.at[ACCUM];
        struct outcome o;
        take_row(starts[model][accum], &row, &o);
        check_row(&row, &o, &want[model][accum]);
        free(o.metrics);
        processes += o.processes;
        for (size_t i = 0; i < COLUMNS; i++) {
            seen[i][row.at[i]] = true;
        }
    }
    for (size_t i = 0; i < COLUMNS; i++) {
        for (size_t v = 0; v < values[i]; v++) {
            CHECK(seen[i][v]);
        }
    }
    CHECK(want[0][0].weights != want[0][1].weights); /* accum does change the numbers */
    for (size_t i = 0; i < 4; i++) {
        free(want[i / 2][i % 2].metrics);
    }
    printf("      %zu rows, %zu processes\n", rows, processes);
}

TEST_WITHIN(no_plan_changes_a_bit, 600) { take_table(&devices[0], STRIDE); }
TEST_WITHIN(no_plan_changes_a_bit_on_sim, 1800) { take_table(&devices[1], 3 * STRIDE + 2); }
TEST_WITHIN(no_plan_changes_a_bit_on_sim_without_extras, 1800) {
    take_table(&devices[2], 3 * STRIDE + 2);
}
TEST_WITHIN(no_plan_changes_a_bit_with_dynamic_weights, 1800) {
    take_table(&devices[3], 5 * STRIDE);
}

static uint32_t trained_weights(const char *name, const char *changes) {
    struct kiln_run_peek peek;
    struct kiln_err err;
    CHECK_OK(kiln_run_peek(tiny_run(name, changes, NULL), &peek, &err), &err);
    return peek.weights_hash;
}

/* Forward groups that fill the load budget, beside a weightless kernel that is loaded already. */
TEST(a_load_budget_below_the_budget_changes_no_bit) {
    const uint32_t want = trained_weights("free", "layers=7 steps=3");
    CHECK_EQ(trained_weights("tight",
                             "layers=7 steps=3 activations=all budget=900 load-budget=12 "
                             "headroom=0"),
             want);
}

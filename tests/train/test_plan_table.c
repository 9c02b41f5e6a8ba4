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
/* What a process may compile and load, and how many processes a run is at least. */
struct budget {
    const char *name, *flags;
    size_t processes;
};
enum { BUDGETS = 5 };
/* A device, and its budgets: enough, some, the least. Where weights are inputs nothing is compiled
 * in a window, and nothing restarts. Gradients that are delayed are others: each overlap that is
 * no setting of the run itself is to give the same bits. */
static const struct device {
    const char *name, *settings;
    const char *overlaps[2];
    struct budget budgets[BUDGETS];
} devices[] = {
    {"cpu",
     "device=cpu",
     {"exact", "off"},
     {{"none", "", 1}, {"20", "budget=20", 3}, {"7", "budget=7", 3}}},
    {"sim",
     "device=sim",
     {"exact", "off"},
     {{"all", "budget=100000", 1}, {"30", "budget=30", 3}, {"13", "budget=13", 3}}},
    {"plain",
     "device=sim no-extras=1",
     {"exact", "off"},
     {{"all", "budget=100000", 1}, {"20", "budget=20", 3}, {"7", "budget=7", 3}}},
    {"dynamic",
     "device=sim weight-mode=dynamic",
     {"exact", "off"},
     {{"all", "budget=100000", 1}, {"20", "budget=20", 1}, {"12", "budget=12", 1}}},
    {"delayed-fp32",
     "device=cpu precision=fp32 overlap=delayed",
     {NULL},
     {{"none", "", 1},
      {"two", "budget=60 headroom=0 restart=exec", 1},
      {"load", "budget=1000 load-budget=20 headroom=0.05", 2},
      {"20", "budget=20 restart=relay", 2},
      {"7", "budget=7", 3}}},
    {"delayed-bf16",
     "device=cpu precision=bf16 overlap=delayed",
     {NULL},
     {{"none", "restart=relay", 1},
      {"two", "budget=60 load-budget=55 headroom=0.07", 1},
      {"load", "budget=1000 load-budget=12", 2},
      {"20", "budget=20 headroom=0.3", 2},
      {"9", "budget=9 headroom=0", 3}}},
    {"delayed-sim",
     "device=sim overlap=delayed",
     {NULL},
     {{"all", "budget=100000", 1},
      {"two", "budget=120 headroom=0 restart=exec", 1},
      {"load", "budget=1000 load-budget=30 headroom=0.05", 2},
      {"30", "budget=30", 2},
      {"13", "budget=13", 3}}},
    {"delayed-plain",
     "device=sim no-extras=1 overlap=delayed",
     {NULL},
     {{"all", "budget=100000", 1},
      {"two", "budget=60 headroom=0 restart=relay", 1},
      {"load", "budget=1000 load-budget=20 headroom=0.05", 2},
      {"20", "budget=20", 2},
      {"7", "budget=7", 3}}},
};
static const struct device *device;
static const char *const accums[] = {"1", "4"};
static const char *const threads[] = {"1", "2", "3"};

enum { MODEL, ACTIVATIONS, SCHEDULE, BUDGET, ACCUM, THREADS, OVERLAP, COLUMNS };
static size_t values[COLUMNS] = {2, 7, 2, 0, 2, 3, 0}; /* zeros: the device's */

static size_t count_rows(void) {
    size_t rows = 1;
    values[BUDGET] = values[OVERLAP] = 0;
    while (values[BUDGET] < BUDGETS && device->budgets[values[BUDGET]].name) {
        values[BUDGET]++;
    }
    values[OVERLAP] = device->overlaps[0] ? 2 : 1;
    for (size_t i = 0; i < COLUMNS; i++) {
        rows *= values[i];
    }
    return rows;
}

static bool delayed(void) { return !device->overlaps[0]; }

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
    char flags[300];
    const char *overlap = device->overlaps[row->at[OVERLAP]];
    snprintf(flags, sizeof flags, "activations=%s schedule=%s threads=%s %s %s%s",
             activations[row->at[ACTIVATIONS]], schedules[row->at[SCHEDULE]],
             threads[row->at[THREADS]], device->budgets[row->at[BUDGET]].flags,
             overlap ? "overlap=" : "", overlap ? overlap : "");
    tiny_set(s, flags);
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
    struct kiln_forecast forecast;
    struct kiln_plan_request request;
    struct kiln_estimate estimate;
    struct kiln_err err;
    snprintf(path, sizeof path, "%s/run.json", folder);
    CHECK_OK(kiln_settings_init(&s, &err), &err);
    CHECK_OK(kiln_run_json_read(path, &s, &dims, &profile, &forecast, &err), &err);
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
        lines++;
        const json_t *generation = json_object_get(all, "val_generation");
        CHECK_EQ(json_integer_value(json_object_get(all, "staleness")), delayed() && lines > 1);
        CHECK((generation != NULL) == (delayed() && json_object_get(all, "val_loss") != NULL));
        CHECK(!generation || (size_t)json_integer_value(generation) == lines - 1);
        json_decref(all);
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
    printf("      %-5s  %-8s  %-5s  %6s  %5s  %7s  %-7s  %8zu  %8zu  %9zu  %08" PRIx32 "\n",
           models[row->at[MODEL]].name, activations[row->at[ACTIVATIONS]],
           schedules[row->at[SCHEDULE]], device->budgets[row->at[BUDGET]].name,
           accums[row->at[ACCUM]], threads[row->at[THREADS]],
           delayed() ? "delayed" : device->overlaps[row->at[OVERLAP]], o->layer_forwards,
           o->compiles, o->processes, o->weights);
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
    const size_t least = device->budgets[row->at[BUDGET]].processes;
    const bool dynamic = strcmp(device->name, "dynamic") == 0;
    /* In `whole` nothing stays loaded: a delayed run is handed on at each edge. */
    const bool relay = delayed() && strcmp(schedules[row->at[SCHEDULE]], "whole") == 0;
    if (row->at[BUDGET] > 0 && !dynamic) {
        CHECK(o->processes >= least);
        CHECK(o->compiles > 0);
    } else {
        CHECK(relay || o->processes == 1);
    }
}

/* Gradients of other weights: what is learned differs. */
static void check_delayed(const struct outcome *o) {
    const struct device *is = device;
    const struct row plain = {{[SCHEDULE] = 1}};
    struct outcome exact;
    char start[4096];
    struct device without = *device;
    char settings[100];
    snprintf(settings, sizeof settings, "%.*s",
             (int)(strstr(device->settings, " overlap") - device->settings), device->settings);
    without.name = "exact";
    without.settings = settings;
    without.overlaps[0] = "exact";
    device = &without;
    make_start(0, 0, start);
    take_row(start, &plain, &exact);
    CHECK(exact.weights != o->weights);
    free(exact.metrics);
    device = is;
}

static void take_table(const struct device *on, size_t some) {
    const char *all = getenv("KILN_PLAN_TABLE");
    const size_t stride = all != NULL && strcmp(all, "all") == 0 ? 1 : some;
    static char starts[2][2][4096];
    struct outcome want[2][2];
    bool seen[COLUMNS][7] = {0};
    size_t rows = 0, processes = 0;
    device = on;
    const size_t all_rows = count_rows();
    printf(
        "      model  activ.    sched  budget  accum  threads  overlap  forwards  compiles  "
        "processes  "
        "weights\n");
    for (size_t i = 0; i < 4; i++) { /* everything kept, no budget, one thread: what to expect */
        const struct row plain = {{[MODEL] = i / 2, [SCHEDULE] = 1, [ACCUM] = i % 2}};
        make_start(i / 2, i % 2, starts[i / 2][i % 2]);
        take_row(starts[i / 2][i % 2], &plain, &want[i / 2][i % 2]);
    }
    for (size_t index = 0; index < all_rows; index += stride, rows++) {
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
    if (delayed()) {
        check_delayed(&want[0][0]);
    }
    for (size_t i = 0; i < 4; i++) {
        free(want[i / 2][i % 2].metrics);
    }
    printf("      %zu rows, %zu processes\n", rows, processes);
}

/* Strides share no factor with the numbers of rows. */
TEST_WITHIN(no_plan_changes_a_bit, 600) { take_table(&devices[0], 17); }
TEST_WITHIN(no_plan_changes_a_bit_on_sim, 1800) { take_table(&devices[1], 53); }
TEST_WITHIN(no_plan_changes_a_bit_on_sim_without_extras, 1800) { take_table(&devices[2], 53); }
TEST_WITHIN(no_plan_changes_a_bit_with_dynamic_weights, 1800) { take_table(&devices[3], 67); }
TEST_WITHIN(no_plan_changes_a_delayed_bit_in_fp32, 600) { take_table(&devices[4], 71); }
TEST_WITHIN(no_plan_changes_a_delayed_bit_in_bf16, 600) { take_table(&devices[5], 67); }
TEST_WITHIN(no_plan_changes_a_delayed_bit_on_sim, 1800) { take_table(&devices[6], 79); }
TEST_WITHIN(no_plan_changes_a_delayed_bit_on_sim_without_extras, 1800) {
    take_table(&devices[7], 79);
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

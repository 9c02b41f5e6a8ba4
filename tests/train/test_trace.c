/* SPDX-License-Identifier: MIT
 *
 * trace.json: what a reader of the Chrome trace event format needs, rows whose spans do not
 * overlap, sums that are the times of metrics.jsonl, and every step's spans once, however often the
 * run was killed.
 */
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "base/spans.h"
#include "kiln/train.h"
#include "kill_points.h"
#include "kiln_test.h"
#include "train/tiny_run.h"

#define STEPS "steps=4 eval-every=2 save-every=3 overlap=off"

/* ---- the validator ---------------------------------------------------------------------------
 */

static json_t *load(const char *folder) {
    char path[4200];
    json_error_t where;
    snprintf(path, sizeof path, "%s/trace.json", folder);
    json_t *trace = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_array(trace)) {
        FAIL("%s: line %d: %s", path, where.line, where.text);
    }
    return trace;
}

static int64_t whole(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) {
        char *text = json_dumps(object, 0);
        FAIL("no whole number \"%s\" in %s", key, text);
    }
    return json_integer_value(value);
}

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    CHECK(json_is_number(value));
    return json_number_value(value);
}

static const char *text_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    CHECK(json_is_string(value) && json_string_length(value) > 0);
    return json_string_value(value);
}

static bool is_span(const json_t *event) { return strcmp(text_of(event, "ph"), "X") == 0; }

static int kind_of(const json_t *span) {
    for (int kind = 0; kind < KILN_SPAN_KINDS; kind++) {
        if (strcmp(kiln_span_kind_name((enum kiln_span_kind)kind), text_of(span, "cat")) == 0) {
            return kind;
        }
    }
    FAIL("cat %s is no kind of span", text_of(span, "cat"));
}

/* The name that was given to the row of an event before it; NULL: none was. */
static const char *row_name(const json_t *trace, size_t before, const json_t *of) {
    const char *name = NULL;
    for (size_t i = 0; i < before; i++) {
        const json_t *event = json_array_get(trace, i);
        if (!is_span(event) && strcmp(text_of(event, "name"), "thread_name") == 0 &&
            whole(event, "pid") == whole(of, "pid") && whole(event, "tid") == whole(of, "tid")) {
            name = text_of(json_object_get(event, "args"), "name");
        }
    }
    return name;
}

static void check_metadata(const json_t *event) {
    const json_t *args = json_object_get(event, "args");
    CHECK_STRING(text_of(event, "ph"), "M");
    CHECK(text_of(args, "name") != NULL);
    if (strcmp(text_of(event, "name"), "process_name") == 0) {
        CHECK(text_of(args, "boot") != NULL);
        CHECK(number(args, "origin") >= 0);
    } else {
        CHECK_STRING(text_of(event, "name"), "thread_name");
    }
}

/* Spans of work on a micro-batch say which. */
static void check_span(const json_t *span) {
    const json_t *args = json_object_get(span, "args");
    const int kind = kind_of(span);
    CHECK(number(span, "ts") >= 0);
    CHECK(number(span, "dur") >= 0);
    CHECK(whole(args, "step") >= 0);
    CHECK(whole(args, "generation") >= 0 && whole(args, "generation") <= whole(args, "step"));
    if (json_object_get(args, "layer")) {
        CHECK(whole(args, "layer") >= 0);
    }
    if (kind == KILN_SPAN_EVALUATE || kind == KILN_SPAN_SURFACE || kind == KILN_SPAN_DW) {
        CHECK(whole(args, "micro_batch") >= 0);
    }
}

struct at {
    int64_t pid, tid, kind;
    double start, end;
};

static int by_row(const void *a, const void *b) {
    const struct at *x = a, *y = b;
    const int64_t rows = x->pid != y->pid     ? x->pid - y->pid
                         : x->tid != y->tid   ? x->tid - y->tid
                         : x->kind != y->kind ? x->kind - y->kind
                                              : 0;
    return rows != 0 ? (rows > 0) - (rows < 0) : (x->start > y->start) - (x->start < y->start);
}

/* Threads have rows of their own, so nothing in a row overlaps with its kind. */
static void check_rows(const json_t *trace) {
    const size_t n = json_array_size(trace);
    struct at *spans = calloc(n, sizeof *spans);
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(trace, i);
        if (is_span(e)) {
            spans[used++] = (struct at){whole(e, "pid"), whole(e, "tid"), kind_of(e),
                                        number(e, "ts"), number(e, "ts") + number(e, "dur")};
        }
    }
    qsort(spans, used, sizeof *spans, by_row);
    for (size_t i = 1; i < used; i++) {
        const struct at *a = &spans[i - 1], *b = &spans[i];
        const bool same = a->pid == b->pid && a->tid == b->tid && a->kind == b->kind;
        if (same && b->start < a->end - 0.002) { /* three decimals */
            FAIL("%s of row %lld begins at %.3f, before %.3f",
                 kiln_span_kind_name((enum kiln_span_kind)b->kind), (long long)b->tid, b->start,
                 a->end);
        }
    }
    free(spans);
}

/* A trace of a run: all of the above. */
static void check_trace(const json_t *trace) {
    bool spans = false;
    for (size_t i = 0; i < json_array_size(trace); i++) {
        const json_t *event = json_array_get(trace, i);
        CHECK(whole(event, "pid") > 0);
        CHECK(whole(event, "tid") >= 0);
        if (!is_span(event)) {
            check_metadata(event);
            continue;
        }
        check_span(event);
        const char *row = row_name(trace, i, event);
        const char *track = kiln_track_name(kiln_span_track((enum kiln_span_kind)kind_of(event)));
        CHECK(row != NULL);
        CHECK(strncmp(row, track, strlen(track)) == 0);
        spans = true;
    }
    CHECK(spans);
    check_rows(trace);
}

/* ---- against metrics.jsonl -------------------------------------------------------------------
 */

/* The key that reports a kind, or NULL. */
static const char *const reported[KILN_SPAN_KINDS] = {
    [KILN_SPAN_EVALUATE] = "device_ms", [KILN_SPAN_STALL] = "stall_ms",
    [KILN_SPAN_COMPILE] = "compile_ms", [KILN_SPAN_DW_WAIT] = "dw_wait_ms",
    [KILN_SPAN_NORM] = "update_ms",     [KILN_SPAN_UPDATE] = "update_ms",
    [KILN_SPAN_SNAPSHOT] = "update_ms", [KILN_SPAN_SURFACE] = "io_ms",
    [KILN_SPAN_RESTART] = "restart_ms",
};

static bool of_step(const json_t *event, int64_t step) {
    const json_t *args = json_object_get(event, "args");
    return is_span(event) && whole(args, "step") == step && !json_object_get(args, "evaluation");
}

/* Milliseconds of the spans that a key reports. */
static double sum_of(const json_t *trace, int64_t step, const char *key) {
    double sum = 0;
    for (size_t i = 0; i < json_array_size(trace); i++) {
        const json_t *event = json_array_get(trace, i);
        if (of_step(event, step)) {
            const char *by = reported[kind_of(event)];
            sum += by && strcmp(by, key) == 0 ? number(event, "dur") * 1e-3 : 0;
        }
    }
    return sum;
}

static void check_sums(const char *folder, const json_t *trace, int64_t listed) {
    static const char *const keys[] = {"device_ms", "stall_ms", "compile_ms", "dw_wait_ms",
                                       "update_ms", "io_ms",    "restart_ms"};
    struct kiln_err err;
    char path[4200], *text, *rest = NULL;
    size_t size;
    int64_t steps = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
    for (char *one = strtok_r(text, "\n", &rest); one; one = strtok_r(NULL, "\n", &rest)) {
        json_t *line = json_loads(one, 0, NULL);
        const int64_t step = whole(line, "step");
        double parts = 0;
        for (size_t i = 0; step <= listed && i < sizeof keys / sizeof keys[0]; i++) {
            const double want = number(line, keys[i]);
            const double sum = sum_of(trace, step, keys[i]);
            if (fabs(sum - want) > 0.01 * want + 1e-3) {
                FAIL("step %lld: the spans of %s take %.6f ms, metrics.jsonl says %.6f",
                     (long long)step, keys[i], sum, want);
            }
        }
        const char *const of_ms[] = {"device_ms", "host_ms", "update_ms", "stall_ms", "restart_ms"};
        for (size_t i = 0; i < sizeof of_ms / sizeof of_ms[0]; i++) {
            parts += number(line, of_ms[i]);
        }
        CHECK_CLOSE(parts, number(line, "ms"), 1e-6 * number(line, "ms"));
        const double hidden = number(line, "compile_ms") - number(line, "stall_ms");
        CHECK_CLOSE(number(line, "overlap_ms"), hidden > 0 ? hidden : 0, 1e-9);
        json_decref(line);
        steps++;
    }
    CHECK(steps > 0);
    kiln_free(text);
}

/* ---- runs that were not killed -----------------------------------------------------------------
 */

/* To the end: the budget is spent again and again; in turns the run is handed over, and resumed. */
static enum kiln_status train_through(struct kiln_run *run, struct kiln_err *err) {
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", kiln_run_info(run)->folder);
    for (size_t turn = 0;; turn++) {
        enum kiln_status status = kiln_run_train(run, NULL, NULL, err);
        if (status != KILN_ERESTART) {
            kiln_run_close(run);
            return status;
        }
        if (turn % 2 == 0) {
            status = kiln_run_take_over(kiln_run_hand_over(run), folder, &run, err);
        } else {
            kiln_run_close(run);
            status = kiln_run_resume(folder, NULL, &run, err);
        }
        KILN_TRY(status);
    }
}

static const char *whole_run(const char *name, const char *changes) {
    static char folder[4096];
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    tiny_settings(&s, name, changes);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    CHECK_OK(train_through(run, &err), &err);
    snprintf(folder, sizeof folder, "%s", s.out);
    kiln_settings_free(&s);
    return folder;
}

/* The same on a device whose budgets are of the real process: each part in a child. */
static const char *whole_run_in_children(const char *name, const char *changes) {
    static char folder[4096];
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    int status;
    tiny_settings(&s, name, changes);
    snprintf(folder, sizeof folder, "%s", s.out);
    do {
        fflush(NULL);
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            enum kiln_status opened = kiln_path_exists(folder)
                                          ? kiln_run_resume(folder, NULL, &run, &err)
                                          : kiln_run_create(&s, &run, &err);
            opened = opened == KILN_OK ? kiln_run_train(run, NULL, NULL, &err) : opened;
            _exit(opened == KILN_ERESTART ? 2 : opened != KILN_OK);
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
        CHECK(WEXITSTATUS(status) != 1);
    } while (WEXITSTATUS(status) == 2);
    kiln_settings_free(&s);
    return folder;
}

static size_t spans_of(const json_t *trace, int64_t step, enum kiln_span_kind kind) {
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(trace); i++) {
        const json_t *event = json_array_get(trace, i);
        n += of_step(event, step) && kind_of(event) == (int)kind;
    }
    return n;
}

static void check_folder(const char *folder, const char *changes, unsigned kinds) {
    json_t *trace = load(folder);
    check_trace(trace);
    check_sums(folder, trace, 4);
    for (int kind = 0; kind < KILN_SPAN_KINDS; kind++) {
        size_t n = 0;
        for (int64_t step = 1; step <= 4; step++) {
            n += spans_of(trace, step, (enum kiln_span_kind)kind);
        }
        if ((kinds & 1U << kind) && n == 0) {
            FAIL("%s: no span of %s", changes, kiln_span_kind_name((enum kiln_span_kind)kind));
        }
    }
    json_decref(trace);
}

static void check_run(const char *changes, unsigned kinds) {
    check_folder(whole_run("run", changes), changes, kinds);
}

enum {
    BESIDE = 1 << KILN_SPAN_EVALUATE | 1 << KILN_SPAN_COMPILE | 1 << KILN_SPAN_NORM |
             1 << KILN_SPAN_UPDATE | 1 << KILN_SPAN_CHECKPOINT,
    ALWAYS = BESIDE | 1 << KILN_SPAN_STALL, /* with compiles beside there may be none */
    NPU = 1 << KILN_SPAN_SURFACE | 1 << KILN_SPAN_DW,
    RESTARTS = 1 << KILN_SPAN_RESTART,
};

TEST(a_trace_of_the_cpu_is_valid_and_sums_up) { check_run(STEPS, ALWAYS); }
TEST(a_trace_of_many_processes_is_valid_and_sums_up) {
    check_run(STEPS " budget=7", ALWAYS | RESTARTS);
}
TEST(a_trace_of_the_simulator_is_valid_and_sums_up) {
    check_run(STEPS " device=sim", ALWAYS | NPU);
}
TEST(a_trace_of_many_simulated_processes_is_valid_and_sums_up) {
    static const char changes[] = STEPS " device=sim budget=30";
    check_folder(whole_run_in_children("run", changes), changes, ALWAYS | NPU);
}
TEST(a_trace_of_a_recomputing_run_is_valid_and_sums_up) {
    check_run(STEPS " budget=20 schedule=whole activations=none", ALWAYS | RESTARTS);
}
TEST(a_trace_of_compiling_beside_is_valid_and_sums_up) {
    check_run(STEPS " device=sim overlap=exact", BESIDE | NPU);
}
TEST(a_trace_of_one_step_behind_is_valid_and_sums_up) {
    check_run(STEPS " device=sim overlap=delayed", BESIDE | NPU | 1 << KILN_SPAN_SNAPSHOT);
}

TEST(the_first_steps_are_listed_and_no_more) {
    const char *folder = whole_run("run", STEPS " trace-steps=2");
    json_t *trace = load(folder);
    check_trace(trace);
    check_sums(folder, trace, 2);
    CHECK(spans_of(trace, 2, KILN_SPAN_EVALUATE) > 0);
    CHECK_EQ(spans_of(trace, 3, KILN_SPAN_EVALUATE), 0);
    CHECK_EQ(spans_of(trace, 4, KILN_SPAN_NORM), 0);
    json_decref(trace);
    tiny_resume(folder, "steps=6 trace-steps=5");
    trace = load(folder);
    check_trace(trace);
    CHECK_EQ(spans_of(trace, 4, KILN_SPAN_EVALUATE), 0);
    CHECK_EQ(spans_of(trace, 5, KILN_SPAN_EVALUATE), spans_of(trace, 1, KILN_SPAN_EVALUATE));
    CHECK_EQ(spans_of(trace, 6, KILN_SPAN_EVALUATE), 0);
    json_decref(trace);
}

TEST(no_steps_make_no_file) {
    char path[4200];
    snprintf(path, sizeof path, "%s/trace.json", whole_run("run", STEPS " trace-steps=0"));
    CHECK(!kiln_path_exists(path));
}

/* ---- what a file may look like after a death ---------------------------------------------------
 */

/* How many spans a step has of what is the same in every process. */
struct tally {
    size_t passes[8], evaluations[8], norms[8], updates[8];
};

static struct tally tally_of(const json_t *trace) {
    struct tally t = {.passes = {0}};
    for (size_t i = 0; i < json_array_size(trace); i++) {
        const json_t *event = json_array_get(trace, i);
        if (!is_span(event)) {
            continue;
        }
        const json_t *args = json_object_get(event, "args");
        const int64_t step = whole(args, "step");
        const bool evaluation = json_object_get(args, "evaluation") != NULL;
        CHECK(step < 8);
        switch (kind_of(event)) {
            case KILN_SPAN_EVALUATE:
                (evaluation ? t.evaluations : t.passes)[step]++;
                break;
            case KILN_SPAN_NORM:
                t.norms[step]++;
                break;
            case KILN_SPAN_UPDATE:
                t.updates[step]++;
                break;
            default:
                break;
        }
    }
    return t;
}

static void check_tally(const char *folder, const struct tally *want, const char *after, long n) {
    json_t *trace = load(folder);
    check_trace(trace);
    check_sums(folder, trace, 4);
    const struct tally got = tally_of(trace);
    for (size_t step = 0; step < 8; step++) {
        if (got.passes[step] != want->passes[step] || got.norms[step] != want->norms[step] ||
            got.updates[step] != want->updates[step] ||
            got.evaluations[step] != want->evaluations[step]) {
            FAIL(
                "after %s %ld step %zu has %zu passes, %zu norms, %zu updates, %zu evaluations, "
                "not %zu, %zu, %zu, %zu",
                after, n, step, got.passes[step], got.norms[step], got.updates[step],
                got.evaluations[step], want->passes[step], want->norms[step], want->updates[step],
                want->evaluations[step]);
        }
    }
    json_decref(trace);
}

static struct tally expect(const char *changes) {
    json_t *trace = load(whole_run("whole", changes));
    const struct tally t = tally_of(trace);
    json_decref(trace);
    return t;
}

static volatile sig_atomic_t stop;
static void stop_at_2(void *context, const struct kiln_step_record *record) {
    (void)context;
    stop = record->step == 2;
}

/* A run that was stopped after step 2; its trace. */
static const char *stopped_run(const char *name, char path[4200]) {
    static char folder[4096];
    const struct kiln_observer observer = {.on_step = stop_at_2};
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    stop = 0;
    tiny_settings(&s, name, STEPS);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    CHECK_FAILS(kiln_run_train(run, &observer, &stop, &err), KILN_EINTERRUPTED, &err);
    kiln_run_close(run);
    snprintf(folder, sizeof folder, "%s", s.out);
    snprintf(path, 4200, "%s/trace.json", folder);
    kiln_settings_free(&s);
    json_decref(load(folder)); /* valid while nobody trains */
    return folder;
}

/* What a death in the middle of a write leaves behind the events that count. */
TEST(a_torn_tail_is_repaired) {
    static const char *const tails[] = {"", ",", ",\n{\"name\":\"attn_fwd\",\"cat\":\"eval", "\n",
                                        ",\n{\"name\":\"x\",\"args\":{}}"};
    const struct tally want = expect(STEPS);
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        char path[4200], name[16];
        struct stat st;
        snprintf(name, sizeof name, "torn%zu", i);
        const char *folder = stopped_run(name, path);
        CHECK(stat(path, &st) == 0 && truncate(path, st.st_size - 3) == 0);
        FILE *file = fopen(path, "ae");
        CHECK(file && fputs(tails[i], file) >= 0 && fclose(file) == 0);
        tiny_resume(folder, "");
        check_tally(folder, &want, "tail", (long)i);
    }
}

/* Nothing of the run hangs on it: what is left of it is told. */
TEST(a_trace_that_is_gone_or_of_no_use_is_begun_anew) {
    for (int damage = 0; damage < 3; damage++) {
        char path[4200], name[16];
        snprintf(name, sizeof name, "damaged%d", damage);
        const char *folder = stopped_run(name, path);
        CHECK((damage == 0   ? unlink(path)
               : damage == 1 ? truncate(path, 1000)
                             : truncate(path, 0)) == 0);
        tiny_resume(folder, "");
        json_t *trace = load(folder);
        check_trace(trace);
        CHECK_EQ(spans_of(trace, 2, KILN_SPAN_EVALUATE), 0);
        CHECK(spans_of(trace, 3, KILN_SPAN_EVALUATE) > 0);
        json_decref(trace);
    }
}

/* Clocks begin anew; the trace goes on. */
TEST(after_another_boot_time_goes_on_behind_what_there_is) {
    char path[4200];
    kiln_boot_id_instead = "the-first-boot";
    const char *folder = stopped_run("run", path);
    json_t *trace = load(folder);
    const size_t before = json_array_size(trace);
    json_decref(trace);
    kiln_boot_id_instead = "the-second-boot";
    tiny_resume(folder, "");
    kiln_boot_id_instead = NULL;
    trace = load(folder);
    check_trace(trace);
    CHECK(json_array_size(trace) > before);
    double end = 0, latest = 0;
    for (size_t i = 0; i < json_array_size(trace); i++) {
        const json_t *event = json_array_get(trace, i);
        if (!is_span(event)) {
            continue;
        }
        const double start = number(event, "ts");
        latest = fmax(latest, start + number(event, "dur"));
        end = i < before ? latest : end;
        CHECK(i < before || start >= end - 0.002);
    }
    json_decref(trace);
}

/* ---- deaths ----------------------------------------------------------------------------------
 */

static int train(const char *name, const char *changes) {
    struct kiln_err err = {0};
    struct kiln_run *run = NULL;
    enum kiln_status status;
    if (kiln_path_exists(test_path(name))) {
        status = kiln_run_resume(test_path(name), NULL, &run, &err);
    } else {
        struct kiln_settings s;
        tiny_settings(&s, name, changes);
        status = kiln_run_create(&s, &run, &err);
    }
    if (status == KILN_OK) {
        status = train_through(run, &err);
    }
    if (status != KILN_OK) {
        fprintf(stderr, "child: %s\n", err.message);
    }
    return status == KILN_OK ? 0 : 1;
}

/* Train in a child that dies at point n of a kind (0: never). True: it was killed. */
static bool train_child(const char *name, const char *changes, const char *kind, long n) {
    kill_points_arm(kind, n);
    fflush(NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        _exit(train(name, changes));
    }
    kill_points_disarm();
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) {
        CHECK_EQ(WTERMSIG(status), SIGKILL);
        return true;
    }
    CHECK_EQ(WEXITSTATUS(status), 0);
    return false;
}

static void die_at_each(const char *changes, const char *kind, long stride) {
    const struct tally want = expect(changes);
    struct kiln_err err;
    long deaths = 0;
    for (long n = 1;; n += stride) {
        const bool killed = train_child("run", changes, kind, n);
        if (killed) {
            deaths++;
            if (n % 2 == 0 && kiln_path_exists(test_path("run"))) { /* and soon again */
                (void)train_child("run", changes, kind, 1 + n % 5);
            }
            CHECK(!train_child("run", changes, NULL, 0));
        }
        check_tally(test_path("run"), &want, kind ? kind : "point", n);
        CHECK_OK(kiln_remove_tree(test_path("run"), &err), &err);
        if (!killed) {
            break;
        }
    }
    printf("      %ld deaths\n", deaths);
    CHECK(deaths > 10);
}

TEST_WITHIN(a_death_at_a_write_of_the_trace_leaves_each_span_once, 600) {
    die_at_each(STEPS, "trace", 1);
}
TEST_WITHIN(a_death_anywhere_leaves_each_span_once, 600) { die_at_each(STEPS, NULL, 61); }
TEST_WITHIN(a_death_anywhere_one_step_behind_leaves_each_span_once, 600) {
    die_at_each(STEPS " overlap=delayed", NULL, 67);
}
TEST_WITHIN(a_death_between_processes_leaves_each_span_once, 600) {
    die_at_each(STEPS " budget=20 schedule=whole activations=none", "hand-over", 3);
}
TEST_WITHIN(a_death_at_a_write_of_many_processes_leaves_each_span_once, 600) {
    die_at_each(STEPS " budget=7 overlap=exact", "trace", 3);
}

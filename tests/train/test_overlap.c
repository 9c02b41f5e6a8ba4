/* SPDX-License-Identifier: MIT
 *
 * test_overlap.c: kernels compiled beside compute: the delayed rule done by hand, runs stopped
 * wherever a device is called, compiles that fail, and a thousand windows for the thread sanitizer.
 *
 * A device's calls are wrapped: they are counted, one of them fails, or asks the run to stop.
 */
#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"
#include "kiln/verify.h"
#include "kiln_test.h"
#include "train/generation.h"
#include "train/lasting.h"
#include "train/run_int.h"
#include "train/scale.h"
#include "train/tiny_run.h"

/* ---- a device that is watched ------------------------------------------------------------------
 */

static struct watch {
    const struct kiln_device_ops *real;
    struct kiln_device_ops ops;
    atomic_long compiles; /* and what the host prepares */
    long fails_at;        /* that compile fails; 0: none */
    long calls, stops_at; /* of the owner's: at that one the run is asked to stop; 0: never */
    long activations;
    volatile sig_atomic_t stop;
} watch;

static enum kiln_status refused(struct kiln_err *err) {
    return KILN_FAIL(err, KILN_EIO, "the compiler has gone home");
}

static enum kiln_status watched_compile(struct kiln_device *device, size_t set, size_t kind,
                                        size_t layer, const struct kiln_weights *weights,
                                        struct kiln_err *err) {
    return ++watch.compiles == watch.fails_at
               ? refused(err)
               : watch.real->compile(device, set, kind, layer, weights, err);
}

static enum kiln_status watched_prepare(struct kiln_device *device, size_t set,
                                        const struct kiln_weights *weights, struct kiln_err *err) {
    return ++watch.compiles == watch.fails_at ? refused(err)
                                              : watch.real->prepare(device, set, weights, err);
}

static void called(void) { watch.stop |= ++watch.calls == watch.stops_at; }

static void watched_activate(struct kiln_device *device, size_t set,
                             const struct kiln_weights *weights) {
    watch.activations++;
    called();
    watch.real->activate(device, set, weights);
}

static enum kiln_status watched_embed(struct kiln_device *device, const uint32_t *tokens, void *x,
                                      struct kiln_err *err) {
    called();
    return watch.real->embed(device, tokens, x, err);
}

static enum kiln_status watched_forward(struct kiln_device *device, size_t layer,
                                        enum kiln_half half, const void *x_in, void *x_out,
                                        void *taps, bool keep, struct kiln_err *err) {
    called();
    return watch.real->forward(device, layer, half, x_in, x_out, taps, keep, err);
}

static enum kiln_status watched_backward(struct kiln_device *device, size_t layer,
                                         enum kiln_half half, const void *x_in, void *dx,
                                         const void *taps, struct kiln_err *err) {
    called();
    return watch.real->backward(device, layer, half, x_in, dx, taps, err);
}

static void watch_run(struct kiln_run *run, long fails_at, long stops_at) {
    struct kiln_device *device = run->trainer.engine.device;
    watch = (struct watch){
        .real = device->ops, .ops = *device->ops, .fails_at = fails_at, .stops_at = stops_at};
    watch.ops.compile = watched_compile;
    watch.ops.prepare = watched_prepare;
    watch.ops.activate = watched_activate;
    watch.ops.embed = watched_embed;
    watch.ops.forward = watched_forward;
    watch.ops.backward = watched_backward;
    device->ops = &watch.ops;
}

/* ---- runs -------------------------------------------------------------------------------------
 */

struct outcome {
    uint32_t weights;
    char *metrics;
};

/* Made, not trained; returns its folder. */
static const char *make_run(const char *name, const char *changes) {
    static char folder[4096];
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    tiny_settings(&s, name, changes);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    kiln_run_close(run);
    snprintf(folder, sizeof folder, "%s", s.out);
    kiln_settings_free(&s);
    return folder;
}

/* What is left of a process of a run. */
struct left {
    enum kiln_status status;
    struct kiln_err err;
    uint32_t weights;
    struct kiln_cursor cursor;
    size_t threads; /* more than before */
};

static size_t threads_now(void) {
    size_t n = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks && (entry = readdir(tasks)) != NULL;) {
        n += entry->d_name[0] != '.';
    }
    if (tasks) {
        closedir(tasks);
    }
    return n;
}

/* fails_at and stops_at as above. */
static struct left go_here(const char *folder, long fails_at, long stops_at,
                           const struct kiln_observer *observer) {
    struct left left;
    struct kiln_run *run;
    const size_t threads = threads_now();
    CHECK_OK(kiln_run_resume(folder, NULL, &run, &left.err), &left.err);
    watch_run(run, fails_at, stops_at);
    left.status = kiln_run_train(run, observer, &watch.stop, &left.err);
    left.weights = kiln_run_weights_hash(run);
    left.cursor = *kiln_state_cursor(run->trainer.state);
    kiln_run_close(run);
    left.threads = threads_now() - threads;
    return left;
}

/* A simulator counts what its process compiles: each run of it is then one of its own. */
static bool apart;

static struct left go(const char *folder, long fails_at, long stops_at,
                      const struct kiln_observer *observer) {
    struct left left;
    int ends[2], status;
    if (!apart) {
        return go_here(folder, fails_at, stops_at, observer);
    }
    CHECK(pipe(ends) == 0);
    fflush(NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        left = go_here(folder, fails_at, stops_at, observer);
        _exit(write(ends[1], &left, sizeof left) == (ssize_t)sizeof left ? 0 : 1);
    }
    close(ends[1]);
    const ssize_t n = read(ends[0], &left, sizeof left);
    close(ends[0]);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(n == (ssize_t)sizeof left && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return left;
}

/* To the end, with the restarts that the plan has. */
static struct outcome finish(const char *folder, const struct kiln_observer *observer) {
    struct left left;
    do {
        left = go(folder, 0, 0, observer);
    } while (left.status == KILN_ERESTART);
    CHECK_OK(left.status, &left.err);
    return (struct outcome){left.weights, lasting_metrics(folder)};
}

static struct outcome train(const char *name, const char *changes) {
    return finish(make_run(name, changes), NULL);
}

static void check_outcome(const struct outcome *o, const struct outcome *want, const char *what,
                          long n) {
    if (o->weights != want->weights) {
        FAIL("%s %ld: the weights are %08" PRIx32 ", not %08" PRIx32 "; metrics\n%s, not\n%s", what,
             n, o->weights, want->weights, o->metrics, want->metrics);
    }
    CHECK_STRING(o->metrics, want->metrics);
}

/* ---- the delayed rule, by hand -----------------------------------------------------------------
 */

enum { MOST_STEPS = 8 };

struct steps {
    struct kiln_step_record at[MOST_STEPS];
    size_t n;
};

static void see_step(void *context, const struct kiln_step_record *record) {
    struct steps *s = context;
    CHECK(s->n < MOST_STEPS);
    s->at[s->n++] = *record;
}

/* Two copies of the weights, an engine opened anew for each window, an optimizer: no snapshots,
 * no sets, no state. */
struct hand {
    struct kiln_run *run; /* for its table, data and settings */
    struct kiln_plan_request like;
    const struct kiln_table *table;
    struct kiln_pool *pool;
    struct kiln_optimizer *optimizer;
    float *newest, *before, *m, *v, *all, *embedding;
    size_t step;
    double scale, loss, norm;
    uint64_t updates;
};

static float *floats(size_t n) {
    float *at = kiln_alloc(n, sizeof *at);
    CHECK(at != NULL);
    return at;
}

static void hand_open(struct hand *h, const char *folder) {
    struct kiln_err err;
    *h = (struct hand){.loss = 0};
    CHECK_OK(kiln_run_resume(folder, NULL, &h->run, &err), &err);
    h->table = h->run->table;
    h->like = h->run->trainer.engine.request;
    const size_t n = h->table->size;
    h->newest = floats(n);
    h->before = floats(n);
    h->m = floats(n);
    h->v = floats(n);
    h->all = floats(n);
    h->embedding = floats(h->table->dims.vocab * h->table->dims.dim);
    memcpy(h->newest, kiln_state_region(h->run->trainer.state, KILN_WEIGHTS), n * sizeof(float));
    memcpy(h->before, h->newest, n * sizeof(float));
    const struct kiln_settings *s = &h->run->settings;
    CHECK(h->table->dims.tied);
    CHECK_OK(kiln_pool_create(1, &h->pool, &err), &err);
    const struct kiln_optimizer_parts parts = {
        .table = h->table,
        .pool = h->pool,
        .weights = h->newest,
        .m = h->m,
        .v = h->v,
        .gradients = {.all = h->all, .embedding = h->embedding},
        .beta1 = s->beta1,
        .beta2 = s->beta2,
        .eps = s->eps,
        .weight_decay = s->weight_decay,
        .clip = s->clip};
    CHECK_OK(kiln_optimizer_create(&parts, &h->optimizer, &err), &err);
    const double tokens = (double)(s->batch * s->seq * s->accum);
    h->scale = kiln_scale_wanted(h->like.precision) ? kiln_scale_first(tokens) : 1;
}

static void hand_close(struct hand *h) {
    kiln_optimizer_destroy(h->optimizer);
    kiln_pool_destroy(h->pool);
    kiln_run_close(h->run);
    float *const arrays[] = {h->newest, h->before, h->m, h->v, h->all, h->embedding};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        kiln_free(arrays[i]);
    }
}

static void hand_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                       uint32_t *starts) {
    (void)starts;
    const struct hand *h = context;
    const struct kiln_settings *s = &h->run->settings;
    for (size_t b = 0; b < s->batch; b++) {
        kiln_data_train(h->run->trainer.data, (h->step * s->accum + index) * s->batch + b,
                        tokens + b * s->seq, targets + b * s->seq);
    }
}

/* The window's gradients at these weights; its loss. */
static void hand_window(struct hand *h, float *weights) {
    const struct kiln_settings *s = &h->run->settings;
    const double tokens = (double)(s->batch * s->seq * s->accum);
    const struct kiln_plan_request *like = &h->like;
    const struct kiln_device_options options = {.device = like->device,
                                                .shape = {like->batch, like->seq},
                                                .precision = like->precision,
                                                .training = true};
    const struct kiln_plan_request request =
        kiln_plan_simple(h->table, &options, (size_t)s->accum, 1);
    const struct kiln_engine_memory memory = {
        .weights = weights, .optimizer = {.gradients = {.all = h->all, .embedding = h->embedding}}};
    struct kiln_engine engine;
    struct kiln_err err;
    CHECK_OK(kiln_engine_plan(&engine, h->table, &request, &err), &err);
    CHECK_OK(kiln_engine_open(&engine, h->table, &memory, &err), &err);
    engine.executor.scale = (float)(h->scale / tokens);
    kiln_executor_begin(&engine.executor, false, s->accum, hand_batch, h);
    CHECK_OK(kiln_executor_window(&engine.executor, &err), &err);
    h->loss = engine.executor.loss_sum / tokens;
    kiln_engine_close(&engine);
}

/* W(t+1) = update(W(t), gradient at W(max(t-1, 0))); a window that overflows updates nothing. */
static void hand_step(struct hand *h) {
    const bool overflows = kiln_overflow_instead && kiln_overflow_instead(h->step);
    hand_window(h, h->before);
    h->norm = kiln_optimizer_norm(h->optimizer, h->scale);
    memcpy(h->before, h->newest, h->table->size * sizeof(float));
    if (overflows) {
        h->scale /= 2;
    } else {
        kiln_optimizer_update(h->optimizer, ++h->updates,
                              kiln_learning_rate(&h->run->settings, h->step), h->norm, h->scale);
    }
    h->step++;
}

static void check_rule(const char *changes) {
    struct hand h;
    struct steps *seen = /* of the processes of the run */
        mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(seen != MAP_FAILED);
    const struct kiln_observer observer = {.context = seen, .on_step = see_step};
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", make_run("run", changes));
    hand_open(&h, folder);                    /* from the run's weights, before it is trained */
    struct kiln_trainer *t = &h.run->trainer; /* the run is another's from here on */
    kiln_saver_destroy(t->saver);
    t->saver = NULL;
    kiln_engine_close(&t->engine);
    kiln_state_close(t->state);
    t->state = NULL;
    const struct outcome o = finish(folder, &observer);
    CHECK_EQ(seen->n, h.run->settings.steps);
    for (size_t i = 0; i < seen->n; i++) {
        const bool overflows = kiln_overflow_instead && kiln_overflow_instead(i);
        hand_step(&h);
        CHECK_CLOSE(seen->at[i].loss, h.loss, 0);
        CHECK(seen->at[i].skipped == overflows);
        if (!overflows) {
            CHECK_CLOSE(seen->at[i].grad_norm, h.norm, 0);
        }
        CHECK_EQ(seen->at[i].staleness, i > 0);
        const bool evaluated = !(seen->at[i].val_loss != seen->at[i].val_loss);
        CHECK_EQ(seen->at[i].val_generation, evaluated ? (int)i : -1);
    }
    const uint32_t mine = kiln_crc32c(0, h.newest, h.table->size * sizeof(float));
    if (mine != o.weights) {
        FAIL("the run ends with weights %08" PRIx32 ", by hand they are %08" PRIx32, o.weights,
             mine);
    }
    free(o.metrics);
    hand_close(&h);
    munmap(seen, sizeof *seen);
}

static bool third_and_fourth(uint64_t step) { return step == 2 || step == 3; }
static bool first_too(uint64_t step) { return step == 0 || step == 4; }

#define SIX "overlap=delayed steps=6 eval-every=2 save-every=0 clip=0.5 "

TEST(a_delayed_run_follows_the_rule) { check_rule(SIX "precision=fp32"); }
TEST(a_delayed_run_in_bf16_follows_the_rule) { check_rule(SIX "precision=bf16 eval-every=1"); }
TEST(a_delayed_run_on_sim_follows_the_rule) { check_rule(SIX "device=sim"); }
TEST(a_delayed_run_with_a_small_budget_follows_the_rule) {
    check_rule(SIX "precision=fp32 budget=7 layers=3");
}
TEST(a_delayed_run_that_skips_windows_follows_the_rule) {
    kiln_overflow_instead = third_and_fourth;
    check_rule(SIX "precision=fp32");
}
TEST(a_delayed_run_on_sim_that_skips_windows_follows_the_rule) {
    kiln_overflow_instead = third_and_fourth;
    apart = true;
    check_rule(SIX "device=sim no-extras=1 budget=40");
}
TEST(a_delayed_run_that_skips_its_first_window_follows_the_rule) {
    kiln_overflow_instead = first_too;
    check_rule(SIX "device=sim eval-every=1");
}

/* ---- stops ------------------------------------------------------------------------------------
 */

#define STOPPED "steps=4 eval-every=1 save-every=2 keep-checkpoints=1 layers=3 "

/* Asked to stop at every n-th call of the device, process after process, until it is done. */
static size_t stop_always(const char *folder, long n, uint32_t *weights) {
    size_t stops = 0;
    for (;;) {
        const struct left left = go(folder, 0, n, NULL);
        CHECK_EQ(left.threads, 0);
        if (left.status == KILN_OK) {
            *weights = left.weights;
            return stops;
        }
        CHECK(left.status == KILN_ERESTART || left.status == KILN_EINTERRUPTED);
        stops += left.status == KILN_EINTERRUPTED;
        CHECK(stops < 2000);
    }
}

static void stop_everywhere(const char *changes, long first, long stride, long end) {
    struct kiln_err err;
    char start[4096], folder[4096];
    size_t stops = 0;
    const struct outcome want = train("whole", changes);
    snprintf(start, sizeof start, "%s", make_run("start", changes));
    snprintf(folder, sizeof folder, "%s", test_path("run"));
    for (long n = first; n < end; n += stride) {
        tiny_copy(start, folder);
        struct outcome o;
        stops += stop_always(folder, n, &o.weights);
        o.metrics = lasting_metrics(folder);
        check_outcome(&o, &want, "stopped at every call", n);
        free(o.metrics);
        CHECK_OK(kiln_remove_tree(folder, &err), &err);
    }
    free(want.metrics);
    printf("      %zu stops\n", stops);
    CHECK(stops > 10);
}

TEST_WITHIN(an_exact_run_may_be_stopped_anywhere, 120) {
    stop_everywhere(STOPPED "budget=9 headroom=0", 7, 13, 60);
}
TEST_WITHIN(an_exact_run_of_whole_groups_may_be_stopped_anywhere, 120) {
    stop_everywhere(STOPPED "budget=18 schedule=whole", 1, 4, 14);
}
TEST_WITHIN(a_delayed_run_may_be_stopped_anywhere, 120) {
    stop_everywhere(STOPPED "overlap=delayed", 14, 9, 90);
}
TEST_WITHIN(a_delayed_run_of_many_processes_may_be_stopped_anywhere, 120) {
    stop_everywhere(STOPPED "overlap=delayed budget=9 headroom=0", 5, 9, 40);
}
TEST_WITHIN(a_delayed_run_on_sim_may_be_stopped_anywhere, 120) {
    apart = true;
    stop_everywhere(STOPPED "overlap=delayed device=sim budget=70", 9, 25, 90);
}

/* Stopped inside the evaluation behind the last step, then resumed with more steps and without that
 * evaluation: its place is none of the window that comes instead. */
static void stop_in_evaluation(const char *overlap) {
    char start[4096], folder[4096], changes[128];
    struct kiln_run_peek peek;
    struct kiln_err err;
    size_t stops = 0;
    snprintf(changes, sizeof changes, "steps=4 decay=constant eval-every=100 overlap=%s", overlap);
    snprintf(start, sizeof start, "%s", make_run("start", changes));
    snprintf(changes, sizeof changes, "steps=6 decay=constant eval-every=100 overlap=%s", overlap);
    const struct outcome want = train("whole", changes);
    snprintf(folder, sizeof folder, "%s", test_path("run"));
    for (long n = 1;; n++) {
        tiny_copy(start, folder);
        const struct left left = go(folder, 0, n, NULL);
        if (left.status == KILN_OK) {
            break;
        }
        CHECK_EQ(left.status, KILN_EINTERRUPTED);
        if (left.cursor.phase == KILN_PHASE_FINISH && left.cursor.mid != 0) {
            stops++;
            tiny_resume(folder, "steps=6");
            CHECK_OK(kiln_run_peek(folder, &peek, &err), &err);
            CHECK_EQ(peek.weights_hash, want.weights);
        }
        CHECK_OK(kiln_remove_tree(folder, &err), &err);
    }
    free(want.metrics);
    CHECK(stops > 2);
}
TEST_WITHIN(a_place_in_an_evaluation_is_none_of_a_window, 60) { stop_in_evaluation("exact"); }
TEST_WITHIN(a_place_in_a_delayed_evaluation_is_none_of_a_window, 60) {
    stop_in_evaluation("delayed");
}

/* ---- compiles that fail ------------------------------------------------------------------------
 */

/* The n-th compile fails; the error comes out, no thread stays, and the run goes on. */
static void fail_everywhere(const char *changes, long first, long stride, size_t least) {
    struct kiln_err err;
    char start[4096], folder[4096];
    size_t failures = 0;
    const struct outcome want = train("whole", changes);
    snprintf(start, sizeof start, "%s", make_run("start", changes));
    snprintf(folder, sizeof folder, "%s", test_path("run"));
    for (long n = first;; n += stride, failures++) {
        tiny_copy(start, folder);
        const struct left left = go(folder, n, 0, NULL);
        CHECK_EQ(left.threads, 0);
        const bool failed = left.status != KILN_OK && left.status != KILN_ERESTART;
        if (failed) {
            CHECK_FAILS(left.status, KILN_EIO, &left.err);
            CHECK_CONTAINS(left.err.message, "the compiler has gone home");
        }
        const struct outcome o = finish(folder, NULL);
        check_outcome(&o, &want, "failed compile", n);
        free(o.metrics);
        CHECK_OK(kiln_remove_tree(folder, &err), &err);
        if (!failed) {
            break;
        }
    }
    free(want.metrics);
    printf("      %zu failures\n", failures);
    CHECK(failures >= least);
}

#define FAILED "steps=3 eval-every=2 save-every=2 keep-checkpoints=1 "

TEST(a_compile_that_fails_beside_an_exact_run_ends_it) {
    fail_everywhere(FAILED "budget=1000", 1, 3, 9);
}
TEST(a_compile_that_fails_in_a_run_without_overlap_ends_it) {
    fail_everywhere(FAILED "budget=1000 overlap=off", 2, 5, 5);
}
TEST(a_compile_that_fails_beside_a_delayed_run_ends_it) {
    fail_everywhere(FAILED "overlap=delayed", 1, 2, 9);
}
TEST(a_compile_that_fails_beside_a_delayed_run_on_sim_ends_it) {
    apart = true;
    fail_everywhere(FAILED "overlap=delayed device=sim", 1, 5, 5);
}

/* Each kernel of the next set, and what the host prepares of it: the window is finished on the
 * active set, and nothing is swapped. */
TEST(a_next_set_that_fails_leaves_the_active_one) {
    struct kiln_err err;
    char start[4096], folder[4096];
    const char *changes = "overlap=delayed steps=2 eval-every=0 save-every=0 layers=2";
    snprintf(start, sizeof start, "%s", make_run("start", changes));
    snprintf(folder, sizeof folder, "%s", test_path("run"));
    for (long n = 12; n <= 22; n++) { /* 5 a layer and the shared one were first */
        struct kiln_run *run;
        tiny_copy(start, folder);
        CHECK_OK(kiln_run_resume(folder, NULL, &run, &err), &err);
        watch_run(run, n, 0);
        CHECK_FAILS(kiln_run_train(run, NULL, NULL, &err), KILN_EIO, &err);
        const struct kiln_cursor *cursor = kiln_state_cursor(run->trainer.state);
        CHECK_EQ(cursor->step, 1);
        CHECK_EQ(cursor->phase, KILN_PHASE_UPDATE);
        CHECK_EQ(watch.activations, 0);
        CHECK_EQ(run->trainer.engine.device->set, 0);
        CHECK_EQ(run->trainer.engine.device->counts.loaded, 11); /* the active set, no more */
        kiln_run_close(run);
        CHECK_OK(kiln_remove_tree(folder, &err), &err);
    }
}

/* ---- what else happens beside
 * --------------------------------------------------------------------
 */

/* Samples, evaluations and checkpoints change no bit of what is trained, and it can be verified. */
TEST_WITHIN(what_is_done_beside_training_changes_no_bit, 120) {
    static const char *const overlaps[] = {"budget=1000 overlap=off", "budget=1000 overlap=exact",
                                           "overlap=delayed", "budget=30 overlap=delayed"};
    uint32_t plain = 0, delayed = 0;
    for (size_t i = 0; i < sizeof overlaps / sizeof overlaps[0]; i++) {
        for (int more = 0; more < 2; more++) {
            char changes[300], name[32];
            struct kiln_replay_result result;
            struct kiln_err err;
            snprintf(name, sizeof name, "run%zu-%d", i, more);
            snprintf(changes, sizeof changes, "steps=3 layers=3 vocab=259 %s %s", overlaps[i],
                     more ? "sample-every=1 eval-every=1 save-every=1 prompt=The"
                          : "eval-every=0 save-every=2");
            const struct outcome o = train(name, changes);
            uint32_t *want = i < 2 ? &plain : &delayed;
            *want = *want == 0 ? o.weights : *want;
            CHECK_EQ(o.weights, *want);
            free(o.metrics);
            const struct kiln_replay_options how = {
                .run = test_path(name), .from = KILN_UNSET, .steps = KILN_UNSET};
            CHECK_OK(kiln_verify_run(&how, &result, &err), &err);
            CHECK(result.pass);
            kiln_replay_free(&result);
        }
    }
    CHECK(plain != delayed);
}

/* The least --memory that such a run takes. */
static unsigned long long least_memory(const char *changes) {
    static const char says[] = "the smallest plan needs ";
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    char all[500];
    snprintf(all, sizeof all, "%s memory=1M", changes);
    tiny_settings(&s, "refused", all);
    CHECK(kiln_run_create(&s, &run, &err) != KILN_OK);
    kiln_settings_free(&s);
    const char *at = strstr(err.message, says);
    CHECK(at != NULL);
    return strtoull(at + sizeof says - 1, NULL, 10);
}

/* Weights leave the memory as soon as they are compiled, on whatever thread. */
TEST_WITHIN(a_state_larger_than_memory_changes_no_bit, 120) {
    static const char *const overlaps[] = {"budget=1000", "overlap=delayed"};
    uint32_t weights[2] = {0, 0};
    for (size_t i = 0; i < sizeof overlaps / sizeof overlaps[0]; i++) {
        for (int walked = 0; walked < 2; walked++) {
            char changes[500], name[32], folder[4096];
            struct kiln_run *run;
            struct kiln_err err;
            size_t n = (size_t)snprintf(changes, sizeof changes,
                                        "steps=2 eval-every=1 dim=256 hidden=1024 vocab=259 "
                                        "layers=8 batch=1 accum=1 save-every=0 %s",
                                        overlaps[i]);
            if (walked) {
                snprintf(changes + n, sizeof changes - n, " memory=%llu", least_memory(changes));
            }
            snprintf(name, sizeof name, "run%zu-%d", i, walked);
            snprintf(folder, sizeof folder, "%s", make_run(name, changes));
            CHECK_OK(kiln_run_resume(folder, NULL, &run, &err), &err);
            CHECK(kiln_state_walks(run->trainer.state) == (walked == 1));

            kiln_run_close(run);
            const struct outcome o = finish(folder, NULL);
            uint32_t *want = &weights[i];
            *want = *want == 0 ? o.weights : *want;
            CHECK_EQ(o.weights, *want);
            free(o.metrics);
        }
    }
}

/* The state is lost; the newest checkpoint holds both generations. */
TEST(a_delayed_run_goes_on_from_a_checkpoint) {
    static const char *const devices[] = {"", "device=sim", "precision=fp32 budget=7"};
    for (size_t i = 0; i < 3; i++) {
        char changes[200], folder[4096], path[4200], name[16];
        struct left left = {.status = KILN_ERESTART};
        apart = i == 1;
        snprintf(changes, sizeof changes, "overlap=delayed steps=6 eval-every=1 save-every=2 %s",
                 devices[i]);
        snprintf(name, sizeof name, "whole%zu", i);
        const struct outcome want = train(name, changes);
        snprintf(name, sizeof name, "run%zu", i);
        snprintf(folder, sizeof folder, "%s", make_run(name, changes));
        while (left.status == KILN_ERESTART) {
            left = go(folder, 0, i == 2 ? 0 : 130, NULL);
        }
        CHECK(i == 2 ? left.status == KILN_OK : left.status == KILN_EINTERRUPTED);
        snprintf(path, sizeof path, "%s/checkpoints/step-4", folder);
        if (!kiln_path_exists(path)) {
            snprintf(path, sizeof path, "%s/checkpoints/step-2", folder);
        }
        CHECK(kiln_path_exists(path));
        snprintf(path, sizeof path, "%s/state.kiln", folder);
        CHECK(remove(path) == 0);
        const struct outcome o = finish(folder, NULL);
        check_outcome(&o, &want, "restored", (long)i);
        free(o.metrics);
        free(want.metrics);
    }
}

/* ---- races ------------------------------------------------------------------------------------
 */

#define RACES                                                                                 \
    "dim=16 hidden=32 heads=2 kv-heads=1 layers=2 vocab=259 seq=8 batch=1 accum=1 threads=2 " \
    "eval-every=50 eval-windows=2 save-every=100 keep-checkpoints=1 trace-steps=20 "

static void race(const char *changes, long steps) {
    char all[500];
    const char *name = "race";
    snprintf(all, sizeof all, RACES "steps=%ld %s", steps, changes);
    const struct outcome o = train(name, all);
    free(o.metrics);
}

TEST_WITHIN(a_thousand_exact_windows_on_cpu, 120) { race("budget=100000", 1000); }
TEST_WITHIN(a_thousand_delayed_windows_on_cpu, 120) { race("overlap=delayed", 1000); }
TEST_WITHIN(a_thousand_exact_windows_on_sim, 120) { race("device=sim budget=100000", 1000); }
TEST_WITHIN(a_thousand_delayed_windows_on_sim, 120) {
    race("device=sim overlap=delayed budget=100000", 1000);
}

/* SPDX-License-Identifier: MIT
 *
 * train.c: kiln train: make a run or go on with one, and say how it goes.
 *
 * What is said while it trains is watch.c's. With --json nothing but the last object is printed.
 */
#include "kiln/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "dashboard.h"
#include "kiln/ranks.h"
#include "kiln/report.h"
#include "minutes.h"
#include "output.h"
#include "plan.h"
#include "runs.h"
#include "self.h"
#include "stop.h"
#include "supervisor.h"
#include "watch.h"
#include "worker.h"

struct flags {
    const char *resume, *successor;
    uint64_t take_over, since, worker;
    double began, deadline;
    bool dry_run, json, dashboard;
    uint64_t port;
};

static const struct option options[] = {
    {"resume", 0, OPTION_TEXT, "RUN", NULL, "go on with this run folder; needs no other flag",
     GROUP_RUN, 0, 0, offsetof(struct flags, resume)},
    {"dry-run", 0, OPTION_SWITCH, NULL, NULL, "print the plan, every action of a window; train not",
     GROUP_PLANNING, 0, 0, offsetof(struct flags, dry_run)},
    {"dashboard", 0, OPTION_SWITCH, NULL, NULL,
     "a live page of the run, at an address that is printed (kiln dashboard)", GROUP_RUN, 0, 0,
     offsetof(struct flags, dashboard)},
    {"port", 0, OPTION_COUNT, "N", NULL, "of --dashboard (7860, or the next free one)", GROUP_RUN,
     0, 65535, offsetof(struct flags, port)},
    {"take-over", 0, OPTION_COUNT, "FD", NULL, NULL, GROUP_RUN, 0, INT32_MAX,
     offsetof(struct flags, take_over)}, /* of a process that replaced itself */
    {"since", 0, OPTION_COUNT, "STEP", NULL, NULL, GROUP_RUN, 0, 1e15,
     offsetof(struct flags, since)}, /* the last step before the first of these processes */
    {"began", 0, OPTION_REAL, "SECONDS", NULL, NULL, GROUP_RUN, 0, 1e15,
     offsetof(struct flags, began)}, /* when that one began to train */
    {"deadline", 0, OPTION_REAL, "SECONDS", NULL, NULL, GROUP_RUN, 0, 1e15,
     offsetof(struct flags, deadline)}, /* of --minutes, given to that one */
    {"worker", 0, OPTION_COUNT, "FD", NULL, NULL, GROUP_RUN, 1, INT32_MAX,
     offsetof(struct flags, worker)}, /* of a supervisor (relay.h) */
    {"successor", 0, OPTION_TEXT, "PLACE", NULL, NULL, GROUP_RUN, 0, 0,
     offsetof(struct flags, successor)}, /* of an owner that still trains */
    OPTION_JSON(struct flags),
    OPTION_END,
};

#define SETTING_ID(type, member, ...) KILN_SETTING_##member,
static const enum kiln_setting_id settings[] = {KILN_SETTINGS(SETTING_ID)};
#undef SETTING_ID

/* Of steps that other processes took, so many bytes of metrics.jsonl are enough to go on with a
 * smoothed loss; a hand-over does not wait for more. */
enum { TAIL = 1 << 16 };

/* ---- a successor that starts early (relay.h) --------------------------------------------------
 */

static void relay_start(void *context, const char *place) {
    (void)context;
    worker_start(place);
}

static bool relay_wait(void *context, double *since) {
    char why[RELAY_LINE], text[RELAY_LINE + 80];
    if (worker_wait(why, since)) {
        return true;
    }
    if (why[0] != '\0') {
        snprintf(text, sizeof text, "no successor could be started (%s); this process is replaced",
                 why);
        watch_notice(context, text);
    }
    return false;
}

/* Opened beside the owner, and ours when this returns. A failure beside it is for the supervisor to
 * tell. */
static enum kiln_status succeed(const struct flags *flags, struct kiln_run **run,
                                struct kiln_err *err) {
    relay_point("relay: begun");
    const enum kiln_status status =
        kiln_run_succeed((int)flags->take_over, flags->resume, flags->successor, run, err);
    if (status != KILN_OK) {
        worker_failed(err->message);
        exit(1);
    }
    worker_ready(kiln_run_ahead_since(*run));
    KILN_TRY(kiln_run_go(*run, err));
    relay_point("relay: taken over");
    relay_role("owner");
    return KILN_OK;
}

/* The successor is ready and the state is committed for it: it is told first, since nothing of the
 * run is written any more, and closing takes a while. */
static void relieve(struct kiln_run *run) {
    fflush(NULL);
    worker_go(kiln_run_owner_epoch(run));
    kiln_run_close(run);
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- the run -------------------------------------------------------------------------------- */

/* --minutes: what was chosen is said first. */
static enum kiln_status create_for_minutes(const struct call *call, double began,
                                           struct kiln_run **run, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_minutes *minutes;
    enum kiln_status status = KILN_OK;
    KILN_TRY(kiln_minutes_choose(&call->settings, began, &minutes, err));
    if (!flags->json) {
        minutes_print(minutes);
        status = output_finish(err);
    }
    if (status == KILN_OK) {
        status = kiln_run_create_minutes(minutes, run, err);
    }
    kiln_minutes_free(minutes);
    return status;
}

static enum kiln_status open_run(const struct call *call, double began, struct kiln_run **run,
                                 struct kiln_err *err) {
    const struct flags *flags = call->flags;
    if (flags->successor != NULL) {
        KILN_REQUIRE(worker_is() && flags->take_over != KILN_UNSET, err, KILN_EUSAGE,
                     "train: --successor is for kiln itself");
        return succeed(flags, run, err);
    }
    if (flags->take_over != KILN_UNSET) {
        KILN_TRY(kiln_run_take_over((int)flags->take_over, flags->resume, run, err));
        kiln_run_set_deadline(*run, isnan(flags->deadline) ? 0 : flags->deadline);
        return KILN_OK;
    }
    if (flags->resume != NULL) {
        KILN_TRY(need_run(flags->resume, err));
        return kiln_run_resume(flags->resume, &call->settings, run, err);
    }
    KILN_REQUIRE(call->settings.data != NULL, err, KILN_EUSAGE,
                 "train: --data is missing: name a text or token file, as --data book.txt");
    if (!isnan(call->settings.minutes)) {
        return create_for_minutes(call, began, run, err);
    }
    return kiln_run_create(&call->settings, run, err);
}

static enum kiln_status print_json(const struct kiln_run *run, const struct watch *watch,
                                   bool stopped, struct kiln_err *err) {
    const struct kiln_run_info *info = kiln_run_info(run);
    const struct kiln_report_end *end = &watch->end;
    char hash[16];
    snprintf(hash, sizeof hash, "%08" PRIx32, kiln_run_weights_hash(run));
    json_t *object = json_pack(
        "{s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:I, s:f, s:f, s:f, s:I, s:s, s:b, s:I}", "run",
        info->folder, "step", (json_int_t)end->step, "tokens", (json_int_t)watch->run_tokens,
        "first_loss", json_number(end->first_loss), "loss", json_number(end->last_loss), "val_loss",
        json_number(watch->val_loss), "best_val_loss",
        json_number(end->best_val_step > 0 ? end->best_val : (double)NAN), "best_val_step",
        (json_int_t)end->best_val_step, "seconds", end->seconds, "tokens_per_s", end->tokens_per_s,
        "tflops", end->tflops, "peak_bytes", (json_int_t)end->peak_bytes, "weights_hash", hash,
        "interrupted", stopped, "skipped", (json_int_t)end->skipped);
    return json_print(object, err);
}

static enum kiln_status print_start(const struct kiln_run_info *info, struct kiln_err *err) {
    char *text = kiln_report_start(info);
    KILN_REQUIRE(text != NULL, err, KILN_ENOMEM, "out of memory");
    printf("%s\n", text);
    kiln_report_free(text);
    return output_finish(err);
}

static enum kiln_status print_finish(const struct kiln_run *run, struct watch *watch,
                                     struct kiln_err *err) {
    if (watch->end.steps == 0) {
        printf("already at step %" PRIu64 " of %" PRIu64 ": give more --steps\n", watch->end.step,
               watch->settings->steps);
        return output_finish(err);
    }
    screen_end(&watch->screen);
    char *text = kiln_report_finish(kiln_run_info(run), &watch->end);
    KILN_REQUIRE(text != NULL, err, KILN_ENOMEM, "out of memory");
    printf("\n%s", text);
    kiln_report_free(text);
    return output_finish(err);
}

static enum kiln_status stopped(const struct kiln_run_info *info, const struct watch *watch,
                                struct kiln_err *err) {
    return KILN_FAIL(err, KILN_EINTERRUPTED,
                     "stopped after step %" PRIu64 " of %" PRIu64
                     " and saved; to go on: kiln train --resume %s",
                     watch->end.step, watch->settings->steps, info->folder);
}

/* The device's words, and that nothing is lost: the window that failed is taken again. */
static enum kiln_status device_failed(const struct kiln_run_info *info, const struct watch *watch,
                                      struct kiln_err *err) {
    char words[sizeof err->message];
    snprintf(words, sizeof words, "%s", err->message);
    return KILN_FAIL(err, KILN_EDEVICE,
                     "%s; the run is saved after step %" PRIu64
                     "; to go on: kiln train --resume %s",
                     words, watch->end.step, info->folder);
}

/* Training itself, and what is said meanwhile. */
static enum kiln_status train_watched(const struct call *call, struct kiln_run *run,
                                      struct watch *watch, const volatile sig_atomic_t *stop,
                                      struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const struct kiln_run_info *info = kiln_run_info(run);
    const struct kiln_observer observer = watch_observer(watch);
    if (!flags->json && flags->take_over == KILN_UNSET) {
        KILN_TRY(print_start(info, err));
    }
    if (flags->take_over != KILN_UNSET) { /* what the processes before this one did */
        watch->silent = true;
        KILN_TRY(kiln_run_history(info->folder, flags->since, TAIL, &observer, err));
        watch->silent = false;
    }
    if (worker_is() && kiln_run_relays(run)) {
        const struct kiln_relay relay = {watch, relay_start, relay_wait};
        kiln_run_set_relay(run, &relay);
    }
    struct kiln_err ignored; /* no memory for a recorder: training does not need it */
    (void)!kiln_recorder_open(info, watch_notice, watch, &watch->recorder, &ignored);
    const enum kiln_status status = kiln_run_train(run, &observer, stop, err);
    kiln_recorder_close(watch->recorder, status != KILN_ERESTART);
    watch->recorder = NULL;
    if (status == KILN_ERESTART) { /* the line goes on in the next process */
        screen_hand_over(&watch->screen);
    } else {
        screen_finish_line(&watch->screen);
    }
    return status;
}

/* What is said when no process goes on. */
static enum kiln_status train_ended(const struct call *call, const struct kiln_run *run,
                                    struct watch *watch, double began, enum kiln_status status,
                                    struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const struct kiln_run_info *info = kiln_run_info(run);
    if (flags->take_over != KILN_UNSET || watch->again) {
        const bool first = flags->since == KILN_UNSET;
        watch_count(watch, info->folder, first ? info->first_step : flags->since);
    }
    watch_complete(watch, now_s() - began);
    if (status == KILN_EDEVICE) {
        return device_failed(info, watch, err);
    }
    if (status != KILN_OK && status != KILN_EINTERRUPTED) {
        return status;
    }
    if (flags->json) {
        KILN_TRY(print_json(run, watch, status == KILN_EINTERRUPTED, err));
    } else if (status == KILN_OK) {
        KILN_TRY(print_finish(run, watch, err));
        minutes_print_end(info, watch->val_loss);
    }
    return status == KILN_OK ? KILN_OK : stopped(info, watch, err);
}

static enum kiln_status train(const struct call *call, struct kiln_run *run, double began,
                              const volatile sig_atomic_t *stop, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const struct kiln_run_info *info = kiln_run_info(run);
    struct watch watch = {.json = flags->json,
                          .settings = info->settings,
                          .val_loss = (double)NAN,
                          .end.step = info->first_step};
    const bool first = flags->take_over == KILN_UNSET && info->first_step == 0;
    screen_open(&watch.screen, info, first, stop);
    enum kiln_status status = train_watched(call, run, &watch, stop, err);
    if (status != KILN_ERESTART) {
        status = train_ended(call, run, &watch, began, status, err);
    }
    screen_close(&watch.screen);
    return status;
}

/* The run goes on in a fresh process: this program again, told where to go on. */
static struct self_task hand_over(const struct call *call, struct kiln_run *run, double began) {
    const struct flags *flags = call->flags;
    struct self_task task = {
        .began = began, .deadline = kiln_run_deadline(run), .json = flags->json, .worker = -1};
    task.since = flags->since != KILN_UNSET ? flags->since : kiln_run_info(run)->first_step;
    snprintf(task.folder, sizeof task.folder, "%s", kiln_run_info(run)->folder);
    task.descriptor = kiln_run_hand_over(run);
    return task;
}

static enum kiln_status restart(const struct call *call, struct kiln_run *run, double began,
                                struct kiln_err *err) {
    if (worker_is_relieved()) {
        relieve(run);
        return KILN_OK;
    }
    struct self_task task = hand_over(call, run, began);
    if (worker_is()) {
        task.worker = worker_socket();
        worker_keep_socket();
    }
    return self_replace(&task, err);
}

/* The run is made or opened, and trained by others. */
static enum kiln_status supervise(const struct call *call, struct kiln_run *run, double began,
                                  struct kiln_err *err) {
    const struct flags *flags = call->flags;
    int code = 1;
    KILN_TRY(supervisor_listen(err));
    if (!flags->json) {
        KILN_TRY(print_start(kiln_run_info(run), err));
    }
    if (kiln_run_info(run)->notice[0] != '\0') {
        watch_say(kiln_run_info(run)->notice);
    }
    const struct self_task task = hand_over(call, run, began);
    KILN_TRY(supervisor_run(&task, &code, err));
    if (code != 0) {
        exit(code); /* the worker has said why */
    }
    return KILN_OK;
}

/* What training with --minutes would plan. */
static enum kiln_status plan_for_minutes(const struct call *call, struct kiln_plan_request *out,
                                         char name[512], struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_minutes *m;
    KILN_TRY(kiln_minutes_choose(&call->settings, 0, &m, err));
    if (!flags->json) {
        minutes_print(m);
    }
    const struct kiln_profile profile = m->request.plan.profile;
    const uint64_t memory = m->request.plan.memory;
    const enum kiln_status status =
        kiln_plan_request_of(&m->settings, &m->choice.is.dims, out, err);
    out->profile = profile;
    out->memory = memory;
    out->device.times = profile.sim;
    out->device.sim = call->settings.sim;
    snprintf(name, 512, "sizes chosen for %g minutes", m->settings.minutes);
    kiln_minutes_free(m);
    return status;
}

static enum kiln_status dry_run(const struct call *call, struct kiln_err *err) {
    struct kiln_plan_request request;
    struct kiln_estimate estimate;
    char name[512];
    const bool minutes = !isnan(call->settings.minutes);
    KILN_TRY(minutes ? plan_for_minutes(call, &request, name, err)
                     : kiln_run_plan(&call->settings, &request, name, err));
    struct plan_shown shown = {name, call->settings.device, &request, &estimate, NULL, NULL};
    const size_t stages = (size_t)call->settings.pipeline;
    if (stages > 1) { /* of a rank each: nobody else is here */
        request.ranks = (struct kiln_plan_ranks){
            .ranks = stages,
            .link = plan_link((double)NAN, (double)NAN, &shown.link_assumed),
            .local_steps = 1,
            .stages = stages};
    }
    KILN_TRY(kiln_estimate(&request, true, &estimate, err));
    const struct flags *flags = call->flags;
    enum kiln_status status = KILN_OK;
    if (flags->json) {
        status = json_print(plan_json(&shown, true), err);
    } else {
        plan_print(&shown);
        plan_print_trace(&shown);
        status = output_finish(err);
    }
    kiln_estimate_free(&estimate);
    return status;
}

/* Whether it can be had is known before a run is made for it. */
static enum kiln_status check_dashboard(const struct flags *flags, struct kiln_err *err) {
    KILN_REQUIRE(flags->dashboard || flags->port == KILN_UNSET, err, KILN_EUSAGE,
                 "train: --port is of --dashboard; give both, or neither");
    return flags->dashboard ? dashboard_may(flags->port, err) : KILN_OK;
}

/* Started once, by the first process of the run; training goes on without it, too. */
static void start_dashboard(const struct flags *flags, const struct kiln_run *run) {
    char address[DASHBOARD_ADDRESS];
    struct kiln_err err;
    FILE *to = flags->json ? stderr : stdout;
    if (!flags->dashboard) {
        return;
    }
    if (dashboard_beside(kiln_run_info(run)->folder, flags->port, address, &err) != KILN_OK) {
        fprintf(stderr, "kiln: note: %s\n", err.message);
        return;
    }
    fprintf(to, "dashboard: %s\n", address);
    fflush(to);
}

/* One of several processes: rank 0 says all there is to say. */
static enum kiln_status train_silently(const struct call *call, size_t rank, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_run *run_now;
    output_is_of_rank(rank);
    stop_quietly();
    KILN_TRY(flags->resume ? kiln_run_resume(flags->resume, &call->settings, &run_now, err)
                           : kiln_run_create(&call->settings, &run_now, err));
    const enum kiln_status status = kiln_run_train(run_now, NULL, stop_on_signals(), err);
    kiln_run_close(run_now);
    return status;
}

static enum kiln_status train_alone(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_run *run_now = NULL;
    KILN_TRY(check_dashboard(flags, err));
    KILN_TRY(self_open(err));
    if (flags->worker != KILN_UNSET) {
        stop_quietly();
        KILN_TRY(worker_begin((int)flags->worker, flags->successor != NULL, err));
    }
    const double started = now_s();
    KILN_TRY(open_run(call, started, &run_now, err));
    const double began = isnan(flags->began) ? now_s() : flags->began;
    if (flags->take_over == KILN_UNSET) {
        start_dashboard(flags, run_now);
    }
    if (flags->take_over == KILN_UNSET && kiln_run_relays(run_now)) {
        return supervise(call, run_now, began, err);
    }
    const enum kiln_status status = train(call, run_now, began, stop_on_signals(), err);
    if (status == KILN_ERESTART && call->settings.ranks == NULL) {
        return restart(call, run_now, began, err);
    }
    kiln_run_close(run_now);
    return status;
}

/* Ends that all ranks come to together. */
static bool ends_well(enum kiln_status status) {
    return status == KILN_OK || status == KILN_EINTERRUPTED || status == KILN_EDIVERGED ||
           status == KILN_ERESTART;
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct call mine = *call;
    if (flags->dry_run) {
        return dry_run(call, err);
    }
    KILN_TRY(kiln_ranks_open(&mine.settings.ranks, err));
    const size_t rank = kiln_ranks_mine(mine.settings.ranks);
    const enum kiln_status status =
        rank > 0 ? train_silently(&mine, rank, err) : train_alone(&mine, err);
    kiln_ranks_close(mine.settings.ranks, ends_well(status));
    /* mpirun ends all when the first ends badly: let that be rank 0, which has more to say. */
    const bool told = ends_well(status) || err->message[0] == '\0';
    KILN_REQUIRE(
        status != KILN_ERESTART || rank > 0, err, KILN_EBUDGET,
        "the compile budget of these processes is spent, and MPI does not allow them to be "
        "replaced; the run is saved: start it again with --resume");
    return rank > 0 && told ? KILN_OK : status;
}

const struct command command_train = {
    .name = "train",
    .synopsis = "--data FILE [--model M] [options]",
    .summary = "train a model on a text, or go on with a run",
    .details =
        "The model is a preset (random weights; stories15m when none is named), a llama2.c .bin,\n"
        "a .gguf, a Hugging Face folder or a run folder. Sizes override those of a preset. In\n"
        "brackets: the default.\n"
        "Ctrl-C finishes the current action and saves; exit 130. Plan: kiln plan --help.\n"
        "With --minutes all that is not given is chosen for the time and said: kiln plan "
        "--minutes.\n\n"
        "  kiln train --data book.txt --minutes 30\n"
        "  kiln train --data book.txt --steps 200\n"
        "  kiln train --resume runs/stories15m-book --steps 400\n",
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};

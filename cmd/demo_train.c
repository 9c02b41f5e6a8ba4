/* SPDX-License-Identifier: MIT
 *
 * demo_train.c: the demo's training: a fixed model, as many steps as fit into the time, and the
 * loss on stories it never saw falling towards their entropy.
 */
#include "demo.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kiln/bench.h"
#include "kiln/report.h"
#include "output.h"
#include "stop.h"

#define BATCH       1
#define EVALUATIONS 8
#define BAR         40 /* columns of the first held-out loss */

static const struct kiln_dims model_dims = {.dim = 128,
                                            .hidden = 320,
                                            .layers = 3,
                                            .heads = 4,
                                            .kv_heads = 4,
                                            .head_size = 32,
                                            .vocab = DEMO_VOCAB,
                                            .seq = 512,
                                            .tied = true,
                                            .rms_eps = 1e-5f,
                                            .rope_theta = 10000.0f};

/* The rest of the recipe, found by trying: in so short a time many updates of few tokens teach a
 * small model more than few updates of many, or a larger model. */
static const struct {
    enum kiln_setting_id id;
    const char *text;
} recipe[] = {
    {KILN_SETTING_lr, "3e-3"},
    {KILN_SETTING_min_lr, "2e-4"},
    {KILN_SETTING_accum, "1"},
};

/* ---- what is seen --------------------------------------------------------------------------- */

struct sight {
    struct demo *demo;
    bool terminal, unfinished;
    uint64_t total;
    double start, first;
    struct kiln_progress progress;
};

/* A bar that shrinks with the loss. */
static const char *bar(double loss, double first, char buffer[BAR + 1]) {
    int n = first > 0 && isfinite(loss) ? (int)(loss / first * BAR + 0.5) : 0;
    n = n > BAR ? BAR : n < 1 ? 1 : n;
    memset(buffer, '#', (size_t)n);
    buffer[n] = '\0';
    return buffer;
}

static void finish_line(struct sight *sight) {
    if (sight->unfinished) {
        demo_say(sight->demo, "\r\033[K");
        sight->unfinished = false;
    }
}

static void on_step(void *context, const struct kiln_step_record *record) {
    struct sight *sight = context;
    char line[512], hashes[BAR + 1], time[32];
    const size_t columns = terminal_columns();
    sight->progress.columns = columns > 1 ? columns - 1 : 1;
    kiln_progress_line(&sight->progress, record, sight->total, line, sizeof line);
    if (!isnan(record->val_loss)) {
        sight->first = sight->first > 0 ? sight->first : record->val_loss;
        finish_line(sight);
        demo_say(sight->demo, "  %8s %6" PRIu64 " %9.4f  %s\n",
                 kiln_human_time(demo_now_s() - sight->start, time, sizeof time), record->step,
                 record->val_loss, bar(record->val_loss, sight->first, hashes));
    } else if (sight->terminal) {
        demo_say(sight->demo, "\r%s\033[K", line);
        sight->unfinished = true;
    }
}

static void on_notice(void *context, const char *text) {
    struct sight *sight = context;
    finish_line(sight);
    demo_say(sight->demo, "  (%s)\n", text);
}

/* ---- the run -------------------------------------------------------------------------------- */

static enum kiln_status set_count(struct kiln_settings *settings, enum kiln_setting_id id,
                                  size_t value, struct kiln_err *err) {
    char text[32];
    snprintf(text, sizeof text, "%zu", value);
    return kiln_settings_set(settings, id, text, KILN_FROM_FLAG, err);
}

static enum kiln_status set_sizes(struct kiln_settings *settings, struct kiln_err *err) {
    const struct kiln_dims *d = &model_dims;
    KILN_TRY(set_count(settings, KILN_SETTING_dim, d->dim, err));
    KILN_TRY(set_count(settings, KILN_SETTING_hidden, d->hidden, err));
    KILN_TRY(set_count(settings, KILN_SETTING_layers, d->layers, err));
    KILN_TRY(set_count(settings, KILN_SETTING_heads, d->heads, err));
    KILN_TRY(set_count(settings, KILN_SETTING_kv_heads, d->kv_heads, err));
    KILN_TRY(set_count(settings, KILN_SETTING_vocab, d->vocab, err));
    return set_count(settings, KILN_SETTING_seq, d->seq, err);
}

static enum kiln_status set_all(const struct demo *demo, size_t steps,
                                struct kiln_settings *settings, struct kiln_err *err) {
    KILN_TRY(set_sizes(settings, err));
    KILN_TRY(
        kiln_settings_set(settings, KILN_SETTING_data, demo->stories_path, KILN_FROM_FLAG, err));
    KILN_TRY(
        kiln_settings_set(settings, KILN_SETTING_val, demo->held_out_path, KILN_FROM_FLAG, err));
    KILN_TRY(kiln_settings_set(settings, KILN_SETTING_tokenizer, demo->tokenizer_path,
                               KILN_FROM_FLAG, err));
    KILN_TRY(kiln_settings_set(settings, KILN_SETTING_out, demo->run_path, KILN_FROM_FLAG, err));
    for (size_t i = 0; i < sizeof recipe / sizeof recipe[0]; i++) {
        KILN_TRY(kiln_settings_set(settings, recipe[i].id, recipe[i].text, KILN_FROM_FLAG, err));
    }
    KILN_TRY(set_count(settings, KILN_SETTING_seed, demo->flags->seed, err));
    KILN_TRY(set_count(settings, KILN_SETTING_batch, BATCH, err));
    KILN_TRY(set_count(settings, KILN_SETTING_steps, steps, err));
    KILN_TRY(set_count(settings, KILN_SETTING_warmup, steps / 20 + 1, err));
    KILN_TRY(
        set_count(settings, KILN_SETTING_eval_every, (steps + EVALUATIONS - 1) / EVALUATIONS, err));
    KILN_TRY(set_count(settings, KILN_SETTING_eval_windows, 16, err));
    return set_count(settings, KILN_SETTING_save_every, 0, err);
}

/* How many steps fit: a few are timed first, with a share left for evaluations. */
static enum kiln_status choose_steps(const struct demo *demo, size_t *steps, struct kiln_err *err) {
    const struct kiln_settings *s = demo->settings;
    struct kiln_bench_options how = {.dims = model_dims,
                                     .batch = BATCH,
                                     .seq = model_dims.seq,
                                     .accum = 1,
                                     .steps = 16,
                                     .threads = s->threads != KILN_UNSET ? s->threads : 0};
    struct kiln_bench_result measured;
    struct kiln_device_choice device;
    KILN_TRY(kiln_settings_device(s, &device, &how.precision, err));
    KILN_TRY(kiln_bench(&how, &measured, err));
    const double fit = (double)demo->flags->seconds * 0.95 / (measured.step_ms / 1e3);
    *steps = fit < 20 ? 20 : (size_t)fit;
    return KILN_OK;
}

static void say_start(const struct demo *demo, const struct kiln_run_info *info) {
    char time[32];
    demo_say(demo,
             "A model of %.1f million parameters now reads for about %s, in %" PRIu64
             " steps\n(%" PRIu64 " threads, %s). Watch its loss on the stories kept aside:\n\n",
             (double)info->table->parameters / 1e6,
             kiln_human_time((double)demo->flags->seconds, time, sizeof time),
             info->settings->steps, info->settings->threads, kiln_precision_name(info->precision));
    demo_say(demo, "  %8s %6s %9s\n", "time", "step", "loss");
}

static enum kiln_status train_run(struct demo *demo, struct kiln_run *run,
                                  const volatile sig_atomic_t *stop, struct kiln_err *err) {
    const struct kiln_run_info *info = kiln_run_info(run);
    struct sight sight = {.demo = demo,
                          .terminal = output_is_live() && !demo->flags->json,
                          .total = info->settings->steps,
                          .start = demo_now_s()};
    const struct kiln_observer observer = {
        .context = &sight, .on_step = on_step, .on_notice = on_notice};
    char hashes[BAR + 1];
    say_start(demo, info);
    const enum kiln_status status = kiln_run_train(run, &observer, stop, err);
    finish_line(&sight);
    if (status == KILN_EINTERRUPTED) {
        return KILN_FAIL(err, KILN_EINTERRUPTED,
                         "stopped and saved; to go on: kiln train --resume %s", demo->run_path);
    }
    if (status == KILN_OK) {
        demo_say(demo, "  %15s %9.4f  %s\n", "best possible", demo->entropy,
                 bar(demo->entropy, sight.first, hashes));
    }
    return status;
}

enum kiln_status demo_train(struct demo *demo, struct kiln_err *err) {
    struct kiln_settings settings;
    struct kiln_run *run = NULL;
    KILN_TRY(choose_steps(demo, &demo->steps, err));
    KILN_TRY(kiln_settings_copy(&settings, demo->settings, err));
    enum kiln_status status = set_all(demo, demo->steps, &settings, err);
    if (status == KILN_OK) {
        status = kiln_run_create(&settings, &run, err);
    }
    kiln_settings_free(&settings);
    if (status == KILN_OK) {
        const volatile sig_atomic_t *stop = stop_on_signals();
        status = train_run(demo, run, stop, err);
        stop_as_usual();
        kiln_run_close(run);
        if (status == KILN_OK && *stop != 0) { /* asked after the last step */
            status = KILN_FAIL(err, KILN_EINTERRUPTED, "stopped; the trained model is in %s",
                               demo->run_path);
        }
    }
    return status;
}

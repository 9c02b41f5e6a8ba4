/* SPDX-License-Identifier: MIT */
#include "watch.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "output.h"
#include "worker.h"

/* What the end tells of all steps. */
static void tally(void *context, const struct kiln_step_record *record) {
    struct watch *watch = context;
    struct kiln_report_end *end = &watch->end;
    if (end->steps == 0) {
        end->first_loss = record->loss;
    }
    watch->again = watch->again || (end->steps > 0 && record->step <= end->step);
    end->steps++;
    /* Not counted from the first: the end of a step that a death cut off is reported again. */
    end->step = record->step;
    end->last_loss = record->loss;
    end->tokens += watch->settings->batch * watch->settings->accum * watch->settings->seq;
    watch->run_tokens = record->tokens;
    end->peak_bytes = record->peak_bytes;
    end->skipped += record->skipped;
    end->overflowed += kiln_step_overflowed(record);
    watch->milliseconds += record->ms;
    watch->stall_ms += record->stall_ms;
    watch->overlap_ms += isfinite(record->overlap_ms) ? record->overlap_ms : 0;
    watch->reduce_ms += record->reduce_ms;
    watch->reduce_wait_ms += record->reduce_wait_ms;
    watch->outer_ms += record->outer_ms;
    watch->outer_steps += record->outer_ms > 0;
    watch->tflop += record->tflops * record->ms / 1e3;
    if (!isnan(record->val_loss)) {
        watch->val_loss = record->val_loss;
        if (end->best_val_step == 0 || record->val_loss < end->best_val) {
            end->best_val = record->val_loss;
            end->best_val_step =
                record->val_generation >= 0 ? (uint64_t)record->val_generation : record->step;
        }
    }
}

static void on_step(void *context, const struct kiln_step_record *record) {
    struct watch *watch = context;
    if (!watch->json) {
        screen_step(&watch->screen, record, watch->silent);
    }
    if (!watch->silent) {
        tally(watch, record);
        worker_step();
        kiln_recorder_step(watch->recorder, record);
    }
}

void watch_count(struct watch *watch, const char *folder, uint64_t since) {
    const struct kiln_observer all = {.context = watch, .on_step = tally};
    const struct watch seen = *watch;
    struct kiln_err ignored;
    watch->end = (struct kiln_report_end){.step = watch->end.step};
    watch->milliseconds = watch->stall_ms = watch->overlap_ms = watch->tflop = 0;
    watch->reduce_ms = watch->reduce_wait_ms = watch->outer_ms = 0;
    watch->outer_steps = 0;
    watch->val_loss = (double)NAN;
    if (kiln_run_history(folder, since, 0, &all, &ignored) != KILN_OK) {
        *watch = seen;
    }
}

static void on_sample(void *context, uint64_t step, const char *text) {
    struct watch *watch = context;
    if (!watch->json) {
        screen_event(&watch->screen);
        printf("--- a sample after step %" PRIu64 "\n", step);
        output_text(text);
        printf("\n---\n");
        screen_go_on(&watch->screen);
    }
    kiln_recorder_sample(watch->recorder, step, text);
}

static void on_checkpoint(void *context, uint64_t step, const char *path) {
    struct watch *watch = context;
    if (!watch->json) {
        screen_event(&watch->screen);
        printf("saved step %" PRIu64 ": %s\n", step, path);
        screen_go_on(&watch->screen);
    }
    kiln_recorder_checkpoint(watch->recorder, step);
}

void watch_say(const char *text) {
    const bool colours = output_has_colours(stderr);
    fprintf(stderr, "kiln: %snote:%s %s\n", colours ? "\033[33m" : "", colours ? "\033[0m" : "",
            text);
}

void watch_notice(void *context, const char *text) {
    struct watch *watch = context;
    screen_event(&watch->screen);
    fflush(stdout);
    watch_say(text);
    screen_go_on(&watch->screen);
}

struct kiln_observer watch_observer(struct watch *watch) {
    return (struct kiln_observer){.context = watch,
                                  .on_step = on_step,
                                  .on_sample = on_sample,
                                  .on_checkpoint = on_checkpoint,
                                  .on_notice = watch_notice};
}

void watch_complete(struct watch *watch, double seconds) {
    struct kiln_report_end *end = &watch->end;
    const double busy = watch->milliseconds / 1e3;
    end->seconds = seconds;
    end->tokens_per_s = busy > 0 ? (double)end->tokens / busy : 0;
    end->tflops = busy > 0 ? watch->tflop / busy : 0;
    end->outer_s = watch->outer_ms / 1e3 / fmax((double)watch->outer_steps, 1);
    if (end->steps > 0) {
        end->step_s = busy / (double)end->steps;
        end->stall_s = watch->stall_ms / 1e3 / (double)end->steps;
        end->reduce_s = watch->reduce_ms / 1e3 / (double)end->steps;
        end->reduce_wait_s = watch->reduce_wait_ms / 1e3 / (double)end->steps;
        end->overlap_s = watch->overlap_ms / 1e3 / (double)end->steps;
    }
}

/* SPDX-License-Identifier: MIT
 *
 * watch.h: what is said of a run while it trains, and counted for its end.
 *
 * Lines and curve are screen.c's; with --json nothing is printed.
 */
#ifndef KILN_CMD_WATCH_H
#define KILN_CMD_WATCH_H

#include "kiln/report.h"
#include "kiln/train.h"
#include "screen.h"

struct watch {
    bool json, silent;                    /* silent: another process has said it */
    const struct kiln_settings *settings; /* whose steps may change on the way */
    struct screen screen;
    struct kiln_recorder *recorder; /* of this process's own steps; NULL: not yet */
    struct kiln_report_end end;
    double milliseconds, tflop; /* of all steps */
    double stall_ms, overlap_ms, reduce_ms, reduce_wait_ms, outer_ms;
    uint64_t outer_steps;
    bool again; /* a step was taken a second time: what was counted of the first is no more */
    uint64_t run_tokens; /* since the run's first step: "tokens" of --json; end.tokens are fewer */
    double val_loss;
};

/* Told of all there is while a run trains; the watch is its context. */
struct kiln_observer watch_observer(struct watch *watch);
/* "kiln: note: ..." on stderr; the same in between the lines of a run. */
void watch_say(const char *text);
void watch_notice(void *context, const char *text);
/* Count anew: all steps behind step `since`, as metrics.jsonl has them, each once. Without it
 * (somebody took it away) it is what this process saw. */
void watch_count(struct watch *watch, const char *folder, uint64_t since);
/* The end of what was counted, which took so many seconds. */
void watch_complete(struct watch *watch, double seconds);

#endif

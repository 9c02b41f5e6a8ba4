/* SPDX-License-Identifier: MIT
 *
 * screen.h: what a run shows while it goes on.
 *
 * On a terminal that can rewrite its lines the last line is the progress line, rewritten at most
 * ten times a second; with --curve the loss stands above it, drawn anew at every evaluation. All
 * other lines (a step with a held-out loss, a checkpoint, a sample) scroll away above them.
 * Elsewhere, and where TERM is dumb, every --log-every'th step is a line of its own.
 *
 *   screen_open(&screen, ...);
 *   screen_step(&screen, record);                      a step
 *   screen_event(&screen); printf(...); screen_go_on(&screen);   lines that stay
 *   screen_end(&screen);                               the line stays; the curve, once more
 */
#ifndef KILN_CMD_SCREEN_H
#define KILN_CMD_SCREEN_H

#include <signal.h>

#include "kiln/report.h"

struct screen {
    bool live;  /* lines can be rewritten */
    bool curve; /* at every evaluation */
    bool utf8;
    const struct kiln_settings *settings; /* whose steps may change on the way */
    const char *folder;
    const volatile sig_atomic_t *stop;
    struct kiln_progress progress;

    bool unfinished;           /* the progress line stands there, without its newline */
    char line[512];            /* it, as it was drawn last */
    double drawn_at;           /* when, seconds of the monotonic clock */
    struct kiln_curve *losses; /* NULL: none are drawn */
    bool whole;                /* has all steps of the run so far */
    uint64_t last;             /* the step that was told last */
    uint64_t pictured;         /* the step after which the curve was drawn last */
    char *picture;             /* it, where it stands above the line; NULL */
    size_t rows, columns;      /* of the picture; of the terminal it was drawn on */
};

/* `first`: the run begins here. Prints nothing. */
void screen_open(struct screen *screen, const struct kiln_run_info *info, bool first,
                 const volatile sig_atomic_t *stop);
void screen_close(struct screen *screen);
/* A step. `silent`: another process has printed it. */
void screen_step(struct screen *screen, const struct kiln_step_record *record, bool silent);
/* Make room for lines that stay, and put line and curve below them again. */
void screen_event(struct screen *screen);
void screen_go_on(struct screen *screen);
/* Another process goes on with the line; or nobody does. */
void screen_hand_over(struct screen *screen);
void screen_finish_line(struct screen *screen);
/* At the end of a run that is done: the curve, where it is not there yet. */
void screen_end(struct screen *screen);

#endif

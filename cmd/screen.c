/* SPDX-License-Identifier: MIT
 *
 * screen.c: what a run shows while it goes on.
 *
 * What stands at the bottom, curve and line, is taken away by going up as many rows as the curve
 * has. Where somebody else may have moved the cursor meanwhile (the terminal has another width, the
 * process was stopped, a signal's handler wrote), it stays where it is, and a new one is drawn.
 */
#include "screen.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "output.h"
#include "stop.h"

#define REDRAW_S 0.1

enum { CURVE_ROWS = 8, CURVE_COLUMNS = 100, CURVE_FRAME = 3 };
/* Of a run that other processes began so many bytes of metrics.jsonl are drawn at most: some ten
 * thousand steps, read in a fraction of a second. */
enum { CURVE_TAIL = 1 << 24 };

static volatile sig_atomic_t moved; /* the process was stopped: a shell wrote to the terminal */

static void on_continue(int signal) {
    (void)signal;
    moved = 1;
}

static void watch_stops(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_continue;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGCONT, &action, NULL);
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Whoever read stdout has gone, or the disk behind it is full: nobody sees the rest, so save. */
static void flush_or_stop(void) {
    if (fflush(stdout) != 0) {
        stop_now();
    }
}

void screen_open(struct screen *screen, const struct kiln_run_info *info, bool first,
                 const volatile sig_atomic_t *stop) {
    *screen = (struct screen){.live = output_is_live(),
                              .curve = info->settings->curve,
                              .utf8 = output_is_utf8(),
                              .settings = info->settings,
                              .folder = info->folder,
                              .stop = stop,
                              .whole = first};
    screen->progress.colours = output_has_colours(stdout);
    if (screen->live || screen->curve) {
        screen->losses = kiln_curve_create();
    }
    if (screen->live) {
        watch_stops();
    }
}

void screen_close(struct screen *screen) {
    kiln_report_free(screen->picture);
    kiln_curve_destroy(screen->losses);
    screen->picture = NULL;
    screen->losses = NULL;
}

/* ---- the curve ------------------------------------------------------------------------------ */

static void add_step(void *context, const struct kiln_step_record *record) {
    kiln_curve_add(context, record);
}

/* All steps that metrics.jsonl has, the one that was just taken among them. */
static void read_history(struct screen *screen) {
    const struct kiln_observer all = {.context = screen->losses, .on_step = add_step};
    struct kiln_err ignored; /* a file that somebody took away: it is tried again */
    kiln_curve_clear(screen->losses);
    screen->whole = kiln_run_history(screen->folder, 0, CURVE_TAIL, &all, &ignored) == KILN_OK;
}

static char *draw(struct screen *screen) {
    if (screen->losses == NULL) {
        return NULL;
    }
    if (!screen->whole) {
        read_history(screen);
    }
    const size_t columns = terminal_columns(), room = columns > 1 ? columns - 1 : 1;
    const struct kiln_curve_look look = {.columns = room < CURVE_COLUMNS ? room : CURVE_COLUMNS,
                                         .rows = CURVE_ROWS,
                                         .utf8 = screen->utf8,
                                         .colours = screen->progress.colours};
    return kiln_curve_text(screen->losses, &look);
}

static size_t rows_of(const char *text) {
    size_t rows = 0;
    for (const char *c = text; *c != '\0'; c++) {
        rows += *c == '\n';
    }
    return rows;
}

/* From here on it is a picture as others are, and scrolls away. */
static void let_go(struct screen *screen) {
    kiln_report_free(screen->picture);
    screen->picture = NULL;
    screen->rows = 0;
}

/* Take away what stands at the bottom; the cursor is then where lines that stay go. */
static void take_away(struct screen *screen) {
    const bool untouched = !moved && *screen->stop == 0 && terminal_columns() == screen->columns;
    if (screen->picture != NULL && screen->rows > 0 && untouched) {
        printf("\r\033[%zuA\033[J", screen->rows);
    } else if (screen->unfinished) {
        fputs("\r\033[K", stdout);
    }
    if (!untouched) {
        let_go(screen);
    }
    moved = 0;
    screen->unfinished = false;
}

static void put_picture(struct screen *screen) {
    if (screen->picture != NULL) {
        fputs(screen->picture, stdout);
        screen->rows = rows_of(screen->picture);
        screen->columns = terminal_columns();
    }
}

/* A narrow or low terminal is for the line alone. */
static bool has_room(const char *picture) {
    const size_t columns = terminal_columns();
    return picture != NULL && columns > 40 && terminal_rows() > rows_of(picture) + CURVE_FRAME;
}

static void new_picture(struct screen *screen, uint64_t step) {
    char *picture = draw(screen);
    let_go(screen);
    if (!screen->live && picture != NULL) {
        fputs(picture, stdout);
        screen->pictured = step;
    } else if (screen->live && has_room(picture)) {
        screen->picture = picture;
        screen->pictured = step;
        put_picture(screen);
        return;
    }
    kiln_report_free(picture);
}

/* ---- lines ---------------------------------------------------------------------------------- */

static void put_line(struct screen *screen) {
    printf("\r%s\033[K", screen->line);
    screen->unfinished = true;
}

static void step_live(struct screen *screen, uint64_t step, bool stays, bool evaluated) {
    const double now = now_s();
    if (stays) {
        take_away(screen);
        printf("%s\n", screen->line);
        if (screen->curve && evaluated) {
            new_picture(screen, step);
        } else {
            put_picture(screen);
        }
    } else if (now - screen->drawn_at >= REDRAW_S) {
        screen->drawn_at = now;
        put_line(screen);
    } else {
        return;
    }
    flush_or_stop();
}

static void step_plain(struct screen *screen, uint64_t step, bool stays, bool evaluated) {
    if (!stays && step % screen->settings->log_every != 0) {
        return;
    }
    puts(screen->line);
    if (screen->curve && evaluated) {
        new_picture(screen, step);
    }
    flush_or_stop();
}

void screen_step(struct screen *screen, const struct kiln_step_record *record, bool silent) {
    const uint64_t total = screen->settings->steps;
    const bool evaluated = !isnan(record->val_loss), stays = evaluated || record->step == total;
    const size_t columns = terminal_columns();
    /* A line that wraps cannot be rewritten. */
    screen->progress.columns = !screen->live ? 0 : columns > 1 ? columns - 1 : 1;
    kiln_progress_line(&screen->progress, record, total, screen->line, sizeof screen->line);
    if (record->step <= screen->last) { /* rolled back: metrics.jsonl knows what is left */
        screen->whole = false;
    }
    screen->last = record->step;
    if (screen->losses != NULL && screen->whole) {
        kiln_curve_add(screen->losses, record);
    }
    if (silent) {
        screen->unfinished = screen->live && !stays;
    } else if (screen->live) {
        step_live(screen, record->step, stays, evaluated);
    } else {
        step_plain(screen, record->step, stays, evaluated);
    }
}

void screen_event(struct screen *screen) {
    if (screen->live) {
        take_away(screen);
        flush_or_stop();
    }
}

void screen_go_on(struct screen *screen) {
    if (screen->live) {
        put_picture(screen);
    }
    flush_or_stop();
}

void screen_hand_over(struct screen *screen) {
    if (screen->picture != NULL) {
        take_away(screen);
        let_go(screen);
        put_line(screen);
        flush_or_stop();
    }
}

void screen_finish_line(struct screen *screen) {
    if (screen->unfinished) {
        putchar('\n');
        screen->unfinished = false;
        flush_or_stop();
    }
}

void screen_end(struct screen *screen) {
    const uint64_t last = screen->settings->steps;
    screen_finish_line(screen);
    if ((screen->live || screen->curve) && screen->pictured != last) {
        char *picture = draw(screen);
        if (picture != NULL) {
            fputs(picture, stdout);
        }
        kiln_report_free(picture);
    }
    let_go(screen);
}

/* SPDX-License-Identifier: MIT
 *
 * control.h: what a person asks of a run while another process trains it.
 *
 * Whoever asks writes FOLDER/control.json, whole: {"stop": true}, {"lr": 1e-4}, or both. The
 * trainer looks once a window, which costs one call of the system where nobody asked: it takes the
 * file away and then does what it says.
 *
 *   stop   as SIGTERM: the current action is finished, the state saved, KILN_EINTERRUPTED
 *   lr     the peak learning rate of the steps from here on: a struct kiln_peak (settings.h), on
 * the disk in run.json before a step is taken at it
 *
 * A file that is there when a run is opened was meant for a process that is gone: it goes. So does
 * one that is not ours to obey (a link, a folder, another user's) or says something else. Each time
 * a notice says why. It is taken under a name that nothing has, so that nothing left behind by a
 * process that died, and nothing put in its place, makes a run deaf.
 */
#ifndef KILN_TRAIN_CONTROL_H
#define KILN_TRAIN_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/settings.h"
#include "kiln/status.h"

struct kiln_request {
    bool stop;
    double lr; /* NaN: not asked for */
};

/* The largest peak learning rate that may be asked for: that of --lr. */
#define KILN_RATE_MOST 1e3

/* Ask. What was asked for before and not seen yet is replaced. KILN_EUSAGE: nothing is asked for,
 * or a rate out of range; KILN_EIO. */
KILN_MUST_CHECK enum kiln_status kiln_control_ask(const char *folder,
                                                  const struct kiln_request *request,
                                                  struct kiln_err *err);

enum { KILN_CONTROL_TEXT = 320 };

/* The trainer's side. */
struct kiln_control {
    bool stop; /* asked for */
    bool told; /* that the file cannot be taken away: said once, tried in each window */
    void *context;
    /* Make it durable: the peak learning rate behind step `at` is `lr`. KILN_EIO: it could not be
     * written, and nothing has changed. Others end training. */
    enum kiln_status (*rate)(void *context, uint64_t at, double lr, struct kiln_err *err);
};

/* A window begins with `step` steps done. said: what the user should know, "" for nothing. Errors
 * are those of `rate`, but for KILN_EIO: a rate that a full disk does not take is told of. */
KILN_MUST_CHECK enum kiln_status kiln_control_look(struct kiln_control *control, const char *folder,
                                                   const struct kiln_settings *settings,
                                                   uint64_t step, char said[KILN_CONTROL_TEXT],
                                                   struct kiln_err *err);
/* A run is opened that no process of before hands over: what was asked then is forgotten. */
void kiln_control_forget(const char *folder, char said[KILN_CONTROL_TEXT]);

#endif

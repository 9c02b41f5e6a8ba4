/* SPDX-License-Identifier: MIT
 *
 * incident.h: the flight recorder: what a step was made of that went wrong, in
 * incidents/step-N/ of the run (docs/flight-recorder.md).
 *
 *   incident.json   what was seen, where training stood, norms of every tensor
 *   window.u32      the window: tokens, targets, and with --doc-mask starts, [accum*batch][seq]
 * each weights.f32     the weights that it was computed with, flat, in the table's order
 *
 * It is written whole under another name first; a later one of the same step takes its place. Of
 * many the oldest go: KILN_INCIDENTS stay, KILN_INCIDENT_WEIGHTS of them with their weights. Of
 * spikes that lie closer than KILN_INCIDENT_APART steps only the first has weights, so that a noisy
 * run does not write its model over and over; numbers that are not finite always have. Where
 * nothing happens nothing of it costs anything.
 */
#ifndef KILN_TRAIN_INCIDENT_H
#define KILN_TRAIN_INCIDENT_H

#include "train/spike.h"
#include "train/trainer.h"

enum { KILN_INCIDENTS = 32, KILN_INCIDENT_WEIGHTS = 4, KILN_INCIDENT_APART = 1000 };

struct kiln_incident {
    uint64_t step;      /* that was being taken: one more than are done */
    const char *why;    /* "loss is not finite", "gradient is not finite", "loss spike",
                         * "gradient spike" */
    const char *action; /* "recorded", "skipped", "rolled back", "stopped" */
    double loss, grad_norm, lr;
    struct kiln_spike_score score; /* of the loss or the norm that it is about */
    uint64_t sample;               /* first of its window */
    double scale; /* gradients in memory are so many times the true ones; 0: there are none */
};

/* Between a window and its update: gradients are in the state, with the norm taken. KILN_EIO,
 * KILN_ENOMEM: there is no new incident then. */
KILN_MUST_CHECK enum kiln_status kiln_incident_write(struct kiln_trainer *trainer,
                                                     const struct kiln_incident *incident,
                                                     struct kiln_err *err);
/* Is no weight larger than that, and all are finite numbers? */
bool kiln_incident_weights_below(const struct kiln_trainer *trainer, double most);
/* The same of those that the window behind `done` steps is computed with. */
bool kiln_incident_generation_below(const struct kiln_trainer *trainer, uint64_t done, double most);

#endif

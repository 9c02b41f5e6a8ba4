/* SPDX-License-Identifier: MIT
 *
 * timeline.h: clocks of a process in virtual time.
 *
 * The device runs one pass after another; the compiler compiles one kernel after another beside it,
 * and a pass waits for the kernels of its layer; weight gradients of sim and ane go through a queue
 * of the host, which is emptied before the next segment and behind the last micro-batch of a group.
 * With a relay a second process starts and compiles beside all that; it takes over as soon as it
 * is ready, and compiles on. Time that passes on the device's clock is computing, or a
 * stall (it waits for a compile), or a restart.
 */
#ifndef KILN_PLAN_TIMELINE_H
#define KILN_PLAN_TIMELINE_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/plan.h"

/* Seconds. */
struct kiln_rates {
    double forward, backward;               /* a micro-batch through a layer, on the device */
    double head;                            /* and behind the last layer */
    double host_head;                       /* there, in line on the host */
    double dw;                              /* weight gradients of a layer, on the host's queue */
    double kernel_forward, kernel_backward; /* compiles of a layer's kernels with weights */
    double kernel_head, kernel_shared;      /* of what runs behind the last layer; of the others */
    double prepare;                         /* DELAYED: what the host keeps of a generation */
    double norm, update_rest, update_layer; /* the update: in front of it the norm of all gradients,
                                             * then what is no layer, then layer by layer */
    double snapshot;                        /* DELAYED: of the new weights */
    double restart, relay;                  /* a process started; a hand-over */
    double beside;                          /* passes take so many times as long while something
                                             * compiles; at least 1 */
    bool apart; /* but for what another process compiles: a simulator knows its own only */
};

struct kiln_timeline {
    const struct kiln_rates *rates;
    size_t layers;
    bool waits;       /* OFF: for every compile, at once */
    bool head_shares; /* a shared kernel runs behind the last layer, too */
    double now;       /* the device */
    double compiler, queue;
    double *forward, *backward; /* [L] the layer's kernels are there */
    double head, shared;
    double *fresh; /* [L + 1] a layer's new weights are there; [L]: all others */
    double next;   /* DELAYED: the next set is there */
    double *whole; /* [L + 2], or NULL: when the gradients of a layer were written last; [L]: of
                    * what is behind the layers; [L + 1]: of all */
    /* A successor: started, compiles from .. to. */
    bool succeeded, knows;  /* there is one; it has the weights that it compiles */
    double from, to, ready; /* ready: to take over */
    double compile, compute, update, stall, restart; /* sums */
};

/* A kernel compiled, or several: begins when the compiler is free, not before `from`; returns when
 * it is done. */
double kiln_timeline_compile(struct kiln_timeline *t, double from, double seconds);
/* One micro-batch through layers: from first up, from end down. What `keep` (enum kiln_layer_keep)
 * does not have in full is run forward again, segment by segment. drains: behind it the host's
 * queue is emptied. */
void kiln_timeline_forward(struct kiln_timeline *t, size_t first, size_t end);
void kiln_timeline_backward(struct kiln_timeline *t, size_t first, size_t end,
                            const unsigned char *keep, bool drains);
/* New weights; the next set, if there is one, is waited for. */
void kiln_timeline_update(struct kiln_timeline *t, bool snapshot, bool swap);
/* The successor begins now; it has so much to compile that it knows the weights of, and is ready
 * when `first` of it is done. */
void kiln_timeline_succeed(struct kiln_timeline *t, double first, double seconds, bool knows);
/* Another process: this one again, or the successor, where there is one. What that has compiled, or
 * is compiling, is then told with kiln_timeline_compile, from t->from on. */
void kiln_timeline_restart(struct kiln_timeline *t);

#endif

/* SPDX-License-Identifier: MIT
 *
 * pipe.h: how a stage of a pipeline is joined to its neighbours: the residual stream comes from the
 * stage before and goes to the one behind, its gradient the other way, from and to ranks of the
 * same replica (ranks/tree.h: struct kiln_grid). What travels is the stored value, in fp32: bits do
 * not depend on stages.
 */
#ifndef KILN_TRAIN_PIPE_H
#define KILN_TRAIN_PIPE_H

#include "device/device.h"
#include "ranks/ranks.h"
#include "ranks/tree.h"

struct kiln_pipe {
    struct kiln_lane *in[2], *out[2]; /* by pass; NULL: this is an end */
};

/* For micro-batches of so many floats of residual stream. On success kiln_pipe_close, which takes
 * zeros, too. */
KILN_MUST_CHECK enum kiln_status kiln_pipe_open(struct kiln_pipe *pipe, struct kiln_ranks *ranks,
                                                const struct kiln_grid *grid, size_t floats,
                                                struct kiln_err *err);
void kiln_pipe_close(struct kiln_pipe *pipe);
/* A window begins, or an evaluation: so many micro-batches go through. */
void kiln_pipe_begin(const struct kiln_pipe *pipe, bool evaluate, uint64_t micro_batches);
/* The block becomes what the neighbour has sent, in the order of its passes; waits for it. */
KILN_MUST_CHECK enum kiln_status kiln_pipe_receive(const struct kiln_pipe *pipe,
                                                   const struct kiln_device *device,
                                                   enum kiln_pass pass, void *block,
                                                   struct kiln_err *err);
/* The block goes to the neighbour; it may be written again at once. */
KILN_MUST_CHECK enum kiln_status kiln_pipe_send(const struct kiln_pipe *pipe,
                                                const struct kiln_device *device,
                                                enum kiln_pass pass, const void *block,
                                                struct kiln_err *err);

#endif

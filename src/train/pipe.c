/* SPDX-License-Identifier: MIT */
#include "train/pipe.h"

#include <string.h>

enum kiln_status kiln_pipe_open(struct kiln_pipe *pipe, struct kiln_ranks *ranks,
                                const struct kiln_grid *grid, size_t floats, struct kiln_err *err) {
    const size_t mine = kiln_ranks_mine(ranks), before = mine - grid->replicas;
    const size_t behind = mine + grid->replicas;
    memset(pipe, 0, sizeof *pipe);
    if (grid->stage > 0) {
        KILN_TRY(kiln_lane_open(ranks, before, true, KILN_FORWARD, floats, &pipe->in[KILN_FORWARD],
                                err));
        KILN_TRY(kiln_lane_open(ranks, before, false, KILN_BACKWARD, floats,
                                &pipe->out[KILN_BACKWARD], err));
    }
    if (grid->stage + 1 < grid->stages) {
        KILN_TRY(kiln_lane_open(ranks, behind, false, KILN_FORWARD, floats,
                                &pipe->out[KILN_FORWARD], err));
        KILN_TRY(kiln_lane_open(ranks, behind, true, KILN_BACKWARD, floats,
                                &pipe->in[KILN_BACKWARD], err));
    }
    return KILN_OK;
}

void kiln_pipe_close(struct kiln_pipe *pipe) {
    for (size_t i = 0; i < 2; i++) {
        kiln_lane_close(pipe->in[i]);
        kiln_lane_close(pipe->out[i]);
    }
    memset(pipe, 0, sizeof *pipe);
}

void kiln_pipe_begin(const struct kiln_pipe *pipe, bool evaluate, uint64_t micro_batches) {
    for (size_t pass = 0; pass < 2; pass++) {
        if (pipe->in[pass] && !(evaluate && pass == KILN_BACKWARD)) {
            kiln_lane_expect(pipe->in[pass], micro_batches);
        }
    }
}

enum kiln_status kiln_pipe_receive(const struct kiln_pipe *pipe, const struct kiln_device *device,
                                   enum kiln_pass pass, void *block, struct kiln_err *err) {
    float *x;
    KILN_TRY(kiln_lane_take(pipe->in[pass], &x, err));
    device->ops->import_residual(device, x, block);
    kiln_lane_release(pipe->in[pass]);
    return KILN_OK;
}

enum kiln_status kiln_pipe_send(const struct kiln_pipe *pipe, const struct kiln_device *device,
                                enum kiln_pass pass, const void *block, struct kiln_err *err) {
    float *x;
    KILN_TRY(kiln_lane_take(pipe->out[pass], &x, err));
    device->ops->export_residual(device, block, x);
    kiln_lane_release(pipe->out[pass]);
    return KILN_OK;
}

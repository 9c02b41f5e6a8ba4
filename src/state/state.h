/* SPDX-License-Identifier: MIT
 *
 * state.h: the training state in one mapped file: weights, moments and where training stands.
 *
 *   page 0      header: magic, version, byte order, model, region table; CRC-32C
 *   page 1, 2   the two cursor slots, each with generation and CRC-32C
 *   page 3 ..   regions, each starting on a page: weights, m, v, gradients (fp32, in the table's
 *               order), stamps (one a chunk: the update its values are of), journal slots
 *
 * Training works in the mapping itself; a commit writes the older cursor slot. Space is reserved
 * when the file is made, so a full disk is an error then and not a signal later. The file is
 * locked (flock) while a run owns it; mode 0600.
 *
 * The process may die at any instruction. A window changes only gradients, so it is done again
 * from its start. An update changes chunk by chunk (model/pieces.h), each guarded:
 *
 *   copy W, m, v of the chunk to the worker's slot -> mark the slot valid -> change in place
 *     -> stamp the chunk with the update's number -> unmark
 *
 * After a death inside an update, kiln_state_restore copies valid slots whose chunk is not stamped
 * back, and the update is run again: it skips the chunks that carry its stamp. The gradients, and
 * in the cursor rate and norm, are those of the first try, so the bits are too.
 */
#ifndef KILN_STATE_H
#define KILN_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/model.h"
#include "kiln/status.h"

enum kiln_region {
    KILN_WEIGHTS,
    KILN_MOMENT1,
    KILN_MOMENT2,
    KILN_GRADIENTS,
    KILN_STAMPS,
    KILN_JOURNAL,
    KILN_REGIONS
};

/* Where a step stands. */
enum kiln_phase {
    KILN_PHASE_WINDOW, /* gradients are being taken; a death redoes the window */
    KILN_PHASE_UPDATE, /* weights are being changed; a death finishes the update */
    KILN_PHASE_FINISH, /* changed; evaluation and the line of metrics.jsonl are to come */
};

/* Byte of the file at which the weights begin. */
enum { KILN_STATE_WEIGHTS_AT = 3 * 4096 };
enum { KILN_JOURNAL_SLOTS = 256 }; /* one a worker: no more threads than that */

/* All that a resume needs beside the settings. Fixed size, no padding: it is stored as it is. */
struct kiln_cursor {
    uint64_t generation;    /* one more at each commit */
    uint64_t step;          /* steps done */
    uint64_t updates;       /* AdamW updates done: its count t */
    uint64_t sample;        /* training samples consumed: the data position */
    uint64_t tokens;        /* tokens trained on */
    uint64_t metrics_bytes; /* length of metrics.jsonl with the lines of all steps done */
    uint64_t phase;         /* enum kiln_phase */
    uint64_t restarts;      /* processes before this one */
    double best_val;        /* lowest held-out loss so far; infinity before the first */
    uint64_t best_val_step;
    double first_loss;          /* of step 1 */
    double last_loss;           /* of the last step */
    double loss, grad_norm, lr; /* of the step in phase UPDATE or FINISH */
    char numerics[160];         /* numerics id: equal id, equal bits */
};

struct kiln_state;

/* Make a state file of zeros and its first cursor (all zero). KILN_EEXISTS when path exists. */
KILN_MUST_CHECK enum kiln_status kiln_state_create(const char *path, const struct kiln_table *table,
                                                   struct kiln_state **out, struct kiln_err *err);
/* Open an existing one. A damaged newest cursor slot gives way to the older one, and *notice
 * (160 bytes) says so; it is "" otherwise. KILN_EDAMAGED names the field; KILN_EINPUT when it is
 * of another model; KILN_EBUSY when a live process owns it. */
KILN_MUST_CHECK enum kiln_status kiln_state_open(const char *path, const struct kiln_table *table,
                                                 struct kiln_state **out, char notice[160],
                                                 struct kiln_err *err);
/* Read the dims that a state file was made for, and its cursor, without locking or changing it. */
KILN_MUST_CHECK enum kiln_status kiln_state_peek(const char *path, struct kiln_dims *dims,
                                                 struct kiln_cursor *cursor, struct kiln_err *err);
void kiln_state_close(struct kiln_state *state);

/* The model it was made for. */
void kiln_state_dims(const struct kiln_state *state, struct kiln_dims *dims);
/* The floats of weights, moments or gradients, table->size of them; NULL for other regions. */
float *kiln_state_region(struct kiln_state *state, enum kiln_region region);
const struct kiln_cursor *kiln_state_cursor(const struct kiln_state *state);
/* Make `cursor` the newest; its generation is set. */
void kiln_state_commit(struct kiln_state *state, const struct kiln_cursor *cursor);

/* Guard the change of chunk `chunk`, n parameters from `offset`, by the worker that owns `slot`.
 * Different workers guard different chunks at once. */
void kiln_state_chunk_begin(struct kiln_state *state, size_t slot, size_t chunk, size_t offset,
                            size_t n);
void kiln_state_chunk_end(struct kiln_state *state, size_t slot, size_t chunk, uint64_t update);
/* Does the chunk hold the values of that update already? */
bool kiln_state_chunk_done(const struct kiln_state *state, size_t chunk, uint64_t update);
/* All chunks hold the values of that update, as after a restore from a checkpoint; the journal is
 * empty. No worker is inside a chunk. */
void kiln_state_stamp_all(struct kiln_state *state, uint64_t update);
/* Undo the chunks that a death left half changed in update number `update`. KILN_EDAMAGED, with
 * nothing of that chunk changed, when a slot points outside the file. */
KILN_MUST_CHECK enum kiln_status kiln_state_restore(struct kiln_state *state, uint64_t update,
                                                    struct kiln_err *err);

/* Write everything to the disk. */
KILN_MUST_CHECK enum kiln_status kiln_state_sync(struct kiln_state *state, struct kiln_err *err);
/* Bytes of the file for a model. */
size_t kiln_state_bytes(const struct kiln_table *table);

#endif

/* SPDX-License-Identifier: MIT
 *
 * checkpoint.h: durable checkpoints: all a resume needs when state.kiln is lost or not trusted.
 *
 *   checkpoints/step-N/model.bin     the weights, llama2.c's format or kiln's own: what generate
 * and eval read. Of a run that trains adapters: the frozen ones /resume.kiln   header with cursor
 * and checksums, m, v, adapters, in a run of --overlap delayed both snapshots, in one of
 * --local-steps the outer momentum (docs/formats.md)
 *                     /run.json      the settings the run had then, when they are given
 *
 * A checkpoint is made as step-N.tmp, every file of it synced, then renamed and its parent synced:
 * after a death or a power cut there is a whole step-N or none. What bears another name than step-N
 * is no checkpoint; leftovers are removed before the next one is made.
 *
 * Not to be confused with model/checkpoint.h, which reads model files of any format.
 */
#ifndef KILN_STATE_CHECKPOINT_H
#define KILN_STATE_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>

#include "kiln/model.h"
#include "kiln/status.h"
#include "state/state.h"

/* Parts with a checksum of their own. */
enum kiln_checkpoint_part {
    KILN_CHECKPOINT_MOMENT1,   /* m, in resume.kiln */
    KILN_CHECKPOINT_MOMENT2,   /* v, in resume.kiln */
    KILN_CHECKPOINT_ADAPTERS,  /* in resume.kiln: weights that are trained beside the frozen ones of
                                * model.bin; 0 bytes where the whole model is trained */
    KILN_CHECKPOINT_SNAPSHOT0, /* in resume.kiln; 0 bytes where the run has none */
    KILN_CHECKPOINT_SNAPSHOT1,
    KILN_CHECKPOINT_OUTER,    /* in resume.kiln: the momentum of outer steps; 0 bytes likewise */
    KILN_CHECKPOINT_MODEL,    /* model.bin as a whole */
    KILN_CHECKPOINT_SETTINGS, /* run.json as a whole; 0 bytes when there is none */
    KILN_CHECKPOINT_PARTS
};

/* What the header of resume.kiln says. */
struct kiln_checkpoint_info {
    uint32_t version;
    struct kiln_dims dims;
    struct kiln_lora lora;         /* rank 0: the whole model is trained */
    size_t size;                   /* elements of the weights: table->size */
    enum kiln_precision snapshots; /* of both; AUTO: there are none */
    struct kiln_cursor cursor;     /* phase WINDOW, at its start */
    uint32_t weights_crc;          /* of all weights as the table lays them out, gaps included */
    uint64_t offset[KILN_CHECKPOINT_PARTS], bytes[KILN_CHECKPOINT_PARTS];
    uint32_t crc[KILN_CHECKPOINT_PARTS];
};

/* Write a checkpoint as folder `path`, a name of the form FOLDER/step-N; FOLDER is made when it is
 * absent, a checkpoint of that name is replaced. Weights hold table->size floats, m and v
 * kiln_trained_size, the two snapshots kiln_snapshot_bytes of their precision; `snapshots` is NULL,
 * and the precision AUTO, where there are none; `outer` is of kiln_trained_size, or NULL. None of
 * them may change meanwhile. The cursor stands at the start of a window; settings (run.json as
 * text) may be NULL. On failure there is no new checkpoint: KILN_EIO, KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_write(
    const char *path, const struct kiln_table *table, const float *weights, const float *m,
    const float *v, const void *const snapshots[KILN_SNAPSHOTS], enum kiln_precision precision,
    const float *outer, const struct kiln_cursor *cursor, const char *settings,
    struct kiln_err *err);

/* Read and check the header alone. KILN_EDAMAGED names the field; KILN_EINPUT: no such file. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_peek(const char *path,
                                                      struct kiln_checkpoint_info *out,
                                                      struct kiln_err *err);
/* "m", "v", "snapshot 0", "snapshot 1", "outer momentum", "model.bin", "run.json". */
const char *kiln_checkpoint_part_name(enum kiln_checkpoint_part part);
/* Read one part and compare its size and checksum with the header's. KILN_EDAMAGED names the file
 * and the part. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_check(const char *path,
                                                       const struct kiln_checkpoint_info *info,
                                                       enum kiln_checkpoint_part part,
                                                       struct kiln_err *err);
/* Header and all parts. `out` may be NULL. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_verify(const char *path,
                                                        struct kiln_checkpoint_info *out,
                                                        struct kiln_err *err);

/* The adapters of a checkpoint, checked: to an array of bytes[KILN_CHECKPOINT_ADAPTERS]. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_adapters(const char *path,
                                                          const struct kiln_checkpoint_info *info,
                                                          float *to, struct kiln_err *err);

/* Steps of the checkpoints in a folder, ascending, on the heap (kiln_free). An absent folder holds
 * none. Nothing of them is read. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_list(const char *folder, uint64_t **steps,
                                                      size_t *n, struct kiln_err *err);
/* The newest checkpoint that verifies: its step and, in `path` of `size` bytes, its folder.
 * *damaged: how many newer ones do not verify. KILN_EINPUT when there is none; the message has the
 * reason for the newest. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_find(const char *folder, uint64_t *step,
                                                      char *path, size_t size, size_t *damaged,
                                                      struct kiln_err *err);

/* Fill weights, m, v, snapshots and outer momentum of a state from a checkpoint, stamp all chunks
 * with the cursor's update count, clear the journal and commit the cursor. Everything is checked on
 * the way; KILN_EINPUT when the state is of another model, or of them one has snapshots or an outer
 * momentum that the other has not or of another precision, with nothing changed; KILN_EDAMAGED
 * after it changed some. The state is one just created or renewed: a renewed one is not opened
 * until the commit, so a death inside does no harm. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_restore(const char *path, struct kiln_state *state,
                                                         struct kiln_err *err);

/* Remove all but the newest `keep` of the checkpoints up to step `newest`. Later ones, which a
 * state older than they are has left behind, stay until training gets there. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_prune(const char *folder, uint64_t newest,
                                                       size_t keep, struct kiln_err *err);
/* Remove what an interrupted write or prune left behind. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_clean(const char *folder, struct kiln_err *err);

#endif

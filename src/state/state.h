/* SPDX-License-Identifier: MIT
 *
 * state.h: the training state in one mapped file: weights, moments and where training stands.
 *
 *   page 0      header: magic, version, byte order, model, region table
 *   page 1, 2   the two cursor slots; each holds the newest cursor between commits
 *   page 3 ..   regions, each starting on a page: weights, m, v, gradients (fp32, in the table's
 *               order; all but the weights of what is trained only, which is the end of the
 *               weights where a run trains adapters), gradient of the embedding lookup (tied
 *               models that are trained whole), stamps (one a chunk:
 *               the update its values are of), journal slots, and in a run of --overlap delayed the
 *               weights of two generations as devices compile from them (kernel/weights.h); in one
 *               of --local-steps the weights and moments that steps change, and the momentum of
 *               outer steps (train/outer.h)
 *   behind      the window: activations that a planned restart must keep; often none
 *
 * Header and slots are whole pages; the last four bytes of each are the CRC-32C of all before.
 *
 * Training works in the mapping itself; a commit writes both slots, one after the other, so that
 * between commits either may be damaged and nothing is lost. Space is reserved when the file is
 * made, so a full disk is an error then and not a signal later. Mode 0600. Opening changes nothing;
 * kiln_state_begin does, before the first change.
 *
 * The file is locked (flock) while a run owns it. The lock belongs to the open file description:
 * all processes that inherited the descriptor, a supervisor and its workers, hold the one lock, and
 * it is free when the last of them has closed it. It keeps other runs out; which process of this
 * run may write is told by the cursor's owner_epoch and by the hand-over (kiln_state_own).
 *
 * The process may die at any instruction. A window changes only gradients, so it is done again
 * from its start. An update changes chunk by chunk (model/pieces.h), each guarded:
 *
 *   copy W, m, v of the chunk's first part to the worker's slot -> mark the slot valid -> change
 *     in place -> copy the next part, count it, change it, ... -> stamp the chunk with the update's
 *     number -> unmark
 *
 * After a death inside an update, kiln_state_restore copies valid slots whose chunk is not stamped
 * back, and the update is run again: it skips the chunks that carry its stamp. The gradients, and
 * in the cursor rate and norm, are those of the first try, so the bits are too.
 *
 * The power may be cut at any instant too, and then pages of different ages lie on the disk. Before
 * the first change both slots say "not clean" and hold the boot id, on the disk; at the end
 * everything is written first and both say "clean" afterwards. A file that is not clean and of
 * another boot is not opened (KILN_EUNTRUSTED): its content comes from a durable checkpoint.
 *
 * Spread over ranks (model/holding.h) each has a file of this layout, of which it uses what it
 * holds of weights, m, v and stamps; the rest of those regions is a hole in the file, which costs
 * neither disk nor memory as long as nobody looks. Rank 0's has room for all.
 */
#ifndef KILN_STATE_H
#define KILN_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/cpu.h"
#include "kiln/model.h"
#include "kiln/status.h"

enum kiln_region {
    KILN_WEIGHTS,
    KILN_MOMENT1,
    KILN_MOMENT2,
    KILN_GRADIENTS,
    KILN_GRADIENT_EMBEDDING, /* [V, D] of a tied model that is trained whole; nothing otherwise */
    KILN_STAMPS,
    KILN_JOURNAL,
    KILN_SNAPSHOT0, /* generation g lies in slot g % 2; nothing where a run has no snapshots */
    KILN_SNAPSHOT1,
    KILN_LOCAL_WEIGHTS, /* these four: nothing where a run takes no local steps; all weights */
    KILN_LOCAL_MOMENT1,
    KILN_LOCAL_MOMENT2,
    KILN_OUTER_MOMENTUM,
    KILN_REGIONS
};

/* Where a step stands. */
enum kiln_phase {
    KILN_PHASE_START,  /* a new run: the evaluation before the first step is to come */
    KILN_PHASE_WINDOW, /* gradients are being taken; a death redoes the window */
    KILN_PHASE_UPDATE, /* weights are being changed; a death finishes the update */
    KILN_PHASE_FINISH, /* changed; evaluation and the line of metrics.jsonl are to come */
    KILN_PHASE_OUTER,  /* an outer step is done, its results are being put in place; a death does
                        * so again (train/outer.h) */
};

/* Byte of the file at which the weights begin. */
enum { KILN_STATE_WEIGHTS_AT = 3 * 4096 };
enum { KILN_SNAPSHOTS = 2 };
enum { KILN_JOURNAL_SLOTS = 256 }; /* one a worker: no more threads than that */

/* All that a resume needs beside the settings. Fixed size, no padding: it is stored as it is.
 * generation, window_bytes, clean and boot_id are the state's own: a commit sets them, whatever
 * the caller's copy holds. */
struct kiln_cursor {
    uint64_t generation;    /* one more at each commit */
    uint64_t step;          /* steps done */
    uint64_t updates;       /* AdamW updates done: its count t */
    uint64_t sample;        /* training samples consumed: the data position */
    uint64_t tokens;        /* tokens trained on */
    uint64_t metrics_bytes; /* length of metrics.jsonl with the lines of all steps done */
    uint64_t trace_bytes;   /* length of the trace with the spans of all steps done */
    uint64_t phase;         /* enum kiln_phase */
    uint64_t restarts;      /* processes before this one */
    double best_val;        /* lowest held-out loss so far; infinity before the first */
    uint64_t best_val_step;
    double first_loss;          /* of step 1 */
    double last_loss;           /* of the last step */
    double loss, grad_norm, lr; /* of the step in phase UPDATE or FINISH */

    /* A planned stop inside a window or evaluation. */
    uint64_t mid;   /* 1: position and sums below and the gradients in the file count, of a window;
                     * 2: of an evaluation; else 0 */
    uint64_t round; /* position, as the plan counts */
    uint64_t group;
    uint64_t micro_batch;
    double loss_sum;       /* of the losses of the window so far */
    double eval_sum;       /* of the evaluation so far */
    uint64_t plan_id;      /* of the plan that the position belongs to */
    uint64_t window_bytes; /* length of the window behind the regions */

    /* What the step has cost so far, in this process and those before it. */
    double ms, device_ms, compile_ms, restart_ms, update_ms;
    double dw_wait_ms, io_ms;
    double stall_ms;
    uint64_t surface_written, surface_read; /* bytes */
    uint64_t compiles, layer_forwards;
    uint64_t peak_bytes; /* most memory held by a process since the run was begun or resumed */
    double handed_at;    /* when a process handed over, on the system's monotonic clock; else 0 */

    uint64_t owner_epoch;     /* one more at each hand-over to another process */
    uint64_t skipped;         /* windows whose update was left out */
    uint64_t staleness;       /* updates between the weights of the window and those it changes */
    uint64_t skip;            /* 0: the last window was not; else how many in a row were */
    double loss_scale;        /* 0: losses are not scaled; of a window whose targets all count
                               * (train/scale.h). In phase UPDATE and FINISH of that window */
    uint64_t loss_scale_good; /* windows since it last changed */
    uint64_t ranks;           /* processes that trained the last window together */
    uint64_t spread;          /* 0: this file holds all; else the weights and moments that are
                               * trained, and their stamps, lie in so many ranks' files */
    uint64_t rank;            /* whose this one is */
    uint64_t clean;           /* 1: everything was on the disk when this was written */
    char boot_id[40];         /* of the system that wrote it */
    char numerics[160];       /* numerics id: equal id, equal bits */
};

struct kiln_state;

/* Make a state file of zeros and its first cursor: all zero, phase START, best_val infinity.
 * `snapshots`: the precision of its two snapshots, or AUTO for none; `local`: with what local steps
 * take. The table is borrowed until the state is closed. KILN_EEXISTS when path exists; on any
 * failure nothing stays behind. */
KILN_MUST_CHECK enum kiln_status kiln_state_create(const char *path, const struct kiln_table *table,
                                                   enum kiln_precision snapshots, bool local,
                                                   struct kiln_state **out, struct kiln_err *err);
struct kiln_holding;
/* The same of a state that is spread: space for the weights and moments that `rank` holds only.
 * Others are not to be touched. */
KILN_MUST_CHECK enum kiln_status kiln_state_create_part(
    const char *path, const struct kiln_table *table, enum kiln_precision snapshots,
    const struct kiln_holding *holding, size_t rank, struct kiln_state **out, struct kiln_err *err);
/* Open an existing one, with the snapshots that its header tells of; not a byte changes. A damaged
 * cursor slot gives way to the other, and *notice (160 bytes) says so; it is "" otherwise.
 * KILN_EDAMAGED names the field; KILN_EINPUT when it is absent or of another model; KILN_EBUSY when
 * a live process owns it; KILN_EUNTRUSTED when a power cut may have mixed its pages, or both slots
 * are damaged. */
KILN_MUST_CHECK enum kiln_status kiln_state_open(const char *path, const struct kiln_table *table,
                                                 struct kiln_state **out, char notice[160],
                                                 struct kiln_err *err);
/* Make the file at `path`, whatever it holds, one of this model that holds no cursor yet: until
 * the first commit, opening it is KILN_EUNTRUSTED. It is created when absent. For a checkpoint to
 * be restored into: regions hold what they held, or zeros in a new file. */
KILN_MUST_CHECK enum kiln_status kiln_state_renew(const char *path, const struct kiln_table *table,
                                                  enum kiln_precision snapshots, bool local,
                                                  struct kiln_state **out, struct kiln_err *err);
/* Give the locked file to a program to be exec'ed: unmaps, closes `state`, and returns the
 * descriptor, which stays open through exec and keeps the lock. Of a reader, too. */
int kiln_state_detach(struct kiln_state *state);
/* Open from such a descriptor. It must be of the file at `path`: KILN_EINPUT otherwise. Owns `fd`
 * from here on; a failure closes it. Else as kiln_state_open. */
KILN_MUST_CHECK enum kiln_status kiln_state_open_fd(int fd, const char *path,
                                                    const struct kiln_table *table,
                                                    struct kiln_state **out, char notice[160],
                                                    struct kiln_err *err);

/* A relay's successor reads the file while the process that owns it still trains:
 *
 *   kiln_state_open_reader(fd, ...)      compile from the weights or a snapshot, say READY
 *   (the owner commits owner_epoch + 1, says GO, closes its state)
 *   kiln_state_own(state, epoch, ...)    as after kiln_state_open_fd: kiln_state_begin is next
 *
 * Takes no lock and waits for no cursor: the owner may commit all the while. The mapping cannot be
 * written, so a stray write is a crash and no damage. Regions and snapshots can be read (which of
 * them the owner leaves alone is the caller's to know); kiln_state_cursor is the one at opening;
 * calls that change the file are KILN_EUSAGE where they can fail and may not be made where they
 * cannot. There is no window before it owns. `fd` must be open for writing, too. It is owned from
 * here on; a failure closes it. Errors as kiln_state_open_fd, but for KILN_EBUSY. */
KILN_MUST_CHECK enum kiln_status kiln_state_open_reader(int fd, const char *path,
                                                        const struct kiln_table *table,
                                                        struct kiln_state **out,
                                                        struct kiln_err *err);
/* The owner said GO: read the cursor anew and make the mapping writable where it is, so that
 * pointers into regions stay right. KILN_EBUSY when the cursor's owner_epoch is not `epoch`, or the
 * lock is another run's; other errors as kiln_state_open_fd. After a failure the state is the
 * reader it was, and no byte of the file has changed. */
KILN_MUST_CHECK enum kiln_status kiln_state_own(struct kiln_state *state, uint64_t epoch,
                                                char notice[160], struct kiln_err *err);
/* The owner_epoch of the newest cursor in an open state file, also while it is committed to. */
KILN_MUST_CHECK enum kiln_status kiln_state_epoch(int fd, uint64_t *epoch, struct kiln_err *err);

/* Read the dims and adapters (rank 0: none) that a state file was made for, and its cursor, without
 * locking or changing it. */
KILN_MUST_CHECK enum kiln_status kiln_state_peek(const char *path, struct kiln_dims *dims,
                                                 struct kiln_lora *lora, struct kiln_cursor *cursor,
                                                 struct kiln_err *err);
void kiln_state_close(struct kiln_state *state);

/* Its folder was renamed: the path for messages. */
KILN_MUST_CHECK enum kiln_status kiln_state_moved(struct kiln_state *state, const char *path,
                                                  struct kiln_err *err);

/* Before the first change: "not clean" and this boot's id in both slots, on the disk; a file longer
 * than its cursor says is cut. Nothing but this may follow kiln_state_open or _finish. */
KILN_MUST_CHECK enum kiln_status kiln_state_begin(struct kiln_state *state, struct kiln_err *err);
/* After the last change: everything on the disk, then "clean" in both slots, on the disk. */
KILN_MUST_CHECK enum kiln_status kiln_state_finish(struct kiln_state *state, struct kiln_err *err);
/* Write everything to the disk; the file is as clean as before. */
KILN_MUST_CHECK enum kiln_status kiln_state_sync(struct kiln_state *state, struct kiln_err *err);

/* The floats of weights, table->size of them, of moments, gradients or momentum, kiln_trained_size,
 * or of the gradient of the embedding lookup; NULL for other regions and for one that is empty. */
float *kiln_state_region(struct kiln_state *state, enum kiln_region region);
/* Weights or moments as steps change them: in a run of local steps this rank's own, else the
 * region itself. */
float *kiln_state_working(struct kiln_state *state, enum kiln_region region);
/* Has it what local steps take? */
bool kiln_state_local(const struct kiln_state *state);
/* One tensor of weights, moments or gradients: *n floats at *out. layer is KILN_NO_LAYER for roles
 * outside the layers. KILN_EUSAGE when the region holds no parameters, or the model no such
 * tensor; *out is NULL then. */
KILN_MUST_CHECK enum kiln_status kiln_state_tensor(struct kiln_state *state,
                                                   enum kiln_region region, enum kiln_role role,
                                                   size_t layer, float **out, size_t *n,
                                                   struct kiln_err *err);
/* The precision of the two snapshots, AUTO where there are none; snapshot 0 or 1, NULL then. */
enum kiln_precision kiln_state_snapshots(const struct kiln_state *state);
void *kiln_state_snapshot(struct kiln_state *state, size_t slot);
/* Make the window `bytes` long (0: none) and map it: *out, NULL for 0. Its content is kept as far
 * as it goes; what is new is zero. A failure leaves the window as it was. */
KILN_MUST_CHECK enum kiln_status kiln_state_window(struct kiln_state *state, size_t bytes,
                                                   void **out, struct kiln_err *err);

const struct kiln_cursor *kiln_state_cursor(const struct kiln_state *state);
/* Make `cursor` the newest, in both slots. */
void kiln_state_commit(struct kiln_state *state, const struct kiln_cursor *cursor);
/* From here on commits are of this process alone, and the file keeps the cursor it has: whoever
 * opens it after a death finds that. Until kiln_state_let_go, which makes it the newest here, too.
 * Again: nothing. */
void kiln_state_hold(struct kiln_state *state);
void kiln_state_let_go(struct kiln_state *state);
/* The cursor that the file holds: kiln_state_cursor, or that of before. */
const struct kiln_cursor *kiln_state_held(const struct kiln_state *state);

/* Guard the change of chunk `chunk`, of its first n parameters, which lie at `offset`, by the
 * worker that owns `slot`; then, when those are changed, of the next n, part by part: what is
 * copied is still in the cache when it is changed. Different workers guard different chunks at
 * once. */
void kiln_state_chunk_begin(struct kiln_state *state, size_t slot, size_t chunk, size_t offset,
                            size_t n);
void kiln_state_chunk_more(struct kiln_state *state, size_t slot, size_t n);
void kiln_state_chunk_end(struct kiln_state *state, size_t slot, size_t chunk, uint64_t update);
/* Does the chunk hold the values of that update already? */
bool kiln_state_chunk_done(const struct kiln_state *state, size_t chunk, uint64_t update);
/* Undo the chunks that a death left half changed in update number `update`. KILN_EDAMAGED, with
 * nothing changed, when a slot or stamp is not one that an update leaves. */
KILN_MUST_CHECK enum kiln_status kiln_state_restore(struct kiln_state *state, uint64_t update,
                                                    struct kiln_err *err);

/* As after update number `update` with no death inside: every stamp holds it, no slot is valid.
 * For weights and moments that came from elsewhere. */
void kiln_state_stamp_all(struct kiln_state *state, uint64_t update);

/* The stamps, one of each chunk: for whoever gives them away with the weights. */
uint64_t *kiln_state_stamps(struct kiln_state *state);

/* n floats of a region from `offset`, counted as in the weights, leave the memory of this process,
 * as whole pages; they stay in the file. */
void kiln_state_drop(struct kiln_state *state, enum kiln_region region, size_t offset, size_t n);

/* A state larger than the memory it may take is walked: from here on the calls below mean
 * something; before, they do nothing. One more thread, which mostly waits for the disk. */
KILN_MUST_CHECK enum kiln_status kiln_state_walk(struct kiln_state *state, struct kiln_err *err);
bool kiln_state_walks(const struct kiln_state *state);
/* n floats of a region from `offset`, counted as in the weights, are wanted soon; are done with.
 * Any thread. */
void kiln_state_ahead(struct kiln_state *state, enum kiln_region region, size_t offset, size_t n);
void kiln_state_behind(struct kiln_state *state, enum kiln_region region, size_t offset, size_t n);
/* While on: weights, moments and snapshots leave the memory again and again. For a reader of all of
 * them that knows nothing of walking, beside a window. */
void kiln_state_sweep(struct kiln_state *state, bool on);
/* The values of a region are not wanted any more, not even on the disk: it may read as zeros. */
void kiln_state_forget(struct kiln_state *state, enum kiln_region region);

/* Bytes of the file for a model and the precision of its snapshots (AUTO: none), without and with a
 * window of that many bytes. */
size_t kiln_state_bytes(const struct kiln_table *table, enum kiln_precision snapshots, bool local);
size_t kiln_state_file_bytes(const struct kiln_table *table, enum kiln_precision snapshots,
                             bool local, size_t window);
/* Bytes of stamps and journal slots that so many threads touch. */
size_t kiln_state_journal_bytes(const struct kiln_table *table, size_t threads);

#endif

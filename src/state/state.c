/* SPDX-License-Identifier: MIT
 *
 * state.c: the state file: made, opened, handed over, written to the disk. See state.h.
 */
#include "state/state.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/io_hook.h"
#include "base/kill_point.h"
#include "base/machine.h"
#include "base/mem.h"
#include "model/holding.h"
#include "state/state_int.h"

/* ---- parts of opening and making ---------------------------------------------------------------
 */

static enum kiln_status begin(const char *path, const struct kiln_table *table,
                              struct kiln_state **out, struct kiln_err *err) {
    *out = NULL;
    struct kiln_state *state = kiln_alloc(1, sizeof *state);
    char *copy = kiln_strdup(path);
    if (state == NULL || copy == NULL) {
        kiln_free(state);
        kiln_free(copy);
        return KILN_FAIL(err, KILN_ENOMEM, "state %s: no memory to open it", path);
    }
    state->fd = -1;
    state->path = copy;
    state->table = table;
    kiln_boot_id(state->boot_id);
    *out = state;
    return KILN_OK;
}

static enum kiln_status end(enum kiln_status status, struct kiln_state **state) {
    if (status != KILN_OK) {
        kiln_state_close(*state);
        *state = NULL;
    }
    return status;
}

/* A process that was killed is gone from lists of processes some time before its lock is: the
 * system takes its memory back first, and a state is large. */
enum { LOCK_TRIES = 50, LOCK_WAIT_MS = 20 };

static enum kiln_status lock(const struct kiln_state *state, struct kiln_err *err) {
    const struct timespec wait = {.tv_nsec = LOCK_WAIT_MS * 1000000L};
    int got = flock(state->fd, LOCK_EX | LOCK_NB);
    for (int i = 1; got != 0 && errno == EWOULDBLOCK && i < LOCK_TRIES; i++) {
        nanosleep(&wait, NULL);
        got = flock(state->fd, LOCK_EX | LOCK_NB);
    }
    KILN_REQUIRE(got == 0, err, errno == EWOULDBLOCK ? KILN_EBUSY : KILN_EIO,
                 "state %s: cannot lock it: %s", state->path,
                 errno == EWOULDBLOCK ? "another process is training this run; wait or stop it"
                                      : strerror(errno));
    return KILN_OK;
}

/* What it has beside weights and moments decides how long it is. */
static void set_kind(struct kiln_state *state, enum kiln_precision snapshots, bool local) {
    state->snapshots = snapshots;
    state->local = local;
    state->bytes = kiln_state_bytes(state->table, snapshots, local);
}

static enum kiln_status map(struct kiln_state *state, struct kiln_err *err) {
    const int access = state->reader ? PROT_READ : PROT_READ | PROT_WRITE;
    void *base = mmap(NULL, state->bytes, access, MAP_SHARED, state->fd, 0);
    KILN_REQUIRE(base != MAP_FAILED, err, KILN_EIO, "state %s: cannot map %zu bytes: %s",
                 state->path, state->bytes, strerror(errno));
    state->base = base;
    struct kiln_state_header h;
    kiln_state_header_make(state->table, state->snapshots, state->local, &h);
    for (int i = 0; i < KILN_REGIONS; i++) {
        state->region[i] = state->base + h.region_offset[i];
    }
    state->size = h.region_bytes[KILN_WEIGHTS] / sizeof(float);
    state->chunks = h.region_bytes[KILN_STAMPS] / sizeof(uint64_t);
    return KILN_OK;
}

static enum kiln_status write_header(const struct kiln_state *state, struct kiln_err *err) {
    struct kiln_state_header header;
    kiln_state_header_make(state->table, state->snapshots, state->local, &header);
    ssize_t put = pwrite(state->fd, &header, sizeof header, 0);
    KILN_REQUIRE(put == (ssize_t)sizeof header, err, KILN_EIO,
                 "state %s: cannot write its header: %s", state->path,
                 put < 0 ? strerror(errno) : "the disk is full");
    return KILN_OK;
}

/* Blocks for every byte of [from, to): a full disk shows here. */
static enum kiln_status reserve(const struct kiln_state *state, size_t from, size_t to,
                                struct kiln_err *err) {
    int failed = kiln_reserve(state->fd, from, to - from);
    KILN_REQUIRE(failed == 0, err, KILN_EIO,
                 "state %s: cannot reserve %zu bytes: %s; free space, or put the state elsewhere "
                 "with another --out",
                 state->path, to - from, strerror(failed));
    return KILN_OK;
}

/* ---- a new one ---------------------------------------------------------------------------------
 */

/* All but weights and moments, and of those what the rank holds. */
static enum kiln_status reserve_part(const struct kiln_state *state,
                                     const struct kiln_holding *holding, size_t rank,
                                     struct kiln_err *err) {
    struct kiln_state_header h;
    kiln_state_header_make(state->table, state->snapshots, state->local, &h);
    KILN_REQUIRE(ftruncate(state->fd, (off_t)state->bytes) == 0, err, KILN_EIO,
                 "state %s: cannot make it %zu bytes long: %s", state->path, state->bytes,
                 strerror(errno));
    KILN_TRY(reserve(state, 0, h.region_offset[KILN_WEIGHTS], err));
    KILN_TRY(reserve(state, h.region_offset[KILN_GRADIENTS], state->bytes, err));
    for (int region = KILN_WEIGHTS; region <= KILN_MOMENT2; region++) {
        for (size_t part = 0; part < holding->parts; part++) {
            const struct kiln_held held = kiln_holding_of(holding, part, rank);
            const struct kiln_range *range = region == KILN_WEIGHTS ? &held.weights : &held.trained;
            const size_t at = h.region_offset[region] + range->at * sizeof(float);
            KILN_TRY(range->n > 0 ? reserve(state, at, at + range->n * sizeof(float), err)
                                  : KILN_OK);
        }
    }
    return KILN_OK;
}

static enum kiln_status create(struct kiln_state *state, const struct kiln_holding *holding,
                               size_t rank, struct kiln_err *err) {
    state->fd = KILN_IO(KILN_IO_CREATE, state->path, NULL, 0,
                        open(state->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    KILN_REQUIRE(state->fd >= 0, err, errno == EEXIST ? KILN_EEXISTS : KILN_EIO,
                 "state %s: cannot make it: %s", state->path, strerror(errno));
    KILN_TRY(lock(state, err));
    KILN_TRY(holding ? reserve_part(state, holding, rank, err)
                     : reserve(state, 0, state->bytes, err));
    KILN_TRY(write_header(state, err));
    KILN_TRY(map(state, err));
    struct kiln_cursor first;
    memset(&first, 0, sizeof first);
    first.best_val = HUGE_VAL;
    state->begun = true;
    kiln_state_commit(state, &first);
    return KILN_OK;
}

static enum kiln_status make(const char *path, const struct kiln_table *table,
                             enum kiln_precision snapshots, bool local,
                             const struct kiln_holding *holding, size_t rank,
                             struct kiln_state **out, struct kiln_err *err) {
    KILN_TRY(begin(path, table, out, err));
    set_kind(*out, snapshots, local);
    enum kiln_status status = create(*out, holding, rank, err);
    if (status != KILN_OK && (*out)->fd >= 0) {
        (void)KILN_IO(KILN_IO_REMOVE, path, NULL, 0, unlink(path));
    }
    return end(status, out);
}

enum kiln_status kiln_state_create(const char *path, const struct kiln_table *table,
                                   enum kiln_precision snapshots, bool local,
                                   struct kiln_state **out, struct kiln_err *err) {
    return make(path, table, snapshots, local, NULL, 0, out, err);
}

enum kiln_status kiln_state_create_part(const char *path, const struct kiln_table *table,
                                        enum kiln_precision snapshots,
                                        const struct kiln_holding *holding, size_t rank,
                                        struct kiln_state **out, struct kiln_err *err) {
    return make(path, table, snapshots, false, holding, rank, out, err);
}

/* The slots go first, on the disk: a death on the way leaves a file that is not opened. */
static enum kiln_status renew(struct kiln_state *state, struct kiln_err *err) {
    static const unsigned char zeros[2 * KILN_STATE_PAGE];
    state->fd = KILN_IO(KILN_IO_CREATE, state->path, NULL, 0,
                        open(state->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    KILN_REQUIRE(state->fd >= 0, err, KILN_EIO, "state %s: cannot make it: %s", state->path,
                 strerror(errno));
    KILN_TRY(lock(state, err));
    struct stat st;
    bool cleared = pwrite(state->fd, zeros, sizeof zeros, KILN_STATE_PAGE) == sizeof zeros &&
                   KILN_IO(KILN_IO_SYNC, state->path, NULL, 0, fsync(state->fd)) == 0 &&
                   fstat(state->fd, &st) == 0;
    KILN_REQUIRE(cleared, err, KILN_EIO, "state %s: cannot write to it: %s", state->path,
                 strerror(errno));
    KILN_TRY(write_header(state, err));
    KILN_TRY(reserve(state, 0, state->bytes, err));
    KILN_REQUIRE(ftruncate(state->fd, (off_t)state->bytes) == 0, err, KILN_EIO,
                 "state %s: cannot make it %zu bytes long: %s", state->path, state->bytes,
                 strerror(errno));
    KILN_TRY(map(state, err));
    struct kiln_state_header h;
    kiln_state_header_make(state->table, state->snapshots, state->local, &h);
    for (size_t i = 0; i < KILN_REGIONS; i++) { /* padding is zero, whatever lay there */
        size_t end = i + 1 < KILN_REGIONS ? h.region_offset[i + 1] : h.file_bytes;
        size_t at = h.region_offset[i] + h.region_bytes[i];
        memset(state->base + at, 0, end - at);
    }
    state->begun = true;
    return KILN_OK;
}

enum kiln_status kiln_state_renew(const char *path, const struct kiln_table *table,
                                  enum kiln_precision snapshots, bool local,
                                  struct kiln_state **out, struct kiln_err *err) {
    bool absent = !kiln_path_exists(path);
    KILN_TRY(begin(path, table, out, err));
    set_kind(*out, snapshots, local);
    enum kiln_status status = renew(*out, err);
    if (status != KILN_OK && absent && (*out)->fd >= 0) {
        (void)KILN_IO(KILN_IO_REMOVE, path, NULL, 0, unlink(path));
    }
    return end(status, out);
}

/* ---- an old one --------------------------------------------------------------------------------
 */

/* Were all pages on the disk when one of the slots was written, or are they those of memory, as no
 * power cut came between? */
static bool trusted(const struct kiln_state_slots *slots, const struct kiln_cursor *newest,
                    const char *boot) {
    return (slots->whole[0] && slots->cursor[0].clean) ||
           (slots->whole[1] && slots->cursor[1].clean) ||
           memcmp(boot, newest->boot_id, sizeof newest->boot_id) == 0;
}

static enum kiln_status choose_cursor(struct kiln_state *state, char *notice,
                                      struct kiln_err *err) {
    struct kiln_state_slots slots;
    kiln_state_slots_read(state->base + KILN_STATE_PAGE, &slots);
    int newest = kiln_state_slots_newest(&slots);
    KILN_REQUIRE(newest >= 0, err, KILN_EUNTRUSTED,
                 "state %s: both cursors are damaged: the power was cut while they were written, "
                 "or the file was changed; where training stood is known from a checkpoint only",
                 state->path);
    state->cursor = slots.cursor[newest];
    KILN_REQUIRE(trusted(&slots, &state->cursor, state->boot_id), err, KILN_EUNTRUSTED,
                 "state %s: the power was cut, or the system restarted, while the run was being "
                 "trained; its parts may be of different ages; where training stood is known from "
                 "a checkpoint only",
                 state->path);
    state->first_slot = !slots.whole[!newest]                                      ? !newest
                        : slots.cursor[0].generation == slots.cursor[1].generation ? 0
                                                                                   : !newest;
    state->both_whole = slots.whole[0] && slots.whole[1] &&
                        slots.cursor[0].generation == slots.cursor[1].generation;
    if (!slots.whole[!newest]) {
        snprintf(notice, 160, "one of the two cursors is damaged or incomplete; the other is used");
    }
    return KILN_OK;
}

static enum kiln_status check_cursor(const struct kiln_state *state, struct kiln_err *err) {
    struct stat st;
    const struct kiln_cursor *c = &state->cursor;
    KILN_REQUIRE(c->phase <= KILN_PHASE_OUTER && c->window_bytes % KILN_STATE_PAGE == 0, err,
                 KILN_EDAMAGED,
                 "state %s: its cursor says phase %llu and a window of %llu bytes, which no kiln "
                 "writes; resume with the kiln that made it",
                 state->path, (unsigned long long)c->phase, (unsigned long long)c->window_bytes);
    KILN_REQUIRE(
        fstat(state->fd, &st) == 0 && (uint64_t)st.st_size - state->bytes >= c->window_bytes, err,
        KILN_EDAMAGED,
        "state %s: %lld bytes, with its window it needs %llu: the file is truncated; "
        "remove it and resume: training goes on from the newest checkpoint; without one, "
        "start a new run",
        state->path, (long long)st.st_size, (unsigned long long)(state->bytes + c->window_bytes));
    return KILN_OK;
}

static enum kiln_status check_and_map(struct kiln_state *state, struct kiln_err *err) {
    enum kiln_precision snapshots;
    bool local;
    KILN_TRY(
        kiln_state_header_check(state->fd, state->path, state->table, &snapshots, &local, err));
    set_kind(state, snapshots, local);
    return map(state, err);
}

static enum kiln_status open_locked(struct kiln_state *state, char *notice, struct kiln_err *err) {
    KILN_TRY(check_and_map(state, err));
    KILN_TRY(choose_cursor(state, notice, err));
    return check_cursor(state, err);
}

static enum kiln_status open_path(struct kiln_state *state, char *notice, struct kiln_err *err) {
    state->fd = open(state->path, O_RDWR | O_CLOEXEC);
    KILN_REQUIRE(state->fd >= 0, err, errno == ENOENT ? KILN_EINPUT : KILN_EIO,
                 "state %s: cannot open it: %s", state->path, strerror(errno));
    KILN_TRY(lock(state, err));
    return open_locked(state, notice, err);
}

enum kiln_status kiln_state_open(const char *path, const struct kiln_table *table,
                                 struct kiln_state **out, char notice[160], struct kiln_err *err) {
    notice[0] = '\0';
    KILN_TRY(begin(path, table, out, err));
    return end(open_path(*out, notice, err), out);
}

/* Is the descriptor of the file at our path? From here on it ends at an exec. */
static enum kiln_status check_inherited(const struct kiln_state *state, struct kiln_err *err) {
    struct stat there, here;
    KILN_REQUIRE(fstat(state->fd, &there) == 0 && stat(state->path, &here) == 0, err, KILN_EINPUT,
                 "state %s: cannot take it over as descriptor %d: %s", state->path, state->fd,
                 strerror(errno));
    KILN_REQUIRE(there.st_dev == here.st_dev && there.st_ino == here.st_ino, err, KILN_EINPUT,
                 "state %s: descriptor %d, inherited for it, is another file; resume the run by "
                 "its folder",
                 state->path, state->fd);
    KILN_REQUIRE(fcntl(state->fd, F_SETFD, FD_CLOEXEC) == 0, err, KILN_EIO, "state %s: %s",
                 state->path, strerror(errno));
    return KILN_OK;
}

static enum kiln_status open_inherited(struct kiln_state *state, char *notice,
                                       struct kiln_err *err) {
    KILN_TRY(check_inherited(state, err));
    KILN_TRY(lock(state, err)); /* held already where it was handed over */
    kiln_kill_point("hand-over: taken");
    return open_locked(state, notice, err);
}

enum kiln_status kiln_state_open_fd(int fd, const char *path, const struct kiln_table *table,
                                    struct kiln_state **out, char notice[160],
                                    struct kiln_err *err) {
    notice[0] = '\0';
    enum kiln_status status = begin(path, table, out, err);
    if (status != KILN_OK) {
        close(fd);
        return status;
    }
    (*out)->fd = fd;
    return end(open_inherited(*out, notice, err), out);
}

/* ---- one that another process still owns -------------------------------------------------------
 */

static enum kiln_status open_beside(struct kiln_state *state, struct kiln_err *err) {
    struct kiln_state_slots slots;
    state->reader = true;
    KILN_TRY(check_inherited(state, err));
    KILN_TRY(check_and_map(state, err));
    KILN_TRY(kiln_state_slots_pread(state->fd, state->path, &slots, err));
    state->cursor = slots.cursor[kiln_state_slots_newest(&slots)];
    return KILN_OK;
}

enum kiln_status kiln_state_open_reader(int fd, const char *path, const struct kiln_table *table,
                                        struct kiln_state **out, struct kiln_err *err) {
    enum kiln_status status = begin(path, table, out, err);
    if (status != KILN_OK) {
        close(fd);
        return status;
    }
    (*out)->fd = fd;
    return end(open_beside(*out, err), out);
}

enum kiln_status kiln_state_epoch(int fd, uint64_t *epoch, struct kiln_err *err) {
    char name[40];
    struct kiln_state_slots slots;
    snprintf(name, sizeof name, "on descriptor %d", fd);
    KILN_TRY(kiln_state_slots_pread(fd, name, &slots, err));
    *epoch = slots.cursor[kiln_state_slots_newest(&slots)].owner_epoch;
    return KILN_OK;
}

/* Everything that may refuse comes before the mapping becomes writable. */
static enum kiln_status own(struct kiln_state *state, uint64_t epoch, char *notice,
                            struct kiln_err *err) {
    uint64_t found;
    KILN_REQUIRE(state->reader, err, KILN_EUSAGE, "state %s: this process owns it already",
                 state->path);
    KILN_TRY(kiln_state_epoch(state->fd, &found, err));
    KILN_REQUIRE(found == epoch, err, KILN_EBUSY,
                 "state %s: handed over for owner epoch %" PRIu64 ", its cursor says %" PRIu64
                 ": another process owns it",
                 state->path, epoch, found);
    KILN_TRY(lock(state, err)); /* held already by all that share the descriptor */
    kiln_kill_point("hand-over: taken");
    KILN_TRY(choose_cursor(state, notice, err));
    KILN_TRY(check_cursor(state, err));
    KILN_REQUIRE(mprotect(state->base, state->bytes, PROT_READ | PROT_WRITE) == 0, err, KILN_EIO,
                 "state %s: cannot make its %zu bytes writable: %s", state->path, state->bytes,
                 strerror(errno));
    state->reader = false;
    return KILN_OK;
}

enum kiln_status kiln_state_own(struct kiln_state *state, uint64_t epoch, char notice[160],
                                struct kiln_err *err) {
    const struct kiln_cursor before = state->cursor;
    notice[0] = '\0';
    const enum kiln_status status = own(state, epoch, notice, err);
    if (status != KILN_OK) {
        state->cursor = before;
    }
    return status;
}

static enum kiln_status peek(int fd, const char *path, struct kiln_dims *dims,
                             struct kiln_lora *lora, struct kiln_cursor *cursor,
                             struct kiln_err *err) {
    struct kiln_state_header h;
    struct kiln_state_slots slots;
    KILN_TRY(kiln_state_header_read(fd, path, &h, err));
    *dims = kiln_dims_restore(&h.dims);
    *lora = kiln_lora_restore(&h.lora);
    KILN_TRY(kiln_state_slots_pread(fd, path, &slots, err));
    *cursor = slots.cursor[kiln_state_slots_newest(&slots)];
    return KILN_OK;
}

enum kiln_status kiln_state_peek(const char *path, struct kiln_dims *dims, struct kiln_lora *lora,
                                 struct kiln_cursor *cursor, struct kiln_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    KILN_REQUIRE(fd >= 0, err, errno == ENOENT ? KILN_EINPUT : KILN_EIO,
                 "state %s: cannot open it: %s", path, strerror(errno));
    enum kiln_status status = peek(fd, path, dims, lora, cursor, err);
    close(fd);
    return status;
}

/* ---- the end of one ----------------------------------------------------------------------------
 */

static void unmap_window(struct kiln_state *state) {
    if (state->window) {
        munmap(state->window, state->cursor.window_bytes);
        state->window = NULL;
    }
}

void kiln_state_close(struct kiln_state *state) {
    if (!state) {
        return;
    }
    kiln_state_walk_end(state);
    unmap_window(state);
    if (state->base) {
        munmap(state->base, state->bytes);
    }
    if (state->fd >= 0) {
        close(state->fd);
    }
    kiln_free(state->path);
    kiln_free(state);
}

enum kiln_status kiln_state_moved(struct kiln_state *state, const char *path,
                                  struct kiln_err *err) {
    char *copy = kiln_strdup(path);
    KILN_REQUIRE(copy, err, KILN_ENOMEM, "state %s: no memory for its name", path);
    kiln_free(state->path);
    state->path = copy;
    return KILN_OK;
}

int kiln_state_detach(struct kiln_state *state) {
    int fd = state->fd;
    kiln_kill_point("hand-over: before");
    fcntl(fd, F_SETFD, 0);
    state->fd = -1;
    kiln_state_close(state);
    kiln_kill_point("hand-over: given");
    return fd;
}

/* ---- the disk ----------------------------------------------------------------------------------
 */

enum kiln_status kiln_state_sync(struct kiln_state *state, struct kiln_err *err) {
    if (state->window) {
        KILN_TRY(
            kiln_sync_map(state->window, state->cursor.window_bytes, state->fd, state->path, err));
    }
    return kiln_sync_map(state->base, state->bytes, state->fd, state->path, err);
}

/* One slot after the other, each on the disk before the next is touched: a power cut finds one
 * whole, before or after. */
static enum kiln_status mark(struct kiln_state *state, bool clean, struct kiln_err *err) {
    struct kiln_cursor next = state->cursor;
    next.generation++;
    next.clean = clean;
    memcpy(next.boot_id, state->boot_id, sizeof next.boot_id);
    for (int i = 0; i < 2; i++) {
        kiln_state_slot_write(state, i == 0 ? state->first_slot : !state->first_slot, &next);
        KILN_TRY(kiln_sync_map(state->base, KILN_STATE_HEAD, state->fd, state->path, err));
    }
    state->first_slot = 0;
    state->cursor = next;
    state->begun = !clean;
    return KILN_OK;
}

static enum kiln_status check_owned(const struct kiln_state *state, struct kiln_err *err) {
    KILN_REQUIRE(!state->reader, err, KILN_EUSAGE,
                 "state %s: another process owns it; it may be read only", state->path);
    return KILN_OK;
}

enum kiln_status kiln_state_begin(struct kiln_state *state, struct kiln_err *err) {
    struct stat st;
    size_t length = state->bytes + state->cursor.window_bytes;
    KILN_TRY(check_owned(state, err));
    const bool marked = !state->cursor.clean && state->both_whole &&
                        strcmp(state->cursor.boot_id, state->boot_id) == 0;
    state->begun = marked; /* by the process that handed over, or died */
    if (!marked) {
        KILN_TRY(mark(state, false, err));
    }
    /* A death while the window grew or shrank leaves the file longer than its cursor says. */
    bool cut = fstat(state->fd, &st) == 0 &&
               ((size_t)st.st_size <= length || ftruncate(state->fd, (off_t)length) == 0);
    KILN_REQUIRE(cut, err, KILN_EIO, "state %s: cannot cut it to %zu bytes: %s", state->path,
                 length, strerror(errno));
    return KILN_OK;
}

enum kiln_status kiln_state_finish(struct kiln_state *state, struct kiln_err *err) {
    KILN_TRY(check_owned(state, err));
    KILN_TRY(kiln_state_sync(state, err));
    return mark(state, true, err);
}

/* ---- what it holds -----------------------------------------------------------------------------
 */

float *kiln_state_region(struct kiln_state *state, enum kiln_region region) {
    bool tied = state->table->dims.tied && state->table->trained == 0;
    bool floats = (unsigned)region <= KILN_GRADIENTS ||
                  (region == KILN_GRADIENT_EMBEDDING && tied) ||
                  (region >= KILN_LOCAL_WEIGHTS && region <= KILN_OUTER_MOMENTUM && state->local);
    return floats ? (float *)state->region[region] : NULL;
}

float *kiln_state_working(struct kiln_state *state, enum kiln_region region) {
    assert(region <= KILN_MOMENT2);
    return kiln_state_region(state, state->local ? KILN_LOCAL_WEIGHTS + region : region);
}

bool kiln_state_local(const struct kiln_state *state) { return state->local; }

enum kiln_precision kiln_state_snapshots(const struct kiln_state *state) {
    return state->snapshots;
}

void *kiln_state_snapshot(struct kiln_state *state, size_t slot) {
    const bool there = state->snapshots != KILN_PRECISION_AUTO && slot < KILN_SNAPSHOTS;
    return there ? state->region[KILN_SNAPSHOT0 + slot] : NULL;
}

enum kiln_status kiln_state_tensor(struct kiln_state *state, enum kiln_region region,
                                   enum kiln_role role, size_t layer, float **out, size_t *n,
                                   struct kiln_err *err) {
    *out = NULL;
    *n = 0;
    KILN_REQUIRE((unsigned)region <= KILN_GRADIENTS, err, KILN_EUSAGE,
                 "state %s: region %d holds no parameters; weights, m, v and gradients do",
                 state->path, (int)region);
    const struct kiln_tensor *tensor = kiln_table_find(state->table, role, layer);
    KILN_REQUIRE(tensor, err, KILN_EUSAGE,
                 "state %s: no tensor of role %d in layer %lld; the model has layers 0 to %zu, and "
                 "some roles lie outside them",
                 state->path, (int)role, (long long)layer, state->table->dims.layers - 1);
    KILN_REQUIRE(region == KILN_WEIGHTS || tensor->offset >= state->table->trained, err,
                 KILN_EUSAGE,
                 "state %s: %s is frozen: this run trains adapters, and only they have moments and "
                 "gradients",
                 state->path, tensor->name);
    *out = (float *)state->region[region] + tensor->offset -
           (region == KILN_WEIGHTS ? 0 : state->table->trained);
    *n = tensor->rows * tensor->cols;
    return KILN_OK;
}

/* ---- the window --------------------------------------------------------------------------------
 */

/* Map the first `bytes` of the window. */
static enum kiln_status map_window(const struct kiln_state *state, size_t bytes,
                                   unsigned char **out, struct kiln_err *err) {
    *out = NULL;
    if (bytes == 0) {
        return KILN_OK;
    }
    void *window =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, state->fd, (off_t)state->bytes);
    KILN_REQUIRE(window != MAP_FAILED, err, KILN_EIO,
                 "state %s: cannot map a window of %zu bytes: %s", state->path, bytes,
                 strerror(errno));
    *out = window;
    return KILN_OK;
}

static enum kiln_status cut_window(const struct kiln_state *state, size_t bytes,
                                   struct kiln_err *err) {
    KILN_REQUIRE(ftruncate(state->fd, (off_t)(state->bytes + bytes)) == 0, err, KILN_EIO,
                 "state %s: cannot cut it to %zu bytes: %s", state->path, state->bytes + bytes,
                 strerror(errno));
    return KILN_OK;
}

/* Grown before the cursor says so, shrunk after: a death between leaves the file too long, which
 * kiln_state_begin mends. */
enum kiln_status kiln_state_window(struct kiln_state *state, size_t bytes, void **out,
                                   struct kiln_err *err) {
    const size_t before = state->cursor.window_bytes;
    unsigned char *window = state->window;
    *out = NULL;
    KILN_TRY(check_owned(state, err));
    bytes = kiln_round_up(bytes, KILN_STATE_PAGE);
    if (window == NULL || bytes != before) {
        enum kiln_status status = KILN_OK;
        if (bytes > before) {
            status = reserve(state, state->bytes + before, state->bytes + bytes, err);
            kiln_kill_point("window: reserved");
        }
        if (status == KILN_OK) {
            status = map_window(state, bytes, &window, err);
        }
        if (status != KILN_OK) {
            struct kiln_err second; /* the first message is the one to read */
            return cut_window(state, before, &second) == KILN_OK ? status : KILN_EIO;
        }
        unmap_window(state);
        state->window = window;
    }
    if (bytes != before) {
        struct kiln_cursor next = state->cursor;
        state->cursor.window_bytes = bytes; /* a commit keeps the state's own */
        kiln_state_commit(state, &next);
        kiln_kill_point("window: committed");
    }
    *out = window;
    return bytes < before ? cut_window(state, bytes, err) : KILN_OK;
}

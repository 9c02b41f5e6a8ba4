/* SPDX-License-Identifier: MIT */
#include "state/state.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/kill_point.h"
#include "base/mem.h"
#include "model/pieces.h"

enum { PAGE = 4096, CURSOR_PAGE = 1, REGION_PAGE = 3, VERSION = 2 };
_Static_assert(KILN_STATE_WEIGHTS_AT == REGION_PAGE * PAGE, "the weights are the first region");
static const char magic[8] = {'K', 'I', 'L', 'N', 'S', 'T', '0', '1'};
#define BYTE_ORDER_MARK 0x01020304u

/* Page 0. Every member is 8 bytes or an array of such: no padding. */
struct header {
    char magic[8];
    uint32_t byte_order, version;
    uint64_t dim, hidden, layers, heads, kv_heads, head_size, vocab, seq, tied;
    double rms_eps, rope_theta;
    uint64_t region_offset[KILN_REGIONS], region_bytes[KILN_REGIONS];
    uint64_t file_bytes;
    uint32_t zero, crc; /* of all before it */
};

struct slot {
    struct kiln_cursor cursor;
    uint32_t zero, crc;
};

struct kiln_state {
    int fd;
    unsigned char *base;
    size_t bytes;
    void *region[KILN_REGIONS];
    size_t size, chunks; /* elements of a parameter region, chunks with a stamp */
    struct kiln_cursor cursor;
};

/* What a worker's chunk was before it is changed. */
struct journal_slot {
    _Atomic uint64_t valid; /* 1 + chunk; 0: nothing */
    uint64_t offset, n;
    float old[3][KILN_CHUNK]; /* W, m, v */
};

static size_t region_bytes(const struct kiln_table *table, enum kiln_region region) {
    size_t chunks;
    switch (region) {
        case KILN_STAMPS:
            kiln_pieces(table, NULL, &chunks);
            return chunks * sizeof(uint64_t);
        case KILN_JOURNAL:
            return KILN_JOURNAL_SLOTS * sizeof(struct journal_slot);
        default:
            return table->size * sizeof(float);
    }
}

size_t kiln_state_bytes(const struct kiln_table *table) {
    size_t bytes = (size_t)REGION_PAGE * PAGE;
    for (int i = 0; i < KILN_REGIONS; i++) {
        bytes += kiln_round_up(region_bytes(table, i), PAGE);
    }
    return bytes;
}

static struct header make_header(const struct kiln_table *table) {
    const struct kiln_dims *d = &table->dims;
    struct header h = {.byte_order = BYTE_ORDER_MARK,
                       .version = VERSION,
                       .dim = d->dim,
                       .hidden = d->hidden,
                       .layers = d->layers,
                       .heads = d->heads,
                       .kv_heads = d->kv_heads,
                       .head_size = d->head_size,
                       .vocab = d->vocab,
                       .seq = d->seq,
                       .tied = d->tied,
                       .rms_eps = (double)d->rms_eps,
                       .rope_theta = (double)d->rope_theta,
                       .file_bytes = kiln_state_bytes(table)};
    memcpy(h.magic, magic, sizeof magic);
    size_t offset = (size_t)REGION_PAGE * PAGE;
    for (size_t i = 0; i < KILN_REGIONS; i++) {
        h.region_offset[i] = offset;
        h.region_bytes[i] = region_bytes(table, i);
        offset += kiln_round_up(h.region_bytes[i], PAGE);
    }
    h.crc = kiln_crc32c(0, &h, offsetof(struct header, crc));
    return h;
}

/* ---- cursors --------------------------------------------------------------------------------- */

static unsigned char *slot_at(const struct kiln_state *state, uint64_t generation) {
    return state->base + (CURSOR_PAGE + generation % 2) * PAGE;
}

static bool slot_valid(const unsigned char *at, struct kiln_cursor *out) {
    struct slot slot;
    memcpy(&slot, at, sizeof slot);
    if (slot.zero != 0 || slot.crc != kiln_crc32c(0, &slot, offsetof(struct slot, crc))) {
        return false;
    }
    *out = slot.cursor;
    return true;
}

void kiln_state_commit(struct kiln_state *state, const struct kiln_cursor *cursor) {
    struct slot slot;
    memset(&slot, 0, sizeof slot);
    slot.cursor = *cursor;
    slot.cursor.generation = state->cursor.generation + 1;
    slot.crc = kiln_crc32c(0, &slot, offsetof(struct slot, crc));
    kiln_kill_point("commit: before");
    atomic_thread_fence(memory_order_release);
    unsigned char *to = slot_at(state, slot.cursor.generation);
    memcpy(to, &slot, sizeof slot / 2);
    kiln_kill_point("commit: half written");
    memcpy(to + sizeof slot / 2, (const unsigned char *)&slot + sizeof slot / 2,
           sizeof slot - sizeof slot / 2);
    atomic_thread_fence(memory_order_release);
    kiln_kill_point("commit: written");
    state->cursor = slot.cursor;
}

static enum kiln_status choose_cursor(struct kiln_state *state, const char *path, char *notice,
                                      struct kiln_err *err) {
    struct kiln_cursor slots[2];
    bool valid[2];
    for (uint64_t i = 0; i < 2; i++) {
        valid[i] = slot_valid(slot_at(state, i), &slots[i]);
    }
    KILN_REQUIRE(valid[0] || valid[1], err, KILN_EDAMAGED,
                 "state %s: both cursors are damaged; start from the newest checkpoint", path);
    if (valid[0] && valid[1]) {
        state->cursor = slots[slots[1].generation > slots[0].generation];
    } else {
        state->cursor = slots[valid[1]];
        snprintf(notice, 160, "one of the two cursors is incomplete; the other one is used");
    }
    return KILN_OK;
}

/* ---- files -------------------------------------------------------------------------------------
 */

static enum kiln_status map_file(struct kiln_state *state, const char *path, struct kiln_err *err) {
    void *base = mmap(NULL, state->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, state->fd, 0);
    KILN_REQUIRE(base != MAP_FAILED, err, KILN_EIO, "state %s: cannot map %zu bytes: %s", path,
                 state->bytes, strerror(errno));
    state->base = base;
    struct header h;
    memcpy(&h, state->base, sizeof h);
    for (int i = 0; i < KILN_REGIONS; i++) {
        state->region[i] = state->base + h.region_offset[i];
    }
    state->size = h.region_bytes[KILN_WEIGHTS] / sizeof(float);
    state->chunks = h.region_bytes[KILN_STAMPS] / sizeof(uint64_t);
    return KILN_OK;
}

static enum kiln_status lock_file(struct kiln_state *state, const char *path,
                                  struct kiln_err *err) {
    KILN_REQUIRE(flock(state->fd, LOCK_EX | LOCK_NB) == 0, err, KILN_EBUSY,
                 "state %s: another process is training this run; wait or stop it", path);
    return KILN_OK;
}

/* Reserve every block, by writing zeros where the file system cannot reserve. */
static enum kiln_status reserve(struct kiln_state *state, const char *path, struct kiln_err *err) {
    int failed = posix_fallocate(state->fd, 0, (off_t)state->bytes);
    KILN_REQUIRE(failed == 0, err, KILN_EIO,
                 "state %s: cannot reserve %zu bytes: %s; free space or choose another --out", path,
                 state->bytes, strerror(failed));
    return KILN_OK;
}

static enum kiln_status create(struct kiln_state *state, const char *path,
                               const struct kiln_table *table, struct kiln_err *err) {
    state->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    KILN_REQUIRE(state->fd >= 0, err, errno == EEXIST ? KILN_EEXISTS : KILN_EIO, "state %s: %s",
                 path, strerror(errno));
    state->bytes = kiln_state_bytes(table);
    KILN_TRY(lock_file(state, path, err));
    KILN_TRY(reserve(state, path, err));
    struct header header = make_header(table);
    KILN_REQUIRE(pwrite(state->fd, &header, sizeof header, 0) == (ssize_t)sizeof header, err,
                 KILN_EIO, "state %s: %s", path, strerror(errno));
    KILN_TRY(map_file(state, path, err));
    struct kiln_cursor first;
    memset(&first, 0, sizeof first);
    first.best_val = HUGE_VAL;
    kiln_state_commit(state, &first);
    kiln_state_commit(state, &first);
    return KILN_OK;
}

enum kiln_status kiln_state_create(const char *path, const struct kiln_table *table,
                                   struct kiln_state **out, struct kiln_err *err) {
    *out = NULL;
    struct kiln_state *state = kiln_alloc(1, sizeof *state);
    KILN_REQUIRE(state, err, KILN_ENOMEM, "no memory for the state");
    state->fd = -1;
    enum kiln_status status = create(state, path, table, err);
    if (status != KILN_OK) {
        bool made = state->fd >= 0;
        kiln_state_close(state);
        if (made) {
            unlink(path);
        }
        return status;
    }
    *out = state;
    return KILN_OK;
}

static enum kiln_status read_header(int fd, const char *path, struct header *h,
                                    struct kiln_err *err) {
    struct stat st;
    KILN_REQUIRE(fstat(fd, &st) == 0, err, KILN_EIO, "state %s: %s", path, strerror(errno));
    KILN_REQUIRE(pread(fd, h, sizeof *h, 0) == (ssize_t)sizeof *h, err, KILN_EDAMAGED,
                 "state %s: %lld bytes, too short for a header", path, (long long)st.st_size);
    KILN_REQUIRE(memcmp(h->magic, magic, sizeof magic) == 0, err, KILN_EDAMAGED,
                 "state %s: wrong magic, this is no kiln state file", path);
    KILN_REQUIRE(h->byte_order == BYTE_ORDER_MARK, err, KILN_EDAMAGED,
                 "state %s: written with another byte order", path);
    KILN_REQUIRE(h->version == VERSION, err, KILN_EDAMAGED,
                 "state %s: version %u, this kiln reads version %d", path, h->version, VERSION);
    KILN_REQUIRE(h->crc == kiln_crc32c(0, h, offsetof(struct header, crc)), err, KILN_EDAMAGED,
                 "state %s: header checksum is wrong", path);
    KILN_REQUIRE((uint64_t)st.st_size == h->file_bytes, err, KILN_EDAMAGED,
                 "state %s: %lld bytes, its header says %llu", path, (long long)st.st_size,
                 (unsigned long long)h->file_bytes);
    return KILN_OK;
}

/* Name the first size in which a state differs from the model it should hold. */
static enum kiln_status same_model(const struct header *h, const struct header *expected,
                                   const char *path, struct kiln_err *err) {
    const struct {
        const char *name;
        uint64_t found, expected;
    } sizes[] = {{"dim", h->dim, expected->dim},
                 {"hidden", h->hidden, expected->hidden},
                 {"layers", h->layers, expected->layers},
                 {"heads", h->heads, expected->heads},
                 {"kv_heads", h->kv_heads, expected->kv_heads},
                 {"head_size", h->head_size, expected->head_size},
                 {"vocab", h->vocab, expected->vocab},
                 {"seq", h->seq, expected->seq},
                 {"tied", h->tied, expected->tied},
                 {"file size", h->file_bytes, expected->file_bytes}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        KILN_REQUIRE(sizes[i].found == sizes[i].expected, err, KILN_EINPUT,
                     "state %s: made for another model: %s is %llu, expected %llu", path,
                     sizes[i].name, (unsigned long long)sizes[i].found,
                     (unsigned long long)sizes[i].expected);
    }
    KILN_REQUIRE(h->crc == expected->crc, err, KILN_EINPUT,
                 "state %s: made for another model: rms_eps, rope_theta or a region differs", path);
    return KILN_OK;
}

static enum kiln_status open_state(struct kiln_state *state, const char *path,
                                   const struct kiln_table *table, char *notice,
                                   struct kiln_err *err) {
    struct header h, expected = make_header(table);
    state->fd = open(path, O_RDWR | O_CLOEXEC);
    KILN_REQUIRE(state->fd >= 0, err, KILN_EIO, "state %s: %s", path, strerror(errno));
    KILN_TRY(lock_file(state, path, err));
    KILN_TRY(read_header(state->fd, path, &h, err));
    KILN_TRY(same_model(&h, &expected, path, err));
    state->bytes = h.file_bytes;
    KILN_TRY(map_file(state, path, err));
    return choose_cursor(state, path, notice, err);
}

enum kiln_status kiln_state_open(const char *path, const struct kiln_table *table,
                                 struct kiln_state **out, char notice[160], struct kiln_err *err) {
    *out = NULL;
    notice[0] = '\0';
    struct kiln_state *state = kiln_alloc(1, sizeof *state);
    KILN_REQUIRE(state, err, KILN_ENOMEM, "no memory for the state");
    state->fd = -1;
    enum kiln_status status = open_state(state, path, table, notice, err);
    if (status != KILN_OK) {
        kiln_state_close(state);
        return status;
    }
    *out = state;
    return KILN_OK;
}

static struct kiln_dims dims_of(const struct header *h) {
    return (struct kiln_dims){.dim = h->dim,
                              .hidden = h->hidden,
                              .layers = h->layers,
                              .heads = h->heads,
                              .kv_heads = h->kv_heads,
                              .head_size = h->head_size,
                              .vocab = h->vocab,
                              .seq = h->seq,
                              .tied = h->tied != 0,
                              .rms_eps = (float)h->rms_eps,
                              .rope_theta = (float)h->rope_theta};
}

static enum kiln_status peek(int fd, const char *path, struct kiln_dims *dims,
                             struct kiln_cursor *cursor, struct kiln_err *err) {
    struct header h;
    KILN_TRY(read_header(fd, path, &h, err));
    *dims = dims_of(&h);
    bool found = false;
    for (int i = 0; i < 2; i++) {
        unsigned char raw[sizeof(struct slot)];
        struct kiln_cursor one;
        if (pread(fd, raw, sizeof raw, (CURSOR_PAGE + i) * PAGE) == (ssize_t)sizeof raw &&
            slot_valid(raw, &one) && (!found || one.generation > cursor->generation)) {
            *cursor = one;
            found = true;
        }
    }
    KILN_REQUIRE(found, err, KILN_EDAMAGED, "state %s: both cursors are damaged", path);
    return KILN_OK;
}

enum kiln_status kiln_state_peek(const char *path, struct kiln_dims *dims,
                                 struct kiln_cursor *cursor, struct kiln_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    KILN_REQUIRE(fd >= 0, err, KILN_EIO, "state %s: %s", path, strerror(errno));
    enum kiln_status status = peek(fd, path, dims, cursor, err);
    close(fd);
    return status;
}

void kiln_state_close(struct kiln_state *state) {
    if (!state) {
        return;
    }
    if (state->base) {
        munmap(state->base, state->bytes);
    }
    if (state->fd >= 0) {
        close(state->fd);
    }
    kiln_free(state);
}

void kiln_state_dims(const struct kiln_state *state, struct kiln_dims *dims) {
    struct header h;
    memcpy(&h, state->base, sizeof h);
    *dims = dims_of(&h);
}

float *kiln_state_region(struct kiln_state *state, enum kiln_region region) {
    return (unsigned)region <= KILN_GRADIENTS ? (float *)state->region[region] : NULL;
}

/* ---- the undo journal
 * ---------------------------------------------------------------------------- */

static struct journal_slot *journal(struct kiln_state *state, size_t slot) {
    assert(slot < KILN_JOURNAL_SLOTS);
    return (struct journal_slot *)state->region[KILN_JOURNAL] + slot;
}

static _Atomic uint64_t *stamp(const struct kiln_state *state, size_t chunk) {
    return (_Atomic uint64_t *)state->region[KILN_STAMPS] + chunk;
}

void kiln_state_chunk_begin(struct kiln_state *state, size_t slot, size_t chunk, size_t offset,
                            size_t n) {
    struct journal_slot *j = journal(state, slot);
    j->offset = offset;
    j->n = n;
    for (int i = 0; i < 3; i++) {
        memcpy(j->old[i], kiln_state_region(state, KILN_WEIGHTS + i) + offset, n * sizeof(float));
    }
    kiln_kill_point("chunk: copied");
    atomic_store_explicit(&j->valid, chunk + 1, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    kiln_kill_point("chunk: valid");
}

void kiln_state_chunk_end(struct kiln_state *state, size_t slot, size_t chunk, uint64_t update) {
    atomic_thread_fence(memory_order_seq_cst);
    kiln_kill_point("chunk: changed");
    atomic_store_explicit(stamp(state, chunk), update, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    kiln_kill_point("chunk: stamped");
    atomic_store_explicit(&journal(state, slot)->valid, 0, memory_order_release);
}

void kiln_state_stamp_all(struct kiln_state *state, uint64_t update) {
    for (size_t slot = 0; slot < KILN_JOURNAL_SLOTS; slot++) {
        memset(journal(state, slot), 0, sizeof(struct journal_slot));
    }
    for (size_t chunk = 0; chunk < state->chunks; chunk++) {
        atomic_store_explicit(stamp(state, chunk), update, memory_order_relaxed);
    }
}

bool kiln_state_chunk_done(const struct kiln_state *state, size_t chunk, uint64_t update) {
    return atomic_load_explicit(stamp(state, chunk), memory_order_acquire) == update;
}

enum kiln_status kiln_state_restore(struct kiln_state *state, uint64_t update,
                                    struct kiln_err *err) {
    for (size_t slot = 0; slot < KILN_JOURNAL_SLOTS; slot++) {
        struct journal_slot *j = journal(state, slot);
        uint64_t valid = atomic_load(&j->valid);
        if (valid == 0) {
            continue;
        }
        KILN_REQUIRE(valid <= state->chunks && j->n <= KILN_CHUNK && j->offset <= state->size &&
                         j->n <= state->size - j->offset,
                     err, KILN_EDAMAGED,
                     "state: journal slot %zu is damaged; start from the newest checkpoint", slot);
        for (int i = 0; i < 3 && !kiln_state_chunk_done(state, valid - 1, update); i++) {
            memcpy(kiln_state_region(state, KILN_WEIGHTS + i) + j->offset, j->old[i],
                   j->n * sizeof(float));
        }
        atomic_store(&j->valid, 0);
    }
    return KILN_OK;
}

const struct kiln_cursor *kiln_state_cursor(const struct kiln_state *state) {
    return &state->cursor;
}

enum kiln_status kiln_state_sync(struct kiln_state *state, struct kiln_err *err) {
    KILN_REQUIRE(msync(state->base, state->bytes, MS_SYNC) == 0 && fsync(state->fd) == 0, err,
                 KILN_EIO, "cannot write the state to the disk: %s", strerror(errno));
    return KILN_OK;
}

/* SPDX-License-Identifier: MIT
 *
 * state_int.h: what the files of src/state share: the pages as they lie in the file.
 *
 * layout.c: sizes and the header; cursor.c: slots and commits; journal.c: guarded chunks;
 * walk.c: a state larger than memory; state.c: the file itself.
 */
#ifndef KILN_STATE_INT_H
#define KILN_STATE_INT_H

#include <stdatomic.h>
#include <sys/types.h>

#include "model/pieces.h"
#include "model/stored_dims.h"
#include "state/state.h"

enum {
    KILN_STATE_PAGE = 4096, /* of the format, whatever the system's page is */
    KILN_STATE_HEAD = KILN_STATE_WEIGHTS_AT,
    KILN_STATE_VERSION = 8,
};

/* Adapters as files hold them; all 0: none. */
struct kiln_stored_lora {
    uint64_t rank;
    double alpha;
    uint64_t targets;
};
static inline struct kiln_stored_lora kiln_lora_store(const struct kiln_lora *lora) {
    return (struct kiln_stored_lora){lora->rank, lora->alpha, lora->targets};
}
static inline struct kiln_lora kiln_lora_restore(const struct kiln_stored_lora *stored) {
    return (struct kiln_lora){stored->rank, stored->alpha, (unsigned)stored->targets};
}

/* Page 0. Every member is 8 bytes or an array of such up to `zero`: no padding. */
struct kiln_state_header {
    char magic[8];
    uint32_t byte_order, version;
    struct kiln_stored_dims dims;
    uint64_t snapshots; /* their precision, as enum kiln_precision; 0: there are none */
    uint64_t region_offset[KILN_REGIONS], region_bytes[KILN_REGIONS];
    uint64_t file_bytes; /* without the window */
    struct kiln_stored_lora lora;
    uint64_t local; /* 1: with what local steps take */
    unsigned char zero[KILN_STATE_PAGE - 4 - 16 - sizeof(struct kiln_stored_dims) -
                       sizeof(struct kiln_stored_lora) - 8 * (3 + 2 * KILN_REGIONS)];
    uint32_t crc; /* of all before it */
};
_Static_assert(sizeof(struct kiln_state_header) == KILN_STATE_PAGE, "the header is a page");

/* Pages 1 and 2. */
struct kiln_state_slot {
    struct kiln_cursor cursor;
    unsigned char zero[KILN_STATE_PAGE - 4 - sizeof(struct kiln_cursor)];
    uint32_t crc;
};
_Static_assert(sizeof(struct kiln_state_slot) == KILN_STATE_PAGE, "a slot is a page");
_Static_assert(sizeof(struct kiln_cursor) == 48 * 8 + 40 + 160, "the cursor has no padding");
_Static_assert(KILN_PRECISION_AUTO == 0 && KILN_PRECISION_FP32 == 1 && KILN_PRECISION_BF16 == 2 &&
                   KILN_PRECISION_FP16 == 3,
               "files hold these numbers");

/* What a worker's chunk was before it is changed. */
struct kiln_journal_slot {
    _Atomic uint64_t valid; /* 1 + chunk; 0: nothing */
    uint64_t offset, n;
    float old[3][KILN_CHUNK]; /* W, m, v */
};

struct kiln_state {
    int fd;
    char *path;
    const struct kiln_table *table;
    enum kiln_precision snapshots; /* AUTO: none */
    unsigned char *base;
    size_t bytes; /* of the mapping at base: all but the window */
    void *region[KILN_REGIONS];
    size_t size, chunks; /* elements of a parameter region, chunks with a stamp */
    unsigned char *window;
    struct kiln_cursor cursor;
    struct kiln_cursor held; /* while `holds`: that of the file */
    bool holds, local;
    char boot_id[40];       /* of the system now */
    int first_slot;         /* which a commit writes first: one that may be lost */
    bool both_whole;        /* when it was opened: either slot would have done */
    struct kiln_walk *walk; /* NULL: all of it may be in memory */
    bool begun;             /* the file may be changed */
    bool reader;            /* another process owns the file; the mapping cannot be written */
};

void kiln_state_walk_end(struct kiln_state *state);

/* ---- layout.c ---------------------------------------------------------------------------------
 */

void kiln_state_header_make(const struct kiln_table *table, enum kiln_precision snapshots,
                            bool local, struct kiln_state_header *header);
/* Read the header of the file at fd and check it by itself: length, magic, byte order, version,
 * checksum, precision of the snapshots. */
KILN_MUST_CHECK enum kiln_status kiln_state_header_read(int fd, const char *path,
                                                        struct kiln_state_header *header,
                                                        struct kiln_err *err);
/* The same, and against a model, so that every damaged field is named; padding behind the regions
 * too, and the length of the file. *snapshots, *local: what it was made with, as far as a damaged
 * header tells. */
KILN_MUST_CHECK enum kiln_status kiln_state_header_check(int fd, const char *path,
                                                         const struct kiln_table *table,
                                                         enum kiln_precision *snapshots,
                                                         bool *local, struct kiln_err *err);
size_t kiln_state_region_bytes(const struct kiln_table *table, enum kiln_precision snapshots,
                               bool local, enum kiln_region region);

/* ---- cursor.c ---------------------------------------------------------------------------------
 */

/* The cursors of the two slots at `pages`; which are whole. */
struct kiln_state_slots {
    struct kiln_cursor cursor[2];
    bool whole[2];
};
void kiln_state_slots_read(const unsigned char *pages, struct kiln_state_slots *slots);
/* The same from an open file, whose owner may be in the middle of a commit: read until one is
 * whole, a few milliseconds at most. */
KILN_MUST_CHECK enum kiln_status kiln_state_slots_pread(int fd, const char *path,
                                                        struct kiln_state_slots *slots,
                                                        struct kiln_err *err);
/* The one to go on from: 0, 1, or -1 for neither. */
int kiln_state_slots_newest(const struct kiln_state_slots *slots);
/* Write `cursor` into slot 0 or 1 as it is. */
void kiln_state_slot_write(struct kiln_state *state, int index, const struct kiln_cursor *cursor);

#endif

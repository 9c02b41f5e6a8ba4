/* SPDX-License-Identifier: MIT
 *
 * layout.c: how long everything is, and the header that says so.
 *
 * The header can be computed from the model, so a damaged one is compared with what it should be
 * and the first field that differs is named.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "kernel/weights.h"
#include "state/state_int.h"

#define BYTE_ORDER_MARK 0x01020304u
/* The window is mapped by itself, so it starts where a page of any system may. */
#define WINDOW_ALIGN ((size_t)65536)
#define MEND                                                                                    \
    "; remove that file and resume: training goes on from the newest checkpoint; without one, " \
    "start a new run"

static const char magic[8] = {'K', 'I', 'L', 'N', 'S', 'T', '0', '1'};

size_t kiln_state_region_bytes(const struct kiln_table *table, enum kiln_precision snapshots,
                               bool local, enum kiln_region region) {
    size_t chunks;
    switch (region) {
        case KILN_GRADIENT_EMBEDDING:
            return table->dims.tied && table->trained == 0
                       ? table->dims.vocab * table->dims.dim * sizeof(float)
                       : 0;
        case KILN_STAMPS:
            kiln_pieces(table, NULL, &chunks);
            return chunks * sizeof(uint64_t);
        case KILN_JOURNAL:
            return KILN_JOURNAL_SLOTS * sizeof(struct kiln_journal_slot);
        case KILN_SNAPSHOT0:
        case KILN_SNAPSHOT1:
            return snapshots == KILN_PRECISION_AUTO ? 0 : kiln_snapshot_bytes(table, snapshots);
        case KILN_LOCAL_WEIGHTS:
            return local ? table->size * sizeof(float) : 0;
        case KILN_LOCAL_MOMENT1:
        case KILN_LOCAL_MOMENT2:
        case KILN_OUTER_MOMENTUM:
            return local ? kiln_trained_size(table) * sizeof(float) : 0;
        case KILN_WEIGHTS:
            return table->size * sizeof(float);
        default:
            return kiln_trained_size(table) * sizeof(float);
    }
}

size_t kiln_state_journal_bytes(const struct kiln_table *table, size_t threads) {
    return kiln_state_region_bytes(table, KILN_PRECISION_AUTO, false, KILN_STAMPS) +
           kiln_round_up(threads * sizeof(struct kiln_journal_slot), KILN_STATE_PAGE);
}

size_t kiln_state_bytes(const struct kiln_table *table, enum kiln_precision snapshots, bool local) {
    size_t bytes = KILN_STATE_HEAD;
    for (int i = 0; i < KILN_REGIONS; i++) {
        bytes +=
            kiln_round_up(kiln_state_region_bytes(table, snapshots, local, i), KILN_STATE_PAGE);
    }
    return kiln_round_up(bytes, WINDOW_ALIGN);
}

size_t kiln_state_file_bytes(const struct kiln_table *table, enum kiln_precision snapshots,
                             bool local, size_t window) {
    return kiln_state_bytes(table, snapshots, local) + kiln_round_up(window, KILN_STATE_PAGE);
}

void kiln_state_header_make(const struct kiln_table *table, enum kiln_precision snapshots,
                            bool local, struct kiln_state_header *header) {
    *header = (struct kiln_state_header){.dims = kiln_dims_store(&table->dims),
                                         .lora = kiln_lora_store(&table->lora)};
    header->byte_order = BYTE_ORDER_MARK;
    header->version = KILN_STATE_VERSION;
    header->snapshots = snapshots;
    header->local = local;
    header->file_bytes = kiln_state_bytes(table, snapshots, local);
    memcpy(header->magic, magic, sizeof magic);
    size_t offset = KILN_STATE_HEAD;
    for (size_t i = 0; i < KILN_REGIONS; i++) {
        header->region_offset[i] = offset;
        header->region_bytes[i] = kiln_state_region_bytes(table, snapshots, local, i);
        offset += kiln_round_up(header->region_bytes[i], KILN_STATE_PAGE);
    }
    header->crc = kiln_crc32c(0, header, offsetof(struct kiln_state_header, crc));
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* The header page and the length of the file. */
static enum kiln_status read_page(int fd, const char *path, struct kiln_state_header *header,
                                  uint64_t *length, struct kiln_err *err) {
    struct stat st;
    KILN_REQUIRE(fstat(fd, &st) == 0, err, KILN_EIO, "state %s: cannot read its length: %s", path,
                 strerror(errno));
    *length = (uint64_t)st.st_size;
    KILN_REQUIRE(*length >= KILN_STATE_HEAD, err, KILN_EDAMAGED,
                 "state %s: %" PRIu64
                 " bytes, its header and cursors need %d: the file is "
                 "truncated" MEND,
                 path, *length, KILN_STATE_HEAD);
    ssize_t got = pread(fd, header, sizeof *header, 0);
    KILN_REQUIRE(got == (ssize_t)sizeof *header, err, KILN_EIO, "state %s: cannot read it: %s",
                 path, got < 0 ? strerror(errno) : "it became shorter meanwhile");
    return KILN_OK;
}

static bool crc_right(const struct kiln_state_header *header) {
    return header->crc == kiln_crc32c(0, header, offsetof(struct kiln_state_header, crc));
}

/* What tells that this is a state file for this kiln; `whole`: its checksum is right. */
static enum kiln_status check_kind(const struct kiln_state_header *h, bool whole, const char *path,
                                   struct kiln_err *err) {
    KILN_REQUIRE(memcmp(h->magic, magic, sizeof magic) == 0, err, KILN_EDAMAGED,
                 "state %s: header field magic is wrong: this is no kiln state file, or its header "
                 "is damaged" MEND,
                 path);
    KILN_REQUIRE(h->byte_order != __builtin_bswap32(BYTE_ORDER_MARK), err, KILN_EDAMAGED,
                 "state %s: written with another byte order; resume on the kind of machine that it "
                 "comes from",
                 path);
    KILN_REQUIRE(h->byte_order == BYTE_ORDER_MARK, err, KILN_EDAMAGED,
                 "state %s: header field byte_order is %#x, expected %#x: the header is "
                 "damaged" MEND,
                 path, h->byte_order, BYTE_ORDER_MARK);
    KILN_REQUIRE(h->version == KILN_STATE_VERSION || !whole, err, KILN_EDAMAGED,
                 "state %s: version %u, this kiln reads version %d: resume with the kiln that made "
                 "it",
                 path, h->version, KILN_STATE_VERSION);
    KILN_REQUIRE(h->version == KILN_STATE_VERSION, err, KILN_EDAMAGED,
                 "state %s: header field version is %u, expected %d: the header is damaged" MEND,
                 path, h->version, KILN_STATE_VERSION);
    return KILN_OK;
}

static enum kiln_status check_snapshots(const struct kiln_state_header *h, const char *path,
                                        struct kiln_err *err) {
    KILN_REQUIRE(h->snapshots <= KILN_PRECISION_FP16, err, KILN_EDAMAGED,
                 "state %s: snapshots of precision %" PRIu64
                 ", which this kiln does not know: resume with the kiln that made it",
                 path, h->snapshots);
    return KILN_OK;
}

enum kiln_status kiln_state_header_read(int fd, const char *path, struct kiln_state_header *header,
                                        struct kiln_err *err) {
    uint64_t length = 0;
    KILN_TRY(read_page(fd, path, header, &length, err));
    KILN_TRY(check_kind(header, crc_right(header), path, err));
    KILN_REQUIRE(crc_right(header), err, KILN_EDAMAGED,
                 "state %s: header field crc does not fit the header, which is damaged" MEND, path);
    KILN_TRY(check_snapshots(header, path, err));
    KILN_REQUIRE(length >= header->file_bytes, err, KILN_EDAMAGED,
                 "state %s: %" PRIu64 " bytes, its header says %" PRIu64
                 ": the file is truncated" MEND,
                 path, length, header->file_bytes);
    return KILN_OK;
}

/* ---- against a model ---------------------------------------------------------------------------
 */

/* Fields of 8 bytes, behind the dims. */
#define FIELD(name) \
    { #name, offsetof(struct kiln_state_header, name) }
#define REGION(id, name)                                                                 \
    {"offset of " name, offsetof(struct kiln_state_header, region_offset) + 8 * (id)}, { \
        "length of " name, offsetof(struct kiln_state_header, region_bytes) + 8 * (id)   \
    }
static const struct field {
    const char *name;
    size_t at;
} fields[] = {
    FIELD(snapshots),
    FIELD(local),
    REGION(KILN_WEIGHTS, "weights"),
    REGION(KILN_MOMENT1, "m"),
    REGION(KILN_MOMENT2, "v"),
    REGION(KILN_GRADIENTS, "gradients"),
    REGION(KILN_GRADIENT_EMBEDDING, "embedding gradient"),
    REGION(KILN_STAMPS, "stamps"),
    REGION(KILN_JOURNAL, "journal"),
    REGION(KILN_SNAPSHOT0, "snapshot 0"),
    REGION(KILN_SNAPSHOT1, "snapshot 1"),
    REGION(KILN_LOCAL_WEIGHTS, "local weights"),
    REGION(KILN_LOCAL_MOMENT1, "local m"),
    REGION(KILN_LOCAL_MOMENT2, "local v"),
    REGION(KILN_OUTER_MOMENTUM, "outer momentum"),
    FIELD(file_bytes),
};

/* A field holds something else than it should. */
static enum kiln_status differs(const struct kiln_state_header *h, const char *path,
                                const char *name, const char *found, const char *wanted,
                                struct kiln_err *err) {
    KILN_REQUIRE(!crc_right(h), err, KILN_EINPUT,
                 "state %s: made for another model: %s is %s, this run's is %s; resume with "
                 "the state file of this run",
                 path, name, found, wanted);
    return KILN_FAIL(err, KILN_EDAMAGED,
                     "state %s: header field %s is %s, expected %s: the header is damaged" MEND,
                     path, name, found, wanted);
}

static enum kiln_status check_dims(const struct kiln_state_header *h,
                                   const struct kiln_state_header *expected, const char *path,
                                   struct kiln_err *err) {
    const struct kiln_stored_field *field = kiln_stored_differ(&h->dims, &expected->dims, false);
    char found[40], wanted[40];
    if (field == NULL) {
        return KILN_OK;
    }
    kiln_stored_text(&h->dims, field, found, sizeof found);
    kiln_stored_text(&expected->dims, field, wanted, sizeof wanted);
    return differs(h, path, field->name, found, wanted, err);
}

static enum kiln_status check_lora(const struct kiln_state_header *h,
                                   const struct kiln_state_header *expected, const char *path,
                                   struct kiln_err *err) {
    const struct kiln_stored_lora *a = &h->lora, *b = &expected->lora;
    uint64_t bits[2][3]; /* of all: a damaged alpha may be no number */
    char found[80], wanted[80];
    memcpy(bits[0], a, sizeof bits[0]);
    memcpy(bits[1], b, sizeof bits[1]);
    if (memcmp(bits[0], bits[1], sizeof bits[0]) == 0) {
        return KILN_OK;
    }
    snprintf(found, sizeof found, "rank %" PRIu64 ", alpha %g, targets %#" PRIx64, a->rank,
             a->alpha, a->targets);
    snprintf(wanted, sizeof wanted, "rank %" PRIu64 ", alpha %g, targets %#" PRIx64, b->rank,
             b->alpha, b->targets);
    return differs(h, path, "lora", found, wanted, err);
}

/* Name the first field in which a header differs from the one it should be. */
static enum kiln_status check_fields(const struct kiln_state_header *h,
                                     const struct kiln_state_header *expected, const char *path,
                                     struct kiln_err *err) {
    KILN_TRY(check_dims(h, expected, path, err));
    KILN_TRY(check_lora(h, expected, path, err));
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const struct field *f = &fields[i];
        uint64_t has, wants;
        char found[40], wanted[40];
        memcpy(&has, (const char *)h + f->at, sizeof has);
        memcpy(&wants, (const char *)expected + f->at, sizeof wants);
        if (has != wants) {
            snprintf(found, sizeof found, "%" PRIu64, has);
            snprintf(wanted, sizeof wanted, "%" PRIu64, wants);
            return differs(h, path, f->name, found, wanted, err);
        }
    }
    for (size_t i = 0; i < sizeof h->zero; i++) {
        KILN_REQUIRE(h->zero[i] == 0, err, KILN_EDAMAGED,
                     "state %s: header padding at byte %zu is %#x, expected 0: the header is "
                     "damaged" MEND,
                     path, i + offsetof(struct kiln_state_header, zero), h->zero[i]);
    }
    KILN_REQUIRE(h->crc == expected->crc, err, KILN_EDAMAGED,
                 "state %s: header field crc is %#x, expected %#x: the header is damaged" MEND,
                 path, h->crc, expected->crc);
    return KILN_OK;
}

/* What lies between the end of a region and the next page, or the end of the file, is zero. */
static enum kiln_status check_padding(int fd, const char *path, const struct kiln_state_header *h,
                                      struct kiln_err *err) {
    for (size_t r = 0; r < KILN_REGIONS; r++) {
        unsigned char bytes[KILN_STATE_PAGE];
        size_t at = h->region_offset[r] + h->region_bytes[r];
        size_t end = r + 1 < KILN_REGIONS ? h->region_offset[r + 1] : h->file_bytes;
        while (at < end) {
            size_t n = end - at < sizeof bytes ? end - at : sizeof bytes;
            ssize_t got = pread(fd, bytes, n, (off_t)at);
            KILN_REQUIRE(got == (ssize_t)n, err, KILN_EIO, "state %s: cannot read byte %zu: %s",
                         path, at, got < 0 ? strerror(errno) : "it became shorter meanwhile");
            for (size_t i = 0; i < n; i++) {
                KILN_REQUIRE(bytes[i] == 0, err, KILN_EDAMAGED,
                             "state %s: padding at byte %zu is %#x, expected 0: the file is "
                             "damaged" MEND,
                             path, at + i, bytes[i]);
            }
            at += n;
        }
    }
    return KILN_OK;
}

/* What the header should be. It says of itself which snapshots the file has, and whether what local
 * steps take; where these very fields are damaged, the checksum knows. */
static enum kiln_precision expect(const struct kiln_table *table, const struct kiln_state_header *h,
                                  bool *local, struct kiln_state_header *expected) {
    for (int p = KILN_PRECISION_AUTO; p <= KILN_PRECISION_FP16; p++) {
        for (int with = 0; with < 2; with++) {
            kiln_state_header_make(table, p, with, expected);
            if (expected->crc == h->crc) {
                *local = with;
                return p;
            }
        }
    }
    const bool known = h->snapshots <= KILN_PRECISION_FP16;
    const enum kiln_precision said = known ? (int)h->snapshots : KILN_PRECISION_AUTO;
    *local = h->local == 1;
    kiln_state_header_make(table, said, *local, expected);
    return said;
}

enum kiln_status kiln_state_header_check(int fd, const char *path, const struct kiln_table *table,
                                         enum kiln_precision *snapshots, bool *local,
                                         struct kiln_err *err) {
    struct kiln_state_header h, expected;
    uint64_t length = 0;
    *snapshots = KILN_PRECISION_AUTO;
    *local = false;
    KILN_TRY(read_page(fd, path, &h, &length, err));
    KILN_TRY(check_kind(&h, crc_right(&h), path, err));
    if (crc_right(&h)) {
        KILN_TRY(check_snapshots(&h, path, err));
    }
    *snapshots = expect(table, &h, local, &expected);
    KILN_TRY(check_fields(&h, &expected, path, err));
    KILN_REQUIRE(length >= h.file_bytes, err, KILN_EDAMAGED,
                 "state %s: %" PRIu64 " bytes, its model needs %" PRIu64
                 ": the file is truncated" MEND,
                 path, length, h.file_bytes);
    return check_padding(fd, path, &h, err);
}

/* SPDX-License-Identifier: MIT
 *
 * checkpoint.c: see checkpoint.h; the bytes of resume.kiln are in docs/formats.md.
 *
 * The first page is the header, its checksum the last word of the page, so that no byte of the file
 * is outside a checksum. model.bin has one over all its bytes; beside it stands the one of the
 * weights as the table lays them out, which a restore compares with what it has put there.
 */
#include "state/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/kill_point.h"
#include "base/mem.h"
#include "state/state_int.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "resume.kiln is little-endian");

enum { PAGE = 4096, VERSION = 6, PATH_ROOM = 4400 };
#define BYTE_ORDER_MARK 0x01020304u
#define PARTS           KILN_CHECKPOINT_PARTS
static const char magic[8] = {'K', 'I', 'L', 'N', 'R', 'S', '0', '1'};

/* Page 0 without its checksum. Every member is 8 bytes or an even number of 4: no padding. */
struct header {
    char magic[8];
    uint32_t byte_order, version;
    uint64_t cursor_bytes;
    struct kiln_stored_dims dims;
    struct kiln_stored_lora lora;
    uint64_t size, file_bytes;
    uint64_t offset[PARTS], bytes[PARTS];
    uint32_t crc[PARTS];
    uint32_t weights_crc, snapshots; /* their precision; 0: there are none */
    struct kiln_cursor cursor;
};
/* Parts that resume.kiln holds, one behind the other. */
enum { ARRAYS = KILN_CHECKPOINT_OUTER + 1 };
_Static_assert(sizeof(struct header) <= PAGE - sizeof(uint32_t), "the header fits its page");

/* In the order of enum kiln_checkpoint_part. */
static const struct {
    const char *name, *file;
} parts[PARTS] = {{"m", "resume.kiln"},          {"v", "resume.kiln"},
                  {"adapters", "resume.kiln"},   {"snapshot 0", "resume.kiln"},
                  {"snapshot 1", "resume.kiln"}, {"outer momentum", "resume.kiln"},
                  {"model.bin", "model.bin"},    {"run.json", "run.json"}};

const char *kiln_checkpoint_part_name(enum kiln_checkpoint_part part) { return parts[part].name; }

static enum kiln_status file_path(const char *folder, const char *name, char out[PATH_ROOM],
                                  struct kiln_err *err) {
    const int n = snprintf(out, PATH_ROOM, "%s/%s", folder, name);
    KILN_REQUIRE(n > 0 && n < PATH_ROOM, err, KILN_EINPUT, "checkpoint %.200s...: path too long",
                 folder);
    return KILN_OK;
}

/* ---- writing -------------------------------------------------------------------------------- */

static struct header make_header(const struct kiln_table *table, enum kiln_precision snapshots,
                                 bool outer, const struct kiln_cursor *cursor) {
    const uint64_t bytes = kiln_trained_size(table) * sizeof(float);
    const uint64_t adapters = table->trained > 0 ? bytes : 0;
    const uint64_t snapshot =
        kiln_state_region_bytes(table, snapshots, false, KILN_SNAPSHOT0); /* 0: none */
    struct header h = {.byte_order = BYTE_ORDER_MARK,
                       .version = VERSION,
                       .cursor_bytes = sizeof *cursor,
                       .dims = kiln_dims_store(&table->dims),
                       .lora = kiln_lora_store(&table->lora),
                       .size = table->size,
                       .file_bytes = PAGE,
                       .bytes = {bytes, bytes, adapters, snapshot, snapshot, outer ? bytes : 0},
                       .snapshots = snapshots,
                       .cursor = *cursor};
    for (int i = 0; i < ARRAYS; i++) {
        h.offset[i] = h.file_bytes;
        h.file_bytes += h.bytes[i];
    }
    memcpy(h.magic, magic, sizeof magic);
    /* What is the state file's own, or a position inside the window, begins anew. */
    h.cursor.mid = h.cursor.round = h.cursor.group = h.cursor.micro_batch = 0;
    h.cursor.loss_sum = h.cursor.eval_sum = 0.0;
    h.cursor.plan_id = h.cursor.window_bytes = h.cursor.clean = 0;
    h.cursor.spread = h.cursor.rank = 0; /* a checkpoint is whole */
    memset(h.cursor.boot_id, 0, sizeof h.cursor.boot_id);
    return h;
}

/* Size and checksum of a file that was just written. */
static enum kiln_status measure(const char *folder, enum kiln_checkpoint_part part,
                                struct header *h, struct kiln_err *err) {
    char path[PATH_ROOM];
    struct kiln_map map;
    KILN_TRY(file_path(folder, parts[part].file, path, err));
    KILN_TRY(kiln_map_open(&map, path, err));
    h->bytes[part] = map.size;
    h->crc[part] = kiln_crc32c(0, map.data, map.size);
    kiln_map_close(&map);
    return KILN_OK;
}

static enum kiln_status write_body(struct kiln_durable *file, const struct header *h,
                                   const void *const arrays[ARRAYS], struct kiln_err *err) {
    unsigned char page[PAGE] = {0};
    memcpy(page, h, sizeof *h);
    const uint32_t crc = kiln_crc32c(0, page, PAGE - sizeof crc);
    memcpy(page + PAGE - sizeof crc, &crc, sizeof crc);
    KILN_TRY(kiln_durable_write(file, page, PAGE, err));
    for (int i = 0; i < ARRAYS; i++) {
        if (h->bytes[i] > 0) {
            KILN_TRY(kiln_durable_write(file, arrays[i], h->bytes[i], err));
        }
    }
    return KILN_OK;
}

static enum kiln_status write_resume(const char *folder, const struct header *h,
                                     const void *const arrays[ARRAYS], struct kiln_err *err) {
    char path[PATH_ROOM];
    struct kiln_durable file;
    KILN_TRY(file_path(folder, "resume.kiln", path, err));
    KILN_TRY(kiln_durable_open(&file, path, err));
    enum kiln_status status = write_body(&file, h, arrays, err);
    if (status != KILN_OK) {
        kiln_durable_abort(&file);
        return status;
    }
    return kiln_durable_commit(&file, err);
}

/* All files, synced, in a folder that is still temporary. */
static enum kiln_status write_files(const char *folder, const struct kiln_table *table,
                                    const float *weights, const void *const arrays[ARRAYS],
                                    struct header *h, const char *settings, struct kiln_err *err) {
    char path[PATH_ROOM];
    KILN_TRY(kiln_make_dirs(folder, err));
    kiln_kill_point("checkpoint: folder made");
    KILN_TRY(file_path(folder, "model.bin", path, err));
    KILN_TRY(kiln_checkpoint_save_run(path, table, weights, err));
    KILN_TRY(measure(folder, KILN_CHECKPOINT_MODEL, h, err));
    kiln_kill_point("checkpoint: model written");
    if (settings) {
        KILN_TRY(file_path(folder, "run.json", path, err));
        KILN_TRY(kiln_write_file(path, settings, strlen(settings), err));
        KILN_TRY(measure(folder, KILN_CHECKPOINT_SETTINGS, h, err));
    }
    h->weights_crc = kiln_crc32c(0, weights, table->size * sizeof(float));
    for (int i = 0; i < ARRAYS; i++) {
        h->crc[i] = h->bytes[i] > 0 ? kiln_crc32c(0, arrays[i], h->bytes[i]) : 0;
    }
    kiln_kill_point("checkpoint: summed");
    KILN_TRY(write_resume(folder, h, arrays, err));
    kiln_kill_point("checkpoint: all written");
    return KILN_OK;
}

/* The folder that checkpoints lie in: made when it is absent, and without leftovers. */
static enum kiln_status prepare_parent(const char *path, struct kiln_err *err) {
    char parent[PATH_ROOM];
    const int n = snprintf(parent, sizeof parent, "%s", path);
    char *slash = n > 0 && n < (int)sizeof parent ? strrchr(parent, '/') : NULL;
    KILN_REQUIRE(slash && slash != parent, err, KILN_EINTERNAL,
                 "checkpoint %.200s: not a name of the form FOLDER/step-N", path);
    *slash = '\0';
    if (kiln_path_is_dir(parent)) {
        return kiln_checkpoint_clean(parent, err);
    }
    KILN_TRY(kiln_make_dirs(parent, err));
    slash = strrchr(parent, '/');
    if (slash && slash != parent) {
        *slash = '\0';
        return kiln_sync_dir(parent, err);
    }
    return kiln_sync_dir(slash ? "/" : ".", err);
}

/* Give the finished folder its name. One that has it already is moved away first: it is damaged, or
 * of a history that was given up. */
static enum kiln_status publish(const char *temporary, const char *path, struct kiln_err *err) {
    char old[PATH_ROOM];
    snprintf(old, sizeof old, "%s.old.tmp", path);
    if (kiln_path_exists(path)) {
        KILN_TRY(kiln_durable_rename(path, old, err));
        kiln_kill_point("checkpoint: old one moved");
    }
    KILN_TRY(kiln_durable_rename(temporary, path, err));
    kiln_kill_point("checkpoint: renamed");
    return kiln_remove_tree(old, err);
}

enum kiln_status kiln_checkpoint_write(const char *path, const struct kiln_table *table,
                                       const float *weights, const float *m, const float *v,
                                       const void *const snapshots[KILN_SNAPSHOTS],
                                       enum kiln_precision precision, const float *outer,
                                       const struct kiln_cursor *cursor, const char *settings,
                                       struct kiln_err *err) {
    char temporary[PATH_ROOM];
    const void *const arrays[ARRAYS] = {m,
                                        v,
                                        weights + table->trained,
                                        snapshots ? snapshots[0] : NULL,
                                        snapshots ? snapshots[1] : NULL,
                                        outer};
    struct header h = make_header(table, precision, outer != NULL, cursor);
    KILN_REQUIRE((snapshots != NULL) == (precision != KILN_PRECISION_AUTO), err, KILN_EINTERNAL,
                 "checkpoint %s: asked for with snapshots of no precision, or with none of one",
                 path);
    KILN_REQUIRE(strlen(path) < PATH_ROOM - 64, err, KILN_EINPUT,
                 "checkpoint %.200s...: path too long", path);
    KILN_REQUIRE(cursor->phase == KILN_PHASE_WINDOW, err, KILN_EINTERNAL,
                 "checkpoint %s: asked for inside an update", path);
    kiln_kill_point("checkpoint: before");
    KILN_TRY(prepare_parent(path, err));
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    enum kiln_status status = write_files(temporary, table, weights, arrays, &h, settings, err);
    if (status == KILN_OK) {
        status = publish(temporary, path, err);
    }
    if (status != KILN_OK) {
        struct kiln_err ignored; /* the first message is the one to read */
        kiln_err_rename(err, temporary, path);
        (void)!kiln_remove_tree(temporary, &ignored);
    }
    return status;
}

/* ---- reading -------------------------------------------------------------------------------- */

static void info_of(const struct header *h, struct kiln_checkpoint_info *out) {
    *out = (struct kiln_checkpoint_info){.version = h->version,
                                         .dims = kiln_dims_restore(&h->dims),
                                         .lora = kiln_lora_restore(&h->lora),
                                         .size = h->size,
                                         .snapshots = (int)h->snapshots,
                                         .cursor = h->cursor,
                                         .weights_crc = h->weights_crc};
    memcpy(out->offset, h->offset, sizeof h->offset);
    memcpy(out->bytes, h->bytes, sizeof h->bytes);
    memcpy(out->crc, h->crc, sizeof h->crc);
}

static enum kiln_status check_header(const struct kiln_map *map, const char *path, struct header *h,
                                     struct kiln_err *err) {
    uint32_t crc;
    KILN_REQUIRE(map->size >= PAGE, err, KILN_EDAMAGED,
                 "checkpoint %s: %zu bytes, a header alone has %d", path, map->size, PAGE);
    memcpy(h, map->data, sizeof *h);
    memcpy(&crc, map->data + PAGE - sizeof crc, sizeof crc);
    KILN_REQUIRE(memcmp(h->magic, magic, sizeof magic) == 0, err, KILN_EDAMAGED,
                 "checkpoint %s: wrong magic, this is no resume.kiln", path);
    KILN_REQUIRE(h->byte_order == BYTE_ORDER_MARK, err, KILN_EDAMAGED,
                 "checkpoint %s: written with another byte order", path);
    KILN_REQUIRE(h->version == VERSION && h->cursor_bytes == sizeof h->cursor, err, KILN_EDAMAGED,
                 "checkpoint %s: version %u with a cursor of %" PRIu64
                 " bytes, this kiln reads version %d with %zu: resume with the kiln that wrote it",
                 path, h->version, h->cursor_bytes, VERSION, sizeof h->cursor);
    KILN_REQUIRE(crc == kiln_crc32c(0, map->data, PAGE - sizeof crc), err, KILN_EDAMAGED,
                 "checkpoint %s: header checksum is wrong", path);
    KILN_REQUIRE(map->size == h->file_bytes, err, KILN_EDAMAGED,
                 "checkpoint %s: %zu bytes, its header says %" PRIu64, path, map->size,
                 h->file_bytes);
    KILN_REQUIRE(h->snapshots <= KILN_PRECISION_FP16, err, KILN_EDAMAGED,
                 "checkpoint %s: snapshots of precision %u, which this kiln does not know", path,
                 h->snapshots);
    return KILN_OK;
}

enum kiln_status kiln_checkpoint_peek(const char *path, struct kiln_checkpoint_info *out,
                                      struct kiln_err *err) {
    char file[PATH_ROOM];
    struct kiln_map map;
    struct header h;
    KILN_TRY(file_path(path, "resume.kiln", file, err));
    KILN_TRY(kiln_map_open(&map, file, err));
    const enum kiln_status status = check_header(&map, file, &h, err);
    kiln_map_close(&map);
    KILN_TRY(status);
    info_of(&h, out);
    return KILN_OK;
}

static enum kiln_status check_part(const struct kiln_map *map, const char *path,
                                   const struct kiln_checkpoint_info *info,
                                   enum kiln_checkpoint_part part, struct kiln_err *err) {
    const uint64_t offset = info->offset[part], bytes = info->bytes[part];
    const bool whole_file = part >= KILN_CHECKPOINT_MODEL;
    KILN_REQUIRE(
        whole_file ? map->size == bytes : offset <= map->size && bytes <= map->size - offset, err,
        KILN_EDAMAGED, "checkpoint %s: %zu bytes; %s has %" PRIu64 " from byte %" PRIu64, path,
        map->size, parts[part].name, bytes, offset);
    const uint32_t crc = kiln_crc32c(0, map->data + offset, bytes);
    KILN_REQUIRE(crc == info->crc[part], err, KILN_EDAMAGED,
                 "checkpoint %s: %s is damaged: checksum %08" PRIx32 ", its header says %08" PRIx32,
                 path, parts[part].name, crc, info->crc[part]);
    return KILN_OK;
}

enum kiln_status kiln_checkpoint_check(const char *path, const struct kiln_checkpoint_info *info,
                                       enum kiln_checkpoint_part part, struct kiln_err *err) {
    char file[PATH_ROOM];
    struct kiln_map map;
    if (info->bytes[part] == 0) { /* there is none */
        return KILN_OK;
    }
    KILN_TRY(file_path(path, parts[part].file, file, err));
    KILN_TRY(kiln_map_open(&map, file, err));
    const enum kiln_status status = check_part(&map, file, info, part, err);
    kiln_map_close(&map);
    return status;
}

enum kiln_status kiln_checkpoint_verify(const char *path, struct kiln_checkpoint_info *out,
                                        struct kiln_err *err) {
    struct kiln_checkpoint_info info;
    KILN_TRY(kiln_checkpoint_peek(path, &info, err));
    for (int part = 0; part < PARTS; part++) {
        KILN_TRY(kiln_checkpoint_check(path, &info, part, err));
    }
    if (out) {
        *out = info;
    }
    return KILN_OK;
}

enum kiln_status kiln_checkpoint_adapters(const char *path, const struct kiln_checkpoint_info *info,
                                          float *to, struct kiln_err *err) {
    const enum kiln_checkpoint_part part = KILN_CHECKPOINT_ADAPTERS;
    char file[PATH_ROOM];
    struct kiln_map map;
    KILN_TRY(file_path(path, parts[part].file, file, err));
    KILN_TRY(kiln_map_open(&map, file, err));
    const enum kiln_status status = check_part(&map, file, info, part, err);
    if (status == KILN_OK) {
        memcpy(to, map.data + info->offset[part], info->bytes[part]);
    }
    kiln_map_close(&map);
    return status;
}

/* ---- a folder of them ----------------------------------------------------------------------- */

static int by_number(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The N of "step-N", written without sign and leading zeros. */
static bool step_of(const char *name, uint64_t *step) {
    char again[32];
    if (sscanf(name, "step-%20" SCNu64, step) != 1) {
        return false;
    }
    snprintf(again, sizeof again, "step-%" PRIu64, *step);
    return strcmp(name, again) == 0;
}

enum kiln_status kiln_checkpoint_list(const char *folder, uint64_t **steps, size_t *n,
                                      struct kiln_err *err) {
    size_t room = 16;
    *n = 0;
    *steps = kiln_alloc(room, sizeof **steps);
    KILN_REQUIRE(*steps, err, KILN_ENOMEM, "checkpoints %s: not enough memory", folder);
    DIR *dir = opendir(folder);
    if (!dir && errno == ENOENT) {
        return KILN_OK;
    }
    enum kiln_status status =
        dir ? KILN_OK : KILN_FAIL(err, KILN_EIO, "checkpoints %s: %s", folder, strerror(errno));
    for (struct dirent *e; status == KILN_OK && (e = readdir(dir)) != NULL;) {
        if (*n == room) {
            uint64_t *grown = kiln_realloc(*steps, room, 2 * room, sizeof *grown);
            if (!grown) {
                status = KILN_FAIL(err, KILN_ENOMEM, "checkpoints %s: not enough memory", folder);
                break;
            }
            *steps = grown;
            room *= 2;
        }
        *n += step_of(e->d_name, *steps + *n);
    }
    if (dir) {
        closedir(dir);
    }
    if (status != KILN_OK) {
        kiln_free(*steps);
        *steps = NULL;
        *n = 0;
        return status;
    }
    qsort(*steps, *n, sizeof **steps, by_number);
    return KILN_OK;
}

enum kiln_status kiln_checkpoint_find(const char *folder, uint64_t *step, char *path, size_t size,
                                      size_t *damaged, struct kiln_err *err) {
    uint64_t *steps;
    size_t n;
    struct kiln_err why = {0}, newest = {0};
    *damaged = 0;
    KILN_TRY(kiln_checkpoint_list(folder, &steps, &n, err));
    bool found = false;
    for (size_t i = n; i-- > 0 && !found;) {
        *step = steps[i];
        const int length = snprintf(path, size, "%s/step-%" PRIu64, folder, *step);
        found = length > 0 && (size_t)length < size &&
                kiln_checkpoint_verify(path, NULL, &why) == KILN_OK;
        if (!found) {
            newest = *damaged == 0 ? why : newest;
            *damaged += 1;
        }
    }
    kiln_free(steps);
    KILN_REQUIRE(found || *damaged > 0, err, KILN_EINPUT, "%s: no checkpoint there", folder);
    KILN_REQUIRE(found, err, KILN_EINPUT,
                 "%s: none of %zu checkpoints is whole; the newest: %.300s", folder, *damaged,
                 newest.message);
    return KILN_OK;
}

enum kiln_status kiln_checkpoint_clean(const char *folder, struct kiln_err *err) {
    DIR *dir = opendir(folder);
    if (!dir) {
        KILN_REQUIRE(errno == ENOENT, err, KILN_EIO, "checkpoints %s: %s", folder, strerror(errno));
        return KILN_OK;
    }
    enum kiln_status status = KILN_OK;
    for (struct dirent *e; status == KILN_OK && (e = readdir(dir)) != NULL;) {
        char path[PATH_ROOM];
        const size_t length = strlen(e->d_name);
        if (strncmp(e->d_name, "step-", 5) == 0 && length > 4 &&
            strcmp(e->d_name + length - 4, ".tmp") == 0) {
            status = file_path(folder, e->d_name, path, err);
            status = status == KILN_OK ? kiln_remove_tree(path, err) : status;
        }
    }
    closedir(dir);
    return status;
}

/* Under another name first: a checkpoint that is half removed must not look like one. */
static enum kiln_status remove_one(const char *folder, uint64_t step, struct kiln_err *err) {
    char path[PATH_ROOM], going[PATH_ROOM];
    snprintf(path, sizeof path, "%s/step-%" PRIu64, folder, step);
    snprintf(going, sizeof going, "%s/step-%" PRIu64 ".tmp", folder, step);
    KILN_TRY(kiln_durable_rename(path, going, err));
    kiln_kill_point("checkpoint: pruned, not removed");
    return kiln_remove_tree(going, err);
}

enum kiln_status kiln_checkpoint_prune(const char *folder, uint64_t newest, size_t keep,
                                       struct kiln_err *err) {
    uint64_t *steps;
    size_t n;
    KILN_TRY(kiln_checkpoint_list(folder, &steps, &n, err));
    while (n > 0 && steps[n - 1] > newest) {
        n--;
    }
    enum kiln_status status = KILN_OK;
    for (size_t i = 0; i + keep < n && status == KILN_OK; i++) {
        status = remove_one(folder, steps[i], err);
    }
    kiln_free(steps);
    return status;
}

/* ---- into a state --------------------------------------------------------------------------- */

static enum kiln_status same_model(const char *path, const struct kiln_dims *has,
                                   const struct kiln_dims *wants, struct kiln_err *err) {
    const struct kiln_stored_dims a = kiln_dims_store(has), b = kiln_dims_store(wants);
    const struct kiln_stored_field *field = kiln_stored_differ(&a, &b, false);
    char found[40], wanted[40];
    if (field == NULL) {
        return KILN_OK;
    }
    kiln_stored_text(&a, field, found, sizeof found);
    kiln_stored_text(&b, field, wanted, sizeof wanted);
    return KILN_FAIL(err, KILN_EINPUT,
                     "checkpoint %s: of another model: %s is %s, the state has %s", path,
                     field->name, found, wanted);
}

static enum kiln_status same_lora(const char *path, const struct kiln_lora *has,
                                  const struct kiln_lora *wants, struct kiln_err *err) {
    KILN_REQUIRE(
        has->rank == wants->rank && has->targets == wants->targets && has->alpha == wants->alpha,
        err, KILN_EINPUT,
        "checkpoint %s: adapters of rank %zu, alpha %g, targets %#x; the state has rank "
        "%zu, alpha %g, targets %#x",
        path, has->rank, has->alpha, has->targets, wants->rank, wants->alpha, wants->targets);
    return KILN_OK;
}

static enum kiln_status restore_weights(const char *path, const struct kiln_table *table,
                                        const struct kiln_checkpoint_info *info, float *weights,
                                        struct kiln_err *err) {
    char file[PATH_ROOM];
    struct kiln_checkpoint *model;
    KILN_TRY(file_path(path, "model.bin", file, err));
    KILN_TRY(kiln_checkpoint_open(file, &model, err));
    const enum kiln_status status = kiln_checkpoint_load(model, table, weights, err);
    kiln_checkpoint_close(model);
    KILN_TRY(status);
    const uint32_t crc = kiln_crc32c(0, weights, table->size * sizeof *weights);
    KILN_REQUIRE(crc == info->weights_crc, err, KILN_EDAMAGED,
                 "checkpoint %s: its weights have checksum %08" PRIx32
                 ", resume.kiln says %08" PRIx32,
                 file, crc, info->weights_crc);
    return KILN_OK;
}

static enum kiln_status restore_arrays(const char *path, const struct kiln_checkpoint_info *info,
                                       struct kiln_state *state, struct kiln_err *err) {
    char file[PATH_ROOM];
    struct kiln_map map;
    KILN_TRY(file_path(path, "resume.kiln", file, err));
    KILN_TRY(kiln_map_open(&map, file, err));
    enum kiln_status status = KILN_OK;
    void *const to[ARRAYS] = {
        kiln_state_region(state, KILN_MOMENT1),
        kiln_state_region(state, KILN_MOMENT2),
        state->table->trained > 0 ? kiln_state_region(state, KILN_WEIGHTS) + state->table->trained
                                  : NULL,
        kiln_state_snapshot(state, 0),
        kiln_state_snapshot(state, 1),
        kiln_state_region(state, KILN_OUTER_MOMENTUM),
    };
    for (int i = 0; i < ARRAYS && status == KILN_OK; i++) {
        status = check_part(&map, file, info, i, err);
        if (status == KILN_OK && to[i]) {
            memcpy(to[i], map.data + info->offset[i], info->bytes[i]);
        }
    }
    kiln_map_close(&map);
    return status;
}

static enum kiln_status check_room(const char *path, const struct kiln_checkpoint_info *info,
                                   const struct kiln_table *table, struct kiln_err *err) {
    const uint64_t bytes = kiln_trained_size(table) * sizeof(float);
    const uint64_t adapters = table->trained > 0 ? bytes : 0;
    const uint64_t snapshot =
        kiln_state_region_bytes(table, info->snapshots, false, KILN_SNAPSHOT0);
    KILN_REQUIRE(info->size == table->size && info->bytes[KILN_CHECKPOINT_MOMENT1] == bytes &&
                     info->bytes[KILN_CHECKPOINT_MOMENT2] == bytes &&
                     info->bytes[KILN_CHECKPOINT_ADAPTERS] == adapters,
                 err, KILN_EDAMAGED,
                 "checkpoint %s: arrays of %zu numbers, its model has %zu (with gaps)", path,
                 info->size, table->size);
    const uint64_t outer = info->bytes[KILN_CHECKPOINT_OUTER];
    KILN_REQUIRE(outer == 0 || outer == bytes, err, KILN_EDAMAGED,
                 "checkpoint %s: an outer momentum of %" PRIu64 " bytes, its model has %" PRIu64,
                 path, outer, bytes);
    KILN_REQUIRE(info->bytes[KILN_CHECKPOINT_SNAPSHOT0] == snapshot &&
                     info->bytes[KILN_CHECKPOINT_SNAPSHOT1] == snapshot,
                 err, KILN_EDAMAGED,
                 "checkpoint %s: snapshots of %" PRIu64 " and %" PRIu64
                 " bytes, its model has %" PRIu64,
                 path, info->bytes[KILN_CHECKPOINT_SNAPSHOT0],
                 info->bytes[KILN_CHECKPOINT_SNAPSHOT1], snapshot);
    return KILN_OK;
}

/* Without the snapshots of both generations a delayed run does not go on with the same bits. */
static enum kiln_status same_snapshots(const char *path, enum kiln_precision has,
                                       enum kiln_precision wants, struct kiln_err *err) {
    KILN_REQUIRE(has != KILN_PRECISION_AUTO || wants == KILN_PRECISION_AUTO, err, KILN_EINPUT,
                 "checkpoint %s: of a run without snapshots, the state needs those of a run of "
                 "--overlap delayed in %s",
                 path, kiln_precision_name(wants));
    KILN_REQUIRE(has == KILN_PRECISION_AUTO || wants != KILN_PRECISION_AUTO, err, KILN_EINPUT,
                 "checkpoint %s: of a run of --overlap delayed with snapshots in %s, the state has "
                 "none",
                 path, kiln_precision_name(has));
    KILN_REQUIRE(has == wants, err, KILN_EINPUT,
                 "checkpoint %s: snapshots in %s, the state's are in %s", path,
                 kiln_precision_name(has), kiln_precision_name(wants));
    return KILN_OK;
}

enum kiln_status kiln_checkpoint_restore(const char *path, struct kiln_state *state,
                                         struct kiln_err *err) {
    struct kiln_checkpoint_info info;
    KILN_TRY(kiln_checkpoint_peek(path, &info, err));
    KILN_TRY(same_model(path, &info.dims, &state->table->dims, err));
    KILN_TRY(same_lora(path, &info.lora, &state->table->lora, err));
    KILN_TRY(same_snapshots(path, info.snapshots, kiln_state_snapshots(state), err));
    KILN_TRY(check_room(path, &info, state->table, err));
    KILN_REQUIRE((info.bytes[KILN_CHECKPOINT_OUTER] > 0) == kiln_state_local(state), err,
                 KILN_EINPUT,
                 "checkpoint %s: of a run with%s local steps, the state is of one with%s", path,
                 kiln_state_local(state) ? "out" : "", kiln_state_local(state) ? "" : "out");
    KILN_TRY(kiln_checkpoint_check(path, &info, KILN_CHECKPOINT_MODEL, err));
    KILN_TRY(
        restore_arrays(path, &info, state, err)); /* adapters: the checksum is of all weights */
    KILN_TRY(
        restore_weights(path, state->table, &info, kiln_state_region(state, KILN_WEIGHTS), err));
    kiln_state_stamp_all(state, info.cursor.updates);
    kiln_state_commit(state, &info.cursor);
    return KILN_OK;
}

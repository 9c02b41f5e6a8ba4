/* SPDX-License-Identifier: MIT
 *
 * inspect.c: what the files of this room say of themselves (kiln/inspect.h).
 *
 * Fields are walked by tables of name, offset and type; a field of the cursor or of the model is
 * listed once, for state files and checkpoints alike. A state is read as it lies in the file: what
 * is damaged is shown too, and named at the end.
 */
#include "state/inspect.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "kiln/inspect.h"
#include "model/holding.h"
#include "state/checkpoint.h"
#include "state/state_int.h"

/* ---- facts ---------------------------------------------------------------------------------- */

struct field {
    const char *name;
    size_t at;
    enum kiln_fact_type type;
};
#define FIELDS(list) (list), sizeof(list) / sizeof(list)[0]

#define CURSOR(type, member) \
    { #member, offsetof(struct kiln_cursor, member), KILN_FACT_##type }
static const struct field cursor_fields[] = {
    CURSOR(COUNT, generation),
    CURSOR(COUNT, step),
    CURSOR(COUNT, updates),
    CURSOR(COUNT, sample),
    CURSOR(COUNT, tokens),
    CURSOR(COUNT, metrics_bytes),
    CURSOR(COUNT, trace_bytes),
    CURSOR(COUNT, restarts),
    CURSOR(REAL, best_val),
    CURSOR(COUNT, best_val_step),
    CURSOR(REAL, first_loss),
    CURSOR(REAL, last_loss),
    CURSOR(REAL, loss),
    CURSOR(REAL, grad_norm),
    CURSOR(REAL, lr),
    CURSOR(FLAG, mid),
    CURSOR(COUNT, round),
    CURSOR(COUNT, group),
    CURSOR(COUNT, micro_batch),
    CURSOR(REAL, loss_sum),
    CURSOR(REAL, eval_sum),
    CURSOR(COUNT, plan_id),
    CURSOR(COUNT, window_bytes),
    CURSOR(COUNT, owner_epoch),
    CURSOR(COUNT, skipped),
    CURSOR(COUNT, staleness),
    CURSOR(COUNT, ranks),
    CURSOR(COUNT, spread),
    CURSOR(COUNT, rank),
    CURSOR(COUNT, skip),
    CURSOR(REAL, loss_scale),
    CURSOR(COUNT, loss_scale_good),
    CURSOR(REAL, ms),
    CURSOR(REAL, device_ms),
    CURSOR(REAL, compile_ms),
    CURSOR(REAL, restart_ms),
    CURSOR(REAL, update_ms),
    CURSOR(REAL, dw_wait_ms),
    CURSOR(REAL, io_ms),
    CURSOR(REAL, stall_ms),
    CURSOR(COUNT, surface_written),
    CURSOR(COUNT, surface_read),
    CURSOR(COUNT, compiles),
    CURSOR(COUNT, layer_forwards),
    CURSOR(REAL, handed_at),
    CURSOR(COUNT, peak_bytes),
    CURSOR(FLAG, clean),
    CURSOR(TEXT, boot_id),
    CURSOR(TEXT, numerics),
};

static const char *const region_names[KILN_REGIONS] = {
    [KILN_WEIGHTS] = "weights",
    [KILN_MOMENT1] = "m",
    [KILN_MOMENT2] = "v",
    [KILN_GRADIENTS] = "gradients",
    [KILN_GRADIENT_EMBEDDING] = "embedding gradient",
    [KILN_STAMPS] = "stamps",
    [KILN_JOURNAL] = "journal",
    [KILN_SNAPSHOT0] = "snapshot 0",
    [KILN_SNAPSHOT1] = "snapshot 1",
    [KILN_LOCAL_WEIGHTS] = "local weights",
    [KILN_LOCAL_MOMENT1] = "local m",
    [KILN_LOCAL_MOMENT2] = "local v",
    [KILN_OUTER_MOMENTUM] = "outer momentum",
};
static const char *const phase_names[] = {"start", "window", "update", "finish", "outer"};

/* A list being filled. Out of memory is remembered and told at the end. */
struct list {
    struct kiln_facts *out;
    const char *section;
    size_t item;
    bool full;
    struct kiln_fact nowhere; /* what does not fit goes */
};

static struct kiln_fact *add(struct list *list, const char *name, enum kiln_fact_type type) {
    struct kiln_facts *out = list->out;
    if (out->n == out->room && !list->full) {
        const size_t room = out->room > 0 ? 2 * out->room : 64;
        struct kiln_fact *grown = kiln_realloc(out->fact, out->n, room, sizeof *grown);
        list->full = grown == NULL;
        out->fact = grown ? grown : out->fact;
        out->room = grown ? room : out->room;
    }
    struct kiln_fact *fact = list->full ? &list->nowhere : &out->fact[out->n++];
    *fact = (struct kiln_fact){
        .section = list->section, .item = list->item, .name = name, .type = type};
    return fact;
}

static void add_text(struct list *list, const char *name, const char *text) {
    struct kiln_fact *fact = add(list, name, KILN_FACT_TEXT);
    snprintf(fact->text, sizeof fact->text, "%s", text);
}

static void add_number(struct list *list, const char *name, enum kiln_fact_type type,
                       uint64_t count) {
    add(list, name, type)->count = count;
}

static void add_fields(struct list *list, const void *from, const struct field *fields, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const char *at = (const char *)from + fields[i].at;
        struct kiln_fact *fact = add(list, fields[i].name, fields[i].type);
        if (fields[i].type == KILN_FACT_TEXT) { /* a damaged one may lack its zero */
            snprintf(fact->text, sizeof fact->text, "%.*s", (int)sizeof fact->text - 1, at);
        } else if (fields[i].type == KILN_FACT_REAL) {
            memcpy(&fact->real, at, sizeof fact->real);
        } else {
            memcpy(&fact->count, at, sizeof fact->count);
        }
    }
}

static void begin(struct list *list, const char *section) {
    list->section = section;
    list->item = KILN_NO_ITEM;
}

static void begin_item(struct list *list, const char *section, size_t item) {
    list->section = section;
    list->item = item;
}

static enum kiln_status end(const struct list *list, enum kiln_status status,
                            struct kiln_err *err) {
    if (status == KILN_OK && list->full) {
        return KILN_FAIL(err, KILN_ENOMEM, "inspect: not enough memory");
    }
    return status;
}

void kiln_facts_free(struct kiln_facts *facts) {
    kiln_free(facts->fact);
    *facts = (struct kiln_facts){0};
}

static void add_cursor(struct list *list, const struct kiln_cursor *cursor) {
    struct kiln_cursor c = *cursor;
    c.numerics[sizeof c.numerics - 1] = '\0';
    c.boot_id[sizeof c.boot_id - 1] = '\0';
    begin(list, "cursor");
    add_text(list, "phase", c.phase <= KILN_PHASE_OUTER ? phase_names[c.phase] : "unknown");
    add_fields(list, &c, FIELDS(cursor_fields));
}

static void add_snapshots(struct list *list, uint64_t precision) {
    add_text(list, "snapshots",
             precision == KILN_PRECISION_AUTO   ? "none"
             : precision <= KILN_PRECISION_FP16 ? kiln_precision_name((int)precision)
                                                : "unknown");
}

static void add_model(struct list *list, const struct kiln_stored_dims *dims) {
    static const enum kiln_fact_type types[] = {[KILN_STORED_COUNT] = KILN_FACT_COUNT,
                                                [KILN_STORED_FLAG] = KILN_FACT_FLAG,
                                                [KILN_STORED_REAL] = KILN_FACT_REAL};
    size_t n;
    const struct kiln_stored_field *fields = kiln_stored_fields(&n);
    begin(list, "model");
    for (size_t i = 0; i < n; i++) {
        const struct field field = {fields[i].name, fields[i].at, types[fields[i].type]};
        add_fields(list, dims, &field, 1);
    }
}

static void add_lora(struct list *list, const struct kiln_lora *lora) {
    char targets[KILN_LORA_TEXT];
    if (lora->rank > 0) {
        kiln_lora_text(lora->targets & KILN_LORA_ALL, targets);
        begin(list, "lora");
        add_number(list, "rank", KILN_FACT_COUNT, lora->rank);
        add(list, "alpha", KILN_FACT_REAL)->real = lora->alpha;
        add_text(list, "targets", targets);
    }
}

/* ---- arrays --------------------------------------------------------------------------------- */

static size_t count_not_finite(const unsigned char *from, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, from + i * sizeof bits, sizeof bits);
        count += (bits & 0x7F800000u) == 0x7F800000u;
    }
    return count;
}

enum kiln_status kiln_state_sums(const char *path, struct kiln_cursor *cursor, uint32_t crc[3],
                                 struct kiln_err *err) {
    struct kiln_dims dims;
    struct kiln_lora lora;
    struct kiln_table *table;
    struct kiln_map map;
    KILN_TRY(kiln_state_peek(path, &dims, &lora, cursor, err));
    KILN_TRY(kiln_table_create_lora(&dims, &lora, &table, err));
    struct kiln_state_header h;
    kiln_state_header_make(table, KILN_PRECISION_AUTO, false, &h); /* others lie behind the three */
    kiln_table_destroy(table);
    KILN_TRY(kiln_map_open(&map, path, err));
    const bool room = map.size >= h.file_bytes;
    for (size_t i = 0; i < 3 && room; i++) {
        crc[i] = kiln_crc32c(0, map.data + h.region_offset[i], h.region_bytes[i]);
    }
    const size_t found = map.size;
    kiln_map_close(&map);
    KILN_REQUIRE(room, err, KILN_EDAMAGED, "state %s: %zu bytes, its model needs %" PRIu64, path,
                 found, h.file_bytes);
    return KILN_OK;
}

/* ---- a state file --------------------------------------------------------------------------- */

/* The file as it was mapped, and what was found in it. */
struct state_view {
    const char *path;
    const struct kiln_map *map;
    struct list list;
    struct kiln_state_header header;
    struct kiln_state_slots slots;
    int newest; /* slot, or -1 */
    size_t chunks;
    const struct kiln_table *table;
};

static void add_file(struct state_view *s) {
    struct list *list = &s->list;
    const struct kiln_state_header *h = &s->header;
    char magic[sizeof h->magic + 1] = {0};
    memcpy(magic, h->magic, sizeof h->magic);
    begin(list, "file");
    add_text(list, "magic", magic);
    add_number(list, "version", KILN_FACT_COUNT, h->version);
    add_text(list, "byte_order", h->byte_order == 0x01020304u ? "little-endian" : "unknown");
    add_number(list, "bytes", KILN_FACT_COUNT, s->map->size);
    add_number(list, "header_crc", KILN_FACT_HEX, h->crc);
    add_snapshots(list, h->snapshots);
    add_model(list, &h->dims);
    const struct kiln_lora lora = kiln_lora_restore(&h->lora);
    add_lora(list, &lora);
    for (size_t i = 0; i < KILN_REGIONS; i++) {
        begin_item(list, "regions", i);
        add_text(list, "name", region_names[i]);
        add_number(list, "offset", KILN_FACT_COUNT, h->region_offset[i]);
        add_number(list, "bytes", KILN_FACT_COUNT, h->region_bytes[i]);
    }
}

/* A slot that is not whole may only be in the middle of a commit: look again. */
static void read_slots(struct state_view *s) {
    for (int tries = 0; tries < 100; tries++) {
        kiln_state_slots_read(s->map->data + KILN_STATE_PAGE, &s->slots);
        if (s->slots.whole[0] && s->slots.whole[1]) {
            break;
        }
        usleep(100);
    }
    s->newest = kiln_state_slots_newest(&s->slots);
}

static enum kiln_status add_slots(struct state_view *s, struct kiln_err *err) {
    char boot[40];
    for (size_t i = 0; i < 2; i++) {
        begin_item(&s->list, "slots", i);
        add_number(&s->list, "whole", KILN_FACT_FLAG, s->slots.whole[i]);
        add_number(&s->list, "newest", KILN_FACT_FLAG, (int)i == s->newest);
        add_number(&s->list, "generation", KILN_FACT_COUNT, s->slots.cursor[i].generation);
    }
    KILN_REQUIRE(s->newest >= 0, err, KILN_EDAMAGED,
                 "state %s: both cursor slots are damaged; resume from a checkpoint", s->path);
    const struct kiln_cursor *c = &s->slots.cursor[s->newest];
    add_cursor(&s->list, c);
    kiln_boot_id(boot);
    begin(&s->list, "trust");
    add_number(&s->list, "clean", KILN_FACT_FLAG, c->clean != 0);
    add_number(&s->list, "this_boot", KILN_FACT_FLAG, memcmp(boot, c->boot_id, sizeof boot) == 0);
    KILN_REQUIRE(s->slots.whole[0] && s->slots.whole[1], err, KILN_EDAMAGED,
                 "state %s: cursor slot %d is damaged; the other one is whole, and a resume takes "
                 "it",
                 s->path, s->slots.whole[0] ? 1 : 0);
    return KILN_OK;
}

/* Which chunks are this file's, where the state is spread; NULL: all. On the heap. */
static enum kiln_status find_held(const struct state_view *s, bool **held, struct kiln_err *err) {
    const struct kiln_cursor *c = &s->slots.cursor[s->newest];
    struct kiln_holding holding;
    *held = NULL;
    if (c->spread == 0) {
        return KILN_OK;
    }
    KILN_REQUIRE(c->rank < c->spread && c->spread <= 1 << 20, err, KILN_EDAMAGED,
                 "state %s: the cursor says rank %" PRIu64 " of %" PRIu64, s->path, c->rank,
                 c->spread);
    KILN_TRY(kiln_holding_open(s->table, (size_t)c->spread, &holding, err));
    *held = kiln_alloc(s->chunks, sizeof **held);
    for (size_t part = 0; *held && part < holding.parts; part++) {
        const struct kiln_range own = kiln_holding_of(&holding, part, (size_t)c->rank).chunks;
        for (size_t i = own.at; i < own.at + own.n; i++) {
            (*held)[i] = true;
        }
    }
    kiln_holding_close(&holding);
    KILN_REQUIRE(*held, err, KILN_ENOMEM, "state %s: no memory to look at its stamps", s->path);
    return KILN_OK;
}

/* How many chunks are of which update. A good file has one or two of them. */
static enum kiln_status add_stamps(struct state_view *s, struct kiln_err *err) {
    bool *held;
    KILN_TRY(find_held(s, &held, err));
    enum { KINDS = 4 };
    uint64_t update[KINDS] = {0}, chunks[KINDS] = {0};
    const struct kiln_cursor *c = &s->slots.cursor[s->newest];
    const unsigned char *at = s->map->data + s->header.region_offset[KILN_STAMPS];
    size_t kinds = 0, bad = 0, first_bad = 0;
    uint64_t bad_stamp = 0;
    for (size_t i = 0; i < s->chunks; i++) {
        uint64_t stamp;
        if (held && !held[i]) {
            continue;
        }
        memcpy(&stamp, at + i * sizeof stamp, sizeof stamp);
        const bool changing = c->phase == KILN_PHASE_UPDATE && stamp == c->updates + 1;
        if (stamp != c->updates && !changing && c->phase != KILN_PHASE_OUTER) {
            first_bad = bad == 0 ? i : first_bad;
            bad_stamp = bad == 0 ? stamp : bad_stamp;
            bad++;
        }
        size_t k = 0;
        while (k < kinds && update[k] != stamp) {
            k++;
        }
        if (k < KINDS) {
            update[k] = stamp;
            chunks[k]++;
            kinds = k == kinds ? kinds + 1 : kinds;
        }
    }
    kiln_free(held);
    for (size_t k = 0; k < kinds; k++) {
        begin_item(&s->list, "stamps", k);
        add_number(&s->list, "update", KILN_FACT_COUNT, update[k]);
        add_number(&s->list, "chunks", KILN_FACT_COUNT, chunks[k]);
    }
    KILN_REQUIRE(bad == 0, err, KILN_EDAMAGED,
                 "state %s: stamp of chunk %zu says update %" PRIu64 ", the cursor %" PRIu64
                 " (%zu such chunks of %zu)",
                 s->path, first_bad, bad_stamp, c->updates, bad, s->chunks);
    return KILN_OK;
}

static enum kiln_status add_journal(struct state_view *s, struct kiln_err *err) {
    const unsigned char *at = s->map->data + s->header.region_offset[KILN_JOURNAL];
    const uint64_t size = s->header.region_bytes[KILN_WEIGHTS] / sizeof(float);
    size_t used = 0, bad = KILN_JOURNAL_SLOTS;
    for (size_t i = 0; i < KILN_JOURNAL_SLOTS; i++) {
        uint64_t slot[3]; /* valid, offset, n */
        memcpy(slot, at + i * sizeof(struct kiln_journal_slot), sizeof slot);
        used += slot[0] != 0;
        if (slot[0] != 0 && (slot[0] > s->chunks || slot[2] == 0 || slot[2] > KILN_CHUNK ||
                             slot[1] > size || slot[2] > size - slot[1])) {
            bad = i < bad ? i : bad;
        }
    }
    begin(&s->list, "journal");
    add_number(&s->list, "slots", KILN_FACT_COUNT, KILN_JOURNAL_SLOTS);
    add_number(&s->list, "in_use", KILN_FACT_COUNT, used);
    KILN_REQUIRE(bad == KILN_JOURNAL_SLOTS, err, KILN_EDAMAGED,
                 "state %s: journal slot %zu points outside the parameters", s->path, bad);
    return KILN_OK;
}

static void add_arrays(struct state_view *s) {
    for (size_t i = KILN_WEIGHTS; i <= KILN_MOMENT2; i++) {
        const unsigned char *at = s->map->data + s->header.region_offset[i];
        const uint64_t bytes = s->header.region_bytes[i];
        begin_item(&s->list, "arrays", i);
        add_text(&s->list, "name", region_names[i]);
        add_number(&s->list, "crc", KILN_FACT_HEX, kiln_crc32c(0, at, bytes));
        add_number(&s->list, "not_finite", KILN_FACT_COUNT,
                   count_not_finite(at, bytes / sizeof(float)));
    }
    static const enum kiln_region others[] = {KILN_SNAPSHOT0, KILN_SNAPSHOT1, KILN_OUTER_MOMENTUM};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        const uint64_t bytes = s->header.region_bytes[others[i]];
        if (bytes > 0) {
            const unsigned char *at = s->map->data + s->header.region_offset[others[i]];
            begin_item(&s->list, "arrays", KILN_MOMENT2 + 1 + i);
            add_text(&s->list, "name", region_names[others[i]]);
            add_number(&s->list, "crc", KILN_FACT_HEX, kiln_crc32c(0, at, bytes));
        }
    }
}

/* Did another process train the run while we looked? Then nothing is damaged that seems so. */
static bool moved(const struct state_view *s) {
    struct kiln_state_slots now;
    kiln_state_slots_read(s->map->data + KILN_STATE_PAGE, &now);
    const int newest = kiln_state_slots_newest(&now);
    return newest >= 0 && s->newest >= 0 &&
           now.cursor[newest].generation != s->slots.cursor[s->newest].generation;
}

static enum kiln_status first_failure(enum kiln_status first, struct kiln_err *first_err,
                                      enum kiln_status then, const struct kiln_err *then_err) {
    if (first == KILN_OK && then != KILN_OK) {
        *first_err = *then_err;
    }
    return first == KILN_OK ? then : first;
}

/* All of it, whatever is damaged; the first damage is the result. */
static enum kiln_status view_body(struct state_view *s, struct kiln_err *err) {
    struct kiln_err why;
    read_slots(s);
    enum kiln_status status = add_slots(s, err);
    if (s->newest >= 0) {
        enum kiln_status stamps = add_stamps(s, &why);
        stamps = stamps != KILN_OK && moved(s) ? KILN_OK : stamps;
        status = first_failure(status, err, stamps, &why);
    }
    const enum kiln_status journal = add_journal(s, &why);
    status = first_failure(status, err, journal, &why);
    add_arrays(s);
    begin(&s->list, "reading");
    add_number(&s->list, "changed_meanwhile", KILN_FACT_FLAG, moved(s));
    return status;
}

static enum kiln_status view_state(struct state_view *s, int fd, struct kiln_err *err) {
    struct kiln_table *table;
    KILN_REQUIRE(s->map->size >= KILN_STATE_HEAD, err, KILN_EDAMAGED,
                 "state %s: %zu bytes, its header and cursors need %d: the file is truncated",
                 s->path, s->map->size, KILN_STATE_HEAD);
    memcpy(&s->header, s->map->data, sizeof s->header);
    add_file(s);
    KILN_TRY(kiln_state_header_read(fd, s->path, &s->header, err));
    const struct kiln_dims dims = kiln_dims_restore(&s->header.dims);
    const struct kiln_lora lora = kiln_lora_restore(&s->header.lora);
    KILN_TRY(kiln_table_create_lora(&dims, &lora, &table, err));
    s->table = table;
    begin(&s->list, "table");
    add_number(&s->list, "parameters", KILN_FACT_COUNT, table->parameters);
    add_number(&s->list, "adapters", KILN_FACT_COUNT, table->adapters);
    s->chunks =
        kiln_state_region_bytes(table, KILN_PRECISION_AUTO, false, KILN_STAMPS) / sizeof(uint64_t);
    add_number(&s->list, "chunks", KILN_FACT_COUNT, s->chunks);
    struct kiln_err why;
    enum kiln_precision snapshots;
    bool local;
    enum kiln_status status = kiln_state_header_check(fd, s->path, table, &snapshots, &local, err);
    /* From here on regions are where the model needs them, whatever the header says. */
    kiln_state_header_make(table, snapshots, local, &s->header);
    const bool room = s->map->size >= s->header.file_bytes;
    if (room) {
        const enum kiln_status body = view_body(s, &why);
        status = first_failure(status, err, body, &why);
    }
    s->table = NULL;
    kiln_table_destroy(table);
    return status;
}

enum kiln_status kiln_inspect_state(const char *path, struct kiln_facts *out,
                                    struct kiln_err *err) {
    struct kiln_map map;
    struct kiln_err why;
    *out = (struct kiln_facts){0};
    KILN_TRY(kiln_map_open(&map, path, err));
    struct state_view s = {.path = path, .map = &map, .list.out = out, .newest = -1};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum kiln_status status = fd >= 0 ? view_state(&s, fd, &why)
                                      : KILN_FAIL(&why, KILN_EIO, "state %s: cannot open it", path);
    if (fd >= 0) {
        close(fd);
    }
    kiln_map_close(&map);
    if (status != KILN_OK && err) {
        *err = why;
    }
    return end(&s.list, status, err);
}

/* ---- a checkpoint --------------------------------------------------------------------------- */

static size_t part_not_finite(const char *path, const struct kiln_checkpoint_info *info,
                              enum kiln_checkpoint_part part) {
    char file[4400];
    struct kiln_map map;
    struct kiln_err ignored;
    size_t count = 0;
    const size_t skip = part == KILN_CHECKPOINT_MODEL ? 28 : info->offset[part]; /* its header */
    snprintf(file, sizeof file, "%s/%s", path,
             part == KILN_CHECKPOINT_MODEL ? "model.bin" : "resume.kiln");
    if (kiln_map_open(&map, file, &ignored) == KILN_OK) {
        const size_t bytes =
            part == KILN_CHECKPOINT_MODEL ? info->bytes[part] - skip : info->bytes[part];
        if (skip <= map.size && bytes <= map.size - skip) {
            count = count_not_finite(map.data + skip, bytes / sizeof(float));
        }
        kiln_map_close(&map);
    }
    return count;
}

/* Every part is checked, whatever the one before was like. */
static enum kiln_status add_parts(struct list *list, const char *path,
                                  const struct kiln_checkpoint_info *info, struct kiln_err *err) {
    enum kiln_status status = KILN_OK;
    for (int part = 0; part < KILN_CHECKPOINT_PARTS; part++) {
        struct kiln_err why;
        if (info->bytes[part] == 0) { /* there is none */
            continue;
        }
        const enum kiln_status one = kiln_checkpoint_check(path, info, part, &why);
        begin_item(list, "parts", (size_t)part);
        add_text(list, "name", kiln_checkpoint_part_name(part));
        add_number(list, "offset", KILN_FACT_COUNT, info->offset[part]);
        add_number(list, "bytes", KILN_FACT_COUNT, info->bytes[part]);
        add_number(list, "crc", KILN_FACT_HEX, info->crc[part]);
        add_number(list, "whole", KILN_FACT_FLAG, one == KILN_OK);
        if (part != KILN_CHECKPOINT_SETTINGS && part != KILN_CHECKPOINT_SNAPSHOT0 &&
            part != KILN_CHECKPOINT_SNAPSHOT1) {
            add_number(list, "not_finite", KILN_FACT_COUNT, part_not_finite(path, info, part));
        }
        status = first_failure(status, err, one, &why);
    }
    return status;
}

static void add_checkpoint(struct list *list, const struct kiln_checkpoint_info *info) {
    const struct kiln_stored_dims model = kiln_dims_store(&info->dims);
    begin(list, "file");
    add_number(list, "version", KILN_FACT_COUNT, info->version);
    add_text(list, "byte_order", "little-endian");
    add_number(list, "numbers", KILN_FACT_COUNT, info->size);
    add_number(list, "weights_hash", KILN_FACT_HEX, info->weights_crc);
    add_snapshots(list, info->snapshots);
    add_model(list, &model);
    add_lora(list, &info->lora);
    add_cursor(list, &info->cursor);
}

enum kiln_status kiln_inspect_checkpoint(const char *path, struct kiln_facts *out,
                                         struct kiln_err *err) {
    struct kiln_checkpoint_info info;
    struct kiln_err why;
    *out = (struct kiln_facts){0};
    KILN_TRY(kiln_checkpoint_peek(path, &info, err));
    struct list list = {.out = out};
    add_checkpoint(&list, &info);
    const enum kiln_status status = add_parts(&list, path, &info, &why);
    if (status != KILN_OK && err) {
        *err = why;
    }
    return end(&list, status, err);
}

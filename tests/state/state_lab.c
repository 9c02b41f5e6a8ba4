/* SPDX-License-Identifier: MIT */
#include "state/state_lab.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "kernel/weights.h"
#include "kiln_test.h"

struct kiln_table *lab_table(size_t dim, bool tied) {
    struct kiln_dims dims = {.dim = dim,
                             .hidden = 24,
                             .layers = 2,
                             .heads = 2,
                             .kv_heads = 1,
                             .vocab = 20,
                             .seq = 16,
                             .tied = tied,
                             .rms_eps = 1e-5f,
                             .rope_theta = 10000.0f};
    struct kiln_table *table;
    struct kiln_err err;
    CHECK_OK(kiln_dims_check(&dims, &err), &err);
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    return table;
}

unsigned char lab_snapshot_byte(size_t slot, size_t i) {
    return (unsigned char)(1 + 101 * slot + i % 251);
}

static void fill_snapshots(struct kiln_state *state, const struct kiln_table *table) {
    const enum kiln_precision precision = kiln_state_snapshots(state);
    for (size_t slot = 0; precision != KILN_PRECISION_AUTO && slot < KILN_SNAPSHOTS; slot++) {
        unsigned char *at = kiln_state_snapshot(state, slot);
        for (size_t i = 0; i < kiln_snapshot_bytes(table, precision); i++) {
            at[i] = lab_snapshot_byte(slot, i);
        }
    }
}

const char *lab_state(const char *name, const struct kiln_table *table, bool clean) {
    return lab_snapshots(name, table, KILN_PRECISION_AUTO, clean);
}

const char *lab_snapshots(const char *name, const struct kiln_table *table,
                          enum kiln_precision snapshots, bool clean) {
    const char *path = test_path(name);
    struct kiln_state *state;
    struct kiln_err err;
    CHECK_OK(kiln_state_create(path, table, snapshots, false, &state, &err), &err);
    for (size_t i = 0; i < table->size; i++) {
        kiln_state_region(state, KILN_WEIGHTS)[i] = (float)i;
    }
    fill_snapshots(state, table);
    struct kiln_cursor cursor = *kiln_state_cursor(state);
    cursor.step = 3;
    cursor.phase = KILN_PHASE_UPDATE;
    kiln_state_commit(state, &cursor);
    if (clean) {
        CHECK_OK(kiln_state_finish(state, &err), &err);
    }
    kiln_state_close(state);
    return path;
}

uint32_t lab_hash(const char *path) {
    struct kiln_map map;
    struct kiln_err err;
    CHECK_OK(kiln_map_open(&map, path, &err), &err);
    uint32_t hash = kiln_crc32c((uint32_t)map.size, map.data, map.size);
    kiln_map_close(&map);
    return hash;
}

/* Of header and slots, and the length: quick enough for every bit. */
static uint32_t head_hash(const char *path) {
    unsigned char head[KILN_STATE_WEIGHTS_AT] = {0};
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && pread(fd, head, sizeof head, 0) >= 0);
    const off_t size = lseek(fd, 0, SEEK_END);
    close(fd);
    return kiln_crc32c((uint32_t)size, head, sizeof head);
}

enum kiln_status lab_open(const char *path, const struct kiln_table *table, char notice[160],
                          struct kiln_err *err) {
    struct kiln_state *state;
    const uint32_t before = head_hash(path);
    enum kiln_status status = kiln_state_open(path, table, &state, notice, err);
    if (status == KILN_OK) {
        CHECK_EQ(kiln_state_cursor(state)->step, 3);
        CHECK_EQ(kiln_state_cursor(state)->phase, KILN_PHASE_UPDATE);
        CHECK(kiln_state_region(state, KILN_WEIGHTS)[7] == 7.0f);
        kiln_state_close(state);
    } else {
        CHECK(state == NULL);
        CHECK_EQ(status, err->code);
        CHECK_CONTAINS(err->message, path);
    }
    CHECK_EQ(head_hash(path), before);
    return status;
}

void lab_flip(const char *path, long at, int bits) {
    unsigned char byte;
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= (unsigned char)bits;
    CHECK(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
}

/* SPDX-License-Identifier: MIT */
#include "state/inspect.h"

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"
#include "state/state.h"

enum { PAGE = 4096 };

/* The three regions from the weights on, each on a page of its own. */
static enum kiln_status sums(const struct kiln_map *map, const char *path,
                             const struct kiln_table *table, uint32_t crc[3],
                             struct kiln_err *err) {
    const size_t bytes = table->size * sizeof(float), stride = kiln_round_up(bytes, PAGE);
    KILN_REQUIRE(map->size >= kiln_state_bytes(table), err, KILN_EDAMAGED,
                 "state %s: %zu bytes, its model needs %zu", path, map->size,
                 kiln_state_bytes(table));
    for (size_t i = 0; i < 3; i++) {
        crc[i] = kiln_crc32c(0, map->data + KILN_STATE_WEIGHTS_AT + i * stride, bytes);
    }
    return KILN_OK;
}

enum kiln_status kiln_state_sums(const char *path, struct kiln_cursor *cursor, uint32_t crc[3],
                                 struct kiln_err *err) {
    struct kiln_dims dims;
    struct kiln_table *table;
    struct kiln_map map;
    KILN_TRY(kiln_state_peek(path, &dims, cursor, err));
    KILN_TRY(kiln_table_create(&dims, &table, err));
    enum kiln_status status = kiln_map_open(&map, path, err);
    if (status == KILN_OK) {
        status = sums(&map, path, table, crc, err);
        kiln_map_close(&map);
    }
    kiln_table_destroy(table);
    return status;
}

/* SPDX-License-Identifier: MIT
 *
 * What a state file says of itself (kiln/inspect.h): inside an update, with damage, while it is
 * locked.
 */
#include "kiln/inspect.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"
#include "kernel/weights.h"
#include "kiln_test.h"
#include "model/pieces.h"
#include "state/state.h"

static struct kiln_table *table;
static enum kiln_precision snapshots;

/* A new state of a model with several chunks, open and locked. */
static struct kiln_state *make_state(void) {
    struct kiln_dims dims = {.dim = 64,
                             .hidden = 96,
                             .layers = 1,
                             .heads = 2,
                             .kv_heads = 1,
                             .head_size = 32,
                             .vocab = 70,
                             .seq = 8,
                             .rms_eps = 1e-5f,
                             .rope_theta = 10000.0f};
    struct kiln_state *state;
    struct kiln_err err;
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    CHECK_OK(kiln_state_create(test_path("state.kiln"), table, snapshots, false, &state, &err),
             &err);
    return state;
}

static void close_state(struct kiln_state *state) {
    kiln_state_close(state);
    kiln_table_destroy(table);
}

static struct kiln_facts inspect(void) {
    struct kiln_facts facts;
    struct kiln_err err;
    CHECK_OK(kiln_inspect_state(test_path("state.kiln"), &facts, &err), &err);
    return facts;
}

static const struct kiln_fact *find(const struct kiln_facts *facts, const char *section,
                                    size_t item, const char *name) {
    for (size_t i = 0; i < facts->n; i++) {
        const struct kiln_fact *f = &facts->fact[i];
        if (strcmp(f->section, section) == 0 && f->item == item && strcmp(f->name, name) == 0) {
            return f;
        }
    }
    FAIL("no fact %s %s", section, name);
}

static uint64_t count_of(const struct kiln_facts *facts, const char *section, size_t item,
                         const char *name) {
    return find(facts, section, item, name)->count;
}

TEST(a_locked_state_is_read_without_a_change) {
    struct kiln_state *state = make_state();
    struct kiln_err err;
    char *before, *after;
    size_t size, size_after;
    CHECK_OK(kiln_read_file(test_path("state.kiln"), &before, &size, &err), &err);
    struct kiln_facts facts = inspect();
    CHECK_STRING(find(&facts, "cursor", KILN_NO_ITEM, "phase")->text, "start");
    CHECK_EQ(count_of(&facts, "table", KILN_NO_ITEM, "parameters"), table->parameters);
    CHECK_EQ(count_of(&facts, "model", KILN_NO_ITEM, "vocab"), 70);
    CHECK_EQ(count_of(&facts, "regions", 0, "offset"), KILN_STATE_WEIGHTS_AT);
    CHECK_EQ(count_of(&facts, "trust", KILN_NO_ITEM, "this_boot"), 1);
    CHECK_EQ(count_of(&facts, "file", KILN_NO_ITEM, "bytes"), size);
    kiln_facts_free(&facts);
    CHECK_OK(kiln_read_file(test_path("state.kiln"), &after, &size_after, &err), &err);
    CHECK_EQ(size_after, size);
    CHECK_BYTES(after, before, size);
    kiln_free(before);
    kiln_free(after);
    close_state(state);
}

TEST(a_death_inside_an_update_shows_in_stamps_and_journal) {
    struct kiln_state *state = make_state();
    struct kiln_cursor cursor = *kiln_state_cursor(state);
    size_t chunks;
    kiln_pieces(table, NULL, &chunks);
    cursor.phase = KILN_PHASE_UPDATE;
    cursor.updates = 4;
    kiln_state_stamp_all(state, 4);
    kiln_state_commit(state, &cursor);
    kiln_state_chunk_begin(state, 0, 0, 0, 100);
    kiln_state_chunk_end(state, 0, 0, 5);
    kiln_state_chunk_begin(state, 1, 2, 4096, 100);
    kiln_state_region(state, KILN_MOMENT1)[3] = 1e30f * 1e30f;
    struct kiln_facts facts = inspect();
    CHECK_STRING(find(&facts, "cursor", KILN_NO_ITEM, "phase")->text, "update");
    CHECK_EQ(count_of(&facts, "stamps", 0, "update"), 5);
    CHECK_EQ(count_of(&facts, "stamps", 0, "chunks"), 1);
    CHECK_EQ(count_of(&facts, "stamps", 1, "update"), 4);
    CHECK_EQ(count_of(&facts, "stamps", 1, "chunks"), chunks - 1);
    CHECK_EQ(count_of(&facts, "journal", KILN_NO_ITEM, "in_use"), 1);
    CHECK_EQ(count_of(&facts, "arrays", 0, "not_finite"), 0);
    CHECK_EQ(count_of(&facts, "arrays", 1, "not_finite"), 1);
    kiln_facts_free(&facts);
    close_state(state);
}

TEST(snapshots_are_told_with_their_checksums) {
    snapshots = KILN_PRECISION_BF16;
    struct kiln_state *state = make_state();
    const size_t bytes = kiln_snapshot_bytes(table, snapshots);
    memset(kiln_state_snapshot(state, 1), 7, bytes);
    struct kiln_facts facts = inspect();
    CHECK_STRING(find(&facts, "file", KILN_NO_ITEM, "snapshots")->text, "bf16");
    CHECK_STRING(find(&facts, "regions", KILN_SNAPSHOT1, "name")->text, "snapshot 1");
    CHECK_EQ(count_of(&facts, "regions", KILN_SNAPSHOT1, "bytes"), bytes);
    CHECK_STRING(find(&facts, "arrays", 4, "name")->text, "snapshot 1");
    CHECK_EQ(count_of(&facts, "arrays", 4, "crc"),
             kiln_crc32c(0, kiln_state_snapshot(state, 1), bytes));
    kiln_facts_free(&facts);
    close_state(state);
    CHECK(unlink(test_path("state.kiln")) == 0);
    snapshots = KILN_PRECISION_AUTO;
    state = make_state();
    facts = inspect();
    CHECK_STRING(find(&facts, "file", KILN_NO_ITEM, "snapshots")->text, "none");
    CHECK_EQ(count_of(&facts, "regions", KILN_SNAPSHOT1, "bytes"), 0);
    kiln_facts_free(&facts);
    close_state(state);
}

TEST(damage_is_named_and_the_rest_is_shown) {
    struct kiln_state *state = make_state();
    struct kiln_facts facts;
    struct kiln_err err;
    kiln_state_stamp_all(state, 9);
    CHECK_FAILS(kiln_inspect_state(test_path("state.kiln"), &facts, &err), KILN_EDAMAGED, &err);
    CHECK_CONTAINS(err.message, "stamp of chunk 0 says update 9, the cursor 0");
    CHECK_EQ(count_of(&facts, "stamps", 0, "update"), 9);
    CHECK(count_of(&facts, "arrays", 2, "crc") != 0);
    kiln_facts_free(&facts);
    close_state(state);
    CHECK_FAILS(kiln_inspect_state(test_path("absent"), &facts, &err), KILN_EINPUT, &err);
    CHECK_EQ(facts.n, 0);
    CHECK_FAILS(kiln_inspect_state(test_file("short", "KILNST01", 8), &facts, &err), KILN_EDAMAGED,
                &err);
    kiln_facts_free(&facts);
}

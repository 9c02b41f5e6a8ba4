/* SPDX-License-Identifier: MIT
 *
 * Heap blocks and arenas (src/base/mem.h).
 */
#include <stdint.h>
#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "kiln_test.h"
#include "malloc_count.h"

static bool is_zero(const unsigned char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

TEST(a_block_is_zeroed_and_aligned_to_a_cache_line) {
    for (size_t n = 0; n < 200; n += 7) {
        unsigned char *block = kiln_alloc(n, 3);
        CHECK(block != NULL);
        CHECK_EQ((uintptr_t)block % 64, 0);
        CHECK(is_zero(block, 3 * n));
        kiln_free(block);
    }
}

TEST(a_block_too_large_for_size_t_is_refused) {
    CHECK(kiln_alloc(SIZE_MAX / 2, 3) == NULL);
    CHECK(kiln_alloc(SIZE_MAX, SIZE_MAX) == NULL);
    char *block = kiln_alloc(4, 1);
    block[3] = 'x';
    CHECK(kiln_realloc(block, 4, SIZE_MAX, 2) == NULL);
    CHECK_EQ(block[3], 'x');
    kiln_free(block);
    kiln_free(NULL);
}

TEST(a_grown_block_keeps_its_elements_and_zeroes_the_new) {
    uint32_t *block = kiln_realloc(NULL, 0, 3, sizeof *block);
    CHECK(block != NULL && is_zero((unsigned char *)block, 12));
    block[0] = 1;
    block[2] = 3;
    block = kiln_realloc(block, 3, 100, sizeof *block);
    CHECK_EQ(block[0], 1);
    CHECK_EQ(block[2], 3);
    CHECK(is_zero((unsigned char *)(block + 3), 97 * sizeof *block));
    block = kiln_realloc(block, 100, 1, sizeof *block);
    CHECK_EQ(block[0], 1);
    kiln_free(block);
}

TEST(a_joined_path_has_one_slash_between) {
    const char *const cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}};
    for (size_t i = 0; i < 4; i++) {
        char *path = kiln_path_join(cases[i][0], cases[i][1]);
        CHECK_STRING(path, cases[i][2]);
        kiln_free(path);
    }
    char *copy = kiln_strndup("weights", 2);
    CHECK_STRING(copy, "we");
    kiln_free(copy);
}

TEST(every_planned_block_fits_its_arena) {
    const size_t sizes[] = {1, 64, 0, 63, 65, 5000000, 7};
    size_t planned = 0;
    for (size_t i = 0; i < 7; i++) {
        planned = kiln_arena_reserve(planned, sizes[i]);
    }
    struct kiln_arena arena;
    CHECK_OK(kiln_arena_open(&arena, planned, NULL), NULL);
    for (size_t i = 0; i < 7; i++) {
        unsigned char *block = kiln_arena_take(&arena, sizes[i]);
        CHECK(block != NULL);
        CHECK_EQ((uintptr_t)block % 64, 0);
        CHECK(is_zero(block, sizes[i]));
        memset(block, 0xFF, sizes[i]); /* a block that overlapped a later one would show there */
    }
    CHECK_EQ(arena.used, planned);
    CHECK(kiln_arena_take(&arena, 1) == NULL);
    kiln_arena_close(&arena);
    CHECK(kiln_arena_take(&arena, 0) == NULL);
}

TEST(an_empty_arena_is_no_error) {
    struct kiln_arena arena;
    CHECK_OK(kiln_arena_open(&arena, 0, NULL), NULL);
    CHECK(kiln_arena_take(&arena, 0) != NULL);
    CHECK(kiln_arena_take(&arena, 1) == NULL);
    kiln_arena_close(&arena);
    kiln_arena_close(&arena);
}

TEST(an_arena_beyond_memory_names_its_size) {
    struct kiln_arena arena;
    struct kiln_err err;
    CHECK_FAILS(kiln_arena_open(&arena, (size_t)1 << 60, &err), KILN_ENOMEM, &err);
    CHECK_CONTAINS(err.message, "1152921504606846976 bytes");
}

/* ---- scratch of threads --------------------------------------------------------------------- */

/* Opened, it takes no memory; a thread's room takes as much as is written. */
TEST(scratch_is_touched_by_whoever_works_in_it) {
    const size_t bytes = (64 << 20) + 10;
    struct kiln_scratch scratch;
    struct kiln_err err;
    if (!malloc_counted()) {
        SKIP("a sanitizer takes memory of its own");
    }
    const size_t before = kiln_memory_resident();
    CHECK_OK(kiln_scratch_open(&scratch, 4, bytes, &err), &err);
    CHECK(kiln_memory_resident() < before + (8 << 20));
    for (size_t i = 0; i < 4; i++) {
        unsigned char *room = scratch.of[i];
        CHECK_EQ((uintptr_t)room % 4096, 0);
        CHECK(room[0] == 0 && room[bytes - 1] == 0);
        room[0] = room[bytes - 1] = (unsigned char)(i + 1);
    }
    for (size_t i = 0; i < 4; i++) {
        const unsigned char *room = scratch.of[i];
        CHECK(room[0] == i + 1 && room[bytes - 1] == i + 1);
    }
    memset(scratch.of[1], 1, bytes);
    CHECK(kiln_memory_resident() > before + bytes);
    CHECK(kiln_memory_resident() < before + bytes + (32 << 20));
    kiln_scratch_close(&scratch);
    CHECK(kiln_memory_resident() < before + (8 << 20));
    kiln_scratch_close(&scratch);
}

TEST(scratch_that_cannot_be_had_is_refused) {
    struct kiln_scratch scratch;
    struct kiln_err err;
    CHECK_FAILS(kiln_scratch_open(&scratch, 3, SIZE_MAX / 4, &err), KILN_ENOMEM, &err);
    CHECK(scratch.of == NULL);
}

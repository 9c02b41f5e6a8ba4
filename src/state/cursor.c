/* SPDX-License-Identifier: MIT
 *
 * cursor.c: the two slots that hold the cursor.
 *
 * A commit writes the new cursor into one slot and then into the other. A death on the way leaves
 * one whole slot, with the cursor before or after; once it is over, either slot will do.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/kill_point.h"
#include "state/state_int.h"

static bool slot_whole(const unsigned char *page, struct kiln_cursor *out) {
    struct kiln_state_slot slot;
    memcpy(&slot, page, sizeof slot);
    *out = slot.cursor;
    return slot.crc == kiln_crc32c(0, &slot, offsetof(struct kiln_state_slot, crc));
}

void kiln_state_slots_read(const unsigned char *pages, struct kiln_state_slots *slots) {
    for (size_t i = 0; i < 2; i++) {
        slots->whole[i] = slot_whole(pages + i * KILN_STATE_PAGE, &slots->cursor[i]);
    }
}

int kiln_state_slots_newest(const struct kiln_state_slots *slots) {
    if (slots->whole[0] && slots->whole[1]) {
        return slots->cursor[1].generation > slots->cursor[0].generation;
    }
    return slots->whole[0] ? 0 : slots->whole[1] ? 1 : -1;
}

/* A commit is in one slot at a time, but may reach the second one while we do. */
enum kiln_status kiln_state_slots_pread(int fd, const char *path, struct kiln_state_slots *slots,
                                        struct kiln_err *err) {
    enum { TRIES = 200 };
    unsigned char pages[2 * KILN_STATE_PAGE];
    for (int i = 0; i < TRIES; i++) {
        const ssize_t got = pread(fd, pages, sizeof pages, KILN_STATE_PAGE);
        KILN_REQUIRE(got == (ssize_t)sizeof pages, err, KILN_EIO,
                     "state %s: cannot read its cursors: %s", path,
                     got < 0 ? strerror(errno) : "the file is too short");
        kiln_state_slots_read(pages, slots);
        if (kiln_state_slots_newest(slots) >= 0) {
            return KILN_OK;
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    return KILN_FAIL(err, KILN_EDAMAGED, "state %s: both cursors are damaged", path);
}

void kiln_state_slot_write(struct kiln_state *state, int index, const struct kiln_cursor *cursor) {
    struct kiln_state_slot slot;
    memset(&slot, 0, sizeof slot);
    slot.cursor = *cursor;
    slot.crc = kiln_crc32c(0, &slot, offsetof(struct kiln_state_slot, crc));
    unsigned char *to = state->base + (size_t)(1 + index) * KILN_STATE_PAGE;
    const size_t half = sizeof slot.cursor / 2; /* in the middle of what changes */
    kiln_kill_point("commit: before");
    atomic_thread_fence(memory_order_release);
    memcpy(to, &slot, half);
    kiln_kill_point("commit: half written");
    memcpy(to + half, (const unsigned char *)&slot + half, sizeof slot - half);
    atomic_thread_fence(memory_order_release);
    kiln_kill_point("commit: written");
}

void kiln_state_commit(struct kiln_state *state, const struct kiln_cursor *cursor) {
    assert(state->begun);
    struct kiln_cursor next = *cursor;
    next.generation = state->cursor.generation + 1;
    next.window_bytes = state->cursor.window_bytes;
    next.clean = 0;
    memcpy(next.boot_id, state->boot_id, sizeof next.boot_id);
    if (state->holds) {
        state->cursor = next;
        return;
    }
    kiln_state_slot_write(state, state->first_slot, &next);
    kiln_state_slot_write(state, !state->first_slot, &next);
    state->first_slot = 0;
    state->cursor = next;
}

void kiln_state_hold(struct kiln_state *state) {
    state->held = state->holds ? state->held : state->cursor;
    state->holds = true;
}

void kiln_state_let_go(struct kiln_state *state) {
    state->cursor = *kiln_state_held(state);
    state->holds = false;
}

const struct kiln_cursor *kiln_state_held(const struct kiln_state *state) {
    return state->holds ? &state->held : &state->cursor;
}

const struct kiln_cursor *kiln_state_cursor(const struct kiln_state *state) {
    return &state->cursor;
}

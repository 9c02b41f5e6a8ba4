/* SPDX-License-Identifier: MIT
 *
 * cursor.c: the two slots that hold the cursor.
 *
 * A commit writes the new cursor into one slot and then into the other. A death on the way leaves
 * one whole slot, with the cursor before or after; once it is over, either slot will do.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

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
    kiln_state_slot_write(state, state->first_slot, &next);
    kiln_state_slot_write(state, !state->first_slot, &next);
    state->first_slot = 0;
    state->cursor = next;
}

const struct kiln_cursor *kiln_state_cursor(const struct kiln_state *state) {
    return &state->cursor;
}

/* SPDX-License-Identifier: MIT
 *
 * Two processes at one state file (src/state/state.h): a relay's successor reads it while its owner
 * trains, and owns it when it is told so. Snapshots, which it compiles from.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "kernel/weights.h"
#include "kiln_test.h"
#include "state/state_int.h"
#include "state/state_lab.h"

static struct kiln_err err;
static char notice[160];

static const enum kiln_precision precisions[] = {KILN_PRECISION_AUTO, KILN_PRECISION_FP32,
                                                 KILN_PRECISION_BF16, KILN_PRECISION_FP16};

/* ---- snapshots ----------------------------------------------------------------------------- */

TEST(a_state_has_the_snapshots_that_it_was_made_with) {
    struct kiln_table *table = lab_table(16, true);
    for (size_t p = 0; p < 4; p++) {
        char name[16];
        struct kiln_state *state;
        struct stat st;
        snprintf(name, sizeof name, "state%zu", p);
        const char *path = lab_snapshots(name, table, precisions[p], true);
        CHECK(stat(path, &st) == 0);
        CHECK_EQ(st.st_size, kiln_state_bytes(table, precisions[p], false));
        CHECK_OK(kiln_state_open(path, table, &state, notice, &err), &err);
        CHECK_EQ(kiln_state_snapshots(state), precisions[p]);
        CHECK(kiln_state_region(state, KILN_WEIGHTS)[7] == 7.0f);
        CHECK(kiln_state_region(state, KILN_SNAPSHOT0) == NULL); /* they are no floats */
        CHECK(kiln_state_snapshot(state, 2) == NULL);
        for (size_t slot = 0; slot < KILN_SNAPSHOTS; slot++) {
            const unsigned char *at = kiln_state_snapshot(state, slot);
            CHECK_EQ(at != NULL, p > 0);
            CHECK_EQ((uintptr_t)at % 64, 0);
            for (size_t i = 0; at && i < kiln_snapshot_bytes(table, precisions[p]); i++) {
                CHECK_EQ(at[i], lab_snapshot_byte(slot, i));
            }
        }
        kiln_state_close(state);
    }
    kiln_table_destroy(table);
}

TEST(the_file_is_as_much_longer_as_two_snapshots) {
    struct kiln_table *table = lab_table(32, false);
    const size_t none = kiln_state_bytes(table, KILN_PRECISION_AUTO, false);
    for (size_t p = 1; p < 4; p++) {
        const size_t with = kiln_state_bytes(table, precisions[p], false);
        const size_t two = 2 * kiln_snapshot_bytes(table, precisions[p]);
        CHECK(with + 65536 >= none + two && with <= none + two + 65536 + 2 * KILN_STATE_PAGE);
        CHECK_EQ(kiln_state_file_bytes(table, precisions[p], false, 5000),
                 with + 2 * KILN_STATE_PAGE);
    }
    CHECK_EQ(kiln_state_bytes(table, KILN_PRECISION_BF16, false),
             kiln_state_bytes(table, KILN_PRECISION_FP16, false));
    kiln_table_destroy(table);
}

TEST(a_renewed_state_may_have_other_snapshots) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_snapshots("state", table, KILN_PRECISION_FP32, true);
    for (size_t p = 4; p-- > 0;) {
        struct kiln_state *state;
        struct stat st;
        CHECK_OK(kiln_state_renew(path, table, precisions[p], false, &state, &err), &err);
        struct kiln_cursor cursor = *kiln_state_cursor(state);
        cursor.step = p;
        kiln_state_commit(state, &cursor);
        kiln_state_close(state);
        CHECK(stat(path, &st) == 0);
        CHECK_EQ(st.st_size, kiln_state_bytes(table, precisions[p], false));
        CHECK_OK(kiln_state_open(path, table, &state, notice, &err), &err);
        CHECK_EQ(kiln_state_snapshots(state), precisions[p]);
        CHECK_EQ(kiln_state_cursor(state)->step, p);
        kiln_state_close(state);
    }
    kiln_table_destroy(table);
}

/* ---- reading beside the owner -------------------------------------------------------------- */

/* A state with snapshots, open and begun; its successor, on a descriptor as an exec leaves it. */
static struct lab {
    struct kiln_table *table;
    const char *path;
    struct kiln_state *owner, *reader;
} lab;

static void open_lab(void) {
    lab.table = lab_table(16, true);
    lab.path = lab_snapshots("state", lab.table, KILN_PRECISION_BF16, false);
    CHECK_OK(kiln_state_open(lab.path, lab.table, &lab.owner, notice, &err), &err);
    CHECK_OK(kiln_state_begin(lab.owner, &err), &err);
    CHECK_OK(kiln_state_open_reader(dup(lab.owner->fd), lab.path, lab.table, &lab.reader, &err),
             &err);
}

static void close_lab(void) {
    kiln_state_close(lab.owner);
    kiln_state_close(lab.reader);
    kiln_table_destroy(lab.table);
}

/* What the owner does last: the new epoch, and its mapping is gone. */
static void hand_over(uint64_t epoch) {
    struct kiln_cursor cursor = *kiln_state_cursor(lab.owner);
    cursor.owner_epoch = epoch;
    kiln_state_commit(lab.owner, &cursor);
    kiln_state_close(lab.owner);
    lab.owner = NULL;
}

TEST(a_reader_sees_what_the_owner_writes) {
    open_lab();
    uint64_t epoch;
    CHECK_EQ(kiln_state_snapshots(lab.reader), KILN_PRECISION_BF16);
    CHECK_EQ(kiln_state_cursor(lab.reader)->step, 3);
    CHECK_EQ(fcntl(lab.reader->fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    const float *weights = kiln_state_region(lab.reader, KILN_WEIGHTS);
    const unsigned char *snapshot = kiln_state_snapshot(lab.reader, 1);
    CHECK(weights[7] == 7.0f);
    CHECK_EQ(snapshot[5], lab_snapshot_byte(1, 5));
    kiln_state_region(lab.owner, KILN_WEIGHTS)[7] = 70.0f;
    memset(kiln_state_snapshot(lab.owner, 1), 9, 64);
    CHECK(weights[7] == 70.0f);
    CHECK_EQ(snapshot[5], 9);
    struct kiln_cursor cursor = *kiln_state_cursor(lab.owner);
    cursor.owner_epoch = 12;
    kiln_state_commit(lab.owner, &cursor);
    CHECK_OK(kiln_state_epoch(lab.reader->fd, &epoch, &err), &err);
    CHECK_EQ(epoch, 12);
    close_lab();
}

TEST(a_reader_takes_no_lock_and_the_lock_is_theirs_together) {
    open_lab();
    struct kiln_state *other;
    CHECK_FAILS(lab_open(lab.path, lab.table, notice, &err), KILN_EBUSY, &err);
    hand_over(1); /* the owner is gone, the descriptor that it shared is not */
    CHECK_FAILS(lab_open(lab.path, lab.table, notice, &err), KILN_EBUSY, &err);
    CHECK_OK(kiln_state_own(lab.reader, 1, notice, &err), &err);
    CHECK_FAILS(lab_open(lab.path, lab.table, notice, &err), KILN_EBUSY, &err);
    /* One on a descriptor of its own reads, too, but cannot own while the lock is another's. */
    CHECK_OK(kiln_state_open_reader(open(lab.path, O_RDWR | O_CLOEXEC), lab.path, lab.table, &other,
                                    &err),
             &err);
    CHECK_FAILS(kiln_state_own(other, 1, notice, &err), KILN_EBUSY, &err);
    CHECK_CONTAINS(err.message, "another process is training this run");
    kiln_state_close(other);
    CHECK_FAILS(lab_open(lab.path, lab.table, notice, &err), KILN_EBUSY, &err);
    kiln_state_close(lab.reader);
    lab.reader = NULL;
    CHECK_OK(lab_open(lab.path, lab.table, notice, &err), &err);
    close_lab();
}

/* The status of a child that writes one byte at `at`. */
static int write_in_child(volatile unsigned char *at) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        const struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL); /* not a sanitizer's */
        signal(SIGBUS, SIG_DFL);
        *at ^= 1;
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

TEST(a_write_through_a_reader_is_a_crash_and_no_damage) {
    open_lab();
    const uint32_t before = lab_hash(lab.path);
    for (size_t region = 0; region < KILN_REGIONS; region++) {
        const int status = write_in_child(lab.reader->region[region]);
        CHECK(WIFSIGNALED(status));
        CHECK(WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
    }
    CHECK(WIFSIGNALED(write_in_child(lab.reader->base)));
    CHECK(WIFSIGNALED(write_in_child(lab.reader->base + lab.reader->bytes - 1)));
    CHECK_EQ(lab_hash(lab.path), before);
    hand_over(1);
    CHECK_OK(kiln_state_own(lab.reader, 1, notice, &err), &err);
    CHECK_EQ(write_in_child(kiln_state_snapshot(lab.reader, 1)), 0); /* the same place, owned */
    CHECK_EQ(*(unsigned char *)kiln_state_snapshot(lab.reader, 1), lab_snapshot_byte(1, 0) ^ 1);
    close_lab();
}

TEST(a_reader_is_refused_what_would_change_the_file) {
    open_lab();
    const uint32_t before = lab_hash(lab.path);
    void *window;
    CHECK_FAILS(kiln_state_begin(lab.reader, &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "another process owns it");
    CHECK_FAILS(kiln_state_finish(lab.reader, &err), KILN_EUSAGE, &err);
    CHECK_FAILS(kiln_state_window(lab.reader, 4096, &window, &err), KILN_EUSAGE, &err);
    CHECK(window == NULL);
    CHECK_FAILS(kiln_state_own(lab.owner, 0, notice, &err), KILN_EUSAGE, &err);
    CHECK_OK(kiln_state_walk(lab.reader, &err), &err);
    kiln_state_ahead(lab.reader, KILN_SNAPSHOT0, 0, 100);
    kiln_state_behind(lab.reader, KILN_SNAPSHOT0, 0, 4096);
    kiln_state_forget(lab.reader, KILN_GRADIENTS);
    kiln_state_forget(lab.reader, KILN_WEIGHTS);
    CHECK_EQ(lab_hash(lab.path), before);
    close_lab();
}

/* Before, while and after: what a reader opens, it opens. At some commits the owner waits for one
 * more reader, so that neither runs ahead of the other on a busy machine. */
TEST(readers_never_fail_while_the_owner_commits) {
    enum { COMMITS = 100000, WAITS = 20 };
    int turn[2];
    open_lab();
    CHECK(pipe(turn) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct kiln_cursor cursor = *kiln_state_cursor(lab.owner);
        char go;
        for (uint64_t i = 1; i <= COMMITS; i++) {
            if (i % (COMMITS / WAITS) == 0 && read(turn[0], &go, 1) != 1) {
                _exit(1);
            }
            cursor.owner_epoch = i;
            kiln_state_commit(lab.owner, &cursor);
        }
        _exit(0);
    }
    uint64_t last = 0, readers = 0, seen = 0;
    int status = 0;
    pid_t ended = 0;
    while (ended == 0) {
        struct kiln_state *state;
        struct kiln_dims dims;
        struct kiln_lora lora;
        struct kiln_cursor cursor;
        uint64_t epoch;
        ended = waitpid(child, &status, WNOHANG);
        CHECK_OK(kiln_state_epoch(lab.reader->fd, &epoch, &err), &err);
        CHECK(epoch >= last && epoch <= COMMITS);
        seen += epoch > last;
        CHECK_OK(kiln_state_open_reader(dup(lab.reader->fd), lab.path, lab.table, &state, &err),
                 &err);
        last = kiln_state_cursor(state)->owner_epoch;
        CHECK(last >= epoch);
        CHECK_EQ(kiln_state_cursor(state)->step, 3);
        CHECK_FAILS(kiln_state_own(state, COMMITS + 1, notice, &err), KILN_EBUSY, &err);
        kiln_state_close(state);
        CHECK_OK(kiln_state_peek(lab.path, &dims, &lora, &cursor, &err), &err);
        CHECK(cursor.owner_epoch >= last);
        last = cursor.owner_epoch;
        readers++;
        if (readers <= WAITS) {
            CHECK(write(turn[1], "", 1) == 1);
        }
    }
    close(turn[0]);
    close(turn[1]);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_EQ(last, COMMITS);
    CHECK(seen > 2); /* it was beside it */
    printf("      %" PRIu64 " readers beside %d commits, %" PRIu64 " epochs seen\n", readers,
           COMMITS, seen);
    close_lab();
}

TEST(a_reader_of_another_file_model_or_damage_is_refused) {
    open_lab();
    struct kiln_table *wider = lab_table(32, true);
    struct kiln_state *state;
    const char *other = lab_state("other", lab.table, true);
    int fd = dup(lab.owner->fd); /* one that is refused is closed */
    CHECK_FAILS(kiln_state_open_reader(fd, other, lab.table, &state, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "is another file");
    CHECK(fcntl(fd, F_GETFD) < 0);
    CHECK(state == NULL);
    CHECK_FAILS(kiln_state_open_reader(dup(lab.owner->fd), lab.path, wider, &state, &err),
                KILN_EINPUT, &err);
    lab_flip(lab.path, 184, 1);
    CHECK_FAILS(kiln_state_open_reader(dup(lab.owner->fd), lab.path, lab.table, &state, &err),
                KILN_EDAMAGED, &err);
    CHECK_CONTAINS(err.message, "header field snapshots is 3, expected 2");
    lab_flip(lab.path, 184, 1);
    uint64_t epoch;
    lab_flip(lab.path, 4096, 1);
    CHECK_OK(kiln_state_epoch(lab.owner->fd, &epoch, &err), &err);
    lab_flip(lab.path, 8192, 1);
    CHECK_FAILS(kiln_state_epoch(lab.owner->fd, &epoch, &err), KILN_EDAMAGED, &err);
    CHECK_FAILS(kiln_state_epoch(-1, &epoch, &err), KILN_EIO, &err);
    kiln_table_destroy(wider);
    close_lab();
}

/* ---- owning -------------------------------------------------------------------------------- */

TEST(a_successor_told_a_wrong_epoch_changes_nothing_and_may_be_told_again) {
    open_lab();
    const float *weights = kiln_state_region(lab.reader, KILN_WEIGHTS);
    const uint64_t generation = kiln_state_cursor(lab.reader)->generation;
    hand_over(5);
    const uint32_t before = lab_hash(lab.path);
    CHECK_FAILS(kiln_state_own(lab.reader, 6, notice, &err), KILN_EBUSY, &err);
    CHECK_CONTAINS(err.message, "for owner epoch 6, its cursor says 5");
    CHECK_FAILS(kiln_state_own(lab.reader, 4, notice, &err), KILN_EBUSY, &err);
    CHECK_EQ(lab_hash(lab.path), before);
    CHECK_EQ(kiln_state_cursor(lab.reader)->generation, generation);
    CHECK(WIFSIGNALED(write_in_child(lab.reader->base)));
    CHECK_OK(kiln_state_own(lab.reader, 5, notice, &err), &err);
    CHECK_STRING(notice, "");
    CHECK_EQ(lab_hash(lab.path), before); /* nor does owning by itself */
    CHECK_EQ(kiln_state_cursor(lab.reader)->owner_epoch, 5);
    CHECK(kiln_state_region(lab.reader, KILN_WEIGHTS) == weights);
    close_lab();
}

TEST(a_successor_goes_on_where_the_owner_stood) {
    open_lab();
    float *weights = kiln_state_region(lab.reader, KILN_WEIGHTS);
    void *window;
    CHECK_OK(kiln_state_window(lab.owner, 100000, &window, &err), &err); /* after we mapped */
    memset(window, 6, 100000);
    struct kiln_cursor cursor = *kiln_state_cursor(lab.owner);
    cursor.step = 8;
    kiln_state_commit(lab.owner, &cursor);
    hand_over(1);
    CHECK_OK(kiln_state_own(lab.reader, 1, notice, &err), &err);
    CHECK_EQ(kiln_state_cursor(lab.reader)->step, 8);
    CHECK_OK(kiln_state_begin(lab.reader, &err), &err);
    CHECK_OK(kiln_state_window(lab.reader, 100000, &window, &err), &err);
    CHECK_EQ(((char *)window)[99999], 6);
    weights[7] = 77.0f;
    cursor = *kiln_state_cursor(lab.reader);
    cursor.step = 9;
    kiln_state_commit(lab.reader, &cursor);
    /* And on, by exec: as any other owner. */
    struct kiln_state *last;
    const int fd = kiln_state_detach(lab.reader);
    CHECK_OK(kiln_state_open_fd(fd, lab.path, lab.table, &lab.reader, notice, &err), &err);
    CHECK(kiln_state_region(lab.reader, KILN_WEIGHTS)[7] == 77.0f);
    CHECK_EQ(kiln_state_cursor(lab.reader)->step, 9);
    /* A reader that is not needed after all gives its descriptor back, with the lock on it. */
    CHECK_OK(
        kiln_state_open_reader(kiln_state_detach(lab.reader), lab.path, lab.table, &last, &err),
        &err);
    const int again = kiln_state_detach(last);
    CHECK_EQ(fcntl(again, F_GETFD) & FD_CLOEXEC, 0);
    CHECK_FAILS(lab_open(lab.path, lab.table, notice, &err), KILN_EBUSY, &err);
    close(again);
    lab.reader = NULL;
    close_lab();
}

TEST(a_successor_whose_descriptor_cannot_write_stays_a_reader) {
    open_lab();
    struct kiln_state *reader;
    CHECK_OK(kiln_state_open_reader(open(lab.path, O_RDONLY | O_CLOEXEC), lab.path, lab.table,
                                    &reader, &err),
             &err);
    kiln_state_close(lab.reader);
    lab.reader = NULL;
    hand_over(2);
    const uint32_t before = lab_hash(lab.path);
    CHECK_FAILS(kiln_state_own(reader, 2, notice, &err), KILN_EIO, &err);
    CHECK_CONTAINS(err.message, "writable");
    CHECK_FAILS(kiln_state_begin(reader, &err), KILN_EUSAGE, &err);
    CHECK(kiln_state_region(reader, KILN_WEIGHTS)[7] == 7.0f);
    kiln_state_close(reader);
    CHECK_EQ(lab_hash(lab.path), before);
    close_lab();
}

/* A death of the owner in the middle of a commit leaves one slot: the successor is told so. */
TEST(a_damaged_slot_gives_way_to_the_other_when_a_successor_owns) {
    open_lab();
    hand_over(3);
    lab_flip(lab.path, 4096 + 20, 1);
    CHECK_OK(kiln_state_own(lab.reader, 3, notice, &err), &err);
    CHECK_CONTAINS(notice, "one of the two cursors is damaged");
    CHECK_OK(kiln_state_begin(lab.reader, &err), &err);
    kiln_state_close(lab.reader);
    lab.reader = NULL;
    CHECK_OK(lab_open(lab.path, lab.table, notice, &err), &err);
    CHECK_STRING(notice, "");
    close_lab();
}

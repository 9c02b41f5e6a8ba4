/* SPDX-License-Identifier: MIT
 *
 * The state file (src/state/state.h): made, opened, grown, handed over, trusted or not.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "kiln/train.h"
#include "kiln_test.h"
#include "state/state_lab.h"
#include "train/tiny_run.h"

static struct kiln_err err;
static char notice[160];

static struct kiln_state *opened(const char *path, const struct kiln_table *table) {
    struct kiln_state *state;
    CHECK_OK(kiln_state_open(path, table, &state, notice, &err), &err);
    return state;
}

static uint64_t length_of(const char *path) {
    struct stat st;
    CHECK(stat(path, &st) == 0);
    return (uint64_t)st.st_size;
}

TEST(a_new_state_begins_at_the_start_with_zeros) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = test_path("state");
    struct kiln_state *state, *second;
    struct stat st;
    CHECK_OK(kiln_state_create(path, table, KILN_PRECISION_AUTO, false, &state, &err), &err);
    CHECK_EQ(kiln_state_cursor(state)->phase, KILN_PHASE_START);
    CHECK(isinf(kiln_state_cursor(state)->best_val));
    CHECK(stat(path, &st) == 0);
    CHECK_EQ(st.st_mode & 0777, 0600);
    CHECK_EQ(st.st_size, kiln_state_bytes(table, KILN_PRECISION_AUTO, false));
    CHECK(st.st_blocks * 512 >= st.st_size); /* reserved */
    for (size_t i = 0; i < table->dims.vocab * table->dims.dim; i++) {
        CHECK(kiln_state_region(state, KILN_GRADIENT_EMBEDDING)[i] == 0.0f);
    }
    CHECK_FAILS(kiln_state_create(path, table, KILN_PRECISION_AUTO, false, &second, &err),
                KILN_EEXISTS, &err);
    kiln_state_close(state);
    kiln_table_destroy(table);
}

TEST(only_a_tied_model_has_a_gradient_of_the_lookup) {
    struct kiln_table *table = lab_table(16, false);
    const char *path = lab_state("state", table, false);
    struct kiln_state *state = opened(path, table);
    CHECK(kiln_state_region(state, KILN_GRADIENT_EMBEDDING) == NULL);
    CHECK(kiln_state_region(state, KILN_STAMPS) == NULL);
    kiln_state_close(state);
    kiln_table_destroy(table);
}

TEST(a_tensor_is_found_by_region_role_and_layer_and_nothing_else_is) {
    struct kiln_table *table = lab_table(16, true);
    struct kiln_state *state = opened(lab_state("state", table, false), table);
    float *at;
    size_t n;
    CHECK_OK(kiln_state_tensor(state, KILN_WEIGHTS, KILN_W2, 1, &at, &n, &err), &err);
    CHECK_EQ(n, table->dims.hidden * table->dims.dim);
    CHECK(at[0] == (float)kiln_table_find(table, KILN_W2, 1)->offset);
    CHECK_OK(kiln_state_tensor(state, KILN_MOMENT2, KILN_EMBED, KILN_NO_LAYER, &at, &n, &err),
             &err);
    CHECK_EQ(n, table->dims.vocab * table->dims.dim);
    const struct {
        int region, role;
        size_t layer;
    } wrong[] = {{KILN_WEIGHTS, KILN_W2, (size_t)-1}, {KILN_WEIGHTS, KILN_W2, 2},
                 {KILN_WEIGHTS, KILN_W2, 999},        {KILN_STAMPS, KILN_W2, 1},
                 {KILN_JOURNAL, KILN_W2, 1},          {KILN_GRADIENT_EMBEDDING, KILN_W2, 1},
                 {KILN_REGIONS, KILN_W2, 1},          {-1, KILN_W2, 1},
                 {KILN_WEIGHTS, KILN_EMBED, 0},       {KILN_WEIGHTS, KILN_HEAD, KILN_NO_LAYER},
                 {KILN_WEIGHTS, KILN_ROLES, 0},       {KILN_WEIGHTS, -1, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_FAILS(kiln_state_tensor(state, (enum kiln_region)wrong[i].region,
                                      (enum kiln_role)wrong[i].role, wrong[i].layer, &at, &n, &err),
                    KILN_EUSAGE, &err);
        CHECK(at == NULL && n == 0);
    }
    kiln_state_close(state);
    kiln_table_destroy(table);
}

/* ---- the window ---------------------------------------------------------------------------- */

TEST(a_window_grows_shrinks_and_keeps_what_it_holds) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, false);
    struct kiln_state *state = opened(path, table);
    const size_t base = kiln_state_bytes(table, KILN_PRECISION_AUTO, false);
    void *at;
    CHECK_OK(kiln_state_begin(state, &err), &err);
    CHECK_OK(kiln_state_window(state, 100000, &at, &err), &err);
    memset(at, 7, 100000);
    CHECK_EQ(length_of(path), kiln_state_file_bytes(table, KILN_PRECISION_AUTO, false, 100000));
    CHECK_EQ(kiln_state_cursor(state)->window_bytes, length_of(path) - base);
    struct kiln_cursor stale = *kiln_state_cursor(state);
    CHECK_OK(kiln_state_window(state, 200000, &at, &err), &err);
    CHECK_EQ(((char *)at)[99999], 7);
    CHECK_EQ(((char *)at)[199999], 0);
    kiln_state_commit(state, &stale); /* cannot take the new length back */
    CHECK_EQ(kiln_state_cursor(state)->window_bytes, length_of(path) - base);
    kiln_state_close(state);

    state = opened(path, table);
    CHECK_OK(kiln_state_begin(state, &err), &err);
    CHECK_OK(kiln_state_window(state, 200000, &at, &err), &err);
    CHECK_EQ(((char *)at)[99999], 7);
    CHECK_OK(kiln_state_window(state, 5000, &at, &err), &err);
    CHECK_EQ(((char *)at)[4999], 7);
    CHECK_EQ(length_of(path), kiln_state_file_bytes(table, KILN_PRECISION_AUTO, false, 5000));
    CHECK_OK(kiln_state_window(state, 0, &at, &err), &err);
    CHECK(at == NULL);
    CHECK_EQ(length_of(path), base);
    CHECK_OK(kiln_state_finish(state, &err), &err);
    kiln_state_close(state);
    CHECK_OK(lab_open(path, table, notice, &err), &err);
    kiln_table_destroy(table);
}

TEST(a_file_shorter_than_its_window_is_truncated_and_a_longer_one_is_cut) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, false);
    struct kiln_state *state = opened(path, table);
    void *at;
    CHECK_OK(kiln_state_begin(state, &err), &err);
    CHECK_OK(kiln_state_window(state, 8192, &at, &err), &err);
    kiln_state_close(state);
    const off_t whole = (off_t)length_of(path);
    CHECK(truncate(path, whole - 1) == 0);
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EDAMAGED, &err);
    CHECK_CONTAINS(err.message, "the file is truncated");
    CHECK(truncate(path, whole + 12345) == 0);
    state = opened(path, table);
    CHECK_EQ(length_of(path), whole + 12345);
    CHECK_OK(kiln_state_begin(state, &err), &err);
    CHECK_EQ(length_of(path), whole);
    kiln_state_close(state);
    kiln_table_destroy(table);
}

/* ---- space --------------------------------------------------------------------------------- */

static int no_fallocate(int fd, off_t from, off_t size) {
    (void)fd, (void)from, (void)size;
    return EOPNOTSUPP;
}

TEST(zeros_are_written_where_space_cannot_be_reserved) {
    struct kiln_table *table = lab_table(16, true);
    kiln_fallocate = no_fallocate;
    const char *path = lab_state("state", table, false);
    struct stat st;
    CHECK(stat(path, &st) == 0);
    CHECK_EQ(st.st_size, kiln_state_bytes(table, KILN_PRECISION_AUTO, false));
    CHECK(st.st_blocks * 512 >= st.st_size);
    struct kiln_state *state = opened(path, table);
    void *at;
    CHECK_OK(kiln_state_begin(state, &err), &err);
    CHECK_OK(kiln_state_window(state, 300000, &at, &err), &err);
    CHECK(stat(path, &st) == 0 && st.st_blocks * 512 >= st.st_size);
    CHECK_EQ(((char *)at)[299999], 0);
    kiln_state_close(state);
    kiln_table_destroy(table);
}

/* A file may not become longer than `bytes`: how a full disk looks to us. */
static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes;
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

TEST(a_full_disk_is_an_error_when_the_file_is_made_and_nothing_stays) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = test_path("state");
    for (int way = 0; way < 2; way++) {
        kiln_fallocate = way == 0 ? posix_fallocate : no_fallocate;
        for (rlim_t room = 0; room < kiln_state_bytes(table, KILN_PRECISION_AUTO, false);
             room = room * 3 + 1000) {
            struct kiln_state *state;
            limit_files(room);
            CHECK_FAILS(kiln_state_create(path, table, KILN_PRECISION_AUTO, false, &state, &err),
                        KILN_EIO, &err);
            limit_files(RLIM_INFINITY);
            CHECK_CONTAINS(err.message, "cannot reserve");
            CHECK(!kiln_path_exists(path));
        }
    }
    kiln_table_destroy(table);
}

TEST(a_window_that_has_no_room_leaves_the_state_as_it_was) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, false);
    struct kiln_state *state = opened(path, table);
    void *at;
    CHECK_OK(kiln_state_begin(state, &err), &err);
    CHECK_OK(kiln_state_window(state, 4096, &at, &err), &err);
    memset(at, 5, 4096);
    const uint64_t length = length_of(path);
    limit_files(length + 50000);
    CHECK_FAILS(kiln_state_window(state, 1 << 20, &at, &err), KILN_EIO, &err);
    limit_files(RLIM_INFINITY);
    CHECK_EQ(length_of(path), length);
    CHECK_OK(kiln_state_window(state, 4096, &at, &err), &err);
    CHECK_EQ(((char *)at)[4095], 5);
    kiln_state_close(state);
    CHECK_OK(lab_open(path, table, notice, &err), &err);
    kiln_table_destroy(table);
}

/* ---- owners -------------------------------------------------------------------------------- */

TEST(a_live_owner_keeps_others_out) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, false);
    struct kiln_state *owner = opened(path, table), *second;
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EBUSY, &err);
    CHECK_CONTAINS(err.message, "another process is training this run");
    CHECK_FAILS(kiln_state_renew(path, table, KILN_PRECISION_AUTO, false, &second, &err),
                KILN_EBUSY, &err);
    kiln_state_close(owner);
    CHECK_OK(lab_open(path, table, notice, &err), &err);
    kiln_table_destroy(table);
}

TEST(a_detached_file_keeps_its_lock_and_is_taken_over) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, false), *other = lab_state("b", table, false);
    struct kiln_state *state;
    int fd = kiln_state_detach(opened(path, table));
    CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EBUSY, &err);
    int copy = dup(fd); /* a descriptor that is refused is closed */
    CHECK_FAILS(kiln_state_open_fd(copy, other, table, &state, notice, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "is another file");
    CHECK(fcntl(copy, F_GETFD) < 0);
    CHECK_OK(kiln_state_open_fd(fd, path, table, &state, notice, &err), &err);
    CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(kiln_state_cursor(state)->step, 3);
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EBUSY, &err);
    kiln_state_close(state);
    CHECK_OK(lab_open(path, table, notice, &err), &err);
    CHECK_FAILS(kiln_state_open_fd(fd, path, table, &state, notice, &err), KILN_EINPUT, &err);
    kiln_table_destroy(table);
}

/* The lock is the descriptor's: it lives through exec, and ends with the last holder. */
TEST(a_detached_file_keeps_its_lock_through_exec) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, false);
    pid_t child = fork();
    if (child == 0) {
        kiln_state_detach(opened(path, table));
        execlp("sleep", "sleep", "30", (char *)NULL);
        _exit(1);
    }
    enum kiln_status status = KILN_OK;
    for (int i = 0; i < 500 && status != KILN_EBUSY; i++) {
        usleep(10000);
        status = lab_open(path, table, notice, &err);
    }
    CHECK_EQ(status, KILN_EBUSY);
    usleep(50000); /* past the exec */
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EBUSY, &err);
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK_OK(lab_open(path, table, notice, &err), &err);
    kiln_table_destroy(table);
}

/* ---- trust --------------------------------------------------------------------------------- */

TEST(a_state_that_is_not_clean_is_trusted_in_its_own_boot_only) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, false);
    CHECK_OK(lab_open(path, table, notice, &err), &err);
    kiln_boot_id_instead = "another-boot";
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EUNTRUSTED, &err);
    CHECK_CONTAINS(err.message, "the power was cut, or the system restarted");
    kiln_boot_id_instead = NULL;
    CHECK_OK(lab_open(path, table, notice, &err), &err);
    kiln_table_destroy(table);
}

TEST(a_clean_state_is_trusted_in_any_boot_until_training_begins) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, true);
    kiln_boot_id_instead = "second-boot";
    struct kiln_state *state = opened(path, table);
    CHECK_EQ(kiln_state_cursor(state)->clean, 1);
    CHECK_OK(kiln_state_begin(state, &err), &err);
    CHECK_EQ(kiln_state_cursor(state)->clean, 0);
    CHECK_STRING(kiln_state_cursor(state)->boot_id, "second-boot");
    kiln_state_close(state);
    CHECK_OK(lab_open(path, table, notice, &err), &err);
    kiln_boot_id_instead = "third-boot";
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EUNTRUSTED, &err);
    kiln_table_destroy(table);
}

TEST(this_system_names_its_boot) {
    char id[40], again[40];
    kiln_boot_id(id);
    kiln_boot_id(again);
    CHECK_STRING(id, again);
    CHECK_EQ(strlen(id), access("/proc/sys/kernel/random/boot_id", R_OK) == 0 ? 36 : strlen(id));
}

TEST(a_renewed_file_is_not_opened_before_it_is_committed) {
    struct kiln_table *table = lab_table(16, true), *wider = lab_table(32, true);
    const char *path = lab_state("state", wider, true);
    struct kiln_state *state;
    for (int i = 0; i < 2; i++) { /* over another model's file; where there is none */
        CHECK_OK(kiln_state_renew(path, table, KILN_PRECISION_AUTO, false, &state, &err), &err);
        kiln_state_close(state);
        CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EUNTRUSTED, &err);
        CHECK_OK(kiln_state_renew(path, table, KILN_PRECISION_AUTO, false, &state, &err), &err);
        kiln_state_region(state, KILN_WEIGHTS)[7] = 7.0f;
        struct kiln_cursor cursor = {.step = 3, .phase = KILN_PHASE_UPDATE};
        kiln_state_commit(state, &cursor);
        kiln_state_close(state);
        CHECK_OK(lab_open(path, table, notice, &err), &err);
        CHECK(remove(path) == 0);
    }
    kiln_table_destroy(table);
    kiln_table_destroy(wider);
}

/* ---- runs ---------------------------------------------------------------------------------- */

static uint32_t end_of(const char *folder) {
    struct kiln_run_peek peek;
    CHECK_OK(kiln_run_peek(folder, &peek, &err), &err);
    CHECK_EQ(peek.step, 8);
    return peek.weights_hash;
}

/* A run stopped after step 5. */
static char run_notice[320];
static volatile sig_atomic_t stop;
static void stop_at_5(void *context, const struct kiln_step_record *record) {
    (void)context;
    stop = record->step == 5;
}
static void keep_notice(void *context, const char *text) {
    (void)context;
    if (strncmp(text, "held-out", 8) != 0) {
        snprintf(run_notice, sizeof run_notice, "%s", text);
    }
}
static const struct kiln_observer observer = {.on_step = stop_at_5, .on_notice = keep_notice};

static const char *stopped_run(const char *name) {
    struct kiln_settings s;
    struct kiln_run *run;
    tiny_settings(&s, name, "");
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    CHECK_FAILS(kiln_run_train(run, &observer, &stop, &err), KILN_EINTERRUPTED, &err);
    kiln_run_close(run);
    kiln_settings_free(&s);
    stop = 0;
    return test_path(name);
}

static uint32_t resumed(const char *folder) {
    struct kiln_run *run;
    run_notice[0] = '\0';
    const struct kiln_observer quiet = {.on_notice = keep_notice};
    CHECK_OK(kiln_run_resume(folder, NULL, &run, &err), &err);
    CHECK_OK(kiln_run_train(run, &quiet, NULL, &err), &err);
    kiln_run_close(run);
    return end_of(folder);
}

static uint32_t unbroken(void) { return end_of(tiny_run("unbroken", "", NULL)); }

TEST(a_run_goes_on_from_the_other_slot_to_the_same_bits) {
    const uint32_t expected = unbroken();
    for (int slot = 1; slot <= 2; slot++) {
        char name[16], path[4200];
        snprintf(name, sizeof name, "run%d", slot);
        const char *folder = stopped_run(name);
        snprintf(path, sizeof path, "%s/state.kiln", folder);
        lab_flip(path, 4096L * slot + 9, 1);
        CHECK_EQ(resumed(folder), expected);
        CHECK_CONTAINS(run_notice, "one of the two cursors is damaged");
    }
}

TEST(a_run_names_a_damaged_header_and_changes_nothing) {
    const char *folder = stopped_run("run");
    char path[4200];
    struct kiln_run *run;
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    lab_flip(path, 16, 1);
    const uint32_t before = lab_hash(path);
    CHECK_FAILS(kiln_run_resume(folder, NULL, &run, &err), KILN_EDAMAGED, &err);
    CHECK_CONTAINS(err.message, "header field dim is 33, expected 32: the header is damaged");
    CHECK_EQ(lab_hash(path), before);
}

TEST(a_run_that_is_not_trusted_goes_on_from_its_newest_checkpoint) {
    const uint32_t expected = unbroken();
    const char *folder = stopped_run("run");
    char path[4200], checkpoint[4200];
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    CHECK(remove(path) == 0);
    CHECK_EQ(resumed(folder), expected);
    CHECK_CONTAINS(run_notice,
                   "state.kiln is missing: training goes on from the checkpoint of "
                   "step ");
    folder = stopped_run("run2"); /* both cursors damaged, and the newest checkpoint too */
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    lab_flip(path, 4096 + 9, 1);
    lab_flip(path, 2 * 4096 + 9, 1);
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoints/step-4/model.bin", folder);
    lab_flip(checkpoint, 5000, 1);
    CHECK_EQ(resumed(folder), expected);
    CHECK_CONTAINS(run_notice, "state.kiln cannot be trusted");
    CHECK_CONTAINS(run_notice, "checkpoint of step 2; 1 newer ones are damaged or given up");
}

TEST(a_lost_state_without_a_checkpoint_says_what_is_lost) {
    const char *folder = tiny_run("run", "save-every=0 steps=2", NULL);
    char path[4200];
    struct kiln_run *run;
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    CHECK(remove(path) == 0);
    CHECK_FAILS(kiln_run_resume(folder, NULL, &run, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "all that was trained is lost; remove the folder and start");
}

TEST(a_state_may_be_a_link_to_a_file_elsewhere) {
    const uint32_t expected = unbroken();
    const char *folder = stopped_run("run");
    char path[4200], other[4200];
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    snprintf(other, sizeof other, "%s", test_path("elsewhere"));
    CHECK(rename(path, other) == 0 && symlink(other, path) == 0);
    const char *second = stopped_run("run2");
    CHECK_EQ(resumed(folder), expected);
    CHECK_STRING(run_notice, "");
    snprintf(path, sizeof path, "%s/state.kiln", second);
    CHECK(remove(path) == 0 && symlink(test_path("gone"), path) == 0);
    CHECK_EQ(resumed(second), expected); /* made again where the link points */
    CHECK(kiln_path_exists(test_path("gone")));
    CHECK_CONTAINS(run_notice, "state.kiln is missing");
}

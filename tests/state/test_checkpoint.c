/* SPDX-License-Identifier: MIT
 *
 * Durable checkpoints (src/state/checkpoint.h): what comes back, what damage is found, what a death
 * inside a save leaves.
 */
#include "state/checkpoint.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/kill_point.h"
#include "base/mem.h"
#include "base/random.h"
#include "kernel/weights.h"
#include "kiln_test.h"

static const struct kiln_dims small = {.dim = 8,
                                       .hidden = 12,
                                       .layers = 2,
                                       .heads = 2,
                                       .kv_heads = 1,
                                       .head_size = 4,
                                       .vocab = 11,
                                       .seq = 6,
                                       .tied = true,
                                       .rms_eps = 1e-5f,
                                       .rope_theta = 10000.0f};
static const char settings[] = "{\"steps\": 9}\n";

/* A state of random weights and moments, as training would leave it after `step` steps. */
struct lab {
    struct kiln_table *table;
    struct kiln_state *state;
    float *region[3];
    const void *snapshots[KILN_SNAPSHOTS];
    size_t snapshot; /* bytes of one */
    struct kiln_cursor cursor;
};

static void fill(const struct kiln_table *table, uint64_t seed, float *values) {
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        for (size_t k = t->offset; k < t->offset + t->rows * t->cols; k++) {
            values[k] = (float)kiln_random_below(seed, KILN_STREAM_TEST, k, 2001) / 1000.0f - 1.0f;
        }
    }
}

static struct lab open_lab_with(const struct kiln_dims *dims, const char *name, uint64_t step,
                                enum kiln_precision precision) {
    struct lab lab = {0};
    struct kiln_err err;
    CHECK_OK(kiln_table_create(dims, &lab.table, &err), &err);
    CHECK_OK(kiln_state_create(test_path(name), lab.table, precision, false, &lab.state, &err),
             &err);
    for (int i = 0; i < 3; i++) {
        lab.region[i] = kiln_state_region(lab.state, KILN_WEIGHTS + i);
        fill(lab.table, 10 * step + (uint64_t)i, lab.region[i]);
    }
    if (precision != KILN_PRECISION_AUTO) {
        lab.snapshot = kiln_snapshot_bytes(lab.table, precision);
        for (size_t s = 0; s < KILN_SNAPSHOTS; s++) {
            memset(kiln_state_snapshot(lab.state, s), (int)(10 * step + s), lab.snapshot);
            lab.snapshots[s] = kiln_state_snapshot(lab.state, s);
        }
    }
    lab.cursor = *kiln_state_cursor(lab.state);
    lab.cursor.phase = KILN_PHASE_WINDOW;
    lab.cursor.step = step;
    lab.cursor.updates = step > 0 ? step - 1 : 0; /* one update was skipped */
    lab.cursor.sample = 3 * step;
    lab.cursor.last_loss = 2.5;
    lab.cursor.phase = KILN_PHASE_WINDOW;
    snprintf(lab.cursor.numerics, sizeof lab.cursor.numerics, "test/b1");
    return lab;
}

static struct lab open_lab(const struct kiln_dims *dims, const char *name, uint64_t step) {
    return open_lab_with(dims, name, step, KILN_PRECISION_AUTO);
}

static void close_lab(struct lab *lab) {
    kiln_state_close(lab->state);
    kiln_table_destroy(lab->table);
}

static enum kiln_status save(const struct lab *lab, const char *path, struct kiln_err *err) {
    return kiln_checkpoint_write(path, lab->table, lab->region[0], lab->region[1], lab->region[2],
                                 lab->snapshots[0] ? lab->snapshots : NULL,
                                 kiln_state_snapshots(lab->state), NULL, &lab->cursor, settings,
                                 err);
}

static const char *checkpoint_path(uint64_t step) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/step-%" PRIu64, test_path("checkpoints"), step);
    return path;
}

/* Save, restore into a fresh state, and compare all there is. */
static void check_round_trip(const struct kiln_dims *dims, enum kiln_precision precision) {
    struct kiln_err err;
    struct lab lab = open_lab_with(dims, "a.kiln", 7, precision);
    struct lab back = open_lab_with(dims, "b.kiln", 1, precision);
    struct kiln_checkpoint_info info;
    CHECK_OK(save(&lab, checkpoint_path(7), &err), &err);
    CHECK_OK(kiln_checkpoint_verify(checkpoint_path(7), &info, &err), &err);
    const size_t bytes = lab.table->size * sizeof(float);
    CHECK_EQ(info.weights_crc, kiln_crc32c(0, lab.region[0], bytes));
    CHECK_EQ(info.dims.seq, dims->seq);
    CHECK_EQ(info.snapshots, precision);
    CHECK_EQ(info.bytes[KILN_CHECKPOINT_SNAPSHOT1], lab.snapshot);
    kiln_state_chunk_begin(back.state, 3, 0, 0, 4); /* a journal slot in use */
    CHECK_OK(kiln_checkpoint_restore(checkpoint_path(7), back.state, &err), &err);
    for (int i = 0; i < 3; i++) {
        CHECK_BYTES(back.region[i], lab.region[i], bytes);
    }
    for (size_t s = 0; lab.snapshots[0] && s < KILN_SNAPSHOTS; s++) {
        CHECK_BYTES(back.snapshots[s], lab.snapshots[s], lab.snapshot);
    }
    struct kiln_cursor cursor = *kiln_state_cursor(back.state);
    cursor.generation = lab.cursor.generation;
    memset(lab.cursor.boot_id, 0, sizeof lab.cursor.boot_id); /* of the state, not of training */
    memset(cursor.boot_id, 0, sizeof cursor.boot_id);
    CHECK_BYTES(&cursor, &lab.cursor, sizeof cursor);
    CHECK(kiln_state_chunk_done(back.state, 0, 6));
    const float was = back.region[0][0]; /* the journal is empty: nothing is put back */
    back.region[0][0] = 99.0f;
    CHECK_OK(kiln_state_restore(back.state, 7, &err), &err);
    CHECK_CLOSE(back.region[0][0], 99.0, 0.0);
    back.region[0][0] = was;
    close_lab(&lab);
    close_lab(&back);
    CHECK(unlink(test_path("a.kiln")) == 0 && unlink(test_path("b.kiln")) == 0);
}

TEST(a_checkpoint_brings_back_every_bit_of_a_tied_model) {
    check_round_trip(&small, KILN_PRECISION_AUTO);
}

TEST(a_checkpoint_brings_back_both_snapshots_of_any_precision) {
    check_round_trip(&small, KILN_PRECISION_FP32);
    check_round_trip(&small, KILN_PRECISION_BF16);
    check_round_trip(&small, KILN_PRECISION_FP16);
}

TEST(a_checkpoint_brings_back_every_bit_of_an_untied_model) {
    struct kiln_dims dims = small;
    dims.tied = false;
    dims.kv_heads = 2;
    check_round_trip(&dims, KILN_PRECISION_AUTO);
}

TEST(a_checkpoint_brings_back_every_bit_of_odd_sizes) {
    struct kiln_dims dims = {.dim = 18,
                             .hidden = 23,
                             .layers = 3,
                             .heads = 3,
                             .kv_heads = 1,
                             .head_size = 6,
                             .vocab = 37,
                             .seq = 5,
                             .rms_eps = 1e-5f,
                             .rope_theta = 10000.0f};
    check_round_trip(&dims, KILN_PRECISION_AUTO);
}

/* ---- damage --------------------------------------------------------------------------------- */

static void flip(const char *path, long at) {
    FILE *file = fopen(path, "r+b");
    CHECK(file != NULL);
    CHECK(fseek(file, at, SEEK_SET) == 0);
    const int c = fgetc(file);
    CHECK(c != EOF && fseek(file, at, SEEK_SET) == 0 && fputc(c ^ 4, file) != EOF);
    fclose(file);
}

TEST(a_flipped_bit_anywhere_in_a_checkpoint_is_found_and_its_part_named) {
    struct kiln_err err;
    struct lab lab = open_lab(&small, "a.kiln", 7);
    struct kiln_checkpoint_info info;
    CHECK_OK(save(&lab, checkpoint_path(7), &err), &err);
    CHECK_OK(kiln_checkpoint_verify(checkpoint_path(7), &info, &err), &err);
    const long m = (long)info.offset[0], v = (long)info.offset[1];
    const long end = v + (long)info.bytes[1], model = (long)info.bytes[KILN_CHECKPOINT_MODEL];
    const struct {
        const char *file;
        long at;
        const char *says;
    } cases[] = {
        {"resume.kiln", 0, "magic"},           {"resume.kiln", 8, "byte order"},
        {"resume.kiln", 12, "version"},        {"resume.kiln", 40, "header checksum"},
        {"resume.kiln", 400, "header"},        {"resume.kiln", 4000, "header checksum"},
        {"resume.kiln", 4095, "header"},       {"resume.kiln", m, ": m is damaged"},
        {"resume.kiln", v - 1, ": m is"},      {"resume.kiln", v, ": v is damaged"},
        {"resume.kiln", end - 1, ": v is"},    {"model.bin", 24, "model.bin is damaged"},
        {"model.bin", 28, "model.bin"},        {"model.bin", model / 2, "model.bin"},
        {"model.bin", model - 1, "model.bin"}, {"run.json", 3, "run.json is damaged"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[4300];
        snprintf(path, sizeof path, "%s/%s", checkpoint_path(7), cases[i].file);
        flip(path, cases[i].at);
        CHECK_FAILS(kiln_checkpoint_verify(checkpoint_path(7), NULL, &err), KILN_EDAMAGED, &err);
        CHECK_CONTAINS(err.message, cases[i].says);
        CHECK_CONTAINS(err.message, "step-7");
        flip(path, cases[i].at);
    }
    CHECK_OK(kiln_checkpoint_verify(checkpoint_path(7), NULL, &err), &err);
    close_lab(&lab);
}

TEST(a_checkpoint_cut_short_or_without_a_file_is_none) {
    struct kiln_err err;
    struct lab lab = open_lab(&small, "a.kiln", 7), back = open_lab(&small, "b.kiln", 1);
    static const char *const files[] = {"resume.kiln", "model.bin", "run.json"};
    for (size_t i = 0; i < 3; i++) {
        char path[4300];
        CHECK_OK(save(&lab, checkpoint_path(7), &err), &err);
        snprintf(path, sizeof path, "%s/%s", checkpoint_path(7), files[i]);
        char *text;
        size_t size;
        CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
        kiln_free(text);
        CHECK(truncate(path, (off_t)size - 1) == 0);
        CHECK_FAILS(kiln_checkpoint_verify(checkpoint_path(7), NULL, &err), KILN_EDAMAGED, &err);
        CHECK(truncate(path, 5) == 0);
        CHECK_FAILS(kiln_checkpoint_verify(checkpoint_path(7), NULL, &err), KILN_EDAMAGED, &err);
        CHECK(i == 2 || kiln_checkpoint_restore(checkpoint_path(7), back.state, &err) != KILN_OK);
        CHECK(unlink(path) == 0);
        CHECK_FAILS(kiln_checkpoint_verify(checkpoint_path(7), NULL, &err), KILN_EINPUT, &err);
    }
    close_lab(&lab);
    close_lab(&back);
}

TEST(a_checkpoint_of_another_model_changes_nothing) {
    struct kiln_err err;
    struct kiln_dims other = small;
    other.hidden = 16;
    struct lab lab = open_lab(&small, "a.kiln", 7), back = open_lab(&other, "b.kiln", 1);
    CHECK_OK(save(&lab, checkpoint_path(7), &err), &err);
    const float was = back.region[0][0];
    CHECK_FAILS(kiln_checkpoint_restore(checkpoint_path(7), back.state, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "hidden is 12, the state has 16");
    CHECK_CLOSE(back.region[0][0], was, 0);
    CHECK_EQ(kiln_state_cursor(back.state)->step, 0);
    close_lab(&lab);
    close_lab(&back);
}

/* ---- snapshots ------------------------------------------------------------------------------ */

TEST(damage_in_a_snapshot_is_found_and_the_snapshot_named) {
    struct kiln_err err;
    struct lab lab = open_lab_with(&small, "a.kiln", 7, KILN_PRECISION_FP16);
    struct lab back = open_lab_with(&small, "b.kiln", 1, KILN_PRECISION_FP16);
    struct kiln_checkpoint_info info;
    char path[4300];
    CHECK_OK(save(&lab, checkpoint_path(7), &err), &err);
    CHECK_OK(kiln_checkpoint_verify(checkpoint_path(7), &info, &err), &err);
    snprintf(path, sizeof path, "%s/resume.kiln", checkpoint_path(7));
    for (int s = 0; s < KILN_SNAPSHOTS; s++) {
        const int part = KILN_CHECKPOINT_SNAPSHOT0 + s;
        char says[64];
        snprintf(says, sizeof says, ": snapshot %d is damaged", s);
        const long ends[] = {(long)info.offset[part],
                             (long)(info.offset[part] + info.bytes[part]) - 1};
        for (size_t e = 0; e < 2; e++) {
            flip(path, ends[e]);
            CHECK_FAILS(kiln_checkpoint_verify(checkpoint_path(7), NULL, &err), KILN_EDAMAGED,
                        &err);
            CHECK_CONTAINS(err.message, says);
            CHECK_FAILS(kiln_checkpoint_restore(checkpoint_path(7), back.state, &err),
                        KILN_EDAMAGED, &err);
            CHECK_CONTAINS(err.message, says);
            CHECK_EQ(kiln_state_cursor(back.state)->step, 0);
            flip(path, ends[e]);
        }
    }
    CHECK_OK(kiln_checkpoint_restore(checkpoint_path(7), back.state, &err), &err);
    close_lab(&lab);
    close_lab(&back);
}

TEST(a_checkpoint_with_other_snapshots_than_the_state_has_changes_nothing) {
    static const struct {
        enum kiln_precision has, wants;
        const char *says;
    } cases[] = {
        {KILN_PRECISION_AUTO, KILN_PRECISION_FP16, "of a run without snapshots, the state needs"},
        {KILN_PRECISION_BF16, KILN_PRECISION_AUTO, "with snapshots in bf16, the state has none"},
        {KILN_PRECISION_FP32, KILN_PRECISION_BF16, "snapshots in fp32, the state's are in bf16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kiln_err err;
        char names[2][16];
        snprintf(names[0], sizeof names[0], "a%zu.kiln", i);
        snprintf(names[1], sizeof names[1], "b%zu.kiln", i);
        struct lab lab = open_lab_with(&small, names[0], 7, cases[i].has);
        struct lab back = open_lab_with(&small, names[1], 1, cases[i].wants);
        CHECK_OK(save(&lab, checkpoint_path(7), &err), &err);
        const float was = back.region[0][0];
        CHECK_FAILS(kiln_checkpoint_restore(checkpoint_path(7), back.state, &err), KILN_EINPUT,
                    &err);
        CHECK_CONTAINS(err.message, cases[i].says);
        CHECK_CLOSE(back.region[0][0], was, 0);
        CHECK_EQ(kiln_state_cursor(back.state)->step, 0);
        close_lab(&lab);
        close_lab(&back);
    }
}

/* ---- many of them --------------------------------------------------------------------------- */

TEST(the_newest_checkpoint_that_is_whole_is_found) {
    struct kiln_err err;
    uint64_t step;
    char path[4096], folder[4096];
    size_t damaged;
    snprintf(folder, sizeof folder, "%s", test_path("checkpoints"));
    CHECK_FAILS(kiln_checkpoint_find(folder, &step, path, sizeof path, &damaged, &err), KILN_EINPUT,
                &err);
    struct lab lab = open_lab(&small, "a.kiln", 7);
    static const uint64_t saved[] = {2, 9, 10, 100};
    for (size_t i = 0; i < 4; i++) {
        CHECK_OK(save(&lab, checkpoint_path(saved[i]), &err), &err);
    }
    CHECK_OK(kiln_checkpoint_find(folder, &step, path, sizeof path, &damaged, &err), &err);
    CHECK_EQ(step, 100);
    CHECK_EQ(damaged, 0);
    for (size_t i = 4; i-- > 0;) {
        char file[4300];
        snprintf(file, sizeof file, "%s/%s", checkpoint_path(saved[i]),
                 i % 2 ? "model.bin" : "resume.kiln");
        flip(file, 100);
        if (i > 0) {
            CHECK_OK(kiln_checkpoint_find(folder, &step, path, sizeof path, &damaged, &err), &err);
            CHECK_EQ(step, saved[i - 1]);
            CHECK_STRING(path, checkpoint_path(step));
            CHECK_EQ(damaged, 4 - i);
        }
    }
    CHECK_FAILS(kiln_checkpoint_find(folder, &step, path, sizeof path, &damaged, &err), KILN_EINPUT,
                &err);
    CHECK_CONTAINS(err.message, "none of 4");
    CHECK_CONTAINS(err.message, "step-100");
    close_lab(&lab);
}

static void check_steps(const char *folder, const uint64_t *want, size_t n) {
    struct kiln_err err;
    uint64_t *steps;
    size_t found;
    CHECK_OK(kiln_checkpoint_list(folder, &steps, &found, &err), &err);
    CHECK_EQ(found, n);
    for (size_t i = 0; i < n; i++) {
        CHECK_EQ(steps[i], want[i]);
    }
    kiln_free(steps);
}

TEST(the_newest_checkpoints_stay_and_strange_names_are_left_alone) {
    struct kiln_err err;
    char folder[4096], strange[4200];
    snprintf(folder, sizeof folder, "%s", test_path("checkpoints"));
    struct lab lab = open_lab(&small, "a.kiln", 7);
    for (uint64_t step = 8; step <= 12; step++) {
        CHECK_OK(save(&lab, checkpoint_path(step), &err), &err);
    }
    static const char *const others[] = {"step-07", "step-", "step-x", "notes", "step-3.mine"};
    for (size_t i = 0; i < 5; i++) {
        snprintf(strange, sizeof strange, "%s/%s", folder, others[i]);
        CHECK_OK(kiln_make_dirs(strange, &err), &err);
    }
    snprintf(strange, sizeof strange, "%s/step-3.tmp/half", folder);
    CHECK_OK(kiln_make_dirs(strange, &err), &err);
    check_steps(folder, (const uint64_t[]){8, 9, 10, 11, 12}, 5);
    CHECK_OK(kiln_checkpoint_prune(folder, 11, 2, &err), &err);
    check_steps(folder, (const uint64_t[]){10, 11, 12}, 3); /* 12 is of a state that was lost */
    CHECK_OK(kiln_checkpoint_clean(folder, &err), &err);
    CHECK(!kiln_path_exists(strange));
    for (size_t i = 0; i < 5; i++) {
        snprintf(strange, sizeof strange, "%s/%s", folder, others[i]);
        CHECK(kiln_path_is_dir(strange));
    }
    close_lab(&lab);
}

/* ---- deaths --------------------------------------------------------------------------------- */

static long points_left;
static void die_at(const char *where) {
    (void)where;
    if (--points_left == 0) {
        raise(SIGKILL);
    }
}

/* Save over an older checkpoint of that step and prune, in a child that dies at point n. */
static bool save_and_die(const struct lab *lab, const char *folder, long n) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct kiln_err err;
        points_left = n;
        kiln_kill_hook = die_at;
        enum kiln_status status = save(lab, checkpoint_path(7), &err);
        if (status == KILN_OK) {
            status = kiln_checkpoint_prune(folder, 7, 1, &err);
        }
        _exit(status == KILN_OK ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) {
        CHECK_EQ(WTERMSIG(status), SIGKILL);
        return true;
    }
    CHECK_EQ(WEXITSTATUS(status), 0);
    return false;
}

TEST(a_death_inside_a_save_leaves_whole_checkpoints_or_none) {
    struct kiln_err err;
    char folder[4096], path[4096];
    snprintf(folder, sizeof folder, "%s", test_path("checkpoints"));
    struct lab older = open_lab_with(&small, "a.kiln", 5, KILN_PRECISION_BF16);
    struct lab lab = open_lab_with(&small, "b.kiln", 7, KILN_PRECISION_BF16);
    bool killed = true;
    long n = 0;
    while (killed) {
        CHECK_OK(kiln_remove_tree(folder, &err), &err);
        CHECK_OK(save(&older, checkpoint_path(5), &err), &err);
        if (n % 2) {
            CHECK_OK(save(&older, checkpoint_path(7), &err), &err); /* of another history */
        }
        killed = save_and_die(&lab, folder, ++n / 2 + 1);
        uint64_t *steps, step;
        size_t found, damaged;
        CHECK_OK(kiln_checkpoint_list(folder, &steps, &found, &err), &err);
        CHECK(found > 0);
        for (size_t i = 0; i < found; i++) {
            CHECK_OK(kiln_checkpoint_verify(checkpoint_path(steps[i]), NULL, &err), &err);
        }
        kiln_free(steps);
        CHECK_OK(kiln_checkpoint_find(folder, &step, path, sizeof path, &damaged, &err), &err);
        CHECK_EQ(damaged, 0);
        CHECK(!save_and_die(&lab, folder, 0)); /* the next one cleans up */
        check_steps(folder, (const uint64_t[]){7}, 1);
        struct kiln_checkpoint_info info;
        CHECK_OK(kiln_checkpoint_verify(checkpoint_path(7), &info, &err), &err);
        CHECK_EQ(info.cursor.step, 7);
    }
    CHECK(n > 12);
    close_lab(&older);
    close_lab(&lab);
}

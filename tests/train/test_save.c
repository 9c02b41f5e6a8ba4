/* SPDX-License-Identifier: MIT
 *
 * Checkpoints beside the computing (src/train/save.h): which are there, what they hold, how a
 * failure shows.
 */
#include "train/save.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln_test.h"
#include "state/checkpoint.h"
#include "train/tiny_run.h"

struct heard {
    uint64_t step[16];
    size_t n;
};

static void on_checkpoint(void *context, uint64_t step, const char *path) {
    struct heard *heard = context;
    CHECK(kiln_path_exists(path)); /* it is told when it is there */
    heard->step[heard->n++] = step;
}

TEST(a_run_keeps_its_newest_checkpoints_and_tells_of_each) {
    struct heard heard = {0};
    const struct kiln_observer observer = {.context = &heard, .on_checkpoint = on_checkpoint};
    const char *run = tiny_run("run", "steps=9 save-every=1", &observer);
    struct kiln_err err;
    char folder[4200], path[4300];
    uint64_t *steps;
    size_t n;
    CHECK_EQ(heard.n, 8); /* the last step is in state.kiln and model.bin */
    for (size_t i = 0; i < 8; i++) {
        CHECK_EQ(heard.step[i], i + 1);
    }
    snprintf(folder, sizeof folder, "%s/checkpoints", run);
    CHECK_OK(kiln_checkpoint_list(folder, &steps, &n, &err), &err);
    CHECK_EQ(n, 3);
    for (size_t i = 0; i < n; i++) {
        struct kiln_checkpoint_info info;
        CHECK_EQ(steps[i], 6 + i);
        snprintf(path, sizeof path, "%s/step-%zu", folder, (size_t)steps[i]);
        CHECK_OK(kiln_checkpoint_verify(path, &info, &err), &err);
        CHECK_EQ(info.cursor.step, steps[i]);
        CHECK_EQ(info.cursor.phase, KILN_PHASE_WINDOW);
        CHECK(info.bytes[KILN_CHECKPOINT_SETTINGS] > 0);
    }
    kiln_free(steps);
}

TEST(a_checkpoint_that_cannot_be_written_stops_the_run_with_its_message) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    char path[4300];
    tiny_settings(&s, "run", "");
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    snprintf(path, sizeof path, "%s/checkpoints", s.out);
    CHECK_OK(kiln_write_file(path, "in the way", 10, &err), &err);
    CHECK(kiln_run_train(run, NULL, NULL, &err) != KILN_OK);
    CHECK_CONTAINS(err.message, "checkpoints");
    CHECK_EQ(remove(path), 0); /* mended: the run goes on from where it was */
    CHECK_OK(kiln_run_train(run, NULL, NULL, &err), &err);
    kiln_run_close(run);
    kiln_settings_free(&s);
}

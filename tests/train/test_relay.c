/* SPDX-License-Identifier: MIT
 *
 * A successor opened beside its owner, here in one process: owner, successor and whoever holds the
 * lock share the descriptor, as processes do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"
#include "kiln/train.h"
#include "kiln_test.h"
#include "train/lasting.h"
#include "train/tiny_run.h"

#define STEPS "steps=4 eval-every=2 save-every=2"

struct relay_test {
    char folder[4096];
    int lock;
    struct kiln_run *next; /* open, not ours yet */
    size_t started;
    bool refuse; /* there will be none */
};

static void start(void *context, const char *place) {
    struct relay_test *t = context;
    struct kiln_err err;
    CHECK(strchr(place, ' ') == NULL && strlen(place) <= 200);
    CHECK(t->next == NULL);
    t->started++;
    if (!t->refuse) {
        CHECK_OK(kiln_run_succeed(dup(t->lock), t->folder, place, &t->next, &err), &err);
    }
}

static bool wait_for_next(void *context, double *since) {
    *since = 0;
    const struct relay_test *t = context;
    return t->next != NULL;
}

/* Make a run that nobody trains yet; its locked state is ours. */
static struct relay_test begin(const char *name, const char *changes) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    tiny_settings(&s, name, changes);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    CHECK(kiln_run_relays(run));
    const int lock = kiln_run_hand_over(run);
    kiln_settings_free(&s);
    struct relay_test t = {.lock = lock};
    snprintf(t.folder, sizeof t.folder, "%s", test_path(name));
    return t;
}

static struct kiln_run *first_owner(const struct relay_test *t) {
    struct kiln_run *run;
    struct kiln_err err;
    CHECK_OK(kiln_run_take_over(dup(t->lock), t->folder, &run, &err), &err);
    return run;
}

/* From owner to owner, until the run ends; its hash. */
static uint32_t run_to_end(struct relay_test *t) {
    const struct kiln_relay relay = {t, start, wait_for_next};
    struct kiln_run *run = first_owner(t);
    struct kiln_err err;
    uint64_t before, epoch;
    for (;;) {
        CHECK_OK(kiln_run_epoch(t->lock, &before, &err), &err);
        kiln_run_set_relay(run, &relay);
        const enum kiln_status status = kiln_run_train(run, NULL, NULL, &err);
        if (status != KILN_ERESTART) {
            CHECK_OK(status, &err);
            break;
        }
        close(kiln_run_hand_over(run));
        CHECK_OK(kiln_run_epoch(t->lock, &epoch, &err), &err);
        CHECK_EQ(epoch, before + 1);
        if (t->next != NULL) {
            CHECK_OK(kiln_run_go(t->next, &err), &err);
            run = t->next;
            t->next = NULL;
        } else {
            run = first_owner(t);
        }
    }
    const uint32_t hash = kiln_run_weights_hash(run);
    kiln_run_close(run);
    kiln_run_close(t->next); /* the end came before its place */
    t->next = NULL;
    close(t->lock);
    return hash;
}

static uint32_t hash_of(const char *folder) {
    struct kiln_run_peek peek;
    struct kiln_err err;
    CHECK_OK(kiln_run_peek(folder, &peek, &err), &err);
    return peek.weights_hash;
}

static void compare(const char *changes, const char *relayed, bool refuse) {
    char with[300], whole[4096];
    struct kiln_err err;
    snprintf(whole, sizeof whole, "%s", tiny_run("whole", changes, NULL));
    snprintf(with, sizeof with, "%s %s restart=relay", changes, relayed);
    struct relay_test t = begin("relayed", with);
    t.refuse = refuse;
    CHECK_EQ(run_to_end(&t), hash_of(whole));
    CHECK(t.started >= 4);
    char *got = lasting_metrics(t.folder), *want = lasting_metrics(whole);
    CHECK_STRING(got, want);
    free(got);
    free(want);
    CHECK_OK(kiln_remove_tree(t.folder, &err), &err);
    CHECK_OK(kiln_remove_tree(whole, &err), &err);
}

/* The successor opens its device at the start of a window whose update it does not see: what it
 * packed then is of old weights. */
TEST(a_successor_that_opened_before_an_update_goes_on_with_the_same_bits) {
    compare(STEPS, "budget=7", false);
    compare(STEPS " threads=2", "budget=7 overlap=off", false);
    compare(STEPS, "budget=20 headroom=0 activations=none", false);
}

TEST(without_a_successor_a_run_restarts_as_ever) { compare(STEPS, "budget=7", true); }

static uint32_t sum_of(const char *folder, const char *name) {
    char path[4200], *data;
    size_t size;
    struct kiln_err err;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_OK(kiln_read_file(path, &data, &size, &err), &err);
    const uint32_t sum = kiln_crc32c(0, data, size);
    kiln_free(data);
    return sum;
}

TEST(a_successor_changes_no_byte_and_does_not_go_before_its_owner) {
    static const char *const files[] = {"state.kiln", "run.json", "metrics.jsonl"};
    uint32_t before[3];
    struct kiln_err err;
    struct relay_test t = begin("run", STEPS " budget=7 restart=relay");
    const char *const line = "a line that the cursor does not count\n";
    char path[4200];
    snprintf(path, sizeof path, "%s/metrics.jsonl", t.folder);
    CHECK_OK(kiln_write_file(path, line, strlen(line), &err), &err);
    for (int i = 0; i < 3; i++) {
        before[i] = sum_of(t.folder, files[i]);
    }
    start(&t, "step=0,evaluate=0,round=0,group=0,micro-batch=0");
    CHECK_FAILS(kiln_run_go(t.next, &err), KILN_EBUSY, &err);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(sum_of(t.folder, files[i]), before[i]);
    }
    kiln_run_close(t.next);
    t.next = NULL;
    (void)run_to_end(&t); /* the run is as it was */
}

TEST(a_relay_is_for_plans_that_restart) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    static const struct {
        const char *changes;
        bool relays;
    } cases[] = {{"restart=relay", false}, {"budget=7", false}, {"budget=7 restart=relay", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[16];
        snprintf(name, sizeof name, "run%zu", i);
        tiny_settings(&s, name, cases[i].changes);
        CHECK_OK(kiln_run_create(&s, &run, &err), &err);
        CHECK_EQ(kiln_run_relays(run), cases[i].relays);
        kiln_run_close(run);
        kiln_settings_free(&s);
    }
}

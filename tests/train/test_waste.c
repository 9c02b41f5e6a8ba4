/* SPDX-License-Identifier: MIT
 *
 * What a step costs beside its arithmetic: after the first one nothing is allocated, on any thread,
 * by any library, and no thread is started.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kiln_test.h"
#include "malloc_count.h"
#include "train/tiny_run.h"

enum { FIRST = 1, LAST = 10 };

struct seen {
    uint64_t after[LAST + 1]; /* calls of malloc when a step had been reported */
};

static void see_step(void *context, const struct kiln_step_record *record) {
    struct seen *seen = context;
    if (record->step <= LAST) {
        seen->after[record->step] = malloc_count();
    }
    if (getenv("KILN_TRAP_MALLOC") && record->step >= FIRST) {
        malloc_trap(record->step < LAST);
    }
}

/* Steps without what is asked for now and then: evaluation and checkpoints. */
static void steps_allocate_nothing(const char *name, const char *changes) {
    struct seen seen = {0};
    char all[400];
    snprintf(all, sizeof all, "steps=12 save-every=100 eval-every=100 trace-steps=0 %s", changes);
    const struct kiln_observer observer = {.context = &seen, .on_step = see_step};
    if (!malloc_counted()) {
        SKIP("a sanitizer has its own malloc");
    }
    tiny_run(name, all, &observer);
    CHECK(seen.after[FIRST] > 0);
    for (uint64_t step = FIRST + 1; step <= LAST; step++) {
        if (seen.after[step] != seen.after[FIRST]) {
            printf("      %s: step %d: %d calls of malloc\n", all, (int)step,
                   (int)(seen.after[step] - seen.after[step - 1]));
        }
    }
    CHECK_EQ(seen.after[LAST], seen.after[FIRST]);
}

TEST(malloc_is_counted) {
    if (!malloc_counted()) {
        SKIP("a sanitizer has its own malloc");
    }
    const uint64_t before = malloc_count();
    void *volatile block = malloc(1);
    free(block);
    CHECK(malloc_count() > before);
}

TEST(steps_on_the_cpu_allocate_nothing) {
    steps_allocate_nothing("one", "threads=1");
    steps_allocate_nothing("two", "threads=2");
    steps_allocate_nothing("three", "threads=3");
}
TEST(steps_in_bf16_allocate_nothing) { steps_allocate_nothing("bf16", "threads=2 precision=bf16"); }
TEST(steps_that_recompute_allocate_nothing) {
    steps_allocate_nothing("none", "threads=2 activations=none");
    steps_allocate_nothing("sqrt", "threads=2 activations=sqrt");
}
TEST(steps_on_the_simulator_allocate_nothing) {
    steps_allocate_nothing("sim", "threads=2 device=sim weight-mode=dynamic");
}

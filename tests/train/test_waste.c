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

/* Budgets that no process of these runs exhausts. */
#define WIDE "threads=2 budget=100000 load-budget=100000 "

/* On the cpu compiling is packing, into memory that is there. */
TEST(steps_that_compile_allocate_nothing) {
    steps_allocate_nothing("budget", WIDE);
    steps_allocate_nothing("exact", WIDE "overlap=exact");
    steps_allocate_nothing("delayed", "threads=2 overlap=delayed");
    steps_allocate_nothing("delayed_one", "threads=1 overlap=delayed");
    steps_allocate_nothing("delayed_budget", WIDE "overlap=delayed");
}

/* With baked weights the simulator compiles programs: texts are written and parsed into graphs,
 * with memory that is as large as the program needs and goes with it. That is a compiler's, no
 * waste of the step; but each step compiles the same, so each makes as many calls. Beside a step
 * (exact, delayed) compiles end whenever they do, and no step has a number of its own. */
TEST(steps_that_compile_on_the_simulator_allocate_alike) {
    struct seen seen = {0};
    const struct kiln_observer observer = {.context = &seen, .on_step = see_step};
    if (!malloc_counted()) {
        SKIP("a sanitizer has its own malloc");
    }
    tiny_run("baked",
             "steps=12 save-every=100 eval-every=100 trace-steps=0 overlap=off device=sim " WIDE,
             &observer);
    const uint64_t each = seen.after[FIRST + 1] - seen.after[FIRST];
    for (uint64_t step = FIRST + 2; step <= LAST; step++) {
        CHECK_EQ(seen.after[step] - seen.after[step - 1], each);
    }
    printf("      %d calls of malloc a step\n", (int)each);
}

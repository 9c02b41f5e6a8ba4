/* SPDX-License-Identifier: MIT
 *
 * The thread pool (src/base/pool.h). Under the thread sanitizer these tests also show that what a
 * task writes is visible to the caller, and what the caller wrote to every task.
 */
#include <time.h>

#include "base/mem.h"
#include "base/pool.h"
#include "kiln_test.h"

#define MOST_TASKS 97

struct sums {
    size_t input[MOST_TASKS]; /* plain memory: the pool alone orders who sees what */
    size_t output[MOST_TASKS];
    size_t threads;
    bool bad_thread[MOST_TASKS];
};

static void add(void *context, size_t task, size_t thread) {
    struct sums *sums = context;
    sums->output[task] += sums->input[task];
    sums->bad_thread[task] |= thread >= sums->threads;
}

static void check_many_jobs(size_t threads, size_t jobs) {
    struct kiln_pool *pool;
    struct kiln_err err;
    CHECK_OK(kiln_pool_create(threads, &pool, &err), &err);
    CHECK_EQ(kiln_pool_threads(pool), threads);
    struct sums sums = {.threads = threads};
    size_t want[MOST_TASKS] = {0};
    for (size_t job = 0; job < jobs; job++) {
        size_t n = job % (MOST_TASKS + 1);
        for (size_t i = 0; i < n; i++) {
            sums.input[i] = job + i;
            want[i] += job + i;
        }
        kiln_pool_run(pool, n, add, &sums);
    }
    CHECK_BYTES(sums.output, want, sizeof want);
    for (size_t i = 0; i < MOST_TASKS; i++) {
        CHECK(!sums.bad_thread[i]);
    }
    kiln_pool_destroy(pool);
}

TEST(every_task_of_every_job_runs_once_on_1_to_8_threads) {
    for (size_t threads = 1; threads <= 8; threads++) {
        check_many_jobs(threads, 2000);
    }
}

static void rest(long microseconds) {
    struct timespec time = {.tv_nsec = microseconds * 1000};
    nanosleep(&time, NULL);
}

TEST(a_job_after_a_pause_wakes_the_workers) {
    struct kiln_pool *pool;
    CHECK_OK(kiln_pool_create(4, &pool, NULL), NULL);
    struct sums sums = {.threads = 4};
    sums.input[0] = sums.input[1] = sums.input[39] = 1;
    for (long job = 0; job < 100; job++) {
        rest(job * 3); /* from less than the workers spin to much more */
        kiln_pool_run(pool, 40, add, &sums);
    }
    CHECK_EQ(sums.output[0], 100);
    CHECK_EQ(sums.output[39], 100);
    CHECK_EQ(sums.output[2], 0);
    kiln_pool_destroy(pool);
}

struct meeting {
    size_t seen[4];
};

static void slow(void *context, size_t task, size_t thread) {
    struct meeting *meeting = context;
    rest(3000);
    meeting->seen[task] = thread + 1;
}

TEST(slow_tasks_run_on_different_threads_and_the_caller_waits) {
    struct kiln_pool *pool;
    CHECK_OK(kiln_pool_create(4, &pool, NULL), NULL);
    int spread = 0;
    for (int job = 0; job < 20; job++) {
        struct meeting meeting = {{0}};
        kiln_pool_run(pool, 4, slow, &meeting);
        for (int i = 0; i < 4; i++) {
            CHECK(meeting.seen[i] != 0);
            spread += meeting.seen[i] != meeting.seen[0];
        }
    }
    CHECK(spread > 0);
    kiln_pool_destroy(pool);
}

TEST(pools_that_never_ran_a_job_end) {
    for (size_t threads = 1; threads <= 16; threads++) {
        struct kiln_pool *pool;
        CHECK_OK(kiln_pool_create(threads, &pool, NULL), NULL);
        kiln_pool_run(pool, 0, add, NULL);
        kiln_pool_destroy(pool);
    }
    kiln_pool_destroy(NULL);
}

TEST(a_job_allocates_nothing) {
    struct kiln_pool *pool;
    CHECK_OK(kiln_pool_create(3, &pool, NULL), NULL);
    struct sums sums = {.threads = 3};
    uint64_t before = kiln_alloc_count();
    for (int job = 0; job < 50; job++) {
        kiln_pool_run(pool, 10, add, &sums);
    }
    CHECK_EQ(kiln_alloc_count(), before);
    kiln_pool_destroy(pool);
}

TEST(a_senseless_number_of_threads_is_refused) {
    struct kiln_pool *pool;
    struct kiln_err err;
    CHECK_FAILS(kiln_pool_create(0, &pool, &err), KILN_EUSAGE, &err);
    CHECK(pool == NULL);
    CHECK_FAILS(kiln_pool_create(1025, &pool, &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "1 to 1024");
}

/* SPDX-License-Identifier: MIT
 *
 * The thread pool (src/base/pool.h). Under the thread sanitizer these tests also show that what a
 * task writes is visible to the caller, and what the caller wrote to every task.
 */
#include <stdatomic.h>
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

/* ---- background jobs ----------------------------------------------------------------------- */

enum { LINKS = 24, LINK_TASKS = 7 };

/* A chain of jobs: each reads all that the one before wrote. */
struct link {
    struct kiln_pool_job job;
    const struct link *before;
    size_t output[LINK_TASKS];
    size_t threads;
    bool bad_thread[LINK_TASKS];
};

static size_t sum_of(const struct link *link) {
    size_t sum = 0;
    for (size_t i = 0; link && i < LINK_TASKS; i++) {
        sum += link->output[i];
    }
    return sum;
}

static void run_link(void *context, size_t task, size_t thread) {
    struct link *link = context;
    link->output[task] = sum_of(link->before) % 1000003 + task + 1;
    link->bad_thread[task] |= thread >= link->threads;
}

static void post_links(struct kiln_pool *pool, struct link *links, size_t threads) {
    for (size_t i = 0; i < LINKS; i++) {
        links[i] = (struct link){
            .job = {.n = i % 5 == 4 ? 0 : LINK_TASKS, .fn = run_link, .context = &links[i]},
            .before = i > 0 ? &links[i - 1] : NULL,
            .threads = threads,
        };
        kiln_pool_post(pool, &links[i].job);
    }
}

static void check_links(const struct link *links) {
    for (size_t i = 0; i < LINKS; i++) {
        for (size_t task = 0; task < LINK_TASKS; task++) {
            size_t before = i > 0 ? sum_of(&links[i - 1]) : 0;
            CHECK_EQ(links[i].output[task], i % 5 == 4 ? 0 : before % 1000003 + task + 1);
            CHECK(!links[i].bad_thread[task]);
        }
    }
}

static void check_background(size_t threads, size_t rounds) {
    struct kiln_pool *pool;
    CHECK_OK(kiln_pool_create(threads, &pool, NULL), NULL);
    struct sums sums = {.threads = threads};
    for (size_t i = 0; i < MOST_TASKS; i++) {
        sums.input[i] = i + 1;
    }
    static struct link links[LINKS];
    size_t runs = 0;
    for (size_t round = 0; round < rounds; round++) {
        post_links(pool, links, threads);
        for (size_t i = 0; i < round % 7; i++, runs++) {
            kiln_pool_run(pool, MOST_TASKS, add, &sums);
        }
        kiln_pool_wait(pool, &links[round % LINKS].job);
        CHECK(!links[round % LINKS].job.posted);
        kiln_pool_finish(pool);
        CHECK(kiln_pool_idle(pool));
        check_links(links);
    }
    for (size_t i = 0; i < MOST_TASKS; i++) {
        CHECK_EQ(sums.output[i], runs * (i + 1));
    }
    kiln_pool_destroy(pool);
}

TEST(background_jobs_run_in_order_beside_jobs_that_are_run) {
    for (size_t threads = 1; threads <= 8; threads++) {
        check_background(threads, 200);
    }
}

TEST(with_one_thread_a_background_job_runs_where_the_owner_waits) {
    struct kiln_pool *pool;
    CHECK_OK(kiln_pool_create(1, &pool, NULL), NULL);
    static struct link links[LINKS];
    CHECK(kiln_pool_idle(pool));
    post_links(pool, links, 1);
    CHECK(!kiln_pool_idle(pool));
    CHECK_EQ(links[0].output[0], 0);
    kiln_pool_wait(pool, &links[2].job);
    CHECK(links[2].output[LINK_TASKS - 1] != 0);
    CHECK_EQ(links[3].output[0], 0);
    CHECK(links[3].job.posted);
    struct kiln_pool_job never = {.n = 3};
    kiln_pool_wait(pool, &never);
    kiln_pool_destroy(pool); /* finishes the others */
    check_links(links);
}

struct order {
    atomic_int background_runs, run_begun, run_ended, after_run;
};

static void await(atomic_int *flag) {
    while (atomic_load(flag) == 0) {
        rest(20);
    }
}

/* Task 0 lasts until a job is run; task 1 says whether that job had its task first. */
static void background_task(void *context, size_t task, size_t thread) {
    struct order *order = context;
    (void)thread;
    if (task == 0) {
        atomic_store(&order->background_runs, 1);
        await(&order->run_begun);
    } else {
        atomic_store(&order->after_run, atomic_load(&order->run_ended) ? 1 : 2);
    }
}

/* Task 0 keeps the caller until somebody else has run task 1. */
static void run_task(void *context, size_t task, size_t thread) {
    struct order *order = context;
    (void)thread;
    if (task == 0) {
        atomic_store(&order->run_begun, 1);
        await(&order->run_ended);
    } else {
        atomic_store(&order->run_ended, 1);
    }
}

TEST(a_job_that_is_run_goes_before_background_tasks) {
    struct kiln_pool *pool;
    CHECK_OK(kiln_pool_create(2, &pool, NULL), NULL);
    for (int i = 0; i < 50; i++) {
        struct order order = {0};
        struct kiln_pool_job job = {.n = 2, .fn = background_task, .context = &order};
        kiln_pool_post(pool, &job);
        await(&order.background_runs);
        kiln_pool_run(pool, 2, run_task, &order);
        kiln_pool_finish(pool);
        CHECK_EQ(order.after_run, 1);
    }
    kiln_pool_destroy(pool);
}

static void hold(void *context, size_t task, size_t thread) {
    (void)task;
    (void)thread;
    await(context);
}

TEST(a_job_that_is_run_does_not_wait_for_background_tasks) {
    struct kiln_pool *pool;
    CHECK_OK(kiln_pool_create(3, &pool, NULL), NULL);
    atomic_int release = 0;
    struct kiln_pool_job job = {.n = 4, .fn = hold, .context = &release};
    kiln_pool_post(pool, &job);
    struct sums sums = {.threads = 3, .input = {1}};
    for (int i = 0; i < 50; i++) {
        kiln_pool_run(pool, 40, add, &sums);
        rest(200); /* the workers are held by now */
    }
    CHECK_EQ(sums.output[0], 50);
    CHECK(!kiln_pool_idle(pool));
    atomic_store(&release, 1);
    kiln_pool_finish(pool);
    CHECK(kiln_pool_idle(pool));
    kiln_pool_destroy(pool);
}

TEST(a_background_job_allocates_nothing) {
    struct kiln_pool *pool;
    CHECK_OK(kiln_pool_create(3, &pool, NULL), NULL);
    static struct link links[LINKS];
    uint64_t before = kiln_alloc_count();
    post_links(pool, links, 3);
    kiln_pool_finish(pool);
    CHECK_EQ(kiln_alloc_count(), before);
    kiln_pool_destroy(pool);
}

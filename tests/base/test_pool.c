/* SPDX-License-Identifier: MIT
 *
 * The thread pool (src/base/pool.h). Under the thread sanitizer these tests also show that what a
 * task writes is visible to the caller, and what the caller wrote to every task.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/mem.h"
#include "base/pool.h"
#include "kiln_test.h"
#include "malloc_count.h"

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
    uint64_t before = malloc_count();
    for (int job = 0; job < 50; job++) {
        kiln_pool_run(pool, 10, add, &sums);
    }
    CHECK_EQ(malloc_count(), before);
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
    uint64_t before = malloc_count();
    post_links(pool, links, 3);
    kiln_pool_finish(pool);
    CHECK_EQ(malloc_count(), before);
    kiln_pool_destroy(pool);
}

/* ---- guests -------------------------------------------------------------------------------- */

/* How many threads are in a task, and the most there ever were. */
struct crowd {
    atomic_int inside, most;
};

static void be_inside(void *context, size_t task, size_t thread) {
    struct crowd *crowd = context;
    (void)task;
    (void)thread;
    const int now = atomic_fetch_add(&crowd->inside, 1) + 1;
    int most = atomic_load(&crowd->most);
    while (now > most && !atomic_compare_exchange_weak(&crowd->most, &most, now)) {
    }
    rest(200);
    atomic_fetch_sub(&crowd->inside, 1);
}

/* A thread that is a guest from `enter` to `leave`. */
struct guest {
    struct kiln_pool *pool;
    pthread_t handle;
    atomic_int inside, leave;
};

static void *guest_main(void *context) {
    struct guest *guest = context;
    CHECK(!kiln_pool_is_owner(guest->pool));
    kiln_pool_guest_enter(guest->pool);
    atomic_store(&guest->inside, 1);
    await(&guest->leave);
    kiln_pool_guest_leave(guest->pool);
    return NULL;
}

static void invite(struct guest *guest, struct kiln_pool *pool) {
    *guest = (struct guest){.pool = pool};
    CHECK(pthread_create(&guest->handle, NULL, guest_main, guest) == 0);
    await(&guest->inside);
}

static void dismiss(struct guest *guest) {
    atomic_store(&guest->leave, 1);
    pthread_join(guest->handle, NULL);
}

static void crowded_job(struct kiln_pool *pool, bool background, struct crowd *crowd) {
    struct kiln_pool_job job = {.n = 12, .fn = be_inside, .context = crowd};
    if (background) {
        kiln_pool_post(pool, &job);
        kiln_pool_finish(pool);
    } else {
        kiln_pool_run(pool, 12, be_inside, crowd);
    }
}

/* So many threads are in tasks at once, and no more. A busy machine may take a while to show them;
 * the first job lets workers go to rest that were awake when the guest came. */
static void check_most(struct kiln_pool *pool, bool background, int want) {
    struct crowd first = {0}, crowd = {0};
    crowded_job(pool, background, &first);
    for (int i = 0; i < 5 || (i < 200 && atomic_load(&crowd.most) < want); i++) {
        crowded_job(pool, background, &crowd);
    }
    CHECK_EQ(atomic_load(&crowd.most), want);
}

TEST(a_guest_takes_the_place_of_a_worker) {
    struct kiln_pool *pool;
    struct guest first, second;
    CHECK_OK(kiln_pool_create(4, &pool, NULL), NULL);
    CHECK(kiln_pool_is_owner(pool));
    for (int background = 0; background < 2; background++) {
        check_most(pool, background, 4);
        invite(&first, pool);
        check_most(pool, background, 3);
        invite(&second, pool);
        check_most(pool, background, 2);
        dismiss(&first);
        check_most(pool, background, 3);
        dismiss(&second);
        check_most(pool, background, 4);
    }
    kiln_pool_destroy(pool);
}

TEST(guests_beyond_the_workers_are_threads_more) {
    for (size_t threads = 1; threads <= 2; threads++) {
        struct kiln_pool *pool;
        struct guest guests[3];
        CHECK_OK(kiln_pool_create(threads, &pool, NULL), NULL);
        for (size_t i = 0; i < 3; i++) {
            invite(&guests[i], pool);
        }
        check_most(pool, false, 1); /* the caller is there always */
        check_most(pool, true, 1);
        for (size_t i = 0; i < 3; i++) {
            dismiss(&guests[i]);
        }
        check_most(pool, false, (int)threads);
        kiln_pool_destroy(pool);
    }
}

TEST(the_owner_is_no_guest) {
    struct kiln_pool *pool;
    CHECK_OK(kiln_pool_create(2, &pool, NULL), NULL);
    kiln_pool_guest_enter(pool);
    check_most(pool, false, 2);
    kiln_pool_guest_leave(pool);
    check_most(pool, false, 2);
    kiln_pool_destroy(pool);
}

struct visits {
    struct kiln_pool *pool;
    atomic_int stop;
    atomic_size_t n;
};

static void *visit(void *context) {
    struct visits *visits = context;
    for (; !atomic_load(&visits->stop); atomic_fetch_add(&visits->n, 1)) {
        const size_t n = atomic_load(&visits->n);
        kiln_pool_guest_enter(visits->pool);
        rest((long)(n % 3) * 20);
        kiln_pool_guest_leave(visits->pool);
        rest((long)(n % 4) * 20);
    }
    return NULL;
}

/* Whenever a guest comes and goes: every task once, nobody waits for ever. */
TEST(jobs_are_done_whole_while_guests_come_and_go) {
    for (size_t threads = 1; threads <= 5; threads += 2) {
        struct kiln_pool *pool;
        struct visits visits[2];
        pthread_t handles[2];
        static struct link links[LINKS];
        CHECK_OK(kiln_pool_create(threads, &pool, NULL), NULL);
        for (size_t i = 0; i < 2; i++) {
            visits[i] = (struct visits){.pool = pool};
            CHECK(pthread_create(&handles[i], NULL, visit, &visits[i]) == 0);
        }
        while (atomic_load(&visits[0].n) == 0 || atomic_load(&visits[1].n) == 0) {
            rest(20); /* both are on their way */
        }
        struct sums sums = {.threads = threads};
        sums.input[0] = sums.input[39] = 1;
        for (size_t round = 0; round < 300; round++) {
            post_links(pool, links, threads);
            for (size_t i = 0; i < 3; i++) {
                kiln_pool_run(pool, 40, add, &sums);
            }
            kiln_pool_wait(pool, &links[round % LINKS].job);
            kiln_pool_finish(pool);
            check_links(links);
        }
        CHECK_EQ(sums.output[0], 900);
        CHECK_EQ(sums.output[39], 900);
        for (size_t i = 0; i < 2; i++) {
            atomic_store(&visits[i].stop, 1);
            pthread_join(handles[i], NULL);
        }
        kiln_pool_destroy(pool);
    }
}

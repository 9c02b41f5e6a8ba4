/* SPDX-License-Identifier: MIT
 *
 * test_compiler.c: jobs beside the owner and in its stead: order, gates, failures, what is dropped.
 */
#include "train/compiler.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "base/machine.h"
#include "kiln_test.h"

enum { ROOM = 40, LIST = 1000 };

/* A device that writes down what it is asked to compile. */
struct fake {
    struct kiln_device base;
    pthread_mutex_t lock;
    pthread_cond_t news;
    size_t n, kind[LIST], layer[LIST], set[LIST]; /* KILN_KINDS: prepare */
    pthread_t thread[LIST];
    size_t fails;        /* layer whose compile fails, from 1; 0: none */
    bool held, held_now; /* a compile waits until it is let go; one does */
    double takes_s;
};

static enum kiln_status took(struct kiln_device *device, size_t set, size_t kind, size_t layer,
                             struct kiln_err *err) {
    struct fake *f = (struct fake *)device;
    const double end = kiln_now_s() + f->takes_s;
    while (f->takes_s > 0 && kiln_now_s() < end) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    pthread_mutex_lock(&f->lock);
    CHECK(f->n < LIST);
    f->kind[f->n] = kind;
    f->layer[f->n] = layer;
    f->set[f->n] = set;
    f->thread[f->n++] = pthread_self();
    while (f->held) {
        f->held_now = true;
        pthread_cond_broadcast(&f->news);
        pthread_cond_wait(&f->news, &f->lock);
    }
    f->held_now = false;
    const bool fails = f->fails > 0 && layer + 1 == f->fails;
    pthread_mutex_unlock(&f->lock);
    KILN_REQUIRE(!fails, err, KILN_EIO, "layer %zu is refused", layer);
    device->counts.compiles += kind != KILN_KINDS;
    return KILN_OK;
}

static enum kiln_status fake_compile(struct kiln_device *device, size_t set, size_t kind,
                                     size_t layer, const struct kiln_weights *weights,
                                     struct kiln_err *err) {
    (void)weights;
    return took(device, set, kind, layer, err);
}

static enum kiln_status fake_prepare(struct kiln_device *device, size_t set,
                                     const struct kiln_weights *weights, struct kiln_err *err) {
    (void)weights;
    return took(device, set, KILN_KINDS, 0, err);
}

static const struct kiln_device_ops fake_ops = {.compile = fake_compile, .prepare = fake_prepare};

static void fake_open(struct fake *f) {
    *f = (struct fake){.base = {.ops = &fake_ops}};
    for (size_t i = 0; i < KILN_KINDS; i++) {
        f->base.caps.kinds[i] = (struct kiln_kernel_kind){.name = "kernel", .compiles = 1};
    }
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->news, NULL);
}

static void fake_close(struct fake *f) {
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->news);
}

/* Compiles stop in their middle, or go on. */
static void hold(struct fake *f, bool held) {
    pthread_mutex_lock(&f->lock);
    f->held = held;
    pthread_cond_broadcast(&f->news);
    pthread_mutex_unlock(&f->lock);
}

static void until_held(struct fake *f) {
    pthread_mutex_lock(&f->lock);
    while (!f->held_now) {
        pthread_cond_wait(&f->news, &f->lock);
    }
    pthread_mutex_unlock(&f->lock);
}

static size_t asked(struct fake *f) {
    pthread_mutex_lock(&f->lock);
    const size_t n = f->n;
    pthread_mutex_unlock(&f->lock);
    return n;
}

/* Time for a thread to do what it must not. */
static void while_nothing_happens(void) { nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL); }

static uint64_t give(struct kiln_compiler *c, size_t layer, size_t gate) {
    const struct kiln_compile_job job = {.kind = layer % 3, .layer = layer, .gate = gate};
    struct kiln_err err;
    uint64_t ticket;
    CHECK_OK(kiln_compiler_add(c, &job, &ticket, &err), &err);
    return ticket;
}

static struct kiln_compiler *create(struct fake *f, struct kiln_spans *spans, bool beside) {
    struct kiln_compiler *c;
    struct kiln_err err;
    CHECK_OK(kiln_compiler_create(&f->base, spans, beside, ROOM, &c, &err), &err);
    return c;
}

/* ---- order ------------------------------------------------------------------------------------
 */

static void note_layer(void *context, size_t layer) {
    atomic_size_t *sum = context;
    *sum += layer;
}

TEST(jobs_are_compiled_in_the_order_they_were_given) {
    struct fake f;
    struct kiln_err err;
    fake_open(&f);
    for (int beside = 0; beside < 2; beside++) {
        struct kiln_compiler *c = create(&f, NULL, beside);
        uint64_t last = 0;
        f.n = 0;
        for (size_t i = 0; i < 10 * ROOM; i++) { /* the ring goes round */
            const uint64_t ticket = give(c, i, 0);
            CHECK(!beside || ticket == last + 1);
            last = ticket;
            if (i % 7 == 0) {
                CHECK_OK(kiln_compiler_wait(c, ticket, &err), &err);
                CHECK_EQ(asked(&f), i + 1);
            }
            if (i % ROOM == ROOM - 1) {
                CHECK_OK(kiln_compiler_finish(c, &err), &err);
            }
        }
        CHECK_EQ(f.n, 10 * ROOM);
        for (size_t i = 0; i < f.n; i++) {
            CHECK_EQ(f.layer[i], i);
            CHECK_EQ(f.kind[i], i % 3);
            CHECK((pthread_equal(f.thread[i], pthread_self()) == 0) == (beside == 1));
        }
        CHECK_EQ(kiln_compiler_take_count(c, true), 10 * ROOM);
        CHECK_EQ(kiln_compiler_take_count(c, true), 0);
        kiln_compiler_destroy(c);
    }
    fake_close(&f);
}

TEST(who_asked_is_told_behind_a_job) {
    struct fake f;
    struct kiln_err err;
    fake_open(&f);
    for (int beside = 0; beside < 2; beside++) {
        struct kiln_compiler *c = create(&f, NULL, beside);
        atomic_size_t sum = 0;
        for (size_t i = 0; i < 5; i++) {
            const struct kiln_compile_job job = {
                .layer = i, .set = 1, .prepare = i == 4, .done = note_layer, .context = &sum};
            uint64_t ticket;
            CHECK_OK(kiln_compiler_add(c, &job, &ticket, &err), &err);
        }
        CHECK_OK(kiln_compiler_finish(c, &err), &err);
        CHECK_EQ(sum, 10);
        CHECK_EQ(f.kind[f.n - 1], KILN_KINDS);
        CHECK_EQ(f.set[f.n - 1], 1);
        CHECK_EQ(kiln_compiler_take_count(c, false), 4); /* what the host keeps is no kernel */
        kiln_compiler_destroy(c);
    }
    fake_close(&f);
}

/* A wait for an early ticket returns while later jobs are still to come. */
TEST(a_wait_goes_as_far_as_its_ticket) {
    struct fake f;
    struct kiln_err err;
    fake_open(&f);
    struct kiln_compiler *c = create(&f, NULL, true);
    const uint64_t first = give(c, 0, 0);
    const uint64_t second = give(c, 1, 1);
    CHECK_OK(kiln_compiler_wait(c, 0, &err), &err);
    CHECK_OK(kiln_compiler_wait(c, first, &err), &err);
    CHECK_EQ(asked(&f), 1);
    kiln_compiler_gate(c, 1);
    CHECK_OK(kiln_compiler_wait(c, second, &err), &err);
    CHECK_OK(kiln_compiler_wait(c, first, &err), &err);
    kiln_compiler_destroy(c);
    fake_close(&f);
}

TEST(more_jobs_than_there_is_room_for_are_refused) {
    struct fake f;
    struct kiln_err err;
    uint64_t ticket = 77;
    const struct kiln_compile_job job = {.gate = 1};
    fake_open(&f);
    struct kiln_compiler *c = create(&f, NULL, true);
    for (size_t i = 0; i < ROOM; i++) {
        give(c, i, 1);
    }
    CHECK_FAILS(kiln_compiler_add(c, &job, &ticket, &err), KILN_EINTERNAL, &err);
    CHECK_EQ(ticket, 77);
    kiln_compiler_gate(c, 1);
    CHECK_OK(kiln_compiler_finish(c, &err), &err);
    CHECK_EQ(f.n, ROOM);
    give(c, 0, 0);
    CHECK_OK(kiln_compiler_finish(c, &err), &err);
    kiln_compiler_destroy(c);
    fake_close(&f);
}

/* ---- gates ------------------------------------------------------------------------------------
 */

TEST(a_gate_lets_jobs_go_one_by_one) {
    struct fake f;
    struct kiln_err err;
    uint64_t tickets[5];
    fake_open(&f);
    struct kiln_compiler *c = create(&f, NULL, true);
    for (int round = 0; round < 3; round++) { /* behind all jobs the gate is closed again */
        f.n = 0;
        for (size_t i = 0; i < 5; i++) {
            tickets[i] = give(c, i, i + 1);
        }
        while_nothing_happens();
        CHECK_EQ(asked(&f), 0);
        for (size_t i = 0; i < 5; i++) {
            kiln_compiler_gate(c, i + 1);
            kiln_compiler_gate(c, i); /* it only rises */
            CHECK_OK(kiln_compiler_wait(c, tickets[i], &err), &err);
            CHECK_EQ(asked(&f), i + 1);
        }
        kiln_compiler_gate(c, 9); /* nobody waits: forgotten */
        CHECK_EQ(kiln_compiler_take_count(c, false), 0);
        CHECK_EQ(kiln_compiler_take_count(c, true), 5);
    }
    kiln_compiler_destroy(c);
    fake_close(&f);
}

/* Jobs keep their order: one without a gate waits behind one with. */
TEST(a_job_behind_a_gate_waits_with_it) {
    struct fake f;
    struct kiln_err err;
    fake_open(&f);
    struct kiln_compiler *c = create(&f, NULL, true);
    const uint64_t first = give(c, 0, 0);
    give(c, 1, 3);
    const uint64_t last = give(c, 2, 0);
    CHECK_OK(kiln_compiler_wait(c, first, &err), &err);
    kiln_compiler_gate(c, 2);
    while_nothing_happens();
    CHECK_EQ(asked(&f), 1);
    kiln_compiler_gate(c, 4);
    CHECK_OK(kiln_compiler_wait(c, last, &err), &err);
    CHECK_EQ(f.n, 3);
    CHECK_EQ(f.layer[1], 1);
    CHECK_EQ(kiln_compiler_take_count(c, false), 2);
    CHECK_EQ(kiln_compiler_take_count(c, false), 0);
    CHECK_EQ(kiln_compiler_take_count(c, true), 1);
    kiln_compiler_destroy(c);
    fake_close(&f);
}

/* ---- failures ---------------------------------------------------------------------------------
 */

TEST(a_failure_goes_to_whoever_waits_for_it_or_for_what_is_behind) {
    struct fake f;
    struct kiln_err err;
    uint64_t tickets[6];
    fake_open(&f);
    struct kiln_compiler *c = create(&f, NULL, true);
    for (int round = 0; round < 2; round++) {
        f.fails = 3; /* layer 2 */
        f.n = 0;
        for (size_t i = 0; i < 6; i++) {
            tickets[i] = give(c, i, i == 5 ? 1 : 0);
        }
        CHECK_OK(kiln_compiler_wait(c, tickets[1], &err), &err);
        for (size_t i = 2; i < 6; i++) {
            CHECK_FAILS(kiln_compiler_wait(c, tickets[i], &err), KILN_EIO, &err);
            CHECK_CONTAINS(err.message, "layer 2 is refused");
        }
        CHECK_FAILS(kiln_compiler_finish(c, &err), KILN_EIO, &err);
        CHECK_EQ(kiln_compiler_wait(c, tickets[5], NULL), KILN_EIO);
        CHECK_OK(kiln_compiler_wait(c, tickets[0], &err), &err);
        kiln_compiler_gate(c, 1);
        while_nothing_happens();
        CHECK_EQ(asked(&f), 3); /* nothing more is compiled */
        CHECK_EQ(kiln_compiler_take_count(c, true), 2);
        kiln_compiler_drop(c);
        CHECK_OK(kiln_compiler_finish(c, &err), &err);
        f.fails = 0;
        give(c, 7, 0);
        CHECK_OK(kiln_compiler_finish(c, &err), &err); /* as if nothing had been */
        CHECK_EQ(f.n, 4);
        CHECK_EQ(kiln_compiler_take_count(c, true), 1);
    }
    kiln_compiler_destroy(c);
    fake_close(&f);
}

TEST(without_a_thread_a_job_fails_where_it_is_given) {
    struct fake f;
    struct kiln_err err;
    uint64_t ticket;
    const struct kiln_compile_job job = {.layer = 2}, other = {.layer = 3};
    fake_open(&f);
    struct kiln_compiler *c = create(&f, NULL, false);
    f.fails = 3;
    CHECK_FAILS(kiln_compiler_add(c, &job, &ticket, &err), KILN_EIO, &err);
    CHECK_OK(kiln_compiler_finish(c, &err), &err);
    kiln_compiler_gate(c, 5);
    kiln_compiler_drop(c);
    CHECK_OK(kiln_compiler_add(c, &other, &ticket, &err), &err);
    CHECK_OK(kiln_compiler_wait(c, ticket, &err), &err);
    CHECK_EQ(kiln_compiler_take_count(c, true), 1);
    kiln_compiler_destroy(c);
    fake_close(&f);
}

/* ---- what is dropped --------------------------------------------------------------------------
 */

struct helper {
    struct fake *fake;
    struct kiln_compiler *compiler;
    atomic_bool dropped;
};

static void *drop(void *context) {
    struct helper *h = context;
    kiln_compiler_drop(h->compiler);
    h->dropped = true;
    return NULL;
}

/* The job under way ends, and whoever drops waits for it; others never begin. */
static void drop_while_busy(bool fails) {
    struct fake f;
    struct kiln_err err;
    pthread_t thread;
    fake_open(&f);
    struct kiln_compiler *c = create(&f, NULL, true);
    struct helper h = {.fake = &f, .compiler = c};
    hold(&f, true);
    f.fails = fails ? 1 : 0;
    give(c, 0, 0);
    give(c, 1, 0);
    const uint64_t gated = give(c, 2, 1);
    until_held(&f);
    CHECK(pthread_create(&thread, NULL, drop, &h) == 0);
    while_nothing_happens();
    CHECK(!h.dropped);
    hold(&f, false);
    CHECK(pthread_join(thread, NULL) == 0);
    while_nothing_happens();
    CHECK_EQ(asked(&f), 1);
    CHECK_OK(kiln_compiler_finish(c, &err), &err);
    f.fails = 0;
    hold(&f, false);
    const uint64_t ticket = give(c, 5, 1); /* the gate is closed again */
    CHECK(ticket <= gated);
    while_nothing_happens();
    CHECK_EQ(asked(&f), 1);
    kiln_compiler_gate(c, 1);
    CHECK_OK(kiln_compiler_finish(c, &err), &err);
    CHECK_EQ(f.layer[f.n - 1], 5);
    kiln_compiler_destroy(c);
    fake_close(&f);
}

TEST(what_is_dropped_is_never_compiled) { drop_while_busy(false); }
TEST(a_failure_of_the_job_that_a_drop_waits_for_is_forgotten) { drop_while_busy(true); }

TEST(a_drop_without_jobs_is_fine) {
    struct fake f;
    struct kiln_err err;
    fake_open(&f);
    for (int beside = 0; beside < 2; beside++) {
        struct kiln_compiler *c = create(&f, NULL, beside);
        kiln_compiler_drop(c);
        give(c, 1, 0);
        CHECK_OK(kiln_compiler_finish(c, &err), &err);
        kiln_compiler_drop(c);
        kiln_compiler_drop(c);
        CHECK_OK(kiln_compiler_finish(c, &err), &err);
        kiln_compiler_destroy(c);
    }
    CHECK_EQ(f.n, 2);
    fake_close(&f);
}

static void *let_go(void *context) {
    struct helper *h = context;
    while_nothing_happens();
    hold(h->fake, false);
    return NULL;
}

/* Jobs that never begin, gates that nobody opens, a failure that nobody heard of: it ends, behind
 * the job that is under way. */
TEST(a_compiler_ends_whatever_waits) {
    struct fake f;
    pthread_t thread;
    fake_open(&f);
    for (int how = 0; how < 4; how++) {
        struct kiln_compiler *c = create(&f, NULL, true);
        struct helper h = {.fake = &f};
        f.n = 0;
        f.fails = how == 2 ? 1 : 0;
        hold(&f, how == 1);
        for (size_t i = 0; i < 4; i++) {
            give(c, i, how == 3 ? 0 : i + (how == 0));
        }
        if (how == 1) {
            until_held(&f);
            CHECK(pthread_create(&thread, NULL, let_go, &h) == 0);
        }
        kiln_compiler_destroy(c);
        if (how == 1) {
            CHECK(pthread_join(thread, NULL) == 0);
            CHECK_EQ(f.n, 1);
        }
        CHECK(how != 0 || f.n == 0);
        CHECK(how != 2 || f.n <= 1);
    }
    kiln_compiler_destroy(NULL);
    fake_close(&f);
}

/* ---- spans ------------------------------------------------------------------------------------
 */

static size_t spans_of(const struct kiln_spans_taken *taken, enum kiln_span_kind kind) {
    size_t n = 0;
    for (size_t i = 0; i < taken->n; i++) {
        n += taken->list[i].kind == kind;
        CHECK(taken->list[i].end >= taken->list[i].start);
    }
    return n;
}

TEST(spans_tell_of_compiles_and_of_waiting) {
    struct fake f;
    struct kiln_spans *spans;
    struct kiln_spans_taken taken;
    struct kiln_err err;
    fake_open(&f);
    f.takes_s = 0.01;
    CHECK_OK(kiln_spans_create(&spans, &err), &err);
    for (int beside = 0; beside < 2; beside++) {
        struct kiln_compiler *c = create(&f, spans, beside);
        for (size_t i = 0; i < 4; i++) {
            const struct kiln_compile_job job = {.layer = i, .generation = 17, .prepare = i == 3};
            uint64_t ticket;
            CHECK_OK(kiln_compiler_add(c, &job, &ticket, &err), &err);
        }
        CHECK_OK(kiln_compiler_finish(c, &err), &err);
        CHECK_OK(kiln_compiler_finish(c, &err), &err); /* that one does not wait */
        kiln_spans_take(spans, &taken);
        CHECK_EQ(spans_of(&taken, KILN_SPAN_COMPILE), 4);
        CHECK_EQ(spans_of(&taken, KILN_SPAN_STALL), beside ? 1 : 4);
        CHECK(taken.sums[KILN_SPAN_COMPILE] >= 0.04);
        CHECK(taken.sums[KILN_SPAN_STALL] > 0);
        for (size_t i = 0, seen = 0; i < taken.n; i++) {
            const struct kiln_span *s = &taken.list[i];
            if (s->kind == KILN_SPAN_COMPILE) {
                CHECK_EQ(s->generation, 17);
                CHECK_EQ(s->layer, seen == 3 ? -1 : (int)seen);
                CHECK_STRING(s->name, seen == 3 ? "head" : "kernel");
                seen++;
            }
        }
        kiln_compiler_destroy(c);
    }
    kiln_spans_destroy(spans);
    fake_close(&f);
}

/* SPDX-License-Identifier: MIT
 *
 * Spans: sums and lists of what was added, once each, whoever adds.
 */
#include "base/spans.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kiln_test.h"
#include "malloc_count.h"

static struct kiln_span span(enum kiln_span_kind kind, double start, double end) {
    return (struct kiln_span){start, end, kind, 0, NULL, -1, -1, -1};
}

static struct kiln_spans *make(void) {
    struct kiln_spans *s;
    struct kiln_err err;
    CHECK_OK(kiln_spans_create(&s, &err), &err);
    return s;
}

TEST(every_kind_of_span_has_a_name_of_its_own_and_a_track) {
    for (int a = 0; a < KILN_SPAN_KINDS; a++) {
        const char *name = kiln_span_kind_name((enum kiln_span_kind)a);
        CHECK(name != NULL && name[0] != '\0');
        CHECK((int)kiln_span_track((enum kiln_span_kind)a) < KILN_TRACKS);
        for (int b = 0; b < a; b++) {
            CHECK(strcmp(name, kiln_span_kind_name((enum kiln_span_kind)b)) != 0);
        }
    }
    for (int t = 0; t < KILN_TRACKS; t++) {
        int kinds = 0;
        for (int k = 0; k < KILN_SPAN_KINDS; k++) {
            kinds += (int)kiln_span_track((enum kiln_span_kind)k) == t;
        }
        CHECK(kinds > 0);
        CHECK(kiln_track_name((enum kiln_track)t)[0] != '\0');
    }
}

TEST(what_is_taken_is_told_once) {
    struct kiln_spans *s = make();
    struct kiln_spans_taken taken;
    const struct kiln_span a = span(KILN_SPAN_COMPILE, 1.0, 1.5), b = span(KILN_SPAN_UPDATE, 2, 3);
    kiln_spans_add(s, &a);
    kiln_spans_add(s, &b);
    kiln_spans_add(s, &a);
    CHECK_CLOSE(kiln_spans_sum(s, KILN_SPAN_COMPILE), 1.0, 0);
    kiln_spans_take(s, &taken);
    CHECK_EQ(taken.n, 3);
    CHECK_CLOSE(taken.sums[KILN_SPAN_COMPILE], 1.0, 0);
    CHECK_CLOSE(taken.sums[KILN_SPAN_UPDATE], 1.0, 0);
    CHECK_CLOSE(taken.sums[KILN_SPAN_STALL], 0.0, 0);
    CHECK_EQ(taken.list[1].kind, KILN_SPAN_UPDATE);
    CHECK_CLOSE(taken.list[2].end, 1.5, 0);
    CHECK_CLOSE(kiln_spans_sum(s, KILN_SPAN_COMPILE), 0.0, 0);
    kiln_spans_add(s, &b);
    CHECK_CLOSE(taken.list[0].start, 1.0, 0); /* valid until the next time */
    kiln_spans_take(s, &taken);
    CHECK_EQ(taken.n, 1);
    CHECK_CLOSE(taken.sums[KILN_SPAN_COMPILE], 0.0, 0);
    CHECK_CLOSE(taken.sums[KILN_SPAN_UPDATE], 1.0, 0);
    kiln_spans_take(s, &taken);
    CHECK_EQ(taken.n, 0);
    kiln_spans_destroy(s);
}

TEST(pieces_are_added_only_where_they_are_asked_for) {
    struct kiln_spans *s = make();
    struct kiln_spans_taken taken;
    double since = 1.0;
    kiln_spans_piece(NULL, "ffn_bwd.dw", &since);
    kiln_spans_piece(s, "ffn_bwd.dw", &since);
    CHECK_CLOSE(since, 1.0, 0);
    kiln_spans_take(s, &taken);
    CHECK_EQ(taken.n, 0);
    kiln_spans_pieces(s, true);
    kiln_spans_piece(s, "ffn_bwd.dw", &since);
    const double first = since;
    kiln_spans_piece(s, "ffn_bwd.dx", &since);
    kiln_spans_take(s, &taken);
    CHECK_EQ(taken.n, 2);
    CHECK_EQ(taken.list[0].kind, KILN_SPAN_PIECE);
    CHECK_STRING(taken.list[1].name, "ffn_bwd.dx");
    CHECK_CLOSE(taken.list[0].start, 1.0, 0);
    CHECK_CLOSE(taken.list[0].end, first, 0);
    CHECK_CLOSE(taken.list[1].start, first, 0); /* one begins where the other ends */
    CHECK(taken.list[1].end == since && since >= first);
    kiln_spans_destroy(s);
}

TEST(spans_know_where_the_owner_stands) {
    struct kiln_spans *s = make();
    struct kiln_spans_taken taken;
    struct kiln_span evaluate = span(KILN_SPAN_EVALUATE, 0, 1), own = evaluate;
    const struct kiln_span compile = span(KILN_SPAN_COMPILE, 0, 1);
    own.generation = 3;
    own.micro_batch = 5;
    kiln_spans_add(s, &evaluate);
    kiln_spans_at(s, 7, 2);
    kiln_spans_add(s, &evaluate);
    kiln_spans_add(s, &own);
    kiln_spans_add(s, &compile);
    kiln_spans_take(s, &taken);
    CHECK_EQ(taken.list[0].generation, -1);
    CHECK_EQ(taken.list[0].micro_batch, -1);
    CHECK_EQ(taken.list[1].generation, 7);
    CHECK_EQ(taken.list[1].micro_batch, 2);
    CHECK_EQ(taken.list[2].generation, 3);
    CHECK_EQ(taken.list[2].micro_batch, 5);
    CHECK_EQ(taken.list[3].generation, 7);
    CHECK_EQ(taken.list[3].micro_batch, -1); /* no work on a micro-batch */
    kiln_spans_destroy(s);
}

TEST(sums_go_on_where_spans_are_not_kept) {
    struct kiln_spans *s = make();
    struct kiln_spans_taken taken;
    const struct kiln_span a = span(KILN_SPAN_STALL, 0, 2);
    const uint64_t before = malloc_count();
    kiln_spans_keep(s, false);
    for (int i = 0; i < 5000; i++) {
        kiln_spans_add(s, &a);
    }
    kiln_spans_take(s, &taken);
    CHECK_EQ(taken.n, 0);
    CHECK_CLOSE(taken.sums[KILN_SPAN_STALL], 10000, 0);
    CHECK_EQ(malloc_count(), before);
    kiln_spans_keep(s, true);
    for (int i = 0; i < 5000; i++) {
        kiln_spans_add(s, &a);
    }
    kiln_spans_take(s, &taken);
    CHECK_EQ(taken.n, 5000);
    kiln_spans_destroy(s);
}

TEST(nobody_to_tell_is_fine) {
    struct kiln_spans_taken taken;
    const struct kiln_span a = span(KILN_SPAN_STALL, 0, 2);
    kiln_spans_add(NULL, &a);
    kiln_spans_at(NULL, 0, 0);
    kiln_spans_keep(NULL, true);
    kiln_spans_take(NULL, &taken);
    CHECK_EQ(taken.n, 0);
    CHECK_CLOSE(taken.sums[KILN_SPAN_STALL], 0, 0);
    CHECK_CLOSE(kiln_spans_sum(NULL, KILN_SPAN_STALL), 0, 0);
    kiln_spans_destroy(NULL);
}

/* ---- many threads ---------------------------------------------------------------------------- */

enum { THREADS = 4, EACH = 20000 };

struct adder {
    struct kiln_spans *spans;
    atomic_int *left;
    uint32_t thread;
};

static void *add_many(void *context) {
    const struct adder *a = context;
    for (int i = 0; i < EACH; i++) {
        struct kiln_span one = span(KILN_SPAN_DW, i, i + 1);
        one.thread = a->thread;
        kiln_spans_add(a->spans, &one);
    }
    atomic_fetch_sub(a->left, 1);
    return NULL;
}

/* Each thread's spans come in their order, none is missing, none is there twice, and the sums of a
 * taking are those of its list. */
TEST(spans_of_many_threads_are_each_in_one_taking) {
    struct kiln_spans *s = make();
    pthread_t threads[THREADS];
    struct adder adders[THREADS];
    atomic_int left = THREADS;
    int seen[THREADS] = {0}, takings = 0;
    for (uint32_t i = 0; i < THREADS; i++) {
        adders[i] = (struct adder){s, &left, i};
        CHECK_EQ(pthread_create(&threads[i], NULL, add_many, &adders[i]), 0);
    }
    for (bool last = false; !last; takings++) {
        struct kiln_spans_taken taken;
        last = atomic_load(&left) == 0;
        kiln_spans_take(s, &taken);
        CHECK_CLOSE(taken.sums[KILN_SPAN_DW], taken.n, 0);
        for (size_t i = 0; i < taken.n; i++) {
            const struct kiln_span *one = &taken.list[i];
            CHECK(one->start == seen[one->thread]);
            seen[one->thread]++;
        }
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(seen[i], EACH);
    }
    printf("      %d takings\n", takings);
    kiln_spans_destroy(s);
}

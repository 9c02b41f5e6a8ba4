/* SPDX-License-Identifier: MIT
 *
 * Weight gradients in the background (src/device/host/dw.h): against sums in double, the same bits
 * whatever the threads and the timing. Under the thread sanitizer these tests also show that what
 * the caller filled is seen by the tasks, and what they wrote by the caller.
 */
#include "device/host/dw.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/lab.h"
#include "malloc_count.h"

/* One product: dy [B][rows][W], x channels of a wider block, dw between guards. */
struct work {
    struct kiln_dw_shape shape;
    size_t width, rows, cols, first_channel, channels;
    uint16_t *dy, *taps;
    float *start, *dw; /* dw before, and computed */
};

static const uint16_t half_nan = 0x7e00, half_inf = 0x7c00;

/* fp16 [n][W]; what lies behind the tokens is NaN. */
static uint16_t *halves(const struct kiln_kernels *k, size_t n, size_t seq, size_t width) {
    uint16_t *out = lab_memory(n * width, sizeof *out, 0);
    for (size_t i = 0; i < n * width; i++) {
        float value = lab_normal();
        k->half_of(&out[i], &value, 1);
        out[i] = i % width < seq ? out[i] : half_nan;
    }
    return out;
}

static double value_of(const struct kiln_kernels *k, uint16_t half) {
    float value;
    k->half_to(&value, &half, 1);
    return (double)value;
}

static struct work make_work(size_t batch, size_t seq, size_t rows, size_t cols) {
    struct kiln_kernels k;
    CHECK_OK(kiln_kernels_choose(KILN_PRECISION_FP32, &k, NULL), NULL);
    struct work w = {
        .shape = {.batch = batch, .seq = seq, .slots = 2, .rows = rows, .cols = cols},
        .width = kiln_round_up(seq, 16),
        .rows = rows,
        .cols = cols,
        .first_channel = 3,
        .channels = cols + 5,
    };
    w.dy = halves(&k, batch * rows, seq, w.width);
    w.taps = halves(&k, batch * w.channels, seq, w.width);
    w.start = lab_floats(rows * cols, 0, 1.0F);
    w.dw = lab_memory(rows * cols, sizeof *w.dw, 1);
    return w;
}

static void post(struct kiln_dw *dw, const struct work *w, float *out, bool add) {
    struct kiln_dw_slot *slot = kiln_dw_slot(dw);
    memcpy(slot->dy, w->dy, w->shape.batch * w->rows * w->width * sizeof *w->dy);
    kiln_dw_post(dw, slot,
                 &(struct kiln_dw_product){
                     .dw = out,
                     .rows = w->rows,
                     .cols = w->cols,
                     .x = w->taps + w->first_channel * w->width,
                     .x_sequence = w->channels * w->width,
                     .add = add,
                 });
}

static void check_sums(const struct work *w, bool add) {
    struct kiln_kernels k;
    CHECK_OK(kiln_kernels_choose(KILN_PRECISION_FP32, &k, NULL), NULL);
    for (size_t r = 0; r < w->rows; r++) {
        for (size_t c = 0; c < w->cols; c++) {
            double want = add ? (double)w->start[r * w->cols + c] : 0.0, size = fabs(want);
            for (size_t b = 0; b < w->shape.batch; b++) {
                const uint16_t *dy = w->dy + (b * w->rows + r) * w->width;
                const uint16_t *x = w->taps + (b * w->channels + w->first_channel + c) * w->width;
                for (size_t t = 0; t < w->shape.seq; t++) {
                    double term = value_of(&k, dy[t]) * value_of(&k, x[t]);
                    want += term;
                    size += fabs(term);
                }
            }
            size_t terms = w->shape.batch * (w->shape.seq + 1);
            CHECK_CLOSE(w->dw[r * w->cols + c], want, size * (double)terms * U);
        }
    }
}

static const size_t shapes[][4] = {
    /* B, T, rows, cols */
    {1, 1, 1, 1},     {2, 20, 130, 70},  {3, 33, 5, 300},
    {1, 64, 257, 64}, {2, 100, 64, 257}, {4, 16, 128, 256},
};

TEST(weight_gradients_are_the_sums_over_tokens) {
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (int add = 0; add < 2; add++) {
            struct work w = make_work(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
            struct kiln_pool *pool;
            struct kiln_dw *dw;
            CHECK_OK(kiln_pool_create(2, &pool, NULL), NULL);
            CHECK_OK(kiln_dw_open(&w.shape, pool, NULL, &dw, NULL), NULL);
            if (add) {
                memcpy(w.dw, w.start, w.rows * w.cols * sizeof *w.dw);
            } /* otherwise it holds NaN */
            post(dw, &w, w.dw, add);
            CHECK_OK(kiln_dw_drain(dw, NULL), NULL);
            check_sums(&w, add);
            kiln_dw_close(dw);
            kiln_pool_destroy(pool);
            lab_check_guards();
        }
    }
}

/* ---- the queue under load ------------------------------------------------------------------ */

enum { KINDS = 3, LAYERS = 4 };

struct load {
    struct work work[KINDS];
    struct kiln_dw_shape shape;
    size_t micro_batches;
};

static void spend(void *context, size_t task, size_t thread) {
    (void)thread;
    float *sums = context;
    for (size_t i = 0; i < 200 + task * 37; i++) {
        sums[task] += (float)i;
    }
}

/* Micro-batches of a window: dy and x change from one to the next, dw adds up. out [KINDS]. */
static void run_load(struct load *load, size_t threads, size_t runs, float *const *out) {
    struct kiln_pool *pool;
    struct kiln_dw *dw;
    float sums[9] = {0};
    CHECK_OK(kiln_pool_create(threads, &pool, NULL), NULL);
    CHECK_OK(kiln_dw_open(&load->shape, pool, NULL, &dw, NULL), NULL);
    uint64_t allocated = malloc_count();
    for (size_t m = 0; m < load->micro_batches; m++) {
        for (size_t layer = 0; layer < LAYERS; layer++) {
            for (size_t kind = 0; kind < KINDS; kind++) {
                post(dw, &load->work[kind], out[kind], m + layer > 0);
                for (size_t run = 0; run < (runs ? (m * 7 + layer + kind) % runs : 0); run++) {
                    kiln_pool_run(pool, 9, spend, sums);
                }
            }
        }
        CHECK_OK(kiln_dw_drain(dw, NULL), NULL);
        for (size_t kind = 0; kind < KINDS; kind++) {
            struct work *w = &load->work[kind];
            w->taps[w->first_channel * w->width] = (uint16_t)(0x3c00 + m); /* after the drain */
        }
    }
    CHECK_EQ(malloc_count(), allocated);
    CHECK(kiln_pool_idle(pool));
    kiln_dw_close(dw);
    kiln_pool_destroy(pool);
}

static void restore_taps(struct load *load, const uint16_t first[KINDS]) {
    for (size_t kind = 0; kind < KINDS; kind++) {
        struct work *w = &load->work[kind];
        w->taps[w->first_channel * w->width] = first[kind];
    }
}

/* What one thread computes without anything between must come out of up to 4, with `runs` at most
 * so many jobs run between two posts. */
static void check_load(struct load *load, size_t fewest_threads, size_t most_runs) {
    float *want[KINDS], *got[KINDS];
    uint16_t first[KINDS];
    for (size_t kind = 0; kind < KINDS; kind++) {
        struct work *w = &load->work[kind];
        first[kind] = w->taps[w->first_channel * w->width];
        want[kind] = w->dw;
        got[kind] = lab_memory(w->rows * w->cols, sizeof(float), 0);
    }
    run_load(load, 1, 0, want);
    for (size_t threads = fewest_threads; threads <= 4; threads++) {
        for (size_t runs = 0; runs <= most_runs; runs += 3) {
            restore_taps(load, first);
            run_load(load, threads, runs, got);
            for (size_t kind = 0; kind < KINDS; kind++) {
                const struct work *w = &load->work[kind];
                CHECK_BYTES(got[kind], want[kind], w->rows * w->cols * sizeof(float));
            }
        }
    }
    lab_check_guards();
}

TEST(weight_gradients_have_the_same_bits_for_any_threads_and_timing) {
    struct load load = {
        .work = {make_work(2, 40, 200, 72), make_work(2, 40, 72, 130), make_work(2, 40, 3, 260)},
        .shape = {.batch = 2, .seq = 40, .slots = 2, .rows = 200, .cols = 260},
        .micro_batches = 6,
    };
    check_load(&load, 1, 9);
}

TEST(a_thousand_micro_batches_of_weight_gradients_have_the_same_bits) {
    struct load load = {
        .work = {make_work(1, 16, 40, 24), make_work(1, 16, 24, 70), make_work(1, 16, 5, 20)},
        .shape = {.batch = 1, .seq = 16, .slots = 3, .rows = 40, .cols = 70},
        .micro_batches = 1000,
    };
    check_load(&load, 4, 3);
}

TEST(a_full_queue_waits_for_its_oldest_and_counts_the_time) {
    struct work w = make_work(2, 20, 130, 70);
    float *second = lab_memory(w.rows * w.cols, sizeof *second, 0);
    struct kiln_pool *pool;
    struct kiln_dw *dw;
    CHECK_OK(kiln_pool_create(1, &pool, NULL), NULL);
    struct kiln_device device = {.ops = NULL};
    CHECK_OK(kiln_spans_create(&device.spans, NULL), NULL);
    CHECK_OK(kiln_dw_open(&w.shape, pool, NULL, &dw, NULL), NULL);
    kiln_dw_tell(dw, &device);
    post(dw, &w, w.dw, false);
    post(dw, &w, second, false);
    CHECK(isnan(w.dw[0]) && isnan(second[0])); /* one thread: nothing has run */
    CHECK_CLOSE(kiln_spans_sum(device.spans, KILN_SPAN_DW_WAIT), 0.0, 0.0);
    struct kiln_dw_slot *slot = kiln_dw_slot(dw);
    CHECK(slot->dy != NULL);
    check_sums(&w, false);
    CHECK(isnan(second[0]));
    const double waited = kiln_spans_sum(device.spans, KILN_SPAN_DW_WAIT);
    CHECK(waited > 0.0);
    CHECK_OK(kiln_dw_drain(dw, NULL), NULL);
    CHECK_BYTES(second, w.dw, w.rows * w.cols * sizeof *second);
    CHECK(kiln_spans_sum(device.spans, KILN_SPAN_DW_WAIT) > waited);
    kiln_dw_close(dw);
    kiln_spans_destroy(device.spans);
    kiln_pool_destroy(pool);
    lab_check_guards();
}

TEST(closing_finishes_what_is_posted) {
    struct work w = make_work(2, 20, 130, 70);
    struct kiln_pool *pool;
    struct kiln_dw *dw;
    CHECK_OK(kiln_pool_create(1, &pool, NULL), NULL);
    CHECK_OK(kiln_dw_open(&w.shape, pool, NULL, &dw, NULL), NULL);
    post(dw, &w, w.dw, false);
    kiln_dw_close(dw);
    kiln_dw_close(NULL);
    CHECK(kiln_pool_idle(pool));
    check_sums(&w, false);
    kiln_pool_destroy(pool);
    lab_check_guards();
}

TEST(an_infinite_gradient_stays_visible) {
    struct work w = make_work(2, 20, 130, 70);
    w.dy[(1 * w.rows + 129) * w.width + 19] = half_inf;
    w.taps[(0 * w.channels + w.first_channel + 69) * w.width + 7] = half_nan;
    struct kiln_pool *pool;
    struct kiln_dw *dw;
    CHECK_OK(kiln_pool_create(2, &pool, NULL), NULL);
    CHECK_OK(kiln_dw_open(&w.shape, pool, NULL, &dw, NULL), NULL);
    post(dw, &w, w.dw, false);
    CHECK_OK(kiln_dw_drain(dw, NULL), NULL);
    for (size_t r = 0; r < w.rows; r++) {
        for (size_t c = 0; c < w.cols; c++) {
            CHECK_EQ(isfinite(w.dw[r * w.cols + c]) != 0, r != 129 && c != 69);
        }
    }
    kiln_dw_close(dw);
    kiln_pool_destroy(pool);
    lab_check_guards();
}

TEST(a_queue_without_slots_is_refused) {
    struct kiln_dw *dw;
    struct kiln_err err;
    struct kiln_dw_shape shape = {.batch = 1, .seq = 16, .rows = 4, .cols = 4};
    CHECK_FAILS(kiln_dw_open(&shape, NULL, NULL, &dw, &err), KILN_EINTERNAL, &err);
    CHECK(dw == NULL);
}

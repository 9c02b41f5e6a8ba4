/* SPDX-License-Identifier: MIT
 *
 * Sessions (src/infer/session.h): how tokens are grouped, who packs and who computes must not show
 * in the scores.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "infer/session.h"
#include "kiln_test.h"
#include "malloc_count.h"

/* Shapes: GQA with head size 8, many heads a group, one kv head with an odd panel, head size 2. */
static const struct kiln_dims shapes[] = {
    {.dim = 64, .hidden = 172, .layers = 2, .heads = 8, .kv_heads = 4, .vocab = 97, .seq = 300},
    {.dim = 72, .hidden = 50, .layers = 2, .heads = 12, .kv_heads = 2, .vocab = 67, .seq = 150},
    {.dim = 144, .hidden = 33, .layers = 1, .heads = 3, .kv_heads = 1, .vocab = 64, .seq = 131},
    {.dim = 6, .hidden = 7, .layers = 3, .heads = 3, .kv_heads = 3, .vocab = 5, .seq = 70},
};
#define N_SHAPES (sizeof shapes / sizeof shapes[0])

struct model {
    struct kiln_table *table;
    float *weights, *logits;
    uint32_t *tokens; /* [seq] */
};

static struct model make_model(size_t shape) {
    struct kiln_dims dims = shapes[shape];
    struct model model;
    struct kiln_err err;
    dims.tied = shape % 2;
    dims.rms_eps = 1e-5f;
    dims.rope_theta = 10000.0f;
    CHECK_OK(kiln_table_create(&dims, &model.table, &err), &err);
    model.weights = kiln_alloc(model.table->size, sizeof *model.weights);
    kiln_weights_init(model.table, 3, model.weights);
    for (size_t i = 0; i < model.table->size; i++) {
        model.weights[i] *= 8.0f; /* so that tokens matter to each other */
    }
    model.logits = kiln_alloc(dims.vocab * 2, sizeof *model.logits);
    model.tokens = kiln_alloc(dims.seq, sizeof *model.tokens);
    for (size_t i = 0; i < dims.seq; i++) {
        model.tokens[i] = (uint32_t)kiln_random_below(1, KILN_STREAM_TEST, i, dims.vocab);
    }
    return model;
}

static void close_model(struct model *model) {
    kiln_free(model->tokens);
    kiln_free(model->logits);
    kiln_free(model->weights);
    kiln_table_destroy(model->table);
}

static struct kiln_pool *make_pool(size_t threads) {
    struct kiln_pool *pool;
    struct kiln_err err;
    CHECK_OK(kiln_pool_create(threads, &pool, &err), &err);
    return pool;
}

static struct kiln_session *open_session(const struct model *model, struct kiln_pool *pool,
                                         enum kiln_precision precision) {
    struct kiln_session *session;
    struct kiln_err err;
    struct kiln_session_options options = {.precision = precision};
    CHECK_OK(kiln_session_open(model->table, model->weights, pool, &options, &session, &err), &err);
    return session;
}

/* The scores after the first n tokens, fed `step` at a time. */
static void feed(struct kiln_session *session, const struct model *model, size_t n, size_t step,
                 float *logits) {
    struct kiln_err err;
    kiln_session_reset(session);
    for (size_t i = 0; i < n; i += step) {
        size_t now = n - i < step ? n - i : step;
        CHECK_OK(kiln_session_feed(session, model->tokens + i, now, logits, &err), &err);
        CHECK_EQ(kiln_session_position(session), i + now);
    }
}

static void check_grouping(enum kiln_precision precision, size_t threads) {
    struct kiln_pool *pool = make_pool(threads);
    for (size_t shape = 0; shape < N_SHAPES; shape++) {
        struct model model = make_model(shape);
        struct kiln_session *session = open_session(&model, pool, precision);
        size_t vocab = model.table->dims.vocab, seq = model.table->dims.seq;
        float *one = model.logits, *many = one + vocab;
        size_t lengths[] = {1, 2, 5, 64, 65, seq};
        size_t steps[] = {2, 3, 4, 5, 33, 128, seq};
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            feed(session, &model, lengths[i], 1, one);
            for (size_t j = 0; j < sizeof steps / sizeof steps[0]; j++) {
                feed(session, &model, lengths[i], steps[j], many);
                CHECK_BYTES(many, one, vocab * sizeof *one);
            }
        }
        kiln_session_close(session);
        close_model(&model);
    }
    kiln_pool_destroy(pool);
}

TEST(a_prompt_at_once_gives_the_bits_of_token_by_token) {
    size_t n;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    for (size_t i = 0; i < n; i++) {
        struct kiln_kernels kernels;
        setenv("KILN_CPU", tiers[i].name, 1);
        if (kiln_kernels_choose(KILN_PRECISION_FP32, &kernels, NULL) == KILN_OK) {
            check_grouping(KILN_PRECISION_FP32, 1);
            check_grouping(KILN_PRECISION_BF16, 1);
        }
    }
}

/* oneDNN sums in an order of its own. */
TEST(grouping_does_not_show_with_products_of_onednn) {
    struct kiln_kernels kernels;
    setenv("KILN_GEMM", "onednn", 1);
    if (kiln_kernels_choose(KILN_PRECISION_BF16, &kernels, NULL) != KILN_OK) {
        SKIP("this build or processor has no bf16 products of oneDNN");
    }
    check_grouping(KILN_PRECISION_BF16, 1);
}

TEST(grouping_does_not_show_with_three_threads) {
    check_grouping(KILN_PRECISION_FP32, 3);
    check_grouping(KILN_PRECISION_BF16, 3);
}

TEST(bf16_is_near_fp32) {
    struct kiln_pool *pool = make_pool(1);
    struct model model = make_model(0);
    size_t vocab = model.table->dims.vocab;
    struct kiln_session *exact = open_session(&model, pool, KILN_PRECISION_FP32);
    struct kiln_session *rough = open_session(&model, pool, KILN_PRECISION_BF16);
    feed(exact, &model, 200, 200, model.logits);
    feed(rough, &model, 200, 200, model.logits + vocab);
    /* Each rounding to 8 bits is off by at most 2^-9; a dozen of them a layer, as a random walk. */
    CHECK_NEAR_NORM(model.logits + vocab, model.logits, vocab, 0.05);
    kiln_session_close(rough);
    kiln_session_close(exact);
    close_model(&model);
    kiln_pool_destroy(pool);
}

TEST(borrowed_packed_weights_give_the_same_scores) {
    struct kiln_pool *pool = make_pool(1);
    struct model model = make_model(1);
    struct kiln_kernels kernels;
    struct kiln_packed packed;
    struct kiln_session *own = open_session(&model, pool, KILN_PRECISION_BF16), *borrowing;
    struct kiln_err err;
    size_t vocab = model.table->dims.vocab;
    CHECK_OK(kiln_kernels_choose(KILN_PRECISION_BF16, &kernels, &err), &err);
    CHECK_OK(kiln_packed_open(&packed, model.table, &kernels, true, &err), &err);
    struct kiln_session_options options = {.precision = KILN_PRECISION_FP32, .packed = &packed};
    CHECK_OK(kiln_session_open(model.table, model.weights, pool, &options, &borrowing, &err), &err);
    /* Packed after opening: a session reads the copies at every feed. */
    const struct kiln_weights flat = kiln_weights_flat(model.table, model.weights);
    for (size_t i = 0; i < model.table->n_matrices; i++) {
        size_t rows = model.table->matrices[i].rows;
        for (size_t first = 0; first < rows; first += KILN_PACK_ROWS) {
            size_t n = rows - first < KILN_PACK_ROWS ? rows - first : KILN_PACK_ROWS;
            kiln_packed_rows(&packed, i, first, n, &flat, true, true);
        }
    }
    feed(own, &model, 80, 80, model.logits);
    feed(borrowing, &model, 80, 80, model.logits + vocab);
    CHECK_BYTES(model.logits + vocab, model.logits, vocab * sizeof(float));
    CHECK(kiln_session_bytes(borrowing) < kiln_session_bytes(own));
    kiln_session_close(borrowing);
    kiln_session_close(own);
    kiln_packed_close(&packed);
    close_model(&model);
    kiln_pool_destroy(pool);
}

TEST(what_does_not_fit_is_refused_and_changes_nothing) {
    struct kiln_pool *pool = make_pool(1);
    struct model model = make_model(3);
    struct kiln_session *session = open_session(&model, pool, KILN_PRECISION_FP32);
    struct kiln_err err;
    uint32_t wrong[] = {1, 5};
    feed(session, &model, 69, 69, NULL);
    CHECK_FAILS(kiln_session_feed(session, model.tokens, 2, NULL, &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "2 tokens behind 69 do not fit into a sequence of 70");
    CHECK_FAILS(kiln_session_feed(session, wrong + 1, 1, NULL, &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "token 0 is 5, beyond the vocabulary of 5");
    CHECK_FAILS(kiln_session_feed(session, wrong, 0, NULL, &err), KILN_EUSAGE, &err);
    CHECK_EQ(kiln_session_position(session), 69);
    CHECK_OK(kiln_session_feed(session, model.tokens, 1, model.logits, &err), &err);
    CHECK_EQ(kiln_session_position(session), 70);
    kiln_session_close(session);
    close_model(&model);
    kiln_pool_destroy(pool);
}

TEST(feeding_allocates_nothing) {
    struct kiln_pool *pool = make_pool(2);
    struct model model = make_model(0);
    struct kiln_session *session = open_session(&model, pool, KILN_PRECISION_FP32);
    uint64_t before = malloc_count();
    feed(session, &model, 300, 150, model.logits);
    feed(session, &model, 20, 1, model.logits);
    CHECK_EQ(malloc_count(), before);
    kiln_session_close(session);
    close_model(&model);
    kiln_pool_destroy(pool);
}

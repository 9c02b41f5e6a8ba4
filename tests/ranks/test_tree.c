/* SPDX-License-Identifier: MIT
 *
 * test_tree.c: the tree of a window's micro-batches is one, however they are shared out.
 *
 * Sums are played by an operation that is commutative and not associative, so that another order
 * gives another result.
 */
#include "kiln_test.h"
#include "ranks/tree.h"

enum { MOST = 70, RANKS = 9, PRIME = 1000003 };

static uint64_t join(uint64_t a, uint64_t b) { return (a * a % PRIME + b * b % PRIME + 1) % PRIME; }
static uint64_t leaf(uint64_t i) { return 17 + 29 * i; }

/* As tree.h draws it: a node of 2^k in front, then the rest. */
static uint64_t drawn(uint64_t first, uint64_t n) {
    if (n == 1) {
        return leaf(first);
    }
    uint64_t half = 1;
    while (half * 2 < n) {
        half *= 2;
    }
    return join(drawn(first, half), drawn(first + half, n - half));
}

struct sums {
    struct kiln_tree tree;
    uint64_t at[KILN_TREE_OPEN];
    size_t most;
};

static void give(struct sums *s, unsigned level, uint64_t value) {
    size_t at = kiln_tree_place(&s->tree);
    s->at[at] = value;
    s->most = at + 1 > s->most ? at + 1 : s->most;
    for (size_t n = kiln_tree_give(&s->tree, level); n > 0; n--, at--) {
        s->at[at - 1] = join(s->at[at - 1], s->at[at]);
    }
}

static uint64_t end(struct sums *s) {
    size_t at = s->tree.n - 1;
    for (size_t n = kiln_tree_end(&s->tree); n > 0; n--, at--) {
        s->at[at - 1] = join(s->at[at - 1], s->at[at]);
    }
    return s->at[0];
}

/* Each rank joins its leaves, one behind all of them joins the nodes. */
static uint64_t by_ranks(uint64_t micro_batches, size_t ranks) {
    struct sums all = {.most = 0};
    uint64_t next = 0;
    for (size_t r = 0; r < ranks; r++) {
        const struct kiln_share s = kiln_share_of(micro_batches, ranks, r);
        struct sums own = {.tree.next = s.first};
        CHECK(s.first == next);
        next += s.n;
        for (uint64_t i = s.first; i < s.first + s.n; i++) {
            CHECK(kiln_tree_nodes(s.first, i) == kiln_tree_place(&own.tree));
            give(&own, 0, leaf(i));
        }
        CHECK(own.tree.n == kiln_tree_nodes(s.first, s.first + s.n));
        CHECK(own.most == kiln_tree_places(s.first, s.first + s.n));
        uint64_t first = s.first;
        for (size_t k = 0; k < own.tree.n; k++) {
            CHECK(own.tree.level[k] == kiln_tree_level(first, s.first + s.n));
            first += UINT64_C(1) << own.tree.level[k];
            give(&all, own.tree.level[k], own.at[k]);
        }
    }
    CHECK(next == micro_batches);
    return end(&all);
}

TEST(any_number_of_ranks_adds_by_the_same_tree) {
    for (uint64_t n = 1; n <= MOST; n++) {
        const uint64_t expected = drawn(0, n);
        for (size_t ranks = 1; ranks <= RANKS && ranks <= n; ranks++) {
            CHECK(by_ranks(n, ranks) == expected);
        }
    }
}

TEST(shares_differ_by_one_micro_batch_at_most) {
    for (size_t ranks = 1; ranks <= RANKS; ranks++) {
        for (uint64_t n = ranks; n <= MOST; n++) {
            for (size_t r = 0; r < ranks; r++) {
                const uint64_t share = kiln_share_of(n, ranks, r).n;
                CHECK(share == n / ranks || share == n / ranks + 1);
            }
        }
    }
}

TEST(a_power_of_two_takes_its_logarithm_of_places_and_one) {
    CHECK(kiln_tree_places(0, 1) == 1);
    CHECK(kiln_tree_places(0, 2) == 2);
    CHECK(kiln_tree_places(8, 16) == 4);
    CHECK(kiln_tree_places(0, 1024) == 11);
}

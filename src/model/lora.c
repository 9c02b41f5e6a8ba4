/* SPDX-License-Identifier: MIT
 *
 * lora.c: adapters in the tensor table, their starting values, and merging them. See kiln/lora.h.
 */
#include "kiln/lora.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "model/lora_targets.h"
#include "model/table.h"

/* ---- targets ----------------------------------------------------------------------------------
 */

const struct kiln_lora_place kiln_lora_places[KILN_LORA_TARGETS] = {
    {"q", KILN_WQ, "self_attn", "q_proj"}, {"k", KILN_WK, "self_attn", "k_proj"},
    {"v", KILN_WV, "self_attn", "v_proj"}, {"o", KILN_WO, "self_attn", "o_proj"},
    {"gate", KILN_W1, "mlp", "gate_proj"}, {"up", KILN_W3, "mlp", "up_proj"},
    {"down", KILN_W2, "mlp", "down_proj"},
};

const struct kiln_lora_place *kiln_lora_place_of(enum kiln_role role) {
    for (size_t i = 0; i < KILN_LORA_TARGETS; i++) {
        if (kiln_lora_places[i].role == role) {
            return &kiln_lora_places[i];
        }
    }
    return NULL;
}

unsigned kiln_lora_bit_of(enum kiln_role role) {
    const struct kiln_lora_place *place = kiln_lora_place_of(role);
    return place ? 1u << (place - kiln_lora_places) : 0;
}

/* The bit of a name of n characters; 0: none. */
static unsigned bit_of(const char *name, size_t n) {
    if (n == 3 && strncmp(name, "all", n) == 0) {
        return KILN_LORA_ALL;
    }
    for (unsigned i = 0; i < KILN_LORA_TARGETS; i++) {
        if (strlen(kiln_lora_places[i].name) == n &&
            strncmp(name, kiln_lora_places[i].name, n) == 0) {
            return 1u << i;
        }
    }
    return 0;
}

enum kiln_status kiln_lora_parse(const char *text, unsigned *out, struct kiln_err *err) {
    *out = 0;
    for (const char *at = text;; at++) {
        const size_t n = strcspn(at, ",");
        const unsigned bit = bit_of(at, n);
        KILN_REQUIRE(bit != 0, err, KILN_EUSAGE,
                     "--lora-targets %s: \"%.*s\" is no target; use q, k, v, o, gate, up and down "
                     "with commas between, or all",
                     text, (int)(n < 40 ? n : 40), at);
        *out |= bit;
        at += n;
        if (*at == '\0') {
            return KILN_OK;
        }
    }
}

void kiln_lora_text(unsigned bits, char out[KILN_LORA_TEXT]) {
    size_t n = 0;
    out[0] = '\0';
    if (bits == KILN_LORA_ALL) {
        snprintf(out, KILN_LORA_TEXT, "all");
        return;
    }
    for (size_t i = 0; i < KILN_LORA_TARGETS; i++) {
        if (bits & 1u << i) {
            n += (size_t)snprintf(out + n, KILN_LORA_TEXT - n, "%s%s", n > 0 ? "," : "",
                                  kiln_lora_places[i].name);
        }
    }
}

enum kiln_status kiln_lora_check(const struct kiln_lora *lora, struct kiln_err *err) {
    KILN_REQUIRE(lora->rank >= 1 && lora->rank <= KILN_LORA_MOST_RANK, err, KILN_EUSAGE,
                 "--lora %zu: a rank is 1 to %d", lora->rank, KILN_LORA_MOST_RANK);
    KILN_REQUIRE(lora->alpha > 0 && lora->alpha <= 1e6, err, KILN_EUSAGE,
                 "--lora-alpha %g: use a number above 0, to 1e6", lora->alpha);
    KILN_REQUIRE(lora->targets != 0 && (lora->targets & ~(unsigned)KILN_LORA_ALL) == 0, err,
                 KILN_EUSAGE, "--lora-targets: bits %#x; use q, k, v, o, gate, up, down, or all",
                 lora->targets);
    return KILN_OK;
}

/* ---- in the table -----------------------------------------------------------------------------
 */

size_t kiln_lora_tensors(const struct kiln_lora *lora, size_t layers) {
    size_t n = 0;
    for (unsigned i = 0; i < KILN_LORA_TARGETS; i++) {
        n += lora->rank > 0 && (lora->targets & 1u << i) ? 2 : 0;
    }
    return n * layers;
}

static void align(struct kiln_table *table) {
    table->size = kiln_round_up(table->size, KILN_TABLE_ALIGN);
}

/* A or B of tensor `target`, at the end of the table. */
static void add(struct kiln_table *table, enum kiln_role role, size_t target) {
    struct kiln_tensor *of = &table->tensors[target];
    const size_t rank = table->lora.rank, index = table->n_tensors++;
    struct kiln_tensor *t = &table->tensors[index];
    const bool a = role == KILN_LORA_A;
    *t = (struct kiln_tensor){.role = role,
                              .layer = of->layer,
                              .rows = a ? rank : of->rows,
                              .cols = a ? of->cols : rank,
                              .rank = 2,
                              .offset = table->size,
                              .matrix = KILN_NO_MATRIX,
                              .snapshot = table->wide,
                              .target = target,
                              .adapter = KILN_NO_TENSOR};
    char name[sizeof of->name];
    memcpy(name, of->name, sizeof name);
    snprintf(t->name, sizeof t->name, "lora_%c.%.16s", a ? 'a' : 'b', name);
    if (a) {
        of->adapter = index;
    }
    table->size += t->rows * t->cols;
    table->wide += t->rows * t->cols;
    table->adapters += t->rows * t->cols;
}

static void add_matrix(struct kiln_table *table, const struct kiln_matrix *m) {
    const size_t first = m->first_tensor, end = first + m->n_tensors;
    for (int b = 0; b < 2; b++) {
        align(table);
        for (size_t i = first; i < end; i++) {
            if (table->lora.targets & kiln_lora_bit_of(table->tensors[i].role)) {
                if (b) {
                    align(table);
                }
                add(table, b ? KILN_LORA_B : KILN_LORA_A, i);
            }
        }
    }
}

void kiln_lora_lay_out(struct kiln_table *table) {
    table->trained = table->size;
    for (size_t i = 0; i < table->n_matrices; i++) {
        if (table->matrices[i].layer != KILN_NO_LAYER) {
            add_matrix(table, &table->matrices[i]);
        }
    }
    align(table);
}

/* B of a tensor lies behind the A of all tensors of its matrix. */
const struct kiln_tensor *kiln_lora_find(const struct kiln_table *table,
                                         const struct kiln_tensor *target, int b) {
    if (target->adapter == KILN_NO_TENSOR) {
        return NULL;
    }
    size_t index = target->adapter;
    const size_t wanted = (size_t)(target - table->tensors);
    while (b &&
           (table->tensors[index].role != KILN_LORA_B || table->tensors[index].target != wanted)) {
        index++;
    }
    return &table->tensors[index];
}

/* ---- values -----------------------------------------------------------------------------------
 */

void kiln_lora_init(const struct kiln_table *table, unsigned long long seed, float *weights) {
    for (size_t i = table->n_base; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        float *out = weights + t->offset;
        if (t->role == KILN_LORA_A) {
            const uint64_t stream = KILN_STREAM_INIT + ((uint64_t)i << 32);
            kiln_random_normals(seed, stream, 1.0 / sqrt(3.0 * (double)t->cols), out, 0,
                                t->rows * t->cols);
        } else {
            memset(out, 0, t->rows * t->cols * sizeof *out);
        }
    }
    kiln_table_clear_gaps(table, weights);
}

/* W += scale B A, row by row: sums over the rank in index order. */
static void merge(const struct kiln_table *table, const struct kiln_tensor *target,
                  float *weights) {
    const struct kiln_tensor *a = kiln_lora_find(table, target, 0);
    const struct kiln_tensor *b = kiln_lora_find(table, target, 1);
    const double scale = table->lora.alpha / (double)table->lora.rank;
    enum { STRIP = 256 };
    for (size_t i = 0; i < target->rows; i++) {
        const float *factors = weights + b->offset + i * b->cols;
        for (size_t first = 0; first < target->cols; first += STRIP) {
            const size_t n = kiln_least(target->cols - first, STRIP);
            float *w = weights + target->offset + i * target->cols + first;
            double sum[STRIP] = {0};
            for (size_t k = 0; k < b->cols; k++) {
                const float *row = weights + a->offset + k * a->cols + first;
                for (size_t j = 0; j < n; j++) {
                    sum[j] += (double)factors[k] * (double)row[j];
                }
            }
            for (size_t j = 0; j < n; j++) {
                w[j] = (float)((double)w[j] + scale * sum[j]);
            }
        }
    }
}

void kiln_lora_merge(const struct kiln_table *table, float *weights) {
    for (size_t i = 0; i < table->n_base; i++) {
        if (table->tensors[i].adapter != KILN_NO_TENSOR) {
            merge(table, &table->tensors[i], weights);
        }
    }
}

/* SPDX-License-Identifier: MIT
 *
 * adapters.c: adapters beside the matrices of programs: written behind the activations, from the
 * fp32 weights, whenever a half-layer begins; their gradients, which the host computes from taps
 * and gradients that it holds anyway. Frozen matrices have none.
 */
#include "device/ane/ane_int.h"

static float scale_of(const struct kiln_ane *ane) {
    const struct kiln_lora *lora = &ane->base.table->lora;
    return (float)(lora->alpha / (double)lora->rank);
}

/* ---- onto surfaces ----------------------------------------------------------------------------
 */

struct give_job {
    const struct kiln_ane *ane;
    const float *from; /* of element (row, k): from[row * by_row + k * by_rank] * scale */
    size_t rank, by_row, by_rank;
    float scale;
    uint16_t *at;
    size_t stride;
    int *beyond; /* set when a value is none in fp16; any thread */
};

static void give_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct give_job *job = context;
    const struct kiln_kernels *kernels = &job->ane->host.kernels;
    float values[KILN_LORA_MOST_RANK];
    (void)index;
    (void)scratch;
    for (size_t row = first; row < first + rows; row++) {
        uint16_t *out = job->at + row * job->stride;
        unsigned infinite = 0;
        for (size_t k = 0; k < job->rank; k++) {
            values[k] = job->from[row * job->by_row + k * job->by_rank] * job->scale;
        }
        kernels->half_of(out, values, job->rank);
        for (size_t k = 0; k < job->rank; k++) {
            infinite |= (out[k] & 0x7c00) == 0x7c00;
        }
        if (infinite) {
            __atomic_store_n(job->beyond, 1, __ATOMIC_RELAXED);
        }
    }
}

static const float *values_of(const struct kiln_ane *ane, enum kiln_role role, size_t layer,
                              int b) {
    const struct kiln_table *table = ane->base.table;
    const struct kiln_tensor *t = kiln_lora_find(table, kiln_table_find(table, role, layer), b);
    return kiln_weights_wide(&ane->base.weights, t);
}

enum kiln_status kiln_ane_put_adapters(const struct kiln_ane *ane, enum kiln_npu_kind kind,
                                       size_t layer, uint16_t *surface, struct kiln_err *err) {
    const struct kiln_npu_port *port = &ane->in[kind];
    int beyond = 0;
    for (size_t i = 0; i < port->n_adapters; i++) {
        const struct kiln_npu_adapter *a = &port->adapters[i];
        struct give_job down = {.ane = ane,
                                .from = values_of(ane, a->role, layer, 0),
                                .rank = a->rank,
                                .by_row = 1,
                                .by_rank = a->cols,
                                .scale = scale_of(ane),
                                .at = surface + a->a,
                                .stride = port->width,
                                .beyond = &beyond};
        struct give_job up = down;
        up.from = values_of(ane, a->role, layer, 1);
        up.by_row = a->rank;
        up.by_rank = 1;
        up.scale = 1.0f;
        up.at = surface + a->b;
        kiln_rows(&ane->host.workers, a->cols, KILN_HOST_CHANNELS, give_rows, &down);
        kiln_rows(&ane->host.workers, a->rows, KILN_HOST_CHANNELS, give_rows, &up);
    }
    KILN_REQUIRE(
        !beyond, err, KILN_EDIVERGED,
        "%s: an adapter of layer %zu for %s is beyond what fp16 holds (65504); lower --lr, "
        "or train on --device cpu",
        ane->base.caps.name, layer, kiln_npu_kind_name(kind));
    return KILN_OK;
}

/* ---- gradients --------------------------------------------------------------------------------
 */

/* dB += dy u^T and dA += du x^T of one matrix and one sequence, with u = s A x and du = s B^T dy.
 */
static void matrix_backward(struct kiln_ane *ane, enum kiln_role role, size_t layer, bool add,
                            const uint16_t *x, const uint16_t *dy) {
    const struct kiln_table *table = ane->base.table;
    const struct kiln_tensor *w = kiln_table_find(table, role, layer);
    const struct kiln_tensor *a = kiln_lora_find(table, w, 0), *b = kiln_lora_find(table, w, 1);
    if (!a) {
        return;
    }
    const size_t rank = a->rows;
    struct kiln_host_narrow narrow = {.w = kiln_weights_wide(&ane->base.weights, a),
                                      .by_channel = 1,
                                      .by_rank = a->cols,
                                      .scale = scale_of(ane),
                                      .x = x,
                                      .channels = a->cols,
                                      .rank = rank,
                                      .out = ane->low};
    struct kiln_host_contract contract = {
        .small = ane->low,
        .x = dy,
        .channels = b->rows,
        .rank = rank,
        .out = ane->base.gradients.all + kiln_trained_at(table, b->offset),
        .by_channel = rank,
        .by_rank = 1,
        .add = add};
    kiln_host_narrow(&ane->host, &narrow);
    kiln_host_contract(&ane->host, &contract);
    narrow.w = kiln_weights_wide(&ane->base.weights, b);
    narrow.by_channel = rank;
    narrow.by_rank = 1;
    narrow.x = dy;
    narrow.channels = b->rows;
    contract.x = x;
    contract.channels = a->cols;
    contract.out = ane->base.gradients.all + kiln_trained_at(table, a->offset);
    contract.by_channel = 1;
    contract.by_rank = a->cols;
    kiln_host_narrow(&ane->host, &narrow);
    kiln_host_contract(&ane->host, &contract);
}

void kiln_ane_adapters_backward(struct kiln_ane *ane, enum kiln_half half, size_t layer, size_t b,
                                const uint16_t *taps, const uint16_t *out, const uint16_t *in) {
    const struct kiln_dims *d = &ane->base.table->dims;
    const size_t w = ane->width, hk = kiln_ane_hk(ane), gk = kiln_ane_gk(ane);
    const size_t qkv = hk + 2 * gk, f = d->hidden;
    const bool add = ane->base.gradients.add || b > 0;
    if (ane->base.table->trained == 0) {
        return;
    }
    if (half == KILN_ATTENTION) {
        const uint16_t *att = taps + qkv * w, *xn = att + hk * w;
        matrix_backward(ane, KILN_WO, layer, add, att, out);
        matrix_backward(ane, KILN_WQ, layer, add, xn, in);
        matrix_backward(ane, KILN_WK, layer, add, xn, in + hk * w);
        matrix_backward(ane, KILN_WV, layer, add, xn, in + (hk + gk) * w);
        return;
    }
    const uint16_t *gate = taps + 2 * f * w, *xn = gate + f * w;
    matrix_backward(ane, KILN_W2, layer, add, gate, out);
    matrix_backward(ane, KILN_W1, layer, add, xn, in);
    matrix_backward(ane, KILN_W3, layer, add, xn, in + f * w);
}

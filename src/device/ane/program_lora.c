/* SPDX-License-Identifier: MIT
 *
 * program_lora.c: adapters beside the matrices of a program (kiln/lora.h). They are inputs, so a
 * program whose weights are baked is never compiled again while they are trained.
 *
 *   forward    y += B ((s A) x)          u  = (s A) x, [r, W]
 *   backward   dx += (s A)^T (B^T dy)    du = B^T dy,  [r, W]
 *
 * (s A)^T [in, r] and B [out, r] lie behind the activations, in columns of their own: both passes
 * want the same two blocks, and channels stay channels, so nothing is turned.
 */
#include <stdio.h>

#include "device/ane/program_maker.h"
#include "model/lora_targets.h"

/* ---- which there are --------------------------------------------------------------------------
 */

/* The matrices of a kind that may have adapters. */
static const struct {
    enum kiln_npu_kind kind;
    size_t n;
    enum kiln_role roles[KILN_NPU_ADAPTERS];
} matrices[] = {
    {KILN_NPU_ATTN_FWD, 4, {KILN_WQ, KILN_WK, KILN_WV, KILN_WO}},
    {KILN_NPU_FFN_FWD, 3, {KILN_W1, KILN_W3, KILN_W2}},
    {KILN_NPU_FFN_BWD, 3, {KILN_W1, KILN_W3, KILN_W2}},
    {KILN_NPU_ATTN_BWD1, 1, {KILN_WO}},
    {KILN_NPU_QKV_BWD, 3, {KILN_WQ, KILN_WK, KILN_WV}},
    {KILN_NPU_SDPA_FWD, 3, {KILN_WQ, KILN_WK, KILN_WV}},
    {KILN_NPU_WO_FWD, 1, {KILN_WO}},
    {KILN_NPU_FFN_FUSED, 3, {KILN_W1, KILN_W3, KILN_W2}},
    {KILN_NPU_FFN_BWD_W2, 1, {KILN_W2}},
    {KILN_NPU_FFN_BWD_W13, 2, {KILN_W1, KILN_W3}},
    {KILN_NPU_WO_BWD, 1, {KILN_WO}},
    {KILN_NPU_Q_BWD, 1, {KILN_WQ}},
    {KILN_NPU_KV_BWD, 2, {KILN_WK, KILN_WV}},
};

void kiln_npu_add_adapters(enum kiln_npu_kind kind, const struct kiln_dims *dims,
                           const struct kiln_lora *lora, struct kiln_npu_port *in) {
    for (size_t i = 0; lora->rank > 0 && i < sizeof matrices / sizeof matrices[0]; i++) {
        for (size_t j = 0; matrices[i].kind == kind && j < matrices[i].n; j++) {
            const enum kiln_role role = matrices[i].roles[j];
            if (lora->targets & kiln_lora_bit_of(role)) {
                struct kiln_npu_adapter *a = &in->adapters[in->n_adapters++];
                *a = (struct kiln_npu_adapter){.role = role, .rank = lora->rank};
                kiln_npu_role_shape(dims, role, &a->rows, &a->cols);
                a->a = in->width;
                a->b = a->a + kiln_npu_width(a->rank);
                in->width = a->b + kiln_npu_width(a->rank);
                in->channels = a->rows > in->channels ? a->rows : in->channels;
                in->channels = a->cols > in->channels ? a->cols : in->channels;
            }
        }
    }
}

size_t kiln_npu_adapter_elements(const struct kiln_npu_port *in) {
    size_t n = 0;
    for (size_t i = 0; i < in->n_adapters; i++) {
        n += (in->adapters[i].rows + in->adapters[i].cols) * in->adapters[i].rank;
    }
    return n;
}

/* ---- in the text ------------------------------------------------------------------------------
 */

/* Name of a value of an adapter's. */
struct named {
    char name[32];
};
static struct named named(const char *y, const char *what) {
    struct named out;
    snprintf(out.name, sizeof out.name, "%s_%s", y, what);
    return out;
}

/* [1, 1, rows, r] from column `at` of the input. */
static struct kiln_mil_ref put_block(struct kiln_npu_maker *m, const char *y, const char *what,
                                     size_t at, size_t rows, size_t rank) {
    struct kiln_mil_text *t = &m->text;
    char tall[16];
    snprintf(tall, sizeof tall, "%s_tall", what);
    struct kiln_mil_ref block = kiln_mil_put_slice(t, named(y, tall).name, m->input, 3, at, rank);
    if (rows < m->in.channels) {
        char part[16];
        snprintf(part, sizeof part, "%s_part", what);
        block = kiln_mil_put_slice(t, named(y, part).name, block, 1, 0, rows);
    }
    return kiln_mil_put_reshape(t, named(y, what).name, block, (size_t[4]){1, 1, rows, rank});
}

struct kiln_mil_ref kiln_npu_put_adapted(struct kiln_npu_maker *m, const char *name,
                                         enum kiln_role role, struct kiln_mil_ref x,
                                         struct kiln_mil_ref y, bool backward) {
    struct kiln_mil_text *t = &m->text;
    const struct kiln_npu_adapter *a = NULL;
    for (size_t i = 0; i < m->in.n_adapters; i++) {
        a = m->in.adapters[i].role == role ? &m->in.adapters[i] : a;
    }
    if (!a) {
        return y;
    }
    struct kiln_mil_ref down = put_block(m, name, "lora_a", a->a, a->cols, a->rank);
    struct kiln_mil_ref up = put_block(m, name, "lora_b", a->b, a->rows, a->rank);
    struct kiln_mil_ref flat = kiln_mil_put_reshape(t, named(name, "lora_x").name, x,
                                                    (size_t[4]){1, 1, x.dims[1], m->width});
    struct kiln_mil_ref u =
        kiln_mil_put_matmul(t, named(name, "lora_u").name, backward ? up : down, true, flat, false);
    struct kiln_mil_ref more =
        kiln_mil_put_matmul(t, named(name, "lora_y").name, backward ? down : up, false, u, false);
    more = kiln_mil_put_reshape(t, named(name, "lora").name, more,
                                (size_t[4]){1, more.dims[2], 1, m->width});
    return kiln_mil_put_pair(t, named(name, "adapted").name, "add", y, more);
}

struct kiln_mil_ref kiln_npu_put_linear(struct kiln_npu_maker *m, const char *name,
                                        const char *file, enum kiln_role role,
                                        struct kiln_mil_ref x, bool transposed) {
    struct kiln_mil_ref w = kiln_npu_put_matrix(m, file, role, transposed);
    struct kiln_mil_ref y = kiln_mil_put_conv(&m->text, name, x, w);
    return kiln_npu_put_adapted(m, name, role, x, y, transposed);
}

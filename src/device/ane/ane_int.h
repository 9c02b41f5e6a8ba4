/* SPDX-License-Identifier: MIT
 *
 * ane_int.h: the Neural Engine as a device, for the files of its own folder.
 *
 * Blocks of a micro-batch, B sequences, W = T rounded up to 16 columns, channel-first:
 *   residual            fp32 [B][D][W], columns T..W-1 zero
 *   attention taps      fp16 [B][HK: Q, GK: K, GK: V, HK: att, D: xn][W], and behind them, where
 *                       heads are normed, [HK: q, GK: k][W] before the norm
 *   feed-forward taps   fp16 [B][F: h1, F: h3, F: gate, D: xn][W]
 * A tap block is what the baked forward program gives behind the half-layer's output, byte for
 * byte, so that keeping it is one copy a sequence.
 *
 * Surfaces hold one sequence; the device takes the sequences of a micro-batch one after another.
 * The programs of a kind share their surfaces, those of both sets: only the active one runs; only
 * inputs that hold weights (dynamic) are the layer's own.
 */
#ifndef KILN_DEVICE_ANE_ANE_INT_H
#define KILN_DEVICE_ANE_ANE_INT_H

#include "device/ane/ane.h"
#include "device/ane/programs.h"
#include "device/host/dw.h"
#include "device/host/gpu.h"
#include "device/host/host.h"

enum { KILN_ANE_PARTS = 64 }; /* of a classifier, at most */

/* Programs of one generation of weights. [places]; NULL where the options want no such program, and
 * in the second set where there are no weights in it: those of the first are of both. */
struct kiln_ane_set {
    struct kiln_npu_program **programs[KILN_NPU_KINDS]; /* atomic: compile writes beside run */
    /* The program holds old weights, and waits for new ones: where the runtime proved that it takes
     * them without a compile. To the caller it is not loaded. */
    unsigned char *parked[KILN_NPU_KINDS];
};

struct kiln_ane {
    struct kiln_device base;
    struct kiln_npu_runtime *runtime;
    struct kiln_host host;
    struct kiln_dw *dw; /* NULL without training, and beside adapters: see kiln_ane_slot */
    struct kiln_dw_slot frozen[2];
    struct kiln_gpu *gpu; /* NULL: weight gradients are the pool's */
    bool training, extras, dynamic;
    struct kiln_npu_mode mode; /* of all programs */
    size_t width;              /* W */
    size_t n_parts;            /* of the classifier */
    uint64_t serial;           /* of the next program: no two texts on a machine are equal */
    size_t self_test;          /* programs that the runtime compiled before us */
    struct kiln_arena arena;
    uint16_t *dxn;    /* fp16 [B][D][W] gradient of a norm's output */
    uint16_t *dxn2;   /* dynamic: the part of it that comes through K and V */
    uint16_t *tap;    /* dynamic: the taps of one sequence */
    uint16_t *starts; /* [2][W] where documents begin in the sequence that is worked on */
    float *low;       /* [r][W] of an adapter, where there are any */
    size_t sequence;  /* that is worked on */
    uint16_t *dh;     /* dynamic: [max(F, HK)][W] */

    struct kiln_npu_port in[KILN_NPU_KINDS], out[KILN_NPU_KINDS];
    struct kiln_npu_surface **surfaces; /* all that were opened */
    size_t n_surfaces, surface_room;
    struct kiln_npu_surface **to[KILN_NPU_KINDS], **from[KILN_NPU_KINDS]; /* [places] */
    struct kiln_ane_set sets[2];
    size_t n_sets;
    size_t places[KILN_NPU_KINDS]; /* layers, parts, or 1; 0: the options want no such program */
    unsigned char *stale;          /* dynamic: [KILN_NPU_KINDS][L] weights not on the surface yet */
};

static inline struct kiln_ane *kiln_ane_of(struct kiln_device *device) {
    return (struct kiln_ane *)device;
}

/* A span from `start` till now, of the program of that kind at a place: a layer, for kinds of which
 * each layer has one. */
void kiln_ane_span(const struct kiln_ane *ane, enum kiln_span_kind what, enum kiln_npu_kind kind,
                   size_t place, double start);

/* Rows of blocks. */
static inline size_t kiln_ane_hk(const struct kiln_ane *ane) {
    return ane->base.table->dims.heads * ane->base.table->dims.head_size;
}
static inline size_t kiln_ane_gk(const struct kiln_ane *ane) {
    return ane->base.table->dims.kv_heads * ane->base.table->dims.head_size;
}
/* Rows of a sequence's taps, and of one residual. */
size_t kiln_ane_tap_rows(const struct kiln_dims *dims, enum kiln_half half);

/* ---- surfaces (surface.c) -------------------------------------------------------------------- */

/* Surfaces, and how many programs of each kind there may be, for all kinds that the options want.
 */
KILN_MUST_CHECK enum kiln_status kiln_ane_open_surfaces(struct kiln_ane *ane, struct kiln_err *err);
void kiln_ane_close_surfaces(struct kiln_ane *ane);

/* The bytes of a surface may be touched until unlock. `elements` (fp16) that are moved: counted. */
KILN_MUST_CHECK enum kiln_status kiln_ane_lock(struct kiln_ane *ane,
                                               struct kiln_npu_surface *surface, bool read_only,
                                               size_t elements, uint16_t **at,
                                               struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_ane_unlock(struct kiln_ane *ane,
                                                 struct kiln_npu_surface *surface, bool read_only,
                                                 struct kiln_err *err);

/* Rows of W elements: copied from `half`, or rounded from `wide` times `scale` (0: as it is). */
struct kiln_ane_rows {
    const uint16_t *half;
    const float *wide;
    float scale;
    size_t rows;
};
/* What is written from here on is of sequence b: where its documents begin goes with it, and with
 * the first one the adapters of the layer. */
void kiln_ane_sequence(struct kiln_ane *ane, size_t b);
/* Write to a program's input: piece after piece down the channels, or, where the input's parts are
 * columns, piece i in part i. */
KILN_MUST_CHECK enum kiln_status kiln_ane_write(struct kiln_ane *ane, enum kiln_npu_kind kind,
                                                size_t place, const struct kiln_ane_rows *pieces,
                                                size_t n, struct kiln_err *err);
/* Copy `rows` rows from row `first` on of a program's output. */
KILN_MUST_CHECK enum kiln_status kiln_ane_read(struct kiln_ane *ane, enum kiln_npu_kind kind,
                                               size_t first, size_t rows, uint16_t *out,
                                               struct kiln_err *err);

/* ---- programs (loaded.c) --------------------------------------------------------------------- */

KILN_MUST_CHECK enum kiln_status kiln_ane_compile(struct kiln_device *device, size_t set,
                                                  size_t kind, size_t layer,
                                                  const struct kiln_weights *weights,
                                                  struct kiln_err *err);
void kiln_ane_release(struct kiln_device *device, size_t set, size_t kind, size_t layer);
/* All programs of the dynamic kind: once a process. */
KILN_MUST_CHECK enum kiln_status kiln_ane_compile_dynamic(struct kiln_ane *ane,
                                                          struct kiln_err *err);
/* Lists of the programs of a kind, whose places are known. */
KILN_MUST_CHECK enum kiln_status kiln_ane_open_programs(struct kiln_ane *ane,
                                                        enum kiln_npu_kind kind,
                                                        struct kiln_err *err);
void kiln_ane_close_programs(struct kiln_ane *ane);
/* Run a program of the active set: of its layer, or the one that there is, on the surfaces of the
 * place. */
KILN_MUST_CHECK enum kiln_status kiln_ane_run(struct kiln_ane *ane, enum kiln_npu_kind kind,
                                              size_t place, struct kiln_err *err);

/* ---- half-layers of a micro-batch (baked.c, dynamic.c) ----------------------------------------
 */

KILN_MUST_CHECK enum kiln_status kiln_ane_forward_baked(struct kiln_ane *ane, size_t layer,
                                                        enum kiln_half half, const float *x_in,
                                                        float *x_out, uint16_t *taps, bool keep,
                                                        struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_ane_backward_baked(struct kiln_ane *ane, size_t layer,
                                                         enum kiln_half half, const float *x_in,
                                                         float *dx, const uint16_t *taps,
                                                         struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_ane_forward_dynamic(struct kiln_ane *ane, size_t layer,
                                                          enum kiln_half half, const float *x_in,
                                                          float *x_out, uint16_t *taps, bool keep,
                                                          struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_ane_backward_dynamic(struct kiln_ane *ane, size_t layer,
                                                           enum kiln_half half, const float *x_in,
                                                           float *dx, const uint16_t *taps,
                                                           struct kiln_err *err);
/* dynamic: fp16 elements that all weights take on surfaces. */
uint64_t kiln_ane_staged_elements(const struct kiln_table *table, bool training);
/* dynamic: rows of a matrix have new values. */
void kiln_ane_stale(struct kiln_ane *ane, size_t matrix);

/* ---- adapters (adapters.c) --------------------------------------------------------------------
 */

/* Write the layer's adapters of a program onto its input. */
KILN_MUST_CHECK enum kiln_status kiln_ane_put_adapters(const struct kiln_ane *ane,
                                                       enum kiln_npu_kind kind, size_t layer,
                                                       uint16_t *surface, struct kiln_err *err);
/* Gradients of a half-layer's adapters from sequence b: its taps, the gradients of its output and
 * of what its first matrices gave (Q, K, V; h1, h3). Nothing where there are none. */
void kiln_ane_adapters_backward(struct kiln_ane *ane, enum kiln_half half, size_t layer, size_t b,
                                const uint16_t *taps, const uint16_t *out, const uint16_t *in);

/* ---- what both have in common (half_layer.c) ---------------------------------------------------
 */

/* Take the output of a forward program: x_out = x_in + its first D rows, and the rows behind them
 * as taps if somebody will read them (tap_rows > 0). */
KILN_MUST_CHECK enum kiln_status kiln_ane_take(struct kiln_ane *ane, enum kiln_npu_kind kind,
                                               const float *x_in, float *x_out, uint16_t *taps,
                                               size_t tap_rows, struct kiln_err *err);
/* Through the norm, whose output's gradient lies in ane->dxn, and in `second` (NULL: nothing). */
KILN_MUST_CHECK enum kiln_status kiln_ane_norm_backward(struct kiln_ane *ane, enum kiln_half half,
                                                        size_t layer, const float *x_in, float *dx,
                                                        const uint16_t *second,
                                                        struct kiln_err *err);
/* dqkv [HK+2GK][W] gets dQ, dK, dV of one sequence; `bwd1` has run. */
KILN_MUST_CHECK enum kiln_status kiln_ane_scores_backward(struct kiln_ane *ane,
                                                          enum kiln_npu_kind bwd1,
                                                          enum kiln_npu_kind bwd2, size_t layer,
                                                          const uint16_t *taps, uint16_t *dqkv,
                                                          struct kiln_err *err);
/* From dqkv of sequence b as kiln_ane_scores_backward left it: gradients of biases and of the norms
 * of heads, and dQ and dK in front of these norms. Sequences in order. */
void kiln_ane_heads_backward(struct kiln_ane *ane, size_t layer, size_t b, const uint16_t *taps,
                             uint16_t *dqkv);
/* Where the first (0) or second (1) gradient of a half-layer's pass lies: a slot of the queue of
 * weight gradients; where the weights are frozen nothing is queued, and two places are enough. */
struct kiln_dw_slot *kiln_ane_slot(struct kiln_ane *ane, size_t which);
/* Queue dw of a matrix from a slot's dy and rows `row`.. of the taps; nothing where it is frozen:
 * the slot then only held what adapters read. */
void kiln_ane_post(struct kiln_ane *ane, enum kiln_matrix_kind kind, size_t layer,
                   struct kiln_dw_slot *slot, const uint16_t *taps, enum kiln_half half,
                   size_t row);

/* ---- the end of the model (classify.c) --------------------------------------------------------
 */

KILN_MUST_CHECK enum kiln_status kiln_ane_head(struct kiln_device *device, const void *x,
                                               const uint32_t *targets, float scale, void *dx,
                                               double *loss, struct kiln_err *err);

#endif

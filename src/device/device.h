/* SPDX-License-Identifier: MIT
 *
 * device.h: what a trainer may ask of a device.
 *
 * A device runs half-layers: attention with its norm and residual, feed-forward with its norm and
 * residual; a CPU can then fuse freely and an NPU gets one program a piece. It is a struct of
 * functions and its capabilities. Every failure returns a status and a message and has changed
 * nothing; past a budget that is KILN_EBUDGET. No call exits the process.
 *
 * Caveats
 *  - Activations are opaque: the device says how many bytes a block takes, the trainer keeps the
 *    block, nobody else reads it. import and export convert the residual stream to fp32
 *    token-major for tests, `verify` and the edges.
 *  - The value passed between half-layers is the stored one, whether it is kept or not, and a
 *    recomputation calls the same forward: so bits do not depend on what is kept.
 *  - Calls come from one thread, the one that owns the pool, but for `refresh`, which runs on
 *    workers, and for `compile` and `prepare`: those may come from one other thread while the owner
 *    computes. They then compute as a guest of the pool (base/pool.h).
 *  - There are one or two kernel sets. What the owner runs are kernels of the active set; what is
 *    compiled goes into either, in the active one into kernels that are not being run. Kernels
 *    without weights belong to all sets, whichever is named: one that is loaded is not compiled
 *    again, and not released, while another set needs it. Budgets count all sets together.
 *  - A kernel that another thread has compiled may be run once that call has returned: the caller
 *    sees to it that the owner knows.
 */
#ifndef KILN_DEVICE_H
#define KILN_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "base/spans.h"
#include "device/gradient_sums.h"
#include "kernel/weights.h"
#include "kiln/cpu.h"
#include "kiln/device.h"
#include "kiln/model.h"
#include "kiln/status.h"

enum kiln_half { KILN_ATTENTION, KILN_FEED_FORWARD, KILN_HALVES };
enum kiln_pass { KILN_FORWARD, KILN_BACKWARD };

/* A kind of compiled program. The plan derives compiles, groups and restarts from this table. */
struct kiln_kernel_kind {
    const char *name;
    enum kiln_pass pass;
    bool weights;      /* baked weights: recompiled after every update */
    bool per_layer;    /* one a layer; otherwise one a process, shared by all layers */
    unsigned compiles; /* what one costs of the compile budget */
    unsigned loads;    /* what one costs of the load budget */
};

/* The kinds that there are (docs/plan.md). A device without one has it at 0 compiles and loads. */
enum kiln_kind {
    KILN_ATTN_FWD,
    KILN_FFN_FWD,
    KILN_FFN_BWD,
    KILN_ATTN_BWD1,
    KILN_QKV_BWD,
    KILN_NORM_BWD, /* extra: both norms of a layer, two programs */
    KILN_ATTN_BWD2,
    KILN_CLASSIFY, /* extra: final norm and classifier, which run behind the last layer */
    KILN_SOFTMAX,  /* extra, behind KILN_CLASSIFY */
    KILN_KINDS
};

struct kiln_device_caps {
    const char *name;      /* "cpu", "sim", "ane" */
    char description[160]; /* what it says of itself, for people; "" on the cpu */
    char gpu[128];         /* OpenCL device of the weight gradients, for people; "": none */
    char numerics[96];     /* all of the device that decides bits: part of the numerics id */
    size_t compile_budget; /* kernels a process may compile; 0: no limit */
    size_t load_budget;    /* kernels a process may hold loaded; 0: no limit */
    bool refreshes;        /* new weights can be taken without a compile (`refresh`) */
    struct kiln_kernel_kind kinds[KILN_KINDS];
};

/* The micro-batch that a device was opened for. */
struct kiln_micro_batch {
    size_t batch; /* B sequences */
    size_t seq;   /* T tokens each */
};

/* Blocks whose size the device knows. */
enum kiln_activation {
    KILN_RESIDUAL, /* x between half-layers, and the gradient dx that flows back */
    KILN_TAPS_ATTENTION,
    KILN_TAPS_FEED_FORWARD,
};

/* Where backward adds weight gradients: flat arrays in the order of the table. */
struct kiln_gradients {
    float *all;       /* [kiln_trained_size]; what is frozen has none */
    float *embedding; /* [V, D]: gradient of the embedding as it is looked up. Tied models add it
                       * to the head's gradient once, at the window's end (H + E). NULL: the model
                       * is frozen */
    bool add;         /* false in the first micro-batch of a window: write instead of add */
    /* NULL but in the last micro-batch of a window: a device that sums squares on the way tells
     * here which of the final values it has summed (gradient_sums.h). */
    struct kiln_gradient_sums *sums;
};

struct kiln_device;

struct kiln_device_ops {
    void (*close)(struct kiln_device *device);

    /* Bytes of a block for the device's micro-batch. */
    size_t (*activation_bytes)(const struct kiln_device *device, enum kiln_activation what);

    /* Compile and load one kernel of `kind` for a layer into a set, from weights (unused for kinds
     * without): fp32, or a narrow snapshot in the device's operands, which gives the same bits. One
     * that is loaded is compiled again; a failure but KILN_EBUDGET leaves it unloaded. KILN_EBUDGET
     * past a budget: nothing has changed. On any thread, one at a time. */
    enum kiln_status (*compile)(struct kiln_device *device, size_t set, size_t kind, size_t layer,
                                const struct kiln_weights *weights, struct kiln_err *err);
    /* Unload a kernel; one that is not loaded is fine. The owner's, while nothing compiles. */
    void (*release)(struct kiln_device *device, size_t set, size_t kind, size_t layer);
    /* What the host keeps of a generation beside the kernels, for a set that is not active: the
     * packed classifier. On any thread, as compile. */
    enum kiln_status (*prepare)(struct kiln_device *device, size_t set,
                                const struct kiln_weights *weights, struct kiln_err *err);
    /* From here on run the kernels of that set, which was prepared from the same weights, and read
     * norms and embedding from them. The view is copied; what it shows is borrowed. */
    void (*activate)(struct kiln_device *device, size_t set, const struct kiln_weights *weights);
    /* (optional) Rows first..first+rows of a matrix have new values: take them in place where the
     * device can (caps.refreshes; the classifier on cpu always). Called on pool workers by the
     * optimizer, in pieces of 64 rows. With two sets nothing is taken: the active one stays of
     * its generation. */
    void (*refresh)(struct kiln_device *device, size_t matrix, size_t first, size_t rows,
                    const float *weights);

    /* x = rows of the embedding. tokens [N]. */
    enum kiln_status (*embed)(struct kiln_device *device, const uint32_t *tokens, void *x,
                              struct kiln_err *err);
    /* x_out = half-layer(x_in); taps get what backward will read, unless `keep` is false: then
     * nobody will read them, and what the block holds has no meaning. x_out and x_in are different
     * blocks. KILN_EINTERNAL when a kernel that it runs is not loaded; backward, too. */
    enum kiln_status (*forward)(struct kiln_device *device, size_t layer, enum kiln_half half,
                                const void *x_in, void *x_out, void *taps, bool keep,
                                struct kiln_err *err);
    /* dx: the gradient of the half-layer's output on entry, of its input on return. Weight
     * gradients go where `gradients` says, in a fixed order, now or on the device's own
     * queue until drain: x_in and taps stay as they are until then. */
    enum kiln_status (*backward)(struct kiln_device *device, size_t layer, enum kiln_half half,
                                 const void *x_in, void *dx, const void *taps,
                                 struct kiln_err *err);
    /* Final norm, classifier, cross-entropy against targets [N]. *loss gets the sum over tokens
     * but those whose target is KILN_NO_TARGET (kiln/text.h), which have no gradient either.
     * With dx (NULL when only evaluating): dx = scale * gradient of that sum. Logits are never
     * held for more than a block of tokens. */
    enum kiln_status (*head)(struct kiln_device *device, const void *x, const uint32_t *targets,
                             float scale, void *dx, double *loss, struct kiln_err *err);
    /* Gradient of the embedding rows that the tokens looked up. */
    enum kiln_status (*embed_backward)(struct kiln_device *device, const uint32_t *tokens,
                                       const void *dx, struct kiln_err *err);
    /* Wait until every weight gradient of the calls so far is in place. */
    enum kiln_status (*drain)(struct kiln_device *device, struct kiln_err *err);

    /* Residual blocks as fp32 [N, D]. */
    void (*export_residual)(const struct kiln_device *device, const void *block, float *out);
    void (*import_residual)(const struct kiln_device *device, const float *in, void *block);
};

/* What a device has done since it was opened. */
struct kiln_device_counts {
    _Atomic uint64_t compiles; /* kernels; compile may count on another thread */
    uint64_t layer_forwards;   /* micro-batches through the attention half of a layer */
    _Atomic size_t loaded;     /* kernels loaded now, of all sets; likewise */
    uint64_t surface_written, surface_read; /* bytes that the host moved to and from surfaces */
};

/* Every device starts with this. */
struct kiln_device {
    const struct kiln_device_ops *ops;
    struct kiln_device_caps caps;
    const struct kiln_table *table; /* borrowed */
    struct kiln_micro_batch shape;
    size_t set;                      /* the active one */
    struct kiln_weights weights;     /* of its generation: norms, embedding; borrowed */
    struct kiln_gradients gradients; /* where backward of this micro-batch adds */
    /* Document mask of this micro-batch, [N]: the place in its own sequence where a token's
     * document begins; its attention looks no further back. Never falls within a sequence, and
     * never lies behind the token. NULL: none, plain causal. Borrowed; a device that was opened
     * without `doc_mask` is never given one. */
    const uint32_t *starts;
    struct kiln_device_counts counts;
    /* Set by who opened it; NULL: nobody asks. The device adds what it runs (EVALUATE), bytes moved
     * (SURFACE), weight gradients in the background (DW) and waiting for them (DW_WAIT). */
    struct kiln_spans *spans;
};

/* For devices: a span from `start` (kiln_now_s) till now. layer: KILN_NO_LAYER or a layer. */
void kiln_device_span(const struct kiln_device *device, enum kiln_span_kind kind, const char *name,
                      size_t layer, double start);

struct kiln_device_options {
    struct kiln_device_choice device;
    struct kiln_micro_batch shape;
    enum kiln_precision precision;
    bool training;      /* false: forward only, no room for backward */
    size_t budget;      /* kernels that may be compiled; 0: no limit */
    size_t load_budget; /* kernels that may be loaded at once; 0: no limit */
    bool two_sets;      /* room for a second kernel set and a second packed classifier */
    bool beside;        /* compile and prepare come from another thread while the device computes */
    bool doc_mask;      /* micro-batches have a document mask (kiln_device.starts) */
    bool no_head;       /* the last layer is not the model's: `head` is not called, nothing of what
                         * it needs is packed or compiled */
};

/* What a device computes in when `asked` is what somebody asked for: sim and ane in fp16 and
 * nothing else, the cpu in all but that; there AUTO stays AUTO. KILN_EUSAGE lists what is valid. */
KILN_MUST_CHECK enum kiln_status kiln_device_precision(enum kiln_device_id id,
                                                       enum kiln_precision asked,
                                                       enum kiln_precision *out,
                                                       struct kiln_err *err);
/* Open a device; set 0 is active, and prepared from the weights. Borrows table, pool and what the
 * weights show until close, or until others are activated. KILN_EUNSUPPORTED: this build or
 * machine has no such device. */
KILN_MUST_CHECK enum kiln_status kiln_device_open(const struct kiln_table *table,
                                                  struct kiln_pool *pool,
                                                  const struct kiln_weights *weights,
                                                  const struct kiln_device_options *options,
                                                  struct kiln_device **out, struct kiln_err *err);
/* Is what is chosen of a device possible? KILN_EUSAGE says what is not. */
KILN_MUST_CHECK enum kiln_status kiln_device_check(const struct kiln_device_choice *device,
                                                   struct kiln_err *err);
/* The kernel kinds of a device, without opening it. */
void kiln_device_kinds(const struct kiln_dims *dims, const struct kiln_device_options *options,
                       struct kiln_kernel_kind out[KILN_KINDS]);
/* Programs that it compiles when it is opened, and never again: those that take weights as inputs,
 * and a self-test. They count against the budgets. */
size_t kiln_device_programs(const struct kiln_device_options *options);
/* Bytes that a device would take, without opening it: for plans. */
struct kiln_device_sizes {
    size_t activation[3];     /* by enum kiln_activation */
    size_t forward, backward; /* the kernels of a layer, of one set */
    size_t head;              /* classifier and whatever else is there once a set */
    /* Weights that are baked into kernels: those of a layer forward and backward, those of what
     * runs behind the last one. What a compiler reads: the law of compile times (kiln/plan.h). */
    size_t baked_forward, baked_backward, baked_head;
    size_t workspace;
    size_t thread; /* workspace of each thread */
    size_t gpu;    /* --dw gpu: buffers there and here, and what the driver takes */
};
KILN_MUST_CHECK enum kiln_status kiln_device_sizes(const struct kiln_table *table,
                                                   const struct kiln_device_options *options,
                                                   struct kiln_device_sizes *out,
                                                   struct kiln_err *err);
/* Bytes that the host moves to and from surfaces for one micro-batch; all 0 on the cpu. */
struct kiln_moved {
    uint64_t written, read;
};
struct kiln_device_traffic {
    struct kiln_moved forward_kept, forward; /* a layer whose taps are kept; one whose are not */
    struct kiln_moved backward;              /* a layer */
    struct kiln_moved head, head_evaluate;   /* with the gradient of the loss; without */
    struct kiln_moved weights;               /* dynamic: all of them, after an update */
};
void kiln_device_traffic(const struct kiln_table *table, const struct kiln_device_options *options,
                         struct kiln_device_traffic *out);
static inline void kiln_device_close(struct kiln_device *device) {
    if (device) {
        device->ops->close(device);
    }
}

/* The CPU device's packed weights, for samples while training. NULL for other devices. */
struct kiln_packed;
const struct kiln_packed *kiln_device_packed(const struct kiln_device *device);

#endif

/* SPDX-License-Identifier: MIT
 *
 * runtime.h: what compiles and evaluates MIL programs: Apple's private runtime, or the simulator.
 *
 * A program is compiled from text and weight files, loaded, bound to the surfaces that it reads and
 * writes, evaluated any number of times, unloaded, released. Surfaces are flat shared memory;
 * tensors lie packed from byte 0. Calls come from one thread, but compile, load, bind, reload and
 * release may come from one other, of programs that are not being evaluated.
 *
 * Every failure is a status with a message in the runtime's own words and leaves nothing behind:
 * no staging folder, no surface, no half-loaded program. An evaluation that fails says so; what
 * its outputs hold is then undefined and must not be used.
 */
#ifndef KILN_DEVICE_ANE_RUNTIME_H
#define KILN_DEVICE_ANE_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

/* A file of @model_path/weights/. */
struct kiln_npu_weight {
    char name[32]; /* "wq.bin" */
    void *data;    /* a whole blob file (mil/blob.h) */
    size_t bytes;
};

/* What a compiler gets. */
struct kiln_npu_source {
    const char *label; /* "layer 3, attn_fwd": what messages call it */
    const char *text;  /* MIL */
    size_t bytes;
    const struct kiln_npu_weight *weights;
    size_t n_weights;
};

struct kiln_npu_program; /* of the runtime */
struct kiln_npu_surface; /* of the runtime */
struct kiln_npu_runtime;

struct kiln_npu_runtime_ops {
    void (*close)(struct kiln_npu_runtime *runtime);

    /* Compile. KILN_EBUDGET past the runtime's own compile limit. On success release. */
    enum kiln_status (*compile)(struct kiln_npu_runtime *runtime,
                                const struct kiln_npu_source *source, struct kiln_npu_program **out,
                                struct kiln_err *err);
    /* Make a compiled program ready to run. KILN_EBUDGET past the load limit. */
    enum kiln_status (*load)(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                             struct kiln_err *err);
    /* Say which surfaces a loaded program reads and writes, in the order of its parameters and of
     * its results. A program may have any number of such bindings (the layers of a model whose
     * weights are inputs); *binding gets 0, 1, 2 ... The surfaces must outlive the program. */
    enum kiln_status (*bind)(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                             struct kiln_npu_surface *const *inputs, size_t n_inputs,
                             struct kiln_npu_surface *const *outputs, size_t n_outputs,
                             size_t *binding, struct kiln_err *err);
    /* Compute on the surfaces of a binding, and return when the outputs are there. */
    enum kiln_status (*evaluate)(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                                 size_t binding, struct kiln_err *err);
    /* Unload if loaded, and free. What goes wrong is kept for kiln_npu_trouble. */
    void (*release)(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program);
    /* Give a loaded program other weights without a compile (counts no compile). Only where the
     * runtime's self-test proved that it works (runtime->reloads). */
    enum kiln_status (*reload)(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                               const struct kiln_npu_weight *weights, size_t n_weights,
                               struct kiln_err *err);

    /* (optional) evaluate at another quality of service, 0 to 63. For probes. */
    enum kiln_status (*evaluate_at)(struct kiln_npu_runtime *runtime,
                                    struct kiln_npu_program *program, size_t binding, unsigned qos,
                                    struct kiln_err *err);
    /* (optional) Prepare a chain, by which the device would run a loaded program on these surfaces
     * and go on by itself: does it say yes? KILN_EUNSUPPORTED: the system has no chains;
     * KILN_EDEVICE: what it answered. Nothing runs, nothing stays. For probes. */
    enum kiln_status (*chain)(struct kiln_npu_runtime *runtime, struct kiln_npu_program *program,
                              struct kiln_npu_surface *in, struct kiln_npu_surface *out,
                              struct kiln_err *err);

    enum kiln_status (*surface_open)(struct kiln_npu_runtime *runtime, size_t bytes,
                                     struct kiln_npu_surface **out, struct kiln_err *err);
    void (*surface_close)(struct kiln_npu_runtime *runtime, struct kiln_npu_surface *surface);
    /* Between lock and unlock the bytes may be touched; the pointer is the same for the surface's
     * life. NULL when locking failed: err says why. */
    void *(*lock)(struct kiln_npu_runtime *runtime, struct kiln_npu_surface *surface,
                  bool read_only, struct kiln_err *err);
    enum kiln_status (*unlock)(struct kiln_npu_runtime *runtime, struct kiln_npu_surface *surface,
                               bool read_only, struct kiln_err *err);
};

/* Every runtime starts with this. */
struct kiln_npu_runtime {
    const struct kiln_npu_runtime_ops *ops;
    const char *name;        /* "sim", "ane" */
    char description[96];    /* of the device, as far as it tells */
    bool reloads;            /* weights can be changed without a compile: proved at open */
    size_t compiles;         /* by this process through this runtime, self-test included; atomic */
    size_t loaded;           /* programs now; atomic */
    struct kiln_err trouble; /* below */
    int troubled;            /* 0, 1 while it is written, 2 */
};

/* The first failure of a call that cannot return one; NULL: none. On any thread. */
static inline const struct kiln_err *kiln_npu_trouble(const struct kiln_npu_runtime *runtime) {
    return __atomic_load_n(&runtime->troubled, __ATOMIC_ACQUIRE) == 2 ? &runtime->trouble : NULL;
}
static inline void kiln_npu_note_trouble(struct kiln_npu_runtime *runtime,
                                         const struct kiln_err *err) {
    int none = 0;
    if (__atomic_compare_exchange_n(&runtime->troubled, &none, 1, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED)) {
        runtime->trouble = *err;
        __atomic_store_n(&runtime->troubled, 2, __ATOMIC_RELEASE);
    }
}

#endif

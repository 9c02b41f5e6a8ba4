/* SPDX-License-Identifier: MIT
 *
 * dw.c: see dw.h. Background jobs run one after another, so one packed x is enough: the pack job of
 * a product starts when the product before it has been multiplied.
 *
 *   packed  fp32 [B][cols/64 panels][T rounded up to 32][64]
 *   scratch of a thread: KILN_GEMM_SCRATCH, then fp32 [KILN_GEMM_M, T] rows of dy, or a panel of x
 */
#include "device/host/dw.h"

#include "base/machine.h"
#include "base/mem.h"
#include "device/host/gpu.h"
#include "kernel/kernel.h"

struct entry {
    struct kiln_dw_slot slot;
    struct kiln_dw *dw;
    struct kiln_dw_product product;
    struct kiln_pool_job pack, multiply;
    uint64_t ticket; /* of the GPU, which has made products before this queue is opened: 0 is old */
};

/* What a thread has worked on last, not told yet; a cache line of its own. */
struct worked {
    double start, end;
    const char *name;
    size_t layer;
    bool any;
    char apart[64 - 2 * sizeof(double) - sizeof(char *) - 2 * sizeof(size_t)];
};

struct kiln_dw {
    struct kiln_dw_shape shape;
    size_t width;
    struct kiln_pool *pool;
    struct kiln_gpu *gpu; /* or NULL */
    struct kiln_kernels kernels;
    struct kiln_arena arena;
    float *packed;
    struct kiln_scratch scratch;      /* of a thread: of gemm, then rows of dy or x */
    struct entry *entries;            /* [slots] */
    size_t next;                      /* entry to be handed out */
    struct entry *last;               /* posted */
    const struct kiln_device *device; /* that is told; or NULL */
    struct worked *worked;            /* [threads] */
};

enum { GEMM_FLOATS = KILN_GEMM_SCRATCH / 4 };
_Static_assert((int)KILN_PANEL <= (int)KILN_GEMM_M, "a panel of x fits where rows of dy do");

static size_t width_of(const struct kiln_dw_shape *shape) { return kiln_round_up(shape->seq, 16); }
static size_t slot_bytes(const struct kiln_dw_shape *shape) {
    return shape->batch * shape->rows * width_of(shape) * sizeof(uint16_t);
}
static size_t packed_bytes(const struct kiln_dw_shape *shape) {
    return shape->batch * kiln_packed_elements(shape->cols, shape->seq) * sizeof(float);
}
static size_t thread_bytes(const struct kiln_dw_shape *shape) {
    return kiln_round_up(KILN_GEMM_SCRATCH + KILN_GEMM_M * shape->seq * sizeof(float), 64);
}
static size_t blocks(size_t n, size_t of) { return (n + of - 1) / of; }
struct kiln_dw_sizes kiln_dw_sizes(const struct kiln_dw_shape *shape) {
    size_t slots = shape->slots * kiln_arena_reserve(0, slot_bytes(shape));
    return (struct kiln_dw_sizes){
        .workspace = shape->gpu ? slots : kiln_arena_reserve(slots, packed_bytes(shape)),
        .thread = shape->gpu ? 0 : thread_bytes(shape),
    };
}

/* ---- spans ---------------------------------------------------------------------------------- */

static void tell_worked(const struct kiln_dw *dw, size_t thread) {
    struct worked *w = &dw->worked[thread];
    if (w->any) {
        const struct kiln_span span = {.start = w->start,
                                       .end = w->end,
                                       .kind = KILN_SPAN_DW,
                                       .thread = (uint32_t)thread + 1, /* 0: the owner's waits */
                                       .name = w->name,
                                       .layer = (int32_t)w->layer,
                                       .micro_batch = -1,
                                       .generation = -1};
        kiln_spans_add(dw->device->spans, &span);
        w->any = false;
    }
}

/* Seconds between tasks that are no break: a job that is run now takes longer. */
#define BREAK 50e-6

/* A task of a product has ended. There are hundreds of them in a layer; those that follow each
 * other make one span. */
static void task_done(const struct kiln_dw *dw, const struct kiln_dw_product *product,
                      size_t thread, double start) {
    struct worked *w = &dw->worked[thread];
    if (!dw->device || !dw->device->spans) {
        return;
    }
    if (w->any &&
        (w->name != product->name || w->layer != product->layer || start - w->end > BREAK)) {
        tell_worked(dw, thread);
    }
    w->start = w->any ? w->start : start;
    w->end = kiln_now_s();
    w->name = product->name;
    w->layer = product->layer;
    w->any = true;
}

/* ---- the two jobs of a product ------------------------------------------------------------- */

/* n rows of fp16, `width` apart, to fp32 rows of T. */
static void widen(const struct kiln_dw *dw, float *out, const uint16_t *in, size_t n) {
    size_t seq = dw->shape.seq;
    for (size_t i = 0; i < n; i++) {
        dw->kernels.half_to(out + i * seq, in + i * dw->width, seq);
    }
}

/* One panel of one sequence's x. */
static void pack_panel(void *context, size_t task, size_t thread) {
    const struct entry *entry = context;
    const struct kiln_dw *dw = entry->dw;
    const struct kiln_dw_product *product = &entry->product;
    const double start = kiln_now_s();
    size_t seq = dw->shape.seq, panel = kiln_panel_elements(seq);
    size_t panels = blocks(product->cols, KILN_PANEL), b = task / panels, at = task % panels;
    size_t first = at * KILN_PANEL, n = kiln_least(product->cols - first, KILN_PANEL);
    float *rows = (float *)dw->scratch.of[thread] + GEMM_FLOATS;
    widen(dw, rows, product->x + b * product->x_sequence + first * dw->width, n);
    dw->kernels.pack_f32(dw->packed + (b * panels + at) * panel, panel, rows, seq, n, seq);
    task_done(dw, product, thread, start);
}

/* One block of dw: the sequences in order, so that its sums depend on nothing else. */
static void multiply_block(void *context, size_t task, size_t thread) {
    const struct entry *entry = context;
    const struct kiln_dw *dw = entry->dw;
    const struct kiln_dw_product *product = &entry->product;
    const double start = kiln_now_s();
    size_t seq = dw->shape.seq, panel = kiln_panel_elements(seq);
    size_t down = blocks(product->rows, KILN_GEMM_M);
    size_t i = task % down * KILN_GEMM_M, j = task / down * KILN_GEMM_N;
    size_t panels = blocks(product->cols, KILN_PANEL);
    float *scratch = dw->scratch.of[thread], *dy = scratch + GEMM_FLOATS;
    float *out = product->dw + i * product->cols + j;
    struct kiln_gemm block = {
        .m = kiln_least(product->rows - i, KILN_GEMM_M),
        .n = kiln_least(product->cols - j, KILN_GEMM_N),
        .k = seq,
        .a = dy,
        .lda = seq,
        .c = out,
        .ldc = product->cols,
        .ldadd = product->cols,
        .scratch = scratch,
    };
    for (size_t b = 0; b < dw->shape.batch; b++) {
        widen(dw, dy, entry->slot.dy + (b * product->rows + i) * dw->width, block.m);
        block.b = dw->packed + (b * panels + j / KILN_PANEL) * panel;
        block.add = product->add || b > 0 ? out : NULL;
        dw->kernels.gemm(&block);
    }
    kiln_gradient_sums_take(product->sums, &dw->kernels, product->matrix, i, block.m, j, block.n,
                            product->gradients);
    task_done(dw, product, thread, start);
}

/* ---- the queue ----------------------------------------------------------------------------- */

static void wait_for(struct kiln_dw *dw, struct entry *entry) {
    if (atomic_load(&entry->multiply.posted)) {
        const double start = kiln_now_s();
        kiln_pool_wait(dw->pool, &entry->multiply);
        if (dw->device) {
            kiln_device_span(dw->device, KILN_SPAN_DW_WAIT, entry->product.name,
                             entry->product.layer, start);
        }
    }
}

struct kiln_dw_slot *kiln_dw_slot(struct kiln_dw *dw) {
    struct entry *entry = &dw->entries[dw->next];
    dw->next = (dw->next + 1) % dw->shape.slots;
    if (dw->gpu) {
        kiln_gpu_sent(dw->gpu, entry->ticket);
    } else {
        wait_for(dw, entry);
    }
    return &entry->slot;
}

static uint64_t post_to_gpu(const struct kiln_dw *dw, const struct kiln_dw_slot *slot,
                            const struct kiln_dw_product *product) {
    const struct kiln_gpu_product to = {
        .dw = product->dw,
        .rows = product->rows,
        .cols = product->cols,
        .sequences = dw->shape.batch,
        .tokens = dw->shape.seq,
        .precision = KILN_PRECISION_FP16,
        .dy = {.at = slot->dy, .width = dw->width, .sequence = product->rows * dw->width},
        .x = {.at = product->x, .width = dw->width, .sequence = product->x_sequence},
        .add = product->add,
    };
    return kiln_gpu_post(dw->gpu, &to);
}

void kiln_dw_post(struct kiln_dw *dw, struct kiln_dw_slot *slot,
                  const struct kiln_dw_product *product) {
    struct entry *entry = (struct entry *)slot; /* its first member */
    if (dw->gpu) {
        entry->ticket = post_to_gpu(dw, slot, product);
        return;
    }
    entry->product = *product;
    entry->pack.n = dw->shape.batch * blocks(product->cols, KILN_PANEL);
    entry->multiply.n = blocks(product->rows, KILN_GEMM_M) * blocks(product->cols, KILN_GEMM_N);
    kiln_pool_post(dw->pool, &entry->pack);
    kiln_pool_post(dw->pool, &entry->multiply);
    dw->last = entry;
}

enum kiln_status kiln_dw_drain(struct kiln_dw *dw, struct kiln_err *err) {
    if (dw->gpu) {
        return kiln_gpu_drain(dw->gpu, err);
    }
    if (dw->last) {
        wait_for(dw, dw->last); /* jobs end in the order of their posts */
        dw->last = NULL;
        for (size_t i = 0; i < kiln_pool_threads(dw->pool); i++) {
            tell_worked(dw, i); /* no task of theirs is running */
        }
    }
    return KILN_OK;
}

void kiln_dw_tell(struct kiln_dw *dw, const struct kiln_device *device) {
    dw->device = device;
    if (dw->gpu) {
        kiln_gpu_tell(dw->gpu, device);
    }
}

/* ---- opening and closing ------------------------------------------------------------------- */

static enum kiln_status open_parts(struct kiln_dw *dw, struct kiln_err *err) {
    const struct kiln_dw_shape *shape = &dw->shape;
    const size_t threads = dw->gpu ? 0 : kiln_pool_threads(dw->pool);
    KILN_TRY(kiln_kernels_choose(KILN_PRECISION_FP32, &dw->kernels, err));
    KILN_TRY(kiln_arena_open(&dw->arena, kiln_dw_sizes(shape).workspace, err));
    dw->packed = dw->gpu ? NULL : kiln_arena_take(&dw->arena, packed_bytes(shape));
    dw->entries = kiln_alloc(shape->slots, sizeof *dw->entries);
    KILN_TRY(kiln_scratch_open(&dw->scratch, threads, thread_bytes(shape), err));
    dw->worked = kiln_alloc(threads, sizeof *dw->worked);
    KILN_REQUIRE(dw->entries && dw->worked, err, KILN_ENOMEM,
                 "no memory for a queue of %zu weight gradients on %zu threads", shape->slots,
                 threads);
    for (size_t i = 0; i < shape->slots; i++) {
        struct entry *entry = &dw->entries[i];
        entry->dw = dw;
        entry->slot.dy = kiln_arena_take(&dw->arena, slot_bytes(shape));
        entry->pack.fn = pack_panel;
        entry->multiply.fn = multiply_block;
        entry->pack.context = entry->multiply.context = entry;
    }
    return KILN_OK;
}

enum kiln_status kiln_dw_open(const struct kiln_dw_shape *shape, struct kiln_pool *pool,
                              struct kiln_gpu *gpu, struct kiln_dw **out, struct kiln_err *err) {
    *out = NULL;
    KILN_REQUIRE(shape->gpu == (gpu != NULL), err, KILN_EINTERNAL,
                 "a queue of weight gradients for a GPU%s", gpu ? ", planned without" : " without");
    KILN_REQUIRE(shape->slots >= 1, err, KILN_EINTERNAL, "a queue of weight gradients of 0 slots");
    struct kiln_dw *dw = kiln_alloc(1, sizeof *dw);
    KILN_REQUIRE(dw, err, KILN_ENOMEM, "no memory for a queue of weight gradients");
    dw->shape = *shape;
    dw->width = width_of(shape);
    dw->pool = pool;
    dw->gpu = gpu;
    enum kiln_status status = open_parts(dw, err);
    if (status != KILN_OK) {
        kiln_dw_close(dw);
        return status;
    }
    *out = dw;
    return KILN_OK;
}

void kiln_dw_close(struct kiln_dw *dw) {
    if (dw == NULL) {
        return;
    }
    struct kiln_err ignored;
    const enum kiln_status drained = kiln_dw_drain(dw, &ignored);
    (void)drained; /* who wanted to know has drained before */
    kiln_arena_close(&dw->arena);
    kiln_free(dw->entries);
    kiln_scratch_close(&dw->scratch);
    kiln_free(dw->worked);
    kiln_free(dw);
}

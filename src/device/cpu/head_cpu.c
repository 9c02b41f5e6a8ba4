/* SPDX-License-Identifier: MIT
 *
 * head_cpu.c: the two ends of the model on the CPU: embedding, and classifier with loss, which is
 * host/head.h, block by block.
 */
#include <string.h>

#include "base/machine.h"
#include "device/cpu/cpu.h"

struct embed_job {
    struct kiln_cpu_device *cpu;
    const uint32_t *tokens;
    const float *dx;
    float *x;
};

static void embed_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct embed_job *job = context;
    const struct kiln_table *table = job->cpu->base.table;
    size_t d = table->dims.dim;
    const float *embedding = kiln_weights_wide(&job->cpu->base.weights,
                                               kiln_table_find(table, KILN_EMBED, KILN_NO_LAYER));
    (void)index;
    (void)scratch;
    job->cpu->kernels.embed(job->x + first * d, embedding, job->tokens + first, rows, d);
}

enum kiln_status kiln_cpu_embed(struct kiln_device *device, const uint32_t *tokens, void *x,
                                struct kiln_err *err) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    struct embed_job job = {.cpu = cpu, .tokens = tokens, .x = x};
    const double start = kiln_now_s();
    (void)err;
    kiln_rows(&cpu->workers, cpu->tokens, KILN_ROW_CHUNK, embed_rows, &job);
    kiln_device_span(device, KILN_SPAN_EVALUATE, "embed", KILN_NO_LAYER, start);
    return KILN_OK;
}

/* A task owns a range of columns and adds the tokens in order: no two tasks meet, and the order
 * of a sum does not depend on threads. */
static void scatter_columns(void *context, size_t first, size_t columns, size_t index,
                            void *scratch) {
    const struct embed_job *job = context;
    struct kiln_cpu_device *cpu = job->cpu;
    const struct kiln_dims *d = &cpu->base.table->dims;
    float *gradient = cpu->base.gradients.embedding;
    (void)index;
    (void)scratch;
    if (!cpu->base.gradients.add) {
        for (size_t v = 0; v < d->vocab; v++) {
            memset(gradient + v * d->dim + first, 0, columns * sizeof *gradient);
        }
    }
    cpu->kernels.embed_bwd(gradient + first, job->dx + first, job->tokens, cpu->tokens, d->dim,
                           columns);
}

enum kiln_status kiln_cpu_embed_backward(struct kiln_device *device, const uint32_t *tokens,
                                         const void *dx, struct kiln_err *err) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    struct embed_job job = {.cpu = cpu, .tokens = tokens, .dx = dx};
    const double start = kiln_now_s();
    (void)err;
    if (device->gradients.embedding == NULL) {
        return KILN_OK;
    }
    kiln_rows(&cpu->workers, device->table->dims.dim, 64, scatter_columns, &job);
    kiln_device_span(device, KILN_SPAN_EVALUATE, "embed_bwd", KILN_NO_LAYER, start);
    return KILN_OK;
}

enum kiln_status kiln_cpu_head(struct kiln_device *device, const void *x, const uint32_t *targets,
                               float scale, void *dx, double *loss, struct kiln_err *err) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    size_t d = device->table->dims.dim;
    const double start = kiln_now_s();
    (void)err;
    cpu->head.spans = device->spans;
    for (size_t first = 0; first < cpu->tokens; first += KILN_HEAD_ROWS) {
        size_t n = cpu->tokens - first < KILN_HEAD_ROWS ? cpu->tokens - first : KILN_HEAD_ROWS;
        const float *rows = (const float *)x + first * d;
        kiln_head_forward(&cpu->head, rows, targets + first, n, scale, dx != NULL,
                          cpu->losses + first);
        if (dx) {
            const struct kiln_gradients block =
                kiln_block_gradients(&device->gradients, first == 0, first + n == cpu->tokens);
            kiln_head_backward(&cpu->head, rows, n, (float *)dx + first * d, &block);
        }
    }
    *loss = 0.0;
    for (size_t i = 0; i < cpu->tokens; i++) {
        *loss += (double)cpu->losses[i];
    }
    kiln_device_span(device, KILN_SPAN_EVALUATE, "head", KILN_NO_LAYER, start);
    return KILN_OK;
}

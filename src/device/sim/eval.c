/* SPDX-License-Identifier: MIT
 *
 * eval.c: the interpreter's loop: read the inputs, run node by node, write the outputs.
 */
#include "device/sim/eval.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "device/sim/eval_int.h"

enum kiln_status kiln_sim_machine_open(struct kiln_sim_machine *machine, struct kiln_pool *pool,
                                       const struct kiln_sim_numbers *numbers,
                                       struct kiln_err *err) {
    *machine = (struct kiln_sim_machine){.numbers = *numbers};
    KILN_TRY(kiln_kernels_choose(KILN_PRECISION_FP32, &machine->kernels, err));
    return kiln_workers_open(&machine->workers, &machine->kernels, pool, KILN_GEMM_SCRATCH, err);
}

void kiln_sim_machine_close(struct kiln_sim_machine *machine) {
    if (machine->workers.pool) {
        kiln_workers_close(&machine->workers);
    }
    kiln_free(machine->workspace);
    *machine = (struct kiln_sim_machine){0};
}

enum kiln_status kiln_sim_machine_grow(struct kiln_sim_machine *machine, size_t floats,
                                       struct kiln_err *err) {
    if (floats <= machine->floats) {
        return KILN_OK;
    }
    float *larger = kiln_alloc(floats, sizeof *larger);
    KILN_REQUIRE(larger, err, KILN_ENOMEM, "no memory for %zu bytes of a program's values",
                 floats * sizeof *larger);
    kiln_free(machine->workspace);
    machine->workspace = larger;
    machine->floats = floats;
    return KILN_OK;
}

size_t kiln_sim_bytes(const struct kiln_mil_type *type) {
    return kiln_mil_elements(type) * kiln_mil_scalar_bytes(type->scalar);
}

/* ---- values --------------------------------------------------------------------------------- */

static const struct kiln_mil_type *type_of(const struct kiln_sim_run *run, size_t value) {
    return &run->plan->graph->values[value].type;
}

static float *place_of(const struct kiln_sim_run *run, size_t value) {
    return run->machine->workspace + run->plan->places[value].offset;
}

const float *kiln_sim_in(const struct kiln_sim_run *run, size_t i) {
    size_t value = i < run->node->n_in ? run->node->in[i] : SIZE_MAX;
    if (value == SIZE_MAX) {
        return NULL;
    }
    const float *constant = run->plan->places[value].constant;
    return constant ? constant : place_of(run, value);
}

float *kiln_sim_out(const struct kiln_sim_run *run, size_t i) {
    return place_of(run, run->node->out[i]);
}

const struct kiln_mil_type *kiln_sim_in_type(const struct kiln_sim_run *run, size_t i) {
    return type_of(run, run->node->in[i]);
}

const struct kiln_mil_type *kiln_sim_out_type(const struct kiln_sim_run *run, size_t i) {
    return type_of(run, run->node->out[i]);
}

bool kiln_sim_is_view(const struct kiln_sim_run *run, size_t i) {
    return run->plan->places[run->node->out[i]].view;
}

size_t kiln_sim_extent(const struct kiln_mil_type *type, size_t first, size_t last) {
    size_t n = 1;
    for (size_t i = first; i < last; i++) {
        n *= type->dims[i];
    }
    return n;
}

struct kiln_sim_walk kiln_sim_walk_of(const struct kiln_mil_type *type, uint32_t axes) {
    struct kiln_sim_walk walk = {.count = 1};
    for (size_t i = 0; i < type->rank; i++) {
        if (axes >> i & 1) {
            walk.dims[walk.rank] = type->dims[i];
            walk.step[walk.rank++] = kiln_sim_extent(type, i + 1, type->rank);
            walk.count *= type->dims[i];
        }
    }
    return walk;
}

/* ---- numbers -------------------------------------------------------------------------------- */

/* The least and the greatest number of an integer type. */
static void range_of(enum kiln_mil_scalar scalar, double *low, double *high) {
    size_t bits = 8 * kiln_mil_scalar_bytes(scalar);
    bool is_signed =
        scalar == KILN_MIL_INT8 || scalar == KILN_MIL_INT16 || scalar == KILN_MIL_INT32;
    *high = ldexp(1.0, (int)bits - (is_signed ? 1 : 0)) - 1.0;
    *low = is_signed ? -*high - 1.0 : 0.0;
}

/* To an integer type: towards zero, bounded. NaN gives 0. */
static void store_integers(enum kiln_mil_scalar scalar, float *x, size_t n) {
    double low = 0.0, high = 0.0;
    range_of(scalar, &low, &high);
    for (size_t i = 0; i < n; i++) {
        double v = isnan(x[i]) ? 0.0 : trunc((double)x[i]);
        x[i] = scalar == KILN_MIL_BOOL ? (float)(x[i] != 0.0f) : (float)fmin(fmax(v, low), high);
    }
}

void kiln_sim_store(const struct kiln_sim_run *run, float *x, size_t n) {
    enum kiln_mil_scalar scalar = kiln_sim_out_type(run, 0)->scalar;
    if (scalar != KILN_MIL_FP16 && scalar != KILN_MIL_FP32) {
        store_integers(scalar, x, n);
        return;
    }
    if (scalar == KILN_MIL_FP16) {
        run->machine->kernels.half_round(x, n);
    }
    if (run->machine->numbers.nan != KILN_SIM_NAN_KEEP) {
        float other = run->machine->numbers.nan == KILN_SIM_NAN_ZERO ? 0.0f : INFINITY;
        for (size_t i = 0; i < n; i++) {
            x[i] = x[i] == x[i] ? x[i] : other; /* NOLINT(misc-redundant-expression): NaN */
        }
    }
}

/* ---- surfaces ------------------------------------------------------------------------------- */

struct transfer {
    const struct kiln_sim_machine *machine;
    enum kiln_mil_scalar scalar;
    float *values;
    void *bytes;
    size_t n;
};

#define EACH(TO, FROM)                               \
    for (size_t i = 0; i < n; i++) {                 \
        ((TO *)to)[i] = (TO)((const FROM *)from)[i]; \
    }                                                \
    break

static void read_some(void *context, size_t task, size_t thread) {
    const struct transfer *t = context;
    size_t first = task * KILN_SIM_CHUNK, n = kiln_least(t->n - first, KILN_SIM_CHUNK);
    float *to = t->values + first;
    const void *from = (char *)t->bytes + first * kiln_mil_scalar_bytes(t->scalar);
    (void)thread;
    switch (t->scalar) {
        case KILN_MIL_FP16:
            t->machine->kernels.half_to(to, from, n);
            break;
        case KILN_MIL_FP32:
            memcpy(to, from, n * sizeof *to);
            break;
        case KILN_MIL_INT8:
            EACH(float, int8_t);
        case KILN_MIL_UINT8:
            EACH(float, uint8_t);
        case KILN_MIL_BOOL:
            for (size_t i = 0; i < n; i++) {
                to[i] = ((const uint8_t *)from)[i] != 0 ? 1.0f : 0.0f;
            }
            break;
        case KILN_MIL_INT16:
            EACH(float, int16_t);
        case KILN_MIL_UINT16:
            EACH(float, uint16_t);
        case KILN_MIL_INT32:
            EACH(float, int32_t);
        case KILN_MIL_UINT64:
            EACH(float, uint64_t);
        case KILN_MIL_STRING:
        case KILN_MIL_SCALARS:
            assert(false);
    }
}

/* Values are within their types, but the largest int32 and uint64 are not fp32 numbers. */
static void write_wide(enum kiln_mil_scalar scalar, void *to, const float *from, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (scalar == KILN_MIL_INT32) {
            ((int32_t *)to)[i] = from[i] >= 0x1p31f ? INT32_MAX : (int32_t)from[i];
        } else {
            ((uint64_t *)to)[i] = from[i] >= 0x1p64f ? UINT64_MAX : (uint64_t)from[i];
        }
    }
}

static void write_some(void *context, size_t task, size_t thread) {
    const struct transfer *t = context;
    size_t first = task * KILN_SIM_CHUNK, n = kiln_least(t->n - first, KILN_SIM_CHUNK);
    const float *from = t->values + first;
    void *to = (char *)t->bytes + first * kiln_mil_scalar_bytes(t->scalar);
    (void)thread;
    switch (t->scalar) {
        case KILN_MIL_FP16:
            t->machine->kernels.half_of(to, from, n);
            break;
        case KILN_MIL_FP32:
            memcpy(to, from, n * sizeof *from);
            break;
        case KILN_MIL_INT8:
            EACH(int8_t, float);
        case KILN_MIL_UINT8:
        case KILN_MIL_BOOL:
            EACH(uint8_t, float);
        case KILN_MIL_INT16:
            EACH(int16_t, float);
        case KILN_MIL_UINT16:
            EACH(uint16_t, float);
        case KILN_MIL_INT32:
        case KILN_MIL_UINT64:
            write_wide(t->scalar, to, from, n);
            break;
        case KILN_MIL_STRING:
        case KILN_MIL_SCALARS:
            assert(false);
    }
}
#undef EACH

static void transfer(const struct kiln_sim_machine *machine, const struct kiln_mil_type *type,
                     float *values, void *bytes, kiln_task_fn fn) {
    struct transfer t = {machine, type->scalar, values, bytes, kiln_mil_elements(type)};
    kiln_pool_run(machine->workers.pool, (t.n + KILN_SIM_CHUNK - 1) / KILN_SIM_CHUNK, fn, &t);
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void run_node(const struct kiln_sim_run *run) {
    switch (run->node->op) {
        case KILN_MIL_CONV:
            kiln_sim_conv(run);
            break;
        case KILN_MIL_MATMUL:
            kiln_sim_matmul(run);
            break;
        case KILN_MIL_SDPA:
            kiln_sim_attention(run);
            break;
        case KILN_MIL_SOFTMAX:
            kiln_sim_softmax(run);
            break;
        case KILN_MIL_LAYER_NORM:
            kiln_sim_layer_norm(run);
            break;
        case KILN_MIL_REDUCE_SUM:
        case KILN_MIL_REDUCE_MEAN:
        case KILN_MIL_REDUCE_MAX:
            kiln_sim_reduce(run);
            break;
        case KILN_MIL_TRANSPOSE:
            kiln_sim_transpose(run);
            break;
        case KILN_MIL_SLICE_BY_SIZE:
        case KILN_MIL_SLICE_BY_INDEX:
            kiln_sim_slice(run);
            break;
        case KILN_MIL_CONCAT:
            kiln_sim_concat(run);
            break;
        case KILN_MIL_SPLIT:
            kiln_sim_split(run);
            break;
        case KILN_MIL_RESHAPE:
        case KILN_MIL_IDENTITY:
            break; /* views of their inputs */
        default:
            kiln_sim_elementwise(run);
    }
}

void kiln_sim_evaluate(struct kiln_sim_machine *machine, const struct kiln_sim_plan *plan,
                       const void *const *inputs, void *const *outputs) {
    const struct kiln_mil_graph *graph = plan->graph;
    assert(machine->floats >= plan->floats);
    for (size_t i = 0; i < graph->n_inputs; i++) {
        size_t value = graph->inputs[i];
        transfer(machine, &graph->values[value].type,
                 machine->workspace + plan->places[value].offset, (void *)(uintptr_t)inputs[i],
                 read_some);
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        struct kiln_sim_run run = {machine, plan, &graph->nodes[i],
                                   machine->workspace + plan->scratch[i]};
        run_node(&run);
    }
    for (size_t i = 0; i < graph->n_outputs; i++) {
        const struct kiln_sim_place *place = &plan->places[graph->outputs[i]];
        float *values = place->constant ? (float *)(uintptr_t)place->constant
                                        : machine->workspace + place->offset;
        transfer(machine, &graph->values[graph->outputs[i]].type, values, outputs[i], write_some);
    }
}

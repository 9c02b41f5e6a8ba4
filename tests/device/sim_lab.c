/* SPDX-License-Identifier: MIT */
#include "device/sim_lab.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/kernel.h"
#include "malloc_count.h"

const struct kiln_sim_numbers sim_numbers = {.nan = KILN_SIM_NAN_INF, .matmul_limit = 32752.0f};

/* What a test keeps to its end, so that no sanitizer sees a leak. */
static void *kept[4096];
static size_t n_kept;
static void free_kept(void) {
    for (size_t i = 0; i < n_kept; i++) {
        kiln_free(kept[i]);
    }
}
static void *keep(void *block) {
    if (n_kept == 0) {
        CHECK_EQ(atexit(free_kept), 0);
    }
    CHECK(block != NULL && n_kept < sizeof kept / sizeof kept[0]);
    kept[n_kept++] = block;
    return block;
}

/* ---- elements in a tensor's own type -------------------------------------------------------- */

static void put(enum kiln_mil_scalar scalar, void *bytes, size_t i, float x) {
    switch (scalar) {
        case KILN_MIL_FP16:
            ((uint16_t *)bytes)[i] = kiln_f32_to_f16(x);
            break;
        case KILN_MIL_FP32:
            ((float *)bytes)[i] = x;
            break;
        case KILN_MIL_INT8:
            ((int8_t *)bytes)[i] = (int8_t)x;
            break;
        case KILN_MIL_UINT8:
        case KILN_MIL_BOOL:
            ((uint8_t *)bytes)[i] = (uint8_t)x;
            break;
        case KILN_MIL_INT32:
            ((int32_t *)bytes)[i] = (int32_t)x;
            break;
        default:
            FAIL("type %s is not in sim_lab.c", kiln_mil_scalar_name(scalar));
    }
}

static float get(enum kiln_mil_scalar scalar, const void *bytes, size_t i) {
    switch (scalar) {
        case KILN_MIL_FP16:
            return kiln_f16_to_f32(((const uint16_t *)bytes)[i]);
        case KILN_MIL_FP32:
            return ((const float *)bytes)[i];
        case KILN_MIL_INT8:
            return (float)((const int8_t *)bytes)[i];
        case KILN_MIL_UINT8:
        case KILN_MIL_BOOL:
            return (float)((const uint8_t *)bytes)[i];
        case KILN_MIL_INT32:
            return (float)((const int32_t *)bytes)[i];
        default:
            FAIL("type %s is not in sim_lab.c", kiln_mil_scalar_name(scalar));
            return 0.0f;
    }
}

/* ---- runs ----------------------------------------------------------------------------------- */

struct arrays {
    void *bytes[SIM_ARRAYS];
};

static void open_arrays(const struct kiln_mil_graph *graph, const size_t *values, size_t n,
                        float *const *from, struct arrays *out) {
    CHECK(n <= SIM_ARRAYS);
    for (size_t i = 0; i < n; i++) {
        const struct kiln_mil_type *type = &graph->values[values[i]].type;
        CHECK(!from || from[i]); /* the program has as many inputs as arrays */
        out->bytes[i] = kiln_alloc(kiln_sim_bytes(type), 1);
        for (size_t j = 0; from && j < kiln_mil_elements(type); j++) {
            put(type->scalar, out->bytes[i], j, from[i][j]);
        }
    }
}

static void evaluate(struct kiln_sim_machine *machine, const struct kiln_sim_plan *plan,
                     float *const *inputs, float *const *outputs) {
    const struct kiln_mil_graph *graph = plan->graph;
    struct arrays in = {{0}}, out = {{0}};
    open_arrays(graph, graph->inputs, graph->n_inputs, inputs, &in);
    open_arrays(graph, graph->outputs, graph->n_outputs, NULL, &out);
    memset(machine->workspace, 0xff, machine->floats * sizeof(float)); /* NaN: what is not written
                                                                        * shows */
    uint64_t before = malloc_count();
    kiln_sim_evaluate(machine, plan, (const void *const *)in.bytes, out.bytes);
    CHECK_EQ(malloc_count(), before);
    for (size_t i = 0; i < graph->n_outputs; i++) {
        const struct kiln_mil_type *type = &graph->values[graph->outputs[i]].type;
        CHECK(outputs[i]);
        for (size_t j = 0; j < kiln_mil_elements(type); j++) {
            outputs[i][j] = get(type->scalar, out.bytes[i], j);
        }
    }
    for (size_t i = 0; i < SIM_ARRAYS; i++) {
        kiln_free(in.bytes[i]);
        kiln_free(out.bytes[i]);
    }
}

void sim_run_on(size_t threads, const struct kiln_sim_numbers *numbers, const char *text,
                float *const *inputs, float *const *outputs) {
    struct kiln_pool *pool;
    struct kiln_sim_machine machine;
    struct kiln_mil_graph graph;
    struct kiln_sim_plan plan;
    struct kiln_err err;
    mil_read(text, NULL, 0, &graph);
    CHECK_OK(kiln_pool_create(threads, &pool, &err), &err);
    CHECK_OK(kiln_sim_machine_open(&machine, pool, numbers, &err), &err);
    CHECK_OK(kiln_sim_plan_open(&graph, numbers, &plan, &err), &err);
    CHECK_OK(kiln_sim_machine_grow(&machine, plan.floats, &err), &err);
    evaluate(&machine, &plan, inputs, outputs);
    kiln_sim_plan_close(&plan);
    kiln_sim_machine_close(&machine);
    kiln_pool_destroy(pool);
    kiln_mil_close(&graph);
}

void sim_run(const char *text, float *const *inputs, float *const *outputs) {
    sim_run_on(2, &sim_numbers, text, inputs, outputs);
}

void sim_run_one(const char *text, float *in, float *out) {
    float *const inputs[SIM_ARRAYS] = {in}, *const outputs[SIM_ARRAYS] = {out};
    sim_run(text, inputs, outputs);
}

/* ---- values --------------------------------------------------------------------------------- */

float *sim_zeros(size_t n) { return keep(kiln_alloc(n, sizeof(float))); }

float sim_half(double x) { return kiln_f16_to_f32(kiln_f32_to_f16((float)x)); }

float *sim_values(size_t n, float scale) {
    static uint64_t seed = 1;
    float *x = sim_zeros(n);
    for (size_t i = 0; i < n; i++) {
        double sum = 0.0; /* of uniform numbers: near enough to normal */
        for (int k = 0; k < 4; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            sum += (double)(seed >> 40) / 0x1p24 - 0.5;
        }
        x[i] = sim_half(sum * 1.7 * (double)scale);
    }
    return x;
}

void sim_near(const char *what, size_t i, double got, double want, double error) {
    double size = fmax(fabs(want), 0x1p-14), unit = ldexp(1.0, ilogb(size) - 10);
    bool same = got == (double)sim_half(want); /* infinities */
    if (!same && !(fabs(got - want) <= error + 0.5 * unit)) {
        FAIL("%s[%zu]: got %.9g, want %.9g (%.9g in fp16)", what, i, got, want,
             (double)sim_half(want));
    }
}

void sim_close(const char *what, size_t i, double got, double want, double units) {
    sim_near(what, i, got, want, units * ldexp(1.0, ilogb(fmax(fabs(want), 0x1p-14)) - 10));
}

const char *sim_text(const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = keep(kiln_alloc((size_t)n + 1, 1));
    va_start(args, format);
    vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

const char *sim_list(const float *values, size_t n) {
    enum { WIDEST = 32 };
    char *text = keep(kiln_alloc(n * WIDEST + 1, 1));
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        at += (size_t)snprintf(text + at, WIDEST, "%s%.9g", i ? "," : "", (double)values[i]);
    }
    return text;
}

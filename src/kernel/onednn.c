/* SPDX-License-Identifier: MIT
 *
 * onednn.c: bf16 products by oneDNN, one single-threaded call a block, in kiln's packed format.
 *
 * oneDNN's own threading would change bits with the number of threads, so every call runs on its
 * caller alone: its OpenMP runtime is told so once per thread. A primitive is made the first time
 * a thread meets a shape and kept; a shape that oneDNN refuses falls back to own code, always.
 */
#include "kernel/kernel.h"

#include <stdlib.h>
#include <string.h>

#if KILN_HAVE_DNNL
#include <dlfcn.h>
#include <pthread.h>
#include <oneapi/dnnl/dnnl.h>

#include "base/mem.h"

/* What makes two blocks the same primitive. */
struct shape {
    size_t m, n, k, lda, ldc;
    size_t c_operand, sum; /* 0 or 1; no padding, so shapes compare as bytes */
};

struct primitive {
    struct shape shape;
    dnnl_primitive_t primitive; /* NULL: oneDNN refused, use own code */
    dnnl_memory_t a, b, c, scratchpad;
    void *scratch;
};

/* Per thread: an open-addressed table, so that no lock is taken and memory objects are private. */
enum { SLOTS = 512 };
static _Thread_local struct {
    struct primitive *slot;
    size_t used;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    bool failed;
} mine;

static void stop_thread(void *unused) {
    (void)unused;
    for (size_t i = 0; i < SLOTS; i++) {
        struct primitive *p = &mine.slot[i];
        dnnl_primitive_destroy(p->primitive);
        dnnl_memory_destroy(p->a);
        dnnl_memory_destroy(p->b);
        dnnl_memory_destroy(p->c);
        dnnl_memory_destroy(p->scratchpad);
        kiln_free(p->scratch);
    }
    kiln_free(mine.slot);
    dnnl_stream_destroy(mine.stream);
    dnnl_engine_destroy(mine.engine);
    mine.slot = NULL;
}

/* A thread that ends takes its table along: pools come and go in one process. */
static pthread_key_t ending;
static bool ending_works;
static void make_ending(void) { ending_works = pthread_key_create(&ending, stop_thread) == 0; }

static bool start_thread(void) {
    if (mine.slot || mine.failed) {
        return !mine.failed;
    }
    void (*set_threads)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (set_threads) {
        set_threads(1);
    }
    mine.slot = kiln_alloc(SLOTS, sizeof *mine.slot);
    mine.failed =
        !mine.slot || dnnl_engine_create(&mine.engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&mine.stream, mine.engine, dnnl_stream_default_flags) != dnnl_success;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_ending);
    if (mine.slot && ending_works) {
        pthread_setspecific(ending, &mine);
    }
    return !mine.failed;
}

static bool describe(const struct shape *s, dnnl_memory_desc_t md[3]) {
    const dnnl_dims_t a = {(dnnl_dim_t)s->m, (dnnl_dim_t)s->k}, a_strides = {(dnnl_dim_t)s->lda, 1};
    const dnnl_dims_t b = {(dnnl_dim_t)s->k, (dnnl_dim_t)s->n};
    const dnnl_dims_t c = {(dnnl_dim_t)s->m, (dnnl_dim_t)s->n}, c_strides = {(dnnl_dim_t)s->ldc, 1};
    return dnnl_memory_desc_init_by_strides(&md[0], 2, a, dnnl_bf16, a_strides) == dnnl_success &&
           dnnl_memory_desc_init_by_tag(&md[1], 2, b, dnnl_bf16, dnnl_BA16a64b2a) == dnnl_success &&
           dnnl_memory_desc_init_by_strides(&md[2], 2, c, s->c_operand ? dnnl_bf16 : dnnl_f32,
                                            c_strides) == dnnl_success;
}

/* For shapes that its fast code does not take in this format oneDNN offers a plain loop, far slower
 * than ours. */
static bool is_reference(dnnl_primitive_desc_t pd) {
    const char *name = NULL;
    return dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) != dnnl_success ||
           !name || strstr(name, "ref") != NULL;
}

static dnnl_primitive_desc_t choose(const struct shape *s, const dnnl_memory_desc_t md[3]) {
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_primitive_desc_t pd = NULL;
    if (dnnl_matmul_desc_init(&matmul, &md[0], &md[1], NULL, &md[2]) == dnnl_success &&
        dnnl_primitive_attr_create(&attr) == dnnl_success &&
        dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success &&
        dnnl_post_ops_create(&post) == dnnl_success &&
        (!s->sum || dnnl_post_ops_append_sum(post, 1.0f) == dnnl_success) &&
        dnnl_primitive_attr_set_post_ops(attr, post) == dnnl_success &&
        dnnl_primitive_desc_create(&pd, &matmul, attr, mine.engine, NULL) != dnnl_success) {
        pd = NULL;
    }
    dnnl_post_ops_destroy(post);
    dnnl_primitive_attr_destroy(attr);
    if (pd && is_reference(pd)) {
        dnnl_primitive_desc_destroy(pd);
        pd = NULL;
    }
    return pd;
}

static void make(struct primitive *p) {
    dnnl_memory_desc_t md[3];
    dnnl_primitive_desc_t pd = describe(&p->shape, md) ? choose(&p->shape, md) : NULL;
    if (!pd) {
        return;
    }
    const dnnl_memory_desc_t *pad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    p->scratch = kiln_alloc(dnnl_memory_desc_get_size(pad) + 64, 1);
    bool ok = p->scratch &&
              dnnl_memory_create(&p->a, &md[0], mine.engine, DNNL_MEMORY_NONE) == dnnl_success &&
              dnnl_memory_create(&p->b, &md[1], mine.engine, DNNL_MEMORY_NONE) == dnnl_success &&
              dnnl_memory_create(&p->c, &md[2], mine.engine, DNNL_MEMORY_NONE) == dnnl_success &&
              dnnl_memory_create(&p->scratchpad, pad, mine.engine, p->scratch) == dnnl_success &&
              dnnl_primitive_create(&p->primitive, pd) == dnnl_success;
    if (!ok) {
        p->primitive = NULL;
    }
    dnnl_primitive_desc_destroy(pd);
}

static struct primitive *find(const struct shape *s) {
    size_t at = s->m * 31 + s->n * 131 + s->k * 1031 + s->lda * 7 + s->ldc * 17 + s->c_operand * 3 +
                s->sum * 5;
    for (size_t i = 0; i < SLOTS; i++) {
        struct primitive *p = &mine.slot[(at + i) % SLOTS];
        if (p->shape.m == 0) {
            if (mine.used >= SLOTS / 2) {
                return NULL;
            }
            mine.used++;
            p->shape = *s;
            make(p);
            return p;
        }
        if (memcmp(&p->shape, s, sizeof *s) == 0) {
            return p;
        }
    }
    return NULL;
}

static void (*own_gemm)(const struct kiln_gemm *);

static void gemm_onednn(const struct kiln_gemm *g) {
    const struct shape s = {g->m, g->n, g->k, g->lda, g->ldc, g->c_operand, g->add != NULL};
    struct primitive *p = start_thread() && !(s.sum && s.c_operand) ? find(&s) : NULL;
    if (!p || !p->primitive) {
        own_gemm(g);
        return;
    }
    if (g->add && g->add != g->c) {
        for (size_t i = 0; i < g->m; i++) {
            memcpy((float *)g->c + i * g->ldc, g->add + i * g->ldadd, g->n * sizeof(float));
        }
    }
    union {
        const void *in;
        void *out;
    } a = {g->a}, b = {g->b}; /* oneDNN takes inputs without const */
    dnnl_memory_set_data_handle(p->a, a.out);
    dnnl_memory_set_data_handle(p->b, b.out);
    dnnl_memory_set_data_handle(p->c, g->c);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p->a},
                              {DNNL_ARG_WEIGHTS, p->b},
                              {DNNL_ARG_DST, p->c},
                              {DNNL_ARG_SCRATCHPAD, p->scratchpad}};
    if (dnnl_primitive_execute(p->primitive, mine.stream, 4, args) != dnnl_success) {
        own_gemm(g);
    }
}

bool kiln_kernels_onednn(struct kiln_kernels *kernels) {
    if (kernels->precision != KILN_PRECISION_BF16 || !start_thread()) {
        return false;
    }
    /* One trial shape tells whether this machine and build can do it at all. */
    const struct shape trial = {64, 64, 64, 64, 64, 0, 0};
    struct primitive *p = find(&trial);
    if (!p || !p->primitive) {
        return false;
    }
    own_gemm = kernels->gemm_own;
    kernels->gemm = gemm_onednn;
    kernels->provider = "onednn";
    kernels->few_as_many = kernels->rows_apart = false; /* its sums have an order of their own */
    return true;
}
#else
bool kiln_kernels_onednn(struct kiln_kernels *kernels) {
    (void)kernels;
    return false;
}
#endif

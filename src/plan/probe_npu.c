/* SPDX-License-Identifier: MIT
 *
 * probe_npu.c: what is asked of a Neural Engine, or of the simulator, through its runtime.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "device/ane/ane.h"
#include "device/ane/programs.h"
#include "device/sim/sim.h"
#include "plan/probe_int.h"

/* Channels of the convolutions whose times are fitted. The fastest of three compiles counts: what
 * else the machine does makes them slower, never faster. */
static const size_t sizes[] = {64, 128, 256, 512, 1024, 1536, 2048};
enum {
    SIZES = sizeof sizes / sizeof sizes[0],
    WIDTH = 256,
    TINY = 64,
    MOST = 1000,
    QOS = 64,
    TIMES = 3
};

enum kiln_status kiln_probe_open_runtime(const struct kiln_device_choice *device,
                                         struct kiln_pool *pool, struct kiln_npu_runtime **out,
                                         struct kiln_err *err) {
    struct kiln_sim_options sim;
    if (device->id == KILN_SIM) {
        kiln_sim_options_default(&sim);
        sim.times.scale = device->sim_time;
        if (device->times.tflops > 0) {
            sim.times.device = device->times;
        }
        if (device->sim != NULL) {
            KILN_TRY(kiln_sim_options_set(&sim, device->sim, err));
        }
        return kiln_sim_open(pool, &sim, out, err);
    }
    KILN_REQUIRE(kiln_apple_runtime, err, KILN_EUNSUPPORTED,
                 "device ane: this is no Mac; --device sim runs the same programs on any machine");
    return kiln_apple_runtime(out, err);
}

/* What the parts of a probe share. */
struct asked {
    const struct kiln_probe_options *options;
    struct kiln_npu_runtime *runtime;
    struct kiln_probe *out;
    struct kiln_probe_program tiny; /* its evaluation is little but a dispatch */
    double tiny_s;
};

/* ---- compile, load and evaluation against size -------------------------------------------------
 */

struct sized {
    double bytes, flop, compile_s, load_s, evaluate_s;
};

static enum kiln_status measure_size(struct asked *a, size_t channels, struct sized *out,
                                     struct kiln_err *err) {
    *out = (struct sized){.compile_s = HUGE_VAL, .load_s = HUGE_VAL};
    for (int i = 0; i < TIMES; i++) {
        struct kiln_probe_program p;
        KILN_TRY(kiln_probe_open(a->runtime, channels, WIDTH, 1, channels, &p, err));
        enum kiln_status status = KILN_OK;
        if (i == 0) {
            status = kiln_probe_evaluate(a->runtime, &p, &out->evaluate_s, err);
        }
        out->bytes = (double)p.weight_bytes;
        out->flop = p.flop;
        out->compile_s = fmin(out->compile_s, p.compile_s);
        out->load_s = fmin(out->load_s, p.load_s);
        kiln_probe_close(a->runtime, &p);
        KILN_TRY(status);
    }
    return KILN_OK;
}

/* compile_s = fixed + bytes * each, least squares; the root of the mean squared residual. */
static double fit(const struct sized *s, size_t n, double *fixed, double *each) {
    double x = 0, y = 0, xx = 0, xy = 0, left = 0;
    for (size_t i = 0; i < n; i++) {
        x += s[i].bytes / (double)n;
        y += s[i].compile_s / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        xx += (s[i].bytes - x) * (s[i].bytes - x);
        xy += (s[i].bytes - x) * (s[i].compile_s - y);
    }
    *each = xy > 0 ? xy / xx : 0; /* noise: weights cost nothing that can be seen */
    *fixed = fmax(0, y - *each * x);
    for (size_t i = 0; i < n; i++) {
        const double miss = s[i].compile_s - *fixed - *each * s[i].bytes;
        left += miss * miss / (double)n;
    }
    return sqrt(left);
}

static void tell_sizes(struct asked *a, const struct sized *s) {
    double fixed, each, loads[SIZES], wide = 0, narrow = 0;
    for (size_t i = 0; i < SIZES; i++) {
        char name[64], value[96];
        snprintf(name, sizeof name, "a convolution of %zu channels", sizes[i]);
        snprintf(value, sizeof value, "compile %.4g, load %.4g, evaluate %.4g ms",
                 s[i].compile_s * 1e3, s[i].load_s * 1e3, s[i].evaluate_s * 1e3);
        kiln_probe_how(
            kiln_probe_add(a->out, name, value),
            "%.2f MB of weights, %.3g GFLOP over %d tokens, %.3g TFLOP/s; the fastest of "
            "three compiles, the median evaluation",
            s[i].bytes * 1e-6, s[i].flop * 1e-9, WIDTH, s[i].flop / s[i].evaluate_s * 1e-12);
        loads[i] = s[i].load_s;
        wide += s[i].flop * s[i].flop;
        narrow += s[i].flop * fmax(0, s[i].evaluate_s - a->tiny_s);
    }
    const double residual = fit(s, SIZES, &fixed, &each);
    kiln_probe_figure(a->out, "compile_s", fixed,
                      "least squares through the %d sizes above; residual %.3g ms", SIZES,
                      residual * 1e3);
    kiln_probe_figure(a->out, "compile_gb_s", each > 0 ? 1e-9 / each : 0,
                      "the slope of the same line%s; residual %.3g ms",
                      each > 0 ? "" : ", which does not rise: weights cost nothing (0)",
                      residual * 1e3);
    kiln_probe_figure(a->out, "load_s", kiln_probe_median(loads, SIZES),
                      "median of the sizes above");
    kiln_probe_figure(a->out, "dispatch_s", a->tiny_s,
                      "an evaluation of a convolution of %d channels over %d tokens, median", TINY,
                      TINY);
    if (narrow > 0) {
        kiln_probe_figure(a->out, "tflops", wide / narrow * 1e-12,
                          "evaluations of the sizes above less dispatch_s, least squares");
    }
}

static enum kiln_status ask_sizes(struct asked *a, struct kiln_err *err) {
    struct sized s[SIZES];
    kiln_probe_doing(a->options, "compiling, loading and evaluating by size");
    for (size_t i = 0; i < SIZES; i++) {
        KILN_TRY(measure_size(a, sizes[i], &s[i], err));
    }
    tell_sizes(a, s);
    return KILN_OK;
}

/* Stacks of convolutions: as fast as the device gets. */
static enum kiln_status ask_peak(struct asked *a, struct kiln_err *err) {
    static const size_t stacks[][3] = {{512, 256, 16}, {512, 512, 32}}; /* channels, width, depth */
    double best = 0;
    size_t at = 0;
    kiln_probe_doing(a->options, "stacked convolutions");
    for (size_t i = 0; i < sizeof stacks / sizeof stacks[0]; i++) {
        struct kiln_probe_program p;
        double seconds = 0;
        KILN_TRY(kiln_probe_open(a->runtime, stacks[i][0], stacks[i][1], stacks[i][2], 3, &p, err));
        const double flop = p.flop;
        const enum kiln_status status = kiln_probe_evaluate(a->runtime, &p, &seconds, err);
        kiln_probe_close(a->runtime, &p);
        KILN_TRY(status);
        if (flop / seconds > best) {
            best = flop / seconds;
            at = i;
        }
    }
    kiln_probe_figure(a->out, "ceiling_tflops", best * 1e-12,
                      "%zu convolutions of %zu channels in one program, %zu tokens: the faster of "
                      "two stacks",
                      stacks[at][2], stacks[at][0], stacks[at][1]);
    return KILN_OK;
}

/* ---- answers -----------------------------------------------------------------------------------
 */

static enum kiln_status output_of(struct kiln_npu_runtime *runtime,
                                  const struct kiln_probe_program *p, void *to, size_t bytes,
                                  struct kiln_err *err) {
    KILN_TRY(runtime->ops->evaluate(runtime, p->program, p->binding, err));
    const void *from = runtime->ops->lock(runtime, p->out, true, err);
    if (from == NULL) {
        return KILN_EDEVICE;
    }
    memcpy(to, from, bytes);
    return runtime->ops->unlock(runtime, p->out, true, err);
}

/* p was compiled from seed 1 and `before` is what it gave, `fresh` what seed 2 gives compiled. */
static enum kiln_status reload(struct asked *a, struct kiln_probe_program *p, const void *before,
                               const void *fresh, void *after, size_t bytes, struct kiln_err *err) {
    struct kiln_npu_weight weights;
    struct kiln_err why;
    KILN_TRY(kiln_probe_weights(p->channels, 2, &weights, err));
    enum kiln_status status = a->runtime->ops->reload(a->runtime, p->program, &weights, 1, &why);
    kiln_probe_weights_free(&weights);
    if (status == KILN_OK) {
        status = output_of(a->runtime, p, after, bytes, &why);
    }
    const char *answer = "refused";
    if (status == KILN_OK) {
        answer = memcmp(after, fresh, bytes) == 0    ? "yes"
                 : memcmp(after, before, bytes) == 0 ? "no"
                                                     : "changes it, but wrongly";
    }
    struct kiln_probe_row *row =
        kiln_probe_add(a->out, "a rewritten weight file changes the result", answer);
    kiln_probe_how(
        row, "%s",
        status == KILN_OK
            ? "weights of a loaded program rewritten without a compile; its output "
              "compared, bit by bit, with that of a fresh compile and with its own before"
            : why.message);
    return KILN_OK;
}

static enum kiln_status ask_reload(struct asked *a, struct kiln_err *err) {
    struct kiln_probe_program one = {.channels = 0}, two = {.channels = 0};
    const size_t bytes = (size_t)256 * WIDTH * 2;
    char *memory = kiln_alloc(3, bytes);
    KILN_REQUIRE(memory, err, KILN_ENOMEM, "probe: no memory for three outputs");
    kiln_probe_doing(a->options, "rewritten weights");
    /* The fresh one first: a device that computes with what it compiled last is seen through. */
    enum kiln_status status = kiln_probe_open(a->runtime, 256, WIDTH, 1, 2, &two, err);
    if (status == KILN_OK) {
        status = kiln_probe_open(a->runtime, 256, WIDTH, 1, 1, &one, err);
    }
    if (status == KILN_OK) {
        status = output_of(a->runtime, &one, memory, bytes, err);
    }
    if (status == KILN_OK) {
        status = output_of(a->runtime, &two, memory + bytes, bytes, err);
    }
    if (status == KILN_OK && a->runtime->ops->reload != NULL) {
        status = reload(a, &one, memory, memory + bytes, memory + 2 * bytes, bytes, err);
    }
    kiln_probe_close(a->runtime, &two);
    kiln_probe_close(a->runtime, &one);
    kiln_free(memory);
    return status;
}

static void ask_chain(struct asked *a) {
    struct kiln_err why;
    struct kiln_npu_runtime *runtime = a->runtime;
    if (runtime->ops->chain == NULL) {
        kiln_probe_how(kiln_probe_add(a->out, "chaining", "not available"),
                       "%s has no chains to prepare", runtime->name);
        return;
    }
    const enum kiln_status status =
        runtime->ops->chain(runtime, a->tiny.program, a->tiny.in, a->tiny.out, &why);
    struct kiln_probe_row *row = kiln_probe_add(a->out, "chaining",
                                                status == KILN_OK             ? "prepared"
                                                : status == KILN_EUNSUPPORTED ? "not available"
                                                                              : "refused");
    kiln_probe_how(row, "%s",
                   status == KILN_OK ? "prepareChaining of one loaded program said yes; nothing "
                                       "was run by it"
                                     : why.message);
}

static void ask_qos(struct asked *a) {
    struct kiln_npu_runtime *runtime = a->runtime;
    struct kiln_err why, first = {.message = ""};
    double fastest = HUGE_VAL, slowest = 0;
    unsigned fast = 0, slow = 0, works = 0;
    char value[96];
    if (runtime->ops->evaluate_at == NULL) {
        kiln_probe_how(kiln_probe_add(a->out, "quality of service", "not available"), "%s has none",
                       runtime->name);
        return;
    }
    kiln_probe_doing(a->options, "quality of service");
    for (unsigned qos = 0; qos < QOS; qos++) {
        double times[9];
        size_t n = 0;
        for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
            const double start = kiln_now_s();
            if (runtime->ops->evaluate_at(runtime, a->tiny.program, a->tiny.binding, qos, &why) !=
                KILN_OK) {
                first = first.message[0] == '\0' ? why : first;
                break;
            }
            times[n++] = kiln_now_s() - start;
        }
        if (n < sizeof times / sizeof times[0]) {
            continue;
        }
        const double median = kiln_probe_median(times, n);
        works++;
        fast = median < fastest ? qos : fast;
        fastest = fmin(median, fastest);
        slow = median > slowest ? qos : slow;
        slowest = fmax(median, slowest);
    }
    snprintf(value, sizeof value, "%u of %d levels work", works, QOS);
    struct kiln_probe_row *row = kiln_probe_add(a->out, "quality of service", value);
    if (works > 0) {
        kiln_probe_how(row, "medians of 9 from %.4g ms at level %u to %.4g ms at level %u%s%s",
                       fastest * 1e3, fast, slowest * 1e3, slow, works < QOS ? "; others: " : "",
                       first.message);
    } else {
        kiln_probe_how(row, "%s", first.message);
    }
}

/* ---- evaluations beside a compile ---------------------------------------------------------------
 */

struct beside {
    struct kiln_npu_runtime *runtime;
    struct kiln_npu_weight weights;
    char *text;
    size_t bytes;
    atomic_int state; /* 0: not begun, 1: compiling, 2: done */
    double seconds;
    enum kiln_status status;
    struct kiln_err err;
    struct kiln_npu_program *program;
};

static void *compile_beside(void *context) {
    struct beside *b = context;
    const struct kiln_npu_source source = {.label = "probe, beside",
                                           .text = b->text,
                                           .bytes = b->bytes,
                                           .weights = &b->weights,
                                           .n_weights = 1};
    const double start = kiln_now_s();
    atomic_store(&b->state, 1);
    b->status = b->runtime->ops->compile(b->runtime, &source, &b->program, &b->err);
    b->seconds = kiln_now_s() - start;
    atomic_store(&b->state, 2);
    return NULL;
}

enum { BESIDE = 20000 };

/* Evaluate until the compile is done. Which were slowed is not known to the last one, so the median
 * is taken. */
static enum kiln_status evaluate_beside(struct asked *a, struct beside *b, double *times, size_t *n,
                                        struct kiln_err *err) {
    enum kiln_status status = KILN_OK;
    while (atomic_load(&b->state) == 0) {
    }
    while (status == KILN_OK && *n < BESIDE && atomic_load(&b->state) == 1) {
        const double start = kiln_now_s();
        status = a->runtime->ops->evaluate(a->runtime, a->tiny.program, a->tiny.binding, err);
        times[(*n)++] = kiln_now_s() - start;
    }
    return status;
}

static enum kiln_status run_beside(struct asked *a, struct beside *b, double *times,
                                   struct kiln_err *err) {
    pthread_t thread;
    double alone = 0;
    size_t n = 0;
    char value[96];
    KILN_TRY(kiln_probe_evaluate(a->runtime, &a->tiny, &alone, err));
    KILN_REQUIRE(pthread_create(&thread, NULL, compile_beside, b) == 0, err, KILN_ENOMEM,
                 "probe: no thread to compile on");
    const enum kiln_status status = evaluate_beside(a, b, times, &n, err);
    (void)pthread_join(thread, NULL);
    if (b->program != NULL) {
        a->runtime->ops->release(a->runtime, b->program);
    }
    KILN_TRY(status);
    KILN_REQUIRE(b->status == KILN_OK, err, b->status, "%s", b->err.message);
    snprintf(value, sizeof value, "%zu", n);
    kiln_probe_how(
        kiln_probe_add(a->out, "evaluations during one compile", value),
        "a convolution of %d channels, on one thread, while another compiled one of 1024 "
        "for %.4g ms",
        TINY, b->seconds * 1e3);
    if (n >= 3) {
        const double slowed = kiln_probe_median(times, n);
        kiln_probe_figure(a->out, "beside", fmax(1, slowed / alone),
                          "their median, %.4g ms, over the one without a compile, %.4g ms",
                          slowed * 1e3, alone * 1e3);
    }
    return KILN_OK;
}

static enum kiln_status ask_beside(struct asked *a, struct kiln_err *err) {
    struct beside b = {.runtime = a->runtime};
    double *times = kiln_alloc(BESIDE, sizeof *times);
    KILN_REQUIRE(times, err, KILN_ENOMEM, "probe: no memory for times");
    kiln_probe_doing(a->options, "evaluations during a compile");
    enum kiln_status status = kiln_probe_weights(1024, 5, &b.weights, err);
    if (status == KILN_OK) {
        status = kiln_probe_text(1024, WIDTH, 1, &b.text, &b.bytes, err);
        if (status == KILN_OK) {
            status = run_beside(a, &b, times, err);
            kiln_free(b.text);
        }
        kiln_probe_weights_free(&b.weights);
    }
    kiln_free(times);
    return status;
}

/* ---- how many -----------------------------------------------------------------------------------
 */

static enum kiln_status ask_limit(struct asked *a, enum kiln_probe_limit limit, const char *name,
                                  struct kiln_err *err) {
    struct kiln_probe_count count = {.words = ""};
    struct kiln_err why;
    double seconds = 0;
    char value[96];
    const enum kiln_status status =
        a->options->count(a->options->context, limit, &count, &seconds, &why);
    if (status == KILN_EINTERRUPTED) {
        return KILN_FAIL(err, status, "%s", why.message);
    }
    const size_t n = limit == KILN_PROBE_COMPILES ? count.compiles : count.loads;
    snprintf(value, sizeof value, "%zu%s", n, count.refused ? "" : " or more");
    struct kiln_probe_row *row =
        kiln_probe_add(a->out, name, status == KILN_OK ? value : "not found out");
    const char *words = status == KILN_OK ? count.words : why.message;
    kiln_probe_how(row, "in a process of its own, opening included%s%s",
                   words[0] != '\0' ? "; then: " : "; no more were tried", words);
    return KILN_OK;
}

static enum kiln_status ask_limits(struct asked *a, struct kiln_err *err) {
    struct kiln_probe_count count;
    struct kiln_err why;
    double seconds = 0;
    if (a->options->count == NULL) {
        return KILN_OK;
    }
    kiln_probe_doing(a->options, "how many programs a process may compile");
    KILN_TRY(ask_limit(a, KILN_PROBE_COMPILES, "programs compiled until it refuses", err));
    kiln_probe_doing(a->options, "how many programs a process may hold loaded");
    KILN_TRY(ask_limit(a, KILN_PROBE_LOADS, "programs loaded until it refuses", err));
    if (a->options->count(a->options->context, KILN_PROBE_START, &count, &seconds, &why) ==
        KILN_OK) {
        kiln_probe_figure(a->out, "restart_s", seconds,
                          "a process started, the device opened and closed");
    }
    return KILN_OK;
}

/* ---- all of it ----------------------------------------------------------------------------------
 */

static enum kiln_status ask(struct asked *a, struct kiln_err *err) {
    KILN_TRY(kiln_probe_evaluate(a->runtime, &a->tiny, &a->tiny_s, err));
    KILN_TRY(ask_sizes(a, err));
    KILN_TRY(ask_peak(a, err));
    KILN_TRY(ask_reload(a, err));
    ask_chain(a);
    ask_qos(a);
    KILN_TRY(ask_beside(a, err));
    return ask_limits(a, err);
}

enum kiln_status kiln_probe_npu(const struct kiln_probe_options *options,
                                struct kiln_npu_runtime *runtime, struct kiln_probe *out,
                                struct kiln_err *err) {
    struct asked a = {.options = options, .runtime = runtime, .out = out};
    KILN_TRY(kiln_probe_open(runtime, TINY, TINY, 1, 9, &a.tiny, err));
    const enum kiln_status status = ask(&a, err);
    kiln_probe_close(runtime, &a.tiny);
    if (status == KILN_OK && runtime->trouble.code != KILN_OK) {
        return KILN_FAIL(err, runtime->trouble.code, "%s", runtime->trouble.message);
    }
    return status;
}

/* ---- the process that finds a limit
 * --------------------------------------------------------------- */

/* A program compiled, and loaded; *out is not NULL when it was compiled. */
static enum kiln_status one_more(struct kiln_npu_runtime *runtime, enum kiln_probe_limit limit,
                                 const struct kiln_npu_weight *weights,
                                 struct kiln_npu_program **out, struct kiln_err *err) {
    char *text = NULL;
    size_t bytes = 0;
    *out = NULL;
    KILN_TRY(kiln_probe_text(TINY, TINY, 1, &text, &bytes, err));
    const struct kiln_npu_source source = {
        .label = "probe", .text = text, .bytes = bytes, .weights = weights, .n_weights = 1};
    enum kiln_status status = runtime->ops->compile(runtime, &source, out, err);
    kiln_free(text);
    if (status == KILN_OK && limit == KILN_PROBE_LOADS) {
        status = runtime->ops->load(runtime, *out, err);
    }
    return status;
}

static void count_until(struct kiln_npu_runtime *runtime, enum kiln_probe_limit limit, size_t most,
                        const struct kiln_npu_weight *weights, struct kiln_npu_program **held,
                        struct kiln_probe_count *out) {
    struct kiln_err why;
    size_t n = 0;
    enum kiln_status status = KILN_OK;
    for (; n < most && status == KILN_OK; n++) {
        struct kiln_npu_program *program;
        status = one_more(runtime, limit, weights, &program, &why);
        out->refused = status != KILN_OK && (limit == KILN_PROBE_COMPILES || program != NULL);
        if (limit == KILN_PROBE_LOADS && program != NULL) {
            held[n] = program;
        } else if (program != NULL) {
            runtime->ops->release(runtime, program);
        }
    }
    out->compiles = runtime->compiles;
    out->loads = runtime->loaded;
    snprintf(out->words, sizeof out->words, "%.390s", status == KILN_OK ? "" : why.message);
    while (n-- > 0) {
        if (held[n] != NULL) {
            runtime->ops->release(runtime, held[n]);
        }
    }
}

enum kiln_status kiln_probe_count(const struct kiln_probe_options *options,
                                  enum kiln_probe_limit limit, struct kiln_probe_count *out,
                                  struct kiln_err *err) {
    const size_t most = options->most > 0 ? options->most : MOST;
    struct kiln_npu_runtime *runtime = NULL;
    struct kiln_npu_weight weights;
    struct kiln_pool *pool = NULL;
    *out = (struct kiln_probe_count){.words = ""};
    KILN_TRY(kiln_pool_create(1, &pool, err));
    enum kiln_status status = kiln_probe_open_runtime(&options->device, pool, &runtime, err);
    if (status == KILN_OK && limit != KILN_PROBE_START) {
        struct kiln_npu_program **held = kiln_alloc(most, sizeof(void *));
        status = kiln_probe_weights(TINY, 9, &weights, err);
        if (held != NULL && status == KILN_OK) {
            count_until(runtime, limit, most, &weights, held, out);
        }
        if (status == KILN_OK) {
            kiln_probe_weights_free(&weights);
        }
        status = held != NULL ? status : KILN_FAIL(err, KILN_ENOMEM, "probe: no memory");
        kiln_free(held);
    }
    if (runtime != NULL) {
        runtime->ops->close(runtime);
    }
    kiln_pool_destroy(pool);
    return status;
}

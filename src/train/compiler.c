/* SPDX-License-Identifier: MIT */
#include "train/compiler.h"

#include <pthread.h>
#include <signal.h>

#include "base/machine.h"
#include "base/mem.h"

struct kiln_compiler {
    struct kiln_device *device;
    struct kiln_spans *spans;
    struct kiln_compile_job *jobs; /* ring of `room` */
    size_t room;
    bool beside, idle; /* idle: waiting is no stall */
    pthread_t thread;
    /* Under the lock: */
    pthread_mutex_t lock;
    pthread_cond_t work, news;
    uint64_t given, done; /* tickets so far */
    size_t gate;
    bool busy, ending;
    uint64_t compiled[2]; /* kernels, without and with a gate */
    uint64_t failed;      /* ticket of the job that failed; 0: none */
    struct kiln_err err;
};

/* One job, on whatever thread. */
static enum kiln_status compile(struct kiln_compiler *c, const struct kiln_compile_job *job,
                                struct kiln_err *err) {
    struct kiln_device *d = c->device;
    const double start = kiln_now_s();
    const uint64_t before = d->counts.compiles; /* nobody else compiles */
    KILN_TRY(job->prepare
                 ? d->ops->prepare(d, job->set, &job->weights, err)
                 : d->ops->compile(d, job->set, job->kind, job->layer, &job->weights, err));
    const struct kiln_span span = {.start = start,
                                   .end = kiln_now_s(),
                                   .kind = KILN_SPAN_COMPILE,
                                   .name = job->prepare ? "head" : d->caps.kinds[job->kind].name,
                                   .layer = job->prepare ? -1 : (int32_t)job->layer,
                                   .micro_batch = -1,
                                   .generation = job->generation};
    kiln_spans_add(c->spans, &span);
    pthread_mutex_lock(&c->lock);
    c->compiled[job->gate > 0] += d->counts.compiles - before;
    pthread_mutex_unlock(&c->lock);
    if (job->done) {
        job->done(job->context, job->layer);
    }
    return KILN_OK;
}

static void stalled(const struct kiln_compiler *c, double start) {
    if (c->idle) {
        return;
    }
    const struct kiln_span span = {.start = start,
                                   .end = kiln_now_s(),
                                   .kind = KILN_SPAN_STALL,
                                   .layer = -1,
                                   .micro_batch = -1,
                                   .generation = -1};
    kiln_spans_add(c->spans, &span);
}

/* ---- the thread ------------------------------------------------------------------------------
 */

/* Is there a job that may begin? */
static bool ready(const struct kiln_compiler *c) {
    return c->done < c->given && c->failed == 0 && c->jobs[c->done % c->room].gate <= c->gate;
}

static void *work(void *context) {
    struct kiln_compiler *c = context;
    kiln_thread_name("kiln compile");
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!ready(c) && !c->ending) {
            pthread_cond_wait(&c->work, &c->lock);
        }
        if (c->ending) {
            break;
        }
        const struct kiln_compile_job job = c->jobs[c->done % c->room];
        struct kiln_err err = {.code = KILN_OK};
        c->busy = true;
        pthread_mutex_unlock(&c->lock);
        const enum kiln_status status = compile(c, &job, &err);
        pthread_mutex_lock(&c->lock);
        c->busy = false;
        if (status == KILN_OK) {
            c->done++;
        } else {
            c->failed = c->done + 1;
            c->err = err;
        }
        c->gate = c->done == c->given ? 0 : c->gate;
        pthread_cond_broadcast(&c->news);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* Signals go to the threads that know what to do about them. */
static bool start(struct kiln_compiler *c) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const bool started = pthread_create(&c->thread, NULL, work, c) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

/* ---- what the owner calls --------------------------------------------------------------------
 */

enum kiln_status kiln_compiler_create(struct kiln_device *device, struct kiln_spans *spans,
                                      bool beside, size_t room, struct kiln_compiler **out,
                                      struct kiln_err *err) {
    struct kiln_compiler *c = *out = kiln_alloc(1, sizeof *c);
    struct kiln_compile_job *jobs = kiln_alloc(room, sizeof *jobs);
    if (!c || !jobs) {
        kiln_free(c);
        kiln_free(jobs);
        *out = NULL;
        return KILN_FAIL(err, KILN_ENOMEM, "no memory for a list of %zu compiles", room);
    }
    *c = (struct kiln_compiler){.device = device, .spans = spans, .jobs = jobs, .room = room};
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->news, NULL);
    c->beside = beside && start(c);
    if (c->beside != beside) {
        kiln_compiler_destroy(c);
        *out = NULL;
        return KILN_FAIL(err, KILN_ENOMEM, "the system gives no thread to compile on");
    }
    return KILN_OK;
}

void kiln_compiler_destroy(struct kiln_compiler *c) {
    if (!c) {
        return;
    }
    if (c->beside) {
        pthread_mutex_lock(&c->lock);
        c->ending = true;
        pthread_cond_signal(&c->work);
        pthread_mutex_unlock(&c->lock);
        pthread_join(c->thread, NULL);
    }
    pthread_cond_destroy(&c->work);
    pthread_cond_destroy(&c->news);
    pthread_mutex_destroy(&c->lock);
    kiln_free(c->jobs);
    kiln_free(c);
}

enum kiln_status kiln_compiler_add(struct kiln_compiler *c, const struct kiln_compile_job *job,
                                   uint64_t *ticket, struct kiln_err *err) {
    if (!c->beside) {
        const double start_s = kiln_now_s();
        *ticket = 0;
        KILN_TRY(compile(c, job, err));
        stalled(c, start_s);
        return KILN_OK;
    }
    pthread_mutex_lock(&c->lock);
    const bool room = c->given - c->done < c->room;
    if (room) {
        c->jobs[c->given % c->room] = *job;
        *ticket = ++c->given;
        pthread_cond_signal(&c->work);
    }
    pthread_mutex_unlock(&c->lock);
    KILN_REQUIRE(room, err, KILN_EINTERNAL, "compiler: more than %zu compiles wait", c->room);
    return KILN_OK;
}

void kiln_compiler_gate(struct kiln_compiler *c, size_t gate) {
    pthread_mutex_lock(&c->lock);
    c->gate = gate > c->gate && c->done < c->given ? gate : c->gate;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->lock);
}

static enum kiln_status wait_for(struct kiln_compiler *c, uint64_t ticket, struct kiln_err *err) {
    pthread_mutex_lock(&c->lock);
    const bool waits = c->done < ticket && c->failed == 0;
    const double start_s = waits ? kiln_now_s() : 0;
    while (c->done < ticket && c->failed == 0) {
        pthread_cond_wait(&c->news, &c->lock);
    }
    const bool lost = c->done < ticket;
    if (lost && err) {
        *err = c->err;
    }
    const enum kiln_status code = c->err.code;
    pthread_mutex_unlock(&c->lock);
    if (waits) {
        stalled(c, start_s);
    }
    return lost ? code : KILN_OK;
}

enum kiln_status kiln_compiler_wait(struct kiln_compiler *c, uint64_t ticket,
                                    struct kiln_err *err) {
    return c->beside && ticket > 0 ? wait_for(c, ticket, err) : KILN_OK;
}

enum kiln_status kiln_compiler_finish(struct kiln_compiler *c, struct kiln_err *err) {
    return kiln_compiler_wait(c, c->given, err); /* only the owner gives */
}

bool kiln_compiler_idle(struct kiln_compiler *c) {
    pthread_mutex_lock(&c->lock);
    const bool idle = c->done == c->given;
    pthread_mutex_unlock(&c->lock);
    return idle;
}

void kiln_compiler_stalls(struct kiln_compiler *c, bool on) { c->idle = !on; }

uint64_t kiln_compiler_take_count(struct kiln_compiler *c, bool gated) {
    pthread_mutex_lock(&c->lock);
    const uint64_t n = c->compiled[0] + (gated ? c->compiled[1] : 0);
    c->compiled[0] = 0;
    c->compiled[1] = gated ? 0 : c->compiled[1];
    pthread_mutex_unlock(&c->lock);
    return n;
}

void kiln_compiler_drop(struct kiln_compiler *c) {
    pthread_mutex_lock(&c->lock);
    c->given = c->done + c->busy;
    while (c->busy) {
        pthread_cond_wait(&c->news, &c->lock);
    }
    c->given = c->done;
    c->failed = 0;
    c->gate = 0;
    pthread_mutex_unlock(&c->lock);
}

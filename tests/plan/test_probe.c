/* SPDX-License-Identifier: MIT
 *
 * test_probe.c: a probe of the simulator finds the figures that were charged, and its answers.
 */
#include "kiln/probe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln_test.h"

/* Slower than this machine simulates, so that what is measured is what is charged. */
static const struct kiln_npu_times charged = {.compile_s = 0.02,
                                              .compile_gb_s = 0.1,
                                              .load_s = 0.005,
                                              .dispatch_s = 0.003,
                                              .tflops = 0.008,
                                              .beside = 1.5};

static const struct kiln_probe_row *row_of(const struct kiln_probe *probe, const char *name) {
    for (size_t i = 0; i < probe->n_rows; i++) {
        if (strcmp(probe->rows[i].name, name) == 0) {
            return &probe->rows[i];
        }
    }
    FAIL("no row \"%s\"", name);
    return NULL;
}

/* Is a figure of the profile what it should be, give or take a tenth? */
static bool near(const char *name, double got, double want) {
    const bool good = fabs(got - want) <= 0.1 * want;
    printf("      %-15s %.5g, charged %.5g%s\n", name, got, want, good ? "" : ": off");
    return good;
}

static bool recovers(const struct kiln_probe *probe) {
    const struct kiln_profile *p = &probe->file.profile;
    bool good = near("compile_s", p->compile_s, charged.compile_s);
    good = near("compile_gb_s", p->compile_gb_s, charged.compile_gb_s) && good;
    good = near("load_s", p->load_s, charged.load_s) && good;
    good = near("dispatch_s", p->dispatch_s, charged.dispatch_s) && good;
    good = near("tflops", p->tflops, charged.tflops) && good;
    good = near("ceiling_tflops", p->ceiling_tflops, charged.tflops) && good;
    return near("beside", p->beside, charged.beside) && good;
}

/* In a process of its own, as kiln does it by another way. */
static enum kiln_status count_in_child(void *context, enum kiln_probe_limit limit,
                                       struct kiln_probe_count *out, double *seconds,
                                       struct kiln_err *err) {
    const struct kiln_probe_options options = {
        .device = {.id = KILN_SIM, .sim = context}, .threads = 1, .most = 200};
    int ends[2], how;
    CHECK_EQ(pipe(ends), 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        const bool good = kiln_probe_count(&options, limit, out, err) == KILN_OK &&
                          write(ends[1], out, sizeof *out) == sizeof *out;
        _exit(good ? 0 : 1);
    }
    close(ends[1]);
    CHECK_EQ(read(ends[0], out, sizeof *out), (ssize_t)sizeof *out);
    close(ends[0]);
    CHECK(waitpid(child, &how, 0) == child && how == 0);
    *seconds = 0.5;
    return KILN_OK;
}

TEST_ALONE(a_probe_of_the_simulator_finds_what_it_charges) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    SKIP("under a sanitizer the simulator is slower than what it charges");
#endif
    struct kiln_probe_options options = {
        .device = {.id = KILN_SIM, .sim_time = 1, .times = charged}, .threads = 2};
    struct kiln_probe *probe = kiln_alloc(1, sizeof *probe);
    struct kiln_err err;
    bool good = false;
    for (int i = 0; i < 3 && !good; i++) { /* a machine that has much to do is late */
        CHECK_OK(kiln_probe(&options, probe, &err), &err);
        good = recovers(probe);
    }
    CHECK(good);
    CHECK(probe->file.npu && probe->file.known[0]);
    CHECK_STRING(row_of(probe, "chaining")->value, "not available");
    CHECK_STRING(row_of(probe, "quality of service")->value, "not available");
    CHECK(atoi(row_of(probe, "evaluations during one compile")->value) >= 5);
    kiln_free(probe);
}

TEST_ALONE(a_probe_finds_limits_and_what_a_reload_does) {
    char limits[] = "compile-budget=60,load-budget=7";
    struct kiln_probe_options options = {.device = {.id = KILN_SIM, .sim = "reload=on"},
                                         .threads = 2,
                                         .context = limits,
                                         .count = count_in_child};
    struct kiln_probe *probe = kiln_alloc(1, sizeof *probe);
    struct kiln_err err;
    CHECK_OK(kiln_probe(&options, probe, &err), &err);
    CHECK_STRING(row_of(probe, "a rewritten weight file changes the result")->value, "yes");
    CHECK_STRING(row_of(probe, "programs compiled until it refuses")->value, "60");
    CHECK_STRING(row_of(probe, "programs loaded until it refuses")->value, "7");
    CHECK_CONTAINS(row_of(probe, "programs loaded until it refuses")->how, "load-budget");
    CHECK_CLOSE(probe->file.profile.restart_s, 0.5, 0);
    snprintf(limits, sizeof limits, "load-budget=off");
    options.device.sim = "reload=off";
    CHECK_OK(kiln_probe(&options, probe, &err), &err);
    CHECK_STRING(row_of(probe, "a rewritten weight file changes the result")->value, "no");
    CHECK_STRING(row_of(probe, "programs compiled until it refuses")->value, "119");
    CHECK_STRING(row_of(probe, "programs loaded until it refuses")->value, "119 or more");
    CHECK_CONTAINS(row_of(probe, "programs loaded until it refuses")->how, "compile-budget");
    kiln_free(probe);
}

TEST_ALONE(a_probe_of_the_cpu_is_a_profile_of_one) {
    char folder[] = "/tmp/kiln-probe-XXXXXX", path[64];
    struct kiln_probe_options options = {.device = {.id = KILN_CPU}, .threads = 1};
    struct kiln_probe *probe = kiln_alloc(1, sizeof *probe);
    struct kiln_profile plan;
    struct kiln_err err;
    CHECK(mkdtemp(folder) != NULL);
    options.folder = folder;
    CHECK_OK(kiln_probe(&options, probe, &err), &err);
    CHECK_OK(kiln_probe_write(probe, folder, &err), &err);
    snprintf(path, sizeof path, "%s/profile.json", folder);
    CHECK_OK(kiln_profile_of(&options.device, path, 1, KILN_PRECISION_AUTO, &plan, &err), &err);
    const struct kiln_profile *p = &probe->file.profile;
    CHECK_CLOSE(plan.tflops, p->tflops, 1e-5 * p->tflops);
    CHECK_CLOSE(plan.compile_gb_s, p->compile_gb_s, 1e-5 * p->compile_gb_s);
    CHECK_CLOSE(plan.disk_write_gb_s, p->disk_write_gb_s, 1e-5 * p->disk_write_gb_s);
    CHECK(plan.ceiling_tflops > plan.tflops && plan.compile_gb_s > 0.01 && plan.relay_s > 0);
    const struct kiln_device_choice ane = {.id = KILN_ANE};
    CHECK_FAILS(kiln_profile_of(&ane, path, 1, KILN_PRECISION_AUTO, &plan, &err), KILN_EUSAGE,
                &err);
    snprintf(path, sizeof path, "%s/probe.md", folder);
    CHECK(kiln_path_exists(path));
    CHECK_OK(kiln_remove_tree(folder, &err), &err);
    kiln_free(probe);
}

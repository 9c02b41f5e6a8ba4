/* SPDX-License-Identifier: MIT
 *
 * test_profile.c: profiles: what ships, what a file may say, and whether the M4's is right: one law
 * of compile times, and a micro-batch, against what was published for it.
 */
#include "plan/profile_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "device/sim/sim.h"
#include "kiln/settings.h"
#include "kiln_test.h"

static struct kiln_profile_file shipped(const char *name) {
    struct kiln_profile_file file;
    struct kiln_err err;
    CHECK_OK(kiln_profile_read(name, &file, &err), &err);
    return file;
}

/* ---- what was published ------------------------------------------------------------------------
 */

/* Weights that the published programs of stories110m bake, fp16 (docs/neural-engine.md). */
static double layer_bytes(const struct kiln_dims *d) {
    const double square = (double)d->dim * (double)d->dim;
    const double wide = (double)d->dim * (double)d->hidden;
    const double forward = 4 * square + 3 * wide;           /* attention; feed-forward */
    const double backward = 3 * wide + square + 3 * square; /* feed-forward; Wo; Wq, Wk, Wv */
    return 2 * (forward + backward);
}

/* The published runs of 20 micro-batches on an M4: windows of 10, two of them but for dynamic. */
static const struct published {
    const char *name;
    double programs, windows; /* compiled in each window */
    bool layers, classifier;  /* what they bake */
    double compile_s, train_s, wall_s;
} published[] = {
    {"static", 72, 2, true, false, 7.6, 2.1, 10.1},
    {"extras", 99, 2, true, true, 9.6, 1.8, 11.7},
    {"extras off", 72, 2, true, false, 7.5, 2.9, 10.7},
    {"dynamic", 10, 1, false, false, 0.4, 2.2, 2.6},
};

TEST(one_law_gives_the_published_compile_times_of_the_m4) {
    const struct kiln_profile m4 = shipped("m4").profile;
    const struct kiln_dims *d = &kiln_preset_find("stories110m")->dims;
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
        const struct published *row = &published[i];
        const double bytes = (row->layers ? (double)d->layers * layer_bytes(d) : 0) +
                             (row->classifier ? 2.0 * (double)d->vocab * (double)d->dim : 0);
        const double window =
            row->programs * (m4.compile_s + m4.load_s) + bytes / (m4.compile_gb_s * 1e9);
        const double compile = row->windows * window, wall = compile + row->train_s;
        printf(
            "      %-10s  compile %5.2f s, published %4.1f (%+.1f %%); wall %5.2f, %4.1f "
            "(%+.1f %%)\n",
            row->name, compile, row->compile_s, 100 * (compile / row->compile_s - 1), wall,
            row->wall_s, 100 * (wall / row->wall_s - 1));
        CHECK(fabs(compile - row->compile_s) <= 0.15 * row->compile_s);
        CHECK(fabs(wall - row->wall_s) <= 0.15 * row->wall_s);
    }
}

/* 106.7 ms without extras, 91.8 with them: device programs, their dispatches, and the host's share
 * one behind the other. */
TEST(the_m4_takes_as_long_for_a_micro_batch_as_published) {
    const struct kiln_profile m4 = shipped("m4").profile;
    const struct kiln_dims *d = &kiln_preset_find("stories110m")->dims;
    const struct kiln_flops f = kiln_plan_flops(d, 1, 256);
    const double layers = f.forward + f.dx + f.attention, L = (double)d->layers;
    const double off = layers / (m4.tflops * 1e12) + 6 * L * m4.dispatch_s +
                       (f.dw + f.classifier) / (m4.host_tflops * 1e12);
    const double on = (layers + f.classifier / 3) / (m4.tflops * 1e12) +
                      (8 * L + 3) * m4.dispatch_s +
                      (f.dw + f.classifier * 2 / 3) / (m4.host_tflops * 1e12);
    printf("      %.1f ms without extras, published 106.7; %.1f with, published 91.8\n", off * 1e3,
           on * 1e3);
    CHECK(off > 0.091 && off < 0.1075);
    CHECK(on > 0.091 && on < 0.1075);
}

TEST(every_shipped_figure_has_a_source) {
    static const char *const names[] = {"m1-pro", "m3-max", "m4", "m5"};
    for (size_t p = 0; p < 4; p++) {
        const struct kiln_profile_file file = shipped(names[p]);
        CHECK(file.npu && strncmp(file.device, "Apple M", 7) == 0);
        for (size_t i = 0; i < KILN_FIGURES; i++) {
            CHECK(file.known[i] && strlen(file.source[i]) > 4);
        }
    }
}

TEST(the_simulator_charges_the_m4_where_nothing_else_is_said) {
    struct kiln_sim_options options;
    const struct kiln_profile m4 = shipped("m4").profile;
    kiln_sim_options_default(&options);
    const struct kiln_npu_times *t = &options.times.device;
    CHECK_CLOSE(t->compile_s, m4.compile_s, 0);
    CHECK_CLOSE(t->compile_gb_s, m4.compile_gb_s, 0);
    CHECK_CLOSE(t->load_s, m4.load_s, 0);
    CHECK_CLOSE(t->dispatch_s, m4.dispatch_s, 0);
    CHECK_CLOSE(t->tflops, m4.tflops, 0);
    CHECK_CLOSE(t->beside, m4.beside, 0);
}

/* ---- which profile is whose --------------------------------------------------------------------
 */

TEST(a_profile_is_of_what_computes) {
    struct kiln_device_choice device = {.id = KILN_ANE};
    struct kiln_profile ane, m5, slow, cpu, sim;
    struct kiln_err err;
    CHECK_OK(kiln_profile_of(&device, NULL, 1, KILN_PRECISION_FP16, &ane, &err), &err);
    CHECK_OK(kiln_profile_of(&device, "m5", 1, KILN_PRECISION_FP16, &m5, &err), &err);
    CHECK(m5.compile_s < ane.compile_s && m5.dispatch_s < ane.dispatch_s);
    device = (struct kiln_device_choice){.id = KILN_SIM, .sim_time = 4};
    CHECK_OK(kiln_profile_of(&device, NULL, 1, KILN_PRECISION_FP16, &slow, &err), &err);
    CHECK_CLOSE(slow.compile_s, ane.compile_s * 4, 1e-12);
    CHECK_CLOSE(slow.compile_gb_s, ane.compile_gb_s / 4, 1e-12);
    CHECK_CLOSE(slow.dispatch_s, ane.dispatch_s * 4, 1e-12);
    CHECK_CLOSE(slow.load_s, ane.load_s * 4, 1e-12);
    CHECK(slow.tflops <= ane.tflops / 4); /* or what this machine simulates */
    CHECK_CLOSE(slow.sim.compile_s, ane.compile_s, 0);
    device.sim_time = 0; /* this machine, in fp32: as fast as the cpu, give or take */
    CHECK_OK(kiln_profile_of(&device, NULL, 1, KILN_PRECISION_FP16, &sim, &err), &err);
    CHECK_FAILS(kiln_profile_of(&device, "m4", 1, KILN_PRECISION_FP16, &slow, &err), KILN_EUSAGE,
                &err);
    device.id = KILN_CPU;
    CHECK_FAILS(kiln_profile_of(&device, "m4", 1, KILN_PRECISION_FP32, &slow, &err), KILN_EUSAGE,
                &err);
    CHECK_OK(kiln_profile_of(&device, NULL, 1, KILN_PRECISION_FP32, &cpu, &err), &err);
    CHECK(sim.tflops < 10 * cpu.tflops && cpu.tflops < 10 * sim.tflops);
    CHECK_CLOSE(sim.compile_s, cpu.compile_s, 0);
    CHECK(sim.compile_gb_s > 0 && sim.sim.tflops <= 0 && cpu.host_tflops >= cpu.tflops);
}

/* ---- files -------------------------------------------------------------------------------------
 */

TEST(a_profile_that_was_written_is_read_back) {
    char path[] = "/tmp/kiln-profile-XXXXXX";
    struct kiln_err err;
    struct kiln_profile_file file = shipped("m5"), back;
    const int fd = mkstemp(path);
    CHECK(fd >= 0 && close(fd) == 0);
    file.known[2] = false;
    snprintf(file.device, sizeof file.device, "a \"device\"\n");
    CHECK_OK(kiln_profile_write(path, &file, &err), &err);
    CHECK_OK(kiln_profile_read(path, &back, &err), &err);
    CHECK_STRING(back.device, file.device);
    CHECK(back.npu);
    for (size_t i = 0; i < KILN_FIGURES; i++) {
        CHECK_EQ(back.known[i], i != 2);
        if (i != 2) {
            CHECK_CLOSE(*kiln_figure_of(&back.profile, i), *kiln_figure_of(&file.profile, i), 1e-9);
            CHECK_STRING(back.source[i], file.source[i]);
        }
    }
    unlink(path);
}

/* What a file lacks is the M4's, what nobody knows is ignored. */
TEST(a_file_may_lack_figures_and_have_others) {
    static const char text[] =
        "{\"kiln_profile\": 1, \"device\": \"X\", \"kind\": \"npu\", \"later\": 1,\n"
        " \"figures\": {\"compile_s\": {\"value\": 7}, \"new\": {\"value\": \"?\"}}}";
    char path[] = "/tmp/kiln-profile-XXXXXX.json";
    struct kiln_err err;
    struct kiln_profile out;
    const int fd = mkstemps(path, 5);
    CHECK(fd >= 0 && close(fd) == 0);
    CHECK_OK(kiln_write_file(path, text, sizeof text - 1, &err), &err);
    const struct kiln_device_choice device = {.id = KILN_ANE};
    CHECK_OK(kiln_profile_of(&device, path, 1, KILN_PRECISION_FP16, &out, &err), &err);
    CHECK_CLOSE(out.compile_s, 7, 0);
    CHECK_CLOSE(out.load_s, shipped("m4").profile.load_s, 0);
    unlink(path);
}

static void fails(const char *text, const char *says) {
    struct kiln_profile_file out;
    struct kiln_err err;
    CHECK_FAILS(kiln_profile_parse("x.json", text, strlen(text), &out, &err), KILN_EINPUT, &err);
    if (strncmp(err.message, "x.json", 6) != 0 || strstr(err.message, says) == NULL) {
        FAIL("%s\nsays: %s\nnot: %s", text, err.message, says);
    }
}

TEST(a_wrong_profile_is_named_with_its_figure) {
#define HEAD "{\"kiln_profile\": 1, \"device\": \"X\", \"kind\": \"npu\", \"figures\": {"
    fails("", "not JSON");
    fails("[1]", "not a JSON object");
    fails("{}", "kiln probe writes one");
    fails("{\"kiln_profile\": 2}", "version 2");
    fails("{\"kiln_profile\": 1}", "\"device\"");
    fails("{\"kiln_profile\": 1, \"device\": \"X\", \"kind\": \"gpu\"}", "\"kind\"");
    fails("{\"kiln_profile\": 1, \"device\": \"X\", \"kind\": \"npu\"}", "\"figures\"");
    fails(HEAD "\"tflops\": 3}}", "\"tflops\"");
    fails(HEAD "\"tflops\": {\"value\": \"3\"}}}", "\"tflops\"");
    fails(HEAD "\"tflops\": {\"value\": 0}}}", "\"tflops\" is 0");
    fails(HEAD "\"compile_s\": {\"value\": -1}}}", "\"compile_s\" is -1");
    fails(HEAD "\"compile_s\": {\"value\": 1e9}}}", "\"compile_s\" is 1e+09");
    fails(HEAD "\"load_s\": {\"value\": 1e999}}}", "not JSON");
    fails(HEAD "\"load_s\": {\"value\": 1, \"unit\": \"ms\"}}}", "\"unit\"");
    fails(HEAD "\"load_s\": {\"value\": 1, \"source\": 5}}}", "\"source\"");
    fails(HEAD "\"load_s\": {\"value\": 1}, \"load_s\": {\"value\": 2}}}", "duplicate");
#undef HEAD
    struct kiln_profile_file out;
    struct kiln_err err;
    CHECK_FAILS(kiln_profile_read("m9", &out, &err), KILN_EUSAGE, &err);
    CHECK_FAILS(kiln_profile_read("/tmp", &out, &err), KILN_EINPUT, &err);
    CHECK_FAILS(kiln_profile_read("no/such.json", &out, &err), KILN_EINPUT, &err);
}

TEST(every_shipped_profile_is_offered_by_its_setting) {
    const char *const *offers = kiln_setting(KILN_SETTING_profile)->offers;
    size_t n = 0;
    for (const struct kiln_shipped_profile *p = kiln_shipped_profiles; p->name != NULL; p++) {
        bool offered = false;
        for (size_t i = 0; offers[i] != NULL; i++) {
            offered = offered || strcmp(offers[i], p->name) == 0;
        }
        if (!offered) {
            FAIL("--profile does not offer %s (src/train/settings.c)", p->name);
        }
        n++;
    }
    CHECK(n > 0);
    CHECK(offers[n] == NULL);
}

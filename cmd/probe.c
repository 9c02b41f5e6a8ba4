/* SPDX-License-Identifier: MIT
 *
 * probe.c: kiln probe: what a device does in a second, measured; profile.json and probe.md.
 */
#include "kiln/probe.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "files.h"
#include "kiln/train.h"
#include "output.h"
#include "self.h"

struct flags {
    const char *out, *count;
    uint64_t most;
    bool force, json;
};

static const struct option options[] = {
    {"out", 0, OPTION_TEXT, "DIR", ".", "folder for profile.json and probe.md", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, out)},
    {"force", 0, OPTION_SWITCH, NULL, NULL, "replace these two when they exist", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, force)},
    {"most", 0, OPTION_COUNT, "N", "1000", "compile and hold at most N programs to find a limit",
     GROUP_MEASURING, 1, 1000, offsetof(struct flags, most)},
    {"count", 0, OPTION_TEXT, "WHAT", NULL, NULL, GROUP_MEASURING, 0, 0,
     offsetof(struct flags, count)}, /* in a process that a probe started */
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {KILN_SETTING_device,    KILN_SETTING_sim_time,
                                                KILN_SETTING_sim,       KILN_SETTING_profile,
                                                KILN_SETTING_precision, KILN_SETTING_threads};

static const char *const limits[] = {
    [KILN_PROBE_START] = "start", [KILN_PROBE_COMPILES] = "compiles", [KILN_PROBE_LOADS] = "loads"};

/* ---- the process that is started ---------------------------------------------------------------
 */

static enum kiln_status run_count(const char *what, const struct kiln_probe_options *how,
                                  struct kiln_err *err) {
    struct kiln_probe_count count;
    for (int i = KILN_PROBE_START; i <= KILN_PROBE_LOADS; i++) {
        if (strcmp(limits[i], what) == 0) {
            KILN_TRY(kiln_probe_count(how, (enum kiln_probe_limit)i, &count, err));
            return json_print(
                json_pack("{s:I, s:I, s:b, s:o}", "compiles", (json_int_t)count.compiles, "loads",
                          (json_int_t)count.loads, "refused", count.refused, "words",
                          json_bytes(count.words, strlen(count.words))),
                err);
        }
    }
    return KILN_FAIL(err, KILN_EUSAGE, "--count %s: use start, compiles or loads", what);
}

static enum kiln_status parse_count(const char *text, size_t size, struct kiln_probe_count *out,
                                    struct kiln_err *err) {
    json_t *all = json_loadb(text, size, 0, NULL);
    const char *words = "";
    json_int_t compiles = 0, loads = 0;
    int refused = 0;
    const bool good =
        all != NULL && json_unpack(all, "{s:I, s:I, s:b, s:s}", "compiles", &compiles, "loads",
                                   &loads, "refused", &refused, "words", &words) == 0;
    if (good) {
        *out = (struct kiln_probe_count){
            .compiles = (size_t)compiles, .loads = (size_t)loads, .refused = refused != 0};
        snprintf(out->words, sizeof out->words, "%s", words);
    }
    json_decref(all);
    return good ? KILN_OK
                : KILN_FAIL(err, KILN_EDEVICE, "the process that counted said nothing of use");
}

/* All that a descriptor gives, up to the room there is. */
static size_t read_all(int fd, char *to, size_t room) {
    size_t n = 0;
    while (n < room) {
        const ssize_t got = read(fd, to + n, room - n);
        if (got <= 0 && !(got < 0 && errno == EINTR)) {
            break;
        }
        n += got > 0 ? (size_t)got : 0;
    }
    return n;
}

static enum kiln_status wait_for(pid_t child, struct kiln_err *err) {
    int how = 0;
    while (waitpid(child, &how, 0) < 0 && errno == EINTR) {
    }
    KILN_REQUIRE(!WIFSIGNALED(how), err, KILN_EDEVICE,
                 "the process that counted was ended by signal %d", WTERMSIG(how));
    KILN_REQUIRE(WIFEXITED(how) && WEXITSTATUS(how) == 0, err, KILN_EDEVICE,
                 "the process that counted failed with %d", WEXITSTATUS(how));
    return KILN_OK;
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* This program again, with the same device and --count. */
static enum kiln_status count_elsewhere(void *context, enum kiln_probe_limit limit,
                                        struct kiln_probe_count *out, double *seconds,
                                        struct kiln_err *err) {
    const struct call *call = context;
    char most[32], text[2048];
    pid_t child = 0;
    size_t n = 0;
    char *arguments[16];
    char sim_time[40];
    kiln_settings_text(&call->settings, KILN_SETTING_sim_time, sim_time, sizeof sim_time);
    snprintf(most, sizeof most, "%llu",
             (unsigned long long)((const struct flags *)call->flags)->most);
    const char *const words[] = {"kiln",    "probe",       "--device", call->settings.device,
                                 "--count", limits[limit], "--most",   most};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        arguments[n++] = (char *)(uintptr_t)words[i];
    }
    const struct {
        const char *flag, *value;
    } more[] = {{"--sim-time", call->settings.sim_time > 0 ? sim_time : NULL},
                {"--sim", call->settings.sim},
                {"--profile", call->settings.profile}};
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
        if (more[i].value != NULL) {
            arguments[n++] = (char *)(uintptr_t)more[i].flag;
            arguments[n++] = (char *)(uintptr_t)more[i].value;
        }
    }
    arguments[n] = NULL;
    const double start = now_s();
    int fd = -1;
    KILN_TRY(self_capture(arguments, &child, &fd, err));
    n = read_all(fd, text, sizeof text);
    close(fd);
    KILN_TRY(wait_for(child, err));
    *seconds = now_s() - start;
    return parse_count(text, n, out, err);
}

/* ---- the command -------------------------------------------------------------------------------
 */

static void progress(void *context, const char *doing) {
    (void)context;
    if (messages_are_read()) {
        fprintf(stderr, "\r\033[K%s", doing[0] != '\0' ? "probing: " : "");
        fprintf(stderr, "%s", doing);
        fflush(stderr);
    }
}

static json_t *figures_json(const struct kiln_probe *probe) {
    json_t *object = json_object();
    struct kiln_profile profile = probe->file.profile;
    for (size_t i = 0; i < KILN_FIGURES; i++) {
        if (probe->file.known[i]) {
            const char *source = probe->file.source[i];
            json_object_set_new(
                object, kiln_figure(i)->name,
                json_pack("{s:f, s:s, s:o}", "value", *kiln_figure_of(&profile, i), "unit",
                          kiln_figure(i)->unit, "source", json_bytes(source, strlen(source))));
        }
    }
    return object;
}

static json_t *rows_json(const struct kiln_probe *probe) {
    json_t *list = json_array();
    for (size_t i = 0; i < probe->n_rows; i++) {
        const struct kiln_probe_row *row = &probe->rows[i];
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:o}", "name", row->name, "value", row->value, "how",
                            json_bytes(row->how, strlen(row->how))));
    }
    return list;
}

static enum kiln_status print(const struct flags *flags, const struct kiln_probe *probe,
                              struct kiln_err *err) {
    if (flags->json) {
        return json_print(json_pack("{s:s, s:o, s:o, s:o}", "device", probe->file.device, "out",
                                    json_bytes(flags->out, strlen(flags->out)), "figures",
                                    figures_json(probe), "measurements", rows_json(probe)),
                          err);
    }
    printf("%s\n", probe->file.device);
    for (size_t i = 0; i < probe->n_rows; i++) {
        printf("  %-42s  %s\n", probe->rows[i].name, probe->rows[i].value);
    }
    printf(
        "%s/profile.json: for --profile of plan, train and probe\n%s/probe.md: how each was "
        "measured\n",
        flags->out, flags->out);
    return output_finish(err);
}

static enum kiln_status refuse_files(const struct flags *flags, struct kiln_err *err) {
    static const char *const names[] = {"profile.json", "probe.md"};
    for (size_t i = 0; i < 2; i++) {
        char *path = NULL;
        KILN_TRY(join(flags->out, names[i], &path, err));
        const enum kiln_status status = refuse_existing(path, flags->force, err);
        free(path);
        KILN_TRY(status);
    }
    return KILN_OK;
}

/* The device, with the times that a simulator is to charge. */
static enum kiln_status choose(const struct call *call, struct kiln_probe_options *out,
                               struct kiln_err *err) {
    const struct kiln_settings *s = &call->settings;
    /* The figures of an engine; those of a simulator would have this machine measured, too. */
    const struct kiln_device_choice engine = {.id = KILN_ANE};
    struct kiln_profile profile;
    struct kiln_cpu cpu;
    KILN_TRY(kiln_settings_device(s, &out->device, &out->precision, err));
    KILN_REQUIRE(s->profile == NULL || out->device.id == KILN_SIM, err, KILN_EUSAGE,
                 "--profile %s: a probe measures; only --device sim charges what a profile says",
                 s->profile);
    if (out->device.id == KILN_SIM && out->device.sim_time > 0) {
        KILN_TRY(kiln_profile_of(&engine, s->profile, 1, out->precision, &profile, err));
        out->device.times = profile.sim;
    } else {
        KILN_REQUIRE(s->profile == NULL, err, KILN_EUSAGE,
                     "--profile %s: --device sim charges no time; add --sim-time 1", s->profile);
    }
    KILN_TRY(kiln_cpu_describe(KILN_PRECISION_AUTO, &cpu, err));
    out->threads = s->threads != KILN_UNSET ? s->threads : cpu.cpus;
    return KILN_OK;
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_probe_options how = {.context = (void *)(uintptr_t)call,
                                     .folder = flags->out,
                                     .most = flags->most,
                                     .count = count_elsewhere,
                                     .progress = progress};
    static struct kiln_probe probe;
    KILN_TRY(choose(call, &how, err));
    if (flags->count != NULL) {
        return run_count(flags->count, &how, err);
    }
    KILN_TRY(refuse_files(flags, err));
    const enum kiln_status status = kiln_probe(&how, &probe, err);
    progress(NULL, "");
    KILN_TRY(status);
    KILN_TRY(kiln_probe_write(&probe, flags->out, err));
    return print(flags, &probe, err);
}

const struct command command_probe = {
    .name = "probe",
    .synopsis = "[--device D] [--out DIR] [options]",
    .summary = "measure a device: compiles, evaluations, limits; writes a profile",
    .details =
        "Writes profile.json, which kiln plan and kiln train read with --profile, and probe.md, a\n"
        "table of every figure with how it was measured. The limits of sim and ane are found in\n"
        "processes of their own.\n\n"
        "  kiln probe --device ane --out m4-mini\n"
        "  kiln plan --device ane --profile m4-mini/profile.json --model stories110m\n",
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};

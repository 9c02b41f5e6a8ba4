/* SPDX-License-Identifier: MIT
 *
 * demo.c: kiln demo: stories are made up, a model learns to tell them, and tells some.
 *
 * The stories come from a grammar whose entropy is known, so the demo can say how good the model
 * is and not only how good it looks: no model can be below the entropy on stories it never saw.
 *
 *   OUT/stories.txt  stories_val.txt  tokenizer.bin  run/
 */
#include "demo.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "files.h"
#include "kiln/generate.h"
#include "kiln/report.h"
#include "output.h"
#include "stop.h"

#define N_STORIES      20000
#define N_HELD_OUT     400
#define FIRST_HELD_OUT 1000000000 /* the index ranges never meet */
#define TOP_P          0.95       /* a model so young makes slips among what is unlikely */
#define LEARN_FROM     4000000    /* bytes of stories the vocabulary is learned from */

static const struct option options[] = {
    {"out", 0, OPTION_TEXT, "DIR", NULL, "folder for everything (runs/demo, runs/demo-2, ...)",
     GROUP_DEMO, 0, 0, offsetof(struct demo_flags, out)},
    {"seconds", 0, OPTION_COUNT, "N", "85", "how long to train", GROUP_DEMO, 5, 86400,
     offsetof(struct demo_flags, seconds)},
    {"stories", 0, OPTION_COUNT, "N", "3", "how many stories the model tells", GROUP_DEMO, 1, 10000,
     offsetof(struct demo_flags, stories)},
    {"temperature", 't', OPTION_REAL, "X", "0.9", "of the telling; 0 takes the likeliest each time",
     GROUP_DEMO, 0, 100, offsetof(struct demo_flags, temperature)},
    {"force", 0, OPTION_SWITCH, NULL, NULL, "replace an older demo in that folder", GROUP_DEMO, 0,
     0, offsetof(struct demo_flags, force)},
    {"seed", 0, OPTION_COUNT, "N", "1", "other stories, another model", GROUP_DEMO, 0, 1e18,
     offsetof(struct demo_flags, seed)},
    OPTION_JSON(struct demo_flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {KILN_SETTING_precision, KILN_SETTING_threads};

void demo_say(const struct demo *demo, const char *fmt, ...) {
    if (demo->flags->json) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    if (fflush(stdout) != 0) {
        stop_now(); /* whoever read it has gone */
    }
}

double demo_now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- the folder ----------------------------------------------------------------------------- */

/* Make the folders of a path, as mkdir -p. */
static enum kiln_status make_folders(const char *path, struct kiln_err *err) {
    char *copy = strdup(path);
    KILN_REQUIRE(copy != NULL, err, KILN_ENOMEM, "%s: out of memory", path);
    int failed = 0;
    for (char *c = copy + 1; failed == 0; c++) {
        const char held = *c;
        if (held == '/' || held == '\0') {
            *c = '\0';
            failed = mkdir(copy, 0777) != 0 && errno != EEXIST ? errno : 0;
            *c = held;
        }
        if (held == '\0') {
            break;
        }
    }
    free(copy);
    KILN_REQUIRE(failed == 0, err, KILN_EIO, "making folder %s: %s; choose another with --out",
                 path, strerror(failed));
    return KILN_OK;
}

static enum kiln_status path_in(const struct demo *demo, const char *name, char out[DEMO_PATH],
                                struct kiln_err *err) {
    const int n = snprintf(out, DEMO_PATH, "%s/%s", demo->folder, name);
    KILN_REQUIRE(n > 0 && n < DEMO_PATH, err, KILN_EUSAGE, "--out %.80s...: too long a path",
                 demo->folder);
    return KILN_OK;
}

/* The folder that was named; else the first of runs/demo, runs/demo-2, ... that is free. */
static enum kiln_status choose_folder(struct demo *demo, struct kiln_err *err) {
    char name[64] = "runs/demo";
    const char *out = demo->flags->out;
    for (int i = 2; out == NULL && !demo->flags->force && file_exists(name); i++) {
        snprintf(name, sizeof name, "runs/demo-%d", i);
    }
    snprintf(demo->folder, sizeof demo->folder, "%s", out != NULL ? out : name);
    KILN_TRY(path_in(demo, "stories.txt", demo->stories_path, err));
    KILN_TRY(path_in(demo, "stories_val.txt", demo->held_out_path, err));
    KILN_TRY(path_in(demo, "tokenizer.bin", demo->tokenizer_path, err));
    KILN_TRY(path_in(demo, "run", demo->run_path, err));
    KILN_REQUIRE(demo->flags->force || !file_exists(demo->folder), err, KILN_EEXISTS,
                 "%s exists already; choose another --out, or --force to replace the demo in it",
                 demo->folder);
    return KILN_OK;
}

static enum kiln_status prepare_folder(struct demo *demo, struct kiln_err *err) {
    KILN_TRY(choose_folder(demo, err));
    if (file_exists(demo->run_path)) {
        KILN_TRY(remove_run(demo->run_path, err));
    }
    return make_folders(demo->folder, err);
}

/* ---- what is learned ------------------------------------------------------------------------ */

static enum kiln_status make_stories(struct demo *demo, struct kiln_err *err) {
    const uint64_t seed = demo->flags->seed;
    char size[32];
    KILN_TRY(stories_make(&demo->stories, seed, 0, N_STORIES, err));
    KILN_TRY(stories_make(&demo->held_out, seed, FIRST_HELD_OUT, N_HELD_OUT, err));
    KILN_TRY(stories_save(&demo->stories, demo->stories_path, err));
    KILN_TRY(stories_save(&demo->held_out, demo->held_out_path, err));
    demo_say(demo,
             "I made up %d little stories (%s, %s)\nand kept %d more aside, which the model never "
             "gets to see.\n",
             N_STORIES, kiln_human_bytes((double)demo->stories.size, size, sizeof size),
             demo->stories_path, N_HELD_OUT);
    return KILN_OK;
}

static enum kiln_status learn_vocabulary(struct demo *demo, struct kiln_err *err) {
    const size_t size = demo->stories.size < LEARN_FROM ? demo->stories.size : LEARN_FROM;
    size_t tokens = 0;
    KILN_TRY(kiln_tokenizer_train(demo->stories.text, size, "<|endoftext|>", DEMO_VOCAB,
                                  &demo->tokenizer, err));
    KILN_TRY(kiln_tokenizer_save(demo->tokenizer, demo->tokenizer_path, err));
    KILN_TRY(stories_count_tokens(&demo->held_out, demo->tokenizer, &tokens, err));
    demo->entropy = demo->held_out.surprise / (double)tokens;
    demo_say(demo,
             "From them I learned a vocabulary of %d pieces of words; a story takes about %zu.\n"
             "Whoever knows exactly how the stories are made is still surprised by %.3f nats a "
             "piece:\nthat is their entropy, and no model can do better on stories it has not "
             "seen.\n\n",
             DEMO_VOCAB, tokens / N_HELD_OUT, demo->entropy);
    return KILN_OK;
}

/* ---- what is told --------------------------------------------------------------------------- */

struct telling {
    char text[8192];
    size_t size;
};

static bool hear(void *context, const char *piece, size_t size) {
    struct telling *telling = context;
    if (size > sizeof telling->text - telling->size) {
        return false;
    }
    memcpy(telling->text + telling->size, piece, size);
    telling->size += size;
    return true;
}

static enum kiln_status tell_one(struct demo *demo, const struct kiln_model *model, uint64_t seed,
                                 struct telling *telling, struct kiln_err *err) {
    const struct kiln_settings *s = demo->settings;
    struct kiln_generate_options how = {.temperature = demo->flags->temperature,
                                        .top_p = TOP_P,
                                        .seed = seed,
                                        .threads = s->threads != KILN_UNSET ? s->threads : 0};
    struct kiln_device_choice device;
    KILN_TRY(kiln_settings_device(s, &device, &how.precision, err));
    telling->size = 0;
    return kiln_generate(model->table, model->weights, demo->tokenizer, &how, hear, telling, NULL,
                         err);
}

static enum kiln_status tell(struct demo *demo, const struct kiln_model *model,
                             struct kiln_err *err) {
    const uint64_t n = demo->flags->stories;
    struct telling telling;
    demo_say(demo, n == 1 ? "Now it tells a story:\n\n" : "Now it tells %" PRIu64 " stories:\n\n",
             n);
    for (uint64_t i = 0; i < n; i++) {
        KILN_TRY(tell_one(demo, model, demo->flags->seed + i, &telling, err));
        judge(&demo->judgement, &demo->stories, telling.text, telling.size);
        if (!demo->flags->json) {
            print_wrapped(stdout, "    ", 76, telling.text, telling.size);
        }
        demo_say(demo, "\n");
    }
    return KILN_OK;
}

static enum kiln_status measure(struct demo *demo, const struct kiln_model *model,
                                struct kiln_err *err) {
    const struct kiln_settings *s = demo->settings;
    struct kiln_eval_options how = {.data = demo->held_out_path,
                                    .tokenizer = demo->tokenizer_path,
                                    .threads = s->threads != KILN_UNSET ? s->threads : 0};
    struct kiln_device_choice device;
    KILN_TRY(kiln_settings_device(s, &device, &how.precision, err));
    KILN_TRY(kiln_eval(model, &how, &demo->result, err));
    demo_say(demo,
             "\nOn all %d stories it never saw, the loss is %.4f nats a piece: %.3f times the "
             "entropy.\n\n",
             N_HELD_OUT, demo->result.loss, demo->result.loss / demo->entropy);
    return KILN_OK;
}

static enum kiln_status show(struct demo *demo, struct kiln_err *err) {
    struct kiln_model model;
    KILN_TRY(kiln_model_open(demo->run_path, demo->flags->seed, &model, err));
    enum kiln_status status = measure(demo, &model, err);
    if (status == KILN_OK) {
        status = tell(demo, &model, err);
    }
    kiln_model_close(&model);
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void say_judgement(const struct demo *demo) {
    const struct judgement *j = &demo->judgement;
    demo_say(demo, "%zu of its %zu sentences follow the grammar, which it was never shown.\n",
             j->parsed, j->sentences);
    if (j->novel == j->stories) {
        demo_say(demo, "%s a copy of a story it was trained on.\n\n",
                 j->stories == 1 ? "It is not" : "None of them is");
    } else {
        demo_say(demo, "%zu of the %zu stories are copies of ones it was trained on.\n\n",
                 j->stories - j->novel, j->stories);
    }
}

static void say_next(const struct demo *demo) {
    demo_say(demo,
             "What to type next:\n\n"
             "  kiln generate %s -p \"Once upon a time\"\n      more stories\n"
             "  kiln train --resume %s --steps %zu\n      the same model, trained for longer\n"
             "  kiln train --data book.txt --steps 200\n      a model that learns a text of yours\n"
             "  kiln --help\n      everything else\n",
             demo->run_path, demo->run_path, 2 * demo->steps);
}

static enum kiln_status print_json(const struct demo *demo, double seconds, struct kiln_err *err) {
    const struct judgement *j = &demo->judgement;
    return json_print(json_pack("{s:o, s:f, s:o, s:I, s:I, s:I, s:I, s:f, s:s}", "loss",
                                json_number(demo->result.loss), "entropy", demo->entropy, "ratio",
                                json_number(demo->result.loss / demo->entropy), "sentences",
                                (json_int_t)j->sentences, "parsed", (json_int_t)j->parsed, "novel",
                                (json_int_t)j->novel, "stories", (json_int_t)j->stories, "seconds",
                                seconds, "folder", demo->folder),
                      err);
}

static enum kiln_status play(struct demo *demo, struct kiln_err *err) {
    const double start = demo_now_s();
    KILN_TRY(prepare_folder(demo, err));
    KILN_TRY(make_stories(demo, err));
    KILN_TRY(learn_vocabulary(demo, err));
    KILN_TRY(demo_train(demo, err));
    KILN_TRY(show(demo, err));
    if (demo->flags->json) {
        return print_json(demo, demo_now_s() - start, err);
    }
    say_judgement(demo);
    say_next(demo);
    return output_finish(err);
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    struct demo demo = {.flags = call->flags, .settings = &call->settings};
    const enum kiln_status status = play(&demo, err);
    stories_free(&demo.stories);
    stories_free(&demo.held_out);
    kiln_tokenizer_destroy(demo.tokenizer);
    return status;
}

const struct command command_demo = {
    .name = "demo",
    .synopsis = "[options]",
    .summary = "make stories, train a model on them, let it tell some (2 minutes)",
    .details = "",
    .flags_size = sizeof(struct demo_flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};

/* SPDX-License-Identifier: MIT
 *
 * demo.h: what the parts of the demo share.
 */
#ifndef KILN_CMD_DEMO_H
#define KILN_CMD_DEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "demo_stories.h"
#include "kiln/settings.h"
#include "kiln/train.h"

#define DEMO_PATH 4096

struct demo_flags {
    const char *out;
    uint64_t seconds, stories, seed;
    double temperature;
    bool force, json;
};

struct demo {
    const struct demo_flags *flags;
    const struct kiln_settings *settings; /* precision and threads of the call */
    char folder[DEMO_PATH], stories_path[DEMO_PATH], held_out_path[DEMO_PATH];
    char tokenizer_path[DEMO_PATH], run_path[DEMO_PATH];
    struct stories stories, held_out;
    struct kiln_tokenizer *tokenizer;
    double entropy; /* nats a token of the held-out stories: no model can be below it */
    size_t steps;   /* of the training */
    struct kiln_eval_result result;
    struct judgement judgement;
};

/* Ids of the vocabulary that is learned; a story is about 200 of these. */
#define DEMO_VOCAB 1400

/* Say something, unless --json asked for silence. */
void demo_say(const struct demo *demo, const char *fmt, ...) KILN_PRINTF(2, 3);
double demo_now_s(void);

/* Train for about the seconds that were asked for, showing the held-out loss fall. */
KILN_MUST_CHECK enum kiln_status demo_train(struct demo *demo, struct kiln_err *err);

#endif

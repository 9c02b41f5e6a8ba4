/* SPDX-License-Identifier: MIT
 *
 * finetune.c: teach a model a text, from a program of your own; every step is told by a callback.
 *
 *   cc finetune.c -o finetune $(pkg-config --cflags --libs kiln)
 *   ./finetune stories260K.bin tok512.bin stories.txt runs/mine
 */
#include <kiln/train.h>
#include <stdio.h>

static void on_step(void *context, const struct kiln_step_record *step) {
    FILE *to = (FILE *)context;
    fprintf(to, "step %d: loss %.4f, %.0f tokens/s\n", (int)step->step, step->loss,
            step->tokens_per_s);
}

static void on_notice(void *context, const char *text) { fprintf((FILE *)context, "%s\n", text); }

static enum kiln_status finetune(char **files, struct kiln_err *err) {
    struct kiln_observer observer = {.context = stdout, .on_step = on_step, .on_notice = on_notice};
    struct kiln_settings settings;
    struct kiln_run *run = NULL;
    KILN_TRY(kiln_settings_init(&settings, err));
    enum kiln_status status = kiln_settings_set_all(
        &settings, err, "model", files[0], "tokenizer", files[1], "data", files[2], "out", files[3],
        "steps", "20", "accum", "1", "seq", "128", "lr", "5e-4", "warmup", "5", (char *)NULL);
    if (status == KILN_OK) {
        status = kiln_run_create(&settings, &run, err);
    }
    if (status == KILN_OK) {
        status = kiln_run_train(run, &observer, NULL, err);
    }
    kiln_run_close(run);
    kiln_settings_free(&settings);
    return status;
}

int main(int argc, char **argv) {
    struct kiln_err err;
    if (argc != 5) {
        fprintf(stderr, "finetune MODEL TOKENIZER TEXT RUN\n");
        return 2;
    }
    if (finetune(argv + 1, &err) != KILN_OK) {
        fprintf(stderr, "finetune: %s\n", err.message);
        return 1;
    }
    printf("the model: %s/model.bin\n", argv[4]);
    return 0;
}

/* SPDX-License-Identifier: MIT */
#include "train/tiny_run.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/story.h"
#include "kiln_test.h"

/* The one text of all runs of a test: equal runs have equal settings. */
static const char *stories(void) {
    static char text[40000], path[4096];
    size_t n = 0;
    if (path[0]) {
        return path;
    }
    for (uint64_t i = 0; n + KILN_STORY_ROOM < sizeof text; i++) {
        n += kiln_story_write(1, i, text + n, NULL);
        n += (size_t)snprintf(text + n, sizeof text - n, "\n<|endoftext|>\n");
    }
    snprintf(path, sizeof path, "%s", test_file("stories.txt", text, n));
    return path;
}

void tiny_set(struct kiln_settings *s, const char *changes) {
    char copy[5000], *rest = copy;
    struct kiln_err err;
    snprintf(copy, sizeof copy, "%s", changes);
    for (char *word; (word = strtok_r(rest, " ", &rest)) != NULL;) {
        char *value = strchr(word, '=');
        CHECK(value != NULL);
        *value++ = '\0';
        const int id = kiln_setting_find(word);
        CHECK(id >= 0);
        CHECK_OK(kiln_settings_set(s, id, value, KILN_FROM_FLAG, &err), &err);
    }
}

void tiny_settings(struct kiln_settings *s, const char *name, const char *changes) {
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(s, &err), &err);
    tiny_set(s,
             "model=stories15m dim=32 hidden=64 layers=2 heads=4 kv-heads=2 seq=32 batch=2 "
             "accum=2 steps=8 lr=3e-3 warmup=2 eval-every=4 eval-windows=4 threads=2 "
             "save-every=2 keep-checkpoints=3");
    CHECK_OK(kiln_settings_set(s, KILN_SETTING_data, stories(), KILN_FROM_FLAG, &err), &err);
    tiny_set(s, changes);
    CHECK_OK(kiln_settings_set(s, KILN_SETTING_out, test_path(name), KILN_FROM_FLAG, &err), &err);
}

const char *tiny_run(const char *name, const char *changes, const struct kiln_observer *observer) {
    static char folder[4096];
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    tiny_settings(&s, name, changes);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    CHECK_OK(kiln_run_train(run, observer, NULL, &err), &err);
    kiln_run_close(run);
    snprintf(folder, sizeof folder, "%s", s.out);
    kiln_settings_free(&s);
    return folder;
}

void tiny_resume(const char *folder, const char *changes) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(&s, &err), &err);
    tiny_set(&s, changes);
    CHECK_OK(kiln_run_resume(folder, &s, &run, &err), &err);
    CHECK_OK(kiln_run_train(run, NULL, NULL, &err), &err);
    kiln_run_close(run);
    kiln_settings_free(&s);
}

void tiny_copy(const char *from, const char *to) {
    struct kiln_err err;
    DIR *dir = opendir(from);
    CHECK(dir != NULL);
    CHECK_OK(kiln_make_dirs(to, &err), &err);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[2][4400], *bytes;
        size_t size;
        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(path[0], sizeof path[0], "%s/%s", from, entry->d_name);
        snprintf(path[1], sizeof path[1], "%s/%s", to, entry->d_name);
        CHECK_OK(kiln_read_file(path[0], &bytes, &size, &err), &err);
        FILE *file = fopen(path[1], "wbx");
        CHECK(file != NULL);
        CHECK(fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
        kiln_free(bytes);
    }
    closedir(dir);
}

void tiny_flip(const char *folder, const char *name, long at) {
    char path[4400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r+b");
    CHECK(file != NULL);
    CHECK(fseek(file, at, SEEK_SET) == 0);
    const int c = fgetc(file);
    CHECK(c != EOF && fseek(file, at, SEEK_SET) == 0 && fputc(c ^ 4, file) != EOF);
    CHECK(fclose(file) == 0);
}

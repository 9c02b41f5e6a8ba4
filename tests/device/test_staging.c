/* SPDX-License-Identifier: MIT
 *
 * Staging folders (device/ane/staging.h): shared, locked, removed, taken over.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "device/ane/staging.h"
#include "kiln_test.h"

static char first[] = "first weight", second[] = "second weight";
static const struct kiln_npu_weight weights[2] = {
    {.name = "w.bin", .data = first, .bytes = sizeof first - 1},
    {.name = "b.bin", .data = second, .bytes = sizeof second - 1},
};
static const struct kiln_npu_source source = {
    .label = "test", .text = "program", .bytes = 7, .weights = weights, .n_weights = 2};

static void open_it(struct kiln_staging *out) {
    struct kiln_err err;
    CHECK_OK(kiln_staging_open(test_folder(), "digest", &source, out, &err), &err);
    CHECK_STRING(out->path, test_path("digest"));
}

static void close_it(struct kiln_staging *staging) {
    struct kiln_err err;
    CHECK_OK(kiln_staging_close(staging, &err), &err);
    CHECK(staging->path == NULL);
}

static void check_file(const char *name, const char *want) {
    char *data;
    size_t size;
    struct kiln_err err;
    CHECK_OK(kiln_read_file(test_path(name), &data, &size, &err), &err);
    CHECK_STRING(data, want);
    kiln_free(data);
}

TEST(a_staging_folder_is_private_and_holds_what_was_given) {
    struct kiln_staging staging;
    struct stat info;
    open_it(&staging);
    CHECK_EQ(stat(test_path("digest"), &info), 0);
    CHECK_EQ(info.st_mode & 07777, 0700);
    CHECK_EQ(stat(test_path("digest/weights"), &info), 0);
    CHECK_EQ(info.st_mode & 07777, 0700);
    check_file("digest/model.mil", "program");
    check_file("digest/weights/w.bin", first);
    check_file("digest/weights/b.bin", second);
    close_it(&staging);
    CHECK(!kiln_path_exists(test_path("digest")));
    close_it(&staging); /* a closed one is fine */
}

TEST(users_share_a_staging_folder_and_the_last_removes_it) {
    struct kiln_staging one, two, three;
    open_it(&one);
    test_file("digest/data", "compiled", 8);
    open_it(&two);
    close_it(&one);
    check_file("digest/data", "compiled");
    open_it(&three);
    close_it(&two);
    check_file("digest/data", "compiled");
    close_it(&three);
    CHECK(!kiln_path_exists(test_path("digest")));
}

/* A process that holds the folder until it is killed. */
static pid_t hold_elsewhere(void) {
    int pipes[2];
    char word;
    CHECK_EQ(pipe(pipes), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        struct kiln_staging staging;
        open_it(&staging);
        test_file("digest/data", "of another", 10);
        if (write(pipes[1], "x", 1) == 1) {
            pause();
        }
        _exit(1);
    }
    CHECK(pid > 0);
    CHECK_EQ(read(pipes[0], &word, 1), 1);
    close(pipes[0]);
    close(pipes[1]);
    return pid;
}

static void end_it(pid_t pid) {
    CHECK_EQ(kill(pid, SIGKILL), 0);
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

TEST(another_process_keeps_its_folder_and_a_dead_one_does_not) {
    struct kiln_staging staging;
    const pid_t pid = hold_elsewhere();
    open_it(&staging);
    close_it(&staging);
    check_file("digest/data", "of another");
    end_it(pid);
    CHECK(kiln_path_exists(test_path("digest/data"))); /* left by the dead */
    open_it(&staging);
    CHECK(!kiln_path_exists(test_path("digest/data"))); /* made anew */
    check_file("digest/model.mil", "program");
    close_it(&staging);
    CHECK(!kiln_path_exists(test_path("digest")));
}

TEST(a_sweep_removes_what_the_dead_left_and_nothing_else) {
    struct kiln_staging other;
    struct kiln_err err;
    struct kiln_npu_source source_2 = source;
    source_2.label = "other";
    CHECK_EQ(mkdir(test_path("of-somebody"), 0700), 0); /* not kiln's */
    CHECK_OK(kiln_staging_open(test_folder(), "alive", &source_2, &other, &err), &err);
    const pid_t pid = hold_elsewhere();
    kiln_staging_sweep(test_folder());
    CHECK(kiln_path_exists(test_path("digest/data")) && kiln_path_exists(test_path("alive")));
    end_it(pid);
    kiln_staging_sweep(test_folder());
    CHECK(!kiln_path_exists(test_path("digest")));
    CHECK(!kiln_path_exists(test_path("kiln-staging/digest")));
    CHECK(kiln_path_exists(test_path("alive/model.mil")));
    CHECK(kiln_path_exists(test_path("of-somebody")));
    close_it(&other);
    CHECK(!kiln_path_exists(test_path("kiln-staging")));
    CHECK_EQ(mkdir(test_path("kiln-staging"), 0700), 0);
    test_file("kiln-staging/gone", "", 0);
    kiln_staging_sweep(test_folder());
    CHECK(!kiln_path_exists(test_path("kiln-staging")));
    kiln_staging_sweep(test_folder()); /* without marks */
    CHECK(kiln_path_exists(test_path("of-somebody")));
}

TEST(a_folder_that_cannot_be_staged_is_named_and_leaves_nothing) {
    struct kiln_staging staging;
    struct kiln_err err;
    CHECK_FAILS(kiln_staging_open(NULL, "digest", &source, &staging, &err), KILN_EIO, &err);
    CHECK_CONTAINS(err.message, "no folder for temporary files");
    CHECK(staging.path == NULL);
    kiln_staging_sweep(NULL);
    CHECK_FAILS(kiln_staging_open(test_path("absent"), "digest", &source, &staging, &err), KILN_EIO,
                &err);
    CHECK_CONTAINS(err.message, "absent/digest: No such file");
    CHECK(staging.path == NULL);
    test_file("digest", "x", 1);
    CHECK_FAILS(kiln_staging_open(test_folder(), "digest", &source, &staging, &err), KILN_EIO,
                &err);
    CHECK_CONTAINS(err.message, "Not a directory");
    CHECK_EQ(unlink(test_path("digest")), 0);
    const struct kiln_npu_weight lost = {.name = "no/such.bin", .data = first, .bytes = 5};
    const struct kiln_npu_source odd = {
        .label = "test", .text = "program", .bytes = 7, .weights = &lost, .n_weights = 1};
    CHECK_FAILS(kiln_staging_open(test_folder(), "digest", &odd, &staging, &err), KILN_EIO, &err);
    CHECK_CONTAINS(err.message, "weights/no/such.bin");
    CHECK(!kiln_path_exists(test_path("digest")));
}

/* ---- patches --------------------------------------------------------------------------------- */

static char third[] = "fresh weight", fourth[] = "cooler weight", longer[] = "a longer weight";

static void check_patch(const char *data, const struct kiln_npu_weight fresh[2], const char *want,
                        const char *words) {
    const struct kiln_npu_source other = {
        .label = "test", .text = "program", .bytes = 7, .weights = fresh, .n_weights = 2};
    struct kiln_staging donor, to;
    struct kiln_err err;
    open_it(&donor);
    CHECK_OK(kiln_staging_open(test_folder(), "fresh", &other, &to, &err), &err);
    test_file("digest/net.plist", "plist", 5);
    test_file("digest/data", data, strlen(data));
    if (want) {
        CHECK_OK(kiln_staging_patch(&to, &donor, fresh, 2, &err), &err);
        check_file("fresh/data", want);
        check_file("fresh/net.plist", "plist");
    } else {
        CHECK_FAILS(kiln_staging_patch(&to, &donor, fresh, 2, &err), KILN_EUNSUPPORTED, &err);
        CHECK_CONTAINS(err.message, words);
        CHECK(!kiln_path_exists(test_path("fresh/data")));
    }
    close_it(&to);
    close_it(&donor);
}

TEST(a_patch_puts_new_weights_where_the_old_ones_lie) {
    const struct kiln_npu_weight fresh[2] = {
        {.name = "w.bin", .data = third, .bytes = sizeof third - 1},
        {.name = "b.bin", .data = fourth, .bytes = sizeof fourth - 1},
    };
    const struct kiln_npu_weight grown[2] = {
        {.name = "w.bin", .data = longer, .bytes = sizeof longer - 1}, fresh[1]};
    check_patch("<second weight|first weight>", fresh, "<cooler weight|fresh weight>", NULL);
    check_patch("<second weight|>", fresh, NULL, "does not hold w.bin");
    check_patch("<first weight|second", fresh, NULL, "does not hold b.bin");
    check_patch("<second weight|first weight|first weight>", fresh, NULL, "w.bin twice");
    check_patch("<second weight|first weight>", grown, NULL, "w.bin of 15 bytes");
}

TEST(a_patch_to_equal_weights_is_there_already) {
    struct kiln_staging one, two;
    struct kiln_err err;
    open_it(&one);
    open_it(&two);
    CHECK_OK(kiln_staging_patch(&two, &one, weights, 2, &err), &err);
    close_it(&one);
    close_it(&two);
}

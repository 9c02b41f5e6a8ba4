/* SPDX-License-Identifier: MIT
 *
 * Files (src/base/io.h): what they hold afterwards, what stays behind, what the messages name.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "kiln_test.h"

static void check_holds(const char *path, const char *want) {
    char *text;
    size_t size;
    struct kiln_err err;
    CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
    CHECK_EQ(size, strlen(want));
    CHECK_STRING(text, want);
    kiln_free(text);
}

static size_t entries_of(const char *folder) {
    DIR *dir = opendir(folder);
    CHECK(dir != NULL);
    size_t n = 0;
    while (readdir(dir) != NULL) {
        n++;
    }
    closedir(dir);
    return n - 2; /* . and .. */
}

TEST(a_file_written_is_read_back_and_nothing_else_is_left) {
    const char *path = test_path("a");
    CHECK_OK(kiln_write_file(path, "one", 3, NULL), NULL);
    check_holds(path, "one");
    CHECK_OK(kiln_write_file(path, "", 0, NULL), NULL);
    check_holds(path, "");
    CHECK_EQ(entries_of(test_folder()), 1);
}

TEST(a_large_file_is_read_whole) {
    const size_t size = 1000003;
    char *bytes = kiln_alloc(size, 1);
    bytes[size - 1] = 'z';
    bytes[4095] = 'y';
    const char *path = test_file("large", bytes, size);
    char *back;
    size_t got;
    CHECK_OK(kiln_read_file(path, &back, &got, NULL), NULL);
    CHECK_EQ(got, size);
    CHECK_BYTES(back, bytes, size);
    CHECK_EQ(back[size], 0);
    kiln_free(back);
    struct kiln_map map;
    CHECK_OK(kiln_map_open(&map, path, NULL), NULL);
    CHECK_EQ(map.size, size);
    CHECK_BYTES(map.data, bytes, size);
    kiln_map_close(&map);
    kiln_free(bytes);
}

TEST(a_pipe_is_read_to_its_end) {
    const char *path = test_path("pipe");
    CHECK_EQ(mkfifo(path, 0600), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        FILE *pipe = fopen(path, "w");
        for (int i = 0; pipe != NULL && i < 20000; i++) {
            fputs("abcdefgh\n", pipe);
        }
        _exit(pipe == NULL || fclose(pipe) != 0);
    }
    char *text;
    size_t size;
    CHECK_OK(kiln_read_file(path, &text, &size, NULL), NULL);
    CHECK_EQ(size, 180000);
    CHECK_STRING(text + 180000 - 9, "abcdefgh\n");
    kiln_free(text);
    struct kiln_err err;
    CHECK_FAILS(kiln_durable_open(&(struct kiln_durable){0}, path, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "not a regular file");
}

TEST(an_empty_file_maps_to_nothing) {
    struct kiln_map map;
    CHECK_OK(kiln_map_open(&map, test_file("empty", "", 0), NULL), NULL);
    CHECK(map.data == NULL);
    CHECK_EQ(map.size, 0);
    kiln_map_close(&map);
}

TEST(a_file_that_cannot_be_read_is_named_with_the_reason) {
    struct kiln_map map;
    char *text;
    size_t size;
    struct kiln_err err;
    CHECK_FAILS(kiln_map_open(&map, test_path("none"), &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, test_path("none"));
    CHECK_CONTAINS(err.message, "No such file");
    CHECK_FAILS(kiln_read_file(test_path("none"), &text, &size, &err), KILN_EINPUT, &err);
    CHECK(text == NULL);
    CHECK_FAILS(kiln_map_open(&map, test_folder(), &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "directory");
    CHECK_FAILS(kiln_read_file(test_folder(), &text, &size, &err), KILN_EINPUT, &err);
}

TEST(a_durable_file_appears_only_at_commit) {
    const char *path = test_file("a", "old", 3);
    struct kiln_durable file;
    CHECK_OK(kiln_durable_open(&file, path, NULL), NULL);
    CHECK_OK(kiln_durable_write(&file, "ne", 2, NULL), NULL);
    fputc('w', file.stream);
    check_holds(path, "old");
    CHECK_CONTAINS(file.temporary, "a.tmp-");
    CHECK_OK(kiln_durable_commit(&file, NULL), NULL);
    check_holds(path, "new");
    CHECK_EQ(entries_of(test_folder()), 1);
    kiln_durable_abort(&file);
}

TEST(an_aborted_file_leaves_the_old_one) {
    const char *path = test_file("a", "old", 3);
    struct kiln_durable file;
    CHECK_OK(kiln_durable_open(&file, path, NULL), NULL);
    CHECK_OK(kiln_durable_write(&file, "new", 3, NULL), NULL);
    kiln_durable_abort(&file);
    check_holds(path, "old");
    CHECK_EQ(entries_of(test_folder()), 1);
}

TEST(a_full_disk_leaves_the_old_file) {
    if (!kiln_path_exists("/dev/full")) {
        SKIP("no /dev/full on this system");
    }
    const char *path = test_file("a", "old", 3);
    struct kiln_durable file;
    struct kiln_err err;
    CHECK_OK(kiln_durable_open(&file, path, NULL), NULL);
    CHECK(freopen("/dev/full", "w", file.stream) != NULL);
    CHECK_OK(kiln_durable_write(&file, "new", 3, NULL), NULL); /* still in the buffer */
    CHECK_FAILS(kiln_durable_commit(&file, &err), KILN_EIO, &err);
    CHECK_CONTAINS(err.message, "No space left");
    kiln_durable_abort(&file);
    check_holds(path, "old");
    CHECK_EQ(entries_of(test_folder()), 1);
}

TEST(a_file_in_a_folder_that_is_absent_cannot_be_written) {
    struct kiln_err err;
    CHECK_FAILS(kiln_write_file(test_path("none/a"), "x", 1, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "none/a");
    CHECK_FAILS(kiln_write_file(test_folder(), "x", 1, &err), KILN_EINPUT, &err);
}

TEST(folders_are_made_with_their_parents_and_removed_with_their_contents) {
    const char *deep = test_path("a/b//c/");
    CHECK_OK(kiln_make_dirs(deep, NULL), NULL);
    CHECK_OK(kiln_make_dirs(deep, NULL), NULL);
    CHECK(kiln_path_is_dir(test_path("a/b/c")));
    CHECK_OK(kiln_sync_dir(deep, NULL), NULL);
    test_file("a/b/c/file", "x", 1);
    const char *kept = test_file("kept", "x", 1);
    CHECK_EQ(symlink(kept, test_path("a/b/link")), 0);
    CHECK_OK(kiln_remove_tree(test_path("a"), NULL), NULL);
    CHECK(!kiln_path_exists(test_path("a")));
    CHECK(kiln_path_exists(kept));
    CHECK_OK(kiln_remove_tree(test_path("a"), NULL), NULL);
    struct kiln_err err;
    CHECK_FAILS(kiln_make_dirs(test_path("kept/b"), &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "kept");
    CHECK(!kiln_path_is_dir(kept));
}

TEST(the_machine_has_a_processor_a_clock_and_memory) {
    CHECK(kiln_cpu_count() >= 1);
    double then = kiln_now_s();
    CHECK(kiln_now_s() >= then);
    if (!kiln_path_exists("/proc/self/status")) {
        SKIP("no /proc");
    }
    CHECK(kiln_memory_available() > 1000000);
    CHECK(kiln_memory_resident() > 100000);
    size_t before = kiln_memory_resident(), size = (size_t)64 << 20;
    unsigned char *block = kiln_alloc(size, 1);
    memset(block, 1, size);
    CHECK(kiln_memory_resident() > before + size / 2);
    CHECK(kiln_memory_resident_peak() > size);
    kiln_free(block);
}

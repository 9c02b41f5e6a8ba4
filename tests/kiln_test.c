/* SPDX-License-Identifier: MIT
 *
 * kiln_test.c: runs the tests of tests/kiln_test.h and the shell tests of tests/cli, one process
 * each, and ends with the line "N passed, M failed, K skipped".
 *
 * Check does the forking and the time limits. Every test gets a runner of its own, so that its
 * line is printed when it ends and its folder is removed by the parent, even after a crash.
 */
#include "kiln_test.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SCRIPT_LIMIT_S 600.0 /* of a shell test; on a busy machine one takes more than 300 */
#define EXIT_SKIPPED   77    /* what a shell test returns to be counted as skipped */

static struct kiln_test *first_test;
static struct kiln_test **last_link = &first_test;

/* What a test's process tells its parent beside failure: that it came to its end (and did not just
 * leave with exit 0), or why it was skipped. */
static struct word {
    bool finished;
    char skipped[512];
} * word;

/* Folder of this run; in it "work", the folder of the running test, and "output" of a script. */
static char run_folder[PATH_MAX - 64];
static const struct kiln_test *running;

void kiln_test_register(struct kiln_test *test) {
    *last_link = test;
    last_link = &test->next;
}

/* ---- how a test ends early --------------------------------------------------------------- */

void kiln_test_skip(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(word->skipped, sizeof(word->skipped), fmt, args);
    va_end(args);
    fflush(NULL);
    _exit(0);
}

void kiln_test_fail(const char *file, int line, const char *fmt, ...) {
    char message[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    fflush(stdout);
    _ck_assert_failed(file, line, "", "%s", message);
    _exit(1);
}

/* ---- files ------------------------------------------------------------------------------- */

/* folder/name, which stays valid through the next 63 calls. */
static const char *joined(const char *folder, const char *name) {
    static char *paths[64];
    static size_t next;
    char *path = NULL;
    if (asprintf(&path, "%s/%s", folder, name) < 0) {
        kiln_test_fail(__FILE__, __LINE__, "out of memory");
    }
    char **slot = &paths[next++ % 64];
    free(*slot);
    *slot = path;
    return path;
}

static const char *existing(const char *variable, const char *name) {
    const char *path = joined(getenv(variable), name);
    if (access(path, R_OK) != 0) {
        SKIP("%s is absent ($%s names its folder)", name, variable);
    }
    return path;
}

const char *test_data(const char *name) { return existing("KILN_DATA", name); }

const char *test_reference(const char *name) { return existing("KILN_REFERENCE", name); }

const char *test_folder(void) { return joined(run_folder, "work"); }

const char *test_path(const char *name) { return joined(test_folder(), name); }

const char *test_file(const char *name, const void *data, size_t size) {
    const char *path = test_path(name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0) {
        kiln_test_fail(__FILE__, __LINE__, "%s: %s", path, strerror(errno));
    }
    return path;
}

void test_python(const char *script, const char *arguments) {
    char command[2048];
    const char *python = getenv("KILN_PYTHON");
    if (python == NULL || python[0] == '\0') {
        SKIP("KILN_PYTHON is not set: a Python with PyTorch and transformers");
    }
    snprintf(command, sizeof command, "'%s' '%s' %s 2>'%s'", python, script, arguments,
             test_path("python.err"));
    fflush(NULL);
    const int status = system(command); /* NOLINT: what a test runs is its own */
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code == EXIT_SKIPPED) {
        SKIP("%s: lacks a package that %s imports", python, script);
    }
    if (code != 0) {
        char text[512] = "";
        FILE *errors = fopen(test_path("python.err"), "rb");
        if (errors != NULL && fseek(errors, -(long)sizeof text + 1, SEEK_END) != 0) {
            rewind(errors);
        }
        const size_t n = errors ? fread(text, 1, sizeof text - 1, errors) : 0;
        text[n] = '\0';
        kiln_test_fail(__FILE__, __LINE__, "%s ended with %d: %s", command, code, text);
    }
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place) {
    (void)info;
    (void)place;
    if (kind == FTW_DNR) {
        chmod(path, 0700);
    }
    return remove(path);
}

static void remove_tree(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

/* ---- shell tests ------------------------------------------------------------------------- */

/* Copy the end of the script's output to `to`; with `last_line` only its last line. */
static void read_output(char *to, size_t room, bool last_line) {
    to[0] = '\0';
    FILE *file = fopen(joined(run_folder, "output"), "rb");
    if (file == NULL) {
        return;
    }
    fseek(file, 0, SEEK_END);
    const long size = ftell(file);
    fseek(file, size > (long)room - 1 ? size - (long)room + 1 : 0, SEEK_SET);
    size_t n = fread(to, 1, room - 1, file);
    fclose(file);
    while (n > 0 && to[n - 1] == '\n') {
        n--;
    }
    to[n] = '\0';
    const char *end = last_line ? strrchr(to, '\n') : NULL;
    if (end != NULL) {
        memmove(to, end + 1, strlen(end));
    }
}

static void run_script(void) {
    const char *script = joined(getenv("ROOT"), running->file);
    const pid_t pid = fork();
    if (pid == 0) {
        const int output = open(joined(run_folder, "output"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        const int input = open("/dev/null", O_RDONLY);
        if (output < 0 || input < 0 || dup2(input, 0) < 0 || dup2(output, 1) < 0 ||
            dup2(output, 2) < 0 || chdir(test_folder()) != 0) {
            _exit(126);
        }
        execl(script, script, (char *)NULL);
        dprintf(2, "%s: %s\n", script, strerror(errno));
        _exit(127);
    }
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED) {
        char reason[sizeof(word->skipped)];
        read_output(reason, sizeof(reason), true);
        SKIP("%s", reason);
    }
    if (pid < 0 || status != 0) {
        char last[512]; /* most often why: a long output may be cut by whoever keeps it */
        read_output(last, sizeof(last), true);
        kiln_test_fail(running->file, 1,
                       WIFSIGNALED(status) ? "signal %d: %s" : "exit status %d: %s",
                       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), last);
    }
}

static void register_scripts(void) {
    glob_t found;
    if (glob("tests/cli/*.sh", 0, NULL, &found) != 0) {
        return;
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct kiln_test *test = calloc(1, sizeof(*test));
        char *path = strdup(found.gl_pathv[i]);
        if (test == NULL || path == NULL) {
            free(test);
            free(path);
            break;
        }
        test->file = path;
        test->body = run_script;
        test->limit_s = SCRIPT_LIMIT_S;
        kiln_test_register(test);
    }
    globfree(&found);
}

/* ---- the run ----------------------------------------------------------------------------- */

/* "base/status: the_name_of_the_test" of tests/base/test_status.c; "cli/name" of a script. */
static void full_name(const struct kiln_test *test, char *name, size_t room) {
    const char *path = test->file;
    path += strncmp(path, "tests/", 6) == 0 ? 6 : 0;
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    const int folder = (int)(base - path);
    base += strncmp(base, "test_", 5) == 0 ? 5 : 0;
    const int stem = (int)strcspn(base, ".");
    snprintf(name, room, test->body == run_script ? "%.*s%.*s" : "%.*s%.*s: %s", folder, path, stem,
             base, test->name);
}

static void run_body(int index) {
    (void)index;
    running->body();
    word->finished = true;
}

enum outcome { PASSED, FAILED, SKIPPED };

static enum outcome run_test(const struct kiln_test *test, const char *name) {
    struct timespec start;
    struct timespec end;
    char message[2048] = "";
    memset(word, 0, sizeof(*word));
    running = test;
    if (mkdir(test_folder(), 0700) != 0) {
        snprintf(message, sizeof(message), "%s: %s", test_folder(), strerror(errno));
    }
    fflush(NULL);

    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, test->limit_s);
    const TTest body = {test->name, run_body, test->file, test->line};
    _tcase_add_test(tcase, &body, 0, 0, 0, 1);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    clock_gettime(CLOCK_MONOTONIC, &start);
    srunner_run_all(runner, CK_SILENT);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (srunner_ntests_failed(runner) != 0) {
        TestResult **results = srunner_failures(runner);
        snprintf(message, sizeof(message), "%s:%d: %s", tr_lfile(results[0]), tr_lno(results[0]),
                 tr_msg(results[0]));
        free(results);
    } else if (!word->finished && word->skipped[0] == '\0') {
        snprintf(message, sizeof(message), "%s:%d: exit before the end of the test", test->file,
                 test->line);
    }
    srunner_free(runner);

    enum outcome outcome = PASSED;
    if (message[0] != '\0') {
        char output[4096];
        read_output(output, sizeof(output), false);
        printf("FAIL  %s\n      %s\n%s%s", name, message, output, output[0] ? "\n" : "");
        outcome = FAILED;
    } else if (word->skipped[0] != '\0') {
        printf("skip  %s: %s\n", name, word->skipped);
        outcome = SKIPPED;
    } else {
        const double s =
            (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
        printf(s < 1.0 ? "pass  %s\n" : "pass  %s (%.1f s)\n", name, s);
    }
    fflush(stdout);
    remove_tree(test_folder());
    remove(joined(run_folder, "output"));
    return outcome;
}

/* Is a test of this name wanted by the arguments, or by KILN_TEST where there are none? */
static bool is_wanted(const char *name, int argc, char **argv) {
    if (argc < 2) {
        const char *part = getenv("KILN_TEST");
        return part == NULL || strstr(name, part) != NULL;
    }
    for (int i = 1; i < argc; i++) {
        if (strstr(name, argv[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* Tests and scripts find the repository, the program and the data by these variables. */
static bool set_environment(void) {
    char root[PATH_MAX];
    if (realpath(getenv("ROOT") ? getenv("ROOT") : ".", root) == NULL || chdir(root) != 0) {
        perror("repository root ($ROOT)");
        return false;
    }
    setenv("ROOT", root, 1);
    setenv("KILN_DATA", joined(root, "../shared/data"), 0);
    setenv("KILN_REFERENCE", joined(root, "../shared/reference"), 0);
    const char *parent = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    snprintf(run_folder, sizeof(run_folder), "%s/kiln-tests-XXXXXX", parent);
    if (mkdtemp(run_folder) == NULL) {
        perror(run_folder);
        return false;
    }
    return true;
}

int main(int argc, char **argv) {
    const bool list = argc == 2 && strcmp(argv[1], "--list") == 0;
    word = mmap(NULL, sizeof(*word), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (word == MAP_FAILED || !set_environment()) {
        return EXIT_FAILURE;
    }
    register_scripts();
    size_t count[3] = {0};
    for (const struct kiln_test *test = first_test; test != NULL; test = test->next) {
        char name[PATH_MAX];
        full_name(test, name, sizeof(name));
        if (list) {
            puts(name);
        } else if (is_wanted(name, argc, argv)) {
            count[run_test(test, name)]++;
        }
    }
    remove_tree(run_folder);
    if (list) {
        return EXIT_SUCCESS;
    }
    printf("%zu passed, %zu failed, %zu skipped\n", count[PASSED], count[FAILED], count[SKIPPED]);
    return count[FAILED] == 0 && count[PASSED] + count[SKIPPED] > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

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
#include <signal.h>
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

/* How many run at once; each may take so many times as long as by itself. */
static size_t jobs = 1;

/* Folder of this run, or of a place in it (several at once); in it "work", the folder of the
 * running test, and "output" of a script. */
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

/* Has it a line "# alone: why" among its first? */
static bool script_is_alone(const char *path) {
    FILE *file = fopen(path, "rb");
    char line[256];
    bool alone = false;
    for (int i = 0; file != NULL && i < 8 && fgets(line, sizeof line, file) != NULL; i++) {
        alone = alone || strncmp(line, "# alone:", 8) == 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return alone;
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
        test->alone = script_is_alone(path);
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
    tcase_set_timeout(tcase, test->limit_s * (double)(test->alone ? 1 : jobs));
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
    if (strstr(name, "harness: sample_") != NULL && getenv("KILN_HARNESS") == NULL) {
        return false; /* they fail, for tests/cli/harness.sh to see how */
    }
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
    char self[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = '\0';
    setenv("KILN_TESTS", self, 1);
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

/* ---- several at once ------------------------------------------------------------------------ */

/* A test that is wanted; what it says is kept until those before it have spoken. */
struct job {
    const struct kiln_test *test;
    char *name;
    FILE *said;
    pid_t pid; /* 0: not begun */
    size_t place;
    bool done;
    enum outcome outcome;
};

/* Processes under way, for the handler of signals. */
enum { MOST_JOBS = 64 };
static volatile pid_t under_way[MOST_JOBS];

static void pass_on(int signal_number) {
    for (size_t i = 0; i < MOST_JOBS; i++) {
        if (under_way[i] > 0) {
            kill(under_way[i], signal_number);
        }
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* In a process of its own, with a folder of its own; everything it prints goes into a file. */
static void begin_job(struct job *job, size_t place) {
    char folder[sizeof run_folder];
    snprintf(folder, sizeof folder, "%.*s/%zu", (int)sizeof folder - 24, run_folder, place);
    job->said = tmpfile();
    job->place = place;
    if (job->said == NULL || (mkdir(folder, 0700) != 0 && errno != EEXIST)) {
        perror("a place for a test");
        exit(EXIT_FAILURE);
    }
    fflush(NULL);
    job->pid = fork();
    if (job->pid < 0) {
        perror("a process for a test");
        exit(EXIT_FAILURE);
    }
    if (job->pid == 0) {
        setpgid(0, 0); /* Check signals its whole group when it is stopped: that is the job's own */
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        snprintf(run_folder, sizeof run_folder, "%s", folder);
        word = mmap(NULL, sizeof(*word), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (word == MAP_FAILED || dup2(fileno(job->said), 1) < 0 || dup2(1, 2) < 0) {
            _exit(FAILED);
        }
        const enum outcome outcome = run_test(job->test, job->name);
        fflush(NULL);
        _exit((int)outcome);
    }
    setpgid(job->pid, job->pid); /* whoever comes first */
    under_way[place] = job->pid;
}

/* Wait until one ends. */
static void end_job(struct job *all, size_t n) {
    int status = 0;
    const pid_t pid = wait(&status);
    for (size_t i = 0; i < n; i++) {
        if (pid > 0 && all[i].pid == pid && !all[i].done) {
            const bool told = WIFEXITED(status) && WEXITSTATUS(status) <= SKIPPED;
            all[i].done = true;
            all[i].outcome = told ? (enum outcome)WEXITSTATUS(status) : FAILED;
            under_way[all[i].place] = 0;
            if (!told) {
                fprintf(all[i].said, "FAIL  %s\n      its runner died\n", all[i].name);
            }
        }
    }
}

static void show_job(struct job *job) {
    char text[4096];
    size_t n;
    rewind(job->said);
    while ((n = fread(text, 1, sizeof text, job->said)) > 0) {
        fwrite(text, 1, n, stdout);
    }
    fflush(stdout);
    fclose(job->said);
}

static void run_at_once(struct job *all, size_t n, size_t count[3]) {
    size_t next = 0, running_now = 0, shown = 0;
    signal(SIGINT, pass_on);
    signal(SIGTERM, pass_on);
    while (shown < n) {
        while (running_now < jobs && next < n) {
            size_t place = 0;
            while (under_way[place] > 0) {
                place++;
            }
            begin_job(&all[next++], place);
            running_now++;
        }
        end_job(all, next);
        running_now--;
        while (shown < n && all[shown].done) {
            count[all[shown].outcome]++;
            show_job(&all[shown++]);
        }
    }
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

/* ---- the program ---------------------------------------------------------------------------- */

/* "-j N" in front, or the environment. Returns how many arguments that were. */
static int read_jobs(int argc, char **argv) {
    const bool given = argc > 2 && strcmp(argv[1], "-j") == 0;
    const char *text = given ? argv[2] : getenv("KILN_TEST_JOBS");
    const char *fork_mode = getenv("CK_FORK");
    const unsigned long n = text != NULL ? strtoul(text, NULL, 10) : 1;
    jobs = n < 1 ? 1 : n > MOST_JOBS ? MOST_JOBS : (size_t)n;
    if (fork_mode != NULL && strcmp(fork_mode, "no") == 0) {
        jobs = 1;
    }
    return given ? 2 : 0;
}

/* Those that are wanted, in order; alone: those that want the machine for themselves. */
static size_t collect(struct job *out, bool alone, int argc, char **argv) {
    size_t n = 0;
    for (const struct kiln_test *test = first_test; test != NULL; test = test->next) {
        char name[PATH_MAX];
        full_name(test, name, sizeof(name));
        if ((jobs > 1 ? test->alone == alone : !alone) && is_wanted(name, argc, argv)) {
            out[n++] = (struct job){.test = test, .name = strdup(name)};
        }
    }
    return n;
}

static void list_all(void) {
    for (const struct kiln_test *test = first_test; test != NULL; test = test->next) {
        char name[PATH_MAX];
        full_name(test, name, sizeof(name));
        puts(name);
    }
}

static void run_all(int argc, char **argv, size_t count[3]) {
    size_t most = 0;
    for (const struct kiln_test *test = first_test; test != NULL; test = test->next) {
        most++;
    }
    struct job *all = calloc(most + 1, sizeof *all);
    for (int alone = 0; all != NULL && alone <= 1; alone++) {
        const size_t n = collect(all, alone == 1, argc, argv);
        if (jobs > 1 && alone == 0) {
            run_at_once(all, n, count);
        } else {
            for (size_t i = 0; i < n; i++) {
                count[run_test(all[i].test, all[i].name)]++;
            }
        }
        for (size_t i = 0; i < n; i++) {
            free(all[i].name);
        }
    }
    free(all);
}

int main(int argc, char **argv) {
    const bool list = argc == 2 && strcmp(argv[1], "--list") == 0;
    word = mmap(NULL, sizeof(*word), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (word == MAP_FAILED || !set_environment()) {
        return EXIT_FAILURE;
    }
    register_scripts();
    size_t count[3] = {0};
    if (list) {
        list_all();
    } else {
        const int read = read_jobs(argc, argv);
        run_all(argc - read, argv + read, count);
    }
    remove_tree(run_folder);
    if (list) {
        return EXIT_SUCCESS;
    }
    printf("%zu passed, %zu failed, %zu skipped\n", count[PASSED], count[FAILED], count[SKIPPED]);
    return count[FAILED] == 0 && count[PASSED] + count[SKIPPED] > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* SPDX-License-Identifier: MIT
 *
 * machine.c: see machine.h. What is available is what the kernel says, or less where a control
 * group limits this process: a container of 2 GB on a machine of 64 must plan for 2. A file that
 * is missing or strange counts as "no limit"; planning with too much is better than not starting.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity, pthread_setname_np */
#endif
#include "base/machine.h"

#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#include <sched.h>
#include <stdbool.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATH_ROOM 4096

double kiln_now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void kiln_thread_name(const char *name) {
#ifdef __APPLE__
    (void)pthread_setname_np(name);
#elif defined(__linux__)
    (void)pthread_setname_np(pthread_self(), name);
#else
    (void)name;
#endif
}

size_t kiln_cpu_count(void) {
#ifdef __linux__
    cpu_set_t set; /* 1024 processors; on a larger machine the call fails and sysconf answers */
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) {
        return (size_t)CPU_COUNT(&set);
    }
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (size_t)online : 1;
}

#ifdef __APPLE__
void kiln_cpu_model(char *out, size_t size) {
    char name[128] = "";
    size_t room = sizeof name - 1;
    const bool known = sysctlbyname("machdep.cpu.brand_string", name, &room, NULL, 0) == 0;
    snprintf(out, size, "%s", known && name[0] ? name : "unknown");
}
#else
/* The value of the first line "key ... : value" of a file; false when there is none. */
static bool text_after(const char *path, const char *key, char *out, size_t size) {
    FILE *file = fopen(path, "re");
    char line[4096]; /* the flags of a processor are long */
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        const char *value = strstr(line, ": ");
        if (value != NULL && strncmp(line, key, strlen(key)) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(out, size, "%s", value + 2);
            found = true;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

/* An x86 has a name; an arm64 has numbers of who made it and what it is. */
void kiln_cpu_model(char *out, size_t size) {
    static const char info[] = "/proc/cpuinfo";
    char maker[32], part[32];
    if (text_after(info, "model name", out, size)) {
        return;
    }
    if (text_after(info, "CPU implementer", maker, sizeof maker) &&
        text_after(info, "CPU part", part, sizeof part)) {
        snprintf(out, size, "implementer %s part %s", maker, part);
        return;
    }
    snprintf(out, size, "unknown");
}
#endif

size_t kiln_cache_bytes(void) {
    long bytes = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return bytes > 0 ? (size_t)bytes : (size_t)32 << 20;
}

/* Find the line that begins with `key` in a file of "key number" lines; true and the number when
 * it is there. */
static bool number_after(const char *path, const char *key, size_t *value) {
    char text[8192]; /* a file of the system, which is short; nothing is allocated for it */
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0) {
        close(fd);
    }
    if (got < 0) {
        return false;
    }
    text[got] = '\0';
    const size_t key_size = strlen(key);
    const char *line = text;
    while (strncmp(line, key, key_size) != 0) {
        line = strchr(line, '\n');
        if (line == NULL) {
            return false;
        }
        line++;
    }
    char *end;
    unsigned long long number = strtoull(line + key_size, &end, 10);
    *value = (size_t)number;
    return end != line + key_size; /* "max" is no number: no limit */
}

static bool number_in(const char *dir, const char *name, const char *key, size_t *value) {
    char path[PATH_ROOM + 64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return number_after(path, key, value);
}

/* The files of one version of control groups. */
struct cgroup_files {
    const char *limit, *usage, *reclaimable;
};

/* What one group leaves: limit - usage, where file pages that nobody maps count as free. */
static size_t group_leaves(const char *dir, const struct cgroup_files *files) {
    size_t limit, usage, reclaimable;
    if (!number_in(dir, files->limit, "", &limit) || !number_in(dir, files->usage, "", &usage)) {
        return SIZE_MAX;
    }
    if (number_in(dir, "memory.stat", files->reclaimable, &reclaimable)) {
        usage -= reclaimable < usage ? reclaimable : usage;
    }
    return limit > usage ? limit - usage : 0;
}

/* The least that a group and its parents up to `root` leave. A limit on any of them holds. */
static size_t groups_leave(const char *root, const char *group, const struct cgroup_files *files) {
    char dir[PATH_ROOM];
    int size = snprintf(dir, sizeof dir, "%s%s", root, group);
    if (size < 0 || (size_t)size >= sizeof dir) {
        return SIZE_MAX;
    }
    size_t least = SIZE_MAX;
    for (;;) {
        size_t leaves = group_leaves(dir, files);
        least = leaves < least ? leaves : least;
        char *slash = strrchr(dir, '/');
        if (slash == NULL || (size_t)(slash - dir) < strlen(root)) {
            return least;
        }
        *slash = '\0';
    }
}

static size_t cgroup_leaves(void) {
    static const struct cgroup_files v2 = {"memory.max", "memory.current", "inactive_file "};
    static const struct cgroup_files v1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                           "total_inactive_file "};
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL) {
        return SIZE_MAX;
    }
    size_t least = SIZE_MAX;
    char line[PATH_ROOM];
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        const char *controllers = strchr(line, ':'); /* number:controllers:path */
        const char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (group == NULL) {
            continue;
        }
        size_t leaves = SIZE_MAX;
        if (strncmp(controllers, "::", 2) == 0) {
            leaves = groups_leave("/sys/fs/cgroup", group + 1, &v2);
        } else if (strncmp(controllers, ":memory:", 8) == 0) {
            leaves = groups_leave("/sys/fs/cgroup/memory", group + 1, &v1);
        }
        least = leaves < least ? leaves : least;
    }
    fclose(file);
    return least;
}

size_t kiln_memory_available(void) {
    size_t kib;
    size_t limit = cgroup_leaves();
    if (!number_after("/proc/meminfo", "MemAvailable:", &kib)) {
        return limit == SIZE_MAX ? 0 : limit;
    }
    return kib * 1024 < limit ? kib * 1024 : limit;
}

size_t kiln_memory_resident(void) {
    static const char *const parts[] = {"RssAnon:", "RssFile:", "RssShmem:"};
    size_t sum = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t kib;
        if (number_after("/proc/self/status", parts[i], &kib)) {
            sum += kib * 1024;
        }
    }
    size_t kib; /* kernels that do not split it still give the sum */
    if (sum == 0 && number_after("/proc/self/status", "VmRSS:", &kib)) {
        sum = kib * 1024;
    }
    return sum;
}

size_t kiln_memory_resident_peak(void) {
    size_t kib;
    return number_after("/proc/self/status", "VmHWM:", &kib) ? kib * 1024 : 0;
}

const char *kiln_boot_id_instead;

void kiln_boot_id(char out[40]) {
    memset(out, 0, 40);
    if (kiln_boot_id_instead != NULL) {
        snprintf(out, 40, "%s", kiln_boot_id_instead);
        return;
    }
#ifdef __APPLE__
    size_t size = 39;
    if (sysctlbyname("kern.bootsessionuuid", out, &size, NULL, 0) != 0) {
        memset(out, 0, 40);
    }
#else
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file == NULL) {
        return;
    }
    char line[40];
    if (fgets(line, sizeof line, file) != NULL) {
        memcpy(out, line, strcspn(line, "\n"));
    }
    fclose(file);
#endif
}

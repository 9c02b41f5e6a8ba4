/* SPDX-License-Identifier: MIT */
#include "base/leftovers.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

/* Is `digits` the number of a process that is gone, or of this one? */
static bool is_dead(const char *digits) {
    char *end;
    errno = 0;
    const long number = strtol(digits, &end, 10);
    if (digits[0] < '1' || digits[0] > '9' || *end != '\0' || errno != 0 || number > INT32_MAX) {
        return false;
    }
    return number == (long)getpid() || (kill((pid_t)number, 0) != 0 && errno == ESRCH);
}

void kiln_leftovers_remove(const char *stem) {
    char folder[4400], path[4800];
    const int n = snprintf(folder, sizeof folder, "%s", stem);
    if (n < 0 || n >= (int)sizeof folder) {
        return;
    }
    char *slash = strrchr(folder, '/');
    const char *prefix = slash ? stem + (slash + 1 - folder) : stem;
    if (slash) {
        slash[slash == folder] = '\0';
    } else {
        strcpy(folder, ".");
    }
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        const size_t length = strlen(prefix);
        if (strncmp(e->d_name, prefix, length) == 0 && is_dead(e->d_name + length)) {
            struct kiln_err ignored;
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
            (void)!kiln_remove_tree(path, &ignored);
        }
    }
    if (dir) {
        closedir(dir);
    }
}

static bool is_own(const char *name, const char *const *own, size_t n) {
    bool found = strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
    for (size_t i = 0; !found && i < n; i++) {
        found = strcmp(name, own[i]) == 0;
    }
    return found;
}

bool kiln_folder_has_others(const char *folder, const char *const *own, size_t n, char *other,
                            size_t size) {
    DIR *dir = opendir(folder);
    bool others = dir == NULL;
    snprintf(other, size, "%s", ".");
    for (struct dirent *e; !others && (e = readdir(dir)) != NULL;) {
        others = !is_own(e->d_name, own, n);
        if (others) {
            snprintf(other, size, "%s", e->d_name);
        }
    }
    if (dir) {
        closedir(dir);
    }
    return others;
}

/* SPDX-License-Identifier: MIT */
#include "self.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "stop.h"

#ifdef __APPLE__
#include <mach-o/dyld.h>

extern char **environ;

static char path[4096];

enum kiln_status self_open(struct kiln_err *err) {
    uint32_t size = sizeof path;
    KILN_REQUIRE(_NSGetExecutablePath(path, &size) == 0, err, KILN_EIO,
                 "the program's own path is longer than %zu bytes", sizeof path);
    return KILN_OK;
}

static void replace(char *const arguments[]) { execve(path, arguments, environ); }
#else
static int self = -1;

enum kiln_status self_open(struct kiln_err *err) {
    if (self < 0) {
        self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    }
    KILN_REQUIRE(self >= 0, err, KILN_EIO, "cannot open the program itself (/proc/self/exe): %s",
                 strerror(errno));
    return KILN_OK;
}

static void replace(char *const arguments[]) { fexecve(self, arguments, environ); }
#endif

enum kiln_status self_replace(char *const arguments[], struct kiln_err *err) {
    fflush(NULL);
    stop_hold(); /* a signal that arrives now is seen by the successor */
    replace(arguments);
    const int why = errno;
    stop_unhold();
    return KILN_FAIL(err, KILN_EIO,
                     "cannot start a fresh process in place of this one: %s; to go "
                     "on: kiln train --resume %s",
                     strerror(why), arguments[3]);
}

/* SPDX-License-Identifier: MIT
 *
 * doctor_disk.c: the disk below a folder: is there room, is it a disk at all, how fast is it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kiln/report.h"
#include "report/doctor_int.h"

static const char *bytes(double n, char buffer[32]) { return kiln_human_bytes(n, buffer, 32); }

struct mount {
    char point[512], type[64], options[512];
};

/* Blanks are written as \040 there. */
static void unescape(char *text) {
    char *to = text;
    for (const char *from = text; *from != '\0'; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] != '\0' &&
            from[3] != '\0') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

static bool lies_below(const char *path, const char *point) {
    const size_t length = strlen(point);
    return strcmp(point, "/") == 0 ||
           (strncmp(path, point, length) == 0 && (path[length] == '/' || path[length] == '\0'));
}

/* What the folder lies on: of the longest mount point the last one, which covers the others. */
static bool find_mount(const struct doctor *d, const char *folder, struct mount *out) {
    static _Thread_local char text[1 << 18];
    size_t longest = 0;
    if (!kiln_doctor_read(d, text, sizeof text, "/proc/self/mountinfo")) {
        return false;
    }
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        struct mount m;
        const char *behind = strstr(line, " - "); /* optional fields end there */
        if (behind == NULL ||
            sscanf(line, "%*s %*s %*s %*s %511s %511s", m.point, m.options) != 2 ||
            sscanf(behind, " - %63s", m.type) != 1) {
            continue;
        }
        unescape(m.point);
        if (lies_below(folder, m.point) && strlen(m.point) >= longest) {
            longest = strlen(m.point);
            *out = m;
        }
    }
    return longest > 0;
}

static bool is_one_of(const char *text, const char *const *list) {
    for (; *list != NULL; list++) {
        const size_t length = strlen(*list);
        if (strcmp(*list, text) == 0 ||
            ((*list)[length - 1] == '.' && strncmp(*list, text, length) == 0)) {
            return true;
        }
    }
    return false;
}

static void check_kind(struct doctor *d, const struct mount *m) {
    static const char *const network[] = {"nfs",   "nfs4",     "cifs",   "smb3",      "smbfs",
                                          "9p",    "ceph",     "lustre", "glusterfs", "afs",
                                          "fuse.", "virtiofs", NULL};
    static const char *const memory[] = {"tmpfs", "ramfs", NULL};
    if (is_one_of(m->type, network)) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "file system",
                          "%s is %s: files of another machine or program", m->point, m->type);
        kiln_doctor_cost(d,
                         "the state is mapped memory there, and every window writes to it; locks "
                         "may not hold");
        kiln_doctor_advice(d, "--state with a folder of a local disk; checkpoints may stay there");
    } else if (is_one_of(m->type, memory)) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "file system",
                          "%s is %s: memory, which the next start of the system empties", m->point,
                          m->type);
        kiln_doctor_cost(d, "runs there are lost then; they take memory from training");
        kiln_doctor_advice(d,
                           "--out on a disk; only --state may be in memory (docs/formats.md says "
                           "what that costs)");
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "file system", "%s on %s", m->type, m->point);
    }
}

static void check_writable(struct doctor *d, const struct mount *m, bool known) {
    if (d->host->writable) {
        return;
    }
    const bool read_only = known && strncmp(m->options, "ro", 2) == 0;
    kiln_doctor_found(d, KILN_DOCTOR_BROKEN, "disk",
                      read_only ? "%s is on a file system that is mounted read-only"
                                : "%s cannot be written by this user",
                      d->host->folder);
    kiln_doctor_advice(d, read_only ? "another folder (--out); a disk that failed is mounted so, "
                                      "too: see dmesg"
                                    : "another folder (--out), or chown or chmod this one");
}

static void check_space(struct doctor *d, double need) {
    char a[32], b[32], c[32];
    const double total = (double)d->host->disk_bytes, left = (double)d->host->disk_free;
    if (total <= 0) {
        kiln_doctor_found(d, KILN_DOCTOR_UNKNOWN, "disk", "free space cannot be read here");
        return;
    }
    if (d->host->disk_files > 0 && d->host->disk_files_free == 0) {
        kiln_doctor_found(d, KILN_DOCTOR_BROKEN, "disk", "no more files can be made (inodes)");
        kiln_doctor_advice(d, "remove files nobody needs: df -i, find");
    }
    /* Without a run: what a small model takes, state and checkpoints. */
    const double least = need > 0 ? need : 1e9;
    const bool run = need > 0;
    if (left < least && run) {
        kiln_doctor_found(d, KILN_DOCTOR_BROKEN, "disk",
                          "%s are free; the next checkpoint takes %s", bytes(left, a),
                          bytes(least, b));
        kiln_doctor_advice(d, "free space (du -x -d 2), or a smaller --keep-checkpoints");
    } else if (left < 2 * least || left < 0.02 * total) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "disk", "nearly full: %s of %s are free",
                          bytes(left, a), bytes(total, b));
        kiln_doctor_cost(d,
                         "16 bytes a parameter for the state, 12 for each checkpoint: 100 M "
                         "parameters want %s",
                         bytes(100e6 * (16 + 2 * 12), c));
        kiln_doctor_advice(d, "free space (du -x -d 2), or --out and --state on another disk");
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "disk", "%s of %s are free", bytes(left, a),
                          bytes(total, b));
    }
}

/* Bytes a second below which a disk holds training up; seconds that an fsync may take. */
#define WRITE_LEAST 0.08
#define SYNC_MOST   0.06

static void check_rate(struct doctor *d, double need) {
    char a[32], b[32];
    const double rate = d->host->write_gb_s, sync = d->host->sync_s;
    if (rate <= 0) {
        return;
    }
    const double size = need > 0 ? need : 12.0 * 100e6;
    const bool slow = rate < WRITE_LEAST || sync > SYNC_MOST;
    kiln_doctor_found(d, slow ? KILN_DOCTOR_SLOW : KILN_DOCTOR_FINE, "disk rate",
                      "%.0f MB/s written and synced, fsync of a small change %.1f ms, measured",
                      rate * 1e3, sync * 1e3);
    kiln_doctor_cost(d, "a checkpoint of %s takes %s, beside training", bytes(size, a),
                     kiln_human_time(size / (rate * 1e9), b, sizeof b));
    if (slow) {
        kiln_doctor_advice(d,
                           "--state on a faster disk or in /dev/shm, --save-every with a larger "
                           "number; see who else writes (iotop)");
    }
}

void kiln_doctor_disk(struct doctor *d, double need_bytes) {
    struct mount m = {.type = ""};
    const bool known = find_mount(d, d->host->folder, &m);
    if (known) {
        check_kind(d, &m);
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_UNKNOWN, "file system", "its kind cannot be read here");
    }
    check_writable(d, &m, known);
    check_space(d, need_bytes);
    check_rate(d, need_bytes);
}

/* SPDX-License-Identifier: MIT
 *
 * profile.c: what a device does in a second.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/mem.h"
#include "kernel/ceiling.h"
#include "plan/profile_file.h"

/* The update and packing reach these shares of what copying reaches. */
#define UPDATE_SHARE 1.0
#define PACK_SHARE   0.18
/* The simulator computes on this CPU: products in fp32, every value rounded to fp16; and it bakes
 * on one thread: fp16 into a file, the text parsed, fp32 out of it (stories110m, 2 threads). */
#define SIM_PASS_SHARE 0.65
#define SIM_BAKE_GB_S  1.05
/* A process that replaces itself on cpu: exec, libraries, opening the state. */
#define CPU_RESTART_S 0.06
/* Two commits of the state and a word each way. */
#define CPU_RELAY_S 0.02
/* What the system does for a page of a mapped file that comes, is changed and goes: 1.6 to 3 GB/s
 * on ext4, the less the larger the file. */
#define WALK_GB_S 1.6
/* Of a disk that nobody measured. */
#define DISK_WRITE_GB_S 1.0
#define DISK_READ_GB_S  1.5

static enum kiln_status measure_cpu(size_t threads, enum kiln_precision precision,
                                    struct kiln_profile *out, struct kiln_err *err) {
    struct kiln_pool *pool;
    double copy = 0;
    KILN_TRY(kiln_pool_create(threads > 0 ? threads : 1, &pool, err));
    enum kiln_status status = kiln_ceiling_products(pool, precision, &out->ceiling_tflops, err);
    if (status == KILN_OK) {
        status = kiln_ceiling_copy(pool, &copy, err);
    }
    kiln_pool_destroy(pool);
    out->tflops = out->host_tflops = KILN_PASS_SHARE * out->ceiling_tflops;
    out->compile_gb_s = PACK_SHARE * copy;
    out->update_gb_s = UPDATE_SHARE * copy;
    out->restart_s = CPU_RESTART_S;
    out->relay_s = CPU_RELAY_S;
    out->walk_gb_s = WALK_GB_S;
    out->cache_gb = (double)kiln_memory_available() * 1e-9;
    out->disk_write_gb_s = DISK_WRITE_GB_S;
    out->disk_read_gb_s = DISK_READ_GB_S;
    return status;
}

/* The figures that a file has. */
static void take(const struct kiln_profile_file *file, struct kiln_profile *out) {
    struct kiln_profile from = file->profile;
    for (size_t i = 0; i < KILN_FIGURES; i++) {
        if (file->known[i]) {
            *kiln_figure_of(out, i) = *kiln_figure_of(&from, i);
        }
    }
}

/* A Neural Engine: the M4, but for what is known of the one that is named. */
static enum kiln_status known_npu(const struct kiln_profile_file *named, struct kiln_profile *out,
                                  struct kiln_err *err) {
    struct kiln_profile_file m4;
    KILN_TRY(kiln_profile_read("m4", &m4, err));
    take(&m4, out);
    if (named != NULL) {
        take(named, out);
    }
    out->sim = (struct kiln_npu_times){.compile_s = out->compile_s,
                                       .compile_gb_s = out->compile_gb_s,
                                       .load_s = out->load_s,
                                       .dispatch_s = out->dispatch_s,
                                       .tflops = out->tflops,
                                       .beside = out->beside};
    return KILN_OK;
}

static double smaller_rate(double a, double b) { return a > 0 && (b <= 0 || a < b) ? a : b; }

/* A simulator that charges an engine's time, `times` as long, and takes its own where that is
 * longer. What the host does is real. */
static void simulate(const struct kiln_profile *npu, double times, struct kiln_profile *out) {
    out->host_tflops = out->tflops;
    out->ceiling_tflops = npu->ceiling_tflops / times;
    out->tflops = smaller_rate(npu->tflops / times, out->tflops * SIM_PASS_SHARE / KILN_PASS_SHARE);
    out->compile_gb_s = smaller_rate(npu->compile_gb_s / times, SIM_BAKE_GB_S);
    out->compile_s = npu->compile_s * times;
    out->load_s = npu->load_s * times;
    out->dispatch_s = npu->dispatch_s * times;
    out->beside = npu->beside;
    out->sim = npu->sim;
}

/* Is the profile one of what shall compute? */
static enum kiln_status check_kind(const struct kiln_device_choice *device, const char *name,
                                   bool npu, struct kiln_err *err) {
    const char *id = kiln_device_name(device->id);
    KILN_REQUIRE(npu == (device->id != KILN_CPU), err, KILN_EUSAGE,
                 "--profile %s is of a %s, and --device is %s; choose another of the two", name,
                 npu ? "Neural Engine" : "cpu", id);
    KILN_REQUIRE(device->id != KILN_SIM || device->sim_time > 0, err, KILN_EUSAGE,
                 "--profile %s: --device sim charges no time; add --sim-time 1, or use --device "
                 "ane",
                 name);
    return KILN_OK;
}

enum kiln_status kiln_profile_of(const struct kiln_device_choice *device, const char *name,
                                 size_t threads, enum kiln_precision precision,
                                 struct kiln_profile *out, struct kiln_err *err) {
    const double times = device->id == KILN_SIM ? device->sim_time : 1;
    struct kiln_profile_file named;
    struct kiln_profile npu = {.tflops = 0};
    *out = npu;
    if (name != NULL) {
        KILN_TRY(kiln_profile_read(name, &named, err));
        KILN_TRY(check_kind(device, name, named.npu, err));
    }
    if (device->id == KILN_CPU) {
        KILN_TRY(measure_cpu(threads, precision, out, err));
        if (name != NULL) {
            take(&named, out);
        }
    } else if (device->id == KILN_SIM) {
        KILN_TRY(measure_cpu(threads, KILN_PRECISION_FP32, out, err));
        out->compile_gb_s = SIM_BAKE_GB_S;
        if (times > 0) {
            KILN_TRY(known_npu(name != NULL ? &named : NULL, &npu, err));
            simulate(&npu, times, out);
        } else {
            out->tflops *= SIM_PASS_SHARE / KILN_PASS_SHARE;
        }
    } else {
        KILN_TRY(known_npu(name != NULL ? &named : NULL, out, err));
    }
    out->process_gb = (double)kiln_memory_resident() * 1e-9;
    return KILN_OK;
}

enum { DISK_PIECE = 8 << 20, DISK_PIECES = 32 };

static bool write_all(int fd, char *piece) {
    for (int i = 0; i < DISK_PIECES; i++) {
        memset(piece, i + 1, 4096); /* not all the same, for disks that notice */
        if (write(fd, piece, DISK_PIECE) != DISK_PIECE) {
            return false;
        }
    }
    return fsync(fd) == 0;
}

static bool read_all(int fd, char *piece) {
    /* From the disk, not from the system's cache. */
    if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0 || lseek(fd, 0, SEEK_SET) != 0) {
        return false;
    }
    for (int i = 0; i < DISK_PIECES; i++) {
        if (read(fd, piece, DISK_PIECE) != DISK_PIECE) {
            return false;
        }
    }
    return true;
}

enum kiln_status kiln_profile_disk(const char *folder, struct kiln_profile *profile,
                                   struct kiln_err *err) {
    char path[4200];
    char *piece = kiln_alloc(DISK_PIECE, 1);
    KILN_REQUIRE(piece, err, KILN_ENOMEM, "no memory to measure the disk");
    snprintf(path, sizeof path, "%s/disk-speed.tmp", folder);
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const double start = kiln_now_s();
    const bool written = fd >= 0 && write_all(fd, piece);
    const double turned = kiln_now_s();
    const bool read_too = written && read_all(fd, piece);
    const double end = kiln_now_s();
    const int why = errno;
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    kiln_free(piece);
    KILN_REQUIRE(read_too, err, KILN_EIO, "measuring the disk of %s: %s", folder, strerror(why));
    const double gigabytes = (double)DISK_PIECE * DISK_PIECES * 1e-9;
    profile->disk_write_gb_s = gigabytes / (turned - start);
    profile->disk_read_gb_s = gigabytes / (end - turned);
    profile->cache_gb = (double)kiln_memory_available() * 1e-9;
    return KILN_OK;
}

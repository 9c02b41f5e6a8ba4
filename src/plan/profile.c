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
#include "kiln/plan.h"

/* A pass reaches this share of what products reach on operands in cache: the rest is attention,
 * norms, packing of activations, and memory (bench: stories15m to stories110m, 1 and 2 threads). */
#define PASS_SHARE 0.80
/* The update and packing reach these shares of what copying reaches. */
#define UPDATE_SHARE 1.0
#define PACK_SHARE   0.18
/* The simulator computes on this CPU: products in fp32, every value rounded to fp16; and it bakes
 * on one thread: fp16 into a file, the text parsed, fp32 out of it (stories110m, 2 threads). */
#define SIM_PASS_SHARE 0.65
#define SIM_BAKE_GB_S  1.05
/* A process that replaces itself on cpu: exec, libraries, opening the state. */
#define CPU_RESTART_S 0.06
/* What the system does for a page of a mapped file that comes, is changed and goes: 1.6 to 3 GB/s
 * on ext4, the less the larger the file. */
#define WALK_GB_S 1.6
/* Of a disk that nobody measured. */
#define DISK_WRITE_GB_S 1.0
#define DISK_READ_GB_S  1.5

/* Of profiles/m4.json. */
static const struct kiln_profile npu = {.tflops = 3.6,
                                        .ceiling_tflops = 11.74,
                                        .dispatch_s = 0.000095,
                                        .compile_s = 0.0373,
                                        .compile_gb_s = 0.385,
                                        .load_s = 0.0017,
                                        .beside = 1.13,
                                        .host_tflops = 1.17,
                                        .update_gb_s = 60,
                                        .restart_s = 0.05,
                                        .relay_s = 0.02,
                                        .walk_gb_s = WALK_GB_S,
                                        .disk_write_gb_s = 2,
                                        .disk_read_gb_s = 3};

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
    out->tflops = out->host_tflops = PASS_SHARE * out->ceiling_tflops;
    out->compile_gb_s = PACK_SHARE * copy;
    out->update_gb_s = UPDATE_SHARE * copy;
    out->restart_s = CPU_RESTART_S;
    out->walk_gb_s = WALK_GB_S;
    out->cache_gb = (double)kiln_memory_available() * 1e-9;
    out->disk_write_gb_s = DISK_WRITE_GB_S;
    out->disk_read_gb_s = DISK_READ_GB_S;
    return status;
}

enum kiln_status kiln_profile_of(const struct kiln_device_choice *device, size_t threads,
                                 enum kiln_precision precision, struct kiln_profile *out,
                                 struct kiln_err *err) {
    const double times = device->id == KILN_SIM ? device->sim_time : 1;
    *out = (struct kiln_profile){.tflops = 0};
    if (device->id == KILN_CPU) {
        KILN_TRY(measure_cpu(threads, precision, out, err));
    } else if (times <= 0) {
        KILN_TRY(measure_cpu(threads, KILN_PRECISION_FP32, out, err));
        out->tflops *= SIM_PASS_SHARE / PASS_SHARE;
        out->compile_gb_s = SIM_BAKE_GB_S;
    } else {
        *out = npu;
        out->tflops /= times;
        out->ceiling_tflops /= times;
        out->compile_s *= times;
        out->compile_gb_s /= times;
        out->load_s *= times;
        out->dispatch_s *= times;
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

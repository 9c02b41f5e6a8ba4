/* SPDX-License-Identifier: MIT
 *
 * test_doctor.c: kiln doctor on machines that the test makes up: files as /proc and /sys have them,
 * planted below a folder, and every finding of it, good and bad.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "kiln_test.h"
#include "report/doctor_int.h"

static struct kiln_doctor seen;
static struct kiln_doctor_options how;
static struct doctor_host host;

/* ---- machines ------------------------------------------------------------------------------- */

static void plant(const char *path, const char *text) {
    char whole[4096], folder[4096];
    struct kiln_err err;
    snprintf(whole, sizeof whole, "%s%s", test_path("root"), path);
    snprintf(folder, sizeof folder, "%s", whole);
    *strrchr(folder, '/') = '\0';
    CHECK_OK(kiln_make_dirs(folder, &err), &err);
    FILE *file = fopen(whole, "wb");
    CHECK(file != NULL);
    fputs(text, file);
    CHECK_EQ(fclose(file), 0);
}

static void uproot(const char *path) {
    char whole[4096];
    snprintf(whole, sizeof whole, "%s%s", test_path("root"), path);
    CHECK_EQ(remove(whole), 0);
}

#define CPU      "/sys/devices/system/cpu/"
#define AMD      "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n"
#define SAPPHIRE "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n"
#define AVX2     "fpu avx2 fma f16c"
#define AVX512   AVX2 " avx512f avx512bw avx512vl avx512dq"

/* Four cores of one thread each, with nothing wrong. */
static void plant_good_machine(void) {
    char path[128], text[16];
    plant("/proc/self/status", "Name:\tkiln\nCpus_allowed_list:\t0-3\n");
    plant("/proc/self/cgroup", "0::/user.slice/work\n");
    plant(CPU "online", "0-3\n");
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, CPU "cpu%d/topology/thread_siblings_list", i);
        snprintf(text, sizeof text, "%d\n", i);
        plant(path, text);
        snprintf(path, sizeof path, CPU "cpu%d/thermal_throttle/core_throttle_count", i);
        plant(path, "0\n");
    }
    plant("/proc/loadavg", "0.10 0.20 0.30 1/200 4000\n");
    plant("/proc/stat", "cpu  1000 0 100 90000 10 0 5 0 0 0\n");
    plant("/proc/pressure/cpu", "some avg10=0.50 avg60=0.00 avg300=0.00 total=1\n");
    plant("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n");
    plant("/proc/pressure/io", "some avg10=1.00 avg60=0.00 avg300=0.00 total=1\n");
    plant("/proc/cpuinfo", AMD
          "model name\t: EPYC 9000\ncpu MHz\t\t: 3000.0\n"
          "flags\t\t: " AVX512 " avx512_bf16\n");
    plant("/proc/sys/kernel/osrelease", "6.1.0-18-amd64\n");
    plant(CPU "cpu0/cpufreq/scaling_governor", "schedutil\n");
    plant(CPU "cpu0/cpufreq/scaling_driver", "acpi-cpufreq\n");
    plant(CPU "cpu0/cpufreq/cpuinfo_max_freq", "3000000\n");
    plant(CPU "cpu0/cpufreq/scaling_max_freq", "3000000\n");
    plant(CPU "cpu0/cpufreq/scaling_cur_freq", "2900000\n");
    plant("/sys/class/thermal/thermal_zone0/temp", "45000\n");
    plant("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n");
    plant("/proc/meminfo",
          "MemTotal: 16000000 kB\nMemFree: 9000000 kB\nMemAvailable: 12000000 kB\n"
          "SwapTotal: 2000000 kB\nSwapFree: 2000000 kB\n"
          "CommitLimit: 16000000 kB\nCommitted_AS: 15900000 kB\n");
    plant("/proc/sys/vm/swappiness", "60\n");
    plant("/proc/sys/vm/overcommit_memory", "0\n");
    plant("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    plant("/proc/self/limits",
          "Limit                     Soft Limit           Hard Limit  Units\n"
          "Max cpu time              unlimited            unlimited   seconds\n"
          "Max file size             unlimited            unlimited   bytes\n"
          "Max open files            1024                 4096        files\n"
          "Max address space         unlimited            unlimited   bytes\n");
    plant("/proc/self/mountinfo",
          "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
          "23 22 0:21 / /proc rw,relatime - proc proc rw\n");
    plant("/proc/locks", "1: FLOCK  ADVISORY  WRITE 77 fe:00:1 0 EOF\n");
    how = (struct kiln_doctor_options){.precision = KILN_PRECISION_BF16, .root = test_path("root")};
    host = (struct doctor_host){.tier = "avx512bf16",
                                .folder = "/home/me/runs",
                                .writable = true,
                                .disk_bytes = (uint64_t)1 << 40,
                                .disk_free = (uint64_t)1 << 39,
                                .disk_files = 1000,
                                .disk_files_free = 900,
                                .products_tflops = 1.2,
                                .copy_gb_s = 30,
                                .write_gb_s = 0.5,
                                .sync_s = 0.002,
                                .clock_ns = 30};
}

static void look(void) { kiln_doctor_look(&how, &host, false, &seen); }

/* The first finding of that name and level; the test fails where there is none. */
static const struct kiln_finding *finding(const char *name, enum kiln_doctor_level level) {
    for (size_t i = 0; i < seen.n; i++) {
        if (strcmp(seen.finding[i].name, name) == 0 && seen.finding[i].level == level) {
            return &seen.finding[i];
        }
    }
    for (size_t i = 0; i < seen.n; i++) {
        printf("%s %s: %s\n", kiln_doctor_level_name(seen.finding[i].level), seen.finding[i].name,
               seen.finding[i].found);
    }
    FAIL("no finding %s of %s", kiln_doctor_level_name(level), name);
    return NULL;
}

/* After `path` has this text, one thing is wrong and nothing else: it says `words`, with advice. */
static void wrong(enum kiln_doctor_level level, const char *name, const char *words) {
    look();
    const struct kiln_finding *f = finding(name, level);
    CHECK_CONTAINS(f->found, words);
    CHECK(f->advice[0] != '\0');
    if (kiln_doctor_count(&seen, KILN_DOCTOR_SLOW) + kiln_doctor_count(&seen, KILN_DOCTOR_BROKEN) !=
        1) {
        for (size_t i = 0; i < seen.n; i++) {
            if (seen.finding[i].level >= KILN_DOCTOR_SLOW) {
                printf("%s: %s\n", seen.finding[i].name, seen.finding[i].found);
            }
        }
        fflush(stdout);
        FAIL("%s: more is wrong", name);
    }
}

static void slow(const char *path, const char *text, const char *name, const char *words) {
    plant_good_machine();
    plant(path, text);
    wrong(KILN_DOCTOR_SLOW, name, words);
}

/* ---- the tests ------------------------------------------------------------------------------ */

TEST(a_good_machine_is_fine_in_everything) {
    plant_good_machine();
    look();
    for (size_t i = 0; i < seen.n; i++) {
        if (seen.finding[i].level != KILN_DOCTOR_FINE) {
            FAIL("%s: %s", seen.finding[i].name, seen.finding[i].found);
        }
    }
    CHECK(seen.n >= 16);
    CHECK_EQ(kiln_doctor_worst(&seen), KILN_DOCTOR_FINE);
    CHECK_CONTAINS(seen.machine, "EPYC 9000, 4 processors");
    CHECK_CONTAINS(finding("threads", KILN_DOCTOR_FINE)->found, "4 on 4");
    CHECK_CONTAINS(finding("instructions", KILN_DOCTOR_FINE)->found, "the best");
    CHECK_CONTAINS(finding("disk rate", KILN_DOCTOR_FINE)->found, "500 MB/s");
}

TEST(what_cannot_be_read_is_said_and_not_guessed) {
    plant_good_machine();
    how.root = test_path("nothing");
    host.disk_bytes = host.disk_files = 0;
    look();
    static const char *const names[] = {"threads", "load",        "frequency", "heat",   "clock",
                                        "memory",  "file system", "limits",    "system", "disk"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_CONTAINS(finding(names[i], KILN_DOCTOR_UNKNOWN)->found, "cannot be read here");
    }
    CHECK_EQ(kiln_doctor_worst(&seen), KILN_DOCTOR_UNKNOWN);
    CHECK_EQ(kiln_doctor_count(&seen, KILN_DOCTOR_UNKNOWN), sizeof names / sizeof names[0]);
}

TEST(threads_are_held_against_processors) {
    plant_good_machine();
    how.threads = 9;
    wrong(KILN_DOCTOR_SLOW, "threads", "9 threads on 4 processors");
    CHECK_CONTAINS(finding("threads", KILN_DOCTOR_SLOW)->advice, "--threads 4");
    how.threads = 1;
    wrong(KILN_DOCTOR_SLOW, "threads", "1 threads on 4 processors");
    CHECK_CONTAINS(finding("threads", KILN_DOCTOR_SLOW)->cost, "75 %");
    slow("/proc/self/status", "Cpus_allowed_list:\t1,3\n", "affinity", "2 of 4 processors");
}

TEST(a_quota_of_any_group_above_counts) {
    slow("/sys/fs/cgroup/user.slice/cpu.max", "150000 100000\n", "cpu quota", "1.5 processors");
    plant("/sys/fs/cgroup/user.slice/work/cpu.max", "max 100000\n");
    wrong(KILN_DOCTOR_SLOW, "cpu quota", "1.5 processors");
    plant("/sys/fs/cgroup/user.slice/cpu.max", "400000 100000\n");
    look();
    CHECK_EQ(kiln_doctor_worst(&seen), KILN_DOCTOR_FINE);
    plant("/sys/fs/cgroup/user.slice/work/cpu.stat", "nr_periods 100\nnr_throttled 40\n");
    wrong(KILN_DOCTOR_SLOW, "cpu quota", "40 % of its 100 periods");
    /* The first version of control groups. */
    plant("/proc/self/cgroup", "4:memory:/box\n3:cpu,cpuacct:/box\n");
    plant("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "200000\n");
    plant("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n");
    wrong(KILN_DOCTOR_SLOW, "cpu quota", "2 processors to 4 threads");
    plant("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "-1\n");
    look();
    CHECK_EQ(kiln_doctor_worst(&seen), KILN_DOCTOR_FINE);
}

TEST(hyperthreads_are_slow_where_a_thread_for_each_core_is_faster) {
    plant_good_machine();
    plant(CPU "cpu0/topology/thread_siblings_list", "0,2\n");
    plant(CPU "cpu2/topology/thread_siblings_list", "0,2\n");
    plant(CPU "cpu1/topology/thread_siblings_list", "1,3\n");
    plant(CPU "cpu3/topology/thread_siblings_list", "1,3\n");
    host.few_tflops = 1.1;
    look();
    CHECK_CONTAINS(finding("hyperthreads", KILN_DOCTOR_FINE)->found, "4 threads share 2 cores");
    host.few_tflops = 1.5;
    wrong(KILN_DOCTOR_SLOW, "hyperthreads", "1.50 with a thread for each core");
    CHECK_CONTAINS(finding("hyperthreads", KILN_DOCTOR_SLOW)->advice, "--threads 2");
}

TEST(other_load_is_seen) {
    slow("/proc/loadavg", "3.50 2.00 1.00 4/200 4000\n", "load", "3.5 tasks");
    CHECK_CONTAINS(finding("load", KILN_DOCTOR_SLOW)->cost, "53 %");
    slow("/proc/pressure/cpu", "some avg10=60.00 avg60=0 avg300=0 total=1\n", "pressure", "60 %");
    slow("/proc/pressure/memory", "some avg10=6.00 avg60=0 avg300=0 total=1\n", "pressure",
         "waited for memory");
    slow("/proc/pressure/io", "some avg10=40.00 avg60=0 avg300=0 total=1\n", "pressure",
         "waited for io");
    slow("/proc/stat", "cpu  1000 0 100 90000 10 0 0 300 0 0\n", "steal", "21 %");
}

TEST(a_tier_below_the_best_is_explained) {
    plant_good_machine();
    host.tier = host.forced = "avx2";
    wrong(KILN_DOCTOR_SLOW, "instructions", "KILN_CPU=avx2 is set; the processor has avx512bf16");
    plant_good_machine();
    host.tier = NULL;
    host.products_tflops = 0;
    snprintf(host.tier_error, sizeof host.tier_error, "KILN_CPU=sse is no instruction tier");
    wrong(KILN_DOCTOR_BROKEN, "instructions", "no instruction tier");
    plant_good_machine();
    host.tier = "ref";
    plant("/proc/cpuinfo",
          "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 23\n"
          "flags\t\t: fpu sse2\n");
    wrong(KILN_DOCTOR_SLOW, "instructions", "plain C");
    slow("/proc/cpuinfo", AMD "flags\t\t: hypervisor " AVX512 "\n", "hidden instructions",
         "avx512_bf16");
    CHECK_CONTAINS(finding("hidden instructions", KILN_DOCTOR_SLOW)->advice, "-cpu host");
    slow("/proc/cpuinfo", SAPPHIRE "flags\t\t: " AVX512 " avx512_bf16\n", "hidden instructions",
         "amx_bf16");
    CHECK_CONTAINS(finding("hidden instructions", KILN_DOCTOR_SLOW)->advice, "/proc/cmdline");
    plant("/proc/sys/kernel/osrelease", "5.10.0-28-amd64\n");
    wrong(KILN_DOCTOR_SLOW, "hidden instructions", "Linux 5.10.0-28-amd64");
    plant_good_machine();
    host.amx_refused = true;
    wrong(KILN_DOCTOR_SLOW, "instructions", "does not let this process use it");
}

TEST(rates_are_held_against_what_the_processor_should_do) {
    plant_good_machine();
    host.products_tflops = 0.2; /* 4 cores of 64 operations at 3 GHz: 0.77 */
    wrong(KILN_DOCTOR_SLOW, "products",
          "0.2 TFLOP/s measured on 4 threads; 4 cores with "
          "avx512bf16 should do 0.768");
    how.precision = KILN_PRECISION_FP32; /* half of that */
    host.products_tflops = 0.3;
    look();
    CHECK_EQ(kiln_doctor_worst(&seen), KILN_DOCTOR_FINE);
    plant_good_machine();
    host.copy_gb_s = 4;
    wrong(KILN_DOCTOR_SLOW, "memory rate", "4.0 GB/s");
    CHECK_CONTAINS(finding("memory rate", KILN_DOCTOR_SLOW)->cost, "800 ms");
}

TEST(frequency_and_its_limits) {
    slow(CPU "cpu0/cpufreq/scaling_governor", "powersave\n", "governor", "powersave");
    plant(CPU "cpu0/cpufreq/scaling_driver", "intel_pstate\n");
    look();
    CHECK_EQ(kiln_doctor_worst(&seen), KILN_DOCTOR_FINE);
    plant(CPU "cpu0/cpufreq/energy_performance_preference", "power\n");
    wrong(KILN_DOCTOR_SLOW, "governor", "preference power");
    uproot(CPU "cpu0/cpufreq/energy_performance_preference");
    slow(CPU "cpu0/cpufreq/scaling_max_freq", "1500000\n", "frequency", "limited to 1.50 GHz");
    slow(CPU "cpu0/cpufreq/scaling_cur_freq", "900000\n", "frequency", "0.90 GHz of at most 3.00");
    host.products_tflops = 0; /* nothing had it work */
    look();
    CHECK_EQ(kiln_doctor_worst(&seen), KILN_DOCTOR_FINE);
    slow("/sys/devices/system/cpu/intel_pstate/no_turbo", "1\n", "frequency", "turbo is off");
    uproot("/sys/devices/system/cpu/intel_pstate/no_turbo");
    slow("/sys/class/power_supply/AC/online", "0\n", "power", "battery");
}

TEST(heat_and_a_slow_clock) {
    slow(CPU "cpu2/thermal_throttle/package_throttle_count", "12\n", "heat", "12 times");
    uproot(CPU "cpu2/thermal_throttle/package_throttle_count");
    slow("/sys/class/thermal/thermal_zone0/temp", "99000\n", "heat", "99 degrees");
    slow("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n", "clock",
         "hpet");
}

TEST(memory_swap_and_huge_pages) {
    slow("/proc/meminfo",
         "MemTotal: 4000000 kB\nMemAvailable: 300000 kB\nSwapTotal: 0 kB\n"
         "SwapFree: 0 kB\n",
         "memory", "are free");
    slow("/proc/meminfo",
         "MemTotal: 4000000 kB\nMemAvailable: 3000000 kB\nSwapTotal: 2000000 kB\n"
         "SwapFree: 1000000 kB\n",
         "swap", "swappiness 60");
    slow("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n", "huge pages",
         "off");
    plant_good_machine();
    plant("/proc/sys/vm/overcommit_memory", "2\n");
    wrong(KILN_DOCTOR_BROKEN, "overcommit", "may still be asked for");
}

TEST(memory_limit_of_a_group) {
    plant_good_machine();
    plant("/sys/fs/cgroup/user.slice/memory.max", "2000000000\n");
    plant("/sys/fs/cgroup/user.slice/memory.current", "1000000000\n");
    look();
    CHECK_CONTAINS(finding("memory limit", KILN_DOCTOR_FINE)->found, "a control group allows");
    plant("/sys/fs/cgroup/user.slice/memory.current", "1950000000\n");
    wrong(KILN_DOCTOR_SLOW, "memory limit", "are used");
}

static const char limits[] =
    "Max cpu time              unlimited            unlimited   seconds\n"
    "Max file size             unlimited            unlimited   bytes\n"
    "Max open files            1024                 4096        files\n"
    "Max address space         unlimited            unlimited   bytes\n";

TEST(limits_of_the_process_are_broken_where_training_needs_more) {
    static const struct {
        const char *line, *words;
    } cases[] = {{"Max cpu time              3600", "Max cpu time is 3600 s (ulimit -t)"},
                 {"Max file size             104857600", "Max file size is"},
                 {"Max open files            20 ", "Max open files is 20 (ulimit -n)"},
                 {"Max address space         1073741824", "Max address space is"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        plant_good_machine();
        snprintf(text, sizeof text, "%s unlimited bytes\n%s", cases[i].line, limits);
        plant("/proc/self/limits", text);
        wrong(KILN_DOCTOR_BROKEN, "limits", cases[i].words);
    }
}

TEST(disks_that_are_none_or_full_or_slow) {
    static const char root[] = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";
    static const char *const kinds[] = {"nfs4", "cifs", "9p", "fuse.sshfs", "tmpfs"};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char text[512];
        snprintf(text, sizeof text, "%s30 22 0:40 / /home/me rw shared:1 master:2 - %s a:/b rw\n",
                 root, kinds[i]);
        slow("/proc/self/mountinfo", text, "file system", kinds[i]);
    }
    /* Of another folder, whose name begins alike. */
    plant_good_machine();
    plant("/proc/self/mountinfo",
          "22 1 254:0 / / rw - ext4 a rw\n30 22 0:40 / /home/m rw - nfs4 b rw\n");
    look();
    CHECK_EQ(kiln_doctor_worst(&seen), KILN_DOCTOR_FINE);
    /* Blanks in names. */
    snprintf(host.folder, sizeof host.folder, "/my disk/runs");
    plant("/proc/self/mountinfo",
          "22 1 254:0 / / rw - ext4 a rw\n30 22 0:40 / /my\\040disk rw - nfs4 b rw\n");
    wrong(KILN_DOCTOR_SLOW, "file system", "/my disk is nfs4");
    plant_good_machine();
    host.writable = false;
    wrong(KILN_DOCTOR_BROKEN, "disk", "cannot be written by this user");
    plant("/proc/self/mountinfo", "22 1 254:0 / / ro,relatime - ext4 /dev/vda ro\n");
    wrong(KILN_DOCTOR_BROKEN, "disk", "mounted read-only");
    plant_good_machine();
    host.disk_free = 500000000;
    wrong(KILN_DOCTOR_SLOW, "disk", "nearly full");
    plant_good_machine();
    host.disk_files_free = 0;
    wrong(KILN_DOCTOR_BROKEN, "disk", "no more files");
    plant_good_machine();
    host.write_gb_s = 0.02;
    wrong(KILN_DOCTOR_SLOW, "disk rate", "20 MB/s");
    CHECK_CONTAINS(finding("disk rate", KILN_DOCTOR_SLOW)->cost, "takes 60 s");
    plant_good_machine();
    host.sync_s = 0.2;
    wrong(KILN_DOCTOR_SLOW, "disk rate", "200.0 ms");
}

TEST(old_systems_and_gpus) {
    slow("/proc/sys/kernel/osrelease", "4.4.0\n", "system", "4.4.0");
    plant_good_machine();
    plant("/proc/sys/kernel/osrelease", "5.15.90.1-microsoft-standard-WSL2\n");
    look();
    CHECK_CONTAINS(finding("system", KILN_DOCTOR_FINE)->found, "inside Windows");
    how.gpu = true;
    snprintf(host.gpu_error, sizeof host.gpu_error, "no OpenCL device");
    wrong(KILN_DOCTOR_BROKEN, "gpu", "no OpenCL device");
    snprintf(host.gpu, sizeof host.gpu, "A Card (driver 1)");
    look();
    CHECK_CONTAINS(finding("gpu", KILN_DOCTOR_FINE)->found, "A Card");
}

TEST(this_machine_can_be_looked_at) {
    struct kiln_err err;
    how = (struct kiln_doctor_options){.folder = test_folder()};
    CHECK_OK(kiln_doctor(&how, &seen, &err), &err);
    CHECK(seen.n >= 10);
    CHECK(seen.machine[0] != '\0');
    how.folder = test_path("absent");
    CHECK_FAILS(kiln_doctor(&how, &seen, &err), KILN_EINPUT, &err);
    how.folder = test_file("file", "", 0);
    CHECK_FAILS(kiln_doctor(&how, &seen, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "no folder");
}

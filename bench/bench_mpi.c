/* SPDX-License-Identifier: MIT
 *
 * bench_mpi.c: what sums over MPI take, beside what the formula for a ring says.
 *
 *   bench/hosts --gbit 1 --ms 1 -- build/release/bench/bench_mpi [MICROSECONDS]...   over a link
 *   mpirun -n 2 build/release/bench/bench_mpi [MICROSECONDS]...                      on one machine
 *
 * Latency and bandwidth are measured first, between the first and the last of n ranks. Then
 * MPI_Iallreduce sums m bytes of floats in place, in blocks, two of them under way at once, while a
 * thread that does nothing else calls MPI_Test: all the time, or with sleeps between the calls, so
 * that others may compute. The formula, with what was measured:
 *
 *   2 (n-1)/n m / bandwidth + 2 (n-1) latency
 *
 * Times are the slowest rank's, medians of several sums; CPU is what a rank takes of one processor
 * meanwhile, mean of the ranks, without what the kernel does on behalf of nobody.
 */
#include <mpi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/machine.h"
#include "base/mem.h"

enum { MIB = 1 << 20, BLOCK = 4 * MIB, MOST_BLOCKS = 16, UNDER_WAY = 2, ROUNDS = 7 };

static int rank, ranks;
static float *numbers;

__attribute__((noreturn)) static void die(const char *what) {
    fprintf(stderr, "bench_mpi: %s\n", what);
    MPI_Abort(MPI_COMM_WORLD, 1);
    exit(1);
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

/* Seconds that 8 bytes take one way: half of there and back. */
static double latency(void) {
    enum { TIMES = 200 };
    double seconds[TIMES], word = 0;
    const int last = ranks - 1;
    MPI_Barrier(MPI_COMM_WORLD);
    for (int i = 0; i < TIMES && (rank == 0 || rank == last); i++) {
        const double start = kiln_now_s();
        if (rank == 0) {
            MPI_Send(&word, 1, MPI_DOUBLE, last, 0, MPI_COMM_WORLD);
            MPI_Recv(&word, 1, MPI_DOUBLE, last, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        } else {
            MPI_Recv(&word, 1, MPI_DOUBLE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            MPI_Send(&word, 1, MPI_DOUBLE, 0, 0, MPI_COMM_WORLD);
        }
        seconds[i] = (kiln_now_s() - start) / 2;
    }
    double result = rank == 0 ? median(seconds, TIMES) : 0;
    MPI_Bcast(&result, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    return result;
}

/* Bytes a second one way: all blocks under way at once, and a word back when all have come. */
static double bandwidth(double one_way) {
    double rates[ROUNDS] = {0}, word = 0;
    const int last = ranks - 1, floats = BLOCK / (int)sizeof(float);
    for (int i = 0; i < ROUNDS; i++) {
        MPI_Request requests[MOST_BLOCKS];
        MPI_Barrier(MPI_COMM_WORLD);
        const double start = kiln_now_s();
        for (int block = 0; block < MOST_BLOCKS && (rank == 0 || rank == last); block++) {
            float *at = numbers + (size_t)block * (size_t)floats;
            if (rank == 0) {
                MPI_Isend(at, floats, MPI_FLOAT, last, 0, MPI_COMM_WORLD, &requests[block]);
            } else {
                MPI_Irecv(at, floats, MPI_FLOAT, 0, 0, MPI_COMM_WORLD, &requests[block]);
            }
        }
        if (rank == 0) {
            MPI_Waitall(MOST_BLOCKS, requests, MPI_STATUSES_IGNORE);
            MPI_Recv(&word, 1, MPI_DOUBLE, last, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        } else if (rank == last) {
            MPI_Waitall(MOST_BLOCKS, requests, MPI_STATUSES_IGNORE);
            MPI_Send(&word, 1, MPI_DOUBLE, 0, 1, MPI_COMM_WORLD);
        }
        rates[i] = MOST_BLOCKS * (double)BLOCK / (kiln_now_s() - start - 2 * one_way);
    }
    double result = rank == 0 ? median(rates, ROUNDS) : 0;
    MPI_Bcast(&result, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    return result;
}

/* What the progress thread is to do. */
struct sums {
    int blocks, sleep_us;
};

static void *progress(void *argument) {
    const struct sums *sums = argument;
    const struct timespec nap = {.tv_nsec = sums->sleep_us * 1000L};
    const int floats = BLOCK / (int)sizeof(float);
    MPI_Request requests[MOST_BLOCKS];
    int begun = 0;
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    for (int done = 0; done < sums->blocks;) {
        int is = 0;
        for (; begun < sums->blocks && begun < done + UNDER_WAY; begun++) {
            float *at = numbers + (size_t)begun * (size_t)floats;
            MPI_Iallreduce(MPI_IN_PLACE, at, floats, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD,
                           &requests[begun]);
        }
        MPI_Test(&requests[done], &is, MPI_STATUS_IGNORE);
        done += is;
        if (!is && sums->sleep_us > 0) {
            nanosleep(&nap, NULL);
        }
    }
    return NULL; /* NOLINT(clang-analyzer-optin.mpi.MPI-Checker): MPI_Test has seen each done */
}

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check_sums(size_t count) {
    const float wanted = (float)ranks * (float)(ranks + 1) / 2;
    for (size_t i = 0; i < count; i++) {
        if (numbers[i] != wanted) {
            die("a sum is wrong");
        }
    }
}

/* Median seconds of one sum; in `cpu` what a rank takes of a processor. */
static double sum(const struct sums *sums, double *cpu) {
    const size_t count = (size_t)sums->blocks * BLOCK / sizeof *numbers;
    struct sums todo = *sums;
    double seconds[ROUNDS], own[2] = {0}, all[2];
    for (int i = 0; i < ROUNDS; i++) {
        pthread_t thread;
        for (size_t j = 0; j < count; j++) {
            numbers[j] = (float)(rank + 1);
        }
        MPI_Barrier(MPI_COMM_WORLD);
        const double start = kiln_now_s(), cpu_start = cpu_s();
        if (pthread_create(&thread, NULL, progress, &todo) != 0) {
            die("cannot make a thread");
        }
        pthread_join(thread, NULL);
        seconds[i] = kiln_now_s() - start;
        own[0] += cpu_s() - cpu_start;
        own[1] += seconds[i];
        check_sums(count);
    }
    MPI_Allreduce(MPI_IN_PLACE, seconds, ROUNDS, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    MPI_Allreduce(own, all, 2, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    *cpu = all[0] / all[1];
    return median(seconds, ROUNDS);
}

/* The ranks' hosts, in order, each once. */
static void tell_hosts(void) {
    char own[MPI_MAX_PROCESSOR_NAME] = "", *all = kiln_alloc((size_t)ranks, sizeof own);
    int length;
    MPI_Get_processor_name(own, &length);
    if (!all) {
        die("out of memory");
    }
    MPI_Gather(own, sizeof own, MPI_CHAR, all, sizeof own, MPI_CHAR, 0, MPI_COMM_WORLD);
    if (rank == 0) {
        printf("%d ranks on", ranks);
        for (int i = 0; i < ranks; i++) {
            const char *name = all + (size_t)i * sizeof own;
            if (i == 0 || strcmp(name, name - sizeof own) != 0) {
                printf(" %s", name);
            }
        }
        printf("\n");
    }
    kiln_free(all);
}

static void tell_sum(const struct sums *sums, double one_way, double rate) {
    const double bytes = (double)sums->blocks * BLOCK, n = ranks, crosses = 2 * (n - 1) / n * bytes;
    const double formula = crosses / rate + 2 * (n - 1) * one_way;
    double cpu;
    const double seconds = sum(sums, &cpu);
    char waits[32] = "spinning";
    if (sums->sleep_us > 0) {
        snprintf(waits, sizeof waits, "sleep %d us", sums->sleep_us);
    }
    if (rank == 0) {
        printf("%4d MiB  %-12s %9.2f ms %9.2f ms %8.2f %10.1f %9.1f %%\n",
               sums->blocks * (BLOCK / MIB), waits, seconds * 1e3, formula * 1e3, seconds / formula,
               crosses / seconds * 1e-6, cpu * 100);
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    int threads;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &threads);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    numbers = kiln_alloc(MOST_BLOCKS * (size_t)BLOCK, 1);
    if (threads < MPI_THREAD_SERIALIZED || ranks < 2 || !numbers) {
        die("want 2 ranks at least, 64 MiB, and an MPI that threads may call in turns");
    }
    memset(numbers, 0, MOST_BLOCKS * (size_t)BLOCK);
    tell_hosts();
    const double one_way = latency(), rate = bandwidth(one_way);
    if (rank == 0) {
        printf("8 bytes one way %.3f ms, %d MiB one way %.1f MB/s\n", one_way * 1e3,
               MOST_BLOCKS * (BLOCK / MIB), rate * 1e-6);
        printf("%8s  %-12s %12s %12s %8s %10s %11s\n", "sum of", "waits by", "time", "formula",
               "ratio", "MB/s/way", "CPU a rank");
    }
    for (int blocks = 1; blocks <= MOST_BLOCKS; blocks += MOST_BLOCKS - 1) {
        for (int i = 0; i < (argc > 1 ? argc - 1 : 2); i++) {
            const struct sums sums = {blocks, argc > 1 ? atoi(argv[i + 1]) : 40 * i};
            tell_sum(&sums, one_way, rate);
        }
    }
    if (rank == 0) {
        printf("memory of the first rank: %.0f MB at most, %.0f of them numbers\n",
               (double)kiln_memory_resident_peak() * 1e-6, MOST_BLOCKS * (double)BLOCK * 1e-6);
    }
    kiln_free(numbers);
    MPI_Finalize();
    return 0;
}

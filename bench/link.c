/* SPDX-License-Identifier: MIT
 *
 * link.c: hosts at a slow switch, on one machine: what bench/hosts runs programs over.
 *
 *   link [--hosts 2] [--gbit 1] [--ms 1] [--queue-ms 100] [--check]
 *
 * Host i is a network namespace with a host name (host-i), an address (10.0.0.i) and one device,
 * link0, which is a TUN device of this program. A packet that a host sends takes the wire to the
 * switch for as long as its bits last at --gbit, then the wire to its receiver, which it leaves
 * --ms after that. Wires are full duplex. Who waits for either wire longer than --queue-ms is
 * lost, as in a switch whose buffer is full.
 *
 * Devices hand over up to 64 KiB of one connection at once and unsummed, as they would to a network
 * card that cuts it into frames. What is counted is the frames: 1500 bytes of IP with 38 more of
 * Ethernet, so that TCP's payload is 94 % of the rate.
 *
 * When all is made, a line for each host is printed: its address and the paths of its network and
 * UTS namespaces, for nsenter. The program ends with its standard input. Nothing stays behind: the
 * devices are its descriptors, and a namespace lasts as long as who holds it.
 *
 * --check: instead of that, measures delay and rate between the first two hosts by TCP; exit 1 when
 * one of them is more than 10 % from what it should be.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <math.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/mem.h"

enum {
    MOST_HOSTS = 16,
    NETWORK = 10 << 24, /* 10.0.0.0/24 */
    FRAME = 1500,       /* bytes of IP in a frame */
    ETHERNET = 38,      /* and bytes around them: preamble, header, checksum, gap */
    AT_ONCE = 16,       /* packets taken from one host before the others are looked at */
};

/* Seconds between a timer and who it wakes, on a virtual machine, twice: for this program learns of
 * a packet late, and hands it over late. So it does the latter as much early. */
static const double EARLY = 40e-6;

struct packet {
    struct packet *next;
    double due;  /* when its receiver gets it, seconds of kiln_now_s */
    size_t size; /* of what follows */
    struct {
        struct virtio_net_hdr offload;
        unsigned char ip[65536];
    } data;
};

struct host {
    int tun, net, uts;
    double sends_until, takes_until; /* its two wires are taken */
    struct packet *first, *last;     /* on their way to it, by due */
    uint64_t sent, lost;             /* packets */
    double bytes;                    /* that its wire to the switch carried */
};

static struct {
    struct host host[MOST_HOSTS];
    int hosts;
    double bytes_per_s, delay, queue; /* seconds */
    struct packet *spare;
    double late, latest; /* deliveries after they were due: sum and most, seconds */
    uint64_t delivered;
} lab;

/* The result of a call of the system; where it failed, the end, with the reason. */
static int must(int result, const char *what) {
    if (result < 0) {
        const int cause = errno;
        fprintf(stderr, "link: %s: %s\n", what, strerror(cause));
        if (cause == EPERM || cause == EACCES) {
            fprintf(stderr,
                    "link: namespaces and devices want root (CAP_SYS_ADMIN, CAP_NET_ADMIN), "
                    "in a container also /dev/net/tun\n");
        }
        exit(1);
    }
    return result;
}

/* ---- hosts ----------------------------------------------------------------------------------- */

static int open_file(const char *path, int flags) {
    return must(open(path, flags | O_CLOEXEC), path);
}

static void enter(int net, int uts) {
    must(setns(net, CLONE_NEWNET), "cannot enter a network namespace");
    must(setns(uts, CLONE_NEWUTS), "cannot enter a UTS namespace");
}

static struct sockaddr_in address_of(int i) {
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(NETWORK | (uint32_t)(i + 1))};
}

static void bring_up(const char *device, const struct sockaddr_in *address) {
    struct sockaddr_in mask = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xffffff00)};
    struct ifreq ask = {0};
    const int fd = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "cannot make a socket");
    snprintf(ask.ifr_name, sizeof ask.ifr_name, "%s", device);
    if (address) {
        memcpy(&ask.ifr_addr, address, sizeof *address);
        must(ioctl(fd, SIOCSIFADDR, &ask), "cannot give a device an address");
        memcpy(&ask.ifr_netmask, &mask, sizeof mask);
        must(ioctl(fd, SIOCSIFNETMASK, &ask), "cannot give a device a netmask");
    }
    ask.ifr_flags = IFF_UP | IFF_RUNNING;
    must(ioctl(fd, SIOCSIFFLAGS, &ask), "cannot bring a device up");
    close(fd);
}

/* Most systems send by CUBIC, which not every kernel lets a namespace choose. Reno behaves alike on
 * a link as short as these; what else a machine may be set to need not. */
static void choose_congestion_control(void) {
    const int fd = open_file("/proc/sys/net/ipv4/tcp_congestion_control", O_WRONLY);
    if (write(fd, "cubic", 5) != 5) {
        must((int)write(fd, "reno", 4), "cannot choose how TCP avoids congestion");
    }
    close(fd);
}

/* What a network card with a short queue does: hold packets back at the rate of the wire, where TCP
 * knows of them and sends no more than a millisecond's worth ahead (tcp_limit_output_bytes). Else
 * all of a window would stand in this program's queue, with the acknowledgements of others behind
 * it. tc counts bytes of IP. */
static void hold_back(void) {
    char command[200];
    snprintf(command, sizeof command,
             "tc qdisc add dev link0 root tbf rate %.0fbit burst %.0f limit 64mb",
             lab.bytes_per_s * 8 * FRAME / (FRAME + ETHERNET),
             fmax(130e3, lab.bytes_per_s * 200e-6));
    if (system(command) != 0) {
        fprintf(stderr, "link: no token bucket before link0: %s\n", command);
        exit(1);
    }
}

static void make_host(int i) {
    struct host *host = &lab.host[i];
    struct ifreq ask = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    const struct sockaddr_in address = address_of(i);
    char name[16];
    must(unshare(CLONE_NEWNET | CLONE_NEWUTS), "cannot make a network namespace");
    snprintf(name, sizeof name, "host-%d", i + 1);
    must(sethostname(name, strlen(name)), "cannot name a host");
    host->net = open_file("/proc/self/ns/net", O_RDONLY);
    host->uts = open_file("/proc/self/ns/uts", O_RDONLY);
    host->tun = open_file("/dev/net/tun", O_RDWR | O_NONBLOCK);
    snprintf(ask.ifr_name, sizeof ask.ifr_name, "link0");
    must(ioctl(host->tun, TUNSETIFF, &ask), "cannot make a TUN device");
    must(ioctl(host->tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4),
         "a TUN device that cuts segments");
    choose_congestion_control();
    bring_up("lo", NULL);
    bring_up("link0", &address);
    hold_back();
}

static void make_hosts(void) {
    const int net = open_file("/proc/self/ns/net", O_RDONLY);
    const int uts = open_file("/proc/self/ns/uts", O_RDONLY);
    for (int i = 0; i < lab.hosts; i++) {
        make_host(i);
    }
    enter(net, uts);
    close(net);
    close(uts);
}

/* ---- wires ----------------------------------------------------------------------------------- */

static struct packet *take_spare(void) {
    struct packet *packet = lab.spare ? lab.spare : kiln_alloc(1, sizeof *packet);
    if (!packet) {
        fprintf(stderr, "link: out of memory for packets on their way\n");
        exit(1);
    }
    lab.spare = packet->next;
    packet->next = NULL;
    return packet;
}

static void spare(struct packet *packet) {
    packet->next = lab.spare;
    lab.spare = packet;
}

/* Bytes on the wire: a packet, or the frames that a network card would cut it into. */
static double wire_bytes(const struct packet *packet) {
    const struct virtio_net_hdr *offload = &packet->data.offload;
    const size_t size = packet->size - sizeof *offload;
    if (offload->gso_type == VIRTIO_NET_HDR_GSO_NONE || offload->gso_size == 0) {
        return (double)(size + ETHERNET);
    }
    /* TCP begins where its checksum is to; its own length is in the upper half of byte 12. */
    const size_t tcp = offload->csum_start;
    const size_t headers = tcp + (size_t)(packet->data.ip[tcp + 12] >> 4) * 4;
    const size_t frames = (size - headers + offload->gso_size - 1) / offload->gso_size;
    return (double)(size - headers + frames * (headers + ETHERNET));
}

static struct host *receiver(const struct packet *packet) {
    uint32_t to;
    if (packet->data.ip[0] >> 4 != 4) {
        return NULL; /* what IPv6 says of itself goes nowhere */
    }
    memcpy(&to, packet->data.ip + 16, sizeof to);
    to = ntohl(to) - NETWORK;
    return to >= 1 && to <= (uint32_t)lab.hosts ? &lab.host[to - 1] : NULL;
}

static void send_on(struct host *from, struct packet *packet) {
    struct host *to = receiver(packet);
    if (!to) {
        spare(packet);
        return;
    }
    const double now = kiln_now_s(), bytes = wire_bytes(packet), wire = bytes / lab.bytes_per_s;
    const double begins = fmax(now, from->sends_until);
    /* The last bit reaches the switch, and leaves it no sooner than the other wire is free. */
    const double sent = begins + wire, taken = fmax(sent, to->takes_until + wire);
    if (begins - now > lab.queue || taken - sent > lab.queue) {
        from->lost++;
        spare(packet);
        return;
    }
    from->sends_until = sent;
    to->takes_until = taken;
    from->sent++;
    from->bytes += bytes;
    packet->due = taken + lab.delay;
    if (to->first) {
        to->last->next = packet;
    } else {
        to->first = packet;
    }
    to->last = packet;
}

static void take(struct host *from) {
    for (int i = 0; i < AT_ONCE; i++) {
        struct packet *packet = take_spare();
        const ssize_t size = read(from->tun, &packet->data, sizeof packet->data);
        if (size <= (ssize_t)(sizeof packet->data.offload + 20)) {
            spare(packet);
            return; /* nothing there */
        }
        packet->size = (size_t)size;
        send_on(from, packet);
    }
}

/* Hand over what is due. Gives when the next packet is; infinity where none is on its way. */
static double deliver(void) {
    double next = HUGE_VAL;
    for (int i = 0; i < lab.hosts; i++) {
        struct host *to = &lab.host[i];
        double late;
        while (to->first && (late = kiln_now_s() - to->first->due) >= -EARLY) {
            struct packet *packet = to->first;
            if (write(to->tun, &packet->data, packet->size) < 0) {
                to->lost++;
            }
            to->first = packet->next;
            spare(packet);
            lab.late += late;
            lab.latest = fmax(lab.latest, late);
            lab.delivered++;
        }
        if (to->first) {
            next = fmin(next, to->first->due);
        }
    }
    return next;
}

static void on_signal(int number) { (void)number; }

/* Carry packets until `end` can be read to its end, or SIGTERM comes. */
static void carry(int end) {
    const struct sigaction stops = {.sa_handler = on_signal};
    struct pollfd look[MOST_HOSTS + 1];
    sigset_t outside, inside; /* of ppoll: the signal comes only there */
    sigemptyset(&inside);
    sigemptyset(&outside);
    sigaddset(&outside, SIGTERM);
    sigprocmask(SIG_BLOCK, &outside, NULL);
    sigaction(SIGTERM, &stops, NULL);
    for (int i = 0; i < lab.hosts; i++) {
        look[i] = (struct pollfd){.fd = lab.host[i].tun, .events = POLLIN};
    }
    look[lab.hosts] = (struct pollfd){.fd = end, .events = POLLIN};
    for (;;) {
        const double next = deliver(), wait = fmax(0, next - EARLY - kiln_now_s());
        const struct timespec time = {.tv_sec = (time_t)fmin(wait, 1e6),
                                      .tv_nsec = (long)(fmod(wait, 1) * 1e9)};
        char byte;
        if (ppoll(look, (nfds_t)lab.hosts + 1, isinf(next) ? NULL : &time, &inside) < 0 ||
            (look[lab.hosts].revents && read(end, &byte, 1) <= 0)) {
            return;
        }
        for (int i = 0; i < lab.hosts; i++) {
            if (look[i].revents) {
                take(&lab.host[i]);
            }
        }
    }
}

/* The wire goes on whatever the hosts compute, as on a machine of its own, and on time. */
static void be_punctual(void) {
    const struct sched_param first = {.sched_priority = 1};
    if (sched_setscheduler(0, SCHED_FIFO, &first) != 0) {
        fprintf(stderr, "link: no real-time priority: packets are late when all processors work\n");
    }
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
}

static void tell(double seconds) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    const double cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                       (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1e-6;
    for (int i = 0; i < lab.hosts; i++) {
        const struct host *host = &lab.host[i];
        fprintf(stderr, "link: host-%d sent %llu packets, %.1f MB on the wire, %llu lost\n", i + 1,
                (unsigned long long)host->sent, host->bytes * 1e-6, (unsigned long long)host->lost);
    }
    fprintf(
        stderr, "link: packets came %.0f us late, at most %.0f; %.1f s of a processor in %.1f s\n",
        lab.delivered ? lab.late / (double)lab.delivered * 1e6 : 0, lab.latest * 1e6, cpu, seconds);
}

/* ---- the check ------------------------------------------------------------------------------- */

static void move(int fd, bool sending, double bytes) {
    static char block[1 << 20];
    while (bytes > 0) {
        const size_t most = (size_t)fmin(bytes, sizeof block);
        const ssize_t n = sending ? send(fd, block, most, MSG_NOSIGNAL) : recv(fd, block, most, 0);
        bytes -= must(n > 0 ? (int)n : -1, sending ? "cannot send" : "cannot receive");
    }
}

static bool near(const char *what, double is, double wanted, const char *unit) {
    const bool good = fabs(is / wanted - 1) <= 0.1;
    printf("%-9s %9.3f %s, wanted %.3f: %+.1f %%%s\n", what, is, unit, wanted,
           100 * (is / wanted - 1), good ? "" : ": more than 10 % off");
    return good;
}

/* A socket of host i: sockets stay in the namespace that they were made in. */
static int socket_of(int i) {
    const int yes = 1;
    enter(lab.host[i].net, lab.host[i].uts);
    const int fd = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "cannot make a socket");
    /* Who is accepted by it has it, too. */
    must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes), "TCP_NODELAY");
    return fd;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A second's worth of bytes, 100 MB at least; until TCP's windows are open none is timed. */
static bool measure(void) {
    enum { TIMES = 200 };
    const double bytes = fmax(100e6, lab.bytes_per_s), opening = bytes / 4;
    struct sockaddr_in address = address_of(1);
    address.sin_port = htons(5001);
    const int listening = socket_of(1), one = socket_of(0);
    must(bind(listening, (struct sockaddr *)&address, sizeof address), "cannot bind");
    must(listen(listening, 1), "cannot listen");
    must(connect(one, (struct sockaddr *)&address, sizeof address), "cannot connect the hosts");
    const int other = must(accept4(listening, NULL, NULL, SOCK_CLOEXEC), "cannot accept");
    double ms[TIMES], start = 0;
    for (int i = 0; i < TIMES; i++) {
        start = kiln_now_s();
        move(i % 2 ? other : one, true, 1);
        move(i % 2 ? one : other, false, 1);
        ms[i] = (kiln_now_s() - start) * 1e3;
    }
    qsort(ms, TIMES, sizeof *ms, by_value);
    bool good = near("one way", ms[TIMES / 2], lab.delay * 1e3, "ms");
    const pid_t sender = must(fork(), "cannot fork");
    if (sender == 0) {
        move(one, true, bytes);
        _exit(0);
    }
    move(other, false, opening);
    start = kiln_now_s();
    move(other, false, bytes - opening);
    const double gbit = (bytes - opening) / (kiln_now_s() - start) * 8e-9;
    /* A full frame: 52 bytes of its IP are headers. */
    good &= near("payload", gbit,
                 lab.bytes_per_s * 8e-9 * (FRAME - 52) / (double)(FRAME + ETHERNET), "Gbit/s");
    waitpid(sender, NULL, 0);
    return good;
}

static int check(void) {
    int ends[2], status;
    must(pipe2(ends, O_CLOEXEC), "cannot make a pipe");
    const pid_t child = must(fork(), "cannot fork");
    if (child == 0) {
        close(ends[0]);
        const bool good = measure();
        fflush(stdout);
        _exit(good ? 0 : 1);
    }
    close(ends[1]);
    be_punctual();
    carry(ends[0]);
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
}

/* ---- the program ----------------------------------------------------------------------------- */

static bool read_options(int argc, char **argv) {
    static const struct option options[] = {
        {"hosts", required_argument, NULL, 0}, {"gbit", required_argument, NULL, 1},
        {"ms", required_argument, NULL, 2},    {"queue-ms", required_argument, NULL, 3},
        {"check", no_argument, NULL, 4},       {0}};
    static const double least[] = {2, 0.001, 0, 0.1}, most[] = {MOST_HOSTS, 1000, 1e4, 1e4};
    double value[] = {2, 1, 1, 100};
    bool checks = false;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0 && option <= 4) {
        char *end;
        if (option == 4) {
            checks = true;
            continue;
        }
        value[option] = strtod(optarg, &end);
        if (end == optarg || *end ||
            !(value[option] >= least[option] && value[option] <= most[option])) {
            fprintf(stderr, "link: --%s %s: want a number from %g to %g\n", options[option].name,
                    optarg, least[option], most[option]);
            exit(2);
        }
    }
    if (option >= 0 || optind < argc) {
        fprintf(stderr, "link: bench/link.c says what options there are\n");
        exit(2);
    }
    lab.hosts = (int)value[0];
    lab.bytes_per_s = value[1] * 1e9 / 8;
    lab.delay = value[2] * 1e-3;
    lab.queue = value[3] * 1e-3;
    return checks;
}

int main(int argc, char **argv) {
    const bool checks = read_options(argc, argv);
    const double start = kiln_now_s();
    int code = 0;
    make_hosts();
    if (checks) {
        code = check();
    } else {
        for (int i = 0; i < lab.hosts; i++) {
            printf("10.0.0.%d /proc/%d/fd/%d /proc/%d/fd/%d\n", i + 1, (int)getpid(),
                   lab.host[i].net, (int)getpid(), lab.host[i].uts);
        }
        fflush(stdout);
        be_punctual();
        carry(STDIN_FILENO);
    }
    tell(kiln_now_s() - start);
    return code;
}

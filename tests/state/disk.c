/* SPDX-License-Identifier: MIT */
#include "state/disk.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io_hook.h"
#include "base/kill_point.h"
#include "base/random.h"
#include "kiln_test.h"

enum { NODES = 2048, ENTRIES = 64, PENDING = 256, PAGE = 4096 };

struct entry {
    char name[64];
    int node; /* 0: none */
};

/* A name that appears, disappears, or both at once. */
struct change {
    struct entry add, take;
};

struct bytes {
    unsigned char *at;
    size_t size;
};

/* A file or a folder. A file that is gone keeps its last synced bytes: its name may come back. */
static struct node {
    bool folder;
    int parent; /* of the name it has now; 0: none, or the root */
    char name[64];
    struct bytes synced, before; /* of a file: on the disk; when the sync under way began */
    struct entry disk[ENTRIES];  /* of a folder: names on the disk */
    struct change pending[PENDING];
    size_t n_pending, n_before; /* changes since; of them, when the sync under way began */
} * nodes;
static int n_nodes;
static char root[PATH_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long events, cut_event;
static void (*cut_now)(void);

/* ---- the tree as it is now ----------------------------------------------------------------- */

static int child_of(int parent, const char *name) {
    for (int i = 2; i < n_nodes; i++) {
        if (nodes[i].parent == parent && strcmp(nodes[i].name, name) == 0) {
            return i;
        }
    }
    return 0;
}

/* The node of a path and, in *parent and *name, where it is; 0 when there is none. */
static int node_at(const char *path, int *parent, char name[64]) {
    const size_t length = strlen(root);
    *parent = 0;
    name[0] = '\0';
    if (strncmp(path, root, length) != 0 || (path[length] != '/' && path[length] != '\0')) {
        return 0;
    }
    int node = 1;
    for (const char *p = path + length; *p && node;) {
        p += strspn(p, "/");
        const size_t n = strcspn(p, "/");
        if (n == 0) {
            break;
        }
        CHECK(n < 64);
        *parent = node;
        snprintf(name, 64, "%.*s", (int)n, p);
        node = child_of(node, name);
        p += n;
        if (!node && strchr(p, '/')) {
            *parent = 0; /* a folder that is not known */
        }
    }
    return node;
}

static void path_of(int node, char *out, size_t size) {
    if (node == 1) {
        snprintf(out, size, "%s", root);
        return;
    }
    char parent[PATH_MAX];
    path_of(nodes[node].parent, parent, sizeof parent);
    snprintf(out, size, "%s/%s", parent, nodes[node].name);
}

static int add_node(int parent, const char *name, bool folder) {
    CHECK(n_nodes < NODES);
    struct node *n = &nodes[n_nodes];
    n->folder = folder;
    n->parent = parent;
    snprintf(n->name, sizeof n->name, "%s", name);
    return n_nodes++;
}

static struct change *change_in(int folder) {
    CHECK(nodes[folder].n_pending < PENDING);
    return &nodes[folder].pending[nodes[folder].n_pending++];
}

static void set_entry(struct entry *e, const char *name, int node) {
    snprintf(e->name, sizeof e->name, "%s", name);
    e->node = node;
}

/* ---- reports ------------------------------------------------------------------------------- */

static struct bytes read_bytes(int node, size_t most) {
    char path[PATH_MAX];
    struct bytes b = {0};
    struct stat st;
    path_of(node, path, sizeof path);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    b.size = most && most < (size_t)st.st_size ? most : (size_t)st.st_size;
    b.at = malloc(b.size + 1);
    CHECK(pread(fd, b.at, b.size, 0) == (ssize_t)b.size);
    close(fd);
    return b;
}

/* What was read when the sync began is on the disk now. */
static void file_synced(struct node *n) {
    if (n->before.size < n->synced.size) { /* a part of it */
        memcpy(n->synced.at, n->before.at, n->before.size);
        free(n->before.at);
    } else {
        free(n->synced.at);
        n->synced = n->before;
    }
    n->before = (struct bytes){0};
}

static void apply(struct entry *entries, const struct change *c) {
    for (size_t i = 0; i < ENTRIES; i++) {
        if (entries[i].node && (strcmp(entries[i].name, c->take.name) == 0 ||
                                strcmp(entries[i].name, c->add.name) == 0)) {
            entries[i].node = 0;
        }
    }
    for (size_t i = 0; c->add.node && i < ENTRIES; i++) {
        if (!entries[i].node) {
            entries[i] = c->add;
            return;
        }
    }
    CHECK(!c->add.node);
}

static void folder_synced(struct node *n) {
    for (size_t i = 0; i < n->n_before; i++) {
        apply(n->disk, &n->pending[i]);
    }
    memmove(n->pending, n->pending + n->n_before,
            (n->n_pending - n->n_before) * sizeof *n->pending);
    memset(n->pending + n->n_pending - n->n_before, 0, n->n_before * sizeof *n->pending);
    n->n_pending -= n->n_before;
    n->n_before = 0;
}

static void renamed(int node, const struct kiln_io_event *e) {
    int parent;
    char name[64];
    const int there = node_at(e->to, &parent, name);
    CHECK_EQ(parent, nodes[node].parent); /* nothing moves between folders */
    struct change *c = change_in(parent);
    set_entry(&c->take, nodes[node].name, node);
    set_entry(&c->add, name, node);
    if (there && there != node) {
        nodes[there].parent = 0;
    }
    snprintf(nodes[node].name, sizeof nodes[node].name, "%s", name);
}

static void removed(int node) {
    set_entry(&change_in(nodes[node].parent)->take, nodes[node].name, node);
    nodes[node].parent = 0;
}

static void done(const struct kiln_io_event *e, int node, int parent, const char *name) {
    struct stat st;
    switch (e->op) {
        case KILN_IO_CREATE:
        case KILN_IO_MKDIR:
            if (!node && parent && stat(e->path, &st) == 0) {
                const int made = add_node(parent, name, e->op == KILN_IO_MKDIR);
                set_entry(&change_in(parent)->add, name, made);
            }
            break;
        case KILN_IO_SYNC:
            if (node) {
                file_synced(&nodes[node]);
            }
            break;
        case KILN_IO_SYNC_DIR:
            if (node) {
                folder_synced(&nodes[node]);
            }
            break;
        case KILN_IO_RENAME:
            if (node && access(e->path, F_OK) != 0) {
                renamed(node, e);
            }
            break;
        case KILN_IO_REMOVE:
            if (node && access(e->path, F_OK) != 0) {
                removed(node);
            }
            break;
        case KILN_IO_WRITE:
        case KILN_IO_TRUNCATE:
            break; /* seen in the file itself */
    }
}

static void count_event(void) {
    if (++events == cut_event) {
        cut_now();
    }
}

static void on_io(const struct kiln_io_event *e) {
    int parent;
    char name[64];
    pthread_mutex_lock(&lock);
    const int node = node_at(e->path, &parent, name);
    if (e->done) {
        done(e, node, parent, name);
    } else if (node && e->op == KILN_IO_SYNC) {
        nodes[node].before = read_bytes(node, e->size);
    } else if (node && e->op == KILN_IO_SYNC_DIR) {
        nodes[node].n_before = nodes[node].n_pending;
    }
    count_event();
    pthread_mutex_unlock(&lock);
}

static void on_point(const char *where) {
    (void)where;
    pthread_mutex_lock(&lock);
    count_event();
    pthread_mutex_unlock(&lock);
}

void disk_watch(const char *folder) {
    nodes = calloc(NODES, sizeof *nodes);
    CHECK(nodes != NULL);
    n_nodes = 2; /* 0: none, 1: the root */
    nodes[1].folder = true;
    snprintf(root, sizeof root, "%s", folder);
    kiln_io_hook = on_io;
    kiln_kill_hook = on_point;
}

long disk_events(void) { return events; }

void disk_cut_at(long event, void (*cut)(void)) {
    cut_event = event;
    cut_now = cut;
}

/* ---- what a cut leaves --------------------------------------------------------------------- */

static uint64_t luck, draws;

/* 0, 1 or 2: lost, there, half there. */
static int fate(void) {
    return luck < 2 ? (int)luck : (int)kiln_random_below(luck, KILN_STREAM_TEST, draws++, 3);
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Page by page, old bytes or new. What lies behind the end of the one is zero. */
static void build_file(int node, const char *to) {
    const struct bytes old = nodes[node].synced;
    struct bytes new = nodes[node].parent ? read_bytes(node, 0) : old;
    const size_t size = fate() ? new.size : old.size;
    const int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    for (size_t at = 0; at < size; at += PAGE) {
        unsigned char page[PAGE] = {0}, other[PAGE] = {0};
        if (at < old.size) {
            memcpy(page, old.at + at, least(PAGE, old.size - at));
        }
        if (at < new.size) {
            memcpy(other, new.at + at, least(PAGE, new.size - at));
        }
        if (memcmp(page, other, PAGE) != 0) {
            const int how = fate();
            memcpy(page, other, how == 1 ? PAGE : how == 2 ? PAGE / 2 : 0);
        }
        static const unsigned char zeros[PAGE];
        if (memcmp(page, zeros, PAGE) != 0) {
            CHECK(pwrite(fd, page, least(PAGE, size - at), (off_t)at) > 0);
        }
    }
    close(fd);
    if (new.at != old.at) {
        free(new.at);
    }
}

static void build(int node, const char *to) {
    if (!nodes[node].folder) {
        build_file(node, to);
        return;
    }
    struct entry entries[ENTRIES];
    memcpy(entries, nodes[node].disk, sizeof entries);
    for (size_t i = 0; i < nodes[node].n_pending; i++) {
        if (fate()) {
            apply(entries, &nodes[node].pending[i]);
        }
    }
    CHECK(mkdir(to, 0700) == 0);
    for (size_t i = 0; i < ENTRIES; i++) {
        if (entries[i].node) {
            char path[PATH_MAX];
            snprintf(path, sizeof path, "%s/%s", to, entries[i].name);
            build(entries[i].node, path);
        }
    }
}

void disk_build(const char *to, uint64_t chance) {
    luck = chance;
    draws = 0;
    build(1, to);
}

bool disk_has(const char *path, const char *prefix) {
    int node = 1;
    for (const char *p = path; *p && node;) {
        const size_t n = strcspn(p, "/");
        int next = 0;
        for (size_t i = 0; i < ENTRIES; i++) {
            const struct entry *e = &nodes[node].disk[i];
            if (e->node && strlen(e->name) == n && strncmp(e->name, p, n) == 0) {
                next = e->node;
            }
        }
        node = next;
        p += n;
        p += *p == '/';
    }
    for (size_t i = 0; node && i < ENTRIES; i++) {
        const struct entry *e = &nodes[node].disk[i];
        if (e->node && strncmp(e->name, prefix, strlen(prefix)) == 0 && !strchr(e->name, '.')) {
            return true;
        }
    }
    return false;
}

/* SPDX-License-Identifier: MIT
 *
 * mem.c: see mem.h. Blocks come from posix_memalign with their exact size, so that a sanitizer
 * sees a write one byte past the end; arenas come straight from mmap, so that untouched pages
 * cost nothing and the first thread to touch a page places it.
 */
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGNMENT      64
#define HUGE_PAGE_FROM ((size_t)4 << 20)

static void *raw_alloc(size_t bytes) {
    void *block = NULL;
    if (posix_memalign(&block, ALIGNMENT, bytes > 0 ? bytes : 1) != 0) {
        return NULL;
    }
    return block;
}

void *kiln_alloc(size_t n, size_t size) {
    size_t bytes;
    if (kiln_mul_overflows(n, size, &bytes)) {
        return NULL;
    }
    void *block = raw_alloc(bytes);
    if (block != NULL) {
        memset(block, 0, bytes);
    }
    return block;
}

void *kiln_realloc(void *block, size_t old_n, size_t n, size_t size) {
    size_t bytes;
    if (kiln_mul_overflows(n, size, &bytes)) {
        return NULL;
    }
    void *grown = raw_alloc(bytes);
    if (grown == NULL) {
        return NULL;
    }
    size_t kept = block == NULL ? 0 : (old_n < n ? old_n : n) * size;
    if (kept > 0) {
        memcpy(grown, block, kept);
    }
    memset((char *)grown + kept, 0, bytes - kept);
    free(block);
    return grown;
}

void kiln_free(void *block) { free(block); }

char *kiln_strndup(const char *s, size_t n) {
    size_t bytes;
    if (kiln_add_overflows(n, 1, &bytes)) {
        return NULL;
    }
    char *copy = raw_alloc(bytes);
    if (copy != NULL) {
        memcpy(copy, s, n);
        copy[n] = '\0';
    }
    return copy;
}

char *kiln_strdup(const char *s) { return kiln_strndup(s, strlen(s)); }

char *kiln_path_join(const char *dir, const char *name) {
    size_t dir_size = strlen(dir);
    size_t name_size = strlen(name);
    bool slash = dir_size > 0 && dir[dir_size - 1] != '/';
    char *path = raw_alloc(dir_size + slash + name_size + 1);
    if (path != NULL) {
        memcpy(path, dir, dir_size);
        path[dir_size] = '/';
        memcpy(path + dir_size + slash, name, name_size);
        path[dir_size + slash + name_size] = '\0';
    }
    return path;
}

/* A size of 0 still maps a page, so that taking 0 bytes from it is not mistaken for a failure. */
static size_t mapped_bytes(size_t size) { return size > 0 ? size : 1; }

enum kiln_status kiln_arena_open(struct kiln_arena *arena, size_t size, struct kiln_err *err) {
    *arena = (struct kiln_arena){0};
    void *base =
        mmap(NULL, mapped_bytes(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
        return KILN_FAIL(err, KILN_ENOMEM, "map %zu bytes (%.1f MB) of memory: %s", size,
                         (double)size / 1e6, strerror(errno));
    }
#ifdef MADV_HUGEPAGE
    if (size >= HUGE_PAGE_FROM) {
        (void)madvise(base, size, MADV_HUGEPAGE); /* a hint: without it everything still works */
    }
#endif
    arena->base = base;
    arena->size = size;
    return KILN_OK;
}

void *kiln_arena_take(struct kiln_arena *arena, size_t bytes) {
    if (arena->base == NULL || bytes > arena->size - arena->used) {
        return NULL;
    }
    void *block = arena->base + arena->used;
    size_t taken = kiln_round_up(bytes, ALIGNMENT);
    size_t left = arena->size - arena->used;
    arena->used += taken < left ? taken : left; /* the last block may end off the boundary */
    return block;
}

void kiln_arena_close(struct kiln_arena *arena) {
    if (arena->base != NULL) {
        munmap(arena->base, mapped_bytes(arena->size));
    }
    *arena = (struct kiln_arena){0};
}

enum kiln_status kiln_scratch_open(struct kiln_scratch *scratch, size_t threads, size_t bytes,
                                   struct kiln_err *err) {
    *scratch = (struct kiln_scratch){.threads = threads, .bytes = bytes};
    scratch->of = kiln_alloc(threads, sizeof *scratch->of);
    enum kiln_status status =
        scratch->of ? KILN_OK
                    : KILN_FAIL(err, KILN_ENOMEM, "no memory for a list of %zu threads", threads);
    for (size_t i = 0; status == KILN_OK && i < threads; i++) {
        struct kiln_arena arena;
        status = kiln_arena_open(&arena, bytes, err);
        scratch->of[i] = arena.base;
    }
    if (status != KILN_OK) {
        kiln_scratch_close(scratch);
    }
    return status;
}

void kiln_scratch_close(struct kiln_scratch *scratch) {
    for (size_t i = 0; scratch->of != NULL && i < scratch->threads; i++) {
        kiln_arena_close(&(struct kiln_arena){.base = scratch->of[i], .size = scratch->bytes});
    }
    kiln_free(scratch->of);
    *scratch = (struct kiln_scratch){0};
}

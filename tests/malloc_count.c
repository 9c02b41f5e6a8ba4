/* SPDX-License-Identifier: MIT */
#include "malloc_count.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

static atomic_uint_fast64_t count;
static atomic_bool trap;

uint64_t malloc_count(void) { return atomic_load(&count); }
void malloc_trap(bool on) { atomic_store(&trap, on); }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(SANITIZED)

bool malloc_counted(void) { return true; }

/* The C library's own, by the names that it has for those who replace them. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *block, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

/* Seen by the libraries, too. */
#define SEEN __attribute__((visibility("default")))

static void counted(void) {
    atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    if (atomic_load_explicit(&trap, memory_order_relaxed)) {
        abort();
    }
}

void *memalign(size_t alignment, size_t size);

SEEN void *malloc(size_t size) {
    counted();
    return __libc_malloc(size);
}
SEEN void *calloc(size_t nmemb, size_t size) {
    counted();
    return __libc_calloc(nmemb, size);
}
SEEN void *realloc(void *ptr, size_t size) {
    counted();
    return __libc_realloc(ptr, size);
}
SEEN void *memalign(size_t alignment, size_t size) {
    counted();
    return __libc_memalign(alignment, size);
}
SEEN void *aligned_alloc(size_t alignment, size_t size) {
    counted();
    return __libc_memalign(alignment, size);
}
SEEN int posix_memalign(void **memptr, size_t alignment, size_t size) {
    counted();
    void *block = __libc_memalign(alignment, size);
    if (block == NULL) {
        return ENOMEM;
    }
    *memptr = block;
    return 0;
}

#else

bool malloc_counted(void) { return false; }

#endif

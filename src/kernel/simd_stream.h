/* SPDX-License-Identifier: MIT
 *
 * simd_stream.h: stores past the caches, of what nobody reads soon.
 *
 * A line that is written whole need not be read first. Only vectors of a whole line do that; where
 * a vector is smaller the store is an ordinary one.
 */
#ifndef KILN_KERNEL_SIMD_STREAM_H
#define KILN_KERNEL_SIMD_STREAM_H

#include "kernel/simd.h"

#if defined(__AVX512F__)
INLINE void v_stream(void *p, vu v) { _mm512_stream_si512(p, (__m512i)v); }
/* After the last of them: other threads see them in the order that locks promise. */
INLINE void v_stream_end(void) { _mm_sfence(); }
#else
INLINE void v_stream(void *p, vu v) { memcpy(p, &v, sizeof v); }
INLINE void v_stream_end(void) {}
#endif

#endif

/* SPDX-License-Identifier: MIT
 *
 * crc32c.h: CRC-32C (Castagnoli), as in RFC 3720 section 12.1: polynomial 0x1EDC6F41 reflected,
 * initial value and final xor 0xFFFFFFFF. The check value of "123456789" is 0xE3069283.
 */
#ifndef KILN_BASE_CRC32C_H
#define KILN_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC of data that continues after a prefix whose CRC is `crc` (0 for no prefix). */
uint32_t kiln_crc32c(uint32_t crc, const void *data, size_t size);

/* The same without the CRC instruction: what kiln_crc32c runs where the processor has none. Here
 * so that tests reach it on every machine. */
uint32_t kiln_crc32c_portable(uint32_t crc, const void *data, size_t size);

#endif

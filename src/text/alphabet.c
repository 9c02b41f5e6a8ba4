/* SPDX-License-Identifier: MIT
 *
 * alphabet.c: GPT-2's letters for bytes, in which byte-level tokenizers spell their pieces.
 *
 * A byte that is a printable, non-blank character of Latin-1 is that character; the others are the
 * characters from U+0100 on, in the order of the bytes. So every piece is plain text in a file.
 */
#include "text/text_int.h"

static bool is_itself(int byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

enum { FIRST_LETTER = 0x100, LETTERS = 68 }; /* 33 + 34 + 1 bytes are not themselves */

uint32_t kiln_letter_of_byte(unsigned char byte) {
    uint32_t letter = FIRST_LETTER;
    for (int b = 0; b < byte; b++) {
        letter += !is_itself(b);
    }
    return is_itself(byte) ? byte : letter;
}

int kiln_byte_of_letter(uint32_t letter) {
    if (letter < FIRST_LETTER) {
        return is_itself((int)letter) ? (int)letter : -1;
    }
    uint32_t skip = letter - FIRST_LETTER;
    for (int b = 0; b < 256 && skip < LETTERS; b++) {
        if (!is_itself(b) && skip-- == 0) {
            return b;
        }
    }
    return -1;
}

/* SPDX-License-Identifier: MIT
 *
 * first_words.h: a prompt that fits a text: how one of its sentences begins.
 */
#ifndef KILN_TEXT_FIRST_WORDS_H
#define KILN_TEXT_FIRST_WORDS_H

#include <stdbool.h>
#include <stddef.h>

enum { KILN_FIRST_WORDS = 48 };

/* Up to four words, without what ends a clause behind them and without what a shell reads inside
 * double quotes. begins: the text does begin here; else its first sentence may be cut, and the
 * words are of the one behind it. Its end may be cut in a word, which is left out unless it is all
 * there is. "" where there are none. */
void kiln_first_words(const char *text, size_t size, bool begins, char out[KILN_FIRST_WORDS]);

#endif

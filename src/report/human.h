/* SPDX-License-Identifier: MIT
 *
 * human.h: quantities in words that only reports need.
 */
#ifndef KILN_REPORT_HUMAN_H
#define KILN_REPORT_HUMAN_H

#include <stddef.h>

/* Floating-point operations, given in 1e12: "26.2 GFLOP", "1.25 TFLOP". */
const char *kiln_human_tflop(double tflop, char *buffer, size_t size);

/* The smoothed loss behind one more: exponential mean, weight 0.1; what is not finite changes
 * nothing, and the first finite one stands for all before it. mean NaN: there was none. */
double kiln_smoothed(double mean, double loss);

/* What a terminal makes of text (ECMA-48, SGR). */
#define KILN_GREEN  "\033[32m"
#define KILN_YELLOW "\033[33m"
#define KILN_FAINT  "\033[2m"
#define KILN_PLAIN  "\033[0m"

#endif

/* SPDX-License-Identifier: MIT
 *
 * sim_lab.h: programs of the interpreter for tests: text in, arrays in, arrays out.
 */
#ifndef KILN_TESTS_DEVICE_SIM_LAB_H
#define KILN_TESTS_DEVICE_SIM_LAB_H

#include "device/mil_lab.h"
#include "device/sim/eval.h"

enum { SIM_ARRAYS = 8 };

/* Pieces of text: a name attribute, and constants. */
#define NAMED(name) "[name = string(\"" name "\")]"
#define FP16(name, value) \
    "fp16 " name " = const()[name = string(\"" name "\"), val = fp16(" value ")];\n"
#define INTS(name, n, list)                                            \
    "tensor<int32, [" #n "]> " name " = const()[name = string(\"" name \
    "\"), val = tensor<int32, [" #n "]>([" list "])];\n"
#define INT(name, value) \
    "int32 " name " = const()[name = string(\"" name "\"), val = int32(" value ")];\n"
#define FLAG(name, value) \
    "bool " name " = const()[name = string(\"" name "\"), val = bool(" value ")];\n"

/* What is believed of hardware; a test changes a copy. */
extern const struct kiln_sim_numbers sim_numbers;

/* Parse, plan and run a program on `threads` threads. Arrays are in the order of parameters and
 * results and hold the elements as fp32; they pass through the declared types, as on surfaces. */
void sim_run_on(size_t threads, const struct kiln_sim_numbers *numbers, const char *text,
                float *const *inputs, float *const *outputs);
/* The same on 2 threads with the usual numbers. */
void sim_run(const char *text, float *const *inputs, float *const *outputs);
/* A program of one input and one output. */
void sim_run_one(const char *text, float *in, float *out);

/* n numbers like normal ones times scale, rounded to fp16. Of this test: free them never. */
float *sim_values(size_t n, float scale);
float *sim_zeros(size_t n);
/* x rounded to fp16. */
float sim_half(double x);
/* got is what fp16 makes of want, give or take `units` of its last place. */
void sim_close(const char *what, size_t i, double got, double want, double units);

/* The same with an error before rounding that has a size of its own: sums that cancel. */
void sim_near(const char *what, size_t i, double got, double want, double error);

/* Text on the heap of this test, printf style. */
const char *sim_text(const char *format, ...) KILN_PRINTF(1, 2);
/* "1.5, -2, ..." of n numbers, exact. */
const char *sim_list(const float *values, size_t n);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The hardware's limits: for each a program that violates it and nothing else. It is reported by
 * its name, with the line and the operation, and the program is accepted when it is off.
 */
#include <stdio.h>
#include <string.h>

#include "device/mil/blob.h"
#include "device/mil_lab.h"
#include "device/sim/limits.h"

#define X        "tensor<fp16, [1,16,1,16]> x"
#define ONE      "tensor<fp16, [1,16,1,16]> y = "
#define LAST     ONE "exp(x = x);\n"
#define CONV(of) "conv(x = x, weight = " of ")"
struct violation {
    enum kiln_sim_limit limit;
    const char *setting; /* that switches it on, where it is off */
    const char *text;
    int line;
    const char *words;
};

/* clang-format off */
static const struct violation violations[] = {
    {KILN_SIM_ALPHABETICAL, NULL, MIL_CALL("tensor<fp16, [16]> b, tensor<fp16, [16]> a",
     "tensor<fp16, [16]> y = add(x = a, y = b);\n", "y"), 4, "input a: it stands behind b"},
    {KILN_SIM_ALPHABETICAL, NULL, MIL_CALL(X, LAST "tensor<fp16, [1,16,1,16]> a = exp(x = y);\n",
     "y, a"), 6, "output a: it stands behind y"},
    {KILN_SIM_SURFACES, "surfaces=1", MIL_CALL(X, LAST, "y"), 1, "2 inputs and outputs"},
    {KILN_SIM_SINGLE_INPUT, "single-input=on", MIL_CALL("tensor<fp16, [16]> a, tensor<fp16, [16]> b",
     "tensor<fp16, [16]> y = add(x = a, y = b);\n", "y"), 4, "input b: 2 inputs"},
    {KILN_SIM_WIDTH_MULTIPLE, NULL, MIL_CALL("tensor<fp16, [16,8]> x",
     "tensor<fp16, [8,16]> y = reshape(x = x, shape = tensor<int32, [2]>([8,16]));\n", "y"), 4,
     "input x: a last axis of 8"},
    {KILN_SIM_WIDTH_MULTIPLE, NULL, MIL_CALL("tensor<fp16, [16]> x",
     "fp16 y = reduce_sum(x = x);\n", "y"), 5, "output y: a last axis of 1"},
    {KILN_SIM_LIVE_OUTPUTS, NULL, MIL_CALL(X, LAST, "x, y"), 4, "output x: it is an input"},
    {KILN_SIM_LIVE_OUTPUTS, "width-multiple=off", MIL_CALL(X, "fp16 k = const()[val = fp16(1)];\n"
     LAST, "k, y"), 5, "output k: it is a constant"},
    {KILN_SIM_OLD_INSTRUCTIONS, "old-instructions=on", MIL_CALL(X, LAST, "y"), 1,
     "program(1.3) with ios18"},
    {KILN_SIM_AXIS, NULL, MIL_CALL("tensor<fp16, [65536,16]> x",
     "tensor<fp16, [1048576]> t = reshape(x = x, shape = tensor<int32, [1]>([-1]));\n"
     "tensor<fp16, [65536,16]> y = reshape(x = t, shape = tensor<int32, [2]>([-1,16]));\n", "y"), 5,
     "reshape t: axis 0 of tensor<fp16, [1048576]>, but an axis may have 65536"},
    {KILN_SIM_RANK, NULL, MIL_CALL(X,
     "tensor<fp16, [1,1,2,8,1,16]> t = reshape(x = x, shape = tensor<int32, [6]>([1,1,2,8,1,16]));\n"
     "tensor<fp16, [256]> y = reshape(x = t, shape = tensor<int32, [1]>([-1]));\n", "y"), 5,
     "reshape t: tensor<fp16, [1,1,2,8,1,16]>, but a tensor may have 5 axes"},
    {KILN_SIM_FP32_WITHOUT_CAST, NULL, MIL_CALL("tensor<fp32, [16]> x",
     "tensor<fp32, [16]> y = exp(x = x)[name = string(\"e\")];\n", "y"), 5,
     "exp e: it reads the fp32 input x"},
    {KILN_SIM_CONV_INPUT_CHANNELS, NULL, MIL_CALL("tensor<fp16, [1,32768,1,16]> x",
     "tensor<fp16, [1,32768,1,1]> w = reduce_max(x = x, axes = tensor<int32, [1]>([-1]), keep_dims "
     "= bool(true));\ntensor<fp16, [1,1,1,16]> y = " CONV("w") "[name = string(\"head\")];\n", "y"),
     6, "conv head: 32768 input channels, but a conv may have 32767"},
    {KILN_SIM_CONV_KERNEL_WIDTH, NULL, MIL_CALL("tensor<fp16, [1,1,1,16]> x",
     "tensor<fp16, [1,1,1,16]> y = conv(x = x, weight = x, pad_type = string(\"same\"));\n", "y"), 5,
     "conv y: a kernel of width 16, but it may have 15"},
    {KILN_SIM_CONV_BIAS, NULL, MIL_CALL("tensor<fp16, [1,1,1,16]> x",
     "tensor<fp16, [1,1,1,1]> w = const()[val = tensor<fp16, [1,1,1,1]>([2])];\n"
     "tensor<fp16, [1,1,1,16]> y = conv(x = x, weight = w, bias = tensor<fp16, [1]>([1]));\n", "y"),
     6, "conv y: a bias"},
    {KILN_SIM_DYNAMIC_CONV_BATCH, NULL, MIL_CALL("tensor<fp16, [16,16,1,16]> x",
     "tensor<fp16, [16,16,1,1]> w = reduce_max(x = x, axes = tensor<int32, [1]>([-1]), keep_dims = "
     "bool(true));\ntensor<fp16, [16,16,1,16]> y = " CONV("w") ";\n", "y"), 6,
     "conv y: a batch of 16 with computed weights"},
    {KILN_SIM_DYNAMIC_CONV_GROUPS, NULL, MIL_CALL("tensor<fp16, [1,16,1,16]> x",
     "tensor<fp16, [1,16,1,1]> r = reduce_max(x = x, axes = tensor<int32, [1]>([-1]), keep_dims = "
     "bool(true));\ntensor<fp16, [16,1,1,1]> w = transpose(x = r, perm = tensor<int32, [4]>([1,0,2,"
     "3]));\n" ONE "conv(x = x, weight = w, groups = int32(16));\n", "y"), 7,
     "conv y: 16 groups with computed weights"},
    {KILN_SIM_MATMUL_FLAGS, NULL, MIL_CALL("tensor<fp16, [16,16]> x",
     "tensor<fp16, [16,16]> y = matmul(x = x, y = x, transpose_x = bool(false));\n", "y"), 5,
     "matmul y: a transpose flag is a literal"},
    {KILN_SIM_MATMUL_INNER, "matmul-inner=32", MIL_CALL("tensor<fp16, [16,16]> x",
     "tensor<fp16, [16,16]> y = matmul(x = x, y = x);\n", "y"), 5, "matmul y: an inner axis of 16"},
    {KILN_SIM_ATTENTION_MASK, NULL, MIL_CALL("tensor<fp16, [1,1,16,16]> x",
     "tensor<fp16, [1,1,16,16]> y = scaled_dot_product_attention(query = x, key = x, value = x, "
     "attn_mask = x);\n", "y"), 5, "scaled_dot_product_attention y: a mask"},
    {KILN_SIM_CONCAT_INPUTS, "concat-inputs=2", MIL_CALL("tensor<fp16, [16]> x",
     "tensor<fp16, [48]> y = concat(values = (x, x, x), axis = int32(0));\n", "y"), 5,
     "concat y: 3 values, but it may take 2"},
    {KILN_SIM_NO_CONCAT, "no-concat=on", MIL_CALL("tensor<fp16, [16]> x",
     "tensor<fp16, [32]> y = concat(values = (x, x), axis = int32(0));\n", "y"), 5, "concat y:"},
    {KILN_SIM_UNSUPPORTED, NULL, MIL_CALL(X, ONE "gelu(x = x, mode = string(\"EXACT\"));\n", "y"), 5,
     "gelu y:"},
    {KILN_SIM_UNSUPPORTED, NULL, MIL_CALL(X, ONE "log(x = x);\n", "y"), 5, "log y:"},
    {KILN_SIM_UNSUPPORTED, NULL, MIL_CALL(X, ONE "layer_norm(x = x);\n", "y"), 5, "layer_norm y:"},
    {KILN_SIM_UNSUPPORTED, NULL, MIL_CALL("tensor<fp16, [32]> x",
     "tensor<fp16, [16]> a, tensor<fp16, [16]> b = split(x = x, axis = int32(0));\n", "a, b"), 5,
     "split a:"},
    {KILN_SIM_UNSUPPORTED, NULL, MIL_CALL(X, ONE "select(cond = bool(true), a = x, b = x);\n", "y"),
     5, "select y:"},
    {KILN_SIM_ROOT_AFTER_REDUCE, NULL, MIL_CALL("tensor<fp16, [16,16]> x",
     "tensor<fp16, [16]> r = reduce_sum(x = x, axes = tensor<int32, [1]>([0]));\n"
     "tensor<fp16, [16]> y = rsqrt(x = r);\n", "y"), 6, "rsqrt y: it follows a reduction"},
    {KILN_SIM_REDUCE_TIMES_ZERO, NULL, MIL_CALL("tensor<fp16, [16,16]> x",
     "tensor<fp16, [16]> r = reduce_mean(x = x, axes = tensor<int32, [1]>([0]));\n"
     "tensor<fp16, [16]> y = mul(x = fp16(0), y = r);\n", "y"), 6, "mul y: the result of a"},
    {KILN_SIM_SOFTMAX_POWER_OF_TWO, "softmax-power-of-two=on", MIL_CALL("tensor<fp16, [48]> x",
     "tensor<fp16, [48]> y = softmax(x = x);\n", "y"), 5, "softmax y: an axis of 48"},
    {KILN_SIM_SLICED_INPUT, "sliced-input=on", MIL_CALL("tensor<fp16, [32]> x",
     "tensor<fp16, [16]> y = slice_by_index(x = x, begin = tensor<int32, [1]>([0]), end = "
     "tensor<int32, [1]>([16]));\n", "y"), 5, "slice_by_index y: it reads the input x"},
};
/* clang-format on */
enum { N_VIOLATIONS = sizeof violations / sizeof violations[0] };

static enum kiln_status check(const struct kiln_mil_graph *graph,
                              const struct kiln_sim_limits *limits, enum kiln_sim_limit *limit,
                              struct kiln_err *err) {
    return kiln_sim_check(graph, "p.mil", limits, limit, err);
}

static void check_violation(const struct violation *v) {
    struct kiln_sim_limits limits;
    struct kiln_mil_graph graph;
    enum kiln_sim_limit limit;
    struct kiln_err err;
    char place[64];
    kiln_sim_limits_default(&limits);
    if (v->setting != NULL) {
        CHECK_OK(kiln_sim_limits_set(&limits, v->setting, &err), &err);
    }
    mil_read(v->text, NULL, 0, &graph);
    CHECK_FAILS(check(&graph, &limits, &limit, &err), KILN_EINPUT, &err);
    CHECK_STRING(kiln_sim_limit_name(limit), kiln_sim_limit_name(v->limit));
    snprintf(place, sizeof place, "p.mil:%d:", v->line);
    CHECK_CONTAINS(err.message, place);
    snprintf(place, sizeof place, ": limit %s: ", kiln_sim_limit_name(v->limit));
    CHECK_CONTAINS(err.message, place);
    CHECK_CONTAINS(err.message, v->words);
    limits.value[v->limit] = 0;
    CHECK_OK(check(&graph, &limits, &limit, &err), &err);
    CHECK_EQ(limit, KILN_SIM_LIMIT_COUNT);
    kiln_mil_close(&graph);
}

TEST(each_limit_refuses_its_program_and_no_other_does) {
    for (size_t i = 0; i < N_VIOLATIONS; i++) {
        check_violation(&violations[i]);
    }
}

/* Limits that are not in the table above: the budgets, which the runtime holds, and those that the
 * tests below have. */
static bool elsewhere(enum kiln_sim_limit limit) {
    return limit == KILN_SIM_COMPILE_BUDGET || limit == KILN_SIM_LOAD_BUDGET ||
           limit == KILN_SIM_EQUAL_SURFACES || limit == KILN_SIM_ASCENDING_INPUTS ||
           limit == KILN_SIM_SMALLEST_SURFACE || limit == KILN_SIM_BLOB_OFFSET ||
           limit == KILN_SIM_ONE_BLOB;
}

TEST(no_limit_is_without_a_program_that_violates_it) {
    for (enum kiln_sim_limit limit = 0; limit < KILN_SIM_LIMIT_COUNT; limit++) {
        bool found = elsewhere(limit);
        for (size_t i = 0; i < N_VIOLATIONS; i++) {
            found |= violations[i].limit == limit;
        }
        if (!found) {
            FAIL("no program violates %s", kiln_sim_limit_name(limit));
        }
    }
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Blobs of one number at 64 and at 192. */
static const void *two_blobs(void *context, const char *path, size_t *bytes) {
    static uint64_t file[41];
    (void)context, (void)path;
    memset(file, 0, sizeof file);
    kiln_blob_begin(file, 1);
    memcpy(file + 24, file + 8, 64);
    file[24 + 2] = 256;
    *bytes = 258;
    return file;
}

#define NUMBER_AT(name, offset)                                                      \
    "tensor<fp16, [1]> " name                                                        \
    " = const()[val = tensor<fp16, [1]>(BLOBFILE(path = string(\"@model_path/w\"), " \
    "offset = uint64(" offset ")))];\n"

static void read_two(const char *text, struct kiln_mil_graph *graph) {
    struct kiln_err err;
    CHECK_OK(kiln_mil_parse("p.mil", text, strlen(text), two_blobs, NULL, graph, &err), &err);
}

TEST(the_first_blob_of_a_file_is_at_its_offset) {
    struct kiln_sim_limits limits;
    struct kiln_mil_graph graph;
    enum kiln_sim_limit limit;
    struct kiln_err err;
    kiln_sim_limits_default(&limits);
    read_two(MIL_CALL(X, NUMBER_AT("w", "192") LAST, "y"), &graph);
    CHECK_FAILS(check(&graph, &limits, &limit, &err), KILN_EINPUT, &err);
    CHECK_EQ(limit, KILN_SIM_BLOB_OFFSET);
    CHECK_CONTAINS(err.message,
                   "p.mil:5:19: limit blob-offset: const w: the first blob of "
                   "@model_path/w is at offset 192, but must be at 64");
    CHECK_OK(kiln_sim_limits_set(&limits, "blob-offset=off", &err), &err);
    CHECK_OK(check(&graph, &limits, &limit, &err), &err);
    kiln_mil_close(&graph);
}

TEST(a_file_of_two_blobs_is_refused_where_that_is_a_limit) {
    struct kiln_sim_limits limits;
    struct kiln_mil_graph graph;
    enum kiln_sim_limit limit;
    struct kiln_err err;
    kiln_sim_limits_default(&limits);
    read_two(MIL_CALL(X, NUMBER_AT("v", "64") NUMBER_AT("w", "192") LAST, "y"), &graph);
    CHECK_OK(check(&graph, &limits, &limit, &err), &err);
    CHECK_OK(kiln_sim_limits_set(&limits, "one-blob=on", &err), &err);
    CHECK_FAILS(check(&graph, &limits, &limit, &err), KILN_EINPUT, &err);
    CHECK_EQ(limit, KILN_SIM_ONE_BLOB);
    CHECK_CONTAINS(err.message, "p.mil:5:19: limit one-blob: const v");
    kiln_mil_close(&graph);
}

/* ---- surfaces ------------------------------------------------------------------------------- */

static const char two_and_two[] =
    MIL_CALL("tensor<fp16, [16]> a, tensor<fp16, [32]> b",
             "tensor<fp16, [16]> c = exp(x = a);\ntensor<fp16, [32]> d = exp(x = b);\n", "c, d");

/* Load with these surfaces; NULL words: it must succeed. */
static void load(const char *setting, const size_t bytes[4], enum kiln_sim_limit want,
                 const char *words) {
    struct kiln_sim_limits limits;
    struct kiln_mil_graph graph;
    enum kiln_sim_limit limit;
    struct kiln_err err;
    kiln_sim_limits_default(&limits);
    if (setting != NULL) {
        CHECK_OK(kiln_sim_limits_set(&limits, setting, &err), &err);
    }
    mil_read(two_and_two, NULL, 0, &graph);
    const enum kiln_status status =
        kiln_sim_check_surfaces(&graph, "p.mil", bytes, 2, bytes + 2, 2, &limits, &limit, &err);
    if (words == NULL) {
        CHECK_OK(status, &err);
    } else {
        CHECK_FAILS(status, KILN_EINPUT, &err);
        CHECK_CONTAINS(err.message, words);
    }
    CHECK_EQ(limit, want);
    kiln_mil_close(&graph);
}

TEST(surfaces_have_one_size_and_a_floor) {
    const size_t K = 49152, none = KILN_SIM_LIMIT_COUNT;
    load(NULL, (size_t[]){K, K, 2 * K, 2 * K}, none, NULL);
    load(NULL, (size_t[]){K, 2 * K, K, K}, KILN_SIM_EQUAL_SURFACES,
         "p.mil:4:59: limit equal-surfaces: the surface of input b has 98304 bytes behind one of "
         "49152");
    load(NULL, (size_t[]){K, K, 2 * K, K}, KILN_SIM_EQUAL_SURFACES, "output d");
    load("equal-surfaces=off", (size_t[]){K, 2 * K, 3 * K, K}, none, NULL);
    load(NULL, (size_t[]){K - 1, K, K, K}, KILN_SIM_SMALLEST_SURFACE,
         "p.mil:4:37: limit smallest-surface: the surface of input a has 49151 bytes");
    load("smallest-surface=off", (size_t[]){64, 64, 64, 64}, none, NULL);
    load("smallest-surface=off", (size_t[]){64, 63, 64, 64}, none,
         "the surface of input b has 63 bytes, but its tensor has 64");
}

TEST(surfaces_ascend_and_descend_where_that_is_a_limit) {
    const size_t K = 49152, none = KILN_SIM_LIMIT_COUNT;
    load("ascending-inputs=on", (size_t[]){K, 2 * K, 2 * K, K}, none, NULL);
    load("ascending-inputs=on", (size_t[]){K, K, 2 * K, K}, KILN_SIM_ASCENDING_INPUTS,
         "input b has 49152 bytes behind one of 49152; sizes must ascend");
    load("ascending-inputs=on", (size_t[]){K, 2 * K, K, K}, KILN_SIM_ASCENDING_INPUTS,
         "sizes must descend");
}

TEST(the_number_of_surfaces_is_that_of_the_program) {
    const size_t bytes[] = {49152, 49152, 49152};
    struct kiln_sim_limits limits;
    struct kiln_mil_graph graph;
    struct kiln_err err;
    kiln_sim_limits_default(&limits);
    mil_read(two_and_two, NULL, 0, &graph);
    CHECK_FAILS(kiln_sim_check_surfaces(&graph, "p.mil", bytes, 1, bytes, 2, &limits, NULL, &err),
                KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "has 2 inputs and 2 outputs, but surfaces were given for 1 and 2");
    kiln_mil_close(&graph);
}

/* ---- names and values ----------------------------------------------------------------------- */

TEST(limits_are_set_by_name) {
    struct kiln_sim_limits limits;
    struct kiln_err err;
    kiln_sim_limits_default(&limits);
    CHECK_EQ(limits.value[KILN_SIM_COMPILE_BUDGET], 119);
    CHECK_EQ(limits.value[KILN_SIM_NO_CONCAT], 0);
    CHECK_OK(kiln_sim_limits_set(&limits, "compile-budget=8", &err), &err);
    CHECK_EQ(limits.value[KILN_SIM_COMPILE_BUDGET], 8);
    CHECK_OK(kiln_sim_limits_set(&limits, "compile-budget=on", &err), &err);
    CHECK_EQ(limits.value[KILN_SIM_COMPILE_BUDGET], 119);
    CHECK_OK(kiln_sim_limits_set(&limits, "no-concat=on", &err), &err);
    CHECK_EQ(limits.value[KILN_SIM_NO_CONCAT], 1);
    CHECK_OK(kiln_sim_limits_set(&limits, "rank=off", &err), &err);
    CHECK_EQ(limits.value[KILN_SIM_RANK], 0);
    CHECK_FAILS(kiln_sim_limits_set(&limits, "rank", &err), KILN_EUSAGE, &err);
    CHECK_FAILS(kiln_sim_limits_set(&limits, "rank=", &err), KILN_EUSAGE, &err);
    CHECK_FAILS(kiln_sim_limits_set(&limits, "rank=-1", &err), KILN_EUSAGE, &err);
    CHECK_FAILS(kiln_sim_limits_set(&limits, "rank=18446744073709551616", &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "axes of a tensor, at most");
    CHECK_FAILS(kiln_sim_limits_set(&limits, "ran=1", &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "unknown");
    CHECK_CONTAINS(err.message, " compile-budget load-budget");
    CHECK_CONTAINS(err.message, " sliced-input");
    CHECK_EQ(limits.value[KILN_SIM_RANK], 0);
}

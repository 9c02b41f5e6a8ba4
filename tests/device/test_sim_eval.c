/* SPDX-License-Identifier: MIT
 *
 * The interpreter's numbers (src/device/sim/eval.h): programs with known answers, and every
 * elementwise operation, reduction and product against plain loops in double.
 */
#include <math.h>
#include <string.h>

#include "device/sim/eval_math.h"
#include "device/sim_lab.h"

#define ROW(n)      "tensor<fp16, [1,1,1," #n "]>"
#define SAME(op, n) ROW(n) " y = " op "(x = x)" NAMED("y") ";\n"

/* ---- known answers -------------------------------------------------------------------------- */

TEST(sim_rounds_to_fp16_behind_every_operation) {
    float x[16] = {2048, 300, 0x1p-24f, 65504}, y[16];
    sim_run_one(
        MIL_CALL(ROW(16) " x",
                 FP16("one", "1") FP16("big", "2048") ROW(16) " a = add(x = x, y = one)" NAMED(
                     "a") ";\n" ROW(16) " y = sub(x = a, y = big)" NAMED("y") ";\n",
                 "y"),
        x, y);
    CHECK(y[0] == 0.0f); /* 2049 is not a number of fp16 */
    sim_run_one(MIL_CALL(ROW(16) " x", ROW(16) " y = mul(x = x, y = x)" NAMED("y") ";\n", "y"), x,
                y);
    CHECK(isinf(y[1]) && y[1] > 0.0f); /* 90000 */
    CHECK(y[2] == 0.0f);
    sim_run_one(
        MIL_CALL(ROW(16) " x",
                 FP16("half", "0.5") ROW(16) " y = mul(x = x, y = half)" NAMED("y") ";\n", "y"),
        x, y);
    CHECK(y[2] == 0.0f); /* half of the smallest number is a tie with the even 0 */
    CHECK(y[3] == 32752.0f);
}

/* 4096 ones, a half and minus 4096: sums are wider than fp16 and rounded once. */
TEST(sim_a_convolution_rounds_once) {
    enum { N = 4098, WIDTH = 16 };
    float *w = sim_zeros(N), *x = sim_zeros(N * WIDTH), y[WIDTH];
    for (size_t i = 0; i < N; i++) {
        w[i] = i < 4096 ? 1.0f : i == 4096 ? 0.5f : -4096.0f;
    }
    for (size_t i = 0; i < N * WIDTH; i++) {
        x[i] = 1.0f;
    }
    const char *text =
        sim_text(MIL_CALL("tensor<fp16, [1,4098,1,16]> x",
                          "tensor<fp16, [1,4098,1,1]> w = const()[name = string(\"w\"), val = "
                          "tensor<fp16, [1,4098,1,1]>([%s])];\n" ROW(
                              16) " y = conv(x = x, weight = w)" NAMED("y") ";\n",
                          "y"),
                 sim_list(w, N));
    sim_run_one(text, x, y);
    for (size_t i = 0; i < WIDTH; i++) {
        CHECK(y[i] == 0.5f);
    }
}

TEST(sim_a_matmul_beyond_its_limit_is_infinite) {
    float x[4] = {32752, 32768, -40000, -100}, y[4];
    const char *text = MIL_CALL("tensor<fp16, [4,1]> x",
                                "tensor<fp16, [1,1]> one = const()[name = string(\"one\"), val = "
                                "tensor<fp16, [1,1]>([1])];\n" FLAG("no", "false")
                                "tensor<fp16, [4,1]> y = matmul(x = x, y = one, transpose_x = no, "
                                "transpose_y = no)" NAMED("y") ";\n", "y");
    sim_run_one(text, x, y);
    CHECK(y[0] == 32752.0f && y[1] == INFINITY && y[2] == -INFINITY && y[3] == -100.0f);
    struct kiln_sim_numbers numbers = sim_numbers;
    numbers.matmul_limit = 0.0f;
    sim_run_on(1, &numbers, text, (float *const[]){x}, (float *const[]){y});
    CHECK(y[1] == 32768.0f && y[2] == -40000.0f);
}

TEST(sim_what_is_not_a_number_follows_its_rule) {
    const char *text =
        MIL_CALL(ROW(16) " x", ROW(16) " y = sub(x = x, y = x)" NAMED("y") ";\n", "y");
    float x[16] = {INFINITY, 1}, y[16];
    struct kiln_sim_numbers numbers = sim_numbers;
    sim_run_one(text, x, y);
    CHECK(y[0] == INFINITY && y[1] == 0.0f);
    numbers.nan = KILN_SIM_NAN_ZERO;
    sim_run_on(1, &numbers, text, (float *const[]){x}, (float *const[]){y});
    CHECK(y[0] == 0.0f);
    numbers.nan = KILN_SIM_NAN_KEEP;
    sim_run_on(1, &numbers, text, (float *const[]){x}, (float *const[]){y});
    CHECK(isnan(y[0]));
}

TEST(sim_an_infinite_factor_can_give_a_strange_product) {
    const char *text = MIL_CALL(
        ROW(16) " x", FP16("two", "2") ROW(16) " y = mul(x = x, y = two)" NAMED("y") ";\n", "y");
    float x[16] = {INFINITY, -INFINITY, 3}, y[16];
    struct kiln_sim_numbers numbers = sim_numbers;
    sim_run_one(text, x, y);
    CHECK(y[0] == INFINITY && y[1] == -INFINITY && y[2] == 6.0f);
    numbers.inf_product_quirk = true;
    sim_run_on(1, &numbers, text, (float *const[]){x}, (float *const[]){y});
    CHECK(y[0] == -52416.0f && y[1] == -INFINITY && y[2] == 6.0f);
}

TEST(sim_an_offset_slice_of_large_values_can_be_infinite) {
    const char *text = MIL_CALL("tensor<fp16, [1,2,1,4]> x",
                                INTS("b", 4, "0,0,0,1") INTS("s", 4, "1,2,1,3")
                                "tensor<fp16, [1,2,1,3]> y = slice_by_size(x = x, begin = b, "
                                "size = s)" NAMED("y") ";\n", "y");
    float x[8] = {5000, 4094, 4096, -5000, 1, 2, 3, 4}, y[6];
    struct kiln_sim_numbers numbers = sim_numbers;
    sim_run_one(text, x, y);
    CHECK(y[0] == 4094.0f && y[1] == 4096.0f && y[2] == -5000.0f && y[5] == 4.0f);
    numbers.slice_limit = 4094.0f;
    sim_run_on(1, &numbers, text, (float *const[]){x}, (float *const[]){y});
    CHECK(y[0] == 4094.0f && y[1] == INFINITY && y[2] == -INFINITY && y[5] == 4.0f);
}

/* The mask that programs use is the lowest number, not minus infinity. */
TEST(sim_softmax_takes_a_mask_of_the_lowest_number) {
    float x[16], y[16];
    for (size_t i = 0; i < 16; i++) {
        x[i] = i < 2 ? 1.0f : -3.0f;
    }
    const char *mask =
        "0,0,-65504,-65504,-65504,-65504,-65504,-65504,-65504,-65504,-65504,-65504,"
        "-65504,-65504,-65504,-65504";
    sim_run_one(sim_text(MIL_CALL(ROW(16) " x",
                                  ROW(16) " m = const()[name = string(\"m\"), val = " ROW(
                                      16) "([%s])];\n" INT("last", "-1")
                                      ROW(16) " a = add(x = x, y = m)" NAMED("a") ";\n" ROW(
                                          16) " y = softmax(x = a, axis = last)" NAMED("y") ";\n",
                                  "y"),
                         mask),
                x, y);
    for (size_t i = 0; i < 16; i++) {
        CHECK(y[i] == (i < 2 ? 0.5f : 0.0f));
    }
}

/* ---- element by element --------------------------------------------------------------------- */

static double silu(double x) { return x / (1.0 + exp(-x)); }
static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
static double relu(double x) { return x > 0.0 ? x : 0.0; }
static double gelu(double x) { return x * 0.5 * (1.0 + erf(x / sqrt(2.0))); }
static double inverse_root(double x) { return 1.0 / sqrt(x); }
static double same(double x) { return x; }

static void check_unary(const char *op, double (*want)(double), bool positive) {
    enum { N = 9000 }; /* more than a task takes, and no multiple of a vector */
    float *x = sim_values(N, 4.0f), *y = sim_zeros(N);
    for (size_t i = 0; i < N && positive; i++) {
        x[i] = fabsf(x[i]) + 0.0078125f;
        x[i] = sim_half((double)x[i]);
    }
    sim_run_one(sim_text(MIL_CALL("tensor<fp16, [1,3,1,3000]> x",
                                  "tensor<fp16, [1,3,1,3000]> y = %s(x = x)" NAMED("y") ";\n", "y"),
                         op),
                x, y);
    for (size_t i = 0; i < N; i++) {
        sim_close(op, i, (double)y[i], want((double)x[i]), 0.02);
    }
}

TEST(sim_functions_of_one_value_are_right) {
    check_unary("exp", exp, false);
    check_unary("sigmoid", sigmoid, false);
    check_unary("silu", silu, false);
    check_unary("tanh", tanh, false);
    check_unary("relu", relu, false);
    check_unary("identity", same, false);
    check_unary("log", log, true);
    check_unary("sqrt", sqrt, true);
    check_unary("rsqrt", inverse_root, true);
    const char *text =
        MIL_CALL("tensor<fp16, [1,1,1,16]> x",
                 "string mode = const()[name = string(\"mode\"), val = string(\"EXACT\")];\n"
                 "tensor<fp16, [1,1,1,16]> y = gelu(x = x, mode = mode)" NAMED("y") ";\n",
                 "y");
    float *x = sim_values(16, 2.0f), y[16];
    sim_run_one(text, x, y);
    for (size_t i = 0; i < 16; i++) {
        sim_close("gelu", i, (double)y[i], gelu((double)x[i]), 0.05);
    }
}

TEST(sim_functions_hold_at_the_ends_of_fp16) {
    float x[16] = {65504, -65504, INFINITY, -INFINITY, 0x1p-24f, -0x1p-24f, 0, 11.1f}, y[16];
    sim_run_one(MIL_CALL(ROW(16) " x", SAME("exp", 16), "y"), x, y);
    CHECK(y[0] == INFINITY && y[1] == 0 && y[2] == INFINITY && y[3] == 0 && y[6] == 1.0f);
    sim_run_one(MIL_CALL(ROW(16) " x", SAME("sigmoid", 16), "y"), x, y);
    CHECK(y[0] == 1 && y[1] == 0 && y[2] == 1 && y[3] == 0 && y[6] == 0.5f);
    sim_run_one(MIL_CALL(ROW(16) " x", SAME("silu", 16), "y"), x, y);
    CHECK(y[0] == 65504 && y[1] == 0 && y[2] == INFINITY && y[3] == 0 && y[6] == 0);
    sim_run_one(MIL_CALL(ROW(16) " x", SAME("tanh", 16), "y"), x, y);
    CHECK(y[0] == 1 && y[1] == -1 && y[4] == 0x1p-24f && y[5] == -0x1p-24f);
}

/* Far below what fp16 rounds, over all of fp32's range. */
TEST(sim_exp_is_within_3_units_of_fp32) {
    double worst = 0.0;
    for (int i = 0; i <= 2000000; i++) {
        float x = -87.3f + 176.0f * (float)i / 2e6f;
        double want = exp((double)x);
        if (want < 3.4e38) {
            double unit = ldexp(1.0, ilogb(want) - 23);
            worst = fmax(worst, fabs((double)kiln_sim_exp(x) - want) / unit);
        }
    }
    CHECK_CLOSE(worst, 0.0, 3.0);
    CHECK(worst > 0.5); /* it is measured at all */
    CHECK(kiln_sim_exp(89.0f) == INFINITY && kiln_sim_exp(INFINITY) == INFINITY);
    CHECK(kiln_sim_exp(-200.0f) == 0.0f && kiln_sim_exp(-INFINITY) == 0.0f);
    CHECK(kiln_sim_exp(0.0f) == 1.0f && isnan(kiln_sim_exp(NAN)));
}

static double divide(double a, double b) { return a / b; }
static double add(double a, double b) { return a + b; }
static double sub(double a, double b) { return a - b; }
static double mul(double a, double b) { return a * b; }

/* Shapes that meet every way of broadcasting: [2,3,1,20] with each of these. */
static void check_binary(const char *op, double (*want)(double, double)) {
    static const size_t shapes[][4] = {{2, 3, 1, 20}, {1, 3, 1, 1}, {1, 1, 1, 20}, {2, 1, 1, 20},
                                       {2, 3, 1, 1},  {1, 1, 1, 1}, {2, 1, 5, 1},  {1, 3, 5, 20}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const size_t *d = shapes[s];
        size_t rows = d[2];
        float *x = sim_values(120, 1.0f), *y = sim_values(300, 1.0f), *z = sim_zeros(600);
        for (size_t i = 0; i < 300; i++) {
            y[i] = fabsf(y[i]) + 0.5f;
            y[i] = sim_half((double)y[i]);
            x[i % 120] = strcmp(op, "pow") == 0 ? sim_half(fabs((double)x[i % 120])) : x[i % 120];
        }
        const char *text = sim_text(
            MIL_CALL("tensor<fp16, [2,3,1,20]> x, tensor<fp16, [%zu,%zu,%zu,%zu]> y",
                     "tensor<fp16, [2,3,%zu,20]> z = %s(x = x, y = y)" NAMED("z") ";\n", "z"),
            d[0], d[1], d[2], d[3], rows, op);
        sim_run(text, (float *const[]){x, y}, (float *const[]){z});
        for (size_t i = 0; i < 6 * rows * 20; i++) {
            size_t c[4] = {i / (60 * rows), i / (20 * rows) % 3, i / 20 % rows, i % 20};
            size_t at = 0;
            for (size_t k = 0; k < 4; k++) {
                at = at * d[k] + (d[k] == 1 ? 0 : c[k]);
            }
            double a = (double)x[(c[0] * 3 + c[1]) * 20 + c[3]], b = (double)y[at];
            sim_close(op, i, (double)z[i], want(a, b), 0.01);
        }
    }
}

TEST(sim_functions_of_two_values_broadcast) {
    check_binary("add", add);
    check_binary("sub", sub);
    check_binary("mul", mul);
    check_binary("real_div", divide);
    check_binary("pow", pow);
    check_binary("maximum", fmax);
    check_binary("minimum", fmin);
}

TEST(sim_integers_and_choices) {
    float x[16] = {-3.5f, 2.5f, 300, -300, 1, 0, 1.5f, 0.5f}, y[16], z[16], u[16];
    sim_run_one(
        MIL_CALL(ROW(16) " x",
                 "string kind = const()[name = string(\"kind\"), val = string(\"int32\")];\n"
                 "tensor<int32, [1,1,1,16]> y = cast(x = x, dtype = kind)" NAMED("y") ";\n",
                 "y"),
        x, y);
    CHECK(y[0] == -3 && y[1] == 2 && y[2] == 300 && y[3] == -300);
    const char *text = MIL_CALL(
        ROW(16) " x",
        FP16("scale", "0.5")
        "int8 zero = const()[name = string(\"zero\"), val = int8(10)];\n"
        "string kind = const()[name = string(\"kind\"), val = string(\"int8\")];\n"
        "string truth = const()[name = string(\"truth\"), val = string(\"bool\")];\n"
        "tensor<int8, [1,1,1,16]> y = quantize(input = x, scale = scale, zero_point = zero, "
        "output_dtype = kind)" NAMED("y") ";\n"
        ROW(16) " z = dequantize(input = y, scale = scale, zero_point = zero)" NAMED("z") ";\n"
        "tensor<bool, [1,1,1,16]> c = cast(x = x, dtype = truth)" NAMED("c") ";\n"
        ROW(16) " u = select(cond = c, a = z, b = scale)" NAMED("u") ";\n", "y, z, u");
    sim_run(text, (float *const[]){x}, (float *const[]){y, z, u});
    CHECK(y[0] == 3 && y[1] == 15 && y[2] == 127 && y[3] == -128 && y[7] == 11);
    CHECK(z[0] == -3.5f && z[2] == 58.5f && z[3] == -69.0f);
    CHECK(u[0] == -3.5f && u[5] == 0.5f && u[6] == 1.5f);
}

/* ---- along axes ----------------------------------------------------------------------------- */

enum { A = 3, B = 70, C = 5, D = 33, ALL = A * B * C * D };

/* What op gives over the axes in `axes`, for the element whose kept coordinates are k's. */
static double reduced(const char *op, const float *x, unsigned axes, const size_t k[4]) {
    double sum = 0.0, top = (double)-INFINITY;
    size_t n = 0;
    for (size_t i = 0; i < ALL; i++) {
        size_t c[4] = {i / (B * C * D), i / (C * D) % B, i / D % C, i % D};
        bool in = true;
        for (size_t j = 0; j < 4; j++) {
            in &= (axes >> j & 1) || c[j] == k[j];
        }
        if (in) {
            sum += (double)x[i];
            top = fmax(top, (double)x[i]);
            n++;
        }
    }
    return strcmp(op, "reduce_max") == 0    ? top
           : strcmp(op, "reduce_mean") == 0 ? sum / (double)n
                                            : sum;
}

static void check_reduce(const char *op, const char *list, unsigned n_axes, unsigned axes) {
    const size_t dims[4] = {A, B, C, D};
    size_t d[4], n = 1;
    for (size_t j = 0; j < 4; j++) {
        d[j] = axes >> j & 1 ? 1 : dims[j];
        n *= d[j];
    }
    float *x = sim_values(ALL, 0.5f), *y = sim_zeros(n);
    const char *type = sim_text("tensor<fp16, [%zu,%zu,%zu,%zu]>", d[0], d[1], d[2], d[3]);
    sim_run_one(
        sim_text(
            MIL_CALL("tensor<fp16, [3,70,5,33]> x",
                     "tensor<int32, [%u]> axes = const()[name = string(\"axes\"), val "
                     "= tensor<int32, [%u]>([%s])];\n" FLAG(
                         "keep",
                         "true") "%s y = %s(x = x, axes = axes, keep_dims = keep)" NAMED("y") ";\n",
                     "y"),
            n_axes, n_axes, list, type, op),
        x, y);
    for (size_t i = 0; i<n; i += n> 100 ? n / 97 : 1) {
        size_t k[4] = {i / (d[1] * d[2] * d[3]), i / (d[2] * d[3]) % d[1], i / d[3] % d[2],
                       i % d[3]};
        sim_close(op, i, (double)y[i], reduced(op, x, axes, k), 0.01);
    }
}

TEST(sim_reductions_over_any_axes) {
    static const char *const ops[] = {"reduce_sum", "reduce_mean", "reduce_max"};
    for (size_t i = 0; i < 3; i++) {
        check_reduce(ops[i], "3", 1, 8);
        check_reduce(ops[i], "1", 1, 2);
        check_reduce(ops[i], "0", 1, 1);
        check_reduce(ops[i], "1,2", 2, 6);
        check_reduce(ops[i], "1,3", 2, 10);
        check_reduce(ops[i], "0,1,2,3", 4, 15);
    }
}

/* softmax along an axis: x and y are [outer, n, inner]. */
static void check_softmax(const char *axis, size_t outer, size_t n, size_t inner) {
    float *x = sim_values(ALL, 3.0f), *y = sim_zeros(ALL);
    sim_run_one(sim_text(MIL_CALL("tensor<fp16, [3,70,5,33]> x",
                                  "int32 axis = const()[name = string(\"axis\"), val = "
                                  "int32(%s)];\ntensor<fp16, [3,70,5,33]> y = softmax(x = x, axis "
                                  "= axis)" NAMED("y") ";\n",
                                  "y"),
                         axis),
                x, y);
    for (size_t o = 0; o < outer; o++) {
        for (size_t j = 0; j < inner; j++) {
            double total = 0.0;
            for (size_t i = 0; i < n; i++) {
                total += exp((double)x[(o * n + i) * inner + j]);
            }
            for (size_t i = 0; i < n; i++) {
                size_t at = (o * n + i) * inner + j;
                sim_close("softmax", at, (double)y[at], exp((double)x[at]) / total, 0.01);
            }
        }
    }
}

TEST(sim_softmax_along_any_axis) {
    check_softmax("-1", A * B * C, D, 1);
    check_softmax("2", A * B, C, D);
    check_softmax("1", A, B, C * D);
    check_softmax("0", 1, A, B * C * D);
}

TEST(sim_layer_norm_over_channels) {
    enum { N = 6, WIDTH = 16 };
    float *x = sim_values(N * WIDTH, 2.0f), y[N * WIDTH];
    const float gamma[N] = {1, 2, 0.5f, -1, 1, 3}, beta[N] = {0, 1, -1, 0, 0.5f, 0};
    sim_run_one(
        sim_text(
            MIL_CALL(
                "tensor<fp16, [1,6,1,16]> x",
                INTS(
                    "axes", 1,
                    "1") "tensor<fp16, [6]> g = const()[name = string(\"g\"), val = "
                         "tensor<fp16, [6]>([%s])];\n"
                         "tensor<fp16, [6]> b = const()[name = string(\"b\"), val = "
                         "tensor<fp16, [6]>([%s])];\n" FP16(
                             "eps",
                             "0.001") "tensor<fp16, [1,6,1,16]> y = layer_norm(x = x, axes = axes, "
                                      "gamma = g, beta = b, epsilon = eps)" NAMED("y") ";\n",
                "y"),
            sim_list(gamma, N), sim_list(beta, N)),
        x, y);
    for (size_t t = 0; t < WIDTH; t++) {
        double mean = 0.0, variance = 0.0;
        for (size_t c = 0; c < N; c++) {
            mean += (double)x[c * WIDTH + t] / N;
        }
        for (size_t c = 0; c < N; c++) {
            variance += pow((double)x[c * WIDTH + t] - mean, 2.0) / N;
        }
        for (size_t c = 0; c < N; c++) {
            double want =
                ((double)x[c * WIDTH + t] - mean) / sqrt(variance + 0.001) * (double)gamma[c] +
                (double)beta[c];
            sim_close("layer_norm", c * WIDTH + t, (double)y[c * WIDTH + t], want, 0.05);
        }
    }
}

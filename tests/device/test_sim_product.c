/* SPDX-License-Identifier: MIT
 *
 * Products and layouts of the interpreter (src/device/sim/eval.h) against plain loops, and what
 * may not change results: threads, and where values lie.
 */
#include <math.h>
#include <string.h>

#include "device/sim_lab.h"

/* ---- convolutions --------------------------------------------------------------------------- */

struct shape {
    size_t n, in, out, groups;
    size_t size[2], kernel[2], stride[2], dilation[2], pad[4]; /* pad: top, bottom, left, right */
};

static size_t result(const struct shape *s, size_t i) {
    size_t span = (s->kernel[i] - 1) * s->dilation[i] + 1;
    return (s->size[i] + s->pad[2 * i] + s->pad[2 * i + 1] - span) / s->stride[i] + 1;
}

static double conv_at(const struct shape *s, const float *x, const float *w, size_t n, size_t o,
                      size_t row, size_t column) {
    size_t per_group = s->in / s->groups, first = o / (s->out / s->groups) * per_group;
    double sum = 0.0;
    for (size_t i = 0; i < per_group; i++) {
        for (size_t h = 0; h < s->kernel[0]; h++) {
            for (size_t v = 0; v < s->kernel[1]; v++) {
                long y = (long)(row * s->stride[0] + h * s->dilation[0]) - (long)s->pad[0];
                long z = (long)(column * s->stride[1] + v * s->dilation[1]) - (long)s->pad[2];
                if (y >= 0 && z >= 0 && y < (long)s->size[0] && z < (long)s->size[1]) {
                    size_t at = ((n * s->in + first + i) * s->size[0] + (size_t)y) * s->size[1];
                    size_t weight = ((o * per_group + i) * s->kernel[0] + h) * s->kernel[1] + v;
                    sum += (double)x[at + (size_t)z] * (double)w[weight];
                }
            }
        }
    }
    return sum;
}

static const char *conv_text(const struct shape *s, bool bias, const float *b) {
    const char *type = "tensor<fp16, [%zu,%zu,%zu,%zu]>";
    const char *x = sim_text(type, s->n, s->in, s->size[0], s->size[1]);
    const char *w = sim_text(type, s->out, s->in / s->groups, s->kernel[0], s->kernel[1]);
    const char *y = sim_text(type, s->n, s->out, result(s, 0), result(s, 1));
    const char *constant = bias ? sim_text(
                                      "tensor<fp16, [%zu]> b = const()[val = tensor<fp16, "
                                      "[%zu]>([%s])];\n",
                                      s->out, s->out, sim_list(b, s->out))
                                : "";
    const char *rest = sim_text(
        "string kind = const()[val = string(\"custom\")];\nint32 g = const()[val = "
        "int32(%zu)];\ntensor<int32, [2]> st = const()[val = tensor<int32, "
        "[2]>([%zu,%zu])];\ntensor<int32, [2]> di = const()[val = tensor<int32, "
        "[2]>([%zu,%zu])];\ntensor<int32, [4]> pa = const()[val = tensor<int32, "
        "[4]>([%zu,%zu,%zu,%zu])];\n",
        s->groups, s->stride[0], s->stride[1], s->dilation[0], s->dilation[1], s->pad[0], s->pad[1],
        s->pad[2], s->pad[3]);
    return sim_text(
        MIL_CALL("%s x, %s w",
                 "%s%s%s y = conv(x = x, weight = w, strides = st, pad_type = kind, pad "
                 "= pa, dilations = di, groups = g%s)" NAMED("y") ";\n",
                 "y"),
        x, w, constant, rest, y, bias ? ", bias = b" : "");
}

/* Sums of up to a hundred products of numbers near 1, in fp32: each addition rounds a partial sum
 * of at most 64, by 2^-19 at most; few of these errors have one sign. */
#define SUM_ERROR (16 * 0x1p-19)

static void check_conv(const struct shape *s, bool bias) {
    size_t rows = result(s, 0), columns = result(s, 1), n = s->n * s->out * rows * columns;
    float *x = sim_values(s->n * s->in * s->size[0] * s->size[1], 1.0f), *y = sim_zeros(n);
    float *w = sim_values(s->out * s->in / s->groups * s->kernel[0] * s->kernel[1], 1.0f);
    float *b = sim_values(s->out, 1.0f);
    sim_run(conv_text(s, bias, b), (float *const[]){x, w}, (float *const[]){y});
    for (size_t i = 0; i < n; i++) {
        size_t o = i / (rows * columns) % s->out;
        double want =
            conv_at(s, x, w, i / (s->out * rows * columns), o, i / columns % rows, i % columns);
        sim_near("conv", i, (double)y[i], want + (bias ? (double)b[o] : 0.0), SUM_ERROR);
    }
}

TEST(sim_convolutions_of_any_geometry) {
    struct shape one = {2, 37, 70, 1, {1, 75}, {1, 1}, {1, 1}, {1, 1}, {0, 0, 0, 0}};
    check_conv(&one, false);
    check_conv(&one, true);
    one.out = 3; /* few rows are summed elsewhere */
    check_conv(&one, false);
    struct shape wide = {1, 6, 4, 1, {5, 19}, {3, 5}, {1, 1}, {1, 1}, {0, 0, 0, 0}};
    check_conv(&wide, false);
    struct shape all = {2, 6, 9, 3, {7, 16}, {2, 3}, {2, 3}, {3, 2}, {1, 2, 0, 3}};
    check_conv(&all, true);
    struct shape stride = {1, 8, 8, 1, {1, 32}, {1, 1}, {1, 2}, {1, 1}, {0, 0, 0, 0}};
    check_conv(&stride, false);
    struct shape depth = {1, 8, 8, 8, {1, 16}, {1, 1}, {1, 1}, {1, 1}, {0, 0, 0, 0}};
    check_conv(&depth, false);
}

/* ---- matmul --------------------------------------------------------------------------------- */

/* x [bx.., m, k], y [by.., k, n], one of them possibly with its last axes turned. */
static void check_matmul(const char *bx, const char *by, const char *bo, size_t batches,
                         size_t fold_x, size_t fold_y, bool turn_x, bool turn_y) {
    enum { M = 37, N = 70, K = 45 };
    float *x = sim_values(batches * M * K, 1.0f), *y = sim_values(batches * K * N, 1.0f);
    float *z = sim_zeros(batches * M * N);
    const char *text = sim_text(
        MIL_CALL("tensor<fp16, [%s%d,%d]> x, tensor<fp16, [%s%d,%d]> y",
                 "bool tx = const()[val = bool(%s)];\nbool ty = const()[val = bool(%s)];\n"
                 "tensor<fp16, [%s%d,%d]> z = matmul(x = x, y = y, transpose_x = tx, transpose_y = "
                 "ty)" NAMED("z") ";\n",
                 "z"),
        bx, turn_x ? K : M, turn_x ? M : K, by, turn_y ? N : K, turn_y ? K : N,
        turn_x ? "true" : "false", turn_y ? "true" : "false", bo, M, N);
    sim_run(text, (float *const[]){x, y}, (float *const[]){z});
    for (size_t i = 0; i < batches * M * N; i++) {
        size_t batch = i / (M * N), r = i / N % M, c = i % N;
        const float *a = x + batch / fold_x * M * K, *b = y + batch / fold_y * K * N;
        double sum = 0.0;
        for (size_t p = 0; p < K; p++) {
            sum += (double)a[turn_x ? p * M + r : r * K + p] *
                   (double)b[turn_y ? c * K + p : p * N + c];
        }
        sim_near("matmul", i, (double)z[i], sum, SUM_ERROR);
    }
}

TEST(sim_products_of_matrices) {
    for (int turned = 0; turned < 4; turned++) {
        check_matmul("", "", "", 1, 1, 1, turned & 1, turned & 2);
        check_matmul("1,6,", "1,6,", "1,6,", 6, 1, 1, turned & 1, turned & 2);
        check_matmul("2,3,", "2,1,", "2,3,", 6, 1, 3, turned & 1, turned & 2); /* grouped heads */
        check_matmul("2,1,", "2,3,", "2,3,", 6, 3, 1, turned & 1, turned & 2);
        check_matmul("3,", "", "3,", 3, 1, 3, turned & 1, turned & 2);
    }
}

TEST(sim_attention_is_softmax_of_scores_by_values) {
    enum { H = 2, L = 5, S = 7, E = 8, EV = 6 };
    float *q = sim_values(H * L * E, 1.0f), *k = sim_values(H * S * E, 1.0f);
    float *v = sim_values(H * S * EV, 1.0f), *m = sim_values(L * S, 1.0f), y[H * L * EV];
    sim_run(MIL_CALL("tensor<fp16, [1,2,7,8]> k, tensor<fp16, [5,7]> m, tensor<fp16, [1,2,5,8]> q, "
                     "tensor<fp16, [1,2,7,6]> v",
                     "tensor<fp16, [1,2,5,6]> y = scaled_dot_product_attention(query = q, key = k, "
                     "value = v, attn_mask = m)" NAMED("y") ";\n",
                     "y"),
            (float *const[]){k, m, q, v}, (float *const[]){y});
    for (size_t i = 0; i < H * L * EV; i++) {
        size_t h = i / (L * EV), r = i / EV % L, e = i % EV;
        double total = 0.0, sum = 0.0;
        for (size_t j = 0; j < S; j++) {
            double score = 0.0;
            for (size_t p = 0; p < E; p++) {
                score += (double)q[(h * L + r) * E + p] * (double)k[(h * S + j) * E + p];
            }
            double share = exp(score / sqrt((double)E) + (double)m[r * S + j]);
            total += share;
            sum += share * (double)v[(h * S + j) * EV + e];
        }
        sim_close("attention", i, (double)y[i], sum / total, 0.2);
    }
}

/* ---- layouts -------------------------------------------------------------------------------- */

enum { A = 2, B = 19, C = 3, D = 35, ALL = A * B * C * D };
#define ROW(n) "tensor<fp16, [1,1,1," #n "]>"
#define TENSOR "tensor<fp16, [2,19,3,35]>"
static const size_t sizes[4] = {A, B, C, D};

/* Element i of a result with these axes comes from here: coordinates c of the result. */
static void coordinates(size_t i, const size_t dims[4], size_t c[4]) {
    for (size_t k = 4; k-- > 0;) {
        c[k] = i % dims[k];
        i /= dims[k];
    }
}
static size_t index_of(const size_t c[4]) { return ((c[0] * B + c[1]) * C + c[2]) * D + c[3]; }
static float *counted(size_t n) {
    float *x = sim_zeros(n);
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(i % 2048);
    }
    return x;
}

TEST(sim_transposes_by_any_permutation) {
    float *x = sim_values(ALL, 1.0f), *y = sim_zeros(ALL);
    for (size_t p = 0; p < 256; p++) {
        size_t perm[4] = {p & 3, p >> 2 & 3, p >> 4 & 3, p >> 6}, dims[4], c[4], from[4];
        if ((1 << perm[0] | 1 << perm[1] | 1 << perm[2] | 1 << perm[3]) != 15) {
            continue;
        }
        for (size_t k = 0; k < 4; k++) {
            dims[k] = sizes[perm[k]];
        }
        const char *text = sim_text(
            MIL_CALL(
                TENSOR " x",
                "tensor<int32, [4]> p = const()[val = tensor<int32, [4]>([%zu,%zu,%zu,%zu])];"
                "\ntensor<fp16, [%zu,%zu,%zu,%zu]> y = transpose(x = x, perm = p)" NAMED("y") ";\n",
                "y"),
            perm[0], perm[1], perm[2], perm[3], dims[0], dims[1], dims[2], dims[3]);
        sim_run_one(text, x, y);
        for (size_t i = 0; i < ALL; i++) {
            coordinates(i, dims, c);
            for (size_t k = 0; k < 4; k++) {
                from[perm[k]] = c[k];
            }
            CHECK(y[i] == x[index_of(from)]);
        }
    }
}

static void check_slice(const size_t begin[4], const size_t size[4]) {
    float *x = counted(ALL), *y = sim_zeros(ALL);
    size_t c[4], n = size[0] * size[1] * size[2] * size[3];
    sim_run_one(sim_text(MIL_CALL(TENSOR " x",
                                  "tensor<int32, [4]> b = const()[val = tensor<int32, "
                                  "[4]>([%zu,%zu,%zu,%zu])];\ntensor<int32, [4]> s = const()[val = "
                                  "tensor<int32, [4]>([%zu,%zu,%zu,%zu])];\n"
                                  "tensor<fp16, [%zu,%zu,%zu,%zu]> y = slice_by_size(x = x, begin "
                                  "= b, size = s)" NAMED("y") ";\n",
                                  "y"),
                         begin[0], begin[1], begin[2], begin[3], size[0], size[1], size[2], size[3],
                         size[0], size[1], size[2], size[3]),
                x, y);
    for (size_t i = 0; i < n; i++) {
        coordinates(i, size, c);
        for (size_t k = 0; k < 4; k++) {
            c[k] += begin[k];
        }
        CHECK(y[i] == x[index_of(c)]);
    }
}

TEST(sim_slices_on_each_axis) {
    for (size_t k = 0; k < 4; k++) {
        size_t begin[4] = {0}, size[4] = {A, B, C, D};
        begin[k] = 1;
        size[k] = sizes[k] - 1;
        check_slice(begin, size);
        size[k] = 1;
        check_slice(begin, size);
    }
    check_slice((const size_t[4]){1, 3, 0, 0}, (const size_t[4]){1, 10, C, D}); /* one piece */
    check_slice((const size_t[4]){1, 3, 1, 5}, (const size_t[4]){1, 10, 2, 7});
    check_slice((const size_t[4]){1, 3, 1, 5}, (const size_t[4]){1, 1, 1, 30}); /* one piece */
}

TEST(sim_slices_by_index_step_and_drop_axes) {
    float *x = counted(ALL), *y = sim_zeros(ALL);
    sim_run_one(
        MIL_CALL(TENSOR " x",
                 INTS("b", 4, "1,17,2,-1") INTS("e", 4, "2,2,3,0")
                     INTS("s", 4, "1,-3,1,-4") "tensor<bool, [4]> q = const()[val = tensor<bool, "
                                               "[4]>([true,false,true,false])];\n"
                                               "tensor<fp16, [5,9]> y = slice_by_index(x = x, "
                                               "begin = b, end = e, stride "
                                               "= s, squeeze_mask = q)" NAMED("y") ";\n",
                 "y"),
        x, y);
    for (size_t i = 0; i < 5 * 9; i++) {
        CHECK(y[i] == x[index_of((const size_t[4]){1, 17 - 3 * (i / 9), 2, 34 - 4 * (i % 9)})]);
    }
}

/* Two tensors of these axes joined on one, and taken apart again. */
static void check_concat(size_t axis, bool interleave) {
    float *x = sim_values(ALL, 1.0f), *y = sim_values(ALL, 1.0f);
    float *z = sim_zeros(2 * ALL), *first = sim_zeros(ALL), *second = sim_zeros(ALL);
    size_t dims[4] = {A, B, C, D}, c[4];
    dims[axis] *= 2;
    sim_run(
        sim_text(MIL_CALL(TENSOR " x, " TENSOR " y",
                          "int32 a = const()[val = int32(%zu)];\nbool i = const()[val = "
                          "bool(%s)];\nint32 n = const()[val = int32(2)];\n"
                          "tensor<fp16, [%zu,%zu,%zu,%zu]> z = concat(values = (x, y), axis = "
                          "a, interleave = i)" NAMED(
                              "z") ";\n" TENSOR " u, " TENSOR
                                   " v = split(x = z, axis = a, num_splits = n)" NAMED("uv") ";\n",
                          "z, u, v"),
                 axis, interleave ? "true" : "false", dims[0], dims[1], dims[2], dims[3]),
        (float *const[]){x, y}, (float *const[]){z, first, second});
    for (size_t i = 0; i < 2 * ALL; i++) {
        coordinates(i, dims, c);
        size_t at = c[axis];
        bool of_y = interleave ? at % 2 : at >= sizes[axis];
        c[axis] = interleave ? at / 2 : at % sizes[axis];
        CHECK(z[i] == (of_y ? y : x)[index_of(c)]);
        c[axis] = at % sizes[axis];
        CHECK(z[i] == (at >= sizes[axis] ? second : first)[index_of(c)]);
    }
}

TEST(sim_concat_and_split_on_each_axis) {
    for (size_t axis = 0; axis < 4; axis++) {
        check_concat(axis, false);
        check_concat(axis, true);
    }
}

/* ---- memory and threads --------------------------------------------------------------------- */

/* Views of views, of constants and of inputs, results that are read late, and one that is an
 * operand twice: what shares memory may not be overwritten. */
TEST(sim_values_that_share_memory_keep_their_numbers) {
    float x[64], y[16], z[64], u[16];
    for (size_t i = 0; i < 64; i++) {
        x[i] = (float)i;
    }
    const char *text = MIL_CALL(
        "tensor<fp16, [1,4,1,16]> x",
        INTS("b", 4, "0,2,0,0") INTS("s", 4, "1,2,1,16") INTS("b2", 4, "0,1,0,0")
        INTS("s2", 4, "1,1,1,16") INTS("shape", 4, "1,1,1,16") INTS("four", 4, "1,4,1,4")
        FP16("one", "1")
        "tensor<fp16, [1,4,1,4]> k = const()[val = tensor<fp16, [1,4,1,4]>([0,10,20,30,40,50,60,70,"
        "80,90,100,110,120,130,140,150])];\n"
        "tensor<fp16, [1,2,1,16]> half = slice_by_size(x = x, begin = b, size = s)" NAMED("h") ";\n"
        ROW(16) " last = slice_by_size(x = half, begin = b2, size = s2)" NAMED("l") ";\n"
        ROW(16) " flat = reshape(x = k, shape = shape)" NAMED("f") ";\n"
        "tensor<fp16, [1,4,1,16]> t1 = add(x = x, y = one)" NAMED("t1") ";\n"
        "tensor<fp16, [1,4,1,16]> t2 = mul(x = t1, y = t1)" NAMED("t2") ";\n"
        "tensor<fp16, [1,4,1,16]> z = sub(x = t2, y = t1)" NAMED("z") ";\n"
        "tensor<fp16, [1,4,1,4]> turned = reshape(x = last, shape = four)" NAMED("tu") ";\n"
        ROW(16) " same = identity(x = last)" NAMED("same") ";\n"
        ROW(16) " u = add(x = same, y = flat)" NAMED("u") ";\n"
        ROW(16) " y = reshape(x = turned, shape = shape)" NAMED("y") ";\n", "u, y, z");
    sim_run(text, (float *const[]){x}, (float *const[]){u, y, z});
    for (size_t i = 0; i < 64; i++) {
        CHECK(z[i] == sim_half((double)sim_half((double)(x[i] + 1) * (double)(x[i] + 1)) -
                               (double)(x[i] + 1)));
        if (i < 16) {
            CHECK(y[i] == x[48 + i]);
            CHECK(u[i] == x[48 + i] + 10.0f * (float)i);
        }
    }
}

TEST(sim_results_do_not_depend_on_threads) {
    enum { N = 4 * 150 * 150 };
    float *x = sim_values(N, 1.0f), *y[4];
    const char *text = MIL_CALL(
        "tensor<fp16, [1,4,150,150]> x",
        FLAG("no", "false") FLAG("yes", "true") INT("last", "-1") INTS("one", 1, "1")
        "tensor<fp16, [1,4,150,150]> a = matmul(x = x, y = x, transpose_x = no, transpose_y = yes)"
        NAMED("a") ";\n"
        "tensor<fp16, [1,4,150,150]> p = softmax(x = a, axis = last)" NAMED("p") ";\n"
        "tensor<fp16, [1,1,150,150]> r = reduce_sum(x = p, axes = one, keep_dims = yes)" NAMED("r")
        ";\n"
        "tensor<fp16, [1,4,150,150]> m = mul(x = p, y = r)" NAMED("m") ";\n"
        "tensor<fp16, [1,4,150,150]> y = matmul(x = m, y = x, transpose_x = yes, transpose_y = no)"
        NAMED("y") ";\n", "y");
    for (size_t i = 0; i < 4; i++) {
        y[i] = sim_zeros(N);
        sim_run_on(i + 1, &sim_numbers, text, (float *const[]){x}, (float *const[]){y[i]});
        CHECK_BYTES(y[i], y[0], N * sizeof(float));
    }
    double size = 0.0;
    for (size_t i = 0; i < N; i++) {
        size += fabs((double)y[0][i]);
    }
    CHECK(size > 1.0 && isfinite(size));
}

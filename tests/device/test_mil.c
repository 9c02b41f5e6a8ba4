/* SPDX-License-Identifier: MIT
 *
 * MIL programs, right and wrong: what is read, what is refused and where.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/blob.h"
#include "device/mil_lab.h"

/* ---- a program with everything -------------------------------------------------------------- */

static const char linear[] = MIL_HEAD
    "tensor<fp16, [1, 4, 1, 16]> x) {\n"
    "  // a linear layer, scaled\n"
    "  string pt = const()[name = string(\"pt\"), val = string(\"valid\")];\n"
    "  tensor<int32,[2]> st = const()[name=string(\"st\"),val=tensor<int32,[2]>([1,1])];\n"
    "  tensor<int32, [4]> pd = const()[name = string(\"pd\"), val = tensor<int32, "
    "[4]>([0,0,0,0])];\n"
    "  int32 gr = const()[name = string(\"gr\"), val = int32(1)];\n"
    "  tensor<fp16, [6,4,1,1]> W = const()[name = string(\"W\"), val = tensor<fp16, [6,4,1,1]>"
    "(BLOBFILE(path = string(\"@model_path/weights/w.bin\"), offset = uint64(64)))];\n"
    "  tensor<fp16, [1,6,1,16]> y = conv(dilations = st, groups = gr, pad = pd, pad_type = pt, "
    "strides = st, weight = W, x = x)[name = string(\"conv_0\")];\n"
    "  fp16 s = const()[name = string(\"s\"), val = fp16(0x1.8p-3)];\n"
    "  tensor<fp16, [1,6,1,16]> z = mul(x = y, y = s)[name = string(\"z\")];\n"
    "} -> (z);\n}";

TEST(a_linear_layer_is_read) {
    const struct mil_file file = {"@model_path/weights/w.bin", 24};
    struct kiln_mil_graph g;
    mil_read(linear, &file, 1, &g);
    CHECK_STRING(g.opset, "ios18");
    CHECK_CLOSE(g.version, 1.3, 0);
    CHECK_EQ(g.n_inputs, 1);
    CHECK_EQ(g.n_outputs, 1);
    CHECK_EQ(g.n_nodes, 2);
    CHECK_EQ(g.nodes[0].op, KILN_MIL_CONV);
    CHECK_STRING(g.nodes[0].name, "conv_0");
    CHECK_EQ(g.nodes[0].n_in, 3);
    CHECK_STRING(g.values[g.nodes[0].in[0]].name, "x");
    CHECK_STRING(g.values[g.nodes[0].in[1]].name, "W");
    CHECK(g.nodes[0].in[2] == SIZE_MAX);
    CHECK_EQ(g.nodes[0].groups, 1);
    CHECK_EQ(g.nodes[0].line, 11);
    CHECK_EQ(g.values[g.outputs[0]].node, 1);
    const struct kiln_mil_value *w = mil_value(&g, "W");
    CHECK(w->constant && w->node == SIZE_MAX);
    CHECK_STRING(w->file, "@model_path/weights/w.bin");
    CHECK_EQ(w->offset, 64);
    CHECK_CLOSE(w->data[23], 23, 0);
    CHECK_CLOSE(mil_value(&g, "s")->data[0], 0.1875, 0);
    CHECK_STRING(mil_value(&g, "pt")->string, "valid");
    CHECK_EQ(mil_value(&g, "st")->integers[1], 1);
    kiln_mil_close(&g);
}

TEST(blanks_are_optional_and_comments_end_with_their_line) {
    struct kiln_mil_graph g;
    mil_read(
        "program(1.0){func main<ios16>(tensor<fp16,[16]>x){tensor<fp16,[16]>y=exp(x=x);}"
        "->(y);}",
        NULL, 0, &g);
    CHECK_STRING(g.opset, "ios16");
    CHECK_STRING(g.nodes[0].name, "y");
    kiln_mil_close(&g);
    mil_read(
        "// first\nprogram ( 1.0 ) // {\n\t{ func main < ios16 > ( tensor < fp16 , [ 16 ] > x "
        ")\r\n{ tensor<fp16,[16]> y = exp ( x = x ) [ ] ; } -> ( y , x ) ; } // last",
        NULL, 0, &g);
    CHECK_EQ(g.n_outputs, 2);
    CHECK_EQ(g.values[g.inputs[0]].line, 3);
    kiln_mil_close(&g);
}

/* ---- literals ------------------------------------------------------------------------------- */

static double number_of(const char *literal, const char *type) {
    char text[512];
    struct kiln_mil_graph g;
    snprintf(text, sizeof text,
             MIL_HEAD "tensor<fp16, [16]> x) { %s k = const()[val = %s(%s)]; } -> (x); }", type,
             type, literal);
    mil_read(text, NULL, 0, &g);
    const double value = (double)mil_value(&g, "k")->data[0];
    kiln_mil_close(&g);
    return value;
}

TEST(numbers_are_those_of_their_type) {
    CHECK_CLOSE(number_of("0.00001", "fp32"), 0.00001F, 0);
    CHECK_CLOSE(number_of("0.00001", "fp16"), 168 * 0x1p-24, 0); /* the nearest fp16 */
    CHECK_CLOSE(number_of("-0.5", "fp16"), -0.5, 0);
    CHECK_CLOSE(number_of("0x1p-3", "fp16"), 0.125, 0);
    CHECK_CLOSE(number_of("-0x1.Fp+2", "fp32"), -7.75, 0);
    CHECK_CLOSE(number_of("-65504", "fp16"), -65504, 0);
    CHECK_CLOSE(number_of("65519", "fp16"), 65504, 0);
    CHECK_CLOSE(number_of("1e-3", "fp32"), 1e-3F, 0);
    CHECK_CLOSE(number_of("-1", "int32"), -1, 0);
    CHECK_CLOSE(number_of("-128", "int8"), -128, 0);
    CHECK_CLOSE(number_of("true", "bool"), 1, 0);
    CHECK_CLOSE(number_of("64", "uint64"), 64, 0);
}

/* One statement behind `x`, a tensor of 16; the program is refused at that place of line 5. */
#define ONE(statement) MIL_CALL("tensor<fp16, [16]> x", statement "\n", "x")

TEST(literals_that_their_type_cannot_hold_are_refused) {
    mil_refused(ONE("fp16 k = const()[val = fp16(65520)];"),
                "p.mil:5:29: expected a number that fp16 holds (at most 65504), found 65520");
    mil_refused(ONE("fp32 k = const()[val = fp32(1e39)];"), "that fp32 holds");
    mil_refused(ONE("fp32 k = const()[val = fp32(1e999)];"), "that a double holds, found 1e999");
    mil_refused(ONE("int8 k = const()[val = int8(128)];"), "int8 holds (-128 to 127), found 128");
    mil_refused(ONE("uint8 k = const()[val = uint8(-1)];"), "uint8 holds (0 to 255), found -1");
    mil_refused(ONE("int32 k = const()[val = int32(2147483648)];"), "int32 holds");
    mil_refused(ONE("int32 k = const()[val = int32(99999999999999999999)];"), "of at most 63 bits");
    mil_refused(ONE("int32 k = const()[val = int32(1.0)];"), "5:31: expected an integer");
    mil_refused(ONE("bool k = const()[val = bool(1)];"), "expected true or false");
    mil_refused(ONE("fp16 k = const()[val = fp16(\"1\")];"), "found a string");
    mil_refused(ONE("string k = const()[val = string(1)];"), "expected one string");
    mil_refused(ONE("int32 k = const()[val = fp16(1)];"),
                "p.mil:5:7: k is declared int32, but const gives fp16");
    mil_refused(ONE("int32 k = const()[name = string(\"k\")];"), "expected an argument val");
    mil_refused(ONE("fp16 k = const()[val = x];"), "val: expected a literal");
}

TEST(lists_have_the_dimensions_of_their_type) {
    struct kiln_mil_graph g;
    mil_read(ONE("tensor<fp16, [2,3]> k = const()[val = tensor<fp16, [2,3]>([[1,2,3],[4,5,6]])];"),
             NULL, 0, &g);
    CHECK_CLOSE(mil_value(&g, "k")->data[4], 5, 0);
    kiln_mil_close(&g);
    mil_refused(ONE("tensor<fp16, [4]> k = const()[val = tensor<fp16, [4]>([1,2,3])];"),
                "5:37: expected 4 elements of tensor<fp16, [4]>, found 3");
    mil_refused(ONE("tensor<fp16, [2,2]> k = const()[val = tensor<fp16, [2,2]>([[1,2,3],[4]])];"),
                "expected a list of 3 items, as the one before it, found 1");
    mil_refused(ONE("tensor<fp16, [2,3]> k = const()[val = tensor<fp16, [2,3]>([[1,2],[3,4],[5,6]])"
                    "];"),
                "lists nested as the dimensions");
    mil_refused(ONE("tensor<fp16, [2,2]> k = const()[val = tensor<fp16, [2,2]>([[1,2],3,4])];"),
                "5:66: expected a list, as before");
    mil_refused(ONE("tensor<fp16, [1]> k = const()[val = tensor<fp16, [1]>([[[[[[[1]]]]]]])];"),
                "at most 6 lists");
    mil_refused(ONE("tensor<fp16, [0]> k = const()[val = tensor<fp16, [0]>([])];"),
                "5:15: expected a dimension of 1 or more, found \"0\"");
    mil_refused(ONE("tensor<fp16, [1,1,1,1,1,1,1]> k = exp(x = x);"), "at most 6 dimensions");
    mil_refused(ONE("tensor<fp16, [4294967296,4294967296]> k = exp(x = x);"),
                "expected a tensor that an address space holds");
}

/* ---- the grammar ---------------------------------------------------------------------------- */

TEST(what_is_not_the_grammar_is_refused_where_it_stands) {
    mil_refused("", "p.mil:1:1: expected \"program\", found the end of the text");
    mil_refused("program(1.3)\n[a = dict<string", "p.mil:2:17: expected ',' between");
    mil_refused("program(x)", "p.mil:1:9: expected a version, as 1.3, found \"x\"");
    mil_refused("program(1.3) { }", "1:16: expected \"func\", found \"}\"");
    mil_refused(ONE("tensor<fp16, [16]> y = exp(x = x)"), "p.mil:6:1: expected ';' at the end of");
    mil_refused(ONE("tensor<fp17, [16]> y = exp(x = x);"), "5:8: expected a type: fp16");
    mil_refused(ONE("tensor<fp16, 16> y = exp(x = x);"), "5:14: expected '[' before");
    mil_refused(ONE("y = exp(x = x);"), "5:1: expected a statement, which begins with a type");
    mil_refused(ONE("tensor<fp16, [16]> y = exp(x);"), "5:29: expected '=' behind the name");
    mil_refused(ONE("tensor<fp16, [16]> y = exp(x = );"), "5:32: expected a name, a literal");
    mil_refused(ONE("string s = const()[val = string(\"abc)];"),
                "5:33: expected \" at the end of the string that begins here, found the end of the "
                "line");
    mil_refused("program(1.3)[a = string(\"abc", "1:25: expected \" at the end of the string");
    mil_refused(ONE("fp16 k = const()[val = fp16(0x1)];"), "expected p and an exponent");
    mil_refused(ONE("fp16 k = const()[val = fp16(1.5abc)];"), "found 'a'");
    mil_refused(ONE("fp16 k = const()[val = fp16(-)];"), "expected digits in the number");
    mil_refused(ONE("fp16 k = const()[val = fp16(1)] $"), "5:33: expected a name, a number");
    mil_refused(MIL_CALL("tensor<fp16, [16]> x", "", "x") "x", "expected the end of the text");
    mil_refused(MIL_CALL("dict<string, string> x", "", "x"), "the type of a value");
}

TEST(a_text_may_end_anywhere) {
    const size_t length = strlen(linear);
    for (size_t i = 0; i < length; i++) {
        struct kiln_mil_graph g;
        struct kiln_err err;
        CHECK_FAILS(kiln_mil_parse("p.mil", linear, i, NULL, NULL, &g, &err), KILN_EINPUT, &err);
        CHECK_CONTAINS(err.message, "p.mil:");
    }
}

/* `open` n times. */
static void nested(const char *before, const char *open, size_t n) {
    const size_t width = strlen(open), start = strlen(before);
    char *text = kiln_alloc(start + n * width + 1, 1);
    memcpy(text, before, start);
    for (size_t i = 0; i < n; i++) {
        memcpy(text + start + i * width, open, width);
    }
    mil_refused(text, "expected at most");
    kiln_free(text);
}

TEST(depth_is_bounded) {
    nested(MIL_HEAD "tensor<fp16, [16]> x) { fp16 y = concat(values = ", "(", 100000);
    nested(MIL_HEAD "tensor<fp16, [16]> x) { fp16 y = const()[val = tensor<fp16, [1]>(", "[",
           100000);
    nested("program(1.3)[a = ", "dict<", 100000);
    nested("program(1.3)[a = ", "dict<string, string>({{", 100000);
    nested("program(1.3)[a = ", "string(BLOBFILE(path = ", 100000);
}

/* ---- names ---------------------------------------------------------------------------------- */

TEST(names_are_declared_once_and_before_they_are_used) {
    mil_refused(ONE("tensor<fp16, [16]> x = exp(x = x);"),
                "p.mil:5:20: expected a new name, found \"x\", which is declared in line 4");
    mil_refused(ONE("tensor<fp16, [16]> y = exp(x = y);"),
                "p.mil:5:32: exp: x: expected a value, found \"y\", which is not declared");
    mil_refused(MIL_CALL("tensor<fp16, [16]> x", "", "y"),
                "p.mil:5:7: expected a value as result, found \"y\", which is not declared");
    mil_refused(ONE("string s = const()[val = string(\"a\")]; tensor<fp16, [16]> y = exp(x = s);"),
                "x: expected numbers, found a string");
    mil_refused(ONE("tensor<fp16, [16]> y = exq(x = x);"),
                "p.mil:5:24: expected an operation, found \"exq\"; these are known: const");
}

TEST(arguments_have_the_names_that_the_operation_knows) {
    mil_refused(ONE("tensor<fp16, [16]> y = add(x = x, z = x);"),
                "p.mil:5:35: add: expected one of x y, found \"z\"");
    mil_refused(ONE("tensor<fp16, [16]> y = add(x = x);"),
                "add: expected an argument y, found none; it takes x y");
    mil_refused(ONE("tensor<fp16, [16]> y = softmax(axis = int32(0));"),
                "expected an argument x, found none; it takes x axis? (?: may be missing)");
    mil_refused(ONE("tensor<fp16, [16]> y = add(x = x, x = x, y = x);"),
                "5:35: add: expected each argument once, found x again");
}

TEST(many_names_are_found) {
    enum { N = 3000 };
    char *text = kiln_alloc(N, 80);
    size_t used = (size_t)sprintf(text, MIL_HEAD "tensor<fp16, [16]> v0) {\n");
    for (int i = 1; i < N; i++) {
        used += (size_t)sprintf(text + used, "tensor<fp16, [16]> v%d = exp(x = v%d);\n", i, i / 2);
    }
    sprintf(text + used, "} -> (v%d); }", N - 1);
    struct kiln_mil_graph g;
    mil_read(text, NULL, 0, &g);
    CHECK_EQ(g.n_nodes, N - 1);
    CHECK_EQ(g.nodes[N - 2].in[0], (N - 1) / 2);
    kiln_mil_close(&g);
    kiln_free(text);
}

/* ---- shapes --------------------------------------------------------------------------------- */

/* The statements give `result` the type that is declared, and another one is refused with it. */
static void gives(const char *parameters, const char *type, const char *operation) {
    char text[1024], words[256];
    struct kiln_mil_graph g;
    snprintf(text, sizeof text, MIL_HEAD "%s) {\n%s r = %s;\n} -> (r);\n}", parameters, type,
             operation);
    mil_read(text, NULL, 0, &g);
    kiln_mil_close(&g);
    snprintf(text, sizeof text, MIL_HEAD "%s) {\ntensor<fp16, [7,7]> r = %s;\n} -> (r);\n}",
             parameters, operation);
    snprintf(words, sizeof words,
             "p.mil:5:21: r is declared tensor<fp16, [7,7]>, but %.*s gives %s",
             (int)strcspn(operation, "("), operation, type);
    mil_refused(text, words);
}

#define I(n, list) "tensor<int32, [" n "]>([" list "])"

TEST(products_have_the_shapes_of_their_operands) {
    const char *x =
        "tensor<fp16, [2,6,9,12]> x, tensor<fp16, [4,6,3,5]> w, tensor<fp16, [4,3,3,5]> v";
    gives(x, "tensor<fp16, [2,4,7,8]>", "conv(x = x, weight = w)");
    gives(x, "tensor<fp16, [2,4,9,12]>", "conv(x = x, weight = w, pad_type = string(\"same\"))");
    gives(x, "tensor<fp16, [2,4,5,4]>",
          "conv(x = x, weight = w, pad_type = string(\"same\"), strides = " I("2", "2,3") ")");
    gives(x, "tensor<fp16, [2,4,10,11]>",
          "conv(x = x, weight = w, pad_type = string(\"custom\"), pad = " I("4", "1,2,3,0") ")");
    gives(x, "tensor<fp16, [2,4,7,8]>", "conv(x = x, weight = w, pad = " I("4", "1,2,3,0") ")");
    gives(x, "tensor<fp16, [2,4,5,4]>", "conv(x = x, weight = w, dilations = " I("2", "2,2") ")");
    gives(x, "tensor<fp16, [2,4,7,8]>", "conv(x = x, weight = v, groups = int32(2))");
    const char *m = "tensor<fp16, [3,1,4,5]> a, tensor<fp16, [2,5,6]> b, tensor<fp16, [6,5]> c";
    gives(m, "tensor<fp16, [3,2,4,6]>", "matmul(x = a, y = b)");
    gives(m, "tensor<fp16, [3,1,4,6]>", "matmul(x = a, y = c, transpose_y = bool(true))");
    gives(m, "tensor<fp16, [2,6,6]>", "matmul(transpose_x = bool(true), x = b, y = b)");
    const char *q =
        "tensor<fp16, [1,2,8,4]> q, tensor<fp16, [1,2,6,4]> k, tensor<fp16, [1,2,6,3]> "
        "v, tensor<fp16, [8,6]> m";
    gives(q, "tensor<fp16, [1,2,8,3]>",
          "scaled_dot_product_attention(query = q, key = k, value = v, attn_mask = m)");
}

TEST(elements_and_axes_have_the_shapes_of_their_operands) {
    const char *x = "tensor<fp16, [2,1,4]> x, tensor<fp16, [3,1]> y, tensor<bool, [2,3,1]> b";
    gives(x, "tensor<fp16, [2,3,4]>", "mul(y = y, x = x)");
    gives(x, "tensor<fp16, [2,1,4]>", "pow(x = x, y = fp16(-0.5))");
    gives(x, "tensor<fp16, [2,3,4]>", "select(cond = b, a = x, b = y)");
    gives(x, "tensor<fp32, [2,1,4]>", "cast(x = x, dtype = string(\"fp32\"))");
    gives(x, "tensor<int8, [2,1,4]>", "quantize(input = x, scale = fp16(0x1p-3))");
    gives(x, "tensor<fp16, [2,1]>", "reduce_sum(x = x, axes = " I("1", "-1") ")");
    gives(x, "tensor<fp16, [1,1,1]>",
          "reduce_mean(x = x, axes = " I("2", "0,2") ", keep_dims = bool(true))");
    gives(x, "fp16", "reduce_max(x = x)");
    gives(x, "tensor<fp16, [2,1,4]>", "softmax(x = x, axis = int32(-3))");
    gives(x, "tensor<fp16, [2,1,4]>", "layer_norm(x = x, axes = " I("1", "2") ")");
}

TEST(moved_elements_have_the_shapes_that_are_asked_for) {
    const char *x = "tensor<fp16, [2,3,8]> x, tensor<fp16, [2,1,8]> y";
    gives(x, "tensor<fp16, [8,2,3]>", "transpose(x = x, perm = " I("3", "-1,0,1") ")");
    gives(x, "tensor<fp16, [4,12]>", "reshape(x = x, shape = " I("2", "4,-1") ")");
    gives(x, "tensor<fp16, [1,3,5]>",
          "slice_by_size(x = x, begin = " I("3", "1,0,3") ", size = " I("3", "1,-1,5") ")");
    gives(x, "tensor<fp16, [2,2,4]>",
          "slice_by_index(x = x, begin = " I("3", "0,1,7") ", end = " I("3", "9,-9,-9")
          ", stride = " I("3", "1,1,-2") ", end_mask = tensor<bool, [3]>([false,true,true]))");
    gives(x, "tensor<fp16, [3]>",
          "slice_by_index(x = x, begin = " I("3", "-1,0,4") ", end = " I(
              "3", "0,3,0") ", squeeze_mask = tensor<bool, [3]>([true,false,true]))");
    gives(x, "tensor<fp16, [2,5,8]>", "concat(values = (x, y, y), axis = int32(-2))");
}

TEST(a_slice_says_what_it_takes) {
    struct kiln_mil_graph g;
    mil_read(
        MIL_CALL("tensor<fp16, [4,8]> x",
                 "tensor<fp16, [3]> y = slice_by_index(x = x, begin = " I("2", "-1,6") ", end = " I(
                     "2", "0,0") ", stride = " I("2", "1,-2") ", squeeze_mask = tensor<bool, "
                                                              "[2]>([true,false]));\n",
                 "y"),
        NULL, 0, &g);
    const struct kiln_mil_node *n = &g.nodes[0];
    CHECK_EQ(n->begin[0], 3);
    CHECK_EQ(n->size[0], 1);
    CHECK_EQ(n->begin[1], 6);
    CHECK_EQ(n->size[1], 3);
    CHECK_EQ(n->step[1], -2);
    kiln_mil_close(&g);
}

TEST(same_padding_is_resolved) {
    struct kiln_mil_graph g;
    mil_read(MIL_CALL("tensor<fp16, [1,1,5,8]> x, tensor<fp16, [1,1,2,4]> w",
                      "tensor<fp16, [1,1,5,8]> y = conv(x = x, weight = w, pad_type = "
                      "string(\"same\"));\n"
                      "tensor<fp16, [1,1,5,8]> z = conv(x = x, weight = w, pad_type = "
                      "string(\"same_lower\"));\n",
                      "y, z"),
             NULL, 0, &g);
    const size_t upper[] = {0, 1, 1, 2}, lower[] = {1, 0, 2, 1};
    CHECK_BYTES(g.nodes[0].pad, upper, sizeof upper);
    CHECK_BYTES(g.nodes[1].pad, lower, sizeof lower);
    kiln_mil_close(&g);
}

TEST(shapes_that_do_not_fit_are_refused) {
    const char *const bad[][2] = {
        {"matmul(x = a, y = a)", "5:25: matmul: expected equal inner axes, found 5 in"},
        {"add(x = a, y = b)", "expected shapes whose axes are equal or 1"},
        {"add(x = a, y = f)", "expected operands of one type"},
        {"conv(x = a, weight = a)", "expected x [N,C,H,W] and weight"},
        {"reshape(x = a, shape = " I("2", "-1,-1") ")", "at most one -1, found -1 as number 2"},
        {"reshape(x = a, shape = " I("2", "3,-1") ")", "expected one for the 20 elements"},
        {"reshape(x = a, shape = " I("1", "0") ")", "found 0 as number 1"},
        {"reshape(x = a, shape = a)", "shape: expected a constant, found a"},
        {"transpose(x = a, perm = " I("2", "0,0") ")", "perm: expected each axis once"},
        {"transpose(x = a, perm = " I("1", "0") ")", "expected 2 integers"},
        {"transpose(x = a, perm = int32(0))", "perm: expected a list of integers, found int32"},
        {"softmax(x = a, axis = int32(2))", "axis: expected an axis from -2 to 1, found 2"},
        {"softmax(x = a, axis = bool(true))", "axis: expected an integer, found bool"},
        {"reduce_sum(x = a, axes = " I("2", "0,-2") ")", "axes: expected each axis once"},
        {"slice_by_size(x = a, begin = " I("2", "0,5") ", size = " I("2", "1,1") ")",
         "begin: expected 0 to 4 on axis 1, found 5"},
        {"slice_by_size(x = a, begin = " I("2", "0,4") ", size = " I("2", "1,2") ")",
         "size: expected 1 to 1 on axis 1 (-1: all), found 2"},
        {"slice_by_index(x = a, begin = " I("2", "0,3") ", end = " I("2", "1,3") ")",
         "take something of the 5 elements of axis 1"},
        {"concat(values = (a, b), axis = int32(0))", "differ on axis 0 only"},
        {"split(x = a, axis = int32(1), num_splits = int32(2))", "as many parts as results (1)"},
        {"cast(x = a, dtype = string(\"fp8\"))", "dtype: expected fp16, fp32"},
        {"gelu(x = a, mode = string(\"FAST\"))", "mode: expected EXACT or TANH_APPROXIMATION"},
        {"select(cond = a, a = a, b = a)", "cond: expected bools"},
        {"quantize(input = a, scale = a)", "scale: expected a constant number"},
        {"concat(values = a, axis = a)", "axis: expected a constant"},
        {"exp(x = (a, a))", "x: expected one value, found a list"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 MIL_HEAD
                 "tensor<fp16, [4,5]> a, tensor<fp16, [3]> b, tensor<fp32, [4,5]> f) {\n"
                 "tensor<fp16, [4,5]> r = %s;\n} -> (r);\n}",
                 bad[i][0]);
        mil_refused(text, bad[i][1]);
    }
}

/* ---- weights -------------------------------------------------------------------------------- */

/* A file of one blob: its type, and 16 bytes 0, 1, 2, ... of payload. */
static const void *small_file(void *context, const char *path, size_t *bytes) {
    static uint64_t file[18];
    const uint32_t *type = context;
    (void)path;
    kiln_blob_begin(file, 8);
    memcpy((char *)file + 68, type, sizeof *type);
    for (size_t i = 0; i < 16; i++) {
        ((char *)file)[128 + i] = (char)i;
    }
    *bytes = 144;
    return file;
}

#define FILE_OF(type)                                                    \
    "tensor<" type                                                       \
    ">(BLOBFILE(path = string(\"@model_path/weights/w.bin\"), offset = " \
    "uint64(64)))"

static void file_refused(uint32_t type, const char *text, const char *words) {
    struct kiln_mil_graph g;
    struct kiln_err err;
    CHECK_FAILS(kiln_mil_parse("p.mil", text, strlen(text), small_file, &type, &g, &err),
                KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, words);
}

TEST(weight_files_are_what_the_program_declares) {
    mil_refused(linear,
                "p.mil:10:65: expected a weight file @model_path/weights/w.bin, found none");
    file_refused(2, ONE("tensor<fp16, [8]> k = const()[val = " FILE_OF("fp16, [8]") "];"),
                 "p.mil:5:37: expected fp16 in @model_path/weights/w.bin at offset 64, found fp32");
    file_refused(
        1, ONE("tensor<fp16, [2,3]> k = const()[val = " FILE_OF("fp16, [2,3]") "];"),
        "expected 12 payload bytes for tensor<fp16, [2,3]> in @model_path/weights/w.bin at "
        "offset 64, found 16");
    file_refused(1, ONE("tensor<int32, [4]> k = const()[val = " FILE_OF("int32, [4]") "];"),
                 "fp16, fp32, int8 or uint8, which files can hold");
    file_refused(9, ONE("tensor<fp16, [8]> k = const()[val = " FILE_OF("fp16, [8]") "];"),
                 "p.mil:5:37: @model_path/weights/w.bin: blob at offset 64: data type 9");
    file_refused(1,
                 ONE("tensor<fp16, [8]> k = const()[val = tensor<fp16, [8]>(BLOBFILE(path = "
                     "string(\"w\"), offset = int32(-1)))];"),
                 "expected one integer of 0 or more in BLOBFILE");
}

/* The data of `k` with a file of that type. */
static void read_with(uint32_t type, const char *text, struct kiln_mil_graph *g) {
    struct kiln_err err;
    CHECK_OK(kiln_mil_parse("p.mil", text, strlen(text), small_file, &type, g, &err), &err);
}

TEST(bytes_become_numbers_when_the_program_is_read) {
    struct kiln_mil_graph g;
    read_with(4, ONE("tensor<int8, [16]> k = const()[val = " FILE_OF("int8, [16]") "];"), &g);
    CHECK_CLOSE(mil_value(&g, "k")->data[15], 15, 0);
    CHECK(mil_value(&g, "k")->integers == NULL);
    kiln_mil_close(&g);
    read_with(4,
              ONE("tensor<fp16, [4,4]> k = constexpr_affine_dequantize()[axis = int32(0), "
                  "quantized_data = " FILE_OF("int8, [4,4]") ", scale = fp16(0x1.004p-3), "
                                                             "zero_point = int8(-1)];"),
              &g);
    const struct kiln_mil_value *k = mil_value(&g, "k");
    CHECK(k->constant && k->node == SIZE_MAX);
    CHECK_CLOSE(k->data[0], 0x1.004p-3, 0);
    CHECK_CLOSE(k->data[4], 0x1.404p-1, 0); /* 5 * 0x1.004p-3 = 0x1.405p-1 */
    kiln_mil_close(&g);
    read_with(4,
              ONE("tensor<fp16, [2,8]> k = constexpr_affine_dequantize()[axis = int32(0), "
                  "quantized_data = " FILE_OF(
                      "int8, [2,8]") ", scale = tensor<fp16, [2]>([1,2])"
                                     ", zero_point = tensor<int8, [2]>([0,10])];"),
              &g);
    CHECK_CLOSE(mil_value(&g, "k")->data[7], 7, 0);
    CHECK_CLOSE(mil_value(&g, "k")->data[8], -4, 0);
    kiln_mil_close(&g);
    file_refused(3,
                 ONE("tensor<fp16, [2,8]> k = constexpr_affine_dequantize()[axis = int32(2), "
                     "quantized_data = " FILE_OF("uint8, [2,8]") ", scale = fp16(1), "
                                                                 "zero_point = uint8(0)];"),
                 "axis: expected an axis from -2 to 1, found 2");
    file_refused(3,
                 ONE("tensor<fp16, [2,8]> k = constexpr_affine_dequantize()[axis = int32(1), "
                     "quantized_data = " FILE_OF("uint8, [2,8]") ", scale = tensor<fp16, [2]>("
                                                                 "[1,2]), zero_point = uint8(0)];"),
                 "scale: expected a number, or 8 of them along the axis");
}

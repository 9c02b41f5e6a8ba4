/* SPDX-License-Identifier: MIT
 *
 * MIL programs, right and wrong: what is read, what is refused and where.
 */
#include <string.h>

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

/* SPDX-License-Identifier: MIT
 *
 * limits.h: what the hardware's compiler and loader refuse, each limit with a name and a switch.
 *
 * Sources differ on several of them (docs/neural-engine.md); the default is what most published
 * programs that run on M1 to M5 keep to. A violated limit is KILN_EINPUT (KILN_EBUDGET for the two
 * budgets) and names the limit, the operation with its line, what was found and what is allowed.
 */
#ifndef KILN_DEVICE_SIM_LIMITS_H
#define KILN_DEVICE_SIM_LIMITS_H

#include "device/mil/graph.h"

/* id, name, default value (0: off), what it means. Limits whose value is 1 are switches. */
#define KILN_SIM_LIMITS(XX)                                                                       \
    XX(COMPILE_BUDGET, "compile-budget", 119, "programs compiled by a process")                   \
    XX(LOAD_BUDGET, "load-budget", 119, "programs loaded at once by a process")                   \
    XX(EQUAL_SURFACES, "equal-surfaces", 1, "all inputs have one size, all outputs have one")     \
    XX(ASCENDING_INPUTS, "ascending-inputs", 0, "instead: input sizes ascend, outputs descend")   \
    XX(ALPHABETICAL, "alphabetical", 1, "surfaces are bound by the alphabet of their names")      \
    XX(SMALLEST_SURFACE, "smallest-surface", 49152, "bytes of a surface, at least")               \
    XX(SURFACES, "surfaces", 128, "surfaces of a program, at most")                               \
    XX(SINGLE_INPUT, "single-input", 0, "a program has one input")                                \
    XX(WIDTH_MULTIPLE, "width-multiple", 16, "the last axis of an input or output divides by it") \
    XX(LIVE_OUTPUTS, "live-outputs", 1, "an output is computed by an operation, not an input")    \
    XX(OLD_INSTRUCTIONS, "old-instructions", 0, "program(1.0) and ios16 only (M1, M2)")           \
    XX(AXIS, "axis", 65536, "elements of an axis, at most (before A16: 16384)")                   \
    XX(RANK, "rank", 5, "axes of a tensor, at most")                                              \
    XX(FP32_WITHOUT_CAST, "fp32-without-cast", 1, "an fp32 input is cast to fp16 first")          \
    XX(BLOB_OFFSET, "blob-offset", 64, "offset of the first blob that is read of a file")         \
    XX(ONE_BLOB, "one-blob", 0, "a file holds one blob (M1 Pro and Max)")                         \
    XX(CONV_INPUT_CHANNELS, "conv-input-channels", 32767, "input channels of a conv, at most")    \
    XX(CONV_KERNEL_WIDTH, "conv-kernel-width", 15, "width of a conv's kernel, at most (M1: 13)")  \
    XX(CONV_BIAS, "conv-bias", 1, "a conv takes no bias")                                         \
    XX(DYNAMIC_CONV_BATCH, "dynamic-conv-batch", 1, "batch of a conv with computed weights")      \
    XX(DYNAMIC_CONV_GROUPS, "dynamic-conv-groups", 1, "groups of a conv with computed weights")   \
    XX(MATMUL_FLAGS, "matmul-flags", 1, "a matmul's transpose flags are named consts")            \
    XX(MATMUL_INNER, "matmul-inner", 0, "a matmul's inner axis divides by it (M1: 32)")           \
    XX(ATTENTION_MASK, "attention-mask", 1, "attention takes no mask: it is ignored (Orion)")     \
    XX(CONCAT_INPUTS, "concat-inputs", 0, "values of a concat, at most (ANEForge: 2)")            \
    XX(NO_CONCAT, "no-concat", 0, "concat is refused (Orion)")                                    \
    XX(UNSUPPORTED, "unsupported", 1, "gelu, layer_norm, log, select and split are refused")      \
    XX(ROOT_AFTER_REDUCE, "root-after-reduce", 1, "sqrt and rsqrt do not follow a reduce_*")      \
    XX(REDUCE_TIMES_ZERO, "reduce-times-zero", 1, "a reduce_* is not multiplied by a constant 0") \
    XX(SOFTMAX_POWER_OF_TWO, "softmax-power-of-two", 0, "softmax over powers of two only")        \
    XX(SLICED_INPUT, "sliced-input", 0, "no slice_by_index of an input (Espresso)")

enum kiln_sim_limit {
#define KILN_SIM_LIMIT_ID(id, name, value, help) KILN_SIM_##id,
    KILN_SIM_LIMITS(KILN_SIM_LIMIT_ID)
#undef KILN_SIM_LIMIT_ID
        KILN_SIM_LIMIT_COUNT
};

struct kiln_sim_limits {
    uint64_t value[KILN_SIM_LIMIT_COUNT]; /* 0: not checked */
};
void kiln_sim_limits_default(struct kiln_sim_limits *out);
const char *kiln_sim_limit_name(enum kiln_sim_limit limit);
const char *kiln_sim_limit_help(enum kiln_sim_limit limit);
/* Set one from "name=value", "name=on|off" (on: its default, or 1). KILN_EUSAGE lists names. */
KILN_MUST_CHECK enum kiln_status kiln_sim_limits_set(struct kiln_sim_limits *limits,
                                                     const char *text, struct kiln_err *err);

/* Check everything that a program shows by itself. *limit (may be NULL) gets the one that is
 * violated, KILN_SIM_LIMIT_COUNT when it is none of them. The budgets are the runtime's to hold. */
KILN_MUST_CHECK enum kiln_status kiln_sim_check(const struct kiln_mil_graph *graph,
                                                const char *name,
                                                const struct kiln_sim_limits *limits,
                                                enum kiln_sim_limit *limit, struct kiln_err *err);
/* Check the surfaces that it is to be loaded with (bytes each): their number and that the tensors
 * fit, whatever the limits, and those limits that are about surfaces. */
KILN_MUST_CHECK enum kiln_status kiln_sim_check_surfaces(
    const struct kiln_mil_graph *graph, const char *name, const size_t *inputs, size_t n_inputs,
    const size_t *outputs, size_t n_outputs, const struct kiln_sim_limits *limits,
    enum kiln_sim_limit *limit, struct kiln_err *err);

#endif

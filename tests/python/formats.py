# SPDX-License-Identifier: MIT
"""What transformers and gguf say of models that kiln wrote, and models of theirs for kiln to read.

formats.py save OUT        OUT/CASE for every case: random weights saved by transformers, and the
                           logits of the tokens below as OUT/CASE.logits
formats.py check OUT       every folder OUT/CASE that kiln wrote: its logits against OUT/CASE.logits
formats.py gguf OUT        every OUT/CASE.DTYPE.gguf, tensor by tensor, against the folder OUT/CASE

Exit status 77: this Python lacks a package.
"""
import glob
import os
import sys

try:
    import gguf
    import numpy
    import torch
    import transformers
except ImportError:
    sys.exit(77)

SIZES = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, vocab_size=71, max_position_embeddings=64)
LINEAR = {"rope_type": "linear", "factor": 2.5}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 24}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
TOKENS = [(1 + 7 * i) % 71 for i in range(24)]

# name: (family, tied, theta, scaling, dtype, shard, more)
CASES = {
    "llama": ("Llama", True, 10000.0, None, torch.float32, None, {}),
    "llama-shards": ("Llama", False, 500.0, LLAMA3, torch.float32, "20KB", {}),
    "llama-linear-bf16": ("Llama", True, 10000.0, LINEAR, torch.bfloat16, None, {}),
    "qwen2": ("Qwen2", True, 1000000.0, None, torch.float16, None, {}),
    "qwen2-yarn": ("Qwen2", False, 10000.0, YARN, torch.float32, "30KB", {}),
    "qwen3": ("Qwen3", True, 1000000.0, None, torch.bfloat16, None, {"head_dim": 32}),
    "qwen3-untied": ("Qwen3", False, 10000.0, None, torch.float32, None, {"head_dim": 8}),
}


def logits_of(model):
    with torch.no_grad():
        return model.float()(torch.tensor([TOKENS])).logits[0].numpy()


def save(out):
    for number, (name, case) in enumerate(CASES.items()):
        family, tied, theta, scaling, dtype, shard, more = case
        rope = dict(scaling or {"rope_type": "default"}, rope_theta=theta)
        config = getattr(transformers, family + "Config")(
            **{**SIZES, **more}, tie_word_embeddings=tied, rope_parameters=rope)
        model = getattr(transformers, family + "ForCausalLM")(config)
        generator = torch.Generator().manual_seed(number)
        for key, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.data = 1 + 0.2 * noise if "norm" in key else (0.3 if "bias" in key else 0.15) * noise
        model = model.to(dtype)
        model.save_pretrained(f"{out}/{name}", **({"max_shard_size": shard} if shard else {}))
        if shard and not os.path.exists(f"{out}/{name}/model.safetensors.index.json"):
            sys.exit(f"{name}: transformers made no shards")
        # Read back, as the frequencies of RoPE were rounded with the weights.
        model = transformers.AutoModelForCausalLM.from_pretrained(
            f"{out}/{name}", dtype=torch.float32)
        logits_of(model).astype("<f4").tofile(f"{out}/{name}.logits")


def check(out):
    for path in sorted(glob.glob(f"{out}/*.logits")):
        folder = path[:-len(".logits")]
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True)
        if any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
            sys.exit(f"{folder}: {told}")
        kiln = numpy.fromfile(path, "<f4").reshape(len(TOKENS), -1)
        apart = float(numpy.abs(kiln - logits_of(model)).max())
        print(f"      {os.path.basename(folder)}: logits of transformers differ by {apart:.2g}")
        if not apart <= 1e-4:
            sys.exit(f"{folder}: logits differ by {apart}")


NAMES = {
    "token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight", "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
QUANT = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16,
         "bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}


def side_by_side(rows, heads):
    """Pairs of RoPE half a head apart to side by side, as GGUF's llama has them."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def wanted(tensor, state, config):
    name = tensor.name
    if name not in NAMES:
        _, layer, part, end = name.split(".")
        theirs = f"model.layers.{layer}.{NAMES[part]}.{end}"
    else:
        theirs = NAMES[name]
    value = state.pop(theirs)
    if config.model_type == "llama" and ("attn_q." in name or "attn_k." in name):
        heads = config.num_attention_heads if "attn_q." in name else config.num_key_value_heads
        value = side_by_side(value, heads)
    return value


def check_gguf(path):
    base, dtype = path[:-len(".gguf")].rsplit(".", 1)
    config = transformers.AutoConfig.from_pretrained(base)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    state = {key: p.detach().numpy() for key, p in model.named_parameters()}
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    if architecture != config.model_type:
        sys.exit(f"{path}: architecture {architecture}, expected {config.model_type}")
    for tensor in reader.tensors:
        got = gguf.dequantize(tensor.data, tensor.tensor_type)
        if tensor.name == "rope_freqs.weight":
            continue
        value = wanted(tensor, state, config)
        kind = QUANT["f32" if value.ndim == 1 else dtype]
        if tensor.tensor_type != kind:
            sys.exit(f"{path}: {tensor.name} is {tensor.tensor_type}, expected {kind}")
        want = gguf.dequantize(gguf.quantize(value, kind), kind)
        if not numpy.array_equal(got.reshape(want.shape), want):
            sys.exit(f"{path}: {tensor.name} differs by {numpy.abs(got - want).max()}")
    if state:
        sys.exit(f"{path}: lacks {sorted(state)}")


if sys.argv[1] == "save":
    save(sys.argv[2])
elif sys.argv[1] == "check":
    check(sys.argv[2])
else:
    for found in sorted(glob.glob(f"{sys.argv[2]}/*.gguf")):
        check_gguf(found)

# SPDX-License-Identifier: MIT
"""Reference folders of model families, made with PyTorch and transformers in float64.

families.py OUT writes OUT/CASE for every case below, as `kiln verify --reference` reads it:

  reference.json  batch, steps, AdamW's constants, the loss of every step; where documents are
                  masked, the id that begins one and the id that is never a target
  model.bin       random weights in kiln's own format (docs/formats.md)
  tokens.u16      a step after another, batch rows of seq + 1 ids
  grads.f32       gradients of the first step, before clipping, every role over all layers in turn
  logits.f32      beside those: logits [seq, vocab] of the first row of the first step

Exit status 77: this Python lacks PyTorch or transformers.
"""
import json
import math
import os
import struct
import sys

try:
    import torch
    import transformers
except ImportError:
    sys.exit(77)

BATCH, SEQ, STEPS, VOCAB, LAYERS = 2, 40, 3, 61, 2
ADAMW = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1,
         "clip_grad_norm": 1.0}

SIZES = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=LAYERS,
             num_attention_heads=6, num_key_value_heads=2, vocab_size=VOCAB,
             max_position_embeddings=SEQ, attention_dropout=0.0)
LINEAR = {"rope_type": "linear", "factor": 2.5}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 24}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
YARN_ALL = dict(YARN, beta_fast=4.0, beta_slow=0.5, attention_factor=0.8)

# name: (config, model, theta, eps, tied, scaling, more)
CASES = {
    "llama-linear": ("Llama", 10000.0, 1e-5, True, LINEAR, {}),
    "llama-llama3": ("Llama", 500.0, 1e-5, False, LLAMA3, {}),
    "llama-yarn": ("Llama", 10000.0, 1e-6, True, YARN, {"head_dim": 12}),
    "qwen2": ("Qwen2", 10000.0, 1e-6, True, None, {}),
    "qwen2-untied-yarn": ("Qwen2", 100000.0, 1e-6, False, YARN_ALL, {}),
    "qwen3": ("Qwen3", 10000.0, 1e-6, True, None, {"head_dim": 16}),
    "qwen3-untied": ("Qwen3", 1000000.0, 1e-5, False, None, {"head_dim": 6}),
    "llama-documents": ("Llama", 10000.0, 1e-5, True, None, {}),
    "qwen3-documents": ("Qwen3", 10000.0, 1e-6, False, None, {"head_dim": 16}),
}

# Documents begin with an id, and PyTorch's attention gets a block-diagonal causal mask; another id
# is never a target.
BEGIN, NO_TARGET = 3, 5
MASKED = ("llama-documents", "qwen3-documents")


def make(name):
    family, theta, eps, tied, scaling, more = CASES[name]
    rope = dict(scaling or {"rope_type": "default"}, rope_theta=theta)
    config = getattr(transformers, family + "Config")(
        **{**SIZES, **more}, rms_norm_eps=eps, tie_word_embeddings=tied, rope_parameters=rope)
    config._attn_implementation = "sdpa" if name in MASKED else "eager"
    model = getattr(transformers, family + "ForCausalLM")(config)
    generator = torch.Generator().manual_seed(sum(name.encode()))
    for key, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if key.endswith("norm.weight"):
            p.data = 1 + 0.3 * noise
        elif key.endswith(".bias"):
            p.data = 0.5 * noise
        else:
            p.data = noise * (0.5 if "embed" in key else 1.2 / math.sqrt(p.shape[-1]))
    # fp32 numbers, computed with in float64. What transformers keeps in fp32 are the angles.
    return config, model.double()


def pairs(tensor, head_size):
    """Rows of q and k: halves of a head become neighbours."""
    rows = tensor.reshape(-1, 2, head_size // 2, *tensor.shape[1:])
    return rows.transpose(1, 2).reshape(tensor.shape)


LAYERED = {
    "rms_att": "input_layernorm.weight", "wq": "self_attn.q_proj.weight",
    "wk": "self_attn.k_proj.weight", "wv": "self_attn.v_proj.weight",
    "bq": "self_attn.q_proj.bias", "bk": "self_attn.k_proj.bias", "bv": "self_attn.v_proj.bias",
    "rms_q": "self_attn.q_norm.weight", "rms_k": "self_attn.k_norm.weight",
    "wo": "self_attn.o_proj.weight", "rms_ffn": "post_attention_layernorm.weight",
    "w1": "mlp.gate_proj.weight", "w3": "mlp.up_proj.weight", "w2": "mlp.down_proj.weight",
}
TURNED = ("wq", "wk", "bq", "bk", "rms_q", "rms_k")


def tensor_of(named, role, layer, head_size):
    """A tensor of kiln's, or None where the model has none."""
    whole = {"embed": "model.embed_tokens.weight", "final": "model.norm.weight",
             "head": "lm_head.weight"}
    name = whole.get(role) or f"model.layers.{layer}.{LAYERED[role]}"
    tensor = named.get(name)
    return pairs(tensor, head_size) if tensor is not None and role in TURNED else tensor


def in_table_order(named, head_size):
    order = [("embed", 0)]
    order += [(role, layer) for layer in range(LAYERS) for role in LAYERED]
    order += [("final", 0), ("head", 0)]
    found = (tensor_of(named, role, layer, head_size) for role, layer in order)
    return [t for t in found if t is not None]


def in_file_order(named, head_size):
    order = [("embed", 0)]
    for role in ("rms_att", "wq", "wk", "wv", "wo", "rms_ffn", "w1", "w2", "w3"):
        order += [(role, layer) for layer in range(LAYERS)]
    order += [("final", 0), ("head", 0)]
    for role in ("bq", "bk", "bv", "rms_q", "rms_k"):
        order += [(role, layer) for layer in range(LAYERS)]
    found = (tensor_of(named, role, layer, head_size) for role, layer in order)
    return [t for t in found if t is not None]


def as_bytes(tensors):
    return b"".join(t.detach().to(torch.float32).contiguous().numpy().tobytes() for t in tensors)


def header(config, name, parameters):
    family, theta, eps, tied, scaling, _ = CASES[name]
    head_size = getattr(config, "head_dim", None) or SIZES["hidden_size"] // SIZES["num_attention_heads"]
    s = scaling or {"rope_type": "default"}
    kind = {"default": 0, "linear": 1, "llama3": 2, "yarn": 3}[s["rope_type"]]
    sizes = struct.pack(
        "<9Q2d3Q6dQ", SIZES["hidden_size"], SIZES["intermediate_size"], LAYERS,
        SIZES["num_attention_heads"], SIZES["num_key_value_heads"], head_size, VOCAB, SEQ, tied,
        eps, theta, family == "Qwen2", family == "Qwen3", kind, s.get("factor", 0),
        s.get("low_freq_factor", 0), s.get("high_freq_factor", 0), s.get("beta_fast", 0),
        s.get("beta_slow", 0), s.get("attention_factor", 0),
        s.get("original_max_position_embeddings", 0))
    return head_size, b"KILNMD01" + struct.pack("<2I", 0x01020304, 1) + sizes + struct.pack("<Q", parameters)


def make_tokens(name):
    """[STEPS, BATCH, SEQ + 1]; documents of many lengths, some of which began before the window."""
    generator = torch.Generator().manual_seed(1)
    shape = (STEPS, BATCH, SEQ + 1)
    tokens = torch.randint(VOCAB, shape, generator=generator)
    if name in MASKED:
        begins = torch.rand(shape, generator=generator) < 0.12
        begins[0, 0, :3] = torch.tensor([False, True, True])
        tokens = torch.where(begins, BEGIN, torch.where(tokens == BEGIN, BEGIN + 1, tokens))
        tokens[torch.rand(shape, generator=generator) < 0.1] = NO_TARGET
    return tokens


def document_mask(inputs):
    """[batch, 1, seq, seq], true where a query sees a key; None: what is causal."""
    document = (inputs == BEGIN).cumsum(1)
    same = document[:, :, None] == document[:, None, :]
    return (same & torch.ones(SEQ, SEQ, dtype=torch.bool).tril())[:, None]


def loss_of(name, model, rows):
    inputs, targets = rows[:, :-1], rows[:, 1:].reshape(-1)
    mask = document_mask(inputs) if name in MASKED else None
    logits = model(input_ids=inputs, attention_mask=mask).logits.reshape(-1, VOCAB)
    ignored = NO_TARGET if name in MASKED else -100
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=ignored)


def train(name, model, tokens):
    """Losses of all steps, and the gradients of the first."""
    decayed = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": ADAMW["weight_decay"]},
         {"params": others, "weight_decay": 0.0}],
        lr=ADAMW["lr"], betas=(ADAMW["beta1"], ADAMW["beta2"]), eps=ADAMW["eps"])
    losses, gradients = [], None
    for step in tokens:
        loss = loss_of(name, model, step)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        if gradients is None:
            gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
        torch.nn.utils.clip_grad_norm_(model.parameters(), ADAMW["clip_grad_norm"])
        optimizer.step()
    return losses, gradients


def write(out, name):
    folder = os.path.join(out, name)
    os.makedirs(folder)
    config, model = make(name)
    tokens = make_tokens(name)
    named = dict(model.named_parameters())
    head_size, head = header(config, name, sum(p.numel() for p in named.values()))
    files = {
        "model.bin": head + as_bytes(in_table_order(named, head_size)),
        "tokens.u16": tokens.to(torch.int16).numpy().tobytes(),
        "logits.f32": as_bytes([model(input_ids=tokens[0, :1, :-1]).logits[0]]),
    }
    losses, gradients = train(name, model, tokens)
    files["grads.f32"] = as_bytes(in_file_order(gradients, head_size))
    reference = {"batch": BATCH, "steps": STEPS, "adamw": ADAMW, "loss": losses}
    if name in MASKED:
        reference.update(begin=BEGIN, no_target=NO_TARGET)
    files["reference.json"] = json.dumps(reference).encode()
    for file, data in files.items():
        with open(os.path.join(folder, file), "wb") as f:
            f.write(data)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        write(sys.argv[1], case)

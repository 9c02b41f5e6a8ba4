#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The training step of kiln's models in PyTorch, timed: what kiln is measured against.

The same mathematics as kiln: RMSNorm, rotary embedding of interleaved pairs, grouped-query causal
attention (scaled_dot_product_attention), SwiGLU, a head tied to the embedding, mean cross entropy
over all tokens. Written the way PyTorch runs it fastest on a CPU: eager, torch.compile or its
max-autotune, fp32 or bf16 autocast, gradients dropped between steps, fused AdamW. Parameters stay
fp32: a model of bf16 parameters is another job, whose updates are lost below 2^-8 of a weight.

    python bench/peers/pytorch.py --model stories110m --batch 8 --seq 256 --mode both --dtype bf16

Prints one JSON object a line for each mode and dtype; times are medians over --reps after --warmup,
with the smallest and largest beside them. Each combination runs in a process of its own, so that
memory belongs to it alone: peak_bytes over the measured steps, peak_rss_bytes with loading and
compiling. torch.compile needs a C++ compiler (Debian: g++).
bench/peers/compare sets these numbers beside those of `kiln bench`.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

# dim, hidden, layers, heads, kv heads, vocabulary
PRESETS = {
    "stories15m": (288, 768, 6, 6, 6, 32000),
    "stories42m": (512, 1376, 8, 8, 8, 32000),
    "stories110m": (768, 2048, 12, 12, 12, 32000),
    "llama1b": (2048, 5504, 22, 16, 16, 32000),
    "llama7b": (4096, 11008, 32, 32, 32, 32000),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="stories110m", choices=sorted(PRESETS))
    for name in ("dim", "hidden", "layers", "heads", "kv-heads", "vocab"):
        parser.add_argument("--" + name, type=int, help="instead of the preset's")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--mode", default="both", choices=("eager", "compile", "autotune", "both"))
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "fp32", "both"))
    parser.add_argument("--reps", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    args = parser.parse_args()
    args.label = args.model
    preset = dict(zip(("dim", "hidden", "layers", "heads", "kv_heads", "vocab"), PRESETS[args.model]))
    for name, value in preset.items():
        if getattr(args, name) not in (None, value):
            args.label = "custom"
        if getattr(args, name) is None:
            own_heads = name == "kv_heads" and args.heads is not None
            setattr(args, name, args.heads if own_heads else value)
    if args.dim % args.heads or args.heads % args.kv_heads or (args.dim // args.heads) % 2:
        parser.error("heads must divide dim, kv-heads divide heads, dim/heads be even")
    return args


def each_alone(args):
    """Run every combination of mode and dtype in its own process."""
    modes = ("eager", "compile") if args.mode == "both" else (args.mode,)
    dtypes = ("bf16", "fp32") if args.dtype == "both" else (args.dtype,)
    for mode in modes:
        for dtype in dtypes:
            # The last of repeated options counts.
            command = [sys.executable, __file__, *sys.argv[1:], "--mode", mode, "--dtype", dtype]
            subprocess.run(command, check=True)


def build(args):
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    head_size = args.dim // args.heads

    class RMSNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(args.dim))

        def forward(self, x):
            x = x.float()
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight

    def rotate(x, cos, sin):  # [B, T, heads, K], pairs (2i, 2i+1)
        even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
        return turned.flatten(-2).type_as(x)

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            q, kv = args.heads * head_size, args.kv_heads * head_size
            self.split = (q, kv, kv)
            self.attn_norm, self.ffn_norm = RMSNorm(), RMSNorm()
            self.wqkv = nn.Linear(args.dim, q + 2 * kv, bias=False)
            self.wo = nn.Linear(q, args.dim, bias=False)
            self.w13 = nn.Linear(args.dim, 2 * args.hidden, bias=False)
            self.w2 = nn.Linear(args.hidden, args.dim, bias=False)

        def forward(self, x, cos, sin):
            q, k, v = (t.unflatten(-1, (-1, head_size))
                       for t in self.wqkv(self.attn_norm(x)).split(self.split, -1))
            q, k, v = (t.transpose(1, 2) for t in (rotate(q, cos, sin), rotate(k, cos, sin), v))
            if args.kv_heads != args.heads:
                k, v = (t.repeat_interleave(args.heads // args.kv_heads, 1) for t in (k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.wo(y.transpose(1, 2).flatten(-2))
            gate, value = self.w13(self.ffn_norm(x)).chunk(2, -1)
            return x + self.w2(F.silu(gate) * value)

    class Llama(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(args.vocab, args.dim)
            self.layers = nn.ModuleList(Layer() for _ in range(args.layers))
            self.norm = RMSNorm()
            self.head = nn.Linear(args.dim, args.vocab, bias=False)
            self.head.weight = self.embed.weight
            for p in self.parameters():
                if p.dim() == 2:
                    nn.init.normal_(p, std=0.02)
            pairs = torch.arange(0, head_size, 2).float() / head_size
            angle = torch.arange(args.seq)[:, None] * 10000.0**-pairs
            self.register_buffer("cos", angle.cos()[:, None, :])
            self.register_buffer("sin", angle.sin()[:, None, :])

        def forward(self, tokens, targets):
            x = self.embed(tokens)
            for layer in self.layers:
                x = layer(x, self.cos, self.sin)
            logits = self.head(self.norm(x))
            return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return Llama()


def reset_peak():
    """Let VmHWM count from here. False where the system cannot."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        return True
    except OSError:
        return False


def status_bytes(key):
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) * 1024


def resident():
    return status_bytes("VmRSS") if os.path.exists("/proc/self/status") else 0


def measure(args):
    import torch

    imported = resident()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = build(args)
    parameters = sum(p.numel() for p in model.parameters())
    step = model
    if args.mode != "eager":
        step = torch.compile(model, mode=None if args.mode == "compile" else "max-autotune-no-cudagraphs")
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    tokens, targets = torch.randint(0, args.vocab, (2, args.batch, args.seq)).unbind(0)
    names = ("forward_ms", "backward_ms", "forward_backward_ms", "update_ms", "norm_ms")
    times = {name: [] for name in names}
    reset, whole = False, 0
    for rep in range(args.warmup + args.reps):
        if rep == args.warmup:
            whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            reset = reset_peak()
        adamw.zero_grad(set_to_none=True)
        t0 = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bf16"):
            loss = step(tokens, targets)
        t1 = time.perf_counter()
        loss.backward()
        t2 = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        t3 = time.perf_counter()
        adamw.step()
        t4 = time.perf_counter()
        if rep >= args.warmup:
            for name, seconds in zip(names, (t1 - t0, t2 - t1, t2 - t0, t4 - t3, t3 - t2)):
                times[name].append(1e3 * seconds)
    result = {"peer": "pytorch", "version": torch.__version__, "mode": args.mode, "dtype": args.dtype}
    result["model"] = args.label
    for name in ("dim", "hidden", "layers", "heads", "kv_heads", "vocab"):
        result[name] = getattr(args, name)
    result.update(parameters=parameters, batch=args.batch, seq=args.seq, threads=args.threads,
                  reps=args.reps, loss=round(loss.item(), 4))
    for name, values in times.items():
        result[name] = round(statistics.median(values), 3)
        result[name + "_min"] = round(min(values), 3)
        result[name + "_max"] = round(max(values), 3)
    result["tokens_per_s"] = round(
        args.batch * args.seq / (result["forward_backward_ms"] + result["update_ms"]) * 1e3, 1)
    if reset:
        result["peak_bytes"] = status_bytes("VmHWM")
    result["peak_rss_bytes"] = max(whole, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    result["import_bytes"] = imported  # of it, before there is a model
    result.setdefault("peak_bytes", result["peak_rss_bytes"])
    print(json.dumps(result), flush=True)


def main():
    args = arguments()
    if args.mode == "both" or args.dtype == "both":
        each_alone(args)
    else:
        measure(args)


if __name__ == "__main__":
    main()

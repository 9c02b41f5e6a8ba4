# SPDX-License-Identifier: MIT
"""Adapters that kiln wrote, loaded by peft beside a base model that kiln wrote: the same loss,
logits and gradients.

lora.py FOLDER   with base/ (a Hugging Face folder), adapter/ and gradients/ (adapters' layout, the
                 second holds their gradients), case.json: {"batch", "seq", "accum", "loss"},
                 tokens.u32 and targets.u32 [accum, batch, seq], logits.f32 [vocab] of the last
                 token of the first row

Exit status 77: this Python lacks PyTorch, transformers, peft or safetensors.
"""
import json
import os
import sys

try:
    import numpy
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file
except ImportError:
    sys.exit(77)

folder = sys.argv[1]


def path(name):
    return os.path.join(folder, name)


def check(what, found, wanted, limit):
    error = (found - wanted).norm().item() / max(wanted.norm().item(), 1e-30)
    if not error <= limit:
        sys.exit(f"{folder}: {what} differs by {error:.3g} of its norm, allowed {limit:g}")
    return error


with open(path("case.json")) as file:
    case = json.load(file)
shape = (case["accum"], case["batch"], case["seq"])
tokens, targets = (torch.from_numpy(numpy.fromfile(path(name + ".u32"), "<u4").astype("int64"))
                   .reshape(shape) for name in ("tokens", "targets"))

base = transformers.AutoModelForCausalLM.from_pretrained(path("base"), dtype=torch.float32,
                                                         attn_implementation="eager")
model = peft.PeftModel.from_pretrained(base, path("adapter"), is_trainable=True)
trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
wanted = load_file(path("gradients/adapter_model.safetensors"))
if sorted(k.replace(".default", "") for k in trained) != sorted(wanted):
    sys.exit(f"{folder}: peft trains {sorted(trained)}, the file has {sorted(wanted)}")

loss = 0.0
for i in range(case["accum"]):
    logits = model(tokens[i]).logits
    part = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[i].flatten())
    (part / case["accum"]).backward()
    loss += part.item() / case["accum"]
    if i == 0:
        last = logits[0, -1].detach()
check("loss", torch.tensor(loss), torch.tensor(case["loss"]), 1e-5)
own = torch.from_numpy(numpy.fromfile(path("logits.f32"), "<f4"))
if not (last - own).abs().max().item() <= 1e-4:
    sys.exit(f"{folder}: logits differ by {(last - own).abs().max().item():.3g}")
worst = max(check("gradient of " + name, wanted[name.replace(".default", "")], p.grad, 1e-4)
            for name, p in trained.items())
merged = model.merge_and_unload()(tokens[0]).logits[0, -1].detach()
if not (merged - own).abs().max().item() <= 1e-4:
    sys.exit(f"{folder}: merged by peft the logits differ by {(merged - own).abs().max().item()}")
print(f"      {os.path.basename(folder)}: {len(trained)} tensors, worst gradient {worst:.2g}, "
      f"logits {(last - own).abs().max().item():.2g}")

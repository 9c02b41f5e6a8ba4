# SPDX-License-Identifier: MIT
"""What the programs that measure kiln beside others share: which python, which machine, medians."""
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
KILN = str(ROOT / "build" / "kiln")


def has_torch(python):
    probe = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    return probe.returncode == 0


def find_python():
    """A python with PyTorch: $KILN_PYTHON, .venv, this one; else .venv is made."""
    if "KILN_PYTHON" in os.environ:
        return os.environ["KILN_PYTHON"]
    own = str(ROOT / ".venv" / "bin" / "python")
    for python in (own, sys.executable):
        if os.path.exists(python) and has_torch(python):
            return python
    print("installing torch into .venv (set KILN_PYTHON to use another python)", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(ROOT / ".venv")], check=True)
    subprocess.run([own, "-m", "pip", "install", "--quiet", "torch", "numpy"], check=True)
    return own


def run_json(command, env=None):
    """The last JSON object that a command prints. Ends the program when the command fails."""
    done = subprocess.run(command, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}")
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")][-1]


def median(rows, key):
    return statistics.median(row[key] for row in rows)


def extent(values):
    """Median, smallest, largest."""
    values = list(values)
    return statistics.median(values), min(values), max(values)


def threads_here():
    return len(os.sched_getaffinity(0))


def say(*text):
    print(*text, file=sys.stderr, flush=True)


def output_of(command, default="unknown"):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except OSError:
        return default
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else default


def machine():
    """The machine in words that say nothing of where it stands."""
    model, flags, memory = "unknown", set(), 0
    try:
        for line in open("/proc/cpuinfo", encoding="utf-8"):
            key, _, value = line.partition(":")
            if key.strip() == "model name" and model == "unknown":
                model = value.strip()
            if key.strip() in ("flags", "Features"):
                flags |= set(value.split())
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (OSError, ValueError):
        pass
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "bf16", "asimd")
    cache = output_of(["lscpu"], "")
    caches = [line.split(":")[1].strip() for line in cache.splitlines() if line.startswith(("L2", "L3"))]
    return {"cpu": model, "cpus": threads_here(), "flags": [f for f in wanted if f in flags],
            "caches": caches, "memory_gb": round(memory, 1), "system": platform.system(),
            "kernel": platform.release().split("-")[0],
            "huge_pages": bracketed("/sys/kernel/mm/transparent_hugepage/enabled"),
            "load": round(os.getloadavg()[0], 2)}


def bracketed(path):
    """The choice in [brackets] of a file of the kernel."""
    try:
        text = open(path, encoding="utf-8").read()
        return text[text.index("[") + 1: text.index("]")]
    except (OSError, ValueError):
        return "unknown"


def machine_line(m):
    return (f"{m['cpus']} CPUs of {m['cpu']} ({' '.join(m['flags']) or 'no vector flags known'}; "
            f"L2 {m['caches'][0] if m['caches'] else '?'}, L3 {m['caches'][-1] if m['caches'] else '?'}), "
            f"{m['memory_gb']} GB, {m['system']} {m['kernel']}, transparent huge pages: {m['huge_pages']}; "
            f"load when it began: {m['load']}")


def warn_if_busy():
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"the load of this machine is {load:.2f}: others work, and these figures say little")

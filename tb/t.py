import json, os, subprocess, sys
from tensorboard.backend.event_processing import event_accumulator
import tensorboard.compat as c
try:
    import tensorflow; print("tf")
except ImportError: print("stub")
os.makedirs("rolled")
board = event_accumulator.EventAccumulator("followed", size_guidance={"scalars": 0})
lines = []
for kept, more in (0, 20), (20, 20), (12, 5), (17, 9), (3, 40), (30, 0):
    lines = lines[:kept]
    for step in range(kept + 1, kept + more + 1):
        lines.append({"step": step, "loss": step + more / 64, "lr": 0.5, "ms": 10.0})
    with open("rolled/metrics.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    subprocess.run([sys.argv[1], "report", "rolled", "--tensorboard", "followed"], check=True, stdout=subprocess.DEVNULL)
    print(os.listdir("followed"))
    for i in range(3):
        board.Reload()
        got = [(event.step, event.value) for event in board.Scalars("loss")]
        print(kept, more, i, got == [(line["step"], line["loss"]) for line in lines])

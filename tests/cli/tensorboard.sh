#!/usr/bin/env bash
# A run's event file loads in TensorBoard with every scalar of metrics.jsonl, kill -9 in between
# included; CSV reads back equal.
. "$ROOT/tests/lib.sh"

for i in $(seq 1500); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
tiny=(--data text.txt --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259 --seq 64
    --batch 2 --lr 3e-3 --warmup 2 --threads 1)
events() { find "$1" -name 'events.out.tfevents.*' -size +0; }

# Killed twice, each time with an event file that the next process must repair.
train=("$KILN" train "${tiny[@]}" --steps 100000 --eval-every 10 --save-every 0 --out run --tensorboard)
for steps in 30 60; do
    started run "${train[@]}"
    lines run $steps
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null || true
    [ "$(events run | wc -l)" = 1 ] || fail "not one event file: $(events run)"
    train=("$KILN" train --resume run)
done
truncate -s -3 "$(events run)"
done_steps=$(wc -l <run/metrics.jsonl)
expect 0 "$KILN" train --resume run --steps $((done_steps + 20))
[ "$(events run | wc -l)" = 1 ] || fail "not one event file: $(events run)"

# Exported twice: the second time there is nothing to add.
expect 0 "$KILN" report run --tensorboard board --csv run.csv
says stdout 'events: board'
before=$(cksum "$(events board)")
expect 0 "$KILN" report run --tensorboard board
[ "$before" = "$(cksum "$(events board)")" ] || fail 'an export that had nothing to add wrote'
[ ! -e compare.html ] || fail 'a page that nobody asked for'
mkdir copy
cp run/*.json run/*.jsonl copy
expect 0 "$KILN" report run ./copy/ --tensorboard both
[ -n "$(events both/run)" ] || fail 'no event file for a run of several'
[ -n "$(events both/copy)" ] || fail 'no event file for the other run'
expect 2 "$KILN" report run copy --csv both.csv
expect 1 "$KILN" report nowhere --csv no.csv
says stderr nowhere
[ "$(head -c 10 run.csv)" = step,loss, ] || fail "the header: $(head -n 1 run.csv)"
[ "$(wc -l <run.csv)" = $(($(wc -l <run/metrics.jsonl) + 1)) ] || fail "CSV has not a line for every step"

need_python tensorboard numpy
# A TensorBoard that is open while the run is rolled back, and goes on, forgets what is no more.
"$PYTHON" - "$KILN" <<'EOF' || fail 'an open TensorBoard shows what is no more'
import json, os, subprocess, sys
from tensorboard.backend.event_processing import event_accumulator
os.makedirs("rolled")
board = event_accumulator.EventAccumulator("followed", size_guidance={"scalars": 0})
lines = []
for kept, more in (0, 20), (20, 20), (12, 5), (17, 9), (3, 40), (30, 0):
    lines = lines[:kept]
    for step in range(kept + 1, kept + more + 1):
        lines.append({"step": step, "loss": step + more / 64, "lr": 0.5, "ms": 10.0})
    with open("rolled/metrics.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    subprocess.run([sys.argv[1], "report", "rolled", "--tensorboard", "followed"], check=True,
                   stdout=subprocess.DEVNULL)
    board.Reload()
    got = [(event.step, event.value) for event in board.Scalars("loss")]
    assert got == [(line["step"], line["loss"]) for line in lines], (kept, more, got)
    sizes = sorted(entry.stat().st_size for entry in os.scandir("followed"))
    assert sizes[-1] > 0 and sum(sizes[:-1]) == 0 and len(sizes) <= 2, sizes
EOF
"$PYTHON" "$ROOT/tests/python/events.py" run/metrics.jsonl run/samples.jsonl run board --csv run.csv || fail 'not equal'

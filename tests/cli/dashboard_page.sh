#!/usr/bin/env bash
# The dashboard's page in a headless browser, beside a run that trains. KILN_PICTURES=FOLDER keeps
# what it looks like (docs/images).
. "$ROOT/tests/lib.sh"
need_python playwright
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

for i in $(seq 4000); do echo "Day $i: the kiln was lit, and $((i * 7 % 90)) pots came out whole."; done >text.txt
tiny=(--data text.txt --model stories15m --dim 48 --hidden 96 --layers 2 --heads 4 --kv-heads 2
    --seq 64 --batch 4 --threads 1 --trace-steps 2)
mkdir runs
expect 0 "$KILN" train "${tiny[@]}" --accum 4 --steps 120 --lr 3e-3 --sample-every 40 --out runs/hot
expect 0 "$KILN" train "${tiny[@]}" --accum 2 --steps 60 --lr 3e-4 --device sim --out runs/npu
started runs/book "$KILN" train "${tiny[@]}" --accum 40 --steps 100000 --lr 1e-3 --warmup 20 \
    --eval-every 25 --sample-every 25 --save-every 0 --out runs/book
training=$pid
lines runs/book 40
"$KILN" dashboard --port 0 --json >where 2>&1 &
for _ in $(seq 500); do
    address=$(grep -o 'http://[^"]*' where) || true
    [ -z "$address" ] || break
    sleep 0.01
done
[ -n "$address" ] || { cat where; fail 'no address'; }

got=0
"$PYTHON" "$ROOT/tests/python/dashboard_page.py" "$address" book hot ${KILN_PICTURES:+"$KILN_PICTURES"} >page 2>&1 || got=$?
[ $got != 77 ] || skip "$(tail -n 1 page)"
[ $got = 0 ] || { cat page; fail 'the page'; }
pid=$training
ends 130
grep -q '"peaks"' runs/book/run.json || fail 'the rate was not changed'

#!/usr/bin/env bash
# The programs of bench/ that set kiln bench beside itself: they run, go on where they stood, and say
# nothing where there is nothing to say. No time is judged.
# alone: it measures
. "$ROOT/tests/lib.sh"

command -v python3 >/dev/null || skip 'python3 is absent'
small=(--dim 64 --hidden 96 --heads 4 --layers 2 --vocab 300 --seq 16 --batch 1 --steps 1)

expect 0 "$ROOT/bench/ab" "$KILN" "$KILN" --rounds 2 -- "${small[@]}"
says stdout 'B / A'
says stdout 'step_ms'
says stdout 'ffn_bwd'
says stdout 'fewer than 7 rounds: no verdict'
KILN_CPU_B=ref expect 0 "$ROOT/bench/ab" "$KILN" "$KILN" --rounds 1 -- "${small[@]}" --precision fp32
says stdout 'ref kernels'
expect 1 "$ROOT/bench/ab" no-such-build "$KILN"
says stderr 'neither a program nor a git revision'
expect 1 "$ROOT/bench/ab" "$KILN" "$KILN" --rounds 1 -- --precision fp8
says stderr fp8

scaling=(--kiln "$KILN" --models stories15m --seqs 16 --threads 1 --again 0 --csv cells.csv)
expect 0 "$ROOT/bench/scaling" "${scaling[@]}" --batches 1
[ "$(wc -l <cells.csv)" = 2 ] || fail "not a header and a cell: $(cat cells.csv)"
expect 0 "$ROOT/bench/scaling" "${scaling[@]}" --batches 1,2
says stdout '| stories15m | 1 | 16 |'
[ "$(wc -l <cells.csv)" = 3 ] || fail "a cell was measured again, or none: $(cat cells.csv)"
expect 0 "$ROOT/bench/scaling" "${scaling[@]}" --batches 1,2,4 --seconds 0
says stdout '1 cells are not measured yet'

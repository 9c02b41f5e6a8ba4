#!/usr/bin/env bash
# Gradients that travel between ranks as bf16: what every rank has then, and what is refused.
. "$ROOT/tests/lib.sh"
. "$ROOT/tests/ranks_lib.sh"
bf16=(--reduce-precision bf16)

# floats FILE NAME OUT: of a region of a state file, a line each, in hexadecimal.
floats() {
    region "$1" "$2" region.bytes
    od -An -v -tx4 -w4 region.bytes >"$3"
}

# All ranks die before their first update, with the sum of their gradients, and before their third,
# with weights that came of two.
for n in 2 3; do
    for how in fp32 bf16; do
        KILN_KILL_AT=update:1 expect 137 ranks "$n" train "${small[@]}" --steps 10 --out "$how$n" --reduce-precision $how
        floats "$how$n/state.kiln" gradients "$how$n.sums"
        for ((r = 1; r < n; r++)); do
            floats "$how$n/ranks/$r/state.kiln" gradients theirs
            cmp -s "$how$n.sums" theirs || fail "$how: rank $r of $n has other sums than rank 0"
        done
    done
    grep -v '0000$' "bf16$n.sums" >wide && fail "$n ranks: a sum is no bf16: $(head -n 1 wide)"
    grep -v '0000$' "fp32$n.sums" >wide || fail "$n ranks: sums in fp32 are bf16"
    # Each of n addends is off by 2^-9 of itself at most, the sum by as much again.
    paste "fp32$n.sums" "bf16$n.sums" | awk '
        function value(hex,    i, bits, exponent, sign) {
            for (i = 1; i <= 8; i++) bits = bits * 16 + index("0123456789abcdef", substr(hex, i, 1)) - 1
            sign = bits >= 2147483648 ? -1 : 1
            bits %= 2147483648
            exponent = int(bits / 8388608)
            return sign * (bits % 8388608 / 8388608 + (exponent > 0)) * 2 ^ (exponent - 127 + (exponent == 0))
        }
        { a = value($1); b = value($2); off += (a - b) ^ 2; all += a ^ 2 }
        END { ratio = sqrt(off / all); exit !(NR > 100000 && ratio > 2 ^ -12 && ratio < 2 ^ -8) }' ||
        fail "$n ranks: sums in bf16 are not what those in fp32 are, rounded"
    rm -rf "bf16$n"
    KILN_KILL_AT=update:5 expect 137 ranks "$n" train "${small[@]}" --steps 10 --out "bf16$n" "${bf16[@]}"
    floats "bf16$n/state.kiln" weights ours
    for ((r = 1; r < n; r++)); do
        floats "bf16$n/ranks/$r/state.kiln" weights theirs
        cmp -s ours theirs || fail "rank $r of $n has other weights than rank 0"
    done
    expect 0 ranks "$n" train --resume "bf16$n" --json
    died=$(hash_of stdout)
    expect 0 ranks "$n" train "${small[@]}" --steps 10 --out "whole$n" --json "${bf16[@]}"
    [ "$(hash_of stdout)" = "$died" ] || fail "$n ranks: a death changes bits"
done

# It trains as well, says so, and goes on with others.
expect 0 ranks 2 train "${small[@]}" --steps 60 --out plain
expect 0 ranks 2 train "${small[@]}" --steps 60 --out narrow "${bf16[@]}"
says stdout 'sums in the fastest order, in bf16'
last() { sed -n 's/.*"loss":\([^,]*\),.*/\1/p' "$1/metrics.jsonl" | tail -n 1; }
awk -v a="$(last plain)" -v b="$(last narrow)" 'BEGIN { exit !(b < 1.5 && (a - b) ^ 2 < 0.05 ^ 2) }' ||
    fail "loss $(last narrow) with sums in bf16, $(last plain) without"
"$KILN" inspect narrow/state.kiln --json | grep -q '/r2/bf16-sums"' || fail "no part of the numerics id"
expect 0 ranks 3 train --resume narrow --steps 62
says stderr 'losses may differ in the last digits'
expect 0 "$MPI_KILN" train --resume narrow --steps 64

# Stages of a pipeline get each other's gradients so, too.
for at in 1 3; do
    rm -rf staged
    KILN_KILL_AT=update:$at expect 137 ranks 4 train "${small[@]}" --steps 10 --pipeline 2 --out staged "${bf16[@]}"
    floats staged/state.kiln gradients staged.sums
    floats staged/state.kiln weights ours
    for r in 1 2 3; do
        floats staged/ranks/$r/state.kiln weights theirs
        cmp -s ours theirs || fail "pipeline: rank $r has other weights than rank 0"
    done
done

expect 2 ranks 2 train "${small[@]}" --steps 2 --out both "${bf16[@]}" --deterministic
says stderr 'depends on the number of ranks'
expect 2 ranks 2 train --resume narrow --steps 66 --reduce-precision fp32
says stderr 'cannot change when a run is resumed'
expect 2 "$KILN" plan "${bf16[@]}"
says stderr 'is of several ranks'
sent() { "$KILN" plan --ranks 64 --json "$@" | sed -n 's/.*"bytes_sent": *\([0-9.e+]*\).*/\1/p'; }
awk -v wide="$(sent)" -v narrow="$(sent "${bf16[@]}")" 'BEGIN { exit !(narrow > 0 && narrow < 0.51 * wide) }' ||
    fail "the plan sends $(sent "${bf16[@]}") bytes in bf16, $(sent) in fp32"

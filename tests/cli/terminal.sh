#!/usr/bin/env bash
# What a terminal shows of training, whatever its width, and what a pipe gets.
. "$ROOT/tests/lib.sh"
script --version 2>/dev/null | grep util-linux >/dev/null || skip 'script(1) of util-linux is absent'

for i in $(seq 1500); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
tiny=(--data text.txt --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259 --seq 32
    --batch 1 --accum 2 --lr 3e-3 --warmup 2 --steps 40 --save-every 16 --threads 1 --eval-windows 4)
unset NO_COLOR LC_ALL LC_CTYPE

# on_terminal COLUMNS ROWS NAME=VALUE... -- FLAG...: trains in a terminal of that size; its bytes go
# to raw, without the lines that script adds.
on_terminal() {
    local columns=$1 rows=$2 command
    local -a setting=()
    shift 2
    while [ "$1" != -- ]; do setting+=("$1"); shift; done
    shift
    rm -rf run
    command=$(printf '%q ' "$KILN" train "${tiny[@]}" --out run "$@")
    env TERM=xterm LANG=C.UTF-8 "${setting[@]}" script -qec "stty cols $columns rows $rows; $command" \
        typescript >/dev/null || { cat typescript; fail "exit $? on a terminal of $columns columns"; }
    sed '1d;$d' typescript >raw
}

# screen: what is seen of raw at the end, rows that scrolled away included.
screen() {
    LC_ALL=C awk 'BEGIN { RS = "^$"; ORS = "" } {
        row = column = last = 0
        while (length($0) > 0) {
            if (match($0, /^\033\[[0-9]*A/)) row -= substr($0, 3, RLENGTH - 3)
            else if (match($0, /^\033\[K/)) line[row] = substr(line[row], 1, column)
            else if (match($0, /^\033\[J/)) {
                line[row] = substr(line[row], 1, column)
                for (i = row + 1; i <= last; i++) line[i] = ""
            }
            else if (match($0, /^\033\[[0-9]*m/)) ;
            else if (match($0, /^\r/)) column = 0
            else if (match($0, /^\n/)) row++
            else if (match($0, /^[^\033\r\n]+/)) {
                line[row] = substr(line[row], 1, column) substr($0, 1, RLENGTH) \
                    substr(line[row], column + RLENGTH + 1)
                column += RLENGTH
            } else { print "an escape sequence that nobody knows: " substr($0, 1, 10); exit 1 }
            if (row < 0) { print "above the first row"; exit 1 }
            last = row > last ? row : last
            $0 = substr($0, RLENGTH + 1)
        }
        for (i = 0; i <= last; i++) print line[i] "\n"
    }' raw
}
# Progress lines, as they were drawn one after the other, without escape sequences.
drawn() { tr '\r' '\n' <raw | sed 's/\x1b\[[0-9]*[mKAJ]//g' | grep '^step '; }

for columns in 40 80 200; do
    on_terminal $columns 50 -- --eval-every 10
    screen >seen
    [ "$(drawn | awk -v most=$columns 'length($0) >= most' | wc -l)" = 0 ] ||
        fail "a line is too long for $columns columns: $(drawn | sort -u | head -n 3)"
    [ "$(grep -c '^step.*\(held-out\|val\) [0-9]' seen)" = 4 ] || { cat seen; fail 'not one line for each evaluation'; }
    [ "$(grep -c '^step' seen)" = 4 ] || { cat seen; fail 'lines stay that should not'; }
    [ "$(grep -c ' smoothed' seen)" = 1 ] || { cat seen; fail 'not one curve at the end'; }
    grep -q '^saved step 16' seen || { cat seen; fail 'no line for a checkpoint'; }
    grep -q $'\033\[32m\(held-out\|val\)' raw || fail 'a better held-out loss is not green'
    grep -q $'\033\[2m' raw || fail 'the steps of the curve are not faint'
    case $columns in
        40) drawn | grep -q 'lr ' && fail 'the learning rate has no room in 40 columns' ;;
        80) drawn | grep -v 'held-out' | grep -vq 'tok/s' && fail 'the speed has room in 80 columns' ;;
        *) drawn | grep -vq 'GFLOP/s.* MB$' && fail 'all has room in 200 columns' ;;
    esac
done
[ "$(drawn | wc -l)" -lt 40 ] || fail 'every step is drawn, however short'

# The curve above the line: drawn at every evaluation, seen once.
on_terminal 80 50 -- --eval-every 5 --curve --sample-every 20
screen >seen
[ "$(tr '\r' '\n' <raw | grep -c ' smoothed')" -ge 8 ] || fail 'the curve is not drawn at every evaluation'
[ "$(grep -c ' smoothed' seen)" = 1 ] || { cat seen; fail 'not one curve'; }
[ "$(grep -c '^step.*held-out' seen)" = 8 ] || { cat seen; fail 'lines above the curve are lost'; }
[ "$(grep -c -e '^--- a sample after step' -e '^saved step' seen)" = 4 ] || { cat seen; fail 'events are lost'; }
grep -q '^done: 40 steps' seen || { cat seen; fail 'the end is lost'; }
LC_ALL=C grep -q $'\xe2\xa0' seen || fail 'no braille'
# A low terminal is for the line; the curve is for the end.
on_terminal 80 12 -- --eval-every 5 --curve
[ "$(tr '\r' '\n' <raw | grep -c ' smoothed')" = 1 ] || fail 'a curve where there is no room'

# No colours with NO_COLOR, though lines are rewritten; neither on a dumb terminal, nor where the
# terminal is unknown.
on_terminal 80 50 NO_COLOR=1 -- --eval-every 10 --curve
grep -q $'\033\[[0-9]*m' raw && fail 'colours in spite of NO_COLOR'
grep -q $'\033\[K' raw || fail 'NO_COLOR takes more than colours'
on_terminal 80 50 NO_COLOR= -- --eval-every 10
grep -q $'\033\[32m' raw || fail 'an empty NO_COLOR takes colours'
for term in dumb ''; do
    on_terminal 80 50 TERM=$term -- --eval-every 10 --log-every 5
    tr -d '\r' <raw >plain
    grep -q $'\033' plain && fail "an escape sequence where TERM is '$term'"
    [ "$(grep -c '^step' plain)" = 8 ] || { cat plain; fail 'not every fifth step'; }
done

# Without UTF-8 all is ASCII.
on_terminal 80 50 LANG=C -- --eval-every 10 --curve --sample-every 0
LC_ALL=C grep -q $'[\x80-\xff]' raw && fail 'not ASCII in the locale C'
LC_ALL=C grep -q '\*\*' raw || fail 'no curve in ASCII'

# A run that other processes take up: the curve at the end has all of its steps.
on_terminal 80 50 -- --eval-every 10 --device sim --budget 30 --curve
screen >seen
grep -q ' 1  .* step 40' seen || { cat seen; fail 'the curve has not all steps'; }
rm -rf run
expect 0 "$KILN" train "${tiny[@]}" --eval-every 10 --out run --steps 20
expect 0 "$KILN" train --resume run --steps 40 --curve
grep -q ' 1  .* step 40' stdout || { cat stdout; fail 'the curve of a resumed run has not all steps'; }
[ "$(grep -c ' smoothed' stdout)" = 2 ] || fail 'piped, --curve is not drawn at evaluations'

# Piped: lines, and the last one in any case.
rm -rf run
expect 0 "$KILN" train "${tiny[@]}" --eval-every 0 --out run --log-every 9
grep -q $'[\r\033]' stdout && fail 'piped, but the output has what only a terminal reads'
grep '^step' stdout | sed 's/^step *\([0-9]*\).*/\1/' | tr '\n' ' ' >steps
[ "$(cat steps)" = '9 18 27 36 40 ' ] || fail "piped with --log-every 9: steps $(cat steps)"
grep -q smoothed stdout && fail 'piped, but a curve that nobody asked for'

# Samples that nobody asked for are kept, by every kind of process.
for how in '' '--device sim --budget 30' '--device sim --budget 30 --restart relay' '--json'; do
    rm -rf run
    # shellcheck disable=SC2086
    expect 0 "$KILN" train "${tiny[@]}" --eval-every 5 --out run $how
    grep -q '^{"step":5,"ms":[0-9.]*,"text":".' run/samples.jsonl || fail "no sample is kept with $how"
done
[ "$(wc -l <stdout)" = 1 ] || fail 'a sample is printed among JSON'

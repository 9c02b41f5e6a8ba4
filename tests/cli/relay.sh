#!/usr/bin/env bash
# A supervisor and its workers: the same weights, and what a person does to the one process that was
# started does what it does to any program.
. "$ROOT/tests/lib.sh"
. "$ROOT/tests/relay_lib.sh"

# ---- undisturbed ------------------------------------------------------------------------------

want 12
expect 0 "$KILN" train "${relay[@]}" --steps 12 --out "$PWD/calm"
ended calm stdout
[ "$(grep -c . stderr)" = 1 ] || fail "notices: $(cat stderr)"
restarts=$(tail -n 1 calm/metrics.jsonl | sed -n 's/.*"restarts":\([0-9]*\).*/\1/p')
[ "$restarts" -gt 24 ] || fail "only $restarts restarts"

# what people read does not show where a process ended
losses() { grep -o 'loss [0-9.]* ([0-9.]*)' stdout; }
expect 0 "$KILN" train "${plain[@]}" --steps 12 --out shown
shown=$(losses)
expect 0 "$KILN" train "${plain[@]}" --steps 12 --budget 7 --restart relay --out shown-relay
[ "$(losses)" = "$shown" ] || fail "losses $shown became $(losses)"
[ "$(grep -c 'held-out loss before' stderr)" = 1 ] || fail "said twice: $(cat stderr)"

# without restarts there is nobody to supervise
expect 0 "$KILN" train "${plain[@]}" --steps 12 --restart relay --json --out "$PWD/alone"
ended alone stdout
[ "$(sed -n 's/.*"restarts":\([0-9]*\).*/\1/p' alone/metrics.jsonl | sort -u)" = 0 ] || fail 'restarts'

# the program deleted while it runs
want 30
cp "$KILN" k
started deleted ./k train "${relay[@]}" --steps 30 --out "$PWD/deleted"
rm k
ends 0
ended deleted stdout

# ---- stopped ----------------------------------------------------------------------------------

# A fast run may be at its end before the last signal comes: three are enough.
want 300
started stopped "$KILN" train "${relay[@]}" --steps 300 --out "$PWD/stopped"
stops=0
for signal in INT TERM HUP INT TERM INT; do
    got=0
    kill -$signal $pid 2>/dev/null || true
    wait "$pid" || got=$?
    [ "$got" != 0 ] || [ "$stops" -lt 3 ] || break
    [ "$got" = 130 ] || { cat stdout stderr; fail "exit $got, not 130"; }
    stops=$((stops + 1))
    gone stopped
    says stderr 'kiln: stopping'
    says stderr "kiln train --resume $PWD/stopped"
    started stopped "$KILN" train --resume "$PWD/stopped" --json
done
[ "$got" = 0 ] || ends 0
ended stopped stdout

# a stop while nobody moves is kept; the second one leaves at once, and nobody stays
want 60
started twice "$KILN" train "${relay[@]}" --steps 60 --out "$PWD/twice"
for _ in 1 2 3; do
    workers twice | xargs -r kill -STOP 2>/dev/null || true
done
kill -INT $pid
sleep 0.1
kill -0 $pid || fail 'did not wait for the owner'
kill -INT $pid
ends 130
gone twice
go_on twice
ended twice stdout

# ---- suspended --------------------------------------------------------------------------------

states() { of "$1" | xargs ps -o stat= -p | cut -c1 | sort -u | tr -d '\n'; }
set -m
started slept "$KILN" train "${relay[@]}" --steps 60 --out "$PWD/slept"
set +m
kill -TSTP $pid
for _ in $(seq 100); do
    [ "$(states slept)" != T ] || break
    sleep 0.02
done
[ "$(states slept)" = T ] || fail "suspended, but $(of slept | xargs ps -o pid,stat,args -p)"
before=$(wc -l <slept/metrics.jsonl)
sleep 0.2
[ "$(wc -l <slept/metrics.jsonl)" = "$before" ] || fail 'it trains on'
kill -CONT $pid
lines slept $((before + 1))
ends 0
ended slept stdout

# ---- at a terminal ----------------------------------------------------------------------------

script -qec true /dev/null </dev/null >/dev/null 2>&1 || { echo 'no terminals here'; exit 0; }
printf -v command '%q ' "$KILN" train "${relay[@]}" --steps 60
command=${command/--json/}
mkfifo keys
# Ctrl-C reaches the supervisor alone
script -qec "exec $command --out $PWD/typed" typescript <keys >/dev/null 2>&1 &
pid=$!
exec 9>keys
lines typed 2
printf '\003' >&9
ends 130
exec 9>&-
gone typed
says typescript 'kiln: stopping'
! grep -q 'worker\|died' typescript || fail "$(cat typescript)"
go_on typed
ended typed stdout

# Ctrl-Z and fg, where background processes may not write to the terminal
HISTFILE='' PS1='> ' script -qec 'bash --norc --noprofile -i' typescript <keys >/dev/null 2>&1 &
pid=$!
exec 9>keys
printf 'stty tostop\n%s --out %q\n' "$command" "$PWD/fg" >&9
lines fg 2
printf '\032' >&9
for _ in $(seq 100); do
    [ "$(states fg)" != T ] || break
    sleep 0.02
done
[ "$(states fg)" = T ] || { cat typescript; fail 'Ctrl-Z does not stop all'; }
printf 'echo stopped=$?\nfg\n' >&9
lines fg 60
for _ in $(seq 100); do
    [ -n "$(of fg)" ] || break
    sleep 0.05
done
printf 'echo ended=$?\nexit\n' >&9
ends 0
exec 9>&-
says typescript 'stopped=148'
says typescript 'ended=0'
says typescript 'step 60'
gone fg
cmp -s <(lasting fg) <(lasting whole60) || fail "$(diff <(lasting fg) <(lasting whole60))"

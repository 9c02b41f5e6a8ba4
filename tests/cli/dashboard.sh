#!/usr/bin/env bash
# kiln dashboard and train --dashboard: a live run is seen, stopped and given another learning rate
# from outside; the numbers are those of a run that was never disturbed.
. "$ROOT/tests/lib.sh"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

for i in $(seq 400); do echo "Day $i: the kiln was lit, and $((i * 7 % 90)) pots came out whole."; done >text.txt
tiny=(--data text.txt --model stories15m --dim 32 --hidden 64 --layers 2 --heads 4 --kv-heads 2
    --seq 32 --batch 2 --accum 2 --threads 1 --eval-every 0 --trace-steps 0)

# ---- talking to it: the shell alone, since there may be no curl --------------------------------

# address FILE: where the dashboard is, once it has said so; sets url, port and token.
address() {
    local line
    for _ in $(seq 500); do
        line=$(grep -o 'http://127.0.0.1:[0-9]*/#token=[0-9a-f]*' "$1" 2>/dev/null | head -n 1) || true
        [ -z "$line" ] || break
        sleep 0.01
    done
    [ -n "$line" ] || { cat "$1"; fail "no address in $1"; }
    port=${line#http://127.0.0.1:} port=${port%%/*} token=${line#*token=}
}
# get PATH [HEADER]: the answer, to the file answer.
get() {
    exec 7<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1:%s\r\n%s\r\n' "$1" "$port" "${2:+$2
}" >&7
    cat <&7 >answer
    exec 7<&-
}
# post PATH BODY [TOKEN]
post() {
    exec 7<>"/dev/tcp/127.0.0.1/$port"
    printf 'POST %s HTTP/1.0\r\nHost: 127.0.0.1:%s\r\nOrigin: http://127.0.0.1:%s\r\nContent-Type: application/json\r\nX-Kiln-Token: %s\r\nContent-Length: %s\r\n\r\n%s' \
        "$1" "$port" "$port" "${3-$token}" "${#2}" "$2" >&7
    cat <&7 >answer
    exec 7<&-
}
# stands RUN STATUS: the dashboard says so, within the time of a look or two.
stands() {
    for _ in $(seq 200); do
        get /api/runs
        ! grep -q "\"name\":\"$1\",[^}]*\"status\":\"$2\"" answer || return 0
        sleep 0.02
    done
    cat answer
    fail "$1 is not $2"
}
# ended_too PORT: nobody listens there any more.
ended_too() {
    for _ in $(seq 300); do
        ! (exec 7<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || { sleep 0.02; continue; }
        return 0
    done
    fail "a dashboard still listens at $1"
}

# ---- what it must not be disturbed in ------------------------------------------------------------

expect 0 "$KILN" train "${tiny[@]}" --steps 2000 --out whole --json
whole=$(hash_of stdout)

# ---- a live run ----------------------------------------------------------------------------------

# sees an event of a step at most 2 seconds behind its line
started live "$KILN" train "${tiny[@]}" --steps 20000 --out live --dashboard --port 0
address stdout
stands live running
exec 8<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /events HTTP/1.0\r\nHost: localhost:%s\r\n\r\n' "$port" >&8
while IFS= read -r -t 5 line <&8; do
    [ "$line" != 'event: hello' ] || break
done
[ "$line" = 'event: hello' ] || fail 'no greeting'
lines live $(($(wc -l <live/metrics.jsonl) + 5))
since=$(wc -l <live/metrics.jsonl)
found=
end=$((SECONDS + 2))
while [ -z "$found" ] && IFS= read -r -t 2 line <&8; do
    case $line in
    *'"step":{"step":'*)
        step=${line#*'"step":{"step":'} step=${step%%,*}
        [ "$step" -lt "$since" ] || found=$step
        ;;
    'event: again') found=many ;; # so fast a run is asked for as a whole
    esac
    [ $SECONDS -le $end ] || break
done
exec 8<&-
[ -n "$found" ] || fail "step $since does not arrive"

# neither a wrong token nor a foreign page stops it
for wrong in '' 0123456789abcdef0123456789abcdef; do
    post /api/stop '{"run":"live"}' "$wrong"
    grep -q '^HTTP/1.. 403' answer || fail "token '$wrong': $(cat answer)"
done
get /api/runs 'Origin: http://evil.example'
grep -q '^HTTP/1.. 403' answer || fail 'a foreign page is answered'
kill -0 "$pid" || fail 'somebody else stopped it'

# who has the token does: as Ctrl-C, and it goes on with the same numbers
post /api/stop '{"run":"live"}'
grep -q '^HTTP/1.. 202' answer || fail "stop: $(cat answer)"
ends 130
says stderr 'asked to stop'
says stderr 'kiln train --resume live'
ended_too "$port"

started stopped "$KILN" train "${tiny[@]}" --steps 2000 --out stopped --dashboard --port 0 --json
address stderr
[ ! -s stdout ] || fail "stdout has more than one object: $(cat stdout)"
post /api/stop '{"run":"stopped"}'
if grep -q '^HTTP/1.. 202' answer; then
    wait "$pid" || [ $? = 130 ] || fail 'neither stopped nor at its end'
    expect 0 "$KILN" train --resume stopped --json
else
    ends 0 # it was faster
fi
[ "$(hash_of stdout)" = "$whole" ] || fail "stopped and resumed: $(hash_of stdout), not $whole"

# ---- another learning rate -------------------------------------------------------------------------

started rate "$KILN" train "${tiny[@]}" --steps 2000 --save-every 500 --out rate --dashboard --port 0
address stdout
post /api/rate '{"run":"rate","lr":1e-3}'
grep -q '^HTTP/1.. 202' answer || fail "rate: $(cat answer)"
for _ in $(seq 500); do
    ! grep -q '"peaks"' rate/run.json || break
    sleep 0.01
done
at=$(tr -d ' \n' <rate/run.json | sed -n 's/.*"peaks":\[\[\([0-9]*\),0.001\]\].*/\1/p')
[ -n "$at" ] || fail "no rate in run.json: $(cat rate/run.json)"
lines rate $((at + 3))
kill -9 "$pid"
wait "$pid" || true
ended_too "$port"
[ "$(sed -n "$((at + 1))s/.*\"lr\":\([0-9.e-]*\).*/\1/p" rate/metrics.jsonl)" != \
    "$(sed -n "${at}s/.*\"lr\":\([0-9.e-]*\).*/\1/p" rate/metrics.jsonl)" ] || fail 'the same rate'
expect 0 "$KILN" train --resume rate --json
changed=$(hash_of stdout)
# the same run, told before it began, and never killed
started told "$KILN" train "${tiny[@]}" --steps 2000 --save-every 500 --out told
kill -INT "$pid"
ends 130
[ "$(wc -l <told/metrics.jsonl)" -le "$at" ] || skip "the second run was stopped behind step $at"
sed -i "0,/{/s//{\"peaks\": [[$at, 0.001]],/" told/run.json
expect 0 "$KILN" train --resume told --json
[ "$(hash_of stdout)" = "$changed" ] || fail "killed behind a change of rate: $changed, not $(hash_of stdout)"
expect 0 "$KILN" verify rate

# ---- processes that are replaced: one dashboard, whatever becomes of them --------------------------

for how in exec relay; do
    started $how "$KILN" train "${tiny[@]}" --steps 5000 --budget 7 --restart $how --out $how --dashboard --port 0
    address stdout
    lines $how 6
    [ "$(grep -c '#token=' stdout)" = 1 ] || fail "$how: the address is printed more than once"
    stands $how running
    post /api/stop "{\"run\":\"$how\"}"
    grep -q '^HTTP/1.. 202' answer || fail "$how: stop: $(cat answer)"
    ends 130
    ended_too "$port"
done

# ---- alone -----------------------------------------------------------------------------------------

mkdir none
"$KILN" dashboard --port 0 --json whole rate none >stdout 2>stderr &
pid=$!
address stdout
says stderr 'dashboard: no run is in none yet'
! grep -q whole stderr || fail 'a run is told to be none'
stands whole finished
stands rate finished
get /metrics
says answer 'kiln_run_step{run="whole"} 2000'
cp answer metrics
post /api/stop '{"run":"whole"}'
grep -q '^HTTP/1.. 409' answer || fail "a run that nobody trains: $(cat answer)"

# a port that is taken is said, and no run is made for it
expect 1 "$KILN" dashboard whole --port "$port"
says stderr "port $port of 127.0.0.1 is in use"
expect 1 "$KILN" train "${tiny[@]}" --out never --dashboard --port "$port"
says stderr "port $port of 127.0.0.1 is in use"
[ ! -e never ] || fail 'a run was made'
kill -INT "$pid"
ends 0
expect 2 "$KILN" train "${tiny[@]}" --out never --port 7000
says stderr '--port is of --dashboard'

# where nothing is yet it waits, and says for what
(cd none && exec "$KILN" dashboard --port 0) >stdout 2>stderr &
pid=$!
address stdout
says stderr 'dashboard: there is no folder runs yet'
kill -INT "$pid"
ends 0
expect 1 "$KILN" dashboard absent
says stderr 'absent: there is nothing of that name'
expect 1 "$KILN" dashboard text.txt
says stderr 'text.txt is no folder'

# ---- what others read ------------------------------------------------------------------------------

need_python prometheus_client
sed '1,/^\r$/d' metrics | "$PYTHON" -c '
import sys
from prometheus_client.parser import text_string_to_metric_families
families = {f.name: f for f in text_string_to_metric_families(sys.stdin.read())}
runs = lambda name: {s.labels["run"]: s.value for s in families[name].samples}
assert families["kiln_up"].samples[0].value == 1
assert runs("kiln_run_step") == {"whole": 2000.0, "rate": 2000.0}, runs("kiln_run_step")
assert families["kiln_run_tokens"].type == "counter"
assert runs("kiln_run_tokens")["whole"] == 2000 * 2 * 2 * 32
assert all(f.documentation for f in families.values())
' || fail 'Prometheus cannot read it'

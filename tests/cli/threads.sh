#!/usr/bin/env bash
# A process that trains has no more threads than --threads and the helpers that docs/architecture.md
# names, one of each: counted from outside, many times in a run.
. "$ROOT/tests/lib.sh"

[ -r /proc/self/task ] || skip 'no /proc'
! grep -q __tsan_init "$KILN" || skip 'the thread sanitizer has a thread of its own'

for i in $(seq 600); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
tiny=(--data text.txt --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259 --seq 32
    --batch 2 --accum 2 --lr 3e-3 --warmup 2 --save-every 40 --eval-every 0 --json)

# watch PID RUN: until it ends, how many times it was looked at while it trained (looks), the most
# threads seen at once of all kinds (most[all]) and of each name (most[NAME]); the main thread is
# "main". A thread has the name of its creator until it has given itself its own.
declare -A most
watch() {
    local task name kind n
    looks=0 most=([all]=0)
    while kill -0 "$1" 2>/dev/null; do
        declare -A now=([all]=0)
        for task in /proc/"$1"/task/*; do
            { read -r name <"$task/comm"; } 2>/dev/null || continue
            [ "${task##*/}" != "$1" ] || name=main
            now[all]=$((now[all] + 1))
            now[$name]=$((${now[$name]:-0} + 1))
        done
        for kind in "${!now[@]}"; do
            n=${most[$kind]:-0}
            [ "${now[$kind]}" -le "$n" ] || most[$kind]=${now[$kind]}
        done
        unset now
        [ ! -e "$2/metrics.jsonl" ] || looks=$((looks + 1))
        sleep 0.001
    done
}

# at_most THREADS HELPERS FLAGS...: a run has all of its pool, the helpers and nothing else.
run=0
at_most() {
    local threads=$1 helpers=$2 kind
    shift 2
    run=$((run + 1))
    "$KILN" train "${tiny[@]}" --threads "$threads" --out "run$run" "$@" >stdout 2>stderr &
    pid=$!
    watch $pid run$run
    ends 0
    [ $looks -ge 10 ] || fail "$*: looked $looks times only"
    [ "${most[all]}" -le $((threads + $(wc -w <<<"$helpers"))) ] ||
        fail "$*: ${most[all]} threads with --threads $threads"
    [ "${most[kiln pool]:-0}" = $((threads - 1)) ] ||
        fail "$*: ${most[kiln pool]:-0} workers with --threads $threads"
    for kind in "${!most[@]}"; do
        case $kind in
        all | main | 'kiln pool' | kiln) ;; # kiln: has no name yet
        *)
            [[ " $helpers " == *" ${kind#kiln } "* ]] || fail "$*: a thread '$kind'"
            [ "${most[$kind]}" = 1 ] || fail "$*: ${most[$kind]} threads '$kind'"
            ;;
        esac
    done
    [[ " $helpers " != *' compile '* ]] || [ "${most[kiln compile]:-0}" = 1 ] || fail "$*: nobody compiles"
}

for threads in 1 2 3; do
    at_most $threads 'save' --steps 200
    at_most $threads 'compile save' --steps 80 --budget 1000 --overlap exact
    at_most $threads 'compile save' --steps 80 --overlap delayed
done
for overlap in exact delayed; do
    for threads in 1 2; do
        at_most $threads 'compile save' --device sim --steps 12 --budget 1000 --overlap $overlap
    done
done
at_most 2 'save' --device sim --weight-mode dynamic --steps 12

# shellcheck shell=bash
# What tests/cli/ranks*.sh share: kiln on several ranks of this machine; behind tests/lib.sh.
command -v mpirun >/dev/null || skip "no mpirun here; scripts/setup --mpi installs Open MPI"
MPI_KILN=${KILN_MPI_PROGRAM:-}
[ -x "$MPI_KILN" ] || skip "no kiln with MPI was built: $MPI_KILN"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# ranks N ARGUMENTS...: kiln on so many ranks of this machine.
ranks() {
    local n=$1
    shift
    mpirun --oversubscribe --bind-to none -n "$n" "$MPI_KILN" "$@"
}

# A thread each.
seq 1 6000 | sed 's/.*/the kiln is warm & the clay is dry: &/' >text.txt
# shellcheck disable=SC2034 # of those that read this file
small=(--data text.txt --dim 64 --hidden 96 --heads 4 --kv-heads 2 --layers 3 --seq 32 --batch 2 --accum 8
    --threads 1 --lr 2e-3 --warmup 5 --decay constant --precision fp32 --save-every 10 --eval-every 10)

losses() { sed -n 's/.*"loss":\([^,]*\),.*/\1/p' "$1/metrics.jsonl"; }
val_losses() { sed -n 's/.*"val_loss":\([^,}]*\).*/\1/p' "$1/metrics.jsonl"; }
# alike A B: losses of all steps and evaluations, to 1e-5.
alike() {
    paste <(losses "$1") <(losses "$2") >pairs
    paste <(val_losses "$1") <(val_losses "$2") >>pairs
    awk 'NF != 2 || ($1 - $2) ^ 2 > 1e-10 { bad = 1; print } END { exit bad || NR < 50 }' pairs ||
        fail "losses of $1 and $2 differ"
}

# region FILE NAME OUT: the bytes of a region of a state file.
region() {
    local at bytes
    read -r at bytes < <("$KILN" inspect "$1" --json |
        sed -n "s/.*{\"name\": \"$2\", \"offset\": \([0-9]*\), \"bytes\": \([0-9]*\)}.*/\1 \2/p")
    [ "${bytes:-0}" -gt 0 ] || fail "$1 has no $2"
    dd if="$1" of="$3" bs=64K iflag=skip_bytes,count_bytes skip="$at" count="$bytes" status=none
}

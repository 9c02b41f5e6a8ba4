#!/usr/bin/env bash
# kiln bench: the promised keys, the parts, rows of --csv, forced tiers.
# alone: it measures
. "$ROOT/tests/lib.sh"

small=(--dim 64 --hidden 96 --heads 4 --layers 2 --vocab 300 --seq 32 --batch 2 --steps 1)

expect 0 "$KILN" bench "${small[@]}" --json
for key in model batch seq accum threads precision forward_ms backward_ms update_ms step_ms \
    tokens_per_s tflops gemm_ceiling_tflops copy_gb_s parts ceiling_share peak_bytes tier provider; do
    says stdout "\"$key\": "
done
for part in embed attn_fwd ffn_fwd head ffn_bwd attn_bwd embed_bwd norm update; do
    says stdout "\"name\": \"$part\", \"ms\": "
done

# A header once, rows of every part; what is there stays. rows WANTED: lines about parts, not pieces.
rows() { [ "$(grep -vcE ',[a-z_]+\.[a-z_]+,[0-9.]+,' rows.csv)" = "$1" ] || fail "not $1 rows: $(cat rows.csv)"; }
expect 0 "$KILN" bench "${small[@]}" --csv rows.csv
says stdout 'feed-forward backward'
says stdout 'of products'
rows 11
cp rows.csv before.csv
lines=$(wc -l <before.csv)
expect 0 env KILN_CPU=ref "$KILN" bench "${small[@]}" --precision fp32 --threads 1 --csv rows.csv
says stdout 'ref kernels (forced)'
rows 21
head -n "$lines" rows.csv | cmp - before.csv || fail 'earlier rows changed'
[ "$(grep -c '^commit,' rows.csv)" = 1 ] || fail 'more than one header'
[ "$(grep -c ',ref,own,fp32,1,.*,step,' rows.csv)" = 1 ] || fail 'rows do not name tier, provider and threads'
awk -F, '{ gsub(/"[^"]*"/, "text") } NF != 19 { exit 1 }' rows.csv || fail 'a row of other columns'

echo 'a,b' >other.csv
expect 2 "$KILN" bench "${small[@]}" --csv other.csv
says stderr 'another header'
[ "$(cat other.csv)" = 'a,b' ] || fail 'a foreign file was changed'
expect 1 "$KILN" bench "${small[@]}" --csv none/rows.csv
says stderr 'none/rows.csv'

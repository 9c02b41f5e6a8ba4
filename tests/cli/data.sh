#!/usr/bin/env bash
# What people train on: several files with weights, compressed, as JSONL, as conversations; the run
# keeps its tokens and its template, goes on to the bit and answers.
. "$ROOT/tests/lib.sh"

cat >chat.jinja <<'T'
{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}a:{{ m.content }}{{ eos_token }}
{% else %}u:{{ m.content }}
{% endif %}{% endfor %}{% if add_generation_prompt %}a:{% endif %}
T
echo '{"bos_token": "<s>", "eos_token": "</s>"}' >tokenizer_config.json
for i in $(seq 60); do
    echo "{\"messages\": [{\"role\": \"user\", \"content\": \"twice $i?\"}," \
        "{\"role\": \"assistant\", \"content\": \"that is $((i * 2))\"}]}"
done >chat.jsonl
for i in $(seq 300); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
    echo '<|endoftext|>'
done >plain.txt
gzip -c plain.txt >packed.txt.gz
cp plain.txt 'a,b:3.txt'

# Compressed or not, the ids are the same.
expect 0 "$KILN" tokenize plain.txt -o plain.tok
expect 0 "$KILN" tokenize packed.txt.gz -o packed.tok
cmp plain.tok packed.tok || fail 'a gzip text has other ids'
head -c 900 packed.txt.gz >cut.txt.gz
expect 1 "$KILN" tokenize cut.txt.gz -o cut.tok
says stderr 'cut.txt.gz'
says stderr 'ends in the middle'
[ ! -e cut.tok ] || fail 'half a text left a token file'

# A broken line is named; --skip-bad counts it.
{ head -n 3 chat.jsonl; echo '{"messages": ['; tail -n 3 chat.jsonl; } >broken.jsonl
expect 1 "$KILN" tokenize broken.jsonl -o broken.tok --chat-template chat.jinja
says stderr 'broken.jsonl line 4'
expect 0 "$KILN" tokenize broken.jsonl -o broken.tok --chat-template chat.jinja --skip-bad
says stdout '1 lines left out'
says stdout '6 documents'
expect 2 "$KILN" tokenize chat.jsonl -o chat.tok
says stderr '--chat-template'
echo '{% include "x" %}' >bad.jinja
expect 1 "$KILN" tokenize chat.jsonl -o chat.tok --chat-template bad.jinja
says stderr 'line 1'
says stderr "'include'"

# A list of files; a name with a comma and a colon is a file, or is escaped.
small=(--dim 32 --hidden 64 --heads 2 --layers 1 --seq 32 --batch 2 --accum 2 --overlap off
    --eval-every 3 --save-every 3)
train=("$KILN" train --data 'chat.jsonl:2,packed.txt.gz,a\,b\:3.txt:0.5' --chat-template chat.jinja
    --doc-mask "${small[@]}")
expect 0 "${train[@]}" --threads 1 --steps 6 --out whole
expect 0 "${train[@]}" --threads 2 --steps 6 --out other
hash_line() { "$KILN" inspect "$1" --json >json; hash_of json; }
[ "$(hash_line whole)" = "$(hash_line other)" ] || fail 'on two threads it has other weights'
says whole/run.json '"doc_mask": true'
expect 0 "$KILN" train --data 'a,b:3.txt' "${small[@]}" --steps 2 --out named
expect 1 "$KILN" train --data 'absent.txt:2,plain.txt' "${small[@]}" --steps 2 --out none
says stderr 'absent.txt'
expect 2 "$KILN" train --data 'plain.txt:much' "${small[@]}" --steps 2 --out none
[ ! -e none ] || fail 'a refused run left a folder'

# Conversations without an answer are told, and refused where there is nothing else.
for i in $(seq 30); do echo "{\"messages\": [{\"role\": \"user\", \"content\": \"only $i\"}]}"; done >asked.jsonl
expect 1 "$KILN" train --data asked.jsonl --chat-template chat.jinja "${small[@]}" --steps 2 --out mute
says stderr 'asked.jsonl: 30 conversations, and no answer in them'
[ ! -e mute ] || fail 'a refused run left a folder'
# Where nothing counts there is a loss of 0, and no NaN: what is held out has the only answer.
echo '{"messages": [{"role": "user", "content": "and"}, {"role": "assistant", "content": "31"}]}' >>asked.jsonl
expect 0 "$KILN" train --data asked.jsonl --chat-template chat.jinja "${small[@]}" --steps 2 --out mute
says stderr '30 of 31 documents are conversations without an answer'
says mute/metrics.jsonl '"loss":0.0,"grad_norm":0.0'
! grep -q 'NaN\|nan' mute/metrics.jsonl || fail 'a loss is no number'

# It goes on and can be replayed without its texts.
mkdir gone
mv chat.jsonl packed.txt.gz 'a,b:3.txt' chat.jinja gone
expect 0 "$KILN" train --resume whole --steps 9
expect 0 "$KILN" verify other
mv gone/* .

# The run has its template.
expect 0 "$KILN" generate whole --chat -p 'twice 4?' -n 40 -t 0
expect 0 "$KILN" eval whole --data chat.jsonl --doc-mask
says stdout 'tokens'
expect 2 "$KILN" generate whole --system 'Be brief.'

# Of several files to evaluate on the first windows are of all, and each has its own bytes a token.
for i in $(seq 20); do echo 'All of this text is of other words than that one, and never ends'; done >a.txt
printf '{"skipped": "%0500d", "text": "qqqq zzzz qqqq zzzz qqqq zzzz qqqq zzzz qqqq zzzz"}\n' 1 >b.jsonl
value() { sed -n "s/.*\"$1\": \([-0-9.e]*\).*/\1/p" stdout; }
totals=() # nats and bytes of each
for data in a.txt b.jsonl a.txt,b.jsonl; do
    expect 0 "$KILN" eval named --data "$data" --seq 32 --json
    totals+=("$(value loss) $(value tokens) $(value bits_per_byte)")
done
echo "${totals[*]}" | awk '{
    for (i = 0; i < 3; i++) { nats[i] = $(3*i+1) * $(3*i+2); bytes[i] = nats[i] / log(2) / $(3*i+3) }
    print nats[0], nats[1], nats[2], bytes[0], bytes[1], bytes[2]
    nat = (nats[0] + nats[1]) / nats[2] - 1; byte = (bytes[0] + bytes[1]) / bytes[2] - 1
    exit !(nat * nat < 1e-10 && byte * byte < 1e-10) }' || fail 'two files are not their sum'
cat a.txt a.txt a.txt a.txt a.txt >long.txt
expect 0 "$KILN" train --data plain.txt --val long.txt,plain.txt "${small[@]}" --eval-windows 8 --steps 3 --out both
expect 0 "$KILN" train --data plain.txt --val long.txt "${small[@]}" --eval-windows 8 --steps 3 --out first
[ "$(grep -o '"val_loss":[^,}]*' both/metrics.jsonl)" != "$(grep -o '"val_loss":[^,}]*' first/metrics.jsonl)" ] ||
    fail 'only the first of the held-out files is read'
grep -q '"val_loss"' both/metrics.jsonl || fail 'no held-out loss'
expect 2 "$KILN" train --data plain.txt --val a.txt:2,plain.txt "${small[@]}" --steps 2 --out none
says stderr 'no weights'
expect 2 "$KILN" eval named --data a.txt:2,plain.txt
says stderr 'no weights'

# What is left out, or no UTF-8, is told.
printf 'caf\351 of long ago, which is more than one window of it all\n' >latin.txt
expect 0 "$KILN" eval whole --data latin.txt,broken.jsonl --skip-bad --seq 16
says stderr 'latin.txt: 1 bytes are not UTF-8'
says stderr 'broken.jsonl: 1 lines left out'

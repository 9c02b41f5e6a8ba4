#!/usr/bin/env bash
# Conversations with a tokenizer that has added tokens: what counts, beside transformers; the chat
# template goes from format to format and is asked from each.
. "$ROOT/tests/lib.sh"

# ---- a tokenizer.json with ChatML's tokens, and three templates ---------------------------------

for i in $(seq 300); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river, twice."
done >plain.txt
expect 0 "$KILN" tokenize --train-bpe 280 plain.txt -o learned.json
mkdir base marked
added() { printf '{"id": %s, "content": "%s", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}' "$@"; }
sed "0,/^  }\$/s//  }, $(added 280 '<|im_start|>'), $(added 281 '<|im_end|>')/" learned.json >base/tokenizer.json
cat >base/tokenizer_config.json <<'T'
{"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": false,
 "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
T
cp base/tokenizer.json base/tokenizer_config.json marked
cat >base/chat_template.jinja <<'T'
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\n' + m.content + eos_token + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
T
cat >marked/chat_template.jinja <<'T'
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}{% endgeneration %}
{%- else %}{{ m.content + eos_token }}{% endif %}{{ '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
T
for i in $(seq 40); do
    cat <<T
{"messages": [{"role": "system", "content": "Be brief, <b> ünd kind."}, {"role": "user", "content": "The birds: twice $i?"}, {"role": "assistant", "content": "that is $((i * 2)), by the river"}, {"role": "user", "content": "  and\n\nthen "}, {"role": "assistant", "content": "<|im_start|> is $i\nold trees. 你好 "}]}
T
done >chat.jsonl

# ---- what counts ---------------------------------------------------------------------------------

# Found by asking the template, or marked by it: the same ids and the same mask.
expect 0 "$KILN" tokenize chat.jsonl --tokenizer base -o base.tok
says stdout '40 documents'
expect 0 "$KILN" tokenize chat.jsonl --tokenizer marked -o marked.tok
cmp base.tok marked.tok || fail 'marked answers are others than those found'

# ---- from format to format ----------------------------------------------------------------------

small=(--dim 32 --hidden 64 --heads 2 --layers 1 --seq 64 --batch 2 --accum 1 --overlap off)
expect 0 "$KILN" train --data chat.jsonl --tokenizer base "${small[@]}" --steps 30 --lr 1e-2 --out run
cmp run/chat_template.jinja base/chat_template.jinja || fail 'the run has another template'
asks() { "$KILN" generate "$1" --chat --system 'Be brief.' -p 'twice 4?' -n 60 -t 0 --precision fp32; }
asks run >want
expect 0 "$KILN" convert run m.gguf
says stdout 'inside, and the chat template'
asks m.gguf >got
cmp got want || fail 'the .gguf answers otherwise'
expect 0 "$KILN" tokenize chat.jsonl --tokenizer m.gguf -o gguf.tok
cmp <(tail -c +65 gguf.tok) <(tail -c +65 base.tok) || fail 'the template of the .gguf writes other ids'
for out in fromrun fromgguf; do
    in=run
    [ $out = fromrun ] || in=m.gguf
    expect 0 "$KILN" convert $in $out
    cmp $out/chat_template.jinja base/chat_template.jinja || fail "$in to a folder: another template"
    says $out/tokenizer_config.json '<|im_end|>'
    asks $out >got
    cmp got want || fail "$out answers otherwise"
done
expect 0 "$KILN" convert fromgguf again.gguf
asks again.gguf >got
cmp got want || fail 'the .gguf of the folder answers otherwise'
expect 0 "$KILN" train --model m.gguf --data chat.jsonl --steps 1 --seq 64 --batch 1 --accum 1 --out tuned
cmp tuned/chat_template.jinja base/chat_template.jinja || fail 'a tuned .gguf lost its template'
expect 0 "$KILN" eval m.gguf --data chat.jsonl

# A mark that takes the blanks beside it: GGUF has no place for that.
cp -r base strips && sed -i 's/"lstrip": false/"lstrip": true/' strips/tokenizer.json
expect 1 "$KILN" convert run strips.gguf --tokenizer strips
says stderr 'reads back as another'
[ ! -e strips.gguf ] || fail 'it was written'

# ---- where a template is looked for, and when it is needed ---------------------------------------

# Beside the tokenizer, when the model has none; the model's own comes first.
expect 0 "$KILN" convert run alone.bin
mkdir -p lone && mv alone.bin lone/model.bin
expect 0 "$KILN" eval lone/model.bin --tokenizer base --data chat.jsonl --windows 4 --json
cp stdout beside
expect 0 "$KILN" eval run --data chat.jsonl --windows 4 --json
cmp stdout beside || fail 'another loss with the template beside the tokenizer'
expect 0 "$KILN" generate lone/model.bin --tokenizer base --chat -p 'twice 4?' -n 40 -t 0
expect 1 "$KILN" eval lone/model.bin --tokenizer base --data chat.jsonl --chat-template none
cp -r base other && echo 'never' >other/chat_template.jinja
expect 0 "$KILN" eval run --tokenizer other --data chat.jsonl --windows 4 --json
cmp stdout beside || fail "the tokenizer's template came before the run's"
# One that cannot be used is no error before a conversation needs it; then it is, whatever may be
# left out.
cp -r base closed && printf '{%% include "x" %%}' >closed/chat_template.jinja
for i in $(seq 60); do echo "{\"text\": \"The $i birds sang by the river.\"}"; done >text.jsonl
(cat text.jsonl && head -n 1 chat.jsonl) >both.jsonl
for data in plain.txt text.jsonl; do
    expect 0 "$KILN" tokenize $data --tokenizer closed -o ${data%%.*}.closed.tok
    expect 0 "$KILN" eval lone/model.bin --tokenizer closed --data $data --windows 2
    expect 0 "$KILN" train --data $data --tokenizer closed "${small[@]}" --steps 1 --out run-${data#*.}
    cmp run-${data#*.}/chat_template.jinja closed/chat_template.jinja || fail 'it did not go along'
    expect 0 "$KILN" eval run-${data#*.} --data $data --windows 2
done
for skip in '' --skip-bad; do
    expect 1 "$KILN" tokenize both.jsonl --tokenizer closed -o both.tok $skip
    says stderr 'line 61'
    says stderr "'include'"
done

# What kiln does not understand goes along all the same, and is named where it is needed.
cp -r fromrun odd
printf '%s' '{% include "x" %}{{ "é" }}' >odd/chat_template.jinja
expect 0 "$KILN" convert odd odd.gguf
expect 0 "$KILN" convert odd.gguf back
cmp back/chat_template.jinja odd/chat_template.jinja || fail 'a template did not go along'
expect 1 "$KILN" generate odd.gguf --chat -p 'twice 4?'
says stderr 'odd.gguf'
says stderr "'include'"
rm odd/chat_template.jinja
expect 0 "$KILN" convert odd none.gguf
expect 2 "$KILN" generate none.gguf --chat -p 'twice 4?'
says stderr 'none.gguf has no chat template'

# ---- beside transformers -------------------------------------------------------------------------

# ---- where an answer ends ------------------------------------------------------------------------

# Its end is a text of several tokens, which the model has learned: it is not told, nor what follows.
# With --chat -n counts the tokens of the answer.
mkdir plain
cp learned.json plain/tokenizer.json
cat >plain/chat_template.jinja <<'T'
{%- for m in messages %}{{ '[' + m.role + ']' + m.content + '[/done]\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '[assistant]' }}{% endif %}
T
for _ in $(seq 40); do
    echo '{"messages": [{"role": "user", "content": "birds?"}, {"role": "assistant", "content": "[/old] trees, twice."}]}'
done >plain.jsonl
expect 0 "$KILN" train --data plain.jsonl --tokenizer plain "${small[@]}" --steps 120 --lr 1e-2 --out ends
[ "$("$KILN" generate ends --chat -p 'birds?' -t 0 -n 60)" = '[/old] trees, twice.' ] ||
    fail "the answer is $("$KILN" generate ends --chat -p 'birds?' -t 0 -n 60)"
expect 0 "$KILN" generate ends --chat -p 'birds?' -t 0 -n 4
says stdout '[/'

need_python transformers
cat >compare.py <<'E'
import json, struct, sys
from transformers import AutoTokenizer

tok = AutoTokenizer.from_pretrained("marked")
data = open("marked.tok", "rb").read()
width, vocab, n = struct.unpack_from("<IIQ", data, 8)
at = 64 + (n * width + 7) // 8 * 8
words = (n + 63) // 64
ids = list(struct.unpack_from(f"<{n}{'H' if width == 2 else 'I'}", data, 64))
bits = lambda k: [data[at + 8 * words * k + i // 8] >> i % 8 & 1 for i in range(n)]
counts, begins = bits(0), bits(1)
want_ids, want_counts, want_begins = [], [], []
for line in open("chat.jsonl", encoding="utf-8"):
    said = tok.apply_chat_template(json.loads(line)["messages"], return_dict=True,
                                   return_assistant_tokens_mask=True)
    want_ids += said["input_ids"]
    want_counts += said["assistant_masks"]
    want_begins += [1] + [0] * (len(said["input_ids"]) - 1)
assert ids == want_ids, next(i for i in range(n) if ids[i] != want_ids[i])
assert counts == want_counts, [i for i in range(n) if counts[i] != want_counts[i]]
assert begins == want_begins
assert 0 < sum(counts) < n
# The end of an answer counts, the end of a prompt does not.
assert {c for i, c in zip(ids, counts) if i == 281} == {0, 1}
print(n, "ids,", sum(counts), "count")
E
"$PYTHON" compare.py || fail 'transformers writes the conversations otherwise'

need_python gguf
cat >keys.py <<'E'
import gguf
reader = gguf.GGUFReader("m.gguf")
field = reader.fields["tokenizer.chat_template"]
assert bytes(field.parts[field.data[0]]) == open("base/chat_template.jinja", "rb").read()
E
"$PYTHON" keys.py || fail 'the gguf package reads another template'

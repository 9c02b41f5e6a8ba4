#!/usr/bin/env bash
# A run with a vocabulary of its own (tokenizer.bin: SentencePiece-like, bytes for what it lacks) is
# exported whole: the Hugging Face folder and the GGUF file have its tokenizer, and write on as the
# run does; the package `tokenizers` gives kiln's ids.
. "$ROOT/tests/lib.sh"

for i in $(seq 1500); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees, naïve café, by the river."
done >text.txt

# With characters, bytes and blanks that the vocabulary was not learned from. Not with the names of its
# marks (<s>) and U+2581: those are marks and blanks in tokenizer.json, and letters in tokenizer.bin.
printf '%s' 'The 17 birds  sang to the old trees.' >prompt
{
    head -n 40 text.txt
    printf '  two blanks,\ttabs,\r\n\n\nnewlines, Ünïcödé, 日本語, 𝛼𝛽, 🙂👩‍🚀, عربى, \\ " <0x41> <b> '
    printf 'zzzzqqqq  %%$#@!   end '
} >mixed.txt

expect 0 "$KILN" train --data text.txt --minutes 0.5 --steps 40 --batch 1 --accum 2 --seq 128 \
    --dim 32 --layers 2 --vocab 400 --out run
[ -s run/tokenizer.bin ] || fail 'the run has no tokenizer.bin'
expect 0 "$KILN" convert run hf/
[ -s hf/tokenizer.json ] || fail 'no tokenizer in the folder'
expect 0 "$KILN" convert run model.gguf
expect 0 "$KILN" convert hf/ again.bin
expect 0 "$KILN" convert model.gguf third.bin
for file in again.bin third.bin; do cmp run/model.bin $file || fail "$file has other weights"; done

# What they write, and the ids that they read, are the run's.
for prompt in "$(cat prompt)" '' 'Ünïcödé 日本'; do
    expect 0 "$KILN" generate run -t 0 -n 60 -p "$prompt"
    mv stdout want
    for model in hf model.gguf; do
        expect 0 "$KILN" generate $model -t 0 -n 60 -p "$prompt"
        cmp stdout want || fail "$model writes on otherwise"
    done
done
expect 0 "$KILN" tokenize mixed.txt --ids --tokenizer run/tokenizer.bin
mv stdout ids
for tokenizer in hf/tokenizer.json hf model.gguf; do
    expect 0 "$KILN" tokenize mixed.txt --ids --tokenizer $tokenizer
    cmp stdout ids || fail "$tokenizer gives other ids"
done
expect 0 "$KILN" tokenize text.txt -o run.tok --tokenizer run/tokenizer.bin

need_python tokenizers
cat >compare.py <<'P'
import struct, sys, tokenizers
t = tokenizers.Tokenizer.from_file("hf/tokenizer.json")
# kiln tokenize --ids may or may not begin with BOS; it drops nothing.
want = [int(line) for line in open("ids")]
text = open("mixed.txt", newline="", encoding="utf-8").read()
got = t.encode(text).ids
first = want if want[0] == got[0] else [got[0]] + want
if first != got:
    at = next(i for i, (a, b) in enumerate(zip(first + [None], got + [None])) if a != b)
    sys.exit(f"id {at}: kiln {first[at:at+5]}, tokenizers {got[at:at+5]}: {t.decode(got[max(0,at-3):at+3])!r}")
data = open("run.tok", "rb").read()
count = struct.unpack_from("<Q", data, 16)[0]
lines = open("text.txt", encoding="utf-8").read().strip()
if list(struct.unpack_from(f"<{count}H", data, 64)) != t.encode(lines).ids:
    sys.exit("text.txt: ids differ")
if t.decode(t.encode(lines).ids) != lines:
    sys.exit("text.txt does not come back")
P
"$PYTHON" compare.py || fail 'tokenizers reads the vocabulary otherwise'

need_python gguf
"$PYTHON" - <<'P' || fail 'the GGUF file lacks the tokenizer'
import gguf, tokenizers
fields = gguf.GGUFReader("model.gguf").fields
tokens = fields["tokenizer.ggml.tokens"].contents()
t = tokenizers.Tokenizer.from_file("hf/tokenizer.json")
assert fields["tokenizer.ggml.model"].contents() == "llama"
assert len(tokens) == t.get_vocab_size() == 400, len(tokens)
assert all(t.id_to_token(i) == piece for i, piece in enumerate(tokens))
P

need_python torch transformers
"$PYTHON" - <<'P' >theirs || fail 'transformers does not load the folder'
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
transformers.logging.set_verbosity_error()
t = AutoTokenizer.from_pretrained("hf")
m = AutoModelForCausalLM.from_pretrained("hf", dtype=torch.float32)
x = t(open("prompt").read(), return_tensors="pt")["input_ids"]
print(t.decode(m.generate(x, max_new_tokens=20, do_sample=False)[0], skip_special_tokens=True))
P
expect 0 "$KILN" generate run -t 0 -n 20 -p "$(cat prompt)"
cmp <(head -c 60 stdout) <(head -c 60 theirs) || { cat stdout theirs; fail 'transformers writes on otherwise'; }

#!/usr/bin/env bash
# The same vocabulary, merges and ids as the `tokenizers` package learns from 10 MB.
. "$ROOT/tests/lib.sh"
need "$KILN_DATA/tinyshakespeare.txt"
need_python tokenizers

cat >text.py <<'END'
# Two texts, over and over; words of the later rounds are changed, and other scripts come in.
import random, sys
random.seed(1)
data = sys.argv[1]
words = []
for name in ("tinyshakespeare.txt", "tinystories_val.txt"):
    with open(data + "/" + name, encoding="utf-8", newline="") as file:
        words += file.read().split(" ")
foreign = ["naïve", "Straße", "Ωμέγα", "привет,", "мир", "你好世界", "日本語の", "한국어", "مرحبا",
           "e\u0301te\u0301", "😀😀", "x\u00a0y", "\u3000z", "1984", "3.14", "don't", "WE'LL", "a--b",
           "......", "======", "\t\tif", "\r\n", "  ", "\n\n\n", "_under_score_", "http://a.b/c?d=e"]
size, out = 0, []
while size < 10_000_000:
    word = random.choice(foreign) if random.random() < 0.05 else words[len(out) % len(words)]
    if len(out) > len(words) and len(word) > 3 and random.random() < 0.2:
        at = random.randrange(len(word) - 1)
        word = word[:at] + word[at + 1] + word[at] + word[at + 2:]
    if random.random() < 0.001:
        word = "<|endoftext|>" + word
    out.append(word)
    size += len(word.encode()) + 1
with open("text.txt", "w", encoding="utf-8", newline="") as file:
    file.write(" ".join(out))
END
"$PYTHON" text.py "$KILN_DATA"
expect 0 "$KILN" tokenize --train-bpe 4096 text.txt -o kiln.json
expect 0 "$KILN" tokenize text.txt --tokenizer kiln.json -o text.tok

cat >compare.py <<'END'
import json, struct
from tokenizers import Tokenizer, Regex, models, pre_tokenizers, trainers
mine = Tokenizer.from_file("kiln.json")
spec = json.load(open("kiln.json", encoding="utf-8"))
other = Tokenizer(models.BPE())
pattern = spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
other.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(pattern), "isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
trainer = trainers.BpeTrainer(
    vocab_size=4096, min_frequency=2, show_progress=False, special_tokens=["<|endoftext|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
with open("text.txt", encoding="utf-8", newline="") as file:
    documents = [d.strip(" \n\t\r") for d in file.read().split("<|endoftext|>")]
documents = [d for d in documents if d]
other.train_from_iterator(documents, trainer)
assert mine.get_vocab() == other.get_vocab(), "other pieces or ids"
merges = [json.loads(t.to_str())["model"]["merges"] for t in (mine, other)]
assert merges[0] == merges[1], "other merges"
assert len(merges[0]) == 4096 - 257
with open("text.tok", "rb") as file:
    blob = file.read()[64:]
ids = list(struct.unpack("<%dH" % (len(blob) // 2), blob))
want = []
for encoding in other.encode_batch(documents, add_special_tokens=False):
    want += [0] + encoding.ids
assert ids == want, "other ids"
assert mine.decode(mine.encode(documents[0]).ids) == documents[0]
END
"$PYTHON" compare.py || fail 'what kiln learned is not what tokenizers learns'
